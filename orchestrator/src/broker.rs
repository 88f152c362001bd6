//! The embedded broker: `rumqttd`'s router behind a front of our own, in this process.
//!
//! `rumqttd`'s own listener is never opened: it has no authorisation of topics, one silent peer
//! blocks every TLS accept, and single packets kill it. The front accepts, asks for the certificate,
//! and lets through what the access table in `proto::topic` allows; everything else is denied. A
//! connection without a certificate never reaches the router.
//!
//! Listens: a TCP port. Tells: the router. Never: keeps a message, decides what a role may do.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bus::certificate::Certificate;
use jiff::Timestamp;
use proto::capability::{Capability, ComponentType};
use proto::id::ComponentId;
use proto::operator::BrokerCount;
use proto::topic::{Grant, Principal};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

mod budget;
mod codec;
mod connect;
mod exchange;
mod mailbox;
mod metrics;
mod router;
mod session;

use exchange::Exchange;
use metrics::Metrics;
use router::Linker;

/// In a box: whoever waits for something with a connection in its hands holds it once, and not in each of its states.
pub(crate) type Stream = Box<tokio_rustls::server::TlsStream<TcpStream>>;

/// Limits of the front.
pub(crate) mod limits {
    /// Connections at a time.
    pub(crate) const CONNECTIONS_MAX: usize = 12_000;
    /// Connections that have not shown who they are yet.
    pub(crate) const HANDSHAKES_MAX: usize = 512;
    /// Connections without a certificate.
    pub(crate) const JOINING_MAX: usize = 256;
    /// And from one address. Many components may share one; strangers do not wait long.
    pub(crate) const JOINING_PER_ADDRESS_MAX: usize = 64;
    /// Connections from one address that have not shown who they are yet.
    pub(crate) const HANDSHAKES_PER_ADDRESS_MAX: usize = 256;
    /// Seconds for the TLS handshake, and again for the first packet.
    pub(crate) const HANDSHAKE_SECONDS: u64 = 5;
    /// Seconds that a connection without a certificate may last.
    pub(crate) const JOINING_SECONDS: u64 = 20;
    /// Seconds for one write to a slow consumer.
    pub(crate) const WRITE_SECONDS: u64 = 30;
    /// Seconds of the longest keep-alive.
    pub(crate) const KEEP_ALIVE_SECONDS_MAX: u16 = 600;
    /// Seconds that a will waits at most for its component to come back.
    pub(crate) const SESSION_EXPIRY_SECONDS_MAX: u32 = 600;
    /// Messages of QoS 1 in either direction that are not acknowledged yet.
    pub(crate) const IN_FLIGHT_MAX: u16 = bus::limits::SERVICE_IN_FLIGHT_MAX;
    /// Seconds without an echo after which the router counts as dead.
    pub(crate) const ROUTER_ECHO_SECONDS: u64 = 10;
}

/// Decides who may be connected.
pub trait Admission: Send + Sync + 'static {
    /// Whether this component is on the roster, and neither waits for approval nor was put out.
    fn is_admitted(&self, component: ComponentId, component_type: ComponentType) -> bool;

    /// It has connected anew.
    fn connects(&self, _component: ComponentId) {}

    /// Whether the handshake has given it this capability.
    fn holds(&self, component: ComponentId, capability: Capability) -> bool;
}

/// What the front needs to listen.
pub struct BrokerSettings {
    /// Where.
    pub listen: String,
    /// The CAs that are trusted, DER; the first has signed the server's certificate.
    pub cas: Vec<Vec<u8>>,
    /// The server's certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Its key, PKCS #8.
    pub key_pkcs8: Vec<u8>,
    /// Who may be connected.
    pub admission: Arc<dyn Admission>,
}

impl std::fmt::Debug for BrokerSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BrokerSettings").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address is in use or not ours.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The keys do not fit.
    #[error("the broker's TLS keys cannot be used")]
    Tls(#[from] rustls::Error),
    /// The router does not start.
    #[error("the broker's router does not answer")]
    Router,
}

/// A component's place: who holds it, how to end that, and what is left of who held it before.
#[derive(Default)]
struct Slot {
    /// Grows with each connection that wants the place, and when an operator puts its component out: a connection whose
    /// turn is over ends, whether it has the place or waits for it.
    turn: watch::Sender<u64>,
    owner: Arc<tokio::sync::Mutex<()>>,
    will: Mutex<Option<AbortHandle>>,
}

/// A connection's turn at a place.
struct Turn {
    own: u64,
    latest: watch::Receiver<u64>,
}

