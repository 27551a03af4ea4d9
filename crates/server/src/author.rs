//! Who changes a register through the API, for the record of the change.

use crate::answer::{Code, Refusal};
use crate::peers::Peer;
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use muniment_access::Principal;
use muniment_engine::ChangedBy;

/// Says why a request is made.
const REASON: &str = "muniment-reason";
/// Most characters of a reason: that many a change of data can have.
pub(crate) const REASON_CHARS: usize = 200;
/// Most characters of the name of a program.
const AGENT_CHARS: usize = 500;

/// What a change made by a request says of its maker.
///
/// # Errors
/// `invalid_header` if the reason is not text, or too long.
pub(crate) fn author(principal: &Principal, peer: &Peer, headers: &HeaderMap) -> Result<ChangedBy, Refusal> {
    let wrong = || Refusal::new(Code::InvalidHeader, format!("Muniment-Reason has at most {REASON_CHARS} characters of UTF-8"));
    let reason = match headers.get(REASON).map(|value| std::str::from_utf8(value.as_bytes())) {
        None => None,
        Some(Ok(reason)) if reason.chars().count() <= REASON_CHARS => Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        Some(_) => return Err(wrong()),
    };
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    Ok(ChangedBy {
        user_id: principal.user_id,
        username: principal.name.clone(),
        session_id: principal.session_id.clone(),
        ip_address: Some(peer.address().to_string()),
        user_agent: agent.map(|agent| agent.chars().take(AGENT_CHARS).collect()),
        business_context: None,
        reason,
        correlation_id: None,
    })
}
