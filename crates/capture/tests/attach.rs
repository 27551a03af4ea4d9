//! Attaching to and detaching from a real PostgreSQL: what is refused, what is set up, and that nothing stays.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use muniment_capture::plan::{AttachOptions, Fallback, Identity, Level, Plan, WhenFull};
use muniment_capture::postgres::{attach, detach};
use muniment_testkit::{PostgresOptions, PostgresServer};

const DATABASE: &str = "postgres";

async fn server(sql: &str) -> PostgresServer {
    let server = PostgresServer::start(&PostgresOptions::default()).unwrap();
    server.execute(DATABASE, sql).await.unwrap();
    server
}

fn options(tables: &[&str]) -> AttachOptions {
    AttachOptions {
        name: Some("pg:t".into()),
        tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        ..AttachOptions::default()
    }
}

async fn attached(server: &PostgresServer, options: &AttachOptions) -> Plan {
    let plan = attach::plan(&server.url(DATABASE), options, false).await.unwrap();
    attach::apply(&server.url(DATABASE), &plan, true).await.unwrap();
    plan
}

async fn detached(server: &PostgresServer) -> Plan {
    let plan = detach::plan(&server.url(DATABASE), "pg:t").await.unwrap();
    detach::apply(&server.url(DATABASE), &plan).await.unwrap();
    plan
}

/// One text of a query's only column, rows separated by spaces.
async fn ask(server: &PostgresServer, sql: &str) -> String {
    let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&server.pool(DATABASE)).await.unwrap();
    rows.join(" ")
}

/// Replica identities of the schema `app`, by table.
async fn identities(server: &PostgresServer) -> String {
    ask(server, "SELECT relname || ':' || relreplident::text FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind IN ('r','p') ORDER BY relname").await
}

fn refusals(plan: &Plan) -> Vec<&str> {
    plan.findings.iter().filter(|finding| finding.level == Level::Refusal).map(|finding| finding.subject.as_str()).collect()
}

/// Everything in the database that could be Muniment's.
const TRACES: &str = "SELECT nspname::text FROM pg_namespace WHERE nspname = 'muniment'
    UNION ALL SELECT pubname FROM pg_publication UNION ALL SELECT slot_name FROM pg_replication_slots UNION ALL SELECT evtname FROM pg_event_trigger
    UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal";

const TABLES: &str = "CREATE SCHEMA app; CREATE TABLE app.keyed (id int PRIMARY KEY, v text, secret text);
    CREATE TABLE app.\"No Key\" (a int); CREATE TABLE app.indexed (a int NOT NULL, b int); CREATE UNIQUE INDEX ix ON app.indexed (a);
    ALTER TABLE app.indexed REPLICA IDENTITY USING INDEX ix; CREATE TABLE app.nothing (a int PRIMARY KEY); ALTER TABLE app.nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE app.ev (id int, at date) PARTITION BY RANGE (at); CREATE TABLE app.ev1 PARTITION OF app.ev FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')";

