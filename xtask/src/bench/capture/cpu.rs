//! Processor time of processes, from `/proc`.

/// What a tick is: Linux counts processor time for programs in hundredths of a second.
const TICKS_A_SECOND: f64 = 100.0;

/// Seconds that a process has used; 0 if it has ended.
pub fn own(process: u32) -> f64 {
    sum(process, 11)
}

/// Seconds that its children used which have ended.
pub fn ended_children(process: u32) -> f64 {
    sum(process, 13)
}

/// Two neighbouring fields of `/proc/<id>/stat`, counted from the state, which follows the name in parentheses.
fn sum(process: u32, first: usize) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    parse(&text, first).unwrap_or(0.0)
}

fn parse(text: &str, first: usize) -> Option<f64> {
    let fields = text.get(text.rfind(')')? + 2..)?;
    let mut ticks = fields.split(' ').skip(first).map(str::parse::<f64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let text = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 100 50 30 20 20 0";
        assert_eq!((parse(text, 11), parse(text, 13)), (Some(1.5), Some(0.5)));
        assert_eq!(parse("", 11), None);
    }
}
