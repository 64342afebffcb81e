//! What is asked: a URL, taken apart.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::failure::Failure;

/// Longest URL, bytes.
const URL_BYTES_MAX: usize = 8_192;
/// Most of a URL that a message repeats, characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Where a connection goes. Shown as `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it is encrypted.
    pub tls: bool,
    /// Name in its ASCII form and small letters, or address; however it was written, an address is an address here.
    pub host: Host<String>,
    /// Port.
    pub port: u16,
}

impl Place {
    fn of(url: &Url) -> Option<Self> {
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = url.host()?.to_owned();
        let named = !matches!(&host, Host::Domain(name) if name.trim_end_matches('.').is_empty());
        named.then(|| url.port_or_known_default().map(|port| Self { tls, host, port }))?
    }

    /// The place that the HTTP client wants to connect to.
    pub fn of_uri(uri: &Uri) -> Option<Self> {
        Self::of(&Url::parse(&uri.to_string()).ok()?)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A URL that can be asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where to connect to.
    pub place: Place,
    /// The URL as the HTTP client takes it.
    pub uri: Uri,
    /// The URL's user name and password as a header.
    pub authorization: Option<HeaderValue>,
    /// Without user name, password and fragment.
    url: Url,
}

impl Target {
    /// Reads `text`; no error repeats any of it.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let no_url = |said: &str| Failure::NoUrl(format!("the endpoint must be a URL that begins with http:// or https://{said}"));
        if text.len() > URL_BYTES_MAX {
            return Err(no_url(&format!(", of at most {URL_BYTES_MAX} bytes")));
        }
        // What the standard for URLs would leave out or turn round in silence is refused: it is a mistake, or meant to mislead.
        if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(no_url(", without blanks, line breaks and backslashes"));
        }
        let begins = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        if !begins("http://") && !begins("https://") {
            return Err(no_url(""));
        }
        let mut url = Url::parse(text).map_err(|problem| no_url(&format!(", with a host behind it ({problem})")))?;
        let authorization = take_credentials(&mut url)?;
        Self::of(url, authorization).ok_or_else(|| no_url(", with a host behind it"))
    }

    /// Where `location`, of an answer from here, leads: a URL at the same place, or else how it is shown.
    pub fn redirected(&self, location: &HeaderValue) -> Result<Self, String> {
        let to = location.to_str().ok().and_then(|location| self.url.join(location).ok());
        let mut url = to.ok_or("something that is no URL")?;
        // Here or elsewhere, who we are is not for the server to say.
        take_credentials(&mut url).map_err(|_| "a URL that cannot be asked")?;
        let same = Place::of(&url).is_some_and(|place| place == self.place);
        let shown = shown(&url);
        if same { Self::of(url, self.authorization.clone()).ok_or(shown) } else { Err(shown) }
    }

    /// As a message shows it: without query.
    pub fn shown(&self) -> String {
        shown(&self.url)
    }

    fn of(mut url: Url, authorization: Option<HeaderValue>) -> Option<Self> {
        url.set_fragment(None);
        let place = Place::of(&url)?;
        let uri: Uri = url.as_str().parse().ok()?;
        Some(Self { place, uri, authorization, url })
    }
}

