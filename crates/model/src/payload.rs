//! The canonical bytes of a record: a CBOR map from column name to value, deterministically encoded (RFC 8949 §4.2.1), rebuilt from the columns
//! it is stored in. `docs/format.md` §1.1 is the specification.

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::DataType;

use crate::{Table, Type};

/// Why a batch can't be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A data column is not there.
    #[error("the batch has no column `{0}`")]
    Missing(&'static str),
    /// A data column has another type than the table says.
    #[error("column `{column}` is {found}, not {expected}")]
    WrongType {
        /// The column.
        column: &'static str,
        /// Its type in the batch.
        found: DataType,
        /// Its type in the table.
        expected: DataType,
    },
    /// A decimal is too large for a 64-bit integer, so it can't be from a column of this table.
    #[error("column `{0}` has a decimal beyond its precision")]
    DecimalTooLarge(&'static str),
    /// The keys of a column are not those of its dictionary.
    #[error("column `{0}` has keys that its dictionary has not")]
    Dictionary(&'static str),
    /// The texts of one column are longer together than an array of texts can be.
    #[error("column `{0}` has too many bytes")]
    TooLong(&'static str),
}

/// Encodes the records of one batch. The columns are looked up and downcast once.
#[derive(Debug)]
pub struct PayloadEncoder {
    /// In the order of their encoded names, without those that are null throughout.
    columns: Vec<Column>,
    /// How many of them have no null.
    always: usize,
    rows: usize,
    /// Bytes of a record beside its texts, at most.
    fixed: usize,
    /// Bytes of the texts of all records, at most.
    texts: usize,
}

/// Bytes that a short copy moves at once, whatever its length: a few loads and stores instead of a call.
const CHUNK: usize = 64;
/// A dictionary is encoded before the records if they use each of its texts so many times.
const USES: usize = 4;
/// A text of a dictionary up to this length is short: the lengths of those that the records have need not be added up.
const SHORT: usize = 256;

#[derive(Debug)]
struct Column {
    /// The encoded name, and zeros up to a multiple of [`CHUNK`].
    key: Vec<u8>,
    key_length: usize,
    nulls: Option<NullBuffer>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Text(OffsetBuffer<i32>, Buffer),
    /// Keys of texts.
    Keys(ScalarBuffer<i32>, OffsetBuffer<i32>, Buffer),
    /// Keys of what is to be written: the encoded name and the encoded text, each from one of these places to the next, with a chunk after the last.
    Encoded(ScalarBuffer<i32>, Vec<usize>, Vec<u8>),
    Int(ScalarBuffer<i64>),
    Bool(BooleanBuffer),
    Decimal(ScalarBuffer<i128>),
}

impl PayloadEncoder {
    /// An encoder of the batch's rows. The batch needs the table's data columns, in any order; others don't matter. Texts may be
    /// dictionary arrays with keys of 32 bits.
    ///
    /// # Errors
    ///
    /// If a data column is missing, or not of its type.
    pub fn new(table: &Table, batch: &RecordBatch) -> Result<Self, EncodeError> {
        let mut columns = Vec::with_capacity(table.columns.len());
        let mut texts = 0;
        for column in table.columns {
            let array = batch.column_by_name(column.name).ok_or(EncodeError::Missing(column.name))?;
            let values = Values::of(array, column.ty, column.name)?;
            if array.null_count() == array.len() {
                continue;
            }
            let mut key = vec![0; LONGEST_HEAD];
            let head = Writer { out: &mut key, at: 0 }.head(TEXT, column.name.len() as u64).at;
            key.truncate(head);
            key.extend_from_slice(column.name.as_bytes());
            let key_length = key.len();
            key.resize(key_length.next_multiple_of(CHUNK), 0);
            let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
            texts += values.check(nulls.as_ref(), column.name)?;
            let values = values.encoded(&key[..key_length]);
            columns.push(Column { key, key_length, nulls, values });
        }
        columns.sort_by(|a, b| a.key[..a.key_length].cmp(&b.key[..b.key_length]));
        let always = columns.iter().filter(|column| column.nulls.is_none()).count();
        let fixed = LONGEST_HEAD + columns.iter().map(|column| column.key_length + LONGEST_HEAD).sum::<usize>();
        Ok(PayloadEncoder { columns, always, rows: batch.num_rows(), fixed, texts })
    }

    /// Number of records.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends the payload of the record at `row`.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn encode(&self, row: usize, out: &mut Vec<u8>) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let before = out.len();
        let texts: usize = self.columns.iter().map(|column| column.text_bytes(row)).sum();
        out.resize(before + texts + self.fixed + CHUNK, 0);
        let end = self.write(row, Writer { out, at: before }).at;
        out.truncate(end);
    }

    /// Puts the payloads of all records into `bytes`, and their limits into `offsets`: payload i is `bytes[offsets[i]..offsets[i + 1]]`. What was in
    /// them is overwritten; what is in `bytes` after the last payload means nothing, but spares the next call to clear room.
    pub fn encode_all(&self, bytes: &mut Vec<u8>, offsets: &mut Vec<usize>) {
        offsets.clear();
        offsets.reserve(self.rows + 1);
        let room = self.texts + self.rows * self.fixed + CHUNK;
        if bytes.len() < room {
            bytes.resize(room, 0);
        }
        let mut end = 0;
        offsets.push(end);
        for row in 0..self.rows {
            end = self.write(row, Writer { out: bytes, at: end }).at;
            offsets.push(end);
        }
    }

    /// Writes the payload of the record at `row` where there is room for it and a chunk more.
    #[inline(always)]
    fn write<'o>(&self, row: usize, out: Writer<'o>) -> Writer<'o> {
        let mut present = self.always;
        if present < self.columns.len() {
            present += self.columns.iter().filter(|column| column.nulls.as_ref().is_some_and(|nulls| nulls.is_valid(row))).count();
        }
        let mut out = out.head(MAP, present as u64);
        for column in &self.columns {
            if column.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            if let Values::Encoded(keys, limits, bytes) = &column.values {
                let key = keys[row] as usize;
                out = out.bytes(bytes, limits[key], limits[key + 1]);
                continue;
            }
            out = out.bytes(&column.key, 0, column.key_length);
            out = match &column.values {
                Values::Text(offsets, bytes) => out.text(offsets, bytes, row),
                Values::Keys(keys, offsets, bytes) => out.text(offsets, bytes, keys[row] as usize),
                Values::Encoded(..) => out,
                Values::Int(values) => out.int(values[row]),
                Values::Bool(values) => out.byte(FALSE + u8::from(values.value(row))),
                Values::Decimal(values) => out.int(values[row] as i64),
            };
        }
        out
    }
}

