//! A component's connection: the pump between the wire, its mailbox, and for a service the router.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::topic::{Holder, Principal, Topic};
use rumqttd::Notification;
use rumqttd::protocol::{
    DisconnectReasonCode, Packet, PubAck, PubAckReason, Publish, PublishProperties, QoS, Subscribe,
    SubscribeReasonCode, Unsubscribe,
};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep_until, timeout};

use super::budget::Budget;
use super::codec::{self, OTHERS, Version, invalid};
use super::connect::{Client, Will};
use super::mailbox::{Delivery, Mailbox, Posted};
use super::router::Link;
use super::{Front, News, Slot, Turn, blocking, limits};

pub(super) mod joining;

/// MQTT 5 reason codes of DISCONNECT.
const NOT_AUTHORISED: u8 = 0x87;
const SHUTTING_DOWN: u8 = 0x8b;
const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
const SESSION_TAKEN_OVER: u8 = 0x8e;
const ADMINISTRATIVE_ACTION: u8 = 0x98;
const DISTRUSTED: &str = "the CA that signed its certificate is not trusted any more";
/// Filters in one packet: the contract gives nobody half as many.
const FILTERS_MAX: usize = 64;
/// Bytes that are collected for one write.
const WRITE_BYTES: usize = 64 * 1024;

/// Serves a component with a certificate: one connection an id, the older one ends.
pub(super) async fn serve(front: &Arc<Front>, client: Client, will: Option<Will>) -> io::Result<()> {
    let own = client.principal.id;
    let Holder::Component(component_type) = client.principal.holder else { return Err(invalid("not a component")) };
    let slot = {
        let mut slots = front.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(own).or_insert_with(|| Arc::new(Slot::default())))
    };
    let mut turn = slot.begin_turn();
    let wait = Duration::from_secs(2 * limits::ROUTER_ECHO_SECONDS);
    let _owner = tokio::select! {
        owner = timeout(wait, Arc::clone(&slot.owner).lock_owned()) => owner?,
        () = turn.over() => return Err(invalid("the same component has connected once more")),
    };
    // It may have been put out before its turn began.
    if !front.admission.is_admitted(own, component_type) {
        return Err(invalid("taken off the roster while it waited"));
    }
    let Ok(_permit) = Arc::clone(&front.connections).try_acquire_owned() else {
        front.metrics.connections_refused_total.up();
        return Err(invalid("too many connections"));
    };
    front.admission.connects(own);
    // It is back in time: nobody has to be told that it was gone.
    slot.will(None);
    // What collectors follow, the front hands to them. Services follow what many publish.
    let link = if component_type == ComponentType::PostureCollectionService {
        None
    } else {
        let linker = Arc::clone(&front.linker);
        let id = own.to_string();
        let linked = blocking(move || linker(&id)).await.and_then(Result::ok);
        let Some((tx, rx, _)) = linked else { return Err(invalid("the router refused the connection")) };
        Some(Link::new(tx, rx))
    };
    let mailbox = Arc::new(Mailbox::of(component_type));
    front.exchange.members.enter(own, &mailbox);
    front.metrics.connected.up();
    front.metrics.connections_total.up();
    let mut session = Session {
        front: Arc::clone(front),
        client,
        component_type,
        mailbox,
        link,
        out: BytesMut::new(),
        subscriptions: VecDeque::new(),
        unacknowledged: BTreeSet::new(),
        from_router: Vec::new(),
        pkid: 0,
        budget: Budget::of(component_type, tokio::time::Instant::now()),
    };
    let result = session.pump(&mut turn).await;
    front.exchange.members.leave(own);
    front.metrics.connected.down();
    if let Some(link) = session.link.take() {
        link.close().await;
    }
    let is_clean = matches!(result, Ok(End::Clean));
    if let Some(will) = will.filter(|_| !is_clean) {
        publish_will(front, &slot, (own, component_type), will);
    }
    result.map(|_| ())
}

