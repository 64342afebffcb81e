//! The end of all subscriptions with their bus.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Actor, HAND_BACK_MAX};
use crate::engine::consume::held::Key;
use crate::engine::host::{Kind, Lifecycle};
use crate::engine::store::Disposal;

impl Actor {
    /// Hands back what is left, leaves the groups, lets go of the lease: as far as time allows.
    pub(super) async fn finish(&mut self) {
        let keys: Vec<Key> = self.deliveries.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.settle_entry(key, Disposal::HandBack);
        }
        let end = Instant::now() + HAND_BACK_MAX;
        // Readers end first: what a read still brings is handed back too.
        for group in self.groups.values_mut() {
            group.waker.wake();
            group.plans = mpsc::channel(1).0;
        }
        while Instant::now() < end
            && (self.flusher.len() > 0 || self.posting > 0 || self.groups.values().any(|g| g.reading.is_some() || g.claiming > 0))
        {
            self.flush();
            let next = end.min(Instant::now() + Duration::from_millis(100));
            match tokio::time::timeout_at(next, self.work.next()).await {
                Ok(Some(done)) => {
                    self.now = Instant::now();
                    self.done(done);
                    self.hand_back_waiting();
                }
                // Settlements that failed wait for their next attempt.
                Ok(None) => tokio::time::sleep_until(next).await,
                Err(_) => {}
            }
        }
        let (store, consumer) = (self.store.clone(), self.consumer.clone());
        // Not renewed behind our back while it is released.
        let buckets = self.lease.suspend(true);
        let left = tokio::time::timeout_at(end, async {
            for unread in &self.unread {
                let removals = unread.partitions.iter().map(|partition| store.remove_consumer(partition, &unread.group.name, &consumer));
                join_all(removals).await;
            }
            for (name, group) in &self.groups {
                let removals = group.partitions.keys().map(|partition| store.remove_consumer(partition, name, &consumer));
                join_all(removals).await;
                for sub in &group.subs {
                    let _ = store.leave(&sub.spec(name), &consumer).await;
                }
            }
            store.release(&consumer, &buckets).await
        });
        if left.await.is_err() {
            tracing::debug!("the server did not hear that this consumer ends; its lease ends by itself");
        }
        for group in self.groups.values() {
            for sub in group.subs.iter().filter(|sub| !sub.options.unseen) {
                let about = json!({ "eventType": sub.pattern, "group": &**group.id.name, "consumer": &*self.consumer });
                self.said.push(Lifecycle(Kind::SubscriptionCancelled, about));
                tracing::info!(eventType = sub.pattern, group = &**group.id.name, "a subscription ended with its bus");
            }
        }
        self.counters.clear();
        self.host.settled(std::mem::take(&mut self.confirmed));
        self.host.lifecycle(std::mem::take(&mut self.said));
        for closing in self.closing.drain(..) {
            let _ = closing.reply.send(Ok(()));
        }
        if let Some((_, reply)) = self.stopping.take() {
            let _ = reply.send(());
        }
    }
}
