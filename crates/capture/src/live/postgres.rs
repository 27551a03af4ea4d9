//! PostgreSQL's tables in one repeatable-read transaction.
//!
//! Which transactions it sees is known exactly: those that the snapshot doesn't name as running. A transaction's number has 32 bits in the log, so that
//! the position of its commit decides for old ones: what was committed in the WAL before the snapshot was taken is seen, unless it was still running then.

use super::{Includes, Live, LiveRow, LiveTable};
use crate::error::{CaptureError, Result};
use crate::open::SourceSpec;
use crate::plan::AttachOptions;
use crate::postgres::patterns::{column_patterns, identifier, qualified};
use crate::postgres::{Position, Server, parse_lsn};
use crate::row::{RowColumn, Value, ValueKind, row_json};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgRow, PgValueFormat};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row, ValueRef};
use std::time::{Duration, Instant};

const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
/// SQLSTATE of a lock that was not to be had in time; attempts, and the pause between them.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const LOCK_ATTEMPTS: usize = 60;
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// Characters of a key as they are; see [`crate::key_text`].
const KEY_CHARS: usize = 100;
/// How often an idle source is made to move.
const NUDGE_EVERY: Duration = Duration::from_secs(2);
const NUDGE: &str = "SELECT pg_logical_emit_message(true, 'muniment.heartbeat', '')";

/// Which transactions are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snapshot {
    /// Commits in the WAL before this place were over, or are in `running`.
    before: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads PostgreSQL's text: `xmin:xmax:running,…`.
    fn parse(text: &str, before: u64) -> Option<Self> {
        let mut parts = text.split(':').skip(1);
        let xmax = parts.next()?.parse().ok()?;
        let running = parts.next()?.split(',').filter(|number| !number.is_empty()).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { before, xmax, running })
    }

    /// Whether a transaction is seen whose number has 32 bits.
    fn sees_committed_at(&self, xid: u32, lsn: u64) -> bool {
        let is_running = self.running.iter().any(|running| *running as u32 == xid);
        let is_older = xid.wrapping_sub(self.xmax as u32) > u32::MAX / 2;
        !is_running && (lsn < self.before || is_older)
    }

    fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && !self.running.contains(&xid)
    }
}

struct Table {
    /// Quoted; without the tables that inherit from it, which are tables of their own.
    relation: String,
    columns: Vec<Column>,
    /// Places of the key's columns.
    key: Vec<usize>,
}

struct Column {
    quoted: String,
    row: RowColumn,
}

/// The tables of one snapshot.
pub(super) struct PostgresLive {
    connection: PgConnection,
    /// Beside the snapshot: makes the source move, and looks how far it is.
    side: PgConnection,
    nudged: Option<Instant>,
    is_queue: bool,
    snapshot: Snapshot,
    snapshot_text: String,
    /// Everything seen was committed before this place in the WAL.
    until: u64,
    tables: Vec<LiveTable>,
    uncaptured: Vec<String>,
    details: Vec<Table>,
}

fn doing(what: &'static str) -> impl FnOnce(sqlx::Error) -> CaptureError {
    CaptureError::database(what)
}

impl PostgresLive {
    pub(super) async fn open(spec: &SourceSpec<'_>) -> Result<Self> {
        let options: AttachOptions = serde_json::from_str(spec.options)
            .map_err(|error| CaptureError::Malformed(format!("the options of source {}: {error}", spec.name)))?;
        let is_queue = spec.kind != crate::open::POSTGRES;
        let server = Server::parse(spec.url)?;
        let (mut connection, mut side) = (server.connect().await?, server.connect().await?);
        let (mut tables, mut details) = (Vec::new(), Vec::new());
        let query = if is_queue { include_str!("sql/queue_tables.sql") } else { include_str!("sql/attached_tables.sql") };
        let mut query = sqlx::query(query);
        if !is_queue {
            query = query.bind(spec.name);
        }
        let rows = query.fetch_all(&mut side).await.map_err(doing("reading the list of tables"))?;
        for row in rows {
            let (live, table) = describe(&mut side, &row, &options, is_queue).await?;
            tables.push(live);
            details.push(table);
        }
        let uncaptured = uncaptured(&mut side, spec.name, is_queue).await?;
        begin(&mut connection, &details).await?;
        let before = insert_lsn(&mut side).await?;
        let snapshot_text: String = sqlx::query_scalar("SELECT pg_current_snapshot()::text")
            .fetch_one(&mut connection)
            .await
            .map_err(doing("taking a snapshot"))?;
        let until = insert_lsn(&mut side).await?;
        let strange = || CaptureError::Malformed(format!("{snapshot_text:?} is no snapshot"));
        let snapshot = Snapshot::parse(&snapshot_text, before).ok_or_else(strange)?;
        Ok(Self { connection, side, nudged: None, is_queue, snapshot, snapshot_text, until, tables, uncaptured, details })
    }
}

