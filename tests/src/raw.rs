//! MQTT by the byte: a client that keeps to no rule at all, over TLS or without it. What the listener answers is read
//! with a parser of its own, which is strict: bytes that are no MQTT end the test. Nothing here is shared with the
//! library under the front or with the components' client, so that a mistake of theirs is not made here again.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use service::identity::Identity;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::PATIENCE;

/// Which MQTT is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, level 4.
    V311,
    /// MQTT 5.
    V5,
}

/// Control packet types, as they stand in the upper half of the first byte.
pub mod kind {
    #![expect(missing_docs, reason = "the names are those of the specification")]
    pub const CONNECT: u8 = 0x10;
    pub const CONNACK: u8 = 0x20;
    pub const PUBLISH: u8 = 0x30;
    pub const PUBACK: u8 = 0x40;
    pub const SUBSCRIBE: u8 = 0x82;
    pub const SUBACK: u8 = 0x90;
    pub const UNSUBSCRIBE: u8 = 0xa2;
    pub const UNSUBACK: u8 = 0xb0;
    pub const PINGREQ: u8 = 0xc0;
    pub const PINGRESP: u8 = 0xd0;
    pub const DISCONNECT: u8 = 0xe0;
}

/// Reason codes that are looked for.
pub mod reason {
    #![expect(missing_docs, reason = "the names are those of the specification")]
    pub const SUCCESS: u8 = 0x00;
    pub const WITH_WILL: u8 = 0x04;
    pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    pub const CLIENT_ID_NOT_VALID: u8 = 0x85;
    pub const NOT_AUTHORISED: u8 = 0x87;
    /// Return codes of MQTT 3.1.1.
    pub const V311_ID_REJECTED: u8 = 0x02;
    pub const V311_NOT_AUTHORISED: u8 = 0x05;
    pub const V311_SUBSCRIPTION_FAILED: u8 = 0x80;
}

/// Properties of MQTT 5, each as its bytes: concatenated they are what a packet carries.
pub mod property {
    /// With one byte.
    pub fn byte(id: u8, value: u8) -> Vec<u8> {
        vec![id, value]
    }

    /// With two bytes.
    pub fn short(id: u8, value: u16) -> Vec<u8> {
        [vec![id], value.to_be_bytes().to_vec()].concat()
    }

    /// With four bytes.
    pub fn long(id: u8, value: u32) -> Vec<u8> {
        [vec![id], value.to_be_bytes().to_vec()].concat()
    }

    /// With a text, or with bytes.
    pub fn text(id: u8, value: &[u8]) -> Vec<u8> {
        [vec![id], super::text(value)].concat()
    }

    /// `message expiry interval`, in seconds.
    pub fn message_expiry(seconds: u32) -> Vec<u8> {
        long(0x02, seconds)
    }

    /// `response topic`.
    pub fn response_topic(topic: &str) -> Vec<u8> {
        text(0x08, topic.as_bytes())
    }

    /// `subscription identifier`.
    pub fn subscription_id(id: usize) -> Vec<u8> {
        [vec![0x0b], super::length(id)].concat()
    }

    /// `topic alias`.
    pub fn topic_alias(alias: u16) -> Vec<u8> {
        short(0x23, alias)
    }

    /// A user property.
    pub fn user(name: &str, value: &str) -> Vec<u8> {
        [vec![0x26], super::text(name.as_bytes()), super::text(value.as_bytes())].concat()
    }
}

/// A number as MQTT writes lengths: seven bits a byte.
pub fn length(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number % 128).expect("less than 128");
        number /= 128;
        bytes.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return bytes;
        }
    }
}

/// Bytes with their length before them.
pub fn text(bytes: &[u8]) -> Vec<u8> {
    let count = u16::try_from(bytes.len()).expect("a text has at most 65,535 bytes");
    [count.to_be_bytes().as_slice(), bytes].concat()
}

/// A packet: first byte, length, the rest.
pub fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    [[first].as_slice(), &length(rest.len()), rest].concat()
}

