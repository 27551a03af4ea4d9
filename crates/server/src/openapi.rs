//! The API description: one table of operations, from which the OpenAPI document and the list of endpoints are made.

mod access;
mod console;
mod limits;
mod measures;
mod people;
mod reconstruction;
mod sources;
mod unmasking;

use crate::answer::{Code, Refusal};
use crate::authenticate::PUBLIC;
use crate::entities::MAX_LIMIT;
use crate::sql::FORMATS;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use muniment_engine::history::DEFAULT_HISTORY_LIMIT;
use muniment_model::logs;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// One method of one path.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Vec<(&'static str, Value)>,
    codes: &'static [Code],
}

pub(crate) async fn document() -> Result<impl IntoResponse, Refusal> {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let text = match DOCUMENT.get() {
        Some(text) => text.clone(),
        None => {
            let text = serde_json::to_vec_pretty(&openapi()).map_err(|error| Refusal::internal(&error))?;
            DOCUMENT.get_or_init(|| Bytes::from(text)).clone()
        }
    };
    Ok(([(CONTENT_TYPE, "application/json")], text))
}

/// Path, method and summary of each operation.
pub(crate) fn summaries() -> impl Iterator<Item = (&'static str, String, &'static str)> {
    operations().into_iter().map(|operation| (operation.path, operation.method.to_uppercase(), operation.summary))
}

fn openapi() -> Value {
    let mut paths = BTreeMap::<&str, Map<String, Value>>::new();
    for operation in operations() {
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), described(&operation));
    }
    let mut components = muniment_model::openapi();
    if let Some(schemas) = components["schemas"].as_object_mut() {
        schemas.extend(schemas_of_answers());
    }
    components["securitySchemes"] =
        json!({ "bearer": { "type": "http", "scheme": "bearer", "description": "A key, or a token of the identity provider." } });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Muniment",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "An audit and security log that can prove itself.",
            "description": "Error answers are JSON with a stable `error.code`, but for those to a request that is not HTTP or whose headers \
                are too large (16 KiB, 100 lines): these are 400 or 431 without a body.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": components,
    })
}

fn described(operation: &Operation) -> Value {
    let mut responses: Map<String, Value> =
        operation.answers.iter().map(|(status, answer)| ((*status).to_owned(), answer.clone())).collect();
    let mut by_status = BTreeMap::<String, Vec<Code>>::new();
    let access: &[Code] = if PUBLIC.contains(&operation.path) { &[] } else { &[Code::Unauthenticated, Code::Forbidden] };
    for code in operation.codes.iter().chain(access).chain(&[Code::TooManyRequests, Code::RateLimited]) {
        by_status.entry(code.status().as_str().to_owned()).or_default().push(*code);
    }
    for (status, codes) in by_status {
        responses.insert(status, refusal(&codes));
    }
    let mut value = json!({ "security": if access.is_empty() { json!([]) } else { json!([{ "bearer": [] }] ) }, "operationId": operation.id, "summary": operation.summary, "responses": responses });
    if !operation.parameters.is_empty() {
        value["parameters"] = json!(operation.parameters);
    }
    if let Some(body) = &operation.body {
        value["requestBody"] = body.clone();
    }
    value
}

/// Error answers that share a status.
fn refusal(codes: &[Code]) -> Value {
    let lines: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.describe().0, code.describe().2)).collect();
    let schema = if codes.contains(&Code::InvalidRecords) { "InvalidRecords" } else { "Error" };
    let mut value = json!({ "description": lines.join("\n\n"), "content": json_content(reference(schema)) });
    if codes.iter().any(|code| matches!(code, Code::Busy | Code::Stopping | Code::TooManyRequests | Code::RateLimited)) {
        value["headers"] =
            json!({ "Retry-After": { "description": "Seconds after which to try again.", "schema": { "type": "integer" } } });
    }
    value
}

fn operations() -> Vec<Operation> {
    let mut all = vec![ingest()];
    all.extend(questions());
    all.extend(entities());
    all.extend(reconstruction::operations());
    all.extend(ledger());
    all.extend(access::operations());
    all.extend(console::operations());
    all.extend(sources::operations());
    all.extend(limits::operations());
    all.extend(people::operations());
    all.extend(measures::operations());
    all.extend(unmasking::operations());
    all.extend(service());
    all
}

