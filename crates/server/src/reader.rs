//! Whoever reads: what they may see, and the record of what they were given. Every door to audit data takes a [`Reader`], asks through [`Reader::query`], and lets an
//! answer go by [`Reader::answer`] or, row by row, with a [`Receipt`]: not before the reading is on the record.

use crate::answer::{Code, Refusal, Refused};
use crate::identity::{AccessMode, Identity};
use crate::peers::Peer;
use crate::routes::{App, AppState};
use axum::body::HttpBody;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use muniment_access::{Action, Principal, View, Views};
use muniment_engine::EngineError;
use muniment_engine::query::QueryEngine;
use muniment_engine::reading::{Asker, Outcome, Reading};
use muniment_engine::unmasking::ChangedBy;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Why somebody reads, for the record.
const REASON: &str = "muniment-reason";
/// The grant under which somebody reads in clear.
const UNMASKING: &str = "muniment-unmasking";
/// Most characters of a reason.
pub(crate) const REASON_CHARS: usize = 500;

/// Marks an answer whose reading is on the record.
#[derive(Clone, Copy)]
pub(crate) struct OnRecord;

/// Rows that an answer holds, for the record of the reading.
#[derive(Clone, Copy)]
struct Rows(u64);

/// An answer that lists rows.
pub(crate) struct Listed<T>(pub(crate) Vec<T>);

impl<T: Serialize> IntoResponse for Listed<T> {
    fn into_response(self) -> Response {
        let rows = Rows(self.0.len() as u64);
        (Extension(rows), Json(self.0)).into_response()
    }
}

/// An answer that is one row.
pub(crate) struct One<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for One<T> {
    fn into_response(self) -> Response {
        (Extension(Rows(1)), Json(self.0)).into_response()
    }
}

/// Paths that tell nothing of what is audited.
const PUBLIC: [&str; 3] = ["/api/v1/openapi.json", "/api/v1/checkpoint", "/api/v1/access/me"];

impl App {
    /// Whether readers have names to be recorded by.
    fn records_readings(&self) -> bool {
        self.config.access != AccessMode::Open
    }
}

/// Puts on the record what no handler has: answers of other doors that read, and what was refused to somebody.
pub(crate) async fn recorded(State(app): AppState, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let principal = parts.extensions.get::<Arc<Principal>>().cloned();
    let asker = principal.map(|principal| asker(&principal, &parts)).transpose();
    let asker = match asker {
        Ok(asker) => asker.filter(|_| app.records_readings()),
        Err(refusal) => return refusal.into_response(),
    };
    let (reads, path) = (parts.method == Method::GET, parts.uri.path().to_owned());
    let asked = parts.uri.query().map_or(Value::Null, Value::from);
    let response = next.run(Request::from_parts(parts, body)).await;
    let Some(asker) = asker else { return response };
    let outcome = match response.extensions().get::<Refused>() {
        _ if response.extensions().get::<OnRecord>().is_some() => return response,
        Some(Refused(why)) => Outcome::Refused(why.clone()),
        None if reads && response.status().is_success() && path.starts_with("/api/v1/") && !PUBLIC.contains(&path.as_str()) => {
            Outcome::Answered
        }
        None => return response,
    };
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    let rows = response.extensions().get::<Rows>().map_or(0, |rows| rows.0);
    let reading = Reading { asker, action: Action::Read, resource: path, asked, rows, bytes, outcome };
    match app.engine.record_reading(&reading).await {
        Ok(()) => response,
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// Who reads at a door.
pub(crate) struct Reader {
    app: Arc<App>,
    pub(crate) principal: Arc<Principal>,
    asker: Asker,
    url_query: Value,
    views: Views,
}

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Identity(principal) = Identity::from_request_parts(parts, app).await?;
        let mut asker = asker(&principal, parts)?;
        let mut views = app.policy.views(&principal);
        if let Some(id) = header(&parts.headers, UNMASKING)? {
            let wrong = |_| Refusal::new(Code::InvalidHeader, "Muniment-Unmasking is the number of a grant");
            let id = id.parse().map_err(wrong)?;
            views = app.engine.unmasked_views(&principal, id, views).await?;
            asker.unmasking = Some(id);
        }
        let url_query = parts.uri.query().map_or(Value::Null, Value::from);
        Ok(Self { app: app.clone(), principal, asker, url_query, views })
    }
}

