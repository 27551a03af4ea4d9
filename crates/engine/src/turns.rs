//! Turns at work that keeps a core busy for milliseconds. More at a time than there are cores would all be late, and each would find its data gone from the cache.

use crate::error::{EngineError, Result};
use std::num::NonZero;
use std::thread::available_parallelism;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// As many threads as there are cores, for work in the order in which it comes. A thread that is done takes the next itself: to wake another would cost both time.
/// One that has nothing to do sleeps at once, since on a machine that we share with the audited database, looking around for work takes the processor from it.
#[derive(Debug)]
pub(crate) struct Turns(Option<Runtime>);

impl Turns {
    /// Makes the pool; threads start when there is work, and end when there has been none for a while.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn new() -> Result<Self> {
        let threads = available_parallelism().map_or(1, NonZero::get);
        let pool = Builder::new_current_thread().max_blocking_threads(threads).thread_name("prepare").build();
        pool.map(|pool| Self(Some(pool))).map_err(|error| EngineError::Parameter { name: "threads", reason: error.to_string() })
    }

    /// Does some work when it is its turn, unless nobody waits for it any more.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] if the work panicked.
    pub(crate) async fn take<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let pool = self.0.as_ref().ok_or(EngineError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        pool.spawn_blocking(move || {
            if !reply.is_closed() {
                let _ = reply.send(work());
            }
        });
        answer.await.map_err(|_| EngineError::Stopped)
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        // Whoever drops the engine may be within a task, which must not wait for threads.
        if let Some(pool) = self.0.take() {
            pool.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_the_next_has_its_turn() {
        let turns = Turns::new().unwrap();
        for _ in 0..2 * available_parallelism().unwrap().get() {
            assert!(matches!(turns.take(|| panic!("as expected")).await, Err::<(), _>(EngineError::Stopped)));
        }
        assert_eq!(turns.take(|| 7).await.unwrap(), 7);
    }
}
