//! A transaction on its way through: the lines of its changes, and the findings at its end.
//!
//! A transaction of any size passes in constant memory. Protocol version 1 sends a transaction only once it is committed, and names commit time and position
//! before its first change, so each change is written as it comes and a batch may end anywhere within.

use crate::change::{LineHead, LineTail, Operation, key_text};
use crate::error::{CaptureError, Result};
use crate::finding::{Finding, FindingKind};
use crate::postgres::attribution::{Session, Speaker};
use crate::postgres::pgoutput::{Old, Truncate, Tuple};
use crate::postgres::position::lsn_text;
use crate::postgres::relations::{Relations, Table, TableColumn};
use crate::postgres::unattributed::Quota;
use crate::row::{Value, row_json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

/// Tables that a finding names.
const TABLES_NAMED: usize = 20;
/// Most bytes of rows that wait for others whose keys have changed, too.
const MOVED_BYTES: usize = 16 << 20;
/// Most bytes of a DDL message.
const MAX_DDL_BYTES: usize = 1 << 20;

/// Lines of changes, to be stored together.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub changes: Vec<u8>,
    pub records: usize,
    pub findings: Vec<u8>,
    /// Whether DDL is among the changes.
    pub ddl: bool,
}

/// A transaction that is being read.
pub(super) struct Transaction {
    pub xid: u32,
    pub commit_lsn: u64,
    /// µs UTC.
    pub commit_time: i64,
    pub speaker: Speaker,
    /// Whether its session has been looked up.
    pub session_sought: bool,
    /// Number of the next change.
    ordinal: u64,
    /// The last change handed out before.
    skip_through: Option<u64>,
    name: String,
    position: String,
    position_prefix: usize,
    tail: Option<LineTail>,
    unattributed: u64,
    unattributed_tables: BTreeSet<String>,
    malformed: Option<String>,
    /// Tables whose rows are others without row changes, with what happened to them if they were not rewritten.
    rewritten: BTreeMap<String, Option<String>>,
    /// Rows whose key has changed, under the new one: they come after the last row whose old key goes.
    moved: Vec<Moved>,
    moved_bytes: usize,
    /// Places in `moved`, by the new key.
    moved_keys: HashMap<String, usize>,
}

/// A row under its new key.
struct Moved {
    table: String,
    key: String,
    new: Vec<u8>,
    details: String,
}

/// Buffers that are used again for each change.
#[derive(Default)]
pub(super) struct Scratch {
    old: Vec<u8>,
    new: Vec<u8>,
    details: String,
}

/// What a `muniment.ddl` message says.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Ddl {
    tag: Option<String>,
    statement: Option<String>,
    /// The session that did it.
    #[serde(flatten)]
    session: Session,
    /// Tables that are captured, with their schemas.
    tables: Vec<String>,
    /// Those of them whose rows were rewritten.
    rewritten: Vec<String>,
    /// Names under which there are no rows any more: of tables that were dropped, or have another name.
    dropped: Vec<String>,
    /// What happened to those whose rows were rewritten, if it is something else.
    reason: Option<String>,
}

impl Transaction {
    /// Begins a transaction whose changes up to `skip_through` have been handed out before.
    pub fn new(source: &str, timeline: u32, xid: u32, commit_lsn: u64, commit_time: i64, skip_through: Option<u64>) -> Self {
        let lsn = lsn_text(commit_lsn);
        let position = format!("{source}:{timeline}/{lsn}/");
        Self {
            xid,
            commit_lsn,
            commit_time,
            speaker: Speaker::default(),
            session_sought: false,
            ordinal: 0,
            skip_through,
            name: format!("{source}:{xid}@{lsn}"),
            position_prefix: position.len(),
            position,
            tail: None,
            unattributed: 0,
            unattributed_tables: BTreeSet::new(),
            malformed: None,
            rewritten: BTreeMap::new(),
            moved: Vec::new(),
            moved_keys: HashMap::new(),
            moved_bytes: 0,
        }
    }

    /// Number of the last change, if there was one.
    pub fn last_ordinal(&self) -> Option<u64> {
        self.ordinal.checked_sub(1)
    }

    /// Says that what is known of who made it has changed.
    pub fn speaker_changed(&mut self) {
        self.tail = None;
    }

    /// One statement may give each row the key of another: the old keys have to go before the new ones come, or the row that goes would be the one that came.
    fn key_changed(&mut self, old: LineHead<'_>, moved: Moved, known: &[String], out: &mut Lines) {
        if self.moved.last().is_some_and(|last| last.table != moved.table) || self.moved_bytes > MOVED_BYTES {
            self.settle(known, out);
        }
        self.write_line(old, known, out);
        self.moved_bytes += moved.new.len() + 2 * moved.key.len() + moved.details.len();
        self.moved_keys.insert(moved.key.clone(), self.moved.len());
        self.moved.push(moved);
    }

