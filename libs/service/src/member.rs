//! Membership: joining with a token, connecting with a certificate, the handshake, heartbeats and
//! health checks. The same for collectors, evaluators and repositories.
//!
//! Listens: the component's administrative interface. Tells: the component's own inbox, with every
//! message that is not about membership.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bus::{Authentic, Bus, BusSettings, Context, Event, RequestError, mqtt, outbox::Outbox};
use jiff::Timestamp;
use proto::capability::{Capability, ComponentType};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::message::{
    AdvertisedEndpoint, CapabilityAdvertisement, CapabilityAdvertisementResponse, HealthCheckAction,
    HealthCheckResponse, HeartbeatAction, HeartbeatRequest, HeartbeatResponse, Message, RegistrationStatus, Success,
    ToMember,
};
use proto::residency;
use proto::topic::{self, Topic};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, Interval};
use uuid::Uuid;

use crate::identity::{self, Identity, IdentityError};
use crate::renewal::Renewal;
use crate::shutdown::Shutdown;
use crate::token::host_and_port;
use crate::{data, health, joining};

/// Seconds between heartbeats, at most, whatever is asked for.
const HEARTBEAT_SECONDS_MAX: u64 = 3_600;

/// A key that cannot leave the machine.
pub trait ResidencyKey: std::fmt::Debug + Send + Sync {
    /// Its public half: a point on P-256, uncompressed.
    fn public_key(&self) -> &[u8; 65];
    /// Signs: ECDSA over P-256 with SHA-256, r and s. May take as long as a TPM does.
    fn sign(&self, statement: &[u8]) -> Result<[u8; 64], String>;
}

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
    /// The TPM of those that are advertised with one.
    pub tpm: Option<Arc<dyn ResidencyKey>>,
    /// Files in its data directory that mean nothing once it is another component.
    pub tied: &'static [&'static str],
    /// The database that a repository shares with others, if it does.
    pub store: Option<Uuid>,
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
    /// It was a member once.
    #[error("{0}")]
    Dismissed(Fault),
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
    /// Until when it is to look at nothing, by an operator's word.
    pub paused_until: Option<Timestamp>,
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
    /// Whether it still is a member; the inbox ends when it is not.
    pub dismissal: Dismissal,
}

/// Whether the orchestrator has taken a component off its roster, and why.
#[derive(Debug, Clone)]
pub struct Dismissal(watch::Receiver<Option<Fault>>);

impl Dismissal {
    /// An error once the component is no member any more.
    pub fn check(&self) -> Result<(), MemberError> {
        self.0.borrow().clone().map_or(Ok(()), |fault| Err(MemberError::Dismissed(fault)))
    }
}

/// What is kept of a dismissal, so that the next start does not have to ask.
const DISMISSAL_FILE: &str = "dismissal.json";
/// Seconds between two handshakes of a component in quarantine; the orchestrator asks for one when that is over.
const QUARANTINE_SECONDS: u64 = 30;
/// How long a broker is away before the orchestrator is asked about it.
const ABSENCE: Duration = Duration::from_mins(1);
/// How often that is doubled.
const ABSENCE_DOUBLINGS_MAX: u32 = 6;
/// Where an evicted component keeps who it is next, until that has joined.
const FRESH_IDENTITY: &str = "identity.new";

/// Whether the component with this data directory has to join before it can be a member.
pub fn needs_token(data: &Path) -> bool {
    !data.join("identity").join(identity::MEMBERSHIP_FILE).exists()
}

/// Like [`start`], unless the process is asked to stop first: joining may wait for an operator.
pub async fn start_unless(shutdown: &mut Shutdown, settings: MemberSettings) -> Result<Option<Member>, MemberError> {
    shutdown.unless_requested(start(settings)).await.transpose()
}

