//! A certificate with its key: read from PEM files, judged, and described for people. A key never gets into a message.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    Error, InconsistentKeys,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

use super::names::normalized;

/// Who signed a certificate, as far as we care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// It came in files, and whoever wrote them renews it.
    File,
    Local,
    Cloudflare,
    Acme,
    /// An operator brought it, and has to bring the next.
    Imported,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The site that shows it, or `default`.
    pub name: String,
    /// What it is good for: names, wildcards, addresses.
    pub hosts: Vec<String>,
    pub issued: Issued,
    pub issuer: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub serial: String,
    /// Of its DER form, in lower-case hexadecimal.
    pub sha256: String,
}

impl Certificate {
    pub(super) fn read(name: &str, issued: Issued, der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let validity = certificate.validity();
        Ok(Self {
            name: name.to_owned(),
            hosts: hosts(&certificate),
            issued,
            issuer: certificate.issuer().to_string(),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
            serial: certificate.raw_serial_as_string(),
            sha256: sha256(der),
        })
    }

    /// Less than a third of its life is left.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after.duration_since(now).unwrap_or_default() < life / 3
    }

    /// When a third of its life is left.
    pub fn renewal(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after - life / 3
    }
}

/// The names that clients go by; the subject counts for nothing since RFC 6125.
fn hosts(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(normalized(name)),
        GeneralName::IPAddress(bytes) => address(bytes).map(|it| it.to_string()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

fn time(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}

/// Borrowed from the provider, so that no other crate has to bring its own.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let rustls::SupportedCipherSuite::Tls13(suite) = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        return String::new();
    };
    suite.common.hash_provider.hash(bytes).as_ref().iter().map(|it| format!("{it:02x}")).collect()
}

/// A certificate that can be shown, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) certificate: Certificate,
    /// As `Secured` wants them.
    pub(super) names: Arc<[String]>,
}

/// Which of the two files is to blame, and how.
#[derive(Debug)]
pub(super) enum Bad {
    Certificate(String, &'static str),
    Key(String, &'static str),
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Certificate(message, _) | Self::Key(message, _)) = self;
        f.write_str(message)
    }
}

const NOT_PEM: &str = "it must be PEM text: `-----BEGIN CERTIFICATE-----`, the server's own certificate first";
const NOT_KEY: &str = "it must be PEM text with `-----BEGIN PRIVATE KEY-----`, unencrypted (RSA, ECDSA or Ed25519)";
const NOT_OF_A_PAIR: &str = "give the key that the certificate was requested with";
const MODE: &str = "the user that miwid runs as must be able to read it";

impl Pair {
    pub(super) fn new(
        name: &str,
        issued: Issued,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, Bad> {
        let first = chain.first().ok_or_else(|| Bad::Certificate("there is no certificate in it".into(), NOT_PEM))?;
        let certificate =
            Certificate::read(name, issued, first).map_err(|message| Bad::Certificate(message, NOT_PEM))?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Bad::Key("the key does not belong to the certificate".into(), NOT_OF_A_PAIR)
            }
            other => Bad::Key(format!("the key cannot be used: {other}"), NOT_KEY),
        })?;
        let names = certificate.hosts.clone().into();
        Ok(Self { certified: Arc::new(certified), certificate, names })
    }

    pub(super) fn load(name: &str, cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Self, Bad> {
        let text = fs::read(cert).map_err(|error| {
            let message = format!("cannot read {}: {error}", cert.display());
            Bad::Certificate(message, hint(&error))
        })?;
        let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = match chain {
            Ok(chain) if !chain.is_empty() => chain,
            Ok(_) => return Err(Bad::Certificate(format!("there is no certificate in {}", cert.display()), NOT_PEM)),
            Err(error) => return Err(Bad::Certificate(format!("{} is not PEM: {error}", cert.display()), NOT_PEM)),
        };
        let text =
            fs::read(key).map_err(|error| Bad::Key(format!("cannot read {}: {error}", key.display()), hint(&error)))?;
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| Bad::Key(format!("there is no usable private key in {}", key.display()), NOT_KEY))?;
        Self::new(name, Issued::File, chain, key, provider)
    }
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        MODE
    } else {
        "check the path; relative ones start at the configuration file"
    }
}
