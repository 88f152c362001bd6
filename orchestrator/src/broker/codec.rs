//! Frames in and packets out, in MQTT 5 and MQTT 3.1.1, with the checks that `rumqttd`'s codec leaves to its caller.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::{self, V5};
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Error, Packet, Protocol as _,
    PubAck, PubAckReason, Publish, SubAck, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};

/// First packet: CONNECT alone.
pub(super) const CONNECT: u16 = 1 << 1;
/// Afterwards: PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT. The codec panics on some
/// of the others.
pub(super) const OTHERS: u16 = 1 << 3 | 1 << 4 | 1 << 8 | 1 << 10 | 1 << 12 | 1 << 14;

/// Which MQTT a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// MQTT 3.1.1 (protocol level 4).
    V4,
    /// MQTT 5.
    V5,
}

pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A whole frame of one of these types, if it is there; over the size limit is an error before
/// anything is buffered.
pub(super) fn frame(buffer: &mut BytesMut, bytes_max: usize, types: u16) -> io::Result<Option<BytesMut>> {
    match buffer.first() {
        None => return Ok(None),
        Some(first) if types & (1 << (first >> 4)) == 0 => return Err(invalid("a packet that is not expected here")),
        Some(_) => {}
    }
    // The fixed header is the same in both versions.
    match v5::check(buffer.iter(), bytes_max) {
        Ok(header) => Ok(Some(buffer.split_to(header.frame_length()))),
        Err(Error::InsufficientBytes(_)) => Ok(None),
        Err(_) => Err(invalid("a packet that is too large or malformed")),
    }
}

/// The version that a CONNECT frame asks for.
pub(super) fn version(frame: &[u8]) -> Option<Version> {
    let length = frame.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 2;
    match frame.get(length + 6)? {
        4 => Some(Version::V4),
        5 => Some(Version::V5),
        _ => None,
    }
}

/// The packet in a frame. Whatever the codec finds wrong is fatal: it has consumed the frame.
pub(super) fn decode(version: Version, mut frame: BytesMut, bytes_max: usize) -> io::Result<Packet> {
    // DISCONNECT with a reason and no properties is legal, and the codec cannot read it.
    if version == Version::V5 && frame.len() == 3 && frame[0] == 0xe0 {
        let reason_code = if frame[2] == 0x04 {
            DisconnectReasonCode::DisconnectWithWillMessage
        } else {
            DisconnectReasonCode::NormalDisconnection
        };
        return Ok(Packet::Disconnect(Disconnect { reason_code }, None));
    }
    let packet = match version {
        Version::V4 => V4.read_mut(&mut frame, bytes_max),
        Version::V5 => V5.read_mut(&mut frame, bytes_max),
    };
    packet.map_err(|_| invalid("a malformed packet"))
}

fn encode(version: Version, packet: Packet, out: &mut BytesMut) -> io::Result<()> {
    let written = match version {
        Version::V4 => V4.write(packet, out),
        Version::V5 => V5.write(packet, out),
    };
    written.map(|_| ()).map_err(|_| invalid("a packet that cannot be written"))
}

/// CONNACK. The older version has five words for a refusal, and its codec panics on the others.
pub(super) fn connack(
    version: Version,
    code: ConnectReturnCode,
    properties: Option<ConnAckProperties>,
    out: &mut BytesMut,
) -> io::Result<()> {
    let code = match (version, code) {
        (Version::V5, code) | (Version::V4, code @ ConnectReturnCode::Success) => code,
        (Version::V4, ConnectReturnCode::ClientIdentifierNotValid) => ConnectReturnCode::ClientIdentifierNotValid,
        (Version::V4, ConnectReturnCode::Banned | ConnectReturnCode::NotAuthorized) => ConnectReturnCode::NotAuthorized,
        (Version::V4, _) => ConnectReturnCode::ServiceUnavailable,
    };
    let properties = properties.filter(|_| version == Version::V5);
    encode(version, Packet::ConnAck(ConnAck { session_present: false, code }, properties), out)
}

