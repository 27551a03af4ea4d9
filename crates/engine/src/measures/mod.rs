//! What Muniment measures of itself, and measurements by buckets of time. How it is doing at the moment is [`Engine::monitoring`]; each minute the same goes into
//! `system_performance_log`, where it is kept, proven and asked for as any other measurement.

mod aggregate;
mod recent;

pub use aggregate::{AggregateRequest, Bucket, MOST_BUCKETS, aggregate};
pub use recent::{Lately, Recent};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::{IngestRequest, Limits};
use crate::thresholds::{Amount, Threshold};
use muniment_model::Format;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The component that measures of Muniment itself are of.
const COMPONENT: &str = "muniment";

/// Whether and how often Muniment measures itself.
#[derive(Clone, Copy, Debug)]
pub struct MonitoringConfig {
    /// Whether its measures are recorded in `system_performance_log`.
    pub record: bool,
    /// How often.
    pub interval: Duration,
}

impl Default for MonitoringConfig {
    fn default() -> Self {
        Self { record: true, interval: Duration::from_secs(60) }
    }
}

/// How a follower of a log is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FollowerState {
    /// Its name.
    pub name: String,
    /// Milliseconds that it was behind when it last took records; 0 if there is nothing that it has not taken.
    pub lag_ms: f64,
    /// Records that it has taken since the start.
    pub records: u64,
}

/// How a source of changes is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceLag {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: crate::capture::SourceState,
    /// Milliseconds that it is behind, if known.
    pub lag_ms: Option<f64>,
    /// Bytes that it is behind, if known.
    pub lag_bytes: Option<i64>,
}

/// How Muniment is doing.
#[derive(Clone, Debug, Serialize)]
pub struct Monitoring {
    /// When, µs UTC.
    #[serde(serialize_with = "crate::history::rfc3339")]
    pub time: i64,
    /// Requests waiting for their commit.
    pub queue_depth: i64,
    /// Milliseconds that what follows from records is behind them: the slowest follower or source.
    pub processing_lag_ms: f64,
    /// Share of the requests to store records that failed, lately, and not because of what was in them; percent.
    pub error_rate_percent: f64,
    /// Requests to store records, lately.
    pub requests: u64,
    /// Commits, lately.
    pub commits: u64,
    /// Half of them took at most so many milliseconds.
    pub commit_latency_p50_ms: f64,
    /// All but one in a hundred took at most so many milliseconds.
    pub commit_latency_p99_ms: f64,
    /// Age of the oldest record that is not in Parquet yet, milliseconds.
    pub flush_lag_ms: f64,
    /// Bytes of records that are not in Parquet yet.
    pub hot_bytes: u64,
    /// Bytes of memory that requests under way hold.
    pub ingest_memory_bytes: u64,
    /// Followers of logs, by name.
    pub followers: Vec<FollowerState>,
    /// Attached sources, by name.
    pub sources: Vec<SourceLag>,
    /// Whoever is counted by a rate limit.
    pub limited_subjects: usize,
    /// Whoever is blocked by one.
    pub blocked_subjects: usize,
}

impl Engine {
    /// How this engine is doing at the moment; rates and latencies are those of the last one or two intervals of measuring.
    ///
    /// # Errors
    /// If the list of sources can't be read.
    pub async fn monitoring(&self) -> Result<Monitoring> {
        self.monitored(self.metrics().recent.lately()).await
    }

    async fn monitored(&self, lately: Lately) -> Result<Monitoring> {
        let sources: Vec<SourceLag> = self.sources().await?.into_iter().map(source_lag).collect();
        let followers = self.metrics().followers();
        let lags = followers.iter().map(|follower| follower.lag_ms).chain(sources.iter().filter_map(|source| source.lag_ms));
        let (limited_subjects, blocked_subjects) = self.rate_limits().size();
        Ok(Monitoring {
            time: crate::now(),
            queue_depth: self.metrics().queue_depth.get(),
            processing_lag_ms: lags.fold(0.0, f64::max),
            error_rate_percent: lately.error_rate(),
            requests: lately.succeeded + lately.failed,
            commits: lately.commits,
            commit_latency_p50_ms: lately.commit_p50_ms,
            commit_latency_p99_ms: lately.commit_p99_ms,
            flush_lag_ms: self.flush_lag_seconds() * 1000.0,
            hot_bytes: self.store().hot_size().0,
            ingest_memory_bytes: self.budget().used() as u64,
            followers,
            sources,
            limited_subjects,
            blocked_subjects,
        })
    }