/// What is published when the connection breaks.
#[derive(Debug, Clone, Default)]
pub struct Will {
    /// Where.
    pub topic: Vec<u8>,
    /// What.
    pub payload: Vec<u8>,
    /// How.
    pub qos: u8,
    /// Whether it is to be kept.
    pub is_retained: bool,
    /// Seconds after the end; MQTT 5.
    pub delay_seconds: Option<u32>,
}

/// A CONNECT.
#[derive(Debug, Clone)]
pub struct Connect {
    /// The client id.
    pub client: Vec<u8>,
    /// Seconds.
    pub keep_alive: u16,
    /// Clean session, or clean start.
    pub is_clean: bool,
    /// Seconds that the session outlives the connection; MQTT 5.
    pub session_expiry: Option<u32>,
    /// How many publishes may be unacknowledged; MQTT 5.
    pub receive_maximum: Option<u16>,
    /// More properties; MQTT 5.
    pub properties: Vec<u8>,
    /// The will.
    pub will: Option<Will>,
    /// User name and password.
    pub login: Option<(String, String)>,
}

impl Connect {
    /// As this client, with nothing special.
    pub fn of(client: impl ToString) -> Self {
        Self {
            client: client.to_string().into_bytes(),
            keep_alive: 60,
            is_clean: true,
            session_expiry: None,
            receive_maximum: None,
            properties: Vec::new(),
            will: None,
            login: None,
        }
    }

    /// Its bytes.
    pub fn bytes(&self, version: Version) -> Vec<u8> {
        let is_v5 = version == Version::V5;
        let mut flags = u8::from(self.is_clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | (will.qos << 3) | (u8::from(will.is_retained) << 5);
        }
        if self.login.is_some() {
            flags |= 0xc0;
        }
        let mut rest = text(b"MQTT");
        rest.extend_from_slice(&[if is_v5 { 5 } else { 4 }, flags]);
        rest.extend_from_slice(&self.keep_alive.to_be_bytes());
        if is_v5 {
            let mut properties = self.properties.clone();
            properties.extend(self.session_expiry.map(|seconds| property::long(0x11, seconds)).unwrap_or_default());
            properties.extend(self.receive_maximum.map(|most| property::short(0x21, most)).unwrap_or_default());
            rest.extend(length(properties.len()));
            rest.extend(properties);
        }
        rest.extend(text(&self.client));
        if let Some(will) = &self.will {
            if is_v5 {
                let properties = will.delay_seconds.map(|seconds| property::long(0x18, seconds)).unwrap_or_default();
                rest.extend(length(properties.len()));
                rest.extend(properties);
            }
            rest.extend(text(&will.topic));
            rest.extend(text(&will.payload));
        }
        if let Some((user, password)) = &self.login {
            rest.extend(text(user.as_bytes()));
            rest.extend(text(password.as_bytes()));
        }
        packet(kind::CONNECT, &rest)
    }
}

/// A PUBLISH that the client sends.
#[derive(Debug, Clone, Default)]
pub struct Publish {
    /// Where.
    pub topic: Vec<u8>,
    /// What.
    pub payload: Vec<u8>,
    /// 0, 1, 2, or 3, which there is not.
    pub qos: u8,
    /// Its id; left out with QoS 0.
    pub packet_id: u16,
    /// Whether it is to be kept.
    pub is_retained: bool,
    /// Whether it says that it comes again.
    pub is_duplicate: bool,
    /// Properties; MQTT 5.
    pub properties: Vec<u8>,
}

impl Publish {
    /// With QoS 1.
    pub fn of(topic: impl ToString, payload: impl Into<Vec<u8>>) -> Self {
        let topic = topic.to_string().into_bytes();
        Self { topic, payload: payload.into(), qos: 1, packet_id: 1, ..Self::default() }
    }

