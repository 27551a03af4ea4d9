//! JSON documents of changes, field by field. Values stay the text they came as, so that no number loses a digit.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

/// Depth down to which values are compared by meaning; below it, by their text.
const MAX_COMPARED_DEPTH: usize = 64;
/// What stands for a value that its source did not send since it did not change.
const UNCHANGED: &str = r#"{"$unchanged":true}"#;
/// A JSON null, which is a value of a JSON column as any other; `null` stands for NULL.
pub(crate) const JSON_NULL: &str = r#"{"$json":"null"}"#;
/// Name of the whole document where it is not an object: the root in JSONPath.
const ROOT: &str = "$";

/// How one field changed.
#[derive(Clone, Debug, Serialize)]
pub struct FieldChange {
    /// The field's name; `$` for a document that is not an object.
    pub field: String,
    /// Its value before; absent if the record has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Box<RawValue>>,
    /// Its value after; absent if the record has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Box<RawValue>>,
}

/// The fields of an object in the order in which they came, or one field `$` that holds any other value.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    fields: Vec<(String, Box<RawValue>)>,
    /// Places of the fields by name: a document may have very many.
    places: HashMap<String, usize>,
    is_object: bool,
}

impl Document {
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        if text.trim_start().starts_with('{') {
            return serde_json::from_str(text);
        }
        let mut document = Self::empty(false);
        document.set(ROOT.to_owned(), serde_json::from_str(text)?);
        Ok(document)
    }

    fn empty(is_object: bool) -> Self {
        Self { fields: Vec::new(), places: HashMap::new(), is_object }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.places.get(name).map(|&place| &*self.fields[place].1)
    }

    /// Sets a field; a repeated name replaces the value.
    fn set(&mut self, name: String, value: Box<RawValue>) {
        match self.places.get(&name) {
            Some(&place) => self.fields[place].1 = value,
            None => {
                self.places.insert(name.clone(), self.fields.len());
                self.fields.push((name, value));
            }
        }
    }

    /// Names and values, in order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// Whether it is hidden from whoever asks: the mask stands in its place.
    pub(super) fn is_masked(&self) -> bool {
        !self.is_object && self.fields.iter().all(|(_, value)| value.get().trim_matches('"') == muniment_access::MASK)
    }

    /// Whether some of its fields are hidden from whoever asks.
    pub(super) fn is_partly_masked(&self) -> bool {
        self.fields.iter().any(|(_, value)| is_masked(value))
    }

    /// Whether it is an object, as a row is.
    pub(super) fn is_object(&self) -> bool {
        self.is_object
    }

    /// This document with the fields of another set.
    pub(super) fn with(mut self, other: &Self) -> Self {
        for (name, value) in other.fields() {
            if value.get() != UNCHANGED {
                self.set(name.to_owned(), value.to_owned());
            }
        }
        self
    }

    /// This document after a change: what `new` has is taken over; what only `old` has is gone; what neither has stays, since such a record says
    /// only what changed.
    pub(crate) fn changed(self, old: Option<&Self>, new: Self) -> Self {
        if !self.is_object || !new.is_object {
            return new;
        }
        let stays = |name: &str| new.get(name).is_some() || old.is_none_or(|old| old.get(name).is_none());
        let mut changed = Self::empty(true);
        for (name, value) in self.fields {
            if stays(&name) {
                changed.set(name, value);
            }
        }
        for (name, value) in new.fields {
            if value.get() != UNCHANGED || changed.get(&name).is_none() {
                changed.set(name, value);
            }
        }
        changed
    }

    /// The document as JSON text.
    pub(super) fn to_json(&self) -> Result<Box<RawValue>, serde_json::Error> {
        if let ([(_, value)], false) = (self.fields.as_slice(), self.is_object) {
            return Ok(value.clone());
        }
        let mut text = String::from("{");
        for (name, value) in &self.fields {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(name)?);
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        RawValue::from_string(text)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Document;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut document = Document::empty(true);
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    document.set(name, value);
                }
                Ok(document)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A JSON value of which a row has the text, as itself. A JSON null stays a text, as any other value stays what it is.
