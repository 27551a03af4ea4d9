//! `muniment ingest`: files and standard input, through an engine of our own or through the server that holds the data folder. Either way the position
//! reached is stored in the commit that holds the records, so a second run continues where the first one ended, however it ended.

pub mod client;
mod envelopes;
mod input;
mod json_lines;
mod live;
mod remote;

use crate::args::Ingest;
use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::error::{CliError, Result};
use crate::logging;
use crate::progress::{Progress, Unit};
use input::Input;
use muniment_engine::{Engine, FileIngest};
use remote::Remote;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Longest name of a source, with its log, that a server takes.
const NAME_BYTES: usize = 255;

/// Runs the command.
pub async fn run(config: Config, options: Ingest) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    if let Some(format) = envelopes::format(options.format) {
        return envelopes::run(config, options, format).await;
    }
    let Some(log) = options.log.clone() else { return Err(CliError::Usage("--log names the log to store the records in".to_owned())) };
    if !muniment_model::table(&log).is_some_and(muniment_model::Table::is_log) {
        let logs: Vec<&str> = muniment_model::logs().iter().map(|table| table.name).collect();
        return Err(CliError::Usage(format!("there is no log {log}; there are {}", logs.join(", "))));
    }
    if options.source.is_some() && options.files.len() > 1 {
        return Err(CliError::Usage("--source names one source, so it goes with one file".to_owned()));
    }
    let writer = match &options.server {
        Some(url) => Writer::Server(url.clone()),
        None => data_folder::write(&config).await?,
    };
    let mut outcome = Ok(());
    for file in &options.files {
        outcome = take_in(&config, &options, &log, &writer, file).await;
        if outcome.is_err() {
            break;
        }
    }
    if let Writer::Here(engine) = writer {
        engine.shutdown().await?;
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// What a file came to.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// Bytes that are durable, with those of earlier runs.
    bytes: u64,
    /// Lines among them.
    lines: u64,
    /// Records stored by this run.
    records: u64,
    /// Records that an earlier run had stored, as far as this one has sent them again.
    repeated: u64,
}

async fn take_in(config: &Config, options: &Ingest, log: &str, writer: &Writer, file: &Path) -> Result<()> {
    let input = Input::open(file, options.format)?;
    let source = source_name(log, options.source.as_deref(), file)?;
    let mut watch = Watch::new(&input);
    let (name, unit) = (input.name.clone(), input.unit);
    let taken = match writer {
        Writer::Here(engine) => here(engine, log, source, input, &mut watch).await,
        Writer::Server(url) => {
            let kept = match &source {
                Some(source) if data_folder::running_server(config.data()).as_deref() == Some(url.trim_end_matches('/')) => {
                    data_folder::read(config).await?.db().position(&format!("{log}:{source}")).await?
                }
                _ => None,
            };
            let remote = Remote { url, log, source, envelopes: None, longest_line: config.engine.limits.body_bytes };
            tokio::task::block_in_place(|| remote.send(input, kept.as_deref(), |taken| watch.at(taken)))
        }
    };
    told(watch, &name, unit, taken)
}

/// Says what a file came to.
fn told(mut watch: Watch, name: &str, unit: &'static str, taken: Result<()>) -> Result<()> {
    let last = watch.last;
    let seconds = watch.progress.elapsed().as_secs_f64();
    watch.progress.clear();
    match taken {
        Ok(()) => {
            let repeated = if last.repeated > 0 { format!(", {} were stored before", last.repeated) } else { String::new() };
            println!(
                "{name}: {} records stored in {seconds:.1} s{repeated}; {} lines and {} bytes in all",
                last.records, last.lines, last.bytes
            );
            Ok(())
        }
        Err(error) => Err(CliError::Input { name: name.to_owned(), unit, stored: last.lines, source: Box::new(error) }),
    }
}

async fn here(engine: &Arc<Engine>, log: &str, source: Option<String>, input: Input, watch: &mut Watch) -> Result<()> {
    let ingest = FileIngest { log, source, reader: input.reader };
    let report = |progress: muniment_engine::Progress| {
        watch.at(Taken { bytes: progress.bytes, lines: progress.lines, records: progress.records, repeated: 0 });
    };
    engine.ingest_source(ingest, report).await?;
    Ok(())
}

/// Shows how far a file has been taken in.
struct Watch {
    progress: Progress,
    read: input::ReadBytes,
    last: Taken,
}

impl Watch {
    fn new(input: &Input) -> Self {
        Self { progress: Progress::new(&input.name, input.size, Unit::Bytes), read: input.read.clone(), last: Taken::default() }
    }

    fn at(&mut self, taken: Taken) {
        self.last = taken;
        let rate = taken.records as f64 / self.progress.elapsed().as_secs_f64().max(0.001);
        self.progress.at(self.read.get(), None, &format!("{} records stored, {rate:.0}/s", taken.records));
    }
}

/// The name under which a file's position is kept: as given, else its absolute path. In visible ASCII, as it may travel in a header.
fn source_name(log: &str, given: Option<&str>, file: &Path) -> Result<Option<String>> {
    let name = match given {
        Some(name) => name.to_owned(),
        None if file == Path::new("-") => return Ok(None),
        None => absolute(file)?.to_string_lossy().into_owned(),
    };
    let visible: String = name
        .bytes()
        .map(|byte| if byte.is_ascii_graphic() && byte != b'%' { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    let room = NAME_BYTES - log.len() - 1;
    if visible.len() <= room {
        return Ok(Some(visible));
    }
    let hash = format!("{:032x}/", xxhash_rust::xxh3::xxh3_128(name.as_bytes()));
    let tail = visible.len() - (room - hash.len());
    Ok(Some(hash + &visible[tail..]))
}

fn absolute(file: &Path) -> Result<PathBuf> {
    std::path::absolute(file).map_err(CliError::file("finding", file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_of_sources() {
        let name = |given: Option<&str>, file: &str| source_name("sys_audit_log", given, Path::new(file)).unwrap();
        assert_eq!(name(None, "-"), None);
        assert_eq!(name(Some("case system é 5%"), "-").unwrap(), "case%20system%20%C3%A9%205%25");
        assert!(name(None, "events.ndjson").unwrap().ends_with("/events.ndjson"));
        let (a, b) = (name(Some(&"a".repeat(400)), "-").unwrap(), name(Some(&"a".repeat(401)), "-").unwrap());
        assert_eq!(a.len() + "sys_audit_log:".len(), NAME_BYTES);
        assert_ne!(a, b);
    }
}
