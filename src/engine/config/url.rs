//! `redis://`, `rediss://` and `memory://` URLs. No problem found here repeats any part of the URL but its scheme:
//! where a password is not escaped, every other part may be a piece of it.

use super::bounds::{DB, PORT};
use super::host;
use super::secret::Secret;

/// Port of Redis where none is given.
pub(super) const PORT_DEFAULT: u16 = 6379;
const FORMS: &str = "redis://[user[:password]@]host[:port][/db], rediss://… for TLS, redis+unix://[user[:password]@]/path[?db=n] for a \
                     Unix socket, memory:// or memory://name";
/// Longest path of a Unix socket, bytes: what systems allow, the closing zero included, is 104 or 108.
const SOCKET_PATH_MAX: usize = 107;

/// What a URL says.
#[derive(Debug, PartialEq)]
pub(super) enum Url {
    /// The embedded bus; with a name, one that the process shares.
    Memory(Option<String>),
    /// One Redis server.
    Redis { at: At, username: Option<String>, password: Option<Secret>, db: Option<u32>, tls: bool },
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum At {
    Tcp { host: String, port: u16 },
    Unix { path: String },
}

/// What would be right.
type Problem = String;

fn invalid<T>(problem: impl Into<String>) -> Result<T, Problem> {
    Err(problem.into())
}

/// Reads `text`.
pub(super) fn parse(text: &str) -> Result<Url, Problem> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return invalid(format!("must be a URL: {FORMS}"));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "redis" => server(rest, false),
        "rediss" => server(rest, true),
        "memory" => memory(rest),
        "redis+unix" | "unix" => socket(rest),
        other if other.len() <= 16 && other.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) => {
            invalid(format!("the scheme '{other}://' is not known; it must be {FORMS}"))
        }
        _ => invalid(format!("must be a URL: {FORMS}")),
    }
}

fn memory(name: &str) -> Result<Url, Problem> {
    if name.is_empty() {
        return Ok(Url::Memory(None));
    }
    if name.len() > 256 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return invalid("the name after memory:// must be 1 to 256 of the characters A-Z a-z 0-9 _ . -");
    }
    Ok(Url::Memory(Some(name.to_owned())))
}

fn socket(rest: &str) -> Result<Url, Problem> {
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (credentials, path) = match rest.rsplit_once('@') {
        Some((credentials, path)) => (Some(credentials), path),
        None => (None, rest),
    };
    let path = decoded(path)?.filter(|path| path.starts_with('/')).unwrap_or_default();
    if path.len() < 2 || path.len() > SOCKET_PATH_MAX || path.contains('\0') {
        return invalid(format!("after redis+unix:// comes the absolute path of a socket, of at most {SOCKET_PATH_MAX} bytes"));
    }
    let (username, password) = read_credentials(credentials)?;
    let db = match query.map(|query| query.strip_prefix("db=")) {
        None => None,
        Some(digits) => Some(read_db(digits.unwrap_or_default(), "after the path may come ?db= and the database")?),
    };
    Ok(Url::Redis { at: At::Unix { path }, username, password, db, tls: false })
}

fn read_credentials(text: Option<&str>) -> Result<(Option<String>, Option<Secret>), Problem> {
    let Some((username, password)) = text.map(|text| text.split_once(':').unwrap_or((text, ""))) else { return Ok((None, None)) };
    Ok((decoded(username)?, decoded(password)?.map(Secret::new)))
}

fn read_db(digits: &str, place: &str) -> Result<u32, Problem> {
    let db = number(digits).filter(|db| DB.holds(f64::from(*db)));
    db.ok_or_else(|| format!("{place}, {DB}, and nothing else"))
}

fn server(rest: &str, tls: bool) -> Result<Url, Problem> {
    if rest.contains(['?', '#']) {
        return invalid("has a '?' or '#': settings are keys beside the URL, and in a password they are written %3F and %23");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.contains('@') {
        return invalid("has a '/' before the '@': in a user name or password write it %2F");
    }
    let (credentials, address) = match authority.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, authority),
    };
    let (username, password) = read_credentials(credentials)?;
    let (host, port) = split_port(address)?;
    let db = match path {
        "" => None,
        digits => Some(read_db(digits, "after the host and '/' comes the database")?),
    };
    Ok(Url::Redis { at: At::Tcp { host, port }, username, password, db, tls })
}

