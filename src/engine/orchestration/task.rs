//! A task: what its giver says of it, and what became of it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::reading::{ID_RULE, is_id};
use crate::engine::error::{Error, Result};
use crate::engine::form::Form;

/// Attempts unless given.
const ATTEMPTS: u32 = 3;
/// Most attempts.
const ATTEMPTS_MAX: u32 = 1_000;
/// Longest times, ms: a year.
const MS_MAX: f64 = 365.0 * 24.0 * 3_600_000.0;
/// Most tasks that one waits for.
const DEPENDENCIES_MAX: usize = 1_000;
/// What an event that carries a task says beside it takes at most so much, bytes.
pub const ENVELOPE_BYTES: usize = 8 << 10;
/// Keys of a task.
const KEYS: [&str; 9] =
    ["id", "type", "priority", "requiredCapabilities", "estimatedDuration", "dependencies", "data", "maxAttempts", "timeoutMs"];
/// Keys of its text that are no business of a reader.
const INNER: [&str; 4] = ["given", "avoid", "lettered", "permanent"];

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// For tasks that it depends on.
    Waiting,
    /// For an agent.
    Queued,
    /// An agent is told to do it.
    Assigned,
    /// An agent does it.
    Running,
    /// It is done.
    Completed,
    /// It cannot be done.
    Failed,
    /// Nobody wants it any more.
    Cancelled,
}

impl Status {
    /// As in the public contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing more becomes of it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// It takes a place of an agent.
    pub fn is_with_agent(self) -> bool {
        matches!(self, Self::Assigned | Self::Running)
    }
}

/// A task, as it stands in the store but for its data.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Names it among all.
    pub id: String,
    /// What kind of work.
    #[serde(rename = "type")]
    pub kind: String,
    /// Higher ones first.
    pub priority: f64,
    /// What its agent must be able to do; in order, each once.
    pub required_capabilities: Vec<String>,
    /// ms, as its giver thinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_duration: Option<f64>,
    /// Tasks that have to be done first.
    pub dependencies: Vec<String>,
    /// Most attempts that may have begun.
    pub max_attempts: u32,
    /// How long an agent may have it, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Of the event that gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Where it is.
    pub status: Status,
    /// Attempts that may have begun.
    pub attempts: u32,
    /// Whose it is, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// ms since 1970, like the others.
    pub submitted_at: u64,
    /// When its agent was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_at: Option<u64>,
    /// When its agent began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What its agent made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// How often it was given to an agent: the `attempt` by which an agent names what it speaks of.
    #[serde(default)]
    pub given: u32,
    /// The agent that failed it last: another is tried first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid: Option<String>,
    /// It failed, and is a dead letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lettered: bool,
    /// Of the tasks that it depends on, those that are not done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// Since when its agent does not have it, as it tells, ms since 1970.
    #[serde(skip)]
    pub missing_since_ms: Option<u64>,
    /// It failed for good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
    /// What it carries along; kept apart.
    #[serde(skip, default = "nothing")]
    pub data: Box<RawValue>,
}

/// `null`.
pub fn nothing() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

impl Task {
    /// Reads an `OrchestrationTask`, given as an object without its data. `ERR_INVALID_ARGUMENT` with the path of what is wrong.
    pub fn read(value: Value, data: Box<RawValue>, correlation_id: Option<String>, now_ms: u64) -> Result<Self> {
        let mut form = Form::open(value, "task", Error::argument)?;
        let id = named(&mut form, "id")?;
        let kind = named(&mut form, "type")?;
        let priority = number(&mut form, "priority", -1e9, 1e9)?.ok_or_else(|| form.missing("priority", "a number"))?;
        let right = "a list of capabilities, perhaps none";
        let mut required_capabilities =
            form.list("requiredCapabilities", 0, right, check_id)?.ok_or_else(|| form.missing("requiredCapabilities", right))?;
        required_capabilities.sort_unstable();
        required_capabilities.dedup();
        let mut dependencies = form.list("dependencies", 0, "a list of task ids", check_id)?.unwrap_or_default();
        dependencies.sort_unstable();
        dependencies.dedup();
        if dependencies.len() > DEPENDENCIES_MAX {
            return Err(Error::argument("task.dependencies", format!("may name at most {DEPENDENCIES_MAX} tasks")));
        }
        let whole = |value: Option<f64>| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range by the check
            value.map(|value| value.ceil() as u64)
        };
        let task = Self {
            estimated_duration: number(&mut form, "estimatedDuration", 0.0, MS_MAX)?,
            max_attempts: whole(number(&mut form, "maxAttempts", 1.0, f64::from(ATTEMPTS_MAX))?)
                .map_or(ATTEMPTS, |most| u32::try_from(most).unwrap_or(ATTEMPTS_MAX)),
            timeout_ms: whole(number(&mut form, "timeoutMs", 1.0, MS_MAX)?),
            id,
            kind,
            priority,
            required_capabilities,
            dependencies,
            correlation_id,
            status: Status::Queued,
            attempts: 0,
            agent_id: None,
            submitted_at: now_ms,
            assigned_at: None,
            started_at: None,
            ended_at: None,
            error: None,
            result: None,
            given: 0,
            avoid: None,
            lettered: false,
            waiting_for: Vec::new(),
            missing_since_ms: None,
            permanent: false,
            data,
        };
        form.end(&KEYS)?;
        Ok(task)
    }

    /// All of it, its data too.
    pub fn to_whole(&self) -> Value {
        let mut whole = serde_json::to_value(self).unwrap_or_default();
        whole["data"] = serde_json::from_str(self.data.get()).unwrap_or(Value::Null);
        whole
    }

    /// The same task, as if it had just been given.
    #[must_use]
    pub fn anew(self, now_ms: u64) -> Self {
        Self {
            status: Status::Queued,
            attempts: 0,
            agent_id: None,
            submitted_at: now_ms,
            assigned_at: None,
            started_at: None,
            ended_at: None,
            error: None,
            avoid: None,
            lettered: false,
            permanent: false,
            ..self
        }
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// `TaskView`, with times as ms, from a task's text and its data.
    pub fn view(text: &str, data: Option<&str>) -> Result<Value> {
        let mut view: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| Error::internal(format!("a task in the store cannot be read: {e}")))?;
        for key in INNER {
            view.remove(key);
        }
        if let Some(data) = data.and_then(|data| serde_json::from_str(data).ok()) {
            view.insert("data".to_owned(), data);
        }
        Ok(view.into())
    }
}

