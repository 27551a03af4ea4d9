//! What a database is like, as far as attaching to it is concerned, and what would break.

use super::patterns::{ColumnPattern, TablePattern, column_patterns, table_patterns};
use crate::error::{CaptureError, Result};
use crate::plan::{AttachOptions, Identity, Level, Plan, WhenFull};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::{HashMap, HashSet};

/// The oldest server with lists of columns in a publication.
const OLDEST_VERSION: i32 = 150_000;
/// The oldest server that can publish generated columns.
const GENERATED_COLUMNS: i32 = 180_000;

/// What the server is and allows.
#[derive(Clone, Debug)]
pub(super) struct ServerFacts {
    pub version: i32,
    in_recovery: bool,
    wal_level: String,
    max_slots: i64,
    slots: i64,
    max_senders: i64,
    senders: i64,
    /// MiB; -1 without limit.
    pub slot_wal_keep_mb: i64,
    /// Separated by commas, if the user may know.
    pub socket_folders: Option<String>,
    /// Transactions of the whole server that have been writing for more than a second, and the process of the oldest.
    pub writers: i64,
    pub oldest_writer: Option<String>,
    pub is_superuser: bool,
    may_replicate: bool,
    may_create: bool,
    user: String,
    database: String,
    owns_schema: bool,
    pub is_installed: bool,
}

/// A table, partition, view or the like.
#[derive(Clone, Debug)]
pub(super) struct TableFacts {
    pub relation: u32,
    pub schema: String,
    pub table: String,
    kind: String,
    persistence: String,
    pub identity: String,
    is_owned: bool,
    pub estimated_rows: i64,
    ancestors: Vec<u32>,
    pub columns: Vec<String>,
    pub generated: Vec<String>,
    pub key: Vec<String>,
    pub has_identity_index: bool,
}

impl TableFacts {
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    pub(super) fn is_partitioned(&self) -> bool {
        self.kind == "p"
    }

    fn is_table(&self) -> bool {
        matches!(self.kind.as_str(), "r" | "p")
    }
}

/// What already has the names that a source would take.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub slot: Option<String>,
    pub publication: bool,
    pub event_triggers: Vec<String>,
}

/// A table that a source takes in.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub facts: TableFacts,
    /// Named in the publication; a partition comes with its root instead.
    pub published: bool,
    /// The columns that leave the source, if not all do.
    pub visible: Option<Vec<String>>,
}

fn read<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(row: &'r PgRow, name: &str) -> Result<T> {
    row.try_get(name).map_err(CaptureError::database("reading the catalog"))
}

fn oid(row: &PgRow, name: &str) -> Result<u32> {
    Ok(read::<sqlx::postgres::types::Oid>(row, name)?.0)
}

pub(super) async fn server_facts(connection: &mut PgConnection) -> Result<ServerFacts> {
    let doing = CaptureError::database("looking at the server");
    let row = sqlx::query(include_str!("sql/check_server.sql")).fetch_one(connection).await.map_err(doing)?;
    Ok(ServerFacts {
        version: read(&row, "version")?,
        in_recovery: read(&row, "in_recovery")?,
        wal_level: read(&row, "wal_level")?,
        max_slots: read(&row, "max_slots")?,
        slots: read(&row, "slots")?,
        max_senders: read(&row, "max_senders")?,
        senders: read(&row, "senders")?,
        slot_wal_keep_mb: read(&row, "slot_wal_keep_mb")?,
        socket_folders: read(&row, "socket_folders")?,
        writers: read(&row, "writers")?,
        oldest_writer: read(&row, "oldest_writer")?,
        is_superuser: read(&row, "is_superuser")?,
        may_replicate: read(&row, "may_replicate")?,
        may_create: read(&row, "may_create")?,
        user: read(&row, "user_name")?,
        database: read(&row, "database_name")?,
        owns_schema: read(&row, "owns_schema")?,
        is_installed: read(&row, "is_installed")?,
    })
}

pub(super) async fn table_facts(connection: &mut PgConnection) -> Result<Vec<TableFacts>> {
    let doing = CaptureError::database("looking at the tables");
    let rows = sqlx::query(include_str!("sql/check_tables.sql")).fetch_all(connection).await.map_err(doing)?;
    rows.iter().map(table).collect()
}

