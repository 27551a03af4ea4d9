//! Thirty-two bytes at a time: where a string's plain run ends, and whether the next bytes are an expected key.

/// Bytes in a block.
pub(super) const BLOCK: usize = 32;

/// Reads the block at `at`, with zeros beyond the end of `bytes`.
#[inline(always)]
pub(super) fn load(bytes: &[u8], at: usize) -> Block {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        Some(block) => Block::new(block),
        None => load_tail(bytes, at),
    }
}

#[cold]
fn load_tail(bytes: &[u8], at: usize) -> Block {
    let mut block = [0; BLOCK];
    let rest = bytes.get(at..).unwrap_or_default();
    block[..rest.len()].copy_from_slice(rest);
    Block::new(&block)
}

#[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
mod lanes {
    use super::BLOCK;
    use std::arch::x86_64::{
        __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_max_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    };

    /// A block in one vector register.
    #[derive(Clone, Copy)]
    pub(in crate::parse) struct Block(__m256i);

    impl Block {
        #[inline(always)]
        pub(in crate::parse) fn new(bytes: &[u8; BLOCK]) -> Self {
            // SAFETY: the pointer is that of 32 readable bytes; the load needs no alignment; AVX2 is enabled for the whole build.
            Block(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
        }

        #[inline(always)]
        pub(in crate::parse) fn equal(self, other: &[u8; BLOCK]) -> u32 {
            let other = Block::new(other);
            // SAFETY: AVX2 is enabled for the whole build.
            unsafe { _mm256_movemask_epi8(_mm256_cmpeq_epi8(self.0, other.0)) as u32 }
        }

        #[inline(always)]
        pub(in crate::parse) fn string_stops(self) -> u32 {
            // SAFETY: AVX2 is enabled for the whole build.
            unsafe {
                let quote = _mm256_cmpeq_epi8(self.0, _mm256_set1_epi8(b'"' as i8));
                let backslash = _mm256_cmpeq_epi8(self.0, _mm256_set1_epi8(b'\\' as i8));
                let limit = _mm256_set1_epi8(0x1f);
                let control = _mm256_cmpeq_epi8(_mm256_max_epu8(self.0, limit), limit);
                _mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(quote, backslash), control)) as u32
            }
        }

        #[inline(always)]
        pub(in crate::parse) fn find(self, byte: u8) -> u32 {
            self.equal(&[byte; BLOCK])
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
mod lanes {
    use super::BLOCK;

    /// A block as plain bytes, for the compiler to vectorise as it can.
    #[derive(Clone, Copy)]
    pub(in crate::parse) struct Block([u8; BLOCK]);

    impl Block {
        #[inline(always)]
        pub(in crate::parse) fn new(bytes: &[u8; BLOCK]) -> Self {
            Block(*bytes)
        }

        #[inline(always)]
        fn mask(self, hit: impl Fn(usize, u8) -> bool) -> u32 {
            self.0.iter().enumerate().fold(0, |mask, (i, &byte)| mask | (u32::from(hit(i, byte)) << i))
        }

        #[inline(always)]
        pub(in crate::parse) fn equal(self, other: &[u8; BLOCK]) -> u32 {
            self.mask(|i, byte| byte == other[i])
        }

        #[inline(always)]
        pub(in crate::parse) fn string_stops(self) -> u32 {
            self.mask(|_, byte| byte == b'"' || byte == b'\\' || byte < 0x20)
        }

        #[inline(always)]
        pub(in crate::parse) fn find(self, byte: u8) -> u32 {
            self.mask(|_, found| found == byte)
        }
    }
}

/// Thirty-two bytes of input. `equal`, `string_stops` and `find` return masks whose bit i stands for byte i: equal to the other block's;
/// a quote, backslash or control character; equal to the byte.
pub(super) use lanes::Block;

/// Position of the first `byte` at or after `at`, or the length of `bytes`.
pub(super) fn find(bytes: &[u8], mut at: usize, byte: u8) -> usize {
    while at < bytes.len() {
        let mask = load(bytes, at).find(byte);
        if mask != 0 {
            return (at + mask.trailing_zeros() as usize).min(bytes.len());
        }
        at += BLOCK;
    }
    bytes.len()
}
