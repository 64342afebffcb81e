//! What must hold at the end of every schedule.

use futures_util::FutureExt;
use ossa::engine::event::MetaView;
use ossa::engine::store::{Bucket, DeadLetterQuery, Partition, PartitionState, Store};

use crate::ledger::{Call, Course, End, Ledger};
use crate::plan::PROCESSES;
use crate::process::Process;
use crate::world;

type Slots = [Option<Process>; PROCESSES];

fn states(ledger: &Ledger) -> Vec<(Partition, PartitionState)> {
    let state = |partition: Partition| {
        let state = ledger.store.inspect(&partition).now_or_never().expect("memory answers at once").expect("it is open");
        state.map(|state| (partition, state))
    };
    world::partitions(&ledger.store).into_iter().filter_map(state).collect()
}

/// Events that are to become entries, and have not.
fn missing(ledger: &Ledger) -> Vec<(usize, String)> {
    let answered = ledger.published.iter().flat_map(|(n, results)| results.iter().flatten().map(|id| (*n, id.clone())));
    answered.filter(|(_, id)| !ledger.event_ids.contains(id)).collect()
}

/// Whether nothing is left to do.
pub fn is_done(ledger: &Ledger, slots: &Slots) -> bool {
    let is_idle = |state: &PartitionState| state.groups.iter().all(|group| group.pending == 0 && group.lag == Some(0));
    slots.iter().flatten().all(|process| process.app.publishing() == 0 && process.in_flight() == 0)
        && missing(ledger).is_empty()
        && ledger.stored.iter().all(|(n, (partition, _))| {
            let ended = |group| ledger.courses.get(&(group, *n)).is_some_and(|course| course.end.is_some());
            ledger.groups_of(&partition.event_type).into_iter().all(ended)
        })
        && states(ledger).iter().all(|(_, state)| is_idle(state))
}

/// Holds everything against what is known.
pub fn check(ledger: &mut Ledger, slots: &Slots) {
    // (e) Nothing is stuck.
    for (partition, state) in states(ledger) {
        for group in state.groups {
            if group.pending > 0 || group.lag != Some(0) {
                ledger.violated(format!("{}: {} pending and {:?} to come of {partition} at the end", group.name, group.pending, group.lag));
            }
        }
    }
    for process in slots.iter().flatten() {
        if process.in_flight() > 0 || process.app.publishing() > 0 {
            let (flight, publishing) = (process.in_flight(), process.app.publishing());
            let name = ledger.name(process.life());
            ledger.violated(format!("{name}: {flight} in flight and {publishing} publishes without an answer at the end"));
        }
    }
    // (a) Nothing is lost.
    for (n, id) in missing(ledger) {
        ledger.violated(format!("event {n} was published as {id}, and is nowhere"));
    }
    let stored: Vec<(usize, Partition)> = ledger.stored.iter().map(|(n, (partition, _))| (*n, partition.clone())).collect();
    for (n, partition) in &stored {
        for group in ledger.groups_of(&partition.event_type) {
            let course = ledger.course(group, *n);
            let succeeded = course.calls.iter().filter(|call| call.succeeded_ms.is_some()).count();
            let (end, letters) = (course.end, course.letters);
            match end {
                None => ledger.violated(format!("{group}: event {n} has not ended")),
                Some(End::Handled) if succeeded == 0 => ledger.violated(format!("{group}: event {n} is lost")),
                Some(End::DeadLettered) if letters == 0 => ledger.violated(format!("{group}: event {n} is lost, without a dead letter")),
                Some(_) => {}
            }
            ledger.count("events times groups");
            check_repeats(ledger, group, *n, partition.bucket());
        }
    }
    check_letters(ledger);
}

/// (c) What was handled more than once, was so for a reason.
fn check_repeats(ledger: &mut Ledger, group: &'static str, n: usize, bucket: Bucket) {
    let course = std::mem::take(ledger.course(group, n));
    let mut succeeded: Vec<&Call> = course.calls.iter().filter(|call| call.succeeded_ms.is_some()).collect();
    // A process that stood still may call its handler after the one to which the event went.
    succeeded.sort_by_key(|call| call.taken_ms);
    for pair in succeeded.windows(2) {
        match reason(ledger, &course, pair[0], pair[1], bucket) {
            Some(reason) => ledger.count(format!("handled again: {reason}")),
            None => ledger.violated(format!("{group}: event {n} was handled twice without a reason: {:?}, then {:?}", pair[0], pair[1])),
        }
    }
    *ledger.course(group, n) = course;
}

/// Why the second call was made though the first one succeeded.
fn reason(ledger: &Ledger, course: &Course, first: &Call, second: &Call, bucket: Bucket) -> Option<&'static str> {
    if first.life == second.life && first.subscription != second.subscription {
        return Some("its group had two subscriptions there, one of them about to close");
    }
    let life = &ledger.lives[first.life];
    let before = |at: u64| at <= second.taken_ms;
    if life.crashed_ms.is_some_and(before) {
        return Some("its process crashed before it was acknowledged");
    }
    if first.timed_out_ms.is_some_and(before) {
        return Some("its handler was too slow, and succeeded late");
    }
    if course.refused_ms.iter().any(|at| *at >= first.taken_ms && before(*at)) {
        return Some("the store refused its acknowledgement");
    }
    if life.gave_up_ms.iter().any(|at| *at >= first.taken_ms && before(*at)) {
        return Some("its handler was not waited for when its subscription or bus ended");
    }
    if ledger.lost_lease(&first.consumer, bucket) {
        return Some("its process's lease had run out");
    }
    None
}

/// (a) again: as many dead letters as were written, each once.
fn check_letters(ledger: &mut Ledger) {
    let query = DeadLetterQuery::default();
    let listed = ledger.store.dead_letters(&query, usize::MAX, None).now_or_never().expect("memory answers at once").expect("it is open");
    let mut found: Vec<(String, usize)> = Vec::new();
    for letter in listed.0 {
        let Ok(n) = letter.data.parse::<usize>() else { continue };
        if let Err(error) = MetaView::read(letter.meta.as_bytes()) {
            ledger.violated(format!("the dead letter of event {n} cannot be read: {error}"));
        }
        found.push((letter.group, n));
    }
    found.sort();
    let written = ledger.courses.iter().flat_map(|((group, n), course)| (0..course.letters).map(|_| ((*group).to_owned(), *n)));
    let mut written: Vec<(String, usize)> = written.collect();
    written.sort();
    if found != written {
        ledger.violated(format!("dead letters are {found:?}, and should be {written:?}"));
    }
}
