//! Residency: a collector whose endpoint has shown a TPM's key goes on showing it. A copy of its disk in another machine
//! cannot, whenever it runs, and waits for an operator.

use jiff::{SignedDuration, Timestamp};
use proto::id::ComponentId;
use proto::identity::TPM_KEY;
use proto::limits::shown;
use proto::message::AdvertisedEndpoint;
use proto::operator::{ComponentState, EndpointEntry};
use uuid::Uuid;

use super::Core;
use super::identity::Collision;
use super::roster::Component;

/// How long a challenge can be answered.
const CHALLENGE_SECONDS: i64 = 60;

/// What the orchestrator has asked a component's TPMs to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    id: Uuid,
    pub(super) until: Timestamp,
}

impl Core {
    /// The endpoints with the evidence that their TPMs have proven, and without what was only said; or a new challenge for
    /// those that have something to prove and have not.
    pub(super) fn proven(
        &mut self,
        sender: ComponentId,
        endpoints: &[AdvertisedEndpoint],
        now: Timestamp,
    ) -> Result<Vec<AdvertisedEndpoint>, Uuid> {
        let Some(component) = self.components.get_mut(&sender) else { return Ok(endpoints.to_vec()) };
        // It can be answered once.
        let asked = component.challenge.take().filter(|challenge| now < challenge.until);
        let mut proven = endpoints.to_vec();
        for endpoint in &mut proven {
            // As it is compared afterwards: what cannot be shown is left out of a name.
            endpoint.evidence.retain(|evidence| shown(&evidence.attribute) != TPM_KEY);
            let Some(residency) = &endpoint.residency else { continue };
            let evidence = asked.and_then(|asked| residency.evidence(sender, &endpoint.local_name, asked.id));
            let Some(evidence) = evidence else {
                let until = now.saturating_add(SignedDuration::from_secs(CHALLENGE_SECONDS)).unwrap_or(now);
                let id = self.ids.next();
                component.challenge = Some(Challenge { id, until });
                // Nothing is granted before the answer, and what was granted before is not any more.
                component.capabilities.clear();
                component.state = ComponentState::Registered;
                return Err(id);
            };
            endpoint.evidence.insert(0, evidence);
        }
        Ok(proven)
    }
}

/// An endpoint of a component that was on a machine with a TPM is on one that has none, or another, or is not spoken of.
pub(super) fn left(component: &Component, endpoints: &[AdvertisedEndpoint]) -> Option<Collision> {
    component.endpoints.iter().find_map(|(local_name, known)| {
        let key = known.evidence.iter().find(|evidence| evidence.attribute == TPM_KEY)?;
        let advertised = endpoints.iter().find(|endpoint| endpoint.local_name == *local_name);
        let is_there = advertised.is_some_and(|endpoint| endpoint.evidence.contains(key));
        (!is_there).then(|| Collision {
            endpoint: known.endpoint,
            with: component.id,
            shared: format!("no {TPM_KEY} {} any more", key.value),
            local_name: local_name.clone(),
        })
    })
}

impl Component {
    /// Whether one of its endpoints has shown a TPM: it is in once it has shown it again.
    pub fn is_resident(&self) -> bool {
        let evidence = self.endpoints.iter().flat_map(|(_, entry)| &entry.evidence);
        evidence.into_iter().any(|evidence| evidence.attribute == TPM_KEY)
    }
}

/// What an endpoint says of its TPM is not asked for again until it says it again.
pub(super) fn forget(entry: &mut EndpointEntry) {
    entry.evidence.retain(|evidence| evidence.attribute != TPM_KEY);
}

#[cfg(test)]
mod tests {
    use proto::capability::{Capability, ComponentType};
    use proto::fault::{Fault, FaultCode};
    use proto::identity::{IdentityEvidence, MACHINE_ID};
    use proto::message::{CapabilityAdvertisement, CapabilityAdvertisementResponse};
    use proto::operator::ComponentState;
    use proto::residency::{Residency, statement};
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;
    use crate::core::RandomIds;
    use crate::core::admission::Joining;

    const PCS: ComponentType = ComponentType::PostureCollectionService;
    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    struct Tpm(EcdsaKeyPair, SystemRandom);

    impl Tpm {
        fn new() -> Self {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
            Self(key, random)
        }

        fn unproven(&self) -> Residency {
            Residency::unproven(self.0.public_key().as_ref().try_into().unwrap())
        }

        fn answer(&self, component: ComponentId, challenge: Uuid) -> Residency {
            let signature = self.0.sign(&self.1, &statement(component, "self", challenge)).unwrap();
            self.unproven().proven(challenge, signature.as_ref().try_into().unwrap())
        }
    }