/// Joins if need be, connects, and stays a member until the process ends.
pub async fn start(settings: MemberSettings) -> Result<Member, MemberError> {
    let directory = settings.data.join("identity");
    if settings.data.join(FRESH_IDENTITY).join(identity::MEMBERSHIP_FILE).exists() {
        // It had joined as somebody new when the process was killed.
        replace(&settings, &directory)?;
    }
    let dismissal = dismissed(&directory)?;
    let known = Identity::load(&directory)?.filter(|_| dismissal.is_none());
    let mut identity = if let Some(identity) = known {
        identity
    } else {
        enter(&settings, &directory, dismissal).await?;
        Identity::load(&directory)?.ok_or(MemberError::NoToken(settings.component_type))?
    };
    if let Some(broker) = &settings.broker {
        (identity.host, identity.port) = host_and_port(broker).ok_or_else(|| MemberError::Address(broker.clone()))?;
    }
    let outbox = Outbox::open(&settings.data.join("outbox"))?;
    let bus_settings = identity.bus_settings(outbox)?;
    let (tls, tls_now) = watch::channel(identity.tls()?);
    let (address, address_now) = watch::channel(identity.address());
    let (transport, incoming) = mqtt::connect(identity.mqtt_settings(address_now, tls_now));
    let (refused, away, name) = (Arc::new(Notify::new()), Arc::new(Notify::new()), settings.name.clone());
    let interval = identity.heartbeat_interval_seconds;
    let (dismiss, dismissal) = watch::channel(None);
    let dismissal = Dismissal(dismissal);
    let (cas_sender, cas) = watch::channel(Vec::new());
    let (trusted, trusted_now) = watch::channel(identity.ca_fingerprints());
    let (copied_sender, mut copied) = watch::channel(None);
    let standing = Standing {
        refused: Arc::clone(&refused),
        away: Arc::clone(&away),
        dismissal,
        cas: cas_sender,
        trusted: trusted_now,
        copied: copied_sender,
    };
    let member = begin(bus_settings, transport, incoming, settings, interval, standing);
    let (bus, closed) = (member.bus.clone(), tls.clone());
    let renewal = Renewal {
        bus: bus.clone(),
        directory: directory.clone(),
        name,
        identity,
        tls,
        address,
        refused,
        away,
        cas,
        trusted,
    };
    tokio::spawn(async move {
        let fault = tokio::select! {
            // The transport has ended: nobody shows a certificate any more.
            () = closed.closed() => return,
            fault = renewal.run() => fault,
            Ok(fault) = async { copied.wait_for(Option::is_some).await.map(|fault| fault.clone()) } => match fault {
                Some(fault) => fault,
                None => return,
            },
        };
        tracing::error!(%fault, "this component is no member any more");
        let json = serde_json::to_vec(&fault).expect("a fault always serialises");
        if let Err(error) = data::write_private(&directory.join(DISMISSAL_FILE), &json) {
            tracing::error!(%error, "the dismissal cannot be kept");
        }
        dismiss.send_replace(Some(fault));
        bus.close();
    });
    Ok(member)
}

fn dismissed(directory: &Path) -> Result<Option<Fault>, IdentityError> {
    let file = directory.join(DISMISSAL_FILE);
    match std::fs::read(&file) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|error| IdentityError::Damaged { path: directory.to_owned(), what: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Io { path: file, source }),
    }
}

/// Joins: for the first time, or after the component was put out. `dismissal` is what it was told then.
async fn enter(settings: &MemberSettings, directory: &Path, dismissal: Option<Fault>) -> Result<(), MemberError> {
    let token = match (&settings.join_token, dismissal.clone()) {
        (Some(token), _) => token.parse()?,
        (None, Some(fault)) => return Err(MemberError::Dismissed(fault)),
        (None, None) => return Err(MemberError::NoToken(settings.component_type)),
    };
    let is_copy = dismissal.as_ref().is_some_and(|fault| fault.code == FaultCode::Duplicate);
    // With the key that it has: its answer may have been lost, or its ban lifted.
    let with_own_key = async {
        match joining::join(settings, directory, &token).await {
            Err(MemberError::Refused { fault, .. }) if fault.code == FaultCode::Revoked => None,
            outcome => Some(outcome),
        }
    };
    // A copy of another component has no key of its own yet.
    let outcome = match if is_copy { None } else { with_own_key.await } {
        None => {
            // As somebody new, with a new key. What was before is moved away once that has worked.
            match joining::join(settings, &settings.data.join(FRESH_IDENTITY), &token).await {
                Ok(()) => return Ok(replace(settings, directory)?),
                refused => refused,
            }
        }
        Some(outcome) => outcome,
    };
    match (outcome, dismissal) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(_)) => std::fs::remove_file(directory.join(DISMISSAL_FILE))
            .map_err(|source| IdentityError::Io { path: directory.to_owned(), source }.into()),
        // A token that is used up says less than the reason why another one is needed.
        (Err(MemberError::Refused { fault, .. }), Some(dismissal)) => {
            tracing::error!(%fault, "the join token does not let it in again");
            Err(MemberError::Dismissed(dismissal))
        }
        (Err(error), _) => Err(error),
    }
}

