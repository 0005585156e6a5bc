//! Randomness that the seed decides: one stream for each party, so that a new draw in
//! one leaves the others alone.

use std::time::Duration;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream `name` of a seed.
    pub fn new(seed: u64, name: &str) -> Random {
        // FNV-1a of 64 bits (Fowler, Noll, Vo).
        let bytes = seed.to_le_bytes().into_iter().chain(name.bytes());
        let add = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Random(bytes.fold(0xcbf2_9ce4_8422_2325, add))
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        // Steele and others, "Fast splittable pseudorandom number generators", SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n
    }

    /// True with a probability between 0 and 1.
    pub fn chance(&mut self, part: f64) -> bool {
        ((self.next_u64() >> 11) as f64) < part * (1u64 << 53) as f64
    }

    /// A time up to `max`.
    pub fn within(&mut self, max: Duration) -> Duration {
        Duration::from_nanos(self.below(max.as_nanos() as u64 + 1))
    }

    /// One of `all`, which is not empty.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}
