//! What the orchestration of agents keeps: who leads, what a turn may write, and what readers are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ossa::engine::error::Code;
use ossa::engine::store::{BoardNews, BoardWrite, BoardWritten, Lead, Listing, Store, StoreEvent, Table, Turn, WRITE_MAX};

use crate::support::events::LONG;
use crate::support::wait::until;
use crate::support::world::World;

/// Stores count whole milliseconds.
const A_TICK: Duration = Duration::from_millis(1);

type Stored = Arc<dyn Store>;
type Texts = BTreeMap<String, String>;

async fn lead(store: &Stored, who: &str, life: Duration) -> Option<Lead> {
    store.lead(who, life).await.expect("asked")
}

/// Leads for long.
async fn leader(store: &Stored, who: &str) -> Lead {
    lead(store, who, LONG).await.expect("nobody else leads")
}

fn put(table: Table, texts: &[(&str, &str)]) -> BoardWrite {
    let put = texts.iter().map(|(id, text)| (table, (*id).to_owned(), (*text).to_owned()));
    BoardWrite { put: put.collect(), ..BoardWrite::default() }
}

fn removed(table: Table, ids: &[&str]) -> BoardWrite {
    BoardWrite { removed: ids.iter().map(|id| (table, (*id).to_owned())).collect(), ..BoardWrite::default() }
}

async fn write(store: &Stored, lead: Lead, write: &BoardWrite) -> BoardWritten {
    store.write_board(lead, write).await.expect("asked")
}

/// The next write of a turn.
async fn write_next(store: &Stored, lead: &mut Lead, next: &BoardWrite) {
    assert_eq!(write(store, *lead, next).await, BoardWritten::Done, "{lead:?}");
    lead.version += 1;
}

async fn news(store: &Stored, known: u64) -> BoardNews {
    store.board_news(known).await.expect("read")
}

/// What readers are told of agents, and whether that is all.
fn told(news: BoardNews) -> (bool, Texts) {
    let count = news.agents.len();
    let agents: Texts = news.agents.into_iter().collect();
    assert_eq!(agents.len(), count, "each once");
    (news.whole, agents)
}

/// A table, and in how many pieces it came.
async fn pages(store: &Stored, table: Table) -> (Texts, usize) {
    let (mut texts, mut cursor, mut count) = (Texts::new(), 0, 0);
    loop {
        let (page, next) = store.page(table, cursor).await.expect("read");
        texts.extend(page);
        count += 1;
        cursor = next;
        if cursor == 0 {
            return (texts, count);
        }
    }
}

/// All there is, and the number of the last write.
async fn kept(store: &Stored) -> ([Texts; 3], u64, Option<String>) {
    let news = news(store, 0).await;
    let [agents, tasks, data] = Table::ALL.map(|table| pages(store, table));
    ([agents.await.0, tasks.await.0, data.await.0], news.version, news.summary)
}

fn texts(texts: &[(&str, &str)]) -> Texts {
    texts.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect()
}

pub async fn of_all_that_want_to_lead_one_does(world: &World) {
    let users = [world.user().await, world.user().await, world.user().await];
    for round in 0..10 {
        let asked = join_all((0..12_usize).map(|n| {
            let store = users[n % 3].clone();
            tokio::spawn(async move { (n, lead(&store, &format!("who-{n}"), LONG).await) })
        }));
        let leads: Vec<(usize, Lead)> =
            asked.await.into_iter().map(|asked| asked.expect("no panic")).filter_map(|(n, lead)| Some((n, lead?))).collect();
        let [(n, one)] = leads[..] else { panic!("round {round}: {leads:?}") };
        assert_eq!(one.version, 0, "nothing was written");
        assert_eq!(lead(&users[0], &format!("who-{}", (n + 1) % 12), LONG).await, None);
        users[1].resign(one.turn).await.expect("resigned");
    }
}

