//! `CrossProjectStats`: counted in the store with the audit records, over all processes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Projects;
use super::audit::record::Count;
use crate::engine::error::Result;
use crate::engine::name;

/// Counters by what they count and the project.
struct Counters(BTreeMap<String, i64>);

impl Counters {
    fn of(&self, what: Count, project: &str) -> i64 {
        self.0.get(&format!("{} {project}", what.prefix())).copied().unwrap_or(0)
    }
}

impl Projects {
    /// Projects and how many messages they sent, over all processes.
    pub async fn sent(&self) -> Result<Vec<(String, u64)>> {
        let (counts, _) = self.shared.store.counts().await?;
        let of = |(name, count): (String, i64)| {
            let (what, project) = name.split_once(' ')?;
            (what == Count::Sent.prefix()).then(|| (project.to_owned(), u64::try_from(count).unwrap_or(0)))
        };
        Ok(counts.into_iter().filter_map(of).collect())
    }

    /// `getCrossProjectStats`, times as ms: of one project, or of all.
    pub async fn stats(&self, only: Option<&str>) -> Result<Value> {
        let shared = &self.shared;
        let view = shared.directory.refresh().await?;
        if let Some(id) = only {
            name::check_project("projectId", id)?;
            if view.known(id).is_none() {
                return Err(Self::unknown(id));
            }
        }
        let (counts, times) = shared.store.counts().await?;
        let counts = Counters(counts);
        let attending = shared.store.attending().await?;
        let is_meant = |id: &str| only.is_none_or(|only| only == id);
        // Also of those that are gone: what they did is done.
        let projects: Vec<&str> = {
            let mut ids: Vec<&str> = counts.0.keys().filter_map(|name| Some(name.split_once(' ')?.1)).collect();
            ids.extend(view.projects().map(|project| project.project_id.as_str()));
            ids.sort_unstable();
            ids.dedup();
            ids.into_iter().filter(|id| is_meant(id)).collect()
        };
        let total = |what: Count| projects.iter().map(|id| counts.of(what, id)).sum::<i64>();
        let received = total(Count::Received);
        #[allow(clippy::cast_precision_loss)] // an average
        let average_latency = if received > 0 { total(Count::Latency) as f64 / received as f64 / 1000.0 } else { 0.0 };
        let of_project = |id: &&str| {
            json!({
                "projectId": id,
                "messagesSent": counts.of(Count::Sent, id),
                "messagesReceived": counts.of(Count::Received, id),
                "lastActivity": times.get(*id).copied().or_else(|| view.known(id).map(|project| project.registered_ms)).unwrap_or(0),
            })
        };
        let is_here = |member: &&String| member.split_once(' ').is_some_and(|(id, _)| is_meant(id));
        Ok(json!({
            "totalProjects": view.projects().filter(|project| is_meant(&project.project_id)).count(),
            "totalContracts": only.map_or_else(|| view.contracts().all().count(), |id| view.contracts().available(id).count()),
            "messagesSent": total(Count::Sent),
            "messagesReceived": received,
            "messagesFailed": total(Count::Failed),
            "activeConnections": attending.iter().filter(is_here).count(),
            "rateLimitHits": total(Count::Limited),
            "averageLatency": average_latency,
            "projectStats": projects.iter().map(of_project).collect::<Vec<_>>(),
        }))
    }
}
