//! What a bus does with messages between projects, in few words.

use std::sync::Arc;

use ossa::engine::config::CrossProject;
use ossa::engine::env::Env;
use ossa::engine::error::Result;
use ossa::engine::host::{Delivery, Kind};
use ossa::engine::name;
use ossa::engine::options::SubscribeOptions;
use ossa::engine::projects::Projects;
use ossa::engine::projects::audit::log::Query;
use ossa::engine::store::{DeadLetterQuery, NewEvent, Partition, Store, StoredDeadLetter};
use serde_json::{Value, json};

use crate::support::events::{group_state, partition, publish};
use crate::support::faulty::{Faults, Faulty};
use crate::support::harness::{Place, TestBus, idle};

/// How long what a record waits for may take on the turned clock.
const SEARCHES: usize = 2_000;

/// `crossProject`, as given.
pub fn cross(config: Value) -> CrossProject {
    CrossProject::from_resolved(&json!({ "crossProject": config })).expect("a right configuration")
}

/// The secret of a project.
pub fn secret(project: &str) -> String {
    format!("the secret of project {project}")
}

/// A project that may do anything, with its secret.
pub fn project(id: &str) -> Value {
    json!({
        "projectId": id, "name": id, "namespace": "test", "allowedEventTypes": ["**"], "allowedTargets": ["*"],
        "credentials": { "apiKey": format!("key of {id}"), "secret": secret(id) },
    })
}

/// The same with another secret, handed over by the one before where that is named.
pub fn project_by(id: &str, secret: &str, previous: Option<&str>) -> Value {
    let mut config = project(id);
    config["credentials"]["secret"] = secret.into();
    if let Some(previous) = previous {
        config["credentials"]["previousSecret"] = previous.into();
    }
    config
}

/// A contract of `a` for all, by which data is an object with an `n` that is a number of at least so much.
pub fn contract(version: &str, minimum: u32) -> Value {
    json!({
        "name": "numbers", "version": version, "sourceProject": "a", "targetProjects": ["*"], "eventTypes": ["number.*"],
        "schema": { "type": "object", "required": ["n"], "properties": { "n": { "type": "number", "minimum": minimum } } },
        "metadata": { "description": "", "author": "" },
    })
}

/// Two buses over one store: one is that of project `a`, the other that of `b`.
pub async fn two(seed: u64) -> (Place, TestBus, TestBus) {
    let place = Place::new(seed);
    let (a, b) = (place.desk().await, place.desk().await);
    a.register("a").await;
    b.register("b").await;
    (place, a, b)
}

impl Place {
    /// A bus that knows projects.
    pub async fn desk(&self) -> TestBus {
        self.desk_with(json!({}), json!({})).await
    }

    /// The same, with configurations.
    pub async fn desk_with(&self, config: Value, projects: Value) -> TestBus {
        TestBus::connect_with(self.store(), self.env(), config, Some(cross(projects))).await
    }

    /// One whose store fails as told.
    pub async fn faulty_desk(&self) -> (TestBus, Arc<Faults>) {
        let (store, faults) = Faulty::over(self.store());
        (TestBus::connect_with(store, self.env(), json!({}), Some(cross(json!({})))).await, faults)
    }
}

/// One over a store of its own, on the system's clock.
pub async fn desk_over(store: Arc<dyn Store>) -> TestBus {
    TestBus::connect_with(store, Env::system(), json!({}), Some(cross(json!({})))).await
}

impl TestBus {
    /// Its projects.
    pub fn projects(&self) -> Arc<Projects> {
        self.bus.projects().expect("they are on")
    }

    /// Registers the project with its secret.
    pub async fn register(&self, id: &str) {
        self.register_as(project(id)).await;
    }

    /// Registers a project.
    pub async fn register_as(&self, config: Value) {
        self.projects().register(config).await.expect("registered");
    }

    /// Reads messages to the project.
    pub async fn read_messages(&self, project: &str, pattern: &str, options: Value) -> u32 {
        let id = self.number();
        let options = SubscribeOptions::read_of_project(options).expect("right options");
        self.bus.handle_messages(id, project, pattern, options).await.expect("subscribed");
        id
    }

    /// Begins to send; answers under which number.
    pub fn post(&self, event_type: &str, address: &Value, data: &Value) -> u32 {
        let token = self.number();
        self.bus.publish(token, format!("{event_type}\t@{address}\t{data}\n"));
        token
    }

