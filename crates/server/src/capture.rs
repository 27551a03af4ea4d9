//! Change envelopes in: `POST /api/v1/capture/debezium` and `POST /api/v1/capture/wal2json`.

use crate::answer::Refusal;
use crate::body::{receive, refuse};
use crate::entities::CHANGES;
use crate::identity::Identity;
use crate::logs::{REPLAYED, idempotency_key};
use crate::routes::{AppState, Parameters};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use muniment_access::{Action, Principal};
use muniment_engine::{EngineError, EnvelopeFormat, EnvelopeRequest, KeyHints};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaptureParameters {
    source: String,
    key: Option<String>,
}

/// Debezium's change events.
pub(crate) async fn debezium(
    app: AppState,
    Identity(principal): Identity,
    Parameters(parameters): Parameters<CaptureParameters>,
    request: Request,
) -> Result<Response, Refusal> {
    take_in(app, &principal, EnvelopeFormat::Debezium, parameters, request).await
}

/// wal2json's output.
pub(crate) async fn wal2json(
    app: AppState,
    Identity(principal): Identity,
    Parameters(parameters): Parameters<CaptureParameters>,
    request: Request,
) -> Result<Response, Refusal> {
    take_in(app, &principal, EnvelopeFormat::Wal2Json, parameters, request).await
}

async fn take_in(
    State(app): AppState,
    principal: &Principal,
    format: EnvelopeFormat,
    parameters: CaptureParameters,
    request: Request,
) -> Result<Response, Refusal> {
    let keys = KeyHints::parse(parameters.key.as_deref().unwrap_or_default())
        .map_err(|error| EngineError::Parameter { name: "key", reason: error.to_string() }.into());
    let allowed = app.allow(principal, Action::Ingest, Some(CHANGES));
    let meta = allowed.and(keys).and_then(|keys| Ok((keys, idempotency_key(request.headers())?)));
    let (keys, idempotency_key) = match meta {
        Ok(meta) => meta,
        Err(refusal) => return Err(refuse(request, refusal).await),
    };
    let (_, body) = receive(&app.engine, request, app.body_limits(app.engine.limits().body_bytes)).await?;
    let request = EnvelopeRequest { format, source: parameters.source, keys, body, idempotency_key };
    let receipt = app.engine.ingest_envelopes(&app.query, request).await?;
    let status = if receipt.records > 0 && !receipt.replayed { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = (status, Json(&receipt)).into_response();
    if receipt.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}
