//! Which endpoint is which, over time: a label stays with a machine, a copy of a machine does not get in beside it, and
//! what an operator decides of two of them is kept.

use std::collections::VecDeque;

use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::identity::{self, IdentityEvidence, Likeness};
use proto::limits::shown;
use proto::message::{AdvertisedEndpoint, HealthCheckAction};
use proto::operator::ComponentState;
use serde::{Deserialize, Serialize};
use service::audit::{Act, Actor};
use uuid::Uuid;

use super::roster::Component;
use super::{Action, Core};

/// Pieces of evidence of one endpoint that are kept.
const EVIDENCE_MAX: usize = 64;
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

/// Whether the component that spoke for an endpoint was put out.
struct IsGone(bool);

/// An endpoint like one that is advertised.
struct Alike {
    likeness: Likeness,
    endpoint: EndpointId,
    component: ComponentId,
    is_member: bool,
    shared: String,
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
    evidence
}

impl Core {
    /// Endpoints of other components that an advertised one is like, the likest first.
    fn alike(&self, sender: ComponentId, evidence: &[IdentityEvidence]) -> Option<Alike> {
        let distinct = self.components.get(&sender).map(|component| component.distinct_from.as_slice());
        let is_distinct = |endpoint: &EndpointId| distinct.is_some_and(|distinct| distinct.contains(endpoint));
        let mut best: Option<Alike> = None;
        for component in self.components.values().filter(|component| component.id != sender) {
            for (_, entry) in component.endpoints.iter().filter(|(_, entry)| !is_distinct(&entry.endpoint)) {
                let (likeness, shared) = identity::compare(evidence, &entry.evidence);
                let rank = |likeness: Likeness, is_member: bool| (likeness as u8, is_member);
                let is_better = best
                    .as_ref()
                    .is_none_or(|best| rank(likeness, component.is_member()) > rank(best.likeness, best.is_member));
                if likeness == Likeness::Other || !is_better {
                    continue;
                }
                let words: Vec<String> =
                    shared.iter().map(|evidence| format!("{} {}", evidence.attribute, evidence.value)).collect();
                best = Some(Alike {
                    likeness,
                    endpoint: entry.endpoint,
                    component: component.id,
                    is_member: component.is_member(),
                    shared: shown(&words.join(", ")),
                });
            }
        }
        best
    }

    /// The endpoint that a new one is likely to be, where an operator may want to say so: a machine that was installed
    /// anew, or whose component was put out. An error where it collides with a component that is in: the younger of the
    /// two waits until an operator has decided.
    fn likely(
        &self,
        sender: ComponentId,
        endpoint: &AdvertisedEndpoint,
    ) -> Result<Option<(EndpointId, IsGone)>, Collision> {
        let Some(alike) = self.alike(sender, &evidence_of(endpoint)) else { return Ok(None) };
        let Alike { likeness, endpoint: known, component, is_member, shared } = alike;
        if is_member && likeness == Likeness::SameInstallation {
            return Err(Collision {
                endpoint: known,
                with: component,
                shared,
                local_name: endpoint.local_name.clone(),
            });
        }
        Ok(Some((known, IsGone(!is_member))))
    }

    /// The label of a new endpoint, and the one that it is likely to be. Where the installation's policy says so, a machine
    /// whose component was put out has its old label at once.
    pub(super) fn label_of(
        &mut self,
        sender: ComponentId,
        endpoint: &AdvertisedEndpoint,
    ) -> Result<(EndpointId, Option<EndpointId>), Collision> {
        match self.likely(sender, endpoint)? {
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

    /// Puts the younger of two into quarantine.
    pub(super) fn quarantine(&mut self, sender: ComponentId, collision: Collision) -> (Fault, Vec<Action>) {
        let older = self.components.get(&collision.with).map(|component| component.name.clone()).unwrap_or_default();
        let text = format!(
            "this machine seems to be that of {older}, which is in ({}): an operator has to decide, `muster endpoint same \
             {sender}` or `muster endpoint distinct {sender}`",
            collision.shared
        );
        let fault = Fault::new(FaultCode::Conflict, text);
        let Some(component) = self.components.get_mut(&sender) else { return (fault, Vec::new()) };
        if component.state == ComponentState::Quarantined && component.collision.as_ref() == Some(&collision) {
            return (fault, Vec::new());
        }
        let detail = format!("shares {} with {older}", collision.shared);
        component.state = ComponentState::Quarantined;
        component.capabilities.clear();
        component.endpoints.clear();
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
    pub(super) fn instance(&mut self, sender: ComponentId, instance: Option<Uuid>) -> Result<(), Fault> {
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
            component.endpoints = vec![(collision.local_name.clone(), entry)];
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
        now: &[IdentityEvidence],
    ) {
        let identifies = |evidence: &&IdentityEvidence| identity::IDENTIFYING.contains(&evidence.attribute.as_str());
        let is_other = before.iter().any(|evidence| identifies(&evidence))
            && now.iter().any(|evidence| identifies(&evidence))
            && identity::compare(now, before).0 != Likeness::SameInstallation;
        if !is_other {
            return;
        }
        let name = self.components.get(&sender).map(|component| component.name.clone()).unwrap_or_default();
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
    use proto::observation::EndpointFacts;

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
                facts: EndpointFacts::default(),
                evidence: evidence.collect(),
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
