//! What a component's certificate says: CN is its id, OU its type, the key is Ed25519.

use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The OU of a broker that is no orchestrator: the draft's name of what carries messages (draft-ietf-sacm-arch-13
/// §4.1.4). It is no component type: such a certificate shows who the server is, and neither seals nor registers.
pub const BROKER_UNIT: &str = "integration-service";

/// A certificate as far as we use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's only CN.
    pub component: ComponentId,
    /// The subject's only OU.
    pub component_type: ComponentType,
    /// The Ed25519 public key.
    pub public_key: [u8; 32],
    /// Seconds since the epoch.
    pub not_before: i64,
    /// Seconds since the epoch.
    pub not_after: i64,
}

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is no X.509 certificate of ours.
    #[error("not a component's certificate: {0}")]
    Malformed(&'static str),
    /// The CA did not sign it.
    #[error("the certificate is not signed by this installation's CA")]
    Untrusted,
    /// Not valid at this time.
    #[error("the certificate is expired or not yet valid: check both clocks")]
    OutOfTime,
}

/// What every certificate of the CA has, whatever its OU is.
struct Shape {
    id: ComponentId,
    unit: String,
    public_key: [u8; 32],
    not_before: i64,
    not_after: i64,
}

impl Shape {
    fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let malformed = CertificateError::Malformed;
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| malformed("it cannot be parsed"))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow it"));
        }
        let mut names = parsed.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(malformed("it has not exactly one CN"));
        };
        let id = name.as_str().ok().and_then(|text| text.parse().ok()).ok_or(malformed("its CN is not an id"))?;
        let mut units = parsed.subject().iter_organizational_unit();
        let (Some(unit), None) = (units.next(), units.next()) else {
            return Err(malformed("it has not exactly one OU"));
        };
        let unit = unit.as_str().map_err(|_| malformed("its OU is not text"))?.to_owned();
        let public_key = parsed.public_key().subject_public_key.data.as_ref();
        Ok(Self {
            id,
            unit,
            public_key: public_key.try_into().map_err(|_| malformed("its key is not Ed25519"))?,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

/// Whether this is the certificate of a broker that is no orchestrator; nothing is checked but its shape.
pub fn is_broker(der: &[u8]) -> bool {
    Shape::read(der).is_ok_and(|shape| shape.unit == BROKER_UNIT)
}

impl Certificate {
    /// Reads a certificate; nothing is checked but its shape.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let Shape { id, unit, public_key, not_before, not_after } = Shape::read(der)?;
        let component_type = unit.parse().map_err(|_| CertificateError::Malformed("its OU is not a component type"))?;
        Ok(Self { component: id, component_type, public_key, not_before, not_after })
    }

    /// Reads a certificate and checks that this CA signed it and that it is valid now.
    pub fn verify(der: &[u8], ca_der: &[u8], now: Timestamp) -> Result<Self, CertificateError> {
        let certificate = Self::issued_by(der, ca_der)?;
        certificate.valid_at(now)?;
        Ok(certificate)
    }

    /// Reads a certificate and checks that this CA signed it, whenever it is valid.
    pub fn issued_by(der: &[u8], ca_der: &[u8]) -> Result<Self, CertificateError> {
        let malformed = CertificateError::Malformed;
        let certificate = Self::read(der)?;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| malformed("it cannot be parsed"))?;
        let (_, ca) = X509Certificate::from_der(ca_der).map_err(|_| malformed("the CA cannot be parsed"))?;
        let ca_key = ca.public_key();
        // A CA of our own has an Ed25519 key (RFC 8410), one that was brought may have one on P-256 (RFC 5480).
        let algorithm: &dyn ring::signature::VerificationAlgorithm = match &ca_key.algorithm.algorithm {
            oid if *oid == OID_SIG_ED25519 => &ring::signature::ED25519,
            oid if *oid == OID_KEY_TYPE_EC_PUBLIC_KEY => &ring::signature::ECDSA_P256_SHA256_ASN1,
            _ => return Err(malformed("the CA's key is neither Ed25519 nor P-256")),
        };
        if parsed.issuer().as_raw() != ca.subject().as_raw() || parsed.is_ca() {
            return Err(CertificateError::Untrusted);
        }
        ring::signature::UnparsedPublicKey::new(algorithm, ca_key.subject_public_key.data.as_ref())
            .verify(parsed.tbs_certificate.as_ref(), &parsed.signature_value.data)
            .map_err(|_| CertificateError::Untrusted)?;
        Ok(certificate)
    }

    /// Whether it is valid at that time, five minutes of skew allowed at its beginning.
    pub fn valid_at(&self, now: Timestamp) -> Result<(), CertificateError> {
        let now = now.as_second();
        if now + proto::time::SKEW_SECONDS_MAX < self.not_before || now > self.not_after {
            return Err(CertificateError::OutOfTime);
        }
        Ok(())
    }
}
