//! Ways to log in: TLS with the server's certificate checked, and passwords that are not in the URL.

use crate::support::*;
use muniment_capture::Source;
use muniment_testkit::{PASSWORD, USER};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A certificate for 127.0.0.1 that signs itself, where the server can read it. `None` without `openssl`.
fn certificate(folder: &Path) -> Option<()> {
    let (key, certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    if !made.ok()?.status.success() {
        return None;
    }
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    Some(())
}

#[tokio::test]
async fn tls() {
    let folder = tempfile::tempdir().unwrap();
    if certificate(folder.path()).is_none() {
        eprintln!("there is no openssl here: nothing tested");
        return;
    }
    let server = server("CREATE TABLE t (id int PRIMARY KEY)").await;
    // The server takes only keys that are its own.
    let data = server.data();
    let owner = std::fs::metadata(&data).unwrap();
    for name in ["key.pem", "cert.pem"] {
        std::fs::copy(folder.path().join(name), data.join(name)).unwrap();
        use std::os::unix::fs::MetadataExt;
        std::os::unix::fs::chown(data.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    for sql in [
        "ALTER SYSTEM SET ssl_key_file = 'key.pem'",
        "ALTER SYSTEM SET ssl_cert_file = 'cert.pem'",
        "ALTER SYSTEM SET ssl = on",
        "SELECT pg_reload_conf()",
    ] {
        server.execute(DATABASE, sql).await.unwrap();
    }
    let root = folder.path().join("cert.pem");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut config = config(&server);
    let plain = config.url.clone();
    config.url = format!("{plain}?sslmode=verify-full&sslrootcert={}", root.display());
    let mut store = Store::open(config.clone()).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (1)").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.changes.len(), 1);
    let encrypted =
        "SELECT bool_and(s.ssl)::text FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name LIKE 'muniment%'";
    assert_eq!(ask(&server, encrypted).await, "true");

    drop(store);
    config.url = format!("{plain}?sslmode=verify-full");
    assert!(Store::new(config).source.start(None).await.is_err(), "a certificate that nobody vouches for was accepted");
}

#[tokio::test]
async fn the_password_is_in_a_file() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY)").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgpass");
    std::fs::write(&file, format!("127.0.0.1:{}:*:{USER}:{PASSWORD}\n", server.port())).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    // SAFETY: this test is a process of its own, and no other thread reads the environment now.
    unsafe { std::env::set_var("PGPASSFILE", &file) };
    let mut config = config(&server);
    config.url = config.url.replace(&format!(":{PASSWORD}"), "");
    let mut store = Store::open(config).await;
    server.execute(DATABASE, "INSERT INTO t VALUES (1)").await.unwrap();
    store.catch_up(&server).await;
    assert_eq!(store.changes.len(), 1);
}

/// Older servers hold passwords as MD5, and some want them as they are.
#[tokio::test]
async fn other_ways_to_say_a_password() {
    let server = server("CREATE TABLE t (id int PRIMARY KEY)").await;
    let rules = server.data().join("pg_hba.conf");
    let before = std::fs::read_to_string(&rules).unwrap();
    for (id, method) in ["md5", "password"].into_iter().enumerate() {
        std::fs::write(&rules, format!("host all all 127.0.0.1/32 {method}\n{before}")).unwrap();
        server.execute(DATABASE, "SELECT pg_reload_conf()").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.execute(DATABASE, &format!("SET password_encryption = md5; ALTER ROLE {USER} PASSWORD '{PASSWORD}'")).await.unwrap();
        let mut store = Store::open(config(&server)).await;
        server.execute(DATABASE, &format!("INSERT INTO t VALUES ({id})")).await.unwrap();
        store.catch_up(&server).await;
        assert!(!store.changes.is_empty(), "{method}");

        let mut wrong = config(&server);
        wrong.url = wrong.url.replace(PASSWORD, "another");
        assert!(Store::new(wrong).source.start(None).await.is_err(), "{method} took another password");
    }
}
