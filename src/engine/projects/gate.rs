//! In: whether a message is what its source sent, once, and what its contract says. What is not becomes a dead letter, and no
//! handler sees it.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::Shared;
use super::answers::{Answer, ERROR};
use super::aside::aside;
use super::audit::{Entry as Record, Outcome};
use super::contract::Named;
use super::directory::View;
use super::identity::short_name;
use super::nesting;
use super::project::Project;
use crate::engine::consume::{Gate, GivenUp, Message, Settlement};
use crate::engine::error::{Code, Error, Result};
use crate::engine::event::{self, Extras, MetaView};
use crate::engine::name;
use crate::engine::store::{Body, DeadReason, Disposal, Entry, EntryId, Partition, Refusal, Sighting};

/// Most time between what a message says and the server's time of its first entry, ms.
const WINDOW_MS: u64 = 5 * 60_000;
/// How late a delayed message may become an entry, ms: all processes may have been away when it was due.
const LATE_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// How much longer than its ttl a message is remembered, and how long one that never expires.
const SIGHTING_LIFE: (Duration, Duration) = (Duration::from_millis(2 * WINDOW_MS), Duration::from_secs(30 * 24 * 3600));
/// How long an acknowledgement waits for its record.
const RECORD_PATIENCE: Duration = Duration::from_secs(30);

/// A message as it came.
struct Incoming<'a> {
    stream: &'a str,
    target: &'a str,
    event_type: &'a str,
    meta: &'a str,
    data: &'a str,
    view: MetaView<'a>,
    extras: Extras,
    /// Its place, and that of its first entry, where it was redriven for a group.
    id: EntryId,
    first: EntryId,
    redriven_for: Option<&'a str>,
}

fn refusal(reason: DeadReason, code: Code, message: impl Into<String>) -> Refusal {
    Refusal { reason, code, message: message.into() }
}

fn forged(message: impl Into<String>) -> Refusal {
    refusal(DeadReason::Signature, Code::Signature, message)
}

fn replayed(message: impl Into<String>) -> Refusal {
    refusal(DeadReason::Signature, Code::Replay, message)
}

/// Why a message is not taken: for good, or as far as this process knows.
enum No {
    Refused(Refusal),
    /// Its source, its key or its contract may be news.
    PerhapsNews(Refusal),
}

/// What else handlers are given has its type.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    #[allow(dead_code)] // read to see that it is text
    version: Cow<'a, str>,
}

impl<'a> Incoming<'a> {
    /// `None`: it is addressed to nobody.
    fn of(entry: &'a Entry) -> Option<Result<Self, Refusal>> {
        name::is_addressed(&entry.partition.event_type).then(|| Self::read(entry))
    }

    /// Reads an entry of a stream that is addressed to a project.
    fn read(entry: &'a Entry) -> Result<Self, Refusal> {
        let malformed = |why: String| refusal(DeadReason::Malformed, Code::InvalidArgument, why);
        let stream: &str = &entry.partition.event_type;
        let (target, event_type) = name::address(stream).ok_or_else(|| malformed("its stream is no project's".to_owned()))?;
        let Body::Event { meta, data, only_group, first_entry } = &entry.body else {
            return Err(malformed("not written by this bus: it has no 'meta' and 'data'".to_owned()));
        };
        let text = |bytes: &'a [u8]| str::from_utf8(bytes).map_err(|_| malformed("the entry's text is not UTF-8".to_owned()));
        let (meta, data) = (text(meta)?, text(data)?);
        let view = MetaView::read(meta.as_bytes()).map_err(|error| malformed(error.message))?;
        let unreadable = |error: serde_json::Error| malformed(format!("its metadata cannot be read: {error}"));
        let extras: Extras = serde_json::from_str(meta).map_err(unreadable)?;
        serde_json::from_str::<Shape<'_>>(meta).map_err(unreadable)?;
        let first = first_entry.unwrap_or(entry.id);
        Ok(Self { stream, target, event_type, meta, data, view, extras, id: entry.id, first, redriven_for: only_group.as_deref() })
    }

    /// When it was to become an entry, as it says.
    fn due_ms(&self) -> u64 {
        self.extras.due.unwrap_or(self.view.timestamp)
    }

    /// Its signature, and that its time is that of its entry.
    fn check_origin(&self, view: &View, secured: bool, now_ms: u64) -> Result<(), No> {
        let id = &*self.view.source;
        if self.extras.target.as_deref() != Some(self.target) {
            return Err(No::Refused(forged(format!("it is not addressed to '{}'", self.target))));
        }
        let Some(source) = view.known(id) else {
            return Err(No::PerhapsNews(forged(format!("its source '{}' is not a registered project", shown(id)))));
        };
        if secured {
            self.check_signature(view, source, now_ms)?;
        }
        self.check_time().map_err(No::Refused)
    }

