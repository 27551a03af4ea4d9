//! SHA-256 of two independent messages at once.
//!
//! A core's SHA instructions take four cycles each but a new one can start every two, so one message alone leaves half of
//! the unit idle. Here two messages run side by side in one instruction stream. Without these instructions
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

impl<const N: usize> Blocks for [Block; N] {
    #[inline(always)]
    fn count(&self) -> usize {
        N
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

/// Hashes two padded messages.
#[inline]
pub(crate) fn hash_pair(a: &impl Blocks, b: &impl Blocks) -> [Hash; 2] {
    let (mut first, mut second) = (START, START);
    compress_pair(&mut first, a, &mut second, b);
    [hash_of(&first), hash_of(&second)]
}

/// Hashes one padded message.
#[inline]
pub(crate) fn hash_one(message: &impl Blocks) -> Hash {
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
pub(crate) fn compress(state: &mut State, message: &impl Blocks) {
    #[cfg(target_arch = "x86_64")]
    if *HAS_SHA {
        // SAFETY: the CPU has the instructions, as just asked.
        return unsafe { sha_ni::compress(state, message) };
    }
    portable(state, message);
}

/// Takes every block of `a_message` into `a` and of `b_message` into `b`; faster than one after the other.
#[inline]
pub(crate) fn compress_pair(a: &mut State, a_message: &impl Blocks, b: &mut State, b_message: &impl Blocks) {
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

fn portable(state: &mut State, message: &impl Blocks) {
    for i in 0..message.count() {
        sha2::compress256(state, &[(*message.block(i)).into()]);
    }
}

#[cfg(target_arch = "x86_64")]
mod sha_ni {
    use std::arch::x86_64::*;

    use super::{Block, Blocks, State};

    /// The round constants (FIPS 180-4 §4.2.2), four a row.
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

    /// A state in the two registers that the instructions want: words A, B, E, F and words C, D, G, H.
    #[derive(Clone, Copy)]
    struct Lane {
        abef: __m128i,
        cdgh: __m128i,
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress(state: &mut State, message: &impl Blocks) {
        let mut lanes = [load_state(state)];
        for i in 0..message.count() {
            take_blocks(&mut lanes, [message.block(i)]);
        }
        store_state(lanes[0], state);
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress_pair(a: &mut State, a_message: &impl Blocks, b: &mut State, b_message: &impl Blocks) {
        let (a_count, b_count) = (a_message.count(), b_message.count());
        let both = a_count.min(b_count);
        let mut lanes = [load_state(a), load_state(b)];
        for i in 0..both {
            take_blocks(&mut lanes, [a_message.block(i), b_message.block(i)]);
        }
        let [a_lane, b_lane] = lanes;
        let mut rest = [a_lane];
        for i in both..a_count {
            take_blocks(&mut rest, [a_message.block(i)]);
        }
        store_state(rest[0], a);
        let mut rest = [b_lane];
        for i in both..b_count {
            take_blocks(&mut rest, [b_message.block(i)]);
        }
        store_state(rest[0], b);
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn take_blocks<const N: usize>(lanes: &mut [Lane; N], blocks: [&Block; N]) {
        let before = *lanes;
        let mut w0 = load_words(blocks, 0);
        let mut w1 = load_words(blocks, 1);
        let mut w2 = load_words(blocks, 2);
        let mut w3 = load_words(blocks, 3);
        four_rounds(lanes, &w0, 0);
        four_rounds(lanes, &w1, 1);
        four_rounds(lanes, &w2, 2);
        four_rounds(lanes, &w3, 3);
        for i in [4, 8, 12] {
            w0 = schedule(&w0, &w1, &w2, &w3);
            four_rounds(lanes, &w0, i);
            w1 = schedule(&w1, &w2, &w3, &w0);
            four_rounds(lanes, &w1, i + 1);
            w2 = schedule(&w2, &w3, &w0, &w1);
            four_rounds(lanes, &w2, i + 2);
            w3 = schedule(&w3, &w0, &w1, &w2);
            four_rounds(lanes, &w3, i + 3);
        }
        for (lane, before) in lanes.iter_mut().zip(before) {
            lane.abef = _mm_add_epi32(lane.abef, before.abef);
            lane.cdgh = _mm_add_epi32(lane.cdgh, before.cdgh);
        }
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn four_rounds<const N: usize>(lanes: &mut [Lane; N], words: &[__m128i; N], i: usize) {
        let [k0, k1, k2, k3] = K[i].map(u32::cast_signed);
        let constants = _mm_set_epi32(k3, k2, k1, k0);
        let mut sums = *words;
        for (lane, sum) in lanes.iter_mut().zip(&mut sums) {
            *sum = _mm_add_epi32(*sum, constants);
            lane.cdgh = _mm_sha256rnds2_epu32(lane.cdgh, lane.abef, *sum);
        }
        for (lane, sum) in lanes.iter_mut().zip(sums) {
            lane.abef = _mm_sha256rnds2_epu32(lane.abef, lane.cdgh, _mm_shuffle_epi32(sum, 0x0E));
        }
    }

    /// The next four words of the message schedule of each lane, from the sixteen before.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn schedule<const N: usize>(w0: &[__m128i; N], w1: &[__m128i; N], w2: &[__m128i; N], w3: &[__m128i; N]) -> [__m128i; N] {
        let mut next = *w0;
        for n in 0..N {
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0[n], w1[n]), _mm_alignr_epi8(w3[n], w2[n], 4));
            next[n] = _mm_sha256msg2_epu32(sum, w3[n]);
        }
        next
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn load_words<const N: usize>(blocks: [&Block; N], i: usize) -> [__m128i; N] {
        let big_endian = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
        let mut words = [_mm_setzero_si128(); N];
        for (words, block) in words.iter_mut().zip(blocks) {
            let bytes: &[u8; 16] = &block.as_chunks().0[i];
            // SAFETY: `bytes` is 16 readable bytes, and the load needs no alignment.
            let loaded = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
            *words = _mm_shuffle_epi8(loaded, big_endian);
        }
        words
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn load_state(state: &State) -> Lane {
        let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
        Lane { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn store_state(lane: Lane, state: &mut State) {
        let feba = _mm_shuffle_epi32(lane.abef, 0x1B);
        let dchg = _mm_shuffle_epi32(lane.cdgh, 0xB1);
        let dcba = _mm_blend_epi16(feba, dchg, 0xF0);
        let hgfe = _mm_alignr_epi8(dchg, feba, 8);
        let (low, high) = state.split_at_mut(4);
        // SAFETY: each half is four writable words, 16 bytes, and the store needs no alignment.
        unsafe {
            _mm_storeu_si128(low.as_mut_ptr().cast(), dcba);
            _mm_storeu_si128(high.as_mut_ptr().cast(), hgfe);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn expected(prefix: &[u8], body: &[u8]) -> Hash {
        Sha256::new().chain_update(prefix).chain_update(body).finalize().into()
    }

    fn portable_hash(message: &impl Blocks) -> Hash {
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
            let pair = hash_pair(&Message::new(&salt, &a), &Message::new(&[], &b));
            prop_assert_eq!(pair, [expected(&salt, &a), expected(&[], &b)]);
        }
    }
}
