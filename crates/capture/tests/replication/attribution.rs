//! Who made a change when the application didn't say, and what is reported.

use crate::support::*;
use muniment_capture::postgres::SessionSource;
use serde_json::{Value, json};
use std::time::Duration;

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); CREATE ROLE dba LOGIN SUPERUSER PASSWORD 'dba'";

#[tokio::test]
async fn somebody_at_psql_is_named_and_reported() {
    use sqlx::ConnectOptions;
    let server = server(TABLE).await;
    let mut store = Store::open(config(&server)).await;
    let mut psql = server.connect_options(DATABASE).username("dba").password("dba").application_name("psql").connect().await.unwrap();
    run(&mut psql, "INSERT INTO t VALUES (1)").await;
    store.catch_up(&server).await;
    let change = &store.changes[0];
    assert_eq!((&change["attribution"], &change["changed_by_username"]), (&json!("DATABASE"), &json!("dba")));
    assert_eq!((&change["user_agent"], &change["ip_address"]), (&json!("psql"), &json!("127.0.0.1")));
    let [finding] = &store.findings[..] else { panic!("{:?}", store.findings) };
    assert_eq!((&finding["event_type"], &finding["username"]), (&json!("UNATTRIBUTED_WRITE"), &json!("dba")));
    assert_eq!((&finding["ip_address"], &finding["resource_accessed"]), (&json!("127.0.0.1"), &json!("public.t")));
    assert_eq!(finding["requires_investigation"], true);
    assert_eq!(finding["event_time"], change["changed_at"]);
}

#[tokio::test]
async fn a_transaction_seen_while_it_ran_is_known() {
    let server = server(TABLE).await;
    let mut store = Store::open(config(&server)).await;
    let mut slow = client(&server, "slow").await;
    run(&mut slow, "BEGIN; INSERT INTO t VALUES (1)").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    run(&mut slow, "COMMIT").await;
    // Gone by the time anybody asks.
    drop(slow);
    store.catch_up(&server).await;
    assert_eq!(store.changes[0]["user_agent"], "slow");
}

#[tokio::test]
async fn nobody_is_named_where_others_can_have_done_it() {
    let server = server(TABLE).await;
    let mut store = Store::open(config(&server)).await;
    let mut busy = client(&server, "busy").await;
    let running = tokio::spawn(async move {
        loop {
            run(&mut busy, "SELECT 1").await;
        }
    });
    let mut writer = client(&server, "writer").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    run(&mut writer, "INSERT INTO t VALUES (1)").await;
    store.catch_up(&server).await;
    running.abort();
    assert_eq!((&store.changes[0]["attribution"], &store.changes[0]["changed_by_username"]), (&json!("NONE"), &Value::Null));
    let finding = &store.findings[0];
    assert_eq!((&finding["username"], &finding["ip_address"]), (&Value::Null, &json!("0.0.0.0")));
    let reason = finding["failure_reason"].as_str().unwrap();
    assert!(reason.ends_with("probably postgres with writer from 127.0.0.1"), "{reason}");
}

#[tokio::test]
async fn without_the_privilege_nobody_is_named() {
    let server = server(&format!(
        "{TABLE}; CREATE ROLE capture LOGIN REPLICATION PASSWORD 'capture'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO capture"
    ))
    .await;
    let mut config = config(&server);
    config.url = format!("postgres://capture:capture@127.0.0.1:{}/{DATABASE}", server.port());
    let mut store = Store::open(config).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (1)").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.changes[0]["attribution"], "NONE");
    assert_eq!(store.findings.len(), 1);
}

#[tokio::test]
async fn a_known_application_is_no_finding() {
    let server = server(TABLE).await;
    let mut config = config(&server);
    config.known_applications = vec!["shop".into()];
    config.sessions = SessionSource::Trigger;
    let mut store = Store::open(config).await;
    let session = |application: &str| {
        format!(
            "SELECT pg_logical_emit_message(true, 'muniment.session', '{{\"user\":\"app\",\"application\":\"{application}\",\"address\":\"10.0.0.9\"}}')"
        )
    };
    server.execute(DATABASE, &format!("{}; INSERT INTO t VALUES (1)", session("shop"))).await.unwrap();
    server.execute(DATABASE, &format!("{}; INSERT INTO t VALUES (2); INSERT INTO u VALUES (2)", session("other"))).await.unwrap();
    server.execute(DATABASE, "INSERT INTO t VALUES (3)").await.unwrap();
    store.catch_up(&server).await;
    let who: Vec<&Value> = store.changes.iter().map(|change| &change["user_agent"]).collect();
    assert_eq!(who, [&json!("shop"), &json!("other"), &json!("other"), &Value::Null]);
    let resources: Vec<&Value> = store.findings.iter().map(|finding| &finding["resource_accessed"]).collect();
    assert_eq!(resources, ["public.t, public.u", "public.t"]);
}

#[tokio::test]
async fn a_context_that_is_not_valid_is_reported_and_the_change_kept() {
    let server = server(TABLE).await;
    let mut store = Store::open(config(&server)).await;
    let sql =
        "BEGIN; SELECT pg_logical_emit_message(true, 'muniment.context', '{\"user_id\":\"seven\"}'); INSERT INTO t VALUES (1); COMMIT";
    server.execute(DATABASE, sql).await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.changes[0]["attribution"], "NONE");
    assert!(store.findings[0]["failure_reason"].as_str().unwrap().contains("not valid"));
}

#[tokio::test]
async fn many_findings_are_summed_up() {
    let server = server(TABLE).await;
    let mut config = config(&server);
    config.sessions = SessionSource::Trigger;
    config.findings_per_minute = 3;
    let mut store = Store::open(config).await;
    let mut client = client(&server, "a").await;
    for n in 0..20 {
        run(&mut client, &format!("INSERT INTO t VALUES ({n})")).await;
    }
    store.catch_up(&server).await;
    assert_eq!(store.changes.len(), 20);
    assert!((3..=7).contains(&store.findings.len()), "{}", store.findings.len());
}
