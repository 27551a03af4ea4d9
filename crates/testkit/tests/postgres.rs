//! The server that tests use: it starts, survives being killed, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use muniment_testkit::{PASSWORD, PostgresOptions, PostgresServer};

#[tokio::test(flavor = "multi_thread")]
async fn starts_is_killed_and_comes_back() {
    let options = PostgresOptions::default().setting("application_name", "it's set");
    let mut server = PostgresServer::start(&options).unwrap();
    assert!(server.url("postgres").contains(PASSWORD));
    server.execute("postgres", "CREATE TABLE kept (a int); INSERT INTO kept VALUES (1)").await.unwrap();
    let port = server.port();
    server.kill9().unwrap();
    assert!(server.execute("postgres", "SELECT 1").await.is_err());
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    let pool = server.pool("postgres");
    let (kept, level): (i32, String) = sqlx::query_as("SELECT a, current_setting('wal_level') FROM kept").fetch_one(&pool).await.unwrap();
    assert_eq!((kept, level.as_str()), (1, "logical"));
    server.stop().unwrap();
    assert!(server.log().contains("database system is shut down"));
    let folder = server.socket_folder().to_owned();
    drop(server);
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once() {
    let options = PostgresOptions { logical: false, fsync: true, ..PostgresOptions::default() };
    let servers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| PostgresServer::start(&options).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for server in &servers {
        let settings: (String, String) = sqlx::query_as("SELECT current_setting('wal_level'), current_setting('fsync')")
            .fetch_one(&server.pool("postgres"))
            .await
            .unwrap();
        assert_eq!(settings, ("replica".to_owned(), "on".to_owned()));
    }
    assert_ne!(servers[0].port(), servers[1].port());
}
