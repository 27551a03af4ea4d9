//! Decimal values of registers in JSON: numbers, or numbers in strings where every digit counts.

use super::units::SCALE;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Digits after the point.
const PLACES: usize = 6;
/// Beyond this it doesn't fit `DECIMAL(18,6)`.
const MOST: i64 = 1_000_000_000_000_000_000;

/// A decimal number, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub i64);

impl Amount {
    /// Reads a decimal number such as `-12.5`; `None` if it has more than six digits after the point, or is too large.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 12 || part.len() > PLACES || !plain(whole) || !plain(part) || digits.ends_with('.') {
            return None;
        }
        let part: i64 = format!("{part:0<PLACES$}").parse().ok()?;
        let value = whole.parse::<i64>().ok()? * SCALE as i64 + part;
        (value < MOST).then_some(Self(if negative { -value } else { value }))
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sign, size) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let (whole, part) = (size / SCALE as u64, size % SCALE as u64);
        let text = format!("{sign}{whole}.{part:06}");
        formatter.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = self.to_string();
        match shown.parse::<f64>() {
            Ok(number) if number.to_string() == shown => serializer.serialize_f64(number),
            _ => serializer.serialize_str(&shown),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = match &value {
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::String(text) => text.clone(),
            _ => return Err(de::Error::custom("expected a number, or a number in a string")),
        };
        let wrong = || de::Error::custom(format!("{text} is no decimal number with at most 12 digits before and 6 after the point"));
        Self::parse(text.strip_suffix(".0").unwrap_or(&text)).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn decimals_are_read_and_shown_exactly() {
        for (text, value) in [("0", 0), ("12", 12_000_000), ("-0.5", -500_000), ("999999999999.999999", 999_999_999_999_999_999)] {
            assert_eq!(Amount::parse(text), Some(Amount(value)));
            assert_eq!(Amount(value).to_string(), text);
            let json = serde_json::to_string(&Amount(value)).unwrap();
            assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), Amount(value), "{json}");
        }
        for wrong in ["", "-", ".5", "5.", "1e3", "0.0000001", "1000000000000", "1 2", "--1"] {
            assert_eq!(Amount::parse(wrong), None, "{wrong}");
        }
        assert_eq!(serde_json::from_str::<Amount>("500.0").unwrap(), Amount(500_000_000));
        assert_eq!(serde_json::to_string(&Amount(500_000_000)).unwrap(), "500.0");
    }
}
