//! What somebody sees from whom something is masked or kept: the tables, the histories, and a long list of attempts to see more.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

use bytes::Bytes;
use muniment_access::{Cleared, Masking, Policy, Principal, Role, View, Views};
use muniment_engine::history::{
    Dialect, HistoryOptions, Selection, TableAtOptions, UndoOptions, blame, entity_at, entity_history, table_at, undo,
};
use muniment_engine::query::output::{Encoder, OutputFormat};
use muniment_engine::query::{QueryEngine, QueryLimits};
use muniment_engine::{Engine, EngineConfig, IngestRequest, KeyHints};
use muniment_model::Format;
use muniment_store::register::{ChangedBy, RegisterChange};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tempfile::TempDir;

const ATTEMPTS: &str = include_str!("views/attempts.sql");
const CONFIGURED: &str = include_str!("views/configured.sql");

/// A log whose secrets are made of one word.
struct Fixture {
    _folder: TempDir,
    engine: Arc<Engine>,
    everything: QueryEngine,
}

impl Fixture {
    /// Half of the records lie in files, half are hot.
    async fn new(secret: &str, number: i64) -> Self {
        let folder = TempDir::new().unwrap();
        let mut config = EngineConfig::new(folder.path().join("data"));
        config.origin = Some("muniment.local/same".to_owned());
        let engine = Engine::open(config).await.unwrap();
        let limits = QueryLimits { partitions: 2, ..QueryLimits::default() };
        let everything = QueryEngine::new(engine.store().clone(), limits).unwrap();
        let fixture = Self { _folder: folder, engine, everything };
        for at in 0..2 {
            fixture.send(secret, number, at).await;
            if at == 0 {
                fixture.engine.flush_all().await.unwrap();
            }
        }
        fixture
    }

    async fn add_users(&self) {
        let users = muniment_model::table("users").unwrap();
        let user = |name: &str, email: Option<&str>| {
            let email = email.map(str::to_owned).into();
            RegisterChange::Insert { table: users, values: vec![("username", name.into()), ("email", email)] }
        };
        let changes = [user("lan", Some("lan@example.com")), user("minh", None)];
        self.engine.store().db().change_registers(&changes, &ChangedBy::default()).await.unwrap();
    }

    async fn send(&self, secret: &str, number: i64, at: i64) {
        let time = format!("2026-01-01T0{at}:00:00Z");
        let change = |key: &str, level: i64, operation: &str, ip: Value| {
            json!({"table_name": "case.hoso", "primary_key": key, "operation": operation, "changed_at": time, "compliance_level": level,
                "new_values": {"id": key, "name": format!("{secret}-{at}")}, "old_values": {"id": key, "name": format!("{secret}-x")},
                "change_details": format!("{secret} details"), "ip_address": ip, "user_agent": format!("{secret}-agent/1"),
                "session_id": format!("{secret}-session"), "changed_by": if level == 3 { number } else { 7 },
                "changed_by_username": if level == 3 { format!("{secret}-user") } else { "lan".to_owned() },
                "change_reason": if level == 3 { format!("{secret}-reason") } else { "correction".to_owned() },
                "business_context": if level == 3 { format!("{secret}-context") } else { "HoSo Processing".to_owned() }})
        };
        let ip = format!("10.{}.{}.1", number - 40, number - 40);
        let presence = if secret == "alpha" { json!(ip) } else { Value::Null };
        let lines = [
            change("open-1", 1, if at == 0 { "INSERT" } else { "UPDATE" }, json!(ip)),
            change("open-2", 2, "INSERT", presence),
            change(&format!("{secret}-key"), 3, "INSERT", json!(ip)),
            change(&format!("{secret}-two"), 3, "UPDATE", json!(ip)),
        ];
        self.ingest("sys_audit_log", &lines).await;
        let login = json!({"event_type": "LOGIN", "user_id": 1, "ip_address": ip, "device_fingerprint": format!("{secret}-device"),
            "location": {"city": secret}, "details": {"why": secret}, "correlation_id": format!("00000000-0000-4000-8000-00000000000{at}"),
            "created_at": time, "session_id": format!("{secret}-session"), "user_agent": secret});
        self.ingest("auth_audit_log", &[login]).await;
    }