fn check_id(id: &str) -> Result<()> {
    if is_id(id) { Ok(()) } else { Err(Error::argument("", format!("must be {ID_RULE}"))) }
}

fn named(form: &mut Form, key: &str) -> Result<String> {
    match form.take(key) {
        None => Err(form.missing(key, ID_RULE)),
        Some(Value::String(text)) if is_id(&text) => Ok(text),
        Some(other) => Err(form.wrong(key, &other, ID_RULE)),
    }
}

fn number(form: &mut Form, key: &str, least: f64, most: f64) -> Result<Option<f64>> {
    match form.take(key) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(form.wrong(key, &value, &format!("a number from {least} to {most}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Task> {
        Task::read(value, nothing(), None, 5)
    }

    fn right() -> Value {
        json!({ "id": "t1", "type": "resize", "priority": 3, "requiredCapabilities": ["image", "gpu", "image"] })
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let task = read(right()).unwrap();
        assert_eq!((task.max_attempts, task.status, task.attempts, task.submitted_at), (3, Status::Queued, 0, 5));
        assert_eq!(task.required_capabilities, ["gpu", "image"]);
        assert!(task.dependencies.is_empty() && task.estimated_duration.is_none() && task.timeout_ms.is_none());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_path() {
        for (key, value, path) in [
            ("id", json!(""), "task.id"),
            ("id", json!(7), "task.id"),
            ("type", json!(null), "task.type"),
            ("priority", json!("high"), "task.priority"),
            ("requiredCapabilities", json!("image"), "task.requiredCapabilities"),
            ("requiredCapabilities", json!(["image", 3]), "task.requiredCapabilities[1]"),
            ("dependencies", json!([""]), "task.dependencies[0]"),
            ("estimatedDuration", json!(-1), "task.estimatedDuration"),
            ("maxAttempts", json!(0), "task.maxAttempts"),
            ("timeoutMs", json!(0), "task.timeoutMs"),
            ("retries", json!(3), "task.retries"),
        ] {
            let mut value_of = right();
            value_of[key] = value;
            let error = read(value_of).unwrap_err();
            assert_eq!(error.details["argument"], path, "{error}");
        }
        for key in ["id", "type", "priority", "requiredCapabilities"] {
            let mut value = right();
            value.as_object_mut().unwrap().remove(key);
            assert_eq!(read(value).unwrap_err().details["argument"], format!("task.{key}"));
        }
        assert!(read(json!([1])).is_err());
    }

    #[test]
    fn a_task_is_read_back_as_it_was_written() {
        let mut task = read(right()).unwrap();
        task.result = Some(RawValue::from_string(r#"{"a":[1,2]}"#.to_owned()).unwrap());
        (task.given, task.lettered, task.agent_id) = (4, true, Some("a".to_owned()));
        let again: Task = serde_json::from_str(&task.to_text()).unwrap();
        assert_eq!(again.to_text(), task.to_text());
        let view = Task::view(&task.to_text(), Some("[7]")).unwrap();
        assert_eq!((&view["data"], &view["result"]["a"][1], &view["status"]), (&json!([7]), &json!(2), &json!("queued")));
        assert!(INNER.iter().all(|key| view.get(key).is_none()));
    }

    #[test]
    fn a_task_begins_anew_with_its_data_and_a_number_that_never_was() {
        let mut task = read(right()).unwrap();
        task.data = RawValue::from_string(r#"{"x":1}"#.to_owned()).unwrap();
        (task.given, task.attempts, task.lettered, task.status) = (3, 3, true, Status::Failed);
        let whole = task.to_whole();
        assert_eq!((&whole["data"]["x"], &whole["status"]), (&json!(1), &json!("failed")));
        let anew = serde_json::from_value::<Task>(whole).unwrap().anew(9);
        assert_eq!((anew.given, anew.attempts, anew.lettered, anew.status, anew.submitted_at), (3, 0, false, Status::Queued, 9));
    }
}
