//! Reads chunks of tables on a connection of its own, in the order in which rows lie in their file: that needs no key and no index.

use super::chunk::{Chunk, ChunkRow, Progress};
use crate::change::{Attribution, Context, LineHead, LineTail, Operation};
use crate::error::{CaptureError, Result};
use crate::postgres::connection::Server;
use crate::postgres::patterns::{identifier, qualified};
use crate::postgres::pgoutput::{Column, Relation, TypeName};
use crate::postgres::position::parse_lsn;
use crate::postgres::relations::{ColumnRules, Relations, Table};
use crate::postgres::side::masked_columns;
use crate::postgres::stream::ReplicationSource;
use crate::postgres::transaction;
use crate::row::Value;
use futures::TryStreamExt;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgRow, PgValueFormat};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row, ValueRef};
use std::time::Duration;

/// Rows and bytes after which a chunk is full.
const CHUNK_ROWS: usize = 8192;
const CHUNK_BYTES: usize = 4 << 20;
/// Rows asked for at once.
const FETCH: &str = "FETCH 256 FROM muniment_baseline";
/// A database that doesn't answer for so long is as good as gone.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What a step came to.
pub(super) enum Outcome {
    /// No baseline is due.
    Nothing,
    /// The next chunk.
    Chunk(Box<Chunk>),
}

/// Reads chunks.
pub(crate) struct Reader {
    server: Server,
    source: String,
    rules: ColumnRules,
    connection: Option<PgConnection>,
}

/// A table whose baseline is due.
struct Due {
    relation: u32,
    baseline: i64,
}

/// A table's rows as this transaction sees them.
struct Seen {
    view: String,
    taken_at: i64,
    file: u32,
    is_partitioned: bool,
    schema: String,
    table: String,
}

fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> CaptureError {
    CaptureError::database(doing)
}

impl Reader {
    /// A reader of a source's tables.
    pub(crate) fn new(server: Server, source: &str, rules: ColumnRules) -> Self {
        Self { server, source: source.to_owned(), rules, connection: None }
    }

    /// A reader of the same source as a stream.
    pub(super) fn like(stream: &ReplicationSource) -> Result<Self> {
        let config = stream.config();
        Ok(Self::new(Server::parse(&config.url)?, &config.name, config.columns.clone()))
    }

