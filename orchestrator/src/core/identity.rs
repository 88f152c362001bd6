//! Which endpoint is which, over time: a label stays with a machine, a copy of a machine does not get in beside it, and
//! what an operator decides of two of them is kept.

use std::collections::{HashSet, VecDeque};

use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::identity::{self, IdentityEvidence, Likeness};
use proto::limits::shown;
use proto::message::{AdvertisedEndpoint, HealthCheckAction};
use proto::operator::{ComponentState, EndpointEntry};
use serde::{Deserialize, Serialize};
use service::audit::{Act, Actor};
use uuid::Uuid;

use super::residency;
use super::roster::Component;
use super::{Action, Core};

/// Pieces of evidence of one endpoint that are looked at.
const EVIDENCE_MAX: usize = 64;
/// Values of one attribute that a machine has at most; what is more would be those of others.
const VALUES_MAX: &[(&str, usize)] = &[
    (identity::MACHINE_ID, 1),
    (identity::SSH_HOST_KEY, 4),
    (identity::SYSTEM_UUID, 1),
    (identity::SYSTEM_SERIAL, 1),
    (identity::MAC_ADDRESS, 16),
    (identity::TPM_KEY, 1),
];
/// Seconds between two words about one component's identity.
const CHANGE_TOLD_SECONDS: i64 = 3_600;
/// Processes of one component that are remembered.
const INSTANCES_MAX: usize = 16;

/// Why a component is in quarantine: it is the younger of two that seem to be one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Collision {
    /// The endpoint that it seems to be.
    pub endpoint: EndpointId,
    /// The component that speaks for that.
    pub with: ComponentId,
    /// What they share, in words.
    pub shared: String,
    /// Its own name for the endpoint.
    pub local_name: String,
}

/// Whether the component that spoke for an endpoint was put out, and nothing else speaks against giving the label back.
pub(super) struct IsGone(bool);

/// An endpoint that shares evidence with one that is advertised.
pub(super) struct Candidate {
    endpoint: EndpointId,
    component: ComponentId,
    is_member: bool,
    evidence: Vec<IdentityEvidence>,
}

/// The evidence of an advertised endpoint: what it says, and the machine-id that older collectors have among the facts.
pub(super) fn evidence_of(endpoint: &AdvertisedEndpoint) -> Vec<IdentityEvidence> {
    let of_facts = endpoint.facts.machine_id.as_deref().and_then(|id| IdentityEvidence::new(identity::MACHINE_ID, id));
    let mut evidence: Vec<IdentityEvidence> = endpoint
        .evidence
        .iter()
        .take(EVIDENCE_MAX)
        .filter_map(|one| IdentityEvidence::new(&shown(&one.attribute), &one.value))
        .chain(of_facts)
        .collect();
    evidence.sort();
    evidence.dedup();
    for (attribute, most) in VALUES_MAX {
        let mut count = 0;
        evidence.retain(|one| {
            count += usize::from(one.attribute == *attribute);
            one.attribute != *attribute || count <= *most
        });
    }
    evidence
}

impl Core {
    /// Endpoints of other components that share evidence with advertised ones that are new, or say something else of
    /// themselves than before. The roster is gone through once, however many there are.
    pub(super) fn candidates(&self, sender: ComponentId, endpoints: &[AdvertisedEndpoint]) -> Vec<Candidate> {
        let own = self.components.get(&sender);
        let mut wanted = HashSet::new();
        for endpoint in endpoints {
            let evidence = evidence_of(endpoint);
            let known = own.and_then(|component| component.endpoint(&endpoint.local_name));
            if known.is_none_or(|known| known.evidence != evidence) {
                wanted.extend(evidence);
            }
        }
        if wanted.is_empty() {
            return Vec::new();
        }
        let is_distinct =
            |entry: &EndpointEntry| own.is_some_and(|component| component.distinct_from.contains(&entry.endpoint));
        let others = self.components.values().filter(|component| component.id != sender);
        let entries = others.flat_map(|component| component.endpoints.iter().map(move |(_, entry)| (component, entry)));
        entries
            .filter(|(_, entry)| entry.evidence.iter().any(|evidence| wanted.contains(evidence)) && !is_distinct(entry))
            .map(|(component, entry)| Candidate {
                endpoint: entry.endpoint,
                component: component.id,
                is_member: component.is_member(),
                evidence: entry.evidence.clone(),
            })
            .collect()
    }

