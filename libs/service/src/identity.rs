//! Who a component is: its key, its certificate, whom it trusts. Below `identity/` in its data
//! directory, readable by its owner alone; the key never leaves it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bus::certificate::Certificate;
use bus::{BusSettings, Trust, limits, mqtt, outbox::Outbox, tls};
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::seal::Sealer;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::data;
use crate::token::host_and_port;

/// Says that all is there.
pub(crate) const MEMBERSHIP_FILE: &str = "membership.json";

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("the identity in {path} cannot be read or written")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("the identity in {path} is damaged ({what}): move it away and join again with a new token")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// A component's identity after it has joined.
#[derive(Debug)]
pub struct Identity {
    /// Its id.
    pub component: ComponentId,
    /// Its certificate, DER.
    pub certificate_der: Vec<u8>,
    /// What the certificate says.
    pub certificate: Certificate,
    /// The CA that the server's certificate is from, DER: the oldest of those that are trusted.
    pub ca_der: Vec<u8>,
    /// All CAs that are trusted, DER; two while one is being replaced.
    pub cas: Vec<Vec<u8>>,
    /// Its key, PKCS #8.
    pub key_pkcs8: Vec<u8>,
    /// Where it has joined: the orchestrator's own broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where members connect, if not there.
    pub broker: Option<(String, u16)>,
    /// How often to send a heartbeat.
    pub heartbeat_interval_seconds: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Membership {
    host: String,
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broker: Option<String>,
    heartbeat_interval_seconds: u64,
}

fn membership(directory: &Path) -> Result<Option<Membership>, IdentityError> {
    match fs::read(directory.join(MEMBERSHIP_FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|_| IdentityError::Damaged { path: directory.to_owned(), what: MEMBERSHIP_FILE.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Io { path: directory.to_owned(), source }),
    }
}

fn keep(directory: &Path, membership: &Membership) -> Result<(), IdentityError> {
    let json = serde_json::to_vec_pretty(membership).expect("a membership always serialises");
    data::write_private(&directory.join(MEMBERSHIP_FILE), &json)
        .map_err(|source| IdentityError::Io { path: directory.to_owned(), source })
}

/// DER of the first certificate in PEM text.
pub fn certificate_der(pem: &str) -> Option<Vec<u8>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}

/// DER of every certificate in PEM text.
pub fn certificates_der(pem: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(|der| der.ok().map(|der| der.to_vec())).collect()
}

/// The key of a component, made on its first start and kept: the same key asks for the same
/// membership, so a lost answer can be asked for again.
pub fn key(directory: &Path) -> Result<KeyPair, IdentityError> {
    let failed = |source| IdentityError::Io { path: directory.to_owned(), source };
    let damaged = |what: String| IdentityError::Damaged { path: directory.to_owned(), what };
    data::make(directory).map_err(failed)?;
    let file = directory.join("key.pem");
    // Never somebody else's key by way of a link: what is read here is written again, and handed over.
    let is_link = fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_symlink());
    if is_link {
        return Err(damaged("key.pem is a symbolic link".to_owned()));
    }
    match fs::read_to_string(&file) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| damaged(format!("key.pem: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| damaged(error.to_string()))?;
            data::write_private(&file, key.serialize_pem().as_bytes()).map_err(failed)?;
            Ok(key)
        }
        Err(source) => Err(failed(source)),
    }
}

