//! Masks by configuration: columns that are masked beside those that always are, and documents of which only some fields are.

use crate::MASK;
use crate::view::{ALWAYS_SEEN, added_columns};
use muniment_model::{Table, Type, members};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What stands for a masked field of a document that is shown otherwise. It is no value that a row of a table could have, so that nobody takes it for one.
pub const MASKED_FIELD: &str = r#"{"$masked":true}"#;

/// Stands for every table that has the column.
const EVERY_TABLE: &str = "*";
/// Depth down to which a document is looked through; what lies deeper is masked.
const MAX_DEPTH: usize = 64;

/// Why a mask can't be used as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}`: {reason}")]
pub struct MaskingError {
    /// The entry as it is written.
    pub entry: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Fields of JSON documents, by path. Case doesn't matter, and an array on the way stands for each of its elements.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldMasks(BTreeSet<Vec<String>>);

impl FieldMasks {
    /// The document with [`MASKED_FIELD`] in place of these fields' values. A text where an object is looked for may hold one as text, and is masked.
    pub fn apply<'a>(&self, document: &'a str) -> Cow<'a, str> {
        let paths: Vec<&[String]> = self.0.iter().map(Vec::as_slice).collect();
        match masked(document, &paths, 0) {
            None => Cow::Borrowed(document),
            Some(whole) if whole == MASKED_FIELD => Cow::Owned(format!("\"{MASK}\"")),
            Some(document) => Cow::Owned(document),
        }
    }
}

/// The value with its fields masked; `None` if it has none of them.
fn masked(value: &str, paths: &[&[String]], depth: usize) -> Option<String> {
    if paths.is_empty() {
        return None;
    }
    let whole = || Some(MASKED_FIELD.to_owned());
    let first = value.as_bytes().trim_ascii_start().first();
    match first {
        Some(b'{' | b'[') if depth >= MAX_DEPTH => whole(),
        Some(b'{') => match members(value) {
            Ok(entries) => masked_object(&entries, paths, depth),
            Err(_) => whole(),
        },
        Some(b'[') => match serde_json::from_str::<Vec<&RawValue>>(value) {
            Ok(elements) => masked_array(&elements, paths, depth),
            Err(_) => whole(),
        },
        Some(b'"') => whole(),
        _ => None,
    }
}

fn masked_object(entries: &[(String, &RawValue)], paths: &[&[String]], depth: usize) -> Option<String> {
    let of_field = |name: &str, value: &RawValue| {
        let name = name.to_lowercase();
        let below: Vec<&[String]> =
            paths.iter().filter_map(|path| path.split_first()).filter(|(first, _)| **first == name).map(|(_, rest)| rest).collect();
        if below.iter().any(|rest| rest.is_empty()) { Some(MASKED_FIELD.to_owned()) } else { masked(value.get(), &below, depth + 1) }
    };
    let found: Vec<Option<String>> = entries.iter().map(|(name, value)| of_field(name, value)).collect();
    found.iter().any(Option::is_some).then(|| {
        let fields = entries.iter().zip(&found).map(|((name, value), masked)| {
            let name = serde_json::Value::from(name.as_str());
            format!("{name}:{}", masked.as_deref().unwrap_or(value.get()))
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    })
}

fn masked_array(elements: &[&RawValue], paths: &[&[String]], depth: usize) -> Option<String> {
    let found: Vec<Option<String>> = elements.iter().map(|value| masked(value.get(), paths, depth + 1)).collect();
    found.iter().any(Option::is_some).then(|| {
        let values = elements.iter().zip(&found).map(|(value, masked)| masked.as_deref().unwrap_or(value.get()));
        format!("[{}]", values.collect::<Vec<_>>().join(","))
    })
}

/// What the configuration says of masks: for whoever reads *masked*, not for those who read in clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masking {
    tables: BTreeMap<&'static str, OfTable>,
}

/// What it says of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfTable {
    /// Columns that are masked.
    pub(crate) columns: BTreeSet<&'static str>,
    /// Columns with documents that are shown but for these fields.
    pub(crate) shown: BTreeMap<&'static str, Arc<FieldMasks>>,
}

/// A column, with the path of a field in it.
struct Entry<'a> {
    found: Vec<(&'static Table, &'static str)>,
    field: Vec<&'a str>,
}

