//! Messages between projects over real servers: emptied ones, broken connections, many processes at once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ossa::engine::consume::Verdict;
use ossa::engine::env::Env;
use ossa::engine::error::Code;
use ossa::engine::store::redis::{RedisStore, RedisStoreConfig};
use ossa::engine::store::{DeadLetterQuery, Shelf};
use serde_json::json;

use crate::desk::{contract, desk_over, project, project_by, put, secret};
use crate::support::harness::{TestBus, data, failed, ms};
use crate::support::proxy::{Cut, Proxy, Way};
use crate::support::redis_store::{config, config_at};
use crate::support::server::{Server, programs};
use crate::support::wait::until;

async fn over(config: RedisStoreConfig) -> TestBus {
    desk_over(RedisStore::new(config, Env::system()).expect("the configuration is right")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_registers_another_knows_within_a_second() {
    for program in programs() {
        let server = Server::start(&program).await;
        let (a, b) = (over(config(&server)).await, over(config(&server)).await);
        for n in 0..5 {
            let id = format!("p{n}");
            a.register(&id).await;
            let start = Instant::now();
            until("it is known", async || b.projects().contracts(&id).is_ok()).await;
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_register_the_same_at_once_one_wins() {
    for program in programs() {
        let server = Server::start(&program).await;
        let buses = [over(config(&server)).await, over(config(&server)).await, over(config(&server)).await, over(config(&server)).await];
        let register =
            async |n: usize| buses[n % 4].projects().register(project_by("a", &format!("secret number {n} of a project"), None)).await;
        let results = join_all((0..20).map(register)).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        let others = results.iter().filter_map(|result| result.as_ref().err());
        assert!(others.clone().all(|error| error.code == Code::ProjectConflict), "{:?}", others.collect::<Vec<_>>());
        let winner = results.iter().position(Result::is_ok).expect("one");
        buses[0].register("b").await;
        // The winner sends, and nobody else does.
        for (i, bus) in buses.iter().enumerate() {
            let sent = bus.try_send("a", json!("b"), "t", json!(i), json!({})).await;
            assert_eq!(sent.is_ok(), i == winner % 4, "{sent:?}");
        }

        let owner = &buses[winner % 4];
        let results = join_all((0..10).map(async |n| owner.projects().register_contract(contract("1.0.0", n)).await)).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|error| error.code == Code::ContractInvalid));

        let route = |n: usize| json!({ "name": "r", "match": { "tags": [n.to_string()] }, "targets": ["b"] });
        let results = join_all((0..20).map(async |n| buses[n % 4].projects().register_route(route(n)).await)).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let documents = owner.store.documents(Shelf::Routes, None).await.expect("read").expect("all");
        assert_eq!(documents.by_name.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_come_back_to_a_server_that_was_emptied() {
    for program in programs() {
        let server = Server::start(&program).await;
        let (a, b) = (over(config(&server)).await, over(config(&server)).await);
        let late = over(config(&server)).await;
        a.register("a").await;
        b.register("b").await;
        late.register("a").await;
        a.projects().register_contract(contract("1.0.0", 0)).await.expect("registered");
        a.projects().register_route(json!({ "name": "r", "match": { "tags": ["x"] }, "targets": ["b"] })).await.expect("registered");
        // Another secret since, of which the third process knows nothing but what stands there.
        a.register_as(project_by("a", "the new secret of project a", Some(&secret("a")))).await;
        b.read_messages("b", "t", json!({})).await;
        a.send("t", json!("before")).await;
        let delivery = b.host.next().await;
        b.done(&delivery);
        until("it is recorded", async || b.recorded("delivered").await.len() == 1).await;
        // Every process has looked since.
        tokio::time::sleep(ms(4_500)).await;
        let before = a.store.documents(Shelf::Projects, None).await.expect("read").expect("all").by_name;

        server.text(&["FLUSHALL"]).await;
        let all = async |shelf| a.store.documents(shelf, None).await.expect("read").expect("all").by_name;
        until("all are there again", async || {
            all(Shelf::Projects).await.len() == 2 && all(Shelf::Contracts).await.len() == 1 && all(Shelf::Routes).await.len() == 1
        })
        .await;
        assert_eq!(all(Shelf::Projects).await, before, "as they were, with the secret that holds");
        until("it is known", async || b.projects().contracts("a").is_ok() && a.projects().contracts("b").is_ok()).await;
        a.send("t", json!("after")).await;
        let delivery = b.host.next().await;
        assert_eq!(data(&delivery), "after");
        b.done(&delivery);
        until("it is recorded", async || b.recorded("delivered").await.len() == 1).await;
        // The chains go on, and say that their beginnings are missing.
        let found = a.projects().verify_audit().await.expect("verified");
        assert_eq!(found["ok"], false, "{found}");
        let records = a.records().await;
        let broken = found["firstBroken"].as_str().expect("text");
        assert!(
            records
                .iter()
                .any(|record| broken == format!("{}:{}", record["chain"].as_str().unwrap(), record["sequence"].as_u64().unwrap() - 1)),
            "{broken} {records:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_missing_comes_back_though_others_are_there() {
    let server = Server::start(&programs()[0]).await;
    let (a, b) = (over(config(&server)).await, over(config(&server)).await);
    a.register("a").await;
    b.register("b").await;
    tokio::time::sleep(ms(500)).await;
    // A replica that did not have it yet took over.
    let before = a.store.documents(Shelf::Projects, None).await.expect("read").expect("all").by_name["b"].clone();
    assert!(a.store.put_document(Shelf::Projects, "b", Some(&before), None).await.expect("removed"));
    until("it is there again", async || {
        let there = a.store.documents(Shelf::Projects, None).await.expect("read").expect("all").by_name;
        there.get("b") == Some(&before)
    })
    .await;
}

/// Two buses behind a proxy that breaks every now and then; what was sent ends, is recorded, and the chains hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_connections_that_break_everything_ends_and_is_recorded() {
    for program in programs() {
        let server = Server::start(&program).await;
        let proxy = Proxy::start(server.port()).await;
        let direct = over(config(&server)).await;
        let (a, b) = (over(config_at(proxy.port())).await, over(config_at(proxy.port())).await);
        a.register("a").await;
        b.register("b").await;
        b.read_messages("b", "t", json!({})).await;
        b.handle(|_| (ms(1), Verdict::Done));
        let mut sent = Vec::new();
        for n in 0..60_u64 {
            let way = if n % 2 == 0 { Way::Up } else { Way::Down };
            proxy.arm(Some(Cut { way, after: 1 + n * 37 % 3_000, late: None }));
            if let Ok(id) = a.try_send("a", json!("b"), "t", json!(n.to_string()), json!({})).await {
                sent.push(id);
            }
        }
        proxy.arm(None);
        assert!(proxy.cuts() > 20 && sent.len() > 30, "{} cuts, {} sent", proxy.cuts(), sent.len());
        for id in &sent {
            until("it is recorded", async || {
                let outcomes = direct.outcomes(id).await;
                outcomes.iter().any(|outcome| outcome == "sent") && outcomes.iter().any(|outcome| outcome == "delivered")
            })
            .await;
            let outcomes = direct.outcomes(id).await;
            assert_eq!(outcomes.iter().filter(|outcome| *outcome == "sent").count(), 1, "{outcomes:?}");
        }
        assert!(direct.letters().await.is_empty());
        direct.verified().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_a_while_holds_up_records_and_loses_none() {
    let server = Server::start(&programs()[0]).await;
    let mut server = server;
    let (a, b) = (over(config(&server)).await, over(config(&server)).await);
    a.register("a").await;
    b.register("b").await;
    b.read_messages("b", "t", json!({})).await;
    a.send("t", json!("x")).await;
    let delivery = b.host.next().await;
    server.pause().await;
    b.done(&delivery);
    let waiting = a.post("t", &json!({ "source": "a", "target": "b" }), &json!("y"));
    let unknown = a.post("t", &json!({ "source": "a", "target": "nobody" }), &json!("y"));
    tokio::time::sleep(ms(3_000)).await;
    server.resume().await;
    let id = a.host.result(waiting).await.expect("it was sent when it could");
    let error = a.host.result(unknown).await.expect_err("refused");
    assert!(error.code == Code::ProjectUnknown || error.retryable, "{error}");
    let delivery = b.host.next().await;
    b.done(&delivery);
    until("it is recorded", async || a.outcomes(&id).await == ["delivered", "sent"]).await;
    a.verified().await;
}

/// The last records were lost with a failover: the head is older than what was written behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_goes_on_after_a_failover_that_lost_its_end() {
    for program in programs() {
        let server = Server::start(&program).await;
        let a = over(config(&server)).await;
        a.register("a").await;
        a.register("b").await;
        for n in 0..4 {
            a.send("t", json!(n)).await;
        }
        let records = a.records().await;
        let chain = records[0]["chain"].as_str().expect("text");
        let found = server.text(&["EVAL", "local all = {} for _, key in ipairs(redis.call('KEYS', '*:audit:heads')) do all[#all + 1] = key end return table.concat(all, ' ')", "0"]).await;
        let heads = found.split(' ').next().expect("one").to_owned();
        let stream = heads.strip_suffix(":heads").expect("it ends so").to_owned();
        let head = format!("2 {}", records[1]["hash"].as_str().expect("text"));
        server.text(&["EVAL", "for _, e in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 2)) do redis.call('XDEL', KEYS[1], e[1]) end redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) return 'OK'", "2", &stream, &heads, chain, &head]).await;
        assert_eq!(a.verified().await, 2);
        for n in 4..8 {
            a.send("t", json!(n)).await;
        }
        assert_eq!(a.verified().await, 6);
        assert_eq!(a.logged("could not be written"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_many_processes_are_all_delivered_and_recorded_once() {
    for program in programs() {
        let server = Server::start(&program).await;
        let senders = [over(config(&server)).await, over(config(&server)).await, over(config(&server)).await];
        let readers = [over(config(&server)).await, over(config(&server)).await];
        for bus in &senders {
            bus.register_as(project("a")).await;
        }
        senders[0].register("b").await;
        for bus in &readers {
            bus.read_messages("b", "**", json!({})).await;
            bus.handle(|_| (ms(0), Verdict::Done));
        }
        join_all(senders.iter().map(|bus| bus.send_many("t", 300))).await;
        until("all are recorded", async || {
            senders[0].projects().stats(None).await.expect("asked")["messagesReceived"].as_u64() >= Some(900)
        })
        .await;
        assert_eq!(senders[0].recorded("delivered").await.len(), 900);
        assert_eq!(senders[0].recorded("sent").await.len(), 900);
        assert_eq!(senders[0].verified().await, 1800);
        let stats = senders[0].projects().stats(None).await.expect("asked");
        assert_eq!((&stats["messagesSent"], &stats["messagesReceived"], &stats["messagesFailed"]), (&json!(900), &json!(900), &json!(0)));
    }
}

/// What memory does on a turned clock, servers do too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redeliveries_are_no_replays_and_copies_are() {
    for program in programs() {
        let server = Server::start(&program).await;
        let (a, b) = (over(config(&server)).await, over(config(&server)).await);
        a.register("a").await;
        b.register("b").await;
        b.read_messages("b", "t", json!({ "retry": { "maxAttempts": 1, "initialDelay": 10 } })).await;
        let id = a.send("t", json!("x")).await;
        let mut last = b.host.next().await;
        b.settle(&last, failed("boom"));
        last = b.host.next().await;
        assert_eq!(last.attempt, 2);
        b.settle(&last, failed("boom"));
        until("it is a dead letter", async || b.letters().await.len() == 1).await;
        let all = DeadLetterQuery { event_type: Some("@b/t".into()), ..DeadLetterQuery::default() };
        assert_eq!(b.bus.redrive(&all).await.expect("put back"), 1);
        let again = b.host.next().await;
        assert!(again.id != last.id && again.attempt == 1);
        b.done(&again);
        until("it is recorded", async || b.outcomes(&id).await == ["delivered", "failed", "sent"]).await;
        let late = a.send_with("t", json!("later"), json!({ "delayMs": 300 })).await;
        let delayed = b.host.next().await;
        assert_eq!(data(&delayed), "later");
        b.done(&delayed);
        until("it is recorded", async || b.outcomes(&late).await == ["delivered", "sent"]).await;
        for copy in [&again, &last, &delayed] {
            put(&b.store, &copy.partition, &copy.text.meta, &copy.text.data).await;
        }
        until("all are refused", async || b.letters().await.len() == 3).await;
        assert!(b.refusals().await.iter().all(|(reason, error)| reason == "signature" && error == "ERR_REPLAY"));
        assert!(b.host.arrived().is_empty());
        b.verified().await;
    }
}
