//! Health of a replication slot, and the regular look for tables that are new.

use super::attach::slot_name;
use super::connection::Server;
use crate::error::{CaptureError, Result};
use crate::health::{Health, Monitor};
use async_trait::async_trait;
use sqlx::{PgConnection, Row};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often new tables are looked for where no event trigger does that.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// How often where one does: it may have been disabled for a while.
const REFRESH_ANYWAY: Duration = Duration::from_secs(300);
/// Looks that are remembered to tell the age of a position.
const LOOKS: usize = 4096;
/// A database that doesn't answer for so long is as good as gone.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Looks at a source's slot on a connection of its own.
pub struct SlotMonitor {
    server: Server,
    name: String,
    slot: String,
    connection: Option<PgConnection>,
    /// When the server had written how much WAL, oldest first.
    written: VecDeque<(Instant, i64)>,
    refreshed: Option<Instant>,
}

impl SlotMonitor {
    /// A monitor of a source.
    ///
    /// # Errors
    /// If the URL is none.
    pub fn new(url: &str, name: &str) -> Result<Self> {
        let (server, slot) = (Server::parse(url)?, slot_name(name));
        Ok(Self { server, name: name.to_owned(), slot, connection: None, written: VecDeque::new(), refreshed: None })
    }

    async fn ask(&mut self, connection: &mut PgConnection) -> Result<Health> {
        let doing = || CaptureError::database("looking at the slot");
        let row = sqlx::query(include_str!("sql/health.sql")).bind(&self.slot).fetch_optional(&mut *connection).await.map_err(doing())?;
        let Some(row) = row else {
            return Ok(Health { complaints: vec![format!("the replication slot {} is gone", self.slot)], ..Health::default() });
        };
        let read = || -> Result<_, sqlx::Error> {
            let (written, confirmed): (i64, Option<i64>) = (row.try_get("written")?, row.try_get("confirmed")?);
            let watches_ddl: bool = row.try_get("watches_ddl")?;
            let health = Health {
                lag_bytes: row.try_get("lag_bytes")?,
                lag_seconds: None,
                kept_bytes: row.try_get("kept_bytes")?,
                wal_status: row.try_get("wal_status")?,
                safe_wal_bytes: row.try_get("safe_wal_bytes")?,
                complaints: Vec::new(),
            };
            Ok((written, confirmed, watches_ddl, health))
        };
        let (written, confirmed, watches_ddl, mut health) = read().map_err(doing())?;
        health.lag_seconds = confirmed.map(|confirmed| self.age(written, confirmed));
        let every = if watches_ddl { REFRESH_ANYWAY } else { REFRESH_EVERY };
        if self.refreshed.is_none_or(|at| at.elapsed() >= every) {
            self.refreshed = Some(Instant::now());
            match self.refresh(connection).await {
                // Its role may do less than the event triggers, which belong to whoever attached.
                Err(error) if watches_ddl => {
                    tracing::warn!(source = %self.name, error = &error as &dyn std::error::Error, "new tables could not be looked for");
                }
                outcome => outcome?,
            }
        }
        health.complaints.extend(self.troubles(connection).await?);
        if !watches_ddl {
            health.complaints.push("DDL is not recorded: the event triggers are missing or disabled".to_owned());
        }
        Ok(health)
    }

    /// Seconds since the server had written no more than has been confirmed.
    fn age(&mut self, written: i64, confirmed: i64) -> f64 {
        let now = Instant::now();
        if self.written.back().is_none_or(|(_, known)| *known < written) {
            self.written.push_back((now, written));
        }
        // All but the last that is confirmed tell nothing any more.
        while self.written.len() > LOOKS || self.written.front().is_some_and(|(_, known)| *known <= confirmed) {
            self.written.pop_front();
        }
        self.written.front().map_or(0.0, |(since, _)| since.elapsed().as_secs_f64())
    }

    /// Tables that could not be taken in. A database that was attached by an earlier version doesn't know.
    async fn troubles(&self, connection: &mut PgConnection) -> Result<Vec<String>> {
        let doing = || CaptureError::database("looking for tables that could not be taken in");
        let known = sqlx::query_scalar::<_, bool>("SELECT to_regclass('muniment.trouble') IS NOT NULL").fetch_one(&mut *connection);
        if !known.await.map_err(doing())? {
            return Ok(Vec::new());
        }
        let query = sqlx::query_scalar(include_str!("sql/select_troubles.sql")).bind(&self.name);
        query.fetch_all(connection).await.map_err(doing())
    }

    async fn refresh(&self, connection: &mut PgConnection) -> Result<()> {
        let refresh = sqlx::query("SELECT muniment.refresh($1)").bind(&self.name).execute(connection);
        refresh.await.map_err(CaptureError::database("taking in new tables"))?;
        Ok(())
    }
}

#[async_trait]
impl Monitor for SlotMonitor {
    async fn look(&mut self) -> Result<Health> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.server.connect().await?,
        };
        let timed_out = |_| CaptureError::database("looking at the slot")(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        let health = tokio::time::timeout(TIMEOUT, self.ask(&mut connection)).await.map_err(timed_out)??;
        self.connection = Some(connection);
        Ok(health)
    }
}
