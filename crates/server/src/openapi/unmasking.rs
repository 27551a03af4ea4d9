//! The description of unmasking.

use super::{Operation, json_content, nullable, object, parameter, reference};
use crate::answer::Code;
use serde_json::{Value, json};

const CODES: &[Code] = &[
    Code::InvalidParameter,
    Code::NotFound,
    Code::UnknownPath,
    Code::CrossOrigin,
    Code::Refused,
    Code::Conflict,
    Code::Internal,
    Code::Busy,
];

pub(super) fn operations() -> Vec<Operation> {
    let operation = |method, path, id, summary| Operation {
        method,
        path,
        id,
        summary,
        parameters: Vec::new(),
        body: None,
        answers: Vec::new(),
        codes: CODES,
    };
    let answer =
        |status, description: &str, schema: Value| vec![(status, json!({ "description": description, "content": json_content(schema) }))];
    let id = || parameter("path", "id", "Number of the request.", json!({ "type": "integer" }));
    let (all, each, decided) = ("/api/v1/unmasking", "/api/v1/unmasking/{id}", "/api/v1/unmasking/{id}/{decision}");
    let page = object(json!({ "requests": { "type": "array", "items": reference("Unmasking") }, "next": nullable("integer") }));
    let note = object(json!({ "note": { "type": "string", "maxLength": 500 } }));
    vec![
        Operation {
            parameters: vec![parameter("query", "after", "Only requests after this one.", json!({ "type": "integer" }))],
            answers: answer("200", "Your requests; all requests for those who decide.", page),
            ..operation("get", all, "unmaskings", "Requests to see masked contents in clear")
        },
        Operation {
            body: Some(json!({ "required": true, "content": json_content(reference("UnmaskingRequest")) })),
            answers: answer("201", "The request; it is good at once where no approval is asked for.", reference("Unmasking")),
            ..operation("post", all, "requestUnmasking", "Asks to see masked contents in clear, for a reason")
        },
        Operation {
            parameters: vec![id()],
            answers: answer("200", "The request.", reference("Unmasking")),
            ..operation("get", each, "unmasking", "One request to see masked contents in clear")
        },
        Operation {
            parameters: vec![
                id(),
                parameter("path", "decision", "What is decided.", json!({ "type": "string", "enum": ["approve", "refuse", "end"] })),
            ],
            body: Some(json!({ "required": false, "content": json_content(note) })),
            answers: answer("200", "The request as it stands now.", reference("Unmasking")),
            ..operation("post", decided, "decideUnmasking", "Approves or refuses somebody else's request, or ends a grant")
        },
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let entity = json!({
        "type": ["object", "null"], "required": ["table", "key"], "additionalProperties": false,
        "properties": { "table": { "type": "string", "maxLength": 128 }, "key": { "type": "string", "maxLength": 100 } },
    });
    let ids = json!({ "type": ["array", "null"], "items": { "type": "integer" }, "minItems": 1, "maxItems": 1000 });
    let micros = || json!({ "type": "integer", "description": "Microseconds since 1970 UTC." });
    let request = json!({
        "type": "object", "required": ["table", "reason"], "additionalProperties": false,
        "properties": {
            "table": { "type": "string", "description": "The log or register." },
            "reason": { "type": "string", "minLength": 1, "maxLength": 500 },
            "ids": ids, "entity": entity,
            "minutes": { "type": "integer", "minimum": 1, "description": "For how long; 60 if absent." },
        },
    });
    let grant = object(json!({
        "id": { "type": "integer" }, "table": { "type": "string" }, "ids": ids, "entity": entity, "reason": { "type": "string" },
        "status": { "type": "string", "enum": ["PENDING", "APPROVED", "REFUSED", "ENDED"] },
        "requested_by": { "type": "string" }, "requested_at": micros(), "expires_at": micros(),
        "decided_by": nullable("string"), "decided_at": nullable("integer"), "decision_note": nullable("string"),
    }));
    vec![("UnmaskingRequest", request), ("Unmasking", grant)]
}
