//! From the histories of rows to what must be done to each: the row before and after every selected record, and whether it is still so.

use super::super::document::{Document, JSON_NULL, differences};
use super::super::rows::Row;
use super::super::{after, changes_rows};
use super::Refusal;
use crate::error::Result;
use muniment_capture::envelope::KeyHints;
use muniment_capture::key_text;
use serde_json::value::RawValue;
use std::collections::{BTreeSet, HashMap};

/// What stands for a masked value.
const MASKED: &str = "\"***\"";
/// What the summary of a change says of a column that was masked at the source.
const MASKED_CHANGE: &str = " (masked)";

/// A column and its value.
pub(super) type Field = (String, Box<RawValue>);

/// How a record is taken back.
#[derive(Clone, Debug)]
pub(super) enum Inverse {
    /// The row is inserted again.
    Insert(Vec<Field>),
    /// These columns get their values back.
    Update(Vec<Field>),
    /// The row is deleted.
    Delete,
}

/// A statement to be.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The record that it takes back.
    pub(super) record: i64,
    pub(super) table: String,
    pub(super) primary_key: String,
    /// The columns that make the key.
    pub(super) key: Vec<Field>,
    /// What the record left in the other columns.
    pub(super) expected: Vec<Field>,
    pub(super) inverse: Inverse,
}

impl Step {
    /// Whether a row comes back.
    pub(super) fn is_insert(&self) -> bool {
        matches!(self.inverse, Inverse::Insert(_))
    }

    /// Whether it only gives values back to columns that were set to NULL.
    pub(super) fn fills_nulls(&self) -> bool {
        let is_null = |name: &String| self.expected.iter().any(|(expected, value)| expected == name && value.get() == "null");
        matches!(&self.inverse, Inverse::Update(fields) if fields.iter().all(|(name, _)| is_null(name)))
    }
}

/// What became of a selected record.
#[derive(Debug)]
pub(super) enum Planned {
    /// It is taken back.
    Step(Step),
    /// It changed nothing.
    Nothing,
}

impl Planned {
    pub(super) fn step(&self) -> Option<&Step> {
        match self {
            Self::Step(step) => Some(step),
            Self::Nothing => None,
        }
    }
}

/// One row on its way through its history.
#[derive(Default)]
struct Entity {
    state: Option<Document>,
    records: Vec<Record>,
    /// A later change that is not selected: the record it depends on, its own, and what it did.
    conflict: Option<(i64, i64, &'static str)>,
}

/// A selected record with the row around it.
struct Record {
    id: i64,
    operation: String,
    before: Option<Document>,
    after: Option<Document>,
    /// Whether the log had the whole row before.
    complete: bool,
    /// Whether a column changed of which the log has no value.
    masked: bool,
}

/// Some rows of a table.
pub(super) struct Entities<'a> {
    table: &'a str,
    selected: &'a BTreeSet<i64>,
    hints: &'a KeyHints,
    rows: HashMap<&'a str, Entity>,
}

impl<'a> Entities<'a> {
    pub(super) fn new(table: &'a str, keys: &[&'a str], selected: &'a BTreeSet<i64>, hints: &'a KeyHints) -> Self {
        Self { table, selected, hints, rows: keys.iter().map(|key| (*key, Entity::default())).collect() }
    }

    /// Takes the next record of any of the rows, or of the table as a whole.
    pub(super) fn apply(&mut self, row: Row<'_>) -> Result<()> {
        let key = row.required("primary_key")?;
        let of_table = matches!(key, "" | "*") && matches!(row.required("operation")?, "TRUNCATE" | "DDL");
        if let Some(entity) = self.rows.get_mut(key)
            && !of_table
        {
            return entity.apply(row, self.selected);
        }
        self.rows.values_mut().try_for_each(|entity| entity.apply(row, self.selected))
    }

    /// What is to be done, by record.
    pub(super) fn finish(self, planned: &mut HashMap<i64, Planned>, refusals: &mut Vec<Refusal>) {
        for (key, entity) in self.rows {
            let refuse =
                |record, later, reason| Refusal { record, table: self.table.to_owned(), primary_key: key.to_owned(), later, reason };
            if let Some((record, later, what)) = entity.conflict {
                refusals.push(refuse(record, Some(later), format!("{what} by the later record {later}")));
                continue;
            }
            for record in entity.records {
                let id = record.id;
                match step(self.table, key, record, self.hints.of(self.table)) {
                    Ok(Some(step)) => drop(planned.insert(id, Planned::Step(step))),
                    Ok(None) => drop(planned.insert(id, Planned::Nothing)),
                    Err(reason) => refusals.push(refuse(id, None, reason)),
                }
            }
        }
    }
}

