//! Scenarios of the configuration: what wins, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Place;

#[test]
fn unknown_keys_are_refused_and_named_with_their_place() {
    let place = Place::new();
    place.write("muniment.toml", "[flush]\nbites = 3\n");
    let (code, error) = place.fail(&["config"]);
    assert_eq!(code, 2);
    assert!(error.contains("no key `flush.bites`, which comes from muniment.toml (did you mean `flush.bytes`?)"), "{error}");

    place.write("muniment.toml", "");
    let output = place.command(&["config"]).env("MUNIMENT_LISTN", "127.0.0.1:1").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("no key `listn`, which comes from the environment variable MUNIMENT_LISTN"), "{error}");

    place.write("other.toml", "heartbeat = \"soon\"\n");
    let (code, error) = place.fail(&["config", "--config", "other.toml"]);
    assert_eq!(code, 2);
    assert!(error.contains("`heartbeat`, from other.toml: `soon` is not a time"), "{error}");
    assert_eq!(place.fail(&["config", "--config", "absent.toml"]).0, 2);
    assert_eq!(place.fail(&["config", "--listen", "nowhere"]).0, 2);
    assert_eq!(place.fail(&["config", "--unheard-of"]).0, 2);
}

#[test]
fn a_mask_that_means_nothing_is_refused_at_the_start() {
    let place = Place::new();
    for (masked, shown, expected) in [
        ("sys_audit_log.cmnd", "", "`access.masked`, from muniment.toml: `sys_audit_log.cmnd`: sys_audit_log has no column cmnd"),
        ("*.user_agent\", \"people.name", "", "`access.masked`, from muniment.toml: `people.name`: there is no table people"),
        (
            "*.user_agent",
            "sys_audit_log.user_agent",
            "`access.shown`, from muniment.toml: `sys_audit_log.user_agent`: sys_audit_log.user_agent holds no documents",
        ),
    ] {
        let shown = if shown.is_empty() { String::new() } else { format!("shown = [\"{shown}\"]\n") };
        place.write("muniment.toml", &format!("[access]\nmasked = [\"{masked}\"]\n{shown}"));
        let (code, error) = place.fail(&["serve", "--listen", "127.0.0.1:0"]);
        assert!(code == 2 && error.contains(expected), "{error}");
    }
    assert!(!place.path("muniment-data").exists());
    place.write("muniment.toml", "[access]\nmasked = [\"sys_audit_log.new_values.cmnd\"]\nshown = [\"*.new_values\"]\n");
    assert!(place.succeed(&["config"]).contains("masked = [\"sys_audit_log.new_values.cmnd\"]  # from muniment.toml"));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let place = Place::new();
    place.write("muniment.toml", "data = \"a\"\nlisten = \"127.0.0.1:1\"\n[flush]\nbytes = \"1 MiB\"\nbatches = 7\n");
    let output = place
        .command(&["config", "--listen", "127.0.0.1:3"])
        .env("MUNIMENT_LISTEN", "127.0.0.1:2")
        .env("MUNIMENT_FLUSH__BYTES", "2 MiB")
        .env("MUNIMENT_PUBLISH", "[\"one\", \"two\"]")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "data = \"a\"  # from muniment.toml",
        "listen = \"127.0.0.1:3\"  # from the flag --listen",
        "publish = [\"one\", \"two\"]  # from the environment variable MUNIMENT_PUBLISH",
        "bytes = \"2 MiB\"  # from the environment variable MUNIMENT_FLUSH__BYTES",
        "batches = 7  # from muniment.toml",
        "age = \"2min\"",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn what_is_printed_can_be_read_again() {
    let place = Place::new();
    place.write("again.toml", &place.succeed(&["config", "--data", "x"]));
    let again = place.succeed(&["config", "--config", "again.toml"]);
    assert!(again.contains("publish = [\"x-checkpoints\"]  # from again.toml"), "{again}");
}