    fn core() -> Core {
        Core::new(Box::new(RandomIds), Vec::new(), Vec::new(), NOW)
    }

    fn join(core: &mut Core, number: u8) -> ComponentId {
        let joining = Joining {
            component_type: PCS,
            name: "machine",
            public_key: [number; 32],
            token: "t",
            labels: &[],
            needs_approval: false,
        };
        core.join(joining, NOW).0.unwrap()
    }

    fn shake(
        core: &mut Core,
        id: ComponentId,
        residency: Option<Residency>,
        now: Timestamp,
    ) -> Result<CapabilityAdvertisementResponse, Fault> {
        let evidence = [(MACHINE_ID, format!("machine of {id}")), (TPM_KEY, "SHA256:said".to_owned())];
        let endpoint = AdvertisedEndpoint {
            local_name: "self".to_owned(),
            evidence: evidence.iter().filter_map(|(name, value)| IdentityEvidence::new(name, value)).collect(),
            residency,
            ..AdvertisedEndpoint::default()
        };
        let advertisement = CapabilityAdvertisement {
            capabilities: Capability::all_of(PCS),
            endpoints: vec![endpoint],
            ..CapabilityAdvertisement::default()
        };
        core.advertise(id, &advertisement, now)?.0
    }

    fn keys(core: &Core, id: ComponentId) -> Vec<String> {
        let evidence = core.components[&id].endpoints.iter().flat_map(|(_, entry)| &entry.evidence);
        evidence.filter(|one| one.attribute == TPM_KEY).map(|one| one.value.clone()).collect()
    }

    #[test]
    fn what_is_said_of_a_tpm_counts_for_nothing_until_the_tpm_has_answered() {
        let mut core = core();
        let (id, tpm) = (join(&mut core, 1), Tpm::new());
        let other = join(&mut core, 2);
        // Without a TPM all goes on as before, and a fingerprint that is merely said is not kept.
        assert!(shake(&mut core, other, None, NOW).unwrap().challenge.is_none());
        assert!(keys(&core, other).is_empty());

        let challenge = shake(&mut core, id, Some(tpm.unproven()), NOW).unwrap().challenge.unwrap();
        assert_eq!(core.components[&id].state, ComponentState::Registered);
        // The answer of another TPM under this one's key, and one for another component.
        let forged = Residency { public_key: tpm.unproven().public_key, ..Tpm::new().answer(id, challenge) };
        let challenge = shake(&mut core, id, Some(forged), NOW).unwrap().challenge.unwrap();
        let challenge = shake(&mut core, id, Some(tpm.answer(other, challenge)), NOW).unwrap().challenge.unwrap();
        let answer = tpm.answer(id, challenge);
        let answered = shake(&mut core, id, Some(answer.clone()), NOW).unwrap();
        assert!(answered.challenge.is_none() && !answered.capabilities.is_empty());
        assert_eq!(core.components[&id].state, ComponentState::Active);
        assert_eq!(keys(&core, id).len(), 1);
        assert!(keys(&core, id)[0] != "SHA256:said");
        // Nor under a name that only looks otherwise.
        let hidden = IdentityEvidence { attribute: "tpm-\u{1}key".to_owned(), value: keys(&core, id)[0].clone() };
        let endpoint = AdvertisedEndpoint {
            local_name: "self".to_owned(),
            evidence: vec![hidden],
            ..AdvertisedEndpoint::default()
        };
        let endpoints = vec![endpoint];
        let advertisement = CapabilityAdvertisement { endpoints, ..CapabilityAdvertisement::default() };
        let mut copied = Core::new(Box::new(RandomIds), vec![core.components[&id].clone()], Vec::new(), NOW);
        assert!(copied.advertise(id, &advertisement, NOW).unwrap().0.is_err());
        // An answer is good once, and not for long.
        let challenge = shake(&mut core, id, Some(answer), NOW).unwrap().challenge.unwrap();
        let late = NOW + SignedDuration::from_secs(CHALLENGE_SECONDS);
        assert!(shake(&mut core, id, Some(tpm.answer(id, challenge)), late).unwrap().challenge.is_some());
    }

