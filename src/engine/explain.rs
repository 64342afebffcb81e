//! Explain: where one event is, and where each group stands on it.
//!
//! There is no index of events. Their ids are `UUIDv7`: the time in them, by the publisher's clock, is near the time of
//! their entry, by the server's. So an event is looked for around that time, the nearest first, as far as
//! [`WINDOW_MS`] and [`ENTRIES_MAX`] allow. Events that became entries much later (delayed or redriven ones) are noted
//! by the store.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::error::{Error, Result};
use super::event::MetaView;
use super::history::all_of;
use super::store::{Body, Bucket, Copy, DeadReason, EntryId, Kept, Noted, Partition, Search, Searched, Standing, Store, StoredDeadLetter};

/// How far before and behind the time in its id an event is looked for, ms: what the clocks of publisher and server may
/// differ by, and what a publish may have waited.
pub const WINDOW_MS: u64 = 60_000;
/// Most entries looked at in a stream on each side of that time.
pub const ENTRIES_MAX: usize = 50_000;
/// Most dead letters of a type looked at in a bucket.
pub const DEAD_LETTERS_MAX: usize = 50_000;

/// The time in an id, ms since 1970. `ERR_INVALID_ARGUMENT` for what is no id of an event.
pub fn id_time_ms(id: &str) -> Result<u64> {
    let bytes = id.as_bytes();
    let right = bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            14 => *byte == b'7',
            19 => matches!(byte, b'8' | b'9' | b'a' | b'b' | b'A' | b'B'),
            _ => byte.is_ascii_hexdigit(),
        });
    let ms = right.then(|| u64::from_str_radix(&(id[..8].to_owned() + &id[9..13]), 16).ok()).flatten();
    ms.ok_or_else(|| {
        let shown: String = id.chars().take(64).collect();
        Error::argument("eventId", format!("{shown:?} is not the id of an event: it must be a UUIDv7, as publish() answered it"))
    })
}

/// What is known of the event: `EventExplanation` with times as ms and the event as its two texts, or null.
pub async fn explain(store: &dyn Store, event_type: &str, event_id: &str, default_ttl_ms: Option<u64>) -> Result<Value> {
    let id_ms = id_time_ms(event_id)?;
    let event_id = event_id.to_ascii_lowercase();
    let mut partitions = store.topology().await?.partitions;
    partitions.retain(|partition| *partition.event_type == *event_type);
    let noted = all_of(partitions.iter().map(|partition| store.noted(partition, &event_id)).collect()).await?;
    if let Some(delayed) = noted.iter().find(|noted| noted.delayed.is_some()) {
        return Ok(explain_delayed(delayed));
    }
    let case = Case { store, event_id: &event_id, id_ms, streams: partitions.into_iter().zip(noted).collect() };
    let published = case.published().await?;
    let redriven = case.redriven().await?;
    let home = published.as_ref().map(|(at, _)| *at).or_else(|| redriven.first().map(|(at, ..)| *at));
    let standings = match home {
        Some(at) => case.standings(at, published.as_ref().map(|(_, entry)| entry.id), &redriven).await?,
        None => BTreeMap::new(),
    };
    let letters = case.dead_letters(home, published.as_ref().map(|(_, entry)| entry.id)).await?;
    let entry = published.map(|(_, entry)| entry).or_else(|| redriven.into_iter().map(|(.., entry)| entry).max_by_key(|entry| entry.id));
    let now_ms = store.now_ms();
    Ok(Findings { entry, standings, letters }.tell(now_ms, default_ttl_ms))
}

/// Not delivered to anybody, wherever a group would get it.
fn explain_delayed(noted: &Noted) -> Value {
    let Some(delayed) = &noted.delayed else { return Value::Null };
    let groups: Vec<Value> =
        noted.groups.iter().map(|(name, _)| json!({ "name": name, "state": "not-delivered", "attempts": 0 })).collect();
    json!({ "meta": delayed.meta, "data": delayed.data, "state": "delayed", "groups": groups })
}

/// One event looked for in the streams of its type.
struct Case<'a> {
    store: &'a dyn Store,
    event_id: &'a str,
    id_ms: u64,
    streams: Vec<(Partition, Noted)>,
}

/// A way to look along, and how far it was gone.
struct Way {
    at: usize,
    search: Search,
    looked: usize,
}

