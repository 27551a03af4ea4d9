//! JSON and dates, written as bytes: fast, and only as general as the agency's rows need.

use super::{DAY, MICROS, YEAR_START};

/// Writes a JSON object member by member. The texts written here hold nothing that needs an escape.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> Object<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, separator: b'{' }
    }

    /// Writes the name; the caller writes the value.
    pub(super) fn value(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.push(self.separator);
        self.separator = b',';
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(super) fn text(mut self, name: &str, parts: &[&str]) -> Self {
        let out = self.value(name);
        out.push(b'"');
        for part in parts {
            out.extend_from_slice(part.as_bytes());
        }
        out.push(b'"');
        self
    }

    pub(super) fn number(mut self, name: &str, value: u64) -> Self {
        self.value(name).extend_from_slice(number(value).as_bytes());
        self
    }

    /// A day of the year 2025, or of 2026 beyond its end.
    pub(super) fn date(mut self, name: &str, day: u16) -> Self {
        let out = self.value(name);
        out.push(b'"');
        civil_date(YEAR_START / DAY + u64::from(day), out);
        out.push(b'"');
        self
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }
}

pub(super) fn number(value: u64) -> String {
    value.to_string()
}

pub(super) fn padded(value: u64, digits: usize) -> String {
    format!("{value:0digits$}")
}

/// `2025-03-04T08:15:00.000001Z`, quoted.
pub(super) fn timestamp(time: u64, out: &mut Vec<u8>) {
    let (seconds, micros) = (time / MICROS, time % MICROS);
    out.push(b'"');
    civil_date(seconds / DAY, out);
    let of_day = seconds % DAY;
    for (mark, value) in [(b'T', of_day / 3_600), (b':', of_day / 60 % 60), (b':', of_day % 60)] {
        out.push(mark);
        digits(value, 2, out);
    }
    out.push(b'.');
    digits(micros, 6, out);
    out.extend_from_slice(b"Z\"");
}

/// Writes the Gregorian date of a day counted from 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
pub(super) fn civil_date(days: u64, out: &mut Vec<u8>) {
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    digits(era * 400 + year_of_era + u64::from(month <= 2), 4, out);
    out.push(b'-');
    digits(month, 2, out);
    out.push(b'-');
    digits(day, 2, out);
}

pub(super) fn digits(value: u64, count: u32, out: &mut Vec<u8>) {
    for position in (0..count).rev() {
        out.push(b'0' + (value / 10_u64.pow(position) % 10) as u8);
    }
}
