//! Users from a file: CSV with a heading, or one JSON object a line. All of it is taken, or nothing and every bad field is named with its line.

use super::{CHANGEABLE, EXTERNAL_IDS, NEW, USERS, external};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::fields::{self, register};
use muniment_model::{LineError, Rejection, Table};
use muniment_store::register::{ChangedBy, Lookup, RegisterChange, RegisterRow, Value, Values};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;

/// Most users of a file.
const MOST: usize = 100_000;
/// Errors that are told.
const TOLD: usize = 100;

/// Form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportFormat {
    /// Comma-separated values; the first line names the fields.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// What is done with users that are there already, by log-in name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// They are errors.
    #[default]
    Refuse,
    /// Their fields are changed to what the file says.
    Update,
    /// They stay as they are.
    Skip,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Users that are new.
    pub added: usize,
    /// Users that were changed.
    pub updated: usize,
    /// Users that stayed as they were.
    pub unchanged: usize,
}

/// Errors by line and field.
#[derive(Default)]
struct Errors {
    total: usize,
    told: Vec<LineError>,
}

impl Errors {
    fn add(&mut self, line: u64, field: Option<&str>, reason: impl Into<String>) {
        self.total += 1;
        if self.told.len() < TOLD {
            self.told.push(LineError { line, field: field.map(str::to_owned), reason: reason.into() });
        }
    }

    fn into_result(self) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        Err(EngineError::Invalid(Rejection { total: self.total, errors: self.told, too_large: false }))
    }
}

/// Fields of a line, by its number.
type Line = (u64, Map<String, Json>);

impl Engine {
    /// Takes users from a file's contents, all or none.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] names every line and field that is wrong.
    pub async fn import_users(&self, contents: &[u8], format: ImportFormat, existing: Existing, by: &ChangedBy) -> Result<Imported> {
        let table = register(USERS)?;
        let mut errors = Errors::default();
        let lines = match format {
            ImportFormat::Csv => csv_lines(contents, &mut errors),
            ImportFormat::Ndjson => ndjson_lines(contents, &mut errors),
        };
        let rows = self.store().db().find_in_register(&Lookup::new(table, Vec::new())).await?;
        let others = self.store().db().find_in_register(&Lookup::new(register(EXTERNAL_IDS)?, Vec::new())).await?;
        let mut plan = Plan::new(table, &rows, &others, existing);
        for (line, object) in &lines {
            plan.take(*line, object, &mut errors);
        }
        if plan.done.added + plan.done.updated > MOST {
            errors.add(1, None, format!("a file has at most {MOST} users"));
        }
        errors.into_result()?;
        self.store().db().change_registers(&plan.changes, by).await.map_err(super::taken)?;
        self.sight().forget_external();
        Ok(plan.done)
    }
}

/// What a file comes to.
struct Plan<'a> {
    table: &'static Table,
    existing: Existing,
    by_name: HashMap<&'a str, &'a RegisterRow>,
    by_external_id: HashMap<&'a str, i64>,
    /// Names, external ids and numbers that the file has used, with their lines.
    used: HashMap<(&'static str, String), u64>,
    changes: Vec<RegisterChange>,
    done: Imported,
}

impl<'a> Plan<'a> {
    fn new(table: &'static Table, rows: &'a [RegisterRow], others: &'a [RegisterRow], existing: Existing) -> Self {
        let by_name = rows.iter().filter_map(|row| Some((row.text("username")?, row))).collect();
        let first = rows.iter().filter_map(|row| Some((row.text("external_id")?, row.id())));
        let by_external_id = first.chain(others.iter().filter_map(|row| Some((row.text("external_id")?, row.int("user_id")?)))).collect();
        Self { table, existing, by_name, by_external_id, used: HashMap::new(), changes: Vec::new(), done: Imported::default() }
    }

