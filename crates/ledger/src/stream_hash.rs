//! SHA-256 of whole files, two at once.

use crate::Hash;
use crate::sha256::{Block, START, State, compress_pair, hash_of};
use std::io::{self, Read};

/// Bytes read of each at a time: a multiple of a block.
const CHUNK: usize = 256 * 1024;

/// SHA-256 and length of two streams, read side by side: a core hashes both in little more than the time of one.
///
/// # Errors
///
/// Each has its own: what the stream's reader says.
pub fn hash_streams(a: &mut dyn Read, b: &mut dyn Read) -> [io::Result<(Hash, u64)>; 2] {
    let (mut a, mut b) = (Stream::new(a), Stream::new(b));
    while !(a.is_done && b.is_done) {
        a.fill();
        b.fill();
        let blocks: [&[Block]; 2] = [a.buffer.as_chunks().0, b.buffer.as_chunks().0];
        compress_pair(&mut a.state, blocks[0], &mut b.state, blocks[1]);
    }
    [a.finish(), b.finish()]
}

struct Stream<'a> {
    reader: &'a mut dyn Read,
    state: State,
    /// What comes next, in whole blocks.
    buffer: Vec<u8>,
    length: u64,
    is_done: bool,
    error: Option<io::Error>,
}

impl<'a> Stream<'a> {
    fn new(reader: &'a mut dyn Read) -> Self {
        Self { reader, state: START, buffer: Vec::with_capacity(CHUNK + 128), length: 0, is_done: false, error: None }
    }

    /// Reads the next chunk; the last one gets its padding (FIPS 180-4 §5.1.1).
    fn fill(&mut self) {
        self.buffer.clear();
        if self.is_done {
            return;
        }
        self.buffer.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            match self.reader.read(&mut self.buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    (self.error, self.is_done) = (Some(error), true);
                    return self.buffer.clear();
                }
            }
        }
        self.length += filled as u64;
        if filled < CHUNK {
            self.buffer.truncate(filled);
            self.buffer.push(0x80);
            self.buffer.resize((filled + 9).next_multiple_of(64) - 8, 0);
            self.buffer.extend_from_slice(&(self.length * 8).to_be_bytes());
            self.is_done = true;
        }
    }

    fn finish(self) -> io::Result<(Hash, u64)> {
        self.error.map_or_else(|| Ok((hash_of(&self.state), self.length)), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len());
            self.0.read(&mut buffer[..length])
        }
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }

    fn check(a: &[u8], b: &[u8], step: usize) {
        let hashes = hash_streams(&mut Slow(a, step), &mut Slow(b, usize::MAX));
        for (found, bytes) in hashes.into_iter().zip([a, b]) {
            let (hash, length) = found.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((hash, length), (Sha256::digest(bytes).into(), bytes.len() as u64), "{} bytes", bytes.len());
        }
    }

    proptest! {
        #[test]
        fn streams_agree_with_sha2(
            a in prop::collection::vec(any::<u8>(), 0..1000),
            b in prop::collection::vec(any::<u8>(), 0..1000),
            step in 1usize..70,
        ) {
            check(&a, &b, step);
        }
    }

    #[test]
    fn chunks_agree_with_sha2() {
        for length in [0, 55, 56, 63, 64, CHUNK - 9, CHUNK - 8, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            check(&vec![7; length], &vec![9; 100_000], CHUNK / 3);
        }
    }

    #[test]
    fn a_stream_that_fails_leaves_the_other_alone() {
        let [broken, whole] = hash_streams(&mut Broken, &mut &[1u8; 300_000][..]);
        assert!(broken.is_err());
        assert_eq!(whole.ok(), Some((Sha256::digest([1u8; 300_000]).into(), 300_000)));
    }
}
