//! The log of acts: who did what, when and why. Entries are numbered, each carries the hash of the one before, and the
//! orchestrator signs how far the log has come. What is here needs neither network nor database: a log can be checked
//! wherever it is, with the CA alone.

use bus::certificate::Certificate;
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::content::ContentHash;
use proto::message::AuditCheckpoint;
use proto::seal::{Sealed, Sealer, Signer};
use serde::{Deserialize, Serialize};

use crate::proof::{Broken, broken};

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// Somebody on the operators' socket, by the user id that the kernel tells.
    Operator(u32),
    /// A component, by its id.
    Component(String),
    /// The orchestrator by itself.
    Orchestrator,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Act {
    /// Who.
    pub actor: Actor,
    /// What: a word such as `evict`.
    pub act: String,
    /// To what: an id or a name.
    pub subject: String,
    /// Why, or how.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Act {
    /// An act without a reason.
    pub fn new(actor: Actor, act: &str, subject: impl ToString) -> Self {
        Self { actor, act: act.to_owned(), subject: subject.to_string(), detail: String::new() }
    }

    /// With its reason.
    #[must_use]
    pub fn because(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }
}

/// An entry of the log. Its exact text is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// Entries count from 1.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    pub act: String,
    /// To what.
    pub subject: String,
    /// Why, or how.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// SHA-256 of what is stored of the subject, before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ContentHash>,
    /// And after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ContentHash>,
    /// SHA-256 of the text of the entry before; of nothing for the first one.
    pub previous: ContentHash,
}

/// A line of a log that was written out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Line {
    /// An entry's exact text.
    Entry(String),
    /// What the orchestrator has signed: a seal over a [`Checkpoint`].
    Checkpoint(String),
    /// What a repository was told.
    Witness(AuditCheckpoint),
}

/// What the orchestrator signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Checkpoint {
    /// Where the log is.
    pub audit_checkpoint: AuditCheckpoint,
    /// When that was.
    pub at: Timestamp,
}

impl Checkpoint {
    /// Signs it.
    pub fn seal(&self, sealer: &Sealer) -> String {
        let json = serde_json::to_vec(self).expect("a checkpoint always serialises");
        String::from_utf8_lossy(&sealer.seal(&json)).into_owned()
    }

    /// Reads a checkpoint that an orchestrator of this CA has signed.
    fn open(sealed: &str, cas: &[Vec<u8>]) -> Result<Self, String> {
        let parts = Sealed::split(sealed.as_bytes()).map_err(|fault| fault.message)?;
        let checkpoint: Self = serde_json::from_slice(parts.envelope).map_err(|error| error.to_string())?;
        let Signer::Certificate(der, _) = parts.signer().map_err(|fault| fault.message)? else {
            return Err("it is signed without a certificate".to_owned());
        };
        let trusted = cas.iter().map(|ca| Certificate::verify(&der, ca, checkpoint.at));
        let certificate = trusted.reduce(Result::or).ok_or("there is no CA to check it by")?;
        let certificate = certificate.map_err(|error| error.to_string())?;
        if certificate.component_type != ComponentType::Orchestrator {
            return Err("it is not an orchestrator that has signed it".to_owned());
        }
        parts.verify(&certificate.public_key).map_err(|fault| fault.message)?;
        Ok(checkpoint)
    }
}

/// The hash of an entry.
pub fn hash_of(entry: &str) -> ContentHash {
    ContentHash::of(entry.as_bytes())
}

/// What comes before the first entry.
pub fn beginning() -> ContentHash {
    ContentHash::of(b"")
}

/// What a log that holds together says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Entries.
    pub entry_count: u64,
    /// Signed checkpoints.
    pub checkpoint_count: u64,
    /// Up to which entry the orchestrator has signed it.
    pub signed_up_to: u64,
    /// What repositories remember.
    pub witness_count: u64,
    /// The hash of the last entry: whoever keeps it can tell later whether the log was cut off.
    pub hash: ContentHash,
}

/// Checks a log: that no entry is missing, changed, moved or invented, that what was signed and what repositories
/// remember is in it, and that nothing was cut off after the last of those. A log is older than its newest CA, which may
/// have had others before it.
pub fn verify(lines: &[Line], cas: &[Vec<u8>]) -> Result<Verified, Broken> {
    let mut hashes = vec![beginning()];
    for text in lines.iter().filter_map(|line| if let Line::Entry(text) = line { Some(text) } else { None }) {
        let wanted = hashes.len() as u64;
        let entry: Entry = match serde_json::from_str(text) {
            Ok(entry) => entry,
            Err(error) => return broken(format!("entry {wanted} cannot be read: {error}")),
        };
        if entry.number != wanted {
            return broken(format!("entry {wanted} is missing: entry {} stands in its place", entry.number));
        }
        if Some(&entry.previous) != hashes.last() {
            return broken(format!("entry {wanted} does not follow from the one before: one of the two was changed"));
        }
        hashes.push(hash_of(text));
    }
    let entry_count = hashes.len() as u64 - 1;
    if entry_count == 0 {
        return broken("the log is empty: an orchestrator writes its first entry when it starts for the first time");
    }
    let is_in = |point: &AuditCheckpoint| {
        usize::try_from(point.number).ok().and_then(|number| hashes.get(number)) == Some(&point.hash)
    };
    let not_in = |who: &str, point: &AuditCheckpoint| {
        let number = point.number;
        if number > entry_count {
            format!("the log was cut off: it has {entry_count} entries, and {who} there were {number}")
        } else {
            format!("the log was written anew: {who} entry {number} was another one")
        }
    };
    let (mut checkpoint_count, mut witness_count, mut signed_up_to) = (0, 0, 0);
    for line in lines {
        match line {
            Line::Entry(_) => {}
            Line::Checkpoint(sealed) => {
                let point = match Checkpoint::open(sealed, cas) {
                    Ok(checkpoint) => checkpoint.audit_checkpoint,
                    Err(why) => return broken(format!("a checkpoint cannot be believed: {why}")),
                };
                if !is_in(&point) {
                    return broken(not_in("when the orchestrator signed it", &point));
                }
                checkpoint_count += 1;
                signed_up_to = signed_up_to.max(point.number);
            }
            Line::Witness(point) => {
                if !is_in(point) {
                    return broken(not_in("when a repository was told of it", point));
                }
                witness_count += 1;
            }
        }
    }
    if signed_up_to < entry_count {
        return broken(format!("entries {} to {entry_count} are not signed", signed_up_to + 1));
    }
    let hash = hashes.pop().unwrap_or_else(beginning);
    Ok(Verified { entry_count, checkpoint_count, signed_up_to, witness_count, hash })
}
