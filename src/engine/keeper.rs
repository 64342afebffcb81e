//! What goes on beside publishing and consuming: the lease of the own consumer, and the upkeep of buckets, which one
//! process does for all.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::alarms::Alarms;
use super::ask::message::{self, Answer, Failed};
use super::ask::{Letters, post};
use super::config::BusConfig;
use super::consume::{Command, Consumer, Gate, GivenUp, LEASE, Lease, Message, Note, Settlement};
use super::env::Env;
use super::error::Error;
use super::event;
use super::host::{EventText, Host, Kind, Lifecycle};
use super::journal::Journal;
use super::log::failed;
use super::metrics::Metrics;
use super::name;
use super::store::{Bucket, Crashed, DeadLetterQuery, DeadReason, Disposal, EntryId, Held, Keeping, Partition, Store};
use super::unattended;

/// How often the lease is renewed: several attempts before it lapses.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// A delivery whose process died so often becomes a dead letter.
const CRASHES_MAX: u32 = 3;
/// How long a bucket stays with a process that does not look after it any more.
const KEEP: Duration = Duration::from_secs(6);
/// How often a process tries to look after buckets, and renews those it has.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// The process that looks after this bucket does what is to be done once for all buckets.
const FOR_ALL: Bucket = Bucket(0);
/// How often groups whose last consumer died are looked for.
const END_GROUPS_EVERY: Duration = Duration::from_secs(5);
/// How often the dead are looked for.
const REAP_EVERY: Duration = Duration::from_secs(1);
/// Delayed events that other processes published are seen within this time; own ones are known.
const DELAYED_POLL: Duration = Duration::from_millis(250);
/// A partition is swept again after this time while there is work, and ever less often while there is none.
const SWEEP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Calls for one partition in one round.
const SWEEPS_A_ROUND: usize = 50;

/// What the keeper needs to know.
#[derive(Clone, Debug)]
pub struct KeepSettings {
    /// What is kept and what goes.
    pub keeping: Keeping,
    /// `limits.stallTimeoutMs`.
    pub stall_timeout: Duration,
    /// `monitoring.metricsInterval`; `None` where monitoring is off.
    pub metrics_every: Option<Duration>,
    /// Debug mode.
    pub journal: Journal,
}

impl From<&BusConfig> for KeepSettings {
    fn from(config: &BusConfig) -> Self {
        Self {
            keeping: Keeping {
                keep_acknowledged: config.limits.keep_acknowledged,
                keep_ms: None,
                without_group: false,
                default_ttl_ms: event::seconds_to_ms(config.defaults.ttl_s),
                dead_letter_retention_ms: event::seconds_to_ms(config.dead_letter_queue.retention_s).unwrap_or(u64::MAX),
                dead_letters: config.dead_letter_queue.enabled,
            },
            stall_timeout: Duration::from_millis(config.limits.stall_timeout_ms),
            metrics_every: config.monitoring.enabled.then(|| Duration::from_millis(config.monitoring.metrics_interval_ms)),
            journal: config.into(),
        }
    }
}

