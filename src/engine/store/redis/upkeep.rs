//! Upkeep: leases, taking over from the dead, delayed events, trimming and expiry.

use std::time::Duration;

use redis::Value;

use super::super::{Bucket, Crashed, Expired, Keeping, Partition, Reaped, Swept};
use super::{Shared, keys, reply, scripts};
use crate::engine::error::Result;
use crate::engine::event::MetaView;

/// Most entries one call takes from dead consumers, or moves from delayed to due: bounds the time the server is held.
const ENTRIES_A_CALL: usize = 1000;

fn event_id(meta: &[u8]) -> String {
    MetaView::read(meta).map(|view| view.id.into_owned()).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Shared {
    fn lease_keys(&self, consumer: &str, buckets: &[Bucket]) -> Vec<(Bucket, String)> {
        buckets.iter().map(|b| (*b, self.keys.in_bucket(*b, &format!("alive:{consumer}")))).collect()
    }

    /// See `Store::renew`.
    pub async fn renew(&self, consumer: &str, buckets: &[Bucket], lease: Duration) -> Result<bool> {
        let mut held = true;
        let mut presence = redis::cmd("SET");
        presence.arg(self.keys.global(&format!("alive:{consumer}"))).arg(1).arg("PX").arg(millis(lease));
        let mut commands = vec![redis::cmd("TIME"), presence];
        for (bucket, key) in self.lease_keys(consumer, buckets) {
            let mut note = redis::cmd("SADD");
            note.arg(self.keys.in_bucket(bucket, "consumers")).arg(consumer);
            // GET tells whether the lease was there; SADD whether this consumer was known.
            let mut set = redis::cmd("SET");
            set.arg(key).arg(1).arg("PX").arg(millis(lease)).arg("GET");
            commands.extend([note, set]);
        }
        let sent = self.env.now_ms();
        let mut values = self.control.run(&commands).await?.into_iter();
        self.compare_clocks(sent, values.next().unwrap_or_default())?;
        reply::bytes(values.next().unwrap_or_default())?;
        while let (Some(new), Some(before)) = (values.next(), values.next()) {
            let new = reply::int(&new)? == 1;
            if let Value::ServerError(error) = &before {
                return Err(reply::server_error(error));
            }
            held &= new || before != Value::Nil;
        }
        Ok(held)
    }

    /// See `Store::release`.
    pub async fn release(&self, consumer: &str, buckets: &[Bucket]) -> Result<()> {
        let leases = self.lease_keys(consumer, buckets).into_iter().map(|(_, key)| key);
        let commands: Vec<redis::Cmd> = leases
            .chain([self.keys.global(&format!("alive:{consumer}"))])
            .map(|key| {
                let mut del = redis::cmd("DEL");
                del.arg(key);
                del
            })
            .collect();
        self.control.run(&commands).await?;
        Ok(())
    }

    /// See `Store::look_after`.
    pub async fn look_after(&self, bucket: Bucket, holder: &str, lease: Duration) -> Result<bool> {
        let key = self.keys.in_bucket(bucket, "keeper");
        let mut take = scripts::call(&scripts::KEEP, &[&key]);
        take.arg(holder).arg(millis(lease));
        Ok(reply::int(&self.slot(bucket).query(take).await?)? == 1)
    }

    /// See `Store::reap`.
    pub async fn reap(&self, bucket: Bucket, max_crashes: u32) -> Result<Reaped> {
        let mut out = Reaped::default();
        loop {
            let mut cmd =
                scripts::call(&scripts::REAP, &[&self.keys.in_bucket(bucket, "consumers"), &self.keys.in_bucket(bucket, "partitions")]);
            cmd.arg(self.keys.base(bucket)).arg(max_crashes).arg(ENTRIES_A_CALL).arg(self.keys.dead_letters(bucket, ""));
            let mut parts = reply::list(self.slot(bucket).query(cmd).await?)?.into_iter();
            let mut next = || parts.next().unwrap_or_default();
            out.consumers += reply::count(&next())?;
            out.taken += reply::count(&next())?;
            let more = reply::int(&next())? == 1;
            for row in reply::list(next())? {
                let mut row = reply::list(row)?.into_iter();
                let (Some(member), Some(group), Some(meta), Some(attempts)) = (row.next(), row.next(), row.next(), row.next()) else {
                    return Err(reply::unexpected("reap.lua"));
                };
                let Some(partition) = keys::parse_member(&reply::text(member)?) else { continue };
                out.crashed.push(Crashed {
                    partition,
                    group: reply::text(group)?,
                    event_id: event_id(&reply::bytes(meta)?),
                    attempts: u32::try_from(reply::count(&attempts)?).unwrap_or(u32::MAX),
                });
            }
            if !more {
                return Ok(out);
            }
        }
    }

    /// See `Store::move_delayed`.
    pub async fn move_delayed(&self, bucket: Bucket) -> Result<(u64, Option<u64>)> {
        let mut cmd = scripts::call(&scripts::MOVE_DELAYED, &[&self.keys.in_bucket(bucket, "delayed")]);
        cmd.arg(self.keys.base(bucket)).arg(ENTRIES_A_CALL);
        let parts = reply::list(self.slot(bucket).query(cmd).await?)?;
        let [moved, next] = parts.as_slice() else { return Err(reply::unexpected("move_delayed.lua")) };
        Ok((reply::count(moved)?, u64::try_from(reply::int(next)?).ok()))
    }

    /// See `Store::sweep`.
    pub async fn sweep(&self, partition: &Partition, keeping: &Keeping) -> Result<Swept> {
        let bucket = partition.bucket();
        let keys = [self.keys.stream(partition), self.keys.facts(partition), self.keys.dead_letters(bucket, &partition.event_type)];
        let mut cmd = scripts::call(&scripts::SWEEP, &keys.each_ref().map(String::as_str));
        cmd.arg(keeping.keep_acknowledged)
            .arg(keeping.default_ttl_ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string()))
            .arg(keeping.dead_letter_retention_ms)
            .arg(u8::from(keeping.dead_letters))
            .arg(keys::member(partition));
        let mut parts = reply::list(self.slot(bucket).query(cmd).await?)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let mut swept = Swept { removed: reply::count(&next())?, more: reply::int(&next())? == 1, expired: Vec::new() };
        for row in reply::list(next())? {
            let mut row = reply::list(row)?.into_iter();
            let (Some(group), Some(meta), Some(buried)) = (row.next(), row.next(), row.next()) else {
                return Err(reply::unexpected("sweep.lua"));
            };
            swept.expired.push(Expired {
                event_type: partition.event_type.clone(),
                event_id: event_id(&reply::bytes(meta)?),
                group: reply::text(group)?,
                dead_lettered: reply::int(&buried)? == 1,
            });
        }
        Ok(swept)
    }
}
