//! Looking in the store whether a group decided on an event: for when nobody could say so.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::Asking;
use super::message::{Answer, Failed};
use super::waiting::Wait;
use crate::engine::env::lock;
use crate::engine::error::Result;
use crate::engine::store::{Copy, Decision, EntryId, Partition, Search, Searched, Store};

/// How often it is looked for one event.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks on their way at once.
const LOOKS_AT_ONCE: usize = 32;
/// Most looks before others have a turn.
const LOOKS_A_ROUND: usize = 1000;
/// Clocks may differ by so much, and an event be on its way for so long.
const CLOCKS_DIFFER_MS: u64 = 10_000;

/// What is known of an event that is looked for.
#[derive(Clone, Debug)]
pub struct Look {
    /// Told by the store, unless the event is another one.
    told: Arc<OnceLock<EntryId>>,
    /// Where the entry is.
    entry: Option<EntryId>,
    /// The entry is not among those up to here.
    after: EntryId,
    event_id: Arc<str>,
    /// Groups that were to get the event. One that starts later, at the latest event, has it behind it without having had it.
    groups: Option<BTreeSet<String>>,
    /// From then on it may be gone, or passed over.
    end: Option<Instant>,
}

fn search_from(ms: u64) -> EntryId {
    EntryId { ms: ms.saturating_sub(CLOCKS_DIFFER_MS), seq: 0 }
}

/// The time in a `UUIDv7`, ms since 1970.
fn time_of(event_id: &str) -> Option<u64> {
    let digits: String = event_id.chars().filter(|c| *c != '-').take(12).collect();
    u64::from_str_radix(&digits, 16).ok()
}

impl Look {
    /// Nothing is known yet.
    pub fn new(wait: &Wait) -> Self {
        Self {
            told: wait.entry.clone(),
            entry: None,
            after: search_from(wait.entry_ms),
            event_id: wait.event_id.clone(),
            groups: None,
            end: wait.life.and_then(|life| Instant::now().checked_add(life)),
        }
    }

    /// The event looked for was published before.
    pub fn is_of_another(&mut self, event_id: &Arc<str>) {
        self.told = Arc::default();
        self.event_id = event_id.clone();
        self.after = search_from(time_of(event_id).unwrap_or(0));
        self.end = None;
    }

    /// Whether nothing reliable is to be found any more.
    pub fn is_over(&self, now: Instant) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    /// Takes over what a look found out.
    pub fn learn(&mut self, other: Self) {
        if *self.event_id == *other.event_id {
            (self.entry, self.after, self.groups) = (other.entry, other.after, other.groups);
        }
    }

    /// Its entry, unless it is not there yet, or further on.
    async fn find(&mut self, store: &Arc<dyn Store>, partition: &Partition) -> Result<Option<EntryId>> {
        if let Some(known) = self.entry.or_else(|| self.told.get().copied()) {
            return Ok(Some(known));
        }
        let (event_id, end) = (self.event_id.to_string(), EntryId { ms: u64::MAX, seq: u64::MAX });
        let search = Search { event_id, copy: Copy::Published, from: self.after, to: end };
        match store.search(partition, &search).await? {
            Searched::Found(kept) => return Ok(Some(kept.id)),
            Searched::NotUpTo(after, _) => self.after = after,
            Searched::Nowhere => {}
        }
        Ok(None)
    }

    async fn look(&mut self, store: &Arc<dyn Store>, partition: &Partition) -> Result<Option<Answer>> {
        let Some(entry) = self.find(store, partition).await? else { return Ok(None) };
        self.entry = Some(entry);
        let decisions = store.decisions(partition, entry).await?;
        Ok(self.judge(decisions))
    }

    /// The decision of a group that was to get the event: acknowledged before given up.
    fn judge(&mut self, decisions: Vec<(String, Decision)>) -> Option<Answer> {
        let is_first = self.groups.is_none();
        let groups = self.groups.get_or_insert_default();
        let mut failed = None;
        for (group, decision) in decisions {
            if is_first || decision == Decision::Open {
                groups.insert(group.clone());
            }
            if !groups.contains(&group) {
                continue;
            }
            match decision {
                Decision::Open => {}
                Decision::Acknowledged => return Some(Answer::Acknowledged),
                Decision::DeadLettered { reason, error } => {
                    failed = Some(Answer::Failed(Failed { error, reason: Some(reason), group: Some(group) }));
                }
            }
        }
        failed
    }
}

impl Asking {
    pub(super) async fn look_for_decisions(&self) {
        loop {
            let more = self.looks.notified();
            let (due, next) = lock(&self.waiting).looks(Instant::now(), LOOKS_A_ROUND);
            if due.is_empty() {
                match next {
                    Some(at) => tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(at) => {}
                        () = more => {}
                    },
                    None => more.await,
                }
                continue;
            }
            let looks = futures_util::stream::iter(due).map(|(token, partition, mut look)| async move {
                let found = look.look(&self.store, &partition).await;
                (token, look, found)
            });
            let mut looks = looks.buffer_unordered(LOOKS_AT_ONCE);
            while let Some((token, look, found)) = looks.next().await {
                match found {
                    Ok(answer) => self.answer(|waiting| waiting.looked(token, look, answer.as_ref())),
                    Err(error) => tracing::debug!(%error, "looking for an acknowledgement"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look() -> Look {
        Look { told: Arc::default(), entry: None, after: EntryId::default(), event_id: "e".into(), groups: None, end: None }
    }

    fn dead() -> Decision {
        Decision::DeadLettered { reason: "handler".into(), error: "no".into() }
    }

    #[test]
    fn the_time_of_an_id_is_read() {
        assert_eq!(time_of("018bcfe5-6800-7000-8000-000000000000"), Some(1_700_000_000_000));
    }

    #[test]
    fn a_group_that_started_behind_the_event_decides_nothing() {
        let mut look = look();
        assert_eq!(look.judge(vec![("a".into(), Decision::Open)]), None);
        assert_eq!(look.judge(vec![("a".into(), Decision::Open), ("new".into(), Decision::Acknowledged)]), None);
        assert_eq!(look.judge(vec![("a".into(), Decision::Open), ("old".into(), Decision::Open)]), None);
        assert_eq!(look.judge(vec![("a".into(), Decision::Open), ("old".into(), Decision::Acknowledged)]), Some(Answer::Acknowledged));
    }

    #[test]
    fn of_two_decisions_the_acknowledgement_counts() {
        let answer = look().judge(vec![("a".into(), dead()), ("b".into(), Decision::Acknowledged)]);
        assert_eq!(answer, Some(Answer::Acknowledged));
        let failed = Failed { error: "no".into(), reason: Some("handler".into()), group: Some("a".into()) };
        assert_eq!(look().judge(vec![("a".into(), dead())]), Some(Answer::Failed(failed)));
    }
}
