//! Taking in a request: limits, parsing, preparation, and the answer.

use crate::engine::{Engine, Shared};
use crate::error::{EngineError, Result};
use crate::metrics::Failure;
use crate::prepare::{Part, prepare};
use bytes::Bytes;
use muniment_model::{Format, ParseOptions, Parsed, Table};
use muniment_store::month_of;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Requests up to this size are parsed where they arrive; larger ones when it is their turn.
const INLINE_BYTES: usize = 16 * 1024;
/// Memory that a request needs for each byte of its body: the body, its columns, its payloads.
const MEMORY_FACTOR: usize = 3;

/// External ids of a request that are looked up.
const MOST_MISSED: usize = 1000;

/// Limits of what is taken in.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's body, after decompression.
    pub body_bytes: usize,
    /// Records of a request.
    pub records: usize,
    /// Bytes of memory for all requests under way.
    pub memory_bytes: usize,
    /// Bytes of hot batches beyond which new requests wait for the flush.
    pub hot_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: 32 << 20, records: 100_000, memory_bytes: 192 << 20, hot_bytes: 2 << 30 }
    }
}

/// How far a request takes a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePosition {
    /// Name of the source.
    pub source: String,
    /// Where it is after this request: stored in the same commit.
    pub value: String,
    /// Where it must be before, empty for the beginning; otherwise the request is refused. So a request that fails takes those behind it along.
    pub after: Option<String>,
}

/// A request to store records.
#[derive(Debug)]
pub struct IngestRequest<'a> {
    /// The log.
    pub log: &'a str,
    /// One JSON object, an array of them, or NDJSON.
    pub body: Bytes,
    /// Which of these.
    pub format: Format,
    /// A retry with the same key stores nothing and gets the same answer.
    pub idempotency_key: Option<String>,
    /// How far this request takes its source.
    pub position: Option<SourcePosition>,
}

/// Ids of a request's records: consecutive, in the request's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The first record's.
    pub first: i64,
    /// The last record's.
    pub last: i64,
}

/// The answer: these records are durable, hashed and signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The log.
    pub log: String,
    /// Number of records.
    pub records: usize,
    /// Their ids; `None` if there was no record.
    pub ids: Option<Ids>,
    /// Number of the commit.
    pub commit: u64,
    /// The checkpoint that covers it.
    pub checkpoint: String,
    /// Whether this answers a retry, and nothing was stored now.
    #[serde(skip)]
    pub replayed: bool,
}

/// A request ready for its commit.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) log: &'static Table,
    pub(crate) records: usize,
    pub(crate) first_id: i64,
    pub(crate) parts: Vec<Part>,
    pub(crate) idempotency: Option<(String, Vec<u8>)>,
    pub(crate) position: Option<SourcePosition>,
    /// Records of another log that are stored in the same commit or not at all.
    pub(crate) with: Option<Box<Prepared>>,
    pub(crate) _memory: Option<Reservation>,
}

/// Memory for requests under way.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation> {
        let mut reservation = Reservation { budget: self.clone(), bytes: 0 };
        reservation.grow(bytes)?;
        Ok(reservation)
    }
}

impl Reservation {
    /// Takes more of the budget.
    ///
    /// # Errors
    /// [`EngineError::Busy`] if there is not enough; what is held stays held.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.budget.limit);
        let grown = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        grown.map_err(|_| EngineError::Busy { reason: "requests under way hold all the memory they may", retry_after: 1 })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Engine {
    /// Reserves memory for a request that is being received.
    ///
    /// # Errors
    /// [`EngineError::Busy`] if requests under way hold all of it.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation> {
        self.budget().reserve(bytes).inspect_err(|_| self.metrics().failed(Failure::Busy))
    }

    /// Stores a request's records, all or none. When this returns they are durable, in the log's order, and covered by a signed checkpoint.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] names what is wrong with the records, [`EngineError::Busy`] says when to try again.
    pub async fn ingest(self: &Arc<Self>, request: IngestRequest<'_>) -> Result<Receipt> {
        let began = Instant::now();
        let outcome = self.take_in(request).await;
        match &outcome {
            Ok(_) => self.metrics().ingest_seconds.observe(began.elapsed().as_secs_f64()),
            Err(EngineError::Invalid(_)) => self.metrics().failed(Failure::Invalid),
            Err(EngineError::Busy { .. }) => self.metrics().failed(Failure::Busy),
            Err(_) => {}
        }
        // What is wrong with a request is its sender's matter.
        let own_fault =
            matches!(outcome, Err(EngineError::Busy { .. } | EngineError::Store(_) | EngineError::Ledger(_) | EngineError::Arrow(_)));
        if outcome.is_ok() || own_fault {
            self.metrics().recent.request(outcome.is_ok());
        }
        outcome
    }

