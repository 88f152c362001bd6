//! What an attacker and its victim need: messages in which everything is free to choose, identities whose connection
//! the test makes itself, and the question whether anybody else noticed.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::envelope::{ENVELOPE_VERSION, Envelope};
use proto::fault::FaultCode;
use proto::id::{ComponentId, MessageId, TransactionId};
use proto::message::{HeartbeatAction, HeartbeatRequest, HeartbeatResponse, Message};
use proto::operator::{Ask, OperatorEvent, RosterEntry};
use proto::seal::Sealed;
use proto::topic::Topic;
use service::identity::{Identity, certificate_der};
use uuid::Uuid;

use crate::Installation;
use crate::raw::{Client, Connect, DISCONNECT, Delivered, Publish, Version};

/// How long an honest component may wait while others attack.
pub const PROMPT: Duration = Duration::from_secs(10);

static PANICS: AtomicU64 = AtomicU64::new(0);

/// From now on, counts panics in the tasks and threads of this process. Tests fail on threads of their own names, which
/// are not counted: a test that fails says nothing about the others.
pub fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            // A test of the file's root has no path in its name, but always several words.
            if thread.name().is_none_or(|name| !name.contains('_')) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(panic);
        }));
    });
}

/// How often anything has panicked: a listener of this process that did may look alive, as its task took it along.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

impl Installation {
    /// A component that has joined and shaken hands, and is connected by nobody but the test.
    pub async fn enrolled(&self, component_type: ComponentType, name: &str) -> Identity {
        let member = self.scripted(component_type, name).await;
        member.bus.close();
        self.identity(name)
    }

    /// The identity of a component with this name.
    pub fn identity(&self, name: &str) -> Identity {
        let directory = self.data.path().join(name).join("identity");
        Identity::load(&directory).expect("an identity that can be read").expect("the component has joined")
    }

    /// The CA, DER.
    pub fn ca_der(&self) -> Vec<u8> {
        let pem = std::fs::read_to_string(self.data.path().join("orchestrator/ca/ca.pem")).expect("the CA is there");
        certificate_der(&pem).expect("a certificate")
    }

    /// What strangers know the CA by.
    pub fn ca_fingerprint(&self) -> String {
        bus::tls::fingerprint(&self.ca_der())
    }

    /// Where the listener is.
    pub async fn address(&self) -> String {
        self.handle.status().await.listen
    }

    /// The roster.
    pub async fn roster(&self) -> Vec<RosterEntry> {
        match self.ask(Ask::Roster).await.swap_remove(0) {
            OperatorEvent::Roster(roster) => roster,
            other => panic!("the roster was asked for: {other:?}"),
        }
    }

    /// How many messages the orchestrator has refused with this code.
    pub async fn refused(&self, code: FaultCode) -> u64 {
        let counts = self.handle.status().await.refused_counts;
        counts.iter().find(|(counted, _)| counted == code.as_str()).map_or(0, |(_, count)| *count)
    }

    /// How many messages the orchestrator has refused.
    pub async fn refused_in_all(&self) -> u64 {
        self.handle.status().await.refused_counts.iter().map(|(_, count)| count).sum()
    }
}

/// An envelope around a message, made now.
pub fn envelope<M: Message>(from: ComponentId, body: &M) -> Envelope {
    Envelope {
        v: ENVELOPE_VERSION,
        id: MessageId(Uuid::now_v7()),
        kind: M::KIND.to_owned(),
        from,
        to: None,
        sent: Timestamp::now(),
        expires: None,
        in_reply_to: None,
        transaction: TransactionId(Uuid::now_v7()),
        seq: 0,
        body: serde_json::value::to_raw_value(body).expect("a message always serialises"),
    }
}

/// An envelope, sealed by whoever has this identity, whatever it says.
pub fn sealed(by: &Identity, envelope: &Envelope) -> Vec<u8> {
    by.sealer().expect("keys that fit").seal(&envelope.to_bytes())
}

/// A heartbeat of this component: what is answered at once, and does nothing else.
pub fn heartbeat(from: ComponentId) -> Envelope {
    envelope(from, &HeartbeatRequest { action: HeartbeatAction::Pulse, unacknowledged_count: 0 })
}

