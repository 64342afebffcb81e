//! What this process knows of agents and pools: what whoever leads wrote last, so that getters need not ask.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::engine::store::BoardNews;

/// Texts as they were written; nothing is parsed before it is asked for.
#[derive(Debug, Default)]
pub struct View {
    version: u64,
    /// By id.
    agents: BTreeMap<String, String>,
    summary: Option<String>,
}

/// An agent whose circuit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Which.
    pub agent: String,
    /// As it was.
    pub from: String,
    /// As it is.
    pub to: String,
}

#[derive(Deserialize)]
struct Circuited<'a> {
    circuit: &'a str,
}

fn circuit(text: &str) -> Option<&str> {
    serde_json::from_str::<Circuited<'_>>(text).ok().map(|agent| agent.circuit)
}

#[derive(Deserialize)]
struct Summary<'a> {
    #[serde(borrow)]
    stats: &'a RawValue,
    #[serde(borrow)]
    pools: &'a RawValue,
}

impl View {
    /// Number of the write up to which all is known.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Takes in what is new. Answers whose circuits changed: of agents that were not known nothing changed.
    pub fn take(&mut self, news: BoardNews) -> Vec<Turned> {
        let mut turned = Vec::new();
        let before = if news.whole { std::mem::take(&mut self.agents) } else { BTreeMap::new() };
        for (id, text) in news.agents {
            let known = before.get(&id).or_else(|| self.agents.get(&id));
            if let Some((from, to)) = known.and_then(|known| circuit(known)).zip(circuit(&text)).filter(|(from, to)| from != to) {
                turned.push(Turned { agent: id.clone(), from: from.to_owned(), to: to.to_owned() });
            }
            self.agents.insert(id, text);
        }
        if let Some(summary) = news.summary {
            self.summary = summary.lines().next().map(ToOwned::to_owned);
        } else if news.whole {
            self.summary = None;
        }
        self.version = news.version;
        turned
    }

    /// `AgentView[]` as JSON text, with times as ms.
    pub fn agents(&self) -> String {
        format!("[{}]", self.agents.values().map(String::as_str).collect::<Vec<_>>().join(","))
    }

    /// `PoolView[]` as JSON text.
    pub fn pools(&self) -> String {
        self.summary().map_or_else(|| "[]".to_owned(), |summary| summary.pools.get().to_owned())
    }

    /// `OrchestrationStats` as JSON text.
    pub fn stats(&self) -> String {
        self.summary().map_or_else(|| nothing().to_string(), |summary| summary.stats.get().to_owned())
    }

    /// How many pools there are.
    pub fn pool_count(&self) -> usize {
        self.summary().and_then(|summary| serde_json::from_str::<Vec<&RawValue>>(summary.pools.get()).ok()).map_or(0, |pools| pools.len())
    }

    fn summary(&self) -> Option<Summary<'_>> {
        serde_json::from_str(self.summary.as_deref()?).ok()
    }
}

/// Before there was any agent.
fn nothing() -> Value {
    json!({
        "totalAgents": 0, "totalPools": 0, "averageUtilization": 0, "totalThroughput": 0, "averageResponseTime": 0, "errorRate": 0,
        "queueDepth": 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(version: u64, whole: bool, agents: &[(&str, &str)], summary: Option<&str>) -> BoardNews {
        let agents = agents.iter().map(|(id, circuit)| ((*id).to_owned(), format!(r#"{{"id":"{id}","circuit":"{circuit}"}}"#))).collect();
        BoardNews { version, whole, agents, summary: summary.map(ToOwned::to_owned) }
    }

    #[test]
    fn what_is_new_replaces_what_was_known_and_circuits_that_turned_are_told() {
        let mut view = View::default();
        assert_eq!((view.agents(), view.pools(), view.pool_count()), ("[]".to_owned(), "[]".to_owned(), 0));
        assert!(view.stats().contains("\"totalAgents\":0"));
        assert_eq!(view.take(news(1, true, &[("a", "closed"), ("b", "closed")], None)), []);
        let turned = view.take(news(2, false, &[("a", "open")], Some("{\"stats\":{\"n\":1},\"pools\":[{},{}]}\nbehind")));
        assert_eq!(turned, [Turned { agent: "a".to_owned(), from: "closed".to_owned(), to: "open".to_owned() }]);
        assert_eq!((view.stats().as_str(), view.pool_count(), view.version()), ("{\"n\":1}", 2, 2));
        let turned = view.take(news(5, true, &[("a", "half-open")], None));
        assert_eq!((turned.len(), view.agents().as_str()), (1, r#"[{"id":"a","circuit":"half-open"}]"#));
        assert_eq!(view.pool_count(), 0);
    }
}
