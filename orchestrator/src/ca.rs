//! The installation's certificate authority: an Ed25519 root of its own, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData as _, SanType,
    SerialNumber,
};
use service::{data, identity};
use uuid::Uuid;
use x509_parser::time::ASN1Time;

use crate::core::roster::Validity;

/// Days that the root holds.
const ROOT_DAYS: i64 = 3650;
/// Seconds by which a certificate begins earlier: a component whose clock is a little behind must not find it in the
/// future.
const EARLIER_SECONDS: i64 = 300;
/// The name that the server's certificate carries; clients go by CA and type, not by name.
const SERVER_NAME: &str = "orchestrator.muster.internal";

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("the CA in {path} cannot be read or written")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Keys or certificates are damaged.
    #[error("the CA in {path} is damaged: {reason}")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A signing request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate signing request is refused: {0}")]
pub struct RequestError(String);

/// The installation's CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    component_seconds: i64,
    certificate_pem: String,
    certificate_der: Vec<u8>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ca").finish_non_exhaustive()
    }
}

impl Ca {
    /// The CA in a directory, made on the first start. Components get certificates for `component_seconds`.
    pub fn open(directory: &Path, component_seconds: i64, now: Timestamp) -> Result<Self, CaError> {
        let failed = |source| CaError::Io { path: directory.to_owned(), source };
        let damaged = |reason: String| CaError::Damaged { path: directory.to_owned(), reason };
        data::make(directory).map_err(failed)?;
        let (key_file, certificate_file) = (directory.join("key.pem"), directory.join("ca.pem"));
        if !certificate_file.exists() {
            let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| damaged(error.to_string()))?;
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, format!("Muster CA {}", Uuid::new_v4()));
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            validity(&mut params, now, ROOT_DAYS * 86_400).map_err(damaged)?;
            let certificate = params.self_signed(&key).map_err(|error| damaged(error.to_string()))?;
            data::write_private(&key_file, key.serialize_pem().as_bytes()).map_err(failed)?;
            data::write_private(&certificate_file, certificate.pem().as_bytes()).map_err(failed)?;
        }
        let certificate_pem = fs::read_to_string(&certificate_file).map_err(failed)?;
        let key_pem = fs::read_to_string(&key_file).map_err(failed)?;
        let key = KeyPair::from_pem(&key_pem).map_err(|error| damaged(error.to_string()))?;
        let certificate_der =
            identity::certificate_der(&certificate_pem).ok_or_else(|| damaged("ca.pem".to_owned()))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { issuer, component_seconds, certificate_pem, certificate_der })
    }

    /// The root, PEM.
    pub fn pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The root, DER.
    pub fn der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// Signs a certificate for the key of a request. Nothing else of the request is taken over: name,
    /// role and uses are the CA's word.
    pub fn issue(
        &self,
        request_pem: &str,
        component: ComponentId,
        component_type: ComponentType,
        now: Timestamp,
    ) -> Result<(String, Validity), RequestError> {
        let refused = |error: rcgen::Error| RequestError(error.to_string());
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(refused)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, component.to_string());
        params.distinguished_name.push(DnType::OrganizationalUnitName, component_type.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let mut name = component.to_string();
        if component_type == ComponentType::Orchestrator {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            SERVER_NAME.clone_into(&mut name);
        }
        let name = name.try_into().map_err(refused)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        let validity = validity(&mut params, now, self.component_seconds).map_err(RequestError)?;
        request.params = params;
        Ok((request.signed_by(&self.issuer).map_err(refused)?.pem(), validity))
    }
}

fn validity(params: &mut CertificateParams, now: Timestamp, seconds: i64) -> Result<Validity, String> {
    let at = |seconds: i64| {
        ASN1Time::from_timestamp(seconds).map(|time| time.to_datetime()).map_err(|error| error.to_string())
    };
    let (from, until) = (now.as_second(), now.as_second() + seconds);
    params.not_before = at(from - EARLIER_SECONDS.min(seconds / 10))?;
    params.not_after = at(until)?;
    params.serial_number = Some(SerialNumber::from_slice(Uuid::new_v4().as_bytes()));
    let time = |seconds| Timestamp::from_second(seconds).map_err(|error| error.to_string());
    Ok(Validity { from: time(from)?, until: time(until)? })
}

/// The Ed25519 public key of a signing request whose own signature holds.
pub fn key_of(request_pem: &str) -> Result<[u8; 32], RequestError> {
    let request =
        CertificateSigningRequestParams::from_pem(request_pem).map_err(|error| RequestError(error.to_string()))?;
    request.public_key.der_bytes().try_into().map_err(|_| RequestError("the key is not an Ed25519 key".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::certificate::Certificate;

    #[test]
    fn a_certificate_says_what_the_ca_says_and_not_what_the_request_asks_for() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let ca = Ca::open(directory.path(), 3_600, now).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut wish = CertificateParams::default();
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wish.distinguished_name.push(DnType::CommonName, "somebody else");
        let request = wish.serialize_request(&key).unwrap().pem().unwrap();
        let component = ComponentId(Uuid::new_v4());
        let (pem, _) = ca.issue(&request, component, ComponentType::PostureCollectionService, now).unwrap();
        let der = identity::certificate_der(&pem).unwrap();
        let certificate = Certificate::verify(&der, ca.der(), now).unwrap();
        assert_eq!(
            (certificate.component, certificate.component_type),
            (component, ComponentType::PostureCollectionService)
        );
        assert_eq!(key_of(&request).unwrap(), certificate.public_key);
    }

    #[test]
    fn the_ca_is_the_same_after_a_restart_and_another_ones_certificates_are_refused() {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now = Timestamp::now();
        let ca = Ca::open(directory.path(), 3_600, now).unwrap();
        assert_eq!(ca.der(), Ca::open(directory.path(), 3_600, now).unwrap().der());
        let stranger = Ca::open(other.path(), 3_600, now).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let request = identity::signing_request(&key).unwrap();
        let (pem, _) = stranger.issue(&request, ComponentId(Uuid::new_v4()), ComponentType::Orchestrator, now).unwrap();
        assert!(Certificate::verify(&identity::certificate_der(&pem).unwrap(), ca.der(), now).is_err());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert!(key_of("junk").is_err());
    }
}
