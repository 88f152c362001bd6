//! What the broker denies, spoken in plain MQTT by a client that keeps to no rule but the protocol.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::path::Path;
use std::time::Duration;

use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::topic::Topic;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, LastWill, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use service::identity::Identity;
use system_tests::{Installation, PATIENCE};
use uuid::Uuid;

/// A component that has joined, but is connected by the test.
async fn enrolled(installation: &Installation, component_type: ComponentType, name: &str) -> Identity {
    let member = installation.scripted(component_type, name).await;
    member.bus.close();
    identity_of(installation, name)
}

fn identity_of(installation: &Installation, name: &str) -> Identity {
    Identity::load(&installation.data.path().join(name).join("identity")).unwrap().unwrap()
}

fn options(identity: &Identity, client: &str) -> MqttOptions {
    let tls = identity.tls().unwrap();
    let mut options = MqttOptions::new(client, &identity.host, identity.port);
    options
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)))
        .set_max_packet_size(Some(4 * 1024 * 1024))
        .set_outgoing_inflight_upper_limit(16);
    options
}

struct Client {
    client: AsyncClient,
    events: EventLoop,
}

impl Client {
    async fn connect(options: MqttOptions) -> Result<Self, String> {
        let (client, events) = AsyncClient::new(options, 16);
        let mut connected = Self { client, events };
        match connected.next().await? {
            Packet::ConnAck(_) => Ok(connected),
            other => Err(format!("{other:?}")),
        }
    }