pub(crate) fn unwrapped(value: &RawValue) -> Cow<'_, RawValue> {
    let text = || serde_json::from_str::<String>(value.get().strip_prefix(r#"{"$json":"#)?.strip_suffix('}')?).ok();
    let json = || RawValue::from_string(text()?).ok().filter(|json| json.get() != "null");
    json().map_or(Cow::Borrowed(value), Cow::Owned)
}

/// Whether a value, or something in it, is hidden from whoever asks.
pub(super) fn is_masked(value: &RawValue) -> bool {
    value.get().contains(muniment_access::MASKED_FIELD)
}

/// The fields that differ between two documents: those of the old one in its order, then those that are new.
pub(super) fn differences(old: Option<&Document>, new: Option<&Document>) -> Vec<FieldChange> {
    let (before, after) = (old.map_or(&[][..], |old| &old.fields), new.map_or(&[][..], |new| &new.fields));
    let mut changes = Vec::new();
    for (name, value) in before {
        let now = new.and_then(|new| new.get(name));
        if now.is_none_or(|now| now.get() != UNCHANGED && !same(value, now, 0)) {
            changes.push(FieldChange { field: name.clone(), old: Some(value.clone()), new: now.map(ToOwned::to_owned) });
        }
    }
    for (name, value) in after {
        if value.get() != UNCHANGED && old.and_then(|old| old.get(name)).is_none() {
            changes.push(FieldChange { field: name.clone(), old: None, new: Some(value.clone()) });
        }
    }
    changes
}

/// Whether two values mean the same: spacing, the order of an object's fields and escapes in texts don't matter, but every digit of a number does.
pub(crate) fn same_value(a: &RawValue, b: &RawValue) -> bool {
    same(a, b, 0)
}

fn same(a: &RawValue, b: &RawValue, depth: usize) -> bool {
    if a.get() == b.get() {
        return true;
    }
    let first = |value: &RawValue| value.get().as_bytes().first().copied();
    match (first(a), first(b)) {
        (Some(b'{'), Some(b'{')) if depth < MAX_COMPARED_DEPTH => {
            let (Ok(a), Ok(b)) = (serde_json::from_str::<Document>(a.get()), serde_json::from_str::<Document>(b.get())) else {
                return false;
            };
            a.fields.len() == b.fields.len() && a.fields.iter().all(|(name, value)| b.get(name).is_some_and(|b| same(value, b, depth + 1)))
        }
        (Some(b'['), Some(b'[')) if depth < MAX_COMPARED_DEPTH => {
            let (Ok(a), Ok(b)) = (serde_json::from_str::<Vec<&RawValue>>(a.get()), serde_json::from_str::<Vec<&RawValue>>(b.get())) else {
                return false;
            };
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| same(a, b, depth + 1))
        }
        (Some(b'"'), Some(b'"')) => matches!(
            (serde_json::from_str::<String>(a.get()), serde_json::from_str::<String>(b.get())),
            (Ok(a), Ok(b)) if a == b
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check_difference(old: &str, new: &str, expected: &str) {
        let changes = differences(Some(&Document::parse(old).unwrap()), Some(&Document::parse(new).unwrap()));
        assert_eq!(serde_json::to_string(&changes).unwrap(), expected, "{old} to {new}");
    }

    #[test]
    fn differences_are_by_meaning_and_keep_every_digit() {
        check_difference(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, "[]");
        check_difference(r#"{"a":{"x":[1, 2],"y":"é"}}"#, r#"{"a": {"y":"\u00e9","x":[1,2]}}"#, "[]");
        check_difference(r#"{"a":1.0}"#, r#"{"a":1.00}"#, r#"[{"field":"a","old":1.0,"new":1.00}]"#);
        check_difference(
            r#"{"a":12345678901234567890.123456789}"#,
            r#"{"a":12345678901234567890.123456788}"#,
            r#"[{"field":"a","old":12345678901234567890.123456789,"new":12345678901234567890.123456788}]"#,
        );
        check_difference(
            r#"{"a":null,"gone":1}"#,
            r#"{"a":0,"came":2}"#,
            r#"[{"field":"a","old":null,"new":0},{"field":"gone","old":1},{"field":"came","new":2}]"#,
        );
        check_difference(r#"{"b":1}"#, r#"{"a":{"$unchanged":true},"b":2}"#, r#"[{"field":"b","old":1,"new":2}]"#);
        check_difference("[1]", "[2]", r#"[{"field":"$","old":[1],"new":[2]}]"#);
        check_difference(r#"{"a":[1,[2]]}"#, r#"{"a":[1,[3]]}"#, r#"[{"field":"a","old":[1,[2]],"new":[1,[3]]}]"#);
    }

    fn check_changed(state: &str, old: Option<&str>, new: &str, expected: &str) {
        let old = old.map(|old| Document::parse(old).unwrap());
        let changed = Document::parse(state).unwrap().changed(old.as_ref(), Document::parse(new).unwrap());
        assert_eq!(changed.to_json().unwrap().get(), expected, "{state} by {new}");
    }

    #[test]
    fn a_partial_document_changes_only_its_fields() {
        check_changed(r#"{"a":1,"b":2}"#, Some(r#"{"a":1}"#), r#"{"a":3}"#, r#"{"a":3,"b":2}"#);
        check_changed(r#"{"a":1,"b":2}"#, None, r#"{"b":3}"#, r#"{"a":1,"b":3}"#);
        check_changed(r#"{"a":1,"b":2}"#, Some(r#"{"a":1,"b":2}"#), r#"{"a":3}"#, r#"{"a":3}"#);
        check_changed(r#"{"a":1}"#, Some(r#"{"a":1}"#), r#"{"a":1.50,"c":"x"}"#, r#"{"a":1.50,"c":"x"}"#);
        check_changed(r#"{"a":"long","b":2}"#, Some(r#"{"b":2}"#), r#"{"a":{"$unchanged":true},"b":3}"#, r#"{"a":"long","b":3}"#);
        check_changed("1", None, "[2]", "[2]");
        check_changed("{}", None, r#"{"a":1}"#, r#"{"a":1}"#);
    }

    #[test]
    fn deep_documents_are_compared_without_overflow() {
        let deep = |leaf: &str| format!(r#"{{"a":{}{leaf}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
        let (old, new) = (Document::parse(&deep("1")).unwrap(), Document::parse(&deep("2")).unwrap());
        assert_eq!(differences(Some(&old), Some(&new)).len(), 1);
    }
}
