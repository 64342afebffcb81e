//! Who may be asked: the rules of all policies at once.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Host;

use super::failure::Failure;
use super::target::Place;
use crate::engine::config::{HostRule, HttpConfig, Network, Whom};

/// What is not reached from everywhere, or is this machine (<https://www.iana.org/assignments/iana-ipv4-special-registry>).
const PRIVATE: [Network; 18] = [
    Network::v4([0, 0, 0, 0], 8),      // "this network"; 0.0.0.0 is this machine
    Network::v4([10, 0, 0, 0], 8),     // RFC 1918
    Network::v4([100, 64, 0, 0], 10),  // RFC 6598: carriers' translation, and a cloud's metadata
    Network::v4([127, 0, 0, 0], 8),    // this machine
    Network::v4([169, 254, 0, 0], 16), // the link, and most clouds' metadata
    Network::v4([172, 16, 0, 0], 12),  // RFC 1918
    Network::v4([192, 0, 0, 0], 24),   // RFC 6890: protocol assignments, and a cloud's metadata
    Network::v4([192, 168, 0, 0], 16), // RFC 1918
    Network::v4([198, 18, 0, 0], 15),  // RFC 2544: benchmarks
    Network::v4([224, 0, 0, 0], 4),    // multicast
    Network::v4([240, 0, 0, 0], 4),    // reserved, and broadcast
    Network::v6([0, 0, 0], 128),       // unspecified: this machine
    Network::one(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    Network::v6([0x64, 0xff9b, 1], 48), // RFC 8215: a network's own translation to IPv4
    Network::v6([0xfc00, 0, 0], 7),     // RFC 4193
    Network::v6([0xfe80, 0, 0], 10),    // the link
    Network::v6([0xfec0, 0, 0], 10),    // sites, as they once were
    Network::v6([0xff00, 0, 0], 8),     // multicast
];
/// RFC 6052: an IPv4 address in its last 32 bits, which a gateway translates to.
const TRANSLATED: Network = Network::v6([0x64, 0xff9b, 0], 96);
/// RFC 4291: IPv4 addresses in their last 32 bits, as they once were.
const COMPATIBLE: Network = Network::v6([0, 0, 0], 96);
/// RFC 3056: an IPv4 address in the 32 bits behind these.
const SIX_TO_FOUR: Network = Network::v6([0x2002, 0, 0], 16);

/// The rules of all policies, which hold at once.
pub struct Reach(Vec<Policy>);

struct Policy {
    allow: Option<Vec<HostRule>>,
    deny: Vec<HostRule>,
}

impl Reach {
    /// The rules of `policies`.
    pub fn new(policies: &[&HttpConfig]) -> Self {
        Self(policies.iter().map(|policy| Policy { allow: policy.allow.clone(), deny: policy.deny.clone() }).collect())
    }

    /// What can be said of a place before its name is looked up.
    pub fn host(&self, place: &Place) -> Result<(), Failure> {
        match &place.host {
            Host::Domain(_) => self.0.iter().try_for_each(|policy| policy.name(place)),
            Host::Ipv4(address) => self.address(place, IpAddr::V4(*address)),
            Host::Ipv6(address) => self.address(place, IpAddr::V6(*address)),
        }
    }

    /// Whether the place may be asked at this address of its name.
    pub fn address(&self, place: &Place, address: IpAddr) -> Result<(), Failure> {
        self.0.iter().try_for_each(|policy| policy.address(place, address))
    }
}

impl Policy {
    /// By its name; what is allowed by address is not known yet.
    fn name(&self, place: &Place) -> Result<(), Failure> {
        if let Some(rule) = self.deny.iter().find(|rule| holds_name(rule, place)) {
            return Err(Failure::Forbidden(format!("{place} may not be asked: http.deny forbids it (the rule '{rule}')")));
        }
        let open = self.allow.as_ref().is_none_or(|rules| rules.iter().any(|rule| !rule.is_of_names() || holds_name(rule, place)));
        if open { Ok(()) } else { Err(not_allowed(place, "")) }
    }

    fn address(&self, place: &Place, address: IpAddr) -> Result<(), Failure> {
        // An address that was looked up is not told: whoever gave the endpoint may not be meant to know it.
        let at = if matches!(place.host, Host::Domain(_)) { " at the address that its name has" } else { "" };
        if let Some(rule) = self.deny.iter().find(|rule| holds_address(rule, place.port, address)) {
            return Err(Failure::Forbidden(format!("{place} may not be asked{at}: http.deny forbids it (the rule '{rule}')")));
        }
        let open = self
            .allow
            .as_ref()
            .is_none_or(|rules| rules.iter().any(|rule| holds_name(rule, place) || holds_address(rule, place.port, address)));
        if open { Ok(()) } else { Err(not_allowed(place, at)) }
    }
}

fn not_allowed(place: &(dyn Display + Sync), at: &str) -> Failure {
    Failure::Forbidden(format!("{place} may not be asked{at}: no rule of http.allow allows it; add one there, if it may be"))
}

fn holds_name(rule: &HostRule, place: &Place) -> bool {
    let Host::Domain(name) = &place.host else { return false };
    let name = name.trim_end_matches('.');
    let named = match &rule.whom {
        Whom::Name(own) => name.eq_ignore_ascii_case(own),
        Whom::Below(own) => name.len().checked_sub(own.len() + 1).filter(|before| *before > 0).is_some_and(|before| {
            // A name is ASCII here, so it can be cut anywhere.
            name.get(before..).is_some_and(|end| end.starts_with('.') && end[1..].eq_ignore_ascii_case(own))
        }),
        Whom::Network(_) | Whom::Private => false,
    };
    named && rule.port.is_none_or(|port| port == place.port)
}

fn holds_address(rule: &HostRule, port: u16, address: IpAddr) -> bool {
    let held = match &rule.whom {
        Whom::Network(network) => faces(address).into_iter().flatten().any(|face| network.holds(face)),
        Whom::Private => is_private(address),
        Whom::Name(_) | Whom::Below(_) => false,
    };
    held && rule.port.is_none_or(|own| own == port)
}

/// The address, and the IPv4 address that is reached by it where it is an IPv6 form of one.
fn faces(address: IpAddr) -> [Option<IpAddr>; 2] {
    let IpAddr::V6(v6) = address else { return [Some(address), None] };
    let last = || {
        let [.., a, b, c, d] = v6.octets();
        Ipv4Addr::new(a, b, c, d)
    };
    let inner = v6.to_ipv4_mapped().or_else(|| (TRANSLATED.holds(address) || COMPATIBLE.holds(address)).then(last));
    [Some(address), inner.map(IpAddr::V4)]
}

fn is_private(address: IpAddr) -> bool {
    let tunnelled = match address {
        IpAddr::V6(v6) if SIX_TO_FOUR.holds(address) => {
            let [_, _, a, b, c, d, ..] = v6.octets();
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        _ => None,
    };
    faces(address).into_iter().chain([tunnelled]).flatten().any(|face| PRIVATE.iter().any(|network| network.holds(face)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::http::target::Target;

    fn rules(texts: &[&str]) -> Vec<HostRule> {
        texts.iter().map(|text| HostRule::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))).collect()
    }

    fn policy(allow: Option<&[&str]>, deny: &[&str]) -> HttpConfig {
        HttpConfig { allow: allow.map(rules), deny: rules(deny), ..HttpConfig::default() }
    }

    fn place(url: &str) -> Place {
        Target::parse(url).unwrap_or_else(|failure| panic!("{url}: {failure}")).place
    }

    /// Whether the URL may be asked where its name has this address.
    fn may(policies: &[HttpConfig], url: &str, address: Option<&str>) -> bool {
        let reach = Reach::new(&policies.iter().collect::<Vec<_>>());
        let place = place(url);
        reach.host(&place).and_then(|()| address.map_or(Ok(()), |address| reach.address(&place, address.parse().unwrap()))).is_ok()
    }

    #[test]
    fn without_rules_everything_may_be_asked() {
        for url in ["http://localhost", "http://169.254.169.254/latest", "https://example.com", "http://[::1]:6379"] {
            assert!(may(&[], url, None) && may(&[HttpConfig::default()], url, None), "{url}");
        }
    }

    #[test]
    fn private_is_this_machine_its_networks_and_metadata_in_every_form() {
        for address in [
            "127.0.0.1",
            "127.255.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.192",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "2002:a00:1::1",
        ] {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "169.253.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "203.0.113.7",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2001:db8::1",
        ] {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_address_in_a_url_is_held_to_the_rules_however_it_is_written() {
        for deny in ["private", "127.0.0.0/8", "127.0.0.1", "private:80"] {
            for url in [
                "http://127.0.0.1",
                "http://2130706433",
                "http://0x7f.1/",
                "http://0177.0.0.1",
                "http://127.1",
                "http://127.0.0.1.",
                "http://[::ffff:127.0.0.1]",
                "http://[::ffff:7f00:1]",
                "http://[64:ff9b::7f00:1]",
                "http://①②⑦.0.0.1",
                "http://x@127.0.0.1:80",
            ] {
                assert!(!may(&[policy(None, &[deny])], url, None), "{deny}: {url}");
            }
            assert!(may(&[policy(None, &[deny])], "http://203.0.113.7", None), "{deny}");
        }
    }

    #[test]
    fn names_are_compared_without_case_and_the_dot_at_the_end() {
        let one = [policy(Some(&["Api.example.com"]), &[])];
        let below = [policy(Some(&["*.example.com"]), &[])];
        for url in ["http://api.example.com", "http://API.EXAMPLE.COM.", "https://api.example.com:8443"] {
            assert!(may(&one, url, Some("203.0.113.7")) && may(&below, url, Some("10.0.0.1")), "{url}");
        }
        assert!(may(&below, "http://a.b.example.com", None));
        for url in
            ["http://example.com", "http://notexample.com", "http://example.com.evil.test", "http://x-example.com", "http://203.0.113.7"]
        {
            assert!(!may(&one, url, Some("203.0.113.7")) && !may(&below, url, Some("203.0.113.7")), "{url}");
        }
    }

    #[test]
    fn a_port_in_a_rule_counts() {
        let allow = [policy(Some(&["h:8443", "10.0.0.0/8:80"]), &[])];
        assert!(may(&allow, "https://h:8443", Some("203.0.113.7")) && !may(&allow, "https://h", Some("203.0.113.7")));
        assert!(may(&allow, "http://h", Some("10.0.0.1")) && !may(&allow, "http://h:81", Some("10.0.0.1")));
        let deny = [policy(None, &["h:6379", "private:6379"])];
        assert!(!may(&deny, "http://h:6379", None) && may(&deny, "http://h", None));
        assert!(!may(&deny, "http://other:6379", Some("10.0.0.1")) && may(&deny, "http://other", Some("10.0.0.1")));
    }

    #[test]
    fn deny_wins_and_what_a_name_resolves_to_counts() {
        let both = [policy(Some(&["*.example.com", "203.0.113.0/24"]), &["bad.example.com", "private"])];
        for (url, address, allowed) in [
            ("http://good.example.com", "198.51.100.1", true),
            ("http://good.example.com", "127.0.0.1", false),
            ("http://bad.example.com", "198.51.100.1", false),
            ("http://elsewhere.test", "203.0.113.9", true),
            ("http://elsewhere.test", "::ffff:203.0.113.9", true),
            ("http://elsewhere.test", "198.51.100.1", false),
            ("http://bad.example.com", "203.0.113.9", false),
        ] {
            assert_eq!(may(&both, url, Some(address)), allowed, "{url} at {address}");
        }
        assert!(may(&[policy(Some(&["private"]), &[])], "http://db", Some("10.0.0.1")));
        assert!(!may(&[policy(Some(&["private"]), &[])], "http://db", Some("203.0.113.9")));
    }

    #[test]
    fn of_several_policies_each_must_allow_and_none_deny() {
        let two = [policy(Some(&["a", "b"]), &[]), policy(Some(&["b", "c"]), &[])];
        for (url, allowed) in [("http://a", false), ("http://b", true), ("http://c", false)] {
            assert_eq!(may(&two, url, Some("203.0.113.9")), allowed, "{url}");
        }
        assert!(!may(&[HttpConfig::default(), policy(None, &["b"])], "http://b", None));
    }

    #[test]
    fn an_empty_allow_list_allows_nothing() {
        for url in ["http://a", "http://127.0.0.1", "http://203.0.113.9"] {
            assert!(!may(&[policy(Some(&[]), &[])], url, None), "{url}");
        }
    }

    #[test]
    fn a_looked_up_address_is_not_told() {
        let deny = policy(None, &["private"]);
        let failure = Reach::new(&[&deny]).address(&place("http://db:5432"), "10.1.2.3".parse().unwrap()).unwrap_err();
        assert!(failure.to_string().contains("db:5432") && failure.to_string().contains("'private'"), "{failure}");
        assert!(!failure.to_string().contains("10.1.2.3"), "{failure}");
    }
}
