//! Whoever has certificates but not the CA's key, and a broker that is somebody else's: what neither of them can make
//! others believe.
//!
//! | threat | test |
//! |---|---|
//! | misuse of the CA: a component that signs certificates, the name of another | `a_component_is_no_certificate_authority`; `isolation`: `a_certificate_of_another_ca_is_refused` |
//! | a broker that modifies, or shows different data to different peers | `a_broker_that_lies_is_not_believed` |
//! | a broker that keeps credentials | there are none to keep: `attacks_stranger`: `a_proof_holds_for_the_request_that_it_was_made_for_and_no_other` |
//! | a certificate that has ended, a component that was put out | `isolation`: `a_session_ends_with_the_certificate_that_opened_it_and_somebody_is_told_before`; `admission`: `what_was_on_its_way_when_its_sender_was_put_out_comes_too_late` |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bus::Trust;
use jiff::{SignedDuration, Timestamp};
use proto::capability::ComponentType;
use proto::content::ContentRef;
use proto::envelope::Envelope;
use proto::fault::FaultCode;
use proto::id::{ComponentId, RequestId};
use proto::message::{Ack, CapabilityAdvertisement, CollectionRequest, Message as _};
use proto::seal::Sealer;
use proto::topic::Topic;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use service::identity::Identity;
use system_tests::Installation;
use system_tests::attack::{Attacker, connected, envelope, heartbeat, heartbeats_of, is_served, sealed};
use system_tests::raw::{Client, Connect, Publish, Version, tcp};
use tokio_rustls::TlsConnector;
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;

/// A certificate for a key, signed with the key of whoever has this identity, in the name of whoever this certificate is.
fn signed_by(signer: &Identity, issuer_der: &[u8], name: ComponentId, unit: ComponentType, key: &KeyPair) -> Vec<u8> {
    let pkcs8 = PrivatePkcs8KeyDer::from(signer.key_pkcs8.as_slice());
    let signing = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519).unwrap();
    let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(issuer_der), signing).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.to_string());
    params.distinguished_name.push(DnType::OrganizationalUnitName, unit.as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.signed_by(key, &issuer).unwrap().der().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_is_no_certificate_authority() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let mut attacker = Attacker::join(&installation).await;
    let orchestrator = installation.handle.status().await.orchestrator;
    let (own, ca) = (attacker.own(), installation.ca_der());
    let refused = installation.refused(FaultCode::NotAuthorized).await;
    let mut count = 0;
    // With what it was given it gets in.
    let given = vec![attacker.identity.certificate_der.clone()];
    assert_eq!(knock(&installation, given, &attacker.identity.key_pkcs8, own).await, Some(0));
    attacker.reconnect().await;
    for (name, unit) in [
        (own, PCS),
        (victim.component, PCS),
        (own, ComponentType::RepositoryInterface),
        (orchestrator, ComponentType::Orchestrator),
    ] {
        // In its own name, and in the CA's.
        for issuer in [attacker.identity.certificate_der.clone(), ca.clone()] {
            let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
            let forged = signed_by(&attacker.identity, &issuer, name, unit, &key);
            let pkcs8 = key.serialized_der().to_vec();
            // At the door: alone, and with the certificate that signed it.
            for chain in [vec![forged.clone()], vec![forged.clone(), attacker.identity.certificate_der.clone()]] {
                let answer = knock(&installation, chain, &pkcs8, name).await;
                assert_eq!(answer, None, "{name} {unit}");
            }
            // Under a seal, in the attacker's own connection.
            for behind in [None, Some(&attacker.identity.certificate_der), Some(&ca)].map(Option::<&Vec<u8>>::cloned) {
                let chain: Vec<&[u8]> =
                    [Some(&forged), behind.as_ref()].into_iter().flatten().map(Vec::as_slice).collect();
                let sealer = Sealer::with_certificate(&pkcs8, &chain).unwrap();
                attacker.say(heartbeats_of(own), sealer.seal(&heartbeat(own).to_bytes())).await;
                count += 1;
            }
        }
    }
    // And another one's certificate, over the own key.
    let sealer = Sealer::with_certificate(&attacker.identity.key_pkcs8, &[&victim.certificate_der]).unwrap();
    attacker.say(heartbeats_of(own), sealer.seal(&heartbeat(own).to_bytes())).await;
    assert!(attacker.believed().await.is_empty());
    assert_eq!(installation.refused(FaultCode::NotAuthorized).await, refused + count + 1);
    is_served(&victim, Version::V5).await;
}

