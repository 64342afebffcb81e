//! Who leads: it dies, stands still, is cut off, or leaves.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::bus::{Ear, Member, ids, server, task};
use crate::support::harness::ms;
use crate::support::proxy::Proxy;
use crate::support::wait::until;

/// Within so long another leads when one died: its lease of four seconds, and the look that finds it over.
const TAKEOVER_MAX: Duration = Duration::from_secs(8);

async fn all_done(member: &Member, tasks: &[String]) {
    for task in tasks {
        member.becomes(task, "completed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_is_replaced_and_nothing_is_lost_or_given_twice() {
    let server = server().await;
    let leader = Member::join(server.port(), &json!({})).await;
    leader.spawn(&["a", "b", "c"], 4).await;
    leader.knows(3).await;
    let others = [Member::join(server.port(), &json!({})).await, Member::join(server.port(), &json!({})).await];
    let ear = Ear::open(server.port(), &["task.assigned"], Some(ms(30))).await;
    let tasks = ids("t", 60);
    for task in &tasks[..40] {
        others[0].submit(task).await;
    }
    leader.machine.kill();
    let died = Instant::now();
    others[1].submit(&tasks[40]).await;
    let took = died.elapsed();
    println!("another leads after {took:?}");
    assert!(took < TAKEOVER_MAX, "{took:?}");
    for task in &tasks[41..] {
        others[1].submit(task).await;
    }
    all_done(&others[0], &tasks).await;
    ear.must_have_given_once(&tasks);
    for member in &others {
        assert_eq!(member.agents().len(), 3);
        member.leave().await;
    }
    ear.member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stood_still_and_goes_on_changes_nothing() {
    let server = server().await;
    let leader = Member::join(server.port(), &json!({})).await;
    leader.spawn(&["a"], 100).await;
    leader.knows(1).await;
    let other = Member::join(server.port(), &json!({})).await;
    let ear = Ear::open(server.port(), &["task.assigned"], None).await;
    let tasks = ids("t", 20);
    for task in &tasks[..10] {
        other.submit(task).await;
    }
    leader.machine.freeze();
    for task in &tasks[10..] {
        other.submit(task).await;
    }
    other.spawn(&["b"], 1).await;
    other.knows(2).await;
    leader.machine.thaw();
    // It hears of what the other one did, and of what comes now.
    leader.knows(2).await;
    other.submit("after").await;
    until("'after' is announced", async || ear.assigned().len() == 21).await;
    let given = [tasks, vec!["after".to_owned()]].concat();
    ear.must_have_given_once(&given);
    for task in &given {
        let status = other.status(task).await;
        assert_eq!(status.as_deref(), Some("assigned"), "{task}");
    }
    leader.leave().await;
    other.leave().await;
    ear.member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_connections_fall_silent_is_replaced_and_comes_back() {
    let server = server().await;
    let proxy = Proxy::start(server.port()).await;
    let leader = Member::join(proxy.port(), &json!({})).await;
    leader.spawn(&["a"], 100).await;
    leader.knows(1).await;
    let other = Member::join(server.port(), &json!({})).await;
    let ear = Ear::open(server.port(), &["task.assigned"], Some(ms(10))).await;
    let tasks = ids("t", 20);
    for task in &tasks[..10] {
        other.submit(task).await;
    }
    proxy.stall();
    let cut = Instant::now();
    other.submit(&tasks[10]).await;
    println!("another leads after {:?}", cut.elapsed());
    assert!(cut.elapsed() < TAKEOVER_MAX);
    proxy.admit();
    for task in &tasks[11..] {
        other.submit(task).await;
    }
    all_done(&other, &tasks).await;
    ear.must_have_given_once(&tasks);
    other.spawn(&["b"], 1).await;
    leader.knows(2).await;
    // It can lead again.
    other.leave().await;
    leader.submit("after").await;
    leader.becomes("after", "completed").await;
    leader.leave().await;
    ear.member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_leaves_hands_over_at_once() {
    let server = server().await;
    let leader = Member::join(server.port(), &json!({})).await;
    leader.spawn(&["a"], 100).await;
    leader.knows(1).await;
    let other = Member::join(server.port(), &json!({})).await;
    other.knows(1).await;
    leader.leave().await;
    let left = Instant::now();
    assert_eq!(other.distribute(&task("t"), 10_000).await.expect("answered"), Some("a".to_owned()));
    println!("handed over within {:?}", left.elapsed());
    // Far less than the lease of one that dies.
    assert!(left.elapsed() < Duration::from_millis(2_500), "{:?}", left.elapsed());
    other.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_while_nobody_leads_is_answered_by_whoever_does_next() {
    let server = server().await;
    let leader = Member::join(server.port(), &json!({})).await;
    leader.spawn(&["a"], 100).await;
    leader.knows(1).await;
    let other = Member::join(server.port(), &json!({})).await;
    let ear = Ear::open(server.port(), &["task.assigned"], None).await;
    leader.machine.kill();
    let (first, again) = (task("t"), task("t"));
    // One gives up waiting, and sends it again.
    let (timed_out, answered) = tokio::join!(other.distribute(&first, 500), other.distribute(&again, 15_000));
    assert_eq!(timed_out.expect_err("nobody leads").code.as_str(), "ERR_REQUEST_TIMEOUT");
    assert_eq!(answered.expect("answered"), Some("a".to_owned()));
    assert_eq!(other.distribute(&task("t"), 5_000).await.expect("answered"), Some("a".to_owned()));
    until("it is announced", async || !ear.assigned().is_empty()).await;
    ear.must_have_given_once(&["t".to_owned()]);
    other.leave().await;
    ear.member.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_announced_is_not_announced_again_by_whoever_leads_next() {
    let server = server().await;
    let config = json!({ "maxAgentsPerPool": 4, "minAgentsPerPool": 1 });
    let leader = Member::join(server.port(), &config).await;
    leader.spawn(&["a"], 2).await;
    leader.knows(1).await;
    let other = Member::join(server.port(), &config).await;
    let ear = Ear::open(server.port(), &["orchestration.scale_up", "task.assigned", "performance.threshold"], None).await;
    let tasks = ids("t", 6);
    for task in &tasks {
        other.submit(task).await;
    }
    until("more agents are asked for", async || !ear.heard("orchestration.scale_up").is_empty()).await;
    leader.machine.kill();
    // What is given is answered by whoever leads next, which has looked at its pools before.
    other.submit("after").await;
    other.spawn(&["b"], 2).await;
    other.knows(2).await;
    until("the new agent has its tasks", async || ear.assigned().len() == 4).await;
    assert_eq!(ear.heard("orchestration.scale_up").len(), 1, "{:?}", ear.heard("orchestration.scale_up"));
    assert!(ear.assigned().values().all(|times| *times == 1));
    other.leave().await;
    ear.member.leave().await;
}
