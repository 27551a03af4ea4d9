//! Attaching an SQLite file, and detaching it.

use super::triggers::{TableDescription, identifier, image, literal, named_statements};
use crate::error::{CaptureError, Result};
use crate::plan::{AttachOptions, Baseline, Level, Plan, Statement, check_name, default_name};
use crate::postgres::patterns::{ColumnPattern, TablePattern, column_patterns, table_patterns};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The oldest SQLite whose JSON functions are always there.
const OLDEST_VERSION: &str = "3.38";
const BUSY: Duration = Duration::from_secs(20);

/// Connection to an existing file, named by its path or as `sqlite:path`.
pub(super) async fn connect(url: &str) -> Result<SqliteConnection> {
    let options = options(url)?.create_if_missing(false).busy_timeout(BUSY).foreign_keys(true);
    options.connect().await.map_err(CaptureError::database("opening the database file"))
}

fn options(url: &str) -> Result<SqliteConnectOptions> {
    let url = if url.starts_with("sqlite:") { url.to_owned() } else { format!("sqlite:{url}") };
    SqliteConnectOptions::from_str(&url).map_err(CaptureError::database("reading the URL of a database file"))
}

/// Where a URL's file is.
pub(super) fn path(url: &str) -> Result<PathBuf> {
    Ok(options(url)?.get_filename().to_owned())
}

fn doing(text: &'static str) -> impl Fn(sqlx::Error) -> CaptureError {
    move |source| CaptureError::Database { doing: text.to_owned(), source }
}

/// Describes a table, with no column left out or masked.
///
/// # Errors
/// If the database can't be asked.
pub async fn describe(connection: &mut SqliteConnection, table: &str) -> Result<TableDescription> {
    let mut description = TableDescription { name: table.to_owned(), ..TableDescription::default() };
    let mut key = Vec::new();
    let rows =
        sqlx::query("SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid").bind(table).fetch_all(connection).await;
    for row in rows.map_err(doing("describing a table"))? {
        let (name, place): (String, i64) = (row.get("name"), row.get("pk"));
        if place > 0 {
            key.push((place, name.clone()));
        }
        description.columns.push(name);
    }
    key.sort();
    description.key = key.into_iter().map(|(_, name)| name).collect();
    Ok(description)
}

/// A column of the schema of an SQLite file: patterns may call it `main`, or nothing.
fn matches_table(pattern: &TablePattern, table: &str) -> bool {
    let table = table.to_lowercase();
    pattern.matches("main", &table) || pattern.matches("public", &table)
}

fn matches_column(pattern: &ColumnPattern, table: &str, column: &str) -> bool {
    let (table, column) = (table.to_lowercase(), column.to_lowercase());
    pattern.matches("main", &table, &column) || pattern.matches("public", &table, &column)
}

/// Names in patterns, as SQLite compares them: without case.
fn without_case(patterns: &[String]) -> Vec<String> {
    patterns.iter().map(|pattern| pattern.to_lowercase()).collect()
}

