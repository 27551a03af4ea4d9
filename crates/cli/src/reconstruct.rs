//! `muniment blame`, `muniment transaction` and `muniment undo`: who is answerable, what belongs together, and how to take it back.

use crate::args::{Blame, Dialect, Transaction, Undo};
use crate::columns::plain;
use crate::config::Config;
use crate::data_folder;
use crate::entity::{describe, print_json, shortened, shown_time, shown_user, unknown};
use crate::error::{CliError, Result};
use crate::sql::print;
use muniment_capture::envelope::KeyHints;
use muniment_engine::history::{self, Author, Selection, Table, UndoOptions};
use std::fmt::Write;
use std::process::ExitCode;

/// Prints each field of an entity with the change that gave it its value.
pub async fn blame(config: Config, options: Blame) -> Result<ExitCode> {
    let engine = data_folder::ask(&config).await?;
    let time = options.time.unwrap_or(i64::MAX);
    let table = Table { name: &options.table, source: options.source.as_deref() };
    let found = history::blame(&engine, table, &options.key, time).await?;
    let Some(found) = found else { return Err(unknown(&engine, table, Some(&options.key)).await) };
    if options.json {
        print_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{} {}: ", found.table, found.primary_key);
    match found.exists {
        true => text.push_str(&format!("{} fields\n", found.fields.len())),
        false => text.push_str(&format!("gone, {} {}\n", found.last.operation, by(&found.last))),
    }
    for field in &found.fields {
        let _ = writeln!(text, "\n{}: {}", plain(&field.field), shortened(field.value.get()));
        match &field.since {
            Some(author) => describe_author(author, &mut text),
            None => text.push_str("  older than the log\n"),
        }
    }
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn by(author: &Author) -> String {
    format!("{} by {}", shown_time(author.changed_at), shown_user(&author.changed_by_username, author.changed_by))
}

fn describe_author(author: &Author, text: &mut String) {
    let _ = writeln!(text, "  since {} ({}, record {})", by(author), author.operation, author.id);
    let notes = [
        ("why", &author.change_reason),
        ("process", &author.business_context),
        ("workflow", &author.workflow_instance_id),
        ("session", &author.session_id),
        ("address", &author.ip_address),
        ("transaction", &author.transaction_id),
    ];
    for (name, value) in notes {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name}: {}", plain(value));
        }
    }
}

/// Prints all changes of a transaction.
pub async fn transaction(config: Config, options: Transaction) -> Result<ExitCode> {
    let engine = data_folder::ask(&config).await?;
    let limit = usize::try_from(config.query.rows).unwrap_or(usize::MAX).saturating_sub(1);
    let found = history::transaction(&engine, &options.id, limit).await?;
    let found = found.ok_or_else(|| CliError::Usage(format!("there is no change of the transaction {}", options.id)))?;
    if options.json {
        print_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(format!("{}: {} changes\n", found.transaction_id, found.changes.len()).as_bytes())?;
    for change in &found.changes {
        let mut text = format!("\n{} {}", plain(&change.table), plain(&change.primary_key));
        describe(&change.change, &mut text);
        if !print(text.as_bytes())? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if found.truncated {
        print(b"\nThere are more changes than one query may return.\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an undo script; or, with exit code 1, why there is none.
pub async fn undo(config: Config, options: Undo) -> Result<ExitCode> {
    let keys = KeyHints::parse(options.key.as_deref().unwrap_or_default()).map_err(|error| CliError::Usage(error.to_string()))?;
    let dialect = match options.dialect {
        Dialect::Postgresql => history::Dialect::Postgresql,
        Dialect::Sqlite => history::Dialect::Sqlite,
        Dialect::Mysql => history::Dialect::Mysql,
        Dialect::Sqlserver => history::Dialect::Sqlserver,
    };
    let selection = match (options.record, options.transaction) {
        (Some(record), _) => Selection::Record(record),
        (None, Some(transaction)) => Selection::Transaction(transaction),
        (None, None) => {
            let (from, to) = (options.from.unwrap_or_default(), options.to.unwrap_or_default());
            Selection::User { name: options.user, id: options.user_id, from, to }
        }
    };
    let engine = data_folder::ask(&config).await?;
    let found = history::undo(&engine, &selection, &UndoOptions { dialect, keys, source: options.source }).await?;
    let found = found.ok_or_else(|| CliError::Usage("the selection has no change of a row".to_owned()))?;
    let code = if found.script.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if options.json {
        print_json(&found)?;
        return Ok(code);
    }
    if let Some(script) = &found.script {
        print(script.as_bytes())?;
        return Ok(code);
    }
    eprintln!("refused: {} of {} records can't be taken back", found.refusals.len(), found.records);
    for refusal in &found.refusals {
        eprintln!("  record {} ({} {}): {}", refusal.record, plain(&refusal.table), plain(&refusal.primary_key), plain(&refusal.reason));
    }
    Ok(code)
}
