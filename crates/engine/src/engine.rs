//! The engine: a store, a ledger that one task extends, and the background work around them.

use crate::capture::{CaptureConfig, Captures};
use crate::commit::{Committer, Reply, Work};
use crate::error::{EngineError, Result};
use crate::heads::Heads;
use crate::identity::Identities;
use crate::ingest::{Budget, Limits, Prepared, Receipt};
use crate::keys::KeyFolder;
use crate::limits::{ProtectionConfig, RateLimits};
use crate::maintain;
use crate::measures::MonitoringConfig;
use crate::metrics::Metrics;
use crate::people::Sight;
use crate::publish;
use crate::reading::Readings;
use crate::sessions::SessionConfig;
use crate::turns::Turns;
use crate::unmasking::UnmaskingRules;
use muniment_ledger::PartitionKey;
use muniment_ledger::bundle;
use muniment_ledger::meta::MetaLeaf;
use muniment_model::{Table, Type};
use muniment_store::db::Loaded;
use muniment_store::{Compaction, FlushPolicy, Mode, Store};
use rand_core::RngCore;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Requests that may wait for a commit.
const QUEUE: usize = 4096;

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The data folder.
    pub data: PathBuf,
    /// Name of a new log in its checkpoints; by default `muniment.local/` and eight random hexadecimal digits.
    pub origin: Option<String>,
    /// Folders to which checkpoints are published. They should not lie in the data folder.
    pub publish: Vec<PathBuf>,
    /// Time without a commit after which a heartbeat is signed.
    pub heartbeat: Duration,
    /// Time after which a replaced file may be removed; no query runs longer.
    pub grace: Duration,
    /// How long answers to idempotency keys are kept.
    pub idempotency: Duration,
    /// Limits of what is taken in.
    pub limits: Limits,
    /// When records move to Parquet.
    pub flush: FlushPolicy,
    /// When files are merged.
    pub compaction: Compaction,
    /// How masked contents are shown in clear.
    pub unmasking: UnmaskingRules,
    /// When a source that falls behind becomes a finding.
    pub capture: CaptureConfig,
    /// How Muniment protects its own API.
    pub protection: ProtectionConfig,
    /// Whether and how often Muniment measures itself.
    pub monitoring: MonitoringConfig,
    /// Whether users that records speak of are entered in the directory when they are first seen.
    pub first_sight: bool,
    /// How long sessions last, and how many a user may have.
    pub sessions: SessionConfig,
}

impl EngineConfig {
    /// The defaults for a data folder: checkpoints are published to the folder beside it that is named after it.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let data = data.into();
        let mut beside = data.file_name().unwrap_or_else(|| "muniment".as_ref()).to_owned();
        beside.push("-checkpoints");
        Self {
            publish: vec![data.with_file_name(beside)],
            data,
            origin: None,
            heartbeat: Duration::from_secs(60),
            grace: Duration::from_secs(600),
            idempotency: Duration::from_secs(7 * 24 * 3600),
            limits: Limits::default(),
            flush: FlushPolicy::default(),
            compaction: Compaction::default(),
            unmasking: UnmaskingRules::default(),
            capture: CaptureConfig::default(),
            protection: ProtectionConfig::default(),
            monitoring: MonitoringConfig::default(),
            first_sight: false,
            sessions: SessionConfig::default(),
        }
    }
}

/// What requests and the committer share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    pub(crate) thresholds: crate::thresholds::Current,
    pub(crate) sight: Sight,
    /// Turns at preparing large requests.
    pub(crate) turns: Turns,
    next_ids: HashMap<&'static str, AtomicI64>,
    partition_keys: Mutex<HashMap<(String, Arc<str>), PartitionKey>>,
}

impl Shared {
    /// Takes as many consecutive ids of a log.
    pub(crate) fn allocate_ids(&self, table: &Table, records: usize) -> i64 {
        self.next_ids.get(table.name).map_or(1, |next| next.fetch_add(records as i64, Ordering::Relaxed))
    }

