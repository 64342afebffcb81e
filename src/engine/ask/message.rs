//! What is posted to an inbox: one line of JSON that names the event and what became of it.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::engine::error::{Code, Error};

/// What a letter to an agent begins with: it names the agent, and is no answer.
pub const LETTER: &str = r#"{"agent":"#;

/// What became of an event, for whoever waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A group acknowledged it.
    Acknowledged,
    /// What a handler returned, as JSON text.
    Reply(String),
    /// A group gave it up, or its handler cannot answer.
    Failed(Failed),
}

/// Why there is no better answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// What the handler said, or why it was not called.
    pub error: String,
    /// A [`crate::engine::store::DeadReason`] as text, where it became a dead letter.
    pub reason: Option<String>,
    /// The group, where one failed.
    pub group: Option<String>,
}

impl Failed {
    /// `ERR_REMOTE`.
    pub fn to_error(&self, event_type: &str, event_id: &str) -> Error {
        let mut error = Error::new(Code::Remote, format!("'{event_type}' failed on the other side: {}", self.error))
            .with("eventId", event_id)
            .with("error", self.error.as_str());
        for (key, value) in [("reason", &self.reason), ("group", &self.group)] {
            if let Some(value) = value {
                error = error.with(key, value.as_str());
            }
        }
        error
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    id: String,
    #[serde(default)]
    acknowledged: bool,
    #[serde(borrow)]
    reply: Option<&'a RawValue>,
    error: Option<String>,
    reason: Option<String>,
    group: Option<String>,
}

/// The message that tells of the event `event_id`.
pub fn write(event_id: &str, answer: &Answer) -> String {
    match answer {
        Answer::Acknowledged => json!({ "id": event_id, "acknowledged": true }).to_string(),
        // Text that is JSON already: it is not read on the way.
        Answer::Reply(json) => format!("{{\"id\":{},\"reply\":{json}}}", json!(event_id)),
        Answer::Failed(failed) => {
            let mut message = json!({ "id": event_id, "error": failed.error });
            for (key, value) in [("reason", &failed.reason), ("group", &failed.group)] {
                if let Some(value) = value {
                    message[key] = value.as_str().into();
                }
            }
            message.to_string()
        }
    }
}

/// Reads what [`write`] wrote; `None` for anything else.
pub fn read(message: &str) -> Option<(String, Answer)> {
    let raw: Raw<'_> = serde_json::from_str(message).ok()?;
    let answer = match (raw.reply, raw.error) {
        (Some(reply), _) => Answer::Reply(reply.get().to_owned()),
        (None, Some(error)) => Answer::Failed(Failed { error, reason: raw.reason, group: raw.group }),
        (None, None) if raw.acknowledged => Answer::Acknowledged,
        // `"reply":null` reads as none.
        (None, None) => Answer::Reply("null".to_owned()),
    };
    Some((raw.id, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let failed = Failed { error: "no \"paper\"\n".into(), reason: Some("handler".into()), group: Some("g".into()) };
        for answer in [
            Answer::Acknowledged,
            Answer::Reply(r#"{"a":[1,"\t"],"__proto__":{"b":1e2}}"#.into()),
            Answer::Reply("null".into()),
            Answer::Reply("\"text\"".into()),
            Answer::Failed(Failed { error: "boom".into(), ..Failed::default() }),
            Answer::Failed(failed),
        ] {
            assert_eq!(read(&write("id-\"1", &answer)), Some(("id-\"1".into(), answer)));
        }
    }

    #[test]
    fn what_is_no_message_is_let_go() {
        for text in ["", "7", "{}", "[]", r#"{"id":7}"#, r#"{"id":"a","reply":}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_event_and_says_what_the_handler_said() {
        let error = Failed { error: "boom".into(), reason: Some("max-attempts".into()), group: None }.to_error("sum", "id");
        assert_eq!((error.code, error.message.as_str()), (Code::Remote, "'sum' failed on the other side: boom"));
        assert_eq!((error.details["reason"].as_str(), error.details.get("group")), (Some("max-attempts"), None));
    }
}
