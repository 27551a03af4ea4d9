//! `muniment history` and `muniment at`: what happened to an entity, and what it was like at a time.

use crate::args::{At, History};
use crate::columns::plain;
use crate::config::Config;
use crate::data_folder;
use crate::error::{CliError, Result};
use crate::sql::print;
use chrono::{DateTime, SecondsFormat};
use muniment_engine::history::{
    Change, FieldChange, HistoryOptions, State, Table, TableAtOptions, entity_at, entity_history, table_at, tables_like,
};
use muniment_engine::query::QueryEngine;
use std::fmt::Write;
use std::process::ExitCode;

/// Longest value in characters that is shown in a history; JSON has all of it.
const SHOWN_CHARS: usize = 160;

/// Prints every change of an entity.
pub async fn history(config: Config, options: History) -> Result<ExitCode> {
    let engine = data_folder::ask(&config).await?;
    let wanted = HistoryOptions { limit: usize::try_from(config.query.rows).unwrap_or(usize::MAX), ..HistoryOptions::default() };
    let table = Table { name: &options.table, source: options.source.as_deref() };
    let changes = entity_history(&engine, table, &options.key, wanted).await?;
    if changes.is_empty() {
        return Err(unknown(&engine, table, Some(&options.key)).await);
    }
    if options.json {
        print_json(&changes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{} {}: {} changes\n", options.table, options.key, changes.len());
    changes.iter().for_each(|change| describe(change, &mut text));
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Why there is nothing to show of a table or a row, and what may have been meant.
pub async fn unknown(engine: &QueryEngine, table: Table<'_>, key: Option<&str>) -> CliError {
    let found = match tables_like(engine, table.name).await {
        Ok(found) => found,
        Err(error) => return error.into(),
    };
    let mut text = format!("there is no change of {}", table.name);
    for part in [key.map(|key| format!(" {key}")), table.source.map(|source| format!(" from {source}"))] {
        text.push_str(&part.unwrap_or_default());
    }
    if !found.is_empty() && !found.iter().any(|name| name == table.name) {
        text.push_str(&format!("; the log has {}", found.join(", ")));
    }
    CliError::Usage(text)
}

/// Who it was.
pub fn shown_user(name: &Option<String>, number: Option<i64>) -> String {
    match (name.as_deref().map(plain), number) {
        (Some(name), Some(number)) => format!("{name} (user {number})"),
        (Some(name), None) => name.into_owned(),
        (None, Some(number)) => format!("user {number}"),
        (None, None) => "nobody named".to_owned(),
    }
}

/// Appends a change for people to read.
pub fn describe(change: &Change, text: &mut String) {
    let who = shown_user(&change.changed_by_username, change.changed_by);
    let _ = write!(text, "\n{}  {}  by {who}", shown_time(change.changed_at), change.operation);
    for (word, value) in [("from", &change.ip_address), ("in session", &change.session_id)] {
        if let Some(value) = value {
            let _ = write!(text, " {word} {}", plain(value));
        }
    }
    text.push('\n');
    let notes = [
        ("why", &change.change_reason),
        ("process", &change.business_context),
        ("workflow", &change.workflow_instance_id),
        ("summary", &change.change_details),
        ("transaction", &change.transaction_id),
    ];
    for (name, value) in notes {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name}: {}", plain(value));
        }
    }
    for FieldChange { field, old, new } in &change.fields {
        let value = |value: &Option<Box<serde_json::value::RawValue>>| {
            value.as_ref().map_or_else(|| "–".to_owned(), |value| shortened(value.get()))
        };
        let _ = writeln!(text, "  {}: {} → {}", plain(field), value(old), value(new));
    }
    let _ = writeln!(text, "  record: sys_audit_log {}, commit {}, hash {}", change.id, change.commit, change.blockchain_hash);
}

/// The beginning of a long value.
pub fn shortened(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", plain(&value[..end])),
        None => plain(value).into_owned(),
    }
}

/// Prints an entity or a table as of a time.
pub async fn at(config: Config, options: At) -> Result<ExitCode> {
    let engine = data_folder::ask(&config).await?;
    let time = options.time.unwrap_or_else(muniment_engine::now);
    let table = Table { name: &options.table, source: options.source.as_deref() };
    if let Some(key) = &options.key {
        let state = entity_at(&engine, table, key, time).await?;
        let Some(state) = state else {
            if entity_history(&engine, table, key, HistoryOptions { limit: 1, ..HistoryOptions::default() }).await?.is_empty() {
                return Err(unknown(&engine, table, Some(key)).await);
            }
            return Err(CliError::Usage(format!("{} {key} did not exist at {}", options.table, shown_time(time))));
        };
        if options.json {
            print_json(&state)?;
        } else {
            print(line(&state).as_bytes())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (mut page, mut empty) = (TableAtOptions::default(), true);
    loop {
        let rows = table_at(&engine, table, time, &page).await?;
        empty &= rows.rows.is_empty();
        for state in &rows.rows {
            let going = if options.json { print_line(state)? } else { print(line(state).as_bytes())? };
            if !going {
                return Ok(ExitCode::SUCCESS);
            }
        }
        page.after = rows.next;
        if page.after.is_none() {
            let known = !empty || tables_like(&engine, &options.table).await?.contains(&options.table);
            return if known { Ok(ExitCode::SUCCESS) } else { Err(unknown(&engine, table, None).await) };
        }
    }
}

fn line(state: &State) -> String {
    let who = plain(state.changed_by_username.as_deref().unwrap_or("nobody named"));
    let (key, document) = (plain(&state.primary_key), plain(state.document.get()));
    format!("{key}  {document}  (last {} at {} by {who})\n", state.operation, shown_time(state.changed_at))
}

fn print_line(value: &impl serde::Serialize) -> Result<bool> {
    print((to_json(value, false)? + "\n").as_bytes())
}

/// Prints JSON over several lines.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print((to_json(value, true)? + "\n").as_bytes()).map(drop)
}

fn to_json(value: &impl serde::Serialize, pretty: bool) -> Result<String> {
    let json = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    json.map_err(|error| CliError::Usage(format!("the result can't be written as JSON: {error}")))
}

/// A time in µs UTC as RFC 3339.
pub fn shown_time(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).map_or_else(|| format!("{micros} µs"), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}