    /// Whether a row that changes its key is one that has just come under this key, by another statement: it is the same in all that is known of it.
    fn moves_again(&self, key: &str, old: Option<&[u8]>) -> bool {
        let waiting = self.moved_keys.get(key).and_then(|at| self.moved.get(*at));
        waiting.is_some_and(|waiting| old.is_none_or(|old| waiting.new == old))
    }

    /// Writes the update of a row that keeps its key. It may be one of a statement that has only given others new ones: those go on waiting, unless it is one of them.
    fn stayed(&mut self, head: LineHead<'_>, known: &[String], out: &mut Lines) {
        if self.moved.last().is_some_and(|last| last.table != head.table) || self.moved_keys.contains_key(head.key) {
            self.settle(known, out);
        }
        self.write_line(head, known, out);
    }

    /// Writes what waits for other rows: what comes now is of another statement.
    pub fn settle(&mut self, known: &[String], out: &mut Lines) {
        self.moved_bytes = 0;
        self.moved_keys.clear();
        for Moved { table, key, new, details } in std::mem::take(&mut self.moved) {
            let (operation, details) = (Operation::Insert, Some(details.as_str()));
            self.write_line(
                LineHead { table: &table, operation, key: &key, old: None, new: Some(&new), details, position: None },
                known,
                out,
            );
        }
    }

    fn line(&mut self, head: LineHead<'_>, known: &[String], out: &mut Lines) {
        self.settle(known, out);
        self.write_line(head, known, out);
    }

    fn write_line(&mut self, head: LineHead<'_>, known: &[String], out: &mut Lines) {
        let ordinal = self.ordinal;
        self.ordinal += 1;
        if self.speaker.is_unattributed(known) {
            self.unattributed += 1;
            if self.unattributed_tables.len() < TABLES_NAMED && !self.unattributed_tables.contains(head.table) {
                self.unattributed_tables.insert(head.table.to_owned());
            }
            if self.malformed.is_none() {
                self.malformed = self.speaker.malformed().map(str::to_owned);
            }
        }
        if self.skip_through.is_some_and(|last| ordinal <= last) {
            return;
        }
        let tail = match &mut self.tail {
            Some(tail) => tail,
            none => {
                let (context, attribution) = self.speaker.attribution();
                none.insert(LineTail::new(&context, attribution, self.commit_time, Some(&self.name)))
            }
        };
        self.position.truncate(self.position_prefix);
        // Writing to a string can't fail.
        let _ = write!(self.position, "{ordinal}");
        let head = LineHead { position: Some(&self.position), ..head };
        head.write(tail, &mut out.changes);
        out.records += 1;
    }

    /// A row that came.
    pub fn insert(&mut self, table: &Table, new: Tuple<'_>, known: &[String], scratch: &mut Scratch, out: &mut Lines) -> Result<()> {
        let new = values(table, new)?;
        write_row(table, &new, |_| true, &mut scratch.new);
        let key = key(table, &new);
        self.line(head(table, Operation::Insert, &key, None, Some(&scratch.new), None), known, out);
        Ok(())
    }

    /// A row that went.
    pub fn delete(&mut self, table: &Table, old: Old<'_>, known: &[String], scratch: &mut Scratch, out: &mut Lines) -> Result<()> {
        let values = values(table, old.tuple)?;
        write_row(table, &values, |column| !old.key_only || column.identity, &mut scratch.old);
        let key = key(table, &values);
        self.line(head(table, Operation::Delete, &key, Some(&scratch.old), None, None), known, out);
        Ok(())
    }

    /// A row that changed. If its key did, the row of the old key goes and one of the new key comes.
    pub fn update(
        &mut self,
        table: &Table,
        old: Option<Old<'_>>,
        new: Tuple<'_>,
        known: &[String],
        scratch: &mut Scratch,
        out: &mut Lines,
    ) -> Result<()> {
        let mut new = values(table, new)?;
        let Some(old) = old else {
            write_row(table, &new, |_| true, &mut scratch.new);
            let key = key(table, &new);
            self.line(head(table, Operation::Update, &key, None, Some(&scratch.new), None), known, out);
            return Ok(());
        };
        let sent = |column: &TableColumn| !old.key_only || column.identity;
        let old_values = values(table, old.tuple)?;
        for ((new, old), column) in new.iter_mut().zip(&old_values).zip(&table.columns) {
            if *new == Value::Unchanged && sent(column) {
                *new = *old;
            }
        }
        write_row(table, &old_values, sent, &mut scratch.old);
        write_row(table, &new, |_| true, &mut scratch.new);
        scratch.details.clear();
        if !old.key_only {
            changed_columns(table, &old_values, &new, &mut scratch.details);
        }
        let (old_key, new_key) = (key(table, &old_values), key(table, &new));
        if old_key == new_key {
            let details = Some(scratch.details.as_str()).filter(|details| !details.is_empty());
            self.stayed(head(table, Operation::Update, &new_key, Some(&scratch.old), Some(&scratch.new), details), known, out);
            return Ok(());
        }
        if self.moves_again(&old_key, (!old.key_only).then_some(&scratch.old)) {
            self.settle(known, out);
        }
        let to = format!("key changed to {new_key}");
        let from = format!("key changed from {old_key}; {}", scratch.details);
        let from = from.trim_end_matches("; ").to_owned();
        let moved = Moved { table: table.name.clone(), key: new_key.into_owned(), new: scratch.new.clone(), details: from };
        self.key_changed(head(table, Operation::Delete, &old_key, Some(&scratch.old), None, Some(&to)), moved, known, out);
        Ok(())
    }

