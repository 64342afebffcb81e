//! One partition: its entries, its groups, and what each group holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{Entry, EntryId, GroupState, Partition, PartitionState, StartFrom};
use super::append::Delayed;
use super::entries::{Entries, Stored};
use super::history::Moved;

/// An entry delivered to a group and not acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// The consumer; `None` while it waits for its retry, when `due_ms` says until when.
    pub(super) owner: Option<Arc<str>>,
    pub(super) due_ms: u64,
    pub(super) deliveries: u32,
    pub(super) crashes: u32,
    /// Last error, empty when there was none.
    pub(super) error: String,
}

/// One group on one partition.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) last_delivered: EntryId,
    pub(super) pending: BTreeMap<EntryId, Pending>,
    /// Pending entries without an owner, by the time they are due.
    pub(super) waiting: BTreeSet<(u64, EntryId)>,
    pub(super) consumers: BTreeSet<Arc<str>>,
    /// The one that reads, for an ordered group.
    pub(super) reader: Option<Arc<str>>,
}

impl Group {
    /// The consumer's name as shared text; makes it known.
    pub(super) fn consumer(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.consumers.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.consumers.insert(name.clone());
        name
    }

    /// Takes the entry from its owner and lets it wait until `due_ms`. The entry must be pending and owned.
    pub(super) fn let_wait(&mut self, id: EntryId, due_ms: u64) -> Option<&mut Pending> {
        let pending = self.pending.get_mut(&id)?;
        pending.owner = None;
        pending.due_ms = due_ms;
        self.waiting.insert((due_ms, id));
        Some(pending)
    }

    /// The entry is done with, whoever has it.
    pub(super) fn acknowledge(&mut self, id: EntryId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        if pending.owner.is_none() {
            self.waiting.remove(&(pending.due_ms, id));
        }
        Some(pending)
    }
}

/// One partition.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) entries: Entries,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) delayed: Delayed,
    pub(super) moved: Moved,
}

impl Stream {
    /// Makes the group where it is missing; answers whether it was.
    pub(super) fn add_group(&mut self, name: &str, last_delivered: EntryId) -> bool {
        if self.groups.contains_key(name) {
            return false;
        }
        self.groups.insert(name.to_owned(), Group { last_delivered, ..Group::default() });
        true
    }

    /// What a group that starts at `start` has behind it.
    pub(super) fn position(&self, start: StartFrom) -> EntryId {
        match start {
            StartFrom::Beginning => EntryId::default(),
            StartFrom::Latest => self.entries.last_id(),
            StartFrom::Time(ms) => EntryId { ms, seq: 0 }.previous(),
        }
    }

    /// Hands up to `count` new entries to the consumer. `None`: there is no such group.
    pub(super) fn take(&mut self, at: &Partition, group: &str, consumer: &str, count: usize) -> Option<Vec<Entry>> {
        let group = self.groups.get_mut(group)?;
        let owner = group.consumer(consumer);
        let mut taken = Vec::new();
        for stored in self.entries.after(group.last_delivered).take(count) {
            group.last_delivered = stored.id;
            let pending = Pending { owner: Some(owner.clone()), due_ms: 0, deliveries: 1, crashes: 0, error: String::new() };
            taken.push(entry(at, stored, &pending));
            group.pending.insert(stored.id, pending);
        }
        Some(taken)
    }

    /// For `inspect`.
    pub(super) fn state(&self) -> PartitionState {
        let mut groups: Vec<GroupState> = self.groups.iter().map(|(name, group)| self.group_state(name, group)).collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let (first, last) = self.entries.ends();
        PartitionState {
            length: self.entries.len() as u64,
            size_bytes: self.entries.size_bytes() as u64,
            first,
            last,
            groups,
            live: BTreeSet::new(),
        }
    }

    fn group_state(&self, name: &str, group: &Group) -> GroupState {
        GroupState {
            name: name.to_owned(),
            pending: group.pending.len() as u64,
            lag: Some(self.entries.after(group.last_delivered).len() as u64),
            consumers: group.consumers.iter().map(ToString::to_string).collect(),
            last_delivered: group.last_delivered,
        }
    }
}

/// What a consumer gets.
pub(super) fn entry(at: &Partition, stored: &Stored, pending: &Pending) -> Entry {
    Entry {
        partition: at.clone(),
        id: stored.id,
        body: stored.body.clone(),
        deliveries: pending.deliveries,
        crashes: pending.crashes,
        refusal: None,
    }
}
