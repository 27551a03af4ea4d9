//! The leaves of the meta-log (format §2.1).

use std::convert::Infallible;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder, encode};

use crate::bundle::{Column, Kind};
use crate::{Error, Hash};

/// A stream's size and root after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHead {
    /// The stream's name.
    pub stream: String,
    /// Number of its records.
    pub size: u64,
    /// Root of its tree.
    pub root: Hash,
}

/// A leaf of the meta-log. Every `time` is in microseconds since 1970 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaLeaf {
    /// The data columns of a log from here on.
    Schema {
        /// When.
        time: i64,
        /// The log.
        log: String,
        /// Its data columns, in order; a later leaf only appends to those of the one before.
        columns: Vec<Column>,
    },
    /// A verifier key becomes valid; a rotation if there was one before.
    Key {
        /// When.
        time: i64,
        /// The key from here on.
        vkey: String,
        /// The key before, none for the first.
        previous: Option<String>,
    },
    /// Records were committed.
    Commit {
        /// When.
        time: i64,
        /// The streams that grew, sorted by name.
        streams: Vec<StreamHead>,
    },
    /// Nothing happened up to this time.
    Heartbeat {
        /// When.
        time: i64,
    },
    /// The beginning of a stream was disposed of.
    Disposal {
        /// When.
        time: i64,
        /// The stream.
        stream: String,
        /// Records with an index below this are gone.
        end: u64,
        /// By which policy.
        policy: String,
    },
    /// The payloads of some records were erased; their hashes stay.
    Erasure {
        /// When.
        time: i64,
        /// The stream.
        stream: String,
        /// The records' indexes, ascending.
        indexes: Vec<u64>,
        /// On what authority.
        authority: String,
    },
}

impl MetaLeaf {
    /// When it was added.
    pub fn time(&self) -> i64 {
        match self {
            Self::Schema { time, .. }
            | Self::Key { time, .. }
            | Self::Commit { time, .. }
            | Self::Heartbeat { time }
            | Self::Disposal { time, .. }
            | Self::Erasure { time, .. } => *time,
        }
    }

    /// The leaf's deterministic CBOR. A commit's streams and an erasure's indexes are encoded in the order they have;
    /// [`decode`](Self::decode) refuses them unsorted.
    #[expect(clippy::expect_used, reason = "writing to memory cannot fail: the error is Infallible")]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        self.write(&mut encoder).expect("a writer that cannot fail");
        encoder.into_writer()
    }

    /// The hash of the leaf in the meta-log's tree.
    pub fn leaf_hash(&self) -> Hash {
        crate::leaf_hash(&self.encode())
    }

    /// Decodes one leaf.
    ///
    /// # Errors
    ///
    /// [`Error::LeafCbor`] or [`Error::Leaf`] if the bytes are not just what [`encode`](Self::encode) gives for some leaf of the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        match Self::decode_first(bytes)? {
            (leaf, used) if used == bytes.len() => Ok(leaf),
            _ => Err(Error::Leaf("bytes follow the map")),
        }
    }

    /// Decodes the first leaf of a CBOR sequence and tells how many bytes it takes.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub fn decode_first(bytes: &[u8]) -> Result<(Self, usize), Error> {
        let mut decoder = Decoder::new(bytes);
        let leaf = Fields::read(&mut decoder)?.leaf()?;
        let used = decoder.position();
        leaf.check_order()?;
        if leaf.encode() != bytes[..used] {
            return Err(Error::Leaf("it is not deterministically encoded"));
        }
        Ok((leaf, used))
    }

    fn check_order(&self) -> Result<(), Error> {
        match self {
            Self::Schema { columns, .. } if !columns.iter().all(Column::is_consistent) => {
                Err(Error::Leaf("the precision and scale of a column do not fit its kind"))
            }
            Self::Commit { streams, .. } if streams.is_empty() => Err(Error::Leaf("it names no stream")),
            Self::Commit { streams, .. } if !streams.is_sorted_by(|a, b| a.stream < b.stream) => {
                Err(Error::Leaf("its streams are not in order"))
            }
            Self::Erasure { indexes, .. } if !indexes.is_sorted_by(|a, b| a < b) => Err(Error::Leaf("its indexes are not in order")),
            _ => Ok(()),
        }
    }

    fn write(&self, encoder: &mut Encoder<Vec<u8>>) -> Result<(), encode::Error<Infallible>> {
        match self {
            Self::Schema { time, log, columns } => {
                encoder.map(4)?.str("log")?.str(log)?.str("time")?.i64(*time)?.str("type")?.str("schema")?;
                encoder.str("columns")?.array(columns.len() as u64)?;
                for column in columns {
                    write_column(encoder, column)?;
                }
            }
            Self::Key { time, vkey, previous } => {
                encoder.map(3 + u64::from(previous.is_some()))?;
                encoder.str("time")?.i64(*time)?.str("type")?.str("key")?.str("vkey")?.str(vkey)?;
                if let Some(previous) = previous {
                    encoder.str("previous")?.str(previous)?;
                }
            }
            Self::Commit { time, streams } => {
                encoder.map(3)?.str("time")?.i64(*time)?.str("type")?.str("commit")?;
                encoder.str("streams")?.array(streams.len() as u64)?;
                for StreamHead { stream, size, root } in streams {
                    encoder.map(3)?.str("root")?.bytes(root)?.str("size")?.u64(*size)?.str("stream")?.str(stream)?;
                }
            }
            Self::Heartbeat { time } => {
                encoder.map(2)?.str("time")?.i64(*time)?.str("type")?.str("heartbeat")?;
            }
            Self::Disposal { time, stream, end, policy } => {
                encoder.map(5)?.str("end")?.u64(*end)?.str("time")?.i64(*time)?.str("type")?.str("disposal")?;
                encoder.str("policy")?.str(policy)?.str("stream")?.str(stream)?;
            }
            Self::Erasure { time, stream, indexes, authority } => {
                encoder.map(5)?.str("time")?.i64(*time)?.str("type")?.str("erasure")?.str("stream")?.str(stream)?;
                encoder.str("indexes")?.array(indexes.len() as u64)?;
                for index in indexes {
                    encoder.u64(*index)?;
                }
                encoder.str("authority")?.str(authority)?;
            }
        }
        Ok(())
    }
}

