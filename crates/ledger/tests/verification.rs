//! Verification of a whole ledger, good and damaged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Book, ORIGIN, OTHER, Records, STREAM, columns, log_of, named, root_of};
use std::collections::BTreeMap;

use muniment_ledger::bundle::{Column, Kind, Scope};
use muniment_ledger::checkpoint::{self, Checkpoint, SigningKey};
use muniment_ledger::meta::{MetaLeaf, StreamHead};
use muniment_ledger::verify::{
    Block, BlockSummary, Checkpoints, Extent, Finding, Ledger, MetaVerifier, Outcome, Reason, StreamVerifier, Verdict, check_block,
};
use muniment_ledger::{Hash, NO_HASH, StreamId, chain, compact_range, payload_hashes};

fn book() -> Book {
    let mut book = Book::new();
    book.commit(&[(OTHER, 3), (STREAM, 5)]);
    book.commit(&[(STREAM, 6)]);
    book.push(|time| MetaLeaf::Heartbeat { time });
    book.rotate();
    book.commit(&[(STREAM, 9)]);
    book.erase(STREAM, 6);
    book.rotate();
    book.commit(&[(OTHER, 1), (STREAM, 20)]);
    book
}

fn verify_meta(book: &Book, checkpoints: Checkpoints, leaves: &[u8]) -> Result<Ledger, Finding> {
    let mut verifier = MetaVerifier::new(checkpoints)?;
    verifier.add_sequence(leaves);
    verifier.finish(book.keys[0].verifier_key())
}

fn ledger(book: &Book) -> Ledger {
    verify_meta(book, book.checkpoints(), &book.leaves.concat()).unwrap()
}

/// Verifies the records `[first, end)` in blocks of `step`, as a verifier of files does.
fn verify_stream(ledger: &Ledger, stream: &str, records: &Records, (first, end): (usize, usize), step: usize) -> Result<u64, Finding> {
    let history = &ledger.streams[stream];
    let sizes = history.sizes();
    let before = |index: usize| if index == 0 { NO_HASH } else { records.hashes[index - 1] };
    let left = compact_range(0, &records.hashes[..first]);
    let right = compact_range(end as u64, &records.hashes[end..]);
    let mut verifier = StreamVerifier::new(stream, history, first as u64, before(first), &left)?;
    let mut erased = 0;
    for start in (first..end).step_by(step) {
        let range = start..end.min(start + step);
        let (payload_bytes, payload_offsets) = records.flat(range.clone());
        let block = Block {
            stream: StreamId::new(ORIGIN, stream),
            first_index: start as u64,
            ids: &records.ids[range.clone()],
            recorded_at: &records.recorded_at[range.clone()],
            payload_bytes: &payload_bytes,
            payload_offsets: &payload_offsets,
            salts: &records.salts[range.clone()],
            erased_payload_hashes: &records.erased[range.clone()],
            erasures: &history.erased,
            blockchain_hashes: &records.hashes[range.clone()],
            previous_hash: before(start),
        };
        erased += check_block(&block).map_err(|bad| {
            let index = (start + bad.offset) as u64;
            Finding::new(Verdict::Altered, bad.reason).stream(stream).record(index).file("a.parquet")
        })?;
        verifier.add(&BlockSummary::new(start as u64, before(start), &records.hashes[range], &sizes))?;
    }
    verifier.finish(end as u64, &right)?;
    Ok(erased)
}

fn whole(ledger: &Ledger, records: &Records, step: usize) -> Result<u64, Finding> {
    verify_stream(ledger, STREAM, records, (0, records.hashes.len()), step)
}

#[test]
fn a_good_ledger_is_valid_however_it_is_cut() {
    let book = book();
    let ledger = ledger(&book);
    assert_eq!(ledger.keys.len(), 3);
    assert_eq!(ledger.checkpoint.size, book.leaves.len() as u64);
    let records = &book.streams[STREAM];
    for step in 1..=records.hashes.len() {
        assert_eq!(whole(&ledger, records, step), Ok(1), "blocks of {step}");
    }
    for first in 0..records.hashes.len() {
        for end in first..=records.hashes.len() {
            verify_stream(&ledger, STREAM, records, (first, end), 7).unwrap();
        }
    }
    assert_eq!(verify_stream(&ledger, OTHER, &book.streams[OTHER], (0, 4), 4), Ok(0));
}