impl Turn {
    /// Returns when the turn is another one's.
    async fn over(&mut self) {
        let own = self.own;
        // Without its place there is no turn, either.
        let _ = self.latest.wait_for(|latest| *latest != own).await;
    }
}

impl Slot {
    /// Ends every turn before, and begins one.
    fn begin_turn(&self) -> Turn {
        let mut own = 0;
        self.turn.send_modify(|latest| {
            *latest += 1;
            own = *latest;
        });
        Turn { own, latest: self.turn.subscribe() }
    }

    fn end_turn(&self) {
        self.turn.send_modify(|latest| *latest += 1);
    }

    /// A will that waits takes the place of the one before, which is not published any more.
    fn will(&self, waiting: Option<AbortHandle>) {
        if let Some(before) = std::mem::replace(&mut *self.will.lock().unwrap_or_else(PoisonError::into_inner), waiting)
        {
            before.abort();
        }
    }
}

/// What every connection has to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// Other CAs are trusted than before.
    Trust,
    /// The front stops.
    Closing,
}

pub(crate) struct Front {
    acceptor: RwLock<TlsAcceptor>,
    linker: Linker,
    admission: Arc<dyn Admission>,
    exchange: Exchange,
    slots: Mutex<BTreeMap<ComponentId, Arc<Slot>>>,
    /// Connections without a certificate, and where they are from.
    joining: Mutex<BTreeMap<ComponentId, IpAddr>>,
    handshakes: Handshakes,
    connections: Arc<Semaphore>,
    news: watch::Sender<News>,
    cas: RwLock<Vec<Vec<u8>>>,
    /// The certificate and key that are shown.
    shown: Mutex<(Vec<u8>, Vec<u8>)>,
    metrics: Arc<Metrics>,
}

impl Front {
    /// A client certificate that counts.
    fn trusted(&self, der: &[u8], now: Timestamp) -> Option<Certificate> {
        let cas = self.cas.read().unwrap_or_else(PoisonError::into_inner);
        cas.iter().find_map(|ca| Certificate::verify(der, ca, now).ok())
    }

    /// Whether a grant's capability is held; those without one come with registration.
    fn has_what_it_takes(&self, principal: Principal, grant: &Grant) -> bool {
        grant.with.is_none_or(|capability| self.admission.holds(principal.id, capability))
    }

    fn may_publish(&self, principal: Principal, topic: &str) -> bool {
        principal.publish_grant(topic).is_some_and(|grant| self.has_what_it_takes(principal, grant))
    }

    fn subscribe_grant(&self, principal: Principal, filter: &str) -> Option<&'static Grant> {
        principal.subscribe_grant(filter).filter(|grant| self.has_what_it_takes(principal, grant))
    }
}

/// What counts as one address: of IPv6, whoever has one has a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

/// Connections in their handshake, by address.
type Handshakes = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// A place among the connections in their handshake.
pub(crate) struct Handshake {
    all: Handshakes,
    address: IpAddr,
}

