//! P10: a full disk. The data folder is on a file system of a few megabytes; when it is full, the server refuses with 503 and Retry-After, answers queries all the
//! while, and goes on when there is space again; nothing acknowledged is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod support;

use std::path::Path;
use std::process::Command;
use support::{Client, ServerProcess, query, verify};

/// A mounted file system; unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// `None` where this user may not mount.
    fn mount(path: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn event(number: usize, noise: &str) -> String {
    format!(r#"{{"table_name":"t","operation":"INSERT","primary_key":"{number}","new_values":{{"noise":"{noise}"}}}}"#)
}

/// Text that hardly compresses.
fn noise(seed: usize, length: usize) -> String {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn p10_a_full_disk_refuses_and_recovers() {
    let folder = tempfile::TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&disk, "24m") else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let data = disk.join("data");
    let server = ServerProcess::start(&data, &[("MUNIMENT_FLUSH__AGE", "1h"), ("MUNIMENT_FLUSH__BATCHES", "100000")]);
    let mut client = Client::new(&server.address);
    let post = |client: &mut Client, number: usize| {
        client.request("POST", "/api/v1/logs/sys_audit_log", &event(number, &noise(number, 200_000)), &[]).unwrap()
    };
    let mut acknowledged = 0;
    let refused = loop {
        let answer = post(&mut client, acknowledged);
        if answer.0 != 201 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 1000, "the disk never fills");
    };
    assert_eq!(refused.0, 503, "{refused:?}");
    assert_eq!(post(&mut client, acknowledged).0, 503, "and again");
    let counted = client.request("POST", "/api/v1/sql", r#"{"query":"SELECT count(*) AS n FROM sys_audit_log"}"#, &[]).unwrap();
    assert_eq!((counted.0, counted.1.trim()), (200, format!(r#"[{{"n":{acknowledged}}}]"#).as_str()), "queries go on");

    let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk).status().unwrap();
    assert!(grown.success());
    let again = post(&mut client, acknowledged);
    assert_eq!(again.0, 201, "{again:?}");
    drop(client);
    server.stop();
    assert_eq!(query(&data, "SELECT count(*) FROM sys_audit_log"), [(acknowledged + 1).to_string()]);
    let (valid, report) = verify(&data);
    assert!(valid, "{report}");
}
