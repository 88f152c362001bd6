//! The isolation matrix: what no broker may let through, written once and run on each. Brokers differ in how they say
//! no: the embedded one by code, Mosquitto by granting a subscription and delivering nothing. What is heard is the same.

use std::collections::{BTreeMap, BTreeSet};

use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::limits::PAYLOAD_BYTES_MAX;
use proto::topic::{Act, GRANTS, Grant, Holder, Topic, covers};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, PubAckReason, SubscribeReasonCode};
use rumqttc::{TlsConfiguration, Transport};
use service::identity::Identity;
use uuid::Uuid;

use crate::mosquitto::Mosquitto;
use crate::mqtt::{Client, Heard, enrolled, identity_of, options};
use crate::{Installation, PATIENCE};

/// Gives every check of the matrix to a macro that makes tests of them: no broker is left out of a new one.
#[macro_export]
macro_rules! isolation_matrix {
    ($on_a_broker:ident) => {
        $on_a_broker! {
            what_is_said_reaches_whom_the_table_names_and_nobody_else
            who_asks_for_more_hears_no_more
            what_is_no_topic_of_the_contract_is_refused
            nobody_takes_a_client_id_that_is_not_its_certificates
            a_component_that_comes_again_takes_its_own_place
            a_will_speaks_for_its_own_component_only
            a_message_may_be_as_large_as_the_limits_say
            a_certificate_of_another_ca_is_refused
            a_silent_peer_keeps_nobody_out
        }
    };
}

/// A broker, and components that have joined: their identities say where it is.
#[derive(Debug)]
pub struct Site {
    /// The installation that the broker belongs to.
    pub installation: Installation,
    /// A collector.
    pub a: Identity,
    /// Another one.
    pub b: Identity,
    /// A repository.
    pub repository: Identity,
    /// An evaluator.
    pub evaluator: Identity,
    /// The orchestrator, where the test may play it: on the embedded broker it plays itself.
    pub orchestrator: Option<Identity>,
    /// The broker, if it is not embedded.
    pub mosquitto: Option<Mosquitto>,
}

impl Site {
    /// The embedded broker.
    pub async fn embedded() -> Self {
        let installation = Installation::orchestrator().await;
        Self {
            a: enrolled(&installation, ComponentType::PostureCollectionService, "a").await,
            b: enrolled(&installation, ComponentType::PostureCollectionService, "b").await,
            repository: enrolled(&installation, ComponentType::RepositoryInterface, "store").await,
            evaluator: enrolled(&installation, ComponentType::PostureEvaluationService, "judge").await,
            orchestrator: None,
            mosquitto: None,
            installation,
        }
    }

    /// Mosquitto, configured by `muster broker config`; `None` where it is not installed. The two collectors and all
    /// others have joined at the orchestrator's own listener, `b` after the configuration was made.
    pub async fn mosquitto() -> Option<Self> {
        let installation = Installation::orchestrator().await;
        let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
        let repository = enrolled(&installation, ComponentType::RepositoryInterface, "store").await;
        let evaluator = enrolled(&installation, ComponentType::PostureEvaluationService, "judge").await;
        let mosquitto = Mosquitto::start(&installation).await?;
        let b = enrolled(&installation, ComponentType::PostureCollectionService, "b").await;
        let orchestrator = Some(mosquitto.reach(identity_of(&installation, "orchestrator")));
        let [a, b, repository, evaluator] = [a, b, repository, evaluator].map(|identity| mosquitto.reach(identity));
        Some(Self { a, b, repository, evaluator, orchestrator, mosquitto: Some(mosquitto), installation })
    }

    fn is_embedded(&self) -> bool {
        self.mosquitto.is_none()
    }

    fn everybody(&self) -> Vec<&Identity> {
        [&self.a, &self.b, &self.repository, &self.evaluator].into_iter().chain(&self.orchestrator).collect()
    }

