//! A double, a daemon that asks it, and clients that look at what is shown. The daemon's clock for certificates and the
//! double's are moved together; the store outlives the daemon.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use harness::{AnyCertificate, Builder, Daemon, Output, cloudflare::Cloudflare, wait};
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// `[ssl]` of a server that wants one certificate for its domain.
pub(super) const DOMAINS: &str = "auto_cert = true\ndomains = [\"example.com\", \"*.example.com\"]\n";

pub(super) struct World {
    pub(super) double: Cloudflare,
    pub(super) daemon: Daemon,
    lasting: Arc<Lasting>,
}

/// What a daemon finds when it starts again.
struct Lasting {
    dir: TempDir,
}

impl Lasting {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl World {
    /// With a store of the test's own.
    pub(super) async fn start_in(ssl: &str, storage: &str) -> Self {
        Self::with(Cloudflare::start().await, &format!("{ssl}{storage}")).await
    }

    pub(super) async fn start(ssl: &str) -> Self {
        Self::with(Cloudflare::start().await, ssl).await
    }

    pub(super) async fn with(double: Cloudflare, ssl: &str) -> Self {
        let lasting = Arc::new(Lasting { dir: tempfile::tempdir().unwrap() });
        std::fs::write(lasting.path("clock"), "0").unwrap();
        std::fs::write(lasting.path("api-ca.pem"), double.ca()).unwrap();
        std::fs::write(lasting.path("roots.pem"), double.roots()).unwrap();
        std::fs::write(lasting.path("token"), format!("{}\n", Cloudflare::TOKEN)).unwrap();
        let daemon = builder(&double, &lasting, ssl).start().await;
        Self { double, daemon, lasting }
    }

    /// Another daemon with the same store and clock, at the same time.
    pub(super) fn another(&self, ssl: &str) -> Builder {
        builder(&self.double, &self.lasting, ssl)
    }

    /// Ends the daemon and starts it again.
    pub(super) async fn restart(self, ssl: &str) -> Self {
        let Self { double, daemon, lasting } = self;
        assert!(daemon.stop().await.success());
        let daemon = builder(&double, &lasting, ssl).start().await;
        Self { double, daemon, lasting }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.lasting.path(name)
    }

    /// For the daemon and the double alike.
    pub(super) fn advance(&self, by: Duration) {
        let clock = self.file("clock");
        let before: u64 = std::fs::read_to_string(&clock).unwrap().parse().unwrap();
        let fresh = self.file("clock.new");
        std::fs::write(&fresh, (before + by.as_secs()).to_string()).unwrap();
        self.double.advance(by);
        std::fs::rename(fresh, clock).unwrap();
    }

    /// The daemon's alone: seconds before or after the right time.
    pub(super) fn set_clock(&self, seconds: i64) {
        let fresh = self.file("clock.new");
        std::fs::write(&fresh, seconds.to_string()).unwrap();
        std::fs::rename(fresh, self.file("clock")).unwrap();
    }

    pub(super) async fn list(&self) -> Vec<Value> {
        let listed = self.daemon.ctl_json(&["cert", "list"]).await;
        listed["certificates"].as_array().cloned().unwrap_or_default()
    }

    /// As `cert list` shows it; null when it does not.
    pub(super) async fn certificate(&self, name: &str) -> Value {
        let is_ours = |it: &Value| it["name"] == name && it["issuer"] != "local";
        self.list().await.into_iter().find(is_ours).unwrap_or(Value::Null)
    }

    pub(super) async fn certificate_where(&self, name: &str, what: &str, accept: impl Fn(&Value) -> bool) -> Value {
        wait::for_value(wait::LATER, what, || self.certificate(name), accept).await
    }

    pub(super) async fn issued(&self, name: &str) -> Value {
        self.certificate_where(name, "the certificate is there", |it| it["state"] == "ready").await
    }

    /// `cert request ARGS`.
    pub(super) async fn request(&self, args: &[&str]) -> Output {
        self.daemon.ctl(&[&["cert", "request"], args].concat()).await
    }

    /// The certificate that a client gets over TCP.
    pub(super) async fn shown(&self, host: &str) -> Leaf {
        let stream = handshake(&self.daemon, host).await.unwrap();
        Leaf::of(&stream.get_ref().1.peer_certificates().unwrap()[0])
    }

    pub(super) fn posts(&self) -> usize {
        self.double.count("POST", "/certificates")
    }

    pub(super) async fn state(&self) -> String {
        self.daemon.ctl_json(&["status"]).await["state"].as_str().unwrap_or_default().to_owned()
    }
}

fn builder(double: &Cloudflare, lasting: &Lasting, ssl: &str) -> Builder {
    let own = lasting.dir.path().display();
    let zone = harness::cloudflare::Zone::new("example.com").id;
    let storage = if ssl.contains("storage = ") { String::new() } else { format!("storage = \"{own}/store\"\n") };
    let config = format!(
        "[server]\nhttps_port = {{port2}}\nenable_https = true\n[ssl]\n{storage}{ssl}\n\
         [cloudflare]\napi_token_file = \"{own}/token\"\nzone_id = \"{zone}\"\napi_base = \"{}\"\norigin_ca_roots = \"{own}/roots.pem\"\n\
         [backends.\"app.example.com\"]\nrespond = {{ status = 200, body = \"app\" }}\n",
        double.base()
    );
    Daemon::builder(&config)
        .env("SSL_CERT_FILE", lasting.path("api-ca.pem"))
        .env("MIWID_TEST_CLOCK", lasting.path("clock"))
        .env("RUST_LOG", "debug")
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) issuer: String,
    pub(super) serial: String,
    pub(super) not_after: SystemTime,
}

impl Leaf {
    pub(super) fn of(der: &CertificateDer<'_>) -> Self {
        let (_, leaf) = x509_parser::parse_x509_certificate(der).unwrap();
        let end = u64::try_from(leaf.validity().not_after.timestamp()).unwrap();
        Self {
            issuer: leaf.issuer().to_string(),
            serial: leaf.tbs_certificate.serial.to_string(),
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(end),
        }
    }

    pub(super) fn is_cloudflares(&self) -> bool {
        self.issuer.contains("CloudFlare Origin SSL")
    }
}

pub(super) async fn handshake(daemon: &Daemon, host: &str) -> std::io::Result<TlsStream<TcpStream>> {
    connect(daemon, host, &[]).await
}

pub(super) async fn connect(daemon: &Daemon, host: &str, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(daemon.address(2)).await?;
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    TlsConnector::from(Arc::new(client(alpn))).connect(name, stream).await
}

/// Takes any certificate: the tests look at it themselves, at times that are not now.
pub(super) fn client(alpn: &[&str]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::default()))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    config
}