fn split_port(address: &str) -> Result<(String, u16), Problem> {
    let (host, port) = match address.strip_prefix('[').map(|v6| v6.split_once(']')) {
        Some(Some((host, ""))) if host::is_ipv6(host) => (host, None),
        Some(Some((host, port))) if host::is_ipv6(host) && port.starts_with(':') => (host, Some(&port[1..])),
        Some(_) => return invalid("an IPv6 address stands between '[' and ']', then ':' and the port"),
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return invalid("has no host");
    }
    if let Err(right) = host::check(host) {
        return invalid(format!("the host must be {right}"));
    }
    let port = match port {
        None => PORT_DEFAULT,
        Some(digits) => number(digits)
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("the port must be {PORT}; an IPv6 address is written in brackets"))?,
    };
    Ok((host.to_owned(), port))
}

fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// `text` with its `%hh` decoded; nothing when it is empty.
fn decoded(text: &str) -> Result<Option<String>, Problem> {
    let wrong = "has a '%' that is not followed by two hex digits of UTF-8; write '%' itself as %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (rest.next().and_then(hex), rest.next().and_then(hex)) else {
            return invalid(wrong);
        };
        bytes.push(high << 4 | low);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(_) => invalid(wrong),
    }
}

/// `path` as it stands in a URL that [`parse`] reads.
pub(super) fn encoded(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F").replace('@', "%40")
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis(host: &str, port: u16) -> Url {
        Url::Redis { at: At::Tcp { host: host.into(), port }, username: None, password: None, db: None, tls: false }
    }

    #[test]
    fn every_form_is_read() {
        for text in ["redis://h", "redis://h:6379", "REDIS://h/", "redis://@h", "redis://:@h"] {
            assert_eq!(parse(text), Ok(redis("h", 6379)), "{text}");
        }
        assert_eq!(parse("redis://[::1]:7000"), Ok(redis("::1", 7000)));
        assert_eq!(parse("redis://[fe80::1%eth0]"), Ok(redis("fe80::1%eth0", 6379)));
        assert_eq!(
            parse("rediss://us%2Fer:p%40%C3%BC:s@h.example:1/15"),
            Ok(Url::Redis {
                at: At::Tcp { host: "h.example".into(), port: 1 },
                username: Some("us/er".into()),
                password: Some(Secret::new("p@ü:s")),
                db: Some(15),
                tls: true
            })
        );
        let socket = |path: &str, db| Url::Redis { at: At::Unix { path: path.into() }, username: None, password: None, db, tls: false };
        assert_eq!(parse("redis+unix:///run/redis%20x.sock"), Ok(socket("/run/redis x.sock", None)));
        assert_eq!(parse("unix:///r?db=3"), Ok(socket("/r", Some(3))));
        let with_user = parse("redis+unix://u:p%40@/r");
        assert!(matches!(with_user, Ok(Url::Redis { username: Some(u), password: Some(p), .. }) if u == "u" && p.expose() == "p@"));
        assert_eq!(parse("memory://"), Ok(Url::Memory(None)));
        assert_eq!(parse("memory://tests-1"), Ok(Url::Memory(Some("tests-1".into()))));
        assert!(matches!(parse("redis://:p@ss@h"), Ok(Url::Redis { password: Some(p), .. }) if p.expose() == "p@ss"));
    }

    #[test]
    fn wrong_ones_are_refused_without_repeating_them() {
        for text in [
            "",
            "hunter2",
            ":hunter2@host:1",
            "redis:hunter2@h",
            "http://:hunter2@h",
            "hunter2-is-a-long-scheme://x",
            "redis://",
            "redis://:hunter2@",
            "redis://:hunter2@h:0",
            "redis://:hunter2@h:65536",
            "redis://:hunter2@h:+1",
            "redis://:hunter2@h:",
            "redis://:hunter2@h/x",
            "redis://:hunter2@h/-1",
            "redis://:hunter2@h/0/1",
            "redis://:hunter2@h/99999999999",
            "redis://:hunter2@h?db=1",
            "redis://:hunter2#@h",
            "redis://:hunter2/3@h",
            "redis://hunter2:hunter2",
            "redis://:hunter2%@h",
            "redis://:hunter2%zz@h",
            "redis://:hunter2%+1@h",
            "redis://:hunter2%ff@h",
            "redis://:hunter2@a b",
            "redis://:hunter2@[::1",
            "redis://:hunter2@[hunter2]:1",
            "redis://:hunter2@[::1]6379",
            "redis://:hunter2@::1",
            "memory://hunter2@x",
            "redis+unix://hunter2",
            "redis+unix://:hunter2@",
            "redis+unix://:hunter2@/",
            "redis+unix://:hunter2@sock",
            "redis+unix://:hunter2@/s?db=x",
            "redis+unix://:hunter2@/s?hunter2",
            "unix://:hunter2%@/s",
            "memory://a/b",
        ] {
            let Err(problem) = parse(text) else { panic!("{text} was accepted") };
            assert!(!problem.contains("hunter2"), "{text}: {problem}");
        }
    }
}
