//! The meta-log against the checkpoints, and what it says of each stream.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;

use crate::bundle::{self, Column, Scope};
use crate::checkpoint::{self, Checkpoint, VerifierKey};
use crate::meta::MetaLeaf;
use crate::verify::{Finding, Reason, Verdict};
use crate::{Error, Frontier, Hash};

/// A signed note and the name of the file that it is in.
#[derive(Clone, Debug)]
pub struct NamedNote {
    /// The file's name, for findings.
    pub name: String,
    /// The note.
    pub note: String,
}

/// The checkpoints of a ledger.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// The ledger's name.
    pub origin: String,
    /// The newest.
    pub newest: NamedNote,
    /// Those of key rotations, in any order.
    pub rotations: Vec<NamedNote>,
    /// Others that were published, if the verifier has any: the ledger must contain them all.
    pub published: Vec<NamedNote>,
}

/// A commit of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitHead {
    /// Position of the commit leaf in the meta-log.
    pub number: u64,
    /// The stream's size after it.
    pub size: u64,
    /// The stream's root after it.
    pub root: Hash,
}

/// What the meta-log says of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHistory {
    /// Its commits, in order; sizes increase.
    pub heads: Vec<CommitHead>,
    /// Records below this index were disposed of.
    pub disposed: u64,
    /// Indexes of the records whose payloads were erased.
    pub erased: BTreeSet<u64>,
}

impl StreamHistory {
    /// The stream's size after its newest commit.
    pub fn size(&self) -> u64 {
        self.heads.last().map_or(0, |head| head.size)
    }

    /// The sizes of its commits, ascending.
    pub fn sizes(&self) -> Vec<u64> {
        self.heads.iter().map(|head| head.size).collect()
    }
}

/// What of a stream is at hand: the records `[first, end)` of `size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The stream's name.
    pub stream: String,
    /// What its size is said to be.
    pub size: u64,
    /// Index of the first record.
    pub first: u64,
    /// One more than the index of the last.
    pub end: u64,
}

/// What a trusted key vouches for.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The newest checkpoint.
    pub checkpoint: Checkpoint,
    /// All keys that are trusted: the given one and those that rotations led to.
    pub keys: Vec<VerifierKey>,
    /// The data columns of each log, by its newest schema leaf.
    pub columns: BTreeMap<String, Vec<Column>>,
    /// Each stream's history.
    pub streams: BTreeMap<String, StreamHistory>,
}

impl Ledger {
    /// Compares listed data columns with those that were signed.
    ///
    /// # Errors
    ///
    /// The first log whose columns are others.
    pub fn check_columns<'a>(&self, listed: impl IntoIterator<Item = (&'a String, &'a Vec<Column>)>) -> Result<(), Finding> {
        let differs = |(log, columns): &(&String, &Vec<Column>)| self.columns.get(*log) != Some(*columns);
        match listed.into_iter().find(differs) {
            Some((log, _)) => Err(Finding::new(Verdict::Altered, Reason::Columns { log: log.clone() })),
            None => Ok(()),
        }
    }

    /// Compares the streams at hand with those that were committed. Returns what is missing or was never committed.
    pub fn check_extents(&self, scope: Scope, extents: &[Extent]) -> Vec<Finding> {
        let listed: BTreeMap<&str, &Extent> = extents.iter().map(|extent| (extent.stream.as_str(), extent)).collect();
        let mut findings = Vec::new();
        for (stream, history) in self.streams.iter().filter(|(_, history)| !history.heads.is_empty()) {
            let finding = match listed.get(stream.as_str()) {
                Some(extent) => check_extent(scope, extent, history),
                None if scope == Scope::All && history.size() > 0 => {
                    Some(Finding::new(Verdict::Missing, Reason::NoStream { size: history.size() }))
                }
                None => None,
            };
            findings.extend(finding.map(|finding| finding.stream(stream)));
        }
        for stream in listed.into_keys() {
            if self.streams.get(stream).is_none_or(|history| history.heads.is_empty()) {
                findings.push(Finding::new(Verdict::Altered, Reason::UnknownStream).stream(stream));
            }
        }
        findings
    }
}

