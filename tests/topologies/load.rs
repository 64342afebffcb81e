//! Publishers at work while something happens to the servers, and what must hold of their events afterwards.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ossa::engine::error::Result;
use ossa::engine::event::MetaView;
use ossa::engine::store::{Appended, Body, EntryId, Partition, Store};

use crate::support::events::event;
use crate::support::wait::until;

/// Events of one call.
const AT_ONCE: usize = 3;
/// Between two calls of one publisher: the servers are to be busy, not the machine.
const PACE: Duration = Duration::from_millis(10);

/// One publish and its answer.
#[derive(Debug)]
pub struct Sent {
    /// Where it went.
    pub at: Partition,
    /// The event.
    pub id: String,
    /// The answer.
    pub result: Result<Appended>,
    /// When it was answered.
    pub answered: Instant,
}

/// Publishers, one a partition.
pub struct Load {
    sent: Arc<Mutex<Vec<Sent>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Begins.
    pub fn start(store: &Arc<dyn Store>, parts: &[Partition]) -> Self {
        let (sent, stop) = (Arc::<Mutex<Vec<Sent>>>::default(), Arc::<AtomicBool>::default());
        let one = |at: &Partition| tokio::spawn(publish_on(store.clone(), at.clone(), sent.clone(), stop.clone()));
        Self { tasks: parts.iter().map(one).collect(), sent, stop }
    }

    /// Waits until a publish to each of these partitions succeeded after `since`; answers when the last of them did.
    pub async fn goes_on(&self, parts: &[Partition], since: Instant) -> Instant {
        let mut firsts: HashMap<Partition, Instant> = HashMap::new();
        until("publishing goes on", async || {
            let sent = self.sent.lock().expect("no panic under the lock");
            for one in sent.iter().rev().take_while(|one| one.answered > since).filter(|one| one.result.is_ok()) {
                let first = firsts.entry(one.at.clone()).or_insert(one.answered);
                *first = one.answered.min(*first);
            }
            parts.iter().all(|at| firsts.contains_key(at))
        })
        .await;
        *parts.iter().map(|at| &firsts[at]).max().expect("there are partitions")
    }

    /// Ends them, and answers all that was sent.
    pub async fn end(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        std::mem::take(&mut self.sent.lock().expect("no panic under the lock"))
    }
}

async fn publish_on(store: Arc<dyn Store>, at: Partition, sent: Arc<Mutex<Vec<Sent>>>, stop: Arc<AtomicBool>) {
    for round in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let ids: Vec<String> = (0..AT_ONCE).map(|n| format!("{}-{round}-{n}", at.event_type)).collect();
        let results = store.append(at.bucket(), ids.iter().map(|id| event(&at, id)).collect()).await;
        let answered = Instant::now();
        let new = ids.into_iter().zip(results).map(|(id, result)| Sent { at: at.clone(), id, result, answered });
        sent.lock().expect("no panic under the lock").extend(new);
        tokio::time::sleep(PACE).await;
    }
}

/// All ids in the stream, in order.
pub async fn stored(store: &Arc<dyn Store>, at: &Partition) -> Vec<String> {
    const PAGE: usize = 1000;
    let (mut ids, mut after) = (Vec::new(), EntryId::default());
    loop {
        let page = store.history(at, after, EntryId { ms: u64::MAX, seq: u64::MAX }, PAGE).await.expect("read");
        for kept in &page {
            let Body::Event { meta, .. } = &kept.body else { panic!("a foreign entry: {kept:?}") };
            ids.push(MetaView::read(meta).expect("readable").id.into_owned());
            after = kept.id;
        }
        if page.len() < PAGE {
            return ids;
        }
    }
}

/// Holds the streams against the answers: what was answered with success is there once, unless it `may_be_lost`; what
/// failed is there once at most; all in the order of the calls, and nothing that nobody published. Answers how many are
/// lost.
pub async fn check(store: &Arc<dyn Store>, sent: &[Sent], may_be_lost: impl Fn(&Sent) -> bool) -> usize {
    let mut by_partition: HashMap<&Partition, Vec<&Sent>> = HashMap::new();
    for one in sent {
        by_partition.entry(&one.at).or_default().push(one);
    }
    let mut lost = 0;
    for (at, sent) in by_partition {
        let stored = stored(store, at).await;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for id in &stored {
            *counts.entry(id).or_default() += 1;
        }
        let mut expected = Vec::new();
        for one in sent {
            let count = counts.remove(one.id.as_str()).unwrap_or(0);
            let is_lost = one.result.is_ok() && count == 0;
            assert!(count <= 1, "{} of {at} is there {count} times, and was answered {:?}", one.id, one.result);
            assert!(!is_lost || may_be_lost(one), "{} of {at} is lost", one.id);
            lost += usize::from(is_lost);
            expected.extend((count == 1).then_some(&one.id));
        }
        assert_eq!(counts, HashMap::new(), "{at} has what nobody published");
        let wrong = stored.iter().zip(expected).position(|(stored, expected)| stored != expected);
        assert_eq!(wrong, None, "{at} is in the order of the calls");
    }
    lost
}

/// From the moment a master died until another took its place.
pub struct Failover {
    /// It died, or stood still.
    pub began: Instant,
    /// The other said that it is the master.
    pub ended: Instant,
}

impl Failover {
    /// How far replicas may lag behind.
    const LAG_MAX: Duration = Duration::from_secs(1);

    /// Whether the event was answered by the old master and may not have reached the new one.
    pub fn may_lose(&self, one: &Sent) -> bool {
        one.answered + Self::LAG_MAX > self.began && one.answered < self.ended
    }
}

/// Nothing may be lost.
pub fn nothing(_: &Sent) -> bool {
    false
}

/// The first failure, for messages.
pub fn failure(sent: &[Sent]) -> Option<&Sent> {
    sent.iter().find(|one| one.result.is_err())
}
