//! What goes and what stays: pending entries always stay, undelivered ones until their ttl.

use std::sync::Arc;

use ossa::engine::store::{Entry, Keeping, NewEvent, Partition, StartFrom, Store, Swept};

use crate::support::events::{
    Ttl, acknowledge, claim, dead_letter, dead_letters, event, event_ids, event_with_ttl, events, group_state, inspect, keeping, of_type,
    partition, prepare, publish, retry, settle, spec, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

fn keep(count: u64) -> Keeping {
    Keeping { keep_acknowledged: count, ..keeping() }
}

/// Keeps entries for `ms` unless they say otherwise.
fn live(ms: u64) -> Keeping {
    Keeping { default_ttl_ms: Some(ms), ..keeping() }
}

/// Sweeps until there is nothing more to do now; the sum.
async fn sweep(store: &Arc<dyn Store>, at: &Partition, keeping: &Keeping) -> Swept {
    let mut sum = Swept::default();
    for _ in 0..1000 {
        let swept = store.sweep(at, keeping).await.expect("swept");
        sum.removed += swept.removed;
        sum.expired.extend(swept.expired);
        if !swept.more {
            return sum;
        }
    }
    panic!("sweeping does not end");
}

/// Sweeps until `length` entries are left; the sum.
async fn sweep_to(store: &Arc<dyn Store>, at: &Partition, keeping: &Keeping, length: u64) -> Swept {
    let mut sum = Swept::default();
    until("the stream has shrunk", async || {
        let swept = sweep(store, at, keeping).await;
        sum.removed += swept.removed;
        sum.expired.extend(swept.expired);
        let left = inspect(store, at).await.length;
        assert!(left >= length, "{left} left of {length}");
        left == length
    })
    .await;
    sum
}

async fn publish_and_take(store: &Arc<dyn Store>, at: &Partition, count: usize) -> Vec<Entry> {
    prepare(store, at, "g", "c").await;
    publish(store, events(at, "e", count)).await;
    take(store, at, "g", "c", count).await
}

fn with_default_ttl(at: &Partition, name: &str, count: usize, seconds: f64) -> Vec<NewEvent> {
    (0..count).map(|n| event_with_ttl(at, &format!("{name}-{n}"), Ttl::Default(seconds))).collect()
}

pub async fn acknowledged_entries_beyond_the_number_kept_go_oldest_first(world: &World) {
    let (store, at) = (&world.store, partition("sweep.count"));
    let entries = publish_and_take(store, &at, 500).await;
    acknowledge(store, "g", "c", &entries).await;
    assert_eq!(sweep(store, &at, &keep(500)).await.removed, 0);
    let swept = sweep_to(store, &at, &keep(30), 30).await;
    assert_eq!((swept.removed, swept.expired), (470, vec![]));
    assert_eq!(inspect(store, &at).await.first, Some(entries[470].id));
    sweep_to(store, &at, &keep(0), 0).await;
    publish(store, vec![event(&at, "next")]).await;
    let next = take_one(store, &at, "g", "c").await;
    assert!(next.id > entries[499].id, "ids rise over removals");
}

pub async fn a_long_stream_is_swept_in_bounded_steps(world: &World) {
    let (store, at) = (&world.store, partition("sweep.long"));
    prepare(store, &at, "g", "c").await;
    for call in 0..25 {
        publish(store, events(&at, &format!("{call}"), 1000)).await;
        let entries = take(store, &at, "g", "c", 1000).await;
        acknowledge(store, "g", "c", &entries).await;
    }
    let swept = sweep_to(store, &at, &keep(10), 10).await;
    assert_eq!(swept.removed, 24_990);
}

pub async fn undelivered_entries_stay_for_the_slowest_group(world: &World) {
    let (store, at) = (&world.store, partition("sweep.slow"));
    prepare(store, &at, "slow", "c").await;
    let entries = publish_and_take(store, &at, 300).await;
    acknowledge(store, "g", "c", &entries).await;
    let behind = take(store, &at, "slow", "c", 100).await;
    acknowledge(store, "slow", "c", &behind).await;
    let swept = sweep_to(store, &at, &keep(0), 200).await;
    assert_eq!(swept.removed, 100);
    assert_eq!(take(store, &at, "slow", "c", 1000).await.len(), 200);
}

pub async fn pending_entries_stay(world: &World) {
    let (store, at) = (&world.store, partition("sweep.pending"));
    let entries = publish_and_take(store, &at, 10).await;
    settle(store, "g", "c", &entries[4], retry(3_600_000)).await;
    assert_eq!(sweep(store, &at, &Keeping { keep_acknowledged: 0, ..live(1) }).await.removed, 0, "even past the default ttl");
    assert_eq!(inspect(store, &at).await.length, 10);
}

pub async fn one_stuck_pending_entry_holds_up_no_others(world: &World) {
    let (store, at) = (&world.store, partition("sweep.stuck"));
    let entries = publish_and_take(store, &at, 2000).await;
    let done: Vec<Entry> = entries.iter().enumerate().filter(|(n, _)| *n != 3 && *n != 700).map(|(_, entry)| entry.clone()).collect();
    acknowledge(store, "g", "c", &done).await;
    sweep_to(store, &at, &keep(50), 52).await;
    for stuck in [&entries[3], &entries[700]] {
        settle(store, "g", "c", stuck, retry(0)).await;
    }
    assert_eq!(event_ids(&claim(store, &at, "g", "c", 2).await), ["e-3", "e-700"], "their content is there");
}

pub async fn one_stuck_pending_entry_does_not_keep_old_ones(world: &World) {
    let (store, at) = (&world.store, partition("sweep.stuck.old"));
    prepare(store, &at, "g", "c").await;
    publish(store, with_default_ttl(&at, "e", 500, 0.05)).await;
    let entries = take(store, &at, "g", "c", 500).await;
    acknowledge(store, "g", "c", &entries[1..]).await;
    sweep_to(store, &at, &live(50), 1).await;
    assert_eq!(inspect(store, &at).await.first, Some(entries[0].id));
}

pub async fn what_is_young_stays_behind_a_stuck_pending_entry(world: &World) {
    let (store, at) = (&world.store, partition("sweep.stuck.young"));
    prepare(store, &at, "g", "c").await;
    publish(store, with_default_ttl(&at, "old", 100, 0.1)).await;
    let old = take(store, &at, "g", "c", 100).await;
    acknowledge(store, "g", "c", &old[1..]).await;
    sweep_to(store, &at, &live(100), 1).await;
    publish(store, with_default_ttl(&at, "young", 30, 3600.0)).await;
    let young = take(store, &at, "g", "c", 30).await;
    acknowledge(store, "g", "c", &young[..20]).await;
    assert_eq!(sweep(store, &at, &live(100)).await.removed, 0, "one that lives longer keeps the others of its time");
    assert_eq!(sweep(store, &at, &keep(5)).await.removed, 15);
    let state = inspect(store, &at).await;
    assert_eq!((state.length, state.first), (16, Some(old[0].id)));
}

pub async fn large_entries_are_swept_in_small_steps(world: &World) {
    let (store, at) = (&world.store, partition("sweep.large"));
    prepare(store, &at, "g", "c").await;
    let large = |n: usize| NewEvent { data: format!("\"{}\"", "x".repeat(300_000)).into(), ..event(&at, &format!("e-{n}")) };
    publish(store, (0..40).map(large).collect()).await;
    let entries = take(store, &at, "g", "c", 40).await;
    acknowledge(store, "g", "c", &entries[1..]).await;
    assert!(store.sweep(&at, &keep(10)).await.expect("swept").removed > 0);
    sweep_to(store, &at, &keep(10), 11).await;
    acknowledge(store, "g", "c", &entries[..1]).await;
    sweep_to(store, &at, &keep(0), 0).await;
}

pub async fn acknowledged_entries_go_when_their_ttl_passed(world: &World) {
    let (store, at) = (&world.store, partition("sweep.old"));
    prepare(store, &at, "g", "c").await;
    publish(store, with_default_ttl(&at, "e", 250, 0.1)).await;
    let entries = take(store, &at, "g", "c", 250).await;
    acknowledge(store, "g", "c", &entries).await;
    let swept = sweep_to(store, &at, &live(100), 0).await;
    assert_eq!((swept.removed, swept.expired), (250, vec![]));
    assert!(store.now_ms() >= entries[0].id.ms + 95, "not before");
}

pub async fn an_event_that_expires_undelivered_becomes_a_dead_letter(world: &World) {
    let (store, at) = (&world.store, partition("sweep.expired"));
    prepare(store, &at, "there", "c").await;
    prepare(store, &at, "away", "c").await;
    publish(store, with_default_ttl(&at, "short", 3, 1.5)).await;
    publish(store, vec![event(&at, "long")]).await;
    assert_eq!(sweep(store, &at, &keeping()).await, Swept::default());
    let entries = take(store, &at, "there", "c", 3).await;
    acknowledge(store, "there", "c", &entries).await;

    let mut expired = Vec::new();
    until("all three expired", async || {
        expired.extend(sweep(store, &at, &keeping()).await.expired);
        expired.len() >= 3
    })
    .await;
    let rows: Vec<_> = expired.iter().map(|row| (row.event_id.as_str(), row.group.as_str(), row.dead_lettered)).collect();
    assert_eq!(rows, [("short-0", "away", true), ("short-1", "away", true), ("short-2", "away", true)]);
    assert_eq!(&*expired[0].event_type, "sweep.expired");
    let letters = dead_letters(store, &of_type(&at), 10).await;
    assert_eq!(letters.len(), 3);
    assert_eq!((letters[0].reason.as_str(), letters[0].group.as_str(), letters[0].attempts), ("expired", "away", 0));
    assert!(letters[0].meta.contains("short-0") && letters[0].data == "\"short-0\"");
    let (pending, lag, ..) = group_state(store, &at, "away").await;
    assert!(pending == 0 && lag.is_none_or(|lag| lag == 1));
    assert_eq!(event_ids(&take(store, &at, "away", "c", 10).await), ["long"], "the group went past them");
    assert_eq!(sweep(store, &at, &keeping()).await.expired, [], "once");
}

pub async fn an_event_that_expires_behind_a_longer_lived_one_does_not_vanish(world: &World) {
    let (store, at) = (&world.store, partition("sweep.behind"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "long"), event_with_ttl(&at, "short", Ttl::Default(0.05))]).await;
    let last_ms = inspect(store, &at).await.last.expect("entries").ms;
    until("the ttl passed", async || store.now_ms() > last_ms + 70).await;
    let expired = sweep(store, &at, &Keeping { keep_acknowledged: 0, ..keeping() }).await.expired;
    let announced = expired.into_iter().map(|row| row.event_id);
    let delivered = event_ids(&take(store, &at, "g", "c", 10).await);
    let all: Vec<String> = delivered.into_iter().chain(announced).collect();
    assert_eq!(all, ["long", "short"], "delivered or announced");
}