    /// The partition key of a stream's month, created if it is the first.
    pub(crate) async fn partition_key(&self, stream: &str, month: &Arc<str>) -> Result<PartitionKey> {
        let place = (stream.to_owned(), month.clone());
        if let Some(key) = self.partition_keys.lock().unwrap_or_else(PoisonError::into_inner).get(&place) {
            return Ok(key.clone());
        }
        let stored = match self.store.db().partition_key(stream, month).await? {
            Some(key) => key,
            None => {
                let mut fresh = [0; 32];
                rand_core::OsRng.fill_bytes(&mut fresh);
                self.store.db().create_partition_key(stream, month, fresh).await?
            }
        };
        let key = PartitionKey::new(&stored);
        self.partition_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(place, key.clone());
        Ok(key)
    }
}

/// A running engine on a data folder: the only one that writes to it.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    config: EngineConfig,
    budget: Arc<Budget>,
    work: mpsc::Sender<Work>,
    newest: watch::Receiver<(u64, String)>,
    origin: String,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    captures: Captures,
    identities: Identities,
    readings: Readings,
    stopping: watch::Sender<bool>,
    envelope_turns: crate::envelopes::Turns,
    opening_cases: tokio::sync::Mutex<()>,
    outbox_filled: Arc<Notify>,
    pub(crate) rate_limits: Arc<RateLimits>,
    pub(crate) requests: crate::requests::Recorder,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data", &self.config.data).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens a data folder as its writer, creating it if need be, and starts the background work.
    ///
    /// # Errors
    /// [`EngineError::RolledBack`] if the folder is older than what was published; [`EngineError::Store`] if another process has it.
    pub async fn open(config: EngineConfig) -> Result<Arc<Self>> {
        let now = crate::now();
        let origin = config.origin.clone().unwrap_or_else(new_origin);
        let (store, loaded) = Store::open(&config.data, Mode::Write { origin, now }).await?;
        let heads = Heads::from_loaded(&loaded)?;
        publish::fence(&config.publish, &store, &heads).await?;
        let keys = KeyFolder::open(&config.data, &loaded.origin)?;
        let key = keys.current(loaded.checkpoint.as_ref().map(|(_, note)| note.as_str()))?;
        let shared = Arc::new(Shared {
            store,
            metrics: Metrics::default(),
            limits: config.limits,
            thresholds: crate::thresholds::Current::default(),
            turns: Turns::new()?,
            sight: Sight::new(config.first_sight),
            next_ids: next_ids(&loaded),
            partition_keys: Mutex::default(),
        });
        let (newest_sender, newest) = watch::channel(loaded.checkpoint.clone().unwrap_or_default());
        let (work, receiver) = mpsc::channel(QUEUE);
        let mut committer = Committer { shared: shared.clone(), heads, key, keys, newest: newest_sender, positions: HashMap::new() };
        committer.begin().await?;
        let rate_limits = Arc::new(RateLimits::new(shared.store.clone(), &config.protection));
        rate_limits.refresh().await?;
        let (readings, reading_queue) = Readings::new();
        let engine = Arc::new(Self {
            rate_limits,
            requests: crate::requests::Recorder::default(),
            budget: Budget::new(config.limits.memory_bytes),
            identities: Identities::new(shared.store.clone()),
            shared,
            config,
            work,
            newest,
            origin: loaded.origin,
            tasks: Mutex::default(),
            captures: Captures::default(),
            readings,
            stopping: watch::Sender::new(false),
            envelope_turns: crate::envelopes::Turns::default(),
            opening_cases: tokio::sync::Mutex::default(),
            outbox_filled: Arc::default(),
        });
        engine.refresh_thresholds().await?;
        let mut tasks = maintain::start(&engine);
        tasks.push(reading_queue.start(&engine));
        tasks.push(tokio::spawn(committer.run(receiver)));
        *engine.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        engine.start_registers().await?;
        Ok(engine)
    }

    /// The store, for queries and evidence.
    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// Who somebody is: keys, and roles of users.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// What is counted and timed.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Limits of what is taken in.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// How this engine is set up.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Name of this log in its checkpoints.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(crate) fn envelope_turns(&self) -> &crate::envelopes::Turns {
        &self.envelope_turns
    }

    pub(crate) fn readings(&self) -> &Readings {
        &self.readings
    }

    /// Told when followers have put records into the outbox.
    pub(crate) fn outbox_filled(&self) -> &Arc<Notify> {
        &self.outbox_filled
    }

    /// Starts what follows the logs: sessions, limits, thresholds. Only a service does, not a command that takes in a file.
    ///
    /// # Errors
    /// None in practice: if a log that is followed does not exist.
    pub fn start_following(self: &Arc<Self>) -> Result<()> {
        let mut tasks = vec![crate::follow::start_outbox(self)];
        for following in [crate::limits::following()?, crate::thresholds::following()?, crate::sessions::following()?] {
            tasks.push(crate::follow::start(self, following));
        }
        if self.config.protection.record_requests {
            self.requests.start(self);
        }
        tasks.push(crate::maintain::expire_sessions(self));
        if self.config.monitoring.record {
            tasks.push(crate::measures::start(self));
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
        Ok(())
    }

    /// One opens an investigation at a time.
    pub(crate) fn opening_cases(&self) -> &tokio::sync::Mutex<()> {
        &self.opening_cases
    }

    pub(crate) fn sight(&self) -> &Sight {
        &self.shared.sight
    }

    pub(crate) fn captures(&self) -> &Captures {
        &self.captures
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    pub(crate) fn watch_checkpoints(&self) -> watch::Receiver<(u64, String)> {
        self.newest.clone()
    }

    /// Brings gauges up to date and returns all metrics in the OpenMetrics text format.
    pub fn render_metrics(&self) -> String {
        let metrics = self.metrics();
        let (bytes, batches) = self.store().hot_size();
        metrics.hot_bytes.set(bytes as i64);
        metrics.hot_batches.set(batches as i64);
        metrics.ingest_bytes.set(self.budget.used() as i64);
        metrics.flush_lag_seconds.set(self.flush_lag_seconds());
        metrics.encode()
    }

    /// Age of the oldest record that is not in Parquet yet, seconds.
    pub(crate) fn flush_lag_seconds(&self) -> f64 {
        let oldest = self.store().snapshot().values().filter_map(|stream| stream.hot.first().map(|b| b.extent.recorded_from)).min();
        oldest.map_or(0.0, |oldest| (crate::now() - oldest).max(0) as f64 / 1e6)
    }

    async fn ask<T>(&self, work: impl FnOnce(Reply<T>) -> Work) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.work.send(work(reply)).await.map_err(|_| EngineError::Stopped)?;
        answer.await.map_err(|_| EngineError::Stopped)?
    }

    pub(crate) async fn submit(&self, prepared: Prepared) -> Result<Receipt> {
        self.enqueue(prepared).await?.await.map_err(|_| EngineError::Stopped)?
    }

    /// Puts a request in the queue, behind all that were put there before; the answer comes through the channel.
    pub(crate) async fn enqueue(&self, prepared: Prepared) -> Result<oneshot::Receiver<Result<Receipt>>> {
        let (reply, answer) = oneshot::channel();
        self.metrics().queue_depth.inc();
        self.work.send(Work::Records(Box::new(prepared), reply)).await.map_err(|_| EngineError::Stopped)?;
        Ok(answer)
    }

    /// The newest checkpoint, a signed note.
    pub fn checkpoint(&self) -> String {
        self.newest.borrow().1.clone()
    }

    /// Size of the newest checkpoint.
    pub fn checkpoint_size(&self) -> u64 {
        self.newest.borrow().0
    }

    /// Signs a heartbeat if nothing was committed since this time, µs UTC.
    pub async fn heartbeat(&self, since: i64) -> Result<()> {
        self.ask(|reply| Work::Heartbeat(since, reply)).await
    }

    /// Replaces the signing key. Returns the new verifier key.
    pub async fn rotate_key(&self) -> Result<String> {
        let vkey = self.ask(Work::Rotation).await?;
        self.publish(true)?;
        Ok(vkey)
    }

    /// Moves all hot records to Parquet, merges small files, and gives space back.
    pub async fn flush_all(&self) -> Result<()> {
        self.store().flush(&self.config.flush, crate::now(), true).await?;
        let compaction = Compaction { gentle: false, ..self.config.compaction };
        while self.store().compact(&compaction, crate::now()).await?.is_some() {}
        self.store().remove_retired().await?;
        Ok(self.store().db().reclaim().await?)
    }

    /// Publishes the newest checkpoint now; under its size, too, if it is to be `kept`.
    pub(crate) fn publish(&self, kept: bool) -> Result<()> {
        let (size, note) = self.newest.borrow().clone();
        publish::publish(&self.config.publish, size, &note, kept)?;
        self.metrics().published_size.set(size as i64);
        Ok(())
    }

    /// Finishes what is under way, publishes the last checkpoint, and stops. Requests that come later are refused.
    pub async fn shutdown(&self) -> Result<()> {
        self.requests.stop().await;
        self.stop_capture().await;
        if let Err(error) = self.rate_limits.write_pending().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last refusals could not be written down");
        }
        if let Err(error) = self.finish_readings().await {
            tracing::error!(error = &error as &dyn std::error::Error, "the last readings can't be recorded");
        }
        self.stopping.send_replace(true);
        self.store().hurry();
        self.ask(Work::Stop).await?;
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
        self.publish(true)
    }
}