/// Tables that patterns take in and that are not attached. What was attached by an earlier version may not be able to tell.
async fn uncaptured(connection: &mut PgConnection, source: &str, is_queue: bool) -> Result<Vec<String>> {
    let (function, query) = match is_queue {
        true => ("muniment.queue_members()", include_str!("sql/uncaptured_by_queue.sql")),
        false => ("muniment.members(text)", include_str!("sql/uncaptured.sql")),
    };
    let known = sqlx::query_scalar::<_, bool>("SELECT to_regprocedure($1) IS NOT NULL").bind(function).fetch_one(&mut *connection);
    if !known.await.map_err(doing("looking for tables that are not captured"))? {
        return Ok(Vec::new());
    }
    let mut query = sqlx::query_scalar(query);
    if !is_queue {
        query = query.bind(source);
    }
    query.fetch_all(connection).await.map_err(doing("looking for tables that are not captured"))
}

/// Begins the transaction with locks on all tables, before its snapshot is taken. Without them, one that is emptied or rewritten meanwhile would look empty. Gives up
/// before the server would look for a deadlock, of which the application might be the victim, and tries again.
async fn begin(connection: &mut PgConnection, tables: &[Table]) -> Result<()> {
    let names = tables.iter().map(|table| table.relation.as_str()).collect::<Vec<_>>().join(", ");
    let lock = if tables.is_empty() { String::new() } else { format!("; LOCK TABLE {names} IN ACCESS SHARE MODE") };
    let begin = format!("{BEGIN}{lock}");
    let mut attempt = 1;
    loop {
        match connection.execute(sqlx::raw_sql(AssertSqlSafe(begin.as_str()))).await {
            Ok(_) => return Ok(()),
            Err(error)
                if attempt < LOCK_ATTEMPTS
                    && error.as_database_error().and_then(|error| error.code()).as_deref() == Some(LOCK_NOT_AVAILABLE) =>
            {
                connection.execute("ROLLBACK").await.map_err(doing("giving up a lock"))?;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(error) => return Err(doing("locking the tables against changes of their shape")(error)),
        }
        attempt += 1;
    }
}

/// Whether every row that was there when a table was attached, or rewritten, is in the log.
pub(super) async fn has_baselines(spec: &SourceSpec<'_>) -> Result<bool> {
    let mut connection = Server::parse(spec.url)?.connect().await?;
    let doing = || doing("looking for baselines that are due");
    if spec.kind != crate::open::POSTGRES {
        let known = sqlx::query_scalar("SELECT to_regclass('muniment.queue_baseline') IS NOT NULL").fetch_one(&mut connection);
        if !known.await.map_err(doing())? {
            return Ok(true);
        }
        let query = sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM muniment.queue_baseline)");
        return query.fetch_one(&mut connection).await.map_err(doing());
    }
    let query = sqlx::query_scalar(include_str!("sql/has_baselines.sql")).bind(spec.name);
    query.fetch_one(&mut connection).await.map_err(doing())
}

async fn insert_lsn(connection: &mut PgConnection) -> Result<u64> {
    let text: String = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text")
        .fetch_one(connection)
        .await
        .map_err(doing("reading the WAL's end"))?;
    parse_lsn(&text).ok_or_else(|| CaptureError::Malformed(format!("{text:?} is no LSN")))
}