    /// The endpoint that an advertised one is likely to be, where an operator may want to say so: a machine that was
    /// installed anew, or whose component was put out. An error where it collides with a component that is in: the younger
    /// of the two waits until an operator has decided.
    pub(super) fn likely(
        &self,
        candidates: &[Candidate],
        endpoint: &AdvertisedEndpoint,
    ) -> Result<Option<(EndpointId, IsGone)>, Collision> {
        let evidence = evidence_of(endpoint);
        let compared =
            candidates.iter().map(|candidate| (identity::compare(&evidence, &candidate.evidence), candidate));
        let best = compared
            .filter(|((likeness, _), _)| *likeness != Likeness::Other)
            .max_by_key(|((likeness, shared), candidate)| (*likeness as u8, candidate.is_member, shared.len()));
        let Some(((likeness, shared), best)) = best else { return Ok(None) };
        if best.is_member && likeness == Likeness::SameInstallation {
            let words: Vec<String> =
                shared.iter().map(|evidence| format!("{} {}", evidence.attribute, evidence.value)).collect();
            return Err(Collision {
                endpoint: best.endpoint,
                with: best.component,
                shared: shown(&words.join(", ")),
                local_name: endpoint.local_name.clone(),
            });
        }
        // What it was may have been merged into another, or somebody that is in speaks for it already.
        let known = self.aliases.get(&best.endpoint).copied().unwrap_or(best.endpoint);
        let speaks = |component: &Component| {
            component.is_member() && component.endpoints.iter().any(|(_, entry)| entry.endpoint == known)
        };
        // Whoever has shown a TPM is known by it, and by nothing that can be copied.
        let has_shown = |one: &&IdentityEvidence| one.attribute == identity::TPM_KEY;
        let is_known = |endpoint: EndpointId| self.aliases.get(&endpoint).copied().unwrap_or(endpoint) == known;
        let entries = self.components.values().flat_map(|component| &component.endpoints).map(|(_, entry)| entry);
        let shown =
            entries.filter(|entry| is_known(entry.endpoint)).flat_map(|entry| entry.evidence.iter().filter(has_shown));
        let is_there = shown.into_iter().all(|key| evidence.contains(key));
        Ok(Some((known, IsGone(is_there && !self.components.values().any(speaks)))))
    }

    /// The label of a new endpoint, and the one that it is likely to be. Where the installation's policy says so, a machine
    /// whose component was put out has its old label at once.
    pub(super) fn label_of(
        &mut self,
        candidates: &[Candidate],
        sender: ComponentId,
        endpoint: &AdvertisedEndpoint,
    ) -> Result<(EndpointId, Option<EndpointId>), Collision> {
        match self.likely(candidates, endpoint)? {
            Some((known, IsGone(true))) if self.takes_back => {
                let text = format!("the endpoint {known} is back, with another key");
                let act = Act::new(Actor::Orchestrator, "same-endpoint", sender).because("by policy");
                self.noted.push(Action::Record(Box::new(act)));
                self.noted.push(Action::Announce { code: "security.identity-returned", text });
                Ok((known, None))
            }
            likely => Ok((EndpointId(self.ids.next()), likely.map(|(known, _)| known))),
        }
    }

    /// What a component in quarantine is told.
    pub(super) fn in_quarantine(&self, sender: ComponentId, collision: &Collision) -> Fault {
        if collision.with == sender {
            let text = format!(
                "this is not the machine that it was ({}): an operator has to decide, `muster endpoint same {sender}` or \
                 `muster evict {sender}`",
                collision.shared
            );
            return Fault::new(FaultCode::Conflict, text);
        }
        let older = self.components.get(&collision.with).map_or("a component that was there", |older| &older.name);
        let text = format!(
            "this machine seems to be that of {older} ({}): an operator has to decide, `muster endpoint same {sender}` or \
             `muster endpoint distinct {sender}`",
            collision.shared
        );
        Fault::new(FaultCode::Conflict, text)
    }

