//! Out: who may send what to whom, what the data has to be like, and the signature. All of it before a message is stored.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use semver::VersionReq;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Shared;
use super::audit::{Entry, Outcome};
use super::contract::Named;
use super::directory::View;
use super::identity::{Signer, short_name};
use super::nesting;
use super::project::Project;
use crate::engine::error::{Code, Error, Result};
use crate::engine::event::{self, Extras, MessageMeta, NewMeta};
use crate::engine::host::Token;
use crate::engine::name;
use crate::engine::options::PublishOptions;
use crate::engine::publish::{Courier, Draft, Finished, OWN, Outgoing, Parcel, Prepared, Sent, too_large};
use crate::engine::store::{Appended, Idempotency, NewEvent, Partition};

/// `options` of `sendCrossProjectMessage`.
const OPTIONS: [&str; 10] =
    ["correlationId", "causationId", "priority", "ttl", "delayMs", "partitionKey", "idempotencyKey", "tags", "headers", "contractVersion"];
/// Most targets named in one call.
const TARGETS_MAX: usize = 1_000;

/// To whom a message goes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Target {
    One(String),
    List(Vec<String>),
}

/// See [`Outgoing::address`].
#[derive(Debug, Deserialize)]
struct Address {
    source: Value,
    target: Value,
    #[serde(default)]
    options: Map<String, Value>,
    /// Of data that was left out because it has too many.
    characters: Option<usize>,
    /// Told by the bus itself: an answer to a message that was given up. No rule for messages holds for it.
    #[serde(default)]
    own: bool,
}

/// A message that was read.
struct Letter {
    token: Token,
    source: String,
    target: Target,
    event_type: String,
    options: PublishOptions,
    version: Option<VersionReq>,
    data: String,
    /// Length of the data, bytes; of data that was left out, characters.
    data_len: usize,
    own: bool,
}

/// A message that may be sent, but for its rate.
struct Cleared {
    letter: Letter,
    source: Arc<Project>,
    signer: Option<Arc<Signer>>,
    copies: Vec<Addressed>,
}

/// One target of a message.
struct Addressed {
    target: Arc<Project>,
    contracts: Vec<Named>,
    route: Option<String>,
}

/// Why a message is not sent, and as whose refusal that is recorded.
struct Refused {
    token: Token,
    error: Error,
    entry: Option<Entry>,
}