impl Committer {
    /// Writes the first leaves of a new log: its key and the columns of its logs; or those of logs whose columns have changed since.
    async fn begin(&mut self) -> Result<()> {
        let mut step = self.heads.step(crate::now());
        let time = step.time();
        if self.heads.size() == 0 {
            step.leaf(&MetaLeaf::Key { time, vkey: self.key.verifier_key().to_string(), previous: None });
        }
        let known: HashMap<String, u64> =
            self.shared.store.db().landmarks("schema").await?.into_iter().map(|(number, log)| (log, number)).collect();
        for table in muniment_model::logs() {
            let columns = signed_columns(table);
            let current = match known.get(table.name) {
                Some(&number) => self.shared.store.db().meta_leaves(number, number + 1).await?.pop(),
                None => None,
            };
            let unchanged = match current.as_deref().map(MetaLeaf::decode).transpose()? {
                Some(MetaLeaf::Schema { columns: signed, .. }) => signed == columns,
                _ => false,
            };
            if !unchanged {
                step.leaf(&MetaLeaf::Schema { time, log: table.name.to_owned(), columns });
            }
        }
        if step.commit.leaves.is_empty() {
            return Ok(());
        }
        step.sign(&[&self.key])?;
        self.finish(step, Vec::new()).await
    }
}

