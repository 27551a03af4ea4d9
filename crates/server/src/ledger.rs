//! The ledger's public side: checkpoints, proofs and keys.

use crate::answer::{Code, Refusal};
use crate::identity::Identity;
use crate::peers::Peer;
use crate::reader::Reader;
use crate::routes::{AppState, Segments};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, FORWARDED};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use muniment_access::Action;
use muniment_engine::evidence::prove;
use serde_json::{Value, json};
use std::sync::Arc;

/// The newest checkpoint, a signed note.
pub(crate) async fn checkpoint(State(app): AppState) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")], app.engine.checkpoint())
}

/// All that is needed to check one record with the public key alone.
pub(crate) async fn proof(State(app): AppState, reader: Reader, Segments((log, id)): Segments<(String, i64)>) -> Result<Response, Refusal> {
    reader.allow(Action::Export, Some(&log))?;
    let receipt = reader.receipt(Action::Export, format!("proof of {log} {id}"), None);
    let found = prove(app.engine.store(), &log, id).await;
    reader.answer(receipt, found.map(|proof| (proof, 1)).map_err(Refusal::from)).await
}

/// Replaces the signing key. Only a client on this machine may, whatever its roles.
pub(crate) async fn rotate(
    State(app): AppState,
    Identity(principal): Identity,
    Extension(peer): Extension<Arc<Peer>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    app.allow(&principal, Action::Configure, None)?;
    let forwarded = headers.contains_key(FORWARDED) || headers.contains_key("x-forwarded-for");
    if !peer.is_local() || forwarded {
        return Err(Refusal::new(Code::LoopbackOnly, "the key is rotated from the machine that the service runs on"));
    }
    let key = app.engine.rotate_key().await?;
    tracing::info!(key, "the signing key was rotated");
    Ok(Json(json!({ "key": key })))
}
