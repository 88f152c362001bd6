//! MQTT 5 over TLS by `rumqttc`. What that client lacks is here: back-off with jitter, subscribing
//! again after every reconnection, and giving up a connection that makes no progress.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::id::ComponentId;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport as RumqttcTransport};
use tokio::sync::{Notify, mpsc, watch};

use crate::{Incoming, IncomingReceiver, Quality, Transport, limits};

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct MqttSettings {
    /// Host name or address of the broker, and its port; a connection goes to the one that is there when it begins.
    pub address: watch::Receiver<(String, u16)>,
    /// The client id: the component's id.
    pub client: ComponentId,
    /// Keys and trust; a connection takes those that are there when it begins.
    pub tls: watch::Receiver<Arc<rustls::ClientConfig>>,
    /// The largest packet that is taken.
    pub packet_bytes_max: u32,
    /// Messages in either direction that are not acknowledged yet, at most.
    pub in_flight_max: u16,
    /// Messages that wait for the connection, at most. What can be sent later waits elsewhere where
    /// [`QUEUE_MESSAGES_MAX`](limits::QUEUE_MESSAGES_MAX) do.
    pub queue_max: usize,
}

struct Shared {
    filters: Mutex<BTreeSet<String>>,
    subscribe: Notify,
    close: Notify,
}

/// A message on its way out: its topic, its bytes, and how it goes.
type Outbound = (String, Vec<u8>, Quality);

struct MqttTransport {
    out: mpsc::Sender<Outbound>,
    shared: Arc<Shared>,
}

impl Transport for MqttTransport {
    fn publish(&self, topic: String, payload: Vec<u8>, quality: Quality) -> bool {
        self.out.try_send((topic, payload, quality)).is_ok()
    }

    fn room(&self) -> usize {
        let (room, most) = (self.out.capacity(), self.out.max_capacity());
        limits::QUEUE_MESSAGES_MAX.saturating_sub(most - room).min(room)
    }

    fn subscribe(&self, filters: Vec<String>) {
        self.shared.filters.lock().unwrap_or_else(PoisonError::into_inner).extend(filters);
        self.shared.subscribe.notify_one();
    }

    fn close(&self) {
        self.shared.close.notify_one();
    }
}

/// Connects, and connects again whenever the connection is lost, until it is closed.
pub fn connect(settings: MqttSettings) -> (Box<dyn Transport>, IncomingReceiver) {
    let (out, outgoing) = mpsc::channel(settings.queue_max);
    let (deliver, incoming) = mpsc::channel(limits::QUEUE_MESSAGES_MAX);
    let shared = Arc::new(Shared { filters: Mutex::default(), subscribe: Notify::new(), close: Notify::new() });
    let transport = MqttTransport { out, shared: Arc::clone(&shared) };
    tokio::spawn(run(settings, shared, outgoing, deliver));
    (Box::new(transport), incoming)
}

/// Which of several addresses is tried next, by all connections of the process: those before it did not answer.
static NEXT_ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// The addresses of a list such as `one:8883,other:8883`, whose last port stands by itself.
fn addresses(host: &str, port: u16) -> Vec<(String, u16)> {
    let (others, last) = host.rsplit_once(',').map_or(("", host), |(others, last)| (others, last));
    let others = others.split(',').filter_map(|address| {
        let (host, port) = address.trim().rsplit_once(':')?;
        Some((host.to_owned(), port.parse().ok()?))
    });
    others.chain([(last.trim().to_owned(), port)]).collect()
}

fn client(settings: &MqttSettings, at: usize) -> (AsyncClient, EventLoop) {
    let (host, port) = settings.address.borrow().clone();
    let addresses = addresses(&host, port);
    let (host, port) = &addresses[at % addresses.len()];
    let mut options = MqttOptions::new(settings.client.to_string(), host, *port);
    options
        .set_keep_alive(Duration::from_secs(20))
        .set_clean_start(true)
        .set_receive_maximum(Some(settings.in_flight_max))
        .set_max_packet_size(Some(settings.packet_bytes_max))
        // The default table for packets in flight takes 15 MB.
        .set_outgoing_inflight_upper_limit(settings.in_flight_max)
        .set_connection_timeout(10)
        .set_transport(RumqttcTransport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(&settings.tls.borrow()))));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    // A small channel: what waits in it is lost with a session. Where the runtime has much to do, no more than fits into it goes out
    // each time that the connection has its turn.
    AsyncClient::new(options, usize::from(settings.in_flight_max / 4).max(1))
}

