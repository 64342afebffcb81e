//! Verifying chains: every record is hashed anew and held against the one before it, the chain's head and its anchor.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{self, Outcome};
use crate::engine::error::{Error, Result};
use crate::engine::projects::directory::View;
use crate::engine::store::{Bucket, ChainPlace, ChainRecord, Chains, EntryId, Store};

/// Records looked at in one step.
const CHUNK: usize = 500;

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records looked at.
    pub checked: u64,
    /// The first record, `<chain>:<number>`, that is not as it was written, or is missing.
    pub first_broken: Option<String>,
}

/// How far a chain was followed.
struct Followed {
    last: ChainPlace,
    /// What the first record seen says of the one before it; `None`: it is the chain's first, or its anchor was found to fit.
    begins_after: Option<ChainPlace>,
    /// Hashes of the first records, by which an anchor that moves meanwhile is found to fit.
    early: BTreeMap<u64, String>,
}

/// Most records of a chain by whose hashes a moving anchor is told.
const EARLY_MAX: usize = 10_000;

/// The chains of one bucket.
struct Checker {
    chains: BTreeMap<String, Followed>,
    view: Arc<View>,
    checked: u64,
}

/// Verifies all records there are.
pub async fn verify(store: &Arc<dyn Store>, view: &Arc<View>) -> Result<Verified> {
    let mut all = Verified::default();
    for bucket in Bucket::all() {
        let found = verify_bucket(store, view.clone(), bucket).await?;
        all.checked += found.checked;
        if all.first_broken.is_none() {
            all.first_broken = found.first_broken;
        }
    }
    Ok(all)
}

async fn verify_bucket(store: &Arc<dyn Store>, view: Arc<View>, bucket: Bucket) -> Result<Verified> {
    // Before the records: what is written meanwhile may go beyond these heads, but never stay behind.
    let before = store.chains(bucket).await?;
    let mut checker = Checker { chains: BTreeMap::new(), view, checked: 0 };
    let (mut after, mut broken) = (EntryId::default(), None);
    loop {
        let records = store.records(bucket, after, EntryId { ms: u64::MAX, seq: u64::MAX }, CHUNK).await?;
        let Some((last, _)) = records.last() else { break };
        after = *last;
        // Hashes and signatures take time that others on this thread need not wait for.
        let step = tokio::task::spawn_blocking(move || {
            let broken = records.iter().find_map(|(id, record)| checker.follow(*id, record));
            (checker, broken)
        });
        (checker, broken) = step.await.map_err(|error| Error::internal(format!("verifying the audit log: {error}")))?;
        if broken.is_some() {
            break;
        }
    }
    if broken.is_none() {
        // After the records: anchors move on when old ones are trimmed.
        let now = store.chains(bucket).await?;
        broken = checker.ends(&before, &now);
    }
    Ok(Verified { checked: checker.checked, first_broken: broken })
}

impl Checker {
    /// Takes the next record; answers what is broken.
    fn follow(&mut self, id: EntryId, record: &ChainRecord) -> Option<String> {
        self.checked += 1;
        let Some(text) = record::read(record) else { return Some(format!("entry {id}")) };
        let name = || Some(format!("{}:{}", text.chain, text.n));
        if crate::engine::projects::identity::sha256_hex(record.text.as_bytes()) != record.hash {
            return name();
        }
        if record.signature.is_some() != text.key.is_some() {
            return name();
        }
        // Who sends has the key. Of a project that is not known any more nothing can be verified but the hash.
        if text.outcome == Outcome::Sent
            && let Some(source) = self.view.known(&text.source)
            && !source.record_signed(text.at, text.key, &record.hash, record.signature.as_deref())
        {
            return name();
        }
        let place = ChainPlace { sequence: text.n, hash: record.hash.clone() };
        match self.chains.get_mut(text.chain) {
            Some(followed) if followed.last.sequence + 1 == text.n && followed.last.hash == text.prev => {
                if followed.begins_after.is_some() && followed.early.len() < EARLY_MAX {
                    followed.early.insert(text.n, record.hash.clone());
                }
                followed.last = place;
            }
            Some(followed) => return Some(format!("{}:{}", text.chain, followed.last.sequence + 1)),
            None if text.n == 0 || (text.n == 1 && !text.prev.is_empty()) => return name(),
            None => {
                let begins_after = (text.n > 1).then(|| ChainPlace { sequence: text.n - 1, hash: text.prev.to_owned() });
                let early = BTreeMap::from([(text.n, record.hash.clone())]);
                self.chains.insert(text.chain.to_owned(), Followed { last: place, begins_after, early });
            }
        }
        None
    }

    /// All records were seen: beginnings and ends.
    fn ends(&self, before: &Chains, now: &Chains) -> Option<String> {
        for (chain, followed) in &self.chains {
            if let Some(begins) = &followed.begins_after {
                let fits = |anchor: &ChainPlace| anchor == begins || followed.early.get(&anchor.sequence) == Some(&anchor.hash);
                let anchors = [before.anchors.get(chain), now.anchors.get(chain)];
                if !anchors.into_iter().flatten().any(fits) {
                    return Some(format!("{chain}:{}", begins.sequence));
                }
            }
            let Some(head) = now.heads.get(chain) else { return Some(format!("{chain}:{}", followed.last.sequence)) };
            // It was read later: it may be ahead, but not behind.
            if head.sequence < followed.last.sequence || (head.sequence == followed.last.sequence && head.hash != followed.last.hash) {
                return Some(format!("{chain}:{}", followed.last.sequence));
            }
        }
        for (chain, head) in &before.heads {
            let anchor = now.anchors.get(chain).map_or(0, |anchor| anchor.sequence);
            let seen = self.chains.get(chain).map_or(0, |followed| followed.last.sequence);
            // Forgotten as a whole since: nothing of it is to be there.
            let is_forgotten = !now.heads.contains_key(chain) && seen == 0;
            if seen.max(anchor) < head.sequence && !is_forgotten {
                return Some(format!("{chain}:{}", seen.max(anchor) + 1));
            }
        }
        // Where all is trimmed, both are of the same record.
        let all_trimmed = now.heads.iter().find(|(chain, head)| {
            now.anchors.get(*chain).is_some_and(|anchor| anchor.sequence == head.sequence && anchor.hash != head.hash)
        });
        all_trimmed.map(|(chain, head)| format!("{chain}:{}", head.sequence))
    }
}

#[cfg(test)]
mod tests;
