//! Keys and roles: `/api/v1/access`.

use crate::answer::{Code, Refusal};
use crate::body::receive;
use crate::identity::{Identity, changed_by};
use crate::peers::Peer;
use crate::reader::Listed;
use crate::routes::{AppState, Parameters, Segments};
use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use muniment_access::{Action, Role};
use muniment_engine::identity::{KeyInfo, NewKey, RoleGrant};
use muniment_engine::now;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Bytes of a request.
const BODY_BYTES: usize = 64 << 10;
/// Most characters of a reason.
const REASON_CHARS: usize = 1000;
/// Longest time for which a rotated key stays valid: 90 days.
const LONGEST_GRACE: i64 = 90 * 86_400;

/// Why something is changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Why {
    reason: Option<String>,
}

impl Why {
    fn checked(self) -> Result<Option<String>, Refusal> {
        match self.reason {
            Some(reason) if reason.chars().count() > REASON_CHARS => {
                Err(Refusal::new(Code::InvalidParameter, format!("reason has at most {REASON_CHARS} characters")))
            }
            reason => Ok(reason),
        }
    }
}

/// How a key is rotated.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// Seconds for which the old key stays valid.
    #[serde(default)]
    grace: i64,
}

/// Who is asking, and what they may do.
pub(crate) async fn me(State(app): AppState, Identity(principal): Identity) -> Json<Value> {
    let may: Vec<&str> =
        Action::ALL.into_iter().filter(|action| app.policy.decide(&principal, *action, None, None).allowed).map(Action::name).collect();
    let readable: Vec<&str> = muniment_model::tables()
        .iter()
        .map(|table| table.name)
        .filter(|table| app.policy.decide(&principal, Action::Read, Some(table), None).allowed)
        .collect();
    Json(json!({
        "name": principal.name, "user_id": principal.user_id, "key_id": principal.key_id, "session_id": principal.session_id,
        "roles": principal.roles, "tables": principal.scope.tables, "actions": principal.scope.actions, "may": may, "may_read": readable,
    }))
}

/// All keys, without what is secret.
pub(crate) async fn keys(State(app): AppState, Identity(principal): Identity) -> Result<Listed<KeyInfo>, Refusal> {
    app.allow(&principal, Action::ManageKeys, None)?;
    Ok(Listed(app.engine.identities().keys(now()).await?))
}

/// Makes a key, which this answer alone holds.
pub(crate) async fn create_key(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Parameters(why): Parameters<Why>,
    request: Request,
) -> Result<Response, Refusal> {
    app.allow(&principal, Action::ManageKeys, None)?;
    let by = changed_by(&principal, &peer, request.headers(), why.checked()?);
    let (_, body) = receive(&app.engine, request, app.body_limits(BODY_BYTES)).await?;
    let wrong = |error| Refusal::new(Code::InvalidParameter, format!("the body is not {{\"name\": …, \"roles\": […]}}: {error}"));
    let new: NewKey = serde_json::from_slice(&body).map_err(wrong)?;
    let created = app.engine.identities().create_key(&new, now(), &by).await?;
    tracing::info!(id = created.info.id, name = created.info.name, by = by.username, "a key was made");
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(created)).into_response())
}

/// Makes a key in the place of another.
pub(crate) async fn rotate_key(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(id): Segments<i64>,
    Parameters(Rotation { grace }): Parameters<Rotation>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    app.allow(&principal, Action::ManageKeys, None)?;
    if !(0..=LONGEST_GRACE).contains(&grace) {
        return Err(Refusal::new(Code::InvalidParameter, format!("grace is between 0 and {LONGEST_GRACE} seconds")));
    }
    let by = changed_by(&principal, &peer, &headers, Some("rotation".to_owned()));
    let created = app.engine.identities().rotate_key(id, grace * 1_000_000, now(), &by).await?;
    tracing::info!(old = id, id = created.info.id, by = by.username, "a key was rotated");
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(created)).into_response())
}

/// Revokes a key.
pub(crate) async fn revoke_key(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(id): Segments<i64>,
    Parameters(why): Parameters<Why>,
    headers: HeaderMap,
) -> Result<Json<KeyInfo>, Refusal> {
    app.allow(&principal, Action::ManageKeys, None)?;
    let by = changed_by(&principal, &peer, &headers, why.checked()?);
    let revoked = app.engine.identities().revoke_key(id, now(), &by).await?;
    tracing::info!(id, by = by.username, "a key was revoked");
    Ok(Json(revoked))
}

/// All roles that were given by hand.
pub(crate) async fn roles(State(app): AppState, Identity(principal): Identity) -> Result<Listed<RoleGrant>, Refusal> {
    app.allow(&principal, Action::ManageUsers, None)?;
    Ok(Listed(app.engine.identities().role_grants().await?))
}

fn role(name: &str) -> Result<Role, Refusal> {
    name.parse().map_err(|error: muniment_access::UnknownRole| Refusal::new(Code::InvalidParameter, format!("role: {error}")))
}

/// Gives a user, by number or name, a role.
pub(crate) async fn grant_role(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments((user, name)): Segments<(String, String)>,
    Parameters(why): Parameters<Why>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    app.allow(&principal, Action::ManageUsers, None)?;
    let by = changed_by(&principal, &peer, &headers, why.checked()?);
    let identities = app.engine.identities();
    identities.grant_role(identities.user(&user).await?.id(), role(&name)?, now(), &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a role from a user.
pub(crate) async fn revoke_role(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    Segments((user, name)): Segments<(String, String)>,
    Parameters(why): Parameters<Why>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    app.allow(&principal, Action::ManageUsers, None)?;
    let by = changed_by(&principal, &peer, &headers, why.checked()?);
    let identities = app.engine.identities();
    identities.revoke_role(identities.user(&user).await?.id(), role(&name)?, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}
