//! Verification of a live store: the meta-log and the hot batches in the commit database, the Parquet files, and what the catalog says of both.

use super::bundle::{file_finding, regular};
use super::join::Join;
use super::parquet::RecordFile;
use super::records::{RunChecker, Salts, StreamCheck};
use super::run::{Run, Workers, guarded};
use super::schema::table_of;
use super::{Report, VerifyOptions};
use crate::{EngineError, Result};
use bytes::Bytes;
use muniment_ledger::bundle::Scope;
use muniment_ledger::checkpoint::VerifierKey;
use muniment_ledger::meta::MetaLeaf;
use muniment_ledger::verify::{Checkpoints, Extent, Finding, Ledger, MetaVerifier, NamedNote, Outcome, Reason, Verdict};
use muniment_ledger::{Frontier, NO_HASH, PartitionKey};
use muniment_model::Table;
use muniment_store::db::{BatchRow, Extent as Rows, FileRow, Loaded, StreamRow};
use muniment_store::hot::{Ledgered, decode};
use muniment_store::parquet_file::nodes_from_bytes;
use muniment_store::{Store, month_of, next_month};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Name of the commit database in findings.
const DATABASE: &str = "muniment.db";
/// Leaves of the meta-log read at a time.
const LEAVES: u64 = 8192;
/// Bytes of hot batches read at a time.
const HOT_BYTES: u64 = 16 << 20;
/// How often to start again when a writer has moved records meanwhile.
const ATTEMPTS: usize = 12;

/// Verifies a live store, also beside a running writer: everything up to the newest checkpoint at the start. Busy on all cores.
///
/// # Errors
///
/// If it could not do its work: the store has no checkpoint, the commit database can't be read, or a writer in another process moves records
/// faster than they can be read ([`EngineError::Busy`]). What is wrong with the records is in the report.
pub async fn verify_store(store: &Arc<Store>, options: VerifyOptions) -> Result<Report> {
    let (store, handle) = (store.clone(), Handle::current());
    let work = move || {
        let mut workers = Workers::new(options.threads, options.progress.clone())?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (report, moved) = attempt(&store, &handle, &options, &mut workers)?;
            // What was found twice, each time by a catalog read anew, no writer has moved meanwhile.
            if !moved || last.as_ref() == report.outcome.findings.first() {
                return Ok(report);
            }
            last = report.outcome.findings.into_iter().next();
        }
        Err(EngineError::Busy { reason: "records were moved to files all the time while they were verified", retry_after: 10 })
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Stopped)?
}

/// Verifies once. Says also whether the verdict does not count, because a writer has moved records from one place to another meanwhile.
fn attempt(store: &Store, handle: &Handle, options: &VerifyOptions, workers: &mut Workers) -> Result<(Report, bool)> {
    // Held until the end: as long as somebody holds a snapshot, this process removes no batch that it has flushed.
    let held = store.snapshot();
    let loaded = handle.block_on(store.db().load())?;
    let (key, key_given) = match &options.trusted {
        Some(key) => (key.clone(), true),
        None => (handle.block_on(first_key(store))?, false),
    };
    let mut report =
        Report { origin: loaded.origin.clone(), scope: Scope::All, key: key.to_string(), key_given, outcome: Outcome::default() };
    let verifier = LiveVerifier { store, handle, loaded: &loaded };
    verifier.run(&key, options, workers, &mut report.outcome)?;
    drop(held);
    let moved = !report.is_valid() && verifier.has_moved()?;
    Ok((report, moved))
}

/// The first key of the store's own meta-log.
async fn first_key(store: &Store) -> Result<VerifierKey> {
    let leaves = store.db().meta_leaves(0, 1).await?;
    let leaf = leaves.first().ok_or_else(|| EngineError::NotFound("the first leaf of the meta-log".to_owned()))?;
    match MetaLeaf::decode(leaf)? {
        MetaLeaf::Key { vkey, .. } => Ok(vkey.parse()?),
        _ => Err(EngineError::NotFound("a key in the first leaf of the meta-log".to_owned())),
    }
}

struct LiveVerifier<'a> {
    store: &'a Store,
    handle: &'a Handle,
    loaded: &'a Loaded,
}

