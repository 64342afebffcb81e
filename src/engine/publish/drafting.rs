//! From a record of a publish to an event: id, metadata, and what its options ask for.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;

use super::courier::Outgoing;
use super::placing::Draft;
use super::{Drafted, NOTED, Record, Task, WAIT_MAX};
use crate::engine::ask::Wait;
use crate::engine::env::lock;
use crate::engine::error::{Code, Error, Result};
use crate::engine::event::{self, Extras, NewMeta};
use crate::engine::host::Token;
use crate::engine::name::ADDRESSED;
use crate::engine::options::{Ask, PublishOptions};
use crate::engine::store::{NewEvent, Partition, Transient};
use crate::engine::trace::{self, About, Open};

/// `ERR_PAYLOAD_TOO_LARGE` of an event with `bytes` of data.
pub fn too_large(event_type: &str, bytes: usize, limit: usize) -> Error {
    let message = format!(
        "the data of '{event_type}' has {bytes} bytes as JSON, more than limits.maxPayloadBytes ({limit}) allows; send a reference to it \
         instead, or raise the limit"
    );
    Error::new(Code::PayloadTooLarge, message).with("bytes", bytes).with("limit", limit)
}

impl Task {
    pub(super) fn too_many(&self) -> Error {
        Error::new(
            Code::Backpressure,
            format!(
                "{} publishes are waiting for Redis, as many as limits.maxPendingPublishes allows; wait for some of them",
                self.settings.pending_max
            ),
        )
        .with("limit", self.settings.pending_max)
    }

    /// Waits for an answer to the event, from now on.
    fn register(&self, token: Token, ask: Ask, event: &NewEvent) -> Result<()> {
        let (Ask::Acknowledgement(ms) | Ask::Reply(ms)) = ask;
        let now = Instant::now();
        let delay_ms = event.delay_ms.unwrap_or(0);
        let wait = Wait {
            ask,
            event_id: event.id.clone(),
            partition: event.partition.clone(),
            deadline: now.checked_add(Duration::from_millis(ms)).unwrap_or(now + WAIT_MAX),
            entry: event.entry.clone().unwrap_or_default(),
            entry_ms: self.store.now_ms().saturating_add(delay_ms),
            life: event.ttl_ms.map(|ttl| Duration::from_millis(ttl.saturating_add(delay_ms))),
            cancelled: event.cancelled.clone(),
        };
        self.answers.register(token, wait)
    }

    /// The span of the event, where its trace is recorded. What the bus publishes by itself begins no trace.
    fn begin_span(&self, token: Token, partition: &Partition, id: &Arc<str>, data: &str, extras: Option<&Extras>) -> Option<Open> {
        if !self.settings.tracer.is_on() {
            return None;
        }
        let about = || About {
            partition: Some(partition.clone()),
            message_id: Some(id.clone()),
            body_bytes: Some(data.len()),
            correlation_id: extras.and_then(|extras| Some(extras.correlation_id.as_deref()?.into())),
            ..About::default()
        };
        self.settings.tracer.publish(extras.and_then(|extras| extras.headers.as_ref()), id, token >= NOTED, about)
    }

