//! Reads the queue of an SQLite file.

use super::attach::{Patterns, baseline, connect, describe, is_installed, names, path, table_statements};
use super::lines::{Known, Lines, QueueRow};
use super::triggers::{TableDescription, identifier, named_statements};
use crate::error::{CaptureError, Result};
use crate::finding::{Finding, FindingKind};
use crate::plan::Statement;
use crate::queue::polling::{LONGEST_PAUSE, Polled, Queue};
use crate::source::Batch;
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of rows after which a batch is full.
const BATCH_BYTES: usize = 8 << 20;
/// Rows asked for at once.
const FETCH: usize = 100;
/// How often what is stored is deleted from the queue: each time is a transaction in the audited file.
const CLEAR: Duration = Duration::from_secs(1);

/// How a queue is read.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Name of the source.
    pub name: String,
    /// Most queue rows in a batch.
    pub batch: usize,
    /// Pause after an unsuccessful look, at first; it doubles up to the longest.
    pub poll: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Attempts to record a row before it becomes a dead letter.
    pub attempts: i64,
    /// What records call the schema of the file's tables.
    pub schema: String,
}

impl SqliteOptions {
    /// Defaults for a source of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            batch: 1000,
            poll: Duration::from_millis(5),
            longest_pause: LONGEST_PAUSE,
            attempts: 5,
            schema: "main".to_owned(),
        }
    }
}

/// `muniment_audit_queue` of an SQLite file as a source.
pub type SqliteQueueSource = Polled<SqliteReader>;

/// Reads `muniment_audit_queue` of an SQLite file.
pub struct SqliteReader {
    url: String,
    options: SqliteOptions,
    connection: Option<SqliteConnection>,
    position: i64,
    /// What the change at the position was, if that is known.
    fingerprint: Option<String>,
    /// Why the position is none of this file.
    lost: Option<String>,
    /// The file that is open, and when it was last looked whether it is still the one of the name.
    file: Option<FileId>,
    file_seen: Option<Instant>,
    tables: HashMap<String, Known>,
    schema_version: Option<i64>,
    /// What is stored and not yet deleted.
    stored: Option<i64>,
    cleared: Option<Instant>,
    findings: Vec<u8>,
}

fn doing(text: &'static str) -> impl Fn(sqlx::Error) -> CaptureError {
    move |source| CaptureError::Database { doing: text.to_owned(), source }
}

impl SqliteQueueSource {
    /// A source; it opens the file when it is started.
    pub fn new(url: impl Into<String>, options: SqliteOptions) -> Self {
        Self::of(SqliteReader::new(url.into(), options))
    }
}

impl SqliteReader {
    fn new(url: String, options: SqliteOptions) -> Self {
        Self {
            url,
            options,
            connection: None,
            position: 0,
            fingerprint: None,
            lost: None,
            file: None,
            file_seen: None,
            tables: HashMap::new(),
            schema_version: None,
            stored: None,
            cleared: None,
            findings: Vec::new(),
        }
    }