impl Values {
    fn of(array: &dyn Array, ty: Type, column: &'static str) -> Result<Self, EncodeError> {
        let expected = ty.arrow();
        if expected == DataType::Utf8
            && let Some(dictionary) = array.as_dictionary_opt::<Int32Type>()
            && let Some(texts) = dictionary.values().as_string_opt::<i32>()
            && texts.null_count() == 0
        {
            return Ok(Values::Keys(dictionary.keys().values().clone(), texts.offsets().clone(), texts.values().clone()));
        }
        if *array.data_type() != expected {
            return Err(EncodeError::WrongType { column, found: array.data_type().clone(), expected });
        }
        Ok(match expected {
            DataType::Int64 => Values::Int(array.as_primitive::<Int64Type>().values().clone()),
            DataType::Timestamp(..) => Values::Int(array.as_primitive::<TimestampMicrosecondType>().values().clone()),
            DataType::Boolean => Values::Bool(array.as_boolean().values().clone()),
            DataType::Decimal128(..) => {
                let values = array.as_primitive::<Decimal128Type>().values().clone();
                if values.iter().any(|&value| i64::try_from(value).is_err()) {
                    return Err(EncodeError::DecimalTooLarge(column));
                }
                Values::Decimal(values)
            }
            _ => {
                let texts = array.as_string::<i32>();
                Values::Text(texts.offsets().clone(), texts.values().clone())
            }
        })
    }

    /// Bytes of the texts of all rows, at most: no more than an array of texts could have, and every key is in its dictionary.
    fn check(&self, nulls: Option<&NullBuffer>, column: &'static str) -> Result<usize, EncodeError> {
        let (keys, offsets) = match self {
            Values::Text(offsets, _) => return Ok((offsets[offsets.len() - 1] - offsets[0]) as usize),
            Values::Keys(keys, offsets, _) => (keys, offsets),
            _ => return Ok(0),
        };
        let texts = offsets.len() - 1;
        if texts <= keys.len() {
            let longest = offsets.windows(2).fold(0, |longest, limits| longest.max(limits[1] - limits[0])) as usize;
            let greatest = keys.iter().fold(0, |greatest, key| greatest.max(*key as u32)) as usize;
            if longest <= SHORT && greatest < texts {
                return Ok(longest * keys.len());
            }
        }
        let length = |key: i32| {
            let key = usize::try_from(key).ok()?;
            Some((offsets.get(key + 1)? - offsets[key]) as usize)
        };
        let valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
        let total = keys.iter().enumerate().filter(|(row, _)| valid(*row)).map(|(_, key)| length(*key)).sum::<Option<usize>>();
        let total = total.ok_or(EncodeError::Dictionary(column))?;
        if total <= i32::MAX as usize { Ok(total) } else { Err(EncodeError::TooLong(column)) }
    }

