//! Seven ways to kill the broker that the library under the front ships, each of which was seen to work there. Here each
//! is tried against our listener, in MQTT 5 and in MQTT 3.1.1. The listener is in the process of the test, and ends the
//! process where its router dies: then no test of this file passes any more.
//!
//! K4 is the limit on connections, which is 12,000 here and takes longer to reach than a test may. What is tested is the
//! limit that a stranger reaches in a second, on connections that have not shown who they are; both refuse by closing,
//! before anything is remembered of the connection.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use proto::capability::ComponentType;
use proto::topic::Topic;
use system_tests::attack::{
    PROMPT, connected, connected_as, heartbeat, heartbeats_of, is_answered, is_ended_at_once, is_served, sealed,
};
use system_tests::raw::{Client, Connect, Packet, Publish, Version, Will, packet, property, reason, tcp, unsubscribe};
use system_tests::{Installation, eventually};
use tokio::net::TcpStream;
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;

/// Each attack in both versions.
macro_rules! in_both_versions {
    ($($attack:ident,)*) => {
        mod mqtt_5 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $attack() {
                super::$attack(super::Version::V5).await;
            })*
        }
        mod mqtt_3_1_1 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $attack() {
                super::$attack(super::Version::V311).await;
            })*
        }
    };
}

in_both_versions! {
    a_peer_that_stays_silent_keeps_nobody_out,
    a_topic_that_begins_beyond_ascii_ends_its_sender_and_nobody_else,
    a_client_id_with_characters_of_topics_is_refused_however_often_it_comes,
    connections_beyond_the_limit_are_refused_and_afterwards_all_is_as_before,
    a_packet_that_only_a_server_sends_ends_its_sender_and_nobody_else,
    a_component_that_dies_with_an_unacknowledged_message_takes_nobody_with_it,
    properties_of_a_publish_reach_no_subscriber,
}

/// Whether a code says no, in the words of that version.
fn is_denied(version: Version, code: u8) -> bool {
    match version {
        Version::V5 => code >= 0x80,
        Version::V311 => code == reason::V311_SUBSCRIPTION_FAILED,
    }
}

/// K1: the stock broker makes the TLS handshake where it accepts; one peer that sends nothing, and no TLS client gets in
/// for as long as it likes.
async fn a_peer_that_stays_silent_keeps_nobody_out(version: Version) {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let (address, fingerprint) = (installation.address().await, installation.ca_fingerprint());
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(Client::plain(&address, version).await.unwrap());
        // The beginning of a TLS record, which says that 512 bytes follow.
        let mut half_hello = Client::plain(&address, version).await.unwrap();
        half_hello.send(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
        silent.push(half_hello);
        silent.push(Client::stranger(&address, &fingerprint, version).await.unwrap());
        silent.push(Client::member(&victim, version).await.unwrap());
        let mut half_connect = Client::stranger(&address, &fingerprint, version).await.unwrap();
        half_connect.send(&Connect::of(Uuid::new_v4()).bytes(version)[..20]).await.unwrap();
        silent.push(half_connect);
    }
    is_served(&victim, version).await;
    // And none of them stays for long.
    for mut client in silent {
        client.end().await;
    }
    is_served(&victim, version).await;
}

/// K2: the stock broker cuts a topic after its first byte; where a letter takes two, its router panics, and the process
/// stays up and deaf.
async fn a_topic_that_begins_beyond_ascii_ends_its_sender_and_nobody_else(version: Version) {
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let (address, fingerprint) = (installation.address().await, installation.ca_fingerprint());
    let own = attacker.component;
    let topics: [&[u8]; 9] = [
        "é/x".as_bytes(),
        "é".as_bytes(),
        "\u{10ffff}/x".as_bytes(),
        "/é".as_bytes(),
        b"",
        b"\0",
        b"$",
        b"\xff",
        b"\xc3",
    ];
    for topic in topics {
        for qos in [0, 1] {
            let mut client = connected(&attacker, version).await;
            let publish = Publish { topic: topic.to_vec(), qos, ..Publish::of("", *b"x") };
            client.send(&publish.bytes(version)).await.unwrap();
            // Denied by name, where the version has a word for it and the topic is text; otherwise it ends.
            if let Some(answer) = client.next().await {
                assert!(
                    matches!(answer, Packet::PubAck(1, reason::NOT_AUTHORISED) if qos == 1 && version == Version::V5)
                        || matches!(answer, Packet::Goodbye(_)),
                    "{answer:?}"
                );
            }
        }
        let mut client = connected(&attacker, version).await;
        let filters = [(topic, 1)];
        client.send(&system_tests::raw::subscribe(version, 7, &filters)).await.unwrap();
        match client.next().await {
            None | Some(Packet::Goodbye(_)) => {}
            Some(Packet::SubAck(7, codes)) => assert!(codes.iter().all(|code| is_denied(version, *code)), "{codes:?}"),
            other => panic!("{other:?}"),
        }
        let mut client = connected(&attacker, version).await;
        client.send(&unsubscribe(version, 8, &[topic])).await.unwrap();
        assert!(matches!(client.next().await, None | Some(Packet::Goodbye(_) | Packet::UnsubAck(8, _))));
        // As a will it does not even get in.
        let mut client = Client::member(&attacker, version).await.unwrap();
        let will = Some(Will { topic: topic.to_vec(), payload: b"x".to_vec(), ..Will::default() });
        assert_ne!(client.connect(&Connect { will, ..Connect::of(own) }).await, Some(0));
        let mut stranger = Client::stranger(&address, &fingerprint, version).await.unwrap();
        assert_eq!(stranger.connect(&Connect::of(Uuid::new_v4())).await, Some(0));
        stranger.send(&Publish { topic: topic.to_vec(), ..Publish::of("", *b"x") }.bytes(version)).await.unwrap();
        assert_ne!(is_ended_at_once(&mut stranger).await, Some(0));
    }
    is_served(&attacker, version).await;
    is_served(&victim, version).await;
}