    /// The connection, taken out while it is used, so that one whose use failed is not used again.
    async fn open(&mut self) -> Result<SqliteConnection> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => connect(&self.url).await,
        }
    }

    fn find(&mut self, kind: FindingKind, resource: &str, reason: &str) {
        Finding { kind, username: None, ip_address: None, user_agent: None, resource, reason, at: None }.write(&mut self.findings);
    }

    /// Looks whether the tables have changed: then their triggers are made anew, and the change is put into the queue.
    async fn follow_schema(&mut self, connection: &mut SqliteConnection) -> Result<()> {
        let version = "PRAGMA schema_version";
        let current: i64 =
            sqlx::query_scalar(version).fetch_one(&mut *connection).await.map_err(doing("asking for the schema's version"))?;
        if self.schema_version == Some(current) {
            return Ok(());
        }
        let failed = doing("following the schema");
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        let rows = sqlx::query("SELECT table_name, excluded, masked, columns, key, is_gone FROM muniment_audit_table")
            .fetch_all(&mut *transaction)
            .await
            .map_err(&failed)?;
        let ending = "SELECT EXISTS (SELECT 1 FROM muniment_audit_state WHERE schema_version < 0)";
        let ending: bool = sqlx::query_scalar(ending).fetch_one(&mut *transaction).await.map_err(&failed)?;
        let patterns = Patterns::read(&mut transaction).await?;
        let mut tables: HashMap<String, Known> = HashMap::new();
        let (mut found, mut taken, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let mut renamed: HashMap<String, TableDescription> = HashMap::new();
        for row in rows {
            let name: String = row.get("table_name");
            let list = |column: &str| serde_json::from_str::<Vec<String>>(row.get(column)).unwrap_or_default();
            let mut table = describe(&mut transaction, &name).await?;
            (table.excluded, table.masked) = (list("excluded"), list("masked"));
            let (gone, was_gone) = (table.columns.is_empty(), row.get::<bool, _>("is_gone"));
            let (changed, former) = (table.columns != list("columns"), list("key"));
            if ending || (gone && was_gone) {
                tables.entry(format!("main.{name}")).or_default().key = if gone { former } else { table.key };
                continue;
            }
            if gone {
                if let Some(now) = leave(&mut transaction, &name).await? {
                    taken.push(now.clone());
                    renamed.insert(now, table);
                }
                // Its key is still needed for the changes before.
                tables.entry(format!("main.{name}")).or_default().key = former;
                continue;
            }
            let reason = if changed || was_gone { None } else { missing_triggers(&mut transaction, &table).await? };
            // Triggers go with their table: without them it is another one of the same name.
            let is_other = reason.is_some() || (changed && !has_triggers(&mut transaction, &name).await?);
            found.extend(reason.map(|reason| (name.clone(), reason)));
            if changed && !was_gone {
                note_ddl(&mut transaction, &name, None).await?;
            }
            if changed {
                follow_names(&mut table, &list("columns"));
                patterns.hide(&mut table);
            }
            if (changed || is_other) && !was_gone && patterns.with_rows {
                let ends = is_other || table.key.is_empty() || former != table.key;
                again.push((table.clone(), ends));
            }
            if changed && former != table.key {
                let text = "INSERT INTO muniment_audit_shape (table_name, until, key) VALUES (?, (SELECT seq FROM sqlite_sequence WHERE name = 'muniment_audit_queue'), ?)";
                let query = sqlx::query(text).bind(&name).bind(serde_json::json!(former).to_string());
                query.execute(&mut *transaction).await.map_err(&failed)?;
            }
            if was_gone {
                taken.push(name.clone());
            } else if changed || found.iter().any(|(other, _)| *other == name) {
                run(&mut transaction, table_statements(&table)).await?;
            }
            tables.entry(format!("main.{name}")).or_default().key = table.key;
        }
        for (table, ends) in again {
            if ends {
                end_rows(&mut transaction, &table.name).await?;
            }
            run(&mut transaction, vec![Statement::new(baseline(&table), "Rows as they are now.")]).await?;
        }
        if !ending {
            let new: Vec<String> = names(&mut transaction).await?;
            let found = new.into_iter().filter(|name| patterns.take_in(name) && !tables.contains_key(&format!("main.{name}")));
            taken.extend(found);
            taken.sort();
            taken.dedup();
            for name in taken {
                let table = take_in(&mut transaction, &name, &patterns, renamed.remove(&name)).await?;
                tables.entry(format!("main.{name}")).or_default().key = table.key;
            }
        }
        if is_installed(&mut transaction, "muniment_audit_shape").await? {
            let shapes = sqlx::query("SELECT table_name, until, key FROM muniment_audit_shape ORDER BY until");
            for row in shapes.fetch_all(&mut *transaction).await.map_err(&failed)? {
                let key = serde_json::from_str(row.get("key")).unwrap_or_default();
                let name: String = row.get("table_name");
                tables.entry(format!("main.{name}")).or_default().former.push((row.get("until"), key));
            }
        }
        let current = sqlx::query_scalar(version).fetch_one(&mut *transaction).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        (self.tables, self.schema_version) = (tables, Some(current));
        for (table, reason) in found {
            let table = format!("{}.{table}", self.options.schema);
            self.find(FindingKind::CaptureBypassed, &table, &reason);
        }
        Ok(())
    }

    /// A context that is committed was left behind by its transaction: it goes, so that it is not taken for the next one's.
    async fn end_contexts(&mut self, connection: &mut SqliteConnection) -> Result<()> {
        let failed = doing("looking for contexts");
        let left: Option<i64> =
            sqlx::query_scalar("SELECT max(id) FROM muniment_context").fetch_one(&mut *connection).await.map_err(&failed)?;
        let Some(left) = left else { return Ok(()) };
        sqlx::query("DELETE FROM muniment_context WHERE id <= ?").bind(left).execute(connection).await.map_err(&failed)?;
        let reason = format!(
            "context {left} was left behind by its transaction: changes after it may be attributed to it; DELETE FROM muniment_context belongs before COMMIT"
        );
        self.find(FindingKind::CaptureBypassed, "muniment_context", &reason);
        Ok(())
    }

    /// Deletes what is stored, if that is due. The file doesn't grow: SQLite uses the pages again.
    async fn clear(&mut self, connection: &mut SqliteConnection) -> Result<()> {
        let Some(stored) = self.stored.filter(|_| self.cleared.is_none_or(|cleared| cleared.elapsed() >= CLEAR)) else { return Ok(()) };
        let failed = doing("emptying the queue");
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        let state = "INSERT INTO muniment_audit_state (name, schema_version, processed) VALUES (?, 0, ?) ON CONFLICT (name) DO UPDATE SET processed = excluded.processed";
        sqlx::query(state).bind(&self.options.name).bind(stored).execute(&mut *transaction).await.map_err(&failed)?;
        // The last one stays: it tells whether the file is still the one that was read.
        let delete = "DELETE FROM muniment_audit_queue WHERE id < ? AND NOT is_dead";
        sqlx::query(delete).bind(stored).execute(&mut *transaction).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        (self.stored, self.cleared) = (None, Some(Instant::now()));
        Ok(())
    }

    async fn rows(&self, connection: &mut SqliteConnection) -> Result<Vec<QueueRow>> {
        let failed = doing("reading the queue");
        let (mut rows, mut bytes, mut after) = (Vec::new(), 0, self.position);
        while rows.len() < self.options.batch && bytes < BATCH_BYTES {
            let limit = FETCH.min(self.options.batch - rows.len());
            let query = sqlx::query(include_str!("sql/select_rows.sql")).bind(after).bind(limit as i64);
            let some = query.fetch_all(&mut *connection).await.map_err(&failed)?;
            let last = some.len() < limit;
            for row in some {
                let row = QueueRow::read(&row).map_err(&failed)?;
                (bytes, after) = (bytes + row.size(), row.id);
                rows.push(row);
            }
            if last {
                break;
            }
        }
        Ok(rows)
    }

    async fn batch(&mut self, connection: &mut SqliteConnection) -> Result<Option<Batch>> {
        let rows = self.rows(connection).await?;
        let mut lines = Lines::new(&self.options.name, &self.options.schema, &self.tables);
        let (mut last, mut failed) = (None, None);
        for row in &rows {
            if let Err(error) = lines.add(row) {
                failed = Some((row.id, error));
                break;
            }
            last = Some(row);
        }
        if let (None, Some((id, error))) = (&last, &failed) {
            let text = "UPDATE muniment_audit_queue SET processing_attempts = processing_attempts + 1, last_error = ?, is_dead = processing_attempts + 1 >= ? WHERE id = ?";
            let note = sqlx::query(text).bind(error.to_string()).bind(self.options.attempts).bind(id).execute(connection).await;
            note.map_err(doing("noting a failure"))?;
            return Err(CaptureError::Malformed(format!("row {id} of the queue: {error}")));
        }
        let mut batch = lines.finish();
        let Some(last) = last else { return Ok(None) };
        (self.position, self.fingerprint) = (last.id, Some(last.fingerprint()));
        batch.position = self.stamped();
        Ok(Some(batch))
    }

    fn stamped(&self) -> String {
        match &self.fingerprint {
            Some(fingerprint) => format!("{}~{fingerprint}", self.position),
            None => self.position.to_string(),
        }
    }

    /// Closes a file that is not the one of the name any more.
    fn follow_file(&mut self) -> Result<()> {
        if self.file_seen.is_some_and(|seen| seen.elapsed() < CLEAR) {
            return Ok(());
        }
        self.file_seen = Some(Instant::now());
        let found = FileId::of(&self.url)?;
        if self.file.replace(found).is_some_and(|before| before != found) {
            (self.connection, self.schema_version) = (None, None);
        }
        Ok(())
    }

    /// Whether the change at the position is still the one that was read there: not in a file that was set back to an earlier state.
    async fn check_position(&mut self, connection: &mut SqliteConnection) -> Result<()> {
        let Some(fingerprint) = self.fingerprint.as_ref().filter(|_| self.lost.is_none()) else { return Ok(()) };
        let failed = doing("looking at the queue");
        let row = sqlx::query(include_str!("sql/select_rows.sql")).bind(self.position - 1).bind(1).fetch_optional(connection).await;
        let found = row.map_err(&failed)?.map(|row| QueueRow::read(&row)).transpose().map_err(&failed)?;
        if found.is_none_or(|row| row.id != self.position || row.fingerprint() != *fingerprint) {
            self.lost = Some(format!(
                "change {} is not in the queue any more, or is another: the file was set back, or is another one",
                self.position
            ));
        }
        Ok(())
    }

    /// Begins anew in a file whose queue is not the one that was read: with what it says is not processed, new numbers, and all rows.
    async fn begin_anew(&mut self, connection: &mut SqliteConnection, reason: &str) -> Result<()> {
        let failed = doing("looking at the queue");
        let text = "SELECT coalesce((SELECT processed FROM muniment_audit_state WHERE name = ?), 0)";
        let processed: i64 = sqlx::query_scalar(text).bind(&self.options.name).fetch_one(&mut *connection).await.map_err(&failed)?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        sqlx::raw_sql(include_str!("sql/begin_numbers.sql")).execute(&mut *transaction).await.map_err(&failed)?;
        let patterns = Patterns::read(&mut transaction).await?;
        let rows =
            sqlx::query("SELECT table_name, excluded, masked FROM muniment_audit_table WHERE NOT is_gone").fetch_all(&mut *transaction);
        for row in rows.await.map_err(&failed)?.into_iter().filter(|_| patterns.with_rows) {
            let list = |column: &str| serde_json::from_str::<Vec<String>>(row.get(column)).unwrap_or_default();
            let mut table = describe(&mut transaction, row.get("table_name")).await?;
            (table.excluded, table.masked) = (list("excluded"), list("masked"));
            end_rows(&mut transaction, &table.name).await?;
            if !table.columns.is_empty() {
                run(&mut transaction, vec![Statement::new(baseline(&table), "Rows as they are now.")]).await?;
            }
        }
        transaction.commit().await.map_err(&failed)?;
        let reason = format!("{reason}; reading goes on after {processed}");
        let name = self.options.name.clone();
        self.find(FindingKind::CaptureGap, &name, &reason);
        (self.position, self.fingerprint, self.lost, self.stored) = (processed, None, None, None);
        Ok(())
    }

    /// Findings that belong to no change: the position tells them apart from other batches at the same place.
    fn finding_batch(&mut self) -> Option<Batch> {
        if self.findings.is_empty() {
            return None;
        }
        let findings = std::mem::take(&mut self.findings);
        let position = format!("{}#{}", self.stamped(), hex::encode(&Sha256::digest(&findings)[..6]));
        Some(Batch { findings, position, ..Batch::default() })
    }

    async fn look_with(&mut self, connection: &mut SqliteConnection) -> Result<Option<Batch>> {
        self.check_position(connection).await?;
        if let Some(reason) = self.lost.clone() {
            self.begin_anew(connection, &reason).await?;
        }
        self.follow_schema(connection).await?;
        self.end_contexts(connection).await?;
        self.clear(connection).await?;
        if let Some(batch) = self.finding_batch() {
            return Ok(Some(batch));
        }
        self.batch(connection).await
    }
}

