//! Alerts posted to a URL, signed as <https://www.standardwebhooks.com> says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::alerts::Watched;
use crate::engine::config::{HttpConfig, Secret, webhook_key};
use crate::engine::env::{Env, lock};
use crate::engine::error::Result;
use crate::engine::host::{Host, Lifecycle};
use crate::engine::http::{Answer, Failure, Http};
use crate::engine::moment;

/// Alerts of one kind that wait to be posted; what more there is, is not posted.
const WAITING_MAX: usize = 20;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses before an alert is posted again, about; then it is given up.
const PAUSES: [Duration; 5] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(30), Duration::from_secs(60)];
/// Longest pause that the receiver may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// One message.
struct Message {
    id: String,
    body: String,
}

/// Posts alerts: those of one kind one after the other, in the order of what happened; one kind does not wait for another.
pub struct Webhook {
    lanes: Mutex<BTreeMap<Watched, mpsc::Sender<Message>>>,
    post: Arc<Post>,
}

/// What the tasks need.
struct Post {
    http: Http,
    url: Secret,
    key: Option<hmac::Key>,
    host: Arc<dyn Host>,
    env: Env,
    /// Messages that are not answered.
    waiting: AtomicUsize,
    /// The bus is closing: each is tried once more, without pauses.
    closing: watch::Sender<bool>,
}

impl Drop for Webhook {
    /// What pauses is tried once more, and given up.
    fn drop(&mut self) {
        self.post.closing.send_replace(true);
    }
}

impl Webhook {
    /// Posts to `url`, with a signature where there is a `secret`.
    pub fn start(url: Secret, secret: Option<&Secret>, host: Arc<dyn Host>, env: &Env) -> Result<Self> {
        // Whoever configured the URL may ask any host: no endpoint of others is asked here.
        let http =
            Http::new(&[&HttpConfig { timeout_ms: u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX), ..HttpConfig::default() }])?;
        let key = secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, &webhook_key(secret.expose()).unwrap_or_default()));
        let (waiting, closing) = (AtomicUsize::new(0), watch::Sender::new(false));
        let post = Arc::new(Post { http, url, key, host, env: env.clone(), waiting, closing });
        Ok(Self { lanes: Mutex::default(), post })
    }

    /// `what` happened to an alert.
    pub fn send(&self, what: &str, watched: Watched, alert: &Value, at_ms: u64) {
        let id = format!("{}.{what}", alert["id"].as_str().unwrap_or_default());
        let body = json!({ "type": format!("alert.{what}"), "timestamp": moment::write(at_ms), "data": with_moments(alert) });
        let message = Message { id, body: body.to_string() };
        let post = &self.post;
        let mut lanes = lock(&self.lanes);
        let lane = lanes.entry(watched).or_insert_with(|| {
            let (messages, receiver) = mpsc::channel(WAITING_MAX);
            post.env.spawn(post.clone().run(receiver));
            messages
        });
        post.waiting.fetch_add(1, Ordering::AcqRel);
        if lane.try_send(message).is_err() {
            post.waiting.fetch_sub(1, Ordering::AcqRel);
            post.warn(format!("an alert is not posted to monitoring.alerting.webhookUrl: {WAITING_MAX} others wait for its answers"));
        }
    }

    /// Takes no more, and tries what waits once more, within `deadline`; says how much of it nobody took.
    pub async fn close(&self, deadline: Duration) {
        self.post.closing.send_replace(true);
        lock(&self.lanes).clear();
        let end = Instant::now() + deadline;
        while self.post.waiting.load(Ordering::Acquire) > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = self.post.waiting.load(Ordering::Acquire);
        if left > 0 {
            self.post
                .warn(format!("{left} alerts were not posted to monitoring.alerting.webhookUrl: the bus is closed, and it did not answer"));
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
    fn warn(&self, message: String) {
        self.host.lifecycle(vec![Lifecycle::warn(message)]);
    }

    async fn run(self: Arc<Self>, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.recv().await {
            self.post(&message).await;
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    async fn post(&self, Message { id, body }: &Message) {
        let mut closing = self.closing.subscribe();
        let mut pauses = PAUSES.iter();
        loop {
            let is_last = *closing.borrow_and_update();
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
                    if let Some(pause) = pauses.next().filter(|_| !is_last) {
                        tracing::debug!(why, "an alert is posted again");
                        let pause = asked.map_or_else(|| pause.mul_f64(0.75 + self.env.random() / 2.0), |asked| asked.min(PAUSE_MAX));
                        // An error: nobody is left to close.
                        let _ = tokio::time::timeout(pause, closing.changed()).await;
                        continue;
                    }
                    why
                }
            };
            return self.warn(format!("monitoring.alerting.webhookUrl did not take an alert: {why}"));
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
