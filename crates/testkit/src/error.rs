//! What can go wrong while a test is set up.

use std::path::PathBuf;

/// A failure of the kit, not of what is tested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestkitError {
    /// There is no PostgreSQL and it can't be installed from here.
    #[error("no PostgreSQL server programs found; `cargo xtask test` installs them where it may. On Debian: apt-get install postgresql")]
    NoPostgres,
    /// A file or a program.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A program ended badly, or never became ready.
    #[error("{program}: {said}")]
    Program {
        /// The program.
        program: &'static str,
        /// The end of what it printed.
        said: String,
    },
    /// A statement failed.
    #[error("SQL failed: {sql}")]
    Sql {
        /// The beginning of the statement.
        sql: String,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
}

/// Result of the kit.
pub type Result<T, E = TestkitError> = std::result::Result<T, E>;

pub(crate) fn file<'a>(doing: &'static str, path: &'a std::path::Path) -> impl FnOnce(std::io::Error) -> TestkitError + 'a {
    move |source| TestkitError::File { doing, path: path.to_owned(), source }
}
