//! Runs of records that are checked each on its own, in parallel.

use super::OnProgress;
use super::join::Join;
use muniment_ledger::verify::{BlockSummary, Finding};
use muniment_ledger::{Hash, Salt};
use muniment_store::db::Extent;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

/// Tasks for each thread that are begun before those ahead of them are joined.
const AHEAD: usize = 8;

/// The first record of a run: checked when the hash of the one before it is known.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) id: i64,
    pub(super) recorded_at: i64,
    pub(super) payload: Vec<u8>,
    pub(super) salt: Salt,
    pub(super) erased: Option<Hash>,
    pub(super) hash: Hash,
}

/// What was found in a run of records.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) file: String,
    /// Index of the record with which it should start.
    pub(super) first: u64,
    pub(super) opening: Option<Opening>,
    pub(super) blocks: Vec<BlockSummary>,
    pub(super) records: u64,
    pub(super) erased: u64,
    /// `recorded_at` of the first record and the latest one.
    pub(super) times: Option<(i64, i64)>,
    /// The first record that was committed before the one before it.
    pub(super) time_back: Option<u64>,
    /// Where the records lie, for comparison with the catalog; only in a live store.
    pub(super) extent: Option<Extent>,
    /// The end of the file, if this is its last run: by then all its records must have come.
    pub(super) file_end: Option<u64>,
    /// What ended the run.
    pub(super) failure: Option<Finding>,
}

impl Run {
    pub(super) fn new(file: &str, first: u64) -> Self {
        Self {
            file: file.to_owned(),
            first,
            opening: None,
            blocks: Vec::new(),
            records: 0,
            erased: 0,
            times: None,
            time_back: None,
            extent: None,
            file_end: None,
            failure: None,
        }
    }

    /// A run of which nothing could be read.
    pub(super) fn failed(file: &str, first: u64, finding: Finding) -> Self {
        Self { failure: Some(finding), ..Self::new(file, first) }
    }
}

/// Threads, and how far they have come.
pub(super) struct Workers {
    pool: rayon::ThreadPool,
    progress: Option<OnProgress>,
    done: AtomicU64,
    total: u64,
}

impl Workers {
    pub(super) fn new(threads: usize, progress: Option<OnProgress>) -> crate::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("verify-{n}")).build();
        let pool = pool.map_err(|error| crate::EngineError::Parameter { name: "threads", reason: error.to_string() })?;
        Ok(Self { pool, progress, done: AtomicU64::new(0), total: 0 })
    }

    /// Does all tasks and joins what they found, in order, while further ones are done: a bounded number ahead.
    ///
    /// # Errors
    ///
    /// The first failure of step 5.
    pub(super) fn join_all<T: Send>(
        &self,
        mut tasks: impl Iterator<Item = T>,
        work: impl Fn(T) -> Run + Send + Sync,
        join: &mut Join<'_>,
    ) -> Result<(), Box<Finding>> {
        let ahead = AHEAD * self.pool.current_num_threads();
        let work = &work;
        self.pool.in_place_scope(|scope| {
            let (sender, receiver) = sync_channel(ahead);
            let mut done = BTreeMap::new();
            let (mut begun, mut joined) = (0, 0);
            loop {
                for task in tasks.by_ref().take(ahead - (begun - joined)) {
                    let (sender, number) = (sender.clone(), begun);
                    begun += 1;
                    scope.spawn(move |_| {
                        let run = catch_unwind(AssertUnwindSafe(|| work(task)));
                        // Nobody listens any more after a failure.
                        let _ = sender.send((number, run));
                    });
                }
                if begun == joined {
                    return Ok(());
                }
                // A sender is still held here, so it cannot fail; whatever were not joined would be missing at the stream's end.
                let Ok((number, run)) = receiver.recv() else { return Ok(()) };
                done.insert(number, run);
                while let Some(run) = done.remove(&joined) {
                    join.add(run.unwrap_or_else(|panic| resume_unwind(panic))).map_err(Box::new)?;
                    joined += 1;
                }
            }
        })
    }

    /// Does these tasks beside `work`, which waits for other tasks, and returns also what they found, in order.
    pub(super) fn map_beside<T: Send, R: Send, O>(
        &self,
        tasks: Vec<T>,
        task: impl Fn(T) -> R + Send + Sync,
        work: impl FnOnce() -> O,
    ) -> (O, Vec<R>) {
        std::thread::scope(|scope| {
            let found = scope.spawn(|| self.map(tasks, task));
            (work(), found.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    /// Does these tasks and returns what they found, in order.
    pub(super) fn map<T: Send, R: Send>(&self, tasks: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
        self.pool.install(|| tasks.into_par_iter().map(work).collect())
    }

    /// Begins to count, up to this number of records.
    pub(super) fn start(&mut self, total: u64) {
        (self.total, self.done) = (total, AtomicU64::new(0));
    }

    /// Counts records that are done.
    pub(super) fn advance(&self, records: u64) {
        let done = self.done.fetch_add(records, Ordering::Relaxed) + records;
        if let Some(progress) = &self.progress {
            progress(done.min(self.total), self.total);
        }
    }
}

/// Does work on bytes that nobody vouches for: if a decoder panics, that is an error of the bytes.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("it is not what its reader expects".to_owned()))
}
