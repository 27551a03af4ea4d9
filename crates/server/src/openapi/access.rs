//! The description of keys and roles.

use super::{Operation, json_content, nullable, object, parameter, reference};
use crate::answer::Code;
use muniment_access::{Action, Role};
use serde_json::{Value, json};

const CODES: &[Code] = &[Code::InvalidParameter, Code::NotFound, Code::CrossOrigin, Code::Conflict, Code::Internal];

pub(super) fn operations() -> Vec<Operation> {
    let operation = |method, path, id, summary| Operation {
        method,
        path,
        id,
        summary,
        parameters: Vec::new(),
        body: None,
        answers: vec![("204", json!({ "description": "Done." }))],
        codes: CODES,
    };
    let reason = || parameter("query", "reason", "Why, for the record.", json!({ "type": "string", "maxLength": 1000 }));
    let id = || parameter("path", "id", "`api_keys.id`.", json!({ "type": "integer" }));
    let user = || parameter("path", "user", "The user, by number or name.", json!({ "type": "string" }));
    let role = || parameter("path", "role", "The role.", reference("Role"));
    let grace =
        parameter("query", "grace", "Seconds for which the old key stays valid.", json!({ "type": "integer", "minimum": 0, "default": 0 }));
    let answer =
        |status, description: &str, schema: Value| vec![(status, json!({ "description": description, "content": json_content(schema) }))];
    let list = |schema: &str| json!({ "type": "array", "items": reference(schema) });
    let (keys, key, of_user) = ("/api/v1/access/keys", "/api/v1/access/keys/{id}", "/api/v1/access/users/{user}/roles/{role}");
    vec![
        Operation {
            answers: answer("200", "The caller.", reference("Caller")),
            codes: &[],
            ..operation("get", "/api/v1/access/me", "me", "Who is asking, and what they may do")
        },
        Operation {
            answers: answer("200", "The keys, without what is secret.", list("Key")),
            codes: &[Code::Internal],
            ..operation("get", keys, "keys", "All keys, also those that are no longer accepted")
        },
        Operation {
            parameters: vec![reason()],
            body: Some(json!({ "required": true, "content": json_content(reference("NewKey")) })),
            answers: answer("201", "The key, which can't be had a second time.", reference("CreatedKey")),
            ..operation("post", keys, "createKey", "Makes a key")
        },
        Operation {
            parameters: vec![id(), reason()],
            answers: answer("200", "The key.", reference("Key")),
            ..operation("delete", key, "revokeKey", "Revokes a key; it is refused from now on")
        },
        Operation {
            parameters: vec![id(), grace],
            answers: answer("201", "The new key, which can't be had a second time.", reference("CreatedKey")),
            ..operation("post", "/api/v1/access/keys/{id}/rotate", "rotateApiKey", "Makes a key in the place of another")
        },
        Operation {
            answers: answer("200", "The roles.", list("RoleGrant")),
            codes: &[Code::Internal],
            ..operation("get", "/api/v1/access/roles", "roles", "All roles of users that were given by hand")
        },
        Operation { parameters: vec![user(), role(), reason()], ..operation("put", of_user, "grantRole", "Gives a user a role") },
        Operation { parameters: vec![user(), role(), reason()], ..operation("delete", of_user, "revokeRole", "Takes a role from a user") },
    ]
}

fn names(values: &[&str]) -> Value {
    json!({ "type": ["array", "null"], "uniqueItems": true, "items": { "enum": values } })
}

fn key() -> Value {
    let (integer, string) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    let time = |null| if null { json!({ "type": ["string", "null"], "format": "date-time" }) } else { super::time() };
    let strings = json!({ "type": ["array", "null"], "items": string });
    object(json!({
        "id": integer, "key_id": string, "name": string, "user_id": nullable("integer"), "roles": { "type": "array", "items": reference("Role") },
        "tables": strings, "actions": strings, "rotated_from": nullable("integer"), "created_by": string, "created_at": time(false),
        "expires_at": time(true), "revoked_at": time(true), "revoked_reason": nullable("string"),
        "state": { "enum": ["active", "expired", "revoked"] },
    }))
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let (integer, string) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    let tables: Vec<&str> = muniment_model::tables().iter().map(|table| table.name).collect();
    let roles = json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": reference("Role") });
    let mut created = key();
    created["properties"]["key"] = json!({ "type": "string", "description": "`mnt_<id>_<secret>`" });
    let strings = json!({ "type": ["array", "null"], "items": string });
    vec![
        ("Role", json!({ "enum": Role::ALL.map(Role::name) })),
        (
            "NewKey",
            json!({
                "type": "object", "required": ["name", "roles"], "additionalProperties": false,
                "properties": {
                    "name": { "type": "string", "minLength": 1, "maxLength": 100, "description": "What it is for." },
                    "roles": roles, "tables": names(&tables), "actions": names(&Action::ALL.map(Action::name)),
                    "user_id": nullable("integer"), "expires_at": { "anyOf": [reference("Time"), { "type": "null" }] },
                },
            }),
        ),
        ("Key", key()),
        ("CreatedKey", created),
        (
            "RoleGrant",
            object(
                json!({ "user_id": integer, "username": string, "role": reference("Role"), "granted_by": string, "granted_at": super::time() }),
            ),
        ),
        (
            "Caller",
            object(json!({
                "name": string, "user_id": nullable("integer"), "key_id": nullable("integer"), "session_id": nullable("string"),
                "roles": { "type": "array", "items": reference("Role") }, "tables": strings, "actions": strings,
                "may": { "type": "array", "items": string }, "may_read": { "type": "array", "items": string },
            })),
        ),
    ]
}
