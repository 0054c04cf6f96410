//! Answers that certificate authorities look for: over HTTP a token in the path and a text in return (RFC 8555, 8.3), over
//! TLS a certificate with a proof in it, which nobody else is ever shown (RFC 8737). They are there only while somebody is
//! asked to look; an unknown token is the site's business.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::policy::provider;

/// Where authorities look over HTTP.
pub const PREFIX: &str = "/.well-known/acme-challenge/";
/// The one protocol that they speak over TLS.
const PROTOCOL: &[u8] = b"acme-tls/1";

/// Cheap to clone. Read only by requests below `PREFIX` and by handshakes for `PROTOCOL`, so that nobody else ever waits.
#[derive(Clone, Default)]
pub(super) struct Challenges(Arc<RwLock<Shown>>);

#[derive(Default)]
struct Shown {
    answers: HashMap<String, String>,
    proofs: HashMap<String, Arc<ServerConfig>>,
}

impl Challenges {
    pub(super) fn answer(&self, token: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).answers.get(token).cloned()
    }

    /// For a client that names this host and offers these protocols.
    pub(super) fn proof<'a>(
        &self,
        host: Option<&str>,
        mut offered: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Arc<ServerConfig>> {
        if offered.next() != Some(PROTOCOL) || offered.next().is_some() {
            return None;
        }
        self.0.read().unwrap_or_else(PoisonError::into_inner).proofs.get(host?).cloned()
    }

    /// Until the guard is dropped.
    pub(super) fn show_answer(&self, token: &str, answer: &str) -> Showing {
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        shown.answers.insert(token.to_owned(), answer.to_owned());
        Showing { challenges: self.clone(), key: token.to_owned() }
    }

    /// Until the guard is dropped. `digest` is the SHA-256 of the key authorization.
    pub(super) fn show_proof(&self, host: &str, digest: &[u8]) -> Result<Showing, String> {
        let made = proof(host, digest)?;
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        shown.proofs.insert(host.to_owned(), Arc::new(made));
        Ok(Showing { challenges: self.clone(), key: host.to_owned() })
    }
}

fn proof(host: &str, digest: &[u8]) -> Result<ServerConfig, String> {
    if digest.len() != 32 {
        return Err("a digest of SHA-256 has 32 bytes".to_owned());
    }
    let told = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(told)?;
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(told)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let leaf = params.self_signed(&key).map_err(told)?;
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = provider();
    let secret = provider.key_provider.load_private_key(secret).map_err(|error| error.to_string())?;
    // Not the usual way, which looks into the certificate and stumbles over the proof: a critical extension.
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![leaf.der().clone()], secret));
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Of one challenge; its end takes it away.
pub(super) struct Showing {
    challenges: Challenges,
    key: String,
}

impl Drop for Showing {
    fn drop(&mut self) {
        let mut shown = self.challenges.0.write().unwrap_or_else(PoisonError::into_inner);
        // Tokens and hosts are never alike: a token has no dot.
        shown.answers.remove(&self.key);
        shown.proofs.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_while_it_is_shown() {
        let challenges = Challenges::default();
        let showing = challenges.show_answer("token", "token.thumbprint");
        assert_eq!(challenges.answer("token").as_deref(), Some("token.thumbprint"));
        assert_eq!(challenges.answer("other"), None);
        drop(showing);
        assert_eq!(challenges.answer("token"), None);
    }

    #[test]
    fn a_proof_is_for_those_who_speak_nothing_else() {
        let challenges = Challenges::default();
        let showing = challenges.show_proof("a.test", &[7; 32]).expect("a proof");
        let find = |host: Option<&str>, offered: &[&[u8]]| challenges.proof(host, offered.iter().copied()).is_some();
        assert!(find(Some("a.test"), &[PROTOCOL]));
        assert!(!find(Some("a.test"), &[b"h2", PROTOCOL]) && !find(Some("a.test"), &[PROTOCOL, b"h2"]));
        assert!(!find(Some("b.test"), &[PROTOCOL]) && !find(None, &[PROTOCOL]) && !find(Some("a.test"), &[]));
        drop(showing);
        assert!(!find(Some("a.test"), &[PROTOCOL]));
    }
}