    /// The same, encoded after the encoded name if it is a dictionary of which each text is used often.
    fn encoded(self, name: &[u8]) -> Self {
        let (keys, offsets, bytes) = match self {
            Values::Keys(keys, offsets, bytes) if offsets.len().saturating_mul(USES) <= keys.len() => (keys, offsets, bytes),
            other => return other,
        };
        let texts = offsets.len() - 1;
        let mut out = vec![0; bytes.len() + texts * (name.len() + LONGEST_HEAD) + CHUNK];
        let mut limits = vec![0];
        let mut at = 0;
        for text in 0..texts {
            at = Writer { out: &mut out, at }.bytes(name, 0, name.len()).text(&offsets, &bytes, text).at;
            limits.push(at);
        }
        out.truncate(at + CHUNK);
        Values::Encoded(keys, limits, out)
    }
}

impl Column {
    /// Bytes of the text of the record at `row`, at most.
    fn text_bytes(&self, row: usize) -> usize {
        let length = |offsets: &[i32], i: usize| (offsets[i + 1] - offsets[i]) as usize;
        match &self.values {
            _ if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) => 0,
            Values::Text(offsets, _) => length(offsets, row),
            Values::Keys(keys, offsets, _) => length(offsets, keys[row] as usize),
            Values::Encoded(keys, limits, _) => limits[keys[row] as usize + 1] - limits[keys[row] as usize],
            _ => 0,
        }
    }
}

const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const TEXT: u8 = 3 << 5;
const MAP: u8 = 5 << 5;
const FALSE: u8 = 0xf4;
const LONGEST_HEAD: usize = 9;

/// Writes into room that is there already: nothing grows and nothing is called for the few bytes of most values.
struct Writer<'o> {
    out: &'o mut [u8],
    at: usize,
}

impl Writer<'_> {
    #[inline(always)]
    fn byte(self, byte: u8) -> Self {
        self.out[self.at] = byte;
        Self { at: self.at + 1, ..self }
    }

    /// Writes `source[start..end]`; what follows in `out` may be overwritten, up to a chunk.
    #[inline(always)]
    fn bytes(self, source: &[u8], start: usize, end: usize) -> Self {
        let Self { out, at } = self;
        let length = end - start;
        if length <= CHUNK
            && let Some(from) = source.get(start..).and_then(<[u8]>::first_chunk::<CHUNK>)
            && let Some(to) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<CHUNK>)
        {
            *to = *from;
        } else {
            out[at..at + length].copy_from_slice(&source[start..end]);
        }
        Self { out, at: at + length }
    }

    /// Writes a text with its head.
    #[inline(always)]
    fn text(self, offsets: &[i32], bytes: &[u8], i: usize) -> Self {
        let (start, end) = (offsets[i] as usize, offsets[i + 1] as usize);
        self.head(TEXT, (end - start) as u64).bytes(bytes, start, end)
    }

    #[inline(always)]
    fn int(self, value: i64) -> Self {
        if value < 0 { self.head(NEGATIVE, !value as u64) } else { self.head(UNSIGNED, value as u64) }
    }

    /// Writes the shortest head of a major type with its argument.
    #[inline(always)]
    fn head(self, major: u8, argument: u64) -> Self {
        let Self { out, at } = self;
        let (first, length) = match argument {
            0..24 => (argument as u8, 0),
            24..0x100 => (24, 1),
            0x100..0x1_0000 => (25, 2),
            0x1_0000..0x1_0000_0000 => (26, 4),
            _ => (27, 8),
        };
        let room: &mut [u8] = &mut out[at..at + LONGEST_HEAD];
        room[0] = major | first;
        // The argument's last bytes, first in the room; the rest is overwritten by what follows.
        let bytes = argument.checked_shl(64 - 8 * length).unwrap_or(0).to_be_bytes();
        room[1..].copy_from_slice(&bytes);
        Self { out, at: at + 1 + length as usize }
    }
}
