//! Envelopes through the engine: each change once (P2), in order (P4), with who made it or a finding (P8), whatever comes again and whenever it is interrupted.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use base64::Engine as _;
use bytes::Bytes;
use muniment_engine::query::{QueryEngine, QueryLimits};
use muniment_engine::{
    Engine, EngineConfig, EngineError, EnvelopeFile, EnvelopeFormat, EnvelopeProgress, EnvelopeReceipt, EnvelopeRequest, KeyHints,
};
use std::sync::Arc;
use tempfile::TempDir;

struct Fixture {
    folder: TempDir,
    engine: Arc<Engine>,
    query: QueryEngine,
}

impl Fixture {
    async fn new() -> Self {
        Self::open(TempDir::new().unwrap()).await
    }

    async fn open(folder: TempDir) -> Self {
        let engine = Engine::open(EngineConfig::new(folder.path().join("data"))).await.unwrap();
        let query = QueryEngine::new(engine.store().clone(), QueryLimits::default()).unwrap();
        Self { folder, engine, query }
    }

    async fn restarted(self) -> Self {
        self.engine.shutdown().await.unwrap();
        drop((self.engine, self.query));
        Self::open(self.folder).await
    }

    async fn try_send(&self, body: &str, idempotency_key: Option<&str>) -> Result<EnvelopeReceipt, EngineError> {
        let request = EnvelopeRequest {
            format: EnvelopeFormat::Debezium,
            source: "shop".to_owned(),
            keys: KeyHints::parse("id").unwrap(),
            body: Bytes::from(body.to_owned()),
            idempotency_key: idempotency_key.map(str::to_owned),
        };
        self.engine.ingest_envelopes(&self.query, request).await
    }

    /// Sends a batch; returns how many changes were new and how many were not.
    async fn send(&self, events: &[String]) -> (usize, usize) {
        let receipt = self.try_send(&events.join("\n"), None).await.unwrap();
        (receipt.records, receipt.repeated)
    }

    async fn file(&self, content: &str, position: Option<&str>) -> Result<EnvelopeProgress, EngineError> {
        let file = EnvelopeFile {
            format: EnvelopeFormat::Debezium,
            source: "shop".to_owned(),
            keys: KeyHints::parse("id").unwrap(),
            position: position.map(str::to_owned),
            reader: Box::new(std::io::Cursor::new(content.to_owned().into_bytes())),
        };
        self.engine.ingest_envelope_file(&self.query, file, |_| ()).await
    }

    async fn number(&self, sql: &str) -> i64 {
        self.query.collect(sql, Vec::new()).await.unwrap()[0].column(0).as_primitive::<Int64Type>().value(0)
    }

    /// Keys in the order of the log.
    async fn keys(&self) -> Vec<i64> {
        let batches = self.query.collect("SELECT CAST(primary_key AS BIGINT) FROM sys_audit_log ORDER BY id", Vec::new()).await.unwrap();
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }
}

