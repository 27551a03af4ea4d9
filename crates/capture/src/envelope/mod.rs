//! Change envelopes that other programs write: Debezium's JSON events and wal2json's output. Bytes in, lines of `sys_audit_log` out; no input or output here.
//!
//! **Identity.** Both are delivered at least once, in batches whose bounds shift, so each change gets an identity that does not depend on how it was
//! delivered: `<source>:<position>/<hash>`, stored in `source_position`. The position is the source's own (LSN; binlog file, position and row; commit LSN, change
//! LSN and serial number; SCN; resume token); the hash covers table, operation, key and the source's time, since rows of one COPY share an LSN and all rows of a
//! snapshot share a position. A row without a known key is told apart by its content, and identical ones in a batch by counting. A message without any position of
//! its source is known by topic, partition and offset, if they came with it.
//!
//! **Once.** Whoever stores the events asks the log itself which identities it already has ([`Event::time`] bounds the search: the source's time is part of the
//! identity), instead of comparing a position with the last one. A high-water mark would be cheaper, but it loses changes silently where positions go backwards:
//! after a fail-over to a server with other binlog files, after a restore, between interleaved PostgreSQL transactions (whose LSNs are not in commit
//! order), and when a batch arrives late. Asking costs one query a batch and is right in all of these. Events without identity ([`Decoded::unidentified`]) can be
//! stored once only under an idempotency key or a file's position.
//!
//! **Order** is the order of arrival; events of one transaction that carry `transaction.total_order` are brought into that order within a batch.
//!
//! **Context** is a transactional logical message with the prefix `muniment.context` in the same PostgreSQL transaction. It applies to the changes after it, also in
//! later batches: what must be remembered for that is [`State`], stored in the commit that holds the events. A PostgreSQL transaction that says nothing about its user
//! is a finding; other sources have no such messages, and their changes are only marked as unattributed.

mod debezium;
mod image;
mod message;
mod object;
mod place;
mod schema;
mod temporal;
mod wal2json;

use crate::change::{Attribution, Change, Context, Operation};
use crate::error::{CaptureError, Result};
use crate::finding::{Finding, FindingKind};
use image::Image;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Prefix of logical messages that say who and why.
const CONTEXT_PREFIX: &str = "muniment.context";
/// Most characters of `source_position` and of `transaction_id`.
const ID_CHARS: usize = 128;

/// Which envelopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Debezium's change events as JSON, with or without schema.
    Debezium,
    /// wal2json's output, format version 1 or 2.
    Wal2Json,
}

impl Format {
    /// Its name in paths and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debezium => "debezium",
            Self::Wal2Json => "wal2json",
        }
    }
}

/// Which columns are the key, for tables whose messages don't say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyHints {
    by_table: HashMap<String, Vec<String>>,
    other: Option<Vec<String>>,
}

impl KeyHints {
    /// Reads `id`, or `case.hoso:id` or `case.part:hoso_id,number` for one table; several are separated by semicolons.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] if a part is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        let mut hints = Self::default();
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (table, columns) = match part.rsplit_once(':') {
                Some((table, columns)) => (Some(table.trim()), columns),
                None => (None, part),
            };
            let columns: Vec<String> = columns.split(',').map(|column| column.trim().to_owned()).collect();
            if columns.iter().any(String::is_empty) || table == Some("") {
                return Err(CaptureError::Refused(format!("key: `{part}` is not of the form column or table:column,column")));
            }
            match table {
                Some(table) => drop(hints.by_table.insert(table.to_owned(), columns)),
                None => hints.other = Some(columns),
            }
        }
        Ok(hints)
    }

    /// The key columns of a table, if they are given.
    pub fn of(&self, table: &str) -> Option<&[String]> {
        self.by_table.get(table).or(self.other.as_ref()).map(Vec::as_slice)
    }
}

/// How to read a batch.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Which envelopes.
    pub format: Format,
    /// Name of the source, see [`is_source_name`].
    pub source: &'a str,
    /// Key columns that messages don't name.
    pub keys: &'a KeyHints,
    /// Time that changes get whose messages have none, µs UTC.
    pub now: i64,
}

/// What must be remembered between two batches of a source: the transaction under way and its context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Its number at the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<String>,
    /// Who and why, as the application said in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Context>,
    /// Position of its commit, where it is known before.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    /// Time of its commit, µs UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<i64>,
    /// Changes of it so far.
    #[serde(skip_serializing_if = "is_zero")]
    changes: u64,
    /// The last transaction that was reported as unattributed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reported: Option<String>,
}