    /// Puts the younger of two into quarantine. What it spoke for before stays its own; it says nothing meanwhile.
    pub(super) fn quarantine(&mut self, sender: ComponentId, collision: Collision) -> (Fault, Vec<Action>) {
        let fault = self.in_quarantine(sender, &collision);
        let older = self.components.get(&collision.with).map(|component| component.name.clone()).unwrap_or_default();
        let Some(component) = self.components.get_mut(&sender) else { return (fault, Vec::new()) };
        let detail = if collision.with == sender {
            format!("has {}", collision.shared)
        } else {
            format!("shares {} with {older}", collision.shared)
        };
        component.state = ComponentState::Quarantined;
        component.capabilities.clear();
        component.collision = Some(collision);
        let act = Act::new(Actor::Orchestrator, "quarantine", sender).because(detail.clone());
        let text = format!("{} is in quarantine: it {detail}", component.name);
        let actions = vec![
            Action::StoreComponent(Box::new(component.clone())),
            Action::Record(Box::new(act)),
            Action::Announce { code: "security.identity-collision", text },
        ];
        (fault, actions)
    }

    /// A process of a component says which one it is. The key of a component that two processes use at the same time has
    /// been copied: the one that was there first is heard again after the other, and the younger one is turned away.
    pub(super) fn instance(
        &mut self,
        sender: ComponentId,
        instance: Option<Uuid>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let (Some(instance), Some(component)) = (instance, self.components.get_mut(&sender)) else { return Ok(()) };
        let fault = || {
            let text = "another process uses the key of this component, and was there first: the key was copied";
            Fault::new(FaultCode::Duplicate, text)
        };
        if component.refused_instances.contains(&instance) {
            return Err(fault());
        }
        let Some(at) = component.instances.iter().position(|known| *known == instance) else {
            remember(&mut component.instances, instance);
            return Ok(());
        };
        // Whoever came after it and is not it came beside it.
        let younger: Vec<Uuid> = component.instances.drain(at + 1..).collect();
        if younger.is_empty() {
            return Ok(());
        }
        for copy in younger {
            remember(&mut component.refused_instances, copy);
        }
        if !component.tells_change(now) {
            return Ok(());
        }
        let text = format!("the key of {} is used by two processes: the younger one is turned away", component.name);
        let act = Act::new(Actor::Orchestrator, "turn-away-copy", sender);
        // It is not turned away itself: what there is to do is done with its handshake.
        self.noted.push(Action::Record(Box::new(act)));
        self.noted.push(Action::Announce { code: "security.identity-collision", text });
        Ok(())
    }

    /// An operator says that a component's endpoint is the machine that it seems to be: it takes over its label, and with
    /// it all that is known of it. The component that had it before, if it is still in, is put out.
    pub fn same_endpoint(&mut self, id: ComponentId) -> Result<Vec<Action>, Fault> {
        let component = self.component(id)?;
        let name = component.name.clone();
        if let Some(collision) = component.collision.clone() {
            if collision.with == id {
                let component = self.component_mut(id)?;
                component.endpoints.iter_mut().for_each(|(_, entry)| residency::forget(entry));
                return Ok(component.let_in());
            }
            let mut actions = Vec::new();
            let older = self.components.get(&collision.with).filter(|older| older.is_member()).map(|older| older.id);
            let entry = self.components.get(&collision.with).and_then(|older| {
                older.endpoints.iter().find(|(_, entry)| entry.endpoint == collision.endpoint).map(|(_, entry)| entry)
            });
            let Some(entry) = entry.cloned() else {
                return Err(Fault::new(FaultCode::UnknownIdentifier, "the other endpoint is not there any more"));
            };
            if let Some(older) = older {
                actions.extend(self.dismiss(older, false, &format!("its machine came back as {name}"))?);
            }
            let component = self.component_mut(id)?;
            // It may speak for others beside it.
            match component.endpoints.iter_mut().find(|(name, _)| *name == collision.local_name) {
                Some((_, before)) => *before = entry,
                None => component.endpoints.push((collision.local_name.clone(), entry)),
            }
            actions.extend(component.let_in());
            return Ok(actions);
        }
        let likely = component.endpoints.iter().find_map(|(_, entry)| Some((entry.endpoint, entry.likely?)));
        let Some((label, known)) = likely else {
            let text = format!("{name} seems to be nobody else; `muster endpoint list` shows which ones do");
            return Err(Fault::new(FaultCode::UnknownIdentifier, text));
        };
        self.merge_endpoints(label, known)
    }