fn write_column(encoder: &mut Encoder<Vec<u8>>, column: &Column) -> Result<(), encode::Error<Infallible>> {
    let Column { name, kind, precision, scale } = column;
    encoder.map(2 + u64::from(scale.is_some()) + u64::from(precision.is_some()))?;
    encoder.str("kind")?.str(kind.name())?.str("name")?.str(name)?;
    if let Some(scale) = scale {
        encoder.str("scale")?.u8(*scale)?;
    }
    if let Some(precision) = precision {
        encoder.str("precision")?.u8(*precision)?;
    }
    Ok(())
}

/// Every field that a leaf of any type can have.
#[derive(Default)]
struct Fields {
    count: u64,
    kind: Option<String>,
    time: Option<i64>,
    log: Option<String>,
    columns: Option<Vec<Column>>,
    vkey: Option<String>,
    previous: Option<String>,
    streams: Option<Vec<StreamHead>>,
    end: Option<u64>,
    policy: Option<String>,
    stream: Option<String>,
    indexes: Option<Vec<u64>>,
    authority: Option<String>,
}

impl Fields {
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, Error> {
        let mut fields = Self { count: map_length(decoder)?, ..Self::default() };
        for _ in 0..fields.count {
            match text(decoder)?.as_str() {
                "type" => fields.kind = Some(text(decoder)?),
                "time" => fields.time = Some(decoder.i64().map_err(Error::LeafCbor)?),
                "log" => fields.log = Some(text(decoder)?),
                "columns" => fields.columns = Some(list(decoder, column)?),
                "vkey" => fields.vkey = Some(text(decoder)?),
                "previous" => fields.previous = Some(text(decoder)?),
                "streams" => fields.streams = Some(list(decoder, stream_head)?),
                "end" => fields.end = Some(unsigned(decoder)?),
                "policy" => fields.policy = Some(text(decoder)?),
                "stream" => fields.stream = Some(text(decoder)?),
                "indexes" => fields.indexes = Some(list(decoder, unsigned)?),
                "authority" => fields.authority = Some(text(decoder)?),
                _ => return Err(Error::Leaf("it has an unknown field")),
            }
        }
        Ok(fields)
    }

