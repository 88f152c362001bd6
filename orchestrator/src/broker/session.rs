//! One connection: who is it, what may it do, and the pump between the wire and the router.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bus::certificate::Certificate;
use bytes::BytesMut;
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::limits::{JOIN_PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX, SERVICE_PAYLOAD_BYTES_MAX};
use proto::topic::{Holder, Principal, Topic};
use rumqttd::Notification;
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, Packet, PingResp, PubAck,
    PubAckReason, Publish, PublishProperties, QoS, SubAck, Subscribe, SubscribeReasonCode, UnsubAck, UnsubAckReason,
    Unsubscribe,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use super::budget::Budget;
use super::codec::{self, CONNECT, OTHERS, invalid};
use super::router::Link;
use super::{Front, Handshake, Slot, blocking, limits, network};

type Stream = TlsStream<TcpStream>;

/// MQTT 5 reason codes of DISCONNECT.
const NOT_AUTHORISED: u8 = 0x87;
const SHUTTING_DOWN: u8 = 0x8b;
const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
const SESSION_TAKEN_OVER: u8 = 0x8e;
const ADMINISTRATIVE_ACTION: u8 = 0x98;
/// Room for topic, properties and packet header beside the payload.
const PACKET_OVERHEAD_BYTES: usize = 4 * 1024;

/// Registrations that one connection may ask for.
const REGISTRATIONS_MAX: u32 = 5;

/// A connection that said CONNECT.
struct Client {
    stream: Stream,
    buffer: BytesMut,
    principal: Principal,
    packet_bytes_max: usize,
    keep_alive: u16,
    /// When its certificate ends.
    ends: tokio::time::Instant,
}

/// Serves a connection to its end.
pub(super) async fn serve(front: Arc<Front>, stream: Stream, peer: SocketAddr, handshake: Handshake) {
    if let Err(error) = run(&front, stream, peer, handshake).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn run(front: &Arc<Front>, mut stream: Stream, peer: SocketAddr, handshake: Handshake) -> io::Result<()> {
    let certificate = match stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
        None => None,
        Some(der) => {
            let certificate = Certificate::verify(der, &front.ca_der, Timestamp::now());
            Some(certificate.map_err(|_| invalid("a certificate that is not a component's"))?)
        }
    };
    let payload_bytes_max = match &certificate {
        None => JOIN_PAYLOAD_BYTES_MAX,
        Some(certificate) if certificate.component_type == ComponentType::PostureCollectionService => PAYLOAD_BYTES_MAX,
        Some(_) => SERVICE_PAYLOAD_BYTES_MAX,
    };
    let packet_bytes_max = payload_bytes_max + PACKET_OVERHEAD_BYTES;
    let mut buffer = BytesMut::with_capacity(4096);
    let first = timeout(Duration::from_secs(limits::HANDSHAKE_SECONDS), async {
        loop {
            if let Some(frame) = codec::frame(&mut buffer, packet_bytes_max, CONNECT)? {
                return Ok::<_, io::Error>(frame);
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(invalid("closed before CONNECT"));
            }
        }
    })
    .await??;
    drop(handshake);
    if codec::level(&first) != Some(5) {
        // CONNACK of MQTT 3.1.1, "unacceptable protocol version": every client understands it.
        let _ = stream.write_all(&[0x20, 0x02, 0x00, 0x01]).await;
        return Err(invalid("only MQTT 5 is spoken here"));
    }
    let Packet::Connect(connect, _, will, _, _) = codec::decode(first, packet_bytes_max)? else {
        return Err(invalid("the first packet is not CONNECT"));
    };
    let claimed: Option<ComponentId> = connect.client_id.parse().ok();
    let (principal, is_admitted) = match (&certificate, claimed) {
        (Some(certificate), Some(id)) if certificate.component == id => {
            let holder = Holder::Component(certificate.component_type);
            (Principal { id, holder }, front.admission.is_admitted(id, certificate.component_type))
        }
        (None, Some(id)) => (Principal { id, holder: Holder::Joining }, true),
        _ => {
            return refuse(
                &mut stream,
                ConnectReturnCode::ClientIdentifierNotValid,
                "the client id is not the certificate's",
            )
            .await;
        }
    };
    if !is_admitted {
        return refuse(&mut stream, ConnectReturnCode::Banned, "the component is not on the roster, or was put out")
            .await;
    }
    if connect.keep_alive == 0 || connect.keep_alive > limits::KEEP_ALIVE_SECONDS_MAX {
        return refuse(&mut stream, ConnectReturnCode::ImplementationSpecificError, "keep-alive out of bounds").await;
    }
    if will.as_ref().is_some_and(|will| !is_will_allowed(principal, will)) {
        return refuse(&mut stream, ConnectReturnCode::NotAuthorized, "a will that may not be published").await;
    }
    let seconds = certificate.map_or(limits::JOINING_SECONDS, |certificate| {
        u64::try_from(certificate.not_after - Timestamp::now().as_second()).unwrap_or_default()
    });
    let ends = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let client = Client { stream, buffer, principal, packet_bytes_max, keep_alive: connect.keep_alive, ends };
    match principal.holder {
        Holder::Joining => join(front, client, network(peer.ip())).await,
        Holder::Component(_) => member(front, client, will).await,
    }
}

