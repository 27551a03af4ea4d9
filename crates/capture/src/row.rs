//! A row as a JSON object: exact numbers, typed text, and markers where a value is too large to be kept. Every way in writes rows with these
//! functions, so that the same row has the same text whatever it came through.
//!
//! A member of a row is the value itself, or a marker, an object whose one member begins with `$`:
//!
//! | marker | meaning |
//! | --- | --- |
//! | `{"$omitted":{"bytes":N,"sha256":"hex"}}` | The value's text has N bytes and this hash, and is too large to be kept. With `"depth":D`: it is nested D levels deep. |
//! | `{"$unchanged":true}` | The value is what it was before the change; the source did not send it. Only with key-only replica identity. |
//! | `{"$hex":"…"}` | Bytes that are not UTF-8 (databases of encoding `SQL_ASCII`), or a text with NUL (SQLite). |
//! | `{"$json":"…"}` | The text of a JSON value that can't stand here as it is: `null`, which would be taken for NULL; an object that would be taken for a marker; an escape that stands for no character. |

use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Most bytes of one value's JSON.
pub const MAX_VALUE_BYTES: usize = 256 << 10;
/// Most bytes of one row's JSON.
pub const MAX_ROW_BYTES: usize = 900 << 10;
/// Most levels of nesting in one value.
pub const MAX_DEPTH: usize = 60;
/// Names of the markers, in their quotes.
const MARKERS: [&str; 4] = ["\"$omitted\"", "\"$unchanged\"", "\"$hex\"", "\"$json\""];
/// What stands for a masked value.
const MASK: &[u8] = b"\"***\"";

/// How a value's text becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// A number, digit for digit; `NaN` and the infinities are strings.
    Number,
    /// `t` or `f`.
    Bool,
    /// JSON, embedded.
    Json,
    /// A string.
    Text,
}

impl ValueKind {
    /// The kind of a built-in PostgreSQL type, by its name in `pg_type`. Domains go by their base type; arrays are text.
    pub fn of_postgres_type(name: &str) -> Self {
        match name {
            "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" => Self::Number,
            "bool" => Self::Bool,
            "json" | "jsonb" => Self::Json,
            _ => Self::Text,
        }
    }

    /// The kind of a built-in PostgreSQL type, by its object id.
    pub fn of_postgres_oid(oid: u32) -> Self {
        match oid {
            20 | 21 | 23 | 700 | 701 | 1700 => Self::Number,
            16 => Self::Bool,
            114 | 3802 => Self::Json,
            _ => Self::Text,
        }
    }
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// The source's text of the value.
    Text(&'a str),
    /// Bytes in place of text.
    Bytes(&'a [u8]),
    /// As before the change.
    Unchanged,
}

/// A column, as a row's JSON needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowColumn {
    /// Name.
    pub name: String,
    /// How its text becomes JSON.
    pub kind: ValueKind,
    /// Whether `***` stands for its values.
    pub masked: bool,
    /// `"name":`
    member: Vec<u8>,
}

impl RowColumn {
    /// A column.
    pub fn new(name: impl Into<String>, kind: ValueKind, masked: bool) -> Self {
        let name = name.into();
        let mut member = Vec::with_capacity(name.len() + 3);
        write_string(&name, &mut member);
        member.push(b':');
        Self { name, kind, masked, member }
    }
}

/// Appends a row as a JSON object, members in the order given. If it would be longer than [`MAX_ROW_BYTES`], markers replace its largest values.
pub fn row_json<'a>(members: impl Iterator<Item = (&'a RowColumn, Value<'a>)> + Clone, out: &mut Vec<u8>) {
    let start = out.len();
    write_row(members.clone(), out, |_| true);
    if out.len() - start > MAX_ROW_BYTES {
        out.truncate(start);
        let kept = fitting(members.clone());
        write_row(members, out, |index| kept[index]);
    }
}

fn write_row<'a>(members: impl Iterator<Item = (&'a RowColumn, Value<'a>)>, out: &mut Vec<u8>, keep: impl Fn(usize) -> bool) {
    out.push(b'{');
    for (index, (column, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&column.member);
        match value {
            _ if column.masked => out.extend_from_slice(MASK),
            Value::Text(text) if !keep(index) => omitted(text.as_bytes(), None, out),
            Value::Bytes(bytes) if !keep(index) => omitted(bytes, None, out),
            Value::Text(text) => value_json(column.kind, text, out),
            Value::Bytes(bytes) => bytes_json(bytes, out),
            Value::Null => out.extend_from_slice(b"null"),
            Value::Unchanged => out.extend_from_slice(b"{\"$unchanged\":true}"),
        }
    }
    out.push(b'}');
}

