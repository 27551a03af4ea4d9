//! Rows of the queue, turned into lines of `sys_audit_log` and findings.

use crate::change::{LineHead, LineTail, Operation, key_text};
use crate::error::{CaptureError, Result};
use crate::finding::{Finding, FindingKind};
use crate::queue::speaker::{Session, Unattributed, who};
use crate::row::{RowColumn, Value, ValueKind, row_json};
use crate::source::Batch;
use muniment_model::members;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::collections::HashMap;

/// A row of the queue.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueRow {
    pub id: i64,
    table: String,
    operation: String,
    /// ms
    at: i64,
    old: Option<String>,
    new: Option<String>,
    masked: Option<String>,
    context_id: Option<i64>,
    context: Option<String>,
    last_error: Option<String>,
    is_dead: bool,
}

impl QueueRow {
    pub fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        // SQLite lets any bytes pass for text.
        let image = |name: &str| {
            row.try_get::<Option<Vec<u8>>, _>(name).map(|bytes| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        Ok(Self {
            id: row.try_get("id")?,
            table: row.try_get("table_name")?,
            operation: row.try_get("operation")?,
            at: row.try_get("queued_at")?,
            old: image("old_row")?,
            new: image("new_row")?,
            masked: row.try_get("masked_changes")?,
            context_id: row.try_get("context_id")?,
            context: row.try_get("context")?,
            last_error: row.try_get("last_error")?,
            is_dead: row.try_get("is_dead")?,
        })
    }

    /// What tells it from another row of its number, in a file that was set back.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for text in [Some(self.table.as_str()), Some(self.operation.as_str()), self.old.as_deref(), self.new.as_deref()] {
            hash.update(text.unwrap_or_default());
            hash.update([0]);
        }
        hash.update(self.at.to_be_bytes());
        hex::encode(&hash.finalize()[..6])
    }

    /// Bytes that it takes in memory, roughly.
    pub fn size(&self) -> usize {
        [&self.old, &self.new, &self.context].into_iter().flatten().map(String::len).sum::<usize>() + 256
    }
}

/// An image: columns in order with the texts of their values.
pub(super) struct Image(Vec<(RowColumn, Option<String>)>);

impl Image {
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = |error: serde_json::Error| CaptureError::Malformed(format!("an image is not valid: {error}"));
        let mut columns = Vec::new();
        for (name, raw) in members(text).map_err(malformed)? {
            let raw = raw.get();
            let (kind, value) = match raw.as_bytes().first() {
                Some(b'"') => (ValueKind::Text, Some(serde_json::from_str::<String>(raw).map_err(malformed)?)),
                Some(b'n') => (ValueKind::Text, None),
                _ if raw.contains(['.', 'e']) => {
                    (ValueKind::Number, Some(raw.parse::<f64>().map_or_else(|_| raw.to_owned(), |number| format!("{number:?}"))))
                }
                _ => (ValueKind::Number, Some(raw.to_owned())),
            };
            columns.push((RowColumn::new(name, kind, false), value));
        }
        Ok(Self(columns))
    }

    pub fn json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        row_json(self.0.iter().map(|(column, text)| (column, text.as_deref().map_or(Value::Null, Value::Text))), &mut out);
        out
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(column, _)| column.name == name).and_then(|(_, text)| text.as_deref())
    }

    pub fn key(&self, key: &[String]) -> String {
        let texts: Vec<Option<&str>> = match key {
            // SQLite takes NULL in a primary key, as often as one likes: then all values tell the row.
            key if !key.is_empty() && key.iter().all(|name| self.text(name).is_some()) => key.iter().map(|name| self.text(name)).collect(),
            _ => self.0.iter().map(|(_, text)| text.as_deref()).collect(),
        };
        key_text(&texts).into_owned()
    }

    fn changed(&self, new: &Self, masked: &[Option<String>]) -> String {
        let mut names = Vec::new();
        for (column, text) in &new.0 {
            if masked.iter().flatten().any(|name| *name == column.name) {
                names.push(format!("{} (masked)", column.name));
            } else if self.text(&column.name) != text.as_deref() {
                names.push(column.name.clone());
            }
        }
        if names.is_empty() { String::new() } else { format!("changed: {}", names.join(", ")) }
    }
}

/// The key of a table, and those that it had.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub key: Vec<String>,
    /// Keys of changes with numbers up to this one, in order.
    pub former: Vec<(i64, Vec<String>)>,
}

impl Known {
    /// The key that the change with this number has.
    fn key_at(&self, number: i64) -> &[String] {
        self.former.iter().find(|(until, _)| number <= *until).map_or(&self.key, |(_, key)| key)
    }
}

/// A batch under construction.
pub(super) struct Lines<'a> {
    source: &'a str,
    schema: &'a str,
    tables: &'a HashMap<String, Known>,
    batch: Batch,
    unattributed: Unattributed,
    last_at: i64,
}

