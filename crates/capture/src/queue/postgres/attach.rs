//! Attaching a database by triggers, and detaching it.

use crate::error::{CaptureError, Result};
use crate::plan::{AttachOptions, Baseline, Level, Plan, Statement, check_name, default_name};
use crate::postgres::Server;
use crate::postgres::attach::{INSTALL_AT_WORK, INSTALL_STATEMENTS, impatient, quiet};
use crate::postgres::detach::remove_schema;
use crate::postgres::patterns::{ColumnPattern, TablePattern, column_patterns, literal, qualified, table_patterns};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

/// The oldest server that can tell what is visible in a stored snapshot, and copies triggers to partitions as they are.
const OLDEST_VERSION: i32 = 140_000;

struct Facts {
    version: i32,
    in_recovery: bool,
    is_superuser: bool,
    may_create: bool,
    owns_schema: bool,
    is_replicated: bool,
    is_queued: bool,
    is_older: bool,
}

impl Facts {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            version: row.try_get("version")?,
            in_recovery: row.try_get("in_recovery")?,
            is_superuser: row.try_get("is_superuser")?,
            may_create: row.try_get("may_create")?,
            owns_schema: row.try_get("owns_schema")?,
            is_replicated: row.try_get("is_replicated")?,
            is_queued: row.try_get("is_queued")?,
            is_older: row.try_get("is_older")?,
        })
    }
}

struct Candidate {
    schema: String,
    table: String,
    kind: String,
    persistence: String,
    is_owned: bool,
    is_partition: bool,
    key: Vec<String>,
    is_attached: bool,
}

impl Candidate {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            schema: row.try_get("schema_name")?,
            table: row.try_get("table_name")?,
            kind: row.try_get("kind")?,
            persistence: row.try_get("persistence")?,
            is_owned: row.try_get("is_owned")?,
            is_partition: row.try_get("is_partition")?,
            key: row.try_get("key")?,
            is_attached: row.try_get("is_attached")?,
        })
    }

    fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// Looks at the database and says what attaching by triggers will do. Attaching again under the same name adds tables.
///
/// # Errors
/// If the database can't be asked, or the options are not valid. What is in the way is among the findings.
pub async fn plan(url: &str, options: &AttachOptions) -> Result<Plan> {
    let server = Server::parse(url)?;
    let name = options.name.clone().unwrap_or_else(|| default_name("pg", server.database()));
    check_name(&name)?;
    if options.tables.is_empty() {
        return Err(CaptureError::Refused("no table is named: --table schema.table, --table 'schema.*' or --table '*.*'".into()));
    }
    let patterns = table_patterns(&options.tables)?;
    let mut plan = Plan::new(name);
    let mut connection = server.connect().await?;
    let doing = || CaptureError::database("looking at the database");
    let row = sqlx::query(include_str!("sql/check_queue.sql")).fetch_one(&mut connection).await.map_err(doing())?;
    let facts = Facts::read(&row).map_err(doing())?;
    judge(&mut connection, &facts, &mut plan).await?;
    let rows = sqlx::query(include_str!("sql/check_queue_tables.sql")).fetch_all(&mut connection).await.map_err(doing())?;
    let _ = connection.close().await;
    let mut hidden = column_patterns(&options.exclude_columns)?;
    hidden.extend(column_patterns(&options.mask_columns)?);
    for pattern in &patterns {
        let candidates = rows.iter().map(Candidate::read).collect::<Result<Vec<_>, _>>().map_err(doing())?;
        take_in(pattern, candidates, &hidden, &mut plan);
    }
    plan.tables.sort();
    plan.tables.dedup();
    install(&facts, &mut plan);
    register(options, &patterns, &mut plan)?;
    Ok(plan)
}

async fn judge(connection: &mut PgConnection, facts: &Facts, plan: &mut Plan) -> Result<()> {
    if !facts.owns_schema {
        plan.refuse_schema();
    }
    let mut refuse = |subject: &str, text: &str| plan.find(Level::Refusal, subject, text);
    if facts.version < OLDEST_VERSION {
        refuse("server", "PostgreSQL 14 or later is needed");
    }
    if facts.in_recovery {
        refuse("server", "this is a replica: attach the primary");
    }
    if !facts.may_create {
        refuse("privileges", "the user may not create a schema in this database: GRANT CREATE ON DATABASE");
    }
    if facts.is_replicated {
        refuse("replication", "this database is attached by replication: detach that first");
    }
    if !facts.is_superuser {
        let text = "only a superuser can have DDL recorded; new tables are taken in within half a minute, and what was written to them before is lost";
        plan.find(Level::Warning, "event triggers", text);
    }
    if facts.is_older {
        plan.find(Level::Refusal, "queue", "the queue was set up by an earlier version: detach it first");
    } else if facts.is_queued {
        let names = sqlx::query_scalar::<_, String>("SELECT name FROM muniment.queue_source").fetch_all(connection).await;
        let names = names.map_err(CaptureError::database("reading what is attached"))?;
        plan.is_registered = names.contains(&plan.name);
        if let Some(other) = names.into_iter().find(|name| *name != plan.name) {
            plan.find(Level::Refusal, "queue", format!("this database has a queue already, which is read as {other}"));
        }
    }
    Ok(())
}