fn ingest() -> Operation {
    let records: Vec<Value> = logs().iter().map(|log| reference(log.name)).collect();
    let names: Vec<&str> = logs().iter().map(|log| log.name).collect();
    let json_schema = json!({ "anyOf": [{ "anyOf": records }, { "type": "array", "items": { "anyOf": records } }] });
    Operation {
        method: "post",
        path: "/api/v1/logs/{log}",
        id: "ingest",
        summary: "Stores records, all or none; they are durable, hashed and signed when it answers",
        parameters: vec![
            parameter("path", "log", "The log. Records are of the schema with its name.", json!({ "type": "string", "enum": names })),
            parameter("header", "Content-Encoding", "How the body is compressed.", json!({ "enum": ["gzip", "zstd", "identity"] })),
            parameter(
                "header",
                "Idempotency-Key",
                "A retry with the same key and body stores nothing and gets the first answer.",
                visible(255),
            ),
            parameter("header", "Muniment-Source", "A source whose position is kept with these records.", visible(255)),
            parameter("header", "Muniment-Position", "How far these records take the source. Comes with Muniment-Source.", visible(1024)),
        ],
        body: Some(json!({
            "required": true,
            "description": "One JSON object, an array of objects, or NDJSON; told apart by looking if there is no Content-Type.",
            "content": {
                "application/json": { "schema": json_schema },
                "application/x-ndjson": { "schema": { "type": "string", "description": "One JSON object a line." } },
            },
        })),
        answers: vec![
            ("201", json!({ "description": "Stored.", "content": json_content(reference("Receipt")) })),
            (
                "200",
                json!({
                    "description": "A retry: stored before.",
                    "headers": { "Idempotent-Replayed": { "schema": { "const": "true" } } },
                    "content": json_content(reference("Receipt")),
                }),
            ),
        ],
        codes: &[
            Code::InvalidHeader,
            Code::DamagedBody,
            Code::IncompleteBody,
            Code::CrossOrigin,
            Code::UnknownLog,
            Code::SlowSender,
            Code::TooLarge,
            Code::UnsupportedEncoding,
            Code::UnsupportedMediaType,
            Code::InvalidRecords,
            Code::KeyReused,
            Code::Internal,
            Code::Busy,
            Code::Stopping,
        ],
    }
}

fn questions() -> Vec<Operation> {
    let result = || {
        let content: Map<String, Value> = FORMATS.iter().map(|(media, format)| ((*media).to_owned(), rows(*format))).collect();
        let description = "The rows, streamed. A connection that ends before the result does means that the query failed on its way.";
        vec![("200", json!({ "description": description, "content": content }))]
    };
    let accept = || parameter("header", "Accept", "Form of the result; JSON if absent.", json!({ "type": "string" }));
    let array = json!({ "type": "string", "description": "A JSON array." });
    vec![
        Operation {
            method: "get",
            path: "/api/v1/sql",
            id: "queryByParameters",
            summary: "Answers a SQL query",
            parameters: vec![
                needed(parameter("query", "q", "One reading statement.", json!({ "type": "string" }))),
                parameter("query", "parameters", "Values of $1, $2 and so on.", array),
                parameter("query", "reason", "Why you ask, for the record.", json!({ "type": "string", "maxLength": 500 })),
                accept(),
            ],
            body: None,
            answers: result(),
            codes: &[Code::InvalidParameter, Code::InvalidQuery, Code::QueryLimit, Code::NotAcceptable, Code::Internal, Code::Busy],
        },
        Operation {
            method: "post",
            path: "/api/v1/sql",
            id: "query",
            summary: "Answers a SQL query",
            parameters: vec![accept()],
            body: Some(json!({ "required": true, "content": json_content(reference("Query")) })),
            answers: result(),
            codes: &[
                Code::InvalidParameter,
                Code::InvalidQuery,
                Code::QueryLimit,
                Code::DamagedBody,
                Code::IncompleteBody,
                Code::CrossOrigin,
                Code::NotAcceptable,
                Code::SlowSender,
                Code::TooLarge,
                Code::UnsupportedEncoding,
                Code::Internal,
                Code::Busy,
            ],
        },
    ]
}

fn rows(format: muniment_engine::query::output::OutputFormat) -> Value {
    use muniment_engine::query::output::OutputFormat;
    match format {
        OutputFormat::Json => json!({ "schema": { "type": "array", "items": { "type": "object" } } }),
        _ => json!({}),
    }
}

/// What the parameter `source` of a question for an entity means.
const SOURCE: &str = "The source that the table is captured from. Needed if several have a table of its name.";

