//! What can go wrong in the store.

use std::path::PathBuf;

/// An error of the store. The chain of sources says why.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The commit database refused or failed.
    #[error("commit database: {action}")]
    Database {
        /// What was being done.
        action: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// The disk or the commit database is full: nothing was written, try again when there is space.
    #[error("no space left while {action}")]
    Full {
        /// What was being done.
        action: &'static str,
    },
    /// Another process holds the data folder.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// There is no store at this place.
    #[error("there is no Muniment store in {}", path.display())]
    Absent {
        /// The data folder.
        path: PathBuf,
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
    /// Columns could not be built, read or written.
    #[error("columnar data: {action}")]
    Arrow {
        /// What was being done.
        action: &'static str,
        /// Arrow's error.
        #[source]
        source: arrow_schema::ArrowError,
    },
    /// A Parquet file could not be written or read.
    #[error("Parquet file {path}")]
    Parquet {
        /// The file's path in the object store.
        path: String,
        /// Parquet's error.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A change of a register can't be made as things are: nothing was changed.
    #[error("{table}: {reason}")]
    Conflict {
        /// The register.
        table: &'static str,
        /// What is in the way.
        reason: String,
    },
    /// What is stored contradicts itself.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// This store was opened for reading only.
    #[error("the store was opened for reading only")]
    ReadOnly,
}

impl StoreError {
    /// A database error, with a full disk told apart from the rest.
    pub(crate) fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            let full = source.as_database_error().is_some_and(|e| e.message().contains("disk is full"))
                || matches!(&source, sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull);
            if full { Self::Full { action } } else { Self::Database { action, source } }
        }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| {
            if source.kind() == std::io::ErrorKind::StorageFull { Self::Full { action } } else { Self::File { action, path, source } }
        }
    }

    pub(crate) fn arrow(action: &'static str) -> impl FnOnce(arrow_schema::ArrowError) -> Self {
        move |source| Self::Arrow { action, source }
    }

    pub(crate) fn parquet(path: &str) -> impl FnOnce(parquet::errors::ParquetError) -> Self {
        let path = path.to_owned();
        move |source| {
            if source.to_string().contains("No space left on device") {
                Self::Full { action: "writing a Parquet file" }
            } else {
                Self::Parquet { path, source }
            }
        }
    }
}

/// Result of the store's operations.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
