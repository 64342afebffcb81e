//! What processes share beside events: documents, limits, where messages were found, and who is here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;

use super::super::{
    Bucket, ChainBatch, ChainRecord, Chains, Commons, Documents, EntryId, Rate, Shelf, Sighting, StoreEvent, Taken, chain_bucket,
};
use super::{MemoryStore, ms};
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};

/// All of it that is in no bucket.
#[derive(Debug, Default)]
pub(super) struct InCommon {
    identity: Option<String>,
    shelves: BTreeMap<Shelf, Documents>,
    limits: BTreeMap<String, Level>,
    sightings: Sightings,
    /// Until when, ms.
    attending: BTreeMap<String, u64>,
}

impl InCommon {
    fn documents(&self, on: Shelf, known: Option<u64>) -> Option<Documents> {
        let documents = self.shelves.get(&on).cloned().unwrap_or_default();
        Some(documents).filter(|documents| known != Some(documents.version))
    }

    /// Answers whether it is `after` now, and whether that is a change.
    fn put_document(&mut self, on: Shelf, name: &str, before: Option<&str>, after: Option<&str>, now_ms: u64) -> (bool, bool) {
        let documents = self.shelves.entry(on).or_default();
        let found = documents.by_name.get(name).map(String::as_str);
        if found == after || found != before {
            return (found == after, false);
        }
        match after {
            Some(text) => drop(documents.by_name.insert(name.to_owned(), text.to_owned())),
            None => drop(documents.by_name.remove(name)),
        }
        documents.version = now_ms.saturating_mul(1000).max(documents.version + 1);
        (true, true)
    }

    fn take_places(&mut self, name: &str, rate: Rate, wanted: u32, now_ms: u64) -> Taken {
        if !self.limits.contains_key(name) {
            // A new one makes room: what has come free says nothing.
            self.limits.retain(|_, level| level.end_ms > now_ms);
        }
        self.limits.entry(name.to_owned()).or_default().take(rate, wanted, now_ms)
    }

    fn attend(&mut self, members: &[String], life_ms: u64, now_ms: u64) {
        self.attending.retain(|_, end_ms| *end_ms > now_ms);
        self.attending.extend(members.iter().map(|member| (member.clone(), now_ms.saturating_add(life_ms))));
    }

    fn unattend(&mut self, members: &[String]) {
        for member in members {
            self.attending.remove(member);
        }
    }

    fn attending(&self, now_ms: u64) -> Vec<String> {
        self.attending.iter().filter(|(_, end_ms)| **end_ms > now_ms).map(|(member, _)| member.clone()).collect()
    }
}

/// How full a limit is.
#[derive(Debug, Default)]
struct Level {
    /// Places taken that had not come free at `at_ms`.
    taken: f64,
    at_ms: u64,
    /// When all have come free.
    end_ms: u64,
}

impl Level {
    /// As `take_places.lua`.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // times and counts
    fn take(&mut self, rate: Rate, wanted: u32, now_ms: u64) -> Taken {
        let burst = f64::from(rate.burst);
        let passed_ms = now_ms.saturating_sub(self.at_ms) as f64;
        let taken = (self.taken.min(burst) - passed_ms * rate.per_second / 1000.0).max(0.0);
        let granted = wanted.min((burst - taken).floor() as u32);
        let taken = taken + f64::from(granted);
        if granted > 0 || now_ms < self.at_ms {
            let end_ms = now_ms.saturating_add((taken / rate.per_second * 1000.0).ceil() as u64);
            *self = Self { taken, at_ms: now_ms, end_ms };
        }
        let retry_after_ms = if granted == wanted { 0 } else { (((taken + 1.0 - burst) / rate.per_second * 1000.0).ceil() as u64).max(1) };
        Taken { granted, retry_after_ms }
    }
}

/// Where messages were found first, by their time; those of one time share a life.
#[derive(Debug, Default)]
struct Sightings {
    by_time: BTreeMap<u64, Found>,
    by_end: BTreeSet<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Found {
    places: BTreeMap<String, String>,
    end_ms: u64,
}

impl Sightings {
    fn first(&mut self, sighting: Sighting, now_ms: u64) -> String {
        while let Some((end_ms, time)) = self.by_end.first().copied().filter(|(end_ms, _)| *end_ms <= now_ms) {
            self.by_end.remove(&(end_ms, time));
            self.by_time.remove(&time);
        }
        let time = sighting.time();
        let found = self.by_time.entry(time).or_default();
        let end_ms = found.end_ms.max(now_ms.saturating_add(ms(sighting.life)));
        self.by_end.remove(&(found.end_ms, time));
        self.by_end.insert((end_ms, time));
        found.end_ms = end_ms;
        found.places.entry(sighting.message).or_insert(sighting.place).clone()
    }
}

#[async_trait]
impl Commons for MemoryStore {
    async fn compare_clocks(&self) -> Result<()> {
        // There is one clock.
        self.with(|_, _| ())
    }

    async fn identity(&self, ours: &str) -> Result<String> {
        self.with(|state, _| state.in_common.identity.get_or_insert_with(|| ours.to_owned()).clone())
    }

    async fn documents(&self, on: Shelf, known: Option<u64>) -> Result<Option<Documents>> {
        self.with(|state, _| state.in_common.documents(on, known))
    }

