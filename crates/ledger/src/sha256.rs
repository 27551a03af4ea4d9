//! SHA-256 of independent messages at once.
//!
//! A core's SHA instructions take four cycles each but a new one can start every two, so one message alone leaves half of
//! the unit idle. Here two messages run side by side in one instruction stream. Where registers have 512 bits, many messages are
//! hashed sixteen at a time, with ordinary instructions, each in its own lane. Without any of these
//! the work is done by `sha2`, one message after the other. This is the only module with `unsafe` code.

use crate::Hash;

/// The chaining value between blocks.
pub(crate) type State = [u32; 8];
/// One 64-byte block of a padded message.
pub(crate) type Block = [u8; 64];

/// The state before the first block (FIPS 180-4 §5.3.3).
pub(crate) const START: State = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A padded message, or a part of one, as a sequence of blocks.
pub(crate) trait Blocks {
    /// Number of blocks.
    fn count(&self) -> usize;
    /// The `i`th block, `i < count()`.
    fn block(&self, i: usize) -> &Block;
}

impl Blocks for [Block] {
    #[inline(always)]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn block(&self, i: usize) -> &Block {
        &self[i]
    }
}

/// `prefix ‖ body` with its padding; only the first and the last blocks are copied.
pub(crate) struct Message<'a> {
    head: Option<Block>,
    middle: &'a [Block],
    tail: [Block; 2],
    tail_blocks: usize,
}

impl<'a> Message<'a> {
    /// A message of a prefix of at most 64 bytes and a body.
    #[inline]
    pub(crate) fn new(prefix: &[u8], body: &'a [u8]) -> Self {
        debug_assert!(prefix.len() <= 64);
        let total = prefix.len() + body.len();
        let mut message = Self { head: None, middle: &[], tail: [[0; 64]; 2], tail_blocks: 0 };
        let mut used = 0;
        let tail = message.tail.as_flattened_mut();
        if total < 64 {
            tail[..prefix.len()].copy_from_slice(prefix);
            tail[prefix.len()..total].copy_from_slice(body);
            used += total;
        } else {
            let (first, rest) = body.split_at(64 - prefix.len());
            let mut head = [0; 64];
            head[..prefix.len()].copy_from_slice(prefix);
            head[prefix.len()..].copy_from_slice(first);
            message.head = Some(head);
            let (middle, last) = rest.as_chunks();
            message.middle = middle;
            tail[..last.len()].copy_from_slice(last);
            used += last.len();
        }
        tail[used] = 0x80;
        message.tail_blocks = if used < 56 { 1 } else { 2 };
        let end = message.tail_blocks * 64;
        tail[end - 8..end].copy_from_slice(&(total as u64 * 8).to_be_bytes());
        message
    }
}

impl Blocks for Message<'_> {
    #[inline(always)]
    fn count(&self) -> usize {
        usize::from(self.head.is_some()) + self.middle.len() + self.tail_blocks
    }

    #[inline(always)]
    fn block(&self, mut i: usize) -> &Block {
        if let Some(head) = &self.head {
            if i == 0 {
                return head;
            }
            i -= 1;
        }
        self.middle.get(i).unwrap_or_else(|| &self.tail[i - self.middle.len()])
    }
}

/// The hash that a final state stands for.
#[inline]
pub(crate) fn hash_of(state: &State) -> Hash {
    let mut hash = [0; 32];
    for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    hash
}

/// Below so many messages, pairs are faster than sixteen lanes of which some are idle.
const FEW: usize = 16;

