//! Meta-log leaves and checkpoints: round trips, known bytes, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use muniment_ledger::bundle::{Column, Kind};
use muniment_ledger::checkpoint::{self, Checkpoint, SigningKey, VerifierKey};
use muniment_ledger::meta::{MetaLeaf, StreamHead};
use muniment_ledger::{Error, Hash};
use proptest::prelude::*;

fn any_column() -> impl Strategy<Value = Column> {
    (".*", prop::sample::select(&Kind::ALL[..]), 1..=Column::MAX_PRECISION).prop_map(|(name, kind, digits)| {
        let digits = (kind == Kind::Decimal).then_some(digits);
        Column { name, kind, precision: digits, scale: digits.map(|digits| digits / 2) }
    })
}

fn any_leaf() -> impl Strategy<Value = MetaLeaf> {
    let head = |(size, root): (u64, Hash)| move |stream: String| StreamHead { stream, size, root };
    let heads = prop::collection::btree_map("[a-z]{0,30}", (0..1_u64 << 63, any::<Hash>()), 1..4)
        .prop_map(move |heads| heads.into_iter().map(|(name, rest)| head(rest)(name)).collect());
    prop_oneof![
        (any::<i64>(), ".*", prop::option::of(".*")).prop_map(|(time, vkey, previous)| MetaLeaf::Key { time, vkey, previous }),
        (any::<i64>(), heads).prop_map(|(time, streams)| MetaLeaf::Commit { time, streams }),
        (any::<i64>(), ".*", prop::collection::vec(any_column(), 0..5)).prop_map(|(time, log, columns)| MetaLeaf::Schema {
            time,
            log,
            columns
        }),
        any::<i64>().prop_map(|time| MetaLeaf::Heartbeat { time }),
        (any::<i64>(), 0..1_u64 << 63, ".*", ".*").prop_map(|(time, end, policy, stream)| MetaLeaf::Disposal { time, stream, end, policy }),
        (any::<i64>(), prop::collection::btree_set(0..1_u64 << 63, 0..40), ".*", ".*").prop_map(|(time, indexes, authority, stream)| {
            MetaLeaf::Erasure { time, stream, indexes: indexes.into_iter().collect(), authority }
        }),
    ]
}

