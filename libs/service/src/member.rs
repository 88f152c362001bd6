//! Membership: joining with a token, connecting with a certificate, the handshake, heartbeats and
//! health checks. The same for collectors, evaluators and repositories.
//!
//! Listens: the component's administrative interface. Tells: the component's own inbox, with every
//! message that is not about membership.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::{Authentic, Bus, BusSettings, Context, Event, RequestError, Trust, mqtt, outbox::Outbox, tls};
use proto::capability::{Capability, ComponentType};
use proto::fault::Fault;
use proto::id::{ComponentId, EndpointId};
use proto::message::{
    AdvertisedEndpoint, CapabilityAdvertisement, CapabilityAdvertisementResponse, ComponentRegistrationRequest,
    ComponentRegistrationResponse, HealthCheckAction, HealthCheckResponse, HeartbeatAction, HeartbeatRequest, Message,
    RegistrationStatus, Success, ToMember,
};
use proto::seal::Sealer;
use proto::topic::{self, Topic};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::identity::{self, Identity, IdentityError};
use crate::token::{JoinToken, host_and_port};

/// What a component is, for joining and the handshake.
#[derive(Debug, Clone)]
pub struct MemberSettings {
    /// Its type.
    pub component_type: ComponentType,
    /// What operators call it.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// A token, for the first start.
    pub join_token: Option<String>,
    /// Where the broker is, `host:port`, if not where it was when the component joined.
    pub broker: Option<String>,
    /// The endpoints that it speaks for.
    pub endpoints: Vec<AdvertisedEndpoint>,
}

/// Why a component is no member.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// It has no identity and no token.
    #[error(
        "this component has not joined yet and has no join token: `muster token create --type {0}` makes one; give it with --join-token or MUSTER_JOIN_TOKEN"
    )]
    NoToken(ComponentType),
    /// The broker's address is none.
    #[error("`{0}` is not an address: HOST:PORT is wanted")]
    Address(String),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] crate::token::TokenError),
    /// Its identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its outbox cannot be used.
    #[error(transparent)]
    Outbox(#[from] bus::outbox::OutboxError),
    /// The keys cannot be used.
    #[error("the keys for joining cannot be used: {0}")]
    Keys(String),
    /// The orchestrator says no.
    #[error("the orchestrator at {address} refused the registration: {fault}")]
    Refused {
        /// Where.
        address: String,
        /// Why.
        fault: Fault,
    },
    /// Nobody answers.
    #[error("no orchestrator answers at {address}: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
}

/// What the handshake gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Whether at least one capability is registered.
    pub is_active: bool,
    /// The endpoints' labels, by the component's own names.
    pub endpoints: Vec<(String, EndpointId)>,
    /// The repositories.
    pub repositories: Vec<ComponentId>,
}

/// A member of the installation.
#[derive(Debug)]
pub struct Member {
    /// Its bus.
    pub bus: Bus,
    /// Its own messages.
    pub inbox: mpsc::Receiver<Authentic>,
    /// What the handshake gave, as it changes.
    pub assigned: watch::Receiver<Assigned>,
}

/// How long a join may take before it is given up.
const JOIN_TRIES: u32 = 20;

/// Joins if need be, connects, and stays a member until the process ends.
pub async fn start(settings: MemberSettings) -> Result<Member, MemberError> {
    let directory = settings.data.join("identity");
    let mut identity = if let Some(identity) = Identity::load(&directory)? {
        identity
    } else {
        let token = settings.join_token.as_deref().ok_or(MemberError::NoToken(settings.component_type))?;
        join(&settings, &directory, &token.parse()?).await?;
        Identity::load(&directory)?.ok_or(MemberError::NoToken(settings.component_type))?
    };
    if let Some(broker) = &settings.broker {
        (identity.host, identity.port) = host_and_port(broker).ok_or_else(|| MemberError::Address(broker.clone()))?;
    }
    let outbox = Outbox::open(&settings.data.join("outbox"))?;
    let bus_settings = identity.bus_settings(outbox, false)?;
    let (transport, incoming) = mqtt::connect(identity.mqtt_settings()?);
    Ok(run(bus_settings, transport, incoming, settings, identity.heartbeat_interval_seconds))
}

