//! What the engine counts and times, for Prometheus.

use crate::measures::{FollowerState, Recent};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

/// The log that a count is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LogLabel {
    /// Its name.
    pub log: String,
}

/// The source that a count is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// Its name.
    pub source: String,
}

/// The follower that a count is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FollowerLabel {
    /// Its name.
    pub follower: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Failure {
    /// Records that were not valid.
    Invalid,
    /// Requests turned away at a limit.
    Busy,
    /// A commit failed.
    Commit,
    /// A flush or merge failed.
    Flush,
    /// A checkpoint could not be published.
    Publish,
    /// A query failed.
    Query,
    /// What follows from a log's records could not be stored.
    Follow,
}

/// The kind of an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailureLabel {
    /// Kind.
    pub kind: Failure,
}

/// The engine's metrics. Times are in seconds.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Records committed, by log.
    pub records: Family<LogLabel, Counter>,
    /// Commits.
    pub commits: Counter,
    /// Records in a commit.
    pub commit_records: Histogram,
    /// Time that a commit took, from the first request of its group until it was durable.
    pub commit_seconds: Histogram,
    /// Time from a request's arrival until it was acknowledged.
    pub ingest_seconds: Histogram,
    /// Time that a query took until its last row.
    pub query_seconds: Histogram,
    /// Requests waiting for a commit.
    pub queue_depth: Gauge,
    /// Bytes of memory that requests under way hold.
    pub ingest_bytes: Gauge,
    /// Bytes of hot batches.
    pub hot_bytes: Gauge,
    /// Number of hot batches.
    pub hot_batches: Gauge,
    /// Age of the oldest record that is not in Parquet yet.
    pub flush_lag_seconds: Gauge<f64, AtomicU64>,
    /// Files written by flushes.
    pub flushes: Counter,
    /// Files written by merges.
    pub compactions: Counter,
    /// Size of the newest published checkpoint.
    pub published_size: Gauge,
    /// Whether a source's changes are being read.
    pub capture_running: Family<SourceLabel, Gauge>,
    /// Changes stored, by source.
    pub capture_changes: Family<SourceLabel, Counter>,
    /// Batches stored, by source.
    pub capture_batches: Family<SourceLabel, Counter>,
    /// How often a source had to be started again.
    pub capture_restarts: Family<SourceLabel, Counter>,
    /// Bytes that a source is behind.
    pub capture_lag_bytes: Family<SourceLabel, Gauge>,
    /// Seconds that a source is behind.
    pub capture_lag_seconds: Family<SourceLabel, Gauge<f64, AtomicU64>>,
    /// Bytes that the audited database keeps for Muniment.
    pub capture_kept_bytes: Family<SourceLabel, Gauge>,
    /// Commits and requests of the last minutes.
    pub recent: Recent,
    /// Seconds that a follower was behind when it last took records; 0 if it has taken all.
    pub follower_lag_seconds: Family<FollowerLabel, Gauge<f64, AtomicU64>>,
    followers: Mutex<BTreeSet<String>>,
    /// Records taken by those who follow a log.
    pub followed: Family<FollowerLabel, Counter>,
    /// Errors, by kind.
    pub errors: Family<FailureLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("muniment");
        let seconds = || Histogram::new(exponential_buckets(0.000_25, 2.0, 18));
        let metrics = Self {
            records: Family::default(),
            commits: Counter::default(),
            commit_records: Histogram::new(exponential_buckets(1.0, 4.0, 10)),
            commit_seconds: seconds(),
            ingest_seconds: seconds(),
            query_seconds: seconds(),
            queue_depth: Gauge::default(),
            ingest_bytes: Gauge::default(),
            hot_bytes: Gauge::default(),
            hot_batches: Gauge::default(),
            flush_lag_seconds: Gauge::default(),
            flushes: Counter::default(),
            compactions: Counter::default(),
            published_size: Gauge::default(),
            capture_running: Family::default(),
            capture_changes: Family::default(),
            capture_batches: Family::default(),
            capture_restarts: Family::default(),
            capture_lag_bytes: Family::default(),
            capture_lag_seconds: Family::default(),
            capture_kept_bytes: Family::default(),
            recent: Recent::default(),
            follower_lag_seconds: Family::default(),
            followers: Mutex::default(),
            followed: Family::default(),
            errors: Family::default(),
            registry: Registry::default(),
        };
        let unit = || Unit::Seconds;
        registry.register("records", "Records committed", metrics.records.clone());
        registry.register("commits", "Commits", metrics.commits.clone());
        registry.register("commit_records", "Records in a commit", metrics.commit_records.clone());
        registry.register_with_unit("commit_duration", "Time of a commit", unit(), metrics.commit_seconds.clone());
        registry.register_with_unit("ingest_duration", "Time from arrival to acknowledgement", unit(), metrics.ingest_seconds.clone());
        registry.register_with_unit("query_duration", "Time of a query", unit(), metrics.query_seconds.clone());
        registry.register("queue_depth", "Requests waiting for a commit", metrics.queue_depth.clone());
        registry.register_with_unit("ingest_memory", "Memory of requests under way", Unit::Bytes, metrics.ingest_bytes.clone());
        registry.register_with_unit("hot", "Records not yet in Parquet", Unit::Bytes, metrics.hot_bytes.clone());
        registry.register("hot_batches", "Batches not yet in Parquet", metrics.hot_batches.clone());
        registry.register_with_unit("flush_lag", "Age of the oldest record not in Parquet", unit(), metrics.flush_lag_seconds.clone());
        registry.register("flushes", "Files written by flushes", metrics.flushes.clone());
        registry.register("compactions", "Files written by merges", metrics.compactions.clone());
        registry.register("published_size", "Size of the newest published checkpoint", metrics.published_size.clone());
        registry.register_with_unit(
            "follower_lag",
            "Time that a follower of a log is behind it",
            unit(),
            metrics.follower_lag_seconds.clone(),
        );
        registry.register("followed_records", "Records taken by followers of logs", metrics.followed.clone());
        registry.register("errors", "Errors by kind", metrics.errors.clone());
        metrics.register_capture(&mut registry);
        Self { registry, ..metrics }
    }
}

