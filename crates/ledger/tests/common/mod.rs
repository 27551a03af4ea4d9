//! A small ledger in memory, with two streams, rotations of its key, an erasure and a disposal.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;

use muniment_ledger::bundle::{Column, Kind};
use muniment_ledger::checkpoint::{self, Checkpoint, SigningKey};
use muniment_ledger::meta::{MetaLeaf, StreamHead};
use muniment_ledger::proof::{IncludedLeaf, Proof, Rotation};
use muniment_ledger::verify::{Checkpoints, NamedNote};
use muniment_ledger::{
    Frontier, Hash, NO_HASH, NodeSource, PartitionKey, Salt, StreamId, chain, compact_range, inclusion_path, leaf_hash, payload_hashes,
};

pub const ORIGIN: &str = "audit.example.org/1c0f";
pub const STREAM: &str = "sys_audit_log/7y";
pub const OTHER: &str = "auth_audit_log/5y";

/// A stream's columns.
#[derive(Clone, Default)]
pub struct Records {
    pub ids: Vec<i64>,
    pub recorded_at: Vec<i64>,
    pub payloads: Vec<Vec<u8>>,
    pub salts: Vec<Salt>,
    pub erased: Vec<Option<Hash>>,
    pub hashes: Vec<Hash>,
}

pub struct Book {
    pub keys: Vec<SigningKey>,
    pub streams: BTreeMap<&'static str, Records>,
    pub leaves: Vec<Vec<u8>>,
    pub rotations: Vec<(u64, String)>,
    time: i64,
}

impl Book {
    pub fn new() -> Self {
        let key = SigningKey::from_bytes(ORIGIN, &[1; 32]).unwrap();
        let mut book = Self { keys: vec![], streams: BTreeMap::new(), leaves: vec![], rotations: vec![], time: 1_767_225_600_000_000 };
        book.push(|time| MetaLeaf::Key { time, vkey: key.verifier_key().to_string(), previous: None });
        book.keys.push(key);
        for stream in [STREAM, OTHER] {
            book.push(|time| MetaLeaf::Schema { time, log: log_of(stream), columns: columns() });
        }
        book
    }

    pub fn push(&mut self, leaf: impl FnOnce(i64) -> MetaLeaf) {
        self.time += 1_000;
        self.leaves.push(leaf(self.time).encode());
    }

