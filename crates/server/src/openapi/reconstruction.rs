//! Envelopes, blame, transactions and undo scripts in the API's description.

use super::{Operation, change, json_content, needed, nullable, object, parameter, reference, time, visible};
use crate::answer::Code;
use crate::entities::MAX_LIMIT;
use muniment_engine::history::DEFAULT_HISTORY_LIMIT;
use serde_json::{Value, json};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        capture(
            "/api/v1/capture/debezium",
            "captureDebezium",
            "Takes in change events of Debezium: one, an array, NDJSON, or records of Kafka",
        ),
        capture("/api/v1/capture/wal2json", "captureWal2json", "Takes in output of wal2json, format version 1 or 2"),
        blame(),
        transaction(),
        undo(),
    ]
}

fn capture(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    let any = json!({ "description": "JSON values, one, in an array, or one after the other." });
    let answer = || json_content(reference("EnvelopeReceipt"));
    Operation {
        method: "post",
        path,
        id,
        summary,
        parameters: vec![
            needed(parameter(
                "query",
                "source",
                "Name of the source. Part of the changes' identities: changes that came before are not stored again.",
                json!({ "type": "string", "pattern": "^[a-z0-9_:.-]{1,64}$" }),
            )),
            parameter(
                "query",
                "key",
                "Key columns that messages don't name: `id`, or `case.hoso:id;case.part:hoso_id,number`.",
                json!({ "type": "string" }),
            ),
            parameter("header", "Content-Encoding", "How the body is compressed.", json!({ "enum": ["gzip", "zstd", "identity"] })),
            parameter(
                "header",
                "Idempotency-Key",
                "A retry with the same key and body stores nothing and gets the first answer. Needed if the messages have no position of their source.",
                visible(255),
            ),
        ],
        body: Some(
            json!({ "required": true, "content": { "application/json": { "schema": any }, "application/x-ndjson": { "schema": any } } }),
        ),
        answers: vec![
            ("201", json!({ "description": "Changes were stored.", "content": answer() })),
            ("200", json!({ "description": "There was nothing new.", "content": answer() })),
        ],
        codes: &[
            Code::InvalidHeader,
            Code::InvalidParameter,
            Code::DamagedBody,
            Code::IncompleteBody,
            Code::CrossOrigin,
            Code::SlowSender,
            Code::TooLarge,
            Code::UnsupportedEncoding,
            Code::InvalidRecords,
            Code::KeyReused,
            Code::QueryLimit,
            Code::Internal,
            Code::Busy,
            Code::Stopping,
        ],
    }
}

fn blame() -> Operation {
    Operation {
        method: "get",
        path: "/api/v1/entities/{table}/{key}/blame",
        id: "entityBlame",
        summary: "A row field by field: its value, since when, by whom, why",
        parameters: vec![
            parameter("path", "table", "The audited table, such as `case.hoso`.", json!({ "type": "string" })),
            parameter("path", "key", "Its primary key, percent-encoded.", json!({ "type": "string" })),
            parameter("query", "time", "As of this instant; now if absent.", reference("Time")),
            parameter("query", "source", super::SOURCE, json!({ "type": "string" })),
        ],
        body: None,
        answers: vec![("200", json!({ "description": "The row.", "content": json_content(reference("Blame")) }))],
        codes: &[Code::InvalidParameter, Code::QueryLimit, Code::NotFound, Code::Internal, Code::Busy],
    }
}

fn transaction() -> Operation {
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_HISTORY_LIMIT });
    Operation {
        method: "get",
        path: "/api/v1/transactions/{id}",
        id: "transaction",
        summary: "All changes of a source's transaction, in order",
        parameters: vec![
            parameter("path", "id", "Its `transaction_id`, percent-encoded.", json!({ "type": "string" })),
            parameter("query", "limit", "Changes at most.", limit),
        ],
        body: None,
        answers: vec![("200", json!({ "description": "The changes.", "content": json_content(reference("Transaction")) }))],
        codes: &[Code::InvalidParameter, Code::QueryLimit, Code::NotFound, Code::Internal, Code::Busy],
    }
}

fn undo() -> Operation {
    Operation {
        method: "post",
        path: "/api/v1/undo",
        id: "undo",
        summary: "Writes the SQL that takes back a record, a transaction, or what a user did in a window; it is not run",
        parameters: Vec::new(),
        body: Some(json!({ "required": true, "content": json_content(reference("UndoRequest")) })),
        answers: vec![("200", json!({ "description": "The script.", "content": json_content(reference("Undo")) }))],
        codes: &[
            Code::InvalidParameter,
            Code::UndoRefused,
            Code::QueryLimit,
            Code::NotFound,
            Code::DamagedBody,
            Code::IncompleteBody,
            Code::CrossOrigin,
            Code::SlowSender,
            Code::TooLarge,
            Code::UnsupportedEncoding,
            Code::Internal,
            Code::Busy,
        ],
    }
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let (integer, string) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    let author = object(json!({
        "id": integer, "operation": string, "changed_at": time(), "recorded_at": time(), "changed_by": nullable("integer"),
        "changed_by_username": nullable("string"), "attribution": nullable("string"), "ip_address": nullable("string"),
        "session_id": nullable("string"), "change_reason": nullable("string"), "business_context": nullable("string"),
        "workflow_instance_id": nullable("string"), "correlation_id": nullable("string"), "transaction_id": nullable("string"),
    }));
    let since = json!({ "anyOf": [reference("Author"), { "type": "null" }], "description": "Null if the value is older than the log." });
    let field = object(json!({ "field": string, "value": {}, "since": since }));
    let mut changed = change();
    changed["properties"]["table"] = string.clone();
    changed["properties"]["primary_key"] = string.clone();
    let refusal = object(json!({
        "record": integer, "table": string, "primary_key": string, "later": nullable("integer"), "reason": string,
    }));
    let dialects = json!({ "enum": ["postgresql", "sqlite", "mysql", "sqlserver"] });
    let ids = object(json!({ "first": integer, "last": integer }));
    vec![
        (
            "EnvelopeReceipt",
            object(json!({
                "records": integer, "repeated": integer, "ignored": integer, "ids": { "anyOf": [ids, { "type": "null" }] },
                "commit": nullable("integer"), "checkpoint": string,
            })),
        ),
        ("Author", author),
        (
            "Blame",
            object(json!({
                "table": string, "primary_key": string, "exists": { "type": "boolean" }, "last": reference("Author"),
                "fields": { "type": "array", "items": field },
            })),
        ),
        (
            "Transaction",
            object(json!({
                "transaction_id": string, "changes": { "type": "array", "items": changed }, "truncated": { "type": "boolean" },
            })),
        ),
        (
            "UndoRequest",
            json!({
                "type": "object", "additionalProperties": false,
                "description": "One of `record`, `transaction`, or `user` or `user_id` with `from` and `to`.",
                "properties": {
                    "record": integer, "transaction": string, "user": string, "user_id": integer, "from": string, "to": string,
                    "source": { "type": "string", "description": "Only changes of this source: a script is for one database." },
                    "dialect": dialects, "key": { "type": "string", "description": "Key columns that rows don't show: `case.hoso:id`." },
                },
            }),
        ),
        (
            "Undo",
            object(json!({
                "dialect": dialects, "records": integer, "statements": integer, "script": nullable("string"),
                "refusals": { "type": "array", "items": refusal },
            })),
        ),
    ]
}
