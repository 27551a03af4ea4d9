//! Leaves of the meta-log: what is decoded is encoded to the very same bytes, alone and in a sequence. Edits start from genuine leaves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muniment_fuzz::{BOOK, document};
use muniment_ledger::meta::MetaLeaf;

fuzz_target!(|input: &[u8]| {
    let Some((&which, input)) = input.split_first() else { return };
    let bytes = document(&BOOK.leaves[usize::from(which) % BOOK.leaves.len()], input);
    if let Ok(leaf) = MetaLeaf::decode(&bytes) {
        assert_eq!(leaf.encode(), bytes);
        assert_eq!(MetaLeaf::decode_first(&bytes).expect("the same leaf"), (leaf, bytes.len()));
    }
    if let Ok((leaf, used)) = MetaLeaf::decode_first(&bytes) {
        assert_eq!(MetaLeaf::decode(&bytes[..used]).expect("the same leaf"), leaf);
    }
});
