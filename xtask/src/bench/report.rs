//! The table of results, and the machine that they were measured on.

use crate::error::{Error, Result};
use crate::process::{command, output};

/// Rows so far, and parts that failed.
pub struct Report {
    events: u64,
    rows: Vec<[String; 5]>,
    failures: Vec<String>,
    load_before: String,
}

impl Report {
    pub fn new(events: u64) -> Self {
        Self { events, rows: Vec::new(), failures: Vec::new(), load_before: load() }
    }

    /// Adds a row: what, Muniment's figure, the peer's figure, their ratio, what must be reached.
    pub fn row(&mut self, what: &str, ours: impl Into<String>, peer: impl Into<String>, ratio: impl Into<String>, must: &str) {
        let row = [what.to_owned(), ours.into(), peer.into(), ratio.into(), must.to_owned()];
        eprintln!("{}", row.join(" | "));
        self.rows.push(row);
    }

    pub fn failed(&mut self, part: &str, error: &Error) {
        let failure = format!("{part}: {}", error.chain());
        eprintln!("{failure}");
        self.failures.push(failure);
    }

    /// Prints the Markdown; an error if a part failed.
    pub fn print(&self) -> Result<()> {
        println!("{} events. {}\n", grouped(self.events as f64), machine());
        println!("Load average before {} and after {}.\n", self.load_before, load());
        println!("| measured | Muniment | peer | ratio | must reach |\n| --- | --- | --- | --- | --- |");
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
        if self.failures.is_empty() { Ok(()) } else { Err(Error::new(format!("parts failed:\n{}", self.failures.join("\n")))) }
    }
}

/// A whole number with commas between thousands.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The middle value; the mean of the two middle ones of an even number.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => (values[length / 2 - 1] + values[length / 2]) / 2.0,
    }
}

/// The machine, in words.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let processor = value(&read("/proc/cpuinfo"), "model name");
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let gibibytes = memory.trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / f64::from(1 << 20);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let compiler = output(command("rustc").arg("--version")).unwrap_or_default();
    format!("Machine: {cores} cores of {processor}, {gibibytes:.0} GiB of memory, Linux {}, {}.", kernel.trim(), compiler.trim())
}

/// The load average of the last minute.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(grouped(1_234_567.2), "1,234,567");
        assert_eq!(grouped(12.0), "12");
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
    }
}
