//! Envelopes of every connector, as short as they can be, and what they become.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(format: Format, body: &str, keys: &str, state: State) -> Result<Decoded> {
    let keys = KeyHints::parse(keys).unwrap();
    decode(body.as_bytes(), &Options { format, source: "shop", keys: &keys, now: 5 }, state)
}

fn records(decoded: &Decoded) -> Vec<Value> {
    let lines = decoded.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn debezium(body: &str) -> Vec<Value> {
    let decoded = read(Format::Debezium, body, "id", State::default()).unwrap();
    accepted(&decoded);
    records(&decoded)
}

fn wal2json(body: &str) -> Vec<Value> {
    let decoded = read(Format::Wal2Json, body, "", State::default()).unwrap();
    accepted(&decoded);
    records(&decoded)
}

/// Every line is a record that the log takes.
fn accepted(decoded: &Decoded) {
    let table = muniment_model::table("sys_audit_log").unwrap();
    let mut uuid = || [0; 16];
    let (now, limits) = (0, muniment_model::Limits::default());
    let mut options = muniment_model::ParseOptions {
        now,
        format: muniment_model::Format::Ndjson,
        limits,
        uuid: &mut uuid,
        retention_years: None,
        users: None,
    };
    assert_eq!(muniment_model::parse(table, &decoded.lines, &mut options).unwrap().records, decoded.events.len());
}

fn event(op: &str, before: &str, after: &str, source: &str) -> String {
    format!(r#"{{"op":"{op}","ts_ms":9,"before":{before},"after":{after},"source":{{{source}}}}}"#)
}

const POSTGRES: &str =
    r#""connector":"postgresql","ts_ms":1700000000000,"db":"shop","schema":"public","table":"orders","txId":571,"lsn":24023128"#;

#[test]
fn an_update_keeps_every_digit_and_names_what_changed() {
    let before = r#"{"id":12345678901234567890,"n":1.10,"note":"x"}"#;
    let found = debezium(&event("u", before, r#"{"id":12345678901234567890,"n":1.100000000000000000001,"note":"x"}"#, POSTGRES));
    let [record] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(record["table_name"], "public.orders");
    assert_eq!(record["primary_key"], "12345678901234567890");
    assert_eq!(record["change_details"], "changed: n");
    assert_eq!(record["changed_at"], 1_700_000_000_000_000_i64);
    assert_eq!(record["transaction_id"], "shop:571@1700000000000000");
    assert!(record["source_position"].as_str().unwrap().starts_with("shop:0/16E9058/"), "{record}");
    assert_eq!(record["attribution"], "NONE");
    let decoded = read(Format::Debezium, &event("u", before, before, POSTGRES), "id", State::default()).unwrap();
    assert!(String::from_utf8(decoded.lines).unwrap().contains(r#""old_values":{"id":12345678901234567890,"n":1.10,"note":"x"}"#));
}

#[test]
fn each_source_has_its_table_and_position() {
    let cases = [
        (
            r#""connector":"mysql","db":"shop","table":"t","file":"mysql-bin.000003","pos":154,"row":2,"gtid":null"#,
            "shop.t",
            "mysql-bin.000003:154:2",
        ),
        (
            r#""connector":"sqlserver","db":"d","schema":"dbo","table":"t","commit_lsn":"00:01","change_lsn":"00:02","event_serial_no":2"#,
            "dbo.t",
            "00:01:00:02:2",
        ),
        (
            r#""connector":"oracle","db":"X","schema":"S","table":"T","scn":"77","commit_scn":"78","txId":"0a","rs_id":" r ","ssn":1"#,
            "S.T",
            "77:78:0a:r:1",
        ),
        (r#""connector":"mongodb","db":"shop","collection":"c","ts_ms":1000,"ord":3"#, "shop.c", "1000:3"),
        (r#""connector":"postgresql","db":"d","schema":"s","table":"t","lsn":4294967297"#, "s.t", "1/1"),
    ];
    for (source, table, position) in cases {
        let found = debezium(&event("c", "null", r#"{"id":1}"#, source));
        assert_eq!(found[0]["table_name"], table);
        assert!(found[0]["source_position"].as_str().unwrap().starts_with(&format!("shop:{position}/")), "{}", found[0]);
    }
}

#[test]
fn kafka_records_have_keys_schemas_and_tombstones() {
    let schema = json!({"type":"struct","fields":[{"field":"after","type":"struct","fields":[
        {"field":"id","type":"int32"},
        {"field":"at","type":"int64","name":"io.debezium.time.MicroTimestamp"},
        {"field":"price","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}]}]});
    let value = json!({"schema": schema, "payload": {"op":"c","before":null,"after":{"id":7,"at":1_700_000_000_000_000_i64,"price":"BNI="},
        "source":{"connector":"mysql","db":"shop","table":"t","ts_ms":5}}});
    let key = json!({"schema":{"type":"struct","fields":[{"field":"day","type":"int32","name":"io.debezium.time.Date"},{"field":"id","type":"int32"}]},
        "payload":{"day":19000,"id":7}});
    let batch = json!([
        {"topic":"shop.t","partition":3,"offset":41,"key":key,"value":value},
        {"topic":"shop.t","partition":3,"offset":42,"key":key,"value":null},
        {"topic":"shop.t","partition":3,"offset":43,"key":key.to_string(),"value":value.to_string()},
    ]);
    let decoded = read(Format::Debezium, &batch.to_string(), "", State::default()).unwrap();
    assert_eq!(decoded.ignored, 1);
    let found = records(&decoded);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["primary_key"], r#"["2022-01-08","7"]"#);
    let price: &str = &found[0]["new_values"]["price"].to_string();
    assert_eq!((&found[0]["new_values"]["at"], &found[0]["new_values"]["id"], price), (&json!("2023-11-14T22:13:20"), &json!(7), "12.34"));
    assert!(found[0]["source_position"].as_str().unwrap().starts_with("shop:shop.t/3@41/"));
    assert_eq!(found[0]["new_values"], found[1]["new_values"], "key and value may come as text");
}

#[test]
fn what_is_no_change_is_ignored() {
    let batch = [r#"{"ts_ms":5}"#, r#"{"status":"BEGIN","id":"7","event_count":null}"#, "null", r#"{"op":"m","source":{},"message":{}}"#];
    let decoded = read(Format::Debezium, &batch.join("\n"), "", State::default()).unwrap();
    assert_eq!((decoded.events.len(), decoded.ignored), (0, 4));
    assert_eq!(read(Format::Debezium, "", "", State::default()).unwrap(), Decoded::default());
}

#[test]
fn truncate_snapshot_and_ddl() {
    let ddl = r#"{"source":{"db":"shop","table":"t","ts_ms":7,"file":"f","pos":1},"databaseName":"shop","ddl":"ALTER TABLE t ADD c INT","tableChanges":[]}"#;
    let lines = [event("t", "null", "null", POSTGRES), event("r", "null", r#"{"id":1}"#, POSTGRES), ddl.to_owned()].join("\n");
    let found = debezium(&lines);
    let summary: Vec<_> =
        found.iter().map(|record| (record["operation"].as_str().unwrap(), record["primary_key"].as_str().unwrap())).collect();
    assert_eq!(summary, [("TRUNCATE", "*"), ("SNAPSHOT", "1"), ("DDL", "*")]);
    assert_eq!(found[2]["change_details"], "ALTER TABLE t ADD c INT");
}

#[test]
fn a_value_that_was_not_sent_is_the_one_before() {
    let after = r#"{"id":1,"big":"__debezium_unavailable_value","n":2}"#;
    let full = debezium(&event("u", r#"{"id":1,"big":"long","n":1}"#, after, POSTGRES));
    assert_eq!(full[0]["new_values"], json!({"id":1,"big":"long","n":2}));
    assert_eq!(full[0]["change_details"], "changed: n");
    let key_only = debezium(&event("u", "null", after, POSTGRES));
    assert_eq!(key_only[0]["new_values"], json!({"id":1,"n":2}), "left out: it stays what it was");
}

#[test]
fn documents_of_mongodb() {
    let source = r#""connector":"mongodb","db":"shop","collection":"c","ts_ms":1000,"ord":1"#;
    let found = debezium(&event("c", "null", r#""{\"id\": 1, \"n\": {\"$numberDecimal\": \"1.10\"}}""#, source));
    assert_eq!(found[0]["new_values"], json!({"id":1,"n":{"$numberDecimal":"1.10"}}));
    let update = format!(
        r#"{{"op":"u","before":null,"after":null,"updateDescription":{{"removedFields":["a"],"updatedFields":"{{\"b\":2}}"}},"source":{{{source}}}}}"#
    );
    let update = format!(r#"{{"key":{{"id":"7"}},"value":{update}}}"#);
    let decoded = read(Format::Debezium, &update, "", State::default()).unwrap();
    assert_eq!(records(&decoded)[0]["primary_key"], "7");
    assert_eq!(records(&decoded)[0]["old_values"], json!({"a":null}));
    assert_eq!(records(&decoded)[0]["new_values"], json!({"b":2}));
}

#[test]
fn context_applies_to_its_transaction_alone_and_across_batches() {
    use base64::Engine;
    let content = base64::engine::general_purpose::STANDARD.encode(r#"{"user_id":7,"user_name":"lan","change_reason":"price"}"#);
    let message =
        format!(r#"{{"op":"m","source":{{"txId":571,"lsn":1}},"message":{{"prefix":"muniment.context","content":"{content}"}}}}"#);
    let change = event("c", "null", r#"{"id":1}"#, POSTGRES);
    let first = read(Format::Debezium, &message, "id", State::default()).unwrap();
    let stored = serde_json::to_string(&first.state).unwrap();
    let state = serde_json::from_str(&stored).unwrap();
    let other = change.replace("\"txId\":571", "\"txId\":572");
    let second = records(&read(Format::Debezium, &format!("{change}\n{other}"), "id", state).unwrap());
    assert_eq!((&second[0]["changed_by_username"], &second[0]["attribution"]), (&json!("lan"), &json!("APPLICATION")));
    assert_eq!((&second[1]["changed_by_username"], &second[1]["attribution"]), (&Value::Null, &json!("NONE")));
    let oracle =
        debezium(&event("c", "null", r#"{"id":1}"#, r#""connector":"oracle","schema":"S","table":"T","scn":"1","user_name":"APP""#));
    assert_eq!((&oracle[0]["changed_by_username"], &oracle[0]["attribution"]), (&json!("APP"), &json!("DATABASE")));
}

#[test]
fn events_of_a_transaction_come_in_its_order() {
    let of = |order: u32, id: u32| {
        event("c", "null", &format!(r#"{{"id":{id}}}"#), POSTGRES).replacen(
            "{\"op\"",
            &format!(r#"{{"transaction":{{"id":"571:9","total_order":{order},"data_collection_order":1}},"op""#),
            1,
        )
    };
    let found = debezium(&[of(3, 3), of(1, 1), event("c", "null", r#"{"id":9}"#, POSTGRES), of(2, 2)].join("\n"));
    let keys: Vec<_> = found.iter().map(|record| record["primary_key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["1", "2", "9", "3"]);
    assert_eq!(found[0]["transaction_id"], "shop:571:9");
}

#[test]
fn rows_of_one_copy_and_rows_without_key_are_told_apart() {
    let row = |id: u32| event("c", "null", &format!(r#"{{"id":{id}}}"#), POSTGRES);
    let mut decoded = read(Format::Debezium, &[row(1), row(2), row(1)].join("\n"), "id", State::default()).unwrap();
    assert_eq!(decoded.fresh(&HashSet::new()).records, 2, "a repetition within the batch is none");
    let mut decoded = read(Format::Debezium, &[row(1), row(2), row(1)].join("\n"), "", State::default()).unwrap();
    let known: HashSet<_> = decoded.events.iter().filter_map(|event| event.identity.clone()).collect();
    assert_eq!(known.len(), 3, "equal rows of a table without key");
    assert_eq!(decoded.fresh(&known).records, 0);
}

#[test]
fn an_update_of_a_row_without_key_is_a_row_that_goes_and_one_that_comes() {
    let update = event("u", r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3}"#, POSTGRES);
    let found = records(&read(Format::Debezium, &update, "", State::default()).unwrap());
    let summary: Vec<_> =
        found.iter().map(|record| (record["operation"].as_str().unwrap(), record["primary_key"].as_str().unwrap())).collect();
    assert_eq!(summary, [("DELETE", r#"["1","2"]"#), ("INSERT", r#"["1","3"]"#)]);
}

#[test]
fn errors_name_message_and_field() {
    let check = |body: &str, expected: &str| {
        let error = read(Format::Debezium, body, "", State::default()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{body}");
    };
    let good = event("c", "null", r#"{"id":1}"#, POSTGRES);
    check(&format!("{good}\n[]\n7"), "message 2: message: it is not a JSON object");
    check(&format!("[{good},{}]", event("x", "null", "null", POSTGRES)), "message 2: op: `x` is none of c, u, d, r, t, m");
    check(&event("c", "null", "null", POSTGRES), "message 1: after: it is missing");
    check(&event("c", "null", "5", POSTGRES), "message 1: after: it is not an object");
    check(&event("c", "null", r#"{"id":1}"#, r#""lsn":1"#), "message 1: source.table: it is missing");
    check(r#"{"id":1}"#, "message 1: op: it is missing; whole envelopes are needed, without ExtractNewRecordState and not as CloudEvents");
    assert!(read(Format::Debezium, "{", "", State::default()).unwrap_err().to_string().starts_with("message 1: message: not JSON"));
    let error = read(Format::Wal2Json, r#"{"action":"I","timestamp":"soon"}"#, "", State::default()).unwrap_err();
    assert_eq!(error.to_string(), "message 1: table: it is missing");
    let error = read(Format::Wal2Json, r#"{"a":1}"#, "", State::default()).unwrap_err();
    assert_eq!(error.to_string(), "message 1: action: it is missing, and so is change: this is not wal2json's output");
    check(
        &event("u", "null", r#"{"id":1}"#, &POSTGRES.replace("24023128", "\"x\"")),
        "message 1: source.lsn: `\"x\"` is not a number that it can be",
    );
    let soon = event("c", "null", r#"{"id":1}"#, r#""ts_ms":"soon","db":"d","table":"t""#);
    check(&soon, "message 1: source.ts_ms: `\"soon\"` is not a number that it can be");
    check(r#"{"op":"c","after":{"id":1},"source":7}"#, "message 1: source: it is not an object");
    let error =
        read(Format::Wal2Json, r#"{"action":"I","lsn":"x","schema":"s","table":"t","columns":[]}"#, "", State::default()).unwrap_err();
    assert_eq!(error.to_string(), "message 1: lsn: `x` is no position such as 0/16B3748");
    let error = read(Format::Debezium, &event("c", "null", r#"{"x":1}"#, POSTGRES), "id", State::default()).unwrap_err();
    assert_eq!(error.to_string(), "message 1: after: it has no column \"id\", of which the key is to be made");
    assert!(KeyHints::parse("a:,").is_err() && KeyHints::parse(":a").is_err());
}

#[test]
fn a_row_that_nothing_names_is_refused() {
    let mongo = |op: &str, more: &str| {
        format!(
            r#"{{"op":"{op}",{more},"source":{{"connector":"mongodb","db":"d","collection":"c","ts_ms":1700000000000,"resume_token":"r"}}}}"#
        )
    };
    let set = r#""updateDescription":{"updatedFields":"{\"a\": 2}"}"#;
    let wal = |rest: &str| {
        format!(r#"{{"action":"U","xid":1,"lsn":"0/1","timestamp":"2026-01-31 09:00:00+00","schema":"s","table":"t",{rest}}}"#)
    };
    let columns = r#""columns":[{"name":"id","type":"int","value":1},{"name":"x","type":"int","value":2}]"#;
    let refused = [
        (Format::Debezium, mongo("u", set)),
        (Format::Debezium, mongo("d", r#""before":null"#)),
        (Format::Wal2Json, wal(columns)),
        (Format::Wal2Json, wal(&format!(r#"{columns},"identity":[{{"name":"id","type":"int","value":1}}]"#))),
    ];
    for (format, body) in refused {
        let error = read(format, &body, "", State::default()).unwrap_err().to_string();
        assert!(error.starts_with("message 1: key: which row it is about can't be known"), "{error}");
    }
    // MongoDB's documents have their key in them; a whole row before is known by all its values.
    let document = mongo("u", &format!(r#""before":"{{\"_id\": 7, \"a\": 1}}",{set}"#));
    assert_eq!(records(&read(Format::Debezium, &document, "", State::default()).unwrap())[0]["primary_key"], "7");
    let whole = wal(&format!(r#"{columns},"identity":[{{"name":"id","type":"int","value":1}},{{"name":"x","type":"int","value":1}}]"#));
    assert_eq!(read(Format::Wal2Json, &whole, "", State::default()).unwrap().events.len(), 2);
    let marked = format!("\u{feff}{}", mongo("c", r#""after":"{\"_id\": 7}""#));
    assert_eq!(read(Format::Debezium, &marked, "", State::default()).unwrap().events.len(), 1);
}

#[test]
fn a_transaction_without_user_is_one_finding() {
    let row =
        |id: u32, transaction: u32| event("c", "null", &format!(r#"{{"id":{id}}}"#), &POSTGRES.replace("571", &transaction.to_string()));
    let findings = |body: &str, state: State| {
        let mut decoded = read(Format::Debezium, body, "id", state).unwrap();
        let fresh = decoded.fresh(&HashSet::new());
        (fresh.findings.iter().filter(|byte| **byte == b'\n').count(), decoded.state)
    };
    let (count, state) = findings(&[row(1, 1), row(2, 1), row(3, 2)].join("\n"), State::default());
    assert_eq!(count, 2);
    assert_eq!(findings(&row(4, 2), state.clone()).0, 0, "the transaction goes on in the next batch");
    assert_eq!(findings(&row(5, 3), state).0, 1);
    assert_eq!(findings(&event("r", "null", r#"{"id":1}"#, POSTGRES), State::default()).0, 0, "a snapshot has no user");
    assert_eq!(findings(&event("c", "null", r#"{"id":1}"#, r#""db":"d","table":"t""#), State::default()).0, 0);
}

const FIRST: &str = r#"{"xid":571,"nextlsn":"0/17F8A80","timestamp":"2026-01-31 09:00:00.5+07","change":[
  {"kind":"message","transactional":true,"prefix":"muniment.context","content":"{\"user_name\":\"lan\"}"},
  {"kind":"insert","schema":"public","table":"t","columnnames":["id","n","doc","raw"],"columntypes":["integer","numeric(5,3)","jsonb","bytea"],
   "columnvalues":[1,4.560,"{\"a\": 1.50}","00ff"],"pk":{"pknames":["id"],"pktypes":["integer"]}},
  {"kind":"update","schema":"public","table":"t","columnnames":["id","n"],"columntypes":["integer","numeric"],"columnvalues":[2,4.561],
   "pk":{"pknames":["id"],"pktypes":["integer"]},
   "oldkeys":{"keynames":["id","n","doc"],"keytypes":["integer","numeric","text"],"keyvalues":[1,4.560,"long"]}},
  {"kind":"delete","schema":"public","table":"t","pk":{"pknames":["id"]},"oldkeys":{"keynames":["id"],"keytypes":["integer"],"keyvalues":[2]}}]}"#;

#[test]
fn version_1() {
    let found = wal2json(FIRST);
    let summary: Vec<_> =
        found.iter().map(|record| (record["operation"].as_str().unwrap(), record["primary_key"].as_str().unwrap())).collect();
    assert_eq!(summary, [("INSERT", "1"), ("DELETE", "1"), ("INSERT", "2"), ("DELETE", "2")], "an update of the key is two changes");
    let decoded = read(Format::Wal2Json, FIRST, "", State::default()).unwrap();
    let text = String::from_utf8(decoded.lines.clone()).unwrap();
    assert!(text.contains(r#""new_values":{"id":1,"n":4.560,"doc":{"a": 1.50},"raw":"\\x00ff"}"#), "{text}");
    assert!(text.contains(r#""new_values":{"id":2,"n":4.561,"doc":"long"}"#), "what was not sent is as before: {text}");
    assert!(found.iter().all(|record| record["changed_by_username"] == "lan" && record["transaction_id"] == "shop:571@0/17F8A80"));
    assert_eq!(found[0]["changed_at"], 1_769_824_800_500_000_i64);
    assert_eq!((&decoded.state.transaction, &decoded.state.context), (&None, &None));
}

#[test]
fn version_2_across_batches() {
    let lines = [
        r#"{"action":"B","xid":571,"timestamp":"2026-01-31 09:00:00+00","lsn":"0/9","nextlsn":"0/A"}"#,
        r#"{"action":"M","xid":571,"timestamp":"2026-01-31 09:00:00+00","lsn":"0/1","transactional":true,"prefix":"muniment.context","content":"{\"user_name\":\"lan\"}"}"#,
        r#"{"action":"I","xid":571,"timestamp":"2026-01-31 09:00:00+00","lsn":"0/2","schema":"s","table":"t","columns":[{"name":"id","type":"integer","value":1},{"name":"x","type":"text","value":null}],"pk":[{"name":"id","type":"integer"}]}"#,
        r#"{"action":"U","xid":571,"timestamp":"2026-01-31 09:00:00+00","lsn":"0/3","schema":"s","table":"t","columns":[{"name":"id","type":"integer","value":1},{"name":"x","type":"text","value":"y"}],"identity":[{"name":"id","type":"integer","value":1}],"pk":[{"name":"id","type":"integer"}]}"#,
        r#"{"action":"T","xid":571,"timestamp":"2026-01-31 09:00:00+00","lsn":"0/4","schema":"s","table":"t"}"#,
        r#"{"action":"C","xid":571,"timestamp":"2026-01-31 09:00:00+00","lsn":"0/9","nextlsn":"0/A"}"#,
    ];
    let whole = read(Format::Wal2Json, &lines.join("\n"), "", State::default()).unwrap();
    assert_eq!((whole.events.len(), whole.ignored, &whole.state), (3, 3, &State::default()));
    let (mut pieces, mut state) = (Vec::new(), State::default());
    for line in lines {
        let piece = read(Format::Wal2Json, line, "", serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap()).unwrap();
        pieces.extend(piece.lines);
        state = piece.state;
    }
    assert_eq!(String::from_utf8(pieces).unwrap(), String::from_utf8(whole.lines.clone()).unwrap());
    let tail = read(Format::Wal2Json, &lines[3..].join("\n"), "", State::default()).unwrap();
    let identities = |decoded: &Decoded| decoded.events.iter().map(|event| event.identity.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(identities(&tail), identities(&whole)[1..], "a repeated tail is known without its beginning");
    let bare = r#"{"action":"I","schema":"s","table":"t","columns":[{"name":"id","type":"integer","value":1}]}"#;
    assert!(read(Format::Wal2Json, bare, "", State::default()).unwrap().unidentified());
}

proptest! {
    /// However a stream is cut into batches, and whichever of them come again, each change is stored once and in order.
    #[test]
    fn replays_and_overlaps_store_each_change_once(count in 1_usize..40, starts in proptest::collection::vec((0_usize..40, 1_usize..20), 0..12)) {
        let events: Vec<String> = (0..count)
            .map(|n| event("c", "null", &format!(r#"{{"id":{n}}}"#), &POSTGRES.replace("24023128", &(24_023_128 + n / 3).to_string())))
            .collect();
        let (mut known, mut stored) = (HashSet::new(), Vec::new());
        let mut batches: Vec<(usize, usize)> = starts.into_iter().filter(|(start, _)| *start < count).collect();
        batches.push((0, count));
        for (start, length) in batches {
            let body = events[start..(start + length).min(count)].join("\n");
            let mut decoded = read(Format::Debezium, &body, "id", State::default()).unwrap();
            let fresh = decoded.fresh(&known);
            prop_assert_eq!(fresh.lines.split(|byte| *byte == b'\n').count(), fresh.records + 1);
            stored.extend(fresh.lines);
            known.extend(decoded.events.into_iter().filter_map(|event| event.identity));
        }
        prop_assert_eq!(known.len(), count);
        prop_assert_eq!(stored.split(|byte| *byte == b'\n').count(), count + 1);
    }

    #[test]
    fn nothing_makes_it_panic(body in r#"[\[\]{}",:0-9a-z\\ ]{0,200}"#) {
        let _ = read(Format::Debezium, &body, "id", State::default());
        let _ = read(Format::Wal2Json, &body, "id", State::default());
    }
}
