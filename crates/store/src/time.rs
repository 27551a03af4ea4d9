//! Calendar months of times in microseconds UTC.

use chrono::{DateTime, Datelike, TimeZone, Utc};

/// The calendar month of a time, `yyyy-mm`.
pub fn month_of(micros: i64) -> String {
    let time = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    format!("{:04}-{:02}", time.year(), time.month())
}

/// The first microsecond of the month after a time.
pub fn next_month(micros: i64) -> i64 {
    let time = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    let (year, month) = if time.month() == 12 { (time.year() + 1, 1) } else { (time.year(), time.month() + 1) };
    Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).single().map_or(i64::MAX, |start| start.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_meet_at_their_boundaries() {
        let new_year = 1_767_225_600_000_000;
        assert_eq!(month_of(new_year), "2026-01");
        assert_eq!(month_of(new_year - 1), "2025-12");
        assert_eq!(next_month(new_year - 1), new_year);
        assert_eq!(month_of(next_month(new_year)), "2026-02");
    }
}
