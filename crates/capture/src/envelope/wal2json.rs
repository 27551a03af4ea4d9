//! wal2json's output: version 1 (one object a transaction) and version 2 (one object a change, between those that begin and commit a transaction).

use super::image::Image;
use super::message::Message;
use super::object::{Name, Object, content};
use super::{CONTEXT_PREFIX, Row, State, Writer, malformed, temporal};
use crate::change::Operation;
use crate::error::Result;
use crate::postgres::parse_lsn;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

pub(super) fn decode<'a>(messages: &[Message<'a>], out: &mut Writer<'_>) -> Result<()> {
    for message in messages {
        if message.text == "null" {
            out.ignore();
            continue;
        }
        let object = Object::parse(message.text).ok_or_else(|| malformed(message.number, "message", "it is not a JSON object"))?;
        if object.has("change") {
            transaction(message.number, &object, out)?;
        } else if object.has("action") {
            action(message.number, &object, out)?;
        } else {
            return Err(malformed(message.number, "action", "it is missing, and so is change: this is not wal2json's output"));
        }
    }
    Ok(())
}

fn time(number: u64, object: &Object<'_>) -> Result<Option<i64>> {
    let Some(text) = object.text("timestamp") else { return Ok(None) };
    let time = temporal::with_zone(&text).ok_or_else(|| malformed(number, "timestamp", format!("`{text}` is not a time with zone")))?;
    Ok(Some(time))
}

/// A position, such as `0/16B3748`.
fn lsn(number: u64, object: &Object<'_>, field: &str) -> Result<Option<String>> {
    let Some(text) = object.text(field) else { return Ok(None) };
    match parse_lsn(&text) {
        Some(_) => Ok(Some(text.into_owned())),
        None => Err(malformed(number, field, format!("`{text}` is no position such as 0/16B3748"))),
    }
}

/// What the changes of a transaction have in common.
fn opened(number: u64, object: &Object<'_>, commit: &str) -> Result<State> {
    Ok(State {
        transaction: object.text("xid").map(Cow::into_owned),
        context: None,
        commit: lsn(number, object, commit)?,
        time: time(number, object)?,
        ..State::default()
    })
}

fn begin(next: State, out: &mut Writer<'_>) {
    out.decoded.state = std::mem::take(&mut out.decoded.state).next(next);
}

/// The transaction's name; `None` if nothing tells it from others.
fn transaction_name(state: &State) -> Option<String> {
    match (&state.transaction, &state.commit, state.time) {
        (Some(xid), Some(commit), _) => Some(format!("{xid}@{commit}")),
        (None, Some(commit), _) => Some(commit.clone()),
        (Some(xid), None, Some(time)) => Some(format!("{xid}@{time}")),
        (Some(_) | None, None, _) => None,
    }
}

/// Version 1.
fn transaction(number: u64, object: &Object<'_>, out: &mut Writer<'_>) -> Result<()> {
    begin(opened(number, object, "nextlsn")?, out);
    let changes: Vec<&RawValue> = object
        .get("change")
        .and_then(|changes| serde_json::from_str(changes).ok())
        .ok_or_else(|| malformed(number, "change", "it is not an array"))?;
    if changes.is_empty() {
        out.ignore();
    }
    for change in changes {
        let invalid = |error: serde_json::Error| malformed(number, "change", error.to_string());
        let change: FirstChange<'_> = serde_json::from_str(change.get()).map_err(invalid)?;
        if change.kind.0 == "message" {
            let parts = (change.prefix.map(|name| name.0), change.content.map(|name| name.0));
            take_context(change.transactional.unwrap_or_default(), parts, out);
            continue;
        }
        let operation = match &*change.kind.0 {
            "insert" => Operation::Insert,
            "update" => Operation::Update,
            "delete" => Operation::Delete,
            "truncate" => Operation::Truncate,
            other => {
                return Err(malformed(number, "change.kind", format!("`{other}` is none of insert, update, delete, truncate, message")));
            }
        };
        let old = change.oldkeys.map(|old| columns(number, "oldkeys", old.keynames, &old.keytypes, &old.keyvalues)).transpose()?;
        let new = match operation {
            Operation::Insert | Operation::Update => {
                Some(columns(number, "columnvalues", change.columnnames, &change.columntypes, &change.columnvalues)?)
            }
            _ => None,
        };
        let table = table(change.schema, change.table).ok_or_else(|| malformed(number, "change.table", "it is missing"))?;
        let key = change.pk.map(|pk| pk.pknames.into_iter().map(|name| name.0.into_owned()).collect());
        let position = transaction_name(&out.decoded.state).map(|name| format!("{name}/{}", out.decoded.state.changes));
        write(Parts { number, table, operation, key, old, new, position, time: None }, out)?;
    }
    begin(State::default(), out);
    Ok(())
}

