//! What goes wrong between this process and the store: lost groups, lapsed leases, silent handlers, lost replies.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::{Actor, Done, READ_PAUSE, Work, consumer_name};
use crate::engine::consume::LEASE;
use crate::engine::consume::flush::Note;
use crate::engine::consume::group::Group;
use crate::engine::error::Result;
use crate::engine::host::{Kind, Lifecycle};
use crate::engine::store::{Bucket, Disposal, EntryId, GroupSpec, Held, Partition, StartFrom};

impl Actor {
    /// Makes lost groups again, from where this bus knows everything before to be settled.
    pub(super) fn restore(&mut self, group_name: &Arc<str>, partitions: Vec<Partition>) {
        let Some(group) = self.groups.get_mut(group_name) else { return };
        group.comparing = true;
        let specs: Vec<GroupSpec> = group.subs.iter().map(|sub| sub.spec(group_name)).collect();
        let mut work = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let last_seen = group.partitions.get(&partition).map_or(EntryId::default(), |reading| reading.last_seen);
            let held =
                self.deliveries.iter().filter(|(_, e)| e.group == *group_name && e.held.partition == partition).map(|(_, e)| e.held.id);
            let lowest = held.chain(self.flusher.ids(group_name, &partition)).min();
            work.push((partition, lowest.map_or(last_seen, EntryId::previous), last_seen));
        }
        let (store, consumer, name, host) = (self.store.clone(), self.consumer.clone(), group_name.clone(), self.host.clone());
        self.work.push(Box::pin(async move {
            for spec in &specs {
                // Types and groups may be lost with the streams: note them again.
                if let Err(error) = store.join(spec, StartFrom::Beginning, &consumer).await {
                    tracing::debug!(%error, "joining again");
                }
            }
            for (partition, after, last_seen) in work {
                match store.restore_group(&partition, &name, after).await {
                    Ok(_) => {
                        let state = store.inspect(&partition).await.ok().flatten().unwrap_or_default();
                        let about = json!({
                            "eventType": &*partition.event_type, "group": &*name, "after": after.to_string(), "lastSeen": last_seen.to_string(),
                            "firstLeft": state.first.map(|id| id.to_string()),
                        });
                        if state.first.is_none_or(|first| first > after) && last_seen != EntryId::default() {
                            host.lifecycle(vec![Lifecycle(Kind::DataLoss, about)]);
                        }
                    }
                    Err(error) => tracing::debug!(%error, "making a lost group again"),
                }
            }
            Done::Compared { group: name, consumer, pending: Vec::new() }
        }));
    }

    /// Others may hold what was held here: go on under a new name. Handlers that run may still succeed.
    pub(super) fn lapsed(&mut self) {
        let old = self.consumer.clone();
        self.consumer = consumer_name(&self.settings, &self.env);
        self.lease.replace(self.consumer.clone(), Instant::now());
        for group in self.groups.values_mut() {
            for key in std::mem::take(&mut group.waiting) {
                if let Some(entry) = self.deliveries.remove(key) {
                    for sub in group.subs.iter_mut().filter(|sub| entry.subscriptions.contains(&sub.id)) {
                        sub.in_flight -= 1;
                    }
                }
            }
            group.waker.wake();
        }
        self.said.push(Lifecycle::warn(format!(
            "the lease of consumer {old} had lapsed (this process or Redis was stopped for more than {} s): what it held goes to others, it goes on as {}",
            LEASE.as_secs(),
            self.consumer
        )));
        let (store, lease, consumer) = (self.store.clone(), self.lease.clone(), self.consumer.clone());
        let buckets: BTreeSet<Bucket> = self.groups.values().flat_map(Group::buckets).collect();
        // Nothing is read before the new lease is there.
        let names: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        self.groups.values_mut().for_each(|group| group.comparing = true);
        self.work.push(Box::pin(async move {
            let buckets: Vec<Bucket> = buckets.into_iter().collect();
            if let Err(error) = store.release(&old, &buckets).await {
                tracing::debug!(%error, "ending a lapsed lease");
            }
            loop {
                let at = Instant::now();
                match store.renew(&consumer, &buckets, LEASE).await {
                    Ok(_) => {
                        lease.renewed(&consumer, at);
                        return Done::Leased(names);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a new lease waits for the server");
                        tokio::time::sleep(READ_PAUSE.1).await;
                    }
                }
            }
        }));
    }

    pub(super) fn set_stalled(&mut self, stalled: bool) {
        if stalled && !self.stalled {
            self.said
                .push(Lifecycle::warn("the JavaScript thread has been silent for limits.stallTimeoutMs: its events go to other processes"));
            self.lease.set_buckets(Vec::new());
            let (store, consumer) = (self.store.clone(), self.consumer.clone());
            let buckets: Vec<Bucket> = self.groups.values().flat_map(Group::buckets).collect();
            self.work.push(Box::pin(async move {
                if let Err(error) = store.release(&consumer, &buckets).await {
                    tracing::debug!(%error, "letting go of the lease");
                }
                Done::Nothing
            }));
        } else if !stalled && self.stalled {
            self.renew_buckets();
            self.lapsed();
        }
        self.stalled = stalled;
    }

    /// Compares what is pending in the store with what is held here: a reply lost on the wire leaves entries that
    /// nobody knows of.
    pub(super) fn compare(&mut self) {
        let mut work: Vec<Work> = Vec::new();
        for (name, group) in &mut self.groups {
            if !group.compare_wanted || group.comparing || group.claiming > 0 {
                continue;
            }
            if group.reading.is_some() {
                group.waker.wake();
                continue;
            }
            (group.compare_wanted, group.comparing) = (false, true);
            let partitions: Vec<Partition> = group.partitions.keys().cloned().collect();
            let (store, name, consumer) = (self.store.clone(), name.clone(), self.consumer.clone());
            work.push(Box::pin(async move {
                let mut pending = Vec::new();
                for chunk in partitions.chunks(100) {
                    let answers = join_all(chunk.iter().map(|partition| store.pending(partition, &name, &consumer))).await;
                    pending.extend(chunk.iter().cloned().zip(answers.into_iter().map(Result::unwrap_or_default)));
                }
                Done::Compared { group: name, consumer, pending }
            }));
        }
        self.work.extend(work);
    }

    pub(super) fn compared(&mut self, group_name: &Arc<str>, consumer: &Arc<str>, pending: Vec<(Partition, Vec<(EntryId, u32)>)>) {
        if let Some(group) = self.groups.get_mut(group_name) {
            group.comparing = false;
        }
        for (partition, entries) in pending.into_iter().filter(|(_, entries)| !entries.is_empty()) {
            let held =
                self.deliveries.iter().filter(|(_, e)| e.group == *group_name && e.held.partition == partition).map(|(_, e)| e.held.id);
            let known: HashSet<EntryId> = held.chain(self.flusher.ids(group_name, &partition)).collect();
            for (id, deliveries) in entries {
                if !known.contains(&id) {
                    let held = Held { partition: partition.clone(), id, deliveries };
                    self.settle_untouched(group_name, consumer, held, Disposal::HandBack, Note::default());
                }
            }
            if let Some(group) = self.groups.get_mut(group_name) {
                group.due_at = group.due_at.min(Instant::now() + Duration::from_millis(20));
            }
        }
    }
}
