//! Images of rows as the triggers store them (`row_to_json`), turned into the row JSON that all ways in share: the text of a value doesn't depend on
//! the settings of the session that wrote it, and arrays and composites are text.

use super::time;
use crate::change::key_text;
use crate::error::{CaptureError, Result};
use crate::row::{RowColumn, Value, ValueKind, row_json};
use muniment_model::members;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;

/// Levels of arrays and composites within each other.
pub(super) const MAX_LEVELS: usize = 16;

/// How a value of a type is written in an image, as far as that differs from its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Its text is its text.
    Plain(ValueKind),
    Float4,
    Float8,
    Timestamp,
    Timestamptz,
    TimestamptzRange,
    Bytea,
    Array(Box<Form>),
    Composite(Vec<Form>),
}

impl Form {
    fn kind(&self) -> ValueKind {
        match self {
            Self::Plain(kind) => *kind,
            Self::Float4 | Self::Float8 => ValueKind::Number,
            _ => ValueKind::Text,
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub row: RowColumn,
    pub form: Form,
    /// Whether the server computes it: it is not recorded, since it can't be written back.
    pub is_generated: bool,
}

impl Column {
    pub fn new(name: impl Into<String>, form: Form, masked: bool) -> Self {
        Self { row: RowColumn::new(name, form.kind(), masked), form, is_generated: false }
    }
}

/// What is known of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub columns: Vec<Column>,
    pub by_name: HashMap<String, usize>,
    pub key: Vec<String>,
}

impl Shape {
    pub fn push(&mut self, column: Column) {
        self.by_name.insert(column.row.name.clone(), self.columns.len());
        self.columns.push(column);
    }
}

/// An image: columns in order with the texts of their values.
#[derive(Debug, Default)]
pub(super) struct Image {
    members: Vec<(usize, Column, Option<String>)>,
}

impl Image {
    /// Reads what a trigger has stored. Columns that the table no longer has keep the form that their JSON has.
    pub fn parse(shape: &Shape, text: &str) -> Result<Self> {
        let members = members(text).map_err(|error| CaptureError::Malformed(format!("an image is not valid: {error}")))?;
        let mut image = Self::default();
        for (name, raw) in members {
            let at = shape.by_name.get(&name).copied();
            let column = match at.and_then(|at| shape.columns.get(at)) {
                Some(column) => column.clone(),
                None => Column::new(name, Form::Plain(guess(raw.get())), false),
            };
            let value = value_text(&column.form, raw.get(), 0)?.map(Cow::into_owned);
            image.members.push((at.unwrap_or(usize::MAX), column, value));
        }
        image.members.sort_by_key(|(at, ..)| *at);
        Ok(image)
    }

    /// Appends the row as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        let written = self.members.iter().filter(|(_, column, _)| !column.is_generated);
        row_json(written.map(|(_, column, text)| (&column.row, text.as_deref().map_or(Value::Null, Value::Text))), out);
    }

    /// Whether it has all of these columns.
    pub fn has(&self, columns: &[String]) -> bool {
        columns.iter().all(|name| self.members.iter().any(|(_, column, _)| column.row.name == *name))
    }

    /// Texts of the key's columns; without a key, of all columns.
    pub fn key(&self, columns: &[String]) -> Cow<'_, str> {
        let texts: Vec<Option<&str>> = if columns.is_empty() {
            self.members.iter().map(|(.., text)| text.as_deref()).collect()
        } else {
            columns.iter().map(|name| self.text(name)).collect()
        };
        Cow::Owned(key_text(&texts).into_owned())
    }

    /// Text of a column's value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|(_, column, _)| column.row.name == name).and_then(|(.., text)| text.as_deref())
    }

    /// `changed: a, b, c`; `masked` are the masked columns that changed.
    pub fn changed(&self, new: &Self, masked: &[String]) -> String {
        let mut out = String::new();
        for (_, column, text) in new.members.iter().filter(|(_, column, _)| !column.is_generated) {
            let name = &column.row.name;
            let is_masked = masked.contains(name);
            if is_masked || self.text(name) != text.as_deref() {
                out.push_str(if out.is_empty() { "changed: " } else { ", " });
                out.push_str(name);
                out.push_str(if is_masked { " (masked)" } else { "" });
            }
        }
        out
    }
}

