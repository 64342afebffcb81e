//! Connections to one server: made with deadlines, replaced when they fail, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, ProtocolVersion, RedisError, ServerError, Value};
use tokio::sync::{Mutex, watch};

use super::super::StoreEvent;
use super::scripts;
use super::wire::Wire;
use crate::engine::env::lock;
use crate::engine::error::{Code, Error, Result};

/// Oldest server whose stream commands the scripts rely on.
const SERVER_MIN: (u32, u32) = (7, 0);

/// Where and how to connect.
#[derive(Clone)]
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// ACL user.
    pub username: Option<String>,
    /// Its password; never shown.
    pub password: Option<String>,
    /// Database number.
    pub db: u32,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time to wait for a reply.
    pub command_timeout: Duration,
}

impl Target {
    /// A client that is not connected yet.
    pub fn client(&self) -> Result<redis::Client> {
        let mut settings = redis::RedisConnectionInfo::default()
            .set_db(i64::from(self.db))
            .set_protocol(ProtocolVersion::RESP2)
            .set_lib_name("ossa", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        let info = redis::IntoConnectionInfo::into_connection_info((self.host.as_str(), self.port))
            .map_err(|e| self.explain(&e))?
            .set_redis_settings(settings)
            .set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true));
        redis::Client::open(info).map_err(|e| self.explain(&e))
    }

    /// A new connection whose replies are awaited for `reply_timeout`.
    pub async fn connect(&self, reply_timeout: Duration) -> Result<Connection> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.connect_timeout)).set_response_timeout(Some(reply_timeout));
        let client = self.client()?;
        let made = client.get_multiplexed_async_connection_with_config(&config);
        let mut inner = tokio::time::timeout(self.connect_timeout, made)
            .await
            .map_err(|_| self.unreachable("no answer within connectTimeoutMs"))?
            .map_err(|e| self.explain(&e))?;
        let info = match redis::cmd("CLIENT").arg("INFO").query_async(&mut inner).await {
            Ok(info) => super::reply::text(info)?,
            // Servers before 6.2 do not know it: that they are too old says more.
            Err(error) => return Err(self.too_old(&mut inner).await.unwrap_or_else(|| self.explain(&error))),
        };
        let field = |name: &str| info.split(' ').find_map(|field| field.strip_prefix(name)).unwrap_or_default();
        let id = field("id=").parse().map_err(|_| super::reply::unexpected("CLIENT INFO"))?;
        let address = field("addr=").to_owned();
        Ok(Connection { inner, id, address })
    }

    async fn too_old(&self, connection: &mut MultiplexedConnection) -> Option<Error> {
        let info = redis::cmd("INFO").arg("server").query_async(connection).await.ok()?;
        self.unsupported(&super::reply::text(info).ok()?)
    }

    /// `ERR_UNSUPPORTED_SERVER` where the answer to `INFO server` says so.
    pub fn unsupported(&self, info: &str) -> Option<Error> {
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("unknown").trim();
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= SERVER_MIN {
            return None;
        }
        let message = format!("the server at {}:{} is version {version}; 7.0 or newer is needed (Redis, or Valkey)", self.host, self.port);
        Some(Error::new(Code::UnsupportedServer, message).with("version", version))
    }

    /// `ERR_CONNECTION` with the address.
    pub fn unreachable(&self, why: &str) -> Error {
        Error::new(
            Code::Connection,
            format!("Redis at {}:{} cannot be reached: {why}. Is it running there, and reachable from here?", self.host, self.port),
        )
        .with("host", self.host.as_str())
        .with("port", self.port)
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
            ErrorKind::UnexpectedReturnType => super::reply::unexpected("a command"),
            // The kind alone: an address with credentials may stand in the text of the library's error.
            _ if error.is_timeout() => self.unreachable("no reply in time"),
            _ if error.is_connection_refusal() => self.unreachable("connection refused"),
            _ if error.is_connection_dropped() => self.unreachable("the connection was closed"),
            _ => self.unreachable(error.category()),
        }
    }

    fn refused(&self) -> Error {
        Error::new(
            Code::Auth,
            format!("Redis at {}:{} refused the credentials; check redis.username and redis.password", self.host, self.port),
        )
    }
}

