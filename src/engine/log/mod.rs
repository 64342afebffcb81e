//! Lines for the program's log: what the engine says by the macros of `tracing` goes to the log of the bus, or of the service
//! registry, on whose behalf it runs.
//!
//! One subscriber serves the whole process. Whose line it is, a thread-local says, which every task of a bus sets while it
//! is polled: a dispatcher of each bus would do the same, at a hundred instructions a poll in place of ten. The thread-local
//! is empty in other tasks, and their lines go nowhere, as do those of other crates: they could say what must not be told.
//!
//! A level that no log of the process wants costs one comparison; one that another log wants, a look at the thread-local.
//!
//! [`line`] one line and its bounds; [`rate`] how many a place in the code may write; here whose they are.

mod line;
mod rate;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, span};

pub use line::Line;
use rate::Rates;

/// How severe a line must be to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// All lines.
    Debug,
    /// What happens in the life of a bus.
    Info,
    /// What an operator has to know.
    #[default]
    Warn,
    /// What should never happen.
    Error,
    /// None.
    Silent,
}

impl Level {
    /// All of them by their names, in this order.
    pub const NAMES: [(&str, Self); 5] =
        [("debug", Self::Debug), ("info", Self::Info), ("warn", Self::Warn), ("error", Self::Error), ("silent", Self::Silent)];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
            Self::Silent => LevelFilter::OFF,
        }
    }
}

/// Says that something failed which no call can report, and which is tried again: `debug` where trying again helps, as with a
/// server that is away, of which one line tells; else `warn`.
macro_rules! failed {
    ($error:expr, $($about:tt)+) => {
        if $error.retryable || $error.code == $crate::engine::error::Code::Closed {
            tracing::debug!(error = %$error, $($about)+);
        } else {
            tracing::warn!(error = %$error, $($about)+);
        }
    };
}
pub(crate) use failed;

/// The log of one bus or registry, or none. Cheap to clone.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<Inner>>);

struct Inner {
    level: Level,
    sink: Box<dyn Fn(Line) + Send + Sync>,
    rates: Rates,
}

thread_local! {
    /// The log of the bus on whose behalf this thread runs now.
    static CURRENT: RefCell<Option<Arc<Inner>>> = const { RefCell::new(None) };
}

impl Log {
    /// One that gives lines of at least this level to `sink`, on any thread, also within locks of the engine: it must not wait,
    /// nor call the engine.
    pub fn new(level: Level, sink: impl Fn(Line) + Send + Sync + 'static) -> Self {
        count(level, 1);
        Self(Some(Arc::new(Inner { level, sink: Box::new(sink), rates: Rates::default() })))
    }

    /// The one on whose behalf the caller runs.
    pub fn current() -> Self {
        Self(CURRENT.try_with(|log| log.borrow().clone()).unwrap_or_default())
    }

    /// Whether lines go anywhere.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// What `work` says goes to this log.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut log = self.0.clone();
        let _entered = Entered::enter(&mut log);
        work()
    }

    /// What `future` says goes to this log.
    pub fn along<F>(&self, future: F) -> Along<F> {
        Along { future, log: self.0.clone() }
    }
}

/// What `future` says goes to the log of the caller: for tasks that are started without an `Env` at hand.
pub fn along<F>(future: F) -> Along<F> {
    Log::current().along(future)
}

pin_project! {
    /// A future that runs on behalf of a log.
    pub struct Along<F> {
        #[pin]
        future: F,
        log: Option<Arc<Inner>>,
    }
}

impl<F: Future> Future for Along<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = Entered::enter(this.log);
        this.future.poll(cx)
    }
}

/// A log is the current one until this is dropped. It is moved to and fro: no reference is counted.
struct Entered<'a> {
    log: &'a mut Option<Arc<Inner>>,
    before: Option<Arc<Inner>>,
}

impl<'a> Entered<'a> {
    fn enter(log: &'a mut Option<Arc<Inner>>) -> Self {
        let before = swap(log.take());
        Self { log, before }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        *self.log = swap(self.before.take());
    }
}

/// At the end of a thread there is no current log any more: then `log` comes back at once.
fn swap(log: Option<Arc<Inner>>) -> Option<Arc<Inner>> {
    let mut given = log;
    let _ = CURRENT.try_with(|current| std::mem::swap(&mut *current.borrow_mut(), &mut given));
    given
}

impl Inner {
    fn take(&self, event: &Event<'_>) {
        if let Some(turn) = self.rates.turn(event.metadata().callsite()) {
            (self.sink)(Line::new(event, turn));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        count(self.level, -1);
    }
}

/// How many logs there are of each level; locked while the macros are told which levels count.
static LOGS: Mutex<[usize; Level::NAMES.len()]> = Mutex::new([0; Level::NAMES.len()]);
/// The lowest level of them, as a place in [`Level::NAMES`].
static LOWEST: AtomicUsize = AtomicUsize::new(Level::Silent as usize);

fn count(level: Level, more: isize) {
    static SUBSCRIBED: Once = Once::new();
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    logs[level as usize] = logs[level as usize].saturating_add_signed(more);
    let lowest = logs.iter().position(|count| *count > 0).unwrap_or(Level::Silent as usize);
    let before = LOWEST.swap(lowest, Ordering::AcqRel);
    SUBSCRIBED.call_once(|| {
        // A Rust program that has a subscriber keeps it, and hears the engine there.
        let _ = tracing::subscriber::set_global_default(Lines);
    });
    if lowest != before {
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Takes the lines of all logs of the process.
struct Lines;

impl Subscriber for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() && line::is_own(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let wanted = |log: &Inner| *metadata.level() <= log.level.filter();
        CURRENT.try_with(|log| log.borrow().as_deref().is_some_and(wanted)).unwrap_or(false)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(Level::NAMES[LOWEST.load(Ordering::Acquire)].1.filter())
    }

    fn event(&self, event: &Event<'_>) {
        // Not borrowed meanwhile: what the sink does may make another log the current one.
        if let Log(Some(log)) = Log::current() {
            log.take(event);
        }
    }

    // The engine makes no spans.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
