//! What happens seldom: calls by name with JSON arguments, see `NativeBus.call` in ts/native.ts.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::engine::bus::{Bus, DRAIN_DEFAULT};
use crate::engine::error::{Code, Error, Result};
use crate::engine::history::Period;
use crate::engine::options::SubscribeOptions;
use crate::engine::projects::audit::Outcome;
use crate::engine::projects::audit::log::Query;
use crate::engine::store::DeadLetterQuery;

/// Dead letters a page unless asked otherwise.
const PAGE_DEFAULT: usize = 100;
/// Longest drain time accepted, ms: a day.
const DRAIN_MS_MAX: f64 = 86_400_000.0;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscribe {
    id: u32,
    event_type: String,
    project: Option<String>,
    #[serde(default)]
    options: Value,
}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unsubscribe {
    id: u32,
    drain_timeout_ms: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Disconnect {
    drain_timeout_ms: Option<Value>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Create {
    name: String,
    #[serde(default)]
    config: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteGroup {
    event_type: String,
    group: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Letters {
    ids: Option<Vec<String>>,
    event_type: Option<String>,
    group: Option<String>,
    from: Option<f64>,
    to: Option<f64>,
    limit: Option<usize>,
    cursor: Option<String>,
}

impl Letters {
    fn query(&self) -> DeadLetterQuery {
        DeadLetterQuery {
            ids: self.ids.clone(),
            event_type: self.event_type.clone(),
            group: self.group.clone(),
            from_ms: self.from.map(time_ms),
            to_ms: self.to.map(time_ms),
        }
    }
}

/// A time as JavaScript has it; one before 1970 is 1970.
fn time_ms(ms: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the cast saturates
    let ms = ms.max(0.0) as u64;
    ms
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Replay {
    event_type: String,
    from: Option<f64>,
    to: Option<f64>,
    count: Option<usize>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Explain {
    event_type: String,
    event_id: String,
}

/// Arguments from their JSON text.
pub fn read<T: DeserializeOwned>(args: &str) -> Result<T> {
    serde_json::from_str(args).map_err(|e| Error::argument("arguments", format!("cannot be read: {e}")))
}

fn drain(given: Option<Value>) -> Result<Duration> {
    match given {
        None => Ok(DRAIN_DEFAULT),
        Some(value) => value
            .as_f64()
            .filter(|ms| (0.0..=DRAIN_MS_MAX).contains(ms))
            .map(|ms| Duration::from_secs_f64(ms / 1000.0))
            .ok_or_else(|| Error::argument("drainTimeoutMs", "must be a number of milliseconds from 0 to 86400000")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Project {
    project_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfProject {
    project_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Records {
    project_id: Option<String>,
    from: Option<f64>,
    to: Option<f64>,
    outcome: Option<Outcome>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct OfTask {
    id: String,
}

#[derive(Deserialize)]
struct OfService {
    name: Option<String>,
}

/// What concerns messages between projects; sending goes by `publish`.
async fn projects(bus: &Bus, method: &str, args: &str) -> Result<Value> {
    let projects = bus.projects()?;
    match method {
        "projects.register" => projects.register(read(args)?).await.map(|()| json!({})),
        "projects.unregister" => Ok(projects.unregister(&read::<Project>(args)?.project_id).await?.into()),
        "projects.validate" => projects.validate(&read::<Project>(args)?.project_id).await,
        "projects.keys" => projects.keys(&read::<Project>(args)?.project_id).await,
        "projects.registerContract" => projects.register_contract(read(args)?).await.map(|()| json!({})),
        "projects.registerRoute" => projects.register_route(read(args)?).await.map(|()| json!({})),
        "projects.stats" => projects.stats(read::<OfProject>(args)?.project_id.as_deref()).await,
        "projects.audit" => {
            let Records { project_id, from, to, outcome, limit, cursor } = read(args)?;
            let query = Query { project: project_id, from_ms: from.map(time_ms), to_ms: to.map(time_ms), outcome };
            projects.audit_log(&query, limit.unwrap_or(PAGE_DEFAULT), cursor.as_deref()).await
        }
        "projects.verifyAudit" => projects.verify_audit().await,
        _ => Err(Error::internal(format!("{method} is not known"))),
    }
}

/// Does what `method` says.
pub async fn call(bus: &Bus, method: &str, args: &str) -> Result<Value> {
    match method {
        "connect" => bus.connect().await.map(|()| json!({})),
        "disconnect" => {
            let drain = drain(read::<Disconnect>(args)?.drain_timeout_ms)?;
            bus.disconnect(drain).await;
            Ok(json!({}))
        }
        "subscribe" => {
            let Subscribe { id, event_type, project, options } = read(args)?;
            let (group, consumer) = match project {
                None => bus.subscribe(id, &event_type, SubscribeOptions::read(options)?).await?,
                Some(project) => bus.handle_messages(id, &project, &event_type, SubscribeOptions::read_of_project(options)?).await?,
            };
            Ok(json!({ "group": group, "consumer": consumer }))
        }
        "unsubscribe" => {
            let Unsubscribe { id, drain_timeout_ms } = read(args)?;
            bus.unsubscribe(id, drain(drain_timeout_ms)?).await.map(|()| json!({}))
        }
        "pause" | "resume" => {
            bus.pause(read::<Id>(args)?.id, method == "pause");
            Ok(json!({}))
        }
        "status" => Ok(bus.status().await),
        "dashboard" => bus.dashboard().await,
        "groups" => bus.groups().await,
        "getStream" => bus.stream(&read::<Name>(args)?.name).await,
        "createStream" => {
            let Create { name, config } = read(args)?;
            bus.create_stream(&name, config).await
        }
        "deleteGroup" => {
            let DeleteGroup { event_type, group } = read(args)?;
            Ok(bus.delete_group(&event_type, &group).await?.into())
        }
        "deadLetters.list" => {
            let letters: Letters = read(args)?;
            bus.dead_letters(&letters.query(), letters.limit.unwrap_or(PAGE_DEFAULT), letters.cursor.as_deref()).await
        }
        "deadLetters.count" => Ok(bus.count_dead_letters(&read::<Letters>(args)?.query()).await?.into()),
        "deadLetters.redrive" => Ok(bus.redrive(&read::<Letters>(args)?.query()).await?.into()),
        "deadLetters.purge" => Ok(bus.purge(&read::<Letters>(args)?.query()).await?.into()),
        "replay" => {
            let Replay { event_type, from, to, count, cursor } = read(args)?;
            let period = Period { from_ms: from.map(time_ms), to_ms: to.map(time_ms) };
            let page = bus.replay(&event_type, &period, cursor.as_deref(), count).await?;
            let texts: Vec<Value> = page.events.into_iter().flat_map(|event| [event.meta.into(), event.data.into()]).collect();
            Ok(json!({ "texts": texts, "cursor": page.cursor }))
        }
        "explain" => {
            let Explain { event_type, event_id } = read(args)?;
            bus.explain(&event_type, &event_id).await
        }
        "agents.listen" => Ok(json!({ "inbox": bus.listen_for_agents()? })),
        "orchestration.task" => bus.task(&read::<OfTask>(args)?.id).await,
        "services.status" => bus.services_status().await,
        "services.discoverContracts" => bus.discover_contracts(read::<OfService>(args)?.name.as_deref()).await,
        _ if method.starts_with("projects.") => projects(bus, method, args).await,
        _ => Err(Error::new(Code::Disabled, format!("{method} is not available in version {}", env!("CARGO_PKG_VERSION")))),
    }
}
