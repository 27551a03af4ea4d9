//! Turns at work that keeps a core busy for milliseconds. More at a time than there are cores would all be late, and each would find its data gone from the cache.

use crate::error::{EngineError, Result};
use tokio::sync::oneshot;

/// As many threads as there are cores, for work in the order in which it comes. A thread that is done takes the next itself: to wake another would cost both time.
#[derive(Debug)]
pub(crate) struct Turns(rayon::ThreadPool);

impl Turns {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives none.
    pub(crate) fn new() -> Result<Self> {
        // What panics is told to who waits for it: the reply is dropped.
        let pool = rayon::ThreadPoolBuilder::new().thread_name(|n| format!("prepare-{n}")).panic_handler(|_| {}).build();
        pool.map(Self).map_err(|error| EngineError::Parameter { name: "threads", reason: error.to_string() })
    }

    /// Does some work when it is its turn, unless nobody waits for it any more.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] if the work panicked.
    pub(crate) async fn take<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.0.spawn_fifo(move || {
            if !reply.is_closed() {
                let _ = reply.send(work());
            }
        });
        answer.await.map_err(|_| EngineError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_the_next_has_its_turn() {
        let turns = Turns::new().unwrap();
        for _ in 0..2 * turns.0.current_num_threads() {
            assert!(matches!(turns.take(|| panic!("as expected")).await, Err::<(), _>(EngineError::Stopped)));
        }
        assert_eq!(turns.take(|| 7).await.unwrap(), 7);
    }
}
