//! A real `muniment serve` in a process of its own, and a small HTTP client that keeps its connection.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared by several tests; a failed step is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub fn muniment() -> Command {
    Command::new(env!("CARGO_BIN_EXE_muniment"))
}

/// A server process; killed with SIGKILL when dropped.
pub struct ServerProcess {
    pub child: Child,
    pub address: String,
    pub data: PathBuf,
}

impl ServerProcess {
    /// Starts a server on a free port and waits until it is ready.
    pub fn start(data: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = muniment();
        command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0", "--log-level", "warn", "--access", "open", "serve"]);
        Self::spawn(command, data, settings)
    }

    /// Starts a server with the given command.
    pub fn spawn(mut command: Command, data: &Path, settings: &[(&str, &str)]) -> Self {
        let ready = data.join("server.json");
        let _ = std::fs::remove_file(&ready);
        for (key, value) in settings {
            command.env(key, value);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let began = Instant::now();
        loop {
            if let Some(address) = address_in(&ready)
                && let Ok((200, _)) = Client::new(&address).request("GET", "/readyz", "", &[])
            {
                return Self { child, address, data: data.to_owned() };
            }
            assert!(child.try_wait().unwrap().is_none(), "the server ended at start");
            assert!(began.elapsed() < Duration::from_secs(60), "the server does not get ready");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, now.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for an orderly end.
    pub fn stop(mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(self.child.wait().unwrap().success(), "an orderly end");
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn address_in(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let url = text.split('"').find(|part| part.starts_with("http://"))?;
    Some(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}

/// One kept connection.
pub struct Client {
    address: String,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), connection: None }
    }

    /// Sends a request; answers status and body.
    pub fn request(&mut self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> std::io::Result<(u16, String)> {
        let outcome = self.exchange(method, path, body, headers);
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> std::io::Result<(u16, String)> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.set_nodelay(true)?;
            self.connection = Some(BufReader::new(stream));
        }
        let Some(connection) = &mut self.connection else { return Err(std::io::ErrorKind::NotConnected.into()) };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", self.address, body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        connection.get_mut().write_all(format!("{head}\r\n{body}").as_bytes())?;
        read_answer(connection)
    }
}

fn read_answer(connection: &mut BufReader<TcpStream>) -> std::io::Result<(u16, String)> {
    let mut line = String::new();
    let mut next = |connection: &mut BufReader<TcpStream>| {
        line.clear();
        match connection.read_line(&mut line) {
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(error),
        }
    };
    let status = next(connection)?.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    let (mut length, mut chunked) = (0, false);
    loop {
        let header = next(connection)?.to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    while chunked {
        let size = usize::from_str_radix(&next(connection)?, 16).unwrap();
        let start = body.len();
        body.resize(start + size, 0);
        connection.read_exact(&mut body[start..])?;
        next(connection)?;
        chunked = size > 0;
    }
    Ok((status, String::from_utf8(body).unwrap()))
}

/// Runs a query on a data folder with the command line; answers the lines of its CSV without the header.
pub fn query(data: &Path, sql: &str) -> Vec<String> {
    let output = muniment().arg("--data").arg(data).args(["--log-level", "error", "sql", "--format", "csv", sql]).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().skip(1).map(str::to_owned).collect()
}

/// Verifies a data folder; answers whether it is valid, and what was printed.
pub fn verify(data: &Path) -> (bool, String) {
    let output = muniment().arg("--data").arg(data).args(["--log-level", "error", "verify"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}
