//! What happened to an entity, and what it or a whole table was like at an instant, from the changes in `sys_audit_log`.
//!
//! Two times are told apart. Changes apply in **commit order**, which for captured changes is the order of the source's own transactions and does not
//! depend on anybody's clock. "As of" an instant means: the changes whose **event time** `changed_at` is not after it. Commit order is `recorded_at`,
//! and within a commit `stream_index`; the records of one commit that lie in different streams (retention classes) are merged by `id`, which follows
//! the order of a request.
//!
//! An `INSERT` or `SNAPSHOT` sets the whole row. An `UPDATE` sets the fields of its `new_values`; a field that only `old_values` has is removed; a
//! field that neither has stays as it was, so a sender may send changed fields only. A `DELETE` removes the row, and a `TRUNCATE` of the table, whose
//! key is empty or `*`, removes all rows. `DDL` changes no row. A value that its source did not send since it did not change (`{"$unchanged":true}`)
//! stays what it was.

mod blame;
mod document;
mod rows;
mod source;
mod table;
mod transaction;
mod undo;

pub use blame::{Author, Blame, FieldBlame, blame};
pub use document::FieldChange;
pub(crate) use document::{Document as RowDocument, JSON_NULL, same_value, unwrapped};
pub(crate) use rows::Row as LogRow;
pub use source::{Table, tables_like};
pub(crate) use source::{known_sources, of_source};
pub use table::{TableAtOptions, TablePage, table_at};
pub use transaction::{Transaction, TransactionChange, transaction};
pub use undo::{Dialect, MAX_UNDO_RECORDS, Refusal, Selection, Undo, UndoOptions, undo};

use crate::error::{EngineError, Result};
use crate::query::QueryEngine;
use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::common::ScalarValue;
use document::{Document, differences};
use futures::TryStreamExt;
use muniment_capture::key_text;
use rows::{Row, damaged};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use source::narrow;

/// Changes that a history returns unless it is told otherwise.
pub const DEFAULT_HISTORY_LIMIT: usize = 1000;

/// Which part of a history to return.
#[derive(Clone, Copy, Debug)]
pub struct HistoryOptions {
    /// Only changes at or after this event time, µs UTC.
    pub from: Option<i64>,
    /// Only changes before this event time, µs UTC.
    pub to: Option<i64>,
    /// Changes at most.
    pub limit: usize,
    /// Newest first.
    pub descending: bool,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self { from: None, to: None, limit: DEFAULT_HISTORY_LIMIT, descending: false }
    }
}

/// One change of an entity: what changed, who did it, when and why, and where the record is in the ledger.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// Number of the record in `sys_audit_log`.
    pub id: i64,
    /// Stream it lies in.
    pub stream: String,
    /// Its position there.
    pub stream_index: i64,
    /// Number of the commit that made it durable.
    pub commit: u64,
    /// Its `blockchain_hash`, hexadecimal.
    pub blockchain_hash: String,
    /// Time of the commit, µs UTC; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub recorded_at: i64,
    /// Time of the change, µs UTC; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub changed_at: i64,
    /// `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `SNAPSHOT` or `DDL`.
    pub operation: String,
    /// Who, by number.
    pub changed_by: Option<i64>,
    /// Who, by name.
    pub changed_by_username: Option<String>,
    /// Address the change came from.
    pub ip_address: Option<String>,
    /// Session it was made in.
    pub session_id: Option<String>,
    /// Why.
    pub change_reason: Option<String>,
    /// Business process it was part of.
    pub business_context: Option<String>,
    /// Workflow instance it was part of.
    pub workflow_instance_id: Option<String>,
    /// The sender's summary.
    pub change_details: Option<String>,
    /// The source's transaction.
    pub transaction_id: Option<String>,
    /// Where the change stands in its source.
    pub source_position: Option<String>,
    /// Ties together what one request caused.
    pub correlation_id: Option<String>,
    /// How it is known who made it: `APPLICATION`, `DATABASE` or `NONE`; absent if the sender speaks for itself.
    pub attribution: Option<String>,
    /// What changed, field by field, as the record's old and new values say.
    pub fields: Vec<FieldChange>,
    /// Whether what changed, or some of it, is masked for whoever asks; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

/// A row as of an instant.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// Key of the row.
    pub primary_key: String,
    /// The row.
    pub document: Box<RawValue>,
    /// Record of the last change until then.
    pub id: i64,
    /// Its operation.
    pub operation: String,
    /// Its event time, µs UTC; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub changed_at: i64,
    /// Time it was recorded, µs UTC; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub recorded_at: i64,
    /// Who made it, by number.
    pub changed_by: Option<i64>,
    /// Who made it, by name.
    pub changed_by_username: Option<String>,
}

/// The conditions that find the changes of one entity. The key stands in one IN list, so that bloom filters apply to it.
const OF_ENTITY: &str = "table_name = $1 AND primary_key IN ($2, '', '*') AND (primary_key = $2 OR operation = 'TRUNCATE')";

