//! Baselines beside a stream of changes, on a real PostgreSQL: the records, replayed in their order, are the table.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use muniment_capture::open::{POSTGRES, SourceSpec, open};
use muniment_capture::plan::AttachOptions;
use muniment_capture::postgres::attach;
use muniment_capture::{Batch, Source};
use muniment_testkit::{PostgresOptions, PostgresServer};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

const DATABASE: &str = "postgres";

/// A log as the engine would keep it: the batches that were stored, and the position.
#[derive(Default)]
struct Log {
    records: Vec<Value>,
    /// The records as they were written.
    text: String,
    findings: Vec<Value>,
    position: Option<String>,
}

impl Log {
    async fn store(&mut self, source: &mut dyn Source, batch: Batch) {
        let lines = |bytes: &[u8]| -> Vec<Value> {
            bytes.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
        };
        self.records.extend(lines(&batch.changes));
        self.text.push_str(std::str::from_utf8(&batch.changes).unwrap());
        self.findings.extend(lines(&batch.findings));
        self.position = Some(batch.position.clone());
        source.confirm(&batch.position).await.unwrap();
    }

    /// Reads until nothing has come for a while.
    async fn read(&mut self, source: &mut dyn Source, quiet: Duration) {
        while let Ok(batch) = tokio::time::timeout(quiet, source.next()).await {
            self.store(source, batch.unwrap()).await;
        }
    }

    /// The state of a table by its records, by key.
    fn state(&self, table: &str) -> BTreeMap<String, Value> {
        let mut rows = BTreeMap::new();
        for record in self.records.iter().filter(|record| record["table_name"] == table) {
            let key = record["primary_key"].as_str().unwrap().to_owned();
            match record["operation"].as_str().unwrap() {
                "DELETE" => drop(rows.remove(&key)),
                "TRUNCATE" => rows.clear(),
                "DDL" => {}
                _ => drop(rows.insert(key, record["new_values"].clone())),
            }
        }
        rows
    }

    fn count(&self, operation: &str) -> usize {
        self.records.iter().filter(|record| record["operation"] == operation).count()
    }

    fn assert_once(&self) {
        let mut seen = HashSet::new();
        assert!(self.records.iter().all(|record| seen.insert(record["source_position"].as_str().unwrap())), "a position came twice");
    }
}

async fn attached(sql: &str, tables: &[&str]) -> (PostgresServer, String) {
    let server = PostgresServer::start(&PostgresOptions::default()).unwrap();
    server.execute(DATABASE, sql).await.unwrap();
    let options =
        AttachOptions { name: Some("pg:t".into()), tables: tables.iter().map(|t| (*t).to_owned()).collect(), ..AttachOptions::default() };
    let plan = attach::plan(&server.url(DATABASE), &options, false).await.unwrap();
    attach::apply(&server.url(DATABASE), &plan, true).await.unwrap();
    (server, serde_json::to_string(&options).unwrap())
}

fn source(server: &PostgresServer, options: &str) -> Box<dyn Source> {
    open(&SourceSpec { name: "pg:t", kind: POSTGRES, url: &server.url(DATABASE), options }).unwrap().source
}

/// The table itself, as the log has it.
async fn table(server: &PostgresServer, table: &str) -> BTreeMap<String, Value> {
    let sql = format!("SELECT id::text, to_jsonb(t)::text FROM {table} t");
    let rows: Vec<(String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&server.pool(DATABASE)).await.unwrap();
    rows.into_iter().map(|(key, row)| (key, serde_json::from_str(&row).unwrap())).collect()
}

