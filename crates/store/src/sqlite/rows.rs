//! Rows of the commit database to and from the store's types.

use super::sql;
use crate::db::{BatchRow, Extent, FileRow, Loaded, MetaHeadRow, StreamRow};
use crate::error::{Result, StoreError};
use bytes::Bytes;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

fn get<'r, T>(row: &'r SqliteRow, column: &'static str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(StoreError::database("reading a row"))
}

pub(super) fn unsigned(row: &SqliteRow, column: &'static str) -> Result<u64> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| StoreError::Damaged(format!("{column} is negative")))
}

pub(super) fn signed(row: &SqliteRow, column: &'static str) -> Result<i64> {
    get(row, column)
}

pub(super) fn text(row: &SqliteRow, column: &'static str) -> Result<String> {
    get(row, column)
}

pub(super) fn blob(row: &SqliteRow, column: &'static str) -> Result<Bytes> {
    get::<Vec<u8>>(row, column).map(Bytes::from)
}

pub(super) fn array<const N: usize>(bytes: Vec<u8>, what: &str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| StoreError::Damaged(format!("{what} does not have {N} bytes")))
}

pub(super) fn checkpoint(row: &SqliteRow) -> Result<(u64, String)> {
    Ok((unsigned(row, "size")?, text(row, "note")?))
}

fn extent(row: &SqliteRow, recorded_from: &'static str, recorded_to: &'static str) -> Result<Extent> {
    Ok(Extent {
        stream: text(row, "stream")?,
        first: unsigned(row, "first")?,
        end: unsigned(row, "end_index")?,
        first_id: get(row, "first_id")?,
        last_id: get(row, "last_id")?,
        recorded_from: get(row, recorded_from)?,
        recorded_to: get(row, recorded_to)?,
        min_time: get(row, "min_time")?,
        max_time: get(row, "max_time")?,
    })
}

fn file(row: &SqliteRow) -> Result<FileRow> {
    Ok(FileRow {
        path: text(row, "path")?,
        extent: extent(row, "recorded_from", "recorded_to")?,
        month: text(row, "month")?,
        bytes: unsigned(row, "bytes")?,
        sha256: array(get(row, "sha256")?, "the hash of a file")?,
        previous_hash: array(get(row, "previous_hash")?, "previous_hash")?,
        nodes: get(row, "nodes")?,
    })
}

fn stream(row: &SqliteRow) -> Result<StreamRow> {
    Ok(StreamRow {
        stream: text(row, "stream")?,
        log: text(row, "log")?,
        retention_years: u16::try_from(unsigned(row, "retention_years")?)
            .map_err(|_| StoreError::Damaged("retention_years is out of range".to_owned()))?,
        size: unsigned(row, "size")?,
        frontier: get(row, "frontier")?,
        last_hash: array(get(row, "last_hash")?, "last_hash")?,
        recorded_at: get(row, "recorded_at")?,
    })
}

async fn all<T>(connection: &mut SqliteConnection, text: &'static str, convert: fn(&SqliteRow) -> Result<T>) -> Result<Vec<T>> {
    let rows = sqlx::query(text).fetch_all(connection).await.map_err(StoreError::database("reading the catalog"))?;
    rows.iter().map(convert).collect()
}

/// Reads everything [`Loaded`] has, in the caller's transaction.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Loaded> {
    let origin = sqlx::query(sql!("select_installation"))
        .fetch_one(&mut *connection)
        .await
        .map_err(StoreError::database("reading the installation's name"))?;
    let meta = all(connection, sql!("select_meta_head"), |row| {
        Ok(MetaHeadRow { size: unsigned(row, "size")?, frontier: get(row, "frontier")?, time: get(row, "time")? })
    })
    .await?
    .pop();
    Ok(Loaded {
        origin: text(&origin, "origin")?,
        meta,
        checkpoint: all(connection, sql!("select_newest_checkpoint"), checkpoint).await?.pop(),
        streams: all(connection, sql!("select_streams"), stream).await?,
        next_ids: all(connection, sql!("select_log_heads"), |row| Ok((text(row, "log")?, get(row, "next_id")?))).await?,
        batches: all(connection, sql!("select_hot_batches"), |row| {
            Ok(BatchRow { extent: extent(row, "recorded_at", "recorded_at")?, bytes: unsigned(row, "bytes")? })
        })
        .await?,
        files: all(connection, sql!("select_files"), file).await?,
    })
}

/// Adds a file to the catalog.
pub(super) async fn insert_file(connection: &mut SqliteConnection, file: &FileRow, now: i64) -> Result<()> {
    let extent = &file.extent;
    sqlx::query(sql!("insert_file"))
        .bind(&file.path)
        .bind(&extent.stream)
        .bind(&file.month)
        .bind(extent.first as i64)
        .bind(extent.end as i64)
        .bind(extent.first_id)
        .bind(extent.last_id)
        .bind(extent.recorded_from)
        .bind(extent.recorded_to)
        .bind(extent.min_time)
        .bind(extent.max_time)
        .bind(file.bytes as i64)
        .bind(&file.sha256[..])
        .bind(&file.previous_hash[..])
        .bind(&file.nodes[..])
        .bind(now)
        .execute(connection)
        .await
        .map_err(StoreError::database("adding a file to the catalog"))?;
    Ok(())
}
