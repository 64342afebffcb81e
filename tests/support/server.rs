//! A private redis-server for one test: on a free loopback port, in a directory of its own, ended with its owner.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{RedisResult, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::wait::until;

/// Ports of servers.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports are taken by others between choosing and binding: so often another one is tried.
const START_TRIES_MAX: u32 = 5;
/// Longest wait for the reply to one command.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(5);

/// The server programs the tests run against: `OSSA_REDIS_SERVER` or `redis-server` on the PATH, and
/// `OSSA_REDIS_SERVER_8` where set.
pub fn programs() -> Vec<String> {
    let first = std::env::var("OSSA_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    std::iter::once(first).chain(std::env::var("OSSA_REDIS_SERVER_8").ok()).collect()
}

/// Nothing outlives the process.
const IN_MEMORY: &[&str] = &["--appendonly", "no"];

/// What was answered outlives the process.
pub const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// What a server is started with, beside its port and directory.
#[derive(Clone, Default)]
pub struct Setup {
    /// Options of the command line.
    pub options: Vec<String>,
    /// Files in its directory, which is the working directory too: options may name them as they are.
    pub files: Vec<(&'static str, String)>,
    /// The one of the files that is its configuration; it may rewrite it.
    pub config_file: Option<&'static str>,
    /// What [`Server::command`] and its like log in with.
    pub password: Option<String>,
}

impl Setup {
    /// Options alone.
    pub fn of(options: &[&str]) -> Self {
        Self { options: options.iter().map(|&option| option.to_owned()).collect(), ..Self::default() }
    }

    /// One more option with its values.
    #[must_use]
    pub fn with(mut self, name: &str, values: &[&str]) -> Self {
        self.options.extend(std::iter::once(&name).chain(values).map(|&text| text.to_owned()));
        self
    }

    /// The port that this option names.
    pub fn port_of(&self, option: &str) -> u16 {
        let at = self.options.iter().position(|text| text == option).expect("the option is set");
        self.options[at + 1].parse().expect("it is a port")
    }
}

/// A running redis-server.
pub struct Server {
    program: String,
    setup: Setup,
    port: u16,
    dir: PathBuf,
    child: Child,
    is_paused: bool,
}

impl Server {
    /// Starts the program and waits until it answers.
    pub async fn start(program: &str) -> Self {
        Self::start_with(program, IN_MEMORY).await
    }

    /// Starts the program with these options.
    pub async fn start_with(program: &str, options: &[&str]) -> Self {
        Self::start_as(program, || Setup::of(options)).await
    }

    /// Starts the program as `setup` says, which is asked again for each try: it may choose ports too.
    pub async fn start_as(program: &str, setup: impl Fn() -> Setup) -> Self {
        for _ in 0..START_TRIES_MAX {
            let (port, setup) = (free_port(), setup());
            let dir = std::env::temp_dir().join(format!("ossa-redis-{}-{port}", std::process::id()));
            std::fs::create_dir_all(&dir).expect("a temporary directory can be made");
            for (name, text) in &setup.files {
                std::fs::write(dir.join(name), text).expect("a temporary file can be written");
            }
            let child = spawn(program, &setup, port, &dir);
            let mut server = Self { program: program.to_owned(), setup, port, dir, child, is_paused: false };
            if server.answers().await {
                return server;
            }
        }
        panic!("{program} did not start on any of {START_TRIES_MAX} free ports");
    }

    /// Loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What it was started with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it, as a crash would: what its options did not save is lost.
    pub async fn kill(&mut self) {
        self.resume().await;
        self.child.kill().await.expect("the server is our child");
    }

    /// Kills it and starts it again on the same port, with what its options saved.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.child = spawn(&self.program, &self.setup, self.port, &self.dir);
        assert!(self.answers().await, "{} did not come back on port {}", self.program, self.port);
    }

    /// Stops it where it is (SIGSTOP): connections stay open, nothing is answered.
    pub async fn pause(&mut self) {
        self.signal("STOP").await;
        self.is_paused = true;
    }

    /// Lets it go on (SIGCONT).
    pub async fn resume(&mut self) {
        if self.is_paused {
            self.signal("CONT").await;
            self.is_paused = false;
        }
    }

    /// Whether it runs and is not paused.
    pub fn is_up(&self) -> bool {
        !self.is_paused && self.child.id().is_some()
    }

    /// Whether it answers within `wait`.
    pub async fn pings(&self, wait: Duration) -> bool {
        let ping = tokio::time::timeout(wait, self.request(&[b"PING"])).await;
        ping.is_ok_and(|reply| reply.is_ok_and(|reply| reply.starts_with(b"+PONG")))
    }

    /// Sends one command on a connection of its own; answers the raw reply (of up to 64 KiB).
    pub async fn command(&self, arguments: &[&[u8]]) -> Vec<u8> {
        let reply = self.request(arguments).await;
        let reply = reply.expect("the server answers");
        assert!(!reply.starts_with(b"-"), "{}", String::from_utf8_lossy(&reply));
        reply
    }

    /// The same, whatever the answer, and read to its end.
    pub async fn ask(&self, arguments: &[&str]) -> RedisResult<Value> {
        ask_at(self.port, self.setup.password.as_deref(), arguments).await
    }

    /// The reply as text; must succeed.
    pub async fn text(&self, arguments: &[&str]) -> String {
        let reply = self.ask(arguments).await.unwrap_or_else(|error| panic!("{arguments:?} on port {}: {error}", self.port));
        redis::from_redis_value(reply).expect("the reply is text")
    }

    async fn request(&self, arguments: &[&[u8]]) -> std::io::Result<Vec<u8>> {
        let mut stream = connect(self.port, self.setup.password.as_deref()).await?;
        stream.write_all(&packed(arguments)).await?;
        let mut reply = vec![0; 64 * 1024];
        let length = tokio::time::timeout(REPLY_WAIT_MAX, stream.read(&mut reply)).await??;
        reply.truncate(length);
        Ok(reply)
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().expect("the server runs").to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await;
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {id} failed");
    }

    /// Whether it answers, with its data in memory, before it ends. Another server on that port does not count.
    async fn answers(&mut self) -> bool {
        let identity = format!("process_id:{}\r\n", self.child.id().unwrap_or_default());
        let mut ended = false;
        until("redis-server answers", async || {
            ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            ended
                || self.request(&[b"INFO", b"server", b"persistence"]).await.is_ok_and(|reply| {
                    let reply = String::from_utf8_lossy(&reply);
                    reply.contains(&identity) && !reply.contains("\nloading:1\r\n") // a Sentinel says nothing of it
                })
        })
        .await;
        !ended
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.start_kill(); // SIGKILL ends a paused one too; tokio reaps it
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(program: &str, setup: &Setup, port: u16, dir: &Path) -> Child {
    Command::new(program)
        .args(setup.config_file.map(|name| dir.join(name)))
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--dir"])
        .arg(dir)
        .args(&setup.options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run '{program}': {error}. These tests need a Redis server: install one (Debian, Ubuntu: \
                 apt-get install redis-server; macOS: brew install redis) or set OSSA_REDIS_SERVER to its path"
            )
        })
}

/// Below the range from which systems give ports to outgoing connections: a server that is started again finds its port
/// still free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side begin at different places.
    let candidates = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(97)));
    let mut ports =
        candidates.take(PORTS.len()).map(|n| PORTS.start + u16::try_from(n % u32::from(PORTS.end - PORTS.start)).expect("small"));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("loopback has a free port")
}

