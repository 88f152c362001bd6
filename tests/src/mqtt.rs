//! A plain MQTT client that keeps to no rule but the protocol, with the keys of components that have joined.

use std::collections::BTreeSet;

use proto::capability::ComponentType;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use service::identity::Identity;

use crate::{Installation, PATIENCE};

/// A component that has joined, but is connected by the test.
pub async fn enrolled(installation: &Installation, component_type: ComponentType, name: &str) -> Identity {
    let member = installation.scripted(component_type, name).await;
    member.bus.close();
    identity_of(installation, name)
}

/// The identity of a component that has joined.
pub fn identity_of(installation: &Installation, name: &str) -> Identity {
    let directory = installation.data.path().join(name).join("identity");
    Identity::load(&directory).expect("the identity is whole").expect("the component has joined")
}

/// How a component connects, with a client id that it may or may not have.
pub fn options(identity: &Identity, client: &str) -> MqttOptions {
    let tls = identity.tls().expect("the identity has its keys");
    let mut options = MqttOptions::new(client, &identity.host, identity.port);
    options
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)))
        .set_max_packet_size(Some(4 * 1024 * 1024))
        .set_outgoing_inflight_upper_limit(16);
    options
}

/// A topic and what was said on it.
pub type Heard = (String, String);

/// A connection.
pub struct Client {
    requests: AsyncClient,
    events: EventLoop,
    heard: BTreeSet<Heard>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("heard", &self.heard).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects; why not, where the broker does not let it in.
    pub async fn connect(options: MqttOptions) -> Result<Self, String> {
        let (requests, events) = AsyncClient::new(options, 16);
        let mut connected = Self { requests, events, heard: BTreeSet::new() };
        match connected.next().await? {
            Packet::ConnAck(_) => Ok(connected),
            other => Err(format!("{other:?}")),
        }
    }

    /// Connects as the component that it is.
    pub async fn of(identity: &Identity) -> Result<Self, String> {
        Self::connect(options(identity, &identity.component.to_string())).await
    }

    /// The next packet.
    pub async fn next(&mut self) -> Result<Packet, String> {
        let next = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(packet)) => return Ok(packet),
                    Ok(Event::Outgoing(_)) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        let packet = tokio::time::timeout(PATIENCE, next).await.map_err(|_| "nothing came".to_owned())??;
        if let Packet::Publish(publish) = &packet {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.heard.insert((text(&publish.topic), text(&publish.payload)));
        }
        Ok(packet)
    }

    /// The answer to a subscription.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Result<Vec<SubscribeReasonCode>, String> {
        let filters = filters.iter().map(|filter| Filter::new((*filter).to_owned(), QoS::AtLeastOnce));
        self.requests.try_subscribe_many(filters).map_err(|error| error.to_string())?;
        loop {
            if let Packet::SubAck(ack) = self.next().await? {
                return Ok(ack.return_codes);
            }
        }
    }

    /// What the broker says to a message.
    pub async fn publish(&mut self, topic: &str) -> Result<PubAckReason, String> {
        self.say(topic, "x").await
    }

    /// What the broker says to these words.
    pub async fn say(&mut self, topic: &str, words: &str) -> Result<PubAckReason, String> {
        let words = words.to_owned();
        self.requests.try_publish(topic, QoS::AtLeastOnce, false, words).map_err(|error| error.to_string())?;
        loop {
            if let Packet::PubAck(ack) = self.next().await? {
                return Ok(ack.reason);
            }
        }
    }

    /// Whether the broker took these words; that nobody listens is no refusal.
    pub async fn is_taken(&mut self, topic: &str, words: &str) -> bool {
        matches!(self.say(topic, words).await, Ok(PubAckReason::Success | PubAckReason::NoMatchingSubscribers))
    }

    /// Everything that it has heard by the time that all this has come.
    pub async fn heard(&mut self, awaited: &BTreeSet<Heard>) -> &BTreeSet<Heard> {
        while !awaited.is_subset(&self.heard) {
            if let Err(error) = self.next().await {
                let missing: Vec<_> = awaited.difference(&self.heard).collect();
                panic!("{error}; still to come: {missing:?}");
            }
        }
        &self.heard
    }
}