async fn describe(connection: &mut PgConnection, row: &PgRow, options: &AttachOptions, is_queue: bool) -> Result<(LiveTable, Table)> {
    let doing = || CaptureError::database("reading the columns of a table");
    let text = |row: &PgRow, name: &str| row.try_get::<String, _>(name).map_err(doing());
    let (name, schema, table) = (text(row, "name")?, text(row, "schema_name")?, text(row, "table_name")?);
    let relation: Oid = row.try_get("relation").map_err(doing())?;
    let (excluded, masked) = (column_patterns(&options.exclude_columns)?, column_patterns(&options.mask_columns)?);
    let hidden = if is_queue { include_str!("sql/hidden_queued.sql") } else { include_str!("sql/hidden_attached.sql") };
    let hidden = sqlx::query(hidden).bind(relation).fetch_all(&mut *connection).await.map_err(doing())?;
    let is_hidden = |column: &str, how: &str| {
        let found = hidden.iter().filter(|row| row.try_get::<&str, _>("name").is_ok_and(|name| name == column));
        found.map(|row| row.try_get::<bool, _>(how)).find(|hidden| !matches!(hidden, Ok(false))).unwrap_or(Ok(false)).map_err(doing())
    };
    let (mut columns, mut key, mut optional) = (Vec::new(), Vec::new(), Vec::new());
    let rows = sqlx::query(include_str!("sql/columns.sql")).bind(relation).fetch_all(connection).await.map_err(doing())?;
    for row in rows {
        let column = text(&row, "name")?;
        if excluded.iter().any(|pattern| pattern.matches(&schema, &table, &column)) || is_hidden(&column, "is_excluded")? {
            continue;
        }
        if let Some(place) = row.try_get::<Option<i64>, _>("key_place").map_err(doing())? {
            key.push((place, columns.len()));
        }
        if row.try_get("is_generated").map_err(doing())? {
            optional.push(column.clone());
        }
        let is_masked = masked.iter().any(|pattern| pattern.matches(&schema, &table, &column)) || is_hidden(&column, "is_masked")?;
        let kind = ValueKind::of_postgres_type(&text(&row, "type")?);
        columns.push(Column { quoted: identifier(&column), row: RowColumn::new(column, kind, is_masked) });
    }
    key.sort_unstable();
    let mut key: Vec<usize> = key.into_iter().map(|(_, at)| at).collect();
    let has_key = !key.is_empty();
    if !has_key {
        key = (0..columns.len()).filter(|at| !optional.contains(&columns[*at].row.name)).collect();
    }
    let only = if row.try_get("is_partitioned").map_err(doing())? { "" } else { "ONLY " };
    Ok((LiveTable { name, has_key, optional }, Table { relation: format!("{only}{}", qualified(&schema, &table)), columns, key }))
}

impl Table {
    /// Selects the rows, each after the text of its key, as [`crate::key_text`] has it.
    fn select(&self) -> String {
        let columns = self.columns.iter().map(|column| format!(", t.{}", column.quoted)).collect::<String>();
        // `format` writes a value as its type does, as a cast to text does not for all of them.
        let text = |at: &usize| format!("format('%s', t.{})", self.columns[*at].quoted);
        let key = match self.key.as_slice() {
            [only] => format!("coalesce({}, 'null')", text(only)),
            key => {
                let item = |at: &usize| {
                    format!("CASE WHEN t.{} IS NULL THEN 'null' ELSE to_json({})::text END", self.columns[*at].quoted, text(at))
                };
                format!("concat('[', array_to_string(ARRAY[{}]::text[], ','), ']')", key.iter().map(item).collect::<Vec<_>>().join(", "))
            }
        };
        format!(
            "SELECT short.key{columns} FROM {} AS t CROSS JOIN LATERAL (SELECT {key} AS key) AS long CROSS JOIN LATERAL (SELECT CASE WHEN \
             char_length(long.key) <= {KEY_CHARS} THEN long.key ELSE left(long.key, 64) || '~' || left(encode(sha256(convert_to(long.key, 'UTF8')), 'hex'), 32) \
             END AS key) AS short ORDER BY short.key COLLATE \"C\"",
            self.relation
        )
    }

