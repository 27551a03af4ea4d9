//! Tables of a new data folder, and those that an older one lacks.

use super::sql;
use crate::error::{Result, StoreError};
use muniment_model::{Dialect, Table};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use std::collections::HashSet;

/// The register that is a view of the queue which the triggers of the others write.
const QUEUE: &str = "sys_audit_queue";

/// Creates what is missing, all of it or nothing. `origin` names a new log.
pub(super) async fn create(connection: &mut SqliteConnection, origin: &str, now: i64) -> Result<()> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::database("beginning"))?;
    let present: HashSet<String> = sqlx::query_scalar(sql!("select_tables"))
        .fetch_all(&mut *transaction)
        .await
        .map_err(StoreError::database("reading the schema"))?
        .into_iter()
        .collect();
    let fail = || StoreError::database("creating the tables");
    sqlx::raw_sql(sql!("create_capture_source")).execute(&mut *transaction).await.map_err(fail())?;
    sqlx::raw_sql(sql!("create_follower")).execute(&mut *transaction).await.map_err(fail())?;
    let fresh = !present.contains("installation");
    if fresh {
        sqlx::raw_sql(sql!("schema")).execute(&mut *transaction).await.map_err(fail())?;
    }
    for table in muniment_model::registers() {
        if table.name == QUEUE {
            if present.contains(QUEUE) {
                sqlx::raw_sql(sql!("drop_audit_queue")).execute(&mut *transaction).await.map_err(fail())?;
            }
            sqlx::raw_sql(sql!("create_audit_queue_view")).execute(&mut *transaction).await.map_err(fail())?;
        } else if present.contains(table.name) {
            add_columns(&mut transaction, table).await?;
        } else {
            let text = table.create_table_sql(Dialect::Sqlite);
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *transaction).await.map_err(fail())?;
        }
    }
    if fresh {
        sqlx::query(sql!("insert_installation")).bind(origin).bind(now).execute(&mut *transaction).await.map_err(fail())?;
    }
    transaction.commit().await.map_err(fail())
}

/// Adds the columns that a register has got since the folder was made.
async fn add_columns(connection: &mut SqliteConnection, table: &'static Table) -> Result<()> {
    let fail = || StoreError::database("adding columns to a register");
    let present: HashSet<String> = sqlx::query_scalar(sql!("select_columns"))
        .bind(table.name)
        .fetch_all(&mut *connection)
        .await
        .map_err(fail())?
        .into_iter()
        .collect();
    for column in table.columns.iter().filter(|column| !present.contains(column.name)) {
        let text = table.add_column_sql(column, Dialect::Sqlite);
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *connection).await.map_err(fail())?;
    }
    Ok(())
}