/// An Ed25519 key in the form that every program reads, PEM: PKCS #8 without the public key (RFC 8410, section 7). What
/// `ring` makes has the public key with a tag that OpenSSL refuses. `None` for another kind of key.
pub fn portable_pem(key: &KeyPair) -> Option<String> {
    /// Everything of such a key but its 32 bytes: version 0, the algorithm, an octet string in an octet string.
    const HEAD: [u8; 16] = [0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32];
    let der = key.serialized_der();
    let (head, seed) = (der.get(5..16)?, der.get(16..48)?);
    let text = STANDARD.encode([&HEAD[..], seed].concat());
    (head == &HEAD[5..]).then(|| format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"))
}

/// A signing request for the key, PEM. What is asked for in it does not matter: the CA decides.
pub fn signing_request(key: &KeyPair) -> Result<String, rcgen::Error> {
    CertificateParams::default().serialize_request(key)?.pem()
}

impl Identity {
    /// The identity in a directory; `None` before the component has joined.
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let failed = |source| IdentityError::Io { path: directory.to_owned(), source };
        let damaged = |what: &str| IdentityError::Damaged { path: directory.to_owned(), what: what.to_owned() };
        let Some(membership) = membership(directory)? else { return Ok(None) };
        let pem = |name: &str| -> Result<Vec<u8>, IdentityError> {
            let text = fs::read_to_string(directory.join(name)).map_err(failed)?;
            certificate_der(&text).ok_or_else(|| damaged(name))
        };
        let certificate_der = pem("certificate.pem")?;
        let certificate = Certificate::read(&certificate_der).map_err(|error| damaged(&error.to_string()))?;
        let ca_text = fs::read_to_string(directory.join("ca.pem")).map_err(failed)?;
        let cas = certificates_der(&ca_text);
        let key = key(directory)?;
        if key.public_key_raw() != certificate.public_key {
            return Err(damaged("key.pem does not belong to certificate.pem"));
        }
        Ok(Some(Self {
            component: certificate.component,
            certificate_der,
            certificate,
            ca_der: cas.first().cloned().ok_or_else(|| damaged("ca.pem"))?,
            cas,
            key_pkcs8: key.serialized_der().to_vec(),
            host: membership.host,
            port: membership.port,
            broker: membership
                .broker
                .map(|broker| host_and_port(&broker).ok_or_else(|| damaged(MEMBERSHIP_FILE)))
                .transpose()?,
            heartbeat_interval_seconds: membership.heartbeat_interval_seconds,
        }))
    }

    /// Keeps what the registration gave. The membership file comes last: it says that all is there.
    pub fn store(
        directory: &Path,
        certificate_pem: &str,
        ca_pem: &str,
        (host, port): (&str, u16),
        broker: Option<&str>,
        heartbeat_interval_seconds: u64,
    ) -> Result<(), IdentityError> {
        let failed = |source| IdentityError::Io { path: directory.to_owned(), source };
        data::make(directory).map_err(failed)?;
        data::write_private(&directory.join("certificate.pem"), certificate_pem.as_bytes()).map_err(failed)?;
        data::write_private(&directory.join("ca.pem"), ca_pem.as_bytes()).map_err(failed)?;
        let broker = broker.map(str::to_owned);
        keep(directory, &Membership { host: host.to_owned(), port, broker, heartbeat_interval_seconds })
    }

    /// Keeps a newer certificate for the same key, and where members connect now.
    pub fn renew(directory: &Path, certificate_pem: &str, broker: Option<&str>) -> Result<(), IdentityError> {
        data::write_private(&directory.join("certificate.pem"), certificate_pem.as_bytes())
            .map_err(|source| IdentityError::Io { path: directory.to_owned(), source })?;
        match membership(directory)? {
            Some(known) if known.broker.as_deref() != broker => {
                keep(directory, &Membership { broker: broker.map(str::to_owned), ..known })
            }
            _ => Ok(()),
        }
    }

    /// Where it connects as a member.
    pub fn address(&self) -> (String, u16) {
        self.broker.clone().unwrap_or_else(|| (self.host.clone(), self.port))
    }

    /// Keeps which CAs are trusted from now on, PEM.
    pub fn trust(directory: &Path, ca_pems: &[String]) -> Result<(), IdentityError> {
        data::write_private(&directory.join("ca.pem"), ca_pems.concat().as_bytes())
            .map_err(|source| IdentityError::Io { path: directory.to_owned(), source })
    }

    /// The fingerprints of the CAs that are trusted.
    pub fn ca_fingerprints(&self) -> Vec<String> {
        self.cas.iter().map(|ca| tls::fingerprint(ca)).collect()
    }

    /// What seals this component's messages. An orchestrator sends the CA along, for receivers that know only its
    /// fingerprint.
    pub fn sealer(&self) -> Result<Sealer, IdentityError> {
        let is_with_ca = self.certificate.component_type == ComponentType::Orchestrator;
        let chain: &[&[u8]] =
            if is_with_ca { &[&self.certificate_der, &self.ca_der] } else { &[&self.certificate_der] };
        Sealer::with_certificate(&self.key_pkcs8, chain).map_err(|error| self.unusable(error.to_string()))
    }

    /// What the bus needs to speak as this component.
    pub fn bus_settings(&self, outbox: Outbox) -> Result<BusSettings, IdentityError> {
        Ok(BusSettings {
            own: self.component,
            sealer: self.sealer()?,
            trust: Trust::new(self.cas.clone()),
            outbox,
            payload_bytes_max: proto::limits::PAYLOAD_BYTES_MAX,
        })
    }

    /// What a connection needs to show who this component is.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        tls::member(&self.cas, self.certificate_der.clone(), self.key_pkcs8.clone())
            .map_err(|error| self.unusable(error.to_string()))
    }

    /// What the transport needs to connect as this component.
    pub fn mqtt_settings(
        &self,
        address: watch::Receiver<(String, u16)>,
        tls: watch::Receiver<Arc<ClientConfig>>,
    ) -> mqtt::MqttSettings {
        let (in_flight_max, queue_max) = match self.certificate.component_type {
            ComponentType::PostureCollectionService => (limits::COLLECTOR_IN_FLIGHT_MAX, limits::QUEUE_MESSAGES_MAX),
            _ => (limits::SERVICE_IN_FLIGHT_MAX, limits::SERVICE_QUEUE_MESSAGES_MAX),
        };
        mqtt::MqttSettings {
            address,
            client: self.component,
            tls,
            packet_bytes_max: u32::try_from(proto::limits::SERVICE_PAYLOAD_BYTES_MAX + 64 * 1024).unwrap_or(u32::MAX),
            in_flight_max,
            queue_max,
        }
    }

    fn unusable(&self, what: String) -> IdentityError {
        IdentityError::Damaged { path: PathBuf::from(format!("identity of {}", self.component)), what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_its_portable_form_is_the_same_key() {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let pem = portable_pem(&key).unwrap();
        let again = KeyPair::from_pem(&pem).unwrap();
        assert_eq!(again.public_key_raw(), key.public_key_raw());
        assert_eq!(portable_pem(&again).unwrap(), pem);
        assert!(portable_pem(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()).is_none());
    }
}
