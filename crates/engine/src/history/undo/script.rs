//! Scripts as text. Every name and every value is quoted here; what can't be quoted is refused.
//!
//! A script must change everything or nothing, also in clients that go on after an error:
//! PostgreSQL's transactions refuse what follows an error; in SQLite the check rolls back and takes the table that all other statements ask with it; SQL Server stops at
//! `THROW`; MySQL's client stops unless it is told to go on, and then the statements that follow find their check table too short.

use super::plan::{Field, Inverse, Step, content};
use super::{Dialect, Refusal, Selection};
use crate::history::{JSON_NULL, unwrapped};
use serde_json::value::RawValue;
use std::fmt::Write;

/// Writes the script; or says which steps can't be written.
pub(super) fn write(dialect: Dialect, selection: &Selection, steps: &[&Step]) -> Result<String, Vec<Refusal>> {
    let writer: &dyn Writer = match dialect {
        Dialect::Postgresql => &Postgresql,
        Dialect::Sqlite => &Sqlite,
        Dialect::Mysql => &Mysql,
        Dialect::Sqlserver => &Sqlserver,
    };
    let (begin, end) = writer.frame();
    let mut script = header(selection, steps.len()) + begin;
    let mut refusals = Vec::new();
    let mut done = 0;
    for together in steps.chunk_by(|a, b| writer.inserts_together() && a.is_insert() && b.is_insert()) {
        let before = refusals.len();
        let mut texts = String::new();
        for step in together {
            done += 1;
            match writer.step(step, done) {
                Ok(text) => {
                    let _ = write!(texts, "\n-- record {}\n{text}", step.record);
                }
                Err(reason) => refusals.push(Refusal {
                    record: step.record,
                    table: step.table.clone(),
                    primary_key: step.primary_key.clone(),
                    later: None,
                    reason,
                }),
            }
        }
        if together.len() > 1 && refusals.len() == before {
            texts = writer.inserts(together).unwrap_or(texts);
        }
        script.push_str(&texts);
    }
    script.push('\n');
    script.push_str(end);
    if refusals.is_empty() { Ok(script) } else { Err(refusals) }
}

fn header(selection: &Selection, statements: usize) -> String {
    let plain = |text: &str| text.chars().filter(|character| !character.is_control()).collect::<String>();
    let what = match selection {
        Selection::Record(id) => format!("record {id}"),
        Selection::Transaction(id) => format!("transaction {}", plain(id)),
        Selection::User { name: Some(name), .. } => format!("what {} did", plain(name)),
        Selection::User { id, .. } => format!("what user {} did", id.unwrap_or_default()),
    };
    format!(
        "-- Takes back {what}: {statements} statements, newest change first. Read it, then run it as one: it changes everything or nothing,\n\
         -- and fails if a row is not as the log says.\n"
    )
}

/// One way to write SQL.
trait Writer {
    /// What comes before and after the statements.
    fn frame(&self) -> (&'static str, &'static str);
    /// A step with its check; steps are numbered from 1.
    fn step(&self, step: &Step, number: usize) -> Result<String, String>;
    /// Whether it can insert rows of several tables at once, so that references between them are looked at when all are there.
    fn inserts_together(&self) -> bool {
        false
    }
    /// Steps that insert rows as one, each of which can be written by itself.
    fn inserts(&self, _steps: &[&Step]) -> Result<String, String> {
        Err("it writes them one by one".to_owned())
    }
}

/// A name in its quotes; a quote within is doubled.
fn quoted(name: &str, open: char, close: char) -> Result<String, String> {
    if name.is_empty() || name.contains('\0') {
        return Err("it has a name that can't be quoted".to_owned());
    }
    Ok(format!("{open}{}{close}", name.replace(close, &format!("{close}{close}"))))
}

/// A table with its schema. The log has it unquoted, so a name with more dots than parts could be two tables.
fn table(name: &str, parts: usize, open: char, close: char) -> Result<String, String> {
    if name.split('.').count() > parts {
        return Err(format!("`{name}` could be several tables"));
    }
    let parts: Result<Vec<String>, String> = name.split('.').map(|part| quoted(part, open, close)).collect();
    Ok(parts?.join("."))
}

