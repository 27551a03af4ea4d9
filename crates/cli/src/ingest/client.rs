//! A small HTTP client for a Muniment server: it waits when the server asks it to, and tries again when the server can't be reached.

use crate::error::{CliError, Result};
use muniment_model::LineError;
use serde_json::Value;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_rustls::rustls::crypto::ring::default_provider;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Time to connect, and time until an answer begins.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(300);
/// Longest pause that a server's Retry-After is followed for.
const LONGEST_PAUSE: u64 = 60;
/// Pauses before further attempts to reach a server.
const PAUSES: [Duration; 5] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5), Duration::from_secs(10)];
/// Most bytes of an answer.
const ANSWER_BYTES: u64 = 16 << 20;

/// Holds the key to show, if no file is named.
const KEY_VARIABLE: &str = "MUNIMENT_KEY";
/// Names a file with the authorities to trust.
const CA_VARIABLE: &str = "MUNIMENT_CA";

/// The key that this process shows to servers: given once, on its command line or in its environment.
static KEY: OnceLock<String> = OnceLock::new();

/// Takes the key to show from a file or, without one, from the environment.
///
/// # Errors
/// If the file can't be read or what is given is no key.
pub fn show_key(file: Option<&Path>) -> Result<()> {
    let given = match file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(CliError::file("reading", path))?),
        None => std::env::var(KEY_VARIABLE).ok(),
    };
    let Some(key) = given.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()) else { return Ok(()) };
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CliError::Usage("the key has other characters than a key has".to_owned()));
    }
    // Only the first one counts, and there is only one.
    let _ = KEY.set(key);
    Ok(())
}

/// The authorities to trust: named once, on the command line or in the environment.
static AUTHORITIES: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();

/// Takes the authorities to trust from a file, in place of those of the web.
///
/// # Errors
/// If the file can't be read or has no certificate.
pub fn trust(file: Option<&Path>) -> Result<()> {
    let Some(path) = file.map(Path::to_owned).or_else(|| std::env::var_os(CA_VARIABLE).map(PathBuf::from)) else { return Ok(()) };
    let pem = std::fs::read(&path).map_err(CliError::file("reading", &path))?;
    let certificate = |item| if let Ok(PemItem::Certificate(certificate)) = item { Some(certificate) } else { None };
    let found: Vec<Certificate<'static>> = parse_pem(&pem).filter_map(certificate).collect();
    if found.is_empty() {
        return Err(CliError::Usage(format!("{} has no certificate", path.display())));
    }
    let _ = AUTHORITIES.set(found);
    Ok(())
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
    reason: Option<String>,
}

struct Answer {
    status: u16,
    retry_after: Option<u64>,
    replayed: bool,
    text: String,
}

impl Client {
    /// A client of the server at this URL.
    pub fn new(url: &str) -> Self {
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(default_provider()));
        if let Some(authorities) = AUTHORITIES.get() {
            tls = tls.root_certs(RootCerts::new_with_certs(authorities));
        }
        let config = ureq::Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .user_agent(concat!("muniment/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), url: url.trim_end_matches('/').to_owned(), reason: None }
    }

    /// The same, saying why it asks.
    pub fn with_reason(self, reason: Option<String>) -> Self {
        Self { reason, ..self }
    }

    /// The header that says who asks.
    fn authorization() -> Option<String> {
        KEY.get().map(|key| format!("Bearer {key}"))
    }

    /// Posts nothing to a path and returns the answer. Not repeated: the server may have done it.
    pub fn post(&self, path: &str) -> Result<Value> {
        self.outcome(path, self.once(path, &[], &[]).map_err(|error| self.unreachable(error))?)
    }

    /// Posts a body, again and again while the server is busy or can't be reached. Only for requests that may be repeated.
    ///
    /// Returns the answer, and whether it is a repeated one: the server had stored the records before.
    pub fn post_until_answered(&self, path: &str, headers: &[(&str, String)], body: &[u8]) -> Result<(Value, bool)> {
        let mut pauses = PAUSES.iter();
        loop {
            match self.once(path, headers, body) {
                Ok(answer) if matches!(answer.status, 429 | 503) => {
                    let pause = answer.retry_after.unwrap_or(1).clamp(1, LONGEST_PAUSE);
                    tracing::info!(status = answer.status, seconds = pause, "the server asks to wait");
                    std::thread::sleep(Duration::from_secs(pause));
                }
                Ok(answer) => {
                    let replayed = answer.replayed;
                    return Ok((self.outcome(path, answer)?, replayed));
                }
                Err(error) => match pauses.next() {
                    Some(pause) => {
                        tracing::warn!(url = self.url, %error, "the server can't be reached; trying again");
                        std::thread::sleep(*pause);
                    }
                    None => return Err(self.unreachable(error)),
                },
            }
        }
    }

    /// Sends a request of any method, with a JSON body if there is one. Not repeated: the server may have done it.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let kind = body.map(|_| "application/json");
        self.send(method, path, kind, body.map(Value::to_string).unwrap_or_default().into_bytes())
    }

