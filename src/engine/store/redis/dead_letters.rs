//! Dead letters: a stream a type and bucket; queries walk them bucket by bucket, type by type.

use std::collections::BTreeSet;

use redis::Value;

use super::super::{Bucket, DeadLetterQuery, EntryId, Partition, StoredDeadLetter};
use super::{Shared, keys, reply, scripts};
use crate::engine::error::{Error, Result};

/// Letters read from the server at once.
const PAGE: usize = 200;

/// One stream of dead letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Where it lives.
    pub bucket: Bucket,
    /// Type of its events.
    pub event_type: String,
}

/// What one page read: the letters that match, the partitions they came from, and where to go on.
struct Page {
    letters: Vec<StoredDeadLetter>,
    origins: BTreeSet<Partition>,
    next: Option<EntryId>,
}

/// A way through all letters of a query, page by page.
struct Walk {
    places: Vec<Place>,
    at: usize,
    after: Option<EntryId>,
}

fn matches(query: &DeadLetterQuery, letter: &StoredDeadLetter) -> bool {
    query.group.as_ref().is_none_or(|group| *group == letter.group) && query.ids.as_ref().is_none_or(|ids| ids.contains(&letter.id))
}

fn refuse_empty(query: &DeadLetterQuery) -> Result<()> {
    if query.ids.is_none() && query.event_type.is_none() && query.group.is_none() {
        return Err(Error::argument("query", "is empty, which would mean every dead letter; name an event type, a group or ids"));
    }
    Ok(())
}

impl Shared {
    /// Streams that can hold letters of the query, in a fixed order.
    async fn places(&self, query: &DeadLetterQuery) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        if let Some(ids) = &query.ids {
            for id in ids {
                let Some((bucket, _, event_type)) = keys::parse_dead_letter_id(id) else {
                    return Err(Error::argument("ids", format!("{id:?} is not the id of a dead letter")));
                };
                places.push(Place { bucket, event_type: event_type.to_owned() });
            }
        } else {
            for partition in self.partitions().await? {
                if query.event_type.as_ref().is_none_or(|wanted| **wanted == *partition.event_type) {
                    places.push(Place { bucket: partition.bucket(), event_type: partition.event_type.to_string() });
                }
            }
        }
        places.sort();
        places.dedup();
        Ok(places)
    }

    async fn page(&self, place: &Place, query: &DeadLetterQuery, after: Option<EntryId>, count: usize) -> Result<Page> {
        let from = match (after, query.from_ms) {
            (Some(id), _) => format!("({id}"),
            (None, Some(ms)) => ms.to_string(),
            (None, None) => "-".to_owned(),
        };
        let to = query.to_ms.map_or_else(|| "+".to_owned(), |ms| ms.to_string());
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(self.keys.dead_letters(place.bucket, &place.event_type)).arg(from).arg(to).arg("COUNT").arg(count);
        let rows = reply::list(self.at(place.bucket).query(cmd).await?)?;
        let full = rows.len() == count;
        let mut page = Page { letters: Vec::new(), origins: BTreeSet::new(), next: None };
        for row in rows {
            let (id, letter, origin) = read_letter(place, row)?;
            page.next = full.then_some(id);
            if matches(query, &letter) {
                page.letters.push(letter);
                page.origins.extend(origin);
            }
        }
        Ok(page)
    }

    /// See `Store::dead_letters`.
    pub async fn dead_letters(
        &self,
        query: &DeadLetterQuery,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(Vec<StoredDeadLetter>, Option<String>)> {
        let places = self.places(query).await?;
        let (mut at, mut after) = match cursor {
            None => (0, None),
            Some(cursor) => {
                let (bucket, id, event_type) = keys::parse_dead_letter_id(cursor)
                    .ok_or_else(|| Error::argument("cursor", format!("{cursor:?} is not a cursor of this list")))?;
                let place = Place { bucket, event_type: event_type.to_owned() };
                let at = places.partition_point(|other| *other < place);
                (at, (places.get(at) == Some(&place)).then_some(id))
            }
        };
        let mut out = Vec::new();
        // No more than there is room for: letters may be large. Where few of them match, ever more at once.
        let mut count = limit.clamp(1, PAGE);
        while let Some(place) = places.get(at) {
            let mut page = self.page(place, query, after, count).await?;
            count = (count * 2).min(PAGE);
            let room = limit - out.len();
            if page.letters.len() > room {
                page.letters.truncate(room);
                out.append(&mut page.letters);
                return Ok((out.clone(), out.last().map(|last| last.id.clone())));
            }
            out.append(&mut page.letters);
            after = page.next;
            if after.is_none() {
                at += 1;
            }
            if out.len() == limit {
                let more = after.is_some() || at < places.len();
                return Ok((out.clone(), more.then(|| out.last().map(|last| last.id.clone())).flatten()));
            }
        }
        Ok((out, None))
    }

    /// See `Store::count_dead_letters`.
    pub async fn count_dead_letters(&self, query: &DeadLetterQuery) -> Result<u64> {
        let mut walk = self.walk(query).await?;
        let mut count = 0;
        if query.ids.is_none() && query.group.is_none() && query.from_ms.is_none() && query.to_ms.is_none() {
            for place in &walk.places {
                let mut cmd = redis::cmd("XLEN");
                cmd.arg(self.keys.dead_letters(place.bucket, &place.event_type));
                count += reply::count(&self.at(place.bucket).query(cmd).await?)?;
            }
            return Ok(count);
        }
        while let Some((_, Page { letters, .. })) = self.step(&mut walk, query).await? {
            count += letters.len() as u64;
        }
        Ok(count)
    }

    async fn walk(&self, query: &DeadLetterQuery) -> Result<Walk> {
        Ok(Walk { places: self.places(query).await?, at: 0, after: None })
    }

    /// The next letters of a walk, all of one place; `None` at the end.
    async fn step(&self, walk: &mut Walk, query: &DeadLetterQuery) -> Result<Option<(Place, Page)>> {
        while let Some(place) = walk.places.get(walk.at).cloned() {
            let page = self.page(&place, query, walk.after, PAGE).await?;
            walk.after = page.next;
            if walk.after.is_none() {
                walk.at += 1;
            }
            if !page.letters.is_empty() {
                return Ok(Some((place, page)));
            }
        }
        Ok(None)
    }

    /// See `Store::redrive`.
    pub async fn redrive(&self, query: &DeadLetterQuery) -> Result<u64> {
        refuse_empty(query)?;
        let query = self.until_now(query).await?;
        let mut walk = self.walk(&query).await?;
        let mut count = 0;
        while let Some((place, Page { letters, origins, .. })) = self.step(&mut walk, &query).await? {
            self.reopen(origins).await?;
            let key = self.keys.dead_letters(place.bucket, &place.event_type);
            let mut cmd = scripts::call(&scripts::REDRIVE, &[&key]);
            cmd.arg(self.keys.base(place.bucket)).arg(entry_ids(&letters));
            count += reply::count(&self.at(place.bucket).query(cmd).await?)?;
        }
        Ok(count)
    }

    /// A redriven event that fails again at once must not be met a second time.
    async fn until_now(&self, query: &DeadLetterQuery) -> Result<DeadLetterQuery> {
        let time = self.control.query(redis::cmd("TIME")).await?;
        let now = reply::time_ms(time)?;
        Ok(DeadLetterQuery { to_ms: query.to_ms.or(Some(now)), ..query.clone() })
    }

    /// Streams may be gone, while their dead letters are kept: they come back with their groups.
    async fn reopen(&self, origins: BTreeSet<Partition>) -> Result<()> {
        for partition in origins {
            let mut exists = redis::cmd("EXISTS");
            exists.arg(self.keys.stream(&partition));
            if reply::int(&self.at(partition.bucket()).query(exists).await?)? == 0 {
                self.open_partition(&partition).await?;
            }
        }
        Ok(())
    }

    /// See `Store::purge`.
    pub async fn purge(&self, query: &DeadLetterQuery) -> Result<u64> {
        refuse_empty(query)?;
        let query = self.until_now(query).await?;
        let mut walk = self.walk(&query).await?;
        let mut count = 0;
        while let Some((place, Page { letters, .. })) = self.step(&mut walk, &query).await? {
            let mut cmd = redis::cmd("XDEL");
            cmd.arg(self.keys.dead_letters(place.bucket, &place.event_type)).arg(entry_ids(&letters));
            count += reply::count(&self.at(place.bucket).query(cmd).await?)?;
        }
        Ok(count)
    }
}

