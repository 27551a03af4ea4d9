//! Compression of sixteen messages at a time, one in each 32-bit lane of 512-bit registers.

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