#[test]
fn p5_a_changed_record_is_named() {
    let book = book();
    let ledger = ledger(&book);
    let finding = |change: &dyn Fn(&mut Records)| {
        let mut records = book.streams[STREAM].clone();
        change(&mut records);
        whole(&ledger, &records, 16).unwrap_err().to_string()
    };
    insta::assert_snapshot!(finding(&|records| records.payloads[17][5] ^= 1), @"altered: sys_audit_log/7y, record 17, in a.parquet: the record does not fit its blockchain_hash");
    for index in [0, 5, 20, 39] {
        let expected = format!("altered: {STREAM}, record {index}, in a.parquet: {}", Reason::Record);
        assert_eq!(finding(&|records| records.payloads[index][5] ^= 1), expected);
        assert_eq!(finding(&|records| records.ids[index] += 1), expected);
        assert_eq!(finding(&|records| records.recorded_at[index] += 1), expected);
        assert_eq!(finding(&|records| records.salts[index][0] ^= 1), expected);
        assert_eq!(finding(&|records| records.hashes[index][0] ^= 1), expected);
    }
    let erased_again = |records: &mut Records| {
        let mut hashes = Vec::new();
        payload_hashes(&records.salts[8..9], &records.payloads[8], &[0, records.payloads[8].len()], &mut hashes);
        records.erased[8] = Some(hashes[0]);
        records.payloads[8] = vec![0xa0];
    };
    insta::assert_snapshot!(finding(&erased_again), @"altered: sys_audit_log/7y, record 8, in a.parquet: the record is marked as erased, but no erasure is in the meta-log");
    insta::assert_snapshot!(finding(&|records| records.payloads[6] = b"\xa1\x61a\x01".to_vec()), @"altered: sys_audit_log/7y, record 6, in a.parquet: the record is marked as erased, but still has values");
    insta::assert_snapshot!(finding(&|records| records.erased[6] = None), @"altered: sys_audit_log/7y, record 6, in a.parquet: the record does not fit its blockchain_hash");
}

fn remove(records: &mut Records, index: usize) {
    records.ids.remove(index);
    records.recorded_at.remove(index);
    records.payloads.remove(index);
    records.salts.remove(index);
    records.erased.remove(index);
    records.hashes.remove(index);
}

#[test]
fn p5_removal_insertion_and_reordering_are_named() {
    let book = book();
    let ledger = ledger(&book);
    let found = |records: &Records| whole(&ledger, records, 50).unwrap_err();
    let altered = |index| Finding::new(Verdict::Altered, Reason::Record).stream(STREAM).record(index).file("a.parquet");
    let mut removed = book.streams[STREAM].clone();
    remove(&mut removed, 13);
    assert_eq!(found(&removed), altered(13));
    let mut swapped = book.streams[STREAM].clone();
    swapped.hashes.swap(21, 22);
    swapped.payloads.swap(21, 22);
    swapped.ids.swap(21, 22);
    swapped.salts.swap(21, 22);
    assert_eq!(found(&swapped), altered(21));
    let mut inserted = book.streams[STREAM].clone();
    inserted.ids.insert(30, 4711);
    inserted.recorded_at.insert(30, inserted.recorded_at[30]);
    inserted.payloads.insert(30, vec![0xa0]);
    inserted.salts.insert(30, [0; 16]);
    inserted.erased.insert(30, None);
    inserted.hashes.insert(30, [8; 32]);
    assert_eq!(found(&inserted), altered(30));
}

/// Somebody with access to everything but the signing key changes a record and hashes all after it anew.
fn rewrite(book: &Book, index: usize) -> Records {
    let mut records = book.streams[STREAM].clone();
    records.payloads[index] = b"\xa1\x61a\x01".to_vec();
    let (bytes, offsets) = records.flat(0..records.ids.len());
    let mut payloads = Vec::new();
    payload_hashes(&records.salts, &bytes, &offsets, &mut payloads);
    for (payload, erased) in payloads.iter_mut().zip(&records.erased) {
        *payload = erased.unwrap_or(*payload);
    }
    for (i, payload) in payloads.iter().enumerate().skip(index) {
        let previous = if i == 0 { NO_HASH } else { records.hashes[i - 1] };
        let id = StreamId::new(ORIGIN, STREAM);
        records.hashes[i] = chain(id, i as u64, &[records.ids[i]], records.recorded_at[i], &[*payload], previous)[0];
    }
    records
}