/// A log's data columns as the meta-log signs them.
pub(crate) fn signed_columns(table: &Table) -> Vec<bundle::Column> {
    table.columns.iter().map(signed_column).collect()
}

fn signed_column(column: &muniment_model::Column) -> bundle::Column {
    let (kind, precision, scale) = match column.ty {
        Type::Text { .. } | Type::Hash => (bundle::Kind::Text, None, None),
        Type::Json { .. } => (bundle::Kind::Json, None, None),
        Type::Inet => (bundle::Kind::Inet, None, None),
        Type::Uuid => (bundle::Kind::Uuid, None, None),
        Type::Int { .. } => (bundle::Kind::Int, None, None),
        Type::Bool => (bundle::Kind::Bool, None, None),
        Type::Timestamp => (bundle::Kind::Timestamp, None, None),
        Type::Decimal { precision, scale } => (bundle::Kind::Decimal, Some(precision), Some(scale)),
    };
    bundle::Column { name: column.name.to_owned(), kind, precision, scale }
}

fn next_ids(loaded: &Loaded) -> HashMap<&'static str, AtomicI64> {
    let known: HashMap<&str, i64> = loaded.next_ids.iter().map(|(log, next)| (log.as_str(), *next)).collect();
    muniment_model::logs().iter().map(|table| (table.name, AtomicI64::new(known.get(table.name).copied().unwrap_or(1)))).collect()
}

fn new_origin() -> String {
    format!("muniment.local/{:08x}", rand_core::OsRng.next_u32())
}