impl Case<'_> {
    fn way(&self, at: usize, copy: Copy, from: EntryId, to: EntryId) -> Way {
        Way { at, search: Search { event_id: self.event_id.to_owned(), copy, from, to }, looked: 0 }
    }

    /// All entries of one millisecond, the last first: an event may have been redriven twice in it.
    fn within(&self, at: usize, copy: Copy, ms: u64) -> Way {
        self.way(at, copy, EntryId { ms, seq: u64::MAX }, EntryId { ms, seq: 0 })
    }

    /// The entry that was published, and the stream that has it.
    async fn published(&self) -> Result<Option<(usize, Kept)>> {
        let moved = self.streams.iter().enumerate().find_map(|(at, (_, noted))| noted.moved_ms.map(|ms| (at, ms)));
        let ways = if let Some((at, ms)) = moved {
            vec![self.within(at, Copy::Published, ms)]
        } else {
            let time = EntryId { ms: self.id_ms, seq: 0 };
            let last = EntryId { ms: self.id_ms.saturating_add(WINDOW_MS), seq: u64::MAX };
            let first = EntryId { ms: self.id_ms.saturating_sub(WINDOW_MS), seq: 0 };
            let both = |at| [self.way(at, Copy::Published, time, last), self.way(at, Copy::Published, time.previous(), first)];
            (0..self.streams.len()).flat_map(both).collect()
        };
        self.look(ways).await
    }

    /// Goes along all ways step by step, until the event is found on one.
    async fn look(&self, mut ways: Vec<Way>) -> Result<Option<(usize, Kept)>> {
        while !ways.is_empty() {
            let steps = all_of(ways.iter().map(|way| self.store.search(&self.streams[way.at].0, &way.search)).collect()).await?;
            let mut found: Vec<(usize, Kept)> = Vec::new();
            let mut left = Vec::new();
            for (mut way, step) in ways.into_iter().zip(steps) {
                match step {
                    Searched::Found(entry) => found.push((way.at, entry)),
                    Searched::Nowhere => {}
                    Searched::NotUpTo(last, looked) => {
                        let forward = way.search.from <= way.search.to;
                        way.search.from = if forward { last.next() } else { last.previous() };
                        way.looked += looked;
                        let more = if forward { way.search.from <= way.search.to } else { way.search.from >= way.search.to };
                        if more && way.looked < ENTRIES_MAX {
                            left.push(way);
                        }
                    }
                }
            }
            if let Some(nearest) = found.into_iter().min_by_key(|(_, entry)| entry.id.ms.abs_diff(self.id_ms)) {
                return Ok(Some(nearest));
            }
            ways = left;
        }
        Ok(None)
    }

    /// Entries made for one group each when a dead letter of the event was redriven.
    async fn redriven(&self) -> Result<Vec<(usize, String, Kept)>> {
        let mut found = Vec::new();
        for (at, (_, noted)) in self.streams.iter().enumerate() {
            for (group, ms) in &noted.groups {
                let Some(ms) = ms else { continue };
                let way = self.within(at, Copy::RedrivenFor(group.clone()), *ms);
                if let Some((at, entry)) = self.look(vec![way]).await? {
                    found.push((at, group.clone(), entry));
                }
            }
        }
        Ok(found)
    }

    /// Where the groups of the stream stand, each on the entry that is for it, with that entry's time.
    async fn standings(
        &self,
        at: usize,
        published: Option<EntryId>,
        redriven: &[(usize, String, Kept)],
    ) -> Result<BTreeMap<String, (Standing, EntryId)>> {
        let (partition, noted) = &self.streams[at];
        let mut entries = Vec::with_capacity(noted.groups.len());
        let mut standings = BTreeMap::new();
        for (group, again) in &noted.groups {
            let own = redriven.iter().find(|(stream, name, _)| *stream == at && name == group).map(|(.., entry)| entry.id);
            match (own, again, published) {
                (Some(id), ..) | (None, None, Some(id)) => entries.push((group.clone(), id)),
                // Its own entry is gone, which it is only once the group settled it.
                (None, Some(ms), _) => {
                    standings.insert(group.clone(), (Standing::Settled, EntryId { ms: *ms, seq: 0 }));
                }
                (None, None, None) => {}
            }
        }
        let ids: BTreeMap<&String, EntryId> = entries.iter().map(|(group, id)| (group, *id)).collect();
        for (group, standing) in self.store.standing(partition, &entries).await? {
            let id = ids.get(&group).copied().unwrap_or_default();
            standings.insert(group, (standing, id));
        }
        Ok(standings)
    }

    /// The last dead letter of the event by group. They are younger than its entry.
    async fn dead_letters(&self, home: Option<usize>, entry: Option<EntryId>) -> Result<BTreeMap<String, StoredDeadLetter>> {
        let mut buckets: BTreeMap<Bucket, &Partition> = BTreeMap::new();
        for (at, (partition, _)) in self.streams.iter().enumerate() {
            if home.is_none_or(|home| home == at) {
                buckets.insert(partition.bucket(), partition);
            }
        }
        let from = entry.map_or(self.id_ms.saturating_sub(WINDOW_MS), |entry| entry.ms);
        let mut letters = BTreeMap::new();
        for partition in buckets.into_values() {
            let mut next = Some(EntryId { ms: from, seq: 0 });
            let mut looked = 0;
            while let Some(from) = next.filter(|_| looked < DEAD_LETTERS_MAX) {
                let (found, behind, some) = self.store.search_dead_letters(partition, self.event_id, from).await?;
                letters.extend(found.into_iter().map(|letter| (letter.group.clone(), letter)));
                looked += some;
                next = behind;
            }
        }
        Ok(letters)
    }
}