/// An error reply of the server.
pub fn server_error(code: &str, text: &str) -> Error {
    let text = text.trim();
    match code {
        "NOAUTH" | "WRONGPASS" => Error::new(Code::Auth, "Redis refused the credentials; check redis.username and redis.password"),
        "NOPERM" => Error::new(Code::Auth, format!("the Redis user lacks a permission that the bus needs: {text}")),
        "OOM" => {
            let mut error = Error::new(Code::Redis, format!("Redis has no memory left (maxmemory): {text}"));
            error.retryable = true;
            error
        }
        "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "MISCONF" | "NOREPLICAS" | "UNBLOCKED" => {
            let mut error = Error::new(Code::Redis, format!("Redis cannot serve this now: {text}"));
            error.retryable = true;
            error
        }
        _ => Error::new(Code::Redis, format!("Redis answered: {text}")),
    }
    .with("reply", code)
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

    /// Reads an error reply.
    pub fn said(error: &ServerError) -> Self {
        let explained = super::reply::server_error(error);
        match error.code() {
            "LOADING" | "MASTERDOWN" | "READONLY" | "TRYAGAIN" | "CLUSTERDOWN" | "BUSY" | "NOREPLICAS" => Self::Later(explained),
            _ => Self::Refused(explained),
        }
    }
}

/// A connection, and its id on the server.
#[derive(Clone)]
pub struct Connection {
    /// Commands go here; clones share it.
    pub inner: MultiplexedConnection,
    /// `CLIENT ID`: others can unblock it by this.
    pub id: i64,
    /// Our end of it, as the server sees it.
    address: String,
}

impl Connection {
    /// Has the server close the connection, if it still has it. The number alone would not do: a server that was
    /// started again counts anew, and this may be the number of another by now.
    pub fn kill(&self) -> Cmd {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(self.id).arg("ADDR").arg(&self.address);
        kill
    }
}

/// Where news go.
pub type Listener = Arc<dyn Fn(StoreEvent) + Send + Sync>;

/// What the connections of a bus share: the address, counters, and the news of losing and finding the server.
pub struct Link {
    /// Where to.
    pub target: Target,
    connected: AtomicBool,
    ever: AtomicBool,
    /// Commands in flight.
    pub in_flight: AtomicUsize,
    closed: watch::Sender<bool>,
    listener: std::sync::Mutex<Option<Listener>>,
}

impl Link {
    /// Not connected yet.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            connected: AtomicBool::new(false),
            ever: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            closed: watch::Sender::new(false),
            listener: std::sync::Mutex::default(),
        }
    }

    /// Where news go.
    pub fn watch(&self, listener: Listener) {
        *lock(&self.listener) = Some(listener);
    }

    /// Tells the listener.
    pub fn tell(&self, event: StoreEvent) {
        let listener = lock(&self.listener).clone();
        if let Some(listener) = listener {
            listener(event);
        }
    }

    /// The server answers.
    pub fn up(&self) {
        if !self.connected.swap(true, Ordering::AcqRel) && self.ever.swap(true, Ordering::AcqRel) {
            self.tell(StoreEvent::ConnectionRestored);
        }
    }

    /// A connection failed.
    pub fn down(&self, error: &Error) {
        if self.connected.swap(false, Ordering::AcqRel) && !self.is_closed() {
            self.tell(StoreEvent::ConnectionLost(error.message.clone()));
        }
    }

    /// Whether the server answered last.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// No new connections from here on.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether [`Link::close`] was called.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Returns once [`Link::close`] was called.
    pub async fn closed(&self) {
        // The sender is ours: waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Sends commands in one pipeline, counted as in flight.
    pub async fn send(&self, connection: &mut Connection, commands: &[Cmd]) -> Result<Vec<Value>, RedisError> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let _places = self.occupy(commands.len());
        connection.inner.send_packed_commands(&pipeline, 0, commands.len()).await
    }

    /// Counts commands as in flight until dropped.
    pub fn occupy(&self, commands: usize) -> Places<'_> {
        self.in_flight.fetch_add(commands, Ordering::Relaxed);
        Places { link: self, commands }
    }

    /// A new plain connection, with the news told.
    pub async fn connect_wire(&self) -> Result<Wire> {
        self.heard(Wire::connect(&self.target)).await
    }

    /// A new connection of the given reply timeout, with the news told.
    pub async fn connect(&self, reply_timeout: Duration) -> Result<Connection> {
        self.heard(self.target.connect(reply_timeout)).await
    }

    async fn heard<T>(&self, connecting: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is_closed() {
            return Err(Error::closed("the connection to Redis"));
        }
        let made = connecting.await;
        match &made {
            Ok(_) => self.up(),
            Err(error) => self.down(error),
        }
        made
    }
}

/// Commands in flight, until dropped.
pub struct Places<'a> {
    link: &'a Link,
    commands: usize,
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        self.link.in_flight.fetch_sub(self.commands, Ordering::Relaxed);
    }
}

