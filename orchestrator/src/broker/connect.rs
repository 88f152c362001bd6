//! The first packet: who connects, what it speaks, and whether it may.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::certificate::Certificate;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::limits::{JOIN_PAYLOAD_BYTES_MAX, PACKET_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, SERVICE_PAYLOAD_BYTES_MAX};
use proto::topic::{Holder, Principal, Topic};
use rumqttd::protocol::{ConnAckProperties, ConnectReturnCode, LastWill, Packet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

use super::codec::{self, CONNECT, Version, invalid};
use super::mailbox::Delivery;
use super::{Front, Handshake, News, Stream, limits, network, session};

/// The longest CONNECT: an id, properties, and a will.
const CONNECT_BYTES_MAX: usize = 32 * 1024;
/// Bytes that an idle connection of a collector, or of a stranger, keeps for reading, and of one that begins.
pub(super) const READ_BYTES: usize = 1_024;

/// A connection that said CONNECT.
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) buffer: BytesMut,
    pub(super) version: Version,
    pub(super) principal: Principal,
    /// The largest packet that it may send.
    pub(super) packet_bytes_max: usize,
    /// And the largest that it takes.
    pub(super) delivery_bytes_max: usize,
    /// Messages of QoS 1 that it takes before it has acknowledged any.
    pub(super) receive_max: u16,
    /// Seconds; what it asked for, within bounds.
    pub(super) keep_alive: u16,
    keep_alive_told: Option<u16>,
    session_expiry_told: Option<u32>,
    /// When its certificate ends.
    pub(super) ends: tokio::time::Instant,
    /// What has changed since before it was admitted.
    pub(super) news: watch::Receiver<News>,
}

/// What is published when a connection breaks.
#[derive(Debug, Clone)]
pub(super) struct Will {
    pub(super) topic: Topic,
    pub(super) delivery: Delivery,
    pub(super) delay: Duration,
}

/// Serves a connection to its end: until it is admitted here, from then on in a task of its own. What it takes to get there is
/// many times what a connection needs that is idle, and would be held as long.
pub(super) async fn serve(front: Arc<Front>, stream: Stream, peer: SocketAddr, handshake: Handshake) {
    match admitted(&front, stream, handshake).await {
        Ok((client, will)) => drop(tokio::spawn(attend(front, client, will, peer))),
        Err(error) => ended(peer, &error),
    }
}

async fn attend(front: Arc<Front>, client: Client, will: Option<Will>, peer: SocketAddr) {
    let result = match client.principal.holder {
        Holder::Joining => {
            front.metrics.strangers_total.up();
            session::joining::serve(&front, client, network(peer.ip())).await
        }
        Holder::Component(_) => session::serve(&front, client, will).await,
    };
    if let Err(error) = result {
        ended(peer, &error);
    }
}

fn ended(peer: SocketAddr, error: &io::Error) {
    tracing::debug!(%peer, %error, "connection ended");
}

/// Hears the first packet, and decides.
async fn admitted(front: &Front, mut stream: Stream, handshake: Handshake) -> io::Result<(Client, Option<Will>)> {
    // Before anything is decided by what holds now.
    let news = front.news.subscribe();
    let certificate = match stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
        None => None,
        Some(der) => {
            let certificate = front.trusted(der, Timestamp::now());
            Some(certificate.ok_or_else(|| invalid("a certificate that is not a component's"))?)
        }
    };
    let payload_bytes_max = match &certificate {
        None => JOIN_PAYLOAD_BYTES_MAX,
        Some(certificate) if certificate.component_type == ComponentType::PostureCollectionService => PAYLOAD_BYTES_MAX,
        Some(_) => SERVICE_PAYLOAD_BYTES_MAX,
    };
    let packet_bytes_max = payload_bytes_max + PACKET_OVERHEAD_BYTES;
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let deadline = Duration::from_secs(limits::HANDSHAKE_SECONDS);
    // Whoever it is may have been put out: until that is looked up, it gets no room to speak of.
    let first = timeout(deadline, first_frame(&mut stream, &mut buffer, CONNECT_BYTES_MAX)).await??;
    drop(handshake);
    let Some(version) = codec::version(&first) else {
        // CONNACK of MQTT 3.1.1, "unacceptable protocol version": every client understands it.
        let _ = stream.write_all(&[0x20, 0x02, 0x00, 0x01]).await;
        return Err(invalid("only MQTT 5 and MQTT 3.1.1 are spoken here"));
    };
    let Packet::Connect(connect, properties, will, will_properties, _) =
        codec::decode(version, first, CONNECT_BYTES_MAX)?
    else {
        return Err(invalid("the first packet is not CONNECT"));
    };
    let principal = match admit(front, certificate.as_ref(), connect.client_id.parse().ok()) {
        Ok(principal) => principal,
        Err((code, why)) => {
            front.metrics.connections_refused_total.up();
            return refuse(&mut stream, version, code, why).await;
        }
    };
    let asked = |read: fn(&rumqttd::protocol::ConnectProperties) -> Option<u32>| properties.as_ref().and_then(read);
    if asked(|asked| asked.receive_maximum.map(u32::from)) == Some(0) || asked(|asked| asked.max_packet_size) == Some(0)
    {
        return refuse(&mut stream, version, ConnectReturnCode::ProtocolError, "a limit of nothing at all").await;
    }
    // Nothing is kept of a session but its will, which waits no longer than the session would.
    let session_expiry = asked(|asked| asked.session_expiry_interval).unwrap_or_default();
    let session_expiry_kept = session_expiry.min(limits::SESSION_EXPIRY_SECONDS_MAX);
    let delay = will_properties.and_then(|properties| properties.delay_interval).unwrap_or_default();
    let will = match will.map(|will| allowed_will(front, principal, &will, delay.min(session_expiry_kept))).transpose()
    {
        Ok(will) => will,
        Err(why) => return refuse(&mut stream, version, ConnectReturnCode::NotAuthorized, why).await,
    };
    // None, or longer than the front waits: it says what holds, and an older client is cut off when it is silent.
    let keep_alive = match connect.keep_alive {
        0 => limits::KEEP_ALIVE_SECONDS_MAX,
        asked => asked.min(limits::KEEP_ALIVE_SECONDS_MAX),
    };
    let seconds = certificate.map_or(limits::JOINING_SECONDS, |certificate| {
        u64::try_from(certificate.not_after - Timestamp::now().as_second()).unwrap_or_default()
    });
    let client = Client {
        stream,
        buffer,
        version,
        principal,
        packet_bytes_max,
        delivery_bytes_max: asked(|asked| asked.max_packet_size).map_or(usize::MAX, |bytes| bytes as usize),
        receive_max: properties
            .as_ref()
            .and_then(|asked| asked.receive_maximum)
            .map_or(limits::IN_FLIGHT_MAX, |receive_max| receive_max.min(limits::IN_FLIGHT_MAX)),
        keep_alive,
        keep_alive_told: (keep_alive != connect.keep_alive).then_some(keep_alive),
        session_expiry_told: (session_expiry != session_expiry_kept).then_some(session_expiry_kept),
        ends: tokio::time::Instant::now() + Duration::from_secs(seconds),
        news,
    };
    Ok((client, will))
}

