//! Subscriptions: made, paused, ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Actor, Closing, Done, Joining, READ_PAUSE, ReadResult};
use crate::engine::consume::group::{Group, Plan, Sub};
use crate::engine::consume::held::Key;
use crate::engine::consume::{LEASE, Lease, Subscribed};
use crate::engine::error::{Error, Result};
use crate::engine::host::{Kind, Lifecycle};
use crate::engine::options::{Start, SubscribeOptions};
use crate::engine::store::{Bucket, Disposal, GroupSpec, Partition, Reader, StartFrom, Store};

impl Actor {
    pub(super) fn subscribe(&mut self, id: u32, pattern: String, options: SubscribeOptions, reply: oneshot::Sender<Subscribed>) {
        if self.stopping.is_some() {
            let _ = reply.send(Err(Error::closed("the bus")));
            return;
        }
        let group_name: Arc<str> = options.group.clone().unwrap_or_else(|| self.settings.group.clone()).into();
        let policy = self.settings.retry.with(Some(&options.retry));
        let in_flight_max = options.max_unacknowledged.unwrap_or(self.settings.batch_size);
        let concurrency = options.concurrency.unwrap_or(in_flight_max);
        let start = match options.start {
            Start::Beginning => StartFrom::Beginning,
            Start::Latest => StartFrom::Latest,
            Start::Time(ms) => StartFrom::Time(ms),
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
        let others = self.groups.get(&group_name).into_iter().flat_map(|group| &group.subs).filter(|other| other.closing.is_none());
        let coming = self.joining.values().map(|joining| &joining.sub).filter(|other| self.group_of(other) == group_name);
        for other in others.chain(coming) {
            let other = other.spec(&group_name);
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
        let lease = self.lease.clone();
        self.work.push(Box::pin(async move {
            let result = join(&store, &lease, &spec, start, &consumer).await;
            Done::Joined { id, group: group_name, result }
        }));
    }

    pub(super) fn group_of(&self, sub: &Sub) -> Arc<str> {
        sub.options.group.as_deref().unwrap_or(&self.settings.group).into()
    }

    pub(super) fn joined(&mut self, id: u32, group_name: &Arc<str>, result: Result<Vec<Partition>>) {
        // Gone when the bus was stopped or the subscription closed in the meantime.
        let Some(Joining { sub, reply }) = self.joining.remove(&id) else { return };
        let partitions = match result {
            Ok(partitions) => partitions,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let event_type = sub.pattern.clone();
        if !self.groups.contains_key(group_name) {
            let group = self.open_group(group_name.clone());
            self.groups.insert(group_name.clone(), group);
        }
        if let Some(group) = self.groups.get_mut(group_name) {
            group.add(sub);
        }
        self.counters.subscriptions.fetch_add(1, Ordering::Relaxed);
        self.add_partitions(group_name, partitions);
        // Types that appeared while this was joining.
        self.read_types();
        let about = json!({ "eventType": event_type, "group": &**group_name, "consumer": &*self.consumer });
        self.said.push(Lifecycle(Kind::SubscriptionCreated, about));
        let _ = reply.send(Ok((group_name.to_string(), self.consumer.to_string())));
    }

    pub(super) fn open_group(&mut self, name: Arc<str>) -> Group {
        let (reader, waker) = self.store.reader(&name);
        let (plans, orders) = mpsc::channel(1);
        let results = read_loop(reader, orders);
        self.await_read(name.clone(), results);
        Group::new(name, plans, waker)
    }

    pub(super) fn await_read(&mut self, group: Arc<str>, mut results: mpsc::Receiver<ReadResult>) {
        self.work.push(Box::pin(async move {
            match results.recv().await {
                Some(result) => Done::Read(group, result, results),
                None => Done::Nothing,
            }
        }));
    }

    pub(super) fn unsubscribe(&mut self, id: u32, deadline: Instant, reply: oneshot::Sender<Result<()>>) {
        if let Some(joining) = self.joining.remove(&id) {
            let _ = joining.reply.send(Err(Error::closed("the subscription")));
        }
        let found = self.groups.iter_mut().find_map(|(name, group)| group.sub_mut(id).map(|sub| (name.clone(), sub)));
        let Some((group, sub)) = found else {
            let _ = reply.send(Ok(()));
            return;
        };
        sub.closing = Some(deadline);
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
            if let Some(found) = self.groups.get_mut(&group)
                && let Some(at) = found.subs.iter().position(|sub| sub.id == id)
            {
                let sub = found.subs.remove(at);
                self.counters.subscriptions.fetch_sub(1, Ordering::Relaxed);
                let about = json!({ "eventType": sub.pattern, "group": &*group, "consumer": &*self.consumer });
                self.said.push(Lifecycle(Kind::SubscriptionCancelled, about));
                self.leave(&group, &sub);
            }
            let _ = reply.send(Ok(()));
        }
    }

    /// Hands back what the subscription's handlers have not finished.
    pub(super) fn abandon(&mut self, id: u32) {
        let unfinished: Vec<Key> =
            self.deliveries.iter().filter(|(_, entry)| entry.subscriptions.contains(&id)).map(|(key, _)| key).collect();
        for key in unfinished {
            self.settle_entry(key, Disposal::HandBack);
        }
        self.deliveries.overdue.retain(|_, overdue| overdue.subscription != id);
    }

    /// What the group does not read any more is given up, in the store too.
    pub(super) fn leave(&mut self, group_name: &Arc<str>, sub: &Sub) {
        let Some(group) = self.groups.get_mut(group_name) else { return };
        let spec = sub.spec(group_name);
        let same = group.subs.iter().any(|other| other.pattern == sub.pattern);
        let unread: Vec<Partition> = group.partitions.keys().filter(|p| group.matching(p).next().is_none()).cloned().collect();
        for partition in &unread {
            group.partitions.remove(partition);
        }
        group.waker.wake();
        if group.subs.is_empty() {
            // Its reader ends with the channel.
            self.groups.remove(group_name);
        }
        self.renew_buckets();
        let (store, consumer, name) = (self.store.clone(), self.consumer.clone(), group_name.clone());
        self.work.push(Box::pin(async move {
            // Housekeeping: should the server be away, the end of the lease does the same.
            if !same && let Err(error) = store.leave(&spec, &consumer).await {
                tracing::debug!(%error, "leaving a group");
            }
            for partition in unread {
                if let Err(error) = store.remove_consumer(&partition, &name, &consumer).await {
                    tracing::debug!(%error, "removing a consumer");
                }
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
            let waiting = std::mem::take(&mut group.waiting);
            for key in waiting {
                let Some(entry) = self.deliveries.get(key) else { continue };
                let wanted =
                    entry.subscriptions.iter().all(|id| group.subs.iter().any(|s| s.id == *id && !s.paused && s.closing.is_none()));
                if wanted {
                    group.waiting.push_back(key);
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

async fn join(store: &Arc<dyn Store>, lease: &Lease, spec: &GroupSpec, start: StartFrom, consumer: &str) -> Result<Vec<Partition>> {
    let partitions = store.join(spec, start, consumer).await?;
    let buckets: BTreeSet<Bucket> = partitions.iter().map(Partition::bucket).collect();
    let buckets: Vec<Bucket> = buckets.into_iter().collect();
    let at = Instant::now();
    // The lease first: an entry taken without one could be taken away at once.
    store.renew(consumer, &buckets, LEASE).await?;
    lease.renewed(consumer, at);
    Ok(partitions)
}

/// The task beside: reads as it is told, one read at a time, and pauses after failures.
fn read_loop(mut reader: Box<dyn Reader>, mut plans: mpsc::Receiver<Plan>) -> mpsc::Receiver<ReadResult> {
    let (sender, results) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut pause = READ_PAUSE.0;
        while let Some(plan) = plans.recv().await {
            let result = reader.read(&plan.consumer, &plan.from, plan.count, plan.wait).await;
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
