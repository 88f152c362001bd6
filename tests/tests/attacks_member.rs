//! A hostile collector against the others: it is fully enrolled, has its own certificate and key, speaks MQTT by the
//! byte, and keeps to no rule. What it floods with is in `attacks_flood`, what it does with keys in `attacks_trust`.
//!
//! | threat | test |
//! |---|---|
//! | replay | `a_recorded_message_has_its_effect_once` |
//! | modify | `a_message_that_was_changed_is_refused_wherever_it_was_changed` |
//! | inject, spoofed `from` | `a_message_speaks_for_who_sealed_it_on_its_own_topics_only` |
//! | expired, too old, from the future, for somebody else | `a_message_out_of_its_time_or_for_somebody_else_is_refused` |
//! | clock skew that makes data look old or new | the same, and `an_observation_from_the_future_is_refused`; what was seen earlier never overwrites: `what_was_seen_earlier_never_overwrites_what_was_seen_later` in `repository` |
//! | oversize | `what_is_larger_than_the_limit_is_not_even_read`, `a_first_packet_is_as_long_as_a_first_packet_may_be` |
//! | foreign response topic, forged `sender`, topic alias, subscription id | `no_property_smuggles_in_a_topic_an_answer_or_a_name` |
//! | retained, empty and QoS 2 publishes | `nothing_stays_behind_at_the_broker` |
//! | a will for somebody else, or that stays | `a_will_that_stays_or_goes_elsewhere_does_not_get_in`, and `isolation`: `a_will_speaks_for_its_own_component_only` |
//! | another's session | `isolation`: `nobody_takes_a_client_id_that_is_not_its_certificates`; `kills`: `a_client_id_with_characters_of_topics_is_refused_however_often_it_comes` |
//! | exploit data | `what_a_component_says_of_itself_is_text_and_nothing_else` |
//! | false data, omitting | `workflows`: `a_collector_is_believed_about_its_own_endpoint_only`, `an_evaluator_is_believed_about_what_it_was_asked_only`, `another_collectors_status_does_not_end_a_task`, `a_broadcast_with_a_silent_collector_ends_partial_at_the_deadline` |
//! | abuse of confidential results | `isolation`: `what_is_said_reaches_whom_the_table_names_and_nobody_else` |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bus::Context;
use jiff::{SignedDuration, Timestamp};
use proto::capability::{Capability, ComponentType};
use proto::content::ContentHash;
use proto::envelope::Envelope;
use proto::fault::FaultCode;
use proto::id::{ComponentId, RequestId};
use proto::limits::PAYLOAD_BYTES_MAX;
use proto::message::{
    CapabilityAdvertisement, CollectedPart, CollectionResults, Message as _, Phase, StatusNotification,
};
use proto::observation::{EndpointFacts, Flag, Method};
use proto::operator::RosterEntry;
use proto::seal::Sealer;
use proto::topic::Topic;
use service::member::Member;
use system_tests::attack::{
    Attacker, connected, connected_as, envelope, heartbeat, heartbeats_of, is_ended_at_once, is_served, sealed,
};
use system_tests::raw::{Client, Connect, Packet, Publish, Version, Will, kind, length, property, reason};
use system_tests::{Installation, eventually};
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;

/// What the roster says of a component.
async fn entry(installation: &Installation, component: ComponentId) -> RosterEntry {
    installation.roster().await.into_iter().find(|entry| entry.component == component).unwrap()
}

fn advertisement(software_version: &str) -> CapabilityAdvertisement {
    CapabilityAdvertisement {
        capabilities: Capability::all_of(PCS),
        endpoints: Vec::new(),
        software_version: software_version.to_owned(),
        ..CapabilityAdvertisement::default()
    }
}

fn advertised_by(component: ComponentId) -> Topic {
    Topic::AdminUp(component, CapabilityAdvertisement::KIND.to_owned())
}

