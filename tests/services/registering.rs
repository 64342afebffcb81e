//! One name, and many names, by several registries at once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use ossa::engine::error::Code;
use ossa::engine::host::Kind;
use ossa::engine::services::Watcher;
use ossa::engine::services::health::Report;
use serde_json::{Value, json};

use crate::desk::{Desk, service};
use crate::support::faulty::Faults;
use crate::support::harness::{Place, idle, ms};

/// Registries at once.
const DESKS: usize = 5;
/// What each of them does.
const ACTS: u64 = 12;

/// One of the things that are done to a service.
async fn act(desk: &Desk, who: usize, n: u64, name: &str) {
    let version = format!("{n}.{who}.0");
    let mut given = service(name);
    given["version"] = json!(version);
    // Whether it succeeds is the store's matter.
    match (who as u64 * 7 + n) % 5 {
        0 | 1 => drop(desk.registry.register(given).await),
        2 => drop(desk.registry.update(name, json!({ "version": version })).await),
        3 => {
            let report = Report { reason: "r".to_owned(), until_ms: desk.store.now_ms() + 60_000 };
            drop(desk.registry.report(name, &format!("by:{who}"), n.is_multiple_of(2).then_some(report)).await);
        }
        _ => drop(desk.registry.unregister(name).await),
    }
}

/// A story is one that can have happened; answers how it ends.
fn follow(story: &[String]) -> BTreeMap<String, String> {
    let mut there: BTreeMap<String, String> = BTreeMap::new();
    for line in story {
        let (name, version) = line[1..].split_once(' ').unwrap_or((&line[1..], ""));
        match &line[..1] {
            "+" => assert!(there.insert(name.to_owned(), version.to_owned()).is_none(), "{line}, though it was there: {story:?}"),
            "~" => assert!(there.insert(name.to_owned(), version.to_owned()).is_some(), "{line}, though it was not there: {story:?}"),
            "-" | "!" => assert!(there.remove(name).is_some(), "{line}, though it was not there: {story:?}"),
            _ => assert!(there.contains_key(line.split(':').next().unwrap_or_default()), "{line}, though it was not there: {story:?}"),
        }
    }
    there
}

async fn desks(place: &Place) -> (Vec<Desk>, Vec<std::sync::Arc<Faults>>) {
    let (mut desks, mut faults) = (Vec::new(), Vec::new());
    for n in 0..DESKS {
        let (desk, own) = place.faulty_desk();
        desk.registry.open().await.expect("open");
        own.at_random(n as u64, 0.0, ms(7));
        desks.push(desk);
        faults.push(own);
    }
    (desks, faults)
}

