//! Records of what was done: the chains of one bucket.

use std::collections::{BTreeMap, VecDeque};

use super::super::commons::TRIMMED_A_CALL;
use super::super::{ChainBatch, ChainPlace, ChainRecord, Chains, EntryId};
use super::entries::next_id;
use crate::engine::error::Result;

/// One record as kept.
#[derive(Debug)]
struct Kept {
    id: EntryId,
    chain: String,
    sequence: u64,
    record: ChainRecord,
}

/// The records of a bucket in the order written, where its chains begin and end, and what they count.
#[derive(Debug, Default)]
pub(super) struct Audit {
    kept: VecDeque<Kept>,
    last_id: EntryId,
    chains: Chains,
    /// Chains with an anchor that are not looked through yet: ms of the record of it.
    trimmed: BTreeMap<String, u64>,
    counts: BTreeMap<String, i64>,
    times: BTreeMap<String, u64>,
}

impl Audit {
    /// Records kept.
    pub(super) fn len(&self) -> u64 {
        self.kept.len() as u64
    }

    /// As `append_records.lua`.
    pub(super) fn append(&mut self, batch: &ChainBatch, now_ms: u64) -> Result<()> {
        let last = ChainPlace { sequence: batch.last()?, hash: batch.records.last().map(|record| record.hash.clone()).unwrap_or_default() };
        if let Some(head) = self.chains.heads.get(&batch.chain) {
            if head.sequence > last.sequence || *head == last {
                return Ok(());
            }
            if head.sequence + 1 != batch.first {
                return Err(batch.refused(head));
            }
        }
        for (sequence, record) in (batch.first..).zip(&batch.records) {
            self.last_id = next_id(self.last_id, now_ms);
            self.kept.push_back(Kept { id: self.last_id, chain: batch.chain.clone(), sequence, record: record.clone() });
        }
        self.chains.heads.insert(batch.chain.clone(), last);
        add(&mut self.counts, &batch.counts, i64::saturating_add);
        add(&mut self.times, &batch.times, u64::max);
        Ok(())
    }

    pub(super) fn records(&self, after: EntryId, to: EntryId, count: usize) -> Vec<(EntryId, ChainRecord)> {
        let start = self.kept.partition_point(|kept| kept.id <= after);
        let asked_for = self.kept.range(start..).take_while(|kept| kept.id <= to).take(count);
        asked_for.map(|kept| (kept.id, kept.record.clone())).collect()
    }

    pub(super) fn chains(&self) -> Chains {
        self.chains.clone()
    }

    /// As `trim_records.lua`.
    pub(super) fn trim(&mut self, before_ms: u64, most: u64) -> (u64, bool) {
        let (mut removed, mut more) = (0_usize, false);
        let mut touched = BTreeMap::new();
        while let Some(first) = self.kept.front()
            && (first.id.ms < before_ms || self.kept.len() as u64 > most)
        {
            if removed == TRIMMED_A_CALL {
                more = true;
                break;
            }
            let Some(Kept { id, chain, sequence, record }) = self.kept.pop_front() else { break };
            touched.insert(chain, (id.ms, ChainPlace { sequence, hash: record.hash }));
            removed += 1;
        }
        for (chain, (ms, anchor)) in touched {
            self.trimmed.insert(chain.clone(), ms);
            self.chains.anchors.insert(chain, anchor);
        }
        (removed as u64, self.forget(before_ms) || more)
    }

    /// Forgets chains of which nothing is left, and nothing was written since; answers whether there may be more of them.
    fn forget(&mut self, before_ms: u64) -> bool {
        let old = self.trimmed.iter().filter(|(_, ms)| **ms < before_ms).map(|(chain, _)| chain.clone());
        let old: Vec<String> = old.take(TRIMMED_A_CALL).collect();
        for chain in &old {
            if self.chains.heads.get(chain) == self.chains.anchors.get(chain) {
                self.chains.heads.remove(chain);
                self.chains.anchors.remove(chain);
            }
            // One that goes on comes back with its next record that is removed.
            self.trimmed.remove(chain);
        }
        old.len() == TRIMMED_A_CALL
    }

    /// Adds what this bucket counts.
    pub(super) fn add_to(&self, counts: &mut BTreeMap<String, i64>, times: &mut BTreeMap<String, u64>) {
        add(counts, &self.counts, i64::saturating_add);
        add(times, &self.times, u64::max);
    }
}

fn add<T: Copy + Default>(sums: &mut BTreeMap<String, T>, more: &BTreeMap<String, T>, add: impl Fn(T, T) -> T) {
    for (name, number) in more {
        let known = sums.entry(name.clone()).or_default();
        *known = add(*known, *number);
    }
}