impl Target {
    fn read(value: Value) -> Result<Self> {
        match serde_json::from_value(value) {
            Ok(Self::List(list)) if list.is_empty() => {
                Err(Error::argument("target", "is an empty list; name at least one project, or '*' for all"))
            }
            Ok(Self::List(list)) if list.len() > TARGETS_MAX => {
                Err(Error::argument("target", format!("has more than {TARGETS_MAX} projects")))
            }
            Ok(target) => Ok(target),
            Err(_) => Err(Error::argument("target", "must be a project id, a list of them, or '*' for all that the source may reach")),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::One(target) => shortened(target),
            Self::List(list) => shortened(&list.join(",")),
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(256).collect()
}

fn denied(message: String) -> Error {
    Error::new(Code::NotPermitted, message)
}

fn unknown(role: &str, project: &str) -> Error {
    let project = shortened(project);
    let message = format!("the {role} '{project}' is not registered: call registerProject() in one of its processes first");
    Error::new(Code::ProjectUnknown, message).with("projectId", project)
}

/// As what a refusal is recorded.
fn outcome_of(error: &Error) -> Option<Outcome> {
    match error.code {
        Code::ProjectUnknown | Code::NotPermitted => Some(Outcome::Denied),
        Code::RateLimited => Some(Outcome::RateLimited),
        Code::ContractViolation | Code::PayloadTooLarge | Code::InvalidArgument => Some(Outcome::Invalid),
        // The store was away: nothing was refused.
        _ => None,
    }
}

impl Shared {
    fn read_letter(message: Outgoing) -> Result<Letter, Box<Refused>> {
        let Outgoing { token, event_type, address, data } = message;
        let refuse = |error, source: &str, target: &str| {
            let entry = entry(source, target, &event_type, &error);
            Box::new(Refused { token, error, entry })
        };
        let address: Address = serde_json::from_str(&address)
            .map_err(|error| refuse(Error::argument("options", format!("cannot be read: {error}")), "", ""))?;
        let Value::String(source) = address.source else {
            return Err(refuse(Error::argument("source", "must be a project id"), "", ""));
        };
        let target = Target::read(address.target).map_err(|error| refuse(error, &source, ""))?;
        let read = || {
            name::check_event_type(&event_type)?;
            read_options(address.options)
        };
        let (options, version) = read().map_err(|error| refuse(error, &source, &target.shown()))?;
        let data_len = address.characters.unwrap_or(data.len());
        Ok(Letter { token, source, target, event_type, options, version, data, data_len, own: address.own && token == OWN })
    }

    /// Whether the message may be sent: by its source, in its size, to its targets, with its data.
    fn clear(&self, view: &View, letter: Letter, notes: &mut Vec<Entry>) -> Result<Cleared, Box<(Letter, Error)>> {
        match self.look_at(view, &letter, notes) {
            Ok((source, signer, copies)) => Ok(Cleared { letter, source, signer, copies }),
            Err(error) => Err(Box::new((letter, error))),
        }
    }

    #[allow(clippy::type_complexity)] // the parts of `Cleared` but for the letter
    fn look_at(&self, view: &View, letter: &Letter, notes: &mut Vec<Entry>) -> Result<(Arc<Project>, Option<Arc<Signer>>, Vec<Addressed>)> {
        let source = view.project(&letter.source).ok_or_else(|| unknown("source", &letter.source))?;
        let signer = self.signer_of(source)?;
        if !letter.own && !source.may_send(&letter.event_type) {
            let message = format!(
                "the project '{}' may not send '{}': its allowedEventTypes are {:?}",
                letter.source, letter.event_type, source.allowed_event_types
            );
            return Err(denied(message).with("projectId", letter.source.as_str()).with("eventType", letter.event_type.as_str()));
        }
        let limit = self.settings.payload_bytes_max;
        if letter.data_len > limit {
            return Err(too_large(&letter.event_type, letter.data_len, limit));
        }
        nesting::check(&letter.data)?;
        let direct = targets(view, source, letter)?;
        let mut copies = Vec::with_capacity(direct.len());
        // Parsed once, and only where a contract or a route asks for it.
        let mut parsed = None;
        for target in direct {
            let contracts = if letter.own { Vec::new() } else { check_contracts(view, letter, &target.project_id, &mut parsed)? };
            copies.push(Addressed { target, contracts, route: None });
        }
        if !letter.own {
            route(view, source, letter, &mut parsed, &mut copies, notes);
        }
        for copy in &copies {
            name::check_addressed(&copy.target.project_id, &letter.event_type)?;
        }
        Ok((source.clone(), signer.filter(|_| self.settings.security_enabled), copies))
    }

    /// What signs for the project in this process. `ERR_NOT_PERMITTED` where it has a key that is not here.
    fn signer_of(&self, source: &Project) -> Result<Option<Arc<Signer>>> {
        let Some(present) = source.keys.last() else { return Ok(None) };
        let id = source.project_id.as_str();
        let why = match self.held.signer(id) {
            Some(signer) if signer.public_key().to_text() == present.public => return Ok(Some(signer)),
            Some(_) => "its secret was changed: register it with the new one",
            None => "it was not registered with its secret in this process: call registerProject() with its credentials",
        };
        Err(denied(format!("messages cannot be sent as '{id}': {why}")).with("projectId", id))
    }

    /// Takes a place in its source's rate for each message.
    async fn within_rates(&self, cleared: Vec<Cleared>) -> Vec<Result<Cleared, Box<(Letter, Error)>>> {
        if !self.settings.rate_limiting_enabled {
            return cleared.into_iter().map(Ok).collect();
        }
        let mut wanted: BTreeMap<&str, (&Project, u32)> = BTreeMap::new();
        for message in cleared.iter().filter(|message| message.source.rate_limiting.is_some() && !message.letter.own) {
            wanted.entry(&message.source.project_id).or_insert((&message.source, 0)).1 += 1;
        }
        let asked = wanted.into_iter().map(|(id, (project, count))| async move {
            let limits = project.rate_limiting?;
            Some((id.to_owned(), limits, self.store.take_places(id, limits.into(), count).await))
        });
        let taken = join_all(asked).await.into_iter().flatten();
        let mut left: BTreeMap<String, _> = taken.map(|(id, limits, result)| (id, (limits, result))).collect();
        let judge = |message: Cleared| {
            let Some((limits, taken)) = left.get_mut(&message.source.project_id).filter(|_| !message.letter.own) else {
                return Ok(message);
            };
            match taken {
                Ok(taken) if taken.granted > 0 => {
                    taken.granted -= 1;
                    Ok(message)
                }
                Ok(taken) => {
                    let id = &message.source.project_id;
                    let text = format!(
                        "the project '{id}' has sent as much as it may: {} messages a second, {} at once, over all its processes; try again in {} ms",
                        limits.events_per_second, limits.burst_limit, taken.retry_after_ms
                    );
                    let error =
                        Error::new(Code::RateLimited, text).with("projectId", id.as_str()).with("retryAfterMs", taken.retry_after_ms);
                    Err(Box::new((message.letter, error)))
                }
                Err(error) => Err(Box::new((message.letter, error.clone()))),
            }
        };
        cleared.into_iter().map(judge).collect()
    }

    fn parcel(&self, cleared: Cleared) -> Parcel {
        let Cleared { letter, source, signer, copies } = cleared;
        let id: Arc<str> = self.env.new_id().into();
        // The server's time: receivers hold it against the time of the entry.
        let now_ms = self.store.now_ms();
        let options = &letter.options;
        let delay_ms = options.delay_ms.filter(|ms| *ms > 0);
        let draft = |copy: Addressed| {
            let stream = name::addressed(&copy.target.project_id, &letter.event_type);
            let contracts = copy.contracts.iter().map(ToString::to_string).collect();
            let extras = Extras {
                target: Some(copy.target.project_id.clone()),
                due: delay_ms.map(|delay| now_ms.saturating_add(delay)),
                message: Some(MessageMeta {
                    from: source.namespace.clone(),
                    to: copy.target.namespace.clone(),
                    contracts,
                    route: copy.route,
                    key_id: signer.as_ref().map(|signer| signer.key_id().to_owned()),
                }),
                ..options.extras.clone()
            };
            let version = copy.contracts.first().map_or(Cow::Borrowed("1.0.0"), |named| named.version.to_string().into());
            let priority = options.priority.unwrap_or(self.settings.priority);
            let meta = NewMeta {
                id: &id,
                timestamp_ms: now_ms,
                source: &source.project_id,
                version: &version,
                priority,
                ttl: options.ttl.unwrap_or(self.settings.ttl_s),
                ttl_given: options.ttl.is_some(),
                extras: Some(&extras),
            };
            let mut text = event::pack(&meta);
            if let Some(signer) = &signer {
                let signature = signer.sign_message(&stream, &text[..text.len() - 1], letter.data.as_bytes());
                text = event::with_signature(&text, &signature);
            }
            let event = NewEvent {
                partition: Partition::new(stream, 0),
                id: id.clone(),
                ttl_ms: event::seconds_to_ms(meta.ttl),
                meta: text,
                data: letter.data.clone(),
                delay_ms,
                // Of each project apart: what one has sent is no repetition of what another sends.
                idempotency: options.idempotency.as_ref().map(|idempotency| Idempotency {
                    key: short_name(&[source.project_id.as_bytes(), idempotency.key.as_bytes()]),
                    ..idempotency.clone()
                }),
                length_max: self.settings.length_max,
                cancelled: None,
                entry: None,
            };
            Draft { token: letter.token, event, key: options.extras.partition_key.clone(), lane: priority, asks: false, copy: None }
        };
        Parcel { copies: copies.into_iter().map(draft).collect(), source: source.project_id.as_str().into() }
    }

    async fn prepare_all(self: Arc<Self>, messages: Vec<Outgoing>) -> Prepared {
        let mut parcels = Vec::with_capacity(messages.len());
        let (mut refused, mut letters): (Vec<Refused>, Vec<Letter>) = (Vec::new(), Vec::new());
        for message in messages {
            match Self::read_letter(message) {
                Ok(letter) => letters.push(letter),
                Err(error) => refused.push(*error),
            }
        }
        let mut notes = Vec::new();
        let view = self.directory.view();
        let mut looked: Vec<_> = letters.into_iter().map(|letter| self.clear(&view, letter, &mut notes)).collect();
        // What was registered elsewhere a moment ago need not be known here.
        let may_be_news = |code| matches!(code, Code::ProjectUnknown | Code::NotPermitted | Code::ContractViolation);
        if looked.iter().any(|result| result.as_ref().is_err_and(|refused| may_be_news(refused.1.code))) {
            let now = self.directory.refresh().await;
            let again = |result: Result<Cleared, Box<(Letter, Error)>>| match (result, &now) {
                (Err(refused), Ok(now)) if may_be_news(refused.1.code) && !Arc::ptr_eq(now, &view) => {
                    self.clear(now, refused.0, &mut notes)
                }
                // Whether it may be sent is not known: refused is for good.
                (Err(refused), Err(error)) if may_be_news(refused.1.code) => Err(Box::new((refused.0, error.clone()))),
                (result, _) => result,
            };
            looked = looked.into_iter().map(again).collect();
        }
        let mut cleared = Vec::with_capacity(looked.len());
        for result in looked {
            match result {
                Ok(message) => cleared.push(message),
                Err(one) => refused.push(refusal(&one.0, one.1)),
            }
        }
        for result in self.within_rates(cleared).await {
            match result {
                Ok(message) => parcels.push((message.letter.token, self.parcel(message))),
                Err(one) => refused.push(refusal(&one.0, one.1)),
            }
        }
        notes.extend(refused.iter().filter_map(|refused| refused.entry.clone()));
        let refused = async move {
            self.record_in_time(notes).await;
            refused.into_iter().map(|refused| (refused.token, Err(refused.error))).collect()
        };
        Prepared { parcels, refused: Box::pin(refused) }
    }

    /// Records, and waits for it as long as for any command: what was sent is sent, what was refused is refused.
    async fn record_in_time(&self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let entries = self.counted(entries);
        if let Ok(Err(error)) = tokio::time::timeout(self.settings.patience, self.audit.record(entries)).await {
            self.warn_unrecorded(&error);
        }
    }

    async fn note_sent(&self, sent: Vec<Sent>) -> Finished {
        let mut entries = Vec::new();
        let mut answers = Finished::with_capacity(sent.len());
        for Sent { token, source, copies } in sent {
            // Records are signed also where messages are not.
            let signer = self.held.signer(&source);
            let mut results = Vec::with_capacity(copies.len());
            for posted in copies {
                let (target, event_type) = name::address(&posted.stream).unwrap_or_default();
                let is_away = |error: &Error| matches!(error.code, Code::Connection | Code::Timeout | Code::Closed);
                if posted.result.as_ref().is_err_and(is_away) {
                    // Nothing was refused, and nothing can be recorded.
                    results.push((target.to_owned(), posted.result.map(|_| String::new())));
                    continue;
                }
                let (id, outcome, reason) = match &posted.result {
                    Ok(Appended::Stored) => (posted.id.to_string(), Outcome::Sent, None),
                    Ok(Appended::Duplicate(first)) => (first.clone(), Outcome::Sent, Some("its idempotencyKey was known".to_owned())),
                    Err(error) => (posted.id.to_string(), Outcome::Failed, Some(error.to_string())),
                };
                entries.push(Entry {
                    source: source.to_string(),
                    target: target.to_owned(),
                    event_type: event_type.to_owned(),
                    message_id: Some(id.clone()),
                    outcome,
                    again: matches!(posted.result, Ok(Appended::Duplicate(_))),
                    reason,
                    latency_us: None,
                    signer: signer.clone(),
                });
                results.push((target.to_owned(), posted.result.map(|_| id)));
            }
            answers.push((token, answer(results)));
        }
        self.record_in_time(entries).await;
        answers
    }
}

impl Courier for Shared {
    fn prepare(self: Arc<Self>, messages: Vec<Outgoing>) -> BoxFuture<'static, Prepared> {
        Box::pin(self.prepare_all(messages))
    }

    fn sent(self: Arc<Self>, sent: Vec<Sent>) -> BoxFuture<'static, Finished> {
        Box::pin(async move { self.note_sent(sent).await })
    }
}

