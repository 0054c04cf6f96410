//! Every check with a certificate that fails it and nothing else.

#![allow(clippy::unwrap_used)]

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, RsaKeySize,
};

use super::*;
use crate::tls::policy::provider;

struct Case {
    authority: Issuer<'static, KeyPair>,
    root_pem: String,
    key: KeyPair,
    key_pem: String,
    hosts: [String; 2],
    params: CertificateParams,
    now: SystemTime,
}

impl Case {
    fn new() -> Self {
        let (authority, root_pem) = authority();
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let mut params = CertificateParams::new(vec!["a.test".to_owned(), "*.a.test".to_owned()]).unwrap();
        (params.not_before, params.not_after) = ((now - MINUTE * 5).into(), (now + DAY * 90).into());
        let key = KeyPair::generate().unwrap();
        let hosts = ["a.test".to_owned(), "*.a.test".to_owned()];
        Self { authority, root_pem, key_pem: key.serialize_pem(), key, hosts, params, now }
    }

    fn pem(&self) -> String {
        self.params.signed_by(&self.key, &self.authority).unwrap().pem()
    }

    fn judge<'a>(&'a self, text: &str, change: impl FnOnce(&mut Expected<'a>)) -> Result<Judged, &'static str> {
        let mut expected = Expected {
            name: "a",
            hosts: &self.hosts,
            key_pem: &self.key_pem,
            issued: Issued::Cloudflare,
            days: Some(90),
            outlives: None,
            roots: &[],
            revoked: &[],
            now: self.now,
        };
        change(&mut expected);
        judge(text, &expected, &provider()).map_err(|it| it.reason)
    }

    /// What is said about a certificate with these parameters.
    fn said(change: impl FnOnce(&mut Self)) -> Result<Vec<String>, &'static str> {
        let mut case = Self::new();
        change(&mut case);
        case.judge(&case.pem(), |_| {}).map(|it| it.warnings)
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

#[test]
fn a_good_one_passes_however_it_is_written() {
    let case = Case::new();
    let pem = case.pem().replace("\r\n", "\n");
    for text in [
        pem.clone(),
        pem.replace('\n', "\r\n"),
        format!("Bag Attributes\n  localKeyID: 01\n{pem}the end\n"),
        format!("{pem}{}", case.root_pem),
    ] {
        let judged = case.judge(&text, |_| {}).unwrap();
        assert!(judged.warnings.is_empty() && judged.chain_pem.starts_with(&pem), "{text}");
        assert_eq!(judged.pair.certificate.hosts, ["a.test", "*.a.test"]);
    }
    let judged = case.judge(&format!("{}{pem}", case.root_pem), |_| {}).unwrap();
    assert!(judged.chain_pem.starts_with(&pem) && judged.warnings[0].contains("order"));
}

// F23, F24
#[test]
fn what_is_no_certificate_of_ours_is_rejected() {
    let case = Case::new();
    for (text, reason) in [
        ("", "no-certificate"),
        ("-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n", "no-certificate"),
        ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "unreadable"),
        (&*case.root_pem, "no-leaf"),
    ] {
        assert_eq!(case.judge(text, |_| {}).err(), Some(reason), "{text}");
    }
    let other = KeyPair::generate().unwrap();
    let foreign = case.params.signed_by(&other, &case.authority).unwrap().pem();
    assert_eq!(case.judge(&foreign, |_| {}).err(), Some("wrong-key"));
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let foreign = case.params.signed_by(&rsa, &case.authority).unwrap().pem();
    assert_eq!(case.judge(&foreign, |_| {}).err(), Some("wrong-key"), "a key of another kind");
}

#[test]
fn names_dates_and_uses_must_be_right() {
    let names = |it: &[&str]| {
        CertificateParams::new(it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).unwrap().subject_alt_names
    };
    assert_eq!(Case::said(|it| it.params.subject_alt_names = names(&["a.test"])), Err("names"));
    assert_eq!(Case::said(|it| it.params.subject_alt_names = names(&["b.test"])), Err("names"));
    assert_eq!(Case::said(|it| it.params.subject_alt_names = names(&["A.TEST", "*.A.test", "more.test"])), Ok(vec![]));
    assert_eq!(Case::said(|it| it.params.not_after = (it.now - DAY).into()), Err("expired"));
    assert_eq!(Case::said(|it| it.params.not_after = (it.now + MINUTE * 30).into()), Err("expired"));
    assert_eq!(Case::said(|it| it.params.not_before = (it.now + HOUR).into()), Err("not-yet-valid"));
    assert_eq!(Case::said(|it| it.params.not_before = (it.now + MINUTE * 4).into()), Ok(vec![]));
    let client = vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert_eq!(Case::said(|it| it.params.extended_key_usages = client), Err("usage"));
    let both = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(Case::said(|it| it.params.extended_key_usages = both), Ok(vec![]));
    let years = Case::said(|it| it.params.not_after = (it.now + DAY * 5475).into()).unwrap();
    assert!(years[0].contains("90 days were asked for"), "{years:?}");
}

#[test]
fn it_must_outlive_the_old_one_and_not_be_one_that_was_revoked() {
    let case = Case::new();
    let (pem, end) = (case.pem(), case.now + DAY * 90);
    assert_eq!(case.judge(&pem, |it| it.outlives = Some(end)).err(), Some("not-newer"));
    assert!(case.judge(&pem, |it| it.outlives = Some(end - DAY)).is_ok());
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let serial = x509_parser::parse_x509_certificate(&der).unwrap().1.tbs_certificate.serial.to_string();
    assert_eq!(case.judge(&pem, |it| it.revoked = std::slice::from_ref(&serial)).err(), Some("revoked"));
}

// F28
#[test]
fn a_known_root_must_have_signed_it_even_if_it_ends_before_the_leaf() {
    let case = Case::new();
    let root = |pem: &str| vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let (ours, theirs) = (root(&case.root_pem), root(&authority().1));
    assert!(case.judge(&case.pem(), |it| it.roots = &ours).is_ok());
    assert_eq!(case.judge(&case.pem(), |it| it.roots = &theirs).err(), Some("signature"));
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = (case.now + DAY).into();
    let short = root(&params.self_signed(case.authority.key()).unwrap().pem());
    assert!(case.judge(&case.pem(), |it| it.roots = &short).is_ok());
}