pub async fn who_leads_goes_on_under_its_turn(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let short = Duration::from_millis(100);
    // Odd names are names, and each is another.
    for who in ["a b:c", "a b", "a", "", "ü 🦀\n", "\0"] {
        let begun = Instant::now();
        let mut first = lead(store, who, short).await.expect("nobody else leads");
        // A machine that was slow is no renewal.
        let mut renewed = lead(store, who, LONG).await.expect("it leads");
        if renewed != first {
            assert!(begun.elapsed() + A_TICK >= short);
            first = renewed;
        }
        until("its first life is over", async || begun.elapsed() > short * 2).await;
        assert_eq!(lead(&other, "other", LONG).await, None, "it was renewed");
        write_next(store, &mut renewed, &put(Table::Tasks, &[("t", who)])).await;
        assert_eq!(lead(store, who, LONG).await, Some(Lead { turn: first.turn, version: first.version + 1 }));
        store.resign(first.turn).await.expect("resigned");
    }
    // The last word counts, also where it is a shorter life.
    let long = leader(store, "a").await;
    assert_eq!(lead(store, "a", Duration::ZERO).await, Some(long));
    until("it is over", async || lead(&other, "other", LONG).await.is_some()).await;
}

pub async fn a_turn_ends_by_itself_and_the_next_is_higher(world: &World) {
    let users = [world.user().await, world.user().await];
    let life = Duration::from_millis(150);
    let first = lead(&users[0], "0", life).await.expect("nobody leads");
    let mut last = first;
    for n in 1..6_usize {
        let (store, who) = (&users[n % 2], n.to_string());
        let (mut begun, mut next) = (Instant::now(), None);
        until("the turn before is over", async || {
            begun = Instant::now();
            next = lead(store, &who, life).await;
            next.is_some()
        })
        .await;
        let next = next.expect("it was waited for");
        assert!(next.turn > last.turn, "{next:?} after {last:?}");
        assert_eq!(write(store, last, &put(Table::Agents, &[("a", "late")])).await, BoardWritten::Superseded);
        last = next;
        // The one behind it does not come before its time.
        until("nobody leads, or another", async || lead(&users[0], "nobody", Duration::ZERO).await.is_some()).await;
        assert!(begun.elapsed() + A_TICK >= life);
    }
    let mut held = None;
    until("nobody leads", async || {
        held = lead(&users[0], "held", LONG).await;
        held.is_some()
    })
    .await;
    let held = held.expect("it was waited for");
    assert_eq!(lead(&users[0], "held", Duration::ZERO).await, Some(held));
    until("it is over", async || lead(&users[1], "next", LONG).await.is_some()).await;
    assert_eq!(lead(&users[0], "held", LONG).await, None);
    assert_eq!(write(&users[0], held, &put(Table::Tasks, &[("t", "late")])).await, BoardWritten::Superseded);
    assert_eq!(kept(&users[0]).await, Default::default());
}

pub async fn who_resigns_is_followed_at_once(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let first = leader(store, "a").await;
    for turn in [0, first.turn - 1, first.turn + 1] {
        other.resign(turn).await.expect("asked");
        assert_eq!(lead(&other, "b", LONG).await, None, "it is not the turn");
    }
    for _ in 0..2 {
        store.resign(first.turn).await.expect("resigned");
    }
    assert_eq!(write(store, first, &put(Table::Tasks, &[("t", "late")])).await, BoardWritten::Superseded, "nobody leads");
    let second = leader(&other, "b").await;
    assert!(second.turn > first.turn);
    store.resign(first.turn).await.expect("asked");
    assert_eq!(lead(store, "a", LONG).await, None, "it is another's turn");
    assert_eq!(lead(&other, "b", LONG).await, Some(second));
    other.resign(second.turn).await.expect("resigned");
    let third = leader(&other, "b").await;
    assert!(third.turn > second.turn, "also under the same name");
}

