//! The commit database on SQLite: one file in the data folder, in WAL mode, every commit synced to disk before it is acknowledged.

mod backfill;
mod commit;
mod create;
mod followers;
mod register_rows;
mod registers;
mod rows;
mod sources;
mod writer;

use crate::db::{CaptureSourceRow, Commit, CommitDb, Loaded, Replacement};
use crate::error::{Result, StoreError};
use crate::follow::{Advance, FollowerRow, OutboxRow, StreamCommit};
use crate::register::{ChangedBy, Lookup, RegisterChange, RegisterRow};
use arrow_array::RecordBatch;
use async_trait::async_trait;
use backfill::Backfill;
use bytes::Bytes;
use muniment_model::Table;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use writer::{Writer, Writing};

/// The text of a statement in `sql/`.
macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!("sql/", $name, ".sql"))
    };
}
pub(crate) use sql;

/// Size of a database page: hot batches are large blobs.
const PAGE_BYTES: u32 = 16 * 1024;
/// Pages of write-ahead log after which a commit moves them into the database file itself: 512 MiB, of which little is left by then.
const CHECKPOINT_PAGES: u32 = 32 * 1024;

/// The registers that say who may do what.
const ACCESS: [&str; 3] = ["users", "api_keys", "user_roles"];

/// Batches removed at a time.
const REMOVE_BATCHES: i64 = 64;

/// A commit database in an SQLite file.
#[derive(Debug)]
pub struct SqliteDb {
    /// Absent in a database that is only read, as is what moves its write-ahead log.
    writer: Option<Writer>,
    readers: SqlitePool,
    backfill: Option<Backfill>,
    path: PathBuf,
    access_changes: AtomicU64,
}

impl SqliteDb {
    /// Opens or creates the database for writing. `origin` names a newly created log.
    pub async fn open(path: &Path, origin: &str, now: i64) -> Result<Self> {
        let options = options(path)
            .create_if_missing(true)
            .page_size(PAGE_BYTES)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal);
        let options = options
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
            .pragma("journal_size_limit", (128 * 1024 * 1024).to_string())
            // What a statement with triggers may have to undo: pages of the log, which must not lie in a folder for temporary files.
            .pragma("temp_store", "MEMORY");
        let backfill = Backfill::new(options.clone());
        let writer = Writer::open(options).await?;
        create::create(&mut *writer.write().await?, origin, now).await?;
        let readers = pool(4).connect_lazy_with(options_read(path));
        Ok(Self { writer: Some(writer), readers, backfill: Some(backfill), path: path.to_owned(), access_changes: AtomicU64::new(0) })
    }

    /// Opens an existing database for reading only, also while another process writes to it.
    pub async fn open_read_only(path: &Path) -> Result<Self> {
        let readers = pool(4).connect_with(options_read(path)).await.map_err(StoreError::database("opening"))?;
        Ok(Self { writer: None, readers, backfill: None, path: path.to_owned(), access_changes: AtomicU64::new(0) })
    }

    /// Removes a flushed range's batches, a few at a time so that commits come in between, then the range.
    async fn remove_range(&self, stream: &str, first: u64, end: u64) -> Result<()> {
        let fail = || StoreError::database("removing flushed batches");
        loop {
            let mut connection = self.write().await?;
            let batches = sqlx::query(sql!("delete_hot_batches")).bind(stream).bind(first as i64).bind(end as i64).bind(REMOVE_BATCHES);
            if batches.execute(&mut *connection).await.map_err(fail())?.rows_affected() == 0 {
                sqlx::query(sql!("delete_flushed")).bind(stream).bind(first as i64).execute(&mut *connection).await.map_err(fail())?;
                return Ok(());
            }
        }
    }

    async fn write(&self) -> Result<Writing<'_>> {
        self.writer.as_ref().ok_or(StoreError::ReadOnly)?.write().await
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(Duration::from_secs(30))
        .test_before_acquire(false)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(20)).foreign_keys(true).statement_cache_capacity(100)
}

fn options_read(path: &Path) -> SqliteConnectOptions {
    options(path).read_only(true)
}

async fn write_replacement(connection: &mut SqliteConnection, replacement: &Replacement) -> Result<()> {
    let fail = || StoreError::database("changing the catalog");
    let mut transaction = connection.begin().await.map_err(fail())?;
    for path in &replacement.replaced {
        sqlx::query(sql!("delete_file")).bind(path).execute(&mut *transaction).await.map_err(fail())?;
        sqlx::query(sql!("insert_garbage")).bind(path).bind(replacement.time).execute(&mut *transaction).await.map_err(fail())?;
    }
    let file = &replacement.file;
    rows::insert_file(&mut transaction, file, replacement.time).await?;
    if replacement.flushes {
        sqlx::query(sql!("insert_flushed"))
            .bind(&file.extent.stream)
            .bind(file.extent.first as i64)
            .bind(file.extent.end as i64)
            .bind(replacement.time)
            .execute(&mut *transaction)
            .await
            .map_err(fail())?;
    }
    transaction.commit().await.map_err(fail())
}