    async fn connection(&mut self) -> Result<PgConnection> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.server.connect().await,
        }
    }

    /// Notes that all tables need a new baseline.
    pub(super) async fn again(&mut self) -> Result<()> {
        let mut connection = self.connection().await?;
        if is_installed(&mut connection).await? {
            let query = sqlx::query(include_str!("../sql/snapshot_again.sql")).bind(&self.source).execute(&mut connection);
            query.await.map_err(failed("asking for new baselines"))?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Reads the chunk after this progress, or the first one of the next table.
    pub(super) async fn step(&mut self, after: Option<Progress>) -> Result<Outcome> {
        let mut connection = self.connection().await?;
        let timed_out = |_| CaptureError::database("reading a baseline")(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        let outcome = tokio::time::timeout(TIMEOUT, self.try_step(&mut connection, after)).await.map_err(timed_out)??;
        self.connection = Some(connection);
        Ok(outcome)
    }

    async fn try_step(&self, connection: &mut PgConnection, mut after: Option<Progress>) -> Result<Outcome> {
        if !is_installed(connection).await? {
            return Ok(Outcome::Nothing);
        }
        if let Some(progress) = after.take_if(|progress| progress.is_end()) {
            self.done(connection, &Due { relation: progress.relation, baseline: progress.baseline }).await?;
        }
        while let Some(due) = self.due(connection).await? {
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed("beginning a baseline"))?;
            let read = self.read(connection, &due, after.as_ref()).await;
            let ended = connection.execute("COMMIT").await.map_err(failed("ending a baseline's transaction"));
            let chunk = read?;
            ended?;
            let Some(mut chunk) = chunk else {
                self.done(connection, &due).await?;
                continue;
            };
            chunk.high = mark(connection).await?;
            return Ok(Outcome::Chunk(Box::new(chunk)));
        }
        Ok(Outcome::Nothing)
    }

    async fn due(&self, connection: &mut PgConnection) -> Result<Option<Due>> {
        let query = sqlx::query(include_str!("../sql/snapshot_pending.sql")).bind(&self.source).fetch_optional(connection);
        let row = query.await.map_err(failed("looking for due baselines"))?;
        let read = |row: PgRow| Ok(Due { relation: row.try_get::<Oid, _>("relation")?.0, baseline: row.try_get("baseline")? });
        row.map(read).transpose().map_err(failed("looking for due baselines"))
    }

    async fn done(&self, connection: &mut PgConnection, due: &Due) -> Result<()> {
        let query = sqlx::query(include_str!("../sql/snapshot_done.sql")).bind(&self.source).bind(Oid(due.relation)).bind(due.baseline);
        query.execute(connection).await.map_err(failed("noting a baseline as taken"))?;
        Ok(())
    }

    /// The next rows of a table; `None` if there are no more.
    async fn read(&self, connection: &mut PgConnection, due: &Due, after: Option<&Progress>) -> Result<Option<Chunk>> {
        let Some(seen) = seen(connection, due.relation).await? else { return Ok(None) };
        let Some(table) = self.table(connection, due.relation).await? else { return Ok(None) };
        if seen.is_partitioned {
            return Ok(None);
        }
        let same = |progress: &&Progress| (progress.relation, progress.baseline, progress.file) == (due.relation, due.baseline, seen.file);
        let from = after.filter(same).and_then(|progress| progress.row).unwrap_or((0, 0));
        let columns: Vec<String> = table.columns.iter().map(|column| identifier(&column.row.name)).collect();
        let sql = format!(
            "DECLARE muniment_baseline NO SCROLL CURSOR FOR SELECT ctid, {} FROM ONLY {} WHERE ctid > '({},{})'::tid",
            columns.join(", "),
            qualified(&seen.schema, &seen.table),
            from.0,
            from.1
        );
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map_err(failed("reading a table"))?;
        let context = Context::default();
        let tail = LineTail::new(&context, Attribution::None, seen.taken_at, None);
        let writer =
            Writer { table: &table, tail, prefix: format!("{}:baseline/{}/{}/{}/", self.source, due.relation, due.baseline, seen.file) };
        let mut rows = Vec::new();
        let (mut last, mut bytes, mut ended) = (None, 0, false);
        while !ended && rows.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
            let mut fetched = sqlx::raw_sql(FETCH).fetch(&mut *connection);
            ended = true;
            while let Some(row) = fetched.try_next().await.map_err(failed("reading a table"))? {
                ended = false;
                let (place, row) = writer.write(&row)?;
                bytes += row.line.len();
                rows.push(row);
                last = Some(place);
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let progress = Progress { relation: due.relation, baseline: due.baseline, file: seen.file, row: last.filter(|_| !ended) };
        Ok(Some(Chunk::new(table.name.clone(), seen.view.parse()?, u64::MAX, progress, rows)))
    }

    /// The table as the stream describes it.
    async fn table(&self, connection: &mut PgConnection, relation: u32) -> Result<Option<Table>> {
        let query =
            sqlx::query(include_str!("../sql/snapshot_table.sql")).bind(&self.source).bind(Oid(relation)).fetch_all(&mut *connection);
        let found = query.await.map_err(failed("reading a table's columns"))?;
        let Some(first) = found.first() else { return Ok(None) };
        let mut relations = Relations::new(self.rules.clone());
        let mut described = || -> Result<(Relation, Vec<String>), sqlx::Error> {
            let identity: String = first.try_get("identity")?;
            let (schema, name) = (first.try_get("schema_name")?, first.try_get("table_name")?);
            let mut described =
                Relation { oid: relation, schema, name, identity: identity.bytes().next().unwrap_or(b'd'), columns: Vec::new() };
            let mut key: Vec<(i32, String)> = Vec::new();
            for row in &found {
                let name: String = row.try_get("column_name")?;
                if let Some(place) = row.try_get::<Option<i32>, _>("key_place")? {
                    key.push((place, name.clone()));
                }
                let (type_oid, base): (Oid, Oid) = (row.try_get("type_oid")?, row.try_get("base_oid")?);
                if base != type_oid {
                    relations.note_type(type_oid.0, &TypeName { schema: String::new(), name: row.try_get("base_name")? });
                }
                described.columns.push(Column { key: row.try_get("is_identity")?, name, type_oid: type_oid.0 });
            }
            key.sort();
            Ok((described, key.into_iter().map(|(_, name)| name).collect()))
        };
        let (described, key) = described().map_err(failed("reading a table's columns"))?;
        let masked = masked_columns(connection, relation).await.map_err(failed("reading a table's columns"))?;
        relations.note_table(described, &key, &masked);
        Ok(relations.take_table(relation))
    }
}

/// Whether what attaching has set up is still there.
async fn is_installed(connection: &mut PgConnection) -> Result<bool> {
    let query = sqlx::query_scalar("SELECT to_regclass('muniment.attached') IS NOT NULL").fetch_one(connection);
    query.await.map_err(failed("looking for due baselines"))
}

async fn seen(connection: &mut PgConnection, relation: u32) -> Result<Option<Seen>> {
    let query = sqlx::query(include_str!("../sql/snapshot_view.sql")).bind(Oid(relation)).fetch_optional(connection);
    let row = query.await.map_err(failed("beginning a baseline"))?;
    let read = |row: PgRow| {
        Ok(Seen {
            view: row.try_get("snapshot")?,
            taken_at: row.try_get("taken_at")?,
            file: row.try_get::<Oid, _>("file")?.0,
            is_partitioned: row.try_get::<String, _>("kind")? == "p",
            schema: row.try_get("schema_name")?,
            table: row.try_get("table_name")?,
        })
    };
    row.map(read).transpose().map_err(failed("beginning a baseline"))
}

/// The LSN before which all that a chunk saw was committed; and a transaction behind it, so that the stream of an idle database gets there.
async fn mark(connection: &mut PgConnection) -> Result<u64> {
    let query = sqlx::query_scalar::<_, String>("SELECT pg_current_wal_insert_lsn()::text").fetch_one(&mut *connection);
    let high = query.await.map_err(failed("reading the WAL's position"))?;
    connection.execute("SELECT pg_logical_emit_message(true, 'muniment.heartbeat', '')").await.map_err(failed("writing a heartbeat"))?;
    parse_lsn(&high).ok_or_else(|| CaptureError::Malformed(format!("{high:?} is no LSN")))
}

/// Writes rows as SNAPSHOT records.
struct Writer<'a> {
    table: &'a Table,
    tail: LineTail,
    prefix: String,
}

impl Writer<'_> {
    /// A row's place in its file, and its record.
    fn write(&self, row: &PgRow) -> Result<((u32, u16), ChunkRow)> {
        let mut values = Vec::with_capacity(row.len() - 1);
        let place = match text(row, 0)? {
            Some(place) => Progress::place(place)?,
            None => return Err(CaptureError::Malformed("a row without a place".into())),
        };
        for at in 1..row.len() {
            values.push(text(row, at)?.map_or(Value::Null, Value::Text));
        }
        let key = transaction::key(self.table, &values);
        let mut new = Vec::new();
        transaction::write_row(self.table, &values, |_| true, &mut new);
        let position = format!("{}{}/{}", self.prefix, place.0, place.1);
        let mut line = Vec::with_capacity(new.len() + 300);
        let (table, operation) = (&self.table.name, Operation::Snapshot);
        let head = LineHead { table, operation, key: &key, old: None, new: Some(&new), details: None, position: Some(&position) };
        head.write(&self.tail, &mut line);
        Ok((place, ChunkRow { key: key.into_owned(), line }))
    }
}

/// A value's text as the server writes it.
fn text(row: &PgRow, at: usize) -> Result<Option<&str>> {
    let value = row.try_get_raw(at).map_err(failed("reading a row"))?;
    if value.is_null() {
        return Ok(None);
    }
    if value.format() != PgValueFormat::Text {
        return Err(CaptureError::Malformed("the server sent a value in binary form".into()));
    }
    value.as_str().map(Some).map_err(|error| CaptureError::Malformed(format!("a value is not UTF-8: {error}")))
}
