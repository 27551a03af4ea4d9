//! What a source is doing, for people and programs.

use super::attach::without_password;
use muniment_capture::health::Health;
use muniment_capture::plan::AttachOptions;
use muniment_store::db::CaptureSourceRow;
use serde::{Deserialize, Serialize};

/// What a source is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Attaching was begun and not finished: attach again, or detach.
    Attaching,
    /// Detaching was begun and not finished: detach again.
    Detaching,
    /// Attached, but nothing reads it: no server runs on the data folder.
    #[default]
    Stopped,
    /// Connecting.
    Starting,
    /// Reading changes as they come.
    Running,
    /// It failed, and is tried again after a pause.
    Waiting,
}

/// A source and what it is doing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Name.
    pub name: String,
    /// The way in, such as `postgres`.
    pub kind: String,
    /// Where it is, without the password.
    pub place: String,
    /// What it was attached with.
    pub options: AttachOptions,
    /// When it was attached, µs UTC.
    pub attached_at: i64,
    /// What it is doing.
    pub state: SourceState,
    /// Why it failed last, if it has not gone on since.
    pub error: Option<String>,
    /// Position of the last change stored.
    pub position: Option<String>,
    /// Changes stored since the server started.
    pub changes: u64,
    /// Commits that stored them.
    pub batches: u64,
    /// How often it had to be started again.
    pub restarts: u64,
    /// How far it is behind.
    pub health: Health,
}

impl SourceStatus {
    /// A source that nothing reads.
    pub(super) fn of(row: &CaptureSourceRow, position: Option<String>) -> Self {
        let state = match row.state.as_str() {
            super::attach::ATTACHING => SourceState::Attaching,
            super::attach::DETACHING => SourceState::Detaching,
            _ => SourceState::Stopped,
        };
        Self {
            name: row.name.clone(),
            kind: row.kind.clone(),
            place: without_password(&row.url),
            options: serde_json::from_str(&row.options).unwrap_or_default(),
            attached_at: row.attached_at,
            state,
            error: None,
            position: position.filter(|position| !position.is_empty()),
            changes: 0,
            batches: 0,
            restarts: 0,
            health: Health::default(),
        }
    }
}
