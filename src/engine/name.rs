//! Names of event types and groups, and the wildcard patterns over types.

use super::error::{Error, Result};

/// Longest name, bytes.
pub const NAME_BYTES_MAX: usize = 256;

const ALLOWED: &str = "1 to 256 of the characters A-Z a-z 0-9 _ . : / -";

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'/' | b'-')
}

fn check(argument: &str, name: &str, allowed: impl Fn(u8) -> bool, rule: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let shown: String = name.chars().take(64).collect();
        let problem = if name.len() > NAME_BYTES_MAX {
            format!("has {} bytes; it must be {rule}", name.len())
        } else {
            format!("{shown:?} is not valid; it must be {rule}")
        };
        return Err(Error::argument(argument, problem));
    }
    Ok(())
}

/// An event type to publish: no wildcards.
pub fn check_event_type(name: &str) -> Result<()> {
    if name.contains('*') {
        return Err(Error::argument("eventType", format!("{name:?} has a wildcard; events are published under one type")));
    }
    if is_addressed(name) {
        let problem = format!("{name:?} is kept for messages to a project: send them by sendCrossProjectMessage()");
        return Err(Error::argument("eventType", problem));
    }
    check("eventType", name, is_name_byte, ALLOWED)
}

/// A consumer group. `~` is kept for the store's own consumers.
pub fn check_group(name: &str) -> Result<()> {
    check("group", name, is_name_byte, ALLOWED)
}

/// Longest project id, bytes.
pub const PROJECT_BYTES_MAX: usize = 64;

/// What a project id is.
pub const PROJECT_RULE: &str = "1 to 64 of the characters A-Z a-z 0-9 _ . -";

/// A project id, given as `argument`. Without ':', '/' and '@', which stand between the parts of longer names.
pub fn check_project(argument: &str, id: &str) -> Result<()> {
    let is_right = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if id.is_empty() || id.len() > PROJECT_BYTES_MAX || !id.bytes().all(is_right) {
        let shown: String = id.chars().take(64).collect();
        return Err(Error::argument(argument, format!("{shown:?} is no project id; it must be {PROJECT_RULE}")));
    }
    Ok(())
}

/// Longest name of a service, bytes.
pub const SERVICE_BYTES_MAX: usize = 128;

/// A service, given as `argument`.
pub fn check_service(argument: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > SERVICE_BYTES_MAX || !name.bytes().all(is_name_byte) {
        let shown: String = name.chars().take(64).collect();
        let rule = "1 to 128 of the characters A-Z a-z 0-9 _ . : / -";
        return Err(Error::argument(argument, format!("{shown:?} is no name of a service; it must be {rule}")));
    }
    Ok(())
}

/// An event type or pattern to subscribe to: `*` stands for one dot-separated part, `**` for any number.
pub fn check_pattern(pattern: &str) -> Result<()> {
    if is_addressed(pattern) {
        let problem = format!("{pattern:?} is kept for messages to a project: read them by setupCrossProjectHandler()");
        return Err(Error::argument("eventType", problem));
    }
    check("eventType", pattern, |b| is_name_byte(b) || b == b'*', "1 to 256 of A-Z a-z 0-9 _ . : / - and the wildcards * and **")?;
    for part in pattern.split('.') {
        if part.contains('*') && part != "*" && part != "**" {
            return Err(Error::argument(
                "eventType",
                format!("{pattern:?}: a wildcard stands for whole parts between dots; write 'a.*.b' or 'a.**', not '{part}'"),
            ));
        }
    }
    Ok(())
}

/// What the name of a stream of messages to a project begins with: `@<project>/<event type>`. No event type does.
pub const ADDRESSED: char = '@';

/// The stream of messages of a type, or of a pattern, to a project.
pub fn addressed(project: &str, event_type: &str) -> String {
    format!("{ADDRESSED}{project}/{event_type}")
}

