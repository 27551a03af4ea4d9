//! Background work: flush and merge, sweep, heartbeat, publication of checkpoints.

use crate::engine::Engine;
use crate::metrics::Failure;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// How often sessions are looked for whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_secs(15);
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How soon a limit or block that somebody has changed in the database holds, and a refusal is written down.
const LIMITS_EVERY: Duration = Duration::from_secs(2);
/// Checkpoints are published at most this often.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// One published checkpoint is kept under its size for each such time.
const KEEP_EVERY: Duration = Duration::from_secs(300);

/// Starts all background tasks. They end when the engine is told to stop.
pub(crate) fn start(engine: &Arc<Engine>) -> Vec<JoinHandle<()>> {
    vec![
        every(engine, FLUSH_EVERY, |engine| async move { flush(&engine).await }),
        every(engine, SWEEP_EVERY, |engine| async move { sweep(&engine).await }),
        every(engine, engine.config().heartbeat, |engine| async move { heartbeat(&engine).await }),
        every(engine, LIMITS_EVERY, |engine| async move { refresh(&engine).await }),
        publisher(engine),
    ]
}

/// Does something again and again until the engine is told to stop; for the first time after the period.
pub(crate) fn every<F, W>(engine: &Arc<Engine>, period: Duration, work: W) -> JoinHandle<()>
where
    W: Fn(Arc<Engine>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let (weak, mut stopping) = (Arc::downgrade(engine), engine.stopping());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
            let Some(engine) = weak.upgrade() else { return };
            work(engine).await;
        }
    })
}

async fn flush(engine: &Engine) {
    let (metrics, config) = (engine.metrics(), engine.config());
    let work = async || -> Result<(), muniment_store::StoreError> {
        let files = engine.store().flush(&config.flush, crate::now(), false).await?;
        metrics.flushes.inc_by(files.len() as u64);
        if files.is_empty() {
            return engine.store().remove_retired().await;
        }
        while engine.store().compact(&config.compaction, crate::now()).await?.is_some() {
            metrics.compactions.inc();
        }
        Ok(())
    };
    if let Err(error) = work().await {
        metrics.failed(Failure::Flush);
        tracing::error!(error = &error as &dyn std::error::Error, "moving records to files failed; it will be tried again");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn sweep(engine: &Engine) {
    let config = engine.config();
    let now = crate::now();
    let replaced = engine.store().sweep_replaced(now - micros(config.grace)).await;
    let forgotten = engine.store().db().forget_idempotency(now - micros(config.idempotency)).await;
    if let Some(error) = replaced.err().or(forgotten.err()) {
        tracing::warn!(error = &error as &dyn std::error::Error, "sweeping failed; it will be tried again");
    }
}

/// Takes over what somebody has changed in the registers behind the API, and writes refusals down.
async fn refresh(engine: &Engine) {
    crate::limits::maintain(engine).await;
    if let Err(error) = engine.refresh_thresholds().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "thresholds could not be read; those from before hold");
    }
}

/// Ends sessions whose time is over, for as long as the engine runs.
pub(crate) fn expire_sessions(engine: &Arc<Engine>) -> JoinHandle<()> {
    every(engine, EXPIRE_EVERY, |engine| async move {
        loop {
            match engine.expire_sessions().await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "sessions could not be ended; it will be tried again");
                    return;
                }
            }
        }
    })
}

async fn heartbeat(engine: &Engine) {
    if let Err(error) = engine.heartbeat(crate::now() - micros(engine.config().heartbeat)).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "no heartbeat could be signed");
    }
}

fn publisher(engine: &Arc<Engine>) -> JoinHandle<()> {
    let (weak, mut newest, mut stopping) = (Arc::downgrade(engine), engine.watch_checkpoints(), engine.stopping());
    tokio::spawn(async move {
        let mut kept: Option<Instant> = None;
        newest.mark_changed();
        loop {
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                _ = stopping.wait_for(|stop| *stop) => return,
            }
            newest.mark_unchanged();
            let Some(engine) = weak.upgrade() else { return };
            let keep = kept.is_none_or(|at| at.elapsed() >= KEEP_EVERY);
            match engine.publish(keep) {
                Ok(()) if keep => kept = Some(Instant::now()),
                Ok(()) => {}
                Err(error) => {
                    engine.metrics().failed(Failure::Publish);
                    tracing::error!(error = &error as &dyn std::error::Error, "a checkpoint could not be published");
                }
            }
            drop(engine);
            tokio::select! {
                () = tokio::time::sleep(PUBLISH_EVERY) => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    })
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
