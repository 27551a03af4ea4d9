//! Following a log: its records in commit order, each once, and what follows from them stored in the transaction that moves the follower.
//!
//! A [`Consumer`] is a deterministic function of the records before: it gets them slice by slice, and returns what follows (changes of registers, records of
//! logs) and what it has to remember. All of that and the position after the slice are one transaction, so that a kill at any instant neither repeats nor loses
//! anything. Where a slice ends, also in the middle of a commit, depends on the load and must not matter to the consumer. Records that follow wait in an
//! outbox of the commit database, from which [`outbox`] takes them into their logs, also once.

mod outbox;
mod reader;
#[cfg(test)]
mod tests;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::metrics::Failure;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use async_trait::async_trait;
use muniment_model::Table;
use muniment_store::StoreError;
use muniment_store::follow::{Advance, FollowerRow};
use muniment_store::register::{ChangedBy, RegisterChange};
use reader::Reader;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Shortest time between two steps: under load a step takes what has gathered meanwhile.
const PACE: Duration = Duration::from_millis(200);
/// Time that a follower rests for each byte of what it has to remember, so that writing it stays a small part of what the disk does.
const REST_PER_BYTE: Duration = Duration::from_micros(2);
/// Records of a slice from which little follows.
pub(crate) const SLICE_RECORDS: u64 = 32 * 1024;
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// What follows from a slice of records.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Changes of registers.
    pub changes: Vec<RegisterChange>,
    /// Records: the log, and one line of JSON. The line is checked when it is taken into its log, so it must be valid.
    pub records: Vec<(&'static str, String)>,
    /// What the consumer remembers: [`Consumer::restore`] gets it back.
    pub state: String,
}

/// What is done with the records of a log.
#[async_trait]
pub(crate) trait Consumer: Send {
    /// Goes back to what was remembered: after a start, and after a step that could not be stored. Empty at the beginning.
    ///
    /// # Errors
    /// If it can't be read; the follower then stands still, and says so.
    fn restore(&mut self, state: &str) -> Result<()>;

    /// Takes records, in commit order. The batches have the columns asked for, then `id`, `stream_index` and `recorded_at`; a batch's records are of one stream,
    /// its first `recorded_at` that of all.
    ///
    /// # Errors
    /// For whatever failed: the same records come again after a pause.
    async fn take(&mut self, engine: &Engine, records: &[RecordBatch]) -> Result<Outcome>;
}

/// A follower: its name, what it follows, and the consumer.
pub(crate) struct Following {
    /// Name under which the position is kept; never changes.
    pub name: &'static str,
    /// The log.
    pub log: &'static Table,
    /// The columns that the consumer needs.
    pub columns: &'static [&'static str],
    /// Records that it takes at once at most: what follows from them is one transaction, during which nobody else writes.
    pub slice: u64,
    /// Who changes registers, for the record.
    pub by: ChangedBy,
    /// What is done with the records.
    pub consumer: Box<dyn Consumer>,
}

/// Starts a follower. It ends when the engine is told to stop; the step under way is finished.
pub(crate) fn start(engine: &Arc<Engine>, following: Following) -> JoinHandle<()> {
    let (weak, stopping, newest) = (Arc::downgrade(engine), engine.stopping(), engine.watch_checkpoints());
    tokio::spawn(run(weak, stopping, newest, following))
}

/// Starts the task that takes the outbox into the logs.
pub(crate) fn start_outbox(engine: &Arc<Engine>) -> JoinHandle<()> {
    outbox::start(engine)
}

async fn run(
    weak: Weak<Engine>,
    mut stopping: watch::Receiver<bool>,
    mut newest: watch::Receiver<(u64, String)>,
    mut following: Following,
) {
    let mut place = None;
    loop {
        let Some(engine) = weak.upgrade() else { return };
        newest.mark_unchanged();
        let stepped = step(&engine, &mut following, &mut place).await;
        let rest = match stepped {
            Ok(Stepped::Took { records, newest, rest }) => {
                engine.metrics().followed(following.name, records, (crate::now() - newest).max(0) as f64 / 1e6);
                Some(rest)
            }
            Ok(Stepped::Nothing) => {
                engine.metrics().followed(following.name, 0, 0.0);
                None
            }
            Err(error) => {
                // What the consumer has in mind may be ahead of what is stored.
                place = None;
                let moved = matches!(error, EngineError::Store(StoreError::Conflict { .. }));
                if !moved {
                    engine.metrics().failed(Failure::Follow);
                    tracing::error!(
                        follower = following.name,
                        error = &error as &dyn std::error::Error,
                        "following failed; it is tried again"
                    );
                }
                Some(if moved { PACE } else { PAUSE })
            }
        };
        drop(engine);
        let next = async {
            match rest {
                Some(rest) => tokio::time::sleep(rest).await,
                None => {
                    if newest.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        };
        tokio::select! {
            () = next => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// What became of a step.
enum Stepped {
    /// There was nothing new.
    Nothing,
    /// Records were taken and stored with what follows.
    Took {
        /// How many.
        records: u64,
        /// When the last of them was committed, µs UTC.
        newest: i64,
        /// How long to rest.
        rest: Duration,
    },
}

/// Where a running follower is.
struct Place {
    reader: Reader,
    stored: String,
}

async fn step(engine: &Engine, following: &mut Following, place: &mut Option<Place>) -> Result<Stepped> {
    let store = engine.store();
    let mut at = match place.take() {
        Some(place) => place,
        None => {
            let FollowerRow { position, state } = store.db().follower(following.name).await?.unwrap_or_default();
            following.consumer.restore(&state)?;
            Place { reader: Reader::at(following.log, following.columns, following.slice, &position)?, stored: position }
        }
    };
    let Some(slice) = at.reader.next(store).await? else {
        *place = Some(at);
        return Ok(Stepped::Nothing);
    };
    let outcome = following.consumer.take(engine, &slice.batches).await?;
    let waiting = !outcome.records.is_empty();
    let newest = slice.batches.last().and_then(newest).unwrap_or_default();
    let pace = if slice.more { Duration::ZERO } else { PACE };
    let rest = pace + REST_PER_BYTE * u32::try_from(outcome.state.len()).unwrap_or(u32::MAX);
    let step = Advance {
        name: following.name.to_owned(),
        from: at.stored.clone(),
        to: FollowerRow { position: slice.after.clone(), state: outcome.state },
        changes: outcome.changes,
        by: following.by.clone(),
        records: outcome.records,
        time: crate::now(),
    };
    store.db().advance(&step).await?;
    if waiting {
        engine.outbox_filled().notify_one();
    }
    at.stored = slice.after;
    *place = Some(at);
    Ok(Stepped::Took { records: slice.records, newest, rest })
}

/// When the last record of a batch was committed.
fn newest(batch: &RecordBatch) -> Option<i64> {
    let times = batch.column_by_name("recorded_at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    times.values().last().copied()
}