    fn check_signature(&self, view: &View, source: &Project, now_ms: u64) -> Result<(), No> {
        let id = &source.project_id;
        let Some((signed, signature)) = event::cut_signature(self.meta) else {
            // What it sent before it had a key goes out with the backlog, by the place where it lies. That it was redriven to it is
            // looked up for all that say so.
            let entered = if self.redriven_for.is_some() { self.first.ms } else { self.id.ms };
            let is_over = source.signs_from_ms().is_some_and(|from| now_ms > from.saturating_add(LATE_MS_MAX));
            if source.signed_at(entered) || is_over || view.is_pinned(id) {
                return Err(No::PerhapsNews(forged(format!("it is not signed, and '{id}' signs its messages"))));
            }
            return Ok(());
        };
        let key_id = self.extras.message.as_ref().and_then(|message| message.key_id.as_deref());
        let Some(key_id) = key_id else {
            return Err(No::Refused(forged("it has a signature, but names no key")));
        };
        let keys = view.keys(source, key_id, self.view.timestamp);
        if keys.is_empty() {
            return Err(No::PerhapsNews(forged(format!("'{id}' has no key '{}' of that time that is believed", shown(key_id)))));
        }
        if keys.iter().any(|key| key.verifies_message(self.stream, signed, self.data.as_bytes(), signature)) {
            return Ok(());
        }
        // Another key of the same name may have come since.
        Err(No::PerhapsNews(forged(format!("its signature is not that of '{id}': the message was changed, or is somebody else's"))))
    }

    fn check_time(&self) -> Result<(), Refusal> {
        let (due, entered) = (self.due_ms(), self.first.ms);
        let late_max = if self.extras.due.is_some() { LATE_MS_MAX } else { WINDOW_MS };
        if entered.saturating_add(WINDOW_MS) < due || entered > due.saturating_add(late_max) {
            let message = format!(
                "it says that its time is {due}, but it became an entry at {entered}: more than {} s before, or {} s after",
                WINDOW_MS / 1000,
                late_max / 1000
            );
            return Err(replayed(message));
        }
        Ok(())
    }

    /// Its data, by the contracts that it names and those that hold here.
    fn check_data(&self, view: &View) -> Result<(), No> {
        let malformed = |error: Error| No::Refused(refusal(DeadReason::Malformed, error.code, error.message));
        if event::cut_signature(self.meta).is_none() {
            // Of what is signed, its source's bus made sure.
            serde_json::from_str::<IgnoredAny>(self.data).map_err(|error| malformed(nesting::Unreadable::NotJson(error).into()))?;
        }
        if let Err(error) = nesting::check(self.data).map_err(Error::from) {
            return Err(malformed(error));
        }
        let source = &*self.view.source;
        let named: Vec<Named> =
            self.extras.message.iter().flat_map(|message| &message.contracts).filter_map(|text| Named::read(text)).collect();
        if named.is_empty() && !view.contracts().applies_any(source, self.target, self.event_type) {
            return Ok(());
        }
        // The bus's own answers have no contract.
        if self.event_type == ERROR && named.is_empty() {
            return Ok(());
        }
        let violation = |error: Error| refusal(DeadReason::Contract, error.code, with_paths(&error));
        let parsed = nesting::parse(self.data)
            .map_err(Error::from)
            .map_err(|error| No::Refused(refusal(DeadReason::Malformed, error.code, error.message)))?;
        let checked = view.contracts().check_incoming(source, self.target, self.event_type, &parsed, &named);
        checked.map_err(|error| No::PerhapsNews(violation(error)))
    }

    fn check(&self, view: &View, secured: bool, now_ms: u64) -> Result<(), No> {
        self.check_origin(view, secured, now_ms)?;
        self.check_data(view)
    }

    /// Where it is, and, of a redriven one, that it was put there: each is the only one of its kind.
    fn sightings(&self, entry: &Entry) -> impl Iterator<Item = Sighting> {
        let message = [self.stream.as_bytes(), self.view.source.as_bytes(), self.view.id.as_bytes()];
        let redriven = self.redriven_for.filter(|_| self.first != self.id).map(|group| {
            let [stream, source, id] = message;
            let at_ms = self.id.ms.to_be_bytes();
            self.sighting(entry, short_name(&[stream, source, id, b"redriven", group.as_bytes(), &at_ms]), self.id)
        });
        // Its source is in its name, too: nobody can take the name of another's message before it is found.
        redriven.into_iter().chain([self.sighting(entry, short_name(&message), self.first)])
    }

