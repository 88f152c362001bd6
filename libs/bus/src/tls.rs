//! TLS of the client side. The server is known by the installation's CA and by being an orchestrator (or, for
//! members, a broker), not by its name: names and addresses differ behind NAT and in containers.

use std::sync::Arc;

use proto::capability::ComponentType;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::certificate::{Certificate, is_broker};

/// SHA-256 of a CA certificate, as 64 hexadecimal digits.
pub fn fingerprint(ca_der: &[u8]) -> String {
    proto::content::ContentHash::of(ca_der).to_string()
}

/// What the server must show.
#[derive(Debug)]
struct Expected {
    /// The fingerprints of the CAs, one of which must have signed it.
    cas: Vec<String>,
    /// Whether a broker that is no orchestrator will do. Not for who joins: only an orchestrator lets anybody in.
    takes_broker: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| self.cas.contains(&fingerprint(certificate)))
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)?;
        // Every component has a certificate of this CA; only an orchestrator or a broker may be the server.
        match Certificate::read(end_entity) {
            Ok(certificate) if certificate.component_type == ComponentType::Orchestrator => {
                Ok(ServerCertVerified::assertion())
            }
            Err(_) if self.takes_broker && is_broker(end_entity) => Ok(ServerCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// For a component that has no certificate, or none that holds: it knows the CA by its fingerprint, from its token or from
/// before.
pub fn joining(ca_fingerprints: &[String]) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Expected { cas: ca_fingerprints.to_vec(), takes_broker: false, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// For a component with a certificate: mutual TLS.
pub fn member(cas: &[Vec<u8>], certificate_der: Vec<u8>, pkcs8: Vec<u8>) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let cas_known = cas.iter().map(|ca| fingerprint(ca)).collect();
    let verifier = Expected { cas: cas_known, takes_broker: true, provider: Arc::clone(&provider) };
    let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(pkcs8).into();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![CertificateDer::from(certificate_der)], key)?;
    // A resumed session would skip the look at the certificate that revocation needs.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
