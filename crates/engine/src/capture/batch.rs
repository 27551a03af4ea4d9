//! Storing a batch: its changes, its findings and the position after it in one commit.

use super::position_name;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::{Prepared, Receipt, SourcePosition, log_named};
use muniment_capture::Batch;
use muniment_model::Format;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The logs that changes and findings go to.
pub(super) const CHANGES: &str = "sys_audit_log";
pub(super) const FINDINGS: &str = "security_audit_log";
/// Memory that a batch needs for each byte: lines, columns, payloads.
const MEMORY_FACTOR: usize = 3;
/// Pause while other requests hold the memory there is, or records wait to be written to files.
const PAUSE: Duration = Duration::from_millis(50);

/// What moves a source from one position to the next.
pub(super) struct Step<'a> {
    pub source: &'a str,
    pub after: &'a str,
    pub batch: Batch,
}

impl Engine {
    /// Puts a batch in the queue for its commit, behind all that were put there before. Waits while limits are reached: a source can wait, and slows nobody.
    pub(super) async fn enqueue_batch(self: &Arc<Self>, step: Step<'_>) -> Result<oneshot::Receiver<Result<Receipt>>> {
        let Batch { changes, records, findings, position, ddl: _, is_awaited: _ } = step.batch;
        while self.store().hot_size().0 > self.limits().hot_bytes {
            tokio::time::sleep(PAUSE).await;
        }
        let memory = loop {
            let wanted = (changes.len() + findings.len()) * MEMORY_FACTOR;
            match self.budget().reserve(wanted) {
                Ok(memory) => break memory,
                Err(_) if wanted > self.limits().memory_bytes => return Err(EngineError::TooLarge { limit: self.limits().memory_bytes }),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        let findings = if findings.is_empty() { None } else { Some(Box::new(self.lines(FINDINGS, findings, None).await?)) };
        let mut prepared = self.lines(CHANGES, changes, Some(records)).await?;
        prepared.with = findings;
        prepared.position =
            Some(SourcePosition { source: position_name(step.source), value: position, after: Some(step.after.to_owned()) });
        prepared._memory = Some(memory);
        self.enqueue(prepared).await
    }

    /// Prepares lines of a log. Ids are taken here, so that they follow the order of batches.
    async fn lines(self: &Arc<Self>, log: &str, lines: Vec<u8>, records: Option<usize>) -> Result<Prepared> {
        let table = log_named(log)?;
        if lines.is_empty() {
            let parts = Vec::new();
            return Ok(Prepared {
                log: table,
                records: 0,
                first_id: 0,
                parts,
                idempotency: None,
                position: None,
                with: None,
                _memory: None,
            });
        }
        let first_id = records.map(|records| self.shared.allocate_ids(table, records));
        self.shared.prepare_in_turn(table, lines, Format::Ndjson, first_id).await
    }
}
