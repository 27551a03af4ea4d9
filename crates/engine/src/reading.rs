//! Reading is on the record (P9): who read what, how much they were given, from where and why, as records of `security_audit_log` with the category `DATA_ACCESS`.
//!
//! A door calls [`Engine::record_reading`] before it lets go of an answer: what was answered is on the record, whatever happens next. Readings that arrive together
//! share one request to store them, so that many readers cost little more than one. If they can't be stored, the answer is not given: a limit slows readers down, and
//! nothing is read unseen. What Muniment asks itself goes through no door and is not recorded; so recording does not record itself.

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ingest::IngestRequest;
use bytes::Bytes;
use muniment_access::Action;
use muniment_model::Format;
use serde_json::{Map, Value, json};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// The log that readings go to.
const LOG: &str = "security_audit_log";
/// Readings that may wait to be stored.
const WAITING: usize = 1024;
/// Readings stored by one request.
const AT_ONCE: usize = 256;
/// Time that a reading waits for its place among those.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters of a question that are kept, of its beginning and its end.
const ASKED_CHARS: usize = 8000;

/// Who asks at a door, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// `users.id`.
    pub user_id: Option<i64>,
    /// Name of the user or key.
    pub username: String,
    /// `api_keys.id`.
    pub key_id: Option<i64>,
    /// Session of the console.
    pub session_id: Option<String>,
    /// Address it came from.
    pub ip_address: String,
    /// Program it came from.
    pub user_agent: Option<String>,
    /// Method of the HTTP request.
    pub method: Option<String>,
    /// Path of the HTTP request.
    pub path: Option<String>,
    /// Why, as far as it was said.
    pub reason: Option<String>,
    /// The grant under which contents were in clear.
    pub unmasking: Option<i64>,
}

/// What became of a request to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered in full.
    Answered,
    /// It is being answered; another record will say how much.
    Begun,
    /// The client went away, or the answer broke off, after what is counted.
    CutShort(String),
    /// It could not be answered.
    Failed(String),
    /// It was not allowed.
    Refused(String),
}

/// One request to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Who.
    pub asker: Asker,
    /// What it takes.
    pub action: Action,
    /// What was reached for: a log, an entity, a proof.
    pub resource: String,
    /// What was asked: a statement with its parameters, the bounds of a history.
    pub asked: Value,
    /// Rows or records answered.
    pub rows: u64,
    /// Bytes answered.
    pub bytes: u64,
    /// What became of it.
    pub outcome: Outcome,
}

struct Entry {
    line: String,
    stored: oneshot::Sender<Result<()>>,
}

/// The way of readings into the log.
#[derive(Debug)]
pub(crate) struct Readings(mpsc::Sender<Entry>);

impl Readings {
    /// The queue, and what is to empty it once there is an engine.
    pub(crate) fn new() -> (Self, ReadingQueue) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), ReadingQueue(receiver))
    }
}

pub(crate) struct ReadingQueue(mpsc::Receiver<Entry>);

impl ReadingQueue {
    /// Stores readings until the engine is gone or stops.
    pub(crate) fn start(mut self, engine: &Arc<Engine>) -> JoinHandle<()> {
        let (engine, mut stopping) = (Arc::downgrade(engine), engine.stopping());
        tokio::spawn(async move {
            loop {
                let mut entries = Vec::new();
                tokio::select! {
                    taken = self.0.recv_many(&mut entries, AT_ONCE) => if taken == 0 { return },
                    _ = stopping.wait_for(|stop| *stop) => return,
                }
                store(&engine, entries).await;
            }
        })
    }
}

async fn store(engine: &Weak<Engine>, entries: Vec<Entry>) {
    let body: String = entries.iter().map(|entry| entry.line.as_str()).collect();
    let nothing = body.is_empty();
    let request = IngestRequest { log: LOG, body: Bytes::from(body), format: Format::Ndjson, idempotency_key: None, position: None };
    let outcome = match engine.upgrade() {
        Some(_) if nothing => Ok(()),
        Some(engine) => engine.ingest(request).await.map(drop),
        None => Err(EngineError::Stopped),
    };
    if let Err(error) = &outcome {
        tracing::error!(
            error = error as &dyn std::error::Error,
            readings = entries.len(),
            "readings can't be recorded, so they are refused"
        );
    }
    for entry in entries {
        let told = match &outcome {
            Ok(()) => Ok(()),
            Err(EngineError::Stopped) => Err(EngineError::Stopped),
            Err(_) => Err(EngineError::Busy { reason: "what is read can't be recorded", retry_after: 1 }),
        };
        let _ = entry.stored.send(told);
    }
}

impl Engine {
    /// Puts a reading on the record. When this returns without an error, it is durable.
    ///
    /// # Errors
    /// [`EngineError::Busy`] or [`EngineError::Stopped`] if it can't be recorded: then nothing of what was read may be given out.
    pub async fn record_reading(&self, reading: &Reading) -> Result<()> {
        self.queue_reading(line(reading)).await
    }

    /// Waits until the readings of those who did not wait are stored.
    pub(crate) async fn finish_readings(&self) -> Result<()> {
        self.queue_reading(String::new()).await
    }

