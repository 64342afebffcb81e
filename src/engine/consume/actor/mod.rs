//! The task that owns all deliveries of a bus: entries in from readers and claims, out to handlers, their verdicts in,
//! settlements out. Everything in it happens one after the other; everything slow happens beside it.
//!
//! Reading order: [`subscriptions`], [`partitions`]; the way of an entry: [`intake`], [`ordered`], [`redeliveries`],
//! [`dispatch`], [`verdicts`], [`settled`], [`asked`], with spans of it in [`traced`]; events that are not stored: [`transient`]; then
//! [`faults`] and [`shutdown`].

mod asked;
mod dispatch;
mod faults;
mod intake;
mod ordered;
mod partitions;
mod redeliveries;
mod settled;
mod shutdown;
mod subscriptions;
mod traced;
mod transient;
mod verdicts;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::confirm::{Confirmed, Confirms};
use super::flush::{Flushed, Flusher};
use super::gate::Gate;
use super::group::{Group, GroupId, GroupName, Sub};
use super::held::Deliveries;
use super::{Command, ConsumeSettings, Lease, Subscribed};
use transient::{Hearing, Transients};

use crate::engine::env::Env;
use crate::engine::error::{Error, Result};
use crate::engine::event::Tails;
use crate::engine::host::{Delivery, Host, Lifecycle};
use crate::engine::metrics::Metrics;
use crate::engine::store::{Due, DueIndex, Entry, GroupSpec, Held, Partition, ReadError, Store};
use ordered::{Asked, ClaimedParked};

/// How often due redeliveries of others are looked for. Own ones are known to the millisecond.
const DUE_POLL: Duration = Duration::from_millis(500);
/// How often what is pending is compared with what is held, and the topology is read again.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// Settlements that may wait for the server before nothing more is read.
const UNSETTLED_MAX: usize = 10_000;
/// Time for handing back and removing consumers when a bus stops.
const HAND_BACK_MAX: Duration = Duration::from_secs(2);
/// Fewer deliveries go out together.
const PARTED_MIN: usize = 32;
/// Pauses of a reader after failures.
const READ_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What others look at.
#[derive(Clone)]
pub struct Counters {
    /// Subscriptions open.
    pub subscriptions: Arc<AtomicUsize>,
    /// Entries in flight.
    pub in_flight: Arc<AtomicUsize>,
    /// Counters of the bus.
    pub metrics: Arc<Metrics>,
}

impl Counters {
    /// Nothing is there any more.
    pub fn clear(&self) {
        self.subscriptions.store(0, Ordering::Relaxed);
        self.count_in_flight(0);
    }

    fn count_in_flight(&self, count: usize) {
        self.in_flight.store(count, Ordering::Relaxed);
        self.metrics.in_flight.store(count, Ordering::Relaxed);
    }
}

/// What others have in hand, too.
pub struct Beside {
    /// The lease, renewed by the keeper.
    pub lease: Arc<Lease>,
    /// Settlements that are waited for.
    pub confirms: Arc<Confirms>,
    /// Looks at messages to projects.
    pub gate: Option<Arc<dyn Gate>>,
}

/// `<service>-<pid>-<random>`, new for each life of a consumer.
pub fn consumer_name(settings: &ConsumeSettings, env: &Env) -> Arc<str> {
    format!("{}-{}", settings.consumer_prefix, env.hex(8)).into()
}

/// What comes back from work beside the task.
enum Done {
    Read(GroupId, ReadResult, mpsc::Receiver<ReadResult>),
    ReaderEnded(GroupId),
    /// The lease of this consumer is there.
    Leased(Arc<str>),
    Looked(GroupId, Result<DueIndex>),
    Claimed(Claimed),
    Flushed(Flushed),
    Joined {
        id: u32,
        spec: GroupSpec,
        result: Result<(Vec<Partition>, Lapsed)>,
    },
    Types(Result<Vec<Partition>>),
    Ready {
        group: GroupName,
        partitions: Vec<Partition>,
        lapsed: Lapsed,
    },
    Compared {
        group: GroupId,
        consumer: Arc<str>,
        lost: Vec<Held>,
    },
    Restored(GroupId),
    Surveyed(GroupId, Vec<(String, usize)>),
    Asked {
        group: GroupId,
        partition: Partition,
        consumer: Arc<str>,
        result: Result<Asked>,
    },
    ClaimedParked(ClaimedParked),
    Forgotten(GroupId, Vec<Partition>),
    GivenUp {
        group: GroupId,
        partition: Partition,
        consumer: Arc<str>,
    },
    Replied(asked::Replied),
    Announced(usize),
    Nothing,
}

