//! Attaching: publication, replica identity, context functions and event triggers in one transaction, then the slot.
//!
//! A publication on a table without replica identity makes the application's UPDATE fail, so that both are set together or not at all. The slot can't be
//! created in the same transaction: PostgreSQL refuses that after writes. If it can't be created afterwards, all the rest is taken back.

use super::check::{self, Member, ServerFacts};
use super::connection::Server;
use super::detach;
use super::patterns::{column_patterns, identifier, literal, qualified, table_patterns};
use crate::error::{CaptureError, Result};
use crate::plan::{AttachOptions, Baseline, Fallback, Identity, Level, Plan, Statement, check_name, default_name};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;

/// Most bytes of a PostgreSQL name.
const NAME_BYTES: usize = 63;
/// Attempts to get all locks, and the pause between them.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// SQLSTATE of a lock that was not to be had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// The oldest server whose slots can survive a failover.
const FAILOVER_SLOTS: i32 = 170_000;

/// Makes what [`quiet`] needs.
pub(crate) const INSTALL_AT_WORK: &str = include_str!("sql/install_at_work.sql");

/// Functions that tell what DDL does to tables, and what of its text may be recorded.
pub(crate) const INSTALL_STATEMENTS: &str = include_str!("sql/install_statements.sql");

/// The statement that makes all others of its transaction unreported: they are Muniment's own DDL.
pub(crate) fn quiet() -> Statement {
    Statement::new(include_str!("sql/begin_work.sql"), "What follows is not reported as the application's DDL.")
}

/// Name of the slot and of the publication of a source.
pub fn slot_name(source: &str) -> String {
    let clean: String = source.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' }).collect();
    let name = format!("muniment_{clean}");
    if name.len() <= NAME_BYTES {
        return name;
    }
    format!("{}_{}", &name[..NAME_BYTES - 9], hex::encode(&Sha256::digest(source)[..4]))
}

/// Name of a source by these options.
///
/// # Errors
/// If it is no name.
pub fn source_name(server: &Server, options: &AttachOptions) -> Result<String> {
    let name = options.name.clone().unwrap_or_else(|| default_name("pg", server.database()));
    check_name(&name)?;
    Ok(name)
}

/// Looks at the database and says what attaching will do. `known` tells whether a source of this name is ours: then tables are added to it.
///
/// # Errors
/// If the database can't be asked, or the options are not valid. What is in the way is among the findings.
pub async fn plan(url: &str, options: &AttachOptions, known: bool) -> Result<Plan> {
    let server = Server::parse(url)?;
    let mut plan = Plan::new(source_name(&server, options)?);
    if options.tables.is_empty() {
        return Err(CaptureError::Refused("no table is named: --table schema.table, --table 'schema.*' or --table '*.*'".into()));
    }
    let mut connection = server.connect().await?;
    let outcome = look(&mut connection, &server, options, known, &mut plan).await;
    let _ = connection.close().await;
    outcome.map(|()| plan)
}

async fn look(connection: &mut PgConnection, server: &Server, options: &AttachOptions, known: bool, plan: &mut Plan) -> Result<()> {
    let slot = slot_name(&plan.name);
    let facts = check::server_facts(connection).await?;
    let names = check::names(connection, &slot).await?;
    let registered = check::is_registered(connection, &facts, &plan.name).await?;
    plan.is_registered = registered;
    check::judge_server(&facts, options, names.slot.is_none(), plan);
    check::judge_names(&names, &slot, registered, known, plan);
    note_socket(server, &facts, plan);
    let tables = check::table_facts(connection).await?;
    let members = check::members(&tables, options, facts.version, plan)?;
    let attached = if registered { detach::attached(connection, &plan.name).await? } else { Vec::new() };
    let fresh: Vec<&Member> =
        members.iter().filter(|member| !attached.iter().any(|table| table.relation == member.facts.relation && table.is_there())).collect();
    plan.tables = fresh.iter().filter(|member| member.published).map(|member| member.facts.name()).collect();
    note_baseline(options, &fresh, plan);
    install(options, &facts, plan);
    register(options, &slot, plan)?;
    for member in &fresh {
        identify(member, options, plan);
    }
    if names.publication && !registered {
        let sql = format!("DROP PUBLICATION {}", identifier(&slot));
        plan.transaction.push(Statement::new(sql, "What it published was noted in the schema muniment, which is gone: it is made anew."));
    }
    publish(&fresh, &slot, names.publication && registered, plan);
    watch_ddl(&facts, &names.event_triggers, plan);
    limit_wal(options, &facts, plan);
    if names.slot.is_none() {
        plan.after.push(create_slot(&slot, &facts));
    }
    Ok(())
}

