//! Settling: acknowledgements in the plain, everything else by script, one round trip a bucket.

use std::collections::BTreeMap;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::super::{Bucket, Disposal, Due, DueIndex, EntryId, Held, Partition, Settled};
use super::{Shared, keys, reply, scripts};
use crate::engine::error::Result;

/// What the replies to a pipeline say of which entries.
enum Answers {
    /// These are acknowledged, now or before: how many of them now is of no interest.
    Acknowledged(Vec<usize>),
    /// A list: 1 or 0 for each.
    Each(Vec<usize>),
    /// Nothing to tell.
    Ignored,
}

/// Longest error text kept, bytes.
const ERROR_BYTES_MAX: usize = 4096;

fn shorten(error: &str) -> &str {
    let mut end = error.len().min(ERROR_BYTES_MAX);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    &error[..end]
}

/// The id as it stands in the store. Most commands about entries are a list of such.
fn write_id(id: EntryId, out: &mut Vec<u8>) {
    out.clear();
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(number.format(id.ms).as_bytes());
    out.push(b'-');
    out.extend_from_slice(number.format(id.seq).as_bytes());
}

impl Shared {
    /// See `Store::settle`.
    pub async fn settle(&self, bucket: Bucket, group: &str, consumer: &str, entries: Vec<(Held, Disposal)>) -> Result<Vec<Settled>> {
        let mut by_partition: BTreeMap<&Partition, Vec<usize>> = BTreeMap::new();
        let mut at = 0;
        // Mostly one after the other is of the same.
        for run in entries.chunk_by(|(a, _), (b, _)| a.partition == b.partition) {
            by_partition.entry(&run[0].0.partition).or_default().extend(at..at + run.len());
            at += run.len();
        }
        let mut commands = Vec::new();
        let mut answers = Vec::new();
        for (partition, indexes) in by_partition {
            self.settle_partition(partition, group, consumer, &entries, indexes, &mut commands, &mut answers);
        }
        let mut out = vec![Settled::NotHeld; entries.len()];
        for (value, answer) in self.settler(bucket).run(&commands).await?.into_iter().zip(answers) {
            match answer {
                Answers::Acknowledged(indexes) => {
                    reply::count(&value)?;
                    for i in indexes {
                        out[i] = Settled::Done;
                    }
                }
                Answers::Each(indexes) => {
                    for (i, value) in indexes.into_iter().zip(reply::list(value)?) {
                        if reply::int(&value)? == 1 {
                            out[i] = Settled::Done;
                        }
                    }
                }
                Answers::Ignored => {
                    if let Value::ServerError(error) = value {
                        return Err(reply::server_error(&error));
                    }
                }
            }
        }
        Ok(out)
    }

    #[allow(clippy::too_many_arguments)]
    fn settle_partition(
        &self,
        partition: &Partition,
        group: &str,
        consumer: &str,
        entries: &[(Held, Disposal)],
        indexes: Vec<usize>,
        commands: &mut Vec<Cmd>,
        answers: &mut Vec<Answers>,
    ) {
        let stream = self.keys.stream(partition);
        let (retry_key, failed_key) = (self.keys.retry(partition, group), self.keys.failed(partition, group));
        let member = keys::member(partition);
        let mut acknowledge = redis::cmd("XACK");
        acknowledge.arg(&stream).arg(group);
        let (mut forget, mut id) = (Vec::new(), Vec::new());
        let due_key = self.keys.due(partition.bucket(), group);
        let mut retry = scripts::call(&scripts::RETRY, &[&stream, &retry_key, &failed_key, &due_key]);
        retry.arg(group).arg(consumer).arg(&member);
        let dead_key = self.keys.dead_letters(partition.bucket(), &partition.event_type);
        let mut bury = scripts::call(&scripts::BURY, &[&stream, &retry_key, &failed_key, &dead_key]);
        bury.arg(group).arg(consumer).arg(&member);
        let (mut acknowledged, mut retried, mut buried) = (Vec::new(), Vec::new(), Vec::new());
        for i in indexes {
            let (held, disposal) = &entries[i];
            write_id(held.id, &mut id);
            match disposal {
                Disposal::Acknowledge => {
                    acknowledge.arg(&id);
                    if held.deliveries > 1 {
                        forget.push(id.clone());
                    }
                    acknowledged.push(i);
                }
                Disposal::Retry { delay_ms, error } => {
                    retry.arg(&id).arg(held.deliveries).arg(*delay_ms).arg(held.deliveries).arg(shorten(error));
                    retried.push(i);
                }
                Disposal::HandBack => {
                    retry.arg(&id).arg(held.deliveries).arg(0).arg(held.deliveries.saturating_sub(1)).arg("");
                    retried.push(i);
                }
                Disposal::DeadLetter { reason, error, attempts } => {
                    bury.arg(&id).arg(held.deliveries).arg(reason.as_str()).arg(shorten(error)).arg(*attempts);
                    buried.push(i);
                }
            }
        }
        if !acknowledged.is_empty() {
            commands.push(acknowledge);
            answers.push(Answers::Acknowledged(acknowledged));
        }
        if !forget.is_empty() {
            let mut cmd = redis::cmd("HDEL");
            cmd.arg(&failed_key).arg(forget);
            commands.push(cmd);
            answers.push(Answers::Ignored);
        }
        for (cmd, indexes) in [(retry, retried), (bury, buried)] {
            if !indexes.is_empty() {
                commands.push(cmd);
                answers.push(Answers::Each(indexes));
            }
        }
    }

