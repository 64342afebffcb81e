//! What processes share beside events: documents, limits, where messages were found, and who is here.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::super::{Bucket, ChainBatch, ChainRecord, Chains, Commons, Documents, EntryId, Rate, Shelf, Sighting, Taken};
use super::{RedisStore, Shared, reply, scripts};
use crate::engine::error::{Error, Result};

/// The news that a document came, changed or went.
pub(super) const DOCUMENTS: &str = "documents";

/// Longest time for which something is remembered, seconds: the server refuses one that it cannot count.
pub(super) const LIFE_MAX_SECONDS: u64 = u32::MAX as u64;

/// The whole seconds that the time takes up.
fn seconds(life: Duration) -> u64 {
    life.as_secs().saturating_add(u64::from(life.subsec_nanos() > 0)).min(LIFE_MAX_SECONDS)
}

/// A text that may be missing, as scripts take it.
fn optional(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!("={text}"))
}

impl Shared {
    async fn documents(&self, on: Shelf, known: Option<u64>) -> Result<Option<Documents>> {
        let mut read = scripts::call(&scripts::DOCUMENTS, &[&self.keys.shelf(on)]);
        read.arg(known.map_or_else(String::new, |version| version.to_string()));
        let found = self.control.query(read).await?;
        if found == Value::Nil {
            return Ok(None);
        }
        let mut documents = Documents::default();
        let mut pairs = reply::list(found)?.into_iter();
        while let (Some(name), Some(text)) = (pairs.next(), pairs.next()) {
            let name = reply::text(name)?;
            if name.is_empty() {
                documents.version = reply::count(&text)?;
            } else {
                documents.by_name.insert(name, reply::text(text)?);
            }
        }
        Ok(Some(documents))
    }

    async fn put_document(&self, on: Shelf, name: &str, before: Option<&str>, after: Option<&str>) -> Result<bool> {
        if name.is_empty() {
            return Err(Error::internal("a document needs a name"));
        }
        let mut put = scripts::call(&scripts::PUT_DOCUMENT, &[&self.keys.shelf(on)]);
        put.arg(name).arg(optional(before)).arg(optional(after)).arg(self.keys.global("changes")).arg(DOCUMENTS);
        Ok(reply::int(&self.control.query(put).await?)? == 1)
    }

    async fn take_places(&self, name: &str, rate: Rate, wanted: u32) -> Result<Taken> {
        rate.check()?;
        let mut take = scripts::call(&scripts::TAKE_PLACES, &[&self.keys.rate(name)]);
        take.arg(rate.per_second).arg(rate.burst).arg(wanted);
        let parts = reply::list(self.control.query(take).await?)?;
        let [granted, retry_after_ms] = parts.as_slice() else { return Err(reply::unexpected("take_places.lua")) };
        let granted = u32::try_from(reply::count(granted)?).map_err(|_| reply::unexpected("take_places.lua"))?;
        Ok(Taken { granted, retry_after_ms: reply::count(retry_after_ms)? })
    }

    async fn first_sightings(&self, sightings: &[Sighting]) -> Result<Vec<String>> {
        let mut by_time = BTreeMap::<u64, Vec<usize>>::new();
        for (i, sighting) in sightings.iter().enumerate() {
            by_time.entry(sighting.time()).or_default().push(i);
        }
        let sight = |(time, indexes): (&u64, &Vec<usize>)| {
            let life = indexes.iter().map(|i| sightings[*i].life).max().unwrap_or_default();
            let mut sight = scripts::call(&scripts::SIGHT, &[&self.keys.sightings(*time)]);
            sight.arg(seconds(life));
            for i in indexes {
                sight.arg(&sightings[*i].message).arg(&sightings[*i].place);
            }
            sight
        };
        let commands: Vec<Cmd> = by_time.iter().map(sight).collect();
        let mut places = vec![String::new(); sightings.len()];
        for (indexes, found) in by_time.values().zip(self.control.run(&commands).await?) {
            let found = reply::list(found)?;
            if found.len() != indexes.len() {
                return Err(reply::unexpected("sight.lua"));
            }
            for (i, place) in indexes.iter().zip(found) {
                places[*i] = reply::text(place)?;
            }
        }
        Ok(places)
    }

