//! A network attacker against a whole installation: whoever owns the way between a component and the listener, and has
//! no key of anybody. With `attacks_stranger` and `attacks_member` this is RFC 8600 section 8's list of threats, line by
//! line.
//!
//! | threat | test |
//! |---|---|
//! | eavesdropping | `whoever_listens_on_the_way_reads_nothing_of_it` |
//! | older protocols | `nothing_older_than_tls_1_3_and_nothing_in_the_clear_is_answered` |
//! | modifying, replaying, injecting, withholding a part | `a_record_that_is_changed_repeated_invented_or_missing_ends_the_connection` |
//! | replaying a whole connection | `a_connection_that_was_recorded_is_worth_nothing_when_it_is_played_again` |
//! | blocking | `what_is_blocked_on_its_way_arrives_once_when_the_way_is_free` |
//! | standing in the middle | `a_server_that_is_no_orchestrator_of_the_installation_hears_nothing`, and `isolation`: `a_component_speaks_to_no_server_but_an_orchestrator_of_its_own_installation` |
//! | flooding | `kills`: `a_peer_that_stays_silent_keeps_nobody_out`, `connections_beyond_the_limit_are_refused_and_afterwards_all_is_as_before`; `isolation`: `strangers_that_do_not_register_do_not_keep_others_from_joining` |
//! | traffic analysis | none: who speaks when, and how much, can be seen |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bus::Context;
use proto::capability::{Capability, ComponentType};
use proto::id::ComponentId;
use proto::message::{CapabilityAdvertisement, Message as _, Phase, StatusNotification};
use proto::topic::Topic;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use service::identity::Identity;
use service::member;
use service::token::JoinToken;
use system_tests::attack::{PROMPT, envelope, is_answered, is_served, sealed};
use system_tests::raw::{Client, Connect, DISCONNECT, PINGREQ, Publish, Version, tcp};
use system_tests::relay::{Relay, Tamper};
use system_tests::{Installation, PATIENCE, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_listens_on_the_way_reads_nothing_of_it() {
    let installation = Installation::orchestrator().await;
    let relay = Relay::before(&installation.address().await).await.unwrap();
    let token = installation.token(PCS).await;
    let mut settings = installation.settings(PCS, "overheard-collector", Some(token.clone()));
    settings.broker = Some(relay.address.clone());
    let member = member::start(settings).await.unwrap();
    let mut assigned = member.assigned.clone();
    tokio::time::timeout(PATIENCE, assigned.wait_for(|assigned| assigned.is_active)).await.unwrap().unwrap();
    let identity = installation.identity("overheard-collector");
    let token: JoinToken = token.parse().unwrap();
    let (up, down) = relay.recorded();
    // It was there when the component joined, and when it shook hands.
    assert!(up.len() > 2_000 && down.len() > 4_000 && up[0] == 0x16, "{} {}", up.len(), down.len());
    let needles = [
        identity.component.to_string().into_bytes(),
        identity.component.0.as_bytes().to_vec(),
        installation.handle.status().await.orchestrator.to_string().into_bytes(),
        identity.certificate.public_key.to_vec(),
        identity.certificate_der[..64].to_vec(),
        installation.ca_der()[..64].to_vec(),
        token.secret.into_bytes(),
        token.id.into_bytes(),
        token.ca_fingerprint.into_bytes(),
    ];
    let words = ["overheard-collector", "MQTT", "orchestrator", "muster", "capability", "EdDSA", "BEGIN CERTIFICATE"];
    for needle in needles.iter().map(Vec::as_slice).chain(words.map(str::as_bytes)) {
        assert!(!contains(&up, needle) && !contains(&down, needle), "{}", String::from_utf8_lossy(needle));
    }
}

/// A handshake by somebody who has the CA, in this version of TLS only.
async fn handshake(installation: &Installation, version: &'static SupportedProtocolVersion) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(installation.ca_der())).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tcp(&installation.address().await, None).await.unwrap();
    let name = ServerName::try_from("orchestrator.muster.internal").unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_older_than_tls_1_3_and_nothing_in_the_clear_is_answered() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    handshake(&installation, &rustls::version::TLS13).await.unwrap();
    let refused = handshake(&installation, &rustls::version::TLS12).await.unwrap_err();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    for version in [Version::V5, Version::V311] {
        let client = Client::plain(&installation.address().await, version).await.unwrap();
        let mut wire = client.into_wire();
        wire.write_all(&Connect::of(victim.component).bytes(version)).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PROMPT, wire.read_to_end(&mut answer)).await.expect("it is ended");
        // At most an alert of TLS.
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:02x?}");
    }
    is_served(&victim, Version::V5).await;
}

