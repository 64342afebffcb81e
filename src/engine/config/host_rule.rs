//! A rule of `http.allow` and `http.deny`: which hosts are meant.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::host;

/// Which hosts are meant, and on which port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    /// The hosts.
    pub whom: Whom,
    /// This port alone; every port, if none is given.
    pub port: Option<u16>,
}

/// The hosts that a rule means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The host of this name, in small letters, without a dot at its end.
    Name(String),
    /// All hosts whose names end in a dot and this (`*.example.com`), however many parts are before it.
    Below(String),
    /// An address, or all that begin with the same bits.
    Network(Network),
    /// What is not reached from everywhere: this machine, private networks, links, and the addresses of clouds' metadata.
    Private,
}

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// What would be right.
type Problem = &'static str;

const FORMS: Problem = "a host name ('api.example.com', '*.example.com'), an address ('10.0.0.7', 'fd00::7'), a network ('10.0.0.0/8', \
                        'fd00::/8') or 'private', each perhaps with a port behind it ('api.example.com:8443', '[fd00::7]:8443')";
const PORT: Problem = "a rule whose port, behind the last ':', is a whole number from 1 to 65535";

impl HostRule {
    /// Reads `text`; the error says what would be right.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let (host, port) = split(text)?;
        let whom = match host.split_once('/') {
            Some((address, prefix)) => Whom::Network(network(address, prefix)?),
            None => match host.parse::<IpAddr>() {
                Ok(address) => Whom::Network(Network::one(address).plain()),
                Err(_) => named(host)?,
            },
        };
        Ok(Self { whom, port })
    }

    /// Whether it is about names, not addresses.
    pub fn is_of_names(&self) -> bool {
        matches!(self.whom, Whom::Name(_) | Whom::Below(_))
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match &self.whom {
            Whom::Name(name) => name.clone(),
            Whom::Below(name) => format!("*.{name}"),
            Whom::Network(network) => network.to_string(),
            Whom::Private => "private".to_owned(),
        };
        match self.port {
            None => f.write_str(&host),
            Some(port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Some(port) => write!(f, "{host}:{port}"),
        }
    }
}

impl Network {
    /// This address alone.
    pub const fn one(address: IpAddr) -> Self {
        let prefix_bits = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix_bits }
    }

    /// Those that share their first `prefix_bits` with this one.
    pub const fn v4(address: [u8; 4], prefix_bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3])), prefix_bits }
    }

    /// Those that share their first `prefix_bits` with the one that begins with these 16-bit parts, and is zero else.
    pub const fn v6(address: [u16; 3], prefix_bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(address[0], address[1], address[2], 0, 0, 0, 0, 0)), prefix_bits }
    }

    /// IPv4 addresses as such, where they are given in their IPv6 form (`::ffff:10.0.0.0/104`).
    fn plain(self) -> Self {
        match (self.address, self.prefix_bits.checked_sub(96)) {
            (IpAddr::V6(address), Some(prefix_bits)) => match address.to_ipv4_mapped() {
                Some(address) => Self { address: IpAddr::V4(address), prefix_bits },
                None => self,
            },
            _ => self,
        }
    }

    /// Whether `address` is one of them.
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()) & mask_v4(self.prefix_bits) == 0,
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()) & mask_v6(self.prefix_bits) == 0,
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::one(self.address) { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.prefix_bits) }
    }
}

fn mask_v4(prefix_bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0)
}

fn mask_v6(prefix_bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0)
}

