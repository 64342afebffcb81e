//! Spans: what was done with an event, from when to when, and how it ended.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Shared;
use super::context::Context;
use crate::engine::store::Partition;

/// Longest error text in a span, bytes: it comes from handlers.
const ERROR_BYTES_MAX: usize = 1024;

/// What a span tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// From the record of a publish to the store's word.
    Publish,
    /// From the entry's being taken in to the call of its handler.
    Receive,
    /// From that call to its end.
    Process,
}

/// What it tells of the event, or of the events of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// Where the event lies; of a batch, where all of them have the same type.
    pub partition: Option<Partition>,
    /// The event's id.
    pub message_id: Option<Arc<str>>,
    /// Length of its data, bytes.
    pub body_bytes: Option<usize>,
    /// Its correlation id.
    pub correlation_id: Option<Arc<str>>,
    /// Consumer group.
    pub group: Option<Arc<str>>,
    /// Consumer within it.
    pub consumer: Option<Arc<str>>,
    /// Which delivery it is, 1 at the first one.
    pub attempt: Option<u32>,
    /// Events of a batch.
    pub batch_count: Option<usize>,
    /// Id of the event that was published before under the same idempotency key.
    pub duplicate_of: Option<Arc<str>>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has not.
    Open,
    /// As it should.
    Done,
    /// The event was given back unhandled.
    HandedBack,
    /// It failed.
    Failed {
        /// `error.type`: of few different values.
        kind: &'static str,
        /// What was said of it.
        message: String,
        /// When, ns since 1970.
        at_ns: u64,
    },
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What it tells of.
    pub operation: Operation,
    /// Trace and span.
    pub context: Context,
    /// `tracestate` of its trace.
    pub state: Option<Arc<str>>,
    /// The span above it.
    pub parent: Option<u64>,
    /// ns since 1970.
    pub start_ns: u64,
    /// ns since 1970.
    pub end_ns: u64,
    /// The event.
    pub about: About,
    /// Spans that led to it, of other traces.
    pub links: Vec<Link>,
    /// How it ended.
    pub outcome: Outcome,
}

/// A span of another trace, and that trace's `tracestate`.
#[derive(Clone, Debug, PartialEq)]
pub struct Link(pub Context, pub Option<Arc<str>>);

/// Where further spans of an event belong that is published several times at once.
#[derive(Clone, Debug)]
pub enum Beside {
    /// Its trace is not recorded.
    Nothing,
    /// Beside its first one.
    Of {
        /// The first one.
        context: Context,
        /// And what is above it.
        parent: Option<u64>,
        /// `tracestate` of the trace.
        state: Option<Arc<str>>,
    },
}

/// A span that has begun. It ends when it is dropped, as was said before; without a word it was given up.
pub struct Open(Option<Box<Inner>>);

struct Inner {
    span: Span,
    began: Instant,
    tracer: Arc<Shared>,
}

impl Open {
    /// Begins `span`, at its start and not yet at its end.
    pub(super) fn begin(tracer: Arc<Shared>, span: Span) -> Self {
        tracer.counts.active.fetch_add(1, Ordering::Relaxed);
        Self(Some(Box::new(Inner { span, began: Instant::now(), tracer })))
    }

    /// As others refer to it.
    pub fn context(&self) -> Context {
        self.inner().span.context
    }

    /// For another span of the same event.
    pub fn beside(&self) -> Beside {
        let Span { context, parent, state, .. } = &self.inner().span;
        Beside::Of { context: *context, parent: *parent, state: state.clone() }
    }

    /// Something more is known of the event.
    pub fn tell(&mut self, more: impl FnOnce(&mut About)) {
        more(&mut self.inner_mut().span.about);
    }

    /// It succeeded, unless a part of it failed.
    pub fn done(&mut self) {
        self.end_as(Outcome::Done);
    }

    /// Its event goes to somebody else, unless something of it failed.
    pub fn handed_back(&mut self) {
        self.end_as(Outcome::HandedBack);
    }

    /// It failed; the first failure counts.
    pub fn fail(&mut self, kind: &'static str, message: &str) {
        let inner = self.inner_mut();
        if !matches!(inner.span.outcome, Outcome::Failed { .. }) {
            inner.fail(kind, message);
        }
    }

    fn end_as(&mut self, outcome: Outcome) {
        let inner = self.inner_mut();
        if inner.span.outcome == Outcome::Open {
            inner.span.outcome = outcome;
        }
    }

    fn inner(&self) -> &Inner {
        self.0.as_ref().expect("it is there until it is dropped")
    }

    fn inner_mut(&mut self) -> &mut Inner {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl Inner {
    /// By its own clock: the time of day may be stepped meanwhile.
    fn now_ns(&self) -> u64 {
        self.span.start_ns.saturating_add(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn fail(&mut self, kind: &'static str, message: &str) {
        self.span.outcome = Outcome::Failed { kind, message: beginning_of(message).to_owned(), at_ns: self.now_ns() };
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(mut inner) = self.0.take() else { return };
        if inner.span.outcome == Outcome::Open {
            inner.fail("abandoned", "it had not ended when nobody waited for it any more");
        }
        inner.span.end_ns = inner.now_ns();
        let Inner { span, tracer, .. } = *inner;
        tracer.counts.active.fetch_sub(1, Ordering::Relaxed);
        tracer.export(span);
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Open({})", self.context())
    }
}

fn beginning_of(text: &str) -> &str {
    let end = (0..=ERROR_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    &text[..end]
}
