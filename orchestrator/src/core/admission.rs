//! Who gets in, who stays in, and who is put out: joining, approval, certificates, eviction and bans.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::limits::shown;
use proto::message::{AdvertisedEndpoint, HealthCheckAction};
use proto::operator::ComponentState;

use super::roster::{Component, Validity};
use super::{Action, Core};

/// Days after the end of its certificate in which a component may come back with its key alone.
pub const RETURN_DAYS_MAX: i64 = 90;

/// Certificates that a component gets within half of the life of one: an answer may be lost, more than once.
pub const CERTIFICATES_MAX: usize = 5;

/// Components that are told of a new CA at a time, twice a second: ten thousand learn it within some minutes.
const TOLD_AT_ONCE: usize = 25;
/// Seconds after which one that still does not know it is told again.
const TOLD_AGAIN_SECONDS: i64 = 60;

/// A component that wants to join, after its token was checked.
#[derive(Debug, Clone, Copy)]
pub struct Joining<'request> {
    /// What it is.
    pub component_type: ComponentType,
    /// What its operator calls it.
    pub name: &'request str,
    /// Its key, which it has shown that it holds.
    pub public_key: [u8; 32],
    /// Its token.
    pub token: &'request str,
    /// What the token says of those who come with it.
    pub labels: &'request [String],
    /// Whether an operator has to approve.
    pub needs_approval: bool,
}

impl Component {
    /// An error for one that waits, or was put out.
    pub(super) fn not_out(&self) -> Result<(), Fault> {
        self.not_dismissed().and_then(|()| self.not_pending())
    }

    /// An error for one that was put out.
    fn not_dismissed(&self) -> Result<(), Fault> {
        let why = self.dismissal.as_deref().unwrap_or("no reason was given");
        match self.state {
            ComponentState::Evicted => Err(Fault::new(
                FaultCode::Revoked,
                format!("an operator evicted this component ({why}); it may join again with a new token"),
            )),
            ComponentState::Banned => {
                Err(Fault::new(FaultCode::Banned, format!("an operator banned this component ({why})")))
            }
            _ => Ok(()),
        }
    }

    fn not_pending(&self) -> Result<(), Fault> {
        if self.state != ComponentState::Pending {
            return Ok(());
        }
        Err(Fault::new(
            FaultCode::PendingApproval,
            format!("an operator has to approve first: `muster approve {}`", self.id),
        ))
    }

    /// Says once that the certificate is near its end: it should have been renewed at half its life.
    pub(super) fn watch_certificate(&mut self, now: Timestamp) -> Option<Action> {
        let Validity { from, until, .. } = self.certificate.clone().filter(|_| self.is_member())?;
        let is_ending = now < until && until.duration_since(now) < until.duration_since(from) / 4;
        if !is_ending || std::mem::replace(&mut self.is_ending_told, is_ending) {
            return None;
        }
        let text = format!("{} has not renewed its certificate, which ends {until:.0}", self.name);
        Some(Action::Announce { code: "security.certificate-ending", text })
    }
}

impl Core {
    /// Registers a key: a new one gets an id, a known one its own again, so that a lost answer can be asked for again.
    pub fn join(&mut self, joining: Joining<'_>, now: Timestamp) -> (Result<ComponentId, Fault>, Vec<Action>) {
        if let Some(known) = self.components.values().find(|component| component.public_key == joining.public_key) {
            let is_of_type = known.component_type == joining.component_type;
            let other = Fault::new(FaultCode::NotAuthorized, "the key belongs to a component of another type");
            let outcome = known.not_out().and(if is_of_type { Ok(known.id) } else { Err(other) });
            return (outcome, Vec::new());
        }
        let component = Component {
            id: ComponentId(self.ids.next()),
            component_type: joining.component_type,
            name: shown(joining.name),
            public_key: joining.public_key,
            state: if joining.needs_approval { ComponentState::Pending } else { ComponentState::Registered },
            capabilities: Vec::new(),
            endpoints: Vec::new(),
            software_version: None,
            labels: joining.labels.to_vec(),
            token: Some(joining.token.to_owned()),
            certificate: None,
            trusted_cas: Vec::new(),
            trust_told: None,
            collision: None,
            distinct_from: Vec::new(),
            instances: VecDeque::new(),
            refused_instances: VecDeque::new(),
            challenge: None,
            change_told: None,
            dismissal: None,
            paused_until: None,
            heard: Some(now),
            heartbeat_seconds: None,
            bound_count: 0,
            is_ending_told: false,
            store: None,
            said: Some(now),
            is_lapsed: false,
            issued: VecDeque::new(),
        };
        let mut actions = vec![Action::StoreComponent(Box::new(component.clone()))];
        if joining.needs_approval {
            let text = format!("{} wants to join: `muster approve {}`", component.name, component.id);
            actions.push(Action::Announce { code: "security.pending-approval", text });
        } else {
            actions.push(Action::UseToken(joining.token.to_owned()));
        }
        let outcome = component.not_pending().map(|()| component.id);
        self.components.insert(component.id, component);
        (outcome, actions)
    }