    async fn take_in(self: &Arc<Self>, request: IngestRequest<'_>) -> Result<Receipt> {
        let table = log_named(request.log)?;
        let limits = self.limits();
        if request.body.len() > limits.body_bytes {
            return Err(EngineError::TooLarge { limit: limits.body_bytes });
        }
        if self.store().hot_size().0 > limits.hot_bytes {
            return Err(EngineError::Busy { reason: "records wait to be written to files", retry_after: 5 });
        }
        let memory = self.budget().reserve(request.body.len() * MEMORY_FACTOR)?;
        let idempotency = match request.idempotency_key {
            Some(key) => {
                let fingerprint = xxhash_rust::xxh3::xxh3_128(&request.body).to_be_bytes().to_vec();
                if let Some(receipt) = self.shared.replay(table.name, &key, &fingerprint).await? {
                    return Ok(receipt);
                }
                Some((key, fingerprint))
            }
            None => None,
        };
        let mut prepared = self.shared.prepare_in_turn(table, request.body, request.format, None).await?;
        prepared.idempotency = idempotency;
        prepared.position = request.position;
        prepared._memory = Some(memory);
        self.submit(prepared).await
    }
}

impl Shared {
    /// The kept answer to a request with this key.
    pub(crate) async fn replay(&self, log: &str, key: &str, fingerprint: &[u8]) -> Result<Option<Receipt>> {
        let Some((kept, answer)) = self.store.db().idempotency(log, key).await? else { return Ok(None) };
        if kept != fingerprint {
            return Err(EngineError::KeyReused);
        }
        let receipt: Receipt = serde_json::from_str(&answer)
            .map_err(|error| muniment_store::StoreError::Damaged(format!("a kept answer can't be read: {error}")))?;
        Ok(Some(Receipt { replayed: true, ..receipt }))
    }

    /// Parses a body. External ids of users that have not come up before are written down; the body is then parsed again.
    fn parse(&self, table: &'static Table, body: &[u8], format: Format, now: i64, missed: &mut BTreeSet<String>) -> Result<Parsed> {
        let mut limits = muniment_model::Limits::default();
        limits.max_records = self.limits.records.min(limits.max_records);
        let mut uuid = || uuid::Uuid::new_v4().into_bytes();
        let mut users = |external_id: &str| {
            let number = self.sight.number(external_id);
            if number.is_none() && missed.len() < MOST_MISSED {
                missed.insert(external_id.to_owned());
            }
            number
        };
        let mut options = ParseOptions { now, format, limits, uuid: &mut uuid, retention_years: None, users: Some(&mut users) };
        let mut parsed = muniment_model::parse(table, body, &mut options).map_err(EngineError::Invalid)?;
        if table.name == crate::thresholds::LOG {
            let thresholds = self.thresholds.get();
            for class in &mut parsed.batches {
                class.data = thresholds.apply(class.data.clone())?;
            }
        }
        Ok(parsed)
    }

    /// Parses a body and hashes its records as `prepare` does: a large one when it is its turn.
    pub(crate) async fn prepare_in_turn(
        self: &Arc<Self>,
        table: &'static Table,
        body: impl AsRef<[u8]> + Send + 'static,
        format: Format,
        first_id: Option<i64>,
    ) -> Result<Prepared> {
        if body.as_ref().len() <= INLINE_BYTES {
            return self.prepare(table, body.as_ref(), format, first_id).await;
        }
        let (shared, handle) = (self.clone(), tokio::runtime::Handle::current());
        self.turns.take(move || handle.block_on(shared.prepare(table, body.as_ref(), format, first_id))).await?
    }

    /// Parses a body and hashes its records. Their ids begin at `first_id`, or at the next free one.
    pub(crate) async fn prepare(&self, table: &'static Table, body: &[u8], format: Format, first_id: Option<i64>) -> Result<Prepared> {
        let now = crate::now();
        let mut missed = BTreeSet::new();
        let mut parsed = self.parse(table, body, format, now, &mut missed);
        if !missed.is_empty() && self.see_external_ids(table, &missed).await? {
            parsed = self.parse(table, body, format, now, &mut BTreeSet::new());
        }
        let parsed = parsed?;
        self.see_users(table, parsed.batches.iter().map(|class| &class.data)).await?;
        let first_id = first_id.unwrap_or_else(|| self.allocate_ids(table, parsed.records));
        let month: Arc<str> = Arc::from(month_of(now));
        let mut parts = Vec::with_capacity(parsed.batches.len());
        for class in parsed.batches {
            let stream = crate::prepare::stream_name(table.name, class.retention_years);
            let key = self.partition_key(&stream, &month).await?;
            parts.push(prepare(table, class, first_id, month.clone(), &key)?);
        }
        Ok(Prepared { log: table, records: parsed.records, first_id, parts, idempotency: None, position: None, with: None, _memory: None })
    }
}

/// The log of this name.
pub(crate) fn log_named(log: &str) -> Result<&'static Table> {
    muniment_model::table(log).filter(|table| table.is_log()).ok_or_else(|| EngineError::UnknownLog(log.to_owned()))
}
