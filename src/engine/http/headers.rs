//! Headers of a request.

use hyper::HeaderMap;
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT,
};

use super::failure::Failure;
use super::target::Target;

/// Most of a name that a message repeats, characters.
const SHOWN_CHARS_MAX: usize = 64;

/// Most headers of a request: many servers take no more.
const COUNT_MAX: usize = 100;

/// They say where a request ends and whom it is for: given by hand, one could hide a second request in the first.
const FRAMING: [HeaderName; 8] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, TRAILER, UPGRADE, EXPECT];

/// The headers for `target`: `given`, and behind them what is not given. One that HTTP does not allow is an error; none is left out.
pub fn headers(target: &Target, given: &[(&str, &str)]) -> Result<HeaderMap, Failure> {
    if given.len() > COUNT_MAX {
        return Err(Failure::Header(format!("there may be at most {COUNT_MAX} headers, not {}", given.len())));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let shown: String = name.chars().take(SHOWN_CHARS_MAX).collect();
        let wrong = |said: &str| Failure::Header(format!("the header {shown:?} {said}"));
        let name = HeaderName::try_from(*name).map_err(|_| wrong("has a name with characters that HTTP does not allow there"))?;
        if FRAMING.contains(&name) {
            return Err(wrong("is not for the sender to set"));
        }
        let value = HeaderValue::try_from(*value).map_err(|_| wrong("has a value with line breaks or other control characters"))?;
        headers.append(name, value);
    }
    let own = [
        (AUTHORIZATION, target.authorization.clone()),
        (USER_AGENT, Some(HeaderValue::from_static(concat!("ossa/", env!("CARGO_PKG_VERSION"))))),
        // Nothing is unpacked here.
        (ACCEPT_ENCODING, Some(HeaderValue::from_static("identity"))),
    ];
    for (name, value) in own {
        if let Some(value) = value
            && !headers.contains_key(&name)
        {
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, given: &[(&str, &str)]) -> Result<HeaderMap, Failure> {
        headers(&Target::parse(url).unwrap(), given)
    }

    #[test]
    fn given_headers_are_sent_and_win_over_our_own() {
        let headers = of("http://u:p@h", &[("X-Tag", "a"), ("x-tag", "ü"), ("authorization", "Bearer t"), ("User-Agent", "me")]).unwrap();
        assert_eq!(headers.get_all("x-tag").iter().count(), 2);
        assert!(headers[AUTHORIZATION] == "Bearer t" && headers[USER_AGENT] == "me");
        assert_eq!(of("http://u:p@h", &[]).unwrap()[AUTHORIZATION], "Basic dTpw");
        assert!(of("http://h", &[]).unwrap()[USER_AGENT].to_str().unwrap().starts_with("ossa/"));
    }

    #[test]
    fn what_would_end_a_header_or_a_request_is_refused_without_its_value() {
        for (name, value) in [
            ("x", "a\r\nX-Injected: hunter2"),
            ("x", "hunter2\n"),
            ("x", "hunter2\0"),
            ("x", "\u{7f}hunter2"),
            ("x\r\ny", "hunter2"),
            ("x y", "hunter2"),
            ("x:", "hunter2"),
            ("ü", "hunter2"),
            ("", "hunter2"),
            ("Host", "hunter2"),
            ("content-length", "0"),
            ("Transfer-Encoding", "chunked"),
            ("connection", "upgrade"),
            ("Upgrade", "hunter2"),
            ("Expect", "100-continue"),
        ] {
            match of("http://h", &[("fine", "1"), (name, value)]) {
                Err(Failure::Header(said)) => {
                    assert!(!said.contains("hunter2") && !said.contains(['\r', '\n']), "{said:?}");
                }
                other => panic!("{name:?}: {value:?}: {other:?}"),
            }
        }
        assert!(of("http://h", &[("x", "y"); COUNT_MAX]).is_ok());
        assert!(matches!(of("http://h", &[("x", "y"); COUNT_MAX + 1]), Err(Failure::Header(_))));
    }
}