async fn first_frame(stream: &mut Stream, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<BytesMut> {
    loop {
        if let Some(frame) = codec::frame(buffer, bytes_max, CONNECT)? {
            return Ok(frame);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(invalid("closed before CONNECT"));
        }
    }
}

/// Who a connection is: its certificate says so, and its client id has to say the same.
fn admit(
    front: &Front,
    certificate: Option<&Certificate>,
    claimed: Option<ComponentId>,
) -> Result<Principal, (ConnectReturnCode, &'static str)> {
    match (certificate, claimed) {
        (Some(certificate), Some(id)) if certificate.component == id => {
            if front.admission.is_admitted(id, certificate.component_type) {
                return Ok(Principal { id, holder: Holder::Component(certificate.component_type) });
            }
            Err((ConnectReturnCode::Banned, "the component is not on the roster, or was put out"))
        }
        (None, Some(id)) => Ok(Principal { id, holder: Holder::Joining }),
        _ => Err((ConnectReturnCode::ClientIdentifierNotValid, "the client id is not the certificate's")),
    }
}

async fn refuse<T>(stream: &mut Stream, version: Version, code: ConnectReturnCode, why: &'static str) -> io::Result<T> {
    let mut out = BytesMut::new();
    codec::connack(version, code, None, &mut out)?;
    let _ = timeout(Duration::from_secs(1), stream.write_all(&out)).await;
    let _ = stream.shutdown().await;
    Err(invalid(why))
}

/// The will, if its component may publish it now.
fn allowed_will(front: &Front, principal: Principal, will: &LastWill, delay: u32) -> Result<Will, &'static str> {
    let topic = std::str::from_utf8(&will.topic).ok().filter(|topic| front.may_publish(principal, topic));
    let topic = topic.and_then(|topic| topic.parse().ok()).filter(|_| !will.retain && !will.message.is_empty());
    let topic: Topic = topic.ok_or("a will that may not be published")?;
    let delivery = Delivery {
        topic: Bytes::copy_from_slice(&will.topic),
        payload: Bytes::copy_from_slice(&will.message),
        is_acknowledged: true,
    };
    Ok(Will { topic, delivery, delay: Duration::from_secs(u64::from(delay)) })
}

impl Client {
    /// CONNACK: what holds here, and what holds otherwise than the client asked.
    pub(super) fn welcome(&self, out: &mut BytesMut) -> io::Result<()> {
        let properties = ConnAckProperties {
            max_qos: Some(1),
            retain_available: Some(0),
            max_packet_size: u32::try_from(self.packet_bytes_max).ok(),
            // The router would invite aliases, and then mixes up topics.
            topic_alias_max: None,
            subscription_identifiers_available: Some(0),
            shared_subscription_available: Some(0),
            receive_max: Some(limits::IN_FLIGHT_MAX),
            server_keep_alive: self.keep_alive_told,
            session_expiry_interval: self.session_expiry_told,
            ..ConnAckProperties::default()
        };
        codec::connack(self.version, ConnectReturnCode::Success, Some(properties), out)
    }

    /// Bytes that it keeps for reading, and again for writing, while it is idle. There are thousands of collectors, each of which
    /// has something to say once a minute, and few services, which are hardly ever silent.
    pub(super) fn kept_bytes(&self) -> usize {
        match self.principal.holder {
            Holder::Component(ComponentType::PostureCollectionService) | Holder::Joining => READ_BYTES,
            Holder::Component(_) => 128 * READ_BYTES,
        }
    }

    /// Waits for bytes, and says how many came.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        // Not before: until then it shows only what is left of it.
        if self.buffer.is_empty() && self.buffer.capacity() > self.kept_bytes() {
            // A large packet is over: an idle connection holds no more than it needs.
            self.buffer = BytesMut::with_capacity(READ_BYTES);
        }
        self.stream.read_buf(&mut self.buffer).await
    }
}
