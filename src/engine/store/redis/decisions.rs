//! What groups decided, for those who wait to hear of it and were not told.

use super::super::{Decision, EntryId, Partition};
use super::{Shared, keys, reply, scripts};
use crate::engine::error::Result;

/// Most dead letters looked at for one entry: those since it was written.
const DEATHS_MAX: usize = 1000;

impl Shared {
    /// See `Store::decisions`.
    pub async fn decisions(&self, partition: &Partition, entry: EntryId) -> Result<Vec<(String, Decision)>> {
        let bucket = partition.bucket();
        let keys = [self.keys.stream(partition), self.keys.dead_letters(bucket, &partition.event_type)];
        let mut cmd = scripts::call(&scripts::DECISIONS, &keys.each_ref().map(String::as_str));
        cmd.arg(entry.to_string()).arg(keys::member(partition)).arg(DEATHS_MAX);
        let mut out = Vec::new();
        for row in reply::list(self.at(bucket).query(cmd).await?)? {
            let mut row = reply::list(row)?.into_iter().map(reply::text);
            let mut next = || row.next().unwrap_or_else(|| Err(reply::unexpected("decisions.lua")));
            let (group, state) = (next()?, next()?);
            let decision = match state.as_str() {
                "acknowledged" => Decision::Acknowledged,
                "dead" => Decision::DeadLettered { reason: next()?, error: next()? },
                _ => Decision::Open,
            };
            out.push((group, decision));
        }
        Ok(out)
    }
}
