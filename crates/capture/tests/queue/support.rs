//! A stand-in for the engine: stores batches and their position, and confirms.

use muniment_capture::Source;
use muniment_capture::plan::{AttachOptions, Baseline};
use muniment_capture::queue::postgres::{QueueOptions, QueueSource, apply, plan};
use muniment_testkit::workload::LogRecord;
use muniment_testkit::{PostgresOptions, PostgresServer};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use std::time::Duration;

pub const DATABASE: &str = "postgres";
/// Silence after which a queue is taken to be read.
const SILENCE: Duration = Duration::from_millis(400);

/// What was stored.
#[derive(Default)]
pub struct Store {
    pub changes: Vec<Value>,
    pub records: Vec<LogRecord>,
    pub findings: Vec<Value>,
    pub position: Option<String>,
    pub batches: usize,
}

#[derive(Deserialize)]
struct Line<'a> {
    table_name: String,
    operation: String,
    primary_key: String,
    #[serde(borrow)]
    old_values: Option<&'a RawValue>,
    #[serde(borrow)]
    new_values: Option<&'a RawValue>,
    transaction_id: Option<String>,
    source_position: Option<String>,
    changed_by_username: Option<String>,
    attribution: Option<String>,
}

impl Store {
    /// Stores what there is, until it is quiet.
    pub async fn catch_up(&mut self, source: &mut dyn Source) {
        source.start(self.position.as_deref()).await.unwrap();
        self.go_on(source).await;
    }

    pub async fn go_on(&mut self, source: &mut dyn Source) {
        while let Ok(batch) = tokio::time::timeout(SILENCE, source.next()).await {
            let batch = batch.unwrap();
            let text = String::from_utf8(batch.changes).unwrap();
            assert_eq!(text.lines().count(), batch.records);
            for line in text.lines() {
                // A document may hold numbers that are too large for this reader.
                self.changes.push(serde_json::from_str(line).unwrap_or_default());
                self.records.push(record(line));
            }
            self.findings
                .extend(String::from_utf8(batch.findings).unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
            self.position = Some(batch.position.clone());
            self.batches += 1;
            source.confirm(&batch.position).await.unwrap();
        }
    }

    /// `operation key` of every change, and the new value of a column.
    pub fn brief(&self, column: &str) -> Vec<String> {
        let brief = |change: &Value| {
            format!(
                "{} {} {}",
                change["operation"].as_str().unwrap(),
                change["primary_key"].as_str().unwrap(),
                change["new_values"][column]
            )
        };
        self.changes.iter().map(brief).collect()
    }
}

fn record(line: &str) -> LogRecord {
    let line: Line = serde_json::from_str(line).unwrap();
    LogRecord {
        table: line.table_name,
        operation: line.operation,
        key: line.primary_key,
        old: line.old_values.map(|raw| raw.get().to_owned()),
        new: line.new_values.map(|raw| raw.get().to_owned()),
        transaction: line.transaction_id,
        position: line.source_position,
        user: line.changed_by_username,
        attribution: line.attribution,
    }
}

pub fn server() -> PostgresServer {
    PostgresServer::start(&PostgresOptions { logical: false, ..PostgresOptions::default() }).unwrap()
}

pub fn options(tables: &[&str]) -> AttachOptions {
    let tables = tables.iter().map(|table| (*table).to_owned()).collect();
    AttachOptions { name: Some("q".into()), tables, snapshot: Baseline::None, ..AttachOptions::default() }
}

pub async fn attach(server: &PostgresServer, options: &AttachOptions) {
    let url = server.url(DATABASE);
    apply(&url, &plan(&url, options).await.unwrap()).await.unwrap();
}

pub fn source(server: &PostgresServer) -> QueueSource {
    QueueSource::new(&server.url(DATABASE), QueueOptions::new("q")).unwrap()
}

/// A server with tables, attached, and a source on it.
pub async fn attached(schema: &str, tables: &[&str]) -> (PostgresServer, QueueSource) {
    let server = server();
    server.execute(DATABASE, schema).await.unwrap();
    attach(&server, &options(tables)).await;
    let source = source(&server);
    (server, source)
}

pub async fn client(server: &PostgresServer) -> PgConnection {
    use sqlx::ConnectOptions;
    server.connect_options(DATABASE).application_name("client").connect().await.unwrap()
}

pub async fn run(connection: &mut PgConnection, sql: &str) {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}