/// Settles what may be refused because of what others wrote: that is rolled back like anything else, and leaves no doubt.
fn settle_conflict<T>(connection: Writing<'_>, outcome: Result<T>) -> Result<T> {
    if matches!(outcome, Err(StoreError::Conflict { .. })) { outcome } else { connection.settle(outcome) }
}

#[async_trait]
impl CommitDb for SqliteDb {
    async fn load(&self) -> Result<Loaded> {
        let mut connection = self.readers.acquire().await.map_err(StoreError::database("connecting"))?;
        let mut transaction = connection.begin().await.map_err(StoreError::database("beginning"))?;
        let loaded = rows::load(&mut transaction).await?;
        transaction.commit().await.map_err(StoreError::database("reading"))?;
        Ok(loaded)
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let mut connection = self.write().await?.unsettled();
        let outcome = commit::write_commit(&mut connection, commit).await;
        let outcome = connection.settle(outcome);
        if let Some(backfill) = &self.backfill {
            backfill.wrote(commit.batches.iter().map(|batch| (batch.body.len() + batch.hashes.len()) as u64).sum());
        }
        outcome
    }

    async fn replace(&self, replacement: &Replacement) -> Result<()> {
        let mut connection = self.write().await?;
        let outcome = write_replacement(&mut connection, replacement).await;
        connection.settle(outcome)
    }

    async fn remove_flushed(&self) -> Result<()> {
        let ranges =
            sqlx::query(sql!("select_flushed")).fetch_all(&self.readers).await.map_err(StoreError::database("reading what was flushed"))?;
        for range in &ranges {
            self.remove_range(&rows::text(range, "stream")?, rows::unsigned(range, "first")?, rows::unsigned(range, "end_index")?).await?;
        }
        Ok(())
    }

    async fn remove_flushed_range(&self, stream: &str, first: u64, end: u64) -> Result<()> {
        self.remove_range(stream, first, end).await
    }

    async fn reclaim(&self) -> Result<()> {
        let mut connection = self.write().await?;
        sqlx::raw_sql(sql!("reclaim")).execute(&mut *connection).await.map_err(StoreError::database("giving space back"))?;
        Ok(())
    }

    async fn hot_body(&self, stream: &str, first: u64) -> Result<Option<(Bytes, Bytes)>> {
        let row = sqlx::query(sql!("select_hot_body"))
            .bind(stream)
            .bind(first as i64)
            .fetch_optional(&self.readers)
            .await
            .map_err(StoreError::database("reading a batch"))?;
        row.map(|row| Ok((rows::blob(&row, "hashes")?, rows::blob(&row, "body")?))).transpose()
    }

    async fn hot_range(&self, stream: &str, first: u64, end: u64) -> Result<Vec<(u64, Bytes, Bytes)>> {
        let found = sqlx::query(sql!("select_hot_range"))
            .bind(stream)
            .bind(first as i64)
            .bind(end as i64)
            .fetch_all(&self.readers)
            .await
            .map_err(StoreError::database("reading batches"))?;
        found.iter().map(|row| Ok((rows::unsigned(row, "first")?, rows::blob(row, "hashes")?, rows::blob(row, "body")?))).collect()
    }

    async fn meta_leaves(&self, first: u64, end: u64) -> Result<Vec<Vec<u8>>> {
        sqlx::query_scalar::<_, Vec<u8>>(sql!("select_meta_leaves"))
            .bind(first as i64)
            .bind(end as i64)
            .fetch_all(&self.readers)
            .await
            .map_err(StoreError::database("reading the meta-log"))
    }

    async fn landmarks(&self, leaf_type: &str) -> Result<Vec<(u64, String)>> {
        let found = sqlx::query(sql!("select_landmarks"))
            .bind(leaf_type)
            .fetch_all(&self.readers)
            .await
            .map_err(StoreError::database("looking up the meta-log"))?;
        found.iter().map(|row| Ok((rows::unsigned(row, "number")?, rows::text(row, "subject")?))).collect()
    }

    async fn checkpoint_from(&self, size: u64) -> Result<Option<(u64, String)>> {
        let row = sqlx::query(sql!("select_checkpoint_from"))
            .bind(size as i64)
            .fetch_optional(&self.readers)
            .await
            .map_err(StoreError::database("reading a checkpoint"))?;
        row.map(|row| rows::checkpoint(&row)).transpose()
    }

    async fn covering_commit(&self, stream: &str, index: u64) -> Result<Option<(u64, u64)>> {
        let row = sqlx::query(sql!("select_covering_commit"))
            .bind(stream)
            .bind(index as i64)
            .fetch_optional(&self.readers)
            .await
            .map_err(StoreError::database("looking up a commit"))?;
        row.map(|row| Ok((rows::unsigned(&row, "size")?, rows::unsigned(&row, "number")?))).transpose()
    }

    async fn partition_key(&self, stream: &str, month: &str) -> Result<Option<[u8; 32]>> {
        let key = sqlx::query_scalar::<_, Vec<u8>>(sql!("select_partition_key"))
            .bind(stream)
            .bind(month)
            .fetch_optional(&self.readers)
            .await
            .map_err(StoreError::database("reading a partition key"))?;
        key.map(|key| rows::array(key, "a partition key")).transpose()
    }