fn table(row: &PgRow) -> Result<TableFacts> {
    let ancestors: Vec<sqlx::postgres::types::Oid> = read(row, "ancestors")?;
    Ok(TableFacts {
        relation: oid(row, "relation")?,
        schema: read(row, "schema_name")?,
        table: read(row, "table_name")?,
        kind: read(row, "kind")?,
        persistence: read(row, "persistence")?,
        identity: read(row, "identity")?,
        is_owned: read(row, "is_owned")?,
        estimated_rows: read(row, "estimated_rows")?,
        ancestors: ancestors.into_iter().map(|oid| oid.0).collect(),
        columns: read(row, "columns")?,
        generated: read(row, "generated")?,
        key: read(row, "key")?,
        has_identity_index: read(row, "has_identity_index")?,
    })
}

pub(super) async fn names(connection: &mut PgConnection, slot: &str) -> Result<Names> {
    let doing = CaptureError::database("looking at slots and publications");
    let row = sqlx::query(include_str!("sql/check_names.sql")).bind(slot).fetch_one(connection).await.map_err(doing)?;
    Ok(Names { slot: read(&row, "slot")?, publication: read(&row, "publication")?, event_triggers: read(&row, "event_triggers")? })
}

/// Whether the database knows a source of this name.
pub(super) async fn is_registered(connection: &mut PgConnection, facts: &ServerFacts, name: &str) -> Result<bool> {
    if !facts.is_installed {
        return Ok(false);
    }
    let doing = CaptureError::database("looking for the source");
    let row = sqlx::query(include_str!("sql/select_source.sql")).bind(name).fetch_optional(connection).await.map_err(doing)?;
    Ok(row.is_some())
}

/// What the server's settings and the user's privileges put in the way.
pub(super) fn judge_server(facts: &ServerFacts, options: &AttachOptions, needs_slot: bool, plan: &mut Plan) {
    let user = &facts.user;
    if facts.version < OLDEST_VERSION {
        plan.find(Level::Refusal, "server version", "PostgreSQL 15 or later is needed; --mode queue works with older ones");
    }
    if facts.in_recovery {
        plan.find(Level::Refusal, "server", "this is a standby; attach to the primary");
    }
    if facts.wal_level != "logical" {
        let text = format!(
            "it is {}, and has to be logical: ALTER SYSTEM SET wal_level = logical, then restart the server. Where that can't be, --mode queue captures by triggers",
            facts.wal_level
        );
        plan.find(Level::Refusal, "wal_level", text);
    }
    if !facts.may_replicate {
        plan.find(Level::Refusal, user, format!("it may not replicate: ALTER ROLE {user} REPLICATION"));
    }
    if !facts.may_create {
        let text = format!("it may not create a schema and a publication: GRANT CREATE ON DATABASE {} TO {user}", facts.database);
        plan.find(Level::Refusal, user, text);
    }
    if !facts.owns_schema {
        plan.refuse_schema();
    }
    if !facts.is_superuser {
        let text = "only a superuser may create event triggers: DDL is not recorded, and new tables and partitions are taken in when Muniment next looks, every 30 s; what is changed in them before has no record";
        plan.find(Level::Warning, user, text);
    }
    if let Some(oldest) = facts.oldest_writer.as_ref().filter(|_| needs_slot) {
        let text = format!(
            "{} have been writing for more than a second, the oldest in {oldest}: a slot begins when they have ended",
            facts.writers
        );
        plan.find(Level::Warning, "open transactions", text);
    }
    if needs_slot && facts.slots >= facts.max_slots {
        let text = format!("all {} are taken; raise it and restart the server, or drop a slot that nobody reads", facts.max_slots);
        plan.find(Level::Refusal, "max_replication_slots", text);
    }
    if needs_slot && facts.senders >= facts.max_senders {
        plan.find(Level::Refusal, "max_wal_senders", format!("all {} are taken; raise it and restart the server", facts.max_senders));
    }
    judge_full_disk(facts, options, plan);
}

