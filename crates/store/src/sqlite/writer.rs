//! The one connection that writes. It is not in a pool: a pool tests a connection each time it is given back, which is as many changes of threads as a commit.

use crate::error::{Result, StoreError};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

/// How long one writer waits for those before it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The connection, for one at a time.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    connection: Mutex<Option<SqliteConnection>>,
    /// Whether a transaction may be open in it that nobody will end: a COMMIT that failed leaves one, and the next one would be nested in it and never be
    /// durable.
    doubtful: AtomicBool,
}

/// The connection, while somebody writes. What is written in several statements should be settled in the end.
#[derive(Debug)]
pub(super) struct Writing<'w> {
    connection: MappedMutexGuard<'w, SqliteConnection>,
    doubtful: &'w AtomicBool,
}

impl Writer {
    /// Connects.
    pub(super) async fn open(options: SqliteConnectOptions) -> Result<Self> {
        let writer = Self { options, connection: Mutex::default(), doubtful: AtomicBool::new(false) };
        writer.write().await?;
        Ok(writer)
    }

    /// Waits until nobody else writes. A connection in doubt is closed, which undoes what was not committed, and another one opened.
    pub(super) async fn write(&self) -> Result<Writing<'_>> {
        let fail = || StoreError::database("connecting");
        let waited = tokio::time::timeout(PATIENCE, self.connection.lock()).await;
        let mut connection = waited.map_err(|_| fail()(sqlx::Error::PoolTimedOut))?;
        if self.doubtful.load(Ordering::Acquire)
            && let Some(doubtful) = connection.take()
            && let Err(error) = doubtful.close().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "closing a connection after an error");
        }
        if connection.is_none() {
            *connection = Some(self.options.connect().await.map_err(fail())?);
            self.doubtful.store(false, Ordering::Release);
        }
        let connection = MutexGuard::try_map(connection, Option::as_mut).map_err(|_| fail()(sqlx::Error::PoolClosed))?;
        Ok(Writing { connection, doubtful: &self.doubtful })
    }
}

impl Writing<'_> {
    /// Until it is settled, whoever drops this leaves the connection in doubt.
    pub(super) fn unsettled(self) -> Self {
        self.doubtful.store(true, Ordering::Release);
        self
    }

    /// Leaves the connection to the next one; in doubt after an error.
    pub(super) fn settle<T>(self, outcome: Result<T>) -> Result<T> {
        self.doubtful.store(outcome.is_err(), Ordering::Release);
        outcome
    }
}

impl Deref for Writing<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}
