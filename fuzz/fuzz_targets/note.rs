//! Checkpoints: what opens says what was signed, whatever was done to the note.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muniment_fuzz::{BOOK, document};
use muniment_ledger::checkpoint::{VerifierKey, open, parse_unverified};

fuzz_target!(|input: &[u8]| {
    let genuine = BOOK.rotations[0].1.as_str();
    let bytes = document(genuine.as_bytes(), input);
    let Ok(note) = std::str::from_utf8(&bytes) else { return };
    if let Ok(checkpoint) = parse_unverified(note) {
        assert!(note.starts_with(&checkpoint.to_string()), "{checkpoint:?} is not what the note says");
    }
    let trusted: Vec<VerifierKey> = BOOK.keys.iter().map(|key| key.verifier_key().clone()).collect();
    for trusted in [&trusted[..], &trusted[..1], &[]] {
        if let Ok(opened) = open(note, trusted) {
            assert_eq!(opened.checkpoint, parse_unverified(genuine).expect("a checkpoint"));
            assert!(!opened.signers.is_empty() && opened.signers.iter().all(|signer| trusted.contains(signer)));
        }
    }
    if let Ok(key) = note.parse::<VerifierKey>() {
        assert_eq!(key.as_str().parse::<VerifierKey>().expect("a verifier key"), key);
    }
});