/// Looks at the file and says what attaching will do. Attaching again adds tables.
///
/// # Errors
/// If the file can't be read, or the options are not valid.
pub async fn plan(url: &str, options: &AttachOptions) -> Result<Plan> {
    let stem = std::path::Path::new(url.trim_start_matches("sqlite:")).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut plan = Plan::new(options.name.clone().unwrap_or_else(|| default_name("sqlite", stem.as_deref().unwrap_or("file"))));
    check_name(&plan.name)?;
    let patterns = table_patterns(&without_case(&options.tables))?;
    let (excluded, masked) =
        (column_patterns(&without_case(&options.exclude_columns))?, column_patterns(&without_case(&options.mask_columns))?);
    let with_rows = options.snapshot == Baseline::Initial;
    let mut connection = connect(url).await?;
    if let Some(other) = other_reader(&mut connection, &plan.name).await? {
        plan.find(Level::Refusal, "queue", format!("this file has a queue already, which is read as {other}"));
    }
    let names = names(&mut connection).await?;
    let known = known(&mut connection).await?;
    plan.is_registered = !known.is_empty();
    let mut tables = Vec::new();
    for name in names.iter().filter(|name| patterns.iter().any(|pattern| matches_table(pattern, name))) {
        let mut table = describe(&mut connection, name).await?;
        hide(&mut table, &excluded, &masked);
        let is_hidden = |column: &str| table.excluded.iter().chain(&table.masked).any(|hidden| hidden == column);
        plan.judge_key(name, &table.key, is_hidden);
        tables.push(table);
    }
    for pattern in patterns.iter().filter(|pattern| pattern.is_exact() && !names.iter().any(|name| matches_table(pattern, name))) {
        plan.find(Level::Refusal, pattern.names().1, "there is no such table");
    }
    let version: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await.map_err(doing("asking for the version"))?;
    plan.find(Level::Note, "SQLite", format!("programs that write to this file need SQLite {OLDEST_VERSION} or later (here: {version})"));
    let text = "INSERT OR REPLACE removes rows without firing triggers unless the program sets PRAGMA recursive_triggers = ON";
    plan.find(Level::Note, "REPLACE", text);
    plan.transaction
        .push(Statement::new(include_str!("sql/install.sql"), "The queue, and the table by which a transaction says who acts."));
    let why = "Numbers begin with the time in µs: what is attached again doesn't use one twice.";
    plan.transaction.push(Statement::new(include_str!("sql/begin_numbers.sql"), why));
    let reader = include_str!("sql/install_reader.sql").replace("{name}", &literal(&plan.name));
    plan.transaction.push(Statement::new(reader, "The reader."));
    for table in tables {
        plan.tables.push(format!("main.{}", table.name));
        plan.transaction.extend(table_statements(&table));
        if with_rows && !known.contains(&table.name) {
            plan.transaction.push(Statement::new(
                baseline(&table),
                "Rows that are there now are recorded first. Nobody else writes to the file meanwhile.",
            ));
        }
    }
    let json = |list: &[String]| literal(&serde_json::json!(list).to_string());
    let lists = [&options.tables, &options.exclude_columns, &options.mask_columns].map(|list| json(list)).join(", ");
    let sql = format!("INSERT INTO muniment_audit_pattern (tables, excluded, masked, with_rows) VALUES ({lists}, {with_rows})");
    plan.transaction.push(Statement::new(sql, "By which new tables are taken in."));
    let _ = connection.close().await;
    Ok(plan)
}

/// Tables of the file that can be audited, by name.
pub(super) async fn names(connection: &mut SqliteConnection) -> Result<Vec<String>> {
    // What virtual tables keep their rows in is theirs alone: triggers there make programs fail.
    let names = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                 AND name NOT LIKE 'muniment\\_%' ESCAPE '\\' ORDER BY name";
    sqlx::query_scalar(names).fetch_all(connection).await.map_err(doing("listing tables"))
}

/// Whether a table of ours is in the file.
pub(super) async fn is_installed(connection: &mut SqliteConnection, table: &str) -> Result<bool> {
    let installed = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?)").bind(table);
    installed.fetch_one(connection).await.map_err(doing("looking for a queue"))
}

/// Tables that are audited already.
async fn known(connection: &mut SqliteConnection) -> Result<Vec<String>> {
    if !is_installed(connection, "muniment_audit_table").await? {
        return Ok(Vec::new());
    }
    let known = sqlx::query_scalar("SELECT table_name FROM muniment_audit_table WHERE NOT is_gone");
    known.fetch_all(connection).await.map_err(doing("looking at what is audited"))
}

/// Notes which of a table's columns are left out or masked.
fn hide(table: &mut TableDescription, excluded: &[ColumnPattern], masked: &[ColumnPattern]) {
    let of = |patterns: &[ColumnPattern]| {
        table.columns.iter().filter(|column| patterns.iter().any(|pattern| matches_column(pattern, &table.name, column))).cloned().collect()
    };
    (table.excluded, table.masked) = (of(excluded), of(masked));
}

