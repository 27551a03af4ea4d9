//! Proofs of single records.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Book, ORIGIN, OTHER, STREAM};
use muniment_ledger::checkpoint::SigningKey;
use muniment_ledger::meta::{MetaLeaf, StreamHead};
use muniment_ledger::proof::{Proof, ProofError, check};
use muniment_ledger::{Value, payload_hash};

fn book() -> Book {
    let mut book = Book::new();
    book.commit(&[(OTHER, 3), (STREAM, 5)]);
    book.commit(&[(STREAM, 6)]);
    book.rotate();
    book.commit(&[(STREAM, 2)]);
    book.rotate();
    book.push(|time| MetaLeaf::Heartbeat { time });
    book
}

fn reason(book: &Book, change: impl FnOnce(&mut Proof)) -> String {
    let mut proof = book.proof(STREAM, 7, 4);
    change(&mut proof);
    check(&proof, book.keys[0].verifier_key()).unwrap_err().to_string()
}

#[test]
fn p5_a_proof_shows_its_record_with_nothing_but_a_key() {
    let book = book();
    let trusted = book.keys[0].verifier_key();
    for (stream, index, commit) in [(STREAM, 0, 3), (STREAM, 4, 4), (STREAM, 10, 4), (STREAM, 12, 6), (OTHER, 2, 3)] {
        let proof = book.proof(stream, index, commit);
        let json = serde_json::to_vec_pretty(&proof).unwrap();
        let read = Proof::parse(&json).unwrap();
        assert_eq!(read, proof);
        let record = check(&read, trusted).unwrap();
        let number = Value::Int(1000 + index as i128);
        assert_eq!(record.payload, [("a".to_owned(), number), ("b".to_owned(), Value::Bool(true))]);
        assert_eq!((record.stream_index, record.commit), (index as u64, commit as u64));
        assert_eq!(record.checkpoint.size, book.leaves.len() as u64);
    }
}

#[test]
fn a_proof_is_the_json_of_the_format() {
    let mut book = Book::new();
    book.commit(&[(STREAM, 1)]);
    let proof = book.proof(STREAM, 0, 3);
    let json = serde_json::to_value(&proof).unwrap();
    assert_eq!(json["format"], "muniment-proof/1");
    assert_eq!(json["previous_hash"], "0".repeat(64));
    assert_eq!(json["payload"], "omFhGQPoYWL1");
    assert_eq!(json["salt"].as_str().unwrap().len(), 32);
    assert_eq!(json["commit"]["number"], 3);
    assert_eq!(json["rotations"], serde_json::json!([]));
    assert_eq!(json["schema"]["number"], 1);
    let text = serde_json::to_string(&proof).unwrap();
    let upper = text.replace(&hex::encode(proof.salt), &hex::encode_upper(proof.salt));
    for bad in [text.replace("\"id\"", "\"number\""), text.replace("{\"format\"", "{\"x\":1,\"format\""), upper] {
        assert!(matches!(Proof::parse(bad.as_bytes()), Err(ProofError::Json(_))), "{bad}");
    }
}

#[test]
fn each_way_to_fail_has_its_reason() {
    let book = book();
    let other_commit = book.proof(STREAM, 7, 6).commit;
    let of_other = book.proof(OTHER, 1, 3);
    let heartbeat = MetaLeaf::Heartbeat { time: 1 }.encode();
    let say = |change: &dyn Fn(&mut Proof)| reason(&book, change);
    insta::assert_snapshot!(say(&|proof| proof.format = "muniment-proof/2".to_owned()), @"its format is “muniment-proof/2”, not muniment-proof/1");
    insta::assert_snapshot!(say(&|proof| proof.log = "auth_audit_log".to_owned()), @"sys_audit_log/7y is not a stream of auth_audit_log");
    insta::assert_snapshot!(say(&|proof| proof.origin = "other.example.org".to_owned()), @"the proof is of other.example.org, the trusted key of audit.example.org/1c0f");
    insta::assert_snapshot!(say(&|proof| proof.payload[0] = 0xa1), @"the record does not have the blockchain_hash that the proof says: it was altered");
    insta::assert_snapshot!(say(&|proof| proof.commit.leaf[0] = 0), @"the commit leaf cannot be read");
    insta::assert_snapshot!(say(&|proof| proof.commit.leaf = heartbeat.clone()), @"the leaf that should be a commit is not one");
    insta::assert_snapshot!(reason(&book, |proof| {
        proof.commit.leaf = MetaLeaf::Commit { time: 1, streams: vec![StreamHead { stream: OTHER.to_owned(), size: 9, root: [0; 32] }] }.encode();
    }), @"the commit leaf does not name sys_audit_log/7y");
    insta::assert_snapshot!(say(&|proof| proof.commit = other_commit.clone()), @"record 7 is not in the stream of 13 records that was committed");
    insta::assert_snapshot!(say(&|proof| proof.stream_path.clone_from(&of_other.stream_path)), @"record 7 is not in the stream of 11 records that was committed");
    insta::assert_snapshot!(say(&|proof| proof.commit.number = 3), @"leaf 3 is not in the meta-log of 9 leaves that was signed");
    insta::assert_snapshot!(say(&|proof| proof.commit.path[0][0] ^= 1), @"leaf 4 is not in the meta-log of 9 leaves that was signed");
    insta::assert_snapshot!(say(&|proof| proof.rotations.clear()), @"the checkpoint is not signed by a trusted key");
    insta::assert_snapshot!(say(&|proof| { proof.rotations.pop(); }), @"the checkpoint is not signed by a trusted key");
    insta::assert_snapshot!(say(&|proof| proof.rotations.swap(0, 1)), @"rotation 1 does not follow the key before it");
    insta::assert_snapshot!(say(&|proof| proof.rotations[1].leaf[0] = 0), @"the key leaf of rotation 1 cannot be read");
    insta::assert_snapshot!(say(&|proof| proof.rotations[1].leaf.clone_from(&heartbeat)), @"the leaf of rotation 1 is not a rotation of this ledger's key");
    insta::assert_snapshot!(say(&|proof| proof.rotations[1].number = 1), @"the key leaf of rotation 1 is not in the meta-log that was signed");
    insta::assert_snapshot!(say(&|proof| proof.rotations[1] = proof.rotations[0].clone()), @"rotation 1 does not follow the key before it");
}

