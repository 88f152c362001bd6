//! What tells one endpoint from another (draft-ietf-sacm-information-model, "endpoint identity"; RFC 8248 G-014).
//!
//! An endpoint's label is the orchestrator's word and stays; evidence is what ties it to a machine. Some of it says who an
//! endpoint is by itself, some only adds to that: hardware is shared by containers, and addresses move.

use serde::{Deserialize, Serialize};

/// One attribute that identifies an endpoint, as a collector found it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IdentityEvidence {
    /// Which: one of [`IDENTIFYING`] or [`CORROBORATING`]; others are kept and compare with nothing.
    pub attribute: String,
    /// Its value.
    pub value: String,
}

/// Made at installation, and kept until the system is installed anew.
pub const MACHINE_ID: &str = "machine-id";
/// The SHA-256 fingerprint of an SSH host key, as `ssh-keygen -l` shows it.
pub const SSH_HOST_KEY: &str = "ssh-host-key";
/// The SMBIOS system UUID.
pub const SYSTEM_UUID: &str = "system-uuid";
/// The SMBIOS system serial number.
pub const SYSTEM_SERIAL: &str = "system-serial";
/// The address of a physical network interface.
pub const MAC_ADDRESS: &str = "mac-address";
/// The SHA-256 fingerprint of a TPM's key. It counts where it was proven ([`crate::residency`]), never where it is said.
pub const TPM_KEY: &str = "tpm-key";

/// Evidence that says by itself that two endpoints are one, or that one is a copy of the other.
pub const IDENTIFYING: &[&str] = &[MACHINE_ID, SSH_HOST_KEY];
/// Evidence of the hardware below: it outlives an installation, and containers on one machine share it.
pub const CORROBORATING: &[&str] = &[SYSTEM_UUID, SYSTEM_SERIAL, MAC_ADDRESS, TPM_KEY];

/// What manufacturers and images leave where a value should be.
const NOTHING: &[&str] = &[
    "uninitialized",
    "to be filled by o.e.m.",
    "default string",
    "not specified",
    "not applicable",
    "none",
    "system serial number",
    "unknown",
];

impl IdentityEvidence {
    /// Evidence, unless the value says nothing.
    pub fn new(attribute: &str, value: &str) -> Option<Self> {
        let value = value.trim();
        let is_blank = value.bytes().all(|byte| matches!(byte, b'0' | b'-' | b':' | b'f' | b'F' | b'.'));
        let says_nothing = is_blank || NOTHING.contains(&value.to_ascii_lowercase().as_str());
        (!says_nothing).then(|| Self { attribute: attribute.to_owned(), value: crate::limits::shown(value) })
    }

    /// Whether it says something; what others send may be anything.
    fn counts(&self) -> bool {
        Self::new(&self.attribute, &self.value).is_some()
    }
}

/// What the evidence of two endpoints says of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// Nothing that would make one of them.
    Other,
    /// The same hardware: installed anew, or beside each other on it.
    SameHardware,
    /// The same installation: one machine, or a copy of it.
    SameInstallation,
}

/// Compares the evidence of two endpoints, and says what they share.
pub fn compare<'one>(
    one: &'one [IdentityEvidence],
    other: &[IdentityEvidence],
) -> (Likeness, Vec<&'one IdentityEvidence>) {
    let shared: Vec<&IdentityEvidence> =
        one.iter().filter(|evidence| evidence.counts() && other.contains(evidence)).collect();
    let has = |attributes: &[&str]| shared.iter().any(|evidence| attributes.contains(&evidence.attribute.as_str()));
    let likeness = if has(IDENTIFYING) {
        Likeness::SameInstallation
    } else if has(CORROBORATING) {
        Likeness::SameHardware
    } else {
        Likeness::Other
    };
    (likeness, shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(pairs: &[(&str, &str)]) -> Vec<IdentityEvidence> {
        let one = |(attribute, value): &(&str, &str)| IdentityEvidence {
            attribute: (*attribute).to_owned(),
            value: (*value).to_owned(),
        };
        pairs.iter().map(one).collect()
    }

    #[test]
    fn what_an_installation_has_of_its_own_says_more_than_its_hardware() {
        let machine = evidence(&[(MACHINE_ID, "a"), (SSH_HOST_KEY, "k"), (SYSTEM_UUID, "u"), (MAC_ADDRESS, "m")]);
        let likeness = |other: &[(&str, &str)]| compare(&machine, &evidence(other)).0;
        assert_eq!(likeness(&[(MACHINE_ID, "a")]), Likeness::SameInstallation);
        assert_eq!(likeness(&[(MACHINE_ID, "b"), (SSH_HOST_KEY, "k")]), Likeness::SameInstallation);
        assert_eq!(likeness(&[(MACHINE_ID, "b"), (SYSTEM_UUID, "u")]), Likeness::SameHardware);
        assert_eq!(likeness(&[(MACHINE_ID, "b"), (SYSTEM_UUID, "v")]), Likeness::Other);
        assert_eq!(likeness(&[(SSH_HOST_KEY, "a")]), Likeness::Other);
        assert_eq!(likeness(&[]), Likeness::Other);
    }

    #[test]
    fn what_says_nothing_makes_nobody_alike() {
        for value in ["", "uninitialized", "00000000-0000-0000-0000-000000000000", "To Be Filled By O.E.M.", " None "] {
            assert_eq!(IdentityEvidence::new(MACHINE_ID, value), None, "{value}");
            let both = evidence(&[(MACHINE_ID, value)]);
            assert_eq!(compare(&both, &both).0, Likeness::Other, "{value}");
        }
        // And evidence that nobody here knows compares with nothing.
        let unknown = evidence(&[("colour", "green")]);
        assert_eq!(compare(&unknown, &unknown).0, Likeness::Other);
    }
}
