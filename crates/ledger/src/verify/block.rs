//! Consecutive records against their stored hashes.

use std::collections::BTreeSet;

use crate::verify::Reason;
use crate::{Hash, Node, Salt, StreamId, compact_range, leaf_hashes, payload_hashes};

/// The payload of a record that has no data: an empty map.
const EMPTY_PAYLOAD: [u8; 1] = [0xa0];

/// Consecutive records of a stream, column by column; each slice has one item for each record, but `payload_offsets` has one more.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The stream.
    pub stream: StreamId,
    /// Index of the first record.
    pub first_index: u64,
    /// Numbers of the records.
    pub ids: &'a [i64],
    /// When each was committed.
    pub recorded_at: &'a [i64],
    /// The payloads, rebuilt from the columns, one after the other.
    pub payload_bytes: &'a [u8],
    /// Payload `i` is `payload_bytes[payload_offsets[i]..payload_offsets[i + 1]]`.
    pub payload_offsets: &'a [usize],
    /// Their salts; those of erased records are not used.
    pub salts: &'a [Salt],
    /// Payload hashes of erased records; empty if none is.
    pub erased_payload_hashes: &'a [Option<Hash>],
    /// Indexes for which the meta-log has an erasure: [`crate::verify::StreamHistory::erased`].
    pub erasures: &'a BTreeSet<u64>,
    /// The stored `blockchain_hash` of each.
    pub blockchain_hashes: &'a [Hash],
    /// `blockchain_hash` of the record before the first.
    pub previous_hash: Hash,
}

/// The first record of a block that is not what was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Its position in the block, from 0.
    pub offset: usize,
    /// [`Reason::Record`], [`Reason::NotAuthorised`] or [`Reason::NotErased`].
    pub reason: Reason,
}

/// Checks that each record has its stored `blockchain_hash`, and returns how many of them were erased with authority.
///
/// # Errors
///
/// The first record that has not, or that is marked as erased though the meta-log has no erasure of it, or though it has values.
///
/// # Panics
///
/// If the slices differ in length.
pub fn check_block(block: &Block<'_>) -> Result<u64, BadRecord> {
    let mut hashes = Vec::new();
    payload_hashes(block.salts, block.payload_bytes, block.payload_offsets, &mut hashes);
    let mut erased = 0;
    let mut bad = None;
    for (offset, (stored, hash)) in block.erased_payload_hashes.iter().zip(&mut hashes).enumerate() {
        let Some(stored) = stored else { continue };
        *hash = *stored;
        erased += 1;
        let payload = &block.payload_bytes[block.payload_offsets[offset]..block.payload_offsets[offset + 1]];
        let reason = if !block.erasures.contains(&(block.first_index + offset as u64)) {
            Reason::NotAuthorised
        } else if payload != EMPTY_PAYLOAD {
            Reason::NotErased
        } else {
            continue;
        };
        bad = bad.or(Some(BadRecord { offset, reason }));
    }
    let mut leaves = Vec::new();
    leaf_hashes(
        block.stream,
        block.first_index,
        block.ids,
        block.recorded_at,
        &hashes,
        block.previous_hash,
        block.blockchain_hashes,
        &mut leaves,
    );
    let differs = leaves.iter().zip(block.blockchain_hashes).position(|(leaf, stored)| leaf != stored);
    let differs = differs.map(|offset| BadRecord { offset, reason: Reason::Record });
    match [bad, differs].into_iter().flatten().min_by_key(|bad| bad.offset) {
        None => Ok(erased),
        Some(bad) => Err(bad),
    }
}

/// What the verification of a stream needs to know of a block that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSummary {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) previous_hash: Hash,
    pub(super) last_hash: Hash,
    pub(super) nodes: Vec<Node>,
}

impl BlockSummary {
    /// Sums up the records from index `first` on with these stored hashes. `previous_hash` is the one that [`check_block`] was given;
    /// `commit_sizes` are the ascending sizes of the stream's commits, [`crate::verify::StreamHistory::sizes`]: there the compact range is
    /// cut, so that the roots can be compared.
    pub fn new(first: u64, previous_hash: Hash, blockchain_hashes: &[Hash], commit_sizes: &[u64]) -> Self {
        let end = first + blockchain_hashes.len() as u64;
        let from = commit_sizes.partition_point(|size| *size <= first);
        let to = commit_sizes.partition_point(|size| *size < end);
        let mut nodes = Vec::new();
        let mut start = first;
        for cut in commit_sizes[from..to.max(from)].iter().copied().chain([end]) {
            nodes.extend(compact_range(start, &blockchain_hashes[(start - first) as usize..(cut - first) as usize]));
            start = cut;
        }
        let last_hash = blockchain_hashes.last().copied().unwrap_or(previous_hash);
        Self { first, end, previous_hash, last_hash, nodes }
    }

    /// The same block, following on this `blockchain_hash`: for a caller who learns it only later, and then checks the first record against it.
    #[must_use]
    pub fn following(self, previous_hash: Hash) -> Self {
        Self { previous_hash, ..self }
    }

    /// `blockchain_hash` of the last record.
    pub fn last_hash(&self) -> Hash {
        self.last_hash
    }

    /// Index of the first record.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// One more than the index of the last.
    pub fn end(&self) -> u64 {
        self.end
    }
}