/// The kind of a value of which only its JSON is known.
fn guess(raw: &str) -> ValueKind {
    match raw.as_bytes().first() {
        Some(b'{' | b'[') => ValueKind::Json,
        Some(b't' | b'f') => ValueKind::Bool,
        Some(b'-' | b'0'..=b'9') => ValueKind::Number,
        _ => ValueKind::Text,
    }
}

/// The text that PostgreSQL itself gives a value; `None` for NULL.
fn value_text<'a>(form: &Form, raw: &'a str, level: usize) -> Result<Option<Cow<'a, str>>> {
    if raw == "null" {
        return Ok(None);
    }
    if level > MAX_LEVELS {
        return Err(CaptureError::Malformed(format!("a value is nested more than {MAX_LEVELS} levels deep")));
    }
    let malformed = |error| CaptureError::Malformed(format!("a value is not valid: {error}"));
    if *form == Form::Plain(ValueKind::Json) {
        return Ok(Some(Cow::Borrowed(raw)));
    }
    Ok(Some(match (form, raw.as_bytes().first()) {
        (_, Some(b'"')) => {
            let text: String = serde_json::from_str(raw).map_err(malformed)?;
            match form {
                Form::Timestamp => Cow::Owned(time::timestamp(&text).into_owned()),
                Form::Timestamptz => Cow::Owned(time::timestamptz(&text).into_owned()),
                Form::TimestamptzRange => Cow::Owned(time::timestamptz_range(&text).into_owned()),
                Form::Bytea if !text.starts_with("\\x") => Cow::Owned(bytea(&text)),
                _ => Cow::Owned(text),
            }
        }
        (Form::Array(element), Some(b'[')) => {
            let mut out = String::new();
            array_text(element, raw, level, &mut out)?;
            Cow::Owned(out)
        }
        (Form::Composite(fields), Some(b'{')) => Cow::Owned(record_text(fields, raw, level)?),
        (Form::Plain(ValueKind::Bool), Some(b't')) => Cow::Borrowed("t"),
        (Form::Plain(ValueKind::Bool), Some(b'f')) => Cow::Borrowed("f"),
        (Form::Float8, _) => raw.parse().map_or(Cow::Borrowed(raw), |value: f64| Cow::Owned(float_text(&format!("{value:e}"), 15))),
        (Form::Float4, _) => raw.parse().map_or(Cow::Borrowed(raw), |value: f32| Cow::Owned(float_text(&format!("{value:e}"), 6))),
        _ => Cow::Borrowed(raw),
    }))
}

/// `{1,"a b",NULL}`, nested for further dimensions.
fn array_text(element: &Form, raw: &str, level: usize, out: &mut String) -> Result<()> {
    let items: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|error| CaptureError::Malformed(format!("an array is not valid: {error}")))?;
    out.push('{');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let nested = item.get().starts_with('[') && *element != Form::Plain(ValueKind::Json) && level < MAX_LEVELS;
        if nested {
            array_text(element, item.get(), level + 1, out)?;
            continue;
        }
        match value_text(element, item.get(), level + 1)? {
            None => out.push_str("NULL"),
            Some(text) => {
                let special = |c: char| "{}\",\\".contains(c) || is_space(c);
                quoted(&text, text.is_empty() || text.eq_ignore_ascii_case("NULL") || text.contains(special), "\\\"", "\\\\", out);
            }
        }
    }
    out.push('}');
    Ok(())
}