fn read_options(mut options: Map<String, Value>) -> Result<(PublishOptions, Option<VersionReq>)> {
    if let Some(key) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        let shown = shortened(key);
        return Err(Error::argument(
            &format!("options.{shown}"),
            format!("is not an option of a message between projects; known are {}", OPTIONS.join(", ")),
        ));
    }
    let version = match options.remove("contractVersion") {
        None => None,
        Some(Value::String(text)) if VersionReq::parse(&text).is_ok() => VersionReq::parse(&text).ok(),
        Some(_) => return Err(Error::argument("options.contractVersion", "must be a semver version or range, as '^1.2.0'")),
    };
    Ok((PublishOptions::read(&Value::Object(options).to_string())?, version))
}

/// The projects that it is sent to, each once.
fn targets(view: &View, source: &Project, letter: &Letter) -> Result<Vec<Arc<Project>>> {
    let one = |target: &String| {
        let project = view.project(target).ok_or_else(|| unknown("target", target))?;
        if !letter.own && !source.may_reach(target) {
            let message =
                format!("the project '{}' may not send to '{target}': its allowedTargets are {:?}", letter.source, source.allowed_targets);
            return Err(denied(message).with("projectId", letter.source.as_str()).with("target", target.as_str()));
        }
        Ok(project.clone())
    };
    match &letter.target {
        Target::One(all) if all == "*" => {
            let reached: Vec<_> = reachable(view, source).collect();
            if reached.is_empty() {
                let message = format!("there is no project that '{}' may reach: none of its allowedTargets is registered", letter.source);
                return Err(denied(message).with("projectId", letter.source.as_str()).with("target", "*"));
            }
            Ok(reached)
        }
        Target::One(target) => Ok(vec![one(target)?]),
        Target::List(list) => {
            let mut all: Vec<Arc<Project>> = Vec::with_capacity(list.len());
            for target in list {
                let project = one(target)?;
                if !all.iter().any(|other| other.project_id == project.project_id) {
                    all.push(project);
                }
            }
            Ok(all)
        }
    }
}

