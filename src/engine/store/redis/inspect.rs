//! Looking: streams, groups, pending entries, the server itself.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::super::{Backlog, EntryId, GroupState, Partition, PartitionState, StoreStatus};
use super::nodes::Node;
use super::{Shared, reply, scripts};
use crate::engine::error::Result;

/// Ids of a consumer's pending entries read at once.
const PAGE: usize = 1000;
/// Streams looked at in one pipeline.
const LOOKS_MAX: usize = 256;
/// Calls that count what a group has not read, where the server cannot tell: 500 entries each, or 1 MiB.
const COUNTS_MAX: usize = 20;
/// The same in all groups that are looked at together.
const COUNTS_A_LOOK: usize = 40;

fn is_missing(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOGROUP" || error.details().unwrap_or_default().contains("no such key"))
}

impl Shared {
    /// See `Store::pending`.
    pub async fn pending(&self, partition: &Partition, group: &str, consumer: &str) -> Result<Vec<(EntryId, u32)>> {
        let mut out: Vec<(EntryId, u32)> = Vec::new();
        loop {
            let from = out.last().map_or_else(|| "-".to_owned(), |(id, _)| format!("({id}"));
            let mut cmd = redis::cmd("XPENDING");
            cmd.arg(self.keys.stream(partition)).arg(group).arg(from).arg("+").arg(PAGE).arg(consumer);
            let mut values = self.at(partition.bucket()).run(&[cmd]).await?;
            let value = values.pop().unwrap_or_default();
            if is_missing(&value) {
                return Ok(out);
            }
            let rows = reply::list(value)?;
            let full = rows.len() == PAGE;
            for row in rows {
                let row = reply::list(row)?;
                let [id, _, _, deliveries] = row.as_slice() else { return Err(reply::unexpected("XPENDING")) };
                out.push((reply::entry_id(id)?, u32::try_from(reply::count(deliveries)?).unwrap_or(u32::MAX)));
            }
            if !full {
                return Ok(out);
            }
        }
    }

    /// See `Store::remove_consumer`.
    pub async fn remove_consumer(&self, partition: &Partition, group: &str, consumer: &str) -> Result<bool> {
        let mut cmd = scripts::call(&scripts::REMOVE_CONSUMER, &[&self.keys.stream(partition)]);
        cmd.arg(group).arg(consumer);
        Ok(reply::int(&self.at(partition.bucket()).query(cmd).await?)? == 1)
    }

    /// See `Store::inspect`.
    pub async fn inspect(&self, partition: &Partition) -> Result<Option<PartitionState>> {
        let stream = self.keys.stream(partition);
        let command = |name: &str, sub: &str| {
            let mut cmd = redis::cmd(name);
            cmd.arg(sub).arg(&stream);
            cmd
        };
        let pooled = self.at(partition.bucket());
        let mut values =
            pooled.run(&[command("XINFO", "STREAM"), command("XINFO", "GROUPS"), command("MEMORY", "USAGE")]).await?.into_iter();
        let mut next = || values.next().unwrap_or_default();
        let info = next();
        if is_missing(&info) {
            return Ok(None);
        }
        let info = reply::list(info)?;
        let edge = |name: &str| match reply::field(&info, name) {
            Some(Value::Array(parts)) => parts.first().map(reply::entry_id).transpose(),
            _ => Ok(None),
        };
        let mut state = PartitionState {
            length: reply::field(&info, "length").map(reply::count).transpose()?.unwrap_or(0),
            size_bytes: 0,
            first: edge("first-entry")?,
            last: edge("last-entry")?,
            groups: Vec::new(),
            live: BTreeSet::new(),
        };
        let groups = reply::list(next())?;
        // MEMORY may be forbidden to the user; the size is then unknown, not an error.
        state.size_bytes = reply::count(&next()).unwrap_or(0);
        for group in groups {
            let info = reply::list(group)?;
            let number = |name: &str| reply::field(&info, name).map(reply::count).transpose();
            let name = reply::text(reply::field(&info, "name").cloned().unwrap_or_default())?;
            let mut consumers = redis::cmd("XINFO");
            consumers.arg("CONSUMERS").arg(&stream).arg(&name);
            let rows = pooled.run(&[consumers]).await?.pop().unwrap_or_default();
            if is_missing(&rows) {
                continue; // it was deleted in the meantime
            }
            let mut names = Vec::new();
            for consumer in reply::list(rows)? {
                let info = reply::list(consumer)?;
                let name = reply::text(reply::field(&info, "name").cloned().unwrap_or_default())?;
                if !name.starts_with('~') {
                    names.push(name);
                }
            }
            let last_delivered = reply::field(&info, "last-delivered-id").map(reply::entry_id).transpose()?.unwrap_or_default();
            state.groups.push(GroupState {
                name,
                pending: number("pending")?.unwrap_or(0),
                lag: self.lag(partition, &info, COUNTS_MAX).await?.0.ok(),
                consumers: names,
                last_delivered,
            });
        }
        let consumers: BTreeSet<&String> = state.groups.iter().flat_map(|group| &group.consumers).collect();
        let looks: Vec<Cmd> = consumers
            .iter()
            .map(|consumer| {
                let mut exists = redis::cmd("EXISTS");
                exists.arg(self.keys.in_bucket(partition.bucket(), &format!("alive:{consumer}")));
                exists
            })
            .collect();
        let mut live = BTreeSet::new();
        for (consumer, alive) in consumers.into_iter().zip(pooled.run(&looks).await?) {
            if reply::int(&alive)? == 1 {
                live.insert(consumer.clone());
            }
        }
        state.live = live;
        Ok(Some(state))
    }

