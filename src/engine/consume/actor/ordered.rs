//! Ordered groups: which partitions this bus reads, and what is taken up there in turn.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Actor, Done, READ_PAUSE, Work, release, same};
use crate::engine::consume::Lease;
use crate::engine::consume::flush::Note;
use crate::engine::consume::gate;
use crate::engine::consume::group::{Group, GroupId, GroupName};
use crate::engine::consume::ordered::{Line, State};
use crate::engine::error::Result;
use crate::engine::log::failed;
use crate::engine::store::{Disposal, Due, Entry, EntryId, Held, Ownership, Parked, Partition, Settled, Store};

/// How often the members of a group are counted, to share its partitions.
const SURVEY_EVERY: Duration = Duration::from_secs(1);
/// Pause before a partition that others have is asked for again.
const ASK_PAUSE: Duration = Duration::from_millis(500);

/// What came of asking for a partition.
pub enum Asked {
    /// It is this consumer's: the last entry handed out, and what waits.
    Mine(EntryId, Vec<Parked>),
    /// Others have it.
    Others,
    /// The group is missing there.
    NoGroup,
}

/// What came of claiming what waited.
pub struct ClaimedParked {
    /// The group.
    pub group: GroupId,
    /// For whom.
    pub consumer: Arc<str>,
    /// Where.
    pub partition: Partition,
    /// Places that were kept for it, by subscription.
    pub reserved: Vec<(u32, usize)>,
    /// What was asked for.
    pub ids: Vec<EntryId>,
    /// The answer; `None`: the partition is another's.
    pub result: Result<Option<Due>>,
}

impl Actor {
    pub(super) fn pump_ordered(&mut self) {
        let ids: Vec<GroupId> = self.groups.values().filter(|group| group.lines.is_some()).map(|group| group.id.clone()).collect();
        for id in ids {
            self.survey(&id);
            self.share(&id);
            self.move_on(&id);
            self.start_parked(&id);
        }
    }

    /// Counts the members of the group now and then.
    fn survey(&mut self, id: &GroupId) {
        let Some(group) = same(&mut self.groups, id) else { return };
        let Some(lines) = &mut group.lines else { return };
        let now = Instant::now();
        if lines.surveying || lines.survey_at.is_some_and(|at| at > now) {
            return;
        }
        (lines.surveying, lines.survey_at) = (true, Some(now + SURVEY_EVERY));
        let specs: BTreeMap<String, _> = group.subs.iter().map(|sub| (sub.pattern.clone(), sub.spec(&id.name))).collect();
        let (store, id) = (self.store.clone(), id.clone());
        self.work.push(Box::pin(async move {
            let counts = join_all(specs.into_values().map(|spec| {
                let store = store.clone();
                async move { store.members(&spec).await.ok().map(|count| (spec.pattern, count)) }
            }));
            Done::Surveyed(id, counts.await.into_iter().flatten().collect())
        }));
    }

    pub(super) fn surveyed(&mut self, id: &GroupId, counts: Vec<(String, usize)>) {
        if let Some(lines) = same(&mut self.groups, id).and_then(|group| group.lines.as_mut()) {
            lines.surveying = false;
            lines.members.extend(counts);
            lines.to_share = true;
        }
    }

    /// Asks for partitions up to this bus's share, and gives up what is beyond it.
    fn share(&mut self, id: &GroupId) {
        let now = Instant::now();
        let Some(group) = same(&mut self.groups, id) else { return };
        let is_due = |line: &Line| matches!(line.state, State::Free(at) if at <= now);
        let Some(lines) = &mut group.lines else { return };
        if !std::mem::take(&mut lines.to_share) && !lines.by_partition.values().any(is_due) {
            return;
        }
        for (pattern, partitions) in by_pattern(group) {
            let Some(lines) = &mut group.lines else { return };
            let Some(members) = pattern.and_then(|pattern| lines.members.get(&pattern)).copied() else { continue };
            // This one is a member, whether it is counted or not (after a FLUSHALL, say).
            let share = partitions.len().div_ceil(members.max(1));
            let mut owned = 0;
            for partition in &partitions {
                let Some(line) = lines.by_partition.get_mut(partition) else { continue };
                match line.state {
                    State::Owned | State::Stale if owned >= share => line.state = State::Leaving,
                    State::Owned | State::Stale | State::Asking => owned += 1,
                    State::Free(_) | State::Leaving | State::GivingUp => {}
                }
            }
            for partition in partitions {
                let Some(line) = lines.by_partition.get_mut(&partition) else { continue };
                if owned < share && matches!(line.state, State::Free(at) if at <= now) {
                    line.state = State::Stale;
                    owned += 1;
                }
            }
        }
    }

