//! A policy as it is kept: a data stream read once, as models that serialise.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::cpe::Platforms;
use crate::limits::SOURCE_BYTES_MAX;
use crate::oval::OvalDefinitions;
use crate::script;
use crate::xccdf::{Benchmark, Check, Profile};

/// The version of the format of [`Policy::to_bytes`].
pub const POLICY_VERSION: u32 = 2;

/// A benchmark with the checks and platforms that it uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// The rules.
    pub benchmark: Benchmark,
    /// The checks, by component.
    pub oval: BTreeMap<String, OvalDefinitions>,
    /// Scripts (SCE), by component.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<String, String>,
    /// Where rules apply.
    pub platforms: Platforms,
    /// What was left out on reading, in words.
    pub problems: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored<P> {
    version: u32,
    policy: P,
}

/// Why kept bytes are no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not compressed JSON of a policy.
    #[error("the stored policy cannot be read: {0}")]
    Damaged(String),
    /// Made by another version of this program.
    #[error("the stored policy has format {0}, this program reads {POLICY_VERSION}: import the data stream again")]
    Version(u32),
    /// There is no such profile.
    #[error("there is no profile `{wanted}`; the policy has {known}")]
    NoSuchProfile {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// Several profiles end like that.
    #[error("`{wanted}` is the end of several profiles: {matching}")]
    AmbiguousProfile {
        /// What was asked for.
        wanted: String,
        /// What there is.
        matching: String,
    },
}

/// Compresses (raw deflate).
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

/// Uncompresses, up to the limit on sources.
pub fn inflate(bytes: &[u8]) -> Result<Vec<u8>, PolicyError> {
    let mut plain = Vec::new();
    flate2::read::DeflateDecoder::new(bytes)
        .take(SOURCE_BYTES_MAX + 1)
        .read_to_end(&mut plain)
        .map_err(|error| PolicyError::Damaged(error.to_string()))?;
    if plain.len() as u64 > SOURCE_BYTES_MAX {
        return Err(PolicyError::Damaged("it is larger than any policy".to_owned()));
    }
    Ok(plain)
}

impl Policy {
    /// Compressed JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let stored = Stored { version: POLICY_VERSION, policy: self };
        deflate(&serde_json::to_vec(&stored).expect("a policy always serialises"))
    }

    /// The policy in these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PolicyError> {
        let plain = inflate(bytes)?;
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| PolicyError::Damaged(error.to_string());
        let Version { version } = serde_json::from_slice(&plain).map_err(damaged)?;
        if version != POLICY_VERSION {
            return Err(PolicyError::Version(version));
        }
        serde_json::from_slice::<Stored<Self>>(&plain).map(|stored| stored.policy).map_err(damaged)
    }

    /// The first content of a check that is there, by position.
    pub fn content_of(&self, check: &Check) -> Option<usize> {
        if check.system == script::SYSTEM {
            return check.content.iter().position(|(href, _)| self.scripts.contains_key(href));
        }
        check.content.iter().position(|(href, name)| {
            let document = self.oval.get(href);
            document.is_some_and(|oval| name.as_ref().is_none_or(|name| oval.definitions.contains_key(name)))
        })
    }

    /// The profile with that id, or the only one whose id ends so.
    pub fn profile(&self, wanted: &str) -> Result<&Profile, PolicyError> {
        let profiles = &self.benchmark.profiles;
        if let Some(exact) = profiles.iter().find(|profile| profile.id == wanted) {
            return Ok(exact);
        }
        let matching: Vec<&Profile> =
            profiles.iter().filter(|profile| !profile.is_abstract && profile.id.ends_with(wanted)).collect();
        let list = |profiles: &mut dyn Iterator<Item = &Profile>| {
            profiles.map(|profile| profile.id.as_str()).collect::<Vec<_>>().join(", ")
        };
        match matching.as_slice() {
            [only] => Ok(only),
            [] => Err(PolicyError::NoSuchProfile {
                wanted: proto::limits::shown(wanted),
                known: list(&mut profiles.iter()),
            }),
            several => Err(PolicyError::AmbiguousProfile {
                wanted: proto::limits::shown(wanted),
                matching: list(&mut several.iter().copied()),
            }),
        }
    }
}
