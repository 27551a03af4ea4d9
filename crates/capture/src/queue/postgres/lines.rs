//! Rows of the queue, turned into lines of `sys_audit_log` and findings.

use super::baseline::Chunk;
use super::image::{Image, Shape};
use super::shapes::Shapes;
use crate::change::{Attribution, Context, LineHead, LineTail, Operation};
use crate::error::{CaptureError, Result};
use crate::finding::{Finding, FindingKind};
use crate::queue::speaker::{Session, Unattributed, who};
use crate::source::Batch;
use serde::Deserialize;
use sqlx::Row;
use sqlx::postgres::PgRow;
use std::collections::HashMap;

/// A row of the queue.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueRow {
    pub last_id: i64,
    pub id: i64,
    pub transaction: String,
    pub at: i64,
    pub table: String,
    pub operation: String,
    pub old: Option<String>,
    pub new: Option<String>,
    pub masked: Vec<String>,
    pub context: Option<String>,
    pub session: Session,
    pub is_dead: bool,
    pub last_error: Option<String>,
}

impl QueueRow {
    pub fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            last_id: row.try_get("last_id")?,
            id: row.try_get("id")?,
            transaction: row.try_get("transaction_id")?,
            at: row.try_get("queued_at")?,
            table: row.try_get("table_name")?,
            operation: row.try_get("operation")?,
            old: row.try_get("old_row")?,
            new: row.try_get("new_row")?,
            masked: row.try_get::<Option<Vec<String>>, _>("masked_changes")?.unwrap_or_default(),
            context: row.try_get("context")?,
            session: Session {
                user: row.try_get("session_user_name")?,
                application: row.try_get("application_name")?,
                address: row.try_get("client_address")?,
            },
            is_dead: row.try_get("is_dead")?,
            last_error: row.try_get("last_error")?,
        })
    }

    /// Bytes that it takes in memory, roughly.
    pub fn size(&self) -> usize {
        [&self.old, &self.new, &self.context].into_iter().flatten().map(String::len).sum::<usize>() + 256
    }
}

/// What a DDL event trigger notes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ddl {
    tag: String,
    statement: Option<String>,
    rewritten: bool,
    /// Whether there is no table of the name any more.
    gone: bool,
}

/// A batch under construction.
pub(super) struct Lines<'a> {
    source: &'a str,
    known_applications: &'a [String],
    shapes: &'a Shapes,
    batch: Batch,
    unattributed: Unattributed,
    /// The transaction that the batch before has told of already, if it goes on here.
    told: Option<String>,
    tail: Option<(QueueRow, LineTail)>,
    last_at: i64,
    /// Rows that came under other keys in a run of such changes: they come after all those of the run have left theirs, since one may take over another's.
    moved: Vec<u8>,
    /// Their images by the new key.
    moved_rows: HashMap<String, Vec<u8>>,
    /// Transaction and table of the run.
    run: Option<(String, String)>,
}

impl<'a> Lines<'a> {
    pub fn new(source: &'a str, known_applications: &'a [String], shapes: &'a Shapes, told: Option<String>) -> Self {
        let (batch, unattributed) = (Batch::default(), Unattributed::default());
        Self {
            source,
            known_applications,
            shapes,
            batch,
            unattributed,
            told,
            tail: None,
            last_at: 0,
            moved: Vec::new(),
            moved_rows: HashMap::new(),
            run: None,
        }
    }

    /// Adds a row. If it can't be recorded, nothing of it is added.
    pub fn add(&mut self, row: &QueueRow) -> Result<()> {
        self.last_at = row.at;
        if row.is_dead {
            self.bury(row);
            return Ok(());
        }
        if !self.continues(row) {
            self.end_run();
        }
        let before = (self.batch.changes.len(), self.moved.len());
        let added = self.write(row);
        if added.is_err() {
            self.batch.changes.truncate(before.0);
            self.moved.truncate(before.1);
        }
        self.batch.records += added?;
        Ok(())
    }

    /// Adds the rows of a baseline; one that can't be recorded is a finding.
    pub fn add_chunk(&mut self, chunk: &Chunk) {
        let tail = LineTail::new(&Context::default(), Attribution::None, chunk.taken_at, None);
        let unknown = Shape::default();
        let shape = self.shapes.of(&chunk.table, i64::MAX).next().unwrap_or(&unknown);
        for row in &chunk.rows {
            let image = match Image::parse(shape, &row.image) {
                Ok(image) => image,
                Err(error) => {
                    let reason = format!("row {} of a baseline could not be recorded: {error}", row.position);
                    let at = QueueRow { at: chunk.taken_at, table: chunk.table.clone(), ..QueueRow::default() };
                    self.finding(FindingKind::CaptureGap, &at, &reason);
                    continue;
                }
            };
            let mut new = Vec::new();
            image.write(&mut new);
            let (key, operation) = (image.key(&shape.key), Operation::Snapshot);
            let head = LineHead {
                table: &chunk.table,
                operation,
                key: &key,
                old: None,
                new: Some(&new),
                details: None,
                position: Some(&row.position),
            };
            head.write(&tail, &mut self.batch.changes);
            self.batch.records += 1;
        }
    }

