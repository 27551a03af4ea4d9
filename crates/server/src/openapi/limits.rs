//! The description of rate limits.

use super::{Operation, json_content, nullable, object, parameter, reference};
use crate::answer::Code;
use muniment_engine::limits::MOST_LISTED;
use serde_json::{Value, json};

/// What any change of a limit can be refused for.
const CHANGE_CODES: &[Code] =
    &[Code::InvalidParameter, Code::InvalidHeader, Code::CrossOrigin, Code::NotFound, Code::Refused, Code::Internal, Code::Busy];

pub(super) fn operations() -> Vec<Operation> {
    let name = || parameter("path", "name", "Name of the limit.", json!({ "type": "string", "maxLength": 100 }));
    let answer =
        |status, description: &str, schema: Value| (status, json!({ "description": description, "content": json_content(schema) }));
    let list = |schema| json!({ "type": "array", "items": reference(schema) });
    let sent = |schema| Some(json!({ "required": true, "content": json_content(reference(schema)) }));
    let operation = |method, path, id, summary| Operation {
        method,
        path,
        id,
        summary,
        parameters: Vec::new(),
        body: None,
        answers: Vec::new(),
        codes: CHANGE_CODES,
    };
    let each = "/api/v1/limits/{name}";
    let most = json!({ "type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 100 });
    vec![
        Operation {
            body: sent("LimitQuestion"),
            answers: vec![answer("200", "Whether the call may go on.", reference("LimitAnswer"))],
            ..operation("post", "/api/v1/limits/check", "checkLimit", "Whether a call may go on; if it may, it counts")
        },
        Operation {
            answers: vec![answer("200", "The limits, by name.", list("Limit"))],
            codes: &[Code::Internal],
            ..operation("get", "/api/v1/limits", "limits", "All rate limits")
        },
        Operation {
            parameters: vec![name()],
            body: sent("Limit"),
            answers: vec![answer("201", "It is new.", reference("Limit")), answer("200", "It is replaced.", reference("Limit"))],
            ..operation("put", each, "putLimit", "Makes or replaces a rate limit; it holds at once")
        },
        Operation {
            parameters: vec![name()],
            answers: vec![answer("200", "It is removed.", object(json!({ "removed": { "type": "string" } })))],
            ..operation("delete", each, "removeLimit", "Removes a rate limit; what it has led to stays")
        },
        Operation {
            parameters: vec![
                parameter("query", "blocked", "Only those whose block is in force.", json!({ "type": "boolean", "default": false })),
                parameter("query", "limit", "Violations at most.", most),
            ],
            answers: vec![answer("200", "The violations, newest first.", list("Violation"))],
            codes: &[Code::InvalidParameter, Code::Internal],
            ..operation("get", "/api/v1/limits/violations", "violations", "Who exceeded a rate limit")
        },
        Operation {
            parameters: vec![parameter("path", "id", "Number of the violation.", json!({ "type": "integer" }))],
            body: Some(
                json!({ "required": true, "content": json_content(object(json!({ "reason": { "type": "string", "maxLength": 200 } }))) }),
            ),
            answers: vec![answer("200", "The block is lifted.", reference("Violation"))],
            ..operation("post", "/api/v1/limits/violations/{id}/unblock", "unblock", "Lifts the block of a violation")
        },
    ]
}

/// Schemas of what is sent and answered.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let (integer, string, boolean) = (json!({ "type": "integer" }), json!({ "type": "string" }), json!({ "type": "boolean" }));
    let limit = json!({
        "type": "object", "required": ["counted_by", "limit_threshold"], "additionalProperties": false,
        "properties": {
            "name": string, "endpoint": nullable("string"), "method": nullable("string"),
            "counted_by": { "enum": ["USER", "ADDRESS", "KEY", "ENDPOINT"] }, "subject": nullable("string"),
            "limit_threshold": { "type": "integer", "minimum": 1 },
            "time_window_seconds": { "type": "integer", "minimum": 1, "maximum": 86400, "default": 60 },
            "burst": { "type": ["integer", "null"], "minimum": 1 }, "block_minutes": { "type": "integer", "minimum": 0, "default": 0 },
            "on_check": { "type": "boolean", "default": true }, "on_log": { "type": "boolean", "default": true },
            "on_own_api": { "type": "boolean", "default": false }, "is_active": { "type": "boolean", "default": true },
        },
    });
    let question = json!({
        "type": "object", "required": ["endpoint"], "additionalProperties": false,
        "properties": {
            "endpoint": string, "method": nullable("string"), "user_id": nullable("integer"), "ip_address": nullable("string"),
            "api_key_id": nullable("string"), "user_agent": nullable("string"),
            "cost": { "type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 1 },
            "dry_run": { "type": "boolean", "default": false, "description": "Only look; take nothing." },
        },
    });
    let state = object(json!({
        "limit": string, "subject": string, "allowed": boolean, "limit_threshold": integer, "time_window_seconds": integer,
        "remaining": integer, "reset_seconds": { "type": "number" }, "retry_after_seconds": nullable("number"), "blocked": boolean,
    }));
    let answer = object(json!({
        "allowed": boolean, "remaining": nullable("integer"), "reset_seconds": nullable("number"), "retry_after_seconds": nullable("number"),
        "limits": { "type": "array", "items": state },
    }));
    let violation = object(json!({
        "id": integer, "limit_name": nullable("string"), "subject": nullable("string"), "violation_type": nullable("string"),
        "user_id": nullable("integer"), "ip_address": string, "endpoint": string, "request_count": integer, "limit_threshold": integer,
        "time_window_minutes": integer, "blocked_duration_minutes": integer, "created_at": string, "unblocked_at": nullable("string"),
        "blocked_until": nullable("string"),
    }));
    vec![("Limit", limit), ("LimitQuestion", question), ("LimitAnswer", answer), ("Violation", violation)]
}
