//! A JSON object whose members stay the text they came as, so that no number loses a digit.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A member's name; borrowed unless it has escapes.
#[derive(Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The members of an object in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Object<'a> {
    pub(super) members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Reads an object; `None` for any other value.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
    }

    /// A member; `None` if it is absent or null. Of a repeated name the last counts.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.members.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.get()).filter(|value| *value != "null")
    }

    /// Whether there is a member of this name, null or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(known, _)| known == name)
    }

    /// A member that is an object.
    pub(super) fn object(&self, name: &str) -> Option<Self> {
        self.get(name).and_then(Self::parse)
    }

    /// A member as text: a string's content, a number's digits.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).map(content)
    }

    /// A member that is a whole number.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name.0, value));
                }
                Ok(Object { members })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The content of a JSON string; the text of any other value.
pub(super) fn content(value: &str) -> Cow<'_, str> {
    if value.starts_with('"')
        && let Ok(Name(text)) = serde_json::from_str(value)
    {
        return text;
    }
    Cow::Borrowed(value)
}