impl LiveVerifier<'_> {
    fn run(&self, key: &VerifierKey, options: &VerifyOptions, workers: &mut Workers, outcome: &mut Outcome) -> Result<()> {
        let ledger = match self.read_ledger(key, options, outcome)? {
            Ok(ledger) => ledger,
            Err(finding) => {
                outcome.findings.push(finding);
                return Ok(());
            }
        };
        outcome.findings = self.check_listing(&ledger);
        if !outcome.findings.is_empty() {
            return Ok(());
        }
        workers.start(self.loaded.streams.iter().map(|row| row.size).sum());
        // What a file's hash is compared with counts only if everything else holds, but is found meanwhile: nobody waits for the largest file.
        let check = |file: &FileRow| {
            let path = self.store.objects().local_path(&file.path);
            file_finding(&path, &file.path, file.bytes, &file.sha256, &file.extent.stream)
        };
        let (findings, files) = workers.map_beside(self.loaded.files.iter().collect(), check, || {
            let mut findings = Vec::new();
            for row in &self.loaded.streams {
                findings.extend(self.check_stream(row, &ledger, workers, outcome)?);
            }
            Ok::<_, EngineError>(findings)
        });
        let mut findings = findings?;
        findings.sort_by_key(|(step, _)| *step);
        outcome.findings.extend(findings.into_iter().map(|(_, finding)| finding));
        if outcome.findings.is_empty() {
            outcome.findings = files.into_iter().flatten().collect();
        }
        Ok(())
    }

    /// Steps 1 and 2.
    fn read_ledger(&self, key: &VerifierKey, options: &VerifyOptions, outcome: &mut Outcome) -> Result<Result<Ledger, Finding>> {
        let db = self.store.db();
        let named = |name: String, note: String| NamedNote { name, note };
        let Some((size, newest)) = self.loaded.checkpoint.clone() else {
            return Err(EngineError::NotFound("a checkpoint".to_owned()));
        };
        let mut rotations = Vec::new();
        for (number, _) in self.handle.block_on(db.landmarks("key"))? {
            let after = number + 1;
            let found = if number == 0 || after > size { None } else { self.handle.block_on(db.checkpoint_from(after))? };
            rotations.extend(found.filter(|(size, _)| *size == after).map(|(size, note)| named(format!("checkpoints/{size}"), note)));
        }
        let published = options.published.iter().map(|note| named("the published checkpoint".to_owned(), note.clone())).collect();
        let checkpoints =
            Checkpoints { origin: self.loaded.origin.clone(), newest: named("checkpoint".to_owned(), newest), rotations, published };
        let mut verifier = match MetaVerifier::new(checkpoints) {
            Ok(verifier) => verifier,
            Err(finding) => return Ok(Err(finding)),
        };
        let leaves = self.loaded.meta.as_ref().map_or(0, |meta| meta.size);
        for first in (0..leaves).step_by(LEAVES as usize) {
            for leaf in self.handle.block_on(db.meta_leaves(first, leaves.min(first + LEAVES)))? {
                verifier.add(&leaf);
            }
        }
        outcome.leaves = verifier.size();
        Ok(verifier.finish(key))
    }

    fn files(&self, stream: &str) -> impl Iterator<Item = &FileRow> {
        self.loaded.files.iter().filter(move |file| file.extent.stream == stream)
    }

    fn batches(&self, stream: &str) -> impl Iterator<Item = &BatchRow> {
        self.loaded.batches.iter().filter(move |batch| batch.extent.stream == stream)
    }

    /// Step 4, and what the catalog says.
    fn check_listing(&self, ledger: &Ledger) -> Vec<Finding> {
        let finding = |verdict, reason, row: &Rows| Finding::new(verdict, reason).stream(&row.stream).records(row.first..row.end);
        let mut findings = Vec::new();
        let mut extents = Vec::new();
        for row in &self.loaded.streams {
            let pieces = || self.files(&row.stream).map(|file| &file.extent).chain(self.batches(&row.stream).map(|batch| &batch.extent));
            let wrong = pieces().find(|piece| piece.end <= piece.first || piece.end > row.size);
            findings.extend(wrong.map(|piece| finding(Verdict::Altered, Reason::Catalog("its range is not within the stream"), piece)));
            let (first, end) = (pieces().map(|piece| piece.first).min(), pieces().map(|piece| piece.end).max());
            let (first, end) = (first.unwrap_or(0), end.unwrap_or(0));
            extents.push(Extent { stream: row.stream.clone(), size: row.size, first, end });
        }
        findings.splice(0..0, ledger.check_extents(Scope::All, &extents));
        for file in &self.loaded.files {
            if let Err((verdict, reason)) = regular(&self.store.objects().local_path(&file.path)) {
                findings.push(finding(verdict, reason, &file.extent).file(&file.path));
            }
        }
        findings
    }

    /// Steps 5 to 7 of one stream.
    fn check_stream(&self, row: &StreamRow, ledger: &Ledger, workers: &Workers, outcome: &mut Outcome) -> Result<Vec<(u8, Finding)>> {
        let known = ledger.columns.get(&row.log).and_then(|columns| table_of(&row.log, columns));
        let (Some(table), Some(history)) = (known, ledger.streams.get(&row.stream)) else {
            let finding = Finding::new(Verdict::Altered, Reason::Columns { log: row.log.clone() }).stream(&row.stream);
            return Ok(vec![(5, finding)]);
        };
        let check = StreamCheck::new(&self.loaded.origin, &row.stream, table, history);
        let salts = self.salts(row)?;
        // First what a writer may move at any time.
        let hot = self.check_hot(&check, table, &salts, workers)?;
        let first =
            self.files(&row.stream).map(|file| file.extent.first).chain(self.batches(&row.stream).map(|batch| batch.extent.first)).min();
        let mut join = Join::new(&check, first.unwrap_or(0), NO_HASH, &[]);
        let mut catalog = Vec::new();
        let mut failure = None;
        for file in self.files(&row.stream) {
            match self.check_file(file, &check, &salts, workers, &mut join) {
                Ok(finding) => catalog.extend(finding.map(|finding| (5, finding))),
                Err(finding) => {
                    failure = Some((5, *finding));
                    break;
                }
            }
        }
        if failure.is_none() {
            for (run, batch) in hot.into_iter().zip(self.batches(&row.stream)) {
                if let Err(finding) = join.add(run) {
                    failure = Some((5, finding));
                    break;
                }
                catalog.extend(compare(&batch.extent, join.extent.take().as_ref()).map(|reason| {
                    (5, check.finding(Verdict::Altered, reason).file(DATABASE).records(batch.extent.first..batch.extent.end))
                }));
            }
        }
        outcome.streams += 1;
        outcome.records += join.records;
        outcome.erased += join.erased;
        outcome.disposed += first.unwrap_or(0).min(history.disposed);
        if let Some(failure) = failure {
            return Ok(vec![failure]);
        }
        let head = Frontier::from_bytes(&row.frontier);
        let head_agrees =
            join.previous_hash() == row.last_hash && join.frontier().is_none_or(|frontier| head.is_ok_and(|head| head == *frontier));
        if !head_agrees {
            catalog.push((6, check.finding(Verdict::Altered, Reason::Catalog("the stream's head is not that of its records"))));
        }
        let mut findings = join.finish(row.size, &[]);
        findings.extend(catalog);
        Ok(findings)
    }

    /// The partition keys of the months that the catalog says the stream has.
    fn salts(&self, row: &StreamRow) -> Result<HashMap<String, PartitionKey>> {
        let times = self.files(&row.stream).map(|file| &file.extent).chain(self.batches(&row.stream).map(|batch| &batch.extent));
        let months: std::collections::BTreeSet<String> = times.map(|extent| month_of(extent.recorded_from)).collect();
        let mut keys = HashMap::new();
        for month in months {
            if let Some(key) = self.handle.block_on(self.store.db().partition_key(&row.stream, &month))? {
                keys.insert(month, PartitionKey::new(&key));
            }
        }
        Ok(keys)
    }

    /// Checks a file. Returns what the catalog says wrongly of it.
    fn check_file(
        &self,
        file: &FileRow,
        check: &StreamCheck<'_>,
        salts: &HashMap<String, PartitionKey>,
        workers: &Workers,
        join: &mut Join<'_>,
    ) -> Result<Option<Finding>, Box<Finding>> {
        let extent = &file.extent;
        let path = self.store.objects().local_path(&file.path);
        let schema = check.table.stored_schema();
        let opened = Arc::new(RecordFile::open(&file.path, &path, extent.first..extent.end, &schema, check)?);
        let (before, previous) = (join.frontier().cloned(), join.previous_hash());
        let span = span(extent);
        let salts = Salts::Key(salts.get(&month_of(extent.recorded_from)), &span);
        let work = |group: super::parquet::RowGroup| {
            let run = group.check(check, salts);
            workers.advance(run.records);
            run
        };
        workers.join_all(opened.groups().into_iter(), work, join)?;
        let nodes_agree = before.zip(join.frontier()).is_none_or(|(before, after)| continues(before, &file.nodes, after));
        let reason = if file.previous_hash != previous {
            Some(Reason::Catalog("previous_hash is not that of the record before the file"))
        } else if !nodes_agree {
            Some(Reason::Catalog("the nodes are not those of the records"))
        } else if file.month != month_of(extent.recorded_from) {
            Some(Reason::Catalog("the month is not that of the records"))
        } else {
            None
        };
        let reason = compare(extent, join.extent.take().as_ref()).or(reason);
        Ok(reason.map(|reason| check.finding(Verdict::Altered, reason).file(&file.path).records(extent.first..extent.end)))
    }

    /// Checks all hot batches of a stream.
    fn check_hot(
        &self,
        check: &StreamCheck<'_>,
        table: &'static Table,
        salts: &HashMap<String, PartitionKey>,
        workers: &Workers,
    ) -> Result<Vec<Run>> {
        let rows: Vec<&BatchRow> = self.batches(check.name).collect();
        let mut runs = Vec::with_capacity(rows.len());
        let mut at = 0;
        while at < rows.len() {
            let mut bytes = 0;
            let fits = |row: &&&BatchRow| {
                bytes += row.bytes;
                bytes <= HOT_BYTES || bytes == row.bytes
            };
            let step = &rows[at..at + rows[at..].iter().take_while(fits).count().max(1)];
            at += step.len();
            let (first, last) = (step[0].extent.first, step[step.len() - 1].extent.first);
            let found = self.handle.block_on(self.store.db().hot_range(check.name, first, last + 1))?;
            let mut bodies: HashMap<u64, (Bytes, Bytes)> = found.into_iter().map(|(first, hashes, body)| (first, (hashes, body))).collect();
            let tasks = step.iter().map(|row| (*row, bodies.remove(&row.extent.first))).collect();
            runs.extend(workers.map(tasks, |(row, body): (&BatchRow, _)| {
                let run = check_batch(check, table, &row.extent, body, salts);
                workers.advance(run.records);
                run
            }));
        }
        Ok(runs)
    }

    /// Whether a file or batch that was to be read is no longer where it was.
    fn has_moved(&self) -> Result<bool> {
        let now = self.handle.block_on(self.store.db().load())?;
        let gone = |batch: &BatchRow| !now.batches.iter().any(|other| other.extent == batch.extent);
        let replaced = |file: &FileRow| !now.files.iter().any(|other| other.path == file.path);
        Ok(self.loaded.batches.iter().any(gone) || self.loaded.files.iter().any(replaced))
    }
}

