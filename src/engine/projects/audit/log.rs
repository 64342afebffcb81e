//! Looking records up: the streams of all buckets, merged by time, a page at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::record::{self, Outcome};
use crate::engine::error::{Error, Result};
use crate::engine::store::{Bucket, ChainRecord, EntryId, Store};

/// Most records looked at for one page.
const LOOKED_AT_MAX: usize = 20_000;
/// How long before and after its own time a record may have come into the log, ms.
const EARLY_MS_MAX: u64 = 60_000;
const LATE_MS_MAX: u64 = 3_600_000;
/// Records asked for at once of a bucket.
const CHUNK: usize = 200;

/// Which records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Sent by or to this project.
    pub project: Option<String>,
    /// Of this time or later, ms since 1970.
    pub from_ms: Option<u64>,
    /// Of this time or earlier.
    pub to_ms: Option<u64>,
    /// That ended so.
    pub outcome: Option<Outcome>,
}

impl Query {
    fn takes(&self, record: &ChainRecord) -> bool {
        let Some(text) = record::read(record) else { return false };
        let in_time = self.from_ms.is_none_or(|from| from <= text.at) && self.to_ms.is_none_or(|to| text.at <= to);
        in_time
            && self.outcome.is_none_or(|outcome| outcome == text.outcome)
            && self.project.as_deref().is_none_or(|project| text.source == project || text.target == project)
    }
}

/// Records and where the next page begins.
#[derive(Debug, Default)]
pub struct Page {
    /// Oldest first.
    pub records: Vec<ChainRecord>,
    /// `None`: there are no more. A page may be short, or empty, and have more behind it.
    pub cursor: Option<String>,
}

/// Of one bucket, what was read and not looked at yet.
struct Source {
    bucket: Bucket,
    read: VecDeque<(EntryId, ChainRecord)>,
    after: EntryId,
    more: bool,
}

/// The records that match, oldest first, up to `limit`.
pub async fn page(store: &Arc<dyn Store>, query: &Query, limit: usize, cursor: Option<&str>) -> Result<Page> {
    let begin = cursor.map(parse_cursor).transpose()?;
    // A record comes into the log after its time, later where Redis was away.
    let from = EntryId { ms: query.from_ms.unwrap_or(0).saturating_sub(EARLY_MS_MAX), seq: 0 };
    let to = EntryId { ms: query.to_ms.map_or(u64::MAX, |to| to.saturating_add(LATE_MS_MAX)), seq: u64::MAX };
    let mut sources: Vec<Source> = Bucket::all()
        .map(|bucket| {
            // Of records of one time, those of lower buckets come first.
            let after = match begin {
                Some((id, last)) if bucket > last => id.previous(),
                Some((id, _)) => id,
                None => from.previous(),
            };
            Source { bucket, read: VecDeque::new(), after: after.max(from.previous()), more: true }
        })
        .collect();
    let mut page = Page::default();
    for _ in 0..LOOKED_AT_MAX {
        fill(store, &mut sources, to).await?;
        let next = sources.iter_mut().filter(|source| !source.read.is_empty()).min_by_key(|source| (source.read[0].0, source.bucket));
        let Some(source) = next else {
            page.cursor = None;
            return Ok(page);
        };
        let Some((id, record)) = source.read.pop_front() else { continue };
        page.cursor = Some(format!("{id}.{}", source.bucket.0));
        if query.takes(&record) {
            page.records.push(record);
            if page.records.len() >= limit {
                break;
            }
        }
    }
    Ok(page)
}

/// Reads on where nothing is at hand.
async fn fill(store: &Arc<dyn Store>, sources: &mut [Source], to: EntryId) -> Result<()> {
    let empty = sources.iter_mut().filter(|source| source.more && source.read.is_empty());
    let reads = empty.map(|source| async move {
        let records = store.records(source.bucket, source.after, to, CHUNK).await?;
        source.more = records.len() == CHUNK;
        if let Some((last, _)) = records.last() {
            source.after = *last;
        }
        source.read.extend(records);
        Ok::<_, Error>(())
    });
    try_join_all(reads).await.map(drop)
}

fn parse_cursor(text: &str) -> Result<(EntryId, Bucket)> {
    let parse = || {
        let (id, bucket) = text.split_once('.')?;
        let bucket = Bucket(bucket.parse().ok()?);
        Some((id.parse().ok()?, Bucket::all().find(|one| *one == bucket)?))
    };
    parse().ok_or_else(|| Error::argument("query.cursor", "is not one that getAuditLog() gave"))
}
