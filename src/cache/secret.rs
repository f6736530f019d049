//! A hash that a guest cannot foresee, of few instructions: it must not be able to pick addresses or
//! PASIDs that all fall into one place.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Two random factors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Secret([u64; 2]);

impl Default for Secret {
    fn default() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        // Odd, so that it is not 0.
        Self([random(), random() | 1])
    }
}

impl Secret {
    /// Of two words: their product with the factors mixed in, both halves of which count.
    #[inline]
    pub fn mix(self, first: u64, second: u64) -> u64 {
        let [one, other] = self.0;
        let product = u128::from(first ^ one).wrapping_mul(u128::from(second ^ other));
        ((product >> 64) as u64) ^ (product as u64)
    }
}

impl BuildHasher for Secret {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed {
            secret: *self,
            value: 0,
        }
    }
}

/// A hash of words.
pub(super) struct Mixed {
    secret: Secret,
    value: u64,
}

impl Hasher for Mixed {
    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.value = self.secret.mix(word, self.value.rotate_left(32) ^ word);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk
                .iter()
                .fold(0, |word, byte| (word << 8) | u64::from(*byte));
            self.write_u64(word);
        }
    }

    fn finish(&self) -> u64 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_fall_apart() {
        let secret = Secret::default();
        for place in 0..64_u64 {
            let mut used = [0_u32; 256];
            for page in 0..2560_u64 {
                let hash = secret.mix((page << 3).rotate_left(20) ^ place, page << 3);
                used[(hash >> 56) as usize] += 1;
            }
            assert!(used.iter().all(|count| *count < 60), "{used:?}");
        }
    }

    #[test]
    fn secrets_differ() {
        let (one, other) = (Secret::default(), Secret::default());
        assert_ne!(one.mix(1, 2), other.mix(1, 2));
        assert_eq!(one.mix(1, 2), one.mix(1, 2));
    }
}
