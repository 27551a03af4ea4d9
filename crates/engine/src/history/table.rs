//! All rows of a table as of an instant, page by page in key order, so that memory does not grow with the table.

use super::rows::Row;
use super::source::narrow;
use super::{Fold, State, Table, instant, text, until};
use crate::error::Result;
use crate::query::QueryEngine;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use serde::Serialize;

/// Keys looked at for one page at most.
const MAX_PAGE_KEYS: usize = 10_000;

/// Which page of a table to return.
#[derive(Clone, Debug)]
pub struct TableAtOptions {
    /// Only keys after this one: [`TablePage::next`] of the page before.
    pub after: Option<String>,
    /// Keys looked at, at most 10,000. A page may have fewer rows, since rows that did not exist then are left out.
    pub limit: usize,
}

impl Default for TableAtOptions {
    fn default() -> Self {
        Self { after: None, limit: 1000 }
    }
}

/// Some rows of a table as of an instant.
#[derive(Clone, Debug, Serialize)]
pub struct TablePage {
    /// The rows, by key (compared byte by byte).
    pub rows: Vec<State>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
}

/// The rows of an audited table as of an instant (µs UTC), one page at a time.
///
/// # Errors
/// [`crate::EngineError::Parameter`] if the table is of several sources and none is named; else as a query, see [`QueryEngine::sql`].
pub async fn table_at<'a>(query: &QueryEngine, table: impl Into<Table<'a>>, time: i64, options: &TableAtOptions) -> Result<TablePage> {
    let scope = Scope::new(query, table.into(), time, options.after.is_none()).await?;
    let limit = options.limit.clamp(1, MAX_PAGE_KEYS);
    let keys = scope.keys(options.after.as_deref(), limit).await?;
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
        return Ok(TablePage { rows: Vec::new(), next: None });
    };
    let rows = scope.rows(first, last).await?;
    let next = (keys.len() == limit).then(|| last.clone());
    Ok(TablePage { rows, next })
}

/// The changes of a table that count: those until the instant, after the last time the table was emptied.
struct Scope<'a> {
    query: &'a QueryEngine,
    conditions: String,
    parameters: Vec<ScalarValue>,
}

impl<'a> Scope<'a> {
    /// The first page looks whether the table is of several sources; those after it need not look again.
    async fn new(query: &'a QueryEngine, table: Table<'_>, time: i64, is_first: bool) -> Result<Self> {
        let (mut conditions, mut parameters) = ("table_name = $1".to_owned(), vec![text(table.name)]);
        until(time, &mut conditions, &mut parameters);
        if is_first || table.source.is_some() {
            narrow(query, table, &mut conditions, &mut parameters).await?;
        }
        let emptied = format!(
            "SELECT recorded_at, id, retention_years, stream_index FROM audit.sys_audit_log \
             WHERE {conditions} AND primary_key IN ('', '*') AND operation = 'TRUNCATE' ORDER BY recorded_at DESC, id DESC LIMIT 1"
        );
        let emptied = query.collect(&emptied, parameters.clone()).await?;
        if let Some(row) = emptied.iter().flat_map(Row::all).next() {
            parameters.push(instant(row.time("recorded_at")?));
            let time = parameters.len();
            for name in ["retention_years", "stream_index", "id"] {
                parameters.push(ScalarValue::from(row.number(name)?));
            }
            let (years, index, id) = (time + 1, time + 2, time + 3);
            conditions.push_str(&format!(
                " AND recorded_at >= ${time} AND (recorded_at > ${time} OR CASE retention_years WHEN ${years} THEN stream_index > ${index} ELSE id > ${id} END)"
            ));
        }
        conditions.push_str(" AND operation IN ('INSERT', 'UPDATE', 'DELETE', 'SNAPSHOT')");
        Ok(Self { query, conditions, parameters })
    }

    /// Adds a parameter to a copy of the list; returns its place.
    fn with(parameters: &mut Vec<ScalarValue>, value: &str) -> usize {
        parameters.push(text(value));
        parameters.len()
    }

    /// The next keys, in order.
    async fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let mut parameters = self.parameters.clone();
        let mut sql = format!("SELECT DISTINCT primary_key FROM audit.sys_audit_log WHERE {}", self.conditions);
        if let Some(after) = after {
            sql.push_str(&format!(" AND primary_key > ${}", Self::with(&mut parameters, after)));
        }
        sql.push_str(&format!(" ORDER BY primary_key LIMIT {limit}"));
        let batches = self.query.collect(&sql, parameters).await?;
        batches.iter().flat_map(Row::all).map(|row| Ok(row.required("primary_key")?.to_owned())).collect()
    }

    /// The rows whose keys lie in a closed range.
    async fn rows(&self, first: &str, last: &str) -> Result<Vec<State>> {
        let mut parameters = self.parameters.clone();
        let (first, last) = (Self::with(&mut parameters, first), Self::with(&mut parameters, last));
        let sql = format!(
            "SELECT {}, max(id) OVER (PARTITION BY primary_key, recorded_at, retention_years ORDER BY stream_index) AS place \
             FROM audit.sys_audit_log WHERE {} AND primary_key >= ${first} AND primary_key <= ${last} \
             ORDER BY primary_key, recorded_at, place, stream_index",
            Fold::COLUMNS,
            self.conditions
        );
        let mut changes = self.query.sql(&sql, parameters).await?;
        let (mut rows, mut current) = (Vec::new(), None::<(String, Fold)>);
        while let Some(batch) = changes.try_next().await? {
            for row in Row::all(&batch) {
                let key = row.required("primary_key")?;
                if current.as_ref().is_none_or(|(name, _)| name != key)
                    && let Some((name, fold)) = current.replace((key.to_owned(), Fold::default()))
                {
                    rows.extend(fold.state(&name)?);
                }
                if let Some((_, fold)) = &mut current {
                    fold.apply(row)?;
                }
            }
        }
        if let Some((name, fold)) = current {
            rows.extend(fold.state(&name)?);
        }
        Ok(rows)
    }
}