async fn run(connection: &mut SqliteConnection, statements: Vec<Statement>) -> Result<()> {
    for statement in statements {
        let query = sqlx::raw_sql(AssertSqlSafe(statement.sql.clone()));
        query.execute(&mut *connection).await.map_err(statement.failed())?;
    }
    Ok(())
}

/// Under this name there are no rows any more, or all of them come again.
async fn end_rows(connection: &mut SqliteConnection, name: &str) -> Result<()> {
    let ended = sqlx::query("INSERT INTO muniment_audit_queue (table_name, operation) VALUES (?, 'TRUNCATE')").bind(format!("main.{name}"));
    ended.execute(connection).await.map(drop).map_err(doing("following the schema"))
}

/// Whether a table has our triggers, as they are or changed.
async fn has_triggers(connection: &mut SqliteConnection, name: &str) -> Result<bool> {
    let text = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = ? AND tbl_name = ?)";
    let query = sqlx::query_scalar(text).bind(format!("muniment_insert_{name}")).bind(name);
    query.fetch_one(connection).await.map_err(doing("looking at the triggers"))
}

/// What was left out or masked under a column's former name is so under its new one.
fn follow_names(table: &mut TableDescription, former: &[String]) {
    if former.len() != table.columns.len() {
        return;
    }
    for (before, now) in former.iter().zip(&table.columns).filter(|(before, now)| before != now) {
        for hidden in [&mut table.excluded, &mut table.masked] {
            if hidden.contains(before) && !hidden.contains(now) {
                hidden.push(now.clone());
            }
        }
    }
}