    /// What `options` say of the event, and what is known of this one alone.
    fn extras<'a>(&self, options: &'a PublishOptions, due_ms: Option<u64>, span: Option<&Open>) -> Cow<'a, Extras> {
        let mut extras = Cow::Borrowed(&options.extras);
        if let Some(due_ms) = due_ms {
            extras.to_mut().due = Some(due_ms);
        }
        match options.ask {
            Some(Ask::Acknowledgement(_)) => extras.to_mut().ack_to = Some(self.answers.inbox().to_owned()),
            Some(Ask::Reply(_)) => extras.to_mut().reply_to = Some(self.answers.inbox().to_owned()),
            None => {}
        }
        if let Some(span) = span {
            let extras = extras.to_mut();
            extras.headers = trace::with_header(extras.headers.take(), span);
        }
        extras
    }

    /// An event from its record.
    pub(super) fn draft(&mut self, token: Token, record: &Record<'_>) -> Result<Drafted> {
        let incomplete = || Error::internal("a record of a publish is incomplete");
        let text = record.text.get(record.place.clone()).ok_or_else(incomplete)?;
        let mut tabs = memchr::memchr_iter(b'\t', text.as_bytes());
        let (first, second) = tabs.next().zip(tabs.next()).ok_or_else(incomplete)?;
        let (event_type, options, data) = (&text[..first], &text[first + 1..second], &text[second + 1..]);
        // What crossed for many events is not copied for each of them.
        let piece = || record.text.slice_ref(data);
        if let Some(address) = options.strip_prefix(ADDRESSED) {
            let message = Outgoing { token, event_type: event_type.to_owned(), address: address.to_owned(), data: data.to_owned() };
            return Ok(Drafted::Message(message));
        }
        if data.len() > self.settings.payload_bytes_max {
            return Err(too_large(event_type, data.len(), self.settings.payload_bytes_max));
        }
        let partition = self.placer.partition(event_type)?;
        let id = self.env.new_id_at(self.now_ms);
        let mut meta = NewMeta {
            id: &id,
            timestamp_ms: self.now_ms,
            source: &self.settings.source,
            version: "1.0.0",
            priority: self.settings.priority,
            ttl: self.settings.ttl_s,
            ttl_given: false,
            extras: None,
        };
        if options.is_empty() {
            let ttl_ms = event::seconds_to_ms(meta.ttl);
            let span = self.begin_span(token, &partition, &id, data, None);
            let meta = if let Some(span) = &span {
                let extras = Extras { headers: trace::with_header(None, span), ..Extras::default() };
                event::pack(&NewMeta { extras: Some(&extras), ..meta })
            } else {
                let tail = self.plain_tail.get_or_insert_with(|| event::pack_tail(&meta));
                event::pack_with(meta.id, meta.timestamp_ms, tail)
            };
            let event = NewEvent {
                partition,
                meta,
                data: piece(),
                ttl_ms,
                id,
                delay_ms: None,
                idempotency: None,
                length_max: self.settings.length_max,
                cancelled: None,
                entry: None,
            };
            return Ok(Drafted::Event(Draft { span, ..Draft::new(token, event, self.settings.priority, self.taken) }));
        }
        if self.last_options.0 != options {
            self.last_options = (options.to_owned(), Arc::new(PublishOptions::read(options)?));
        }
        let options = &self.last_options.1;
        let span = self.begin_span(token, &partition, &id, data, Some(&options.extras));
        if let Some(ttl) = options.ttl {
            (meta.ttl, meta.ttl_given) = (ttl, true);
        }
        if let Some(source) = &options.source {
            meta.source = source;
        }
        if let Some(version) = &options.version {
            meta.version = version;
        }
        if let Some(priority) = options.priority {
            meta.priority = priority;
        }
        let delay_ms =
            options.delay_ms.or_else(|| options.deliver_at_ms.map(|at| at.saturating_sub(meta.timestamp_ms))).filter(|ms| *ms > 0);
        let extras = self.extras(options, delay_ms.map(|delay_ms| meta.timestamp_ms.saturating_add(delay_ms)), span.as_ref());
        meta.extras = Some(&extras);
        if options.transient {
            let event = Transient { event_type: partition.event_type, meta: event::pack(&meta), data: data.to_owned() };
            return Ok(Drafted::Cast((token, id, event, span)));
        }
        let cancelled = (options.cancellable || options.ask.is_some()).then(Arc::<AtomicBool>::default);
        if options.cancellable
            && let Some(flag) = &cancelled
        {
            lock(&self.cancel).insert(token, flag.clone());
        }
        let lane = meta.priority;
        let event = NewEvent {
            partition,
            ttl_ms: event::seconds_to_ms(meta.ttl),
            meta: event::pack(&meta),
            data: piece(),
            id,
            delay_ms,
            idempotency: options.idempotency.clone(),
            length_max: self.settings.length_max,
            cancelled,
            entry: options.ask.is_some().then(Arc::default),
        };
        if let Some(ask) = options.ask {
            self.register(token, ask, &event)?;
        }
        let (key, asks) = (options.extras.partition_key.clone(), options.ask.is_some());
        Ok(Drafted::Event(Draft { key, asks, span, ..Draft::new(token, event, lane, self.taken) }))
    }
}
