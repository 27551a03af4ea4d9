//! Debezium's change events: one event, or records as Kafka has them (key, value, topic, partition, offset), with or without schemas.

use super::image::Image;
use super::message::Message;
use super::object::{Object, content};
use super::schema::Columns;
use super::{CONTEXT_PREFIX, Row, State, Writer, malformed, place};
use crate::change::{Operation, key_text};
use crate::error::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::collections::HashMap;

/// What Debezium writes for a value that the source did not send since it did not change: as text, and as base64 for binary columns.
const UNAVAILABLE: &[&str] =
    &["\"__debezium_unavailable_value\"", "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"", "[\"__debezium_unavailable_value\"]"];
/// Longest statement that a record of a DDL change keeps, in characters.
const MAX_DDL_CHARS: usize = 1000;

/// A message taken out of its wrappings.
struct Event<'a> {
    number: u64,
    body: Object<'a>,
    source: Object<'a>,
    columns: &'a Columns,
    key: Option<Key<'a>>,
    /// Topic, partition and offset.
    delivered: Option<String>,
}

struct Key<'a> {
    value: Cow<'a, str>,
    columns: Columns,
}

/// A schema and what it is about, or the thing itself.
fn unwrapped(text: &str) -> (Option<&str>, &str) {
    match Object::parse(text) {
        Some(object) if object.has("schema") && object.has("payload") => (object.get("schema"), object.get("payload").unwrap_or("null")),
        _ => (None, text),
    }
}

/// A Kafka record: its key, its value, and where it stood.
struct Record<'a> {
    key: Option<&'a str>,
    value: &'a str,
    delivered: Option<String>,
}

fn record<'a>(message: &Message<'a>) -> Record<'a> {
    let bare = Record { key: None, value: message.text, delivered: None };
    let Some(object) = Object::parse(message.text) else { return bare };
    let is_record = object.has("value") && !object.has("op") && !object.has("payload");
    if !is_record {
        return bare;
    }
    let delivered = match (object.text("topic"), object.int("offset")) {
        (Some(topic), Some(offset)) => Some(format!("{topic}/{}@{offset}", object.int("partition").unwrap_or_default())),
        _ => None,
    };
    Record { key: object.get("key"), value: object.get("value").unwrap_or("null"), delivered }
}

/// A value, or the JSON that a string holds: some bridges send keys and values as text.
fn embedded(value: &str) -> Cow<'_, str> {
    if value.starts_with('"') {
        let text = content(value);
        if text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
            return text;
        }
    }
    Cow::Borrowed(value)
}

pub(super) fn decode(messages: &[Message<'_>], out: &mut Writer<'_>) -> Result<()> {
    let records: Vec<(u64, Record<'_>)> = messages.iter().map(|message| (message.number, record(message))).collect();
    let values: Vec<Cow<'_, str>> = records.iter().map(|(_, record)| embedded(record.value)).collect();
    let mut schemas: HashMap<&str, Columns> = HashMap::new();
    let unwrapped: Vec<(Option<&str>, &str)> = values.iter().map(|value| unwrapped(value)).collect();
    for schema in unwrapped.iter().filter_map(|(schema, _)| *schema) {
        schemas.entry(schema).or_insert_with(|| Object::parse(schema).map(|schema| Columns::of_envelope(&schema)).unwrap_or_default());
    }
    let none = Columns::default();
    let mut events = Vec::with_capacity(records.len());
    for ((number, record), (schema, payload)) in records.into_iter().zip(unwrapped) {
        if payload == "null" {
            out.ignore();
            continue;
        }
        let body = Object::parse(payload).ok_or_else(|| malformed(number, "message", "it is not a JSON object"))?;
        let source = match body.get("source") {
            Some(text) => Object::parse(text).ok_or_else(|| malformed(number, "source", "it is not an object"))?,
            None => Object::default(),
        };
        for (block, name) in [(&source, "source."), (&body, "")] {
            if let Some((field, value)) = place::wrong_number(block) {
                return Err(malformed(number, format!("{name}{field}"), format!("`{value}` is not a number that it can be")));
            }
        }
        let columns = schema.and_then(|schema| schemas.get(schema)).unwrap_or(&none);
        events.push(Event { number, body, source, columns, key: record.key.map(key), delivered: record.delivered });
    }
    in_order(&mut events);
    for event in &events {
        write(event, out)?;
    }
    Ok(())
}

fn key(text: &str) -> Key<'_> {
    let whole = embedded(text);
    let (columns, value) = {
        let (schema, value) = unwrapped(&whole);
        (schema.and_then(Object::parse).map(|schema| Columns::of(&schema)).unwrap_or_default(), value.to_owned())
    };
    Key { value: Cow::Owned(value), columns }
}

/// Brings the events of each transaction that say their place in it into that order; the places that they take in the batch stay the same.
fn in_order(events: &mut Vec<Event<'_>>) {
    let mut places: HashMap<String, Vec<(i64, usize)>> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        if let Some((transaction, order)) = place::order(&event.body) {
            places.entry(transaction).or_default().push((order, index));
        }
    }
    let mut from: Vec<usize> = (0..events.len()).collect();
    for found in places.values().filter(|found| !found.is_sorted_by_key(|(order, _)| *order)) {
        let slots: Vec<usize> = found.iter().map(|(_, index)| *index).collect();
        let mut sorted = found.clone();
        sorted.sort_by_key(|(order, _)| *order);
        for (slot, (_, index)) in slots.into_iter().zip(sorted) {
            from[slot] = index;
        }
    }
    if from.is_sorted() {
        return;
    }
    let mut taken: Vec<Option<Event<'_>>> = std::mem::take(events).into_iter().map(Some).collect();
    events.extend(from.into_iter().filter_map(|index| taken[index].take()));
}

