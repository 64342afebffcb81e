//! Which partitions are read: types come and go while subscriptions stay.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Actor, Done};
use crate::engine::consume::LEASE;
use crate::engine::consume::group::Group;
use crate::engine::error::Result;
use crate::engine::name;
use crate::engine::store::{Bucket, Partition};

impl Actor {
    pub(super) fn read_types(&mut self) {
        if self.stopping.is_some() || self.groups.is_empty() {
            return;
        }
        let store = self.store.clone();
        self.work.push(Box::pin(async move { Done::Types(store.topology().await.map(|topology| topology.types)) }));
    }

    pub(super) fn types(&mut self, result: Result<Vec<String>>) {
        // Not reached: the regular look, and the reconnection, make up for it.
        let Ok(types) = result else { return };
        let mut new: Vec<(Arc<str>, Vec<Partition>)> = Vec::new();
        for (name, group) in &self.groups {
            let partitions: Vec<Partition> = types
                .iter()
                .filter(|event_type| group.subs.iter().any(|sub| sub.closing.is_none() && name::matches(&sub.pattern, event_type)))
                .map(|event_type| Partition::new(event_type.as_str(), 0))
                .filter(|partition| !group.partitions.contains_key(partition))
                .collect();
            if !partitions.is_empty() {
                new.push((name.clone(), partitions));
            }
        }
        for (group, partitions) in new {
            // The lease first: an entry taken without one could be taken away at once.
            let (store, consumer, lease) = (self.store.clone(), self.consumer.clone(), self.lease.clone());
            let buckets: BTreeSet<Bucket> = partitions.iter().map(Partition::bucket).collect();
            self.work.push(Box::pin(async move {
                let buckets: Vec<Bucket> = buckets.into_iter().collect();
                let at = Instant::now();
                match store.renew(&consumer, &buckets, LEASE).await {
                    Ok(_) => {
                        lease.renewed(&consumer, at);
                        Done::Ready { group, partitions }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "new types wait for the server");
                        Done::Nothing
                    }
                }
            }));
        }
    }

    pub(super) fn add_partitions(&mut self, group: &Arc<str>, partitions: Vec<Partition>) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let mut new = false;
        for partition in partitions {
            new |= !group.partitions.contains_key(&partition);
            group.partitions.entry(partition).or_default();
        }
        if new {
            group.due_at = Instant::now();
            group.waker.wake();
            self.renew_buckets();
        }
    }

    pub(super) fn renew_buckets(&self) {
        let buckets: BTreeSet<Bucket> = self.groups.values().flat_map(Group::buckets).collect();
        self.lease.set_buckets(buckets.into_iter().collect());
    }
}
