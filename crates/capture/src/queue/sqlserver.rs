//! SQL Server: the queue and its triggers as T-SQL, to be reviewed and run by whoever owns the database. Muniment itself takes SQL Server's changes as Debezium
//! envelopes; this is the design's own queue, with images and context, for those who want it in the database. It has been parsed, but not been run on a server.

use crate::error::{CaptureError, Result};

/// Most tables of one script, and columns of one key.
const MOST_TABLES: usize = 1000;
const MOST_KEY_COLUMNS: usize = 32;
/// Most characters of a name.
const NAME_CHARS: usize = 128;

/// A table whose changes are to be queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlServerTable {
    /// Schema; `dbo` if the table has none of its own.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Columns of the key, in key order.
    pub key: Vec<String>,
}

impl SqlServerTable {
    /// Reads `schema.table(key, key)`; names may stand in brackets.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] if it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || CaptureError::Refused(format!("{text:?} names no table with its key: expected schema.table(column, column)"));
        let mut rest = text.trim();
        let (first, after) = name(rest).ok_or_else(refused)?;
        rest = after;
        let (schema, table) = match rest.strip_prefix('.') {
            Some(after) => {
                let (second, after) = name(after).ok_or_else(refused)?;
                rest = after;
                (first, second)
            }
            None => ("dbo".to_owned(), first),
        };
        rest = rest.trim_start().strip_prefix('(').ok_or_else(refused)?;
        let mut key = Vec::new();
        loop {
            let (column, after) = name(rest.trim_start()).ok_or_else(refused)?;
            key.push(column);
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => break,
            }
        }
        if rest != ")" || key.len() > MOST_KEY_COLUMNS {
            return Err(refused());
        }
        Ok(Self { schema, name: table, key })
    }
}

/// A name at the start of a text, plain or in brackets, and what comes after it.
fn name(text: &str) -> Option<(String, &str)> {
    let (name, rest) = match text.strip_prefix('[') {
        None => {
            let end = text.find(|c: char| !(c.is_alphanumeric() || "_@$#".contains(c))).unwrap_or(text.len());
            (text[..end].to_owned(), &text[end..])
        }
        Some(mut inside) => {
            let mut name = String::new();
            loop {
                let end = inside.find(']')?;
                name.push_str(&inside[..end]);
                inside = &inside[end + 1..];
                match inside.strip_prefix(']') {
                    Some(after) => {
                        name.push(']');
                        inside = after;
                    }
                    None => break (name, inside),
                }
            }
        }
    };
    let is_name = !name.is_empty() && name.chars().count() <= NAME_CHARS && !name.chars().any(char::is_control);
    is_name.then_some((name, rest))
}

fn identifier(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

fn literal(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// The script: schema, queue, context, one trigger for each table, and the processing procedure. Batches end with `GO`.
///
/// # Errors
/// [`CaptureError::Refused`] if there is no table, or too many, or one without a key.
pub fn print(tables: &[SqlServerTable]) -> Result<String> {
    if tables.is_empty() || tables.len() > MOST_TABLES {
        return Err(CaptureError::Refused(format!("between 1 and {MOST_TABLES} tables are needed")));
    }
    let mut script = include_str!("sqlserver/install.sql").to_owned();
    for table in tables {
        if table.key.is_empty() {
            return Err(CaptureError::Refused(format!(
                "{}.{} needs a key, by which old and new rows are paired",
                table.schema, table.name
            )));
        }
        script.push_str(&trigger(table));
    }
    script.push_str(include_str!("sqlserver/process.sql"));
    Ok(script)
}

fn trigger(table: &SqlServerTable) -> String {
    let per_key = |between: &str, one: &dyn Fn(&str) -> String| {
        table.key.iter().map(|column| one(&identifier(column))).collect::<Vec<_>>().join(between)
    };
    let text = |side: &str, column: &str| format!("CONVERT(NVARCHAR(4000), {side}.{column})");
    let key_of = |side: &str| match &table.key[..] {
        [only] => text(side, &identifier(only)),
        several => {
            let quoted = |column: &String| format!("N'\"' + STRING_ESCAPE({}, 'json') + N'\"'", text(side, &identifier(column)));
            format!("N'[' + {} + N']'", several.iter().map(quoted).collect::<Vec<_>>().join(" + N',' + "))
        }
    };
    let values = [
        ("{trigger}", format!("{}.{}", identifier(&table.schema), identifier(&format!("tr_{}_Audit", table.name)))),
        ("{table}", format!("{}.{}", identifier(&table.schema), identifier(&table.name))),
        ("{name}", literal(&format!("{}.{}", table.schema, table.name))),
        ("{join}", per_key(" AND ", &|column| format!("i.{column} = d.{column}"))),
        ("{image_of_old}", per_key(" AND ", &|column| format!("o.{column} = d.{column}"))),
        ("{image_of_new}", per_key(" AND ", &|column| format!("n.{column} = i.{column}"))),
        ("{inserted_key}", identifier(&table.key[0])),
        ("{old_key}", key_of("d")),
        ("{new_key}", key_of("i")),
    ];
    values.iter().fold(include_str!("sqlserver/trigger.sql").to_owned(), |text, (place, value)| text.replace(place, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tables() {
        let check = |text: &str, schema: &str, name: &str, key: &[&str]| {
            let table = SqlServerTable::parse(text).unwrap();
            assert_eq!((table.schema.as_str(), table.name.as_str()), (schema, name));
            assert_eq!(table.key, key);
        };
        check("case.HOSO(HoSoID)", "case", "HOSO", &["HoSoID"]);
        check("T (a, [b ]] c])", "dbo", "T", &["a", "b ] c"]);
        check("[my schema].[T.1](id)", "my schema", "T.1", &["id"]);
        for wrong in ["", "a", "a.b", "a.b()", "a.b(c", "a.b(c) d", "a b(c)", "[a(b)", "a.b(c,)"] {
            assert!(SqlServerTable::parse(wrong).is_err(), "{wrong}");
        }
        assert!(print(&[]).is_err());
    }
}
