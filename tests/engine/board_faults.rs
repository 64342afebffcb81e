//! What orchestration keeps, over a connection that breaks: what is repeated until it is answered took effect once. And over a server
//! that lost it, or a part of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ossa::engine::env::Env;
use ossa::engine::error::Code;
use ossa::engine::store::redis::keys::Keys;
use ossa::engine::store::redis::{RedisStore, RedisStoreConfig};
use ossa::engine::store::{BoardNews, BoardWrite, BoardWritten, Lead, Store, StoreEvent, Table};

use crate::commons_faults::{CUTS, open, repeat};
use crate::support::events::LONG;
use crate::support::proxy::{Cut, Proxy, Way};
use crate::support::redis_store::{KEY_PREFIX, config, config_at};
use crate::support::server::{Server, programs};
use crate::support::wait::until;

type Stored = Arc<dyn Store>;

fn put(table: Table, id: &str, text: &str) -> BoardWrite {
    BoardWrite { put: vec![(table, id.into(), text.into())], ..BoardWrite::default() }
}

async fn write(store: &Stored, lead: Lead, write: &BoardWrite) -> BoardWritten {
    store.write_board(lead, write).await.expect("asked")
}

async fn leader(store: &Stored, who: &str) -> Lead {
    store.lead(who, LONG).await.expect("asked").expect("nobody else leads")
}

async fn news(store: &Stored, known: u64) -> BoardNews {
    store.board_news(known).await.expect("read")
}

fn ids(news: &BoardNews) -> Vec<&str> {
    let mut ids: Vec<&str> = news.agents.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort_unstable();
    ids
}

/// One of each, with a cut in between.
async fn round(proxy: &Proxy, direct: &Stored, store: &Stored, name: &str, cut: Option<Cut>) {
    let known = news(direct, 0).await.version;
    let mut turn = 0;
    proxy.arm(cut);

    let steps = [
        put(Table::Agents, name, "1\nbehind"),
        put(Table::Tasks, name, "1"),
        BoardWrite { summary: Some(name.into()), removed: vec![(Table::Tasks, name.into())], ..put(Table::Agents, name, "2\nbehind") },
        put(Table::Data, name, "1"),
    ];
    for (step, number) in steps.iter().zip(known..) {
        let lead = repeat(async || store.lead("who", LONG).await).await.expect("nobody else leads");
        assert!(lead.version == number && (turn == 0 || lead.turn == turn), "{name}, {cut:?}: {lead:?}");
        turn = lead.turn;
        assert_eq!(repeat(async || store.write_board(lead, step).await).await, BoardWritten::Done, "{name}, {cut:?}");
    }
    let expected = BoardNews {
        version: known + 4,
        whole: known == 0,
        agents: vec![(name.to_owned(), "2".to_owned())],
        summary: Some(name.to_owned()),
    };
    assert_eq!(repeat(async || store.board_news(known).await).await, expected, "{name}, {cut:?}");
    assert_eq!(repeat(async || store.card(Table::Agents, name).await).await.as_deref(), Some("2\nbehind"), "{name}, {cut:?}");
    let (data, next) = repeat(async || store.page(Table::Data, 0).await).await;
    assert!(next == 0 && data.contains(&(name.to_owned(), "1".to_owned())), "{name}, {cut:?}");
    repeat(async || store.resign(turn).await).await;

    assert_eq!(news(direct, known).await, expected, "{name}, {cut:?}");
    assert_eq!(direct.page(Table::Tasks, 0).await.expect("read"), (Vec::new(), 0), "{name}, {cut:?}");
    let next = leader(direct, "next").await;
    assert!(next.turn > turn && next.version == known + 4, "{name}, {cut:?}");
    direct.resign(next.turn).await.expect("resigned");
}