/// A table is not there any more: its rows end. Returns the name that it has now, if it was renamed.
async fn leave(connection: &mut SqliteConnection, name: &str) -> Result<Option<String>> {
    let failed = doing("following the schema");
    let trigger = format!("muniment_insert_{name}");
    let renamed = sqlx::query_scalar("SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND name = ?").bind(trigger);
    let renamed: Option<String> = renamed.fetch_optional(&mut *connection).await.map_err(&failed)?;
    let text = match &renamed {
        Some(now) => format!("ALTER TABLE {name} RENAME TO {now}"),
        None => format!("DROP TABLE {name}"),
    };
    note_ddl(connection, name, Some(text)).await?;
    end_rows(connection, name).await?;
    let gone = "UPDATE muniment_audit_table SET is_gone = 1 WHERE table_name = ?";
    sqlx::query(gone).bind(name).execute(&mut *connection).await.map_err(&failed)?;
    Ok(renamed)
}

/// Puts triggers on a new table, in place of those that it has from an earlier name, and its rows into the queue. What was hidden under that name stays so.
async fn take_in(
    connection: &mut SqliteConnection,
    name: &str,
    patterns: &Patterns,
    before: Option<TableDescription>,
) -> Result<TableDescription> {
    let failed = doing("taking in a new table");
    let mut table = describe(connection, name).await?;
    if let Some(before) = before {
        (table.excluded, table.masked) = (before.excluded, before.masked);
    }
    patterns.hide(&mut table);
    let triggers = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? AND name LIKE 'muniment\\_%' ESCAPE '\\'";
    let triggers: Vec<String> = sqlx::query_scalar(triggers).bind(name).fetch_all(&mut *connection).await.map_err(&failed)?;
    let drop = |trigger: &String| Statement::new(format!("DROP TRIGGER {}", identifier(trigger)), "An earlier name's.");
    run(connection, triggers.iter().map(drop).collect()).await?;
    note_ddl(connection, name, None).await?;
    run(connection, table_statements(&table)).await?;
    if patterns.with_rows {
        run(connection, vec![Statement::new(baseline(&table), "Rows that were written before.")]).await?;
    }
    Ok(table)
}

