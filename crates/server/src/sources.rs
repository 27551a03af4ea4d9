//! Attached sources: `/api/v1/sources`. Attaching and detaching change another database: only a client on this machine
//! may, and only one who configures.

use crate::answer::{Code, Refusal};
use crate::body::receive;
use crate::identity::Identity;
use crate::peers::Peer;
use crate::reader::{Listed, One};
use crate::routes::{App, AppState, Parameters, Segments};
use axum::extract::{Request, State};
use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use muniment_access::Action;
use muniment_engine::EngineError;
use muniment_engine::capture::{Actor, AttachRequest, Attachment, Farewell, SourceStatus};
use serde::Deserialize;
use std::sync::Arc;

/// Bytes of a request to attach.
const BODY_BYTES: usize = 256 << 10;
/// Most characters of the name of who asks.
const ACTOR_CHARS: usize = 100;

/// What a client may say of a change to the sources.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Detach without touching the source's database.
    #[serde(default)]
    forget: bool,
    /// Detach without reading first what is not read yet.
    #[serde(default)]
    discard: bool,
    /// Who asks, for the record.
    by: Option<String>,
}

/// All sources, by name.
pub(crate) async fn list(State(app): AppState, Identity(principal): Identity) -> Result<Listed<SourceStatus>, Refusal> {
    app.allow(&principal, Action::Configure, None)?;
    Ok(Listed(app.engine.sources().await?))
}

/// One source.
pub(crate) async fn one(
    State(app): AppState,
    Identity(principal): Identity,
    Segments(name): Segments<String>,
) -> Result<One<SourceStatus>, Refusal> {
    app.allow(&principal, Action::Configure, None)?;
    let found = app.engine.sources().await?.into_iter().find(|source| source.name == name);
    Ok(One(found.ok_or_else(|| EngineError::NotFound(format!("source {name}")))?))
}

/// Attaches tables of a database.
pub(crate) async fn attach(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Parameters(wish): Parameters<Wish>,
    request: Request,
) -> Result<Response, Refusal> {
    app.allow(&principal, Action::Configure, None)?;
    let actor = actor(&peer, request.headers(), &wish)?;
    let (_, body) = receive(&app.engine, request, app.body_limits(BODY_BYTES)).await?;
    // What is wrong with the body is told by place only: it holds a password.
    let wrong = |error: serde_json::Error| {
        let message =
            format!("the body is not {{\"url\": …, \"mode\": …, \"options\": …}}: line {}, column {}", error.line(), error.column());
        Refusal::new(Code::InvalidParameter, message)
    };
    let wanted: AttachRequest = serde_json::from_slice(&body).map_err(wrong)?;
    if wish.dry_run {
        let plan = app.engine.plan_attach(&wanted).await?;
        return Ok(Json(Attachment { plan, source: None }).into_response());
    }
    // On a task of its own: a client that goes away must not leave it half done.
    let attached = run(&app, move |app| async move { app.engine.attach(wanted, &actor).await }).await?;
    Ok((StatusCode::CREATED, Json(attached)).into_response())
}

/// Detaches a source.
pub(crate) async fn detach(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(name): Segments<String>,
    Parameters(wish): Parameters<Wish>,
    headers: HeaderMap,
) -> Result<Json<Attachment>, Refusal> {
    app.allow(&principal, Action::Configure, None)?;
    let actor = actor(&peer, &headers, &wish)?;
    if wish.dry_run {
        return Ok(Json(Attachment { plan: app.engine.plan_detach(&name).await?, source: None }));
    }
    let farewell = Farewell::of(wish.forget, wish.discard);
    let detached = run(&app, move |app| async move { app.engine.detach(&name, farewell, &actor).await }).await?;
    Ok(Json(detached))
}

async fn run<F>(app: &Arc<App>, work: impl FnOnce(Arc<App>) -> F) -> Result<Attachment, Refusal>
where
    F: Future<Output = Result<Attachment, EngineError>> + Send + 'static,
{
    Ok(tokio::spawn(work(app.clone())).await.map_err(|_| EngineError::Stopped)??)
}

pub(crate) fn actor(peer: &Peer, headers: &HeaderMap, wish: &Wish) -> Result<Actor, Refusal> {
    let forwarded = headers.contains_key(FORWARDED) || headers.contains_key("x-forwarded-for");
    if !peer.is_local() || forwarded {
        return Err(Refusal::new(Code::LoopbackOnly, "sources are attached and detached from the machine that the service runs on"));
    }
    if wish.by.as_ref().is_some_and(|name| name.chars().count() > ACTOR_CHARS) {
        return Err(Refusal::new(Code::InvalidParameter, format!("by has at most {ACTOR_CHARS} characters")));
    }
    Ok(Actor { name: wish.by.clone(), address: Some(peer.address()) })
}
