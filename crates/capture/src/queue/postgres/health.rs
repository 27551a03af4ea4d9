//! How far the queue is behind.

use super::reader::connect;
use crate::error::{CaptureError, Result};
use crate::health::{Health, Monitor};
use crate::postgres::Server;
use async_trait::async_trait;
use sqlx::{PgConnection, Row};

/// Looks at the queue on a connection of its own.
pub struct QueueMonitor {
    server: Server,
    connection: Option<PgConnection>,
}

impl QueueMonitor {
    /// A monitor of a database's queue.
    ///
    /// # Errors
    /// If the URL is none.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { server: Server::parse(url)?, connection: None })
    }
}

#[async_trait]
impl Monitor for QueueMonitor {
    /// The database is told once a second what is stored, so that a change may seem to wait for as long.
    async fn look(&mut self) -> Result<Health> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.server).await?,
        };
        let doing = || CaptureError::database("looking at the queue");
        let row = sqlx::query(include_str!("sql/queue_health.sql")).fetch_one(&mut connection).await.map_err(doing())?;
        self.connection = Some(connection);
        let waited: Option<f64> = row.try_get("lag_seconds").map_err(doing())?;
        Ok(Health {
            lag_seconds: Some(waited.unwrap_or(0.0).max(0.0)),
            kept_bytes: row.try_get("kept_bytes").map_err(doing())?,
            ..Health::default()
        })
    }
}