    async fn next(&mut self) -> Result<Packet, String> {
        let next = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(packet)) => return Ok(packet),
                    Ok(Event::Outgoing(_)) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.map_err(|_| "nothing came".to_owned())?
    }

    /// The answer to a subscription.
    async fn subscribe(&mut self, filters: &[&str]) -> Result<Vec<SubscribeReasonCode>, String> {
        let filters = filters.iter().map(|filter| Filter::new((*filter).to_owned(), QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters).map_err(|error| error.to_string())?;
        loop {
            if let Packet::SubAck(ack) = self.next().await? {
                return Ok(ack.return_codes);
            }
        }
    }

    /// Whether the broker took a message.
    async fn publish(&mut self, topic: &str) -> Result<PubAckReason, String> {
        self.client.try_publish(topic, QoS::AtLeastOnce, false, "x").map_err(|error| error.to_string())?;
        loop {
            if let Packet::PubAck(ack) = self.next().await? {
                return Ok(ack.reason);
            }
        }
    }

    /// What comes within a short while.
    async fn quiet(&mut self) -> Option<Packet> {
        let publish = async {
            loop {
                if let Ok(Packet::Publish(publish)) = self.next().await {
                    return Packet::Publish(publish);
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(500), publish).await.ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_subscribes_to_its_own_topics_and_to_nothing_wider() {
    let installation = Installation::orchestrator().await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let b = enrolled(&installation, ComponentType::PostureCollectionService, "b").await;
    let (id, other) = (a.component.to_string(), b.component.to_string());
    let mut client = Client::connect(options(&a, &id)).await.unwrap();
    let granted = [format!("/orchestrator/{id}"), format!("/{id}/+/+"), "/collection/oval".to_owned()];
    for filter in &granted {
        let codes = client.subscribe(&[filter]).await.unwrap();
        assert!(matches!(codes.as_slice(), [SubscribeReasonCode::Success(_)]), "{filter}: {codes:?}");
    }
    for filter in [
        "#".to_owned(),
        "/#".to_owned(),
        "+/#".to_owned(),
        "/+/+".to_owned(),
        "/orchestrator/+".to_owned(),
        "/orchestrator/#".to_owned(),
        format!("/orchestrator/{other}"),
        format!("/orchestrator/{id}/#"),
        format!("/{other}/+/+"),
        "/orchestrator/registration".to_owned(),
        "/collection/results/+".to_owned(),
        "/evaluation/results/+".to_owned(),
        "/status/+".to_owned(),
        "/policy/+".to_owned(),
        "$share/g/#".to_owned(),
        format!("$share/g//orchestrator/{id}"),
        "é/x".to_owned(),
    ] {
        let codes = client.subscribe(&[&filter]).await.unwrap();
        assert_eq!(codes, [SubscribeReasonCode::NotAuthorized], "{filter}");
    }
    // A mixed SUBSCRIBE is answered filter by filter.
    let codes = client.subscribe(&["#", &granted[0]]).await.unwrap();
    assert!(
        matches!(codes.as_slice(), [SubscribeReasonCode::NotAuthorized, SubscribeReasonCode::Success(_)]),
        "{codes:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_publishes_as_itself_and_as_nobody_else() {
    let installation = Installation::orchestrator().await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let b = enrolled(&installation, ComponentType::PostureCollectionService, "b").await;
    let mut client = Client::connect(options(&a, &a.component.to_string())).await.unwrap();
    let (a, b) = (a.component, b.component);
    for topic in [Topic::Status(a), Topic::CollectionResults(a), Topic::AdminUp(a, "heartbeat-request".to_owned())] {
        assert_eq!(client.publish(&topic.to_string()).await.unwrap(), PubAckReason::Success, "{topic}");
    }
    for topic in [
        Topic::Status(b),
        Topic::CollectionResults(b),
        Topic::EvaluationResults(a),
        Topic::AdminUp(b, "heartbeat-request".to_owned()),
        Topic::Admin(a),
        Topic::Admin(b),
        Topic::RegistrationAnswer(b),
        Topic::Collection("oval".to_owned()),
        Topic::Directed { to: b, operation: "ack".to_owned(), from: a },
        Topic::Change(a),
        Topic::Policy(a),
    ] {
        assert_eq!(client.publish(&topic.to_string()).await.unwrap(), PubAckReason::NotAuthorized, "{topic}");
    }
    for topic in ["é/x", "$SYS/x", "/status", "status/x"] {
        assert_eq!(client.publish(topic).await.unwrap(), PubAckReason::NotAuthorized, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_a_client_id_that_is_not_its_certificates() {
    let installation = Installation::orchestrator().await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let b = enrolled(&installation, ComponentType::PostureCollectionService, "b").await;
    let mut owner = Client::connect(options(&b, &b.component.to_string())).await.unwrap();
    for claimed in [b.component.to_string(), "orchestrator".to_owned(), format!("{}/x", a.component), String::new()] {
        assert!(Client::connect(options(&a, &claimed)).await.is_err(), "{claimed}");
    }
    // The owner of the id has noticed nothing.
    assert_eq!(owner.publish(&Topic::Status(b.component).to_string()).await.unwrap(), PubAckReason::Success);
    // And the same component a second time takes over from itself.
    let mut second = Client::connect(options(&b, &b.component.to_string())).await.unwrap();
    assert_eq!(second.publish(&Topic::Status(b.component).to_string()).await.unwrap(), PubAckReason::Success);
    let ended = async {
        loop {
            if owner.next().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the older connection ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_speaks_for_its_own_component_only() {
    let installation = Installation::orchestrator().await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let victim = ComponentId(Uuid::new_v4());
    let id = a.component.to_string();
    for (topic, is_allowed) in [
        (Topic::Status(victim), false),
        (Topic::Admin(a.component), false),
        (Topic::AdminUp(victim, "x".to_owned()), false),
        (Topic::Status(a.component), true),
    ] {
        let mut options = options(&a, &id);
        options.set_last_will(LastWill::new(topic.to_string(), "will", QoS::AtLeastOnce, false, None));
        assert_eq!(Client::connect(options).await.is_ok(), is_allowed, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_will_is_published_when_the_connection_breaks() {
    let installation = Installation::orchestrator().await;
    let watcher = enrolled(&installation, ComponentType::RepositoryInterface, "watcher").await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let mut watching = Client::connect(options(&watcher, &watcher.component.to_string())).await.unwrap();
    watching.subscribe(&["/collection/results/+"]).await.unwrap();
    let topic = Topic::CollectionResults(a.component).to_string();
    let mut with_will = options(&a, &a.component.to_string());
    with_will.set_last_will(LastWill::new(&topic, "gone", QoS::AtLeastOnce, false, None));
    let broken = Client::connect(with_will).await.unwrap();
    drop(broken);
    let Some(Packet::Publish(will)) = watching.quiet().await else { panic!("no will came") };
    assert_eq!((will.topic.as_ref(), will.payload.as_ref()), (topic.as_bytes(), b"gone".as_slice()));
}

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
async fn a_certificate_of_another_ca_is_refused() {
    let installation = Installation::orchestrator().await;
    let other = Installation::orchestrator().await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let foreign = enrolled(&other, ComponentType::PostureCollectionService, "foreign").await;
    // Right address and CA to check the server by, wrong certificate to show.
    let tls = bus::tls::member(&a.cas, foreign.certificate_der.clone(), foreign.key_pkcs8.clone()).unwrap();
    let mut options = options(&a, &foreign.component.to_string());
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    assert!(Client::connect(options).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_keeps_nobody_out() {
    let installation = Installation::orchestrator().await;
    let address = installation.handle.status().await.listen;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let mut client = Client::connect(options(&a, &a.component.to_string())).await.unwrap();
    assert_eq!(client.publish(&Topic::Status(a.component).to_string()).await.unwrap(), PubAckReason::Success);
    assert!(Path::new(&installation.data.path().join("a/identity/key.pem")).exists());
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
    let installation = Installation::with_certificates_of(4, data, "127.0.0.1:0").await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let mut client = Client::connect(options(&a, &a.component.to_string())).await.unwrap();
    assert_eq!(client.publish(&Topic::Status(a.component).to_string()).await.unwrap(), PubAckReason::Success);
    let ended = tokio::time::timeout(PATIENCE, async { while client.next().await.is_ok() {} }).await;
    assert!(ended.is_ok() && jiff::Timestamp::now().as_second() >= a.certificate.not_after);
    let told = installation.handle.status().await.security_counts;
    assert!(told.iter().any(|(code, count)| code == "security.certificate-ending" && *count == 1), "{told:?}");
}
