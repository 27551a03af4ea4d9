//! Manifests: what is accepted reads the same when it is written again, and its paths stay in the bundle.
#![no_main]

use std::path::{Component, Path};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muniment_fuzz::{BOOK, ORIGIN, STREAM, document};
use muniment_ledger::bundle::{self, Column, File, Kind, Manifest, RecordFormat, Scope, Stream};
use muniment_ledger::compact_range;

static GENUINE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (hashes, log) = (&BOOK.streams[STREAM].hashes, "sys_audit_log".to_owned());
    let file = |first, end| {
        let path = bundle::file_path(STREAM, first, end, RecordFormat::Parquet);
        File { path, first, end, bytes: 4000, sha256: [7; 32] }
    };
    let column = |name: &str, kind, digits: Option<(u8, u8)>| {
        let (precision, scale) = digits.unzip();
        Column { name: name.to_owned(), kind, precision, scale }
    };
    let columns = vec![column("a", Kind::Int, None), column("b", Kind::Bool, None), column("c", Kind::Decimal, Some((18, 6)))];
    let stream = Stream {
        stream: STREAM.to_owned(),
        log: log.clone(),
        size: hashes.len() as u64,
        first: 3,
        end: 9,
        previous_hash: hashes[2],
        left: compact_range(0, &hashes[..3]),
        right: compact_range(9, &hashes[9..]),
        files: vec![file(3, 5), file(5, 9)],
    };
    let manifest = Manifest {
        format: bundle::FORMAT.to_owned(),
        origin: ORIGIN.to_owned(),
        created_at: 1_767_225_600_000_000,
        vkey: BOOK.keys[0].verifier_key().to_string(),
        scope: Scope::Selection,
        record_format: RecordFormat::Parquet,
        columns: [(log, columns)].into(),
        streams: vec![stream],
    };
    let json = serde_json::to_vec(&manifest).expect("JSON");
    Manifest::parse(&json).expect("a genuine manifest");
    json
});

fuzz_target!(|input: &[u8]| {
    let Ok(manifest) = Manifest::parse(&document(&GENUINE, input)) else { return };
    let json = serde_json::to_vec(&manifest).expect("JSON");
    assert_eq!(Manifest::parse(&json).expect("the same manifest"), manifest);
    for file in manifest.streams.iter().flat_map(|stream| &stream.files) {
        assert!(Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_))), "{}", file.path);
        assert!(file.first < file.end);
    }
});
