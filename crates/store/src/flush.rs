//! Moving records from hot batches to Parquet, merging small files, and sweeping up what crashes and merges leave behind.
//!
//! Each step writes and syncs a file first, then swaps it in with one transaction. A crash leaves either the old or the new state, and at most an
//! orphan file, which is removed when the folder is next opened.

use crate::Store;
use crate::catalog::StreamSnapshot;
use crate::db::{BatchRow, FileRow, Replacement};
use crate::error::{Result, StoreError};
use crate::hot::{Ledgered, decode};
use crate::objects::Objects;
use crate::parquet_file::{FileWriter, Lifetime, hash_file};
use crate::read::open_parquet;
use crate::time::month_of;
use muniment_ledger::Hash;
use muniment_model::Table;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// When hot batches move to Parquet. The first limit that a stream reaches decides.
#[derive(Clone, Copy, Debug)]
pub struct FlushPolicy {
    /// Bytes of hot batches.
    pub bytes: u64,
    /// Number of hot batches.
    pub batches: usize,
    /// Age of the oldest hot batch, µs.
    pub age: i64,
    /// Records of a file at most.
    pub file_records: u64,
}

impl Default for FlushPolicy {
    fn default() -> Self {
        Self { bytes: 512 << 20, batches: 4000, age: 120_000_000, file_records: 4 << 20 }
    }
}

/// When small files are merged, and how.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// Records of a merged file at most.
    pub target_records: u64,
    /// Neighbouring files that make a merge worth while in the current month; in past months two are enough.
    pub min_files: usize,
    /// Whether to leave most of the processor to others while nothing presses.
    pub gentle: bool,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { target_records: 8 << 20, min_files: 8, gentle: true }
    }
}

/// Batches that a flush replaced: their rows go when no query holds them any more.
#[derive(Debug)]
pub(crate) struct Retired {
    stream: String,
    first: u64,
    end: u64,
    batches: Vec<Arc<BatchRow>>,
}

/// Hot bytes decoded at a time while flushing.
const FLUSH_STEP_BYTES: u64 = 1 << 20;
/// How many times as long as it has worked gentle work rests, so that it takes a quarter of a core and leaves the rest to an audited database on the same machine.
const REST: u32 = 3;
/// With so many bytes of hot batches, or so many batches, nothing rests: they come faster than they go.
const PRESSING_BYTES: u64 = 256 << 20;
const PRESSING_BATCHES: usize = 4000;

impl Store {
    /// Flushes every stream that has reached a limit of the policy; with `all`, every stream that has hot batches. Returns the new files.
    ///
    /// # Errors
    /// The first; the other streams are flushed all the same.
    pub async fn flush(&self, policy: &FlushPolicy, now: i64, all: bool) -> Result<Vec<FileRow>> {
        let (mut files, mut failed) = (Vec::new(), None);
        for name in self.snapshot().keys() {
            while let Some(stream) = self.snapshot().get(name).filter(|stream| !stream.hot.is_empty()) {
                if !(all || is_due(stream, policy, now)) {
                    break;
                }
                match self.flush_run(name, stream, policy, now, !all).await {
                    Ok(file) => files.push(file),
                    Err(error) => {
                        failed = failed.or(Some(error));
                        break;
                    }
                }
            }
        }
        self.remove_retired().await?;
        failed.map_or(Ok(files), Err)
    }

    /// Moves the oldest hot batches of one month into a file.
    async fn flush_run(&self, name: &str, stream: &StreamSnapshot, policy: &FlushPolicy, now: i64, gentle: bool) -> Result<FileRow> {
        let table = log_table(&stream.log)?;
        let batches = first_run(&stream.hot, policy.file_records);
        let (Some(oldest), Some(newest)) = (batches.first(), batches.last()) else {
            return Err(StoreError::Damaged(format!("{name} has nothing to flush")));
        };
        let (first, end) = (oldest.extent.first, newest.extent.end);
        let previous = self.previous_hash(name, stream, first).await?;
        let is_over = month_of(oldest.extent.recorded_from) != month_of(now);
        let mut writer = self.create_file(table, name, previous, Lifetime::of(end - first, is_over))?;
        let mut at = 0;
        while at < batches.len() {
            let mut bytes = 0;
            let step: Vec<_> = batches[at..]
                .iter()
                .take_while(|batch| {
                    bytes += batch.bytes;
                    bytes <= FLUSH_STEP_BYTES || bytes == batch.bytes
                })
                .map(|batch| batch.extent.clone())
                .collect();
            at += step.len();
            let began = Instant::now();
            let bodies = self.db.hot_range(name, step[0].first, step[step.len() - 1].end).await?;
            writer = blocking(move || {
                for (extent, (first, hashes, body)) in step.iter().zip(&bodies) {
                    let row = Ledgered { first: *first, recorded_at: extent.recorded_to, hashes };
                    writer.write(&decode(table, body, row)?)?;
                }
                Ok(writer)
            })
            .await?;
            self.rest(began, gentle).await;
        }
        let file = self.finish_file(writer).await?;
        if (file.extent.first, file.extent.end) != (first, end) {
            self.objects.remove(&file.path)?;
            return Err(StoreError::Damaged(format!("{name}: hot records between {first} and {end} are missing")));
        }
        self.swap(file.clone(), Vec::new(), true, now).await?;
        self.retire(name, first, end, batches.to_vec());
        Ok(file)
    }

