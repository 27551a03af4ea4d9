//! What is still in a queue that is to be detached.

use super::attach::connect;
use super::live::number;
use crate::error::{CaptureError, Result};
use sqlx::SqliteConnection;

/// A queue to which nothing is written any more.
pub(crate) struct Waiting(SqliteConnection);

impl Waiting {
    /// The queue of a file.
    pub(crate) async fn of(url: &str) -> Result<Self> {
        Ok(Self(connect(url).await?))
    }

    /// Whether all that is in it is stored, if this position is; dead letters aside.
    pub(crate) async fn is_stored(&mut self, position: &str) -> Result<bool> {
        let waits = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM muniment_audit_queue WHERE id > ? AND NOT is_dead)");
        let waits: bool = waits
            .bind(number(position).unwrap_or_default())
            .fetch_one(&mut self.0)
            .await
            .map_err(CaptureError::database("looking at what is not read yet"))?;
        Ok(!waits)
    }
}
