//! Registers as columns: the statements follow from the model, so a register added there is readable here.

use super::sql;
use crate::error::{Result, StoreError};
use arrow_array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use muniment_model::{Column, Table, Type};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Row};
use std::sync::Arc;

/// All rows of a register in the order of its primary key.
pub(super) async fn read(pool: &SqlitePool, table: &'static Table) -> Result<RecordBatch> {
    let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    let text = format!("SELECT {} FROM {} ORDER BY {}", names.join(", "), table.name, names[0]);
    let rows = match sqlx::query(AssertSqlSafe(text)).fetch_all(pool).await {
        // Opened for reading only, a data folder that is older than the register.
        Err(error) if error.as_database_error().is_some_and(|error| error.message().starts_with("no such table")) => Vec::new(),
        rows => rows.map_err(StoreError::database("reading a register"))?,
    };
    let columns = table.columns.iter().enumerate().map(|(at, column)| read_column(&rows, at, column)).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(table.data_schema(), columns, &options).map_err(StoreError::arrow("building a register"))
}

fn read_column(rows: &[SqliteRow], at: usize, column: &Column) -> Result<ArrayRef> {
    fn values<'r, T>(rows: &'r [SqliteRow], at: usize) -> Result<Vec<Option<T>>>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        rows.iter().map(|row| row.try_get(at).map_err(StoreError::database("reading a register"))).collect()
    }
    Ok(match column.ty {
        Type::Int { .. } => Arc::new(Int64Array::from(values::<i64>(rows, at)?)),
        Type::Bool => Arc::new(BooleanArray::from(values::<bool>(rows, at)?)),
        Type::Timestamp => Arc::new(TimestampMicrosecondArray::from(values::<i64>(rows, at)?).with_timezone("UTC")),
        Type::Decimal { precision, scale } => {
            let scaled: Vec<Option<i128>> = values::<i64>(rows, at)?.into_iter().map(|v| v.map(i128::from)).collect();
            let array = Decimal128Array::from(scaled).with_precision_and_scale(precision, scale as i8);
            Arc::new(array.map_err(StoreError::arrow("building a register"))?)
        }
        Type::Text { .. } | Type::Json { .. } | Type::Inet | Type::Uuid | Type::Hash => {
            Arc::new(StringArray::from(values::<&str>(rows, at)?))
        }
    })
}

/// Changes of registers that wait to be read.
pub(super) async fn waiting(pool: &SqlitePool, source: &str) -> Result<u64> {
    let fail = || StoreError::database("counting changes of registers");
    let audited: i64 = sqlx::query_scalar(sql!("exists_audit_queue")).fetch_one(pool).await.map_err(fail())?;
    if audited == 0 {
        return Ok(0);
    }
    let waiting: i64 = sqlx::query_scalar(sql!("count_audit_queue")).bind(source).fetch_one(pool).await.map_err(fail())?;
    Ok(waiting.unsigned_abs())
}