fn entry_ids(letters: &[StoredDeadLetter]) -> Vec<String> {
    letters.iter().filter_map(|l| keys::parse_dead_letter_id(&l.id).map(|(_, id, _)| id.to_string())).collect()
}

/// The letter, its own id, and the partition of its entry.
pub fn read_letter(place: &Place, row: Value) -> Result<(EntryId, StoredDeadLetter, Option<Partition>)> {
    let mut row = reply::list(row)?.into_iter();
    let (Some(id), Some(fields)) = (row.next(), row.next()) else { return Err(reply::unexpected("XRANGE")) };
    let id = reply::entry_id(&id)?;
    let mut letter = StoredDeadLetter {
        id: keys::dead_letter_id(place.bucket, &id.to_string(), &place.event_type),
        event_type: place.event_type.clone(),
        group: String::new(),
        reason: String::new(),
        error: String::new(),
        attempts: 0,
        failed_at_ms: id.ms,
        meta: String::new(),
        data: String::new(),
    };
    let mut origin = None;
    let mut fields = reply::list(fields)?.into_iter();
    while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
        match reply::bytes(key)?.as_slice() {
            b"group" => letter.group = reply::text(value)?,
            b"reason" => letter.reason = reply::text(value)?,
            b"error" => letter.error = reply::text(value)?,
            b"attempts" => letter.attempts = u32::try_from(reply::count(&value)?).unwrap_or(u32::MAX),
            b"entry" => origin = reply::text(value)?.split_once(' ').and_then(|(member, _)| keys::parse_member(member)),
            b"meta" => letter.meta = reply::text(value)?,
            b"data" => letter.data = reply::text(value)?,
            _ => {}
        }
    }
    Ok((id, letter, origin))
}
