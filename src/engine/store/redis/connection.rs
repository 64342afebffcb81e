//! One connection to one server: made with deadlines, who we are said, what its errors mean.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::PubSub;
use redis::{Cmd, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError, Value};

use super::endpoint::{Endpoint, dial};
use super::failure::server_error;
use super::pipe::Pipe;
use super::reply;
use super::tls::Tls;
use crate::engine::error::{Code, Error, Result};
use crate::engine::net::Duplex;

/// How the server's list of clients calls us.
const LIBRARY: &str = "ossa";

/// Oldest server whose stream commands the scripts rely on.
const SERVER_MIN: (u32, u32) = (7, 0);

/// How to connect, wherever to.
#[derive(Clone)]
pub struct Settings {
    /// ACL user.
    pub username: Option<String>,
    /// Its password; never shown.
    pub password: Option<String>,
    /// Database number.
    pub db: u32,
    /// Encryption.
    pub tls: Option<Tls>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time to wait for a reply.
    pub command_timeout: Duration,
}

/// What a server has to be for a connection to be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whatever it is: in a cluster it says itself what it does not serve.
    Any,
    /// A master: whoever named it may have been late.
    Master,
    /// A replica of a cluster's master, to be read from.
    Replica,
}

/// A server, and how to connect to it. Cheap to clone.
#[derive(Clone)]
pub struct Target {
    /// Where it is.
    pub node: Arc<Endpoint>,
    /// How to connect.
    pub settings: Arc<Settings>,
}

