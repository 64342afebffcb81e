//! Out: messages that may be sent take a place in the rate of their source, are signed, and go to the publisher; and what was sent
//! or refused is recorded.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use serde_json::Value;
use tokio::time::Instant;

use super::Shared;
use super::aside::aside;
use super::audit::{Entry, Outcome};
use super::clearing::{Addressed, Cleared};
use super::directory::View;
use super::identity::short_name;
use super::letter::{Letter, Refused, refusal};
use super::project::Project;
use crate::engine::error::{Code, Error, Result};
use crate::engine::event::{self, Extras, MessageMeta, NewMeta};
use crate::engine::host::Token;
use crate::engine::name;
use crate::engine::publish::{Courier, Draft, Finished, Outgoing, Parcel, Prepared, Sent};
use crate::engine::store::{Appended, Idempotency, NewEvent, Partition};
use crate::engine::trace::{self, About, Beside, Open};

/// A message, or why it may not be sent.
type Looked = Result<Cleared, Box<(Letter, Error)>>;

impl Shared {
    /// Takes a place in its source's rate for each message.
    async fn within_rates(&self, cleared: Vec<Cleared>) -> Vec<Looked> {
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

    /// The span of one copy of a message: those of all copies stand beside each other.
    fn begin_span(&self, letter: &Letter, id: &Arc<str>, stream: &str, first: &mut Option<Beside>) -> Option<Open> {
        let about = || About {
            partition: Some(Partition::new(stream, 0)),
            message_id: Some(id.clone()),
            body_bytes: Some(letter.data.len()),
            correlation_id: letter.options.extras.correlation_id.as_deref().map(Into::into),
            ..About::default()
        };
        let span = match first {
            None => self.tracer.publish(letter.options.extras.headers.as_ref(), id, letter.own, about),
            Some(first) => self.tracer.publish_beside(first, about),
        };
        first.get_or_insert(span.as_ref().map_or(Beside::Nothing, Open::beside));
        span
    }

    fn parcel(&self, cleared: Cleared) -> Parcel {
        let Cleared { letter, source, signer, copies } = cleared;
        let id: Arc<str> = self.env.new_id();
        // The server's time: receivers hold it against the time of the entry.
        let now_ms = self.store.now_ms();
        let options = &letter.options;
        let delay_ms = options.delay_ms.filter(|ms| *ms > 0);
        let mut first = None;
        let draft = |copy: Addressed| {
            let stream = name::addressed(&copy.target.project_id, &letter.event_type);
            let span = self.begin_span(&letter, &id, &stream, &mut first);
            let headers = options.extras.headers.clone();
            // Signed with the rest: it has to be there before.
            let headers = if let Some(span) = &span { trace::with_header(headers, span) } else { headers };
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
                headers,
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
                data: letter.data.clone().into(),
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
            let key = options.extras.partition_key.clone();
            Draft { key, span, ..Draft::new(letter.token, event, priority, Instant::now()) }
        };
        Parcel { copies: copies.into_iter().map(draft).collect(), source: source.project_id.as_str().into() }
    }

    async fn prepare_all(self: Arc<Self>, messages: Vec<Outgoing>) -> Result<Prepared> {
        let (mut refused, mut letters): (Vec<Refused>, Vec<Letter>) = (Vec::new(), Vec::new());
        for (place, message) in messages.into_iter().enumerate() {
            match Letter::read(message, place) {
                Ok(letter) => letters.push(letter),
                Err(error) => refused.push(*error),
            }
        }
        let view = self.directory.view();
        let (mut looked, mut notes) = self.clone().clear_all(view.clone(), letters).await?;
        // What was registered elsewhere a moment ago need not be known here.
        let may_be_news = |code| matches!(code, Code::ProjectUnknown | Code::NotPermitted | Code::ContractViolation);
        if looked.iter().any(|result| result.as_ref().is_err_and(|refused| may_be_news(refused.1.code))) {
            let is_doubtful = |result: &Looked| result.as_ref().is_err_and(|refused| may_be_news(refused.1.code));
            match self.directory.refresh().await {
                Ok(now) if !Arc::ptr_eq(&now, &view) => {
                    let doubtful = looked.extract_if(.., |result| is_doubtful(result)).filter_map(|result| Some(result.err()?.0)).collect();
                    let (again, more) = self.clone().clear_all(now, doubtful).await?;
                    looked.extend(again);
                    notes.extend(more);
                }
                Ok(_) => {}
                // Whether they may be sent is not known: refused is for good.
                Err(error) => {
                    for refused in looked.iter_mut().filter(|result| is_doubtful(result)).filter_map(|result| result.as_mut().err()) {
                        refused.1 = error.clone();
                    }
                }
            }
        }
        let mut cleared = Vec::with_capacity(looked.len());
        for result in looked {
            match result {
                Ok(message) => cleared.push(message),
                Err(one) => refused.push(refusal(&one.0, one.1)),
            }
        }
        // As they were given: some may have been looked at twice.
        cleared.sort_by_key(|message| message.letter.place);
        let mut taken = Vec::with_capacity(cleared.len());
        for result in self.within_rates(cleared).await {
            match result {
                Ok(message) => taken.push(message),
                Err(one) => refused.push(refusal(&one.0, one.1)),
            }
        }
        let signing = self.clone();
        let sign = move || Ok(taken.into_iter().map(|message| (message.letter.token, signing.parcel(message))).collect());
        let parcels = aside(sign).await?;
        notes.extend(refused.iter().filter_map(|refused| refused.entry.clone()));
        let refused = async move {
            self.record_in_time(notes).await;
            refused.into_iter().map(|refused| (refused.token, Err(refused.error))).collect()
        };
        Ok(Prepared { parcels, refused: Box::pin(refused) })
    }

    /// Whether each may be sent, by what is known.
    async fn clear_all(self: Arc<Self>, view: Arc<View>, letters: Vec<Letter>) -> Result<(Vec<Looked>, Vec<Entry>)> {
        aside(move || {
            let mut notes = Vec::new();
            Ok((letters.into_iter().map(|letter| self.clear(&view, letter, &mut notes)).collect(), notes))
        })
        .await
    }

    /// Records, and waits for it as long as for any command: what was sent is sent, what was refused is refused.
    async fn record_in_time(&self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        self.tally(&entries);
        let entries = self.named(entries);
        match tokio::time::timeout(self.settings.patience, self.audit.record(entries)).await {
            Ok(Ok(())) => self.recorded(),
            Ok(Err(error)) => self.warn_unrecorded(&error),
            // It waits on.
            Err(_) => {}
        }
    }

    async fn note_sent(&self, sent: Vec<Sent>) -> Finished {
        let mut entries = Vec::new();
        let mut answers = Finished::with_capacity(sent.len());
        for Sent { token, source, copies } in sent {
            // Records are signed also where messages are not.
            let signer = self.held.signer_of_records(&source);
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
            answers.push((token, answer(results).map(Into::into)));
        }
        self.record_in_time(entries).await;
        answers
    }
}

impl Courier for Shared {
    fn prepare(self: Arc<Self>, messages: Vec<Outgoing>) -> BoxFuture<'static, Prepared> {
        let tokens: Vec<Token> = messages.iter().map(|message| message.token).collect();
        Box::pin(async move { self.prepare_all(messages).await.unwrap_or_else(|error| Prepared::none(tokens, &error)) })
    }

    fn sent(self: Arc<Self>, sent: Vec<Sent>) -> BoxFuture<'static, Finished> {
        Box::pin(async move { self.note_sent(sent).await })
    }
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
