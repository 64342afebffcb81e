//! What encrypted connections have in common, to Redis and over HTTP. Ring is the cryptography: it builds everywhere that Rust does.

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, Error as TlsError, RootCertStore, WantsVerifier};

use super::error::{Error, Result};

/// The cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The beginning of every client's configuration: TLS 1.2 and 1.3.
pub fn client(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))
}

/// The certificates in `pem`, at least one; the error says what is wrong with the text, to be put behind the key it was given by.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("holds no certificate that can be read; give it as PEM text"),
    }
}

/// Adds those that are given by `pem` to `roots`; errors as of [`certificates`].
pub fn trust(roots: &mut RootCertStore, pem: &str) -> Result<(), String> {
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
    }
    Ok(())
}

/// Adds what the system trusts to `roots`. Reads files: some milliseconds.
pub fn trust_system(roots: &mut RootCertStore) {
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
}

/// What TLS says went wrong, where it was TLS and not the connection.
pub fn problem(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>())
}
