//! Where records live: the commit database with the hot batches, the Parquet files, the catalog of both, and the tables that queries see.

pub mod catalog;
pub mod db;
mod entity_filter;
mod error;
mod flush;
pub mod follow;
pub mod hot;
mod lock;
pub mod objects;
pub mod parquet_file;
mod read;
pub mod register;
mod sqlite;
pub mod tables;
mod time;

pub use catalog::{Snapshot, StreamSnapshot};
pub use error::{Result, StoreError};
pub use flush::{Compaction, FlushPolicy};
pub use time::{month_of, next_month};

use arrow_array::RecordBatch;
use catalog::{BatchCache, Catalog};
use db::{BatchRow, Commit, CommitDb, Loaded};
use lock::FolderLock;
use objects::Objects;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

/// Decoded hot batches kept in memory.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// How a data folder is opened.
#[derive(Clone, Debug)]
pub enum Mode {
    /// As its one writer; the folder is created if need be. `origin` names a new log, `now` is the time in µs UTC.
    Write {
        /// Name of a newly created log in its checkpoints.
        origin: String,
        /// Now, µs UTC.
        now: i64,
    },
    /// For reading only, also beside a writer: sees what was committed when it was opened.
    Read,
}

/// A store in a data folder.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    db: Arc<dyn CommitDb>,
    objects: Objects,
    catalog: Catalog,
    cache: BatchCache,
    retired: Mutex<Vec<flush::Retired>>,
    next_scratch: AtomicU64,
    /// Background work no longer rests.
    hurried: AtomicBool,
    read_only: bool,
    _lock: Option<FolderLock>,
}

impl Store {
    /// Opens a data folder. Returns what the commit database holds, too, for the ledger to start from.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process writes to it, [`StoreError::Absent`] if there is nothing to read.
    pub async fn open(folder: &Path, mode: Mode) -> Result<(Arc<Self>, Loaded)> {
        let database = folder.join("muniment.db");
        let (db, lock): (Arc<dyn CommitDb>, _) = match &mode {
            Mode::Write { origin, now } => {
                std::fs::create_dir_all(folder).map_err(StoreError::file("creating", folder))?;
                let lock = FolderLock::acquire(folder)?;
                (Arc::new(sqlite::SqliteDb::open(&database, origin, *now).await?), Some(lock))
            }
            Mode::Read if !database.exists() => return Err(StoreError::Absent { path: folder.to_owned() }),
            Mode::Read => (Arc::new(sqlite::SqliteDb::open_read_only(&database).await?), None),
        };
        let loaded = db.load().await?;
        let store = Self {
            folder: folder.to_owned(),
            db,
            objects: Objects::open(&folder.join("objects"))?,
            catalog: Catalog::from_loaded(&loaded),
            cache: BatchCache::new(CACHE_BYTES),
            retired: Mutex::default(),
            next_scratch: AtomicU64::new(0),
            hurried: AtomicBool::new(false),
            read_only: matches!(mode, Mode::Read),
            _lock: lock,
        };
        if !store.read_only {
            store.db.remove_flushed().await?;
            store.sweep_orphans().await?;
        }
        Ok((Arc::new(store), loaded))
    }

    /// The data folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether this store only reads.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The commit database.
    pub fn db(&self) -> &dyn CommitDb {
        &*self.db
    }

    /// The object store.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// All streams as they are now.
    pub fn snapshot(&self) -> Snapshot {
        self.catalog.snapshot()
    }

    /// The streams of one log as they are now.
    pub fn snapshot_of(&self, log: &str) -> Snapshot {
        self.catalog.of_log(log)
    }

    /// Bytes and number of the hot batches.
    pub fn hot_size(&self) -> (u64, usize) {
        self.catalog.hot_size()
    }

    /// Whether a commit that reported an error is in the database all the same.
    async fn has_landed(&self, commit: &Commit) -> bool {
        let Some((number, leaf)) = commit.leaves.last() else { return false };
        self.db.meta_leaves(*number, number + 1).await.is_ok_and(|found| found.first() == Some(leaf))
    }

    /// Makes a commit durable, then visible. `decoded` are its batches as queries will read them, in the same order.
    pub async fn commit(&self, commit: &Commit, decoded: Vec<RecordBatch>) -> Result<()> {
        if let Err(error) = self.db.commit(commit).await
            && !self.has_landed(commit).await
        {
            return Err(error);
        }
        for (batch, decoded) in commit.batches.iter().zip(decoded) {
            self.cache.put(Arc::from(batch.extent.stream.as_str()), batch.extent.first, decoded);
        }
        let streams = commit.streams.iter().map(|(row, _)| (row.stream.as_str(), row.log.as_str(), row.retention_years));
        let rows = commit.batches.iter().map(|batch| BatchRow { extent: batch.extent.clone(), bytes: batch.body.len() as u64 });
        self.catalog.add_batches(streams, rows.collect());
        Ok(())
    }
}
