//! Answers, read within their bounds.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::{DATE, RETRY_AFTER};

use super::failure::Failure;

/// Longest wait that an answer can ask for: what is longer is cut to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a server answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Status code, of any class.
    pub status: u16,
    /// The body as it was sent.
    pub body: Vec<u8>,
    /// Whether `body` is all there was; always so for a GET.
    pub complete: bool,
    /// `Retry-After`: how long the server asks not to be asked again, at most a day.
    pub retry_after: Option<Duration>,
    /// From the call to the end of the answer.
    pub took: Duration,
}

/// Reads the body piece by piece into `read`; stops at the first byte that is more than `bytes_max`.
pub async fn read(place: &(dyn Display + Sync), mut body: Incoming, bytes_max: usize, read: &mut Vec<u8>) -> Result<(), Failure> {
    // What it says about itself spares reading it; what it does not say, or says wrong, is found below.
    if body.size_hint().lower() > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
        return Err(Failure::TooLarge(bytes_max));
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::of_connection(place, &error))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bytes_max - read.len() {
            read.extend_from_slice(&data[..bytes_max - read.len()]);
            return Err(Failure::TooLarge(bytes_max));
        }
        read.extend_from_slice(&data);
    }
    Ok(())
}

/// `Retry-After`: seconds, or a date, counted from the server's own `Date` where it gives one, so that its clock may be wrong.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Too many digits for a number are too many seconds, too.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let at = httpdate::parse_http_date(text).ok()?;
        let date = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        at.duration_since(date.unwrap_or(now)).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:00 GMT").unwrap();
        let told = |text: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_str(date).unwrap());
            }
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        for (text, date, seconds) in [
            ("0", None, Some(0)),
            (" 120 ", None, Some(120)),
            ("86401", None, Some(86_400)),
            ("99999999999999999999999999", None, Some(86_400)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None, Some(59)),
            ("Friday, 31-Dec-99 23:59:59 GMT", None, Some(59)),
            ("Fri Dec 31 23:59:59 1999", None, Some(59)),
            ("Fri, 31 Dec 1999 23:58:00 GMT", None, Some(0)),
            ("Sat, 01 Jan 2039 00:00:00 GMT", None, Some(86_400)),
            ("Tue, 05 Jan 2027 10:00:30 GMT", Some("Tue, 05 Jan 2027 10:00:00 GMT"), Some(30)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some("yesterday"), Some(59)),
            ("", None, None),
            ("-1", None, None),
            ("1.5", None, None),
            ("soon", None, None),
            ("Fri, 32 Dec 1999 23:59:59 GMT", None, None),
            ("1\u{fc}", None, None),
        ] {
            assert_eq!(told(text, date), seconds, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
