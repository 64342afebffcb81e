//! How many lines a place in the code may write: what fails at every attempt must not fill a disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::callsite::Identifier;

/// Lines that one place may write in [`WINDOW`].
pub(super) const LINES_MAX: u32 = 30;
/// How long a place that wrote all of them is silent, from the first of them on.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// One line more may be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// So many of that place were left out before it.
    pub left_out: u64,
    /// It is the last one for this time.
    pub silent_for: Option<Duration>,
}

/// What each place of one log has written. There are no more of them than calls of a macro in the engine.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<Identifier, Rate>>);

impl Rates {
    /// `None`: it is left out.
    pub fn turn(&self, place: Identifier) -> Option<Turn> {
        let now = Instant::now();
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rates.entry(place).or_insert(Rate { began: now, lines: 0, left_out: 0 }).turn(now)
    }
}

struct Rate {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl Rate {
    fn turn(&mut self, now: Instant) -> Option<Turn> {
        let mut turn = Turn::default();
        if now.saturating_duration_since(self.began) >= WINDOW {
            turn.left_out = self.left_out;
            *self = Self { began: now, lines: 0, left_out: 0 };
        }
        if self.lines == LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        turn.silent_for = (self.lines == LINES_MAX).then(|| WINDOW.saturating_sub(now.saturating_duration_since(self.began)));
        Some(turn)
    }
}
