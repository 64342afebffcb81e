//! Opening and closing.

use std::time::{Duration, Instant};

use ossa::engine::error::Code;
use ossa::engine::store::ReadFrom;

use crate::support::events::{LONG, event, event_ids, partition, prepare, publish, take};
use crate::support::world::World;

pub async fn an_open_store_is_connected(world: &World) {
    let status = world.store.status().await;
    assert!(status.connected);
    assert_eq!(status.cluster, world.is_cluster());
    assert!((0.0..=100.0).contains(&status.utilization));
}

pub async fn what_one_user_does_another_sees(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("users.two"));
    prepare(store, &at, "g", "c").await;
    publish(&other, vec![event(&at, "e")]).await;
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["e"]);
    assert!(other.now_ms().abs_diff(store.now_ms()) < 1000);
}

pub async fn closing_ends_waiting_reads_in_time(world: &World) {
    let (store, at) = (world.user().await, partition("users.close"));
    prepare(&store, &at, "g", "c").await;
    let (mut reader, waker) = store.reader("g");
    let from = [ReadFrom::new(at.clone())];
    let waits = tokio::spawn(async move { reader.read("c", &from, 1, Some(LONG)).await.map(|entries| entries.len()) });
    tokio::task::yield_now().await;
    let start = Instant::now();
    // The engine wakes its readers before it closes; a read that had not begun to wait then fails.
    waker.wake();
    store.close(Duration::from_secs(2)).await;
    crate::support::wait::until("the read ended", async || {
        waker.wake();
        waits.is_finished()
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(waits.await.expect("no panic").unwrap_or(0) == 0);
}

pub async fn a_closed_store_refuses(world: &World) {
    let (store, at) = (world.user().await, partition("users.closed"));
    store.open_partition(&at).await.expect("opened");
    store.close(Duration::from_secs(2)).await;
    store.close(Duration::from_secs(2)).await;
    let results = store.append(at.bucket(), vec![event(&at, "a"), event(&at, "b")]).await;
    assert_eq!(results.len(), 2);
    for result in results {
        assert_eq!(result.expect_err("closed").code, Code::Closed);
    }
    assert_eq!(store.topology().await.expect_err("closed").code, Code::Closed);
    assert!(!store.status().await.connected);
    assert!(world.store.topology().await.is_ok(), "the other user goes on");
}