    /// See `Store::backlogs`.
    pub async fn backlogs(&self, reads: &[(Partition, BTreeSet<String>)]) -> Result<Vec<Vec<Backlog>>> {
        let mut out = Vec::with_capacity(reads.len());
        let mut counts_left = COUNTS_A_LOOK;
        for some in reads.chunks(LOOKS_MAX) {
            let looks: Vec<Cmd> = some
                .iter()
                .map(|(partition, _)| {
                    let mut cmd = redis::cmd("XINFO");
                    cmd.arg("GROUPS").arg(self.keys.stream(partition));
                    cmd
                })
                .collect();
            for ((partition, meant), value) in some.iter().zip(self.control.run(&looks).await?) {
                let groups = if is_missing(&value) { Vec::new() } else { reply::list(value)? };
                let mut backlogs = Vec::with_capacity(groups.len());
                for group in groups {
                    let info = reply::list(group)?;
                    let name = reply::text(reply::field(&info, "name").cloned().unwrap_or_default())?;
                    if !meant.contains(&name) {
                        continue;
                    }
                    let pending = reply::field(&info, "pending").map(reply::count).transpose()?.unwrap_or(0);
                    let (lag, counts) = self.lag(partition, &info, counts_left).await?;
                    counts_left -= counts;
                    backlogs.push(Backlog { group: name, pending, lag: lag.unwrap_or_else(|least| least) });
                }
                out.push(backlogs);
            }
        }
        Ok(out)
    }

    /// See `Store::added`.
    pub async fn added(&self, partitions: &[Partition]) -> Result<Vec<u64>> {
        let mut out = Vec::with_capacity(partitions.len());
        for some in partitions.chunks(LOOKS_MAX) {
            let looks: Vec<Cmd> = some.iter().map(|partition| scripts::call(&scripts::ADDED, &[&self.keys.stream(partition)])).collect();
            for value in self.control.run(&looks).await? {
                out.push(reply::count(&value)?);
            }
        }
        Ok(out)
    }

    /// What a group has not read, from what `XINFO GROUPS` says of it; where that is not said, it is counted in at most so many calls: then
    /// it may be an error, at least how many there are. Answers the calls, too.
    async fn lag(&self, partition: &Partition, info: &[Value], calls_max: usize) -> Result<(std::result::Result<u64, u64>, usize)> {
        match reply::field(info, "lag") {
            Some(Value::Nil) | None => {
                let last_delivered = reply::field(info, "last-delivered-id").map(reply::entry_id).transpose()?.unwrap_or_default();
                self.count_after(partition, last_delivered, calls_max).await
            }
            Some(lag) => Ok((Ok(reply::count(lag)?), 0)),
        }
    }

    /// How many entries are behind that place; an error, how many were counted, where they are too many. Answers the calls, too.
    async fn count_after(&self, partition: &Partition, after: EntryId, calls_max: usize) -> Result<(std::result::Result<u64, u64>, usize)> {
        let (mut sum, mut after) = (0, after.to_string());
        for call in 1..=calls_max {
            let mut count = scripts::call(&scripts::LAG, &[&self.keys.stream(partition)]);
            count.arg(&after);
            let parts = reply::list(self.at(partition.bucket()).query(count).await?)?;
            let [counted, last, more] = parts.as_slice() else { return Err(reply::unexpected("lag.lua")) };
            sum += reply::count(counted)?;
            if reply::int(more)? == 0 {
                return Ok((Ok(sum), call));
            }
            after = reply::text(last.clone())?;
        }
        Ok((Err(sum), calls_max))
    }

    /// See `Store::status`.
    pub async fn status(&self) -> StoreStatus {
        let known = self.link.nodes.states().await;
        let masters: Vec<Node> = self.link.nodes.map().masters().cloned().collect();
        let ping = [redis::cmd("PING")];
        let pings = join_all(masters.iter().map(|node| self.control.run_on(node, &ping))).await;
        let answers: BTreeMap<&Node, bool> = masters.iter().zip(pings.iter().map(Result::is_ok)).collect();
        let word = |answers: bool| if answers { "connected" } else { "disconnected" };
        let nodes = known.iter().map(|(node, state)| {
            let (host, port) = node.parts();
            // What others say of a node that we cannot reach is of no use to us.
            let state = match (answers.get(node), state) {
                (Some(false), Some(state)) if state != "connected" => state.clone(),
                (Some(answers), _) => word(*answers).to_owned(),
                (None, state) => state.clone().unwrap_or_else(|| "unknown".to_owned()),
            };
            (host.to_owned(), port, state)
        });
        StoreStatus {
            connected: !answers.is_empty() && answers.values().all(|answers| *answers),
            cluster: self.link.nodes.is_cluster(),
            nodes: nodes.collect(),
            utilization: self.utilization(),
        }
    }
}
