//! The helpers that tests of topologies rely on: a cluster that fails over and moves its slots, sentinels that switch,
//! servers that speak TLS or listen on a Unix socket.

mod support;

use support::certificates::{Authority, Clients, TlsServer, speaks_tls};
use support::cluster::{Cluster, Shape, command_for, failover_max, shared, slot_of};
use support::sentinel::{self, MASTER_NAME, Watched};
use support::server::{Server, programs};
use support::wait::until;

/// Every program in turn.
macro_rules! on_every_server {
    ($($name:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for program in programs() {
                println!("server: {program}"); // shown when the test fails
                rules::$name(&program).await;
            }
        })+
    };
}

on_every_server!(
    a_killed_master_is_replaced_and_comes_back_as_a_replica,
    a_paused_master_is_replaced,
    a_slot_moves_with_its_keys,
    a_slot_stays_half_moved_until_it_is_finished,
    sentinels_name_another_master_when_theirs_is_killed,
    sentinels_with_a_password_ask_for_it,
    a_sentinel_that_was_told_wrong_stays_wrong,
    a_shared_cluster_is_started_once,
    a_server_listens_on_a_socket_in_its_directory
);

mod rules {
    use super::*;

    pub async fn a_killed_master_is_replaced_and_comes_back_as_a_replica(program: &str) {
        let mut cluster = Cluster::start(program, Shape::default()).await;
        assert_eq!(cluster.masters().await, [0, 1, 2]);
        let slot = slot_of("a");
        let master = cluster.owner(slot).await;
        cluster.command_for("a", &["SET", "a", "1"]).await;
        cluster.command(master, &["WAIT", "1", "5000"]).await;
        let killed_at = std::time::Instant::now();
        cluster.kill(master).await;
        let (next, at) = cluster.taken_over(slot, master).await;
        assert_eq!(next, master + 3, "its replica");
        assert!(at - killed_at < failover_max(&Shape::default()));
        cluster.settles().await;
        assert_eq!(cluster.owner(slot).await, next);
        let value: String = redis::from_redis_value(cluster.command_for("a", &["GET", "a"]).await).unwrap();
        assert_eq!(value, "1");
        cluster.restart(master).await;
        cluster.settles().await;
        assert!(!cluster.masters().await.contains(&master));
    }

    pub async fn a_paused_master_is_replaced(program: &str) {
        let mut cluster = Cluster::start(program, Shape::default()).await;
        cluster.pause(1).await;
        let (next, _) = cluster.taken_over(8000, 1).await;
        assert_eq!(next, 4);
        cluster.resume(1).await;
        cluster.settles().await;
        assert_eq!(cluster.masters().await, [0, 2, 4]);
    }

    pub async fn a_slot_moves_with_its_keys(program: &str) {
        let cluster = Cluster::start(program, Shape { replicas: 0, ..Shape::default() }).await;
        let slot = slot_of("{a}");
        let (from, to) = (cluster.owner(slot).await, (cluster.owner(slot).await + 1) % 3);
        for n in 0..120 {
            let key = format!("{{a}}{n}");
            cluster.command_for(&key, &["SET", &key, "1"]).await;
        }
        cluster.migrate_slot(slot, to).await;
        assert_eq!(cluster.owner(slot).await, to);
        let count = |node| cluster.command(node, &["DBSIZE"]);
        assert_eq!((count(from).await, count(to).await), (redis::Value::Int(0), redis::Value::Int(120)));
        let moved = cluster.ask(from, &["GET", "{a}1"]).await.expect_err("it is elsewhere");
        assert_eq!(moved.code(), Some("MOVED"), "{moved}");
    }

    pub async fn a_slot_stays_half_moved_until_it_is_finished(program: &str) {
        let cluster = Cluster::start(program, Shape { replicas: 0, ..Shape::default() }).await;
        let slot = slot_of("{a}");
        for key in ["{a}1", "{a}2"] {
            cluster.command_for(key, &["SET", key, "1"]).await;
        }
        let to = (cluster.owner(slot).await + 1) % 3;
        let migration = cluster.begin_migration(slot, to).await;
        cluster.move_named(&migration, &["{a}1".into()]).await;
        let of = async |arguments: &[&str]| cluster.ask(migration.from, arguments).await;
        assert_eq!(of(&["GET", "{a}1"]).await.expect_err("it went").code(), Some("ASK"));
        of(&["GET", "{a}2"]).await.expect("it is here");
        assert_eq!(of(&["MGET", "{a}1", "{a}2"]).await.expect_err("they are apart").code(), Some("TRYAGAIN"));
        cluster.finish_migration(&migration).await;
        cluster.command(to, &["MGET", "{a}1", "{a}2"]).await;
    }

