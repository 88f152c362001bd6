//! The roster: who is registered, what each can do, and whether it is alive.

use std::collections::{BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use proto::capability::{Capability, CapabilityUrn, ComponentType};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::limits::{CAPABILITIES_MAX, shown};
use proto::message::{
    AdvertisedEndpoint, AssignedEndpoint, CapabilityAdvertisement, CapabilityAdvertisementResponse, CapabilityAnswer,
    HealthCheckAction, LackedKind, RegistrationStatus,
};
use proto::operator::{ComponentState, EndpointEntry, RosterEntry};
use proto::topic;
use serde::{Deserialize, Serialize};
use service::audit::{Act, Actor};
use uuid::Uuid;

use super::identity::{Collision, evidence_of};
use super::residency::{self, Challenge};
use super::{Action, Core, HEALTH_CHECK_SECONDS, HEARTBEATS_MISSED_MAX, pacing};

/// Kinds of items that are remembered of an endpoint.
const KINDS_MAX: usize = 256;
/// Bytes of a kind's name.
const KIND_BYTES_MAX: usize = 64;

/// Endpoints that one collector may speak for, at a time and in its life.
const ENDPOINTS_MAX: usize = 1_000;

/// CAs that a component may say that it trusts.
const TRUSTED_CAS_MAX: usize = 8;

/// A component on the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Component {
    /// Its id.
    pub id: ComponentId,
    /// What it is.
    pub component_type: ComponentType,
    /// What its operator calls it.
    pub name: String,
    /// The key that its certificate is for.
    pub public_key: [u8; 32],
    /// Where it is in its life.
    pub state: ComponentState,
    /// The capabilities that are registered.
    pub capabilities: Vec<CapabilityUrn>,
    /// The endpoints that it speaks for, by its own names.
    pub endpoints: Vec<(String, EndpointEntry)>,
    /// Its software version.
    pub software_version: Option<String>,
    /// What its token said of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The token that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// How long its latest certificate holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Validity>,
    /// The CAs that it trusts, as it says itself; empty for one that does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_cas: Vec<String>,
    /// When it was last asked to learn which CAs there are; not stored.
    #[serde(skip)]
    pub trust_told: Option<Timestamp>,
    /// Why it is in quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collision: Option<Collision>,
    /// Endpoints that it seemed to be and is not, by an operator's word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distinct_from: Vec<EndpointId>,
    /// Its processes, the latest last, and those that use a copy of its key; not stored.
    #[serde(skip)]
    pub instances: VecDeque<Uuid>,
    /// See there.
    #[serde(skip)]
    pub refused_instances: VecDeque<Uuid>,
    /// When it was last told that its identity seems to have changed; not stored.
    #[serde(skip)]
    pub change_told: Option<Timestamp>,
    /// What its TPMs are to sign; not stored.
    #[serde(skip)]
    pub challenge: Option<Challenge>,
    /// Why it was evicted or banned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dismissal: Option<String>,
    /// When it was last heard; not stored.
    #[serde(skip)]
    pub heard: Option<Timestamp>,
    /// How many seconds it was told to leave between two heartbeats; not stored.
    #[serde(skip)]
    pub heartbeat_seconds: Option<u64>,
    /// Until when an operator has it look at nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<Timestamp>,
    /// How many endpoints it has named in its life.
    #[serde(default)]
    pub bound_count: usize,
    /// Whether it has been said that its certificate runs out; not stored.
    #[serde(skip)]
    pub is_ending_told: bool,
    /// When it got its latest certificates; not stored.
    #[serde(skip)]
    pub issued: VecDeque<Timestamp>,
    /// The database of a repository that others may use too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Uuid>,
    /// When it last said how far it is with a request; not stored.
    #[serde(skip)]
    pub said: Option<Timestamp>,
    /// Work was taken from it because it said nothing, and it has not been heard since; not stored.
    #[serde(skip)]
    pub is_lapsed: bool,
}

/// From when until when a certificate holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Validity {
    /// From.
    pub from: Timestamp,
    /// Until.
    pub until: Timestamp,
    /// The fingerprint of the CA that has signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

impl Component {
    /// An endpoint by the component's own name for it.
    pub(super) fn endpoint(&self, local_name: &str) -> Option<&EndpointEntry> {
        self.endpoints.iter().find(|(name, _)| name == local_name).map(|(_, entry)| entry)
    }

