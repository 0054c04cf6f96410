//! The two authorities of Origin CA, made anew for each double, and the certificates they sign: as asked, or spoiled.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SerialNumber,
};
use serde_json::Value;

const DAY: Duration = Duration::from_secs(86_400);

/// How a certificate differs from what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    WrongKey,
    WrongName,
    DropName,
    ValidityDays(u64),
    Expired,
    NotYetValid,
    /// Most of its life is over already: it is due for renewal as soon as it is there.
    Aged,
    NoLeaf,
    LeafLast,
    WithRoot,
    CrLf,
    GarbageAround,
    Empty,
    OtherRoot,
    ClientOnly,
    ExpiresOn(String),
    Id(String),
}

impl Mutation {
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        Ok(match value.as_str().unwrap_or_default() {
            "wrong_key" => Self::WrongKey,
            "wrong_san" => Self::WrongName,
            "drop_san" => Self::DropName,
            "expired" => Self::Expired,
            "not_before_future" => Self::NotYetValid,
            "aged" => Self::Aged,
            "no_leaf" => Self::NoLeaf,
            "leaf_last" => Self::LeafLast,
            "with_root" => Self::WithRoot,
            "crlf" => Self::CrLf,
            "garbage_around" => Self::GarbageAround,
            "empty_string" => Self::Empty,
            "other_root" => Self::OtherRoot,
            "client_eku_only" => Self::ClientOnly,
            other => return Err(format!("`{other}` is no mutation")),
        })
    }
}

pub(super) struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new(unit: &str, rsa: bool) -> Self {
        let key = if rsa {
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
        } else {
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        };
        let key = key.expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(&[
            (DnType::CountryName, "US"),
            (DnType::OrganizationName, "CloudFlare, Inc. (TEST DOUBLE)"),
            (DnType::OrganizationalUnitName, unit),
        ]);
        let pem = params.self_signed(&key).expect("a root").pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }
}

/// What to sign.
pub(super) struct Order<'a> {
    pub(super) csr: &'a CertificateSigningRequestParams,
    pub(super) hostnames: &'a [String],
    pub(super) days: u64,
    pub(super) now: SystemTime,
    pub(super) mutation: Option<&'a Mutation>,
}

/// The certificate's text, and when it ends.
pub(super) fn sign(authority: &Authority, other: &Authority, order: &Order<'_>) -> (String, SystemTime) {
    let mut hostnames = order.hostnames.to_vec();
    hostnames.sort_by_key(|it| (!it.starts_with("*."), it.clone()));
    let mutation = order.mutation;
    match mutation {
        Some(Mutation::WrongName) => hostnames = vec!["elsewhere.invalid".to_owned()],
        Some(Mutation::DropName) => drop(hostnames.pop()),
        _ => {}
    }
    let mut csr =
        CertificateSigningRequestParams { params: params(&hostnames), public_key: order.csr.public_key.clone() };
    let days = if let Some(Mutation::ValidityDays(days)) = mutation { *days } else { order.days };
    let not_before = floored(order.now) - Duration::from_secs(300);
    let (not_before, not_after) = match mutation {
        Some(Mutation::Expired) => (not_before - DAY * 100, not_before - DAY),
        Some(Mutation::NotYetValid) => (not_before + DAY * 2, not_before + DAY * 92),
        Some(Mutation::Aged) => (not_before - DAY * 88, not_before + DAY * 2),
        _ => (not_before, not_before + DAY * u32::try_from(days).unwrap_or(u32::MAX)),
    };
    (csr.params.not_before, csr.params.not_after) = (not_before.into(), not_after.into());
    if mutation == Some(&Mutation::ClientOnly) {
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }
    let signer = if mutation == Some(&Mutation::OtherRoot) { other } else { authority };
    let leaf = if mutation == Some(&Mutation::WrongKey) {
        csr.params.signed_by(&KeyPair::generate().expect("a key"), &signer.issuer)
    } else {
        csr.signed_by(&signer.issuer)
    };
    let leaf = leaf.expect("the request was judged before").pem();
    let text = match mutation {
        Some(Mutation::NoLeaf) => authority.pem.clone(),
        Some(Mutation::LeafLast) => format!("{}{leaf}", authority.pem),
        Some(Mutation::WithRoot) => format!("{leaf}{}", authority.pem),
        Some(Mutation::CrLf) => leaf.replace('\n', "\r\n"),
        Some(Mutation::GarbageAround) => format!("Bag Attributes\n  localKeyID: 01\n{leaf}trailing words\n"),
        Some(Mutation::Empty) => String::new(),
        _ => leaf,
    };
    (text, not_after)
}

fn params(hostnames: &[String]) -> CertificateParams {
    let mut params = CertificateParams::new(hostnames.to_vec()).expect("the names were judged before");
    params.distinguished_name = named(&[
        (DnType::OrganizationName, "CloudFlare, Inc."),
        (DnType::OrganizationalUnitName, "CloudFlare Origin CA"),
        (DnType::CommonName, "CloudFlare Origin Certificate"),
    ]);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(serial());
    // Basic constraints that say in so many words that this is no authority, as Cloudflare's do.
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0x00])];
    params
}

/// 159 random bits: never negative, never short.
fn serial() -> SerialNumber {
    let mut bytes: Vec<u8> =
        [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].iter().flat_map(|it| *it.as_bytes()).collect();
    bytes.truncate(20);
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from(bytes)
}

fn named(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, text) in parts {
        name.push(kind.clone(), *text);
    }
    name
}

fn floored(at: SystemTime) -> SystemTime {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds / 60 * 60)
}