    /// Whether the broker lets a component do it: by the table, or where patterns hold for everybody, as a collector.
    fn is_allowed(&self, identity: &Identity, act: Act, topic: &str) -> bool {
        let everybody = (!self.is_embedded()).then_some(ComponentType::PostureCollectionService);
        [Some(identity.certificate.component_type), everybody]
            .into_iter()
            .flatten()
            .any(|component_type| is_granted(component_type, act, topic, identity.component))
    }

    /// A topic on which a component hears one that may speak to it, and who that is.
    fn call(&self, to: ComponentId) -> (&Identity, Topic) {
        let (from, operation) = if to == self.repository.component {
            (&self.evaluator, "query-request")
        } else {
            (&self.repository, "ack")
        };
        (from, Topic::Directed { to, operation: operation.to_owned(), from: from.component })
    }
}

fn grants(component_type: ComponentType, act: Act) -> impl Iterator<Item = &'static Grant> {
    let holder = Holder::Component(component_type);
    GRANTS.iter().filter(move |grant| grant.holder == holder && grant.act == act)
}

fn is_granted(component_type: ComponentType, act: Act, topic: &str, own: ComponentId) -> bool {
    grants(component_type, act).any(|grant| covers(grant.pattern, topic, own))
}

/// Everything that a component may subscribe to.
fn filters(identity: &Identity) -> Vec<String> {
    let own = identity.component.to_string();
    grants(identity.certificate.component_type, Act::Subscribe)
        .map(|grant| grant.pattern.replace("{self}", &own))
        .collect()
}

/// A component that hears all that it may.
async fn listening(identity: &Identity) -> Client {
    let mut client = Client::of(identity).await.expect("a component is let in");
    for filter in filters(identity) {
        let codes = client.subscribe(&[&filter]).await.expect("a subscription is answered");
        assert!(matches!(codes.as_slice(), [SubscribeReasonCode::Success(_)]), "{filter}: {codes:?}");
    }
    client
}

/// Filters that no component but an orchestrator has a right to, for `own` with `other` in its sight.
fn attacks(own: ComponentId, other: ComponentId) -> Vec<String> {
    let plain = [
        "#",
        "/#",
        "+/#",
        "+/+/+",
        "/+/+",
        "/+/+/+",
        "/orchestrator/+",
        "/orchestrator/#",
        "/orchestrator/registration",
        "/orchestrator/registration/+",
        "/orchestrator/+/up/#",
        "/collection/#",
        "/collection/results/#",
        "/evaluation/#",
        "/status/+",
        "/status/#",
        "/policy/#",
        "/change/#",
        "$share/g/#",
        "$share/g//collection/results/+",
        "$share/g//+/+/+",
        "$SYS/#",
        "é/x",
    ];
    plain
        .map(str::to_owned)
        .into_iter()
        .chain([
            format!("/orchestrator/{other}"),
            format!("/orchestrator/{own}/#"),
            format!("/{other}/+/+"),
            format!("/{other}/#"),
            format!("/+/+/{own}"),
            format!("/collection/results/{other}"),
            format!("/status/{other}"),
            format!("$share/g//orchestrator/{own}"),
            format!("$share/g//orchestrator/{other}"),
            format!("$share/g//{other}/+/+"),
        ])
        .collect()
}

/// Every topic of the contract among these components.
fn contract(ids: &[ComponentId]) -> Vec<String> {
    let mut topics =
        vec![Topic::Registration, Topic::Collection("oval".to_owned()), Topic::Evaluation("xccdf".to_owned())];
    // The middle level of what passes between two components.
    let operations: BTreeSet<&str> =
        GRANTS.iter().filter_map(|grant| grant.pattern.strip_prefix("/+/")?.strip_suffix("/{self}")).collect();
    for id in ids {
        topics.extend([
            Topic::RegistrationAnswer(*id),
            Topic::Admin(*id),
            Topic::AdminUp(*id, "heartbeat-request".to_owned()),
            Topic::CollectionResults(*id),
            Topic::EvaluationResults(*id),
            Topic::Status(*id),
            Topic::Policy(*id),
            Topic::Change(*id),
        ]);
        for to in ids {
            topics.extend(operations.iter().map(|operation| Topic::Directed {
                to: *to,
                operation: (*operation).to_owned(),
                from: *id,
            }));
        }
    }
    topics.iter().map(Topic::to_string).collect()
}

