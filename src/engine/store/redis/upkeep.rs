//! Upkeep: leases, taking over from the dead, delayed events, trimming and expiry.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::super::{BUCKETS, Bucket, Crashed, Expired, Keeping, Partition, Reaped, StreamLayout, Swept};
use super::{Shared, keys, reply, scripts};
use crate::engine::env::lock;
use crate::engine::error::Result;
use crate::engine::event::MetaView;

/// Most entries one call takes from dead consumers, or moves from delayed to due: bounds the time the server is held.
const ENTRIES_A_CALL: usize = 1000;

/// Every so many calls for a bucket, consumers that never had a lease are looked for, too.
const DEEP_EVERY: u32 = 16;
/// Calls for one partition to make room: each looks at a few hundred entries behind an old pending one.
const ROOM_CALLS_MAX: usize = 50;
/// Streams, or groups, asked about in one pipeline.
const LOOKS_A_PIPELINE: usize = 100;

/// Leases that this process asked for and has not released; true once the server had granted it. Only the process
/// knows that it had one: the server's key is gone with the lease.
pub type Leases = HashMap<(Bucket, String), bool>;

/// Calls of [`Shared::reap`] so far, by bucket.
pub type Reaps = [AtomicU32; BUCKETS as usize];

fn event_id(meta: &[u8]) -> String {
    MetaView::read(meta).map(|view| view.id.into_owned()).unwrap_or_default()
}

