//! Moving the write-ahead log into the database file beside the commits: a commit that had to do it would keep all senders waiting for a tenth of a second.

use sqlx::sqlite::SqlitePool;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of commits after which the log is moved.
const EVERY_BYTES: u64 = 128 << 20;

/// Has the log moved from time to time. What it can't keep up with, SQLite does itself in a commit, at the size that the writer's `wal_autocheckpoint` says.
#[derive(Debug)]
pub(super) struct Backfill {
    connection: SqlitePool,
    written: AtomicU64,
    running: Arc<AtomicBool>,
}

impl Backfill {
    /// Uses a connection of its own, of the writer's kind.
    pub(super) fn new(connection: SqlitePool) -> Self {
        Self { connection, written: AtomicU64::new(0), running: Arc::default() }
    }

    /// Takes note of a commit of about so many bytes.
    pub(super) fn wrote(&self, bytes: u64) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if written < EVERY_BYTES || self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        self.written.store(0, Ordering::Relaxed);
        let (connection, running) = (self.connection.clone(), self.running.clone());
        tokio::spawn(async move {
            if let Err(error) = sqlx::query(super::sql!("backfill")).execute(&connection).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "moving the write-ahead log failed; it will be tried again");
            }
            running.store(false, Ordering::Release);
        });
    }
}
