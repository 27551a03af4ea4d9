//! The description of attaching, detaching and looking at sources.

use super::{Operation, json_content, nullable, object, parameter, reference};
use crate::answer::Code;
use serde_json::{Value, json};

pub(super) fn operations() -> Vec<Operation> {
    let name = || parameter("path", "name", "Name of the source.", json!({ "type": "string" }));
    let dry_run =
        || parameter("query", "dry_run", "Say what would be done, and do nothing.", json!({ "type": "boolean", "default": false }));
    let by = || parameter("query", "by", "Who asks, for the record.", json!({ "type": "string", "maxLength": 100 }));
    let done =
        |status, description: &str| (status, json!({ "description": description, "content": json_content(reference("Attachment")) }));
    let operation = |method, path, id, summary| Operation {
        method,
        path,
        id,
        summary,
        parameters: Vec::new(),
        body: None,
        answers: Vec::new(),
        codes: &[Code::InvalidParameter, Code::NotFound, Code::Internal],
    };
    let (all, each) = ("/api/v1/sources", "/api/v1/sources/{name}");
    let list = json!({ "description": "The sources.", "content": json_content(json!({ "type": "array", "items": reference("Source") })) });
    let one = json!({ "description": "The source.", "content": json_content(reference("Source")) });
    let forget = parameter("query", "forget", "Leave the source's database as it is, since it is gone.", json!({ "type": "boolean" }));
    let discard = parameter("query", "discard", "Give up what is not read yet, instead of reading it first.", json!({ "type": "boolean" }));
    vec![
        Operation {
            answers: vec![("200", list)],
            codes: &[Code::Internal],
            ..operation("get", all, "sources", "All attached sources, and what they are doing")
        },
        Operation {
            parameters: vec![dry_run(), by()],
            body: Some(json!({ "required": true, "content": json_content(reference("AttachRequest")) })),
            answers: vec![done("201", "Attached."), done("200", "What would be done.")],
            codes: SOURCE_CODES,
            ..operation("post", all, "attach", "Attaches tables of a database; only for clients on the same machine")
        },
        Operation {
            parameters: vec![name()],
            answers: vec![("200", one)],
            ..operation("get", each, "source", "One attached source, and what it is doing")
        },
        Operation {
            parameters: vec![name(), dry_run(), forget, discard, by()],
            answers: vec![done("200", "Detached, or what would be done.")],
            codes: SOURCE_CODES,
            ..operation("delete", each, "detach", "Detaches a source; only for clients on the same machine")
        },
        Operation {
            parameters: vec![name()],
            body: Some(json!({ "required": false, "content": json_content(reference("ReconcileOptions")) })),
            answers: vec![(
                "200",
                json!({ "description": RECONCILED, "content": { "application/x-ndjson": { "schema": reference("ReconcileLine") } } }),
            )],
            codes: SOURCE_CODES,
            ..operation(
                "post",
                "/api/v1/sources/{name}/reconcile",
                "reconcile",
                "Compares a source's tables with the log; only for clients on the same machine",
            )
        },
    ]
}

const RECONCILED: &str = "A line of JSON every second that says how far it is; the last one has the outcome, or the error.";

/// What attaching and detaching can be refused for.
const SOURCE_CODES: &[Code] = &[
    Code::InvalidParameter,
    Code::LoopbackOnly,
    Code::CrossOrigin,
    Code::NotFound,
    Code::SourceRefused,
    Code::SourceFailed,
    Code::Internal,
    Code::Busy,
    Code::Stopping,
];

/// Schemas of what is sent and answered.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let (integer, string) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    let texts = json!({ "type": "array", "items": string });
    let statement = object(json!({ "sql": string, "why": string }));
    let statements = json!({ "type": "array", "items": statement });
    let finding = object(json!({ "level": { "enum": ["note", "warning", "refusal"] }, "subject": string, "text": string }));
    let plan = object(json!({
        "name": string, "findings": { "type": "array", "items": finding }, "transaction": statements, "after": statements, "tables": texts,
    }));
    let request = json!({
        "type": "object", "required": ["url"], "additionalProperties": false,
        "properties": {
            "url": { "type": "string", "description": "The database, with the password: `postgres://user:password@host/database`." },
            "mode": { "enum": ["replication", "queue"], "default": "replication" },
            "options": reference("AttachOptions"),
        },
    });
    let state = json!({ "enum": ["attaching", "detaching", "stopped", "starting", "running", "waiting"] });
    vec![
        ("AttachOptions", options(&texts)),
        ("AttachRequest", request),
        ("Plan", plan),
        ("Attachment", object(json!({ "plan": reference("Plan"), "source": { "anyOf": [reference("Source"), { "type": "null" }] } }))),
        ("Health", health(&texts)),
        ("ReconcileOptions", reconcile_options(&texts)),
        ("ReconcileLine", reconcile_line()),
        (
            "Source",
            object(json!({
                "name": string, "kind": string, "place": string, "options": reference("AttachOptions"), "attached_at": integer, "state": state,
                "error": nullable("string"), "position": nullable("string"), "changes": integer, "batches": integer, "restarts": integer,
                "health": reference("Health"),
            })),
        ),
    ]
}

fn options(texts: &Value) -> Value {
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "name": { "type": ["string", "null"], "pattern": "^[a-z0-9_:.-]{1,64}$" },
            "tables": texts, "exclude_columns": texts, "mask_columns": texts, "known_applications": texts,
            "identity": { "enum": ["full", "key"], "default": "full" },
            "snapshot": { "enum": ["none", "initial"], "default": "initial" },
            "attribution": { "enum": ["activity", "trigger"], "default": "activity" },
            "max_slot_wal_keep": { "type": ["integer", "null"], "description": "Bytes." },
            "when_full": { "enum": ["lose-audit", "stop-database", null] },
        },
    })
}

fn health(texts: &Value) -> Value {
    object(json!({
        "lag_bytes": nullable("integer"), "lag_seconds": nullable("number"), "kept_bytes": nullable("integer"),
        "wal_status": nullable("string"), "safe_wal_bytes": nullable("integer"), "complaints": texts,
    }))
}

fn reconcile_options(texts: &Value) -> Value {
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "tables": texts, "listed": { "type": "integer", "default": 1000, "maximum": 10000 },
            "wait_seconds": { "type": "integer", "default": 600, "description": "Longest wait for capture to reach the database's present state." },
        },
    })
}

fn reconcile_line() -> Value {
    let (integer, string) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    let table = object(json!({
        "table": string, "live_rows": integer, "logged_rows": integer, "missing": integer, "extra": integer, "different": integer,
    }));
    let difference = json!({
        "type": "object", "required": ["table", "key", "kind"],
        "properties": {
            "table": string, "key": string, "kind": { "enum": ["missing", "extra", "different"] }, "count": integer,
            "columns": { "type": "array", "items": { "type": "object", "properties": { "column": string, "live": {}, "logged": {} } } },
        },
    });
    let outcome = object(json!({
        "source": string, "instant": string, "position": string, "tables": { "type": "array", "items": table },
        "differences": { "type": "array", "items": difference }, "total": integer,
        "uncaptured": { "type": "array", "items": string, "description": "Tables that the source's patterns take in and of which nothing is captured." },
    }));
    json!({
        "type": "object",
        "properties": {
            "progress": { "enum": ["starting", "waiting", "comparing"] }, "position": string, "table": string, "rows": integer,
            "outcome": outcome, "error": { "type": "object" },
        },
    })
}
