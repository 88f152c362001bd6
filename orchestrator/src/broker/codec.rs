//! Frames in and packets out, with the checks that `rumqttd`'s codec leaves to its caller.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use rumqttd::protocol::v5::{self, V5};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Error, Packet, Protocol as _, Publish};

/// First packet: CONNECT alone.
pub(super) const CONNECT: u16 = 1 << 1;
/// Afterwards: PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT. The codec panics on some
/// of the others.
pub(super) const OTHERS: u16 = 1 << 3 | 1 << 4 | 1 << 8 | 1 << 10 | 1 << 12 | 1 << 14;

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
    match v5::check(buffer.iter(), bytes_max) {
        Ok(header) => Ok(Some(buffer.split_to(header.frame_length()))),
        Err(Error::InsufficientBytes(_)) => Ok(None),
        Err(_) => Err(invalid("a packet that is too large or malformed")),
    }
}

/// The protocol level of a CONNECT frame: 4 is MQTT 3.1.1, 5 is MQTT 5.
pub(super) fn level(frame: &[u8]) -> Option<u8> {
    let length = frame.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 2;
    frame.get(length + 6).copied()
}

/// The packet in a frame. Whatever the codec finds wrong is fatal: it has consumed the frame.
pub(super) fn decode(mut frame: BytesMut, bytes_max: usize) -> io::Result<Packet> {
    // DISCONNECT with a reason and no properties is legal, and the codec cannot read it.
    if frame.len() == 3 && frame[0] == 0xe0 {
        let reason_code = if frame[2] == 0x04 {
            DisconnectReasonCode::DisconnectWithWillMessage
        } else {
            DisconnectReasonCode::NormalDisconnection
        };
        return Ok(Packet::Disconnect(Disconnect { reason_code }, None));
    }
    V5.read_mut(&mut frame, bytes_max).map_err(|_| invalid("a malformed packet"))
}

pub(super) fn encode(packet: Packet, out: &mut BytesMut) -> io::Result<()> {
    V5.write(packet, out).map(|_| ()).map_err(|_| invalid("a packet that cannot be written"))
}

/// A v5 DISCONNECT with a reason; the codec writes it wrongly.
pub(super) fn disconnect(reason: u8, out: &mut BytesMut) {
    out.extend_from_slice(&[0xe0, 0x02, reason, 0x00]);
}

/// QoS and packet id of a publish, which `rumqttd` hides.
pub(super) fn meta(publish: &Publish) -> (u8, u16) {
    let mut bare = publish.clone();
    bare.payload = Bytes::new();
    let bytes = bare.serialize();
    ((bytes[0] >> 1) & 3, u16::from_be_bytes([bytes[1], bytes[2]]))
}

/// An own copy of a publish, out of the read buffer, never retained and never a duplicate.
pub(super) fn rebuilt(topic: &[u8], payload: &[u8], qos: u8, packet_id: u16) -> Publish {
    let mut bytes = BytesMut::with_capacity(5 + topic.len() + payload.len());
    bytes.put_u8(0x30 | (qos << 1));
    bytes.put_u16(packet_id);
    bytes.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
    bytes.extend_from_slice(topic);
    bytes.extend_from_slice(payload);
    Publish::deserialize(bytes.freeze())
}