fn check_extent(scope: Scope, extent: &Extent, history: &StreamHistory) -> Option<Finding> {
    let (found, expected) = (extent.size, history.size());
    let Extent { first, end, .. } = *extent;
    if found != expected {
        let verdict = if found < expected { Verdict::Missing } else { Verdict::Altered };
        return Some(Finding::new(verdict, Reason::StreamSize { found, expected }));
    }
    if first > end || end > expected {
        return Some(Finding::new(Verdict::Malformed, Reason::Nodes));
    }
    if scope == Scope::Selection {
        return None;
    }
    let absent = |records| Some(Finding::new(Verdict::Missing, Reason::Absent).records(records));
    if first > history.disposed {
        return absent(history.disposed..first);
    }
    if end < expected { absent(end..expected) } else { None }
}

/// Takes the leaves of the meta-log, in order.
#[derive(Debug)]
pub struct MetaVerifier {
    newest: Note,
    others: Vec<Note>,
    published: Vec<Note>,
    frontier: Frontier,
    /// Roots at the sizes of the checkpoints; none yet where the leaves have not come so far.
    roots: BTreeMap<u64, Option<Hash>>,
    rules: Rules,
    /// The first leaf that cannot be read or breaks a rule; those after it are not taken.
    fault: Option<Finding>,
}

#[derive(Debug)]
struct Note {
    named: NamedNote,
    checkpoint: Checkpoint,
}

impl MetaVerifier {
    /// Reads the checkpoints. Who signed them is asked in [`finish`](Self::finish), when the key rotations are known.
    ///
    /// # Errors
    ///
    /// If one cannot be read, or one of the ledger's own is of another ledger.
    pub fn new(checkpoints: Checkpoints) -> Result<Self, Finding> {
        let Checkpoints { origin, newest, rotations, published } = checkpoints;
        let own = |named| Note::read(named).and_then(|note| note.of_origin(&origin));
        let newest = own(newest)?;
        let mut others = rotations.into_iter().map(own).collect::<Result<Vec<_>, _>>()?;
        others.sort_by_key(|note| note.checkpoint.size);
        let mut published = published.into_iter().map(Note::read).collect::<Result<Vec<_>, _>>()?;
        published.sort_by_key(|note| note.checkpoint.size);
        let all = others.iter().chain(&published).chain([&newest]);
        let roots = all.map(|note| (note.checkpoint.size, None)).collect();
        Ok(Self { newest, others, published, frontier: Frontier::new(), roots, rules: Rules::new(origin), fault: None })
    }

    /// Number of leaves so far.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Takes the next leaf. What is wrong with it is told by [`finish`](Self::finish), in its turn.
    pub fn add(&mut self, leaf: &[u8]) {
        if self.fault.is_none() {
            match MetaLeaf::decode(leaf) {
                Ok(decoded) => self.take(leaf, decoded),
                Err(error) => self.refuse(&error),
            }
        }
    }

    /// Takes the leaves of a CBOR sequence.
    pub fn add_sequence(&mut self, mut leaves: &[u8]) {
        while self.fault.is_none() && !leaves.is_empty() {
            match MetaLeaf::decode_first(leaves) {
                Ok((decoded, used)) => {
                    let (leaf, rest) = leaves.split_at(used);
                    self.take(leaf, decoded);
                    leaves = rest;
                }
                Err(error) => self.refuse(&error),
            }
        }
    }

    fn refuse(&mut self, error: &Error) {
        let reason = Reason::Leaf { number: self.size(), detail: chain_of(error) };
        self.fault = Some(Finding::new(Verdict::Malformed, reason));
    }

    fn take(&mut self, bytes: &[u8], leaf: MetaLeaf) {
        let number = self.size();
        if let Err(rule) = self.rules.take(number, leaf) {
            self.fault = Some(Finding::new(Verdict::Malformed, Reason::Rule { number, rule }));
            return;
        }
        self.frontier.append(crate::leaf_hash(bytes));
        if let Some(root) = self.roots.get_mut(&self.frontier.size()) {
            *root = Some(self.frontier.root());
        }
    }

