//! A broker that is not the orchestrator's own (`external-broker`): members connect there, and the own one is for those who join
//! or come back without a certificate that holds. What that broker needs can be kept in a directory for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bus::outbox::Outbox;
use bus::{Bus, BusSettings, Event, Trust, mqtt};
use jiff::Timestamp;
use proto::capability::{Capability, ComponentType};
use proto::fault::Fault;
use proto::operator::{BrokerLink, OperatorEvent};
use proto::topic::{self, Topic};
use service::audit::Actor;
use service::broker_files::{BrokerFiles, BrokerFilesError, Kind, Listed, Roster};
use service::config::{self, ConfigError, OrchestratorConfig};
use service::identity::{Identity, IdentityError};
use service::report::Chain;
use service::supervisor;
use service::token::host_and_port;
use tokio::sync::{mpsc, watch};

use crate::control::broker_certificate;
use crate::core::roster::Component;
use crate::driver::Handle;

/// How often the roster is compared with the access list.
const RULES_EVERY: Duration = Duration::from_millis(500);
/// How often the broker's certificate is looked at.
const CERTIFICATE_EVERY: Duration = Duration::from_hours(6);
/// How long the own broker is waited for.
const OWN_BROKER_MAX: Duration = Duration::from_secs(10);
/// How old the broker's certificate may be; it holds for a year.
const CERTIFICATE_AGE_MAX: Duration = Duration::from_hours(24 * 90);

/// What is said of another broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalBroker {
    /// Where it is, for everybody: `host:port`.
    pub address: String,
    /// The directory that is kept for it, and what it is.
    pub config: Option<(PathBuf, Kind)>,
}

impl ExternalBroker {
    /// As it is configured, if it is.
    pub(crate) fn of(config: &OrchestratorConfig) -> Result<Option<Self>, ConfigError> {
        let wrong = |key, reason: String| ConfigError::Value { key, reason };
        let kind = config.external_broker_kind.as_deref().unwrap_or("mosquitto").parse();
        let kind: Kind = kind.map_err(|reason| wrong("external-broker-kind", reason))?;
        match config::address("external-broker", config.external_broker.as_ref())? {
            Some(address) => {
                let config = config.external_broker_config.clone().map(|directory| (directory, kind));
                Ok(Some(Self { address, config }))
            }
            None if config.external_broker_config.is_some() => {
                Err(wrong("external-broker-config", "for which broker? `external-broker` says where it is".to_owned()))
            }
            None => Ok(None),
        }
    }

    /// Host and port.
    pub(crate) fn host_and_port(&self) -> Option<(String, u16)> {
        host_and_port(&self.address)
    }
}

/// How the connection to a broker is.
#[derive(Debug)]
pub(crate) struct Link(Mutex<BrokerLink>);

impl Link {
    /// To the broker at this address, not there yet.
    pub(crate) fn new(address: String, now: Timestamp) -> Self {
        Self(Mutex::new(BrokerLink { address, is_connected: false, since: now, reason: None }))
    }

    /// It is there, or it is not, for this reason.
    pub(crate) fn set(&self, gone: Option<&str>, now: Timestamp) {
        let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if link.is_connected == gone.is_some() {
            link.is_connected = gone.is_none();
            link.since = now;
        }
        link.reason = gone.map(str::to_owned);
    }

