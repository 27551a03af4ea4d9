//! Requests: whatever is accepted is JSON to another parser, too, and gives records whose payloads are canonical and complete.
//! The first byte chooses the log, the second the format, the rest is the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muniment_ledger::{Value, decode_payload};
use muniment_model::{ClassBatch, Format, Limits, ParseOptions, Parsed, PayloadEncoder, Table, Type, logs, parse};
use serde_json::value::RawValue;

const NOW: i64 = 1_767_225_600_000_000;

fn parsed(table: &'static Table, format: Format, body: &[u8]) -> Option<Parsed> {
    let mut uuid = || [0x5a; 16];
    parse(table, body, &mut ParseOptions { now: NOW, format, limits: Limits::default(), uuid: &mut uuid, retention_years: None, users: None }).ok()
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(text).is_ok()
}

/// Number of records that another parser finds.
fn count(format: Format, body: &[u8]) -> Option<usize> {
    let lines = || body.split(|&byte| byte == b'\n').filter(|line| line.iter().any(|byte| !b" \t\r".contains(byte)));
    match format {
        Format::Ndjson => lines().all(is_json).then(|| lines().count()),
        _ if body.trim_ascii_start().starts_with(b"[") => serde_json::from_slice::<Vec<&RawValue>>(body).ok().map(|records| records.len()),
        _ => is_json(body).then_some(1),
    }
}

fn check_payload(table: &Table, payload: &[u8]) {
    let fields = decode_payload(payload).expect("a canonical payload");
    let value = |name: &str| fields.iter().find(|field| field.0 == name).map(|field| &field.1);
    for column in table.columns {
        match (column.ty, value(column.name)) {
            (_, None) => assert!(column.nullable, "{} is null", column.name),
            (Type::Json { .. }, Some(Value::Text(text))) => assert!(is_json(text.as_bytes()), "{}: {text}", column.name),
            (Type::Text { max_chars }, Some(Value::Text(text))) => {
                assert!(text.chars().count() <= max_chars as usize && !text.contains('\0'))
            }
            (Type::Inet | Type::Uuid, Some(Value::Text(_)))
            | (Type::Bool, Some(Value::Bool(_)))
            | (Type::Timestamp, Some(Value::Int(_))) => {}
            (Type::Int { min, max }, Some(Value::Int(number))) => assert!((i128::from(min)..=i128::from(max)).contains(number)),
            (Type::Decimal { precision, .. }, Some(Value::Int(number))) => assert!(number.unsigned_abs() < 10_u128.pow(precision.into())),
            (ty, Some(other)) => panic!("{}: {other:?} is not {ty:?}", column.name),
        }
    }
    assert!(fields.iter().all(|(name, _)| table.columns.iter().any(|column| column.name == name)));
}

fn check_batch(table: &'static Table, batch: &ClassBatch) {
    let encoder = PayloadEncoder::new(table, &batch.data).expect("a batch of the log");
    let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
    encoder.encode_all(&mut bytes, &mut offsets);
    assert_eq!(offsets.len(), batch.data.num_rows() + 1);
    for limits in offsets.windows(2) {
        check_payload(table, &bytes[limits[0]..limits[1]]);
    }
}

fuzz_target!(|input: &[u8]| {
    let &[log, format, ref body @ ..] = input else { return };
    let table = logs()[usize::from(log) % logs().len()];
    let format = [Format::Json, Format::Ndjson, Format::Auto][usize::from(format) % 3];
    let Some(found) = parsed(table, format, body) else { return };
    let formats = if format == Format::Auto { vec![Format::Json, Format::Ndjson] } else { vec![format] };
    assert!(formats.into_iter().any(|format| count(format, body) == Some(found.records)), "accepted, but it is no JSON");
    assert_eq!(found.batches.iter().map(|batch| batch.data.num_rows()).sum::<usize>(), found.records);
    assert!(found.batches.is_sorted_by(|a, b| a.retention_years < b.retention_years));
    let mut positions: Vec<u32> = found.batches.iter().flat_map(|batch| batch.positions.iter().flatten().copied()).collect();
    positions.sort_unstable();
    assert!(positions.is_empty() || positions.into_iter().eq(0..found.records as u32));
    found.batches.iter().for_each(|batch| check_batch(table, batch));
});
