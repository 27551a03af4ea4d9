//! Muniment's own API under rate limits: the same ones that applications ask about. Health and metrics are not counted: who watches a service must see it best when
//! it is under pressure.

use crate::answer::{Code, Refusal};
use crate::limits::write_headers;
use crate::peers::Peer;
use crate::routes::AppState;
use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, USER_AGENT};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use muniment_access::Principal;
use muniment_engine::OwnRequest;
use muniment_engine::limits::{Call, CheckAnswer, Door};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Paths that are never refused.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Refuses calls beyond the limits, says in headers what is left, and records calls if that is asked for.
pub(crate) async fn protect(State(app): AppState, request: Request, next: Next) -> Response {
    let asked = Asked::of(&request);
    if OPEN.contains(&asked.endpoint.as_str()) {
        return next.run(request).await;
    }
    let began = Instant::now();
    let mut remaining = None;
    let response = match app.engine.rate_limits().check(&asked.call(), Door::OwnApi, 1, false).await {
        Ok(answer) => {
            let mut response = if answer.allowed { next.run(request).await } else { refusal(&answer).into_response() };
            write_headers(&answer, response.headers_mut());
            remaining = answer.remaining;
            response
        }
        Err(error) => Refusal::from(error).into_response(),
    };
    if app.engine.records_requests() {
        app.engine.record_request(asked.record(&response, began.elapsed(), remaining)).await;
    }
    response
}

fn refusal(answer: &CheckAnswer) -> Refusal {
    let message = match answer.limits.iter().find(|limit| !limit.allowed) {
        Some(limit) if limit.blocked => format!("blocked by the rate limit {} ({})", limit.limit, limit.subject),
        Some(limit) => format!("more than {} calls in {} s ({})", limit.limit_threshold, limit.time_window_seconds, limit.limit),
        None => "too many calls".to_owned(),
    };
    Refusal::new(Code::RateLimited, message)
}

/// A request as limits and the log see it.
struct Asked {
    endpoint: String,
    method: String,
    user_id: Option<i64>,
    key: Option<String>,
    address: Option<IpAddr>,
    agent: Option<String>,
    length: u64,
    at: i64,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let principal = request.extensions().get::<Arc<Principal>>();
        let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        Self {
            endpoint: endpoint(request),
            method: request.method().as_str().chars().take(255).collect(),
            user_id: principal.and_then(|principal| principal.user_id),
            key: principal.and_then(|principal| principal.key_id).map(|id| id.to_string()),
            address: request.extensions().get::<Arc<Peer>>().map(|peer| peer.address()),
            agent: agent.map(|agent| agent.chars().take(1000).collect()),
            length: length(request.headers()),
            at: muniment_engine::now(),
        }
    }

    /// This machine's own addresses are not counted: a proxy may stand there for everybody.
    fn call(&self) -> Call<'_> {
        Call {
            endpoint: &self.endpoint,
            method: Some(&self.method),
            user_id: self.user_id,
            ip_address: self.address.filter(|address| !address.is_loopback()),
            api_key_id: self.key.as_deref(),
            user_agent: self.agent.as_deref(),
        }
    }

    fn record(self, response: &Response, took: Duration, remaining: Option<i64>) -> OwnRequest {
        OwnRequest {
            user_id: self.user_id,
            method: self.method,
            endpoint: self.endpoint,
            response_status: response.status().as_u16(),
            response_time_ms: u32::try_from(took.as_millis()).unwrap_or(i32::MAX as u32).min(i32::MAX as u32),
            bytes_sent: response.body().size_hint().exact().unwrap_or(0),
            bytes_received: self.length,
            ip_address: self.address.map(|address| address.to_string()),
            user_agent: self.agent,
            api_key_id: self.key,
            rate_limit_remaining: remaining,
            created_at: self.at,
        }
    }
}

/// Bytes of a body, as far as its headers say.
fn length(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0).min(i64::MAX as u64)
}

/// The path as the API describes it, without its parameters' values; another path as it is.
fn endpoint(request: &Request) -> String {
    let matched = request.extensions().get::<MatchedPath>();
    let path = matched.map_or_else(|| request.uri().path(), MatchedPath::as_str);
    path.chars().take(255).collect()
}