    /// Whether a capability is registered.
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.iter().any(|urn| urn.0 == capability.as_str())
    }

    /// Whether it has shaken hands, and may be asked.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, ComponentState::Active | ComponentState::Suspect)
    }

    /// Whether it may be connected.
    pub fn is_member(&self) -> bool {
        !matches!(self.state, ComponentState::Pending | ComponentState::Evicted | ComponentState::Banned)
    }

    /// As operators see it, with so many requests.
    fn entry(&self, open_request_count: usize) -> RosterEntry {
        RosterEntry {
            component: self.id,
            component_type: self.component_type,
            name: self.name.clone(),
            state: self.state,
            heard: self.heard,
            software_version: self.software_version.clone(),
            capability_count: self.capabilities.len() as u64,
            open_request_count: open_request_count as u64,
            labels: self.labels.clone(),
            certificate_ends: self.certificate.as_ref().map(|certificate| certificate.until),
            dismissal: self.dismissal.clone(),
            paused_until: self.paused_until,
            collision: self.collision.as_ref().map(|collision| collision.shared.clone()),
            endpoints: self.endpoints.iter().map(|(_, entry)| entry.clone()).collect(),
        }
    }
}

impl Core {
    /// Everybody, as operators see them.
    pub fn roster(&self) -> Vec<RosterEntry> {
        self.components.values().map(|component| component.entry(self.open_requests_of(component.id))).collect()
    }

    /// The handshake: each URN is answered by itself. An error in the answer comes with something to be done; an error
    /// around it changes nothing.
    pub fn advertise(
        &mut self,
        sender: ComponentId,
        advertisement: &CapabilityAdvertisement,
        now: Timestamp,
    ) -> Result<(Result<CapabilityAdvertisementResponse, Fault>, Vec<Action>), Fault> {
        let outcome = self.shake_hands(sender, advertisement, now);
        // What was noted of a handshake that came to nothing is not told.
        self.noted.clear();
        outcome
    }

