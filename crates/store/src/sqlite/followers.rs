//! Followers of logs, and the outbox of what follows.

use super::{register_rows, rows, sql};
use crate::error::{Result, StoreError};
use crate::follow::{Advance, FollowerRow, OutboxRow, StreamCommit};
use sqlx::sqlite::SqlitePool;
use sqlx::{Connection, SqliteConnection};

pub(super) async fn read(pool: &SqlitePool, name: &str) -> Result<Option<FollowerRow>> {
    let query = sqlx::query(sql!("select_follower")).bind(name);
    let row = query.fetch_optional(pool).await.map_err(StoreError::database("reading a follower"))?;
    row.map(|row| Ok(FollowerRow { position: rows::text(&row, "position")?, state: rows::text(&row, "state")? })).transpose()
}

/// Stores a step in one transaction.
pub(super) async fn advance(connection: &mut SqliteConnection, step: &Advance) -> Result<Vec<i64>> {
    let fail = || StoreError::database("moving a follower");
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::database("beginning"))?;
    let moved = sqlx::query(sql!("upsert_follower"))
        .bind(&step.name)
        .bind(&step.from)
        .bind(&step.to.position)
        .bind(&step.to.state)
        .bind(step.time)
        .execute(&mut *transaction)
        .await
        .map_err(fail())?;
    if moved.rows_affected() == 0 {
        let reason = format!("{} is not where this step begins", step.name);
        return Err(StoreError::Conflict { table: "follower", reason });
    }
    let ids = register_rows::change_within(&mut transaction, &step.changes, &step.by).await?;
    for (log, line) in &step.records {
        sqlx::query(sql!("insert_outbox")).bind(*log).bind(line).execute(&mut *transaction).await.map_err(fail())?;
    }
    transaction.commit().await.map_err(fail())?;
    Ok(ids)
}

pub(super) async fn commits(pool: &SqlitePool, stream: &str, after: u64, limit: u32) -> Result<Vec<StreamCommit>> {
    let query = sqlx::query(sql!("select_stream_commits")).bind(stream).bind(after as i64).bind(i64::from(limit));
    let found = query.fetch_all(pool).await.map_err(StoreError::database("reading the commits of a stream"))?;
    found.iter().map(|row| Ok(StreamCommit { size: rows::unsigned(row, "size")?, number: rows::unsigned(row, "number")? })).collect()
}

pub(super) async fn outbox(pool: &SqlitePool, after: i64, limit: u32) -> Result<Vec<OutboxRow>> {
    let query = sqlx::query(sql!("select_outbox")).bind(after).bind(i64::from(limit));
    let found = query.fetch_all(pool).await.map_err(StoreError::database("reading the outbox"))?;
    found
        .iter()
        .map(|row| Ok(OutboxRow { id: rows::signed(row, "id")?, log: rows::text(row, "log")?, line: rows::text(row, "line")? }))
        .collect()
}

pub(super) async fn clear_outbox(connection: &mut SqliteConnection, up_to: i64) -> Result<()> {
    let query = sqlx::query(sql!("delete_outbox")).bind(up_to);
    query.execute(connection).await.map_err(StoreError::database("clearing the outbox"))?;
    Ok(())
}