    /// Asks the store for the partition, and what waits there.
    fn ask(&mut self, id: &GroupId, partition: Partition) {
        let held: Vec<EntryId> = self.held(&id.name).remove(&partition).unwrap_or_default().into_iter().collect();
        let (store, id, consumer) = (self.store.clone(), id.clone(), self.consumer.clone());
        self.work.push(Box::pin(async move {
            let result = match store.own(&partition, &id.name, &consumer, &held).await {
                Ok(Ownership::Mine { last }) => store.parked(&partition, &id.name).await.map(|parked| Asked::Mine(last, parked)),
                Ok(Ownership::Others) => Ok(Asked::Others),
                Ok(Ownership::NoGroup) => Ok(Asked::NoGroup),
                Err(error) => Err(error),
            };
            Done::Asked { group: id, partition, consumer, result }
        }));
    }

    pub(super) fn asked(&mut self, id: &GroupId, partition: &Partition, consumer: &Arc<str>, result: Result<Asked>) {
        if *consumer != self.consumer {
            // Given up in the meantime, with the name under which it was asked for.
            return;
        }
        let held = self.held(&id.name).remove(partition).unwrap_or_default();
        let line = same(&mut self.groups, id).and_then(|group| group.lines.as_mut()?.by_partition.get_mut(partition));
        if line.as_ref().is_none_or(|line| line.state != State::Asking) {
            // Nobody wants it any more, unless it was asked for anew since.
            let unwanted = line.as_ref().is_none_or(|line| matches!(line.state, State::Free(_)));
            if unwanted && matches!(result, Ok(Asked::Mine(..)) | Err(_)) {
                if let Some(line) = line {
                    line.state = State::GivingUp;
                }
                self.give_up(id, partition.clone());
            }
            return;
        }
        let Some(group) = same(&mut self.groups, id) else { return };
        let is_restored = group.comparison.running;
        let Some(line) = group.lines.as_mut().and_then(|lines| lines.by_partition.get_mut(partition)) else { return };
        match result {
            Ok(Asked::Mine(last, parked)) => {
                line.load(parked, |id| held.contains(&id));
                if let Some(reading) = group.partitions.get_mut(partition) {
                    reading.last_seen = reading.last_seen.max(last);
                }
                group.waker.wake();
            }
            Ok(Asked::Others) => line.state = State::Free(Instant::now() + ASK_PAUSE),
            Ok(Asked::NoGroup) => {
                line.state = State::Free(Instant::now() + ASK_PAUSE);
                if !is_restored {
                    self.restore(id);
                }
            }
            Err(error) => {
                failed!(error, "a partition could not be asked for");
                // It may be ours without our knowing.
                line.state = State::Leaving;
            }
        }
    }

    /// Asks for partitions, and gives others up, as soon as nothing is on its way there.
    fn move_on(&mut self, id: &GroupId) {
        let moves = |line: &Line| matches!(line.state, State::Stale | State::Leaving);
        let lines = same(&mut self.groups, id).and_then(|group| group.lines.as_ref());
        if !lines.is_some_and(|lines| lines.by_partition.values().any(moves)) {
            return;
        }
        let running: HashSet<Partition> = self.held(&id.name).into_keys().collect();
        let flushing: HashSet<Partition> = self.flusher.entries(&id.name).map(|(partition, _)| partition.clone()).collect();
        let mut ask = Vec::new();
        let mut give_up = Vec::new();
        let Some(group) = same(&mut self.groups, id) else { return };
        let is_read = |partition: &Partition| group.reading.as_ref().is_some_and(|reading| reading.partitions.contains(partition));
        let Some(lines) = &mut group.lines else { return };
        let mut ends_read = false;
        for (partition, line) in &mut lines.by_partition {
            if !matches!(line.state, State::Stale | State::Leaving) {
                continue;
            }
            if is_read(partition) {
                ends_read = true;
            } else if !line.claiming && !flushing.contains(partition) {
                if line.state == State::Stale {
                    line.ask();
                    ask.push(partition.clone());
                } else if !running.contains(partition) {
                    line.forget();
                    line.state = State::GivingUp;
                    give_up.push(partition.clone());
                }
            }
        }
        if ends_read {
            group.waker.wake();
        }
        for partition in ask {
            self.ask(id, partition);
        }
        for partition in give_up {
            self.give_up(id, partition);
        }
    }