/// `(1,"a b",)`
fn record_text(fields: &[Form], raw: &str, level: usize) -> Result<String> {
    let members = members(raw).map_err(|error| CaptureError::Malformed(format!("a composite is not valid: {error}")))?;
    let mut out = String::from("(");
    for (index, (_, item)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let text = ValueKind::Text;
        if let Some(text) = value_text(fields.get(index).unwrap_or(&Form::Plain(text)), item.get(), level + 1)? {
            quoted(&text, text.is_empty() || text.contains(|c: char| "()\",\\".contains(c) || is_space(c)), "\"\"", "\\\\", &mut out);
        }
    }
    out.push(')');
    Ok(out)
}

/// What PostgreSQL takes for space within arrays and composites.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

fn quoted(text: &str, needed: bool, quote: &str, backslash: &str, out: &mut String) {
    if !needed {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str(quote),
            '\\' => out.push_str(backslash),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// PostgreSQL's shortest text of a float from Rust's `d.ddde±x`.
fn float_text(scientific: &str, digits: i32) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e').and_then(|(m, e)| Some((m, e.parse::<i32>().ok()?))) else {
        return scientific.to_owned();
    };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    if !(-4..digits).contains(&exponent) {
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{exponent_sign}{:02}", exponent.abs());
    }
    let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let mut out = String::from(sign);
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', usize::try_from(-exponent - 1).unwrap_or_default()));
        out.push_str(&all);
        return out;
    }
    let whole = usize::try_from(exponent).unwrap_or_default() + 1;
    if all.len() <= whole {
        out.push_str(&all);
        out.extend(std::iter::repeat_n('0', whole - all.len()));
    } else {
        let _ = write!(out, "{}.{}", &all[..whole], &all[whole..]);
    }
    out
}

/// Bytes in the escape style, as hexadecimal digits.
fn bytea(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (String::from("\\x"), 0);
    while let Some(&byte) = bytes.get(at) {
        let octal = bytes
            .get(at + 1..at + 4)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (value, length) = match (byte, octal) {
            (b'\\', Some(value)) => (value, 4),
            (b'\\', None) => (b'\\', 2),
            (byte, _) => (byte, 1),
        };
        let _ = write!(out, "{value:02x}");
        at += length;
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(form: &Form, raw: &str, expected: &str) {
        assert_eq!(value_text(form, raw, 0).unwrap().unwrap(), expected, "{raw}");
    }

    #[test]
    fn values() {
        let text = || Form::Plain(ValueKind::Text);
        check(&Form::Array(Box::new(text())), r#"["a","b c","",null,"null","q\"\\"]"#, r#"{a,"b c","",NULL,"null","q\"\\"}"#);
        check(&Form::Array(Box::new(Form::Plain(ValueKind::Number))), "[[1,2],[3,null]]", "{{1,2},{3,NULL}}");
        check(&Form::Array(Box::new(Form::Plain(ValueKind::Bool))), "[true,false]", "{t,f}");
        check(&Form::Array(Box::new(Form::Timestamptz)), r#"["2024-01-01T07:00:00+07:00"]"#, r#"{"2024-01-01 00:00:00+00"}"#);
        check(
            &Form::Composite(vec![Form::Plain(ValueKind::Number), text(), text()]),
            r#"{"a":1,"b":"x \"y\"","c":null}"#,
            r#"(1,"x ""y""",)"#,
        );
        check(&Form::Bytea, r#""a\\\\b\\001""#, r"\x615c6201");
        check(&Form::Bytea, r#""\\x00ff""#, r"\x00ff");
        assert_eq!(value_text(&text(), "null", 0).unwrap(), None);
    }

    #[test]
    fn floats() {
        for same in ["0", "1", "-1.5", "0.0001", "1e-05", "123456789012345", "1e+15", "1.7976931348623157e+308", "5e-324", "-0", "100000"] {
            check(&Form::Float8, same, same);
        }
        check(&Form::Float4, "1e+06", "1e+06");
        check(&Form::Float4, "123456.0", "123456");
        check(&Form::Float8, &format!("1{}", "0".repeat(300)), "1e+300");
        check(&Form::Float8, "\"NaN\"", "NaN");
    }
}
