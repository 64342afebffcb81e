//! What the store says of settlements, told to whoever listens.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Actor;
use super::asked::tell_who_asked;
use crate::engine::ask::Letters;
use crate::engine::consume::flush::{Ended, Flushed, Note, Settlement};
use crate::engine::consume::gate::GivenUp;
use crate::engine::consume::group::GroupName;
use crate::engine::host::{Kind, Lifecycle};
use crate::engine::journal::End;
use crate::engine::store::{Disposal, Held, Settled};

fn milliseconds(took: Option<Duration>) -> f64 {
    took.unwrap_or_default().as_secs_f64() * 1000.0
}

/// What went wrong with it.
fn why<'a>(disposal: &'a Disposal, note: &'a Note) -> Option<&'a str> {
    let of_store = match disposal {
        Disposal::DeadLetter { error, .. } => Some(error.as_str()),
        _ => note.given_up.as_deref().map(|(_, error)| error.as_str()),
    };
    note.error.as_deref().or(of_store)
}

impl Actor {
    pub(super) fn flushed(&mut self, flushed: Flushed) {
        let group = flushed.lane.group.clone();
        let is_current = flushed.lane.consumer == self.consumer;
        let failed = flushed.result.is_err();
        let plain = GroupName::new(group.clone(), false);
        let compared = self.groups.get(&plain).filter(|_| is_current && self.takes());
        let Ended { settled, results, refused } =
            self.flusher.finish(flushed, |held| compared.is_some_and(|group| group.partitions.contains_key(&held.partition)));
        if failed
            && refused.is_none()
            && !settled.is_empty()
            && let Some(group) = self.groups.get_mut(&plain)
        {
            // Whether they were handed back is seen in the store.
            group.doubt();
        }
        if let Some(error) = &refused {
            self.said.push(Lifecycle::error(error));
        }
        let metrics = self.counters.metrics.clone();
        let mut settling = metrics.settling();
        let mut letters = Letters::new();
        let ordered = GroupName::new(group.clone(), true);
        // What was taken under another name is known to no line.
        let in_order = is_current && self.groups.contains_key(&ordered);
        for (settlement, result) in settled.into_iter().zip(results) {
            let Settlement { held, disposal, note } = settlement;
            // While another handler has it, it still runs: what stands behind it waits for that handler.
            if in_order && !(note.late && self.has(&ordered, &held)) {
                self.settled_in_order(&ordered, &held.partition, held.id, &disposal, result);
            }
            self.confirmed.extend(note.confirmations.iter().filter_map(|confirm| self.confirms.settled(*confirm, refused.as_ref())));
            if !note.quiet {
                let end = End {
                    disposal: &disposal,
                    settled: result,
                    refused: refused.as_ref().map(|error| error.message.as_str()),
                    error: note.error.as_deref(),
                    duration_ms: milliseconds(note.took),
                    expired: note.expired,
                };
                self.said.extend(self.settings.journal.ended(&note.event_id, &group, &held, &end));
            }
            if result == Settled::Done && !note.quiet {
                let counts = !note.expired && !matches!(disposal, Disposal::HandBack);
                let success = disposal == Disposal::Acknowledge && note.error.is_none() && note.given_up.is_none();
                if counts && success {
                    settling.consumed(&held.partition.event_type, note.took);
                } else if counts {
                    let retried = matches!(disposal, Disposal::Retry { .. });
                    settling.failed(&held.partition.event_type, note.took, why(&disposal, &note), retried);
                }
                self.say(&group, &held, &disposal, &note);
                tell_who_asked(&mut letters, &group, &disposal, &note);
                self.tell_source(&group, &held, &disposal, &note);
            }
        }
        self.announce(letters);
    }

    /// Who sent a message to a project hears when its handlers gave it up.
    fn tell_source(&self, group: &Arc<str>, held: &Held, disposal: &Disposal, note: &Note) {
        let (Some(gate), Some(message)) = (&self.gate, &note.message) else { return };
        let (reason, error) = match (disposal, note.given_up.as_deref()) {
            (Disposal::DeadLetter { reason, error, .. }, _) | (Disposal::Acknowledge, Some((reason, error))) => (*reason, error.as_str()),
            _ => return,
        };
        if message.refusal.is_none() && !note.expired {
            let stream = &*held.partition.event_type;
            gate.gave_up(GivenUp { stream, group, text: &message.text, reason, error, attempts: held.deliveries });
        }
    }

    /// Lifecycle events of one settled entry. What is said is made only for who listens.
    pub(super) fn say(&mut self, group: &Arc<str>, held: &Held, disposal: &Disposal, note: &Note) {
        let (host, said) = (&self.host, &mut self.said);
        let mut say = |kind: Kind, extra: &dyn Fn() -> serde_json::Value| {
            if host.listens(kind) {
                let mut about = json!({
                    "eventType": &*held.partition.event_type, "eventId": *note.event_id, "group": &**group, "attempt": held.deliveries,
                    "streamId": held.id.to_string(),
                });
                if let (Some(about), serde_json::Value::Object(extra)) = (about.as_object_mut(), extra()) {
                    about.extend(extra);
                }
                said.push(Lifecycle(kind, about));
            }
        };
        if note.expired {
            self.counters.metrics.add_expired(&held.partition.event_type);
            say(Kind::Expired, &|| json!({ "deadLettered": matches!(disposal, Disposal::DeadLetter { .. }) }));
        } else if let Some(error) = &note.error {
            say(Kind::Failed, &|| json!({ "error": error, "durationMs": milliseconds(note.took) }));
        }
        match disposal {
            Disposal::Acknowledge if note.error.is_none() && note.given_up.is_none() && !note.expired => {
                say(Kind::Consumed, &|| json!({ "durationMs": milliseconds(note.took) }));
            }
            Disposal::Retry { delay_ms, error } => say(Kind::Retried, &|| json!({ "delayMs": delay_ms, "error": error })),
            Disposal::DeadLetter { reason, error, .. } => {
                self.counters.metrics.add_dead_letter(&held.partition.event_type, *reason);
                say(Kind::DeadLettered, &|| json!({ "reason": reason.as_str(), "error": error }));
            }
            _ => {}
        }
    }
}
