//! One request on a connection of its own, with a deadline for every part of it. No redirects are followed, no cookies kept,
//! no proxies asked, no encodings taken; a body is read up to a bound. What goes out may hold a token, so nothing of a request
//! gets into an error.

use std::{
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OnceCell,
};
use tokio_rustls::TlsConnector;

/// Name, TCP and TLS.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// All of it.
const TOTAL_MAX: Duration = Duration::from_secs(30);
/// The longest answers are pages of certificates, some tens of kilobytes.
const BODY_MAX: usize = 1 << 20;

pub struct Ask {
    pub method: Method,
    pub url: Uri,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// Nothing was sent.
    Url(&'static str),
    /// Nothing was sent.
    Connect(io::Error),
    /// It may have been carried out all the same.
    Broken(String),
    /// It may have been carried out all the same.
    Timeout,
    TooLarge,
}

impl Error {
    /// Whether the other side may have done what it was asked for.
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Timeout | Self::TooLarge)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(why) => f.write_str(why),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Broken(why) => write!(f, "the connection broke off: {why}"),
            Self::Timeout => write!(f, "no whole answer within {} s", TOTAL_MAX.as_secs()),
            Self::TooLarge => write!(f, "the answer is longer than {} KiB", BODY_MAX >> 10),
        }
    }
}

impl std::error::Error for Error {}

/// Cheap to clone. Trusts the authorities of the system (`SSL_CERT_FILE` names others).
#[derive(Clone, Default)]
pub struct Client {
    /// Trusted instead of the system's authorities.
    authorities: Option<PathBuf>,
    /// Read when the first request is made: a daemon that asks nobody reads nothing.
    trust: Arc<OnceCell<Arc<ClientConfig>>>,
}

impl Client {
    /// Trusts the authorities of this PEM file alone; the system's when there is none.
    pub fn trusting(authorities: Option<PathBuf>) -> Self {
        Self { authorities, ..Self::default() }
    }

    pub async fn send(&self, ask: Ask) -> Result<Reply, Error> {
        tokio::time::timeout(TOTAL_MAX, self.sent(ask)).await.unwrap_or(Err(Error::Timeout))
    }

    async fn sent(&self, ask: Ask) -> Result<Reply, Error> {
        let url = ask.url.clone();
        let place = Place::of(&url)?;
        let connecting = async {
            let stream = TcpStream::connect((place.host, place.port)).await?;
            stream.set_nodelay(true)?;
            if !place.is_tls {
                return Ok(Either::Plain(stream));
            }
            let name = ServerName::try_from(place.host.to_owned()).map_err(io::Error::other)?;
            let trust = self.trust().await?;
            TlsConnector::from(trust).connect(name, stream).await.map(|it| Either::Tls(Box::new(it)))
        };
        let connected = tokio::time::timeout(CONNECT_MAX, connecting).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(Error::Connect)?;
        let request = request(ask, &place)?;
        match connected {
            Either::Plain(stream) => exchange(stream, request).await,
            Either::Tls(stream) => exchange(*stream, request).await,
        }
    }

    async fn trust(&self) -> io::Result<Arc<ClientConfig>> {
        let made = self.trust.get_or_try_init(|| async {
            let authorities = self.authorities.clone();
            tokio::task::spawn_blocking(move || trust(authorities.as_deref()))
                .await
                .map_err(io::Error::other)?
                .map(Arc::new)
        });
        made.await.cloned()
    }
}

enum Either {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Where a URL leads.
struct Place<'a> {
    host: &'a str,
    port: u16,
    is_tls: bool,
}

impl<'a> Place<'a> {
    /// Cleartext is for this machine only: what we send is secret.
    fn of(url: &'a Uri) -> Result<Self, Error> {
        let host = url.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
        let is_tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") if is_loopback => false,
            Some("http") => return Err(Error::Url("http:// is for addresses of this machine only; use https://")),
            _ => return Err(Error::Url("an https:// address is needed")),
        };
        Ok(Self { host, port: url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }), is_tls })
    }
}

fn trust(authorities: Option<&Path>) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(path) => {
            let text = std::fs::read(path)?;
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
        }
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    if roots.is_empty() {
        let why = "there are no authorities to trust: install ca-certificates, or name a file with some";
        return Err(io::Error::other(why));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn request(ask: Ask, place: &Place<'_>) -> Result<Request<Full<Bytes>>, Error> {
    let authority = match (place.is_tls, place.port) {
        (true, 443) | (false, 80) => ask.url.host().unwrap_or_default().to_owned(),
        (_, port) => format!("{}:{port}", ask.url.host().unwrap_or_default()),
    };
    let path = ask.url.path_and_query().map_or("/", |it| it.as_str()).to_owned();
    let mut request = Request::new(Full::new(ask.body.unwrap_or_default()));
    *request.method_mut() = ask.method;
    *request.uri_mut() = path.parse().map_err(|_| Error::Url("the address has no usable path"))?;
    *request.headers_mut() = ask.headers;
    let host = HeaderValue::from_str(&authority).map_err(|_| Error::Url("the address has no usable host"))?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("miwid/", env!("CARGO_PKG_VERSION"))));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Reply, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Error::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the exchange, also when nobody waits for it any more.
    let _connection = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
    let response = sender.send_request(request).await.map_err(broken)?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, BODY_MAX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { Error::TooLarge } else { Error::Broken(error.to_string()) }
    })?;
    Ok(Reply { status: parts.status, headers: parts.headers, body: body.to_bytes() })
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleartext_leads_to_this_machine_only() {
        for (url, expected) in [
            ("https://api.test/client/v4", Some(("api.test", 443, true))),
            ("https://[::1]:8443/x", Some(("::1", 8443, true))),
            ("http://127.0.0.1:80/", Some(("127.0.0.1", 80, false))),
            ("http://localhost/", Some(("localhost", 80, false))),
            ("http://api.test/", None),
            ("http://127.0.0.1.api.test/", None),
            ("ftp://api.test/", None),
            ("/path", None),
        ] {
            let url: Uri = url.parse().expect("a URI");
            let place = Place::of(&url).ok().map(|it| (it.host, it.port, it.is_tls));
            assert_eq!(place, expected, "{url}");
        }
    }
}
