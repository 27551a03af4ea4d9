//! Envelopes of Debezium and wal2json from files and standard input. What was taken in under the same source name is not stored again, from whatever file or through
//! whatever door it came; for a file the position is kept beside that, so that a second run need not read it again.

use super::client::percent_encoded;
use super::input::Input;
use super::remote::Remote;
use super::{Taken, Watch, source_name, told};
use crate::args::{Ingest, InputFormat};
use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::error::{CliError, Result};
use muniment_capture::envelope::{Format, KeyHints, is_source_name};
use muniment_engine::query::QueryEngine;
use muniment_engine::{Engine, EnvelopeFile, EnvelopeProgress};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// The log that changes go to.
const LOG: &str = "sys_audit_log";

/// Which envelopes an input has, if any.
pub fn format(format: InputFormat) -> Option<Format> {
    match format {
        InputFormat::Debezium => Some(Format::Debezium),
        InputFormat::Wal2json => Some(Format::Wal2Json),
        InputFormat::Auto | InputFormat::Ndjson | InputFormat::Json => None,
    }
}

/// Takes in envelopes.
pub async fn run(config: Config, options: Ingest, format: Format) -> Result<ExitCode> {
    if options.log.as_deref().is_some_and(|log| log != LOG) {
        return Err(CliError::Usage(format!("{} goes to {LOG}", format.name())));
    }
    let source = options.source.clone().unwrap_or_else(|| format.name().to_owned());
    if !is_source_name(&source) {
        return Err(CliError::Usage(format!("--source {source}: a source's name has 1 to 64 of a-z, 0-9, _, :, . and -")));
    }
    let keys = KeyHints::parse(options.key.as_deref().unwrap_or_default()).map_err(|error| CliError::Usage(error.to_string()))?;
    let writer = match &options.server {
        Some(url) => Writer::Server(url.clone()),
        None => data_folder::write(&config).await?,
    };
    let wanted = Wanted { format, source, keys, written: options.key.clone() };
    let mut outcome = Ok(());
    for file in &options.files {
        outcome = take_in(&config, &options, &wanted, &writer, file).await;
        if outcome.is_err() {
            break;
        }
    }
    if let Writer::Here(engine) = writer {
        engine.shutdown().await?;
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// What the envelopes are.
struct Wanted {
    format: Format,
    source: String,
    keys: KeyHints,
    /// The keys as they were typed.
    written: Option<String>,
}

async fn take_in(config: &Config, options: &Ingest, wanted: &Wanted, writer: &Writer, file: &Path) -> Result<()> {
    let input = Input::open(file, options.format)?;
    let mut watch = Watch::new(&input);
    let (name, unit) = (input.name.clone(), input.unit);
    let taken = match writer {
        Writer::Here(engine) => here(config, engine, wanted, input, file, &mut watch).await,
        Writer::Server(url) => {
            let mut path = format!("/api/v1/capture/{}?source={}", wanted.format.name(), wanted.source);
            if let Some(keys) = &wanted.written {
                path.push_str(&format!("&key={}", percent_encoded(keys)));
            }
            let source = source_name(LOG, None, file)?.map(|file| format!("{}@{file}", wanted.source));
            let remote = Remote { url, log: LOG, source, envelopes: Some(path), longest_line: config.engine.limits.body_bytes };
            tokio::task::block_in_place(|| remote.send(input, None, |taken| watch.at(taken)))
        }
    };
    told(watch, &name, unit, taken)
}

async fn here(config: &Config, engine: &Arc<Engine>, wanted: &Wanted, input: Input, file: &Path, watch: &mut Watch) -> Result<()> {
    let query = QueryEngine::new(engine.store().clone(), config.query)?;
    let position = source_name(LOG, None, file)?.map(|file| format!("{}@{file}", wanted.source));
    let envelopes =
        EnvelopeFile { format: wanted.format, source: wanted.source.clone(), keys: wanted.keys.clone(), position, reader: input.reader };
    let report = |progress: EnvelopeProgress| {
        let EnvelopeProgress { bytes, lines, records, repeated } = progress;
        watch.at(Taken { bytes, lines, records, repeated });
    };
    engine.ingest_envelope_file(&query, envelopes, report).await?;
    Ok(())
}