pub async fn what_an_older_turn_writes_changes_nothing(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let mut first = leader(store, "a").await;
    write_next(store, &mut first, &put(Table::Agents, &[("a", "1")])).await;
    store.resign(first.turn).await.expect("resigned");
    let mut second = leader(&other, "b").await;
    assert_eq!(second.version, 1);
    let before = kept(store).await;
    let whole = BoardWrite { whole: true, ..put(Table::Tasks, &[("t", "1")]) };
    let late = [put(Table::Agents, &[("a", "2")]), removed(Table::Agents, &["a"]), whole, BoardWrite::default()];
    for late in &late {
        assert_eq!(write(store, first, late).await, BoardWritten::Superseded, "{late:?}");
    }
    assert_eq!(kept(store).await, before);
    write_next(&other, &mut second, &put(Table::Agents, &[("a", "3")])).await;
    for version in 0..4 {
        assert_eq!(write(store, Lead { version, ..first }, &late[0]).await, BoardWritten::Superseded, "whatever number it names");
    }
    assert_eq!(told(news(store, 0).await), (true, texts(&[("a", "3")])));
}

pub async fn a_write_behind_another_number_changes_nothing(world: &World) {
    let store = &world.store;
    let mut lead = leader(store, "a").await;
    write_next(store, &mut lead, &put(Table::Agents, &[("a", "1")])).await;
    write_next(store, &mut lead, &put(Table::Data, &[("d", "1")])).await;
    write_next(store, &mut lead, &BoardWrite { summary: Some("one".into()), ..BoardWrite::default() }).await;
    let before = kept(store).await;
    assert_eq!(before.1, 3);
    let other = BoardWrite { summary: Some("two".into()), removed: vec![(Table::Agents, "a".into())], ..put(Table::Data, &[("d", "2")]) };
    for version in [0, 1, 4, 1_000_000] {
        assert_eq!(write(store, Lead { version, ..lead }, &other).await, BoardWritten::At(3), "{version}");
    }
    assert_eq!(kept(store).await, before);
    write_next(store, &mut lead, &other).await;
    assert_eq!(kept(store).await, ([Texts::new(), Texts::new(), texts(&[("d", "2")])], 4, Some("two".into())));
}

pub async fn a_write_that_is_repeated_is_done_once(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let first = leader(store, "a").await;
    let one = put(Table::Agents, &[("a", "1")]);
    for _ in 0..3 {
        assert_eq!(write(store, first, &one).await, BoardWritten::Done);
        assert_eq!(news(store, 0).await.version, 1);
    }
    let mut second = Lead { version: 1, ..first };
    write_next(store, &mut second, &put(Table::Agents, &[("a", "2")])).await;
    assert_eq!(write(store, first, &one).await, BoardWritten::At(2), "another one is behind it");
    assert_eq!(told(news(store, 0).await), (true, texts(&[("a", "2")])));
    let whole = BoardWrite { whole: true, ..put(Table::Agents, &[("b", "3")]) };
    for _ in 0..2 {
        assert_eq!(write(store, second, &whole).await, BoardWritten::Done);
        assert_eq!(news(store, 0).await.version, 3);
    }
    store.resign(first.turn).await.expect("resigned");
    assert_eq!(write(store, second, &whole).await, BoardWritten::Done, "it was done in time");
    let mut next = leader(&other, "b").await;
    assert_eq!(write(store, second, &whole).await, BoardWritten::Done);
    assert_eq!(write(&other, Lead { version: 2, ..next }, &one).await, BoardWritten::At(3), "it is another turn's");
    write_next(&other, &mut next, &one).await;
    assert_eq!(write(store, second, &whole).await, BoardWritten::Superseded);
    assert_eq!(told(news(store, 0).await), (true, texts(&[("a", "1"), ("b", "3")])));
}

