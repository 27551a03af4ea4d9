//! The heads of the ledger in memory, and one step forward: what a commit appends to which stream, and the meta-log leaves over it.

use crate::error::Result;
use muniment_ledger::checkpoint::{self, Checkpoint, SigningKey};
use muniment_ledger::meta::{MetaLeaf, StreamHead};
use muniment_ledger::{Frontier, Hash, NO_HASH, StreamId, chain};
use muniment_store::StoreError;
use muniment_store::db::{Commit, Loaded, MetaHeadRow, StreamRow};
use std::collections::BTreeMap;

/// Head of one stream.
#[derive(Clone, Debug)]
struct Head {
    id: StreamId,
    log: String,
    retention_years: u16,
    frontier: Frontier,
    last_hash: Hash,
    recorded_at: i64,
}

/// The heads of all streams and of the meta-log, as the newest commit left them.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    origin: String,
    meta: Frontier,
    time: i64,
    streams: BTreeMap<String, Head>,
}

impl Heads {
    /// The heads that the commit database holds.
    pub(crate) fn from_loaded(loaded: &Loaded) -> Result<Self> {
        let (meta, time) = match &loaded.meta {
            Some(row) => (frontier(&row.frontier, "the meta-log")?, row.time),
            None => (Frontier::new(), i64::MIN),
        };
        let head = |row: &StreamRow| -> Result<(String, Head)> {
            let head = Head {
                id: StreamId::new(&loaded.origin, &row.stream),
                log: row.log.clone(),
                retention_years: row.retention_years,
                frontier: frontier(&row.frontier, &row.stream)?,
                last_hash: row.last_hash,
                recorded_at: row.recorded_at,
            };
            Ok((row.stream.clone(), head))
        };
        let streams = loaded.streams.iter().map(head).collect::<Result<_>>()?;
        Ok(Self { origin: loaded.origin.clone(), meta, time, streams })
    }

    /// Number of meta-log leaves.
    pub(crate) fn size(&self) -> u64 {
        self.meta.size()
    }

    /// Time of the newest leaf, µs UTC.
    pub(crate) fn time(&self) -> i64 {
        self.time
    }

    /// Name of this log in checkpoints.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Begins the next step at this time, or at the newest commit's if the clock has gone back.
    pub(crate) fn step(&self, now: i64) -> Step {
        let time = now.max(self.time);
        let commit = Commit { time, ..Commit::default() };
        Step { heads: Self { time, ..self.clone() }, touched: BTreeMap::new(), commit }
    }
}

fn frontier(bytes: &[u8], what: &str) -> Result<Frontier> {
    Frontier::from_bytes(bytes).map_err(|error| StoreError::Damaged(format!("the frontier of {what}: {error}")).into())
}

/// One step: a copy of the heads that takes the old ones' place when the commit is durable.
pub(crate) struct Step {
    heads: Heads,
    touched: BTreeMap<String, ()>,
    /// What the commit database is to write.
    pub(crate) commit: Commit,
}

impl Step {
    /// Time of this commit, µs UTC.
    pub(crate) fn time(&self) -> i64 {
        self.commit.time
    }

    /// Appends records to a stream; returns the first one's index and the hashes.
    pub(crate) fn append(&mut self, stream: &str, log: &str, years: u16, ids: &[i64], payload_hashes: &[Hash]) -> (u64, Vec<Hash>) {
        let time = self.commit.time;
        let origin = &self.heads.origin;
        let head = self.heads.streams.entry(stream.to_owned()).or_insert_with(|| Head {
            id: StreamId::new(origin, stream),
            log: log.to_owned(),
            retention_years: years,
            frontier: Frontier::new(),
            last_hash: NO_HASH,
            recorded_at: time,
        });
        let first = head.frontier.size();
        let hashes = chain(head.id, first, ids, time, payload_hashes, head.last_hash);
        head.frontier.extend(&hashes);
        head.last_hash = hashes.last().copied().unwrap_or(head.last_hash);
        head.recorded_at = time;
        self.touched.insert(stream.to_owned(), ());
        (first, hashes)
    }

    /// Adds a meta-log leaf. Returns its number.
    pub(crate) fn leaf(&mut self, leaf: &MetaLeaf) -> u64 {
        let number = self.heads.meta.size();
        self.heads.meta.append(leaf.leaf_hash());
        self.commit.leaves.push((number, leaf.encode()));
        let landmark = match leaf {
            MetaLeaf::Key { vkey, .. } => Some(("key", vkey.to_string())),
            MetaLeaf::Schema { log, .. } => Some(("schema", log.clone())),
            MetaLeaf::Disposal { stream, .. } => Some(("disposal", stream.clone())),
            MetaLeaf::Erasure { stream, .. } => Some(("erasure", stream.clone())),
            MetaLeaf::Commit { .. } | MetaLeaf::Heartbeat { .. } => None,
        };
        if let Some((kind, subject)) = landmark {
            self.commit.landmarks.push((number, kind, subject));
        }
        number
    }

    /// Adds the commit leaf over the streams touched. Returns the commit's number.
    pub(crate) fn commit_leaf(&mut self) -> u64 {
        let heads = self.heads.streams.iter().filter(|(name, _)| self.touched.contains_key(*name));
        let streams =
            heads.map(|(name, head)| StreamHead { stream: name.clone(), size: head.frontier.size(), root: head.frontier.root() }).collect();
        let number = self.leaf(&MetaLeaf::Commit { time: self.commit.time, streams });
        let rows = self.heads.streams.iter().filter(|(name, _)| self.touched.contains_key(*name)).map(|(name, head)| StreamRow {
            stream: name.clone(),
            log: head.log.clone(),
            retention_years: head.retention_years,
            size: head.frontier.size(),
            frontier: head.frontier.to_bytes(),
            last_hash: head.last_hash,
            recorded_at: head.recorded_at,
        });
        self.commit.streams = rows.map(|row| (row, number)).collect();
        number
    }

    /// Signs the checkpoint over everything. Returns the note.
    pub(crate) fn sign(&mut self, keys: &[&SigningKey]) -> Result<String> {
        let meta = &self.heads.meta;
        let checkpoint = Checkpoint { origin: self.heads.origin.clone(), size: meta.size(), root: meta.root() };
        let note = checkpoint::sign(&checkpoint, keys)?;
        self.commit.meta = Some(MetaHeadRow { size: meta.size(), frontier: meta.to_bytes(), time: self.commit.time });
        self.commit.checkpoint = Some((meta.size(), note.clone()));
        Ok(note)
    }

    /// What to write, and the heads once it is durable.
    pub(crate) fn into_parts(self) -> (Commit, Heads) {
        (self.commit, self.heads)
    }
}
