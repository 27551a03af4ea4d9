//! Arbitrary records of every log, and their canonical bytes.

use std::sync::Arc;

use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, BooleanArray, Int64Array, PrimitiveArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use muniment_model::{Column, PayloadEncoder, Table, Type};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
}

pub type Row = Vec<Option<Value>>;

/// Documents as senders write them: odd white space, numbers that no float holds, escapes, the same key twice.
const DOCUMENTS: [&str; 12] = [
    "{}",
    "[]",
    "null",
    " {\t\"a\" :\r\n 1 } ",
    "[1, 1.0, 1e0, 1E+400, -0, -0.0, 123456789012345678901234567890.000]",
    r#"{"a":1,"a":2}"#,
    r#""\u0000\ud83d\ude00\/""#,
    "\"\u{1f600}\u{7f}\"",
    "{\"\":{\"\":[[[[]]]]}}",
    "true",
    "0",
    "\"\"",
];

const ADDRESSES: [&str; 6] = ["0.0.0.0", "255.255.255.255/32", "10.0.0.0/8", "::", "2001:db8::1/64", "::ffff:10.0.0.1"];

/// First and last microsecond of the years that a request may give, and of the type.
const TIMES: [i64; 9] =
    [i64::MIN, -62_135_596_800_000_000, -1, 0, 1, 1_767_225_599_999_999, 1_767_225_600_000_000, 253_402_300_799_999_999, i64::MAX];

fn text(max_chars: usize) -> BoxedStrategy<String> {
    let kept = move |text: String| text.chars().filter(|&c| c != '\0').take(max_chars).collect::<String>();
    prop_oneof![
        2 => Just(String::new()),
        12 => ".{0,24}".prop_map(kept),
        2 => "[\u{10000}-\u{10ffff}]{1,6}".prop_map(kept),
        1 => prop::sample::select(vec!["\u{1f600}", "x", "\u{20ac}"]).prop_map(move |character| character.repeat(max_chars)),
    ]
    .boxed()
}

fn json(max_bytes: usize) -> BoxedStrategy<String> {
    let long = (0..70_000_usize).prop_map(move |length| format!("\"{}\"", "j".repeat(length.min(max_bytes - 2))));
    prop_oneof![20 => prop::sample::select(DOCUMENTS.to_vec()).prop_map(str::to_owned), 1 => long].boxed()
}

fn number(min: i64, max: i64) -> BoxedStrategy<i64> {
    let edges =
        [min, max, 0, -1, 1, min.saturating_add(1), max - 1].into_iter().filter(|edge| (min..=max).contains(edge)).collect::<Vec<_>>();
    prop_oneof![min..=max, prop::sample::select(edges)].boxed()
}

/// A value of a column, within its limits.
pub fn value(column: &Column) -> BoxedStrategy<Option<Value>> {
    let some = match column.ty {
        Type::Text { .. } if !column.values.is_empty() => {
            prop::sample::select(column.values).prop_map(|text| Value::Text(text.to_owned())).boxed()
        }
        Type::Text { max_chars } => text(max_chars as usize).prop_map(Value::Text).boxed(),
        Type::Json { max_bytes } => json(max_bytes as usize).prop_map(Value::Text).boxed(),
        Type::Inet => prop::sample::select(ADDRESSES.to_vec()).prop_map(|text| Value::Text(text.to_owned())).boxed(),
        Type::Uuid => any::<[u32; 2]>().prop_map(|[a, b]| Value::Text(format!("{a:08x}-0000-4000-8000-0000{b:08x}"))).boxed(),
        Type::Int { min, max } => number(min, max).prop_map(Value::Int).boxed(),
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Timestamp => prop_oneof![any::<i64>(), prop::sample::select(TIMES.to_vec())].prop_map(Value::Int).boxed(),
        Type::Decimal { precision, .. } => {
            let bound = 10_i64.pow(u32::from(precision)) - 1;
            let (min, max) = column.range.unwrap_or((-bound, bound));
            number(min, max).prop_map(Value::Int).boxed()
        }
        Type::Hash => unreachable!("not a data column"),
    };
    if column.nullable { prop_oneof![1 => Just(None), 2 => some.prop_map(Some)].boxed() } else { some.prop_map(Some).boxed() }
}

/// Records of a log; in some cases all optional columns are null in all of them.
pub fn rows(table: &'static Table, count: impl Into<prop::collection::SizeRange>) -> BoxedStrategy<Vec<Row>> {
    let row = table.columns.iter().map(value).collect::<Vec<_>>();
    let bare = |mut rows: Vec<Row>| {
        rows.iter_mut()
            .for_each(|row| row.iter_mut().zip(table.columns).for_each(|(cell, column)| *cell = cell.take().filter(|_| !column.nullable)));
        rows
    };
    let rows = prop::collection::vec(row, count);
    (any::<u8>(), rows).prop_map(move |(kind, rows)| if kind < 32 { bare(rows) } else { rows }).boxed()
}

fn array(ty: Type, values: impl Iterator<Item = Option<Value>>) -> ArrayRef {
    let int = |value| if let Some(Value::Int(value)) = value { Some(value) } else { None };
    match ty.arrow() {
        DataType::Int64 => Arc::new(PrimitiveArray::<Int64Type>::from_iter(values.map(int))),
        DataType::Timestamp(..) => Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from_iter(values.map(int)).with_timezone("UTC")),
        decimal @ DataType::Decimal128(..) => {
            Arc::new(PrimitiveArray::<Decimal128Type>::from_iter(values.map(|value| int(value).map(i128::from))).with_data_type(decimal))
        }
        DataType::Boolean => {
            Arc::new(values.map(|value| if let Some(Value::Bool(value)) = value { Some(value) } else { None }).collect::<BooleanArray>())
        }
        _ => Arc::new(values.map(|value| if let Some(Value::Text(value)) = value { Some(value) } else { None }).collect::<StringArray>()),
    }
}

/// The same records several times over.
pub fn times(count: usize, rows: &[Row]) -> Vec<Row> {
    std::iter::repeat_n(rows, count).flatten().cloned().collect()
}

/// `id` and the data columns of records.
pub fn batch(table: &'static Table, ids: &[i64], rows: &[Row]) -> RecordBatch {
    let mut fields = vec![Arc::new(Field::new("id", DataType::Int64, false))];
    fields.extend(table.data_schema().fields().iter().cloned());
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(ids.iter().copied()))];
    arrays.extend(table.columns.iter().enumerate().map(|(at, column)| array(column.ty, rows.iter().map(|row| row[at].clone()))));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// The canonical bytes of each record.
pub fn payloads(table: &Table, batch: &RecordBatch) -> Vec<Vec<u8>> {
    let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
    PayloadEncoder::new(table, batch).unwrap().encode_all(&mut bytes, &mut offsets);
    offsets.windows(2).map(|limits| bytes[limits[0]..limits[1]].to_vec()).collect()
}