    async fn identity(&self, ours: &str) -> Result<String> {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.global("identity")).arg(ours).arg("NX").arg("GET");
        match self.control.query(set).await? {
            Value::Nil => Ok(ours.to_owned()),
            found => reply::text(found),
        }
    }

    fn attending_key(&self) -> String {
        self.keys.global("attending")
    }

    async fn attend(&self, members: &[String], life: Duration) -> Result<()> {
        if members.is_empty() {
            return Ok(());
        }
        let mut attend = scripts::call(&scripts::ATTEND, &[&self.attending_key()]);
        attend.arg(u64::try_from(life.as_millis()).unwrap_or(u64::MAX)).arg(members);
        reply::int(&self.control.query(attend).await?)?;
        Ok(())
    }

    async fn unattend(&self, members: &[String]) -> Result<()> {
        if members.is_empty() {
            return Ok(());
        }
        let mut remove = redis::cmd("ZREM");
        remove.arg(self.attending_key()).arg(members);
        self.control.query(remove).await?;
        Ok(())
    }

    async fn attending(&self) -> Result<Vec<String>> {
        let read = scripts::call(&scripts::ATTENDING, &[&self.attending_key()]);
        let names = reply::list(self.control.query(read).await?)?;
        let mut names = names.into_iter().map(reply::text).collect::<Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    }
}

#[async_trait]
impl Commons for RedisStore {
    async fn compare_clocks(&self) -> Result<()> {
        self.shared.learn_time().await
    }

    async fn identity(&self, ours: &str) -> Result<String> {
        self.shared.identity(ours).await
    }

    async fn documents(&self, on: Shelf, known: Option<u64>) -> Result<Option<Documents>> {
        self.shared.documents(on, known).await
    }

    async fn put_document(&self, on: Shelf, name: &str, before: Option<&str>, after: Option<&str>) -> Result<bool> {
        self.shared.put_document(on, name, before, after).await
    }

    async fn take_places(&self, name: &str, rate: Rate, wanted: u32) -> Result<Taken> {
        self.shared.take_places(name, rate, wanted).await
    }

    async fn first_sightings(&self, sightings: Vec<Sighting>) -> Result<Vec<String>> {
        self.shared.first_sightings(&sightings).await
    }

    async fn append_records(&self, batch: &ChainBatch) -> Result<()> {
        self.shared.append_records(batch).await
    }

    async fn records(&self, bucket: Bucket, after: EntryId, to: EntryId, count: usize) -> Result<Vec<(EntryId, ChainRecord)>> {
        self.shared.records(bucket, after, to, count).await
    }

    async fn record_counts(&self) -> Result<BTreeMap<Bucket, u64>> {
        self.shared.record_counts().await
    }

    async fn chains(&self, bucket: Bucket) -> Result<Chains> {
        self.shared.chains(bucket).await
    }

    async fn trim_records(&self, bucket: Bucket, before_ms: u64, most: u64) -> Result<(u64, bool)> {
        self.shared.trim_records(bucket, before_ms, most).await
    }

    async fn counts(&self) -> Result<(BTreeMap<String, i64>, BTreeMap<String, u64>)> {
        self.shared.counts().await
    }

    async fn attend(&self, members: &[String], life: Duration) -> Result<()> {
        self.shared.attend(members, life).await
    }

    async fn unattend(&self, members: &[String]) -> Result<()> {
        self.shared.unattend(members).await
    }

    async fn attending(&self) -> Result<Vec<String>> {
        self.shared.attending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_takes_up_whole_seconds() {
        let whole = |ms| seconds(Duration::from_millis(ms));
        assert_eq!([whole(0), whole(1), whole(1000), whole(1001)], [0, 1, 1, 2]);
        assert_eq!(seconds(Duration::MAX), LIFE_MAX_SECONDS);
    }
}
