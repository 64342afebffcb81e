//! Ordered groups: who reads a partition, and what waits there.

use async_trait::async_trait;
use redis::Value;
use tokio::time::Instant;

use super::super::{Due, EntryId, Exclusive, GroupSpec, Ownership, Parked, Partition};
use super::{RedisStore, Shared, keys, reply, scripts};
use crate::engine::error::Result;

/// Entries whose keys are read by one call: it holds up the server.
const KEYS_A_CALL: usize = 200;

impl Shared {
    async fn own(&self, partition: &Partition, group: &str, consumer: &str, held: &[EntryId]) -> Result<Ownership> {
        let bucket = partition.bucket();
        let keys = self.keys.group(partition, group);
        let mut own = scripts::call(&scripts::OWN, &keys.each_ref().map(String::as_str));
        own.arg(group).arg(consumer).arg(self.keys.base(bucket)).arg(keys::member(partition));
        for id in held {
            own.arg(id.to_string());
        }
        let parts = reply::list(self.at(bucket).query(own).await?)?;
        match parts.first().map(reply::int).transpose()? {
            Some(1) => Ok(Ownership::Mine { last: parts.get(1).map(reply::entry_id).transpose()?.unwrap_or_default() }),
            Some(0) => Ok(Ownership::Others),
            Some(-1) => Ok(Ownership::NoGroup),
            _ => Err(reply::unexpected("own.lua")),
        }
    }

    async fn disown(&self, partition: &Partition, group: &str, consumer: &str) -> Result<()> {
        let mut disown = scripts::call(&scripts::DISOWN, &[&self.keys.owner(partition, group)]);
        disown.arg(consumer);
        self.at(partition.bucket()).query(disown).await?;
        Ok(())
    }

    async fn parked(&self, partition: &Partition, group: &str) -> Result<Vec<Parked>> {
        let pooled = self.at(partition.bucket());
        let mut waiting = redis::cmd("ZRANGE");
        waiting.arg(self.keys.retry(partition, group)).arg(0).arg(-1).arg("WITHSCORES");
        let sent = Instant::now();
        let mut values = pooled.run(&[redis::cmd("TIME"), waiting]).await?.into_iter();
        let now = self.compare_clocks(sent, values.next().unwrap_or_default())?;
        let mut ids: Vec<(EntryId, u64)> = Vec::new();
        let mut pairs = reply::list(values.next().unwrap_or_default())?.into_iter();
        while let (Some(id), Some(due)) = (pairs.next(), pairs.next()) {
            // What is no id holds up none of the others.
            let Ok(id) = reply::entry_id(&id) else { continue };
            ids.push((id, reply::count(&due)?.saturating_sub(now)));
        }
        let stream = self.keys.stream(partition);
        let mut parked = Vec::with_capacity(ids.len());
        for some in ids.chunks(KEYS_A_CALL) {
            let mut keys = scripts::call(&scripts::PARKED_KEYS, &[&stream]);
            for (id, _) in some {
                keys.arg(id.to_string());
            }
            for ((id, due_in_ms), key) in some.iter().zip(reply::list(pooled.query(keys).await?)?) {
                // One that is gone is found out when it is claimed.
                let key = if key == Value::Nil { String::new() } else { reply::text(key)? };
                parked.push(Parked { id: *id, due_in_ms: *due_in_ms, key });
            }
        }
        Ok(parked)
    }

    async fn claim_parked(&self, partition: &Partition, group: &str, consumer: &str, ids: &[EntryId]) -> Result<Option<Due>> {
        let bucket = partition.bucket();
        let keys = self.keys.group(partition, group);
        let mut claim = scripts::call(&scripts::CLAIM_PARKED, &keys.each_ref().map(String::as_str));
        claim.arg(group).arg(consumer).arg(keys::member(partition));
        for id in ids {
            claim.arg(id.to_string());
        }
        match self.at(bucket).query(claim).await? {
            Value::Nil => Ok(None),
            claimed => Ok(Some(super::settle::read_claimed(partition, claimed)?)),
        }
    }
}

#[async_trait]
impl Exclusive for RedisStore {
    async fn own(&self, partition: &Partition, group: &str, consumer: &str, held: &[EntryId]) -> Result<Ownership> {
        self.shared.own(partition, group, consumer, held).await
    }

    async fn disown(&self, partition: &Partition, group: &str, consumer: &str) -> Result<()> {
        self.shared.disown(partition, group, consumer).await
    }

    async fn parked(&self, partition: &Partition, group: &str) -> Result<Vec<Parked>> {
        self.shared.parked(partition, group).await
    }

    async fn claim_parked(&self, partition: &Partition, group: &str, consumer: &str, ids: &[EntryId]) -> Result<Option<Due>> {
        self.shared.claim_parked(partition, group, consumer, ids).await
    }

    async fn members(&self, spec: &GroupSpec) -> Result<usize> {
        self.shared.members(spec).await
    }
}