impl Entity {
    fn apply(&mut self, row: Row<'_>, selected: &BTreeSet<i64>) -> Result<()> {
        let (id, operation) = (row.number("id")?, row.required("operation")?);
        let before = self.state.clone();
        if changes_rows(operation) {
            self.state = after(before.clone(), operation, row)?;
        }
        if selected.contains(&id) {
            let (old, complete) = (row.document("old_values")?, before.is_some());
            let before = match (before, old) {
                (Some(state), Some(old)) => Some(state.with(&old)),
                (state, old) => state.or(old),
            };
            let masked = row.text("change_details")?.is_some_and(|details| details.contains(MASKED_CHANGE));
            self.records.push(Record { id, operation: operation.to_owned(), before, after: self.state.clone(), complete, masked });
            return Ok(());
        }
        let unchanged = || operation == "SNAPSHOT" && differences(before.as_ref(), self.state.as_ref()).is_empty();
        if let (Some(last), None) = (self.records.last(), self.conflict)
            && !unchanged()
        {
            let what = match (operation, last.operation.as_str()) {
                ("TRUNCATE", _) => "its table was emptied",
                ("DDL", _) => "its table was altered",
                ("INSERT", _) => "its key was used again",
                ("DELETE", _) => "the row was deleted",
                ("SNAPSHOT", _) => "the row was found to be another",
                _ => "the row was changed again",
            };
            self.conflict = Some((last.id, id, what));
        }
        Ok(())
    }
}

/// What takes a record back: `None` if it changed nothing.
fn step(table: &str, key: &str, record: Record, hint: Option<&[String]>) -> Result<Option<Step>, String> {
    let Record { id, operation, before, after, complete, masked } = record;
    if [&before, &after].into_iter().flatten().any(|document| document.is_masked() || document.is_partly_masked()) {
        return Err("its values are masked for you".to_owned());
    }
    if masked {
        return Err("it changed a masked column, of which the log has no value".to_owned());
    }
    let (present, inverse) = match operation.as_str() {
        "INSERT" => (after, Inverse::Delete),
        "DELETE" => {
            let before = before.ok_or("the row that it deleted is not known")?;
            let row = restorable(before.fields(), "the deleted row")?;
            (Some(before), Inverse::Insert(row))
        }
        _ => {
            let (before, after) = (before.ok_or("the row before it is not known")?, after.ok_or("the row after it is not known")?);
            let changed = differences(Some(&before), Some(&after));
            if changed.is_empty() {
                return Ok(None);
            }
            let mut set = Vec::with_capacity(changed.len());
            for change in changed {
                if change.new.is_none() {
                    return Err(format!("{} is not a column of the row after it", change.field));
                }
                let old = change.old.ok_or_else(|| format!("the value of {} before it is not known", change.field))?;
                set.push((change.field, old));
            }
            let set = restorable(set.iter().map(|(name, value)| (name.as_str(), &**value)), "the row before it")?;
            (Some(after), Inverse::Update(set))
        }
    };
    let present = present.ok_or("the row that it inserted is not known")?;
    if !present.is_object() {
        return Err("its values are not a row".to_owned());
    }
    let key_fields = key_fields(&present, key, hint)?;
    let only_key = || present.fields().all(|(name, _)| key_fields.iter().any(|(known, _)| known == name));
    if matches!(inverse, Inverse::Insert(_)) && !complete && only_key() {
        return Err("only the key of the row that it deleted is known".to_owned());
    }
    let others = present.fields().filter(|(name, value)| !hidden(value) && !key_fields.iter().any(|(known, _)| known == name));
    let expected = others.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Some(Step { record: id, table: table.to_owned(), primary_key: key.to_owned(), key: key_fields, expected, inverse }))
}

