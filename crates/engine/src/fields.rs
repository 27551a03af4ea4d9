//! Rows of registers as JSON, in and out: fields are checked as the model says before the database sees them, so that what is wrong is told by its name.

use crate::error::{EngineError, Result};
use crate::history::parse_time;
use chrono::{DateTime, SecondsFormat, Utc};
use muniment_model::{Column, Table, Type};
use muniment_store::register::{RegisterRow, Value, Values};
use serde_json::{Map, Value as Json, json};

/// The register of this name, which the model has.
pub(crate) fn register(name: &'static str) -> Result<&'static Table> {
    muniment_model::table(name).ok_or_else(|| EngineError::NotFound(format!("register {name}")))
}

/// What is wrong with a field.
pub(crate) fn wrong(name: &'static str, reason: impl Into<String>) -> EngineError {
    EngineError::Parameter { name, reason: reason.into() }
}

/// Columns from the fields of an object, of which only these are allowed.
///
/// # Errors
/// [`EngineError::Parameter`] names the first field that is not allowed or doesn't fit its column.
pub(crate) fn values(table: &'static Table, object: &Map<String, Json>, allowed: &[&str]) -> Result<Values> {
    object.iter().map(|(name, json)| field(table, name, json, allowed)).collect()
}

/// One of them.
pub(crate) fn field(table: &'static Table, name: &str, json: &Json, allowed: &[&str]) -> Result<(&'static str, Value)> {
    let column = table.column(name).filter(|column| allowed.contains(&column.name));
    let column = column.ok_or_else(|| wrong("body", format!("there is no field {name:?} here; there are {}", allowed.join(", "))))?;
    Ok((column.name, value(column, json)?))
}

fn value(column: &'static Column, json: &Json) -> Result<Value> {
    let refuse = |reason: String| Err(wrong(column.name, reason));
    Ok(match (column.ty, json) {
        (_, Json::Null) if column.nullable => Value::Null,
        (_, Json::Null) => return refuse("must not be null".to_owned()),
        (Type::Bool, Json::Bool(value)) => Value::Bool(*value),
        (Type::Bool, _) => return refuse("must be true or false".to_owned()),
        (Type::Int { min, max }, Json::Number(number)) => match number.as_i64().filter(|value| (min..=max).contains(value)) {
            Some(value) => Value::Int(value),
            None => return refuse(format!("must be a whole number from {min} to {max}")),
        },
        (Type::Int { .. }, _) => return refuse("must be a whole number".to_owned()),
        (Type::Timestamp, Json::Number(number)) if number.is_i64() => Value::from(number.as_i64()),
        (Type::Timestamp, Json::String(text)) => match parse_time(text) {
            Ok(time) => Value::Int(time),
            Err(_) => return refuse("must be a time such as 2026-01-31T09:00:00Z, or microseconds since 1970".to_owned()),
        },
        (Type::Timestamp, _) => return refuse("must be a time such as 2026-01-31T09:00:00Z".to_owned()),
        (Type::Json { max_bytes }, json) => {
            let text = json.to_string();
            if text.len() > max_bytes as usize {
                return refuse(format!("must have at most {max_bytes} bytes"));
            }
            Value::Text(text)
        }
        (_, Json::String(text)) => Value::Text(checked(column, text)?),
        _ => return refuse("must be a text".to_owned()),
    })
}

fn checked(column: &'static Column, text: &str) -> Result<String> {
    let refuse = |reason: String| Err(wrong(column.name, reason));
    if text.contains('\0') {
        return refuse("must not contain the character U+0000".to_owned());
    }
    match column.ty {
        Type::Text { max_chars } if text.chars().count() > max_chars as usize => {
            refuse(format!("must have at most {max_chars} characters"))
        }
        Type::Text { .. } if !column.nullable && text.trim().is_empty() => refuse("must not be empty".to_owned()),
        Type::Inet => match text.parse::<std::net::IpAddr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => refuse("must be an IPv4 or IPv6 address".to_owned()),
        },
        Type::Uuid => match uuid::Uuid::try_parse(text) {
            Ok(uuid) => Ok(uuid.to_string()),
            Err(_) => refuse("must be a UUID".to_owned()),
        },
        _ if !column.values.is_empty() && !column.values.contains(&text) => refuse(format!("must be one of {}", column.values.join(", "))),
        _ => Ok(text.to_owned()),
    }
}

/// A row as JSON: times in RFC 3339, documents as documents. Secrets are left out.
pub(crate) fn to_json(table: &'static Table, row: &RegisterRow) -> Json {
    let columns = table.columns.iter().filter(|column| !column.secret);
    Json::Object(columns.map(|column| (column.name.to_owned(), shown(column, row.get(column.name)))).collect())
}

fn shown(column: &Column, value: &Value) -> Json {
    match (column.ty, value) {
        (_, Value::Null | Value::Made(_)) => Json::Null,
        (Type::Timestamp, Value::Int(micros)) => json!(time(*micros)),
        (_, Value::Int(number)) => json!(number),
        (_, Value::Bool(value)) => json!(value),
        (Type::Json { .. }, Value::Text(text)) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        (_, Value::Text(text)) => json!(text),
    }
}

/// A time in RFC 3339.
pub(crate) fn time(micros: i64) -> String {
    DateTime::<Utc>::from_timestamp_micros(micros)
        .map_or_else(|| micros.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_are_checked_by_the_model() {
        let sessions = register("user_sessions").unwrap();
        let allowed = ["session_id", "user_id", "ip_address", "location", "expires_at", "is_active"];
        let check = |json: Json, expected: &str| {
            let outcome = values(sessions, json.as_object().unwrap(), &allowed).map_err(|error| error.to_string());
            let text = outcome.map_or_else(|error| error, |values| format!("{values:?}"));
            assert!(text.contains(expected), "{json}: {text}");
        };
        check(json!({ "session_id": "s", "expires_at": "2026-01-31T09:00:00Z" }), "(\"expires_at\", Int(1769850000000000))");
        check(json!({ "ip_address": "::FFFF" }), "Text(\"::ffff\")");
        check(json!({ "location": { "city": "Hanoi" } }), r#"{\"city\":\"Hanoi\"}"#);
        check(json!({ "ip_address": "10.0.0" }), "ip_address: must be an IPv4 or IPv6 address");
        check(json!({ "session_id": "" }), "session_id: must not be empty");
        check(json!({ "session_id": "x".repeat(256) }), "session_id: must have at most 255 characters");
        check(json!({ "session_id": null }), "session_id: must not be null");
        check(json!({ "user_id": 0 }), "user_id: must be a whole number from 1");
        check(json!({ "is_active": "yes" }), "is_active: must be true or false");
        check(json!({ "logout_reason": "x" }), "body: there is no field \"logout_reason\" here");
    }
}