impl State {
    /// The next transaction's.
    fn next(self, next: Self) -> Self {
        Self { reported: self.reported, ..next }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One change, as a line of [`Decoded::lines`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Bytes of its line, with the line end.
    pub line: std::ops::Range<usize>,
    /// Its identity; `None` if its message has no position.
    pub identity: Option<String>,
    /// Its time at the source, µs UTC; `None` if its message has none.
    pub time: Option<i64>,
    /// If its transaction could have said who made it, and did not: the table, and the transaction if it is known.
    unattributed: Option<(String, Option<String>)>,
}

/// The part of a batch that is new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Lines of `sys_audit_log`.
    pub lines: Vec<u8>,
    /// Their number.
    pub records: usize,
    /// Lines of `security_audit_log`: one for each transaction that says nothing about its user.
    pub findings: Vec<u8>,
}

/// What a batch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Lines of `sys_audit_log`.
    pub lines: Vec<u8>,
    /// Which change each line is, in order.
    pub events: Vec<Event>,
    /// Messages that are no changes: tombstones, heartbeats, marks of transactions, logical messages.
    pub ignored: u64,
    /// What to remember for the next batch.
    pub state: State,
}

impl Decoded {
    /// Whether a change has no identity, so that a repetition can't be told from a new one.
    pub fn unidentified(&self) -> bool {
        self.events.iter().any(|event| event.identity.is_none())
    }

    /// The changes that are not known yet. Of changes with the same identity the first counts.
    pub fn fresh(&mut self, known: &HashSet<String>) -> Fresh {
        let mut fresh = Fresh { lines: Vec::with_capacity(self.lines.len()), ..Fresh::default() };
        let (mut seen, mut reported) = (HashSet::new(), HashSet::new());
        for event in &self.events {
            if event.identity.as_ref().is_some_and(|identity| known.contains(identity) || !seen.insert(identity)) {
                continue;
            }
            fresh.lines.extend_from_slice(&self.lines[event.line.clone()]);
            fresh.records += 1;
            if let Some((table, transaction)) = &event.unattributed
                && reported.insert(transaction)
                && (transaction.is_none() || *transaction != self.state.reported)
            {
                finding(table, transaction.as_deref(), event.time).write(&mut fresh.findings);
                self.state.reported.clone_from(transaction);
            }
        }
        fresh
    }
}

fn finding<'a>(table: &'a str, transaction: Option<&'a str>, at: Option<i64>) -> Finding<'a> {
    Finding {
        kind: FindingKind::UnattributedWrite,
        username: None,
        ip_address: None,
        user_agent: None,
        resource: table,
        reason: transaction.unwrap_or("a transaction without a number"),
        at,
    }
}

/// Whether a name can be a source's: 1 to 64 of `a`–`z`, `0`–`9`, `_`, `:`, `.`, `-`.
pub fn is_source_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b':' | b'.' | b'-'))
}

/// Reads a batch: one message, an array of messages, or messages one after the other.
///
/// # Errors
/// [`CaptureError::Message`] names the first message that is not what its format says, by its number from 1, and the field.
pub fn decode(body: &[u8], options: &Options<'_>, state: State) -> Result<Decoded> {
    let messages = message::split(body)?;
    let mut out = Writer { options, decoded: Decoded { state, ..Decoded::default() }, repeated: HashMap::new() };
    match options.format {
        Format::Debezium => debezium::decode(&messages, &mut out)?,
        Format::Wal2Json => wal2json::decode(&messages, &mut out)?,
    }
    Ok(out.decoded)
}

/// A change before it is written.
#[derive(Clone)]
struct Row<'a> {
    /// Number of its message.
    message: u64,
    table: Cow<'a, str>,
    operation: Operation,
    /// Its key, if its message or a hint says which columns make it.
    key: Option<Cow<'a, str>>,
    old: Option<Image<'a>>,
    new: Option<Image<'a>>,
    details: Option<String>,
    time: Option<i64>,
    /// Its transaction, without the source's name.
    transaction: Option<String>,
    /// Its position, without the source's name.
    position: Option<String>,
    /// Database user, if known.
    user: Option<String>,
    /// Whether its transaction can say who made it.
    attributable: bool,
    context: Option<&'a Context>,
}

impl Row<'_> {
    /// Whether it has all values of the row that it is about, by which a row without a key is known.
    fn is_whole(&self) -> bool {
        match (self.operation, &self.old, &self.new) {
            (Operation::Update, Some(old), Some(new)) => old.has_columns_of(new),
            (Operation::Update, ..) => false,
            (Operation::Delete, old, _) => old.is_some(),
            _ => true,
        }
    }
}

/// Collects lines.
struct Writer<'o> {
    options: &'o Options<'o>,
    decoded: Decoded,
    /// How often rows that nothing tells apart came in this batch.
    repeated: HashMap<String, u32>,
}

