//! The Lua scripts: files of their own, sent by hash, loaded when the server does not know them (again). Publishing sends
//! the text instead, once a transaction.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// A script as it is sent: without the lines that only explain it.
pub struct Lua {
    source: String,
    hash: String,
}

impl Lua {
    fn new(text: &str) -> Self {
        let source = text.lines().filter(|line| !line.trim_start().starts_with("--")).fold(String::new(), |all, line| all + line + "\n");
        let hash = Script::new(&source).get_hash().to_owned();
        Self { source, hash }
    }

    /// Its text.
    pub fn source(&self) -> &str {
        &self.source
    }
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $($file:literal)+),+ $(,)?) => {
        $(
            $(#[$doc])*
            pub static $name: LazyLock<Lua> = LazyLock::new(|| Lua::new(concat!($(include_str!(concat!("lua/", $file))),+)));
        )+

        /// Loads every script, each by a command.
        pub fn load_all() -> Vec<Cmd> {
            [$( &$name ),+].map(|script: &LazyLock<Lua>| redis::cmd("SCRIPT").arg("LOAD").arg(&script.source).to_owned()).into()
        }
    };
}

scripts! {
    /// Writes one event that is delayed or has an idempotency key.
    APPEND = "append.lua",
    /// Ends the transaction of a batch.
    MARK = "mark.lua",
    /// Notes the longest ttl of a partition.
    FACTS = "facts.lua",
    /// Notes how a type is laid out.
    CREATE_STREAM = "create_stream.lua",
    /// Makes a stream with its groups.
    OPEN = "open.lua",
    /// Makes a lost group again.
    RESTORE = "restore.lua",
    /// Notes a holder of a group.
    JOIN = "join.lua",
    /// Drops holders of a group.
    LEAVE = "leave.lua",
    /// Begins the deletion of a group.
    END_GROUP = "end_group.lua",
    /// Ends it.
    GONE = "gone.lua",
    /// Removes a group from a partition.
    DROP_GROUP = "drop_group.lua",
    /// Counts what a group has not read.
    LAG = "lag.lua",
    /// Counts what was ever added to a stream.
    ADDED = "added.lua",
    /// Lets held entries wait.
    RETRY = "held.lua" "retry.lua",
    /// Dead-letters held entries.
    BURY = "held.lua" "bury.lua",
    /// Hands out due entries.
    CLAIM = "held.lua" "claim.lua",
    /// Makes a consumer the one that reads a partition.
    OWN = "own.lua",
    /// Gives a partition up.
    DISOWN = "disown.lua",
    /// Reads partitions that are the consumer's.
    TAKE = "take.lua",
    /// Reads keys of entries that wait.
    PARKED_KEYS = "parked_keys.lua",
    /// Hands out entries of a partition that is the consumer's.
    CLAIM_PARKED = "held.lua" "claim_parked.lua",
    /// Removes an idle consumer.
    REMOVE_CONSUMER = "remove_consumer.lua",
    /// Renews a lease.
    RENEW = "renew.lua",
    /// Chooses the process that looks after a bucket.
    KEEP = "keep.lua",
    /// Takes over from dead consumers.
    REAP = "reap.lua",
    /// Moves delayed events.
    MOVE_DELAYED = "move_delayed.lua",
    /// Trims and expires.
    SWEEP = "sweep.lua",
    /// Says what groups did with an entry.
    DECISIONS = "decisions.lua",
    /// Puts dead letters back.
    REDRIVE = "redrive.lua",
    /// What is noted of an event.
    NOTED = "noted.lua",
    /// Looks for an event.
    SEARCH = "search.lua",
    /// Where groups stand on entries.
    STANDING = "standing.lua",
    /// Reads the documents of a shelf.
    DOCUMENTS = "documents.lua",
    /// Changes one.
    PUT_DOCUMENT = "put_document.lua",
    /// Takes places of a limit.
    TAKE_PLACES = "take_places.lua",
    /// Notes where messages are found.
    SIGHT = "sight.lua",
    /// Notes who is here.
    ATTEND = "attend.lua",
    /// Reads who is here.
    ATTENDING = "attending.lua",
    /// Changes a listing.
    PUT_LISTING = "note_change.lua" "put_listing.lua",
    /// Puts off the end of listings.
    RENEW_LISTINGS = "renew_listings.lua",
    /// Ends listings, and reads what changed.
    SERVICES_NEWS = "note_change.lua" "services_news.lua",
    /// Plans errands.
    PLAN_ERRANDS = "plan_errands.lua",
    /// Takes errands that are due.
    TAKE_ERRANDS = "take_errands.lua",
    /// Ends one.
    END_ERRAND = "end_errand.lua",
    /// Makes a process the one that leads.
    LEAD = "lead.lua",
    /// Ends that.
    RESIGN = "resign.lua",
    /// Writes what the leader wrote.
    WRITE_BOARD = "write_board.lua",
    /// Reads a piece of a table.
    BOARD_PAGE = "board_page.lua",
    /// Reads what changed for readers.
    BOARD_NEWS = "board_news.lua",
    /// Adds records to a chain.
    APPEND_RECORDS = "append_records.lua",
    /// Reads where chains begin and end.
    CHAINS = "chains.lua",
    /// Removes the oldest records.
    TRIM_RECORDS = "trim_records.lua",
}

/// `EVALSHA` with keys and arguments still to be added.
pub fn call(script: &Lua, keys: &[&str]) -> Cmd {
    command("EVALSHA", &script.hash, keys)
}

/// `EVAL`, which makes the script known at the same time, with arguments still to be added: for where an answer that
/// it is unknown would come too late.
pub fn eval(script: &Lua, keys: &[&str]) -> Cmd {
    command("EVAL", &script.source, keys)
}

fn command(name: &str, script: &str, keys: &[&str]) -> Cmd {
    let mut cmd = redis::cmd(name);
    cmd.arg(script).arg(keys.len());
    for key in keys {
        cmd.arg(*key);
    }
    cmd
}