/// Publishes a will, after its delay; the slot keeps it until then, and forgets it when its component is back.
fn publish_will(front: &Arc<Front>, slot: &Slot, (own, component_type): (ComponentId, ComponentType), will: Will) {
    let front = Arc::clone(front);
    let waiting = tokio::spawn(async move {
        tokio::time::sleep(will.delay).await;
        // Who was put out has no say any more.
        if front.admission.is_admitted(own, component_type) {
            front.metrics.wills_total.up();
            front.exchange.publish(&will.topic, will.delivery).await;
        }
    });
    slot.will(Some(waiting.abort_handle()));
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
    front: &Front,
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
    if qos > 1 || !is_plain || publish.payload.is_empty() || !front.may_publish(principal, topic) {
        return None;
    }
    topic.parse().ok()
}

struct Session {
    front: Arc<Front>,
    client: Client,
    component_type: ComponentType,
    /// What the front hands over.
    mailbox: Arc<Mailbox>,
    /// What a service subscribes to at the router.
    link: Option<Link>,
    out: BytesMut,
    /// SUBSCRIBEs that the router has not answered: `None` takes the router's code.
    subscriptions: VecDeque<(u16, Vec<Option<SubscribeReasonCode>>)>,
    /// What was sent with QoS 1 and is not acknowledged, by packet id.
    unacknowledged: BTreeSet<u16>,
    /// What came from the router with QoS 1 and is to be acknowledged there, by its packet id, in its order. It is as soon as it is
    /// taken from there: the router has no more than a hundred on their way, however many the client takes, and nothing of a session
    /// outlives its connection.
    from_router: Vec<u16>,
    /// The last packet id.
    pkid: u16,
    /// How much it may send.
    budget: Budget,
}

/// The router's next word; a connection without a link waits for ever.
async fn next(link: &mut Option<Link>) -> io::Result<Option<Notification>> {
    match link {
        Some(link) => link.rx.next().await.map_err(|_| invalid("the router dropped the connection")),
        None => std::future::pending().await,
    }
}

impl Session {
    async fn pump(&mut self, turn: &mut Turn) -> io::Result<End> {
        let idle = Duration::from_millis(u64::from(self.client.keep_alive) * 1500);
        let mut deadline = tokio::time::Instant::now() + idle;
        let mut news = self.client.news.clone();
        // Something may have changed since it was admitted. Without a CONNACK there is no DISCONNECT (MQTT 5 §3.14).
        if news.has_changed().unwrap_or(true) {
            if *news.borrow_and_update() == News::Closing {
                return Err(invalid("shutting down"));
            }
            if !self.is_trusted() {
                return Err(invalid(DISTRUSTED));
            }
        }
        self.client.welcome(&mut self.out)?;
        let mailbox = Arc::clone(&self.mailbox);
        let ends = self.client.ends;
        // It has sent more than it may: until then it is not read.
        let mut paused: Option<tokio::time::Instant> = None;
        loop {
            self.deliver();
            self.flush(turn).await?;
            let mut is_unscheduled = false;
            let has_room = self.has_room();
            tokio::select! {
                read = self.client.read(), if paused.is_none() => {
                    let bytes = read?;
                    if bytes == 0 {
                        return Err(invalid("closed without DISCONNECT"));
                    }
                    let now = tokio::time::Instant::now();
                    deadline = now + idle;
                    self.front.metrics.read_bytes_total.add(bytes as u64);
                    let mut count = 0;
                    let end = self.take_frames(&mut count).await;
                    paused = self.budget.spend(count, bytes, now);
                    if paused.is_some() {
                        self.front.metrics.pauses_total.up();
                    }
                    if let Some(end) = end? {
                        // What it said before it said goodbye was taken.
                        self.flush(turn).await?;
                        return Ok(end);
                    }
                }
                notification = next(&mut self.link), if has_room => {
                    let mut notification = notification?;
                    loop {
                        is_unscheduled |= self.take_notification(notification)?;
                        if !self.has_room() {
                            break;
                        }
                        let Some(link) = &mut self.link else { break };
                        match link.rx.recv_deadline(Instant::now()) {
                            Ok(next) => notification = next,
                            Err(_) => break,
                        }
                    }
                }
                () = mailbox.filled(), if has_room => {}
                () = sleep_until(paused.unwrap_or(deadline)), if paused.is_some() => {
                    paused = None;
                    deadline = tokio::time::Instant::now() + idle;
                }
                () = turn.over() => return self.put_out().await,
                () = sleep_until(ends) => return self.end_with(NOT_AUTHORISED, "its certificate has ended").await,
                _ = news.changed() => {
                    if *news.borrow_and_update() == News::Closing {
                        return self.end_with(SHUTTING_DOWN, "shutting down").await;
                    }
                    if !self.is_trusted() {
                        return self.end_with(NOT_AUTHORISED, DISTRUSTED).await;
                    }
                }
                () = sleep_until(deadline), if paused.is_none() => return self.end_with(KEEP_ALIVE_TIMEOUT, "nothing heard for one and a half keep-alives").await,
            }
            self.hand_over_taken().await?;
            if is_unscheduled {
                self.flush(turn).await?;
                if let Some(link) = &self.link {
                    link.rx.wake().await.map_err(|_| invalid("the router is gone"))?;
                }
            }
        }
    }

