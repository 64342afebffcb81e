//! Answers to whoever asked: what handlers returned, posted before their events are acknowledged; and what else became of
//! an event, told once it is so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Actor, Done};
use crate::engine::ask::message::{self, Answer, Failed};
use crate::engine::ask::{Letters, post};
use crate::engine::consume::flush::Note;
use crate::engine::consume::{Reply, Verdict};
use crate::engine::error::Error;
use crate::engine::host::Token;
use crate::engine::settle::Failure;
use crate::engine::store::{DeadReason, Disposal};

/// How long a reply waits for the server before its delivery counts as failed.
const REPLY_PATIENCE: Duration = Duration::from_secs(5);
/// How long it is tried to tell what became of an event.
const ANNOUNCE_PATIENCE: Duration = Duration::from_secs(10);
/// Most messages on their way to inboxes, replies apart; their number is bounded by places.
const ANNOUNCEMENTS_MAX: usize = 10_000;

/// Replies that are posted, or not.
pub struct Replied {
    /// Their deliveries, and what came of posting.
    tokens: Vec<(Token, Option<Error>)>,
    confirm: u32,
}

/// What became of a settled event, to the inboxes that wait for it.
pub fn tell_who_asked(letters: &mut Letters, group: &Arc<str>, disposal: &Disposal, note: &Note) {
    let Some(asked) = &note.asked else { return };
    let failed = |error: &str, reason: Option<&str>| {
        Answer::Failed(Failed { error: error.to_owned(), reason: reason.map(ToOwned::to_owned), group: Some(group.to_string()) })
    };
    let gave_up = |reason: DeadReason, error: &str| {
        let failed = failed(error, Some(reason.as_str()));
        (Some(failed.clone()), Some(failed))
    };
    let (acknowledgement, reply) = match (disposal, note.given_up.as_deref()) {
        (Disposal::Retry { .. } | Disposal::HandBack, _) => return,
        (Disposal::DeadLetter { reason, error, .. }, _) | (Disposal::Acknowledge, Some((reason, error))) => gave_up(*reason, error),
        (Disposal::Acknowledge, None) if note.expired => gave_up(DeadReason::Expired, "its ttl was over before it was delivered"),
        // Its failure is ignored: it counts as done, but there is no answer.
        (Disposal::Acknowledge, None) => (Some(Answer::Acknowledged), note.error.as_ref().map(|error| failed(error, None))),
    };
    for (inbox, answer) in [(&asked.ack_to, acknowledgement), (&asked.reply_to, reply)] {
        if let (Some(inbox), Some(answer)) = (inbox, answer) {
            letters.entry(inbox.clone()).or_default().push(message::write(&asked.event_id, &answer));
        }
    }
}

impl Actor {
    /// Sends replies on their way; their deliveries are done once these are in the inboxes. Answers the other verdicts.
    pub(super) fn post_replies(&mut self, verdicts: Vec<(Token, Verdict)>, confirm: u32) -> Vec<(Token, Verdict)> {
        let mut letters = Letters::new();
        let mut waiting: BTreeMap<String, Vec<Token>> = BTreeMap::new();
        let mut others = Vec::with_capacity(verdicts.len());
        for (token, verdict) in verdicts {
            let Verdict::Replied(Reply { to, event_id, answer }) = verdict else {
                others.push((token, verdict));
                continue;
            };
            letters.entry(to.clone()).or_default().push(message::write(&event_id, &answer));
            waiting.entry(to).or_default().push(token);
        }
        if letters.is_empty() {
            return others;
        }
        // Open until these are settled, too.
        if confirm != 0 {
            self.confirms.expect(confirm);
        }
        self.posting += 1;
        let store = self.store.clone();
        self.work.push(Box::pin(async move {
            let posted = post(&store, letters, REPLY_PATIENCE).await;
            let error = |inbox: &String| posted.get(inbox).and_then(|result| result.as_ref().err()).cloned();
            let with_error = |(inbox, tokens): (String, Vec<Token>)| {
                let error = error(&inbox);
                tokens.into_iter().map(move |token| (token, error.clone()))
            };
            Done::Replied(Replied { tokens: waiting.into_iter().flat_map(with_error).collect(), confirm })
        }));
        others
    }

