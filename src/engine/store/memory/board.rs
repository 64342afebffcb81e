//! What the orchestration of agents keeps: tables, written by the one process that leads.

use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::super::board::{PAGE, check, first_line};
use super::super::{Board, BoardNews, BoardWrite, BoardWritten, Lead, StoreEvent, Table};
use super::shared::Name;
use super::{MemoryStore, ms};
use crate::engine::env::lock;
use crate::engine::error::Result;

/// The last turns of named stores, as long as the clock does not tell them from the next: a store may be gone with its users and made
/// anew within a millisecond.
static TURNS: LazyLock<Mutex<HashMap<Name, u64>>> = LazyLock::new(Mutex::default);

/// All of it.
#[derive(Debug, Default)]
pub(super) struct BoardState {
    tables: BTreeMap<Table, BTreeMap<String, String>>,
    /// Agents: number of the write that changed them.
    changed: BTreeMap<String, u64>,
    /// The last write, and the turn that did it.
    version: u64,
    by: u64,
    /// Readers who do not know this write read all.
    floor: u64,
    summary: Option<String>,
    last_turn: u64,
    leader: Option<Leader>,
}

#[derive(Debug)]
struct Leader {
    turn: u64,
    who: String,
    end_ms: u64,
}

impl BoardState {
    fn lead(&mut self, name: Option<&Name>, who: &str, life: Duration, now_ms: u64) -> Option<Lead> {
        let end_ms = now_ms.saturating_add(ms(life).max(1));
        let turn = match self.leader.as_mut().filter(|leader| leader.end_ms > now_ms) {
            Some(leader) if leader.who != who => return None,
            Some(leader) => {
                leader.end_ms = end_ms;
                leader.turn
            }
            None => {
                let turn = self.next_turn(name, now_ms);
                self.leader = Some(Leader { turn, who: who.to_owned(), end_ms });
                turn
            }
        };
        Some(Lead { turn, version: self.version })
    }

    fn next_turn(&mut self, name: Option<&Name>, now_ms: u64) -> u64 {
        let now = now_ms.saturating_mul(1000);
        let mut turns = lock(&TURNS);
        let last = name.and_then(|name| turns.get(name).copied()).unwrap_or_default().max(self.last_turn);
        self.last_turn = now.max(last + 1);
        if let Some(name) = name {
            turns.retain(|_, turn| *turn >= now);
            turns.insert(name.clone(), self.last_turn);
        }
        self.last_turn
    }

    fn leads(&self, turn: u64, now_ms: u64) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.turn == turn && leader.end_ms > now_ms)
    }

    fn resign(&mut self, turn: u64) {
        self.leader.take_if(|leader| leader.turn == turn);
    }

    /// Answers, too, whether something was written now.
    fn write(&mut self, lead: Lead, write: &BoardWrite, now_ms: u64) -> (BoardWritten, bool) {
        let number = lead.version.saturating_add(1);
        // Also where the turn is over by now: it was not when this was written.
        if self.version == number && self.by == lead.turn {
            return (BoardWritten::Done, false);
        }
        if !self.leads(lead.turn, now_ms) {
            return (BoardWritten::Superseded, false);
        }
        if !write.whole && self.version != lead.version {
            return (BoardWritten::At(self.version), false);
        }
        (self.version, self.by) = (number, lead.turn);
        if write.whole {
            self.tables.clear();
            self.changed.clear();
            self.floor = number;
        }
        for (table, id) in &write.removed {
            let removed = self.tables.entry(*table).or_default().remove(id);
            if removed.is_some() && *table == Table::Agents {
                self.changed.remove(id);
                self.floor = number;
            }
        }
        for (table, id, text) in &write.put {
            self.tables.entry(*table).or_default().insert(id.clone(), text.clone());
            if *table == Table::Agents {
                self.changed.insert(id.clone(), number);
            }
        }
        if write.summary.is_some() {
            self.summary.clone_from(&write.summary);
        }
        (BoardWritten::Done, true)
    }

    /// A cursor counts texts.
    fn page(&self, table: Table, cursor: u64) -> (Vec<(String, String)>, u64) {
        let Some(texts) = self.tables.get(&table) else { return (Vec::new(), 0) };
        let from = usize::try_from(cursor).unwrap_or(usize::MAX);
        let page: Vec<_> = texts.iter().skip(from).take(PAGE).map(|(id, text)| (id.clone(), text.clone())).collect();
        let behind = from.saturating_add(page.len());
        (page, if behind < texts.len() { behind as u64 } else { 0 })
    }

    fn news(&self, known: u64) -> BoardNews {
        let whole = known == 0 || known < self.floor || known > self.version;
        let agents = self.tables.get(&Table::Agents).into_iter().flatten();
        let news = agents.filter(|(id, _)| whole || self.changed.get(*id).is_some_and(|number| *number > known));
        BoardNews {
            version: self.version,
            whole,
            agents: news.map(|(id, text)| (id.clone(), first_line(text).to_owned())).collect(),
            summary: self.summary.clone(),
        }
    }
}

#[async_trait]
impl Board for MemoryStore {
    async fn lead(&self, who: &str, life: Duration) -> Result<Option<Lead>> {
        self.with(|state, now_ms| state.board.lead(self.name.as_ref(), who, life, now_ms))
    }

    async fn resign(&self, turn: u64) -> Result<()> {
        self.with(|state, _| state.board.resign(turn))
    }

    async fn write_board(&self, lead: Lead, write: &BoardWrite) -> Result<BoardWritten> {
        check(write)?;
        let shared = self.shared()?;
        let now_ms = shared.env.now_ms();
        let (written, changed) = lock(&shared.state).board.write(lead, write, now_ms);
        if changed && write.is_news() {
            shared.announce(&StoreEvent::BoardChanged);
        }
        Ok(written)
    }

    async fn page(&self, table: Table, cursor: u64) -> Result<(Vec<(String, String)>, u64)> {
        self.with(|state, _| state.board.page(table, cursor))
    }

    async fn card(&self, table: Table, id: &str) -> Result<Option<String>> {
        self.with(|state, _| state.board.tables.get(&table).and_then(|texts| texts.get(id)).cloned())
    }

    async fn board_news(&self, known: u64) -> Result<BoardNews> {
        self.with(|state, _| state.board.news(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::env::Env;

    #[tokio::test]
    async fn turns_rise_in_a_store_that_is_made_anew_within_a_millisecond() {
        let env = Env::seeded(1);
        let mut last = 0;
        for _ in 0..3 {
            let store = MemoryStore::named("turns rise", "p", env.clone());
            for who in ["a", "b"] {
                let lead = store.lead(who, Duration::from_secs(60)).await.unwrap().expect("nobody leads");
                assert!(lead.version == 0 && lead.turn > last, "{lead:?} after {last}");
                last = lead.turn;
                let write = BoardWrite { summary: Some("there".into()), ..BoardWrite::default() };
                if who == "b" {
                    assert_eq!(store.write_board(lead, &write).await.unwrap(), BoardWritten::Done);
                }
                store.resign(lead.turn).await.unwrap();
            }
        }
    }
}
