//! Where a change stands in a server's write-ahead log.

use crate::error::CaptureError;
use std::fmt;
use std::str::FromStr;

/// A place in a server's history: up to and including it, everything has been handed out. As text `<timeline>/<LSN>/<ordinal>`, `1/0/16B3748/4`, or
/// `1/0/16B3790/-` between transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Timeline of the server; a failover begins another.
    pub timeline: u32,
    /// LSN of a transaction's commit record; or, without `ordinal`, an LSN before which all transactions have been handed out.
    pub lsn: u64,
    /// Number of a change within that transaction, from 0.
    pub ordinal: Option<u64>,
}

impl Position {
    /// A place between transactions: everything committed before `lsn` has been handed out.
    pub fn between(timeline: u32, lsn: u64) -> Self {
        Self { timeline, lsn, ordinal: None }
    }
}

/// An LSN as PostgreSQL writes it: `16/B374D848`.
pub(crate) fn lsn_text(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

/// An LSN from PostgreSQL's text.
pub(crate) fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |text: &str| (text.len() <= 8 && !text.starts_with('+')).then(|| u32::from_str_radix(text, 16).ok()).flatten();
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:X}/{:X}/", self.timeline, self.lsn >> 32, self.lsn & 0xffff_ffff)?;
        match self.ordinal {
            Some(ordinal) => write!(f, "{ordinal}"),
            None => f.write_str("-"),
        }
    }
}

impl FromStr for Position {
    type Err = CaptureError;

    fn from_str(text: &str) -> Result<Self, CaptureError> {
        let parse = || {
            let (timeline, rest) = text.split_once('/')?;
            let (lsn, ordinal) = rest.rsplit_once('/')?;
            let ordinal = if ordinal == "-" { None } else { Some(ordinal.parse().ok()?) };
            Some(Self { timeline: timeline.parse().ok()?, lsn: parse_lsn(lsn)?, ordinal })
        };
        parse().ok_or_else(|| CaptureError::Malformed(format!("{text:?} is no position of a PostgreSQL source")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text() {
        for text in ["1/0/16B3748/4", "12/FFFFFFFF/0/-"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1/2", "1/0/1", "1/0/1/", "1/0/123456789/1", "x/0/1/1", "1/0/1/-1", "1/+0/1/1"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
