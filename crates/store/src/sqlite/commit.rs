//! Writing a commit: its statements go to the database's thread a few dozen at a time. Alone, each would wait for a core there and back.

use super::sql;
use crate::db::{Commit, IdempotencyRow, NewBatch, StreamRow};
use crate::error::{Result, StoreError};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type};

/// Statements from which on a script is sent. Scripts are kept prepared, by their text.
const TOGETHER: usize = 24;

/// Statements with parameters by position (`?`), in the order in which they are bound.
#[derive(Default)]
struct Script {
    text: String,
    statements: usize,
    arguments: SqliteArguments,
    /// What could not be bound.
    refused: Option<sqlx::error::BoxDynError>,
}

impl Script {
    fn statement(&mut self, text: &'static str) -> &mut Self {
        debug_assert!(!text.contains('$'), "numbered parameters count from the script's start");
        self.text.push_str(text);
        self.text.push(';');
        self.statements += 1;
        self
    }

    fn bind<'v>(&mut self, value: impl Encode<'v, Sqlite> + Type<Sqlite>) -> &mut Self {
        self.refused = Arguments::add(&mut self.arguments, value).err().or(self.refused.take());
        self
    }

    async fn send_if_full(&mut self, connection: &mut SqliteConnection) -> Result<()> {
        if self.statements < TOGETHER { Ok(()) } else { self.send(connection).await }
    }

    async fn send(&mut self, connection: &mut SqliteConnection) -> Result<()> {
        let Self { text, statements, arguments, refused } = std::mem::take(self);
        debug_assert_eq!(text.matches('?').count(), arguments.len(), "{text}");
        let fail = StoreError::database("writing a commit");
        match refused {
            Some(error) => Err(fail(sqlx::Error::Encode(error))),
            None if statements == 0 => Ok(()),
            None => sqlx::query_with(AssertSqlSafe(text), arguments).execute(connection).await.map(drop).map_err(fail),
        }
    }

    fn stream(&mut self, row: &StreamRow, number: u64) {
        self.statement(sql!("upsert_stream"))
            .bind(&row.stream)
            .bind(&row.log)
            .bind(i64::from(row.retention_years))
            .bind(row.size as i64)
            .bind(&row.frontier[..])
            .bind(&row.last_hash[..])
            .bind(row.recorded_at);
        self.statement(sql!("insert_stream_commit")).bind(&row.stream).bind(row.size as i64).bind(number as i64);
    }

    fn batch(&mut self, batch: &NewBatch) {
        let extent = &batch.extent;
        self.statement(sql!("insert_hot_batch"))
            .bind(&extent.stream)
            .bind(extent.first as i64)
            .bind(extent.end as i64)
            .bind(extent.first_id)
            .bind(extent.last_id)
            .bind(extent.recorded_to)
            .bind(extent.min_time)
            .bind(extent.max_time)
            .bind(&batch.hashes[..])
            .bind(&batch.body[..]);
    }

    fn idempotency(&mut self, row: &IdempotencyRow, time: i64) {
        self.statement(sql!("insert_idempotency")).bind(&row.log).bind(&row.key).bind(&row.fingerprint[..]).bind(&row.answer).bind(time);
    }
}

/// Writes a commit, all or nothing: nothing if the connection is closed after an error, or where this is broken off.
pub(super) async fn write_commit(connection: &mut SqliteConnection, commit: &Commit) -> Result<()> {
    let mut script = Script::default();
    script.statement("BEGIN IMMEDIATE");
    for (row, number) in &commit.streams {
        script.stream(row, *number);
        script.send_if_full(connection).await?;
    }
    for batch in &commit.batches {
        script.batch(batch);
        script.send_if_full(connection).await?;
    }
    for (number, leaf) in &commit.leaves {
        script.statement(sql!("insert_meta_leaf")).bind(*number as i64).bind(&leaf[..]);
        script.send_if_full(connection).await?;
    }
    for (number, leaf_type, subject) in &commit.landmarks {
        script.statement(sql!("insert_landmark")).bind(*number as i64).bind(*leaf_type).bind(subject);
        script.send_if_full(connection).await?;
    }
    if let Some(meta) = &commit.meta {
        script.statement(sql!("upsert_meta_head")).bind(meta.size as i64).bind(&meta.frontier[..]).bind(meta.time);
    }
    if let Some((size, note)) = &commit.checkpoint {
        script.statement(sql!("insert_checkpoint")).bind(*size as i64).bind(note);
    }
    for (log, next_id) in &commit.next_ids {
        script.statement(sql!("upsert_log_head")).bind(log).bind(next_id);
        script.send_if_full(connection).await?;
    }
    for row in &commit.idempotency {
        script.idempotency(row, commit.time);
        script.send_if_full(connection).await?;
    }
    for (source, value) in &commit.positions {
        script.statement(sql!("upsert_position")).bind(source).bind(value).bind(commit.time);
        script.send_if_full(connection).await?;
    }
    script.statement("COMMIT").send(connection).await
}
