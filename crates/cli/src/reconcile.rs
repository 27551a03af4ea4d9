//! `muniment reconcile`: compares an attached database with the log, and lists what differs.

use crate::columns::plain;
use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::error::{CliError, Result};
use crate::ingest::client::Client;
use crate::logging;
use crate::progress::{Progress, Unit};
use clap::Args;
use muniment_engine::Engine;
use muniment_engine::query::QueryEngine;
use muniment_engine::reconcile::{self, Difference, DifferenceKind, ReconcileOptions, Reconciliation};
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Args)]
pub struct Reconcile {
    /// Name of the source
    pub name: String,
    /// Compare this table only, such as case.hoso; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub table: Vec<String>,
    /// List this many differences at most; all are counted
    #[arg(long, default_value_t = reconcile::DEFAULT_LISTED, value_name = "N")]
    pub list: usize,
    /// Wait this long for capture to reach the database's present state, such as 10m
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = crate::config::parse_duration)]
    pub wait: std::time::Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Ask this server, such as http://127.0.0.1:7117, even if the data folder is free
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

/// Runs the command.
pub async fn run(config: Config, options: Reconcile) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    let wanted = ReconcileOptions { tables: options.table.clone(), listed: options.list, wait_seconds: options.wait.as_secs() };
    let writer = match options.server.clone() {
        Some(url) => Writer::Server(url),
        None => data_folder::write(&config).await?,
    };
    let outcome = match writer {
        Writer::Server(url) => tokio::task::block_in_place(|| through(&url, &options.name, &wanted))?,
        Writer::Here(engine) => {
            let outcome = here(&config, &engine, &options.name, &wanted).await;
            engine.shutdown().await?;
            outcome?
        }
    };
    let shown = if options.json { json(&outcome)? } else { table(&outcome) };
    std::io::stdout().write_all(shown.as_bytes()).map_err(CliError::file("writing", std::path::Path::new("standard output")))?;
    Ok(if outcome.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Captures what is missing up to now, and compares.
async fn here(config: &Config, engine: &Arc<Engine>, name: &str, options: &ReconcileOptions) -> Result<Reconciliation> {
    engine.start_capture().await?;
    let query = QueryEngine::new(engine.store().clone(), config.query)?;
    let shown = Mutex::new(Shown::default());
    let tell = |progress: reconcile::Progress<'_>| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            reconcile::Progress::Waiting { .. } => shown.at("waiting for capture", 0),
            reconcile::Progress::Comparing { table, rows } => shown.at(table, rows),
        }
    };
    Ok(engine.reconcile(&query, name, options, &tell).await?)
}

fn through(url: &str, name: &str, options: &ReconcileOptions) -> Result<Reconciliation> {
    let body = serde_json::to_value(options).map_err(|error| CliError::Usage(error.to_string()))?;
    let (mut outcome, mut shown) = (None, Shown::default());
    Client::new(url).ask_lines(&format!("/api/v1/sources/{name}/reconcile"), &body, |mut line| {
        if let Some(message) = line["error"]["message"].as_str() {
            return Err(CliError::Usage(message.to_owned()));
        }
        match line["progress"].as_str() {
            Some("comparing") => shown.at(line["table"].as_str().unwrap_or_default(), line["rows"].as_u64().unwrap_or_default()),
            Some(_) => shown.at("waiting for capture", 0),
            None => outcome = Some(line["outcome"].take()),
        }
        Ok(())
    })?;
    let cut = || CliError::Usage("the server's answer was cut off".to_owned());
    serde_json::from_value::<Reconciliation>(outcome.filter(|outcome: &Value| !outcome.is_null()).ok_or_else(cut)?)
        .map_err(|error| CliError::Usage(format!("{url} answered something else than expected: {error}")))
}

/// What is said while it runs.
#[derive(Default)]
struct Shown {
    what: String,
    progress: Option<Progress>,
}

impl Shown {
    fn at(&mut self, what: &str, rows: u64) {
        if self.what != what {
            self.end();
            what.clone_into(&mut self.what);
            self.progress = Some(Progress::new(what, None, Unit::Records));
        }
        if let Some(progress) = &mut self.progress {
            progress.at(rows, None, "");
        }
    }

    fn end(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.clear();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.end();
    }
}

fn json(outcome: &Reconciliation) -> Result<String> {
    let text = serde_json::to_string_pretty(outcome).map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(text + "\n")
}

fn table(outcome: &Reconciliation) -> String {
    let mut text = format!("{} at {}\n", outcome.source, outcome.instant);
    let width = outcome.tables.iter().map(|table| table.table.chars().count()).max().unwrap_or(0).max(5);
    text.push_str(&format!(
        "{:width$}  {:>12}  {:>12}  {:>9}  {:>9}  {:>9}\n",
        "table", "rows", "in the log", "missing", "extra", "different"
    ));
    for table in &outcome.tables {
        let counts = [table.missing, table.extra, table.different].map(|count| format!("  {count:>9}")).concat();
        text.push_str(&format!("{:width$}  {:>12}  {:>12}{counts}\n", table.table, table.live_rows, table.logged_rows));
    }
    outcome.differences.iter().for_each(|difference| text.push_str(&describe(difference)));
    let listed = outcome.differences.len() as u64;
    if listed < outcome.total {
        text.push_str(&format!("… and {} more\n", outcome.total - listed));
    }
    for table in &outcome.uncaptured {
        text.push_str(&format!("{}: not captured, though a pattern takes it in; see `muniment sources`\n", plain(table)));
    }
    text.push_str(&match outcome.total {
        0 => "no difference\n".to_owned(),
        1 => "1 difference\n".to_owned(),
        total => format!("{total} differences\n"),
    });
    text
}

fn describe(difference: &Difference) -> String {
    let kind = match difference.kind {
        DifferenceKind::Missing => "missing in the log",
        DifferenceKind::Extra => "only in the log",
        DifferenceKind::Different => "different",
    };
    let times = if difference.count == 1 { String::new() } else { format!(" ({} rows)", difference.count) };
    let mut text = format!("{} {}: {kind}{times}\n", plain(&difference.table), plain(&difference.key));
    for column in &difference.columns {
        let logged = column.logged.as_deref().map_or("nothing", |value| value.get());
        text.push_str(&format!(
            "  {}: {} in the database, {} in the log\n",
            plain(&column.column),
            plain(column.live.get()),
            plain(logged)
        ));
    }
    text
}