/// An insert; three changes share a position, and ten a time.
fn insert(id: u64) -> String {
    let (lsn, time) = (24_023_128 + id / 3, 1_700_000_000_000 + id / 10);
    let source = format!(r#"{{"connector":"mysql","db":"shop","table":"t","lsn":{lsn},"ts_ms":{time}}}"#);
    format!(r#"{{"op":"c","ts_ms":5,"before":null,"after":{{"id":{id}}},"source":{source}}}"#)
}

fn inserts(ids: std::ops::Range<u64>) -> Vec<String> {
    ids.map(insert).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_batch_is_stored_once_and_an_overlapping_one_by_half() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.send(&inserts(0..20)).await, (20, 0));
    assert_eq!(fixture.send(&inserts(0..20)).await, (0, 20), "the same batch again");
    assert_eq!(fixture.send(&inserts(10..30)).await, (10, 10), "half of it is known");
    fixture.engine.flush_all().await.unwrap();
    assert_eq!(fixture.send(&inserts(15..35)).await, (5, 15), "what is known lies in a file");
    let fixture = fixture.restarted().await;
    assert_eq!(fixture.send(&inserts(0..40)).await, (5, 35), "after a restart");
    assert_eq!(fixture.keys().await, (0..40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn late_batches_are_not_lost_and_a_source_that_begins_again_is_not_mistaken() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.send(&inserts(20..30)).await, (10, 0));
    assert_eq!(fixture.send(&inserts(0..10)).await, (10, 0), "an earlier batch that comes later");
    assert_eq!(fixture.send(&inserts(5..25)).await, (10, 10));
    assert_eq!(fixture.number("SELECT count(DISTINCT primary_key) FROM sys_audit_log").await, 30);
    let restored: Vec<String> = inserts(0..5).iter().map(|event| event.replace("1700000000", "1700009999")).collect();
    assert_eq!(fixture.send(&restored).await, (5, 0), "the same positions at another time: the database was restored");
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_at_once_store_each_change_once() {
    let fixture = Arc::new(Fixture::new().await);
    let senders = (0..8).map(|sender| {
        let fixture = fixture.clone();
        tokio::spawn(async move {
            for batch in 0..6 {
                let start = (sender * 7 + batch * 13) % 90;
                fixture.send(&inserts(start..start + 15)).await;
            }
        })
    });
    futures::future::join_all(senders).await.into_iter().for_each(|sender| sender.unwrap());
    let (all, distinct) = ("SELECT count(*) FROM sys_audit_log", "SELECT count(DISTINCT primary_key) FROM sys_audit_log");
    assert_eq!(fixture.number(all).await, fixture.number(distinct).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn context_comes_in_a_request_of_its_own_and_its_absence_is_a_finding() {
    let fixture = Fixture::new().await;
    let content = base64::engine::general_purpose::STANDARD.encode(r#"{"user_id":7,"user_name":"lan","change_reason":"price"}"#);
    let message =
        format!(r#"{{"op":"m","source":{{"txId":571,"lsn":1}},"message":{{"prefix":"muniment.context","content":"{content}"}}}}"#);
    let change = |id: u64, transaction: u64| {
        let of = format!(r#""connector":"postgresql","schema":"s","txId":{transaction}"#);
        insert(id).replace(r#""connector":"mysql""#, &of)
    };
    let receipt = fixture.try_send(&message, None).await.unwrap();
    assert_eq!((receipt.records, receipt.ignored), (0, 1));
    let fixture = fixture.restarted().await;
    fixture.send(&[change(1, 571), change(2, 572), change(3, 572)]).await;
    fixture.send(&[change(4, 572)]).await;
    fixture.send(&[change(1, 571), change(2, 572)]).await;
    let of_lan = "SELECT count(*) FROM sys_audit_log WHERE changed_by = 7 AND changed_by_username = 'lan' AND attribution = 'APPLICATION'";
    assert_eq!(fixture.number(of_lan).await, 1);
    assert_eq!(fixture.number("SELECT count(*) FROM sys_audit_log WHERE attribution = 'NONE'").await, 3);
    let findings = "SELECT count(*) FROM security_audit_log WHERE event_type = 'UNATTRIBUTED_WRITE' AND resource_accessed = 's.t'";
    assert_eq!(fixture.number(findings).await, 1, "one for the transaction, however often it comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_position_need_an_idempotency_key() {
    let fixture = Fixture::new().await;
    let event = insert(1).replace(r#""lsn":24023128,"#, "");
    let error = fixture.try_send(&event, None).await.unwrap_err();
    assert!(matches!(error, EngineError::Parameter { name: "Idempotency-Key", .. }), "{error}");
    assert!(!fixture.try_send(&event, Some("a")).await.unwrap().replayed);
    let again = fixture.try_send(&event, Some("a")).await.unwrap();
    assert_eq!((again.replayed, again.records), (true, 1));
    assert_eq!(fixture.number("SELECT count(*) FROM sys_audit_log").await, 1);
    assert!(matches!(fixture.try_send(&insert(2), Some("a")).await, Err(EngineError::KeyReused)));
    let error = fixture.file(&event, None).await.unwrap_err();
    assert!(matches!(error, EngineError::Parameter { name: "file", .. }), "{error}");
    assert_eq!(fixture.file(&event, Some("dump")).await.unwrap().records, 1, "a file has a position of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_message_is_named_and_nothing_is_stored() {
    let fixture = Fixture::new().await;
    let body = format!("{}\n{}\n", insert(1), insert(2).replace("\"op\":\"c\"", "\"op\":\"?\""));
    let Err(EngineError::Invalid(rejection)) = fixture.try_send(&body, None).await else { panic!() };
    assert_eq!((rejection.errors[0].line, rejection.errors[0].field.as_deref()), (2, Some("op")));
    assert_eq!(fixture.number("SELECT count(*) FROM sys_audit_log").await, 0);
    let Err(EngineError::Parameter { name: "source", .. }) = fixture
        .engine
        .ingest_envelopes(
            &fixture.query,
            EnvelopeRequest {
                format: EnvelopeFormat::Wal2Json,
                source: "Not a name".to_owned(),
                keys: KeyHints::default(),
                body: Bytes::new(),
                idempotency_key: None,
            },
        )
        .await
    else {
        panic!()
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_continues_where_it_was_and_knows_what_came_another_way() {
    let fixture = Fixture::new().await;
    let whole = inserts(0..20_000).join("\n") + "\n";
    let half = &whole[..whole.len() / 2];
    let half = &half[..=half.rfind('\n').unwrap()];
    fixture.send(&inserts(0..500)).await;
    let first = fixture.file(half, Some("dump")).await.unwrap();
    assert_eq!(first.repeated, 500, "what came over HTTP");
    let fixture = fixture.restarted().await;
    let second = fixture.file(&whole, Some("dump")).await.unwrap();
    assert_eq!((second.records + first.records + 500, second.repeated, second.lines), (20_000, 0, 20_000));
    assert_eq!(fixture.keys().await, (0..20_000).collect::<Vec<_>>());
    let again = fixture.file(&whole, Some("dump")).await.unwrap();
    assert_eq!((again.records, again.repeated), (0, 0));
    let piped = fixture.file(&whole, None).await.unwrap();
    assert_eq!((piped.records, piped.repeated), (0, 20_000), "a stream without position is known by its identities");
    let changed = fixture.file(&whole.replacen('c', "d", 1), Some("dump")).await.unwrap_err();
    assert!(changed.to_string().contains("are not those that were taken in before"), "{changed}");
}
