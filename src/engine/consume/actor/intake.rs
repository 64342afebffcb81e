//! Entries in: what is read next, and what becomes of each entry before a handler sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use smallvec::SmallVec;

use super::{Actor, same};
use crate::engine::consume::flush::{Note, Settlement};
use crate::engine::consume::gate::Message;
use crate::engine::consume::group::{Group, GroupId, GroupName};
use crate::engine::consume::held::{InFlight, Subscriptions};
use crate::engine::error::{Code, Result};
use crate::engine::event::{self, Asked, EventId, Glance, MetaView, RetryOverride};
use crate::engine::filter::Labels;
use crate::engine::host::{EventText, Lifecycle};
use crate::engine::name;
use crate::engine::store::{Body, DeadReason, Disposal, Entry, EntryId, Held, Partition, ReadError, Refusal};

impl Actor {
    pub(super) fn plan_reads(&mut self) {
        for group in self.groups.values_mut() {
            if group.comparison.wanted {
                continue;
            }
            if let Some(plan) = group.plan(&self.consumer, self.settings.batch_size, self.settings.read_wait) {
                if group.plans.try_send(plan).is_err() {
                    group.reading = None;
                }
            } else {
                group.wake_if_better();
            }
        }
    }

    pub(super) fn read(&mut self, id: &GroupId, consumer: &Arc<str>, result: Result<Vec<Entry>, ReadError>) {
        let group = same(&mut self.groups, id);
        let Some((group, asked)) = group.and_then(|group| group.reading.take().map(|asked| (group, asked))) else {
            // Its group ended while it was on its way.
            for entry in result.into_iter().flatten() {
                let note = note(&entry);
                self.settle_untouched(&id.name, consumer, held(entry), Disposal::HandBack, note);
            }
            return;
        };
        match result {
            Ok(entries) => {
                group.refused = false;
                let mut found: BTreeMap<&Partition, usize> = BTreeMap::new();
                // They come stream by stream.
                for run in entries.chunk_by(|a, b| a.partition == b.partition) {
                    *found.entry(&run[0].partition).or_default() += run.len();
                    if let Some(reading) = group.partitions.get_mut(&run[0].partition) {
                        reading.last_seen = run.iter().map(|entry| entry.id).fold(reading.last_seen, EntryId::max);
                    }
                }
                for partition in &asked.partitions {
                    if let Some(reading) = group.partitions.get_mut(partition) {
                        reading.backlog = found.get(partition).is_some_and(|n| *n >= asked.count);
                        reading.was_there = true;
                    }
                }
                for (partition, count) in found {
                    group.turns.took(partition.lane, count);
                }
                self.take(&id.name, consumer, entries, true);
            }
            Err(ReadError::NoGroup) => self.restore(id),
            Err(ReadError::NotOwner) => self.not_owner(id, &asked.partitions),
            Err(ReadError::Store(error)) => {
                group.doubt();
                // A server that is away is told by `connection:lost`. One that refuses would go unnoticed: nothing would
                // arrive, and nothing would say why. Once, until a read succeeds again.
                if !error.retryable && !group.refused {
                    group.refused = true;
                    self.said.push(Lifecycle::error(&error.clone().with("group", &**id.name)));
                }
                tracing::debug!(%error, "a read failed");
            }
        }
    }

    /// Takes entries in. `fresh`: read, not claimed.
    pub(super) fn take(&mut self, group_name: &GroupName, consumer: &Arc<str>, entries: Vec<Entry>, fresh: bool) {
        if self.takes() && self.lease.is_stale() {
            // This process was stopped for so long that others may have these by now: theirs, not ours.
            self.lapsed();
        }
        if self.stalled || *consumer != self.consumer {
            // Taken under a name that has no lease any more. What nobody else has yet, goes on at once.
            for entry in entries {
                let note = note(&entry);
                self.settle_untouched(group_name, consumer, held(entry), Disposal::HandBack, note);
            }
            return;
        }
        let now = self.store.now_ms();
        for entry in entries {
            self.take_one(group_name, consumer, entry, now, fresh);
        }
    }

