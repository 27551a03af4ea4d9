//! Kafka Connect schemas, as far as they say what a column's number or base64 text stands for.

use super::object::{Object, content};
use super::temporal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

/// Longest decimal, as bytes of its unscaled value (about 1,200 digits); a longer one stays as it came.
const MAX_DECIMAL_BYTES: usize = 512;
/// Largest scale of a decimal.
const MAX_SCALE: i64 = 2000;

/// What a column's value stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Date,
    /// A timestamp in so many units a second.
    Timestamp(i64),
    /// A time of day in so many units a second.
    TimeOfDay(i64),
    /// An unscaled value in base64, with this scale.
    Decimal(i64),
    /// The same, with its scale beside it.
    VariableDecimal,
    /// A JSON document in a string.
    Json,
    Bytes,
}

/// What the columns of a row stand for; those that speak for themselves are not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    kinds: HashMap<String, Kind>,
}

impl Columns {
    /// The columns of a struct's schema.
    pub(super) fn of(schema: &Object<'_>) -> Self {
        let fields = fields(schema);
        Self { kinds: fields.iter().filter_map(|field| Some((field.text("field")?.into_owned(), kind(field)?))).collect() }
    }

    /// The columns of the `before` or `after` of an envelope's schema.
    pub(super) fn of_envelope(schema: &Object<'_>) -> Self {
        let fields = fields(schema);
        let row = |name: &str| fields.iter().find(|field| field.text("field").as_deref() == Some(name));
        row("after").or_else(|| row("before")).map(Self::of).unwrap_or_default()
    }

    /// A column's value, rendered; as it came if its schema doesn't say more, or does not fit.
    pub(super) fn render<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        let rendered = match self.kinds.get(name) {
            Some(kind) if value != "null" => render(*kind, value),
            _ => None,
        };
        rendered.map_or(Cow::Borrowed(value), Cow::Owned)
    }
}

fn fields<'a>(schema: &Object<'a>) -> Vec<Object<'a>> {
    let fields: Vec<&'a RawValue> = schema.get("fields").and_then(|fields| serde_json::from_str(fields).ok()).unwrap_or_default();
    fields.into_iter().filter_map(|field| Object::parse(field.get())).collect()
}

fn kind(field: &Object<'_>) -> Option<Kind> {
    let name = field.text("name");
    Some(match name.as_deref().unwrap_or_default() {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Kind::Date,
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Kind::Timestamp(1000),
        "io.debezium.time.MicroTimestamp" => Kind::Timestamp(1_000_000),
        "io.debezium.time.NanoTimestamp" => Kind::Timestamp(1_000_000_000),
        "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Kind::TimeOfDay(1000),
        "io.debezium.time.MicroTime" => Kind::TimeOfDay(1_000_000),
        "io.debezium.time.NanoTime" => Kind::TimeOfDay(1_000_000_000),
        "io.debezium.data.VariableScaleDecimal" => Kind::VariableDecimal,
        "io.debezium.data.Json" => Kind::Json,
        "org.apache.kafka.connect.data.Decimal" => {
            Kind::Decimal(field.object("parameters").and_then(|parameters| parameters.int("scale")).unwrap_or_default())
        }
        "" if field.text("type").as_deref() == Some("bytes") => Kind::Bytes,
        _ => return None,
    })
}

fn render(kind: Kind, value: &str) -> Option<String> {
    let quoted = |text: String| format!("\"{text}\"");
    match kind {
        Kind::Date => temporal::date(value.parse().ok()?).map(quoted),
        Kind::Timestamp(units) => temporal::timestamp(value.parse().ok()?, units).map(quoted),
        Kind::TimeOfDay(units) => temporal::time_of_day(value.parse().ok()?, units).map(quoted),
        Kind::Decimal(scale) => decimal(&bytes(value)?, scale),
        Kind::VariableDecimal => {
            let parts = Object::parse(value)?;
            decimal(&bytes(parts.get("value")?)?, parts.int("scale")?)
        }
        Kind::Json => {
            let text = content(value);
            serde_json::from_str::<&RawValue>(&text).ok()?;
            Some(text.into_owned())
        }
        Kind::Bytes => Some(format!("\"\\\\x{}\"", hex::encode(bytes(value)?))),
    }
}