    /// An operator says that a component's endpoint is not the machine that it seems to be.
    pub fn distinct_endpoint(&mut self, id: ComponentId) -> Result<Vec<Action>, Fault> {
        let component = self.component_mut(id)?;
        if component.collision.as_ref().is_some_and(|collision| collision.with == id) {
            let text = format!(
                "{name} has the key of another machine: `muster evict {id}` puts it out, and with a new token it joins as itself",
                name = component.name
            );
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        let seems = component.collision.iter().map(|collision| collision.endpoint);
        let seems: Vec<EndpointId> =
            seems.chain(component.endpoints.iter().filter_map(|(_, entry)| entry.likely)).collect();
        if seems.is_empty() {
            let text =
                format!("{} seems to be nobody else; `muster endpoint list` shows which ones do", component.name);
            return Err(Fault::new(FaultCode::UnknownIdentifier, text));
        }
        component.distinct_from.extend(seems);
        for (_, entry) in &mut component.endpoints {
            entry.likely = None;
        }
        Ok(component.let_in())
    }

    /// What is known of one endpoint is known of another from now on; who speaks for it speaks for the other. Nothing of
    /// its history is changed, so that the two can be taken apart again.
    pub fn merge_endpoints(&mut self, from: EndpointId, into: EndpointId) -> Result<Vec<Action>, Fault> {
        let speaker = |core: &Self, label: EndpointId| {
            let speaks = |component: &&Component| component.endpoints.iter().any(|(_, entry)| entry.endpoint == label);
            core.components
                .values()
                .filter(speaks)
                .map(|component| (component.id, component.is_member()))
                .collect::<Vec<_>>()
        };
        let (of_from, of_into) = (speaker(self, from), speaker(self, into));
        let is_known = |label: EndpointId, speakers: &[_]| !speakers.is_empty() || self.aliases.contains_key(&label);
        if from == into || self.aliases.contains_key(&into) {
            return Err(Fault::new(FaultCode::Conflict, "the second is the first, or was merged into another itself"));
        }
        if !is_known(from, &of_from) || !is_known(into, &of_into) {
            return Err(Fault::new(FaultCode::TargetUnknown, "no such endpoint; `muster endpoint list` shows them"));
        }
        if of_into.iter().any(|(_, is_member)| *is_member) && of_from.iter().any(|(_, is_member)| *is_member) {
            let text = "components that are in speak for both: evict one of them first";
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        self.aliases.insert(from, into);
        // What was merged into it goes with it.
        let along: Vec<EndpointId> =
            self.aliases.iter().filter(|(_, of)| **of == from).map(|(label, _)| *label).collect();
        let mut actions = vec![Action::StoreAlias(from, Some(into))];
        for label in along {
            self.aliases.insert(label, into);
            actions.push(Action::StoreAlias(label, Some(into)));
        }
        for (id, _) in of_from {
            let component = self.component_mut(id)?;
            for (_, entry) in &mut component.endpoints {
                if entry.endpoint == from {
                    (entry.endpoint, entry.likely) = (into, None);
                }
            }
            actions.push(Action::StoreComponent(Box::new(component.clone())));
            // It learns its label by shaking hands, and so do the repositories.
            actions.push(Action::CheckHealth(id, HealthCheckAction::PingWithCapabilities));
        }
        Ok(actions)
    }

    /// Takes apart again what was merged: the endpoint has its own label and its own history. Whoever speaks for the other
    /// goes on to do so.
    pub fn split_endpoint(&mut self, label: EndpointId) -> Result<Vec<Action>, Fault> {
        if self.aliases.remove(&label).is_none() {
            let text = format!("{label} was merged into no other; `muster endpoint list` shows which ones were");
            return Err(Fault::new(FaultCode::UnknownIdentifier, text));
        }
        Ok(vec![Action::StoreAlias(label, None)])
    }

    fn component(&self, id: ComponentId) -> Result<&Component, Fault> {
        self.components
            .get(&id)
            .filter(|component| component.component_type == ComponentType::PostureCollectionService)
            .ok_or_else(|| {
                Fault::new(
                    FaultCode::UnknownComponent,
                    format!("no collector has the id {id}; `muster roster` lists them"),
                )
            })
    }

    fn component_mut(&mut self, id: ComponentId) -> Result<&mut Component, Fault> {
        self.component(id)?;
        self.components.get_mut(&id).ok_or_else(|| Fault::new(FaultCode::UnknownComponent, "no such collector"))
    }

    /// A machine whose component was put out has its label again when it joins anew, without being asked for.
    pub fn take_back(&mut self, takes_back: bool) {
        self.takes_back = takes_back;
    }

    /// Endpoints that were merged into others.
    pub fn set_aliases(&mut self, aliases: impl IntoIterator<Item = (EndpointId, EndpointId)>) {
        self.aliases = aliases.into_iter().collect();
    }

    /// The same, as repositories are told.
    pub fn aliases(&self) -> impl Iterator<Item = (EndpointId, EndpointId)> {
        self.aliases.iter().map(|(label, of)| (*label, *of))
    }

    /// An endpoint that is known says something else of itself than before.
    pub(super) fn note_changed_evidence(
        &mut self,
        sender: ComponentId,
        before: &[IdentityEvidence],
        after: &[IdentityEvidence],
        now: Timestamp,
    ) {
        let identifies = |evidence: &&IdentityEvidence| identity::IDENTIFYING.contains(&evidence.attribute.as_str());
        let is_other = before.iter().any(|evidence| identifies(&evidence))
            && after.iter().any(|evidence| identifies(&evidence))
            && identity::compare(after, before).0 != Likeness::SameInstallation;
        let Some(component) = self.components.get_mut(&sender).filter(|_| is_other) else { return };
        if !component.tells_change(now) {
            return;
        }
        let name = component.name.clone();
        let text = format!("{name} is on another machine, or on one that was installed anew: its evidence is another");
        self.noted.push(Action::Record(Box::new(Act::new(Actor::Orchestrator, "evidence-changed", sender))));
        self.noted.push(Action::Announce { code: "security.identity-changed", text });
    }
}

fn remember(instances: &mut VecDeque<Uuid>, instance: Uuid) {
    instances.push_back(instance);
    if instances.len() > INSTANCES_MAX {
        instances.pop_front();
    }
}

impl Component {
    /// Whether it is said that its identity has changed: once an hour, however often it does.
    fn tells_change(&mut self, now: Timestamp) -> bool {
        let is_due = self.change_told.is_none_or(|told| now.duration_since(told).as_secs() >= CHANGE_TOLD_SECONDS);
        if is_due {
            self.change_told = Some(now);
        }
        is_due
    }

    /// Out of quarantine: it shakes hands, and is in.
    fn let_in(&mut self) -> Vec<Action> {
        self.collision = None;
        if self.state == ComponentState::Quarantined {
            self.state = ComponentState::Registered;
        }
        vec![
            Action::StoreComponent(Box::new(self.clone())),
            Action::CheckHealth(self.id, HealthCheckAction::PingWithCapabilities),
        ]
    }

    /// Since when it has been known: ids are in the order of their making.
    pub fn since(&self) -> Option<Timestamp> {
        let (seconds, nanoseconds) = self.id.0.get_timestamp()?.to_unix();
        Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proto::capability::Capability;
    use proto::message::CapabilityAdvertisement;

    use super::*;
    use crate::core::RandomIds;
    use crate::core::admission::Joining;

    const PCS: ComponentType = ComponentType::PostureCollectionService;

    struct Roster {
        core: Core,
        keys: u8,
    }

    impl Roster {
        fn new() -> Self {
            Self { core: Core::new(Box::new(RandomIds), Vec::new(), Vec::new(), Timestamp::UNIX_EPOCH), keys: 0 }
        }

        fn join(&mut self, name: &str) -> ComponentId {
            self.keys += 1;
            let public_key = [self.keys; 32];
            let joining =
                Joining { component_type: PCS, name, public_key, token: "t", labels: &[], needs_approval: false };
            self.core.join(joining, Timestamp::UNIX_EPOCH).0.unwrap()
        }

        /// Shakes hands with this evidence, and says what came of it.
        fn shake(&mut self, id: ComponentId, evidence: &[(&str, &str)]) -> Result<EndpointId, FaultCode> {
            self.shake_as(id, None, evidence)
        }

        fn shake_as(
            &mut self,
            id: ComponentId,
            instance: Option<Uuid>,
            evidence: &[(&str, &str)],
        ) -> Result<EndpointId, FaultCode> {
            let evidence = evidence.iter().filter_map(|(attribute, value)| IdentityEvidence::new(attribute, value));
            let endpoint = AdvertisedEndpoint {
                local_name: "self".to_owned(),
                evidence: evidence.collect(),
                ..AdvertisedEndpoint::default()
            };
            let advertisement = CapabilityAdvertisement {
                capabilities: Capability::all_of(PCS),
                endpoints: vec![endpoint],
                instance,
                ..CapabilityAdvertisement::default()
            };
            match self.core.advertise(id, &advertisement, Timestamp::UNIX_EPOCH) {
                Ok((Ok(response), _)) => Ok(response.endpoints[0].endpoint),
                Ok((Err(fault), _)) | Err(fault) => Err(fault.code),
            }
        }

        fn state(&self, id: ComponentId) -> ComponentState {
            self.core.components[&id].state
        }
    }

    const MACHINE: &[(&str, &str)] = &[("machine-id", "aaaa1"), ("system-uuid", "uuuu1")];
    const REIMAGED: &[(&str, &str)] = &[("machine-id", "bbbb2"), ("system-uuid", "uuuu1")];

    #[test]
    fn a_copy_of_a_machine_waits_until_an_operator_has_decided_and_nothing_is_taken_over() {
        let mut roster = Roster::new();
        let (first, copy) = (roster.join("first"), roster.join("copy"));
        let label = roster.shake(first, MACHINE).unwrap();
        assert_eq!(roster.shake(copy, MACHINE), Err(FaultCode::Conflict));
        assert_eq!((roster.state(first), roster.state(copy)), (ComponentState::Active, ComponentState::Quarantined));
        // It may ask as often as it likes, and says nothing meanwhile.
        assert_eq!(roster.shake(copy, MACHINE), Err(FaultCode::Conflict));
        assert!(roster.core.components[&copy].capabilities.is_empty());
        assert_eq!(roster.shake(first, MACHINE), Ok(label));
        // Another machine after all.
        roster.core.distinct_endpoint(copy).unwrap();
        let own = roster.shake(copy, MACHINE).unwrap();
        assert_ne!(own, label);
        assert_eq!(roster.state(copy), ComponentState::Active);
        assert_eq!(roster.shake(first, MACHINE), Ok(label));
    }

    #[test]
    fn a_machine_that_came_back_with_another_key_has_its_label_by_an_operators_word() {
        let mut roster = Roster::new();
        let (before, after) = (roster.join("before"), roster.join("after"));
        let label = roster.shake(before, MACHINE).unwrap();
        assert_eq!(roster.shake(after, MACHINE), Err(FaultCode::Conflict));
        roster.core.same_endpoint(after).unwrap();
        assert_eq!(roster.state(before), ComponentState::Evicted);
        assert_eq!(roster.shake(after, MACHINE), Ok(label));
        assert_eq!(roster.shake(before, MACHINE), Err(FaultCode::Revoked));
    }

    #[test]
    fn a_machine_that_was_installed_anew_is_known_by_its_hardware_and_joined_with_its_past_when_told() {
        let mut roster = Roster::new();
        let before = roster.join("before");
        let label = roster.shake(before, MACHINE).unwrap();
        roster.core.dismiss(before, false, "to be installed anew").unwrap();
        let after = roster.join("after");
        // It is not kept waiting: it has a label of its own until somebody says what it is.
        let own = roster.shake(after, REIMAGED).unwrap();
        assert_ne!(own, label);
        assert_eq!(roster.core.components[&after].endpoints[0].1.likely, Some(label));
        roster.core.same_endpoint(after).unwrap();
        assert_eq!(roster.shake(after, REIMAGED), Ok(label));
        assert_eq!(roster.core.aliases().collect::<Vec<_>>(), [(own, label)]);
        roster.core.split_endpoint(own).unwrap();
        assert_eq!(roster.core.aliases().count(), 0);
        assert_eq!(roster.core.split_endpoint(own).unwrap_err().code, FaultCode::UnknownIdentifier);
        // Two machines on one piece of hardware, such as containers, are no copies of each other.
        let beside = roster.join("beside");
        assert!(roster.shake(beside, &[("machine-id", "cccc3"), ("system-uuid", "uuuu1")]).is_ok());
        assert_eq!(roster.state(beside), ComponentState::Active);
    }

    #[test]
    fn by_policy_a_machine_whose_component_was_put_out_has_its_label_at_once() {
        let mut roster = Roster::new();
        roster.core.take_back(true);
        let before = roster.join("before");
        let label = roster.shake(before, MACHINE).unwrap();
        let meanwhile = roster.join("meanwhile");
        // Not while it is in.
        assert_eq!(roster.shake(meanwhile, MACHINE), Err(FaultCode::Conflict));
        roster.core.dismiss(before, false, "").unwrap();
        let after = roster.join("after");
        assert_eq!(roster.shake(after, REIMAGED), Ok(label));
    }

    #[test]
    fn by_policy_a_label_is_given_to_one_machine() {
        let mut roster = Roster::new();
        roster.core.take_back(true);
        let before = roster.join("before");
        let label = roster.shake(before, MACHINE).unwrap();
        roster.core.dismiss(before, false, "").unwrap();
        let after = roster.join("after");
        assert_eq!(roster.shake(after, REIMAGED), Ok(label));
        // Another one that looks like the first does not get what that one has.
        let third = roster.join("third");
        assert_ne!(roster.shake(third, &[("machine-id", "aaaa1")]).unwrap(), label);
        assert_eq!(roster.core.components[&third].endpoints[0].1.likely, Some(label));
    }

    #[test]
    fn who_says_that_it_is_another_one_after_all_waits_and_keeps_what_it_had() {
        let mut roster = Roster::new();
        let (victim, liar) = (roster.join("victim"), roster.join("liar"));
        let label = roster.shake(victim, MACHINE).unwrap();
        let own = roster.shake(liar, &[("machine-id", "bbbb2")]).unwrap();
        assert_eq!(roster.shake(liar, MACHINE), Err(FaultCode::Conflict));
        assert_eq!(roster.state(liar), ComponentState::Quarantined);
        assert_eq!(roster.shake(victim, MACHINE), Ok(label));
        // Whatever it says then: it does not let itself out.
        assert_eq!(roster.shake(liar, &[("machine-id", "bbbb2")]), Err(FaultCode::Conflict));
        let nothing = CapabilityAdvertisement { capabilities: Capability::all_of(PCS), ..Default::default() };
        let told = roster.core.advertise(liar, &nothing, Timestamp::UNIX_EPOCH);
        assert_eq!(told.unwrap_err().code, FaultCode::Conflict);
        assert_eq!(roster.core.components[&liar].endpoints[0].1.endpoint, own);
        roster.core.distinct_endpoint(liar).unwrap();
        assert_eq!(roster.shake(liar, &[("machine-id", "bbbb2")]), Ok(own));
    }

    #[test]
    fn evidence_that_changes_all_the_time_is_told_of_once_and_more_than_a_machine_has_is_not_looked_at() {
        let mut roster = Roster::new();
        let id = roster.join("restless");
        let mut told = 0;
        for round in 0..20 {
            let value = format!("aaaa{}", round % 2);
            let endpoint = AdvertisedEndpoint {
                local_name: "self".to_owned(),
                evidence: IdentityEvidence::new("machine-id", &value).into_iter().collect(),
                ..AdvertisedEndpoint::default()
            };
            let advertisement = CapabilityAdvertisement {
                capabilities: Capability::all_of(PCS),
                endpoints: vec![endpoint],
                ..CapabilityAdvertisement::default()
            };
            let (_, actions) = roster.core.advertise(id, &advertisement, Timestamp::UNIX_EPOCH).unwrap();
            let is_told =
                |action: &&Action| matches!(action, Action::Announce { code: "security.identity-changed", .. });
            told += actions.iter().filter(is_told).count();
        }
        assert_eq!(told, 1);
        // Who names the host keys of half a network keeps a few of them.
        let keys: Vec<String> = (0..60).map(|number| format!("SHA256:{number}")).collect();
        let keys: Vec<(&str, &str)> = keys.iter().map(|key| ("ssh-host-key", key.as_str())).collect();
        roster.shake(id, &keys).unwrap();
        assert_eq!(roster.core.components[&id].endpoints[0].1.evidence.len(), 4);
    }

    #[test]
    fn of_two_processes_with_one_key_the_younger_is_turned_away() {
        let mut roster = Roster::new();
        let id = roster.join("machine");
        let [first, copy, restarted] = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
        let label = roster.shake_as(id, Some(first), MACHINE).unwrap();
        // A restart looks like this, too: nothing is said yet.
        assert_eq!(roster.shake_as(id, Some(copy), MACHINE), Ok(label));
        // But after a restart the process before is not heard again.
        assert_eq!(roster.shake_as(id, Some(first), MACHINE), Ok(label));
        assert_eq!(roster.shake_as(id, Some(copy), MACHINE), Err(FaultCode::Duplicate));
        assert_eq!(roster.shake_as(id, Some(first), MACHINE), Ok(label));
        assert_eq!(roster.shake_as(id, Some(restarted), MACHINE), Ok(label));
        assert_eq!(roster.state(id), ComponentState::Active);
    }

    #[test]
    fn endpoints_are_merged_only_where_nobody_loses_what_is_its_own() {
        let mut roster = Roster::new();
        let (one, other) = (roster.join("one"), roster.join("other"));
        let first = roster.shake(one, &[("machine-id", "aaaa1")]).unwrap();
        let second = roster.shake(other, &[("machine-id", "bbbb2")]).unwrap();
        let code = |outcome: Result<Vec<Action>, Fault>| outcome.unwrap_err().code;
        assert_eq!(code(roster.core.merge_endpoints(first, second)), FaultCode::Conflict);
        assert_eq!(code(roster.core.merge_endpoints(first, first)), FaultCode::Conflict);
        let nobody = EndpointId(Uuid::new_v4());
        assert_eq!(code(roster.core.merge_endpoints(first, nobody)), FaultCode::TargetUnknown);
        roster.core.dismiss(other, false, "").unwrap();
        roster.core.merge_endpoints(second, first).unwrap();
        assert_eq!(roster.core.aliases().collect::<Vec<_>>(), [(second, first)]);
        // What was merged is no place to merge into.
        assert_eq!(code(roster.core.merge_endpoints(first, second)), FaultCode::Conflict);
    }
}