    /// Measures, and stores what was measured.
    async fn measure(self: &Arc<Self>) -> Result<()> {
        let monitoring = self.monitored(self.metrics().recent.mark()).await?;
        let body: String = lines(&monitoring).iter().map(|line| format!("{line}\n")).collect();
        let log = crate::thresholds::LOG;
        let request = IngestRequest { log, body: body.into(), format: Format::Ndjson, idempotency_key: None, position: None };
        self.ingest(request).await.map(drop)
    }
}

fn source_lag(source: crate::capture::SourceStatus) -> SourceLag {
    let (lag_ms, lag_bytes) = (source.health.lag_seconds.map(|seconds| seconds * 1000.0), source.health.lag_bytes);
    SourceLag { name: source.name, state: source.state, lag_ms, lag_bytes }
}

/// The measurements, one line of `system_performance_log` each.
fn lines(monitoring: &Monitoring) -> Vec<Value> {
    let line = |name: &str, category: &str, value: f64, unit: &str, operation: Option<&str>| {
        json!({
            "metric_name": format!("muniment.{name}"), "metric_category": category, "metric_value": format!("{value:.6}"), "metric_unit": unit,
            "component_name": COMPONENT, "operation_name": operation.map(|name| name.chars().take(200).collect::<String>()),
            "measured_at": monitoring.time,
        })
    };
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let mut lines = vec![
        line("queue_depth", "WORKFLOW", monitoring.queue_depth as f64, "count", None),
        line("processing_lag", "WORKFLOW", monitoring.processing_lag_ms, "ms", None),
        line("error_rate", "API", monitoring.error_rate_percent, "percent", None),
        line("requests", "API", monitoring.requests as f64, "count", None),
        line("commits", "DATABASE", monitoring.commits as f64, "count", None),
        line("flush_lag", "DATABASE", monitoring.flush_lag_ms, "ms", None),
        line("hot_bytes", "DATABASE", megabytes(monitoring.hot_bytes), "MB", None),
        line("ingest_memory", "API", megabytes(monitoring.ingest_memory_bytes), "MB", None),
    ];
    if monitoring.commits > 0 {
        lines.push(line("commit_latency_p50", "DATABASE", monitoring.commit_latency_p50_ms, "ms", None));
        lines.push(line("commit_latency_p99", "DATABASE", monitoring.commit_latency_p99_ms, "ms", None));
    }
    lines.extend(monitoring.followers.iter().map(|follower| line("follower_lag", "WORKFLOW", follower.lag_ms, "ms", Some(&follower.name))));
    let known = monitoring.sources.iter().filter_map(|source| Some((source.lag_ms?, &source.name)));
    lines.extend(known.map(|(lag, name)| line("source_lag", "EXTERNAL", lag, "ms", Some(name))));
    lines
}

/// Thresholds of Muniment's own measures, unless others are configured for them.
pub(crate) fn own_thresholds(limits: &Limits) -> Vec<Threshold> {
    let megabytes = |share: u64| Amount((limits.hot_bytes / 100 * share).min(1 << 50) as i64);
    let amount = |whole: i64| Amount(whole * 1_000_000);
    let threshold = |name: &str, unit: &str, warning, critical| Threshold {
        id: None,
        metric_name: Some(format!("muniment.{name}")),
        metric_category: None,
        component_name: Some(COMPONENT.to_owned()),
        metric_unit: Some(unit.to_owned()),
        threshold_warning: Some(warning),
        threshold_critical: Some(critical),
        is_active: true,
    };
    vec![
        threshold("queue_depth", "count", amount(1000), amount(3500)),
        threshold("processing_lag", "ms", amount(60_000), amount(600_000)),
        threshold("error_rate", "percent", amount(1), amount(10)),
        threshold("commit_latency_p99", "ms", amount(1000), amount(10_000)),
        threshold("hot_bytes", "MB", megabytes(50), megabytes(90)),
    ]
}

/// Starts to measure at the interval of the configuration.
pub(crate) fn start(engine: &Arc<Engine>) -> JoinHandle<()> {
    crate::maintain::every(engine, engine.config().monitoring.interval, |engine| async move {
        match engine.measure().await {
            Ok(()) | Err(EngineError::Stopped) => {}
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "what was measured could not be stored"),
        }
    })
}