/// PUBACK. The older version cannot say why not: `false` where a refusal has to end the connection.
pub(super) fn puback(version: Version, pkid: u16, reason: PubAckReason, out: &mut BytesMut) -> io::Result<bool> {
    let is_taken = matches!(reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
    if version == Version::V4 && !is_taken {
        return Ok(false);
    }
    encode(version, Packet::PubAck(PubAck { pkid, reason }, None), out).map(|()| true)
}

/// SUBACK.
pub(super) fn suback(
    version: Version,
    pkid: u16,
    mut return_codes: Vec<SubscribeReasonCode>,
    out: &mut BytesMut,
) -> io::Result<()> {
    if version == Version::V4 {
        for code in &mut return_codes {
            if !matches!(code, SubscribeReasonCode::Success(_)) {
                *code = SubscribeReasonCode::Failure;
            }
        }
    }
    encode(version, Packet::SubAck(SubAck { pkid, return_codes }, None), out)
}

/// UNSUBACK for so many filters.
pub(super) fn unsuback(version: Version, pkid: u16, filter_count: usize, out: &mut BytesMut) -> io::Result<()> {
    let reasons = vec![UnsubAckReason::Success; filter_count];
    encode(version, Packet::UnsubAck(UnsubAck { pkid, reasons }, None), out)
}

/// PINGRESP.
pub(super) fn pingresp(out: &mut BytesMut) {
    out.extend_from_slice(&[0xd0, 0x00]);
}

/// A DISCONNECT with a reason, which only MQTT 5 has from a server; the codec writes it wrongly.
pub(super) fn disconnect(version: Version, reason: u8, out: &mut BytesMut) {
    if version == Version::V5 {
        out.extend_from_slice(&[0xe0, 0x02, reason, 0x00]);
    }
}

/// How many bytes a PUBLISH to a client takes.
pub(super) fn publish_bytes(topic: &[u8], payload: &[u8]) -> usize {
    topic.len() + payload.len() + 10
}

/// A PUBLISH to a client: never retained, never with properties. With a packet id it is one of QoS 1, else of QoS 0.
pub(super) fn publish(version: Version, topic: &[u8], payload: &[u8], pkid: Option<u16>, out: &mut BytesMut) {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let length = 2 + topic.len() + 2 * usize::from(pkid.is_some()) + properties.len() + payload.len();
    out.reserve(length + 5);
    out.put_u8(if pkid.is_some() { 0x32 } else { 0x30 });
    let mut left = length;
    loop {
        let low = u8::try_from(left % 128).unwrap_or_default();
        left /= 128;
        out.put_u8(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
    out.extend_from_slice(topic);
    if let Some(pkid) = pkid {
        out.put_u16(pkid);
    }
    out.extend_from_slice(properties);
    out.extend_from_slice(payload);
}

/// QoS and packet id of a publish, which `rumqttd` hides.
pub(super) fn meta(publish: &Publish) -> (u8, u16) {
    let mut bare = publish.clone();
    bare.payload = Bytes::new();
    let bytes = bare.serialize();
    ((bytes[0] >> 1) & 3, u16::from_be_bytes([bytes[1], bytes[2]]))
}

/// A publish for the router, of QoS 1: never retained and never a duplicate.
pub(super) fn for_router(topic: &[u8], payload: &[u8], packet_id: u16) -> Publish {
    let mut bytes = BytesMut::with_capacity(5 + topic.len() + payload.len());
    bytes.put_u8(0x32);
    bytes.put_u16(packet_id);
    bytes.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
    bytes.extend_from_slice(topic);
    bytes.extend_from_slice(payload);
    Publish::deserialize(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_a_client_is_what_the_codec_reads() {
        for (version, pkid) in
            [(Version::V4, None), (Version::V4, Some(7)), (Version::V5, None), (Version::V5, Some(7))]
        {
            for bytes in [0, 1, 100, 200, 20_000, 3_000_000] {
                let payload = vec![b'x'; bytes];
                let mut out = BytesMut::new();
                publish(version, b"/a/b", &payload, pkid, &mut out);
                let whole = frame(&mut out, 4_000_000, OTHERS).unwrap().unwrap();
                assert!(out.is_empty());
                let Packet::Publish(read, _) = decode(version, whole, 4_000_000).unwrap() else { panic!() };
                assert_eq!((&read.topic[..], &read.payload[..]), (&b"/a/b"[..], &payload[..]));
                assert_eq!(meta(&read), (u8::from(pkid.is_some()), pkid.unwrap_or_default()));
            }
        }
    }

    #[test]
    fn every_refusal_can_be_said_in_the_older_version() {
        for code in [
            ConnectReturnCode::Banned,
            ConnectReturnCode::NotAuthorized,
            ConnectReturnCode::ClientIdentifierNotValid,
            ConnectReturnCode::ImplementationSpecificError,
            ConnectReturnCode::ServerBusy,
        ] {
            let mut out = BytesMut::new();
            connack(Version::V4, code, None, &mut out).unwrap();
            assert!(out.len() == 4 && out[3] != 0);
        }
        let mut out = BytesMut::new();
        assert!(!puback(Version::V4, 1, PubAckReason::NotAuthorized, &mut out).unwrap());
        suback(Version::V4, 1, vec![SubscribeReasonCode::NotAuthorized], &mut out).unwrap();
        assert_eq!(out[..], [0x90, 3, 0, 1, 0x80]);
    }
}
