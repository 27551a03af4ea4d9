//! How far a queue has been read.

use crate::error::{CaptureError, Result};

/// After a wave, or after a row within one. As text: `7`, or `7/120/118`; what follows a space is how far a baseline is, and what follows a `#` only tells batches of findings apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub wave: i64,
    /// The last row of the transaction, and the row, if the wave isn't complete.
    pub within: Option<(i64, i64)>,
}

impl Position {
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = || CaptureError::Malformed(format!("{text:?} is no position of a trigger queue"));
        let numbers: Option<Vec<i64>> = text
            .split([' ', '#'])
            .next()
            .unwrap_or_default()
            .split('/')
            .map(|part| part.parse().ok().filter(|number| *number >= 0))
            .collect();
        match numbers.as_deref() {
            Some([wave]) => Ok(Self { wave: *wave, within: None }),
            Some([wave, last, id]) if *wave > 0 => Ok(Self { wave: *wave, within: Some((*last, *id)) }),
            _ => Err(malformed()),
        }
    }

    /// The last wave of which all rows come before this position.
    pub fn complete_wave(self) -> i64 {
        if self.within.is_some() { self.wave - 1 } else { self.wave }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.within {
            Some((last, id)) => write!(formatter, "{}/{last}/{id}", self.wave),
            None => write!(formatter, "{}", self.wave),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts() {
        for text in ["0", "7", "7/120/118"] {
            assert_eq!(Position::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Position::parse("7/3/2 1/2/3/end#0a").unwrap().to_string(), "7/3/2");
        assert_eq!(Position::parse("7#0a").unwrap().to_string(), "7");
        for wrong in ["", "x", "-1", "1/2", "0/1/1", "1/2/3/4"] {
            assert!(Position::parse(wrong).is_err(), "{wrong}");
        }
    }
}