/// The conditions of a question for one entity, with their parameters.
async fn of_entity(query: &QueryEngine, table: Table<'_>, key: &str) -> Result<(String, Vec<ScalarValue>)> {
    // A key that is longer than the log keeps stands there in short.
    let (mut conditions, mut parameters) = (OF_ENTITY.to_owned(), vec![text(table.name), text(&key_text(&[Some(key)]))]);
    narrow(query, table, &mut conditions, &mut parameters).await?;
    Ok((conditions, parameters))
}

/// Adds that a change was made until an instant.
fn until(time: i64, conditions: &mut String, parameters: &mut Vec<ScalarValue>) {
    parameters.push(instant(time));
    conditions.push_str(&format!(" AND changed_at <= ${}", parameters.len()));
}

/// What a [`Change`] needs of a record.
const CHANGE_COLUMNS: &str = "id, stream_index, recorded_at, retention_years, blockchain_hash, operation, old_values, new_values, changed_at, \
    changed_by, changed_by_username, ip_address, session_id, change_reason, business_context, workflow_instance_id, change_details, transaction_id, \
    source_position, correlation_id, attribution";

/// The changes of one entity in commit order, with those of the table as a whole (`TRUNCATE`).
///
/// # Errors
/// [`EngineError::Parameter`] if the table is of several sources and none is named; else as a query, see [`QueryEngine::sql`].
pub async fn entity_history<'a>(
    query: &QueryEngine,
    table: impl Into<Table<'a>>,
    key: &str,
    options: HistoryOptions,
) -> Result<Vec<Change>> {
    let (conditions, mut parameters) = of_entity(query, table.into(), key).await?;
    let mut sql = format!(
        "SELECT {CHANGE_COLUMNS}, max(id) OVER (PARTITION BY recorded_at, retention_years ORDER BY stream_index) AS place \
         FROM audit.sys_audit_log WHERE {conditions}"
    );
    for (bound, comparison) in [(options.from, ">="), (options.to, "<")] {
        if let Some(bound) = bound {
            parameters.push(instant(bound));
            sql.push_str(&format!(" AND changed_at {comparison} ${}", parameters.len()));
        }
    }
    let direction = if options.descending { "DESC" } else { "ASC" };
    sql.push_str(&format!(" ORDER BY recorded_at {direction}, place {direction}, stream_index {direction} LIMIT {}", options.limit));
    let batches = query.collect(&sql, parameters).await?;
    let mut commits = Commits::new(query);
    let mut changes = Vec::new();
    for row in batches.iter().flat_map(Row::all) {
        changes.push(change(row, &mut commits).await?);
    }
    Ok(changes)
}

async fn change(row: Row<'_>, commits: &mut Commits<'_>) -> Result<Change> {
    let stream = format!("sys_audit_log/{}y", row.number("retention_years")?);
    let stream_index = row.number("stream_index")?;
    let (old, new) = (row.document("old_values")?, row.document("new_values")?);
    Ok(Change {
        id: row.number("id")?,
        commit: commits.of(&stream, stream_index).await?,
        stream,
        stream_index,
        blockchain_hash: row.required("blockchain_hash")?.to_owned(),
        recorded_at: row.time("recorded_at")?,
        changed_at: row.time("changed_at")?,
        operation: row.required("operation")?.to_owned(),
        changed_by: row.int("changed_by")?,
        changed_by_username: row.some_text("changed_by_username")?,
        ip_address: row.some_text("ip_address")?,
        session_id: row.some_text("session_id")?,
        change_reason: row.some_text("change_reason")?,
        business_context: row.some_text("business_context")?,
        workflow_instance_id: row.some_text("workflow_instance_id")?,
        change_details: row.some_text("change_details")?,
        transaction_id: row.some_text("transaction_id")?,
        source_position: row.some_text("source_position")?,
        correlation_id: row.some_text("correlation_id")?,
        attribution: row.some_text("attribution")?,
        fields: differences(old.as_ref(), new.as_ref()),
        masked: [&old, &new].into_iter().flatten().any(|document| document.is_masked() || document.is_partly_masked()),
    })
}

/// Looks up which commit a record belongs to; neighbours mostly share one.
struct Commits<'a> {
    query: &'a QueryEngine,
    /// Stream, first index known to lie in the commit, index after its last, and its number.
    last: Option<(String, u64, u64, u64)>,
}

impl<'a> Commits<'a> {
    fn new(query: &'a QueryEngine) -> Self {
        Self { query, last: None }
    }

    async fn of(&mut self, stream: &str, index: i64) -> Result<u64> {
        let index = u64::try_from(index).map_err(|_| damaged(format!("{stream}: index {index}")))?;
        if let Some((name, from, end, number)) = &self.last
            && name == stream
            && (*from..*end).contains(&index)
        {
            return Ok(*number);
        }
        let found = self.query.store().db().covering_commit(stream, index).await?;
        let (end, number) = found.ok_or_else(|| damaged(format!("{stream}: no commit covers record {index}")))?;
        self.last = Some((stream.to_owned(), index, end, number));
        Ok(number)
    }
}