/// A text between single quotes, where a backslash is a character as any other.
fn text(value: &str) -> Result<String, String> {
    if value.contains('\0') {
        return Err("it has a text with a NUL character".to_owned());
    }
    Ok(format!("'{}'", value.replace('\'', "''")))
}

fn list<'a>(
    fields: impl Iterator<Item = &'a Field>,
    separator: &str,
    write: impl Fn(&Field) -> Result<String, String>,
) -> Result<String, String> {
    let items: Result<Vec<String>, String> = fields.map(write).collect();
    Ok(items?.join(separator))
}

struct Postgresql;

impl Postgresql {
    fn name(name: &str) -> Result<String, String> {
        quoted(name, '"', '"')
    }

    /// A row as JSON. A JSON null is left out: see [`Self::value`].
    fn object<'a>(fields: impl Iterator<Item = &'a Field>) -> Result<String, String> {
        let fields = fields.filter(|(_, value)| value.get() != JSON_NULL);
        let object =
            list(fields, ",", |(name, value)| Ok(format!("{}:{}", serde_json::Value::from(name.as_str()), unwrapped(value).get())))?;
        Ok(format!("{{{object}}}"))
    }

    /// A row as the table's own type reads it from JSON, so that no value needs its type named.
    fn row<'a>(table: &str, fields: impl Iterator<Item = &'a Field>) -> Result<String, String> {
        Ok(format!("json_populate_record(NULL::{table}, {})", text(&Self::object(fields)?)?))
    }

    /// A statement that is checked, in a block that can hold it.
    fn block(statement: &str, rows: usize, reason: &str) -> String {
        let mut tag = "$undo$".to_owned();
        for attempt in 1.. {
            if !statement.contains(&tag) {
                break;
            }
            tag = format!("$undo{attempt}$");
        }
        format!("DO {tag} DECLARE n bigint; BEGIN\n{statement}\nIF n <> {rows} THEN RAISE EXCEPTION '{reason}'; END IF;\nEND {tag};\n")
    }

    /// A field of a row of this alias.
    fn value(alias: &str, (name, value): &Field) -> Result<String, String> {
        if value.get() == JSON_NULL { Ok("'null'".to_owned()) } else { Ok(format!("{alias}.{}", Self::name(name)?)) }
    }

    fn statement(step: &Step) -> Result<String, String> {
        let table = table(&step.table, 2, '"', '"')?;
        let now = Self::row(&table, step.key.iter().chain(&step.expected))?;
        let key = list(step.key.iter(), " AND ", |field| Ok(format!("t.{} = {}", Self::name(&field.0)?, Self::value("n", field)?)))?;
        let others = list(step.expected.iter(), "", |field| {
            Ok(format!(" AND t.{}::text IS NOT DISTINCT FROM {}::text", Self::name(&field.0)?, Self::value("n", field)?))
        })?;
        Ok(match &step.inverse {
            Inverse::Delete => format!("DELETE FROM {table} AS t USING {now} AS n\nWHERE {key}{others};"),
            Inverse::Update(set) => {
                let kept = step.expected.iter().chain(&step.key).filter(|(name, _)| !set.iter().any(|(changed, _)| changed == name));
                let old = Self::row(&table, set.iter().chain(kept))?;
                let set = list(set.iter(), ", ", |field| Ok(format!("{} = {}", Self::name(&field.0)?, Self::value("o", field)?)))?;
                format!("UPDATE {table} AS t SET {set}\nFROM {old} AS o, {now} AS n\nWHERE {key}{others};")
            }
            Inverse::Insert(row) => {
                let names = list(row.iter(), ", ", |(name, _)| Self::name(name))?;
                let values = list(row.iter(), ", ", |field| Self::value("o", field))?;
                let row = Self::row(&table, row.iter())?;
                format!("INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE\nSELECT {values} FROM {row} AS o;")
            }
        })
    }
}

impl Writer for Postgresql {
    fn frame(&self) -> (&'static str, &'static str) {
        (include_str!("postgresql_begin.sql"), include_str!("postgresql_end.sql"))
    }

    fn step(&self, step: &Step, _: usize) -> Result<String, String> {
        let statement = format!("{}\nGET DIAGNOSTICS n = ROW_COUNT;", Self::statement(step)?);
        Ok(Self::block(&statement, 1, &format!("record {}: the row is not as it left it", step.record)))
    }

