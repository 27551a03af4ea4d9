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

#[derive(Debug)]
struct Column {
    key: Vec<u8>,
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
            let mut key = Vec::new();
            head(TEXT, column.name.len() as u64, &mut key);
            key.extend_from_slice(column.name.as_bytes());
            columns.push(Column { key, nulls: array.nulls().filter(|nulls| nulls.null_count() > 0).cloned(), values });
        }
        columns.sort_by(|a, b| a.key.cmp(&b.key));
        let always = columns.iter().filter(|column| column.nulls.is_none()).count();
        let fixed = LONGEST_HEAD + columns.iter().map(|column| column.key.len() + LONGEST_HEAD).sum::<usize>();
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
    #[inline]
    pub fn encode(&self, row: usize, out: &mut Vec<u8>) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let mut present = self.always;
        if present < self.columns.len() {
            present += self.columns.iter().filter(|column| column.nulls.as_ref().is_some_and(|nulls| nulls.is_valid(row))).count();
        }
        head(MAP, present as u64, out);
        for column in &self.columns {
            if column.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            out.extend_from_slice(&column.key);
            match &column.values {
                Values::Text(offsets, bytes) => {
                    let text = &bytes[offsets[row] as usize..offsets[row + 1] as usize];
                    head(TEXT, text.len() as u64, out);
                    out.extend_from_slice(text);
                }
                Values::Int(values) => int(values[row], out),
                Values::Bool(values) => out.push(FALSE + u8::from(values.value(row))),
                Values::Decimal(values) => int(values[row] as i64, out),
            }
        }
    }

    /// Appends the payloads of all records to `bytes`, and their limits to `offsets`: payload i is `bytes[offsets[i]..offsets[i + 1]]`. Both
    /// are cleared first.
    pub fn encode_all(&self, bytes: &mut Vec<u8>, offsets: &mut Vec<usize>) {
        bytes.clear();
        offsets.clear();
        offsets.reserve(self.rows + 1);
        let texts: usize = self.columns.iter().map(|column| column.values.text_bytes()).sum();
        bytes.reserve(texts + self.rows * self.fixed);
        offsets.push(0);
        for row in 0..self.rows {
            self.encode(row, bytes);
            offsets.push(bytes.len());
        }
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

    fn text_bytes(&self) -> usize {
        match self {
            Values::Text(offsets, _) => match (offsets.first(), offsets.last()) {
                (Some(first), Some(last)) => (last - first) as usize,
                _ => 0,
            },
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

#[inline(always)]
fn int(value: i64, out: &mut Vec<u8>) {
    if value < 0 { head(NEGATIVE, !value as u64, out) } else { head(UNSIGNED, value as u64, out) }
}

/// Writes the shortest head of a major type with its argument.
#[inline(always)]
fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    match argument {
        0..24 => out.push(major | argument as u8),
        24..0x100 => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..0x1_0000 => {
            let [a, b] = (argument as u16).to_be_bytes();
            out.extend_from_slice(&[major | 25, a, b]);
        }
        0x1_0000..0x1_0000_0000 => {
            let [a, b, c, d] = (argument as u32).to_be_bytes();
            out.extend_from_slice(&[major | 26, a, b, c, d]);
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = argument.to_be_bytes();
            out.extend_from_slice(&[major | 27, a, b, c, d, e, f, g, h]);
        }
    }
}
