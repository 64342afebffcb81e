//! Why a request has no answer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use hyper_util::client::legacy;

/// Why a request has no answer, in whole sentences without credentials, queries or looked-up addresses.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// What was given is no URL that can be asked.
    NoUrl(String),
    /// A header that cannot be sent as it is.
    Header(String),
    /// The rules forbid the host, or every address it has.
    Forbidden(String),
    /// The name has no address, or nothing answers there.
    Unreachable(String),
    /// No encryption that can be trusted.
    Tls(String),
    /// The time that was allowed.
    TimedOut(Duration),
    /// Most bytes of an answer that were allowed.
    TooLarge(usize),
    /// Where a redirect led that was not followed.
    Redirected(String),
    /// The connection ended amid the answer, or what came is no HTTP.
    Broken(String),
}

impl Failure {
    /// Of a request to `place` whose head or body did not come.
    pub(super) fn of_client(place: &(dyn fmt::Display + Sync), error: &legacy::Error) -> Self {
        let mut cause = error.source();
        while let Some(error) = cause {
            // The connection's own: there was none.
            if let Some(failure) = error.downcast_ref::<Self>() {
                return failure.clone();
            }
            if let Some(error) = error.downcast_ref::<hyper::Error>() {
                return Self::of_connection(place, error);
            }
            cause = error.source();
        }
        Self::Broken(format!("{place} gave no answer"))
    }

    /// Of a connection to `place` that was there.
    pub(super) fn of_connection(place: &(dyn fmt::Display + Sync), error: &hyper::Error) -> Self {
        Self::Broken(if error.is_parse() {
            format!("what {place} answered is not to be read as HTTP/1 ({error}); is the port right, and does it want https?")
        } else {
            format!("{place} ended the connection before its answer was whole")
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUrl(said)
            | Self::Header(said)
            | Self::Forbidden(said)
            | Self::Unreachable(said)
            | Self::Tls(said)
            | Self::Broken(said) => f.write_str(said),
            Self::TimedOut(allowed) => {
                write!(f, "there was no whole answer within {} ms; if it may take longer, raise http.timeoutMs", allowed.as_millis())
            }
            Self::TooLarge(allowed) => {
                write!(f, "the answer is longer than {allowed} bytes; if it may be, raise http.maxResponseBytes")
            }
            Self::Redirected(to) => {
                write!(f, "the answer is a redirect to {to}, which is not followed; give that address, if it is the right one")
            }
        }
    }
}

impl Error for Failure {}
