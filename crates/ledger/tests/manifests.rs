//! The manifest of a bundle.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use muniment_ledger::bundle::{Kind, Manifest, RecordFormat, Scope};

const MANIFEST: &str = r#"{
  "format": "muniment-bundle/1", "origin": "audit.example.org/1c0f", "created_at": 1767225600000000,
  "vkey": "audit.example.org/1c0f+0123abcd+AQ", "scope": "all", "record_format": "parquet",
  "columns": { "sys_audit_log": [ { "name": "table_name", "kind": "text" }, { "name": "x", "kind": "decimal", "precision": 18, "scale": 6 } ] },
  "streams": [ {
    "stream": "sys_audit_log/7y", "log": "sys_audit_log", "size": 1200, "first": 8, "end": 1200,
    "previous_hash": "0000000000000000000000000000000000000000000000000000000000000000",
    "left": [ { "level": 3, "index": 0, "hash": "1111111111111111111111111111111111111111111111111111111111111111" } ],
    "right": [],
    "files": [ { "path": "streams/sys_audit_log/7y/000000000008-000000001199.parquet", "first": 8, "end": 1200, "bytes": 80123,
      "sha256": "2222222222222222222222222222222222222222222222222222222222222222" } ]
  } ]
}"#;

#[test]
fn a_manifest_survives_its_json() {
    let manifest = Manifest::parse(MANIFEST.as_bytes()).unwrap();
    assert_eq!((manifest.scope, manifest.record_format), (Scope::All, RecordFormat::Parquet));
    assert_eq!(manifest.columns["sys_audit_log"][1].kind, Kind::Decimal);
    assert_eq!(manifest.streams[0].left[0].hash, [0x11; 32]);
    assert_eq!(Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap(), manifest);
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let cases = [
        ("muniment-bundle/1", "muniment-bundle/2"),
        ("\"scope\": \"all\"", "\"scope\": \"some\""),
        ("\"right\": []", "\"right\": [], \"more\": 1"),
        ("\"log\": \"sys_audit_log\"", "\"log\": \"auth_audit_log\""),
        ("\"columns\": { \"sys_audit_log\"", "\"columns\": { \"auth_audit_log\""),
        ("\"size\": 1200", "\"size\": 1199"),
        ("\"first\": 8, \"end\": 1200, \"bytes\"", "\"first\": 9, \"end\": 1200, \"bytes\""),
        ("\"first\": 8, \"end\": 1200, \"bytes\"", "\"first\": 8, \"end\": 1199, \"bytes\""),
        ("streams/sys_audit_log/7y/0", "/streams/sys_audit_log/7y/0"),
        ("streams/sys_audit_log/7y/0", "streams/../../etc/0"),
        ("streams/sys_audit_log/7y/0", "streams\\\\..\\\\0"),
        ("2222222222222222222222222222222222222222222222222222222222222222", "22"),
    ];
    for (from, to) in cases {
        let changed = MANIFEST.replace(from, to);
        assert_ne!(changed, MANIFEST, "{from}");
        assert!(Manifest::parse(changed.as_bytes()).is_err(), "{to}");
    }
}
