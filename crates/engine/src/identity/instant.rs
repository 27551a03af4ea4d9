//! Times in JSON: written as RFC 3339, read as that, as a date, or as microseconds since 1970 UTC.

use crate::history::parse_time;
use chrono::{DateTime, SecondsFormat};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a time such as 2026-01-31T12:00:00Z, a date, or microseconds since 1970 UTC")]
enum Written {
    Micros(i64),
    Text(String),
}

fn write(micros: i64) -> Written {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => Written::Text(time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        None => Written::Micros(micros),
    }
}

fn read<E: Error>(written: Written) -> Result<i64, E> {
    match written {
        Written::Micros(micros) => Ok(micros),
        Written::Text(text) => parse_time(&text).map_err(E::custom),
    }
}

/// Writes a time.
pub(super) fn serialize<S: Serializer>(micros: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    write(*micros).serialize(serializer)
}

/// Reads a time.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    read(Written::deserialize(deserializer)?)
}

/// The same for a time that may be absent.
pub(super) mod option {
    use super::{Written, read, write};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes a time, or null.
    pub(in super::super) fn serialize<S: Serializer>(micros: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        micros.map(write).serialize(serializer)
    }

    /// Reads a time, or null.
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        Option::<Written>::deserialize(deserializer)?.map(read).transpose()
    }
}