/// Puts the fresh identity in the place of an evicted component's, which is moved out of the way with what belongs to it.
/// Killed anywhere in it, the next start goes on: the fresh identity is the last to move.
fn replace(settings: &MemberSettings, directory: &Path) -> Result<(), IdentityError> {
    let aside = settings.data.join(format!("evicted-{}", Timestamp::now().as_microsecond()));
    let failed = |source| IdentityError::Io { path: aside.clone(), source };
    data::make(&aside).map_err(failed)?;
    for part in settings.tied.iter().copied().chain(["outbox", "identity"]) {
        match std::fs::rename(settings.data.join(part), aside.join(part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    std::fs::rename(settings.data.join(FRESH_IDENTITY), directory).map_err(failed)
}

/// A member over any transport.
pub fn run(
    bus_settings: BusSettings,
    transport: Box<dyn bus::Transport>,
    incoming: bus::IncomingReceiver,
    settings: MemberSettings,
    heartbeat_interval_seconds: u64,
) -> Member {
    // Over another transport nobody is refused or dismissed.
    let (_, never) = watch::channel(None);
    let (cas, _) = watch::channel(Vec::new());
    let (_, trusted) = watch::channel(Vec::new());
    let (copied, _) = watch::channel(None);
    let standing =
        Standing { refused: Arc::default(), away: Arc::default(), dismissal: Dismissal(never), cas, trusted, copied };
    begin(bus_settings, transport, incoming, settings, heartbeat_interval_seconds, standing)
}

/// What goes between a membership and the certificate that it rests on.
struct Standing {
    /// The broker refused the connection.
    refused: Arc<Notify>,
    /// The broker has been away for long.
    away: Arc<Notify>,
    dismissal: Dismissal,
    /// The CAs that the orchestrator says are to be trusted.
    cas: watch::Sender<Vec<String>>,
    /// And those that are.
    trusted: watch::Receiver<Vec<String>>,
    /// Why this process has to stop: another one is this component already.
    copied: watch::Sender<Option<Fault>>,
}

fn begin(
    bus_settings: BusSettings,
    transport: Box<dyn bus::Transport>,
    incoming: bus::IncomingReceiver,
    settings: MemberSettings,
    heartbeat_interval_seconds: u64,
    standing: Standing,
) -> Member {
    let Standing { refused, away, dismissal, cas, trusted, copied } = standing;
    let (bus, events) = Bus::start(bus_settings, transport, incoming);
    bus.subscribe(topic::filters_of(settings.component_type, bus.own()));
    let (inbox_sender, inbox) = mpsc::channel(256);
    let (assigned_sender, assigned) = watch::channel(Assigned::default());
    let membership = Membership {
        bus: bus.clone(),
        settings,
        assigned: assigned_sender,
        heartbeat_interval_seconds,
        refused,
        away,
        cas,
        trusted,
        instance: Uuid::new_v4(),
        copied,
    };
    tokio::spawn(membership.follow(events, inbox_sender));
    Member { bus, inbox, assigned, dismissal }
}

struct Membership {
    bus: Bus,
    settings: MemberSettings,
    assigned: watch::Sender<Assigned>,
    heartbeat_interval_seconds: u64,
    refused: Arc<Notify>,
    away: Arc<Notify>,
    cas: watch::Sender<Vec<String>>,
    trusted: watch::Receiver<Vec<String>>,
    /// This process.
    instance: Uuid,
    /// Another process is this component already.
    copied: watch::Sender<Option<Fault>>,
}

/// A broker that is away.
#[derive(Debug, Default)]
struct Absence {
    /// When the orchestrator is asked about it.
    due: Option<Instant>,
    /// How often it was asked meanwhile.
    asked: u32,
}

impl Absence {
    fn end(&mut self) {
        *self = Self::default();
    }

    /// Whether it is time to ask the orchestrator about it: after twice as long each time, and once an hour at last.
    fn goes_on(&mut self, now: Instant) -> bool {
        let is_due = now >= *self.due.get_or_insert(now + ABSENCE);
        if is_due {
            self.asked = (self.asked + 1).min(ABSENCE_DOUBLINGS_MAX);
            self.due = Some(now + ABSENCE * (1 << self.asked));
        }
        is_due
    }
}

/// When heartbeats are due.
fn pulses(seconds: u64, first: Instant) -> Interval {
    let mut pulses = tokio::time::interval_at(first, Duration::from_secs(seconds));
    pulses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pulses
}

/// Somewhere within an interval, by chance: those that came at the same time, or were told the same at once, do not go on together.
fn within(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(mqtt::rand_fraction())
}

/// How many seconds there are to be between heartbeats, where a message says so.
fn heartbeat_of(message: &Authentic) -> Option<u64> {
    let is_told = message.envelope().kind == HeartbeatResponse::KIND;
    let response = is_told.then(|| message.envelope().decode::<HeartbeatResponse>().ok()).flatten()?;
    Some(response.interval_seconds?.clamp(1, HEARTBEAT_SECONDS_MAX))
}

impl Membership {
    async fn follow(self, mut events: mpsc::Receiver<Event>, inbox: mpsc::Sender<Authentic>) {
        let (advertise, mut advertise_wanted) = mpsc::channel::<()>(1);
        let mut interval = self.heartbeat_interval_seconds.clamp(1, HEARTBEAT_SECONDS_MAX);
        let mut heartbeat = pulses(interval, Instant::now());
        let mut is_first_pulse = true;
        let handshake = async {
            let mut is_in_quarantine = false;
            loop {
                let patience = Duration::from_secs(QUARANTINE_SECONDS);
                tokio::select! {
                    wanted = advertise_wanted.recv() => if wanted.is_none() { return },
                    () = tokio::time::sleep(patience), if is_in_quarantine => {}
                }
                is_in_quarantine = self.shake_hands().await;
            }
        };
        let mut absence = Absence::default();
        let mut trusted = self.trusted.clone();
        health::idle(&self.settings.data);
        let follow = async {
            loop {
                tokio::select! {
                    // The orchestrator waits for it.
                    Ok(()) = trusted.changed() => {
                        let _ = advertise.try_send(());
                    }
                    event = events.recv() => match event {
                        None => return,
                        Some(Event::Connected) => {
                            absence.end();
                            let _ = advertise.try_send(());
                        }
                        Some(Event::Disconnected(reason)) => {
                            tracing::warn!(reason, "connection lost");
                            if absence.goes_on(Instant::now()) {
                                // The orchestrator knows where members connect now, and whether this is one.
                                self.away.notify_one();
                            }
                        }
                        Some(Event::Refused(reason)) => {
                            tracing::warn!(reason, "the broker refuses the connection");
                            self.refused.notify_one();
                        }
                        Some(Event::Message(message)) => {
                            if message.envelope().kind == HeartbeatResponse::KIND && self.assigned.borrow().is_active {
                                health::heard(&self.settings.data, interval);
                            }
                            if let Some(told) = heartbeat_of(&message).filter(|told| *told != interval) {
                                interval = told;
                                heartbeat = pulses(interval, Instant::now() + within(interval));
                            }
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
                        if std::mem::take(&mut is_first_pulse) {
                            heartbeat.reset_after(within(interval));
                        }
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
            Ok(ToMember::CapabilityAdvertisementResponse(_)) => {}
            Ok(ToMember::HeartbeatResponse(response)) => {
                self.assigned.send_if_modified(|assigned| {
                    let before = std::mem::replace(&mut assigned.paused_until, response.paused_until);
                    before != response.paused_until
                });
            }
            Err(fault) => self.bus.count_refusal(&fault),
        }
        None
    }

    /// Advertises until the orchestrator answers, and subscribes to what it assigns.
    /// Says whether it was put into quarantine instead.
    async fn shake_hands(&self) -> bool {
        let mut advertisement = CapabilityAdvertisement {
            capabilities: Capability::all_of(self.settings.component_type),
            endpoints: self.settings.endpoints.clone(),
            software_version: crate::VERSION.to_owned(),
            trusted_cas: self.trusted.borrow().clone(),
            instance: Some(self.instance),
            store: self.settings.store,
        };
        let up = Topic::AdminUp(self.bus.own(), CapabilityAdvertisement::KIND.to_owned());
        for attempt in 0_u32.. {
            let answer: Result<CapabilityAdvertisementResponse, _> =
                self.bus.request(&up, &advertisement, Context::alone(), Duration::from_secs(5)).await;
            match answer {
                Ok(CapabilityAdvertisementResponse { challenge: Some(challenge), .. }) => {
                    if attempt > 1 {
                        self.pause(attempt).await;
                    }
                    if let Err(reason) = self.prove(&mut advertisement.endpoints, challenge).await {
                        tracing::error!(reason, "without a signature of its TPM this collector is given nothing to do");
                        self.pause(attempt).await;
                    }
                }
                Ok(answer) => {
                    self.assign(&answer);
                    return false;
                }
                Err(RequestError::Fault(fault)) if fault.code == FaultCode::Duplicate => {
                    self.copied.send_replace(Some(fault));
                    return false;
                }
                Err(RequestError::Fault(fault)) if fault.code == FaultCode::Conflict => {
                    // An operator has to decide, and may take a while.
                    tracing::error!("in quarantine: {}", fault.message);
                    return true;
                }
                Err(RequestError::Fault(Fault { retry_after_seconds: Some(seconds), message, .. })) => {
                    tracing::info!(seconds, "the handshake has to wait: {message}");
                    tokio::time::sleep(bus::put_off_for(seconds)).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "the handshake has no answer yet");
                    self.pause(attempt).await;
                }
            }
        }
        false
    }

    async fn pause(&self, attempt: u32) {
        tokio::time::sleep(Duration::from_millis(200 * u64::from((attempt + 1).min(25)))).await;
    }

    /// Has the endpoints' TPM sign the orchestrator's challenge.
    async fn prove(&self, endpoints: &mut [AdvertisedEndpoint], challenge: Uuid) -> Result<(), String> {
        let tpm = self.settings.tpm.as_ref().ok_or("there is none")?;
        for endpoint in endpoints {
            let Some(residency) = &endpoint.residency else { continue };
            let statement = residency::statement(self.bus.own(), &endpoint.local_name, challenge);
            let tpm = Arc::clone(tpm);
            let signed = tokio::task::spawn_blocking(move || tpm.sign(&statement)).await;
            let signature = signed.map_err(|error| error.to_string())??;
            endpoint.residency = Some(residency.proven(challenge, &signature));
        }
        Ok(())
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
        if !answer.ca_certificates.is_empty() {
            self.cas.send_replace(answer.ca_certificates.clone());
        }
        if granted.is_empty() {
            health::idle(&self.settings.data);
        } else {
            health::heard(&self.settings.data, self.heartbeat_interval_seconds);
        }
        self.assigned.send_modify(|assigned| {
            *assigned = Assigned {
                is_active: !granted.is_empty(),
                endpoints: answer.endpoints.iter().map(|one| (one.local_name.clone(), one.endpoint)).collect(),
                repositories: answer.repositories.clone(),
                paused_until: assigned.paused_until,
            };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_of_those_who_came_together_are_anywhere_in_the_interval() {
        let mut sixths = [0; 6];
        for _ in 0..600 {
            let place = within(60);
            assert!(place < Duration::from_mins(1));
            sixths[usize::try_from(place.as_secs() / 10).unwrap()] += 1;
        }
        assert!(sixths.iter().all(|count| (50..150).contains(count)), "{sixths:?}");
    }

    #[test]
    fn the_orchestrator_is_asked_about_a_broker_that_is_away_later_each_time_and_anew_when_it_was_back() {
        let began = Instant::now();
        let at = |minutes: u64| began + Duration::from_mins(minutes);
        let mut absence = Absence::default();
        let asked: Vec<u64> = (0..200).filter(|minutes| absence.goes_on(at(*minutes))).collect();
        assert_eq!(asked, [1, 3, 7, 15, 31, 63, 127, 191]);
        absence.end();
        assert!(!absence.goes_on(at(200)) && absence.goes_on(at(201)));
    }
}
