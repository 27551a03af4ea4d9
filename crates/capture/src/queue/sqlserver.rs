//! SQL Server: the queue and its triggers as T-SQL, to be reviewed and run by whoever owns the database. Muniment itself takes SQL Server's changes as Debezium
//! envelopes; this is the design's own queue, with images and context, for those who want it in the database. It has been parsed, but not been run on a server.

use crate::error::{CaptureError, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Most tables of one script, and columns of one key.
const MOST_TABLES: usize = 1000;
const MOST_KEY_COLUMNS: usize = 32;
/// Most characters of a name, as SQL Server counts them: units of UTF-16.
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
        let refused = || {
            CaptureError::Refused(format!(
                "{text:?} names no table with its key: expected schema.table(column, column), with names that have blanks or signs in brackets"
            ))
        };
        let (mut path, rest) = dotted(text.trim()).ok_or_else(refused)?;
        let mut rest = rest.trim_start().strip_prefix('(').ok_or_else(refused)?;
        let mut key = Vec::new();
        loop {
            let (column, after) = name(rest.trim_start()).ok_or_else(refused)?;
            if key.contains(&column) {
                return Err(refused());
            }
            key.push(column);
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => break,
            }
        }
        let name = path.pop().ok_or_else(refused)?;
        let schema = path.pop().unwrap_or_else(|| "dbo".to_owned());
        if rest != ")" || key.len() > MOST_KEY_COLUMNS || !path.is_empty() {
            return Err(refused());
        }
        Ok(Self { schema, name, key })
    }
}

/// What the queue gets of a column that is not to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// Nothing.
    LeftOut,
    /// `***` in place of each value that is not NULL.
    Masked,
}

/// A column that is not to be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenColumn {
    schema: String,
    table: String,
    column: String,
    how: Hidden,
}

impl HiddenColumn {
    /// Reads `schema.table.column`; names may stand in brackets.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] if it is none.
    pub fn parse(text: &str, how: Hidden) -> Result<Self> {
        let refused = || CaptureError::Refused(format!("{text:?} names no column: expected schema.table.column"));
        let (path, rest) = dotted(text.trim()).ok_or_else(refused)?;
        match <[String; 3]>::try_from(path) {
            Ok([schema, table, column]) if rest.is_empty() => Ok(Self { schema, table, column, how }),
            _ => Err(refused()),
        }
    }
}

/// Names with dots between them, and what comes after them.
fn dotted(text: &str) -> Option<(Vec<String>, &str)> {
    let (first, mut rest) = name(text)?;
    let mut path = vec![first];
    while let Some(after) = rest.strip_prefix('.') {
        let (next, after) = name(after)?;
        path.push(next);
        rest = after;
    }
    Some((path, rest))
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
    let is_name = !name.is_empty() && name.encode_utf16().count() <= NAME_CHARS && !name.chars().any(char::is_control);
    is_name.then_some((name, rest))
}

