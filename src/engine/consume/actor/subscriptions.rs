//! Subscriptions: made, paused, ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ordered::give_up;
use super::partitions::take_lease;
use super::{Actor, Closing, Done, Joining, Lapsed, READ_PAUSE, ReadResult, Unread, release, same};
use crate::engine::consume::gate::{self, Gate};
use crate::engine::consume::group::{Group, GroupId, GroupName, Sub};
use crate::engine::consume::held::Key;
use crate::engine::consume::plan::Plan;
use crate::engine::consume::{Lease, Subscribed};
use crate::engine::env::Env;
use crate::engine::error::{Error, Result};
use crate::engine::host::{Kind, Lifecycle};
use crate::engine::name;
use crate::engine::options::{Start, SubscribeOptions};
use crate::engine::store::{Disposal, GroupSpec, Partition, ReadError, Reader, StartFrom, Store, Waker};

/// How long closing a subscription waits for its group to end; the keeper makes up for what was not done.
const LEAVE_MAX: Duration = Duration::from_secs(2);

impl Actor {
    pub(super) fn subscribe(&mut self, id: u32, pattern: String, options: SubscribeOptions, reply: oneshot::Sender<Subscribed>) {
        if self.stopping.is_some() {
            let _ = reply.send(Err(Error::closed("the bus")));
            return;
        }
        let group_name: Arc<str> = options.group.clone().unwrap_or_else(|| self.settings.group.clone()).into();
        let policy = self.settings.retry.with(Some(&options.retry));
        let batch_max = options.batch.map_or(1, |batch| batch.size_max);
        let in_flight_max = options.max_unacknowledged.unwrap_or(self.settings.batch_size.max(batch_max));
        // Those that run are in flight.
        let concurrency = options.concurrency.map_or(in_flight_max, |n| n.min(in_flight_max));
        let start = match options.start {
            Start::Beginning => StartFrom::Beginning,
            Start::Latest => StartFrom::Latest,
            Start::Time(ms) | Start::Since(ms) => StartFrom::Time(ms),
        };
        let sub = Sub {
            id,
            pattern,
            options,
            policy,
            in_flight_max,
            concurrency,
            in_flight: 0,
            running: 0,
            overdue: 0,
            reserved: 0,
            paused: false,
            closing: None,
        };
        let spec = sub.spec(&group_name);
        let of_the_group = self.groups.values().filter(|group| *group.id.name == group_name);
        let others = of_the_group.flat_map(|group| &group.subs).filter(|other| other.closing.is_none());
        let coming = self.joining.values().map(|joining| &joining.sub).filter(|other| *self.group_of(other) == group_name);
        for other_sub in others.chain(coming) {
            let other = other_sub.spec(&group_name);
            let differs = other_sub.options.batch != sub.options.batch || other_sub.options.ordered != sub.options.ordered;
            if differs && name::overlap(&other.pattern, &spec.pattern) {
                let message = format!(
                    "group '{group_name}' is subscribed to '{}' on this bus, which matches some of the types of '{}', with another 'batch' or \
                         'ordered'. Handlers of one group that can get the same event must agree on these; use another group",
                    other.pattern, spec.pattern
                );
                let _ = reply.send(Err(Error::argument("options", message)));
                return;
            }
            if other.pattern == spec.pattern && other.options != spec.options {
                let message = format!(
                    "group '{group_name}' on '{}' is subscribed on this bus with other options: {}, here {}. All members of a group must agree; \
                     use the same options or another group",
                    spec.pattern, other.options, spec.options
                );
                let _ = reply.send(Err(Error::argument("options", message)));
                return;
            }
        }
        self.joining.insert(id, Joining { sub, reply });
        let (store, consumer) = (self.store.clone(), self.consumer.clone());
        let (lease, hearing, host) = (self.lease.clone(), self.hearing.clone(), self.host.clone());
        self.work.push(Box::pin(async move {
            let result = join(&store, &lease, &spec, start, &consumer).await;
            if result.is_ok() {
                hearing.add(&store, &host, id, &spec.pattern).await;
            }
            Done::Joined { id, spec, result }
        }));
    }

    pub(super) fn group_of(&self, sub: &Sub) -> GroupName {
        GroupName::new(sub.options.group.as_deref().unwrap_or(&self.settings.group).into(), sub.options.ordered)
    }