    async fn ingest(&self, log: &str, lines: &[Value]) {
        let body = Bytes::from(lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        let request = IngestRequest { log, body, format: Format::Ndjson, idempotency_key: None, position: None };
        self.engine.ingest(request).await.unwrap();
    }

    /// A log in which what [`configured`] masks is secret, too.
    async fn configured(secret: &str, number: i64) -> Self {
        let fixture = Self::new(secret, number).await;
        let change = |table: &str, key: &str, level: i64| {
            let street = format!("{secret} street");
            json!({"table_name": table, "primary_key": key, "operation": "UPDATE", "changed_at": "2026-01-02T00:00:00Z", "compliance_level": level,
                "old_values": {"id": key, "name": format!("{secret}-0"), "address": {"street": street, "city": "Hoi An"}},
                "new_values": {"id": key, "name": format!("{secret}-1"), "address": {"street": street, "city": "Hue"}},
                "change_reason": format!("{secret}-why"), "changed_by": 7})
        };
        let lines = [change("case.hoso", "open-3", 1), change("muniment.users", "7", 1), change("case.hoso", "open-4", 3)];
        fixture.ingest("sys_audit_log", &lines[..2]).await;
        fixture.engine.flush_all().await.unwrap();
        fixture.ingest("sys_audit_log", &lines).await;
        fixture
    }

    fn seen_by(&self, role: Role) -> QueryEngine {
        self.everything.seen_with(&views(role)).unwrap()
    }
}

fn views(role: Role) -> Views {
    Policy::load().unwrap().views(&Principal::with_roles("somebody", [role]))
}

/// What a viewer sees where documents are shown but for some fields, and reasons are masked.
fn configured() -> Views {
    let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let masked =
        list("sys_audit_log.change_reason *.new_values.name *.old_values.NAME *.new_values.address.street *.old_values.address.street");
    let masking = Masking::new(&masked, &list("sys_audit_log.old_values sys_audit_log.new_values")).unwrap();
    Policy::load().unwrap().masking(masking).views(&Principal::with_roles("somebody", [Role::Viewer]))
}

fn log() -> &'static muniment_model::Table {
    muniment_model::table("sys_audit_log").unwrap()
}

/// The rows as NDJSON, or why there are none.
async fn answer(query: &QueryEngine, sql: &str) -> String {
    let run = async || -> Result<String, muniment_engine::EngineError> {
        use futures::TryStreamExt;
        let mut rows = query.sql(sql, Vec::new()).await?;
        let mut encoder = Encoder::new(OutputFormat::Ndjson, &rows.schema)?;
        let mut text = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            text.extend_from_slice(&encoder.write(&batch)?);
        }
        text.extend_from_slice(&encoder.finish()?);
        Ok(String::from_utf8(text).unwrap())
    };
    match run().await {
        Ok(text) => text,
        Err(error) => format!("refused: {error}: {:?}", std::error::Error::source(&error).map(ToString::to_string)),
    }
}

fn attempts(text: &str) -> Vec<String> {
    let lines: String = text.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
    lines.split(";\n").map(str::trim).filter(|attempt| !attempt.is_empty()).map(str::to_owned).collect()
}

