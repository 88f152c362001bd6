//! What an enrolled component floods with: lists that do not end, handshakes, acts and questions by the thousand, and
//! not reading what it is sent. Each test asks whether others are served meanwhile.
//!
//! | threat | test |
//! |---|---|
//! | a huge list of subscriptions | `lists_of_filters_without_end_are_answered_and_hold_up_nobody` |
//! | a huge query | `questions_for_everything_are_refused_and_hold_up_nobody` |
//! | more packets than it may send, of whichever kind | `a_flood_of_any_packet_is_slowed_down`, and `isolation`: `a_component_that_sends_without_end_is_slowed_down_and_others_are_not` |
//! | messages that make work for the orchestrator | `a_burst_of_messages_that_make_work_holds_up_nobody_for_long` |
//! | taking over its own session without end | `a_component_that_takes_over_from_itself_without_end_disturbs_nobody_else`, `of_many_connections_of_one_component_the_newest_stays_and_none_waits` |
//! | not reading | `a_component_that_does_not_read_is_ended_and_nobody_else_notices` |
//! | certificates, endpoints | `admission`: `a_component_cannot_fill_the_log_with_certificates_and_endpoints` |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Context, RequestError};
use proto::capability::{Capability, ComponentType};
use proto::fault::FaultCode;
use proto::id::EndpointId;
use proto::message::{
    AdvertisedEndpoint, CapabilityAdvertisement, Message as _, Phase, QueryRequest, QueryResponse, ResultsSelection,
    StatusNotification,
};
use proto::observation::EndpointFacts;
use proto::operator::{Ask, OperatorEvent};
use proto::plan::ObjectKey;
use proto::topic::Topic;
use system_tests::attack::{
    PROMPT, connected, envelope, heartbeat, heartbeats_of, is_answered, is_ended_at_once, is_served, sealed,
};
use system_tests::raw::{
    Client, Connect, PINGREQ, Packet, Publish, Version, Will, puback, reason, subscribe, unsubscribe,
};
use system_tests::{Installation, PATIENCE};
use tokio::net::TcpSocket;
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_filters_without_end_are_answered_and_hold_up_nobody() {
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let mut client = connected(&attacker, Version::V5).await;
    let own = Topic::Admin(attacker.component).to_string();
    let denied: Vec<String> = (0..64).map(|number| format!("/x/{number}")).collect();
    let denied: Vec<(&[u8], u8)> = denied.iter().map(|filter| (filter.as_bytes(), 1)).collect();
    let empty: Vec<(&[u8], u8)> = vec![(b"", 1); 64];
    let repeated: Vec<(&[u8], u8)> = vec![(own.as_bytes(), 1); 64];
    let attack = async {
        for (filters, code) in [(&denied, reason::NOT_AUTHORISED), (&empty, reason::NOT_AUTHORISED), (&repeated, 1)] {
            for packet_id in 1..=100 {
                client.send(&subscribe(Version::V5, packet_id, filters)).await.unwrap();
                let Some(Packet::SubAck(of, codes)) = client.answer().await else { panic!("no answer") };
                assert_eq!((of, codes.len()), (packet_id, filters.len()));
                assert!(codes.iter().all(|granted| *granted == code));
            }
        }
        // More than any component has a use for: the listener does not even answer.
        for count in [65, 18_000, 300_000] {
            let subscriptions: Vec<(&[u8], u8)> = vec![(b"", 1); count];
            let filters: Vec<&[u8]> = vec![b""; count];
            for packet in [subscribe(Version::V5, 9, &subscriptions), unsubscribe(Version::V5, 9, &filters)] {
                let mut client = connected(&attacker, Version::V5).await;
                client.send(&packet).await.unwrap();
                is_ended_at_once(&mut client).await;
            }
        }
    };
    let others = async {
        for _ in 0..10 {
            is_served(&victim, Version::V5).await;
        }
    };
    tokio::join!(attack, others);
    // Subscribed eighteen thousand times, it gets an answer once.
    let mut client = connected(&attacker, Version::V5).await;
    client.send(&subscribe(Version::V5, 1, &repeated)).await.unwrap();
    assert!(matches!(client.answer().await, Some(Packet::SubAck(1, _))));
    is_answered(&mut client, &attacker).await;
    is_answered(&mut client, &attacker).await;
    assert!(client.is_alive().await && client.is_quiet_for(Duration::from_millis(200)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_any_packet_is_slowed_down() {
    /// Saved up, and a second.
    const SAVED: usize = 2_000;
    const RATE: usize = 200;
    let installation = Installation::orchestrator().await;
    let topic = Topic::Admin(proto::id::ComponentId(Uuid::nil()));
    let denied = Publish { packet_id: 7, ..Publish::of(topic, *b"x") }.bytes(Version::V5);
    let denied_filter = subscribe(Version::V5, 7, &[(b"#", 1)]);
    let floods = [PINGREQ.to_vec(), denied, puback(7), denied_filter, unsubscribe(Version::V5, 7, &[b"#"])];
    let mut flooding = tokio::task::JoinSet::new();
    for (number, packet) in floods.into_iter().enumerate() {
        let attacker = installation.enrolled(PCS, &format!("attacker-{number}")).await;
        flooding.spawn(async move {
            let mut client = connected(&attacker, Version::V5).await;
            let began = Instant::now();
            client.send(&packet.repeat(SAVED + 2 * RATE)).await.unwrap();
            // What came with the flood is answered with it; what comes then waits until the flood is paid for.
            for packet_id in 8..10 {
                let publish = Publish { packet_id, ..Publish::of(Topic::Status(attacker.component), *b"x") };
                client.send(&publish.bytes(Version::V5)).await.unwrap();
                while !matches!(client.answer().await.unwrap(), Packet::PubAck(of, _) if of == packet_id) {}
            }
            assert!(began.elapsed() > Duration::from_millis(1_900), "flood {number}: {:?}", began.elapsed());
        });
    }
    let victim = installation.enrolled(PCS, "victim").await;
    while !flooding.is_empty() {
        is_served(&victim, Version::V5).await;
        while let Some(ended) = flooding.try_join_next() {
            ended.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_messages_that_make_work_holds_up_nobody_for_long() {
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let own = attacker.component;
    let status = StatusNotification {
        publisher: own,
        message: "done".to_owned(),
        code: "test.done".to_owned(),
        request: None,
        phase: Some(Phase::Completed),
        progress: None,
        fault: None,
    };
    let endpoint = |number| AdvertisedEndpoint {
        local_name: format!("e{number}"),
        facts: EndpointFacts { host_name: "x".repeat(200), ..EndpointFacts::default() },
        ..AdvertisedEndpoint::default()
    };
    let advertisement = CapabilityAdvertisement {
        capabilities: Capability::all_of(PCS),
        endpoints: (0..100).map(endpoint).collect(),
        software_version: "test".to_owned(),
        ..CapabilityAdvertisement::default()
    };
    let advertised = Topic::AdminUp(own, CapabilityAdvertisement::KIND.to_owned()).to_string();
    let mut client = connected(&attacker, Version::V5).await;
    for kind in 0..3 {
        let mut burst = Vec::new();
        for packet_id in 1..=500 {
            let (topic, message) = match kind {
                0 => (heartbeats_of(own), heartbeat(own)),
                1 => (Topic::Status(own).to_string(), envelope(own, &status)),
                _ => (advertised.clone(), envelope(own, &advertisement)),
            };
            burst.extend(Publish { packet_id, ..Publish::of(topic, sealed(&attacker, &message)) }.bytes(Version::V5));
        }
        let began = Instant::now();
        client.send(&burst).await.unwrap();
        is_served(&victim, Version::V5).await;
        println!("behind a burst of kind {kind} the victim waited {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_takes_over_from_itself_without_end_disturbs_nobody_else() {
    let installation = Installation::orchestrator().await;
    let attacker = Arc::new(installation.enrolled(PCS, "attacker").await);
    let victim = installation.enrolled(PCS, "victim").await;
    let mut taking_over = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let attacker = Arc::clone(&attacker);
        taking_over.spawn(async move {
            for _ in 0..3 {
                let mut client = Client::member(&attacker, Version::V5).await.unwrap();
                // Whether it gets in before the next one comes is no matter.
                let _ = client.connect(&Connect::of(attacker.component)).await;
            }
        });
    }
    for _ in 0..5 {
        is_served(&victim, Version::V5).await;
    }
    tokio::time::timeout(PATIENCE, taking_over.join_all())
        .await
        .expect("the listener ends one connection after another");
    is_served(&attacker, Version::V5).await;
    is_served(&victim, Version::V5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_connections_of_one_component_the_newest_stays_and_none_waits() {
    const AT_ONCE: Duration = Duration::from_secs(4);
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let mut connections = Vec::new();
    for _ in 0..300 {
        let mut client = Client::member(&attacker, Version::V5).await.unwrap();
        client.send(&Connect::of(attacker.component).bytes(Version::V5)).await.unwrap();
        connections.push(client);
    }
    // One that waits for its turn has shown who it is and is not yet counted as connected: who lets thousands wait has
    // every file descriptor of the listener. So each is answered or ended at once.
    let none_waits = async {
        for client in &mut connections {
            let _ = client.answer().await;
        }
    };
    tokio::time::timeout(AT_ONCE, none_waits).await.expect("no connection waits for another one's end");
    let mut newest = connected(&attacker, Version::V5).await;
    let others_end = async {
        for client in &mut connections {
            client.end().await;
        }
    };
    tokio::time::timeout(AT_ONCE, others_end).await.expect("the older connections end at once");
    assert!(newest.is_alive().await);
    is_served(&victim, Version::V5).await;
}

/// What this process has in memory.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_does_not_read_is_ended_and_nobody_else_notices() {
    const MESSAGE_BYTES: usize = 512 * 1024;
    let installation = Installation::orchestrator().await;
    let slow = installation.enrolled(PCS, "slow").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let flooding = installation.enrolled(ComponentType::RepositoryInterface, "flooding").await;
    let watching = installation.enrolled(ComponentType::RepositoryInterface, "watching").await;
    let mut watching = connected(&watching, Version::V5).await;
    assert_eq!(watching.subscribe(&["/collection/results/+"]).await, Some(vec![1]));
    // The kernel takes little for it, and it takes nothing.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let stream = socket.connect(installation.address().await.parse().unwrap()).await.unwrap();
    let mut client = Client::over_tls(stream, slow.tls().unwrap(), Version::V5).await.unwrap();
    let topic = Topic::CollectionResults(slow.component).to_string().into_bytes();
    let will = Some(Will { topic, payload: b"ended".to_vec(), ..Will::default() });
    assert_eq!(client.connect(&Connect { keep_alive: 600, will, ..Connect::of(slow.component) }).await, Some(0));
    assert_eq!(client.subscribe(&[&format!("/{}/+/+", slow.component)]).await, Some(vec![1]));
    let topic = Topic::Directed { to: slow.component, operation: "ack".to_owned(), from: flooding.component };
    let mut flood = connected(&flooding, Version::V5).await;
    let before = resident_bytes();
    for number in 0..512 {
        // Whatever the listener says to it, it says it at once.
        let answer = flood.publish(Publish::of(&topic, vec![b'x'; MESSAGE_BYTES]));
        assert!(tokio::time::timeout(PROMPT, answer).await.expect("an answer").is_some());
        if number % 64 == 0 {
            is_served(&victim, Version::V5).await;
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("{} MiB for one that does not read: {} MiB are kept", (512 * MESSAGE_BYTES) >> 20, grown >> 20);
    assert!(grown < 128 << 20, "{} MiB", grown >> 20);
    // Its end is told by its will.
    let mut began = Instant::now();
    let ended = async {
        loop {
            if tokio::time::timeout(Duration::from_secs(1), watching.delivery()).await.is_ok() {
                return;
            }
            is_served(&victim, Version::V5).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it is ended in time");
    println!("ended after {:?}", began.elapsed());
    began = Instant::now();
    is_served(&slow, Version::V5).await;
    assert!(began.elapsed() < PROMPT);
    drop(client);
}

/// Names of objects that nobody has seen.
fn objects(count: usize) -> Vec<ObjectKey> {
    (0..count).map(|number| serde_json::from_str(&format!("\"obj-{number:032x}\"")).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_for_everything_are_refused_and_hold_up_nobody() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    let attacker = installation.scripted(ComponentType::PostureEvaluationService, "attacker").await;
    installation.wait_for_active(2).await;
    let roster = installation.roster().await;
    let of_type =
        |component_type| roster.iter().find(|entry| entry.component_type == component_type).unwrap().component;
    let repository = of_type(ComponentType::RepositoryInterface);
    let topic = Topic::Directed { to: repository, operation: QueryRequest::KIND.to_owned(), from: attacker.bus.own() };
    let everything = QueryRequest {
        request: None,
        endpoint: EndpointId(Uuid::nil()),
        objects: objects(20_000),
        as_of: None,
        is_brief: false,
        others: Vec::new(),
    };
    let answer: Result<QueryResponse, RequestError> =
        attacker.bus.request(&topic, &everything, Context::alone(), PATIENCE).await;
    assert!(matches!(answer, Err(RequestError::Fault(fault)) if fault.code == FaultCode::NotAuthorized));
    for _ in 0..20 {
        attacker.bus.send(&topic, &everything, Context::alone()).unwrap();
    }
    let began = Instant::now();
    let selection = ResultsSelection::Latest;
    let answer = installation.ask(Ask::Results { selection, verdicts: Vec::new() }).await;
    println!("behind twenty questions for everything the operator waited {:?}", began.elapsed());
    assert!(matches!(answer[..], [OperatorEvent::Results(_), ..]), "{answer:?}");
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}
