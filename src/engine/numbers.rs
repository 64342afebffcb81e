//! Maps whose keys are numbers that this process chose, one after the other: nobody can choose them so that they collide, and
//! to hash them as if somebody could would cost more than the look-up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by number.
pub type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads a number over all bits, by one multiplication (Fibonacci hashing: Knuth, The Art of Computer Programming 3, 6.4).
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let spread = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_told_apart() {
        let mut map: ByNumber<u32, u32> = ByNumber::default();
        for n in 0..100_000 {
            map.insert(n, n);
        }
        assert!((0..100_000).all(|n| map.get(&n) == Some(&n)));
        assert_eq!(map.len(), 100_000);
    }

    #[test]
    fn high_and_low_bits_of_the_hash_differ_between_neighbours() {
        let hash = |n: u32| {
            let mut hasher = NumberHasher::default();
            hasher.write_u32(n);
            hasher.finish()
        };
        let of = |part: fn(u64) -> u64| (0..1024).map(|n| part(hash(n))).collect::<std::collections::HashSet<_>>().len();
        assert!(of(|hash| hash & 1023) > 500, "the bucket");
        assert!(of(|hash| hash >> 57) > 100, "the tag");
    }
}
