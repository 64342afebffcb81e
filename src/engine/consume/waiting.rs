//! Entries of a group that wait for a handler to be free, by priority.

use std::collections::VecDeque;

use super::held::Key;
use super::turns::Turns;
use crate::engine::event::Priority;

/// Entries that wait. Their number is bounded by the places of the subscriptions.
#[derive(Default)]
pub struct Waiting {
    lanes: [VecDeque<Key>; 4],
    turns: Turns,
}

impl Waiting {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Takes one in.
    pub fn push(&mut self, lane: Priority, key: Key) {
        self.lanes[lane as usize].push_back(key);
    }

    /// The next one by turns.
    pub fn pop(&mut self) -> Option<(Priority, Key)> {
        let lane = self.turns.next(|lane| !self.lanes[lane as usize].is_empty())?;
        self.lanes[lane as usize].pop_front().map(|key| (lane, key))
    }

    /// Its handler was called: its lane had a turn.
    pub fn called(&mut self, lane: Priority) {
        self.turns.took(lane, 1);
    }

    /// Puts back what could not be called, in front of what came later.
    pub fn put_back(&mut self, mut stayed: Self) {
        for (lane, stayed) in self.lanes.iter_mut().zip(&mut stayed.lanes) {
            stayed.append(lane);
            *lane = std::mem::take(stayed);
        }
    }

    /// Takes all out.
    pub fn take_all(&mut self) -> impl Iterator<Item = (Priority, Key)> + use<> {
        let lanes = std::mem::take(&mut self.lanes);
        Priority::ALL.into_iter().zip(lanes).flat_map(|(lane, keys)| keys.into_iter().map(move |key| (lane, key)))
    }
}
