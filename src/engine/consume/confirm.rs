//! Who waits for settlements: a confirmation number stands for the verdicts of one call, and is answered once.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::engine::env::lock;
use crate::engine::error::Error;

/// A confirmation number with its answer.
pub type Confirmed = (u32, Option<Error>);

/// Confirmation numbers that are not answered yet. Shared, so that each is answered even if the task ends.
#[derive(Default)]
pub struct Confirms(Mutex<HashMap<u32, Waiting>>);

struct Waiting {
    left: usize,
    error: Option<Error>,
}

impl Confirms {
    /// One more settlement belongs to the number.
    pub fn expect(&self, number: u32) {
        lock(&self.0).entry(number).or_insert(Waiting { left: 0, error: None }).left += 1;
    }

    /// One of its settlements is in the store, or failed for good. Answers the number with its last one.
    pub fn settled(&self, number: u32, error: Option<&Error>) -> Option<Confirmed> {
        let mut all = lock(&self.0);
        let waiting = all.get_mut(&number)?;
        waiting.left = waiting.left.saturating_sub(1);
        if waiting.error.is_none() {
            waiting.error = error.cloned();
        }
        if waiting.left > 0 {
            return None;
        }
        all.remove(&number).map(|waiting| (number, waiting.error))
    }

    /// All that are left, with `error`.
    pub fn give_up(&self, error: &Error) -> Vec<Confirmed> {
        lock(&self.0).drain().map(|(number, _)| (number, Some(error.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_answered_once_with_its_last_settlement() {
        let confirms = Confirms::default();
        confirms.expect(7);
        confirms.expect(7);
        assert!(confirms.settled(7, Some(&Error::closed("it"))).is_none());
        let (number, error) = confirms.settled(7, None).unwrap();
        assert_eq!((number, error.is_some()), (7, true));
        assert!(confirms.settled(7, None).is_none());
    }

    #[test]
    fn what_is_left_is_given_up() {
        let confirms = Confirms::default();
        confirms.expect(1);
        assert_eq!(confirms.give_up(&Error::closed("it")).len(), 1);
        assert!(confirms.give_up(&Error::closed("it")).is_empty());
    }
}