fn write(event: &Event<'_>, out: &mut Writer<'_>) -> Result<()> {
    let operation = match event.body.text("op").as_deref() {
        Some("c") if place::is_snapshot(&event.source) => Operation::Snapshot,
        Some("r") => Operation::Snapshot,
        Some("c") => Operation::Insert,
        Some("u") => Operation::Update,
        Some("d") => Operation::Delete,
        Some("t") => Operation::Truncate,
        Some("m") => {
            take_context(event, out);
            out.ignore();
            return Ok(());
        }
        Some(other) => return Err(malformed(event.number, "op", format!("`{other}` is none of c, u, d, r, t, m"))),
        None if event.body.has("ddl") => return write_ddl(event, out),
        None if is_notice(&event.body) => {
            out.ignore();
            return Ok(());
        }
        None => {
            let reason = "it is missing; whole envelopes are needed, without ExtractNewRecordState and not as CloudEvents";
            return Err(malformed(event.number, "op", reason));
        }
    };
    let table = place::table(&event.source).ok_or_else(|| malformed(event.number, "source.table", "it is missing"))?;
    let mut old = image(event, "before")?;
    let mut new = image(event, "after")?;
    if let (Some(new), Operation::Update) = (&mut new, operation) {
        new.columns.retain(|(_, value)| !UNAVAILABLE.contains(&&**value));
        if let Some(old) = &mut old {
            old.columns.retain(|(_, value)| !UNAVAILABLE.contains(&&**value));
            new.fill_from(old);
        }
    }
    if new.is_none() && operation == Operation::Update {
        let (removed, set) = description(event)?;
        (old, new) = (old.or(removed), set);
    }
    if new.is_none() && !matches!(operation, Operation::Delete | Operation::Truncate) {
        return Err(malformed(event.number, "after", "it is missing"));
    }
    let named = event.key.as_ref().map(|key| key_of(key)).or_else(|| {
        let id = ["_id".to_owned()];
        let is_mongodb = event.source.text("connector").as_deref() == Some("mongodb");
        let columns = [out.options.keys.of(&table), is_mongodb.then_some(&id[..])];
        columns.into_iter().flatten().find_map(|columns| [&new, &old].into_iter().flatten().find_map(|image| image.key(columns)))
    });
    if let (None, Some(columns), Some((name, image))) =
        (&named, out.options.keys.of(&table), new.as_ref().map(|new| ("after", new)).or(old.as_ref().map(|old| ("before", old))))
    {
        return Err(malformed(event.number, name, image.lacks(columns)));
    }
    let key = if operation == Operation::Truncate { Some("*".to_owned()) } else { named };
    let state = std::mem::take(&mut out.decoded.state);
    let number = place::number(&event.source);
    let context = state.context.as_ref().filter(|_| number.is_some() && state.transaction == number);
    let row = Row {
        message: event.number,
        table: Cow::Owned(table),
        operation,
        key: key.map(Cow::Owned),
        old,
        new,
        details: None,
        time: place::time(&event.source).or_else(|| place::time(&event.body)),
        transaction: place::transaction(&event.body, &event.source),
        position: position(event),
        attributable: event.source.text("connector").as_deref() == Some("postgresql"),
        user: event.source.text("user_name").filter(|name| !name.is_empty()).map(Cow::into_owned),
        context,
    };
    let written = out.write(row);
    out.decoded.state = state;
    written
}