const QUIET: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_are_recorded_first() {
    let sql = "CREATE SCHEMA app; CREATE DOMAIN app.money AS numeric; CREATE TABLE app.t (id int PRIMARY KEY, m app.money, c char(5), b bool, j jsonb, n text);
        INSERT INTO app.t VALUES (1, 1.50, 'ab', true, '{\"a\":1.0}', NULL), (2, 'NaN', '', false, '[]', 'x');
        CREATE TABLE app.ev (note text, id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE app.ev1 (id int NOT NULL, note text);
        ALTER TABLE app.ev ATTACH PARTITION app.ev1 FOR VALUES FROM (0) TO (100); INSERT INTO app.ev VALUES ('p', 1); CREATE TABLE app.empty (id int)";
    let (server, options) = attached(sql, &["app.*"]).await;
    let (mut log, mut source) = (Log::default(), source(&server, &options));
    source.start(None).await.unwrap();
    log.read(source.as_mut(), QUIET).await;
    assert_eq!(log.count("SNAPSHOT"), 3);
    let row = r#"{"id":1,"m":1.50,"c":"ab   ","b":true,"j":{"a": 1.0},"n":null}"#;
    assert!(log.text.contains(row), "{}", log.text);
    assert_eq!(log.state("app.ev")["1"]["note"], "p");
    // The stream writes a row exactly as the baseline does.
    let lines =
        |log: &Log| log.records.iter().filter(|r| r["primary_key"] == "2").map(|r| r["new_values"].to_string()).collect::<HashSet<_>>();
    server.execute(DATABASE, "UPDATE app.t SET n = n").await.unwrap();
    log.read(source.as_mut(), QUIET).await;
    assert_eq!((log.count("UPDATE"), lines(&log).len()), (2, 1));
    // Taken once.
    source.start(log.position.as_deref()).await.unwrap();
    log.read(source.as_mut(), QUIET).await;
    assert_eq!(log.count("SNAPSHOT"), 3);
    log.assert_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_beside_concurrent_writes_and_kills_is_the_table() {
    let sql = "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, v text); INSERT INTO app.t SELECT n, repeat('x', 200) FROM generate_series(1, 60000) n";
    let (server, options) = attached(sql, &["app.t"]).await;
    let pool = server.pool(DATABASE);
    let writers: Vec<_> = (0..3_i32)
        .map(|writer| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for round in 0..400_i32 {
                    let at = (round * 7919 + writer * 20_011) % 60_000;
                    let sql = format!(
                        "UPDATE app.t SET v = '{writer}/{round}' WHERE id BETWEEN {at} AND {at} + 20; DELETE FROM app.t WHERE id = {at} + 30;
                         INSERT INTO app.t VALUES ({at} + 30, 'again') ON CONFLICT DO NOTHING; UPDATE app.t SET id = id + 100000 WHERE id = {at} + 50 AND {round} % 9 = 0"
                    );
                    // Writers may meet in a deadlock; then one of them is rolled back.
                    let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await;
                }
            })
        })
        .collect();
    let mut log = Log::default();
    let mut lives = 0;
    while writers.iter().any(|writer| !writer.is_finished()) || lives < 8 {
        // Each life ends as a kill would end it: what was not stored is forgotten.
        let mut source = source(&server, &options);
        source.start(log.position.as_deref()).await.unwrap();
        lives += 1;
        for _ in 0..6 {
            match tokio::time::timeout(Duration::from_secs(2), source.next()).await {
                Ok(batch) => log.store(source.as_mut(), batch.unwrap()).await,
                Err(_) => break,
            }
        }
    }
    let mut source = source(&server, &options);
    source.start(log.position.as_deref()).await.unwrap();
    log.read(source.as_mut(), QUIET).await;
    log.assert_once();
    assert!(log.count("SNAPSHOT") > 50_000, "{}", log.count("SNAPSHOT"));
    assert!(log.state("app.t") == table(&server, "app.t").await, "the log is not the table");
    // Every change finds the row as the log has it.
    let mut rows: BTreeMap<&str, &Value> = BTreeMap::new();
    for record in &log.records {
        let key = record["primary_key"].as_str().unwrap();
        if let (Some(known), old @ Value::Object(_)) = (rows.get(key), &record["old_values"]) {
            assert_eq!(*known, old, "{record}");
        }
        match &record["new_values"] {
            Value::Null => drop(rows.remove(key)),
            new => drop(rows.insert(key, new)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_9_a_rewritten_table_and_a_new_one_get_a_baseline() {
    let sql = "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, v int); INSERT INTO app.t VALUES (1, 1), (2, 2)";
    let (server, options) = attached(sql, &["app.*"]).await;
    let (mut log, mut source) = (Log::default(), source(&server, &options));
    source.start(None).await.unwrap();
    log.read(source.as_mut(), QUIET).await;
    server
        .execute(
            DATABASE,
            "ALTER TABLE app.t ADD COLUMN r float8 NOT NULL DEFAULT random(); CREATE TABLE app.copied AS SELECT * FROM app.t",
        )
        .await
        .unwrap();
    log.read(source.as_mut(), QUIET).await;
    assert_eq!(log.state("app.t"), table(&server, "app.t").await);
    assert_eq!(log.state("app.copied").len(), 2);
    assert!(log.findings.iter().any(|finding| finding["event_type"] == "CAPTURE_BYPASSED"));
    log.assert_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_13_a_gap_is_followed_by_a_new_baseline() {
    let sql = "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, v int); INSERT INTO app.t VALUES (1, 1), (2, 2)";
    let (server, options) = attached(sql, &["app.*"]).await;
    let mut log = Log::default();
    let mut first = source(&server, &options);
    first.start(None).await.unwrap();
    log.read(first.as_mut(), QUIET).await;
    drop(first);
    let dropped = "SELECT pg_drop_replication_slot('muniment_pg_t')";
    while server.execute(DATABASE, dropped).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.execute(DATABASE, "UPDATE app.t SET v = 7 WHERE id = 1").await.unwrap();
    let mut second = source(&server, &options);
    second.start(log.position.as_deref()).await.unwrap();
    log.read(second.as_mut(), QUIET).await;
    assert!(log.findings.iter().any(|finding| finding["event_type"] == "CAPTURE_GAP"));
    assert_eq!(log.state("app.t"), table(&server, "app.t").await);
    log.assert_once();
}
