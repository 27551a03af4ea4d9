//! Records: streams, salts, payload hashes, headers and the hash chain (format §1).

use std::fmt;

use crate::Hash;
use crate::sha256::{self, Block, Message, START, State};

/// The first byte of a header.
const HEADER_VERSION: u8 = 1;
/// Before a leaf's bytes, RFC 6962 §2.1.
const LEAF_PREFIX: u8 = 0;
/// Where the payload hash begins in a leaf's message, counted with the leaf prefix.
const PAYLOAD_HASH_AT: usize = 42;
/// How much of the payload hash is in the first block.
const IN_FIRST: usize = 64 - PAYLOAD_HASH_AT;
/// Bytes of a leaf's message: the prefix and the header.
const LEAF_BYTES: u64 = 106;

/// What makes a short payload unguessable: 16 bytes, from the partition key and the record's id.
pub type Salt = [u8; 16];

/// A stream's identity in headers: the first 16 bytes of `SHA-256(origin ‖ 0x00 ‖ stream name)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId([u8; 16]);

impl StreamId {
    /// The identity of the stream named `stream`, for instance `sys_audit_log/7y`, in the ledger named `origin`.
    pub fn new(origin: &str, stream: &str) -> Self {
        let hash = sha256::digest(&[origin.as_bytes(), &[0], stream.as_bytes()].concat());
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The secret from which the salts of one stream and calendar month follow.
///
/// Keeps the HMAC's two states after the key, so that a salt costs two blocks. Cheap to clone; never shows itself in `Debug` output.
#[derive(Clone)]
pub struct PartitionKey {
    inner: State,
    outer: State,
}

impl PartitionKey {
    /// The key of these 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            for (padded, key) in block.iter_mut().zip(key) {
                *padded ^= key;
            }
            [block]
        };
        let (mut inner, mut outer) = (START, START);
        sha256::compress_pair(&mut inner, &pad(0x36)[..], &mut outer, &pad(0x5c)[..]);
        Self { inner, outer }
    }

    /// The salt of the record with this id: the first 16 bytes of `HMAC-SHA-256(key, id)`.
    pub fn salt(&self, id: i64) -> Salt {
        let mut inner = self.inner;
        sha256::compress(&mut inner, &[id_block(id)][..]);
        let mut outer = self.outer;
        sha256::compress(&mut outer, &[digest_block(&inner)][..]);
        salt_of(&outer)
    }

    /// Appends the salts of the records with these ids to `out`; faster than one by one.
    pub fn salts(&self, ids: &[i64], out: &mut Vec<Salt>) {
        let mut states = Vec::with_capacity(ids.len());
        sha256::compress_each(&self.inner, ids.len(), |i| [id_block(ids[i])], |_, state| states.push(*state));
        out.reserve(ids.len());
        sha256::compress_each(&self.outer, ids.len(), |i| [digest_block(&states[i])], |_, state| out.push(salt_of(state)));
    }
}

impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartitionKey(..)")
    }
}

/// The inner HMAC's last block: the id after a block of key.
fn id_block(id: i64) -> Block {
    let mut block = [0; 64];
    block[..8].copy_from_slice(&id.to_be_bytes());
    block[8] = 0x80;
    block[56..].copy_from_slice(&((64 + 8) * 8_u64).to_be_bytes());
    block
}

/// The outer HMAC's last block: the inner hash after a block of key.
fn digest_block(inner: &State) -> Block {
    let mut block = [0; 64];
    block[..32].copy_from_slice(&sha256::hash_of(inner));
    block[32] = 0x80;
    block[56..].copy_from_slice(&((64 + 32) * 8_u64).to_be_bytes());
    block
}

fn salt_of(outer: &State) -> Salt {
    let mut salt = [0; 16];
    salt.copy_from_slice(&sha256::hash_of(outer)[..16]);
    salt
}

/// `SHA-256(salt ‖ payload)`.
pub fn payload_hash(salt: &Salt, payload: &[u8]) -> Hash {
    sha256::hash_one(&Message::new(salt, payload))
}

/// Appends `SHA-256(salt ‖ payload)` of many records to `out`; payload `i` is `bytes[offsets[i]..offsets[i + 1]]`.
///
/// # Panics
///
/// If `offsets` is not one longer than `salts`, decreases, or points outside of `bytes`.
pub fn payload_hashes(salts: &[Salt], bytes: &[u8], offsets: &[usize], out: &mut Vec<Hash>) {
    assert_eq!(offsets.len(), salts.len() + 1, "one more offset than salts");
    sha256::hash_all(salts.len(), |i, blocks| sha256::pad(&salts[i], &bytes[offsets[i]..offsets[i + 1]], blocks), out);
}

/// What a record's `blockchain_hash` commits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The stream.
    pub stream: StreamId,
    /// Position in the stream, from 0, without gaps.
    pub stream_index: u64,
    /// The record's number, unique within its log.
    pub id: i64,
    /// Time of the commit, microseconds since 1970 UTC.
    pub recorded_at: i64,
    /// `SHA-256(salt ‖ payload)`.
    pub payload_hash: Hash,
    /// `blockchain_hash` of the record before; [`crate::NO_HASH`] at index 0.
    pub previous_hash: Hash,
}