    pub(super) fn joined(&mut self, id: u32, spec: GroupSpec, result: Result<(Vec<Partition>, Lapsed)>) {
        // Gone when the bus was stopped or the subscription closed in the meantime.
        let Some(Joining { sub, reply }) = self.joining.remove(&id) else {
            self.hear_no_more(id);
            self.leave_spec(spec, None);
            return;
        };
        let (partitions, lapsed) = match result {
            Ok(joined) => joined,
            Err(error) => {
                // It may have got as far as to be noted.
                self.leave_spec(spec, None);
                let _ = reply.send(Err(error));
                return;
            }
        };
        let group_name = self.group_of(&sub);
        if !self.groups.contains_key(&group_name) {
            let group = self.open_group(group_name.clone());
            self.groups.insert(group_name.clone(), group);
        }
        let unseen = sub.options.unseen;
        if let Some(group) = self.groups.get_mut(&group_name) {
            group.add(sub);
        }
        self.ready(&group_name, partitions, lapsed);
        // Types that appeared while this was joining.
        self.read_types();
        if !unseen {
            self.counters.subscriptions.fetch_add(1, Ordering::Relaxed);
            let about = json!({ "eventType": spec.pattern, "group": &**group_name, "consumer": &*self.consumer });
            self.said.push(Lifecycle(Kind::SubscriptionCreated, about));
            tracing::info!(eventType = spec.pattern, group = &**group_name, consumer = &*self.consumer, "subscribed");
        }
        let _ = reply.send(Ok((group_name.to_string(), self.consumer.to_string())));
    }

    fn open_group(&mut self, name: GroupName) -> Group {
        self.serial += 1;
        let id = GroupId { name, serial: self.serial };
        let (plans, waker) = self.open_reader(&id, Duration::ZERO);
        Group::new(id, self.store.now_ms(), plans, waker)
    }

    /// A reader that begins after `pause`.
    fn open_reader(&mut self, group: &GroupId, pause: Duration) -> (mpsc::Sender<Plan>, Arc<dyn Waker>) {
        let (reader, waker) = self.store.reader(&group.name);
        let (plans, orders) = mpsc::channel(1);
        let results = read_loop(&self.env, reader, orders, pause, self.gate.clone());
        self.await_read(group.clone(), results);
        (plans, waker)
    }

    pub(super) fn await_read(&mut self, group: GroupId, mut results: mpsc::Receiver<ReadResult>) {
        self.work.push(Box::pin(async move {
            match results.recv().await {
                Some(result) => Done::Read(group, result, results),
                None => Done::ReaderEnded(group),
            }
        }));
    }

    /// A reader ends with its group, or by a defect: then another one goes on.
    pub(super) fn reader_ended(&mut self, id: &GroupId) {
        if same(&mut self.groups, id).is_none() {
            let unread = self.unread.iter_mut().filter(|unread| unread.group.serial == id.serial);
            unread.for_each(|unread| unread.reader_ended = true);
            return;
        }
        if self.stopping.is_some() {
            return;
        }
        self.said.push(Lifecycle::error(&Error::internal(format!("the reader of group '{}' ended; another one goes on", id.name))));
        let (plans, waker) = self.open_reader(id, READ_PAUSE.1);
        if let Some(group) = same(&mut self.groups, id) {
            (group.plans, group.waker, group.reading) = (plans, waker, None);
            // What it had read is pending, and known to nobody.
            group.doubt();
        }
    }

    pub(super) fn unsubscribe(&mut self, id: u32, deadline: Instant, reply: oneshot::Sender<Result<()>>) {
        if let Some(joining) = self.joining.remove(&id) {
            let _ = joining.reply.send(Err(Error::closed("the subscription")));
        }
        let Some(group) = self.groups.values_mut().find_map(|group| group.close(id, deadline).then(|| group.id.name.clone())) else {
            let _ = reply.send(Ok(()));
            return;
        };
        self.closing.push(Closing { id, group, deadline, reply });
        self.hand_back_waiting();
    }

