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
mod sha_ni {
    use std::arch::x86_64::*;

    use super::{Block, Blocks, K, State};

    /// A state in the two registers that the instructions want: words A, B, E, F and words C, D, G, H.
    #[derive(Clone, Copy)]
    struct Lane {
        abef: __m128i,
        cdgh: __m128i,
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress(state: &mut State, message: &(impl Blocks + ?Sized)) {
        let mut lanes = [load_state(state)];
        for i in 0..message.count() {
            take_blocks(&mut lanes, [message.block(i)]);
        }
        store_state(lanes[0], state);
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress_pair(a: &mut State, a_message: &(impl Blocks + ?Sized), b: &mut State, b_message: &(impl Blocks + ?Sized)) {
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

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Block, K, State};

    const LANES: usize = 16;

    /// One word of each lane.
    type Words = __m512i;

    /// A message on its way: its blocks, and which comes next.
    #[derive(Default)]
    struct Lane {
        blocks: Vec<Block>,
        next: usize,
        message: usize,
    }

    /// Each lane takes the next message when it is through with one, so that lengths may differ.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn compress_all(start: &State, n: usize, write: impl Fn(usize, &mut Vec<Block>), mut done: impl FnMut(usize, &State)) {
        let first = start.map(|word| _mm512_set1_epi32(word.cast_signed()));
        let mut state = first;
        let mut lanes: [Lane; LANES] = std::array::from_fn(|_| Lane::default());
        let mut taken = 0;
        let mut running = 0;
        for lane in &mut lanes {
            if taken < n {
                write(taken, &mut lane.blocks);
                lane.message = taken;
                (taken, running) = (taken + 1, running + 1);
            } else {
                lane.blocks.push([0; 64]);
                lane.message = usize::MAX;
            }
        }
        while running > 0 {
            let blocks = lanes.each_ref().map(|lane| &lane.blocks[lane.next]);
            take_blocks(&mut state, blocks);
            let mut finished = 0_u16;
            for (i, lane) in lanes.iter_mut().enumerate() {
                lane.next += 1;
                finished |= u16::from(lane.next == lane.blocks.len()) << i;
            }
            if finished == 0 {
                continue;
            }
            let rows = state.map(|words| words_of(words));
            let mut rest = finished;
            while rest != 0 {
                let i = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let lane = &mut lanes[i % LANES];
                lane.next = 0;
                if lane.message == usize::MAX {
                    continue;
                }
                done(lane.message, &rows.each_ref().map(|row| row[i % LANES]));
                lane.blocks.clear();
                if taken < n {
                    write(taken, &mut lane.blocks);
                    lane.message = taken;
                    taken += 1;
                } else {
                    lane.blocks.push([0; 64]);
                    lane.message = usize::MAX;
                    running -= 1;
                }
            }
            for (words, first) in state.iter_mut().zip(first) {
                *words = _mm512_mask_mov_epi32(*words, finished, first);
            }
        }
    }

