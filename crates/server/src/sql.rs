//! Questions: `GET` and `POST /api/v1/sql`. Results are streamed as they come.

use crate::answer::{Code, Refusal};
use crate::body::receive;
use crate::identity::Identity;
use crate::routes::{App, AppState, Parameters};
use arrow_array::RecordBatch;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use muniment_access::Action;
use muniment_engine::EngineError;
use muniment_engine::metrics::Failure;
use muniment_engine::query::output::{Encoder, OutputFormat};
use muniment_engine::query::{QueryStream, parameter};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of a question with its parameters.
const BODY_BYTES: usize = 512 << 10;

/// The formats by media type. The first is the default.
pub(crate) const FORMATS: [(&str, OutputFormat); 4] = [
    ("application/json", OutputFormat::Json),
    ("application/x-ndjson", OutputFormat::Ndjson),
    ("text/csv", OutputFormat::Csv),
    ("application/vnd.apache.arrow.stream", OutputFormat::Arrow),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    query: String,
    #[serde(default)]
    parameters: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Short {
    q: String,
    parameters: Option<String>,
}

pub(crate) async fn by_parameters(
    State(app): AppState,
    Identity(principal): Identity,
    Parameters(short): Parameters<Short>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    app.allow(&principal, Action::Read, None)?;
    let wrong = |error| Refusal::new(Code::InvalidParameter, format!("parameters is not a JSON array: {error}"));
    let parameters = short.parameters.as_deref().map(serde_json::from_str).transpose().map_err(wrong)?.unwrap_or_default();
    answer(&app, Question { query: short.q, parameters }, &headers).await
}

pub(crate) async fn by_body(State(app): AppState, Identity(principal): Identity, request: Request) -> Result<Response, Refusal> {
    app.allow(&principal, Action::Read, None)?;
    let (parts, body) = receive(&app.engine, request, app.body_limits(BODY_BYTES)).await?;
    let wrong = |error| Refusal::new(Code::InvalidParameter, format!("the body is not {{\"query\": …, \"parameters\": […]}}: {error}"));
    let question = serde_json::from_slice(&body).map_err(wrong)?;
    drop(body);
    answer(&app, question, &parts.headers).await
}

async fn answer(app: &Arc<App>, question: Question, headers: &HeaderMap) -> Result<Response, Refusal> {
    let format = accepted(headers)?;
    let watch = Watch { app: app.clone(), began: Instant::now() };
    let started = start(app, question, format).await;
    let (result, first) = started.inspect_err(|_| app.engine.metrics().failed(Failure::Query))?;
    let body = Body::from_stream(stream::unfold(Some((result, first, watch)), next_bytes));
    let headers = [(CONTENT_TYPE, format.media_type()), (CACHE_CONTROL, "no-store"), (VARY, "accept")];
    Ok((headers, body).into_response())
}

/// Runs a question up to its first rows, so that what is wrong with it can still be said with a status.
async fn start(app: &App, question: Question, format: OutputFormat) -> Result<(Output, Option<RecordBatch>), EngineError> {
    let parameters = question.parameters.iter().map(parameter).collect::<Result<Vec<_>, _>>()?;
    let mut rows = app.query.sql(&question.query, parameters).await?;
    let encoder = Encoder::new(format, &rows.schema)?;
    let first = rows.next().await.transpose()?;
    Ok((Output { rows, encoder }, first))
}

struct Output {
    rows: QueryStream,
    encoder: Encoder,
}

/// Times a question until its last row was sent, or its client is gone.
struct Watch {
    app: Arc<App>,
    began: Instant,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.app.engine.metrics().query_seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

type Progress = Option<(Output, Option<RecordBatch>, Watch)>;

/// The next bytes of a result. After an error the connection is broken off, so that no client takes a part for the whole.
async fn next_bytes(progress: Progress) -> Option<(Result<Bytes, EngineError>, Progress)> {
    let (mut output, mut batch, watch) = progress?;
    loop {
        let Some(rows) = batch else {
            return Some((output.encoder.finish(), None));
        };
        let step = match output.encoder.write(&rows) {
            Ok(bytes) => output.rows.next().await.transpose().map(|next| (bytes, next)),
            Err(error) => Err(error),
        };
        match step {
            Ok((bytes, next)) if bytes.is_empty() => batch = next,
            Ok((bytes, next)) => return Some((Ok(bytes), Some((output, next, watch)))),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a query failed after its first rows");
                watch.app.engine.metrics().failed(Failure::Query);
                return Some((Err(error), None));
            }
        }
    }
}

/// The format that the client likes best of those that there are.
fn accepted(headers: &HeaderMap) -> Result<OutputFormat, Refusal> {
    let mut best: Option<(f32, OutputFormat)> = None;
    let mut given = false;
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            given = true;
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            let matches = |media: &str| {
                name == "*/*" || name == media || name.strip_suffix('*').is_some_and(|kind| kind.ends_with('/') && media.starts_with(kind))
            };
            if let Some((_, format)) = FORMATS.iter().find(|(media, _)| matches(media))
                && weight > best.map_or(0.0, |(weight, _)| weight)
            {
                best = Some((weight, *format));
            }
        }
    }
    match best {
        Some((_, format)) => Ok(format),
        None if !given => Ok(OutputFormat::Json),
        None => {
            let names: Vec<&str> = FORMATS.iter().map(|(media, _)| *media).collect();
            Err(Refusal::new(Code::NotAcceptable, format!("results come as {}", names.join(", "))))
        }
    }
}
