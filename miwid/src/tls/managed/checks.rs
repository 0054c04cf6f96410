//! What a certificate must be like before it is believed. Pure: a text and what was expected of it.
//!
//! A certificate that fails any of this is dropped, and the one that is there goes on: a wrong one is worse than an old one.

use std::time::{Duration, SystemTime};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use x509_parser::prelude::X509Certificate;

use crate::tls::{
    names::covered,
    pair::{Bad, Issued, Pair},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What was asked for.
pub(super) struct Expected<'a> {
    pub(super) name: &'a str,
    pub(super) hosts: &'a [String],
    pub(super) key_pem: &'a str,
    pub(super) issued: Issued,
    pub(super) days: Option<u32>,
    /// The new one must outlive this, unless it may be any.
    pub(super) outlives: Option<SystemTime>,
    /// Who may have signed; empty: anybody.
    pub(super) roots: &'a [CertificateDer<'static>],
    pub(super) revoked: &'a [String],
    pub(super) now: SystemTime,
}

#[derive(Debug)]
pub(super) struct Judged {
    pub(super) pair: Pair,
    /// The leaf first, in one way of writing.
    pub(super) chain_pem: String,
    pub(super) warnings: Vec<String>,
}

/// A word for the counter, and the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

fn no<T>(reason: &'static str, message: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection { reason, message: message.into() })
}

pub(super) fn judge(text: &str, expected: &Expected<'_>, provider: &CryptoProvider) -> Result<Judged, Rejection> {
    let mut warnings = Vec::new();
    let chain = leaf_first(text, &mut warnings)?;
    let (_, leaf) =
        x509_parser::parse_x509_certificate(&chain[0]).or_else(|_| no("unreadable", "it cannot be read"))?;
    if expected.revoked.iter().any(|it| *it == leaf.tbs_certificate.serial.to_string()) {
        return no("revoked", "it is one that was revoked");
    }
    let key = PrivateKeyDer::from_pem_slice(expected.key_pem.as_bytes())
        .or_else(|_| no("key-unreadable", "our own key cannot be read"))?;
    let made = Pair::new(expected.name, expected.issued, chain.clone(), key, provider);
    let pair = match made {
        Ok(pair) => pair,
        Err(Bad::Key(message, _)) if message.contains("does not belong") => {
            return no("wrong-key", "it is for another key than ours");
        }
        Err(Bad::Key(message, _) | Bad::Certificate(message, _)) => return no("unusable", message),
    };
    names(&pair, expected)?;
    dates(&pair, expected, &mut warnings)?;
    usages(&leaf)?;
    signed(&leaf, expected.roots)?;
    if expected.issued == Issued::Acme {
        linked(&chain)?;
    }
    Ok(Judged { pair, chain_pem: written(&chain), warnings })
}

/// The certificates of the text, the one that is no authority in front.
fn leaf_first(text: &str, warnings: &mut Vec<String>) -> Result<Vec<CertificateDer<'static>>, Rejection> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let mut chain = match read {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => return no("no-certificate", "there is no certificate in it"),
        Err(error) => return no("unreadable", format!("it is not PEM: {error}")),
    };
    let is_leaf = |der: &CertificateDer<'_>| {
        x509_parser::parse_x509_certificate(der)
            .is_ok_and(|(_, it)| !it.basic_constraints().ok().flatten().is_some_and(|it| it.value.ca))
    };
    match chain.iter().position(is_leaf) {
        None => no("no-leaf", "it holds only certificates of authorities"),
        Some(0) => Ok(chain),
        Some(at) => {
            warnings.push("the certificate of the server was not the first; the order is mended".to_owned());
            let leaf = chain.remove(at);
            chain.insert(0, leaf);
            Ok(chain)
        }
    }
}

fn names(pair: &Pair, expected: &Expected<'_>) -> Result<(), Rejection> {
    let is_there = |host: &&String| pair.names.contains(*host) || covered(&pair.names, host);
    let missing: Vec<&str> = expected.hosts.iter().filter(|it| !is_there(it)).map(String::as_str).collect();
    if missing.is_empty() { Ok(()) } else { no("names", format!("it is not for {}", missing.join(", "))) }
}

fn dates(pair: &Pair, expected: &Expected<'_>, warnings: &mut Vec<String>) -> Result<(), Rejection> {
    let (it, now) = (&pair.certificate, expected.now);
    if it.not_before > now + MINUTE * 5 {
        return no("not-yet-valid", "it is not valid yet: is the clock of this machine right?");
    }
    if it.not_after <= now + HOUR {
        return no("expired", "it has ended, or will within the hour: is the clock of this machine right?");
    }
    if expected.outlives.is_some_and(|end| it.not_after <= end) {
        return no("not-newer", "it ends no later than the one that is there");
    }
    let life = it.not_after.duration_since(it.not_before).unwrap_or_default();
    if let Some(days) = expected.days {
        let asked = DAY * days;
        if life > asked + DAY * 2 || life + DAY * 2 < asked {
            warnings.push(format!("{days} days were asked for, it lives for {}", life.as_secs() / DAY.as_secs()));
        }
    }
    Ok(())
}

/// Without the extension it is good for everything.
fn usages(leaf: &X509Certificate<'_>) -> Result<(), Rejection> {
    match leaf.extended_key_usage() {
        Ok(Some(usage)) if !usage.value.server_auth && !usage.value.any => {
            no("usage", "it is not for servers (extended key usage)")
        }
        Ok(_) => Ok(()),
        Err(_) => no("unreadable", "its extended key usage cannot be read"),
    }
}

/// By one of the roots. That a leaf outlives its root is no fault: Origin CA makes such ones.
fn signed(leaf: &X509Certificate<'_>, roots: &[CertificateDer<'static>]) -> Result<(), Rejection> {
    if roots.is_empty() {
        return Ok(());
    }
    let by = |root: &CertificateDer<'_>| {
        x509_parser::parse_x509_certificate(root)
            .is_ok_and(|(_, root)| leaf.verify_signature(Some(root.public_key())).is_ok())
    };
    if roots.iter().any(by) { Ok(()) } else { no("signature", "none of the known roots has signed it") }
}

/// Each by the next: clients are given the whole way.
fn linked(chain: &[CertificateDer<'_>]) -> Result<(), Rejection> {
    for pair in chain.windows(2) {
        let [Ok((_, one)), Ok((_, next))] = [&pair[0], &pair[1]].map(|it| x509_parser::parse_x509_certificate(it))
        else {
            return no("unreadable", "a certificate of the chain cannot be read");
        };
        if one.verify_signature(Some(next.public_key())).is_err() {
            return no("chain", "the certificates of its chain do not sign one another");
        }
    }
    Ok(())
}

fn written(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
}

fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().chain([&0, &0]).take(3).fold(0_u32, |it, byte| it << 8 | u32::from(*byte));
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|it| std::str::from_utf8(it).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
