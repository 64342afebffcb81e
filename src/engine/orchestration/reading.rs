//! What events say of agents and tasks. What an event lacks is an error that names it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::task::{Task, nothing};
use crate::engine::error::{Error, Result};
use crate::engine::event::MetaView;
use crate::engine::host::Delivery;
use crate::engine::store::EntryId;

/// Who says what the orchestration says; what it says itself it does not take for news.
pub const SOURCE: &str = "ossa-orchestration";
/// Brings a task.
pub const DISTRIBUTE: &str = "ossa.orchestration.distribute";
/// Takes one back.
pub const CANCEL: &str = "ossa.orchestration.cancel";

/// What is read.
pub const TYPES: [&str; 15] = [
    "agent.spawned",
    "agent.started",
    "agent.stopped",
    "agent.failed",
    "agent.terminated",
    "task.started",
    "task.completed",
    "task.failed",
    "task.cancelled",
    "performance.metrics",
    "performance.threshold",
    "performance.bottleneck",
    "resource.exhausted",
    DISTRIBUTE,
    CANCEL,
];

/// What names agents, types, tasks and capabilities must be.
pub const ID_RULE: &str = "a string of 1 to 256 bytes";
/// Longest text of an error that is kept, bytes.
const ERROR_BYTES_MAX: usize = 2_000;
/// Most capabilities of an agent.
const CAPABILITIES_MAX: usize = 1_000;
/// Largest number that is believed.
const NUMBER_MAX: f64 = 1e12;
/// Most tasks at once.
const PLACES_MAX: u64 = 100_000;

/// See [`ID_RULE`].
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256
}

/// An event about agents or tasks.
#[derive(Debug)]
pub struct Heard {
    /// Where it stands: those of later events are greater, by the store's clock, as those of publishers differ.
    pub place: String,
    /// When it was stored, ms since 1970.
    pub at_ms: u64,
    /// The orchestration said it.
    pub is_own: bool,
    /// It was a dead letter, and is told anew.
    pub redriven: bool,
    /// What it says.
    pub what: What,
}

/// What is said.
#[derive(Debug)]
pub enum What {
    /// An agent is there.
    Spawned(Spawned),
    /// It works.
    Started { agent: String },
    /// It stops: at once, or when it is done with what it has.
    Stopped { agent: String, reason: String, draining: bool, inbox: Option<String> },
    /// It failed.
    Failed { agent: String, error: String },
    /// It is gone.
    Terminated { agent: String, reason: String, inbox: Option<String> },
    /// How somebody is, perhaps an agent.
    Metrics(Metrics),
    /// An agent began.
    TaskStarted(Named),
    /// An agent is done.
    TaskCompleted { of: Named, result: Option<Box<RawValue>>, duration_ms: Option<f64> },
    /// An agent failed.
    TaskFailed { of: Named, error: String, permanent: bool, handed_back: bool },
    /// The orchestration gave a task up: the dead letter is made of this.
    TaskGivenUp { task: Box<Task>, error: String, is_permanent: bool },
    /// Nobody wants it.
    TaskCancelled { task: String, reason: String },
    /// Something is used up, or a bound is passed, or something is slow: who, and how that is said.
    Strained { who: String, reason: String },
    /// A task comes.
    Distribute(Result<Box<Task>>),
    /// A task is taken back.
    Cancel(Result<(String, String)>),
}

/// `AgentSpawned`.
#[derive(Debug)]
pub struct Spawned {
    /// Its id.
    pub agent: String,
    /// Its type.
    pub kind: String,
    /// What it can do; in order, each once.
    pub capabilities: Vec<String>,
    /// Whose it says it is.
    pub orchestrator: Option<String>,
    /// Tasks at once.
    pub max_tasks: u32,
    /// Where it reads.
    pub inbox: Option<String>,
}

