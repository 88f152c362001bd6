//! Which servers a component speaks to, and that a broker's certificate is good for nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bus::certificate::{BROKER_UNIT, Certificate};
use bus::{Trust, tls};
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::fault::FaultCode;
use proto::id::{ComponentId, MessageId, TransactionId};
use proto::seal::Sealer;
use proto::topic::Topic;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use uuid::Uuid;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

/// A certificate, DER, and its key, PKCS #8.
type Shown = (Vec<u8>, Vec<u8>);

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, Uuid::new_v4().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn certificate(&self, id: ComponentId, unit: &str) -> Shown {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, id.to_string());
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        params.is_ca = IsCa::ExplicitNoCa;
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        (der, key.serialized_der().to_vec())
    }

    fn member(&self) -> Arc<ClientConfig> {
        let (der, key) = self.certificate(ComponentId(Uuid::new_v4()), "posture-collection-service");
        tls::member(std::slice::from_ref(&self.der), der, key).unwrap()
    }

    /// Whether a client finishes its handshake with a server that shows a certificate of this CA.
    fn is_taken(&self, client: Arc<ClientConfig>, unit: &str) -> bool {
        let (der, key) = self.certificate(ComponentId(Uuid::new_v4()), unit);
        let chain = [der, self.der.clone()].map(CertificateDer::from).to_vec();
        let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivatePkcs8KeyDer::from(key).into())
            .unwrap();
        let mut client = ClientConnection::new(client, ServerName::try_from("anything").unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut wire.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }
}

#[test]
fn a_member_speaks_to_an_orchestrator_or_a_broker_and_to_nobody_else() {
    let (ca, other) = (Ca::new(), Ca::new());
    for unit in ["orchestrator", BROKER_UNIT] {
        assert!(ca.is_taken(ca.member(), unit), "{unit}");
        assert!(!other.is_taken(ca.member(), unit), "{unit} of another installation");
    }
    for unit in ["posture-collection-service", "posture-evaluation-service", "repository-interface", "broker", ""] {
        assert!(!ca.is_taken(ca.member(), unit), "{unit}");
    }
}

#[test]
fn who_joins_does_so_at_an_orchestrator_and_not_at_a_broker() {
    let ca = Ca::new();
    let joining = || tls::joining(&[tls::fingerprint(&ca.der)]).unwrap();
    assert!(ca.is_taken(joining(), "orchestrator"));
    assert!(!ca.is_taken(joining(), BROKER_UNIT));
}

#[test]
fn a_broker_is_no_component_and_its_seal_is_refused() {
    let ca = Ca::new();
    let now = Timestamp::now();
    let open = |id: ComponentId, unit: &str| {
        let (der, key) = ca.certificate(id, unit);
        let is_component = Certificate::verify(&der, &ca.der, now).is_ok();
        let envelope = serde_json::json!({
            "v": 1, "id": MessageId(Uuid::now_v7()), "type": "status-notification", "from": id, "sent": now,
            "transaction": TransactionId(Uuid::now_v7()), "seq": 1, "body": {},
        });
        let sealed = Sealer::with_certificate(&key, &[&der]).unwrap().seal(envelope.to_string().as_bytes());
        let opened = Trust::new(vec![ca.der.clone()]).open(
            &Topic::Status(id).to_string(),
            &sealed,
            ComponentId(Uuid::new_v4()),
            now,
        );
        (is_component, opened.map(|_| ()).map_err(|fault| fault.code))
    };
    let id = ComponentId(Uuid::new_v4());
    // The same message, so that nothing but the certificate tells the two apart.
    assert_eq!(open(id, ComponentType::PostureCollectionService.as_str()), (true, Ok(())));
    assert_eq!(open(id, BROKER_UNIT), (false, Err(FaultCode::NotAuthorized)));
}
