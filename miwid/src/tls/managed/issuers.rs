//! Who can be asked, by what a configuration says.

use std::{collections::BTreeMap, sync::Arc};

use config::Config;

use super::{acme::Acme, issuer::Issuer};
use crate::tls::Tls;

pub(super) fn issuers(config: &Config, tls: &Tls) -> BTreeMap<String, Arc<Issuer>> {
    let mut issuers = BTreeMap::from([("local".to_owned(), Arc::new(Issuer::Local(tls.clone())))]);
    if let Some(acme) = &config.acme {
        let acme = Acme::new(acme, config.server.http_port != 0, tls.store(), tls.challenges());
        #[cfg(feature = "cloudflare")]
        let acme = acme.with_dns(api(config));
        issuers.insert("acme".to_owned(), Arc::new(Issuer::Acme(Box::new(acme))));
    }
    issuers.extend(cloudflare(config).map(|it| ("cloudflare-origin".to_owned(), Arc::new(it))));
    issuers
}

#[cfg(not(feature = "cloudflare"))]
fn cloudflare(_: &Config) -> Option<Issuer> {
    None
}

#[cfg(feature = "cloudflare")]
fn cloudflare(config: &Config) -> Option<Issuer> {
    let roots = config.cloudflare.origin_ca_roots.as_deref().map(roots).unwrap_or_default();
    Some(Issuer::Cloudflare { api: Box::new(api(config)?), roots })
}

/// With a token there is somebody to ask.
#[cfg(feature = "cloudflare")]
fn api(config: &Config) -> Option<crate::cloudflare::Api> {
    crate::cloudflare::Api::of(&config.cloudflare)
}

/// Those that cannot be read were refused when the configuration was.
#[cfg(feature = "cloudflare")]
fn roots(path: &std::path::Path) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let text = std::fs::read(path).unwrap_or_default();
    CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect()
}
