//! Looking back: entries that nobody takes, and what became of one event.

use redis::Value;

use super::super::{Copy, Delayed, EntryId, Kept, Noted, Partition, Search, Searched, Standing, StoredDeadLetter};
use super::dead_letters::{Place, read_letter};
use super::{Shared, keys, reply, scripts};
use crate::engine::error::{Error, Result};

/// Most entries one step of a search looks at: bounds the time the server is held.
const SEARCH_ENTRIES: usize = 500;

/// A number, or nothing where the text is empty.
fn optional(value: &Value) -> Result<Option<u64>> {
    if matches!(value, Value::BulkString(text) if text.is_empty()) { Ok(None) } else { reply::count(value).map(Some) }
}

fn kept(row: Value) -> Result<Kept> {
    let mut row = reply::list(row)?.into_iter();
    let (Some(id), Some(fields)) = (row.next(), row.next()) else { return Err(reply::unexpected("XRANGE")) };
    Ok(Kept { id: reply::entry_id(&id)?, body: reply::body(fields)? })
}

/// What `search.lua` answers.
struct Step {
    found: Vec<Value>,
    last: Option<EntryId>,
    looked: usize,
}

impl Shared {
    /// See `Store::history`.
    pub async fn history(&self, partition: &Partition, after: EntryId, to: EntryId, count: usize) -> Result<Vec<Kept>> {
        let range = |after: EntryId, count: usize| {
            let mut range = redis::cmd("XRANGE");
            range.arg(self.keys.stream(partition)).arg(format!("({after}")).arg(to.to_string()).arg("COUNT").arg(count);
            range
        };
        let read = |rows: Value| reply::list(rows)?.into_iter().map(kept).collect::<Result<Vec<Kept>>>();
        let mut page = Vec::new();
        if let Some(replicas) = &self.replicas {
            // A replica that cannot be asked, or does not have all of it yet, leaves the rest to the master.
            match replicas.query(range(after, count)).await.and_then(read) {
                Ok(rows) => page = rows,
                Err(error) => tracing::debug!(%error, "a replica could not be read from"),
            }
        }
        if page.len() < count {
            let after = page.last().map_or(after, |last| last.id);
            page.extend(read(self.at(partition.bucket()).query(range(after, count - page.len())).await?)?);
        }
        Ok(page)
    }

    /// See `Store::last_entry`.
    pub async fn last_entry(&self, partition: &Partition) -> Result<Option<EntryId>> {
        let mut range = redis::cmd("XREVRANGE");
        range.arg(self.keys.stream(partition)).arg("+").arg("-").arg("COUNT").arg(1);
        let rows = reply::list(self.at(partition.bucket()).query(range).await?)?;
        rows.into_iter().next().map(|row| kept(row).map(|entry| entry.id)).transpose()
    }

    /// See `Store::noted`.
    pub async fn noted(&self, partition: &Partition, event_id: &str) -> Result<Noted> {
        let keys =
            [self.keys.stream(partition), self.keys.delayed(partition), self.keys.delayed_bodies(partition), self.keys.moved(partition)];
        let mut noted = scripts::call(&scripts::NOTED, &keys.each_ref().map(String::as_str));
        noted.arg(event_id);
        let mut parts = reply::list(self.at(partition.bucket()).query(noted).await?)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let due_ms = optional(&next())?;
        let body = reply::bytes(next())?;
        let moved_ms = optional(&next())?;
        let mut groups = Vec::new();
        for group in reply::list(next())? {
            let mut group = reply::list(group)?.into_iter();
            let (Some(name), Some(redriven)) = (group.next(), group.next()) else { return Err(reply::unexpected("noted.lua")) };
            groups.push((reply::text(name)?, optional(&redriven)?));
        }
        let delayed = due_ms.and_then(|due_ms| {
            let (meta, data) = serde_json::from_slice(&body).ok()?;
            Some(Delayed { meta, data, due_ms })
        });
        Ok(Noted { delayed, moved_ms, groups })
    }

    async fn search_step(&self, partition: &Partition, stream: &str, event_id: &str, way: (EntryId, EntryId), copy: &str) -> Result<Step> {
        let (from, to) = way;
        let mut search = scripts::call(&scripts::SEARCH, &[stream]);
        search.arg(event_id).arg(from.to_string()).arg(to.to_string()).arg(u8::from(to < from)).arg(copy).arg(SEARCH_ENTRIES);
        let mut parts = reply::list(self.at(partition.bucket()).query(search).await?)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let found = reply::list(next())?;
        let last = reply::text(next())?;
        let last = if last.is_empty() { None } else { Some(last.parse()?) };
        Ok(Step { found, last, looked: usize::try_from(reply::count(&next())?).unwrap_or(usize::MAX) })
    }

    /// See `Store::search`.
    pub async fn search(&self, partition: &Partition, search: &Search) -> Result<Searched> {
        let copy = match &search.copy {
            Copy::Published => "",
            Copy::RedrivenFor(group) => group,
        };
        let stream = self.keys.stream(partition);
        let step = self.search_step(partition, &stream, &search.event_id, (search.from, search.to), copy).await?;
        if let Some(row) = step.found.into_iter().next() {
            return kept(row).map(Searched::Found);
        }
        Ok(step.last.map_or(Searched::Nowhere, |last| Searched::NotUpTo(last, step.looked)))
    }

    /// See `Store::search_dead_letters`.
    pub async fn search_dead_letters(
        &self,
        partition: &Partition,
        event_id: &str,
        from: EntryId,
    ) -> Result<(Vec<StoredDeadLetter>, Option<EntryId>, usize)> {
        let place = Place { bucket: partition.bucket(), event_type: partition.event_type.to_string() };
        let stream = self.keys.dead_letters(place.bucket, &place.event_type);
        let to = EntryId { ms: u64::MAX, seq: u64::MAX };
        let step = self.search_step(partition, &stream, event_id, (from, to), "*").await?;
        let letters: Result<_> = step.found.into_iter().map(|row| read_letter(&place, row).map(|(_, letter, _)| letter)).collect();
        Ok((letters?, step.last.map(EntryId::next), step.looked))
    }

    /// See `Store::standing`.
    pub async fn standing(&self, partition: &Partition, entries: &[(String, EntryId)]) -> Result<Vec<(String, Standing)>> {
        let bucket = partition.bucket();
        let mut standing = scripts::call(&scripts::STANDING, &[&self.keys.stream(partition)]);
        standing.arg(self.keys.base(bucket)).arg(keys::member(partition));
        for (group, id) in entries {
            standing.arg(group).arg(id.to_string());
        }
        reply::list(self.at(bucket).query(standing).await?)?.into_iter().map(read_standing).collect()
    }
}

fn read_standing(row: Value) -> Result<(String, Standing)> {
    let mut row = reply::list(row)?.into_iter();
    let mut next = || row.next().unwrap_or_default();
    let (group, state, consumer) = (reply::text(next())?, reply::text(next())?, reply::text(next())?);
    let deliveries = u32::try_from(reply::count(&next())?).unwrap_or(u32::MAX);
    let failed = reply::text(next())?;
    let error = failed.split_once(' ').map(|(_, error)| error.to_owned()).filter(|error| !error.is_empty());
    let due_ms = optional(&next())?;
    let standing = match state.as_str() {
        "new" => Standing::NotDelivered,
        "held" => Standing::Held { consumer, deliveries, error },
        "waiting" => Standing::Waiting { deliveries, due_ms: due_ms.unwrap_or(0), error },
        "settled" => Standing::Settled,
        _ => return Err(Error::internal(format!("standing.lua answered '{state}'"))),
    };
    Ok((group, standing))
}