/// All other projects that the source may send to.
fn reachable<'a>(view: &'a View, source: &'a Project) -> impl Iterator<Item = Arc<Project>> + 'a {
    view.projects().filter(|project| project.project_id != source.project_id && source.may_reach(&project.project_id)).cloned()
}

/// The contracts that the data fulfils. `ERR_CONTRACT_VIOLATION` names every path that does not.
fn check_contracts(view: &View, letter: &Letter, target: &str, parsed: &mut Option<Value>) -> Result<Vec<Named>> {
    if !view.contracts().applies_any(&letter.source, target, &letter.event_type) {
        return match &letter.version {
            None => Ok(Vec::new()),
            Some(version) => {
                let message = format!(
                    "options.contractVersion asks for {version}, but there is no contract for '{}' from '{}' to '{target}'",
                    letter.event_type, letter.source
                );
                Err(Error::new(Code::ContractViolation, message))
            }
        };
    }
    let data = parse(&letter.data, parsed)?;
    view.contracts().check_outgoing(&letter.source, target, &letter.event_type, data, letter.version.as_ref())
}

fn parse<'a>(text: &str, parsed: &'a mut Option<Value>) -> Result<&'a Value> {
    if parsed.is_none() {
        *parsed = Some(nesting::parse(text)?);
    }
    parsed.as_ref().ok_or_else(|| Error::internal("data that was parsed is gone"))
}

