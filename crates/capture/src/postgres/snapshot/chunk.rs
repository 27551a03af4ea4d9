//! A chunk of a table's rows, what it saw, and which of its rows were changed meanwhile.

use crate::error::CaptureError;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Changes noted at most while a chunk is being read; beyond that it is read again.
const NOTED: usize = 200_000;

/// How far a table's baseline is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The table or partition.
    pub relation: u32,
    /// Number of the baseline.
    pub baseline: i64,
    /// The table's file; another one begins from the beginning.
    pub file: u32,
    /// The last row recorded, by its place in the file; `None` at the end.
    pub row: Option<(u32, u16)>,
}

impl Progress {
    pub(crate) fn is_end(&self) -> bool {
        self.row.is_none()
    }

    /// Reads a row's place in its file: `(block,offset)`.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn place(text: &str) -> Result<(u32, u16), CaptureError> {
        let read = || {
            let (block, offset) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
            Some((block.parse().ok()?, offset.parse().ok()?))
        };
        read().ok_or_else(|| CaptureError::Malformed(format!("{text:?} is no place of a row")))
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/", self.relation, self.baseline, self.file)?;
        match self.row {
            Some((block, offset)) => write!(f, "{block}/{offset}"),
            None => f.write_str("end"),
        }
    }
}

impl FromStr for Progress {
    type Err = CaptureError;

    fn from_str(text: &str) -> Result<Self, CaptureError> {
        let read = || {
            let mut parts = text.splitn(4, '/');
            let (relation, baseline) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let file = parts.next()?.parse().ok()?;
            let row = match parts.next()? {
                "end" => None,
                row => {
                    let (block, offset) = row.split_once('/')?;
                    Some((block.parse().ok()?, offset.parse().ok()?))
                }
            };
            Some(Self { relation, baseline, file, row })
        };
        read().ok_or_else(|| CaptureError::Malformed(format!("{text:?} is no progress of a baseline")))
    }
}

/// The transactions that a chunk saw, by their full numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// All before this one had ended.
    first: u64,
    /// This one and those after it had not begun.
    end: u64,
    /// Between those, the ones under way.
    under_way: Vec<u64>,
}

impl FromStr for View {
    type Err = CaptureError;

    /// Reads PostgreSQL's text: `100:110:103,105`.
    fn from_str(text: &str) -> Result<Self, CaptureError> {
        let read = || {
            let mut parts = text.split(':');
            let (first, end) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let list = parts.next().unwrap_or_default().split(',').filter(|text| !text.is_empty());
            Some(Self { first, end, under_way: list.map(|text| text.parse().ok()).collect::<Option<_>>()? })
        };
        read().ok_or_else(|| CaptureError::Malformed(format!("{text:?} is no snapshot")))
    }
}

impl View {
    /// Whether a committed transaction was seen, by the 32 bits of its number that the stream knows. Numbers lie within two thousand millions of each other.
    fn saw(&self, number: u32) -> bool {
        let near = self.end as u32;
        let full = self.end.wrapping_add_signed(i64::from(number.wrapping_sub(near) as i32));
        full < self.first || (full < self.end && !self.under_way.contains(&full))
    }
}

/// A row as its SNAPSHOT record.
#[derive(Clone, Debug)]
pub(super) struct ChunkRow {
    pub key: String,
    pub line: Vec<u8>,
}

/// Rows of one table, read at once.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// The table's name in records.
    pub table: String,
    /// What it saw.
    pub view: View,
    /// All transactions that it saw were committed before this LSN.
    pub high: u64,
    /// How far the baseline is after it.
    pub progress: Progress,
    rows: Vec<Option<ChunkRow>>,
    by_key: HashMap<String, Vec<usize>>,
}

/// What is looked at in a line.
#[derive(Deserialize)]
struct Touched<'a> {
    #[serde(borrow)]
    table_name: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    primary_key: Cow<'a, str>,
    #[serde(borrow, default)]
    transaction_id: Option<Cow<'a, str>>,
}

/// A change that takes the state before it away from a row.
#[derive(Clone, Debug)]
struct Overtaken {
    table: String,
    /// `None` for all rows.
    key: Option<String>,
    transaction: u32,
}

/// Number of a transaction in `<source>:<number>@<position>`.
fn number(transaction: &str) -> Option<u32> {
    transaction.rsplit_once('@')?.0.rsplit_once(':')?.1.parse().ok()
}

fn overtaken(lines: &[u8]) -> impl Iterator<Item = Overtaken> + '_ {
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).filter_map(|line| {
        let touched: Touched<'_> = serde_json::from_slice(line).ok()?;
        let key = match touched.operation.as_ref() {
            "UPDATE" | "DELETE" => Some(touched.primary_key.into_owned()),
            "TRUNCATE" => None,
            _ => return None,
        };
        Some(Overtaken { table: touched.table_name.into_owned(), key, transaction: number(touched.transaction_id.as_deref()?)? })
    })
}

