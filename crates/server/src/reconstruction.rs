//! Who is answerable for a row's values, what a transaction did, and the script that would take it back.

use crate::answer::{Code, Refusal};
use crate::body::receive;
use crate::entities::{CHANGES, instant, limit};
use crate::reader::Reader;
use crate::routes::{AppState, Parameters, Segments};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use muniment_access::Action;
use muniment_engine::history::{DEFAULT_HISTORY_LIMIT, Dialect, Selection, Table, UndoOptions, blame, parse_time, transaction, undo};
use muniment_engine::{EngineError, KeyHints};
use serde::Deserialize;
use serde_json::json;

/// Bytes of a request for an undo script.
const BODY_BYTES: usize = 64 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlameParameters {
    source: Option<String>,
    time: Option<String>,
}

pub(crate) async fn blame_row(
    reader: Reader,
    Segments((table, key)): Segments<(String, String)>,
    Parameters(parameters): Parameters<BlameParameters>,
) -> Result<Response, Refusal> {
    reader.allow(Action::Read, Some(CHANGES))?;
    let time = parameters.time.as_deref().map(instant).transpose()?.unwrap_or(i64::MAX);
    let receipt = reader.receipt(Action::Read, format!("blame of {table} {key}"), None);
    let found = async {
        let found = blame(&reader.query()?, Table { name: &table, source: parameters.source.as_deref() }, &key, time).await?;
        let found = found.ok_or_else(|| Refusal::new(Code::NotFound, format!("there is no change of {table} {key}")))?;
        Ok((found, 1))
    };
    reader.answer(receipt, found.await).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransactionParameters {
    limit: Option<usize>,
}

pub(crate) async fn one_transaction(
    reader: Reader,
    Segments(id): Segments<String>,
    Parameters(parameters): Parameters<TransactionParameters>,
) -> Result<Response, Refusal> {
    reader.allow(Action::Read, Some(CHANGES))?;
    let limit = limit(parameters.limit)?.unwrap_or(DEFAULT_HISTORY_LIMIT);
    let receipt = reader.receipt(Action::Read, format!("transaction {id}"), None);
    let found = async {
        let found = transaction(&reader.query()?, &id, limit).await?;
        let found = found.ok_or_else(|| Refusal::new(Code::NotFound, format!("there is no change of the transaction {id}")))?;
        let rows = found.changes.len() as u64;
        Ok((found, rows))
    };
    reader.answer(receipt, found.await).await
}

/// What to take back, and how. One of record, transaction, user and user_id selects.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UndoRequest {
    record: Option<i64>,
    transaction: Option<String>,
    user: Option<String>,
    user_id: Option<i64>,
    from: Option<String>,
    to: Option<String>,
    dialect: Option<Dialect>,
    source: Option<String>,
    #[serde(default)]
    key: String,
}

impl UndoRequest {
    fn selection(&self) -> Result<Selection, EngineError> {
        let window = match (&self.from, &self.to) {
            (Some(from), Some(to)) => Some((parse_time(from)?, parse_time(to)?)),
            _ => None,
        };
        let (name, id) = (self.user.clone(), self.user_id);
        match (self.record, &self.transaction, name.is_some() || id.is_some(), window) {
            (Some(record), None, false, None) => Ok(Selection::Record(record)),
            (None, Some(transaction), false, None) => Ok(Selection::Transaction(transaction.clone())),
            (None, None, true, Some((from, to))) if name.is_none() || id.is_none() => Ok(Selection::User { name, id, from, to }),
            _ => {
                let reason = "it is one of record, transaction, or user or user_id with from and to".to_owned();
                Err(EngineError::Parameter { name: "selection", reason })
            }
        }
    }
}

pub(crate) async fn undo_script(State(app): AppState, reader: Reader, request: Request) -> Result<Response, Refusal> {
    reader.allow(Action::Read, Some(CHANGES))?;
    let (_, body) = receive(&app.engine, request, app.body_limits(BODY_BYTES)).await?;
    let wrong = |error| Refusal::new(Code::InvalidParameter, format!("the body is not a request for an undo script: {error}"));
    let wanted: UndoRequest = serde_json::from_slice(&body).map_err(wrong)?;
    let keys = KeyHints::parse(&wanted.key).map_err(|error| EngineError::Parameter { name: "key", reason: error.to_string() })?;
    let options = UndoOptions { dialect: wanted.dialect.unwrap_or(Dialect::Postgresql), keys, source: wanted.source.clone() };
    let selection = wanted.selection()?;
    let receipt = reader.receipt(Action::Read, "undo", serde_json::from_slice(&body).ok());
    let mut status = StatusCode::OK;
    let found = async {
        let found = undo(&reader.query()?, &selection, &options).await?;
        let found = found.ok_or_else(|| Refusal::new(Code::NotFound, "the selection has no change of a row"))?;
        if found.refusals.is_empty() {
            return Ok((json!(found), found.records as u64));
        }
        let message = format!("{} of {} records can't be taken back", found.refusals.len(), found.records);
        let refusal = Refusal::new(Code::UndoRefused, message);
        let mut body = refusal.body();
        body["refusals"] = json!(found.refusals);
        status = refusal.code().status();
        Ok((body, found.refusals.len() as u64))
    };
    let mut response = reader.answer(receipt, found.await).await?;
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
    }
    Ok(response)
}