    /// Does whole groups of lanes only, and returns how many messages these were.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn compress_each<const N: usize>(
        start: &State,
        n: usize,
        message: impl Fn(usize) -> [Block; N],
        mut done: impl FnMut(usize, &State),
    ) -> usize {
        let first = start.map(|word| _mm512_set1_epi32(word.cast_signed()));
        let whole = n - n % LANES;
        for from in (0..whole).step_by(LANES) {
            let messages: [[Block; N]; LANES] = std::array::from_fn(|lane| message(from + lane));
            let mut state = first;
            for i in 0..N {
                take_blocks(&mut state, messages.each_ref().map(|message| &message[i]));
            }
            let rows = state.map(|words| words_of(words));
            for lane in 0..LANES {
                done(from + lane, &rows.each_ref().map(|row| row[lane]));
            }
        }
        whole
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn words_of(words: Words) -> [u32; LANES] {
        let mut array = [0; LANES];
        // SAFETY: `array` is 64 writable bytes, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(array.as_mut_ptr().cast(), words) };
        array
    }

    /// Calls a macro with each number below sixteen.
    macro_rules! sixteen {
        ($each:ident) => {
            $each!(0);
            $each!(1);
            $each!(2);
            $each!(3);
            $each!(4);
            $each!(5);
            $each!(6);
            $each!(7);
            $each!(8);
            $each!(9);
            $each!(10);
            $each!(11);
            $each!(12);
            $each!(13);
            $each!(14);
            $each!(15);
        };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn take_blocks(state: &mut [Words; 8], blocks: [&Block; LANES]) {
        let before = *state;
        let mut s = before;
        let mut w = load_words(blocks);
        macro_rules! first {
            ($i:expr) => {
                round::<$i>(&mut s, K[$i / 4][$i % 4], w[$i]);
            };
        }
        sixteen!(first);
        for k in [4, 8, 12] {
            let k: &[u32; 16] = &[K[k], K[k + 1], K[k + 2], K[k + 3]].as_flattened().try_into().unwrap_or_default();
            macro_rules! later {
                ($i:expr) => {
                    w[$i] = schedule(w[$i], w[($i + 1) % 16], w[($i + 9) % 16], w[($i + 14) % 16]);
                    round::<$i>(&mut s, k[$i], w[$i]);
                };
            }
            sixteen!(later);
        }
        for (words, (before, after)) in state.iter_mut().zip(before.into_iter().zip(s)) {
            *words = _mm512_add_epi32(before, after);
        }
    }

    /// Round `I` of sixteen: the eight working variables move by one place each round, here their names do.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn round<const I: usize>(s: &mut [Words; 8], k: u32, w: Words) {
        let at = |n: usize| (n + 16 - I) % 8;
        let [a, b, c, d] = [s[at(0)], s[at(1)], s[at(2)], s[at(3)]];
        let [e, f, g, h] = [s[at(4)], s[at(5)], s[at(6)], s[at(7)]];
        let sum = _mm512_add_epi32(_mm512_add_epi32(h, w), _mm512_set1_epi32(k.cast_signed()));
        let sigma1 = xor3(_mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
        let choice = _mm512_ternarylogic_epi32::<0xca>(e, f, g);
        let t1 = _mm512_add_epi32(_mm512_add_epi32(sum, choice), sigma1);
        let sigma0 = xor3(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
        let majority = _mm512_ternarylogic_epi32::<0xe8>(a, b, c);
        s[at(3)] = _mm512_add_epi32(d, t1);
        s[at(7)] = _mm512_add_epi32(t1, _mm512_add_epi32(sigma0, majority));
    }

    /// The word of the message schedule that follows on the sixteen before; these are the first, second, tenth and fifteenth of them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn schedule(w0: Words, w1: Words, w9: Words, w14: Words) -> Words {
        let sigma0 = xor3(_mm512_ror_epi32::<7>(w1), _mm512_ror_epi32::<18>(w1), _mm512_srli_epi32::<3>(w1));
        let sigma1 = xor3(_mm512_ror_epi32::<17>(w14), _mm512_ror_epi32::<19>(w14), _mm512_srli_epi32::<10>(w14));
        _mm512_add_epi32(_mm512_add_epi32(w0, w9), _mm512_add_epi32(sigma0, sigma1))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn xor3(a: Words, b: Words, c: Words) -> Words {
        _mm512_ternarylogic_epi32::<0x96>(a, b, c)
    }

    /// The sixteen words of each block: from a row a lane to a row a word.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load_words(blocks: [&Block; LANES]) -> [Words; 16] {
        let big_endian = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203));
        let mut w = [_mm512_setzero_si512(); 16];
        for q in 0..4 {
            // Words 4q to 4q + 3 of lanes j, 4 + j, 8 + j and 12 + j.
            let mut r = [_mm512_setzero_si512(); 4];
            for (j, row) in r.iter_mut().enumerate() {
                let part = |lane: usize| {
                    let bytes: &[u8; 16] = &blocks[lane].as_chunks().0[q];
                    // SAFETY: `bytes` is 16 readable bytes, and the load needs no alignment.
                    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
                };
                let mut x = _mm512_castsi128_si512(part(j));
                x = _mm512_mask_broadcast_i32x4(x, 0x00f0, part(4 + j));
                x = _mm512_mask_broadcast_i32x4(x, 0x0f00, part(8 + j));
                x = _mm512_mask_broadcast_i32x4(x, 0xf000, part(12 + j));
                *row = _mm512_shuffle_epi8(x, big_endian);
            }
            let [a, b] = [_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[0], r[1])];
            let [c, d] = [_mm512_unpacklo_epi32(r[2], r[3]), _mm512_unpackhi_epi32(r[2], r[3])];
            w[4 * q] = _mm512_unpacklo_epi64(a, c);
            w[4 * q + 1] = _mm512_unpackhi_epi64(a, c);
            w[4 * q + 2] = _mm512_unpacklo_epi64(b, d);
            w[4 * q + 3] = _mm512_unpackhi_epi64(b, d);
        }
        w
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
