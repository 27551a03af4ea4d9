//! The commit database: everything that must be atomic goes through [`CommitDb`]. One implementation per database, each in its own
//! folder with its own SQL text.

use crate::error::Result;
use crate::follow::{Advance, FollowerRow, OutboxRow, StreamCommit};
use crate::register::{ChangedBy, Lookup, RegisterChange, RegisterRow};
use arrow_array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use muniment_ledger::Hash;
use muniment_model::Table;

/// The head of one stream.
#[derive(Clone, Debug)]
pub struct StreamRow {
    /// Name, `<log>/<years>y`.
    pub stream: String,
    /// The log it belongs to.
    pub log: String,
    /// Retention class in years.
    pub retention_years: u16,
    /// Number of records.
    pub size: u64,
    /// Serialized frontier of the stream's tree.
    pub frontier: Vec<u8>,
    /// `blockchain_hash` of the newest record.
    pub last_hash: Hash,
    /// Time of the newest commit, µs UTC.
    pub recorded_at: i64,
}

/// The head of the meta-log.
#[derive(Clone, Debug)]
pub struct MetaHeadRow {
    /// Number of leaves: the number of the next commit.
    pub size: u64,
    /// Serialized frontier of the meta-log's tree.
    pub frontier: Vec<u8>,
    /// Time of the newest leaf, µs UTC.
    pub time: i64,
}

/// Where and when the records of a batch or file lie. Ranges are half-open, times µs UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Stream name.
    pub stream: String,
    /// Index of the first record.
    pub first: u64,
    /// Index after the last record.
    pub end: u64,
    /// Smallest id.
    pub first_id: i64,
    /// Largest id.
    pub last_id: i64,
    /// Time of the first record's commit.
    pub recorded_from: i64,
    /// Time of the last record's commit.
    pub recorded_to: i64,
    /// Smallest event time.
    pub min_time: i64,
    /// Largest event time.
    pub max_time: i64,
}

impl Extent {
    /// Number of records.
    pub fn records(&self) -> u64 {
        self.end - self.first
    }
}

/// A batch as a commit writes it.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Where its records lie.
    pub extent: Extent,
    /// `blockchain_hash` of each record, 32 bytes each, in order.
    pub hashes: Bytes,
    /// The encoded columns, see [`crate::hot`].
    pub body: Bytes,
}

/// A batch's row without its contents.
#[derive(Clone, Debug)]
pub struct BatchRow {
    /// Where its records lie.
    pub extent: Extent,
    /// Size of the body in bytes.
    pub bytes: u64,
}

/// A Parquet file's catalog row.
#[derive(Clone, Debug)]
pub struct FileRow {
    /// Path in the object store.
    pub path: String,
    /// Where its records lie.
    pub extent: Extent,
    /// Calendar month of `recorded_at`, `yyyy-mm`.
    pub month: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Hash,
    /// `blockchain_hash` of the record before the first.
    pub previous_hash: Hash,
    /// Serialized compact range of its leaves.
    pub nodes: Vec<u8>,
}

/// An answer kept for a retry with the same key.
#[derive(Clone, Debug)]
pub struct IdempotencyRow {
    /// The log written to.
    pub log: String,
    /// The sender's key.
    pub key: String,
    /// Fingerprint of the request's body.
    pub fingerprint: Vec<u8>,
    /// The answer, as the engine encoded it.
    pub answer: String,
}

/// A database whose changes are captured.
#[derive(Clone, PartialEq, Eq)]
pub struct CaptureSourceRow {
    /// Name.
    pub name: String,
    /// The way in, such as `postgres`.
    pub kind: String,
    /// Where it is, with the password: never to be shown.
    pub url: String,
    /// What attaching was asked for, a JSON object.
    pub options: String,
    /// When it was first attached, µs UTC.
    pub attached_at: i64,
    /// `attaching`, `attached` or `detaching`.
    pub state: String,
}

impl std::fmt::Debug for CaptureSourceRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureSourceRow")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// One atomic step of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// New meta-log leaves: number and bytes.
    pub leaves: Vec<(u64, Vec<u8>)>,
    /// Which of them are rare: number, type and subject (a verifier key, a log, a stream).
    pub landmarks: Vec<(u64, &'static str, String)>,
    /// The meta-log's new head.
    pub meta: Option<MetaHeadRow>,
    /// The checkpoint that covers it: size and signed note.
    pub checkpoint: Option<(u64, String)>,
    /// New heads of the streams touched, with the number of the commit leaf.
    pub streams: Vec<(StreamRow, u64)>,
    /// Next free id of each log touched.
    pub next_ids: Vec<(String, i64)>,
    /// The records.
    pub batches: Vec<NewBatch>,
    /// Answers to keep.
    pub idempotency: Vec<IdempotencyRow>,
    /// Source positions reached.
    pub positions: Vec<(String, String)>,
    /// Time of the commit, µs UTC.
    pub time: i64,
}

/// One atomic step of the store: files take the place of hot batches or of other files.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The new file.
    pub file: FileRow,
    /// Files that it replaces; empty for a flush.
    pub replaced: Vec<String>,
    /// Whether it replaces the hot batches of its range.
    pub flushes: bool,
    /// Now, µs UTC.
    pub time: i64,
}