    /// Its bytes.
    pub fn bytes(&self, version: Version) -> Vec<u8> {
        let flags = u8::from(self.is_duplicate) << 3 | self.qos << 1 | u8::from(self.is_retained);
        let mut rest = text(&self.topic);
        if self.qos > 0 {
            rest.extend_from_slice(&self.packet_id.to_be_bytes());
        }
        if version == Version::V5 {
            rest.extend(length(self.properties.len()));
            rest.extend_from_slice(&self.properties);
        }
        rest.extend_from_slice(&self.payload);
        packet(kind::PUBLISH | flags, &rest)
    }
}

/// A SUBSCRIBE.
pub fn subscribe(version: Version, packet_id: u16, filters: &[(&[u8], u8)]) -> Vec<u8> {
    let mut rest = packet_id.to_be_bytes().to_vec();
    rest.extend((version == Version::V5).then_some(0));
    for (filter, options) in filters {
        rest.extend(text(filter));
        rest.push(*options);
    }
    packet(kind::SUBSCRIBE, &rest)
}

/// An UNSUBSCRIBE.
pub fn unsubscribe(version: Version, packet_id: u16, filters: &[&[u8]]) -> Vec<u8> {
    let mut rest = packet_id.to_be_bytes().to_vec();
    rest.extend((version == Version::V5).then_some(0));
    rest.extend(filters.iter().flat_map(|filter| text(filter)));
    packet(kind::UNSUBSCRIBE, &rest)
}

/// A PUBACK.
pub fn puback(packet_id: u16) -> Vec<u8> {
    packet(kind::PUBACK, &packet_id.to_be_bytes())
}

/// A PINGREQ.
pub const PINGREQ: [u8; 2] = [kind::PINGREQ, 0];
/// A DISCONNECT.
pub const DISCONNECT: [u8; 2] = [kind::DISCONNECT, 0];

/// A PUBLISH that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// How.
    pub qos: u8,
    /// Its id; 0 with QoS 0.
    pub packet_id: u16,
    /// Whether it was kept.
    pub is_retained: bool,
    /// Its properties, as their bytes.
    pub properties: Vec<u8>,
}

/// A packet that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNACK.
    Welcome {
        /// Whether the listener remembers something.
        is_session_present: bool,
        /// The return or reason code.
        code: u8,
        /// Number properties by id.
        numbers: Vec<(u8, u32)>,
    },
    /// PUBLISH.
    Publish(Delivered),
    /// PUBACK: id and reason; 3.1.1 knows success only.
    PubAck(u16, u8),
    /// SUBACK: id and a code for each filter.
    SubAck(u16, Vec<u8>),
    /// UNSUBACK: id and a code for each filter; 3.1.1 has none.
    UnsubAck(u16, Vec<u8>),
    /// PINGRESP.
    Pong,
    /// DISCONNECT, with its reason.
    Goodbye(u8),
}

/// Reads what a listener may send; `Err` says what is wrong with it.
struct Reader<'bytes>(&'bytes [u8]);

type Read<T> = Result<T, &'static str>;

impl<'bytes> Reader<'bytes> {
    fn take(&mut self, count: usize) -> Read<&'bytes [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Read<u32> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn short(&mut self) -> Read<u16> {
        Ok(u16::try_from(self.number(2)?).expect("two bytes"))
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    fn length(&mut self) -> Read<usize> {
        let mut number = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a length of more than four bytes")
    }

    fn text(&mut self) -> Read<String> {
        let count = usize::from(self.short()?);
        String::from_utf8(self.take(count)?.to_vec()).map_err(|_| "a text that is no UTF-8")
    }

    /// Those of the properties that are numbers, by id; all of them must be well formed.
    fn properties(&mut self) -> Read<Vec<(u8, u32)>> {
        let count = self.length()?;
        let mut inner = Reader(self.take(count)?);
        let mut numbers = Vec::new();
        while !inner.0.is_empty() {
            let id = inner.byte()?;
            match id {
                1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => numbers.push((id, inner.number(1)?)),
                19 | 33 | 34 | 35 => numbers.push((id, inner.number(2)?)),
                2 | 17 | 24 | 39 => numbers.push((id, inner.number(4)?)),
                11 => numbers.push((id, u32::try_from(inner.length()?).map_err(|_| "too long")?)),
                3 | 8 | 18 | 21 | 26 | 28 | 31 => drop(inner.text()?),
                9 | 22 => {
                    let count = usize::from(inner.short()?);
                    inner.take(count)?;
                }
                38 => drop((inner.text()?, inner.text()?)),
                _ => return Err("a property that there is not"),
            }
        }
        Ok(numbers)
    }