    fn inserts_together(&self) -> bool {
        true
    }

    /// One statement for all rows: PostgreSQL looks at references when it ends, so that rows that went by ON DELETE CASCADE may come before the row that they belong to.
    fn inserts(&self, steps: &[&Step]) -> Result<String, String> {
        let mut groups: Vec<(String, String, String, Vec<String>)> = Vec::new();
        for step in steps {
            let Inverse::Insert(row) = &step.inverse else { continue };
            let table = table(&step.table, 2, '"', '"')?;
            let names = list(row.iter(), ", ", |(name, _)| Self::name(name))?;
            let values = list(row.iter(), ", ", |field| Self::value("o", field))?;
            let object = Self::object(row.iter())?;
            match groups.iter_mut().find(|group| (&group.0, &group.1, &group.2) == (&table, &names, &values)) {
                Some(group) => group.3.push(object),
                None => groups.push((table, names, values, vec![object])),
            }
        }
        let (mut inserts, mut counts) = (Vec::new(), Vec::new());
        for (number, (table, names, values, rows)) in groups.iter().enumerate() {
            let rows = text(&format!("[{}]", rows.join(",\n")))?;
            inserts.push(format!(
                "r{number} AS (INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE\n\
                 SELECT {values} FROM json_populate_recordset(NULL::{table}, {rows}) AS o RETURNING 1)"
            ));
            counts.push(format!("(SELECT count(*) FROM r{number})"));
        }
        let statement = format!("WITH {}\nSELECT {} INTO n;", inserts.join(",\n"), counts.join(" + "));
        let records: Vec<String> = steps.iter().map(|step| step.record.to_string()).collect();
        let block = Self::block(&statement, steps.len(), "not all rows could be inserted");
        Ok(format!("\n-- records {}\n{block}", records.join(", ")))
    }
}

/// Statements with literals: what differs between the other dialects.
struct Literals<'a> {
    table: String,
    name: &'a dyn Fn(&str) -> Result<String, String>,
    value: &'a dyn Fn(&RawValue) -> Result<String, String>,
    equal: &'a str,
    /// Follows the conditions of every statement.
    guard: &'a str,
    /// What an INSERT selects from.
    nothing: &'a str,
}

impl Literals<'_> {
    fn statement(&self, step: &Step) -> Result<String, String> {
        let literal = |value: &RawValue| (self.value)(&unwrapped(value));
        let condition = |(name, value): &Field| match value.get() {
            "null" => Ok(format!("{} IS NULL", (self.name)(name)?)),
            _ => Ok(format!("{} {} {}", (self.name)(name)?, self.equal, literal(value)?)),
        };
        let found = list(step.key.iter().chain(&step.expected), " AND ", condition)?;
        let (table, guard) = (&self.table, self.guard);
        Ok(match &step.inverse {
            Inverse::Delete => format!("DELETE FROM {table}\nWHERE {found}{guard};"),
            Inverse::Update(set) => {
                let set = list(set.iter(), ", ", |(name, value)| Ok(format!("{} = {}", (self.name)(name)?, literal(value)?)))?;
                format!("UPDATE {table} SET {set}\nWHERE {found}{guard};")
            }
            Inverse::Insert(row) => {
                let names = list(row.iter(), ", ", |(name, _)| (self.name)(name))?;
                let values = list(row.iter(), ", ", |(_, value)| literal(value))?;
                format!("INSERT INTO {table} ({names})\nSELECT {values}{}{guard};", self.nothing)
            }
        })
    }
}

