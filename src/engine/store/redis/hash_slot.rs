//! Hash slots of Redis Cluster: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use crc::{CRC_16_XMODEM, Crc};
use redis::{Arg, Cmd};

/// How many there are.
pub const SLOTS: u16 = 16_384;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The slot of a key: that of the part between the first '{' and the next '}', unless there is nothing.
pub fn of_key(key: &[u8]) -> u16 {
    let tag = memchr::memchr(b'{', key).and_then(|open| {
        let rest = &key[open + 1..];
        memchr::memchr(b'}', rest).filter(|close| *close > 0).map(|close| &rest[..close])
    });
    CRC.checksum(tag.unwrap_or(key)) % SLOTS
}

/// The slot of a command's first key; `None` where it has none. A channel counts as a key: so all who speak on it and
/// listen to it meet at one node.
pub fn of_command(command: &Cmd) -> Option<u16> {
    let mut words = command.args_iter().map(|arg| match arg {
        Arg::Simple(word) => word,
        _ => &[][..],
    });
    let name = words.next()?;
    let key = match name {
        b"TIME" | b"PING" | b"INFO" | b"CLIENT" | b"SCRIPT" | b"ROLE" | b"WAIT" | b"WAITAOF" | b"ASKING" | b"CLUSTER" => return None,
        // Behind the text or hash comes the number of keys.
        b"EVAL" | b"EVALSHA" => {
            if words.nth(1)? == b"0" {
                return None;
            }
            words.next()?
        }
        b"XGROUP" | b"XINFO" | b"MEMORY" => words.nth(1)?,
        _ => words.next()?,
    };
    Some(of_key(key))
}

/// Whether it runs a script.
pub fn is_script(command: &Cmd) -> bool {
    matches!(command.args_iter().next(), Some(Arg::Simple(b"EVAL" | b"EVALSHA")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(words: &[&str]) -> Option<u16> {
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]);
        of_command(&cmd)
    }

    #[test]
    fn keys_have_the_slots_that_redis_gives_them() {
        // Answers of CLUSTER KEYSLOT.
        for (key, slot) in [("123456789", 12739), ("foo", 12182), ("{foo}bar", 12182), ("{}foo", 9500), ("a{", 14311), ("", 0)] {
            assert_eq!(of_key(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn commands_go_where_their_first_key_is() {
        let foo = Some(12182);
        for words in [
            &["GET", "foo"][..],
            &["XGROUP", "CREATE", "foo", "g", "0"],
            &["XINFO", "STREAM", "foo"],
            &["MEMORY", "USAGE", "foo"],
            &["EVALSHA", "hash", "2", "foo", "x", "y"],
            &["EVAL", "return 1", "1", "foo"],
            &["PUBLISH", "foo", "x"],
        ] {
            assert_eq!(slot(words), foo, "{words:?}");
        }
        for words in [&["TIME"][..], &["CLIENT", "UNBLOCK", "1"], &["EVAL", "return 1", "0"], &["INFO", "server"]] {
            assert_eq!(slot(words), None, "{words:?}");
        }
    }
}