    fn sighting(&self, entry: &Entry, message: String, place: EntryId) -> Sighting {
        let ttl = self.view.ttl_ms().map_or(SIGHTING_LIFE.1, Duration::from_millis);
        let late = if self.extras.due.is_some() { Duration::from_millis(LATE_MS_MAX) } else { Duration::ZERO };
        let at = &entry.partition;
        Sighting {
            message,
            at_ms: self.view.timestamp,
            place: format!("{}.{}.{}", at.index, at.lane.as_str(), place),
            // It may have entered a little later than it says, and lives from then.
            life: ttl.max(late).saturating_add(SIGHTING_LIFE.0),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The message of a violation with the paths that failed.
fn with_paths(error: &Error) -> String {
    let paths = error.details.get("paths").and_then(Value::as_array);
    let paths: Vec<&str> = paths.into_iter().flatten().filter_map(|path| path["path"].as_str()).take(20).collect();
    if paths.is_empty() { error.message.clone() } else { format!("{} (at: {})", error.message, paths.join(", ")) }
}

/// By what is known: why each may not come in, and whether that may be for want of news.
fn judge_by(view: &View, entries: &[Entry], secured: bool, now_ms: u64) -> (Vec<Option<Refusal>>, bool) {
    let mut news = false;
    let mut verdict = |entry: &Entry| match Incoming::of(entry)? {
        Err(refusal) => Some(refusal),
        Ok(message) => match message.check(view, secured, now_ms) {
            Ok(()) => None,
            Err(No::Refused(refusal)) => Some(refusal),
            Err(No::PerhapsNews(refusal)) => {
                news = true;
                Some(refusal)
            }
        },
    };
    // A defect costs the message that met it, not all that are behind it.
    let guarded = |entry| {
        catch_unwind(AssertUnwindSafe(|| verdict(entry))).unwrap_or_else(|panic| {
            let error = Error::panicked(panic.as_ref());
            Some(refusal(DeadReason::Malformed, error.code, error.message))
        })
    };
    (entries.iter().map(guarded).collect(), news)
}

impl Shared {
    async fn judge(&self, entries: &Arc<Vec<Entry>>) -> Result<Vec<Option<Refusal>>> {
        let (secured, now_ms) = (self.settings.security_enabled, self.store.now_ms());
        let look = |view: &Arc<View>| {
            let (entries, view) = (entries.clone(), view.clone());
            // Hashes, signatures and schemas take time, as others want it: on a thread where nobody waits for it.
            aside(move || Ok(judge_by(&view, &entries, secured, now_ms)))
        };
        let view = self.directory.view();
        let (mut refusals, news) = look(&view).await?;
        if news {
            // Refused is for good: only by what is known now.
            let now = self.directory.refresh().await?;
            if !Arc::ptr_eq(&now, &view) {
                refusals = look(&now).await?.0;
            }
        }
        let incoming: Vec<Option<Result<Incoming<'_>, Refusal>>> = entries.iter().map(Incoming::of).collect();
        let messages = || incoming.iter().enumerate().filter_map(|(i, message)| Some((i, message.as_ref()?.as_ref().ok()?)));
        for (i, message) in messages().filter(|(_, message)| message.first != message.id) {
            if refusals[i].is_none() && !self.was_redriven(&entries[i].partition, message).await? {
                refusals[i] =
                    Some(replayed(format!("it says that it was first at {}, but no dead letter was redriven to its place", message.first)));
            }
        }
        let mut good: Vec<(usize, Sighting)> = Vec::new();
        for (i, message) in messages().filter(|(i, _)| refusals[*i].is_none()) {
            good.extend(message.sightings(&entries[i]).map(|sighting| (i, sighting)));
        }
        if !good.is_empty() {
            let places = self.store.first_sightings(good.iter().map(|(_, sighting)| sighting.clone()).collect()).await?;
            for ((i, sighting), place) in good.into_iter().zip(places) {
                if place != sighting.place {
                    let message = format!("the same message was found before, at {place}; this copy is at {}", sighting.place);
                    refusals[i] = Some(replayed(message));
                }
            }
        }
        Ok(refusals)
    }

    /// Whether the store put the entry there when a dead letter of its group was redriven.
    async fn was_redriven(&self, partition: &Partition, message: &Incoming<'_>) -> Result<bool> {
        let Some(group) = message.redriven_for else { return Ok(false) };
        let noted = self.store.noted(partition, &message.view.id).await?;
        Ok(noted.groups.iter().any(|(name, at_ms)| name == group && *at_ms == Some(message.id.ms)))
    }

    /// What is recorded of the end of a message.
    fn ending(&self, group: &str, settlement: &Settlement, message: &Message) -> Option<Record> {
        let note = &settlement.note;
        let in_group = |what: &str| format!("group '{group}': {what}");
        let (outcome, reason) = match (&settlement.disposal, &message.refusal) {
            (Disposal::Retry { .. } | Disposal::HandBack, _) => return None,
            (_, Some(refusal)) => {
                let outcome = match refusal.code {
                    Code::Signature => Outcome::Forged,
                    Code::Replay => Outcome::Replayed,
                    _ => Outcome::Invalid,
                };
                (outcome, format!("{}: {}", refusal.code.as_str(), refusal.message))
            }
            (Disposal::DeadLetter { reason, error, .. }, None) => (Outcome::Failed, in_group(&format!("{}: {error}", reason.as_str()))),
            (Disposal::Acknowledge, None) => match (&note.given_up, &note.error) {
                (Some(given_up), _) => (Outcome::Failed, in_group(&format!("{}: {}", given_up.0.as_str(), given_up.1))),
                (None, _) if note.expired => (Outcome::Failed, in_group("expired: its ttl was over before it was delivered")),
                (None, Some(error)) => (Outcome::Delivered, in_group(&format!("its failure was ignored: {error}"))),
                (None, None) => (Outcome::Delivered, format!("group '{group}'")),
            },
        };
        let (target, event_type) = name::address(&settlement.held.partition.event_type)?;
        let view = MetaView::read(message.text.meta.as_bytes()).ok();
        let latency_ms = view.as_ref().map(|view| {
            let due = serde_json::from_str::<Extras>(&message.text.meta).ok().and_then(|extras| extras.due).unwrap_or(view.timestamp);
            self.store.now_ms().saturating_sub(due)
        });
        Some(Record {
            source: view.as_ref().map(|view| view.source.chars().take(256).collect()).unwrap_or_default(),
            target: target.to_owned(),
            event_type: event_type.to_owned(),
            message_id: view.map(|view| view.id.chars().take(256).collect()),
            outcome,
            reason: Some(reason),
            latency_us: latency_ms.map(|ms| ms.saturating_mul(1000)),
            signer: None,
            again: false,
        })
    }
}

#[async_trait]
impl Gate for Shared {
    async fn admit(&self, entries: Vec<Entry>) -> Result<Vec<Entry>> {
        let entries = Arc::new(entries);
        let refusals = self.judge(&entries).await.map_err(|error| Error { retryable: true, ..error })?;
        let mut entries = Arc::unwrap_or_clone(entries);
        for (entry, refusal) in entries.iter_mut().zip(refusals) {
            entry.refusal = refusal.map(Box::new);
        }
        Ok(entries)
    }

    async fn record(&self, group: &str, endings: &[&Settlement]) -> Result<()> {
        let record = |settlement: &&Settlement| self.ending(group, settlement, settlement.note.message.as_ref()?);
        let records: Vec<Record> = endings.iter().filter_map(record).collect();
        match tokio::time::timeout(RECORD_PATIENCE, self.audit.record(self.named(records.clone()))).await {
            // Events are not held up by a log that is refused for good.
            Ok(Err(error)) if !error.retryable => self.warn_unrecorded(&error),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(())) => self.recorded(),
            // Nor for ever by one that cannot be written now: the records wait on.
            Err(_) => self.warn_unrecorded(&Error::new(Code::Timeout, "the server does not take them; they wait for it")),
        }
        self.tally(&records);
        Ok(())
    }

    fn gave_up(&self, message: GivenUp<'_>) {
        let Some((project, event_type)) = name::address(message.stream).filter(|(_, event_type)| *event_type != ERROR) else { return };
        let meta = &message.text.meta;
        let (Ok(view), Ok(extras)) = (MetaView::read(meta.as_bytes()), serde_json::from_str::<Extras>(meta)) else { return };
        let source = view.source.to_string();
        let signs = self.directory.view().project(project).is_some_and(|project| project.signs());
        if signs && self.held.signer(project).is_none() {
            tracing::debug!("'{source}' is not told that '{project}' gave up its message: the secret of '{project}' is not known here");
            return;
        }
        let data = json!({
            "error": message.error,
            "reason": message.reason.as_str(),
            "eventType": event_type,
            "messageId": view.id,
            "sourceProject": source,
            "targetProject": project,
            "group": message.group,
            "attempts": message.attempts,
            "timestamp": self.store.now_ms(),
        });
        let correlation = extras.correlation_id.unwrap_or_else(|| view.id.to_string());
        let address = json!({
            "source": project,
            "target": source,
            "own": true,
            "options": {
                "correlationId": correlation, "causationId": view.id,
                "idempotencyKey": short_name(&[b"error", view.id.as_bytes(), message.group.as_bytes()]),
            },
        });
        let stream = name::addressed(&source, ERROR);
        if self.answers.try_send(Answer { stream, data, address }).is_err() {
            tracing::warn!("'{source}' is not told that '{project}' gave up its message: too many wait");
        }
    }
}

#[cfg(test)]
mod tests;