/// Sends one command to what answers on that loopback port, on a connection of its own.
pub async fn ask_at<A: AsRef<[u8]> + ?Sized>(port: u16, password: Option<&str>, arguments: &[&A]) -> RedisResult<Value> {
    let login = password.map(|password| packed(&[b"AUTH", password.as_bytes()]));
    let command = packed(&arguments.iter().map(|argument| (*argument).as_ref()).collect::<Vec<_>>());
    let exchange = move || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(REPLY_WAIT_MAX))?;
        let mut parser = redis::Parser::new();
        let mut send = |command: &[u8]| {
            stream.write_all(command)?;
            parser.parse_value(&mut stream)?.extract_error()
        };
        if let Some(login) = login {
            send(&login)?;
        }
        send(&command)
    };
    tokio::task::spawn_blocking(exchange).await.expect("no panic")
}

async fn connect(port: u16, password: Option<&str>) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    if let Some(password) = password {
        stream.write_all(&packed(&[b"AUTH", password.as_bytes()])).await?;
        let mut reply = [0; 64];
        let length = tokio::time::timeout(REPLY_WAIT_MAX, stream.read(&mut reply)).await??;
        if !reply[..length].starts_with(b"+OK") {
            return Err(std::io::Error::other("the password is wrong"));
        }
    }
    Ok(stream)
}

fn packed(arguments: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        command.extend(format!("${}\r\n", argument.len()).into_bytes());
        command.extend_from_slice(argument);
        command.extend_from_slice(b"\r\n");
    }
    command
}
