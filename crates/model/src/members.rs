//! Members of JSON objects, unparsed.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The members of an object in their order, repeated ones too, each value as it is written.
///
/// # Errors
/// If the text is no object.
pub fn members(object: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    let mut parser = serde_json::Deserializer::from_str(object);
    let members = parser.deserialize_map(InOrder)?;
    parser.end()?;
    Ok(members)
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}
