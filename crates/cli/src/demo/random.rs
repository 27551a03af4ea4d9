//! A small random sequence: the same seed makes the same agency.

use uuid::Uuid;

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast and good enough to imitate an office.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence that begins with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A place in a list of this length.
    pub fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number from 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// One of these.
    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.place(choices.len())]
    }

    /// A time around `typical`, sometimes far above it, as response times are.
    pub fn skewed(&mut self, typical: f64) -> f64 {
        let share = self.share().max(1e-9);
        let value = typical * (0.4 - share.ln() * 0.7);
        (value * 1000.0).round() / 1000.0
    }

    /// So many hexadecimal digits, at most 16.
    pub fn digits(&mut self, count: usize) -> String {
        format!("{:016x}", self.next())[..count].to_owned()
    }

    /// A random UUID.
    pub fn uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

/// A UUID that is the same for the same text.
pub fn named_uuid(name: &str) -> String {
    Uuid::from_u128(xxhash_rust::xxh3::xxh3_128(name.as_bytes())).to_string()
}
