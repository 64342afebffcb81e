//! What the orchestration of agents keeps in the store. One process at a time *leads*: it alone writes, and every write says under which
//! turn, so that one that was replaced changes nothing. All others read. What the texts say is their writer's matter.

use std::time::Duration;

use async_trait::async_trait;

use crate::engine::error::{Error, Result};

/// Most texts that one write puts, together with those that it removes: a command to the server takes no more.
pub const WRITE_MAX: usize = 500_000;

/// About how many texts a piece of a table has.
pub(super) const PAGE: usize = 500;

/// Refuses what no store takes.
pub(super) fn check(write: &BoardWrite) -> Result<()> {
    let count = write.put.len().saturating_add(write.removed.len());
    if count > WRITE_MAX {
        return Err(Error::argument("write", format!("{count} texts; one write takes {WRITE_MAX}")));
    }
    Ok(())
}

/// What readers get of an agent.
pub(super) fn first_line(text: &str) -> &str {
    text.split_once('\n').map_or(text, |(line, _)| line)
}

/// A table: texts by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Agents. Readers get the first line of a text; what is behind it is for who leads.
    Agents,
    /// Tasks.
    Tasks,
    /// What tasks carry along, apart because it never changes.
    Data,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Agents, Self::Tasks, Self::Data];

    /// Last part of its key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Tasks => "tasks",
            Self::Data => "data",
        }
    }
}

/// That this process leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Names the time for which it does: it never comes again, not even after the store was emptied.
    pub turn: u64,
    /// Number of the last write; 0: nothing was ever written, or the store was emptied.
    pub version: u64,
}

/// One write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardWrite {
    /// Everything in the tables that is not in `put` goes: what is put is all there is.
    pub whole: bool,
    /// Table, id, text.
    pub put: Vec<(Table, String, String)>,
    /// What goes, before anything is put; what is not there is gone.
    pub removed: Vec<(Table, String)>,
    /// Replaces the summary, which else stays.
    pub summary: Option<String>,
}

impl BoardWrite {
    /// Whether readers see a difference.
    pub(super) fn is_news(&self) -> bool {
        self.whole
            || self.summary.is_some()
            || self.put.iter().any(|(table, ..)| *table == Table::Agents)
            || self.removed.iter().any(|(table, _)| *table == Table::Agents)
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardWritten {
    /// It is there. The number of the next write follows.
    Done,
    /// The store is at another number, and nothing changed: it lost writes (less), or was written to by somebody else.
    At(u64),
    /// This process does not lead any more, or the store was emptied; nothing changed.
    Superseded,
}

/// What readers did not know yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardNews {
    /// Number of the last write. A store that was emptied or lost writes has a lower one than before.
    pub version: u64,
    /// `agents` are all there are; else those that changed.
    pub whole: bool,
    /// Ids, and the first line of their texts.
    pub agents: Vec<(String, String)>,
    /// The last summary, where there is one.
    pub summary: Option<String>,
}

/// What processes share about agents and tasks.
#[async_trait]
pub trait Board: Send + Sync {
    /// Leads for `life` from now if nobody else does, or goes on leading: then the turn is the same. `who` names the caller among all.
    /// Turns rise.
    async fn lead(&self, who: &str, life: Duration) -> Result<Option<Lead>>;

    /// Leads no more: the next one need not wait. Nothing changes where `turn` is over.
    async fn resign(&self, turn: u64) -> Result<()>;

    /// Writes all, or nothing, as number `lead.version` + 1, if `lead.turn` leads and `lead.version` was the last; at most [`WRITE_MAX`]
    /// texts. With `whole` in the write it does not matter which was the last; a number above all that readers may know has them read
    /// all. To be repeated as it is after a lost reply: what is there by this turn under this number is done, also when the turn is over
    /// by then. Whoever gives it up instead has to begin a turn anew, as it does not know what is there under the number. Announced by [`super::StoreEvent::BoardChanged`] to every open user of the store, this one included, where readers see a
    /// difference.
    async fn write_board(&self, lead: Lead, write: &BoardWrite) -> Result<BoardWritten>;

    /// A piece of a table, from `cursor` on, which is 0 at first; and the next cursor, 0 where there is no more. While nobody writes,
    /// each text comes at least once. A cursor is for the server that gave it: where another took its place the answer is
    /// `ERR_CONNECTION`, and the table is to be read from 0 on.
    async fn page(&self, table: Table, cursor: u64) -> Result<(Vec<(String, String)>, u64)>;

    /// One text, whole.
    async fn card(&self, table: Table, id: &str) -> Result<Option<String>>;

    /// What changed since the write `known`; all, where `known` is 0, or agents were removed since, or the store has not got that far.
    /// Writes that a server lost may have left their numbers to others: after [`super::StoreEvent::ConnectionRestored`] nothing counts
    /// as known.
    async fn board_news(&self, known: u64) -> Result<BoardNews>;
}