    /// Whether a CA that is trusted has signed its certificate.
    fn is_trusted(&self) -> bool {
        let shown = self.client.stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        shown.is_some_and(|der| self.front.trusted(der, Timestamp::now()).is_some())
    }

    /// The same component has connected again, or an operator has put it out.
    async fn put_out(&mut self) -> io::Result<End> {
        self.front.metrics.kicks_total.up();
        let is_in = self.front.admission.is_admitted(self.client.principal.id, self.component_type);
        let (reason, why) =
            if is_in { (SESSION_TAKEN_OVER, "taken over") } else { (ADMINISTRATIVE_ACTION, "put out by an operator") };
        self.end_with(reason, why).await
    }

    /// Writes what is due; a consumer that does not read is given up.
    async fn flush(&mut self, turn: &mut Turn) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let patience = Duration::from_secs(limits::WRITE_SECONDS);
        tokio::select! {
            written = timeout(patience, self.client.stream.write_all(&self.out)) => {
                let Ok(written) = written else {
                    self.front.metrics.slow_consumers_total.up();
                    return Err(invalid("it does not read what is sent to it"));
                };
                written?;
            }
            () = turn.over() => return Err(invalid("taken over while writing")),
        }
        self.out.clear();
        if self.out.capacity() > self.client.kept_bytes() {
            self.out = BytesMut::new();
        }
        Ok(())
    }

    async fn end_with(&mut self, reason: u8, why: &'static str) -> io::Result<End> {
        self.out.clear();
        codec::disconnect(self.client.version, reason, &mut self.out);
        let _ = timeout(Duration::from_secs(1), self.client.stream.write_all(&self.out)).await;
        let _ = timeout(Duration::from_secs(1), self.client.stream.shutdown()).await;
        Err(invalid(why))
    }

    async fn take_frames(&mut self, count: &mut usize) -> io::Result<Option<End>> {
        while let Some(frame) = codec::frame(&mut self.client.buffer, self.client.packet_bytes_max, OTHERS)? {
            *count += 1;
            match codec::decode(self.client.version, frame, self.client.packet_bytes_max)? {
                Packet::Publish(publish, properties) => self.take_publish(&publish, properties.as_ref()).await?,
                // Whatever it never asked for makes no room.
                Packet::PubAck(ack, _) => drop(self.unacknowledged.remove(&ack.pkid)),
                Packet::Subscribe(subscribe, _) => self.take_subscribe(subscribe).await?,
                Packet::Unsubscribe(unsubscribe, _) => self.take_unsubscribe(unsubscribe).await?,
                Packet::PingReq(_) => codec::pingresp(&mut self.out),
                Packet::Disconnect(disconnect, _) => {
                    let with_will = disconnect.reason_code == DisconnectReasonCode::DisconnectWithWillMessage;
                    return Ok(Some(if with_will { End::WithWill } else { End::Clean }));
                }
                _ => return Err(invalid("a packet that is not expected here")),
            }
        }
        Ok(None)
    }

    async fn hand_over(&mut self, packets: Vec<Packet>) -> io::Result<()> {
        match &mut self.link {
            Some(link) => link.send(packets).await.map_err(|_| invalid("the router is gone")),
            None => Ok(()),
        }
    }

    async fn take_publish(&mut self, publish: &Publish, properties: Option<&PublishProperties>) -> io::Result<()> {
        let (qos, pkid) = codec::meta(publish);
        let principal = self.client.principal;
        let posted = if let Some(topic) = authorised(&self.front, principal, publish, properties, qos) {
            // Copied out of the read buffer, which would live as long as the message otherwise.
            let delivery = Delivery {
                topic: Bytes::copy_from_slice(&publish.topic),
                payload: Bytes::copy_from_slice(&publish.payload),
                is_acknowledged: qos == 1,
            };
            self.front.metrics.publishes_total.up();
            Some(self.front.exchange.publish(&topic, delivery).await)
        } else {
            tracing::warn!(component = %principal.id, topic = %String::from_utf8_lossy(&publish.topic).escape_debug(), "publish denied");
            self.front.metrics.publishes_denied_total.up();
            None
        };
        let reason = match posted {
            Some(Posted::Taken) => PubAckReason::Success,
            Some(Posted::Nobody) => PubAckReason::NoMatchingSubscribers,
            Some(Posted::Full) => PubAckReason::QuotaExceeded,
            None => PubAckReason::NotAuthorized,
        };
        let is_denied = posted.is_none();
        let is_answered = match qos {
            // The older version has no word for a mailbox that is full: what is lost comes again from its outbox.
            1 if self.client.version == Version::V4 && !is_denied => {
                codec::puback(self.client.version, pkid, PubAckReason::Success, &mut self.out)?
            }
            1 => codec::puback(self.client.version, pkid, reason, &mut self.out)?,
            _ => !is_denied,
        };
        if is_answered {
            return Ok(());
        }
        codec::disconnect(self.client.version, NOT_AUTHORISED, &mut self.out);
        let _ = timeout(Duration::from_secs(1), self.client.stream.write_all(&self.out)).await;
        Err(invalid("a publish that is not allowed"))
    }

    /// Acknowledges to the router what was taken from it.
    async fn hand_over_taken(&mut self) -> io::Result<()> {
        if self.from_router.is_empty() {
            return Ok(());
        }
        let acks = self.from_router.drain(..).map(router_ack).collect();
        self.hand_over(acks).await
    }

    async fn take_subscribe(&mut self, subscribe: Subscribe) -> io::Result<()> {
        if subscribe.pkid == 0 || subscribe.filters.len() > FILTERS_MAX {
            return Err(invalid("SUBSCRIBE without a packet id, or with more filters than there are"));
        }
        let principal = self.client.principal;
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut for_router = Vec::new();
        for mut filter in subscribe.filters {
            let Some(grant) = self.front.subscribe_grant(principal, &filter.path) else {
                tracing::warn!(component = %principal.id, filter = %filter.path.escape_debug(), "subscription denied");
                self.front.metrics.subscriptions_denied_total.up();
                codes.push(Some(SubscribeReasonCode::NotAuthorized));
                continue;
            };
            if filter.qos == QoS::ExactlyOnce {
                filter.qos = QoS::AtLeastOnce;
            }
            if grant.is_for_receiver() || self.link.is_none() {
                self.mailbox.subscribe(&filter.path, filter.qos == QoS::AtLeastOnce);
                codes.push(Some(SubscribeReasonCode::Success(filter.qos)));
            } else {
                codes.push(None);
                for_router.push(filter);
            }
        }
        if for_router.is_empty() {
            let return_codes = codes.into_iter().flatten().collect();
            return codec::suback(self.client.version, subscribe.pkid, return_codes, &mut self.out);
        }
        self.subscriptions.push_back((subscribe.pkid, codes));
        self.hand_over(vec![Packet::Subscribe(Subscribe { pkid: subscribe.pkid, filters: for_router }, None)]).await
    }

    async fn take_unsubscribe(&mut self, unsubscribe: Unsubscribe) -> io::Result<()> {
        if unsubscribe.filters.len() > FILTERS_MAX {
            return Err(invalid("UNSUBSCRIBE with more filters than there are"));
        }
        // The router answers once a filter or not at all: the front answers, and swallows its answer.
        codec::unsuback(self.client.version, unsubscribe.pkid, unsubscribe.filters.len(), &mut self.out)?;
        let mut for_router = Vec::new();
        for filter in unsubscribe.filters {
            match self.client.principal.subscribe_grant(&filter) {
                Some(grant) if grant.is_for_receiver() || self.link.is_none() => self.mailbox.unsubscribe(&filter),
                Some(_) => for_router.push(filter),
                None => {}
            }
        }
        if for_router.is_empty() {
            return Ok(());
        }
        self.hand_over(vec![Packet::Unsubscribe(Unsubscribe { pkid: unsubscribe.pkid, filters: for_router }, None)])
            .await
    }

    /// Whether one more message may be sent.
    fn has_room(&self) -> bool {
        self.unacknowledged.len() < usize::from(self.client.receive_max) && self.out.len() < WRITE_BYTES
    }

    /// A packet id that is free; there are far more than may be unacknowledged.
    fn fresh_pkid(&mut self) -> u16 {
        loop {
            self.pkid = self.pkid.checked_add(1).unwrap_or(1);
            if self.unacknowledged.insert(self.pkid) {
                return self.pkid;
            }
        }
    }

    /// Whether a message is small enough for the client; what is not is not sent (MQTT 5 §3.1.2.11.4).
    fn fits(&self, topic: &[u8], payload: &[u8]) -> bool {
        let fits = codec::publish_bytes(topic, payload) <= self.client.delivery_bytes_max;
        if !fits {
            self.front.metrics.deliveries_dropped_total.up();
        }
        fits
    }

    /// Sends what waits in the mailbox.
    fn deliver(&mut self) {
        while self.has_room() {
            let Some(Delivery { topic, payload, is_acknowledged }) = self.mailbox.take() else { return };
            if self.fits(&topic, &payload) {
                let pkid = is_acknowledged.then(|| self.fresh_pkid());
                codec::publish(self.client.version, &topic, &payload, pkid, &mut self.out);
            }
        }
    }

    /// Whether the router waits to be woken.
    fn take_notification(&mut self, notification: Option<Notification>) -> io::Result<bool> {
        match notification {
            Some(Notification::Forward(forward)) => {
                let (qos, router_pkid) = codec::meta(&forward.publish);
                let (topic, payload) = (&forward.publish.topic, &forward.publish.payload);
                self.front.metrics.deliveries_total.up();
                if qos > 0 {
                    self.from_router.push(router_pkid);
                }
                if self.fits(topic, payload) {
                    let pkid = (qos > 0).then(|| self.fresh_pkid());
                    codec::publish(self.client.version, topic, payload, pkid, &mut self.out);
                }
            }
            Some(Notification::DeviceAck(ack)) => {
                if let Packet::SubAck(ack, _) = Packet::from(ack) {
                    let (pkid, codes) =
                        self.subscriptions.pop_front().ok_or_else(|| invalid("a SUBACK for nothing"))?;
                    let mut granted = ack.return_codes.into_iter();
                    let return_codes = codes
                        .into_iter()
                        .map(|code| code.or_else(|| granted.next()).unwrap_or(SubscribeReasonCode::Failure))
                        .collect();
                    codec::suback(self.client.version, pkid, return_codes, &mut self.out)?;
                }
            }
            Some(Notification::Unschedule) => return Ok(true),
            Some(Notification::Disconnect(..)) => return Err(invalid("the router ended the connection")),
            Some(_) | None => {}
        }
        Ok(false)
    }
}

fn router_ack(pkid: u16) -> Packet {
    Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None)
}