/// Shows this chain at the door, and says CONNECT: the answer, if there is one.
async fn knock(installation: &Installation, chain: Vec<Vec<u8>>, pkcs8: &[u8], name: ComponentId) -> Option<u8> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(installation.ca_der())).unwrap();
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivatePkcs8KeyDer::from(pkcs8.to_vec()).into())
        .unwrap();
    let stream = tcp(&installation.address().await, None).await.unwrap();
    let server = ServerName::try_from("orchestrator.muster.internal").unwrap();
    // In TLS 1.3 a client has ended its handshake before the server looks at what it shows.
    let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await.unwrap();
    Client::over(stream, Version::V5).connect(&Connect::of(name)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lies_is_not_believed() {
    // What a broker that is somebody else's could do with what it carries: it has every message, and no key.
    let installation = Installation::orchestrator().await;
    let [a, b] = [installation.enrolled(PCS, "a").await, installation.enrolled(PCS, "b").await];
    let orchestrator = installation.identity("orchestrator");
    let trust = Trust::new(vec![installation.ca_der()]);
    let now = Timestamp::now();
    let delivers = |topic: &Topic, payload: &[u8], to: &Identity| {
        trust.open(&topic.to_string(), payload, to.component, now).map(|message| message.envelope().id)
    };
    let plan = ContentRef::to(b"plan");
    let deadline = now + SignedDuration::from_mins(5);
    let request = CollectionRequest {
        request: RequestId(Uuid::now_v7()),
        plan,
        targets: Vec::new(),
        objects: Vec::new(),
        deadline,
        budget: proto::budget::Budget::default(),
        priority: proto::message::Priority::default(),
    };
    let command = envelope(orchestrator.component, &request);
    let own_command = sealed(&orchestrator, &command);
    let admin = Topic::Admin(a.component);
    // As it was sent it is believed, by whom it is for.
    assert_eq!(delivers(&admin, &own_command, &a).unwrap(), command.id);
    let heartbeat_of_a = sealed(&a, &heartbeat(a.component));
    let up = heartbeats_of(a.component).parse().unwrap();
    delivers(&up, &heartbeat_of_a, &orchestrator).unwrap();
    // A command that is made up, or that another component made.
    for who in [&a, &b] {
        assert!(delivers(&admin, &sealed(who, &command), &a).is_err());
        assert!(delivers(&admin, &sealed(who, &envelope(who.component, &request)), &a).is_err());
        assert!(delivers(&Topic::Collection("oval".to_owned()), &sealed(who, &command), &a).is_err());
    }
    // What one component says, shown as another's or as something else.
    for topic in [
        heartbeats_of(b.component).parse().unwrap(),
        Topic::AdminUp(a.component, CapabilityAdvertisement::KIND.to_owned()),
        Topic::Status(a.component),
        Topic::CollectionResults(b.component),
        Topic::Registration,
    ] {
        assert!(delivers(&topic, &heartbeat_of_a, &orchestrator).is_err(), "{topic}");
    }
    // Every byte of a command counts.
    for at in 0..own_command.len() {
        let mut changed = own_command.clone();
        changed[at] ^= 0x01;
        assert!(delivers(&admin, &changed, &a).is_err(), "byte {at}");
    }
    // What the orchestrator said to one component, shown to another under that one's topic, and under its own.
    let mut client = connected(&a, Version::V5).await;
    assert_eq!(client.subscribe(&[&admin.to_string()]).await, Some(vec![1]));
    let question = heartbeat(a.component);
    assert_eq!(client.publish(Publish::of(heartbeats_of(a.component), sealed(&a, &question))).await, Some(0));
    let answer = client.delivery().await.unwrap().payload;
    delivers(&admin, &answer, &a).unwrap();
    for (topic, to) in [(Topic::Admin(b.component), &b), (admin.clone(), &b), (Topic::Admin(b.component), &a)] {
        assert!(delivers(&topic, &answer, to).is_err(), "{topic}");
    }
    // And a directed one, which a bus has sealed.
    let directed = |to: &Identity, from: &Identity| Topic::Directed {
        to: to.component,
        operation: "ack".to_owned(),
        from: from.component,
    };
    let acknowledgement = envelope(orchestrator.component, &Ack { message: question.id });
    let to_a = sealed(&orchestrator, &Envelope { to: Some(a.component), ..acknowledgement });
    delivers(&directed(&a, &orchestrator), &to_a, &a).unwrap();
    for (topic, to) in [
        (directed(&b, &orchestrator), &b),
        (directed(&a, &orchestrator), &b),
        (directed(&a, &b), &a),
        (directed(&orchestrator, &a), &orchestrator),
    ] {
        assert!(delivers(&topic, &to_a, to).is_err(), "{topic}");
    }
}