    fn take(&mut self, line: u64, object: &Map<String, Json>, errors: &mut Errors) {
        let before = errors.total;
        let values = self.values(line, object, errors);
        let Some((_, Value::Text(username))) = values.iter().find(|(name, _)| *name == "username") else {
            if errors.total == before {
                errors.add(line, Some("username"), "is missing");
            }
            return;
        };
        let known = self.by_name.get(username.as_str()).copied();
        self.unique(line, &values, known.map(RegisterRow::id), errors);
        if errors.total > before {
            return;
        }
        match (known, self.existing) {
            (None, _) => {
                self.done.added += 1;
                self.changes.push(RegisterChange::Insert { table: self.table, values });
            }
            (Some(_), Existing::Refuse) => errors.add(line, Some("username"), format!("there is a user {username:?} already")),
            (Some(_), Existing::Skip) => self.done.unchanged += 1,
            (Some(row), Existing::Update) => self.update(row, values),
        }
    }

    fn values(&self, line: u64, object: &Map<String, Json>, errors: &mut Errors) -> Values {
        let mut values = Vec::new();
        for (name, json) in object {
            let mut taken = fields::field(self.table, name, json, &NEW);
            if let Ok(("external_id", Value::Text(text))) = &mut taken {
                match external::canonical(text) {
                    Ok(form) => *text = form,
                    Err(error) => taken = Err(error),
                }
            }
            match taken {
                Ok(value) => values.push(value),
                Err(EngineError::Parameter { name: "body", .. }) => {
                    errors.add(line, Some(name), format!("there is no such field; there are {}", NEW.join(", ")));
                }
                Err(EngineError::Parameter { reason, .. }) => errors.add(line, Some(name), reason),
                Err(error) => errors.add(line, Some(name), error.to_string()),
            }
        }
        values
    }

    fn unique(&mut self, line: u64, values: &Values, owner: Option<i64>, errors: &mut Errors) {
        for (name, value) in values {
            let text = match (name, value) {
                (&"username" | &"external_id", Value::Text(text)) => text.clone(),
                (&"id", Value::Int(id)) => id.to_string(),
                _ => continue,
            };
            if *name == "external_id" && self.by_external_id.get(text.as_str()).is_some_and(|id| Some(*id) != owner) {
                errors.add(line, Some(name), format!("another user has {text:?}"));
            }
            if let Some(first) = self.used.insert((name, text.clone()), line) {
                errors.add(line, Some(name), format!("line {first} has {text:?}, too"));
            }
        }
    }

    fn update(&mut self, row: &RegisterRow, values: Values) {
        let mut values: Values = values.into_iter().filter(|(name, value)| CHANGEABLE.contains(name) && row.get(name) != value).collect();
        if values.is_empty() {
            self.done.unchanged += 1;
            return;
        }
        self.done.updated += 1;
        values.push(("updated_at", crate::now().into()));
        self.changes.push(RegisterChange::Update { table: self.table, id: row.id(), values, expected: Vec::new() });
    }
}

fn ndjson_lines(contents: &[u8], errors: &mut Errors) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(contents.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(Json::Object(object)) => lines.push((number, object)),
            Ok(_) => errors.add(number, None, "must be a JSON object"),
            Err(error) => errors.add(number, None, format!("is not JSON: {error}")),
        }
    }
    lines
}

/// Empty cells are fields that are not given; `id` is a number.
fn csv_lines(contents: &[u8], errors: &mut Errors) -> Vec<Line> {
    let contents = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(contents);
    let heading = match reader.headers() {
        Ok(heading) => heading.clone(),
        Err(error) => {
            errors.add(1, None, format!("is not CSV in UTF-8: {error}"));
            return Vec::new();
        }
    };
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                errors.add(line, None, format!("is not CSV in UTF-8 with {} fields: {error}", heading.len()));
                continue;
            }
        };
        let cell = |(name, text): (&str, &str)| {
            let json = match name {
                "id" => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
                _ => json!(text),
            };
            (name.to_owned(), json)
        };
        let object = heading.iter().zip(&record).filter(|(_, text)| !text.is_empty()).map(cell).collect();
        lines.push((record.position().map_or(0, csv::Position::line), object));
    }
    lines
}
