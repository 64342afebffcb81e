//! The one error type of the engine: a code that users test, a message that says what to do.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// Result of every engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// Codes of the public contract (`OSSAErrorCode` in `index.d.ts`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name),+ }

        impl Code {
            /// The code as users see it, `ERR_…`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

codes! {
    /// A configuration key is unknown, of the wrong type or impossible.
    InvalidConfig = "ERR_INVALID_CONFIG",
    /// An argument of a call is wrong.
    InvalidArgument = "ERR_INVALID_ARGUMENT",
    /// The bus was not connected or initialised yet.
    NotInitialized = "ERR_NOT_INITIALIZED",
    /// The bus, subscription or registry is closed.
    Closed = "ERR_CLOSED",
    /// The part is switched off, or not in this version.
    Disabled = "ERR_DISABLED",
    /// The caller's `AbortSignal` was aborted.
    Aborted = "ERR_ABORTED",
    /// Redis holds another layout version.
    Layout = "ERR_LAYOUT",
    /// The server is too old or lacks a feature.
    UnsupportedServer = "ERR_UNSUPPORTED_SERVER",
    /// Redis cannot be reached.
    Connection = "ERR_CONNECTION",
    /// Redis refused the credentials or a command.
    Auth = "ERR_AUTH",
    /// Redis did not answer in time.
    Timeout = "ERR_TIMEOUT",
    /// Too many publishes are waiting.
    Backpressure = "ERR_BACKPRESSURE",
    /// The stream reached `maxStreamLength`.
    StreamFull = "ERR_STREAM_FULL",
    /// Too few replicas or no fsync within the wait.
    NotReplicated = "ERR_NOT_REPLICATED",
    /// Redis answered with an error that has no code of its own.
    Redis = "ERR_REDIS",
    /// The data is longer than `limits.maxPayloadBytes`.
    PayloadTooLarge = "ERR_PAYLOAD_TOO_LARGE",
    /// The data has no JSON form.
    NotSerializable = "ERR_NOT_SERIALIZABLE",
    /// A handler ran longer than `consumerTimeout`.
    HandlerTimeout = "ERR_HANDLER_TIMEOUT",
    /// No group acknowledged in time.
    AckTimeout = "ERR_ACK_TIMEOUT",
    /// No reply in time.
    RequestTimeout = "ERR_REQUEST_TIMEOUT",
    /// The other side failed.
    Remote = "ERR_REMOTE",
    /// No such project is registered.
    ProjectUnknown = "ERR_PROJECT_UNKNOWN",
    /// The project is registered with another secret.
    ProjectConflict = "ERR_PROJECT_CONFLICT",
    /// The project may not do this, or this process may not do it for the project.
    NotPermitted = "ERR_NOT_PERMITTED",
    /// The project's `rateLimiting` is used up.
    RateLimited = "ERR_RATE_LIMITED",
    /// The data breaks a contract.
    ContractViolation = "ERR_CONTRACT_VIOLATION",
    /// A contract cannot be read or compiled.
    ContractInvalid = "ERR_CONTRACT_INVALID",
    /// A signature is missing or wrong.
    Signature = "ERR_SIGNATURE",
    /// A message came a second time, or long after it was signed.
    Replay = "ERR_REPLAY",
    /// A service cannot be registered as it is described.
    ServiceInvalid = "ERR_SERVICE_INVALID",
    /// A defect of this library.
    Internal = "ERR_INTERNAL",
}

/// What went wrong, where, and what would be right.
#[derive(Clone, Debug)]
pub struct Error {
    /// Tested by users.
    pub code: Code,
    /// For people: what was wrong, where, what to do. Never holds a secret.
    pub message: String,
    /// The same call may succeed later.
    pub retryable: bool,
    /// Machine-readable particulars (`path`, `argument`, `limit`, …).
    pub details: Details,
}

/// Particulars by name. Most errors have few, and most results are none: it takes the place of a pointer.
#[derive(Clone, Debug, Default)]
pub struct Details(Option<Box<Map<String, Value>>>);

static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl Deref for Details {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Details {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0.get_or_insert_default()
    }
}

impl Error {
    /// An error of `code`; retryable where the code itself means "try again".
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retryable = matches!(
            code,
            Code::Connection | Code::Timeout | Code::Backpressure | Code::StreamFull | Code::NotReplicated | Code::RateLimited
        );
        Self { code, message: message.into(), retryable, details: Details::default() }
    }

    /// Adds one particular.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// `ERR_INVALID_CONFIG` at `path` (`eventBus.redis.port`).
    pub fn config(path: &str, problem: impl fmt::Display) -> Self {
        Self::new(Code::InvalidConfig, format!("{path}: {problem}")).with("path", path)
    }

    /// `ERR_INVALID_ARGUMENT` for the argument or option `name`.
    pub fn argument(name: &str, problem: impl fmt::Display) -> Self {
        Self::new(Code::InvalidArgument, format!("{name}: {problem}")).with("argument", name)
    }

    /// `ERR_CLOSED` of `what`.
    pub fn closed(what: &str) -> Self {
        Self::new(Code::Closed, format!("{what} is closed"))
    }

    /// `ERR_INTERNAL`: a defect of this library.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// `ERR_INTERNAL` of a panic that was caught.
    pub fn panicked(panic: &(dyn std::any::Any + Send)) -> Self {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Self::internal(format!("a defect of this library: {}. Please report it", said.unwrap_or("a panic")))
    }

    /// The form in which an error crosses to JavaScript.
    pub fn to_json(&self) -> Value {
        let mut out = json!({ "code": self.code.as_str(), "message": self.message, "retryable": self.retryable });
        if !self.details.is_empty() {
            out["details"] = Value::Object(Map::clone(&self.details));
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Error {}
