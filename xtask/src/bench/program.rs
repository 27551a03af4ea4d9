//! The measured program: running its commands, its server, and watching its memory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::http::{Client, Door};
use crate::error::{Context, Error, Result};
use crate::process::{cargo, run, target};

/// The binary `muniment`, built for release.
pub struct Program {
    path: PathBuf,
}

/// How a command went.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    pub seconds: f64,
    /// Most memory it had resident, in bytes, sampled every few milliseconds.
    pub peak_memory: u64,
}

impl Program {
    /// Builds it, unless told that it is there.
    pub fn build(skip: bool) -> Result<Self> {
        if !skip {
            run(cargo().args(["build", "--release", "--package", "muniment-cli"]))?;
        }
        let path = target().join("release/muniment");
        if path.exists() { Ok(Self { path }) } else { Err(Error::new(format!("there is no {}", path.display()))) }
    }

    fn command(&self, data: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--data").arg(data).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, quietly; its output is shown only when it fails.
    pub fn run(&self, data: &Path, arguments: &[&str]) -> Result<Ran> {
        let what = || format!("muniment {}", arguments.join(" "));
        let log = data.with_extension("log");
        let file = std::fs::File::create(&log).context(|| format!("cannot create {}", log.display()))?;
        let copy = file.try_clone().context(what)?;
        let start = Instant::now();
        let mut child = self.command(data, arguments).stdout(file).stderr(copy).spawn().context(what)?;
        let mut peak_memory = 0;
        let status = loop {
            if let Some(status) = child.try_wait().context(what)? {
                break status;
            }
            peak_memory = peak_memory.max(memory(child.id()).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(5));
        };
        let seconds = start.elapsed().as_secs_f64();
        if status.success() {
            return Ok(Ran { seconds, peak_memory });
        }
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let from = said.char_indices().rev().nth(2_000).map_or(0, |(at, _)| at);
        Err(Error::new(format!("`{}` failed: {status}\n{}", what(), &said[from..])))
    }

    /// Starts a server on a free port and waits until it is ready.
    pub fn serve(&self, data: &Path) -> Result<Server> {
        self.start(data, None, true)
    }

    /// The same without asking for keys.
    pub fn serve_open(&self, data: &Path) -> Result<Server> {
        self.start(data, None, false)
    }

    /// The same with a niceness, so that the system prefers other processes.
    pub fn serve_with(&self, data: &Path, niceness: Option<i32>) -> Result<Server> {
        self.start(data, niceness, true)
    }

    fn start(&self, data: &Path, niceness: Option<i32>, keys: bool) -> Result<Server> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.context(|| "no free port on the loopback address")?;
        let log = data.with_extension("serve.log");
        let file = std::fs::File::create(&log).context(|| format!("cannot create {}", log.display()))?;
        let copy = file.try_clone().context(|| "cannot share a log file")?;
        let start = Instant::now();
        // As a service manager would start it: in a session of its own, for Linux shares processors among sessions (`autogroup`) before it looks at niceness.
        let mut command = Command::new("setsid");
        if let Some(niceness) = niceness {
            let hold = "echo \"$0\" > /proc/self/autogroup 2>/dev/null; exec nice -n \"$0\" \"$@\"";
            command.args(["sh", "-c", hold, &niceness.to_string()]);
        }
        command.arg(&self.path);
        let child = command
            .arg("--data")
            .arg(data)
            .args(["--listen", &address.to_string(), "--access", if keys { "keys" } else { "open" }, "serve"])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .context(|| "cannot start `muniment serve`")?;
        let mut server = Server { child, door: Door { address, key: None }, ready_after: Duration::ZERO };
        loop {
            let answer = Client::connect(&server.door).and_then(|mut client| client.get("/readyz", "*/*"));
            if answer.is_ok_and(|answer| answer.status == 200) {
                server.ready_after = start.elapsed();
                if keys {
                    server.door.key = Some(new_key(&server.door, data)?);
                }
                return Ok(server);
            }
            let ended = server.child.try_wait().context(|| "cannot watch `muniment serve`")?;
            if ended.is_some() || start.elapsed() > Duration::from_secs(120) {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(Error::new(format!("`muniment serve` did not become ready\n{said}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A key that sends and reads, made with the administrator's, which the first start leaves in the data folder.
fn new_key(door: &Door, data: &Path) -> Result<String> {
    let path = data.join("administrator.key");
    let start = Instant::now();
    let administrator = loop {
        match std::fs::read_to_string(&path) {
            Ok(key) if key.ends_with('\n') => break key.trim().to_owned(),
            outcome if start.elapsed() > Duration::from_secs(30) => {
                outcome.context(|| format!("cannot read {}", path.display()))?;
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let door = Door { key: Some(administrator), ..door.clone() };
    let wish = br#"{"name": "benchmark", "roles": ["ingest", "auditor", "administrator"]}"#;
    let answer = Client::connect(&door)?.post("/api/v1/access/keys", "application/json", "application/json", wish)?;
    let created: serde_json::Value = serde_json::from_slice(&answer.ok("making a key")?).context(|| "not the answer of a new key")?;
    created["key"].as_str().map(str::to_owned).ok_or_else(|| Error::new("a new key without the key"))
}

/// A running server; stopped when dropped.
pub struct Server {
    child: Child,
    pub door: Door,
    /// From the start of the process to the first good `/readyz`.
    pub ready_after: Duration,
}

impl Server {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Most memory it has had resident, in bytes.
    pub fn peak_memory(&self) -> u64 {
        memory(self.child.id()).unwrap_or(0)
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(mut self) -> Result<()> {
        let signal = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        signal.context(|| "cannot signal the server")?;
        let start = Instant::now();
        while self.child.try_wait().context(|| "cannot watch the server")?.is_none() {
            if start.elapsed() > Duration::from_secs(120) {
                return Err(Error::new("the server did not stop within two minutes"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The peak resident memory of a process in bytes (`VmHWM`); none once it has ended.
fn memory(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kibibytes.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1_024)
}

/// Bytes of all files in a folder, deep; 0 where there is none.
pub fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
