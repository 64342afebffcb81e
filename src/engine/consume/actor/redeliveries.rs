//! Redeliveries that are due, claimed as places allow.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::{Actor, Claimed, DUE_POLL, Done, Work, release, same};
use crate::engine::consume::gate;
use crate::engine::consume::group::{GroupId, Reading};
use crate::engine::error::Result;
use crate::engine::host::{Kind, Lifecycle};
use crate::engine::store::{Due, DueIndex, EntryId, Partition};

impl Actor {
    pub(super) fn look_for_due(&mut self) {
        let now = Instant::now();
        let mut work: Vec<Work> = Vec::new();
        for group in self.groups.values_mut() {
            if !group.looks() || group.due_at > now {
                continue;
            }
            group.looking = true;
            group.due_at = now + DUE_POLL;
            let (store, id, buckets) = (self.store.clone(), group.id.clone(), group.buckets());
            work.push(Box::pin(async move {
                let looks = join_all(buckets.iter().map(|bucket| store.due(*bucket, &id.name))).await;
                let mut all = DueIndex::default();
                for look in looks {
                    match look {
                        Ok(mut index) => {
                            all.partitions.append(&mut index.partitions);
                            all.next_in_ms = [all.next_in_ms, index.next_in_ms].into_iter().flatten().min();
                        }
                        Err(error) => return Done::Looked(id, Err(error)),
                    }
                }
                Done::Looked(id, Ok(all))
            }));
        }
        self.work.extend(work);
    }

    pub(super) fn looked(&mut self, id: &GroupId, result: Result<DueIndex>) {
        let Some(group) = same(&mut self.groups, id) else { return };
        group.looking = false;
        let Ok(index) = result else { return };
        if let Some(next) = index.next_in_ms {
            group.due_at = group.due_at.min(Instant::now() + Duration::from_millis(next));
        }
        for partition in index.partitions {
            if let Some(reading) = group.partitions.get_mut(&partition) {
                reading.due = true;
            }
        }
    }

    /// Takes due redeliveries as places allow.
    pub(super) fn claim(&mut self) {
        let mut work: Vec<Work> = Vec::new();
        for group in self.groups.values_mut() {
            // What is wanted comes next, so that claims without end do not put it off.
            if group.comparison.running || group.comparison.wanted {
                continue;
            }
            let Some(turn) = group.claimable() else { continue };
            let is_due = |(partition, reading): &(&Partition, &Reading)| reading.due && partition.lane <= turn;
            let due: Vec<Partition> = group.partitions.iter().filter(is_due).map(|(at, _)| at.clone()).collect();
            for partition in due {
                let asked = group.free(&partition).min(self.settings.batch_size);
                if asked == 0 {
                    continue;
                }
                let reserved: Vec<(u32, usize)> = group.matching(&partition).map(|sub| (sub.id, asked)).collect();
                for (id, n) in &reserved {
                    if let Some(sub) = group.sub_mut(*id) {
                        sub.reserved += n;
                    }
                }
                if let Some(reading) = group.partitions.get_mut(&partition) {
                    reading.due = false;
                }
                group.claiming += 1;
                let (store, group, consumer) = (self.store.clone(), group.id.clone(), self.consumer.clone());
                let gate = self.gate.clone();
                work.push(Box::pin(async move {
                    let result = match store.claim_due(&partition, &group.name, &consumer, asked).await {
                        Ok(due) => gate::admit(gate.as_ref(), due.entries).await.map(|entries| Due { entries, lost: due.lost }),
                        Err(error) => Err(error),
                    };
                    Done::Claimed(Claimed { group, consumer, partition, reserved, asked, result })
                }));
            }
        }
        self.work.extend(work);
    }

    pub(super) fn claimed(&mut self, claimed: Claimed) {
        let Claimed { group: id, consumer, partition, reserved, asked, result } = claimed;
        if let Some(group) = same(&mut self.groups, &id) {
            release(&mut group.claiming, 1);
            for (id, n) in &reserved {
                if let Some(sub) = group.sub_mut(*id) {
                    release(&mut sub.reserved, *n);
                }
            }
            if let Ok(due) = &result {
                group.turns.took(partition.lane, due.entries.len());
            }
            match &result {
                // As many as asked for: there may be more, after the others had their turn.
                Ok(due) if due.entries.len() >= asked => group.due_at = Instant::now(),
                Ok(_) => {}
                // Some may be ours without our knowing.
                Err(_) => group.doubt(),
            }
        } else {
            self.claimed_for_none(&id);
        }
        let Ok(due) = result else { return };
        self.say_lost(&id, &partition, &due.lost);
        self.take(&id.name, &consumer, due.entries, false);
    }

    /// Entries were pending whose content is gone.
    pub(super) fn say_lost(&mut self, id: &GroupId, partition: &Partition, lost: &[EntryId]) {
        if !lost.is_empty() {
            let ids: Vec<String> = lost.iter().take(100).map(EntryId::to_string).collect();
            let about = json!({ "eventType": &*partition.event_type, "group": &**id.name, "count": lost.len(), "streamIds": ids });
            self.said.push(Lifecycle(Kind::DataLoss, about));
        }
    }
}
