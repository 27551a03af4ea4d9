//! A real service on a free port with a data folder of its own, and a client that can also do what no proper client does.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use muniment_engine::{Engine, EngineConfig};
use muniment_server::{AccessMode, Server, ServerConfig, ServerError};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A log whose records need little.
pub const LOG: &str = "/api/v1/logs/sys_audit_log";

/// A change event with this key.
pub fn event(key: impl std::fmt::Display) -> String {
    format!(r#"{{"table_name":"case.hoso","primary_key":"{key}","operation":"INSERT","new_values":{{"n":"{key}"}}}}"#)
}

pub struct Service {
    pub engine: Arc<Engine>,
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), ServerError>>,
    _folder: TempDir,
}

impl Service {
    pub async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut EngineConfig, &mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = EngineConfig::new(folder.path().join("data"));
        let mut server = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), access: AccessMode::Open, ..ServerConfig::default() };
        change(&mut engine, &mut server);
        let engine = Engine::open(engine).await.unwrap();
        let server = Server::bind(engine.clone(), server).await.unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async move {
            let _ = stopped.await;
        }));
        Self { engine, address, stop: Some(stop), serving, _folder: folder }
    }

    /// Begins the shutdown; returns what ends with it.
    pub fn stop(&mut self) -> &mut JoinHandle<Result<(), ServerError>> {
        let _ = self.stop.take().unwrap().send(());
        &mut self.serving
    }

    pub async fn connect(&self) -> Connection {
        Connection { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    /// Sends a request with a body on a connection of its own.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut connection = self.connect().await;
        connection.send(method, path, headers, body).await;
        connection.answer().await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        self.send("POST", path, headers, body.as_ref()).await
    }

    pub async fn sql(&self, query: &str) -> Value {
        let answer = self.post("/api/v1/sql", &[], serde_json::json!({ "query": query }).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Records in the audit log.
    pub async fn count(&self) -> i64 {
        self.sql("SELECT count(*) AS n FROM sys_audit_log").await[0]["n"].as_i64().unwrap()
    }

    /// Memory that requests under way hold.
    pub async fn memory(&self) -> i64 {
        let metrics = self.get("/metrics").await.text();
        let line = metrics.lines().find(|line| line.starts_with("muniment_ingest_memory_bytes ")).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

pub struct Connection {
    pub stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Status and code of an error answer.
    pub fn refusal(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        let body = self.json();
        let text = |name: &str| body["error"][name].as_str().unwrap_or_else(|| panic!("no {name}: {}", self.text())).to_owned();
        assert!(!text("message").is_empty());
        (self.status, text("code"))
    }
}

impl Connection {
    pub async fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        // The service may answer and close before it has read everything.
        let _ = self.stream.write_all(&request).await;
    }

    /// Reads more; `false` at the end.
    async fn more(&mut self) -> bool {
        let mut buffer = [0; 16384];
        let read = tokio::time::timeout(Duration::from_secs(60), self.stream.read(&mut buffer)).await.expect("an answer in time");
        let read = read.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..read]);
        read > 0
    }

    /// Whether the service closes the connection without another byte.
    pub async fn is_closed(&mut self) -> bool {
        !self.more().await
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn take(&mut self, bytes: usize, into: &mut Vec<u8>) -> bool {
        while self.read.len() < bytes {
            if !self.more().await {
                into.append(&mut self.read);
                return false;
            }
        }
        into.extend(self.read.drain(..bytes));
        true
    }

    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer")
    }

    /// The next answer; `None` if the connection ends before.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        let status = self.line().await?.split(' ').nth(1)?.parse().unwrap();
        let mut answer = Answer { status, headers: Vec::new(), body: Vec::new(), complete: false };
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
        if status == 100 {
            return Box::pin(self.try_answer()).await;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(size) = self.line().await {
                let size = usize::from_str_radix(&size, 16).unwrap();
                let whole = self.take(size, &mut answer.body).await && self.line().await.is_some();
                if !whole || size == 0 {
                    answer.complete = whole;
                    break;
                }
            }
        } else {
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            answer.complete = self.take(length, &mut answer.body).await;
        }
        Some(answer)
    }
}

impl Answer {
    /// The code if this is an error answer.
    pub fn refusal_code(&self) -> Option<String> {
        (self.status >= 400 && self.header("content-type") == Some("application/json")).then(|| self.refusal().1)
    }
}
