//! The manifest of a bundle (format §3). It is a table of contents and proves nothing.

use serde::{Deserialize, Serialize};

use crate::{Error, Hash, Node};

/// The `format` of a manifest.
pub const FORMAT: &str = "muniment-bundle/1";
/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The newest checkpoint's file name.
pub const CHECKPOINT: &str = "checkpoint";
/// The folder of the rotation checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The file name of the meta-log's leaves.
pub const META: &str = "meta.cborseq";

/// The folder of the record files.
pub const STREAMS: &str = "streams";
/// What the ledger adds to each record of a bundle; no data column has such a name.
pub const LEDGER_COLUMNS: [&str; 6] = ["id", "stream_index", "recorded_at", "salt", "blockchain_hash", "erased_payload_hash"];

/// Whether a log can have this name.
pub fn is_log_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The log of a stream, `<log>/<years>y`; none if a stream cannot have this name.
pub fn log_of_stream(stream: &str) -> Option<&str> {
    let (log, class) = stream.split_once('/')?;
    let years = class.strip_suffix('y')?;
    let is_number = !years.is_empty() && years.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && is_log_name(log)).then_some(log)
}

/// Checks that data columns have names of their own and fit their kinds.
///
/// # Errors
///
/// Says what is wrong.
pub fn check_columns(columns: &[Column]) -> Result<(), &'static str> {
    let mut names = std::collections::BTreeSet::new();
    for column in columns {
        if LEDGER_COLUMNS.contains(&column.name.as_str()) || !names.insert(&column.name) {
            return Err("two columns have the same name");
        }
        if !column.is_consistent() {
            return Err("the precision and scale of a column do not fit its kind");
        }
    }
    Ok(())
}

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// The ledger's name.
    pub origin: String,
    /// When the bundle was made, microseconds since 1970 UTC.
    pub created_at: i64,
    /// The verifier key when the bundle was made. A verifier does not take it from here.
    pub vkey: String,
    /// Whether everything is meant to be there.
    pub scope: Scope,
    /// What the record files are.
    pub record_format: RecordFormat,
    /// The data columns of each log.
    pub columns: std::collections::BTreeMap<String, Vec<Column>>,
    /// The streams that have records.
    pub streams: Vec<Stream>,
}

/// What a bundle is meant to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every record of every stream, but for what was disposed of.
    All,
    /// Some.
    Selection,
}

/// The kind of the record files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordFormat {
    /// Apache Parquet.
    Parquet,
    /// One JSON object a line.
    Ndjson,
}

/// A data column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name, in the payload, too.
    pub name: String,
    /// How it is encoded.
    pub kind: Kind,
    /// Decimal digits in all, only of a [`Kind::Decimal`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<u8>,
    /// Decimal digits after the point, only of a [`Kind::Decimal`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<u8>,
}

/// The kinds of data columns (format §1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Text.
    Text,
    /// A JSON document as it was received.
    Json,
    /// An IP address or network.
    Inet,
    /// A UUID.
    Uuid,
    /// An integer.
    Int,
    /// True or false.
    Bool,
    /// Microseconds since 1970 UTC.
    Timestamp,
    /// A scaled integer.
    Decimal,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [Self::Text, Self::Json, Self::Inet, Self::Uuid, Self::Int, Self::Bool, Self::Timestamp, Self::Decimal];

    /// Its name in leaves and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Inet => "inet",
            Self::Uuid => "uuid",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Timestamp => "timestamp",
            Self::Decimal => "decimal",
        }
    }

    /// The kind of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Column {
    /// Most digits of a decimal: its scaled integer fits 64 bits.
    pub const MAX_PRECISION: u8 = 18;

    /// Whether precision and scale are there just for a decimal, and within their limits.
    pub fn is_consistent(&self) -> bool {
        match (self.kind, self.precision, self.scale) {
            (Kind::Decimal, Some(precision), Some(scale)) => (1..=Self::MAX_PRECISION).contains(&precision) && scale <= precision,
            (Kind::Decimal, ..) => false,
            (_, precision, scale) => precision.is_none() && scale.is_none(),
        }
    }
}

/// A stream in a bundle. Ranges are half-open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Its name.
    pub stream: String,
    /// Its log.
    pub log: String,
    /// Its size at the checkpoint.
    pub size: u64,
    /// Index of the first record in the bundle.
    pub first: u64,
    /// One more than the index of the last.
    pub end: u64,
    /// `blockchain_hash` of record `first - 1`.
    #[serde(with = "crate::hexadecimal")]
    pub previous_hash: Hash,
    /// The compact range `[0, first)`.
    pub left: Vec<Node>,
    /// The compact range `[end, size)`.
    pub right: Vec<Node>,
    /// The record files, in order.
    pub files: Vec<File>,
}

/// A record file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it is in the bundle.
    pub path: String,
    /// Index of its first record.
    pub first: u64,
    /// One more than the index of its last.
    pub end: u64,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    #[serde(with = "crate::hexadecimal")]
    pub sha256: Hash,
}

impl Manifest {
    /// Reads a manifest and checks that it does not contradict itself and that its paths stay in the bundle.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] if it isn't JSON of this shape, [`Error::Document`] if it is of another version or contradicts itself.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let manifest: Self = serde_json::from_slice(json).map_err(Error::Json)?;
        manifest.check().map_err(Error::Document)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("its format is \u{201c}{}\u{201d}, not {FORMAT}", self.format));
        }
        for (log, columns) in &self.columns {
            check_columns(columns).map_err(|reason| format!("columns of {log}: {reason}"))?;
        }
        let mut names = std::collections::BTreeSet::new();
        self.streams.iter().try_for_each(|stream| {
            stream.check(self.record_format)?;
            if !names.insert(&stream.stream) {
                return Err(format!("{} is listed twice", stream.stream));
            }
            if self.columns.contains_key(&stream.log) { Ok(()) } else { Err(format!("the columns of {} are not listed", stream.log)) }
        })
    }
}

impl RecordFormat {
    /// The ending of a record file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Ndjson => "ndjson",
        }
    }
}

/// The path in a bundle of the file that has the records `[first, end)` of a stream; `end` is above `first`.
pub fn file_path(stream: &str, first: u64, end: u64, format: RecordFormat) -> String {
    format!("{STREAMS}/{stream}/{first:012}-{:012}.{}", end.saturating_sub(1), format.extension())
}

impl Stream {
    fn check(&self, format: RecordFormat) -> Result<(), String> {
        let Self { stream, log, first, end, size, .. } = self;
        if log_of_stream(stream) != Some(log) {
            return Err(format!("{stream:?} is not a stream of {log:?}"));
        }
        if !(first <= end && end <= size && *size < 1 << 62) {
            return Err(format!("{stream} cannot hold {first}..{end} of {size}"));
        }
        if *first == 0 && self.previous_hash != crate::NO_HASH {
            return Err(format!("the previous_hash of {stream} is not zero"));
        }
        let wrong = |file: &&File| file.end <= file.first || file.path != file_path(stream, file.first, file.end, format);
        match self.files.iter().find(wrong) {
            Some(file) => Err(format!("{:?} does not fit its range", file.path)),
            None => Ok(()),
        }
    }
}