/// All that was found of an event that is not delayed.
struct Findings {
    entry: Option<Kept>,
    standings: BTreeMap<String, (Standing, EntryId)>,
    letters: BTreeMap<String, StoredDeadLetter>,
}

impl Findings {
    fn tell(self, now_ms: u64, default_ttl_ms: Option<u64>) -> Value {
        let (meta, data) = match (&self.entry, self.letters.values().max_by_key(|letter| letter.failed_at_ms)) {
            (Some(Kept { body: Body::Event { meta, data, .. }, .. }), _) => {
                (String::from_utf8_lossy(meta).into_owned(), String::from_utf8_lossy(data).into_owned())
            }
            (_, Some(letter)) => (letter.meta.clone(), letter.data.clone()),
            _ => return Value::Null,
        };
        let groups: Vec<Value> = self.names().into_iter().map(|name| self.group(name)).collect();
        let mut out = json!({ "meta": meta, "data": data, "state": self.state(&meta, now_ms, default_ttl_ms), "groups": groups });
        if let Some(entry) = &self.entry {
            out["streamId"] = entry.id.to_string().into();
        }
        out
    }

    fn names(&self) -> Vec<&String> {
        let mut names: Vec<&String> = self.standings.keys().chain(self.letters.keys()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The group's dead letter, unless it has the event again since.
    fn letter(&self, group: &str) -> Option<&StoredDeadLetter> {
        let gave_up = self.standings.get(group).is_none_or(|(standing, _)| *standing == Standing::Settled);
        self.letters.get(group).filter(|_| gave_up)
    }

    fn group(&self, name: &str) -> Value {
        let mut out = json!({ "name": name, "state": "acknowledged", "attempts": 0 });
        let mut failed = |state: &str, attempts: u32, error: Option<&str>| {
            out["state"] = state.into();
            out["attempts"] = attempts.into();
            if let Some(error) = error {
                out["lastError"] = error.into();
            }
        };
        match (self.letter(name), self.standings.get(name).map(|(standing, _)| standing)) {
            (Some(letter), _) => failed("dead-lettered", letter.attempts, Some(&letter.error)),
            (None, Some(Standing::NotDelivered)) => failed("not-delivered", 0, None),
            (None, Some(Standing::Held { consumer, deliveries, error })) => {
                failed("held", *deliveries, error.as_deref());
                out["consumer"] = consumer.as_str().into();
            }
            (None, Some(Standing::Waiting { deliveries, due_ms, error })) => {
                failed("retry-due", *deliveries, error.as_deref());
                out["nextRetryAt"] = (*due_ms).into();
            }
            (None, Some(Standing::Settled) | None) => {}
        }
        out
    }

    fn state(&self, meta: &str, now_ms: u64, default_ttl_ms: Option<u64>) -> &'static str {
        let expired = DeadReason::Expired.as_str();
        if self.names().into_iter().filter_map(|name| self.letter(name)).any(|letter| letter.reason == expired) {
            return "expired";
        }
        let Some(entry) = &self.entry else { return "trimmed" };
        let view = MetaView::read(meta.as_bytes());
        let (ttl_ms, given) = match &view {
            Ok(view) if view.names_ttl() => (view.ttl_ms(), view.ttl_given()),
            _ => (default_ttl_ms, false),
        };
        let over = |id: EntryId| ttl_ms.is_some_and(|ttl| id.ms.saturating_add(ttl) <= now_ms);
        let waits = |standing: &Standing| matches!(standing, Standing::Held { .. } | Standing::Waiting { .. });
        let undelivered = self.standings.values().any(|(standing, id)| *standing == Standing::NotDelivered && over(*id));
        // A group that was led past what expired by the publisher's own ttl looks like one that acknowledged it.
        let passed =
            over(entry.id) && (given || self.standings.is_empty()) && !self.standings.values().any(|(standing, _)| waits(standing));
        if undelivered || passed { "expired" } else { "stored" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::env::Env;

    #[test]
    fn the_time_of_an_id_is_read_and_other_texts_are_refused() {
        let before = Env::system().now_ms();
        let ms = id_time_ms(&Env::system().new_id()).unwrap();
        assert!(ms >= before && ms < before + 60_000);
        assert_eq!(id_time_ms("018BCFE5-6800-7000-8000-000000000000").unwrap(), 1_700_000_000_000);
        for wrong in [
            "",
            "x",
            "018bcfe5-6800-4000-8000-000000000000",
            "018bcfe5-6800-7000-c000-000000000000",
            "018bcfe5-6800-7000-8000-00000000000",
            "018bcfe5_6800-7000-8000-000000000000",
            "018bcfe5-6800-7000-8000-00000000000ü",
            "018bcfe56800700080000000000000000000",
        ] {
            let error = id_time_ms(wrong).unwrap_err();
            assert_eq!(error.details["argument"], "eventId", "{wrong:?}");
        }
    }
}
