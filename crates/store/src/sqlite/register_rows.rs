//! Single rows of registers; the statements follow from the model.

use super::sql;
use crate::error::{Result, StoreError};
use crate::register::{ChangedBy, Lookup, RegisterChange, RegisterRow, Value, Values};
use muniment_model::{Table, Type};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Connection, Row, SqliteConnection};

/// Rows with the given values, in the order of their `id`.
pub(super) async fn find(pool: &SqlitePool, lookup: &Lookup) -> Result<Vec<RegisterRow>> {
    let table = lookup.table;
    known(table, &lookup.equal)?;
    known(table, &lookup.above)?;
    known(table, &lookup.up_to)?;
    let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    let conditions: String = lookup.equal.iter().map(|(name, _)| format!(" AND {name} IS ?")).collect();
    let above: String = lookup.above.iter().map(|(name, _)| format!(" AND {name} > ?")).collect();
    let up_to: String = lookup.up_to.iter().map(|(name, _)| format!(" AND {name} <= ?")).collect();
    let order = if lookup.newest_first { " DESC" } else { "" };
    let columns = names.join(", ");
    let text = format!("SELECT {columns} FROM {} WHERE id > ?{conditions}{above}{up_to} ORDER BY id{order} LIMIT ?", table.name);
    let mut bound: Vec<&Value> = lookup.equal.iter().chain(&lookup.above).chain(&lookup.up_to).map(|(_, value)| value).collect();
    let (after, limit) = (Value::Int(lookup.after), Value::Int(lookup.limit.into()));
    bound.insert(0, &after);
    bound.push(&limit);
    let query = sqlx::query_with(AssertSqlSafe(text), arguments(bound, &[])?);
    let rows = query.fetch_all(pool).await.map_err(StoreError::database("looking into a register"))?;
    rows.iter().map(|row| read(table, row)).collect()
}

fn read(table: &'static Table, row: &SqliteRow) -> Result<RegisterRow> {
    let failed = || StoreError::database("looking into a register");
    let value = |(at, column): (usize, &'static muniment_model::Column)| {
        let value = match column.ty {
            Type::Int { .. } | Type::Timestamp | Type::Decimal { .. } => row.try_get::<Option<i64>, _>(at).map(Value::from),
            Type::Bool => row.try_get::<Option<bool>, _>(at).map(Value::from),
            Type::Text { .. } | Type::Json { .. } | Type::Inet | Type::Uuid | Type::Hash => {
                row.try_get::<Option<String>, _>(at).map(Value::from)
            }
        };
        Ok((column.name, value.map_err(failed())?))
    };
    Ok(RegisterRow { values: table.columns.iter().enumerate().map(value).collect::<Result<_>>()? })
}

/// Makes all changes in one transaction.
pub(super) async fn change(connection: &mut SqliteConnection, changes: &[RegisterChange], by: &ChangedBy) -> Result<Vec<i64>> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::database("beginning"))?;
    let ids = change_within(&mut transaction, changes, by).await?;
    transaction.commit().await.map_err(StoreError::database("committing a change of a register"))?;
    Ok(ids)
}

/// Makes all changes in a transaction that has begun; the triggers of the registers see who makes them.
pub(super) async fn change_within(connection: &mut SqliteConnection, changes: &[RegisterChange], by: &ChangedBy) -> Result<Vec<i64>> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let fail = || StoreError::database("saying who changes a register");
    let audited: i64 = sqlx::query_scalar(sql!("exists_context")).fetch_one(&mut *connection).await.map_err(fail())?;
    if audited > 0 {
        sqlx::query(sql!("insert_context")).bind(context(by)).execute(&mut *connection).await.map_err(fail())?;
    }
    let mut ids = Vec::with_capacity(changes.len());
    for change in changes {
        let id = one(&mut *connection, change, &ids).await?;
        ids.push(id);
    }
    if audited > 0 {
        sqlx::query(sql!("delete_context")).execute(&mut *connection).await.map_err(fail())?;
    }
    Ok(ids)
}