    async fn put_document(&self, on: Shelf, name: &str, before: Option<&str>, after: Option<&str>) -> Result<bool> {
        if name.is_empty() {
            return Err(Error::internal("a document needs a name"));
        }
        let shared = self.shared()?;
        let now_ms = shared.env.now_ms();
        let (is_after, changed) = lock(&shared.state).in_common.put_document(on, name, before, after, now_ms);
        if changed {
            shared.announce(&StoreEvent::DocumentsChanged);
        }
        Ok(is_after)
    }

    async fn take_places(&self, name: &str, rate: Rate, wanted: u32) -> Result<Taken> {
        rate.check()?;
        self.with(|state, now_ms| state.in_common.take_places(name, rate, wanted, now_ms))
    }

    async fn first_sightings(&self, sightings: Vec<Sighting>) -> Result<Vec<String>> {
        self.with(|state, now_ms| sightings.into_iter().map(|sighting| state.in_common.sightings.first(sighting, now_ms)).collect())
    }

    async fn append_records(&self, batch: &ChainBatch) -> Result<()> {
        self.with(|state, now_ms| state.bucket_mut(chain_bucket(&batch.chain)).audit.append(batch, now_ms))?
    }

    async fn records(&self, bucket: Bucket, after: EntryId, to: EntryId, count: usize) -> Result<Vec<(EntryId, ChainRecord)>> {
        self.with(|state, _| state.bucket_mut(bucket).audit.records(after, to, count))
    }

    async fn record_counts(&self) -> Result<BTreeMap<Bucket, u64>> {
        self.with(|state, _| {
            let counts = state.buckets().map(|(bucket, state)| (bucket, state.audit.len()));
            counts.filter(|(_, count)| *count > 0).collect()
        })
    }

    async fn chains(&self, bucket: Bucket) -> Result<Chains> {
        self.with(|state, _| state.bucket_mut(bucket).audit.chains())
    }

    async fn trim_records(&self, bucket: Bucket, before_ms: u64, most: u64) -> Result<(u64, bool)> {
        self.with(|state, _| state.bucket_mut(bucket).audit.trim(before_ms, most))
    }

    async fn counts(&self) -> Result<(BTreeMap<String, i64>, BTreeMap<String, u64>)> {
        self.with(|state, _| {
            let (mut counts, mut times) = (BTreeMap::new(), BTreeMap::new());
            state.buckets().for_each(|(_, bucket)| bucket.audit.add_to(&mut counts, &mut times));
            (counts, times)
        })
    }

    async fn attend(&self, members: &[String], life: Duration) -> Result<()> {
        self.with(|state, now_ms| state.in_common.attend(members, ms(life), now_ms))
    }

    async fn unattend(&self, members: &[String]) -> Result<()> {
        self.with(|state, _| state.in_common.unattend(members))
    }

    async fn attending(&self) -> Result<Vec<String>> {
        self.with(|state, now_ms| state.in_common.attending(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: f64, burst: u32) -> Rate {
        Rate { per_second, burst }
    }

    #[test]
    fn whoever_comes_when_told_gets_a_place_and_the_rate_is_used_up() {
        for per_second in [0.3, 7.0, 200.0, 999.0] {
            let (mut common, mut now_ms, mut granted) = (InCommon::default(), 0, 0);
            while now_ms < 1_000_000 {
                let taken = common.take_places("a", rate(per_second, 5), 3, now_ms);
                granted += taken.granted;
                now_ms += taken.retry_after_ms;
            }
            let share = f64::from(granted) / (5.0 + per_second * 1000.0);
            assert!((0.99..=1.0).contains(&share), "{per_second}: {share}");
        }
    }

    #[test]
    fn limits_that_are_free_again_are_forgotten() {
        let mut common = InCommon::default();
        for n in 0..100 {
            common.take_places(&format!("l-{n}"), rate(1000.0, 5), 1, n);
        }
        assert!(common.limits.len() <= 2, "{:?}", common.limits);
    }

    #[test]
    fn a_clock_that_is_set_back_frees_nothing_and_stops_nothing() {
        let mut common = InCommon::default();
        assert_eq!(common.take_places("a", rate(1.0, 2), 3, 3_600_000).granted, 2);
        assert_eq!(common.take_places("a", rate(1.0, 2), 3, 0), Taken { granted: 0, retry_after_ms: 1000 });
        assert_eq!(common.take_places("a", rate(1.0, 2), 1, 1000), Taken { granted: 1, retry_after_ms: 0 });
    }

    #[test]
    fn what_was_found_is_remembered_for_the_longest_life_asked_for() {
        let mut sightings = Sightings::default();
        let mut at = |place: &str, life_ms, now_ms| {
            let life = Duration::from_millis(life_ms);
            sightings.first(Sighting { message: "m".into(), at_ms: 5, place: place.into(), life }, now_ms)
        };
        assert_eq!(at("a", 100, 0), "a");
        assert_eq!(at("b", 10, 50), "a");
        assert_eq!(at("b", 100, 99), "a");
        assert_eq!(at("b", 0, 198), "a");
        assert_eq!(at("b", 0, 199), "b");
        assert!(sightings.by_time.len() == 1 && sightings.by_end.len() == 1);
    }
}