/// Version 2.
fn action(number: u64, object: &Object<'_>, out: &mut Writer<'_>) -> Result<()> {
    let operation = match object.text("action").as_deref() {
        Some("B") => {
            begin(opened(number, object, "lsn")?, out);
            out.ignore();
            return Ok(());
        }
        Some("C") => {
            begin(State::default(), out);
            out.ignore();
            return Ok(());
        }
        Some("M") => {
            resume(number, object, out)?;
            take_context(object.get("transactional") == Some("true"), (object.text("prefix"), object.text("content")), out);
            out.ignore();
            return Ok(());
        }
        Some("I") => Operation::Insert,
        Some("U") => Operation::Update,
        Some("D") => Operation::Delete,
        Some("T") => Operation::Truncate,
        other => {
            let other = other.unwrap_or("null");
            return Err(malformed(number, "action", format!("`{other}` is none of B, C, I, U, D, T, M")));
        }
    };
    resume(number, object, out)?;
    let (schema, name) = (object.text("schema").map(Name), object.text("table").map(Name));
    let table = table(schema, name).ok_or_else(|| malformed(number, "table", "it is missing"))?;
    let (old, new) = (second(number, object, "identity")?, second(number, object, "columns")?);
    let key = object.get("pk").and_then(|pk| serde_json::from_str::<Vec<SecondColumn<'_>>>(pk).ok());
    let key = key.map(|key| key.into_iter().map(|column| column.name.0.into_owned()).collect());
    let state = &out.decoded.state;
    let position = match lsn(number, object, "lsn")? {
        Some(lsn) => Some(lsn),
        None => transaction_name(state).map(|name| format!("{name}/{}", state.changes)),
    };
    write(Parts { number, table, operation, key, old, new, position, time: time(number, object)? }, out)
}

/// Takes the transaction from a change's own members if its beginning did not come, or was another's.
fn resume(number: u64, object: &Object<'_>, out: &mut Writer<'_>) -> Result<()> {
    let Some(xid) = object.text("xid") else { return Ok(()) };
    if out.decoded.state.transaction.as_deref() != Some(&*xid) {
        begin(State { transaction: Some(xid.into_owned()), time: time(number, object)?, ..State::default() }, out);
    }
    Ok(())
}

#[derive(Deserialize)]
struct FirstChange<'a> {
    #[serde(borrow)]
    kind: Name<'a>,
    schema: Option<Name<'a>>,
    table: Option<Name<'a>>,
    #[serde(default)]
    columnnames: Vec<Name<'a>>,
    #[serde(default)]
    columntypes: Vec<Name<'a>>,
    #[serde(default)]
    columnvalues: Vec<&'a RawValue>,
    oldkeys: Option<OldKeys<'a>>,
    pk: Option<PrimaryKey<'a>>,
    transactional: Option<bool>,
    prefix: Option<Name<'a>>,
    content: Option<Name<'a>>,
}

#[derive(Deserialize)]
struct OldKeys<'a> {
    #[serde(borrow)]
    keynames: Vec<Name<'a>>,
    #[serde(default)]
    keytypes: Vec<Name<'a>>,
    keyvalues: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct PrimaryKey<'a> {
    #[serde(borrow)]
    pknames: Vec<Name<'a>>,
}

#[derive(Deserialize)]
struct SecondColumn<'a> {
    #[serde(borrow)]
    name: Name<'a>,
    #[serde(rename = "type")]
    kind: Option<Name<'a>>,
    value: Option<&'a RawValue>,
}

fn columns<'a>(number: u64, field: &str, names: Vec<Name<'a>>, types: &[Name<'a>], values: &[&'a RawValue]) -> Result<Image<'a>> {
    if names.len() != values.len() {
        return Err(malformed(number, field, format!("{} names and {} values", names.len(), values.len())));
    }
    let columns = names
        .into_iter()
        .zip(values)
        .enumerate()
        .map(|(index, (name, value))| (name.0, rendered(types.get(index).map(|kind| &*kind.0), value.get())));
    Ok(Image { columns: columns.collect() })
}