    /// Posts a file of some media type. Not repeated: the server may have taken it.
    pub fn send_file(&self, path: &str, kind: &str, contents: &[u8]) -> Result<Value> {
        self.send("POST", path, Some(kind), contents.to_vec())
    }

    fn send(&self, method: &str, path: &str, kind: Option<&str>, body: Vec<u8>) -> Result<Value> {
        let failed = |error| self.unreachable(error);
        let url = format!("{}{path}", self.url);
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        if let Some(value) = Self::authorization() {
            request = request.header("authorization", value);
        }
        if let Some(reason) = &self.reason {
            request = request.header("muniment-reason", reason.as_bytes());
        }
        let request = request.body(body).map_err(|error| failed(error.into()))?;
        let mut response = self.agent.run(request).map_err(failed)?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().map_err(failed)?;
        self.outcome(path, Answer { status, retry_after: None, replayed: false, text })
    }

    /// Posts a JSON body and hands out the answer's lines of JSON as they come. Not repeated.
    pub fn ask_lines(&self, path: &str, body: &Value, mut each: impl FnMut(Value) -> Result<()>) -> Result<()> {
        let failed = |error| self.unreachable(error);
        let request = self.agent.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        let request = Self::authorization().into_iter().fold(request, |request, value| request.header("authorization", value));
        let mut response = request.send(body.to_string()).map_err(failed)?;
        let status = response.status().as_u16();
        if !(200..300).contains(&status) {
            let text = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().map_err(failed)?;
            return self.outcome(path, Answer { status, retry_after: None, replayed: false, text }).map(drop);
        }
        // Each line is limited, not the answer.
        let mut lines = std::io::BufReader::new(response.body_mut().with_config().limit(u64::MAX).reader());
        loop {
            let mut line = Vec::new();
            let read = std::io::Read::take(&mut lines, ANSWER_BYTES).read_until(b'\n', &mut line).map_err(|error| failed(error.into()))?;
            if read == 0 {
                return Ok(());
            }
            let strange = |error| CliError::Usage(format!("{} answered something else than expected: {error}", self.url));
            each(serde_json::from_slice(&line).map_err(strange)?)?;
        }
    }

    fn once(&self, path: &str, headers: &[(&str, String)], body: &[u8]) -> Result<Answer, ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let request = Self::authorization().into_iter().fold(request, |request, value| request.header("authorization", value));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let mut response = request.send(body)?;
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let replayed = response.headers().contains_key("idempotent-replayed");
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_string()?;
        Ok(Answer { status, retry_after, replayed, text })
    }

    fn unreachable(&self, error: ureq::Error) -> CliError {
        CliError::Unreachable { url: self.url.clone(), source: Box::new(error) }
    }

    fn outcome(&self, path: &str, answer: Answer) -> Result<Value> {
        let body: Value = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
        if (200..300).contains(&answer.status) {
            return Ok(body);
        }
        let lines: Vec<LineError> = body["errors"].as_array().map(|errors| errors.iter().map(line_error).collect()).unwrap_or_default();
        if answer.status == 422 && !lines.is_empty() {
            let total = body["total"].as_u64().map_or(lines.len(), |total| total as usize);
            return Err(CliError::Records { total, lines });
        }
        let message = body["error"]["message"].as_str().map_or(answer.text.as_str(), |message| message).trim().to_owned();
        let hint = match answer.status {
            401 if KEY.get().is_none() => format!("; give a key with --key-file or in {KEY_VARIABLE}"),
            _ => String::new(),
        };
        Err(CliError::Answer { url: format!("{}{path}", self.url), status: answer.status, message: message + &hint })
    }
}

fn line_error(error: &Value) -> LineError {
    LineError {
        line: error["line"].as_u64().unwrap_or_default(),
        field: error["field"].as_str().map(str::to_owned),
        reason: error["reason"].as_str().unwrap_or_default().to_owned(),
    }
}

/// Percent-encodes all but letters and digits.
pub fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}
