//! Names of the keys in Redis; the whole layout in one place.
//!
//! `P` is the key prefix. A bucket's tag is its hash tag in Redis Cluster: everything one script touches shares it.

use super::super::{Bucket, EntryId, Errand, Partition, Shelf, Table, inbox_bucket};
use super::hash_slot;
use crate::engine::event::Priority;

/// Version of the layout, in `P:layout`.
pub const LAYOUT_VERSION: u32 = 1;

/// Hash tags of the buckets. Their slots (CRC16 modulo 16384) lie near the middle of each sixteenth of the slots, so
/// that any number of masters up to 16 gets an even share.
const TAGS: [&str; 16] =
    ["b367", "b260", "b9", "b401", "b366", "b261", "b8", "b400", "b447", "b11", "b226", "b321", "b446", "b10", "b227", "b320"];

/// Makes key names. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
    /// `deadLetterQueue.keyPattern`, cut before its last part: the bucket's tag goes between.
    dead_letters: (String, String),
}

/// ':' separates the parts of a key; inside a type or group it is written `%3A` (`%` itself is in no valid name).
fn escape(name: &str) -> std::borrow::Cow<'_, str> {
    if name.contains(':') { name.replace(':', "%3A").into() } else { name.into() }
}

fn unescape(name: &str) -> String {
    name.replace("%3A", ":")
}

/// `T:q`, or `T:q:<priority>` for a lane other than the normal one, as it stands inside keys and index members.
pub fn member(partition: &Partition) -> String {
    let event_type = escape(&partition.event_type);
    match partition.lane {
        Priority::Normal => format!("{event_type}:{}", partition.index),
        lane => format!("{event_type}:{}:{}", partition.index, lane.as_str()),
    }
}

/// Reads what [`member`] wrote.
pub fn parse_member(member: &str) -> Option<Partition> {
    let mut parts = member.split(':');
    let partition = Partition::new(unescape(parts.next()?), parts.next()?.parse().ok()?);
    Some(partition.in_lane(parts.next().map_or(Some(Priority::Normal), Priority::named)?))
}

impl Keys {
    /// Keys under `prefix`; `dead_letter_pattern` replaces `<prefix>:dlq`.
    pub fn new(prefix: &str, dead_letter_pattern: Option<&str>) -> Self {
        let pattern = dead_letter_pattern.map_or_else(|| format!("{prefix}:dlq"), ToOwned::to_owned);
        let dead_letters = match pattern.rsplit_once(':') {
            Some((head, tail)) => (format!("{head}:"), tail.to_owned()),
            None => (String::new(), pattern),
        };
        Self { prefix: prefix.to_owned(), dead_letters }
    }

    /// The hash slot of a bucket.
    pub fn slot(bucket: Bucket) -> u16 {
        hash_slot::of_key(TAGS[usize::from(bucket.0)].as_bytes())
    }