pub async fn an_event_whose_publisher_gave_the_ttl_is_only_reported(world: &World) {
    let (store, at) = (&world.store, partition("sweep.given"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event_with_ttl(&at, "e", Ttl::Given(0.05))]).await;
    let mut expired = Vec::new();
    until("it expired", async || {
        expired.extend(sweep(store, &at, &keeping()).await.expired);
        !expired.is_empty()
    })
    .await;
    assert_eq!((expired[0].event_id.as_str(), expired[0].dead_lettered), ("e", false));
    assert_eq!(dead_letters(store, &of_type(&at), 10).await, []);
    assert!(take(store, &at, "g", "c", 10).await.is_empty());
}

pub async fn without_dead_letters_expiry_is_only_reported(world: &World) {
    let (store, at) = (&world.store, partition("sweep.off"));
    prepare(store, &at, "g", "c").await;
    publish(store, with_default_ttl(&at, "e", 1, 0.05)).await;
    let off = Keeping { dead_letters: false, ..keeping() };
    let mut expired = Vec::new();
    until("it expired", async || {
        expired.extend(sweep(store, &at, &off).await.expired);
        !expired.is_empty()
    })
    .await;
    assert!(!expired[0].dead_lettered);
    assert_eq!(dead_letters(store, &of_type(&at), 10).await, []);
}

