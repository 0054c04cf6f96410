//! Keys and signing requests.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

/// A new P-256 key and the request that it signs, both as PEM with plain newlines.
pub(super) fn make(hosts: &[String]) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(hosts.to_vec())?;
    // Names are in the extension; a subject says nothing that anybody believes.
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((key.serialize_pem().replace("\r\n", "\n"), csr.replace("\r\n", "\n")))
}
