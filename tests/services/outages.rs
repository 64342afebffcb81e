//! A register whose store fails, hangs, or whose process stands still.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::env::Env;
use ossa::engine::host::Kind;
use ossa::engine::services::Watcher;
use ossa::engine::services::health::Report;
use ossa::engine::store::Turn;
use serde_json::{Value, json};

use crate::desk::{Desk, desk_over, service};
use crate::machine::{Clock, SimMachine};
use crate::support::faulty::Fault;
use crate::support::harness::{Place, idle};

/// Which every registry here calls.
const CALLS: [&str; 6] = ["put_listing", "news", "renew_listings", "plan_errands", "take_errands", "end_errand"];

#[tokio::test(start_paused = true)]
async fn a_registration_whose_answer_is_lost_can_be_repeated_and_is_told_once() {
    for call in CALLS {
        for fault in [Fault::NotReached, Fault::ReplyLost, Fault::Refused] {
            let place = Place::new(1);
            let ((desk, faults), watcher) = (place.faulty_desk(), place.desk());
            watcher.registry.open().await.expect("open");
            desk.registry.watch(Watcher::Program).await.expect("open");
            for _ in 0..2 {
                faults.next(call, &[fault]);
                let first = desk.registry.register(service("one")).await;
                faults.heal(call);
                let is_listed = watcher.names().await == ["one"];
                assert!(first.is_err() || is_listed, "{call} {fault:?}: it is registered, and not listed");
                desk.register("one").await;
                assert!(desk.registry.holds("one"));
                assert_eq!((desk.names().await, watcher.names().await), (vec!["one".to_owned()], vec!["one".to_owned()]));
                faults.next(call, &[fault]);
                let updated = desk.registry.update("one", json!({ "version": "2.0.0" })).await;
                faults.heal(call);
                desk.registry.update("one", json!({ "version": "2.0.0" })).await.expect("updated");
                faults.next(call, &[fault]);
                let gone = desk.registry.unregister("one").await;
                faults.heal(call);
                assert!(updated.is_ok() || gone.is_ok() || call == "put_listing" || call == "news", "{call} {fault:?}");
                desk.registry.unregister("one").await.expect("taken out");
                idle().await;
            }
            let story = ["+one 1.0.0", "~one 2.0.0", "-one", "+one 1.0.0", "~one 2.0.0", "-one"];
            assert_eq!((desk.story(), watcher.story()), (desk_story(&story), desk_story(&story)), "{call} {fault:?}");
        }
    }
}

fn desk_story(story: &[&str]) -> Vec<String> {
    story.iter().map(|line| (*line).to_owned()).collect()
}

