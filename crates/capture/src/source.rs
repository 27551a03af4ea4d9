//! The contract between a source of changes and whoever stores them.

use crate::error::Result;
use async_trait::async_trait;

/// Changes to be stored in one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Lines of `sys_audit_log` (NDJSON), in the source's order. May be empty: then only the position moves.
    pub changes: Vec<u8>,
    /// Number of those lines.
    pub records: usize,
    /// Lines of `security_audit_log` (NDJSON): unattributed writes, gaps, bypassed triggers. Few; a function of the changes alone.
    pub findings: Vec<u8>,
    /// Whether definitions of tables are among the changes, of a source that takes baselines.
    pub ddl: bool,
    /// Whether somebody waits for the position to be stored, even if nothing comes with it.
    pub is_awaited: bool,
    /// Position after this batch, stored in the same commit as its changes.
    pub position: String,
}

/// A source of changes that is read in its own order and can be read again from any position that was stored and not yet confirmed.
#[async_trait]
pub trait Source: Send {
    /// Begins, or begins again, after the stored position; `None` the first time. Called before [`Source::next`] and after every failure.
    ///
    /// # Errors
    /// If the source can't be reached, or no longer has what comes after the position.
    async fn start(&mut self, position: Option<&str>) -> Result<()>;

    /// The next batch. Waits until there is something to store or a position to move to; may be cancelled while it waits, losing nothing.
    ///
    /// # Errors
    /// If the source fails; what it had not handed out comes again after [`Source::start`].
    async fn next(&mut self) -> Result<Batch>;

    /// Tells the source that everything up to this position is durable here.
    ///
    /// # Errors
    /// If the source can't be told.
    async fn confirm(&mut self, position: &str) -> Result<()>;
}
