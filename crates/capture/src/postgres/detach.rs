//! Detaching: takes back all that attaching did, also where parts of it are gone already.

use super::attach::{quiet, run, slot_name};
use super::check;
use super::connection::Server;
use super::patterns::{identifier, literal, qualified};
use crate::error::{CaptureError, Result};
use crate::plan::{Level, Plan, Statement};
use sqlx::{Connection, PgConnection, Row};
use std::time::Duration;

/// How long a slot may still be in use by the connection that was just closed.
const RELEASE: Duration = Duration::from_secs(15);

/// A table of a source, as the audited database has noted it.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub relation: u32,
    former_identity: String,
    former_index: Option<String>,
    /// Schema and name now; `None` if it was dropped.
    name: Option<(String, String)>,
    identity: Option<String>,
    is_shared: bool,
    has_trigger: bool,
    reports_truncate: bool,
    shares_trigger: bool,
}

impl Attached {
    pub(super) fn is_there(&self) -> bool {
        self.name.is_some()
    }
}

/// The tables of a source.
pub(super) async fn attached(connection: &mut PgConnection, name: &str) -> Result<Vec<Attached>> {
    let doing = || CaptureError::database("reading the list of attached tables");
    let rows = sqlx::query(include_str!("sql/select_attached.sql")).bind(name).fetch_all(connection).await.map_err(doing())?;
    rows.iter()
        .map(|row| {
            let schema: Option<String> = row.try_get("schema_name")?;
            let table: Option<String> = row.try_get("table_name")?;
            Ok(Attached {
                relation: row.try_get::<sqlx::postgres::types::Oid, _>("relation")?.0,
                former_identity: row.try_get("former_identity")?,
                former_index: row.try_get("former_index")?,
                name: schema.zip(table),
                identity: row.try_get("identity")?,
                is_shared: row.try_get("is_shared")?,
                has_trigger: row.try_get("has_trigger")?,
                reports_truncate: row.try_get("reports_truncate")?,
                shares_trigger: row.try_get("shares_trigger")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(doing())
}

/// Says what detaching a source will do.
///
/// # Errors
/// If the database can't be asked.
pub async fn plan(url: &str, name: &str) -> Result<Plan> {
    let server = Server::parse(url)?;
    let mut connection = server.connect().await?;
    let mut plan = Plan::new(name);
    let outcome = look(&mut connection, name, &mut plan).await;
    let _ = connection.close().await;
    outcome.map(|()| plan)
}

async fn look(connection: &mut PgConnection, name: &str, plan: &mut Plan) -> Result<()> {
    let slot = slot_name(name);
    let facts = check::server_facts(connection).await?;
    let names = check::names(connection, &slot).await?;
    plan.transaction.push(quiet());
    if names.publication {
        let sql = format!("DROP PUBLICATION IF EXISTS {}", identifier(&slot));
        plan.transaction.push(Statement::new(sql, "Nothing is sent any more."));
    }
    if facts.is_installed {
        let tables = attached(connection, name).await?;
        tables.iter().for_each(|table| restore(table, plan));
        let sql = format!("DELETE FROM muniment.source WHERE name = {}", literal(name));
        plan.transaction.push(Statement::new(sql, "The source and its tables are forgotten."));
        if others(connection, name).await? == 0 {
            remove_all(&names.event_triggers, plan);
        }
    } else {
        plan.find(
            Level::Warning,
            name,
            "the schema muniment is gone: what replica identities were before is not known, and they stay as they are",
        );
    }
    if names.slot.is_some() {
        let sql = format!("SELECT pg_drop_replication_slot({})", literal(&slot));
        plan.after.push(Statement::new(sql, "The server no longer keeps WAL for this source."));
    }
    Ok(())
}

/// How many further sources the database knows.
async fn others(connection: &mut PgConnection, name: &str) -> Result<i64> {
    let doing = CaptureError::database("counting sources");
    sqlx::query_scalar("SELECT count(*) FROM muniment.source WHERE name <> $1").bind(name).fetch_one(connection).await.map_err(doing)
}

/// Gives a table back its replica identity, unless another source still needs it, and takes its triggers away.
fn restore(table: &Attached, plan: &mut Plan) {
    let (Some((schema, name)), Some(identity)) = (&table.name, &table.identity) else { return };
    let sql_name = qualified(schema, name);
    if !table.is_shared && *identity != table.former_identity {
        let former = match (table.former_identity.as_str(), &table.former_index) {
            ("f", _) => "FULL".to_owned(),
            ("n", _) => "NOTHING".to_owned(),
            ("i", Some(index)) => format!("USING INDEX {}", index.rsplit_once('.').map_or(index.as_str(), |(_, index)| index)),
            _ => "DEFAULT".to_owned(),
        };
        plan.transaction.push(Statement::new(format!("ALTER TABLE {sql_name} REPLICA IDENTITY {former}"), "As it was before."));
    }
    if table.reports_truncate && !table.is_shared {
        let sql = format!("DROP TRIGGER IF EXISTS muniment_truncate ON {sql_name}");
        plan.transaction.push(Statement::new(sql, "TRUNCATE of partitions is not reported any more."));
    }
    if table.has_trigger && !table.shares_trigger {
        let sql = format!("DROP TRIGGER IF EXISTS muniment_session ON {sql_name}");
        plan.transaction.push(Statement::new(sql, "Sessions are not named any more."));
    }
}

/// Removes what all sources share, with the last of them.
fn remove_all(event_triggers: &[String], plan: &mut Plan) {
    for trigger in ["muniment_ddl", "muniment_rewrite", "muniment_drop"] {
        if event_triggers.iter().any(|known| known == trigger) {
            plan.transaction.push(Statement::new(format!("DROP EVENT TRIGGER IF EXISTS {trigger}"), "DDL is not recorded any more."));
        }
    }
    let text = "muniment.context() goes with the last source: an application that still calls it will fail";
    plan.find(Level::Warning, "context functions", text);
    plan.transaction
        .push(Statement::new(include_str!("sql/remove_functions.sql"), "No source is left, so that nothing of Muniment's stays."));
    plan.transaction.push(remove_schema());
}

/// The statement that comes last where nothing is attached any more.
pub(crate) fn remove_schema() -> Statement {
    Statement::new(include_str!("sql/remove_schema.sql"), "The schema goes unless something else is in it.")
}

/// Does what a plan says. The source must not be read any more.
///
/// # Errors
/// If the database refuses a statement.
pub async fn apply(url: &str, plan: &Plan) -> Result<()> {
    let server = Server::parse(url)?;
    let mut connection = server.connect().await?;
    wait_for_release(&mut connection, &slot_name(&plan.name)).await?;
    let outcome = run(&mut connection, plan).await;
    let _ = connection.close().await;
    outcome
}

/// Waits until the slot's last reader has gone: the server notices the end of a connection a little later.
async fn wait_for_release(connection: &mut PgConnection, slot: &str) -> Result<()> {
    let begun = tokio::time::Instant::now();
    loop {
        let doing = CaptureError::database("looking at the slot");
        let active = sqlx::query_scalar::<_, bool>("SELECT active FROM pg_replication_slots WHERE slot_name = $1");
        match active.bind(slot).fetch_optional(&mut *connection).await.map_err(doing)? {
            Some(true) if begun.elapsed() < RELEASE => tokio::time::sleep(Duration::from_millis(100)).await,
            Some(true) => return Err(CaptureError::Refused(format!("slot {slot} is in use: somebody still reads this source"))),
            _ => return Ok(()),
        }
    }
}