/// What the triggers write beside each change: the document that any audited application gives, see `docs/capture-queue.md`.
fn context(by: &ChangedBy) -> String {
    let name = Some(by.username.as_str()).filter(|name| !name.is_empty());
    serde_json::json!({
        "user_id": by.user_id, "user_name": name, "session_id": by.session_id, "ip_address": by.ip_address, "user_agent": by.user_agent,
        "business_context": by.business_context, "change_reason": by.reason, "correlation_id": by.correlation_id,
    })
    .to_string()
}

/// One change, after those that have the numbers `made`.
async fn one(connection: &mut SqliteConnection, change: &RegisterChange, made: &[i64]) -> Result<i64> {
    let (table, text) = statement(change)?;
    let bound: Vec<&Value> = match change {
        RegisterChange::Insert { values, .. } => values.iter().map(|(_, value)| value).collect(),
        RegisterChange::Update { values, expected, .. } => values.iter().chain(expected).map(|(_, value)| value).collect(),
        RegisterChange::Delete { .. } => Vec::new(),
    };
    let query = sqlx::query_scalar_with::<_, i64, _>(AssertSqlSafe(text), arguments(bound, made)?);
    let id = query.fetch_optional(connection).await.map_err(|error| refused(table, error))?;
    id.ok_or_else(|| StoreError::Conflict { table: table.name, reason: "the row is not there, or was changed meanwhile".to_owned() })
}

/// The text of a change. Numbers of rows are written out; values are bound in order.
fn statement(change: &RegisterChange) -> Result<(&'static Table, String)> {
    Ok(match change {
        RegisterChange::Insert { table, values } => {
            known(table, values)?;
            let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
            let places = vec!["?"; names.len()].join(", ");
            let text = if names.is_empty() {
                format!("INSERT INTO {} DEFAULT VALUES RETURNING id", table.name)
            } else {
                format!("INSERT INTO {} ({}) VALUES ({places}) RETURNING id", table.name, names.join(", "))
            };
            (table, text)
        }
        RegisterChange::Update { table, id, values, expected } => {
            known(table, values)?;
            known(table, expected)?;
            let set: Vec<String> = values.iter().map(|(name, _)| format!("{name} = ?")).collect();
            let conditions: String = expected.iter().map(|(name, _)| format!(" AND {name} IS ?")).collect();
            (table, format!("UPDATE {} SET {} WHERE id = {id}{conditions} RETURNING id", table.name, set.join(", ")))
        }
        RegisterChange::Delete { table, id } => (table, format!("DELETE FROM {} WHERE id = {id} RETURNING id", table.name)),
    })
}

fn known(table: &Table, values: &Values) -> Result<()> {
    match values.iter().find(|(name, _)| table.column(name).is_none()) {
        Some((unknown, _)) => Err(StoreError::Damaged(format!("{} has no column {unknown}", table.name))),
        None => Ok(()),
    }
}

fn arguments(values: Vec<&Value>, made: &[i64]) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Int(value) => arguments.add(*value),
            Value::Bool(value) => arguments.add(*value),
            Value::Text(value) => arguments.add(value.clone()),
            Value::Made(at) => match made.get(*at) {
                Some(id) => arguments.add(*id),
                None => return Err(StoreError::Damaged(format!("change {at} has made no row yet"))),
            },
        };
        added.map_err(|error| StoreError::database("binding a value")(sqlx::Error::Encode(error)))?;
    }
    Ok(arguments)
}

/// Violated keys, checks and references are the caller's matter, everything else the store's.
fn refused(table: &'static Table, error: sqlx::Error) -> StoreError {
    let violated = error.as_database_error().is_some_and(|error| {
        error.is_unique_violation()
            || error.is_foreign_key_violation()
            || error.is_check_violation()
            || error.message().contains("NOT NULL")
    });
    if violated {
        let reason = error.as_database_error().map_or_else(String::new, |error| error.message().to_owned());
        return StoreError::Conflict { table: table.name, reason };
    }
    StoreError::database("changing a register")(error)
}