    /// See `Store::due`.
    pub async fn due(&self, bucket: Bucket, group: &str) -> Result<DueIndex> {
        // More than can be due at once in a bucket of a sane program; the rest is seen when these are done.
        const MOST: usize = 1000;
        let mut cmd = redis::cmd("ZRANGE");
        cmd.arg(self.keys.due(bucket, group)).arg(0).arg(MOST).arg("WITHSCORES");
        let sent = Instant::now();
        let mut values = self.at(bucket).run(&[redis::cmd("TIME"), cmd]).await?.into_iter();
        // By the server's clock, as claiming goes: what was handed back this very millisecond is due.
        let now = self.compare_clocks(sent, values.next().unwrap_or_default())?;
        let mut index = DueIndex::default();
        let mut pairs = reply::list(values.next().unwrap_or_default())?.into_iter();
        while let (Some(member), Some(score)) = (pairs.next(), pairs.next()) {
            let due = reply::count(&score)?;
            if due > now {
                index.next_in_ms = Some(due - now);
                break;
            }
            index.partitions.extend(keys::parse_member(&reply::text(member)?));
        }
        Ok(index)
    }

    /// See `Store::claim_due`.
    pub async fn claim_due(&self, partition: &Partition, group: &str, consumer: &str, max: usize) -> Result<Due> {
        let bucket = partition.bucket();
        let [stream, retry, failed, due, _] = &self.keys.group(partition, group);
        let mut claim = scripts::call(&scripts::CLAIM, &[stream, retry, failed, due]);
        claim.arg(group).arg(consumer).arg(keys::member(partition)).arg(max);
        read_claimed(partition, self.at(bucket).query(claim).await?)
    }
}

/// Reads the reply of the scripts that claim.
pub fn read_claimed(partition: &Partition, claimed: Value) -> Result<Due> {
    let mut parts = reply::list(claimed)?.into_iter();
    let entries = reply::list(parts.next().unwrap_or_default())?;
    let lost = reply::list(parts.next().unwrap_or_default())?;
    let mut due = Due { entries: Vec::with_capacity(entries.len()), lost: lost.iter().map(reply::entry_id).collect::<Result<_>>()? };
    for row in entries {
        let mut row = reply::list(row)?.into_iter();
        let (Some(id), Some(deliveries), Some(crashes), Some(fields)) = (row.next(), row.next(), row.next(), row.next()) else {
            return Err(reply::unexpected("claim.lua"));
        };
        let number = |value: &Value| Ok::<u32, crate::engine::error::Error>(u32::try_from(reply::count(value)?).unwrap_or(u32::MAX));
        let (deliveries, crashes) = (number(&deliveries)?, number(&crashes)?);
        due.entries.extend(reply::entry(partition, Value::Array(vec![id, fields]), deliveries, crashes)?);
    }
    Ok(due)
}
