//! Buses with machines of their own, and agents that work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ossa::engine::bus::Bus;
use ossa::engine::config::{LoadBalancing, resolve_bus, resolve_ossa};
use ossa::engine::consume::Verdict;
use ossa::engine::env::Env;
use ossa::engine::error::Result;
use ossa::engine::host::Delivery;
use ossa::engine::options::SubscribeOptions;
use ossa::engine::store::redis::RedisStore;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::machine::{Clock, EPOCH_MS, SimMachine};
use crate::support::host::{TestHost, host};
use crate::support::redis_store::config_at;
use crate::support::server::{Server, programs};
use crate::support::wait::until;

/// How long a server may take for a command.
const COMMAND_MAX: Duration = Duration::from_secs(2);

/// A bus, in a process of its own as far as it knows.
pub struct Member {
    pub bus: Arc<Bus>,
    pub host: Arc<TestHost>,
    pub machine: Arc<SimMachine>,
    next: AtomicU32,
}

/// `orchestration.config`.
fn balancing(config: &Value) -> LoadBalancing {
    let config = json!({ "eventBus": { "redis": { "url": "memory://" } }, "orchestration": { "config": config } });
    resolve_ossa(&config, &|_| None).expect("a right configuration").orchestration.config
}

/// A server of the first program there is.
pub async fn server() -> Server {
    Server::start(&programs()[0]).await
}

impl Member {
    /// One that takes part, where the server answers on that port.
    pub async fn join(port: u16, config: &Value) -> Self {
        Self::connect(port, Some(balancing(config))).await
    }

    /// One that does not.
    pub async fn beside(port: u16) -> Self {
        Self::connect(port, None).await
    }

    async fn connect(port: u16, orchestration: Option<LoadBalancing>) -> Self {
        static SEED: AtomicU32 = AtomicU32::new(1);
        let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
        let machine = SimMachine::new(Clock::start(), i64::try_from(u64::try_from(now_ms).expect("soon") - EPOCH_MS).expect("soon"));
        let env = Env::on(machine.clone(), u64::from(SEED.fetch_add(1, Ordering::Relaxed)));
        let mut redis = config_at(port);
        redis.command_timeout = COMMAND_MAX;
        let store = RedisStore::new(redis, env.clone()).expect("the configuration is right");
        let config = resolve_bus(&json!({ "redis": { "url": "memory://" } }), &|_| None).expect("a right configuration");
        let host = host();
        let bus = Bus::with_store(config, None, store, host.clone(), env);
        if let Some(orchestration) = orchestration {
            bus.with_orchestration(orchestration);
        }
        bus.connect().await.expect("connected");
        Self { bus, host, machine, next: AtomicU32::new(1) }
    }

    async fn send(&self, event_type: &str, options: &str, data: &Value) -> Result<String> {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        self.bus.publish(token, format!("{event_type}\t{options}\t{data}\n"));
        self.host.result(token).await
    }

    /// Publishes; must succeed.
    pub async fn publish(&self, event_type: &str, data: &Value) {
        self.send(event_type, "", data).await.expect("published");
    }

    /// Gives a task in. Who has it, if anybody has.
    pub async fn distribute(&self, task: &Value, timeout_ms: u64) -> Result<Option<String>> {
        let reply = self.send("ossa.orchestration.distribute", &format!("?{timeout_ms}"), task).await?;
        let reply: Value = serde_json::from_str(&reply).expect("JSON");
        assert!(reply.get("err").is_none(), "{reply}");
        Ok(reply["ok"].as_str().map(ToOwned::to_owned))
    }

    /// The same again and again until it is answered.
    pub async fn submit(&self, id: &str) {
        while let Err(error) = self.distribute(&task(id), 2_000).await {
            assert!(error.retryable || error.code.as_str() == "ERR_REQUEST_TIMEOUT", "{error}");
        }
    }

    /// `AgentView[]`.
    pub fn agents(&self) -> Vec<Value> {
        serde_json::from_str(&self.bus.orchestration("agents").expect("it takes part")).expect("JSON")
    }

    /// Waits until it knows so many agents: then somebody leads.
    pub async fn knows(&self, agents: usize) {
        until("agents are known", async || self.agents().len() == agents).await;
    }

