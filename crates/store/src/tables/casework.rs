//! Investigations in SQL: the columns of `security_audit_log` that speak of them show how the investigation of a record stands, as if they were the record's own.
//! The record itself stays as it was committed; what it said is in columns of their own.

use super::{derived, df_error};
use crate::db::CommitDb;
use crate::error::Result as StoreResult;
use crate::register::{Lookup, RegisterRow};
use arrow_array::builder::StringViewBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field};
use datafusion::common::{DataFusionError, Result};
use muniment_model::{Table, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// The log whose records are investigated.
const LOG: &str = "security_audit_log";
/// Columns that show the investigation in place of what the record says.
const SHOWN: [&str; 3] = ["investigation_status", "investigated_by", "investigated_at"];
/// Columns with what the record says, in the same order.
const RECORDED: [&str; 3] = ["recorded_investigation_status", "recorded_investigated_by", "recorded_investigated_at"];
/// Number and notes of the investigation.
const CASE: [&str; 2] = ["investigation_id", "investigation_notes"];

/// Whether a column of a log is not read as it is stored because investigations show in it.
pub(super) fn shows(table: &Table, column: &str) -> bool {
    table.name == LOG && (SHOWN.contains(&column) || is_extra(column))
}

/// Whether a column is none of the record's.
fn is_extra(column: &str) -> bool {
    RECORDED.contains(&column) || CASE.contains(&column)
}

/// Columns that a log has in SQL for its investigations.
pub(super) fn fields(table: &Table) -> Vec<Arc<Field>> {
    if table.name != LOG {
        return Vec::new();
    }
    let types = [DataType::Int64, DataType::Int64, Type::Timestamp.arrow(), DataType::Int64, DataType::Utf8View];
    RECORDED.iter().chain(&CASE).zip(types).map(|(name, kind)| Arc::new(Field::new(*name, kind, true))).collect()
}

/// Columns of the record that are needed to make these.
pub(super) fn needed<'a>(table: &Table, wanted: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let mut needed = Vec::new();
    for column in wanted.filter(|column| shows(table, column)) {
        if needed.is_empty() {
            needed.push("id");
        }
        let places = [SHOWN, RECORDED].into_iter().filter_map(|names| names.iter().position(|name| *name == column));
        needed.extend(places.filter_map(|at| SHOWN.get(at)));
    }
    needed
}

/// How an investigation stands.
#[derive(Debug, Default)]
struct Case {
    id: i64,
    status: i64,
    by: Option<i64>,
    at: Option<i64>,
    notes: Option<String>,
}

/// The newest investigation of each record that has one.
#[derive(Debug, Default)]
pub(super) struct Cases(HashMap<i64, Case>);

impl Cases {
    /// Whether all of these columns are what the records say: nothing is investigated, and nothing else is asked for.
    pub fn leave<'a>(&self, mut wanted: impl Iterator<Item = &'a str>) -> bool {
        self.0.is_empty() && !wanted.any(is_extra)
    }

    /// Reads them as they are now.
    pub async fn read(db: &dyn CommitDb) -> StoreResult<Self> {
        let rows = async |name: &str| match muniment_model::table(name) {
            Some(table) => db.find_in_register(&Lookup::new(table, Vec::new())).await,
            None => Ok(Vec::new()),
        };
        let mut cases: HashMap<i64, Case> = HashMap::new();
        for row in rows("investigations").await? {
            if let Some(record) = row.int("security_audit_id") {
                cases.insert(record, case(&row));
            }
        }
        if cases.is_empty() {
            return Ok(Self::default());
        }
        let mut notes: HashMap<i64, String> = HashMap::new();
        for row in rows("investigation_notes").await? {
            let all = notes.entry(row.int("investigation_id").unwrap_or_default()).or_default();
            let line = format!("{}: {}", row.text("author").unwrap_or_default(), row.text("note").unwrap_or_default());
            all.push_str(if all.is_empty() { "" } else { "\n" });
            all.push_str(&line);
        }
        cases.values_mut().for_each(|case| case.notes = notes.remove(&case.id));
        Ok(Self(cases))
    }

    /// One of the columns, for the records of a batch.
    pub fn column(&self, batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
        let ids = derived::column(batch, "id")?.as_primitive::<Int64Type>();
        let cases = || ids.values().iter().map(|id| self.0.get(id));
        let recorded = |at: usize| SHOWN.get(at).map_or_else(|| Err(unknown(name)), |column| derived::column(batch, column).cloned());
        if let Some(at) = RECORDED.iter().position(|column| *column == name) {
            return recorded(at);
        }
        Ok(match name {
            "investigation_status" => {
                let own = recorded(0)?;
                let own = own.as_primitive::<Int64Type>().iter();
                Arc::new(cases().zip(own).map(|(case, own)| case.map(|case| case.status).or(own)).collect::<Int64Array>())
            }
            "investigated_by" => {
                let own = recorded(1)?;
                let own = own.as_primitive::<Int64Type>().iter();
                Arc::new(cases().zip(own).map(|(case, own)| case.map_or(own, |case| case.by)).collect::<Int64Array>())
            }
            "investigated_at" => {
                let own = recorded(2)?;
                let own = own.as_primitive::<TimestampMicrosecondType>().iter();
                let times = cases().zip(own).map(|(case, own)| case.map_or(own, |case| case.at));
                Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            "investigation_id" => Arc::new(cases().map(|case| case.map(|case| case.id)).collect::<Int64Array>()),
            "investigation_notes" => {
                let mut texts = StringViewBuilder::with_capacity(batch.num_rows());
                cases().for_each(|case| texts.append_option(case.and_then(|case| case.notes.as_deref())));
                Arc::new(texts.finish())
            }
            other => return Err(unknown(other)),
        })
    }
}

fn case(row: &RegisterRow) -> Case {
    Case {
        id: row.id(),
        status: row.int("status").unwrap_or_default(),
        by: row.int("resolved_by").or(row.int("assigned_to")),
        at: row.int("resolved_at").or(row.int("started_at")),
        notes: None,
    }
}

fn unknown(name: &str) -> DataFusionError {
    df_error(crate::StoreError::Damaged(format!("there is no column {name}")))
}