    /// Whether a row may belong to a run of changes of keys that must not be torn apart.
    pub fn continues(&self, row: &QueueRow) -> bool {
        let same = |(transaction, table): &(String, String)| *transaction == row.transaction && *table == row.table;
        row.operation == "UPDATE" && !row.is_dead && self.run.as_ref().is_some_and(same)
    }

    /// Whether the last row was one of a run of changes of keys.
    pub fn is_in_run(&self) -> bool {
        self.run.is_some()
    }

    fn end_run(&mut self) {
        self.run = None;
        self.moved_rows.clear();
        self.batch.changes.append(&mut self.moved);
    }

    pub fn finish(mut self) -> Batch {
        self.end_run();
        self.unattributed.finish(self.source, self.last_at, &mut self.batch.findings);
        self.batch
    }

    pub fn bytes(&self) -> usize {
        self.batch.changes.len() + self.moved.len()
    }

    fn bury(&mut self, row: &QueueRow) {
        let reason = format!(
            "change {} of transaction {} could not be recorded and is kept as a dead letter: {}",
            row.id,
            row.transaction,
            row.last_error.as_deref().unwrap_or_default()
        );
        self.finding(FindingKind::CaptureGap, row, &reason);
    }

    fn finding(&mut self, kind: FindingKind, row: &QueueRow, reason: &str) {
        let finding = Finding {
            kind,
            username: row.session.user.as_deref(),
            ip_address: row.session.address.as_deref(),
            user_agent: row.session.application.as_deref(),
            resource: &row.table,
            reason,
            at: Some(row.at),
        };
        finding.write(&mut self.batch.findings);
    }

    /// The end of the row's lines; mostly that of the row before.
    fn tail(&mut self, row: &QueueRow) -> LineTail {
        if let Some((former, tail)) = &self.tail
            && former.transaction == row.transaction
            && former.at == row.at
            && former.context == row.context
            && former.session == row.session
        {
            return tail.clone();
        }
        let who = who(row.context.as_deref(), &row.session);
        let transaction = format!("{}:{}@{}", self.source, row.transaction, row.last_id);
        let tail = LineTail::new(&who.context, who.attribution, row.at, Some(&transaction));
        let brief = QueueRow { old: None, new: None, ..row.clone() };
        self.tail = Some((brief, tail.clone()));
        tail
    }

    fn note(&mut self, row: &QueueRow) {
        let who = who(row.context.as_deref(), &row.session);
        let named =
            who.context.user_id.is_some() || (who.context.user_name.is_some() && who.attribution == crate::Attribution::Application);
        let known = row.session.application.as_ref().is_some_and(|application| self.known_applications.contains(application));
        if named || (known && who.malformed.is_none()) || self.told.as_ref() == Some(&row.transaction) {
            return;
        }
        self.unattributed.note(&row.transaction, &row.table, row.at, &row.session, who.malformed, &mut self.batch.findings);
    }

    fn write(&mut self, row: &QueueRow) -> Result<usize> {
        if row.operation == "BYPASSED" {
            let reason = row.new.as_deref().and_then(|text| serde_json::from_str::<String>(text).ok()).unwrap_or_default();
            self.finding(FindingKind::CaptureBypassed, row, &reason);
            return Ok(0);
        }
        let operation = match row.operation.as_str() {
            "INSERT" => Operation::Insert,
            "UPDATE" => Operation::Update,
            "DELETE" => Operation::Delete,
            "TRUNCATE" => Operation::Truncate,
            "DDL" => Operation::Ddl,
            other => return Err(CaptureError::Malformed(format!("{other:?} is no operation"))),
        };
        let records = match operation {
            Operation::Ddl => self.write_ddl(row)?,
            Operation::Truncate => self.line(row, LineParts { operation, key: "*", old: None, new: None, details: None, ordinal: 0 }),
            _ => self.write_row(row, operation)?,
        };
        self.note(row);
        Ok(records)
    }