    /// A key that belongs to no bucket.
    pub fn global(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// `P:{tag}:` — what every key of a bucket starts with.
    pub fn base(&self, bucket: Bucket) -> String {
        format!("{}:{{{}}}:", self.prefix, TAGS[usize::from(bucket.0)])
    }

    /// A key of a bucket.
    pub fn in_bucket(&self, bucket: Bucket, name: &str) -> String {
        format!("{}:{{{}}}:{name}", self.prefix, TAGS[usize::from(bucket.0)])
    }

    /// The entries.
    pub fn stream(&self, p: &Partition) -> String {
        self.in_bucket(p.bucket(), &format!("stream:{}", member(p)))
    }

    /// Entries of a group that wait for redelivery: id, due time.
    pub fn retry(&self, p: &Partition, group: &str) -> String {
        self.in_bucket(p.bucket(), &format!("retry:{}:{}", member(p), escape(group)))
    }

    /// The consumer that reads the partition, for an ordered group.
    pub fn owner(&self, p: &Partition, group: &str) -> String {
        self.in_bucket(p.bucket(), &format!("owner:{}:{}", member(p), escape(group)))
    }

    /// Crashes and last error of entries of a group that failed: id, `<crashes> <error>`.
    pub fn failed(&self, p: &Partition, group: &str) -> String {
        self.in_bucket(p.bucket(), &format!("failed:{}:{}", member(p), escape(group)))
    }

    /// What a group has on a partition, as scripts take it: stream, [`retry`](Self::retry), [`failed`](Self::failed),
    /// [`due`](Self::due), [`owner`](Self::owner).
    pub fn group(&self, p: &Partition, group: &str) -> [String; 5] {
        [self.stream(p), self.retry(p, group), self.failed(p, group), self.due(p.bucket(), group), self.owner(p, group)]
    }

    /// Partitions of a group in a bucket with a redelivery waiting: member, earliest due time.
    pub fn due(&self, bucket: Bucket, group: &str) -> String {
        self.in_bucket(bucket, &format!("due:{}", escape(group)))
    }

    /// Dead letters of a type in a bucket; `event_type` is escaped here.
    pub fn dead_letters(&self, bucket: Bucket, event_type: &str) -> String {
        let (head, tail) = &self.dead_letters;
        format!("{head}{{{}}}:{tail}:{}", TAGS[usize::from(bucket.0)], escape(event_type))
    }

    /// Events published for later.
    pub fn delayed(&self, p: &Partition) -> String {
        self.in_bucket(p.bucket(), &format!("delayed:{}", member(p)))
    }

    /// Their bodies.
    pub fn delayed_bodies(&self, p: &Partition) -> String {
        self.in_bucket(p.bucket(), &format!("delayed-body:{}", member(p)))
    }

    /// Events whose entries are younger than their ids: event id, or event id and group where it was redriven; ms of the
    /// entry.
    pub fn moved(&self, p: &Partition) -> String {
        self.in_bucket(p.bucket(), &format!("moved:{}", member(p)))
    }

    /// An idempotency key, one for all lanes.
    pub fn idempotency(&self, p: &Partition, key: &str) -> String {
        self.in_bucket(p.bucket(), &format!("idem:{}:{key}", member(&p.clone().in_lane(Priority::Normal))))
    }

    /// The inbox of that name.
    pub fn inbox(&self, name: &str) -> String {
        self.in_bucket(inbox_bucket(name), &format!("inbox:{name}"))
    }

    /// Channel of the events of a bucket that are not stored.
    pub fn transient(&self, bucket: Bucket) -> String {
        self.in_bucket(bucket, "transient")
    }

    /// Documents: name, text; the version under the empty name.
    pub fn shelf(&self, on: Shelf) -> String {
        self.global(on.as_str())
    }

    /// What is taken of a limit over all processes. Unlike types and groups its name may be any text.
    pub fn rate(&self, name: &str) -> String {
        self.global(&format!("rate:{}", escape(&name.replace('%', "%25"))))
    }

    /// Messages of one time: message, place where it was found first.
    pub fn sightings(&self, time: u64) -> String {
        self.global(&format!("nonce:{time}"))
    }

    /// A key of the register of services, all of which is in one bucket.
    fn services(&self, what: &str) -> String {
        self.in_bucket(Bucket(0), &format!("services{what}"))
    }

    /// Name → health of what is listed.
    pub fn listed_health(&self) -> String {
        self.services(":health")
    }

    /// When listings end: name, ms. One that never ends is not in it.
    pub fn listing_ends(&self) -> String {
        self.services(":until")
    }

    /// What is listed, as scripts take it: name → definition, [`listed_health`](Self::listed_health),
    /// [`listing_ends`](Self::listing_ends), the changes, [`register_state`](Self::register_state).
    pub fn listings(&self) -> [String; 5] {
        [self.services(""), self.listed_health(), self.listing_ends(), self.services(":log"), self.register_state()]
    }

    /// Which register it is (`epoch`), its last change (`last`), and the last turn of an errand (`turn`).
    pub fn register_state(&self) -> String {
        self.services(":state")
    }

    /// When errands are due: name, ms; and those that run: name → turn.
    pub fn errands(&self, errand: Errand) -> [String; 2] {
        ["due", "turn"].map(|what| self.services(&format!(":{what}:{}", errand.name())))
    }

    /// A key of what orchestration keeps, all of which is in one bucket.
    fn orchestration(&self, what: &str) -> String {
        self.in_bucket(Bucket(0), &format!("orch:{what}"))
    }

    /// Id → text.
    pub fn board_table(&self, table: Table) -> String {
        self.orchestration(table.as_str())
    }

    /// Agents: number of the write that changed them.
    pub fn board_changed(&self) -> String {
        self.orchestration("changed")
    }

    /// The last write (`version`) and who did it (`by`), the last one after which readers read all (`floor`), the `summary`, and the
    /// last `turn`.
    pub fn board_state(&self) -> String {
        self.orchestration("state")
    }

    /// `<turn> <who>` of the process that leads.
    pub fn board_leader(&self) -> String {
        self.orchestration("leader")
    }

    /// Records of the chains of a bucket.
    pub fn records(&self, bucket: Bucket) -> String {
        self.in_bucket(bucket, "audit")
    }

    /// What is known of its chains beside the records: `heads` and `anchors` (chain, `<sequence> <hash>`), `trimmed` (chain,
    /// ms of the record of its anchor); and what they count: `counts` and `times`.
    pub fn of_chains(&self, bucket: Bucket, what: &str) -> String {
        self.in_bucket(bucket, &format!("audit:{what}"))
    }

    /// Facts of a partition that its upkeep needs: `ttl_ms_max`, `scan`.
    pub fn facts(&self, p: &Partition) -> String {
        self.in_bucket(p.bucket(), &format!("facts:{}", member(p)))
    }
}

/// `<bucket>.<entry id>.<event type>`: a dead letter's id says where it is.
pub fn dead_letter_id(bucket: Bucket, id: &str, event_type: &str) -> String {
    format!("{}.{id}.{event_type}", bucket.0)
}

/// Reads what [`dead_letter_id`] wrote.
pub fn parse_dead_letter_id(text: &str) -> Option<(Bucket, EntryId, &str)> {
    let mut parts = text.splitn(3, '.');
    let bucket: u8 = parts.next()?.parse().ok()?;
    let id = parts.next()?.parse().ok()?;
    (usize::from(bucket) < TAGS.len()).then_some((Bucket(bucket), id, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_spread_evenly_over_any_number_of_masters() {
        for masters in 1..=16_usize {
            let mut share = vec![0; masters];
            for bucket in Bucket::all() {
                share[usize::from(Keys::slot(bucket)) * masters / 16384] += 1;
            }
            let (least, most) = (share.iter().min().unwrap(), share.iter().max().unwrap());
            assert!(most - least <= 1, "{masters} masters get {share:?}");
        }
    }

    #[test]
    fn types_are_spread_over_the_buckets() {
        let mut share = [0; 16];
        for n in 0..1600 {
            share[usize::from(Partition::new(format!("type.{n}"), 0).bucket().0)] += 1;
        }
        assert!(share.iter().all(|n| (60..150).contains(n)), "{share:?}");
    }

    #[test]
    fn colons_in_names_do_not_make_two_partitions_share_a_key() {
        let keys = Keys::new("p", None);
        let (a, b) = (Partition::new("x:1", 2), Partition::new("x", 1));
        assert_ne!(keys.retry(&a, "g"), keys.retry(&b, "2:g"));
        assert_eq!(parse_member(&member(&a)).unwrap(), a);
        let lane = a.clone().in_lane(Priority::Low);
        assert_eq!((member(&lane).as_str(), parse_member(&member(&lane)).unwrap()), ("x%3A1:2:low", lane.clone()));
        assert_eq!(lane.bucket(), a.bucket());
        assert_eq!(parse_member("x:1:soon"), None);
        assert_eq!(keys.dead_letters(Bucket(2), "a:b"), "p:{b9}:dlq:a%3Ab");
        assert_eq!(Keys::new("p", Some("my:dead")).dead_letters(Bucket(2), "a"), "my:{b9}:dead:a");
        assert_eq!(parse_dead_letter_id("3.5-1.a.b").unwrap(), (Bucket(3), EntryId { ms: 5, seq: 1 }, "a.b"));
        assert!(parse_dead_letter_id("16.5-1.a").is_none());
    }
}
