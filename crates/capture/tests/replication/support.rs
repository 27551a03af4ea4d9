//! A server with a slot and a publication, and somebody who stores what comes.

use muniment_capture::postgres::{Position, ReplicationConfig, ReplicationSource};
use muniment_capture::{Batch, Source};
use muniment_testkit::{PostgresOptions, PostgresServer};
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, PgConnection};
use std::time::Duration;

pub const DATABASE: &str = "postgres";

/// Starts a server, runs the statements, and creates the slot `s` and the publication `p` for all tables.
pub async fn server(sql: &str) -> PostgresServer {
    server_with(&PostgresOptions::default(), sql).await
}

pub async fn server_with(options: &PostgresOptions, sql: &str) -> PostgresServer {
    let server = PostgresServer::start(options).unwrap();
    server.execute(DATABASE, sql).await.unwrap();
    server.execute(DATABASE, "CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root = true)").await.unwrap();
    server.execute(DATABASE, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await.unwrap();
    server
}

pub fn config(server: &PostgresServer) -> ReplicationConfig {
    let mut config = ReplicationConfig::new("pg:test", server.url(DATABASE), "s", "p");
    config.idle = Duration::from_millis(200);
    config.heartbeat = None;
    config
}

/// One connection, to run statements as a client would.
pub async fn client(server: &PostgresServer, application: &str) -> PgConnection {
    use sqlx::ConnectOptions;
    server.connect_options(DATABASE).application_name(application).connect().await.unwrap()
}

pub async fn run(client: &mut PgConnection, sql: &str) {
    use sqlx::Executor;
    client.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

/// Asks for one value.
pub async fn ask(server: &PostgresServer, sql: &str) -> String {
    let mut client = client(server, "test").await;
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut client).await.unwrap()
}

pub async fn wal_end(server: &PostgresServer) -> u64 {
    ask(server, "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8::text").await.parse().unwrap()
}

/// Reads a source and keeps what it hands out, as the commit database would.
pub struct Store {
    pub source: ReplicationSource,
    pub position: Option<String>,
    pub changes: Vec<Value>,
    /// The same as text.
    pub lines: Vec<String>,
    pub findings: Vec<Value>,
    pub batches: usize,
}

fn parsed(table: &str, lines: &[u8]) -> Vec<Value> {
    if lines.is_empty() {
        return Vec::new();
    }
    let mut uuid = || [0; 16];
    let mut options = muniment_model::ParseOptions {
        now: 0,
        format: muniment_model::Format::Ndjson,
        limits: muniment_model::Limits::default(),
        uuid: &mut uuid,
        retention_years: None,
        users: None,
    };
    let records = muniment_model::parse(muniment_model::table(table).unwrap(), lines, &mut options).unwrap().records;
    let values: Vec<Value> =
        lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(values.len(), records);
    values
}

impl Store {
    pub async fn open(config: ReplicationConfig) -> Self {
        let mut store = Self::new(config);
        store.source.start(None).await.unwrap();
        store
    }

    pub fn new(config: ReplicationConfig) -> Self {
        let source = ReplicationSource::new(config).unwrap();
        Self { source, position: None, changes: Vec::new(), lines: Vec::new(), findings: Vec::new(), batches: 0 }
    }

    /// A new process that has only what was stored.
    pub async fn reopen(&mut self, config: ReplicationConfig) {
        self.source = ReplicationSource::new(config).unwrap();
        self.source.start(self.position.as_deref()).await.unwrap();
    }

    pub async fn next(&mut self) -> Batch {
        tokio::time::timeout(Duration::from_secs(30), self.source.next()).await.expect("nothing comes").unwrap()
    }

    pub fn keep(&mut self, batch: &Batch) {
        let changes = parsed("sys_audit_log", &batch.changes);
        assert_eq!(changes.len(), batch.records);
        self.changes.extend(changes);
        self.lines.extend(std::str::from_utf8(&batch.changes).unwrap().lines().map(str::to_owned));
        self.findings.extend(parsed("security_audit_log", &batch.findings));
        self.position = Some(batch.position.clone());
        self.batches += 1;
    }

    /// Stores the next batch and confirms it.
    pub async fn step(&mut self) {
        let batch = self.next().await;
        self.keep(&batch);
        self.source.confirm(&batch.position).await.unwrap();
    }

    pub fn at(&self) -> Option<Position> {
        self.position.as_ref().map(|position| position.parse().unwrap())
    }

    /// Stores everything that has been committed by now.
    pub async fn catch_up(&mut self, server: &PostgresServer) {
        let end = wal_end(server).await;
        server.execute(DATABASE, "SELECT pg_logical_emit_message(true, 'muniment.heartbeat', '')").await.unwrap();
        while self.at().is_none_or(|at| at.lsn < end || at.ordinal.is_some()) {
            self.step().await;
        }
    }

    /// The changes without what differs from run to run.
    pub fn summaries(&self) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Line<'a> {
            operation: String,
            table_name: String,
            primary_key: String,
            #[serde(borrow)]
            old_values: Option<&'a RawValue>,
            #[serde(borrow)]
            new_values: Option<&'a RawValue>,
            change_details: Option<String>,
        }
        let row = |row: Option<&RawValue>| row.map_or("-".to_owned(), |row| row.get().to_owned());
        let summary = |line: &String| {
            let line: Line<'_> = serde_json::from_str(line).unwrap();
            let details = line.change_details.unwrap_or_else(|| "-".into());
            let (old, new) = (row(line.old_values), row(line.new_values));
            format!("{} {} {} {old} {new} {details}", line.operation, line.table_name, line.primary_key)
        };
        self.lines.iter().map(summary).collect()
    }
}
