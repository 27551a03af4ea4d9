//! What tables hold: read from the database, or replayed from the log, in one form, so that both can be compared.
//!
//! A row is its columns' texts by name, without those that are NULL: JSON numbers and strings are the text they stand for, so that this oracle shares
//! nothing with the code that it tests.

use crate::error::{Result, TestkitError};
use serde_json::value::RawValue;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, Column, Connection, Executor, PgConnection, Row as _, TypeInfo, ValueRef};
use std::collections::{BTreeMap, BTreeSet};

/// Attempts to lock all tables, which the workload locks in another order.
const LOCK_ATTEMPTS: usize = 100;

/// A row: its columns' texts.
pub type Row = BTreeMap<String, String>;

/// The contents of tables. A row is told from its equals by number: tables without a key may hold a row twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Table, then row, then how often it is there.
    pub tables: BTreeMap<String, BTreeMap<Row, usize>>,
}

impl State {
    /// The differences to another state, at most so many, as text: `-` is only here, `+` only there.
    pub fn differences(&self, other: &Self, limit: usize) -> Vec<String> {
        let mut found = Vec::new();
        let empty = BTreeMap::new();
        for table in self.tables.keys().chain(other.tables.keys().filter(|table| !self.tables.contains_key(*table))) {
            let (ours, theirs) = (self.tables.get(table).unwrap_or(&empty), other.tables.get(table).unwrap_or(&empty));
            for (sign, rows, counter) in [('-', ours, theirs), ('+', theirs, ours)] {
                let differ = rows.iter().filter(|(row, count)| counter.get(*row).unwrap_or(&0) < *count);
                found.extend(differ.map(|(row, count)| format!("{sign} {table} {count} × {}", shorten(row))));
            }
        }
        found.truncate(limit);
        found
    }

    /// Adds a row.
    pub fn add(&mut self, table: &str, row: Row) {
        *self.tables.entry(table.to_owned()).or_default().entry(row).or_default() += 1;
    }

    /// Number of rows of all tables.
    pub fn rows(&self) -> usize {
        self.tables.values().flat_map(BTreeMap::values).sum()
    }
}

fn shorten(row: &Row) -> String {
    let shown = row.iter().map(|(name, text)| format!("{name}={}", text.chars().take(60).collect::<String>()));
    shown.collect::<Vec<_>>().join(" | ")
}

/// An instant of a database: its tables' contents, and which transactions they include.
#[derive(Clone, Debug)]
pub struct Instant {
    /// The contents.
    pub state: State,
    columns: BTreeMap<String, BTreeSet<String>>,
    xmax: u64,
    running: Vec<u64>,
}

impl Instant {
    /// Reads tables, named as `sys_audit_log` names them, in one snapshot.
    ///
    /// # Errors
    /// If they can't be read.
    pub async fn read(connect: &PgConnectOptions, tables: &[&str]) -> Result<Self> {
        let mut connection = PgConnection::connect_with(connect).await.map_err(failed("connect"))?;
        let settings = "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET extra_float_digits = 1; SET search_path = 'pg_catalog'; SET lock_timeout = '200ms'";
        connection.execute(sqlx::raw_sql(settings)).await.map_err(failed(settings))?;
        lock(&mut connection, tables).await?;
        let snapshot: String =
            sqlx::query_scalar("SELECT pg_current_snapshot()::text").fetch_one(&mut connection).await.map_err(failed("snapshot"))?;
        let (mut state, mut columns) = (State::default(), BTreeMap::new());
        for table in tables {
            let (schema, name) = table.split_once('.').unwrap_or(("public", table));
            let sql = format!("SELECT * FROM {}.{}", quoted(schema), quoted(name));
            let names = "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
            let names = sqlx::query_scalar(names).bind(format!("{}.{}", quoted(schema), quoted(name)));
            let names: BTreeSet<String> = names.fetch_all(&mut connection).await.map_err(failed(&sql))?.into_iter().collect();
            // In the simple protocol every value comes as its type's own text.
            let rows = sqlx::raw_sql(AssertSqlSafe(sql.as_str())).fetch_all(&mut connection).await.map_err(failed(&sql))?;
            state.tables.insert((*table).to_owned(), BTreeMap::new());
            for row in rows {
                state.add(table, live_row(&row, &names).map_err(failed(&sql))?);
            }
            columns.insert((*table).to_owned(), names);
        }
        connection.close().await.map_err(failed("close"))?;
        let mut parts = snapshot.split(':').skip(1);
        let xmax = parts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let running = parts.next().unwrap_or_default().split(',').filter_map(|text| text.parse().ok()).collect();
        Ok(Self { state, columns, xmax, running })
    }