/// Project and event type (or pattern) of such a name; `None` for any other.
pub fn address(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(ADDRESSED)?.split_once('/')
}

/// Whether `name` is that of a stream of messages to a project.
pub fn is_addressed(name: &str) -> bool {
    name.starts_with(ADDRESSED)
}

/// Messages of a type, or of all that match a pattern, to a project. Answers the name of their streams.
pub fn check_addressed(project: &str, pattern: &str) -> Result<String> {
    check_project("projectId", project)?;
    check_pattern(pattern)?;
    let name = addressed(project, pattern);
    if name.len() > NAME_BYTES_MAX {
        let most = NAME_BYTES_MAX - 2 - project.len();
        return Err(Error::argument("eventType", format!("has {} bytes; for messages to '{project}' it may have {most}", pattern.len())));
    }
    Ok(name)
}

/// A stream to look at: an event type, or messages of one type to a project.
pub fn check_stream(name: &str) -> Result<()> {
    match address(name) {
        Some((project, event_type)) => {
            check_event_type(event_type)?;
            check_addressed(project, event_type).map(drop)
        }
        None => check_event_type(name),
    }
}

/// Streams to look at: as [`check_stream`], with wildcards in the event type.
pub fn check_streams(name: &str) -> Result<()> {
    match address(name) {
        Some((project, pattern)) => check_addressed(project, pattern).map(drop),
        None => check_pattern(name),
    }
}

/// Whether `pattern` names more than one type.
pub fn is_pattern(pattern: &str) -> bool {
    pattern.contains('*')
}

