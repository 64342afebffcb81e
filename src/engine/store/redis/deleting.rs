//! How groups end.
//!
//! A deletion marks the subscription in `P:groups`, removes the group from each partition, and takes the mark away with the
//! subscription. While the mark is there whoever joins waits, and publishers do not make the group on new streams. A
//! deletion whose process died is finished by the keeper.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use redis::Value;
use tokio::time::Instant;

use super::super::deleting::{by_pattern, in_use};
use super::super::{GroupSpec, Partition};
use super::groups::{GOING_MAX, GOING_PAUSE, TOPOLOGY, field, stored_specs};
use super::{Shared, keys, reply, scripts};
use crate::engine::error::{Code, Error, Result};
use crate::engine::name;

/// What is left of a deletion's time when it has removed the group everywhere: others may take it for given up then.
const RESERVE: std::time::Duration = std::time::Duration::from_secs(5);

/// Partitions looked at, or left, at once.
const AT_ONCE: usize = 100;

impl Shared {
    /// See `Store::delete_group`.
    pub async fn delete_group(&self, pattern: &str, group: &str) -> Result<bool> {
        let begun = Instant::now();
        loop {
            let specs = stored_specs(self.control.query(self.read_groups()).await?)?;
            let known = specs.iter().find(|(spec, _)| spec.group == group && spec.pattern == pattern);
            let other = specs.iter().find(|(spec, stored)| stored.going_for(0).is_none() && spec.covers(group, pattern));
            let Some((spec, stored)) = known else {
                if let Some((other, _)) = other.filter(|_| !name::is_pattern(pattern)) {
                    return Err(by_pattern(pattern, other));
                }
                let nobody = GroupSpec { group: group.to_owned(), pattern: pattern.to_owned(), options: String::new() };
                return self.drop_everywhere(&nobody, None, begun).await;
            };
            let holders = stored.holders(self.now_ms());
            let dead = self.without_lease(&holders).await?;
            if let Some((alive, _)) = holders.iter().find(|(holder, _)| !dead.contains(holder)) {
                return Err(in_use(group, pattern, alive));
            }
            if let Some(done) = self.end_group(spec, &dead).await? {
                return Ok(done);
            }
            if begun.elapsed() > GOING_MAX + GOING_MAX {
                return Err(Error::new(Code::Timeout, format!("group '{group}' on '{pattern}' is being deleted by others; try again")));
            }
            tokio::time::sleep(GOING_PAUSE).await;
        }
    }

    /// See `Store::leave`.
    pub async fn leave(&self, spec: &GroupSpec, consumer: &str) -> Result<()> {
        let token = if spec.is_ephemeral() { self.env.hex(16) } else { String::new() };
        let begun = Instant::now();
        let mut leave = scripts::call(&scripts::LEAVE, &[&self.keys.global("groups")]);
        leave.arg(field(spec)).arg(&token).arg(consumer);
        if reply::int(&self.control.query(leave).await?)? == 1 {
            self.finish(spec, &token, Some(consumer), begun).await?;
        }
        Ok(())
    }

    /// See `Store::end_groups`.
    pub async fn end_groups(&self) -> Result<Vec<GroupSpec>> {
        let mut ended = Vec::new();
        for (spec, stored) in stored_specs(self.control.query(self.read_groups()).await?)? {
            let stuck = stored.going_for(self.now_ms()).is_some_and(|since| since > GOING_MAX);
            if !stuck && !spec.is_ephemeral() {
                continue;
            }
            let holders = stored.holders(self.now_ms());
            let dead = self.without_lease(&holders).await?;
            if dead.len() < holders.len() {
                continue;
            }
            match self.end_group(&spec, &dead).await {
                Ok(Some(true)) => ended.push(spec),
                Ok(_) => {}
                // Somebody reads it under a name that is not noted yet.
                Err(error) if error.code == Code::InvalidArgument => tracing::debug!(%error, "an ephemeral group stays"),
                // The next round tries again; others end nevertheless.
                Err(error) => tracing::warn!(%error, group = %spec.group, "a group could not be ended"),
            }
        }
        Ok(ended)
    }

