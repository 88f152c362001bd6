//! From bytes to an authentic message: seal, certificate, sender, times. Only here is an
//! [`Authentic`] made.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use proto::capability::ComponentType;
use proto::content::ContentHash;
use proto::envelope::Envelope;
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::seal::{Sealed, Signer};
use proto::topic::{Holder, Principal, Topic};

use crate::certificate::{Certificate, CertificateError};
use crate::{limits, packing};

/// Who has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A component with a certificate of this installation.
    Member {
        /// Its id.
        component: ComponentId,
        /// Its type, from the certificate.
        component_type: ComponentType,
    },
    /// A component that joins: it owns this key, and no more is known.
    Joining {
        /// The key.
        public_key: [u8; 32],
    },
}

/// A message whose sender has been checked.
#[derive(Debug, Clone)]
pub struct Authentic {
    topic: Topic,
    envelope: Envelope,
    sender: Sender,
    hash: ContentHash,
    sealed: Vec<u8>,
    packed: Option<Vec<u8>>,
}

impl Authentic {
    /// Where it came in.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// What it says.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Who says it.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// SHA-256 of the envelope's exact bytes: what answers refer to. It stays the same when a message is sealed again.
    pub fn hash(&self) -> &ContentHash {
        &self.hash
    }

    /// The sealed message, exactly as it came.
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// The same, compressed (RFC 1951), where it came so.
    pub fn packed(&self) -> Option<&[u8]> {
        self.packed.as_deref()
    }

    /// The type of the sender, if it is a member.
    pub fn sender_type(&self) -> Option<ComponentType> {
        match self.sender {
            Sender::Member { component_type, .. } => Some(component_type),
            Sender::Joining { .. } => None,
        }
    }
}

/// What a component trusts: its installation's CA, or both of them while it is replaced.
#[derive(Debug)]
pub struct Trust {
    anchor: RwLock<Anchor>,
    /// Certificates that have been checked, and that have sealed something. By hash: what a message says around its
    /// certificate is its sender's choice, and as long as a header may be.
    known: Mutex<BTreeMap<ContentHash, Certificate>>,
}

#[derive(Debug)]
enum Anchor {
    Cas(Vec<Vec<u8>>),
    /// Known only by their SHA-256, from a join token; the sender sends the certificate along.
    Fingerprints(Vec<String>),
}

impl Trust {
    /// Trust in these CAs, DER.
    pub fn new(cas: Vec<Vec<u8>>) -> Self {
        Self { anchor: RwLock::new(Anchor::Cas(cas)), known: Mutex::new(BTreeMap::new()) }
    }

    /// Trust in the CAs with these fingerprints.
    pub fn pinned(fingerprints: Vec<String>) -> Self {
        Self { anchor: RwLock::new(Anchor::Fingerprints(fingerprints)), known: Mutex::new(BTreeMap::new()) }
    }

    /// Trust in these CAs from now on, and in no others.
    pub(crate) fn replace(&self, cas: Vec<Vec<u8>>) {
        *self.anchor.write().unwrap_or_else(PoisonError::into_inner) = Anchor::Cas(cas);
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ContentHash, Certificate>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The certificate of whoever has sealed this.
    fn signer(
        &self,
        sealed: &Sealed<'_>,
        der: &[u8],
        sent_ca: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Certificate, Fault> {
        let refused = |error: CertificateError| Fault::new(FaultCode::NotAuthorized, error.to_string());
        let hash = ContentHash::of(der);
        let known = self.known().get(&hash).cloned();
        if let Some(known) = known {
            known.valid_at(now).map_err(refused)?;
            sealed.verify(&known.public_key)?;
            return Ok(known);
        }
        let anchor = self.anchor.read().unwrap_or_else(PoisonError::into_inner);
        let certificate = match (&*anchor, sent_ca) {
            (Anchor::Cas(cas), _) => {
                let by_each = cas.iter().map(|ca| Certificate::verify(der, ca, now));
                // Of several that did not sign it, what the one says that did, is what counts.
                by_each.reduce(|one, other| match (&one, &other) {
                    (Err(CertificateError::Untrusted), _) => other,
                    _ => one,
                })
            }
            (Anchor::Fingerprints(wanted), Some(sent)) if wanted.contains(&crate::tls::fingerprint(sent)) => {
                Some(Certificate::verify(der, sent, now))
            }
            (Anchor::Fingerprints(_), _) => None,
        };
        let certificate = certificate.unwrap_or(Err(CertificateError::Untrusted)).map_err(refused)?;
        // Certificates are public: only its owner makes one known.
        sealed.verify(&certificate.public_key)?;
        let mut known = self.known();
        if known.len() >= limits::SIGNERS_MAX {
            known.clear();
        }
        known.insert(hash, certificate.clone());
        Ok(certificate)
    }

    /// Opens a message that came in on a topic, for the component `own`.
    pub fn open(&self, topic: &str, payload: &[u8], own: ComponentId, now: Timestamp) -> Result<Authentic, Fault> {
        let denied = |text: &str| Fault::new(FaultCode::NotAuthorized, text);
        let topic: Topic = topic
            .parse()
            .map_err(|error: proto::topic::TopicError| Fault::new(FaultCode::Malformed, error.to_string()))?;
        if packing::is_packed(payload) && !topic.may_be_packed() {
            return Err(Fault::new(FaultCode::Malformed, "only results travel packed"));
        }
        let plain = packing::unpack(payload)?;
        let sealed = Sealed::split(&plain)?;
        let sender = match sealed.signer()? {
            Signer::Certificate(der, sent_ca) => {
                let certificate = self.signer(&sealed, &der, sent_ca.as_deref(), now)?;
                Sender::Member { component: certificate.component, component_type: certificate.component_type }
            }
            Signer::BareKey(public_key) if topic == Topic::Registration => {
                sealed.verify(&public_key)?;
                Sender::Joining { public_key }
            }
            Signer::BareKey(_) => return Err(denied("a key without a certificate may only ask to join")),
        };
        let envelope = Envelope::read(sealed.envelope, now)?;
        if now.duration_since(envelope.sent) > SignedDuration::from_hours(24 * limits::AGE_DAYS_MAX) {
            return Err(Fault::new(
                FaultCode::Expired,
                format!("the message is older than {} days", limits::AGE_DAYS_MAX),
            ));
        }
        if !topic.carries(&envelope.kind) {
            return Err(denied(&format!("`{}` does not travel on this topic", envelope.kind)));
        }
        if let Sender::Member { component, component_type } = &sender {
            // The broker's table, once more: another broker may be careless.
            let principal = Principal { id: *component, holder: Holder::Component(*component_type) };
            if !principal.may_publish(&topic.to_string()) {
                return Err(denied("the sender may not publish here"));
            }
            if envelope.from != *component {
                return Err(denied("`from` is not the component that signed"));
            }
            if topic.is_from_orchestrator() && *component_type != ComponentType::Orchestrator {
                return Err(denied("only an orchestrator may speak on this topic"));
            }
        }
        if topic.sender().is_some_and(|sender| sender != envelope.from) {
            return Err(denied("`from` is not the sender that the topic names"));
        }
        // A broker could carry it under another topic than it was sent on; what the seal says of it decides.
        if topic.receiver().into_iter().chain(envelope.to).any(|to| to != own) {
            return Err(denied("the message is for another component"));
        }
        let hash = ContentHash::of(sealed.envelope);
        let packed = packing::content(payload).map(<[u8]>::to_vec);
        Ok(Authentic { topic, envelope, sender, hash, sealed: plain.into_owned(), packed })
    }
}