    fn take_one(&mut self, group_name: &GroupName, consumer: &Arc<str>, mut entry: Entry, now_ms: u64, fresh: bool) {
        if let Some(refusal) = entry.refusal.take() {
            return self.refuse(group_name, consumer, entry, *refusal);
        }
        let held = Held { partition: entry.partition, id: entry.id, deliveries: entry.deliveries };
        let redriven = matches!(entry.body, Body::Event { only_group: Some(_), .. });
        let (meta, data) = match entry.body {
            Body::Event { only_group: Some(group), .. } if *group != ***group_name => {
                let note = Note { quiet: true, ..Note::default() };
                return self.settle_untouched(group_name, consumer, held, Disposal::Acknowledge, note);
            }
            Body::Event { meta, data, .. } => (meta, data),
            Body::Foreign(fields) => {
                let names: Vec<_> = fields.iter().take(8).map(|(key, _)| String::from_utf8_lossy(key)).collect();
                let error = format!("not written by this bus: it has the fields {}, not 'meta' and 'data'", names.join(", "));
                return self.bury_untouched(group_name, consumer, held, DeadReason::Malformed, error, Note::default());
            }
        };
        let (Ok(meta), Ok(data)) = (ByteString::try_from(meta), ByteString::try_from(data)) else {
            let error = "the entry's text is not UTF-8".to_owned();
            return self.bury_untouched(group_name, consumer, held, DeadReason::Malformed, error, Note::default());
        };
        let Said { event_id, ttl_ms, ttl_given, retry, asked, key } = match self.read_meta(&meta) {
            Ok(said) => said,
            Err(error) => {
                return self.bury_untouched(group_name, consumer, held, DeadReason::Malformed, error.message, Note::default());
            }
        };
        let is_addressed = name::is_addressed(&held.partition.event_type);
        let about = || {
            is_addressed.then(|| Box::new(Message::new(EventText { meta: meta.clone(), data: data.clone(), asks: false, redriven: false })))
        };
        if held.deliveries <= 1 && ttl_ms.is_some_and(|ttl| held.id.ms.saturating_add(ttl) <= now_ms) {
            let note = Note { event_id, asked, expired: true, message: about(), ..Note::default() };
            if ttl_given {
                return self.settle_untouched(group_name, consumer, held, Disposal::Acknowledge, note);
            }
            let error = "its ttl was over before it was delivered".to_owned();
            return self.bury_untouched(group_name, consumer, held, DeadReason::Expired, error, note);
        }
        let Some(group) = self.groups.get_mut(group_name) else {
            return self.settle_untouched(group_name, consumer, held, Disposal::HandBack, Note { event_id, ..Note::default() });
        };
        if is_addressed && group.matching(&held.partition).any(|sub| sub.options.signed_only) && event::cut_signature(&meta).is_none() {
            let message = "the message is not signed, and the handler takes signed ones only (requireSignatureValidation)".to_owned();
            let refusal = Refusal { reason: DeadReason::Signature, code: Code::Signature, message };
            let body = Body::Event { meta: meta.into_bytes(), data: data.into_bytes(), only_group: None, first_entry: None };
            let Held { partition, id, deliveries } = held;
            let entry = Entry { partition, id, body, deliveries, crashes: entry.crashes, refusal: None };
            return self.refuse(group_name, consumer, entry, refusal);
        }
        let Takers { done, subscriptions, are_none, is_wanted } = takers(group, &held, &meta, self.settings.batch_size);
        if are_none {
            // What no filter takes is done with.
            self.said.extend(self.settings.journal.filtered(&event_id, group_name, &held));
            let note = Note { quiet: true, ..Note::default() };
            return self.settle_untouched(group_name, consumer, held, Disposal::Acknowledge, note);
        }
        let line = group.lines.as_mut().and_then(|lines| lines.by_partition.get_mut(&held.partition)).filter(|_| fresh);
        let runs = line.is_none_or(|line| line.admit(held.id, key.as_deref().unwrap_or_default(), is_wanted));
        if !runs || !is_wanted {
            return self.settle_untouched(group_name, consumer, held, Disposal::HandBack, Note { event_id, ..Note::default() });
        }
        if subscriptions.is_empty() {
            // All that are here succeeded before, and who did not has gone.
            let disposal = if done { Disposal::Acknowledge } else { Disposal::HandBack };
            group.forget(&held);
            let note = Note { event_id, message: about(), ..Note::default() };
            return self.settle_untouched(group_name, consumer, held, disposal, note);
        }
        for sub in group.subs.iter_mut().filter(|sub| subscriptions.contains(&sub.id)) {
            sub.in_flight += 1;
        }
        let priority = held.partition.lane;
        self.said.extend(self.settings.journal.delivered(&event_id, group_name, consumer, &held));
        let trace = self.settings.tracer.arrived(&meta);
        let key = self.deliveries.insert(InFlight {
            held,
            group: group_name.clone(),
            consumer: consumer.clone(),
            event_id,
            text: EventText { meta, data, asks: asked.as_ref().is_some_and(|asked| asked.reply_to.is_some()), redriven },
            retry,
            crashes: entry.crashes,
            subscriptions,
            running: SmallVec::new(),
            failures: Vec::new(),
            handed_back: Vec::new(),
            confirmations: Vec::new(),
            asked,
            started: self.now,
            trace,
        });
        group.waiting.push(priority, key);
    }