/// Under which consumer was read, and what came.
type ReadResult = (Arc<str>, Result<Vec<Entry>, ReadError>);
/// The consumer whose lease turned out to have lapsed.
type Lapsed = Option<Arc<str>>;
type Work = BoxFuture<'static, Done>;

/// What the task does next.
enum Next {
    /// What it was told.
    Command(Command),
    /// What came back.
    Done(Done),
    /// A time came.
    Timer,
    /// Nobody can tell it anything any more.
    End,
}

struct Joining {
    sub: Sub,
    reply: oneshot::Sender<Subscribed>,
}

struct Closing {
    id: u32,
    group: GroupName,
    deadline: Instant,
    reply: oneshot::Sender<Result<()>>,
}

/// Partitions that a group does not read any more.
struct Unread {
    group: GroupId,
    partitions: Vec<Partition>,
    /// The group ended, and its reader, too.
    reader_ended: bool,
    /// Claims that were on their way when the group ended.
    claims: usize,
    /// The store is being told.
    told: bool,
}

/// What came of taking due redeliveries.
struct Claimed {
    group: GroupId,
    consumer: Arc<str>,
    partition: Partition,
    /// Places that were kept for it, by subscription.
    reserved: Vec<(u32, usize)>,
    asked: usize,
    result: Result<Due>,
}

/// The task.
pub struct Actor {
    settings: ConsumeSettings,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    env: Env,
    counters: Counters,
    lease: Arc<Lease>,
    consumer: Arc<str>,
    groups: BTreeMap<GroupName, Group>,
    deliveries: Deliveries,
    /// Of metadata that came lately.
    tails: Tails,
    flusher: Flusher,
    joining: BTreeMap<u32, Joining>,
    closing: Vec<Closing>,
    unread: Vec<Unread>,
    stopping: Option<(Instant, oneshot::Sender<()>)>,
    stalled: bool,
    /// Whether the types are being read.
    types_read: partitions::TypesRead,
    /// The lease of a new name is not there yet: nothing is taken under it.
    leasing: bool,
    /// Groups opened so far.
    serial: u64,
    confirms: Arc<Confirms>,
    gate: Option<Arc<dyn Gate>>,
    work: FuturesUnordered<Work>,
    /// Whose turn it is.
    work_first: bool,
    out: Vec<Delivery>,
    said: Vec<Lifecycle>,
    confirmed: Vec<Confirmed>,
    /// Messages to inboxes on their way.
    posting: usize,
    transients: Transients,
    hearing: Arc<Hearing>,
    compare_at: Instant,
    /// When this turn began: calls and verdicts of one turn have one time.
    now: Instant,
}

/// The group, if it still is the same.
fn same<'a>(groups: &'a mut BTreeMap<GroupName, Group>, id: &GroupId) -> Option<&'a mut Group> {
    groups.get_mut(&id.name).filter(|group| group.id.serial == id.serial)
}

/// Gives places back. More than were taken would be a defect, but never one that wraps around.
fn release(places: &mut usize, count: usize) {
    debug_assert!(*places >= count, "{count} of {places} places");
    *places = places.saturating_sub(count);
}

impl Actor {
    /// Nothing subscribed yet.
    pub fn new(
        settings: ConsumeSettings,
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        env: Env,
        counters: Counters,
        beside: Beside,
    ) -> Self {
        let Beside { lease, confirms, gate } = beside;
        let consumer = lease.current().0;
        Self {
            settings,
            store,
            host,
            env,
            counters,
            lease,
            consumer,
            groups: BTreeMap::new(),
            deliveries: Deliveries::default(),
            tails: Tails::default(),
            flusher: Flusher::default(),
            joining: BTreeMap::new(),
            closing: Vec::new(),
            unread: Vec::new(),
            stopping: None,
            stalled: false,
            types_read: partitions::TypesRead::default(),
            leasing: false,
            serial: 0,
            confirms,
            gate,
            work: FuturesUnordered::new(),
            work_first: false,
            out: Vec::new(),
            said: Vec::new(),
            confirmed: Vec::new(),
            posting: 0,
            transients: Transients::default(),
            hearing: Arc::default(),
            compare_at: Instant::now() + COMPARE_EVERY,
            now: Instant::now(),
        }
    }