    pub(crate) fn get(&self) -> BrokerLink {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The connections of an orchestrator.
pub(crate) struct Connections {
    /// With all members.
    pub(crate) bus: Bus,
    /// What comes over it.
    pub(crate) events: mpsc::Receiver<Event>,
    /// With those who join, where that is another one.
    pub(crate) joins: Option<(Bus, mpsc::Receiver<Event>)>,
    /// What they show.
    pub(crate) tls: watch::Sender<Arc<rustls::ClientConfig>>,
}

/// Connects, and goes on trying. `own` says where members connect.
pub(crate) fn connect(own: &Identity, outbox: Outbox) -> Result<Connections, IdentityError> {
    let (tls, tls_now) = watch::channel(own.tls()?);
    let at = |address: (String, u16)| own.mqtt_settings(watch::channel(address).1, tls_now.clone());
    let (transport, incoming) = mqtt::connect(at(own.address()));
    let (bus, events) = Bus::start(own.bus_settings(outbox)?, transport, incoming);
    let mut filters = topic::filters_of(ComponentType::Orchestrator, own.component);
    filters.extend(topic::filters_with(ComponentType::Orchestrator, own.component, Capability::SubscribeStatus));
    bus.subscribe(filters);
    let joins = if own.broker.is_some() {
        let (transport, incoming) = mqtt::connect(at((own.host.clone(), own.port)));
        let settings = BusSettings {
            own: own.component,
            sealer: own.sealer()?,
            trust: Trust::new(own.cas.clone()),
            outbox: Outbox::in_memory(),
            payload_bytes_max: proto::limits::JOIN_PAYLOAD_BYTES_MAX,
        };
        let (joins, events) = Bus::start(settings, transport, incoming);
        joins.subscribe(vec![Topic::Registration.to_string()]);
        Some((joins, events))
    } else {
        None
    };
    Ok(Connections { bus, events, joins, tls })
}

/// Returns when the broker at which members are is connected: nobody can do anything before. The own one is, soon.
pub(crate) async fn wait_for_broker(external: Option<&ExternalBroker>, connection: &mut mpsc::Receiver<()>) {
    let Some(external) = external else {
        let _ = tokio::time::timeout(OWN_BROKER_MAX, connection.recv()).await;
        return;
    };
    supervisor::status(&format!("waits for the broker at {}", external.address));
    let _ = connection.recv().await;
    supervisor::status(&format!("is at the broker {}", external.address));
}

impl Handle {
    /// Takes what those say who join at the own broker, while members are elsewhere.
    pub(crate) async fn follow_joins(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Message(message) => self.take_all(vec![*message]).await,
                Event::Connected => {}
                Event::Disconnected(reason) | Event::Refused(reason) => {
                    tracing::warn!(reason, "the connection to the own broker is lost");
                }
            }
        }
    }

    /// Keeps a broker's directory as it has to be: its certificate fresh, and its access list that of the roster.
    pub(crate) async fn mind_broker_files(self, files: BrokerFiles, host: String) {
        let mut written: Option<Roster> = None;
        let mut certificate_looked_at: Option<tokio::time::Instant> = None;
        loop {
            if certificate_looked_at.is_none_or(|at| at.elapsed() > CERTIFICATE_EVERY) {
                match self.certify_broker(&files, &host).await {
                    Ok(()) => certificate_looked_at = Some(tokio::time::Instant::now()),
                    Err(error) => tracing::error!(error, "the broker's certificate cannot be written"),
                }
            }
            let own = self.inner.bus.own();
            let roster = Roster::of(own, self.inner.core.lock().await.components().map(listed), Timestamp::now());
            if written.as_ref() != Some(&roster) {
                match files.write_rules(&roster) {
                    Ok(()) => {
                        let (services, dismissed) = (roster.services.len(), roster.dismissed.len());
                        tracing::info!(services, dismissed, "the broker's access list was written anew");
                        written = Some(roster);
                    }
                    Err(error) => tracing::error!(error = %Chain(&error), "the broker's access list cannot be written"),
                }
            }
            tokio::time::sleep(RULES_EVERY).await;
        }
    }

    async fn certify_broker(&self, files: &BrokerFiles, host: &str) -> Result<(), String> {
        let told = |error: BrokerFilesError| Chain(&error).to_string();
        let request = files.signing_request().map_err(told)?;
        let ca_pem = self.inner.ca.pems().concat();
        if files.age(&ca_pem, SystemTime::now()).is_some_and(|age| age < CERTIFICATE_AGE_MAX) {
            return Ok(());
        }
        let signed = broker_certificate(self, Actor::Orchestrator, &request, &[host.to_owned()]).await;
        match signed.map_err(|fault: Fault| fault.to_string())? {
            OperatorEvent::BrokerCertificate(signed) => {
                files.write(&signed.certificate, &signed.ca_certificate).map_err(told)
            }
            other => Err(format!("unexpected answer: {other:?}")),
        }
    }
}

fn listed(component: &Component) -> Listed {
    Listed {
        component: component.id,
        component_type: component.component_type,
        state: component.state,
        certificate_ends: component.certificate.as_ref().map(|certificate| certificate.until),
    }
}

/// The directory of a broker, as it is configured, and the broker's host.
pub(crate) fn files_of(external: &ExternalBroker) -> Result<Option<(BrokerFiles, String)>, BrokerFilesError> {
    let Some((directory, kind)) = &external.config else { return Ok(None) };
    let Some((host, port)) = external.host_and_port() else { return Ok(None) };
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    Ok(Some((BrokerFiles::open(directory, *kind, listen)?, host)))
}