    /// Where a task is in its life.
    pub async fn status(&self, task: &str) -> Option<String> {
        // It may not be answered just now.
        let task = self.bus.task(task).await.ok()?;
        task["status"].as_str().map(ToOwned::to_owned)
    }

    /// Waits until a task is so.
    pub async fn becomes(&self, task: &str, status: &str) {
        until(&format!("'{task}' is {status}"), async || self.status(task).await.as_deref() == Some(status)).await;
    }

    /// Spawns agents, each of so many places.
    pub async fn spawn(&self, agents: &[&str], places: u32) {
        for agent in agents {
            let configuration = json!({ "maxTasks": places });
            let spawned = json!({ "agentId": agent, "agentType": "worker", "capabilities": ["work"], "configuration": configuration });
            self.publish("agent.spawned", &spawned).await;
        }
    }

    pub async fn leave(&self) {
        self.bus.disconnect(Duration::from_secs(1)).await;
    }
}

pub fn task(id: &str) -> Value {
    json!({ "id": id, "type": "work", "priority": 1, "requiredCapabilities": ["work"] })
}

/// What was announced, heard by a bus that takes no part.
pub struct Ear {
    pub member: Arc<Member>,
    heard: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    works: Arc<Mutex<Option<Duration>>>,
}

impl Ear {
    /// Hears these types. What is assigned is done by agents after `works`, if they do.
    pub async fn open(port: u16, types: &[&str], works: Option<Duration>) -> Self {
        let member = Arc::new(Member::beside(port).await);
        let (sender, mut deliveries) = mpsc::unbounded_channel::<Delivery>();
        member.host.hand_to(sender);
        for event_type in types {
            let id = member.next.fetch_add(1, Ordering::Relaxed);
            let options = SubscribeOptions::read(json!({ "group": "ear", "startFrom": "beginning" })).expect("right options");
            member.bus.subscribe(id, event_type, options).await.expect("subscribed");
        }
        let heard: Arc<Mutex<BTreeMap<String, Vec<Value>>>> = Arc::default();
        let works = Arc::new(Mutex::new(works));
        let ear = Self { member, heard, works };
        let (member, heard, works) = (ear.member.clone(), ear.heard.clone(), ear.works.clone());
        tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                let data: Value = serde_json::from_str(&delivery.text.data).expect("JSON");
                let event_type = delivery.partition.event_type.to_string();
                heard.lock().expect("no panic under the lock").entry(event_type.clone()).or_default().push(data.clone());
                member.bus.settle(vec![(delivery.token, Verdict::Done)], 0);
                let works = *works.lock().expect("no panic under the lock");
                if let Some(works) = works.filter(|_| event_type == "task.assigned") {
                    let member = member.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(works).await;
                        member.complete(&data).await;
                    });
                }
            }
        });
        ear
    }

    /// From now on nothing is done.
    pub fn rest(&self) {
        *self.works.lock().expect("no panic under the lock") = None;
    }

    /// What was heard of a type.
    pub fn heard(&self, event_type: &str) -> Vec<Value> {
        self.heard.lock().expect("no panic under the lock").get(event_type).cloned().unwrap_or_default()
    }

    /// Each assignment that was announced: task and attempt, and how often.
    pub fn assigned(&self) -> BTreeMap<(String, u64), usize> {
        let mut assigned = BTreeMap::new();
        for data in self.heard("task.assigned") {
            let key = (data["taskId"].as_str().expect("text").to_owned(), data["attempt"].as_u64().expect("a number"));
            *assigned.entry(key).or_default() += 1;
        }
        assigned
    }

    /// Each of the tasks was given once, and to one agent.
    pub fn must_have_given_once(&self, tasks: &[String]) {
        let expected: BTreeMap<(String, u64), usize> = tasks.iter().map(|task| ((task.clone(), 1), 1)).collect();
        assert_eq!(self.assigned(), expected);
    }
}

impl Member {
    /// The agent says that it did what it was told.
    pub async fn complete(&self, assigned: &Value) {
        let done = json!({ "taskId": assigned["taskId"], "agentId": assigned["agentId"], "attempt": assigned["attempt"], "result": 1 });
        while let Err(error) = self.send("task.completed", "", &done).await {
            if !error.retryable {
                return;
            }
        }
    }
}

pub fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}