/// Values that can be written back.
fn restorable<'a>(fields: impl Iterator<Item = (&'a str, &'a RawValue)>, of: &str) -> Result<Vec<Field>, String> {
    fields
        .map(|(name, value)| match hidden(value) {
            true => Err(format!("{name} of {of} is masked, or was not kept or not sent")),
            false => Ok((name.to_owned(), value.to_owned())),
        })
        .collect()
}

/// Whether a value only says that there was one.
fn hidden(value: &RawValue) -> bool {
    value.get() == MASKED || ["{\"$omitted\":", "{\"$unchanged\":", "{\"$hex\":"].iter().any(|marker| value.get().starts_with(marker))
}

/// The columns that make the key: those named, or those whose values are in the key's text. The latter may be more than the key has; all of them hold.
fn key_fields(row: &Document, key: &str, hint: Option<&[String]>) -> Result<Vec<Field>, String> {
    let written = |content| match hint {
        Some(columns) => named_key(row, key, columns, content),
        None => found_key(row, key, content),
    };
    written(content).or_else(|reason| written(postgresql_content).map_err(|_| reason))
}

fn found_key(row: &Document, key: &str, content: Content) -> Result<Vec<Field>, String> {
    let texts: Vec<(&str, &RawValue, String)> = row
        .fields()
        .filter(|(_, value)| !hidden(value) && value.get() != "null")
        .map(|(name, value)| (name, value, content(value)))
        .collect();
    let whole = |text: &str| key_text(&[Some(text)]) == key;
    let single: Vec<Field> =
        texts.iter().filter(|(.., text)| whole(text)).map(|(name, value, _)| ((*name).to_owned(), (*value).to_owned())).collect();
    if !single.is_empty() {
        return Ok(single);
    }
    let unknown = || "its key is not among the row's columns; say which columns make the key".to_owned();
    let parts: Vec<Option<String>> = serde_json::from_str(key).map_err(|_| unknown())?;
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() || !parts.iter().all(|part| texts.iter().any(|(.., text)| text == part)) {
        return Err(unknown());
    }
    let of_key = texts.iter().filter(|(.., text)| parts.contains(text));
    Ok(of_key.map(|(name, value, _)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn named_key(row: &Document, key: &str, columns: &[String], content: Content) -> Result<Vec<Field>, String> {
    let found: Option<Vec<Field>> = columns.iter().map(|name| Some((name.clone(), row.get(name)?.to_owned()))).collect();
    if let Some(found) = found {
        let texts: Vec<Option<String>> = found.iter().map(|(_, value)| (value.get() != "null").then(|| content(value))).collect();
        let parts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        return if key_text(&parts) == key { Ok(found) } else { Err(format!("{} is not its key", columns.join(", "))) };
    }
    let texts = match columns {
        [_] => vec![key.to_owned()],
        _ => serde_json::from_str(key).map_err(|_| format!("its key is not of the columns {}", columns.join(", ")))?,
    };
    if texts.len() != columns.len() {
        return Err(format!("its key is not of the columns {}", columns.join(", ")));
    }
    let fields = columns.iter().zip(texts).map(|(name, text)| {
        let value = serde_json::value::to_raw_value(&text).map_err(|error| error.to_string())?;
        Ok((name.clone(), value))
    });
    fields.collect()
}

/// How a value stands in a key.
type Content = fn(&RawValue) -> String;

/// A value as text as PostgreSQL writes it.
fn postgresql_content(value: &RawValue) -> String {
    match value.get() {
        "true" => "t".to_owned(),
        "false" => "f".to_owned(),
        _ => content(value),
    }
}

/// A value as text: a string's content, a number's digits.
pub(super) fn content(value: &RawValue) -> String {
    if value.get() == JSON_NULL {
        return "null".to_owned();
    }
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}
