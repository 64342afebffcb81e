//! Replay: the events of a type that are kept, in the order of their entries, page by page. Nobody takes them, and
//! nothing is held between two pages, neither here nor in the store: all that the next page needs is in its cursor.
//!
//! A type may lie in many streams (partitions and their lanes). A page reads a piece of each, and hands out what lies
//! before the end of every piece behind which there is more. The rest is read again with the next page: each stream is
//! asked for about as much as it gave to the page before, so that this is little, whatever their shares are.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::event::{MetaView, Priority};
use super::store::{Body, EntryId, Kept, Partition, Store};

/// A page has about so many bytes of metadata and data, over all streams.
const PAGE_BYTES: usize = 1024 * 1024;
/// Most entries a page, over all streams. Sizes are known only after reading: this bounds what a page can have when
/// small events are followed by large ones.
const PAGE_ENTRIES_MAX: usize = 1000;
/// Entries of the first page, when nothing is known of their size.
const PAGE_ENTRIES_FIRST: usize = 16;
/// A stream that gave nothing to the last page is asked for so many entries.
const ENTRIES_IDLE: usize = 4;
/// Streams asked at once.
const READS_AT_ONCE: usize = 16;

/// Asks all of these, a few at once; the answers in the same order.
pub async fn all_of<T: Send>(questions: Vec<BoxFuture<'_, Result<T>>>) -> Result<Vec<T>> {
    stream::iter(questions).buffered(READS_AT_ONCE).try_collect().await
}

/// Which part of the history.
#[derive(Clone, Debug, Default)]
pub struct Period {
    /// Entries from this server time on, ms since 1970.
    pub from_ms: Option<u64>,
    /// Up to this one, included.
    pub to_ms: Option<u64>,
}

/// One event of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Past {
    /// Packed metadata.
    pub meta: String,
    /// The data's JSON text.
    pub data: String,
}

/// One page.
#[derive(Debug, Default)]
pub struct Page {
    /// Its events. May be none though there are more.
    pub events: Vec<Past>,
    /// Entries left out because this bus did not write them: how many, and the first of them.
    pub foreign: Option<(usize, Partition, EntryId)>,
    /// Where the next page begins; `None`: this was the last one.
    pub cursor: Option<String>,
}

/// Order over all streams of a type: entries of two streams may have the same id.
type Key = (EntryId, u16, Priority);

/// A stream of the type that has not come to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Source(u16, Priority, usize);

impl Source {
    fn key(&self, id: EntryId) -> Key {
        (id, self.0, self.1)
    }

    /// The place in this stream behind which lies what comes after `key`.
    fn place_behind(&self, key: Key) -> EntryId {
        if self.key(key.0) <= key { key.0 } else { key.0.previous() }
    }
}

/// All that the next page needs.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    /// What was handed out goes up to here.
    after: Key,
    /// The last entry there was when the replay began: one that follows a busy type comes to an end, too.
    end: EntryId,
    sources: Vec<Source>,
}

/// A piece of one stream.
struct Piece {
    source: Source,
    entries: Vec<Kept>,
    /// There may be more behind it.
    more: bool,
}

fn size_of(entry: &Kept) -> usize {
    match &entry.body {
        Body::Event { meta, data, .. } => meta.len() + data.len(),
        Body::Foreign(fields) => fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
    }
}

/// The next page of `event_type` after `cursor`, with at most `count` events.
pub async fn page(store: &dyn Store, event_type: &str, period: &Period, cursor: Option<&str>, count: Option<usize>) -> Result<Page> {
    let cursor = match cursor {
        None => begin(store, event_type, period).await?,
        Some(text) => Some(serde_json::from_str(text).map_err(|error| Error::argument("cursor", format!("cannot be read: {error}")))?),
    };
    let Some(cursor) = cursor else { return Ok(Page::default()) };
    let partition = |source: &Source| Partition::new(event_type, source.0).in_lane(source.1);
    let reads = cursor.sources.iter().map(|source| {
        let (source, after, end) = (source.clone(), source.place_behind(cursor.after), cursor.end);
        let read: BoxFuture<'_, Result<Piece>> = Box::pin(async move {
            let asked = source.2;
            let entries = store.history(&partition(&source), after, end, asked).await?;
            Ok(Piece { source, more: entries.len() >= asked, entries })
        });
        read
    });
    let pieces = all_of(reads.collect()).await?;
    let Merged { entries, after, sources } = merge(pieces, cursor.after, count);
    let mut page = Page::default();
    for (source, entry) in entries {
        match entry.body {
            // A copy for one group: the entry that was published is, or was, part of the history.
            Body::Event { only_group: Some(_), .. } => {}
            Body::Event { meta, data, .. } => match (MetaView::read(&meta), str::from_utf8(&meta), str::from_utf8(&data)) {
                (Ok(_), Ok(meta), Ok(data)) => page.events.push(Past { meta: meta.to_owned(), data: data.to_owned() }),
                _ => page.leave_out(partition(&source), entry.id),
            },
            Body::Foreign(_) => page.leave_out(partition(&source), entry.id),
        }
    }
    if !sources.is_empty() {
        let next = Cursor { after, end: cursor.end, sources };
        page.cursor = Some(serde_json::to_string(&next).map_err(|error| Error::internal(format!("a cursor: {error}")))?);
    }
    Ok(page)
}