fn take_in(pattern: &TablePattern, candidates: Vec<Candidate>, hidden: &[ColumnPattern], plan: &mut Plan) {
    let mut found = false;
    for candidate in candidates.into_iter().filter(|candidate| pattern.matches(&candidate.schema, &candidate.table)) {
        let name = candidate.name();
        found = true;
        match (candidate.kind.as_str(), candidate.persistence.as_str()) {
            ("r" | "p", "p") => {}
            ("r" | "p", _) => {
                plan.find(Level::Warning, name, "an unlogged table is not captured: a crash empties it");
                continue;
            }
            _ => {
                if pattern.is_exact() {
                    plan.find(Level::Refusal, name, "only tables have rows of their own");
                }
                continue;
            }
        }
        if !candidate.is_owned {
            plan.find(Level::Refusal, &*name, "only its owner can have its changes captured");
        }
        if candidate.key.is_empty() {
            plan.find(Level::Note, &*name, "it has no primary key: a change's key is the whole row");
        }
        let is_hidden = |column: &str| hidden.iter().any(|pattern| pattern.matches(&candidate.schema, &candidate.table, column));
        plan.judge_key(&name, &candidate.key, is_hidden);
        if !candidate.is_attached && (!candidate.is_partition || pattern.is_exact()) {
            plan.tables.push(name);
        }
    }
    if !found && pattern.is_exact() {
        plan.find(Level::Refusal, pattern_text(pattern), "there is no such table");
    }
}

fn pattern_text(pattern: &TablePattern) -> String {
    let (schema, table) = pattern.names();
    format!("{schema}.{table}")
}

fn install(facts: &Facts, plan: &mut Plan) {
    plan.transaction.push(impatient());
    let mut add = |sql: &str, why: &str| plan.transaction.push(Statement::new(sql, why));
    add("CREATE SCHEMA IF NOT EXISTS muniment", "Everything that Muniment adds is in this schema, but for the triggers.");
    add(INSTALL_AT_WORK, "How it says that it changes tables itself.");
    let quiet = quiet();
    add(&quiet.sql, &quiet.why);
    if facts.is_queued {
        add("DROP TABLE IF EXISTS muniment.queue_ending", "It may have been about to be detached.");
    } else {
        add(include_str!("sql/install_tables.sql"), "The queue, and what is known of its reader.");
        add(include_str!("sql/install_context.sql"), "The application says in its transaction who acts and why.");
    }
    add(INSTALL_TRIGGERS, "What the triggers do.");
    add(INSTALL_STATEMENTS, "Knows what DDL does to tables, and what of it may be recorded.");
    add(include_str!("sql/install_refresh.sql"), "Puts triggers on the tables that the patterns take in.");
    if facts.is_superuser {
        add(include_str!("sql/install_ddl.sql"), "DDL is recorded, and new tables are taken in.");
    }
}

/// Functions of the triggers.
const INSTALL_TRIGGERS: &str = include_str!("sql/install_triggers.sql");

/// The functions that write to the queue: names and bodies as they have to be.
pub(super) fn trigger_functions() -> (Vec<&'static str>, Vec<&'static str>) {
    let function = |text: &'static str| {
        let (name, rest) = text.split_once('(')?;
        Some((name, rest.split_once("$$")?.1.split_once("$$")?.0))
    };
    INSTALL_TRIGGERS.split("FUNCTION muniment.").skip(1).filter_map(function).unzip()
}

/// A PostgreSQL array of texts.
fn array(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.map(|text| literal(&text)).collect();
    format!("ARRAY[{}]::text[]", texts.join(", "))
}

fn register(options: &AttachOptions, patterns: &[TablePattern], plan: &mut Plan) -> Result<()> {
    let tables: Vec<_> = patterns.iter().map(TablePattern::like).collect();
    let columns = |texts: &[String]| -> Result<Vec<_>> { Ok(column_patterns(texts)?.iter().map(|pattern| pattern.like()).collect()) };
    let (excluded, masked) = (columns(&options.exclude_columns)?, columns(&options.mask_columns)?);
    let values = [
        ("{name}", literal(&plan.name)),
        ("{baseline}", (options.snapshot == Baseline::Initial).to_string()),
        ("{schemas}", array(tables.iter().map(|like| like.0.clone()))),
        ("{tables}", array(tables.iter().map(|like| like.1.clone()))),
        ("{excluded_schemas}", array(excluded.iter().map(|like| like.0.clone()))),
        ("{excluded_tables}", array(excluded.iter().map(|like| like.1.clone()))),
        ("{excluded_columns}", array(excluded.iter().map(|like| like.2.clone()))),
        ("{masked_schemas}", array(masked.iter().map(|like| like.0.clone()))),
        ("{masked_tables}", array(masked.iter().map(|like| like.1.clone()))),
        ("{masked_columns}", array(masked.iter().map(|like| like.2.clone()))),
    ];
    let sql = values.iter().fold(include_str!("sql/record_queue.sql").to_owned(), |text, (place, value)| text.replace(place, value));
    plan.transaction.push(Statement::new(sql, "The source and its patterns."));
    plan.transaction.push(Statement::new("SELECT muniment.queue_refresh()", format!("Triggers on {}.", plan.tables.join(", "))));
    plan.transaction.push(Statement::new("SELECT muniment.queue_enable()", "Triggers that were disabled meanwhile are enabled."));
    Ok(())
}

