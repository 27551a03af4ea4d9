//! Column builders. A row that gives a column nothing costs nothing: nulls are filled in when the column is next written or finished.

use std::sync::Arc;

use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};

use crate::Type;

/// Values of one type, of which some may be missing.
#[derive(Debug)]
pub(super) struct Values<T> {
    values: Vec<T>,
    present: NullBufferBuilder,
}

impl<T: Copy + Default> Values<T> {
    fn new() -> Self {
        Values { values: Vec::new(), present: NullBufferBuilder::new(0) }
    }

    #[inline(always)]
    pub fn push(&mut self, row: usize, value: T) {
        if self.values.len() < row {
            self.pad(row);
        }
        self.values.push(value);
        self.present.append_non_null();
    }

    #[inline(never)]
    fn pad(&mut self, rows: usize) {
        self.present.append_n_nulls(rows.saturating_sub(self.values.len()));
        self.values.resize(rows.max(self.values.len()), T::default());
    }

    /// The value of the row, if it was given one.
    pub fn at(&self, row: usize) -> Option<T> {
        self.values.get(row).copied()
    }
}

/// Texts, of which some may be missing.
#[derive(Debug)]
pub(super) struct Texts {
    values: Vec<u8>,
    offsets: Vec<i32>,
    present: NullBufferBuilder,
}

impl Texts {
    fn new() -> Self {
        Texts { values: Vec::new(), offsets: vec![0], present: NullBufferBuilder::new(0) }
    }

    /// Appends a text, which must be valid UTF-8. All texts together must stay below 2 GiB.
    #[inline(always)]
    pub fn push(&mut self, row: usize, text: &[u8]) {
        if self.offsets.len() <= row {
            self.pad(row);
        }
        self.values.extend_from_slice(text);
        self.offsets.push(self.values.len() as i32);
        self.present.append_non_null();
    }

    #[inline(never)]
    fn pad(&mut self, rows: usize) {
        let rows_now = self.offsets.len() - 1;
        self.present.append_n_nulls(rows.saturating_sub(rows_now));
        self.offsets.resize(rows.max(rows_now) + 1, self.values.len() as i32);
    }

    /// Bytes of the row's text; 0 if it has none.
    pub fn bytes_at(&self, row: usize) -> usize {
        match self.offsets.get(row..row + 2) {
            Some([start, end]) => (end - start) as usize,
            _ => 0,
        }
    }

    fn finish(mut self, rows: usize) -> ArrayRef {
        self.pad(rows);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        let nulls = self.present.finish();
        // SAFETY: every text pushed is either part of the input, which was checked to be UTF-8, between two ASCII characters; or its
        // unescaped form; or made by this crate from ASCII. Offsets are the ends of these.
        Arc::new(unsafe { StringArray::new_unchecked(offsets, Buffer::from_vec(self.values), nulls) })
    }
}

/// Truth values, of which some may be missing.
#[derive(Debug)]
pub(super) struct Bools {
    values: BooleanBufferBuilder,
    present: NullBufferBuilder,
}

impl Bools {
    pub fn push(&mut self, row: usize, value: bool) {
        self.pad(row);
        self.values.append(value);
        self.present.append_non_null();
    }

    fn pad(&mut self, rows: usize) {
        let missing = rows.saturating_sub(self.values.len());
        self.present.append_n_nulls(missing);
        self.values.append_n(missing, false);
    }
}

/// A column under construction.
#[derive(Debug)]
pub(super) enum Builder {
    Text { max_chars: u32, texts: Texts },
    Json { max_bytes: usize, texts: Texts },
    Inet(Texts),
    Uuid(Texts),
    Int { min: i64, max: i64, values: Values<i64> },
    Time(Values<i64>),
    Bool(Bools),
    Decimal { precision: u8, scale: u8, values: Values<i128> },
}

impl Builder {
    /// The builder for a data column. A hash is no data column; it would be built as text.
    pub fn new(ty: Type, max_json_bytes: usize) -> Self {
        match ty {
            Type::Text { max_chars } => Builder::Text { max_chars, texts: Texts::new() },
            Type::Json { max_bytes } => Builder::Json { max_bytes: max_json_bytes.min(max_bytes as usize), texts: Texts::new() },
            Type::Inet => Builder::Inet(Texts::new()),
            Type::Uuid => Builder::Uuid(Texts::new()),
            Type::Int { min, max } => Builder::Int { min, max, values: Values::new() },
            Type::Timestamp => Builder::Time(Values::new()),
            Type::Bool => Builder::Bool(Bools { values: BooleanBufferBuilder::new(0), present: NullBufferBuilder::new(0) }),
            Type::Decimal { precision, scale } => Builder::Decimal { precision, scale, values: Values::new() },
            Type::Hash => Builder::Text { max_chars: 64, texts: Texts::new() },
        }
    }

    /// Makes room for `rows` rows.
    pub fn reserve(&mut self, rows: usize) {
        match self {
            Builder::Text { texts, .. } | Builder::Json { texts, .. } | Builder::Inet(texts) | Builder::Uuid(texts) => {
                texts.offsets.reserve(rows);
            }
            Builder::Int { values, .. } | Builder::Time(values) => values.values.reserve(rows),
            Builder::Decimal { values, .. } => values.values.reserve(rows),
            Builder::Bool(_) => {}
        }
    }

    /// Whole number at `row` of an integer column.
    pub fn int_at(&self, row: usize) -> Option<i64> {
        match self {
            Builder::Int { values, .. } => values.at(row),
            _ => None,
        }
    }

    /// Decimal at `row`, times 10^scale.
    pub fn decimal_at(&self, row: usize) -> Option<i128> {
        match self {
            Builder::Decimal { values, .. } => values.at(row),
            _ => None,
        }
    }

    /// Bytes of the text at `row`.
    pub fn text_bytes_at(&self, row: usize) -> usize {
        match self {
            Builder::Text { texts, .. } | Builder::Json { texts, .. } => texts.bytes_at(row),
            _ => 0,
        }
    }

    /// The column as an array of `rows` rows.
    pub fn finish(self, rows: usize) -> ArrayRef {
        match self {
            Builder::Text { texts, .. } | Builder::Json { texts, .. } | Builder::Inet(texts) | Builder::Uuid(texts) => texts.finish(rows),
            Builder::Int { mut values, .. } => {
                values.pad(rows);
                Arc::new(PrimitiveArray::<Int64Type>::new(values.values.into(), values.present.finish()))
            }
            Builder::Time(mut values) => {
                values.pad(rows);
                let array = PrimitiveArray::<TimestampMicrosecondType>::new(values.values.into(), values.present.finish());
                Arc::new(array.with_timezone("UTC"))
            }
            Builder::Bool(mut bools) => {
                bools.pad(rows);
                Arc::new(BooleanArray::new(bools.values.finish(), bools.present.finish()))
            }
            Builder::Decimal { precision, scale, mut values } => {
                values.pad(rows);
                let array = PrimitiveArray::<Decimal128Type>::new(values.values.into(), values.present.finish());
                Arc::new(array.with_data_type(arrow_schema::DataType::Decimal128(precision, scale as i8)))
            }
        }
    }
}