pub async fn a_whole_write_replaces_all_whatever_was_the_last(world: &World) {
    let store = &world.store;
    let mut lead = leader(store, "a").await;
    for table in Table::ALL {
        write_next(store, &mut lead, &put(table, &[("a", "1"), ("b", "1")])).await;
    }
    write_next(store, &mut lead, &BoardWrite { summary: Some("stays".into()), ..BoardWrite::default() }).await;
    for version in [4, 100, 7] {
        lead.version = version;
        let text = version.to_string();
        let whole = BoardWrite { whole: true, ..put(Table::Agents, &[("b", &text)]) };
        write_next(store, &mut lead, &whole).await;
        let all = [texts(&[("b", &text)]), Texts::new(), Texts::new()];
        assert_eq!(kept(store).await, (all, version + 1, Some("stays".into())));
    }
    for known in 0..=10 {
        let expected = if known == 8 { (false, Texts::new()) } else { (true, texts(&[("b", "7")])) };
        assert_eq!(told(news(store, known).await), expected, "{known}");
    }
    let nothing = BoardWrite { whole: true, summary: Some("gone".into()), ..BoardWrite::default() };
    write_next(store, &mut lead, &nothing).await;
    assert_eq!(kept(store).await, (Default::default(), 9, Some("gone".into())));
    assert_eq!(told(news(store, 8).await), (true, Texts::new()));
}

pub async fn readers_are_told_the_first_lines_of_what_changed(world: &World) {
    let (store, reader) = (&world.store, world.user().await);
    assert_eq!(news(&reader, 0).await, BoardNews { whole: true, ..BoardNews::default() });
    assert!(news(&reader, 5).await.whole, "the store has not got that far");
    let mut lead = leader(store, "a").await;
    write_next(store, &mut lead, &put(Table::Agents, &[("a", "1\nbehind"), ("b", "1"), ("c", "\nbehind"), ("d", "")])).await;
    let all = texts(&[("a", "1"), ("b", "1"), ("c", ""), ("d", "")]);
    assert_eq!(told(news(&reader, 0).await), (true, all));
    assert_eq!(told(news(&reader, 1).await), (false, Texts::new()));
    write_next(store, &mut lead, &put(Table::Agents, &[("b", "2\n2\n2"), ("e", "2\r\n")])).await;
    write_next(store, &mut lead, &put(Table::Tasks, &[("t", "3")])).await;
    write_next(store, &mut lead, &put(Table::Agents, &[("a", "4"), ("b", "4\n\n")])).await;
    let since = [texts(&[("a", "4"), ("b", "4"), ("e", "2\r")]), texts(&[("a", "4"), ("b", "4")]), texts(&[("a", "4"), ("b", "4")])];
    for (known, agents) in (1..).zip(since) {
        assert_eq!(told(news(&reader, known).await), (false, agents), "since {known}");
    }
    assert_eq!(news(&reader, 4).await, BoardNews { version: 4, ..BoardNews::default() });
    for summary in ["one\ntwo", ""] {
        write_next(store, &mut lead, &BoardWrite { summary: Some(summary.into()), ..BoardWrite::default() }).await;
        let expected = BoardNews { version: lead.version, summary: Some(summary.into()), ..BoardNews::default() };
        assert_eq!(news(&reader, 4).await, expected);
        assert_eq!(news(&reader, lead.version).await, expected, "also to whoever knows it");
    }
}