pub async fn without_a_group_entries_go_quietly_when_their_ttl_passed(world: &World) {
    let (store, at) = (&world.store, partition("sweep.nobody"));
    store.open_partition(&at).await.expect("opened");
    publish(store, with_default_ttl(&at, "e", 120, 1.5)).await;
    assert_eq!(sweep(store, &at, &Keeping { keep_acknowledged: 0, ..live(1500) }).await.removed, 0, "keepAcknowledged does not apply");
    let swept = sweep_to(store, &at, &live(1500), 0).await;
    assert_eq!((swept.removed, swept.expired), (120, vec![]));
    assert_eq!(dead_letters(store, &of_type(&at), 10).await, []);
}

pub async fn an_event_that_never_expires_stays(world: &World) {
    let (store, at) = (&world.store, partition("sweep.never"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event_with_ttl(&at, "given", Ttl::Given(0.0)), event_with_ttl(&at, "default", Ttl::Default(0.0))]).await;
    let last_ms = inspect(store, &at).await.last.expect("entries").ms;
    until("the store's default passed", async || store.now_ms() > last_ms + 20).await;
    assert_eq!(sweep(store, &at, &live(1)).await, Swept::default());
    let entries = take(store, &at, "g", "c", 10).await;
    assert_eq!(event_ids(&entries), ["given", "default"]);
    acknowledge(store, "g", "c", &entries).await;
    assert_eq!(sweep(store, &at, &live(1)).await.removed, 0);
}