/// An advertisement whose only effect is the software version on the roster.
fn says_version(identity: &Identity, software_version: &str) -> Vec<u8> {
    let advertisement = CapabilityAdvertisement {
        capabilities: Capability::all_of(PCS),
        endpoints: Vec::new(),
        software_version: software_version.to_owned(),
        ..CapabilityAdvertisement::default()
    };
    let topic = Topic::AdminUp(identity.component, CapabilityAdvertisement::KIND.to_owned());
    let message = sealed(identity, &envelope(identity.component, &advertisement));
    Publish::of(topic, message).bytes(Version::V5)
}

async fn version_of(installation: &Installation, component: ComponentId) -> String {
    // What was sent before has been taken when the answer to this comes: it goes the same way.
    let name = installation.roster().await.into_iter().find(|entry| entry.component == component).unwrap().name;
    is_served(&installation.identity(&name), Version::V5).await;
    let entry = installation.roster().await.into_iter().find(|entry| entry.component == component).unwrap();
    entry.software_version.unwrap()
}

async fn through(relay: &Relay, identity: &Identity) -> Client {
    let stream = tcp(&relay.address, None).await.unwrap();
    let mut client = Client::over_tls(stream, identity.tls().unwrap(), Version::V5).await.unwrap();
    assert_eq!(client.connect(&Connect::of(identity.component)).await, Some(0));
    assert_eq!(client.subscribe(&[&Topic::Admin(identity.component).to_string()]).await, Some(vec![1]));
    is_answered(&mut client, identity).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_changed_repeated_invented_or_missing_ends_the_connection() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let relay = Relay::before(&installation.address().await).await.unwrap();
    let own = victim.component;
    let invented = [vec![0x17, 0x03, 0x03, 0x00, 0x40], vec![0x42; 64]].concat();
    let recorded = {
        let before = relay.recorded().0.len();
        let mut client = through(&relay, &victim).await;
        client.send(&says_version(&victim, "recorded")).await.unwrap();
        assert!(client.is_alive().await);
        relay.recorded().0[before..].to_vec()
    };
    let mut expected = version_of(&installation, own).await;
    assert_eq!(expected, "recorded");
    let refused = installation.refused_in_all().await;
    let attacks = [
        (Tamper::Change, false),
        (Tamper::Repeat, true),
        (Tamper::Insert(invented), false),
        (Tamper::Insert(says_version(&victim, "in the clear")), false),
        // Records of an earlier connection, the handshake's too.
        (Tamper::Insert(recorded), false),
        (Tamper::Swallow, false),
        (Tamper::Swap, false),
    ];
    for (number, (attack, may_arrive)) in attacks.into_iter().enumerate() {
        let mut client = through(&relay, &victim).await;
        relay.tamper(attack.clone());
        let version = format!("attack {number}");
        client.send(&says_version(&victim, &version)).await.unwrap();
        // What follows a missing record does not fit.
        let _ = client.send(&PINGREQ).await;
        let ended = tokio::time::timeout(PROMPT, client.end()).await;
        assert!(ended.is_ok(), "{attack:?} was not noticed");
        let is_now = version_of(&installation, own).await;
        // The first of two was sent by the component; whether it is taken depends on how far the listener had read.
        if may_arrive && is_now == version {
            expected = version;
        }
        assert_eq!(is_now, expected, "{attack:?}");
    }
    // None of it came as far as anything that is sealed.
    assert_eq!(installation.refused_in_all().await, refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_recorded_is_worth_nothing_when_it_is_played_again() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let relay = Relay::before(&installation.address().await).await.unwrap();
    for version in ["recorded", "later"] {
        let mut client = through(&relay, &victim).await;
        client.send(&says_version(&victim, version)).await.unwrap();
        assert!(client.is_alive().await);
        client.send(&DISCONNECT).await.unwrap();
        client.end().await;
    }
    let (recorded, _) = relay.recorded();
    assert_eq!(version_of(&installation, victim.component).await, "later");
    let refused = installation.refused_in_all().await;
    let mut stream = tcp(&installation.address().await, None).await.unwrap();
    let _ = stream.write_all(&recorded).await;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(PROMPT, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok());
    assert_eq!(version_of(&installation, victim.component).await, "later");
    assert_eq!(installation.refused_in_all().await, refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_blocked_on_its_way_arrives_once_when_the_way_is_free() {
    let installation = Installation::orchestrator().await;
    let relay = Relay::before(&installation.address().await).await.unwrap();
    let mut settings = installation.settings(PCS, "cut-off", Some(installation.token(PCS).await));
    settings.broker = Some(relay.address.clone());
    let member = member::start(settings).await.unwrap();
    let mut assigned = member.assigned.clone();
    tokio::time::timeout(PATIENCE, assigned.wait_for(|assigned| assigned.is_active)).await.unwrap().unwrap();
    let own = member.bus.own();
    let status = StatusNotification {
        publisher: own,
        message: "blocked".to_owned(),
        code: "security.blocked".to_owned(),
        request: None,
        phase: Some(Phase::Completed),
        progress: None,
        fault: None,
    };
    let counted = async || {
        let counts = installation.handle.status().await.security_counts;
        counts.into_iter().find(|(code, _)| code == "security.blocked").map_or(0, |(_, count)| count)
    };
    for round in 1..=2 {
        relay.block();
        let sent = member.bus.send_durable(&Topic::Status(own), &status, Context::alone()).unwrap();
        // An honest component of another way, meanwhile; and then nothing has come of the blocked one.
        installation.scripted(PCS, &format!("other-{round}")).await;
        assert!(member.bus.is_unacknowledged(sent));
        assert_eq!(counted().await, round - 1);
        relay.unblock();
        eventually("it arrives", async || (!member.bus.is_unacknowledged(sent)).then_some(())).await;
        assert_eq!(counted().await, round);
    }
}

/// A certificate chain with its leaf's key.
type Shown = (Vec<CertificateDer<'static>>, Vec<u8>);

/// A server that shows this, and what a client that connects to it makes of that: whether the handshake succeeds on both
/// sides, and what the server hears after it.
async fn visit(shown: Shown, config: Arc<ClientConfig>) -> (bool, Vec<u8>) {
    let (chain, key) = shown;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key).into())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        match TlsAcceptor::from(Arc::new(server)).accept(stream).await {
            Ok(mut stream) => {
                let _ = stream.read_to_end(&mut heard).await;
                (true, heard)
            }
            Err(_) => (false, heard),
        }
    };
    let visit = async {
        let stream = tcp(&address, None).await.unwrap();
        let client = Client::over_tls(stream, config, Version::V5).await;
        let Ok(mut client) = client else { return false };
        let _ = client.send(&Connect::of(Uuid::new_v4()).bytes(Version::V5)).await;
        let _ = client.finish().await;
        true
    };
    let ((is_served, heard), is_trusted) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(serve, visit) }).await.unwrap();
    (is_served || is_trusted, heard)
}

