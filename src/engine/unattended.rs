//! Groups that nobody reads while events wait for them. That is said, so that somebody starts a consumer again or deletes the
//! group: what waits is in nobody's hands, and its streams do not shrink until its ttl is over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::error::Result;
use super::host::{Host, Lifecycle};
use super::log::failed;
use super::name;
use super::store::{GroupSpec, Store, Topology};

/// How long a group may be without a living consumer: longer than a deployment or the restart of a machine takes, and so short
/// that what waits with the default ttl of an hour can still be handled.
const ALONE_MAX: Duration = Duration::from_secs(15 * 60);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Group and pattern.
type Key = (String, String);

/// What this process has seen so far. As many as there are such groups.
#[derive(Default)]
struct Seen(HashMap<Key, Episode>);

/// A time without a living consumer.
struct Episode {
    since: Instant,
    is_told: bool,
}

/// Looks for them while `is_here` says that it is this process that does so for all.
pub async fn report(store: Arc<dyn Store>, host: Arc<dyn Host>, is_here: Arc<AtomicBool>) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if !is_here.load(Ordering::Relaxed) {
            seen = Seen::default();
            continue;
        }
        match seen.look(&*store).await {
            Ok(said) if !said.is_empty() => host.lifecycle(said),
            Ok(_) => {}
            Err(error) => failed!(error, "groups that nobody reads wait for the server"),
        }
    }
}

impl Seen {
    /// Answers what is to be said now.
    async fn look(&mut self, store: &dyn Store) -> Result<Vec<Lifecycle>> {
        let alone: HashSet<Key> = store.unattended().await?.into_iter().map(|spec| (spec.group, spec.pattern)).collect();
        let now = Instant::now();
        self.0.retain(|key, _| alone.contains(key));
        for key in &alone {
            self.0.entry(key.clone()).or_insert(Episode { since: now, is_told: false });
        }
        let mut overdue: Vec<Key> =
            self.0.iter().filter(|(_, episode)| !episode.is_told && now - episode.since > ALONE_MAX).map(|(key, _)| key.clone()).collect();
        if overdue.is_empty() {
            return Ok(Vec::new());
        }
        overdue.sort_unstable();
        let topology = store.topology().await?;
        let mut said = Vec::new();
        for key in overdue {
            match waiting(store, &topology, &key, &alone).await {
                Ok(Waiting::Attended) => drop(self.0.remove(&key)),
                Ok(Waiting::Events { count: 0, .. }) => {}
                Ok(Waiting::Events { count, more }) => {
                    if let Some(episode) = self.0.get_mut(&key) {
                        episode.is_told = true;
                        said.push(warning(&key, now - episode.since, count, more));
                    }
                }
                // The next look makes up for it; what is known of others is said nevertheless.
                Err(error) => failed!(error, group = key.0, "it is not known what waits for a group"),
            }
        }
        Ok(said)
    }
}

/// What a group that seems to be alone has before it.
enum Waiting {
    /// Somebody reads it after all, under a name that is not noted.
    Attended,
    /// So many events wait; `more`: at least.
    Events { count: u64, more: bool },
}

/// Sums over the partitions that no attended subscription of the group covers.
async fn waiting(store: &dyn Store, topology: &Topology, (group, pattern): &Key, alone: &HashSet<Key>) -> Result<Waiting> {
    let is_attended = |spec: &&GroupSpec| spec.group == *group && !alone.contains(&(spec.group.clone(), spec.pattern.clone()));
    let attended: Vec<&GroupSpec> = topology.groups.iter().filter(is_attended).collect();
    let (mut count, mut more) = (0, false);
    for at in topology.partitions.iter().filter(|at| name::matches(pattern, &at.event_type)) {
        if attended.iter().any(|spec| name::matches(&spec.pattern, &at.event_type)) {
            continue;
        }
        let Some(state) = store.inspect(at).await? else { continue };
        let Some(its) = state.groups.iter().find(|its| its.name == *group) else { continue };
        if its.consumers.iter().any(|consumer| state.live.contains(consumer)) {
            return Ok(Waiting::Attended);
        }
        count += its.pending + its.lag.unwrap_or(1);
        more |= its.lag.is_none();
    }
    Ok(Waiting::Events { count, more })
}

fn warning((group, pattern): &Key, alone: Duration, count: u64, more: bool) -> Lifecycle {
    let minutes = alone.as_secs() / 60;
    let (at_least, wait) = (if more { "at least " } else { "" }, if count == 1 { "event waits" } else { "events wait" });
    Lifecycle::warn(format!(
        "group '{group}' on '{pattern}' has had no live consumer for {minutes} minutes, and {at_least}{count} {wait} for it: \
         start one, or delete the group by deleteGroup('{pattern}', '{group}')"
    ))
}
