//! Group commit: whatever has arrived while the last commit was being written becomes the next one. Only chaining and the tree's frontier are done
//! here, in order; hashing and encoding were done before, on other cores.

use crate::engine::Shared;
use crate::error::{EngineError, Result};
use crate::heads::{Heads, Step};
use crate::ingest::{Ids, Prepared, Receipt};
use crate::keys::KeyFolder;
use crate::metrics::{Failure, LogLabel};
use crate::prepare::{Part, hash_payloads};
use arrow_array::RecordBatch;
use muniment_ledger::checkpoint::SigningKey;
use muniment_ledger::meta::MetaLeaf;
use muniment_store::db::{Extent, IdempotencyRow, NewBatch};
use muniment_store::{StoreError, hot, month_of};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// Records of a group at most.
const GROUP_RECORDS: usize = 128 * 1024;

/// The answer's way back.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What can be committed.
pub(crate) enum Work {
    /// Records.
    Records(Box<Prepared>, Reply<Receipt>),
    /// A sign of life, if nothing was committed since this time, µs UTC.
    Heartbeat(i64, Reply<()>),
    /// A new signing key; answers its verifier key.
    Rotation(Reply<String>),
    /// No more work comes after this.
    Stop(Reply<()>),
}

/// The one place where the ledger grows.
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) heads: Heads,
    pub(crate) key: SigningKey,
    pub(crate) keys: KeyFolder,
    pub(crate) newest: watch::Sender<(u64, String)>,
    /// Where sources are, as far as this committer has asked or written.
    pub(crate) positions: HashMap<String, String>,
}

type Waiting = (Box<Prepared>, Reply<Receipt>);

impl Committer {
    /// Commits until it is told to stop, or all senders are gone.
    pub(crate) async fn run(mut self, mut work: mpsc::Receiver<Work>) {
        while let Some(next) = work.recv().await {
            let mut group = Vec::new();
            let mut other = self.sort(next, &mut group);
            let mut records: usize = group.iter().map(|(prepared, _)| prepared.records).sum();
            while other.is_none() && records < GROUP_RECORDS {
                let Ok(next) = work.try_recv() else { break };
                other = self.sort(next, &mut group);
                records = group.iter().map(|(prepared, _)| prepared.records).sum();
            }
            if !group.is_empty() {
                self.commit_group(group).await;
            }
            match other {
                Some(Work::Stop(reply)) => {
                    let _ = reply.send(Ok(()));
                    return;
                }
                Some(Work::Heartbeat(since, reply)) => drop(reply.send(self.heartbeat(since).await)),
                Some(Work::Rotation(reply)) => drop(reply.send(self.rotate().await)),
                Some(Work::Records(..)) | None => {}
            }
        }
    }

    fn sort(&self, work: Work, group: &mut Vec<Waiting>) -> Option<Work> {
        match work {
            Work::Records(prepared, reply) => {
                self.shared.metrics.queue_depth.dec();
                group.push((prepared, reply));
                None
            }
            other => Some(other),
        }
    }