async fn refuse(stream: &mut Stream, code: ConnectReturnCode, why: &'static str) -> io::Result<()> {
    let mut out = BytesMut::new();
    codec::encode(Packet::ConnAck(ConnAck { session_present: false, code }, None), &mut out)?;
    let _ = timeout(Duration::from_secs(1), stream.write_all(&out)).await;
    let _ = stream.shutdown().await;
    Err(invalid(why))
}

fn is_will_allowed(principal: Principal, will: &LastWill) -> bool {
    !will.retain && std::str::from_utf8(&will.topic).is_ok_and(|topic| principal.may_publish(topic))
}

fn welcome(packet_bytes_max: usize) -> Packet {
    let properties = ConnAckProperties {
        max_qos: Some(1),
        retain_available: Some(0),
        max_packet_size: u32::try_from(packet_bytes_max).ok(),
        // The router would invite aliases, and then mixes up topics.
        topic_alias_max: None,
        subscription_identifiers_available: Some(0),
        shared_subscription_available: Some(0),
        receive_max: Some(100),
        ..ConnAckProperties::default()
    };
    Packet::ConnAck(ConnAck { session_present: false, code: ConnectReturnCode::Success }, Some(properties))
}

/// A connection without a certificate: one registration, and its answer. It never has a link to the
/// router, so strangers leave nothing behind there.
async fn join(front: &Front, mut client: Client, address: IpAddr) -> io::Result<()> {
    let (answer, mut answers) = mpsc::channel(4);
    let own = client.principal.id;
    {
        let mut joining = front.joining.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = joining.values().filter(|(_, other)| *other == address).count();
        if joining.len() >= limits::JOINING_MAX
            || of_address >= limits::JOINING_PER_ADDRESS_MAX
            || joining.contains_key(&own)
        {
            return Err(invalid("too many components join at once"));
        }
        joining.insert(own, (answer, address));
    }
    let deadline = Duration::from_secs(limits::JOINING_SECONDS);
    let result = timeout(deadline, join_pump(front, &mut client, &mut answers)).await;
    front.joining.lock().unwrap_or_else(PoisonError::into_inner).remove(&own);
    result.unwrap_or_else(|_| Err(invalid("joining took too long")))
}