    /// Runs until stopped, or until nobody can tell it anything any more.
    pub async fn run(mut self, inbox: &mut mpsc::UnboundedReceiver<Command>) {
        loop {
            let wake = self.next_timer();
            let next = self.next(inbox, wake).await;
            self.now = Instant::now();
            match next {
                Next::Command(command) => {
                    self.command(command);
                    while let Ok(command) = inbox.try_recv() {
                        self.command(command);
                    }
                }
                Next::Done(done) => self.done(done),
                Next::Timer => {}
                Next::End => return,
            }
            self.timers();
            if self.takes() && self.lease.is_stale() {
                self.lapsed();
            }
            self.pump();
            if let Some((deadline, _)) = &self.stopping
                && (self.deliveries.is_idle() || Instant::now() >= *deadline)
            {
                self.finish().await;
                return;
            }
        }
    }

    /// What comes next. Commands and work in turn, so that neither keeps the other waiting; not by chance, which no test
    /// could repeat.
    async fn next(&mut self, inbox: &mut mpsc::UnboundedReceiver<Command>, wake: Instant) -> Next {
        self.work_first = !self.work_first;
        let mut timer = pin!(tokio::time::sleep_until(wake));
        poll_fn(|cx| {
            for looks_at_work in [self.work_first, !self.work_first] {
                if looks_at_work {
                    // Without any work it answers None: then there is nothing to wait for.
                    if let Poll::Ready(Some(done)) = self.work.poll_next_unpin(cx) {
                        return Poll::Ready(Next::Done(done));
                    }
                } else if let Poll::Ready(command) = inbox.poll_recv(cx) {
                    return Poll::Ready(command.map_or(Next::End, Next::Command));
                }
            }
            timer.as_mut().poll(cx).map(|()| Next::Timer)
        })
        .await
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Subscribe { id, pattern, options, reply } => self.subscribe(id, pattern, *options, reply),
            Command::Unsubscribe { id, deadline, reply } => self.unsubscribe(id, deadline, reply),
            Command::Pause(id, paused) => self.pause(id, paused),
            Command::Settle(verdicts, confirm) => self.verdicts(verdicts, confirm),
            Command::Cast(cast) => self.cast(cast),
            Command::TopologyChanged => self.read_types(),
            Command::Reconnected => {
                self.read_types();
                self.groups.values_mut().for_each(Group::doubt);
            }
            Command::Lapsed(consumer) => self.heard_lapsed(&consumer),
            Command::Stalled(stalled) => self.set_stalled(stalled),
            Command::Reads(reply) => {
                let of = |(name, group): (&GroupName, &Group)| {
                    let name = Arc::clone(name);
                    group.partitions.keys().map(move |partition| (name.clone(), partition.clone())).collect::<Vec<_>>()
                };
                let _ = reply.send(self.groups.iter().flat_map(of).collect());
            }
            Command::Stop { deadline, reply } => {
                for group in self.groups.values_mut() {
                    group.close_all(deadline);
                    group.waker.wake();
                }
                for joining in std::mem::take(&mut self.joining).into_values() {
                    let _ = joining.reply.send(Err(Error::closed("the bus")));
                }
                self.hand_back_waiting();
                self.stopping = Some((deadline, reply));
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Read(group, (consumer, result), results) => {
                self.await_read(group.clone(), results);
                self.read(&group, &consumer, result);
            }
            Done::ReaderEnded(group) => self.reader_ended(&group),
            Done::Leased(consumer) => self.leased(&consumer),
            Done::Looked(group, result) => self.looked(&group, result),
            Done::Claimed(claimed) => self.claimed(claimed),
            Done::Flushed(flushed) => self.flushed(flushed),
            Done::Joined { id, spec, result } => self.joined(id, spec, result),
            Done::Types(result) => self.types(result),
            Done::Ready { group, partitions, lapsed } => self.ready(&group, partitions, lapsed),
            Done::Compared { group, consumer, lost } => self.compared(&group, &consumer, lost),
            Done::Restored(group) => self.restored(&group),
            Done::Surveyed(group, counts) => self.surveyed(&group, counts),
            Done::Asked { group, partition, consumer, result } => self.asked(&group, &partition, &consumer, result),
            Done::ClaimedParked(claimed) => self.claimed_parked(claimed),
            Done::Forgotten(group, partitions) => self.forgotten(&group, &partitions),
            Done::GivenUp { group, partition, consumer } => self.given_up_partition(&group, &partition, &consumer),
            Done::Replied(replied) => self.replied(replied),
            Done::Announced(messages) => self.announced(messages),
            Done::Nothing => {}
        }
    }

