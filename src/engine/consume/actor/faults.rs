//! What goes wrong between this process and the store: lost groups, lapsed leases, silent handlers, lost replies.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::{Actor, Done, READ_PAUSE, consumer_name, same};
use crate::engine::consume::LEASE;
use crate::engine::consume::flush::Note;
use crate::engine::consume::group::{Comparison, GroupId, GroupName};
use crate::engine::consume::held::Key;
use crate::engine::consume::ordered::Line;
use crate::engine::host::{Kind, Lifecycle};
use crate::engine::log::failed;
use crate::engine::store::{Disposal, EntryId, GroupSpec, Held, Partition, Restored, StartFrom};

/// Partitions whose pending entries are asked for at once.
const COMPARED_AT_ONCE: usize = 100;

impl Actor {
    /// Makes lost groups again, from where this bus knows everything before to be settled.
    pub(super) fn restore(&mut self, id: &GroupId) {
        let held = self.held(&id.name);
        let Some(group) = same(&mut self.groups, id) else { return };
        group.comparison.running = true;
        let specs: Vec<GroupSpec> = group.subs.iter().map(|sub| sub.spec(&id.name)).collect();
        // All of them: joining makes what is missing, too, but from the beginning.
        let work: Vec<(Partition, EntryId, EntryId, bool)> = group
            .partitions
            .iter()
            .map(|(partition, reading)| {
                let lowest = held.get(partition).and_then(|ids| ids.iter().min());
                (partition.clone(), lowest.map_or(reading.last_seen, |id| id.previous()), reading.last_seen, reading.was_there)
            })
            .collect();
        let (store, consumer, host, id) = (self.store.clone(), self.consumer.clone(), self.host.clone(), id.clone());
        self.work.push(Box::pin(async move {
            for (partition, after, last_seen, was_there) in work {
                match store.restore_group(&partition, &id.name, after, last_seen).await {
                    // It was there, and is gone with the stream, or with part of it.
                    Ok(restored @ (Restored::Anew | Restored::Continued)) if was_there => {
                        let state = store.inspect(&partition).await.ok().flatten().unwrap_or_default();
                        if restored == Restored::Anew || state.first.is_none_or(|first| first > after) {
                            let about = json!({
                                "eventType": &*partition.event_type, "group": &**id.name, "after": after.to_string(),
                                "lastSeen": last_seen.to_string(), "firstLeft": state.first.map(|id| id.to_string()),
                            });
                            host.lifecycle(vec![Lifecycle(Kind::DataLoss, about)]);
                        }
                    }
                    Ok(_) => {}
                    Err(error) => failed!(error, "making a lost group again"),
                }
            }
            for spec in &specs {
                // Types and groups may be lost with the streams: note them again.
                if let Err(error) = store.join(spec, StartFrom::Beginning, &consumer).await {
                    failed!(error, "joining again");
                }
            }
            Done::Restored(id)
        }));
    }

    pub(super) fn restored(&mut self, id: &GroupId) {
        if let Some(group) = same(&mut self.groups, id) {
            group.comparison.running = false;
            if let Some(lines) = &mut group.lines {
                lines.doubt_all();
            }
        }
    }

    /// Entries of the group that are held here, or on their way to be settled.
    pub(super) fn held(&self, group: &str) -> HashMap<Partition, HashSet<EntryId>> {
        let mut held: HashMap<Partition, HashSet<EntryId>> = HashMap::new();
        let delivered = self.deliveries.iter().filter(|(_, entry)| **entry.group == *group);
        let delivered = delivered.map(|(_, entry)| (&entry.held.partition, entry.held.id));
        for (partition, id) in delivered.chain(self.flusher.entries(group)) {
            held.entry(partition.clone()).or_default().insert(id);
        }
        held
    }

    /// Whether a handler of the group has the entry, or is to get it.
    pub(super) fn has(&self, group: &GroupName, entry: &Held) -> bool {
        let mut all = self.deliveries.iter().map(|(_, other)| other);
        all.any(|other| other.group == *group && other.held.id == entry.id && other.held.partition == entry.partition)
    }

    /// The lease of the consumer of this name had lapsed.
    pub(super) fn heard_lapsed(&mut self, consumer: &Arc<str>) {
        // Of a name that was given up since, it is no news.
        if *consumer == self.consumer && !self.stalled {
            self.lapsed();
        }
    }

    /// Others may hold what was held here: go on under a new name. Handlers that run may still succeed.
    pub(super) fn lapsed(&mut self) {
        let old = self.take_new_name();
        self.said.push(Lifecycle::warn(format!(
            "the lease of consumer {old} had lapsed (this process or Redis was stopped for more than {} s): what it held goes to others, it goes on as {}",
            LEASE.as_secs(),
            self.consumer
        )));
    }

