//! Who is alive, and what happens to the entries of those who are not.

use std::time::Duration;

use ossa::engine::store::{DeadReason, Disposal, Settled};

use crate::support::events::{
    LONG, acknowledge, claim, dead_letters, die, event, event_ids, events, group_state, neighbour, of_type, partition, prepare, publish,
    retry, settle, stranger, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

const MINUTE_MS: u64 = 60_000;
/// In a cluster a reply is waited for no longer than a quarter of the lease: enough on a busy machine.
const SHORT: Duration = Duration::from_millis(800);

pub async fn a_lease_that_runs_is_renewed(world: &World) {
    let (store, at) = (&world.store, partition("lease.runs"));
    let buckets = [at.bucket(), stranger(&at).bucket()];
    for _ in 0..3 {
        assert!(store.renew("c", &buckets, LONG).await.expect("renewed"));
    }
    assert!(store.renew("c", &[], LONG).await.expect("nothing to renew"));
}

pub async fn a_lapsed_lease_is_told(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("lease.lapsed"));
    prepare(store, &at, "g", "observer").await;
    assert!(store.renew("c", &[at.bucket()], SHORT).await.expect("renewed"));
    publish(store, vec![event(&at, "e")]).await;
    take_one(store, &at, "g", "c").await;
    until("the lease ran out", async || other.reap(at.bucket(), 3).await.expect("reaped").taken == 1).await;
    assert!(!store.renew("c", &[at.bucket()], SHORT).await.expect("told"), "its entry went to others");
}

pub async fn a_lapse_that_was_noticed_is_told_even_if_nothing_was_taken(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("lease.unnoticed"));
    assert!(store.renew("c", &[at.bucket()], SHORT).await.expect("renewed"));
    tokio::time::sleep(SHORT * 2).await; // the lease runs out: nothing can be looked at without changing it
    assert_eq!(other.reap(at.bucket(), 3).await.expect("reaped").taken, 0);
    assert!(!store.renew("c", &[at.bucket()], SHORT).await.expect("told"));
}

pub async fn a_lapse_is_told_until_the_lease_is_released(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("lease.told"));
    let elsewhere = stranger(&at).bucket();
    prepare(store, &at, "g", "observer").await;
    assert!(store.renew("c", &[at.bucket()], SHORT).await.expect("renewed"));
    tokio::time::sleep(SHORT * 2).await; // the lease runs out: nothing can be looked at without changing it
    assert_eq!(other.reap(at.bucket(), 3).await.expect("reaped").taken, 0);
    for _ in 0..3 {
        // Whoever asks first may not be the one who can act on it.
        assert!(!store.renew("c", &[elsewhere, at.bucket()], LONG).await.expect("told"));
        assert!(store.renew("c", &[elsewhere], LONG).await.expect("the other one runs"));
    }
    publish(store, vec![event(&at, "e")]).await;
    take_one(store, &at, "g", "c").await;
    until("it was not taken up again", async || other.reap(at.bucket(), 3).await.expect("reaped").taken == 1).await;

    store.release("c", &[at.bucket()]).await.expect("released");
    for _ in 0..2 {
        assert!(store.renew("c", &[at.bucket()], LONG).await.expect("renewed"), "it starts afresh");
    }
    publish(store, vec![event(&at, "f")]).await;
    take_one(store, &at, "g", "c").await;
    assert_eq!(other.reap(at.bucket(), 3).await.expect("reaped").taken, 0);
}

pub async fn what_is_held_after_a_release_is_taken_too(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("lease.after"));
    prepare(store, &at, "g", "c").await;
    die(store, "c", at.bucket()).await;
    other.reap(at.bucket(), 3).await.expect("reaped");
    publish(store, vec![event(&at, "e")]).await;
    take_one(store, &at, "g", "c").await; // a read that was on its way
    die(store, "c", at.bucket()).await;
    assert_eq!(other.reap(at.bucket(), 3).await.expect("reaped").taken, 1);
}

pub async fn one_process_looks_after_a_bucket(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("lease.keeper"));
    let lease = Duration::from_secs(2);
    assert!(store.look_after(at.bucket(), "one", LONG).await.expect("taken"));
    assert!(!other.look_after(at.bucket(), "two", LONG).await.expect("refused"));
    assert!(other.look_after(stranger(&at).bucket(), "two", LONG).await.expect("another bucket"));
    assert!(store.look_after(at.bucket(), "one", lease).await.expect("renewed"));
    assert!(!other.look_after(at.bucket(), "two", lease).await.expect("refused"));
    until("the lease ran out", async || other.look_after(at.bucket(), "two", LONG).await.expect("asked")).await;
    assert!(!store.look_after(at.bucket(), "one", LONG).await.expect("refused"));
}