/// Puts a change of a table into the queue: a statement, or how the table is made now.
async fn note_ddl(connection: &mut SqliteConnection, table: &str, statement: Option<String>) -> Result<()> {
    let failed = doing("noting a change of a table");
    let text = match statement {
        Some(text) => Some(text),
        None => {
            let sql = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?";
            sqlx::query_scalar(sql).bind(table).fetch_optional(&mut *connection).await.map_err(&failed)?
        }
    };
    let insert = "INSERT INTO muniment_audit_queue (table_name, operation, new_row) VALUES (?, 'DDL', ?)";
    sqlx::query(insert).bind(format!("main.{table}")).bind(text).execute(connection).await.map_err(&failed)?;
    Ok(())
}

async fn missing_triggers(connection: &mut SqliteConnection, table: &TableDescription) -> Result<Option<String>> {
    for (name, text) in named_statements(table) {
        let found: Option<String> = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?")
            .bind(&name)
            .fetch_optional(&mut *connection)
            .await
            .map_err(doing("looking at the triggers"))?;
        if found.as_deref() != Some(text.as_str()) {
            return Ok(Some(format!("trigger {name} was missing or changed, and is made anew: changes meanwhile are not captured")));
        }
    }
    Ok(None)
}

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(url: &str) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(path(url)?).map_err(|source| CaptureError::File { doing: "looking at the database file", source })?;
        Ok(Self(found.dev(), found.ino()))
    }
}

