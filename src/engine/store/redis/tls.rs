//! Encryption: what is trusted, and who we say we are.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};

use crate::engine::error::{Error, Result};
use crate::engine::net::{Unreachable, said};
use crate::engine::tls;

/// What the configuration says, certificates and key as PEM text.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Trusted instead of what the system trusts.
    pub ca: Option<String>,
    /// Certificate of this client.
    pub cert: Option<String>,
    /// Its private key; never shown.
    pub key: Option<String>,
    /// Name that the server's certificate must bear; the host unless given.
    pub server_name: Option<String>,
    /// Whether a certificate that cannot be verified ends the connection.
    pub reject_unauthorized: bool,
}

/// Encrypts connections.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl Tls {
    /// `ERR_CONFIG` where a certificate or key cannot be used.
    pub fn new(options: &TlsOptions) -> Result<Self> {
        let provider = tls::provider();
        let builder = tls::client(provider.clone())?;
        let verifier: Arc<dyn ServerCertVerifier> = if options.reject_unauthorized {
            let roots = Arc::new(trusted(options.ca.as_deref())?);
            WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| wrong("ca", format!("cannot be used: {error}")))?
        } else {
            Arc::new(Unverified(provider))
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match (&options.cert, &options.key) {
            (Some(cert), Some(key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|_| wrong("key", "holds no private key that can be read; give it as PEM text, not encrypted"))?;
                builder
                    .with_client_auth_cert(tls::certificates(cert).map_err(|problem| wrong("cert", problem))?, key)
                    .map_err(|error| wrong("key", format!("cannot be used with the certificate: {error}")))?
            }
            _ => builder.with_no_client_auth(),
        };
        let name = options
            .server_name
            .as_ref()
            .map(|name| ServerName::try_from(name.clone()).map_err(|_| wrong("serverName", "is no name that a certificate can bear")));
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name: name.transpose()? })
    }

    /// Shakes hands with the server on `host`.
    pub async fn wrap<S: AsyncRead + AsyncWrite + Unpin>(&self, host: &str, stream: S) -> Result<TlsStream<S>, Unreachable> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is no name that a certificate can bear"))?,
        };
        self.connector.connect(name, stream).await.map_err(|error| match tls::problem(&error) {
            Some(TlsError::InvalidCertificate(problem)) => format!(
                "its certificate is refused ({problem}); give its CA as redis.tls.ca, its name as redis.tls.serverName, \
                     or trust whatever answers by redis.tls.rejectUnauthorized: false"
            ),
            Some(TlsError::InvalidMessage(_)) => "what answers there does not speak TLS".to_owned(),
            Some(problem) => format!("the TLS handshake failed: {problem}"),
            None => format!("the TLS handshake failed: {}", said(&error)),
        })
    }
}

fn wrong(key: &str, problem: impl Into<String>) -> Error {
    Error::config(&format!("redis.tls.{key}"), problem.into())
}

/// The given CA, or what the system trusts.
fn trusted(ca: Option<&str>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = ca {
        tls::trust(&mut roots, pem).map_err(|problem| wrong("ca", problem))?;
        return Ok(roots);
    }
    tls::trust_system(&mut roots);
    if roots.is_empty() {
        return Err(wrong("ca", "is missing, and this system trusts no certificates of its own (install ca-certificates)"));
    }
    Ok(roots)
}

/// Takes any certificate (`rejectUnauthorized: false`). Who answers still has to hold its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
