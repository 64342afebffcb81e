//! What waits: in the groups of this process, sampled; in all groups, when asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::engine::consume::Consumer;
use crate::engine::error::Result;
use crate::engine::store::{Backlog, Partition, Store};

/// Groups that are told apart; what waits in further ones is counted as `other`.
const GROUPS_MAX: usize = 100;
/// All groups beyond [`GROUPS_MAX`].
const OTHER: &str = "other";
/// Partitions looked at together.
const AT_ONCE: usize = 32;

/// What waits in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Held by somebody, or waiting for a retry.
    pub pending: u64,
    /// Not read yet: at least so many.
    pub lag: u64,
}

/// What waits in the groups of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// By group.
    pub groups: BTreeMap<String, Waiting>,
}

impl Queues {
    /// All of it.
    pub fn depth(&self) -> u64 {
        self.groups.values().map(|waiting| waiting.pending + waiting.lag).sum()
    }

    /// Adds what waits on a partition.
    fn add(&mut self, backlogs: &[Backlog]) {
        for Backlog { group, pending, lag } in backlogs {
            let is_known = self.groups.contains_key(group) || self.groups.len() < GROUPS_MAX;
            let waiting = self.groups.entry(if is_known { group.clone() } else { OTHER.to_owned() }).or_default();
            waiting.pending += pending;
            waiting.lag += lag;
        }
    }
}

/// Asks the store what waits for the groups of this consumer.
pub async fn sample(store: &Arc<dyn Store>, consumer: &Consumer) -> Result<Queues> {
    let reads = consumer.reads().await;
    let mut readers: BTreeMap<Partition, BTreeSet<String>> = BTreeMap::new();
    for (group, partition) in reads {
        readers.entry(partition).or_default().insert(group.to_string());
    }
    let readers: Vec<_> = readers.into_iter().collect();
    let mut queues = Queues::default();
    store.backlogs(&readers).await?.iter().for_each(|backlogs| queues.add(backlogs));
    Ok(queues)
}

#[derive(Default)]
struct View {
    pending: u64,
    lag: Option<u64>,
    consumers: BTreeMap<String, bool>,
}

/// `GroupView[]`: all groups of all types.
pub async fn groups(store: &Arc<dyn Store>) -> Result<Value> {
    let topology = store.topology().await?;
    let look = |partition: Partition| async move { store.inspect(&partition).await.map(|state| (partition, state)) };
    let states: Vec<_> = futures_util::stream::iter(topology.partitions).map(look).buffer_unordered(AT_ONCE).try_collect().await?;
    let mut views: BTreeMap<(Arc<str>, String), View> = BTreeMap::new();
    for (partition, state) in states.into_iter().filter_map(|(partition, state)| Some((partition, state?))) {
        for group in &state.groups {
            let view =
                views.entry((partition.event_type.clone(), group.name.clone())).or_insert_with(|| View { lag: Some(0), ..View::default() });
            view.pending += group.pending;
            view.lag = view.lag.zip(group.lag).map(|(sum, lag)| sum + lag);
            for name in &group.consumers {
                *view.consumers.entry(name.clone()).or_default() |= state.live.contains(name);
            }
        }
    }
    let view = |((event_type, group), View { pending, lag, consumers }): ((Arc<str>, String), View)| {
        let consumers: Vec<Value> = consumers.into_iter().map(|(name, alive)| json!({ "name": name, "alive": alive })).collect();
        json!({ "eventType": &*event_type, "group": group, "pending": pending, "lag": lag, "consumers": consumers })
    };
    Ok(Value::Array(views.into_iter().map(view).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_beyond_the_bound_are_counted_together() {
        let names: Vec<String> = (0..GROUPS_MAX + 5).map(|n| format!("g{n:03}")).collect();
        let backlog = |name: &String| Backlog { group: name.clone(), pending: 1, lag: 2 };
        let backlogs: Vec<Backlog> = names.iter().map(backlog).collect();
        let mut queues = Queues::default();
        queues.add(&backlogs);
        assert_eq!(queues.groups.len(), GROUPS_MAX + 1);
        assert_eq!(queues.groups[OTHER], Waiting { pending: 5, lag: 10 });
        assert_eq!(queues.depth(), 3 * (GROUPS_MAX as u64 + 5));
    }
}