    /// What is answered is done. What could not be answered failed: it is tried again.
    pub(super) fn replied(&mut self, replied: Replied) {
        let Replied { tokens, confirm } = replied;
        self.posting -= 1;
        let verdict = |error: Option<Error>| match error {
            None => Verdict::Done,
            Some(error) => Verdict::Failed(Failure::Error(format!("its answer could not be sent: {}", error.message))),
        };
        let verdicts: Vec<_> = tokens.into_iter().map(|(token, error)| (token, verdict(error))).collect();
        self.verdicts(verdicts.into(), confirm);
        if confirm != 0 {
            self.confirmed.extend(self.confirms.settled(confirm, None));
        }
    }

    /// Tells what became of events. Whoever waits for an acknowledgement finds out, too, should this fail.
    pub(super) fn announce(&mut self, letters: Letters) {
        let count: usize = letters.values().map(Vec::len).sum();
        if count == 0 {
            return;
        }
        if self.posting + count > ANNOUNCEMENTS_MAX {
            tracing::warn!(
                "{count} of those who wait for what becomes of an event are not told: {ANNOUNCEMENTS_MAX} messages wait for Redis"
            );
            return;
        }
        self.posting += count;
        let store = self.store.clone();
        self.work.push(Box::pin(async move {
            for (inbox, result) in post(&store, letters, ANNOUNCE_PATIENCE).await {
                if let Err(error) = result {
                    tracing::debug!(%error, inbox, "what became of events could not be told");
                }
            }
            Done::Announced(count)
        }));
    }

    pub(super) fn announced(&mut self, messages: usize) {
        self.posting -= messages;
    }

    /// Why an event is given up that cannot become a dead letter.
    pub(super) fn given_up(&self, disposal: &Disposal) -> Option<Box<(DeadReason, String)>> {
        match disposal {
            Disposal::DeadLetter { reason, error, .. } if !self.settings.dead_letters => Some(Box::new((*reason, error.clone()))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::Asked;

    fn told(disposal: &Disposal, note: Note) -> Vec<(String, Answer)> {
        let asked = Asked { event_id: "e".into(), ack_to: Some("acks".into()), reply_to: Some("replies".into()) };
        let note = Note { asked: Some(Box::new(asked)), ..note };
        let mut letters = Letters::new();
        tell_who_asked(&mut letters, &"g".into(), disposal, &note);
        letters
            .into_iter()
            .flat_map(|(inbox, messages)| messages.into_iter().map(move |text| (inbox.clone(), message::read(&text).unwrap().1)))
            .collect()
    }

    fn failed(error: &str, reason: Option<&str>) -> Answer {
        Answer::Failed(Failed { error: error.into(), reason: reason.map(ToOwned::to_owned), group: Some("g".into()) })
    }

    fn both(answer: Answer) -> Vec<(String, Answer)> {
        vec![("acks".into(), answer.clone()), ("replies".into(), answer)]
    }

    #[test]
    fn a_success_is_told_to_who_waits_for_it_alone() {
        assert_eq!(told(&Disposal::Acknowledge, Note::default()), [("acks".into(), Answer::Acknowledged)]);
    }

    #[test]
    fn what_comes_again_is_not_told() {
        assert_eq!(told(&Disposal::HandBack, Note::default()), []);
        assert_eq!(told(&Disposal::Retry { delay_ms: 1, error: "x".into() }, Note::default()), []);
    }

    #[test]
    fn what_is_given_up_is_told_with_its_reason() {
        let dead = Disposal::DeadLetter { reason: DeadReason::Handler, error: "no".into(), attempts: 1 };
        assert_eq!(told(&dead, Note::default()), both(failed("no", Some("handler"))));
        let note = Note { given_up: Some(Box::new((DeadReason::MaxAttempts, "no".into()))), error: Some("no".into()), ..Note::default() };
        assert_eq!(told(&Disposal::Acknowledge, note), both(failed("no", Some("max-attempts"))));
        let note = Note { expired: true, ..Note::default() };
        assert_eq!(told(&Disposal::Acknowledge, note), both(failed("its ttl was over before it was delivered", Some("expired"))));
    }

    #[test]
    fn an_ignored_failure_is_an_acknowledgement_but_no_answer() {
        let note = Note { error: Some("boom".into()), ..Note::default() };
        let told = told(&Disposal::Acknowledge, note);
        assert_eq!(told, [("acks".into(), Answer::Acknowledged), ("replies".into(), failed("boom", None))]);
    }
}