fn note_socket(server: &Server, facts: &ServerFacts, plan: &mut Plan) {
    if let Some(folder) = facts.socket_folders.as_deref().and_then(|folders| server.unused_socket(folders)) {
        let text =
            format!("the server runs on this machine: through its socket it spends less on sending changes; add ?host={folder} to the URL");
        plan.find(Level::Note, "connection", text);
    }
}

fn note_baseline(options: &AttachOptions, fresh: &[&Member], plan: &mut Plan) {
    if options.snapshot == Baseline::None || fresh.is_empty() {
        return;
    }
    let rows: i64 = fresh.iter().map(|member| member.facts.estimated_rows).sum();
    plan.find(
        Level::Note,
        "baseline",
        format!("about {rows} rows that are there now will be recorded, while changes go on being captured"),
    );
}

/// The statement with which a transaction begins that changes the application's tables.
pub(crate) fn impatient() -> Statement {
    let why = "Whoever waits for a lock holds up the application behind it: better to give up and try again.";
    Statement::new("SET LOCAL lock_timeout = '3s'", why)
}

/// Functions and tables of the schema `muniment`.
fn install(options: &AttachOptions, facts: &ServerFacts, plan: &mut Plan) {
    plan.transaction.push(impatient());
    let mut add = |sql: &str, why: &str| plan.transaction.push(Statement::new(sql, why));
    add("CREATE SCHEMA IF NOT EXISTS muniment", "Everything that Muniment adds is in this schema, but for the publication and the slot.");
    add(INSTALL_AT_WORK, "How it says that it changes tables itself.");
    let quiet = quiet();
    add(&quiet.sql, &quiet.why);
    add("GRANT USAGE ON SCHEMA muniment TO PUBLIC", "Every user may say who acts.");
    add(include_str!("sql/install_tables.sql"), "What is attached, and what it was like before, for detaching.");
    let marked = options.attribution == Fallback::Trigger;
    let context = if marked { include_str!("sql/install_context_marked.sql") } else { include_str!("sql/install_context.sql") };
    if marked || !facts.is_installed {
        add(context, "The application says in its transaction who acts and why.");
    }
    add(include_str!("sql/install_set_context.sql"), "The same with named arguments.");
    add(include_str!("sql/install_session.sql"), "For --attribution trigger: names the session of a transaction that says nothing.");
    add(INSTALL_STATEMENTS, "Knows what DDL does to tables, and what of it may be recorded.");
    add(include_str!("sql/install_report.sql"), "What changes rows without row changes is reported.");
    add(include_str!("sql/install_members.sql"), "Which tables and partitions the patterns take in.");
    add(include_str!("sql/install_columns.sql"), "Which columns may leave the database.");
    add(include_str!("sql/install_refresh.sql"), "Takes in new tables, partitions and columns.");
    if facts.is_superuser {
        add(include_str!("sql/install_ddl.sql"), "DDL is recorded, and what is new is taken in.");
    }
}

/// A PostgreSQL array of texts.
fn array(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.map(|text| literal(&text)).collect();
    format!("ARRAY[{}]::text[]", texts.join(", "))
}