#[test]
fn the_schema_must_be_that_of_the_log() {
    let book = book();
    let of_other = book.proof(OTHER, 1, 3).schema;
    let say = |change: &dyn Fn(&mut Proof)| reason(&book, change);
    insta::assert_snapshot!(say(&|proof| proof.schema = of_other.clone()), @"the leaf that should be the schema of sys_audit_log is not");
    insta::assert_snapshot!(say(&|proof| proof.schema = proof.commit.clone()), @"the leaf that should be the schema of sys_audit_log is not");
    insta::assert_snapshot!(say(&|proof| proof.schema.path[0][0] ^= 1), @"leaf 1 is not in the meta-log of 9 leaves that was signed");
}

#[test]
fn a_payload_that_is_not_one_is_named() {
    let mut book = Book::new();
    book.commit(&[(STREAM, 1)]);
    let mut proof = book.proof(STREAM, 0, 3);
    proof.payload = vec![0x80];
    let header = muniment_ledger::Header {
        stream: muniment_ledger::StreamId::new(ORIGIN, STREAM),
        stream_index: 0,
        id: proof.id,
        recorded_at: proof.recorded_at,
        payload_hash: payload_hash(&proof.salt, &proof.payload),
        previous_hash: proof.previous_hash,
    };
    proof.blockchain_hash = header.leaf_hash();
    assert!(matches!(check(&proof, book.keys[0].verifier_key()), Err(ProofError::Payload(_))));
}

#[test]
fn a_key_that_nobody_trusts_proves_nothing() {
    let book = book();
    let stranger = SigningKey::from_bytes(ORIGIN, &[77; 32]).unwrap();
    let proof = book.proof(STREAM, 7, 4);
    assert!(matches!(check(&proof, stranger.verifier_key()), Err(ProofError::UntrustedChain)));
    let mut proof = proof;
    proof.rotations.clear();
    assert!(matches!(check(&proof, stranger.verifier_key()), Err(ProofError::Checkpoint(_))));
    check(&proof, book.keys[2].verifier_key()).unwrap();
}

#[test]
fn p5_every_changed_byte_of_what_is_hashed_is_found() {
    let book = book();
    let good = book.proof(STREAM, 7, 4);
    let trusted = book.keys[0].verifier_key();
    let refused = |change: &dyn Fn(&mut Proof)| {
        let mut proof = good.clone();
        change(&mut proof);
        check(&proof, trusted).is_err()
    };
    for bit in 0..8 {
        let flip = 1 << bit;
        assert!((0..good.payload.len()).all(|i| refused(&|proof| proof.payload[i] ^= flip)));
        assert!((0..16).all(|i| refused(&|proof| proof.salt[i] ^= flip)));
        assert!((0..32).all(|i| refused(&|proof| proof.previous_hash[i] ^= flip)));
        assert!((0..32).all(|i| refused(&|proof| proof.blockchain_hash[i] ^= flip)));
        assert!((0..good.stream_path.len()).all(|i| refused(&|proof| proof.stream_path[i][31] ^= flip)));
        assert!((0..good.commit.path.len()).all(|i| refused(&|proof| proof.commit.path[i][31] ^= flip)));
        assert!((0..good.commit.leaf.len()).all(|i| refused(&|proof| proof.commit.leaf[i] ^= flip)));
    }
    for step in [-1, 1] {
        assert!(refused(&|proof| proof.id += step));
        assert!(refused(&|proof| proof.recorded_at += step));
        assert!(refused(&|proof| proof.stream_index = proof.stream_index.wrapping_add_signed(step)));
        assert!(refused(&|proof| proof.commit.number = proof.commit.number.wrapping_add_signed(step)));
    }
}
