//! The way of the [`Orchestra`] to the world, in the process that leads: events in, what was decided to the store, and only then the
//! answers, announcements and letters out. What came together is decided, written and answered together.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::Shared;
use super::life::CLOCKS_MS;
use super::orchestra::{Found, Orchestra, Outcome, Saying};
use super::reading::{SOURCE, TYPES, read};
use crate::engine::ask::message::Answer;
use crate::engine::ask::{Letters, post};
use crate::engine::consume::{Reply, Verdict};
use crate::engine::env::lock;
use crate::engine::error::{Code, Error, Result};
use crate::engine::event::MetaView;
use crate::engine::host::{Delivery, Lifecycle, Token};
use crate::engine::log::failed;
use crate::engine::options::{NackOptions, Start, SubscribeOptions};
use crate::engine::publish::Noted;
use crate::engine::settle::Failure;
use crate::engine::store::{BoardWrite, BoardWritten, Lead, Table};

/// Consumer group of the orchestration.
pub const GROUP: &str = "ossa-orchestration";
/// How long a process leads without saying so again.
const LIFE: Duration = Duration::from_secs(4);
/// How often it says so, and how often others try to.
const RENEW: Duration = Duration::from_secs(1);
/// How often what changes often is written, and time is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Events of one type that are held at once, and those that are seen to together.
const EVENTS_MAX: usize = 1_000;
const TOGETHER: usize = 1_000;
/// Pause after a write that failed, or an announcement.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a letter is tried to be posted.
const POST_PATIENCE: Duration = Duration::from_secs(10);
/// How long an announcement may not be made twice, ms: a process that takes over says again what may not have been said.
const KEY_WINDOW_MS: u64 = 600_000;
/// Announcements on their way at once.
const SAYINGS_MAX: usize = 10_000;

/// What is kept of a time of leading: the store may have been emptied since.
struct Kept {
    orchestra: Orchestra,
    version: u64,
}

/// Leads whenever nobody else does.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut kept: Option<Kept> = None;
    // Since when the store is found empty though it was not.
    let mut emptied: Option<Instant> = None;
    while !shared.ends.load(Ordering::Acquire) {
        // Of what others wrote since, nothing is known here.
        let highest = shared.highest.load(Ordering::Acquire);
        kept.take_if(|kept| kept.version < highest);
        let asked = Instant::now();
        match shared.store.lead(&shared.who, LIFE).await {
            Ok(Some(lead)) if lead.version == 0 && highest > 0 && kept.is_none() && !has_waited(&mut emptied) => {
                // It was emptied. Whoever led knows what was in it, and comes first if it lives.
                let _ = shared.store.resign(lead.turn).await;
                wait(&shared, RENEW).await;
            }
            Ok(Some(lead)) => {
                emptied = None;
                let (again, begun) = lead_on(&shared, lead, asked, kept.take()).await;
                kept = again;
                if let Err(error) = begun {
                    failed!(error, "leading the orchestration could not begin");
                    wait(&shared, RENEW).await;
                }
            }
            Ok(None) => {
                emptied = None;
                wait(&shared, RENEW).await;
            }
            Err(error) => {
                failed!(error, "who leads the orchestration is not known");
                wait(&shared, RENEW).await;
            }
        }
    }
}

/// Whether it was waited long enough for whoever led before the store was emptied.
fn has_waited(emptied: &mut Option<Instant>) -> bool {
    emptied.get_or_insert_with(Instant::now).elapsed() >= LIFE * 2
}

/// Ends early where all is to end.
async fn wait(shared: &Shared, time: Duration) {
    let jittered = time.mul_f64(0.75 + shared.env.random() / 2.0);
    let _ = tokio::time::timeout(jittered, shared.ending.notified()).await;
    if shared.ends.load(Ordering::Acquire) {
        shared.ending.notify_one();
    }
}

