//! Looking back: entries that nobody takes, and what became of one event.

use ossa::engine::event::MetaView;
use ossa::engine::store::{
    Body, Copy, Disposal, EntryId, Keeping, Kept, Partition, Search, Searched, Standing, StartFrom, Store, StoredDeadLetter,
};

use crate::support::events::{
    Ttl, acknowledge, claim, dead_letter, event, event_with_ttl, events, group_state, keeping, neighbour, of_type, partition, prepare,
    publish, retry, settle, spec, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

const START: EntryId = EntryId { ms: 0, seq: 0 };
const END: EntryId = EntryId { ms: u64::MAX, seq: u64::MAX };

fn id_of(kept: &Kept) -> String {
    match &kept.body {
        Body::Event { meta, .. } => MetaView::read(meta).map(|meta| meta.id.into_owned()).unwrap_or_default(),
        Body::Foreign(_) => "foreign".into(),
    }
}

fn ids_of(kept: &[Kept]) -> Vec<String> {
    kept.iter().map(id_of).collect()
}

/// All of a search, step by step; the number of steps.
async fn find(store: &dyn Store, at: &Partition, mut search: Search) -> (Option<Kept>, usize) {
    for steps in 1..1000 {
        match store.search(at, &search).await.expect("searched") {
            Searched::Found(kept) => return (Some(kept), steps),
            Searched::Nowhere => return (None, steps),
            Searched::NotUpTo(last, looked) => {
                assert!((1..=500).contains(&looked), "a bounded piece of work: {looked}");
                search.from = if search.from <= search.to { last.next() } else { last.previous() };
            }
        }
    }
    panic!("the search does not end");
}

fn published(event_id: &str, from: EntryId, to: EntryId) -> Search {
    Search { event_id: event_id.into(), copy: Copy::Published, from, to }
}

async fn standing(store: &dyn Store, at: &Partition, group: &str, id: EntryId) -> Standing {
    let mut standing = store.standing(at, &[(group.into(), id)]).await.expect("told");
    assert_eq!(standing.len(), 1);
    standing.remove(0).1
}

async fn letters_of(store: &dyn Store, at: &Partition, event_id: &str) -> Vec<StoredDeadLetter> {
    let (mut all, mut next) = (Vec::new(), Some(START));
    while let Some(from) = next {
        let (letters, behind, looked) = store.search_dead_letters(at, event_id, from).await.expect("searched");
        assert!(looked > 0 || behind.is_none());
        all.extend(letters);
        next = behind;
    }
    all
}

pub async fn history_is_read_in_pieces_without_taking_anything(world: &World) {
    let (store, at) = (&world.store, partition("history.pieces"));
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "e", 25)).await;
    let all = store.history(&at, START, END, 100).await.expect("read");
    assert_eq!(ids_of(&all), (0..25).map(|n| format!("e-{n}")).collect::<Vec<_>>());
    let (mut pieces, mut after) = (Vec::new(), START);
    loop {
        let piece = store.history(&at, after, END, 10).await.expect("read");
        assert!(piece.len() <= 10);
        let Some(last) = piece.last() else { break };
        after = last.id;
        pieces.extend(piece);
    }
    assert_eq!(pieces, all);
    assert_eq!(ids_of(&store.history(&at, all[3].id, all[5].id, 10).await.expect("read")), ["e-4", "e-5"]);
    assert_eq!(store.history(&at, all[5].id, all[3].id, 10).await.expect("read"), []);
    assert_eq!(store.last_entry(&at).await.expect("read"), Some(all[24].id));
    assert_eq!(group_state(store, &at, "g").await.0, 0, "nothing is pending");
    assert_eq!(take(store, &at, "g", "c", 100).await.len(), 25, "and nothing was taken");
}

pub async fn a_partition_that_is_not_there_has_no_history(world: &World) {
    let (store, at) = (&world.store, partition("history.none"));
    assert_eq!(store.history(&at, START, END, 10).await.expect("read"), []);
    assert_eq!(store.last_entry(&at).await.expect("read"), None);
    assert_eq!(store.noted(&at, "e").await.expect("read").groups, []);
    assert_eq!(find(&**store, &at, published("e", START, END)).await.0, None);
    assert_eq!(letters_of(&**store, &at, "e").await, []);
    assert_eq!(store.standing(&at, &[("g".into(), START)]).await.expect("told"), []);
    let topology = store.topology().await.expect("read");
    assert!(!topology.types.contains(&at.event_type.to_string()), "looking makes nothing");
}

pub async fn history_tells_foreign_entries_as_they_are(world: &World) {
    let (store, at) = (&world.store, partition("history.foreign"));
    store.open_partition(&at).await.expect("opened");
    world.add_foreign(&at, &[("a", b"1")]).await;
    publish(store, vec![event(&at, "e")]).await;
    let all = store.history(&at, START, END, 10).await.expect("read");
    assert_eq!(ids_of(&all), ["foreign", "e"]);
    assert_eq!(all[0].body, Body::Foreign(vec![(b"a".to_vec(), b"1".to_vec())]));
}