    /// Answers the old one.
    fn take_new_name(&mut self) -> Arc<str> {
        let new = consumer_name(&self.settings, &self.env);
        let old = std::mem::replace(&mut self.consumer, new);
        self.lease.rename(self.consumer.clone());
        self.let_go();
        // Nothing is taken before the new lease is there.
        self.leasing = true;
        let (store, lease, consumer, given_up) = (self.store.clone(), self.lease.clone(), self.consumer.clone(), old.clone());
        self.work.push(Box::pin(async move {
            if let Err(error) = store.release(&given_up, &lease.current().1).await {
                tracing::debug!(%error, "ending a lapsed lease");
            }
            loop {
                // Let go of, or given up for yet another name, there is nothing to wait for.
                let (current, buckets) = lease.current();
                if *current != *consumer || buckets.is_empty() {
                    break;
                }
                let at = Instant::now();
                match store.renew(&consumer, &buckets, LEASE).await {
                    Ok(_) => {
                        lease.renewed(&consumer, at);
                        break;
                    }
                    Err(error) => {
                        failed!(error, "a new lease waits for the server");
                        tokio::time::sleep(READ_PAUSE.1).await;
                    }
                }
            }
            Done::Leased(consumer)
        }));
        old
    }

    /// The lease of this consumer is there.
    pub(super) fn leased(&mut self, consumer: &Arc<str>) {
        if *consumer != self.consumer {
            return;
        }
        self.leasing = false;
        // Whatever took the old lease may have taken groups with it; and the new name is to be known as a member.
        let groups: Vec<GroupId> = self.groups.values().map(|group| group.id.clone()).collect();
        for group in &groups {
            self.restore(group);
        }
    }

    /// Hands back what waits, and ends reads under the name there was.
    fn let_go(&mut self) {
        let mut back: Vec<Key> = Vec::new();
        for group in self.groups.values_mut() {
            // What waits here, others may take up by now.
            group.lines.iter_mut().flat_map(|lines| lines.by_partition.values_mut()).for_each(Line::forget);
            back.extend(group.waiting.take_all().map(|(_, key)| key));
            group.waker.wake();
        }
        for key in back {
            self.settle_entry(key, Disposal::HandBack);
        }
    }

    pub(super) fn set_stalled(&mut self, stalled: bool) {
        if stalled == self.stalled {
            return;
        }
        self.stalled = stalled;
        let buckets = self.lease.suspend(stalled);
        if !stalled {
            let old = self.take_new_name();
            tracing::info!(%old, new = %self.consumer, "the handlers' thread answers again");
            self.read_types();
            return;
        }
        self.said
            .push(Lifecycle::warn("the JavaScript thread has been silent for limits.stallTimeoutMs: its events go to other processes"));
        self.let_go();
        let (store, consumer) = (self.store.clone(), self.consumer.clone());
        self.work.push(Box::pin(async move {
            if let Err(error) = store.release(&consumer, &buckets).await {
                tracing::debug!(%error, "letting go of the lease");
            }
            Done::Nothing
        }));
    }

    /// Compares what is pending in the store with what is held here: a reply lost on the wire leaves entries that
    /// nobody knows of.
    pub(super) fn compare(&mut self) {
        let mut ready: Vec<GroupId> = Vec::new();
        for group in self.groups.values().filter(|group| group.comparison.wanted && !group.comparison.running && group.claiming == 0) {
            if group.reading.is_some() {
                group.waker.wake();
            } else {
                ready.push(group.id.clone());
            }
        }
        for id in ready {
            // Nothing is taken until the answer is there: what is held then, was held now.
            let mut held = self.held(&id.name);
            let Some(group) = same(&mut self.groups, &id) else { continue };
            group.comparison = Comparison { wanted: false, running: true };
            let partitions: Vec<Partition> = group.partitions.keys().cloned().collect();
            let (store, consumer) = (self.store.clone(), self.consumer.clone());
            self.work.push(Box::pin(async move {
                let mut lost = Vec::new();
                for chunk in partitions.chunks(COMPARED_AT_ONCE) {
                    let answers = join_all(chunk.iter().map(|partition| store.pending(partition, &id.name, &consumer))).await;
                    for (partition, pending) in chunk.iter().zip(answers) {
                        let known = held.remove(partition).unwrap_or_default();
                        let unknown = pending.unwrap_or_default().into_iter().filter(|(id, _)| !known.contains(id));
                        lost.extend(unknown.map(|(id, deliveries)| Held { partition: partition.clone(), id, deliveries }));
                    }
                }
                Done::Compared { group: id, consumer, lost }
            }));
        }
    }

    pub(super) fn compared(&mut self, id: &GroupId, consumer: &Arc<str>, lost: Vec<Held>) {
        if let Some(group) = same(&mut self.groups, id) {
            group.comparison.running = false;
            if !lost.is_empty() {
                group.due_at = group.due_at.min(Instant::now() + Duration::from_millis(20));
            }
        }
        for held in lost {
            self.settle_untouched(&id.name, consumer, held, Disposal::HandBack, Note::default());
        }
    }
}