    /// Ends subscriptions whose handlers are done or whose time is over.
    pub(super) fn close_finished(&mut self) {
        let now = Instant::now();
        for i in (0..self.closing.len()).rev() {
            let (id, deadline) = (self.closing[i].id, self.closing[i].deadline);
            let group = self.closing[i].group.clone();
            let running = self.groups.get_mut(&group).and_then(|g| g.sub_mut(id)).map_or(0, |sub| sub.running);
            if running > 0 && now < deadline {
                continue;
            }
            let Closing { reply, .. } = self.closing.swap_remove(i);
            self.abandon(id);
            self.abandon_transients(id);
            self.hear_no_more(id);
            if let Some(sub) = self.groups.get_mut(&group).and_then(|group| group.remove(id)) {
                if !sub.options.unseen {
                    self.counters.subscriptions.fetch_sub(1, Ordering::Relaxed);
                    let about = json!({ "eventType": sub.pattern, "group": &**group, "consumer": &*self.consumer });
                    self.said.push(Lifecycle(Kind::SubscriptionCancelled, about));
                    tracing::info!(eventType = sub.pattern, group = &**group, "a subscription ended");
                }
                self.leave(&group, &sub, reply);
            } else {
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// Does not wait any more for the subscription's handlers: to them, what they have is handed back. Other
    /// subscriptions finish theirs.
    fn abandon(&mut self, id: u32) {
        let unfinished: Vec<Key> =
            self.deliveries.iter().filter(|(_, entry)| entry.subscriptions.contains(&id)).map(|(key, _)| key).collect();
        for key in unfinished {
            let (waits, given_up, ended) = self.deliveries.abandon(key, id);
            if waits {
                self.settle_entry(key, Disposal::HandBack);
            } else if given_up {
                let group = self.deliveries.get(key).map(|entry| entry.group.clone());
                if let Some(sub) = group.and_then(|name| self.groups.get_mut(&name)).and_then(|group| group.sub_mut(id)) {
                    release(&mut sub.running, ended);
                }
                self.ended_if_all(key);
            }
        }
        self.deliveries.overdue.retain(|_, overdue| overdue.subscription != id);
    }

    /// What the group does not read any more is given up, in the store too.
    fn leave(&mut self, group_name: &GroupName, sub: &Sub, reply: oneshot::Sender<Result<()>>) {
        let Some(group) = self.groups.get_mut(group_name) else { return };
        let id = group.id.clone();
        let unread: Vec<Partition> = group.partitions.keys().filter(|p| group.matching(p).next().is_none()).cloned().collect();
        for partition in &unread {
            group.shut(partition);
        }
        group.waker.wake();
        let claims = if group.subs.is_empty() { group.claiming } else { 0 };
        if group.subs.is_empty() {
            // Its reader ends with the channel.
            self.groups.remove(group_name);
        }
        // A group that ends with its last consumer is gone when its subscription is closed.
        let waits = if sub.options.ephemeral {
            Some(reply)
        } else {
            let _ = reply.send(Ok(()));
            None
        };
        self.leave_spec(sub.spec(group_name), waits);
        if !unread.is_empty() {
            self.unread.push(Unread { group: id, partitions: unread, reader_ended: false, claims, told: false });
        }
    }

    /// Gives back what may be pending of what is not read any more, once nothing of it is on its way, and removes this
    /// consumer from it. Until then it is not read anew, see [`Actor::ready`].
    pub(super) fn forget_unread(&mut self) {
        for mut unread in std::mem::take(&mut self.unread) {
            if unread.told {
                self.unread.push(unread);
                continue;
            }
            let is_of = |partition: &Partition| unread.partitions.contains(partition);
            let read = match same(&mut self.groups, &unread.group) {
                Some(group) => group.claiming > 0 || group.reading.as_ref().is_some_and(|read| read.partitions.iter().any(is_of)),
                None => !unread.reader_ended || unread.claims > 0,
            };
            if read || self.flusher.entries(&unread.group.name).any(|(partition, _)| is_of(partition)) {
                self.unread.push(unread);
                continue;
            }
            let (store, lease, consumer) = (self.store.clone(), self.lease.clone(), self.consumer.clone());
            let (group, partitions) = (unread.group.clone(), unread.partitions.clone());
            self.work.push(Box::pin(async move {
                for partition in &partitions {
                    give_up(&store, &lease, partition, &group.name, &consumer).await;
                    // Housekeeping: should the server be away, the end of the lease does the same.
                    if let Err(error) = store.remove_consumer(partition, &group.name, &consumer).await {
                        tracing::debug!(%error, "removing a consumer");
                    }
                }
                Done::Forgotten(group, partitions)
            }));
            unread.told = true;
            self.unread.push(unread);
        }
    }

    /// These partitions are not this group's any more: another one of its name may read them.
    pub(super) fn forgotten(&mut self, group: &GroupId, partitions: &[Partition]) {
        self.unread.retain(|unread| !(unread.told && unread.group.serial == group.serial && unread.partitions == partitions));
        self.read_types();
    }

    /// A claim came back for a group that ended in the meantime.
    pub(super) fn claimed_for_none(&mut self, group: &GroupId) {
        let unread = self.unread.iter_mut().find(|unread| unread.group.serial == group.serial && unread.claims > 0);
        if let Some(unread) = unread {
            unread.claims -= 1;
        }
    }

    /// Whether a group of that name had the partition, and what is pending there is being given back.
    pub(super) fn is_leaving(&self, group: &str, partition: &Partition) -> bool {
        self.unread.iter().any(|unread| **unread.group.name == *group && unread.partitions.contains(partition))
    }

    /// Gives up a spec, unless another subscription has the same. Who waits for it hears when it is done, or after a while.
    fn leave_spec(&mut self, spec: GroupSpec, waits: Option<oneshot::Sender<Result<()>>>) {
        let open = self.groups.values().filter(|group| **group.id.name == *spec.group).flat_map(|group| &group.subs);
        let coming = self.joining.values().map(|joining| &joining.sub).filter(|sub| **self.group_of(sub) == *spec.group);
        if open.chain(coming).any(|sub| sub.pattern == spec.pattern) {
            if let Some(waits) = waits {
                let _ = waits.send(Ok(()));
            }
            return;
        }
        let (store, consumer) = (self.store.clone(), self.consumer.clone());
        self.work.push(Box::pin(async move {
            let mut leaving = store.leave(&spec, &consumer);
            let in_time = tokio::time::timeout(LEAVE_MAX, &mut leaving).await;
            if let Some(waits) = waits {
                let _ = waits.send(Ok(()));
            }
            let left = match in_time {
                Ok(left) => left,
                Err(_) => leaving.await,
            };
            if let Err(error) = left {
                tracing::debug!(%error, "leaving a group");
            }
            Done::Nothing
        }));
    }

    pub(super) fn pause(&mut self, id: u32, paused: bool) {
        for group in self.groups.values_mut() {
            if let Some(sub) = group.sub_mut(id) {
                sub.paused = paused;
                group.waker.wake();
            }
        }
        if paused {
            self.hand_back_waiting();
        }
    }

    /// Gives back waiting entries that no subscription wants any more.
    pub(super) fn hand_back_waiting(&mut self) {
        let mut back = Vec::new();
        for group in self.groups.values_mut() {
            for (lane, key) in group.waiting.take_all() {
                let Some(entry) = self.deliveries.get(key) else { continue };
                let wanted = entry.subscriptions.iter().all(|id| group.subs.iter().any(|sub| sub.id == *id && sub.wants()));
                if wanted {
                    group.waiting.push(lane, key);
                } else {
                    back.push(key);
                }
            }
        }
        for key in back {
            self.settle_entry(key, Disposal::HandBack);
        }
    }
}

async fn join(
    store: &Arc<dyn Store>,
    lease: &Lease,
    spec: &GroupSpec,
    start: StartFrom,
    consumer: &str,
) -> Result<(Vec<Partition>, Lapsed)> {
    let partitions = store.join(spec, start, consumer).await?;
    // The lease first: an entry taken without one could be taken away at once.
    let lapsed = take_lease(store, lease, &partitions).await?;
    Ok((partitions, lapsed))
}

/// The task beside: reads as it is told, one read at a time, and pauses after failures.
fn read_loop(
    env: &Env,
    mut reader: Box<dyn Reader>,
    mut plans: mpsc::Receiver<Plan>,
    begin: Duration,
    gate: Option<Arc<dyn Gate>>,
) -> mpsc::Receiver<ReadResult> {
    let (sender, results) = mpsc::channel(1);
    env.spawn(async move {
        tokio::time::sleep(begin).await;
        let mut pause = READ_PAUSE.0;
        while let Some(plan) = plans.recv().await {
            let result = match reader.read(&plan.consumer, &plan.from, plan.count, plan.wait).await {
                Ok(entries) => gate::admit(gate.as_ref(), entries).await.map_err(ReadError::Store),
                Err(error) => Err(error),
            };
            if result.is_err() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(READ_PAUSE.1);
            } else {
                pause = READ_PAUSE.0;
            }
            if sender.send((plan.consumer, result)).await.is_err() {
                return;
            }
        }
    });
    results
}