fn info(what: &str, of: &[&str]) -> Cmd {
    let mut cmd = redis::cmd("XINFO");
    cmd.arg(what).arg(of);
    cmd
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Shared {
    fn lease_key(&self, consumer: &str, bucket: Bucket) -> String {
        self.keys.in_bucket(bucket, &format!("alive:{consumer}"))
    }

    /// Has the consumer looked at when the dead of the bucket are looked for.
    fn note_consumer(&self, consumer: &str, bucket: Bucket) -> Cmd {
        let mut note = redis::cmd("SADD");
        note.arg(self.keys.in_bucket(bucket, "consumers")).arg(consumer);
        note
    }

    /// See `Store::renew`.
    pub async fn renew(&self, consumer: &str, buckets: &[Bucket], lease: Duration) -> Result<bool> {
        let mut presence = redis::cmd("SET");
        presence.arg(self.keys.global(&format!("alive:{consumer}"))).arg(1).arg("PX").arg(millis(lease));
        let mut commands = vec![redis::cmd("TIME"), presence];
        let mut granted = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            // Noted when asked for: a release in the meantime takes it out, and the answer does not bring it back.
            granted.push(*lock(&self.leases).entry((*bucket, consumer.to_owned())).or_insert(false));
            let renewed = scripts::call(&scripts::RENEW, &[&self.lease_key(consumer, *bucket), &self.keys.in_bucket(*bucket, "consumers")]);
            commands.push({
                let mut renew = renewed;
                renew.arg(consumer).arg(millis(lease)).arg(u8::from(granted.last() == Some(&true)));
                renew
            });
        }
        let sent = Instant::now();
        // One server that hangs must not keep the leases with the others from being renewed in time.
        let patience = if self.link.nodes.is_cluster() { lease / 4 } else { Duration::MAX };
        let mut values = self.control.run_each(&commands, patience).await.into_iter();
        let mut next = || values.next().unwrap_or(Ok(Value::Nil));
        let (time, presence) = (next(), next());
        if let Ok(time) = time {
            self.compare_clocks(sent, time)?;
        }
        // In a cluster some servers may be away: what is with others goes on, and what is with them is as it was, until
        // they, or those who take their place, say something else.
        let mut away = presence.and_then(reply::bytes).err();
        let (mut held, mut reached) = (true, buckets.is_empty() && away.is_none());
        for bucket in buckets {
            match next().and_then(|renewed| reply::int(&renewed)) {
                Ok(renewed) => {
                    reached = true;
                    held &= renewed == 1;
                    if let Some(known) = lock(&self.leases).get_mut(&(*bucket, consumer.to_owned())) {
                        *known = true;
                    }
                }
                Err(error) => away = Some(error),
            }
        }
        match away {
            Some(error) if !reached || !self.link.nodes.is_cluster() => Err(error),
            _ => Ok(held),
        }
    }

    /// See `Store::release`.
    pub async fn release(&self, consumer: &str, buckets: &[Bucket]) -> Result<()> {
        let mut presence = redis::cmd("DEL");
        presence.arg(self.keys.global(&format!("alive:{consumer}")));
        let mut commands = vec![presence];
        for bucket in buckets {
            lock(&self.leases).remove(&(*bucket, consumer.to_owned()));
            let mut end = redis::cmd("DEL");
            end.arg(self.lease_key(consumer, *bucket));
            // Reaping forgot it if its lease had lapsed before: what it took since then must not be left behind.
            commands.extend([self.note_consumer(consumer, *bucket), end]);
        }
        self.control.run(&commands).await?;
        Ok(())
    }

    /// See `Store::look_after`.
    pub async fn look_after(&self, bucket: Bucket, holder: &str, lease: Duration) -> Result<bool> {
        let key = self.keys.in_bucket(bucket, "keeper");
        let mut take = scripts::call(&scripts::KEEP, &[&key]);
        take.arg(holder).arg(millis(lease));
        Ok(reply::int(&self.at(bucket).query(take).await?)? == 1)
    }

    /// See `Store::reap`.
    pub async fn reap(&self, bucket: Bucket, max_crashes: u32) -> Result<Reaped> {
        if self.reaps[usize::from(bucket.0)].fetch_add(1, Ordering::Relaxed).is_multiple_of(DEEP_EVERY) {
            self.note_strangers(bucket).await?;
        }
        let mut out = Reaped::default();
        loop {
            let mut cmd =
                scripts::call(&scripts::REAP, &[&self.keys.in_bucket(bucket, "consumers"), &self.keys.in_bucket(bucket, "partitions")]);
            cmd.arg(self.keys.base(bucket)).arg(max_crashes).arg(ENTRIES_A_CALL).arg(self.keys.dead_letters(bucket, ""));
            let mut parts = reply::list(self.at(bucket).query(cmd).await?)?.into_iter();
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
                let meta = reply::bytes(meta)?;
                out.crashed.push(Crashed {
                    partition,
                    group: reply::text(group)?,
                    event_id: event_id(&meta),
                    asked: MetaView::read(&meta).ok().and_then(|view| view.asked()),
                    attempts: u32::try_from(reply::count(&attempts)?).unwrap_or(u32::MAX),
                    meta: String::from_utf8(meta).unwrap_or_default(),
                });
            }
            if !more {
                return Ok(out);
            }
        }
    }

    /// Notes consumers of the bucket that have no lease, whoever made them: the script looks at noted ones only, and
    /// takes no one's word that the lease is gone. A consumer of this bus has its lease before its first read.
    async fn note_strangers(&self, bucket: Bucket) -> Result<()> {
        let mut members = redis::cmd("SMEMBERS");
        members.arg(self.keys.in_bucket(bucket, "partitions"));
        let mut streams = Vec::new();
        for member in reply::list(self.at(bucket).query(members).await?)? {
            streams.extend(keys::parse_member(&reply::text(member)?).map(|partition| self.keys.stream(&partition)));
        }
        let looks: Vec<Cmd> = streams.iter().map(|stream| info("GROUPS", &[stream])).collect();
        let mut looks_at_groups = Vec::new();
        for (stream, groups) in streams.iter().zip(self.look(bucket, looks).await?) {
            for group in groups {
                let name = reply::text(reply::field(&reply::list(group)?, "name").cloned().unwrap_or_default())?;
                looks_at_groups.push(info("CONSUMERS", &[stream, &name]));
            }
        }
        let mut names = BTreeSet::new();
        for consumers in self.look(bucket, looks_at_groups).await? {
            for consumer in consumers {
                names.insert(reply::text(reply::field(&reply::list(consumer)?, "name").cloned().unwrap_or_default())?);
            }
        }
        names.retain(|name| !name.starts_with('~'));
        let looks: Vec<Cmd> = names
            .iter()
            .map(|name| {
                let mut exists = redis::cmd("EXISTS");
                exists.arg(self.lease_key(name, bucket));
                exists
            })
            .collect();
        let mut notes = Vec::new();
        for (name, alive) in names.iter().zip(self.at(bucket).run(&looks).await?) {
            if reply::int(&alive)? == 0 {
                notes.push(self.note_consumer(name, bucket));
            }
        }
        self.at(bucket).run(&notes).await?;
        Ok(())
    }

    /// Lists, a command each; an empty one where the key or group is gone.
    async fn look(&self, bucket: Bucket, commands: Vec<Cmd>) -> Result<Vec<Vec<Value>>> {
        let mut out = Vec::with_capacity(commands.len());
        for some in commands.chunks(LOOKS_A_PIPELINE) {
            for value in self.at(bucket).run(some).await? {
                out.push(if matches!(value, Value::ServerError(_)) { Vec::new() } else { reply::list(value)? });
            }
        }
        Ok(out)
    }

    /// See `Store::move_delayed`.
    pub async fn move_delayed(&self, bucket: Bucket) -> Result<(u64, Option<u64>)> {
        let mut cmd = scripts::call(&scripts::MOVE_DELAYED, &[&self.keys.in_bucket(bucket, "delayed")]);
        cmd.arg(self.keys.base(bucket)).arg(ENTRIES_A_CALL);
        let parts = reply::list(self.at(bucket).query(cmd).await?)?;
        let [moved, next] = parts.as_slice() else { return Err(reply::unexpected("move_delayed.lua")) };
        Ok((reply::count(moved)?, u64::try_from(reply::int(next)?).ok()))
    }

    /// See `Store::sweep`.
    pub async fn sweep(&self, partition: &Partition, keeping: &Keeping) -> Result<Swept> {
        self.sweep_to(partition, keeping, None).await
    }

    /// Makes room in a full stream for `count` entries or more, as far as there are entries that every group is done
    /// with. Answers whether any went.
    pub async fn make_room(&self, partition: &Partition, length_max: u64, count: u64) -> Result<bool> {
        let layout = self.layouts.get(&partition.event_type);
        // Nothing but the length decides: how long entries are kept otherwise does not matter now.
        let by_length = Keeping {
            keep_acknowledged: 0,
            keep_ms: None,
            without_group: false,
            default_ttl_ms: None,
            dead_letter_retention_ms: 0,
            dead_letters: false,
        };
        let keeping = Keeping { keep_ms: None, ..by_length.of(Some(&layout)) };
        for _ in 0..ROOM_CALLS_MAX {
            let swept = self.sweep_to(partition, &keeping, Some(StreamLayout::length_with_room(length_max, count))).await?;
            if swept.removed > 0 || !swept.more {
                return Ok(swept.removed > 0);
            }
        }
        Ok(false)
    }

    async fn sweep_to(&self, partition: &Partition, keeping: &Keeping, length: Option<u64>) -> Result<Swept> {
        let text = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let bucket = partition.bucket();
        let keys = [
            self.keys.stream(partition),
            self.keys.facts(partition),
            self.keys.dead_letters(bucket, &partition.event_type),
            self.keys.moved(partition),
        ];
        let mut cmd = scripts::call(&scripts::SWEEP, &keys.each_ref().map(String::as_str));
        cmd.arg(keeping.keep_acknowledged)
            .arg(keeping.default_ttl_ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string()))
            .arg(keeping.dead_letter_retention_ms)
            .arg(u8::from(keeping.dead_letters))
            .arg(keys::member(partition))
            .arg(text(keeping.keep_ms))
            .arg(u8::from(keeping.without_group))
            .arg(text(length));
        let mut parts = reply::list(self.at(bucket).query(cmd).await?)?.into_iter();
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
