//! What the orchestration of agents keeps: tables, written by the one process that leads. All of it is in one bucket.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::super::board::{PAGE, check};
use super::super::{Board, BoardNews, BoardWrite, BoardWritten, Lead, Table};
use super::roster::{call, ms};
use super::{RedisStore, Shared, reply, scripts};
use crate::engine::error::{Code, Error, Result};

/// The news that readers see another state of agents.
pub(super) const ORCHESTRATION: &str = "orchestration";

/// Bits of a cursor that are the server's own; above them stands which server that is.
const CURSOR_BITS: u32 = 40;

fn pairs(value: Value) -> Result<Vec<(String, String)>> {
    let mut items = reply::list(value)?.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(id), Some(text)) = (items.next(), items.next()) {
        pairs.push((reply::text(id)?, reply::text(text)?));
    }
    Ok(pairs)
}

/// The arguments behind the keys.
fn add_write(command: &mut Cmd, lead: Lead, write: &BoardWrite, channel: &str) {
    let summary = write.summary.as_ref().map_or_else(String::new, |summary| format!("={summary}"));
    command.arg(lead.turn).arg(lead.version).arg(u8::from(write.whole)).arg(summary).arg(channel);
    command.arg(if write.is_news() { ORCHESTRATION } else { "" });
    let removed = Table::ALL.map(|table| write.removed.iter().filter(move |(of, _)| *of == table));
    let put = Table::ALL.map(|table| write.put.iter().filter(move |(of, ..)| *of == table));
    for ids in &removed {
        command.arg(ids.clone().count());
    }
    for texts in &put {
        command.arg(texts.clone().count());
    }
    for (_, id) in removed.into_iter().flatten() {
        command.arg(id);
    }
    for (_, id, text) in put.into_iter().flatten() {
        command.arg(id).arg(text);
    }
}

impl Shared {
    async fn lead(&self, who: &str, life: Duration) -> Result<Option<Lead>> {
        let mut lead = call(&scripts::LEAD, &[self.keys.board_leader(), self.keys.board_state()]);
        lead.arg(who).arg(ms(life).max(1));
        match self.control.query(lead).await? {
            Value::Nil => Ok(None),
            found => match reply::list(found)?.as_slice() {
                [turn, version] => Ok(Some(Lead { turn: reply::count(turn)?, version: reply::count(version)? })),
                _ => Err(reply::unexpected("lead.lua")),
            },
        }
    }

    async fn resign(&self, turn: u64) -> Result<()> {
        let mut resign = call(&scripts::RESIGN, &[self.keys.board_leader()]);
        resign.arg(turn);
        reply::int(&self.control.query(resign).await?)?;
        Ok(())
    }

    async fn write_board(&self, lead: Lead, write: &BoardWrite) -> Result<BoardWritten> {
        check(write)?;
        let [agents, tasks, data] = Table::ALL.map(|table| self.keys.board_table(table));
        let keys = [agents, tasks, data, self.keys.board_changed(), self.keys.board_state(), self.keys.board_leader()];
        let mut command = call(&scripts::WRITE_BOARD, &keys);
        add_write(&mut command, lead, write, &self.keys.global("changes"));
        let written = reply::list(self.control.query(command).await?)?;
        match written.as_slice() {
            [Value::Int(0)] => Ok(BoardWritten::Superseded),
            [Value::Int(1)] => Ok(BoardWritten::Done),
            [Value::Int(2), version] => Ok(BoardWritten::At(reply::count(version)?)),
            _ => Err(reply::unexpected("write_board.lua")),
        }
    }

    async fn board_page(&self, table: Table, cursor: u64) -> Result<(Vec<(String, String)>, u64)> {
        let (server, place) = (cursor >> CURSOR_BITS, cursor & ((1 << CURSOR_BITS) - 1));
        let mut read = call(&scripts::BOARD_PAGE, &[self.keys.board_table(table)]);
        // As the script writes it; a first cursor is of no server.
        read.arg(place).arg(format!("{server:06x}")).arg(PAGE);
        let unexpected = || reply::unexpected("board_page.lua");
        let found = self.control.query(read).await?;
        if found == Value::Nil {
            return Err(Error::new(Code::Connection, "another server took the place of the one that was read: begin again"));
        }
        let parts: [Value; 3] = reply::list(found)?.try_into().map_err(|_| unexpected())?;
        let [server, next, items] = parts;
        let server = u64::from_str_radix(&reply::text(server)?, 16).map_err(|_| unexpected())?;
        let next: u64 = reply::text(next)?.parse().map_err(|_| unexpected())?;
        if next >> CURSOR_BITS != 0 {
            return Err(unexpected());
        }
        let next = if next == 0 { 0 } else { (server << CURSOR_BITS) | next };
        Ok((pairs(items)?, next))
    }

    async fn card(&self, table: Table, id: &str) -> Result<Option<String>> {
        let mut read = redis::cmd("HGET");
        read.arg(self.keys.board_table(table)).arg(id);
        match self.control.query(read).await? {
            Value::Nil => Ok(None),
            text => reply::text(text).map(Some),
        }
    }

    async fn board_news(&self, known: u64) -> Result<BoardNews> {
        let keys = [self.keys.board_table(Table::Agents), self.keys.board_changed(), self.keys.board_state()];
        let mut read = call(&scripts::BOARD_NEWS, &keys);
        read.arg(known);
        let parts: [Value; 4] =
            reply::list(self.control.query(read).await?)?.try_into().map_err(|_| reply::unexpected("board_news.lua"))?;
        let [version, whole, summary, agents] = parts;
        Ok(BoardNews {
            version: reply::count(&version)?,
            whole: reply::int(&whole)? == 1,
            agents: pairs(agents)?,
            summary: if summary == Value::Nil { None } else { Some(reply::text(summary)?) },
        })
    }
}

#[async_trait]
impl Board for RedisStore {
    async fn lead(&self, who: &str, life: Duration) -> Result<Option<Lead>> {
        self.shared.lead(who, life).await
    }

    async fn resign(&self, turn: u64) -> Result<()> {
        self.shared.resign(turn).await
    }

    async fn write_board(&self, lead: Lead, write: &BoardWrite) -> Result<BoardWritten> {
        self.shared.write_board(lead, write).await
    }

    async fn page(&self, table: Table, cursor: u64) -> Result<(Vec<(String, String)>, u64)> {
        self.shared.board_page(table, cursor).await
    }

    async fn card(&self, table: Table, id: &str) -> Result<Option<String>> {
        self.shared.card(table, id).await
    }

    async fn board_news(&self, known: u64) -> Result<BoardNews> {
        self.shared.board_news(known).await
    }
}