pub async fn the_living_keep_their_entries(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("lease.living"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let entry = take_one(store, &at, "g", "c").await;
    let reaped = other.reap(at.bucket(), 3).await.expect("reaped");
    assert_eq!((reaped.consumers, reaped.taken, reaped.crashed.len()), (0, 0, 0));
    assert_eq!(store.pending(&at, "g", "c").await.expect("pending"), [(entry.id, 1)]);
}

pub async fn entries_of_a_dead_consumer_are_due_at_once(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("lease.dead"));
    prepare(store, &at, "g", "c").await;
    prepare(&other, &at, "g", "living").await;
    store.renew("c", &[at.bucket()], SHORT).await.expect("renewed");
    publish(store, events(&at, "e", 1500)).await;
    assert_eq!(take(store, &at, "g", "c", 1500).await.len(), 1500);
    let mut taken = 0;
    until("the consumer is dead", async || {
        taken += other.reap(at.bucket(), 3).await.expect("reaped").taken;
        taken >= 1500
    })
    .await;
    assert_eq!(taken, 1500);
    assert_eq!(store.due(at.bucket(), "g").await.expect("due").partitions, std::slice::from_ref(&at));
    let again = claim(&other, &at, "g", "living", 1500).await;
    let expected: Vec<String> = (0..1500).map(|n| format!("e-{n}")).collect();
    let mut ids = event_ids(&again);
    ids.sort_by_key(|id| id[2..].parse::<u32>().expect("a number"));
    assert_eq!(ids, expected);
    assert!(again.iter().all(|entry| (entry.deliveries, entry.crashes) == (2, 1)));
    let (pending, _, consumers, _) = group_state(store, &at, "g").await;
    assert_eq!((pending, consumers), (1500, vec!["living".to_owned()]));
}

pub async fn reaping_says_how_many_consumers_went(world: &World) {
    let (store, at) = (&world.store, partition("lease.counted"));
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "e", 2)).await;
    take(store, &at, "g", "c", 2).await;
    die(store, "c", at.bucket()).await;
    let reaped = store.reap(at.bucket(), 3).await.expect("reaped");
    assert_eq!((reaped.consumers, reaped.taken, reaped.crashed.len()), (1, 2, 0));
    let reaped = store.reap(at.bucket(), 3).await.expect("reaped");
    assert_eq!((reaped.consumers, reaped.taken), (0, 0));
}

pub async fn a_dead_consumer_without_entries_is_removed(world: &World) {
    let (store, at) = (&world.store, partition("lease.idle"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let entry = take_one(store, &at, "g", "c").await;
    acknowledge(store, "g", "c", &[entry]).await;
    die(store, "c", at.bucket()).await;
    assert_eq!(store.reap(at.bucket(), 3).await.expect("reaped").taken, 0);
    assert_eq!(group_state(store, &at, "g").await.2, Vec::<String>::new());
}

pub async fn a_consumer_that_never_had_a_lease_is_dead(world: &World) {
    let (store, at) = (&world.store, partition("lease.never"));
    prepare(store, &at, "g", "living").await;
    publish(store, vec![event(&at, "e")]).await;
    take_one(store, &at, "g", "ghost").await;
    assert_eq!(store.reap(at.bucket(), 3).await.expect("reaped").taken, 1);
    assert_eq!(claim(store, &at, "g", "living", 1).await[0].crashes, 1);
}

pub async fn leases_hold_for_their_bucket_alone(world: &World) {
    let (store, at) = (&world.store, partition("lease.bucket"));
    let (beside, elsewhere) = (neighbour(&at), stranger(&at));
    for at in [&at, &beside, &elsewhere] {
        prepare(store, at, "g", "c").await;
        publish(store, vec![event(at, "e")]).await;
        take_one(store, at, "g", "c").await;
    }
    die(store, "c", at.bucket()).await;
    assert_eq!(store.reap(at.bucket(), 3).await.expect("reaped").taken, 2, "both partitions of that bucket");
    assert_eq!(store.reap(elsewhere.bucket(), 3).await.expect("reaped").taken, 0);
    assert_eq!(store.pending(&elsewhere, "g", "c").await.expect("pending").len(), 1);
}

pub async fn an_event_that_kills_its_process_each_time_ends_as_dead_letter(world: &World) {
    let (store, at) = (&world.store, partition("lease.poison"));
    prepare(store, &at, "g", "c0").await;
    publish(store, vec![event(&at, "poison")]).await;
    let mut entry = take_one(store, &at, "g", "c0").await;
    for crash in 1..=3 {
        assert_eq!((entry.deliveries, entry.crashes), (crash, crash - 1));
        die(store, &format!("c{}", crash - 1), at.bucket()).await;
        let reaped = store.reap(at.bucket(), 3).await.expect("reaped");
        if crash < 3 {
            assert_eq!(reaped.crashed, []);
            let next = format!("c{crash}");
            assert!(store.renew(&next, &[at.bucket()], LONG).await.expect("renewed"));
            entry = claim(store, &at, "g", &next, 1).await.remove(0);
        } else {
            assert_eq!(reaped.crashed.len(), 1);
            let crashed = &reaped.crashed[0];
            assert_eq!((&crashed.partition, crashed.group.as_str(), crashed.event_id.as_str()), (&at, "g", "poison"));
            assert_eq!(crashed.attempts, 3);
        }
    }
    assert_eq!(group_state(store, &at, "g").await.0, 0);
    let letters = dead_letters(store, &of_type(&at), 10).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts), (DeadReason::Crashed.as_str(), 3));
    assert!(!letters[0].error.is_empty());
    assert!(store.claim_due(&at, "g", "c9", 10).await.expect("claimed").entries.is_empty());
}

