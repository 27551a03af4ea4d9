//! Rate limits: `/api/v1/limits`. Applications ask here before they act; limits are made, violations listed, blocks lifted.

use crate::answer::{Code, Refusal};
use crate::author::{REASON_CHARS, author};
use crate::body::receive;
use crate::identity::Identity;
use crate::peers::Peer;
use crate::reader::{Listed, Reader};
use crate::routes::{App, AppState, Parameters, Segments};
use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use muniment_access::{Action, Principal};
use muniment_engine::limits::{Call, CheckAnswer, Door, Limit, MOST_LISTED, ViolationRow};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of a request about limits.
const BODY_BYTES: usize = 64 << 10;
/// Violations listed unless more are asked for.
const LISTED: u32 = 100;
/// The register of violations.
const VIOLATIONS: &str = "rate_limit_violations";
/// The register of limits.
const LIMITS: &str = "rate_limits";

/// What an application is about to let somebody do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    endpoint: String,
    method: Option<String>,
    user_id: Option<i64>,
    ip_address: Option<IpAddr>,
    api_key_id: Option<String>,
    user_agent: Option<String>,
    /// How many calls it counts as.
    #[serde(default = "one")]
    cost: i64,
    /// Only look; take nothing.
    #[serde(default)]
    dry_run: bool,
}

fn one() -> i64 {
    1
}

/// Whether a call may go on. The answer is about the call: the question itself is always answered 200.
pub(crate) async fn check(State(app): AppState, Identity(principal): Identity, request: Request) -> Result<Response, Refusal> {
    app.allow(&principal, Action::CheckLimit, None)?;
    let question: Question = body(&app, request).await?;
    if question.endpoint.is_empty() {
        return Err(Refusal::new(Code::InvalidParameter, "endpoint must not be empty"));
    }
    let call = Call {
        endpoint: &question.endpoint,
        method: question.method.as_deref(),
        user_id: question.user_id,
        ip_address: question.ip_address,
        api_key_id: question.api_key_id.as_deref(),
        user_agent: question.user_agent.as_deref(),
    };
    let answer = app.engine.rate_limits().check(&call, Door::Check, question.cost, question.dry_run).await?;
    let mut response = Json(&answer).into_response();
    write_headers(&answer, response.headers_mut());
    Ok(response)
}

/// Says in headers what is left.
pub(crate) fn write_headers(answer: &CheckAnswer, headers: &mut HeaderMap) {
    let mut set = |name: HeaderName, value: Option<f64>| {
        if let Some(value) = value {
            headers.insert(name, HeaderValue::from(value.ceil().max(0.0) as u64));
        }
    };
    let tightest = answer.limits.iter().min_by_key(|limit| limit.remaining);
    set(HeaderName::from_static("ratelimit-limit"), tightest.map(|limit| limit.limit_threshold as f64));
    set(HeaderName::from_static("ratelimit-remaining"), answer.remaining.map(|remaining| remaining as f64));
    set(HeaderName::from_static("ratelimit-reset"), answer.reset_seconds);
    set(RETRY_AFTER, answer.retry_after_seconds);
}

/// All limits, by name.
pub(crate) async fn list(State(app): AppState, Identity(principal): Identity) -> Result<Listed<Limit>, Refusal> {
    app.allow(&principal, Action::Read, Some(LIMITS))?;
    Ok(Listed(app.engine.rate_limits().list().await?))
}

/// Makes or replaces a limit.
pub(crate) async fn put(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(name): Segments<String>,
    request: Request,
) -> Result<Response, Refusal> {
    app.allow(&principal, Action::Configure, Some(LIMITS))?;
    let by = author(&principal, &peer, request.headers())?;
    let mut limit: Limit = body(&app, request).await?;
    if !limit.name.is_empty() && limit.name != name {
        return Err(Refusal::new(Code::InvalidParameter, "name: the path has another one"));
    }
    limit.name = name;
    let is_new = app.engine.rate_limits().put(&limit, &by).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(limit)).into_response())
}

/// Removes a limit.
pub(crate) async fn remove(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(name): Segments<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    app.allow(&principal, Action::Configure, Some(LIMITS))?;
    app.engine.rate_limits().remove(&name, &author(&principal, &peer, &headers)?).await?;
    Ok(Json(json!({ "removed": name })))
}

/// Which violations are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Only those whose block is in force.
    #[serde(default)]
    blocked: bool,
    limit: Option<u32>,
}

/// Violations, newest first.
pub(crate) async fn violations(State(app): AppState, reader: Reader, Parameters(wanted): Parameters<Wanted>) -> Result<Response, Refusal> {
    reader.allow(Action::Read, Some(VIOLATIONS))?;
    let limit = wanted.limit.unwrap_or(LISTED);
    if !(1..=MOST_LISTED).contains(&limit) {
        return Err(Refusal::new(Code::InvalidParameter, format!("limit is from 1 to {MOST_LISTED}")));
    }
    let receipt = reader.receipt(Action::Read, VIOLATIONS, None);
    let found = async {
        let rows = app.engine.rate_limits().violations(wanted.blocked, limit).await?;
        let rows = rows.iter().map(|row| seen(row, &reader)).collect::<Result<Vec<_>, _>>()?;
        let count = rows.len() as u64;
        Ok((rows, count))
    };
    reader.answer(receipt, found.await).await
}

/// A violation as a reader sees it.
fn seen(row: &ViolationRow, reader: &Reader) -> Result<Map<String, Value>, Refusal> {
    let Ok(Value::Object(mut row)) = serde_json::to_value(row) else {
        return Err(Refusal::new(Code::Internal, "a violation can't be shown"));
    };
    if let Some(table) = muniment_model::table(VIOLATIONS) {
        reader.view(VIOLATIONS).mask_row(table, &mut row);
    }
    if ["created_at", "blocked_duration_minutes"].iter().any(|name| row.get(*name).is_none_or(Value::is_null)) {
        row.insert("blocked_until".to_owned(), Value::Null);
    }
    Ok(row)
}

/// Why a block is lifted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lift {
    reason: String,
}

/// Lifts a block.
pub(crate) async fn unblock(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(id): Segments<i64>,
    request: Request,
) -> Result<Json<ViolationRow>, Refusal> {
    may_lift(&app, &principal)?;
    let mut by = author(&principal, &peer, request.headers())?;
    let lift: Lift = body(&app, request).await?;
    if !(1..=REASON_CHARS).contains(&lift.reason.trim().chars().count()) {
        return Err(Refusal::new(Code::InvalidParameter, format!("reason has 1 to {REASON_CHARS} characters")));
    }
    by.reason = Some(lift.reason);
    Ok(Json(app.engine.rate_limits().unblock(id, &by).await?))
}

/// Whoever configures limits lifts blocks, and whoever works on security matters.
fn may_lift(app: &App, principal: &Principal) -> Result<(), Refusal> {
    let works = app.allow(principal, Action::Investigate, Some(VIOLATIONS));
    if works.is_ok() { works } else { app.allow(principal, Action::Configure, Some(VIOLATIONS)) }
}

/// Receives a small JSON body.
pub(crate) async fn body<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Refusal> {
    let (_, bytes) = receive(&app.engine, request, app.body_limits(BODY_BYTES)).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(Code::InvalidParameter, format!("the body is not as it should be: {error}")))
}