#[test]
fn p5_rewritten_hashes_are_found_between_two_commits() {
    let book = book();
    let ledger = ledger(&book);
    insta::assert_snapshot!(whole(&ledger, &rewrite(&book, 13), 6).unwrap_err(), @"altered: sys_audit_log/7y, records 11 to 19: the records fit their hashes, but not the root of commit 7, while that of commit 4 agrees: hashes were rewritten");
    insta::assert_snapshot!(whole(&ledger, &rewrite(&book, 2), 6).unwrap_err(), @"altered: sys_audit_log/7y, records 0 to 4: the records fit their hashes, but not the root of commit 3: hashes were rewritten");
    let finding = whole(&ledger, &rewrite(&book, 11), 40).unwrap_err();
    assert_eq!(finding.records, Some(11..20));
    assert_eq!(finding.reason, Reason::Rewritten { agreed: Some(4), disagreed: 7 });
    let finding = verify_stream(&ledger, STREAM, &rewrite(&book, 13), (20, 40), 6).unwrap_err();
    assert_eq!((finding.records, finding.verdict), (Some(0..20), Verdict::Altered));
}

#[test]
fn p5_a_cut_or_gap_is_missing() {
    let book = book();
    let ledger = ledger(&book);
    let history = &ledger.streams[STREAM];
    let hashes = &book.streams[STREAM].hashes;
    let block = |first: usize, end: usize| {
        let previous = if first == 0 { NO_HASH } else { hashes[first - 1] };
        BlockSummary::new(first as u64, previous, &hashes[first..end], &history.sizes())
    };
    let run = |blocks: &[BlockSummary], end| {
        let mut verifier = StreamVerifier::new(STREAM, history, 0, NO_HASH, &[]).unwrap();
        blocks.iter().try_for_each(|block| verifier.add(block))?;
        verifier.finish(end, &[])
    };
    assert_eq!(run(&[block(0, 10), block(10, 40)], 40), Ok(()));
    insta::assert_snapshot!(run(&[block(0, 10), block(12, 40)], 40).unwrap_err(), @"missing: sys_audit_log/7y, records 10 to 11: the records are not there");
    insta::assert_snapshot!(run(&[block(0, 10), block(9, 40)], 40).unwrap_err(), @"altered: sys_audit_log/7y, record 9: the record is twice there or out of order: record 10 should come here");
    insta::assert_snapshot!(run(&[block(0, 10)], 40).unwrap_err(), @"missing: sys_audit_log/7y, records 10 to 39: the records are not there");
    insta::assert_snapshot!(run(&[block(0, 10)], 10).unwrap_err(), @"malformed: sys_audit_log/7y: the nodes beside the records do not cover the rest of the stream");
    insta::assert_snapshot!(run(&[block(0, 10), block(10, 40)], 39).unwrap_err(), @"altered: sys_audit_log/7y, record 39: the record is beyond the end of what should be here");
    let unlinked = BlockSummary::new(10, [1; 32], &hashes[10..], &history.sizes());
    insta::assert_snapshot!(run(&[block(0, 10), unlinked], 40).unwrap_err(), @"altered: sys_audit_log/7y, record 10: the record does not follow the blockchain_hash of the one before it");
    let uncut = BlockSummary::new(0, NO_HASH, hashes, &[]);
    insta::assert_snapshot!(run(&[uncut], 40).unwrap_err(), @"malformed: sys_audit_log/7y, records 0 to 4: the nodes beside the records do not cover the rest of the stream");
}

