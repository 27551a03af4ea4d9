//! Times as numbers, as sources send them, and as the texts that people and databases read.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta};

/// Days since 1970 as a date; `None` if there is no such date.
pub(super) fn date(days: i64) -> Option<String> {
    let date = NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_signed(TimeDelta::try_days(days)?)?;
    readable(date.format("%Y-%m-%d").to_string())
}

/// A time since 1970 in units of `per_second`, without zone.
pub(super) fn timestamp(value: i64, per_second: i64) -> Option<String> {
    let (seconds, rest) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let time = DateTime::from_timestamp(seconds, 0)?;
    readable(format!("{}{}", time.format("%Y-%m-%dT%H:%M:%S"), fraction(rest, per_second)))
}

/// A time of day in units of `per_second`; 24:00:00 is one.
pub(super) fn time_of_day(value: i64, per_second: i64) -> Option<String> {
    let (seconds, rest) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    if !(0..=86_400).contains(&seconds) {
        return None;
    }
    Some(format!("{:02}:{:02}:{:02}{}", seconds / 3600, seconds / 60 % 60, seconds % 60, fraction(rest, per_second)))
}

/// Years of other than four digits are left as the numbers they came as: databases write them in different ways.
fn readable(text: String) -> Option<String> {
    (text.as_bytes().get(4) == Some(&b'-') && text.as_bytes()[0].is_ascii_digit()).then_some(text)
}

fn fraction(rest: i64, per_second: i64) -> String {
    if rest == 0 {
        return String::new();
    }
    let digits = per_second.ilog10() as usize;
    format!(".{rest:0digits$}").trim_end_matches('0').to_owned()
}

/// A time with zone as PostgreSQL writes it (`2026-01-31 09:00:00.5+07`), in µs UTC.
pub(super) fn with_zone(text: &str) -> Option<i64> {
    let text = text.replacen('T', " ", 1);
    let zone = text.rfind(['+', '-']).filter(|at| *at > 10)?;
    let (local, offset) = text.split_at(zone);
    let local = NaiveDateTime::parse_from_str(local, "%Y-%m-%d %H:%M:%S%.f").ok()?;
    let mut parts = offset[1..].split(':').map(str::parse::<i64>);
    let (hours, minutes, seconds) = (parts.next()?.ok()?, parts.next().unwrap_or(Ok(0)).ok()?, parts.next().unwrap_or(Ok(0)).ok()?);
    if hours > 24 || minutes > 59 || seconds > 59 {
        return None;
    }
    let east = ((hours * 60 + minutes) * 60 + seconds) * if offset.starts_with('-') { -1 } else { 1 };
    local.and_utc().timestamp_micros().checked_sub(east * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(date(19_000).as_deref(), Some("2022-01-08"));
        assert_eq!(date(-1).as_deref(), Some("1969-12-31"));
        assert_eq!(date(i64::MAX), None);
        assert_eq!(date(20_000_000), None, "a year of five digits");
        assert_eq!(timestamp(1_700_000_000_123_400, 1_000_000).as_deref(), Some("2023-11-14T22:13:20.1234"));
        assert_eq!(timestamp(-1, 1000).as_deref(), Some("1969-12-31T23:59:59.999"));
        assert_eq!(timestamp(9_223_372_036_825_200_000, 1_000_000), None, "infinity");
        assert_eq!(time_of_day(86_400_000, 1000).as_deref(), Some("24:00:00"));
        assert_eq!(time_of_day(1_000_001, 1_000_000).as_deref(), Some("00:00:01.000001"));
        assert_eq!(time_of_day(-1, 1000), None);
        assert_eq!(with_zone("2026-01-31 09:00:00.5+07"), Some(1_769_824_800_500_000));
        assert_eq!(with_zone("2026-01-31 09:00:00-03:30"), Some(1_769_862_600_000_000));
        assert_eq!(with_zone("2026-01-31 09:00:00"), None);
        assert_eq!(with_zone("x"), None);
    }
}
