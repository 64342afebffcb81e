//! What went wrong between us and a server, and what that means for what was sent.

use redis::{ErrorKind, RedisError, ServerError};

use super::connection::Target;
use super::reply;
use crate::engine::error::{Code, Error};

/// An error reply of the server.
pub fn server_error(code: &str, text: &str) -> Error {
    let text = text.trim();
    let error = match code {
        "NOAUTH" | "WRONGPASS" => Error::new(Code::Auth, "Redis refused the credentials; check redis.username and redis.password"),
        "NOPERM" => Error::new(Code::Auth, format!("the Redis user lacks a permission that the bus needs: {text}")),
        "OOM" => {
            let mut error = Error::new(Code::Redis, format!("Redis has no memory left (maxmemory): {text}"));
            error.retryable = true;
            error
        }
        "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "BUSY" | "MISCONF" | "NOREPLICAS"
        | "UNBLOCKED" => {
            let mut error = Error::new(Code::Redis, format!("Redis cannot serve this now: {text}"));
            error.retryable = true;
            error
        }
        _ if is_on_its_way(text) => {
            let mut error = Error::new(Code::Redis, format!("Redis moves what this needs to another server: {text}"));
            error.retryable = true;
            error
        }
        _ => Error::new(Code::Redis, format!("Redis answered: {text}")),
    };
    let error = error.with("reply", code);
    match text.strip_prefix("MOVED ") {
        // Where to: "<slot> <host>:<port>".
        Some(to) => error.with("moved", to),
        None => error,
    }
}

/// Whether a script ended because one of its keys is on its way to another server.
pub fn is_on_its_way(text: &str) -> bool {
    text.contains("non local key")
}

/// Whether the fate of a command that failed so is unknown: the connection is of no more use.
pub fn is_lost(error: &RedisError) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::Client | ErrorKind::InvalidClientConfig | ErrorKind::AuthenticationFailed
    )
}

/// What became of a transaction that failed.
pub enum Failure {
    /// Its fate is unknown.
    Lost(Error),
    /// It was not executed; the server, or the one that takes its place, will execute it later.
    Later(Error),
    /// It was not executed: its keys are with another server, or on their way there. With what MOVED says.
    Elsewhere(Error, Option<String>),
    /// It was not executed.
    Refused(Error),
}

impl Failure {
    /// Reads an error of the client.
    pub fn of(error: RedisError, target: &Target) -> Self {
        if is_lost(&error) {
            return Self::Lost(target.explain(&error));
        }
        let explained = target.explain(&error);
        // EXEC says only that a command was refused: the reason stands at the command.
        match error.into_server_errors().as_deref().and_then(<[_]>::first) {
            Some((_, reason)) => Self::said(reason),
            None => Self::Refused(explained),
        }
    }

    /// What to tell of it.
    pub fn into_error(self) -> Error {
        match self {
            Self::Lost(error) | Self::Later(error) | Self::Elsewhere(error, _) | Self::Refused(error) => error,
        }
    }

    /// Reads an error reply.
    pub fn said(error: &ServerError) -> Self {
        let explained = reply::server_error(error);
        match error.code() {
            "LOADING" | "MASTERDOWN" | "READONLY" | "CLUSTERDOWN" | "BUSY" | "NOREPLICAS" => Self::Later(explained),
            "MOVED" => Self::Elsewhere(explained, error.details().map(ToOwned::to_owned)),
            "ASK" | "TRYAGAIN" => Self::Elsewhere(explained, None),
            _ => Self::Refused(explained),
        }
    }
}