pub async fn an_event_is_found_both_ways_and_in_bounded_steps(world: &World) {
    let (store, at) = (&world.store, partition("history.search"));
    store.open_partition(&at).await.expect("opened");
    for part in 0..3 {
        publish(store, events(&at, &format!("e{part}"), 400)).await;
    }
    for (event_id, expected) in [("e0-0", true), ("e1-7", true), ("e2-399", true), ("e3-0", false), ("e0", false)] {
        for (from, to) in [(START, END), (END, START)] {
            let (found, steps) = find(&**store, &at, published(event_id, from, to)).await;
            assert_eq!(found.map(|kept| id_of(&kept)), expected.then(|| event_id.to_owned()), "{event_id}");
            assert!(expected || steps == 3, "1200 entries in steps of 500: {steps}");
        }
    }
    let all = store.history(&at, START, END, 2000).await.expect("read");
    let (first, last) = (all[10].id, all[20].id);
    for (n, there) in [(9, false), (10, true), (20, true), (21, false)] {
        for (from, to) in [(first, last), (last, first)] {
            let (found, _) = find(&**store, &at, published(&format!("e0-{n}"), from, to)).await;
            assert_eq!(found.is_some(), there, "e0-{n}: both ends belong to the way");
        }
    }
}

pub async fn an_id_in_a_header_is_not_the_events(world: &World) {
    let (store, at) = (&world.store, partition("history.header"));
    store.open_partition(&at).await.expect("opened");
    let mut other = event(&at, "other");
    other.meta = other.meta.replace(r#""source""#, r#""headers":{"id":"e"},"source""#);
    publish(store, vec![other, event(&at, "e")]).await;
    let (found, _) = find(&**store, &at, published("e", START, END)).await;
    assert_eq!(found.map(|kept| id_of(&kept)).as_deref(), Some("e"));
}

pub async fn a_delayed_event_is_known_while_it_waits_and_its_entry_is_noted(world: &World) {
    let (store, at) = (&world.store, partition("history.delayed"));
    store.open_partition(&at).await.expect("opened");
    publish(store, vec![event(&at, "before")]).await;
    let (mut soon, mut late) = (event(&at, "soon"), event(&at, "late"));
    (soon.delay_ms, late.delay_ms) = (Some(30), Some(600_000));
    let asked_ms = store.now_ms();
    publish(store, vec![soon, late.clone()]).await;
    let noted = store.noted(&at, "late").await.expect("read");
    let waiting = noted.delayed.expect("it waits");
    assert_eq!((&*waiting.meta, &*waiting.data), (&*late.meta, &*late.data));
    assert!(waiting.due_ms.abs_diff(asked_ms + 600_000) < 60_000);
    until("it moved", async || {
        store.move_delayed(at.bucket()).await.expect("moved");
        store.noted(&at, "soon").await.expect("read").delayed.is_none()
    })
    .await;
    let last = store.last_entry(&at).await.expect("read").expect("an entry");
    assert_eq!(store.noted(&at, "soon").await.expect("read").moved_ms, Some(last.ms));
    assert_eq!(store.noted(&at, "before").await.expect("read").moved_ms, None, "an event that did not wait needs no note");
    assert_eq!(store.noted(&at, "late").await.expect("read").moved_ms, None);
}

pub async fn a_redriven_event_is_noted_for_its_group(world: &World) {
    let (store, at) = (&world.store, partition("history.redriven"));
    for group in ["failed:1", "other"] {
        prepare(store, &at, group, "c").await;
    }
    publish(store, vec![event(&at, "e")]).await;
    let first = take_one(store, &at, "failed:1", "c").await;
    settle(store, "failed:1", "c", &first, dead_letter("no")).await;
    assert_eq!(letters_of(&**store, &at, "e").await.len(), 1);
    assert_eq!(store.redrive(&of_type(&at)).await.expect("redriven"), 1);
    assert_eq!(letters_of(&**store, &at, "e").await, []);
    let again = store.last_entry(&at).await.expect("read").expect("an entry");
    let noted = store.noted(&at, "e").await.expect("read");
    assert_eq!(noted.groups, [("failed:1".to_owned(), Some(again.ms)), ("other".to_owned(), None)]);
    assert_eq!(noted.moved_ms, None);
    let (found, _) = find(&**store, &at, published("e", END, START)).await;
    assert_eq!(found.map(|kept| kept.id), Some(first.id), "the copy is not what was published");
    for (group, there) in [("failed:1", true), ("other", false)] {
        let search = Search { copy: Copy::RedrivenFor(group.into()), ..published("e", START, END) };
        assert_eq!(find(&**store, &at, search).await.0.map(|kept| kept.id), there.then_some(again), "{group}");
    }
}

pub async fn notes_go_with_the_entries(world: &World) {
    let (store, at) = (&world.store, partition("history.notes"));
    prepare(store, &at, "g", "c").await;
    let mut delayed = event(&at, "e");
    delayed.delay_ms = Some(1);
    publish(store, vec![delayed]).await;
    until("it moved", async || store.move_delayed(at.bucket()).await.expect("moved").0 == 1).await;
    let entries = take(store, &at, "g", "c", 10).await;
    let none_kept = Keeping { keep_acknowledged: 0, ..keeping() };
    store.sweep(&at, &none_kept).await.expect("swept");
    assert!(store.noted(&at, "e").await.expect("read").moved_ms.is_some(), "its entry is pending");
    acknowledge(store, "g", "c", &entries).await;
    until("a later entry is of another millisecond", async || store.now_ms() > entries[0].id.ms + 5).await;
    publish(store, vec![event(&at, "later")]).await;
    take(store, &at, "g", "c", 10).await;
    until("it is swept", async || {
        store.sweep(&at, &none_kept).await.expect("swept");
        store.noted(&at, "e").await.expect("read").moved_ms.is_none()
    })
    .await;
}

pub async fn standing_follows_an_entry_from_delivery_to_its_end(world: &World) {
    let (store, at) = (&world.store, partition("history.standing"));
    for group in ["g:1", "h"] {
        prepare(store, &at, group, "c").await;
    }
    publish(store, events(&at, "e", 2)).await;
    let all = store.history(&at, START, END, 10).await.expect("read");
    let (first, second) = (all[0].id, all[1].id);
    assert_eq!(standing(&**store, &at, "g:1", first).await, Standing::NotDelivered);
    let entry = take_one(store, &at, "g:1", "c").await;
    assert_eq!(standing(&**store, &at, "g:1", first).await, Standing::Held { consumer: "c".into(), deliveries: 1, error: None });
    assert_eq!(standing(&**store, &at, "g:1", second).await, Standing::NotDelivered);
    assert_eq!(standing(&**store, &at, "h", first).await, Standing::NotDelivered, "groups stand on their own");
    let before = store.now_ms();
    settle(store, "g:1", "c", &entry, retry(60_000)).await;
    let Standing::Waiting { deliveries: 1, due_ms, error } = standing(&**store, &at, "g:1", first).await else { panic!("it waits") };
    assert_eq!(error.as_deref(), Some("it failed"));
    assert!(due_ms.abs_diff(before + 60_000) < 30_000);
    let other = take_one(store, &at, "h", "c").await;
    settle(store, "h", "c", &other, retry(0)).await;
    let other = claim(store, &at, "h", "c", 1).await.remove(0);
    let held = Standing::Held { consumer: "c".into(), deliveries: 2, error: Some("it failed".into()) };
    assert_eq!(standing(&**store, &at, "h", first).await, held);
    settle(store, "h", "c", &other, Disposal::Acknowledge).await;
    assert_eq!(standing(&**store, &at, "h", first).await, Standing::Settled);
    let asked = [("nobody".to_owned(), first), ("h".to_owned(), second), ("g:1".to_owned(), second)];
    let told = store.standing(&at, &asked).await.expect("told");
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["h", "g:1"], "a group that is not there is left out");
}

