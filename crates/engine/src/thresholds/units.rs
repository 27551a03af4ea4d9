//! Units of measurements: which of them are of one kind, and how they are converted.

/// Values are whole numbers of millionths, as in the log.
pub(super) const SCALE: i128 = 1_000_000;
/// Beyond this a value doesn't fit its column.
const MOST: i128 = 1_000_000_000_000_000_000;

/// Names, kind, and how many of the smallest of the kind it is.
const UNITS: [(&[&str], &str, i128); 17] = [
    (&["ns"], "time", 1),
    (&["us", "µs", "μs"], "time", 1_000),
    (&["ms"], "time", 1_000_000),
    (&["s", "sec", "seconds"], "time", 1_000_000_000),
    (&["min", "minutes"], "time", 60_000_000_000),
    (&["h", "hours"], "time", 3_600_000_000_000),
    (&["b", "byte", "bytes"], "bytes", 1),
    (&["kb"], "bytes", 1_000),
    (&["mb"], "bytes", 1_000_000),
    (&["gb"], "bytes", 1_000_000_000),
    (&["tb"], "bytes", 1_000_000_000_000),
    (&["kib"], "bytes", 1 << 10),
    (&["mib"], "bytes", 1 << 20),
    (&["gib"], "bytes", 1 << 30),
    (&["tib"], "bytes", 1 << 40),
    (&["percent", "%"], "share", 1),
    (&["ratio"], "share", 100),
];

fn unit(name: &str) -> Option<(&'static str, i128)> {
    let name = name.trim().to_lowercase();
    UNITS.iter().find(|(names, ..)| names.contains(&name.as_str())).map(|(_, kind, size)| (*kind, *size))
}

/// A value in another unit, rounded to a millionth; `None` if the units are not of one kind, or the value gets too large. No unit is of every kind.
pub(super) fn convert(value: i64, from: Option<&str>, to: Option<&str>) -> Option<i64> {
    let (Some(from), Some(to)) = (from, to) else { return Some(value) };
    if from.trim().eq_ignore_ascii_case(to.trim()) {
        return Some(value);
    }
    let ((kind, from), (same, to)) = (unit(from)?, unit(to)?);
    if kind != same {
        return None;
    }
    let scaled = i128::from(value) * from;
    let rounded = (scaled + scaled.signum() * (to / 2)) / to;
    (rounded.abs() < MOST).then_some(rounded as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_one_kind_are_converted() {
        let one = SCALE as i64;
        let cases = [
            (500 * one, Some("ms"), Some("s"), Some(one / 2)),
            (one, Some("s"), Some("ms"), Some(1000 * one)),
            (one, Some("GiB"), Some("MB"), Some(1_073_741_824)),
            (5 * one, Some("percent"), Some("ratio"), Some(50_000)),
            (one, Some("us"), Some("s"), Some(1)),
            (one, Some("ns"), Some("s"), Some(0)),
            (one, Some("ms"), Some("MB"), None),
            (one, Some("cases"), Some("CASES"), Some(one)),
            (one, Some("cases"), Some("ms"), None),
            (one, None, Some("ms"), Some(one)),
            (i64::MAX / 10, Some("h"), Some("ns"), None),
        ];
        for (value, from, to, expected) in cases {
            assert_eq!(convert(value, from, to), expected, "{value} {from:?} {to:?}");
        }
    }
}