    async fn queue_reading(&self, line: String) -> Result<()> {
        let busy = EngineError::Busy { reason: "too many readings wait to be recorded", retry_after: 1 };
        let (stored, recorded) = oneshot::channel();
        let entry = Entry { line, stored };
        match tokio::time::timeout(PATIENCE, self.readings().0.send(entry)).await {
            Ok(Ok(())) => recorded.await.map_err(|_| EngineError::Stopped)?,
            Ok(Err(_)) => Err(EngineError::Stopped),
            Err(_) => Err(busy),
        }
    }
}

/// The reading as a line for the log.
fn line(reading: &Reading) -> String {
    let Reading { asker, action, resource, asked, rows, bytes, outcome } = reading;
    let (event, severity, failure) = match outcome {
        Outcome::Refused(why) => ("ACCESS_DENIED", 2, Some(why)),
        Outcome::Failed(why) | Outcome::CutShort(why) => (event_of(*action), 1, Some(why)),
        Outcome::Answered | Outcome::Begun => (event_of(*action), 1, None),
    };
    let mut details = Map::new();
    details.insert("asked".to_owned(), limited(asked));
    if !matches!(outcome, Outcome::Refused(_) | Outcome::Begun) {
        details.insert("rows".to_owned(), json!(rows));
        details.insert("bytes".to_owned(), json!(bytes));
    }
    let complete = match outcome {
        Outcome::Begun => Some("begun"),
        Outcome::CutShort(_) => Some("cut short"),
        _ => None,
    };
    let more = [
        ("answer", complete.map(Value::from)),
        ("reason", asker.reason.as_deref().map(Value::from)),
        ("api_key_id", asker.key_id.map(Value::from)),
        ("unmasking", asker.unmasking.map(Value::from)),
    ];
    details.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let record = json!({
        "event_type": event,
        "event_category": "DATA_ACCESS",
        "severity": severity,
        "user_id": asker.user_id,
        "username": cut(&asker.username, 100),
        "session_id": asker.session_id.as_deref().map(|id| cut(id, 128)),
        "ip_address": asker.ip_address,
        "user_agent": asker.user_agent.as_deref().map(|agent| cut(agent, 1000)),
        "request_path": asker.path.as_deref().map(|path| cut(path, 500)),
        "http_method": asker.method.as_deref().map(|method| cut(method, 10)),
        "resource_accessed": cut(resource, 500),
        "permission_checked": action.name(),
        "access_granted": !matches!(outcome, Outcome::Refused(_)),
        "failure_reason": failure.map(|why| cut(why, 1000)),
        "details": details,
    });
    format!("{record}\n")
}

fn event_of(action: Action) -> &'static str {
    match action {
        Action::Export => "DATA_EXPORT",
        Action::Verify => "DATA_VERIFY",
        Action::RequestUnmasking => "UNMASKING_REQUEST",
        Action::ApproveUnmasking => "UNMASKING_DECISION",
        _ => "DATA_READ",
    }
}

/// Text of at most so many characters that a log may hold.
fn cut(text: &str, chars: usize) -> String {
    let clean = text.chars().map(|c| if c == '\0' { '\u{fffd}' } else { c });
    if text.chars().count() <= chars { clean.collect() } else { clean.take(chars - 1).chain(['…']).collect() }
}

/// The question with its long texts cut, at their middle: a question is known by its beginning and its end.
fn limited(asked: &Value) -> Value {
    match asked {
        Value::String(text) => {
            let count = text.chars().count();
            let clean = |part: String| part.replace('\0', "\u{fffd}");
            if count <= ASKED_CHARS {
                return Value::from(clean(text.clone()));
            }
            let half = ASKED_CHARS / 2;
            let (head, tail): (String, String) = (text.chars().take(half).collect(), text.chars().skip(count - half).collect());
            Value::from(clean(format!("{head} … {} characters … {tail}", count - ASKED_CHARS)))
        }
        Value::Array(values) => Value::from(values.iter().take(100).map(limited).collect::<Vec<_>>()),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), limited(value))).collect::<Map<_, _>>().into(),
        value => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_reading_is_a_valid_record_however_long_what_was_asked() {
        let long = "ä\u{0}".repeat(100_000);
        for outcome in [
            Outcome::Answered,
            Outcome::Begun,
            Outcome::CutShort(long.clone()),
            Outcome::Failed(long.clone()),
            Outcome::Refused(long.clone()),
        ] {
            let asker = Asker {
                username: long.clone(),
                ip_address: "::1".to_owned(),
                user_agent: Some(long.clone()),
                path: Some(long.clone()),
                reason: Some("audit of case 17".to_owned()),
                ..Asker::default()
            };
            let asked = json!({"query": long, "parameters": vec![long.clone(); 3]});
            let reading = Reading { asker, action: Action::Read, resource: long.clone(), asked, rows: 1, bytes: 2, outcome };
            let mut uuid = || [0; 16];
            let mut options = muniment_model::ParseOptions {
                now: 0,
                format: Format::Ndjson,
                limits: muniment_model::Limits::default(),
                uuid: &mut uuid,
                retention_years: None,
                users: None,
            };
            let table = muniment_model::table(LOG).unwrap();
            let parsed = muniment_model::parse(table, line(&reading).as_bytes(), &mut options);
            assert_eq!(parsed.unwrap().records, 1);
        }
    }
}
