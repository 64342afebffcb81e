//! Where the store is. Decided level by level: what the argument says beats every address of the environment, and
//! within one level `url`, `cluster` and `sentinel` win over `host` and `port`.

use serde_json::{Map, Value, json};

use super::bounds::PORT;
use super::env::{REDIS_HOST, REDIS_PORT, REDIS_URL};
use super::found::{Found, Origin};
use super::host;
use super::reader::Section;
use super::secret::Secret;
use super::tls::{Choice, Tls};
use super::url::{self, At, PORT_DEFAULT, Url};
use crate::engine::error::{Error, Result};

const SENTINEL_PORT_DEFAULT: u16 = 26_379;
const NODES_MAX: usize = 1_000;

/// Where the store is.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// In this process: private to a bus, or shared under a name.
    Memory {
        /// Shared by all buses of the process that give this name.
        name: Option<String>,
    },
    /// One Redis server.
    Single {
        /// Name or IP address; IPv6 without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// One Redis server, by its Unix socket.
    Socket {
        /// Absolute path.
        path: String,
    },
    /// Redis Cluster.
    Cluster {
        /// Host and port of nodes to ask for all others.
        nodes: Vec<(String, u16)>,
        /// Whether what need not be current may be read from replicas.
        read_from_replicas: bool,
        /// Whether to wait until a node has loaded its data.
        enable_ready_check: bool,
    },
    /// A server that Redis Sentinel names.
    Sentinel {
        /// Name of the master in the Sentinels' configuration.
        master_name: String,
        /// Host and port of the Sentinels.
        nodes: Vec<(String, u16)>,
        /// ACL user of the Sentinels themselves.
        username: Option<String>,
        /// Its password.
        password: Option<Secret>,
    },
}

impl Address {
    /// Whether the store is in this process.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Memory { .. })
    }

    pub(super) fn write(&self, out: &mut Map<String, Value>) {
        let list = |nodes: &[(String, u16)]| -> Value { nodes.iter().map(|(host, port)| json!({ "host": host, "port": port })).collect() };
        match self {
            Self::Memory { name } => {
                out.insert("url".to_owned(), json!(format!("memory://{}", name.as_deref().unwrap_or_default())));
            }
            Self::Single { host, port } => {
                out.insert("host".to_owned(), json!(host));
                out.insert("port".to_owned(), json!(port));
            }
            Self::Socket { path } => {
                out.insert("url".to_owned(), json!(format!("redis+unix://{}", url::encoded(path))));
            }
            Self::Cluster { nodes, read_from_replicas, enable_ready_check } => {
                let options = json!({ "enableReadyCheck": enable_ready_check, "readFromReplicas": read_from_replicas });
                out.insert("cluster".to_owned(), json!({ "nodes": list(nodes), "options": options }));
            }
            Self::Sentinel { master_name, nodes, username, password } => {
                let mut sentinel = json!({ "masterName": master_name, "nodes": list(nodes) });
                if let Some(username) = username {
                    sentinel["username"] = json!(username);
                }
                if let Some(password) = password {
                    sentinel["password"] = json!(password.expose());
                }
                out.insert("sentinel".to_owned(), sentinel);
            }
        }
    }
}

/// The address, and what came with it.
pub(super) struct Located<'a> {
    pub address: Address,
    /// The URL in force.
    pub url: Option<(Url, Found<'a>)>,
    /// `cluster.options.redisOptions`.
    pub redis_options: Option<Section<'a>>,
}

impl<'a> Located<'a> {
    /// Reads `url`, `cluster`, `sentinel`, `host` and `port` of `section`.
    pub fn read(section: &Section<'a>) -> Result<Self> {
        let given: Vec<&str> = ["url", "cluster", "sentinel"].into_iter().filter(|key| section.value(key).is_some()).collect();
        if let [first, second, ..] = given[..] {
            let problem = format!("contradicts {}: give the one or the other", section.at(first));
            return Err(Error::config(&section.at(second), problem));
        }
        // Read in any case, so that a wrong value is refused even where something else wins.
        let host = section.argument("host").map(|found| read_host(&found)).transpose()?;
        let port = section.argument("port").map(|found| found.whole::<u16>(&PORT)).transpose()?;
        match given.first() {
            Some(&"cluster") => return Self::cluster(section),
            Some(&"sentinel") => return Self::sentinel(section),
            _ => {}
        }
        let from_environment = || match (&host, port) {
            (None, None) => section.variable("url", REDIS_URL),
            _ => None,
        };
        if let Some(found) = section.argument("url").or_else(from_environment) {
            let url = read_url(&found)?;
            let address = match &url {
                Url::Memory(name) => Address::Memory { name: name.clone() },
                Url::Redis { at: At::Tcp { host, port }, .. } => Address::Single { host: host.clone(), port: *port },
                Url::Redis { at: At::Unix { path }, .. } => Address::Socket { path: path.clone() },
            };
            return Ok(Self { address, url: Some((url, found)), redis_options: None });
        }
        let host = match (host, section.variable("host", REDIS_HOST)) {
            (Some(host), _) => host,
            (None, Some(found)) => read_host(&found)?,
            (None, None) => "localhost".to_owned(),
        };
        let port = match (port, section.variable("port", REDIS_PORT)) {
            (Some(port), _) => port,
            (None, Some(found)) => found.whole(&PORT).map_err(|error| service_link(&found, error))?,
            (None, None) => PORT_DEFAULT,
        };
        Ok(Self { address: Address::Single { host, port }, url: None, redis_options: None })
    }