/// Marks what the test has said: on the embedded broker the orchestrator speaks, too.
const MARK: &str = "probe ";

/// Everybody says something on every topic of the contract. It is taken where the table allows it, and heard by those
/// to whom the table gives the topic, and by nobody else.
pub async fn what_is_said_reaches_whom_the_table_names_and_nobody_else(site: &Site) {
    everybody_says_everything(site, false).await;
}

/// The same, while everybody but the orchestrator asks for far more than it may hear.
pub async fn who_asks_for_more_hears_no_more(site: &Site) {
    everybody_says_everything(site, true).await;
}

async fn everybody_says_everything(site: &Site, is_greedy: bool) {
    let everybody = site.everybody();
    let stranger = ComponentId(Uuid::new_v4());
    let ids: Vec<ComponentId> = everybody.iter().map(|identity| identity.component).chain([stranger]).collect();
    let mut clients = Vec::new();
    for identity in &everybody {
        let mut client = listening(identity).await;
        if is_greedy && identity.certificate.component_type != ComponentType::Orchestrator {
            ask_for_more(site, identity, &mut client).await;
        }
        clients.push(client);
    }
    let mut awaited: BTreeMap<ComponentId, BTreeSet<Heard>> = BTreeMap::new();
    let mut count = 0;
    for (speaker, client) in everybody.iter().zip(&mut clients) {
        for topic in contract(&ids) {
            count += 1;
            let words = format!("{MARK}{count}");
            let is_allowed = site.is_allowed(speaker, Act::Publish, &topic);
            let answer = client.say(&topic, &words).await.expect("a message is answered");
            let is_as_it_should = match answer {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => is_allowed,
                PubAckReason::NotAuthorized => !is_allowed,
                _ => false,
            };
            assert!(is_as_it_should, "{} to {topic}: {answer:?}", speaker.certificate.component_type);
            for listener in everybody.iter().filter(|_| is_allowed) {
                // Who asks for everything gets all that the broker lets it have.
                let (component_type, own) = (listener.certificate.component_type, listener.component);
                let is_heard = if is_greedy && component_type != ComponentType::Orchestrator {
                    site.is_allowed(listener, Act::Subscribe, &topic)
                } else {
                    is_granted(component_type, Act::Subscribe, &topic, own)
                };
                if is_heard {
                    awaited.entry(own).or_default().insert((topic.clone(), words.clone()));
                }
            }
        }
    }
    // After all that, everybody is called once: what comes at all has come before.
    for listener in &everybody {
        let (caller, topic) = site.call(listener.component);
        let caller = everybody.iter().position(|identity| identity.component == caller.component).expect("is there");
        let words = format!("{MARK}last");
        assert!(clients[caller].is_taken(&topic.to_string(), &words).await, "{topic}");
        awaited.entry(listener.component).or_default().insert((topic.to_string(), words));
    }
    for (listener, client) in everybody.iter().zip(&mut clients) {
        let awaited = &awaited[&listener.component];
        let heard = client.heard(awaited).await.iter().filter(|(_, words)| words.starts_with(MARK));
        let more: Vec<_> = heard.filter(|heard| !awaited.contains(*heard)).collect();
        assert!(more.is_empty(), "{} heard {more:?}", listener.certificate.component_type);
        assert!(awaited.len() > 1, "{} was meant to hear something", listener.certificate.component_type);
    }
}