/// The rows of a result in an order of their own, where the statement gives none.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// A refusal without the visible row, or the mask, that it names: which row fails first is chance.
fn first_row_aside(text: &str) -> String {
    if !text.starts_with("refused") {
        return text.to_owned();
    }
    text.replace("***", "open-")
        .split("open-")
        .map(|part| part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join("open-")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attempt_tells_two_logs_apart_that_differ_in_what_is_masked() {
    let (alpha, bravo) = (Fixture::new("alpha", 41).await, Fixture::new("bravo", 42).await);
    let attempts = attempts(ATTEMPTS);
    assert!(attempts.len() >= 50, "{}", attempts.len());
    let (one, other) = (alpha.seen_by(Role::Viewer), bravo.seen_by(Role::Viewer));
    let mut told_apart = 0;
    for attempt in &attempts {
        let (first, second) = (answer(&one, attempt).await, answer(&other, attempt).await);
        let (told, retold) = (first_row_aside(&first), first_row_aside(&second));
        assert_eq!(sorted(&told), sorted(&retold), "{attempt}");
        for leak in ["alpha-", "bravo-", "alpha@", "bravo@", "\"10.1.1.1\"", "\"10.2.2.1\""] {
            assert!(!first.contains(leak) || attempt.contains(leak.trim_matches('"')), "{attempt}: {first}");
        }
        let (first, second) = (answer(&alpha.everything, attempt).await, answer(&bravo.everything, attempt).await);
        told_apart += usize::from(sorted(&first) != sorted(&second));
    }
    assert!(told_apart >= 50, "only {told_apart} attempts would tell anybody anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attempt_tells_two_logs_apart_that_differ_in_what_configuration_masks() {
    let (alpha, bravo) = (Fixture::configured("alpha", 41).await, Fixture::configured("bravo", 42).await);
    let (one, other) = (alpha.everything.seen_with(&configured()).unwrap(), bravo.everything.seen_with(&configured()).unwrap());
    let more = attempts(CONFIGURED);
    let mut told_apart = 0;
    for attempt in attempts(ATTEMPTS).iter().chain(&more) {
        let (first, second) = (answer(&one, attempt).await, answer(&other, attempt).await);
        // Which visible row fails first is chance, and its message shows what is visible of it.
        let both_refused = first.starts_with("refused") && second.starts_with("refused");
        assert!(both_refused || sorted(&first) == sorted(&second), "{attempt}\n{first}\n{second}");
        for leak in ["alpha-", "bravo-", "alpha street", "bravo street", "\"10.1.1.1\"", "\"10.2.2.1\""] {
            assert!(!first.contains(leak) || attempt.contains(leak.trim_matches('"')), "{attempt}: {first}");
        }
        let (first, second) = (answer(&alpha.everything, attempt).await, answer(&bravo.everything, attempt).await);
        told_apart += usize::from(more.contains(attempt) && sorted(&first) != sorted(&second));
    }
    assert!(told_apart >= 30, "only {told_apart} attempts would tell anybody anything");
}

#[tokio::test]
async fn documents_are_shown_but_for_the_fields_that_configuration_masks() {
    let fixture = Fixture::configured("alpha", 41).await;
    let viewer = fixture.everything.seen_with(&configured()).unwrap();
    let rows = answer(
        &viewer,
        "SELECT new_values AS new, change_reason AS why FROM sys_audit_log WHERE changed_at > '2026-01-01T12:00:00Z' ORDER BY id",
    )
    .await;
    let shown = r#"{"new":"{\"id\":\"open-3\",\"name\":{\"$masked\":true},\"address\":{\"street\":{\"$masked\":true},\"city\":\"Hue\"}}","why":"***"}"#;
    let whole = r#"{"new":"\"***\"","why":"***"}"#;
    assert_eq!(rows.lines().collect::<Vec<_>>(), [shown, whole, shown, whole, whole]);
    for (condition, expected) in [("new_values LIKE '%Hue%'", 2), ("new_values LIKE '%alpha%'", 0), ("change_reason = '***'", 13)] {
        let sql = format!("SELECT count(*) AS n FROM sys_audit_log WHERE {condition}");
        assert_eq!(answer(&viewer, &sql).await, format!("{{\"n\":{expected}}}\n"), "{condition}");
    }
    assert!(answer(&fixture.seen_by(Role::Viewer), "SELECT new_values FROM sys_audit_log").await.lines().all(|line| line.contains("***")));

    let changes = entity_history(&viewer, "case.hoso", "open-3", HistoryOptions::default()).await.unwrap();
    let fields: Vec<&str> = changes[0].fields.iter().map(|field| field.field.as_str()).collect();
    assert!(changes.len() == 2 && changes[0].masked && fields == ["address"], "{changes:?}");
    let state = entity_at(&viewer, "case.hoso", "open-3", i64::MAX).await.unwrap().unwrap();
    assert!(state.document.get().contains(r#""city":"Hue""#) && state.document.get().contains(r#""name":{"$masked":true}"#), "{state:?}");
    let blamed = blame(&viewer, "case.hoso", "open-3", i64::MAX).await.unwrap().unwrap();
    let fields: Vec<&str> = blamed.fields.iter().map(|field| field.field.as_str()).collect();
    assert!(blamed.exists && blamed.masked && fields == ["id"], "{blamed:?}");
    let page = table_at(&viewer, "case.hoso", i64::MAX, &TableAtOptions::default()).await.unwrap();
    let options = UndoOptions { dialect: Dialect::Postgresql, keys: KeyHints::parse("id").unwrap(), source: None };
    let script = undo(&viewer, &Selection::Record(11), &options).await.unwrap().unwrap();
    assert!(script.script.is_none() && format!("{script:?}").contains("masked for you"), "{script:?}");
    for text in [format!("{changes:?}"), format!("{state:?}"), format!("{blamed:?}"), format!("{page:?}"), format!("{script:?}")] {
        assert!(!text.contains("alpha"), "{text}");
    }

    let base = configured();
    let view = base.of("sys_audit_log").clone().clearing(Cleared::Entity { table: "case.hoso".to_owned(), key: "open-3".to_owned() });
    let cleared = fixture.everything.seen_with(&base.with(log(), view)).unwrap();
    let rows = answer(&cleared, "SELECT new_values, change_reason FROM sys_audit_log ORDER BY id").await;
    assert_eq!((rows.matches("alpha-why").count(), rows.matches("alpha street").count(), rows.lines().count()), (2, 2, 13), "{rows}");
}

#[tokio::test]
async fn every_column_that_may_be_masked_can_be() {
    let fixture = Fixture::new("alpha", 41).await;
    fixture.add_users().await;
    let names =
        muniment_model::tables().iter().flat_map(|table| table.columns.iter().map(|column| format!("{}.{}", table.name, column.name)));
    let masked: Vec<String> = names.filter(|name| Masking::new(std::slice::from_ref(name), &[]).is_ok()).collect();
    let policy = Policy::load().unwrap().masking(Masking::new(&masked, &[]).unwrap());
    let viewer = fixture.everything.seen_with(&policy.views(&Principal::with_roles("somebody", [Role::Viewer]))).unwrap();
    for table in
        ["sys_audit_log", "sys_audit_queue", "auth_audit_log", "security_audit_log", "users", "user_sessions", "rate_limit_violations"]
    {
        let rows = answer(&viewer, &format!("SELECT * FROM {table} ORDER BY id")).await;
        assert!(!rows.starts_with("refused") && !rows.contains("alpha") && !rows.contains("lan"), "{table}: {rows}");
    }
    let changes = entity_history(&viewer, "case.hoso", "***", HistoryOptions::default()).await.unwrap();
    assert!(!format!("{changes:?}").contains("alpha"), "{changes:?}");
}

#[tokio::test]
async fn masks_stand_where_values_would_be() {
    let fixture = Fixture::new("alpha", 41).await;
    let viewer = fixture.seen_by(Role::Viewer);
    let columns = "primary_key, compliance_level AS level, ip_address AS ip, new_values AS new, changed_by AS by, change_reason AS why";
    let rows = answer(&viewer, &format!("SELECT {columns} FROM sys_audit_log WHERE changed_at < '2026-01-01T01:00:00Z' ORDER BY id")).await;
    let masked = "\"ip\":\"***\",\"new\":\"\\\"***\\\"\"";
    let expected = format!(
        "{{\"primary_key\":\"open-1\",\"level\":1,{masked},\"by\":7,\"why\":\"correction\"}}\n\
         {{\"primary_key\":\"open-2\",\"level\":2,{masked},\"by\":7,\"why\":\"correction\"}}\n\
         {{\"primary_key\":\"***\",\"level\":3,{masked},\"by\":null,\"why\":\"***\"}}\n\
         {{\"primary_key\":\"***\",\"level\":3,{masked},\"by\":null,\"why\":\"***\"}}\n"
    );
    assert_eq!(rows, expected);
    let counts = "SELECT count(*) AS n, count(DISTINCT table_name) AS tables FROM sys_audit_log";
    assert_eq!(answer(&viewer, counts).await, answer(&fixture.everything, counts).await);
    for (condition, expected) in
        [("ip_address = '***'", 8), ("primary_key = '***'", 4), ("primary_key = 'open-1'", 2), ("ip_address <> '***'", 0)]
    {
        let sql = format!("SELECT count(*) AS n FROM sys_audit_log WHERE {condition}");
        assert_eq!(answer(&viewer, &sql).await, format!("{{\"n\":{expected}}}\n"), "{condition}");
    }
}

#[tokio::test]
async fn nobody_sees_more_than_the_roles_say() {
    let fixture = Fixture::new("alpha", 41).await;
    for (role, seen, masked) in [
        (Role::Ingest, false, false),
        (Role::Viewer, true, true),
        (Role::Auditor, true, false),
        (Role::Investigator, false, false),
        (Role::ComplianceOfficer, true, false),
        (Role::Administrator, false, false),
    ] {
        let text = answer(&fixture.seen_by(role), "SELECT new_values FROM sys_audit_log WHERE id = 1").await;
        assert_eq!(!text.starts_with("refused"), seen, "{role}: {text}");
        assert_eq!(text.contains("***"), masked, "{role}: {text}");
        assert_eq!(text.contains("alpha"), seen && !masked, "{role}: {text}");
    }
}

#[tokio::test]
async fn registers_are_masked_as_logs_are() {
    let fixture = Fixture::new("alpha", 41).await;
    fixture.add_users().await;
    let viewer = fixture.seen_by(Role::Viewer);
    let rows = answer(&viewer, "SELECT username, email FROM users WHERE email IS NOT NULL ORDER BY id").await;
    assert_eq!(rows, "{\"username\":\"lan\",\"email\":\"***\"}\n{\"username\":\"minh\",\"email\":\"***\"}\n");
    let rows = answer(&fixture.seen_by(Role::Administrator), "SELECT email FROM users WHERE id = 1").await;
    assert_eq!(rows, "{\"email\":\"lan@example.com\"}\n");
}

#[tokio::test]
async fn histories_states_and_scripts_are_masked_as_queries_are() {
    let fixture = Fixture::new("alpha", 41).await;
    let viewer = fixture.seen_by(Role::Viewer);
    let changes = entity_history(&viewer, "case.hoso", "open-1", HistoryOptions::default()).await.unwrap();
    assert_eq!(changes.len(), 2);
    let state = entity_at(&viewer, "case.hoso", "open-1", i64::MAX).await.unwrap().unwrap();
    assert_eq!(state.document.get(), "\"***\"");
    let blamed = blame(&viewer, "case.hoso", "open-1", i64::MAX).await.unwrap().unwrap();
    assert!(blamed.exists && blamed.masked && blamed.fields.is_empty());
    let page = table_at(&viewer, "case.hoso", i64::MAX, &TableAtOptions::default()).await.unwrap();
    for text in [format!("{changes:?}"), format!("{state:?}"), format!("{blamed:?}"), format!("{page:?}")] {
        assert!(!text.contains("alpha") && !text.contains("10.1.1.1"), "{text}");
    }
    assert!(entity_history(&viewer, "case.hoso", "alpha-key", HistoryOptions::default()).await.unwrap().is_empty());
    let options = UndoOptions { dialect: Dialect::Postgresql, keys: KeyHints::parse("id").unwrap(), source: None };
    for id in [1, 5] {
        let script = undo(&viewer, &Selection::Record(id), &options).await.unwrap().unwrap();
        assert!(script.script.is_none() && !script.refusals.is_empty(), "{script:?}");
        assert!(!format!("{script:?}").contains("alpha"), "{script:?}");
    }
}

#[tokio::test]
async fn what_is_cleared_is_clear_and_the_rest_stays_masked() {
    let fixture = Fixture::new("alpha", 41).await;
    let with = |rows| {
        let base = views(Role::Viewer);
        let view = base.of("sys_audit_log").clone().clearing(rows);
        fixture.everything.seen_with(&base.with(log(), view)).unwrap()
    };
    let query = "SELECT primary_key, ip_address FROM sys_audit_log ORDER BY id";
    let entity = with(Cleared::Entity { table: "case.hoso".to_owned(), key: "alpha-key".to_owned() });
    let rows = answer(&entity, query).await;
    assert_eq!(rows.matches("alpha-key").count(), 2, "{rows}");
    assert_eq!(rows.matches("10.1.1.1").count(), 2, "{rows}");
    assert_eq!(rows.lines().count(), 8);
    assert_eq!(entity_history(&entity, "case.hoso", "alpha-key", HistoryOptions::default()).await.unwrap().len(), 2);
    let ids = with(Cleared::Ids(BTreeSet::from([1, 4])));
    let rows = answer(&ids, query).await;
    assert_eq!((rows.matches("10.1.1.1").count(), rows.matches("alpha-two").count(), rows.lines().count()), (2, 1, 8), "{rows}");
    let all = fixture.everything.seen_with(&views(Role::Viewer).with(log(), View::new(log(), true, true))).unwrap();
    assert!(!answer(&all, query).await.contains("***"));
}
