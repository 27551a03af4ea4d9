//! Which path is answered by what. The API description is checked against this table.

use crate::answer::{Code, Refusal};
use crate::authenticate::recognise;
use crate::body::BodyLimits;
use crate::guard::Guard;
use crate::oidc::Provider;
use crate::oidc::login::{self, Logins};
use crate::oidc::sessions::Sessions;
use crate::peers::Peer;
use crate::protection::protect;
use crate::reader::recorded;
use crate::serve::ServerConfig;
use crate::{
    access, capture, cases, console, entities, ledger, limits, logs, measures, openapi, people, reconcile, reconstruction, sessions,
    sources, sql, status, unmasking,
};
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use muniment_access::{Policy, Principal};
use muniment_engine::Engine;
use muniment_engine::query::QueryEngine;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) query: QueryEngine,
    pub(crate) policy: Policy,
    pub(crate) config: ServerConfig,
    pub(crate) guard: Guard,
    pub(crate) provider: Option<Provider>,
    pub(crate) logins: Logins,
    pub(crate) sessions: Sessions,
    /// Where browsers reach this service.
    pub(crate) public_url: String,
    /// Who everybody is where nobody has to say.
    pub(crate) everybody: Arc<Principal>,
    stopping: AtomicBool,
}

/// What decides who gets in.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(crate) policy: Policy,
    pub(crate) provider: Option<Provider>,
    /// Where browsers reach this service.
    pub(crate) public_url: String,
}

impl App {
    pub(crate) fn new(engine: Arc<Engine>, query: QueryEngine, doors: Doors, config: ServerConfig) -> Self {
        let Doors { policy, provider, public_url } = doors;
        Self {
            engine,
            query,
            policy,
            config,
            guard: Guard::default(),
            provider,
            logins: Logins::default(),
            sessions: Sessions::default(),
            public_url,
            everybody: Arc::new(Principal::unrestricted()),
            stopping: AtomicBool::new(false),
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Limits of a body of at most so many bytes.
    pub(crate) fn body_limits(&self, bytes: usize) -> BodyLimits {
        BodyLimits { bytes, time: self.config.request_timeout, bytes_per_second: self.config.bytes_per_second }
    }
}

/// State of a handler.
pub(crate) type AppState = State<Arc<App>>;

/// Every path with what answers it.
pub(crate) fn routes() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/", get(status::index)),
        ("/healthz", get(status::alive)),
        ("/readyz", get(status::ready)),
        ("/metrics", get(status::metrics)),
        ("/api/v1/openapi.json", get(openapi::document)),
        ("/api/v1/logs/{log}", post(logs::ingest)),
        ("/api/v1/capture/debezium", post(capture::debezium)),
        ("/api/v1/capture/wal2json", post(capture::wal2json)),
        ("/api/v1/sql", get(sql::by_parameters).post(sql::by_body)),
        ("/api/v1/entities/{table}/{key}/history", get(entities::history)),
        ("/api/v1/entities/{table}/{key}/at", get(entities::row_at)),
        ("/api/v1/entities/{table}/at", get(entities::table_at_time)),
        ("/api/v1/entities/{table}/{key}/blame", get(reconstruction::blame_row)),
        ("/api/v1/transactions/{id}", get(reconstruction::one_transaction)),
        ("/api/v1/undo", post(reconstruction::undo_script)),
        ("/api/v1/unmasking", get(unmasking::list).post(unmasking::request)),
        ("/api/v1/unmasking/{id}", get(unmasking::one)),
        ("/api/v1/unmasking/{id}/{decision}", post(unmasking::decide)),
        ("/api/v1/checkpoint", get(ledger::checkpoint)),
        ("/api/v1/proofs/{log}/{id}", get(ledger::proof)),
        ("/api/v1/keys/rotate", post(ledger::rotate)),
        ("/console", get(console::home)),
        ("/login", get(login::begin)),
        ("/login/callback", get(login::finish)),
        ("/logout", post(login::log_out)),
        ("/api/v1/access/me", get(access::me)),
        ("/api/v1/access/keys", get(access::keys).post(access::create_key)),
        ("/api/v1/access/keys/{id}", delete(access::revoke_key)),
        ("/api/v1/access/keys/{id}/rotate", post(access::rotate_key)),
        ("/api/v1/access/roles", get(access::roles)),
        ("/api/v1/access/users/{user}/roles/{role}", put(access::grant_role).delete(access::revoke_role)),
        ("/api/v1/sources", get(sources::list).post(sources::attach)),
        ("/api/v1/sources/{name}", get(sources::one).delete(sources::detach)),
        ("/api/v1/sources/{name}/reconcile", post(reconcile::reconcile)),
        ("/api/v1/users", get(people::list).post(people::add)),
        ("/api/v1/users/import", post(people::import)),
        ("/api/v1/users/resolve", post(people::resolve)),
        ("/api/v1/users/{user}", get(people::one).patch(people::change)),
        ("/api/v1/users/{user}/deactivate", post(people::deactivate)),
        ("/api/v1/users/{user}/activate", post(people::activate)),
        ("/api/v1/users/{user}/external-ids", post(people::add_external_id)),
        ("/api/v1/sessions", get(sessions::list).post(sessions::start)),
        ("/api/v1/sessions/open", get(sessions::open)),
        ("/api/v1/sessions/{session}", get(sessions::one)),
        ("/api/v1/sessions/{session}/touch", post(sessions::touch)),
        ("/api/v1/sessions/{session}/end", post(sessions::end)),
        ("/api/v1/investigations", get(cases::list).post(cases::open)),
        ("/api/v1/investigations/{id}", get(cases::one)),
        ("/api/v1/investigations/{id}/status", post(cases::step)),
        ("/api/v1/investigations/{id}/assign", post(cases::assign)),
        ("/api/v1/investigations/{id}/notes", post(cases::note)),
        ("/api/v1/investigations/{id}/evidence", post(cases::evidence)),
        ("/api/v1/findings", get(cases::findings).post(cases::add_finding)),
        ("/api/v1/findings/{id}", get(cases::finding)),
        ("/api/v1/findings/{id}/resolve", post(cases::resolve_finding)),
        ("/api/v1/limits", get(limits::list)),
        ("/api/v1/limits/check", post(limits::check)),
        ("/api/v1/limits/violations", get(limits::violations)),
        ("/api/v1/limits/violations/{id}/unblock", post(limits::unblock)),
        ("/api/v1/limits/{name}", put(limits::put).delete(limits::remove)),
        ("/api/v1/monitoring", get(measures::monitoring)),
        ("/api/v1/metrics/aggregate", get(measures::buckets)),
        ("/api/v1/metrics/thresholds", get(measures::thresholds).put(measures::put_threshold)),
        ("/api/v1/metrics/thresholds/{id}", delete(measures::remove_threshold)),
    ]
}

pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for (path, answer) in routes() {
        router = router.route(path, answer);
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), recorded))
        .layer(from_fn_with_state(app.clone(), protect))
        .layer(from_fn_with_state(app.clone(), recognise))
        .layer(from_fn_with_state(app.clone(), admit))
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

async fn unknown_path() -> Refusal {
    Refusal::new(Code::UnknownPath, "there is no such path; / lists those that there are")
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(Code::MethodNotAllowed, "this path has other methods, which the Allow header lists")
}

/// Turns away what needs no further look: more requests than a client may have under way, and what a browser sends for a page of another origin.
async fn admit(State(app): AppState, request: Request, next: Next) -> Response {
    let under_way = match request.extensions().get::<Arc<Peer>>() {
        Some(peer) => match peer.begin(app.config.requests_per_client) {
            Some(under_way) => Some(under_way),
            None => {
                let message = format!("you have {} requests under way, which is the limit", app.config.requests_per_client);
                return Refusal::new(Code::TooManyRequests, message).retry_after(1).into_response();
            }
        },
        None => None,
    };
    if !request.method().is_safe() && is_cross_origin(request.headers()) {
        return Refusal::new(Code::CrossOrigin, "requests from pages of another origin are refused").into_response();
    }
    let response = next.run(request).await;
    drop(under_way);
    response
}

/// Browsers name the origin of the page in every request that is not a plain reading one.
fn is_cross_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority.as_bytes());
    authority.is_none() || authority != headers.get(HOST).map(|host| host.as_bytes())
}

/// Parts of the path, with a refusal of our own.
pub(crate) struct Segments<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Ok(Self(Path::from_request_parts(parts, state).await?.0))
    }
}

/// Parameters after the question mark, with a refusal of our own.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Ok(Self(Query::from_request_parts(parts, state).await?.0))
    }
}