/// Subscribes to what the table does not give; only some brokers say that they do not give it.
async fn ask_for_more(site: &Site, identity: &Identity, client: &mut Client) {
    let (own, other) = (identity.component, if identity.component == site.b.component { &site.a } else { &site.b });
    let granted = filters(identity);
    for filter in attacks(own, other.component).into_iter().filter(|filter| !granted.contains(filter)) {
        let codes = client.subscribe(&[&filter]).await.expect("a subscription is answered");
        if site.is_embedded() {
            assert_eq!(codes, [SubscribeReasonCode::NotAuthorized], "{filter}");
        }
    }
    // A mixed SUBSCRIBE is answered filter by filter.
    let codes = client.subscribe(&["#", &granted[0]]).await.expect("a subscription is answered");
    assert!(matches!(codes.as_slice(), [_, SubscribeReasonCode::Success(_)]), "{codes:?}");
    assert!(!site.is_embedded() || codes[0] == SubscribeReasonCode::NotAuthorized, "{codes:?}");
}

/// Topics that are none of the contract are taken from nobody.
pub async fn what_is_no_topic_of_the_contract_is_refused(site: &Site) {
    let own = site.a.component;
    for topic in [
        "é/x",
        "$SYS/x",
        "$CONTROL/x",
        "/status",
        "status/x",
        "/",
        "x",
        &format!("/status/{own}/x"),
        &format!("/{own}"),
    ] {
        // Some are answered, after some the connection ends.
        let mut client = Client::of(&site.a).await.expect("a component is let in");
        assert!(!client.is_taken(topic, "x").await, "{topic}");
    }
}

/// Whoever claims another's client id is refused, or goes by its own all the same; the other one notices nothing.
pub async fn nobody_takes_a_client_id_that_is_not_its_certificates(site: &Site) {
    let (a, b) = (&site.a, &site.b);
    let mut repository = listening(&site.repository).await;
    let mut owner = listening(b).await;
    let [(_, to_a), (_, to_b)] = [a, b].map(|identity| site.call(identity.component));
    for (number, claimed) in
        [b.component.to_string(), "orchestrator".to_owned(), format!("{}/x", a.component), String::new()]
            .into_iter()
            .enumerate()
    {
        let words = format!("{MARK}{number}");
        match Client::connect(options(a, &claimed)).await {
            Err(_) => assert!(repository.is_taken(&to_b.to_string(), &words).await),
            Ok(mut client) => {
                assert!(!site.is_embedded(), "{claimed}");
                for filter in filters(a).into_iter().chain(filters(b)) {
                    client.subscribe(&[&filter]).await.expect("a subscription is answered");
                }
                assert!(!client.is_taken(&Topic::Status(b.component).to_string(), &words).await, "{claimed}");
                assert!(client.is_taken(&Topic::Status(a.component).to_string(), &words).await, "{claimed}");
                for topic in [&to_b, &to_a] {
                    assert!(repository.is_taken(&topic.to_string(), &words).await, "{topic}");
                }
                let own = BTreeSet::from([(to_a.to_string(), words.clone())]);
                assert_eq!(*client.heard(&own).await, own, "{claimed}");
            }
        }
        owner.heard(&BTreeSet::from([(to_b.to_string(), words)])).await;
    }
    assert!(owner.is_taken(&Topic::Status(b.component).to_string(), "x").await);
}

