//! Patterns that name tables and columns: `case.hoso`, `identity.*`, `*.*`, `"My Schema"."T"`, `identity.users.password`.

use crate::error::{CaptureError, Result};

/// Most patterns of one kind.
const PATTERNS: usize = 1000;
/// Most bytes of a pattern.
const PATTERN_BYTES: usize = 400;

/// Names of things that are never captured: the server's own schemas and ours.
pub(crate) fn is_system_schema(schema: &str) -> bool {
    schema == "information_schema" || schema == "muniment" || schema.starts_with("pg_")
}

/// A part of a name, in which `*` stands for any characters unless it was quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    text: String,
    quoted: bool,
}

impl Part {
    fn is_exact(&self) -> bool {
        self.quoted || !self.text.contains('*')
    }

    fn matches(&self, name: &str) -> bool {
        if self.is_exact() {
            return self.text == name;
        }
        let mut pieces = self.text.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let pieces: Vec<&str> = pieces.collect();
        let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
        for piece in middle {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }

    /// The same as a pattern of SQL's LIKE.
    fn like(&self) -> String {
        let escaped = self.text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        if self.is_exact() { escaped } else { escaped.replace('*', "%") }
    }
}

/// A pattern of tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePattern {
    schema: Part,
    table: Part,
}

impl TablePattern {
    /// Reads a pattern; a name without a schema is of the schema `public`.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] if it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = parts(text)?;
        let wrong =
            || CaptureError::Refused(format!("{text:?} names no table: expected schema.table, in which * stands for any characters"));
        match (parts.pop(), parts.pop(), parts.pop()) {
            (Some(table), Some(schema), None) => Ok(Self { schema, table }),
            (Some(table), None, None) => Ok(Self { schema: Part { text: "public".to_owned(), quoted: false }, table }),
            _ => Err(wrong()),
        }
    }

    /// Whether it names exactly one table.
    pub fn is_exact(&self) -> bool {
        self.schema.is_exact() && self.table.is_exact()
    }

    /// Whether it matches a table, which is none of the server's own.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        !is_system_schema(schema) && self.schema.matches(schema) && self.table.matches(table)
    }

    /// Schema and table as they were written.
    pub fn names(&self) -> (&str, &str) {
        (&self.schema.text, &self.table.text)
    }

    /// Schema and table as patterns of SQL's LIKE.
    pub fn like(&self) -> (String, String) {
        (self.schema.like(), self.table.like())
    }
}

/// A pattern of columns: of a table pattern, one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnPattern {
    table: TablePattern,
    column: Part,
}

impl ColumnPattern {
    /// Reads a pattern: `schema.table.column` or `table.column`.
    ///
    /// # Errors
    /// [`CaptureError::Refused`] if it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = parts(text)?;
        let public = || Part { text: "public".to_owned(), quoted: false };
        match (parts.pop(), parts.pop(), parts.pop(), parts.pop()) {
            (Some(column), Some(table), schema, None) => {
                Ok(Self { table: TablePattern { schema: schema.unwrap_or_else(public), table }, column })
            }
            _ => Err(CaptureError::Refused(format!("{text:?} names no column: expected schema.table.column"))),
        }
    }

    /// Whether it matches a column.
    pub fn matches(&self, schema: &str, table: &str, column: &str) -> bool {
        self.table.matches(schema, table) && self.column.matches(column)
    }

    /// Whether it names exactly one column.
    pub fn is_exact(&self) -> bool {
        self.table.is_exact() && self.column.is_exact()
    }

    /// The pattern as it was written, without quotation marks.
    pub fn text(&self) -> String {
        format!("{}.{}.{}", self.table.schema.text, self.table.table.text, self.column.text)
    }

    /// Schema, table and column as patterns of SQL's LIKE.
    pub fn like(&self) -> (String, String, String) {
        let (schema, table) = self.table.like();
        (schema, table, self.column.like())
    }
}