fn position(event: &Event<'_>) -> Option<String> {
    place::position(&event.source).or_else(|| event.delivered.clone())
}

/// Heartbeats, and the beginning and end of transactions.
fn is_notice(body: &Object<'_>) -> bool {
    let heartbeat = body.members.len() == 1 && body.has("ts_ms");
    heartbeat || (body.has("status") && body.has("id") && !body.has("before"))
}

/// A row of an event; MongoDB's are documents in a string.
fn image<'a>(event: &Event<'a>, name: &str) -> Result<Option<Image<'a>>> {
    let Some(value) = event.body.get(name) else { return Ok(None) };
    if value.starts_with('"') {
        let text = content(value);
        let document =
            Object::parse(&text).ok_or_else(|| malformed(event.number, name, "it is neither an object nor a text that holds one"))?;
        return Ok(Some(rendered(document, event.columns).into_owned()));
    }
    let row = Object::parse(value).ok_or_else(|| malformed(event.number, name, "it is not an object"))?;
    Ok(Some(rendered(row, event.columns)))
}

fn rendered<'a>(row: Object<'a>, columns: &Columns) -> Image<'a> {
    let columns = row.members.into_iter().map(|(name, value)| {
        let value = columns.render(&name, value.get());
        (name, value)
    });
    Image { columns: columns.collect() }
}

/// MongoDB's description of an update that came without the whole document: fields removed, fields set.
fn description<'a>(event: &Event<'a>) -> Result<(Option<Image<'a>>, Option<Image<'a>>)> {
    let Some(description) = event.body.object("updateDescription") else { return Ok((None, None)) };
    let set = match description.text("updatedFields") {
        Some(text) => {
            let document = Object::parse(&text);
            let document = document.ok_or_else(|| malformed(event.number, "updateDescription.updatedFields", "it is not an object"))?;
            rendered(document, event.columns).into_owned()
        }
        None => Image::default(),
    };
    let removed: Vec<String> = description.get("removedFields").and_then(|names| serde_json::from_str(names).ok()).unwrap_or_default();
    let removed = Image { columns: removed.into_iter().map(|name| (Cow::Owned(name), Cow::Borrowed("null"))).collect() };
    Ok(((!removed.columns.is_empty()).then_some(removed), Some(set)))
}

/// The text of a message key: its members' values in order.
fn key_of(key: &Key<'_>) -> String {
    let Some(object) = Object::parse(&key.value) else { return key_text(&[Some(&content(&key.value))]).into_owned() };
    let values: Vec<Cow<'_, str>> = object.members.iter().map(|(name, value)| key.columns.render(name, value.get())).collect();
    let texts: Vec<Option<Cow<'_, str>>> = values.iter().map(|value| (value != "null").then(|| content(value))).collect();
    let parts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
    key_text(&parts).into_owned()
}

/// A transactional logical message of ours says who makes the changes after it, in its transaction.
fn take_context(event: &Event<'_>, out: &mut Writer<'_>) {
    let (Some(message), Some(transaction)) = (event.body.object("message"), place::number(&event.source)) else { return };
    if message.text("prefix").as_deref() != Some(CONTEXT_PREFIX) {
        return;
    }
    let text =
        message.text("content").and_then(|text| STANDARD.decode(text.as_bytes()).ok()).and_then(|bytes| String::from_utf8(bytes).ok());
    let next =
        State { transaction: Some(transaction), context: text.map(|text| crate::Context::read(text.as_bytes()).0), ..State::default() };
    out.decoded.state = std::mem::take(&mut out.decoded.state).next(next);
}

/// An event of the schema history topic: a statement that changed tables.
fn write_ddl(event: &Event<'_>, out: &mut Writer<'_>) -> Result<()> {
    let Some(statement) = event.body.text("ddl").filter(|statement| !statement.trim().is_empty()) else {
        out.ignore();
        return Ok(());
    };
    let space = event.body.text("schemaName").or_else(|| event.body.text("databaseName"));
    let table = place::table(&event.source).or_else(|| space.map(Cow::into_owned)).unwrap_or_else(|| "*".to_owned());
    let row = Row {
        message: event.number,
        table: Cow::Owned(table),
        operation: Operation::Ddl,
        key: Some(Cow::Borrowed("*")),
        old: None,
        new: None,
        details: Some(statement.chars().take(MAX_DDL_CHARS).collect()),
        time: place::time(&event.source).or_else(|| place::time(&event.body)),
        transaction: place::transaction(&event.body, &event.source),
        position: position(event),
        user: None,
        attributable: false,
        context: None,
    };
    out.write(row)
}