fn bytes(value: &str) -> Option<Vec<u8>> {
    value.starts_with('"').then(|| STANDARD.decode(content(value).as_bytes()).ok()).flatten()
}

/// A decimal from its unscaled value, big-endian two's complement, digit by digit.
fn decimal(unscaled: &[u8], scale: i64) -> Option<String> {
    if unscaled.is_empty() || unscaled.len() > MAX_DECIMAL_BYTES || !(-MAX_SCALE..=MAX_SCALE).contains(&scale) {
        return None;
    }
    let negative = unscaled[0] & 0x80 != 0;
    let mut digits = magnitude(unscaled, negative);
    if scale > 0 {
        let scale = scale as usize;
        if digits.len() <= scale {
            digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
        }
        digits.insert(digits.len() - scale, '.');
    } else if digits != "0" {
        digits.push_str(&"0".repeat(scale.unsigned_abs() as usize));
    }
    if negative {
        digits.insert(0, '-');
    }
    Some(digits)
}

fn magnitude(unscaled: &[u8], negative: bool) -> String {
    let mut bytes = unscaled.to_vec();
    if negative {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, overflow);
        }
        if carry {
            bytes.insert(0, 1);
        }
    }
    let mut groups = Vec::new();
    while bytes.iter().any(|byte| *byte != 0) {
        let mut rest = 0_u64;
        for byte in &mut bytes {
            let value = rest << 8 | u64::from(*byte);
            *byte = (value / 1_000_000_000) as u8;
            rest = value % 1_000_000_000;
        }
        groups.push(rest);
    }
    let Some(first) = groups.pop() else { return "0".to_owned() };
    groups.iter().rev().fold(first.to_string(), |text, group| format!("{text}{group:09}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn check(field: &str, value: &str, expected: &str) {
        let schema = format!(r#"{{"type":"struct","fields":[{{"field":"c",{field}}}]}}"#);
        let columns = Columns::of(&Object::parse(&schema).unwrap());
        assert_eq!(columns.render("c", value), expected, "{field} {value}");
    }

    #[test]
    fn values_are_rendered_by_their_schema() {
        check(r#""type":"int32","name":"io.debezium.time.Date""#, "19000", r#""2022-01-08""#);
        check(r#""type":"int64","name":"io.debezium.time.MicroTimestamp""#, "1700000000123456", r#""2023-11-14T22:13:20.123456""#);
        check(r#""type":"int64","name":"io.debezium.time.NanoTimestamp""#, "1", r#""1970-01-01T00:00:00.000000001""#);
        check(r#""type":"int64","name":"io.debezium.time.MicroTime""#, "3600000000", r#""01:00:00""#);
        check(r#""type":"int64","name":"io.debezium.time.MicroTimestamp""#, "null", "null");
        check(r#""type":"int64","name":"io.debezium.time.MicroTimestamp""#, "9223372036825200000", "9223372036825200000");
        check(r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}"#, r#""BNI=""#, "12.34");
        check(r#""type":"struct","name":"io.debezium.data.VariableScaleDecimal""#, r#"{"scale":3,"value":"/w=="}"#, "-0.001");
        check(r#""type":"string","name":"io.debezium.data.Json""#, r#""{\"a\": 1.50}""#, r#"{"a": 1.50}"#);
        check(r#""type":"string","name":"io.debezium.data.Json""#, r#""no json""#, r#""no json""#);
        check(r#""type":"bytes""#, r#""AP8=""#, r#""\\x00ff""#);
        check(r#""type":"bytes""#, r#""not base64""#, r#""not base64""#);
        check(r#""type":"string","name":"io.debezium.time.ZonedTimestamp""#, r#""2026-01-01T00:00:00Z""#, r#""2026-01-01T00:00:00Z""#);
    }

    proptest! {
        #[test]
        fn decimals_keep_every_digit(number: i128, scale in 0_i64..40) {
            let text = decimal(&number.to_be_bytes(), scale).unwrap();
            prop_assert_eq!(text.replace('.', "").parse::<i128>().unwrap(), number);
            prop_assert_eq!(text.split_once('.').map_or(0, |(_, fraction)| fraction.len()), scale as usize);
        }
    }
}
