//! tokio-postgres: the context travels in the same round trip as BEGIN, since statements that are polled together are pipelined.

use tokio_postgres::{Client, Error};

/// Begins a transaction in which every change is this user's; COMMIT or ROLLBACK ends it.
pub async fn begin_as(client: &Client, context: &serde_json::Value) -> Result<(), Error> {
    let context = context.to_string();
    let said = client.query("SELECT muniment.context($1::text::jsonb)", &[&context]);
    let (begun, said) = futures::future::join(client.batch_execute("BEGIN"), said).await;
    begun.and(said.map(drop))
}
