//! What the verdicts of handlers do.

use std::time::Duration;

use tokio::time::Instant;

use super::intake::message;
use super::{Actor, release, traced};
use crate::engine::consume::flush::Note;
use crate::engine::consume::held::{Failed, InFlight, Key, Late, Overdue, Redeemed};
use crate::engine::consume::{Verdict, Verdicts};
use crate::engine::host::Token;
use crate::engine::settle::{self, Case, Failure};
use crate::engine::store::{Disposal, Held};

impl Actor {
    pub(super) fn verdicts(&mut self, verdicts: Verdicts, confirm: u32) {
        // Held open until all are taken in: none of them may answer it alone.
        if confirm != 0 {
            self.confirms.expect(confirm);
        }
        let Verdicts { done, others } = verdicts;
        for token in done {
            self.take_verdict(token, Verdict::Done, confirm);
        }
        if !others.is_empty() {
            for (token, verdict) in self.post_replies(others, confirm) {
                self.take_verdict(token, verdict, confirm);
            }
        }
        if confirm != 0 {
            self.confirmed.extend(self.confirms.settled(confirm, None));
        }
    }

    fn take_verdict(&mut self, token: Token, verdict: Verdict, confirm: u32) {
        if self.transient_ended(token, &verdict) {
            return;
        }
        if self.settings.tracer.is_on() {
            traced::ended(self.deliveries.span_of(token), &verdict);
        }
        match self.deliveries.redeem(token) {
            Some(redeemed) if verdict == Verdict::Done && confirm == 0 => {
                if let Some(redeemed) = self.done_alone(redeemed, token) {
                    self.verdict(redeemed, token, verdict);
                }
            }
            Some(redeemed) => {
                self.confirm_with(redeemed.key, confirm);
                self.verdict(redeemed, token, verdict);
            }
            None => self.late(token, &verdict, confirm),
        }
    }

    /// The only handler of an event succeeded, as mostly: it is done. Answers what is to be looked at closer.
    fn done_alone(&mut self, redeemed: Redeemed, token: Token) -> Option<Redeemed> {
        let Redeemed { key, subscription, call_ended } = redeemed;
        let Some(entry) = self.deliveries.get(key).filter(|entry| entry.is_done_with(token)) else { return Some(redeemed) };
        let group = self.groups.get(&entry.group);
        if !group.is_some_and(|group| group.subs.iter().any(|sub| sub.id == subscription)) {
            return Some(redeemed);
        }
        let ended = if call_ended { &[subscription][..] } else { &[] };
        if let Some(entry) = self.deliveries.remove_ended(key) {
            self.settle_removed(entry, ended, Disposal::Acknowledge);
        }
        None
    }

    /// The number is answered when the entry is settled.
    fn confirm_with(&mut self, key: Key, confirm: u32) {
        if confirm != 0
            && let Some(entry) = self.deliveries.get_mut(key)
        {
            self.confirms.expect(confirm);
            entry.confirmations.push(confirm);
        }
    }

    fn verdict(&mut self, redeemed: Redeemed, token: Token, verdict: Verdict) {
        let Redeemed { key, subscription, call_ended } = redeemed;
        let Some(entry) = self.deliveries.get_mut(key) else { return };
        entry.running.retain(|(running, _)| *running != token);
        let Some(sub) = self.groups.get_mut(&entry.group).and_then(|group| group.sub_mut(subscription)) else {
            // Nobody is left to judge it by.
            entry.handed_back.push(subscription);
            return self.ended_if_all(key);
        };
        release(&mut sub.running, usize::from(call_ended));
        match verdict {
            Verdict::Done | Verdict::Replied(_) => {}
            Verdict::HandBack => entry.handed_back.push(subscription),
            Verdict::Failed(failure) => {
                let case = Case {
                    strategy: sub.options.error_strategy,
                    policy: &sub.policy,
                    event_retry: entry.retry.as_deref(),
                    deliveries: entry.held.deliveries,
                    crashes: entry.crashes,
                    random: self.env.random(),
                };
                let disposal = settle::judge(&failure, &case);
                entry.failures.push(Failed { subscription, token, error: failure.text().to_owned(), disposal });
                if matches!(failure, Failure::TimedOut(_)) {
                    sub.overdue += usize::from(call_ended);
                    let overdue = Overdue {
                        subscription,
                        takes_place: call_ended,
                        key,
                        late: Late::Counts,
                        held: entry.held.clone(),
                        group: entry.group.clone(),
                        consumer: entry.consumer.clone(),
                        event_id: entry.event_id.clone(),
                        text: entry.text.clone(),
                    };
                    let is_stuck = sub.is_stuck();
                    if is_stuck && call_ended {
                        tracing::warn!(
                            "{} handlers of '{}' in group '{}' are past consumerTimeout and still run: no more are called until one ends",
                            sub.overdue,
                            sub.pattern,
                            entry.group
                        );
                    }
                    self.deliveries.overdue.insert(token, overdue);
                    if is_stuck {
                        self.hand_back_waiting();
                    }
                }
            }
        }
        self.ended_if_all(key);
    }

