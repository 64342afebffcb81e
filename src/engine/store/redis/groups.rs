//! Types, streams and groups: who makes them, and how publishers and subscribers cannot miss each other.
//!
//! A publisher notes the partition, then reads the groups; a subscriber notes the group, then reads the partitions. Whoever
//! comes second sees the other, so an event never enters a stream before the groups that were there to get it.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Cmd, Value};
use serde::Deserialize;
use tokio::time::Instant;

use super::super::{Bucket, EntryId, GroupSpec, Partition, Restored, StartFrom, Topology};
use super::{Shared, keys, reply, scripts};
use crate::engine::error::{Code, Error, Result};
use crate::engine::name;

/// The news that a type or group came or went.
pub(super) const TOPOLOGY: &str = "topology";
/// A holder of a group that has no lease yet counts as alive for so long after it joined.
const JOIN_GRACE: Duration = Duration::from_secs(10);
/// More holders than this and the dead among them are looked for.
const HOLDERS_BEFORE_CLEANING: i64 = 16;

#[derive(Deserialize)]
pub(super) struct StoredSpec {
    pub(super) options: String,
    #[serde(default)]
    holders: serde_json::Value,
    /// It is being deleted: by whom, and since when, ms.
    #[serde(default)]
    going: Option<(String, f64)>,
}

impl StoredSpec {
    /// Consumers that hold it, with ms since they joined.
    pub(super) fn holders(&self, now_ms: u64) -> Vec<(String, u64)> {
        let holders = self.holders.as_object().into_iter().flatten();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // ms since 1970
        let joined = |joined: &serde_json::Value| joined.as_f64().unwrap_or(0.0) as u64;
        holders.map(|(holder, at)| (holder.clone(), now_ms.saturating_sub(joined(at)))).collect()
    }

    /// Whether its deletion was begun that long ago, and is not finished.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // ms since 1970
    pub(super) fn going_for(&self, now_ms: u64) -> Option<Duration> {
        self.going.as_ref().map(|(_, since)| Duration::from_millis(now_ms.saturating_sub(*since as u64)))
    }
}

/// A deletion that takes longer has been given up by its process. Said in the scripts, too.
pub(super) const GOING_MAX: Duration = Duration::from_secs(10);
/// Pause before a group that is being deleted is joined, or deleted, again.
pub(super) const GOING_PAUSE: Duration = Duration::from_millis(20);

pub(super) fn field(spec: &GroupSpec) -> String {
    format!("{} {}", spec.group, spec.pattern)
}

impl Shared {
    /// See `Store::topology`.
    pub async fn topology(&self) -> Result<Topology> {
        let mut types = redis::cmd("SMEMBERS");
        types.arg(self.keys.global("types"));
        let shared = [types, self.read_groups(), self.read_layouts()];
        let commands: Vec<Cmd> = shared.into_iter().chain(Bucket::all().map(|b| self.read_partitions(b))).collect();
        let mut values = self.control.run(&commands).await?.into_iter();
        let types = reply::list(values.next().unwrap_or_default())?;
        let mut topology = Topology {
            types: types.into_iter().map(reply::text).collect::<Result<_>>()?,
            groups: specs(values.next().unwrap_or_default())?,
            layouts: self.layouts(values.next().unwrap_or_default())?,
            partitions: partitions(values)?,
        };
        topology.types.sort();
        Ok(topology)
    }

    pub(super) fn read_groups(&self) -> Cmd {
        let mut groups = redis::cmd("HGETALL");
        groups.arg(self.keys.global("groups"));
        groups
    }

    /// All groups with their patterns, without those that are being deleted.
    pub(super) async fn specs(&self) -> Result<Vec<GroupSpec>> {
        specs(self.control.query(self.read_groups()).await?)
    }

    fn read_partitions(&self, bucket: Bucket) -> Cmd {
        let mut members = redis::cmd("SMEMBERS");
        members.arg(self.keys.in_bucket(bucket, "partitions"));
        members
    }

    /// All partitions known.
    pub async fn partitions(&self) -> Result<Vec<Partition>> {
        let commands: Vec<Cmd> = Bucket::all().map(|bucket| self.read_partitions(bucket)).collect();
        partitions(self.control.run(&commands).await?)
    }

    /// What makes a partition known, in two commands; each answers 1 if it was new.
    fn note(&self, partition: &Partition) -> [Cmd; 2] {
        let mut note_type = redis::cmd("SADD");
        note_type.arg(self.keys.global("types")).arg(&*partition.event_type);
        let mut note_partition = redis::cmd("SADD");
        note_partition.arg(self.keys.in_bucket(partition.bucket(), "partitions")).arg(keys::member(partition));
        [note_type, note_partition]
    }

