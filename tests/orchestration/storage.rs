//! The server of whoever leads: it forgets all, or stands still.

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::bus::{Ear, Member, ids, server};
use crate::support::harness::ms;
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_emptied_is_written_to_from_memory() {
    let server = server().await;
    let leader = Member::join(server.port(), &json!({})).await;
    leader.spawn(&["a", "b"], 2).await;
    leader.knows(2).await;
    let other = Member::join(server.port(), &json!({})).await;
    other.knows(2).await;
    let tasks = ids("t", 6);
    for task in &tasks {
        other.submit(task).await;
    }
    let states = async |member: &Member| {
        let mut states = Vec::new();
        for task in &tasks {
            states.push(member.status(task).await.unwrap_or_default());
        }
        states.sort();
        states
    };
    let before = states(&other).await;
    assert_eq!(before, ["assigned", "assigned", "assigned", "assigned", "queued", "queued"]);
    let holder = other.bus.task(&tasks[0]).await.expect("known");
    server.command(&[b"FLUSHALL"]).await;
    until("all is written again", async || states(&other).await == before).await;
    for member in [&leader, &other] {
        until("all agents are seen again", async || member.agents().len() == 2).await;
    }
    // What was given out before goes on.
    let done = json!({ "taskId": tasks[0], "agentId": holder["agentId"], "attempt": 1 });
    until("it is done", async || {
        other.complete(&done).await;
        other.status(&tasks[0]).await.as_deref() == Some("completed")
    })
    .await;
    until("its place is taken", async || states(&other).await.iter().filter(|state| *state == "assigned").count() == 4).await;
    other.submit("after").await;
    other.becomes("after", "queued").await;
    leader.leave().await;
    other.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_for_longer_than_anybody_leads_loses_nothing() {
    let mut server = server().await;
    let members = [Member::join(server.port(), &json!({})).await, Member::join(server.port(), &json!({})).await];
    members[0].spawn(&["a", "b"], 3).await;
    members[1].knows(2).await;
    let ear = Ear::open(server.port(), &["task.assigned"], Some(ms(20))).await;
    let tasks = ids("t", 40);
    for task in &tasks[..20] {
        members[0].submit(task).await;
    }
    server.pause().await;
    sleep(ms(6_000)).await; // The fault itself: longer than the lease.
    server.resume().await;
    let back = Instant::now();
    for task in &tasks[20..] {
        members[1].submit(task).await;
    }
    println!("it goes on, {:?} for twenty tasks", back.elapsed());
    for task in &tasks {
        members[0].becomes(task, "completed").await;
    }
    ear.must_have_given_once(&tasks);
    ear.rest();
    for member in &members {
        member.leave().await;
    }
    ear.member.leave().await;
}
