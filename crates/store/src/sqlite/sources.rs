//! The list of attached sources.

use super::rows;
use super::sql;
use crate::db::CaptureSourceRow;
use crate::error::{Result, StoreError};
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqlitePool, SqliteRow};

/// All attached sources by name; none in a data folder that is older than their table.
pub(super) async fn read(pool: &SqlitePool) -> Result<Vec<CaptureSourceRow>> {
    let fail = || StoreError::database("reading the sources");
    let known: i64 = sqlx::query_scalar(sql!("exists_capture_source")).fetch_one(pool).await.map_err(fail())?;
    if known == 0 {
        return Ok(Vec::new());
    }
    let found = sqlx::query(sql!("select_capture_sources")).fetch_all(pool).await.map_err(fail())?;
    found.iter().map(source).collect()
}

fn source(row: &SqliteRow) -> Result<CaptureSourceRow> {
    Ok(CaptureSourceRow {
        name: rows::text(row, "name")?,
        kind: rows::text(row, "kind")?,
        url: rows::text(row, "url")?,
        options: rows::text(row, "options")?,
        attached_at: rows::signed(row, "attached_at")?,
        state: rows::text(row, "state")?,
    })
}

pub(super) async fn put(connection: &mut SqliteConnection, source: &CaptureSourceRow) -> Result<()> {
    sqlx::query(sql!("upsert_capture_source"))
        .bind(&source.name)
        .bind(&source.kind)
        .bind(&source.url)
        .bind(&source.options)
        .bind(source.attached_at)
        .bind(&source.state)
        .execute(connection)
        .await
        .map_err(StoreError::database("writing a source"))?;
    Ok(())
}

pub(super) async fn remove(connection: &mut SqliteConnection, name: &str) -> Result<()> {
    sqlx::query(sql!("delete_capture_source")).bind(name).execute(connection).await.map_err(StoreError::database("removing a source"))?;
    Ok(())
}
