//! tokio-postgres: a transaction that has said who acts. Dropped without commit it rolls back, so that nothing of it stays on a pooled connection.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Transaction};

/// Begins a transaction in which every change is this user's.
pub async fn begin_as<'a>(client: &'a mut Client, context: &serde_json::Value) -> Result<Transaction<'a>, Error> {
    let transaction = client.transaction().await?;
    // With its types named, the statement needs no round trip to be prepared.
    transaction.query_typed("SELECT muniment.context($1::jsonb)", &[(&context.to_string(), Type::TEXT)]).await?;
    Ok(transaction)
}
