//! Traces: the way of an event from its publisher to its handlers as spans, over processes, exported by OTLP.
//!
//! Spans are made where an endpoint is configured ([`Tracer::start`]); everywhere else a [`Tracer`] is one comparison. Whoever
//! publishes decides whether a trace is recorded ([`sampling`]), and says so in the event's header `traceparent` ([`context`]): a
//! consumer makes spans of events that have a recorded one, and of no others. A span ([`span`]) that has ended goes into a bounded
//! queue for each endpoint ([`exporter`]), and leaves as [`otlp`].

pub mod context;
mod exporter;
#[allow(missing_docs, clippy::struct_field_names)] // the fields are those of OTLP
mod messages;
mod otlp;
mod sampling;
mod span;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use context::{Context, TRACEPARENT};
pub use exporter::Pace;
use exporter::{Endpoint, Exporter};
use otlp::Resource;
pub use otlp::Server;
use sampling::{Origin, origin};
pub use span::{About, Beside, Link, Open};
use span::{Operation, Outcome, Span};

use super::config::TraceExport;
use super::env::Env;
use super::error::Result;
use super::host::{EventText, Host};
use super::store::Appended;

/// Makes spans, where they are wanted. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Shared>>);

/// What all spans of a bus share.
pub(crate) struct Shared {
    env: Env,
    rate: f64,
    counts: Arc<Counts>,
    exporters: Vec<Exporter>,
}

#[derive(Default)]
pub(crate) struct Counts {
    exported: AtomicU64,
    queue_full: AtomicU64,
    refused: AtomicU64,
    unreachable: AtomicU64,
    active: AtomicUsize,
}

/// What became of spans. With two endpoints each counts for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceCounts {
    /// Taken by an endpoint.
    pub exported: u64,
    /// Dropped: the queue was full.
    pub queue_full: u64,
    /// Dropped: the endpoint refused them.
    pub refused: u64,
    /// Dropped: the endpoint was not there, or not able to take them, for too long.
    pub unreachable: u64,
    /// Begun, and not ended.
    pub active: usize,
}

