//! Dead letters: kept by bucket and type, listed in pages, put back or deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::super::{BUCKETS, Body, Bucket, DeadLetterQuery, DeadReason, EntryId, Partition, StoredDeadLetter};
use super::entries::{self, Stored, next_id};
use super::state::State;
use crate::engine::error::{Error, Result};
use crate::engine::event::MetaView;

/// Why an entry is given up.
pub(super) struct Death<'a> {
    pub(super) group: &'a str,
    pub(super) reason: DeadReason,
    pub(super) error: String,
    pub(super) attempts: u32,
}

#[derive(Debug)]
struct DeadLetter {
    partition: Partition,
    group: String,
    reason: DeadReason,
    error: String,
    attempts: u32,
    body: Body,
    /// Place of the event's first entry.
    first_entry: EntryId,
}

/// The dead letters of one bucket.
#[derive(Debug, Default)]
pub(super) struct DeadLetters(BTreeMap<Arc<str>, Letters>);

/// Those of one type, by their own ids, whose ms are the time of death.
#[derive(Debug, Default)]
struct Letters {
    kept: BTreeMap<EntryId, DeadLetter>,
    last_id: EntryId,
}

impl DeadLetters {
    /// Keeps a copy of the entry.
    pub(super) fn add(&mut self, at: &Partition, entry: &Stored, death: Death<'_>, now_ms: u64) {
        let first_entry = match &entry.body {
            Body::Event { first_entry: Some(first), .. } => *first,
            _ => entry.id,
        };
        let letters = self.0.entry(at.event_type.clone()).or_default();
        letters.last_id = next_id(letters.last_id, now_ms);
        letters.kept.insert(
            letters.last_id,
            DeadLetter {
                partition: at.clone(),
                group: death.group.to_owned(),
                reason: death.reason,
                error: death.error,
                attempts: death.attempts,
                body: entry.body.clone(),
                first_entry,
            },
        );
    }

    /// Deletes those of a type that died before `before_ms`.
    pub(super) fn forget(&mut self, event_type: &str, before_ms: u64) {
        if let Some(letters) = self.0.get_mut(event_type) {
            letters.kept = letters.kept.split_off(&EntryId { ms: before_ms, seq: 0 });
        }
    }

    fn remove(&mut self, place: &Place) -> Option<DeadLetter> {
        self.0.get_mut(&place.event_type)?.kept.remove(&place.id)
    }
}

/// Where a dead letter is; its text is its id, and the cursor of the page after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    bucket: Bucket,
    event_type: Arc<str>,
    id: EntryId,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let bucket = parts.next()?.parse().ok().filter(|bucket| *bucket < BUCKETS).map(Bucket)?;
        let id = parts.next()?.parse().ok()?;
        Some(Self { bucket, event_type: parts.next()?.into(), id })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.bucket.0, self.id, self.event_type)
    }
}