async fn run(
    settings: MqttSettings,
    shared: Arc<Shared>,
    mut outgoing: mpsc::Receiver<Outbound>,
    deliver: mpsc::Sender<Incoming>,
) {
    let mut attempt = 0_u32;
    let (mut keys, mut address) = (settings.tls.clone(), settings.address.clone());
    loop {
        keys.mark_unchanged();
        // All of them are tried before it is waited longer.
        let address_count = {
            let (host, port) = &*address.borrow_and_update();
            addresses(host, *port).len()
        };
        let at = NEXT_ADDRESS.load(Ordering::Relaxed);
        let outcome = session(&settings, at, &shared, &mut outgoing, &deliver, &mut attempt).await;
        let Err(end) = outcome else { return };
        // Of several connections that find this out, one goes on to the next.
        let _ = NEXT_ADDRESS.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        let told = match end {
            End::Lost(reason) => Incoming::Disconnected(reason),
            End::Refused(reason) => Incoming::Refused(reason),
        };
        if deliver.send(told).await.is_err() {
            return;
        }
        let rounds = attempt / u32::try_from(address_count).unwrap_or(1);
        let delay = backoff(rounds, rand_fraction());
        attempt = attempt.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            // A fresh certificate: what was refused with the old one is tried at once.
            Ok(()) = keys.changed() => attempt = 0,
            Ok(()) = address.changed() => attempt = 0,
            () = shared.close.notified() => return,
        }
    }
}

/// Doubles from 200 ms to the limit; anything between half of it and all of it, so that components
/// that lost a broker together do not come back together.
fn backoff(attempt: u32, fraction: f64) -> Duration {
    let full = Duration::from_millis(200)
        .saturating_mul(1 << attempt.min(10))
        .min(Duration::from_secs(limits::BACKOFF_SECONDS_MAX));
    full.mul_f64(0.5 + fraction / 2.0)
}

/// By chance, from 0 to 1.
pub fn rand_fraction() -> f64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    #[expect(clippy::cast_precision_loss, reason = "a fraction for jitter needs no precision")]
    let fraction = (high >> 12) as f64 / (1_u64 << 52) as f64;
    fraction
}

/// Why a session ended.
#[derive(Debug)]
enum End {
    /// Whatever it was, the next may go on longer.
    Lost(String),
    /// The broker does not want this component.
    Refused(String),
}

impl Default for End {
    fn default() -> Self {
        Self::Lost("the connection ended".to_owned())
    }
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        let reason = error.to_string();
        // In TLS 1.3 a client learns only after its own handshake that its certificate was refused: the alert comes
        // in one of several wrappings, which all print it.
        let is_alert = is_about_the_certificate(&reason);
        let is_refused = matches!(
            error,
            ConnectionError::ConnectionRefused(ConnectReturnCode::Banned | ConnectReturnCode::NotAuthorized)
        );
        if is_alert || is_refused { Self::Refused(reason) } else { Self::Lost(reason) }
    }
}

/// Whether a broker's alert is about who this component is. What is wrong with a record, as when somebody on the way has changed
/// it, is no reason to ask for another certificate.
fn is_about_the_certificate(reason: &str) -> bool {
    let alert = reason.split("received fatal alert: ").nth(1).unwrap_or_default();
    ["Certificate", "UnknownCA", "AccessDenied"].iter().any(|word| alert.contains(word))
}

/// One session: `Ok` when it was closed on purpose, otherwise why it ended.
async fn session(
    settings: &MqttSettings,
    at: usize,
    shared: &Shared,
    outgoing: &mut mpsc::Receiver<Outbound>,
    deliver: &mpsc::Sender<Incoming>,
    attempt: &mut u32,
) -> Result<(), End> {
    let (client, event_loop) = client(settings, at);
    let (ended, mut end) = mpsc::channel::<End>(1);
    let (connected, mut connection) = mpsc::channel::<()>(1);
    // The loop has a task of its own: it must always be polled, and must never wait for its own queue.
    let poll = tokio::spawn(poll(event_loop, deliver.clone(), connected, ended));
    let result = async {
        tokio::select! {
            reason = end.recv() => return Err(reason.unwrap_or_default()),
            begun = connection.recv() => if begun.is_none() { return Err(end.recv().await.unwrap_or_default()) },
            () = shared.close.notified() => return Ok(()),
        }
        *attempt = 0;
        // Subscriptions come before anything else: an answer must not arrive before its subscription.
        resubscribe(&client, shared).await;
        if deliver.send(Incoming::Connected).await.is_err() {
            return Ok(());
        }
        loop {
            tokio::select! {
                reason = end.recv() => return Err(reason.unwrap_or_default()),
                () = shared.subscribe.notified() => resubscribe(&client, shared).await,
                message = outgoing.recv() => match message {
                    None => return Ok(()),
                    Some((topic, payload, quality)) => {
                        let quality = match quality {
                            Quality::AtMostOnce => QoS::AtMostOnce,
                            Quality::AtLeastOnce => QoS::AtLeastOnce,
                        };
                        let sent = client.publish(topic, quality, false, payload);
                        tokio::select! {
                            result = sent => if result.is_err() { return Err(End::default()) },
                            reason = end.recv() => return Err(reason.unwrap_or_default()),
                        }
                    }
                },
                () = shared.close.notified() => {
                    let _ = client.try_disconnect();
                    let _ = tokio::time::timeout(Duration::from_secs(2), end.recv()).await;
                    return Ok(());
                }
            }
        }
    }
    .await;
    poll.abort();
    result
}

