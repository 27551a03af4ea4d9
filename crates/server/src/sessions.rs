//! Sessions of users: `/api/v1/sessions`.

use crate::answer::Refusal;
use crate::author::author;
use crate::identity::Identity;
use crate::limits::body;
use crate::peers::Peer;
use crate::reader::{Listed, One};
use crate::routes::{AppState, Parameters, Segments};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use muniment_access::Action;
use muniment_engine::sessions::{CountBy, SessionFilter};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;

const SESSIONS: &str = "user_sessions";

/// Sessions, by number.
pub(crate) async fn list(
    State(app): AppState,
    Identity(principal): Identity,
    Parameters(filter): Parameters<SessionFilter>,
) -> Result<Listed<Value>, Refusal> {
    app.allow_in_clear(&principal, SESSIONS)?;
    Ok(Listed(app.engine.sessions(&filter).await?))
}

/// What open sessions are counted by.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    by: CountBy,
}

/// How many sessions are open.
pub(crate) async fn open(
    State(app): AppState,
    Identity(principal): Identity,
    Parameters(Count { by }): Parameters<Count>,
) -> Result<Listed<Value>, Refusal> {
    app.allow_in_clear(&principal, SESSIONS)?;
    Ok(Listed(app.engine.open_sessions(by).await?))
}

/// One session.
pub(crate) async fn one(
    State(app): AppState,
    Identity(principal): Identity,
    Segments(session): Segments<String>,
) -> Result<One<Value>, Refusal> {
    app.allow_in_clear(&principal, SESSIONS)?;
    Ok(One(app.engine.session(&session).await?))
}

/// Opens a session.
pub(crate) async fn start(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Result<Response, Refusal> {
    app.allow(&principal, Action::ManageSessions, Some(SESSIONS))?;
    let by = author(&principal, &peer, request.headers())?;
    let object: Map<String, Value> = body(&app, request).await?;
    Ok((StatusCode::CREATED, Json(app.engine.start_session(&object, &by).await?)).into_response())
}

/// Notes that a session is in use.
pub(crate) async fn touch(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(session): Segments<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    app.allow(&principal, Action::ManageSessions, Some(SESSIONS))?;
    let by = author(&principal, &peer, request.headers())?;
    let object: Map<String, Value> = body(&app, request).await?;
    Ok(Json(app.engine.touch_session(&session, &object, &by).await?))
}

/// Why a session ends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    reason: String,
}

/// Ends a session.
pub(crate) async fn end(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(session): Segments<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    app.allow(&principal, Action::ManageSessions, Some(SESSIONS))?;
    let by = author(&principal, &peer, request.headers())?;
    let End { reason } = body(&app, request).await?;
    Ok(Json(app.engine.end_session(&session, &reason, &by).await?))
}
