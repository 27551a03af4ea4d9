//! Turns at work that keeps a core busy for milliseconds. More at a time than there are cores would all be late, and each would find its data gone from the cache.

use crate::error::{EngineError, Result};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Work for as many threads as there are cores, in the order in which it came. A thread that is done takes the next itself: to wake another would cost both time.
pub(crate) struct Turns {
    waiting: Mutex<Waiting>,
    threads: usize,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    running: usize,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Turns {
    /// No work yet.
    pub(crate) fn new() -> Arc<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self { waiting: Mutex::default(), threads })
    }

    /// Does some work when it is its turn, unless nobody waits for it any more.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] if the work panicked or the runtime ends.
    pub(crate) async fn take<T: Send + 'static>(self: &Arc<Self>, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move || {
            if !reply.is_closed() {
                let _ = reply.send(work());
            }
        });
        if self.queue(job) {
            let turns = self.clone();
            tokio::task::spawn_blocking(move || turns.work());
        }
        answer.await.map_err(|_| EngineError::Stopped)
    }

    /// Whether a further thread is to work.
    fn queue(&self, job: Job) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.jobs.push_back(job);
        let further = waiting.running < self.threads;
        waiting.running += usize::from(further);
        further
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // What panics is told to who waits for it: the reply is dropped.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let job = waiting.jobs.pop_front();
        waiting.running -= usize::from(job.is_none());
        job
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_than_threads_work_at_a_time_and_all_is_done() {
        let (turns, busy, most) = (Turns::new(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                let (turns, busy, most) = (turns.clone(), busy.clone(), most.clone());
                tokio::spawn(async move {
                    let work = move || {
                        most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(1));
                        busy.fetch_sub(1, Ordering::SeqCst);
                        n
                    };
                    turns.take(work).await.unwrap()
                })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), n);
        }
        assert!(most.load(Ordering::SeqCst) <= turns.threads);
    }

    #[tokio::test]
    async fn a_panic_is_told_and_the_next_has_its_turn() {
        let turns = Turns::new();
        for _ in 0..2 * turns.threads {
            assert!(matches!(turns.take(|| panic!("as expected")).await, Err::<(), _>(EngineError::Stopped)));
        }
        assert_eq!(turns.take(|| 7).await.unwrap(), 7);
    }
}