    fn write_ddl(&mut self, row: &QueueRow) -> Result<usize> {
        let ddl: Ddl = serde_json::from_str(row.new.as_deref().unwrap_or("{}"))
            .map_err(|error| CaptureError::Malformed(format!("a note of DDL is not valid: {error}")))?;
        let details = ddl.statement.as_deref().unwrap_or(&ddl.tag);
        let mut records =
            self.line(row, LineParts { operation: Operation::Ddl, key: "*", old: None, new: None, details: Some(details), ordinal: 0 });
        if ddl.gone {
            let operation = Operation::Truncate;
            records += self.line(row, LineParts { operation, key: "*", old: None, new: None, details: Some(details), ordinal: 1 });
        }
        if ddl.rewritten {
            let reason = format!("transaction {} rewrote the table's rows without row changes; it needs a new baseline", row.transaction);
            self.finding(FindingKind::CaptureBypassed, row, &reason);
        }
        Ok(records)
    }

    fn write_row(&mut self, row: &QueueRow, operation: Operation) -> Result<usize> {
        let unknown = Shape::default();
        let mut known = self.shapes.of(&row.table, row.id);
        let mut shape = known.next().unwrap_or(&unknown);
        let (mut old, mut new) = images(row, shape)?;
        // Where no event trigger tells when a table was altered, its images do.
        while ![&old, &new].into_iter().flatten().all(|image| image.has(&shape.key))
            && let Some(other) = known.next()
        {
            shape = other;
            (old, new) = images(row, shape)?;
        }
        let written = |image: &Image| {
            let mut out = Vec::new();
            image.write(&mut out);
            out
        };
        let (old_json, new_json) = (old.as_ref().map(written), new.as_ref().map(written));
        let (old_json, new_json) = (old_json.as_deref(), new_json.as_deref());
        match (operation, &old, &new) {
            (Operation::Update, Some(old), Some(new)) => {
                let (old_key, new_key) = (old.key(&shape.key), new.key(&shape.key));
                let details = old.changed(new, &row.masked);
                if old_key == new_key {
                    // A row that keeps its key may be one of a statement that has only given others new ones.
                    if self.moved_rows.contains_key(&*new_key) {
                        self.end_run();
                    }
                    let details = Some(details.as_str()).filter(|details| !details.is_empty());
                    return Ok(self.line(row, LineParts { operation, key: &new_key, old: old_json, new: new_json, details, ordinal: 0 }));
                }
                // A row that has just come under this key, and goes on, is of another statement.
                if self.moved_rows.get(&*old_key).is_some_and(|row| Some(row.as_slice()) == old_json) {
                    self.end_run();
                }
                let to = format!("key changed to {new_key}");
                self.line(
                    row,
                    LineParts { operation: Operation::Delete, key: &old_key, old: old_json, new: None, details: Some(&to), ordinal: 0 },
                );
                let from = format!("key changed from {old_key}; {details}");
                let start = self.batch.changes.len();
                self.line(
                    row,
                    LineParts { operation: Operation::Insert, key: &new_key, old: None, new: new_json, details: Some(&from), ordinal: 1 },
                );
                self.moved.extend_from_slice(&self.batch.changes[start..]);
                self.batch.changes.truncate(start);
                self.moved_rows.insert(new_key.into_owned(), new_json.unwrap_or_default().to_vec());
                self.run = Some((row.transaction.clone(), row.table.clone()));
                Ok(2)
            }
            (Operation::Insert, None, Some(image)) | (Operation::Delete, Some(image), None) => {
                let key = image.key(&shape.key);
                Ok(self.line(row, LineParts { operation, key: &key, old: old_json, new: new_json, details: None, ordinal: 0 }))
            }
            _ => Err(CaptureError::Malformed(format!("an {} without its images", operation.as_str()))),
        }
    }

    fn line(&mut self, row: &QueueRow, parts: LineParts<'_>) -> usize {
        let tail = self.tail(row);
        let position = match parts.ordinal {
            0 => format!("{}:{}", self.source, row.id),
            ordinal => format!("{}:{}.{ordinal}", self.source, row.id),
        };
        let LineParts { operation, key, old, new, details, .. } = parts;
        let head = LineHead { table: &row.table, operation, key, old, new, details, position: Some(&position) };
        head.write(&tail, &mut self.batch.changes);
        1
    }
}

/// The row before and after.
fn images(row: &QueueRow, shape: &Shape) -> Result<(Option<Image>, Option<Image>)> {
    let parse = |text: &Option<String>| text.as_deref().map(|text| Image::parse(shape, text)).transpose();
    Ok((parse(&row.old)?, parse(&row.new)?))
}

/// What differs from line to line of one row.
struct LineParts<'a> {
    operation: Operation,
    key: &'a str,
    old: Option<&'a [u8]>,
    new: Option<&'a [u8]>,
    details: Option<&'a str>,
    /// 1 for the second line of a change of the key, and of a table that is gone.
    ordinal: u8,
}
