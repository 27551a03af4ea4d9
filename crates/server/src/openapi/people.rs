//! The description of users, sessions, investigations and findings.

use super::{Operation, json_content, parameter, reference};
use crate::answer::Code;
use muniment_model::{Column, Table, Type};
use serde_json::{Map, Value, json};

/// What reading can be refused for.
const READ_CODES: &[Code] = &[Code::InvalidParameter, Code::NotFound, Code::Internal];
/// What a change can be refused for.
const CHANGE_CODES: &[Code] =
    &[Code::InvalidParameter, Code::InvalidHeader, Code::CrossOrigin, Code::NotFound, Code::Refused, Code::Internal, Code::Busy];
/// What an import can be refused for.
const IMPORT_CODES: &[Code] = &[
    Code::InvalidParameter,
    Code::InvalidHeader,
    Code::InvalidRecords,
    Code::UnsupportedMediaType,
    Code::TooLarge,
    Code::CrossOrigin,
    Code::Refused,
    Code::Internal,
    Code::Busy,
];

/// One operation whose answer is a row, or an array of rows.
fn operation(
    (method, path): (&'static str, &'static str),
    id: &'static str,
    summary: &'static str,
    answer: (&'static str, Value),
) -> Operation {
    let (status, schema) = answer;
    let described = json!({ "description": "As asked for.", "content": json_content(schema) });
    let codes = if method == "get" { READ_CODES } else { CHANGE_CODES };
    Operation { method, path, id, summary, parameters: Vec::new(), body: None, answers: vec![(status, described)], codes }
}

fn list(schema: &str) -> Value {
    json!({ "type": "array", "items": reference(schema) })
}

fn sent(properties: Value, required: &[&str]) -> Option<Value> {
    let schema = json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    Some(json!({ "required": true, "content": json_content(schema) }))
}

fn path(name: &'static str, description: &str) -> Vec<Value> {
    vec![parameter("path", name, description, json!({ "type": if name == "id" { "integer" } else { "string" } }))]
}

fn queries(all: &[(&str, &str, &str)]) -> Vec<Value> {
    let page = [("after", "integer", "Only those after this number."), ("limit", "integer", "This many at most, 100 if not given.")];
    all.iter().chain(&page).map(|(name, kind, doc)| parameter("query", name, doc, json!({ "type": kind }))).collect()
}

/// Fields of a register's columns, as they are sent.
fn fields(register: &str, names: &[&str]) -> Value {
    let columns = muniment_model::table(register).map(|table| table.columns).unwrap_or_default();
    let field = |column: &&Column| (column.name.to_owned(), schema(column));
    Value::Object(columns.iter().filter(|column| names.contains(&column.name)).map(|column| field(&column)).collect::<Map<_, _>>())
}

fn schema(column: &Column) -> Value {
    let kind = match column.ty {
        Type::Int { .. } => "integer",
        Type::Bool => "boolean",
        Type::Json { .. } => return json!({ "description": column.doc }),
        _ => "string",
    };
    let mut schema = if column.nullable { json!({ "type": [kind, "null"] }) } else { json!({ "type": kind }) };
    schema["description"] = json!(column.doc);
    if let Type::Text { max_chars } = column.ty {
        schema["maxLength"] = json!(max_chars);
    }
    schema
}

/// A register's row, as it is answered.
fn row(table: &Table, more: Value) -> Value {
    let columns = table.columns.iter().filter(|column| !column.secret);
    let mut properties: Map<String, Value> = columns.map(|column| (column.name.to_owned(), schema(column))).collect();
    properties.extend(more.as_object().cloned().unwrap_or_default());
    json!({ "type": "object", "description": table.doc, "properties": properties })
}

pub(super) fn operations() -> Vec<Operation> {
    let mut all = users();
    all.extend(sessions());
    all.extend(investigations());
    all.extend(findings());
    all
}

fn users() -> Vec<Operation> {
    let (all, each) = ("/api/v1/users", "/api/v1/users/{user}");
    let user = || path("user", "Number, log-in name or external id of the user.");
    let one = |status| (status, reference("User"));
    let known = ["username", "display_name", "email", "external_id", "source"];
    let new = ["id", "username", "display_name", "email", "external_id", "source"];
    let import = json!({ "type": "object", "properties": { "added": { "type": "integer" }, "updated": { "type": "integer" }, "unchanged": { "type": "integer" } } });
    let existing = json!({ "type": "string", "enum": ["refuse", "update", "skip"], "default": "refuse" });
    let numbers = json!({ "type": "object", "additionalProperties": { "type": ["integer", "null"] } });
    let text = json!({ "type": "string" });
    vec![
        Operation {
            parameters: queries(&[
                ("active", "boolean", "Only those that are active, or not."),
                ("source", "string", "Only those of this source."),
            ]),
            ..operation(("get", all), "users", "Users of the directory", ("200", list("User")))
        },
        Operation { body: sent(fields("users", &new), &["username"]), ..operation(("post", all), "addUser", "Adds a user", one("201")) },
        Operation {
            parameters: vec![parameter("query", "existing", "What is done with users whose name is there already.", existing)],
            body: Some(
                json!({ "required": true, "content": { "text/csv": { "schema": text }, "application/x-ndjson": { "schema": text } } }),
            ),
            codes: IMPORT_CODES,
            ..operation(("post", "/api/v1/users/import"), "importUsers", "Takes users from CSV or NDJSON, all or none", ("200", import))
        },
        Operation {
            body: sent(
                json!({ "external_ids": { "type": "array", "items": text, "maxItems": 1000 }, "create": { "type": "boolean" } }),
                &["external_ids"],
            ),
            ..operation(("post", "/api/v1/users/resolve"), "resolveUsers", "The numbers that external ids stand for", ("200", numbers))
        },
        Operation { parameters: user(), ..operation(("get", each), "user", "One user, with all external ids", one("200")) },
        Operation {
            parameters: user(),
            body: sent(fields("users", &known), &[]),
            ..operation(("patch", each), "changeUser", "Changes a user's fields", one("200"))
        },
        Operation {
            parameters: user(),
            ..operation(
                ("post", "/api/v1/users/{user}/deactivate"),
                "deactivateUser",
                "Deactivates a user, who stays in the directory",
                one("200"),
            )
        },
        Operation {
            parameters: user(),
            ..operation(("post", "/api/v1/users/{user}/activate"), "activateUser", "Activates a user again", one("200"))
        },
        Operation {
            parameters: user(),
            body: sent(fields("user_external_ids", &["external_id", "system"]), &["external_id"]),
            ..operation(("post", "/api/v1/users/{user}/external-ids"), "addExternalId", "Gives a user another external id", one("201"))
        },
    ]
}

fn sessions() -> Vec<Operation> {
    let (all, each) = ("/api/v1/sessions", "/api/v1/sessions/{session}");
    let session = || path("session", "`session_id` of the session.");
    let one = |status| (status, reference("Session"));
    let new = ["session_id", "user_id", "device_fingerprint", "ip_address", "user_agent", "location", "expires_at"];
    let by = json!({ "type": "string", "enum": ["user", "device", "address"] });
    let mut start = fields("user_sessions", &new);
    start["session_id"]["description"] = json!("Identifies the session; made if not given.");
    vec![
        Operation {
            parameters: queries(&[
                ("active", "boolean", "Only those that are open, or not."),
                ("user_id", "integer", "Of this user."),
                ("device_fingerprint", "string", "With this device."),
                ("ip_address", "string", "From this address."),
            ]),
            ..operation(("get", all), "sessions", "Sessions of users", ("200", list("Session")))
        },
        Operation { body: sent(start, &[]), ..operation(("post", all), "startSession", "Opens a session", one("201")) },
        Operation {
            parameters: vec![parameter("query", "by", "What they are counted by.", by)],
            ..operation(
                ("get", "/api/v1/sessions/open"),
                "openSessions",
                "How many sessions are open",
                ("200", json!({ "type": "array", "items": { "type": "object" } })),
            )
        },
        Operation { parameters: session(), ..operation(("get", each), "session", "One session", one("200")) },
        Operation {
            parameters: session(),
            body: sent(fields("user_sessions", &["expires_at"]), &[]),
            ..operation(("post", "/api/v1/sessions/{session}/touch"), "touchSession", "Notes that a session is in use", one("200"))
        },
        Operation {
            parameters: session(),
            body: sent(json!({ "reason": { "type": "string", "maxLength": 255 } }), &["reason"]),
            ..operation(("post", "/api/v1/sessions/{session}/end"), "endSession", "Ends a session, with a reason", one("200"))
        },
    ]
}

fn investigations() -> Vec<Operation> {
    let (all, each) = ("/api/v1/investigations", "/api/v1/investigations/{id}");
    let number = || path("id", "Number of the investigation.");
    let one = |status| (status, reference("Investigation"));
    let text = json!({ "type": ["string", "null"] });
    let mut new = fields("investigations", &["title", "security_audit_id", "security_event_id", "assigned_to"]);
    new["note"] = text.clone();
    let status = json!({ "type": "string", "enum": ["in_progress", "resolved"] });
    vec![
        Operation {
            parameters: queries(&[
                ("status", "string", "`pending`, `in_progress` or `resolved`."),
                ("assigned_to", "integer", "That this user works on."),
                ("security_audit_id", "integer", "Of this record of security_audit_log."),
            ]),
            ..operation(("get", all), "investigations", "Investigations", ("200", list("Investigation")))
        },
        Operation {
            body: sent(new, &["title"]),
            ..operation(("post", all), "openInvestigation", "Opens an investigation; it is pending", one("201"))
        },
        Operation {
            parameters: number(),
            ..operation(("get", each), "investigation", "One investigation, with notes and evidence", one("200"))
        },
        Operation {
            parameters: number(),
            body: sent(json!({ "status": status, "outcome": text, "note": text }), &["status"]),
            ..operation(
                ("post", "/api/v1/investigations/{id}/status"),
                "stepInvestigation",
                "Takes an investigation to its next state: pending, in progress, resolved",
                one("200"),
            )
        },
        Operation {
            parameters: number(),
            body: sent(json!({ "user_id": { "type": ["integer", "null"] } }), &["user_id"]),
            ..operation(
                ("post", "/api/v1/investigations/{id}/assign"),
                "assignInvestigation",
                "Gives an investigation to a user",
                one("200"),
            )
        },
        Operation {
            parameters: number(),
            body: sent(fields("investigation_notes", &["note"]), &["note"]),
            ..operation(("post", "/api/v1/investigations/{id}/notes"), "noteInvestigation", "Adds a note", one("201"))
        },
        Operation {
            parameters: number(),
            body: sent(json!({ "log": { "type": "string" }, "id": { "type": "integer" }, "note": text }), &["log", "id"]),
            ..operation(
                ("post", "/api/v1/investigations/{id}/evidence"),
                "addEvidence",
                "Links a record as evidence, pinned by its hash",
                one("201"),
            )
        },
    ]
}

fn findings() -> Vec<Operation> {
    let all = "/api/v1/findings";
    let number = || path("id", "Number of the finding.");
    let one = |status| (status, reference("Finding"));
    let new = [
        "user_id",
        "event_category",
        "severity_level",
        "threat_type",
        "source_ip",
        "target_resource",
        "attack_vector",
        "detection_method",
        "analyst_notes",
    ];
    let mut resolution = fields("security_events", &["false_positive", "analyst_notes", "mitigation_action"]);
    resolution["analyst_notes"]["type"] = json!("string");
    vec![
        Operation {
            parameters: queries(&[
                ("resolved", "boolean", "Only those that are dealt with, or not."),
                ("user_id", "integer", "About this user."),
            ]),
            ..operation(("get", all), "findings", "Findings of security_events", ("200", list("Finding")))
        },
        Operation {
            body: sent(fields("security_events", &new), &["event_category", "severity_level"]),
            ..operation(("post", all), "addFinding", "Enters a finding that somebody made", one("201"))
        },
        Operation { parameters: number(), ..operation(("get", "/api/v1/findings/{id}"), "finding", "One finding", one("200")) },
        Operation {
            parameters: number(),
            body: sent(resolution, &["analyst_notes"]),
            ..operation(
                ("post", "/api/v1/findings/{id}/resolve"),
                "resolveFinding",
                "Closes a finding, dealt with or a false positive",
                one("200"),
            )
        },
    ]
}

/// Schemas of what is answered.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let rows = |name: &str| json!({ "type": "array", "items": muniment_model::table(name).map(|table| row(table, json!({}))) });
    let described = |name: &str, more: Value| muniment_model::table(name).map_or(Value::Null, |table| row(table, more));
    let status = json!({ "type": "string", "enum": ["none", "pending", "in_progress", "resolved"] });
    vec![
        ("User", described("users", json!({ "external_ids": { "type": "array", "items": { "type": "object" } } }))),
        ("Session", described("user_sessions", json!({ "open_sessions": { "type": "integer" }, "over_limit": { "type": "boolean" } }))),
        (
            "Investigation",
            described(
                "investigations",
                json!({ "status": status, "notes_added": rows("investigation_notes"), "evidence": rows("investigation_evidence") }),
            ),
        ),
        ("Finding", described("security_events", json!({}))),
    ]
}
