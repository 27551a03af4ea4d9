//! The task of one source: reads batches, stores them in order, tells the source, and begins again after a pause when something fails.

use super::batch::{FINDINGS, Step};
use super::lag::Lag;
use super::position_name;
use super::status::{SourceState, SourceStatus};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::{IngestRequest, Receipt};
use crate::metrics::SourceLabel;
use muniment_capture::health::{Health, Monitor};
use muniment_capture::open::{Opened, SourceSpec, open};
use muniment_capture::{Batch, Source};
use muniment_model::Format;
use muniment_store::db::CaptureSourceRow;
use rand_core::RngCore;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Batches that may wait for their commit while the next is read.
const IN_FLIGHT: usize = 2;
/// An empty batch only moves the position: it is stored no more often than this.
const MOVE_EVERY: Duration = Duration::from_secs(10);
/// How often a source is looked at from outside.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Pause after a failure: doubled after each that follows, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A source that ran for so long has recovered: the next failure begins with the first pause.
const RECOVERED: Duration = Duration::from_secs(60);

/// What the task tells of itself.
#[derive(Debug, Default)]
struct Told {
    state: SourceState,
    error: Option<String>,
    changes: u64,
    batches: u64,
    restarts: u64,
    health: Health,
}

/// A running task.
#[derive(Debug)]
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    told: Arc<Mutex<Told>>,
}

impl Running {
    /// Starts the task of a source.
    pub(super) fn start(engine: &Arc<Engine>, row: CaptureSourceRow) -> Self {
        let stop = watch::Sender::new(false);
        let told = Arc::new(Mutex::new(Told { state: SourceState::Starting, ..Told::default() }));
        let label = SourceLabel { source: row.name.clone() };
        let runner = Runner { engine: Arc::downgrade(engine), stop: stop.subscribe(), told: told.clone(), label, row };
        let watcher = Watcher { engine: Arc::downgrade(engine), told: told.clone(), label: runner.label.clone(), row: runner.row.clone() };
        let tasks = vec![tokio::spawn(runner.run()), tokio::spawn(watcher.run(stop.subscribe()))];
        Self { stop, tasks, told }
    }

    /// Tells it to end, and waits until it has.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }

    /// Adds what it is doing.
    pub(super) fn describe(&self, status: &mut SourceStatus) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        status.state = told.state;
        status.error.clone_from(&told.error);
        (status.changes, status.batches, status.restarts) = (told.changes, told.batches, told.restarts);
        status.health = told.health.clone();
    }
}

/// What a source is made from.
fn spec(row: &CaptureSourceRow) -> SourceSpec<'_> {
    SourceSpec { name: &row.name, kind: &row.kind, url: &row.url, options: &row.options }
}

struct Runner {
    engine: Weak<Engine>,
    stop: watch::Receiver<bool>,
    told: Arc<Mutex<Told>>,
    label: SourceLabel,
    row: CaptureSourceRow,
}

/// Batches on their way into the log, oldest first, with the position after each.
type InFlight = VecDeque<(String, usize, oneshot::Receiver<Result<Receipt>>)>;

impl Runner {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let Some(engine) = self.engine.upgrade() else { return };
            let outcome = self.capture(&engine).await;
            self.set_state(&engine, SourceState::Waiting);
            let Err(error) = outcome else { return };
            if *self.stop.borrow() || matches!(error, EngineError::Stopped) {
                return;
            }
            if began.elapsed() > RECOVERED {
                pause = FIRST_PAUSE;
            }
            self.tell_failure(&engine, &error, pause);
            drop(engine);
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => {}
                () = stopped(&mut self.stop) => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn set_state(&self, engine: &Engine, state: SourceState) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).state = state;
        engine.metrics().capture_running.get_or_create(&self.label).set(i64::from(state == SourceState::Running));
    }

    fn tell_failure(&self, engine: &Engine, error: &EngineError, pause: Duration) {
        tracing::warn!(source = self.row.name, error = chain(error), pause = ?pause, "capture failed; it is tried again");
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.error = Some(chain(error));
        told.restarts += 1;
        engine.metrics().capture_restarts.get_or_create(&self.label).inc();
    }

    /// Captures until told to stop, or until something fails.
    async fn capture(&mut self, engine: &Arc<Engine>) -> Result<()> {
        self.set_state(engine, SourceState::Starting);
        let mut stop = self.stop.clone();
        let Opened { mut source, .. } = open(&spec(&self.row))?;
        let mut stored = engine.store().db().position(&position_name(&self.row.name)).await?.unwrap_or_default();
        let start = source.start(Some(stored.as_str()).filter(|position| !position.is_empty()));
        tokio::select! {
            started = start => started?,
            () = stopped(&mut stop) => return Ok(()),
        }
        self.set_state(engine, SourceState::Running);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).error = None;
        let mut in_flight = InFlight::new();
        // An empty batch that waits for its time.
        let mut skipped: Option<Batch> = None;
        let mut moved = Instant::now();
        loop {
            let due = moved + MOVE_EVERY;
            let event = tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                receipt = settled(&mut in_flight) => Event::Settled(receipt),
                batch = source.next(), if in_flight.len() < IN_FLIGHT => Event::Batch(batch?),
                () = tokio::time::sleep_until(due.into()), if skipped.is_some() && in_flight.is_empty() => Event::Due,
            };
            let batch = match event {
                Event::Settled(receipt) => {
                    self.settle(engine, source.as_mut(), &mut in_flight, receipt).await?;
                    continue;
                }
                Event::Batch(batch) if is_empty(&batch) && !batch.is_awaited && due > Instant::now() => {
                    skipped = Some(batch);
                    continue;
                }
                Event::Batch(batch) => Some(batch),
                Event::Due => skipped.clone(),
            };
            (skipped, moved) = (None, Instant::now());
            if let Some(batch) = batch {
                self.submit(engine, &mut stored, batch, &mut in_flight).await?;
            }
        }
        if let Some(batch) = skipped {
            self.submit(engine, &mut stored, batch, &mut in_flight).await?;
        }
        while !in_flight.is_empty() {
            let receipt = settled(&mut in_flight).await;
            self.settle(engine, source.as_mut(), &mut in_flight, receipt).await?;
        }
        Ok(())
    }

    async fn submit(&self, engine: &Arc<Engine>, stored: &mut String, batch: Batch, in_flight: &mut InFlight) -> Result<()> {
        if batch.position == *stored && is_empty(&batch) {
            return Ok(());
        }
        let (position, records) = (batch.position.clone(), batch.records);
        let answer = engine.enqueue_batch(Step { source: &self.row.name, after: stored, batch }).await?;
        in_flight.push_back((position.clone(), records, answer));
        *stored = position;
        Ok(())
    }

    /// Takes note of the oldest batch's commit, and tells the source.
    async fn settle(&self, engine: &Engine, source: &mut dyn Source, in_flight: &mut InFlight, receipt: Result<Receipt>) -> Result<()> {
        receipt?;
        let Some((position, records, _)) = in_flight.pop_front() else { return Ok(()) };
        let records = records as u64;
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.changes += records;
            told.batches += 1;
        }
        engine.metrics().capture_changes.get_or_create(&self.label).inc_by(records);
        engine.metrics().capture_batches.get_or_create(&self.label).inc();
        Ok(source.confirm(&position).await?)
    }
}

