//! `muniment monitoring` and `muniment metrics`: how the service is doing, measurements by buckets of time, thresholds.

use crate::config::Config;
use crate::data_folder::{self, Writer};
use crate::error::{CliError, Result};
use crate::ingest::client::Client;
use crate::logging;
use clap::{Args, Subcommand, ValueEnum};
use muniment_engine::ChangedBy;
use muniment_engine::measures::{AggregateRequest, aggregate};
use muniment_engine::thresholds::{Amount, Threshold};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Period that is looked at if none is given, µs.
const HOUR: i64 = 3_600_000_000;

#[derive(Debug, Args)]
pub struct Monitoring {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Ask this server [default: the one that holds the data folder]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

#[derive(Debug, Args)]
pub struct Metrics {
    #[command(subcommand)]
    command: MetricsCommand,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Ask this server, such as http://127.0.0.1:7117, even if the data folder is free
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
}

#[derive(Debug, Subcommand)]
enum MetricsCommand {
    /// Show measurements of a metric by buckets of time, with percentiles
    Show(Show),
    /// List the thresholds
    Thresholds,
    /// Make thresholds, or replace those for the same metric, category and component
    ///
    /// They hold for measurements that bring none of their own, from now on. If the critical value is smaller than the warning, small values are the bad ones.
    SetThreshold(SetThreshold),
    /// Remove thresholds; what was decided by them stays
    RemoveThreshold {
        /// Their number, as `muniment metrics thresholds` shows it
        id: i64,
    },
}

#[derive(Debug, Args)]
struct Show {
    /// The metric, such as muniment.commit_latency_p99
    metric: String,
    /// Length of a bucket
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = crate::config::parse_duration)]
    bucket: Duration,
    /// Measured at or after this time [default: an hour before --to]
    #[arg(long, value_name = "TIME", value_parser = crate::args::time)]
    from: Option<i64>,
    /// Measured before this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = crate::args::time)]
    to: Option<i64>,
    /// Only of this component
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// Only of this operation
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
}

/// Where something was measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Category {
    /// In a database
    Database,
    /// At an API
    Api,
    /// In a workflow
    Workflow,
    /// At somebody else's
    External,
}

#[derive(Debug, Args)]
struct SetThreshold {
    /// The metric; one that ends in `*` is for all that begin so
    #[arg(required_unless_present = "category")]
    metric: Option<String>,
    /// Only of this category
    #[arg(long, value_enum, ignore_case = true)]
    category: Option<Category>,
    /// Only of this component
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// Unit of the values, such as ms; measurements in another unit of the same kind are converted
    #[arg(long)]
    unit: Option<String>,
    /// Value from which on to warn
    #[arg(long, value_name = "N", value_parser = amount, allow_hyphen_values = true, required_unless_present = "critical")]
    warning: Option<Amount>,
    /// Value from which on it is critical
    #[arg(long, value_name = "N", value_parser = amount, allow_hyphen_values = true)]
    critical: Option<Amount>,
}

fn amount(text: &str) -> Result<Amount, String> {
    Amount::parse(text).ok_or_else(|| "expected a decimal number with at most 6 digits after the point".to_owned())
}

impl SetThreshold {
    fn to_threshold(&self) -> Threshold {
        let category = self.category.map(|category| match category {
            Category::Database => "DATABASE",
            Category::Api => "API",
            Category::Workflow => "WORKFLOW",
            Category::External => "EXTERNAL",
        });
        Threshold {
            id: None,
            metric_name: self.metric.clone(),
            metric_category: category.map(str::to_owned),
            component_name: self.component.clone(),
            metric_unit: self.unit.clone(),
            threshold_warning: self.warning,
            threshold_critical: self.critical,
            is_active: true,
        }
    }
}

/// Runs `muniment monitoring`.
pub async fn monitoring(config: Config, options: Monitoring) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    let server = options.server.or_else(|| data_folder::running_server(config.data()));
    let url = server.ok_or_else(|| CliError::Usage(format!("no server holds {}: there is nothing to watch", config.data().display())))?;
    let answer = tokio::task::block_in_place(|| Client::new(&url).ask("GET", "/api/v1/monitoring", None))?;
    print!("{}", if options.json { pretty(&answer)? } else { monitoring_shown(&answer) });
    Ok(ExitCode::SUCCESS)
}

/// Runs `muniment metrics`.
pub async fn metrics(config: Config, options: Metrics) -> Result<ExitCode> {
    logging::start(&config, "warn")?;
    let server = options.server.clone().or_else(|| data_folder::running_server(config.data()));
    let answer = match (&server, &options.command) {
        (Some(url), command) => tokio::task::block_in_place(|| through(url, command))?,
        (None, MetricsCommand::Show(show)) => {
            let query = data_folder::ask(&config).await?;
            json!(aggregate(&query, &show.request()).await?)
        }
        (None, command) => here(&config, command).await?,
    };
    print!("{}", if options.json { pretty(&answer)? } else { shown(&options.command, &answer) });
    Ok(ExitCode::SUCCESS)
}

impl Show {
    fn request(&self) -> AggregateRequest {
        let to = self.to.unwrap_or_else(muniment_engine::now);
        AggregateRequest {
            metric: self.metric.clone(),
            bucket: i64::try_from(self.bucket.as_micros()).unwrap_or(i64::MAX),
            from: self.from.unwrap_or(to - HOUR),
            to,
            category: None,
            component: self.component.clone(),
            operation: self.operation.clone(),
        }
    }

