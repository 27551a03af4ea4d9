//! What a request may look like, what becomes of it, and how a wrong one is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use muniment_model::{Format, Limits, ParseOptions, Parsed, Rejection, parse, table};
use proptest::prelude::*;

const NOW: i64 = 1_767_225_600_000_000;

fn with(log: &str, body: &[u8], format: Format, limits: Limits) -> Result<Parsed, Rejection> {
    let mut uuid = || [0xab; 16];
    let mut options = ParseOptions { now: NOW, format, limits, uuid: &mut uuid, retention_years: None, users: None };
    parse(table(log).unwrap(), body, &mut options)
}

fn auto(log: &str, body: &str) -> Result<Parsed, Rejection> {
    with(log, body.as_bytes(), Format::Auto, Limits::default())
}

/// Errors as `line field: reason`.
fn errors(result: Result<Parsed, Rejection>) -> Vec<String> {
    let rejection = result.expect_err("refused");
    rejection.errors.into_iter().map(|error| format!("{} {}: {}", error.line, error.field.unwrap_or_default(), error.reason)).collect()
}

fn only(parsed: &Parsed) -> &RecordBatch {
    assert_eq!(parsed.batches.len(), 1);
    &parsed.batches[0].data
}

fn text<'a>(batch: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let array = batch.column_by_name(column).unwrap().as_string::<i32>();
    array.is_valid(row).then(|| array.value(row))
}

fn int(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let array = batch.column_by_name(column).unwrap().as_primitive::<Int64Type>();
    array.is_valid(row).then(|| array.value(row))
}

fn time(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let array = batch.column_by_name(column).unwrap().as_primitive::<TimestampMicrosecondType>();
    array.is_valid(row).then(|| array.value(row))
}

const CHANGE: &str = r#"{"table_name":"case.hoso","operation":"UPDATE","primary_key":"1""#;

fn change(fields: &str) -> String {
    format!("{CHANGE},{fields}}}")
}

