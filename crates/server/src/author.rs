//! Who changes a register through the API and why, for the record of the change.

use crate::answer::{Code, Refusal};
use crate::identity::changed_by;
use crate::peers::Peer;
use axum::http::HeaderMap;
use muniment_access::Principal;
use muniment_engine::ChangedBy;

/// Says why a request is made.
const REASON: &str = "muniment-reason";
/// Most characters of a reason: that many a change of data can have.
pub(crate) const REASON_CHARS: usize = 200;

/// What a change made by a request says of its maker, with the reason that the request gives in a header.
///
/// # Errors
/// `invalid_header` if the reason is not text, or too long.
pub(crate) fn author(principal: &Principal, peer: &Peer, headers: &HeaderMap) -> Result<ChangedBy, Refusal> {
    let reason = match headers.get(REASON).map(|value| std::str::from_utf8(value.as_bytes())) {
        None => None,
        Some(Ok(reason)) if reason.chars().count() <= REASON_CHARS => Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        Some(_) => {
            return Err(Refusal::new(Code::InvalidHeader, format!("Muniment-Reason has at most {REASON_CHARS} characters of UTF-8")));
        }
    };
    Ok(changed_by(principal, peer, headers, reason))
}