/// `PerformanceMetrics`.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Of whom.
    pub source: String,
    /// Percent.
    pub cpu: Option<f64>,
    /// Percent.
    pub memory: Option<f64>,
    /// As it says.
    pub network_io: Option<f64>,
    /// As it says.
    pub disk_io: Option<f64>,
    /// Where it reads.
    pub inbox: Option<String>,
    /// What it has: task and attempt.
    pub running: Option<Vec<(String, u32)>>,
}

/// A task with an agent.
#[derive(Debug)]
pub struct Named {
    /// Which task.
    pub task: String,
    /// Which agent.
    pub agent: String,
    /// Which time it was given, where the agent says so.
    pub attempt: Option<u32>,
}

/// The keys of an object, each read when it is asked for.
struct Fields<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Fields<'a> {
    fn open(text: &'a str) -> Result<Self> {
        serde_json::from_str(text).map(Self).map_err(|_| wrong("data", "must be an object"))
    }

    fn value(&self, key: &str) -> Option<Value> {
        self.0.get(key).and_then(|raw| serde_json::from_str(raw.get()).ok()).filter(|value: &Value| !value.is_null())
    }

    fn id(&self, key: &str) -> Result<String> {
        match self.value(key) {
            Some(Value::String(text)) if is_id(&text) => Ok(text),
            Some(_) => Err(wrong(&format!("data.{key}"), &format!("must be {ID_RULE}"))),
            None => Err(wrong(&format!("data.{key}"), &format!("is missing; it must be {ID_RULE}"))),
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn flag(&self, key: &str) -> bool {
        self.value(key) == Some(Value::Bool(true))
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.value(key)?.as_f64().filter(|number| (0.0..=NUMBER_MAX).contains(number))
    }

    fn count(&self, key: &str) -> Option<u32> {
        self.value(key)?.as_u64().and_then(|count| u32::try_from(count).ok())
    }

    fn raw(&self, key: &str) -> Option<Box<RawValue>> {
        self.0.get(key).map(|raw| (*raw).to_owned())
    }

    fn reason(&self) -> String {
        self.text("reason").map_or_else(|| "no reason is given".to_owned(), cut)
    }

    /// What an error says, however it is given.
    fn error(&self) -> String {
        match self.value("error") {
            Some(Value::String(text)) if !text.is_empty() => cut(text),
            Some(Value::Object(map)) => match map.get("message") {
                Some(Value::String(text)) => cut(text.clone()),
                _ => cut(Value::Object(map).to_string()),
            },
            _ => "no error is given".to_owned(),
        }
    }

    fn named(&self) -> Result<Named> {
        Ok(Named { task: self.id("taskId")?, agent: self.id("agentId")?, attempt: self.count("attempt") })
    }
}

fn cut(mut text: String) -> String {
    if text.len() > ERROR_BYTES_MAX {
        let end = (0..=ERROR_BYTES_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

fn wrong(path: &str, problem: &str) -> Error {
    Error::argument(path, problem)
}

/// Beside what [`MetaView`] reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Beside {
    correlation_id: Option<String>,
}

/// Reads an event. The error says what it lacks; such an event helps nobody and is a dead letter.
pub fn read(delivery: &Delivery) -> Result<Heard> {
    let meta = MetaView::read(delivery.text.meta.as_bytes())?;
    let is_own = meta.source == SOURCE;
    let beside: Beside = serde_json::from_str(&delivery.text.meta).unwrap_or(Beside { correlation_id: None });
    let fields = Fields::open(&delivery.text.data);
    let what = match &*delivery.partition.event_type {
        DISTRIBUTE => What::Distribute(fields.and_then(|fields| task(fields, beside.correlation_id, delivery.id.ms)).map(Box::new)),
        CANCEL => What::Cancel(fields.and_then(|fields| Ok((fields.id("taskId")?, fields.reason())))),
        event_type => of_type(event_type, &fields?, is_own)?,
    };
    let (place, at_ms) = (place(delivery.id), delivery.id.ms);
    Ok(Heard { place, at_ms, is_own, redriven: delivery.text.redriven, what })
}

/// Text in the order of the places.
fn place(id: EntryId) -> String {
    format!("{:020}-{:020}", id.ms, id.seq)
}

/// A task as it is given: its data stay as they are.
fn task(mut fields: Fields<'_>, correlation_id: Option<String>, now_ms: u64) -> Result<Task> {
    let data = fields.0.remove("data").map_or_else(nothing, one_line);
    let read = |(key, raw): (Cow<'_, str>, &RawValue)| {
        let value: Value = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
        // What JavaScript has as undefined or null is not given.
        (!value.is_null()).then(|| (key.into_owned(), value))
    };
    Task::read(fields.0.into_iter().filter_map(read).collect::<serde_json::Map<_, _>>().into(), data, correlation_id, now_ms)
}

/// The same on one line, as events are published.
fn one_line(raw: &RawValue) -> Box<RawValue> {
    if !raw.get().contains(['\n', '\r', '\t']) {
        return raw.to_owned();
    }
    let value: Value = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
    RawValue::from_string(value.to_string()).unwrap_or_else(|_| nothing())
}

fn of_type(event_type: &str, fields: &Fields<'_>, is_own: bool) -> Result<What> {
    let agent = || fields.id("agentId");
    Ok(match event_type {
        "agent.spawned" => What::Spawned(spawned(fields)?),
        "agent.started" => What::Started { agent: agent()? },
        "agent.stopped" => {
            What::Stopped { agent: agent()?, reason: fields.reason(), draining: fields.flag("draining"), inbox: fields.text("inbox") }
        }
        "agent.failed" => What::Failed { agent: agent()?, error: fields.error() },
        "agent.terminated" => What::Terminated { agent: agent()?, reason: fields.reason(), inbox: fields.text("inbox") },
        "performance.metrics" => What::Metrics(metrics(fields)?),
        "task.started" => What::TaskStarted(fields.named()?),
        "task.completed" => What::TaskCompleted {
            of: fields.named()?,
            result: fields.0.get("result").map(|raw| one_line(raw)),
            duration_ms: fields.number("duration"),
        },
        "task.failed" if is_own => {
            let raw = fields.raw("task").ok_or_else(|| wrong("data.task", "is missing"))?;
            let mut task: Task = serde_json::from_str(raw.get()).map_err(|e| wrong("data.task", &format!("cannot be read: {e}")))?;
            task.data = Fields::open(raw.get())?.0.remove("data").map_or_else(nothing, one_line);
            What::TaskGivenUp { task: Box::new(task), error: fields.error(), is_permanent: fields.flag("permanent") }
        }
        "task.failed" => What::TaskFailed {
            of: fields.named()?,
            error: fields.error(),
            permanent: fields.flag("permanent"),
            handed_back: fields.flag("handedBack"),
        },
        "task.cancelled" => What::TaskCancelled { task: fields.id("taskId")?, reason: fields.reason() },
        "performance.threshold" => {
            let [metric, source] = [fields.id("metric")?, fields.id("source")?];
            What::Strained { reason: format!("{metric} of {source} is over its threshold"), who: source }
        }
        "performance.bottleneck" => {
            let component = fields.id("component")?;
            What::Strained { reason: format!("{component} is a bottleneck"), who: component }
        }
        "resource.exhausted" => {
            let resource = fields.id("resourceType")?;
            // Of an agent it may be said which.
            let who = fields.text("agentId").unwrap_or_else(|| resource.clone());
            What::Strained { reason: format!("{resource} is exhausted"), who }
        }
        other => return Err(Error::internal(format!("'{other}' is not read here"))),
    })
}

fn spawned(fields: &Fields<'_>) -> Result<Spawned> {
    let configuration = fields.0.get("configuration").map_or_else(|| Fields::open("{}"), |raw| Fields::open(raw.get()))?;
    let right = "a list of strings of 1 to 256 bytes, at most 1000";
    let capabilities = match fields.value("capabilities") {
        None => return Err(wrong("data.capabilities", &format!("is missing; it must be {right}"))),
        Some(Value::Array(items)) if items.len() <= CAPABILITIES_MAX => items,
        Some(_) => return Err(wrong("data.capabilities", &format!("must be {right}"))),
    };
    let mut names = Vec::with_capacity(capabilities.len());
    for (i, item) in capabilities.into_iter().enumerate() {
        match item {
            Value::String(name) if is_id(&name) => names.push(name),
            _ => return Err(wrong(&format!("data.capabilities[{i}]"), &format!("must be {ID_RULE}"))),
        }
    }
    names.sort_unstable();
    names.dedup();
    let max_tasks = match configuration.value("maxTasks") {
        None => 1,
        Some(value) => value
            .as_u64()
            .filter(|most| (1..=PLACES_MAX).contains(most))
            .and_then(|most| u32::try_from(most).ok())
            .ok_or_else(|| wrong("data.configuration.maxTasks", &format!("must be a whole number from 1 to {PLACES_MAX}")))?,
    };
    Ok(Spawned {
        agent: fields.id("agentId")?,
        kind: fields.id("agentType")?,
        capabilities: names,
        orchestrator: fields.text("orchestratorId"),
        max_tasks,
        inbox: configuration.text("inbox"),
    })
}

fn metrics(fields: &Fields<'_>) -> Result<Metrics> {
    let raw = fields.0.get("metrics").ok_or_else(|| wrong("data.metrics", "is missing; it must be an object"))?;
    let figures = Fields::open(raw.get()).map_err(|_| wrong("data.metrics", "must be an object"))?;
    let running = fields.value("running").and_then(|value| {
        let items = value.as_array()?;
        let read = |item: &Value| {
            Some((item["taskId"].as_str()?.to_owned(), item["attempt"].as_u64().and_then(|attempt| u32::try_from(attempt).ok())?))
        };
        Some(items.iter().filter_map(read).collect())
    });
    Ok(Metrics {
        source: fields.id("source")?,
        cpu: figures.number("cpu"),
        memory: figures.number("memory"),
        network_io: figures.number("networkIO"),
        disk_io: figures.number("diskIO"),
        inbox: fields.text("inbox"),
        running,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::error::Code;
    use crate::engine::host::EventText;
    use crate::engine::store::Partition;

    fn event(event_type: &str, source: &str, data: &str) -> Delivery {
        let meta = format!(
            r#"{{"v":1,"id":"e1","timestamp":77,"source":"{source}","version":"1.0.0","priority":"normal","correlationId":"c","replyTo":"in"}}"#
        );
        Delivery {
            subscription: 0,
            token: 0,
            attempt: 1,
            redelivered: false,
            partition: Partition::new(event_type, 0),
            id: EntryId { ms: 99, seq: 3 },
            joined: false,
            text: EventText { meta: meta.into(), data: data.into(), asks: true, redriven: false },
        }
    }

    fn path(event_type: &str, data: Value) -> String {
        read(&event(event_type, "x", &data.to_string())).unwrap_err().details["argument"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_an_event_lacks_is_named() {
        assert_eq!(path("agent.spawned", json!({ "agentType": "t", "capabilities": [] })), "data.agentId");
        assert_eq!(path("agent.spawned", json!({ "agentId": "a", "capabilities": [] })), "data.agentType");
        assert_eq!(path("agent.spawned", json!({ "agentId": "a", "agentType": "t" })), "data.capabilities");
        assert_eq!(path("agent.spawned", json!({ "agentId": "a", "agentType": "t", "capabilities": [1] })), "data.capabilities[0]");
        let none = json!({ "agentId": "a", "agentType": "t", "capabilities": [], "configuration": { "maxTasks": 0 } });
        assert_eq!(path("agent.spawned", none), "data.configuration.maxTasks");
        for event_type in ["agent.started", "agent.stopped", "agent.failed", "agent.terminated"] {
            assert_eq!(path(event_type, json!({})), "data.agentId");
        }
        assert_eq!(path("task.completed", json!({ "agentId": "a" })), "data.taskId");
        assert_eq!(path("task.started", json!({ "taskId": "a", "agentId": "" })), "data.agentId");
        assert_eq!(path("performance.metrics", json!({ "source": "a" })), "data.metrics");
        assert_eq!(path("performance.metrics", json!({ "metrics": {} })), "data.source");
        assert_eq!(path("performance.threshold", json!({ "metric": "m" })), "data.source");
        assert_eq!(path("resource.exhausted", json!([])), "data");
    }

    #[test]
    fn a_task_comes_with_its_data_untouched_and_a_wrong_one_is_an_answer() {
        let text = r#"{"id":"t","type":"k","priority":1,"requiredCapabilities":[],"estimatedDuration":null,"data":{"n": 1e2}}"#;
        let heard = read(&event(DISTRIBUTE, "x", text)).unwrap();
        assert_eq!(heard.at_ms, 99);
        assert!(heard.place < place(EntryId { ms: 1_000, seq: 0 }));
        let What::Distribute(Ok(task)) = heard.what else { panic!() };
        assert_eq!((task.data.get(), task.correlation_id.as_deref()), (r#"{"n": 1e2}"#, Some("c")));
        let What::Distribute(Err(error)) = read(&event(DISTRIBUTE, "x", "7")).unwrap().what else { panic!() };
        assert_eq!(error.code, Code::InvalidArgument);
    }

    #[test]
    fn an_error_is_told_however_it_is_given() {
        for (error, told) in [
            (json!("boom"), "boom"),
            (json!({ "message": "no paper" }), "no paper"),
            (json!({ "code": 7 }), r#"{"code":7}"#),
            (json!(null), "no error is given"),
        ] {
            let data = json!({ "taskId": "t", "agentId": "a", "error": error, "attempt": 2, "handedBack": true }).to_string();
            let What::TaskFailed { of, error, handed_back, permanent } = read(&event("task.failed", "x", &data)).unwrap().what else {
                panic!()
            };
            assert_eq!((error.as_str(), of.attempt, handed_back, permanent), (told, Some(2), true, false));
        }
        assert!(cut("é".repeat(3_000)).len() < ERROR_BYTES_MAX + 4);
    }

    #[test]
    fn what_was_given_up_is_the_orchestrations_own_word_alone() {
        let task = json!({ "id": "t", "type": "k", "priority": 1, "requiredCapabilities": [], "dependencies": [], "maxAttempts": 3,
            "status": "failed", "attempts": 3, "submittedAt": 5 });
        let data = json!({ "taskId": "t", "agentId": "a", "error": "e", "task": task }).to_string();
        assert!(matches!(read(&event("task.failed", SOURCE, &data)).unwrap().what, What::TaskGivenUp { .. }));
        assert!(matches!(read(&event("task.failed", "shop", &data)).unwrap().what, What::TaskFailed { .. }));
    }

    #[test]
    fn an_agent_tells_what_it_has() {
        let data =
            json!({ "source": "a", "metrics": { "cpu": 20, "memory": -1 }, "inbox": "i", "running": [{ "taskId": "t", "attempt": 3 }, 7] });
        let What::Metrics(metrics) = read(&event("performance.metrics", "x", &data.to_string())).unwrap().what else { panic!() };
        assert_eq!((metrics.cpu, metrics.memory, metrics.inbox.as_deref()), (Some(20.0), None, Some("i")));
        assert_eq!(metrics.running, Some(vec![("t".to_owned(), 3)]));
    }
}
