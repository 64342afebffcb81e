//! Certificates made for one test, and servers that speak TLS with them.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};

use super::server::{Server, Setup, free_port};

/// A name that server certificates hold beside those of loopback.
pub const EXTRA_NAME: &str = "redis.ossa.test";

/// A certificate with its key, PEM.
pub struct Identity {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// Who signs certificates.
pub struct Authority {
    /// Its own certificate, PEM: what `ca` is set to.
    pub cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("keys can be made");
        let cert = params.self_signed(&key).expect("the parameters are complete").pem();
        Self { cert, issuer: Issuer::new(params, key) }
    }

    /// For a server under these names and addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.sign(params("ossa test server", names), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a server on loopback.
    pub fn local_server(&self) -> Identity {
        self.server(&["localhost", "127.0.0.1", EXTRA_NAME])
    }

    /// For a server on loopback whose time is over.
    pub fn expired_server(&self) -> Identity {
        let mut params = params("ossa test server", &["localhost", "127.0.0.1"]);
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a client.
    pub fn client(&self, name: &str) -> Identity {
        self.sign(params(name, &[]), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("keys can be made");
        let cert = params.signed_by(&key, &self.issuer).expect("the parameters are complete").pem();
        Identity { cert, key: key.serialize_pem() }
    }
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the names are names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// What a server with TLS asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Whoever comes.
    Any,
    /// A certificate of the same authority.
    Certified,
}

/// A server with two ports: a plain one, by which the test talks to it, and one for TLS.
pub struct TlsServer {
    /// The server; its own port is the plain one.
    pub server: Server,
    tls_port: u16,
}

impl TlsServer {
    /// Starts the program; None when it cannot speak TLS.
    pub async fn start(program: &str, authority: &Authority, identity: &Identity, clients: Clients) -> Option<Self> {
        if !speaks_tls(program).await {
            println!("{program} is built without TLS: skipped");
            return None;
        }
        let server = Server::start_as(program, || setup(authority, identity, clients)).await;
        let tls_port = server.setup().port_of("--tls-port");
        Some(Self { server, tls_port })
    }

    /// Where it speaks TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }
}

/// Options and files of a server with TLS on a free port.
pub fn setup(authority: &Authority, identity: &Identity, clients: Clients) -> Setup {
    let files = vec![("ca.crt", authority.cert.clone()), ("tls.crt", identity.cert.clone()), ("tls.key", identity.key.clone())];
    Setup { files, ..Setup::default() }
        .with("--tls-port", &[&free_port().to_string()])
        .with("--tls-ca-cert-file", &["ca.crt"])
        .with("--tls-cert-file", &["tls.crt"])
        .with("--tls-key-file", &["tls.key"])
        .with("--tls-auth-clients", &[if clients == Clients::Certified { "yes" } else { "no" }])
}

/// Whether the program is built with TLS: it says so when it is started with a port for it and no certificate.
pub async fn speaks_tls(program: &str) -> bool {
    let mut command = tokio::process::Command::new(program);
    command.args(["--port", "0", "--tls-port", &free_port().to_string(), "--save", ""]).kill_on_drop(true);
    let output = command.output().await.unwrap_or_else(|error| panic!("cannot run '{program}': {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // Without a certificate no server starts; one with TLS misses the certificate, one without misses TLS itself.
    said.contains("tls-cert-file")
}
