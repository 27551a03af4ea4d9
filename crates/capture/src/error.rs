//! What can go wrong on the way in.

/// A failure of capture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The source can't be reached or refused a statement.
    #[error("{doing} failed")]
    Database {
        /// What was being done.
        doing: String,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// The replication connection failed.
    #[error("replication failed")]
    Replication(#[from] pgwire_replication::PgWireError),
    /// What the source sent can't be understood.
    #[error("{0}")]
    Malformed(String),
    /// A message of a batch is not what its format says.
    #[error("message {message}: {field}: {reason}")]
    Message {
        /// Number of the message in its batch, from 1.
        message: u64,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something must be changed before this can be done.
    #[error("{0}")]
    Refused(String),
    /// A file of spilled changes can't be written or read.
    #[error("{doing} failed")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

/// Result of capture.
pub type Result<T, E = CaptureError> = std::result::Result<T, E>;

impl CaptureError {
    /// Says what was being done when the database failed.
    pub fn database(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Database { doing, source }
    }
}