    fn create_file(&self, table: &'static Table, stream: &str, previous: Hash, lifetime: Lifetime) -> Result<FileWriter> {
        let unique = self.next_scratch.fetch_add(1, Ordering::Relaxed);
        FileWriter::create(&self.objects, table, stream, previous, lifetime, unique)
    }

    async fn finish_file(&self, writer: FileWriter) -> Result<FileRow> {
        let objects = self.objects.clone();
        let file = blocking(move || writer.finish(&objects)).await?;
        file.ok_or_else(|| StoreError::Damaged("a file without records".to_owned()))
    }

    async fn swap(&self, file: FileRow, replaced: Vec<String>, flushes: bool, time: i64) -> Result<()> {
        let replacement = Replacement { file, replaced, flushes, time };
        self.db.replace(&replacement).await?;
        self.catalog.replace(&replacement.file, &replacement.replaced, flushes)
    }

    fn retire(&self, stream: &str, first: u64, end: u64, batches: Vec<Arc<BatchRow>>) {
        self.cache.forget(&Arc::from(stream), first, end);
        let retired = Retired { stream: stream.to_owned(), first, end, batches };
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(retired);
    }

    /// Removes the rows of flushed batches that no query holds any more.
    pub async fn remove_retired(&self) -> Result<()> {
        let free = {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            let held = |run: &mut Retired| run.batches.iter().any(|batch| Arc::strong_count(batch) > 1);
            retired.extract_if(.., |run| !held(run)).collect::<Vec<_>>()
        };
        for run in free {
            self.db.remove_flushed_range(&run.stream, run.first, run.end).await?;
        }
        Ok(())
    }

