//! What was stored verifies.

use crate::scene::{AUTH, Copy, HOT, IN_FILE, PERFORMANCE, SYS, SYS_STREAM, Scene, event, send};
use muniment_engine::evidence::{ExportOptions, VerifyOptions, check, export, prove, verify_bundle, verify_store};
use muniment_engine::{Engine, EngineConfig, EngineError};
use muniment_ledger::bundle::{RecordFormat, Scope};
use muniment_ledger::verify::Verdict;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_sound_store_is_valid() {
    let scene = Scene::new().await;
    let copy = scene.copy("same").await;
    let report = copy.verify().await;
    assert_eq!(report.verdict(), Verdict::Valid, "{report}");
    let outcome = &report.outcome;
    assert_eq!((outcome.records, outcome.streams, outcome.erased), (IN_FILE + HOT + 300 + 40, 3, 0), "{report}");
    assert!(report.key_given && report.scope == Scope::All && report.exit_code() == 0);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["verdict"], "valid");
    assert_eq!(json["findings"], serde_json::json!([]));
    let by_itself = verify_store(&scene.store().await, VerifyOptions::default()).await.unwrap();
    assert!(by_itself.is_valid() && !by_itself.key_given);
    assert!(by_itself.to_string().contains("the store's own first key"), "{by_itself}");
    let early = Copy { published: vec![scene.early_note.clone(), scene.note.clone()], ..copy };
    assert!(early.verify().await.is_valid());
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_an_exported_bundle_is_valid_in_both_formats() {
    let scene = Scene::new().await;
    let store = scene.store().await;
    for record_format in [RecordFormat::Parquet, RecordFormat::Ndjson] {
        let out = scene.folder.path().join(format!("bundle-{}", record_format.extension()));
        let manifest = export(&store, &ExportOptions { record_format, ..ExportOptions::all(&out) }).await.unwrap();
        assert_eq!(manifest.scope, Scope::All);
        let seen = Arc::new(AtomicU64::new(0));
        let counter = seen.clone();
        let options = VerifyOptions {
            trusted: Some(scene.key.clone()),
            published: vec![scene.note.clone()],
            progress: Some(Arc::new(move |done, total| {
                assert!(done <= total);
                counter.fetch_max(done, Ordering::Relaxed);
            })),
            ..Default::default()
        };
        let report = verify_bundle(&out, &options).unwrap();
        assert!(report.is_valid(), "{report}");
        assert_eq!(report.outcome.records, IN_FILE + HOT + 340);
        assert_eq!(seen.load(Ordering::Relaxed), IN_FILE + HOT + 340);
        let again = export(&store, &ExportOptions::all(&out)).await;
        assert!(matches!(again, Err(EngineError::Parameter { name: "out", .. })), "{again:?}");
        let without_key = verify_bundle(&out, &VerifyOptions::default());
        assert!(matches!(without_key, Err(EngineError::Parameter { name: "key", .. })));
    }
    let left: Vec<_> = std::fs::read_dir(scene.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_is_a_valid_bundle() {
    let scene = Scene::new().await;
    let store = scene.store().await;
    let snapshot = store.snapshot();
    let stream = &snapshot[SYS_STREAM];
    let (from, to) = (stream.files[0].extent.recorded_from + 1, stream.hot[1].extent.recorded_from);
    let cases = [(Some(from), Some(to)), (None, Some(to)), (Some(from), None), (Some(to), None), (Some(i64::MAX), None), (None, Some(0))];
    for (case, (from, to)) in cases.into_iter().enumerate() {
        for record_format in [RecordFormat::Parquet, RecordFormat::Ndjson] {
            let out = scene.folder.path().join(format!("selection-{case}-{}", record_format.extension()));
            let logs = Some(vec![SYS.to_owned()]);
            let manifest = export(&store, &ExportOptions { record_format, logs, from, to, ..ExportOptions::all(&out) }).await.unwrap();
            let [listed] = &manifest.streams[..] else { panic!("{manifest:?}") };
            let expected = (from.map_or(0, |_| 1), to.map_or(IN_FILE + HOT, |_| IN_FILE + HOT - 100));
            match case {
                0..3 => assert!(listed.first >= expected.0 && listed.first <= 100 && listed.end == expected.1, "{case}: {listed:?}"),
                3 => assert_eq!((listed.first, listed.end), (IN_FILE + HOT - 100, IN_FILE + HOT)),
                _ => assert_eq!(listed.files, []),
            }
            let options = VerifyOptions { trusted: Some(scene.key.clone()), ..Default::default() };
            let report = verify_bundle(&out, &options).unwrap();
            assert!(report.is_valid() && report.scope == Scope::Selection, "{case}: {report}");
            assert_eq!(report.outcome.records, listed.end - listed.first);
            let demanding = VerifyOptions { demand_all: true, ..options };
            assert_eq!(verify_bundle(&out, &demanding).unwrap().verdict(), Verdict::Missing);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_any_record_has_a_proof() {
    let scene = Scene::new().await;
    let store = scene.store().await;
    let last = IN_FILE + HOT;
    for (log, id) in [(SYS, 1), (SYS, 777), (SYS, IN_FILE), (SYS, IN_FILE + 1), (SYS, last), (AUTH, 300), (PERFORMANCE, 40)] {
        let proof = prove(&store, log, id as i64).await.unwrap();
        assert_eq!(proof.rotations.len(), 1);
        let mut json = serde_json::to_vec(&proof).unwrap();
        let record = check(&json, &scene.key).unwrap();
        assert_eq!((record.log.as_str(), record.id), (log, id as i64));
        if log == SYS {
            let sent: serde_json::Value = serde_json::from_str(&event(log, id - 1)).unwrap();
            assert!(record.fields.contains(&("primary_key".to_owned(), sent["primary_key"].as_str().unwrap().to_owned())));
        }
        if log == PERFORMANCE {
            assert!(record.fields.contains(&("metric_value".to_owned(), "39.000273".to_owned())), "{record:?}");
        }
        let at = json.windows(9).position(|window| window == b"\"payload\"").unwrap() + 20;
        json[at] = if json[at] == b'A' { b'B' } else { b'A' };
        assert!(check(&json, &scene.key).is_err());
    }
    assert!(matches!(prove(&store, SYS, last as i64 + 1).await, Err(EngineError::NotFound(_))));
    assert!(matches!(prove(&store, "nothing", 1).await, Err(EngineError::UnknownLog(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_verifies_while_it_is_written_and_flushed() {
    let scene = Scene::new().await;
    let engine = Engine::open(EngineConfig::new(scene.folder.path().join("data"))).await.unwrap();
    let reader = scene.store().await;
    let writer = {
        let engine = engine.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                send(&engine, SYS, n * 10..n * 10 + 10).await;
                engine.flush_all().await.unwrap();
            }
        })
    };
    let options = || VerifyOptions { trusted: Some(scene.key.clone()), ..Default::default() };
    while !writer.is_finished() {
        let report = verify_store(engine.store(), options()).await.unwrap();
        assert!(report.is_valid(), "{report}");
        // Another process cannot hold back a writer that flushes as fast as this one.
        match verify_store(&reader, options()).await {
            Ok(report) => assert!(report.is_valid(), "{report}"),
            Err(error) => assert!(matches!(error, EngineError::Busy { .. }), "{error:?}"),
        }
    }
    writer.await.unwrap();
    let report = verify_store(&reader, options()).await.unwrap();
    assert!(report.is_valid() && report.outcome.records == IN_FILE + HOT + 340 + 200, "{report}");
    engine.shutdown().await.unwrap();
}