pub async fn whoever_does_not_know_of_a_removal_reads_all(world: &World) {
    let store = &world.store;
    let mut lead = leader(store, "a").await;
    write_next(store, &mut lead, &put(Table::Agents, &[("a", "1\n"), ("b", "1\n"), ("c", "1\n")])).await;
    write_next(store, &mut lead, &removed(Table::Tasks, &["a", "b"])).await;
    write_next(store, &mut lead, &removed(Table::Agents, &["never there"])).await;
    assert_eq!(told(news(store, 1).await), (false, Texts::new()), "no agent went");
    let both = BoardWrite { put: vec![(Table::Agents, "b".into(), "4".into())], ..removed(Table::Agents, &["a", "b"]) };
    write_next(store, &mut lead, &both).await;
    for known in [1, 2, 3] {
        assert_eq!(told(news(store, known).await), (true, texts(&[("b", "4"), ("c", "1")])), "{known}");
    }
    assert_eq!(told(news(store, 4).await), (false, Texts::new()));
    write_next(store, &mut lead, &put(Table::Agents, &[("a", "5")])).await;
    assert_eq!(told(news(store, 4).await), (false, texts(&[("a", "5")])), "it came back");
    assert_eq!(told(news(store, 3).await), (true, texts(&[("a", "5"), ("b", "4"), ("c", "1")])));
    for known in [6, 7, u64::MAX] {
        assert!(news(store, known).await.whole, "{known}: the store has not got that far");
    }
}

