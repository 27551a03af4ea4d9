//! Investigations and findings: `/api/v1/investigations`, `/api/v1/findings`.

use crate::answer::Refusal;
use crate::author::author;
use crate::identity::Identity;
use crate::limits::body;
use crate::peers::Peer;
use crate::reader::{Listed, One};
use crate::routes::{App, AppState, Parameters, Segments};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use muniment_access::{Action, Principal};
use muniment_engine::ChangedBy;
use muniment_engine::cases::{CaseFilter, EvidenceRequest, FindingFilter, NewCase, Resolution, Step};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::Arc;

const INVESTIGATIONS: &str = "investigations";
const FINDINGS: &str = "security_events";

/// Who works on a case, and what was sent.
async fn work<T: DeserializeOwned>(
    app: &App,
    (principal, peer): (&Principal, &Peer),
    table: &str,
    request: Request,
) -> Result<(ChangedBy, T), Refusal> {
    app.allow(principal, Action::Investigate, Some(table))?;
    let by = author(principal, peer, request.headers())?;
    Ok((by, body(app, request).await?))
}

/// Investigations, by number.
pub(crate) async fn list(
    State(app): AppState,
    Identity(principal): Identity,
    Parameters(filter): Parameters<CaseFilter>,
) -> Result<Listed<Value>, Refusal> {
    app.allow_in_clear(&principal, INVESTIGATIONS)?;
    Ok(Listed(app.engine.cases(&filter).await?))
}

/// One investigation, with notes and evidence.
pub(crate) async fn one(State(app): AppState, Identity(principal): Identity, Segments(id): Segments<i64>) -> Result<One<Value>, Refusal> {
    app.allow_in_clear(&principal, INVESTIGATIONS)?;
    Ok(One(app.engine.case(id).await?))
}

/// Opens an investigation.
pub(crate) async fn open(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (by, new): (_, NewCase) = work(&app, (&principal, &peer), INVESTIGATIONS, request).await?;
    Ok((StatusCode::CREATED, Json(app.engine.open_case(&new, &by).await?)).into_response())
}

/// Takes an investigation to its next state.
pub(crate) async fn step(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(id): Segments<i64>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let (by, step): (_, Step) = work(&app, (&principal, &peer), INVESTIGATIONS, request).await?;
    Ok(Json(app.engine.step_case(id, &step, &by).await?))
}

/// Who is to work on a case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Assignment {
    user_id: Option<i64>,
}

/// Gives an investigation to a user.
pub(crate) async fn assign(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(id): Segments<i64>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let (by, to): (_, Assignment) = work(&app, (&principal, &peer), INVESTIGATIONS, request).await?;
    Ok(Json(app.engine.assign_case(id, to.user_id, &by).await?))
}

/// Something to be written down.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    note: String,
}

/// Adds a note.
pub(crate) async fn note(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(id): Segments<i64>,
    request: Request,
) -> Result<Response, Refusal> {
    let (by, Note { note }) = work(&app, (&principal, &peer), INVESTIGATIONS, request).await?;
    Ok((StatusCode::CREATED, Json(app.engine.note_case(id, &note, &by).await?)).into_response())
}

/// Links a record as evidence.
pub(crate) async fn evidence(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(id): Segments<i64>,
    request: Request,
) -> Result<Response, Refusal> {
    let (by, evidence): (_, EvidenceRequest) = work(&app, (&principal, &peer), INVESTIGATIONS, request).await?;
    // Whoever links a record learns that it is there.
    app.allow(&principal, Action::Read, Some(&evidence.log))?;
    Ok((StatusCode::CREATED, Json(app.engine.add_evidence(id, &evidence, &by).await?)).into_response())
}

/// Findings, by number.
pub(crate) async fn findings(
    State(app): AppState,
    Identity(principal): Identity,
    Parameters(filter): Parameters<FindingFilter>,
) -> Result<Listed<Value>, Refusal> {
    app.allow_in_clear(&principal, FINDINGS)?;
    Ok(Listed(app.engine.findings(&filter).await?))
}

/// One finding.
pub(crate) async fn finding(
    State(app): AppState,
    Identity(principal): Identity,
    Segments(id): Segments<i64>,
) -> Result<One<Value>, Refusal> {
    app.allow_in_clear(&principal, FINDINGS)?;
    Ok(One(app.engine.finding(id).await?))
}

/// Enters a finding.
pub(crate) async fn add_finding(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (by, object): (_, Map<String, Value>) = work(&app, (&principal, &peer), FINDINGS, request).await?;
    Ok((StatusCode::CREATED, Json(app.engine.add_finding(&object, &by).await?)).into_response())
}

/// Closes a finding.
pub(crate) async fn resolve_finding(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(id): Segments<i64>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let (by, resolution): (_, Resolution) = work(&app, (&principal, &peer), FINDINGS, request).await?;
    Ok(Json(app.engine.resolve_finding(id, &resolution, &by).await?))
}
