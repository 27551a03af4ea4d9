//! sqlx: a transaction that has said who acts. The whole application is in `examples/axum-sqlx`.

use sqlx::{PgPool, Postgres, Transaction};

/// Begins a transaction in which every change is this user's.
pub async fn begin_as(pool: &PgPool, context: &serde_json::Value) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT muniment.context($1::text::jsonb)").bind(context.to_string()).execute(&mut *transaction).await?;
    Ok(transaction)
}