#[tokio::test(flavor = "multi_thread")]
async fn detaching_restores_what_was_before() {
    let server = server(TABLES).await;
    let before = identities(&server).await;
    let plan = attached(&server, &AttachOptions { attribution: Fallback::Trigger, ..options(&["app.*"]) }).await;
    assert_eq!(plan.tables, ["app.No Key", "app.ev", "app.indexed", "app.keyed", "app.nothing"]);
    assert_eq!(identities(&server).await, "No Key:f ev:f ev1:f indexed:f keyed:f nothing:f");
    assert_eq!(ask(&server, "SELECT count(*)::text FROM pg_trigger WHERE tgname = 'muniment_session'").await, "6");
    server
        .execute(DATABASE, "INSERT INTO app.ev VALUES (1, '2020-02-02'); UPDATE app.ev SET id = 2; UPDATE app.\"No Key\" SET a = 1")
        .await
        .unwrap();
    detached(&server).await;
    assert_eq!(identities(&server).await, before);
    assert_eq!(ask(&server, TRACES).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_its_script_can_be_run_by_hand() {
    let server = server(TABLES).await;
    let before = identities(&server).await;
    let plan = attach::plan(&server.url(DATABASE), &options(&["app.*"]), false).await.unwrap();
    assert_eq!(identities(&server).await, before);
    assert_eq!(ask(&server, TRACES).await, "");
    assert!(plan.transaction.iter().chain(&plan.after).all(|statement| !statement.why.is_empty()));
    let script = plan.script();
    assert!(!script.contains(muniment_testkit::PASSWORD));
    let (transaction, after) = script.split_once("\nCOMMIT;\n").unwrap();
    server.execute(DATABASE, &format!("{transaction}\nCOMMIT;")).await.unwrap();
    server.execute(DATABASE, after).await.unwrap();
    assert_eq!(ask(&server, "SELECT slot_name::text FROM pg_replication_slots").await, "muniment_pg_t");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_could_use_the_socket_is_told() {
    let server = server(TABLES).await;
    let hint = async |url: String| {
        let plan = attach::plan(&url, &options(&["app.*"]), false).await.unwrap();
        plan.findings.into_iter().find(|finding| finding.subject == "connection").map(|finding| finding.text)
    };
    let text = hint(server.url(DATABASE)).await.unwrap();
    assert!(text.contains(&format!("?host={}", server.socket_folder().display())), "{text}");
    assert_eq!(hint(server.socket_url(DATABASE)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_7_new_partitions_get_their_identity_and_come_under_their_root() {
    let server = server(TABLES).await;
    attached(&server, &options(&["app.ev", "app.new*"])).await;
    let made = "CREATE TABLE app.ev2 PARTITION OF app.ev FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
        CREATE TABLE app.ev3 (id int, at date); ALTER TABLE app.ev ATTACH PARTITION app.ev3 FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
        CREATE TABLE app.new_one (a int); CREATE TABLE app.other (a int); CREATE TABLE app.new_two AS SELECT 1 AS a; CREATE TEMP TABLE new_three (a int)";
    server.execute(DATABASE, made).await.unwrap();
    let work = "INSERT INTO app.ev VALUES (1, '2021-05-05'), (2, '2022-05-05'); UPDATE app.ev SET id = 7; DELETE FROM app.ev; UPDATE app.new_two SET a = 2";
    server.execute(DATABASE, work).await.unwrap();
    let published = ask(&server, "SELECT tablename::text FROM pg_publication_tables ORDER BY 1").await;
    assert_eq!(published, "ev new_one new_two");
    let full = ask(&server, "SELECT relname::text FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind IN ('r','p') AND relreplident = 'f' ORDER BY 1").await;
    assert_eq!(full, "ev ev1 ev2 ev3 new_one new_two");
    let due = "SELECT table_name FROM muniment.attached WHERE baseline IS NOT NULL ORDER BY table_name";
    assert_eq!(ask(&server, due).await, "ev ev1 ev2 ev3 new_one new_two");
    server.execute(DATABASE, "DROP TABLE app.new_one; ALTER TABLE app.new_two ALTER COLUMN a TYPE bigint").await.unwrap();
    assert_eq!(ask(&server, due).await, "ev ev1 ev2 ev3 new_two");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_7_truncate_of_single_partitions_is_reported() {
    const SENT: &str = "pg_logical_slot_peek_binary_changes('muniment_pg_t', NULL, NULL, 'proto_version', '1', 'publication_names', 'muniment_pg_t', 'messages', 'true')";
    let server = server(TABLES).await;
    attached(&server, &options(&["app.ev"])).await;
    server.execute(DATABASE, "CREATE TABLE app.ev2 PARTITION OF app.ev FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')").await.unwrap();
    let reports = format!(
        "SELECT count(*)::text FROM {SENT} WHERE encode(data, 'escape') LIKE '%\"tag\" : \"TRUNCATE\"%\"rewritten\" : [\"app.ev\"]%'"
    );
    let truncates = format!("SELECT count(*)::text FROM {SENT} WHERE get_byte(data, 0) = ascii('T')");
    for (statement, reported, sent) in
        [("TRUNCATE app.ev1", "1", "0"), ("TRUNCATE app.ev", "1", "1"), ("TRUNCATE app.ev1, app.ev2", "2", "1")]
    {
        server.execute(DATABASE, statement).await.unwrap();
        assert_eq!((ask(&server, &reports).await.as_str(), ask(&server, &truncates).await.as_str()), (reported, sent), "{statement}");
    }
    detached(&server).await;
    assert_eq!(ask(&server, TRACES).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_10_identity_and_publication_come_together_or_not_at_all() {
    let server = server(TABLES).await;
    let url = server.url(DATABASE);
    let mut plan = attach::plan(&url, &options(&["app.*"]), false).await.unwrap();
    // The last statement of the transaction fails: neither must be there.
    plan.transaction.push(muniment_capture::plan::Statement::new("SELECT 1/0", "a failure"));
    let before = identities(&server).await;
    attach::apply(&url, &plan, true).await.unwrap_err();
    assert_eq!(identities(&server).await, before);
    assert_eq!(ask(&server, TRACES).await, "");
    // The slot fails: what the transaction did is undone.
    plan.transaction.pop();
    plan.after.insert(0, muniment_capture::plan::Statement::new("SELECT 1/0", "a failure"));
    attach::apply(&url, &plan, true).await.unwrap_err();
    assert_eq!(identities(&server).await, before);
    assert_eq!(ask(&server, TRACES).await, "");
    server.execute(DATABASE, "INSERT INTO app.\"No Key\" VALUES (1); UPDATE app.\"No Key\" SET a = 2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_10_columns_are_left_out_without_breaking_updates() {
    let server = server(TABLES).await;
    let wanted = AttachOptions { exclude_columns: vec!["*.*.secret".into()], ..options(&["app.keyed", "app.ev"]) };
    attached(&server, &wanted).await;
    assert_eq!(identities(&server).await, "No Key:d ev:f ev1:f indexed:i keyed:d nothing:n");
    server
        .execute(DATABASE, "INSERT INTO app.keyed VALUES (1, 'a', 'b'); UPDATE app.keyed SET v = 'c'; DELETE FROM app.keyed")
        .await
        .unwrap();
    let columns = "SELECT array_to_string(attnames, ',') FROM pg_publication_tables WHERE tablename = 'keyed'";
    assert_eq!(ask(&server, columns).await, "id,v");
    server.execute(DATABASE, "ALTER TABLE app.keyed ADD COLUMN more int").await.unwrap();
    assert_eq!(ask(&server, columns).await, "id,v,more");
    // A partition is judged by the name of its root: with a list of columns, full identity would break its updates.
    let secret = "CREATE TABLE app.p (id int PRIMARY KEY, secret text) PARTITION BY RANGE (id); CREATE TABLE app.p1 PARTITION OF app.p FOR VALUES FROM (0) TO (9);
        CREATE TABLE app.p2 PARTITION OF app.p FOR VALUES FROM (9) TO (19)";
    server.execute(DATABASE, secret).await.unwrap();
    let wanted = AttachOptions { exclude_columns: vec!["app.p.secret".into()], ..options(&["app.p"]) };
    let plan = attach::plan(&server.url(DATABASE), &wanted, true).await.unwrap();
    attach::apply(&server.url(DATABASE), &plan, false).await.unwrap();
    server.execute(DATABASE, "CREATE TABLE app.p3 PARTITION OF app.p FOR VALUES FROM (19) TO (29)").await.unwrap();
    server
        .execute(DATABASE, "INSERT INTO app.p VALUES (1, 'x'), (10, 'y'), (20, 'z'); UPDATE app.p SET secret = 'w'; DELETE FROM app.p")
        .await
        .unwrap();
    for wrong in ["app.\"No Key\".a", "app.keyed.id"] {
        let wanted = AttachOptions { exclude_columns: vec![wrong.into()], name: Some("pg:u".into()), ..options(&["app.*"]) };
        let plan = attach::plan(&server.url(DATABASE), &wanted, false).await.unwrap();
        assert!(!refusals(&plan).is_empty(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_12_what_gives_way_is_a_stated_choice() {
    let server = server(TABLES).await;
    let url = server.url(DATABASE);
    let asked = |keep: Option<u64>, choice| AttachOptions { max_slot_wal_keep: keep, when_full: choice, ..options(&["app.*"]) };
    let plan = async |options: AttachOptions| attach::plan(&url, &options, true).await.unwrap();
    let undecided = plan(asked(None, None)).await;
    assert!(undecided.findings.iter().any(|finding| finding.level == Level::Warning && finding.subject == "max_slot_wal_keep_size"));
    assert_eq!(refusals(&plan(asked(None, Some(WhenFull::LoseAudit))).await), ["max_slot_wal_keep_size"]);
    assert_eq!(refusals(&plan(asked(Some(1 << 30), Some(WhenFull::StopDatabase))).await), ["max_slot_wal_keep_size"]);
    attached(&server, &asked(Some(1 << 30), Some(WhenFull::LoseAudit))).await;
    assert_eq!(ask(&server, "SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'").await, "1024");
    let again = plan(asked(None, Some(WhenFull::StopDatabase))).await;
    assert_eq!(refusals(&again), ["max_slot_wal_keep_size"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_transactions_that_attaching_waits_for_are_named() {
    let server = server(TABLES).await;
    let named = async || {
        let plan = attach::plan(&server.url(DATABASE), &options(&["app.keyed"]), true).await.unwrap();
        plan.findings.into_iter().find(|finding| finding.subject == "open transactions").map(|finding| finding.text)
    };
    assert_eq!(named().await, None);
    let pool = server.pool(DATABASE);
    let mut open = pool.begin().await.unwrap();
    sqlx::raw_sql("SET LOCAL application_name = 'nightly'; INSERT INTO app.keyed VALUES (1)").execute(&mut *open).await.unwrap();
    sqlx::raw_sql("SELECT pg_sleep(1.1)").execute(&mut *open).await.unwrap();
    let text = named().await.unwrap();
    assert!(text.contains("nightly"), "{text}");
    open.rollback().await.unwrap();
    assert_eq!(named().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_said() {
    let server = server(&format!(
        "{TABLES}; CREATE UNLOGGED TABLE app.quick (a int); CREATE VIEW app.seen AS SELECT 1 AS a; CREATE ROLE weak LOGIN PASSWORD 'weak'"
    ))
    .await;
    let refused = async |options: AttachOptions| {
        let plan = attach::plan(&server.url(DATABASE), &options, false).await.unwrap();
        assert!(plan.permitted().is_err());
        refusals(&plan).join(" ")
    };
    assert_eq!(refused(options(&["app.quick"])).await, "app.quick");
    assert_eq!(refused(options(&["app.seen"])).await, "app.seen");
    assert_eq!(refused(options(&["app.missing"])).await, "app.missing");
    assert_eq!(
        refused(AttachOptions { mask_columns: vec!["app.keyed.missing".into()], ..options(&["app.*"]) }).await,
        "--mask-column app.keyed.missing"
    );
    assert_eq!(refused(AttachOptions { mask_columns: vec!["app.*.id".into()], ..options(&["app.*"]) }).await, "app.keyed");
    server.execute(DATABASE, "CREATE SCHEMA muniment AUTHORIZATION weak").await.unwrap();
    assert_eq!(refused(options(&["app.keyed"])).await, "schema muniment");
    server.execute(DATABASE, "DROP SCHEMA muniment").await.unwrap();
    let weak = server.url(DATABASE).replace(&format!("{}:{}", muniment_testkit::USER, muniment_testkit::PASSWORD), "weak:weak");
    let plan = attach::plan(&weak, &options(&["app.keyed"]), false).await.unwrap();
    assert_eq!(refusals(&plan), ["weak", "weak", "app.keyed"]);
    server.execute(DATABASE, "SELECT pg_create_logical_replication_slot('muniment_pg_t', 'test_decoding')").await.unwrap();
    assert_eq!(refused(options(&["app.keyed"])).await, "slot muniment_pg_t");
    assert!(attach::plan(&server.url(DATABASE), &options(&[]), false).await.is_err());
    let plain = PostgresServer::start(&PostgresOptions { logical: false, ..PostgresOptions::default() }).unwrap();
    let plan = attach::plan(&plain.url(DATABASE), &options(&["*.*"]), false).await.unwrap();
    assert_eq!(refusals(&plan), ["wal_level"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_again_adds_tables_and_a_foreign_source_of_the_name_is_refused() {
    let server = server(TABLES).await;
    attached(&server, &AttachOptions { identity: Identity::Key, ..options(&["app.keyed"]) }).await;
    assert_eq!(identities(&server).await, "No Key:d ev:d ev1:d indexed:i keyed:d nothing:n");
    let more = options(&["app.nothing", "app.keyed"]);
    let refused = attach::plan(&server.url(DATABASE), &more, false).await.unwrap();
    assert_eq!(refusals(&refused), ["pg:t"]);
    let plan = attach::plan(&server.url(DATABASE), &more, true).await.unwrap();
    assert_eq!(plan.tables, ["app.nothing"]);
    assert!(plan.after.is_empty());
    attach::apply(&server.url(DATABASE), &plan, false).await.unwrap();
    assert_eq!(ask(&server, "SELECT tablename::text FROM pg_publication_tables ORDER BY 1").await, "keyed nothing");
    detached(&server).await;
    assert_eq!(identities(&server).await, "No Key:d ev:d ev1:d indexed:i keyed:d nothing:n");
}

#[tokio::test(flavor = "multi_thread")]
async fn detaching_works_when_parts_are_gone() {
    let server = server(TABLES).await;
    attached(&server, &options(&["app.*"])).await;
    let lost = "SELECT pg_drop_replication_slot('muniment_pg_t')";
    server.execute(DATABASE, lost).await.unwrap();
    server
        .execute(
            DATABASE,
            "DROP PUBLICATION muniment_pg_t; DROP EVENT TRIGGER muniment_ddl; DROP TABLE app.keyed; DROP FUNCTION muniment.set_context",
        )
        .await
        .unwrap();
    detached(&server).await;
    assert_eq!(ask(&server, TRACES).await, "");
    assert_eq!(identities(&server).await, "No Key:d ev:d ev1:d indexed:i nothing:n");
    attached(&server, &options(&["app.*"])).await;
    server.execute(DATABASE, "DROP SCHEMA muniment CASCADE").await.unwrap();
    detached(&server).await;
    assert_eq!(ask(&server, TRACES).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_share_a_table() {
    let server = server(TABLES).await;
    attached(&server, &options(&["app.keyed"])).await;
    let other = AttachOptions { name: Some("pg:u".into()), ..options(&["app.keyed"]) };
    attached(&server, &other).await;
    detached(&server).await;
    assert!(identities(&server).await.contains("keyed:f"));
    server.execute(DATABASE, "SELECT muniment.context('{}')").await.unwrap();
    let plan = detach::plan(&server.url(DATABASE), "pg:u").await.unwrap();
    detach::apply(&server.url(DATABASE), &plan).await.unwrap();
    assert!(identities(&server).await.contains("keyed:d"));
    assert_eq!(ask(&server, TRACES).await, "");
}