/// The tasks; they end when dropped.
pub struct Keeper {
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Keeper {
    /// Starts the tasks.
    pub fn start(
        settings: &KeepSettings,
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        env: &Env,
        metrics: Arc<Metrics>,
        consumer: &Arc<Consumer>,
        alarms: Arc<Alarms>,
    ) -> Self {
        let for_all = Arc::new(AtomicBool::new(false));
        let upkeep = Upkeep {
            holder: format!("{}-{}", std::process::id(), env.hex(8)),
            store: store.clone(),
            env: env.clone(),
            host: host.clone(),
            lease: consumer.lease.clone(),
            keeping: settings.keeping,
            journal: settings.journal,
            metrics: metrics.clone(),
            alarms,
            gate: consumer.gate.clone(),
            kept: Vec::new(),
            for_all: for_all.clone(),
            sweeps: HashMap::new(),
        };
        let renewal = renew(store.clone(), host.clone(), consumer.clone(), settings.stall_timeout);
        let mut tasks =
            vec![env.spawn(told(host.clone(), "renewing the lease", renewal)), env.spawn(told(host.clone(), "upkeep", upkeep.run()))];
        let looking = unattended::report(store.clone(), host.clone(), for_all);
        tasks.push(env.spawn(told(host.clone(), "looking for groups that nobody reads", looking)));
        if let Some(every) = settings.metrics_every {
            tasks.push(env.spawn(told(host.clone(), "sampling", sample(store, host, metrics, every))));
        }
        Self { tasks }
    }
}

/// A panic ends the task, but not unnoticed. What it does not do any more, other processes do when its leases end.
async fn told(host: Arc<dyn Host>, what: &str, task: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
        let error = Error::panicked(panic.as_ref()).with("task", what);
        tracing::error!(%error, what, "a task of the keeper ended");
        host.lifecycle(vec![Lifecycle::error(&error)]);
    }
}

/// Renews the lease, and lets go of it when the handlers' thread is silent for too long.
async fn renew(store: Arc<dyn Store>, host: Arc<dyn Host>, consumer: Arc<Consumer>, stall_timeout: Duration) {
    let mut stalled = false;
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let silent = host.silent_for() >= stall_timeout;
        if silent != stalled {
            stalled = silent;
            consumer.tell(Command::Stalled(stalled));
        }
        let (name, buckets) = consumer.lease.current();
        if buckets.is_empty() {
            consumer.lease.renewed(&name, Instant::now());
            // Subscribed to what is not there yet, it is alive all the same: its groups stay.
            if consumer.subscriptions.load(Ordering::Relaxed) > 0
                && !consumer.lease.is_suspended()
                && let Err(error) = store.renew(&name, &[], LEASE).await
            {
                failed!(error, "the consumer could not say that it is there");
            }
            continue;
        }
        let at = Instant::now();
        match store.renew(&name, &buckets, LEASE).await {
            // The actor may have taken another name in the meantime: then this says nothing.
            Ok(held) if *consumer.lease.current().0 == *name => {
                if held {
                    consumer.lease.renewed(&name, at);
                } else {
                    consumer.tell(Command::Lapsed(name));
                }
            }
            Ok(_) => {}
            Err(error) => failed!(error, "the lease could not be renewed"),
        }
    }
}

/// Samples what is not counted on the way.
async fn sample(store: Arc<dyn Store>, host: Arc<dyn Host>, metrics: Arc<Metrics>, every: Duration) {
    loop {
        match store.count_dead_letters(&DeadLetterQuery::default()).await {
            Ok(count) => metrics.set_dead_letters(count),
            Err(error) => failed!(error, "dead letters could not be counted"),
        }
        tokio::time::sleep(every).await;
        if host.listens(Kind::MetricsUpdated) {
            let utilization = store.utilization();
            host.lifecycle(vec![Lifecycle(Kind::MetricsUpdated, metrics.snapshot(utilization))]);
        }
    }
}

struct Upkeep {
    holder: String,
    store: Arc<dyn Store>,
    env: Env,
    host: Arc<dyn Host>,
    /// Of the consumer beside.
    lease: Arc<Lease>,
    keeping: Keeping,
    journal: Journal,
    metrics: Arc<Metrics>,
    alarms: Arc<Alarms>,
    /// Told of messages between projects that were given up.
    gate: Option<Arc<dyn Gate>>,
    /// Buckets that this process looks after.
    kept: Vec<Bucket>,
    /// [`FOR_ALL`] is among them.
    for_all: Arc<AtomicBool>,
    /// When a partition is swept next, and the pause after that.
    sweeps: HashMap<Partition, (Instant, Duration)>,
}