impl State {
    /// See [`Store::dead_letters`](super::super::Store::dead_letters).
    pub(super) fn dead_letters(
        &self,
        query: &DeadLetterQuery,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(Vec<StoredDeadLetter>, Option<String>)> {
        let after = cursor
            .map(|text| Place::parse(text).ok_or_else(|| Error::argument("cursor", format!("'{text}' is not a cursor of dead letters"))));
        let mut found = self.matching(query, after.transpose()?)?;
        let page: Vec<StoredDeadLetter> = found.by_ref().take(limit.max(1)).map(|(place, letter)| stored(&place, letter)).collect();
        let cursor = if found.next().is_some() { page.last().map(|letter| letter.id.clone()) } else { None };
        Ok((page, cursor))
    }

    /// See [`Store::count_dead_letters`](super::super::Store::count_dead_letters).
    pub(super) fn count_dead_letters(&self, query: &DeadLetterQuery) -> Result<u64> {
        Ok(self.matching(query, None)?.count() as u64)
    }

    /// See [`Store::redrive`](super::super::Store::redrive).
    pub(super) fn redrive(&mut self, query: &DeadLetterQuery, now_ms: u64) -> Result<u64> {
        let places = self.named(query)?;
        let mut grown = BTreeSet::new();
        for place in &places {
            let bucket = self.bucket_mut(place.bucket);
            let Some(letter) = bucket.dead.remove(place) else { continue };
            let (meta, data) = match letter.body {
                Body::Event { meta, data, .. } => (meta, data),
                Body::Foreign(fields) => (Bytes::new(), foreign_json(&fields).into()),
            };
            let (event_id, group) = (MetaView::read(&meta).map(|view| view.id.into_owned()), letter.group.clone());
            let body = Body::Event { meta, data, only_group: Some(letter.group), first_entry: Some(letter.first_entry) };
            let stream = bucket.streams.entry(letter.partition.clone()).or_default();
            let entry = stream.entries.add(body, now_ms);
            if let Ok(event_id) = event_id {
                stream.moved.note(event_id, Some(group), entry.ms);
            }
            grown.insert(letter.partition);
        }
        for at in &grown {
            self.signal(at);
        }
        Ok(places.len() as u64)
    }

    /// See [`Store::purge`](super::super::Store::purge).
    pub(super) fn purge(&mut self, query: &DeadLetterQuery) -> Result<u64> {
        let places = self.named(query)?;
        for place in &places {
            self.bucket_mut(place.bucket).dead.remove(place);
        }
        Ok(places.len() as u64)
    }

    /// The places a query names; it must name something.
    fn named(&self, query: &DeadLetterQuery) -> Result<Vec<Place>> {
        if query.ids.is_none() && query.event_type.is_none() && query.group.is_none() {
            return Err(Error::argument("query", "name an event type, a group or ids"));
        }
        Ok(self.matching(query, None)?.map(|(place, _)| place).collect())
    }

    /// Matching dead letters in order of bucket, type and age, those after a place.
    fn matching<'a>(
        &'a self,
        query: &'a DeadLetterQuery,
        after: Option<Place>,
    ) -> Result<Box<dyn Iterator<Item = (Place, &'a DeadLetter)> + 'a>> {
        let candidates: Box<dyn Iterator<Item = (Place, &'a DeadLetter)> + 'a> = match &query.ids {
            Some(ids) => {
                let place =
                    |id: &String| Place::parse(id).ok_or_else(|| Error::argument("ids", format!("'{id}' is not the id of a dead letter")));
                let places: BTreeSet<Place> = ids.iter().map(place).collect::<Result<_>>()?;
                let places = places.into_iter().filter(move |place| after.as_ref().is_none_or(|after| place > after));
                Box::new(places.filter_map(|place| self.letter(&place).map(|letter| (place, letter))))
            }
            None => Box::new(self.all_after(after)),
        };
        Ok(Box::new(candidates.filter(|(place, letter)| {
            query.event_type.as_ref().is_none_or(|wanted| **wanted == *place.event_type)
                && query.group.as_ref().is_none_or(|wanted| *wanted == letter.group)
                && query.from_ms.is_none_or(|from_ms| place.id.ms >= from_ms)
                && query.to_ms.is_none_or(|to_ms| place.id.ms <= to_ms)
        })))
    }

    /// Why the group gave up the entry, if it did.
    pub(super) fn death(&self, at: &Partition, group: &str, entry: EntryId) -> Option<(DeadReason, &str)> {
        let (_, bucket) = self.buckets().find(|(bucket, _)| *bucket == at.bucket())?;
        let letters = bucket.dead.0.get(&at.event_type)?.kept.range(EntryId { ms: entry.ms, seq: 0 }..);
        let is_of = |letter: &&DeadLetter| letter.first_entry == entry && letter.partition == *at && letter.group == group;
        letters.map(|(_, letter)| letter).find(is_of).map(|letter| (letter.reason, letter.error.as_str()))
    }

    fn letter(&self, place: &Place) -> Option<&DeadLetter> {
        let (_, bucket) = self.buckets().find(|(bucket, _)| *bucket == place.bucket)?;
        bucket.dead.0.get(&place.event_type)?.kept.get(&place.id)
    }

    fn all_after(&self, after: Option<Place>) -> impl Iterator<Item = (Place, &DeadLetter)> {
        let of_types =
            self.buckets().flat_map(|(bucket, state)| state.dead.0.iter().map(move |(event_type, letters)| (bucket, event_type, letters)));
        of_types.flat_map(move |(bucket, event_type, letters)| {
            let start = match &after {
                Some(after) if (after.bucket, &after.event_type) == (bucket, event_type) => Bound::Excluded(after.id),
                Some(after) if (after.bucket, &after.event_type) > (bucket, event_type) => {
                    Bound::Excluded(EntryId { ms: u64::MAX, seq: u64::MAX })
                }
                _ => Bound::Unbounded,
            };
            let letters = letters.kept.range((start, Bound::Unbounded));
            letters.map(move |(id, letter)| (Place { bucket, event_type: event_type.clone(), id: *id }, letter))
        })
    }
}

impl State {
    /// See [`Store::search_dead_letters`](super::super::Store::search_dead_letters). One step looks at all.
    pub(super) fn search_dead_letters(
        &self,
        at: &Partition,
        event_id: &str,
        from: EntryId,
    ) -> (Vec<StoredDeadLetter>, Option<EntryId>, usize) {
        let letters = self.buckets().find(|(bucket, _)| *bucket == at.bucket()).and_then(|(_, state)| state.dead.0.get(&at.event_type));
        let mut looked = 0;
        let found = letters.into_iter().flat_map(|letters| letters.kept.range(from..)).filter_map(|(id, letter)| {
            looked += 1;
            let place = || Place { bucket: at.bucket(), event_type: at.event_type.clone(), id: *id };
            (entries::event_id(&letter.body) == event_id).then(|| stored(&place(), letter))
        });
        (found.collect(), None, looked)
    }
}

fn stored(place: &Place, letter: &DeadLetter) -> StoredDeadLetter {
    let (meta, data) = match &letter.body {
        Body::Event { meta, data, .. } => (String::from_utf8_lossy(meta).into_owned(), String::from_utf8_lossy(data).into_owned()),
        Body::Foreign(fields) => (String::new(), foreign_json(fields)),
    };
    StoredDeadLetter {
        id: place.to_string(),
        event_type: place.event_type.to_string(),
        group: letter.group.clone(),
        reason: letter.reason.as_str().to_owned(),
        error: letter.error.clone(),
        attempts: letter.attempts,
        failed_at_ms: place.id.ms,
        meta,
        data,
    }
}

/// Fields of an entry that this bus did not write, as a JSON object of strings.
fn foreign_json(fields: &[(Vec<u8>, Vec<u8>)]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let object: Map<String, Value> = fields.iter().map(|(name, value)| (text(name), Value::String(text(value)))).collect();
    Value::Object(object).to_string()
}