    /// Tables that were emptied.
    pub fn truncate(&mut self, relations: &Relations, truncate: &Truncate, known: &[String], out: &mut Lines) -> Result<()> {
        let details = match (truncate.cascade, truncate.restart_identity) {
            (false, false) => None,
            (true, false) => Some("CASCADE"),
            (false, true) => Some("RESTART IDENTITY"),
            (true, true) => Some("RESTART IDENTITY CASCADE"),
        };
        for oid in &truncate.relations {
            self.line(head(relations.table(*oid)?, Operation::Truncate, "*", None, None, details), known, out);
        }
        Ok(())
    }

    /// A `muniment.ddl` message: a record for each table. Gives the tables whose rows were rewritten.
    pub fn ddl(&mut self, content: &[u8], known: &[String], out: &mut Lines) -> Vec<String> {
        let content = &content[..content.len().min(MAX_DDL_BYTES)];
        let mut ddl: Ddl = serde_json::from_slice(content)
            .unwrap_or_else(|_| Ddl { statement: Some(String::from_utf8_lossy(content).into_owned()), ..Ddl::default() });
        if ddl.session.user.is_some() && self.speaker.wants_session() {
            self.speaker.set_session(ddl.session);
            self.tail = None;
        }
        if ddl.tables.is_empty() {
            ddl.tables.push("*".into());
        }
        let details = ddl.statement.or(ddl.tag);
        for table in &ddl.tables {
            let (operation, details) = (Operation::Ddl, details.as_deref());
            self.line(LineHead { table, operation, key: "*", old: None, new: None, details, position: None }, known, out);
        }
        for table in &ddl.dropped {
            let (operation, details) = (Operation::Truncate, details.as_deref());
            self.line(LineHead { table, operation, key: "*", old: None, new: None, details, position: None }, known, out);
        }
        out.ddl = true;
        self.rewritten.extend(ddl.rewritten.iter().map(|table| (table.clone(), ddl.reason.clone())));
        ddl.rewritten
    }

    /// Ends the transaction: what is left of it, and what has to be reported of it.
    pub fn finish(&mut self, quota: &mut Quota, known: &[String], out: &mut Lines) {
        self.settle(known, out);
        quota.pass(self.commit_time, &mut out.findings);
        let session = self.speaker.session();
        let probable = self.speaker.probable();
        if self.unattributed > 0 && quota.admit(self.commit_time, session.or(probable)) {
            let tables: Vec<&str> = self.unattributed_tables.iter().map(String::as_str).collect();
            let mut reason = format!("{} changes of transaction {} say nothing about who made them", self.unattributed, self.name);
            if let Some(malformed) = &self.malformed {
                reason =
                    format!("{} changes of transaction {} have a context that is not valid: {malformed}", self.unattributed, self.name);
            }
            if let Some(probable) = probable {
                reason.push_str(&format!("; probably {probable}"));
            }
            let finding = Finding {
                kind: FindingKind::UnattributedWrite,
                username: session.and_then(|session| session.user.as_deref()),
                ip_address: session.and_then(|session| session.address.as_deref()),
                user_agent: session.and_then(|session| session.application.as_deref()),
                resource: &tables.join(", "),
                reason: &reason,
                at: Some(self.commit_time),
            };
            finding.write(&mut out.findings);
        }
        for (table, reason) in &self.rewritten {
            let rewritten = || format!("transaction {} rewrote the table's rows without row changes; it needs a new baseline", self.name);
            let finding = Finding {
                kind: FindingKind::CaptureBypassed,
                username: session.and_then(|session| session.user.as_deref()),
                ip_address: session.and_then(|session| session.address.as_deref()),
                user_agent: session.and_then(|session| session.application.as_deref()),
                resource: table,
                reason: &reason.clone().unwrap_or_else(rewritten),
                at: Some(self.commit_time),
            };
            finding.write(&mut out.findings);
        }
    }
}