    /// Sends from `a` to `b`; must succeed. Answers its id.
    pub async fn send(&self, event_type: &str, data: Value) -> String {
        self.send_with(event_type, data, json!({})).await
    }

    /// The same, with options.
    pub async fn send_with(&self, event_type: &str, data: Value, options: Value) -> String {
        self.try_send("a", json!("b"), event_type, data, options).await.expect("sent")
    }

    /// Sends.
    pub async fn try_send(&self, source: &str, target: Value, event_type: &str, data: Value, options: Value) -> Result<String> {
        let token = self.post(event_type, &json!({ "source": source, "target": target, "options": options }), &data);
        self.host.result(token).await
    }

    /// Sends the numbers from 0 on in one go; all must be sent.
    pub async fn send_many(&self, event_type: &str, count: u32) {
        let tokens: Vec<u32> =
            (0..count).map(|n| self.post(event_type, &json!({ "source": "a", "target": "b" }), &json!(n.to_string()))).collect();
        for token in tokens {
            self.host.result(token).await.expect("sent");
        }
    }

    /// All audit records, oldest first.
    pub async fn records(&self) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = self.projects().audit_log(&Query::default(), 100, cursor.as_deref()).await.expect("read");
            all.extend(page["items"].as_array().expect("a list").clone());
            cursor = page["cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return all;
            }
        }
    }

    /// Records that ended so.
    pub async fn recorded(&self, outcome: &str) -> Vec<Value> {
        self.records().await.into_iter().filter(|record| record["outcome"] == outcome).collect()
    }

    /// Outcomes recorded of a message, in their order within a chain, else sorted.
    pub async fn outcomes(&self, message: &str) -> Vec<String> {
        let of_it = |record: &Value| record["messageId"] == message;
        let records = self.records().await.into_iter().filter(of_it);
        let mut outcomes: Vec<String> = records.map(|record| record["outcome"].as_str().expect("text").to_owned()).collect();
        outcomes.sort();
        outcomes
    }

    /// The audit log is as it was written; answers how many records there are.
    pub async fn verified(&self) -> u64 {
        let found = self.projects().verify_audit().await.expect("verified");
        assert_eq!(found["ok"], true, "{found}");
        found["checked"].as_u64().expect("a number")
    }

    /// Dead letters with all they say.
    pub async fn letters(&self) -> Vec<StoredDeadLetter> {
        self.store.dead_letters(&DeadLetterQuery::default(), 1000, None).await.expect("listed").0
    }

    /// Reasons of the dead letters, and the beginnings of their errors up to the colon.
    pub async fn refusals(&self) -> Vec<(String, String)> {
        let told = |letter: StoredDeadLetter| {
            let error = letter.error.split(':').next().unwrap_or_default().to_owned();
            (letter.reason, error)
        };
        self.letters().await.into_iter().map(told).collect()
    }

    /// Pending messages of that type to `b`, in the default group.
    pub async fn pending_messages(&self, event_type: &str) -> u64 {
        self.pending(&name::addressed("b", event_type), "default").await
    }

    /// Everything that was sent is settled, on the turned clock.
    pub async fn settles(&self, event_type: &str, group: &str) {
        for _ in 0..SEARCHES {
            let (pending, lag, ..) = group_state(&self.store, &partition(&name::addressed("b", event_type)), group).await;
            if pending == 0 && lag == Some(0) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("something is still pending");
    }

    /// The next delivery is this one; its handler succeeds.
    pub async fn takes(&self, data: &Value) -> Delivery {
        let delivery = self.host.next().await;
        assert_eq!(delivery.text.data, data.to_string());
        self.done(&delivery);
        idle().await;
        delivery
    }

    /// What was said to the program's log that has this text.
    pub fn logged(&self, text: &str) -> usize {
        self.host.said(Kind::Log).iter().filter(|said| said["message"].as_str().is_some_and(|message| message.contains(text))).count()
    }
}

/// Puts an event into the stream as it is, as somebody who can write to it.
pub async fn put(store: &Arc<dyn Store>, at: &Partition, meta: &str, data: &str) {
    let event = NewEvent {
        partition: at.clone(),
        id: "e".into(),
        meta: meta.to_owned(),
        data: data.into(),
        ttl_ms: None,
        delay_ms: None,
        idempotency: None,
        length_max: None,
        cancelled: None,
        entry: None,
    };
    publish(store, vec![event]).await;
}