impl Header {
    /// The 105 bytes of the header.
    pub fn to_bytes(&self) -> [u8; 105] {
        let message = [self.first_block(), second_block(&self.payload_hash, &self.previous_hash)];
        let mut bytes = [0; 105];
        bytes.copy_from_slice(&message.as_flattened()[1..106]);
        bytes
    }

    /// The record's `blockchain_hash`: `SHA-256(0x00 ‖ header)`.
    pub fn leaf_hash(&self) -> Hash {
        sha256::hash_one(&[self.first_block(), second_block(&self.payload_hash, &self.previous_hash)][..])
    }

    fn first_block(&self) -> Block {
        FirstBlock::new(self.stream).of(self.stream_index, self.id, self.recorded_at, &self.payload_hash)
    }
}

/// The first block of a leaf's message. It doesn't depend on the previous hash, so it can be hashed ahead of the chain.
struct FirstBlock(Block);

impl FirstBlock {
    fn new(stream: StreamId) -> Self {
        let mut block = [0; 64];
        block[0] = LEAF_PREFIX;
        block[1] = HEADER_VERSION;
        block[2..18].copy_from_slice(&stream.0);
        Self(block)
    }

    #[inline]
    fn of(&self, stream_index: u64, id: i64, recorded_at: i64, payload_hash: &Hash) -> Block {
        let mut block = self.0;
        block[18..26].copy_from_slice(&stream_index.to_be_bytes());
        block[26..34].copy_from_slice(&id.to_be_bytes());
        block[34..PAYLOAD_HASH_AT].copy_from_slice(&recorded_at.to_be_bytes());
        block[PAYLOAD_HASH_AT..].copy_from_slice(&payload_hash[..IN_FIRST]);
        block
    }
}

#[inline]
fn second_block(payload_hash: &Hash, previous_hash: &Hash) -> Block {
    let mut block = [0; 64];
    block[..32 - IN_FIRST].copy_from_slice(&payload_hash[IN_FIRST..]);
    block[32 - IN_FIRST..64 - IN_FIRST].copy_from_slice(previous_hash);
    block[64 - IN_FIRST] = 0x80;
    block[56..].copy_from_slice(&(LEAF_BYTES * 8).to_be_bytes());
    block
}

/// Chains a batch: the `blockchain_hash` of each record from `first_index` on, all recorded at `recorded_at`.
///
/// `previous_hash` is that of the record before the first. The chain is serial, but a header's first block isn't part of
/// that series: it is hashed beside the second block of the record before.
///
/// # Panics
///
/// If `ids` and `payload_hashes` differ in length.
pub fn chain(stream: StreamId, first_index: u64, ids: &[i64], recorded_at: i64, payload_hashes: &[Hash], previous_hash: Hash) -> Vec<Hash> {
    assert_eq!(ids.len(), payload_hashes.len(), "one payload hash for each id");
    let first_block = FirstBlock::new(stream);
    let first_block = |i: usize| [first_block.of(first_index + i as u64, ids[i], recorded_at, &payload_hashes[i])];
    let mut hashes = Vec::with_capacity(ids.len());
    let mut previous = previous_hash;
    let mut state = START;
    if !ids.is_empty() {
        sha256::compress(&mut state, &first_block(0)[..]);
    }
    for (i, payload_hash) in payload_hashes.iter().enumerate() {
        let mut ahead = START;
        let second = [second_block(payload_hash, &previous)];
        if i + 1 < ids.len() {
            sha256::compress_pair(&mut state, &second[..], &mut ahead, &first_block(i + 1)[..]);
        } else {
            sha256::compress(&mut state, &second[..]);
        }
        previous = sha256::hash_of(&state);
        hashes.push(previous);
        state = ahead;
    }
    hashes
}

/// Leaf hashes of records whose stored hashes are known, for verification: appends to `out` what the `blockchain_hash` of each record
/// should be, given that the record before it has the `stored` one (`previous` for the first).
///
/// # Panics
///
/// If `ids`, `recorded_at`, `payload_hashes` and `stored` differ in length.
#[expect(clippy::too_many_arguments, reason = "one for each field of the header, column by column")]
pub fn leaf_hashes(
    stream: StreamId,
    first_index: u64,
    ids: &[i64],
    recorded_at: &[i64],
    payload_hashes: &[Hash],
    previous: Hash,
    stored: &[Hash],
    out: &mut Vec<Hash>,
) {
    let n = ids.len();
    assert!(n == recorded_at.len() && n == payload_hashes.len() && n == stored.len(), "one of each for each record");
    let first_block = FirstBlock::new(stream);
    let message = |i: usize| {
        let before = if i == 0 { &previous } else { &stored[i - 1] };
        [first_block.of(first_index + i as u64, ids[i], recorded_at[i], &payload_hashes[i]), second_block(&payload_hashes[i], before)]
    };
    sha256::hash_each(n, message, out);
}
