//! The directory of users: `/api/v1/users`.

use crate::answer::{Code, Refusal};
use crate::author::author;
use crate::body::receive;
use crate::identity::Identity;
use crate::limits::body;
use crate::peers::Peer;
use crate::reader::{Listed, One};
use crate::routes::{AppState, Parameters, Segments};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use muniment_access::Action;
use muniment_engine::people::{Existing, ImportFormat, Imported, MOST_USERS, UserFilter, UserKey};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

const USERS: &str = "users";
/// Most bytes of a file of users.
const IMPORT_BYTES: usize = 16 << 20;

/// Which users are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    active: Option<bool>,
    source: Option<String>,
    after: Option<i64>,
    limit: Option<u32>,
}

/// Users, by number.
pub(crate) async fn list(
    State(app): AppState,
    Identity(principal): Identity,
    Parameters(wanted): Parameters<Wanted>,
) -> Result<Listed<Value>, Refusal> {
    app.allow_in_clear(&principal, USERS)?;
    let limit = wanted.limit.unwrap_or(100);
    if !(1..=MOST_USERS).contains(&limit) {
        return Err(Refusal::new(Code::InvalidParameter, format!("limit is from 1 to {MOST_USERS}")));
    }
    let filter = UserFilter { active: wanted.active, source: wanted.source, after: wanted.after.unwrap_or(i64::MIN), limit };
    Ok(Listed(app.engine.users(&filter).await?))
}

/// One user, by number, name or external id.
pub(crate) async fn one(
    State(app): AppState,
    Identity(principal): Identity,
    Segments(user): Segments<String>,
) -> Result<One<Value>, Refusal> {
    app.allow_in_clear(&principal, USERS)?;
    Ok(One(app.engine.user(&UserKey::from(user.as_str())).await?))
}

/// Adds a user.
pub(crate) async fn add(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Result<Response, Refusal> {
    app.allow(&principal, Action::ManageUsers, Some(USERS))?;
    let by = author(&principal, &peer, request.headers())?;
    let object: Map<String, Value> = body(&app, request).await?;
    Ok((StatusCode::CREATED, Json(app.engine.add_user(&object, &by).await?)).into_response())
}

/// Changes a user's fields.
pub(crate) async fn change(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(user): Segments<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    app.allow(&principal, Action::ManageUsers, Some(USERS))?;
    let by = author(&principal, &peer, request.headers())?;
    let object: Map<String, Value> = body(&app, request).await?;
    Ok(Json(app.engine.change_user(&UserKey::from(user.as_str()), &object, &by).await?))
}

/// Deactivates a user.
pub(crate) async fn deactivate(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(user): Segments<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    app.allow(&principal, Action::ManageUsers, Some(USERS))?;
    Ok(Json(app.engine.set_user_active(&UserKey::from(user.as_str()), false, &author(&principal, &peer, &headers)?).await?))
}

/// Activates a user again.
pub(crate) async fn activate(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(user): Segments<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    app.allow(&principal, Action::ManageUsers, Some(USERS))?;
    Ok(Json(app.engine.set_user_active(&UserKey::from(user.as_str()), true, &author(&principal, &peer, &headers)?).await?))
}

/// Gives a user another external id.
pub(crate) async fn add_external_id(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(user): Segments<String>,
    request: Request,
) -> Result<Response, Refusal> {
    app.allow(&principal, Action::ManageUsers, Some(USERS))?;
    let by = author(&principal, &peer, request.headers())?;
    let object: Map<String, Value> = body(&app, request).await?;
    let user = app.engine.add_external_id(&UserKey::from(user.as_str()), &object, &by).await?;
    Ok((StatusCode::CREATED, Json(user)).into_response())
}

/// External ids whose numbers are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    external_ids: Vec<String>,
    /// Make users of those that nobody has.
    #[serde(default)]
    create: bool,
}

/// The numbers that external ids stand for. Whoever sends records may ask, and have users made: that is what sending a record does.
pub(crate) async fn resolve(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Result<Json<BTreeMap<String, Option<i64>>>, Refusal> {
    if app.allow(&principal, Action::ManageUsers, Some(USERS)).is_err() {
        app.allow(&principal, Action::Ingest, None)?;
    }
    let by = author(&principal, &peer, request.headers())?;
    let wanted: Resolve = body(&app, request).await?;
    Ok(Json(app.engine.resolve_users(&wanted.external_ids, wanted.create, &by).await?))
}

/// What is done with users that are there already.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportWish {
    #[serde(default)]
    existing: Existing,
}

/// Takes users from a file, all or none.
pub(crate) async fn import(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Parameters(wish): Parameters<ImportWish>,
    request: Request,
) -> Result<Json<Imported>, Refusal> {
    app.allow(&principal, Action::ManageUsers, Some(USERS))?;
    let by = author(&principal, &peer, request.headers())?;
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let format = match kind.split(';').next().unwrap_or_default().trim() {
        "text/csv" => ImportFormat::Csv,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => ImportFormat::Ndjson,
        _ => return Err(Refusal::new(Code::UnsupportedMediaType, "Content-Type is text/csv or application/x-ndjson")),
    };
    let (_, contents) = receive(&app.engine, request, app.body_limits(IMPORT_BYTES)).await?;
    Ok(Json(app.engine.import_users(&contents, format, wish.existing, &by).await?))
}