/// A statement that puts all rows of a table into the queue.
pub(super) fn baseline(table: &TableDescription) -> String {
    format!(
        "INSERT INTO muniment_audit_queue (table_name, operation, new_row) SELECT {}, 'SNAPSHOT', {} FROM {} AS t",
        literal(&format!("main.{}", table.name)),
        image(table, "t"),
        identifier(&table.name)
    )
}

/// What a new table is taken in by.
pub(super) struct Patterns {
    tables: Vec<TablePattern>,
    excluded: Vec<ColumnPattern>,
    masked: Vec<ColumnPattern>,
    /// Whether rows are recorded that were there before.
    pub(super) with_rows: bool,
}

impl Patterns {
    /// Those that the file was attached with; none if that was before they were kept.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self> {
        let mut patterns = Self { tables: Vec::new(), excluded: Vec::new(), masked: Vec::new(), with_rows: false };
        if !is_installed(connection, "muniment_audit_pattern").await? {
            return Ok(patterns);
        }
        let rows = sqlx::query("SELECT tables, excluded, masked, with_rows FROM muniment_audit_pattern").fetch_all(connection).await;
        for row in rows.map_err(doing("reading the patterns"))? {
            let list = |column: &str| serde_json::from_str::<Vec<String>>(row.get(column)).unwrap_or_default();
            patterns.tables.extend(table_patterns(&without_case(&list("tables")))?);
            patterns.excluded.extend(column_patterns(&without_case(&list("excluded")))?);
            patterns.masked.extend(column_patterns(&without_case(&list("masked")))?);
            patterns.with_rows |= row.get::<bool, _>("with_rows");
        }
        Ok(patterns)
    }

    /// Whether they take in a table of this name.
    pub(super) fn take_in(&self, table: &str) -> bool {
        self.tables.iter().any(|pattern| matches_table(pattern, table))
    }

    /// Notes which of a table's columns they leave out or mask, besides those that are noted.
    pub(super) fn hide(&self, table: &mut TableDescription) {
        let (excluded, masked) = (std::mem::take(&mut table.excluded), std::mem::take(&mut table.masked));
        hide(table, &self.excluded, &self.masked);
        let add = |hidden: &mut Vec<String>, before: Vec<String>| {
            hidden.extend(before);
            hidden.sort();
            hidden.dedup();
        };
        add(&mut table.excluded, excluded);
        add(&mut table.masked, masked);
    }
}

/// The name under which the queue is read, if it is not this one: it can have one reader.
async fn other_reader(connection: &mut SqliteConnection, name: &str) -> Result<Option<String>> {
    if !is_installed(connection, "muniment_audit_state").await? {
        return Ok(None);
    }
    let other = sqlx::query_scalar("SELECT name FROM muniment_audit_state WHERE name <> ? LIMIT 1").bind(name);
    other.fetch_optional(connection).await.map_err(doing("looking for a queue"))
}

/// The statements that put triggers on a table, in place of earlier ones.
pub(super) fn table_statements(table: &TableDescription) -> Vec<Statement> {
    let mut statements = Vec::new();
    for (name, text) in named_statements(table) {
        statements.push(Statement::new(format!("DROP TRIGGER IF EXISTS {}", identifier(&name)), "An earlier one is replaced."));
        statements.push(Statement::new(text, format!("Changes of {} are written to the queue.", table.name)));
    }
    let json = |list: &[String]| literal(&serde_json::json!(list).to_string());
    let lists = [&table.excluded, &table.masked, &table.columns, &table.key].map(|list| json(list)).join(", ");
    let columns = "table_name, excluded, masked, columns, key";
    let sql = format!("INSERT OR REPLACE INTO muniment_audit_table ({columns}) VALUES ({}, {lists})", literal(&table.name));
    statements.push(Statement::new(sql, "What is attached."));
    statements
}

/// Puts the queue and a table's triggers in place within whatever transaction the connection has.
///
/// # Errors
/// If the database refuses a statement.
pub async fn attach_on(connection: &mut SqliteConnection, tables: &[TableDescription]) -> Result<()> {
    sqlx::raw_sql(include_str!("sql/install.sql")).execute(&mut *connection).await.map_err(doing("creating the queue"))?;
    for statement in tables.iter().flat_map(table_statements) {
        sqlx::raw_sql(AssertSqlSafe(statement.sql)).execute(&mut *connection).await.map_err(doing("creating a trigger"))?;
    }
    Ok(())
}

