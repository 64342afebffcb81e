//! `tls`: `true`, `false`, or an object with certificates.

use serde_json::{Map, Value, json};

use super::found::Found;
use super::reader::Section;
use super::secret::Secret;
use crate::engine::error::{Error, Result};

const KEYS: [&str; 5] = ["ca", "cert", "key", "serverName", "rejectUnauthorized"];

/// How the connection is encrypted.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Certificates to trust instead of the system's, PEM.
    pub ca: Option<String>,
    /// Certificate of this client, PEM.
    pub cert: Option<String>,
    /// Its private key, PEM.
    pub key: Option<Secret>,
    /// Name that the server's certificate must bear; the host unless given.
    pub server_name: Option<String>,
    /// Whether a certificate that cannot be verified ends the connection; `true` unless given.
    pub reject_unauthorized: bool,
}

/// What the key says where it is given.
#[derive(PartialEq)]
pub(super) enum Choice {
    Off,
    On(Tls),
}

impl Default for Tls {
    fn default() -> Self {
        Self { ca: None, cert: None, key: None, server_name: None, reject_unauthorized: true }
    }
}

impl Tls {
    /// `tls` at this section.
    pub(super) fn read(section: &Section<'_>) -> Result<Option<Choice>> {
        match section.value("tls") {
            None => Ok(None),
            Some(Value::Bool(true)) => Ok(Some(Choice::On(Self::default()))),
            Some(Value::Bool(false)) => Ok(Some(Choice::Off)),
            Some(object @ Value::Object(_)) => {
                let part = section.part("tls", Some(object), &KEYS)?;
                Ok(Some(Choice::On(Self::read_object(&part)?)))
            }
            Some(_) => Err(match section.argument("tls") {
                Some(found) => found.wrong("true, false, or an object with ca, cert, key, serverName, rejectUnauthorized"),
                None => Error::internal("tls vanished while it was read"),
            }),
        }
    }

    fn read_object(part: &Section<'_>) -> Result<Self> {
        let pem = |key: &'static str, label: &str| part.argument(key).map(|found| read_pem(&found, label)).transpose();
        let tls = Self {
            ca: pem("ca", "CERTIFICATE")?.map(|pem| pem.expose().to_owned()),
            cert: pem("cert", "CERTIFICATE")?.map(|pem| pem.expose().to_owned()),
            key: pem("key", "PRIVATE KEY")?,
            server_name: part
                .argument("serverName")
                .map(|found| found.checked("a host name", |name| super::host::check(name).is_ok()))
                .transpose()?,
            reject_unauthorized: part.flag("rejectUnauthorized", true)?,
        };
        match (&tls.cert, &tls.key) {
            (Some(_), None) => Err(Error::config(&part.at("cert"), format!("needs {} too", part.at("key")))),
            (None, Some(_)) => Err(Error::config(&part.at("key"), format!("needs {} too", part.at("cert")))),
            _ => Ok(tls),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        if *self == Self::default() {
            return Value::Bool(true);
        }
        let mut out = Map::new();
        let texts = [
            ("ca", self.ca.as_deref()),
            ("cert", self.cert.as_deref()),
            ("key", self.key.as_ref().map(Secret::expose)),
            ("serverName", self.server_name.as_deref()),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                out.insert(key.to_owned(), json!(text));
            }
        }
        out.insert("rejectUnauthorized".to_owned(), json!(self.reject_unauthorized));
        Value::Object(out)
    }
}

/// PEM text with a part of this `label`.
pub(super) fn read_pem(found: &Found<'_>, label: &str) -> Result<Secret> {
    let right = format!("PEM text with a '-----BEGIN … {label}-----' line; not a file name");
    let pem = found.secret(&right)?;
    let begins = |line: &str| line.trim().starts_with("-----BEGIN ") && line.trim().ends_with(&format!("{label}-----"));
    if pem.expose().lines().any(begins) { Ok(pem) } else { Err(found.wrong_secret(right)) }
}
