//! Undo scripts: SQL that takes back a record, a transaction, or what a user did in a window. It is written, never run.
//!
//! Each statement takes back one record, newest first. It finds its row by the full key and by every value that the record left, and fails, with all of the script,
//! if it does not find exactly that row. A script is refused as a whole, with every reason, if a later change depends on what it would take back: the row was changed
//! again, its key was used again, its table was emptied or altered. So is what the log can't restore: values that were masked or too large to be kept, or
//! that it never saw.

mod plan;
mod script;

use super::rows::Row;
use super::source::{known_sources, of_source, one_of, source_of};
use super::{changes_rows, instant, text};
use crate::error::{EngineError, Result};
use crate::query::QueryEngine;
use datafusion::common::ScalarValue;
use muniment_capture::envelope::KeyHints;
use plan::{Entities, Planned};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Records that one script takes back at most.
pub const MAX_UNDO_RECORDS: usize = 10_000;
/// Keys looked up by one query.
const KEYS_AT_ONCE: usize = 200;

/// What to take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One record of `sys_audit_log`, by its id.
    Record(i64),
    /// All changes of a transaction.
    Transaction(String),
    /// All changes that a user made in a window of event time, µs UTC, half-open.
    User {
        /// Who, by name.
        name: Option<String>,
        /// Who, by number.
        id: Option<i64>,
        /// The beginning.
        from: i64,
        /// The end.
        to: i64,
    },
}

/// Whose SQL to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// PostgreSQL.
    Postgresql,
    /// SQLite 3.24 or later.
    Sqlite,
    /// MySQL 8.0.16 or later, MariaDB 10.2 or later.
    Mysql,
    /// SQL Server 2012 or later.
    Sqlserver,
}

/// How to write a script.
#[derive(Clone, Debug)]
pub struct UndoOptions {
    /// Whose SQL.
    pub dialect: Dialect,
    /// Key columns of tables, where the rows don't show which they are.
    pub keys: KeyHints,
    /// Only records of this source. A script is for one database: without it, what a user did in several is refused.
    pub source: Option<String>,
}

/// Why a record can't be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The record that was to be taken back.
    pub record: i64,
    /// Its table.
    pub table: String,
    /// Its key.
    pub primary_key: String,
    /// The later record that depends on it, if that is the reason.
    pub later: Option<i64>,
    /// The reason.
    pub reason: String,
}

/// A script, or why there is none.
#[derive(Clone, Debug, Serialize)]
pub struct Undo {
    /// Whose SQL it is.
    pub dialect: Dialect,
    /// Records that were selected.
    pub records: usize,
    /// Statements of the script; records that changed nothing need none.
    pub statements: usize,
    /// The script; `None` if it was refused.
    pub script: Option<String>,
    /// Why it was refused.
    pub refusals: Vec<Refusal>,
}

/// A selected record.
#[derive(Clone, Debug)]
struct Selected {
    id: i64,
    table: String,
    key: String,
    operation: String,
    position: Option<String>,
}

/// Writes the script that takes back a selection. `None` if the selection has no change of a row.
///
/// # Errors
/// [`EngineError::Parameter`] if it is more than [`MAX_UNDO_RECORDS`], or of several sources; else as a query, see [`QueryEngine::sql`].
pub async fn undo(query: &QueryEngine, selection: &Selection, options: &UndoOptions) -> Result<Option<Undo>> {
    let known = known_sources(query).await?;
    let mut selected = select(query, selection, options.source.as_deref(), &known).await?;
    if !matches!(selection, Selection::Record(_)) {
        selected.retain(|record| record.operation != "SNAPSHOT");
    }
    if selected.is_empty() {
        return Ok(None);
    }
    let sources: BTreeSet<&str> = selected.iter().filter_map(|record| source_of(record.position.as_deref()?, &known)).collect();
    let sources: Vec<&str> = sources.into_iter().collect();
    one_of(&sources, "the selection")?;
    let source = options.source.as_deref().or(sources.first().copied()).map(|source| (source, known.as_slice()));
    let mut refusals: Vec<Refusal> = selected.iter().filter_map(of_no_row).collect();
    let mut planned: HashMap<i64, Planned> = HashMap::new();
    let ids: BTreeSet<i64> = selected.iter().map(|record| record.id).collect();
    let mut keys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in selected.iter().filter(|record| of_no_row(record).is_none()) {
        keys.entry(&record.table).or_default().insert(&record.key);
    }
    for (table, keys) in keys {
        let keys: Vec<&str> = keys.into_iter().collect();
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let mut entities = Entities::new(table, keys, &ids, &options.keys);
            for batch in histories(query, table, keys, source).await? {
                Row::all(&batch).try_for_each(|row| entities.apply(row))?;
            }
            entities.finish(&mut planned, &mut refusals);
        }
    }
    let steps = parents_first(selected.iter().rev().filter_map(|record| planned.get(&record.id)?.step()));
    refusals.sort_by_key(|refusal| refusal.record);
    let script = match script::write(options.dialect, selection, &steps) {
        Ok(script) => refusals.is_empty().then_some(script),
        Err(mut unwritable) => {
            refusals.append(&mut unwritable);
            None
        }
    };
    Ok(Some(Undo { dialect: options.dialect, records: selected.len(), statements: steps.len(), script, refusals }))
}

