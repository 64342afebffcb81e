//! A project as it is stored for all processes: what it may do, and its keys and their time.

use serde::{Deserialize, Serialize};

use super::identity::{PublicKey, Signer};
use super::registration::{ProjectConfig, RateLimiting};
use crate::engine::error::{Code, Error, Result};
use crate::engine::name;

/// Version of the stored form.
const VERSION: u8 = 1;
/// Keys that are remembered of a project: the ones before are believed no more.
const KEYS_MAX: usize = 16;
/// Most keys by which old audit records are verified.
const RETIRED_MAX: usize = 64;
/// A key is believed so long before and after its time, ms: processes learn of a change within a second, and what was signed
/// before may be on its way.
const KEY_GRACE_MS: u64 = 10_000;

/// A key of a project and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// First 16 hex digits of SHA-256(apiKey).
    pub id: String,
    /// The public key as text.
    pub public: String,
    /// From when on it signs, ms since 1970.
    pub from_ms: u64,
    /// Until when it signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Signature by which the key before handed over to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handed_over: Option<String>,
}

/// A project as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    v: u8,
    /// Who it is.
    pub project_id: String,
    /// For people.
    pub name: String,
    /// What it belongs to.
    pub namespace: String,
    /// Event types and patterns that it may send.
    pub allowed_event_types: Vec<String>,
    /// Projects that it may send to; `*`: all.
    pub allowed_targets: Vec<String>,
    /// How much it may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiting: Option<RateLimiting>,
    /// Its keys, the present one last; none: it does not sign.
    pub keys: Vec<Key>,
    /// Keys that it had before: only audit records of their time are believed to be signed by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retired: Vec<Key>,
    /// When it was registered first, ms since 1970.
    pub registered_ms: u64,
    /// From when on what it sends is signed; 0: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    signs_from_ms: Option<u64>,
    /// It was unregistered then. Its keys are kept for what it has sent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone_ms: Option<u64>,
}

