//! What other processes announce: that types, groups, documents, services or agents are new, and events that are not stored. One
//! connection a bus.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::Cmd;
use redis::aio::PubSubSink;
use tokio::sync::watch;

use super::super::{Bucket, StoreEvent, Transient};
use super::board::ORCHESTRATION;
use super::commons::DOCUMENTS;
use super::nodes::Node;
use super::roster::SERVICES;
use super::{Shared, hash_slot, reply};
use crate::engine::error::{Error, Result};
use crate::engine::log::failed;

/// First and longest pause between attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Time between signs of life that are asked for.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Which buckets are wanted, and what came of that.
#[derive(Default)]
pub struct Channels {
    wanted: watch::Sender<BTreeSet<Bucket>>,
    heard: watch::Sender<Heard>,
}

#[derive(Default)]
struct Heard {
    buckets: BTreeSet<Bucket>,
    /// Why the last attempt to hear more failed.
    refused: Option<Error>,
}

impl Shared {
    /// See `Store::hear`.
    pub async fn hear(&self, buckets: &BTreeSet<Bucket>) -> Result<()> {
        if self.link.is_closed() {
            return Err(Error::closed("the connection to Redis"));
        }
        self.channels.heard.send_modify(|heard| heard.refused = None);
        self.channels.wanted.send_replace(buckets.clone());
        if !self.link.is_connected() && !self.link.nodes.is_cluster() {
            // It is heard when the server is back: nobody has to wait for that.
            return Err(self.link.unreachable("the connection is lost"));
        }
        let mut heard = self.channels.heard.subscribe();
        let done = heard.wait_for(|heard| heard.refused.is_some() || buckets.is_subset(&heard.buckets));
        match tokio::time::timeout(self.link.settings.command_timeout, done).await {
            Ok(Ok(heard)) => heard.refused.clone().map_or(Ok(()), Err),
            _ => Err(self.link.unreachable("no answer in time")),
        }
    }

    /// See `Store::cast`.
    pub async fn cast(&self, bucket: Bucket, events: Vec<Transient>) -> Result<()> {
        let channel = self.keys.transient(bucket);
        let commands: Vec<Cmd> = events
            .iter()
            .map(|event| {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(&channel).arg(event.to_text());
                publish
            })
            .collect();
        for value in self.settler(bucket).once(&commands).await? {
            reply::int(&value)?;
        }
        Ok(())
    }

    /// Hears what is announced, for as long as the store is open.
    pub async fn listen(self: Arc<Self>) {
        let mut pause = RECONNECT.0;
        while !self.link.is_closed() {
            if self.listen_once().await {
                pause = RECONNECT.0;
            }
            self.channels.heard.send_modify(|heard| heard.buckets.clear());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT.1);
        }
    }

    /// Until the connection ends; answers whether there was one.
    async fn listen_once(&self) -> bool {
        // In a cluster each node hears what is said at any other: one that keeps its place will do.
        let slot = hash_slot::of_key(self.keys.global("changes").as_bytes());
        let Ok(node) = self.link.nodes.owner(slot).await else { return false };
        let Ok(connection) = self.link.subscriber(&node).await else { return false };
        let (mut sink, mut announcements) = connection.split();
        let subscribing = tokio::time::timeout(self.link.settings.command_timeout, sink.subscribe(self.keys.global("changes")));
        if !matches!(subscribing.await, Ok(Ok(()))) {
            return false;
        }
        let mut watchdog = tokio::time::interval(PING_EVERY);
        watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What was said before is made up for by looking.
        self.news(None).await;
        let mut wanted = self.channels.wanted.subscribe();
        let mut listening = BTreeSet::new();
        let mut asked = true;
        loop {
            // Also what was wanted while something else was done.
            asked |= wanted.has_changed().unwrap_or(false);
            let wish = wanted.borrow_and_update().clone();
            if std::mem::take(&mut asked) && wish != listening {
                // A connection that is silent is found out here as by the pings.
                let changing = tokio::time::timeout(self.link.settings.command_timeout, self.change(&node, &mut sink, &listening, &wish));
                let Ok(changed) = changing.await else { return true };
                match changed {
                    Ok(()) => {
                        listening.clone_from(&wish);
                        self.channels.heard.send_replace(Heard { buckets: wish, refused: None });
                    }
                    Err(error) if error.retryable => return true,
                    // Not asked for again until more is wanted.
                    Err(error) => self.channels.heard.send_modify(|heard| heard.refused = Some(error)),
                }
            }
            tokio::select! {
                message = announcements.next() => match message {
                    Some(message) => self.announced(&message).await,
                    None => return true,
                },
                changed = wanted.changed() => match changed {
                    Ok(()) => asked = true,
                    Err(_) => return true,
                },
                // A server that is gone without a word is silent, as one that has nothing to say.
                _ = watchdog.tick() => {
                    let ping = tokio::time::timeout(self.link.settings.command_timeout, sink.ping::<redis::Value>());
                    if !matches!(ping.await, Ok(Ok(_))) {
                        return true;
                    }
                },
                () = self.link.nodes.left(slot, &node) => return true,
            }
        }
    }

    async fn change(&self, node: &Node, sink: &mut PubSubSink, from: &BTreeSet<Bucket>, to: &BTreeSet<Bucket>) -> Result<()> {
        let explain = |error| self.link.target(node).explain(&error);
        let names = |buckets: &mut dyn Iterator<Item = &Bucket>| buckets.map(|bucket| self.keys.transient(*bucket)).collect::<Vec<_>>();
        let (more, less) = (names(&mut to.difference(from)), names(&mut from.difference(to)));
        if !more.is_empty() {
            sink.subscribe(&more).await.map_err(explain)?;
        }
        if !less.is_empty() {
            sink.unsubscribe(&less).await.map_err(explain)?;
        }
        Ok(())
    }

    /// Tells what was announced; `None`: some of it may have been missed.
    async fn news(&self, news: Option<&str>) {
        if news.is_none_or(|news| ![DOCUMENTS, SERVICES, ORCHESTRATION].contains(&news)) {
            if let Err(error) = self.heard(news).await {
                failed!(error, "how types are laid out could not be read");
            }
            self.link.tell(StoreEvent::TopologyChanged);
        }
        if news.is_none_or(|news| news == DOCUMENTS) {
            self.link.tell(StoreEvent::DocumentsChanged);
        }
        if news.is_none_or(|news| news == SERVICES) {
            self.link.tell(StoreEvent::ServicesChanged);
        }
        if news.is_none_or(|news| news == ORCHESTRATION) {
            self.link.tell(StoreEvent::BoardChanged);
        }
    }

    async fn announced(&self, message: &redis::Msg) {
        if message.get_channel_name() == self.keys.global("changes") {
            return self.news(Some(&message.get_payload::<String>().unwrap_or_default())).await;
        }
        if let Some(event) = std::str::from_utf8(message.get_payload_bytes()).ok().and_then(Transient::parse) {
            self.link.tell(StoreEvent::Transient(Arc::new(event)));
        } else {
            tracing::debug!("what came on the channel {} is no event of this bus", message.get_channel_name());
        }
    }
}