    pub async fn sentinels_name_another_master_when_theirs_is_killed(program: &str) {
        let shape = sentinel::Shape { replicas: 2, ..sentinel::Shape::default() };
        let mut watched = Watched::start(program, &shape).await;
        watched.agreed_on(0).await;
        watched.kill(0).await;
        let (next, _) = watched.promoted(0).await;
        watched.agreed_on(next).await;
        watched.servers[0].restart().await;
        until("the old one is a replica", async || !sentinel::is_master(watched.servers[0].port()).await).await;
    }

    pub async fn sentinels_with_a_password_ask_for_it(program: &str) {
        let shape = sentinel::Shape { password: Some("guarded".into()), ..sentinel::Shape::default() };
        let watched = Watched::start(program, &shape).await;
        let port = watched.sentinels[0].port();
        let refused = support::server::ask_at(port, None, &["SENTINEL", "MASTER", MASTER_NAME]).await;
        assert_eq!(refused.expect_err("a password is asked for").code(), Some("NOAUTH"));
        assert_eq!(watched.master_by(0).await, Some(0));
    }

    pub async fn a_sentinel_that_was_told_wrong_stays_wrong(program: &str) {
        let watched = Watched::start(program, &sentinel::Shape::default()).await;
        let replica = watched.servers[1].port();
        let shape = sentinel::Shape { down_after_ms: 600_000, ..sentinel::Shape::default() };
        let stale = sentinel::sentinel(program, replica, &shape).await;
        let fields = async || {
            let reply = stale.ask(&["SENTINEL", "MASTER", MASTER_NAME]).await.expect("it watches");
            redis::from_redis_value::<std::collections::HashMap<String, String>>(reply).expect("fields")
        };
        until("it has heard from the others", async || fields().await["num-other-sentinels"] == "3").await;
        let fields = fields().await;
        assert_eq!((&fields["port"], &fields["role-reported"]), (&replica.to_string(), &"slave".to_owned()));
        watched.agreed_on(0).await;
    }

    pub async fn a_shared_cluster_is_started_once(program: &str) {
        let (one, two) = tokio::join!(shared(program), shared(program));
        assert_eq!(one, two);
        let key = format!("helpers:{}", std::process::id());
        command_for(&one, &key, &["SET", &key, "1", "EX", "60"]).await;
        assert_eq!(command_for(&two, &key, &["EXISTS", &key]).await, redis::Value::Int(1));
    }

    pub async fn a_server_listens_on_a_socket_in_its_directory(program: &str) {
        let server = Server::start_with(program, &["--unixsocket", "redis.sock"]).await;
        let path = server.path("redis.sock");
        tokio::net::UnixStream::connect(&path).await.expect("it listens");
        drop(server);
        assert!(!path.exists(), "it goes with its server");
    }
}

/// One exchange over TLS by the `openssl` program; None where there is none.
async fn exchange(port: u16, options: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new("openssl");
    command.args(["s_client", "-quiet", "-verify_return_error", "-connect", &format!("127.0.0.1:{port}")]).args(options);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = command.kill_on_drop(true).spawn().ok()?;
    let mut input = child.stdin.take().expect("it is piped");
    tokio::io::AsyncWriteExt::write_all(&mut input, b"PING\r\nQUIT\r\n").await.ok()?;
    let output = child.wait_with_output().await.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_server_speaks_tls_and_asks_for_certificates() {
    let authority = Authority::new("ossa test authority");
    let (identity, client) = (authority.local_server(), authority.client("somebody"));
    for program in programs() {
        for clients in [Clients::Any, Clients::Certified] {
            let Some(server) = TlsServer::start(&program, &authority, &identity, clients).await else { continue };
            assert!(speaks_tls(&program).await);
            std::fs::write(server.server.path("client.pem"), format!("{}{}", client.cert, client.key)).expect("written");
            let (ca, own) = (server.server.path("ca.crt"), server.server.path("client.pem"));
            let (ca, own) = (ca.to_str().expect("text"), own.to_str().expect("text"));
            let check = ["-CAfile", ca, "-verify_hostname", "localhost"];
            let Some(without) = exchange(server.tls_port(), &check).await else {
                println!("there is no openssl: the exchange is skipped");
                continue;
            };
            assert_eq!(without.contains("+PONG"), clients == Clients::Any, "{without}");
            let with = exchange(server.tls_port(), &[&check[..], &["-cert", own, "-key", own]].concat()).await;
            assert!(with.is_some_and(|said| said.contains("+PONG")));
        }
    }
}