async fn join_pump(front: &Front, client: &mut Client, answers: &mut mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    let mut out = BytesMut::new();
    let mut registrations_left = REGISTRATIONS_MAX;
    // Whoever connects to register has its registration ready.
    let first = tokio::time::Instant::now() + Duration::from_secs(limits::HANDSHAKE_SECONDS);
    codec::encode(welcome(client.packet_bytes_max), &mut out)?;
    loop {
        client.stream.write_all(&out).await?;
        out.clear();
        tokio::select! {
            read = client.stream.read_buf(&mut client.buffer) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(frame) = codec::frame(&mut client.buffer, client.packet_bytes_max, OTHERS)? {
                    match codec::decode(frame, client.packet_bytes_max)? {
                        Packet::Subscribe(subscribe, _) => {
                            let allowed = |filter: &Filter| if client.principal.may_subscribe(&filter.path) {
                                SubscribeReasonCode::Success(QoS::AtLeastOnce)
                            } else {
                                SubscribeReasonCode::NotAuthorized
                            };
                            let return_codes = subscribe.filters.iter().map(allowed).collect();
                            codec::encode(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes }, None), &mut out)?;
                        }
                        Packet::Publish(publish, properties) => {
                            let (qos, pkid) = codec::meta(&publish);
                            let topic = authorised(client.principal, &publish, properties.as_ref(), qos);
                            if topic.is_none() || registrations_left == 0 {
                                return Err(invalid("a joining component may only register"));
                            }
                            registrations_left -= 1;
                            let is_queued = front.injector.publish(Topic::Registration.to_string(), publish.payload.to_vec());
                            let reason = if is_queued { PubAckReason::Success } else { PubAckReason::QuotaExceeded };
                            if qos == 1 {
                                codec::encode(Packet::PubAck(PubAck { pkid, reason }, None), &mut out)?;
                            }
                        }
                        Packet::PingReq(_) => codec::encode(Packet::PingResp(PingResp), &mut out)?,
                        Packet::PubAck(..) => {}
                        Packet::Disconnect(..) => return Ok(()),
                        _ => return Err(invalid("a packet that a joining component does not need")),
                    }
                }
            }
            () = sleep_until(first), if registrations_left == REGISTRATIONS_MAX => {
                return Err(invalid("connected without a certificate, and did not register"));
            }
            answer = answers.recv() => {
                let Some(payload) = answer else { return Ok(()) };
                let topic = Topic::RegistrationAnswer(client.principal.id).to_string();
                codec::encode(Packet::Publish(codec::rebuilt(topic.as_bytes(), &payload, 1, 1), None), &mut out)?;
            }
        }
    }
}

/// A component with a certificate: one connection an id, the older one ends.
async fn member(front: &Arc<Front>, client: Client, will: Option<LastWill>) -> io::Result<()> {
    let own = client.principal.id;
    let slot = {
        let mut slots = front.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Slot { kick: Notify::new(), owner: Arc::default() });
        Arc::clone(slots.entry(own).or_insert_with(fresh))
    };
    let owner = Arc::clone(&slot.owner);
    let _owner = if let Ok(owner) = Arc::clone(&owner).try_lock_owned() {
        owner
    } else {
        slot.kick.notify_one();
        timeout(Duration::from_secs(2 * limits::ROUTER_ECHO_SECONDS), owner.lock_owned()).await?
    };
    // A kick that nobody was there to take is not meant for this connection.
    let _ = timeout(Duration::ZERO, slot.kick.notified()).await;
    // The kick that was just taken may have been an eviction.
    let Holder::Component(component_type) = client.principal.holder else { return Err(invalid("not a component")) };
    if !front.admission.is_admitted(own, component_type) {
        return Err(invalid("taken off the roster while it waited"));
    }
    let budget = Budget::of(component_type, tokio::time::Instant::now());
    let Ok(_permit) = Arc::clone(&front.connections).try_acquire_owned() else {
        return Err(invalid("too many connections"));
    };
    let linker = Arc::clone(&front.linker);
    let id = own.to_string();
    let linked = blocking(move || linker(&id)).await.and_then(Result::ok);
    let Some((tx, rx, _)) = linked else { return Err(invalid("the router refused the connection")) };
    let mut session = Session {
        front: Arc::clone(front),
        client,
        link: Link::new(tx, rx),
        out: BytesMut::with_capacity(4096),
        subscriptions: VecDeque::new(),
        in_flight: VecDeque::new(),
        budget,
    };
    let result = session.pump(&slot.kick).await;
    let Session { link, .. } = session;
    link.close().await;
    let is_clean = matches!(result, Ok(End::Clean));
    if let Some(will) = will.filter(|_| !is_clean) {
        let topic = String::from_utf8_lossy(&will.topic).into_owned();
        front.injector.publish(topic, will.message.to_vec());
    }
    result.map(|_| ())
}