fn second<'a>(number: u64, object: &Object<'a>, field: &str) -> Result<Option<Image<'a>>> {
    let Some(text) = object.get(field) else { return Ok(None) };
    let columns: Vec<SecondColumn<'a>> = serde_json::from_str(text).map_err(|error| malformed(number, field, error.to_string()))?;
    let columns = columns
        .into_iter()
        .map(|column| (column.name.0, rendered(column.kind.as_ref().map(|kind| &*kind.0), column.value.map_or("null", RawValue::get))));
    Ok(Some(Image { columns: columns.collect() }))
}

/// A value as Muniment writes it: documents embedded, bytes with their prefix, which wal2json leaves out.
fn rendered<'a>(kind: Option<&str>, value: &'a str) -> Cow<'a, str> {
    if !value.starts_with('"') {
        return Cow::Borrowed(value);
    }
    match kind {
        Some("json" | "jsonb") => {
            let text = content(value);
            if serde_json::from_str::<&RawValue>(&text).is_ok() { Cow::Owned(text.into_owned()) } else { Cow::Borrowed(value) }
        }
        Some("bytea") => Cow::Owned(format!("\"\\\\x{}", &value[1..])),
        _ => Cow::Borrowed(value),
    }
}

fn table(schema: Option<Name<'_>>, table: Option<Name<'_>>) -> Option<String> {
    let table = table?.0;
    Some(schema.map_or_else(|| table.to_string(), |schema| format!("{}.{table}", schema.0)))
}

/// A message of ours says who makes the changes after it. One that is not transactional says nothing about any transaction.
fn take_context(transactional: bool, (prefix, text): (Option<Cow<'_, str>>, Option<Cow<'_, str>>), out: &mut Writer<'_>) {
    if transactional && prefix.as_deref() == Some(CONTEXT_PREFIX) {
        out.decoded.state.context = text.map(|text| crate::Context::read(text.as_bytes()).0);
    }
}

/// A change before it is known whether its key changed.
struct Parts<'a> {
    number: u64,
    table: String,
    operation: Operation,
    /// Columns of the primary key.
    key: Option<Vec<String>>,
    old: Option<Image<'a>>,
    new: Option<Image<'a>>,
    position: Option<String>,
    /// Its own time, where changes have one.
    time: Option<i64>,
}

/// Writes a change; one that changes the key, as a row that goes and another that comes.
fn write(parts: Parts<'_>, out: &mut Writer<'_>) -> Result<()> {
    let Parts { number, table, operation, key, old, mut new, position, time } = parts;
    let is_hinted = key.is_none();
    let columns = key.or_else(|| out.options.keys.of(&table).map(<[String]>::to_vec));
    let key = |image: &Option<Image<'_>>| image.as_ref().zip(columns.as_ref()).and_then(|(image, columns)| image.key(columns));
    let (old_key, new_key) = (key(&old), key(&new));
    if let (None, None, Some(columns), Some((name, image))) =
        (&old_key, &new_key, &columns, new.as_ref().map(|new| ("columns", new)).or(old.as_ref().map(|old| ("identity", old))))
        && is_hinted
    {
        return Err(malformed(number, name, image.lacks(columns)));
    }
    if let (Some(new), Some(old)) = (&mut new, &old) {
        new.fill_from(old);
    }
    let state = std::mem::take(&mut out.decoded.state);
    let row = |operation, key: Option<String>, old, new| Row {
        message: number,
        table: Cow::Borrowed(&*table),
        operation,
        key: key.map(Cow::Owned),
        old,
        new,
        details: None,
        time: time.or(state.time),
        transaction: transaction_name(&state),
        position: position.clone(),
        user: None,
        attributable: true,
        context: state.context.as_ref(),
    };
    let written = match (operation, old_key, new_key) {
        (Operation::Update, Some(before), Some(after)) if before != after => out
            .write(row(Operation::Delete, Some(before), old, None))
            .and_then(|()| out.write(row(Operation::Insert, Some(after), None, new))),
        (Operation::Truncate, ..) => out.write(row(operation, Some("*".to_owned()), None, None)),
        (_, before, after) => out.write(row(operation, after.or(before), old, new)),
    };
    out.decoded.state = state;
    out.decoded.state.changes += 1;
    written
}