    /// Merges one run of small neighbouring files, if there is one. Returns the merged file.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a file is not what was written: damage is never merged away. It is reported when no other stream has anything
    /// to merge.
    pub async fn compact(&self, policy: &Compaction, now: i64) -> Result<Option<FileRow>> {
        let (this_month, mut failed) = (month_of(now), None);
        for (name, stream) in self.snapshot() {
            let run = mergeable(&stream.files, policy, &this_month);
            if run.is_empty() {
                continue;
            }
            match self.merge_run(&name, &stream.log, run, now, policy.gentle).await {
                Ok(file) => return Ok(Some(file)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    async fn merge_run(&self, name: &str, log: &str, run: &[Arc<FileRow>], now: i64, gentle: bool) -> Result<FileRow> {
        let records = run.iter().map(|file| file.extent.records()).sum();
        let lifetime = Lifetime::of(records, run[0].month != month_of(now));
        let mut writer = self.create_file(log_table(log)?, name, run[0].previous_hash, lifetime)?;
        for file in run {
            let (objects, file) = (self.objects.clone(), file.clone());
            let mut reader = blocking(move || open_checked(&objects, &file)).await?;
            loop {
                let began = Instant::now();
                let (read, left) = (reader, writer);
                let copied = blocking(move || copy_batch(read, left)).await?;
                writer = copied.1;
                match copied.0 {
                    Some(rest) => reader = rest,
                    None => break,
                }
                self.rest(began, gentle).await;
            }
        }
        let file = self.finish_file(writer).await?;
        self.swap(file.clone(), run.iter().map(|file| file.path.clone()).collect(), false, now).await?;
        Ok(file)
    }

    /// Gentle work no longer rests: somebody waits for its end, such as who stops the server.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// Rests from work that began then, if it is gentle and nothing presses.
    async fn rest(&self, began: Instant, gentle: bool) {
        let worked = began.elapsed();
        let (bytes, batches) = self.hot_size();
        let presses = self.hurried.load(Ordering::Relaxed) || bytes >= PRESSING_BYTES || batches >= PRESSING_BATCHES;
        if gentle && !presses {
            tokio::time::sleep(worked * REST).await;
        }
    }

    /// Removes files that a merge replaced at or before this time, µs UTC: no query that began before may still run.
    pub async fn sweep_replaced(&self, before: i64) -> Result<usize> {
        let paths = self.db.garbage(before).await?;
        for path in &paths {
            self.objects.remove(path)?;
            self.db.forget_garbage(path).await?;
        }
        Ok(paths.len())
    }

    /// Removes files that no catalog row names: a crash came between writing them and the transaction. Only for the writer, when it opens.
    pub(crate) async fn sweep_orphans(&self) -> Result<usize> {
        let scratch = self.objects.scratch()?;
        std::fs::remove_dir_all(&scratch).map_err(StoreError::file("clearing", &scratch))?;
        let mut known: HashSet<String> = self.db.garbage(i64::MAX).await?.into_iter().collect();
        known.extend(self.snapshot().values().flat_map(|stream| stream.files.iter().map(|file| file.path.clone())));
        let mut swept = 0;
        for (path, _) in self.objects.list().await? {
            if !known.contains(&path) {
                tracing::warn!(path, "removing a file that no commit knows");
                self.objects.remove(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// The log's table.
pub(crate) fn log_table(log: &str) -> Result<&'static Table> {
    muniment_model::table(log).filter(|table| table.is_log()).ok_or_else(|| StoreError::Damaged(format!("there is no log {log}")))
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Damaged(format!("a background task failed: {error}")))?
}

fn is_due(stream: &StreamSnapshot, policy: &FlushPolicy, now: i64) -> bool {
    let bytes: u64 = stream.hot.iter().map(|batch| batch.bytes + 32 * batch.extent.records()).sum();
    let oldest = stream.hot.first().map_or(now, |batch| batch.extent.recorded_from);
    bytes >= policy.bytes || stream.hot.len() >= policy.batches || now - oldest >= policy.age || month_of(oldest) != month_of(now)
}

/// The oldest batches that fit one file: one month, not too many records, at least one batch.
fn first_run(hot: &[Arc<BatchRow>], file_records: u64) -> &[Arc<BatchRow>] {
    let Some(oldest) = hot.first() else { return hot };
    let month = month_of(oldest.extent.recorded_from);
    let fits =
        |batch: &&Arc<BatchRow>| batch.extent.end - oldest.extent.first <= file_records && month_of(batch.extent.recorded_from) == month;
    &hot[..hot.iter().take_while(fits).count().max(1)]
}

/// The first run of neighbouring files of a month that is worth merging. A file larger than all that follow it in its run is left alone, so that
/// each record is rewritten a number of times that grows only with the logarithm of the month's size.
fn mergeable<'a>(files: &'a [Arc<FileRow>], policy: &Compaction, this_month: &str) -> &'a [Arc<FileRow>] {
    let records = |files: &[Arc<FileRow>]| files.iter().map(|file| file.extent.records()).sum::<u64>();
    for month in files.chunk_by(|a, b| a.month == b.month && a.extent.end == b.extent.first) {
        let min_files = if month[0].month == this_month { policy.min_files } else { 2 };
        let mut start = 0;
        while start + min_files <= month.len() {
            let mut end = start;
            while end < month.len() && records(&month[start..=end]) <= policy.target_records {
                end += 1;
            }
            let run = &month[start..end];
            let closed = month[0].month != this_month;
            if run.len() >= min_files && (closed || run[0].extent.records() <= records(&run[1..])) {
                return run;
            }
            start += 1;
        }
    }
    &[]
}

/// Opens a file that is what was written.
fn open_checked(objects: &Objects, file: &FileRow) -> Result<ParquetRecordBatchReader> {
    let path = objects.local_path(&file.path);
    let (sha256, _) = hash_file(&path)?;
    if sha256 != file.sha256 {
        return Err(StoreError::Damaged(format!("{} is not the file that was written", file.path)));
    }
    let opened = std::fs::File::open(&path).map_err(StoreError::file("opening", &path))?;
    open_parquet(opened, 0..file.extent.records(), None).map_err(StoreError::parquet(&file.path))
}

/// Copies the next records; the reader comes back if there may be more.
fn copy_batch(mut reader: ParquetRecordBatchReader, mut writer: FileWriter) -> Result<(Option<ParquetRecordBatchReader>, FileWriter)> {
    let Some(batch) = reader.next() else { return Ok((None, writer)) };
    writer.write(&batch.map_err(StoreError::arrow("merging files"))?)?;
    Ok((Some(reader), writer))
}