/// Whether `event_type` matches `pattern`. Linear in practice: `**` backtracks over parts, of which a name of
/// 256 bytes has few, with the two-pointer method that never goes back further than the last `**`.
pub fn matches(pattern: &str, event_type: &str) -> bool {
    if !is_pattern(pattern) {
        return pattern == event_type;
    }
    // What is addressed to a project is for nobody else, whatever they read.
    let (pattern, event_type) = match (address(pattern), address(event_type)) {
        (None, None) => (pattern, event_type),
        (Some((project, pattern)), Some((to, event_type))) if project == to => (pattern, event_type),
        _ => return false,
    };
    let pattern: Vec<&str> = pattern.split('.').collect();
    let parts: Vec<&str> = event_type.split('.').collect();
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < parts.len() {
        if p < pattern.len() && pattern[p] == "**" {
            retry = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == "*" || pattern[p] == parts[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|part| *part == "**")
}

/// Whether some event type matches both patterns.
pub fn overlap(a: &str, b: &str) -> bool {
    let (a, b) = match (address(a), address(b)) {
        (None, None) => (a, b),
        (Some((to, a)), Some((project, b))) if project == to => (a, b),
        _ => return false,
    };
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split('.').collect(), b.split('.').collect());
    // possible[j]: what is left of `a` from the part at hand on, and of `b` from j on, have a type in common.
    let mut possible: Vec<bool> = (0..=b.len()).map(|j| b[j..].iter().all(|part| *part == "**")).collect();
    for part in a.iter().rev() {
        let below = possible.clone();
        possible[b.len()] = *part == "**" && below[b.len()];
        for j in (0..b.len()).rev() {
            possible[j] = if *part == "**" || b[j] == "**" {
                // It is over, or takes in one more part of the other.
                below[j] || possible[j + 1]
            } else {
                below[j + 1] && (*part == "*" || b[j] == "*" || *part == b[j])
            };
        }
    }
    possible[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_stands_for_one_part_and_two_stars_for_any_number() {
        for (pattern, yes, no) in [
            ("a.*.c", vec!["a.b.c"], vec!["a.c", "a.b.b.c", "a.b.c.d"]),
            ("a.**", vec!["a", "a.b", "a.b.c"], vec!["b", "ab"]),
            ("**", vec!["a", "a.b.c"], vec![]),
            ("**.c", vec!["c", "a.c", "a.c.c"], vec!["c.a"]),
            ("a.**.z", vec!["a.z", "a.b.z", "a.z.z", "a.b.c.z"], vec!["a", "z", "a.b"]),
            ("*", vec!["a"], vec!["a.b"]),
            ("a.b", vec!["a.b"], vec!["a.bc"]),
        ] {
            for t in yes {
                assert!(matches(pattern, t), "{pattern} should match {t}");
            }
            for t in no {
                assert!(!matches(pattern, t), "{pattern} should not match {t}");
            }
        }
    }

    #[test]
    fn patterns_overlap_where_a_type_matches_both() {
        for (a, b, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "*.b", true),
            ("a.*", "b.*", false),
            ("a.*", "a.*.c", false),
            ("a.**", "**.z", true),
            ("a.**", "a", true),
            ("**", "x.y", true),
            ("a.**.b", "a.c.**", true),
            ("a.**.b", "c.**.b", false),
            ("*.*", "**.x", true),
            ("*", "**.x.y", false),
        ] {
            assert_eq!((overlap(a, b), overlap(b, a)), (expected, expected), "{a} and {b}");
        }
    }

    #[test]
    fn many_double_stars_stay_linear() {
        let pattern = vec!["**"; 80].join(".") + ".x";
        let name = vec!["a"; 128].join(".");
        let start = std::time::Instant::now();
        assert!(!matches(&pattern, &name));
        assert!(start.elapsed().as_millis() < 100);
    }

    #[test]
    fn wrong_names_are_refused_with_the_argument() {
        let long = "x".repeat(257);
        for name in ["", "a b", "a\nb", "ü", "a*", long.as_str(), "a\0"] {
            let error = check_event_type(name).unwrap_err();
            assert_eq!(error.details["argument"], "eventType", "{name:?}");
        }
        assert!(check_event_type(&"x".repeat(256)).is_ok());
        assert!(check_event_type("a:b/c-d_e.F9").is_ok());
        assert!(check_pattern("a.b*").is_err());
        assert!(check_pattern("a.*.**").is_ok());
        assert!(check_group("~retry").is_err());
    }

    #[test]
    fn what_is_addressed_to_a_project_is_for_nobody_else() {
        let stream = addressed("b", "user.created");
        assert_eq!((stream.as_str(), address(&stream)), ("@b/user.created", Some(("b", "user.created"))));
        for (pattern, expected) in [
            ("**", false),
            ("*.created", false),
            ("@b/**", true),
            ("@b/*.created", true),
            ("@b/user.created", true),
            ("@a/**", false),
            ("@b/*", false),
        ] {
            assert_eq!(matches(pattern, &stream), expected, "{pattern}");
        }
        assert!(!matches("@b/**", "user.created"));
        assert!(!overlap("**", "@b/**") && !overlap("@a/**", "@b/**") && overlap("@b/user.*", "@b/*.created"));
        assert!(check_event_type(&stream).is_err() && check_pattern(&stream).is_err());
        assert!(check_stream(&stream).is_ok() && check_streams("@b/user.*").is_ok());
        for wrong in ["@b", "@/t", "@b/", "@b c/t", "@b/a*.c", "@b/a/*"] {
            assert!(check_streams(wrong).is_err(), "{wrong}");
        }
        assert!(check_stream("@b/user.*").is_err());
        assert!(check_addressed("b", &"t".repeat(253)).is_ok_and(|name| name.len() == 256));
        assert!(check_addressed("b", &"t".repeat(254)).is_err());
    }

    #[test]
    fn ids_of_projects_have_no_slash_and_no_colon() {
        assert!(check_project("projectId", "user-service_2.eu").is_ok());
        for wrong in ["", "a/b", "a:b", "a b", "@a", "é", &"a".repeat(65)] {
            assert_eq!(check_project("config.projectId", wrong).unwrap_err().details["argument"], "config.projectId", "{wrong}");
        }
    }
}