    async fn commit_group(&mut self, group: Vec<Waiting>) {
        let began = Instant::now();
        let (fresh, retries) = self.without_replays(group).await;
        let mut fresh = self.in_position(fresh).await;
        if !fresh.is_empty() {
            match self.write_group(&mut fresh).await {
                Ok((number, note)) => self.acknowledge(fresh, number, &note, began),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a commit failed");
                    self.shared.metrics.failed(Failure::Commit);
                    for (_, reply) in fresh {
                        let _ = reply.send(Err(refusal(&error)));
                    }
                }
            }
        }
        for (prepared, reply) in retries {
            let answer = match &prepared.idempotency {
                Some((key, fingerprint)) => self.shared.replay(prepared.log.name, key, fingerprint).await,
                None => Ok(None),
            };
            let failed = || EngineError::Busy { reason: "the first request with this key failed", retry_after: 1 };
            let _ = reply.send(answer.and_then(|receipt| receipt.ok_or_else(failed)));
        }
    }

    /// Tells requests whose key is known, or came twice in this group, from fresh ones.
    async fn without_replays(&self, group: Vec<Waiting>) -> (Vec<Waiting>, Vec<Waiting>) {
        let (mut fresh, mut retries) = (Vec::with_capacity(group.len()), Vec::new());
        let mut seen = HashMap::new();
        for (prepared, reply) in group {
            let Some((key, fingerprint)) = &prepared.idempotency else {
                fresh.push((prepared, reply));
                continue;
            };
            match self.shared.replay(prepared.log.name, key, fingerprint).await {
                Ok(Some(receipt)) => drop(reply.send(Ok(receipt))),
                Err(error) => drop(reply.send(Err(error))),
                Ok(None) if seen.insert((prepared.log.name, key.clone()), ()).is_some() => retries.push((prepared, reply)),
                Ok(None) => fresh.push((prepared, reply)),
            }
        }
        (fresh, retries)
    }

    /// Refuses requests whose source is not where they expect it.
    async fn in_position(&mut self, group: Vec<Waiting>) -> Vec<Waiting> {
        let mut kept = Vec::with_capacity(group.len());
        let mut reached: HashMap<String, String> = HashMap::new();
        for (prepared, reply) in group {
            let Some(position) = &prepared.position else {
                kept.push((prepared, reply));
                continue;
            };
            if let Some(after) = &position.after {
                let current = match reached.get(&position.source) {
                    Some(value) => Ok(value.clone()),
                    None => self.position(&position.source).await,
                };
                match current {
                    Ok(current) if current == *after => {}
                    Ok(_) => {
                        let _ = reply.send(Err(EngineError::Position(position.source.clone())));
                        continue;
                    }
                    Err(error) => {
                        let _ = reply.send(Err(error));
                        continue;
                    }
                }
            }
            reached.insert(position.source.clone(), position.value.clone());
            kept.push((prepared, reply));
        }
        kept
    }

    async fn position(&mut self, source: &str) -> Result<String> {
        if let Some(known) = self.positions.get(source) {
            return Ok(known.clone());
        }
        let stored = self.shared.store.db().position(source).await?.unwrap_or_default();
        self.positions.insert(source.to_owned(), stored.clone());
        Ok(stored)
    }

    async fn write_group(&mut self, group: &mut [Waiting]) -> Result<(u64, String)> {
        let mut step = self.heads.step(crate::now());
        let mut decoded = Vec::new();
        for part in merge_small(group)? {
            self.append(&mut step, &part, &mut decoded).await?;
        }
        // A group that only moves positions adds nothing to the ledger.
        let (number, note) = if step.commit.batches.is_empty() {
            (self.heads.size().saturating_sub(1), self.newest.borrow().1.clone())
        } else {
            (step.commit_leaf(), step.sign(&[&self.key])?)
        };
        for (prepared, _) in group.iter() {
            if let Some((key, fingerprint)) = &prepared.idempotency {
                let answer = serde_json::to_string(&receipt(prepared, number, &note))
                    .map_err(|error| StoreError::Damaged(format!("an answer can't be kept: {error}")))?;
                let (log, key, fingerprint) = (prepared.log.name.to_owned(), key.clone(), fingerprint.clone());
                step.commit.idempotency.push(IdempotencyRow { log, key, fingerprint, answer });
            }
            step.commit.positions.extend(prepared.position.clone().map(|position| (position.source, position.value)));
            for prepared in std::iter::once(&**prepared).chain(prepared.with.as_deref()).filter(|prepared| prepared.records > 0) {
                let next = prepared.first_id + prepared.records as i64;
                match step.commit.next_ids.iter_mut().find(|(log, _)| log == prepared.log.name) {
                    Some((_, known)) => *known = next.max(*known),
                    None => step.commit.next_ids.push((prepared.log.name.to_owned(), next)),
                }
            }
        }
        self.finish(step, decoded).await?;
        Ok((number, note))
    }

    async fn append(&self, step: &mut Step, part: &Part, decoded: &mut Vec<RecordBatch>) -> Result<()> {
        let time = step.time();
        let month = month_of(time);
        let rehashed;
        let payload_hashes = if *month == *part.month {
            &part.payload_hashes
        } else {
            let key = self.shared.partition_key(&part.stream, &Arc::from(month)).await?;
            rehashed = hash_payloads(part.table, &part.batch, &part.ids, &key)?;
            &rehashed
        };
        let (first, hashes) = step.append(&part.stream, part.table.name, part.retention_years, &part.ids, payload_hashes);
        let bytes = hot::hash_bytes(&hashes);
        let row = hot::Ledgered { first, recorded_at: time, hashes: &bytes };
        decoded.push(hot::complete(&part.table.stored_schema(), &part.batch, row)?);
        let extent = Extent {
            stream: part.stream.clone(),
            first,
            end: first + part.ids.len() as u64,
            first_id: part.ids.iter().copied().min().unwrap_or_default(),
            last_id: part.ids.iter().copied().max().unwrap_or_default(),
            recorded_from: time,
            recorded_to: time,
            min_time: part.min_time,
            max_time: part.max_time,
        };
        step.commit.batches.push(NewBatch { extent, hashes: bytes, body: part.body()? });
        Ok(())
    }

    /// Makes a step durable and visible, and the new heads ours. After an error the heads are those that the database has.
    pub(crate) async fn finish(&mut self, step: Step, decoded: Vec<RecordBatch>) -> Result<()> {
        let (commit, heads) = step.into_parts();
        self.shared.store.commit(&commit, decoded).await?;
        self.heads = heads;
        self.positions.extend(commit.positions);
        if let Some(checkpoint) = commit.checkpoint {
            self.newest.send_replace(checkpoint);
        }
        Ok(())
    }

    fn acknowledge(&self, group: Vec<Waiting>, number: u64, note: &str, began: Instant) {
        let metrics = &self.shared.metrics;
        let mut records = 0;
        for (prepared, reply) in group {
            for prepared in std::iter::once(&*prepared).chain(prepared.with.as_deref()) {
                records += prepared.records;
                metrics.records.get_or_create(&LogLabel { log: prepared.log.name.to_owned() }).inc_by(prepared.records as u64);
            }
            let _ = reply.send(Ok(receipt(&prepared, number, note)));
        }
        metrics.commits.inc();
        metrics.commit_records.observe(records as f64);
        metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
        metrics.recent.commit(began.elapsed());
    }

    async fn heartbeat(&mut self, since: i64) -> Result<()> {
        if self.heads.time() > since {
            return Ok(());
        }
        let mut step = self.heads.step(crate::now());
        step.leaf(&MetaLeaf::Heartbeat { time: step.time() });
        step.sign(&[&self.key])?;
        self.finish(step, Vec::new()).await
    }

    async fn rotate(&mut self) -> Result<String> {
        let next = self.keys.create_next()?;
        let mut step = self.heads.step(crate::now());
        let (old, new) = (self.key.verifier_key().clone(), next.verifier_key().clone());
        step.leaf(&MetaLeaf::Key { time: step.time(), vkey: new.to_string(), previous: Some(old.to_string()) });
        step.sign(&[&self.key, &next])?;
        self.finish(step, Vec::new()).await?;
        self.keys.promote()?;
        self.key = next;
        Ok(new.to_string())
    }
}