proptest! {
    #[test]
    fn leaves_survive_encoding(leaf in any_leaf()) {
        let bytes = leaf.encode();
        prop_assert_eq!(MetaLeaf::decode(&bytes).unwrap(), leaf.clone());
        prop_assert_eq!(leaf.leaf_hash(), muniment_ledger::leaf_hash(&bytes));
        let sequence = [&bytes[..], &[0xa0]].concat();
        prop_assert!(MetaLeaf::decode(&sequence).is_err());
        prop_assert_eq!(MetaLeaf::decode_first(&sequence).unwrap(), (leaf, bytes.len()));
    }

    /// Decoding is injective: no other bytes decode to the same leaf.
    #[test]
    fn p5_a_changed_leaf_is_refused_or_another(leaf in any_leaf(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = leaf.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = MetaLeaf::decode(&bytes) {
            prop_assert_ne!(&other, &leaf);
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        drop(MetaLeaf::decode(&bytes));
        drop(muniment_ledger::decode_payload(&bytes));
    }
}

#[test]
fn a_commit_has_the_bytes_of_the_format() {
    let streams = vec![StreamHead { stream: "a/1y".to_owned(), size: 500, root: [7; 32] }];
    let expected = [
        &b"\xa3\x64time\x1a\x00\x01\x00\x00\x64type\x66commit\x67streams\x81\xa3\x64root\x58\x20"[..],
        &[7; 32],
        b"\x64size\x19\x01\xf4\x66stream\x64a/1y",
    ]
    .concat();
    assert_eq!(MetaLeaf::Commit { time: 65536, streams }.encode(), expected);
}

#[test]
fn map_keys_are_sorted_by_their_encoding() {
    let leaf = MetaLeaf::Erasure { time: 1, stream: "s".to_owned(), indexes: vec![3], authority: "court".to_owned() };
    let expected: &[u8] = b"\xa5\x64time\x01\x64type\x67erasure\x66stream\x61s\x67indexes\x81\x03\x69authority\x65court";
    assert_eq!(leaf.encode(), expected);
    let leaf = MetaLeaf::Disposal { time: 1, stream: "s".to_owned(), end: 3, policy: "p".to_owned() };
    let expected: &[u8] = b"\xa5\x63end\x03\x64time\x01\x64type\x68disposal\x66policy\x61p\x66stream\x61s";
    assert_eq!(leaf.encode(), expected);
    let column = |name: &str, kind, precision, scale| Column { name: name.to_owned(), kind, precision, scale };
    let columns = vec![column("x", Kind::Decimal, Some(18), Some(6)), column("n", Kind::Int, None, None)];
    let leaf = MetaLeaf::Schema { time: 1, log: "l".to_owned(), columns };
    let expected: &[u8] = b"\xa4\x63log\x61l\x64time\x01\x64type\x66schema\x67columns\x82\
        \xa4\x64kind\x67decimal\x64name\x61x\x65scale\x06\x69precision\x12\xa2\x64kind\x63int\x64name\x61n";
    assert_eq!(leaf.encode(), expected);
    let leaf = MetaLeaf::Key { time: 1, vkey: "k".to_owned(), previous: Some("j".to_owned()) };
    assert_eq!(leaf.encode(), b"\xa4\x64time\x01\x64type\x63key\x64vkey\x61k\x68previous\x61j");
}

#[test]
fn leaves_that_are_not_deterministic_are_refused() {
    let head = |stream: &str| StreamHead { stream: stream.to_owned(), size: 1, root: [0; 32] };
    let unsorted = MetaLeaf::Commit { time: 1, streams: vec![head("b"), head("a")] }.encode();
    let twice = MetaLeaf::Commit { time: 1, streams: vec![head("a"), head("a")] }.encode();
    let indexes = MetaLeaf::Erasure { time: 1, stream: String::new(), indexes: vec![2, 1], authority: String::new() };
    let cases: &[(&str, &[u8])] = &[
        ("empty", b""),
        ("no map", b"\x01"),
        ("no fields", b"\xa0"),
        ("streams unsorted", &unsorted),
        ("a stream twice", &twice),
        ("indexes unsorted", &indexes.encode()),
        ("keys unsorted", b"\xa2\x64type\x69heartbeat\x64time\x01"),
        ("long integer", b"\xa2\x64time\x18\x01\x64type\x69heartbeat"),
        ("long map head", b"\xb8\x02\x64time\x01\x64type\x69heartbeat"),
        ("indefinite map", b"\xbf\x64time\x01\x64type\x69heartbeat\xff"),
        ("a field twice", b"\xa3\x64time\x01\x64time\x01\x64type\x69heartbeat"),
        ("unknown field", b"\xa3\x64time\x01\x64type\x69heartbeat\x64vkez\x61a"),
        ("field of another type", b"\xa3\x64time\x01\x64type\x69heartbeat\x64vkey\x61a"),
        ("unknown type", b"\xa2\x64time\x01\x64type\x65other"),
        ("time is text", b"\xa2\x64time\x61a\x64type\x69heartbeat"),
        ("bytes follow", b"\xa2\x64time\x01\x64type\x69heartbeat\x00"),
        ("no stream", b"\xa3\x64time\x01\x64type\x66commit\x67streams\x80"),
        ("number too large", b"\xa5\x63end\x1b\x80\0\0\0\0\0\0\0\x64time\x01\x64type\x68disposal\x66policy\x61p\x66stream\x61s"),
        ("decimal without digits", b"\xa4\x63log\x61l\x64time\x01\x64type\x66schema\x67columns\x81\xa2\x64kind\x67decimal\x64name\x61x"),
        ("time missing", b"\xa1\x64type\x69heartbeat"),
    ];
    for (name, bytes) in cases {
        assert!(MetaLeaf::decode(bytes).is_err(), "{name}");
    }
    assert!(MetaLeaf::decode(b"\xa2\x64time\x01\x64type\x69heartbeat").is_ok());
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes("audit.example.org/1c0f", &[seed; 32]).unwrap()
}

fn some_checkpoint() -> Checkpoint {
    Checkpoint { origin: "audit.example.org/1c0f".to_owned(), size: 43, root: [3; 32] }
}

#[test]
fn a_checkpoint_is_the_text_of_the_format() {
    let note = checkpoint::sign(&some_checkpoint(), &[&key(1)]).unwrap();
    insta::assert_snapshot!(note, @r"
    audit.example.org/1c0f
    43
    AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=

    — audit.example.org/1c0f STZVsrstUjoJaf19J2jPVN3SPqw882l9n3LloIdpYzUMEUwej70678yICiGEikqs1vv0/S/hJX6WqKOX8Ym/g25+PwI=
    ");
    insta::assert_snapshot!(key(1).verifier_key(), @"audit.example.org/1c0f+493655b2+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c");
    let text = note.split_once("\n\n").unwrap().0.to_owned() + "\n";
    let theirs = tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).unwrap();
    assert_eq!((theirs.size(), theirs.hash().0), (43, [3; 32]));
}

#[test]
fn checkpoints_open_only_with_a_trusted_key() {
    let (old, new, other) = (key(1), key(2), key(3));
    let trust = |keys: &[&SigningKey]| keys.iter().map(|key| key.verifier_key().clone()).collect::<Vec<_>>();
    let note = checkpoint::sign(&some_checkpoint(), &[&old, &new]).unwrap();
    for (keys, signers) in [(vec![&old], 1), (vec![&new, &other], 1), (vec![&old, &new, &old], 2)] {
        let opened = checkpoint::open(&note, &trust(&keys)).unwrap();
        assert_eq!((opened.checkpoint, opened.signers.len()), (some_checkpoint(), signers));
    }
    assert!(matches!(checkpoint::open(&note, &trust(&[&other])), Err(Error::Note(_))));
    assert!(matches!(checkpoint::open(&note, &[]), Err(Error::Note(_))));
    assert_eq!(checkpoint::parse_unverified(&note).unwrap(), some_checkpoint());
    let foreign = SigningKey::from_bytes("other.example.org", &[1; 32]).unwrap();
    assert!(matches!(checkpoint::sign(&some_checkpoint(), &[&foreign]), Err(Error::Signer { .. })));
    assert!(matches!(checkpoint::sign(&some_checkpoint(), &[]), Err(Error::Signer { .. })));
}

#[test]
fn p5_a_changed_checkpoint_is_refused() {
    let signer = key(1);
    let note = checkpoint::sign(&some_checkpoint(), &[&signer]).unwrap();
    let trusted = [signer.verifier_key().clone()];
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let opened = str::from_utf8(&bytes).ok().and_then(|note| checkpoint::open(note, &trusted).ok());
            assert!(opened.is_none(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn only_three_lines_are_a_checkpoint() {
    use signed_note::Note;
    let signer = key(1);
    let root = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
    let cases = [
        (true, format!("audit.example.org/1c0f\n43\n{root}\n")),
        (false, format!("audit.example.org/1c0f\n43\n{root}\nextension\n")),
        (false, "audit.example.org/1c0f\n43\n".to_owned()),
        (false, format!("audit.example.org/1c0f\n043\n{root}\n")),
        (false, format!("audit.example.org/1c0f\n+43\n{root}\n")),
        (false, format!("audit.example.org/1c0f\n-1\n{root}\n")),
        (false, format!("audit.example.org/1c0f\n18446744073709551616\n{root}\n")),
        (false, format!("\n43\n{root}\n")),
        (false, format!("other.example.org\n43\n{root}\n")),
        (false, "audit.example.org/1c0f\n43\nAwMD\n".to_owned()),
    ];
    for (good, text) in cases {
        let mut note = Note::new(text.as_bytes(), &[]).unwrap();
        note.add_sigs(&[&signer]).unwrap();
        let note = String::from_utf8(note.to_bytes()).unwrap();
        assert_eq!(checkpoint::open(&note, &[signer.verifier_key().clone()]).is_ok(), good, "{text:?}");
    }
}

#[test]
fn verifier_keys_survive_their_text() {
    let key = key(9).verifier_key().clone();
    assert_eq!(key.to_string().parse::<VerifierKey>().unwrap(), key);
    let (name, rest) = key.as_str().split_once('+').unwrap();
    let (id, bytes) = rest.split_once('+').unwrap();
    assert_eq!(format!("{name}+{}+{bytes}", id.to_uppercase()).parse::<VerifierKey>().unwrap(), key);
    for bad in ["", "a+b+c", &format!("{name}+00000000+{bytes}"), &format!("other+{id}+{bytes}")] {
        assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
    }
}

#[test]
fn a_signing_key_does_not_show_itself() {
    let seed = [0x5a; 32];
    let key = SigningKey::from_bytes("o", &seed).unwrap();
    assert_eq!(key.to_bytes(), seed);
    let shown = format!("{key:?}");
    assert!(shown.starts_with("SigningKey { verifier: VerifierKey(o+") && !shown.contains("90, 90"), "{shown}");
    for bad in ["", "a b", "a+b", "a\nb", "a\u{7f}"] {
        assert!(SigningKey::from_bytes(bad, &seed).is_err(), "{bad:?}");
    }
}
