//! What happened to an entity, and what it or its table was like at an instant.

use crate::answer::{Code, Refusal};
use crate::reader::Reader;
use crate::routes::{Parameters, Segments};
use axum::response::Response;
use muniment_access::Action;
use muniment_engine::history::{
    Change, DEFAULT_HISTORY_LIMIT, HistoryOptions, Table, TableAtOptions, entity_at, entity_history, parse_time, table_at,
};
use serde::{Deserialize, Serialize};

/// Most changes or keys in one answer.
pub(crate) const MAX_LIMIT: usize = 10_000;
/// The log that histories are read from.
pub(crate) const CHANGES: &str = "sys_audit_log";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryParameters {
    from: Option<String>,
    to: Option<String>,
    limit: Option<usize>,
    source: Option<String>,
    #[serde(default)]
    order: Order,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    #[default]
    Asc,
    Desc,
}

/// Changes of an entity.
#[derive(Debug, Serialize)]
pub(crate) struct History {
    table: String,
    key: String,
    changes: Vec<Change>,
    /// Whether there are more changes than the limit.
    truncated: bool,
}

pub(crate) async fn history(
    reader: Reader,
    Segments((table, key)): Segments<(String, String)>,
    Parameters(parameters): Parameters<HistoryParameters>,
) -> Result<Response, Refusal> {
    reader.allow(Action::Read, Some(CHANGES))?;
    let limit = limit(parameters.limit)?.unwrap_or(DEFAULT_HISTORY_LIMIT);
    let options = HistoryOptions {
        from: parameters.from.as_deref().map(instant).transpose()?,
        to: parameters.to.as_deref().map(instant).transpose()?,
        limit: limit + 1,
        descending: parameters.order == Order::Desc,
    };
    let receipt = reader.receipt(Action::Read, format!("history of {table} {key}"), None);
    let found = async {
        let mut changes =
            entity_history(&reader.query()?, Table { name: &table, source: parameters.source.as_deref() }, &key, options).await?;
        let truncated = changes.len() > limit;
        changes.truncate(limit);
        let rows = changes.len() as u64;
        Ok((History { table, key, changes, truncated }, rows))
    };
    reader.answer(receipt, found.await).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowParameters {
    time: String,
    source: Option<String>,
}

pub(crate) async fn row_at(
    reader: Reader,
    Segments((table, key)): Segments<(String, String)>,
    Parameters(RowParameters { time, source }): Parameters<RowParameters>,
) -> Result<Response, Refusal> {
    reader.allow(Action::Read, Some(CHANGES))?;
    let at = instant(&time)?;
    let receipt = reader.receipt(Action::Read, format!("state of {table} {key}"), None);
    let found = async {
        let row = entity_at(&reader.query()?, Table { name: &table, source: source.as_deref() }, &key, at).await?;
        let row = row.ok_or_else(|| Refusal::new(Code::NotFound, format!("{table} had no row {key} at {time}")))?;
        Ok((row, 1))
    };
    reader.answer(receipt, found.await).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableParameters {
    time: String,
    limit: Option<usize>,
    after: Option<String>,
    source: Option<String>,
}

pub(crate) async fn table_at_time(
    reader: Reader,
    Segments(table): Segments<String>,
    Parameters(parameters): Parameters<TableParameters>,
) -> Result<Response, Refusal> {
    reader.allow(Action::Read, Some(CHANGES))?;
    let mut options = TableAtOptions { after: parameters.after, ..TableAtOptions::default() };
    if let Some(limit) = limit(parameters.limit)? {
        options.limit = limit;
    }
    let at = instant(&parameters.time)?;
    let receipt = reader.receipt(Action::Read, format!("state of {table}"), None);
    let found = async {
        let page = table_at(&reader.query()?, Table { name: &table, source: parameters.source.as_deref() }, at, &options).await?;
        let rows = page.rows.len() as u64;
        Ok((page, rows))
    };
    reader.answer(receipt, found.await).await
}

pub(crate) fn limit(given: Option<usize>) -> Result<Option<usize>, Refusal> {
    match given {
        Some(limit) if !(1..=MAX_LIMIT).contains(&limit) => {
            Err(Refusal::new(Code::InvalidParameter, format!("limit is between 1 and {MAX_LIMIT}")))
        }
        given => Ok(given),
    }
}

/// A time in microseconds UTC, or as RFC 3339. A `+` that was not percent-encoded arrives as a blank.
pub(crate) fn instant(text: &str) -> Result<i64, Refusal> {
    match text.parse() {
        Ok(micros) => Ok(micros),
        Err(_) => Ok(parse_time(&text.replace(' ', "+"))?),
    }
}
