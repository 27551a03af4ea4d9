//! Finding out who asks: keys and tokens in `Authorization: Bearer`, sessions of the console in a cookie. What fails is put on the record, within limits.

use crate::answer::{Code, Refusal};
use crate::body::refuse;
use crate::guard::Verdict;
use crate::identity::AccessMode;
use crate::oidc::OidcError;
use crate::oidc::login::{SESSION_COOKIE, cookie};
use crate::peers::Peer;
use crate::routes::{App, AppState};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, ORIGIN, USER_AGENT};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use muniment_access::Principal;
use muniment_engine::identity::Identities;
use muniment_engine::{IngestRequest, now};
use muniment_model::Format;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

/// The log that says who came in and who didn't.
const LOG: &str = "auth_audit_log";
/// Most characters of a program's name in a record.
const AGENT_CHARS: usize = 1000;
/// What anybody may ask: whether the service lives, what it offers, and what proves that it keeps its word.
pub(crate) const PUBLIC: [&str; 9] =
    ["/", "/healthz", "/readyz", "/api/v1/openapi.json", "/api/v1/checkpoint", "/console", "/login", "/login/callback", "/logout"];

/// Why somebody is not recognised.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was tried: `API_KEY`, `TOKEN`.
    pub(crate) event: &'static str,
    /// Which key or user it was tried for, as far as that is no secret.
    pub(crate) subject: Option<String>,
    /// Why it failed, for the record and for whoever sent it.
    pub(crate) reason: String,
}

/// Puts the caller into the request, or refuses it.
pub(crate) async fn recognise(State(app): AppState, mut request: Request, next: Next) -> Response {
    let principal = match app.config.access {
        AccessMode::Open => Ok(Some(app.everybody.clone())),
        AccessMode::Keys => who(&app, &request).await,
    };
    match principal {
        Ok(Some(principal)) => {
            request.extensions_mut().insert(principal);
        }
        Ok(None) if PUBLIC.contains(&request.uri().path()) => {}
        Ok(None) => {
            let message = "say who you are: `Authorization: Bearer <key>`";
            return refuse(request, Refusal::new(Code::Unauthenticated, message)).await.into_response();
        }
        Err(Attempt::Failed(failure)) => {
            let origin = Origin::of(&request);
            let refusal = failed(&app, &origin, &failure).await;
            return refuse(request, refusal).await.into_response();
        }
        Err(Attempt::Refused(refusal)) => return refuse(request, refusal).await.into_response(),
    }
    next.run(request).await
}

/// Why there is no principal.
pub(crate) enum Attempt {
    /// What was shown is not right.
    Failed(Failure),
    /// It could not be found out.
    Refused(Refusal),
}

/// Who asks, by what the request shows. What is needed of the request is taken from it before anything is waited for.
fn who(app: &Arc<App>, request: &Request) -> impl Future<Output = Result<Option<Arc<Principal>>, Attempt>> + Send + use<> {
    let shown = shown(request);
    let app = app.clone();
    async move {
        match shown? {
            None => Ok(None),
            Some(Shown::Bearer(secret)) if app.provider.is_none() || secret.starts_with("mnt_") => key(&app, &secret).await.map(Some),
            Some(Shown::Bearer(token)) => by_token(&app, &token).await.map(Some),
            Some(Shown::Session { secret, public }) => match app.remembered(&secret, now()).await.map_err(Attempt::Refused)? {
                None if public => Ok(None),
                None => {
                    let reason = "the session has ended".to_owned();
                    Err(Attempt::Failed(Failure { event: "SESSION", subject: None, reason }))
                }
                found => Ok(found),
            },
        }
    }
}

/// What a request shows.
enum Shown {
    Bearer(String),
    Session { secret: String, public: bool },
}

fn shown(request: &Request) -> Result<Option<Shown>, Attempt> {
    let headers = request.headers();
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        let Some(secret) = cookie(headers, SESSION_COOKIE) else { return Ok(None) };
        // A browser sends cookies along whoever has asked it to; where something is changed it also says for which page.
        if !request.method().is_safe() && !headers.contains_key(ORIGIN) {
            return Err(Attempt::Refused(Refusal::new(Code::CrossOrigin, "a request with a session says for which page it is sent")));
        }
        return Ok(Some(Shown::Session { secret: secret.to_owned(), public: PUBLIC.contains(&request.uri().path()) }));
    };
    let malformed = |reason: &str| Attempt::Failed(Failure { event: "API_KEY", subject: None, reason: reason.to_owned() });
    if given.next().is_some() {
        return Err(malformed("there is more than one Authorization header"));
    }
    let bearer = value.to_str().ok().and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, secret)) = bearer else { return Err(malformed("the Authorization header is not `Bearer <key>`")) };
    Ok(Some(Shown::Bearer(secret.trim().to_owned())))
}

