//! What the users of one memory store share, and the names under which stores are found.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::super::{Bucket, Partition, StoreEvent};
use super::state::State;
use crate::engine::env::{Env, lock};

/// Where a user's news go.
pub(super) type Listener = Arc<dyn Fn(StoreEvent) + Send + Sync>;

/// Name and key prefix.
pub(super) type Name = (String, String);

static NAMED: LazyLock<Mutex<HashMap<Name, Weak<Shared>>>> = LazyLock::new(Mutex::default);

/// The store itself.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// The one clock of the store: that of whoever made it.
    pub(super) env: Env,
    name: Option<Name>,
    sessions: Mutex<Vec<Weak<Session>>>,
}

impl Shared {
    /// A store of its own.
    pub(super) fn private(env: Env) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), env, name: None, sessions: Mutex::default() })
    }

    /// The process's store of that name, made if there is none.
    pub(super) fn named(name: &Name, env: Env) -> Arc<Self> {
        let mut named = lock(&NAMED);
        if let Some(shared) = named.get(name).and_then(Weak::upgrade) {
            return shared;
        }
        let name = name.clone();
        let shared = Arc::new(Self { state: Mutex::default(), env, name: Some(name.clone()), sessions: Mutex::default() });
        named.insert(name, Arc::downgrade(&shared));
        shared
    }

    /// A user who wants news until the session is closed.
    pub(super) fn admit(&self, session: &Arc<Session>) {
        let mut sessions = lock(&self.sessions);
        sessions.retain(|other| other.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
    }

    /// Tells every user, with no lock held.
    pub(super) fn announce(&self, event: &StoreEvent) {
        let sessions: Vec<Arc<Session>> = lock(&self.sessions).iter().filter_map(Weak::upgrade).collect();
        for session in sessions {
            let listener = lock(&session.listener).clone();
            if let Some(listener) = listener.filter(|_| !session.is_closed() && session.wants(event)) {
                listener(event.clone());
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        let mut named = lock(&NAMED);
        // Another store of that name may have been made since the last user of this one went.
        if named.get(name).is_some_and(|other| other.strong_count() == 0) {
            named.remove(name);
        }
    }
}

/// One user's time between open and close.
#[derive(Default)]
pub(super) struct Session {
    pub(super) listener: Mutex<Option<Listener>>,
    /// Buckets whose events that are not stored it wants.
    pub(super) hears: Mutex<BTreeSet<Bucket>>,
    closed: AtomicBool,
    closing: Notify,
}

impl Session {
    fn wants(&self, event: &StoreEvent) -> bool {
        let StoreEvent::Transient(transient) = event else { return true };
        lock(&self.hears).contains(&Partition::new(transient.event_type.clone(), 0).bucket())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Completes when the session closes.
    pub(super) fn closing(&self) -> Notified<'_> {
        self.closing.notified()
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_forgotten_with_its_last_user() {
        let name: Name = ("forgotten".into(), "p".into());
        let first = Shared::named(&name, Env::seeded(1));
        let second = Shared::named(&name, Env::seeded(1));
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        assert!(!lock(&NAMED).contains_key(&name));
    }
}