#[test]
fn the_manifest_must_cover_what_was_committed() {
    let mut book = book();
    book.dispose(STREAM, 5);
    let ledger = ledger(&book);
    let extent = |stream: &str, size, first, end| Extent { stream: stream.to_owned(), size, first, end };
    let (stream, other) = (extent(STREAM, 40, 5, 40), extent(OTHER, 4, 0, 4));
    let check = |scope, extents: &[Extent]| {
        let findings = ledger.check_extents(scope, extents);
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(check(Scope::All, &[stream.clone(), other.clone()]), "");
    assert_eq!(check(Scope::All, &[extent(STREAM, 40, 0, 40), other.clone()]), "");
    assert_eq!(check(Scope::Selection, &[extent(STREAM, 40, 20, 21)]), "");
    insta::assert_snapshot!(check(Scope::All, std::slice::from_ref(&stream)), @"missing: auth_audit_log/5y: the stream of 4 records is not there");
    insta::assert_snapshot!(check(Scope::All, &[extent(STREAM, 40, 6, 40), other.clone()]), @"missing: sys_audit_log/7y, record 5: the records are not there");
    assert_eq!(check(Scope::All, &[extent(STREAM, 40, 3, 40), other.clone()]), "");
    insta::assert_snapshot!(check(Scope::All, &[extent(STREAM, 40, 5, 39), other.clone()]), @"missing: sys_audit_log/7y, record 39: the records are not there");
    insta::assert_snapshot!(check(Scope::All, &[extent(STREAM, 39, 5, 39), other.clone()]), @"missing: sys_audit_log/7y: the stream is said to have 39 records, its newest commit says 40");
    insta::assert_snapshot!(check(Scope::Selection, &[extent(STREAM, 41, 5, 41)]), @"altered: sys_audit_log/7y: the stream is said to have 41 records, its newest commit says 40");
    insta::assert_snapshot!(check(Scope::Selection, &[extent("x/1y", 1, 0, 1)]), @"altered: x/1y: no commit names the stream");
}

#[test]
fn p5_any_changed_bit_of_the_meta_log_is_found() {
    let book = book();
    let leaves = book.leaves.concat();
    for at in 0..leaves.len() {
        let mut changed = leaves.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(verify_meta(&book, book.checkpoints(), &changed).is_err(), "byte {at}");
    }
}

#[test]
fn p5_checkpoints_and_meta_log_must_fit() {
    let book = book();
    let leaves = book.leaves.concat();
    let cut = book.leaves[..book.leaves.len() - 1].concat();
    let longer = [&leaves[..], &MetaLeaf::Heartbeat { time: i64::MAX }.encode()].concat();
    let say = |change: &dyn Fn(&mut Checkpoints), leaves: &[u8]| {
        let mut checkpoints = book.checkpoints();
        change(&mut checkpoints);
        verify_meta(&book, checkpoints, leaves).unwrap_err().to_string()
    };
    let stranger = SigningKey::from_bytes(ORIGIN, &[99; 32]).unwrap();
    let sign = |root: Hash, size: usize, key: &SigningKey| {
        checkpoint::sign(&Checkpoint { origin: ORIGIN.to_owned(), size: size as u64, root }, &[key]).unwrap()
    };
    let size = book.leaves.len();
    let root = root_of(&book.leaf_hashes());
    insta::assert_snapshot!(say(&|_| (), &cut), @"cut: in checkpoint: the meta-log has 10 leaves, the checkpoint says 11");
    insta::assert_snapshot!(say(&|_| (), &longer), @"altered: in checkpoint: the meta-log has 12 leaves, the checkpoint says 11");
    insta::assert_snapshot!(say(&|_| (), &leaves[..leaves.len() - 1]), @"malformed: leaf 10 of the meta-log cannot be read: the meta-log leaf is not well-formed CBOR: end of input bytes");
    insta::assert_snapshot!(say(&|c| c.newest.note = "nothing".to_owned(), &leaves), @"malformed: in checkpoint: it cannot be read: the checkpoint cannot be accepted: malformed note");
    insta::assert_snapshot!(say(&|c| c.newest.note = sign(root, size, &stranger), &leaves), @"forged: in checkpoint: no trusted key signed the checkpoint");
    insta::assert_snapshot!(say(&|c| c.newest.note = c.newest.note.replace(&format!("\n{size}\n"), "\n1\n"), &leaves), @"forged: in checkpoint: the signature of a trusted key on the checkpoint is bad");
    insta::assert_snapshot!(say(&|c| c.newest.note = sign([1; 32], size, &book.keys[2]), &leaves), @"altered: in checkpoint: the first 11 leaves of the meta-log do not have the root that was signed");
    insta::assert_snapshot!(say(&|c| c.origin = "other.example.org".to_owned(), &leaves), @"malformed: in checkpoint: the checkpoint is of audit.example.org/1c0f, not of other.example.org");
    insta::assert_snapshot!(say(&|c| c.rotations.clear(), &leaves), @"forged: in checkpoint: no trusted key signed the checkpoint");
    insta::assert_snapshot!(say(&|c| c.rotations[0].note = sign([1; 32], 7, &book.keys[0]), &leaves), @"altered: in checkpoints/7: the first 7 leaves of the meta-log do not have the root that was signed");
    let publish = |note: String| move |c: &mut Checkpoints| c.published.push(named("published", &note));
    insta::assert_snapshot!(say(&publish(sign([1; 32], size + 1, &book.keys[2])), &leaves), @"cut: in published: a checkpoint of 12 leaves was published, but there are only 11");
    insta::assert_snapshot!(say(&publish(sign([1; 32], 3, &book.keys[0])), &leaves), @"altered: in published: the first 3 leaves of the meta-log do not have the root that was signed");
    insta::assert_snapshot!(say(&publish(sign(root, size, &stranger)), &leaves), @"forged: in published: no trusted key signed the checkpoint");
    let mut good = book.checkpoints();
    good.published.push(named("published", &book.note(3, &[&book.keys[0]])));
    verify_meta(&book, good, &leaves).unwrap();
}

#[test]
fn p5_a_retired_key_signs_nothing_new() {
    let book = book();
    let leaves = book.leaves.concat();
    let size = book.leaves.len();
    let mut checkpoints = book.checkpoints();
    checkpoints.newest.note = book.note(size, &[&book.keys[1]]);
    insta::assert_snapshot!(verify_meta(&book, checkpoints, &leaves).unwrap_err(), @"forged: in checkpoint: the checkpoint is not signed by the keys that were in force at its size");
    let mut checkpoints = book.checkpoints();
    checkpoints.rotations[0].note = book.note(7, &[&book.keys[0]]);
    assert_eq!(verify_meta(&book, checkpoints, &leaves).unwrap_err().verdict, Verdict::Forged);
    let mut checkpoints = book.checkpoints();
    checkpoints.published.push(named("published", &book.note(size - 1, &[&book.keys[0]])));
    insta::assert_snapshot!(verify_meta(&book, checkpoints, &leaves).unwrap_err(), @"forged: in published: the checkpoint is not signed by the keys that were in force at its size");
}

#[test]
fn any_key_of_the_chain_can_be_the_trusted_one() {
    let book = book();
    for key in &book.keys {
        let mut verifier = MetaVerifier::new(book.checkpoints()).unwrap();
        verifier.add_sequence(&book.leaves.concat());
        assert_eq!(verifier.finish(key.verifier_key()).unwrap().keys.len(), 3);
    }
}

#[test]
fn p5_a_forged_checkpoint_is_forged_whatever_the_leaves() {
    let book = book();
    let stranger = SigningKey::from_bytes(ORIGIN, &[99; 32]).unwrap();
    for (size, leaves) in [(3, book.leaves.concat()), (11, book.leaves[..7].concat()), (40, book.leaves.concat()), (11, vec![0xff])] {
        let mut checkpoints = book.checkpoints();
        checkpoints.rotations.clear();
        let forged = Checkpoint { origin: ORIGIN.to_owned(), size, root: [5; 32] };
        checkpoints.newest.note = checkpoint::sign(&forged, &[&stranger]).unwrap();
        assert_eq!(verify_meta(&book, checkpoints, &leaves).unwrap_err().verdict, Verdict::Forged);
    }
}

#[test]
fn a_schema_says_which_columns_a_log_has() {
    let mut book = book();
    let column = |name: &str| Column { name: name.to_owned(), kind: Kind::Decimal, precision: Some(9), scale: Some(2) };
    let mut more = columns();
    more.push(column("c"));
    book.push(|time| MetaLeaf::Schema { time, log: log_of(STREAM), columns: more.clone() });
    let ledger = ledger(&book);
    assert_eq!(ledger.columns, BTreeMap::from([(log_of(STREAM), more.clone()), (log_of(OTHER), columns())]));
    assert_eq!(ledger.check_columns(&ledger.columns), Ok(()));
    more.pop();
    let finding = ledger.check_columns(&BTreeMap::from([(log_of(STREAM), more)])).unwrap_err();
    insta::assert_snapshot!(finding, @"altered: the columns of sys_audit_log are not those of its newest schema leaf");
}

#[test]
fn a_meta_log_that_breaks_a_rule_is_malformed() {
    let cases: &[&dyn Fn(&mut Book)] = &[
        &|book| book.push(|time| MetaLeaf::Heartbeat { time: time - 5_000 }),
        &|book| book.push(|time| MetaLeaf::Key { time, vkey: String::new(), previous: None }),
        &|book| {
            let streams = vec![StreamHead { stream: STREAM.to_owned(), size: 39, root: [0; 32] }];
            book.push(|time| MetaLeaf::Commit { time, streams });
        },
        &|book| book.dispose(STREAM, 41),
        &|book| book.dispose("x/1y", 1),
        &|book| {
            let streams = vec![StreamHead { stream: STREAM.to_owned(), size: 40, root: [0; 32] }];
            book.push(|time| MetaLeaf::Commit { time, streams });
        },
        &|book| {
            let streams = vec![StreamHead { stream: "no_schema/1y".to_owned(), size: 1, root: [0; 32] }];
            book.push(|time| MetaLeaf::Commit { time, streams });
        },
        &|book| book.push(|time| MetaLeaf::Schema { time, log: log_of(STREAM), columns: columns()[1..].to_vec() }),
        &|book| book.push(|time| MetaLeaf::Schema { time, log: "a b".to_owned(), columns: vec![] }),
        &|book| {
            let mut twice = columns();
            twice.push(twice[0].clone());
            book.push(|time| MetaLeaf::Schema { time, log: log_of(STREAM), columns: twice });
        },
        &|book| {
            let (vkey, previous) = (book.keys[1].verifier_key().to_string(), Some(book.keys[0].verifier_key().to_string()));
            book.push(|time| MetaLeaf::Key { time, vkey, previous });
        },
        &|book| {
            book.push(|time| MetaLeaf::Erasure { time, stream: STREAM.to_owned(), indexes: vec![40], authority: String::new() });
        },
    ];
    for (i, change) in cases.iter().enumerate() {
        let mut book = book();
        change(&mut book);
        let finding = verify_meta(&book, book.checkpoints(), &book.leaves.concat()).unwrap_err();
        assert!(matches!(finding.reason, Reason::Rule { number: 11, .. }), "{i}: {finding}");
    }
}

#[test]
fn leaves_one_by_one_are_a_sequence() {
    let book = book();
    let mut verifier = MetaVerifier::new(book.checkpoints()).unwrap();
    for leaf in &book.leaves {
        verifier.add(leaf);
    }
    let one_by_one = verifier.finish(book.keys[0].verifier_key()).unwrap();
    assert_eq!(one_by_one.streams, ledger(&book).streams);
}

#[test]
fn an_outcome_says_all_in_a_few_lines() {
    let mut outcome = Outcome { leaves: 9, streams: 2, records: 44, erased: 1, disposed: 5, findings: vec![] };
    assert_eq!((outcome.verdict(), outcome.exit_code()), (Verdict::Valid, 0));
    insta::assert_snapshot!(outcome, @"valid: 44 records in 2 streams, 9 meta-log leaves; erased with authority: 1; disposed with authority: 5");
    outcome.findings.push(Finding::new(Verdict::Cut, Reason::OlderThanPublished { published: 10, size: 9 }));
    assert_eq!((outcome.verdict(), outcome.exit_code()), (Verdict::Cut, 1));
    insta::assert_snapshot!(outcome, @r"
    cut: a checkpoint of 10 leaves was published, but there are only 9
    failed: 44 records in 2 streams, 9 meta-log leaves; erased with authority: 1; disposed with authority: 5
    ");
}