impl<'a> Lines<'a> {
    pub fn new(source: &'a str, schema: &'a str, tables: &'a HashMap<String, Known>) -> Self {
        Self { source, schema, tables, batch: Batch::default(), unattributed: Unattributed::default(), last_at: 0 }
    }

    /// What records call a table, which the triggers call `main.<name>`.
    fn shown(&self, table: &str) -> String {
        format!("{}.{}", self.schema, table.strip_prefix("main.").unwrap_or(table))
    }

    pub fn finish(mut self) -> Batch {
        self.unattributed.finish(self.source, self.last_at, &mut self.batch.findings);
        self.batch
    }

    /// Adds a row. If it can't be recorded, nothing of it is added.
    pub fn add(&mut self, row: &QueueRow) -> Result<()> {
        self.last_at = row.at * 1000;
        if row.is_dead {
            let reason = format!(
                "change {} could not be recorded and is kept as a dead letter: {}",
                row.id,
                row.last_error.as_deref().unwrap_or_default()
            );
            let (kind, resource) = (FindingKind::CaptureGap, &self.shown(&row.table));
            let finding =
                Finding { kind, username: None, ip_address: None, user_agent: None, resource, reason: &reason, at: Some(self.last_at) };
            finding.write(&mut self.batch.findings);
            return Ok(());
        }
        let before = self.batch.changes.len();
        let added = self.write(row);
        if added.is_err() {
            self.batch.changes.truncate(before);
        }
        self.batch.records += added?;
        Ok(())
    }

    fn write(&mut self, row: &QueueRow) -> Result<usize> {
        let session = Session::default();
        let who = who(row.context.as_deref(), &session);
        let transaction = row.context_id.map(|number| format!("{}:{number}@{number}", self.source));
        let tail = LineTail::new(&who.context, who.attribution, self.last_at, transaction.as_deref());
        let key = self.tables.get(&row.table).map(|known| known.key_at(row.id)).unwrap_or_default();
        let parse = |text: &Option<String>| text.as_deref().map(Image::parse).transpose();
        let (old, new) = (parse(&row.old)?, if row.operation == "DDL" { None } else { parse(&row.new)? });
        let (old_json, new_json) = (old.as_ref().map(Image::json), new.as_ref().map(Image::json));
        let (old_json, new_json) = (old_json.as_deref(), new_json.as_deref());
        let (position, second) = (format!("{}:{}", self.source, row.id), format!("{}:{}.1", self.source, row.id));
        let table = self.shown(&row.table);
        let out = &mut self.batch.changes;
        let mut line = |operation, key: &str, old, new, details, position: &str| {
            LineHead { table: &table, operation, key, old, new, details, position: Some(position) }.write(&tail, out);
        };
        let records = match (row.operation.as_str(), &old, &new) {
            ("DDL", ..) => {
                line(Operation::Ddl, "*", None, None, row.new.as_deref(), &position);
                1
            }
            ("TRUNCATE", ..) => {
                line(Operation::Truncate, "*", None, None, None, &position);
                1
            }
            ("INSERT" | "SNAPSHOT", None, Some(image)) => {
                let operation = if row.operation == "INSERT" { Operation::Insert } else { Operation::Snapshot };
                line(operation, &image.key(key), None, new_json, None, &position);
                1
            }
            ("DELETE", Some(image), None) => {
                line(Operation::Delete, &image.key(key), old_json, None, None, &position);
                1
            }
            ("UPDATE", Some(old), Some(new)) => {
                let masked: Vec<Option<String>> =
                    row.masked.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
                let (details, old_key, new_key) = (old.changed(new, &masked), old.key(key), new.key(key));
                if old_key == new_key {
                    let details = Some(details.as_str()).filter(|details| !details.is_empty());
                    line(Operation::Update, &new_key, old_json, new_json, details, &position);
                    1
                } else {
                    let (to, from) = (format!("key changed to {new_key}"), format!("key changed from {old_key}; {details}"));
                    line(Operation::Delete, &old_key, old_json, None, Some(&to), &position);
                    line(Operation::Insert, &new_key, None, new_json, Some(&from), &second);
                    2
                }
            }
            (other, ..) => return Err(CaptureError::Malformed(format!("{other:?} is no operation, or lacks its images"))),
        };
        let is_ours = matches!(row.operation.as_str(), "SNAPSHOT" | "TRUNCATE" | "DDL");
        if who.attribution != crate::Attribution::Application && !is_ours {
            let transaction = row.context_id.map_or_else(|| "without a context".to_owned(), |number| number.to_string());
            self.unattributed.note(&transaction, &table, self.last_at, &session, who.malformed, &mut self.batch.findings);
        }
        Ok(records)
    }
}
