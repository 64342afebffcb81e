//! All that a memory store holds, under one lock. Time comes in as an argument, so every step is a plain function.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::super::{
    Appended, Backlog, Bucket, EntryId, GroupSpec, GroupState, NewEvent, Partition, PartitionState, Restored, StartFrom, StreamLayout,
    Topology,
};
use super::append::{Bound, IdempotencyKeys};
use super::asking::Messages;
use super::board::BoardState;
use super::chains::Audit;
use super::commons::InCommon;
use super::dead_letters::DeadLetters;
use super::lease::Leases;
use super::roster::Register;
use super::stream::Stream;
use crate::engine::error::{Code, Error, Result};
use crate::engine::event::Priority;
use crate::engine::name;

/// How long after its join a member counts as live without a lease, ms: it takes its leases right after.
pub(super) const JOIN_GRACE_MS: u64 = 10_000;

/// One unit of placement.
#[derive(Debug, Default)]
pub(super) struct BucketState {
    pub(super) streams: BTreeMap<Partition, Stream>,
    pub(super) dead: DeadLetters,
    /// By type and index, in the normal lane.
    idempotency: HashMap<Partition, IdempotencyKeys>,
    pub(super) leases: Leases,
    pub(super) audit: Audit,
}

/// A durable subscription and its members, with the time of their joins.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) options: String,
    pub(super) holders: HashMap<String, u64>,
}

/// All that a memory store holds.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) buckets: BTreeMap<Bucket, BucketState>,
    /// Consumers that are there, whether they have a lease in a bucket yet or not: until when, ms.
    pub(super) present: HashMap<String, u64>,
    /// By group and pattern.
    pub(super) specs: BTreeMap<(String, String), Spec>,
    /// By event type.
    layouts: BTreeMap<String, StreamLayout>,
    /// Wakes the readers of a group; gone with the last of them.
    pub(super) signals: BTreeMap<String, Weak<Notify>>,
    /// By name.
    pub(super) inboxes: HashMap<String, Messages>,
    pub(super) in_common: InCommon,
    pub(super) register: Register,
    pub(super) board: BoardState,
}

/// Whether the holder has a lease, or joined so lately that it may not have one yet.
pub(super) fn is_live(
    buckets: &BTreeMap<Bucket, BucketState>,
    present: &HashMap<String, u64>,
    holder: &str,
    joined_ms: u64,
    now_ms: u64,
) -> bool {
    joined_ms.saturating_add(JOIN_GRACE_MS) > now_ms
        || present.get(holder).is_some_and(|end_ms| *end_ms > now_ms)
        || buckets.values().any(|bucket| bucket.leases.is_live(holder, now_ms))
}