    /// See `Store::unattended`.
    pub async fn unattended(&self) -> Result<Vec<GroupSpec>> {
        let mut durable = stored_specs(self.control.query(self.read_groups()).await?)?;
        durable.retain(|(spec, stored)| !spec.is_ephemeral() && stored.going_for(0).is_none());
        // Asked about together: as many commands as there are holders, in one round trip.
        let now = self.now_ms();
        let all: Vec<(String, u64)> = durable.iter().flat_map(|(_, stored)| stored.holders(now)).collect();
        let dead: BTreeSet<String> = self.without_lease(&all).await?.into_iter().collect();
        durable.retain(|(_, stored)| stored.holders(now).iter().all(|(holder, _)| dead.contains(holder)));
        Ok(durable.into_iter().map(|(spec, _)| spec).collect())
    }

    /// Deletes the group if all its holders are among the dead. `None`: ask again, others are at it, or joined.
    async fn end_group(&self, spec: &GroupSpec, dead: &[String]) -> Result<Option<bool>> {
        let token = self.env.hex(16);
        let begun = Instant::now();
        let mut mark = scripts::call(&scripts::END_GROUP, &[&self.keys.global("groups")]);
        mark.arg(field(spec)).arg(&token).arg(dead);
        let parts = reply::list(self.control.query(mark).await?)?;
        match parts.first().map(reply::int).transpose()? {
            Some(1) => self.finish(spec, &token, None, begun).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Does what the mark of this deletion announces.
    async fn finish(&self, spec: &GroupSpec, token: &str, but: Option<&str>, begun: Instant) -> Result<bool> {
        let dropped = self.drop_everywhere(spec, but, begun).await;
        let stays = dropped.as_ref().is_err_and(|error| error.code == Code::InvalidArgument);
        if dropped.is_ok() || stays {
            let mut end = scripts::call(&scripts::GONE, &[&self.keys.global("groups")]);
            end.arg(field(spec)).arg(token).arg(u8::from(!stays));
            self.control.query(end).await?;
            self.announce(TOPOLOGY).await;
        }
        dropped.map(|_| true)
    }

    /// Removes the group from partitions that only this pattern of it covers: from all of them, unless a consumer other
    /// than `but` is alive in one. Answers whether it was anywhere.
    async fn drop_everywhere(&self, spec: &GroupSpec, but: Option<&str>, begun: Instant) -> Result<bool> {
        let GroupSpec { group, pattern, .. } = spec;
        let mut partitions = self.partitions().await?;
        let mut others = self.specs().await?;
        others.retain(|other| other.pattern != *pattern);
        partitions.retain(|at| name::matches(pattern, &at.event_type) && !others.iter().any(|other| other.covers(group, &at.event_type)));
        let mut was_there = false;
        for only_look in [true, false] {
            for some in partitions.chunks(AT_ONCE) {
                if begun.elapsed() > RESERVE {
                    let message = format!("deleting group '{group}' took too long; it is gone from some streams only, try again");
                    return Err(Error::new(Code::Timeout, message));
                }
                for dropped in join_all(some.iter().map(|partition| self.drop_group(partition, group, but, only_look))).await {
                    match dropped? {
                        Ok(there) => was_there |= there,
                        Err(consumer) => return Err(in_use(group, pattern, &consumer)),
                    }
                }
            }
        }
        Ok(was_there)
    }

    /// Removes the group from one partition, or looks whether it could: `Err` names a consumer other than `but` that is
    /// alive there. Answers whether it was there.
    pub(super) async fn drop_group(
        &self,
        partition: &Partition,
        group: &str,
        but: Option<&str>,
        only_look: bool,
    ) -> Result<Result<bool, String>> {
        let bucket = partition.bucket();
        let keys = self.keys.group(partition, group);
        let mut cmd = scripts::call(&scripts::DROP_GROUP, &keys.each_ref().map(String::as_str));
        cmd.arg(self.keys.base(bucket)).arg(group).arg(keys::member(partition)).arg(but.unwrap_or_default()).arg(u8::from(only_look));
        let mut parts = reply::list(self.at(bucket).query(cmd).await?)?.into_iter();
        let (Some(done), Some(word)) = (parts.next(), parts.next()) else { return Err(reply::unexpected("drop_group.lua")) };
        Ok(if reply::int(&done)? == 1 { Ok(word == Value::Int(1)) } else { Err(reply::text(word)?) })
    }
}