/// How a session ended without an error.
enum End {
    /// With DISCONNECT.
    Clean,
    /// With DISCONNECT that asks for the will.
    WithWill,
}

/// The topic of a publish that may go on: allowed by the table, QoS 0 or 1, no alias, no
/// subscription ids, something in it.
fn authorised(
    principal: Principal,
    publish: &Publish,
    properties: Option<&PublishProperties>,
    qos: u8,
) -> Option<Topic> {
    let is_plain = properties.is_none_or(|properties| {
        properties.topic_alias.is_none()
            && properties.subscription_identifiers.is_empty()
            && properties.response_topic.is_none()
    });
    let topic = std::str::from_utf8(&publish.topic).ok()?;
    // An empty payload would delete a retained message, whatever its retain bit says.
    if qos > 1 || !is_plain || publish.payload.is_empty() || !principal.may_publish(topic) {
        return None;
    }
    topic.parse().ok()
}

struct Session {
    front: Arc<Front>,
    client: Client,
    link: Link,
    out: BytesMut,
    /// SUBSCRIBEs that the router has not answered: `None` takes the router's code.
    subscriptions: VecDeque<(u16, Vec<Option<SubscribeReasonCode>>)>,
    /// What the router sent with QoS 1, in its order, and whether the client has acknowledged it.
    in_flight: VecDeque<(u16, bool)>,
    /// How much it may send.
    budget: Budget,
}

impl Session {
    async fn pump(&mut self, kick: &Notify) -> io::Result<End> {
        let idle = Duration::from_millis(u64::from(self.client.keep_alive) * 1500);
        let mut deadline = tokio::time::Instant::now() + idle;
        codec::encode(welcome(self.client.packet_bytes_max), &mut self.out)?;
        let mut closing = self.front.closing.subscribe();
        // It has sent more than it may: until then it is not read.
        let mut paused: Option<tokio::time::Instant> = None;
        loop {
            self.flush(kick).await?;
            let mut is_unscheduled = false;
            tokio::select! {
                read = self.client.stream.read_buf(&mut self.client.buffer), if paused.is_none() => {
                    let bytes = read?;
                    if bytes == 0 {
                        return Err(invalid("closed without DISCONNECT"));
                    }
                    let now = tokio::time::Instant::now();
                    deadline = now + idle;
                    let mut packets = Vec::new();
                    let mut count = 0;
                    let end = self.take_frames(&mut packets, &mut count);
                    paused = self.budget.spend(count, bytes, now);
                    self.link.send(packets).await.map_err(|_| invalid("the router is gone"))?;
                    if let Some(end) = end? {
                        return Ok(end);
                    }
                }
                notification = self.link.rx.next() => {
                    let mut notification = notification.map_err(|_| invalid("the router dropped the connection"))?;
                    loop {
                        is_unscheduled |= self.take_notification(notification)?;
                        if self.out.len() > 64 * 1024 {
                            break;
                        }
                        match self.link.rx.recv_deadline(Instant::now()) {
                            Ok(next) => notification = next,
                            Err(_) => break,
                        }
                    }
                }
                () = sleep_until(paused.unwrap_or(deadline)), if paused.is_some() => {
                    paused = None;
                    deadline = tokio::time::Instant::now() + idle;
                }
                () = kick.notified() => return self.kicked().await,
                () = sleep_until(self.client.ends) => return self.end_with(NOT_AUTHORISED, "its certificate has ended").await,
                _ = closing.changed() => return self.end_with(SHUTTING_DOWN, "shutting down").await,
                () = sleep_until(deadline), if paused.is_none() => return self.end_with(KEEP_ALIVE_TIMEOUT, "nothing heard for one and a half keep-alives").await,
            }
            if is_unscheduled {
                self.flush(kick).await?;
                self.link.rx.wake().await.map_err(|_| invalid("the router is gone"))?;
            }
        }
    }