async fn cut_everywhere(way: Way, late: Option<Duration>) {
    for program in programs() {
        let server = Server::start(&program).await;
        let proxy = Proxy::start(server.port()).await;
        let direct = open(config(&server)).await;
        // All of one connection: what is cut is what it carries.
        let store = open(RedisStoreConfig { pool_size: 2, ..config_at(proxy.port()) }).await;
        round(&proxy, &direct, &store, "warm", None).await;
        round(&proxy, &direct, &store, "whole", None).await;
        let bytes = proxy.passed(way);
        let cuts = proxy.cuts();
        for n in 0..CUTS {
            let cut = Cut { way, after: 1 + bytes * n / CUTS, late };
            round(&proxy, &direct, &store, &format!("cut-{n}"), Some(cut)).await;
        }
        // What is announced is counted, too, and may come behind the round.
        assert!(proxy.cuts() > cuts + usize::try_from(CUTS / 3).expect("few"), "many of the cuts hit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_on_its_way_up_takes_effect_once() {
    cut_everywhere(Way::Up, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_answered_takes_effect_once() {
    cut_everywhere(Way::Down, None).await;
}

/// What was sent on the lost connection reaches the server behind the repetition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_late_takes_effect_once() {
    cut_everywhere(Way::Up, Some(Duration::from_millis(5))).await;
}

/// What was announced meanwhile was missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_listens_again_is_told_to_read_the_news() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = RedisStore::new(config(&server), Env::system()).expect("the configuration is right");
        let (told, mut hears) = tokio::sync::watch::channel((0, 0));
        store.watch(Arc::new(move |event| match event {
            StoreEvent::BoardChanged => told.send_modify(|times| times.0 += 1),
            StoreEvent::ServicesChanged | StoreEvent::DocumentsChanged | StoreEvent::TopologyChanged => {
                told.send_modify(|times| times.1 += 1);
            }
            _ => {}
        }));
        store.open().await.expect("the server answers");
        hears.wait_for(|times| times.0 == 1).await.expect("it listens");
        assert_eq!(server.text(&["CLIENT", "KILL", "TYPE", "pubsub"]).await, "1");
        hears.wait_for(|times| times.0 == 2).await.expect("it listens again");
        let direct = open(config(&server)).await;
        let others = hears.borrow().1;
        let lead = leader(&direct, "a").await;
        assert_eq!(write(&direct, lead, &put(Table::Agents, "a", "1")).await, BoardWritten::Done);
        let since = hears.wait_for(|times| times.0 == 3).await.expect("it was announced").1;
        assert_eq!(since, others, "nothing else is said to have changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_emptied_gives_higher_turns_and_knows_no_writes() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = open(config(&server)).await;
        let first = leader(&store, "a").await;
        for (version, id) in (0..).zip(["a", "b", "c"]) {
            assert_eq!(write(&store, Lead { version, ..first }, &put(Table::Agents, id, "1")).await, BoardWritten::Done);
        }
        server.text(&["FLUSHALL"]).await;
        assert_eq!(news(&store, 3).await, BoardNews { whole: true, ..BoardNews::default() }, "all are gone");
        let next = put(Table::Agents, "d", "1");
        assert_eq!(write(&store, Lead { version: 3, ..first }, &next).await, BoardWritten::Superseded);
        let second = leader(&store, "a").await;
        assert!(second.version == 0 && second.turn > first.turn, "{second:?} after {first:?}");
        assert_eq!(write(&store, Lead { version: 3, ..second }, &next).await, BoardWritten::At(0));
        assert_eq!(write(&store, Lead { version: 2, ..first }, &next).await, BoardWritten::Superseded);
        assert_eq!(news(&store, 0).await.version, 0, "nothing was written");
        // Whoever knows what was there puts it back, under a number behind all that was known.
        let whole = BoardWrite { whole: true, ..put(Table::Agents, "c", "1") };
        assert_eq!(write(&store, Lead { version: 3, ..second }, &whole).await, BoardWritten::Done);
        let read = news(&store, 3).await;
        assert_eq!((read.version, read.whole, ids(&read)), (4, true, vec!["c"]));
        // What became of the last write alone was lost: the turn goes on.
        server.text(&["DEL", &Keys::new(KEY_PREFIX, None).board_state()]).await;
        assert_eq!(write(&store, Lead { version: 4, ..second }, &next).await, BoardWritten::At(0));
        assert_eq!(leader(&store, "a").await, Lead { version: 0, ..second });
    }
}

/// A replica that takes over before it has the last writes: the leader is told, and readers read all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_a_failover_lost_are_noticed() {
    for program in programs() {
        let server = Server::start(&program).await;
        let replica = Server::start_with(&program, &["--replicaof", "127.0.0.1", &server.port().to_string()]).await;
        let store = open(config(&server)).await;
        let lead = leader(&store, "a").await;
        assert_eq!(write(&store, lead, &put(Table::Agents, "kept", "1")).await, BoardWritten::Done);
        let state = Keys::new(KEY_PREFIX, None).board_state();
        until("the replica has it", async || {
            replica.ask(&["HGET", &state, "version"]).await.is_ok_and(|version| version == redis::Value::BulkString("1".into()))
        })
        .await;
        replica.text(&["REPLICAOF", "NO", "ONE"]).await;
        assert_eq!(write(&store, Lead { version: 1, ..lead }, &put(Table::Agents, "lost", "1")).await, BoardWritten::Done);
        assert_eq!(news(&store, 1).await.version, 2);

        let other = open(config(&replica)).await;
        assert_eq!(leader(&other, "a").await, Lead { version: 1, ..lead }, "it leads on");
        let read = news(&other, 2).await;
        assert_eq!((read.version, read.whole, ids(&read)), (1, true, vec!["kept"]));
        assert_eq!(write(&other, Lead { version: 2, ..lead }, &put(Table::Agents, "next", "1")).await, BoardWritten::At(1));
        let whole = BoardWrite { whole: true, ..put(Table::Agents, "lost", "1") };
        assert_eq!(write(&other, Lead { version: 2, ..lead }, &whole).await, BoardWritten::Done);
        for known in [1, 2] {
            let read = news(&other, known).await;
            assert_eq!((read.version, read.whole, ids(&read)), (3, true, vec!["lost"]));
        }
    }
}

/// Servers keep texts in orders of their own: what one has not told yet, another may have before its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_read_anew_where_another_server_took_over() {
    const COUNT: usize = 3_000;
    for program in programs() {
        let server = Server::start(&program).await;
        let replica = Server::start_with(&program, &["--replicaof", "127.0.0.1", &server.port().to_string()]).await;
        let store = open(config(&server)).await;
        let texts = (0..COUNT).map(|n| (Table::Tasks, format!("task-{n}"), n.to_string()));
        let all = BoardWrite { put: texts.collect(), ..BoardWrite::default() };
        assert_eq!(write(&store, leader(&store, "a").await, &all).await, BoardWritten::Done);
        let tasks = Keys::new(KEY_PREFIX, None).board_table(Table::Tasks);
        until("the replica has it", async || replica.text(&["HLEN", &tasks]).await == COUNT.to_string()).await;
        replica.text(&["REPLICAOF", "NO", "ONE"]).await;
        let other = open(config(&replica)).await;

        let (_, cursor) = store.page(Table::Tasks, 0).await.expect("read");
        assert_ne!(cursor, 0);
        let refused = other.page(Table::Tasks, cursor).await.expect_err("it is of another server");
        assert_eq!((refused.code, refused.retryable), (Code::Connection, true));
        for store in [&store, &other] {
            let (mut found, mut cursor) = (BTreeMap::new(), 0);
            loop {
                let (page, next) = store.page(Table::Tasks, cursor).await.expect("read");
                found.extend(page);
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(found.len(), COUNT);
        }
    }
}

/// Whatever a server without memory refuses, it refuses as a whole; and what only frees memory goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_writes_all_or_nothing() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = open(config(&server)).await;
        let lead = leader(&store, "a").await;
        let many = (0..5_000).map(|n| (Table::ALL[n % 3], n.to_string(), "1".to_owned()));
        let many = BoardWrite { put: many.collect(), ..BoardWrite::default() };
        assert_eq!(write(&store, lead, &put(Table::Agents, "a", "1")).await, BoardWritten::Done);
        let lead = Lead { version: 1, ..lead };
        assert_eq!(server.text(&["CONFIG", "SET", "maxmemory", "1"]).await, "OK");
        let refused = store.write_board(lead, &many).await.expect_err("there is no memory");
        assert!(refused.retryable, "{refused}");
        assert_eq!(news(&store, 1).await, BoardNews { version: 1, ..BoardNews::default() });
        let gone = BoardWrite { removed: vec![(Table::Agents, "a".into())], ..BoardWrite::default() };
        assert_eq!(write(&store, lead, &gone).await, BoardWritten::Done);
        assert_eq!(news(&store, 1).await, BoardNews { version: 2, whole: true, ..BoardNews::default() });
        assert_eq!(server.text(&["CONFIG", "SET", "maxmemory", "0"]).await, "OK");
        assert_eq!(write(&store, Lead { version: 2, ..lead }, &many).await, BoardWritten::Done);
    }
}