/// Puts the queue in place, and the triggers of those tables that have none yet or whose masked columns are others now. What else is missing or changed is for the
/// reader to find, which reports it.
///
/// # Errors
/// If the file can't be opened, or refuses a statement.
pub async fn audit(url: &str, tables: &[TableDescription]) -> Result<()> {
    let mut connection = connect(url).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(doing("beginning"))?;
    sqlx::raw_sql(include_str!("sql/install.sql")).execute(&mut *transaction).await.map_err(doing("creating the queue"))?;
    let rows = sqlx::query("SELECT table_name, masked FROM muniment_audit_table").fetch_all(&mut *transaction).await;
    let known: HashMap<String, String> =
        rows.map_err(doing("looking at what is audited"))?.iter().map(|row| (row.get("table_name"), row.get("masked"))).collect();
    let masked = |table: &TableDescription| serde_json::json!(table.masked).to_string();
    let new: Vec<_> = tables.iter().filter(|table| known.get(&table.name) != Some(&masked(table))).cloned().collect();
    attach_on(&mut transaction, &new).await?;
    transaction.commit().await.map_err(doing("committing"))?;
    let _ = connection.close().await;
    Ok(())
}

/// Does what a plan says, all of it or nothing.
///
/// # Errors
/// If something is in the way, or the database refuses a statement.
pub async fn apply(url: &str, plan: &Plan) -> Result<()> {
    plan.permitted()?;
    run(url, &plan.transaction).await
}

/// Takes the triggers away, so that nothing more is written to the queue, as the plan for detaching says.
///
/// # Errors
/// If the database refuses a statement.
pub async fn end(url: &str, plan: &Plan) -> Result<()> {
    run(url, &plan.before).await
}

async fn run(url: &str, statements: &[Statement]) -> Result<()> {
    let mut connection = connect(url).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(doing("beginning"))?;
    for statement in statements {
        let text = AssertSqlSafe(statement.sql.clone());
        sqlx::raw_sql(text).execute(&mut *transaction).await.map_err(statement.failed())?;
    }
    transaction.commit().await.map_err(doing("committing"))?;
    let _ = connection.close().await;
    Ok(())
}

/// What detaching will do: the triggers go; then, when what is queued has been read, the queue.
///
/// # Errors
/// If the file can't be read, or has no queue.
pub async fn detach(url: &str, name: &str) -> Result<Plan> {
    let mut plan = Plan::new(name);
    let mut connection = connect(url).await?;
    let pending = "SELECT count(*) FILTER (WHERE NOT q.is_dead AND q.id > (SELECT processed FROM muniment_audit_state WHERE name = ?)), \
                   count(*) FILTER (WHERE q.is_dead) FROM muniment_audit_queue q";
    let row = sqlx::query(pending).bind(name).fetch_one(&mut connection).await.map_err(doing("looking at the queue"))?;
    plan.find_waiting(row.get(0), row.get(1));
    let ending = "UPDATE muniment_audit_state SET schema_version = -1";
    plan.before.push(Statement::new(ending, "Nobody puts the triggers back."));
    let triggers =
        "SELECT name, tbl_name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'muniment\\_%' ESCAPE '\\' ORDER BY tbl_name, name";
    for row in sqlx::query(triggers).fetch_all(&mut connection).await.map_err(doing("listing triggers"))? {
        let (trigger, table): (String, String) = (row.get("name"), row.get("tbl_name"));
        plan.tables.push(format!("main.{table}"));
        let sql = format!("DROP TRIGGER IF EXISTS {}", identifier(&trigger));
        plan.before.push(Statement::new(sql, "Changes are not captured any more."));
    }
    plan.tables.dedup();
    plan.transaction.push(Statement::new(include_str!("sql/remove.sql"), "Nothing of Muniment's stays."));
    let _ = connection.close().await;
    Ok(plan)
}