    /// The same component has connected again, or an operator has put it out.
    async fn kicked(&mut self) -> io::Result<End> {
        let Principal { id, holder } = self.client.principal;
        let is_in =
            matches!(holder, Holder::Component(component_type) if self.front.admission.is_admitted(id, component_type));
        let (reason, why) =
            if is_in { (SESSION_TAKEN_OVER, "taken over") } else { (ADMINISTRATIVE_ACTION, "put out by an operator") };
        self.end_with(reason, why).await
    }

    /// Writes what is due; a consumer that does not read is given up.
    async fn flush(&mut self, kick: &Notify) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        tokio::select! {
            written = timeout(Duration::from_secs(limits::WRITE_SECONDS), self.client.stream.write_all(&self.out)) => written??,
            () = kick.notified() => return Err(invalid("taken over while writing")),
        }
        self.out.clear();
        Ok(())
    }

    async fn end_with(&mut self, reason: u8, why: &'static str) -> io::Result<End> {
        self.out.clear();
        codec::disconnect(reason, &mut self.out);
        let _ = timeout(Duration::from_secs(1), self.client.stream.write_all(&self.out)).await;
        let _ = timeout(Duration::from_secs(1), self.client.stream.shutdown()).await;
        Err(invalid(why))
    }

    fn take_frames(&mut self, packets: &mut Vec<Packet>, count: &mut usize) -> io::Result<Option<End>> {
        while let Some(frame) = codec::frame(&mut self.client.buffer, self.client.packet_bytes_max, OTHERS)? {
            *count += 1;
            match codec::decode(frame, self.client.packet_bytes_max)? {
                Packet::Publish(publish, properties) => self.take_publish(&publish, properties.as_ref(), packets)?,
                Packet::PubAck(ack, _) => self.take_ack(ack.pkid, packets),
                Packet::Subscribe(subscribe, _) => self.take_subscribe(subscribe, packets)?,
                Packet::Unsubscribe(unsubscribe, _) => {
                    // The router answers once a filter or not at all: the front answers, and swallows its answer.
                    let reasons = vec![UnsubAckReason::Success; unsubscribe.filters.len()];
                    codec::encode(Packet::UnsubAck(UnsubAck { pkid: unsubscribe.pkid, reasons }, None), &mut self.out)?;
                    let filters: Vec<String> = unsubscribe
                        .filters
                        .into_iter()
                        .filter(|filter| self.client.principal.may_subscribe(filter))
                        .collect();
                    if !filters.is_empty() {
                        packets.push(Packet::Unsubscribe(Unsubscribe { pkid: unsubscribe.pkid, filters }, None));
                    }
                }
                Packet::PingReq(_) => codec::encode(Packet::PingResp(PingResp), &mut self.out)?,
                Packet::Disconnect(disconnect, _) => {
                    let with_will = disconnect.reason_code == DisconnectReasonCode::DisconnectWithWillMessage;
                    return Ok(Some(if with_will { End::WithWill } else { End::Clean }));
                }
                _ => return Err(invalid("a packet that is not expected here")),
            }
        }
        Ok(None)
    }

    fn take_publish(
        &mut self,
        publish: &Publish,
        properties: Option<&PublishProperties>,
        packets: &mut Vec<Packet>,
    ) -> io::Result<()> {
        let (qos, pkid) = codec::meta(publish);
        let Some(topic) = authorised(self.client.principal, publish, properties, qos) else {
            tracing::warn!(component = %self.client.principal.id, topic = %String::from_utf8_lossy(&publish.topic).escape_debug(), "publish denied");
            if qos == 1 {
                let denied = PubAck { pkid, reason: PubAckReason::NotAuthorized };
                return codec::encode(Packet::PubAck(denied, None), &mut self.out);
            }
            codec::disconnect(NOT_AUTHORISED, &mut self.out);
            return Err(invalid("a publish that is not allowed"));
        };
        if let Topic::RegistrationAnswer(client) = topic {
            // For a connection that has no link: the front hands it over itself.
            let joining = self.front.joining.lock().unwrap_or_else(PoisonError::into_inner).get(&client).cloned();
            if let Some((joining, _)) = joining {
                let _ = joining.try_send(publish.payload.to_vec());
            }
            if qos == 1 {
                codec::encode(Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None), &mut self.out)?;
            }
            return Ok(());
        }
        packets.push(Packet::Publish(codec::rebuilt(&publish.topic, &publish.payload, qos, pkid), None));
        Ok(())
    }

    /// Acknowledgements reach the router in its own order, whatever order the client sends them in;
    /// those that it never asked for reach it not at all.
    fn take_ack(&mut self, pkid: u16, packets: &mut Vec<Packet>) {
        if let Some(entry) = self.in_flight.iter_mut().find(|entry| entry.0 == pkid) {
            entry.1 = true;
        }
        while let Some((pkid, true)) = self.in_flight.front().copied() {
            self.in_flight.pop_front();
            packets.push(Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None));
        }
    }

    fn take_subscribe(&mut self, subscribe: Subscribe, packets: &mut Vec<Packet>) -> io::Result<()> {
        if subscribe.pkid == 0 {
            return Err(invalid("SUBSCRIBE without a packet id"));
        }
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut allowed = Vec::new();
        for mut filter in subscribe.filters {
            if self.client.principal.may_subscribe(&filter.path) {
                if filter.qos == QoS::ExactlyOnce {
                    filter.qos = QoS::AtLeastOnce;
                }
                codes.push(None);
                allowed.push(filter);
            } else {
                tracing::warn!(component = %self.client.principal.id, filter = %filter.path.escape_debug(), "subscription denied");
                codes.push(Some(SubscribeReasonCode::NotAuthorized));
            }
        }
        if allowed.is_empty() {
            let return_codes = codes.into_iter().flatten().collect();
            return codec::encode(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes }, None), &mut self.out);
        }
        self.subscriptions.push_back((subscribe.pkid, codes));
        packets.push(Packet::Subscribe(Subscribe { pkid: subscribe.pkid, filters: allowed }, None));
        Ok(())
    }

    /// Whether the router waits to be woken.
    fn take_notification(&mut self, notification: Option<Notification>) -> io::Result<bool> {
        match notification {
            Some(Notification::Forward(forward)) => {
                let (qos, pkid) = codec::meta(&forward.publish);
                if qos > 0 {
                    self.in_flight.push_back((pkid, false));
                }
                codec::encode(Packet::Publish(forward.publish, forward.properties), &mut self.out)?;
            }
            Some(Notification::DeviceAck(ack)) => match Packet::from(ack) {
                Packet::SubAck(ack, _) => {
                    let (pkid, codes) =
                        self.subscriptions.pop_front().ok_or_else(|| invalid("a SUBACK for nothing"))?;
                    let mut granted = ack.return_codes.into_iter();
                    let return_codes = codes
                        .into_iter()
                        .map(|code| code.or_else(|| granted.next()).unwrap_or(SubscribeReasonCode::Failure))
                        .collect();
                    codec::encode(Packet::SubAck(SubAck { pkid, return_codes }, None), &mut self.out)?;
                }
                Packet::UnsubAck(..) => {}
                other => codec::encode(other, &mut self.out)?,
            },
            Some(Notification::Unschedule) => return Ok(true),
            Some(Notification::Disconnect(..)) => return Err(invalid("the router ended the connection")),
            Some(_) | None => {}
        }
        Ok(false)
    }
}
