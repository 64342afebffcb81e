//! Waiting for replicas and disks: once a batch, behind its transaction on the same connection, as the server counts from
//! what that connection wrote last. <https://redis.io/docs/latest/commands/wait/>,
//! <https://redis.io/docs/latest/commands/waitaof/>.

use redis::{Cmd, Value};

use super::super::{Durability, reply};
use crate::engine::error::{Code, Error};

/// Has the server answer once what was sent before is as safe as asked, or the time for that is over.
pub fn wait(durability: Durability) -> Cmd {
    let timeout = u64::try_from(durability.wait_timeout.as_millis()).unwrap_or(u64::MAX);
    if durability.fsync { wait_aof(1, durability.wait_replicas, timeout) } else { wait_replicas(durability.wait_replicas, timeout) }
}

/// The same command, asking for nothing: answered at once.
pub fn probe(durability: Durability) -> Cmd {
    if durability.fsync { wait_aof(0, 0, 1) } else { wait_replicas(0, 1) }
}

fn wait_replicas(replicas: u32, timeout_ms: u64) -> Cmd {
    let mut cmd = redis::cmd("WAIT");
    cmd.arg(replicas).arg(timeout_ms);
    cmd
}

fn wait_aof(local: u32, replicas: u32, timeout_ms: u64) -> Cmd {
    let mut cmd = redis::cmd("WAITAOF");
    cmd.arg(local).arg(replicas).arg(timeout_ms);
    cmd
}

/// `ERR_NOT_REPLICATED` where the answer to [`wait`] says that less was reached.
pub fn shortfall(durability: Durability, answer: &Value) -> Option<Error> {
    let (on_disk, replicas, said) = match answer {
        Value::Array(parts) => (parts.first().map(reply::count), parts.get(1).map(reply::count), None),
        Value::ServerError(error) => (None, None, Some(format!(": {} {}", error.code(), error.details().unwrap_or_default()))),
        count => (None, Some(reply::count(count)), None),
    };
    let on_disk = on_disk.and_then(Result::ok).unwrap_or(0) > 0;
    let replicas = replicas.and_then(Result::ok).unwrap_or(0);
    if said.is_none() && replicas >= u64::from(durability.wait_replicas) && (on_disk || !durability.fsync) {
        return None;
    }
    let disk = match (durability.fsync, on_disk) {
        (false, _) => "",
        (true, true) => " and the disk of the server",
        (true, false) => ", not the disk of the server",
    };
    let message = format!(
        "the event is stored, but reached only {replicas} of {} replicas{disk} within durability.waitTimeoutMs{}; \
         publish it again with the same idempotencyKey to wait once more",
        durability.wait_replicas,
        said.unwrap_or_default()
    );
    let error = Error::new(Code::NotReplicated, message);
    Some(
        error
            .with("waitReplicas", durability.wait_replicas)
            .with("replicas", replicas)
            .with("fsync", durability.fsync)
            .with("fsynced", on_disk)
            .with("stored", true),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_reached_is_compared_with_what_was_asked() {
        let durability = |wait_replicas, fsync| Durability { wait_replicas, fsync, wait_timeout: Duration::from_secs(1) };
        let aof = |local, replicas| Value::Array(vec![Value::Int(local), Value::Int(replicas)]);
        assert!(shortfall(durability(2, false), &Value::Int(2)).is_none());
        assert!(shortfall(durability(0, true), &aof(1, 0)).is_none());
        assert!(shortfall(durability(1, true), &aof(1, 1)).is_none());
        let error = shortfall(durability(2, false), &Value::Int(1)).unwrap();
        assert_eq!((error.code, error.details["replicas"].as_u64(), error.retryable), (Code::NotReplicated, Some(1), true));
        let error = shortfall(durability(1, true), &aof(0, 1)).unwrap();
        assert!(error.details["fsynced"] == false && error.message.contains("not the disk"), "{error}");
        assert!(shortfall(durability(1, true), &aof(1, 0)).is_some());
    }
}