impl Handshake {
    /// A place, if there is one left, for anybody and for this address.
    fn begin(all: &Handshakes, address: IpAddr) -> Option<Self> {
        let mut counts = all.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.get(&address).copied().unwrap_or_default();
        if of_address >= limits::HANDSHAKES_PER_ADDRESS_MAX || counts.values().sum::<usize>() >= limits::HANDSHAKES_MAX
        {
            return None;
        }
        counts.insert(address, of_address + 1);
        drop(counts);
        Some(Self { all: Arc::clone(all), address })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut counts = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// The running broker.
#[derive(Clone)]
pub struct Broker {
    front: Arc<Front>,
    address: SocketAddr,
    stop: Arc<Notify>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Broker").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Broker {
    /// Listens and serves until [`Broker::stop`].
    pub async fn start(settings: BrokerSettings) -> Result<Self, BrokerError> {
        let acceptor = acceptor(&settings.cas, &settings.certificate_der, &settings.key_pkcs8)?;
        let listener = TcpListener::bind(&settings.listen)
            .await
            .map_err(|source| BrokerError::Listen { listen: settings.listen.clone(), source })?;
        let address =
            listener.local_addr().map_err(|source| BrokerError::Listen { listen: settings.listen.clone(), source })?;
        service::descriptors::raise(limits::CONNECTIONS_MAX as u64 + limits::HANDSHAKES_MAX as u64);
        let linker = router::spawn(limits::CONNECTIONS_MAX);
        let metrics = Arc::new(Metrics::default());
        let exchange = Exchange::start(Arc::clone(&linker), Arc::clone(&metrics)).await.ok_or(BrokerError::Router)?;
        let front = Arc::new(Front {
            acceptor: RwLock::new(acceptor),
            linker,
            admission: settings.admission,
            exchange,
            slots: Mutex::default(),
            joining: Mutex::default(),
            handshakes: Handshakes::default(),
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)),
            news: watch::Sender::new(News::Trust),
            cas: RwLock::new(settings.cas),
            shown: Mutex::new((settings.certificate_der, settings.key_pkcs8)),
            metrics,
        });
        let stop = Arc::new(Notify::new());
        let broker = Self { front: Arc::clone(&front), address, stop: Arc::clone(&stop) };
        tokio::spawn(accept(front, listener, stop));
        Ok(broker)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows this certificate to those who connect from now on.
    pub fn renew(&self, certificate_der: &[u8], key_pkcs8: &[u8]) -> Result<(), BrokerError> {
        *self.front.shown.lock().unwrap_or_else(PoisonError::into_inner) =
            (certificate_der.to_vec(), key_pkcs8.to_vec());
        Ok(self.rebuild()?)
    }

    /// Lets in from now on whom one of these CAs (DER) has certified, and ends the connections of all others.
    pub fn trust(&self, cas: Vec<Vec<u8>>) -> Result<(), rustls::Error> {
        *self.front.cas.write().unwrap_or_else(PoisonError::into_inner) = cas;
        let rebuilt = self.rebuild();
        self.front.news.send_replace(News::Trust);
        rebuilt
    }

    fn rebuild(&self) -> Result<(), rustls::Error> {
        let cas = self.front.cas.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (certificate_der, key_pkcs8) = self.front.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let acceptor = acceptor(&cas, &certificate_der, &key_pkcs8)?;
        *self.front.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
        Ok(())
    }

    /// What the front has counted since it started, and how many are connected now.
    pub fn metrics(&self) -> Vec<BrokerCount> {
        self.front.metrics.all()
    }

    /// Ends a component's connection, if it has one.
    pub fn kick(&self, component: ComponentId) {
        let slot = self.front.slots.lock().unwrap_or_else(PoisonError::into_inner).get(&component).cloned();
        if let Some(slot) = slot {
            slot.end_turn();
        }
    }

    /// Stops accepting, and says goodbye to every connection.
    pub fn stop(&self) {
        self.stop.notify_one();
        self.front.news.send_replace(News::Closing);
    }
}

fn acceptor(cas: &[Vec<u8>], certificate_der: &[u8], key_pkcs8: &[u8]) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(CertificateDer::from(ca.clone()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    // Clients know a CA by its fingerprint, and look for it in the chain.
    let chain = std::iter::once(certificate_der.to_vec()).chain(cas.iter().take(1).cloned());
    let chain = chain.map(CertificateDer::from).collect();
    let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key_pkcs8.to_vec()).into();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    // Every connection shows its certificate anew: what was revoked cannot resume.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Only accepts; a peer that stays silent costs a task with a deadline.
async fn accept(front: Arc<Front>, listener: TcpListener, stop: Arc<Notify>) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.notified() => return,
        };
        match stream {
            Ok((stream, peer)) => {
                let Some(handshake) = Handshake::begin(&front.handshakes, network(peer.ip())) else {
                    tracing::debug!(%peer, "too many connections in their handshake: refused");
                    front.metrics.connections_refused_total.up();
                    continue;
                };
                let front = Arc::clone(&front);
                tokio::spawn(async move {
                    let deadline = Duration::from_secs(limits::HANDSHAKE_SECONDS);
                    let secured = tokio::time::timeout(deadline, secure(&front, stream)).await;
                    match secured {
                        Ok(Ok(stream)) => connect::serve(front, stream, peer, handshake).await,
                        failed => {
                            front.metrics.handshakes_failed_total.up();
                            let why = match failed {
                                Ok(Err(error)) => error.to_string(),
                                _ => "timed out".to_owned(),
                            };
                            tracing::debug!(%peer, why, "TLS handshake failed");
                        }
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn secure(front: &Front, stream: TcpStream) -> std::io::Result<Stream> {
    stream.set_nodelay(true)?;
    let acceptor = front.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone();
    acceptor.accept(stream).await.map(Box::new)
}

/// Runs something that blocks, with a deadline.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    tokio::task::spawn_blocking(move || done.send(work()).ok());
    tokio::time::timeout(Duration::from_secs(limits::ROUTER_ECHO_SECONDS), result).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_one_party_has() {
        let same = |one: &str, other: &str| network(one.parse().unwrap()) == network(other.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:2") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1") && !same("192.0.2.1", "192.0.2.2"));
    }
}
