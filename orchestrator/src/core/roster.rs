//! The roster: who is registered, what each can do, and whether it is alive.

use jiff::{SignedDuration, Timestamp};
use proto::capability::{Capability, CapabilityUrn, ComponentType};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::limits::{CAPABILITIES_MAX, shown};
use proto::message::{
    AssignedEndpoint, CapabilityAdvertisement, CapabilityAdvertisementResponse, CapabilityAnswer, HealthCheckAction,
    RegistrationStatus,
};
use proto::operator::{ComponentState, EndpointEntry, RosterEntry};
use proto::topic;
use serde::{Deserialize, Serialize};

use super::{Action, Core, HEALTH_CHECK_SECONDS, HEARTBEAT_SECONDS, HEARTBEATS_MISSED_MAX};

/// Endpoints that one collector may speak for.
const ENDPOINTS_MAX: usize = 1_000;

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
    /// When it was last heard; not stored.
    #[serde(skip)]
    pub heard: Option<Timestamp>,
}

impl Component {
    /// Whether a capability is registered.
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.iter().any(|urn| urn.0 == capability.as_str())
    }

    /// As operators see it.
    pub fn entry(&self) -> RosterEntry {
        RosterEntry {
            component: self.id,
            component_type: self.component_type,
            name: self.name.clone(),
            state: self.state,
            heard: self.heard,
            software_version: self.software_version.clone(),
            capability_count: self.capabilities.len() as u64,
            endpoints: self.endpoints.iter().map(|(_, entry)| entry.clone()).collect(),
        }
    }
}

impl Core {
    /// Registers a key: a new one gets an id, a known one its own again, so that a lost answer can be
    /// asked for again.
    pub fn register(
        &mut self,
        component_type: ComponentType,
        name: &str,
        public_key: [u8; 32],
        now: Timestamp,
    ) -> Result<(ComponentId, Vec<Action>), Fault> {
        if let Some(known) = self.components.values().find(|component| component.public_key == public_key) {
            if known.state == ComponentState::Retired {
                return Err(Fault::new(
                    FaultCode::Revoked,
                    "the component was taken off the roster; join with a new key and token",
                ));
            }
            if known.component_type != component_type {
                return Err(Fault::new(FaultCode::NotAuthorized, "the key belongs to a component of another type"));
            }
            return Ok((known.id, Vec::new()));
        }
        let component = Component {
            id: ComponentId(self.ids.next()),
            component_type,
            name: shown(name),
            public_key,
            state: ComponentState::Registered,
            capabilities: Vec::new(),
            endpoints: Vec::new(),
            software_version: None,
            heard: Some(now),
        };
        let id = component.id;
        self.components.insert(id, component.clone());
        Ok((id, vec![Action::StoreComponent(Box::new(component))]))
    }

    /// A component with a certificate asks for its place again. `claimed` is the id in its request.
    pub fn return_of(&mut self, sender: ComponentId, claimed: Option<ComponentId>) -> Result<ComponentId, Fault> {
        if claimed.is_some_and(|claimed| claimed != sender) {
            return Err(Fault::new(FaultCode::NotAuthorized, "the id belongs to another component"));
        }
        match self.components.get(&sender) {
            None => {
                Err(Fault::new(FaultCode::UnknownComponent, "this id was never registered here: join with a token"))
            }
            Some(component) if component.state == ComponentState::Retired => {
                Err(Fault::new(FaultCode::Revoked, "the component was taken off the roster"))
            }
            Some(component) => Ok(component.id),
        }
    }

    /// Whether a component may be connected.
    pub fn is_admitted(&self, id: ComponentId, component_type: ComponentType) -> bool {
        self.components.get(&id).is_some_and(|component| {
            component.component_type == component_type && component.state != ComponentState::Retired
        })
    }

    /// The handshake: each URN is answered by itself.
    pub fn advertise(
        &mut self,
        sender: ComponentId,
        advertisement: &CapabilityAdvertisement,
        now: Timestamp,
    ) -> Result<(CapabilityAdvertisementResponse, Vec<Action>), Fault> {
        if advertisement.capabilities.len() > CAPABILITIES_MAX || advertisement.endpoints.len() > ENDPOINTS_MAX {
            return Err(Fault::new(FaultCode::TooLarge, "too many capabilities or endpoints in one advertisement"));
        }
        let mut labels = Vec::new();
        for endpoint in &advertisement.endpoints {
            let known = self.components.get(&sender).and_then(|component| {
                component
                    .endpoints
                    .iter()
                    .find(|(name, _)| *name == endpoint.local_name)
                    .map(|(_, entry)| entry.endpoint)
            });
            let label = known.unwrap_or_else(|| EndpointId(self.ids.next()));
            labels
                .push((endpoint.local_name.clone(), EndpointEntry { endpoint: label, facts: endpoint.facts.clone() }));
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
        if component.component_type != ComponentType::PostureCollectionService && !labels.is_empty() {
            return Err(Fault::new(FaultCode::NotAuthorized, "only a collector speaks for endpoints"));
        }
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
        component.heard = Some(now);
        component.state =
            if component.capabilities.is_empty() { ComponentState::Registered } else { ComponentState::Active };
        let mut actions = vec![Action::StoreComponent(Box::new(component.clone()))];
        // What it was asked before it went away, it is asked again.
        actions.extend(self.ask_again(sender, now));
        Ok((CapabilityAdvertisementResponse { capabilities: answers, endpoints, repositories }, actions))
    }

    /// A message came from a component: it is alive.
    pub fn heard(&mut self, sender: ComponentId, now: Timestamp) -> Vec<Action> {
        let Some(component) = self.components.get_mut(&sender) else { return Vec::new() };
        component.heard = Some(now);
        if !matches!(component.state, ComponentState::Suspect | ComponentState::Unavailable) {
            return Vec::new();
        }
        component.state =
            if component.capabilities.is_empty() { ComponentState::Registered } else { ComponentState::Active };
        let announce =
            Action::Announce { code: "liveness.available", text: format!("{} is heard again", component.name) };
        let mut actions = vec![Action::StoreComponent(Box::new(component.clone())), announce];
        actions.extend(self.ask_again(sender, now));
        actions
    }

    /// Takes a component off the roster for good.
    pub fn retire(&mut self, id: ComponentId) -> Result<Vec<Action>, Fault> {
        let component = self.components.get_mut(&id).ok_or_else(|| {
            Fault::new(FaultCode::UnknownComponent, format!("no component has the id {id}; `muster roster` lists them"))
        })?;
        component.state = ComponentState::Retired;
        component.capabilities.clear();
        let announce =
            Action::Announce { code: "security.retired", text: format!("{} was taken off the roster", component.name) };
        Ok(vec![Action::StoreComponent(Box::new(component.clone())), Action::Kick(id), announce])
    }

    /// Heartbeats missed: suspect, and asked; no answer: unavailable.
    pub(super) fn watch_components(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let patience = i64::try_from(HEARTBEAT_SECONDS).unwrap_or(i64::MAX) * HEARTBEATS_MISSED_MAX;
        for component in self.components.values_mut() {
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