async fn key(app: &App, secret: &str) -> Result<Arc<Principal>, Attempt> {
    match app.engine.identities().recognise(secret, now()).await {
        Ok(Ok(principal)) => Ok(principal),
        Ok(Err(problem)) => {
            let subject = Identities::key_id(secret).map(str::to_owned);
            Err(Attempt::Failed(Failure { event: "API_KEY", subject, reason: problem.reason().to_owned() }))
        }
        Err(error) => Err(Attempt::Refused(error.into())),
    }
}

/// Where a request comes from.
pub(crate) struct Origin {
    pub(crate) address: IpAddr,
    path: String,
    headers: HeaderMap,
}

impl Origin {
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(crate) fn of(request: &Request) -> Self {
        let address = request.extensions().get::<Arc<Peer>>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address());
        Self { address, path: request.uri().path().to_owned(), headers: request.headers().clone() }
    }
}

async fn by_token(app: &App, token: &str) -> Result<Arc<Principal>, Attempt> {
    let now = now();
    if let Some(principal) = app.remembered(token, now).await.map_err(Attempt::Refused)? {
        return Ok(principal);
    }
    let failed = |reason: String| Attempt::Failed(Failure { event: "TOKEN", subject: None, reason });
    let Some(provider) = &app.provider else { return Err(failed("no identity provider is configured".to_owned())) };
    match provider.recognise(token, None, now).await {
        Ok((claims, expires_at)) => {
            let principal = app.remember(token, None, claims, expires_at, now).await.map_err(|error| Attempt::Refused(error.into()))?;
            principal.ok_or_else(|| failed("the token's user is deactivated".to_owned()))
        }
        Err(OidcError::Token(reason)) => Err(failed(reason.to_owned())),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a token can't be checked");
            let message = "the identity provider can't be reached, so that the token can't be checked";
            Err(Attempt::Refused(Refusal::new(Code::Busy, message).retry_after(10)))
        }
    }
}

/// Answers somebody who is not recognised, and records it. An address that fails again and again has to wait, and is recorded once.
pub(crate) async fn failed(app: &App, origin: &Origin, failure: &Failure) -> Refusal {
    let wait = |seconds: u32| {
        let message = "too many attempts from your address failed; wait, or show what is right";
        Refusal::new(Code::TooManyRequests, message).retry_after(seconds)
    };
    let details = json!({ "subject": failure.subject, "reason": failure.reason, "path": origin.path });
    let recorded = |event, risk| event_of(event, "FAILURE", origin.address, &origin.headers, risk, details.clone());
    match app.guard.failed(origin.address, Instant::now()) {
        Verdict::Tell => {
            record(app, recorded(failure.event, 30)).await;
            Refusal::new(Code::Unauthenticated, failure.reason.clone())
        }
        Verdict::Lock { seconds } => {
            record(app, recorded("LOCKOUT", 70)).await;
            wait(seconds)
        }
        Verdict::Locked { seconds } => wait(seconds),
    }
}

/// A line of the log.
pub(crate) fn event_of(event: &str, status: &str, address: IpAddr, headers: &HeaderMap, risk: u8, details: Value) -> Value {
    let agent =
        headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).map(|agent| agent.chars().take(AGENT_CHARS).collect::<String>());
    json!({
        "event_type": event, "event_status": status, "ip_address": address.to_string(), "user_agent": agent, "risk_score": risk,
        "details": details,
    })
}

/// Stores a line; durable when it returns. What can't be stored is told to the operator.
pub(crate) async fn record(app: &App, line: Value) {
    let body = Bytes::from(line.to_string());
    let request = IngestRequest { log: LOG, body, format: Format::Json, idempotency_key: None, position: None };
    if let Err(error) = app.engine.ingest(request).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "an authentication event could not be recorded");
    }
}
