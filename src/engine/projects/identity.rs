//! Who a project is: a key pair made from its secret. The secret itself is in no place but the caller's program; what is
//! stored is the public key.

use std::fmt::{self, Write};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::engine::config::Secret;
use crate::engine::error::{Error, Result};

/// Shortest secret, bytes.
pub const SECRET_BYTES_MIN: usize = 16;

/// Memory in KiB, passes and lanes of Argon2id: what OWASP's Password Storage Cheat Sheet recommends. Part of every key, never
/// to change.
const ARGON2: (u32, u32, u32) = (19 * 1024, 2, 1);
/// What a signature is made for: a signature of one kind is none of another.
const MESSAGE: &[u8] = b"ossa message 1";
const RECORD: &[u8] = b"ossa audit record 1";
const CHANGE: &[u8] = b"ossa key change 1";

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From 64 hex digits, or 32 bytes as base64 of either alphabet, padded or not.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok();
            let mut key = [0; 32];
            for (i, place) in key.iter_mut().enumerate() {
                *place = byte(i)?;
            }
            return Some(Self(key));
        }
        let digits = text.strip_suffix('=').unwrap_or(text);
        let url_safe: String = digits
            .chars()
            .map(|c| {
                if c == '+' {
                    '-'
                } else if c == '/' {
                    '_'
                } else {
                    c
                }
            })
            .collect();
        Some(Self(URL_SAFE_NO_PAD.decode(url_safe).ok()?.try_into().ok()?))
    }

    /// As base64url without padding.
    pub fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    fn verifies(self, digest: &[u8], signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        UnparsedPublicKey::new(&ED25519, self.0).verify(digest, &signature).is_ok()
    }

    /// Whether the signature is of this key, over these bytes of a message.
    pub fn verifies_message(self, stream: &str, meta: &str, data: &[u8], signature: &str) -> bool {
        self.verifies(&hash(MESSAGE, &[stream.as_bytes(), meta.as_bytes(), data]), signature)
    }

    /// Whether the signature is of this key, over the hash of a record.
    pub fn verifies_record(self, record_hash: &str, signature: &str) -> bool {
        self.verifies(&hash(RECORD, &[record_hash.as_bytes()]), signature)
    }

    /// Whether the owner of this key gave the project over to another one.
    pub fn verifies_change(self, project: &str, key_id: &str, to: Self, from_ms: u64, signature: &str) -> bool {
        self.verifies(&change(project, key_id, to, from_ms), signature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Each part with its length: no two lists of parts give the same bytes.
fn hash(kind: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in std::iter::once(&kind).chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

fn change(project: &str, key_id: &str, to: PublicKey, from_ms: u64) -> Vec<u8> {
    hash(CHANGE, &[project.as_bytes(), key_id.as_bytes(), &to.0, &from_ms.to_be_bytes()])
}

/// SHA-256 as hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Names a message in few characters: 128 bits of a hash.
pub fn short_name(parts: &[&[u8]]) -> String {
    URL_SAFE_NO_PAD.encode(&hash(b"ossa name", parts)[..16])
}

/// What signs for a project. Its `Debug` shows no more than the key's name.
pub struct Signer {
    key_id: String,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.key_id)
    }
}

impl Signer {
    /// From the project's credentials. Takes some 20 ms and 19 MiB, on purpose.
    pub fn derive(project: &str, api_key: &Secret, secret: &Secret) -> Result<Self> {
        let params = Params::new(ARGON2.0, ARGON2.1, ARGON2.2, Some(32));
        let mut seed = [0; 32];
        // The salt: the project's id, made longer, as a salt has at least 8 bytes.
        let salt = format!("ossa project {project}");
        params
            .and_then(|params| {
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                    secret.expose().as_bytes(),
                    salt.as_bytes(),
                    &mut seed,
                )
            })
            .map_err(|error| Error::internal(format!("no key could be made from the secret: {error}")))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| Error::internal("no key could be made from the secret"))?;
        Ok(Self { key_id: key_id(api_key), pair })
    }

    /// First 16 hex digits of SHA-256(apiKey).
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key.
    pub fn public_key(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    fn sign(&self, digest: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(digest))
    }

    /// Signs a message: the stream that it is for, its metadata without the closing brace, and the data's JSON text.
    pub fn sign_message(&self, stream: &str, meta: &str, data: &[u8]) -> String {
        self.sign(&hash(MESSAGE, &[stream.as_bytes(), meta.as_bytes(), data]))
    }

    /// Signs the hash of a record.
    pub fn sign_record(&self, record_hash: &str) -> String {
        self.sign(&hash(RECORD, &[record_hash.as_bytes()]))
    }

    /// Gives the project over to another key.
    pub fn sign_change(&self, project: &str, key_id: &str, to: PublicKey, from_ms: u64) -> String {
        self.sign(&change(project, key_id, to, from_ms))
    }
}