impl Target {
    fn info(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_db(i64::from(self.settings.db))
            .set_protocol(ProtocolVersion::RESP2)
            .set_lib_name(LIBRARY, env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.settings.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.settings.password {
            info = info.set_password(password);
        }
        info
    }

    /// Bytes to and from the server.
    pub async fn dial(&self) -> Result<Box<dyn Duplex>> {
        dial(&self.node, self.settings.tls.as_ref()).await.map_err(|why| self.unreachable(&why))
    }

    /// Does `connecting` within the time for it.
    pub async fn in_time<T>(&self, connecting: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| {
            let expected = if self.settings.tls.is_some() { "; does it expect TLS (rediss://, redis.tls)?" } else { "" };
            Err(self.unreachable(&format!("no answer within connectTimeoutMs{expected}")))
        };
        tokio::time::timeout(self.settings.connect_timeout, connecting).await.unwrap_or_else(late)
    }

    /// A new connection whose replies are awaited for `reply_timeout`.
    pub async fn connect(&self, reply_timeout: Duration, role: Role) -> Result<Connection> {
        self.in_time(async {
            let mut connection = self.open(reply_timeout).await?;
            let info = match connection.inner.value(redis::cmd("CLIENT").arg("INFO")).await {
                Ok(info) => reply::text(info)?,
                // Servers before 6.2 do not know it: that they are too old says more.
                Err(error) => return Err(self.too_old(&connection.inner).await.unwrap_or_else(|| self.explain(&error))),
            };
            let field = |name: &str| info.split(' ').find_map(|field| field.strip_prefix(name)).unwrap_or_default();
            connection.id = field("id=").parse().map_err(|_| reply::unexpected("CLIENT INFO"))?;
            field("addr=").clone_into(&mut connection.address);
            match role {
                Role::Any => {}
                Role::Master => self.check_master(&connection.inner).await?,
                Role::Replica => {
                    connection.inner.value(&redis::cmd("READONLY")).await.map_err(|error| self.explain(&error))?;
                }
            }
            Ok(connection)
        })
        .await
    }

    /// A new connection of which nothing is known; the time is up to the caller.
    pub async fn open(&self, reply_timeout: Duration) -> Result<Connection> {
        let (inner, driver) = Pipe::new(self.dial().await?, reply_timeout);
        let driver = Arc::new(Driver(tokio::spawn(driver)));
        self.introduce(&inner).await?;
        Ok(Connection { inner, id: 0, address: String::new(), node: self.node.clone(), driver })
    }

    /// Says who we are, and what of the server is meant.
    async fn introduce(&self, pipe: &Pipe) -> Result<()> {
        let Settings { username, password, db, .. } = &*self.settings;
        let mut commands = Vec::new();
        let mut auth = redis::cmd("AUTH");
        if let Some(password) = password {
            auth.arg(username).arg(password);
            commands.push(auth);
        }
        let mut select = redis::cmd("SELECT");
        if *db != 0 {
            select.arg(*db);
            commands.push(select);
        }
        let needed = commands.len();
        // Servers before 7.2 do not know it, which is no matter.
        for (name, value) in [("LIB-NAME", LIBRARY), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            let mut about = redis::cmd("CLIENT");
            about.arg("SETINFO").arg(name).arg(value);
            commands.push(about);
        }
        let replies = pipe.values(&commands).await.map_err(|error| self.first_reply(&error))?;
        let refused = replies.into_iter().take(needed).enumerate().find_map(|(at, reply)| match reply {
            Value::ServerError(error) => Some((at, error)),
            _ => None,
        });
        match refused {
            None => Ok(()),
            Some((0, _)) if password.is_some() => Err(self.refused()),
            Some((_, error)) => Err(reply::server_error(&error)),
        }
    }

    /// A new connection that hears what is announced.
    pub async fn subscriber(&self) -> Result<PubSub> {
        self.in_time(async { PubSub::new(&self.info(), self.dial().await?).await.map_err(|error| self.first_reply(&error)) }).await
    }

    async fn check_master(&self, connection: &Pipe) -> Result<()> {
        let role = connection.value(&redis::cmd("ROLE")).await.map_err(|error| self.explain(&error))?;
        match reply::list(role)?.into_iter().next().map(reply::text).transpose()?.as_deref() {
            Some("master") => Ok(()),
            _ => Err(self.unreachable("it is no master, as the Sentinels said")),
        }
    }

    async fn too_old(&self, connection: &Pipe) -> Option<Error> {
        let info = connection.value(redis::cmd("INFO").arg("server")).await.ok()?;
        self.unsupported(&reply::text(info).ok()?)
    }

    /// `ERR_UNSUPPORTED_SERVER` where the answer to `INFO server` says so.
    pub fn unsupported(&self, info: &str) -> Option<Error> {
        let version = version(info);
        if parsed(version) >= SERVER_MIN {
            return None;
        }
        let message = format!("the server at {} is version {version}; 7.0 or newer is needed (Redis, or Valkey)", self.node);
        Some(Error::new(Code::UnsupportedServer, message).with("version", version))
    }

    /// `ERR_CONNECTION` with the address.
    pub fn unreachable(&self, why: &str) -> Error {
        let message = format!("Redis at {} cannot be reached: {why}. Is it running there, and reachable from here?", self.node);
        let error = Error::new(Code::Connection, message);
        match &*self.node {
            Endpoint::Tcp { host, port } => error.with("host", host.as_str()).with("port", *port),
            Endpoint::Unix { path } => error.with("socket", path.as_str()),
        }
    }

    /// An error of the client while it says who we are: the other end may expect something else.
    fn first_reply(&self, error: &RedisError) -> Error {
        if self.settings.tls.is_some() && error.is_io_error() {
            // A server says only now whether it takes our certificate.
            return self.unreachable(&format!("{error}; if it asks for a certificate of clients, give redis.tls.cert and redis.tls.key"));
        }
        if self.settings.tls.is_none() && (error.is_connection_dropped() || error.kind() == ErrorKind::Parse || error.is_io_error()) {
            return self.unreachable(
                "it closed the connection, or does not speak the protocol of Redis; if it expects TLS, use rediss:// or redis.tls",
            );
        }
        self.explain(error)
    }

    /// A client error in the words of this library.
    pub fn explain(&self, error: &RedisError) -> Error {
        match error.kind() {
            ErrorKind::AuthenticationFailed => self.refused(),
            _ if matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) => self.refused(),
            ErrorKind::Server(_) | ErrorKind::Extension => server_error(
                error.code().unwrap_or("ERR"),
                &format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default()),
            ),
            ErrorKind::Parse => self.unreachable("what answers there does not speak the protocol of Redis"),
            ErrorKind::UnexpectedReturnType => reply::unexpected("a command"),
            // The kind alone: an address with credentials may stand in the text of the library's error.
            _ if error.is_timeout() => self.unreachable("no reply in time"),
            _ if error.is_connection_refusal() => self.unreachable("connection refused"),
            _ if error.is_connection_dropped() => self.unreachable("the connection was closed"),
            _ => self.unreachable(error.category()),
        }
    }

    fn refused(&self) -> Error {
        Error::new(Code::Auth, format!("Redis at {} refused the credentials; check redis.username and redis.password", self.node))
    }
}

/// `redis_version` of the answer to `INFO server`.
pub fn version(info: &str) -> &str {
    info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown").trim()
}

/// Its first two numbers; 0 where there is none.
pub fn parsed(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// What moves the bytes of a connection; ends with the last clone of it.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection, and its id on the server.
#[derive(Clone)]
pub struct Connection {
    /// Commands go here; clones share it.
    pub inner: Pipe,
    /// `CLIENT ID`: others can unblock it by this.
    pub id: i64,
    /// Our end of it, as the server sees it.
    address: String,
    /// Its other end.
    pub node: Arc<Endpoint>,
    driver: Arc<Driver>,
}

impl Connection {
    /// Has the server close the connection, if it still has it. The number alone would not do: a server that was
    /// started again counts anew, and this may be the number of another by now.
    pub fn kill(&self) -> Cmd {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(self.id).arg("ADDR").arg(&self.address);
        kill
    }

    /// Whether both are one connection.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }
}
