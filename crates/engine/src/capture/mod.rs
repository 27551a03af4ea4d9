//! Capture in the running product: attached sources, a task for each, what they are doing, and attaching and detaching.
//!
//! A source's changes are stored with the position after them in one commit, and so are its findings; only then is the source told.

mod attach;
mod batch;
mod lag;
mod registers;
mod runner;
mod status;

pub use attach::{Actor, AttachRequest, Attachment, Farewell, Mode, without_password};
pub use status::{SourceState, SourceStatus};

use crate::engine::Engine;
use crate::error::Result;
use muniment_store::Store;
use muniment_store::db::CaptureSourceRow;
use runner::Running;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// When a source that falls behind becomes a finding.
#[derive(Clone, Copy, Debug)]
pub struct CaptureConfig {
    /// Bytes that the audited database keeps for Muniment.
    pub lag_bytes: u64,
    /// Time that the newest stored change lies behind.
    pub lag_time: Duration,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self { lag_bytes: 1 << 30, lag_time: Duration::from_secs(300) }
    }
}

/// Name under which a source's position is kept.
pub fn position_name(source: &str) -> String {
    format!("capture:{source}")
}

/// The tasks of all sources.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    /// By name. `None` until capture has been started.
    running: Mutex<Option<HashMap<String, Running>>>,
    /// The source of the registers' changes.
    registers: Mutex<Option<Running>>,
    /// One attaches or detaches at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Captures {
    fn insert(&self, name: &str, running: impl FnOnce() -> Running) {
        if let Some(all) = &mut *self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            all.insert(name.to_owned(), running());
        }
    }

    fn has(&self, name: &str) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().is_some_and(|all| all.contains_key(name))
    }

    fn remove(&self, name: &str) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.remove(name)
    }
}

/// All sources of a store: its own registers, then the attached ones by name; what they are doing is not known to it.
///
/// # Errors
/// If the list of sources can't be read.
pub async fn sources_of(store: &Store) -> Result<Vec<SourceStatus>> {
    let mut all: Vec<SourceStatus> = registers::status(store).await?.into_iter().collect();
    for row in store.db().capture_sources().await? {
        let position = store.db().position(&position_name(&row.name)).await?;
        all.push(SourceStatus::of(&row, position));
    }
    Ok(all)
}

impl Engine {
    /// Starts to capture all attached sources. Sources attached later start at once.
    ///
    /// # Errors
    /// If the list of sources can't be read.
    pub async fn start_capture(self: &Arc<Self>) -> Result<()> {
        let sources = self.store().db().capture_sources().await?;
        self.captures().running.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
        for source in sources.iter().filter(|source| source.state == attach::ATTACHED) {
            self.start_source(source);
        }
        Ok(())
    }

    fn start_source(self: &Arc<Self>, source: &CaptureSourceRow) {
        self.captures().insert(&source.name, || Running::start(self, source.clone()));
    }

    /// Ends the task of a source, and waits until it has.
    async fn stop_source(&self, name: &str) {
        if let Some(running) = self.captures().remove(name) {
            running.stop().await;
        }
    }

    /// Ends all capture; what is under way is stored or left for the next start.
    pub(crate) async fn stop_capture(&self) {
        self.stop_registers().await;
        let all = self.captures().running.lock().unwrap_or_else(PoisonError::into_inner).take();
        futures::future::join_all(all.into_iter().flatten().map(|(_, running)| running.stop())).await;
    }

    /// All sources, with what they are doing: the registers of this log, then the attached ones by name.
    ///
    /// # Errors
    /// If the list of sources can't be read.
    pub async fn sources(&self) -> Result<Vec<SourceStatus>> {
        let mut all = sources_of(self.store()).await?;
        for status in &mut all {
            if status.name == registers::REGISTERS_SOURCE {
                if let Some(running) = &*self.captures().registers.lock().unwrap_or_else(PoisonError::into_inner) {
                    running.describe(status);
                }
                continue;
            }
            if let Some(running) = &*self.captures().running.lock().unwrap_or_else(PoisonError::into_inner)
                && let Some(running) = running.get(&status.name)
            {
                running.describe(status);
            }
        }
        Ok(all)
    }
}
