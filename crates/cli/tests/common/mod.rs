//! The real binary in a folder of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, dead_code, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder to work in.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A command in this folder that sees no configuration but what the test gives.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muniment"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MUNIMENT_")) {
            command.env_remove(name);
        }
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code and standard error of a command.
    pub fn fail(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// The one number that a question is answered with.
    pub fn number(&self, query: &str) -> u64 {
        let csv = self.succeed(&["sql", "--format", "csv", query]);
        csv.lines().nth(1).unwrap().parse().unwrap()
    }
}

/// A server that is ended with the test.
pub struct Running {
    pub child: Child,
    pub url: String,
    pub key: String,
}

impl Running {
    /// Starts `serve` or `demo` and waits until it says where it is. Access is open unless the arguments say otherwise.
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        let open: &[&str] = if arguments.contains(&"--access") { &[] } else { &["--access", "open"] };
        let mut child = place
            .command(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .args(open)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let url = lines.next().unwrap().rsplit(' ').next().unwrap().to_owned();
        let key = lines.next().unwrap().rsplit(' ').next().unwrap().to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, key }
    }

    /// Sends a signal that asks to stop; returns the exit code.
    pub fn stop(mut self) -> i32 {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the server does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Posts a body and returns status and answer.
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        let mut response = request.send(body).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of change events, one a line, each with its number as reason.
pub fn changes(path: &Path, numbers: std::ops::Range<usize>) {
    let mut file = std::io::BufWriter::new(std::fs::File::options().create(true).append(true).open(path).unwrap());
    let filling = "x".repeat(150);
    for number in numbers {
        let (before, after) = (format!(r#"{{"n":{number},"s":"{filling}"}}"#), format!(r#"{{"n":{},"s":"{filling}"}}"#, number + 1));
        writeln!(
            file,
            r#"{{"table_name":"case.hoso","operation":"UPDATE","primary_key":"{}","old_values":{before},"new_values":{after},"changed_by":{},"change_reason":"{number}"}}"#,
            number % 1000,
            number % 40 + 1
        )
        .unwrap();
    }
}