fn head<'a>(
    table: &'a Table,
    operation: Operation,
    key: &'a str,
    old: Option<&'a [u8]>,
    new: Option<&'a Vec<u8>>,
    details: Option<&'a str>,
) -> LineHead<'a> {
    LineHead { table: &table.name, operation, key, old, new: new.map(Vec::as_slice), details, position: None }
}

fn values<'a>(table: &Table, tuple: Tuple<'a>) -> Result<Vec<Value<'a>>> {
    if tuple.len() != table.columns.len() {
        let (sent, known) = (tuple.len(), table.columns.len());
        return Err(CaptureError::Malformed(format!("a row of {} has {sent} values for {known} columns", table.name)));
    }
    Ok(tuple.values().collect())
}

pub(super) fn write_row(table: &Table, values: &[Value<'_>], sent: impl Fn(&TableColumn) -> bool, out: &mut Vec<u8>) {
    out.clear();
    let members = table.columns.iter().zip(values.iter().copied());
    let sent = &sent;
    row_json(members.filter(|(column, _)| !column.excluded && sent(column)).map(|(column, value)| (&column.row, value)), out);
}

pub(super) fn key<'a>(table: &Table, values: &[Value<'a>]) -> Cow<'a, str> {
    if let [only] = table.key[..]
        && let Value::Text(text) = values[only]
    {
        return key_text(&[Some(text)]);
    }
    let texts: Vec<Option<Cow<'a, str>>> = table.key.iter().map(|&at| text(values[at])).collect();
    let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
    Cow::Owned(key_text(&texts).into_owned())
}

fn text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Bytes(bytes) => Some(Cow::Owned(hex::encode(bytes))),
        Value::Null | Value::Unchanged => None,
    }
}

fn changed_columns(table: &Table, old: &[Value<'_>], new: &[Value<'_>], out: &mut String) {
    let both = table.columns.iter().zip(old.iter().zip(new));
    for (column, _) in both.filter(|(column, (old, new))| !column.excluded && old != new) {
        out.push_str(if out.is_empty() { "changed: " } else { ", " });
        out.push_str(&column.row.name);
        if column.row.masked {
            out.push_str(" (masked)");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::postgres::pgoutput::{Column, Message, Relation, decode};
    use crate::postgres::relations::ColumnRules;

    fn relations() -> Relations {
        let mut relations = Relations::new(ColumnRules::default());
        let types = [20, 25, 1700, 1184, 16, 23, 25, 25, 1082, 701, 3802, 25];
        let columns =
            types.iter().enumerate().map(|(at, oid)| Column { key: true, name: format!("column_{at}"), type_oid: *oid }).collect();
        relations.note_table(
            Relation { oid: 1, schema: "public".into(), name: "t".into(), identity: b'f', columns },
            &["column_0".into()],
            &[],
        );
        relations
    }

    /// An UPDATE of one of twelve columns, with the old row.
    fn message() -> Vec<u8> {
        let tuple = |note: &str, out: &mut Vec<u8>| {
            let values = [
                "123456",
                "Nguyễn Văn A",
                "1234.50",
                "2024-01-01 00:00:00+00",
                "t",
                "42",
                note,
                "HN-2024-000123",
                "2024-01-01",
                "0.1",
                "{\"a\": 1}",
                "",
            ];
            out.extend((values.len() as u16).to_be_bytes());
            for value in values {
                out.push(b't');
                out.extend((value.len() as u32).to_be_bytes());
                out.extend(value.as_bytes());
            }
        };
        let mut out = b"U\0\0\0\x01O".to_vec();
        tuple("before", &mut out);
        out.push(b'N');
        tuple("after", &mut out);
        out
    }

    fn update(relations: &Relations, transaction: &mut Transaction, scratch: &mut Scratch, out: &mut Lines, message: &[u8]) {
        let Message::Update(oid, old, new) = decode(message).unwrap() else { panic!() };
        transaction.update(relations.table(oid).unwrap(), old, new, &[], scratch, out).unwrap();
    }

    #[test]
    fn changes_handed_out_before_are_passed_over() {
        let relations = relations();
        let mut transaction = Transaction::new("pg:d", 1, 7, 100, 0, Some(1));
        let (mut scratch, mut out, message) = (Scratch::default(), Lines::default(), message());
        for _ in 0..4 {
            update(&relations, &mut transaction, &mut scratch, &mut out, &message);
        }
        assert_eq!((out.records, transaction.last_ordinal()), (2, Some(3)));
        let text = String::from_utf8(out.changes).unwrap();
        assert!(text.contains("pg:d:1/0/64/2") && text.contains("pg:d:1/0/64/3") && !text.contains("pg:d:1/0/64/1\""));
    }
}