impl Page {
    fn leave_out(&mut self, partition: Partition, id: EntryId) {
        self.foreign.get_or_insert((0, partition, id)).0 += 1;
    }
}

/// Where a replay begins and ends; `None`: there is nothing.
async fn begin(store: &dyn Store, event_type: &str, period: &Period) -> Result<Option<Cursor>> {
    let mut partitions = store.topology().await?.partitions;
    partitions.retain(|partition| *partition.event_type == *event_type);
    let lasts = all_of(partitions.iter().map(|partition| store.last_entry(partition)).collect()).await?;
    let there = partitions.iter().zip(lasts).filter_map(|(partition, last)| last.map(|last| (partition, last)));
    let (there, lasts): (Vec<&Partition>, Vec<EntryId>) = there.unzip();
    let Some(last) = lasts.into_iter().max() else { return Ok(None) };
    let end = period.to_ms.map_or(last, |ms| last.min(EntryId { ms, seq: u64::MAX }));
    let asked = (PAGE_ENTRIES_FIRST / there.len()).max(1);
    let after = period.from_ms.map_or(EntryId::default(), |ms| EntryId { ms, seq: 0 }.previous());
    Ok(Some(Cursor {
        // Behind the last lane of the last partition: everything after this place, in every stream.
        after: (after, u16::MAX, Priority::Low),
        end,
        sources: there.into_iter().map(|partition| Source(partition.index, partition.lane, asked)).collect(),
    }))
}

/// What [`merge`] made of pieces.
struct Merged {
    entries: Vec<(Source, Kept)>,
    after: Key,
    /// Streams with more, and how much to ask of each.
    sources: Vec<Source>,
}

/// Puts pieces in one order, as far as it is known: no further than any piece that may go on. At most `count` events.
fn merge(pieces: Vec<Piece>, after: Key, count: Option<usize>) -> Merged {
    let end_of = |piece: &Piece| piece.entries.last().map(|entry| piece.source.key(entry.id));
    let known = pieces.iter().filter(|piece| piece.more).filter_map(end_of).min();
    let mut all = Vec::with_capacity(pieces.iter().map(|piece| piece.entries.len()).sum());
    let mut streams = Vec::with_capacity(pieces.len());
    for (nth, Piece { source, entries, more }) in pieces.into_iter().enumerate() {
        let bytes: usize = entries.iter().map(size_of).sum();
        let (each, last) = (bytes.checked_div(entries.len()).unwrap_or(0).max(1), entries.last().map(|entry| source.key(entry.id)));
        all.extend(entries.into_iter().map(|entry| (source.key(entry.id), nth, entry)));
        streams.push((source, more, last, each, 0));
    }
    all.retain(|(key, ..)| known.is_none_or(|known| *key <= known));
    all.sort_unstable_by_key(|(key, ..)| *key);
    let mut after = after;
    let mut entries = Vec::with_capacity(all.len());
    let mut events = 0;
    for (key, nth, entry) in all {
        if count == Some(events) {
            break;
        }
        events += usize::from(matches!(entry.body, Body::Event { only_group: None, .. }));
        after = key;
        streams[nth].4 += 1;
        entries.push((streams[nth].0.clone(), entry));
    }
    // Those that had no more behind their piece are at their end once all of it is handed out.
    streams.retain(|(_, more, last, ..)| *more || last.is_some_and(|last| last > after));
    Merged { entries, after, sources: shares(streams.into_iter().map(|(source, _, _, each, given)| (source, each, given)).collect()) }
}

