//! The canonical bytes, checked against another CBOR decoder.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, BooleanArray, DictionaryArray, Int64Array, PrimitiveArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use minicbor::Decoder;
use minicbor::data::Type as Cbor;
use muniment_model::{EncodeError, Format, Limits, ParseOptions, PayloadEncoder, Table, Type, logs, parse, table};
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
}

fn value(ty: Type) -> BoxedStrategy<Option<Value>> {
    let extremes = prop::sample::select(vec![
        0,
        1,
        23,
        24,
        255,
        256,
        65_535,
        65_536,
        4_294_967_295,
        4_294_967_296,
        i64::MAX,
        -1,
        -24,
        -25,
        -256,
        -257,
        -65_537,
        -4_294_967_297,
        i64::MIN,
    ]);
    let some = match ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Int { .. } | Type::Timestamp => prop_oneof![any::<i64>(), extremes].prop_map(Value::Int).boxed(),
        Type::Decimal { precision, .. } => {
            let bound = 10_i64.pow(u32::from(precision)) - 1;
            prop_oneof![-bound..=bound, Just(bound), Just(-bound)].prop_map(Value::Int).boxed()
        }
        _ => {
            let long = prop::sample::select(vec![23, 24, 31, 32, 33, 255, 256, 65_535, 65_536]).prop_map(|length| "x".repeat(length));
            prop_oneof![8 => ".{0,40}", 1 => long].prop_map(Value::Text).boxed()
        }
    };
    prop_oneof![1 => Just(None), 3 => some.prop_map(Some)].boxed()
}

fn rows(table: &'static Table) -> impl Strategy<Value = Vec<Vec<Option<Value>>>> {
    prop::collection::vec(table.columns.iter().map(|column| value(column.ty)).collect::<Vec<_>>(), 0..6)
}

fn array(ty: Type, values: impl Iterator<Item = Option<Value>>) -> ArrayRef {
    let int = |value| match value {
        Some(Value::Int(value)) => Some(value),
        _ => None,
    };
    match ty.arrow() {
        DataType::Int64 => Arc::new(PrimitiveArray::<Int64Type>::from_iter(values.map(int))),
        DataType::Timestamp(..) => Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from_iter(values.map(int)).with_timezone("UTC")),
        decimal @ DataType::Decimal128(..) => {
            Arc::new(PrimitiveArray::<Decimal128Type>::from_iter(values.map(|value| int(value).map(i128::from))).with_data_type(decimal))
        }
        DataType::Boolean => {
            let bool = |value| if let Some(Value::Bool(value)) = value { Some(value) } else { None };
            Arc::new(values.map(bool).collect::<BooleanArray>())
        }
        _ => {
            let text = |value| if let Some(Value::Text(value)) = value { Some(value) } else { None };
            Arc::new(values.map(text).collect::<StringArray>())
        }
    }
}

fn batch(table: &'static Table, rows: &[Vec<Option<Value>>]) -> RecordBatch {
    let arrays = table.columns.iter().enumerate().map(|(i, column)| array(column.ty, rows.iter().map(|row| row[i].clone()))).collect();
    RecordBatch::try_new(table.data_schema(), arrays).unwrap()
}

fn encode(table: &Table, batch: &RecordBatch) -> Vec<Vec<u8>> {
    let (mut bytes, mut offsets) = (vec![1, 2, 3], vec![7]);
    let encoder = PayloadEncoder::new(table, batch).unwrap();
    encoder.encode_all(&mut bytes, &mut offsets);
    assert_eq!(offsets.len(), batch.num_rows() + 1);
    let all: Vec<Vec<u8>> = offsets.windows(2).map(|limits| bytes[limits[0]..limits[1]].to_vec()).collect();
    for (row, payload) in all.iter().enumerate() {
        let mut one = vec![9];
        encoder.encode(row, &mut one);
        assert_eq!(one[1..], payload[..]);
    }
    all
}

/// The map, and the encoded keys in order.
fn decode(payload: &[u8]) -> (Vec<(String, Value)>, Vec<Vec<u8>>) {
    let mut decoder = Decoder::new(payload);
    let (mut pairs, mut keys) = (Vec::new(), Vec::new());
    for _ in 0..decoder.map().unwrap().unwrap() {
        let start = decoder.position();
        let key = decoder.str().unwrap().to_owned();
        keys.push(payload[start..decoder.position()].to_vec());
        let value = match decoder.datatype().unwrap() {
            Cbor::String => Value::Text(decoder.str().unwrap().to_owned()),
            Cbor::Bool => Value::Bool(decoder.bool().unwrap()),
            _ => Value::Int(decoder.i64().unwrap()),
        };
        pairs.push((key, value));
    }
    assert_eq!(decoder.position(), payload.len());
    (pairs, keys)
}