impl Masking {
    /// Reads entries such as `sys_audit_log.change_reason`, `*.username` and `sys_audit_log.new_values.address.street` (`masked`), and columns with documents that are shown but
    /// for the fields among those (`shown`).
    ///
    /// # Errors
    /// Names the entry that no column answers to, or that can't be masked or shown.
    pub fn new(masked: &[String], shown: &[String]) -> Result<Self, MaskingError> {
        let mut masking = Self::default();
        let mut fields: BTreeMap<(&str, &str), FieldMasks> = BTreeMap::new();
        for text in masked {
            let wrong = |reason: String| MaskingError { entry: text.clone(), reason };
            let Entry { found, field } = entry(text).map_err(wrong)?;
            for (table, column) in found {
                if !field.is_empty() {
                    let path = field.iter().map(|name| name.to_lowercase()).collect();
                    fields.entry((table.name, column)).or_default().0.insert(path);
                } else if is_always_seen(table, column) {
                    return Err(wrong(format!("{}.{column} is always seen: it says what record it is", table.name)));
                } else {
                    masking.tables.entry(table.name).or_default().columns.insert(column);
                }
            }
        }
        for text in shown {
            let wrong = |reason: String| MaskingError { entry: text.clone(), reason };
            let Entry { found, field } = entry(text).map_err(wrong)?;
            if !field.is_empty() {
                return Err(wrong("a document is shown as a whole, but for the fields that are masked".to_owned()));
            }
            for (table, column) in found {
                if !is_document(table, column) {
                    return Err(wrong(format!("{}.{column} holds no documents", table.name)));
                }
                let of_table = masking.tables.entry(table.name).or_default();
                if of_table.columns.contains(column) {
                    return Err(wrong(format!("{}.{column} is masked by another entry", table.name)));
                }
                let masks = fields.get(&(table.name, column)).cloned().unwrap_or_default();
                of_table.shown.insert(column, Arc::new(masks));
            }
        }
        Ok(masking)
    }

    pub(crate) fn of(&self, table: &Table) -> Option<&OfTable> {
        self.tables.get(table.name)
    }
}

fn is_document(table: &Table, column: &str) -> bool {
    table.column(column).is_some_and(|column| matches!(column.ty, Type::Json { .. }))
}

/// Whether a column tells which record it is, and so what there is to be asked for.
fn is_always_seen(table: &Table, column: &str) -> bool {
    column == "id" || (table.column("compliance_level").is_some() && ALWAYS_SEEN.contains(&column))
}

