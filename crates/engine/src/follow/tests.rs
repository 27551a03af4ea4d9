//! Followers across stops and crashes, flushes and several streams.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{Consumer, Following, Outcome, start, start_outbox};
use crate::engine::{Engine, EngineConfig};
use crate::error::Result;
use crate::ingest::IngestRequest;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use muniment_model::{Format, table};
use muniment_store::register::{ChangedBy, Lookup, RegisterChange};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A log in which nothing appears because of what the test writes to registers.
const LOG: &str = "api_access_log";
/// Less than some commits have, so that slices end in the middle of them.
const SLICE: u64 = 97;

/// Writes down each record as a row of `users`, where a second one would be refused, and each tenth as a finding; remembers how many there were and the
/// newest commit's time.
#[derive(Default)]
struct Witness {
    seen: u64,
    newest: i64,
}

#[async_trait]
impl Consumer for Witness {
    fn restore(&mut self, state: &str) -> Result<()> {
        let (seen, newest) = state.split_once(' ').unwrap_or(("0", "0"));
        (self.seen, self.newest) = (seen.parse().unwrap(), newest.parse().unwrap());
        Ok(())
    }

    async fn take(&mut self, _: &Engine, records: &[RecordBatch]) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        assert!(records.iter().map(|batch| batch.num_rows() as u64).sum::<u64>() <= SLICE, "a step is bounded");
        for batch in records {
            let keys = batch.column_by_name("endpoint").unwrap().as_string::<i32>();
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            let times = batch.column_by_name("recorded_at").unwrap().as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                assert!(times.value(row) >= self.newest, "commits come in order");
                self.newest = times.value(row);
                self.seen += 1;
                let values = vec![("username", format!("{} {}", keys.value(row), ids.value(row)).into())];
                outcome.changes.push(RegisterChange::Insert { table: table("users").unwrap(), values });
                if self.seen.is_multiple_of(10) {
                    let line = r#"{"event_type":"TENTH","event_category":"SYSTEM","severity":1,"ip_address":"0.0.0.0"}"#;
                    outcome.records.push(("security_audit_log", line.to_owned()));
                }
            }
        }
        outcome.state = format!("{} {}", self.seen, self.newest);
        Ok(outcome)
    }
}

fn witness(engine: &Arc<Engine>) -> Vec<tokio::task::JoinHandle<()>> {
    let following = Following {
        name: "witness",
        log: table(LOG).unwrap(),
        columns: &["endpoint"],
        slice: SLICE,
        by: ChangedBy { username: "muniment:test".to_owned(), ..ChangedBy::default() },
        consumer: Box::new(Witness::default()),
    };
    vec![start(engine, following), start_outbox(engine)]
}

async fn store(engine: &Arc<Engine>, keys: std::ops::Range<usize>) {
    let line = |key: usize| {
        let years = key % 3 + 7;
        format!(r#"{{"method":"GET","endpoint":"{key}","retention_years":{years}}}"#) + "\n"
    };
    let body: String = keys.map(line).collect();
    let request = IngestRequest { log: LOG, body: body.into(), format: Format::Ndjson, idempotency_key: None, position: None };
    engine.ingest(request).await.unwrap();
}

async fn seen(engine: &Engine) -> BTreeSet<usize> {
    let rows = engine.store().db().find_in_register(&Lookup::new(table("users").unwrap(), Vec::new())).await.unwrap();
    rows.iter().map(|row| row.text("username").unwrap().split(' ').next().unwrap().parse().unwrap()).collect()
}

fn findings(engine: &Engine) -> u64 {
    engine.store().snapshot_of("security_audit_log").values().map(|stream| stream.end()).sum()
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_followed_once_in_commit_order_across_crashes_and_flushes() {
    let folder = tempfile::tempdir().unwrap();
    let config = EngineConfig::new(folder.path().join("data"));
    let mut written = 0;
    for round in 0..4 {
        let engine = Engine::open(config.clone()).await.unwrap();
        let tasks = witness(&engine);
        for size in [1, 7, 300, 2] {
            store(&engine, written..written + size).await;
            written += size;
        }
        if round == 1 {
            engine.flush_all().await.unwrap();
        }
        // Stopped in the middle of things: whatever a task was doing is not finished.
        if round < 3 {
            tokio::time::sleep(Duration::from_millis(150 * round)).await;
            tasks.iter().for_each(|task| task.abort());
            for task in tasks {
                let _ = task.await;
            }
            engine.shutdown().await.unwrap();
            continue;
        }
        until("the last record", async || seen(&engine).await.len() == written).await;
        until("the last finding", async || findings(&engine) == written as u64 / 10).await;
        store(&engine, written..written + 10).await;
        written += 10;
        until("a finding for ten more", async || findings(&engine) == written as u64 / 10).await;
        assert_eq!(seen(&engine).await, (0..written).collect());
        engine.shutdown().await.unwrap();
    }
}
