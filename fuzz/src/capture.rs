//! The envelope parsers by themselves: the rest of the capture crate brings database drivers along, which take too long to build for a fuzzer.

use crate::envelope::{Format, KeyHints, Options, State, decode};
use muniment_model::{Limits, ParseOptions};
use std::collections::HashSet;

/// The errors that the parsers give; those of the capture crate have its drivers' in them.
#[derive(Debug)]
pub enum CaptureError {
    /// A message is not what its format says.
    Message { message: u64, field: String, reason: String },
    /// A parameter is not valid.
    Refused(String),
}

/// Result of the parsers.
pub type Result<T, E = CaptureError> = std::result::Result<T, E>;

/// Records that a log takes from these lines; all of them must be taken.
fn records(log: &str, lines: &[u8]) -> usize {
    let mut uuid = || [0; 16];
    let table = muniment_model::table(log).expect("a log");
    let mut options =
        ParseOptions { now: 0, format: muniment_model::Format::Ndjson, limits: Limits::default(), uuid: &mut uuid, retention_years: None, users: None };
    let parsed = muniment_model::parse(table, lines, &mut options);
    parsed.unwrap_or_else(|rejection| panic!("{rejection:?}: {}", String::from_utf8_lossy(lines))).records
}

/// What must hold of any batch.
pub fn check_envelopes(format: Format, body: &[u8]) {
    let keys = KeyHints::parse("id").expect("a hint");
    let options = Options { format, source: "s", keys: &keys, now: 0 };
    let mut decoded = match decode(body, &options, State::default()) {
        Ok(decoded) => decoded,
        Err(CaptureError::Message { message, .. }) => return assert!(message > 0),
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(records("sys_audit_log", &decoded.lines), decoded.events.len());
    let again = decode(body, &options, State::default()).expect("the same batch");
    assert_eq!(again, decoded);
    let identities: HashSet<String> = decoded.events.iter().filter_map(|event| event.identity.clone()).collect();
    assert!(identities.iter().all(|identity| identity.len() <= 128 && identity.starts_with("s:")));
    let without_identity = decoded.events.iter().filter(|event| event.identity.is_none()).count();
    let fresh = decoded.fresh(&HashSet::new());
    assert_eq!(fresh.records, identities.len() + without_identity);
    records("security_audit_log", &fresh.findings);
    assert_eq!(decoded.fresh(&identities).records, without_identity);
    let state = serde_json::to_string(&decoded.state).expect("JSON");
    assert_eq!(serde_json::from_str::<State>(&state).expect("the same state"), decoded.state);
}