impl TraceCounts {
    /// Those that were dropped, by the reason's name.
    pub fn dropped(&self) -> [(&'static str, u64); 3] {
        [("queue-full", self.queue_full), ("refused", self.refused), ("unreachable", self.unreachable)]
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

impl Shared {
    /// Ids are never 0.
    fn new_id(&self) -> u64 {
        std::iter::repeat_with(|| self.env.bits()).find(|id| *id != 0).expect("it repeats for ever")
    }

    fn root(&self) -> Context {
        Context::root(u128::from(self.new_id()) << 64 | u128::from(self.env.bits()), self.new_id())
    }

    fn begin(
        self: &Arc<Self>,
        operation: Operation,
        context: Context,
        parent: Option<u64>,
        state: Option<Arc<str>>,
        about: About,
        links: Vec<Link>,
    ) -> Open {
        let start_ns = self.env.now_ns();
        let outcome = Outcome::Open;
        let span = Span { operation, context, state, parent, start_ns, end_ns: start_ns, about, links, outcome };
        Open::begin(self.clone(), span)
    }

    fn export(&self, span: Span) {
        let Some((last, others)) = self.exporters.split_last() else { return };
        for exporter in others {
            exporter.push(span.clone());
        }
        last.push(span);
    }
}

impl Tracer {
    /// Why spans cannot be exported as `config` says: `ERR_INVALID_CONFIG`.
    pub fn check(config: &TraceExport) -> Result<()> {
        endpoints(config).map(drop)
    }

    /// Exports to the endpoints of `config`; without any, it makes no spans. `server`: the store's, for the spans.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn start(config: &TraceExport, server: Option<Server>, host: &Arc<dyn Host>, env: &Env) -> Result<Self> {
        Self::start_at(Pace::default(), config, server, host, env)
    }

    /// The same at another pace, for tests.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn start_at(pace: Pace, config: &TraceExport, server: Option<Server>, host: &Arc<dyn Host>, env: &Env) -> Result<Self> {
        let endpoints = endpoints(config)?;
        if endpoints.is_empty() {
            return Ok(Self::default());
        }
        let resource = Resource { service_name: config.service_name.clone(), instance: env.new_id().to_string(), server };
        let counts = Arc::<Counts>::default();
        let start = |endpoint| Exporter::start(endpoint, pace, &resource, &counts, host, env);
        let exporters = endpoints.into_iter().map(start).collect();
        Ok(Self(Some(Arc::new(Shared { env: env.clone(), rate: config.sampling_rate, counts, exporters }))))
    }

    /// Whether it makes spans at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What became of spans so far; `None`: none are made.
    pub fn counts(&self) -> Option<TraceCounts> {
        let counts = &self.0.as_ref()?.counts;
        Some(TraceCounts {
            exported: counts.exported.load(Ordering::Relaxed),
            queue_full: counts.queue_full.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            unreachable: counts.unreachable.load(Ordering::Relaxed),
            active: counts.active.load(Ordering::Relaxed),
        })
    }

    /// Sends what is left, and takes no more; done within `limit`.
    pub async fn close(&self, limit: Duration) {
        let Some(shared) = &self.0 else { return };
        let deadline = Instant::now() + limit;
        futures_util::future::join_all(shared.exporters.iter().map(|exporter| exporter.close(deadline))).await;
    }

    /// Begins the span of an event that is published with these headers; `None`: its trace is not recorded. An event of the bus's
    /// own begins none.
    pub fn publish(
        &self,
        headers: Option<&BTreeMap<String, String>>,
        id: &str,
        is_own: bool,
        about: impl FnOnce() -> About,
    ) -> Option<Open> {
        let shared = self.0.as_ref()?;
        let (context, parent, state) = match origin(headers, id, shared.rate, is_own)? {
            Origin::In(parent, state) => (parent.at(shared.new_id()), Some(parent.span), state),
            Origin::New => (shared.root(), None, None),
        };
        Some(shared.begin(Operation::Publish, context, parent, state, about(), Vec::new()))
    }

    /// Begins another span of an event that is published several times at once.
    pub fn publish_beside(&self, first: &Beside, about: impl FnOnce() -> About) -> Option<Open> {
        let (Some(shared), Beside::Of { context, parent, state }) = (&self.0, first) else { return None };
        Some(shared.begin(Operation::Publish, context.at(shared.new_id()), *parent, state.clone(), about(), Vec::new()))
    }

    /// Looks at an event that was taken in: `None` unless its trace is recorded.
    pub fn arrived(&self, meta: &str) -> Option<Box<Arrival>> {
        let shared = self.0.as_ref()?;
        let (context, at) = context::find_in(meta).filter(|(context, _)| context.is_sampled())?;
        let state = context::state_in(meta).map(Into::into);
        Some(Box::new(Arrival { context, state, at, taken_ns: shared.env.now_ns(), taken: Instant::now(), received: None }))
    }

    /// A handler is about to be called with the event: its span `receive`, made at the first call.
    pub fn receive(&self, arrival: &mut Arrival, about: About) -> Context {
        let Some(shared) = &self.0 else { return arrival.context };
        if let Some(received) = arrival.received {
            return arrival.context.at(received);
        }
        let context = arrival.context.at(shared.new_id());
        let took = u64::try_from(arrival.taken.elapsed().as_nanos()).unwrap_or(u64::MAX);
        shared.export(Span {
            operation: Operation::Receive,
            context,
            state: arrival.state.clone(),
            parent: Some(arrival.context.span),
            start_ns: arrival.taken_ns,
            end_ns: arrival.taken_ns.saturating_add(took),
            about,
            links: Vec::new(),
            outcome: Outcome::Done,
        });
        arrival.received = Some(context.span);
        context
    }

    /// A handler is called with an event that was received so.
    pub fn process(&self, received: Context, state: Option<Arc<str>>, about: About) -> Option<Open> {
        let shared = self.0.as_ref()?;
        Some(shared.begin(Operation::Process, received.at(shared.new_id()), Some(received.span), state, about, Vec::new()))
    }

    /// A handler is called with several events at once: a trace of its own, with links to theirs.
    pub fn process_batch(&self, links: Vec<Link>, about: About) -> Option<Open> {
        let shared = self.0.as_ref()?;
        Some(shared.begin(Operation::Process, shared.root(), None, None, about, links))
    }
}

/// An event of a recorded trace that was taken in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The span that published it.
    context: Context,
    state: Option<Arc<str>>,
    /// Where its header stands in the metadata.
    at: Range<usize>,
    taken_ns: u64,
    taken: Instant,
    /// Its span `receive`.
    received: Option<u64>,
}

impl Arrival {
    /// `tracestate` of its trace.
    pub fn state(&self) -> Option<Arc<str>> {
        self.state.clone()
    }

    /// The span that published it, as what it led to refers to it.
    pub fn link(&self) -> Link {
        Link(self.context, self.state.clone())
    }

    /// The event as its handler gets it: whoever goes on from there is a child of `context`. What was stored stays as it is.
    pub fn text(&self, text: &EventText, context: Context) -> EventText {
        let mut meta = String::from(&*text.meta);
        meta.replace_range(self.at.clone(), &context.to_string());
        EventText { meta: meta.into(), data: text.data.clone(), asks: text.asks, redriven: text.redriven }
    }
}

/// Headers with that of `span` in place of what was there.
pub fn with_header(headers: Option<BTreeMap<String, String>>, span: &Open) -> Option<BTreeMap<String, String>> {
    let mut headers = headers.unwrap_or_default();
    headers.insert(TRACEPARENT.to_owned(), span.context().to_string());
    Some(headers)
}

/// The store's word about an event ends the span of its publishing.
pub fn stored(mut span: Open, result: &Result<Appended>) {
    match result {
        Ok(Appended::Stored) => span.done(),
        Ok(Appended::Duplicate(first)) => {
            span.tell(|about| about.duplicate_of = Some(first.as_str().into()));
            span.done();
        }
        Err(error) => span.fail(error.code.as_str(), &error.message),
    }
}

/// Where spans go, each checked.
fn endpoints(config: &TraceExport) -> Result<Vec<Endpoint>> {
    let given = [("otlpEndpoint", &config.otlp_endpoint), ("jaegerEndpoint", &config.jaeger_endpoint)];
    let given = given.into_iter().filter(|_| config.enabled).filter_map(|(key, url)| Some((key, url.as_ref()?)));
    given.map(|(key, url)| Endpoint::new(key, url)).collect()
}
