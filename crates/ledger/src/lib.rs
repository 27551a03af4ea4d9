//! The ledger: how records become evidence. Headers and hash chains, RFC 6962 trees, the meta-log, signed checkpoints,
//! proofs, and verification. Bytes in, verdicts out.
//!
//! `docs/format.md` is the specification of everything here. This crate does no I/O, runs no threads, and reads neither a clock nor
//! a global source of randomness, so that an auditor can read it alone and run it anywhere.

pub mod bundle;
pub mod checkpoint;
mod error;
mod hexadecimal;
pub mod meta;
mod path;
mod payload;
pub mod proof;
mod record;
mod sha256;
mod tree;
pub mod verify;

pub use error::Error;
pub use path::{NodeSource, consistency_path, inclusion_path, verify_consistency, verify_inclusion};
pub use payload::{MAX_PAYLOAD_BYTES, MAX_PAYLOAD_FIELDS, Value, decode_payload};
pub use record::{Header, PartitionKey, Salt, StreamId, chain, leaf_hashes, payload_hash, payload_hashes};
pub use tree::{Frontier, Node, compact_range, leaf_hash, node_hash, root_of_nodes};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The `previous_hash` of a stream's first record.
pub const NO_HASH: Hash = [0; 32];