/// A member over any transport.
pub fn run(
    bus_settings: BusSettings,
    transport: Box<dyn bus::Transport>,
    incoming: bus::IncomingReceiver,
    settings: MemberSettings,
    heartbeat_interval_seconds: u64,
) -> Member {
    let (bus, events) = Bus::start(bus_settings, transport, incoming);
    bus.subscribe(topic::filters_of(settings.component_type, bus.own()));
    let (inbox_sender, inbox) = mpsc::channel(256);
    let (assigned_sender, assigned) = watch::channel(Assigned::default());
    let membership = Membership { bus: bus.clone(), settings, assigned: assigned_sender, heartbeat_interval_seconds };
    tokio::spawn(membership.follow(events, inbox_sender));
    Member { bus, inbox, assigned }
}

async fn join(settings: &MemberSettings, directory: &Path, token: &JoinToken) -> Result<(), MemberError> {
    let keys = |error: String| MemberError::Keys(error);
    let key = identity::key(directory)?;
    let signing_request = identity::signing_request(&key).map_err(|error| keys(error.to_string()))?;
    let address = settings.broker.as_ref().unwrap_or(&token.address);
    let (host, port) = host_and_port(address).ok_or_else(|| MemberError::Address(address.clone()))?;
    let request = ComponentRegistrationRequest {
        component_unique_identifier: None,
        component_type: settings.component_type,
        component_name: settings.name.clone(),
        component_description: None,
        join_proof: Some(token.proof(&signing_request)),
        certificate_signing_request: signing_request,
    };
    let mut reason = "no connection".to_owned();
    for attempt in 0..JOIN_TRIES {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(250 * u64::from(attempt.min(8)))).await;
        }
        // A client id of its own for each try: it means nothing beyond this connection.
        let client = ComponentId(Uuid::new_v4());
        let sealer = Sealer::with_bare_key(key.serialized_der()).map_err(|error| keys(error.to_string()))?;
        let bus_settings = BusSettings {
            own: client,
            sealer,
            trust: Trust::pinned(token.ca_fingerprint.clone()),
            outbox: Outbox::in_memory(),
            payload_bytes_max: proto::limits::JOIN_PAYLOAD_BYTES_MAX,
        };
        let mqtt_settings = mqtt::MqttSettings {
            host: host.clone(),
            port,
            client,
            tls: tls::joining(&token.ca_fingerprint).map_err(|error| keys(error.to_string()))?,
            packet_bytes_max: 64 * 1024,
        };
        let (transport, incoming) = mqtt::connect(mqtt_settings);
        let (bus, mut events) = Bus::start(bus_settings, transport, incoming);
        bus.subscribe(vec![Topic::RegistrationAnswer(client).to_string()]);
        let connected = tokio::time::timeout(Duration::from_secs(10), async {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Connected => return Ok(()),
                    Event::Disconnected(why) => return Err(why),
                    Event::Message(_) => {}
                }
            }
            Err("the connection ended".to_owned())
        })
        .await;
        let answer = match connected {
            Ok(Ok(())) => {
                bus.request::<_, ComponentRegistrationResponse>(
                    &Topic::Registration,
                    &request,
                    Context::alone(),
                    Duration::from_secs(5),
                )
                .await
            }
            Ok(Err(why)) => {
                reason = why;
                bus.close();
                continue;
            }
            Err(_) => {
                "the connection timed out".clone_into(&mut reason);
                bus.close();
                continue;
            }
        };
        bus.close();
        match answer {
            Ok(answer) => {
                let ca_der = identity::certificate_der(&answer.ca_certificate);
                if ca_der.is_none_or(|der| tls::fingerprint(&der) != token.ca_fingerprint) {
                    return Err(keys("the answer's CA is not the token's".to_owned()));
                }
                Identity::store(
                    directory,
                    &answer.certificate,
                    &answer.ca_certificate,
                    (&host, port),
                    answer.heartbeat_interval_seconds,
                )?;
                tracing::info!(component = %answer.component_unique_identifier, "joined");
                return Ok(());
            }
            Err(RequestError::Fault(fault)) if !fault.code.is_retryable() => {
                return Err(MemberError::Refused { address: token.address.clone(), fault });
            }
            Err(error) => reason = error.to_string(),
        }
    }
    Err(MemberError::Unreachable { address: token.address.clone(), reason })
}

