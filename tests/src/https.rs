//! A small HTTPS server on loopback, with a certificate of a CA of its own, which answers as a test has it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What is answered at a path.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A file; with a header (`ETag`, `Last-Modified`) that tells one state of it from another.
    File(Vec<u8>, Option<(&'static str, &'static str)>),
    /// These bytes, whatever they are.
    Says(String),
    /// Bytes without end.
    Endless,
    /// The beginning of an answer, and nothing more.
    Slow,
}

impl Answer {
    /// A redirect.
    pub fn redirect(to: &str) -> Self {
        Self::Says(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
    }

    /// A status without a body.
    pub fn status(line: &str) -> Self {
        Self::Says(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"))
    }
}

#[derive(Debug, Default)]
struct Pages {
    answers: BTreeMap<String, Answer>,
    asked: Vec<(String, bool)>,
}

/// The server.
#[derive(Debug)]
pub struct HttpsServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate of its CA, PEM.
    pub ca: String,
    pages: Arc<Mutex<Pages>>,
    config: Arc<ServerConfig>,
    listening: Option<JoinHandle<()>>,
}

fn locked(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpsServer {
    /// One whose certificate is for these names and addresses. It listens on 127.0.0.1.
    pub async fn start(names: &[&str]) -> Self {
        let [ca_key, key] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).expect("a key"));
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, ca_key).expect("a CA");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &ca).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a key that fits");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut server = Self {
            address: listener.local_addr().expect("an address"),
            ca: ca.pem(),
            pages: Arc::default(),
            config: Arc::new(config),
            listening: None,
        };
        server.listen(listener);
        server
    }

    fn listen(&mut self, listener: TcpListener) {
        let (pages, acceptor) = (Arc::clone(&self.pages), TlsAcceptor::from(Arc::clone(&self.config)));
        self.listening = Some(tokio::spawn(async move {
            // They end with the server.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(acceptor.clone(), stream, Arc::clone(&pages)));
            }
        }));
    }

    /// Nobody listens there any more.
    pub async fn stop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ = listening.await;
        }
    }

    /// It is back where it was.
    pub async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("its port is free");
        self.listen(listener);
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Says what is answered at a path from now on; 404 elsewhere.
    pub fn put(&self, path: &str, answer: Answer) {
        locked(&self.pages).answers.insert(path.to_owned(), answer);
    }

    /// For each question at a path whether it was answered with 304.
    pub fn asked(&self, path: &str) -> Vec<bool> {
        let pages = locked(&self.pages);
        pages.asked.iter().filter(|(asked, _)| asked == path).map(|(_, is_unchanged)| *is_unchanged).collect()
    }
}

/// The lines before the body, which there is none of.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < REQUEST_BYTES_MAX {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, pages: Arc<Mutex<Pages>>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let Some(head) = request(&mut stream).await else { return };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let says = |name: &str, value: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .any(|(known, said)| known.eq_ignore_ascii_case(name) && said == value)
    };
    let answer = locked(&pages).answers.get(&path).cloned().unwrap_or_else(|| Answer::status("404 Not Found"));
    let is_unchanged = match &answer {
        Answer::File(_, Some(("ETag", value))) => says("If-None-Match", value),
        Answer::File(_, Some((_, value))) => says("If-Modified-Since", value),
        _ => false,
    };
    locked(&pages).asked.push((path, is_unchanged));
    let sent = match answer {
        Answer::File(..) if is_unchanged => stream.write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n").await,
        Answer::File(content, state) => {
            let state = state.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
            let head = format!("HTTP/1.1 200 OK\r\n{state}Content-Length: {}\r\n\r\n", content.len());
            stream.write_all(&[head.into_bytes(), content].concat()).await
        }
        Answer::Says(text) => stream.write_all(text.as_bytes()).await,
        Answer::Endless => {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while sent.is_ok() {
                sent = stream.write_all(&[b' '; 16 * 1024]).await;
            }
            sent
        }
        Answer::Slow => {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sent = stream.write_all(b" ").await;
                let _ = stream.flush().await;
            }
            sent
        }
    };
    if sent.is_ok() {
        let _ = stream.shutdown().await;
    }
}
