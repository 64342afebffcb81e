//! How groups end.

use std::sync::Weak;

use super::super::deleting::{by_pattern, in_use};
use super::super::{GroupSpec, Partition};
use super::state::{State, is_live};
use crate::engine::error::Result;
use crate::engine::name;

impl State {
    /// See [`Store::delete_group`](super::super::Store::delete_group).
    pub(super) fn delete_group(&mut self, pattern: &str, group: &str, now_ms: u64) -> Result<bool> {
        let known = self.specs.get(&(group.to_owned(), pattern.to_owned()));
        if known.is_none()
            && !name::is_pattern(pattern)
            && let Some(other) = self.other_specs(group, pattern).into_iter().find(|other| other.covers(group, pattern))
        {
            return Err(by_pattern(pattern, &other));
        }
        let holders = known.into_iter().flat_map(|spec| &spec.holders);
        let (buckets, present) = (&self.buckets, &self.present);
        if let Some((holder, _)) = holders.into_iter().find(|(holder, joined)| is_live(buckets, present, holder, **joined, now_ms)) {
            return Err(in_use(group, pattern, holder));
        }
        if let Some(consumer) = self.live_consumer(group, pattern, None, now_ms) {
            return Err(in_use(group, pattern, &consumer));
        }
        Ok(self.end_group(group, pattern, None, now_ms))
    }

    /// See [`Store::end_groups`](super::super::Store::end_groups).
    pub(super) fn end_groups(&mut self, now_ms: u64) -> Vec<GroupSpec> {
        let (ephemeral, _) = self.left(now_ms);
        ephemeral.into_iter().filter(|spec| self.end_group(&spec.group, &spec.pattern, None, now_ms)).collect()
    }

    /// See [`Store::unattended`](super::super::Store::unattended).
    pub(super) fn unattended(&self, now_ms: u64) -> Vec<GroupSpec> {
        self.left(now_ms).1
    }

    /// Those of which no holder is alive: the ephemeral ones, and the others.
    fn left(&self, now_ms: u64) -> (Vec<GroupSpec>, Vec<GroupSpec>) {
        let (buckets, present) = (&self.buckets, &self.present);
        let left = self
            .specs
            .iter()
            .filter(|(_, spec)| !spec.holders.iter().any(|(holder, joined)| is_live(buckets, present, holder, *joined, now_ms)));
        let left = left.map(|((group, pattern), spec)| GroupSpec {
            group: group.clone(),
            pattern: pattern.clone(),
            options: spec.options.clone(),
        });
        left.partition(GroupSpec::is_ephemeral)
    }

    /// Removes the spec and the group from what no other spec covers, unless a consumer other than `but` is alive there.
    /// Answers whether there was any of it.
    pub(super) fn end_group(&mut self, group: &str, pattern: &str, but: Option<&str>, now_ms: u64) -> bool {
        if self.live_consumer(group, pattern, but, now_ms).is_some() {
            return false;
        }
        let uncovered = self.uncovered(group, pattern);
        let mut existed = self.specs.remove(&(group.to_owned(), pattern.to_owned())).is_some();
        for at in uncovered {
            existed |= self.stream_mut(&at).is_some_and(|stream| stream.groups.remove(group).is_some());
        }
        // Whoever still waits to read from it finds out.
        if let Some(signal) = self.signals.get(group).and_then(Weak::upgrade) {
            signal.notify_waiters();
        }
        existed
    }

    fn other_specs(&self, group: &str, pattern: &str) -> Vec<GroupSpec> {
        let others = self.specs.iter().filter(|((its, other), _)| its == group && other != pattern);
        others
            .map(|((group, pattern), spec)| GroupSpec { group: group.clone(), pattern: pattern.clone(), options: spec.options.clone() })
            .collect()
    }

    /// Partitions that the group reads by this pattern only.
    fn uncovered(&self, group: &str, pattern: &str) -> Vec<Partition> {
        let others = self.other_specs(group, pattern);
        let all = self.buckets.values().flat_map(|bucket| bucket.streams.keys());
        let matching = all.filter(|at| name::matches(pattern, &at.event_type));
        matching.filter(|at| !others.iter().any(|other| other.covers(group, &at.event_type))).cloned().collect()
    }

    /// A consumer of the group, other than `but`, that reads by this pattern only and has a lease.
    fn live_consumer(&self, group: &str, pattern: &str, but: Option<&str>, now_ms: u64) -> Option<String> {
        self.uncovered(group, pattern).iter().find_map(|at| {
            let bucket = self.buckets.get(&at.bucket())?;
            let consumers = &bucket.streams.get(at)?.groups.get(group)?.consumers;
            let live = consumers.iter().find(|name| but != Some(&***name) && bucket.leases.is_live(name, now_ms));
            live.map(ToString::to_string)
        })
    }
}