impl Project {
    /// Reads what [`Project::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<Self> {
        let project: Self = serde_json::from_str(text).map_err(|error| Error::argument("project", format!("cannot be read: {error}")))?;
        if project.v != VERSION {
            return Err(Error::argument("project", format!("version {} is not known; this process reads {VERSION}", project.v)));
        }
        Ok(project)
    }

    /// As it is stored.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("texts and finite numbers always serialize")
    }

    /// The project after it is registered with `config`, in the name of `signer`; `before`: as it is stored.
    /// `ERR_PROJECT_CONFLICT` where that is not its owner.
    pub fn registered(before: Option<&Self>, config: &ProjectConfig, signers: &Signers, now_ms: u64) -> Result<Self> {
        let living = before.filter(|project| project.gone_ms.is_none());
        let mut retired: Vec<Key> = before.map(|project| project.retired.clone()).unwrap_or_default();
        // By its secret one that was given up is taken up again; by another one it is somebody else's, and nothing of old is believed.
        let taken_up = before.filter(|project| living.is_some() || project.owned_by(signers));
        let mut keys = if let Some(project) = taken_up {
            project.keys_after(signers, now_ms)?
        } else {
            retired.extend(before.into_iter().flat_map(|project| project.keys.clone()));
            signers.current.iter().map(|signer| first_key(signer, now_ms)).collect()
        };
        retired.extend(keys.drain(..keys.len().saturating_sub(KEYS_MAX)));
        retired.drain(..retired.len().saturating_sub(RETIRED_MAX));
        let signs_from_ms = match taken_up {
            Some(project) => project.signs_from_ms.or_else(|| (!keys.is_empty()).then_some(now_ms)),
            None => (!keys.is_empty()).then_some(0),
        };
        Ok(Self {
            v: VERSION,
            project_id: config.id.clone(),
            name: config.name.clone(),
            namespace: config.namespace.clone(),
            allowed_event_types: config.allowed_event_types.clone(),
            allowed_targets: config.allowed_targets.clone(),
            rate_limiting: config.rate_limiting,
            keys,
            retired,
            registered_ms: living.map_or(now_ms, |project| project.registered_ms),
            signs_from_ms,
            gone_ms: None,
        })
    }

    /// Whether the secret, or the one before, is that of its present key.
    fn owned_by(&self, signers: &Signers) -> bool {
        let Some(present) = self.keys.last() else { return false };
        [&signers.current, &signers.previous].into_iter().flatten().any(|signer| signer.public_key().to_text() == present.public)
    }

    fn keys_after(&self, signers: &Signers, now_ms: u64) -> Result<Vec<Key>> {
        let mut keys = self.keys.clone();
        let Some(present) = keys.last_mut() else {
            return Ok(signers.current.iter().map(|signer| first_key(signer, now_ms)).collect());
        };
        let Some(signer) = &signers.current else { return Err(self.conflict("it has credentials; register it with them")) };
        let public = signer.public_key().to_text();
        if public == present.public && signer.key_id() == present.id {
            present.until_ms = None;
            return Ok(keys);
        }
        let hands_over =
            [Some(signer), signers.previous.as_ref()].into_iter().flatten().find(|by| by.public_key().to_text() == present.public);
        let Some(by) = hands_over else {
            return Err(self.conflict(if signers.previous.is_some() {
                "neither credentials.secret nor credentials.previousSecret is the secret that it has"
            } else {
                "credentials.secret is not the secret that it has; to change the secret, give the present one as credentials.previousSecret"
            }));
        };
        // Later than the one before, whatever the clocks say.
        let from_ms = now_ms.max(present.from_ms + 1);
        present.until_ms = Some(from_ms);
        let handed_over = Some(by.sign_change(&self.project_id, signer.key_id(), signer.public_key(), from_ms));
        keys.push(Key { id: signer.key_id().to_owned(), public, from_ms, until_ms: None, handed_over });
        Ok(keys)
    }

    fn conflict(&self, why: &str) -> Error {
        let message = format!("the project '{}' is registered by somebody else: {why}", self.project_id);
        Error::new(Code::ProjectConflict, message).with("projectId", self.project_id.as_str())
    }

    /// The same, unregistered.
    #[must_use]
    pub fn given_up(&self, now_ms: u64) -> Self {
        let mut project = self.clone();
        project.gone_ms = Some(now_ms);
        if let Some(key) = project.keys.last_mut() {
            key.until_ms = Some(key.until_ms.unwrap_or(now_ms));
        }
        project
    }

    /// Whether it is registered now.
    pub fn is_there(&self) -> bool {
        self.gone_ms.is_none()
    }

    /// Whether it signs now.
    pub fn signs(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether what it sent at that time is signed.
    pub fn signed_at(&self, ms: u64) -> bool {
        // Other processes that send for it may not have heard at once. One that had its key from the beginning never sent without.
        self.signs_from_ms.is_some_and(|from| from == 0 || from.saturating_add(KEY_GRACE_MS) <= ms)
    }

    /// From when on what it sends is signed; 0: always. `None`: it does not sign.
    pub fn signs_from_ms(&self) -> Option<u64> {
        self.signs_from_ms
    }

    /// Whether a record of what it sent is signed as it has to be: not before it had a key, by any of its keys since.
    pub fn record_signed(&self, ms: u64, key_id: Option<&str>, hash: &str, signature: Option<&str>) -> bool {
        let mut all = self.retired.iter().chain(&self.keys);
        match (key_id, signature) {
            // One that had its key from the beginning never sent without.
            (None, None) if self.signs_from_ms == Some(0) && self.retired.is_empty() => false,
            (None, None) => !all.any(|key| key.from_ms.saturating_add(KEY_GRACE_MS) <= ms && key.until_ms.is_none_or(|until| ms < until)),
            (Some(key_id), Some(signature)) => all
                .filter(|key| key.id == key_id)
                .filter_map(|key| PublicKey::read(&key.public))
                .any(|key| key.verifies_record(hash, signature)),
            _ => false,
        }
    }

    /// The keys of that name that it had at that time; with `pin`, only those that follow from it.
    pub fn keys_at(&self, key_id: &str, ms: u64, pin: Option<PublicKey>) -> Vec<PublicKey> {
        let in_time = |key: &Key| {
            key.id == key_id
                && key.from_ms.saturating_sub(KEY_GRACE_MS) <= ms
                && key.until_ms.is_none_or(|until| ms <= until.saturating_add(KEY_GRACE_MS))
        };
        // A document that knows nothing of the pinned key is not its project's: nobody can lock it out by writing another.
        let mut all = self.retired.iter().chain(&self.keys);
        if let Some(pin) = pin.filter(|pin| all.all(|key| PublicKey::read(&key.public) != Some(*pin))) {
            return vec![pin];
        }
        let mut believed: Vec<PublicKey> = Vec::new();
        let mut found = Vec::new();
        // What follows from a pinned key does so also by keys that are believed no more themselves.
        for (key, is_retired) in self.retired.iter().map(|key| (key, true)).chain(self.keys.iter().map(|key| (key, false))) {
            let Some(public) = PublicKey::read(&key.public) else { continue };
            let follows = |by: &PublicKey| {
                let signature = key.handed_over.as_deref();
                signature.is_some_and(|signature| by.verifies_change(&self.project_id, &key.id, public, key.from_ms, signature))
            };
            if pin.is_none_or(|pin| pin == public || believed.last().is_some_and(follows)) {
                believed.push(public);
                if in_time(key) && !is_retired {
                    found.push(public);
                }
            }
        }
        found
    }

    /// Whether it may send events of that type.
    pub fn may_send(&self, event_type: &str) -> bool {
        self.allowed_event_types.iter().any(|pattern| name::matches(pattern, event_type))
    }

    /// Whether it may send to that project.
    pub fn may_reach(&self, target: &str) -> bool {
        self.allowed_targets.iter().any(|allowed| allowed == target || allowed == "*" || allowed == "**")
    }
}

