//! Streams that have as many entries as they may. What the server refuses waits until acknowledged entries were removed,
//! and is sent again in its place; only when none could go is it given up. Whoever comes later asks anew.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Batch, Bucket, Partition, Pending, REOPEN_PAUSE, Writer, is_plain};
use crate::engine::error::{Error, Result};
use crate::engine::log::along;
use crate::engine::store::StreamLayout;

/// Full streams remembered; beyond this they are looked at once more than needed.
const FULL_KEPT_MAX: usize = 10_000;

/// Streams of a bucket in which room was to be made: the last event accepted before, and whether any entry went.
pub type Rooms = (Bucket, u64, Vec<(Partition, Result<bool>)>);

/// How many events of a batch were refused, by the place of their stream: plain ones, and those written by a script.
#[derive(Default)]
pub struct Refusals(HashMap<usize, (usize, usize)>);

impl Refusals {
    /// From the words of a note, see `mark.lua`; others are none of its business.
    pub fn read<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let read = |word: &str| {
            let (at, counts) = word.split_once('=')?;
            let (plain, scripted) = counts.split_once('+')?;
            Some((at.parse().ok()?, (plain.parse().ok()?, scripted.parse().ok()?)))
        };
        Self(words.into_iter().filter_map(read).collect())
    }
}

/// The last of the batch's events for which `counts`, as many as were refused of each stream.
fn last_of(batch: &Batch, refusals: &Refusals, plain: bool, mut counts: impl FnMut(usize) -> bool) -> HashSet<usize> {
    let mut out = HashSet::new();
    if refusals.0.is_empty() {
        return out;
    }
    let mut left: HashMap<&Partition, usize> = HashMap::new();
    for (at, (of_plain, scripted)) in &refusals.0 {
        if let Some(partition) = batch.partitions.get(*at) {
            left.insert(partition, if plain { *of_plain } else { *scripted });
        }
    }
    for (i, item) in batch.items.iter().enumerate().rev() {
        if let Some(left) = left.get_mut(&item.event.partition)
            && *left > 0
            && counts(i)
        {
            *left -= 1;
            out.insert(i);
        }
    }
    out
}

/// Plain events that were taken out again: the last ones of their stream.
pub fn taken_out(batch: &Batch, refusals: &Refusals) -> HashSet<usize> {
    last_of(batch, refusals, true, |i| is_plain(&batch.items[i].event))
}

/// Events refused by the script, where its replies were lost: the last ones of their stream without their key.
pub fn scripted_out(batch: &Batch, refusals: &Refusals, keys: &[Option<String>]) -> HashSet<usize> {
    let mut keys = keys.iter();
    let keyless: Vec<bool> =
        batch.items.iter().map(|item| item.event.idempotency.is_some() && keys.next().is_none_or(Option::is_none)).collect();
    last_of(batch, refusals, false, |i| keyless[i] && batch.items[i].event.delay_ms.is_none())
}

impl Writer {
    /// Takes in events for which there was no place: gives up those that came before the stream was found to have
    /// nothing that could go, and has room made for the others.
    pub(super) fn refused(&mut self, bucket: Bucket, partitions: &[Partition], bounds: &[Option<u64>], items: Vec<Pending>) {
        let mut wanted: BTreeMap<Partition, u64> = BTreeMap::new();
        let mut again = Vec::new();
        for item in items {
            let partition = &item.event.partition;
            let bound = partitions.iter().position(|other| other == partition).and_then(|at| bounds.get(at).copied().flatten());
            let Some(bound) = bound else {
                item.finish(Err(Error::internal("a stream without a bound was full")));
                continue;
            };
            if self.full.get(partition).is_some_and(|looked| item.order <= *looked) {
                let error = StreamLayout::full(partition, bound);
                item.finish(Err(error));
            } else {
                wanted.insert(partition.clone(), bound);
                again.push(item);
            }
        }
        if again.is_empty() {
            return;
        }
        // Nothing of the bucket overtakes them.
        let waits = std::mem::replace(&mut self.lane(bucket).opening, true);
        self.put_back(bucket, again);
        if !waits {
            self.make_room(bucket, wanted);
        }
    }

    /// Has room made in streams, as much as is waiting for it; the bucket waits.
    fn make_room(&mut self, bucket: Bucket, wanted: BTreeMap<Partition, u64>) {
        let looked = self.accepted;
        let queue = &self.lane(bucket).queue;
        let count = |partition: &Partition| queue.iter().filter(|item| item.event.partition == *partition).count() as u64;
        let wanted: Vec<(Partition, u64, u64)> =
            wanted.into_iter().map(|(partition, bound)| (partition.clone(), bound, count(&partition))).collect();
        let names: Vec<Partition> = wanted.iter().map(|(partition, ..)| partition.clone()).collect();
        let roomer = self.makers.roomer.clone();
        // A task of its own, as for streams that are made.
        let task = tokio::spawn(along(async move {
            let mut results = Vec::with_capacity(wanted.len());
            for (partition, bound, count) in wanted {
                let result = roomer(partition.clone(), bound, count).await;
                results.push((partition, result));
            }
            if results.iter().any(|(_, result): &(Partition, Result<bool>)| result.as_ref().is_err_and(|error| error.retryable)) {
                tokio::time::sleep(REOPEN_PAUSE).await;
            }
            results
        }));
        self.rooms.push(Box::pin(async move {
            let failed = |_| names.into_iter().map(|partition| (partition, Err(Error::internal("making room ended early")))).collect();
            (bucket, looked, task.await.unwrap_or_else(failed))
        }));
    }

    /// What waited goes out again.
    pub(super) fn room_made(&mut self, (bucket, looked, results): Rooms) {
        for (partition, result) in results {
            match result {
                Ok(true) => {
                    self.full.remove(&partition);
                }
                // Away for now: what waits is sent again until its time is over.
                Err(error) if error.retryable => self.expire_with(&error, self.link.is_closed()),
                other => {
                    if let Err(error) = other {
                        tracing::warn!(%error, %partition, "no room could be made in a full stream");
                    }
                    if self.full.len() >= FULL_KEPT_MAX {
                        self.full.clear();
                    }
                    self.full.insert(partition, looked);
                }
            }
        }
        self.lane(bucket).opening = false;
        self.list(bucket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_tells_missing_streams_and_refusals_apart() {
        let refusals = Refusals::read(" 0 3=5+2 7 12=0+1".split(' '));
        let mut read: Vec<_> = refusals.0.into_iter().collect();
        read.sort_unstable();
        assert_eq!(read, [(3, (5, 2)), (12, (0, 1))]);
        assert!(Refusals::read("behind".split(' ')).0.is_empty());
    }
}