    fn shake_hands(
        &mut self,
        sender: ComponentId,
        advertisement: &CapabilityAdvertisement,
        now: Timestamp,
    ) -> Result<(Result<CapabilityAdvertisementResponse, Fault>, Vec<Action>), Fault> {
        if advertisement.capabilities.len() > CAPABILITIES_MAX || advertisement.endpoints.len() > ENDPOINTS_MAX {
            return Err(Fault::new(FaultCode::TooLarge, "too many capabilities or endpoints in one advertisement"));
        }
        let names: BTreeSet<&String> = advertisement.endpoints.iter().map(|endpoint| &endpoint.local_name).collect();
        if names.len() != advertisement.endpoints.len() {
            return Err(Fault::new(FaultCode::Malformed, "two endpoints have one local-name"));
        }
        for endpoint in &advertisement.endpoints {
            self.not_banned(sender, endpoint)?;
        }
        let known = self.components.get(&sender).ok_or_else(|| {
            Fault::new(FaultCode::UnknownComponent, "this id was never registered here: join with a token")
        })?;
        known.not_out()?;
        if known.component_type != ComponentType::PostureCollectionService && !advertisement.endpoints.is_empty() {
            return Err(Fault::new(FaultCode::NotAuthorized, "only a collector speaks for endpoints"));
        }
        // Whoever answers a challenge was admitted before; the other services are few, and everybody waits for them.
        let is_paced = known.component_type == ComponentType::PostureCollectionService
            && known.challenge.as_ref().is_none_or(|challenge| now >= challenge.until);
        if is_paced && let Err(wait) = self.pacing.admit(sender, now) {
            let seconds = wait.as_secs().max(0).unsigned_abs() + u64::from(wait.subsec_nanos() > 0);
            return Err(
                Fault::new(FaultCode::Busy, "many components come back at once; it is their turn first").after(seconds)
            );
        }
        let is_known = |endpoint: &&AdvertisedEndpoint| known.endpoint(&endpoint.local_name).is_some();
        let bound = advertisement.endpoints.len() - advertisement.endpoints.iter().filter(is_known).count();
        if known.bound_count + bound > ENDPOINTS_MAX {
            let text = format!("the component has named {ENDPOINTS_MAX} endpoints in its life, and may name no more");
            return Err(Fault::new(FaultCode::TooLarge, text));
        }
        if let Some(collision) = known.collision.as_ref().filter(|_| known.state == ComponentState::Quarantined) {
            // Whatever it says of itself now: an operator decides.
            return Err(self.in_quarantine(sender, collision));
        }
        let endpoints = match self.proven(sender, &advertisement.endpoints, now) {
            Ok(endpoints) => endpoints,
            Err(challenge) => {
                let component = self.components.get(&sender).cloned().map(Box::new);
                let actions = component.map(Action::StoreComponent).into_iter().collect();
                return Ok((Ok(CapabilityAdvertisementResponse::challenging(challenge)), actions));
            }
        };
        if let Some(collision) = self.components.get(&sender).and_then(|own| residency::left(own, &endpoints)) {
            let (fault, actions) = self.quarantine(sender, collision);
            return Ok((Err(fault), actions));
        }
        self.instance(sender, advertisement.instance, now)?;
        let candidates = self.candidates(sender, &endpoints);
        let mut labels = Vec::new();
        for endpoint in &endpoints {
            let known = self.components.get(&sender).and_then(|component| component.endpoint(&endpoint.local_name));
            let known = known.cloned();
            let evidence = evidence_of(endpoint);
            let found = match known {
                Some(known) if known.evidence == evidence => Ok((known.endpoint, known.likely)),
                Some(known) => {
                    self.note_changed_evidence(sender, &known.evidence, &evidence, now);
                    self.likely(&candidates, endpoint).map(|_| (known.endpoint, known.likely))
                }
                None => self.label_of(&candidates, sender, endpoint),
            };
            let (label, likely) = match found {
                Ok(found) => found,
                Err(collision) => {
                    let (fault, actions) = self.quarantine(sender, collision);
                    return Ok((Err(fault), actions));
                }
            };
            let entry = EndpointEntry {
                endpoint: label,
                facts: endpoint.facts.clone(),
                evidence,
                likely,
                kinds: kinds_of(endpoint),
                lacks: lacks_of(endpoint),
            };
            labels.push((endpoint.local_name.clone(), entry));
        }
        let of_labels: BTreeSet<EndpointId> = labels.iter().map(|(_, entry)| entry.endpoint).collect();
        if of_labels.len() != labels.len() {
            return Err(Fault::new(FaultCode::Conflict, "two endpoints of the advertisement seem to be one"));
        }
        let repositories = self
            .components
            .values()
            .filter(|component| {
                component.component_type == ComponentType::RepositoryInterface
                    && component.state == ComponentState::Active
            })
            .map(|component| component.id)
            .collect();
        let component = self.components.get_mut(&sender).ok_or_else(|| {
            Fault::new(FaultCode::UnknownComponent, "this id was never registered here: join with a token")
        })?;
        component.bound_count += bound;
        let answers: Vec<CapabilityAnswer> =
            advertisement.capabilities.iter().map(|urn| answer(component.component_type, sender, urn)).collect();
        component.capabilities = answers
            .iter()
            .filter(|answer| answer.registration_status == RegistrationStatus::Success)
            .map(|answer| answer.capability_urn.clone())
            .collect();
        let endpoints = labels
            .iter()
            .map(|(name, entry)| AssignedEndpoint { local_name: name.clone(), endpoint: entry.endpoint })
            .collect();
        component.endpoints = labels;
        component.software_version = Some(shown(&advertisement.software_version));
        component.trusted_cas = advertisement.trusted_cas.iter().take(TRUSTED_CAS_MAX).map(|one| shown(one)).collect();
        component.heard = Some(now);
        component.is_lapsed = false;
        component.store = advertisement.store;
        component.state =
            if component.capabilities.is_empty() { ComponentState::Registered } else { ComponentState::Active };
        let mut actions = vec![Action::StoreComponent(Box::new(component.clone()))];
        if bound > 0 {
            let names: Vec<String> =
                advertisement.endpoints.iter().take(3).map(|endpoint| shown(&endpoint.facts.host_name)).collect();
            let detail = format!("{bound} new: {}", names.join(", "));
            let act = Act::new(Actor::Component(sender.to_string()), "bind-endpoints", sender).because(detail);
            actions.push(Action::Record(Box::new(act)));
            if let Some(likely) = component.endpoints.iter().find_map(|(_, entry)| entry.likely) {
                let text = format!(
                    "{} seems to be on the machine of the endpoint {likely}: `muster endpoint same {sender}` joins what is \
                     known of both, `muster endpoint distinct {sender}` tells them apart",
                    component.name
                );
                actions.push(Action::Announce { code: "security.identity-known", text });
            }
        }
        actions.append(&mut self.noted);
        let pulse = self.pulse_of(sender, now);
        if pulse.paused_until.is_some() {
            actions.push(Action::Pulse(sender, pulse));
        }
        // What it was asked before it went away, it is asked again.
        actions.extend(self.ask_again(sender, now));
        let response = CapabilityAdvertisementResponse {
            capabilities: answers,
            endpoints,
            repositories,
            ..CapabilityAdvertisementResponse::default()
        };
        Ok((Ok(response), actions))
    }

    /// A component that has shown a TPM has connected anew: it is in again once its TPM has shown that it is where it was.
    pub fn connected(&mut self, id: ComponentId) -> Vec<Action> {
        let resident = self.components.get_mut(&id).filter(|component| component.is_resident());
        let Some(component) = resident else { return Vec::new() };
        component.capabilities.clear();
        if matches!(component.state, ComponentState::Active | ComponentState::Suspect | ComponentState::Unavailable) {
            component.state = ComponentState::Registered;
        }
        vec![Action::StoreComponent(Box::new(component.clone()))]
    }