/// First 16 hex digits of SHA-256(apiKey).
pub fn key_id(api_key: &Secret) -> String {
    sha256_hex(api_key.expose().as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(project: &str, secret: &str) -> Signer {
        Signer::derive(project, &Secret::new("key"), &Secret::new(secret)).unwrap()
    }

    #[test]
    fn a_key_is_made_of_secret_and_project_and_always_the_same() {
        let key = |project, secret| signer(project, secret).public_key();
        let first = key("a", "a secret of the project");
        assert_eq!(first, key("a", "a secret of the project"));
        assert_ne!(first, key("b", "a secret of the project"));
        assert_ne!(first, key("a", "another secret of the project"));
        // Part of the layout: another derivation would lock everybody out.
        // The same by argon2-cffi and pyca/cryptography.
        assert_eq!(first.to_text(), "UlbsH2bgI64tU_BpuSGNhSA8ZYLpqnFF5FNli6N30Sw");
    }

    #[test]
    fn a_signature_holds_for_its_bytes_and_its_purpose_alone() {
        let signer = signer("a", "a secret of the project");
        let key = signer.public_key();
        let signature = signer.sign_message("@b/t", "{meta", b"data");
        assert_eq!(signature.len(), 86);
        assert!(key.verifies_message("@b/t", "{meta", b"data", &signature));
        for (stream, meta, data) in
            [("@c/t", "{meta", "data"), ("@b/t", "{metad", "ata"), ("@b/t", "{meta", "dat"), ("@b/", "t{meta", "data")]
        {
            assert!(!key.verifies_message(stream, meta, data.as_bytes(), &signature), "{stream} {meta} {data}");
        }
        assert!(!key.verifies_record("@b/t{metadata", &signature));
        assert!(!key.verifies_message("@b/t", "{meta", b"data", "nonsense"));
        let change = signer.sign_change("a", "k2", key, 5);
        assert!(key.verifies_change("a", "k2", key, 5, &change));
        assert!(!key.verifies_change("a", "k2", key, 6, &change) && !key.verifies_change("b", "k2", key, 5, &change));
    }

    #[test]
    fn public_keys_are_read_in_any_of_their_spellings() {
        let key = PublicKey([0xfb; 32]);
        let text = key.to_text();
        assert!(text.contains('_') || text.contains('-'));
        let standard = format!("{}=", text.replace('-', "+").replace('_', "/"));
        for spelling in [text.clone(), standard, "fb".repeat(32), "FB".repeat(32)] {
            assert_eq!(PublicKey::read(&spelling), Some(key), "{spelling}");
        }
        for wrong in ["", "fb", &text[..42], &format!("{text}A"), &"g".repeat(64), "é"] {
            assert_eq!(PublicKey::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", Signer::derive("a", &Secret::new("the-api-key"), &Secret::new("the secret of a")).unwrap());
        assert!(!shown.contains("the-api-key") && !shown.contains("secret"), "{shown}");
        assert_eq!(key_id(&Secret::new("abc")), "ba7816bf8f01cfea");
    }
}
