//! Reading payloads: the CBOR map of a record's data columns (format §1.1).

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use serde::Serialize;

use crate::Error;

/// Longest payload that is decoded, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;
/// Most columns in a payload.
pub const MAX_PAYLOAD_FIELDS: u64 = 1024;

/// A column's value in a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A text string: kinds `text`, `json`, `inet` and `uuid`.
    Text(String),
    /// An integer in -2^64 ‥ 2^64 - 1: kinds `int`, `timestamp` (microseconds) and `decimal` (scaled).
    Int(i128),
    /// Kind `bool`.
    Bool(bool),
}

/// Decodes a payload to its columns, in the order of the encoding.
///
/// # Errors
///
/// [`Error::PayloadCbor`] or [`Error::Payload`] if it isn't a deterministically encoded map from text to text, integers and booleans, or
/// is larger than [`MAX_PAYLOAD_BYTES`] or [`MAX_PAYLOAD_FIELDS`].
pub fn decode_payload(payload: &[u8]) -> Result<Vec<(String, Value)>, Error> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(Error::Payload("it is too long"));
    }
    let mut decoder = Decoder::new(payload);
    let fields = read_fields(&mut decoder)?;
    if decoder.position() != payload.len() {
        return Err(Error::Payload("bytes follow the map"));
    }
    let ordered = fields.windows(2).all(|pair| (pair[0].0.len(), &pair[0].0) < (pair[1].0.len(), &pair[1].0));
    if !ordered {
        return Err(Error::Payload("its columns are not in order"));
    }
    if encode(&fields).as_deref() != Some(payload) {
        return Err(Error::Payload("it is not deterministically encoded"));
    }
    Ok(fields)
}

fn read_fields(decoder: &mut Decoder<'_>) -> Result<Vec<(String, Value)>, Error> {
    let count = decoder.map().map_err(Error::PayloadCbor)?.ok_or(Error::Payload("its length is not definite"))?;
    if count > MAX_PAYLOAD_FIELDS {
        return Err(Error::Payload("it has too many columns"));
    }
    let mut fields = Vec::new();
    for _ in 0..count {
        let name = decoder.str().map_err(Error::PayloadCbor)?.to_owned();
        let value = match decoder.datatype().map_err(Error::PayloadCbor)? {
            Type::String => Value::Text(decoder.str().map_err(Error::PayloadCbor)?.to_owned()),
            Type::Bool => Value::Bool(decoder.bool().map_err(Error::PayloadCbor)?),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
                Value::Int(decoder.int().map_err(Error::PayloadCbor)?.into())
            }
            _ => return Err(Error::Payload("a value is neither text, integer nor boolean")),
        };
        fields.push((name, value));
    }
    Ok(fields)
}

fn encode(fields: &[(String, Value)]) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(Vec::new());
    encoder.map(fields.len() as u64).ok()?;
    for (name, value) in fields {
        encoder.str(name).ok()?;
        match value {
            Value::Text(text) => encoder.str(text).ok()?,
            Value::Int(number) => encoder.int((*number).try_into().ok()?).ok()?,
            Value::Bool(flag) => encoder.bool(*flag).ok()?,
        };
    }
    Some(encoder.into_writer())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn decodes_every_kind() {
        let fields = vec![
            ("a".to_owned(), Value::Bool(true)),
            ("b".to_owned(), Value::Int(-(1 << 64))),
            ("c".to_owned(), Value::Int((1 << 64) - 1)),
            ("aa".to_owned(), Value::Text("Zürich".to_owned())),
            ("ab".to_owned(), Value::Int(i64::MIN.into())),
        ];
        assert_eq!(decode_payload(&encode(&fields).unwrap()).unwrap(), fields);
        assert_eq!(decode_payload(&[0xa0]).unwrap(), []);
    }

    #[test]
    fn rejects_what_is_not_deterministic() {
        let cases: &[(&str, &[u8])] = &[
            ("empty", &[]),
            ("not a map", &[0x80]),
            ("indefinite map", &[0xbf, 0xff]),
            ("long head", &[0xb8, 0x00]),
            ("trailing byte", &[0xa0, 0x00]),
            ("key is no text", &[0xa1, 0x01, 0x01]),
            ("null", &[0xa1, 0x61, b'a', 0xf6]),
            ("float", &[0xa1, 0x61, b'a', 0xf9, 0x00, 0x00]),
            ("nested", &[0xa1, 0x61, b'a', 0xa0]),
            ("bytes", &[0xa1, 0x61, b'a', 0x40]),
            ("tag", &[0xa1, 0x61, b'a', 0xc2, 0x41, 0x01]),
            ("long integer", &[0xa1, 0x61, b'a', 0x18, 0x01]),
            ("twice the same key", &[0xa2, 0x61, b'a', 0x01, 0x61, b'a', 0x02]),
            ("unsorted", &[0xa2, 0x61, b'b', 0x01, 0x61, b'a', 0x02]),
            ("longer key first", &[0xa2, 0x62, b'a', b'a', 0x01, 0x61, b'b', 0x02]),
            ("missing value", &[0xa1, 0x61, b'a']),
            ("claims many fields", &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("claims long text", &[0xa1, 0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("invalid UTF-8", &[0xa1, 0x61, 0xff, 0x01]),
        ];
        for (name, bytes) in cases {
            assert!(decode_payload(bytes).is_err(), "{name}");
        }
    }
}