/// Which members can stay when the largest go, until the rest fits.
fn fitting<'a>(members: impl Iterator<Item = (&'a RowColumn, Value<'a>)>) -> Vec<bool> {
    let mut scratch = Vec::new();
    let mut sizes: Vec<(usize, usize)> = Vec::new();
    let mut total = 2;
    for (index, member) in members.enumerate() {
        scratch.clear();
        write_row(std::iter::once(member), &mut scratch, |_| true);
        sizes.push((scratch.len(), index));
        total += scratch.len();
    }
    let mut kept = vec![true; sizes.len()];
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    for (size, index) in sizes {
        if total <= MAX_ROW_BYTES {
            break;
        }
        kept[index] = false;
        // A marker takes at most 120 bytes.
        total = total.saturating_sub(size.saturating_sub(120));
    }
    kept
}

/// Appends one value as JSON, or a marker if that would be longer than [`MAX_VALUE_BYTES`] or deeper than [`MAX_DEPTH`].
pub fn value_json(kind: ValueKind, text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    match kind {
        ValueKind::Number if is_number(text.as_bytes()) => out.extend_from_slice(text.as_bytes()),
        ValueKind::Bool if text == "t" || text == "true" => out.extend_from_slice(b"true"),
        ValueKind::Bool if text == "f" || text == "false" => out.extend_from_slice(b"false"),
        ValueKind::Json if is_ambiguous(text) => json_text(text.trim_ascii(), out),
        ValueKind::Json => match embedded(text, out) {
            Ok(()) => {}
            Err(Unfit::Deep(depth)) => {
                out.truncate(start);
                return omitted(text.as_bytes(), Some(depth), out);
            }
            Err(Unfit::NotUnicode) => {
                out.truncate(start);
                json_text(text, out);
            }
        },
        _ if text.len() > MAX_VALUE_BYTES => {}
        // No column takes NUL. PostgreSQL's texts have none, but SQLite's may.
        _ if !is_plain(text) && text.contains('\0') => bytes_json(text.as_bytes(), out),
        _ => write_string(text, out),
    }
    if out.len() - start > MAX_VALUE_BYTES || text.len() > MAX_VALUE_BYTES {
        out.truncate(start);
        omitted(text.as_bytes(), None, out);
    }
}

/// Whether a JSON value would be taken for something else in a row.
fn is_ambiguous(text: &str) -> bool {
    let text = text.trim_ascii();
    let member = text.strip_prefix('{').map(str::trim_ascii_start);
    text == "null" || member.is_some_and(|member| MARKERS.iter().any(|marker| member.starts_with(marker)))
}

fn json_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"$json\":");
    write_string(text, out);
    out.push(b'}');
}

fn bytes_json(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.len() > MAX_VALUE_BYTES / 2 {
        return omitted(bytes, None, out);
    }
    out.extend_from_slice(b"{\"$hex\":\"");
    out.extend_from_slice(hex::encode(bytes).as_bytes());
    out.extend_from_slice(b"\"}");
}

fn omitted(text: &[u8], depth: Option<usize>, out: &mut Vec<u8>) {
    let depth = depth.map(|depth| format!(",\"depth\":{depth}")).unwrap_or_default();
    let hash = hex::encode(Sha256::digest(text));
    out.extend_from_slice(format!("{{\"$omitted\":{{\"bytes\":{},\"sha256\":\"{hash}\"{depth}}}}}", text.len()).as_bytes());
}

/// Whether the text is a JSON number: `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`.
fn is_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then(|| &text[count..])
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let rest = match text {
        [b'0', rest @ ..] => Some(rest),
        _ => digits(text),
    };
    let rest = match rest {
        Some([b'.', fraction @ ..]) => digits(fraction),
        rest => rest,
    };
    match rest {
        Some([b'e' | b'E', b'+' | b'-', exponent @ ..]) => digits(exponent).is_some_and(<[u8]>::is_empty),
        Some([b'e' | b'E', exponent @ ..]) => digits(exponent).is_some_and(<[u8]>::is_empty),
        rest => rest.is_some_and(<[u8]>::is_empty),
    }
}

enum Unfit {
    /// Nested this deep.
    Deep(usize),
    /// Has an escape that stands for no character, or is no JSON.
    NotUnicode,
}

/// Copies a JSON document; line ends between its tokens become spaces.
fn embedded(text: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let bytes = text.as_bytes();
    let (mut depth, mut deepest, mut in_string, mut at) = (0usize, 0usize, false, 0);
    let mut escapes = false;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                escapes |= bytes.get(at + 1) == Some(&b'u');
                at += 1;
            }
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    if deepest > MAX_DEPTH {
        return Err(Unfit::Deep(deepest));
    }
    // PostgreSQL has checked `json` and `jsonb`, but lets half surrogates and NUL pass in `json`.
    if escapes && (text.contains("\\u0000") || serde_json::from_str::<serde_json::Value>(text).is_err()) {
        return Err(Unfit::NotUnicode);
    }
    out.extend(bytes.iter().map(|byte| if *byte < 0x20 { b' ' } else { *byte }));
    Ok(())
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether a byte of a text can't stand in a JSON string as it is.
fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Whether a text is its own JSON string, but for the quotes. Looks at all of it, since that is many bytes at a time; most texts are.
fn is_plain(text: &str) -> bool {
    !text.bytes().fold(false, |found, byte| found | is_escaped(byte))
}