impl Upkeep {
    async fn run(mut self) {
        let mut keep_at = Instant::now();
        let mut reap_at = Instant::now();
        let mut end_groups_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= keep_at {
                keep_at = now + KEEP_EVERY;
                self.keep().await;
            }
            if now >= reap_at {
                reap_at = now + REAP_EVERY;
                self.reap().await;
                self.sweep().await;
            }
            if now >= end_groups_at {
                end_groups_at = now + END_GROUPS_EVERY;
                self.end_groups().await;
            }
            let mut wake = reap_at;
            if !self.kept.is_empty() {
                wake = wake.min(now + DELAYED_POLL);
            }
            let buckets: BTreeSet<Bucket> = self.kept.iter().copied().chain(self.alarms.take_due()).collect();
            let moves = join_all(buckets.iter().map(|bucket| self.store.move_delayed(*bucket))).await;
            for (bucket, moved) in buckets.into_iter().zip(moves) {
                match moved {
                    Ok((_, Some(next_ms))) => drop(self.alarms.note(bucket, Duration::from_millis(next_ms))),
                    Ok((_, None)) => {}
                    Err(error) => failed!(error, "delayed events wait for the server"),
                }
            }
            if let Some(alarm) = self.alarms.next() {
                wake = wake.min(alarm);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(wake) => {}
                () = self.alarms.changed.notified() => {}
            }
        }
    }

    async fn keep(&mut self) {
        let tries = join_all(Bucket::all().map(|bucket| self.store.look_after(bucket, &self.holder, KEEP))).await;
        self.kept = Bucket::all().zip(tries).filter(|(_, kept)| matches!(kept, Ok(true))).map(|(bucket, _)| bucket).collect();
        self.for_all.store(self.kept.contains(&FOR_ALL), Ordering::Relaxed);
    }

    async fn reap(&mut self) {
        if self.lease.is_stale() {
            // This process was stopped. The consumer finds out, too, and gives back what it did not begin.
            return;
        }
        for bucket in &self.kept {
            match self.store.reap(*bucket, CRASHES_MAX).await {
                Ok(reaped) => {
                    self.tell_who_asked(&reaped.crashed);
                    self.tell_gate(&reaped.crashed);
                    let events = reaped
                        .crashed
                        .into_iter()
                        .flat_map(|c| {
                            self.metrics.add_dead_letter(&c.partition.event_type, DeadReason::Crashed);
                            let line = self.journal.crashed(&c.event_id, &c.partition.event_type, &c.group, c.attempts);
                            let about = json!({
                                "eventType": &*c.partition.event_type, "eventId": c.event_id, "group": c.group, "attempt": c.attempts,
                                "reason": "crashed", "error": "the process that handled it ended",
                            });
                            [Some(Lifecycle(Kind::DeadLettered, about)), line].into_iter().flatten()
                        })
                        .collect::<Vec<_>>();
                    if !events.is_empty() {
                        self.host.lifecycle(events);
                    }
                }
                Err(error) => failed!(error, "taking over from dead consumers"),
            }
        }
    }

    /// Ends groups that end with their last consumer, where that died.
    async fn end_groups(&mut self) {
        if !self.kept.contains(&FOR_ALL) || self.lease.is_stale() {
            return;
        }
        match self.store.end_groups().await {
            Ok(ended) => {
                for spec in ended {
                    tracing::info!(group = spec.group, pattern = spec.pattern, "a group ended with its last consumer");
                }
            }
            Err(error) => failed!(error, "groups without consumers wait for the server"),
        }
    }

    /// Whoever waits for what becomes of an event hears that it is given up.
    fn tell_who_asked(&self, crashed: &[Crashed]) {
        let mut letters = Letters::new();
        for crash in crashed {
            let Some(asked) = &crash.asked else { continue };
            let answer = Answer::Failed(Failed {
                error: "the processes that handled it ended".to_owned(),
                reason: Some(DeadReason::Crashed.as_str().to_owned()),
                group: Some(crash.group.clone()),
            });
            for inbox in [&asked.ack_to, &asked.reply_to].into_iter().flatten() {
                letters.entry(inbox.clone()).or_default().push(message::write(&asked.event_id, &answer));
            }
        }
        if !letters.is_empty() {
            let store = self.store.clone();
            // Beside the upkeep, which must not wait for it.
            self.env.spawn(async move { drop(post(&store, letters, REAP_EVERY).await) });
        }
    }

    /// A message between projects that was given up is recorded, and its source told.
    fn tell_gate(&self, crashed: &[Crashed]) {
        let Some(gate) = &self.gate else { return };
        for crash in crashed.iter().filter(|crash| name::is_addressed(&crash.partition.event_type)) {
            let text = EventText { meta: crash.meta.as_str().into(), asks: false, ..EventText::default() };
            let error = "the processes that handled it ended";
            let Crashed { partition, group, attempts, .. } = crash;
            let stream = &*partition.event_type;
            gate.gave_up(GivenUp { stream, group, text: &text, reason: DeadReason::Crashed, error, attempts: *attempts });
            let ended = Settlement {
                held: Held { partition: partition.clone(), id: EntryId::default(), deliveries: *attempts },
                disposal: Disposal::DeadLetter { reason: DeadReason::Crashed, error: error.to_owned(), attempts: *attempts },
                note: Note { message: Some(Box::new(Message::new(text))), ..Note::default() },
            };
            let (gate, group) = (gate.clone(), group.clone());
            self.env.spawn(async move { drop(gate.record(&group, &[&ended]).await) });
        }
    }

    async fn sweep(&mut self) {
        if self.kept.is_empty() {
            self.sweeps.clear();
            return;
        }
        // The topology is small beside the streams, and read by one process for all.
        let Ok(topology) = self.store.topology().await else { return };
        let now = Instant::now();
        for partition in topology.partitions {
            if !self.kept.contains(&partition.bucket()) {
                self.sweeps.remove(&partition);
                continue;
            }
            let (at, pause) = self.sweeps.get(&partition).copied().unwrap_or((now, SWEEP.0));
            if at > now {
                continue;
            }
            let keeping = self.keeping.of(topology.layouts.get(&*partition.event_type));
            let worked = self.sweep_partition(&partition, &keeping).await;
            let pause = if worked { SWEEP.0 } else { (pause * 2).min(SWEEP.1) };
            self.sweeps.insert(partition, (now + pause, pause));
        }
    }

    /// Whether there was something to do.
    async fn sweep_partition(&self, partition: &Partition, keeping: &Keeping) -> bool {
        let mut worked = false;
        for _ in 0..SWEEPS_A_ROUND {
            let swept = match self.store.sweep(partition, keeping).await {
                Ok(swept) => swept,
                Err(error) => {
                    failed!(error, "a stream could not be swept");
                    return true;
                }
            };
            worked |= swept.removed > 0 || !swept.expired.is_empty();
            let events: Vec<Lifecycle> = swept
                .expired
                .into_iter()
                .flat_map(|e| {
                    self.metrics.add_expired(&e.event_type);
                    if e.dead_lettered {
                        self.metrics.add_dead_letter(&e.event_type, DeadReason::Expired);
                    }
                    let line = self.journal.expired(&e.event_id, &e.event_type, &e.group, e.dead_lettered);
                    let about = json!({
                        "eventType": &*e.event_type, "eventId": e.event_id, "group": e.group, "attempt": 0, "deadLettered": e.dead_lettered,
                    });
                    let dead = e.dead_lettered.then(|| {
                        let mut about = about.clone();
                        about["reason"] = "expired".into();
                        Lifecycle(Kind::DeadLettered, about)
                    });
                    [Some(Lifecycle(Kind::Expired, about)), dead, line].into_iter().flatten()
                })
                .collect();
            if !events.is_empty() {
                self.host.lifecycle(events);
            }
            if !swept.more {
                break;
            }
        }
        worked
    }
}