impl Writer<'_> {
    /// Writes a change. An update of a row of which no key is known changes what it is known by, all its values: it is a row that goes and another that comes.
    fn write(&mut self, row: Row<'_>) -> Result<()> {
        let changes_key = |old: &Image<'_>, new: &Image<'_>| old.has_columns_of(new) && old.whole_key() != new.whole_key();
        match (row.operation, &row.key, &row.old, &row.new) {
            (Operation::Update, None, Some(old), Some(new)) if changes_key(old, new) => {
                self.write_one(Row { operation: Operation::Delete, new: None, ..row.clone() })?;
                self.write_one(Row { operation: Operation::Insert, old: None, ..row })
            }
            _ => self.write_one(row),
        }
    }

    fn write_one(&mut self, row: Row<'_>) -> Result<()> {
        let (old, new) = (row.old.as_ref().map(Image::to_json), row.new.as_ref().map(Image::to_json));
        let keyed = row.key.is_some() || matches!(row.operation, Operation::Truncate | Operation::Ddl);
        if !keyed && !row.is_whole() {
            let reason = "which row it is about can't be known: the message names no key (Kafka's message key, wal2json's include-pk) and has no \
                          whole row before the change; say which columns are the key";
            return Err(malformed(row.message, "key", format!("{reason}, as {}:column", row.table)));
        }
        let key = match &row.key {
            Some(key) => Cow::Borrowed(&**key),
            None => match row.new.as_ref().or(row.old.as_ref()) {
                Some(image) if !keyed => Cow::Owned(image.whole_key()),
                _ => Cow::Borrowed("*"),
            },
        };
        let identity = row.position.as_ref().map(|position| {
            let content = if keyed { None } else { Some((old.as_deref(), new.as_deref())) };
            self.identity(position, &row, &key, content)
        });
        let empty = Context::default();
        let database;
        let (context, attribution) = match (row.context, row.user.clone()) {
            (Some(context), _) if context.names_somebody() => (context, Attribution::Application),
            (context, Some(user)) => {
                database = Context { user_name: Some(user), ..context.cloned().unwrap_or_default() };
                (&database, Attribution::Database)
            }
            (context, None) => (context.unwrap_or(&empty), Attribution::None),
        };
        let transaction = row.transaction.as_ref().map(|transaction| named(self.options.source, transaction));
        let details = row.details.clone().or_else(|| match (row.operation, &row.old, &row.new) {
            (Operation::Update, Some(old), Some(new)) => new.changed_from(old),
            _ => None,
        });
        let start = self.decoded.lines.len();
        let change = Change {
            table: Cow::Borrowed(&row.table),
            operation: row.operation,
            key: Cow::Borrowed(&key),
            old: old.as_deref(),
            new: new.as_deref(),
            details: details.map(Cow::Owned),
            changed_at: row.time.unwrap_or(self.options.now),
            transaction: transaction.as_deref(),
            position: identity.as_deref(),
            context,
            attribution,
        };
        let invalid = |error: serde_json::Error| malformed(row.message, "row", error.to_string());
        change.write(&mut self.decoded.lines).map_err(invalid)?;
        let unattributed = row.attributable && attribution != Attribution::Application && row.operation != Operation::Snapshot;
        let unattributed = unattributed.then(|| (row.table.into_owned(), transaction));
        self.decoded.events.push(Event { line: start..self.decoded.lines.len(), identity, time: row.time, unattributed });
        Ok(())
    }

    fn identity(&mut self, position: &str, row: &Row<'_>, key: &str, content: Option<(Option<&str>, Option<&str>)>) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        add(&row.table);
        add(key);
        add(&format!("{:?} {:?}", row.operation, row.time));
        if matches!(row.operation, Operation::Ddl) {
            add(row.details.as_deref().unwrap_or_default());
        }
        for image in content.iter().flat_map(|(old, new)| [old, new]) {
            add(image.unwrap_or_default());
        }
        let digest = hex::encode(&hash.finalize()[..8]);
        let identity = named(self.options.source, &format!("{position}/{digest}"));
        if content.is_none() {
            return identity;
        }
        let count = self.repeated.entry(identity.clone()).or_default();
        *count += 1;
        if *count == 1 { identity } else { named(self.options.source, &format!("{position}/{digest}.{count}")) }
    }

    fn ignore(&mut self) {
        self.decoded.ignored += 1;
    }
}

/// A position or transaction with the source's name; one that is too long is known by its hash.
fn named(source: &str, id: &str) -> String {
    let plain = id.bytes().all(|byte| byte.is_ascii_graphic());
    if plain && source.len() + 1 + id.len() <= ID_CHARS {
        return format!("{source}:{id}");
    }
    format!("{source}:{}", hex::encode(&Sha256::digest(id.as_bytes())[..16]))
}

fn malformed(message: u64, field: impl Into<String>, reason: impl Into<String>) -> CaptureError {
    CaptureError::Message { message, field: field.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