    /// Commits `n` records to each stream.
    pub fn commit(&mut self, counts: &[(&'static str, usize)]) {
        let time = self.time + 1_000;
        let mut heads = Vec::new();
        for (stream, count) in counts {
            let records = self.streams.entry(stream).or_default();
            records.grow(stream, *count, time);
            let root = root_of(&records.hashes);
            heads.push(StreamHead { stream: (*stream).to_owned(), size: records.hashes.len() as u64, root });
        }
        self.push(|time| MetaLeaf::Commit { time, streams: heads });
    }

    pub fn rotate(&mut self) {
        let old = self.keys.last().unwrap().clone();
        let new = SigningKey::from_bytes(ORIGIN, &[self.keys.len() as u8 + 1; 32]).unwrap();
        let (vkey, previous) = (new.verifier_key().to_string(), Some(old.verifier_key().to_string()));
        self.push(|time| MetaLeaf::Key { time, vkey, previous });
        self.rotations.push((self.leaves.len() as u64, self.note(self.leaves.len(), &[&old, &new])));
        self.keys.push(new);
    }

    pub fn erase(&mut self, stream: &'static str, index: usize) {
        let records = self.streams.get_mut(stream).unwrap();
        let mut hashes = Vec::new();
        let payload = &records.payloads[index];
        payload_hashes(&records.salts[index..=index], payload, &[0, payload.len()], &mut hashes);
        records.erased[index] = Some(hashes[0]);
        records.payloads[index] = vec![0xa0];
        records.salts[index] = [0; 16];
        let indexes = vec![index as u64];
        self.push(|time| MetaLeaf::Erasure { time, stream: stream.to_owned(), indexes, authority: "request 12".to_owned() });
    }

    pub fn dispose(&mut self, stream: &'static str, end: u64) {
        self.push(|time| MetaLeaf::Disposal { time, stream: stream.to_owned(), end, policy: "7 years".to_owned() });
    }

    pub fn leaf_hashes(&self) -> Vec<Hash> {
        self.leaves.iter().map(|leaf| leaf_hash(leaf)).collect()
    }

    pub fn note(&self, size: usize, keys: &[&SigningKey]) -> String {
        let root = root_of(&self.leaf_hashes()[..size]);
        checkpoint::sign(&Checkpoint { origin: ORIGIN.to_owned(), size: size as u64, root }, keys).unwrap()
    }

    pub fn newest(&self) -> String {
        self.note(self.leaves.len(), &[self.keys.last().unwrap()])
    }

    pub fn checkpoints(&self) -> Checkpoints {
        let rotation = |(size, note): &(u64, String)| named(&format!("checkpoints/{size}"), note);
        Checkpoints {
            origin: ORIGIN.to_owned(),
            newest: named("checkpoint", &self.newest()),
            rotations: self.rotations.iter().map(rotation).collect(),
            published: vec![],
        }
    }

    pub fn proof(&self, stream: &str, index: usize, commit: usize) -> Proof {
        let records = &self.streams[stream];
        let MetaLeaf::Commit { streams, .. } = MetaLeaf::decode(&self.leaves[commit]).unwrap() else { panic!() };
        let size = streams.iter().find(|head| head.stream == stream).unwrap().size;
        let rotation = |(size, note): &(u64, String)| Rotation {
            checkpoint: note.clone(),
            number: size - 1,
            leaf: self.leaves[*size as usize - 1].clone(),
            path: path(*size - 1, &self.leaf_hashes()[..*size as usize]),
        };
        let included = |number: usize| IncludedLeaf {
            number: number as u64,
            leaf: self.leaves[number].clone(),
            path: path(number as u64, &self.leaf_hashes()),
        };
        Proof {
            format: "muniment-proof/1".to_owned(),
            origin: ORIGIN.to_owned(),
            log: log_of(stream),
            stream: stream.to_owned(),
            stream_index: index as u64,
            id: records.ids[index],
            recorded_at: records.recorded_at[index],
            payload: records.payloads[index].clone(),
            salt: records.salts[index],
            previous_hash: if index == 0 { NO_HASH } else { records.hashes[index - 1] },
            blockchain_hash: records.hashes[index],
            stream_path: path(index as u64, &records.hashes[..size as usize]),
            commit: included(commit),
            schema: included(if stream == STREAM { 1 } else { 2 }),
            checkpoint: self.newest(),
            rotations: self.rotations.iter().map(rotation).collect(),
        }
    }
}

impl Records {
    fn grow(&mut self, stream: &str, count: usize, time: i64) {
        let first = self.ids.len();
        let key = PartitionKey::new(&[9; 32]);
        for i in first..first + count {
            let id = 1 + 3 * i as i64;
            self.ids.push(id);
            self.recorded_at.push(time);
            self.payloads.push([b"\xa2\x61a\x19".as_slice(), &(1000 + i as u16).to_be_bytes(), b"\x61b\xf5"].concat());
            self.salts.push(key.salt(id));
            self.erased.push(None);
        }
        let (bytes, offsets) = self.flat(first..first + count);
        let mut payloads = Vec::new();
        payload_hashes(&self.salts[first..], &bytes, &offsets, &mut payloads);
        let previous = self.hashes.last().copied().unwrap_or(NO_HASH);
        let id = StreamId::new(ORIGIN, stream);
        self.hashes.extend(chain(id, first as u64, &self.ids[first..], time, &payloads, previous));
    }

    pub fn flat(&self, range: std::ops::Range<usize>) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut offsets) = (Vec::new(), vec![0]);
        for payload in &self.payloads[range] {
            bytes.extend(payload);
            offsets.push(bytes.len());
        }
        (bytes, offsets)
    }
}

pub fn log_of(stream: &str) -> String {
    stream.split_once('/').unwrap().0.to_owned()
}

/// The data columns of both logs.
pub fn columns() -> Vec<Column> {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind, precision: None, scale: None };
    vec![column("a", Kind::Int), column("b", Kind::Bool)]
}

pub fn named(name: &str, note: &str) -> NamedNote {
    NamedNote { name: name.to_owned(), note: note.to_owned() }
}

pub fn root_of(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    frontier.extend(hashes);
    frontier.root()
}

struct Leaves<'a>(&'a [Hash]);

impl NodeSource for Leaves<'_> {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        let leaves = &self.0[(index << level) as usize..((index + 1) << level) as usize];
        Ok(compact_range(index << level, leaves)[0].hash)
    }
}

pub fn path(index: u64, leaves: &[Hash]) -> Vec<Hash> {
    let Ok(path) = inclusion_path(index, leaves.len() as u64, &Leaves(leaves));
    path
}