/// Trap 12: a slot that nobody reads fills the disk of the audited database.
fn judge_full_disk(facts: &ServerFacts, options: &AttachOptions, plan: &mut Plan) {
    let subject = "max_slot_wal_keep_size";
    let limited = options.max_slot_wal_keep.is_some() || facts.slot_wal_keep_mb >= 0;
    match (options.when_full, limited) {
        (Some(WhenFull::LoseAudit), false) => plan.find(
            Level::Refusal,
            subject,
            "--when-full lose-audit needs a limit, and the server has none: add --max-slot-wal-keep, such as 20GB, which sets it for all slots of the server",
        ),
        (Some(WhenFull::StopDatabase), true) => plan.find(
            Level::Refusal,
            subject,
            "--when-full stop-database needs a server without this limit: ALTER SYSTEM SET max_slot_wal_keep_size = -1",
        ),
        (Some(WhenFull::LoseAudit), true) => plan.find(
            Level::Note,
            subject,
            "if Muniment doesn't read for so long that the limit is reached, the server drops changes: the gap is recorded, and a new baseline follows",
        ),
        (Some(WhenFull::StopDatabase), false) => plan.find(
            Level::Warning,
            subject,
            "there is no limit, as chosen: if Muniment doesn't read for long, the audited database's disk fills up and it stops",
        ),
        (None, true) => plan.find(Level::Note, subject, "beyond this limit the server drops changes that Muniment has not read: --when-full lose-audit says that this is wanted"),
        (None, false) => plan.find(
            Level::Warning,
            subject,
            "there is no limit: if Muniment doesn't read for long, the audited database's disk fills up. Choose: --max-slot-wal-keep SIZE --when-full lose-audit, or --when-full stop-database",
        ),
    }
}

/// What has the names already.
pub(super) fn judge_names(names: &Names, slot: &str, registered: bool, known: bool, plan: &mut Plan) {
    if registered && !known {
        let text = "a source of this name is attached already, by another Muniment or one whose data folder is gone; choose another --name, or detach it there";
        plan.find(Level::Refusal, plan.name.clone(), text);
        return;
    }
    match &names.slot {
        Some(plugin) if !plugin.starts_with("pgoutput") => {
            plan.find(Level::Refusal, format!("slot {slot}"), format!("it exists, with the plugin {plugin}; choose another --name"));
        }
        Some(_) if !registered && !known => {
            plan.find(Level::Refusal, format!("slot {slot}"), "it exists and is not of this source; drop it, or choose another --name");
        }
        _ => {}
    }
    if names.publication && !registered && !known {
        plan.find(Level::Refusal, format!("publication {slot}"), "it exists and is not of this source; drop it, or choose another --name");
    }
}

/// The tables that the patterns take in, with what is to be said about each.
pub(super) fn members(tables: &[TableFacts], options: &AttachOptions, version: i32, plan: &mut Plan) -> Result<Vec<Member>> {
    let patterns = table_patterns(&options.tables)?;
    let excluded = column_patterns(&options.exclude_columns)?;
    let masked = column_patterns(&options.mask_columns)?;
    let matched: HashSet<u32> = patterns.iter().flat_map(|pattern| judge_pattern(pattern, tables, plan)).collect();
    let by_relation: HashMap<u32, &TableFacts> = tables.iter().map(|table| (table.relation, table)).collect();
    let mut members = Vec::new();
    for table in tables.iter().filter(|table| table.is_table() && table.persistence == "p") {
        let from_above = table.ancestors.iter().any(|ancestor| matched.contains(ancestor));
        if !from_above && !matched.contains(&table.relation) {
            continue;
        }
        // A partition's columns are judged by the name of its root, under which it is published.
        let root = table.ancestors.iter().rfind(|ancestor| matched.contains(ancestor));
        let named = root.and_then(|root| by_relation.get(root)).copied().unwrap_or(table);
        let visible = visible(table, named, &excluded);
        let is_masked = |column: &str| masked.iter().any(|pattern| pattern.matches(&named.schema, &named.table, column));
        plan.judge_key(&table.name(), &table.key, is_masked);
        let member = Member { facts: table.clone(), published: !from_above, visible };
        judge_table(&member, options, version, plan);
        members.push(member);
    }
    for (flag, patterns) in [("--exclude-column", &excluded), ("--mask-column", &masked)] {
        judge_columns(flag, patterns, &members, plan);
    }
    Ok(members)
}