/// Rows are inserted before others get values back that had become NULL: ON DELETE SET NULL takes them after the row that they refer to, and no other value depends on that.
fn parents_first<'a>(newest_first: impl Iterator<Item = &'a plan::Step>) -> Vec<&'a plan::Step> {
    let mut steps: Vec<&plan::Step> = Vec::new();
    for step in newest_first {
        let passed = if step.is_insert() { steps.iter().rev().take_while(|step| step.fills_nulls()).count() } else { 0 };
        steps.insert(steps.len() - passed, step);
    }
    steps
}

/// Whether a record is about no row that could be brought back.
fn of_no_row(record: &Selected) -> Option<Refusal> {
    let reason = match record.operation.as_str() {
        "TRUNCATE" => "it emptied the whole table; restore the table as of the instant before instead",
        "DDL" => "it changed the table itself",
        "SNAPSHOT" => "it says that the row was there, and changed nothing",
        operation if !changes_rows(operation) => "it changed no row",
        _ => return None,
    };
    Some(Refusal {
        record: record.id,
        table: record.table.clone(),
        primary_key: record.key.clone(),
        later: None,
        reason: reason.to_owned(),
    })
}

/// The selected records in commit order.
async fn select(query: &QueryEngine, selection: &Selection, source: Option<&str>, known: &[String]) -> Result<Vec<Selected>> {
    let (condition, mut parameters) = match selection {
        Selection::Record(id) => ("id = $1", vec![ScalarValue::from(*id)]),
        Selection::Transaction(id) => ("transaction_id = $1", vec![text(id)]),
        Selection::User { name: Some(name), from, to, .. } => {
            ("changed_by_username = $1 AND changed_at >= $2 AND changed_at < $3", vec![text(name), instant(*from), instant(*to)])
        }
        Selection::User { name: None, id: Some(id), from, to } => {
            ("changed_by = $1 AND changed_at >= $2 AND changed_at < $3", vec![ScalarValue::from(*id), instant(*from), instant(*to)])
        }
        Selection::User { name: None, id: None, .. } => {
            return Err(EngineError::Parameter { name: "user", reason: "a name or a number is needed".to_owned() });
        }
    };
    let source = source.map(|source| format!(" AND {}", of_source(source, known, &mut parameters))).unwrap_or_default();
    let sql = format!(
        "SELECT id, table_name, primary_key, operation, source_position, stream_index, recorded_at, \
         max(id) OVER (PARTITION BY recorded_at, retention_years ORDER BY stream_index) AS place \
         FROM audit.sys_audit_log WHERE {condition}{source} ORDER BY recorded_at, place, stream_index LIMIT {}",
        MAX_UNDO_RECORDS + 1
    );
    let mut selected = Vec::new();
    for row in query.collect(&sql, parameters).await?.iter().flat_map(Row::all) {
        selected.push(Selected {
            id: row.number("id")?,
            table: row.required("table_name")?.to_owned(),
            key: row.required("primary_key")?.to_owned(),
            operation: row.required("operation")?.to_owned(),
            position: row.some_text("source_position")?,
        });
    }
    if selected.len() > MAX_UNDO_RECORDS {
        let reason = format!("it has more than {MAX_UNDO_RECORDS} records; choose a shorter window");
        return Err(EngineError::Parameter { name: "selection", reason });
    }
    Ok(selected)
}

/// The whole histories of some rows of a table, in commit order, with those of the table as a whole.
async fn histories(
    query: &QueryEngine,
    table: &str,
    keys: &[&str],
    source: Option<(&str, &[String])>,
) -> Result<Vec<arrow_array::RecordBatch>> {
    let mut parameters = vec![text(table)];
    let mut places = String::new();
    for key in keys {
        parameters.push(text(key));
        places.push_str(&format!("${}, ", parameters.len()));
    }
    let source = source.map(|(source, known)| format!(" AND {}", of_source(source, known, &mut parameters))).unwrap_or_default();
    let sql = format!(
        "SELECT {}, change_details, max(id) OVER (PARTITION BY recorded_at, retention_years ORDER BY stream_index) AS place \
         FROM audit.sys_audit_log WHERE table_name = $1 AND primary_key IN ({places}'', '*') \
         AND (primary_key IN ({places}NULL) OR operation IN ('TRUNCATE', 'DDL')){source} ORDER BY recorded_at, place, stream_index",
        super::Fold::COLUMNS
    );
    query.collect(&sql, parameters).await
}
