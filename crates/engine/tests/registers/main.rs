//! Registers alive: their changes are on the record, whoever makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod audit;
mod cases;
mod people;
mod sessions;

use arrow_cast::pretty::pretty_format_batches;
use muniment_engine::query::{QueryEngine, QueryLimits};
use muniment_engine::{ChangedBy, Engine, EngineConfig, EngineError, IngestRequest, Receipt};
use muniment_model::Format;
use serde_json::{Map, Value};
use sqlx::{Connection, SqliteConnection};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
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
        Self::with(folder, EngineConfig::new("")).await
    }

    /// With this configuration, but for the folders.
    async fn with(folder: TempDir, config: EngineConfig) -> Self {
        let here = EngineConfig::new(folder.path().join("data"));
        let engine = Engine::open(EngineConfig { data: here.data, publish: here.publish, ..config }).await.unwrap();
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

    async fn try_send(&self, log: &str, records: &[Value]) -> Result<Receipt, EngineError> {
        let body: String = records.iter().map(|record| format!("{record}\n")).collect();
        let request = IngestRequest { log, body: body.into(), format: Format::Ndjson, idempotency_key: None, position: None };
        self.engine.ingest(request).await
    }

    async fn send(&self, log: &str, records: &[Value]) {
        self.try_send(log, records).await.unwrap();
    }

    /// Waits until a query answers true.
    async fn until(&self, sql: &str) {
        for _ in 0..600 {
            if self.table(sql).await.contains("true") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{sql} was never true");
    }

    async fn settled(&self) {
        self.engine.settle_registers().await.unwrap();
    }
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(object) = value { object } else { panic!("{value} is no object") }
}

/// Somebody with a reason.
fn by(username: &str) -> ChangedBy {
    ChangedBy { username: username.to_owned(), reason: Some("ticket 4711".to_owned()), ..ChangedBy::default() }
}