fn register(options: &AttachOptions, slot: &str, plan: &mut Plan) -> Result<()> {
    let tables: Vec<_> = table_patterns(&options.tables)?.iter().map(|pattern| pattern.like()).collect();
    let excluded: Vec<_> = column_patterns(&options.exclude_columns)?.iter().map(|pattern| pattern.like()).collect();
    let masked: Vec<_> = column_patterns(&options.mask_columns)?.iter().map(|pattern| pattern.like()).collect();
    let identity = if options.identity == Identity::Full { "full" } else { "key" };
    let attribution = if options.attribution == Fallback::Activity { "activity" } else { "trigger" };
    let values = [
        ("{name}", literal(&plan.name)),
        ("{slot}", literal(slot)),
        ("{identity}", literal(identity)),
        ("{attribution}", literal(attribution)),
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
    let fill = |text: &str| values.iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, value));
    plan.transaction.push(Statement::new(fill(include_str!("sql/record_source.sql")), "The source and its patterns."));
    let why = "The tables, and their replica identity as it was, which detaching restores.";
    plan.transaction.push(Statement::new(fill(include_str!("sql/record_members.sql")), why));
    Ok(())
}

/// Sets the replica identity of a table, and its statement triggers.
fn identify(member: &Member, options: &AttachOptions, plan: &mut Plan) {
    let table = &member.facts;
    let name = qualified(&table.schema, &table.table);
    let by_key = options.identity == Identity::Key || member.visible.is_some();
    let wanted = if by_key && !table.key.is_empty() { "DEFAULT" } else { "FULL" };
    let (current, why) = match (table.identity.as_str(), wanted) {
        ("d", "DEFAULT") | ("f", "FULL") | ("f", "DEFAULT") | ("i", "DEFAULT") => (true, ""),
        (_, "FULL") => (false, "Old values of all columns; without it, UPDATE and DELETE of a published table without a key fail."),
        _ => (false, "The key tells which row was changed; without it, UPDATE and DELETE of a published table fail."),
    };
    if !current {
        plan.transaction.push(Statement::new(format!("ALTER TABLE {name} REPLICA IDENTITY {wanted}"), why));
    }
    if table.is_partitioned() || !member.published {
        let sql = format!(
            "CREATE OR REPLACE TRIGGER muniment_truncate BEFORE TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION muniment.on_truncate()"
        );
        plan.transaction.push(Statement::new(sql, "PostgreSQL sends nothing of a TRUNCATE of a single partition."));
    }
    if options.attribution == Fallback::Trigger {
        let sql = format!(
            "CREATE OR REPLACE TRIGGER muniment_session BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION muniment.name_session()"
        );
        plan.transaction.push(Statement::new(sql, "A transaction that says nothing is attributed to its session."));
    }
}

fn publish(fresh: &[&Member], slot: &str, exists: bool, plan: &mut Plan) {
    let list: Vec<String> = fresh.iter().filter(|member| member.published).map(|member| published(member)).collect();
    let name = identifier(slot);
    let tables = list.join(", ");
    let statement = match (exists, list.is_empty()) {
        (true, true) => return,
        (true, false) => Statement::new(format!("ALTER PUBLICATION {name} ADD TABLE {tables}"), "The new tables' changes are sent."),
        (false, empty) => {
            let tables = if empty { String::new() } else { format!(" FOR TABLE {tables}") };
            let sql = format!("CREATE PUBLICATION {name}{tables} WITH (publish_via_partition_root = true)");
            Statement::new(sql, "What is sent: changes of these tables, those of partitions under the name of their root.")
        }
    };
    plan.transaction.push(statement);
}