    /// The leaf; a field that its type doesn't have is found when the encodings are compared.
    fn leaf(self) -> Result<MetaLeaf, Error> {
        let missing = Error::Leaf("a field is missing");
        let Some(time) = self.time else { return Err(missing) };
        let leaf = match self.kind.as_deref() {
            Some("schema") => match (self.log, self.columns) {
                (Some(log), Some(columns)) => Some(MetaLeaf::Schema { time, log, columns }),
                _ => None,
            },
            Some("key") => self.vkey.map(|vkey| MetaLeaf::Key { time, vkey, previous: self.previous }),
            Some("commit") => self.streams.map(|streams| MetaLeaf::Commit { time, streams }),
            Some("heartbeat") => Some(MetaLeaf::Heartbeat { time }),
            Some("disposal") => match (self.stream, self.end, self.policy) {
                (Some(stream), Some(end), Some(policy)) => Some(MetaLeaf::Disposal { time, stream, end, policy }),
                _ => None,
            },
            Some("erasure") => match (self.stream, self.indexes, self.authority) {
                (Some(stream), Some(indexes), Some(authority)) => Some(MetaLeaf::Erasure { time, stream, indexes, authority }),
                _ => None,
            },
            Some(_) => return Err(Error::Leaf("its type is unknown")),
            None => None,
        };
        leaf.ok_or(missing)
    }
}

fn map_length(decoder: &mut Decoder<'_>) -> Result<u64, Error> {
    decoder.map().map_err(Error::LeafCbor)?.ok_or(Error::Leaf("its length is not definite"))
}

fn text(decoder: &mut Decoder<'_>) -> Result<String, Error> {
    decoder.str().map(str::to_owned).map_err(Error::LeafCbor)
}

fn unsigned(decoder: &mut Decoder<'_>) -> Result<u64, Error> {
    match decoder.datatype().map_err(Error::LeafCbor)? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
            let number = decoder.u64().map_err(Error::LeafCbor)?;
            if number < 1 << 63 { Ok(number) } else { Err(Error::Leaf("a number is not below 2^63")) }
        }
        _ => Err(Error::Leaf("a number is not an unsigned integer")),
    }
}

fn list<T>(decoder: &mut Decoder<'_>, item: fn(&mut Decoder<'_>) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let count = decoder.array().map_err(Error::LeafCbor)?.ok_or(Error::Leaf("a list's length is not definite"))?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(decoder)?);
    }
    Ok(items)
}

fn digits(decoder: &mut Decoder<'_>) -> Result<u8, Error> {
    u8::try_from(unsigned(decoder)?).map_err(|_| Error::Leaf("a column has too many digits"))
}

fn column(decoder: &mut Decoder<'_>) -> Result<Column, Error> {
    let (mut name, mut kind, mut precision, mut scale) = (None, None, None, None);
    for _ in 0..map_length(decoder)? {
        match text(decoder)?.as_str() {
            "name" => name = Some(text(decoder)?),
            "kind" => kind = Kind::of_name(&text(decoder)?),
            "precision" => precision = Some(digits(decoder)?),
            "scale" => scale = Some(digits(decoder)?),
            _ => return Err(Error::Leaf("a column has an unknown field")),
        }
    }
    match (name, kind) {
        (Some(name), Some(kind)) => Ok(Column { name, kind, precision, scale }),
        _ => Err(Error::Leaf("a column lacks a field, or its kind is unknown")),
    }
}

fn stream_head(decoder: &mut Decoder<'_>) -> Result<StreamHead, Error> {
    let (mut stream, mut size, mut root) = (None, None, None);
    for _ in 0..map_length(decoder)? {
        match text(decoder)?.as_str() {
            "stream" => stream = Some(text(decoder)?),
            "size" => size = Some(unsigned(decoder)?),
            "root" => root = Hash::try_from(decoder.bytes().map_err(Error::LeafCbor)?).ok(),
            _ => return Err(Error::Leaf("a stream has an unknown field")),
        }
    }
    match (stream, size, root) {
        (Some(stream), Some(size), Some(root)) => Ok(StreamHead { stream, size, root }),
        _ => Err(Error::Leaf("a stream lacks a field, or its root is not 32 bytes")),
    }
}
