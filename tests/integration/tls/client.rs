//! An authority to trust, and a TLS client whose every choice the test makes.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    CipherSuite, ClientConfig, NamedGroup, RootCertStore,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate authority of the test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2100)
    }

    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.distinguished_name.push(DnType::CommonName, "somebody");
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

/// What a client brings along.
#[derive(Default)]
pub(crate) struct Wants<'a> {
    pub(crate) alpn: &'a [&'a str],
    pub(crate) only_group: Option<NamedGroup>,
    pub(crate) only_suite: Option<CipherSuite>,
    pub(crate) only_tls12: bool,
    pub(crate) shows: Option<&'a Pair>,
}

pub(crate) fn client(root: &str, wants: &Wants<'_>) -> Arc<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    if let Some(group) = wants.only_group {
        provider.kx_groups.retain(|it| it.name() == group);
        assert_eq!(provider.kx_groups.len(), 1);
    }
    if let Some(suite) = wants.only_suite {
        provider.cipher_suites.retain(|it| it.suite() == suite);
        assert_eq!(provider.cipher_suites.len(), 1);
    }
    let versions: &[_] =
        if wants.only_tls12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13, &rustls::version::TLS12] };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match wants.shows {
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = wants.alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    config.resumption = Resumption::store(Arc::new(OneShelf::default()));
    Arc::new(config)
}

/// A handshake for `name`; an address sends no name.
pub(crate) async fn connect(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    timeout(PATIENCE, TlsConnector::from(config.clone()).connect(name, stream)).await?
}

/// One request over HTTP/1.1 and its whole answer.
pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>, host: &str) -> io::Result<String> {
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await?;
    let mut seen = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = timeout(PATIENCE, stream.read(&mut chunk)).await??;
        if n == 0 {
            return Err(io::Error::other(format!("closed after {:?}", String::from_utf8_lossy(&seen))));
        }
        seen.extend_from_slice(&chunk[..n]);
        if let Some(answer) = complete(&seen) {
            return Ok(answer);
        }
    }
}

fn complete(seen: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(seen).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|it| it.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    (body.len() >= length.unwrap_or(0)).then_some(text)
}

/// The status of a GET for `host` on a connection for `name`.
pub(crate) async fn status(address: SocketAddr, name: &str, host: &str, config: &Arc<ClientConfig>) -> io::Result<u16> {
    let mut stream = connect(address, name, config).await?;
    let answer = ask(&mut stream, host).await?;
    Ok(answer[9..12].parse().unwrap_or_default())
}

/// An attacker's session store: it offers what it has to whatever server, not only to the one it came from.
#[derive(Debug)]
struct OneShelf(ClientSessionMemoryCache, Mutex<Option<NamedGroup>>);

impl Default for OneShelf {
    fn default() -> Self {
        Self(ClientSessionMemoryCache::new(32), Mutex::default())
    }
}

fn shelf() -> ServerName<'static> {
    ServerName::try_from("shelf.test").unwrap()
}

impl ClientSessionStore for OneShelf {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        *self.1.lock().unwrap() = Some(group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        *self.1.lock().unwrap()
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(shelf(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&shelf())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&shelf());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(shelf(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&shelf())
    }
}