/// The hexadecimal digits of a value that every way in writes for bytes: `\\x00ff`. A text of this form is taken for bytes, too.
fn bytes(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("\\x")?;
    (digits.len() % 2 == 0 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(digits)
}

fn number(value: &RawValue) -> Option<&str> {
    let text = value.get();
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then_some(text)
}

struct Sqlite;

impl Sqlite {
    fn value(value: &RawValue) -> Result<String, String> {
        Ok(match (value.get(), number(value)) {
            ("null", _) => "NULL".to_owned(),
            ("true", _) => "1".to_owned(),
            ("false", _) => "0".to_owned(),
            (_, Some(number)) => number.to_owned(),
            _ => match bytes(&content(value)) {
                Some(digits) => format!("X'{digits}'"),
                None => text(&content(value))?,
            },
        })
    }
}

impl Writer for Sqlite {
    fn frame(&self) -> (&'static str, &'static str) {
        (include_str!("sqlite_begin.sql"), include_str!("sqlite_end.sql"))
    }

    fn step(&self, step: &Step, number: usize) -> Result<String, String> {
        let name = |name: &str| quoted(name, '"', '"');
        let (schema, rest) = step.table.split_once('.').unwrap_or(("main", &step.table));
        let table = format!("{}.{}", name(schema)?, name(rest)?);
        let guard = format!(" AND (SELECT count(*) FROM temp.muniment_undo) = {}", number - 1);
        let literals = Literals { table, name: &name, value: &Self::value, equal: "IS", guard: &guard, nothing: " WHERE 1" };
        Ok(format!("{}\nINSERT OR ROLLBACK INTO temp.muniment_undo (found) SELECT changes();\n", literals.statement(step)?))
    }
}

struct Mysql;

impl Mysql {
    fn value(value: &RawValue) -> Result<String, String> {
        Ok(match (value.get(), number(value)) {
            ("null", _) => "NULL".to_owned(),
            ("true", _) => "TRUE".to_owned(),
            ("false", _) => "FALSE".to_owned(),
            (_, Some(number)) => number.to_owned(),
            (JSON_NULL, _) => "CAST('null' AS JSON)".to_owned(),
            (json, _) if json.starts_with(['{', '[']) => format!("CAST({} AS JSON)", Self::text(json)?),
            _ => match bytes(&content(value)) {
                Some(digits) => format!("X'{digits}'"),
                None => Self::text(&content(value))?,
            },
        })
    }

    /// A backslash means what the session's mode says, so a text with one is written byte by byte.
    fn text(value: &str) -> Result<String, String> {
        if value.contains('\\') { Ok(format!("_utf8mb4 X'{}'", hex::encode(value))) } else { text(value) }
    }
}

impl Writer for Mysql {
    fn frame(&self) -> (&'static str, &'static str) {
        (include_str!("mysql_begin.sql"), include_str!("mysql_end.sql"))
    }

    fn step(&self, step: &Step, number: usize) -> Result<String, String> {
        let name = |name: &str| quoted(name, '`', '`');
        let guard = format!(" AND (SELECT count(*) FROM muniment_undo) = {}", number - 1);
        let literals = Literals {
            table: table(&step.table, 2, '`', '`')?,
            name: &name,
            value: &Self::value,
            equal: "<=>",
            guard: &guard,
            nothing: " FROM DUAL WHERE TRUE",
        };
        Ok(format!("{}\nINSERT INTO muniment_undo (found) VALUES (ROW_COUNT());\n", literals.statement(step)?))
    }
}

struct Sqlserver;

impl Sqlserver {
    fn value(value: &RawValue) -> Result<String, String> {
        Ok(match (value.get(), number(value)) {
            ("null", _) => "NULL".to_owned(),
            ("true", _) => "1".to_owned(),
            ("false", _) => "0".to_owned(),
            (_, Some(number)) => number.to_owned(),
            _ => match bytes(&content(value)) {
                Some(digits) => format!("0x{digits}"),
                None => format!("N{}", text(&content(value))?),
            },
        })
    }
}

impl Writer for Sqlserver {
    fn frame(&self) -> (&'static str, &'static str) {
        (include_str!("sqlserver_begin.sql"), include_str!("sqlserver_end.sql"))
    }

    fn step(&self, step: &Step, _: usize) -> Result<String, String> {
        let name = |name: &str| quoted(name, '[', ']');
        let literals =
            Literals { table: table(&step.table, 3, '[', ']')?, name: &name, value: &Self::value, equal: "=", guard: "", nothing: "" };
        let statement = literals.statement(step)?;
        let reason = format!("record {}: the row is not as it left it", step.record);
        Ok(format!("{statement}\nIF @@ROWCOUNT <> 1 THROW 50000, N'{reason}', 1;\n"))
    }
}

#[cfg(test)]
mod tests;