/// K3: the stock broker names a span after the client id and asserts that it is plain; the panic poisons a lock, and its
/// listener refuses everybody for ever.
async fn a_client_id_with_characters_of_topics_is_refused_however_often_it_comes(version: Version) {
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let (address, fingerprint) = (installation.address().await, installation.ca_fingerprint());
    let own = attacker.component.to_string();
    let refused = match version {
        Version::V5 => reason::CLIENT_ID_NOT_VALID,
        Version::V311 => reason::V311_ID_REJECTED,
    };
    let ids = [
        format!("{own}/x"),
        format!("{own}+"),
        format!("{own}#"),
        own.to_uppercase(),
        own.replace('-', ""),
        "$SYS".to_owned(),
        "#".to_owned(),
        "orchestrator".to_owned(),
        "front".to_owned(),
        "é".to_owned(),
        "\0".to_owned(),
        String::new(),
        "x".repeat(20_000),
        // With which CONNECT is longer than it may be.
        "x".repeat(60_000),
        victim.component.to_string(),
    ];
    for id in ids.iter().flat_map(|id| [id, id]) {
        let mut member = Client::member(&attacker, version).await.unwrap();
        let code = member.connect(&Connect::of(id)).await;
        let is_no_connect = id.contains('\0') || id.len() > 32 * 1024;
        assert!(code == Some(refused) || is_no_connect && code.is_none(), "{id:.100}: {code:?}");
        // A stranger may call itself what it likes, if it is an id: it gets nothing by it.
        let mut stranger = Client::stranger(&address, &fingerprint, version).await.unwrap();
        let code = stranger.connect(&Connect::of(id)).await;
        assert!(code != Some(0) || *id == victim.component.to_string(), "{id:.100}: {code:?}");
    }
    is_served(&victim, version).await;
    is_served(&attacker, version).await;
}

/// Those of the connections that the listener has ended.
fn closed(connections: &[TcpStream]) -> usize {
    // Nothing has been sent, so nothing comes but the end.
    connections.iter().filter(|connection| connection.try_read(&mut [0]).is_ok()).count()
}

async fn open(address: &str, from: [u8; 4], count: usize) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(tcp(address, Some(IpAddr::from(from))).await.unwrap());
    }
    connections
}

/// K4: beyond its limit on connections the stock broker panics where it holds a lock; it refuses everybody from then on,
/// even when all have left.
async fn connections_beyond_the_limit_are_refused_and_afterwards_all_is_as_before(version: Version) {
    /// Places of one address, and of all.
    const OF_ADDRESS: usize = 256;
    const OF_ALL: usize = 512;
    /// What a connection has to show who it is.
    const DEADLINE: Duration = Duration::from_secs(5);
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let address = installation.address().await;
    for round in 0..2 {
        let began = Instant::now();
        let one = open(&address, [127, 0, 0, 2], OF_ADDRESS + 40).await;
        eventually("the rest of one address is refused", async || (closed(&one) >= 40).then_some(())).await;
        // At once, and not with all the others when their time is over.
        assert!(closed(&one) == 40 && began.elapsed() < DEADLINE, "{} after {:?}", closed(&one), began.elapsed());
        // Whoever is elsewhere does not notice.
        is_served(&victim, version).await;
        drop(one);
        let began = Instant::now();
        let mut all = open(&address, [127, 0, 0, 3], OF_ADDRESS).await;
        all.extend(open(&address, [127, 0, 0, 4], OF_ALL - OF_ADDRESS).await);
        all.extend(open(&address, [127, 0, 0, 5], 40).await);
        eventually("the rest of all is refused", async || (closed(&all) >= 40).then_some(())).await;
        assert!(began.elapsed() < DEADLINE, "{} after {:?}", closed(&all), began.elapsed());
        // Now there is no place for anybody. It is said at once, by closing, and the next attempt may succeed.
        let late = tokio::time::timeout(PROMPT, Client::member(&victim, version)).await;
        assert!(late.is_ok(), "round {round}: neither served nor refused");
        drop(all);
        let is_in = async || Client::member(&victim, version).await.ok().map(drop);
        eventually("there are places again", is_in).await;
        is_served(&victim, version).await;
    }
}