    /// Most metadata are like others that came lately.
    fn read_meta(&mut self, meta: &str) -> Result<Said> {
        if let Some(Glance { id, ttl_ms, ttl_given }) = self.tails.glance(meta) {
            return Ok(Said { event_id: id.into(), ttl_ms, ttl_given, retry: None, asked: None, key: None });
        }
        let view = MetaView::read(meta.as_bytes())?;
        self.tails.learn(meta, &view);
        let (ttl_ms, ttl_given, asked) = (view.ttl_ms(), view.ttl_given(), view.asked().map(Box::new));
        let key = view.partition_key.map(std::borrow::Cow::into_owned);
        Ok(Said { event_id: (*view.id).into(), ttl_ms, ttl_given, retry: view.retry.map(Box::new), asked, key })
    }

    /// A message that no handler may see becomes a dead letter; of one for another group, this one knows nothing.
    fn refuse(&mut self, group_name: &GroupName, consumer: &Arc<str>, entry: Entry, refusal: Refusal) {
        let event_id = note(&entry).event_id;
        let held = Held { partition: entry.partition, id: entry.id, deliveries: entry.deliveries };
        let (meta, data) = match entry.body {
            Body::Event { only_group: Some(group), .. } if *group != ***group_name => {
                let note = Note { quiet: true, ..Note::default() };
                return self.settle_untouched(group_name, consumer, held, Disposal::Acknowledge, note);
            }
            Body::Event { meta, data, .. } => {
                (ByteString::try_from(meta).unwrap_or_default(), ByteString::try_from(data).unwrap_or_default())
            }
            Body::Foreign(_) => Default::default(),
        };
        let error = format!("{}: {}", refusal.code.as_str(), refusal.message);
        let reason = refusal.reason;
        let text = EventText { meta, data, asks: false, redriven: false };
        let message = Some(Box::new(Message { text, refusal: Some(refusal), recorded: false }));
        self.bury_untouched(group_name, consumer, held, reason, error, Note { event_id, message, ..Note::default() });
    }

    pub(super) fn settle_untouched(&mut self, group: &Arc<str>, consumer: &Arc<str>, held: Held, disposal: Disposal, note: Note) {
        self.flusher.push(group, consumer, Settlement { held, disposal, note });
    }

