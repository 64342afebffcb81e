//! Alerts posted to a URL, signed as <https://www.standardwebhooks.com> says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::config::{HttpConfig, Secret, webhook_key};
use crate::engine::env::{Env, lock};
use crate::engine::error::Result;
use crate::engine::host::{Host, Lifecycle};
use crate::engine::http::{Answer, Failure, Http};
use crate::engine::moment;

/// Alerts that wait to be posted; what more there is, is not posted.
const WAITING_MAX: usize = 100;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses before an alert is posted again, about; then it is given up.
const PAUSES: [Duration; 5] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(180)];
/// Longest pause that the receiver may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// One message.
struct Message {
    id: String,
    body: String,
}

/// Posts alerts, one after the other, in the order of what happened.
pub struct Webhook {
    messages: Mutex<Option<mpsc::Sender<Message>>>,
    host: Arc<dyn Host>,
    task: Mutex<tokio::task::JoinHandle<()>>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        lock(&self.task).abort();
    }
}

/// What the task needs.
struct Post {
    http: Http,
    url: Secret,
    key: Option<hmac::Key>,
    host: Arc<dyn Host>,
    env: Env,
}

impl Webhook {
    /// Posts to `url`, with a signature where there is a `secret`.
    pub fn start(url: Secret, secret: Option<&Secret>, host: Arc<dyn Host>, env: &Env) -> Result<Self> {
        // Whoever configured the URL may ask any host: no endpoint of others is asked here.
        let http =
            Http::new(&[&HttpConfig { timeout_ms: u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX), ..HttpConfig::default() }])?;
        let (messages, receiver) = mpsc::channel(WAITING_MAX);
        let key = secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, &webhook_key(secret.expose()).unwrap_or_default()));
        let post = Post { http, url, key, host: host.clone(), env: env.clone() };
        Ok(Self { messages: Mutex::new(Some(messages)), host, task: Mutex::new(env.spawn(post.run(receiver))) })
    }

    /// `what` happened to an alert.
    pub fn send(&self, what: &str, alert: &Value, at_ms: u64) {
        let id = format!("{}.{what}", alert["id"].as_str().unwrap_or_default());
        let body = json!({ "type": format!("alert.{what}"), "timestamp": moment::write(at_ms), "data": with_moments(alert) });
        let message = Message { id, body: body.to_string() };
        if lock(&self.messages).as_ref().is_none_or(|messages| messages.try_send(message).is_err()) {
            let message = format!("an alert is not posted to monitoring.alerting.webhookUrl: {WAITING_MAX} others wait for its answers");
            self.host.lifecycle(vec![Lifecycle::warn(message)]);
        }
    }

    /// Takes no more, and has posted what waits when it answers, or the time is over.
    pub async fn close(&self, deadline: Duration) {
        lock(&self.messages).take();
        let end = Instant::now() + deadline;
        while !lock(&self.task).is_finished() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Times as ISO 8601.
fn with_moments(alert: &Value) -> Value {
    let mut alert = alert.clone();
    for key in ["timestamp", "resolvedAt"] {
        if let Some(ms) = alert[key].as_u64() {
            alert[key] = moment::write(ms).into();
        }
    }
    alert
}

/// `webhook-signature`.
fn signature(key: &hmac::Key, id: &str, at_s: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{at_s}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

/// What an answer means.
enum Meaning {
    Taken,
    /// Not now; perhaps after the time that it names.
    Again(String, Option<Duration>),
    Never(String),
}

fn meaning(answered: Result<Answer, Failure>) -> Meaning {
    match answered {
        Ok(answer) => match answer.status {
            200..=299 => Meaning::Taken,
            status @ (408 | 429 | 500..=599) => Meaning::Again(format!("HTTP status {status}"), answer.retry_after),
            status => Meaning::Never(format!("HTTP status {status}")),
        },
        // A redirect may lead anywhere.
        Err(failure @ (Failure::Redirected(_) | Failure::Forbidden(_) | Failure::NoUrl(_))) => Meaning::Never(word(&failure).to_owned()),
        Err(failure) => Meaning::Again(word(&failure).to_owned(), None),
    }
}

/// Without the URL, which is a secret.
fn word(failure: &Failure) -> &'static str {
    match failure {
        Failure::TimedOut(_) => "no answer in time",
        Failure::Redirected(_) => "it answers with a redirect",
        Failure::Forbidden(_) | Failure::NoUrl(_) => "the URL cannot be used",
        _ => "it cannot be reached",
    }
}

impl Post {
    async fn run(self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.recv().await {
            self.post(&message).await;
        }
    }

    async fn post(&self, Message { id, body }: &Message) {
        let mut pauses = PAUSES.iter();
        loop {
            let at_s = self.env.now_ms() / 1000;
            let at = at_s.to_string();
            let signed = self.key.as_ref().map(|key| signature(key, id, at_s, body));
            let mut headers = vec![("webhook-id", id.as_str()), ("webhook-timestamp", at.as_str())];
            if let Some(signed) = &signed {
                headers.push(("webhook-signature", signed));
            }
            let why = match meaning(self.http.post(self.url.expose(), &headers, body.clone(), TIMEOUT).await) {
                Meaning::Taken => return,
                Meaning::Never(why) => why,
                Meaning::Again(why, asked) => {
                    if let Some(pause) = pauses.next() {
                        tracing::debug!(why, "an alert is posted again");
                        let pause = asked.map_or_else(|| pause.mul_f64(0.75 + self.env.random() / 2.0), |asked| asked.min(PAUSE_MAX));
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                    format!("{why}, {} times", PAUSES.len() + 1)
                }
            };
            let message = format!("monitoring.alerting.webhookUrl did not take an alert: {why}");
            return self.host.lifecycle(vec![Lifecycle::warn(message)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The example of the specification's reference libraries.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &webhook_key(SECRET).unwrap());
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_an_answer_means() {
        let of = |status| {
            let answer = Answer { status, body: Vec::new(), retry_after: None, complete: true, took: Duration::ZERO };
            match meaning(Ok(answer)) {
                Meaning::Taken => "taken",
                Meaning::Again(..) => "again",
                Meaning::Never(_) => "never",
            }
        };
        assert_eq!(
            [200, 204, 429, 408, 500, 503, 400, 410, 302].map(of),
            ["taken", "taken", "again", "again", "again", "again", "never", "never", "never"]
        );
    }

    #[test]
    fn times_are_told_as_texts() {
        let told = with_moments(&json!({ "timestamp": 0, "resolvedAt": 1000, "threshold": 5 }));
        assert_eq!(told, json!({ "timestamp": "1970-01-01T00:00:00.000Z", "resolvedAt": "1970-01-01T00:00:01.000Z", "threshold": 5 }));
    }
}
