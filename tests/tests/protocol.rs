//! What the listener keeps of MQTT 5 and of MQTT 3.1.1, on one port, as a client sees it that is not ours.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::{Duration, Instant};

use bus::Trust;
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::message::{ComponentRegistrationRequest, ComponentRegistrationResponse};
use proto::operator::Ask;
use proto::seal::Sealer;
use proto::topic::Topic;
use service::identity::{self, Identity};
use service::token::JoinToken;
use system_tests::attack::{PROMPT, connected, connected_as, envelope, heartbeat, is_answered, is_served, sealed};
use system_tests::processes::binaries;
use system_tests::raw::{
    Client, Connect, DISCONNECT, Packet, Publish, Version, Will, kind, packet, puback, reason, subscribe, unsubscribe,
};
use system_tests::{Installation, eventually};
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;
const REPOSITORY: ComponentType = ComponentType::RepositoryInterface;
const BOTH: [Version; 2] = [Version::V5, Version::V311];

/// From a repository to a collector.
fn to(collector: &Identity, from: &Identity) -> Topic {
    Topic::Directed { to: collector.component, operation: "ack".to_owned(), from: from.component }
}

/// A collector that hears what repositories say to it.
async fn listening(identity: &Identity, version: Version, connect: &Connect) -> Client {
    let mut client = connected_as(identity, version, connect).await;
    assert_eq!(client.subscribe(&[&format!("/{}/+/+", identity.component)]).await, Some(vec![1]));
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_are_served_on_one_port_and_hear_each_other() {
    let installation = Installation::orchestrator().await;
    let collector = installation.enrolled(PCS, "collector").await;
    let repository = installation.enrolled(REPOSITORY, "repository").await;
    for subscribing in BOTH {
        is_served(&collector, subscribing).await;
        let mut subscriber = listening(&collector, subscribing, &Connect::of(collector.component)).await;
        for publishing in BOTH {
            let mut publisher = connected(&repository, publishing).await;
            for qos in [0, 1] {
                let payload = format!("{publishing:?} {qos}").into_bytes();
                let publish = Publish { qos, ..Publish::of(to(&collector, &repository), payload.clone()) };
                publisher.send(&publish.bytes(publishing)).await.unwrap();
                let delivered = subscriber.delivery().await.unwrap();
                assert_eq!((delivered.topic, delivered.payload), (to(&collector, &repository).to_string(), payload));
            }
        }
        is_answered_by_orchestrator(&mut subscriber, &collector).await;
    }
}

async fn is_answered_by_orchestrator(client: &mut Client, identity: &Identity) {
    assert_eq!(client.subscribe(&[&Topic::Admin(identity.component).to_string()]).await, Some(vec![1]));
    is_answered(client, identity).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_joins_over_either_version() {
    let installation = Installation::orchestrator().await;
    let (address, fingerprint) = (installation.address().await, installation.ca_fingerprint());
    for (number, version) in BOTH.into_iter().enumerate() {
        let token: JoinToken = installation.token(PCS).await.parse().unwrap();
        let key = identity::key(&installation.data.path().join(format!("key-{number}"))).unwrap();
        let own = ComponentId(Uuid::new_v4());
        let mut client = Client::stranger(&address, &fingerprint, version).await.unwrap();
        assert_eq!(client.connect(&Connect::of(own)).await, Some(0));
        assert_eq!(client.subscribe(&[&Topic::RegistrationAnswer(own).to_string()]).await, Some(vec![1]));
        let certificate_signing_request = identity::signing_request(&key).unwrap();
        let request = ComponentRegistrationRequest {
            component_unique_identifier: None,
            component_type: PCS,
            component_name: format!("by hand {number}"),
            component_description: None,
            join_proof: Some(token.proof(&certificate_signing_request)),
            certificate_signing_request,
        };
        let sealer = Sealer::with_bare_key(key.serialized_der()).unwrap();
        let message = sealer.seal(&envelope(own, &request).to_bytes());
        assert_eq!(client.publish(Publish::of(Topic::Registration, message)).await, Some(0));
        let delivered = client.delivery().await.unwrap();
        let trust = Trust::pinned(vec![fingerprint.clone()]);
        let answer = trust.open(&delivered.topic, &delivered.payload, own, Timestamp::now()).unwrap();
        let answer: ComponentRegistrationResponse = answer.envelope().decode().unwrap();
        let roster = installation.roster().await;
        assert!(roster.iter().any(|entry| entry.component == answer.component_unique_identifier));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mqtt_3_1_1_has_no_word_for_ends_the_connection() {
    let installation = Installation::orchestrator().await;
    let collector = installation.enrolled(PCS, "collector").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let repository = installation.enrolled(REPOSITORY, "repository").await;
    let (own, other) = (collector.component, victim.component);
    let mut watcher = connected(&repository, Version::V5).await;
    assert_eq!(watcher.subscribe(&["/collection/results/+"]).await, Some(vec![1]));
    let allowed = Publish::of(Topic::CollectionResults(own), *b"denied");
    let denied = [
        Publish { topic: Topic::CollectionResults(other).to_string().into_bytes(), ..allowed.clone() },
        Publish { topic: Topic::Admin(other).to_string().into_bytes(), ..allowed.clone() },
        Publish { payload: Vec::new(), ..allowed.clone() },
        Publish { qos: 2, ..allowed.clone() },
        Publish { qos: 3, ..allowed.clone() },
        Publish { packet_id: 0, ..allowed.clone() },
    ];
    for publish in denied.iter().flat_map(|one| [one.clone(), Publish { qos: one.qos & 2, ..one.clone() }]) {
        // With QoS 0 there is no id that could be zero.
        if publish.qos == 0 && publish.packet_id == 0 {
            continue;
        }
        let mut client = connected(&collector, Version::V311).await;
        client.send(&publish.bytes(Version::V311)).await.unwrap();
        assert_eq!(client.next().await, None, "{publish:?}");
    }
    // Filters have a code of their own, one each.
    let mut client = connected(&collector, Version::V311).await;
    let own_filter = Topic::Admin(own).to_string();
    let failed = reason::V311_SUBSCRIPTION_FAILED;
    let codes = client.subscribe(&["#", &own_filter, "$share/g/#", &Topic::Admin(other).to_string()]).await;
    assert_eq!(codes, Some(vec![failed, 1, failed, failed]));
    client.send(&subscribe(Version::V311, 7, &[(own_filter.as_bytes(), 2)])).await.unwrap();
    assert!(matches!(client.answer().await, Some(Packet::SubAck(7, codes)) if codes == [1]));
    is_answered(&mut client, &collector).await;
    // What was denied has reached nobody.
    assert_eq!(client.publish(Publish { payload: b"allowed".to_vec(), ..allowed }).await, Some(0));
    assert_eq!(watcher.delivery().await.unwrap().payload, b"allowed");
    // Who is out is told so in the words of its version.
    installation.ask(Ask::Dismiss { component: own, is_ban: false, reason: String::new() }).await;
    let mut client = Client::member(&collector, Version::V311).await.unwrap();
    assert_eq!(client.connect(&Connect::of(own)).await, Some(reason::V311_NOT_AUTHORISED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_says_what_it_does_not_do() {
    let installation = Installation::orchestrator().await;
    let collector = installation.enrolled(PCS, "collector").await;
    for (is_clean, session_expiry) in [(true, None), (true, Some(600)), (false, Some(600)), (false, Some(u32::MAX))] {
        // A second time, when there could be something to remember.
        for _ in 0..2 {
            let connect = Connect { is_clean, session_expiry, ..Connect::of(collector.component) };
            let mut client = Client::member(&collector, Version::V5).await.unwrap();
            client.send(&connect.bytes(Version::V5)).await.unwrap();
            let Some(Packet::Welcome { is_session_present, code: 0, numbers }) = client.next().await else { panic!() };
            assert!(!is_session_present);
            // Maximum QoS 1; no retained messages, no subscription ids, no shared subscriptions, no aliases.
            for (id, value) in [(0x24, 1), (0x25, 0), (0x29, 0), (0x2a, 0)] {
                assert!(numbers.contains(&(id, value)), "{id:#x} in {numbers:?}");
            }
            assert!(!numbers.iter().any(|(id, value)| *id == 0x22 && *value > 0), "{numbers:?}");
            client.subscribe(&[&Topic::Admin(collector.component).to_string()]).await.unwrap();
        }
    }
    // Nobody is silent for longer than ten minutes, whatever it asks for; MQTT 5 has a word for that.
    for (keep_alive, told) in [(600, None), (0, Some(600)), (601, Some(600)), (u16::MAX, Some(600))] {
        let mut client = Client::member(&collector, Version::V5).await.unwrap();
        let connect = Connect { keep_alive, ..Connect::of(collector.component) };
        client.send(&connect.bytes(Version::V5)).await.unwrap();
        let Some(Packet::Welcome { code: 0, numbers, .. }) = client.next().await else { panic!() };
        assert_eq!(numbers.iter().find(|(id, _)| *id == 0x13).map(|(_, value)| *value), told, "{keep_alive}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_for_one_and_a_half_keep_alives_is_ended() {
    let installation = Installation::orchestrator().await;
    let silent = installation.enrolled(PCS, "silent").await;
    let pinging = installation.enrolled(PCS, "pinging").await;
    for version in BOTH {
        let of = |identity: &Identity| Connect { keep_alive: 1, ..Connect::of(identity.component) };
        let mut client = connected_as(&silent, version, &of(&silent)).await;
        let mut alive = connected_as(&pinging, version, &of(&pinging)).await;
        let began = Instant::now();
        let ended = async {
            client.end().await;
            began.elapsed()
        };
        let pings = async {
            while began.elapsed() < Duration::from_secs(3) {
                tokio::time::sleep(Duration::from_millis(300)).await;
                assert!(alive.is_alive().await);
            }
        };
        let (elapsed, ()) = tokio::join!(ended, pings);
        assert!(elapsed > Duration::from_millis(1_400) && elapsed < PROMPT, "{elapsed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_more_than_it_said_that_it_takes() {
    let installation = Installation::orchestrator().await;
    let collector = installation.enrolled(PCS, "collector").await;
    let repository = installation.enrolled(REPOSITORY, "repository").await;
    let mut publisher = connected(&repository, Version::V5).await;
    for most in [1, 2, 7] {
        let connect = Connect { receive_maximum: Some(most), ..Connect::of(collector.component) };
        let mut subscriber = listening(&collector, Version::V5, &connect).await;
        let total = 3 * most + 1;
        for number in 0..total {
            let publish = Publish::of(to(&collector, &repository), number.to_be_bytes());
            assert_eq!(publisher.publish(publish).await, Some(0));
        }
        let mut waiting = Vec::new();
        for _ in 0..most {
            waiting.push(subscriber.unacknowledged_delivery().await.unwrap());
        }
        assert!(subscriber.is_quiet_for(Duration::from_millis(300)).await, "more than {most} came");
        // Acknowledgements for what never came make no room.
        let known: Vec<u16> = waiting.iter().map(|delivered| delivered.packet_id).collect();
        for unknown in (1_000..1_010).filter(|id| !known.contains(id)) {
            subscriber.send(&puback(unknown)).await.unwrap();
        }
        assert!(subscriber.is_alive().await);
        assert!(subscriber.is_quiet_for(Duration::from_millis(300)).await, "more than {most} came");
        // One acknowledged, one more; whichever it is, and however often it is said.
        let mut seen = waiting.len();
        while let Some(delivered) = waiting.pop() {
            for _ in 0..2 {
                subscriber.send(&puback(delivered.packet_id)).await.unwrap();
            }
            if seen < usize::from(total) {
                waiting.insert(0, subscriber.unacknowledged_delivery().await.unwrap());
                seen += 1;
            }
            assert!(waiting.len() <= usize::from(most));
        }
        assert_eq!(seen, usize::from(total));
    }
    // There is no receiving nothing.
    let connect = Connect { receive_maximum: Some(0), ..Connect::of(collector.component) };
    let mut client = Client::member(&collector, Version::V5).await.unwrap();
    assert_ne!(client.connect(&connect).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_come_in_any_order() {
    const COUNT: u16 = 250;
    let installation = Installation::orchestrator().await;
    let collector = installation.enrolled(PCS, "collector").await;
    let repository = installation.enrolled(REPOSITORY, "repository").await;
    for version in BOTH {
        let mut subscriber = listening(&collector, version, &Connect::of(collector.component)).await;
        let mut publisher = connected(&repository, version).await;
        let mut numbers = Vec::new();
        let publish = async {
            for number in 0..COUNT {
                let publish = Publish::of(to(&collector, &repository), number.to_be_bytes());
                assert_eq!(publisher.publish(publish).await, Some(0));
            }
        };
        let take = async {
            while numbers.len() < usize::from(COUNT) {
                // Five at a time, the last one first; some of them twice, and some that never came.
                let mut five = Vec::new();
                for _ in 0..5 {
                    five.push(subscriber.unacknowledged_delivery().await.unwrap());
                }
                numbers.extend(five.iter().map(|it| u16::from_be_bytes(it.payload.as_slice().try_into().unwrap())));
                for delivered in five.iter().rev() {
                    let acknowledged = [puback(delivered.packet_id), puback(60_001), puback(delivered.packet_id)];
                    subscriber.send(&acknowledged.concat()).await.unwrap();
                }
            }
        };
        tokio::join!(publish, take);
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
        assert!(subscriber.is_alive().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_nobody_is_acknowledged_as_one() {
    let installation = Installation::orchestrator().await;
    let collector = installation.enrolled(PCS, "collector").await;
    let repository = installation.enrolled(REPOSITORY, "repository").await;
    let topic = to(&collector, &repository);
    let nobody =
        Topic::Directed { to: ComponentId(Uuid::new_v4()), operation: "ack".to_owned(), from: repository.component };
    let mut publisher = connected(&repository, Version::V5).await;
    let mut says = async |topic: &Topic| publisher.publish(Publish::of(topic, *b"x")).await.unwrap();
    for _ in 0..2 {
        assert_eq!(says(&nobody).await, reason::NO_MATCHING_SUBSCRIBERS);
        assert_eq!(says(&topic).await, reason::NO_MATCHING_SUBSCRIBERS);
        let mut client = listening(&collector, Version::V5, &Connect::of(collector.component)).await;
        assert_eq!(says(&topic).await, reason::SUCCESS);
        assert_eq!(client.delivery().await.unwrap().topic, topic.to_string());
        client.send(&DISCONNECT).await.unwrap();
        client.end().await;
        eventually("nobody is there", async || (says(&topic).await == reason::NO_MATCHING_SUBSCRIBERS).then_some(()))
            .await;
    }
    // It is gone: whoever comes later does not get what was for nobody.
    let mut client = listening(&collector, Version::V5, &Connect::of(collector.component)).await;
    assert!(client.is_alive().await && client.is_quiet_for(Duration::from_millis(300)).await);
    // The other version has one answer.
    let mut publisher = connected(&repository, Version::V311).await;
    assert_eq!(publisher.publish(Publish::of(&nobody, *b"x")).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_unsubscribes_hears_no_more_and_is_always_answered() {
    let installation = Installation::orchestrator().await;
    let collector = installation.enrolled(PCS, "collector").await;
    let repository = installation.enrolled(REPOSITORY, "repository").await;
    let own = format!("/{}/+/+", collector.component);
    for version in BOTH {
        let mut publisher = connected(&repository, version).await;
        let mut client = listening(&collector, version, &Connect::of(collector.component)).await;
        let filters: [&[u8]; 3] = [b"/never/subscribed", own.as_bytes(), b"#"];
        client.send(&unsubscribe(version, 9, &filters)).await.unwrap();
        let Some(Packet::UnsubAck(9, codes)) = client.answer().await else { panic!() };
        assert_eq!(codes.len(), if version == Version::V5 { 3 } else { 0 });
        let lost = Publish::of(to(&collector, &repository), *b"lost");
        assert!(publisher.publish(lost).await.is_some());
        assert_eq!(client.subscribe(&[&own]).await, Some(vec![1]));
        assert_eq!(publisher.publish(Publish::of(to(&collector, &repository), *b"heard")).await, Some(0));
        assert_eq!(client.delivery().await.unwrap().payload, b"heard");
        // Ids are numbers from one.
        for zero in [subscribe(version, 0, &[(own.as_bytes(), 1)]), packet(kind::SUBSCRIBE, &[0, 1, 0])] {
            let mut client = connected(&collector, version).await;
            client.send(&zero).await.unwrap();
            client.end().await;
        }
    }
}

/// A component that leaves a will, and somebody who hears it.
struct Heirs {
    identity: Identity,
    watcher: Client,
    topic: String,
}

impl Heirs {
    async fn of(installation: &Installation) -> Self {
        let identity = installation.enrolled(PCS, "mortal").await;
        let watching = installation.enrolled(REPOSITORY, "watching").await;
        let mut watcher = connected(&watching, Version::V5).await;
        assert_eq!(watcher.subscribe(&["/collection/results/+"]).await, Some(vec![1]));
        let topic = Topic::CollectionResults(identity.component).to_string();
        Self { identity, watcher, topic }
    }

    fn connect(&self, delay_seconds: Option<u32>, session_expiry: Option<u32>) -> Connect {
        let payload = b"will".to_vec();
        let topic = self.topic.clone().into_bytes();
        let will = Some(Will { topic, payload, qos: 1, is_retained: false, delay_seconds });
        Connect { will, session_expiry, ..Connect::of(self.identity.component) }
    }

    async fn client(&self, delay_seconds: Option<u32>, session_expiry: Option<u32>) -> Client {
        connected_as(&self.identity, Version::V5, &self.connect(delay_seconds, session_expiry)).await
    }

    /// How long it takes until the will comes.
    async fn inherits_after(&mut self, began: Instant) -> Duration {
        let delivered = self.watcher.delivery().await.unwrap();
        assert_eq!((delivered.topic, delivered.payload.as_slice()), (self.topic.clone(), b"will".as_slice()));
        began.elapsed()
    }

    async fn inherits_nothing_for(&mut self, duration: Duration) {
        assert!(self.watcher.is_quiet_for(duration).await, "a will came");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_comes_when_its_delay_or_its_session_has_ended() {
    let installation = Installation::orchestrator().await;
    let mut heirs = Heirs::of(&installation).await;
    // Without a delay, and where the session does not outlive the connection, at once.
    for (delay, expiry) in
        [(None, None), (None, Some(600)), (Some(600), None), (Some(600), Some(0)), (Some(0), Some(600))]
    {
        let client = heirs.client(delay, expiry).await;
        let began = Instant::now();
        drop(client);
        let after = heirs.inherits_after(began).await;
        assert!(after < Duration::from_secs(2), "{delay:?} {expiry:?}: {after:?}");
    }
    // Otherwise after the shorter of both.
    for (delay, expiry) in [(2, 600), (600, 2), (2, u32::MAX)] {
        let client = heirs.client(Some(delay), Some(expiry)).await;
        let began = Instant::now();
        drop(client);
        let after = heirs.inherits_after(began).await;
        assert!(after > Duration::from_millis(1_900) && after < PROMPT, "{delay} {expiry}: {after:?}");
    }
    // Whoever asks for it by name leaves one, too.
    let mut client = heirs.client(None, None).await;
    let began = Instant::now();
    client.send(&packet(kind::DISCONNECT, &[reason::WITH_WILL])).await.unwrap();
    heirs.inherits_after(began).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_in_time_or_says_goodbye_leaves_no_will() {
    let installation = Installation::orchestrator().await;
    let mut heirs = Heirs::of(&installation).await;
    for is_clean in [false, true] {
        drop(heirs.client(Some(2), Some(600)).await);
        let back = Connect { is_clean, session_expiry: Some(600), ..Connect::of(heirs.identity.component) };
        let client = connected_as(&heirs.identity, Version::V5, &back).await;
        heirs.inherits_nothing_for(Duration::from_millis(2_500)).await;
        drop(client);
    }
    for version in BOTH {
        let connect = heirs.connect(None, None);
        let mut client = connected_as(&heirs.identity, version, &connect).await;
        client.send(&DISCONNECT).await.unwrap();
        client.end().await;
    }
    let mut client = heirs.client(Some(1), Some(600)).await;
    client.send(&DISCONNECT).await.unwrap();
    client.end().await;
    heirs.inherits_nothing_for(Duration::from_millis(1_500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_put_out_leaves_no_will() {
    let installation = Installation::orchestrator().await;
    let mut heirs = Heirs::of(&installation).await;
    let mut client = heirs.client(None, None).await;
    installation.ask(Ask::Dismiss { component: heirs.identity.component, is_ban: false, reason: String::new() }).await;
    client.end().await;
    // What it may say ends when it is put out, and not one message later.
    heirs.inherits_nothing_for(Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_at_the_front_is_counted() {
    let installation = Installation::orchestrator().await;
    let collector = installation.enrolled(PCS, "collector").await;
    let count = async |name: &str| {
        let status = installation.handle.status().await;
        status.broker_counts.iter().find(|count| count.name == name).unwrap().value
    };
    // The orchestrator alone: enrolling has let go of its connection.
    eventually("nobody else is connected", async || (count("connected").await == 1).then_some(())).await;
    let (before, denied) = (count("connections_total").await, count("publishes_denied_total").await);
    let mut client = Client::member(&collector, Version::V5).await.unwrap();
    assert_eq!(client.connect(&Connect::of(collector.component)).await, Some(0));
    assert_eq!((count("connections_total").await, count("connected").await), (before + 1, 2));
    let forged = sealed(&collector, &heartbeat(collector.component));
    client.publish(Publish::of(Topic::Status(ComponentId(Uuid::new_v4())), forged)).await;
    assert_eq!(count("publishes_denied_total").await, denied + 1);
    let output = Command::new(binaries().join("muster"))
        .args(["metrics", "--data"])
        .arg(installation.data.path().join("orchestrator"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let is_there = |line: String| assert!(text.lines().any(|have| have == line), "{line} in {text}");
    is_there(format!("muster_broker_connections_total {}", before + 1));
    is_there(format!("muster_broker_publishes_denied_total {}", denied + 1));
    is_there("# TYPE muster_broker_connections counter".to_owned());
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    drop(client);
    eventually("its end is counted", async || (count("connected").await == 1).then_some(())).await;
}