    /// How many components with this token wait for approval.
    pub fn pending_with(&self, token: &str) -> u32 {
        let is_waiting = |component: &&Component| {
            component.state == ComponentState::Pending && component.token.as_deref() == Some(token)
        };
        u32::try_from(self.components.values().filter(is_waiting).count()).unwrap_or(u32::MAX)
    }

    /// A component asks for its place again, or for a fresh certificate: with its certificate, or after that has
    /// run out with its key alone. `claimed` is the id in its request, `key` the one in its signing request.
    pub fn come_back(
        &self,
        sender: ComponentId,
        claimed: Option<ComponentId>,
        key: [u8; 32],
        now: Timestamp,
    ) -> Result<&Component, Fault> {
        if claimed.is_some_and(|claimed| claimed != sender) {
            return Err(Fault::new(FaultCode::NotAuthorized, "the id belongs to another component"));
        }
        // One answer for an unknown id and for another key: a stranger learns nothing about which ids exist.
        let component =
            self.components.get(&sender).filter(|component| component.public_key == key).ok_or_else(|| {
                Fault::new(
                    FaultCode::UnknownComponent,
                    "this key was never registered here with this id: join with a token",
                )
            })?;
        component.not_out()?;
        let patience = SignedDuration::from_hours(24 * RETURN_DAYS_MAX);
        let ended = component.certificate.as_ref().map(|certificate| certificate.until);
        if ended.is_some_and(|ended| now.duration_since(ended) > patience) {
            return Err(Fault::new(
                FaultCode::Revoked,
                format!("the certificate ended more than {RETURN_DAYS_MAX} days ago; join again with a new token"),
            ));
        }
        Ok(component)
    }

    /// An error for a component that has got certificate after certificate of late: each is signed, stored and
    /// written down, and one at half of its life is enough.
    pub fn may_have_certificate(&self, id: ComponentId, now: Timestamp) -> Result<(), Fault> {
        let Some(component) = self.components.get(&id) else { return Ok(()) };
        let (Some(Validity { from, until, .. }), CERTIFICATES_MAX..) = (&component.certificate, component.issued.len())
        else {
            return Ok(());
        };
        let is_of_late = |at: &Timestamp| now.duration_since(*at) < until.duration_since(*from) / 2;
        if component.issued.front().is_some_and(is_of_late) {
            let text = format!("the component got {CERTIFICATES_MAX} certificates within half of their life");
            return Err(Fault::new(FaultCode::Busy, text));
        }
        Ok(())
    }

    /// A certificate was made for a component.
    pub fn certified(&mut self, id: ComponentId, certificate: Validity) -> Vec<Action> {
        let Some(component) = self.components.get_mut(&id) else { return Vec::new() };
        component.issued.push_back(certificate.from);
        component.certificate = Some(certificate);
        component.is_ending_told = false;
        if component.issued.len() > CERTIFICATES_MAX {
            component.issued.pop_front();
        }
        vec![Action::StoreComponent(Box::new(component.clone()))]
    }

    /// Whether a component may be connected.
    pub fn is_admitted(&self, id: ComponentId, component_type: ComponentType) -> bool {
        let is_of_type = |component: &Component| component.component_type == component_type;
        self.components.get(&id).is_some_and(|component| component.is_member() && is_of_type(component))
    }

    pub(super) fn named(&mut self, id: ComponentId) -> Result<&mut Component, Fault> {
        self.components.get_mut(&id).ok_or_else(|| {
            Fault::new(FaultCode::UnknownComponent, format!("no component has the id {id}; `muster roster` lists them"))
        })
    }

    /// Lets a component in that waits.
    pub fn approve(&mut self, id: ComponentId) -> Result<Vec<Action>, Fault> {
        let component = self.named(id)?;
        if component.state != ComponentState::Pending {
            let text = format!("{} is {}: nobody waits for an approval", component.name, component.state.as_str());
            return Err(Fault::new(FaultCode::TargetUnknown, text));
        }
        component.state = ComponentState::Registered;
        let announce = Action::Announce { code: "security.approved", text: format!("{} may join", component.name) };
        let token = component.token.clone().map(Action::UseToken);
        let store = Action::StoreComponent(Box::new(component.clone()));
        Ok([store].into_iter().chain(token).chain([announce]).collect())
    }

    /// Puts a component out: with its certificate it gets in no more. Evicted, it may join again; banned, neither it
    /// nor another component on its endpoints may.
    pub fn dismiss(&mut self, id: ComponentId, is_ban: bool, reason: &str) -> Result<Vec<Action>, Fault> {
        let component = self.named(id)?;
        if component.state == ComponentState::Banned && !is_ban {
            let text =
                format!("{} is banned, which is more; `muster ban --lift {id}` makes it evicted", component.name);
            return Err(Fault::new(FaultCode::TargetUnknown, text));
        }
        component.state = if is_ban { ComponentState::Banned } else { ComponentState::Evicted };
        component.dismissal = Some(shown(reason)).filter(|reason| !reason.is_empty());
        component.capabilities.clear();
        let code = if is_ban { "security.banned" } else { "security.evicted" };
        let why = component.dismissal.as_deref().unwrap_or("no reason was given");
        let announce =
            Action::Announce { code, text: format!("{} was {}: {why}", component.name, component.state.as_str()) };
        Ok(vec![Action::StoreComponent(Box::new(component.clone())), Action::Kick(id), announce])
    }

