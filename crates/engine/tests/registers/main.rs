//! Registers alive: their changes are on the record, whoever makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod audit;

use arrow_cast::pretty::pretty_format_batches;
use muniment_engine::query::{QueryEngine, QueryLimits};
use muniment_engine::{Engine, EngineConfig};
use muniment_store::register::ChangedBy;
use sqlx::{Connection, SqliteConnection};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A data folder with an engine on it.
struct Scene {
    folder: TempDir,
    engine: Arc<Engine>,
    query: QueryEngine,
}

impl Scene {
    async fn new() -> Self {
        Self::open(TempDir::new().unwrap()).await
    }

    async fn open(folder: TempDir) -> Self {
        let engine = Engine::open(EngineConfig::new(folder.path().join("data"))).await.unwrap();
        let query = QueryEngine::new(engine.store().clone(), QueryLimits::default()).unwrap();
        Self { folder, engine, query }
    }

    async fn restarted(self) -> Self {
        self.engine.shutdown().await.unwrap();
        drop((self.engine, self.query));
        Self::open(self.folder).await
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("data/muniment.db")
    }

    /// Runs SQL in the commit database as any program could.
    async fn behind_the_back(&self, sql: &'static str) {
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", self.database().display())).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn table(&self, sql: &str) -> String {
        let batches = self.query.collect(sql, Vec::new()).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        pretty_format_batches(&batches).unwrap().to_string()
    }

    /// The changes of registers so far, once all are in the log.
    async fn changes(&self, columns: &str) -> String {
        self.settled().await;
        self.table(&format!("SELECT {columns} FROM sys_audit_log WHERE table_name LIKE 'muniment.%' ORDER BY id")).await
    }

    async fn settled(&self) {
        self.engine.settle_registers().await.unwrap();
    }
}

/// Somebody with a reason.
fn by(username: &str) -> ChangedBy {
    ChangedBy { username: username.to_owned(), reason: Some("ticket 4711".to_owned()), ..ChangedBy::default() }
}