/// How much each stream is asked for next: about what it gave, growing, within the bounds of a page.
fn shares(streams: Vec<(Source, usize, usize)>) -> Vec<Source> {
    let wanted = |given: usize| given * 2 + ENTRIES_IDLE;
    let entries: usize = streams.iter().map(|(_, _, given)| wanted(*given)).sum();
    let bytes: usize = streams.iter().map(|(_, each, given)| each * wanted(*given)).sum();
    let scaled = |n: usize| {
        let by_entries = n * PAGE_ENTRIES_MAX / entries.max(PAGE_ENTRIES_MAX);
        by_entries.min(n * PAGE_BYTES / bytes.max(PAGE_BYTES)).max(1)
    };
    streams.into_iter().map(|(source, _, given)| Source(source.0, source.1, scaled(wanted(given)))).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(ms: u64, data_bytes: usize) -> Kept {
        let body = Body::Event { meta: Bytes::new(), data: vec![b'0'; data_bytes].into(), only_group: None, first_entry: None };
        Kept { id: EntryId { ms, seq: 0 }, body }
    }

    fn piece(index: u16, times: &[u64], more: bool) -> Piece {
        Piece { source: Source(index, Priority::Normal, times.len()), entries: times.iter().map(|ms| entry(*ms, 10)).collect(), more }
    }

    const START: Key = (EntryId { ms: 0, seq: 0 }, u16::MAX, Priority::Low);

    fn places(merged: &Merged) -> Vec<(u16, u64)> {
        merged.entries.iter().map(|(source, entry)| (source.0, entry.id.ms)).collect()
    }

    fn left(merged: &Merged) -> Vec<u16> {
        merged.sources.iter().map(|source| source.0).collect()
    }

    #[test]
    fn what_is_whole_is_handed_out_whole_in_order() {
        let merged = merge(vec![piece(0, &[1, 4], false), piece(1, &[2, 3], false), piece(2, &[], false)], START, None);
        assert_eq!(places(&merged), [(0, 1), (1, 2), (1, 3), (0, 4)]);
        assert_eq!(left(&merged), [] as [u16; 0]);
    }

    #[test]
    fn nothing_is_handed_out_behind_the_end_of_a_piece_that_goes_on() {
        let merged = merge(vec![piece(0, &[1, 5, 9], false), piece(1, &[2, 5], true)], START, None);
        assert_eq!(places(&merged), [(0, 1), (1, 2), (0, 5), (1, 5)]);
        assert_eq!(left(&merged), [0, 1], "the first has its 9 still");
        assert_eq!(merged.after, (EntryId { ms: 5, seq: 0 }, 1, Priority::Normal));
    }

    #[test]
    fn entries_with_one_id_in_two_streams_are_told_apart() {
        let merged = merge(vec![piece(0, &[5], true), piece(1, &[5], true)], START, None);
        assert_eq!(places(&merged), [(0, 5)]);
        let [first, second] = merged.sources.as_slice() else { panic!("two") };
        assert_eq!(first.place_behind(merged.after), EntryId { ms: 5, seq: 0 });
        assert_eq!(second.place_behind(merged.after), EntryId { ms: 4, seq: u64::MAX });
    }

    #[test]
    fn a_limit_cuts_the_page_and_the_rest_stays() {
        let merged = merge(vec![piece(0, &[1, 3], false), piece(1, &[2, 4], false)], START, Some(3));
        assert_eq!(places(&merged), [(0, 1), (1, 2), (0, 3)]);
        assert_eq!(left(&merged), [1]);
        let merged = merge(vec![piece(0, &[1, 3], false)], START, Some(0));
        assert_eq!((places(&merged).len(), left(&merged)), (0, vec![0]));
    }

    #[test]
    fn shares_follow_what_streams_gave_within_the_page() {
        let source = |index| Source(index, Priority::Normal, 1);
        let asked = |streams| shares(streams).into_iter().map(|source| source.2).collect::<Vec<_>>();
        assert_eq!(asked(vec![(source(0), 100, 50), (source(1), 100, 0)]), [104, 4]);
        assert_eq!(asked(vec![(source(0), 100, 5000)]), [PAGE_ENTRIES_MAX]);
        assert_eq!(asked(vec![(source(0), PAGE_BYTES / 8, 50)]), [8]);
        assert_eq!(asked(vec![(source(0), PAGE_BYTES * 3, 1), (source(1), 1, 0)]), [1, 1], "one at least");
        assert_eq!(asked(vec![(source(0), 1000, 500), (source(1), 1000, 500)]), [500, 500]);
    }
}
