//! The Lua scripts: files of their own, sent by hash, loaded when the server does not know them (again).

use std::sync::LazyLock;

use redis::{Cmd, Script};

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal),+ $(,)?) => {
        $(
            $(#[$doc])*
            pub static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file))));
        )+

        /// Loads every script.
        pub fn load_all() -> redis::Pipeline {
            let mut pipeline = redis::pipe();
            $( pipeline.cmd("SCRIPT").arg("LOAD").arg(include_str!(concat!("lua/", $file))); )+
            pipeline
        }
    };
}

scripts! {
    /// Writes one event that is delayed or has an idempotency key.
    APPEND = "append.lua",
    /// Notes the longest ttl of a partition.
    FACTS = "facts.lua",
    /// Makes a stream with its groups.
    OPEN = "open.lua",
    /// Makes a lost group again.
    RESTORE = "restore.lua",
    /// Notes a holder of a group.
    JOIN = "join.lua",
    /// Drops holders of a group.
    LEAVE = "leave.lua",
    /// Lets held entries wait.
    RETRY = "retry.lua",
    /// Dead-letters held entries.
    BURY = "bury.lua",
    /// Hands out due entries.
    CLAIM = "claim.lua",
    /// Removes an idle consumer.
    REMOVE_CONSUMER = "remove_consumer.lua",
    /// Chooses the process that looks after a bucket.
    KEEP = "keep.lua",
    /// Takes over from dead consumers.
    REAP = "reap.lua",
    /// Moves delayed events.
    MOVE_DELAYED = "move_delayed.lua",
    /// Trims and expires.
    SWEEP = "sweep.lua",
    /// Puts dead letters back.
    REDRIVE = "redrive.lua",
}

/// `EVALSHA` with keys and arguments still to be added.
pub fn call(script: &Script, keys: &[&str]) -> Cmd {
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(script.get_hash()).arg(keys.len());
    for key in keys {
        cmd.arg(*key);
    }
    cmd
}