/// What a process registers a project with.
#[derive(Debug, Default)]
pub struct Signers {
    /// Of `credentials.secret`.
    pub current: Option<Signer>,
    /// Of `credentials.previousSecret`.
    pub previous: Option<Signer>,
}

fn first_key(signer: &Signer, now_ms: u64) -> Key {
    Key { id: signer.key_id().to_owned(), public: signer.public_key().to_text(), from_ms: now_ms, until_ms: None, handed_over: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::config::Secret;

    const OLD: &str = "the old secret of it";
    const NEW: &str = "the new secret of it";
    const OTHER: &str = "a secret of another";

    fn signer(secret: &str) -> Signer {
        Signer::derive("a", &Secret::new("api-key"), &Secret::new(secret)).unwrap()
    }

    fn signers(current: Option<&str>, previous: Option<&str>) -> Signers {
        Signers { current: current.map(signer), previous: previous.map(signer) }
    }

    fn config() -> ProjectConfig {
        ProjectConfig::read(json!({
            "projectId": "a", "name": "A", "namespace": "n", "allowedEventTypes": ["user.*", "order.created"], "allowedTargets": ["b"],
        }))
        .unwrap()
    }

    fn registered(before: Option<&Project>, current: Option<&str>, previous: Option<&str>, now_ms: u64) -> Result<Project> {
        Project::registered(before, &config(), &signers(current, previous), now_ms)
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let project = registered(None, Some(OLD), None, 5).unwrap();
        assert_eq!(Project::from_text(&project.to_text()).unwrap(), project);
        assert!(!project.to_text().contains(OLD) && !project.to_text().contains("api-key"));
        assert!(Project::from_text(&project.to_text().replace(r#""v":1"#, r#""v":9"#)).is_err());
        assert!(Project::from_text("{}").is_err());
    }

    #[test]
    fn only_its_secret_changes_a_project() {
        let project = registered(None, Some(OLD), None, 5).unwrap();
        assert_eq!(registered(Some(&project), Some(OLD), None, 9).unwrap().keys, project.keys);
        for (current, previous) in [(Some(OTHER), None), (None, None), (Some(OTHER), Some(NEW))] {
            let error = registered(Some(&project), current, previous, 9).unwrap_err();
            assert_eq!((error.code, error.details["projectId"].as_str()), (Code::ProjectConflict, Some("a")));
        }
        let open = registered(None, None, None, 5).unwrap();
        assert!(!open.signs());
        let owned = registered(Some(&open), Some(OLD), None, 9).unwrap();
        assert!(owned.signs(), "the first to bring credentials owns it");
        assert!(!owned.signed_at(9 + KEY_GRACE_MS - 1) && owned.signed_at(9 + KEY_GRACE_MS), "what it sent before it had a key stays good");
        assert!(project.signed_at(0), "it never sent without");
    }

    #[test]
    fn a_key_that_was_handed_over_is_believed_in_its_own_time() {
        let project = registered(None, Some(OLD), None, 100_000).unwrap();
        let project = registered(Some(&project), Some(NEW), Some(OLD), 200_000).unwrap();
        let (old, new) = (signer(OLD).public_key(), signer(NEW).public_key());
        let id = signer(OLD).key_id().to_owned();
        for (ms, pin, expected) in [
            (150_000, None, vec![old]),
            (205_000, None, vec![old, new]),
            (211_000, None, vec![new]),
            (80_000, None, vec![]),
            (211_000, Some(old), vec![new]),
            (150_000, Some(new), vec![]),
            (211_000, Some(signer(OTHER).public_key()), vec![signer(OTHER).public_key()]),
        ] {
            assert_eq!(project.keys_at(&id, ms, pin), expected, "{ms} {pin:?}");
        }
        assert!(project.keys_at("another", 150_000, None).is_empty());
        // The same change again, by another process.
        assert_eq!(registered(Some(&project), Some(NEW), Some(OLD), 300_000).unwrap().keys, project.keys);
        assert!(registered(Some(&project), Some(OLD), None, 300_000).is_err(), "the old secret is none any more");
    }

    #[test]
    fn a_forged_change_of_keys_does_not_follow_from_the_pinned_one() {
        let mut project = registered(None, Some(OLD), None, 100_000).unwrap();
        let key = first_key(&signer(OTHER), 200_000);
        project.keys.push(Key { handed_over: Some(signer(OTHER).sign_change("a", &key.id, signer(OTHER).public_key(), 200_000)), ..key });
        let id = signer(OLD).key_id().to_owned();
        assert_eq!(project.keys_at(&id, 250_000, Some(signer(OLD).public_key())), [signer(OLD).public_key()]);
    }

    #[test]
    fn what_was_given_up_keeps_its_keys_until_it_is_taken_up_anew() {
        let project = registered(None, Some(OLD), None, 100_000).unwrap();
        let gone = project.given_up(200_000);
        let id = signer(OLD).key_id().to_owned();
        assert!(!gone.is_there());
        assert_eq!(gone.keys_at(&id, 150_000, None), [signer(OLD).public_key()]);
        assert!(gone.keys_at(&id, 250_000, None).is_empty());
        let same = registered(Some(&gone), Some(OLD), None, 300_000).unwrap();
        assert_eq!(
            (same.is_there(), same.keys_at(&id, 150_000, None)),
            (true, vec![signer(OLD).public_key()]),
            "its owner takes it up again"
        );
        let again = registered(Some(&gone), Some(OTHER), None, 300_000).unwrap();
        assert!(again.is_there() && again.keys_at(&id, 150_000, None).is_empty());
        assert_eq!(again.registered_ms, 300_000);
    }

    #[test]
    fn what_it_may_send_and_whom_it_may_reach() {
        let project = registered(None, None, None, 5).unwrap();
        assert!(project.may_send("user.created") && project.may_send("order.created") && !project.may_send("order.paid"));
        assert!(project.may_reach("b") && !project.may_reach("c"));
        let open = Project { allowed_targets: vec!["*".into()], ..project };
        assert!(open.may_reach("c.d"));
    }
}
