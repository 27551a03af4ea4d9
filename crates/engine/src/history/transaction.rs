//! All that one transaction of a source changed, over all tables and retention classes.

use super::rows::Row;
use super::{CHANGE_COLUMNS, Change, Commits, change, text};
use crate::error::Result;
use crate::query::QueryEngine;
use serde::Serialize;

/// A change with the row it is about.
#[derive(Clone, Debug, Serialize)]
pub struct TransactionChange {
    /// The table.
    pub table: String,
    /// Key of the row; `*` for the table as a whole.
    pub primary_key: String,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
}

/// A transaction.
#[derive(Clone, Debug, Serialize)]
pub struct Transaction {
    /// Its `transaction_id`.
    pub transaction_id: String,
    /// Its changes, in order.
    pub changes: Vec<TransactionChange>,
    /// Whether there are more changes than the limit.
    pub truncated: bool,
}

/// The changes of a transaction, at most `limit` of them, in the order in which it made them. `None` if no record has this `transaction_id`.
///
/// # Errors
/// As a query, see [`QueryEngine::sql`].
pub async fn transaction(query: &QueryEngine, id: &str, limit: usize) -> Result<Option<Transaction>> {
    let sql = format!(
        "SELECT table_name, primary_key, {CHANGE_COLUMNS}, \
         max(id) OVER (PARTITION BY recorded_at, retention_years ORDER BY stream_index) AS place \
         FROM audit.sys_audit_log WHERE transaction_id = $1 ORDER BY recorded_at, place, stream_index LIMIT {}",
        limit.saturating_add(1)
    );
    let batches = query.collect(&sql, vec![text(id)]).await?;
    let (mut commits, mut changes) = (Commits::new(query), Vec::new());
    for row in batches.iter().flat_map(Row::all) {
        let (table, primary_key) = (row.required("table_name")?.to_owned(), row.required("primary_key")?.to_owned());
        changes.push(TransactionChange { table, primary_key, change: change(row, &mut commits).await? });
    }
    let truncated = changes.len() > limit;
    changes.truncate(limit);
    Ok((!changes.is_empty()).then(|| Transaction { transaction_id: id.to_owned(), changes, truncated }))
}
