//! The program's own messages: structured, on standard error, as lines for people or as JSON.

use crate::config::{Config, ConfigError, LogFormat};
use crate::error::Result;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts writing messages. `level` stands where the configuration leaves it open.
pub fn start(config: &Config, level: &str) -> Result<()> {
    let level = config.log_level.as_deref().unwrap_or(level);
    let filter = EnvFilter::try_new(level).map_err(|error| ConfigError::Value {
        key: "log.level".to_owned(),
        place: None,
        reason: format!("`{level}` is not a filter: {error}"),
    })?;
    let messages = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Json => messages.json().init(),
        LogFormat::Pretty => messages.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}
