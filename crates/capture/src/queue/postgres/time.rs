//! Points in time as the queue's images have them, in the time zone and the style of the session that wrote them, rewritten to the one text that all
//! ways in use: `2024-05-31 23:59:59.5+00`.

use std::borrow::Cow;

const SECONDS_A_DAY: i64 = 86_400;

/// `timestamp`: ISO 8601 with a `T` becomes PostgreSQL's ISO style.
pub(super) fn timestamp(text: &str) -> Cow<'_, str> {
    if text.contains('T') { Cow::Owned(text.replacen('T', " ", 1)) } else { Cow::Borrowed(text) }
}

/// `timestamp with time zone`: the same instant in UTC. What is no instant (`infinity`) stays as it is.
pub(super) fn timestamptz(text: &str) -> Cow<'_, str> {
    match parse(text) {
        Some(instant) => Cow::Owned(instant.utc()),
        None => Cow::Borrowed(text),
    }
}

/// The quoted bounds of a range or multirange of instants.
pub(super) fn timestamptz_range(text: &str) -> Cow<'_, str> {
    if !text.contains('"') {
        return Cow::Borrowed(text);
    }
    let pieces: Vec<Cow<'_, str>> =
        text.split('"').enumerate().map(|(index, piece)| if index % 2 == 1 { timestamptz(piece) } else { Cow::Borrowed(piece) }).collect();
    Cow::Owned(pieces.join("\""))
}

struct Instant<'a> {
    /// Seconds since 1970-01-01 UTC.
    seconds: i64,
    /// Digits after the second's point.
    fraction: &'a str,
}

impl Instant<'_> {
    fn utc(&self) -> String {
        let (days, second) = (self.seconds.div_euclid(SECONDS_A_DAY), self.seconds.rem_euclid(SECONDS_A_DAY));
        let (year, month, day) = civil(days);
        let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
        let fraction = if self.fraction.is_empty() { String::new() } else { format!(".{}", self.fraction) };
        format!("{shown:04}-{month:02}-{day:02} {:02}:{:02}:{:02}{fraction}+00{era}", second / 3600, second / 60 % 60, second % 60)
    }
}

/// `YYYY-MM-DD[T ]HH:MM:SS[.ffffff][+-]HH[:MM[:SS]][ BC]`
fn parse(text: &str) -> Option<Instant<'_>> {
    let (text, before_christ) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(1..=400_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let sign_at = rest.find(['+', '-'])?;
    let (time, offset) = rest.split_at(sign_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let offset_seconds = clock(&offset[1..])? * if offset.starts_with('-') { -1 } else { 1 };
    let year = if before_christ { 1 - year } else { year };
    let seconds = days(year, month, day) * SECONDS_A_DAY + clock(time)? - offset_seconds;
    Some(Instant { seconds, fraction })
}

/// Seconds of `HH[:MM[:SS]]`.
fn clock(text: &str) -> Option<i64> {
    let mut seconds = 0;
    for (index, part) in text.split(':').enumerate() {
        let unit = *[3600, 60, 1].get(index)?;
        seconds += part.parse::<u8>().ok().map(i64::from)? * unit;
    }
    Some(seconds)
}

/// Days since 1970-01-01 of the proleptic Gregorian calendar; year 0 is 1 BC.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days`].
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn instants() {
        let check = |text, expected| assert_eq!(timestamptz(text), expected);
        check("2024-05-31T23:59:59.5+07:00", "2024-05-31 16:59:59.5+00");
        check("2024-02-29T22:00:00-05:30", "2024-03-01 03:30:00+00");
        check("2024-05-31 23:59:59+00", "2024-05-31 23:59:59+00");
        check("1900-01-01T00:00:00+07:06:30", "1899-12-31 16:53:30+00");
        check("294276-12-31T23:59:59.999999+00:00", "294276-12-31 23:59:59.999999+00");
        check("4714-11-24T00:00:00+00:00 BC", "4714-11-24 00:00:00+00 BC");
        check("0001-01-01T00:00:00+01:00", "0001-12-31 23:00:00+00 BC");
        check("infinity", "infinity");
        check("-infinity", "-infinity");
        assert_eq!(timestamp("2024-05-31T23:59:59.5"), "2024-05-31 23:59:59.5");
        assert_eq!(timestamp("294276-12-31T23:59:59"), "294276-12-31 23:59:59");
        assert_eq!(timestamp("0044-03-15T00:00:00 BC"), "0044-03-15 00:00:00 BC");
        assert_eq!(timestamptz_range(r#"["2024-05-31 07:00:00+07",)"#), r#"["2024-05-31 00:00:00+00",)"#);
    }

    proptest! {
        #[test]
        fn calendar(day in -1_800_000i64..110_000_000) {
            let (year, month, date) = civil(day);
            prop_assert_eq!(days(year, month, date), day);
        }
    }
}