    /// Checks everything, in the order of format §3.1, steps 1 and 2, starting from the key that the caller trusts.
    ///
    /// # Errors
    ///
    /// The first thing that does not hold.
    pub fn finish(self, trusted: &VerifierKey) -> Result<Ledger, Finding> {
        let own: Vec<&Note> = self.others.iter().chain([&self.newest]).collect();
        let keys = self.known_keys(&own, trusted);
        self.check_unsigned(&own, &keys)?;
        if let Some(finding) = self.fault {
            return Err(finding);
        }
        let found = self.frontier.size();
        for note in own.iter().rev() {
            let expected = note.checkpoint.size;
            let verdict = if found < expected { Verdict::Cut } else { Verdict::Altered };
            if found < expected || (found > expected && expected == self.newest.checkpoint.size) {
                return Err(note.finding(verdict, Reason::LeafCount { found, expected }));
            }
        }
        own.iter().try_for_each(|note| self.check_root(note))?;
        own.iter().try_for_each(|note| self.check_accepted(note, &keys))?;
        for note in &self.published {
            note.check_signed(&keys)?;
            if note.checkpoint.size > found {
                let reason = Reason::OlderThanPublished { published: note.checkpoint.size, size: found };
                return Err(note.finding(Verdict::Cut, reason));
            }
            self.check_root(note)?;
            self.check_accepted(note, &keys)?;
        }
        let Rules { streams, columns, .. } = self.rules;
        Ok(Ledger { checkpoint: self.newest.checkpoint, keys, columns, streams })
    }

    /// The given key and all that accepted checkpoints lead to (format §2.2).
    fn known_keys(&self, notes: &[&Note], trusted: &VerifierKey) -> Vec<VerifierKey> {
        let mut known = vec![trusted.clone()];
        loop {
            let before = known.len();
            for note in notes {
                if !self.accepts(note, &known) {
                    continue;
                }
                for (_, key) in self.rules.keys.iter().filter(|(number, _)| *number < note.checkpoint.size) {
                    if !known.contains(key) {
                        known.push(key.clone());
                    }
                }
            }
            if known.len() == before {
                return known;
            }
        }
    }

    /// Whether the leaves have the checkpoint's root, and the key in force at its size, at a rotation also the key before it, signed it, one of
    /// which is known.
    fn accepts(&self, note: &Note, known: &[VerifierKey]) -> bool {
        let size = note.checkpoint.size;
        let keys = &self.rules.keys[..self.rules.keys.partition_point(|(number, _)| *number < size)];
        let at_rotation = keys.len() > 1 && keys.last().is_some_and(|(number, _)| number + 1 == size);
        let required = &keys[keys.len().saturating_sub(if at_rotation { 2 } else { 1 })..];
        !required.is_empty()
            && self.has_root(note)
            && required.iter().all(|(_, key)| note.is_signed_by(key))
            && required.iter().any(|(_, key)| known.contains(key))
    }

    fn has_root(&self, note: &Note) -> bool {
        self.roots.get(&note.checkpoint.size) == Some(&Some(note.checkpoint.root))
    }

    /// A checkpoint that no known key signed is forged, unless the leaves, in which another key may be named, are not those of a
    /// checkpoint that one did sign.
    fn check_unsigned(&self, notes: &[&Note], keys: &[VerifierKey]) -> Result<(), Finding> {
        let (signed, unsigned): (Vec<&Note>, Vec<&Note>) = notes.iter().copied().partition(|note| note.check_signed(keys).is_ok());
        match unsigned.first() {
            Some(note) if signed.iter().all(|note| self.has_root(note)) => note.check_signed(keys),
            _ => Ok(()),
        }
    }

    fn check_root(&self, note: &Note) -> Result<(), Finding> {
        if self.has_root(note) {
            return Ok(());
        }
        Err(note.finding(Verdict::Altered, Reason::MetaRoot { size: note.checkpoint.size }))
    }

    fn check_accepted(&self, note: &Note, keys: &[VerifierKey]) -> Result<(), Finding> {
        note.check_signed(keys)?;
        if self.accepts(note, keys) { Ok(()) } else { Err(note.finding(Verdict::Forged, Reason::NotInForce)) }
    }
}

impl Note {
    fn read(named: NamedNote) -> Result<Self, Finding> {
        match checkpoint::parse_unverified(&named.note) {
            Ok(checkpoint) => Ok(Self { named, checkpoint }),
            Err(error) => Err(Finding::new(Verdict::Malformed, Reason::Unreadable(chain_of(&error))).file(&named.name)),
        }
    }

