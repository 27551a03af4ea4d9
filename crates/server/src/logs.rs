//! Records in: `POST /api/v1/logs/{log}`.

use crate::answer::{Code, Refusal};
use crate::body::{receive, refuse};
use crate::identity::Identity;
use crate::routes::{AppState, Segments};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use muniment_access::Action;
use muniment_engine::{EngineError, IngestRequest};
use muniment_model::Format;

/// A retry with the same key stores nothing and gets the same answer.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Marks an answer to such a retry.
pub(crate) const REPLAYED: &str = "idempotent-replayed";
/// Name of the source whose position is kept.
pub(crate) const SOURCE: &str = "muniment-source";
/// The position of the source after this request.
pub(crate) const POSITION: &str = "muniment-position";
/// Most characters of an idempotency key and of a source's name.
const NAME_CHARS: usize = 255;
/// Most characters of a position.
const POSITION_CHARS: usize = 1024;

pub(crate) async fn ingest(
    State(app): AppState,
    Identity(principal): Identity,
    Segments(log): Segments<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let allowed = app.allow(&principal, Action::Ingest, Some(&log));
    let meta = allowed.and_then(|()| Meta::read(&log, request.headers()));
    let Meta { format, idempotency_key, position } = match meta {
        Ok(meta) => meta,
        Err(refusal) => return Err(refuse(request, refusal).await),
    };
    let (_, body) = receive(&app.engine, request, app.body_limits(app.engine.limits().body_bytes)).await?;
    let request = IngestRequest { log: &log, body, format, idempotency_key, position };
    let receipt = app.engine.ingest(request).await?;
    let status = if receipt.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, Json(&receipt)).into_response();
    if receipt.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// What the headers say about a request.
struct Meta {
    format: Format,
    idempotency_key: Option<String>,
    position: Option<muniment_engine::SourcePosition>,
}

impl Meta {
    fn read(log: &str, headers: &HeaderMap) -> Result<Self, Refusal> {
        if !muniment_model::table(log).is_some_and(|table| table.is_log()) {
            return Err(EngineError::UnknownLog(log.to_owned()).into());
        }
        let position = match (visible(headers, SOURCE, NAME_CHARS)?, visible(headers, POSITION, POSITION_CHARS)?) {
            (Some(source), Some(value)) => Some(muniment_engine::SourcePosition { source, value, after: None }),
            (None, None) => None,
            _ => return Err(Refusal::new(Code::InvalidHeader, "Muniment-Source and Muniment-Position come together")),
        };
        Ok(Self { format: format(headers)?, idempotency_key: idempotency_key(headers)?, position })
    }
}

/// The idempotency key of a request.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    visible(headers, IDEMPOTENCY_KEY, NAME_CHARS)
}

fn format(headers: &HeaderMap) -> Result<Format, Refusal> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Format::Auto) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Format::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Format::Ndjson),
        _ => Err(Refusal::new(Code::UnsupportedMediaType, "Content-Type is application/json, application/x-ndjson or absent")),
    }
}

/// A header of visible ASCII characters; positions may have spaces between them.
fn visible(headers: &HeaderMap, name: &'static str, most: usize) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let allowed = |byte: &u8| byte.is_ascii_graphic() || (name == POSITION && *byte == b' ');
    let valid = values.next().is_none() && (1..=most).contains(&value.len()) && value.as_bytes().iter().all(allowed);
    match value.to_str() {
        Ok(text) if valid => Ok(Some(text.to_owned())),
        _ => Err(Refusal::new(Code::InvalidHeader, format!("{name} is given once and has 1 to {most} visible ASCII characters"))),
    }
}
