//! Reading a log in commit order: from the commits of its streams to the batches and files that hold their records.

use crate::error::{EngineError, Result};
use arrow_array::RecordBatch;
use muniment_model::Table;
use muniment_store::follow::StreamCommit;
use muniment_store::{Snapshot, Store, StoreError, StreamSnapshot};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Commits of a stream that are looked up at a time.
const COMMITS: u32 = 512;
/// Ledger columns that every slice has.
const LEDGER: [&str; 3] = ["id", "stream_index", "recorded_at"];

/// How far each stream of a log was taken in.
#[derive(Debug)]
pub(super) struct Reader {
    log: &'static Table,
    columns: Arc<Vec<&'static str>>,
    /// Most records of a slice.
    most: u64,
    reached: BTreeMap<String, u64>,
}

/// Records that follow each other.
pub(super) struct Slice {
    /// In commit order; within a commit by stream.
    pub batches: Vec<RecordBatch>,
    /// How many they are.
    pub records: u64,
    /// The position after them.
    pub after: String,
    /// Whether more records were there already.
    pub more: bool,
}

/// Consecutive records of one stream.
type Piece = (String, Range<u64>);

impl Reader {
    /// A reader that goes on from a position.
    pub(super) fn at(log: &'static Table, columns: &[&'static str], most: u64, position: &str) -> Result<Self> {
        let reached = if position.is_empty() {
            BTreeMap::new()
        } else {
            serde_json::from_str(position).map_err(|_| StoreError::Damaged(format!("{position:?} is no position in {}", log.name)))?
        };
        Ok(Self { log, columns: Arc::new(columns.iter().copied().chain(LEDGER).collect()), most, reached })
    }

    /// The next records; `None` if there are none yet.
    pub(super) async fn next(&mut self, store: &Arc<Store>) -> Result<Option<Slice>> {
        let snapshot = store.snapshot_of(self.log.name);
        let (pieces, more) = self.pieces(store, &snapshot).await?;
        if pieces.is_empty() {
            return Ok(None);
        }
        let mut batches = Vec::new();
        for (stream, range) in &pieces {
            let Some(held) = snapshot.get(stream) else { continue };
            self.read(store, held, range.clone(), &mut batches).await?;
            self.reached.insert(stream.clone(), range.end);
        }
        let after = serde_json::to_string(&self.reached).map_err(|error| StoreError::Damaged(error.to_string()))?;
        Ok(Some(Slice { records: pieces.iter().map(|(_, range)| range.end - range.start).sum(), batches, after, more }))
    }

    /// What the next commits have added, and whether there is still more.
    async fn pieces(&mut self, store: &Store, snapshot: &Snapshot) -> Result<(Vec<Piece>, bool)> {
        let mut commits: Vec<(StreamCommit, &String)> = Vec::new();
        let mut known_up_to = u64::MAX;
        let mut more = false;
        for (name, stream) in snapshot {
            // What was disposed of before it was taken in is no longer there to be taken in.
            let reached = self.reached.entry(name.clone()).or_insert(0);
            *reached = (*reached).max(stream.first());
            if *reached >= stream.end() {
                continue;
            }
            let found = store.db().stream_commits(name, *reached, COMMITS).await?;
            if found.len() == COMMITS as usize {
                known_up_to = known_up_to.min(found.last().map_or(0, |commit| commit.number));
                more = true;
            }
            // A commit is in the database before it is in the snapshot.
            commits.extend(found.into_iter().filter(|commit| commit.size <= stream.end()).map(|commit| (commit, name)));
        }
        commits.retain(|(commit, _)| commit.number <= known_up_to);
        commits.sort_by(|(a, x), (b, y)| (a.number, x).cmp(&(b.number, y)));
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut ends, mut left) = (self.reached.clone(), self.most);
        for (commit, name) in commits {
            if left == 0 {
                return Ok((pieces, true));
            }
            let Some(end) = ends.get_mut(name) else { continue };
            let upto = commit.size.min(end.saturating_add(left));
            match pieces.last_mut() {
                Some((stream, range)) if stream == name => range.end = upto,
                _ => pieces.push((name.clone(), *end..upto)),
            }
            left -= upto - *end;
            *end = upto;
            if upto < commit.size {
                return Ok((pieces, true));
            }
        }
        Ok((pieces, more))
    }

    /// Reads a range of a stream, which a snapshot holds.
    async fn read(&self, store: &Arc<Store>, held: &StreamSnapshot, range: Range<u64>, into: &mut Vec<RecordBatch>) -> Result<()> {
        let overlaps = |first: u64, end: u64| first < range.end && end > range.start;
        for file in held.files.iter().filter(|file| overlaps(file.extent.first, file.extent.end)) {
            let (first, end) = (range.start.max(file.extent.first), range.end.min(file.extent.end));
            let (store, file, columns) = (store.clone(), file.clone(), self.columns.clone());
            let reading = move || -> Result<Vec<RecordBatch>> {
                let reader = store.open_file(&file, first - file.extent.first..end - file.extent.first, Some(&columns))?;
                reader.map(|batch| pick(&batch?, &columns)).collect()
            };
            into.extend(tokio::task::spawn_blocking(reading).await.map_err(|_| EngineError::Stopped)??);
        }
        for batch in held.hot.iter().filter(|batch| overlaps(batch.extent.first, batch.extent.end)) {
            let (first, end) = (range.start.max(batch.extent.first), range.end.min(batch.extent.end));
            let whole = store.read_hot(self.log, batch).await?;
            let part = whole.slice((first - batch.extent.first) as usize, (end - first) as usize);
            into.push(pick(&part, &self.columns)?);
        }
        Ok(())
    }
}

/// The columns asked for, in that order.
fn pick(batch: &RecordBatch, columns: &[&str]) -> Result<RecordBatch> {
    let indexes = columns.iter().map(|name| batch.schema_ref().index_of(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(batch.project(&indexes)?)
}
