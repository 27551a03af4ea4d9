//! Requests to Muniment's own API as records of `api_access_log`, if the configuration asks for it. They are gathered for a moment and stored together; when too many
//! wait, requests wait, too. A kill loses those of the last moment: what must not be lost, who has read what, is recorded elsewhere before it is answered.

use crate::engine::Engine;
use crate::error::EngineError;
use crate::ingest::IngestRequest;
use muniment_model::Format;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Requests that may wait to be stored.
const WAITING: usize = 4096;
/// Requests stored together at most.
const BATCH: usize = 1000;
/// Time for which they are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// Pause while a limit is reached.
const PAUSE: Duration = Duration::from_secs(1);

/// A request to Muniment's own API, with the names of `api_access_log`.
#[derive(Clone, Debug, Serialize)]
pub struct OwnRequest {
    /// Who, if it is a user.
    pub user_id: Option<i64>,
    /// Method.
    pub method: String,
    /// The path as the API describes it.
    pub endpoint: String,
    /// Status of the answer.
    pub response_status: u16,
    /// Time to the beginning of the answer, milliseconds.
    pub response_time_ms: u32,
    /// Bytes of the answer, if known when it began.
    pub bytes_sent: u64,
    /// Bytes of the request's body, if it said so.
    pub bytes_received: u64,
    /// Address it came from.
    pub ip_address: Option<String>,
    /// Program it came from.
    pub user_agent: Option<String>,
    /// Number of the key it came with.
    pub api_key_id: Option<String>,
    /// Calls left by the tightest limit.
    pub rate_limit_remaining: Option<i64>,
    /// When it came, µs UTC.
    pub created_at: i64,
}

/// Takes requests on their way to the log.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Option<(mpsc::Sender<OwnRequest>, JoinHandle<()>)>>);

impl Recorder {
    /// Starts to record.
    pub(crate) fn start(&self, engine: &Arc<Engine>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let task = tokio::spawn(run(Arc::downgrade(engine), receiver));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((sender, task));
    }

    /// Stores what waits, and records no more.
    pub(crate) async fn stop(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, task)) = running {
            drop(sender);
            let _ = task.await;
        }
    }

    fn sender(&self) -> Option<mpsc::Sender<OwnRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(sender, _)| sender.clone())
    }
}

impl Engine {
    /// Whether requests to Muniment's own API are recorded.
    pub fn records_requests(&self) -> bool {
        self.requests.sender().is_some()
    }

    /// Records a request, if the configuration asks for it. Waits while too many wait to be stored.
    pub async fn record_request(&self, request: OwnRequest) {
        if let Some(sender) = self.requests.sender() {
            // It fails only once the engine stops.
            let _ = sender.send(request).await;
        }
    }
}

async fn run(weak: Weak<Engine>, mut receiver: mpsc::Receiver<OwnRequest>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut waiting, BATCH).await > 0 {
        if waiting.len() < BATCH && !receiver.is_closed() {
            tokio::time::sleep(GATHER).await;
            while waiting.len() < BATCH
                && let Ok(next) = receiver.try_recv()
            {
                waiting.push(next);
            }
        }
        let body: String = waiting.drain(..).filter_map(|request| serde_json::to_string(&request).ok()).map(|line| line + "\n").collect();
        if !store(&weak, &body).await {
            return;
        }
    }
}

/// Stores requests, again and again while a limit is reached; `false` if the engine has stopped.
async fn store(weak: &Weak<Engine>, body: &str) -> bool {
    loop {
        let Some(engine) = weak.upgrade() else { return false };
        let request = IngestRequest {
            log: "api_access_log",
            body: body.to_owned().into(),
            format: Format::Ndjson,
            idempotency_key: None,
            position: None,
        };
        match engine.ingest(request).await {
            Ok(_) => return true,
            Err(EngineError::Stopped) => return false,
            Err(EngineError::Invalid(rejection)) => {
                tracing::error!(%rejection, "requests to the API can't be recorded");
                return true;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "requests to the API could not be recorded yet");
                drop(engine);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