    /// Whether what this transaction did is part of the contents.
    pub fn includes(&self, transaction: u64) -> bool {
        transaction < self.xmax && !self.running.contains(&transaction)
    }
}

/// Begins a transaction with a lock on all tables, before its snapshot: to a snapshot that is older than a TRUNCATE, the table looks empty, as if it saw it.
async fn lock(connection: &mut PgConnection, tables: &[&str]) -> Result<()> {
    let names = tables.iter().map(|table| table.split_once('.').unwrap_or(("public", table)));
    let names = names.map(|(schema, name)| format!("{}.{}", quoted(schema), quoted(name))).collect::<Vec<_>>().join(", ");
    let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {names} IN ACCESS SHARE MODE");
    let mut attempt = 1;
    loop {
        match connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.as_str()))).await {
            Ok(_) => return Ok(()),
            Err(sqlx::Error::Database(_)) if attempt < LOCK_ATTEMPTS => {
                connection.execute("ROLLBACK").await.map_err(failed("ROLLBACK"))?;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(error) => return Err(failed(&sql)(error)),
        }
        attempt += 1;
    }
}

fn live_row(row: &PgRow, names: &BTreeSet<String>) -> Result<Row, sqlx::Error> {
    let mut columns = Row::new();
    for column in row.columns().iter().filter(|column| names.contains(column.name())) {
        let value = row.try_get_raw(column.ordinal())?;
        if value.is_null() {
            continue;
        }
        let text = value.as_str().map_err(sqlx::Error::Decode)?;
        let is_json = matches!(column.type_info().name(), "JSON" | "JSONB");
        let text = if is_json { document(text) } else { text.to_owned() };
        columns.insert(column.name().to_owned(), text);
    }
    Ok(columns)
}

/// The text of a value of a JSON column.
fn document(json: &str) -> String {
    plain(&json.replace(|c: char| c < ' ', " ")).unwrap_or_else(|| "a JSON null".to_owned())
}

/// The text that a JSON value stands for; `None` for null.
fn plain(json: &str) -> Option<String> {
    match json {
        "null" => None,
        "true" => Some("t".to_owned()),
        "false" => Some("f".to_owned()),
        text => Some(serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned())),
    }
}

/// A record of `sys_audit_log`, as far as replaying needs it.
#[derive(Clone, Debug, Default)]
pub struct LogRecord {
    /// `table_name`
    pub table: String,
    /// `operation`
    pub operation: String,
    /// `primary_key`
    pub key: String,
    /// `old_values`
    pub old: Option<String>,
    /// `new_values`
    pub new: Option<String>,
    /// `transaction_id`
    pub transaction: Option<String>,
    /// `source_position`
    pub position: Option<String>,
    /// `changed_by_username`
    pub user: Option<String>,
    /// `attribution`
    pub attribution: Option<String>,
}

impl LogRecord {
    /// The columns to ask for.
    pub const COLUMNS: &str =
        "table_name, operation, primary_key, old_values, new_values, transaction_id, source_position, changed_by_username, attribution";

