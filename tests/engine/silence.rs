//! Connections that fall silent and stay open, as where a cable is pulled: whoever waits on one finds out by itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ossa::engine::env::Env;
use ossa::engine::error::Code;
use ossa::engine::host::Kind;
use ossa::engine::store::redis::{RedisStore, RedisStoreConfig};
use ossa::engine::store::{Bucket, ReadError, ReadFrom, Store, StoreEvent, Transient};
use serde_json::json;
use tokio::time::Instant;

use crate::support::events::{event, event_ids, partition, prepare, publish, reader};
use crate::support::harness::{TestBus, data, handle_all, ms};
use crate::support::proxy::Proxy;
use crate::support::redis_store::{config, config_at};
use crate::support::server::{Server, programs};
use crate::support::wait::until;

const COMMAND: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_millis(500);
/// The connection that hears announcements is asked so often whether it is there.
const PING_EVERY: Duration = Duration::from_secs(5);
/// `redis.commandTimeoutMs` as the bus has it for a publish.
const PUBLISH: Duration = Duration::from_secs(5);
/// What a slow machine may add.
const MARGIN: Duration = Duration::from_secs(3);

fn impatient(proxy: &Proxy) -> RedisStoreConfig {
    RedisStoreConfig { command_timeout: COMMAND, connect_timeout: CONNECT, ..config_at(proxy.port()) }
}

async fn open(config: RedisStoreConfig) -> Arc<RedisStore> {
    let store = RedisStore::new(config, Env::system()).expect("the configuration is right");
    store.open().await.expect("the server answers");
    store
}

async fn bus(config: RedisStoreConfig) -> TestBus {
    TestBus::connect(RedisStore::new(config, Env::system()).expect("the configuration is right"), Env::system(), json!({})).await
}

/// The servers are tested side by side: what is tested here is mostly waiting.
async fn on_every_server<F: Future<Output = ()>>(test: impl Fn(Server, Proxy) -> F) {
    join_all(programs().iter().map(|program| async {
        let server = Server::start(program).await;
        let proxy = Proxy::start(server.port()).await;
        test(server, proxy).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_on_a_silent_connection_fails_in_time_and_the_next_one_reads() {
    on_every_server(async |server, proxy| {
        let (direct, at, wait) = (open(config(&server)).await as Arc<dyn Store>, partition("silent"), ms(1500));
        prepare(&direct, &at, "g", "c").await;
        let store = open(impatient(&proxy)).await as Arc<dyn Store>;
        let (mut reader, from) = (reader(&store, "g"), [ReadFrom::new(at.clone())]);
        let silence = async {
            until("the read waits", async || server.text(&["INFO", "clients"]).await.contains("blocked_clients:1")).await;
            proxy.stall();
            Instant::now()
        };
        let (read, began) = tokio::join!(reader.read("c", &from, 10, Some(wait)), silence);
        assert!(began.elapsed() < wait + COMMAND + MARGIN, "{:?}", began.elapsed());
        let Err(ReadError::Store(error)) = read else { panic!("{read:?}") };
        assert_eq!((error.code, error.retryable), (Code::Connection, true), "{error}");
        // Nobody lets it in yet: to find that out has its time, too.
        let tried = Instant::now();
        assert!(reader.read("c", &from, 10, Some(wait)).await.is_err());
        assert!(tried.elapsed() < CONNECT + MARGIN, "{:?}", tried.elapsed());

        proxy.admit();
        // By now the server has answered the silent read, or given it up: what comes next is the new connection's.
        publish(&direct, vec![event(&at, "after")]).await;
        let mut entries = Vec::new();
        until("it reads again", async || {
            entries = reader.read("c", &from, 10, Some(wait)).await.unwrap_or_default();
            !entries.is_empty()
        })
        .await;
        assert_eq!(event_ids(&entries), ["after"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_on_silent_connections_goes_on_by_itself() {
    on_every_server(async |server, proxy| {
        let (bus, other) = (bus(impatient(&proxy)).await, bus(config(&server)).await);
        bus.subscribe("a", json!({})).await;
        bus.subscribe("said", json!({})).await;
        other.publish("a", "before").await;
        bus.done(&bus.host.next().await);
        other.publish_with("said", "now", &json!({ "transient": true })).await;
        assert_eq!(data(&bus.host.next().await), "now");
        let seen = handle_all(&bus);

        proxy.stall();
        let silent = Instant::now();
        // The server may hand it to the connection that nobody hears any more.
        other.publish("a", "meanwhile").await;
        let tokens = 1_000_000..1_000_010;
        for token in tokens.clone() {
            bus.bus.publish(token, format!("a\t\t\"{token}\"\n"));
        }
        bus.host.hears(Kind::ConnectionLost, |_| true).await;
        assert!(silent.elapsed() < COMMAND + MARGIN, "{:?}", silent.elapsed());

        proxy.admit();
        let mut count = 0;
        until("what is said is heard again", async || {
            count += 1;
            other.publish_with("said", &format!("again-{count}"), &json!({ "transient": true })).await;
            seen.lock().expect("no panic").iter().any(|text| text.starts_with("again"))
        })
        .await;
        assert!(silent.elapsed() < PING_EVERY + COMMAND + MARGIN, "{:?}", silent.elapsed());
        other.publish("a", "after").await;
        // Each publish was answered in time, and what was answered with success is there once.
        let (mut there, mut doubtful) = (vec!["meanwhile".to_owned(), "after".to_owned()], 0);
        for token in tokens {
            match bus.host.result(token).await {
                Ok(_) => there.push(token.to_string()),
                Err(error) => {
                    assert!(error.retryable, "{error}");
                    doubtful += u64::from(error.details.contains_key("maybeStored"));
                }
            }
        }
        assert!(silent.elapsed() < PUBLISH + CONNECT + PING_EVERY + MARGIN, "{:?}", silent.elapsed());
        until("all are handled", async || there.iter().all(|text| seen.lock().expect("no panic").contains(text))).await;
        let (length, certain) = (bus.partition("a").await.length, 1 + there.len() as u64);
        assert!((certain..=certain + doubtful).contains(&length), "{length} are there, {certain} were published, {doubtful} perhaps");
        until("all is settled", async || bus.pending("a", "default").await == 0).await;
        bus.disconnect(ms(1000)).await;
        other.disconnect(ms(0)).await;
    })
    .await;
}

/// Asking for more on a connection that is silent must not wait longer than any command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_hear_more_on_a_silent_connection_is_made_up_for() {
    on_every_server(async |server, proxy| {
        let (store, direct) = (RedisStore::new(impatient(&proxy), Env::system()).expect("right"), open(config(&server)).await);
        let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
        store.watch(Arc::new(move |event| {
            if let StoreEvent::Transient(event) = event {
                let _ = sender.send(event.event_type.clone());
            }
        }));
        store.open().await.expect("the server answers");
        store.hear(&[Bucket(1)].into()).await.expect("heard");
        proxy.stall();
        let silent = Instant::now();
        assert!(store.hear(&[Bucket(1), Bucket(2)].into()).await.is_err());
        assert!(silent.elapsed() < COMMAND + MARGIN, "{:?}", silent.elapsed());
        proxy.admit();
        let event = Transient { event_type: "said".into(), meta: "{}".into(), data: "1".into() };
        until("the new bucket is heard", async || {
            direct.cast(Bucket(2), vec![event.clone()]).await.expect("cast");
            heard.try_recv().is_ok()
        })
        .await;
        assert!(silent.elapsed() < PING_EVERY + COMMAND + MARGIN, "{:?}", silent.elapsed());
    })
    .await;
}
