//! Which partitions are read: types come and go while subscriptions stay.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Actor, Done, Lapsed};
use crate::engine::consume::group::GroupName;
use crate::engine::consume::{LEASE, Lease};
use crate::engine::error::Result;
use crate::engine::log::failed;
use crate::engine::name;
use crate::engine::store::{Partition, Store};

/// Pause before what was announced during a look at the types is looked at: many types may come at once.
const TYPES_PAUSE: Duration = Duration::from_millis(20);

/// Whether the types there are, are being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TypesRead {
    #[default]
    No,
    Once,
    /// And once more then.
    Again,
}

impl Actor {
    pub(super) fn read_types(&mut self) {
        if self.stopping.is_some() || self.stalled || self.groups.is_empty() {
            return;
        }
        // One look at a time: what is announced meanwhile, one more look finds all together.
        if self.types_read != TypesRead::No {
            self.types_read = TypesRead::Again;
            return;
        }
        self.look_at_types(Duration::ZERO);
    }

    fn look_at_types(&mut self, pause: Duration) {
        self.types_read = TypesRead::Once;
        let store = self.store.clone();
        self.work.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            Done::Types(store.topology().await.map(|topology| topology.partitions))
        }));
    }

    pub(super) fn types(&mut self, result: Result<Vec<Partition>>) {
        if std::mem::take(&mut self.types_read) == TypesRead::Again && self.stopping.is_none() {
            self.look_at_types(TYPES_PAUSE);
        }
        // Not reached: the regular look, and the reconnection, make up for it.
        let Ok(known) = result else { return };
        for (name, group) in &self.groups {
            let partitions: Vec<Partition> = known
                .iter()
                .filter(|at| group.subs.iter().any(|sub| sub.closing.is_none() && name::matches(&sub.pattern, &at.event_type)))
                .filter(|partition| !group.partitions.contains_key(partition) && !self.is_leaving(name, partition))
                .cloned()
                .collect();
            if partitions.is_empty() {
                continue;
            }
            let (store, lease, group) = (self.store.clone(), self.lease.clone(), name.clone());
            self.work.push(Box::pin(async move {
                match take_lease(&store, &lease, &partitions).await {
                    Ok(lapsed) => Done::Ready { group, partitions, lapsed },
                    Err(error) => {
                        failed!(error, "new types wait for the server");
                        Done::Nothing
                    }
                }
            }));
        }
    }

    /// Partitions that can be read now.
    pub(super) fn ready(&mut self, group: &GroupName, mut partitions: Vec<Partition>, lapsed: Lapsed) {
        // Those come when they are given back.
        partitions.retain(|partition| !self.is_leaving(group, partition));
        if let Some(group) = self.groups.get_mut(group) {
            let mut new = false;
            for partition in partitions {
                new |= group.open(partition);
            }
            if new {
                group.due_at = Instant::now();
                group.waker.wake();
            }
        }
        if let Some(consumer) = lapsed {
            self.heard_lapsed(&consumer);
        }
    }
}

/// Takes the lease in the buckets of these partitions, before anything is read from them: an entry taken without one
/// could be taken away at once. It is renewed everywhere: one time holds for all of it.
pub(super) async fn take_lease(store: &Arc<dyn Store>, lease: &Lease, partitions: &[Partition]) -> Result<Lapsed> {
    let (consumer, buckets) = lease.widen(partitions.iter().map(Partition::bucket));
    if buckets.is_empty() {
        return Ok(None);
    }
    let at = Instant::now();
    if store.renew(&consumer, &buckets, LEASE).await? {
        lease.renewed(&consumer, at);
        return Ok(None);
    }
    Ok(Some(consumer))
}