fn identifier(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

fn literal(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// The script: schema, queue, context, one trigger for each table, and the processing procedures. Batches end with `GO`.
///
/// # Errors
/// [`CaptureError::Refused`] if there is no table, too many, one twice, one without a key, or a hidden column of none of them or of a key.
pub fn print(tables: &[SqlServerTable], hidden: &[HiddenColumn]) -> Result<String> {
    if tables.is_empty() || tables.len() > MOST_TABLES {
        return Err(CaptureError::Refused(format!("between 1 and {MOST_TABLES} tables are needed")));
    }
    let mut hidden_of: BTreeMap<(&str, &str), Vec<&HiddenColumn>> = BTreeMap::new();
    for table in tables {
        if table.key.is_empty() {
            return Err(CaptureError::Refused(format!(
                "{}.{} needs a key, by which old and new rows are paired",
                table.schema, table.name
            )));
        }
        if hidden_of.insert((&table.schema, &table.name), Vec::new()).is_some() {
            return Err(CaptureError::Refused(format!("{}.{} is given twice", table.schema, table.name)));
        }
    }
    for column in hidden {
        let HiddenColumn { schema, table, column: name, .. } = column;
        let refused = |why: &str| Err(CaptureError::Refused(format!("{schema}.{table}.{name} can't be left out or masked: {why}")));
        let Some(columns) = hidden_of.get_mut(&(schema.as_str(), table.as_str())) else {
            return refused("its table is none of those given");
        };
        if tables.iter().any(|given| (&given.schema, &given.name) == (schema, table) && given.key.contains(name)) {
            return refused("it belongs to the key");
        }
        if columns.iter().any(|earlier| earlier.column == *name) {
            return refused("it is given twice");
        }
        columns.push(column);
    }
    let mut script = include_str!("sqlserver/install.sql").to_owned();
    for table in tables {
        script.push_str(&trigger(table, &hidden_of[&(table.schema.as_str(), table.name.as_str())]));
    }
    script.push_str(include_str!("sqlserver/process.sql"));
    Ok(script)
}

/// The name of a table's trigger; that of a table with a long name ends in a checksum.
fn trigger_name(table: &SqlServerTable) -> String {
    let whole = format!("tr_{}_Audit", table.name);
    if whole.encode_utf16().count() <= NAME_CHARS {
        return whole;
    }
    let start: String = table.name.chars().take(NAME_CHARS / 4).collect();
    let digest = Sha256::digest(table.name.as_bytes());
    format!("tr_{start}_{:08x}_Audit", u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
}

fn trigger(table: &SqlServerTable, hidden: &[&HiddenColumn]) -> String {
    let between =
        |separator: &str, one: &dyn Fn(&str) -> String| table.key.iter().map(|column| one(column)).collect::<Vec<_>>().join(separator);
    let key_of = |side: &str| {
        let text =
            |column: &str| format!("JSON_VALUE((SELECT {side}.{} AS k FOR JSON PATH, WITHOUT_ARRAY_WRAPPER), N'$.k')", identifier(column));
        match &table.key[..] {
            [only] => text(only),
            _ => {
                let quoted = between(" + N',' + ", &|column| format!("N'\"' + STRING_ESCAPE({}, 'json') + N'\"'", text(column)));
                format!("N'[' + {quoted} + N']'")
            }
        }
    };
    let values_of = |side: &str| {
        let whole = format!("(SELECT {side}.* FOR JSON PATH, INCLUDE_NULL_VALUES, WITHOUT_ARRAY_WRAPPER)");
        hidden.iter().fold(whole, |values, hidden| {
            let column = identifier(&hidden.column);
            let path = format!("$.\"{}\"", hidden.column.replace('\\', "\\\\").replace('"', "\\\""));
            match hidden.how {
                Hidden::LeftOut => {
                    format!(
                        "JSON_MODIFY({values}, {}, CASE WHEN {side}.{column} IS NULL THEN CONVERT(NVARCHAR(1), NULL) END)",
                        literal(&path)
                    )
                }
                Hidden::Masked => {
                    format!(
                        "JSON_MODIFY({values}, {}, CASE WHEN {side}.{column} IS NOT NULL THEN N'***' END)",
                        literal(&format!("strict {path}"))
                    )
                }
            }
        })
    };
    let name = literal(&format!("{}.{}", table.schema, table.name));
    let qualified = format!("{}.{}", identifier(&table.schema), identifier(&table.name));
    let object = literal(&qualified);
    let trigger = format!("{}.{}", identifier(&table.schema), identifier(&trigger_name(table)));
    let checks = hidden.iter().map(|hidden| {
        let column = literal(&hidden.column);
        fill(include_str!("sqlserver/hidden.sql"), &[("object", &object), ("name", &name), ("column", &column)])
    });
    fill(
        include_str!("sqlserver/trigger.sql"),
        &[
            ("checks", &checks.collect::<String>()),
            ("trigger", &trigger),
            ("trigger_name", &literal(&trigger)),
            ("table", &qualified),
            ("object", &object),
            ("name", &name),
            ("key_names", &between(", ", &literal)),
            ("join", &between(" AND ", &|column| format!("i.{0} = d.{0}", identifier(column)))),
            ("inserted_key", &identifier(&table.key[0])),
            ("old_key", &key_of("d")),
            ("new_key", &key_of("i")),
            ("old_values", &values_of("d")),
            ("new_values", &values_of("i")),
        ],
    )
}

/// A text with values in place of `{name}`. Values are taken as they are, also where they contain braces.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut pieces = text.split('{');
    filled.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let known = piece.split_once('}').and_then(|(place, after)| Some((values.iter().find(|(name, _)| *name == place)?.1, after)));
        match known {
            Some((value, after)) => {
                filled.push_str(value);
                filled.push_str(after);
            }
            None => {
                filled.push('{');
                filled.push_str(piece);
            }
        }
    }
    filled
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
        for wrong in ["", "a", "a.b", "a.b()", "a.b(c", "a.b(c) d", "a b(c)", "[a(b)", "a.b(c,)", "a.b(c, c)", "a.b.c(d)"] {
            assert!(SqlServerTable::parse(wrong).is_err(), "{wrong}");
        }
        assert!(print(&[], &[]).is_err());
    }

    #[test]
    fn hidden_columns() {
        let table = SqlServerTable::parse("identity.USERS(id)").unwrap();
        let printed = |column: &str| print(std::slice::from_ref(&table), &[HiddenColumn::parse(column, Hidden::LeftOut)?]);
        assert!(printed("identity.USERS.[the \"word\"]").unwrap().contains(r#"N'$."the \"word\""'"#));
        for (column, why) in [
            ("identity.USERS.id", "key"),
            ("identity.ROLES.name", "none of those given"),
            ("USERS.name", "expected"),
            ("a.b.c d", "expected"),
        ] {
            let error = printed(column).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(print(&[table.clone(), table.clone()], &[]).is_err());
    }

    #[test]
    fn names_are_taken_as_they_are() {
        let odd = SqlServerTable::parse("[{name}].[{join}]([{table}])").unwrap();
        let script = print(&[odd], &[]).unwrap();
        assert!(script.contains("ON [{name}].[{join}]\n"), "{script}");
        assert!(script.contains("i.[{table}] = d.[{table}]"), "{script}");
        let long = SqlServerTable::parse(&format!("{}(id)", "x".repeat(NAME_CHARS))).unwrap();
        assert!(trigger_name(&long).len() <= NAME_CHARS);
    }
}