/// Where a component's heartbeats go.
pub fn heartbeats_of(component: ComponentId) -> String {
    Topic::AdminUp(component, HeartbeatRequest::KIND.to_owned()).to_string()
}

/// The envelope in a message, not checked.
pub fn envelope_of(delivered: &Delivered) -> Envelope {
    let sealed = Sealed::split(&delivered.payload).expect("a sealed message");
    Envelope::read(sealed.envelope, Timestamp::now()).expect("an envelope")
}

/// A connection of this component, with CONNECT said and accepted.
pub async fn connected(identity: &Identity, version: Version) -> Client {
    connected_as(identity, version, &Connect::of(identity.component)).await
}

/// The same, with another CONNECT.
pub async fn connected_as(identity: &Identity, version: Version, connect: &Connect) -> Client {
    let mut client = Client::member(identity, version).await.expect("the TLS handshake succeeds");
    assert_eq!(client.connect(connect).await, Some(0), "CONNECT in {version:?}");
    client
}

/// Sends a heartbeat and waits for its answer: whoever gets it is served.
pub async fn is_answered(client: &mut Client, identity: &Identity) {
    let question = heartbeat(identity.component);
    let publish = Publish::of(heartbeats_of(identity.component), sealed(identity, &question));
    assert_eq!(client.publish(publish).await, Some(0));
    loop {
        let answer = envelope_of(&client.delivery().await.expect("the connection stays"));
        if answer.in_reply_to == Some(question.id) {
            assert_eq!(answer.kind, HeartbeatResponse::KIND);
            return;
        }
    }
}

/// An honest component connects, subscribes, asks, and is answered, all of it promptly; and nothing has panicked.
pub async fn is_served(identity: &Identity, version: Version) {
    let served = async {
        let mut client = connected(identity, version).await;
        let admin = Topic::Admin(identity.component).to_string();
        assert_eq!(client.subscribe(&[&admin]).await, Some(vec![1]));
        is_answered(&mut client, identity).await;
        client.send(&DISCONNECT).await.expect("the connection stays to its end");
    };
    tokio::time::timeout(PROMPT, served).await.expect("an honest component is served promptly");
    assert_eq!(panics(), 0, "somebody panicked");
}

/// The listener ends the connection for what it was sent: before the five seconds are over that any connection has to
/// show who it is, and any stranger to register. The reason that it gave, if any.
pub async fn is_ended_at_once(client: &mut Client) -> Option<u8> {
    tokio::time::timeout(Duration::from_secs(4), client.end()).await.expect("the connection is ended at once")
}

/// A hostile collector that is connected and hears what is said to it.
#[derive(Debug)]
pub struct Attacker {
    /// Its certificate and key.
    pub identity: Identity,
    /// Its connection.
    pub client: Client,
}

impl Attacker {
    /// Joins, shakes hands, and goes on by hand.
    pub async fn join(installation: &Installation) -> Self {
        let component_type = ComponentType::PostureCollectionService;
        let identity = installation.enrolled(component_type, "attacker").await;
        let client = connected(&identity, Version::V5).await;
        let mut attacker = Self { identity, client };
        attacker.reconnect().await;
        attacker
    }

    /// In another session.
    pub async fn reconnect(&mut self) {
        self.client = connected(&self.identity, Version::V5).await;
        let admin = Topic::Admin(self.own()).to_string();
        assert_eq!(self.client.subscribe(&[&admin]).await, Some(vec![1]));
    }

    /// Its id.
    pub fn own(&self) -> ComponentId {
        self.identity.component
    }

    /// Publishes something, which the broker takes.
    pub async fn say(&mut self, topic: impl ToString, message: Vec<u8>) {
        assert_eq!(self.client.publish(Publish::of(topic, message)).await, Some(0));
    }

    /// What its heartbeats were answered with, up to now: the messages that were believed.
    pub async fn believed(&mut self) -> Vec<MessageId> {
        let last = heartbeat(self.own());
        self.say(heartbeats_of(self.own()), sealed(&self.identity, &last)).await;
        let mut believed = Vec::new();
        loop {
            let answer = envelope_of(&self.client.delivery().await.expect("the connection stays"));
            match answer.in_reply_to {
                Some(question) if question == last.id => return believed,
                Some(question) if answer.kind == HeartbeatResponse::KIND => believed.push(question),
                _ => {}
            }
        }
    }
}
