//! Following a log: which commits came after those already taken in, and the one transaction that stores how far somebody has come together with what
//! follows from it.

use crate::register::{ChangedBy, RegisterChange};

/// A follower as the commit database keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowerRow {
    /// How far it has come; empty at the beginning.
    pub position: String,
    /// What it remembers of the records before.
    pub state: String,
}

/// One commit's records in one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCommit {
    /// The stream's size after it.
    pub size: u64,
    /// Number of the commit.
    pub number: u64,
}

/// A step of a follower: all of it is stored, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Advance {
    /// The follower.
    pub name: String,
    /// The position that it has now; if it has another, nothing is stored.
    pub from: String,
    /// What it has afterwards.
    pub to: FollowerRow,
    /// What follows for registers.
    pub changes: Vec<RegisterChange>,
    /// Who changes them.
    pub by: ChangedBy,
    /// What follows for logs: the log, and one line of JSON. They wait in the outbox for their commit.
    pub records: Vec<(&'static str, String)>,
    /// Now, µs UTC.
    pub time: i64,
}

/// A line that waits for its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number; numbers rise and are never used again.
    pub id: i64,
    /// The log it goes to.
    pub log: String,
    /// The record, one line of JSON.
    pub line: String,
}
