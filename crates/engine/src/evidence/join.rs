//! The runs of a stream, in order: the chain, the roots of the commits, the times.

use super::records::{StreamCheck, merge};
use super::run::Run;
use muniment_ledger::verify::{Finding, Reason, StreamVerifier, Verdict};
use muniment_ledger::{Frontier, Hash, Node};
use muniment_store::db::Extent;

/// Puts the runs of a stream together. Steps 5 to 7 of format §3.1: a failure of a later step is told only if the earlier steps find none.
pub(super) struct Join<'a> {
    check: &'a StreamCheck<'a>,
    /// None after a root did not agree.
    verifier: Option<StreamVerifier<'a>>,
    next: u64,
    previous: Hash,
    latest: i64,
    sixth: Option<Finding>,
    seventh: Option<Finding>,
    pub(super) records: u64,
    pub(super) erased: u64,
    /// Where the records since it was last taken lie; only in a live store.
    pub(super) extent: Option<Extent>,
}

impl<'a> Join<'a> {
    /// Starts at the record `first`, with the hash of the one before it and the nodes left of it.
    pub(super) fn new(check: &'a StreamCheck<'a>, first: u64, previous: Hash, left: &[Node]) -> Self {
        let (verifier, sixth) = match StreamVerifier::new(check.name, check.history, first, previous, left) {
            Ok(verifier) => (Some(verifier), None),
            Err(finding) => (None, Some(finding)),
        };
        Self { check, verifier, next: first, previous, latest: i64::MIN, sixth, seventh: None, records: 0, erased: 0, extent: None }
    }

    /// `blockchain_hash` of the record before it.
    pub(super) fn previous_hash(&self) -> Hash {
        self.previous
    }

    /// The tree so far, unless a root did not agree.
    pub(super) fn frontier(&self) -> Option<&Frontier> {
        self.verifier.as_ref().map(StreamVerifier::frontier)
    }

    /// Takes the next run.
    ///
    /// # Errors
    ///
    /// A failure of step 5; those of later steps are kept.
    pub(super) fn add(&mut self, run: Run) -> Result<(), Finding> {
        let finding = |verdict, reason| self.check.finding(verdict, reason).file(&run.file);
        if run.first > self.next {
            return Err(finding(Verdict::Missing, Reason::Absent).records(self.next..run.first));
        }
        if run.first < self.next {
            return Err(finding(Verdict::Altered, Reason::OutOfOrder { expected: self.next }).record(run.first));
        }
        if let Some(opening) = &run.opening {
            let checked = self.check.check_opening(run.first, opening, self.previous);
            checked.map_err(|reason| finding(Verdict::Altered, reason).record(run.first))?;
        }
        let starts_back = run.times.filter(|(first, _)| *first < self.latest).map(|_| run.first);
        if let Some(index) = starts_back.or(run.time_back) {
            self.seventh.get_or_insert_with(|| finding(Verdict::Malformed, Reason::TimeBack).record(index));
        }
        self.latest = run.times.map_or(self.latest, |(_, last)| self.latest.max(last));
        for block in run.blocks {
            let block = block.following(self.previous);
            (self.next, self.previous) = (block.end(), block.last_hash());
            if let Some(Err(finding)) = self.verifier.as_mut().map(|verifier| verifier.add(&block)) {
                self.sixth.get_or_insert(finding.file(&run.file));
                self.verifier = None;
            }
        }
        if let Some(extent) = run.extent {
            merge(&mut self.extent, extent);
        }
        self.records += run.records;
        self.erased += run.erased;
        if let Some(failure) = run.failure {
            return Err(failure);
        }
        match run.file_end {
            Some(end) if self.next < end => {
                Err(self.check.finding(Verdict::Missing, Reason::Absent).file(&run.file).records(self.next..end))
            }
            _ => Ok(()),
        }
    }

    /// Ends before the record `end`, with the nodes right of it. Returns the failures by step.
    pub(super) fn finish(self, end: u64, right: &[Node]) -> Vec<(u8, Finding)> {
        let missing = self.next < end;
        let absent = self.check.finding(Verdict::Missing, Reason::Absent).records(self.next..end);
        let rest = self.verifier.filter(|_| !missing).and_then(|verifier| verifier.finish(end, right).err());
        let fifth = missing.then_some((5, absent));
        let sixth = self.sixth.or(rest).map(|finding| (6, finding));
        fifth.into_iter().chain(sixth).chain(self.seventh.map(|finding| (7, finding))).collect()
    }
}
