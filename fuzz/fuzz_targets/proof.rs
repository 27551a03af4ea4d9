//! Proofs: a damaged proof is refused, or still proves the very same record.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muniment_fuzz::{BOOK, STREAM, document};
use muniment_ledger::checkpoint::VerifierKey;
use muniment_ledger::proof::{CheckedRecord, Proof, check};

struct Genuine {
    json: Vec<u8>,
    trusted: VerifierKey,
    record: CheckedRecord,
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let proof = BOOK.proof(STREAM, 4, 4);
    let trusted = BOOK.keys[0].verifier_key().clone();
    let record = check(&proof, &trusted).expect("a genuine proof");
    Genuine { json: serde_json::to_vec(&proof).expect("JSON"), trusted, record }
});

fuzz_target!(|input: &[u8]| {
    let Ok(proof) = Proof::parse(&document(&GENUINE.json, input)) else { return };
    let json = serde_json::to_vec(&proof).expect("JSON");
    assert_eq!(Proof::parse(&json).expect("the same proof"), proof);
    if let Ok(record) = check(&proof, &GENUINE.trusted) {
        assert_eq!(record, GENUINE.record);
    }
});