/// What the record of a request says of whoever sent it.
pub(crate) fn asker(principal: &Principal, parts: &Parts) -> Result<Asker, Refusal> {
    let reason = header(&parts.headers, REASON)?.map(checked).transpose()?;
    let peer = parts.extensions.get::<Arc<Peer>>();
    let agent = parts.headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned());
    Ok(Asker {
        user_id: principal.user_id,
        username: principal.name.clone(),
        key_id: principal.key_id,
        session_id: principal.session_id.clone(),
        ip_address: peer.map_or_else(|| "::".to_owned(), |peer| peer.address().to_string()),
        user_agent: agent,
        method: Some(parts.method.to_string()),
        path: Some(parts.uri.path().to_owned()),
        reason,
        unmasking: None,
    })
}

fn checked(reason: String) -> Result<String, Refusal> {
    if reason.chars().count() > REASON_CHARS {
        return Err(Refusal::new(Code::InvalidParameter, format!("a reason has at most {REASON_CHARS} characters")));
    }
    Ok(reason)
}

fn header(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Refusal::new(Code::InvalidHeader, format!("{name} is not UTF-8")))?;
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

impl Reader {
    /// Refuses what the principal may not do.
    pub(crate) fn allow(&self, action: Action, table: Option<&str>) -> Result<(), Refusal> {
        self.app.allow(&self.principal, action, table)
    }

    /// What the reader sees of a table.
    pub(crate) fn view(&self, table: &str) -> &View {
        self.views.of(table)
    }

    /// A query engine that shows what this reader may see and nothing else.
    pub(crate) fn query(&self) -> Result<QueryEngine, EngineError> {
        self.app.query.seen_with(&self.views)
    }

    /// Who makes a change, for the record of it.
    pub(crate) fn changed_by(&self) -> ChangedBy {
        let asker = self.asker.clone();
        ChangedBy {
            user_id: asker.user_id,
            username: asker.username,
            session_id: asker.session_id,
            ip_address: Some(asker.ip_address),
            user_agent: asker.user_agent,
            reason: asker.reason,
            ..ChangedBy::default()
        }
    }

    /// Says why, where a request has a place for it beside the header.
    pub(crate) fn because(&mut self, reason: Option<String>) -> Result<(), Refusal> {
        if let Some(reason) = reason {
            self.asker.reason = Some(checked(reason)?);
        }
        Ok(())
    }

    /// The record of one reading, to be completed. What was asked is the query of the request's URL, unless it is given.
    pub(crate) fn receipt(&self, action: Action, resource: impl Into<String>, asked: Option<Value>) -> Receipt {
        let asked = asked.unwrap_or_else(|| self.url_query.clone());
        let recorded = self.app.records_readings();
        let (asker, resource) = (self.asker.clone(), resource.into());
        let reading = Reading { asker, action, resource, asked, rows: 0, bytes: 0, outcome: Outcome::Answered };
        Receipt { app: self.app.clone(), reading, recorded }
    }

    /// Answers with JSON once the reading is on the record; `rows` says how many records the answer holds.
    pub(crate) async fn answer<T: Serialize>(&self, receipt: Receipt, outcome: Result<(T, u64), Refusal>) -> Result<Response, Refusal> {
        let answered = outcome.and_then(|(value, rows)| match serde_json::to_vec(&value) {
            Ok(body) => Ok((body, rows)),
            Err(error) => Err(Refusal::internal(&error)),
        });
        match answered {
            Ok((body, rows)) => {
                receipt.record(Outcome::Answered, rows, body.len() as u64).await?;
                Ok((Extension(OnRecord), [(CONTENT_TYPE, "application/json")], body).into_response())
            }
            Err(refusal) => Ok(receipt.failed(refusal).await?),
        }
    }
}

/// A reading before it is on the record.
#[derive(Clone)]
pub(crate) struct Receipt {
    app: Arc<App>,
    reading: Reading,
    recorded: bool,
}

impl Receipt {
    /// Puts on the record that nothing could be answered; returns the answer that says so.
    pub(crate) async fn failed(&self, refusal: Refusal) -> Result<Response, EngineError> {
        self.record(Outcome::Failed(refusal.message().to_owned()), 0, 0).await?;
        Ok((Extension(OnRecord), refusal).into_response())
    }

    /// Puts it on the record. Nothing of the answer may leave before this has returned, and nothing at all if it fails. Where everybody is anonymous, nobody's reading
    /// can be recorded.
    pub(crate) async fn record(&self, outcome: Outcome, rows: u64, bytes: u64) -> Result<(), EngineError> {
        if !self.recorded {
            return Ok(());
        }
        self.app.engine.record_reading(&Reading { rows, bytes, outcome, ..self.reading.clone() }).await
    }
}