pub async fn entries_without_a_readable_ttl_have_the_default(world: &World) {
    let (store, at) = (&world.store, partition("sweep.foreign"));
    prepare(store, &at, "g", "c").await;
    world.add_foreign(&at, &[("hello", b"world")]).await;
    publish(store, vec![NewEvent { meta: "{".into(), ttl_ms: None, ..event(&at, "x") }]).await;
    assert_eq!(sweep(store, &at, &keeping()).await, Swept::default());
    assert_eq!(sweep(store, &at, &Keeping { default_ttl_ms: None, ..keeping() }).await, Swept::default());
    let mut expired = Vec::new();
    until("both expired", async || {
        expired.extend(sweep(store, &at, &live(50)).await.expired);
        expired.len() >= 2
    })
    .await;
    assert!(expired.iter().all(|row| row.event_id.is_empty() && row.dead_lettered));
    assert_eq!(dead_letters(store, &of_type(&at), 10).await.len(), 2);
}

pub async fn old_dead_letters_go(world: &World) {
    let (store, at) = (&world.store, partition("sweep.letters"));
    prepare(store, &at, "g", "c").await;
    crate::support::events::bury(store, &at, "g", "c", "e", 5).await;
    sweep(store, &at, &keeping()).await;
    assert_eq!(dead_letters(store, &of_type(&at), 10).await.len(), 5);
    let short = Keeping { dead_letter_retention_ms: 50, ..keeping() };
    until("they are gone", async || {
        sweep(store, &at, &short).await;
        dead_letters(store, &of_type(&at), 10).await.is_empty()
    })
    .await;
}

pub async fn a_redriven_event_expires_for_its_group_alone(world: &World) {
    let (store, at) = (&world.store, partition("sweep.redriven"));
    prepare(store, &at, "failed", "c").await;
    publish(store, with_default_ttl(&at, "e", 1, 0.2)).await;
    let entry = take_one(store, &at, "failed", "c").await;
    settle(store, "failed", "c", &entry, dead_letter("no")).await;
    store.join(&spec("other", "sweep.redriven"), StartFrom::Latest, "c").await.expect("joined");
    assert_eq!(store.redrive(&of_type(&at)).await.expect("redriven"), 1);
    let mut expired = Vec::new();
    until("it expired", async || {
        expired.extend(sweep(store, &at, &keeping()).await.expired);
        group_state(store, &at, "other").await.3 > entry.id && !expired.is_empty()
    })
    .await;
    let groups: Vec<&str> = expired.iter().map(|row| row.group.as_str()).collect();
    assert_eq!(groups, ["failed"]);
}

pub async fn sweeping_what_does_not_exist_does_nothing(world: &World) {
    assert_eq!(sweep(&world.store, &partition("sweep.missing"), &keeping()).await, Swept::default());
}
