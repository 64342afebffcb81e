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

/// Things by numbers that are given one after the other, most of which are gone before many more came. What came lately lies in a
/// ring, each in the place of its number: what is used together lies together, and nothing is hashed. What stays longer is kept apart.
pub struct InTurn<T> {
    /// Its length is a power of two.
    ring: Vec<Option<(u64, T)>>,
    /// How many are in the ring.
    lately: usize,
    older: ByNumber<u64, T>,
}

/// Places of a ring at first, and at most.
const RING: (usize, usize) = (64, 8192);

impl<T> Default for InTurn<T> {
    fn default() -> Self {
        Self { ring: Vec::new(), lately: 0, older: ByNumber::default() }
    }
}

impl<T> InTurn<T> {
    #[allow(clippy::cast_possible_truncation)] // only the low bits count
    fn place(&self, number: u64) -> usize {
        number as usize & self.ring.len().wrapping_sub(1)
    }

    /// Takes it in. Its number is nobody's.
    pub fn insert(&mut self, number: u64, thing: T) {
        if self.lately * 2 >= self.ring.len() && self.ring.len() < RING.1 {
            self.grow();
        }
        self.put(number, thing);
    }

    fn put(&mut self, number: u64, thing: T) {
        let place = self.place(number);
        match self.ring[place].replace((number, thing)) {
            Some((older, thing)) => drop(self.older.insert(older, thing)),
            None => self.lately += 1,
        }
    }

    fn grow(&mut self) {
        let length = (self.ring.len() * 2).max(RING.0);
        let mut larger = Vec::with_capacity(length);
        larger.resize_with(length, || None);
        self.lately = 0;
        for (number, thing) in std::mem::replace(&mut self.ring, larger).into_iter().flatten() {
            self.put(number, thing);
        }
    }

    /// The thing of this number.
    pub fn get(&self, number: u64) -> Option<&T> {
        match self.ring.get(self.place(number)) {
            Some(Some((found, thing))) if *found == number => Some(thing),
            _ if self.older.is_empty() => None,
            _ => self.older.get(&number),
        }
    }

    /// The thing of this number.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = self.place(number);
        match self.ring.get_mut(place) {
            Some(Some((found, thing))) if *found == number => Some(thing),
            _ if self.older.is_empty() => None,
            _ => self.older.get_mut(&number),
        }
    }

    /// Takes it out.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let place = self.place(number);
        if let Some(taken) = self.ring.get_mut(place).and_then(|taken| taken.take_if(|(found, _)| *found == number)) {
            self.lately -= 1;
            return Some(taken.1);
        }
        if self.older.is_empty() { None } else { self.older.remove(&number) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lately + self.older.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let older = self.older.iter().map(|(number, thing)| (*number, thing));
        self.ring.iter().flatten().map(|(number, thing)| (*number, thing)).chain(older)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..proptest::test_runner::Config::default() })]

        /// What comes is `true`; else one of those that are there goes, mostly one of the first.
        #[test]
        fn things_in_turn_are_those_of_a_map(steps in proptest::collection::vec((proptest::bool::weighted(0.6), 0..40_usize), 0..600), first in any::<u32>()) {
            let (mut in_turn, mut map) = (InTurn::default(), std::collections::BTreeMap::new());
            let mut next = u64::from(first);
            for (comes, which) in steps {
                if comes {
                    in_turn.insert(next, next + 1);
                    map.insert(next, next + 1);
                    next += 1;
                } else {
                    let number = map.keys().nth(which).copied().unwrap_or(next);
                    prop_assert_eq!(in_turn.get(number), map.get(&number));
                    prop_assert_eq!(in_turn.get_mut(number), map.get_mut(&number));
                    prop_assert_eq!(in_turn.remove(number), map.remove(&number));
                    prop_assert_eq!(in_turn.remove(number), None);
                }
                prop_assert_eq!(in_turn.len(), map.len());
            }
            let mut all: Vec<(u64, u64)> = in_turn.iter().map(|(number, thing)| (number, *thing)).collect();
            all.sort_unstable();
            prop_assert_eq!(all, map.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_stays_does_not_make_the_ring_grow_without_end() {
        let mut things = InTurn::default();
        for n in 0..200_000_u64 {
            things.insert(n, n);
            if n % 100 != 0 {
                things.remove(n);
            }
        }
        assert!(things.ring.len() <= RING.1);
        assert_eq!(things.len(), 2000);
        assert!((0..200_000).step_by(100).all(|n| things.get(n) == Some(&n)));
    }

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
