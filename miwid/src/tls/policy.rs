//! What a handshake must keep to: versions, client certificates, and whose sessions may be resumed.
//!
//! Sessions are kept apart by policy. Were they shared, a client that was let in under a lax policy could resume under a
//! strict one and never show a certificate.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, pem::PemObject},
    server::{ProducesTickets, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    forgettable::Remembered,
    pair::sha256,
    tickets::{Keys, Tickets},
};

/// Sessions of clients that take no tickets, for each policy.
const SESSIONS_MAX: usize = 4096;
/// Policies that sessions are remembered for; each new content of a `client_ca` file makes one.
const POLICIES_MAX: usize = 64;
const TICKETS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Demand {
    Off,
    Request,
    Require,
}

/// Equal policies may share sessions and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Policy {
    pub(super) demand: Demand,
    /// Who may sign client certificates; 0 when none are asked for. The same after a reload if the file is the same.
    pub(super) authorities: u64,
    pub(super) only_tls13: bool,
    pub(super) transport: Transport,
}

/// A session begun over one must not be resumed over the other: they settle different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Transport {
    Tcp,
    Quic,
}

impl Policy {
    /// What decides whether two hosts ask the same of their clients. Versions are compared by themselves.
    pub(super) fn client_auth(self) -> u64 {
        match self.demand {
            Demand::Off => 0,
            Demand::Request => self.authorities | 1,
            Demand::Require => self.authorities & !1 | 2,
        }
    }

    /// What a ticket is bound to: the same in every engine that asks the same.
    fn tag(self) -> Vec<u8> {
        let head = [self.demand as u8, u8::from(self.only_tls13), self.transport as u8];
        [&head[..], &self.authorities.to_be_bytes()].concat()
    }

    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        const ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];
        const ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        if self.only_tls13 { &ONLY_TLS13 } else { &ALL }
    }
}

/// Authorities as read from a file.
#[derive(Clone)]
pub(super) struct Authorities {
    roots: Arc<RootCertStore>,
    pub(super) id: u64,
}

impl Authorities {
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::read(&text, &path.display().to_string())
    }

    /// `place` is where the text is from.
    pub(super) fn read(text: &[u8], place: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text) {
            let certificate = certificate.map_err(|error| format!("{place} is not PEM: {error}"))?;
            roots.add(certificate).map_err(|error| format!("{place}: {error}"))?;
        }
        if roots.is_empty() {
            return Err(format!("there is no certificate in {place}"));
        }
        // The lowest bits tell `request` from `require`.
        let id = u64::from_str_radix(&sha256(text)[..16], 16).unwrap_or(u64::MAX) & !3 | 4;
        Ok(Self { roots: Arc::new(roots), id })
    }

    fn verifier(&self, demand: Demand, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone());
        let builder = if demand == Demand::Request { builder.allow_unauthenticated() } else { builder };
        builder.build().map_err(|error| error.to_string())
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    // Its groups begin with X25519MLKEM768; a server follows the client's order all the same.
    Arc::new(aws_lc_rs::default_provider())
}

/// Where the sessions of one policy are kept.
#[derive(Clone)]
struct Resumption {
    ticketer: Arc<Tickets>,
    storage: Arc<Remembered>,
}

#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// Sessions by policy; they outlive reloads. Tickets outlive engines, too; what is remembered here does not.
#[derive(Default)]
pub(super) struct Sessions {
    keys: Arc<Keys>,
    known: Mutex<HashMap<Policy, Resumption>>,
}

impl Sessions {
    fn of(&self, policy: Policy) -> Resumption {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resumption) = known.get(&policy) {
            return resumption.clone();
        }
        if known.len() >= POLICIES_MAX {
            // Running configurations keep theirs; only after the next reload clients without tickets begin anew.
            known.clear();
        }
        let ticketer = Tickets::new(self.keys.clone(), policy.tag());
        let resumption = Resumption { ticketer, storage: Remembered::new(SESSIONS_MAX) };
        known.insert(policy, resumption.clone());
        resumption
    }

    /// Goes on with the ticket keys of the engine before; `keeper` has them for the next one.
    pub(super) fn inherit(&self, keys: &[u8], keeper: impl Fn(&[u8]) + Send + Sync + 'static) {
        self.keys.inherit(keys, keeper);
    }

    /// Nobody resumes what was settled before, under whatever configuration that still runs.
    pub(super) fn forget(&self) {
        self.keys.forget();
        for Resumption { storage, .. } in self.known.lock().unwrap_or_else(PoisonError::into_inner).values() {
            storage.forget();
        }
    }

    pub(super) fn config(
        &self,
        policy: Policy,
        authorities: Option<&Authorities>,
        resolver: Arc<dyn ResolvesServerCert>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(policy.versions())
            .map_err(|error| error.to_string())?;
        let builder = match authorities.filter(|_| policy.demand != Demand::Off) {
            Some(authorities) => builder.with_client_cert_verifier(authorities.verifier(policy.demand, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver);
        let Resumption { ticketer, storage } = self.of(policy);
        (config.ticketer, config.session_storage) = (ticketer, storage);
        config.send_tls13_tickets = TICKETS;
        Ok(config)
    }

    /// Lets clients that come back send before the handshake is over. Their sessions are kept here instead of in tickets, and
    /// each can be resumed once: what they send cannot be sent again by somebody else (RFC 8446, 8.1).
    pub(super) fn allow_early_data(config: &mut ServerConfig) {
        config.ticketer = Arc::new(NoTickets);
        // QUIC knows no other number (RFC 9001, 4.6.1).
        config.max_early_data_size = u32::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_shared_within_a_policy_only() {
        let sessions = Sessions::default();
        let lax = Policy { demand: Demand::Off, authorities: 0, only_tls13: false, transport: Transport::Tcp };
        let of = |policy| sessions.of(policy);
        let others = [
            Policy { demand: Demand::Request, authorities: 8, ..lax },
            Policy { demand: Demand::Require, authorities: 8, ..lax },
            Policy { demand: Demand::Require, authorities: 12, ..lax },
            Policy { only_tls13: true, ..lax },
            Policy { transport: Transport::Quic, ..lax },
        ];
        let ticket = of(lax).ticketer.encrypt(b"session").expect("a ticket");
        assert_eq!(of(lax).ticketer.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        for other in others {
            assert_eq!(of(other).ticketer.decrypt(&ticket), None, "{other:?}");
            assert!(!Arc::ptr_eq(&of(lax).storage, &of(other).storage), "{other:?}");
        }
        let ids: std::collections::HashSet<u64> =
            [lax, others[0], others[1], others[2]].iter().map(|it| it.client_auth()).collect();
        assert_eq!(ids.len(), 4, "each asks something else of its clients");
    }

    #[test]
    fn the_hybrid_group_comes_first() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
