//! diesel: a transaction that says who acts before anything else.

use diesel::prelude::*;
use diesel::sql_types::Text;

/// Runs `work` in a transaction in which every change is this user's.
pub fn transaction_as<T, E: From<diesel::result::Error>>(
    connection: &mut PgConnection,
    context: &serde_json::Value,
    work: impl FnOnce(&mut PgConnection) -> Result<T, E>,
) -> Result<T, E> {
    connection.transaction(|connection| {
        diesel::sql_query("SELECT muniment.context($1::jsonb)").bind::<Text, _>(context.to_string()).execute(connection)?;
        work(connection)
    })
}