/// The row with this key as of an instant (µs UTC): `None` if it did not exist then.
///
/// # Errors
/// [`EngineError::Parameter`] if the table is of several sources and none is named; else as a query, see [`QueryEngine::sql`].
pub async fn entity_at<'a>(query: &QueryEngine, table: impl Into<Table<'a>>, key: &str, time: i64) -> Result<Option<State>> {
    let (mut conditions, mut parameters) = of_entity(query, table.into(), key).await?;
    until(time, &mut conditions, &mut parameters);
    let sql = format!(
        "SELECT {}, max(id) OVER (PARTITION BY recorded_at, retention_years ORDER BY stream_index) AS place FROM audit.sys_audit_log \
         WHERE {conditions} ORDER BY recorded_at, place, stream_index",
        Fold::COLUMNS
    );
    let mut changes = query.sql(&sql, parameters).await?;
    let mut fold = Fold::default();
    while let Some(batch) = changes.try_next().await? {
        for row in Row::all(&batch) {
            fold.apply(row)?;
        }
    }
    fold.state(key)
}

/// Whether a record with this operation says what became of a row.
fn changes_rows(operation: &str) -> bool {
    matches!(operation, "INSERT" | "SNAPSHOT" | "UPDATE" | "DELETE" | "TRUNCATE")
}

/// The row after a record that changes rows; `None` if it is gone.
fn after(before: Option<Document>, operation: &str, row: Row<'_>) -> Result<Option<Document>> {
    Ok(match operation {
        "INSERT" | "SNAPSHOT" => row.document("new_values")?,
        "UPDATE" => match (before, row.document("new_values")?) {
            (Some(state), Some(new)) => Some(state.changed(row.document("old_values")?.as_ref(), new)),
            (None, Some(new)) => Some(new),
            (state, None) => state,
        },
        _ => None,
    })
}

/// What the changes of one row add up to, fed in commit order.
#[derive(Default)]
struct Fold {
    document: Option<Document>,
    last: Option<LastChange>,
}

struct LastChange {
    id: i64,
    operation: String,
    changed_at: i64,
    recorded_at: i64,
    changed_by: Option<i64>,
    changed_by_username: Option<String>,
}

impl Fold {
    /// What [`Fold::apply`] needs of a record.
    const COLUMNS: &str =
        "id, stream_index, recorded_at, primary_key, operation, old_values, new_values, changed_at, changed_by, changed_by_username";

    fn apply(&mut self, row: Row<'_>) -> Result<()> {
        let operation = row.required("operation")?;
        if !changes_rows(operation) {
            return Ok(());
        }
        self.document = after(self.document.take(), operation, row)?;
        self.last = Some(LastChange {
            id: row.number("id")?,
            operation: operation.to_owned(),
            changed_at: row.time("changed_at")?,
            recorded_at: row.time("recorded_at")?,
            changed_by: row.int("changed_by")?,
            changed_by_username: row.some_text("changed_by_username")?,
        });
        Ok(())
    }

    fn state(self, key: &str) -> Result<Option<State>> {
        let (Some(document), Some(last)) = (self.document, self.last) else { return Ok(None) };
        let document = document.to_json().map_err(|error| damaged(format!("the state of {key}: {error}")))?;
        let LastChange { id, operation, changed_at, recorded_at, changed_by, changed_by_username } = last;
        Ok(Some(State { primary_key: key.to_owned(), document, id, operation, changed_at, recorded_at, changed_by, changed_by_username }))
    }
}

fn text(value: &str) -> ScalarValue {
    ScalarValue::Utf8View(Some(value.to_owned()))
}

fn instant(micros: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))
}

/// Reads a time as RFC 3339 (`2026-01-31T09:00:00Z`, any offset) or as a date, which means its first instant in UTC. Returns µs UTC.
///
/// # Errors
/// [`EngineError::Parameter`] if it is neither.
pub fn parse_time(value: &str) -> Result<i64> {
    let time = DateTime::parse_from_rfc3339(value).map(|time| time.timestamp_micros());
    let date = || value.parse::<chrono::NaiveDate>().map(|date| date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros());
    let wrong = |_| EngineError::Parameter { name: "time", reason: format!("{value} is not a time such as 2026-01-31T09:00:00Z") };
    time.or_else(|_| date()).map_err(wrong)
}

/// A time, µs UTC, as RFC 3339; the number itself if it lies beyond what that can say.
pub fn format_time(micros: i64) -> String {
    match DateTime::<Utc>::from_timestamp_micros(micros) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None => micros.to_string(),
    }
}

pub(crate) fn rfc3339<S: Serializer>(micros: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_time(*micros))
}