/// A table as a publication lists it, with its columns if some of them don't leave the database.
fn published(member: &Member) -> String {
    // Tables that inherit from it are published, or not, by themselves.
    let table = format!("ONLY {}", qualified(&member.facts.schema, &member.facts.table));
    match &member.visible {
        Some(columns) => format!("{table} ({})", columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ")),
        None => table,
    }
}

fn watch_ddl(facts: &ServerFacts, existing: &[String], plan: &mut Plan) {
    if !facts.is_superuser {
        return;
    }
    let triggers = [
        (
            "muniment_ddl",
            "ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'ALTER PUBLICATION', 'ALTER SCHEMA', 'ALTER TYPE', 'ALTER DOMAIN', 'DROP TYPE', \
             'DROP DOMAIN', 'DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')",
            "on_ddl",
            "New and changed tables, and their types and schemas.",
        ),
        ("muniment_rewrite", "table_rewrite", "on_rewrite", "Tables whose rows are rewritten without row events."),
        ("muniment_drop", "sql_drop", "on_drop", "Tables that are dropped."),
    ];
    for (name, event, function, why) in triggers {
        if existing.iter().any(|known| known == name) {
            plan.transaction.push(Statement::new(format!("DROP EVENT TRIGGER {name}"), "It is made as this version needs it."));
        }
        let sql = format!("CREATE EVENT TRIGGER {name} ON {event} EXECUTE FUNCTION muniment.{function}()");
        plan.transaction.push(Statement::new(sql, why));
    }
}

fn limit_wal(options: &AttachOptions, facts: &ServerFacts, plan: &mut Plan) {
    let Some(bytes) = options.max_slot_wal_keep else { return };
    let megabytes = (bytes >> 20).max(1);
    if i64::try_from(megabytes).is_ok_and(|wanted| wanted == facts.slot_wal_keep_mb) {
        return;
    }
    if !facts.is_superuser {
        plan.find(Level::Refusal, "--max-slot-wal-keep", "only a superuser may change settings of the server");
    }
    let why = "How much WAL the server keeps for slots that fall behind: beyond it, it is not its disk that gives way, but the audit. For all slots of this server.";
    plan.after.push(Statement::new(format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{megabytes}MB'"), why));
    plan.after.push(Statement::new("SELECT pg_reload_conf()", "The setting takes effect without a restart."));
}

fn create_slot(slot: &str, facts: &ServerFacts) -> Statement {
    let name = literal(slot);
    let sql = if facts.version >= FAILOVER_SLOTS {
        format!("SELECT pg_create_logical_replication_slot({name}, 'pgoutput', failover => true)")
    } else {
        format!("SELECT pg_create_logical_replication_slot({name}, 'pgoutput')")
    };
    let why = "From here on the server keeps changes until Muniment has stored them. It waits for transactions that are under way, and can't be part of the\ntransaction above: PostgreSQL creates no slot in a transaction that has written.";
    Statement::new(sql, why)
}

/// Does what a plan says. If it fails, what was done of a new source is undone; `fresh` says that it is one.
///
/// # Errors
/// If something is in the way, or the database refuses a statement.
pub async fn apply(url: &str, plan: &Plan, fresh: bool) -> Result<()> {
    plan.permitted()?;
    let server = Server::parse(url)?;
    let mut connection = server.connect().await?;
    let outcome = run(&mut connection, plan).await;
    if let (Err(error), true) = (&outcome, fresh) {
        tracing::warn!(source = plan.name, error = error as &dyn std::error::Error, "attaching failed; what was done is undone");
        let undone = async { detach::apply(url, &detach::plan(url, &plan.name).await?).await };
        if let Err(error) = undone.await {
            tracing::error!(
                source = plan.name,
                error = &error as &dyn std::error::Error,
                "not everything could be undone; muniment detach tries again"
            );
        }
    }
    let _ = connection.close().await;
    outcome
}

/// Runs a plan's statements, the transaction again if a lock can't be had.
pub(super) async fn run(connection: &mut PgConnection, plan: &Plan) -> Result<()> {
    let mut attempt = 1;
    loop {
        match transaction(connection, &plan.transaction).await {
            Err(CaptureError::Database { source, .. }) if attempt < ATTEMPTS && is_lock_timeout(&source) => {
                tracing::warn!(source = plan.name, attempt, "a table is in use; trying again");
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            outcome => break outcome?,
        }
    }
    for statement in &plan.after {
        execute(connection, statement).await?;
    }
    Ok(())
}

async fn transaction(connection: &mut PgConnection, statements: &[Statement]) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await.map_err(CaptureError::database("beginning"))?;
    for statement in statements {
        execute(&mut transaction, statement).await?;
    }
    transaction.commit().await.map_err(CaptureError::database("committing"))
}

async fn execute(connection: &mut PgConnection, statement: &Statement) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.sql.clone())).execute(connection).await.map_err(statement.failed())?;
    Ok(())
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some(LOCK_NOT_AVAILABLE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn slot_names() {
        assert_eq!(slot_name("pg:app"), "muniment_pg_app");
        let (one, other) = (slot_name(&"a".repeat(64)), slot_name(&format!("{}b", "a".repeat(63))));
        assert_eq!((one.len(), other.len()), (63, 63));
        assert_ne!(one, other);
    }
}