    fn row(&self, row: &PgRow) -> Result<LiveRow> {
        let doing = || CaptureError::database("reading a row");
        let key = text(row, 0).map_err(doing())?;
        let Value::Text(key) = key else { return Err(CaptureError::Malformed("a row whose key is not text".into())) };
        let values = (0..self.columns.len()).map(|at| text(row, at + 1)).collect::<Result<Vec<_>, _>>().map_err(doing())?;
        let mut json = Vec::new();
        row_json(self.columns.iter().map(|column| &column.row).zip(values), &mut json);
        let row = String::from_utf8(json).map_err(|_| CaptureError::Malformed("a row that is not UTF-8".into()))?;
        Ok(LiveRow { key: key.to_owned(), row })
    }
}

fn text(row: &PgRow, at: usize) -> Result<Value<'_>, sqlx::Error> {
    let value = row.try_get_raw(at)?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    debug_assert_eq!(value.format(), PgValueFormat::Text);
    let bytes = value.as_bytes().map_err(sqlx::Error::Decode)?;
    Ok(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text))
}

#[async_trait]
impl Live for PostgresLive {
    fn tables(&self) -> &[LiveTable] {
        &self.tables
    }

    fn uncaptured(&self) -> &[String] {
        &self.uncaptured
    }

    fn instant(&self) -> String {
        format!("snapshot {} before WAL {:X}/{:X}", self.snapshot_text, self.until >> 32, self.until & 0xffff_ffff)
    }

    async fn is_reached(&mut self, position: &str) -> Result<bool> {
        if self.is_queue {
            let query = sqlx::query_scalar(include_str!("sql/queue_reached.sql")).bind(&self.snapshot_text);
            return query.fetch_one(&mut self.side).await.map_err(doing("looking at the queue"));
        }
        // What follows a space is how far a baseline is.
        let stream = position.split(' ').next().unwrap_or_default();
        if !stream.is_empty() && stream.parse::<Position>()?.lsn >= self.until {
            return Ok(true);
        }
        if self.nudged.is_none_or(|nudged| nudged.elapsed() >= NUDGE_EVERY) {
            self.side.execute(NUDGE).await.map_err(doing("moving the source on"))?;
            self.nudged = Some(Instant::now());
        }
        Ok(false)
    }

    fn includes(&self) -> Includes {
        let snapshot = self.snapshot.clone();
        Box::new(move |transaction, _| {
            let parts =
                transaction.and_then(|text| text.rsplit_once('@')).and_then(|(name, place)| Some((name.rsplit_once(':')?.1, place)));
            let Some((number, place)) = parts else { return false };
            match (number.parse::<u64>(), parse_lsn(place)) {
                (Ok(number), Some(lsn)) => snapshot.sees_committed_at(number as u32, lsn),
                (Ok(number), None) => snapshot.sees(number),
                (Err(_), _) => false,
            }
        })
    }

    fn rows<'a>(&'a mut self, table: &str) -> Result<BoxStream<'a, Result<LiveRow>>> {
        let Some(at) = self.tables.iter().position(|live| live.name == table) else {
            return Err(CaptureError::Refused(format!("{table} is not attached")));
        };
        let table = &self.details[at];
        // The simple protocol sends every value as its type writes it, and row by row as they are read.
        let rows = sqlx::raw_sql(AssertSqlSafe(table.select())).fetch(&mut self.connection);
        Ok(rows.map(move |row| table.row(&row.map_err(doing("reading a table"))?)).boxed())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_snapshot_sees() {
        let snapshot = Snapshot::parse("8589934597:8589934700:8589934597,8589934650", 1000).unwrap();
        assert!(snapshot.sees(8_589_934_598) && !snapshot.sees(8_589_934_597) && !snapshot.sees(8_589_934_700));
        // Numbers of 32 bits: 5 and 58 were running, 108 is the next.
        assert!(!snapshot.sees_committed_at(5, 900) && !snapshot.sees_committed_at(58, 2000));
        assert!(snapshot.sees_committed_at(6, 900) && snapshot.sees_committed_at(6, 2000));
        assert!(!snapshot.sees_committed_at(108, 1000) && !snapshot.sees_committed_at(109, 1500));
        // The number came round long ago.
        assert!(snapshot.sees_committed_at(3_000_000_000, 10) && snapshot.sees_committed_at(109, 10));
        assert!(snapshot.sees_committed_at(4_294_967_290, 1500));
        assert_eq!(Snapshot::parse("5:5:", 0).unwrap().running, [0u64; 0]);
        assert!(Snapshot::parse("nonsense", 0).is_none());
    }
}