/// The columns that an entry means.
fn entry(text: &str) -> Result<Entry<'_>, String> {
    let mut parts = text.trim().split('.');
    let (Some(of), Some(name), field) = (parts.next(), parts.next(), parts.collect::<Vec<_>>()) else {
        return Err("it is not `table.column` or `table.column.field`".to_owned());
    };
    if field.iter().any(|part| part.is_empty() || *part == "*") {
        return Err("a part of the field's name is missing".to_owned());
    }
    let tables: Vec<&'static Table> =
        muniment_model::tables().iter().copied().filter(|table| of == EVERY_TABLE || table.name == of).collect();
    if tables.is_empty() {
        return Err(format!("there is no table {of}"));
    }
    let column = |table: &'static Table| {
        let own = table.columns.iter().map(|column| column.name);
        own.chain(added_columns(table)).find(|column| *column == name).map(|column| (table, column))
    };
    let found: Vec<_> = tables.into_iter().filter_map(column).collect();
    if found.is_empty() {
        return Err(if of == EVERY_TABLE { format!("no table has a column {name}") } else { format!("{of} has no column {name}") });
    }
    let documents: Vec<_> = found.iter().copied().filter(|(table, column)| is_document(table, column)).collect();
    match (field.is_empty(), documents.is_empty()) {
        (true, _) => Ok(Entry { found, field }),
        (false, false) => Ok(Entry { found: documents, field }),
        (false, true) => Err(format!("{name} holds no documents, and so no fields")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn check(masked: &[&str], document: &str, expected: &str) {
        let masked: Vec<String> = masked.iter().map(|field| format!("sys_audit_log.new_values.{field}")).collect();
        let masking = Masking::new(&masked, &texts(&["sys_audit_log.new_values"])).unwrap();
        let of_table = masking.of(muniment_model::table("sys_audit_log").unwrap()).unwrap();
        assert_eq!(of_table.shown["new_values"].apply(document), expected, "{masked:?} of {document}");
    }

    #[test]
    fn a_field_is_masked_wherever_it_stands() {
        let mask = MASKED_FIELD;
        check(&["cmnd"], r#"{"id":1.50,"cmnd":"079"}"#, &format!(r#"{{"id":1.50,"cmnd":{mask}}}"#));
        check(&["cmnd"], r#"{"id": 1, "name": "lan"}"#, r#"{"id": 1, "name": "lan"}"#);
        check(&["cmnd"], r#"{"\u0063mnd":1,"CMND":null,"cmnd":[2]}"#, &format!(r#"{{"cmnd":{mask},"CMND":{mask},"cmnd":{mask}}}"#));
        check(&["SoCMND"], r#"{"socmnd":1,"cmnd":2}"#, &format!(r#"{{"socmnd":{mask},"cmnd":2}}"#));
        check(&["a.b"], r#"{"a":{"b":1,"c":2},"b":3}"#, &format!(r#"{{"a":{{"b":{mask},"c":2}},"b":3}}"#));
        check(&["a.b"], r#"{"a":[{"b":1},[{"b":2}],{"c":3}, 4]}"#, &format!(r#"{{"a":[{{"b":{mask}}},[{{"b":{mask}}}],{{"c":3}},4]}}"#));
        check(&["a.b", "a"], r#"{"a":{"c":1}}"#, &format!(r#"{{"a":{mask}}}"#));
        check(&["a"], r#"[{"a":1},{"b":2}]"#, &format!(r#"[{{"a":{mask}}},{{"b":2}}]"#));
        check(&[], r#"{"a":"b"}"#, r#"{"a":"b"}"#);
    }

    #[test]
    fn what_may_hide_a_field_is_masked_whole() {
        let mask = MASKED_FIELD;
        check(&["a"], r#""{\"a\":1}""#, r#""***""#);
        check(&["a"], r#" {"a":1"#, r#""***""#);
        check(&["a.b"], r#"{"a":"{\"b\":1}","c":"x"}"#, &format!(r#"{{"a":{mask},"c":"x"}}"#));
        check(&["a"], "17", "17");
        check(&["a"], "null", "null");
        let deep = format!(r#"{}{{"a":1}}{}"#, "[".repeat(200), "]".repeat(200));
        let of_deep = Masking::new(&texts(&["*.old_values.a"]), &texts(&["*.old_values"])).unwrap();
        let shown = of_deep.of(muniment_model::table("sys_audit_log").unwrap()).unwrap().shown["old_values"].apply(&deep).into_owned();
        assert!(!shown.contains(r#""a""#) && shown.contains(mask), "{shown}");
    }

    #[test]
    fn an_entry_that_means_nothing_is_named() {
        for (masked, shown, expected) in [
            ("sys_audit_log", "", "`sys_audit_log`: it is not `table.column` or `table.column.field`"),
            ("sys_audit.cmnd", "", "`sys_audit.cmnd`: there is no table sys_audit"),
            ("sys_audit_log.cmnd", "", "`sys_audit_log.cmnd`: sys_audit_log has no column cmnd"),
            ("*.cmnd", "", "`*.cmnd`: no table has a column cmnd"),
            ("*.username.first", "", "`*.username.first`: username holds no documents, and so no fields"),
            ("sys_audit_log.new_values.a..b", "", "`sys_audit_log.new_values.a..b`: a part of the field's name is missing"),
            ("users.id", "", "`users.id`: users.id is always seen: it says what record it is"),
            ("*.table_name", "", "`*.table_name`: sys_audit_log.table_name is always seen: it says what record it is"),
            ("", "sys_audit_log.ip_address", "`sys_audit_log.ip_address`: sys_audit_log.ip_address holds no documents"),
            ("", "*.new_values.a", "`*.new_values.a`: a document is shown as a whole, but for the fields that are masked"),
            ("*.new_values", "*.new_values", "`*.new_values`: sys_audit_log.new_values is masked by another entry"),
        ] {
            let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(Masking::new(&list(masked), &list(shown)).unwrap_err().to_string(), expected);
        }
        assert!(Masking::new(&texts(&["*.username", "security_audit_log.recorded_investigated_by"]), &[]).is_ok());
    }
}
