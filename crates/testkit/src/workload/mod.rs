//! A random workload on PostgreSQL: concurrent transactions on tables of every kind, replayable from a seed.
//!
//! Each step of a transaction writes a line to `shop.journal` that says who the context names at that moment, so that the journal, compared with the
//! log, shows what was lost, what was stored twice and what was attributed wrongly. Statements may fail, as two sessions get into each other's way:
//! then the whole transaction is rolled back, which is part of the test.

mod plan;
mod random;
mod state;
mod values;

use crate::error::{Result, TestkitError};
use plan::{Plan, Planner, Step};
pub use random::Random;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
pub use state::{Instant, LogRecord, Replay, Row, State};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The tables that the workload writes to, as `sys_audit_log` names them: partitioned tables by their root.
pub const TABLES: [&str; 10] = [
    "shop.everything",
    "Số liệu.Hồ sơ \"đặc biệt\", v1.0",
    "shop.measured",
    "shop.computed",
    "shop.keyless",
    "shop.toasted",
    "shop.parent",
    "shop.child",
    "shop.changing",
    "shop.journal",
];

const SCHEMA: &str = include_str!("schema.sql");
const SESSION: &str = "SET lock_timeout = '2s'; SET client_min_messages = error";
/// Pause before a lost connection is opened again.
const RECONNECT: Duration = Duration::from_millis(20);

/// Which changes of a table's own shape the workload makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ddl {
    /// None.
    None,
    /// Columns come and go; no existing value changes.
    Plain,
    /// Types change, too, which rewrites the table.
    Rewriting,
}

/// What the workload does.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// The same seed makes the same transactions; how they interleave is up to the server.
    pub seed: u64,
    /// Transactions of a hundred that begin with a context.
    pub context_percent: u64,
    /// How context is given: a statement with `{}` for the JSON text literal.
    pub context_sql: String,
    /// Whether tables are truncated.
    pub truncate: bool,
    /// Changes of tables' shape.
    pub ddl: Ddl,
    /// Whether there are values that `row_to_json` can't tell: arrays that don't begin at 1, and a JSON null that is not NULL.
    pub beyond_json: bool,
}

impl Default for WorkloadOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            context_percent: 70,
            context_sql: "SELECT muniment.context({})".to_owned(),
            truncate: true,
            ddl: Ddl::Plain,
            beyond_json: true,
        }
    }
}

/// What became of the transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The server said that they are committed.
    pub committed: u64,
    /// Rolled back as planned.
    pub rolled_back: u64,
    /// Rolled back because a statement failed.
    pub failed: u64,
    /// The connection was lost: committed or not, nobody knows but the journal.
    pub unknown: u64,
}

/// A workload on one database.
#[derive(Clone, Debug)]
pub struct Workload {
    options: Arc<WorkloadOptions>,
    connect: PgConnectOptions,
    /// The last transaction's number.
    number: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl Workload {
    /// Creates the tables.
    ///
    /// # Errors
    /// If they are there already, or the server can't be reached.
    pub async fn create(connect: PgConnectOptions, options: WorkloadOptions) -> Result<Self> {
        let mut connection = PgConnection::connect_with(&connect).await.map_err(sql_error("connect"))?;
        connection.execute(sqlx::raw_sql(SCHEMA)).await.map_err(sql_error("schema.sql"))?;
        connection.close().await.map_err(sql_error("close"))?;
        Ok(Self { options: Arc::new(options), connect, number: Arc::default(), stopped: Arc::default() })
    }

    /// Runs so many transactions in each of so many sessions at once, or fewer if [`Workload::stop`] is called. Lost connections are opened again.
    ///
    /// # Errors
    /// If a session's task ends badly.
    pub async fn run(&self, sessions: u64, transactions: u64) -> Result<Outcome> {
        let first = self.number.fetch_add(sessions * transactions, Ordering::Relaxed);
        let tasks: Vec<_> =
            (0..sessions).map(|session| tokio::spawn(self.clone().session(first + session * transactions, transactions))).collect();
        let mut outcome = Outcome::default();
        for task in tasks {
            let one = task.await.map_err(|error| TestkitError::Program { program: "workload", said: error.to_string() })?;
            outcome.committed += one.committed;
            outcome.rolled_back += one.rolled_back;
            outcome.failed += one.failed;
            outcome.unknown += one.unknown;
        }
        Ok(outcome)
    }

    /// Lets every session end after its transaction.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    async fn session(self, first: u64, transactions: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let mut connection = None;
        for number in first + 1..=first + transactions {
            let mut random = Random::new(self.options.seed.wrapping_mul(1_000_003) ^ number);
            let plan = Planner { options: &self.options, random: &mut random, number }.plan();
            let Some(mut open) = self.connection(connection.take()).await else { break };
            match execute(&mut open, &plan).await {
                Ok(true) => outcome.committed += 1,
                Ok(false) => outcome.rolled_back += 1,
                Err(sqlx::Error::Database(error)) if !error.code().is_some_and(|code| code.starts_with("57P")) => {
                    outcome.failed += 1;
                    if open.execute("ROLLBACK").await.is_err() {
                        continue;
                    }
                }
                Err(_) => {
                    outcome.unknown += 1;
                    continue;
                }
            }
            connection = Some(open);
        }
        outcome
    }

    /// The connection, or a new one as soon as the server lets us in; `None` if the workload was stopped.
    async fn connection(&self, open: Option<PgConnection>) -> Option<PgConnection> {
        let mut open = open;
        while !self.stopped.load(Ordering::Relaxed) {
            if open.is_some() {
                return open;
            }
            if let Ok(mut connection) = PgConnection::connect_with(&self.connect).await
                && connection.execute(sqlx::raw_sql(SESSION)).await.is_ok()
            {
                open = Some(connection);
            } else {
                tokio::time::sleep(RECONNECT).await;
            }
        }
        None
    }
}

async fn execute(connection: &mut PgConnection, plan: &Plan) -> Result<bool, sqlx::Error> {
    for step in &plan.steps {
        match step {
            Step::Sql(sql) => {
                connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.as_str()))).await?;
            }
            Step::Copy { into, rows } => {
                let mut copy = connection.copy_in_raw(&format!("COPY {into} FROM STDIN")).await?;
                copy.send(rows.as_bytes()).await?;
                copy.finish().await?;
            }
        }
    }
    Ok(plan.commits)
}

fn sql_error(doing: &'static str) -> impl FnOnce(sqlx::Error) -> TestkitError {
    move |source| TestkitError::Sql { sql: doing.to_owned(), source }
}
