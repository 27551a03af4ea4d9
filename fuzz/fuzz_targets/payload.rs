//! Payloads: one encoding for each set of values, so no prefix and no continuation of a payload is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muniment_ledger::decode_payload;

fuzz_target!(|payload: &[u8]| {
    let Ok(fields) = decode_payload(payload) else { return };
    assert!(fields.is_sorted_by(|a, b| (a.0.len(), &a.0) < (b.0.len(), &b.0)));
    assert!(decode_payload(&payload[..payload.len() - 1]).is_err());
    assert!(decode_payload(&[payload, &[0]].concat()).is_err());
});
