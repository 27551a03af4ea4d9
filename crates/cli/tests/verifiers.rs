//! P5, twice: our verifier and the independent one in Python, written from `docs/format.md` alone, over the same good and damaged bundles. Their verdicts must agree,
//! and where a record is named, on the record.
//!
//! `TEST_PYTHON` names an interpreter that has the packages of `verifier/requirements.txt`; `cargo xtask test` sets it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::muniment;

fn python() -> Option<PathBuf> {
    let interpreter = std::env::var_os("TEST_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let ready = Command::new(&interpreter).args(["-c", "import cbor2, pyarrow, cryptography"]).output();
    ready.is_ok_and(|output| output.status.success()).then_some(interpreter)
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
}

/// A data folder with two logs, several commits, and records in files as well as in hot batches.
fn fill(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let changes: String = (0..2500)
        .map(|n| {
            format!(
                r#"{{"table_name":"case.hoso","operation":"UPDATE","primary_key":"{}","old_values":{{"n":{n}}},"new_values":{{"n":{}}},"changed_by":{}}}"#,
                n % 50,
                n + 1,
                n % 7
            ) + "\n"
        })
        .collect();
    let metrics: String = (0..300)
        .map(|n| format!(r#"{{"metric_name":"queue_depth","metric_category":"DATABASE","metric_value":"{n}.5"}}"#) + "\n")
        .collect();
    for (name, log, text) in [("changes", "sys_audit_log", &changes), ("metrics", "system_performance_log", &metrics)] {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        let (code, text) = run(muniment().arg("--data").arg(&data).args(["ingest", "--log", log]).arg(&file));
        assert_eq!(code, Some(0), "{text}");
        if log == "sys_audit_log" {
            let (code, text) = run(muniment().arg("--data").arg(&data).arg("compact"));
            assert_eq!(code, Some(0), "{text}");
        }
    }
    data
}

fn export(data: &Path, format: &str, out: &Path) -> String {
    let (code, text) = run(muniment().arg("--data").arg(data).args(["export", "--record-format", format, "--out"]).arg(out));
    assert_eq!(code, Some(0), "{text}");
    let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    manifest["vkey"].as_str().unwrap().to_owned()
}

/// Verdict, and stream and index of the first finding if it names a record.
type Said = (String, Option<(String, u64)>);

fn ours(bundle: &Path, key: &str) -> Said {
    let (_, text) = run(muniment().args(["--log-level", "error", "verify", "--json", "--key", key]).arg(bundle));
    let report: Value =
        serde_json::from_str(text.lines().find(|line| line.starts_with('{')).map_or(text.as_str(), |_| text.trim())).unwrap();
    let finding = &report["findings"][0];
    let place = finding["stream"].as_str().zip(finding["first"].as_u64()).map(|(stream, first)| (stream.to_owned(), first));
    (report["verdict"].as_str().unwrap().to_owned(), place)
}

fn theirs(python: &Path, bundle: &Path, key: &str) -> Said {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../verifier/muniment_verify.py");
    let (_, text) = run(Command::new(python).arg(script).arg(bundle).args(["--json", "--key", key]));
    let report: Value = serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let index = report["index"].as_u64().or_else(|| report["first"].as_u64());
    let place = report["stream"].as_str().zip(index).map(|(stream, index)| (stream.to_owned(), index));
    (report["verdict"].as_str().unwrap().to_owned(), place)
}

fn record_file(bundle: &Path) -> PathBuf {
    let folder = bundle.join("streams/sys_audit_log/7y");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.remove(0)
}

fn edit_lines(bundle: &Path, edit: impl FnOnce(&mut Vec<String>)) {
    let file = record_file(bundle);
    let mut lines: Vec<String> = std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    edit(&mut lines);
    std::fs::write(file, lines.join("\n") + "\n").unwrap();
}

/// A kind of damage: name, record format, what is done, the verdict, and the record that is named.
type Damage = (&'static str, &'static str, fn(&Path), &'static str, Option<u64>);

fn replace_in(line: &mut String, from: &str, to: &str) {
    assert!(line.contains(from), "{line}");
    *line = line.replacen(from, to, 1);
}

const DAMAGES: [Damage; 9] = [
    ("a value changed", "ndjson", |b| edit_lines(b, |lines| replace_in(&mut lines[17], "UPDATE", "DELETE")), "altered", Some(17)),
    ("a line removed", "ndjson", |b| edit_lines(b, |lines| drop(lines.remove(40))), "missing", None),
    ("the tail cut", "ndjson", |b| edit_lines(b, |lines| lines.truncate(2000)), "missing", Some(2000)),
    ("two lines swapped", "ndjson", |b| edit_lines(b, |lines| lines.swap(5, 9)), "altered", Some(5)),
    ("a line repeated", "ndjson", |b| edit_lines(b, |lines| lines.insert(8, lines[7].clone())), "altered", Some(8)),
    ("a file removed", "parquet", |b| std::fs::remove_file(record_file(b)).unwrap(), "missing", None),
    (
        "a leaf of the meta-log cut off",
        "parquet",
        |b| {
            let path = b.join("meta.cborseq");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        },
        "malformed",
        None,
    ),
    (
        "a forged checkpoint",
        "parquet",
        |b| {
            let path = b.join("checkpoint");
            let note = std::fs::read_to_string(&path).unwrap();
            let mut lines: Vec<String> = note.lines().map(str::to_owned).collect();
            let size: u64 = lines[1].parse().unwrap();
            lines[1] = (size - 1).to_string();
            std::fs::write(path, lines.join("\n") + "\n").unwrap();
        },
        "forged",
        None,
    ),
    (
        "a byte of a Parquet file",
        "parquet",
        |b| {
            let path = record_file(b);
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
        "",
        None,
    ),
];

#[test]
fn p5_two_verifiers_agree_on_good_and_damaged_bundles() {
    let Some(python) = python() else {
        assert!(std::env::var_os("TEST_PYTHON").is_none(), "TEST_PYTHON has not the packages of verifier/requirements.txt");
        println!("skipped: no Python with the packages of verifier/requirements.txt");
        return;
    };
    let folder = tempfile::TempDir::new().unwrap();
    let data = fill(folder.path());
    for format in ["parquet", "ndjson"] {
        let bundle = folder.path().join(format!("good-{format}"));
        let key = export(&data, format, &bundle);
        assert_eq!(ours(&bundle, &key), ("valid".to_owned(), None), "{format}");
        assert_eq!(theirs(&python, &bundle, &key), ("valid".to_owned(), None), "{format}");
    }
    for (n, (what, format, damage, verdict, index)) in DAMAGES.into_iter().enumerate() {
        let bundle = folder.path().join(format!("damaged-{n}"));
        let key = export(&data, format, &bundle);
        damage(&bundle);
        let (ours, theirs) = (ours(&bundle, &key), theirs(&python, &bundle, &key));
        println!("{what}: ours {ours:?}, theirs {theirs:?}");
        assert_eq!(ours.0, theirs.0, "{what}: {ours:?} {theirs:?}");
        assert_ne!(ours.0, "valid", "{what}");
        if !verdict.is_empty() {
            assert_eq!(ours.0, verdict, "{what}: {ours:?}");
        }
        if let Some(index) = index {
            let place = Some(("sys_audit_log/7y".to_owned(), index));
            assert_eq!((&ours.1, &theirs.1), (&place, &place), "{what}");
        }
    }
}
