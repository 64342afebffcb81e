//! What becomes of held entries: only what is held as said is changed, and each entry has one owner at most.

use std::collections::BTreeSet;

use ossa::engine::store::{Body, DeadLetterQuery, Disposal, EntryId, Held, Settled};

use crate::support::events::{
    acknowledge, claim, dead_letter, dead_letters, die, event, event_ids, events, group_state, held, neighbour, of_type, partition,
    prepare, publish, retry, settle, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

const MINUTE_MS: u64 = 60_000;

pub async fn acknowledging_can_be_repeated(world: &World) {
    let (store, at) = (&world.store, partition("settle.ack"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let entry = take_one(store, &at, "g", "c").await;
    for _ in 0..3 {
        assert_eq!(settle(store, "g", "c", &entry, Disposal::Acknowledge).await, Settled::Done);
        assert_eq!(group_state(store, &at, "g").await.0, 0);
    }
    assert_eq!(settle(store, "g", "c", &entry, retry(0)).await, Settled::NotHeld, "it is not brought back");
    let gone = Held { partition: neighbour(&at), ..held(&entry) };
    let settled = store.settle(at.bucket(), "nobody", "c", vec![(gone, Disposal::Acknowledge)]).await;
    assert_eq!(settled.expect("settled"), [Settled::Done]);
}

pub async fn a_late_success_acknowledges_an_entry_that_moved(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("settle.late"));
    prepare(store, &at, "g", "slow").await;
    prepare(&other, &at, "g", "next").await;
    publish(store, events(&at, "e", 2)).await;
    let entries = take(store, &at, "g", "slow", 2).await;
    die(store, "slow", at.bucket()).await;
    assert_eq!(other.reap(at.bucket(), 3).await.expect("reaped").taken, 2);
    // One is with the next consumer, one waits for whoever claims it: both may still be acknowledged.
    let moved = claim(&other, &at, "g", "next", 1).await;
    for entry in &entries {
        assert_eq!(settle(store, "g", "slow", entry, retry(0)).await, Settled::NotHeld);
        assert_eq!(settle(store, "g", "slow", entry, Disposal::HandBack).await, Settled::NotHeld);
        assert_eq!(settle(store, "g", "slow", entry, dead_letter("late")).await, Settled::NotHeld);
    }
    for entry in &entries {
        assert_eq!(settle(store, "g", "slow", entry, Disposal::Acknowledge).await, Settled::Done);
    }
    assert_eq!(settle(&other, "g", "next", &moved[0], retry(0)).await, Settled::NotHeld);
    assert_eq!(group_state(store, &at, "g").await.0, 0);
    assert!(other.claim_due(&at, "g", "next", 10).await.expect("claimed").entries.is_empty());
    assert_eq!(dead_letters(store, &of_type(&at), 10).await, []);
}

pub async fn what_is_not_held_as_said_is_not_changed(world: &World) {
    let (store, at) = (&world.store, partition("settle.wrong"));
    prepare(store, &at, "g", "c").await;
    prepare(store, &at, "h", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let entry = take_one(store, &at, "g", "c").await;
    let right = held(&entry);
    let wrong = [
        ("g", "other", right.clone()),
        ("h", "c", right.clone()),
        ("g", "c", Held { deliveries: 2, ..right.clone() }),
        ("g", "c", Held { deliveries: 0, ..right.clone() }),
        ("g", "c", Held { id: EntryId { seq: right.id.seq + 1, ..right.id }, ..right.clone() }),
        ("g", "c", Held { partition: neighbour(&at), ..right.clone() }),
        ("nobody", "c", right.clone()),
    ];
    for (group, consumer, held) in wrong {
        for disposal in [retry(0), Disposal::HandBack, dead_letter("wrong")] {
            let entries = vec![(held.clone(), disposal.clone())];
            let settled = store.settle(at.bucket(), group, consumer, entries).await.expect("settled");
            assert_eq!(settled, [Settled::NotHeld], "{group} {consumer} {held:?} {disposal:?}");
        }
    }
    assert_eq!(store.pending(&at, "g", "c").await.expect("pending"), [(entry.id, 1)]);
    assert_eq!(dead_letters(store, &of_type(&at), 10).await, []);
    assert_eq!(settle(store, "g", "c", &entry, retry(0)).await, Settled::Done);
}

pub async fn each_entry_of_a_batch_is_settled_on_its_own(world: &World) {
    let (store, at) = (&world.store, partition("settle.batch"));
    let beside = neighbour(&at);
    for partition in [&at, &beside] {
        prepare(store, partition, "g", "c").await;
        publish(store, events(partition, "e", 6)).await;
    }
    let first = take(store, &at, "g", "c", 6).await;
    let second = take(store, &beside, "g", "c", 6).await;
    acknowledge(store, "g", "c", &first[..1]).await;
    let stale = Held { deliveries: 9, ..held(&first[1]) };
    let batch = vec![
        (held(&first[0]), Disposal::Acknowledge), // a second time
        (stale, retry(0)),
        (held(&first[1]), Disposal::Acknowledge),
        (held(&second[0]), Disposal::Acknowledge),
        (held(&first[2]), retry(MINUTE_MS)),
        (held(&first[3]), dead_letter("no")),
        (held(&second[1]), Disposal::HandBack),
        (held(&second[1]), Disposal::HandBack), // no longer held
    ];
    let settled = store.settle(at.bucket(), "g", "c", batch).await.expect("settled");
    let (done, not) = (Settled::Done, Settled::NotHeld);
    assert_eq!(settled, [done, not, done, done, done, done, done, not]);
    assert_eq!(event_ids(&claim(store, &beside, "g", "c", 1).await), ["e-1"]);
    assert_eq!(group_state(store, &at, "g").await.0, 3);
    assert_eq!(dead_letters(store, &DeadLetterQuery::default(), 10).await.len(), 1);
    assert!(store.settle(at.bucket(), "g", "c", Vec::new()).await.expect("settled").is_empty());
}

pub async fn a_retry_waits_for_its_time_and_belongs_to_nobody(world: &World) {
    let (store, at) = (&world.store, partition("settle.retry"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let entry = take_one(store, &at, "g", "c").await;
    assert_eq!(settle(store, "g", "c", &entry, retry(1500)).await, Settled::Done);

    let index = store.due(at.bucket(), "g").await.expect("due");
    assert_eq!(index.partitions, []);
    assert!(index.next_in_ms.is_some_and(|ms| ms <= 1500), "{index:?}");
    assert!(store.claim_due(&at, "g", "c", 10).await.expect("claimed").entries.is_empty());
    let (pending, _, consumers, _) = group_state(store, &at, "g").await;
    assert_eq!((pending, consumers), (1, vec!["c".to_owned()]), "it is pending, under none of the consumers");
    assert_eq!(store.pending(&at, "g", "c").await.expect("pending"), []);
    assert_eq!(settle(store, "g", "c", &entry, retry(0)).await, Settled::NotHeld);

    until("it is due", async || store.due(at.bucket(), "g").await.expect("due").partitions == [at.clone()]).await;
    let again = claim(store, &at, "g", "d", 1).await.remove(0);
    assert!(store.now_ms() >= entry.id.ms + 1495, "it was due too early");
    assert_eq!((again.id, again.deliveries, again.crashes), (entry.id, 2, 0));
    assert_eq!(again.body, entry.body);
    assert_eq!(store.pending(&at, "g", "d").await.expect("pending"), [(entry.id, 2)]);
    let index = store.due(at.bucket(), "g").await.expect("due");
    assert_eq!((index.partitions, index.next_in_ms), (vec![], None));
}

pub async fn every_claim_counts_a_delivery(world: &World) {
    let (store, at) = (&world.store, partition("settle.counts"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let mut entry = take_one(store, &at, "g", "c").await;
    for deliveries in 1..=5 {
        assert_eq!((entry.deliveries, entry.crashes), (deliveries, 0));
        assert_eq!(settle(store, "g", "c", &entry, retry(1)).await, Settled::Done);
        entry = claim(store, &at, "g", "c", 1).await.remove(0);
    }
}

pub async fn a_hand_back_is_due_at_once_and_does_not_count(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("settle.handback"));
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "e", 3)).await;
    let entries = take(store, &at, "g", "c", 3).await;
    let all = entries.iter().map(|entry| (held(entry), Disposal::HandBack)).collect();
    assert_eq!(store.settle(at.bucket(), "g", "c", all).await.expect("settled"), [Settled::Done; 3]);
    assert_eq!(store.due(at.bucket(), "g").await.expect("due").partitions, std::slice::from_ref(&at));
    let again = other.claim_due(&at, "g", "d", 10).await.expect("claimed").entries;
    assert_eq!(event_ids(&again), ["e-0", "e-1", "e-2"]);
    assert!(again.iter().all(|entry| (entry.deliveries, entry.crashes) == (1, 0)), "{again:?}");

    // A failed delivery before it stays counted.
    assert_eq!(settle(&other, "g", "d", &again[0], retry(0)).await, Settled::Done);
    let second = claim(&other, &at, "g", "d", 1).await.remove(0);
    assert_eq!(second.deliveries, 2);
    assert_eq!(settle(&other, "g", "d", &second, Disposal::HandBack).await, Settled::Done);
    assert_eq!(claim(&other, &at, "g", "d", 1).await[0].deliveries, 2);
}

pub async fn two_consumers_that_race_for_retries_never_hold_the_same(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("settle.race"));
    prepare(store, &at, "g", "one").await;
    prepare(&other, &at, "g", "two").await;
    publish(store, events(&at, "e", 400)).await;
    let entries = take(store, &at, "g", "one", 400).await;
    let all = entries.iter().map(|entry| (held(entry), retry(0))).collect();
    store.settle(at.bucket(), "g", "one", all).await.expect("settled");
    let drain = async |user: &std::sync::Arc<dyn ossa::engine::store::Store>, consumer| {
        let mut all = Vec::new();
        loop {
            let some = user.claim_due(&at, "g", consumer, 7).await.expect("claimed").entries;
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    };
    let (one, two) = tokio::join!(drain(store, "one"), drain(&other, "two"));
    let ids: BTreeSet<EntryId> = one.iter().chain(&two).map(|entry| entry.id).collect();
    assert_eq!((one.len() + two.len(), ids.len()), (400, 400));
    assert!(one.iter().chain(&two).all(|entry| entry.deliveries == 2));
}

pub async fn due_names_the_partitions_of_that_group_and_bucket(world: &World) {
    let (store, at) = (&world.store, partition("settle.index"));
    let beside = neighbour(&at);
    for partition in [&at, &beside] {
        for group in ["g", "h"] {
            prepare(store, partition, group, "c").await;
        }
        publish(store, vec![event(partition, "e")]).await;
    }
    for (group, partition, delay_ms) in [("g", &at, 0), ("g", &beside, MINUTE_MS), ("h", &beside, 0)] {
        let entry = take_one(store, partition, group, "c").await;
        assert_eq!(settle(store, group, "c", &entry, retry(delay_ms)).await, Settled::Done);
    }
    let index = store.due(at.bucket(), "g").await.expect("due");
    assert_eq!(index.partitions, std::slice::from_ref(&at));
    assert!(index.next_in_ms.is_none_or(|ms| ms > 10_000 && ms <= MINUTE_MS), "{index:?}");
    assert_eq!(store.due(at.bucket(), "h").await.expect("due").partitions, [beside]);
    let elsewhere = crate::support::events::stranger(&at).bucket();
    assert_eq!(store.due(elsewhere, "g").await.expect("due").partitions, []);
}

pub async fn claiming_takes_no_more_than_asked(world: &World) {
    let (store, at) = (&world.store, partition("settle.max"));
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "e", 10)).await;
    for entry in take(store, &at, "g", "c", 10).await {
        settle(store, "g", "c", &entry, retry(0)).await;
    }
    let claimed = claim(store, &at, "g", "c", 4).await;
    assert_eq!(event_ids(&claimed), ["e-0", "e-1", "e-2", "e-3"], "the longest due come first");
    assert_eq!(store.claim_due(&at, "g", "c", 100).await.expect("claimed").entries.len(), 6);
    let missing = partition("settle.missing");
    assert!(store.claim_due(&missing, "g", "c", 10).await.is_ok_and(|due| due.entries.is_empty()));
}

pub async fn a_dead_letter_is_written_and_acknowledged(world: &World) {
    let (store, at) = (&world.store, partition("settle.dead"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let entry = take_one(store, &at, "g", "c").await;
    let before_ms = store.now_ms();
    assert_eq!(settle(store, "g", "c", &entry, dead_letter("it's \"broken\"\n")).await, Settled::Done);
    assert_eq!(settle(store, "g", "c", &entry, dead_letter("twice")).await, Settled::NotHeld);
    assert_eq!(group_state(store, &at, "g").await.0, 0);

    let letters = dead_letters(store, &of_type(&at), 10).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    let Body::Event { meta, data, .. } = entry.body else { panic!("an event") };
    assert_eq!((letter.meta.as_bytes(), letter.data.as_bytes()), (&meta[..], &data[..]));
    assert_eq!((letter.event_type.as_str(), letter.group.as_str()), ("settle.dead", "g"));
    assert_eq!((letter.reason.as_str(), letter.error.as_str(), letter.attempts), ("max-attempts", "it's \"broken\"\n", 4));
    assert!(letter.failed_at_ms + 50 >= before_ms && letter.failed_at_ms <= store.now_ms() + 50);
    let mut parts = letter.id.splitn(3, '.');
    assert_eq!(parts.next(), Some(at.bucket().0.to_string().as_str()));
    assert!(parts.next().expect("an entry id").parse::<EntryId>().is_ok());
    assert_eq!(parts.next(), Some("settle.dead"));
}

pub async fn a_retried_entry_can_become_a_dead_letter(world: &World) {
    let (store, at) = (&world.store, partition("settle.exhausted"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let first = take_one(store, &at, "g", "c").await;
    settle(store, "g", "c", &first, retry(0)).await;
    let second = claim(store, &at, "g", "c", 1).await.remove(0);
    assert_eq!(settle(store, "g", "c", &first, dead_letter("of the first delivery")).await, Settled::NotHeld);
    assert_eq!(settle(store, "g", "c", &second, dead_letter("of the second")).await, Settled::Done);
    let letters = dead_letters(store, &of_type(&at), 10).await;
    assert_eq!(letters.iter().map(|letter| letter.error.as_str()).collect::<Vec<_>>(), ["of the second"]);
    let index = store.due(at.bucket(), "g").await.expect("due");
    assert_eq!((index.partitions, index.next_in_ms), (vec![], None));
}

pub async fn an_acknowledged_retry_is_no_longer_due(world: &World) {
    let (store, at) = (&world.store, partition("settle.undone"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let entry = take_one(store, &at, "g", "c").await;
    settle(store, "g", "c", &entry, retry(0)).await;
    assert_eq!(settle(store, "g", "c", &entry, Disposal::Acknowledge).await, Settled::Done);
    let due = store.claim_due(&at, "g", "c", 10).await.expect("claimed");
    assert!(due.entries.is_empty());
    assert_eq!(due.lost, [], "it was acknowledged, not lost");
    assert_eq!(group_state(store, &at, "g").await.0, 0);
    until("nothing is due", async || {
        store.claim_due(&at, "g", "c", 10).await.expect("claimed");
        store.due(at.bucket(), "g").await.expect("due").partitions.is_empty()
    })
    .await;
}

pub async fn a_consumer_with_pending_entries_is_not_removed(world: &World) {
    let (store, at) = (&world.store, partition("settle.remove"));
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "e", 2)).await;
    let entries = take(store, &at, "g", "c", 2).await;
    assert!(!store.remove_consumer(&at, "g", "c").await.expect("refused"));
    acknowledge(store, "g", "c", &entries[..1]).await;
    assert!(!store.remove_consumer(&at, "g", "c").await.expect("refused"));
    // A retry that waits belongs to nobody and holds nobody.
    settle(store, "g", "c", &entries[1], retry(MINUTE_MS)).await;
    assert!(store.remove_consumer(&at, "g", "c").await.expect("removed"));
    let (pending, _, consumers, _) = group_state(store, &at, "g").await;
    assert_eq!((pending, consumers), (1, vec![]));
}
