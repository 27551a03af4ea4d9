//! JSON Schemas of records, for the API description.

use serde_json::{Map, Value, json};

use crate::{Column, DefaultValue, Table, Type, logs};

/// The `components` of an OpenAPI 3.1 document: under `schemas`, for each log, the record as it is sent (named as the log), and as it is read
/// (`<log>_stored`).
pub fn openapi() -> Value {
    let mut schemas = Map::new();
    for log in logs() {
        schemas.insert(log.name.to_owned(), record_schema(log));
        schemas.insert(format!("{}_stored", log.name), stored_record_schema(log));
    }
    json!({ "schemas": schemas })
}

/// JSON Schema (2020-12) of a record as it is sent.
pub fn record_schema(table: &Table) -> Value {
    let properties: Map<String, Value> = table.columns.iter().map(|column| (column.name.to_owned(), sent(column))).collect();
    let required: Vec<&str> = table.columns.iter().filter(|column| column.is_required()).map(|column| column.name).collect();
    json!({
        "type": "object",
        "title": table.title,
        "description": table.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// JSON Schema (2020-12) of a record as it is read: with the ledger's columns, and texts instead of documents.
pub fn stored_record_schema(table: &Table) -> Value {
    let columns = table.ledger_columns.iter().chain(table.columns);
    let properties: Map<String, Value> = columns.map(|column| (column.name.to_owned(), read(column))).collect();
    json!({ "type": "object", "title": table.title, "description": table.doc, "properties": properties })
}

fn sent(column: &Column) -> Value {
    let mut schema = match column.ty {
        Type::Text { max_chars } => json!({ "type": "string", "maxLength": max_chars }),
        Type::Json { .. } if column.array => json!({ "type": ["array", "string"] }),
        Type::Json { .. } => json!({}),
        Type::Inet | Type::Hash => json!({ "type": "string" }),
        Type::Uuid => json!({ "type": "string", "format": "uuid" }),
        Type::Int { .. } if column.is_user() => json!({ "type": ["integer", "string"], "maxLength": 255 }),
        Type::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Type::Bool => json!({ "type": "boolean" }),
        Type::Timestamp => json!({ "type": ["string", "integer"], "format": "date-time" }),
        Type::Decimal { .. } => json!({ "type": ["number", "string"] }),
    };
    if !column.is_required() {
        // `null` is the same as giving nothing.
        let types = match &schema["type"] {
            Value::String(name) => Some(vec![json!(name), json!("null")]),
            Value::Array(names) => Some(names.iter().cloned().chain([json!("null")]).collect()),
            _ => None,
        };
        if let Some(types) = types {
            schema["type"] = Value::Array(types);
        }
    }
    if !column.values.is_empty() {
        schema["enum"] = json!(column.values);
    }
    match column.default {
        DefaultValue::Text(text) if matches!(column.ty, Type::Json { .. }) => {
            schema["default"] = serde_json::from_str(text).unwrap_or(Value::Null);
        }
        DefaultValue::Text(text) => schema["default"] = json!(text),
        DefaultValue::Int(number) => schema["default"] = json!(number),
        DefaultValue::Bool(value) => schema["default"] = json!(value),
        DefaultValue::Decimal(number) => {
            if let Type::Decimal { scale, .. } = column.ty {
                schema["default"] = json!(crate::sql::decimal_text(number, scale));
            }
        }
        _ => {}
    }
    schema["description"] = json!(crate::markdown::description(column));
    schema
}

fn read(column: &Column) -> Value {
    let mut schema = match column.ty {
        Type::Json { .. } | Type::Decimal { .. } => json!({ "type": ["string", "null"] }),
        Type::Timestamp => json!({ "type": ["string", "null"], "format": "date-time" }),
        Type::Int { .. } => json!({ "type": "integer" }),
        Type::Hash => json!({ "type": ["string", "null"], "pattern": "^[0-9a-f]{64}$" }),
        _ => sent(column),
    };
    if let Some(Value::String(name)) = schema.get("type").cloned() {
        schema["type"] = json!([name, "null"]);
    }
    schema["description"] = json!(crate::markdown::description(column));
    schema
}