/// A status whose only effect is that it is counted under its code.
fn status(publisher: ComponentId, code: &str) -> StatusNotification {
    StatusNotification {
        publisher,
        message: "forged".to_owned(),
        code: code.to_owned(),
        request: None,
        phase: Some(Phase::Completed),
        progress: None,
        fault: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_message_has_its_effect_once() {
    let installation = Installation::orchestrator().await;
    let mut attacker = Attacker::join(&installation).await;
    let (own, topic) = (attacker.own(), heartbeats_of(attacker.own()));
    let question = heartbeat(own);
    let recorded = sealed(&attacker.identity, &question);
    for _ in 0..3 {
        attacker.say(&topic, recorded.clone()).await;
    }
    let again = Publish { is_duplicate: true, ..Publish::of(&topic, recorded.clone()) };
    assert_eq!(attacker.client.publish(again).await, Some(0));
    // Sealed once more it is the same message; its id says so.
    attacker.say(&topic, sealed(&attacker.identity, &Envelope { sent: Timestamp::now(), ..question.clone() })).await;
    assert_eq!(attacker.believed().await, [question.id]);
    // In another session, too.
    attacker.reconnect().await;
    attacker.say(&topic, recorded).await;
    assert!(attacker.believed().await.is_empty());
    assert_eq!(installation.refused(FaultCode::Replayed).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_changed_is_refused_wherever_it_was_changed() {
    let installation = Installation::orchestrator().await;
    let mut attacker = Attacker::join(&installation).await;
    let own = attacker.own();
    let honest = sealed(&attacker.identity, &envelope(own, &advertisement("honest")));
    let text = String::from_utf8(honest.clone()).unwrap();
    let (line, body) = text.split_once('\n').unwrap();
    let (header, signature) = line.split_once("..").unwrap();
    let json = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let with_header = |json: &str, signature: &str| format!("{}..{signature}\n{body}", URL_SAFE_NO_PAD.encode(json));
    let stranger = Sealer::with_bare_key(&attacker.identity.key_pkcs8).unwrap();
    let changed = [
        text.replace("honest", "forged"),
        text.replace(&own.to_string(), &Uuid::nil().to_string()),
        text.replace("\"v\":1", "\"v\":1 "),
        format!("{text} "),
        format!("{text}\n{text}"),
        format!("{line}\n{text}"),
        text[..text.len() - 1].to_owned(),
        format!("{header}..{}\n{body}", &signature[..signature.len() - 4]),
        format!("{header}..{}\n{body}", "A".repeat(signature.len())),
        format!("{header}..\n{body}"),
        format!("{header}.{signature}\n{body}"),
        format!("..{signature}\n{body}"),
        body.to_owned(),
        format!("\n{body}"),
        "\n".to_owned(),
        format!("{}\n{body}", "A".repeat(16 * 1024)),
        with_header(&json.replace("EdDSA", "none"), ""),
        with_header(&json.replace("EdDSA", "HS256"), signature),
        with_header(&json.replace("false", "true"), signature),
        with_header(&json.replace("\"b64\"]", "\"exp\"]"), signature),
        with_header("{}", signature),
        with_header(&json.replacen('{', "{\"kid\":\"x\",", 1), signature),
        String::from_utf8(stranger.seal(body.as_bytes())).unwrap(),
    ];
    let refused = installation.refused_in_all().await;
    for (number, message) in changed.iter().enumerate() {
        assert!(*message != text, "change {number} changes nothing");
        attacker.say(advertised_by(own), message.clone().into_bytes()).await;
    }
    // Bytes that are no text, in each of the three parts.
    for at in [0, header.len() + 10, text.len() - 10] {
        let mut bytes = honest.clone();
        bytes[at] = 0xff;
        attacker.say(advertised_by(own), bytes).await;
    }
    attacker.believed().await;
    assert_ne!(entry(&installation, own).await.software_version.as_deref(), Some("forged"));
    assert_eq!(installation.refused_in_all().await, refused + changed.len() as u64 + 3);
    // As it was sealed it is believed.
    attacker.say(advertised_by(own), honest).await;
    attacker.believed().await;
    assert_eq!(entry(&installation, own).await.software_version.as_deref(), Some("honest"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_speaks_for_who_sealed_it_on_its_own_topics_only() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let mut attacker = Attacker::join(&installation).await;
    let (own, other) = (attacker.own(), victim.component);
    let before = entry(&installation, other).await.software_version;
    // What the victim has sealed, as whoever saw it has it, and what the attacker seals in its name.
    let theirs = sealed(&victim, &envelope(other, &advertisement("forged")));
    let in_their_name = sealed(&attacker.identity, &envelope(other, &advertisement("forged")));
    let own_status = sealed(&attacker.identity, &envelope(own, &status(own, "security.forged")));
    let their_status = sealed(&victim, &envelope(other, &status(other, "security.forged")));
    let as_publisher = sealed(&attacker.identity, &envelope(own, &status(other, "security.forged")));
    for message in [&theirs, &in_their_name] {
        // The broker does not let it through where it would be read as the victim's.
        let denied = attacker.client.publish(Publish::of(advertised_by(other), message.clone())).await;
        assert_eq!(denied, Some(reason::NOT_AUTHORISED));
    }
    let refused = installation.refused(FaultCode::NotAuthorized).await;
    let forged = [
        (advertised_by(own), theirs.clone()),
        (advertised_by(own), in_their_name.clone()),
        (Topic::Registration, theirs),
        (Topic::Registration, in_their_name),
        (Topic::Status(own), their_status),
        (Topic::Status(own), as_publisher),
        // A kind travels on its own topic only.
        (advertised_by(own), own_status.clone()),
        (Topic::AdminUp(own, "heartbeat-request".to_owned()), own_status.clone()),
        (Topic::Registration, own_status),
        (Topic::Status(own), sealed(&attacker.identity, &heartbeat(own))),
    ];
    for ((topic, message), expected) in forged.into_iter().zip(refused + 1..) {
        attacker.say(&topic, message).await;
        eventually(&format!("the message on {topic} is refused"), async || {
            (installation.refused(FaultCode::NotAuthorized).await == expected).then_some(())
        })
        .await;
    }
    assert!(attacker.believed().await.is_empty());
    assert_eq!(entry(&installation, other).await.software_version, before);
    let counts = installation.handle.status().await.security_counts;
    assert!(!counts.iter().any(|(code, _)| code == "security.forged"), "{counts:?}");
    is_served(&victim, Version::V5).await;
}

/// What a message says, how its refusal is called, or that it is believed.
type Case = (&'static str, Box<dyn Fn(&mut Envelope)>, Option<FaultCode>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_out_of_its_time_or_for_somebody_else_is_refused() {
    let installation = Installation::orchestrator().await;
    let orchestrator = installation.handle.status().await.orchestrator;
    let mut attacker = Attacker::join(&installation).await;
    let (own, now) = (attacker.own(), Timestamp::now());
    let case = |what, change: Box<dyn Fn(&mut Envelope)>, code| -> Case { (what, change, code) };
    let sent = |offset: SignedDuration| -> Box<dyn Fn(&mut Envelope)> {
        Box::new(move |envelope| envelope.sent = now + offset)
    };
    let hours = SignedDuration::from_hours;
    let cases = [
        case("nothing changed", Box::new(|_| {}), None),
        case("expired", Box::new(move |it| it.expires = Some(now - hours(1))), Some(FaultCode::Expired)),
        case("not yet expired", Box::new(move |it| it.expires = Some(now + hours(1))), None),
        case("31 days old", sent(hours(-31 * 24)), Some(FaultCode::Expired)),
        case("29 days old", sent(hours(-29 * 24)), None),
        case("before the epoch", Box::new(|it| it.sent = Timestamp::MIN), Some(FaultCode::Expired)),
        case("an hour ahead", sent(hours(1)), Some(FaultCode::ClockSkew)),
        case("a minute ahead", sent(SignedDuration::from_mins(1)), None),
        case("at the end of time", Box::new(|it| it.sent = Timestamp::MAX), Some(FaultCode::ClockSkew)),
        case("of a later version", Box::new(|it| it.v = 2), Some(FaultCode::UnsupportedVersion)),
        case("of no version", Box::new(|it| it.v = 0), Some(FaultCode::UnsupportedVersion)),
        case("for the orchestrator", Box::new(move |it| it.to = Some(orchestrator)), None),
        case("for itself", Box::new(move |it| it.to = Some(own)), Some(FaultCode::NotAuthorized)),
        case("for nobody", Box::new(|it| it.to = Some(ComponentId(Uuid::nil()))), Some(FaultCode::NotAuthorized)),
        case("from nobody", Box::new(|it| it.from = ComponentId(Uuid::nil())), Some(FaultCode::NotAuthorized)),
        case("from the orchestrator", Box::new(move |it| it.from = orchestrator), Some(FaultCode::NotAuthorized)),
        case("of another kind", Box::new(|it| it.kind = "heartbeat-response".into()), Some(FaultCode::NotAuthorized)),
        case("of no kind", Box::new(|it| it.kind.clear()), Some(FaultCode::NotAuthorized)),
    ];
    let mut expected = Vec::new();
    for (what, change, code) in &cases {
        let mut message = heartbeat(own);
        change(&mut message);
        let before = match code {
            Some(code) => installation.refused(*code).await,
            None => installation.refused_in_all().await,
        };
        attacker.say(heartbeats_of(own), sealed(&attacker.identity, &message)).await;
        if code.is_none() {
            expected.push(message.id);
        }
        let believed = attacker.believed().await;
        assert_eq!(believed, expected.pop().into_iter().collect::<Vec<_>>(), "{what}");
        let after = match code {
            Some(code) => installation.refused(*code).await - 1,
            None => installation.refused_in_all().await,
        };
        assert_eq!(after, before, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_larger_than_the_limit_is_not_even_read() {
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    let topic = Topic::Status(attacker.component);
    // As much as it may: the broker takes it, and whoever reads it finds no seal.
    let mut client = connected(&attacker, Version::V5).await;
    let malformed = installation.refused(FaultCode::Malformed).await;
    assert_eq!(client.publish(Publish::of(&topic, vec![b'x'; PAYLOAD_BYTES_MAX])).await, Some(0));
    eventually("it is refused", async || {
        (installation.refused(FaultCode::Malformed).await == malformed + 1).then_some(())
    })
    .await;
    // More: the connection ends with the length, before the bytes.
    for announced in [PAYLOAD_BYTES_MAX + 64 * 1024, 268_435_455] {
        for first in [kind::PUBLISH, kind::PUBLISH | 0x02, kind::SUBSCRIBE, kind::UNSUBSCRIBE, kind::PUBACK] {
            let mut client = connected(&attacker, Version::V5).await;
            client.send(&[vec![first], length(announced), b"\0\x04".to_vec()].concat()).await.unwrap();
            is_ended_at_once(&mut client).await;
        }
    }
    let mut client = connected(&attacker, Version::V5).await;
    client.send(&[kind::PUBLISH, 0xff, 0xff, 0xff, 0xff, 0x7f]).await.unwrap();
    is_ended_at_once(&mut client).await;
    is_served(&attacker, Version::V5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_packet_is_as_long_as_a_first_packet_may_be() {
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    // Name and will of a component fit into a few kilobytes. More of it waits in memory for the rest, in as many
    // connections as there are places, before anybody has looked whether the component still is one.
    for announced in [512 * 1024, PAYLOAD_BYTES_MAX] {
        let mut client = Client::member(&attacker, Version::V5).await.unwrap();
        client.send(&[vec![kind::CONNECT], length(announced), b"\0\x04MQTT\x05".to_vec()].concat()).await.unwrap();
        is_ended_at_once(&mut client).await;
    }
}

/// A component that subscribes to what collectors report.
async fn watcher(installation: &Installation) -> Client {
    let watcher = installation.enrolled(ComponentType::RepositoryInterface, "watcher").await;
    let mut client = connected(&watcher, Version::V5).await;
    assert_eq!(client.subscribe(&["/collection/results/+"]).await, Some(vec![1]));
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_property_smuggles_in_a_topic_an_answer_or_a_name() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let attacker = Attacker::join(&installation).await;
    let mut client = attacker.client;
    let mut watcher = watcher(&installation).await;
    let own = Topic::CollectionResults(attacker.identity.component).to_string();
    let other = Topic::CollectionResults(victim.component).to_string();
    // Answers to somewhere else, and even to itself: where an answer goes follows from who asked.
    let admin = Topic::Admin(victim.component).to_string();
    let denied = [
        property::response_topic(&admin),
        property::response_topic(&own),
        property::response_topic("#"),
        property::subscription_id(1),
        property::topic_alias(1),
        property::topic_alias(0),
        property::topic_alias(0xffff),
        [property::user("a", "b"), property::topic_alias(1)].concat(),
    ];
    for properties in denied {
        let publish = Publish { properties: properties.clone(), ..Publish::of(&own, *b"smuggled") };
        assert_eq!(client.publish(publish).await, Some(reason::NOT_AUTHORISED), "{properties:02x?}");
    }
    // An alias that was never agreed on, with nothing or with another topic beside it.
    for topic in ["", &other] {
        let properties = property::topic_alias(1);
        let publish = Publish { properties, ..Publish::of(topic, *b"smuggled") };
        assert_eq!(client.publish(publish).await, Some(reason::NOT_AUTHORISED), "{topic}");
    }
    // A property that there is not, one that stands twice, one that is longer than all of them: malformed.
    for properties in
        [vec![0x7f], vec![0x26, 0xff, 0xff], vec![0x23, 1], [property::topic_alias(1), vec![0x23]].concat()]
    {
        let mut client = connected(&victim, Version::V5).await;
        let topic = Topic::CollectionResults(victim.component);
        let publish = Publish { properties: properties.clone(), ..Publish::of(topic, *b"smuggled") };
        assert_ne!(client.publish(publish).await, Some(0), "{properties:02x?}");
    }
    // A name that it gives itself reaches nobody.
    let properties = [property::user("sender", &victim.component.to_string()), property::message_expiry(60)].concat();
    let named = Publish { properties, ..Publish::of(&own, *b"named") };
    assert_eq!(client.publish(named).await, Some(0));
    let delivered = watcher.delivery().await.unwrap();
    assert_eq!((delivered.topic, delivered.payload.as_slice()), (own, b"named".as_slice()));
    assert!(delivered.properties.is_empty(), "{:?}", delivered.properties);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_behind_at_the_broker() {
    let installation = Installation::orchestrator().await;
    let attacker = Attacker::join(&installation).await;
    let topic = Topic::CollectionResults(attacker.identity.component).to_string();
    let retained = Publish { is_retained: true, ..Publish::of(&topic, *b"stays") };
    for qos in [0, 1] {
        let mut client = connected(&attacker.identity, Version::V5).await;
        client.send(&Publish { qos, ..retained.clone() }.bytes(Version::V5)).await.unwrap();
        // Refused or not, it is not kept.
        let _ = client.is_alive().await;
    }
    let mut client = connected(&attacker.identity, Version::V5).await;
    let empty = Publish { is_retained: true, ..Publish::of(&topic, Vec::new()) };
    assert_eq!(client.publish(empty.clone()).await, Some(reason::NOT_AUTHORISED));
    assert_eq!(client.publish(Publish { is_retained: false, ..empty }).await, Some(reason::NOT_AUTHORISED));
    for qos in [2, 3] {
        let mut client = connected(&attacker.identity, Version::V5).await;
        let publish = Publish { qos, ..Publish::of(&topic, *b"twice") };
        client.send(&publish.bytes(Version::V5)).await.unwrap();
        is_ended_at_once(&mut client).await;
    }
    // Whoever subscribes now hears what is said from now on, however it asks.
    let mut watcher = watcher(&installation).await;
    for options in [0x01, 0x09, 0x19, 0x29] {
        let filters: [(&[u8], u8); 1] = [(b"/collection/results/+", options)];
        watcher.send(&system_tests::raw::subscribe(Version::V5, 99, &filters)).await.unwrap();
        assert!(matches!(watcher.answer().await, Some(Packet::SubAck(99, codes)) if codes == [1]));
    }
    let mut client = connected(&attacker.identity, Version::V5).await;
    assert_eq!(client.publish(Publish::of(&topic, *b"now")).await, Some(0));
    let delivered = watcher.delivery().await.unwrap();
    assert_eq!((delivered.payload.as_slice(), delivered.is_retained), (b"now".as_slice(), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_that_stays_or_goes_elsewhere_does_not_get_in() {
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let mut watcher = watcher(&installation).await;
    let (own, other) = (attacker.component, victim.component);
    let topic = Topic::CollectionResults(own).to_string();
    let will = Will { topic: topic.clone().into_bytes(), payload: b"will".to_vec(), qos: 1, ..Will::default() };
    let with = |topic: String| Will { topic: topic.into_bytes(), ..will.clone() };
    let refused = [
        Will { is_retained: true, ..will.clone() },
        with("/collection/results/+".to_owned()),
        with(format!("{topic}/x")),
        with(Topic::CollectionResults(other).to_string()),
        with(Topic::Admin(other).to_string()),
        with(Topic::RegistrationAnswer(other).to_string()),
        with(Topic::Directed { to: other, operation: "ack".to_owned(), from: own }.to_string()),
        with("$SYS/x".to_owned()),
        Will { qos: 3, ..will.clone() },
    ];
    for will in refused {
        let mut client = Client::member(&attacker, Version::V5).await.unwrap();
        let connect = Connect { will: Some(will.clone()), ..Connect::of(own) };
        assert_ne!(client.connect(&connect).await, Some(0), "{will:?}");
    }
    // A stranger's will is nobody's.
    let (address, fingerprint) = (installation.address().await, installation.ca_fingerprint());
    for topic in [topic.clone(), Topic::Status(other).to_string()] {
        let mut stranger = Client::stranger(&address, &fingerprint, Version::V5).await.unwrap();
        let connect = Connect { will: Some(with(topic)), ..Connect::of(Uuid::new_v4()) };
        assert_ne!(stranger.connect(&connect).await, Some(0));
    }
    let client = connected_as(&attacker, Version::V5, &Connect { will: Some(will), ..Connect::of(own) }).await;
    drop(client);
    let delivered = watcher.delivery().await.unwrap();
    assert_eq!(
        (delivered.topic, delivered.payload.as_slice(), delivered.is_retained),
        (topic, b"will".as_slice(), false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_component_says_of_itself_is_text_and_nothing_else() {
    let installation = Installation::orchestrator().await;
    let mut attacker = Attacker::join(&installation).await;
    let own = attacker.own();
    // What a terminal, a shell, a database and a reader of JSON might take for something else.
    let hostile = "\u{1b}[2J\u{7}$(touch /tmp/x)`id`'; DROP TABLE component; --\u{202e}\r\n<script>%s%n";
    attacker.say(advertised_by(own), sealed(&attacker.identity, &envelope(own, &advertisement(hostile)))).await;
    let said = sealed(&attacker.identity, &envelope(own, &status(own, &format!("security.{hostile}"))));
    attacker.say(Topic::Status(own), said).await;
    attacker.believed().await;
    let shown = entry(&installation, own).await.software_version.unwrap();
    assert!(shown.contains("DROP TABLE") && !shown.chars().any(char::is_control), "{shown:?}");
    eventually("the status is counted", async || {
        let counts = installation.handle.status().await.security_counts;
        let counted = counts.into_iter().find(|(code, _)| code.contains("DROP TABLE"))?;
        assert!(!counted.0.chars().any(char::is_control), "{counted:?}");
        Some(())
    })
    .await;
    // More of it than anybody wants: the count of what is counted has an end.
    for number in 0..100 {
        let message = envelope(own, &status(own, &format!("security.{number}-{}", "x".repeat(10_000))));
        attacker.say(Topic::Status(own), sealed(&attacker.identity, &message)).await;
    }
    attacker.believed().await;
    let counts = installation.handle.status().await.security_counts;
    assert!(counts.len() <= 64 && counts.iter().all(|(code, _)| code.chars().count() <= 512), "{}", counts.len());
    // Bodies that are deep, long, or no bodies at all: refused, each of them, and nothing else happens.
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let number = format!("{{\"unacknowledged-count\":{},\"action\":\"pulse\"}}", "9".repeat(100_000));
    let refused = installation.refused_in_all().await;
    let mut count = 0;
    let message = String::from_utf8(heartbeat(own).to_bytes()).unwrap();
    let (before, _) = message.split_once("\"body\":").unwrap();
    for body in [&*deep, &objects, &number, "null", "{}", "{\"action\":\"rm\"}", "\"\\ud800\"", "1e999999", "", "}"] {
        let bytes = format!("{before}\"body\":{body}}}").replace(&heartbeat_id(&message), &Uuid::now_v7().to_string());
        attacker.say(heartbeats_of(own), attacker.identity.sealer().unwrap().seal(bytes.as_bytes())).await;
        count += 1;
    }
    assert!(attacker.believed().await.is_empty());
    assert_eq!(installation.refused_in_all().await, refused + count);
}

fn heartbeat_id(message: &str) -> String {
    Envelope::read(message.as_bytes(), Timestamp::now()).unwrap().id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observation_from_the_future_is_refused() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    let [liar, other] = [installation.scripted(PCS, "liar").await, installation.scripted(PCS, "other").await];
    let object = serde_json::from_str("\"obj-00000000000000000000000000000000\"").unwrap();
    let part = CollectedPart {
        object,
        flag: Flag::DoesNotExist,
        collected: Timestamp::now(),
        items: Vec::new(),
        messages: Vec::new(),
    };
    let report = |by: &Member, collected| CollectionResults {
        request: RequestId(Uuid::now_v7()),
        standing: None,
        task: Some(ContentHash::of(b"task")),
        plan: ContentHash::of(b"plan"),
        endpoint: by.assigned.borrow().endpoints[0].1,
        facts: EndpointFacts::default(),
        method: Method::SelfReported,
        part: 0,
        is_final: true,
        stream: None,
        items: Vec::new(),
        objects: vec![CollectedPart { collected, ..part.clone() }],
    };
    let topic = |by: &Member| Topic::CollectionResults(by.bus.own());
    let told = async || {
        let counts = installation.handle.status().await.security_counts;
        counts.iter().find(|(code, _)| code == "security.report-refused").map_or(0, |(_, count)| *count)
    };
    let now = Timestamp::now();
    eventually("the repository is there, and refuses what was not asked for", async || {
        other.bus.send(&topic(&other), &report(&other, now), Context::alone()).unwrap();
        (told().await == 1).then_some(())
    })
    .await;
    // It is refused for its time before anybody is asked whether there was such a task, and the other one after it.
    for (collected, expected) in [(now + SignedDuration::from_hours(1), 1), (now, 2)] {
        let sent = liar.bus.send_durable(&topic(&liar), &report(&liar, collected), Context::alone()).unwrap();
        eventually("it is refused for good", async || liar.bus.was_given_up(sent).then_some(())).await;
        eventually("whoever watches is told, or is not", async || (told().await == expected).then_some(())).await;
    }
}