    async fn create_partition_key(&self, stream: &str, month: &str, key: [u8; 32]) -> Result<[u8; 32]> {
        let mut connection = self.write().await?;
        sqlx::query(sql!("insert_partition_key"))
            .bind(stream)
            .bind(month)
            .bind(&key[..])
            .execute(&mut *connection)
            .await
            .map_err(StoreError::database("writing a partition key"))?;
        drop(connection);
        let stored = self.partition_key(stream, month).await?;
        stored.ok_or_else(|| StoreError::Damaged(format!("the partition key of {stream} {month} was not kept")))
    }

    async fn idempotency(&self, log: &str, key: &str) -> Result<Option<(Vec<u8>, String)>> {
        let row = sqlx::query(sql!("select_idempotency"))
            .bind(log)
            .bind(key)
            .fetch_optional(&self.readers)
            .await
            .map_err(StoreError::database("looking up an idempotency key"))?;
        row.map(|row| Ok((rows::blob(&row, "fingerprint")?.to_vec(), rows::text(&row, "answer")?))).transpose()
    }

    async fn forget_idempotency(&self, before: i64) -> Result<u64> {
        let mut connection = self.write().await?;
        let done = sqlx::query(sql!("delete_old_idempotency"))
            .bind(before)
            .execute(&mut *connection)
            .await
            .map_err(StoreError::database("forgetting old answers"))?;
        Ok(done.rows_affected())
    }

    async fn position(&self, source: &str) -> Result<Option<String>> {
        sqlx::query_scalar(sql!("select_position"))
            .bind(source)
            .fetch_optional(&self.readers)
            .await
            .map_err(StoreError::database("reading a position"))
    }

    async fn position_names(&self) -> Result<Vec<String>> {
        sqlx::query_scalar(sql!("select_position_names"))
            .fetch_all(&self.readers)
            .await
            .map_err(StoreError::database("reading the positions' names"))
    }

    async fn capture_sources(&self) -> Result<Vec<CaptureSourceRow>> {
        sources::read(&self.readers).await
    }

    async fn put_capture_source(&self, source: &CaptureSourceRow) -> Result<()> {
        let mut connection = self.write().await?;
        let outcome = sources::put(&mut connection, source).await;
        connection.settle(outcome)
    }

    async fn remove_capture_source(&self, name: &str) -> Result<()> {
        let mut connection = self.write().await?;
        let outcome = sources::remove(&mut connection, name).await;
        connection.settle(outcome)
    }

    async fn garbage(&self, before: i64) -> Result<Vec<String>> {
        sqlx::query_scalar(sql!("select_garbage"))
            .bind(before)
            .fetch_all(&self.readers)
            .await
            .map_err(StoreError::database("reading the list of replaced files"))
    }

    async fn forget_garbage(&self, path: &str) -> Result<()> {
        let mut connection = self.write().await?;
        sqlx::query(sql!("delete_garbage"))
            .bind(path)
            .execute(&mut *connection)
            .await
            .map_err(StoreError::database("forgetting a replaced file"))?;
        Ok(())
    }

    async fn read_register(&self, table: &'static Table) -> Result<RecordBatch> {
        registers::read(&self.readers, table).await
    }

    async fn find_in_register(&self, lookup: &Lookup) -> Result<Vec<RegisterRow>> {
        register_rows::find(&self.readers, lookup).await
    }

    async fn change_registers(&self, changes: &[RegisterChange], by: &ChangedBy) -> Result<Vec<i64>> {
        let mut connection = self.write().await?;
        let outcome = register_rows::change(&mut connection, changes, by).await;
        let outcome = settle_conflict(connection, outcome);
        if changes.iter().any(|change| ACCESS.contains(&change.table().name)) {
            self.access_changes.fetch_add(1, Ordering::Release);
        }
        outcome
    }

    fn audit_url(&self) -> Option<String> {
        let path = self.path.display().to_string().replace('%', "%25").replace('?', "%3F");
        Some(format!("sqlite://{path}"))
    }

    async fn waiting_register_changes(&self, source: &str) -> Result<u64> {
        registers::waiting(&self.readers, source).await
    }

    fn access_changes(&self) -> u64 {
        self.access_changes.load(Ordering::Acquire)
    }

    async fn follower(&self, name: &str) -> Result<Option<FollowerRow>> {
        followers::read(&self.readers, name).await
    }

    async fn advance(&self, step: &Advance) -> Result<Vec<i64>> {
        let mut connection = self.write().await?;
        let outcome = followers::advance(&mut connection, step).await;
        settle_conflict(connection, outcome)
    }

    async fn stream_commits(&self, stream: &str, after: u64, limit: u32) -> Result<Vec<StreamCommit>> {
        followers::commits(&self.readers, stream, after, limit).await
    }

    async fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxRow>> {
        followers::outbox(&self.readers, after, limit).await
    }

    async fn clear_outbox(&self, up_to: i64) -> Result<()> {
        let mut connection = self.write().await?;
        let outcome = followers::clear_outbox(&mut connection, up_to).await;
        connection.settle(outcome)
    }
}