/// A component that connects again takes the place of its own older connection.
pub async fn a_component_that_comes_again_takes_its_own_place(site: &Site) {
    let mut older = Client::of(&site.b).await.expect("a component is let in");
    let mut newer = Client::of(&site.b).await.expect("a component is let in");
    assert!(newer.is_taken(&Topic::Status(site.b.component).to_string(), "x").await);
    let ended = async { while older.next().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the older connection ends");
}

/// A will is refused, or not published, where its component may not publish.
pub async fn a_will_speaks_for_its_own_component_only(site: &Site) {
    let (a, b, victim) = (site.a.component, site.b.component, ComponentId(Uuid::new_v4()));
    let listeners: Vec<&Identity> = site.everybody().into_iter().filter(|identity| identity.component != a).collect();
    let mut clients = Vec::new();
    for identity in &listeners {
        clients.push(listening(identity).await);
    }
    let forged = format!("{MARK}forged");
    for topic in [
        Topic::Status(victim),
        Topic::Status(b),
        Topic::Admin(a),
        Topic::Admin(b),
        Topic::AdminUp(b, "heartbeat-request".to_owned()),
        Topic::CollectionResults(b),
        Topic::EvaluationResults(a),
        Topic::Collection("oval".to_owned()),
        Topic::Evaluation("xccdf".to_owned()),
        site.call(b).1,
        site.call(site.repository.component).1,
        site.call(site.evaluator.component).1,
    ] {
        if broke_off(&site.a, &topic, &forged).await {
            assert!(!site.is_embedded(), "{topic}");
        }
    }
    // One that it may publish, by the same means: so the others would have come as well.
    let (own, words) = (Topic::CollectionResults(a), format!("{MARK}gone"));
    assert!(broke_off(&site.a, &own, &words).await);
    for (identity, client) in listeners.iter().zip(&mut clients) {
        let awaited = if identity.component == site.repository.component {
            BTreeSet::from([(own.to_string(), words.clone())])
        } else {
            BTreeSet::new()
        };
        let heard = client.heard(&awaited).await;
        assert!(heard.iter().all(|(_, words)| *words != forged), "{heard:?}");
    }
    for listener in &listeners {
        let (caller, topic) = site.call(listener.component);
        let place = |id| listeners.iter().position(|identity| identity.component == id).expect("is there");
        let (caller, words) = (place(caller.component), format!("{MARK}last"));
        assert!(clients[caller].is_taken(&topic.to_string(), &words).await, "{topic}");
        let last = BTreeSet::from([(topic.to_string(), words)]);
        let heard = clients[place(listener.component)].heard(&last).await;
        assert!(heard.iter().all(|(_, words)| *words != forged), "{heard:?}");
    }
}

/// Connects with a will and breaks off; `false` where the broker does not take the will. When the component is in
/// again, the broker has seen its older connection end.
async fn broke_off(identity: &Identity, topic: &Topic, words: &str) -> bool {
    let mut with_will = options(identity, &identity.component.to_string());
    with_will.set_last_will(LastWill::new(topic.to_string(), words.to_owned(), QoS::AtLeastOnce, false, None));
    let Ok(client) = Client::connect(with_will).await else { return false };
    drop(client);
    Client::of(identity).await.expect("a component is let in");
    true
}

/// The largest message of a collector arrives.
pub async fn a_message_may_be_as_large_as_the_limits_say(site: &Site) {
    let mut repository = listening(&site.repository).await;
    let mut collector = Client::of(&site.a).await.expect("a component is let in");
    let topic = Topic::CollectionResults(site.a.component).to_string();
    let words = "x".repeat(PAYLOAD_BYTES_MAX);
    assert!(collector.is_taken(&topic, &words).await);
    repository.heard(&BTreeSet::from([(topic, words)])).await;
}

/// A certificate of another installation opens nothing.
pub async fn a_certificate_of_another_ca_is_refused(site: &Site) {
    let other = Installation::orchestrator().await;
    let foreign = enrolled(&other, ComponentType::PostureCollectionService, "foreign").await;
    // Right address and CA to check the server by, wrong certificate to show.
    let tls = bus::tls::member(&site.a.cas, foreign.certificate_der.clone(), foreign.key_pkcs8.clone())
        .expect("keys that fit");
    for claimed in [foreign.component, site.a.component] {
        let mut options = options(&site.a, &claimed.to_string());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.clone())));
        assert!(Client::connect(options).await.is_err());
    }
}

/// Connections that say nothing keep nobody out.
pub async fn a_silent_peer_keeps_nobody_out(site: &Site) {
    let mut silent = Vec::new();
    for _ in 0..50 {
        let connection = tokio::net::TcpStream::connect((site.a.host.as_str(), site.a.port)).await;
        silent.push(connection.expect("a connection"));
    }
    let mut client = Client::of(&site.a).await.expect("a component is let in");
    assert!(client.is_taken(&Topic::Status(site.a.component).to_string(), "x").await);
}
