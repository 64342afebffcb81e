//! A registry ends at any moment, at once, and leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::error::Code;
use ossa::engine::services::Watcher;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::desk::{Still, breathe, service_at, until};
use crate::support::harness::{Place, idle};
use crate::web::Server;

/// What closing may take, in which everything that waits ends.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn it_ends_at_once_while_its_store_does_not_answer_whatever_it_does() {
    for what in ["opening", "asking", "registering", "renewing", "watching"] {
        let place = Place::new(1);
        let (desk, faults) = place.faulty_desk();
        if what != "opening" {
            desk.register("one").await;
        }
        faults.hang(true);
        let registry = desk.registry.clone();
        let call = tokio::spawn(async move {
            match what {
                "asking" => registry.discover(Value::Null).await.map(drop),
                "registering" => registry.register(service_at("two", "http://127.0.0.1:1")).await.map(drop),
                "watching" => registry.watch(Watcher::Program).await,
                _ => registry.open().await,
            }
        });
        let others: Vec<_> = (0..10)
            .map(|_| {
                let registry = desk.registry.clone();
                tokio::spawn(async move { registry.stats().await.map(drop) })
            })
            .collect();
        if what == "renewing" {
            tokio::time::sleep(Duration::from_secs(150)).await;
        }
        idle().await;
        let start = Instant::now();
        tokio::join!(desk.registry.close(), desk.registry.close());
        desk.registry.close().await;
        assert!(start.elapsed() < SOON, "{what}: {:?}", start.elapsed());
        for call in others {
            let error = call.await.expect("no panic").expect_err("nothing answers");
            assert_eq!(error.code, Code::Closed, "{what}");
        }
        if what != "renewing" && what != "watching" && what != "registering" {
            assert_eq!(call.await.expect("no panic").expect_err("nothing answers").code, Code::Closed, "{what}");
        }
        assert_eq!(desk.registry.register(service_at("two", "http://a")).await.expect_err("closed").code, Code::Closed);
        assert_eq!(desk.registry.open().await.expect_err("closed").code, Code::Closed);
        assert_eq!(desk.registry.status().await["connected"], json!(false));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_one_that_was_closed_or_only_let_go() {
    for closes in [true, false] {
        let place = Place::new(1);
        let (desk, faults) = place.faulty_desk();
        desk.registry.watch(Watcher::Program).await.expect("open");
        desk.register("one").await;
        idle().await;
        let (registry, store) = (Arc::downgrade(&desk.registry), Arc::downgrade(&desk.store));
        if closes {
            desk.registry.close().await;
        }
        drop(desk);
        for _ in 0..100 {
            idle().await;
        }
        assert_eq!((registry.strong_count(), store.strong_count()), (0, 0), "closed: {closes}");
        let calls = || ["news", "renew_listings", "take_errands", "plan_errands"].map(|call| faults.calls(call));
        let before = calls();
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(calls(), before, "closed: {closes}");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_on_their_way_end_with_it() {
    for closes in [true, false] {
        let still = Still::new();
        let place = Place::new(1);
        let open = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = open.clone();
        let server = Server::raw(move |mut stream| {
            let seen = seen.clone();
            async move {
                seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let mut all = Vec::new();
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await;
                seen.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            }
        })
        .await;
        let desk = place.desk();
        desk.registry.watch(Watcher::Program).await.expect("open");
        for n in 0..20 {
            desk.register_as(service_at(&format!("s{n}"), &server.url(""))).await;
        }
        let connected = || open.load(std::sync::atomic::Ordering::SeqCst);
        while connected() < 20 {
            breathe().await;
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let (registry, store) = (Arc::downgrade(&desk.registry), Arc::downgrade(&desk.store));
        if closes {
            desk.registry.close().await;
        }
        drop(desk);
        while connected() > 0 || store.strong_count() > 0 {
            breathe().await;
        }
        assert_eq!(registry.strong_count(), 0);
        drop(still);
    }
    until("the clock goes on by itself", async || true).await;
}

/// Each of those that wait for a store that is away is told so when the next attempt has failed, not one after the other.
#[tokio::test(start_paused = true)]
async fn those_that_wait_for_the_same_fail_together() {
    let place = Place::new(1);
    let (desk, faults) = place.faulty_desk();
    faults.at_random(1, 1.0, Duration::ZERO);
    faults.hang(true);
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let registry = desk.registry.clone();
            tokio::spawn(async move { registry.discover(Value::Null).await })
        })
        .collect();
    idle().await;
    let before = faults.calls("news");
    faults.hang(false);
    for call in calls {
        assert_eq!(call.await.expect("no panic").expect_err("not reached").code, Code::Connection);
    }
    assert!(faults.calls("news") - before < 10, "{}", faults.calls("news") - before);
    faults.end();
    assert!(desk.names().await.is_empty());
}