    /// A message came from a component: it is alive.
    pub fn heard(&mut self, sender: ComponentId, now: Timestamp) -> Vec<Action> {
        let Some(component) = self.components.get_mut(&sender) else { return Vec::new() };
        component.heard = Some(now);
        component.is_lapsed = false;
        if !matches!(component.state, ComponentState::Suspect | ComponentState::Unavailable) {
            return Vec::new();
        }
        if component.is_resident() {
            // It is in again once its TPM has shown that it is where it was.
            component.capabilities.clear();
            component.state = ComponentState::Registered;
            let check = Action::CheckHealth(sender, HealthCheckAction::PingWithCapabilities);
            return vec![Action::StoreComponent(Box::new(component.clone())), check];
        }
        component.state =
            if component.capabilities.is_empty() { ComponentState::Registered } else { ComponentState::Active };
        let announce =
            Action::Announce { code: "liveness.available", text: format!("{} is heard again", component.name) };
        let mut actions = vec![Action::StoreComponent(Box::new(component.clone())), announce];
        actions.extend(self.ask_again(sender, now));
        actions
    }

    /// A component hears after how many seconds its next heartbeat is due.
    pub fn pulse(&mut self, sender: ComponentId) -> u64 {
        if let Some(component) = self.components.get_mut(&sender) {
            component.heartbeat_seconds = Some(self.heartbeat_seconds);
        }
        self.heartbeat_seconds
    }

    /// Heartbeats missed: suspect, and asked; no answer: unavailable.
    pub(super) fn watch_components(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let members = self.components.values().filter(|component| component.is_member()).count();
        self.heartbeat_seconds = pacing::heartbeat_seconds(members);
        for component in self.components.values_mut() {
            // What it was told before this process began is not known: what it is told now is what counts.
            let interval = component.heartbeat_seconds.unwrap_or_default().max(self.heartbeat_seconds);
            let patience = i64::try_from(interval).unwrap_or(i64::MAX).saturating_mul(HEARTBEATS_MISSED_MAX);
            actions.extend(component.watch_certificate(now));
            let silent = component.heard.map_or(SignedDuration::ZERO, |heard| now.duration_since(heard));
            match component.state {
                ComponentState::Active | ComponentState::Registered if silent.as_secs() >= patience => {
                    component.state = ComponentState::Suspect;
                    actions.push(Action::StoreComponent(Box::new(component.clone())));
                    actions.push(Action::CheckHealth(component.id, HealthCheckAction::Ping));
                }
                ComponentState::Suspect if silent.as_secs() >= patience + HEALTH_CHECK_SECONDS => {
                    component.state = ComponentState::Unavailable;
                    actions.push(Action::StoreComponent(Box::new(component.clone())));
                    let text = format!("{} does not answer; last heard {} s ago", component.name, silent.as_secs());
                    actions.push(Action::Announce { code: "liveness.unavailable", text });
                }
                _ => {}
            }
        }
        actions
    }
}

/// What a collector says that it can collect, as far as that can be a kind.
fn kinds_of(endpoint: &AdvertisedEndpoint) -> Vec<String> {
    let is_kind = |kind: &&String| !kind.is_empty() && kind.len() <= KIND_BYTES_MAX;
    endpoint.kinds.iter().filter(is_kind).take(KINDS_MAX).map(|kind| shown(kind)).collect()
}

/// The same of what it cannot.
fn lacks_of(endpoint: &AdvertisedEndpoint) -> Vec<LackedKind> {
    let is_kind = |lack: &&LackedKind| !lack.kind.is_empty() && lack.kind.len() <= KIND_BYTES_MAX;
    let lacks = endpoint.lacks.iter().filter(is_kind).take(KINDS_MAX);
    lacks.map(|lack| LackedKind { kind: shown(&lack.kind), reason: shown(&lack.reason) }).collect()
}

fn answer(component_type: ComponentType, id: ComponentId, urn: &CapabilityUrn) -> CapabilityAnswer {
    let failure = |code, text: &str| CapabilityAnswer {
        capability_urn: urn.clone(),
        registration_status: RegistrationStatus::Failure,
        capability_topics: Vec::new(),
        messages: vec![Fault::new(code, text)],
    };
    match Capability::from_urn(urn) {
        None => failure(FaultCode::UnsupportedCapability, "this orchestrator does not know the capability"),
        Some(capability) if !capability.holders().contains(&component_type) => {
            failure(FaultCode::NotAuthorized, "a component of this type may not hold the capability")
        }
        Some(capability) => CapabilityAnswer {
            capability_urn: urn.clone(),
            registration_status: RegistrationStatus::Success,
            capability_topics: topic::filters_with(component_type, id, capability),
            messages: Vec::new(),
        },
    }
}
