//! Blame, transactions and undo scripts; the scripts are run on real databases and compared with the state before.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod blame;
mod cascade;
mod databases;
mod refusals;
mod sources;
mod undo;

use bytes::Bytes;
use muniment_engine::history::{Dialect, Selection, Undo, UndoOptions};
use muniment_engine::query::{QueryEngine, QueryLimits};
use muniment_engine::{Engine, EngineConfig, IngestRequest, KeyHints};
use muniment_model::Format;
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;

/// A log with a way to ask it.
struct Log {
    _folder: TempDir,
    engine: Arc<Engine>,
    query: QueryEngine,
}

impl Log {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let engine = Engine::open(EngineConfig::new(folder.path().join("data"))).await.unwrap();
        let query = QueryEngine::new(engine.store().clone(), QueryLimits::default()).unwrap();
        Self { _folder: folder, engine, query }
    }

    /// Stores records; returns the id of the first.
    async fn send(&self, records: &[String]) -> i64 {
        let body = Bytes::from(records.join("\n"));
        let request = IngestRequest { log: "sys_audit_log", body, format: Format::Ndjson, idempotency_key: None, position: None };
        self.engine.ingest(request).await.unwrap().ids.unwrap().first
    }

    async fn flush(&self) {
        self.engine.flush_all().await.unwrap();
    }

    async fn undo(&self, selection: &Selection, dialect: Dialect) -> Option<Undo> {
        self.undo_with(selection, dialect, "").await
    }

    async fn undo_with(&self, selection: &Selection, dialect: Dialect, keys: &str) -> Option<Undo> {
        let options = UndoOptions { dialect, keys: KeyHints::parse(keys).unwrap(), source: None };
        muniment_engine::history::undo(&self.query, selection, &options).await.unwrap()
    }
}

/// A record of `case.hoso` as a sender writes it; `null` values are left out.
fn record(operation: &str, key: &str, old: Value, new: Value, more: Value) -> String {
    let mut record = json!({ "table_name": "case.hoso", "operation": operation, "primary_key": key });
    for (name, value) in [("old_values", old), ("new_values", new)] {
        if !value.is_null() {
            record[name] = value;
        }
    }
    record.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    record.to_string()
}
