//! Looking at a queue again and again, in a task of its own: whoever takes the batches may stop waiting at any time without breaking off a question to the database.

use crate::error::{CaptureError, Result};
use crate::source::{Batch, Source};
use async_trait::async_trait;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Longest pause while nothing happens, unless the queue has another.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Batches read ahead.
const AHEAD: usize = 1;

/// What is looked at.
#[async_trait]
pub trait Queue: Send + 'static {
    /// Pause after an unsuccessful look, at first; it doubles up to the longest.
    fn poll(&self) -> Duration;

    /// The longest pause.
    fn longest_pause(&self) -> Duration {
        LONGEST_PAUSE
    }

    /// Begins, or begins again, after the stored position.
    ///
    /// # Errors
    /// If the queue can't be reached.
    async fn begin(&mut self, position: Option<&str>) -> Result<()>;

    /// One look: the next batch, if there is anything.
    ///
    /// # Errors
    /// If the queue can't be read, or what is in it is malformed.
    async fn look(&mut self) -> Result<Option<Batch>>;

    /// Everything up to this position is stored.
    ///
    /// # Errors
    /// If the position is none.
    fn stored(&mut self, position: &str) -> Result<()>;
}

/// A source that is a queue.
#[derive(Debug)]
pub struct Polled<Q> {
    idle: Option<Q>,
    running: Option<Running<Q>>,
}

#[derive(Debug)]
struct Running<Q> {
    batches: mpsc::Receiver<Result<Batch>>,
    stored: watch::Sender<Option<String>>,
    /// One task, which ends with this set.
    task: JoinSet<Q>,
}

impl<Q: Queue> Polled<Q> {
    /// A source of this queue, not started.
    pub(super) fn of(queue: Q) -> Self {
        Self { idle: Some(queue), running: None }
    }

    /// The queue, when its task has ended.
    async fn take(&mut self) -> Result<Q> {
        if let Some(Running { batches, stored, mut task }) = self.running.take() {
            drop((batches, stored));
            return task.join_next().await.and_then(std::result::Result::ok).ok_or_else(stopped);
        }
        self.idle.take().ok_or_else(stopped)
    }
}

fn stopped() -> CaptureError {
    CaptureError::Refused("the task that reads the queue has ended".into())
}

#[async_trait]
impl<Q: Queue> Source for Polled<Q> {
    async fn start(&mut self, position: Option<&str>) -> Result<()> {
        let mut queue = self.take().await?;
        if let Err(error) = queue.begin(position).await {
            self.idle = Some(queue);
            return Err(error);
        }
        let (sender, batches) = mpsc::channel(AHEAD);
        let (stored, watched) = watch::channel(None);
        let mut task = JoinSet::new();
        task.spawn(run(queue, sender, watched));
        self.running = Some(Running { batches, stored, task });
        Ok(())
    }

    async fn next(&mut self) -> Result<Batch> {
        let running = self.running.as_mut().ok_or_else(stopped)?;
        running.batches.recv().await.ok_or_else(stopped)?
    }

    async fn confirm(&mut self, position: &str) -> Result<()> {
        if let Some(running) = &self.running {
            running.stored.send_replace(Some(position.to_owned()));
        }
        Ok(())
    }
}

/// Reads until nobody takes batches any more, or something fails, which is handed out as the last thing.
async fn run<Q: Queue>(mut queue: Q, out: mpsc::Sender<Result<Batch>>, mut stored: watch::Receiver<Option<String>>) -> Q {
    let mut pause = queue.poll();
    while !out.is_closed() {
        let position = if stored.has_changed().unwrap_or(false) { stored.borrow_and_update().clone() } else { None };
        let noted = position.map_or(Ok(()), |position| queue.stored(&position));
        let looked = match noted {
            Ok(()) => queue.look().await,
            Err(error) => Err(error),
        };
        match looked {
            Ok(Some(batch)) => {
                pause = queue.poll();
                if out.send(Ok(batch)).await.is_err() {
                    break;
                }
            }
            Ok(None) => {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = out.closed() => break,
                }
                pause = (pause * 2).min(queue.longest_pause());
            }
            Err(error) => {
                // Nobody may be there to hear it.
                let _ = out.send(Err(error)).await;
                break;
            }
        }
    }
    queue
}
