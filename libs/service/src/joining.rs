//! Registration over a connection that shows no certificate: joining with a token, and coming back with the key alone
//! when the certificate has run out.

use std::path::Path;
use std::time::Duration;

use bus::{Bus, BusSettings, Context, Event, RequestError, Trust, mqtt, outbox::Outbox, tls};
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::message::{ComponentRegistrationRequest, ComponentRegistrationResponse};
use proto::seal::Sealer;
use proto::topic::Topic;
use rcgen::KeyPair;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::identity::{self, Identity};
use crate::member::{MemberError, MemberSettings};
use crate::token::{JoinToken, host_and_port};

/// How often nobody may answer before joining is given up.
const TRIES_MAX: u32 = 20;
/// Seconds between two looks whether an operator has approved.
const APPROVAL_SECONDS: u64 = 3;
/// Seconds for the connection, and for the answer.
const CONNECT_SECONDS: u64 = 10;
const ANSWER_SECONDS: u64 = 5;

/// Why a registration has no certificate.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The orchestrator says no.
    Refused(Fault),
    /// Nobody answers.
    Unreachable(String),
}

/// Where to ask, and as who.
pub(crate) struct Stranger<'member> {
    pub(crate) host: &'member str,
    pub(crate) port: u16,
    pub(crate) ca_fingerprints: &'member [String],
    pub(crate) key: &'member KeyPair,
}

impl Stranger<'_> {
    /// Asks once.
    pub(crate) async fn ask(
        &self,
        request: &ComponentRegistrationRequest,
    ) -> Result<ComponentRegistrationResponse, Failure> {
        let unusable = |error: &dyn std::fmt::Display| Failure::Unreachable(format!("keys cannot be used: {error}"));
        // A client id of its own for each try: it means nothing beyond this connection.
        let client = ComponentId(Uuid::new_v4());
        let (_keep, tls) = watch::channel(tls::joining(self.ca_fingerprints).map_err(|error| unusable(&error))?);
        let bus_settings = BusSettings {
            own: client,
            sealer: Sealer::with_bare_key(self.key.serialized_der()).map_err(|error| unusable(&error))?,
            trust: Trust::pinned(self.ca_fingerprints.to_vec()),
            outbox: Outbox::in_memory(),
            payload_bytes_max: proto::limits::JOIN_PAYLOAD_BYTES_MAX,
        };
        let (_there, address) = watch::channel((self.host.to_owned(), self.port));
        let (transport, incoming) = mqtt::connect(mqtt::MqttSettings {
            address,
            client,
            tls,
            packet_bytes_max: 64 * 1024,
            in_flight_max: 8,
            queue_max: 8,
        });
        let (bus, events) = Bus::start(bus_settings, transport, incoming);
        bus.subscribe(vec![Topic::RegistrationAnswer(client).to_string()]);
        let answer = exchange(&bus, events, request).await;
        bus.close();
        let answer = answer?;
        match identity::certificate_der(&answer.ca_certificate) {
            Some(der) if self.ca_fingerprints.contains(&tls::fingerprint(&der)) => Ok(answer),
            _ => Err(Failure::Unreachable("the answer's CA is not the one that is trusted".to_owned())),
        }
    }
}

async fn exchange(
    bus: &Bus,
    mut events: mpsc::Receiver<Event>,
    request: &ComponentRegistrationRequest,
) -> Result<ComponentRegistrationResponse, Failure> {
    let connected = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Connected => return Ok(()),
                Event::Disconnected(why) | Event::Refused(why) => return Err(Failure::Unreachable(why)),
                Event::Message(_) => {}
            }
        }
        Err(Failure::Unreachable("the connection ended".to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS), connected)
        .await
        .unwrap_or_else(|_| Err(Failure::Unreachable("the connection timed out".to_owned())))?;
    let deadline = Duration::from_secs(ANSWER_SECONDS);
    bus.request(&Topic::Registration, request, Context::alone(), deadline).await.map_err(|error| match error {
        RequestError::Fault(fault) => Failure::Refused(fault),
        other => Failure::Unreachable(other.to_string()),
    })
}

/// Joins with a token, and keeps the identity that it gave. Where an operator has to approve first, waits for it.
pub(crate) async fn join(settings: &MemberSettings, directory: &Path, token: &JoinToken) -> Result<(), MemberError> {
    let key = identity::key(directory)?;
    let signing_request = identity::signing_request(&key).map_err(|error| MemberError::Keys(error.to_string()))?;
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
    let ca_fingerprints = std::slice::from_ref(&token.ca_fingerprint);
    let stranger = Stranger { host: &host, port, ca_fingerprints, key: &key };
    let mut failures = 0_u32;
    let mut is_told = false;
    loop {
        match stranger.ask(&request).await {
            Ok(answer) => {
                Identity::store(
                    directory,
                    &answer.certificate,
                    &answer.ca_certificate,
                    (&host, port),
                    answer.broker.as_deref().filter(|broker| host_and_port(broker).is_some()),
                    answer.heartbeat_interval_seconds,
                )?;
                tracing::info!(component = %answer.component_unique_identifier, "joined");
                return Ok(());
            }
            Err(Failure::Refused(fault)) if fault.code == FaultCode::PendingApproval => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!("waiting: {}", fault.message);
                }
                failures = 0;
                tokio::time::sleep(Duration::from_secs(APPROVAL_SECONDS)).await;
            }
            // It waited, and an operator said no.
            Err(Failure::Refused(fault)) if is_told && !fault.code.is_retryable() => {
                return Err(MemberError::Dismissed(fault));
            }
            Err(Failure::Refused(fault)) if !fault.code.is_retryable() => {
                return Err(MemberError::Refused { address: address.clone(), fault });
            }
            Err(Failure::Refused(Fault { message: reason, .. }) | Failure::Unreachable(reason)) => {
                failures += 1;
                if failures == TRIES_MAX {
                    return Err(MemberError::Unreachable { address: address.clone(), reason });
                }
                tokio::time::sleep(Duration::from_millis(250 * u64::from(failures.min(8)))).await;
            }
        }
    }
}