fn forged(name: &str, unit: &str, issuer: Option<&Issuer<'_, KeyPair>>) -> (KeyPair, CertificateParams, Vec<u8>) {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    let certificate = if let Some(issuer) = issuer {
        params.signed_by(&key, issuer)
    } else {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&key)
    };
    let der = certificate.unwrap().der().to_vec();
    (key, params, der)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_no_orchestrator_of_the_installation_hears_nothing() {
    let installation = Installation::orchestrator().await;
    let other = Installation::orchestrator().await;
    let collector = installation.enrolled(PCS, "collector").await;
    let fingerprint = installation.ca_fingerprint();
    let ca = CertificateDer::from(installation.ca_der());
    let orchestrator = |installation: &Installation| installation.identity("orchestrator");
    let chain = |identity: &Identity, ca: &CertificateDer<'static>| {
        (vec![CertificateDer::from(identity.certificate_der.clone()), ca.clone()], identity.key_pkcs8.clone())
    };
    let own_ca = forged("Muster CA", "x", None);
    let issuer = Issuer::new(own_ca.1.clone(), own_ca.0);
    let orchestrator_id = installation.handle.status().await.orchestrator.to_string();
    let leaf = forged(&orchestrator_id, "orchestrator", Some(&issuer));
    let leaf_key = leaf.0.serialized_der().to_vec();
    let [leaf, own_ca] = [leaf.2, own_ca.2].map(CertificateDer::from);
    let foreign = orchestrator(&other);
    let servers = [
        ("another installation's orchestrator", chain(&foreign, &CertificateDer::from(other.ca_der()))),
        ("the same, with the right CA behind it", chain(&foreign, &ca)),
        ("a collector", chain(&collector, &ca)),
        ("a CA of its own", (vec![leaf.clone(), own_ca.clone()], leaf_key.clone())),
        ("a CA of its own, and the right one behind it", (vec![leaf.clone(), own_ca, ca.clone()], leaf_key.clone())),
        ("a certificate of nobody, with the right CA", (vec![leaf, ca.clone()], leaf_key)),
    ];
    let clients = || [bus::tls::joining(std::slice::from_ref(&fingerprint)).unwrap(), collector.tls().unwrap()];
    for (what, shown) in servers {
        for config in clients() {
            let shown = (shown.0.clone(), shown.1.clone());
            let (is_trusted, heard) = visit(shown, config).await;
            assert!(!is_trusted && heard.is_empty(), "{what} was believed, and heard {} bytes", heard.len());
        }
    }
    // The real one is believed: what is refused above is refused for what it shows.
    for config in clients() {
        let (is_trusted, heard) = visit(chain(&orchestrator(&installation), &ca), config).await;
        assert!(is_trusted && !heard.is_empty());
    }
}
