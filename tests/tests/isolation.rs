//! What the broker denies, spoken in plain MQTT by a client that keeps to no rule but the protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::topic::Topic;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use service::identity::Identity;
use system_tests::isolation::{self, Site};
use system_tests::mqtt::{Client, enrolled, identity_of, options};
use system_tests::{Installation, PATIENCE};
use uuid::Uuid;

/// Runs a check of the matrix that other brokers pass, too.
macro_rules! on_the_embedded_broker {
    ($($check:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            isolation::$check(&Site::embedded().await).await;
        }
    )*};
}

system_tests::isolation_matrix!(on_the_embedded_broker);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_reaches_the_registration_topics_and_nothing_else() {
    let installation = Installation::orchestrator().await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let tls = bus::tls::joining(&[bus::tls::fingerprint(&a.ca_der)]).unwrap();
    let stranger = || {
        let id = ComponentId(Uuid::new_v4());
        let mut options = options(&a, &id.to_string());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.clone())));
        (id, options)
    };
    let (id, options) = stranger();
    let mut client = Client::connect(options).await.unwrap();
    for (filter, is_granted) in [
        (Topic::RegistrationAnswer(id).to_string(), true),
        (Topic::RegistrationAnswer(a.component).to_string(), false),
        ("/orchestrator/registration/+".to_owned(), false),
        ("#".to_owned(), false),
    ] {
        let codes = client.subscribe(&[&filter]).await.unwrap();
        assert_eq!(matches!(codes.as_slice(), [SubscribeReasonCode::Success(_)]), is_granted, "{filter}");
    }
    assert_eq!(client.publish("/orchestrator/registration").await.unwrap(), PubAckReason::Success);
    assert!(client.publish(&Topic::Status(a.component).to_string()).await.is_err());
    // A stranger cannot pose as a component that is there.
    let (_, mut options) = stranger();
    options.set_client_id(a.component.to_string());
    let mut posing = Client::connect(options).await.unwrap();
    let codes = posing.subscribe(&[&Topic::Admin(a.component).to_string()]).await.unwrap();
    assert_eq!(codes, [SubscribeReasonCode::NotAuthorized]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_do_not_register_do_not_keep_others_from_joining() {
    let installation = Installation::orchestrator().await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let tls = bus::tls::joining(&[bus::tls::fingerprint(&a.ca_der)]).unwrap();
    let mut connecting = tokio::task::JoinSet::new();
    for _ in 0..280 {
        let mut options = options(&a, &Uuid::new_v4().to_string());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.clone())));
        connecting.spawn(Client::connect(options));
    }
    let idle: Vec<Client> = connecting.join_all().await.into_iter().filter_map(Result::ok).collect();
    // Some places are left for other addresses, and those that do nothing lose theirs in seconds.
    assert!(!idle.is_empty() && idle.len() < 280, "{} strangers got in", idle.len());
    installation.scripted(ComponentType::PostureCollectionService, "late").await;
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_sends_without_end_is_slowed_down_and_others_are_not() {
    let installation = Installation::orchestrator().await;
    let flooding = enrolled(&installation, ComponentType::PostureCollectionService, "flooding").await;
    let quiet = enrolled(&installation, ComponentType::PostureCollectionService, "quiet").await;
    let topic = Topic::Status(flooding.component).to_string();
    let began = std::time::Instant::now();
    let flood = tokio::spawn(async move {
        let mut client = Client::connect(options(&flooding, &flooding.component.to_string())).await.unwrap();
        for _ in 0..2_400 {
            client.publish(&topic).await.unwrap();
        }
    });
    let mut client = Client::connect(options(&quiet, &quiet.component.to_string())).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.publish(&Topic::Status(quiet.component).to_string()).await.unwrap(), PubAckReason::Success);
    }
    // Two thousand are saved up, two hundred a second come in: four hundred more take two seconds, whatever the machine.
    flood.await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_speaks_to_no_server_but_an_orchestrator_of_its_own_installation() {
    let installation = Installation::orchestrator().await;
    let other = Installation::orchestrator().await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let foreign = enrolled(&other, ComponentType::PostureCollectionService, "foreign").await;
    // Another installation's orchestrator, where the component expects its own.
    let at = |host: &str, port| Identity { host: host.to_owned(), port, ..identity_of(&installation, "a") };
    let elsewhere = at(&foreign.host, foreign.port);
    assert!(Client::connect(options(&elsewhere, &a.component.to_string())).await.is_err());
    // A collector of the same installation that plays the server.
    let b = enrolled(&installation, ComponentType::PostureCollectionService, "b").await;
    let chain = [&b.certificate_der, &b.ca_der].map(|der| CertificateDer::from(der.clone())).to_vec();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(b.key_pkcs8.clone()).into())
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connection = rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap();
        // The client ends the handshake: the server's side of it fails.
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok::<_, std::io::Error>(())
    });
    assert!(Client::connect(options(&at("127.0.0.1", port), &a.component.to_string())).await.is_err());
    let ended = server.join().unwrap().unwrap_err().to_string();
    assert!(
        ended.contains("certificate") || ended.contains("Certificate") || ended.contains("AccessDenied"),
        "{ended}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_the_certificate_that_opened_it_and_somebody_is_told_before() {
    let data = tempfile::tempdir().unwrap();
    // Somebody is told in its last quarter, which a busy machine must not be asleep in.
    let installation = Installation::with_certificates_of(10, data, "127.0.0.1:0").await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let mut client = Client::connect(options(&a, &a.component.to_string())).await.unwrap();
    assert_eq!(client.publish(&Topic::Status(a.component).to_string()).await.unwrap(), PubAckReason::Success);
    let ended = tokio::time::timeout(PATIENCE, async { while client.next().await.is_ok() {} }).await;
    assert!(ended.is_ok() && jiff::Timestamp::now().as_second() >= a.certificate.not_after);
    let told = installation.handle.status().await.security_counts;
    assert!(told.iter().any(|(code, count)| code == "security.certificate-ending" && *count == 1), "{told:?}");
}