    /// Whether new entries may be taken at all.
    fn takes(&self) -> bool {
        !self.stalled && !self.leasing && self.stopping.is_none()
    }

    fn next_timer(&self) -> Instant {
        let mut next = self.compare_at;
        let looks = self.groups.values().filter(|group| self.takes() && group.looks());
        for group in looks {
            next = next.min(group.due_at.max(Instant::now() + Duration::from_millis(1)));
        }
        next = self.groups.values().filter_map(|group| group.gathered_at).fold(next, Instant::min);
        if self.takes() {
            // What is due already waits for a place, not for a time.
            let due = self.groups.values().filter_map(|group| group.lines.as_ref()?.next_timer()).filter(|at| *at > Instant::now());
            next = due.fold(next, Instant::min);
        }
        let deadlines = self.closing.iter().map(|closing| closing.deadline);
        let stop = self.stopping.as_ref().map(|(deadline, _)| *deadline);
        next = deadlines.chain(stop).fold(next, Instant::min);
        if self.flusher.len() > 0 { next.min(Instant::now() + Duration::from_millis(100)) } else { next }
    }

    fn timers(&mut self) {
        let now = Instant::now();
        if now >= self.compare_at {
            self.compare_at = now + COMPARE_EVERY;
            // An ordered group doubts what it knows after each failure; there is nothing to compare in between.
            self.groups.values_mut().filter(|group| group.lines.is_none()).for_each(Group::doubt);
            self.read_types();
        }
    }

    /// Moves everything on that can move.
    fn pump(&mut self) {
        // In turn: neither of them can keep the other from its places.
        if self.transients.have_the_turn() {
            self.dispatch_transients();
            self.dispatch();
        } else {
            self.dispatch();
            self.dispatch_transients();
        }
        self.deliver();
        self.close_finished();
        self.forget_unread();
        self.flush();
        if self.takes() {
            self.look_for_due();
            self.compare();
            if self.flusher.len() < UNSETTLED_MAX {
                self.pump_ordered();
                self.claim();
                self.plan_reads();
            }
        }
        self.counters.count_in_flight(self.deliveries.len());
        if !self.confirmed.is_empty() {
            self.host.settled(std::mem::take(&mut self.confirmed));
        }
        if !self.said.is_empty() {
            self.host.lifecycle(std::mem::take(&mut self.said));
        }
    }

    /// Calls handlers. If all that they have comes now, it comes in two parts: while they work on the second one, what follows the first is
    /// made ready.
    fn deliver(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        if out.len() >= PARTED_MIN && out.len() * 2 > self.deliveries.calls() {
            let half = out.len() / 2;
            // What belongs to one call of a handler stays together.
            if let Some(at) = (half..out.len()).find(|at| !out[*at].joined) {
                let second = out.split_off(at);
                self.host.deliver(std::mem::replace(&mut out, second));
            }
        }
        if !out.is_empty() {
            self.host.deliver(out);
        }
    }

    fn flush(&mut self) {
        for call in self.flusher.start(&self.store, self.gate.as_ref()) {
            self.work.push(Box::pin(async move { Done::Flushed(call.await) }));
        }
    }
}
