//! Compression with the SHA extensions, one message or two at a time.

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