/// Does what a plan says, all of it or nothing.
///
/// # Errors
/// If something is in the way, or the database refuses a statement.
pub async fn apply(url: &str, plan: &Plan) -> Result<()> {
    plan.permitted()?;
    let mut connection = Server::parse(url)?.connect().await?;
    run(&mut connection, &plan.transaction).await?;
    let _ = connection.close().await;
    Ok(())
}

/// Takes the triggers away, so that nothing more is written to the queue, as the plan for detaching says.
///
/// # Errors
/// If the database refuses a statement.
pub async fn end(url: &str, plan: &Plan) -> Result<()> {
    let mut connection = Server::parse(url)?.connect().await?;
    run(&mut connection, &plan.before).await?;
    let _ = connection.close().await;
    Ok(())
}

async fn run(connection: &mut PgConnection, statements: &[Statement]) -> Result<()> {
    let mut transaction = connection.begin().await.map_err(CaptureError::database("beginning"))?;
    for statement in statements {
        let text = AssertSqlSafe(statement.sql.clone());
        sqlx::raw_sql(text).execute(&mut *transaction).await.map_err(statement.failed())?;
    }
    transaction.commit().await.map_err(CaptureError::database("committing"))
}

/// What detaching will do: the triggers go; then, when what is queued has been read, queue and schema.
///
/// # Errors
/// If the database can't be asked, or has no queue of this name.
pub async fn detach(url: &str, name: &str) -> Result<Plan> {
    let mut plan = Plan::new(name);
    let doing = || CaptureError::database("looking at the queue");
    let mut connection = Server::parse(url)?.connect().await?;
    let installed = sqlx::query_scalar::<_, bool>("SELECT to_regclass('muniment.queue_source') IS NOT NULL");
    if !installed.fetch_one(&mut connection).await.map_err(doing())? {
        return Err(CaptureError::Refused("this database has no trigger queue".into()));
    }
    let known = sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT FROM muniment.queue_source WHERE name = $1)").bind(name);
    if !known.fetch_one(&mut connection).await.map_err(doing())? {
        return Err(CaptureError::Refused(format!("the trigger queue of this database is not read as {name}")));
    }
    let (pending, dead) = waiting(&mut connection).await?;
    plan.find_waiting(pending, dead);
    let rows = sqlx::query(include_str!("sql/select_triggers.sql")).fetch_all(&mut connection).await.map_err(doing())?;
    let _ = connection.close().await;
    plan.before.push(impatient());
    plan.before.push(quiet());
    plan.before.push(Statement::new(include_str!("sql/end_queue.sql"), "Nobody puts the triggers back."));
    for row in rows {
        let text = |name: &str| row.try_get::<String, _>(name).map_err(doing());
        let (schema, table, trigger) = (text("schema_name")?, text("table_name")?, text("trigger_name")?);
        plan.tables.push(format!("{schema}.{table}"));
        let sql = format!("DROP TRIGGER IF EXISTS \"{trigger}\" ON {}", qualified(&schema, &table));
        plan.before.push(Statement::new(sql, "Changes are not captured any more."));
    }
    plan.transaction.push(quiet());
    plan.tables.dedup();
    plan.find(Level::Warning, "context functions", "muniment.context() goes, too: an application that still calls it will fail");
    plan.transaction.push(Statement::new(include_str!("sql/remove_queue.sql"), "The queue goes, and what reads and writes it."));
    plan.transaction.push(remove_schema());
    Ok(plan)
}

/// Changes in the queue that are not stored yet, and dead letters.
pub(crate) async fn waiting(connection: &mut PgConnection) -> Result<(i64, i64)> {
    let doing = || CaptureError::database("looking at the queue");
    let text =
        "SELECT count(*) FILTER (WHERE NOT is_dead), count(*) FILTER (WHERE is_dead) FROM muniment.sys_audit_queue WHERE NOT is_processed";
    let row = sqlx::query(text).fetch_one(connection).await.map_err(doing())?;
    Ok((row.try_get(0).map_err(doing())?, row.try_get(1).map_err(doing())?))
}
