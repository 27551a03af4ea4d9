//! Moving the write-ahead log into the database file beside the commits: a commit that had to do it would keep all senders waiting for a tenth of a second.

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of commits after which the log is moved.
const EVERY_BYTES: u64 = 64 << 20;
/// Passes beside the commits: each leaves what was committed meanwhile, which is less every time.
const PASSES: usize = 2;
/// How long the last pass, which keeps commits waiting, waits for those who read the log.
const PATIENCE: Duration = Duration::from_millis(20);

/// Has the log moved from time to time. What it can't keep up with, SQLite does itself in a commit, at the size that the writer's `wal_autocheckpoint` says.
#[derive(Debug)]
pub(super) struct Backfill {
    connection: SqlitePool,
    written: AtomicU64,
    running: Arc<AtomicBool>,
}

impl Backfill {
    /// Uses a connection of its own, of the writer's kind.
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        let connection = super::pool(1).connect_lazy_with(options.busy_timeout(PATIENCE));
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
            if let Err(error) = move_log(&connection).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "moving the write-ahead log failed; it will be tried again");
            }
            running.store(false, Ordering::Release);
        });
    }
}

/// Moves the log, then the little that came meanwhile while commits wait, so that the next commit begins the log anew and its file doesn't grow.
async fn move_log(connection: &SqlitePool) -> sqlx::Result<()> {
    for _ in 0..PASSES {
        sqlx::query(super::sql!("backfill")).execute(connection).await?;
    }
    sqlx::query(super::sql!("restart_log")).execute(connection).await?;
    Ok(())
}