/// Appends a text as a JSON string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        write_escaped(text.as_bytes(), out);
    }
    out.push(b'"');
}

fn write_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate().filter(|(_, byte)| is_escaped(**byte)) {
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// At most `chars` characters of a text.
pub(crate) fn cut(text: &str, chars: usize) -> &str {
    if text.len() <= chars {
        return text;
    }
    text.char_indices().nth(chars).map_or(text, |(at, _)| &text[..at])
}

/// A text without NUL, which columns don't take.
pub(crate) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn check(kind: ValueKind, text: &str, expected: &str) {
        let mut out = Vec::new();
        value_json(kind, text, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{kind:?} {text}");
    }

    #[test]
    fn values() {
        for exact in ["0", "-0", "12.50", "1e+20", "1e-05", "99999999999999999999.000000000000000000001", "-7"] {
            check(ValueKind::Number, exact, exact);
        }
        for text in ["NaN", "Infinity", "-Infinity", "", "01", "1.", ".5", "1e", "$1.00"] {
            check(ValueKind::Number, text, &format!("\"{text}\""));
        }
        check(ValueKind::Bool, "t", "true");
        check(ValueKind::Bool, "f", "false");
        check(ValueKind::Text, "a\"b\\c\n\u{1}đ", "\"a\\\"b\\\\c\\n\\u0001đ\"");
        check(ValueKind::Json, "{\"a\":\n [1.0, \"}]\\\"\"]}", "{\"a\":  [1.0, \"}]\\\"\"]}");
        check(ValueKind::Text, "a\0b", r#"{"$hex":"610062"}"#);
        check(ValueKind::Json, r#""\ud800""#, r#"{"$json":"\"\\ud800\""}"#);
        check(ValueKind::Json, r#""\ud83d\ude00""#, r#""\ud83d\ude00""#);
        check(ValueKind::Json, r#"["\u0000"]"#, r#"{"$json":"[\"\\u0000\"]"}"#);
        check(ValueKind::Json, " null\n", r#"{"$json":"null"}"#);
        check(ValueKind::Json, r#"{ "$unchanged":true}"#, r#"{"$json":"{ \"$unchanged\":true}"}"#);
        check(ValueKind::Json, r#"{"$oid":"5f"}"#, r#"{"$oid":"5f"}"#);
        check(ValueKind::Json, r#"{"a":null}"#, r#"{"a":null}"#);
    }

    #[test]
    fn too_deep() {
        let depth = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        check(ValueKind::Json, &depth(60), &depth(60));
        let mut out = Vec::new();
        value_json(ValueKind::Json, &depth(61), &mut out);
        assert!(String::from_utf8(out).unwrap().ends_with("\"depth\":61}}"));
    }

    #[test]
    fn too_large() {
        let text = "x".repeat(MAX_VALUE_BYTES);
        let hash = hex::encode(Sha256::digest(text.as_bytes()));
        check(ValueKind::Text, &text, &format!("{{\"$omitted\":{{\"bytes\":262144,\"sha256\":\"{hash}\"}}}}"));
        let columns: Vec<RowColumn> = (0..1600).map(|n| RowColumn::new(format!("c{n}"), ValueKind::Text, false)).collect();
        let texts: Vec<String> = (0..1600).map(|n| "y".repeat(if n == 7 { 200_000 } else { 500 })).collect();
        let mut out = Vec::new();
        row_json(columns.iter().zip(texts.iter().map(|text| Value::Text(text))), &mut out);
        assert!(out.len() <= MAX_ROW_BYTES);
        let row: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(row["c7"]["$omitted"]["bytes"], 200_000);
        assert_eq!(row["c8"], texts[8]);
    }

    #[test]
    fn masked_and_absent() {
        let columns = [RowColumn::new("a\"b", ValueKind::Text, true), RowColumn::new("c", ValueKind::Number, false)];
        let mut out = Vec::new();
        row_json(columns.iter().zip([Value::Text("secret"), Value::Unchanged]), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a\"b":"***","c":{"$unchanged":true}}"#);
    }

    proptest! {
        #[test]
        fn any_text_is_json(kind in prop_oneof![Just(ValueKind::Number), Just(ValueKind::Bool), Just(ValueKind::Text)], text in "\\PC*|[\\x00-\\x7f]{0,20}") {
            let mut out = Vec::new();
            value_json(kind, &text, &mut out);
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            if text.contains('\0') {
                prop_assert_eq!(&value["$hex"], &hex::encode(&text));
            } else if kind == ValueKind::Text {
                prop_assert_eq!(value.as_str(), Some(text.as_str()));
            }
        }

        #[test]
        fn numbers_are_those_of_json(text in "-?[0-9.eE+]{0,8}") {
            prop_assert_eq!(is_number(text.as_bytes()), serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
        }
    }
}