    /// The whole packet, after its length.
    fn packet(mut self, first: u8, version: Version) -> Read<Packet> {
        let is_v5 = version == Version::V5;
        let packet = match (first & 0xf0, first & 0x0f) {
            (kind::CONNACK, 0) => {
                let flags = self.byte()?;
                let code = self.byte()?;
                let is_present = flags & 1 == 1;
                if flags > 1 || is_present && code != 0 {
                    return Err("CONNACK flags that there are not");
                }
                let numbers = if is_v5 && !self.0.is_empty() { self.properties()? } else { Vec::new() };
                Packet::Welcome { is_session_present: is_present, code, numbers }
            }
            (kind::PUBLISH, flags) => {
                let qos = flags >> 1 & 3;
                let topic = self.text()?;
                if qos > 1 || topic.is_empty() || topic.contains(['+', '#', '\0']) {
                    return Err("a QoS or a topic that nobody asked for");
                }
                let packet_id = if qos > 0 { self.short()? } else { 0 };
                if qos > 0 && packet_id == 0 {
                    return Err("a packet id of zero");
                }
                let before = self.0;
                let mut properties = Vec::new();
                if is_v5 {
                    self.properties()?;
                    let mut written = Reader(&before[..before.len() - self.0.len()]);
                    written.length()?;
                    properties = written.0.to_vec();
                }
                let payload = std::mem::take(&mut self.0).to_vec();
                Packet::Publish(Delivered { topic, payload, qos, packet_id, is_retained: flags & 1 == 1, properties })
            }
            (kind::PUBACK, 0) => {
                let packet_id = self.short()?;
                let reason = if is_v5 && !self.0.is_empty() { self.byte()? } else { 0 };
                if is_v5 && !self.0.is_empty() {
                    self.properties()?;
                }
                Packet::PubAck(packet_id, reason)
            }
            (acknowledgement @ (kind::SUBACK | kind::UNSUBACK), 0) => {
                let packet_id = self.short()?;
                if is_v5 {
                    self.properties()?;
                }
                let codes = std::mem::take(&mut self.0).to_vec();
                if acknowledgement == kind::SUBACK {
                    Packet::SubAck(packet_id, codes)
                } else {
                    Packet::UnsubAck(packet_id, codes)
                }
            }
            (kind::PINGRESP, 0) => Packet::Pong,
            (kind::DISCONNECT, 0) if is_v5 => {
                let reason = if self.0.is_empty() { 0 } else { self.byte()? };
                if !self.0.is_empty() {
                    self.properties()?;
                }
                Packet::Goodbye(reason)
            }
            _ => return Err("a packet that a listener does not send"),
        };
        if self.0.is_empty() { Ok(packet) } else { Err("bytes follow the packet") }
    }
}

/// A packet at the beginning of these bytes, and how many it takes; `None` where more has to come.
pub fn parse(bytes: &[u8], version: Version) -> Result<Option<(Packet, usize)>, &'static str> {
    let mut reader = Reader(bytes);
    let Ok(first) = reader.byte() else { return Ok(None) };
    let count = match reader.length() {
        Ok(count) => count,
        Err("cut off") => return Ok(None),
        Err(other) => return Err(other),
    };
    let Ok(rest) = reader.take(count) else { return Ok(None) };
    let taken = bytes.len() - reader.0.len();
    Reader(rest).packet(first, version).map(|packet| Some((packet, taken)))
}

