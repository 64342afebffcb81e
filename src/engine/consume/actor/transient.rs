//! Events that are not stored: to every subscription that matches at this moment, at most once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::time::Instant;

use super::{Actor, Done, release, traced};
use crate::engine::consume::Verdict;
use crate::engine::consume::casts::{Cast, InTransit};
use crate::engine::consume::group::Sub;
use crate::engine::event::MetaView;
use crate::engine::filter::{Filter, Labels};
use crate::engine::host::{Delivery, EventText, Host, Kind, Lifecycle, Token};
use crate::engine::log::failed;
use crate::engine::name;
use crate::engine::settle::Failure;
use crate::engine::store::{Bucket, EntryId, Partition, Store};
use crate::engine::trace::{About, Arrival};

/// Most events that wait for a place of one subscription.
const WAITING_MAX: usize = 1000;

/// An event, read once for all its subscriptions.
struct Arrived {
    event_id: String,
    event_type: Arc<str>,
    text: EventText,
    /// Where its trace is recorded. Each subscription receives it for itself.
    trace: Option<Box<Arrival>>,
}

/// What waits for a place of one subscription.
#[derive(Default)]
struct Queue {
    events: VecDeque<Arc<Arrived>>,
    /// Since it was full, until it is empty.
    dropped: u64,
}

/// Events that wait for places.
#[derive(Default)]
pub struct Transients {
    queues: BTreeMap<u32, Queue>,
    turn: bool,
}

impl Transients {
    /// Whether they go before stored events this time.
    pub fn have_the_turn(&mut self) -> bool {
        self.turn = !self.turn;
        self.turn
    }
}

/// Whether the subscription is there for the event. Everything that it asks of an event is asked here.
fn takes(sub: &Sub, event_type: &str, view: &MetaView<'_>, meta: &str) -> bool {
    let passes = |filter: &Filter| filter.takes(view, &Labels::read(meta));
    sub.closing.is_none() && !sub.paused && name::matches(&sub.pattern, event_type) && sub.options.filter.as_ref().is_none_or(passes)
}

impl Actor {
    /// Gives the event to all subscriptions that match.
    pub(super) fn cast(&mut self, cast: Cast) {
        if self.stopping.is_some() {
            return;
        }
        let event = &cast.event;
        let view = match MetaView::read(event.meta.as_bytes()) {
            Ok(view) => view,
            Err(error) => return tracing::debug!(%error, "a transient event cannot be read"),
        };
        let mut arrived = None;
        for sub in self.groups.values().flat_map(|group| &group.subs).filter(|sub| takes(sub, &event.event_type, &view, &event.meta)) {
            let arrived: &Arc<Arrived> = arrived.get_or_insert_with(|| {
                let text = EventText { meta: event.meta.as_str().into(), data: event.data.as_str().into(), asks: false, redriven: false };
                let trace = self.settings.tracer.arrived(&event.meta);
                Arc::new(Arrived { event_id: view.id.to_string(), event_type: event.event_type.clone(), text, trace })
            });
            let queue = self.transients.queues.entry(sub.id).or_default();
            if queue.events.len() < WAITING_MAX {
                queue.events.push_back(arrived.clone());
                continue;
            }
            if queue.dropped == 0 {
                tracing::warn!("transient events for '{}' are dropped: {WAITING_MAX} wait for its handlers already", sub.pattern);
            }
            queue.dropped += 1;
        }
    }

    /// Calls handlers as places allow.
    pub(super) fn dispatch_transients(&mut self) {
        if self.transients.queues.is_empty() {
            return;
        }
        for group in self.groups.values_mut() {
            for sub in &mut group.subs {
                let Some(queue) = self.transients.queues.get_mut(&sub.id) else { continue };
                while sub.can_run()
                    && let Some(arrived) = queue.events.pop_front()
                {
                    sub.running += 1;
                    let token = self.deliveries.free_token();
                    let (text, span) = arrived.trace.as_ref().map_or_else(
                        || (arrived.text.clone(), None),
                        |arrival| traced::call_transient(&self.settings.tracer, arrival, &arrived.text, about(&arrived, &group.id.name)),
                    );
                    let call = InTransit {
                        subscription: sub.id,
                        group: group.id.name.clone(),
                        event_type: arrived.event_type.clone(),
                        event_id: arrived.event_id.clone(),
                        started: Instant::now(),
                        overdue: false,
                        span,
                    };
                    self.deliveries.in_transit.insert(token, call);
                    self.out.push(Delivery {
                        subscription: sub.id,
                        token,
                        attempt: 1,
                        redelivered: false,
                        partition: Partition::new(arrived.event_type.clone(), 0),
                        id: EntryId::default(),
                        joined: false,
                        text,
                    });
                }
                if queue.events.is_empty() {
                    if queue.dropped > 0 {
                        tracing::warn!("{} transient events for '{}' were dropped", queue.dropped, sub.pattern);
                    }
                    self.transients.queues.remove(&sub.id);
                }
            }
        }
    }