async fn found(shared: &Shared) -> Result<Found> {
    let (mut agents, mut tasks, mut data) = (Vec::new(), Vec::new(), HashMap::new());
    for table in Table::ALL {
        let mut cursor = 0;
        loop {
            let (rows, next) = shared.store.page(table, cursor).await?;
            match table {
                Table::Agents => agents.extend(rows.into_iter().map(|(_, text)| text)),
                Table::Tasks => tasks.extend(rows.into_iter().map(|(_, text)| text)),
                Table::Data => data.extend(rows),
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
    let summary = shared.store.board_news(0).await?.summary;
    Ok(Found { agents, tasks, data, summary })
}

/// Leads until another does, or all ends. Answers what is known, and whether it could begin.
async fn lead_on(shared: &Arc<Shared>, lead: Lead, asked: Instant, kept: Option<Kept>) -> (Option<Kept>, Result<()>) {
    let lost = Arc::new(Lost::from(asked + LIFE));
    let renewing = Abort(shared.env.spawn(renew(shared.clone(), lead.turn, lost.clone())).abort_handle());
    let now_ms = shared.store.now_ms();
    let version_kept = kept.as_ref().map_or(0, |kept| kept.version);
    let mut leader = match kept {
        // It was emptied, or lost what was written last: what is known here is newer.
        Some(Kept { mut orchestra, version }) if lead.version < version => {
            orchestra.listens_from(now_ms);
            Leader { rewrites: true, ..Leader::new(shared.clone(), lead, orchestra, lost) }
        }
        _ => match found(shared).await {
            Ok(found) => Leader::new(shared.clone(), lead, Orchestra::new(shared.rules.clone(), found, now_ms), lost),
            Err(error) => return (None, Err(error)),
        },
    };
    let (deliveries, inbox) = mpsc::unbounded_channel();
    let mut subscriptions = Vec::new();
    let mut begun = Ok(());
    for event_type in TYPES {
        match shared.switch.subscribe(event_type, options(), deliveries.clone()).await {
            Ok(id) => subscriptions.push(id),
            Err(error) => {
                begun = Err(error);
                break;
            }
        }
    }
    drop(deliveries);
    if begun.is_ok() {
        tracing::info!(turn = lead.turn, "this process leads the orchestration of agents");
        leader.run(inbox).await;
        tracing::info!(turn = lead.turn, "this process leads the orchestration of agents no more");
    }
    for id in subscriptions {
        if let Err(error) = shared.switch.unsubscribe(id, Duration::ZERO).await {
            tracing::debug!(%error, "a subscription of the orchestration could not be ended");
        }
    }
    drop(renewing);
    if (begun.is_err() || shared.ends.load(Ordering::Acquire))
        && let Err(error) = shared.store.resign(lead.turn).await
    {
        tracing::debug!(%error, "the next process to lead has to wait");
    }
    let version = if leader.rewrites { version_kept } else { leader.lead.version };
    (Some(Kept { orchestra: leader.orchestra, version }), begun)
}

struct Abort(tokio::task::AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn options() -> SubscribeOptions {
    SubscribeOptions {
        group: Some(GROUP.to_owned()),
        start: Start::Beginning,
        auto_ack: true,
        max_unacknowledged: Some(EVENTS_MAX),
        concurrency: Some(EVENTS_MAX),
        ..SubscribeOptions::default()
    }
}

/// Whether this process leads no more.
struct Lost {
    is: AtomicBool,
    told: Notify,
    /// Until then nobody else can.
    holds_until: Mutex<Instant>,
}

impl From<Instant> for Lost {
    fn from(holds_until: Instant) -> Self {
        Self { is: AtomicBool::new(false), told: Notify::new(), holds_until: Mutex::new(holds_until) }
    }
}

impl Lost {
    fn set(&self) {
        self.is.store(true, Ordering::Release);
        self.told.notify_one();
    }

    /// Also where this process stood still, and nobody has noticed yet.
    fn is(&self) -> bool {
        self.is.load(Ordering::Acquire) || Instant::now() >= *lock(&self.holds_until)
    }
}

/// Says again and again that this process leads, whatever else it does.
async fn renew(shared: Arc<Shared>, turn: u64, lost: Arc<Lost>) {
    loop {
        tokio::time::sleep(RENEW).await;
        let (asked, until) = (Instant::now(), *lock(&lost.holds_until));
        match tokio::time::timeout_at(until, shared.store.lead(&shared.who, LIFE)).await {
            Ok(Ok(Some(lead))) if lead.turn == turn => *lock(&lost.holds_until) = asked + LIFE,
            // Another does, or the store forgot that this one did.
            Ok(Ok(_)) => return lost.set(),
            Ok(Err(error)) => tracing::debug!(%error, "leading could not be renewed"),
            Err(_) => {}
        }
        if lost.is() {
            return lost.set();
        }
    }
}

struct Leader {
    shared: Arc<Shared>,
    lead: Lead,
    orchestra: Orchestra,
    lost: Arc<Lost>,
    /// The store has to be written to anew, whatever it says.
    rewrites: bool,
    /// Announcements on their way, those that wait, and those that are to be made again. As many as tasks and agents can cause.
    on_their_way: HashMap<u64, Saying>,
    unsaid: VecDeque<Saying>,
    failed: Vec<Saying>,
    numbered: u64,
    noted: Noted,
    letters: mpsc::UnboundedSender<Letters>,
    results: mpsc::UnboundedReceiver<(u64, Result<String>)>,
    /// A trouble that was told.
    trouble: Option<Code>,
}

impl Leader {
    fn new(shared: Arc<Shared>, lead: Lead, orchestra: Orchestra, lost: Arc<Lost>) -> Self {
        let (noted, results) = mpsc::unbounded_channel();
        let (letters, written) = mpsc::unbounded_channel();
        shared.env.spawn(post_letters(shared.clone(), written));
        Self {
            shared,
            lead,
            orchestra,
            lost,
            rewrites: false,
            on_their_way: HashMap::new(),
            unsaid: VecDeque::new(),
            failed: Vec::new(),
            numbered: 0,
            noted,
            letters,
            results,
            trouble: None,
        }
    }

    async fn run(&mut self, mut inbox: mpsc::UnboundedReceiver<Delivery>) {
        let shared = self.shared.clone();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut arrived = Vec::new();
        loop {
            let mut is_tick = false;
            tokio::select! {
                biased;
                () = self.lost.told.notified() => {}
                () = shared.ending.notified() => {}
                _ = ticks.tick() => is_tick = true,
                count = inbox.recv_many(&mut arrived, TOGETHER) => if count == 0 {
                    return;
                },
                Some((number, result)) = self.results.recv() => self.said(number, result),
            }
            if self.lost.is() || shared.ends.load(Ordering::Acquire) {
                shared.ending.notify_one();
                return;
            }
            while let Ok((number, result)) = self.results.try_recv() {
                self.said(number, result);
            }
            if !is_tick && arrived.is_empty() {
                continue;
            }
            let now_ms = now_of(&arrived, shared.store.now_ms());
            let outcomes: Vec<(Delivery, Result<Outcome>)> = arrived.drain(..).map(|delivery| self.hear(delivery, now_ms)).collect();
            if is_tick {
                self.orchestra.tick(now_ms);
            }
            self.orchestra.give_out(now_ms, &mut || shared.env.random());
            // What was decided while another may lead is nothing; what it is about comes to that one.
            if !self.write(is_tick, now_ms).await || self.lost.is() {
                return;
            }
            let verdicts: Vec<(Token, Verdict)> =
                outcomes.into_iter().map(|(delivery, outcome)| (delivery.token, self.verdict(&delivery, outcome))).collect();
            if !verdicts.is_empty() {
                shared.switch.settle_all(verdicts);
            }
            self.speak(is_tick);
            self.post();
        }
    }

    fn hear(&mut self, delivery: Delivery, now_ms: u64) -> (Delivery, Result<Outcome>) {
        let outcome = read(&delivery).map(|heard| self.orchestra.hear(heard, now_ms));
        (delivery, outcome)
    }

    /// Writes what is decided; answers whether this process still leads.
    async fn write(&mut self, all: bool, now_ms: u64) -> bool {
        let taken = if std::mem::take(&mut self.rewrites) { Some(self.anew(0, now_ms)) } else { self.orchestra.take_write(all, now_ms) };
        let Some(mut write) = taken else { return true };
        // The same one again and again: the store knows by its number whether it has it.
        loop {
            match self.shared.store.write_board(self.lead, &write).await {
                Ok(BoardWritten::Done) => {
                    self.lead.version += 1;
                    self.shared.highest.fetch_max(self.lead.version, Ordering::AcqRel);
                    self.trouble = None;
                    return true;
                }
                // The store lost what was written before: all of it is written anew.
                Ok(BoardWritten::At(found)) => write = self.anew(found, now_ms),
                Ok(BoardWritten::Superseded) => return false,
                Err(error) => {
                    self.tell(&error);
                    if self.lost.is() || self.shared.ends.load(Ordering::Acquire) {
                        return false;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// All there is, under a number that no reader has seen.
    fn anew(&mut self, found: u64, now_ms: u64) -> BoardWrite {
        self.lead.version = self.lead.version.max(found).max(self.lead.turn);
        self.orchestra.whole(now_ms)
    }

    /// A trouble that does not go by itself, once.
    fn tell(&mut self, error: &Error) {
        if !error.retryable && self.trouble.replace(error.code) != Some(error.code) {
            self.shared.host.lifecycle(vec![Lifecycle::error(error)]);
        }
        failed!(error, "what the orchestration decided is not written yet");
    }

    /// How a delivery ends.
    fn verdict(&self, delivery: &Delivery, outcome: Result<Outcome>) -> Verdict {
        let reply = |value: &Value| match reply_to(delivery) {
            Some((to, event_id)) => Verdict::Replied(Reply { to, event_id, answer: Answer::Reply(value.to_string()) }),
            None => Verdict::Done,
        };
        match outcome {
            Ok(Outcome::Done) => reply(&Value::Null),
            Ok(Outcome::Reply(value)) => reply(&value),
            Ok(Outcome::Given(id)) => reply(&json!({ "ok": self.orchestra.holder(&id) })),
            Ok(Outcome::Refuse(error)) if delivery.text.asks => reply(&json!({ "err": error.to_json() })),
            Ok(Outcome::Dead { error, is_permanent: false }) => Verdict::Failed(Failure::Error(error)),
            Ok(Outcome::Dead { error, .. }) => Verdict::Failed(Failure::Permanent(error)),
            Ok(Outcome::Later { after_ms, error }) => {
                Verdict::Failed(Failure::Nack(NackOptions { delay_ms: Some(after_ms), dead_letter: false, reason: Some(error) }))
            }
            Ok(Outcome::Refuse(error)) | Err(error) => Verdict::Failed(Failure::Permanent(error.message)),
        }
    }

    /// Announces what is new, as many at a time as can be on their way, and now and then what could not be announced.
    fn speak(&mut self, again: bool) {
        self.unsaid.extend(self.orchestra.take_sayings());
        if again {
            self.unsaid.extend(std::mem::take(&mut self.failed));
        }
        let Some(publisher) = self.shared.publisher.upgrade() else { return };
        while self.on_their_way.len() < SAYINGS_MAX
            && let Some(saying) = self.unsaid.pop_front()
        {
            self.numbered += 1;
            publisher.say_noted(saying.event_type, &said_with(&saying), &saying.data, self.numbered, &self.noted);
            self.on_their_way.insert(self.numbered, saying);
        }
    }

    fn said(&mut self, number: u64, result: Result<String>) {
        let Some(saying) = self.on_their_way.remove(&number) else { return };
        match result {
            Ok(_) => self.orchestra.was_said(&saying),
            Err(error) if error.retryable => self.failed.push(saying),
            Err(error) if error.code == Code::Closed => {}
            Err(mut error) => {
                error.message = format!("the orchestration could not announce '{}': {}", saying.event_type, error.message);
                self.shared.host.lifecycle(vec![Lifecycle::error(&error)]);
            }
        }
    }

    /// Posts what is for agents.
    fn post(&mut self) {
        let letters = self.orchestra.take_letters();
        if !letters.is_empty() {
            // Gone with this process only.
            let _ = self.letters.send(letters);
        }
    }
}

/// Posts letters to agents, in their order; what gathered meanwhile goes together. Those that do not arrive are found missing by what the
/// agents tell of themselves.
async fn post_letters(shared: Arc<Shared>, mut written: mpsc::UnboundedReceiver<Letters>) {
    while let Some(mut letters) = written.recv().await {
        while let Ok(more) = written.try_recv() {
            for (inbox, mut texts) in more {
                letters.entry(inbox).or_default().append(&mut texts);
            }
        }
        for (inbox, posted) in post(&shared.store, letters, POST_PATIENCE).await {
            if let Err(error) = posted {
                failed!(error, inbox, "letters to agents could not be posted");
            }
        }
    }
}

/// Now, by the store's clock: not before what was stored by it. What it stamps is known exactly, its time now but for some ms.
fn now_of(arrived: &[Delivery], about_ms: u64) -> u64 {
    let newest_ms = arrived.iter().map(|delivery| delivery.id.ms).max().unwrap_or(0);
    about_ms.max(newest_ms.min(about_ms.saturating_add(CLOCKS_MS)))
}

/// Who waits for an answer to the event, and the event's id.
fn reply_to(delivery: &Delivery) -> Option<(String, String)> {
    if !delivery.text.asks {
        return None;
    }
    let asked = MetaView::read(delivery.text.meta.as_bytes()).ok()?.asked()?;
    Some((asked.reply_to?, asked.event_id))
}

/// Options by which it is published.
fn said_with(saying: &Saying) -> Value {
    let mut options = json!({
        "source": SOURCE, "idempotencyKey": format!("{GROUP}:{}", saying.key), "idempotencyWindowMs": KEY_WINDOW_MS,
    });
    for (key, value) in [("target", &saying.target), ("correlationId", &saying.correlation_id)] {
        if let Some(value) = value {
            options[key] = value.as_str().into();
        }
    }
    if let Some(ttl_s) = saying.ttl_s {
        options["ttl"] = ttl_s.into();
    }
    if saying.event_type == "task.failed" {
        // Read again by whoever leads, it is the dead letter at once.
        options["retry"] = json!({ "maxAttempts": 0 });
    }
    options
}
