//! The ordinary connection beside the stream: the catalog's primary keys, and heartbeats.

use crate::error::{CaptureError, Result};
use crate::postgres::connection::Server;
use sqlx::PgConnection;
use sqlx::postgres::types::Oid;
use std::time::Duration;

/// A server that doesn't answer for this long is as good as unreachable.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that is opened when it is needed, and again after an error.
pub(super) struct Side {
    server: Server,
    connection: Option<PgConnection>,
}

async fn primary_key(connection: &mut PgConnection, table: u32, lsn: u64) -> Result<Vec<String>, sqlx::Error> {
    let is_kept = "SELECT to_regclass('muniment.former_key') IS NOT NULL";
    if sqlx::query_scalar(is_kept).fetch_one(&mut *connection).await? {
        let lsn = format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff);
        let former = sqlx::query_scalar(include_str!("sql/former_key.sql")).bind(Oid(table)).bind(lsn);
        if let Some(columns) = former.fetch_optional(&mut *connection).await? {
            return Ok(columns);
        }
    }
    sqlx::query_scalar(include_str!("sql/primary_key.sql")).bind(Oid(table)).fetch_all(connection).await
}

/// Columns of a table that were masked by another name.
pub(super) async fn masked_columns(connection: &mut PgConnection, table: u32) -> Result<Vec<String>, sqlx::Error> {
    if !sqlx::query_scalar("SELECT to_regclass('muniment.attached') IS NOT NULL").fetch_one(&mut *connection).await? {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(include_str!("sql/masked_columns.sql")).bind(Oid(table)).fetch_all(connection).await
}

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

impl Side {
    pub fn new(server: Server) -> Self {
        Self { server, connection: None }
    }

    /// Takes the connection out, so that one that failed isn't used again.
    async fn take(&mut self) -> Result<PgConnection> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.server.connect().await,
        }
    }

    /// Names of the columns that were a table's primary key at an LSN, in key order; none if it had none or is gone. And those of the columns that are masked now,
    /// whatever name they had when they were attached.
    pub async fn columns(&mut self, table: u32, lsn: u64) -> Result<(Vec<String>, Vec<String>)> {
        let mut connection = self.take().await?;
        let ask = async { Ok((primary_key(&mut connection, table, lsn).await?, masked_columns(&mut connection, table).await?)) };
        let asked = tokio::time::timeout(TIMEOUT, ask).await.unwrap_or_else(|_| Err(timed_out()));
        let columns = asked.map_err(CaptureError::database("asking for a table's columns"))?;
        self.connection = Some(connection);
        Ok(columns)
    }

    /// Writes a transaction that changes nothing, so that an idle database's slot moves on. It doesn't wait for synchronous standbys, of which we may be one.
    pub async fn heartbeat(&mut self) -> Result<()> {
        let mut connection = self.take().await?;
        let sql = "SELECT set_config('synchronous_commit', 'off', true), pg_logical_emit_message(true, 'muniment.heartbeat', '')";
        let query = sqlx::query(sql).execute(&mut connection);
        let done = tokio::time::timeout(TIMEOUT, query).await.unwrap_or_else(|_| Err(timed_out()));
        done.map_err(CaptureError::database("writing a heartbeat"))?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Creates a slot in place of one that is gone or lost.
    pub async fn recreate_slot(&mut self, slot: &str) -> Result<()> {
        let mut connection = self.take().await?;
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
        sqlx::query(drop)
            .bind(slot)
            .execute(&mut connection)
            .await
            .map_err(CaptureError::database("dropping the lost replication slot"))?;
        let create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
        sqlx::query(create)
            .bind(slot)
            .execute(&mut connection)
            .await
            .map_err(CaptureError::database("creating the replication slot anew"))?;
        self.connection = Some(connection);
        Ok(())
    }
}
