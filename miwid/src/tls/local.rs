//! The local CA: certificates for development, signed by a root that lives on this machine only.
//!
//! The root is written once and kept; what it signs lives in memory and is made anew at each start, because whoever trusts
//! the root does not care.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};

use super::pair::{Certificate, Issued, Pair};

const DAY: Duration = Duration::from_secs(86_400);
const ROOT_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// Browsers refuse certificates that live longer than 398 days, and scanners complain from 366 on; backdating counts.
const LEAF_LIFE: Duration = Duration::from_secs(364 * 86_400);
/// Clocks of other machines may be slow.
const BACKDATED: Duration = DAY;

/// The root, with all that it has signed since the start.
pub(super) struct LocalCa {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pem: String,
    /// Where the root lies; `None` when it lives in memory only.
    path: Option<PathBuf>,
    signed: BTreeMap<Vec<String>, Pair>,
}

impl LocalCa {
    /// The root in `storage`, made if there is none or it is about to end.
    pub(super) fn open(storage: &Path) -> io::Result<Self> {
        let directory = storage.join("local-ca");
        let (cert, key) = (directory.join("ca.pem"), directory.join("ca.key"));
        match (fs::read_to_string(&cert), fs::read_to_string(&key)) {
            (Ok(pem), Ok(key)) => {
                if let Some(ca) = Self::read(pem, &key, &cert) {
                    return Ok(ca);
                }
                tracing::warn!(target: "tls", "the local CA in {} is damaged or ends soon; a new one is made", directory.display());
            }
            (Err(error), _) | (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (ca, secret) = Self::generate().map_err(io::Error::other)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        write(&key, secret.as_bytes(), 0o600)?;
        write(&cert, ca.pem.as_bytes(), 0o600)?;
        Ok(Self { path: Some(cert), ..ca })
    }

    /// Leaves no trace.
    pub(super) fn in_memory() -> Result<Self, rcgen::Error> {
        Self::generate().map(|(ca, _)| ca)
    }

    fn read(pem: String, key: &str, path: &Path) -> Option<Self> {
        let key = KeyPair::from_pem(key).ok()?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let root = Certificate::read("local CA", Issued::Local, &der).ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
        let belongs = parsed.public_key().subject_public_key.data == key.public_key_raw();
        if !belongs || root.not_after < SystemTime::now() + LEAF_LIFE {
            return None;
        }
        let issuer = rcgen::Issuer::from_ca_cert_der(&der, key).ok()?;
        Some(Self { issuer, pem, path: Some(path.to_owned()), signed: BTreeMap::new() })
    }

    fn generate() -> Result<(Self, String), rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let secret = key.serialize_pem();
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::OrganizationName, "miwidothttp");
        // Two machines' roots must not look alike in one trust store.
        params.distinguished_name.push(DnType::CommonName, format!("miwid local CA {:08x}", fastrand::u32(..)));
        let now = SystemTime::now();
        (params.not_before, params.not_after) = ((now - BACKDATED).into(), (now + ROOT_LIFE).into());
        let pem = params.self_signed(&key)?.pem();
        let issuer = rcgen::Issuer::new(params, key);
        Ok((Self { issuer, pem, path: None, signed: BTreeMap::new() }, secret))
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The same names get the same certificate until less than a third of its life is left.
    pub(super) fn certificate(
        &mut self,
        name: &str,
        hosts: &[String],
        provider: &CryptoProvider,
    ) -> Result<Pair, String> {
        let mut hosts = hosts.to_vec();
        hosts.sort();
        hosts.dedup();
        if let Some(pair) = self.signed.get(&hosts).filter(|it| !it.certificate.is_due(SystemTime::now())) {
            let mut pair = pair.clone();
            pair.certificate.name = name.to_owned();
            return Ok(pair);
        }
        let pair = self.sign(name, &hosts, provider)?;
        self.signed.insert(hosts, pair.clone());
        Ok(pair)
    }

    /// The certificate that a signing request asks for, as PEM.
    pub(super) fn sign_request(&self, csr_pem: &str) -> Result<String, String> {
        let told = |error: rcgen::Error| format!("the local CA cannot sign: {error}");
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).map_err(told)?;
        csr.params.use_authority_key_identifier_extension = true;
        usages(&mut csr.params);
        csr.signed_by(&self.issuer).map(|it| it.pem()).map_err(told)
    }

    fn sign(&self, name: &str, hosts: &[String], provider: &CryptoProvider) -> Result<Pair, String> {
        let told = |error: rcgen::Error| format!("the local CA cannot sign for {}: {error}", hosts.join(", "));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(told)?;
        let mut params = CertificateParams::new(hosts.to_vec()).map_err(told)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, hosts.first().map_or("miwid", |it| &**it));
        params.use_authority_key_identifier_extension = true;
        usages(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).map_err(told)?;
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Pair::new(name, Issued::Local, vec![leaf.der().clone()], secret, provider)
            .map_err(|bad| format!("the local CA made an unusable certificate: {bad:?}"))
    }
}

/// What every leaf of ours is for, and how long.
fn usages(params: &mut CertificateParams) {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - BACKDATED).into(), (now + LEAF_LIFE).into());
}

/// Whole or not at all, also when the power fails in between.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{super::policy::provider, *};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn the_same_hosts_keep_their_certificate_and_others_get_another() {
        let (mut ca, provider) = (LocalCa::in_memory().unwrap(), provider());
        let mut sign = |hosts: &[&str]| ca.certificate("a", &names(hosts), &provider).unwrap().certificate;
        let first = sign(&["b.test", "a.test", "127.0.0.1"]);
        assert_eq!(first.hosts, ["127.0.0.1", "a.test", "b.test"]);
        assert_eq!(sign(&["a.test", "b.test", "127.0.0.1"]).sha256, first.sha256);
        assert_ne!(sign(&["a.test"]).sha256, first.sha256);
    }

    #[test]
    fn a_certificate_is_due_when_a_third_of_its_life_is_left() {
        let (mut ca, provider) = (LocalCa::in_memory().unwrap(), provider());
        let leaf = ca.certificate("a", &names(&["a.test"]), &provider).unwrap().certificate;
        let now = SystemTime::now();
        assert!(!leaf.is_due(now + DAY * 200));
        assert!(leaf.is_due(now + DAY * 260));
        assert!(leaf.is_due(now + DAY * 1000));
    }

    #[test]
    fn a_damaged_root_is_replaced_and_a_key_of_another_root_is_noticed() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pem = LocalCa::open(one.path()).unwrap().pem().to_owned();
        assert_eq!(LocalCa::open(one.path()).unwrap().pem(), pem, "an intact one is kept");
        LocalCa::open(other.path()).unwrap();
        fs::copy(other.path().join("local-ca/ca.key"), one.path().join("local-ca/ca.key")).unwrap();
        let replaced = LocalCa::open(one.path()).unwrap().pem().to_owned();
        assert_ne!(replaced, pem);
        fs::write(one.path().join("local-ca/ca.pem"), "nonsense").unwrap();
        assert_ne!(LocalCa::open(one.path()).unwrap().pem(), replaced);
    }
}
