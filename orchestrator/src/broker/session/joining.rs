//! A connection without a certificate: one registration, and its answer. It never reaches the router but with that, so
//! strangers leave nothing behind there.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proto::capability::ComponentType;
use proto::topic::Topic;
use rumqttd::protocol::{Filter, Packet, PubAckReason, QoS, SubscribeReasonCode};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep_until, timeout};

use super::authorised;
use crate::broker::codec::{self, OTHERS, invalid};
use crate::broker::connect::Client;
use crate::broker::mailbox::{Delivery, Mailbox};
use crate::broker::{Front, limits};

/// Registrations that one connection may ask for.
const REGISTRATIONS_MAX: u32 = 5;

pub(crate) async fn serve(front: &Front, mut client: Client, address: IpAddr) -> io::Result<()> {
    let own = client.principal.id;
    let mailbox = Arc::new(Mailbox::of(ComponentType::PostureCollectionService));
    {
        let mut joining = front.joining.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = joining.values().filter(|other| **other == address).count();
        if joining.len() >= limits::JOINING_MAX
            || of_address >= limits::JOINING_PER_ADDRESS_MAX
            || joining.contains_key(&own)
        {
            front.metrics.connections_refused_total.up();
            return Err(invalid("too many components join at once"));
        }
        joining.insert(own, address);
    }
    // The id means nothing beyond this connection; nobody takes a component's place with it.
    front.exchange.strangers.enter(own, &mailbox);
    // Its answer comes whether it has subscribed or not.
    mailbox.subscribe(&Topic::RegistrationAnswer(own).to_string(), true);
    let deadline = Duration::from_secs(limits::JOINING_SECONDS);
    let result = timeout(deadline, pump(front, &mut client, &mailbox)).await;
    front.exchange.strangers.leave(own);
    front.joining.lock().unwrap_or_else(PoisonError::into_inner).remove(&own);
    result.unwrap_or_else(|_| Err(invalid("joining took too long")))
}

async fn pump(front: &Front, client: &mut Client, mailbox: &Mailbox) -> io::Result<()> {
    let mut out = BytesMut::new();
    let mut registrations_left = REGISTRATIONS_MAX;
    // Whoever connects to register has its registration ready.
    let first = tokio::time::Instant::now() + Duration::from_secs(limits::HANDSHAKE_SECONDS);
    client.welcome(&mut out)?;
    let mut pkid = 0_u16;
    loop {
        client.stream.write_all(&out).await?;
        out.clear();
        tokio::select! {
            read = client.read() => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(frame) = codec::frame(&mut client.buffer, client.packet_bytes_max, OTHERS)? {
                    let packet = codec::decode(client.version, frame, client.packet_bytes_max)?;
                    if take(front, client, packet, &mut registrations_left, &mut out)? {
                        return Ok(());
                    }
                }
            }
            () = sleep_until(first), if registrations_left == REGISTRATIONS_MAX => {
                return Err(invalid("connected without a certificate, and did not register"));
            }
            () = mailbox.filled() => {
                while let Some(answer) = mailbox.take() {
                    if codec::publish_bytes(&answer.topic, &answer.payload) > client.delivery_bytes_max {
                        front.metrics.deliveries_dropped_total.up();
                        continue;
                    }
                    pkid = pkid.checked_add(1).unwrap_or(1);
                    codec::publish(client.version, &answer.topic, &answer.payload, Some(pkid), &mut out);
                }
            }
        }
    }
}

/// Whether the connection ends with this packet.
fn take(
    front: &Front,
    client: &Client,
    packet: Packet,
    registrations_left: &mut u32,
    out: &mut BytesMut,
) -> io::Result<bool> {
    match packet {
        Packet::Subscribe(subscribe, _) if subscribe.filters.len() <= super::FILTERS_MAX => {
            let allowed = |filter: &Filter| {
                if client.principal.may_subscribe(&filter.path) {
                    SubscribeReasonCode::Success(QoS::AtLeastOnce)
                } else {
                    front.metrics.subscriptions_denied_total.up();
                    SubscribeReasonCode::NotAuthorized
                }
            };
            let return_codes = subscribe.filters.iter().map(allowed).collect();
            codec::suback(client.version, subscribe.pkid, return_codes, out)?;
        }
        Packet::Publish(publish, properties) => {
            let (qos, pkid) = codec::meta(&publish);
            let topic = authorised(front, client.principal, &publish, properties.as_ref(), qos);
            if topic.is_none() || *registrations_left == 0 {
                front.metrics.publishes_denied_total.up();
                return Err(invalid("a joining component may only register"));
            }
            *registrations_left -= 1;
            let registration = Delivery {
                topic: Topic::Registration.to_string().into(),
                payload: Bytes::copy_from_slice(&publish.payload),
                is_acknowledged: true,
            };
            let is_queued = front.exchange.try_publish(registration);
            let reason = if is_queued { PubAckReason::Success } else { PubAckReason::QuotaExceeded };
            if qos == 1 && !codec::puback(client.version, pkid, reason, out)? {
                return Err(invalid("too much is waiting: the registration has to come again"));
            }
        }
        Packet::PingReq(_) => codec::pingresp(out),
        Packet::PubAck(..) => {}
        Packet::Disconnect(..) => return Ok(true),
        _ => return Err(invalid("a packet that a joining component does not need")),
    }
    Ok(false)
}