fn receipt(prepared: &Prepared, commit: u64, note: &str) -> Receipt {
    let last = prepared.first_id + prepared.records as i64 - 1;
    Receipt {
        log: prepared.log.name.to_owned(),
        records: prepared.records,
        ids: (prepared.records > 0).then_some(Ids { first: prepared.first_id, last }),
        commit,
        checkpoint: note.to_owned(),
        replayed: false,
    }
}

/// The parts of a group, each stream's in order; neighbouring small ones of a stream become one.
fn merge_small(group: &mut [Waiting]) -> Result<Vec<Part>> {
    let mut merged = Vec::new();
    let mut small: BTreeMap<(String, Arc<str>), Vec<Part>> = BTreeMap::new();
    let parts = group.iter_mut().flat_map(|(prepared, _)| {
        let with = prepared.with.as_deref_mut().map(|with| std::mem::take(&mut with.parts)).unwrap_or_default();
        std::mem::take(&mut prepared.parts).into_iter().chain(with)
    });
    for part in parts {
        if part.body.is_some() {
            let before = small.extract_if(.., |(stream, _), _| *stream == part.stream);
            for (_, parts) in before {
                merged.push(Part::merge(parts)?);
            }
            merged.push(part);
        } else {
            small.entry((part.stream.clone(), part.month.clone())).or_default().push(part);
        }
    }
    for parts in small.into_values() {
        merged.push(Part::merge(parts)?);
    }
    Ok(merged)
}

/// What the senders of a failed group are told.
fn refusal(error: &EngineError) -> EngineError {
    match error {
        EngineError::Store(StoreError::Full { .. }) => EngineError::Busy { reason: "there is no space left on the disk", retry_after: 30 },
        _ => EngineError::Busy { reason: "the commit failed; the server's log says why", retry_after: 5 },
    }
}
