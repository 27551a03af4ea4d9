//! Rows that are there when a table is taken in, or comes to be others without row changes, as SNAPSHOT records between the changes of the queue.
//!
//! A chunk of rows is read in the same snapshot with which a wave ends, and handed out after that wave: then all changes that it saw have been handed out, and
//! none that it didn't see. How far a table is stands behind a space in the position, and is stored in the commit of the chunk's records.

use super::shapes::{self, Shapes};
use crate::error::{CaptureError, Result};
use crate::postgres::BaselineProgress;
use futures::TryStreamExt;
use sqlx::postgres::types::Oid;
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Rows and bytes after which a chunk is full.
const CHUNK_ROWS: usize = 4096;
const CHUNK_BYTES: usize = 4 << 20;
/// Rows asked for at once.
const FETCH: &str = "FETCH 256 FROM muniment_baseline";

/// A row as a trigger would have stored it.
#[derive(Debug)]
pub(super) struct ChunkRow {
    /// Its place within the source's baselines.
    pub position: String,
    pub image: String,
}

/// Rows of one table, to be handed out after the wave that ends with what it saw.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The name under which its rows are recorded.
    pub table: String,
    /// µs UTC.
    pub taken_at: i64,
    /// How far the table is after it.
    pub progress: BaselineProgress,
    pub rows: Vec<ChunkRow>,
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Step {
    /// No table is due.
    Nothing,
    /// A wave that was begun before has to be read first.
    WaveFirst,
    /// A wave was begun, with the next chunk behind it, and what tables are like in it.
    Chunk(Box<Chunk>, Shapes),
}

fn failed() -> impl FnOnce(sqlx::Error) -> CaptureError {
    CaptureError::database("reading a baseline")
}

/// Whether this queue knows baselines: one that an earlier version has set up doesn't.
pub(super) async fn is_known(connection: &mut PgConnection) -> Result<bool> {
    let query =
        sqlx::query_scalar("SELECT to_regclass('muniment.queue_baseline') IS NOT NULL AND to_regclass('muniment.queue_ending') IS NULL");
    query.fetch_one(connection).await.map_err(failed())
}

/// Notes that a table's rows are recorded.
pub(super) async fn done(connection: &mut PgConnection, relation: u32, number: i64) -> Result<()> {
    let query = sqlx::query("DELETE FROM muniment.queue_baseline WHERE relation = $1 AND number = $2").bind(Oid(relation)).bind(number);
    query.execute(connection).await.map(drop).map_err(failed())
}

/// Notes that all tables have to be read again, since changes may be missing.
pub(super) async fn again(connection: &mut PgConnection) -> Result<()> {
    let query = sqlx::query("SELECT muniment.queue_again(relation, true) FROM muniment.queue_table").execute(connection);
    query.await.map(drop).map_err(failed())
}

/// Reads the chunk after this progress, or the first one of the next table, and begins the wave after `wave` with what it sees.
pub(super) async fn step(connection: &mut PgConnection, source: &str, wave: i64, after: Option<&BaselineProgress>) -> Result<Step> {
    loop {
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ").execute(&mut *connection).await.map_err(failed())?;
        let due = sqlx::query(include_str!("sql/due_baseline.sql")).fetch_optional(&mut *connection).await.map_err(failed())?;
        let Some(due) = due else {
            sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(failed())?;
            return Ok(Step::Nothing);
        };
        let relation = due.try_get::<Oid, _>("relation").map_err(failed())?.0;
        let number: i64 = due.try_get("number").map_err(failed())?;
        let name: Option<String> = due.try_get("relation_name").map_err(failed())?;
        let table: Option<String> = due.try_get("table_name").map_err(failed())?;
        let (Some(name), Some(table)) = (name, table) else {
            done(connection, relation, number).await?;
            sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(failed())?;
            continue;
        };
        let begun = sqlx::query_scalar::<_, i64>(include_str!("sql/begin_chunk.sql")).bind(wave).fetch_optional(&mut *connection);
        let Some(taken_at) = begun.await.map_err(failed())? else {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.map_err(failed())?;
            return Ok(Step::WaveFirst);
        };
        let excluded: Vec<String> = due.try_get("excluded").map_err(failed())?;
        let masks: String = due.try_get("masks").map_err(failed())?;
        let file = due.try_get::<Oid, _>("file").map_err(failed())?.0;
        let same = |progress: &&BaselineProgress| (progress.relation, progress.baseline, progress.file) == (relation, number, file);
        let from = after.filter(same).and_then(|progress| progress.row).unwrap_or((0, 0));
        let shapes = shapes::load(connection).await?;
        let image =
            if excluded.is_empty() && masks == "{}" { "row_to_json(t.*)" } else { "((to_jsonb(t.*) - $1::text[]) || $2::jsonb)::json" };
        let declare = format!(
            "DECLARE muniment_baseline NO SCROLL CURSOR FOR SELECT t.ctid::text, CASE WHEN octet_length(i.image::text) > 33554432 THEN muniment.queue_omitted(i.image) \
             ELSE i.image::text END FROM ONLY {name} AS t CROSS JOIN LATERAL (SELECT {image} AS image OFFSET 0) i WHERE t.ctid > '({},{})'::tid",
            from.0, from.1
        );
        let mut query = sqlx::query(AssertSqlSafe(declare)).persistent(false);
        if !image.starts_with("row_to_json") {
            query = query.bind(&excluded).bind(&masks);
        }
        query.execute(&mut *connection).await.map_err(failed())?;
        let (mut rows, mut last, mut bytes, mut ended) = (Vec::new(), None, 0, false);
        while !ended && rows.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
            let mut fetched = sqlx::query(FETCH).persistent(false).fetch(&mut *connection);
            ended = true;
            while let Some(row) = fetched.try_next().await.map_err(failed())? {
                let (place, image): (String, String) = (row.try_get(0).map_err(failed())?, row.try_get(1).map_err(failed())?);
                let place = BaselineProgress::place(&place)?;
                (ended, last, bytes) = (false, Some(place), bytes + image.len());
                rows.push(ChunkRow { position: format!("{source}:baseline/{relation}/{number}/{file}/{}/{}", place.0, place.1), image });
            }
        }
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(failed())?;
        let progress = BaselineProgress { relation, baseline: number, file, row: last.filter(|_| !ended) };
        return Ok(Step::Chunk(Box::new(Chunk { table, taken_at, progress, rows }), shapes));
    }
}
