//! Comparing a source's database with the log: `/api/v1/sources/{name}/reconcile`. It takes as long as it takes, so that the answer is a line of JSON every
//! second, and the last one is the outcome.

use crate::answer::{Code, Refusal};
use crate::body::receive;
use crate::entities::CHANGES;
use crate::peers::Peer;
use crate::reader::{OnRecord, Reader, Receipt};
use crate::routes::{AppState, Parameters, Segments};
use crate::sources::{Wish, actor};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use muniment_access::Action;
use muniment_engine::EngineError;
use muniment_engine::reading::Outcome;
use muniment_engine::reconcile::{Progress, ReconcileOptions, Reconciliation};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Bytes of the request.
const BODY_BYTES: usize = 256 << 10;
/// Most differences that an answer lists.
const MOST_LISTED: usize = 10_000;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

type Compared = Result<Reconciliation, EngineError>;

struct Running {
    work: Pin<Box<dyn Future<Output = Compared> + Send>>,
    progress: watch::Receiver<Value>,
    ticks: tokio::time::Interval,
    receipt: Receipt,
}

/// Compares. The work ends with the connection.
pub(crate) async fn reconcile(
    State(app): AppState,
    reader: Reader,
    Extension(peer): Extension<Arc<Peer>>,
    Segments(name): Segments<String>,
    Parameters(wish): Parameters<Wish>,
    request: Request,
) -> Result<Response, Refusal> {
    reader.allow(Action::Verify, Some(CHANGES))?;
    actor(&peer, request.headers(), &wish)?;
    let (_, body) = receive(&app.engine, request, app.body_limits(BODY_BYTES)).await?;
    let wrong = |error: serde_json::Error| Refusal::new(Code::InvalidParameter, format!("the options can't be read: {error}"));
    let mut options = if body.is_empty() { ReconcileOptions::default() } else { serde_json::from_slice(&body).map_err(wrong)? };
    options.listed = options.listed.min(MOST_LISTED);
    if !app.engine.sources().await?.iter().any(|source| source.name == name) {
        return Err(EngineError::NotFound(format!("source {name}")).into());
    }
    let receipt = reader.receipt(Action::Verify, format!("comparison of {name} with its tables"), serde_json::from_slice(&body).ok());
    receipt.record(Outcome::Begun, 0, 0).await?;
    let (told, progress) = watch::channel(json!({"progress": "starting"}));
    let work = async move {
        let tell = |progress: Progress<'_>| {
            told.send_replace(describe(progress));
        };
        app.engine.reconcile(&app.query, &name, &options, &tell).await
    };
    let running = Running { work: Box::pin(work), progress, ticks: tokio::time::interval(TELL_EVERY), receipt };
    let lines = stream::unfold(Some(running), |running| async move { next_line(running?).await });
    Ok((Extension(OnRecord), [(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

async fn next_line(mut running: Running) -> Option<(Result<Bytes, Infallible>, Option<Running>)> {
    let (line, rest) = tokio::select! {
        outcome = &mut running.work => (last(outcome, &running.receipt).await, None),
        _ = running.ticks.tick() => {
            let progress = running.progress.borrow().clone();
            (progress, Some(running))
        }
    };
    Some((Ok(Bytes::from(format!("{line}\n"))), rest))
}

/// The last line. It is given once it is on the record that it is.
async fn last(outcome: Compared, receipt: &Receipt) -> Value {
    let (line, what) = match outcome {
        Ok(outcome) => (json!({ "outcome": outcome }), Outcome::Answered),
        Err(error) => {
            let refusal = Refusal::from(error);
            (refusal.body(), Outcome::Failed(refusal.message().to_owned()))
        }
    };
    let recorded = receipt.record(what, 1, line.to_string().len() as u64).await;
    recorded.map_or_else(|error| Refusal::from(error).body(), |()| line)
}

fn describe(progress: Progress<'_>) -> Value {
    match progress {
        Progress::Waiting { position } => json!({ "progress": "waiting", "position": position }),
        Progress::Comparing { table, rows } => json!({ "progress": "comparing", "table": table, "rows": rows }),
    }
}
