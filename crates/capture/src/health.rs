//! How far a source is behind, as the database that it reads says.

use crate::error::Result;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A look at a source from outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Bytes of changes that the source has and Muniment has not yet stored.
    pub lag_bytes: Option<i64>,
    /// Seconds since the source was where Muniment is now.
    pub lag_seconds: Option<f64>,
    /// Bytes that the source keeps for Muniment.
    pub kept_bytes: Option<i64>,
    /// State of what is kept: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes that may still be written before the source drops changes that were not read; none if there is no limit.
    pub safe_wal_bytes: Option<i64>,
    /// What else is wrong, in words; empty if nothing is.
    pub complaints: Vec<String>,
}

/// Looks at a source from outside, beside the stream of its changes.
#[async_trait]
pub trait Monitor: Send {
    /// Looks, and does what has to be done regularly.
    ///
    /// # Errors
    /// If the source can't be asked.
    async fn look(&mut self) -> Result<Health>;
}