async fn resubscribe(client: &AsyncClient, shared: &Shared) {
    let filters: Vec<Filter> = shared
        .filters
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|filter| Filter::new(filter.clone(), QoS::AtLeastOnce))
        .collect();
    if !filters.is_empty() {
        let _ = client.subscribe_many(filters).await;
    }
}

/// Whether the broker will say that it has a message: with QoS 0 it has no packet id, and nobody says anything.
fn is_to_be_acknowledged(outgoing: &Outgoing) -> bool {
    matches!(outgoing, Outgoing::Publish(1..))
}

async fn poll(
    mut event_loop: EventLoop,
    deliver: mpsc::Sender<Incoming>,
    connected: mpsc::Sender<()>,
    ended: mpsc::Sender<End>,
) {
    let mut in_flight = 0_u64;
    let mut progress = Instant::now();
    let reason = loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                let _ = connected.send(()).await;
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                let payload = publish.payload.to_vec();
                if deliver.send(Incoming::Message { topic, payload }).await.is_err() {
                    break End::Lost("the component ended".to_owned());
                }
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                in_flight = in_flight.saturating_sub(1);
                progress = Instant::now();
                if ack.reason != rumqttc::v5::mqttbytes::v5::PubAckReason::Success
                    && ack.reason != rumqttc::v5::mqttbytes::v5::PubAckReason::NoMatchingSubscribers
                {
                    tracing::warn!(reason = ?ack.reason, "the broker refused a message");
                }
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                for code in &ack.return_codes {
                    if !matches!(code, rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success(_)) {
                        tracing::warn!(?code, "the broker refused a subscription");
                    }
                }
            }
            Ok(Event::Outgoing(outgoing)) if is_to_be_acknowledged(&outgoing) => {
                if in_flight == 0 {
                    progress = Instant::now();
                }
                in_flight += 1;
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => break End::Lost("closed".to_owned()),
            Ok(_) => {}
            Err(error) => break End::from(error),
        }
        // A lost session can leave the client pinging and never publishing again.
        if in_flight > 0 && progress.elapsed() > Duration::from_secs(limits::STUCK_SECONDS_MAX) {
            break End::Lost("no progress: the connection is given up".to_owned());
        }
    };
    let _ = ended.send(reason).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_about_a_record_is_no_refusal() {
        let of = |alert: &str| is_about_the_certificate(&format!("TLS: I/O: received fatal alert: {alert}"));
        assert!(of("CertificateExpired") && of("BadCertificate") && of("UnknownCA") && of("CertificateRequired"));
        assert!(!of("BadRecordMac") && !of("DecodeError") && !of("UnexpectedMessage"));
        assert!(!is_about_the_certificate("TLS: I/O: invalid peer certificate: Expired"));
    }

    #[test]
    fn what_nobody_acknowledges_is_not_waited_for() {
        assert!(is_to_be_acknowledged(&Outgoing::Publish(1)) && is_to_be_acknowledged(&Outgoing::Publish(u16::MAX)));
        assert!(!is_to_be_acknowledged(&Outgoing::Publish(0)) && !is_to_be_acknowledged(&Outgoing::PingReq));
    }

    #[test]
    fn an_address_may_be_several() {
        assert_eq!(addresses("one", 1), [("one".to_owned(), 1)]);
        let several = [("one".to_owned(), 1), ("[::1]".to_owned(), 2), ("other".to_owned(), 3)];
        assert_eq!(addresses("one:1, [::1]:2,other", 3), several);
    }

    #[test]
    fn the_back_off_grows_to_its_limit_and_is_never_the_same_for_all() {
        assert_eq!(backoff(0, 1.0), Duration::from_millis(200));
        assert_eq!(backoff(1, 0.0), Duration::from_millis(200));
        assert_eq!(backoff(30, 1.0), Duration::from_secs(limits::BACKOFF_SECONDS_MAX));
        assert!(backoff(3, rand_fraction()) <= backoff(3, 1.0));
    }
}