    /// Lets others have the partition. As long as they were not told, and this consumer lives, nobody reads it.
    fn give_up(&mut self, id: &GroupId, partition: Partition) {
        let (store, lease, id, consumer) = (self.store.clone(), self.lease.clone(), id.clone(), self.consumer.clone());
        self.work.push(Box::pin(async move {
            give_up(&store, &lease, &partition, &id.name, &consumer).await;
            Done::GivenUp { group: id, partition, consumer }
        }));
    }

    /// Others may have the partition; from now on it may be asked for again.
    pub(super) fn given_up_partition(&mut self, id: &GroupId, partition: &Partition, consumer: &Arc<str>) {
        if *consumer != self.consumer {
            return;
        }
        let line = same(&mut self.groups, id).and_then(|group| group.lines.as_mut()?.by_partition.get_mut(partition));
        if let Some(line) = line.filter(|line| line.state == State::GivingUp) {
            line.state = State::Free(Instant::now() + ASK_PAUSE);
        }
    }

    /// Claims what waited and may run now, as places allow.
    fn start_parked(&mut self, id: &GroupId) {
        let now = Instant::now();
        let mut work: Vec<Work> = Vec::new();
        let Some(group) = same(&mut self.groups, id) else { return };
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let lines = group.lines.iter().flat_map(|lines| &lines.by_partition);
        let due: Vec<Partition> = lines.filter(|(_, line)| is_due(line.next_due())).map(|(partition, _)| partition.clone()).collect();
        for partition in due {
            let places = group.free(&partition).min(self.settings.batch_size);
            let Some(line) = group.lines.as_mut().and_then(|lines| lines.by_partition.get_mut(&partition)) else { continue };
            let ids = line.start(now, places);
            if ids.is_empty() {
                continue;
            }
            line.claiming = true;
            let reserved: Vec<(u32, usize)> = group.matching(&partition).map(|sub| (sub.id, ids.len())).collect();
            for (id, n) in &reserved {
                if let Some(sub) = group.sub_mut(*id) {
                    sub.reserved += n;
                }
            }
            group.claiming += 1;
            let (store, group, consumer) = (self.store.clone(), group.id.clone(), self.consumer.clone());
            let gate = self.gate.clone();
            work.push(Box::pin(async move {
                let result = match store.claim_parked(&partition, &group.name, &consumer, &ids).await {
                    Ok(Some(due)) => gate::admit(gate.as_ref(), due.entries).await.map(|entries| Some(Due { entries, lost: due.lost })),
                    result => result,
                };
                Done::ClaimedParked(ClaimedParked { group, consumer, partition, reserved, ids, result })
            }));
        }
        self.work.extend(work);
    }