fn entities() -> Vec<Operation> {
    let table = || parameter("path", "table", "The audited table, such as `case.hoso`.", json!({ "type": "string" }));
    let key = || parameter("path", "key", "Its primary key, percent-encoded.", json!({ "type": "string" }));
    let time = || needed(parameter("query", "time", "The instant.", reference("Time")));
    let source = || parameter("query", "source", SOURCE, json!({ "type": "string" }));
    let codes = &[Code::InvalidParameter, Code::QueryLimit, Code::Internal, Code::Busy];
    let limit = |default| json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": default });
    vec![
        Operation {
            method: "get",
            path: "/api/v1/entities/{table}/{key}/history",
            id: "entityHistory",
            summary: "Changes of an entity, field by field, in commit order",
            parameters: vec![
                table(),
                key(),
                parameter("query", "from", "Only changes at or after this time.", reference("Time")),
                parameter("query", "to", "Only changes before this time.", reference("Time")),
                parameter("query", "limit", "Changes at most.", limit(DEFAULT_HISTORY_LIMIT)),
                parameter("query", "order", "Oldest or newest first.", json!({ "enum": ["asc", "desc"], "default": "asc" })),
                source(),
            ],
            body: None,
            answers: vec![("200", json!({ "description": "The changes.", "content": json_content(reference("History")) }))],
            codes,
        },
        Operation {
            method: "get",
            path: "/api/v1/entities/{table}/{key}/at",
            id: "entityAt",
            summary: "A row as it was at an instant",
            parameters: vec![table(), key(), time(), source()],
            body: None,
            answers: vec![("200", json!({ "description": "The row.", "content": json_content(reference("Row")) }))],
            codes: &[Code::InvalidParameter, Code::QueryLimit, Code::NotFound, Code::Internal, Code::Busy],
        },
        Operation {
            method: "get",
            path: "/api/v1/entities/{table}/at",
            id: "tableAt",
            summary: "A table as it was at an instant, page by page",
            parameters: vec![
                table(),
                time(),
                parameter("query", "limit", "Keys looked at for this page.", limit(1000)),
                parameter("query", "after", "`next` of the page before.", json!({ "type": "string" })),
                source(),
            ],
            body: None,
            answers: vec![("200", json!({ "description": "A page of rows by key.", "content": json_content(reference("TablePage")) }))],
            codes,
        },
    ]
}

fn ledger() -> Vec<Operation> {
    vec![
        Operation {
            method: "get",
            path: "/api/v1/checkpoint",
            id: "checkpoint",
            summary: "The newest checkpoint, a C2SP signed note",
            parameters: Vec::new(),
            body: None,
            answers: vec![("200", text("The note."))],
            codes: &[],
        },
        Operation {
            method: "get",
            path: "/api/v1/proofs/{log}/{id}",
            id: "proof",
            summary: "All that is needed to check one record with the public key alone",
            parameters: vec![
                parameter("path", "log", "The log.", json!({ "type": "string" })),
                parameter("path", "id", "The record's id.", json!({ "type": "integer" })),
            ],
            body: None,
            answers: vec![("200", json!({ "description": "A proof file.", "content": json_content(json!({ "type": "object" })) }))],
            codes: &[Code::InvalidParameter, Code::NotFound, Code::UnknownLog, Code::Internal, Code::Busy],
        },
        Operation {
            method: "post",
            path: "/api/v1/keys/rotate",
            id: "rotateKey",
            summary: "Replaces the signing key; only for clients on the same machine",
            parameters: Vec::new(),
            body: None,
            answers: vec![("200", json!({ "description": "The new verifier key.", "content": json_content(reference("RotatedKey")) }))],
            codes: &[Code::LoopbackOnly, Code::CrossOrigin, Code::Internal, Code::Busy, Code::Stopping],
        },
    ]
}

fn service() -> Vec<Operation> {
    let plain = |path, id, summary, answer, codes| Operation {
        method: "get",
        path,
        id,
        summary,
        parameters: Vec::new(),
        body: None,
        answers: vec![("200", answer)],
        codes,
    };
    let metrics =
        json!({ "description": "OpenMetrics text.", "content": { "application/openmetrics-text": { "schema": { "type": "string" } } } });
    let page = json!({ "description": "HTML.", "content": { "text/html": { "schema": { "type": "string" } } } });
    let document = json!({ "description": "OpenAPI 3.1.", "content": json_content(json!({ "type": "object" })) });
    vec![
        plain("/api/v1/openapi.json", "openapi", "This description", document, &[Code::Internal]),
        plain("/healthz", "alive", "Whether the service is alive", text("It is."), &[]),
        plain("/readyz", "ready", "Whether the service takes records", text("It does."), &[Code::Busy, Code::Stopping]),
        plain("/metrics", "metrics", "Counts and times for Prometheus", metrics, &[]),
        plain("/", "index", "This list", page, &[]),
    ]
}

