//! As whom to connect. Key by key: the argument (`username`, `password`, its URL, `redisOptions`), then the
//! environment's URL where that is in force, then `REDIS_PASSWORD`. An empty text in the argument says "none".

use super::address::Located;
use super::env::REDIS_PASSWORD;
use super::reader::Section;
use super::secret::Secret;
use super::url::Url;
use crate::engine::error::{Error, Result};

/// User and password of the store.
pub(super) struct Credentials {
    pub username: Option<String>,
    pub password: Option<Secret>,
}

impl Credentials {
    pub fn read(section: &Section<'_>, located: &Located<'_>) -> Result<Self> {
        let (in_url, url_given) = match &located.url {
            Some((Url::Redis { username, password, .. }, found)) => {
                (Some((username.clone(), password.clone(), found.path.clone())), found.is_argument())
            }
            _ => (None, false),
        };
        let (url_username, url_password, url_path) = in_url.unwrap_or_default();

        let mut usernames = vec![text_at(section, "username")?];
        let mut passwords = vec![secret_at(section, "password")?];
        if let Some(options) = &located.redis_options {
            usernames.push(text_at(options, "username")?);
            passwords.push(secret_at(options, "password")?);
        }
        if url_given {
            usernames.push(url_username.clone().map(|name| (name, url_path.clone())));
            passwords.push(url_password.clone().map(|secret| (secret, url_path)));
        }
        let username = agreed(usernames)?.or(url_username).filter(|name| !name.is_empty());
        let password = match agreed(passwords)?.or(url_password) {
            Some(given) => Some(given),
            None if located.address.is_memory() => None,
            None => section.variable("password", REDIS_PASSWORD).map(|found| found.secret("a string")).transpose()?,
        };
        Ok(Self { username, password: password.filter(|secret| !secret.expose().is_empty()) })
    }
}

/// A value of the argument and its path.
type Given<T> = Option<(T, String)>;

fn text_at(section: &Section<'_>, key: &'static str) -> Result<Given<String>> {
    section.argument(key).map(|found| Ok((found.text("a string")?, found.path))).transpose()
}

fn secret_at(section: &Section<'_>, key: &'static str) -> Result<Given<Secret>> {
    section.argument(key).map(|found| Ok((found.secret("a string")?, found.path))).transpose()
}

/// The one value that all who gave one gave.
fn agreed<T: PartialEq>(given: Vec<Given<T>>) -> Result<Option<T>> {
    let mut given = given.into_iter().flatten();
    let Some((first, path)) = given.next() else { return Ok(None) };
    for (other, other_path) in given {
        if other != first {
            return Err(Error::config(&path, format!("contradicts the one in {other_path}; give it once")));
        }
    }
    Ok(Some(first))
}