/// Users that count what is announced of the board, and of the register of services.
async fn watchers(world: &World, lead: &mut Lead) -> (Vec<Stored>, Arc<[[AtomicU32; 2]; 2]>) {
    let heard: Arc<[[AtomicU32; 2]; 2]> = Arc::default();
    let mut watchers = Vec::new();
    for n in 0..2 {
        let (watcher, heard) = (world.closed_user(), heard.clone());
        watcher.watch(Arc::new(move |event| match event {
            StoreEvent::BoardChanged => drop(heard[n][0].fetch_add(1, Ordering::SeqCst)),
            StoreEvent::ServicesChanged => drop(heard[n][1].fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }));
        watcher.open().await.expect("opened");
        watchers.push(watcher);
    }
    // One that has only just opened is told, once and before all else, that it may have missed something.
    until("all listen", async || {
        write_next(&watchers[0], lead, &put(Table::Agents, &[("heard", "1")])).await;
        heard.iter().all(|[board, _]| board.load(Ordering::SeqCst) >= 2)
    })
    .await;
    (watchers, heard)
}

pub async fn what_readers_see_is_announced_to_all_and_nothing_else(world: &World) {
    let mut lead = leader(&world.store, "a").await;
    let (watchers, heard) = watchers(world, &mut lead).await;
    let store = &watchers[0];
    let mut n = 0;
    // How often each was told, up to now: what is in the same bucket is announced in order.
    let mut told = async || {
        n += 1;
        let before = heard.each_ref().map(|[_, services]| services.load(Ordering::SeqCst));
        let listing = Listing { definition: "{}".into(), health: "well".into() };
        assert!(store.put_listing(&format!("service-{n}"), None, Some(&listing), Turn::Registered, None).await.expect("put"));
        until("it was announced", async || heard.iter().zip(before).all(|([_, now], before)| now.load(Ordering::SeqCst) > before)).await;
        heard.each_ref().map(|[board, _]| board.load(Ordering::SeqCst))
    };
    let seen = [
        put(Table::Agents, &[("a", "1"), ("b", "1")]),
        BoardWrite { summary: Some("one".into()), ..BoardWrite::default() },
        BoardWrite { summary: Some("two".into()), ..put(Table::Tasks, &[("t", "1")]) },
        removed(Table::Agents, &["a"]),
        BoardWrite { whole: true, ..put(Table::Tasks, &[("t", "2")]) },
    ];
    let unseen = [put(Table::Tasks, &[("t", "3")]), put(Table::Data, &[("t", "3")]), removed(Table::Tasks, &["t"]), BoardWrite::default()];
    for one in &seen {
        let before = told().await;
        write_next(store, &mut lead, one).await;
        assert_eq!(told().await, before.map(|count| count + 1), "{one:?}");
        // It is there already.
        assert_eq!(write(store, Lead { version: lead.version - 1, ..lead }, one).await, BoardWritten::Done);
        assert_eq!(told().await, before.map(|count| count + 1), "{one:?}");
    }
    let before = told().await;
    for one in &unseen {
        write_next(store, &mut lead, one).await;
    }
    for one in &seen[..4] {
        assert_eq!(write(store, Lead { version: 0, ..lead }, one).await, BoardWritten::At(lead.version));
        assert_eq!(write(store, Lead { turn: 1, ..lead }, one).await, BoardWritten::Superseded);
    }
    assert_eq!(told().await, before);
}

pub async fn pages_hold_every_text(world: &World) {
    const COUNT: usize = 5_000;
    let (store, reader) = (&world.store, world.user().await);
    for table in Table::ALL {
        assert_eq!(reader.page(table, 0).await.expect("read"), (Vec::new(), 0), "there is none");
    }
    let mut lead = leader(store, "a").await;
    let tasks: Texts = (0..COUNT).map(|n| (format!("task-{n:05}"), format!("{n}\n{{\"n\":{n}}}"))).collect();
    let all = tasks.iter().map(|(id, text)| (Table::Tasks, id.clone(), text.clone())).collect();
    write_next(store, &mut lead, &BoardWrite { put: all, ..BoardWrite::default() }).await;
    write_next(store, &mut lead, &put(Table::Agents, &[("a", "1\nbehind"), ("b", "2")])).await;
    write_next(store, &mut lead, &put(Table::Data, &[("a", &"long ".repeat(100_000))])).await;
    let (found, count) = pages(&reader, Table::Tasks).await;
    assert!(found == tasks && (3..COUNT / 50).contains(&count), "{} in {count}", found.len());
    assert_eq!(pages(&reader, Table::Agents).await, (texts(&[("a", "1\nbehind"), ("b", "2")]), 1));
    assert_eq!(pages(&reader, Table::Data).await.0, texts(&[("a", &"long ".repeat(100_000))]));
    let gone: Vec<&str> = tasks.keys().filter(|id| id.ends_with('7')).map(String::as_str).collect();
    write_next(store, &mut lead, &removed(Table::Tasks, &gone)).await;
    let stay: BTreeSet<&String> = tasks.keys().filter(|id| !id.ends_with('7')).collect();
    assert_eq!(pages(&reader, Table::Tasks).await.0.keys().collect::<BTreeSet<_>>(), stay);
}

pub async fn a_card_is_one_text_whole(world: &World) {
    let (store, reader) = (&world.store, world.user().await);
    let mut lead = leader(store, "a").await;
    for (table, text) in Table::ALL.into_iter().zip(["1\nbehind\n", "", "{\"a\":\"€\"}"]) {
        assert_eq!(reader.card(table, "a").await.expect("read"), None);
        write_next(store, &mut lead, &put(table, &[("a", text)])).await;
        assert_eq!(reader.card(table, "a").await.expect("read").as_deref(), Some(text));
        assert_eq!(reader.card(table, "A").await.expect("read"), None);
    }
    write_next(store, &mut lead, &removed(Table::Tasks, &["a"])).await;
    let cards = join_all(Table::ALL.map(|table| reader.card(table, "a"))).await;
    let cards: Vec<Option<String>> = cards.into_iter().map(|card| card.expect("read")).collect();
    assert_eq!(cards, [Some("1\nbehind\n".into()), None, Some("{\"a\":\"€\"}".into())]);
}

pub async fn twenty_thousand_texts_are_written_at_once(world: &World) {
    const COUNT: usize = 20_000;
    let store = &world.store;
    let mut lead = leader(store, "a").await;
    write_next(store, &mut lead, &put(Table::Agents, &[("old", "1")])).await;
    let id = |n: usize| format!("id-{n:05}");
    // In the order of the ids, so that they go by turns into all tables.
    let all = (0..COUNT).map(|n| (Table::ALL[n % 3], id(n), format!("{n}\nbehind")));
    let whole = BoardWrite { whole: true, put: all.collect(), summary: Some("all".into()), ..BoardWrite::default() };
    write_next(store, &mut lead, &whole).await;
    let table = |t: usize| (0..COUNT).filter(move |n| n % 3 == t);
    let expected = [0, 1, 2].map(|t| table(t).map(|n| (id(n), format!("{n}\nbehind"))).collect::<Texts>());
    let found = kept(store).await;
    assert!(found == (expected, 2, Some("all".into())), "{:?}", found.0.map(|texts| texts.len()));
    let agents = table(0).map(|n| (id(n), n.to_string())).collect::<Texts>();
    assert!(told(news(store, 1).await) == (true, agents.clone()));
    // As many go, and others come, by one write.
    let gone = (0..COUNT).filter(|n| n % 2 == 0).map(|n| (Table::ALL[n % 3], id(n)));
    let put = (0..COUNT).filter(|n| n % 2 == 1).map(|n| (Table::ALL[n % 3], id(n), "new".to_owned()));
    write_next(store, &mut lead, &BoardWrite { removed: gone.collect(), put: put.collect(), ..BoardWrite::default() }).await;
    let expected = [0, 1, 2].map(|t| table(t).filter(|n| n % 2 == 1).map(|n| (id(n), "new".to_owned())).collect::<Texts>());
    let found = kept(store).await;
    assert!(found == (expected, 3, Some("all".into())), "{:?}", found.0.map(|texts| texts.len()));
    // All agents change at once, and all of them are told.
    let put = table(0).map(|n| (Table::Agents, id(n), format!("{n}\nagain")));
    write_next(store, &mut lead, &BoardWrite { put: put.collect(), ..BoardWrite::default() }).await;
    assert!(told(news(store, 3).await) == (false, agents));
}

pub async fn more_than_one_write_takes_is_refused(world: &World) {
    let store = &world.store;
    let mut lead = leader(store, "a").await;
    let many = BoardWrite { removed: vec![(Table::Tasks, "t".into()); WRITE_MAX + 1], ..BoardWrite::default() };
    let refused = store.write_board(lead, &many).await.expect_err("it is too much");
    assert_eq!((refused.code, refused.retryable), (Code::InvalidArgument, false));
    assert_eq!(kept(store).await, Default::default());
    write_next(store, &mut lead, &put(Table::Tasks, &[("t", "1")])).await;
}

pub async fn ids_and_texts_may_have_any_characters(world: &World) {
    let (store, long) = (&world.store, "ü".repeat(2_000));
    let odd =
        ["", "a:b", "a", "a b", " ", "€uro 🦀", "{b367}", "*", "a\nb\tc", "0", "-1", "nan", "\0", "a\0b", "\"'\\", "=", long.as_str()];
    let mut lead = leader(store, "a").await;
    for table in Table::ALL {
        let all: Vec<(&str, &str)> = odd.iter().map(|&odd| (odd, odd)).collect();
        write_next(store, &mut lead, &put(table, &all)).await;
        assert_eq!(pages(store, table).await.0, texts(&all));
        for odd in odd {
            assert_eq!(store.card(table, odd).await.expect("read").as_deref(), Some(odd));
        }
    }
    let first_lines: Vec<(&str, &str)> = odd.iter().map(|&odd| (odd, odd.split('\n').next().expect("one"))).collect();
    assert_eq!(told(news(store, 0).await), (true, texts(&first_lines)));
    for odd in odd {
        let known = lead.version;
        write_next(store, &mut lead, &BoardWrite { summary: Some(odd.into()), ..put(Table::Agents, &[(odd, "new")]) }).await;
        let told = news(store, known).await;
        assert_eq!((told.agents, told.summary.as_deref()), (vec![(odd.to_owned(), "new".to_owned())], Some(odd)));
    }
    for table in Table::ALL {
        write_next(store, &mut lead, &removed(table, &odd)).await;
        assert_eq!(pages(store, table).await.0, Texts::new());
    }
}