pub async fn dead_letters_of_an_event_are_found_among_others(world: &World) {
    let (store, at) = (&world.store, partition("history.letters"));
    let other = neighbour(&at);
    for (at, group) in [(&at, "g"), (&at, "h"), (&other, "g")] {
        prepare(store, at, group, "c").await;
    }
    let expiring = event_with_ttl(&at, "old", Ttl::Default(0.001));
    publish(store, vec![expiring]).await;
    until("it expired", async || store.sweep(&at, &keeping()).await.expect("swept").expired.len() == 2).await;
    publish(store, events(&at, "e", 1200)).await;
    publish(store, vec![event(&other, "e-5")]).await;
    for (at, group) in [(&at, "g"), (&at, "h"), (&other, "g")] {
        for entry in take(store, at, group, "c", 2000).await {
            settle(store, group, "c", &entry, dead_letter(group)).await;
        }
    }
    let letters = letters_of(&**store, &at, "e-5").await;
    let told: Vec<_> = letters.iter().map(|letter| (letter.group.as_str(), letter.error.as_str(), letter.attempts)).collect();
    assert_eq!(told, [("g", "g", 4), ("h", "h", 4)]);
    assert!(letters.iter().all(|letter| letter.data == "\"e-5\"" && letter.reason == "max-attempts"));
    let expired: Vec<String> = letters_of(&**store, &at, "old").await.into_iter().map(|letter| letter.reason).collect();
    assert_eq!(expired, ["expired", "expired"]);
    assert_eq!(letters_of(&**store, &at, "e-1200").await, []);
    let later = EntryId { ms: letters[1].failed_at_ms + 60_000, seq: 0 };
    assert_eq!(store.search_dead_letters(&at, "e-5", later).await.expect("searched"), (Vec::new(), None, 0));
}

pub async fn a_group_that_starts_later_is_past_what_was_before(world: &World) {
    let (store, at) = (&world.store, partition("history.latest"));
    store.open_partition(&at).await.expect("opened");
    publish(store, vec![event(&at, "e")]).await;
    let id = store.last_entry(&at).await.expect("read").expect("an entry");
    store.join(&spec("late", &at.event_type), StartFrom::Latest, "c").await.expect("joined");
    assert_eq!(standing(&**store, &at, "late", id).await, Standing::Settled);
}
