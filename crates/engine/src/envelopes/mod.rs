//! Taking in change envelopes (Debezium, wal2json): decoded, freed of what the log already has, and stored in one commit with what must be remembered of the source.
//!
//! Requests of one source are handled one after the other: decode with the state that the last one left, ask the log which identities it has, commit. The state is the
//! source's position in the commit database, so another node that takes in the same source at the same time is refused and tries again. Why the log
//! is asked, and not a position compared, is told in [`muniment_capture::envelope`].

mod file;

pub use file::{EnvelopeFile, EnvelopeProgress};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::{Ids, Prepared, SourcePosition, log_named};
use crate::metrics::Failure;
use crate::query::QueryEngine;
use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, StringViewArray};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use muniment_capture::CaptureError;
use muniment_capture::envelope::{self, Decoded, Format, KeyHints, Options, State};
use muniment_model::{LineError, Rejection};
use muniment_store::StoreError;
use serde::Serialize;
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// The log that changes go to.
const LOG: &str = "sys_audit_log";
/// The log that findings go to.
const FINDINGS: &str = "security_audit_log";
/// Memory that a batch needs for each of its bytes: the batch, its lines, their columns and payloads.
const MEMORY_FACTOR: usize = 4;
/// Sources that are handled at the same time at most; those that share a lock wait for each other.
const LOCKS: usize = 64;