/// Adds the targets of the routes that take the message. What a route brings is not routed again, and no route lets a project
/// reach one that it may not.
fn route(view: &View, source: &Project, letter: &Letter, parsed: &mut Option<Value>, copies: &mut Vec<Addressed>, notes: &mut Vec<Entry>) {
    let no_tags = Vec::new();
    let tags = letter.options.extras.tags.as_ref().unwrap_or(&no_tags);
    for route in view.routes() {
        if !route.takes(&letter.source, &letter.event_type, tags, || parse(&letter.data, parsed).ok()) {
            continue;
        }
        let mut deny = |target: &str, error: Error| {
            let error = Error { message: format!("by the route '{}': {}", route.name, error.message), ..error };
            notes.extend(entry(&letter.source, target, &letter.event_type, &error));
        };
        let mut found: Vec<Arc<Project>> = Vec::new();
        for target in &route.targets {
            if target == "*" {
                found.extend(reachable(view, source));
            } else {
                match view.project(target) {
                    None => deny(target, unknown("target", target)),
                    Some(_) if !source.may_reach(target) => deny(target, denied(format!("'{}' may not send to '{target}'", letter.source))),
                    Some(project) => found.push(project.clone()),
                }
            }
        }
        for target in found {
            if copies.iter().any(|copy| copy.target.project_id == target.project_id) {
                continue;
            }
            match check_contracts(view, letter, &target.project_id, parsed) {
                Ok(contracts) => copies.push(Addressed { target, contracts, route: Some(route.name.clone()) }),
                Err(error) => deny(&target.project_id, error),
            }
        }
    }
}