/// What bytes travel over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection.
pub struct Client {
    /// Which MQTT its packets are.
    pub version: Version,
    wire: Box<dyn Wire>,
    buffer: Vec<u8>,
    /// Publishes that came while something else was waited for.
    delivered: VecDeque<Delivered>,
    packet_id: u16,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Connects, from this address where one is given.
pub async fn tcp(address: &str, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Client {
    /// Over anything.
    pub fn over(wire: impl Wire + 'static, version: Version) -> Self {
        Self { version, wire: Box::new(wire), buffer: Vec::new(), delivered: VecDeque::new(), packet_id: 0 }
    }

    /// Over TLS, after its handshake.
    pub async fn over_tls(tcp: TcpStream, config: Arc<ClientConfig>, version: Version) -> io::Result<Self> {
        let name = ServerName::try_from("muster").map_err(io::Error::other)?;
        let handshake = TlsConnector::from(config).connect(name, tcp);
        let stream = tokio::time::timeout(PATIENCE, handshake).await??;
        Ok(Self::over(stream, version))
    }

    /// Without TLS.
    pub async fn plain(address: &str, version: Version) -> io::Result<Self> {
        Ok(Self::over(tcp(address, None).await?, version))
    }

    /// With a component's certificate; nothing is sent yet.
    pub async fn member(identity: &Identity, version: Version) -> io::Result<Self> {
        let address = format!("{}:{}", identity.host, identity.port);
        let config = identity.tls().map_err(io::Error::other)?;
        Self::over_tls(tcp(&address, None).await?, config, version).await
    }

    /// Without a certificate; nothing is sent yet.
    pub async fn stranger(address: &str, ca_fingerprint: &str, version: Version) -> io::Result<Self> {
        let config = bus::tls::joining(&[ca_fingerprint.to_owned()]).map_err(io::Error::other)?;
        Self::over_tls(tcp(address, None).await?, config, version).await
    }

    /// Sends any bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = async {
            self.wire.write_all(bytes).await?;
            self.wire.flush().await
        };
        tokio::time::timeout(PATIENCE, sent).await?
    }

