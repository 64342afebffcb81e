//! Out to handlers, and what their verdicts do.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Actor;
use crate::engine::consume::Verdict;
use crate::engine::consume::flush::Note;
use crate::engine::consume::group::Sub;
use crate::engine::consume::held::{Key, Overdue};
use crate::engine::host::{Delivery, Token};
use crate::engine::settle::{self, Case, Failure};
use crate::engine::store::{Disposal, Held};

impl Actor {
    /// Calls handlers for waiting entries, in order, as places allow.
    pub(super) fn dispatch(&mut self) {
        for group in self.groups.values_mut() {
            if group.waiting.is_empty() {
                continue;
            }
            let mut stay = std::collections::VecDeque::new();
            while let Some(key) = group.waiting.pop_front() {
                let Some(entry) = self.deliveries.get(key) else { continue };
                let ids = entry.subscriptions.clone();
                if !group.subs.iter().filter(|sub| ids.contains(&sub.id)).all(Sub::can_run) {
                    stay.push_back(key);
                    // With one subscription the others behind it cannot run either.
                    if group.subs.len() == 1 {
                        stay.append(&mut group.waiting);
                    }
                    continue;
                }
                for sub in group.subs.iter_mut().filter(|sub| ids.contains(&sub.id)) {
                    sub.running += 1;
                    let token = self.deliveries.issue(key, sub.id);
                    let Some(entry) = self.deliveries.get_mut(key) else { continue };
                    entry.running.push((token, sub.id));
                    entry.started = Instant::now();
                    self.out.push(Delivery {
                        subscription: sub.id,
                        token,
                        attempt: entry.held.deliveries,
                        redelivered: entry.held.deliveries > 1,
                        partition: entry.held.partition.clone(),
                        id: entry.held.id,
                        text: entry.text.clone(),
                    });
                }
            }
            group.waiting = stay;
        }
    }

    pub(super) fn verdicts(&mut self, verdicts: Vec<(Token, Verdict)>, confirm: u32) {
        let mut waits_for = None;
        for (token, verdict) in verdicts {
            match self.deliveries.redeem(token) {
                Some((key, subscription)) => {
                    if confirm != 0 {
                        waits_for = Some(key);
                        if let Some(entry) = self.deliveries.get_mut(key) {
                            entry.confirmations.push(confirm);
                        }
                    }
                    self.verdict(key, subscription, token, verdict);
                }
                None => self.late(token, &verdict),
            }
        }
        if confirm != 0 && waits_for.is_none() {
            self.confirmed.push((confirm, None));
        }
    }

    pub(super) fn verdict(&mut self, key: Key, subscription: u32, token: Token, verdict: Verdict) {
        let Some(entry) = self.deliveries.get_mut(key) else { return };
        entry.running.retain(|(running, _)| *running != token);
        let timed_out = matches!(verdict, Verdict::Failed(Failure::TimedOut(_)));
        match verdict {
            Verdict::Done => {}
            Verdict::Failed(failure) => entry.failures.push((subscription, failure)),
            Verdict::HandBack => entry.handed_back = true,
        }
        let ended = entry.running.is_empty();
        let overdue = timed_out.then(|| Overdue {
            subscription,
            held: entry.held.clone(),
            group: entry.group.clone(),
            consumer: entry.consumer.clone(),
            event_id: entry.event_id.clone(),
        });
        let group = entry.group.clone();
        if let Some(sub) = self.groups.get_mut(&group).and_then(|group| group.sub_mut(subscription)) {
            sub.running -= 1;
            sub.overdue += usize::from(timed_out);
        }
        if let Some(overdue) = overdue {
            self.deliveries.overdue.insert(token, overdue);
        }
        if ended {
            self.ended(key);
        }
    }

