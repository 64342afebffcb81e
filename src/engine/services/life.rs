//! The life of a registry: connecting, what goes on while it is open, and closing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::registry::{Opening, Registry, Tasks, Watcher};
use super::{looking, probing, renewing};
use crate::engine::config::HttpConfig;
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};
use crate::engine::http::Http;
use crate::engine::store::StoreEvent;

/// First and longest pause between attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Longest time that closing takes.
const CLOSE_MAX: Duration = Duration::from_secs(2);

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        // Connections end by closing alone.
        if !self.opening.get_mut().closed
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let store = self.shared.store.clone();
            runtime.spawn(self.log().along(async move { store.close(CLOSE_MAX).await }));
        }
    }
}

impl Registry {
    /// Connects; idempotent. After a failure it is tried again beside, for those who wait for events only.
    pub async fn open(self: &Arc<Self>) -> Result<()> {
        let opened = self.open_once().await;
        if opened.as_ref().is_err_and(|error| error.retryable) && !self.reopening.swap(true, Ordering::AcqRel) {
            let weak = Arc::downgrade(self);
            self.shared.env.spawn(async move {
                let mut pause = RECONNECT.0;
                loop {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECONNECT.1);
                    let Some(registry) = weak.upgrade() else { return };
                    match registry.open_once().await {
                        Err(error) if error.retryable => {}
                        _ => return registry.reopening.store(false, Ordering::Release),
                    }
                }
            });
        }
        opened
    }

    async fn open_once(&self) -> Result<()> {
        let seen = self.attempts.load(Ordering::Acquire);
        // Closing does not wait for a store that does not answer.
        tokio::select! {
            biased;
            () = self.shared.closed() => Err(Error::closed("the service registry")),
            opened = self.open_in_turn(seen) => opened,
        }
    }

    async fn open_in_turn(&self, seen: u64) -> Result<()> {
        let mut opening = self.opening.lock().await;
        if opening.all {
            return Ok(());
        }
        // Of those that wait for the same, each would else wait for the failures of all before it.
        if let Some((attempt, error)) = &opening.failed
            && *attempt > seen
        {
            return Err(error.clone());
        }
        let attempt = self.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        let connected = self.connect(&mut opening).await;
        if let Err(error) = &connected {
            opening.failed = Some((attempt, error.clone()));
        }
        drop(opening);
        self.probe_if_wanted();
        connected
    }

    async fn connect(&self, opening: &mut Opening) -> Result<()> {
        if !opening.store {
            let asking = self.shared.asking.clone();
            let shared = Arc::downgrade(&self.shared);
            self.shared.store.watch(Arc::new(move |event| match event {
                StoreEvent::ServicesChanged => asking.look(),
                StoreEvent::ConnectionRestored => {
                    asking.look();
                    if let Some(shared) = shared.upgrade() {
                        shared.renewal.notify_one();
                    }
                }
                _ => {}
            }));
            self.shared.store.open().await?;
            opening.store = true;
        }
        self.begin();
        // What is there is no news.
        self.shared.asking.refresh().await?;
        opening.all = true;
        tracing::info!(redis = self.shown, "the service registry is connected");
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    fn begin(&self) {
        let mut tasks = lock(&self.tasks);
        if !self.is_closed()
            && let Some(asked) = lock(&self.asked).take()
        {
            let env = &self.shared.env;
            tasks.beside = vec![env.spawn(looking::run(self.shared.clone(), asked)), env.spawn(renewing::run(self.shared.clone()))];
        }
    }

    fn stop(&self) {
        self.shared.closed.send_replace(true);
        self.is_open.store(false, Ordering::Release);
        let Tasks { beside, probing: _, .. } = std::mem::take(&mut *lock(&self.tasks));
        beside.iter().for_each(JoinHandle::abort);
        lock(&self.shared.listeners).clear();
    }

    /// Ends everything; what is registered stays listed until its time is over. Idempotent.
    pub async fn close(&self) {
        self.stop();
        let mut opening = self.opening.lock().await;
        if std::mem::replace(&mut opening.closed, true) {
            return;
        }
        // Whoever waits for a look is told that there is none.
        lock(&self.asked).take();
        self.shared.store.close(CLOSE_MAX).await;
        tracing::info!("the service registry is closed");
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// A client for what a bus asks of services: what this registry may ask, and `policy` allows as well.
    pub fn client(&self, policy: Option<&HttpConfig>) -> Result<Http> {
        match policy {
            Some(policy) => Http::new(&[&self.policy, policy]),
            None => Http::new(&[&self.policy]),
        }
    }

    /// Until [`Registry::relax`] probes of this process hold to `policy` as well. Answers what names that.
    pub fn restrict(&self, policy: &HttpConfig) -> Result<u64> {
        let mut restrictions = lock(&self.restrictions);
        let number = restrictions.last_key_value().map_or(0, |(last, _)| last + 1);
        restrictions.insert(number, policy.clone());
        self.probe_by(&restrictions).inspect_err(|_| drop(restrictions.remove(&number)))?;
        Ok(number)
    }

    /// The opposite of [`Registry::restrict`].
    pub fn relax(&self, restriction: u64) {
        let mut restrictions = lock(&self.restrictions);
        restrictions.remove(&restriction);
        // It could be made with more of them.
        let _ = self.probe_by(&restrictions);
    }

    fn probe_by(&self, restrictions: &BTreeMap<u64, HttpConfig>) -> Result<()> {
        let policies: Vec<&HttpConfig> = restrictions.values().chain([&self.policy]).collect();
        *lock(&self.shared.http) = Http::new(&policies)?;
        Ok(())
    }

    /// From now on this process takes part in probing, until [`Registry::unwatch`].
    pub async fn watch(self: &Arc<Self>, watcher: Watcher) -> Result<()> {
        self.open().await?;
        {
            let mut tasks = lock(&self.tasks);
            match watcher {
                Watcher::Program => tasks.wanted.0 = true,
                Watcher::Bus => tasks.wanted.1 += 1,
            }
        }
        self.probe_if_wanted();
        Ok(())
    }

    /// The opposite of [`Registry::watch`].
    pub fn unwatch(&self, watcher: Watcher) {
        let mut tasks = lock(&self.tasks);
        match watcher {
            Watcher::Program => tasks.wanted.0 = false,
            Watcher::Bus => tasks.wanted.1 = tasks.wanted.1.saturating_sub(1),
        }
        if !tasks.are_probes_wanted() {
            tasks.probing = None;
        }
    }

    fn probe_if_wanted(&self) {
        let mut tasks = lock(&self.tasks);
        if tasks.are_probes_wanted() && tasks.probing.is_none() && !self.is_closed() {
            let (probing, ends) = oneshot::channel();
            self.shared.env.spawn(probing::run(self.shared.clone(), ends));
            tasks.probing = Some(probing);
        }
    }

    /// A bus registers itself: what it registers is renewed at least until [`Registry::bus_left`].
    pub fn bus_came(&self) {
        lock(&self.tasks).buses += 1;
    }

    /// The opposite of [`Registry::bus_came`]. What the last bus of this process registered under that name is renewed no more.
    pub fn bus_left(&self, name: &str) {
        let mut tasks = lock(&self.tasks);
        tasks.buses = tasks.buses.saturating_sub(1);
        if tasks.buses == 0 {
            self.shared.held.remove(name);
        }
    }
}