/// One place of the pool: a connection made when first used and replaced when it fails.
pub struct Slot {
    link: Arc<Link>,
    state: Mutex<Option<Connection>>,
}

impl Slot {
    /// An empty place.
    pub fn new(link: Arc<Link>) -> Self {
        Self { link, state: Mutex::new(None) }
    }

    /// The connection, made if there is none.
    pub async fn get(&self) -> Result<Connection> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &*state {
            return Ok(connection.clone());
        }
        let mut connection = self.link.connect(self.link.target.command_timeout).await?;
        load_scripts(&self.link, &mut connection).await?;
        *state = Some(connection.clone());
        Ok(connection)
    }

    /// Forgets the connection `id`; a newer one stays.
    async fn forget(&self, id: i64, error: &Error) {
        let mut state = self.state.lock().await;
        if state.as_ref().is_some_and(|connection| connection.id == id) {
            *state = None;
            self.link.down(error);
        }
    }

    /// Ends the connection.
    pub async fn close(&self) {
        *self.state.lock().await = None;
    }

    /// Sends commands in one pipeline; answers a value a command, errors of single ones in their place. All must be
    /// safe to repeat: they are sent once more when the connection turns out to be dead, or a script is unknown.
    pub async fn run(&self, commands: &[Cmd]) -> Result<Vec<Value>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut tried = false;
        loop {
            let mut connection = self.get().await?;
            match self.link.send(&mut connection, commands).await {
                Ok(mut values) => {
                    let unknown: Vec<usize> = (0..values.len()).filter(|i| is_no_script(&values[*i])).collect();
                    if !unknown.is_empty() {
                        let again = self.with_scripts(&mut connection, unknown.iter().map(|i| &commands[*i])).await?;
                        for (i, reply) in unknown.into_iter().zip(again) {
                            values[i] = reply;
                        }
                    }
                    return Ok(values);
                }
                Err(error) => {
                    let explained = self.link.target.explain(&error);
                    if is_lost(&error) {
                        self.forget(connection.id, &explained).await;
                        // A timeout is not repeated: the caller has waited as long as it was ready to.
                        if !tried && !error.is_timeout() {
                            tried = true;
                            continue;
                        }
                    }
                    return Err(explained);
                }
            }
        }
    }

    /// Sends commands in one pipeline that must not be repeated: when the connection is lost, their fate is unknown.
    pub async fn once(&self, commands: &[Cmd]) -> Result<Vec<Value>> {
        // One that died while nothing was sent is found out, and replaced, by something harmless.
        self.query(redis::cmd("PING")).await?;
        let mut connection = self.get().await?;
        match self.link.send(&mut connection, commands).await {
            Ok(values) => Ok(values),
            Err(error) => {
                let explained = self.link.target.explain(&error);
                if is_lost(&error) {
                    self.forget(connection.id, &explained).await;
                }
                Err(explained)
            }
        }
    }

    /// Sends commands whose scripts the server had forgotten, in one transaction with the scripts: nobody can have it
    /// forget them in between.
    async fn with_scripts(&self, connection: &mut Connection, commands: impl Iterator<Item = &Cmd>) -> Result<Vec<Value>> {
        let mut pipeline = scripts::load_all();
        pipeline.atomic();
        let loaded = pipeline.len();
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let _places = self.link.occupy(pipeline.len());
        let replies = connection.inner.send_packed_commands(&pipeline, pipeline.len() + 1, 1).await;
        match replies.map(|replies| replies.into_iter().next()) {
            Ok(replies) => Ok(super::reply::list(replies.unwrap_or_default())?.into_iter().skip(loaded).collect()),
            Err(error) => Err(match Failure::of(error, &self.link.target) {
                Failure::Lost(error) | Failure::Later(error) | Failure::Refused(error) => error,
            }),
        }
    }

    /// One command; an error reply is an error.
    pub async fn query(&self, command: Cmd) -> Result<Value> {
        match self.run(&[command]).await?.pop() {
            Some(Value::ServerError(error)) => Err(super::reply::server_error(&error)),
            Some(value) => Ok(value),
            None => Err(super::reply::unexpected("a command")),
        }
    }
}

fn is_no_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// Makes the scripts known to the server.
async fn load_scripts(link: &Link, connection: &mut Connection) -> Result<()> {
    let pipeline = scripts::load_all();
    let values = connection.inner.send_packed_commands(&pipeline, 0, pipeline.len()).await.map_err(|e| link.target.explain(&e))?;
    match values.into_iter().find_map(|value| if let Value::ServerError(error) = value { Some(error) } else { None }) {
        Some(error) => Err(super::reply::server_error(&error)),
        None => Ok(()),
    }
}
