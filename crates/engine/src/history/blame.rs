//! Who is answerable for each field of a row: the change that gave it the value it has.

use super::document::{Document, is_masked, same_value};
use super::rows::Row;
use super::{CHANGE_COLUMNS, Table, after, changes_rows, of_entity, rfc3339, until};
use crate::error::Result;
use crate::query::QueryEngine;
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::HashMap;

/// A change, as far as it says who, when and why.
#[derive(Clone, Debug, Serialize)]
pub struct Author {
    /// The record.
    pub id: i64,
    /// `SNAPSHOT` means that the value was there when capture began, so who gave it is not known.
    pub operation: String,
    /// Since when, µs UTC; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub changed_at: i64,
    /// Time it was recorded, µs UTC; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub recorded_at: i64,
    /// Who, by number.
    pub changed_by: Option<i64>,
    /// Who, by name.
    pub changed_by_username: Option<String>,
    /// How that is known.
    pub attribution: Option<String>,
    /// Address it came from.
    pub ip_address: Option<String>,
    /// Session it was made in.
    pub session_id: Option<String>,
    /// Why.
    pub change_reason: Option<String>,
    /// Business process it was part of.
    pub business_context: Option<String>,
    /// Workflow instance it was part of.
    pub workflow_instance_id: Option<String>,
    /// Ties together what one request caused.
    pub correlation_id: Option<String>,
    /// The source's transaction.
    pub transaction_id: Option<String>,
}

/// A field, its value, and the change that gave it.
#[derive(Clone, Debug, Serialize)]
pub struct FieldBlame {
    /// The field's name.
    pub field: String,
    /// Its value.
    pub value: Box<RawValue>,
    /// The change; `None` if the value is older than the log.
    pub since: Option<Author>,
}

/// A row, field by field.
#[derive(Clone, Debug, Serialize)]
pub struct Blame {
    /// The table.
    pub table: String,
    /// Key of the row.
    pub primary_key: String,
    /// Whether the row exists; if not, `fields` is empty, and `last` says who removed it.
    pub exists: bool,
    /// The last change.
    pub last: Author,
    /// The fields in the row's order.
    pub fields: Vec<FieldBlame>,
    /// Whether values of the row are masked for whoever asks, so that nothing can be said of its fields, or of those that are left out; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

/// Who is answerable for each field of a row as of an instant (µs UTC): `None` if the log knows nothing of the row until then.
///
/// # Errors
/// [`crate::EngineError::Parameter`] if the table is of several sources and none is named; else as a query, see [`QueryEngine::sql`].
pub async fn blame<'a>(query: &QueryEngine, table: impl Into<Table<'a>>, key: &str, time: i64) -> Result<Option<Blame>> {
    let table = table.into();
    let (mut conditions, mut parameters) = of_entity(query, table, key).await?;
    until(time, &mut conditions, &mut parameters);
    let sql = format!(
        "SELECT {CHANGE_COLUMNS}, max(id) OVER (PARTITION BY recorded_at, retention_years ORDER BY stream_index) AS place \
         FROM audit.sys_audit_log WHERE {conditions} ORDER BY recorded_at, place, stream_index"
    );
    let mut changes = query.sql(&sql, parameters).await?;
    let mut fold = Fold::default();
    while let Some(batch) = changes.try_next().await? {
        for row in Row::all(&batch) {
            fold.apply(row)?;
        }
    }
    Ok(fold.finish(table.name, key))
}

#[derive(Default)]
struct Fold {
    document: Option<Document>,
    /// Who gave each field its value; a field that is not here is older than the log.
    authors: HashMap<String, Author>,
    last: Option<Author>,
    masked: bool,
    /// Whether some fields have been masked.
    partly_masked: bool,
}

impl Fold {
    fn apply(&mut self, row: Row<'_>) -> Result<()> {
        let operation = row.required("operation")?;
        if !changes_rows(operation) || (operation == "TRUNCATE" && self.document.is_none()) {
            return Ok(());
        }
        let author = author(row)?;
        let before = self.document.take();
        let now = after(before.clone(), operation, row)?;
        self.masked |= now.as_ref().is_some_and(Document::is_masked);
        self.partly_masked |= now.as_ref().is_some_and(Document::is_partly_masked);
        let known = match (&before, operation) {
            (None, "UPDATE") => row.document("old_values")?,
            (before, _) => before.clone(),
        };
        let fields = now.iter().flat_map(Document::fields);
        let mut authors = HashMap::new();
        for (name, value) in fields {
            let kept = known.as_ref().and_then(|known| known.get(name)).is_some_and(|known| same_value(known, value));
            let kept_from = if kept { self.authors.remove(name) } else { Some(author.clone()) };
            authors.extend(kept_from.map(|author| (name.to_owned(), author)));
        }
        (self.document, self.authors, self.last) = (now, authors, Some(author));
        Ok(())
    }

    fn finish(mut self, table: &str, key: &str) -> Option<Blame> {
        let last = self.last?;
        let shown = self.document.iter().filter(|_| !self.masked);
        let fields = shown.flat_map(Document::fields).filter(|(_, value)| !is_masked(value)).map(|(name, value)| {
            let since = self.authors.remove(name);
            FieldBlame { field: name.to_owned(), value: value.to_owned(), since }
        });
        let fields = fields.collect();
        Some(Blame {
            table: table.to_owned(),
            primary_key: key.to_owned(),
            exists: self.document.is_some(),
            last,
            fields,
            masked: self.masked || self.partly_masked,
        })
    }
}

fn author(row: Row<'_>) -> Result<Author> {
    Ok(Author {
        id: row.number("id")?,
        operation: row.required("operation")?.to_owned(),
        changed_at: row.time("changed_at")?,
        recorded_at: row.time("recorded_at")?,
        changed_by: row.int("changed_by")?,
        changed_by_username: row.some_text("changed_by_username")?,
        attribution: row.some_text("attribution")?,
        ip_address: row.some_text("ip_address")?,
        session_id: row.some_text("session_id")?,
        change_reason: row.some_text("change_reason")?,
        business_context: row.some_text("business_context")?,
        workflow_instance_id: row.some_text("workflow_instance_id")?,
        correlation_id: row.some_text("correlation_id")?,
        transaction_id: row.some_text("transaction_id")?,
    })
}
