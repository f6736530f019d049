//! Random moments that can be had again.

/// xorshift64*.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// Another sequence for each seed and name.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut random = Self(seed | 1 << 63);
        for byte in name.bytes() {
            random.0 ^= u64::from(byte);
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + (self.next() >> 16) % (most - least + 1)
    }

    /// Of one of `count`.
    pub fn index(&mut self, count: usize) -> usize {
        (self.next() >> 16) as usize % count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again() {
        let some = |seed, name| {
            let mut random = Random::new(seed, name);
            [(); 4].map(|()| random.between(3, 1000))
        };
        assert_eq!(some(1, "a"), some(1, "a"));
        assert_ne!(some(1, "a"), some(1, "b"));
        assert_ne!(some(1, "a"), some(2, "a"));
        assert!(some(0, "").iter().all(|n| (3..=1000).contains(n)));
    }
}
