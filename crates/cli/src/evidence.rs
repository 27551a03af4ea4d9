//! `muniment verify`, `export`, `prove`, `check` and `checkpoint`: what an auditor needs.

use crate::args::{Check, Export, Prove, RecordFormat, Verify};
use crate::config::Config;
use crate::data_folder;
use crate::error::{CliError, Result};
use crate::progress::{Progress, Unit};
use crate::sql::print;
use muniment_engine::evidence::{self, ExportOptions, OnProgress, VerifyOptions};
use muniment_ledger::bundle;
use muniment_ledger::checkpoint::VerifierKey;
use muniment_store::{Mode, Store, StoreError};
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Most bytes of a proof file, a key file or a checkpoint.
const SMALL_FILE: u64 = 64 << 20;

/// Verifies the data folder or a bundle. The exit code is 0 if everything holds, else 1.
pub async fn verify(config: Config, options: Verify) -> Result<ExitCode> {
    let trusted = options.key.as_deref().map(verifier_key).transpose()?;
    let published = match (&options.checkpoint, &options.bundle) {
        (Some(path), _) => vec![read_text(path)?],
        (None, Some(_)) => Vec::new(),
        (None, None) => published(&config)?,
    };
    let compared = published.len();
    let bar = Arc::new(Mutex::new(Progress::new("verifying", None, Unit::Records)));
    let settings = VerifyOptions { trusted, published, progress: Some(onto(&bar)), ..VerifyOptions::default() };
    let report = match options.bundle {
        Some(folder) => {
            if settings.trusted.is_none() {
                let reason = "a bundle is verified against a key that you trust: give it with --key, as the log's owner published it";
                return Err(CliError::Usage(reason.to_owned()));
            }
            tokio::task::block_in_place(|| evidence::verify_bundle(&folder, &settings))
        }
        None => evidence::verify_store(&data_folder::read(&config).await?, settings).await,
    };
    let seconds = finish(bar);
    let report = report?;
    if options.json {
        print(format!("{}\n", serde_json::json!(report)).as_bytes())?;
    } else {
        let rate = report.outcome.records as f64 / seconds.max(0.001);
        let text = format!("{report}\ncompared with {compared} published checkpoints\ntook {seconds:.1} s, {rate:.0} records a second\n");
        print(text.as_bytes())?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// The published checkpoints of the configuration. They are read before the store, so that they are not newer than it.
fn published(config: &Config) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for folder in &config.engine.publish {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("warning: {} is not there, so nothing is compared with it", folder.display());
                continue;
            }
            Err(error) => return Err(CliError::file("reading", folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(CliError::file("reading", folder))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == "checkpoint" || name.bytes().all(|byte| byte.is_ascii_digit()) {
                notes.push(read_text(&entry.path())?);
            }
        }
    }
    notes.sort_unstable();
    notes.dedup();
    Ok(notes)
}

fn onto(bar: &Arc<Mutex<Progress>>) -> OnProgress {
    let bar = bar.clone();
    Arc::new(move |done, all| bar.lock().unwrap_or_else(PoisonError::into_inner).at(done, Some(all), ""))
}

/// Takes the bar away and returns the seconds since it began.
fn finish(bar: Arc<Mutex<Progress>>) -> f64 {
    let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
    bar.clear();
    bar.elapsed().as_secs_f64()
}

/// Writes a bundle.
pub async fn export(config: Config, options: Export) -> Result<ExitCode> {
    let wanted = ExportOptions {
        record_format: match options.record_format {
            RecordFormat::Parquet => bundle::RecordFormat::Parquet,
            RecordFormat::Ndjson => bundle::RecordFormat::Ndjson,
        },
        logs: (!options.log.is_empty()).then_some(options.log),
        from: options.from,
        to: options.to,
        ..ExportOptions::all(std::path::absolute(&options.out).map_err(CliError::file("finding", &options.out))?)
    };
    let manifest = evidence::export(&data_folder::read(&config).await?, &wanted).await?;
    let mut text = String::new();
    for stream in &manifest.streams {
        text += &format!("{}: {} records\n", stream.stream, stream.end - stream.first);
    }
    text += &format!(
        "wrote {}; whoever has it verifies it with: muniment verify {} --key '<verifier key>'\n",
        options.out.display(),
        options.out.display()
    );
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the proof of one record.
pub async fn prove(config: Config, options: Prove) -> Result<ExitCode> {
    let proof = evidence::prove(&data_folder::read(&config).await?, &options.log, options.id).await?;
    let json =
        serde_json::to_string_pretty(&proof).map_err(|error| CliError::Usage(format!("the proof can't be written: {error}")))? + "\n";
    match options.out {
        Some(path) => {
            std::fs::write(&path, json).map_err(CliError::file("writing", &path))?;
            println!("wrote the proof of record {} of {} to {}", options.id, options.log, path.display());
        }
        None => {
            print(json.as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a proof file. The exit code is 0 if it holds, else 1.
pub fn check(options: &Check) -> Result<ExitCode> {
    let trusted = verifier_key(&options.key)?;
    let proof = read_text(&options.proof)?;
    let record = match evidence::check(proof.as_bytes(), &trusted) {
        Ok(record) => record,
        Err(error) => {
            let mut text = format!("not proven: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text += &format!(": {error}");
                cause = error.source();
            }
            print((text + "\n").as_bytes())?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut text = format!(
        "proven: record {} of {}, as {} recorded it at {}\n  stream {}, index {}; commit {}, covered by the checkpoint of size {}\n  blockchain_hash {}\n",
        record.id,
        record.log,
        record.origin,
        record.recorded_at,
        record.stream,
        record.stream_index,
        record.commit,
        record.checkpoint_size,
        record.blockchain_hash
    );
    for (name, value) in &record.fields {
        text += &format!("  {name}: {value}\n");
    }
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the newest checkpoint.
pub async fn checkpoint(config: Config) -> Result<ExitCode> {
    let (_, loaded) = Store::open(config.data(), Mode::Read).await?;
    let (_, note) = loaded.checkpoint.ok_or_else(|| StoreError::Absent { path: config.data().to_owned() })?;
    print(note.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A verifier key as it was given, or from the file that was named.
fn verifier_key(given: &str) -> Result<VerifierKey> {
    if let Ok(key) = given.trim().parse() {
        return Ok(key);
    }
    if !Path::new(given).exists() {
        return Err(CliError::Usage(format!("{given} is neither a verifier key nor a file with one")));
    }
    let text = read_text(Path::new(given))?;
    text.trim().parse().map_err(|_| CliError::Usage(format!("the file {given} does not hold a verifier key")))
}

fn read_text(path: &Path) -> Result<String> {
    let metadata = std::fs::metadata(path).map_err(CliError::file("opening", path))?;
    if metadata.len() > SMALL_FILE {
        return Err(CliError::Usage(format!("{} is larger than {SMALL_FILE} bytes", path.display())));
    }
    std::fs::read_to_string(path).map_err(CliError::file("reading", path))
}