    /// Settles the entry if no handler of it runs any more.
    pub(super) fn ended_if_all(&mut self, key: Key) {
        if self.deliveries.get(key).is_some_and(|entry| entry.running.is_empty()) {
            self.ended(key);
        }
    }

    /// All handlers of an event ended: what becomes of it?
    fn ended(&mut self, key: Key) {
        let Some(entry) = self.deliveries.get(key) else { return };
        let disposal = match settle::combine(entry.failures.iter().map(|failed| failed.disposal.clone()).collect()) {
            retry @ Disposal::Retry { .. } => retry,
            // Somebody is to see it yet.
            _ if !entry.handed_back.is_empty() => Disposal::HandBack,
            disposal => disposal,
        };
        if matches!(disposal, Disposal::Retry { .. } | Disposal::HandBack) {
            let succeeded: Vec<u32> = entry.succeeded().collect();
            if !succeeded.is_empty()
                && let Some(group) = self.groups.get_mut(&entry.group)
            {
                group.remember(entry.held.partition.clone(), entry.held.id, succeeded);
            }
        }
        let completing = entry.late_success_is_all();
        for (token, overdue) in self.deliveries.overdue.iter_mut().filter(|(_, overdue)| overdue.key == key) {
            overdue.late = if completing == Some(*token) { Late::Completes } else { Late::Spares };
        }
        self.settle_entry(key, disposal);
    }

    /// Sends an entry back to the store and frees its places.
    pub(super) fn settle_entry(&mut self, key: Key, disposal: Disposal) {
        if let Some((entry, abandoned)) = self.deliveries.remove(key) {
            self.settle_removed(entry, &abandoned, disposal);
        }
    }

    /// `ended`: the subscriptions of calls that end with it.
    fn settle_removed(&mut self, entry: InFlight, ended: &[u32], disposal: Disposal) {
        let given_up = self.given_up(&disposal);
        let disposal = self.or_drop(disposal, &entry.held);
        if let Some(group) = self.groups.get_mut(&entry.group) {
            for sub in group.subs.iter_mut().filter(|sub| entry.subscriptions.contains(&sub.id)) {
                release(&mut sub.in_flight, 1);
                release(&mut sub.running, ended.iter().filter(|id| **id == sub.id).count());
            }
            if matches!(disposal, Disposal::Acknowledge | Disposal::DeadLetter { .. }) {
                self.deliveries.done_with(&entry.held.partition, entry.held.id);
                group.forget(&entry.held);
            }
            if let Disposal::Retry { delay_ms, .. } = &disposal {
                group.due_at = group.due_at.min(Instant::now() + Duration::from_millis(*delay_ms));
            }
        }
        let note = Note {
            message: message(&entry.held.partition, &entry.text),
            event_id: entry.event_id,
            took: Some(self.now.saturating_duration_since(entry.started)),
            error: entry.failures.first().map(|failed| failed.error.clone()),
            confirmations: entry.confirmations,
            asked: entry.asked,
            given_up,
            ..Note::default()
        };
        self.settle_untouched(&entry.group, &entry.consumer, entry.held, disposal, note);
    }

    /// A verdict on a delivery that is not waited for any more: a late success may still acknowledge.
    fn late(&mut self, token: Token, verdict: &Verdict, confirm: u32) {
        let Some(overdue) = self.deliveries.overdue.remove(&token) else { return };
        if let Some(sub) = self.groups.get_mut(&overdue.group).and_then(|group| group.sub_mut(overdue.subscription)) {
            release(&mut sub.overdue, usize::from(overdue.takes_place));
        }
        if *verdict != Verdict::Done {
            return;
        }
        let group = self.groups.get_mut(&overdue.group);
        match overdue.late {
            Late::Counts => {
                if let Some(entry) = self.deliveries.get_mut(overdue.key) {
                    entry.failures.retain(|failed| failed.token != token);
                }
                return self.confirm_with(overdue.key, confirm);
            }
            Late::Spares => {
                if let Some(group) = group {
                    group.remember(overdue.held.partition, overdue.held.id, [overdue.subscription]);
                }
                return;
            }
            Late::Nothing => return,
            Late::Completes => {}
        }
        if let Some(group) = group {
            group.forget(&overdue.held);
        }
        let message = message(&overdue.held.partition, &overdue.text);
        let mut note = Note { event_id: overdue.event_id, late: true, message, ..Note::default() };
        if confirm != 0 {
            self.confirms.expect(confirm);
            note.confirmations.push(confirm);
        }
        // Held.deliveries above 1 has the store forget the noted failure, too.
        let held = Held { deliveries: overdue.held.deliveries.max(2), ..overdue.held };
        self.settle_untouched(&overdue.group, &overdue.consumer, held, Disposal::Acknowledge, note);
    }
}
