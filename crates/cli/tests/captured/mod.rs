//! A PostgreSQL server, a running `muniment serve`, and what is asked of both.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared by several tests; a failed step is a failed test")]

use crate::support::{Client, ServerProcess, muniment};
use muniment_testkit::workload::{Instant, LogRecord, Replay};
use muniment_testkit::{PASSWORD, PostgresOptions, PostgresServer};
use serde_json::{Value, json};
use std::ops::{Deref, DerefMut};
use std::process::Output;
use std::time::Duration;
use tempfile::TempDir;

pub const DATABASE: &str = "postgres";
pub const SOURCE: &str = "pg:postgres";
/// How long capture may take to store what is committed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running `muniment serve` on a folder of its own.
pub struct Service {
    pub muniment: ServerProcess,
    pub folder: TempDir,
}

impl Service {
    /// Starts it on an empty folder.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let muniment = ServerProcess::start(&folder.path().join("data"), &[]);
        Self { muniment, folder }
    }

    /// Starts it again, after it was killed.
    pub fn start_again(&mut self) {
        self.muniment = ServerProcess::start(&self.muniment.data.clone(), &[]);
    }

    /// Runs a command of Muniment on the data folder.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let output = muniment().arg("--data").arg(&self.muniment.data).args(arguments).current_dir(self.folder.path()).output().unwrap();
        let printed = [output.stdout.as_slice(), output.stderr.as_slice()].map(String::from_utf8_lossy).concat();
        assert!(!printed.contains(PASSWORD), "the password is printed: {printed}");
        output
    }

    /// Standard output of a command that must succeed.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The rows that a question in SQL is answered with.
    pub fn ask(&self, query: &str) -> Vec<Value> {
        let body = json!({ "query": query }).to_string();
        let headers = [("Content-Type", "application/json"), ("Accept", "application/x-ndjson")];
        let (status, answer) = Client::new(&self.muniment.address).request("POST", "/api/v1/sql", &body, &headers).unwrap();
        assert_eq!(status, 200, "{answer}");
        answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until a table's row is in the log.
    pub async fn is_logged(&self, table: &str, key: &str) {
        let question = format!("SELECT count(*) AS n FROM sys_audit_log WHERE table_name = '{table}' AND primary_key = '{key}'");
        let began = std::time::Instant::now();
        while self.ask(&question)[0]["n"] == 0 {
            assert!(began.elapsed() < PATIENCE, "not captured: {}", self.succeed(&["sources"]));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Records of the log in its order, but for those of the marker.
    pub fn log(&self, condition: &str) -> Vec<LogRecord> {
        let mut rows = self.ask(&format!(
            "SELECT CAST(recorded_at AS BIGINT) AS at, stream_index, {} FROM sys_audit_log WHERE table_name <> 'public.marker' AND table_name NOT LIKE 'muniment.%' AND {condition}",
            LogRecord::COLUMNS
        ));
        rows.sort_by_key(|row| (row["at"].as_i64().unwrap(), row["stream_index"].as_i64().unwrap()));
        rows.iter().map(LogRecord::parse).collect()
    }

    /// Each record as `operation table key old → new`.
    pub fn story(&self) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let tell = |record: &LogRecord| {
            format!("{} {} {} {} → {}", record.operation, record.table, record.key, text(&record.old), text(&record.new))
        };
        self.log("true").iter().map(tell).collect()
    }

    /// What was found, as `event_type resource username`.
    pub fn findings(&self) -> Vec<String> {
        let rows =
            self.ask("SELECT event_type, resource_accessed, username FROM security_audit_log WHERE requires_investigation ORDER BY id");
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        rows.iter()
            .map(|row| format!("{} {} {}", text(&row["event_type"]), text(&row["resource_accessed"]), text(&row["username"])))
            .collect()
    }

    /// Waits for a finding that begins like this.
    pub async fn finding(&self, begin: &str) -> String {
        let began = std::time::Instant::now();
        loop {
            let findings = self.findings();
            if let Some(found) = findings.iter().find(|finding| finding.starts_with(begin)) {
                return found.clone();
            }
            assert!(began.elapsed() < PATIENCE, "no {begin} among {findings:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A PostgreSQL server, and the service that captures it. Those who use it run on several threads, since commands block.
pub struct Audited {
    pub server: PostgresServer,
    service: Service,
    marker: u64,
}

impl Deref for Audited {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl DerefMut for Audited {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}

impl Audited {
    /// Starts both; nothing is attached yet.
    pub async fn start(options: &PostgresOptions) -> Self {
        let server = PostgresServer::start(options).unwrap();
        server.execute(DATABASE, "CREATE TABLE marker (id bigint PRIMARY KEY)").await.unwrap();
        Self { server, service: Service::start(), marker: 0 }
    }

    /// Both, with the tables of a script, attached with these arguments.
    pub async fn with(script: &str, attach: &[&str]) -> Self {
        let audited = Self::start(&PostgresOptions::default()).await;
        audited.sql(script).await;
        audited.attach(attach);
        audited
    }

    /// Runs a script in the database; one transaction if it says nothing else.
    pub async fn sql(&self, script: &str) {
        self.server.execute(DATABASE, script).await.unwrap();
    }

    /// `muniment attach` with the marker table and these arguments; without a baseline, unless they ask for one.
    pub fn attach(&self, arguments: &[&str]) -> String {
        self.attach_at(&self.server.url(DATABASE), arguments)
    }

    /// The same by another URL of the database.
    pub fn attach_at(&self, url: &str, arguments: &[&str]) -> String {
        let mut all = vec!["attach", url, "--table", "public.marker"];
        if !arguments.contains(&"--snapshot") {
            all.extend(["--snapshot", "none"]);
        }
        all.extend(arguments);
        self.succeed(&all)
    }

    /// Waits until everything that is committed now is in the log.
    pub async fn caught_up(&mut self) {
        self.marker += 1;
        let marker = self.marker;
        self.sql(&format!("INSERT INTO marker VALUES ({marker})")).await;
        self.is_logged("public.marker", &marker.to_string()).await;
    }
}

/// Checks that the records of the transactions that an instant includes add up to what the tables held then.
pub fn check_instant(log: &[LogRecord], instant: &Instant, what: &str) {
    let mut replay = Replay::default();
    for record in log
        .iter()
        .filter(|record| record.operation == "SNAPSHOT" || record.transaction_number().is_some_and(|number| instant.includes(number)))
    {
        replay.apply(record).unwrap_or_else(|error| panic!("{what}: {}", error.chars().take(2000).collect::<String>()));
    }
    let differences = replay.state(instant).differences(&instant.state, 10);
    assert!(differences.is_empty(), "{what}: the log (-) differs from the tables (+): {differences:#?}");
}

/// Checks the workload's journal against the log: each committed step once, none that was rolled back, and each with the user whom its context names.
pub fn check_journal(log: &[LogRecord], instant: &Instant) {
    let parse = |record: &LogRecord| -> Value { serde_json::from_str(record.new.as_deref().unwrap()).unwrap() };
    let mut logged: Vec<String> = Vec::new();
    for record in log.iter().filter(|record| record.table == "shop.journal") {
        assert_eq!(record.operation, "INSERT", "{record:?}");
        let row = parse(record);
        match row["user_name"].as_str() {
            Some(user) => {
                assert_eq!((record.user.as_deref(), record.attribution.as_deref()), (Some(user), Some("APPLICATION")), "{record:?}")
            }
            None => assert_ne!(record.attribution.as_deref(), Some("APPLICATION"), "{record:?}"),
        }
        logged.push(record.key.clone());
    }
    let mut committed: Vec<String> = instant.state.tables["shop.journal"].keys().map(|row| row["id"].clone()).collect();
    logged.sort_unstable();
    committed.sort_unstable();
    assert!(
        logged == committed,
        "{} steps are logged, {} are committed; {:?}",
        logged.len(),
        committed.len(),
        first_difference(&logged, &committed)
    );
}

fn first_difference(logged: &[String], committed: &[String]) -> Option<(Option<String>, Option<String>)> {
    let at = (0..logged.len().max(committed.len())).find(|at| logged.get(*at) != committed.get(*at))?;
    Some((logged.get(at).cloned(), committed.get(at).cloned()))
}

/// Checks that positions only grow: commit by commit, and within a commit change by change.
pub fn check_positions(log: &[LogRecord]) {
    let position = |record: &LogRecord| {
        let text = record.position.clone().unwrap();
        let (_, place) = text.rsplit_once(':').unwrap();
        let parts: Vec<u64> = place
            .split('/')
            .enumerate()
            .map(|(at, part)| u64::from_str_radix(part, if at == 1 || at == 2 { 16 } else { 10 }).unwrap())
            .collect();
        assert_eq!(parts.len(), 4, "{text}");
        parts
    };
    for pair in log.windows(2).filter(|pair| pair.iter().all(|record| record.operation != "SNAPSHOT")) {
        assert!(position(&pair[0]) < position(&pair[1]), "{:?} then {:?}", pair[0].position, pair[1].position);
    }
}
