//! What this publisher was told is stored, as far as it may still turn out to be gone: a server that was emptied, or one
//! that took another's place before it had everything. Its note says up to which batch it knows.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::super::{EntryId, Loss, Partition};

/// Most batches remembered of a bucket.
const BATCHES_MAX: usize = 256;
/// How long: much shorter than the note on them is kept.
const KEPT: Duration = Duration::from_secs(600);

struct Written {
    number: u64,
    at: Instant,
    partition: Partition,
    events: u64,
    last: Option<EntryId>,
}

/// Batches of one bucket.
#[derive(Default)]
pub struct Ledger {
    written: VecDeque<Written>,
    /// Number of the last batch that the server said it has.
    pub answered: u64,
}

impl Ledger {
    /// So many events of the batch are stored in the partition; `last`: the place of the last one, where it is known.
    pub fn note(&mut self, number: u64, partition: &Partition, events: u64, last: Option<EntryId>) {
        self.answered = self.answered.max(number);
        if self.written.len() >= BATCHES_MAX {
            self.written.pop_front();
        }
        self.written.push_back(Written { number, at: Instant::now(), partition: partition.clone(), events, last });
    }

    /// Whether there is anything that could turn out to be gone.
    pub fn is_open(&mut self) -> bool {
        while self.written.front().is_some_and(|written| written.at.elapsed() > KEPT) {
            self.written.pop_front();
        }
        !self.written.is_empty()
    }

    /// The server knows of batches up to `noted` only: what is gone. It is told once.
    pub fn lost_after(&mut self, noted: u64) -> Vec<Loss> {
        let mut losses: Vec<Loss> = Vec::new();
        if !self.is_open() {
            return losses;
        }
        self.written.retain(|written| {
            if written.number <= noted {
                return true;
            }
            match losses.iter_mut().find(|loss| loss.partition == written.partition) {
                Some(loss) => {
                    loss.events += written.events;
                    loss.last = loss.last.max(written.last);
                }
                None => losses.push(Loss { partition: written.partition.clone(), events: written.events, last: written.last }),
            }
            false
        });
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_the_server_does_not_know_of_is_told_once() {
        let (a, b) = (Partition::new("a", 0), Partition::new("b", 0));
        let id = |ms| Some(EntryId { ms, seq: 0 });
        let mut ledger = Ledger::default();
        assert!(ledger.lost_after(0).is_empty());
        ledger.note(1, &a, 5, id(1));
        ledger.note(2, &a, 2, id(2));
        ledger.note(2, &b, 1, None);
        ledger.note(3, &a, 4, id(3));
        assert!(ledger.lost_after(3).is_empty() && ledger.is_open());
        let losses = [Loss { partition: a.clone(), events: 6, last: id(3) }, Loss { partition: b, events: 1, last: None }];
        assert_eq!(ledger.lost_after(1), losses);
        assert!(ledger.lost_after(1).is_empty());
        assert_eq!(ledger.lost_after(0), [Loss { partition: a.clone(), events: 5, last: id(1) }]);
        for number in 4..10_000 {
            ledger.note(number, &a, 1, None);
        }
        assert_eq!(ledger.lost_after(0)[0].events, BATCHES_MAX as u64);
        ledger.note(10_000, &a, 1, None);
        tokio::time::advance(KEPT + Duration::from_secs(1)).await;
        assert!(!ledger.is_open() && ledger.lost_after(0).is_empty());
    }
}