    pub(super) fn bury_untouched(
        &mut self,
        group: &Arc<str>,
        consumer: &Arc<str>,
        held: Held,
        reason: DeadReason,
        error: String,
        note: Note,
    ) {
        let attempts = held.deliveries.saturating_sub(u32::from(reason == DeadReason::Expired));
        let disposal = Disposal::DeadLetter { reason, error, attempts };
        let note = Note { given_up: self.given_up(&disposal), ..note };
        let disposal = self.or_drop(disposal, &held);
        self.settle_untouched(group, consumer, held, disposal, note);
    }

    /// Without a dead letter queue, what would go there is acknowledged, and said.
    pub(super) fn or_drop(&mut self, disposal: Disposal, held: &Held) -> Disposal {
        match disposal {
            Disposal::DeadLetter { reason, error, .. } if !self.settings.dead_letters => {
                let event_type = &*held.partition.event_type;
                tracing::warn!(
                    eventType = event_type,
                    reason = reason.as_str(),
                    error,
                    "an event was dropped: deadLetterQueue.enabled is false"
                );
                Disposal::Acknowledge
            }
            other => other,
        }
    }
}

/// What the metadata of an event say for its delivery.
struct Said {
    event_id: EventId,
    ttl_ms: Option<u64>,
    ttl_given: bool,
    retry: Option<Box<RetryOverride>>,
    asked: Option<Box<Asked>>,
    /// Its `partitionKey`.
    key: Option<String>,
}

/// Whose handlers see an event.
struct Takers {
    /// Those that are still to see it, highest priority first.
    subscriptions: Subscriptions,
    /// Others succeeded with it before.
    done: bool,
    /// There are subscriptions for it, but their filters do not take it.
    are_none: bool,
    /// All subscriptions for it want events now, and have room.
    is_wanted: bool,
}

fn takers(group: &Group, held: &Held, meta: &str, batch_size: usize) -> Takers {
    // Filters ask for more than handlers need to be called.
    let read = if group.filters { MetaView::read(meta.as_bytes()).ok().map(|view| (view, Labels::read(meta))) } else { None };
    let succeeded = if group.partial.is_empty() { None } else { group.partial.get(&(held.id, held.partition.clone())) };
    let mut takers = Takers { subscriptions: SmallVec::new(), done: false, are_none: false, is_wanted: true };
    let mut refused = false;
    for sub in group.matching(&held.partition) {
        // Prefetched entries have a bound; beyond it, or where nobody wants them now, they are for others.
        takers.is_wanted &= sub.wants() && sub.in_flight < sub.in_flight_max + batch_size;
        if sub.options.filter.as_ref().is_some_and(|filter| !read.as_ref().is_some_and(|(view, labels)| filter.takes(view, labels))) {
            refused = true;
        } else if succeeded.is_some_and(|succeeded| succeeded.contains(&sub.id)) {
            takers.done = true;
        } else {
            takers.subscriptions.push(sub.id);
        }
    }
    takers.are_none = refused && !takers.done && takers.subscriptions.is_empty();
    takers
}

/// What is to be recorded of an event that is a message to a project.
pub(super) fn message(partition: &Partition, text: &EventText) -> Option<Box<Message>> {
    name::is_addressed(&partition.event_type).then(|| Box::new(Message::new(text.clone())))
}

/// Names the event, as far as it can be read.
fn note(entry: &Entry) -> Note {
    let view = match &entry.body {
        Body::Event { meta, .. } => MetaView::read(meta).ok(),
        Body::Foreign(_) => None,
    };
    Note { event_id: view.map(|view| EventId::from(&*view.id)).unwrap_or_default(), ..Note::default() }
}

fn held(entry: Entry) -> Held {
    Held { partition: entry.partition, id: entry.id, deliveries: entry.deliveries }
}