/// Hashes messages `0..n`; `write` appends the blocks of one, padded and at least one, to an empty buffer, and `done` takes a number and the final state, in any order. All
/// start from `start`.
pub(crate) fn compress_all(start: &State, n: usize, write: impl Fn(usize, &mut Vec<Block>), mut done: impl FnMut(usize, &State)) {
    #[cfg(target_arch = "x86_64")]
    if n >= FEW && *HAS_AVX512 {
        // SAFETY: the CPU has the instructions, as just asked.
        return unsafe { avx512::compress_all(start, n, write, done) };
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for i in (0..n & !1).step_by(2) {
        a.clear();
        b.clear();
        write(i, &mut a);
        write(i + 1, &mut b);
        let (mut first, mut second) = (*start, *start);
        compress_pair(&mut first, &a[..], &mut second, &b[..]);
        done(i, &first);
        done(i + 1, &second);
    }
    if n % 2 == 1 {
        a.clear();
        write(n - 1, &mut a);
        let mut state = *start;
        compress(&mut state, &a[..]);
        done(n - 1, &state);
    }
}

/// As [`compress_all`], for messages of `N` blocks each, in order.
pub(crate) fn compress_each<const N: usize>(
    start: &State,
    n: usize,
    message: impl Fn(usize) -> [Block; N],
    mut done: impl FnMut(usize, &State),
) {
    let mut from = 0;
    #[cfg(target_arch = "x86_64")]
    if n >= FEW && *HAS_AVX512 {
        // SAFETY: the CPU has the instructions, as just asked.
        from = unsafe { avx512::compress_each(start, n, &message, &mut done) };
    }
    while from + 2 <= n {
        let (mut first, mut second) = (*start, *start);
        compress_pair(&mut first, &message(from)[..], &mut second, &message(from + 1)[..]);
        done(from, &first);
        done(from + 1, &second);
        from += 2;
    }
    if from < n {
        let mut state = *start;
        compress(&mut state, &message(from)[..]);
        done(from, &state);
    }
}

/// Appends the hashes of messages `0..n` to `out`; `write` is as for [`compress_all`].
pub(crate) fn hash_all(n: usize, write: impl Fn(usize, &mut Vec<Block>), out: &mut Vec<Hash>) {
    let before = out.len();
    out.resize(before + n, [0; 32]);
    let hashes = &mut out[before..];
    compress_all(&START, n, write, |i, state| hashes[i] = hash_of(state));
}

/// Appends the hashes of messages `0..n`, of `N` blocks each, to `out`.
pub(crate) fn hash_each<const N: usize>(n: usize, message: impl Fn(usize) -> [Block; N], out: &mut Vec<Hash>) {
    out.reserve(n);
    compress_each(&START, n, message, |_, state| out.push(hash_of(state)));
}

/// Appends `prefix ‖ body` with its padding to a buffer.
#[inline]
pub(crate) fn pad<const P: usize>(prefix: &[u8; P], body: &[u8], out: &mut Vec<Block>) {
    let total = P + body.len();
    let blocks = total / 64 + 1 + usize::from(total % 64 >= 56);
    let before = out.len();
    out.reserve(blocks);
    out.resize(before + blocks, [0; 64]);
    let bytes = out[before..].as_flattened_mut();
    bytes[..P].copy_from_slice(prefix);
    bytes[P..total].copy_from_slice(body);
    bytes[total] = 0x80;
    let end = bytes.len();
    bytes[end - 8..].copy_from_slice(&(total as u64 * 8).to_be_bytes());
}

/// Hashes one padded message.
#[inline]
pub(crate) fn hash_one(message: &(impl Blocks + ?Sized)) -> Hash {
    let mut state = START;
    compress(&mut state, message);
    hash_of(&state)
}

/// Hashes one message, unpadded.
pub(crate) fn digest(message: &[u8]) -> Hash {
    hash_one(&Message::new(&[], message))
}

/// Takes every block of `message` into `state`.
#[inline]
pub(crate) fn compress(state: &mut State, message: &(impl Blocks + ?Sized)) {
    #[cfg(target_arch = "x86_64")]
    if *HAS_SHA {
        // SAFETY: the CPU has the instructions, as just asked.
        return unsafe { sha_ni::compress(state, message) };
    }
    portable(state, message);
}

/// Takes every block of `a_message` into `a` and of `b_message` into `b`; faster than one after the other.
#[inline]
pub(crate) fn compress_pair(a: &mut State, a_message: &(impl Blocks + ?Sized), b: &mut State, b_message: &(impl Blocks + ?Sized)) {
    #[cfg(target_arch = "x86_64")]
    if *HAS_SHA {
        // SAFETY: the CPU has the instructions, as just asked.
        return unsafe { sha_ni::compress_pair(a, a_message, b, b_message) };
    }
    portable(a, a_message);
    portable(b, b_message);
}

#[cfg(target_arch = "x86_64")]
static HAS_SHA: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
    is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("sse2")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
});