fn check_batch(
    check: &StreamCheck<'_>,
    table: &'static Table,
    extent: &Rows,
    body: Option<(Bytes, Bytes)>,
    salts: &HashMap<String, PartitionKey>,
) -> Run {
    let failed = |verdict, reason| {
        let finding = check.finding(verdict, reason).file(DATABASE).records(extent.first..extent.end);
        Run::failed(DATABASE, extent.first, finding)
    };
    let Some((hashes, body)) = body else { return failed(Verdict::Missing, Reason::Absent) };
    let row = Ledgered { first: extent.first, recorded_at: extent.recorded_to, hashes: &hashes };
    let decoded = guarded(|| decode(table, &body, row).map_err(|error| super::nodes::with_sources(&error)));
    let batch = match decoded {
        Ok(batch) => batch,
        Err(reason) => return failed(Verdict::Malformed, Reason::Unreadable(reason)),
    };
    let span = span(extent);
    let salts = Salts::Key(salts.get(&month_of(extent.recorded_from)), &span);
    let short = (batch.num_rows() as u64) < extent.end - extent.first;
    let mut checker = RunChecker::new(check, salts, DATABASE, extent.first, extent.end, short);
    let outcome = if batch.num_rows() > 0 { checker.add(&batch) } else { Ok(()) };
    let mut run = checker.finish(outcome);
    run.file_end = Some(extent.end);
    run
}

/// The times that records of this file or batch may have: those that the catalog says, of one month.
fn span(extent: &Rows) -> Range<i64> {
    extent.recorded_from..extent.recorded_to.saturating_add(1).min(next_month(extent.recorded_from))
}

/// Whether these nodes lead from one frontier to the other.
fn continues(mut before: Frontier, nodes: &[u8], after: &Frontier) -> bool {
    let pushed = nodes_from_bytes(nodes).is_ok_and(|nodes| nodes.iter().all(|node| before.push(node).is_ok()));
    pushed && before == *after
}

/// Queries skip files and batches by what the catalog says of them, so it must leave nothing out.
fn compare(listed: &Rows, found: Option<&Rows>) -> Option<Reason> {
    let found = found?;
    let ids = listed.first_id <= found.first_id && found.last_id <= listed.last_id;
    let times = listed.min_time <= found.min_time && found.max_time <= listed.max_time;
    let recorded = listed.recorded_from <= found.recorded_from && found.recorded_to <= listed.recorded_to;
    (!(ids && times && recorded)).then_some(Reason::Catalog("there are records beyond the listed ids or times"))
}
