//! Proof that a collector runs on the machine with a TPM (TPM 2.0 Library, Part 3): the TPM signs, with a key that cannot
//! leave it, what the orchestrator has asked a moment before.
//!
//! The key is the primary key that the TPM derives from its endorsement seed for one fixed template (ECDSA over P-256, not
//! duplicable): the same TPM makes the same key for ever, and no other makes it. Which TPM that is, and whether it is one in
//! silicon, is not asked: no certificate of a manufacturer is looked at.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::ComponentId;
use crate::identity::{IdentityEvidence, TPM_KEY};

/// What an endpoint's TPM says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Residency {
    /// The TPM's public key: a point on P-256, uncompressed (65 octets, base64url).
    pub public_key: String,
    /// The answer to the orchestrator's challenge; absent until there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ResidencyProof>,
}

/// An answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ResidencyProof {
    /// Which one.
    pub challenge: Uuid,
    /// ECDSA with SHA-256 by the TPM's key over the statement: r and s (64 octets, base64url).
    pub signature: String,
}

/// What the TPM signs: that this component, and its endpoint of this name, were with it after the challenge was made.
pub fn statement(component: ComponentId, local_name: &str, challenge: Uuid) -> Vec<u8> {
    format!("muster-residency-1\n{component}\n{challenge}\n{local_name}").into_bytes()
}

impl Residency {
    /// A TPM that has not been asked yet.
    pub fn unproven(public_key: &[u8; 65]) -> Self {
        Self { public_key: URL_SAFE_NO_PAD.encode(public_key), proof: None }
    }

    /// With the answer to a challenge.
    #[must_use]
    pub fn proven(&self, challenge: Uuid, signature: &[u8; 64]) -> Self {
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Self { public_key: self.public_key.clone(), proof: Some(ResidencyProof { challenge, signature }) }
    }

    /// The evidence that a valid answer to this challenge makes.
    pub fn evidence(&self, component: ComponentId, local_name: &str, challenge: Uuid) -> Option<IdentityEvidence> {
        let proof = self.proof.as_ref().filter(|proof| proof.challenge == challenge)?;
        let key = URL_SAFE_NO_PAD.decode(&self.public_key).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(&proof.signature).ok()?;
        let statement = statement(component, local_name, challenge);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key).verify(&statement, &signature).ok()?;
        let fingerprint = format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, &key)));
        IdentityEvidence::new(TPM_KEY, &fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    #[test]
    fn only_the_key_itself_answers_and_only_what_was_asked_of_whom_it_was_asked() {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let public: [u8; 65] = key.public_key().as_ref().try_into().unwrap();
        let (component, other) = (ComponentId(Uuid::now_v7()), ComponentId(Uuid::now_v7()));
        let (challenge, earlier) = (Uuid::new_v4(), Uuid::new_v4());
        let sign = |text: &[u8]| -> [u8; 64] { key.sign(&random, text).unwrap().as_ref().try_into().unwrap() };
        let unproven = Residency::unproven(&public);
        let proven = unproven.proven(challenge, &sign(&statement(component, "self", challenge)));
        let evidence = proven.evidence(component, "self", challenge).unwrap();
        assert!(evidence.attribute == TPM_KEY && evidence.value.starts_with("SHA256:"), "{evidence:?}");
        assert_eq!(unproven.evidence(component, "self", challenge), None);
        assert_eq!(proven.evidence(other, "self", challenge), None);
        assert_eq!(proven.evidence(component, "another", challenge), None);
        assert_eq!(proven.evidence(component, "self", earlier), None);
        // An answer to an earlier challenge, under the name of this one.
        let replayed = unproven.proven(challenge, &sign(&statement(component, "self", earlier)));
        assert_eq!(replayed.evidence(component, "self", challenge), None);
        for public_key in ["", "AAAA", "not base64!"] {
            let other = Residency { public_key: public_key.to_owned(), ..proven.clone() };
            assert_eq!(other.evidence(component, "self", challenge), None, "{public_key}");
        }
    }
}