#[cfg(target_arch = "x86_64")]
static HAS_AVX512: std::sync::LazyLock<bool> =
    std::sync::LazyLock::new(|| is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"));

/// The round constants (FIPS 180-4 §4.2.2), four a row.
#[cfg(target_arch = "x86_64")]
const K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

fn portable(state: &mut State, message: &(impl Blocks + ?Sized)) {
    for i in 0..message.count() {
        sha2::compress256(state, &[(*message.block(i)).into()]);
    }
}

#[cfg(target_arch = "x86_64")]
mod sha_ni;

#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn expected(prefix: &[u8], body: &[u8]) -> Hash {
        Sha256::new().chain_update(prefix).chain_update(body).finalize().into()
    }

    fn portable_hash(message: &(impl Blocks + ?Sized)) -> Hash {
        let mut state = START;
        portable(&mut state, message);
        hash_of(&state)
    }

    #[test]
    fn every_length_to_300_agrees_with_sha2() {
        let bytes: Vec<u8> = (0..300).map(|i| (i * 7 + 3) as u8).collect();
        for prefix in [0, 1, 16, 63, 64] {
            for length in 0..300 - prefix {
                let (prefix, body) = bytes[..prefix + length].split_at(prefix);
                let message = Message::new(prefix, body);
                assert_eq!(hash_one(&message), expected(prefix, body), "{} + {length}", prefix.len());
                assert_eq!(portable_hash(&message), expected(prefix, body), "{} + {length}", prefix.len());
            }
        }
        assert_eq!(digest(b"abc"), expected(b"", b"abc"));
    }

    proptest! {
        #[test]
        fn pairs_agree_with_sha2(
            a in prop::collection::vec(any::<u8>(), 0..700),
            b in prop::collection::vec(any::<u8>(), 0..700),
            salt in any::<[u8; 16]>(),
        ) {
            let (mut first, mut second) = (START, START);
            compress_pair(&mut first, &Message::new(&salt, &a), &mut second, &Message::new(&[], &b));
            prop_assert_eq!([hash_of(&first), hash_of(&second)], [expected(&salt, &a), expected(&[], &b)]);
        }

        #[test]
        fn as_many_of_one_length_agree_with_sha2(bodies in prop::collection::vec(any::<[u8; 70]>(), 0..70)) {
            let blocks = |i: usize| {
                let mut blocks = Vec::new();
                pad(&[], &bodies[i], &mut blocks);
                [blocks[0], blocks[1]]
            };
            let mut hashes = vec![[9; 32]];
            hash_each(bodies.len(), blocks, &mut hashes);
            let all = bodies.iter().map(|body| expected(&[], body));
            prop_assert_eq!(hashes, std::iter::once([9; 32]).chain(all).collect::<Vec<_>>());
        }

        #[test]
        fn many_agree_with_sha2(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..70), salt in any::<[u8; 16]>()) {
            let mut hashes = vec![[9; 32]];
            hash_all(bodies.len(), |i, out| pad(&salt, &bodies[i], out), &mut hashes);
            let all = bodies.iter().map(|body| expected(&salt, body));
            prop_assert_eq!(hashes, std::iter::once([9; 32]).chain(all).collect::<Vec<_>>());
        }
    }
}
