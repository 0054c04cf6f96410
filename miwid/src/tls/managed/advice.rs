//! Renewal information (ARI, RFC 9773): an authority that wants a certificate replaced earlier than we would, or later, says so.
//! It is advice: what cannot be read is not followed, and the end of the certificate counts for more.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode, header};
use instant_acme::CertificateIdentifier;
use rustls::pki_types::{CertificateDer, Der, pem::PemObject};
use serde_json::Value;

use crate::{
    client::{Ask, Client},
    tls::store::Advice,
};

/// Without a word of the authority about it.
const AGAIN: Duration = Duration::from_secs(6 * 3600);
const AGAIN_LEAST: Duration = Duration::from_secs(60);
const AGAIN_MOST: Duration = Duration::from_secs(86_400);

/// What an authority calls the certificate that a chain begins with.
pub(super) fn identifier(chain_pem: &str) -> Option<CertificateIdentifier<'static>> {
    let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).ok()?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).ok()?;
    let key = leaf.extensions().iter().find_map(|it| match it.parsed_extension() {
        x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(it) => {
            it.key_identifier.as_ref().map(|it| it.0)
        }
        _ => None,
    })?;
    Some(CertificateIdentifier::new(Der::from_slice(key), Der::from_slice(leaf.raw_serial())))
}

/// What a directory says beside its addresses.
pub(super) struct Directory(Value);

impl Directory {
    pub(super) async fn read(client: &Client, url: &str) -> Result<Self, String> {
        let (_, _, body) = get(client, url).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| format!("the directory is no JSON: {error}"))
    }

    /// The names under which CAA records know the authority.
    pub(super) fn names(&self) -> Vec<&str> {
        self.0["meta"]["caaIdentities"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn renewals(&self) -> Option<&str> {
        self.0["renewalInfo"].as_str()
    }
}

/// `None`: this authority gives no advice.
pub(super) async fn ask(
    client: &Client,
    directory: &str,
    certificate: &CertificateIdentifier<'_>,
    now: SystemTime,
) -> Result<Option<Advice>, String> {
    let directory = Directory::read(client, directory).await?;
    let Some(renewals) = directory.renewals() else { return Ok(None) };
    let url = format!("{}/{certificate}", renewals.trim_end_matches('/'));
    let (status, headers, body) = get(client, &url).await?;
    if !status.is_success() {
        return Err(format!("the authority answers {status}"));
    }
    let document = serde_json::from_slice(&body).map_err(|error| format!("the advice is no JSON: {error}"))?;
    understood(&document, &headers, &certificate.to_string(), now).map(Some)
}

async fn get(client: &Client, url: &str) -> Result<(StatusCode, HeaderMap, bytes::Bytes), String> {
    let url = url.parse().map_err(|_| format!("`{url}` is no address"))?;
    let ask = Ask { method: Method::GET, url, headers: HeaderMap::new(), body: None };
    let reply = client.send(ask).await.map_err(|error| error.to_string())?;
    Ok((reply.status, reply.headers, reply.body))
}

/// Pure. A window that ends before it begins is no window.
fn understood(document: &Value, headers: &HeaderMap, of: &str, now: SystemTime) -> Result<Advice, String> {
    let time = |name: &str| {
        let text = document["suggestedWindow"][name].as_str().unwrap_or_default();
        let at = text.parse::<jiff::Timestamp>().map_err(|_| format!("`{name}` of its window is no time: {text:?}"))?;
        Ok::<_, String>(SystemTime::from(at))
    };
    let (start, end) = (time("start")?, time("end")?);
    if end <= start {
        return Err("its window ends before it begins".to_owned());
    }
    if let Some(why) = document["explanationURL"].as_str() {
        let why: String = why.chars().filter(|it| !it.is_control()).take(200).collect();
        tracing::warn!(target: "tls", "the authority explains when to renew: {why}");
    }
    let text = headers.get(header::RETRY_AFTER).and_then(|it| it.to_str().ok()).map(str::trim);
    let date = |it: &str| httpdate::parse_http_date(it).ok()?.duration_since(now).ok();
    let wait = text.and_then(|it| it.parse().ok().map(Duration::from_secs).or_else(|| date(it)));
    let again = now + wait.unwrap_or(AGAIN).clamp(AGAIN_LEAST, AGAIN_MOST);
    Ok(Advice { of: of.to_owned(), start: Some(start), end: Some(end), again: Some(again) })
}

/// When to ask again after nothing could be learned.
pub(super) fn later(now: SystemTime) -> SystemTime {
    now + AGAIN
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn windows_are_read_and_nonsense_is_not_followed() {
        let window = |start: &str, end: &str| {
            let document = json!({ "suggestedWindow": { "start": start, "end": end } });
            understood(&document, &HeaderMap::new(), "a.b", now())
        };
        let good = window("2027-01-01T00:00:00Z", "2027-01-02T00:00:00.5+02:00").expect("a window");
        assert_eq!(good.of, "a.b");
        assert!(good.end > good.start);
        for (start, end) in [
            ("2027-01-02T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("tomorrow", "2027-01-01T00:00:00Z"),
            ("2027-01-01T00:00:00Z", ""),
        ] {
            assert!(window(start, end).is_err(), "{start} {end}");
        }
        for document in [json!({}), json!([]), json!({ "suggestedWindow": null })] {
            assert!(understood(&document, &HeaderMap::new(), "a.b", now()).is_err());
        }
    }

    #[test]
    fn it_is_asked_again_when_the_authority_says_within_reason() {
        let document = json!({ "suggestedWindow": { "start": "2027-01-01T00:00:00Z", "end": "2027-01-02T00:00:00Z" } });
        let again = |value: Option<&str>| {
            let headers = value.map(|it| (header::RETRY_AFTER, HeaderValue::from_str(it).expect("a value")));
            let advice = understood(&document, &headers.into_iter().collect(), "a.b", now()).expect("advice");
            advice.again.expect("a time").duration_since(now()).expect("later").as_secs()
        };
        let date = httpdate::fmt_http_date(now() + Duration::from_secs(7200));
        for (value, expected) in [
            (None, 21_600),
            (Some("3600"), 3600),
            (Some(&*date), 7200),
            (Some("1"), 60),
            (Some("99999999"), 86_400),
            (Some("soon"), 21_600),
        ] {
            assert_eq!(again(value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_certificate_is_named_by_its_authoritys_key_and_its_serial_number() {
        // RFC 9773, 4.1: the serial number keeps the zero in front that its sign needs.
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0x87, 0x65, 0x43, 0x21]));
        let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![
            0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c, 0xde, 0x01,
            0xc8, 0xd4,
        ]);
        let issuer = rcgen::Issuer::new(authority, rcgen::KeyPair::generate().expect("a key"));
        let pem = params.signed_by(&key, &issuer).expect("a certificate").pem();
        let named = identifier(&pem).map(|it| it.to_string());
        assert_eq!(named.as_deref(), Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"));
        assert!(identifier("no certificate").is_none());
    }
}
