//! What can go wrong on the command line, and how it is told.

use crate::config::ConfigError;
use muniment_engine::EngineError;
use muniment_model::LineError;
use muniment_store::StoreError;
use std::error::Error;
use std::path::PathBuf;

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is not valid.
    #[error("the configuration is not valid")]
    Config(#[from] ConfigError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server failed.
    #[error("the server stopped")]
    Server(#[source] Box<dyn Error + Send + Sync>),
    /// Reading or writing failed.
    #[error("{action} {} failed", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be taken in.
    #[error("{name} was not taken in as a whole: {}", if *stored == 0 { "nothing is stored".to_owned() } else { format!("up to {unit} {stored} it is stored") })]
    Input {
        /// The file.
        name: String,
        /// What is counted: `line` or `record`.
        unit: &'static str,
        /// How many are durable.
        stored: u64,
        /// Why.
        #[source]
        source: Box<CliError>,
    },
    /// Records were refused.
    #[error("{total} of the records are not valid")]
    Records {
        /// How many.
        total: usize,
        /// The first of them.
        lines: Vec<LineError>,
    },
    /// A server can't be reached.
    #[error("{url} can't be reached")]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// A server answered with an error.
    #[error("{url} answered {status}: {message}")]
    Answer {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// The answer's text.
        message: String,
    },
    /// Two things that don't go together, or something that isn't there.
    #[error("{0}")]
    Usage(String),
}

/// Result of a command's steps.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    /// Wraps a system error.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// 1 if records were refused, 2 if the command could not do its work.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Records { .. } | Self::Engine(EngineError::Invalid(_)) => 1,
            Self::Input { source, .. } => source.exit_code(),
            _ => 2,
        }
    }

    /// Writes the error, all its causes, and the lines that are wrong, to standard error.
    pub fn report(&self) {
        eprintln!("error: {self}");
        let mut said = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if text != said {
                eprintln!("  because: {text}");
                said = text;
            }
            cause = error.source();
        }
        let (name, unit, refused) = match self {
            Self::Input { name, unit, source, .. } => (format!("{name}: "), *unit, &**source),
            other => (String::new(), "line", other),
        };
        for LineError { line, field, reason } in refused.lines() {
            let field = field.as_ref().map(|field| format!(", {field}")).unwrap_or_default();
            eprintln!("    {name}{unit} {line}{field}: {reason}");
        }
    }

    /// What is wrong with records.
    fn lines(&self) -> &[LineError] {
        match self {
            Self::Records { lines, .. } => lines,
            Self::Engine(EngineError::Invalid(rejection)) => &rejection.errors,
            _ => &[],
        }
    }
}
