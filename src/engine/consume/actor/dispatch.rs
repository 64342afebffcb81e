//! Out to handlers: one event a call, or a batch of them.

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Actor, traced};
use crate::engine::consume::group::{Group, Sub};
use crate::engine::consume::held::{Deliveries, Key, Subscriptions};
use crate::engine::consume::waiting::Waiting;
use crate::engine::event::Priority;
use crate::engine::host::Delivery;
use crate::engine::metrics::Metrics;
use crate::engine::metrics::types::LastType;
use crate::engine::name;
use crate::engine::options::Batch;
use crate::engine::store::Held;
use crate::engine::trace::Tracer;

/// Entries that wait for more, by the subscriptions that will get them together.
type Gathered = BTreeMap<Subscriptions, Vec<(Priority, Key)>>;

impl Actor {
    /// Calls handlers for waiting entries, by turns, as places allow.
    pub(super) fn dispatch(&mut self) {
        let now = self.now;
        let metrics = self.counters.metrics.clone();
        let mut waits = Waits { metrics: &metrics, last: LastType::default(), now_ms: self.store.now_ms(), count: 0, sum: Duration::ZERO };
        let tracer = &self.settings.tracer;
        for group in self.groups.values_mut() {
            group.gathered_at = None;
            if group.waiting.is_empty() || !group.subs.iter().any(Sub::can_run) {
                continue;
            }
            let mut stay = Waiting::default();
            let mut gathered = Gathered::new();
            while let Some((lane, key)) = group.waiting.pop() {
                let Some(entry) = self.deliveries.get(key) else { continue };
                if !can_all_run(group, &entry.subscriptions) || !group.calls(&entry.held.partition) {
                    stay.push(lane, key);
                    // With one subscription the others behind it cannot run either.
                    if group.subs.len() == 1 && group.lines.is_none() {
                        break;
                    }
                    continue;
                }
                let Some(batch) = batch_of(group, &entry.subscriptions) else {
                    call(group, &mut self.deliveries, &mut self.out, &mut waits, &[(lane, key)], tracer, now);
                    continue;
                };
                let together = gathered.entry(entry.subscriptions.clone()).or_default();
                together.push((lane, key));
                if together.len() >= batch.size_max {
                    call(group, &mut self.deliveries, &mut self.out, &mut waits, &std::mem::take(together), tracer, now);
                }
            }
            for (subscriptions, together) in gathered {
                let Some(batch) = batch_of(group, &subscriptions).filter(|_| !together.is_empty()) else { continue };
                let arrived = together.iter().filter_map(|(_, key)| self.deliveries.get(*key)).map(|entry| entry.started).min();
                let at = arrived.map_or(now, |arrived| arrived + Duration::from_millis(batch.wait_ms_max));
                // Without a place nothing more can come that it might wait for.
                let is_full = group.subs.iter().any(|sub| subscriptions.contains(&sub.id) && sub.in_flight >= sub.in_flight_max);
                if can_all_run(group, &subscriptions) && (at <= now || is_full) {
                    call(group, &mut self.deliveries, &mut self.out, &mut waits, &together, tracer, now);
                } else {
                    group.gathered_at = Some(group.gathered_at.map_or(at, |first| first.min(at)));
                    for (lane, key) in together {
                        stay.push(lane, key);
                    }
                }
            }
            group.waiting.put_back(stay);
        }
        metrics.waited(waits.count, waits.sum);
    }
}

/// Measures how long events waited for the call of their handlers.
struct Waits<'a> {
    metrics: &'a Metrics,
    last: LastType,
    now_ms: u64,
    count: u64,
    sum: Duration,
}

impl Waits<'_> {
    /// By the server's clock, which gave the entry its id, to the millisecond; of first deliveries, as a retry waits because it is to.
    /// An event that was there before the group was read here, at `since_ms`, says nothing of how fast this bus is.
    fn called(&mut self, held: &Held, since_ms: u64) {
        if held.deliveries <= 1 && held.id.ms >= since_ms {
            // Less than can be told is half a millisecond on average.
            let ms = self.now_ms.saturating_sub(held.id.ms);
            let waited = if ms == 0 { Duration::from_micros(500) } else { Duration::from_millis(ms) };
            self.last.of(&self.metrics.types, &held.partition.event_type).end_to_end_time.add(waited, 1);
            (self.count, self.sum) = (self.count + 1, self.sum + waited);
        }
    }
}

fn can_all_run(group: &Group, subscriptions: &[u32]) -> bool {
    group.subs.iter().filter(|sub| subscriptions.contains(&sub.id)).all(Sub::can_run)
}

/// Subscriptions that can get the same event agree on it.
fn batch_of(group: &Group, subscriptions: &[u32]) -> Option<Batch> {
    group.subs.iter().find(|sub| subscriptions.contains(&sub.id)).and_then(|sub| sub.options.batch)
}

/// One call of each of their handlers, with all of the entries.
fn call(
    group: &mut Group,
    deliveries: &mut Deliveries,
    out: &mut Vec<Delivery>,
    waits: &mut Waits<'_>,
    entries: &[(Priority, Key)],
    tracer: &Tracer,
    now: Instant,
) {
    let Some(first) = entries.first().and_then(|(_, first)| deliveries.get(*first)) else { return };
    let gets = |(at, sub): (usize, &Sub)| first.subscriptions.contains(&sub.id).then_some(at);
    let called: SmallVec<[usize; 4]> = group.subs.iter().enumerate().filter_map(gets).collect();
    for (lane, _) in entries {
        group.waiting.called(*lane);
    }
    for (n, at) in called.iter().enumerate() {
        let sub = &mut group.subs[*at];
        sub.running += 1;
        let batch = deliveries.begin_batch(entries.len());
        let first_of_call = out.len();
        for (i, (_, key)) in entries.iter().enumerate() {
            let Some((token, entry)) = deliveries.call(*key, sub.id, batch, now) else { continue };
            if n == 0 {
                waits.called(&entry.held, group.since_ms);
            }
            // Nobody needs the text any more when the last one has it: it is not kept for as long as handlers take.
            let is_needed = n + 1 < called.len() || tracer.is_on() || name::is_addressed(&entry.held.partition.event_type);
            let text = if is_needed { entry.text.clone() } else { std::mem::take(&mut entry.text) };
            out.push(Delivery {
                subscription: sub.id,
                token,
                attempt: entry.held.deliveries,
                redelivered: entry.held.deliveries > 1,
                partition: entry.held.partition.clone(),
                id: entry.held.id,
                joined: i > 0,
                text,
            });
        }
        if tracer.is_on() {
            traced::call(tracer, deliveries, entries, sub.options.batch.is_some(), &mut out[first_of_call..]);
        }
    }
}
