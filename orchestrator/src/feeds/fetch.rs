//! Asks a server for one file: GET over HTTPS (RFC 9110, RFC 9112), with a bound for everything that a server decides. It follows
//! redirects to `https:` only, believes nobody whom neither the system nor the operator trusts, and sends nothing but the URL.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use proto::limits::{CONTENT_BYTES_MAX, shown};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Position, Url};

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// Addresses of a server that are tried.
const ADDRESSES_MAX: usize = 4;
/// Bytes of the headers of an answer, about.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Characters of a URL.
const URL_CHARS_MAX: usize = 2048;
const USER_AGENT: &str = concat!("muster/", env!("CARGO_PKG_VERSION"));

/// How long servers of feeds are waited for, and how much is taken of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedLimits {
    /// Until a connection stands: name, TCP, TLS.
    pub connect: Duration,
    /// For all of a look: redirects, the data stream, its signature.
    pub look: Duration,
    /// Bytes of a data stream, as it is sent.
    pub content_bytes: u64,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            look: Duration::from_mins(5),
            // As what an operator imports.
            content_bytes: CONTENT_BYTES_MAX * 4,
        }
    }
}

/// Why there is no file. The words stay the same as long as the reason does: what is wrong is told once.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The operator's URL, or one that a server names.
    #[error("{0}")]
    Url(String),
    /// A name without an address, or a resolver that does not answer.
    #[error("`{0}` has no address")]
    Address(String, #[source] Option<std::io::Error>),
    /// Nobody listens there, or nobody can be reached.
    #[error("`{0}` cannot be reached")]
    Connect(String, #[source] std::io::Error),
    /// The server's certificate is not one for this.
    #[error("the certificate of `{0}` {1}")]
    Certificate(String, String),
    /// There is no TLS with it.
    #[error("no TLS with `{0}`")]
    Tls(String, #[source] std::io::Error),
    /// Longer than [`FeedLimits::connect`].
    #[error("`{0}` takes no connection within {1} s")]
    ConnectTimeout(String, u64),
    /// A request that cannot be written.
    #[error("the URL cannot be asked for")]
    Request(#[source] hyper::http::Error),
    /// The server ends early, or does not speak HTTP.
    #[error("the server's answer is cut off or no HTTP")]
    Http(#[source] hyper::Error),
    /// Anything but the file, or that it has not changed.
    #[error("the server answers {0}")]
    Status(StatusCode),
    /// More than [`REDIRECTS_MAX`].
    #[error("the server redirects more than {REDIRECTS_MAX} times")]
    Redirects,
    /// More than is taken.
    #[error("it has more than the {0} bytes that are taken")]
    TooLarge(u64),
}

/// With what is asked whether a file has changed (RFC 9110 section 13.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// The URL that gave them, after redirects: of another they say nothing.
    url: Url,
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
}

/// A file, as a server sends it.
#[derive(Debug)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    /// None where the server gives none.
    pub(super) validators: Option<Validators>,
    /// Whether the server calls it HTML.
    pub(super) is_page: bool,
}

enum Answer {
    File(File),
    Unchanged,
    Elsewhere(Url),
}

/// The URL in a text, if a file may be fetched from there.
pub(super) fn url_of(text: &str) -> Result<Url, String> {
    if text.chars().count() > URL_CHARS_MAX {
        return Err(format!("the URL has more than {URL_CHARS_MAX} characters"));
    }
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    allowed(url)
}

// What is wrong is said without the URL, which may have a password in it.
fn allowed(mut url: Url) -> Result<Url, String> {
    if url.scheme() != "https" {
        return Err(format!("`{}:` is not followed, only `https:` is", shown(url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let text = "a URL with a name or password in it is not taken: lists and logs would show it";
        return Err(text.to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}

/// The certificates in a PEM text that can certify servers.
pub(super) fn authorities_in(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|error| format!("the certificates are no PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("there is no certificate in it; PEM is expected (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| format!("a certificate cannot be read: {error}"))?;
    }
    Ok(certificates)
}

/// What is wrong with a certificate. rustls says when, to the second, and so something else each time.
fn wrong_with(error: &CertificateError) -> String {
    match error {
        // The latter is what another CA of the same name gives.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is of nobody who is trusted here; `--ca FILE` says who else is".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has run out".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "does not hold yet".to_owned(),
        other => format!("is not taken: {other}"),
    }
}

/// Where a redirect leads (RFC 9110 section 10.2.2).
fn target(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
    if location.is_empty() || location.len() > URL_CHARS_MAX {
        return Err(FetchError::Url("the server redirects, and does not say where to".to_owned()));
    }
    let to = from.join(location).map_err(|error| format!("it is no URL: {error}"));
    to.and_then(allowed).map_err(|text| FetchError::Url(format!("the server redirects to what is not taken: {text}")))
}

/// Reads a body to its end, or to where it is too much.
async fn read(mut body: Incoming, bytes_max: u64) -> Result<Vec<u8>, FetchError> {
    let too_large = FetchError::TooLarge(bytes_max);
    // What a Content-Length says.
    if body.size_hint().lower() > bytes_max {
        return Err(too_large);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(FetchError::Http)?.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > bytes_max {
            return Err(too_large);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Fetches files.
pub(super) struct Client {
    tls: TlsConnector,
    connect: Duration,
}

impl Client {
    /// One that trusts whom the system trusts (`SSL_CERT_FILE`, or where the distribution has them), and these. It reads files.
    pub(super) fn new(ca: Option<&str>, connect: Duration) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        // What cannot be read of the system's certifies nobody; who is missed is told with the server's certificate.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in ca.map(authorities_in).transpose()?.unwrap_or_default() {
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), connect })
    }

    /// The file at a URL; none if it is as it was when these validators came with it. Without end where the server has none:
    /// whoever asks has a deadline.
    pub(super) async fn get(
        &self,
        url: &Url,
        known: Option<&Validators>,
        bytes_max: u64,
    ) -> Result<Option<File>, FetchError> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let known = known.filter(|known| known.url == url);
            match self.ask(&url, known, bytes_max).await? {
                Answer::File(file) => return Ok(Some(file)),
                Answer::Unchanged => return Ok(None),
                Answer::Elsewhere(to) => url = to,
            }
        }
        Err(FetchError::Redirects)
    }

    async fn ask(&self, url: &Url, known: Option<&Validators>, bytes_max: u64) -> Result<Answer, FetchError> {
        let mut request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
            .header(header::HOST, &url[Position::BeforeHost..Position::AfterPort])
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONNECTION, "close")
            // A signature covers the file as it lies there.
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(etag) = known.and_then(|known| known.etag.as_ref()) {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(modified) = known.and_then(|known| known.modified.as_ref()) {
            request = request.header(header::IF_MODIFIED_SINCE, modified);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(FetchError::Request)?;
        let stream = self.stream_to(url).await?;
        let mut http = hyper::client::conn::http1::Builder::new();
        http.max_buf_size(HEADER_BYTES_MAX);
        let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(FetchError::Http)?;
        // It ends with this set, however this function ends.
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let response = sender.send_request(request).await.map_err(FetchError::Http)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Answer::Unchanged),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => return target(url, response.headers()).map(Answer::Elsewhere),
            other => return Err(FetchError::Status(other)),
        }
        let headers = response.headers();
        let etag = headers.get(header::ETAG).cloned();
        let modified = headers.get(header::LAST_MODIFIED).cloned();
        let is_known = etag.is_some() || modified.is_some();
        let validators = is_known.then(|| Validators { url: url.clone(), etag, modified });
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_page = kind.to_ascii_lowercase().starts_with("text/html");
        let bytes = read(response.into_body(), bytes_max).await?;
        Ok(Answer::File(File { bytes, validators, is_page }))
    }

    async fn stream_to(&self, url: &Url) -> Result<TlsStream<TcpStream>, FetchError> {
        let connected = tokio::time::timeout(self.connect, self.connected(url)).await;
        connected.unwrap_or_else(|_| {
            let host = url.host_str().unwrap_or_default().to_owned();
            Err(FetchError::ConnectTimeout(host, self.connect.as_secs()))
        })
    }

    async fn connected(&self, url: &Url) -> Result<TlsStream<TcpStream>, FetchError> {
        let no_name = || FetchError::Url("the URL names no server".to_owned());
        let port = url.port_or_known_default().ok_or_else(no_name)?;
        let (shown_host, name, addresses) = match url.host().ok_or_else(no_name)? {
            Host::Domain(domain) => {
                let name = ServerName::try_from(domain.to_owned()).map_err(|_| no_name())?;
                let found = tokio::net::lookup_host((domain, port)).await;
                let found = found.map_err(|error| FetchError::Address(domain.to_owned(), Some(error)))?;
                (domain.to_owned(), name, found.take(ADDRESSES_MAX).collect())
            }
            Host::Ipv4(ip) => {
                (ip.to_string(), ServerName::from(std::net::IpAddr::from(ip)), vec![SocketAddr::from((ip, port))])
            }
            Host::Ipv6(ip) => {
                (ip.to_string(), ServerName::from(std::net::IpAddr::from(ip)), vec![SocketAddr::from((ip, port))])
            }
        };
        let tcp = self.tcp_to(&shown_host, &addresses).await?;
        self.tls.connect(name, tcp).await.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(wrong)) => {
                    FetchError::Certificate(shown_host, wrong_with(wrong))
                }
                _ => FetchError::Tls(shown_host, error),
            }
        })
    }

    /// The first address that answers. Each has its share of the time: one that swallows everything does not use it up.
    async fn tcp_to(&self, host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
        let share = self.connect / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        let mut failed = FetchError::Address(host.to_owned(), None);
        for address in addresses {
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = FetchError::Connect(host.to_owned(), error),
                Err(_) => failed = FetchError::ConnectTimeout(host.to_owned(), self.connect.as_secs()),
            }
        }
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_over_https_without_a_password_are_taken() {
        assert_eq!(url_of("https://example.org:8443/a.xml?b#c").unwrap().as_str(), "https://example.org:8443/a.xml?b");
        for (text, words) in [
            ("http://example.org/a.xml", "`http:` is not followed"),
            ("ftp://somebody:secret@example.org/a.xml", "`ftp:` is not followed"),
            ("file:///etc/a.xml", "`file:` is not followed"),
            ("https://somebody:secret@example.org/a.xml", "name or password"),
            ("https://somebody@example.org/a.xml", "name or password"),
            ("https://", "it is no URL"),
            ("https://exa mple/a.xml", "it is no URL"),
        ] {
            let said = url_of(text).unwrap_err();
            assert!(said.contains(words) && !said.contains("secret"), "{text}: {said}");
        }
        assert!(url_of(&format!("https://example.org/{}", "a".repeat(URL_CHARS_MAX))).is_err());
    }

    #[test]
    fn a_redirect_leads_to_https_or_nowhere() {
        let from = Url::parse("https://example.org/b/a.xml").unwrap();
        let to = |location: &str| {
            let headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_str(location).unwrap())]);
            target(&from, &headers).map(String::from).map_err(|error| error.to_string())
        };
        assert_eq!(to("c.xml").unwrap(), "https://example.org/b/c.xml");
        assert_eq!(to("//mirror.example.org/c.xml").unwrap(), "https://mirror.example.org/c.xml");
        for (location, words) in [
            ("http://example.org/a.xml", "`http:` is not followed"),
            ("https://somebody:secret@example.org/a.xml", "name or password"),
            ("https://", "no URL"),
            ("", "does not say where"),
        ] {
            let said = to(location).unwrap_err();
            assert!(said.contains(words) && !said.contains("secret"), "{location}: {said}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        for (pem, words) in [
            ("", "no certificate in it"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
            ("-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n", "no PEM"),
        ] {
            let said = authorities_in(pem).unwrap_err();
            assert!(said.contains(words), "{pem}: {said}");
        }
    }
}