impl Chunk {
    pub(super) fn new(table: String, view: View, high: u64, progress: Progress, rows: Vec<ChunkRow>) -> Self {
        let mut by_key: HashMap<String, Vec<usize>> = HashMap::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            by_key.entry(row.key.clone()).or_default().push(at);
        }
        Self { table, view, high, progress, rows: rows.into_iter().map(Some).collect(), by_key }
    }

    /// Leaves out the rows that these changes have overtaken.
    pub(super) fn leave_out(&mut self, lines: &[u8]) {
        overtaken(lines).for_each(|change| self.overtake(&change));
    }

    fn overtake(&mut self, change: &Overtaken) {
        if change.table != self.table || self.view.saw(change.transaction) {
            return;
        }
        match &change.key {
            None => self.rows.iter_mut().for_each(|row| *row = None),
            // One row for one change: without a primary key, equal rows have equal keys.
            Some(key) => {
                if let Some(at) = self.by_key.get_mut(key).and_then(Vec::pop) {
                    self.rows[at] = None;
                }
            }
        }
    }

    /// The lines of the rows that are left, and their number.
    pub(super) fn into_lines(self) -> (Vec<u8>, usize) {
        let mut lines = Vec::with_capacity(self.rows.iter().flatten().map(|row| row.line.len()).sum());
        let mut records = 0;
        for row in self.rows.into_iter().flatten() {
            lines.extend_from_slice(&row.line);
            records += 1;
        }
        (lines, records)
    }
}

/// What the stream has handed out since a chunk began to be read, or before it without the chunk's seeing it.
#[derive(Debug, Default)]
pub(super) struct Recent {
    changes: Vec<Overtaken>,
    overflowed: bool,
}

impl Recent {
    /// Notes the changes of a batch.
    pub(super) fn note(&mut self, lines: &[u8]) {
        if self.changes.len() > NOTED {
            self.overflowed = true;
        } else {
            self.changes.extend(overtaken(lines));
        }
    }

    /// Leaves out of a chunk what it did not see; `false` if not all is known, so that it has to be read again.
    pub(super) fn leave_out_of(&mut self, chunk: &mut Chunk) -> bool {
        // What this chunk saw, later ones see, too.
        self.changes.retain(|change| !chunk.view.saw(change.transaction));
        if std::mem::take(&mut self.overflowed) {
            return false;
        }
        self.changes.iter().for_each(|change| chunk.overtake(change));
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn progress_as_text() {
        for text in ["16425/7/16500/128/4", "16425/7/16500/end"] {
            assert_eq!(text.parse::<Progress>().unwrap().to_string(), text);
        }
        for text in ["", "1/2/3", "1/2/3/x", "1/2/3/4"] {
            assert!(text.parse::<Progress>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_snapshot_saw() {
        let view: View = "100:110:103,105".parse().unwrap();
        for (number, seen) in [(99, true), (100, true), (103, false), (104, true), (105, false), (109, true), (110, false), (200, false)] {
            assert_eq!(view.saw(number), seen, "{number}");
        }
        // The stream's numbers have wrapped around.
        let view: View = "8589934590:8589934600:".parse().unwrap();
        assert!(view.saw(u32::MAX - 5));
        assert!(view.saw(7));
        assert!(!view.saw(8));
    }

    fn chunk(keys: &[&str]) -> Chunk {
        let rows = keys.iter().map(|key| ChunkRow { key: (*key).to_owned(), line: format!("{key}\n").into_bytes() }).collect();
        let progress = Progress { relation: 1, baseline: 1, file: 1, row: None };
        Chunk::new("app.t".into(), "100:110:105".parse().unwrap(), 0, progress, rows)
    }

    fn change(operation: &str, key: &str, transaction: u32) -> String {
        format!(r#"{{"table_name":"app.t","operation":"{operation}","primary_key":"{key}","transaction_id":"pg:x:{transaction}@0/1"}}"#)
    }

    #[test]
    fn rows_that_were_changed_unseen_are_left_out() {
        let check = |lines: &[String], left: &str| {
            let mut recent = Recent::default();
            recent.note(lines.join("\n").as_bytes());
            let mut noted = chunk(&["1", "2", "2", "3"]);
            assert!(recent.leave_out_of(&mut noted));
            assert_eq!(String::from_utf8(noted.into_lines().0).unwrap(), left);
            let mut passed = chunk(&["1", "2", "2", "3"]);
            passed.leave_out(lines.join("\n").as_bytes());
            assert_eq!(String::from_utf8(passed.into_lines().0).unwrap(), left);
        };
        check(&[change("UPDATE", "1", 104)], "1\n2\n2\n3\n");
        check(&[change("UPDATE", "1", 105)], "2\n2\n3\n");
        check(&[change("DELETE", "2", 110)], "1\n2\n3\n");
        check(&[change("INSERT", "3", 110)], "1\n2\n2\n3\n");
        check(&[change("TRUNCATE", "*", 110)], "");
    }
}