impl State {
    pub(super) fn bucket_mut(&mut self, bucket: Bucket) -> &mut BucketState {
        self.buckets.entry(bucket).or_default()
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = (Bucket, &BucketState)> {
        self.buckets.iter().map(|(bucket, state)| (*bucket, state))
    }

    pub(super) fn stream_mut(&mut self, at: &Partition) -> Option<&mut Stream> {
        self.buckets.get_mut(&at.bucket())?.streams.get_mut(at)
    }

    pub(super) fn stream(&self, at: &Partition) -> Option<&Stream> {
        self.buckets.get(&at.bucket())?.streams.get(at)
    }

    /// What wakes the readers of `group`.
    pub(super) fn reader_signal(&mut self, group: &str) -> Arc<Notify> {
        if let Some(signal) = self.signals.get(group).and_then(Weak::upgrade) {
            return signal;
        }
        self.signals.retain(|_, signal| signal.strong_count() > 0);
        let signal = Arc::new(Notify::new());
        self.signals.insert(group.to_owned(), Arc::downgrade(&signal));
        signal
    }

    /// Something was added to the stream: wakes the readers of its groups, and no others.
    pub(super) fn signal(&self, at: &Partition) {
        let Some(stream) = self.stream(at) else { return };
        for (name, signal) in &self.signals {
            if stream.groups.contains_key(name)
                && let Some(signal) = signal.upgrade()
            {
                signal.notify_waiters();
            }
        }
    }

    /// See [`Store::topology`](super::super::Store::topology).
    pub(super) fn topology(&self) -> Topology {
        let mut partitions: Vec<Partition> = self.buckets.values().flat_map(|bucket| bucket.streams.keys()).cloned().collect();
        partitions.sort();
        let mut types: Vec<String> = partitions.iter().map(|at| at.event_type.to_string()).collect();
        types.dedup();
        let groups = self.specs.iter().map(|((group, pattern), spec)| GroupSpec {
            group: group.clone(),
            pattern: pattern.clone(),
            options: spec.options.clone(),
        });
        let layouts = self.layouts.iter().filter(|(_, layout)| **layout != StreamLayout::default());
        let layouts = layouts.map(|(event_type, layout)| (event_type.clone(), layout.clone())).collect();
        Topology { types, partitions, groups: groups.collect(), layouts }
    }

    /// See [`Store::layout`](super::super::Store::layout).
    pub(super) fn layout(&mut self, event_type: &str) -> StreamLayout {
        self.layouts.entry(event_type.to_owned()).or_default().clone()
    }

    /// See [`Store::create_stream`](super::super::Store::create_stream).
    pub(super) fn create_stream(&mut self, event_type: &str, layout: &StreamLayout) -> Result<()> {
        if let Some(noted) = self.layouts.get(event_type).filter(|noted| noted.partitions != layout.partitions) {
            return Err(StreamLayout::other_partitions(event_type, noted.partitions, layout.partitions));
        }
        self.layouts.insert(event_type.to_owned(), layout.clone());
        Ok(())
    }

    /// See [`Store::open_partition`](super::super::Store::open_partition). Answers whether the partition is new.
    pub(super) fn open_partition(&mut self, at: &Partition) -> bool {
        let streams = &mut self.buckets.entry(at.bucket()).or_default().streams;
        let is_new = !streams.contains_key(at);
        let stream = streams.entry(at.clone()).or_default();
        for (group, pattern) in self.specs.keys() {
            if name::matches(pattern, &at.event_type) {
                stream.add_group(group, EntryId::default());
            }
        }
        is_new
    }

    /// See [`Store::join`](super::super::Store::join). Answers the partitions, and whether the topology changed.
    pub(super) fn join(&mut self, spec: &GroupSpec, start: StartFrom, consumer: &str, now_ms: u64) -> Result<(Vec<Partition>, bool)> {
        let mut changed = self.hold(spec, consumer, now_ms)?;
        if !name::is_pattern(&spec.pattern) {
            let at = Partition::new(spec.pattern.as_str(), 0);
            changed |= self.stream(&at).is_none() && self.open_partition(&at);
        }
        let mut joined = Vec::new();
        for bucket in self.buckets.values_mut() {
            for (at, stream) in &mut bucket.streams {
                if name::matches(&spec.pattern, &at.event_type) {
                    stream.add_group(&spec.group, stream.position(start));
                    joined.push(at.clone());
                }
            }
        }
        Ok((joined, changed))
    }

    /// See [`Exclusive::members`](super::super::Exclusive::members).
    pub(super) fn members(&self, spec: &GroupSpec, now_ms: u64) -> usize {
        let holders = self.specs.get(&(spec.group.clone(), spec.pattern.clone())).map(|spec| &spec.holders);
        holders
            .into_iter()
            .flatten()
            .filter(|(holder, joined_ms)| is_live(&self.buckets, &self.present, holder, **joined_ms, now_ms))
            .count()
    }

    /// Makes `consumer` a holder of the spec, unless a live one holds it with other options.
    fn hold(&mut self, spec: &GroupSpec, consumer: &str, now_ms: u64) -> Result<bool> {
        let key = (spec.group.clone(), spec.pattern.clone());
        let Some(known) = self.specs.get_mut(&key) else {
            let holders = HashMap::from([(consumer.to_owned(), now_ms)]);
            self.specs.insert(key, Spec { options: spec.options.clone(), holders });
            return Ok(true);
        };
        known.holders.retain(|holder, joined_ms| is_live(&self.buckets, &self.present, holder, *joined_ms, now_ms));
        let changed = known.options != spec.options;
        if changed && known.holders.keys().any(|holder| holder != consumer) {
            return Err(Error::argument(
                "options",
                format!(
                    "group '{}' on '{}' has live members with {}; this one asks for {}: use the same options or another group",
                    spec.group, spec.pattern, known.options, spec.options
                ),
            ));
        }
        known.options.clone_from(&spec.options);
        known.holders.insert(consumer.to_owned(), now_ms);
        Ok(changed)
    }

    /// See [`Store::leave`](super::super::Store::leave).
    pub(super) fn leave(&mut self, spec: &GroupSpec, consumer: &str, now_ms: u64) {
        if let Some(known) = self.specs.get_mut(&(spec.group.clone(), spec.pattern.clone())) {
            known.holders.remove(consumer);
            if spec.is_ephemeral() && known.holders.is_empty() {
                self.end_group(&spec.group, &spec.pattern, Some(consumer), now_ms);
            }
        }
    }

    /// See [`Store::restore_group`](super::super::Store::restore_group).
    pub(super) fn restore_group(&mut self, at: &Partition, group: &str, after: EntryId, seen: EntryId) -> Restored {
        let stream = self.bucket_mut(at.bucket()).streams.entry(at.clone()).or_default();
        // Entries go from the front only: where the one seen is gone, the beginning is as good.
        let is_same = stream.entries.get(seen).is_some();
        match stream.add_group(group, if is_same { after } else { EntryId::default() }) {
            false => Restored::There,
            true if is_same => Restored::Continued,
            true => Restored::Anew,
        }
    }

    /// See [`Store::append`](super::super::Store::append). The flag: a partition became known.
    pub(super) fn append(&mut self, bucket: Bucket, events: Vec<NewEvent>, now_ms: u64) -> (Vec<Result<Appended>>, bool) {
        let mut grown = BTreeSet::new();
        let mut is_new = false;
        let results = events.into_iter().map(|event| {
            let at = event.partition.clone();
            if at.bucket() != bucket {
                return Err(Error::internal(format!("{at} does not belong to bucket {}", bucket.0)));
            }
            if event.cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire)) {
                return Err(Error::new(Code::Aborted, "the publish was aborted before it was sent"));
            }
            if self.stream(&at).is_none() {
                is_new |= self.open_partition(&at);
            }
            let layout = self.layouts.get(&*at.event_type);
            let bound = Bound {
                length_max: layout.and_then(|layout| layout.length_max).or(event.length_max),
                without_group: layout.is_some_and(|layout| layout.keep_count.is_some() || layout.keep_ms.is_some()),
            };
            let BucketState { streams, idempotency, .. } = self.bucket_mut(bucket);
            // Of all lanes together, and only for an event that has a key.
            let has_key = event.idempotency.is_some();
            let keys = has_key.then(|| idempotency.entry(at.clone().in_lane(Priority::Normal)).or_default());
            let appended = streams.entry(at.clone()).or_default().append(event, keys, bound, now_ms)?;
            grown.insert(at);
            Ok(appended)
        });
        let results = results.collect();
        for at in &grown {
            self.signal(at);
        }
        (results, is_new)
    }

    /// See [`Store::backlogs`](super::super::Store::backlogs).
    pub(super) fn backlogs(&self, at: &Partition, groups: &BTreeSet<String>) -> Vec<Backlog> {
        let states = self.stream(at).map(|stream| stream.state().groups).unwrap_or_default();
        let of = |state: GroupState| Backlog { group: state.name, pending: state.pending, lag: state.lag.unwrap_or(0) };
        states.into_iter().filter(|state| groups.contains(&state.name)).map(of).collect()
    }

    /// See [`Store::added`](super::super::Store::added).
    pub(super) fn added(&self, at: &Partition) -> u64 {
        self.stream(at).map_or(0, |stream| stream.entries.added())
    }

    /// See [`Store::inspect`](super::super::Store::inspect).
    pub(super) fn inspect(&self, at: &Partition, now_ms: u64) -> Option<PartitionState> {
        let mut state = self.stream(at)?.state();
        let leases = &self.buckets.get(&at.bucket())?.leases;
        let consumers = state.groups.iter().flat_map(|group| &group.consumers);
        state.live = consumers.filter(|consumer| leases.is_live(consumer, now_ms)).cloned().collect();
        Some(state)
    }
}
