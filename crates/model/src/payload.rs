//! The canonical bytes of a record: a CBOR map from column name to value, deterministically encoded (RFC 8949 §4.2.1), rebuilt from the columns
//! it is stored in. `docs/format.md` §1.1 is the specification.

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType};
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
}

/// Bytes that a short copy moves at once, whatever its length: a single load and store instead of a call.
const CHUNK: usize = 32;

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
    Int(ScalarBuffer<i64>),
    Bool(BooleanBuffer),
    Decimal(ScalarBuffer<i128>),
}

impl PayloadEncoder {
    /// An encoder of the batch's rows. The batch needs the table's data columns, in any order; others don't matter.
    ///
    /// # Errors
    ///
    /// If a data column is missing, or not of its type.
    pub fn new(table: &Table, batch: &RecordBatch) -> Result<Self, EncodeError> {
        let mut columns = Vec::with_capacity(table.columns.len());
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
            columns.push(Column { key, key_length, nulls: array.nulls().filter(|nulls| nulls.null_count() > 0).cloned(), values });
        }
        columns.sort_by(|a, b| a.key[..a.key_length].cmp(&b.key[..b.key_length]));
        let always = columns.iter().filter(|column| column.nulls.is_none()).count();
        let fixed = LONGEST_HEAD + columns.iter().map(|column| column.key_length + LONGEST_HEAD).sum::<usize>();
        Ok(PayloadEncoder { columns, always, rows: batch.num_rows(), fixed })
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
        let texts: usize = self.columns.iter().map(|column| column.values.text_bytes(row, row + 1)).sum();
        out.resize(before + texts + self.fixed + CHUNK, 0);
        let end = self.write(row, Writer { out, at: before }).at;
        out.truncate(end);
    }

    /// Puts the payloads of all records into `bytes`, and their limits into `offsets`: payload i is `bytes[offsets[i]..offsets[i + 1]]`. What was in
    /// them is overwritten.
    pub fn encode_all(&self, bytes: &mut Vec<u8>, offsets: &mut Vec<usize>) {
        offsets.clear();
        offsets.reserve(self.rows + 1);
        let texts: usize = self.columns.iter().map(|column| column.values.text_bytes(0, self.rows)).sum();
        bytes.resize(texts + self.rows * self.fixed + CHUNK, 0);
        let mut end = 0;
        offsets.push(end);
        for row in 0..self.rows {
            end = self.write(row, Writer { out: bytes, at: end }).at;
            offsets.push(end);
        }
        bytes.truncate(end);
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
            out = out.bytes(&column.key, 0, column.key_length);
            out = match &column.values {
                Values::Text(offsets, bytes) => {
                    let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                    out.head(TEXT, (end - start) as u64).bytes(bytes, start, end)
                }
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

    /// Bytes of the texts of some rows.
    fn text_bytes(&self, first: usize, end: usize) -> usize {
        match self {
            Values::Text(offsets, _) => (offsets[end] - offsets[first]) as usize,
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
        let chunk = |bytes: &[u8]| bytes.first_chunk::<CHUNK>().copied();
        match (source.get(start..).and_then(chunk), out[at..].first_chunk_mut()) {
            (Some(from), Some(to)) if length <= CHUNK => *to = from,
            _ => out[at..at + length].copy_from_slice(&source[start..end]),
        }
        Self { out, at: at + length }
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