    fn path(&self) -> String {
        let request = self.request();
        let time = |micros| muniment_engine::history::format_time(micros);
        let mut parameters = vec![
            ("metric", request.metric),
            ("bucket", format!("{}ms", request.bucket / 1000)),
            ("from", time(request.from)),
            ("to", time(request.to)),
        ];
        parameters.extend(request.component.map(|name| ("component", name)));
        parameters.extend(request.operation.map(|name| ("operation", name)));
        let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", crate::limits::encoded(value))).collect();
        format!("/api/v1/metrics/aggregate?{}", parameters.join("&"))
    }
}

fn through(url: &str, command: &MetricsCommand) -> Result<Value> {
    let client = Client::new(url);
    let thresholds = "/api/v1/metrics/thresholds";
    match command {
        MetricsCommand::Show(show) => client.ask("GET", &show.path(), None),
        MetricsCommand::Thresholds => client.ask("GET", thresholds, None),
        MetricsCommand::SetThreshold(set) => client.ask("PUT", thresholds, Some(&json!(set.to_threshold()))),
        MetricsCommand::RemoveThreshold { id } => client.ask("DELETE", &format!("{thresholds}/{id}"), None),
    }
}

async fn here(config: &Config, command: &MetricsCommand) -> Result<Value> {
    data_folder::must_exist(config.data())?;
    let engine = match data_folder::write(config).await? {
        Writer::Here(engine) => engine,
        Writer::Server(url) => return tokio::task::block_in_place(|| through(&url, command)),
    };
    let by = ChangedBy { username: crate::capture::user().unwrap_or_else(|| "local".to_owned()), ..ChangedBy::default() };
    let answer = match command {
        MetricsCommand::SetThreshold(set) => engine.put_threshold(&set.to_threshold(), &by).await.map(|threshold| json!(threshold)),
        MetricsCommand::RemoveThreshold { id } => engine.remove_threshold(*id, &by).await.map(|()| json!({ "removed": id })),
        MetricsCommand::Thresholds | MetricsCommand::Show(_) => engine.thresholds().await.map(|thresholds| json!(thresholds)),
    };
    engine.shutdown().await?;
    Ok(answer?)
}

fn pretty(answer: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(answer).map_err(|error| CliError::Usage(error.to_string()))? + "\n")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(number) if number.fract() != 0.0 => format!("{number:.3}"),
            Some(number) => format!("{number:.0}"),
            None => number.to_string(),
        },
        value => value.to_string(),
    }
}

fn shown(command: &MetricsCommand, answer: &Value) -> String {
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    match command {
        MetricsCommand::Show(show) if rows.is_empty() => format!("There is no measurement of {} in this period.\n", show.metric),
        MetricsCommand::Show(_) => {
            let keys = ["start", "unit", "count", "avg", "min", "p50", "p95", "p99", "max", "exceeded"];
            crate::columns::table(&keys, rows.iter().map(|row| keys.map(|key| cell(&row[key])).to_vec()))
        }
        MetricsCommand::Thresholds if rows.is_empty() => "There is no threshold. `muniment metrics set-threshold` makes one.\n".to_owned(),
        MetricsCommand::Thresholds => {
            let keys = [
                "id",
                "metric_name",
                "metric_category",
                "component_name",
                "metric_unit",
                "threshold_warning",
                "threshold_critical",
                "is_active",
            ];
            crate::columns::table(&keys, rows.iter().map(|row| keys.map(|key| cell(&row[key])).to_vec()))
        }
        MetricsCommand::SetThreshold(_) => format!("Threshold {} is in force.\n", answer["id"]),
        MetricsCommand::RemoveThreshold { id } => format!("Threshold {id} is removed.\n"),
    }
}

fn monitoring_shown(answer: &Value) -> String {
    let line = |name: &str, key: &str, unit: &str| format!("{name:<22}{:>12} {unit}\n", cell(&answer[key]));
    let mut text = format!("{}\n", answer["time"].as_str().unwrap_or_default());
    text.push_str(&line("queue depth", "queue_depth", "requests"));
    text.push_str(&line("processing lag", "processing_lag_ms", "ms"));
    text.push_str(&line("error rate", "error_rate_percent", "%"));
    text.push_str(&line("requests lately", "requests", ""));
    text.push_str(&line("commits lately", "commits", ""));
    text.push_str(&line("commit latency p50", "commit_latency_p50_ms", "ms"));
    text.push_str(&line("commit latency p99", "commit_latency_p99_ms", "ms"));
    text.push_str(&line("not in Parquet yet", "hot_bytes", "bytes"));
    text.push_str(&line("the oldest of it", "flush_lag_ms", "ms"));
    text.push_str(&line("memory of requests", "ingest_memory_bytes", "bytes"));
    text.push_str(&line("blocked by limits", "blocked_subjects", ""));
    let lag = |row: &Value| format!("  {:<20}{:>12} ms behind\n", cell(&row["name"]), cell(&row["lag_ms"]));
    for (heading, key) in [("followers", "followers"), ("sources", "sources")] {
        let rows = answer[key].as_array().map(Vec::as_slice).unwrap_or_default();
        if !rows.is_empty() {
            text.push_str(&format!("{heading}\n"));
            rows.iter().for_each(|row| text.push_str(&lag(row)));
        }
    }
    text
}