fn parameter(place: &str, name: &str, description: &str, schema: Value) -> Value {
    json!({ "in": place, "name": name, "description": description, "required": place == "path", "schema": schema })
}

fn needed(mut parameter: Value) -> Value {
    parameter["required"] = json!(true);
    parameter
}

fn visible(most: u32) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": most })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn json_content(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn text(description: &str) -> Value {
    json!({ "description": description, "content": { "text/plain": { "schema": { "type": "string" } } } })
}

/// An object all of whose properties are always there.
fn object(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({ "type": "object", "required": names, "properties": properties })
}

fn nullable(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn change() -> Value {
    let (integer, string) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    let field = json!({ "type": "object", "required": ["field"], "properties": { "field": string, "old": {}, "new": {} } });
    object(json!({
        "id": integer, "stream": string, "stream_index": integer, "commit": integer, "blockchain_hash": string, "recorded_at": time(),
        "changed_at": time(), "operation": string, "changed_by": nullable("integer"), "changed_by_username": nullable("string"),
        "ip_address": nullable("string"), "session_id": nullable("string"), "change_reason": nullable("string"),
        "business_context": nullable("string"), "workflow_instance_id": nullable("string"), "change_details": nullable("string"),
        "transaction_id": nullable("string"), "source_position": nullable("string"), "correlation_id": nullable("string"),
        "attribution": nullable("string"),
        "fields": { "type": "array", "items": field },
    }))
}

fn row() -> Value {
    let (integer, string) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    object(json!({
        "primary_key": string, "document": {}, "id": integer, "operation": string, "changed_at": time(), "recorded_at": time(),
        "changed_by": nullable("integer"), "changed_by_username": nullable("string"),
    }))
}

fn schemas_of_answers() -> Map<String, Value> {
    let (integer, string) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    let error = object(json!({ "code": string, "message": string }));
    let line = object(json!({ "line": integer, "field": nullable("string"), "reason": string }));
    let ids = object(json!({ "first": integer, "last": integer }));
    let schemas = [
        ("Error", object(json!({ "error": error }))),
        (
            "InvalidRecords",
            json!({
                "type": "object", "required": ["error"], "description": "`total` and `errors` (the first 100) with code `invalid_records`.",
                "properties": { "error": error, "total": integer, "errors": { "type": "array", "maxItems": 100, "items": line } },
            }),
        ),
        (
            "Receipt",
            object(json!({
                "log": string, "records": integer, "ids": { "anyOf": [ids, { "type": "null" }] }, "commit": integer, "checkpoint": string,
            })),
        ),
        (
            "Query",
            json!({
                "type": "object", "required": ["query"], "additionalProperties": false,
                "properties": {
                    "query": { "type": "string", "description": "One reading statement." },
                    "parameters": {
                        "type": "array", "description": "Values of $1, $2 and so on.",
                        "items": { "type": ["string", "number", "boolean", "null"] },
                    },
                    "reason": { "type": ["string", "null"], "maxLength": 500, "description": "Why you ask, for the record." },
                },
            }),
        ),
        ("Time", json!({ "type": ["string", "integer"], "description": "RFC 3339, a date, or microseconds since 1970 UTC." })),
        ("Change", change()),
        (
            "History",
            object(json!({
                "table": string, "key": string, "changes": { "type": "array", "items": reference("Change") }, "truncated": { "type": "boolean" },
            })),
        ),
        ("Row", row()),
        ("TablePage", object(json!({ "rows": { "type": "array", "items": reference("Row") }, "next": nullable("string") }))),
        ("RotatedKey", object(json!({ "key": string }))),
    ];
    schemas
        .into_iter()
        .chain(sources::schemas())
        .chain(access::schemas())
        .chain(limits::schemas())
        .chain(people::schemas())
        .chain(measures::schemas())
        .chain(unmasking::schemas())
        .chain(reconstruction::schemas())
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::routes::routes;
    use std::collections::BTreeSet;

    #[test]
    fn describes_every_route_and_no_other() {
        let described: BTreeSet<&str> = operations().iter().map(|operation| operation.path).collect();
        let answered: BTreeSet<&str> = routes().into_iter().map(|(path, _)| path).collect();
        assert_eq!(described, answered);
    }

    #[test]
    fn describes_every_parameter_of_a_path() {
        for operation in operations() {
            let of_path = |parameter: &&Value| parameter["in"] == "path";
            let names: Vec<&str> =
                operation.parameters.iter().filter(of_path).map(|parameter| parameter["name"].as_str().unwrap()).collect();
            let held: Vec<&str> = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(names, held, "{}", operation.path);
        }
    }

    #[test]
    fn refers_only_to_what_there_is() {
        let document = openapi();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
