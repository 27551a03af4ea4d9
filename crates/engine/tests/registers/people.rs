//! The directory: by hand, by import, by first sight; external ids stand for numbers.

use super::{Scene, by, object};
use muniment_engine::people::{Existing, ImportFormat, Imported, UserFilter, UserKey};
use muniment_engine::{EngineConfig, EngineError};
use serde_json::json;
use tempfile::TempDir;

const LISTED: &str = "SELECT id, username, external_id, source, is_active FROM users ORDER BY id";

async fn with_first_sight() -> Scene {
    let folder = TempDir::new().unwrap();
    let config = EngineConfig { first_sight: true, ..EngineConfig::new("") };
    Scene::with(folder, config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_added_changed_and_deactivated_and_stays() {
    let scene = Scene::new().await;
    let engine = &scene.engine;
    let new = object(json!({ "username": "lan", "display_name": "Lan", "external_id": "HR-1", "email": "lan@example.vn" }));
    let user = engine.add_user(&new, &by("admin")).await.unwrap();
    assert_eq!((&user["id"], &user["source"], &user["is_active"]), (&json!(1), &json!("local"), &json!(true)));
    let key = UserKey::from("lan");
    engine.change_user(&key, &object(json!({ "display_name": "Lan Nguyen" })), &by("admin")).await.unwrap();
    let user = engine.set_user_active(&key, false, &by("admin")).await.unwrap();
    assert!(user["is_active"] == false && user["deactivated_at"].is_string(), "{user}");
    let uuid = "67E55044-10B1-426F-9247-BB680E5FE0C8";
    let more = object(json!({ "external_id": uuid, "system": "oidc" }));
    engine.add_external_id(&UserKey::from("1"), &more, &by("admin")).await.unwrap();
    for name in ["lan", "HR-1", "67e5504410b1426f9247bb680e5fe0c8", "1"] {
        assert_eq!(engine.user(&UserKey::from(name)).await.unwrap()["id"], 1, "{name}");
    }
    let refused = |error: EngineError| error.to_string();
    let check = async |new: serde_json::Value, expected: &str| {
        let outcome = engine.add_user(&object(new.clone()), &by("admin")).await.map_err(refused);
        assert!(outcome.as_ref().is_err_and(|text| text.contains(expected)), "{new}: {outcome:?}");
    };
    check(json!({ "username": "lan" }), "another user has this name").await;
    check(json!({ "username": "other", "external_id": uuid }), "another user has the external id").await;
    check(json!({ "display_name": "x" }), "username: is missing").await;
    check(json!({ "username": "" }), "username: must not be empty").await;
    check(json!({ "username": "x", "is_active": false }), "there is no field \"is_active\"").await;
    check(json!({ "username": "x", "id": 1 }), "another user has this number").await;
    insta::assert_snapshot!(scene.changes("table_name, operation, primary_key, change_details, changed_by_username").await, @r"
    +----------------------------+-----------+-------------+------------------------------------------------+---------------------+
    | table_name                 | operation | primary_key | change_details                                 | changed_by_username |
    +----------------------------+-----------+-------------+------------------------------------------------+---------------------+
    | muniment.users             | INSERT    | 1           |                                                | admin               |
    | muniment.users             | UPDATE    | 1           | changed: display_name, updated_at              | admin               |
    | muniment.users             | UPDATE    | 1           | changed: is_active, updated_at, deactivated_at | admin               |
    | muniment.user_external_ids | INSERT    | 1           |                                                | admin               |
    +----------------------------+-----------+-------------+------------------------------------------------+---------------------+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_all_or_nothing() {
    let scene = Scene::new().await;
    let engine = &scene.engine;
    let csv = "username,display_name,external_id,id\nlan,\"Nguyen, Lan\",hr-1,\nminh,,hr-2,70\n";
    let done = engine.import_users(csv.as_bytes(), ImportFormat::Csv, Existing::Refuse, &by("admin")).await.unwrap();
    assert_eq!(done, Imported { added: 2, updated: 0, unchanged: 0 });
    let wrong = b"{\"username\":\"an\"}\n{\"username\":\"lan\"}\n\n{\"username\":\"an\",\"mail\":\"x\"}\n{\"username\":\"binh\",\"external_id\":\"hr-2\"}\nnonsense\n{}\n";
    let refused = engine.import_users(wrong, ImportFormat::Ndjson, Existing::Refuse, &by("admin")).await;
    let Err(EngineError::Invalid(rejection)) = refused else { panic!("{refused:?}") };
    let told: Vec<String> =
        rejection.errors.iter().map(|error| format!("{} {} {}", error.line, error.field.as_deref().unwrap_or("-"), error.reason)).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    6 - is not JSON: expected ident at line 1 column 2
    2 username there is a user "lan" already
    4 mail there is no such field; there are id, username, display_name, email, external_id, source
    4 username line 1 has "an", too
    5 external_id another user has "hr-2"
    7 username is missing
    "#);
    let csv = "username,display_name\nlan,Lan\nminh,\nan,An\n";
    let done = engine.import_users(csv.as_bytes(), ImportFormat::Csv, Existing::Update, &by("admin")).await.unwrap();
    assert_eq!(done, Imported { added: 1, updated: 1, unchanged: 1 });
    insta::assert_snapshot!(scene.table(LISTED).await, @r"
    +----+----------+-------------+--------+-----------+
    | id | username | external_id | source | is_active |
    +----+----------+-------------+--------+-----------+
    | 1  | lan      | hr-1        | local  | true      |
    | 70 | minh     | hr-2        | local  | true      |
    | 71 | an       |             | local  | true      |
    +----+----------+-------------+--------+-----------+
    ");
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_makes_the_users_that_it_speaks_of() {
    let scene = with_first_sight().await;
    scene.engine.add_user(&object(json!({ "username": "lan", "external_id": "hr-1" })), &by("admin")).await.unwrap();
    let changes = [
        json!({ "table_name": "t", "operation": "INSERT", "primary_key": "1", "changed_by": 7, "changed_by_username": "minh" }),
        json!({ "table_name": "t", "operation": "INSERT", "primary_key": "2", "changed_by": 8, "changed_by_username": "lan" }),
        json!({ "table_name": "t", "operation": "INSERT", "primary_key": "3", "changed_by": "hr-1" }),
        json!({ "table_name": "t", "operation": "INSERT", "primary_key": "4", "changed_by": "67E55044-10B1-426F-9247-BB680E5FE0C8" }),
        json!({ "table_name": "t", "operation": "INSERT", "primary_key": "5", "changed_by": "67e55044-10b1-426f-9247-bb680e5fe0c8" }),
    ];
    scene.send("sys_audit_log", &changes).await;
    scene.send("auth_audit_log", &[json!({ "event_type": "LOGIN", "user_id": 7 }), json!({ "event_type": "LOGIN", "user_id": -1 })]).await;
    insta::assert_snapshot!(scene.table(LISTED).await, @r"
    +----+--------------------------------------+--------------------------------------+-------------+-----------+
    | id | username                             | external_id                          | source      | is_active |
    +----+--------------------------------------+--------------------------------------+-------------+-----------+
    | 1  | lan                                  | hr-1                                 | local       | true      |
    | 2  | 67e55044-10b1-426f-9247-bb680e5fe0c8 | 67e55044-10b1-426f-9247-bb680e5fe0c8 | first_sight | true      |
    | 7  | minh                                 |                                      | first_sight | true      |
    | 8  | user-8                               |                                      | first_sight | true      |
    +----+--------------------------------------+--------------------------------------+-------------+-----------+
    ");
    let joined = "SELECT primary_key, changed_by, username FROM sys_audit_log JOIN users ON users.id = changed_by WHERE table_name = 't' ORDER BY primary_key";
    insta::assert_snapshot!(scene.table(joined).await, @r"
    +-------------+------------+--------------------------------------+
    | primary_key | changed_by | username                             |
    +-------------+------------+--------------------------------------+
    | 1           | 7          | minh                                 |
    | 2           | 8          | user-8                               |
    | 3           | 1          | lan                                  |
    | 4           | 2          | 67e55044-10b1-426f-9247-bb680e5fe0c8 |
    | 5           | 2          | 67e55044-10b1-426f-9247-bb680e5fe0c8 |
    +-------------+------------+--------------------------------------+
    ");
    let first =
        scene.engine.users(&UserFilter { source: Some("first_sight".to_owned()), limit: 10, ..UserFilter::default() }).await.unwrap();
    assert_eq!(first.len(), 3);
    scene.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_id_of_nobody_is_refused_where_records_make_no_users() {
    let scene = Scene::new().await;
    let record = json!({ "event_type": "LOGIN", "user_id": "hr-9" });
    let refused = scene.try_send("auth_audit_log", std::slice::from_ref(&record)).await;
    let Err(EngineError::Invalid(rejection)) = refused else { panic!("{refused:?}") };
    assert_eq!(rejection.errors[0].field.as_deref(), Some("user_id"));
    scene.engine.add_user(&object(json!({ "username": "an", "external_id": "hr-9" })), &by("admin")).await.unwrap();
    scene.send("auth_audit_log", &[record]).await;
    insta::assert_snapshot!(scene.table("SELECT user_id FROM auth_audit_log").await, @r"
    +---------+
    | user_id |
    +---------+
    | 1       |
    +---------+
    ");
    let ids = ["hr-9".to_owned(), "hr-10".to_owned()];
    let resolved = scene.engine.resolve_users(&ids, false, &by("admin")).await.unwrap();
    assert_eq!(json!(resolved), json!({ "hr-9": 1, "hr-10": null }));
    let resolved = scene.engine.resolve_users(&ids, true, &by("admin")).await.unwrap();
    assert_eq!(json!(resolved), json!({ "hr-9": 1, "hr-10": 2 }));
    scene.engine.shutdown().await.unwrap();
}