/// All that is needed to start, read in one transaction.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Name of this log in checkpoints.
    pub origin: String,
    /// Head of the meta-log; `None` before the first leaf.
    pub meta: Option<MetaHeadRow>,
    /// Newest checkpoint: size and note.
    pub checkpoint: Option<(u64, String)>,
    /// Heads of all streams.
    pub streams: Vec<StreamRow>,
    /// Next free id of each log.
    pub next_ids: Vec<(String, i64)>,
    /// Hot batches, by stream and index.
    pub batches: Vec<BatchRow>,
    /// Files, by stream and index.
    pub files: Vec<FileRow>,
}

/// The commit database.
#[async_trait]
pub trait CommitDb: Send + Sync + std::fmt::Debug {
    /// Reads all heads and the catalog at one instant.
    async fn load(&self) -> Result<Loaded>;
    /// Writes one commit; durable when it returns.
    async fn commit(&self, commit: &Commit) -> Result<()>;
    /// Swaps a new file in; durable when it returns.
    async fn replace(&self, replacement: &Replacement) -> Result<()>;
    /// Removes all batches that files have replaced.
    async fn remove_flushed(&self) -> Result<()>;
    /// Removes the batches of a range that one file has replaced.
    async fn remove_flushed_range(&self, stream: &str, first: u64, end: u64) -> Result<()>;
    /// Gives space that is no longer used back to the file system. Takes a while; not for the hot path.
    async fn reclaim(&self) -> Result<()>;
    /// Hashes and body of the batch that starts at this index.
    async fn hot_body(&self, stream: &str, first: u64) -> Result<Option<(Bytes, Bytes)>>;
    /// Hot batches that start in a range: first index, hashes, body; in order.
    async fn hot_range(&self, stream: &str, first: u64, end: u64) -> Result<Vec<(u64, Bytes, Bytes)>>;
    /// Meta-log leaves of a range, in order.
    async fn meta_leaves(&self, first: u64, end: u64) -> Result<Vec<Vec<u8>>>;
    /// Leaves of a rare type (`key`, `schema`, `disposal`, `erasure`): number and subject, in order.
    async fn landmarks(&self, leaf_type: &str) -> Result<Vec<(u64, String)>>;
    /// The first checkpoint of at least this size.
    async fn checkpoint_from(&self, size: u64) -> Result<Option<(u64, String)>>;
    /// The first commit that covers this record: the stream's size after it and its number.
    async fn covering_commit(&self, stream: &str, index: u64) -> Result<Option<(u64, u64)>>;
    /// The partition key of a stream's month, if there is one.
    async fn partition_key(&self, stream: &str, month: &str) -> Result<Option<[u8; 32]>>;
    /// Stores a partition key unless there is one; returns the one that is stored.
    async fn create_partition_key(&self, stream: &str, month: &str, key: [u8; 32]) -> Result<[u8; 32]>;
    /// A kept answer: fingerprint and answer.
    async fn idempotency(&self, log: &str, key: &str) -> Result<Option<(Vec<u8>, String)>>;
    /// Forgets answers older than this time, µs UTC.
    async fn forget_idempotency(&self, before: i64) -> Result<u64>;
    /// How far a source has been taken in.
    async fn position(&self, source: &str) -> Result<Option<String>>;
    /// Names under which a position is kept, in order.
    async fn position_names(&self) -> Result<Vec<String>>;
    /// All attached sources, by name.
    async fn capture_sources(&self) -> Result<Vec<CaptureSourceRow>>;
    /// Adds a source, or replaces what is known of it but for the time it was attached.
    async fn put_capture_source(&self, source: &CaptureSourceRow) -> Result<()>;
    /// Forgets a source; its position stays.
    async fn remove_capture_source(&self, name: &str) -> Result<()>;
    /// Replaced files that may go: replaced at or before this time, µs UTC.
    async fn garbage(&self, before: i64) -> Result<Vec<String>>;
    /// Forgets a replaced file.
    async fn forget_garbage(&self, path: &str) -> Result<()>;
    /// All rows of a register, in key order.
    async fn read_register(&self, table: &'static Table) -> Result<RecordBatch>;
    /// Rows of a register by their values.
    async fn find_in_register(&self, lookup: &Lookup) -> Result<Vec<RegisterRow>>;
    /// Makes all of these changes or none; returns the `id` of each row. [`crate::StoreError::Conflict`] if a row is not there or not as expected, or a key,
    /// check or reference is violated.
    async fn change_registers(&self, changes: &[RegisterChange], by: &ChangedBy) -> Result<Vec<i64>>;
    /// Where the triggers that audit the registers are attached and their queue is read; `None` if this database has none.
    fn audit_url(&self) -> Option<String>;
    /// Changes of registers that the source of this position name has not taken into the log yet.
    async fn waiting_register_changes(&self, source: &str) -> Result<u64>;
    /// How often [`CommitDb::change_registers`] has changed a register that says who may do what, so that whoever remembers them knows when to look again.
    fn access_changes(&self) -> u64;
    /// How far a follower has come; `None` if it has never moved.
    async fn follower(&self, name: &str) -> Result<Option<FollowerRow>>;
    /// Stores a follower's step and what follows from it, all or nothing; durable when it returns the `id` of each changed row.
    /// [`crate::StoreError::Conflict`] as for [`CommitDb::change_registers`], and if the follower is not where the step begins.
    async fn advance(&self, step: &Advance) -> Result<Vec<i64>>;
    /// The next commits that touched a stream, after the one that brought it to this size.
    async fn stream_commits(&self, stream: &str, after: u64, limit: u32) -> Result<Vec<StreamCommit>>;
    /// Lines that wait for their commit, after this one, in order.
    async fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxRow>>;
    /// Removes the lines up to and including this one, which are committed.
    async fn clear_outbox(&self, up_to: i64) -> Result<()>;
}