    fn cluster(section: &Section<'a>) -> Result<Self> {
        let cluster = section.child("cluster", &["nodes", "options"])?;
        let options = cluster.child("options", &["enableReadyCheck", "readFromReplicas", "redisOptions"])?;
        let address = Address::Cluster {
            nodes: read_nodes(&cluster, PORT_DEFAULT)?,
            read_from_replicas: options.flag("readFromReplicas", false)?,
            enable_ready_check: options.flag("enableReadyCheck", true)?,
        };
        let redis_options = options.child("redisOptions", &["username", "password", "tls"])?;
        Ok(Self { address, url: None, redis_options: Some(redis_options) })
    }

    fn sentinel(section: &Section<'a>) -> Result<Self> {
        let sentinel = section.child("sentinel", &["masterName", "nodes", "username", "password"])?;
        let right = "the name of the master in the Sentinels' configuration, 1 to 256 characters";
        let named = |name: &str| !name.trim().is_empty() && name.len() <= 256 && !name.contains(char::is_control);
        let Some(name) = sentinel.argument("masterName") else {
            return Err(Error::config(&sentinel.at("masterName"), format!("is missing; it must be {right}")));
        };
        let username = sentinel.argument("username").map(|found| found.text("a string")).transpose()?;
        let password = sentinel.argument("password").map(|found| found.secret("a string")).transpose()?;
        let address = Address::Sentinel {
            master_name: name.checked(right, named)?,
            nodes: read_nodes(&sentinel, SENTINEL_PORT_DEFAULT)?,
            username: username.filter(|text| !text.is_empty()),
            password: password.filter(|secret| !secret.expose().is_empty()),
        };
        Ok(Self { address, url: None, redis_options: None })
    }

    /// Encryption, from the key `tls` (`own`), from `redisOptions.tls` and from the scheme of the URL.
    pub fn merge_tls(&self, section: &Section<'_>, own: Option<Choice>) -> Result<Option<Tls>> {
        let in_options = match &self.redis_options {
            Some(options) => Tls::read(options)?.map(|tls| (tls, options.at("tls"))),
            None => None,
        };
        if let (Some(own), Some((other, path))) = (&own, &in_options)
            && own != other
        {
            return Err(Error::config(path, format!("contradicts {}: give it once", section.at("tls"))));
        }
        let given = own.or(in_options.map(|(tls, _)| tls));
        match (given, &self.url) {
            (Some(Choice::Off), Some((Url::Redis { tls: true, .. }, found))) => {
                Err(found.error(format!("is rediss://, which contradicts {}: false", section.at("tls"))))
            }
            (Some(Choice::On(tls)), _) => Ok(Some(tls)),
            (None, Some((Url::Redis { tls: true, .. }, _))) => Ok(Some(Tls::default())),
            (None | Some(Choice::Off), _) => Ok(None),
        }
    }
}

fn read_url(found: &Found<'_>) -> Result<Url> {
    let text = found.secret("a URL")?;
    let text = if found.is_argument() { text.expose() } else { text.expose().trim() };
    url::parse(text).map_err(|problem| found.error(problem))
}

fn read_host(found: &Found<'_>) -> Result<String> {
    let text = found.text("a host name or an IP address")?;
    host::check(&text).map_err(|right| found.wrong(right))?;
    Ok(text)
}

/// Kubernetes sets `REDIS_PORT=tcp://…` in every pod beside a service named `redis`.
fn service_link(found: &Found<'_>, error: Error) -> Error {
    match &found.origin {
        Origin::Variable { text, .. } if text.trim().starts_with("tcp://") => Error {
            message: format!(
                "{}; Kubernetes sets it for a service named redis: set enableServiceLinks: false, or REDIS_PORT yourself",
                error.message
            ),
            ..error
        },
        _ => error,
    }
}

fn read_nodes(section: &Section<'_>, port_default: u16) -> Result<Vec<(String, u16)>> {
    let right = format!("an array of 1 to {NODES_MAX} objects {{ host, port }}");
    let Some(found) = section.argument("nodes") else {
        return Err(Error::config(&section.at("nodes"), format!("is missing; it must be {right}")));
    };
    let Some(Value::Array(nodes)) = section.value("nodes") else { return Err(found.wrong(right)) };
    if nodes.is_empty() || nodes.len() > NODES_MAX {
        return Err(found.error(format!("must be {right}, not of {}", nodes.len())));
    }
    let read = |(index, node)| {
        let node = section.part(&format!("nodes[{index}]"), Some(node), &["host", "port"])?;
        let Some(host) = node.argument("host") else {
            return Err(Error::config(&node.at("host"), "is missing; it must be a host name or an IP address"));
        };
        Ok((read_host(&host)?, node.whole("port", &PORT, port_default)?))
    };
    nodes.iter().enumerate().map(read).collect()
}