fn parse(position: &str) -> Result<i64> {
    let number = position.split(['#', '~']).next().and_then(|text| text.parse().ok()).filter(|number| *number >= 0);
    number.ok_or_else(|| CaptureError::Malformed(format!("{position:?} is no position of an SQLite queue")))
}

#[async_trait]
impl Queue for SqliteReader {
    fn poll(&self) -> Duration {
        self.options.poll
    }

    fn longest_pause(&self) -> Duration {
        self.options.longest_pause
    }

    async fn begin(&mut self, position: Option<&str>) -> Result<()> {
        self.position = position.map(parse).transpose()?.unwrap_or_default();
        let stamp = position.and_then(|position| position.split('#').next()?.split_once('~'));
        (self.fingerprint, self.lost) = (stamp.map(|(_, fingerprint)| fingerprint.to_owned()), None);
        (self.connection, self.schema_version, self.stored, self.file, self.file_seen) = (None, None, None, None, None);
        self.follow_file()?;
        let mut connection = self.open().await?;
        let text = "SELECT coalesce((SELECT processed FROM muniment_audit_state WHERE name = ?), 0), coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'muniment_audit_queue'), 0)";
        let row = sqlx::query(text).bind(&self.options.name).fetch_one(&mut connection).await.map_err(doing("looking at the queue"))?;
        let (processed, newest): (i64, i64) = (row.get(0), row.get(1));
        if position.is_none() {
            self.position = processed;
        } else if self.position < processed || self.position > newest {
            let reason =
                format!("position {} is not in the queue, which has {processed} to {newest}: one of both was restored", self.position);
            self.lost = Some(reason);
        }
        self.connection = Some(connection);
        Ok(())
    }

    async fn look(&mut self) -> Result<Option<Batch>> {
        self.follow_file()?;
        let mut connection = self.open().await?;
        let batch = self.look_with(&mut connection).await?;
        self.connection = Some(connection);
        Ok(batch)
    }

    fn stored(&mut self, position: &str) -> Result<()> {
        self.stored = Some(parse(position)?);
        Ok(())
    }
}
