//! TLS for the load. It believes every certificate: the server is one of ours, on the loopback.
//!
//! Only X25519 is offered, so that every server does the same work, whatever hybrid groups it knows.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Whether sessions are kept for the next connection.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Sessions {
    Fresh,
    Kept,
}

pub(crate) fn client(protocol: &[u8], sessions: Sessions) -> Result<ClientConfig, Error> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let provider = Arc::new(provider);
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything(provider)))
        .with_no_client_auth();
    client.alpn_protocols = vec![protocol.to_vec()];
    client.resumption = match sessions {
        Sessions::Fresh => Resumption::disabled(),
        Sessions::Kept => Resumption::in_memory_sessions(64),
    };
    Ok(client)
}

pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a host name")
}

#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

// === impl Anything ===

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
