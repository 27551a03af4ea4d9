//! A stream's records against the roots of its commits.

use std::ops::Range;

use crate::verify::{BlockSummary, CommitHead, Finding, Reason, StreamHistory, Verdict};
use crate::{Frontier, Hash, Node};

/// Takes a stream's blocks in order and compares its tree with the root of each commit.
#[derive(Debug)]
pub struct StreamVerifier<'a> {
    stream: &'a str,
    heads: &'a [CommitHead],
    /// The head to compare next.
    next: usize,
    agreed: Option<CommitHead>,
    first: u64,
    frontier: Frontier,
    previous_hash: Hash,
}

impl<'a> StreamVerifier<'a> {
    /// Starts at the record `first`; `previous_hash` is the `blockchain_hash` of the one before it, `left` the compact range `[0, first)`.
    ///
    /// # Errors
    ///
    /// If `left` does not cover `[0, first)` or has not the root that was committed at this size.
    pub fn new(stream: &'a str, history: &'a StreamHistory, first: u64, previous_hash: Hash, left: &[Node]) -> Result<Self, Finding> {
        let frontier = Frontier::new();
        let mut verifier = Self { stream, heads: &history.heads, next: 0, agreed: None, first, frontier, previous_hash };
        for node in left {
            verifier.frontier.push(node).map_err(|_| verifier.finding(Verdict::Malformed, Reason::Nodes))?;
        }
        if verifier.frontier.size() != first || (first == 0 && previous_hash != crate::NO_HASH) {
            return Err(verifier.finding(Verdict::Malformed, Reason::Nodes));
        }
        verifier.next = verifier.heads.partition_point(|head| head.size < first);
        verifier.compare()?;
        Ok(verifier)
    }

    /// Index of the record that should come next.
    pub fn next_index(&self) -> u64 {
        self.frontier.size()
    }

    /// The tree so far.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// `blockchain_hash` of the record before the one that should come next.
    pub fn previous_hash(&self) -> Hash {
        self.previous_hash
    }

    /// Takes the next block, whose records were checked.
    ///
    /// # Errors
    ///
    /// If it does not continue the one before, or the root at a commit's size is not the committed one.
    pub fn add(&mut self, block: &BlockSummary) -> Result<(), Finding> {
        let expected = self.next_index();
        if block.first > expected {
            return Err(self.finding(Verdict::Missing, Reason::Absent).records(expected..block.first));
        }
        if block.first < expected {
            return Err(self.finding(Verdict::Altered, Reason::OutOfOrder { expected }).record(block.first));
        }
        if block.previous_hash != self.previous_hash {
            return Err(self.finding(Verdict::Altered, Reason::Chain).record(block.first));
        }
        for node in &block.nodes {
            self.frontier.push(node).map_err(|_| self.finding(Verdict::Malformed, Reason::Nodes))?;
            self.compare()?;
        }
        self.previous_hash = block.last_hash;
        Ok(())
    }

    /// Ends before the record `end`; `right` is the compact range `[end, size)`.
    ///
    /// # Errors
    ///
    /// If records before `end` have not come, `right` does not cover the rest, or the root of the newest commit is not the committed one.
    pub fn finish(mut self, end: u64, right: &[Node]) -> Result<(), Finding> {
        let reached = self.next_index();
        if reached < end {
            return Err(self.finding(Verdict::Missing, Reason::Absent).records(reached..end));
        }
        if reached > end {
            return Err(self.finding(Verdict::Altered, Reason::Surplus).record(end));
        }
        for node in right {
            self.frontier.push(node).map_err(|_| self.finding(Verdict::Malformed, Reason::Nodes))?;
        }
        let Some(newest) = self.heads.last() else {
            return Err(self.finding(Verdict::Altered, Reason::UnknownStream));
        };
        if self.frontier.size() != newest.size {
            return Err(self.finding(Verdict::Malformed, Reason::Nodes));
        }
        // Heads between `end` and the newest cannot be compared: `right` is not cut at their sizes.
        self.next = self.next.max(self.heads.partition_point(|head| head.size < newest.size));
        self.compare()
    }

    /// Compares the tree with every commit at its size; a commit that was passed without being compared is a failure.
    fn compare(&mut self) -> Result<(), Finding> {
        while let Some(head) = self.heads.get(self.next).filter(|head| head.size <= self.frontier.size()) {
            if head.size < self.frontier.size() {
                return Err(self.finding(Verdict::Malformed, Reason::Nodes).records(self.doubtful(head)));
            }
            if head.size > 0 && head.root != self.frontier.root() {
                let agreed = self.agreed.as_ref().map(|head| head.number);
                let reason = Reason::Rewritten { agreed, disagreed: head.number };
                return Err(self.finding(Verdict::Altered, reason).records(self.doubtful(head)));
            }
            self.agreed = Some(head.clone());
            self.next += 1;
        }
        Ok(())
    }

    /// The records that the commits so far do not vouch for.
    fn doubtful(&self, head: &CommitHead) -> Range<u64> {
        let from = if head.size > self.first { self.first } else { 0 };
        self.agreed.as_ref().map_or(from, |agreed| agreed.size)..head.size
    }

    fn finding(&self, verdict: Verdict, reason: Reason) -> Finding {
        Finding::new(verdict, reason).stream(self.stream)
    }
}
