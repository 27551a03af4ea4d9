//! Masked contents in clear, for a reason: `/api/v1/unmasking`. Asking and deciding are on the record before they are answered.

use crate::answer::{Code, Refusal};
use crate::body::receive;
use crate::reader::Reader;
use crate::routes::{AppState, Parameters, Segments};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use muniment_access::{Action, Principal};
use muniment_engine::unmasking::{Grant, UnmaskingDecision, UnmaskingRequest};
use serde::Deserialize;
use serde_json::json;

/// Bytes of a request.
const BODY_BYTES: usize = 64 << 10;
/// Requests of one answer.
const PAGE: u32 = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    after: Option<i64>,
}

/// What whoever decides adds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    note: Option<String>,
}

/// Asks for masked contents in clear.
pub(crate) async fn request(State(app): AppState, mut reader: Reader, request: Request) -> Result<Response, Refusal> {
    reader.allow(Action::RequestUnmasking, None)?;
    let (_, body) = receive(&app.engine, request, app.body_limits(BODY_BYTES)).await?;
    let wrong = |error| Refusal::new(Code::InvalidParameter, format!("the body is not a request for unmasking: {error}"));
    let wanted: UnmaskingRequest = serde_json::from_slice(&body).map_err(wrong)?;
    reader.allow(Action::RequestUnmasking, Some(&wanted.table))?;
    reader.because(Some(wanted.reason.clone()))?;
    let receipt = reader.receipt(Action::RequestUnmasking, format!("unmasking of {}", wanted.table), serde_json::from_slice(&body).ok());
    let granted = app.engine.request_unmasking(&reader.principal, &reader.changed_by(), &wanted).await;
    let mut response = reader.answer(receipt, granted.map(|grant| (grant, 0)).map_err(Refusal::from)).await?;
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// Who may look at a request: whoever asked, whoever decides, and whoever may read the register.
fn may_see(app: &crate::routes::App, principal: &Principal, grant: &Grant) -> bool {
    let may = |action, table| app.policy.decide(principal, action, table, None).allowed;
    grant.is_of(principal) || may(Action::ApproveUnmasking, None) || may(Action::Read, Some("unmasking_grants"))
}

/// The requests that somebody may look at.
pub(crate) async fn list(State(app): AppState, reader: Reader, Parameters(page): Parameters<Page>) -> Result<Response, Refusal> {
    let receipt = reader.receipt(Action::Read, "unmasking_grants", None);
    let found = async {
        let mut grants = app.engine.unmaskings(page.after.unwrap_or_default(), PAGE).await?;
        let next = (grants.len() == PAGE as usize).then(|| grants.last().map(|grant| grant.id));
        grants.retain(|grant| may_see(&app, &reader.principal, grant));
        let rows = grants.len() as u64;
        Ok((json!({ "requests": grants, "next": next.flatten() }), rows))
    };
    reader.answer(receipt, found.await).await
}

/// One request.
pub(crate) async fn one(State(app): AppState, reader: Reader, Segments(id): Segments<i64>) -> Result<Response, Refusal> {
    let receipt = reader.receipt(Action::Read, format!("unmasking_grants {id}"), None);
    let found = async {
        let grant = app.engine.unmasking(id).await?;
        if !may_see(&app, &reader.principal, &grant) {
            return Err(Refusal::new(Code::NotFound, format!("unmasking {id} was not found")));
        }
        Ok((grant, 1))
    };
    reader.answer(receipt, found.await).await
}

/// Approves or refuses a request, or ends a grant.
pub(crate) async fn decide(
    State(app): AppState,
    reader: Reader,
    Segments((id, decision)): Segments<(i64, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let decision = match decision.as_str() {
        "approve" => UnmaskingDecision::Approve,
        "refuse" => UnmaskingDecision::Refuse,
        "end" => UnmaskingDecision::End,
        _ => return Err(Refusal::new(Code::UnknownPath, "a request is answered with approve, refuse or end")),
    };
    let own = decision == UnmaskingDecision::End && app.engine.unmasking(id).await.is_ok_and(|grant| grant.is_of(&reader.principal));
    if !own {
        reader.allow(Action::ApproveUnmasking, None)?;
    }
    let (_, body) = receive(&app.engine, request, app.body_limits(BODY_BYTES)).await?;
    let wrong = |error| Refusal::new(Code::InvalidParameter, format!("the body is not {{\"note\": …}}: {error}"));
    let Note { note } = if body.is_empty() { Note::default() } else { serde_json::from_slice(&body).map_err(wrong)? };
    let asked = json!({ "decision": format!("{decision:?}").to_lowercase(), "note": note });
    let receipt = reader.receipt(Action::ApproveUnmasking, format!("unmasking {id}"), Some(asked));
    let decided = app.engine.decide_unmasking(&reader.principal, &reader.changed_by(), id, (decision, note)).await;
    reader.answer(receipt, decided.map(|grant| (grant, 0)).map_err(Refusal::from)).await
}