/// Encodes again with the other implementation, whose heads are the shortest, too.
fn encode_again(pairs: &[(String, Value)]) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    encoder.map(pairs.len() as u64).unwrap();
    for (key, value) in pairs {
        encoder.str(key).unwrap();
        match value {
            Value::Text(text) => encoder.str(text).unwrap(),
            Value::Int(value) => encoder.i64(*value).unwrap(),
            Value::Bool(value) => encoder.bool(*value).unwrap(),
        };
    }
    encoder.into_writer()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn what_is_encoded_is_what_is_in_the_columns(
        (log, rows) in prop::sample::select(logs().to_vec()).prop_flat_map(|log| (Just(log), rows(log))),
    ) {
        let payloads = encode(log, &batch(log, &rows));
        for (row, payload) in rows.iter().zip(&payloads) {
            let (pairs, keys) = decode(payload);
            prop_assert!(keys.is_sorted() && keys.windows(2).all(|two| two[0] != two[1]));
            prop_assert_eq!(&encode_again(&pairs), payload);
            let mut expected: Vec<(String, Value)> =
                log.columns.iter().zip(row).filter_map(|(column, value)| Some((column.name.to_owned(), value.clone()?))).collect();
            expected.sort_by_key(|(name, _)| (name.len(), name.clone()));
            prop_assert_eq!(pairs, expected);
        }
    }

    #[test]
    fn other_columns_their_order_and_slicing_do_not_matter(
        (log, rows, order) in prop::sample::select(logs().to_vec()).prop_flat_map(|log| {
            (Just(log), rows(log), Just((0..log.columns.len()).collect::<Vec<_>>()).prop_shuffle())
        }),
    ) {
        let plain = batch(log, &rows);
        let mut fields = vec![Field::new("id", DataType::Int64, false)];
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..rows.len() as i64))];
        for &i in &order {
            fields.push(plain.schema().field(i).clone());
            arrays.push(plain.column(i).clone());
        }
        let other = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let payloads = encode(log, &plain);
        prop_assert_eq!(&encode(log, &other), &payloads);
        for (from, payload) in payloads.iter().enumerate() {
            prop_assert_eq!(&encode(log, &other.slice(from, 1))[0], payload);
        }
    }

    #[test]
    fn texts_may_be_dictionaries(
        (log, rows, times) in prop::sample::select(logs().to_vec()).prop_flat_map(|log| (Just(log), rows(log), 1..12_usize)),
    ) {
        // Each row several times: dictionaries that are used seldom and often.
        let plain = batch(log, &rows.iter().cycle().take(rows.len() * times).cloned().collect::<Vec<_>>());
        let arrays = plain.columns().iter().map(|array| match array.as_string_opt::<i32>() {
            Some(texts) => Arc::new(texts.iter().collect::<DictionaryArray<Int32Type>>()) as ArrayRef,
            None => array.clone(),
        });
        let other = RecordBatch::try_from_iter(log.columns.iter().map(|column| column.name).zip(arrays)).unwrap();
        let payloads = encode(log, &plain);
        prop_assert_eq!(&encode(log, &other), &payloads);
        if let Some(last) = payloads.len().checked_sub(1) {
            prop_assert_eq!(&encode(log, &other.slice(last, 1))[0], &payloads[last]);
        }
    }
}

#[test]
fn known_bytes() {
    let mut uuid = || [0; 16];
    let mut options = ParseOptions {
        now: 1_767_225_600_000_000,
        format: Format::Auto,
        limits: Limits::default(),
        uuid: &mut uuid,
        retention_years: None,
        users: None,
    };
    let log = table("system_performance_log").unwrap();
    let body = br#"{"metric_name":"latency","metric_category":"API","metric_value":-1.5}"#;
    let parsed = parse(log, body, &mut options).unwrap();
    let expected = [
        "a7", // seven entries
        "6b",
        "6d656173757265645f6174",
        "1b",
        "0006474846204000", // measured_at: 1767225600000000
        "6b",
        "6d65747269635f6e616d65",
        "67",
        "6c6174656e6379", // metric_name: "latency"
        "6c",
        "6d65747269635f76616c7565",
        "3a",
        "0016e35f", // metric_value: -1500000
        "6d",
        "73616d706c696e675f72617465",
        "19",
        "2710", // sampling_rate: 10000
        "6f",
        "6d65747269635f63617465676f7279",
        "63",
        "415049", // metric_category: "API"
        "6f",
        "726574656e74696f6e5f7965617273",
        "02", // retention_years: 2
        "75",
        "69735f7468726573686f6c645f6578636565646564",
        "f4", // is_threshold_exceeded: false
    ]
    .concat();
    let hex: String = encode(log, &parsed.batches[0].data)[0].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected);
}

#[test]
fn a_batch_must_have_the_columns() {
    let log = table("api_access_log").unwrap();
    let empty = batch(log, &[]);
    let without = empty.project(&[0, 1, 2]).unwrap();
    assert_eq!(PayloadEncoder::new(log, &without).unwrap_err(), EncodeError::Missing("endpoint"));
    let ints: Vec<ArrayRef> = log.columns.iter().map(|_| Arc::new(Int64Array::from(vec![1])) as ArrayRef).collect();
    let fields: Vec<Field> = log.columns.iter().map(|column| Field::new(column.name, DataType::Int64, true)).collect();
    let wrong = RecordBatch::try_new(Arc::new(Schema::new(fields)), ints).unwrap();
    assert!(matches!(PayloadEncoder::new(log, &wrong).unwrap_err(), EncodeError::WrongType { column: "request_id", .. }));
}