/// What it did is done, though it cannot be read again at once.
#[tokio::test(start_paused = true)]
async fn what_was_put_is_put_though_the_look_behind_it_fails() {
    let place = Place::new(1);
    let (desk, faults) = place.faulty_desk();
    desk.registry.open().await.expect("open");
    faults.be_deaf(true);
    // The first look is before it.
    let behind = || faults.next("news", &[Fault::Passes, Fault::NotReached]);
    behind();
    desk.register("one").await;
    assert!(desk.registry.holds("one"));
    behind();
    assert!(desk.registry.update("one", json!({ "version": "2.0.0" })).await.expect("updated").is_some());
    behind();
    assert!(desk.registry.unregister("one").await.expect("taken out"));
    idle().await;
    assert!(desk.names().await.is_empty());
    assert_eq!(desk.story(), ["+one 1.0.0", "~one 2.0.0", "-one"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_less_than_a_life_changes_nothing_and_renewing_goes_on_after_it() {
    let place = Place::new(1);
    let ((owner, faults), watcher) = (place.faulty_desk_with(&json!({ "serviceTtlSeconds": 30 })), place.desk());
    watcher.registry.open().await.expect("open");
    owner.register("one").await;
    for _ in 0..5 {
        faults.be_away(true);
        tokio::time::sleep(Duration::from_secs(19)).await;
        faults.be_away(false);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(watcher.story(), ["+one 1.0.0"]);
    assert_eq!(owner.story(), ["+one 1.0.0"]);
    assert_eq!(owner.host.said(Kind::RegistryError).len(), 5, "each outage is told once");
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_owner_could_not_renew_it_in_time_comes_back_with_the_store() {
    for hangs in [false, true] {
        let place = Place::new(1);
        let ((owner, faults), watcher) = (place.faulty_desk_with(&json!({ "serviceTtlSeconds": 30 })), place.desk());
        watcher.registry.open().await.expect("open");
        owner.register("one").await;
        if hangs {
            faults.hang(true);
        } else {
            faults.be_away(true);
        }
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(watcher.story(), ["+one 1.0.0", "!one"]);
        faults.hang(false);
        faults.be_away(false);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(watcher.story(), ["+one 1.0.0", "!one", "+one 1.0.0"]);
        assert_eq!(owner.story(), ["+one 1.0.0", "!one", "+one 1.0.0"], "what it missed it is told");
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(watcher.story().len(), 3);
    }
}

/// As many changes as nobody keeps: that it expired is not known, only that it is not there.
#[tokio::test(start_paused = true)]
async fn a_service_comes_back_though_too_much_happened_meanwhile_to_be_told_how_it_went() {
    let place = Place::new(1);
    let ((owner, faults), watcher) = (place.faulty_desk_with(&json!({ "serviceTtlSeconds": 30 })), place.desk());
    owner.register("mine").await;
    owner.register("taken-out").await;
    watcher.register("other").await;
    faults.hang(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let churn = async |count: u64| {
        for n in 0..count {
            let report = Report { reason: n.to_string(), until_ms: watcher.store.now_ms() + 600_000 };
            watcher.registry.report("other", "by", Some(report)).await.expect("noted");
        }
    };
    churn(2_500).await;
    faults.hang(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(watcher.names().await, ["mine", "other", "taken-out"], "nobody renewed them in time");
    // Where it was renewed in time, what is not there was taken out.
    faults.hang(true);
    assert!(watcher.registry.unregister("taken-out").await.expect("taken out"));
    churn(2_500).await;
    faults.hang(false);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(watcher.names().await, ["mine", "other"]);
    assert!(owner.registry.holds("mine") && !owner.registry.holds("taken-out"));
}

/// Of an own machine, that can stand still.
fn on_machine(place: &Place) -> (Desk, Arc<SimMachine>) {
    let machine = SimMachine::new(Clock::start(), 0);
    (desk_over(place.store(), Env::on(machine.clone(), 7), &json!({ "serviceTtlSeconds": 10 })), machine)
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stands_still_for_longer_than_its_life_registers_again_what_it_had_and_nothing_else() {
    let place = Place::new(1);
    let ((owner, machine), watcher) = (on_machine(&place), place.desk());
    watcher.registry.open().await.expect("open");
    for name in ["kept", "taken-out", "taken-over"] {
        owner.register(name).await;
    }
    machine.freeze();
    tokio::time::sleep(Duration::from_secs(5)).await;
    watcher.registry.unregister("taken-out").await.expect("taken out");
    tokio::time::sleep(Duration::from_secs(55)).await;
    let mut other = service("taken-over");
    other["version"] = json!("9.0.0");
    watcher.register_as(other).await;
    assert_eq!(watcher.names().await, ["taken-over"]);
    machine.thaw();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let listed = watcher.listed().await;
    assert_eq!(listed, [("kept".to_owned(), "1.0.0".to_owned()), ("taken-over".to_owned(), "9.0.0".to_owned())]);
    assert_eq!(watcher.told(Kind::ServiceRegistered, "kept"), 2);
    assert_eq!(watcher.told(Kind::ServiceUnregistered, "taken-out"), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(watcher.names().await, ["kept", "taken-over"]);
}

/// What is said while nobody is connected is told afterwards, whole and in order.
#[tokio::test(start_paused = true)]
async fn whoever_was_away_is_told_every_change_once() {
    let place = Place::new(1);
    let ((away, faults), there) = (place.faulty_desk(), place.desk());
    away.registry.open().await.expect("open");
    there.registry.open().await.expect("open");
    faults.hang(true);
    for n in 0..500 {
        there.register(&format!("s{n}")).await;
        if n % 3 == 0 {
            there.registry.unregister(&format!("s{n}")).await.expect("taken out");
        }
    }
    faults.hang(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(away.story(), there.story());
}

/// Another program writes under names, in memory as in Redis.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_can_be_taken_out_and_registered_anew() {
    let place = Place::new(1);
    let desk = place.desk();
    desk.register("good").await;
    let garbage = |definition: &str| ossa::engine::store::Listing { definition: definition.to_owned(), health: "?".to_owned() };
    for name in ["one", "two"] {
        let put = desk.store.put_listing(name, None, Some(&garbage("{")), Turn::Registered, None).await;
        assert!(put.expect("put"));
    }
    assert_eq!(desk.names().await, ["good"]);
    assert_eq!(desk.logged("cannot be read"), 2);
    desk.register("one").await;
    assert!(desk.registry.unregister("two").await.expect("taken out"));
    assert!(!desk.registry.unregister("two").await.expect("asked"));
    assert_eq!(desk.registry.update("two", json!({})).await.expect("asked"), None);
    assert_eq!(desk.names().await, ["good", "one"]);
    assert_eq!(desk.registry.health("two").await.expect("asked"), None::<Value>);
}
