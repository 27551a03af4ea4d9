//! Rows that went with the row that they belong to.

use crate::databases::Database;
use crate::{Log, record};
use muniment_engine::history::Selection;
use serde_json::json;

const TABLES: &str = "CREATE TABLE parent (id int PRIMARY KEY, name text); \
    CREATE TABLE child (id int PRIMARY KEY, parent_id int NOT NULL REFERENCES parent (id) ON DELETE CASCADE); \
    INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (10, 1), (11, 1); DELETE FROM parent WHERE id = 1";

/// The parent goes first, and its children after it, as triggers of foreign keys do it.
async fn comes_back(mut database: Database, schema: &str, begin: &str) {
    let log = Log::new().await;
    let of = |table: &str, key: i32, row: serde_json::Value| {
        record("DELETE", &key.to_string(), row, json!(null), json!({ "table_name": format!("{schema}.{table}"), "transaction_id": "t:1" }))
    };
    let mut records = vec![of("parent", 1, json!({ "id": 1, "name": "p" }))];
    records.extend([10, 11].map(|id| of("child", id, json!({ "id": id, "parent_id": 1 }))));
    log.send(&records).await;
    let selection = Selection::Transaction("t:1".into());
    let undo = log.undo_with(&selection, database.dialect(), "id").await.unwrap();
    assert_eq!(undo.refusals, [], "refused");
    database.run(&format!("{begin}{TABLES}")).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM child").await, 0);
    database.run(&undo.script.unwrap()).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM child JOIN parent ON parent.id = parent_id").await, 2);
}

#[tokio::test]
async fn on_postgresql() {
    comes_back(Database::postgres().await, "public", "").await;
}

#[tokio::test]
async fn on_sqlite() {
    comes_back(Database::sqlite().await, "main", "PRAGMA foreign_keys = ON; ").await;
}