    /// A verdict on such an event frees the place, and that is all. Answers whether it was one.
    pub(super) fn transient_ended(&mut self, token: Token, verdict: &Verdict) -> bool {
        if self.deliveries.in_transit.is_empty() {
            return false;
        }
        let Some(call) = self.deliveries.in_transit.get_mut(&token) else { return false };
        let sub = self.groups.get_mut(&call.group).and_then(|group| group.sub_mut(call.subscription));
        let was_overdue = call.overdue;
        traced::ended(Some(&mut call.span), verdict);
        // It ends now, whatever its handler does behind its time.
        call.span = None;
        if let Verdict::Failed(Failure::TimedOut(_)) = verdict
            && !was_overdue
        {
            // It still runs, and its end is still told.
            call.overdue = true;
            if let Some(sub) = sub {
                release(&mut sub.running, 1);
                sub.overdue += 1;
            }
        } else if let Some(sub) = sub {
            release(if was_overdue { &mut sub.overdue } else { &mut sub.running }, 1);
        }
        let about = json!({
            "eventType": &*call.event_type, "eventId": call.event_id, "group": &**call.group, "attempt": 1,
            "streamId": EntryId::default().to_string(), "durationMs": call.started.elapsed().as_secs_f64() * 1000.0,
        });
        let (event_type, took) = (call.event_type.clone(), Some(call.started.elapsed()));
        if was_overdue || !matches!(verdict, Verdict::Failed(Failure::TimedOut(_))) {
            self.deliveries.in_transit.remove(&token);
        }
        match verdict {
            // What failed when its time was over has been told.
            _ if was_overdue => {}
            Verdict::HandBack => {}
            Verdict::Done | Verdict::Replied(_) => {
                self.counters.metrics.settling().consumed(&event_type, took);
                self.say_transient(Kind::Consumed, about);
            }
            Verdict::Failed(failure) => {
                self.counters.metrics.settling().failed(&event_type, took, Some(failure.text()), false);
                let mut about = about;
                about["error"] = failure.text().into();
                self.say_transient(Kind::Failed, about);
            }
        }
        true
    }

    fn say_transient(&mut self, kind: Kind, about: serde_json::Value) {
        if self.host.listens(kind) {
            self.said.push(Lifecycle(kind, about));
        }
    }

    /// The subscription is gone: what waits for it goes, too, and its handlers are not waited for.
    pub(super) fn abandon_transients(&mut self, id: u32) {
        self.transients.queues.remove(&id);
        let groups = &mut self.groups;
        self.deliveries.in_transit.retain(|_, call| {
            let stays = call.subscription != id;
            if !stays && let Some(sub) = groups.get_mut(&call.group).and_then(|group| group.sub_mut(id)) {
                release(if call.overdue { &mut sub.overdue } else { &mut sub.running }, 1);
            }
            stays
        });
    }

    /// The subscription needs no events any more.
    pub(super) fn hear_no_more(&mut self, id: u32) {
        let (store, hearing) = (self.store.clone(), self.hearing.clone());
        self.work.push(Box::pin(async move {
            hearing.remove(&store, id).await;
            Done::Nothing
        }));
    }
}

/// Buckets whose events the subscriptions want.
#[derive(Default)]
pub struct Hearing {
    /// Held while the store is told, so that it is told in this order.
    wishes: tokio::sync::Mutex<BTreeMap<u32, BTreeSet<Bucket>>>,
    refused: AtomicBool,
}

fn about(arrived: &Arrived, group: &Arc<str>) -> About {
    About {
        partition: Some(Partition::new(arrived.event_type.clone(), 0)),
        message_id: Some(arrived.event_id.as_str().into()),
        body_bytes: Some(arrived.text.data.len()),
        group: Some(group.clone()),
        attempt: Some(1),
        ..About::default()
    }
}

fn buckets_of(pattern: &str) -> BTreeSet<Bucket> {
    if name::is_pattern(pattern) { Bucket::all().collect() } else { BTreeSet::from([Partition::new(pattern, 0).bucket()]) }
}

impl Hearing {
    /// From now on events for the subscription are heard. Where that is not possible, it is said once: stored events come
    /// all the same.
    pub async fn add(&self, store: &Arc<dyn Store>, host: &Arc<dyn Host>, id: u32, pattern: &str) {
        let mut wishes = self.wishes.lock().await;
        wishes.insert(id, buckets_of(pattern));
        let all = wishes.values().flatten().copied().collect();
        if let Err(error) = store.hear(&all).await {
            failed!(error, "transient events are not heard yet");
            if !error.retryable && !self.refused.swap(true, Ordering::AcqRel) {
                let message = format!("transient events do not arrive: {}", error.message);
                host.lifecycle(vec![Lifecycle::error(&crate::engine::error::Error { message, ..error })]);
            }
        }
    }

    async fn remove(&self, store: &Arc<dyn Store>, id: u32) {
        let mut wishes = self.wishes.lock().await;
        let before: BTreeSet<Bucket> = wishes.values().flatten().copied().collect();
        wishes.remove(&id);
        let all: BTreeSet<Bucket> = wishes.values().flatten().copied().collect();
        if all != before
            && let Err(error) = store.hear(&all).await
        {
            tracing::debug!(%error, "transient events are heard for nobody");
        }
    }
}