/// All tell the same story, which ends as things are.
async fn agree(desks: &[Desk]) {
    let listed = desks[0].listed().await;
    let ends: BTreeMap<String, String> = listed.iter().cloned().collect();
    for desk in desks {
        assert_eq!(desk.listed().await, listed);
        assert_eq!(desk.story(), desks[0].story());
        assert_eq!(follow(&desk.story()), ends);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_several_do_to_one_name_at_once_all_are_told_the_same_and_it_is_so() {
    for seed in 0..6 {
        let place = Place::new(seed);
        let (desks, _) = desks(&place).await;
        join_all(desks.iter().enumerate().map(|(who, desk)| async move {
            for n in 0..ACTS {
                act(desk, who, n + seed, "one").await;
            }
        }))
        .await;
        idle().await;
        agree(&desks).await;
        assert!(desks[0].story().len() > 5, "{:?}", desks[0].story());
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_lost_on_the_way_no_event_is_lost_or_doubled() {
    for seed in 0..6 {
        let place = Place::new(seed);
        let (desks, faults) = desks(&place).await;
        for (n, own) in faults.iter().enumerate() {
            own.at_random(seed * 100 + n as u64, 0.25, ms(20));
        }
        join_all(desks.iter().enumerate().map(|(who, desk)| async move {
            for n in 0..ACTS {
                act(desk, who, n, ["one", "two"][usize::from(n % 3 == 0)]).await;
            }
        }))
        .await;
        for own in &faults {
            own.end();
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        agree(&desks).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_several_register_at_once_is_registered_by_all_of_them_and_told_once() {
    let place = Place::new(1);
    let desks: Vec<Desk> = (0..20).map(|_| place.desk()).collect();
    let each = desks.iter().map(|desk| async { desk.registry.register(service("one")).await.expect("registered") });
    let registered = join_all(each).await;
    assert!(registered.iter().all(|one| one["registeredAt"] == registered[0]["registeredAt"]));
    idle().await;
    for desk in &desks {
        assert!(desk.told(Kind::ServiceRegistered, "one") <= 1 && desk.story().len() <= 1, "{:?}", desk.story());
        assert_eq!(desk.names().await, ["one"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_listed_to_the_end_of_its_time_and_ends_then_once_for_everybody() {
    let place = Place::new(1);
    let (owner, one, other) = (place.desk_with(&json!({ "serviceTtlSeconds": 30 })), place.desk(), place.desk());
    for desk in [&one, &other] {
        desk.registry.open().await.expect("open");
    }
    owner.register("short").await;
    owner.registry.close().await;
    idle().await;
    tokio::time::sleep(ms(29_990)).await;
    assert_eq!(one.names().await, ["short"]);
    tokio::time::sleep(ms(1_010)).await;
    for desk in [&one, &other] {
        assert_eq!(desk.told(Kind::ServiceExpired, "short"), 1, "within a second, without being asked");
        assert_eq!(desk.story(), ["+short 1.0.0", "!short"]);
        assert!(desk.names().await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn registries_with_different_times_keep_a_service_as_long_as_one_of_them_lives() {
    let place = Place::new(1);
    let (long, short) = (place.desk_with(&json!({ "serviceTtlSeconds": 300 })), place.desk_with(&json!({ "serviceTtlSeconds": 3 })));
    let watcher = place.desk();
    watcher.registry.open().await.expect("open");
    long.register("both").await;
    short.register("both").await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(watcher.story(), ["+both 1.0.0"]);
    // The time that the one which ended gave it is over before the other renews it: that notices, and registers it again.
    short.registry.close().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(watcher.names().await, ["both"]);
    follow(&watcher.story());
    assert!(watcher.story().len() <= 3, "{:?}", watcher.story());
    long.registry.close().await;
    tokio::time::sleep(Duration::from_secs(302)).await;
    assert!(watcher.names().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_taken_out_by_another_is_not_renewed_by_whoever_registered_it() {
    let place = Place::new(1);
    let (owner, other) = (place.desk_with(&json!({ "serviceTtlSeconds": 3 })), place.desk());
    owner.register("one").await;
    assert!(other.registry.unregister("one").await.expect("taken out"));
    idle().await;
    assert!(!owner.registry.holds("one"));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((other.names().await, other.told(Kind::ServiceRegistered, "one")), (Vec::new(), 0));
    assert_eq!(owner.story(), ["+one 1.0.0", "-one"]);
}

#[tokio::test(start_paused = true)]
async fn there_are_ten_thousand_services_and_no_more() {
    let place = Place::new(1);
    let (desk, watcher) = (place.desk(), place.desk());
    watcher.registry.open().await.expect("open");
    for n in 0..100 {
        join_all((0..100).map(|m| desk.register_as(service(&format!("s{n}-{m}"))).into_future())).await;
    }
    let error = desk.registry.register(service("one-too-many")).await.expect_err("full");
    assert_eq!((error.code, error.details["path"].as_str()), (Code::ServiceInvalid, Some("service")));
    assert_eq!(watcher.names().await.len(), 10_000);
    assert_eq!(watcher.host.said(Kind::ServiceRegistered).len(), 10_000);
    desk.register("s0-0").await;
    assert!(desk.registry.update("s5-5", json!({ "version": "2.0.0" })).await.expect("updated").is_some());
    assert!(desk.registry.unregister("s0-1").await.expect("taken out"));
    desk.register("one-in-its-place").await;
}

/// While it is asked for many at once, each name is planned to be looked at by itself.
#[tokio::test(start_paused = true)]
async fn what_comes_is_planned_without_planning_all_the_others_again() {
    let place = Place::new(1);
    let desk = place.desk();
    desk.registry.watch(Watcher::Program).await.expect("watched");
    let start = std::time::Instant::now();
    for n in 0..2000 {
        desk.register_as(json!({ "name": format!("s{n}"), "endpoint": "redis://host", "version": "1.0.0", "capabilities": [] })).await;
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(desk.registry.stats().await.expect("counted")["totalServices"], Value::from(2000));
}
