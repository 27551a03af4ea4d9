//! What is stored where: files and hot batches of every stream, and the snapshots that queries work on.

use crate::db::{BatchRow, Extent, FileRow, Loaded};
use crate::error::{Result, StoreError};
use arrow_array::RecordBatch;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One stream of a snapshot: files first, then hot batches; together they hold every record once, in index order.
#[derive(Clone, Debug, Default)]
pub struct StreamSnapshot {
    /// The log it belongs to.
    pub log: String,
    /// Retention class in years.
    pub retention_years: u16,
    /// Parquet files.
    pub files: Arc<Vec<Arc<FileRow>>>,
    /// Batches in the commit database.
    pub hot: Vec<Arc<BatchRow>>,
}

impl StreamSnapshot {
    /// Index after the last record.
    pub fn end(&self) -> u64 {
        let hot = self.hot.last().map(|batch| batch.extent.end);
        hot.or_else(|| self.files.last().map(|file| file.extent.end)).unwrap_or(0)
    }

    /// Index of the first record that is still there.
    pub fn first(&self) -> u64 {
        let file = self.files.first().map(|file| file.extent.first);
        file.or_else(|| self.hot.first().map(|batch| batch.extent.first)).unwrap_or(0)
    }
}

/// All streams at one commit (promise P6).
pub type Snapshot = BTreeMap<String, StreamSnapshot>;

/// The catalog in memory: changed only after the commit database has changed.
#[derive(Debug, Default)]
pub struct Catalog {
    streams: Mutex<Snapshot>,
}

impl Catalog {
    /// The catalog as the commit database has it.
    pub fn from_loaded(loaded: &Loaded) -> Self {
        let mut streams: Snapshot = loaded
            .streams
            .iter()
            .map(|row| {
                let stream = StreamSnapshot { log: row.log.clone(), retention_years: row.retention_years, ..Default::default() };
                (row.stream.clone(), stream)
            })
            .collect();
        let mut files: HashMap<&str, Vec<Arc<FileRow>>> = HashMap::new();
        for file in &loaded.files {
            files.entry(&file.extent.stream).or_default().push(Arc::new(file.clone()));
        }
        for (name, stream) in &mut streams {
            stream.files = Arc::new(files.remove(name.as_str()).unwrap_or_default());
        }
        for batch in &loaded.batches {
            if let Some(stream) = streams.get_mut(&batch.extent.stream) {
                stream.hot.push(Arc::new(batch.clone()));
            }
        }
        Self { streams: Mutex::new(streams) }
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All streams as they are now.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// The streams of one log as they are now.
    pub fn of_log(&self, log: &str) -> Snapshot {
        self.lock().iter().filter(|(_, stream)| stream.log == log).map(|(name, stream)| (name.clone(), stream.clone())).collect()
    }

    /// Adds the batches of a commit, all at once.
    pub fn add_batches<'a>(&self, streams: impl IntoIterator<Item = (&'a str, &'a str, u16)>, batches: Vec<BatchRow>) {
        let mut catalog = self.lock();
        for (name, log, retention_years) in streams {
            if !catalog.contains_key(name) {
                let stream = StreamSnapshot { log: log.to_owned(), retention_years, ..Default::default() };
                catalog.insert(name.to_owned(), stream);
            }
        }
        for batch in batches {
            if let Some(stream) = catalog.get_mut(&batch.extent.stream) {
                stream.hot.push(Arc::new(batch));
            }
        }
    }

    /// Puts a file in the place of hot batches or of other files.
    pub fn replace(&self, file: &FileRow, replaced: &[String], flushes: bool) -> Result<()> {
        let mut catalog = self.lock();
        let name = &file.extent.stream;
        let stream = catalog.get_mut(name).ok_or_else(|| StoreError::Damaged(format!("there is no stream {name}")))?;
        let mut files: Vec<_> = stream.files.iter().filter(|old| !replaced.contains(&old.path)).cloned().collect();
        let at = files.partition_point(|old| old.extent.first < file.extent.first);
        files.insert(at, Arc::new(file.clone()));
        stream.files = Arc::new(files);
        if flushes {
            stream.hot.retain(|batch| !within(&batch.extent, &file.extent));
        }
        Ok(())
    }

    /// Bytes and number of all hot batches.
    pub fn hot_size(&self) -> (u64, usize) {
        let catalog = self.lock();
        let hot = catalog.values().flat_map(|stream| &stream.hot);
        hot.fold((0, 0), |(bytes, count), batch| (bytes + batch.bytes + 32 * batch.extent.records(), count + 1))
    }
}

fn within(inner: &Extent, outer: &Extent) -> bool {
    inner.first >= outer.first && inner.end <= outer.end
}

/// Decoded hot batches, the newest kept, up to a number of bytes.
#[derive(Debug)]
pub struct BatchCache {
    limit_bytes: usize,
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    batches: HashMap<(Arc<str>, u64), (RecordBatch, usize)>,
    order: VecDeque<(Arc<str>, u64)>,
    bytes: usize,
}

impl BatchCache {
    /// A cache of at most this many bytes of decoded columns.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, state: Mutex::default() }
    }

    /// A cached batch.
    pub fn get(&self, stream: &Arc<str>, first: u64) -> Option<RecordBatch> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.batches.get(&(stream.clone(), first)).map(|(batch, _)| batch.clone())
    }

    /// Keeps a batch, and forgets the oldest if there are too many.
    pub fn put(&self, stream: Arc<str>, first: u64, batch: RecordBatch) {
        let bytes = batch.get_array_memory_size();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > self.limit_bytes {
            return;
        }
        let key = (stream, first);
        if let Some((_, old)) = state.batches.insert(key.clone(), (batch, bytes)) {
            state.bytes -= old;
        } else {
            state.order.push_back(key);
        }
        state.bytes += bytes;
        while state.bytes > self.limit_bytes {
            let Some(oldest) = state.order.pop_front() else { break };
            if let Some((_, bytes)) = state.batches.remove(&oldest) {
                state.bytes -= bytes;
            }
        }
    }

    /// Forgets the batches of a range.
    pub fn forget(&self, stream: &Arc<str>, first: u64, end: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let CacheState { batches, order, bytes } = &mut *state;
        order.retain(|key| {
            let gone = key.0 == *stream && (first..end).contains(&key.1);
            if gone && let Some((_, size)) = batches.remove(key) {
                *bytes -= size;
            }
            !gone
        });
    }
}