    /// See `Store::open_partition`.
    pub async fn open_partition(&self, partition: &Partition) -> Result<()> {
        let [note_type, note_partition] = self.note(partition);
        let mut commands = vec![note_type, note_partition];
        commands.extend(self.note_layout(&partition.event_type)?);
        let mut values = self.control.run(&commands).await?.into_iter();
        reply::int(&values.next().unwrap_or_default())?;
        let new = reply::int(&values.next().unwrap_or_default())? == 1;
        // Only now, as they may be with another server: a subscriber that does not see the partition had noted its group
        // before.
        let specs = self.specs().await?;
        let matching = specs.into_iter().filter(|spec| name::matches(&spec.pattern, &partition.event_type));
        let groups: BTreeSet<String> = matching.map(|spec| spec.group).collect();
        let bucket = partition.bucket();
        let mut open = scripts::call(&scripts::OPEN, &[&self.keys.stream(partition), &self.keys.in_bucket(bucket, "partitions")]);
        open.arg(keys::member(partition));
        for group in &groups {
            open.arg(group);
        }
        self.at(bucket).query(open).await?;
        if !groups.is_empty() {
            // A group deleted since they were read is not to come back by this.
            let left = self.specs().await?;
            for group in groups.iter().filter(|group| !left.iter().any(|spec| spec.covers(group, &partition.event_type))) {
                if let Err(consumer) = self.drop_group(partition, group, None, false).await? {
                    tracing::debug!(group, consumer, "a deleted group is in use again");
                }
            }
        }
        if new {
            self.announce(TOPOLOGY).await;
        }
        Ok(())
    }

    /// Tells other processes to read the topology again. A lost message is made up for by their regular look.
    pub async fn announce(&self, news: &str) {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.keys.global("changes")).arg(news);
        if let Err(error) = self.control.query(publish).await {
            tracing::debug!(%error, "a change could not be announced");
        }
    }

    /// See `Store::join`.
    pub async fn join(&self, spec: &GroupSpec, start: StartFrom, consumer: &str) -> Result<Vec<Partition>> {
        let mut new = self.hold(spec, consumer).await?;
        if !name::is_pattern(&spec.pattern) {
            for value in self.control.run(&self.note(&Partition::new(spec.pattern.as_str(), 0))).await? {
                new |= reply::int(&value)? == 1;
            }
        }
        let mut partitions = self.partitions().await?;
        partitions.retain(|partition| name::matches(&spec.pattern, &partition.event_type));
        let start = match start {
            StartFrom::Beginning => "0".to_owned(),
            StartFrom::Latest => "$".to_owned(),
            // A group made at an id gets what comes after it.
            StartFrom::Time(ms) => EntryId { ms, seq: 0 }.previous().to_string(),
        };
        for (bucket, members) in by_bucket(&partitions) {
            let mut commands = Vec::with_capacity(members.len());
            for partition in members {
                let mut create = redis::cmd("XGROUP");
                create.arg("CREATE").arg(self.keys.stream(partition)).arg(&spec.group).arg(&start).arg("MKSTREAM");
                commands.push(create);
            }
            for value in self.at(bucket).run(&commands).await? {
                if let Value::ServerError(error) = value
                    && error.code() != "BUSYGROUP"
                {
                    return Err(reply::server_error(&error));
                }
            }
        }
        if new {
            self.announce(TOPOLOGY).await;
        }
        Ok(partitions)
    }

    /// Notes the consumer as holder; answers whether group and pattern are new.
    async fn hold(&self, spec: &GroupSpec, consumer: &str) -> Result<bool> {
        let mut dead: Vec<String> = Vec::new();
        let (mut tries, begun) = (0, Instant::now());
        // Again without the holders that turned out to be dead, and when a deletion under way is over.
        while tries < 3 {
            let mut join = scripts::call(&scripts::JOIN, &[&self.keys.global("groups")]);
            join.arg(field(spec)).arg(&spec.options).arg(consumer).arg(&dead);
            let parts = reply::list(self.control.query(join).await?)?;
            if parts.first().map(reply::int).transpose()? == Some(1) {
                if parts.get(2).map(reply::int).transpose()?.unwrap_or(0) > HOLDERS_BEFORE_CLEANING {
                    self.drop_dead_holders(spec).await?;
                }
                return Ok(parts.get(1).map(reply::int).transpose()? == Some(1));
            }
            if parts.first().map(reply::int).transpose()? == Some(2) {
                if begun.elapsed() > GOING_MAX + GOING_MAX {
                    break;
                }
                tokio::time::sleep(GOING_PAUSE).await;
                continue;
            }
            tries += 1;
            let mut rest = parts.into_iter().skip(1);
            let in_force = reply::text(rest.next().unwrap_or_default())?;
            let mut holders = Vec::new();
            while let (Some(holder), Some(age)) = (rest.next(), rest.next()) {
                holders.push((reply::text(holder)?, reply::count(&age)?));
            }
            let gone = self.without_lease(&holders).await?;
            if gone.len() < holders.len() {
                let alive = holders.iter().find(|(h, _)| !gone.contains(h)).map_or("", |(h, _)| h);
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!(
                        "group '{}' on '{}' is held by {alive} with other options: {in_force}, here {}. All members of a group must agree; \
                         use the same options or another group",
                        spec.group, spec.pattern, spec.options
                    ),
                )
                .with("argument", "options"));
            }
            dead = gone;
        }
        Err(Error::internal("the holders of a group changed too quickly"))
    }

    /// Those of `holders` (with ms since they joined) that are dead.
    pub(super) async fn without_lease(&self, holders: &[(String, u64)]) -> Result<Vec<String>> {
        let commands: Vec<redis::Cmd> = holders
            .iter()
            .map(|(holder, _)| {
                let mut exists = redis::cmd("EXISTS");
                exists.arg(self.keys.global(&format!("alive:{holder}")));
                exists
            })
            .collect();
        let values = self.control.run(&commands).await?;
        let grace = u64::try_from(JOIN_GRACE.as_millis()).unwrap_or(u64::MAX);
        let mut gone = Vec::new();
        for ((holder, age), value) in holders.iter().zip(values) {
            if reply::int(&value)? == 0 && *age > grace {
                gone.push(holder.clone());
            }
        }
        Ok(gone)
    }

    async fn drop_dead_holders(&self, spec: &GroupSpec) -> Result<()> {
        let holders = self.holders(spec).await?;
        let gone = self.without_lease(&holders).await?;
        self.drop_holders(spec, &gone).await
    }

    /// See `Exclusive::members`.
    pub async fn members(&self, spec: &GroupSpec) -> Result<usize> {
        let holders = self.holders(spec).await?;
        Ok(holders.len() - self.without_lease(&holders).await?.len())
    }

    /// Holders of the group on that pattern, dead ones among them, with ms since they joined.
    async fn holders(&self, spec: &GroupSpec) -> Result<Vec<(String, u64)>> {
        let mut get = redis::cmd("HGET");
        get.arg(self.keys.global("groups")).arg(field(spec));
        let found = self.control.query(get).await?;
        if found == Value::Nil {
            return Ok(Vec::new());
        }
        let stored = serde_json::from_str::<StoredSpec>(&reply::text(found)?);
        Ok(stored.map(|stored| stored.holders(self.now_ms())).unwrap_or_default())
    }

    /// Takes consumers that are dead off the holders.
    async fn drop_holders(&self, spec: &GroupSpec, consumers: &[String]) -> Result<()> {
        if consumers.is_empty() {
            return Ok(());
        }
        let mut leave = scripts::call(&scripts::LEAVE, &[&self.keys.global("groups")]);
        leave.arg(field(spec)).arg("").arg(consumers);
        self.control.query(leave).await?;
        Ok(())
    }

    /// See `Store::restore_group`.
    pub async fn restore_group(&self, partition: &Partition, group: &str, after: EntryId, seen: EntryId) -> Result<Restored> {
        self.control.run(&self.note(partition)).await?;
        let bucket = partition.bucket();
        let keys = [
            self.keys.stream(partition),
            self.keys.in_bucket(bucket, "partitions"),
            self.keys.retry(partition, group),
            self.keys.failed(partition, group),
        ];
        let mut restore = scripts::call(&scripts::RESTORE, &keys.each_ref().map(String::as_str));
        restore.arg(keys::member(partition)).arg(group).arg(after.to_string()).arg(seen.to_string());
        match reply::int(&self.at(bucket).query(restore).await?)? {
            0 => Ok(Restored::There),
            1 => Ok(Restored::Anew),
            2 => Ok(Restored::Continued),
            _ => Err(reply::unexpected("restore.lua")),
        }
    }
}

