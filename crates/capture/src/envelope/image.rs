//! A row before or after a change: columns in order, each value as JSON text.

use super::object::content;
use crate::change::key_text;
use crate::row::{RowColumn, Value, ValueKind, row_json};
use std::borrow::Cow;
use std::collections::HashMap;

/// Longest summary of changed columns, in characters; the record allows 1,000.
const MAX_SUMMARY_CHARS: usize = 900;

/// A row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image<'a> {
    /// Name and JSON text of each column.
    pub(super) columns: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Image<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    fn by_name(&self) -> HashMap<&str, &str> {
        self.columns.iter().map(|(name, value)| (&**name, &**value)).collect()
    }

    /// Whether it has the same columns as another.
    pub(super) fn has_columns_of(&self, other: &Self) -> bool {
        let known = self.by_name();
        self.columns.len() == other.columns.len() && other.columns.iter().all(|(name, _)| known.contains_key(&**name))
    }

    /// Takes columns that this row lacks from another: values that the source leaves out since they did not change.
    pub(super) fn fill_from(&mut self, old: &Image<'a>) {
        let missing: Vec<_> = {
            let known = self.by_name();
            old.columns.iter().filter(|(name, _)| !known.contains_key(&**name)).cloned().collect()
        };
        self.columns.extend(missing);
    }

    /// The row as one JSON object. Values too large or too deep for the log are replaced by markers, see [`crate::row`].
    pub(super) fn to_json(&self) -> String {
        let columns: Vec<RowColumn> = self.columns.iter().map(|(name, _)| RowColumn::new(&**name, ValueKind::Json, false)).collect();
        let mut text = Vec::with_capacity(self.columns.iter().map(|(name, value)| name.len() + value.len() + 4).sum());
        let values = self.columns.iter().map(|(_, value)| if value == "null" { Value::Null } else { Value::Text(value) });
        row_json(columns.iter().zip(values), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The key made of these columns; `None` if one is missing.
    pub(super) fn key(&self, columns: &[impl AsRef<str>]) -> Option<String> {
        let texts: Option<Vec<Option<Cow<'_, str>>>> = columns.iter().map(|name| self.get(name.as_ref()).map(key_part)).collect();
        let texts = texts?;
        let parts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        Some(key_text(&parts).into_owned())
    }

    /// Why the key can't be made of these columns.
    pub(super) fn lacks(&self, columns: &[String]) -> String {
        let missing = columns.iter().find(|name| self.get(name).is_none()).map_or("", String::as_str);
        format!("it has no column {missing:?}, of which the key is to be made")
    }

    /// The key made of all columns, for a row of which no key is known.
    pub(super) fn whole_key(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| &**name).collect();
        self.key(&names).unwrap_or_else(|| "*".to_owned())
    }

    /// Names the columns that differ; `None` if there are none.
    pub(super) fn changed_from(&self, old: &Self) -> Option<String> {
        let before = old.by_name();
        let mut summary = String::new();
        for (name, value) in &self.columns {
            if before.get(&**name).is_some_and(|before| before == value) {
                continue;
            }
            if summary.len() > MAX_SUMMARY_CHARS {
                summary.push_str(", …");
                break;
            }
            summary.push_str(if summary.is_empty() { "changed: " } else { ", " });
            summary.push_str(name);
        }
        (!summary.is_empty()).then_some(summary)
    }

    pub(super) fn into_owned(self) -> Image<'static> {
        let columns = self.columns.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), Cow::Owned(value.into_owned())));
        Image { columns: columns.collect() }
    }
}

fn key_part(value: &str) -> Option<Cow<'_, str>> {
    (value != "null").then(|| content(value))
}
