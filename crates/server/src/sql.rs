//! Questions: `GET` and `POST /api/v1/sql`. Results are streamed as they come.

use crate::answer::{Code, Refusal};
use crate::body::receive;
use crate::reader::{OnRecord, Reader, Receipt};
use crate::routes::{App, AppState, Parameters};
use axum::Extension;
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
use muniment_engine::reading::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};
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

/// Bytes of an answer that wait for its end, so that one record says all of it. Of a longer answer the record says that it has begun before its first byte leaves, and
/// another one how much it was before its last.
const HELD_BYTES: usize = 256 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    query: String,
    #[serde(default)]
    parameters: Vec<Value>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Short {
    q: String,
    parameters: Option<String>,
    reason: Option<String>,
}

pub(crate) async fn by_parameters(
    State(app): AppState,
    reader: Reader,
    Parameters(short): Parameters<Short>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    reader.allow(Action::Read, None)?;
    let wrong = |error| Refusal::new(Code::InvalidParameter, format!("parameters is not a JSON array: {error}"));
    let parameters = short.parameters.as_deref().map(serde_json::from_str).transpose().map_err(wrong)?.unwrap_or_default();
    answer(&app, reader, Question { query: short.q, parameters, reason: short.reason }, &headers).await
}

pub(crate) async fn by_body(State(app): AppState, reader: Reader, request: Request) -> Result<Response, Refusal> {
    reader.allow(Action::Read, None)?;
    let (parts, body) = receive(&app.engine, request, app.body_limits(BODY_BYTES)).await?;
    let wrong = |error| Refusal::new(Code::InvalidParameter, format!("the body is not {{\"query\": …, \"parameters\": […]}}: {error}"));
    let question = serde_json::from_slice(&body).map_err(wrong)?;
    drop(body);
    answer(&app, reader, question, &parts.headers).await
}

async fn answer(app: &Arc<App>, mut reader: Reader, question: Question, headers: &HeaderMap) -> Result<Response, Refusal> {
    let format = accepted(headers)?;
    reader.because(question.reason)?;
    let asked = json!({ "query": question.query, "parameters": question.parameters });
    let receipt = reader.receipt(Action::Read, "sql", Some(asked));
    let watch = Watch { app: app.clone(), began: Instant::now() };
    let begun = async {
        let parameters = question.parameters.iter().map(parameter).collect::<Result<Vec<_>, _>>()?;
        let rows = reader.query()?.sql(&question.query, parameters).await?;
        let encoder = Some(Encoder::new(format, &rows.schema)?);
        let mut answer = Answering { rows, encoder, told: Told { receipt: receipt.clone(), rows: 0, bytes: 0, whole: true }, watch };
        let mut held = Vec::new();
        while held.len() < HELD_BYTES {
            match answer.next().await? {
                Some(bytes) => held.extend_from_slice(&bytes),
                None => break,
            }
        }
        Ok::<_, EngineError>((answer, Bytes::from(held)))
    };
    let (mut answer, held) = match begun.await {
        Ok(begun) => begun,
        Err(error) => {
            app.engine.metrics().failed(Failure::Query);
            return Ok(receipt.failed(Refusal::from(error)).await?);
        }
    };
    let body = if answer.encoder.is_none() {
        receipt.record(Outcome::Answered, answer.told.rows, answer.told.bytes).await?;
        Body::from(held)
    } else {
        receipt.record(Outcome::Begun, 0, 0).await?;
        answer.told.whole = false;
        Body::from_stream(stream::once(async { Ok(held) }).chain(stream::unfold(Some(answer), more)))
    };
    let headers = [(CONTENT_TYPE, format.media_type()), (CACHE_CONTROL, "no-store"), (VARY, "accept")];
    Ok((Extension(OnRecord), headers, body).into_response())
}

/// A result on its way out.
struct Answering {
    rows: QueryStream,
    /// `None` after the end.
    encoder: Option<Encoder>,
    told: Told,
    watch: Watch,
}

impl Answering {
    /// The next bytes, of which there may be none yet; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        let bytes = match self.rows.next().await.transpose()? {
            Some(batch) => {
                self.told.rows += batch.num_rows() as u64;
                encoder.write(&batch)?
            }
            None => self.encoder.take().map(Encoder::finish).transpose()?.unwrap_or_default(),
        };
        self.told.bytes += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// The next bytes that are not none. Before the last of them leave, all of them are on the record.
    async fn next_sent(&mut self) -> Result<Option<Bytes>, EngineError> {
        while let Some(bytes) = self.next().await? {
            if self.encoder.is_none() {
                self.told.end(Outcome::Answered).await?;
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// The bytes after those that were held. After an error the connection is broken off, so that no client takes a part for the whole.
async fn more(answer: Option<Answering>) -> Option<(Result<Bytes, EngineError>, Option<Answering>)> {
    let mut answer = answer?;
    match answer.next_sent().await {
        Ok(bytes) => bytes.map(|bytes| (Ok(bytes), Some(answer))),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a query failed after its first rows");
            answer.watch.app.engine.metrics().failed(Failure::Query);
            if let Err(error) = answer.told.end(Outcome::CutShort(error.to_string())).await {
                tracing::error!(error = &error as &dyn std::error::Error, "what a reader was given can't be recorded");
            }
            Some((Err(error), None))
        }
    }
}

/// What has been told of a result whose beginning is on the record. If its client goes away, that is recorded, too.
struct Told {
    receipt: Receipt,
    rows: u64,
    bytes: u64,
    /// Whether the record is complete.
    whole: bool,
}

impl Told {
    async fn end(&mut self, outcome: Outcome) -> Result<(), EngineError> {
        self.whole = true;
        self.receipt.record(outcome, self.rows, self.bytes).await
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.whole {
            let (receipt, rows, bytes) = (self.receipt.clone(), self.rows, self.bytes);
            runtime.spawn(async move {
                if let Err(error) = receipt.record(Outcome::CutShort("the client went away".to_owned()), rows, bytes).await {
                    tracing::error!(error = &error as &dyn std::error::Error, "what a reader was given can't be recorded");
                }
            });
        }
    }
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