    /// Sends nothing more, and says so.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.wire.shutdown().await
    }

    /// Both directions, for whoever writes and reads at once.
    pub fn into_wire(self) -> Box<dyn Wire> {
        self.wire
    }

    /// The next packet; `None` once the connection has ended. Waits as long as a test may take.
    pub async fn next(&mut self) -> Option<Packet> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("the listener answers or ends the connection in time")
    }

    async fn read(&mut self) -> Option<Packet> {
        loop {
            match parse(&self.buffer, self.version) {
                Ok(Some((packet, taken))) => {
                    self.buffer.drain(..taken);
                    return Some(packet);
                }
                Ok(None) => {}
                Err(why) => panic!("the listener sent what is no MQTT: {why}: {:02x?}", self.buffer),
            }
            // However a connection ends, it has ended.
            if !matches!(self.wire.read_buf(&mut self.buffer).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// The next packet that is no publish; those wait for [`Client::delivery`].
    pub async fn answer(&mut self) -> Option<Packet> {
        loop {
            match self.next().await? {
                Packet::Publish(delivered) => self.delivered.push_back(delivered),
                other => return Some(other),
            }
        }
    }

    /// The next publish, acknowledged; `None` once the connection has ended.
    pub async fn delivery(&mut self) -> Option<Delivered> {
        let delivered = self.unacknowledged_delivery().await?;
        if delivered.qos > 0 {
            self.send(&puback(delivered.packet_id)).await.ok()?;
        }
        Some(delivered)
    }

    /// The next publish; `None` once the connection has ended.
    pub async fn unacknowledged_delivery(&mut self) -> Option<Delivered> {
        loop {
            if let Some(delivered) = self.delivered.pop_front() {
                return Some(delivered);
            }
            if let Packet::Publish(delivered) = self.next().await? {
                self.delivered.push_back(delivered);
            }
        }
    }

    /// Whether nothing is published to it for so long.
    pub async fn is_quiet_for(&mut self, duration: Duration) -> bool {
        self.delivered.is_empty() && tokio::time::timeout(duration, self.unacknowledged_delivery()).await.is_err()
    }

    /// Sends CONNECT; the code of the answer, `None` where there is none.
    pub async fn connect(&mut self, connect: &Connect) -> Option<u8> {
        let bytes = connect.bytes(self.version);
        self.send(&bytes).await.ok()?;
        match self.answer().await? {
            Packet::Welcome { code, .. } => Some(code),
            other => panic!("CONNECT was answered with {other:?}"),
        }
    }

    /// Another packet id.
    pub fn packet_id(&mut self) -> u16 {
        self.packet_id = self.packet_id % 60_000 + 1;
        self.packet_id
    }

    /// Subscribes with QoS 1; a code for each filter, `None` where the connection ended.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Option<Vec<u8>> {
        let packet_id = self.packet_id();
        let filters: Vec<(&[u8], u8)> = filters.iter().map(|filter| (filter.as_bytes(), 1)).collect();
        self.send(&subscribe(self.version, packet_id, &filters)).await.ok()?;
        match self.answer().await? {
            Packet::SubAck(of, codes) if of == packet_id => Some(codes),
            Packet::Goodbye(_) => None,
            other => panic!("SUBSCRIBE was answered with {other:?}"),
        }
    }

    /// Publishes with the QoS that it says and a fresh id; the reason, `None` where the connection ended.
    pub async fn publish(&mut self, publish: Publish) -> Option<u8> {
        let packet_id = self.packet_id();
        let bytes = Publish { packet_id, ..publish }.bytes(self.version);
        self.send(&bytes).await.ok()?;
        match self.answer().await? {
            Packet::PubAck(of, reason) if of == packet_id => Some(reason),
            Packet::Goodbye(_) => None,
            other => panic!("PUBLISH was answered with {other:?}"),
        }
    }

    /// Whether the connection is alive: it pings. Acknowledgements that come meanwhile are read over.
    pub async fn is_alive(&mut self) -> bool {
        if self.send(&PINGREQ).await.is_err() {
            return false;
        }
        loop {
            match self.answer().await {
                Some(Packet::Pong) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Waits until the listener ends the connection; the reason that it gave last, if any.
    pub async fn end(&mut self) -> Option<u8> {
        let mut reason = None;
        while let Some(packet) = self.next().await {
            if let Packet::Goodbye(code) = packet {
                reason = Some(code);
            }
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listener_sends_is_read_and_what_it_may_not_send_is_not() {
        let read = |bytes: &[u8], version| parse(bytes, version).map(|read| read.map(|(packet, _)| packet));
        let publish = Publish { properties: property::user("a", "b"), ..Publish::of("/t", *b"x") };
        for version in [Version::V5, Version::V311] {
            let Ok(Some(Packet::Publish(delivered))) = read(&publish.bytes(version), version) else { panic!() };
            assert_eq!((delivered.topic.as_str(), delivered.payload.as_slice()), ("/t", b"x".as_slice()));
            assert_eq!(delivered.properties.is_empty(), version == Version::V311);
            for unexpected in [Connect::of("c").bytes(version), PINGREQ.to_vec(), vec![0xf0, 0], vec![0x30, 1, 0]] {
                assert!(read(&unexpected, version).is_err(), "{unexpected:02x?}");
            }
        }
        // One packet in two versions is two packets.
        assert!(read(&publish.bytes(Version::V311), Version::V5).is_err());
        let welcome = [0x20, 6, 0, 0, 3, 0x21, 0, 9];
        let expected = Packet::Welcome { is_session_present: false, code: 0, numbers: vec![(0x21, 9)] };
        assert_eq!(read(&welcome, Version::V5), Ok(Some(expected)));
        assert_eq!(read(&welcome[..7], Version::V5), Ok(None));
        assert!(read(&welcome, Version::V311).is_err());
    }

    #[test]
    fn lengths_take_as_many_bytes_as_the_specification_says() {
        for (number, bytes) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_152, 4)] {
            assert_eq!(length(number).len(), bytes);
            assert_eq!(Reader(&length(number)).length(), Ok(number));
        }
    }
}