    /// Reads a row of a result: an object with these columns.
    pub fn parse(row: &serde_json::Value) -> Self {
        let some = |name: &str| row[name].as_str().map(str::to_owned);
        let text = |name: &str| some(name).unwrap_or_default();
        Self {
            table: text("table_name"),
            operation: text("operation"),
            key: text("primary_key"),
            old: some("old_values"),
            new: some("new_values"),
            transaction: some("transaction_id"),
            position: some("source_position"),
            user: some("changed_by_username"),
            attribution: some("attribution"),
        }
    }

    /// The source's number of the transaction: `<source>:<number>@<position>`.
    pub fn transaction_number(&self) -> Option<u64> {
        self.transaction.as_deref()?.rsplit_once('@')?.0.rsplit_once(':')?.1.parse().ok()
    }
}

/// Replays records in the log's order. Every change of a row must carry the whole row as it was, as it does with full replica identity: keys play no
/// part, so that tables without one are replayed, too.
#[derive(Debug, Default)]
pub struct Replay {
    state: State,
}

impl Replay {
    /// Applies one record.
    ///
    /// # Errors
    /// If it doesn't fit what came before: a row changed or deleted that isn't there.
    pub fn apply(&mut self, record: &LogRecord) -> Result<(), String> {
        let changes_row = matches!(record.operation.as_str(), "INSERT" | "SNAPSHOT" | "UPDATE" | "DELETE");
        if record.operation == "TRUNCATE" {
            self.state.tables.remove(&record.table);
        }
        let rows = self.state.tables.entry(record.table.clone()).or_default();
        if let Some(old) = record.old.as_deref().filter(|_| changes_row)
            && !take(rows, &parse(old)?)
        {
            return Err(format!("a change of a row that isn't there: {record:?}"));
        }
        if let Some(new) = record.new.as_deref().filter(|_| changes_row) {
            let new = parse(new)?.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
            self.state.add(&record.table, new);
        }
        Ok(())
    }

    /// The contents so far.
    pub fn all(&self) -> &State {
        &self.state
    }

    /// The contents so far of the tables and columns that an instant has: what was dropped since then says nothing in the log.
    pub fn state(&self, like: &Instant) -> State {
        let mut state = State::default();
        for (table, columns) in &like.columns {
            state.tables.insert(table.clone(), BTreeMap::new());
            for (row, count) in self.state.tables.get(table).into_iter().flatten() {
                let row: Row = row
                    .iter()
                    .filter(|(name, _)| columns.contains(name.as_str()))
                    .map(|(name, text)| (name.clone(), text.clone()))
                    .collect();
                (0..*count).for_each(|_| state.add(table, row.clone()));
            }
        }
        state
    }
}

/// What a member of a row stands for; `None` for NULL.
fn logged(member: &str) -> Option<String> {
    let text = member.strip_prefix("{\"$json\":").and_then(|rest| serde_json::from_str::<String>(rest.strip_suffix('}')?).ok());
    text.map_or_else(|| plain(member), |text| Some(document(&text)))
}

/// Members of a row, `None` for null.
fn parse(json: &str) -> Result<BTreeMap<String, Option<String>>, String> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).map_err(|error| format!("{error}: {json}"))?;
    Ok(members.into_iter().map(|(name, value)| (name, logged(value.get()))).collect())
}

/// Removes a row that agrees in all these columns.
fn take(rows: &mut BTreeMap<Row, usize>, old: &BTreeMap<String, Option<String>>) -> bool {
    let exact: Row = old.iter().filter_map(|(name, text)| Some((name.clone(), text.clone()?))).collect();
    let agrees = |row: &Row| old.iter().all(|(name, text)| row.get(name) == text.as_ref());
    let found = if rows.contains_key(&exact) { Some(exact) } else { rows.keys().find(|row| agrees(row)).cloned() };
    let Some(found) = found else { return false };
    if let Some(count) = rows.get_mut(&found) {
        *count -= 1;
        if *count == 0 {
            rows.remove(&found);
        }
    }
    true
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn failed(sql: &str) -> impl FnOnce(sqlx::Error) -> TestkitError + '_ {
    move |source| TestkitError::Sql { sql: sql.chars().take(200).collect(), source }
}
