//! Salts, payload hashes, headers and chains against the text of the format.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use hmac::{Hmac, Mac as _};
use muniment_ledger::{Hash, Header, NO_HASH, PartitionKey, Salt, StreamId, chain, leaf_hashes, payload_hash, payload_hashes};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

#[test]
fn a_header_has_the_bytes_of_the_format() {
    let stream = StreamId::new("audit.example.org/1c0f", "sys_audit_log/7y");
    let name_hash = Sha256::digest(b"audit.example.org/1c0f\0sys_audit_log/7y");
    assert_eq!(stream.as_bytes()[..], name_hash[..16]);
    let header = Header {
        stream,
        stream_index: 0x0102_0304_0506_0708,
        id: -2,
        recorded_at: 1_767_225_600_000_000,
        payload_hash: [0xaa; 32],
        previous_hash: [0xbb; 32],
    };
    let expected = [
        &[1][..],
        &name_hash[..16],
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &(-2_i64).to_be_bytes(),
        &1_767_225_600_000_000_i64.to_be_bytes(),
        &[0xaa; 32],
        &[0xbb; 32],
    ]
    .concat();
    assert_eq!(header.to_bytes()[..], expected);
    assert_eq!(header.leaf_hash()[..], Sha256::new().chain_update([0]).chain_update(&expected).finalize()[..]);
}

#[test]
fn a_partition_key_does_not_show_itself() {
    assert_eq!(format!("{:?}", PartitionKey::new(&[0x55; 32])), "PartitionKey(..)");
}

proptest! {
    #[test]
    fn salts_are_hmacs(key in any::<[u8; 32]>(), ids in prop::collection::vec(any::<i64>(), 0..9)) {
        let partition = PartitionKey::new(&key);
        let mut salts = Vec::new();
        partition.salts(&ids, &mut salts);
        prop_assert_eq!(salts.len(), ids.len());
        for (id, salt) in ids.iter().zip(salts) {
            let expected = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(id.to_be_bytes()).finalize();
            prop_assert_eq!(&expected.into_bytes()[..16], &salt);
            prop_assert_eq!(partition.salt(*id), salt);
        }
    }

    #[test]
    fn batches_agree_with_single_records(
        records in prop::collection::vec((any::<Salt>(), prop::collection::vec(any::<u8>(), 0..300), any::<i64>()), 0..12),
        first in 0..1_u64 << 40,
        recorded_at in any::<i64>(),
        previous in any::<Hash>(),
    ) {
        let stream = StreamId::new("o", "s/1y");
        let salts: Vec<Salt> = records.iter().map(|record| record.0).collect();
        let ids: Vec<i64> = records.iter().map(|record| record.2).collect();
        let mut bytes = vec![0xff; 3];
        let mut offsets = vec![3];
        for (_, payload, _) in &records {
            bytes.extend(payload);
            offsets.push(bytes.len());
        }
        let mut payloads = Vec::new();
        payload_hashes(&salts, &bytes, &offsets, &mut payloads);
        let hashes = chain(stream, first, &ids, recorded_at, &payloads, previous);
        let mut leaves = Vec::new();
        leaf_hashes(stream, first, &ids, &vec![recorded_at; ids.len()], &payloads, previous, &hashes, &mut leaves);
        prop_assert_eq!(&leaves, &hashes);
        let mut before = previous;
        for (i, (salt, payload, id)) in records.iter().enumerate() {
            let expected: Hash = Sha256::new().chain_update(salt).chain_update(payload).finalize().into();
            prop_assert_eq!(payloads[i], expected);
            prop_assert_eq!(payload_hash(salt, payload), expected);
            let header = Header {
                stream,
                stream_index: first + i as u64,
                id: *id,
                recorded_at,
                payload_hash: expected,
                previous_hash: before,
            };
            before = header.leaf_hash();
            prop_assert_eq!(hashes[i], before);
        }
    }
}

#[test]
fn p4_a_chain_continues_over_batches() {
    let stream = StreamId::new("o", "s/1y");
    let payloads: Vec<Hash> = (0..7).map(|i| [i; 32]).collect();
    let ids: Vec<i64> = (10..17).collect();
    let whole = chain(stream, 0, &ids, 5, &payloads, NO_HASH);
    let first = chain(stream, 0, &ids[..3], 5, &payloads[..3], NO_HASH);
    let second = chain(stream, 3, &ids[3..], 5, &payloads[3..], first[2]);
    assert_eq!([first, second].concat(), whole);
}