/// The tables of a pattern; says what can't be taken in, and if there is none.
fn judge_pattern(pattern: &TablePattern, tables: &[TableFacts], plan: &mut Plan) -> Vec<u32> {
    let found: Vec<&TableFacts> = tables.iter().filter(|table| pattern.matches(&table.schema, &table.table)).collect();
    for table in &found {
        if table.is_table() && table.persistence == "u" {
            let level = if pattern.is_exact() { Level::Refusal } else { Level::Warning };
            let text = "it is unlogged: its changes are not in the write-ahead log and can't be captured; ALTER TABLE … SET LOGGED makes it an ordinary one";
            plan.find(level, table.name(), text);
        } else if !table.is_table() && pattern.is_exact() {
            plan.find(Level::Refusal, table.name(), "it is no table, but a view or a foreign table");
        }
    }
    if found.is_empty() && pattern.is_exact() {
        let (schema, table) = pattern.names();
        plan.find(Level::Refusal, format!("{schema}.{table}"), "there is no such table");
    } else if found.is_empty() {
        let (schema, table) = pattern.names();
        plan.find(Level::Warning, format!("{schema}.{table}"), "no table matches it now; one that is created later is taken in");
    }
    found.iter().filter(|table| table.is_table() && table.persistence == "p").map(|table| table.relation).collect()
}

fn visible(table: &TableFacts, named: &TableFacts, excluded: &[ColumnPattern]) -> Option<Vec<String>> {
    let is_out = |column: &String| excluded.iter().any(|pattern| pattern.matches(&named.schema, &named.table, column));
    if !table.columns.iter().any(is_out) {
        return None;
    }
    Some(table.columns.iter().filter(|column| !is_out(column) && !table.generated.contains(column)).cloned().collect())
}

fn judge_table(member: &Member, options: &AttachOptions, version: i32, plan: &mut Plan) {
    let table = &member.facts;
    let name = table.name();
    if !table.is_owned {
        plan.find(
            Level::Refusal,
            &name,
            "only its owner may publish it and set its replica identity: attach as its owner or as a superuser",
        );
    }
    if !table.generated.is_empty() && version < GENERATED_COLUMNS {
        plan.find(Level::Note, &name, format!("generated columns are not captured: {}", table.generated.join(", ")));
    }
    if table.key.is_empty() && table.kind != "p" {
        let text =
            "it has no primary key: old and new values are recorded, but the history of one row can't be told from that of an equal one";
        plan.find(Level::Warning, &name, text);
    }
    if let Some(visible) = &member.visible {
        judge_exclusion(member, visible, plan);
    } else if options.identity == Identity::Key && table.key.is_empty() && !table.has_identity_index {
        plan.find(
            Level::Note,
            &name,
            "without a key it gets REPLICA IDENTITY FULL all the same: its UPDATE and DELETE would fail otherwise",
        );
    }
}

/// A publication with a list of columns needs a replica identity among them, or the application's UPDATE fails.
fn judge_exclusion(member: &Member, visible: &[String], plan: &mut Plan) {
    let table = &member.facts;
    let name = table.name();
    if table.key.is_empty() || !table.key.iter().all(|column| visible.contains(column)) {
        let text = "columns can be left out only of a table whose primary key stays visible, since its UPDATE and DELETE would fail otherwise; mask them instead";
        return plan.find(Level::Refusal, &name, text);
    }
    if table.identity == "f" {
        let text =
            "it has REPLICA IDENTITY FULL, with which no column can be left out; set it to DEFAULT first, or mask the columns instead";
        return plan.find(Level::Refusal, &name, text);
    }
    let text = "columns are left out, so the server logs only the key of old rows, and old values come from the log. As long as it is attached, PostgreSQL refuses to change the type of its other columns";
    plan.find(Level::Warning, &name, text);
}

fn judge_columns(flag: &str, patterns: &[ColumnPattern], members: &[Member], plan: &mut Plan) {
    for pattern in patterns {
        let found = members.iter().any(|member| {
            let table = &member.facts;
            table.columns.iter().any(|column| pattern.matches(&table.schema, &table.table, column))
        });
        if !found {
            let level = if pattern.is_exact() { Level::Refusal } else { Level::Warning };
            plan.find(level, format!("{flag} {}", pattern.text()), "no attached table has such a column");
        }
    }
}