/// What the task wakes up for.
enum Event {
    /// The oldest batch is stored, or could not be.
    Settled(Result<Receipt>),
    /// The source has something.
    Batch(Batch),
    /// A position that only moved is to be stored.
    Due,
}

fn is_empty(batch: &Batch) -> bool {
    batch.records == 0 && batch.findings.is_empty()
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits for the commit of the oldest batch; for ever if there is none.
async fn settled(in_flight: &mut InFlight) -> Result<Receipt> {
    match in_flight.front_mut() {
        Some((_, _, answer)) => answer.await.map_err(|_| EngineError::Stopped)?,
        None => std::future::pending().await,
    }
}

/// Between half of a time and all of it, so that many sources don't come back at once.
fn jittered(pause: Duration) -> Duration {
    let share = f64::from(rand_core::OsRng.next_u32()) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + share / 2.0)
}

/// An error with its causes.
fn chain(error: &EngineError) -> String {
    let mut text = error.to_string();
    if let EngineError::Invalid(rejection) = error {
        text.push_str(&format!(": {rejection}"));
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Looks at the source from outside.
struct Watcher {
    engine: Weak<Engine>,
    told: Arc<Mutex<Told>>,
    label: SourceLabel,
    row: CaptureSourceRow,
}

impl Watcher {
    async fn run(self, mut stop: watch::Receiver<bool>) {
        let Ok(Opened { monitor: Some(mut monitor), .. }) = open(&spec(&self.row)) else { return };
        let mut lag = Lag::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stopped(&mut stop) => return,
            }
            let Some(engine) = self.engine.upgrade() else { return };
            self.look(&engine, monitor.as_mut(), &mut lag).await;
        }
    }

    async fn look(&self, engine: &Arc<Engine>, monitor: &mut dyn Monitor, lag: &mut Lag) {
        let health = match monitor.look().await {
            Ok(health) => health,
            Err(error) => {
                tracing::debug!(source = self.row.name, error = &error as &dyn std::error::Error, "the source can't be looked at");
                return;
            }
        };
        let metrics = engine.metrics();
        metrics.capture_lag_bytes.get_or_create(&self.label).set(health.lag_bytes.unwrap_or(0));
        metrics.capture_lag_seconds.get_or_create(&self.label).set(health.lag_seconds.unwrap_or(0.0));
        metrics.capture_kept_bytes.get_or_create(&self.label).set(health.kept_bytes.unwrap_or(0));
        let findings = lag.findings(&self.row.name, &health, &engine.config().capture, crate::now());
        self.told.lock().unwrap_or_else(PoisonError::into_inner).health = health;
        if findings.is_empty() {
            return;
        }
        tracing::warn!(source = self.row.name, findings = %String::from_utf8_lossy(&findings).trim_end(), "the source needs attention");
        let body = findings.into();
        let request = IngestRequest { log: FINDINGS, body, format: Format::Ndjson, idempotency_key: None, position: None };
        if let Err(error) = engine.ingest(request).await {
            tracing::error!(source = self.row.name, error = &error as &dyn std::error::Error, "a finding could not be stored");
        }
    }
}
