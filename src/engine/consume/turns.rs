//! Whose turn it is among priorities: the most urgent first, with a share for the others, so that none starves.

use crate::engine::event::Priority;

/// What an event costs its lane: of 15 events where all lanes have a backlog, 8 are critical, 4 high, 2 normal, 1 low.
fn cost(lane: Priority) -> u64 {
    match lane {
        Priority::Critical => 1,
        Priority::High => 2,
        Priority::Normal => 4,
        Priority::Low => 8,
    }
}

/// Stride scheduling: each lane has come so far, and the one furthest behind is next. A lane that had nothing for a while
/// starts where the others are: it is next at once, and has no turns saved up.
#[derive(Default)]
pub struct Turns {
    reached: [u64; 4],
    /// Where the lane was that had the last turn.
    now: u64,
}

impl Turns {
    /// The lane whose turn it is, of those where something waits; the most urgent of equals.
    pub fn next(&self, waits: impl Fn(Priority) -> bool) -> Option<Priority> {
        Priority::ALL.into_iter().filter(|lane| waits(*lane)).min_by_key(|lane| self.start(*lane))
    }

    /// The lane had so many events.
    pub fn took(&mut self, lane: Priority, count: usize) {
        let start = self.start(lane);
        self.now = self.now.max(start);
        self.reached[lane as usize] = start + cost(lane) * count as u64;
    }

    fn start(&self, lane: Priority) -> u64 {
        self.reached[lane as usize].max(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(turns: &mut Turns, rounds: usize, lanes: &[Priority]) -> [usize; 4] {
        let mut share = [0; 4];
        for _ in 0..rounds {
            let lane = turns.next(|lane| lanes.contains(&lane)).unwrap();
            turns.took(lane, 1);
            share[lane as usize] += 1;
        }
        share
    }

    #[test]
    fn backlogs_of_all_lanes_share_eight_to_four_to_two_to_one() {
        assert_eq!(shares(&mut Turns::default(), 1500, &Priority::ALL), [800, 400, 200, 100]);
    }

    #[test]
    fn a_critical_event_is_next_however_long_a_low_backlog_ran() {
        let mut turns = Turns::default();
        shares(&mut turns, 1000, &[Priority::Low]);
        assert_eq!(turns.next(|_| true), Some(Priority::Critical));
    }

    #[test]
    fn low_events_are_not_starved_by_critical_ones_without_end() {
        let mut turns = Turns::default();
        shares(&mut turns, 1000, &[Priority::Critical]);
        let share = shares(&mut turns, 900, &[Priority::Critical, Priority::Low]);
        assert_eq!(share, [800, 0, 0, 100]);
    }

    #[test]
    fn a_lane_that_rested_has_no_turns_saved_up() {
        let mut turns = Turns::default();
        shares(&mut turns, 1000, &[Priority::Low]);
        let share = shares(&mut turns, 90, &[Priority::Critical, Priority::Low]);
        assert!(share[3] >= 9, "{share:?}");
    }
}