    /// All handlers of an event ended: what becomes of it?
    pub(super) fn ended(&mut self, key: Key) {
        let Some(entry) = self.deliveries.get(key) else { return };
        if entry.failures.is_empty() {
            let disposal = if entry.handed_back { Disposal::HandBack } else { Disposal::Acknowledge };
            self.settle_entry(key, disposal);
            return;
        }
        let mut disposals = Vec::with_capacity(entry.failures.len());
        if let Some(group) = self.groups.get(&entry.group) {
            for (id, failure) in &entry.failures {
                let Some(sub) = group.subs.iter().find(|sub| sub.id == *id) else { continue };
                let case = Case {
                    strategy: sub.options.error_strategy,
                    policy: &sub.policy,
                    event_retry: entry.retry.as_ref(),
                    deliveries: entry.held.deliveries,
                    crashes: entry.crashes,
                    random: self.env.random(),
                };
                disposals.push(settle::judge(failure, &case));
            }
        }
        let mut disposal = settle::combine(disposals);
        if entry.handed_back && disposal == Disposal::Acknowledge {
            disposal = Disposal::HandBack;
        }
        if matches!(disposal, Disposal::Retry { .. } | Disposal::HandBack) && entry.subscriptions.len() > entry.failures.len() {
            let failed: HashSet<u32> = entry.failures.iter().map(|(id, _)| *id).collect();
            let succeeded: HashSet<u32> = entry.subscriptions.iter().filter(|id| !failed.contains(id)).copied().collect();
            let (group, partition, id) = (entry.group.clone(), entry.held.partition.clone(), entry.held.id);
            if let Some(group) = self.groups.get_mut(&group) {
                let mut all = group.partial.remove(&(partition.clone(), id)).unwrap_or_default();
                all.extend(succeeded);
                group.remember(partition, id, all);
            }
        }
        self.settle_entry(key, disposal);
    }

    /// Sends an entry back to the store and frees its places.
    pub(super) fn settle_entry(&mut self, key: Key, disposal: Disposal) {
        let Some(entry) = self.deliveries.remove(key) else { return };
        let disposal = self.or_drop(disposal, &entry.held);
        if let Some(group) = self.groups.get_mut(&entry.group) {
            for sub in group.subs.iter_mut().filter(|sub| entry.subscriptions.contains(&sub.id)) {
                sub.in_flight -= 1;
                // Handlers that are not waited for any more (close): their places go with the subscription.
                sub.running -= entry.running.iter().filter(|(_, id)| *id == sub.id).count();
            }
            if matches!(disposal, Disposal::Acknowledge | Disposal::DeadLetter { .. }) {
                group.partial.remove(&(entry.held.partition.clone(), entry.held.id));
            }
            if let Disposal::Retry { delay_ms, .. } = &disposal {
                group.due_at = group.due_at.min(Instant::now() + Duration::from_millis(*delay_ms));
            }
        }
        let note = Note {
            event_id: entry.event_id,
            duration_ms: entry.started.elapsed().as_secs_f64() * 1000.0,
            error: entry.failures.first().map(|(_, failure)| failure.text().to_owned()),
            confirmations: entry.confirmations,
            expired: false,
        };
        self.settle_untouched(&entry.group, &entry.consumer, entry.held, disposal, note);
    }

    /// A verdict on a delivery that is not waited for any more: a late success may still acknowledge.
    pub(super) fn late(&mut self, token: Token, verdict: &Verdict) {
        let Some(overdue) = self.deliveries.overdue.remove(&token) else { return };
        if let Some(sub) = self.groups.get_mut(&overdue.group).and_then(|group| group.sub_mut(overdue.subscription)) {
            sub.overdue -= 1;
        }
        if *verdict == Verdict::Done {
            let note = Note { event_id: overdue.event_id, ..Note::default() };
            // Held.deliveries above 1 has the store forget the noted failure, too.
            let held = Held { deliveries: overdue.held.deliveries.max(2), ..overdue.held };
            self.settle_untouched(&overdue.group, &overdue.consumer, held, Disposal::Acknowledge, note);
        }
    }
}