/// Lets the requests of a source pass one after the other.
#[derive(Debug)]
pub(crate) struct Turns([tokio::sync::Mutex<()>; LOCKS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl Turns {
    async fn of(&self, source: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(source) as usize;
        self.0[hash % LOCKS].lock().await
    }
}

/// A batch of envelopes.
#[derive(Debug)]
pub struct EnvelopeRequest {
    /// Which envelopes.
    pub format: Format,
    /// Name of the source.
    pub source: String,
    /// Key columns that messages don't name.
    pub keys: KeyHints,
    /// The batch.
    pub body: Bytes,
    /// A retry with the same key stores nothing and gets the same answer. Needed if the messages have no position of their source.
    pub idempotency_key: Option<String>,
}

/// The answer to a batch: its changes are durable, those that it brought and those that were there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EnvelopeReceipt {
    /// Changes stored now.
    pub records: usize,
    /// Changes that had been stored before.
    pub repeated: usize,
    /// Messages that are no changes.
    pub ignored: u64,
    /// Ids of the records stored now.
    pub ids: Option<Ids>,
    /// Number of the commit; `None` if nothing was stored.
    pub commit: Option<u64>,
    /// A checkpoint that covers all of it.
    pub checkpoint: String,
    /// Whether this answers a retry with the same idempotency key.
    #[serde(skip)]
    pub replayed: bool,
}

impl Engine {
    /// Stores the changes of a batch that the log does not have yet, all or none. When this returns they are durable, in the batch's order, and covered by
    /// a signed checkpoint. `query` reads this engine's store.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] names a message that can't be read, [`EngineError::Parameter`] a name that is none or an idempotency key that is missing,
    /// [`EngineError::Busy`] says when to try again.
    pub async fn ingest_envelopes(self: &Arc<Self>, query: &QueryEngine, request: EnvelopeRequest) -> Result<EnvelopeReceipt> {
        let outcome = self.take_in_envelopes(query, request).await;
        match &outcome {
            Err(EngineError::Invalid(_)) => self.metrics().failed(Failure::Invalid),
            Err(EngineError::Busy { .. }) => self.metrics().failed(Failure::Busy),
            _ => {}
        }
        outcome
    }

    async fn take_in_envelopes(self: &Arc<Self>, query: &QueryEngine, request: EnvelopeRequest) -> Result<EnvelopeReceipt> {
        let limits = self.limits();
        if request.body.len() > limits.body_bytes {
            return Err(EngineError::TooLarge { limit: limits.body_bytes });
        }
        if self.store().hot_size().0 > limits.hot_bytes {
            return Err(EngineError::Busy { reason: "records wait to be written to files", retry_after: 5 });
        }
        check_name(&request.source)?;
        let memory = self.budget().reserve(request.body.len() * MEMORY_FACTOR)?;
        let idempotency = match &request.idempotency_key {
            Some(key) => {
                let fingerprint = xxhash_rust::xxh3::xxh3_128(&request.body).to_be_bytes().to_vec();
                if let Some(kept) = self.shared.replay(LOG, key, &fingerprint).await? {
                    let (ids, commit, checkpoint) = (kept.ids, Some(kept.commit), kept.checkpoint);
                    return Ok(EnvelopeReceipt { records: kept.records, repeated: 0, ignored: 0, ids, commit, checkpoint, replayed: true });
                }
                Some((key.clone(), fingerprint))
            }
            None => None,
        };
        let _turn = self.envelope_turns().of(&request.source).await;
        let name = format!("{}:{}", request.format.name(), request.source);
        let stored = self.store().db().position(&name).await?.unwrap_or_default();
        let (batches, state) = parse_position(&name, &stored)?;
        let decoded = decode(request, state.clone()).await?;
        if decoded.unidentified() && idempotency.is_none() {
            let reason =
                "its messages have no position of their source, so a repetition could not be told from a new one; this header is needed";
            return Err(EngineError::Parameter { name: "Idempotency-Key", reason: reason.to_owned() });
        }
        let fresh = self.fresh(query, decoded).await?;
        let (repeated, ignored) = (fresh.repeated, fresh.ignored);
        if fresh.records == 0 && fresh.state == state && idempotency.is_none() {
            let checkpoint = self.checkpoint();
            return Ok(EnvelopeReceipt { records: 0, repeated, ignored, ids: None, commit: None, checkpoint, replayed: false });
        }
        let value = position(batches + 1, &fresh.state)?;
        let mut prepared = fresh.prepared;
        prepared.idempotency = idempotency;
        prepared.position = Some(SourcePosition { source: name, value, after: Some(stored) });
        prepared._memory = Some(memory);
        let receipt = self.submit(prepared).await.map_err(|error| match error {
            EngineError::Position(_) => EngineError::Busy { reason: "the same source is being taken in elsewhere", retry_after: 1 },
            error => error,
        })?;
        let (records, ids, replayed) = (receipt.records, receipt.ids, receipt.replayed);
        Ok(EnvelopeReceipt { records, repeated, ignored, ids, commit: Some(receipt.commit), checkpoint: receipt.checkpoint, replayed })
    }

    /// Frees a batch of what the log has, and prepares the rest.
    async fn fresh(self: &Arc<Self>, query: &QueryEngine, mut decoded: Decoded) -> Result<Fresh> {
        let known = known(query, &decoded).await?;
        let envelope::Fresh { lines, records, findings } = decoded.fresh(&known);
        let repeated = decoded.events.len() - records;
        let ndjson = muniment_model::Format::Ndjson;
        let mut prepared = self.shared.prepare_in_turn(log_named(LOG)?, lines, ndjson, None).await?;
        if !findings.is_empty() {
            prepared.with = Some(Box::new(self.shared.prepare_in_turn(log_named(FINDINGS)?, findings, ndjson, None).await?));
        }
        Ok(Fresh { prepared, records, repeated, ignored: decoded.ignored, state: decoded.state })
    }
}

/// A batch without what was known.
struct Fresh {
    prepared: Prepared,
    records: usize,
    repeated: usize,
    ignored: u64,
    state: State,
}

fn check_name(source: &str) -> Result<()> {
    if envelope::is_source_name(source) {
        return Ok(());
    }
    let reason = "a source's name has 1 to 64 of a-z, 0-9, _, :, . and -".to_owned();
    Err(EngineError::Parameter { name: "source", reason })
}

async fn decode(request: EnvelopeRequest, state: State) -> Result<Decoded> {
    let decode = move || {
        let options = Options { format: request.format, source: &request.source, keys: &request.keys, now: crate::now() };
        envelope::decode(&request.body, &options, state).map_err(rejected)
    };
    tokio::task::spawn_blocking(decode).await.map_err(|_| EngineError::Stopped)?
}

/// A message that can't be read, as a line that can't.
fn rejected(error: CaptureError) -> EngineError {
    let (line, field, reason) = match error {
        CaptureError::Message { message, field, reason } => (message, Some(field), reason),
        other => (1, None, other.to_string()),
    };
    EngineError::Invalid(Rejection { total: 1, errors: vec![LineError { line, field, reason }], too_large: false })
}

/// Number of batches so far and state, as the commit database keeps them; empty at the beginning.
fn parse_position(name: &str, stored: &str) -> Result<(u64, State)> {
    if stored.is_empty() {
        return Ok((0, State::default()));
    }
    let parsed = stored.split_once(' ').and_then(|(batches, state)| Some((batches.parse().ok()?, serde_json::from_str(state).ok()?)));
    parsed.ok_or_else(|| StoreError::Damaged(format!("the position of {name} can't be read")).into())
}

fn position(batches: u64, state: &State) -> Result<String> {
    Ok(format!("{batches} {}", state_json(state)?))
}

fn state_json(state: &State) -> Result<String> {
    serde_json::to_string(state).map_err(|error| StoreError::Damaged(format!("a state can't be kept: {error}")).into())
}

/// Which of the batch's identities the log has. The source's time is part of an identity, so records of other times need not be looked at.
async fn known(query: &QueryEngine, decoded: &Decoded) -> Result<HashSet<String>> {
    let identities: Vec<&str> = decoded.events.iter().filter_map(|event| event.identity.as_deref()).collect();
    if identities.is_empty() {
        return Ok(HashSet::new());
    }
    let times: Option<Vec<i64>> = decoded.events.iter().filter(|event| event.identity.is_some()).map(|event| event.time).collect();
    let identities: ArrayRef = Arc::new(StringViewArray::from(identities));
    let mut parameters = vec![SingleRowListArrayBuilder::new(identities).build_list_scalar()];
    let mut sql =
        "SELECT source_position FROM audit.sys_audit_log WHERE source_position IN (SELECT unnest(arrow_cast($1, 'List(Utf8View)')))"
            .to_owned();
    if let Some((first, last)) = times.as_ref().and_then(|times| Some((times.iter().min()?, times.iter().max()?))) {
        parameters.extend([first, last].map(|time| ScalarValue::TimestampMicrosecond(Some(*time), Some("UTC".into()))));
        sql.push_str(" AND changed_at >= $2 AND changed_at <= $3");
    }
    let mut known = HashSet::new();
    for batch in query.collect(&sql, parameters).await? {
        let positions = batch.column(0).as_string_view_opt();
        let positions = positions.ok_or_else(|| StoreError::Damaged("source_position is not text".to_owned()))?;
        known.extend(positions.iter().flatten().map(str::to_owned));
    }
    Ok(known)
}
