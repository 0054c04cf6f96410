//! What this kernel can do of TLS, tried on connections to ourselves: its version says little, for distributions build it with
//! and without the module, and a container may not load one.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use nix::{
    errno::Errno,
    sys::socket::{
        setsockopt,
        sockopt::{TcpTlsRx, TcpTlsTx, TcpUlp, TlsCryptoInfo},
    },
};
use rustls::CipherSuite;

use super::keys::samples;

/// The ciphers of TLS 1.3 that the kernel takes, and whether it takes new keys for a connection that has some (Linux 6.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    aes128: bool,
    aes256: bool,
    chacha: bool,
    pub(super) renews: bool,
}

/// Why there is none.
#[derive(Debug)]
pub(in super::super) enum Lack {
    NoModule,
    NoCipher,
    Failed(io::Error),
}

impl Support {
    pub(in super::super) fn takes(self, suite: CipherSuite) -> bool {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => self.aes128,
            CipherSuite::TLS13_AES_256_GCM_SHA384 => self.aes256,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => self.chacha,
            _ => false,
        }
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(self.aes128, "AES-128-GCM"), (self.aes256, "AES-256-GCM"), (self.chacha, "ChaCha20-Poly1305")];
        let taken: Vec<_> = names.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        write!(f, "{}", taken.join(", "))?;
        if self.renews { Ok(()) } else { write!(f, "; without new keys, for which Linux 6.14 is needed") }
    }
}

impl Lack {
    pub(in super::super) fn remedy(&self) -> &'static str {
        match self {
            Self::NoModule => "`modprobe tls` loads it, /etc/modules-load.d at every start; then reload",
            Self::NoCipher | Self::Failed(_) => "leave `ktls` out: everything is encrypted without it, too",
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModule => write!(f, "the kernel has no module for it loaded"),
            Self::NoCipher => write!(f, "the kernel takes none of the ciphers"),
            Self::Failed(error) => write!(f, "it could not be tried: {error}"),
        }
    }
}

/// Tries it. A few connections over loopback, which nobody else sees.
pub(in super::super) fn probe() -> Result<Support, Lack> {
    let [aes128, aes256, chacha] = samples().map(|keys| attempt(&pair().map_err(Lack::Failed)?, &keys));
    judge([aes128?, aes256?, chacha?])
}

fn judge(taken: [Taken; 3]) -> Result<Support, Lack> {
    let [aes128, aes256, chacha] = taken.map(|it| it != Taken::No);
    if !(aes128 || aes256 || chacha) {
        return Err(Lack::NoCipher);
    }
    Ok(Support { aes128, aes256, chacha, renews: taken.contains(&Taken::Again) })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    No,
    Once,
    Again,
}

fn attempt((near, _far): &(TcpStream, TcpStream), keys: &TlsCryptoInfo) -> Result<Taken, Lack> {
    match setsockopt(near, TcpUlp::default(), b"tls") {
        Ok(()) => {}
        Err(Errno::ENOENT) => return Err(Lack::NoModule),
        Err(error) => return Err(Lack::Failed(error.into())),
    }
    if setsockopt(near, TcpTlsTx, keys).is_err() || setsockopt(near, TcpTlsRx, keys).is_err() {
        return Ok(Taken::No);
    }
    Ok(if setsockopt(near, TcpTlsTx, keys).is_ok() { Taken::Again } else { Taken::Once })
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, peer) = listener.accept()?;
    // Somebody else on this machine may have been faster.
    if peer == near.local_addr()? { Ok((near, far)) } else { Err(ErrorKind::ConnectionAborted.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_took_is_what_it_supports() {
        let check = |taken, expected: Option<&str>| {
            let told = judge(taken).ok().map(|it| it.to_string());
            assert_eq!(told.as_deref(), expected);
        };
        check([Taken::No; 3], None);
        check([Taken::Again; 3], Some("AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305"));
        check(
            [Taken::Once, Taken::No, Taken::No],
            Some("AES-128-GCM; without new keys, for which Linux 6.14 is needed"),
        );
        let support = judge([Taken::No, Taken::Once, Taken::No]).expect("one cipher is enough");
        assert!(support.takes(CipherSuite::TLS13_AES_256_GCM_SHA384) && !support.renews);
        assert!(!support.takes(CipherSuite::TLS13_AES_128_GCM_SHA256));
        assert!(!support.takes(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384), "only TLS 1.3");
    }

    /// Whatever this kernel has: to try it says one or the other, and breaks nothing.
    #[test]
    fn the_probe_ends_with_an_answer() {
        match probe() {
            Ok(support) => assert!(!support.to_string().is_empty()),
            Err(lack) => assert!(!matches!(lack, Lack::Failed(_)), "{lack}"),
        }
    }
}
