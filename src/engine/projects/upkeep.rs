//! What goes on beside: this process attends its projects, registers them anew when the store was emptied, and has old audit
//! records removed.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::engine::error::Result;
use crate::engine::log::failed;
use crate::engine::store::{Bucket, Shelf};

/// How long a process counts as there without saying so again.
pub const ATTEND_FOR: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_secs(2);
/// Attending is said, and records are trimmed, each so many rounds.
const ATTEND_EACH: u32 = 5;
const TRIM_EACH: u32 = 15;
/// How long a project that was unregistered is remembered at least, ms: what it has sent may wait so long.
const GONE_FOR_MS: u64 = 30 * 24 * 3_600_000;
/// Steps of trimming a bucket in one round.
const TRIMS_A_ROUND: usize = 100;

/// For as long as the bus is connected.
pub async fn run(shared: Arc<Shared>) {
    // Not all processes at the same time.
    tokio::time::sleep(EVERY.mul_f64(shared.env.random())).await;
    for round in 0_u32.. {
        if let Err(error) = shared.keep_up(round).await {
            failed!(error, "upkeep of projects");
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl Shared {
    async fn keep_up(&self, round: u32) -> Result<()> {
        // By the server's time messages are signed, and held against that of their entry: it may be set, or this process have slept.
        self.store.compare_clocks().await?;
        self.register_anew().await?;
        if round.is_multiple_of(ATTEND_EACH) {
            let members = self.held.members(&self.instance);
            if !members.is_empty() {
                self.store.attend(&members, ATTEND_FOR).await?;
            }
        }
        if round.is_multiple_of(TRIM_EACH) {
            self.trim().await?;
            self.forget_gone().await?;
        }
        Ok(())
    }

    /// Of projects that were unregistered long ago no message is left, nor a record.
    async fn forget_gone(&self) -> Result<()> {
        let view = self.directory.view();
        let life_ms = GONE_FOR_MS.max(self.settings.audit_retention_ms);
        let before_ms = self.store.now_ms().saturating_sub(life_ms);
        for project in view.documents().filter(|project| project.gone_ms.is_some_and(|gone| gone < before_ms)) {
            let id = &project.project_id;
            self.store.put_document(Shelf::Projects, id, view.text(id), None).await?;
        }
        Ok(())
    }

    /// What this process registered is there no more: the server was emptied, or replaced by one that knew less. Nobody removes a
    /// document. Others look after theirs; some of them may have done so already.
    async fn register_anew(&self) -> Result<()> {
        let view = self.directory.view();
        self.held.follow(&view);
        if self.held.missing(&view).is_empty() {
            return Ok(());
        }
        let view = self.directory.refresh().await?;
        for (shelf, name, text) in self.held.missing(&view) {
            self.store.put_document(shelf, &name, None, Some(&text)).await?;
        }
        self.directory.refresh().await.map(drop)
    }

    async fn trim(&self) -> Result<()> {
        let before_ms = self.store.now_ms().saturating_sub(self.settings.audit_retention_ms);
        let counts = self.store.record_counts().await?;
        let (total, most) = (counts.values().sum::<u64>(), self.settings.audit_records_max);
        // Buckets without records may have chains to be forgotten.
        for bucket in Bucket::all() {
            let count = counts.get(&bucket).copied().unwrap_or(0);
            // Each gives its part of what is too many; where nothing is, none goes for its number: others may have come since.
            let kept = if total > most { (count * most / total).max(1) } else { u64::MAX };
            for _ in 0..TRIMS_A_ROUND {
                if !self.store.trim_records(bucket, before_ms, kept).await?.1 {
                    break;
                }
            }
        }
        Ok(())
    }
}
