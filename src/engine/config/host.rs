//! What a host may be.

use std::net::Ipv6Addr;

/// Why `host` is no host: what it must be.
pub(super) fn check(host: &str) -> Result<(), &'static str> {
    let named = !host.is_empty() && host.len() <= 253 && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if named || is_ipv6(host) {
        return Ok(());
    }
    Err(if host.contains("://") {
        "a host alone; a URL goes into redis.url"
    } else if host.contains('/') {
        "a host name or an IP address; Unix sockets are not in this version"
    } else if host.contains(':') {
        "a host name or an IP address, without brackets, and the port in a key of its own"
    } else if host.is_ascii() {
        "a host name of 1 to 253 letters, digits, '-', '_' and '.', or an IP address"
    } else {
        "a host name in its ASCII form (xn--…) or an IP address"
    })
}

/// Whether this is an IPv6 address, with a zone (`%eth0`) or without.
pub(super) fn is_ipv6(host: &str) -> bool {
    let (address, zone) = host.split_once('%').unwrap_or((host, "-"));
    !zone.is_empty()
        && zone.len() <= 32
        && zone.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && address.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_pass_and_the_rest_is_told_what_is_wrong() {
        for host in ["localhost", "redis-1.cluster.local", "10.0.0.1", "::1", "fe80::1%eth0", "my_redis"] {
            assert_eq!(check(host), Ok(()), "{host}");
        }
        for (host, says) in [
            ("", "letters"),
            ("a b", "letters"),
            ("a\n", "letters"),
            ("[::1]", "brackets"),
            ("h:6379", "port"),
            ("redis://h", "redis.url"),
            ("/tmp/redis.sock", "Unix"),
            ("bücher.example", "xn--"),
        ] {
            assert!(check(host).unwrap_err().contains(says), "{host}");
        }
        assert!(check(&"x".repeat(254)).is_err());
    }
}