struct Membership {
    bus: Bus,
    settings: MemberSettings,
    assigned: watch::Sender<Assigned>,
    heartbeat_interval_seconds: u64,
}

impl Membership {
    async fn follow(self, mut events: mpsc::Receiver<Event>, inbox: mpsc::Sender<Authentic>) {
        let (advertise, mut advertise_wanted) = mpsc::channel::<()>(1);
        let mut heartbeat = tokio::time::interval(Duration::from_secs(self.heartbeat_interval_seconds.max(1)));
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let handshake = async {
            while advertise_wanted.recv().await.is_some() {
                self.shake_hands().await;
            }
        };
        let follow = async {
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        None => return,
                        Some(Event::Connected) => {
                            let _ = advertise.try_send(());
                        }
                        Some(Event::Disconnected(reason)) => tracing::warn!(reason, "connection lost"),
                        Some(Event::Message(message)) => {
                            if let Some(message) = self.take(*message, &advertise)
                                && inbox.send(message).await.is_err()
                            {
                                return;
                            }
                        }
                    },
                    _ = heartbeat.tick() => {
                        let count = self.bus.unacknowledged_count() as u64;
                        let pulse = HeartbeatRequest { action: HeartbeatAction::Pulse, unacknowledged_count: count };
                        self.tell(&pulse, Context::alone());
                    }
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = handshake => {}
        }
    }

    fn tell<M: Message>(&self, message: &M, context: Context) {
        let up = Topic::AdminUp(self.bus.own(), M::KIND.to_owned());
        if let Err(error) = self.bus.send(&up, message, context) {
            tracing::warn!(%error, "cannot send");
        }
    }

    /// Handles what membership is about; gives back what is not.
    fn take(&self, message: Authentic, advertise: &mpsc::Sender<()>) -> Option<Authentic> {
        if !ToMember::KINDS.contains(&message.envelope().kind.as_str()) {
            return Some(message);
        }
        match ToMember::decode(message.envelope()) {
            Ok(ToMember::HealthCheckRequest(request)) => {
                self.tell(&HealthCheckResponse { response: Success::Success }, Context::answering(&message));
                if request.action == HealthCheckAction::PingWithCapabilities {
                    let _ = advertise.try_send(());
                }
            }
            // Answers reach whoever waits for them; one that comes late says nothing new.
            Ok(ToMember::CapabilityAdvertisementResponse(_) | ToMember::HeartbeatResponse(_)) => {}
            Err(fault) => self.bus.count_refusal(&fault),
        }
        None
    }

    /// Advertises until the orchestrator answers, and subscribes to what it assigns.
    async fn shake_hands(&self) {
        let advertisement = CapabilityAdvertisement {
            capabilities: Capability::all_of(self.settings.component_type),
            endpoints: self.settings.endpoints.clone(),
            software_version: crate::VERSION.to_owned(),
        };
        let up = Topic::AdminUp(self.bus.own(), CapabilityAdvertisement::KIND.to_owned());
        for attempt in 0_u32.. {
            let answer: Result<CapabilityAdvertisementResponse, _> =
                self.bus.request(&up, &advertisement, Context::alone(), Duration::from_secs(5)).await;
            match answer {
                Ok(answer) => return self.assign(&answer),
                Err(error) => {
                    tracing::debug!(%error, "the handshake has no answer yet");
                    tokio::time::sleep(Duration::from_millis(200 * u64::from((attempt + 1).min(25)))).await;
                }
            }
        }
    }

    fn assign(&self, answer: &CapabilityAdvertisementResponse) {
        let (granted, refused): (Vec<_>, Vec<_>) =
            answer.capabilities.iter().partition(|answer| answer.registration_status == RegistrationStatus::Success);
        for refused in refused {
            let why = refused.messages.first().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(capability = %refused.capability_urn, why, "capability refused");
        }
        let filters: Vec<String> = granted.iter().flat_map(|answer| answer.capability_topics.clone()).collect();
        if !filters.is_empty() {
            self.bus.subscribe(filters);
        }
        self.assigned.send_replace(Assigned {
            is_active: !granted.is_empty(),
            endpoints: answer
                .endpoints
                .iter()
                .map(|assigned| (assigned.local_name.clone(), assigned.endpoint))
                .collect(),
            repositories: answer.repositories.clone(),
        });
    }
}