pub async fn crashes_are_remembered_over_retries_and_hand_backs(world: &World) {
    let (store, at) = (&world.store, partition("lease.mixed"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    take_one(store, &at, "g", "c").await;
    die(store, "c", at.bucket()).await;
    store.reap(at.bucket(), 3).await.expect("reaped");
    assert!(store.renew("d", &[at.bucket()], LONG).await.expect("renewed"));
    let entry = claim(store, &at, "g", "d", 1).await.remove(0);
    assert_eq!(settle(store, "g", "d", &entry, retry(0)).await, Settled::Done);
    let entry = claim(store, &at, "g", "d", 1).await.remove(0);
    assert_eq!((entry.deliveries, entry.crashes), (3, 1));
    assert_eq!(settle(store, "g", "d", &entry, Disposal::HandBack).await, Settled::Done);
    let entry = claim(store, &at, "g", "d", 1).await.remove(0);
    assert_eq!((entry.deliveries, entry.crashes), (3, 1));
}

pub async fn waiting_retries_outlive_the_consumer_that_failed(world: &World) {
    let (store, at) = (&world.store, partition("lease.waiting"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "soon"), event(&at, "later")]).await;
    let entries = take(store, &at, "g", "c", 2).await;
    settle(store, "g", "c", &entries[0], retry(100)).await;
    settle(store, "g", "c", &entries[1], retry(MINUTE_MS)).await;
    die(store, "c", at.bucket()).await;
    assert_eq!(store.reap(at.bucket(), 3).await.expect("reaped").taken, 0);
    assert_eq!(group_state(store, &at, "g").await.0, 2);
    let again = claim(store, &at, "g", "d", 1).await;
    assert_eq!((event_ids(&again), again[0].crashes), (vec!["soon".to_owned()], 0));
    assert!(store.claim_due(&at, "g", "d", 10).await.expect("claimed").entries.is_empty());
}

pub async fn two_processes_that_reap_take_each_entry_once(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("lease.race"));
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "e", 500)).await;
    take(store, &at, "g", "c", 500).await;
    die(store, "c", at.bucket()).await;
    let (one, two) = tokio::join!(store.reap(at.bucket(), 3), other.reap(at.bucket(), 3));
    assert_eq!(one.expect("reaped").taken + two.expect("reaped").taken, 500);
    let again = claim(store, &at, "g", "d", 500).await;
    assert!(again.iter().all(|entry| entry.crashes == 1));
}

pub async fn foreign_entries_of_a_dead_consumer_are_taken_too(world: &World) {
    let (store, at) = (&world.store, partition("lease.foreign"));
    prepare(store, &at, "g", "c").await;
    world.add_foreign(&at, &[("a", b"b")]).await;
    take_one(store, &at, "g", "c").await;
    die(store, "c", at.bucket()).await;
    let reaped = store.reap(at.bucket(), 1).await.expect("reaped");
    assert_eq!(reaped.crashed.len(), 1);
    assert_eq!(reaped.crashed[0].event_id, "");
    assert_eq!(dead_letters(store, &of_type(&at), 10).await[0].meta, "");
}
