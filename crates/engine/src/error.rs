//! What can go wrong in the engine. The chain of sources says why; what a client may see is the server's matter.

use muniment_model::Rejection;
use muniment_store::StoreError;
use std::path::PathBuf;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Records that are not as they should be; nothing was stored.
    #[error("the records are not valid: {} errors", .0.total)]
    Invalid(Rejection),
    /// There is no such log.
    #[error("there is no log {0}")]
    UnknownLog(String),
    /// The request is larger than allowed.
    #[error("the request is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A line of a source is longer than allowed. What was before it is stored.
    #[error("line {line} is longer than {limit} bytes")]
    LongLine {
        /// Its number, from 1.
        line: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// A limit is reached for the moment; nothing was stored. Try again later.
    #[error("overloaded: {reason}")]
    Busy {
        /// Which limit.
        reason: &'static str,
        /// When to try again, seconds.
        retry_after: u32,
    },
    /// The same idempotency key came with another body.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The source is not where the request expects it: an earlier request failed, or somebody else takes in the same source.
    #[error("the source {0} is not where this request expects it")]
    Position(String),
    /// The log can't be signed: it is behind what it has published.
    #[error("the log is behind its published checkpoint of size {published}: it has {local} commits, so this is an older copy or was cut")]
    RolledBack {
        /// Size of the published checkpoint.
        published: u64,
        /// Size of the local meta-log.
        local: u64,
    },
    /// The published checkpoint contradicts the log.
    #[error("the published checkpoint of size {0} is not of this log")]
    Forked(u64),
    /// The signing key is missing or not valid.
    #[error("signing key {}: {reason}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Reading or writing a file failed.
    #[error("{action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source of changes failed, or can't be attached as it is.
    #[error(transparent)]
    Capture(#[from] muniment_capture::CaptureError),
    /// The ledger refused something.
    #[error("ledger")]
    Ledger(#[from] muniment_ledger::Error),
    /// Columns could not be made or read.
    #[error("columns")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// A query is not valid or failed.
    #[error("query")]
    Query(#[source] Box<datafusion::error::DataFusionError>),
    /// A query ran into a limit.
    #[error("the query was stopped: {0}")]
    QueryLimit(String),
    /// There is no such record, entity or table.
    #[error("{0} was not found")]
    NotFound(String),
    /// A parameter is not valid.
    #[error("{name}: {reason}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It can't be done as things are.
    #[error("{0}")]
    Refused(String),
    /// The engine is shutting down, or stopped after an error that it could not recover from.
    #[error("the engine has stopped")]
    Stopped,
}

impl EngineError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

/// Result of the engine's operations.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;