/// Reads the hash of groups, without those that are being deleted.
fn specs(value: Value) -> Result<Vec<GroupSpec>> {
    let all = stored_specs(value)?.into_iter().filter(|(_, stored)| stored.going.is_none());
    Ok(all.map(|(spec, _)| spec).collect())
}

/// Reads the hash of groups.
pub(super) fn stored_specs(value: Value) -> Result<Vec<(GroupSpec, StoredSpec)>> {
    let mut specs = Vec::new();
    let mut pairs = reply::list(value)?.into_iter();
    while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
        let key = reply::text(key)?;
        // What this version cannot read belongs to another one: its own processes look after it.
        let (Some((group, pattern)), Ok(stored)) = (key.split_once(' '), serde_json::from_str::<StoredSpec>(&reply::text(value)?)) else {
            continue;
        };
        let spec = GroupSpec { group: group.to_owned(), pattern: pattern.to_owned(), options: stored.options.clone() };
        specs.push((spec, stored));
    }
    specs.sort_by(|(a, _), (b, _)| (&a.group, &a.pattern).cmp(&(&b.group, &b.pattern)));
    Ok(specs)
}

/// Reads the sets of partitions of some buckets.
fn partitions(values: impl IntoIterator<Item = Value>) -> Result<Vec<Partition>> {
    let mut partitions = Vec::new();
    for value in values {
        for member in reply::list(value)? {
            partitions.extend(keys::parse_member(&reply::text(member)?));
        }
    }
    partitions.sort();
    Ok(partitions)
}

fn by_bucket(partitions: &[Partition]) -> std::collections::BTreeMap<super::Bucket, Vec<&Partition>> {
    let mut out = std::collections::BTreeMap::<_, Vec<_>>::new();
    for partition in partitions {
        out.entry(partition.bucket()).or_default().push(partition);
    }
    out
}