#[test]
fn a_change_with_its_defaults() {
    let parsed = auto("sys_audit_log", &change(r#""old_values":{"a": 1 },"new_values":"{\"a\":2}","ip_address":null"#)).unwrap();
    let batch = only(&parsed);
    assert_eq!(parsed.records, 1);
    assert_eq!(text(batch, "table_name", 0), Some("case.hoso"));
    assert_eq!(text(batch, "old_values", 0), Some(r#"{"a": 1 }"#));
    assert_eq!(text(batch, "new_values", 0), Some(r#"{"a":2}"#));
    assert_eq!(text(batch, "ip_address", 0), None);
    assert_eq!(time(batch, "changed_at", 0), Some(NOW));
    assert_eq!(int(batch, "compliance_level", 0), Some(1));
    assert_eq!(int(batch, "retention_years", 0), Some(7));
    assert_eq!(int(batch, "change_size", 0), Some(9 + 7));
    assert_eq!(int(batch, "processing_time", 0), None);
    assert_eq!(parsed.batches[0].retention_years, 7);
}

#[test]
fn other_defaults() {
    let parsed = auto("auth_audit_log", r#"{"event_type":"LOGIN"}"#).unwrap();
    let batch = only(&parsed);
    assert_eq!(text(batch, "event_status", 0), Some("SUCCESS"));
    assert_eq!(text(batch, "details", 0), Some("{}"));
    assert_eq!(text(batch, "correlation_id", 0), Some("abababab-abab-4bab-abab-abababababab"));
    assert_eq!(int(batch, "risk_score", 0), Some(0));
    assert_eq!(int(batch, "retention_years", 0), Some(5));
    let exceeded = |fields: &str| {
        let body = format!(r#"{{"metric_name":"m","metric_category":"API",{fields}}}"#);
        let parsed = auto("system_performance_log", &body).unwrap();
        only(&parsed).column_by_name("is_threshold_exceeded").unwrap().as_boolean().value(0)
    };
    assert!(exceeded(r#""metric_value":10,"threshold_warning":"10.0""#));
    assert!(!exceeded(r#""metric_value":9.999999,"threshold_warning":10"#));
    assert!(!exceeded(r#""metric_value":11"#));
    assert!(exceeded(r#""metric_value":1,"threshold_warning":10,"is_threshold_exceeded":true"#));
}

#[test]
fn fields_in_any_order_and_rows_with_gaps() {
    let body = "\n{\"operation\":\"INSERT\",\"primary_key\":\"a\",\"table_name\":\"t\",\"user_agent\":\"x\"}\r\n  \n\
                { \"table_name\" : \"u\" , \"operation\" : \"DELETE\" , \"primary_key\" : \"b\" }\n\
                {\"primary_key\":\"c\",\"processing_time\":-0,\"table_name\":\"v\",\"operation\":\"DDL\",\"user_agent\":\"\"}";
    let parsed = auto("sys_audit_log", body).unwrap();
    let batch = only(&parsed);
    assert_eq!(parsed.records, 3);
    let column = |name| (0..3).map(|row| text(batch, name, row)).collect::<Vec<_>>();
    assert_eq!(column("table_name"), [Some("t"), Some("u"), Some("v")]);
    assert_eq!(column("user_agent"), [Some("x"), None, Some("")]);
    assert_eq!((0..3).map(|row| int(batch, "processing_time", row)).collect::<Vec<_>>(), [None, None, Some(0)]);
    assert_eq!(batch.schema(), table("sys_audit_log").unwrap().data_schema());
}

#[test]
fn forms_of_a_body() {
    let one = change(r#""changed_by":1"#);
    let pretty = one.replace(',', ",\n");
    let count = |body: &str| auto("sys_audit_log", body).unwrap().records;
    assert_eq!(count(&one), 1);
    assert_eq!(count(&pretty), 1);
    assert_eq!(count(&format!(" \n{one}\n")), 1);
    assert_eq!(count(&format!("[{one} ,\n{pretty}]")), 2);
    assert_eq!(count(&format!("{one}\n{one}")), 2);
    assert_eq!(count("[]"), 0);
    assert_eq!(count(""), 0);
    assert_eq!(errors(auto("sys_audit_log", &format!("[{one}] {one}"))), ["1 : something follows the end of the JSON document"]);
    assert_eq!(errors(auto("sys_audit_log", &format!("{one} {one}\n{one}"))), ["1 : something follows the record on its line"]);
    assert_eq!(errors(auto("sys_audit_log", &format!("[{one},]"))), ["2 : a record must be a JSON object"]);
    assert_eq!(errors(auto("users", "{}")), ["1 : users is not a log"]);
}

#[test]
fn every_bad_line_is_named() {
    let good = change(r#""changed_by":1"#);
    let bad = [
        good.clone(),
        r#"{"operation":"UPSERT","primary_key":"1","tablename":"x"}"#.to_owned(),
        good.clone(),
        change(r#""changed_by":"7","changed_at":"yesterday","ip_address":"10.0.0.256""#),
        change(r#""change_reason":"x"#),
        change(r#""id":5,"blockchain_hash":"00""#),
        change(r#""primary_key":"2""#),
        "17".to_owned(),
        change(r#""new_values":{"a":[1,2}"#),
    ];
    assert_eq!(
        errors(auto("sys_audit_log", &bad.join("\n"))),
        [
            "2 operation: must be one of INSERT, UPDATE, DELETE, TRUNCATE, DDL, SNAPSHOT",
            "2 tablename: sys_audit_log has no such field; did you mean `table_name`?",
            "2 table_name: required, but missing or null",
            "4 changed_by: must be a whole number",
            "4 changed_at: must be a time such as 2025-03-14T08:12:33.123456Z, or microseconds since 1970 as a number",
            "4 ip_address: must be an IPv4 or IPv6 address, optionally with /prefix",
            "5 change_reason: a string has no closing quote, or an unescaped control character in it",
            "6 id: assigned by Muniment; a sender may not set it",
            "6 blockchain_hash: assigned by Muniment; a sender may not set it",
            "7 primary_key: given twice",
            "8 : a record must be a JSON object",
            "9 new_values: expected a comma or the end of the object or array",
        ]
    );
    let many = auto("sys_audit_log", &"{}\n".repeat(1000)).unwrap_err();
    assert_eq!((many.total, many.errors.len()), (3000, 100));
}

#[test]
fn limits_hold() {
    let one = change(r#""changed_by":1"#);
    let limited = |body: &str, limits: Limits| with("sys_audit_log", body.as_bytes(), Format::Ndjson, limits);
    let defaults = Limits::default();
    let three = format!("{one}\n").repeat(3);
    let rejection = limited(&three, Limits { max_records: 2, ..defaults }).unwrap_err();
    assert!(rejection.too_large);
    assert_eq!(rejection.to_string(), "line 3: more than the 2 records allowed");
    let size = one.len();
    assert!(limited(&three, Limits { max_record_bytes: size, ..defaults }).is_ok());
    assert_eq!(
        errors(limited(&one, Limits { max_record_bytes: size - 1, ..defaults })),
        [format!("1 : the record has {size} bytes, more than the {} allowed", size - 1)]
    );
    let nested = |levels: usize| change(&format!(r#""new_values":{}1{}"#, "[".repeat(levels), "]".repeat(levels)));
    let depth = Limits { max_depth: 5, ..defaults };
    assert!(limited(&nested(4), depth).is_ok());
    assert_eq!(errors(limited(&nested(5), depth)), ["1 new_values: nested deeper than allowed"]);
    let quoted = nested(5).replace(r#""new_values":"#, r#""new_values":""#).replace("]}", "]\"}");
    assert!(errors(limited(&quoted, depth))[0].ends_with("nested deeper than allowed"));
    assert_eq!(
        errors(limited(&change(r#""new_values":"\"12345678\"""#), Limits { max_json_bytes: 9, ..defaults })),
        ["1 new_values: 10 bytes of JSON, more than the 9 allowed"]
    );
    let deep = nested(100_000);
    assert_eq!(errors(limited(&deep, Limits { max_depth: u32::MAX, ..defaults })), ["1 new_values: nested deeper than allowed"]);
}

#[test]
fn characters_are_counted_not_bytes() {
    let accepted = |text: &str| auto("sys_audit_log", &change(&format!(r#""change_reason":"{text}""#)));
    assert!(accepted(&"ệ".repeat(200)).is_ok());
    assert!(accepted(&"\\u1ec7".repeat(200)).is_ok());
    assert_eq!(errors(accepted(&"ệ".repeat(201))), ["1 change_reason: 201 characters, more than the 200 allowed"]);
}

#[test]
fn strings_are_read_as_json_says() {
    let read = |text: &str| {
        let parsed = auto("sys_audit_log", &change(&format!(r#""change_reason":"{text}""#)))?;
        Ok::<_, Rejection>(self::text(only(&parsed), "change_reason", 0).unwrap().to_owned())
    };
    assert_eq!(read(r#"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 é😀"#).unwrap(), "\"\\/\u{8}\u{c}\n\r\té😀 é😀");
    assert_eq!(read(&"abcdefgh".repeat(12)).unwrap(), "abcdefgh".repeat(12));
    for (bad, reason) in [
        (r"\u0000", "the NUL character is not allowed"),
        (r"\x", "a backslash is followed by something that is not an escape"),
        (r"\u12g4", "a backslash is followed by something that is not an escape"),
        (r"\ud800", "a \\u escape is half of a surrogate pair"),
        (r"\udc00", "a \\u escape is half of a surrogate pair"),
        (r"\ud800\u0041", "a \\u escape is half of a surrogate pair"),
        ("a\tb", "a string has no closing quote, or an unescaped control character in it"),
    ] {
        assert_eq!(read(bad).unwrap_err().to_string(), format!("line 1, change_reason: {reason}"), "{bad}");
    }
    let keys = auto("sys_audit_log", r#"{"table\u005fname":"t","operation":"DDL","primary_key":""}"#).unwrap();
    assert_eq!(text(only(&keys), "table_name", 0), Some("t"));
}

#[test]
fn utf8_is_checked_line_by_line() {
    let mut body = format!("{}\n", change(r#""changed_by":1"#)).repeat(2).into_bytes();
    body.extend_from_slice(b"{\"table_name\":\"\xff\"}\n{\"table_name\":\"\xc3\n\n{}");
    let errors = errors(with("sys_audit_log", &body, Format::Ndjson, Limits::default()));
    assert_eq!(errors[..2], ["3 : not valid UTF-8", "4 : not valid UTF-8"]);
    assert!(errors[2].starts_with("6 table_name"));
    assert_eq!(errors.len(), 5);
}

#[test]
fn times() {
    let read = |value: &str| {
        let parsed = auto("sys_audit_log", &change(&format!(r#""changed_at":{value}"#))).ok()?;
        time(only(&parsed), "changed_at", 0)
    };
    let second = 1_741_939_953;
    for (text, micros) in [
        (r#""2025-03-14T08:12:33Z""#, second * 1_000_000),
        (r#""2025-03-14T08:12:33""#, second * 1_000_000),
        (r#""2025-03-14 08:12:33.5z""#, second * 1_000_000 + 500_000),
        (r#""2025-03-14T08:12:33.123456Z""#, second * 1_000_000 + 123_456),
        (r#""2025-03-14T08:12:33.123456999Z""#, second * 1_000_000 + 123_456),
        (r#""2025-03-14T15:12:33+07:00""#, second * 1_000_000),
        (r#""2025-03-14T02:42:33-05:30""#, second * 1_000_000),
        (r#""1970-01-01T00:00:00Z""#, 0),
        (r#""0001-01-01T00:00:00Z""#, -62_135_596_800_000_000),
        (r#""9999-12-31T23:59:59.999999Z""#, 253_402_300_799_999_999),
        (r#""2024-02-29T00:00:00Z""#, 1_709_164_800_000_000),
        (r#""2016-12-31T23:59:60Z""#, 1_483_228_800_000_000),
        ("1741939953123456", 1_741_939_953_123_456),
        ("-1", -1),
    ] {
        assert_eq!(read(text), Some(micros), "{text}");
    }
    for bad in [
        r#""2025-03-14""#,
        r#""2025-02-29T00:00:00Z""#,
        r#""2025-13-01T00:00:00Z""#,
        r#""2025-00-01T00:00:00Z""#,
        r#""2025-01-00T00:00:00Z""#,
        r#""2025-01-01T24:00:00Z""#,
        r#""2025-01-01T00:60:00Z""#,
        r#""2025-01-01T00:00:61Z""#,
        r#""2025-01-01T00:00:00.Z""#,
        r#""2025-01-01T00:00:00+0700""#,
        r#""2025-01-01T00:00:00 Z""#,
        r#""0000-01-01T00:00:00Z""#,
        r#""0001-01-01T00:00:00+00:01""#,
        r#""2025-01-01T00:00:00é""#,
        "1.5",
        "1e3",
        "true",
        "253402300800000000",
        "\"\"",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn decimals_are_exact() {
    let read = |value: &str| {
        let body = format!(r#"{{"metric_name":"m","metric_category":"API","metric_value":{value}}}"#);
        let parsed = auto("system_performance_log", &body).ok()?;
        Some(only(&parsed).column_by_name("metric_value").unwrap().as_primitive::<Decimal128Type>().value(0))
    };
    for (text, value) in [
        ("0.1", 100_000),
        ("-0.000001", -1),
        ("999999999999.999999", 999_999_999_999_999_999),
        ("1e3", 1_000_000_000),
        ("1.50000000000000000000000000000000000000000000000", 1_500_000),
        ("123e-6", 123),
        ("\"12.34\"", 12_340_000),
        ("-0", 0),
        ("0e999", 0),
        ("100000000000000000000000000e-26", 1_000_000),
        ("0.00000000000000000001e20", 1_000_000),
    ] {
        assert_eq!(read(text), Some(value), "{text}");
    }
    for bad in
        ["0.0000001", "1000000000000", "1e12", "1e99999999999999999999", "\"1.\"", "\"\"", "\"+1\"", "\"0x1\"", "\"01\"", "true", "\"1e\""]
    {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn addresses_and_uuids_are_canonical() {
    let inet = |value: &str| {
        let parsed = auto("sys_audit_log", &change(&format!(r#""ip_address":"{value}""#))).ok()?;
        text(only(&parsed), "ip_address", 0).map(str::to_owned)
    };
    for (given, kept) in [
        ("10.20.4.17", "10.20.4.17"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("::FFFF:1.2.3.4/128", "::ffff:1.2.3.4/128"),
    ] {
        assert_eq!(inet(given).as_deref(), Some(kept));
    }
    for bad in [
        "",
        "10.0.0",
        "10.0.0.01",
        "10.0.0.0/33",
        "10.0.0.0/",
        "::1/129",
        "::1/064",
        "fe80::1%eth0",
        "localhost",
        "1.2.3.4/+8",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.1000",
        "1..2.3",
        "1.2.3.",
        "256.0.0.1",
    ] {
        assert_eq!(inet(bad), None, "{bad}");
    }
    let body = r#"{"event_type":"LOGIN","correlation_id":"6BA7B810-9DAD-11D1-80B4-00C04FD430C8"}"#;
    assert_eq!(text(only(&auto("auth_audit_log", body).unwrap()), "correlation_id", 0), Some("6ba7b810-9dad-11d1-80b4-00c04fd430c8"));
    assert_eq!(errors(auto("auth_audit_log", r#"{"event_type":"LOGIN","correlation_id":"6ba7"}"#)), ["1 correlation_id: must be a UUID"]);
}

#[test]
fn documents() {
    let refused = |log, fields: &str| errors(auto(log, fields)).remove(0);
    assert_eq!(
        refused("sys_audit_log", &change(r#""new_values":"not json""#)),
        "1 new_values: must be JSON, or a string that holds a JSON document: expected a JSON value"
    );
    assert_eq!(refused("sys_audit_log", &change(r#""new_values":"{} {}""#)), "1 new_values: the string holds more than one JSON document");
    let security = r#"{"event_type":"X","event_category":"SYSTEM","severity":1,"ip_address":"::1","threat_indicators":{}}"#;
    assert_eq!(refused("security_audit_log", security), "1 threat_indicators: must be a JSON array");
    assert!(auto("security_audit_log", &security.replace("{}", "[ ]")).is_ok());
    let ranges = r#"{"event_type":"X","event_category":"OTHER","severity":5,"ip_address":"::1","risk_score":101}"#;
    assert_eq!(
        errors(auto("security_audit_log", ranges)),
        [
            "1 event_category: must be one of AUTHENTICATION, AUTHORIZATION, DATA_ACCESS, SYSTEM",
            "1 severity: must be from 1 to 4",
            "1 risk_score: must be from 0 to 100",
        ]
    );
    let rate = r#"{"metric_name":"m","metric_category":"API","metric_value":1,"sampling_rate":1.0001}"#;
    assert_eq!(errors(auto("system_performance_log", rate)), ["1 sampling_rate: must be from 0 to 1"]);
}

#[test]
fn records_of_several_classes_are_separated() {
    let lines: Vec<String> =
        [1, 3, 1, 2].iter().zip(0..).map(|(level, by)| change(&format!(r#""compliance_level":{level},"changed_by":{by}"#))).collect();
    let parsed = auto("sys_audit_log", &lines.join("\n")).unwrap();
    assert_eq!(parsed.records, 4);
    let classes: Vec<_> = parsed.batches.iter().map(|batch| (batch.retention_years, batch.positions.clone().unwrap())).collect();
    assert_eq!(classes, [(7, vec![0, 2]), (10, vec![1, 3])]);
    assert_eq!(int(&parsed.batches[1].data, "changed_by", 1), Some(3));
    let given = auto("sys_audit_log", &change(r#""compliance_level":3,"retention_years":30"#)).unwrap();
    assert_eq!(given.batches[0].retention_years, 30);
    let mut uuid = || [0; 16];
    let mut options =
        ParseOptions { now: NOW, format: Format::Auto, limits: Limits::default(), uuid: &mut uuid, retention_years: Some(12), users: None };
    let parsed = parse(table("sys_audit_log").unwrap(), lines.join("\n").as_bytes(), &mut options).unwrap();
    assert_eq!(parsed.batches[0].retention_years, 12);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[^\u{0}]{0,40}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec(("[^\u{0}]{0,12}", inner), 0..6).prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Any document goes through unchanged, embedded or in a string.
    #[test]
    fn documents_are_kept_to_the_byte(document in json(), pretty in any::<bool>()) {
        let written = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let quoted = serde_json::to_string(&written).unwrap();
        let embedded = if document.is_string() { &quoted } else { &written };
        for (value, format) in [(embedded, Format::Json), (&quoted, Format::Ndjson)] {
            let body = change(&format!(r#""new_values":{value}"#));
            let parsed = with("sys_audit_log", body.as_bytes(), format, Limits::default()).unwrap();
            let kept = text(only(&parsed), "new_values", 0);
            prop_assert!(kept == Some(written.as_str()) || (kept.is_none() && written == "null" && format == Format::Json));
        }
    }

    /// On damaged documents it agrees with another parser about what is JSON.
    #[test]
    fn agrees_about_what_is_json(document in json(), at in any::<prop::sample::Index>(), byte in prop::sample::select(b"{}[]\",:0-.e+ \\tn1a".to_vec()), cut in any::<bool>()) {
        let mut written = serde_json::to_string(&document).unwrap().into_bytes();
        let at = at.index(written.len());
        if cut { written.truncate(at) } else { written[at] = byte }
        let Ok(damaged) = String::from_utf8(written) else { return Ok(()) };
        prop_assume!(!damaged.contains("\\u"));
        let expected = serde_json::from_str::<&serde_json::value::RawValue>(&damaged).is_ok();
        let body = change(&format!(r#""new_values":{}"#, serde_json::to_string(&damaged).unwrap()));
        prop_assert_eq!(auto("sys_audit_log", &body).is_ok(), expected, "{}", damaged);
    }

    /// Nothing that is sent makes it panic.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), json in r#"[\[{]?("table_name|id|"|:|\{|\}|,|1|\n|\\|null| |\[|\]){0,60}"#) {
        for format in [Format::Json, Format::Ndjson, Format::Auto] {
            let _ = with("sys_audit_log", &bytes, format, Limits::default());
            let _ = with("sys_audit_log", json.as_bytes(), format, Limits::default());
        }
    }
}