impl Metrics {
    fn register_capture(&self, registry: &mut Registry) {
        registry.register("capture_running", "Whether a source's changes are being read", self.capture_running.clone());
        registry.register("capture_changes", "Changes stored", self.capture_changes.clone());
        registry.register("capture_batches", "Batches of changes stored", self.capture_batches.clone());
        registry.register("capture_restarts", "How often a source had to be started again", self.capture_restarts.clone());
        registry.register_with_unit(
            "capture_lag",
            "Changes that a source has and Muniment has not",
            Unit::Bytes,
            self.capture_lag_bytes.clone(),
        );
        registry.register_with_unit(
            "capture_age",
            "Time that Muniment is behind a source",
            Unit::Seconds,
            self.capture_lag_seconds.clone(),
        );
        registry.register_with_unit("capture_kept", "What a source keeps for Muniment", Unit::Bytes, self.capture_kept_bytes.clone());
    }

    /// Notes what a follower has taken, and how far behind it was.
    pub(crate) fn followed(&self, name: &str, records: u64, lag_seconds: f64) {
        let label = FollowerLabel { follower: name.to_owned() };
        self.followed.get_or_create(&label).inc_by(records);
        self.follower_lag_seconds.get_or_create(&label).set(lag_seconds);
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).insert(label.follower);
    }

    /// How the followers of logs are doing, by name.
    pub(crate) fn followers(&self) -> Vec<FollowerState> {
        let names = self.followers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = |name: String| {
            let label = FollowerLabel { follower: name.clone() };
            let lag_ms = self.follower_lag_seconds.get_or_create(&label).get() * 1000.0;
            FollowerState { name, lag_ms, records: self.followed.get_or_create(&label).get() }
        };
        names.into_iter().map(state).collect()
    }

    /// Counts an error.
    pub fn failed(&self, kind: Failure) {
        self.errors.get_or_create(&FailureLabel { kind }).inc();
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(std::fmt::Error) => String::new(),
        }
    }
}
