//! A batch cut into messages: one JSON value, an array of them, or values one after the other (NDJSON).

use super::malformed;
use crate::error::Result;
use serde_json::value::RawValue;

/// One message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Its JSON text.
    pub(super) text: &'a str,
}

/// The messages of a batch, which may begin with a byte order mark. Neither an empty body nor `null` (a tombstone) is an error.
pub(super) fn split(body: &[u8]) -> Result<Vec<Message<'_>>> {
    let mut messages: Vec<Message<'_>> = Vec::new();
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    for value in serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>() {
        let number = messages.len() as u64 + 1;
        let value = value.map_err(|error| malformed(number, "message", format!("not JSON: {error}")))?;
        if value.get().starts_with('[') {
            let elements: Vec<&RawValue> =
                serde_json::from_str(value.get()).map_err(|error| malformed(number, "message", format!("not JSON: {error}")))?;
            messages.extend((number..).zip(elements).map(|(number, element)| Message { number, text: element.get() }));
        } else {
            messages.push(Message { number, text: value.get() });
        }
    }
    Ok(messages)
}