/// Takes user name and password out of `url`, as a header.
fn take_credentials(url: &mut Url) -> Result<Option<HeaderValue>, Failure> {
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    let password = url.password().map(|password| percent_decode_str(password).collect::<Vec<u8>>());
    if pair.is_empty() && password.is_none() {
        return Ok(None);
    }
    pair.push(b':');
    pair.extend(password.unwrap_or_default());
    let unusable = || Failure::NoUrl("the user name and password in the endpoint cannot be used".to_owned());
    url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| unusable())?;
    let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).map_err(|_| unusable())?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// Scheme, host, port and path: a query may hold what is nobody's business.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let text: String = url.as_str().chars().take(SHOWN_CHARS_MAX).collect();
    if text.len() < url.as_str().len() { format!("{text}…") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> String {
        Target::parse(text).unwrap_or_else(|failure| panic!("{text}: {failure}")).place.to_string()
    }

    #[test]
    fn an_address_is_an_address_however_it_is_written() {
        for text in [
            "http://127.0.0.1:80",
            "http://2130706433",
            "http://0x7f000001/",
            "http://0x7f.1",
            "http://0177.0.0.1",
            "http://127.1",
            "http://127.0.0.1.",
            "http://①②⑦.⓪.⓪.①",
            "http://%31%32%37.0.0.1",
            "HTTP://user:pass@127.0.0.1",
        ] {
            assert_eq!(place(text), "127.0.0.1:80", "{text}");
        }
        assert_eq!(place("https://[::FFFF:127.0.0.1]"), "[::ffff:7f00:1]:443");
        assert_eq!(place("http://[0:0::0:1]:8080/x"), "[::1]:8080");
        assert_eq!(place("http://BÜCHER.example"), "xn--bcher-kva.example:80");
        assert_eq!(Place::of_uri(&Target::parse("https://[::1]:8/x?y").unwrap().uri).unwrap().to_string(), "[::1]:8");
    }

    #[test]
    fn what_is_no_http_url_is_refused_and_not_repeated() {
        let long = format!("http://h/{}", "x".repeat(URL_BYTES_MAX));
        for text in [
            "",
            "hunter2",
            "h:80",
            "//h/x",
            "http:h",
            "http:/h",
            "ftp://hunter2@h",
            "file:///etc/passwd",
            "gopher://h",
            "redis://h",
            "http://",
            "http://.",
            "http://hunter2@",
            "http://:80",
            "http://h:hunter2",
            "http://h:65536",
            "http://a b",
            "http://h/a\r\nX: hunter2",
            "ht\ntp://h",
            " http://h",
            "http:\\\\h",
            "http://good.example\\@evil.example",
            "http://[fe80::1%25eth0]",
            "http://256.0.0.1",
            "http://a<b",
            &long,
        ] {
            match Target::parse(text) {
                Err(Failure::NoUrl(said)) => assert!(said.contains("http://") && !said.contains("hunter2"), "{text}: {said}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn credentials_become_a_header_and_are_shown_nowhere() {
        let target = Target::parse("http://us%40er:p%3Aw@h/x?key=hunter2#there").unwrap();
        assert_eq!(target.authorization.as_ref().unwrap().to_str().unwrap(), format!("Basic {}", STANDARD.encode("us@er:p:w")));
        assert_eq!((target.uri.to_string().as_str(), target.shown().as_str()), ("http://h/x?key=hunter2", "http://h/x"));
        assert!(!format!("{target:?}").contains("p%3Aw"), "{target:?}");
        assert!(Target::parse("http://:secret@h").unwrap().authorization.is_some());
        assert!(Target::parse("http://h").unwrap().authorization.is_none());
    }

    #[test]
    fn a_redirect_stays_at_its_place_or_is_told_where_it_leads() {
        let target = Target::parse("http://user:pass@h:81/a/b?c").unwrap();
        let to = |location: &'static str| target.redirected(&HeaderValue::from_static(location));
        for (location, uri) in [
            ("/x?y", "http://h:81/x?y"),
            ("x", "http://h:81/a/x"),
            ("http://H:81/", "http://h:81/"),
            ("//h:81/x#y", "http://h:81/x"),
            ("http://other:credentials@h:81/x", "http://h:81/x"),
        ] {
            let next = to(location).unwrap_or_else(|shown| panic!("{location}: {shown}"));
            assert_eq!((next.uri.to_string().as_str(), &next.authorization), (uri, &target.authorization), "{location}");
        }
        for (location, shown) in [
            ("http://h/x", "http://h/x"),
            ("https://h:81/x", "https://h:81/x"),
            ("http://u:hunter2@evil.example/x?hunter2", "http://evil.example/x"),
            ("http://h.:81/", "http://h.:81/"),
            ("//127.0.0.1:81", "http://127.0.0.1:81/"),
            ("file:///etc/passwd", "file:///etc/passwd"),
            ("http://", "something that is no URL"),
        ] {
            assert_eq!(to(location).map(|next| next.uri).unwrap_err(), shown, "{location}");
        }
        assert!(target.redirected(&HeaderValue::from_bytes(b"/\xff").unwrap()).is_err());
    }
}