/// Reads patterns of tables.
///
/// # Errors
/// If one is none, or there are too many.
pub fn table_patterns(texts: &[String]) -> Result<Vec<TablePattern>> {
    limited(texts)?;
    texts.iter().map(|text| TablePattern::parse(text)).collect()
}

/// Reads patterns of columns.
///
/// # Errors
/// If one is none, or there are too many.
pub fn column_patterns(texts: &[String]) -> Result<Vec<ColumnPattern>> {
    limited(texts)?;
    texts.iter().map(|text| ColumnPattern::parse(text)).collect()
}

fn limited(texts: &[String]) -> Result<()> {
    if texts.len() > PATTERNS {
        return Err(CaptureError::Refused(format!("{} patterns are more than {PATTERNS}", texts.len())));
    }
    Ok(())
}

/// The parts of a dotted name, of which any may be quoted as in SQL.
fn parts(text: &str) -> Result<Vec<Part>> {
    let wrong = |reason: &str| CaptureError::Refused(format!("{text:?} is not a name: {reason}"));
    if text.len() > PATTERN_BYTES {
        return Err(wrong("it is too long"));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(inner) => quoted(inner).ok_or_else(|| wrong("a quotation mark is missing"))?,
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (Part { text: rest[..end].to_owned(), quoted: false }, &rest[end..])
            }
        };
        if part.text.is_empty() {
            return Err(wrong("a part of it is empty"));
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err(wrong("after a quotation mark a dot is expected")),
        }
    }
}

fn quoted(inner: &str) -> Option<(Part, &str)> {
    let mut text = String::new();
    let mut rest = inner;
    loop {
        let (before, after) = rest.split_once('"')?;
        text.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                text.push('"');
                rest = next;
            }
            None => return Some((Part { text, quoted: true }, after)),
        }
    }
}

/// An identifier as SQL writes it.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table with its schema as SQL writes it.
pub fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(table))
}

/// A text as SQL writes it, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_match() {
        let check = |pattern: &str, schema: &str, table: &str, expected: bool| {
            assert_eq!(TablePattern::parse(pattern).unwrap().matches(schema, table), expected, "{pattern} {schema}.{table}");
        };
        check("case.hoso", "case", "hoso", true);
        check("case.hoso", "case", "hoso2", false);
        check("identity.*", "identity", "users", true);
        check("identity.*", "identity2", "users", false);
        check("*.*", "any", "thing", true);
        check("*.*", "pg_catalog", "pg_class", false);
        check("*.*", "information_schema", "tables", false);
        check("*.*", "muniment", "source", false);
        check("users", "public", "users", true);
        check("app.ev*_20*4", "app", "events_2024", true);
        check("app.ev*_20*4", "app", "events_2025", false);
        check("app.a*a", "app", "a", false);
        check("app.a*a", "app", "aa", true);
        check(r#""My Schema"."T.""x""*""#, "My Schema", r#"T."x"*"#, true);
        check(r#""My Schema"."T*""#, "My Schema", "Tx", false);
        check("hồ.sơ", "hồ", "sơ", true);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["", ".", "a.", ".b", "a.b.c", r#""a"#, r#""a"b.c"#, &"x".repeat(401)] {
            assert!(TablePattern::parse(wrong).is_err(), "{wrong}");
        }
        assert!(ColumnPattern::parse("password").is_err());
    }

    #[test]
    fn columns_match() {
        let pattern = ColumnPattern::parse("*.*.password").unwrap();
        assert!(pattern.matches("identity", "users", "password"));
        assert!(!pattern.matches("identity", "users", "name"));
        assert!(ColumnPattern::parse("users.password").unwrap().matches("public", "users", "password"));
    }

    #[test]
    fn like_patterns() {
        assert_eq!(TablePattern::parse("a_b.x*%").unwrap().like(), ("a\\_b".to_owned(), "x%\\%".to_owned()));
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b"), "E'a\\\\b'");
    }
}
