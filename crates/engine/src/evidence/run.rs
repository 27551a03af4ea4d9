//! Runs of records that are checked each on its own, in parallel.

use super::OnProgress;
use super::join::Join;
use muniment_ledger::verify::{BlockSummary, Finding};
use muniment_ledger::{Hash, Salt};
use muniment_store::db::Extent;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

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

    /// Does all tasks, a bounded number at a time, and joins what they found, in order.
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
        loop {
            let wave: Vec<T> = tasks.by_ref().take(8 * self.pool.current_num_threads()).collect();
            if wave.is_empty() {
                return Ok(());
            }
            for run in self.map(wave, &work) {
                join.add(run).map_err(Box::new)?;
            }
        }
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
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| Err("it is not what its reader expects".to_owned()))
}
