//! Every change of a register becomes a record: with old and new values, who and why; also one that is made behind Muniment's back (P8), and each once (P2).

use super::{Scene, by};
use muniment_store::StoreError;
use muniment_store::register::{ChangedBy, RegisterChange};

fn insert(username: &str) -> RegisterChange {
    RegisterChange::Insert { table: muniment_model::table("users").unwrap(), values: vec![("username", username.into())] }
}

fn rename(id: i64, name: &str) -> RegisterChange {
    let table = muniment_model::table("users").unwrap();
    RegisterChange::Update { table, id, values: vec![("display_name", name.into())], expected: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_change_names_who_made_it_and_why() {
    let scene = Scene::new().await;
    let db = scene.engine.store().db();
    let by = ChangedBy { user_id: Some(7), ip_address: Some("10.0.0.7".to_owned()), ..by("lan") };
    assert_eq!(db.change_registers(&[insert("minh")], &by).await.unwrap(), [1]);
    db.change_registers(&[rename(1, "Minh")], &by).await.unwrap();
    let delete = RegisterChange::Delete { table: muniment_model::table("users").unwrap(), id: 1 };
    db.change_registers(&[delete], &by).await.unwrap();
    let columns =
        "table_name, operation, primary_key, change_details, changed_by, changed_by_username, ip_address, change_reason, attribution";
    insta::assert_snapshot!(scene.changes(columns).await, @r"
    +----------------+-----------+-------------+-----------------------+------------+---------------------+------------+---------------+-------------+
    | table_name     | operation | primary_key | change_details        | changed_by | changed_by_username | ip_address | change_reason | attribution |
    +----------------+-----------+-------------+-----------------------+------------+---------------------+------------+---------------+-------------+
    | muniment.users | INSERT    | 1           |                       | 7          | lan                 | 10.0.0.7   | ticket 4711   | APPLICATION |
    | muniment.users | UPDATE    | 1           | changed: display_name | 7          | lan                 | 10.0.0.7   | ticket 4711   | APPLICATION |
    | muniment.users | DELETE    | 1           |                       | 7          | lan                 | 10.0.0.7   | ticket 4711   | APPLICATION |
    +----------------+-----------+-------------+-----------------------+------------+---------------------+------------+---------------+-------------+
    ");
    let images = "(old_values IS NOT NULL) AS old, (new_values IS NOT NULL) AS new, position('\"username\":\"minh\"' IN coalesce(new_values, old_values)) > 0 AS row";
    insta::assert_snapshot!(scene.changes(images).await, @r"
    +-------+-------+------+
    | old   | new   | row  |
    +-------+-------+------+
    | false | true  | true |
    | true  | true  | true |
    | true  | false | true |
    +-------+-------+------+
    ");
    insta::assert_snapshot!(scene.table("SELECT count(*) AS findings FROM security_audit_log").await, @r"
    +----------+
    | findings |
    +----------+
    | 0        |
    +----------+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_plain_sql_in_the_commit_database_is_captured_and_flagged() {
    let scene = Scene::new().await;
    scene.engine.store().db().change_registers(&[insert("minh")], &by("lan")).await.unwrap();
    scene.behind_the_back("UPDATE users SET username = 'mallory' WHERE id = 1").await;
    insta::assert_snapshot!(scene.changes("table_name, operation, changed_by_username, attribution, change_details").await, @r"
    +----------------+-----------+---------------------+-------------+-------------------+
    | table_name     | operation | changed_by_username | attribution | change_details    |
    +----------------+-----------+---------------------+-------------+-------------------+
    | muniment.users | INSERT    | lan                 | APPLICATION |                   |
    | muniment.users | UPDATE    |                     | NONE        | changed: username |
    +----------------+-----------+---------------------+-------------+-------------------+
    ");
    let found = "SELECT event_type, resource_accessed, requires_investigation FROM security_audit_log";
    insta::assert_snapshot!(scene.table(found).await, @r"
    +--------------------+-------------------+------------------------+
    | event_type         | resource_accessed | requires_investigation |
    +--------------------+-------------------+------------------------+
    | UNATTRIBUTED_WRITE | muniment.users    | true                   |
    +--------------------+-------------------+------------------------+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_while_nothing_runs_are_taken_in_by_the_next_start() {
    let scene = Scene::new().await;
    scene.engine.store().db().change_registers(&[insert("minh")], &by("lan")).await.unwrap();
    scene.engine.shutdown().await.unwrap();
    scene.behind_the_back("INSERT INTO users (username) VALUES ('mallory')").await;
    let folder = scene.folder;
    drop((scene.engine, scene.query));
    let scene = Scene::open(folder).await;
    let count = "count(*) AS changes, count(DISTINCT source_position) AS positions";
    insta::assert_snapshot!(scene.table(&{ scene.settled().await; format!("SELECT {count} FROM sys_audit_log") }).await, @r"
    +---------+-----------+
    | changes | positions |
    +---------+-----------+
    | 2       | 2         |
    +---------+-----------+
    ");
    let scene = scene.restarted().await;
    insta::assert_snapshot!(scene.table(&{ scene.settled().await; format!("SELECT {count} FROM sys_audit_log") }).await, @r"
    +---------+-----------+
    | changes | positions |
    +---------+-----------+
    | 2       | 2         |
    +---------+-----------+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_change_that_is_refused_leaves_nothing() {
    let scene = Scene::new().await;
    let db = scene.engine.store().db();
    let refused = db.change_registers(&[insert("minh"), rename(99, "nobody")], &by("lan")).await;
    assert!(matches!(refused, Err(StoreError::Conflict { table: "users", .. })), "{refused:?}");
    let refused = db.change_registers(&[insert("minh"), insert("minh")], &by("lan")).await;
    assert!(matches!(refused, Err(StoreError::Conflict { table: "users", .. })), "{refused:?}");
    assert_eq!(db.change_registers(&[insert("minh")], &by("lan")).await.unwrap().len(), 1);
    insta::assert_snapshot!(scene.changes("operation, changed_by_username").await, @r"
    +-----------+---------------------+
    | operation | changed_by_username |
    +-----------+---------------------+
    | INSERT    | lan                 |
    +-----------+---------------------+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_without_newer_registers_and_columns_gets_them() {
    let scene = Scene::new().await;
    scene.engine.shutdown().await.unwrap();
    scene.behind_the_back("DROP TABLE legal_holds; ALTER TABLE users RENAME TO elsewhere; CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, username TEXT NOT NULL UNIQUE, external_id TEXT UNIQUE, created_at INTEGER NOT NULL DEFAULT 0, updated_at INTEGER NOT NULL DEFAULT 0) STRICT; INSERT INTO users (username) VALUES ('old')").await;
    let folder = scene.folder;
    drop((scene.engine, scene.query));
    let scene = Scene::open(folder).await;
    insta::assert_snapshot!(scene.table("SELECT id, username, email, is_active, source FROM users").await, @r"
    +----+----------+-------+-----------+--------+
    | id | username | email | is_active | source |
    +----+----------+-------+-----------+--------+
    | 1  | old      |       | true      | local  |
    +----+----------+-------+-----------+--------+
    ");
    insta::assert_snapshot!(scene.table("SELECT count(*) AS holds FROM legal_holds").await, @r"
    +-------+
    | holds |
    +-------+
    | 0     |
    +-------+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registers_are_a_source_that_stays() {
    let scene = Scene::new().await;
    let sources = scene.engine.sources().await.unwrap();
    assert_eq!(sources.iter().map(|source| (source.name.as_str(), source.kind.as_str())).collect::<Vec<_>>(), [("muniment", "registers")]);
    let actor = muniment_engine::capture::Actor { name: None, address: None };
    let detached = scene.engine.detach("muniment", muniment_engine::capture::Farewell::Complete, &actor).await;
    assert!(detached.unwrap_err().to_string().contains("always captured"));
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_shows_what_waits_and_what_failed() {
    let scene = Scene::new().await;
    // What an older version has made in its place.
    scene.behind_the_back("DROP VIEW sys_audit_queue; CREATE TABLE sys_audit_queue (id INTEGER PRIMARY KEY)").await;
    let scene = scene.restarted().await;
    scene.behind_the_back("INSERT INTO muniment_audit_queue (table_name, operation) VALUES ('main.users', 'SABOTAGE')").await;
    scene.engine.store().db().change_registers(&[insert("minh")], &by("lan")).await.unwrap();
    let waits = "SELECT count(*) = 1 FROM sys_audit_queue WHERE table_name = 'muniment.users' AND operation = 'INSERT' AND primary_key = '1' AND NOT is_processed AND processed_at IS NULL AND queued_at <= now()";
    scene.until(waits).await;
    let failed = "SELECT count(*) = 1 FROM sys_audit_queue WHERE operation = 'SABOTAGE' AND NOT is_processed AND processing_attempts > 0 AND last_error LIKE '%SABOTAGE%'";
    scene.until(failed).await;
    scene.behind_the_back("DELETE FROM muniment_audit_queue WHERE operation = 'SABOTAGE'").await;
    scene.settled().await;
    scene.until("SELECT count(*) = 0 FROM sys_audit_queue WHERE NOT is_processed").await;
    assert!(scene.table("SELECT operation FROM sys_audit_log WHERE table_name = 'muniment.users'").await.contains("INSERT"));
    scene.engine.shutdown().await.unwrap();
}