/// K5: the codec of the stock broker has no word for an UNSUBACK from a client: it panics, and the next connection with
/// the same id finds a poisoned lock.
async fn a_packet_that_only_a_server_sends_ends_its_sender_and_nobody_else(version: Version) {
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let (address, fingerprint) = (installation.address().await, installation.ca_fingerprint());
    // The one that was found; then every type that no client sends, and a second CONNECT.
    let mut packets = vec![vec![0xb0, 0x04, 0x03, 0x00, 0x01, 0x00]];
    for kind in [0x00, 0x10, 0x20, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0, 0xf0] {
        packets.extend([&[][..], &[0, 1], &[0, 1, 0], &[0, 1, 0, 0], &[3, 0, 1, 0]].map(|rest| packet(kind, rest)));
    }
    packets.push(Connect::of(attacker.component).bytes(version));
    for bytes in &packets {
        let mut client = connected(&attacker, version).await;
        client.send(bytes).await.unwrap();
        is_ended_at_once(&mut client).await;
        let mut stranger = Client::stranger(&address, &fingerprint, version).await.unwrap();
        assert_eq!(stranger.connect(&Connect::of(Uuid::new_v4())).await, Some(0));
        stranger.send(bytes).await.unwrap();
        is_ended_at_once(&mut stranger).await;
        // And before CONNECT.
        let mut early = Client::member(&attacker, version).await.unwrap();
        if bytes[0] != 0x10 {
            early.send(bytes).await.unwrap();
            is_ended_at_once(&mut early).await;
        }
    }
    is_served(&attacker, version).await;
    is_served(&victim, version).await;
}

/// K6: the stock broker's router expects that a shared subscription outlives its last member; where that was a session
/// that is kept and leaves a message unacknowledged, it panics. A worker that crashes is enough.
async fn a_component_that_dies_with_an_unacknowledged_message_takes_nobody_with_it(version: Version) {
    let installation = Installation::orchestrator().await;
    let worker = installation.enrolled(PCS, "worker").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let admin = Topic::Admin(worker.component).to_string();
    let session_expiry = (version == Version::V5).then_some(3_600);
    let kept = Connect { is_clean: false, session_expiry, ..Connect::of(worker.component) };
    for _ in 0..5 {
        let mut client = Client::member(&worker, version).await.unwrap();
        client.send(&kept.bytes(version)).await.unwrap();
        let welcome = client.next().await;
        assert!(matches!(welcome, Some(Packet::Welcome { is_session_present: false, code: 0, .. })), "{welcome:?}");
        let shared = [format!("$share/workers/{admin}"), format!("$share/workers//{}/+/+", worker.component)];
        let codes = client.subscribe(&[&shared[0], &shared[1], &admin]).await.unwrap();
        assert!(is_denied(version, codes[0]) && is_denied(version, codes[1]) && codes[2] == 1, "{codes:?}");
        for _ in 0..3 {
            let message = sealed(&worker, &heartbeat(worker.component));
            assert_eq!(client.publish(Publish::of(heartbeats_of(worker.component), message)).await, Some(0));
        }
        // The answer is there and not acknowledged; the connection breaks.
        assert_eq!(client.unacknowledged_delivery().await.unwrap().topic, admin);
        drop(client);
        is_served(&victim, version).await;
    }
    is_served(&worker, version).await;
}

/// K7: the stock broker panics where it writes a publish with properties to a subscriber of MQTT 3.1.1: one client ends
/// the connections of others.
async fn properties_of_a_publish_reach_no_subscriber(version: Version) {
    let installation = Installation::orchestrator().await;
    let repository = installation.enrolled(ComponentType::RepositoryInterface, "repository").await;
    let collector = installation.enrolled(PCS, "collector").await;
    let mut subscriber = connected(&collector, version).await;
    let own = collector.component;
    let filters = [format!("/{own}/+/+"), Topic::Admin(own).to_string()];
    assert_eq!(subscriber.subscribe(&[&filters[0], &filters[1]]).await, Some(vec![1, 1]));
    let topic = Topic::Directed { to: own, operation: "ack".to_owned(), from: repository.component };
    let properties = [
        property::byte(0x01, 1),
        property::message_expiry(60),
        property::text(0x03, b"text/plain"),
        property::text(0x09, b"correlation"),
        property::user("sender", "somebody else"),
        property::user("", ""),
    ];
    for properties in properties.iter().cloned().chain([properties.concat()]) {
        // It may ask for a session that outlives it, too.
        let connect = Connect { session_expiry: Some(60), ..Connect::of(repository.component) };
        let mut publisher = connected_as(&repository, Version::V5, &connect).await;
        let publish = Publish { properties, ..Publish::of(&topic, *b"payload") };
        assert_eq!(publisher.publish(publish).await, Some(0));
        let delivered = subscriber.delivery().await.expect("the subscriber stays");
        assert_eq!((delivered.topic, delivered.payload.as_slice()), (topic.to_string(), b"payload".as_slice()));
        assert!(delivered.properties.is_empty(), "{:?}", delivered.properties);
    }
    is_answered(&mut subscriber, &collector).await;
}
