//! Sizes and durations as people write them: `64 MiB`, `30s`.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];
/// In milliseconds. The first name of a length is the one that is printed.
const SPANS: [(&[&str], u64); 5] = [
    (&["d", "day", "days"], 86_400_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["min", "m", "minute", "minutes"], 60_000),
    (&["s", "sec", "second", "seconds"], 1_000),
    (&["ms", "millisecond", "milliseconds"], 1),
];

/// A whole number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.replace('_', "").parse().ok()?, unit.trim()))
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (number, unit) = split(text)?;
            if unit.is_empty() {
                return Some(number);
            }
            let (_, bytes) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
            number.checked_mul(*bytes)
        };
        read().map(Self).ok_or_else(|| format!("`{text}` is not a size such as `64 MiB`, `10 GB` or a number of bytes"))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (number, unit) = split(text)?;
            let (_, length) = SPANS.iter().find(|(names, _)| names.iter().any(|name| name.eq_ignore_ascii_case(unit)))?;
            number.checked_mul(*length)
        };
        let span = read().map(|length| Self(Duration::from_millis(length)));
        span.ok_or_else(|| format!("`{text}` is not a time such as `500ms`, `30s`, `10min`, `12h` or `7d`"))
    }
}

/// A duration as it is written on the command line.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0)
}

/// A size as it is written on the command line, in bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<Size>().map(|size| size.0)
}

/// A size as PostgreSQL's settings have them, in bytes: its `GB` are those of 1,024 MB.
pub fn parse_server_size(text: &str) -> Result<u64, String> {
    match text.trim().strip_suffix(['B', 'b']) {
        Some(rest) if rest.ends_with(|unit: char| "kKmMgGtT".contains(unit)) => parse_size(&format!("{rest}iB")),
        _ => parse_size(text),
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().take(4).find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes)) {
            Some((unit, bytes)) => write!(f, "{} {unit}", self.0 / bytes),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        match SPANS.iter().find(|(_, unit)| length >= *unit && length.is_multiple_of(*unit)) {
            Some((names, unit)) => write!(f, "{}{}", length / unit, names[0]),
            None => write!(f, "{length}ms"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a text by [`FromStr`], or a number if the type has a plain unit.
struct Quantity<T>(PhantomData<T>, fn(u64) -> Option<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number with its unit")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.1)(number).ok_or_else(|| E::custom(format!("`{number}` has no unit")))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_u64(u64::try_from(number).map_err(|_| E::custom("it is negative"))?)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Quantity(PhantomData, |number| Some(Self(number))))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Quantity(PhantomData, |_| None))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes, printed) in [
            ("64 MiB", 64 << 20, "64 MiB"),
            ("64mib", 64 << 20, "64 MiB"),
            ("1000", 1000, "1000 B"),
            ("2 GB", 2_000_000_000, "1953125 KiB"),
            ("0", 0, "0 B"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5 GiB", "3 parsecs", "99999999999 TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_as_a_server_has_them() {
        for (text, bytes) in [("20GB", 20 << 30), ("512 MB", 512 << 20), ("8kB", 8192), ("1 GiB", 1 << 30), ("100B", 100), ("7", 7)] {
            assert_eq!(parse_server_size(text), Ok(bytes), "{text}");
        }
        assert!(parse_server_size("B").is_err());
    }

    #[test]
    fn spans() {
        for (text, millis, printed) in [
            ("30s", 30_000, "30s"),
            ("90 s", 90_000, "90s"),
            ("10 min", 600_000, "10min"),
            ("7 days", 604_800_000, "7d"),
            ("1500ms", 1500, "1500ms"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0.as_millis(), span.to_string().as_str()), (millis, printed), "{text}");
        }
        for text in ["", "30", "s", "-3s", "1.5h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
