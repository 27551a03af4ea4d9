//! The changes of Muniment's own registers, captured like anybody's tables: by triggers in the commit database and their queue. So a change that somebody makes there
//! with another program is on the record, too.

use super::runner::Running;
use super::status::SourceStatus;
use super::{Captures, attach, position_name};
use crate::engine::Engine;
use crate::error::Result;
use muniment_capture::open::{REGISTERS, REGISTERS_SCHEMA, audit_registers};
use muniment_model::Table;
use muniment_store::Store;
use muniment_store::db::CaptureSourceRow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Name of the source.
pub(super) const REGISTERS_SOURCE: &str = "muniment";
/// The queue itself is no register that is audited.
const QUEUE: &str = "sys_audit_queue";
/// How long a stop waits for changes that are not in the log yet; the next start takes in what is left.
const DRAIN: Duration = Duration::from_secs(5);
const DRAIN_PAUSE: Duration = Duration::from_millis(5);

fn audited() -> Vec<&'static Table> {
    muniment_model::registers().iter().copied().filter(|table| table.name != QUEUE).collect()
}

/// The source as a row; it is not stored, since it is there in every data folder whose database has triggers.
fn row(store: &Store) -> Option<CaptureSourceRow> {
    let url = store.db().audit_url()?;
    Some(CaptureSourceRow {
        name: REGISTERS_SOURCE.to_owned(),
        kind: REGISTERS.to_owned(),
        url,
        options: serde_json::json!({ "tables": [format!("{REGISTERS_SCHEMA}.*")] }).to_string(),
        attached_at: 0,
        state: attach::ATTACHED.to_owned(),
    })
}

/// The source, as far as the store knows.
pub(super) async fn status(store: &Store) -> Result<Option<SourceStatus>> {
    let Some(row) = row(store) else { return Ok(None) };
    let position = store.db().position(&position_name(REGISTERS_SOURCE)).await?;
    Ok(Some(SourceStatus::of(&row, position)))
}

impl Captures {
    fn set_registers(&self, running: Option<Running>) -> Option<Running> {
        std::mem::replace(&mut *self.registers.lock().unwrap_or_else(PoisonError::into_inner), running)
    }
}

impl Engine {
    /// Attaches the registers, and starts to read what their triggers write.
    pub(crate) async fn start_registers(self: &Arc<Self>) -> Result<()> {
        let Some(row) = row(self.store()) else { return Ok(()) };
        audit_registers(&row.url, &audited()).await?;
        self.captures().set_registers(Some(Running::start(self, row)));
        Ok(())
    }

    /// Waits until all changes of registers so far are in the log, for a few seconds at most; ends reading them.
    pub(super) async fn stop_registers(&self) {
        let Some(running) = self.captures().set_registers(None) else { return };
        if !matches!(tokio::time::timeout(DRAIN, self.settle_registers()).await, Ok(Ok(()))) {
            tracing::warn!("changes of registers are left for the next start");
        }
        running.stop().await;
    }

    /// Waits until all changes of registers so far are in `sys_audit_log`, and queries see them there.
    ///
    /// # Errors
    /// If the commit database can't be asked, or the engine has stopped.
    pub async fn settle_registers(&self) -> Result<()> {
        while self.waiting_register_changes().await? > 0 {
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
        // Whatever is answered by the committer is behind the commits that it was in the middle of.
        self.heartbeat(i64::MIN).await
    }

    /// Changes of registers that are not in `sys_audit_log` yet.
    ///
    /// # Errors
    /// If the commit database can't be asked.
    pub async fn waiting_register_changes(&self) -> Result<u64> {
        Ok(self.store().db().waiting_register_changes(&position_name(REGISTERS_SOURCE)).await?)
    }
}