    #[test]
    fn whoever_has_shown_a_tpm_goes_on_showing_it_or_waits_for_an_operator() {
        let mut core = core();
        let (id, tpm, other) = (join(&mut core, 1), Tpm::new(), Tpm::new());
        let prove = |core: &mut Core, tpm: &Tpm| {
            let challenge = shake(core, id, Some(tpm.unproven()), NOW)?.challenge.unwrap();
            shake(core, id, Some(tpm.answer(id, challenge)), NOW)
        };
        let label = prove(&mut core, &tpm).unwrap().endpoints[0].endpoint;
        assert_eq!(prove(&mut core, &tpm).unwrap().endpoints[0].endpoint, label);
        assert_eq!(shake(&mut core, id, None, NOW).unwrap_err().code, FaultCode::Conflict);
        assert_eq!(core.components[&id].state, ComponentState::Quarantined);
        // Even with its own TPM again: somebody has its key.
        assert_eq!(shake(&mut core, id, Some(tpm.unproven()), NOW).unwrap_err().code, FaultCode::Conflict);
        let fault = core.distinct_endpoint(id).unwrap_err();
        assert!(fault.message.contains("muster evict"), "{fault}");
        core.same_endpoint(id).unwrap();
        assert_eq!(prove(&mut core, &other).unwrap().endpoints[0].endpoint, label);
        assert_eq!(keys(&core, id).len(), 1);
        assert_eq!(prove(&mut core, &tpm).unwrap_err().code, FaultCode::Conflict);
    }

    #[test]
    fn whoever_has_shown_a_tpm_does_not_get_around_it_by_speaking_of_something_else_or_of_nothing() {
        for endpoints in [Vec::new(), vec![AdvertisedEndpoint { local_name: "x".to_owned(), ..Default::default() }]] {
            let mut core = core();
            let (id, tpm) = (join(&mut core, 1), Tpm::new());
            let challenge = shake(&mut core, id, Some(tpm.unproven()), NOW).unwrap().challenge.unwrap();
            shake(&mut core, id, Some(tpm.answer(id, challenge)), NOW).unwrap();
            assert!(core.components[&id].is_resident());
            let capabilities = Capability::all_of(PCS);
            let advertisement = CapabilityAdvertisement { capabilities, endpoints, ..Default::default() };
            let (answer, _) = core.advertise(id, &advertisement, NOW).unwrap();
            assert_eq!(answer.unwrap_err().code, FaultCode::Conflict);
            assert_eq!(core.components[&id].state, ComponentState::Quarantined);
            assert_eq!(keys(&core, id).len(), 1);
        }
    }

    #[test]
    fn what_was_granted_before_is_granted_again_with_the_proof_alone() {
        let mut core = core();
        let (id, tpm) = (join(&mut core, 1), Tpm::new());
        let challenge = shake(&mut core, id, Some(tpm.unproven()), NOW).unwrap().challenge.unwrap();
        shake(&mut core, id, Some(tpm.answer(id, challenge)), NOW).unwrap();
        // Neither a connection nor being heard gives them back.
        core.connected(id);
        core.heard(id, NOW);
        let is_out = |core: &Core| {
            let component = &core.components[&id];
            component.capabilities.is_empty() && component.state == ComponentState::Registered
        };
        assert!(is_out(&core));
        let challenge = shake(&mut core, id, Some(tpm.unproven()), NOW).unwrap().challenge.unwrap();
        assert!(is_out(&core));
        shake(&mut core, id, Some(tpm.answer(id, challenge)), NOW).unwrap();
        assert_eq!(core.components[&id].state, ComponentState::Active);
        core.components.get_mut(&id).unwrap().state = ComponentState::Unavailable;
        core.heard(id, NOW);
        assert!(is_out(&core));
    }

    #[test]
    fn by_policy_a_label_that_was_shown_with_a_tpm_goes_to_that_tpm_alone() {
        let mut core = core();
        core.take_back(true);
        let (before, tpm) = (join(&mut core, 1), Tpm::new());
        let advertise = |core: &mut Core, id: ComponentId, tpm: Option<&Tpm>| {
            let challenge = tpm.map(|tpm| shake(core, id, Some(tpm.unproven()), NOW).unwrap().challenge.unwrap());
            let residency = tpm.zip(challenge).map(|(tpm, challenge)| tpm.answer(id, challenge));
            // All have one machine-id, as a liar would.
            let endpoint = AdvertisedEndpoint {
                local_name: "self".to_owned(),
                evidence: IdentityEvidence::new(MACHINE_ID, "one").into_iter().collect(),
                residency,
                ..AdvertisedEndpoint::default()
            };
            let advertisement = CapabilityAdvertisement {
                capabilities: Capability::all_of(PCS),
                endpoints: vec![endpoint],
                ..CapabilityAdvertisement::default()
            };
            core.advertise(id, &advertisement, NOW).unwrap().0.unwrap().endpoints[0].endpoint
        };
        let label = advertise(&mut core, before, Some(&tpm));
        core.dismiss(before, false, "installed anew").unwrap();
        let liar = join(&mut core, 2);
        assert_ne!(advertise(&mut core, liar, None), label);
        core.dismiss(liar, false, "").unwrap();
        let back = join(&mut core, 3);
        assert_eq!(advertise(&mut core, back, Some(&tpm)), label);
    }
}