fn refusal(letter: &Letter, error: Error) -> Refused {
    // What the bus says itself is nobody's message.
    let entry = if letter.own { None } else { entry(&letter.source, &letter.target.shown(), &letter.event_type, &error) };
    Refused { token: letter.token, entry, error }
}

/// The record of a refusal.
fn entry(source: &str, target: &str, event_type: &str, error: &Error) -> Option<Entry> {
    (!source.is_empty()).then_some(())?;
    Some(Entry {
        source: shortened(source),
        target: shortened(target),
        event_type: shortened(event_type),
        message_id: None,
        outcome: outcome_of(error)?,
        reason: Some(error.to_string()),
        latency_us: None,
        signer: None,
        again: false,
    })
}

/// The message's id, or what went wrong with its copies.
fn answer(mut results: Vec<(String, Result<String>)>) -> Result<String> {
    if results.len() == 1 {
        return results.pop().map_or_else(|| Err(Error::internal("a message without a copy")), |(_, result)| result);
    }
    let failed: Vec<&Error> = results.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    let Some(first) = failed.first() else {
        return results.into_iter().next().map_or_else(|| Err(Error::internal("a message without a copy")), |(_, result)| result);
    };
    let message = format!("the message did not reach {} of its {} targets: {}", failed.len(), results.len(), first.message);
    let mut error = Error::new(first.code, message);
    error.retryable = failed.iter().all(|error| error.retryable);
    let told = results.iter().map(|(target, result)| match result {
        Ok(id) => serde_json::json!({ "target": target, "id": id }),
        Err(error) => serde_json::json!({ "target": target, "error": error.to_json() }),
    });
    let told: Vec<Value> = told.collect();
    Err(error.with("results", told))
}

#[cfg(test)]
mod tests;