/// Host and port. An IPv6 address has its port behind brackets; without brackets it has none.
fn split(text: &str) -> Result<(&str, Option<u16>), Problem> {
    if text.contains("://") {
        return Err("a rule without a scheme: a host alone, perhaps with a port ('api.example.com:8443')");
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(FORMS)?;
        if !host.contains(':') {
            return Err("a rule with brackets around an IPv6 address or network, and nothing else");
        }
        return match rest.strip_prefix(':') {
            Some(digits) => Ok((host, Some(port(digits)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(PORT),
        };
    }
    match text.split_once(':') {
        Some((host, digits)) if !digits.contains(':') => Ok((host, Some(port(digits)?))),
        _ => Ok((text, None)),
    }
}

fn port(digits: &str) -> Result<u16, Problem> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port > 0).ok_or(PORT)
}

fn network(address: &str, prefix: &str) -> Result<Network, Problem> {
    const RIGHT: Problem = "a network as an address and the number of bits that count ('10.0.0.0/8', 'fd00::/8'), without a path";
    let address: IpAddr = address.parse().map_err(|_| RIGHT)?;
    let bits_max = Network::one(address).prefix_bits;
    let plain = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let prefix_bits = prefix.parse().ok().filter(|bits| plain && *bits <= bits_max).ok_or(RIGHT)?;
    let network = Network { address, prefix_bits };
    let rest = match address {
        IpAddr::V4(address) => u128::from(address.to_bits() & !mask_v4(prefix_bits)),
        IpAddr::V6(address) => address.to_bits() & !mask_v6(prefix_bits),
    };
    if rest != 0 {
        return Err("a network whose address has only zeros behind the bits that count ('10.0.0.0/8', not '10.0.0.7/8')");
    }
    Ok(network.plain())
}

fn named(host: &str) -> Result<Whom, Problem> {
    if host.contains(':') {
        return Err(FORMS);
    }
    if !host.is_ascii() {
        return Err("a host name in its ASCII form (xn--…)");
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let (name, below) = match name.strip_prefix("*.") {
        Some(rest) => (rest.to_owned(), true),
        None => (name, false),
    };
    if name.contains('*') {
        return Err("a host name with '*' only as its first part, for one or more parts ('*.example.com'); for all hosts, leave allow out");
    }
    let part_is_well = |part: &str| !part.is_empty() && part.len() <= 63;
    if host::check(&name).is_err() || !name.split('.').all(part_is_well) {
        return Err(FORMS);
    }
    // What a URL with such a host means is an address; a name of this form is never looked up.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err("an IPv4 address as four numbers from 0 to 255, without zeros before them ('127.0.0.1')");
    }
    Ok(match (below, name == "private") {
        (true, _) => Whom::Below(name),
        (false, true) => Whom::Private,
        (false, false) => Whom::Name(name),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_read_and_written_in_its_shortest_way() {
        for (text, written) in [
            ("api.example.com", "api.example.com"),
            ("API.Example.com.:8443", "api.example.com:8443"),
            ("*.example.com", "*.example.com"),
            ("*.private:1", "*.private:1"),
            ("my_service", "my_service"),
            ("private", "private"),
            ("Private:65535", "private:65535"),
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7/32", "10.0.0.7"),
            ("10.0.0.7:80", "10.0.0.7:80"),
            ("10.0.0.0/8:80", "10.0.0.0/8:80"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("FD00::/8", "fd00::/8"),
            ("[fd00::/8]:443", "[fd00::/8]:443"),
            ("[fd00:0:0::7]", "fd00::7"),
            ("::1", "::1"),
            ("[::1]:8080", "[::1]:8080"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("[::ffff:a00:0/104]:80", "10.0.0.0/8:80"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::fffe:0:0/95", "::fffe:0:0/95"),
        ] {
            let rule = HostRule::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
            assert_eq!(rule.to_string(), written, "{text}");
            assert_eq!(HostRule::parse(written), Ok(rule), "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_and_told_what_would_be_one() {
        let long = format!("{}.example", "x".repeat(64));
        for (text, says) in [
            ("", "host name"),
            (" ", "host name"),
            ("a b", "host name"),
            ("a..b", "host name"),
            (".a", "host name"),
            ("a\n", "host name"),
            ("u:p@h", "port"),
            ("u@h", "host name"),
            (&long, "host name"),
            ("http://h", "scheme"),
            ("h/path", "path"),
            ("10.0.0.0/33", "network"),
            ("10.0.0.0/", "network"),
            ("10.0.0.0/+8", "network"),
            ("10.0.0.0/8/8", "network"),
            ("fd00::/129", "network"),
            ("10.0.0.7/8", "zeros"),
            ("fd00::1/8", "zeros"),
            ("*", "leave allow out"),
            ("*.*.example.com", "first part"),
            ("api.*.com", "first part"),
            ("a*.example.com", "first part"),
            ("h:0", "65535"),
            ("h:65536", "65535"),
            ("h:+1", "65535"),
            ("h:", "65535"),
            ("[::1]:", "65535"),
            ("[::1]80", "65535"),
            ("[::1", "host name"),
            ("[h]:1", "brackets"),
            ("[10.0.0.1]:1", "brackets"),
            ("fe80::1%eth0", "host name"),
            ("::1::", "host name"),
            ("2130706433", "four numbers"),
            ("0x7f.1", "four numbers"),
            ("127.1", "four numbers"),
            ("127.0.0.0x1", "four numbers"),
            ("10.0.0.256", "four numbers"),
            ("010.0.0.1", "four numbers"),
            ("bücher.example", "xn--"),
        ] {
            let problem = HostRule::parse(text).expect_err(text);
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }

    #[test]
    fn a_network_holds_what_begins_with_its_bits() {
        let holds = |network: &str, address: &str| match HostRule::parse(network).unwrap().whom {
            Whom::Network(network) => network.holds(address.parse().unwrap()),
            other => panic!("{other:?}"),
        };
        for (network, within, outside) in [
            ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
            ("10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("fc00::/7", "fdff::1", "fe00::"),
            ("::1", "::1", "::2"),
            ("::/0", "ffff::", "1.2.3.4"),
        ] {
            assert!(holds(network, within) && !holds(network, outside), "{network}");
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_the_reading_and_what_is_read_can_be_written_and_read_again(
            text in "\\[?(private|[*a-z0-9:./_-]{0,20}|[0-9.]{3,15}(/[0-9]{1,3})?|[0-9a-f:]{2,20}(/[0-9]{1,3})?|\\PC{0,8})\\]?(:[0-9]{0,6})?"
        ) {
            if let Ok(rule) = HostRule::parse(&text) {
                prop_assert_eq!(HostRule::parse(&rule.to_string()), Ok(rule), "{}", text);
            }
        }
    }
}