    fn of_origin(self, origin: &str) -> Result<Self, Finding> {
        if self.checkpoint.origin == origin {
            return Ok(self);
        }
        let reason = Reason::Origin { found: self.checkpoint.origin.clone(), expected: origin.to_owned() };
        Err(self.finding(Verdict::Malformed, reason))
    }

    fn is_signed_by(&self, key: &VerifierKey) -> bool {
        checkpoint::open(&self.named.note, std::slice::from_ref(key)).is_ok()
    }

    /// Whether one of these keys signed it.
    fn check_signed(&self, keys: &[VerifierKey]) -> Result<(), Finding> {
        if keys.iter().any(|key| self.is_signed_by(key)) {
            return Ok(());
        }
        let reason = match checkpoint::open(&self.named.note, keys) {
            Err(Error::Note(signed_note::NoteError::InvalidSignature { .. })) => Reason::BadSignature,
            _ => Reason::NotTrusted,
        };
        Err(self.finding(Verdict::Forged, reason))
    }

    fn finding(&self, verdict: Verdict, reason: Reason) -> Finding {
        Finding::new(verdict, reason).file(&self.named.name)
    }
}

/// What the leaves say, and the rules between them (format §2.1).
#[derive(Debug)]
struct Rules {
    origin: String,
    time: i64,
    /// Number and key of each key leaf.
    keys: Vec<(u64, VerifierKey)>,
    columns: BTreeMap<String, Vec<Column>>,
    streams: BTreeMap<String, StreamHistory>,
}

impl Rules {
    fn new(origin: String) -> Self {
        Self { origin, time: i64::MIN, keys: Vec::new(), columns: BTreeMap::new(), streams: BTreeMap::new() }
    }

    fn take(&mut self, number: u64, leaf: MetaLeaf) -> Result<(), &'static str> {
        if leaf.time() < self.time {
            return Err("its time is before that of the leaf before it");
        }
        self.time = leaf.time();
        match leaf {
            MetaLeaf::Key { vkey, previous, .. } => return self.key(number, &vkey, previous.as_deref()),
            _ if number == 0 => return Err("leaf 0 is not a key"),
            MetaLeaf::Schema { log, columns, .. } => return self.schema(log, columns),
            MetaLeaf::Commit { streams, .. } => {
                for head in streams {
                    let log = bundle::log_of_stream(&head.stream).ok_or("it names a stream that cannot be one")?;
                    if !self.columns.contains_key(log) {
                        return Err("no schema leaf has the columns of a stream's log");
                    }
                    let history = self.streams.entry(head.stream).or_default();
                    if head.size <= history.size() {
                        return Err("a stream does not grow");
                    }
                    history.heads.push(CommitHead { number, size: head.size, root: head.root });
                }
            }
            MetaLeaf::Heartbeat { .. } => {}
            MetaLeaf::Disposal { stream, end, .. } => {
                let history = self.streams.get_mut(&stream).ok_or("no commit names its stream")?;
                if end > history.size() || end < history.disposed {
                    return Err("it disposes of records that are not there");
                }
                history.disposed = end;
            }
            MetaLeaf::Erasure { stream, indexes, .. } => {
                let history = self.streams.get_mut(&stream).ok_or("no commit names its stream")?;
                if indexes.last().is_some_and(|last| *last >= history.size()) {
                    return Err("it erases records that are not there");
                }
                history.erased.extend(indexes);
            }
        }
        Ok(())
    }

    fn key(&mut self, number: u64, vkey: &str, previous: Option<&str>) -> Result<(), &'static str> {
        if previous.is_some() != (number > 0) || previous != self.keys.last().map(|(_, key)| key.as_str()) {
            return Err("leaf 0 is the first key, every later key names the one before it");
        }
        match vkey.parse::<VerifierKey>() {
            Ok(key) if key.origin() == self.origin && key.as_str() == vkey => self.keys.push((number, key)),
            _ => return Err("its key is not one of this ledger"),
        }
        Ok(())
    }

    fn schema(&mut self, log: String, columns: Vec<Column>) -> Result<(), &'static str> {
        if !bundle::is_log_name(&log) {
            return Err("its log cannot be one");
        }
        bundle::check_columns(&columns)?;
        let before = self.columns.entry(log).or_default();
        if !columns.starts_with(before) {
            return Err("it changes or removes a column");
        }
        *before = columns;
        Ok(())
    }
}

/// An error and its sources in one line.
fn chain_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