    pub(super) fn claimed_parked(&mut self, claimed: ClaimedParked) {
        let ClaimedParked { group: id, consumer, partition, reserved, ids, result } = claimed;
        let is_current = consumer == self.consumer;
        if let Some(group) = same(&mut self.groups, &id) {
            release(&mut group.claiming, 1);
            for (id, n) in &reserved {
                if let Some(sub) = group.sub_mut(*id) {
                    release(&mut sub.reserved, *n);
                }
            }
            let line = group.lines.as_mut().and_then(|lines| lines.by_partition.get_mut(&partition));
            if let Some(line) = line.filter(|_| is_current) {
                line.claiming = false;
                match &result {
                    Ok(Some(due)) => {
                        // Acknowledged late, or their content is gone: nothing of them runs.
                        let claimed: HashSet<EntryId> = due.entries.iter().map(|entry| entry.id).collect();
                        for id in ids.iter().filter(|id| !claimed.contains(id)) {
                            line.settled(*id, None);
                        }
                    }
                    // Another's; or some may be ours without our knowing.
                    Ok(None) | Err(_) => line.doubt(),
                }
            }
        } else {
            self.claimed_for_none(&id);
        }
        let Ok(Some(due)) = result else { return };
        self.say_lost(&id, &partition, &due.lost);
        // What was claimed for a group that ended is not taken into one that took its place.
        let line = same(&mut self.groups, &id).and_then(|group| group.lines.as_ref()?.by_partition.get(&partition));
        let (entries, strange): (Vec<Entry>, Vec<Entry>) =
            due.entries.into_iter().partition(|entry| line.is_some_and(|line| line.runs(entry.id)));
        for entry in strange {
            let held = Held { partition: entry.partition, id: entry.id, deliveries: entry.deliveries };
            self.settle_untouched(&id.name, &consumer, held, Disposal::HandBack, Note::default());
        }
        self.take(&id.name, &consumer, entries, false);
    }

    /// Another consumer reads these by now, or nobody does.
    pub(super) fn not_owner(&mut self, id: &GroupId, partitions: &[Partition]) {
        if let Some(lines) = same(&mut self.groups, id).and_then(|group| group.lines.as_mut()) {
            for partition in partitions {
                if let Some(line) = lines.by_partition.get_mut(partition) {
                    line.doubt();
                }
            }
        }
    }

    /// An entry of an ordered group is settled: what waits behind it may go on.
    pub(super) fn settled_in_order(&mut self, name: &GroupName, partition: &Partition, id: EntryId, disposal: &Disposal, result: Settled) {
        let group = self.groups.get_mut(name);
        let Some(line) = group.and_then(|group| group.lines.as_mut()).and_then(|lines| lines.by_partition.get_mut(partition)) else {
            return;
        };
        let again = match disposal {
            Disposal::Retry { delay_ms, .. } => Some(Instant::now() + Duration::from_millis(*delay_ms)),
            Disposal::HandBack => Some(Instant::now()),
            Disposal::Acknowledge | Disposal::DeadLetter { .. } => None,
        };
        let is_known = line.settled(id, again);
        if result == Settled::NotHeld || (again.is_some() && !is_known) {
            line.doubt();
        }
    }
}

/// Gives a partition up of which nothing is held, again and again while the store cannot be told, until the consumer's lease is
/// gone: then it is not its any more.
pub(super) async fn give_up(store: &Arc<dyn Store>, lease: &Lease, partition: &Partition, group: &GroupName, consumer: &str) {
    while let Err(error) = try_give_up(store, partition, group, consumer).await {
        tracing::debug!(%error, "a partition could not be given up");
        let (current, buckets) = lease.current();
        if *current != *consumer || buckets.is_empty() {
            return;
        }
        tokio::time::sleep(READ_PAUSE.1).await;
    }
}

/// What is pending nevertheless, by a reply that was lost or a settlement that was refused, is handed back: it would stay as
/// long as this consumer lives, which does not look after it any more, and nobody else could have an ordered partition.
async fn try_give_up(store: &Arc<dyn Store>, partition: &Partition, group: &GroupName, consumer: &str) -> Result<()> {
    let lost = store.pending(partition, group, consumer).await?;
    if !lost.is_empty() {
        let held = |(id, deliveries)| (Held { partition: partition.clone(), id, deliveries }, Disposal::HandBack);
        store.settle(partition.bucket(), group, consumer, lost.into_iter().map(held).collect()).await?;
    }
    if group.is_ordered() { store.disown(partition, group, consumer).await } else { Ok(()) }
}

/// Partitions of the group by the pattern that its share is counted by; `None`: nobody wants them any more.
fn by_pattern(group: &Group) -> BTreeMap<Option<String>, Vec<Partition>> {
    let mut out = BTreeMap::<_, Vec<Partition>>::new();
    for partition in group.partitions.keys() {
        let pattern = group.matching(partition).next().map(|sub| sub.pattern.clone());
        out.entry(pattern).or_default().push(partition.clone());
    }
    out
}