    /// Makes an evicted component of a banned one: it may join again with a new token.
    pub fn lift_ban(&mut self, id: ComponentId) -> Result<Vec<Action>, Fault> {
        let component = self.named(id)?;
        if component.state != ComponentState::Banned {
            let text = format!("{} is {}: there is no ban to lift", component.name, component.state.as_str());
            return Err(Fault::new(FaultCode::TargetUnknown, text));
        }
        component.state = ComponentState::Evicted;
        Ok(vec![Action::StoreComponent(Box::new(component.clone()))])
    }

    /// An error for an endpoint that a banned component spoke for: a new key does not make it another machine.
    pub(super) fn not_banned(&self, sender: ComponentId, endpoint: &AdvertisedEndpoint) -> Result<(), Fault> {
        let Some(machine) = &endpoint.facts.machine_id else { return Ok(()) };
        // Who has said so all along is not put out by what another one says of itself.
        let is_own = |component: &Component| {
            component.endpoints.iter().any(|(_, entry)| entry.facts.machine_id.as_ref() == Some(machine))
        };
        if self.components.get(&sender).is_some_and(is_own) {
            return Ok(());
        }
        let banned = self.components.values().find(|component| {
            component.state == ComponentState::Banned
                // The first is the one that it is on; of the others it only says that it speaks for them.
                && component.endpoints.first().is_some_and(|(_, entry)| entry.facts.machine_id.as_ref() == Some(machine))
        });
        banned.map_or(Ok(()), |component| {
            Err(Fault::new(
                FaultCode::Banned,
                format!("this endpoint's machine-id is that of {}, which an operator banned", component.name),
            ))
        })
    }
}

impl Core {
    /// These CAs are to be trusted from now on, by their fingerprints.
    pub fn set_trusted(&mut self, cas: Vec<String>) {
        self.trusted_cas = cas;
        for component in self.components.values_mut() {
            component.trust_told = None;
        }
    }

    /// Whether every component that is there, and says which CAs it knows, knows this one.
    pub fn is_known_to_all(&self, ca: &str) -> bool {
        self.unaware_of(ca).next().is_none()
    }

    /// The names of those that do not.
    pub fn unaware_of(&self, ca: &str) -> impl Iterator<Item = &str> {
        let is_there = |component: &&Component| component.is_member() && component.state == ComponentState::Active;
        let is_unaware = move |component: &&Component| {
            !component.trusted_cas.is_empty() && !component.trusted_cas.iter().any(|known| known == ca)
        };
        self.components.values().filter(is_there).filter(is_unaware).map(|component| component.name.as_str())
    }

    /// Asks components that know other CAs to shake hands again, some at a time: the answer names those that there are.
    pub(super) fn tell_cas(&mut self, now: Timestamp) -> Vec<Action> {
        let is_due = |component: &Component| {
            component.state == ComponentState::Active
                && !component.trusted_cas.is_empty()
                && component.trust_told.is_none_or(|told| now.duration_since(told).as_secs() >= TOLD_AGAIN_SECONDS)
        };
        let trusted = &self.trusted_cas;
        let behind = self
            .components
            .values_mut()
            .filter(|component| !trusted.is_empty() && component.trusted_cas != *trusted && is_due(component));
        let tell = |component: &mut Component| {
            component.trust_told = Some(now);
            Action::CheckHealth(component.id, HealthCheckAction::PingWithCapabilities)
        };
        behind.take(TOLD_AT_ONCE).map(tell).collect()
    }
}

#[cfg(test)]
mod tests {
    use proto::capability::Capability;
    use proto::message::CapabilityAdvertisement;

    use super::*;
    use crate::core::RandomIds;

    #[test]
    fn a_handshake_that_comes_after_its_senders_eviction_lets_nobody_in() {
        let now = Timestamp::UNIX_EPOCH;
        let mut core = Core::new(Box::new(RandomIds), Vec::new(), Vec::new(), now);
        let component_type = ComponentType::PostureCollectionService;
        let joining =
            Joining { component_type, name: "c", public_key: [7; 32], token: "t", labels: &[], needs_approval: false };
        let id = core.join(joining, now).0.unwrap();
        let advertisement = CapabilityAdvertisement {
            capabilities: Capability::all_of(component_type),
            endpoints: Vec::new(),
            software_version: "test".to_owned(),
            ..CapabilityAdvertisement::default()
        };
        core.advertise(id, &advertisement, now).unwrap().0.unwrap();
        assert!(core.is_admitted(id, component_type));
        core.dismiss(id, false, "sold").unwrap();
        assert_eq!(core.advertise(id, &advertisement, now).unwrap_err().code, FaultCode::Revoked);
        assert!(!core.is_admitted(id, component_type));
    }
}
