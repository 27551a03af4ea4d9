//! Registers as columns: the statements follow from the model, so a register added there is readable here.

use crate::error::{Result, StoreError};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use muniment_model::{Column, Table, Type};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use std::sync::Arc;

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

/// All rows of a register in the order of its primary key.
pub(super) async fn read(pool: &SqlitePool, table: &'static Table) -> Result<RecordBatch> {
    let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    let text = format!("SELECT {} FROM {} ORDER BY {}", names.join(", "), table.name, names[0]);
    let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(pool).await.map_err(StoreError::database("reading a register"))?;
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

/// Inserts the rows whose key is new; columns by name.
pub(super) async fn insert(connection: &mut SqliteConnection, table: &'static Table, rows: &RecordBatch) -> Result<u64> {
    let schema = rows.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| table.column(name).is_none()) {
        return Err(StoreError::Damaged(format!("{} has no column {unknown}", table.name)));
    }
    let places: Vec<String> = (1..=names.len()).map(|n| format!("${n}")).collect();
    let text = format!("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING", table.name, names.join(", "), places.join(", "));
    let fail = || StoreError::database("writing a register");
    let mut transaction = connection.begin().await.map_err(fail())?;
    let mut inserted = 0;
    for row in 0..rows.num_rows() {
        let mut query = sqlx::query(AssertSqlSafe(text.clone()));
        for (name, array) in names.iter().zip(rows.columns()) {
            if let Some(column) = table.column(name) {
                query = bind(query, array, row, column);
            }
        }
        inserted += query.execute(&mut *transaction).await.map_err(fail())?.rows_affected();
    }
    transaction.commit().await.map_err(fail())?;
    Ok(inserted)
}

fn bind<'q>(query: Query<'q>, array: &ArrayRef, row: usize, column: &Column) -> Query<'q> {
    let present = array.is_valid(row);
    match column.ty {
        Type::Int { .. } => query.bind(present.then(|| array.as_primitive::<Int64Type>().value(row))),
        Type::Bool => query.bind(present.then(|| array.as_boolean().value(row))),
        Type::Timestamp => query.bind(present.then(|| array.as_primitive::<TimestampMicrosecondType>().value(row))),
        Type::Decimal { .. } => query.bind(present.then(|| array.as_primitive::<Decimal128Type>().value(row) as i64)),
        Type::Text { .. } | Type::Json { .. } | Type::Inet | Type::Uuid | Type::Hash => {
            query.bind(present.then(|| array.as_string::<i32>().value(row).to_owned()))
        }
    }
}
