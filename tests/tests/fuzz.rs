//! Junk, by the thousand, at every door: first packets, later packets, sealed messages, registrations, tokens,
//! certificates, files that a probe parses. After each part nobody has panicked, the listener serves somebody new, and the process has not grown
//! from the second quarter to the last.
//!
//! `MUSTER_FUZZ_PACKETS` says how many packets members send, and in proportion how much of the rest there is: 20,000
//! unless told, which takes seconds. `MUSTER_FUZZ_SEED` says which: the same number sends the same.
//!
//! ```text
//! MUSTER_FUZZ_PACKETS=1000000 cargo test -p system-tests --test fuzz -- --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it did")]

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bus::Trust;
use bus::certificate::Certificate;
use jiff::Timestamp;
use orchestrator::ca::{Ca, key_of};
use oval::resolve::Resolver;
use pcs_agent::host::Host;
use pcs_agent::probe::Probes;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::message::{ComponentRegistrationRequest, JoinProof};
use proto::observation::Flag;
use proto::query::PostureQuery;
use proto::seal::{Sealed, Sealer};
use proto::topic::Topic;
use service::identity::{self, Identity, certificate_der};
use service::token::JoinToken;
use system_tests::attack::{connected, count_panics, envelope, heartbeat, heartbeats_of, is_served, panics, sealed};
use system_tests::raw::{
    Client, Connect, PINGREQ, Packet, Publish, Version, Will, packet, property, puback, subscribe, unsubscribe,
};
use system_tests::{Installation, eventually};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;
const REPOSITORY: ComponentType = ComponentType::RepositoryInterface;

/// Bytes by which the process may grow from the second quarter of a part to the last. The router keeps 12 MiB for each
/// filter and the allocator what it has; a packet that leaves a hundred bytes behind grows past it in a long run.
const GROWTH_BYTES_MAX: usize = 24 << 20;

/// Connections at a time.
const LANES: usize = 8;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn packets() -> usize {
    usize::try_from(number("MUSTER_FUZZ_PACKETS", 20_000)).unwrap()
}

/// Numbers that look random and are the same for the same seed (xorshift64*).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn of(part: u64, lane: usize) -> Self {
        let seed = number("MUSTER_FUZZ_SEED", 1) ^ part << 32 ^ (lane as u64) << 48;
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    fn is_one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        (0..self.below(length_max + 1)).map(|_| self.byte()).collect()
    }

    fn pick<'all, T>(&mut self, all: &'all [T]) -> &'all T {
        &all[self.below(all.len())]
    }

    fn uuid(&mut self) -> Uuid {
        Uuid::from_u128(u128::from(self.next()) << 64 | u128::from(self.next()))
    }

    /// The same with something else in it, once or a few times.
    fn mutated(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            let end = (at + self.below(16)).min(bytes.len());
            match self.below(9) {
                _ if bytes.is_empty() => bytes = self.bytes(32),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.byte(),
                2 => bytes[at] = *self.pick(&[0x00, 0x7f, 0x80, 0xff]),
                3 => bytes.truncate(at),
                4 => drop(bytes.drain(at..end)),
                5 => {
                    let inserted = self.bytes(16);
                    bytes.splice(at..at, inserted);
                }
                6 => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                7 => {
                    let other = self.below(bytes.len());
                    bytes.swap(at, other);
                }
                _ => bytes[at] = bytes[at].wrapping_add(1),
            }
        }
        bytes
    }
}

/// Parts are measured, one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What this process has in memory.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Sends a part in four quarters, and looks at what it has done.
async fn part(what: &str, count: usize, installation: Option<&Installation>, mut quarter: impl AsyncFnMut(usize)) {
    count_panics();
    let before = panics();
    let began = Instant::now();
    let mut resident = vec![resident_bytes()];
    for _ in 0..4 {
        quarter(count.div_ceil(4)).await;
        resident.push(resident_bytes());
    }
    let elapsed = began.elapsed();
    let mib: Vec<usize> = resident.iter().map(|bytes| bytes >> 20).collect();
    println!("{count:>8} {what}: {elapsed:.1?}, resident {mib:?} MiB");
    assert_eq!(panics(), before, "{what}: somebody panicked");
    let grown = resident[4].saturating_sub(resident[2]);
    assert!(grown <= GROWTH_BYTES_MAX, "{what}: {} MiB more from the second quarter to the last", grown >> 20);
    if let Some(installation) = installation {
        let victim = installation.enrolled(PCS, &format!("fresh {what}")).await;
        is_served(&victim, Version::V5).await;
    }
}

/// Runs this in lanes, so many times in all.
async fn in_lanes<F, L>(lanes: &mut [Random], count: usize, lane: L)
where
    F: Future<Output = Random> + Send + 'static,
    L: Fn(usize, Random, usize) -> F,
{
    let mut running = JoinSet::new();
    let each = count.div_ceil(lanes.len());
    for (number, random) in lanes.iter().enumerate() {
        let future = lane(number, random.clone(), each);
        running.spawn(async move { (number, future.await) });
    }
    while let Some(ended) = running.join_next().await {
        let (number, random) = ended.unwrap();
        lanes[number] = random;
    }
}

fn lanes(part: u64) -> Vec<Random> {
    (0..LANES).map(|lane| Random::of(part, lane)).collect()
}

/// A CONNECT with this and that.
fn some_connect(random: &mut Random, client: &str, version: Version) -> Vec<u8> {
    let will = random.is_one_in(3).then(|| Will {
        topic: some_topic(random, client).into_bytes(),
        payload: random.bytes(40),
        qos: u8::try_from(random.below(4)).unwrap(),
        is_retained: random.is_one_in(4),
        delay_seconds: random.is_one_in(2).then_some(5),
    });
    let connect = Connect {
        client: if random.is_one_in(4) { random.bytes(80) } else { client.as_bytes().to_vec() },
        keep_alive: *random.pick(&[0, 1, 60, 600, 0xffff]),
        is_clean: random.is_one_in(2),
        session_expiry: random.is_one_in(2).then_some(60),
        receive_maximum: random.is_one_in(2).then_some(*random.pick(&[0, 1, 100])),
        properties: if random.is_one_in(3) { some_properties(random) } else { Vec::new() },
        will,
        login: random.is_one_in(4).then(|| ("user".to_owned(), "password".to_owned())),
    };
    connect.bytes(version)
}

fn some_topic(random: &mut Random, own: &str) -> String {
    let other = Uuid::nil().to_string();
    let id = if random.is_one_in(2) { own } else { &other };
    match random.below(12) {
        0 => format!("/status/{id}"),
        1 => format!("/collection/results/{id}"),
        2 => format!("/orchestrator/{id}"),
        3 => format!("/orchestrator/{id}/up/heartbeat-request"),
        4 => format!("/{other}/ack/{id}"),
        5 => format!("/{id}/+/+"),
        6 => "#".to_owned(),
        7 => format!("$share/g//orchestrator/{id}"),
        8 => "/orchestrator/registration".to_owned(),
        9 => "é/x".to_owned(),
        10 => String::from_utf8_lossy(&random.bytes(60)).into_owned(),
        _ => "/".repeat(random.below(50)),
    }
}

fn some_properties(random: &mut Random) -> Vec<u8> {
    let mut properties = Vec::new();
    for _ in 0..random.below(4) {
        properties.extend(match random.below(9) {
            0 => property::topic_alias(3),
            1 => property::response_topic("/status/x"),
            2 => property::subscription_id(random.below(300)),
            3 => property::user("name", "value"),
            4 => property::message_expiry(9),
            5 => property::byte(random.byte(), 1),
            6 => property::text(0x03, b"text/plain"),
            7 => property::short(random.byte(), 1),
            _ => property::long(random.byte(), 1),
        });
    }
    properties
}

/// A packet that a client may send after CONNECT, and that does not end the connection of a member with this id.
fn some_packet(random: &mut Random, own: &str, version: Version) -> Vec<u8> {
    let packet_id = u16::try_from(random.below(0xffff)).unwrap() + 1;
    match random.below(8) {
        0 | 1 => PINGREQ.to_vec(),
        2 => puback(packet_id),
        3 => {
            let filters: Vec<String> = (0..=random.below(4)).map(|_| some_topic(random, own)).collect();
            let filters: Vec<(&[u8], u8)> = filters.iter().map(|filter| (filter.as_bytes(), 1)).collect();
            subscribe(version, packet_id, &filters)
        }
        4 => {
            let filters: Vec<String> = (0..=random.below(4)).map(|_| some_topic(random, own)).collect();
            let filters: Vec<&[u8]> = filters.iter().map(String::as_bytes).collect();
            unsubscribe(version, packet_id, &filters)
        }
        // In MQTT 3.1.1 whatever is denied ends the connection.
        5 if version == Version::V5 => {
            let mut publish = Publish::of(some_topic(random, own), random.bytes(60));
            publish.packet_id = packet_id;
            publish.is_duplicate = random.is_one_in(4);
            publish.properties = [property::user("a", "b"), property::message_expiry(9)].concat();
            publish.bytes(version)
        }
        _ => {
            let payload = [b"x".to_vec(), random.bytes(200)].concat();
            let qos = u8::try_from(random.below(2)).unwrap();
            Publish { packet_id, qos, ..Publish::of(format!("/status/{own}"), payload) }.bytes(version)
        }
    }
}

/// A packet that may be anything.
fn any_packet(random: &mut Random, own: &str, version: Version) -> Vec<u8> {
    match random.below(6) {
        0 => random.bytes(100),
        1 => {
            let first = random.byte();
            packet(first, &random.bytes(100))
        }
        2 => some_connect(random, own, version),
        3 => {
            let mut publish = Publish::of(some_topic(random, own), random.bytes(60));
            publish.qos = u8::try_from(random.below(4)).unwrap();
            publish.is_retained = random.is_one_in(2);
            publish.properties = some_properties(random);
            let bytes = publish.bytes(version);
            if random.is_one_in(2) { random.mutated(&bytes) } else { bytes }
        }
        _ => {
            let bytes = some_packet(random, own, version);
            random.mutated(&bytes)
        }
    }
}

/// The version of MQTT that a listener answers a first packet in.
fn version_of(first: &[u8]) -> Version {
    let length = first.iter().skip(1).position(|byte| byte & 0x80 == 0).map_or(0, |at| at + 2);
    if first.get(length + 6) == Some(&4) { Version::V311 } else { Version::V5 }
}

/// Reads to the end; everything that comes must be a packet.
async fn drain(client: &mut Client) {
    let _ = client.finish().await;
    while client.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_first_packet_is_nobody_else_notices() {
    let _alone = ALONE.lock().await;
    let installation = Installation::orchestrator().await;
    let member = std::sync::Arc::new(installation.enrolled(PCS, "member").await);
    let (address, fingerprint) = (installation.address().await, installation.ca_fingerprint());
    for (number, what) in [(1, "first packets of strangers"), (2, "first packets of a member")] {
        let mut lanes = lanes(number);
        part(what, packets() / 50, Some(&installation), async |count| {
            in_lanes(&mut lanes, count, |_, mut random, count| {
                let (member, address, fingerprint) = (member.clone(), address.clone(), fingerprint.clone());
                async move {
                    for _ in 0..count {
                        let version = *random.pick(&[Version::V5, Version::V311]);
                        let own = if number == 1 { random.uuid().to_string() } else { member.component.to_string() };
                        let connect = some_connect(&mut random, &own, version);
                        let first = match random.below(5) {
                            0 => random.bytes(300),
                            1 => connect,
                            2 => [connect, random.bytes(100)].concat(),
                            _ => random.mutated(&connect),
                        };
                        let version = version_of(&first);
                        let client = if number == 1 {
                            Client::stranger(&address, &fingerprint, version).await
                        } else {
                            Client::member(&member, version).await
                        };
                        let mut client = client.unwrap();
                        let _ = client.send(&first).await;
                        drain(&mut client).await;
                    }
                    random
                }
            })
            .await;
        })
        .await;
    }
}

/// Connects in one of the versions that are spoken.
async fn some_member(random: &mut Random, identity: &Identity) -> Client {
    if random.is_one_in(3) {
        let mut client = Client::member(identity, Version::V311).await.unwrap();
        if client.connect(&Connect::of(identity.component)).await == Some(0) {
            return client;
        }
    }
    connected(identity, Version::V5).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_member_sends_nobody_else_notices() {
    const BATCH: usize = 250;
    let _alone = ALONE.lock().await;
    let installation = Installation::orchestrator().await;
    let mut members = Vec::new();
    for lane in 0..LANES {
        // A repository may send more in a second than a collector.
        members.push(installation.enrolled(REPOSITORY, &format!("member-{lane}")).await);
    }
    let members = std::sync::Arc::new(members);
    let mut lanes = lanes(3);
    part("packets of members", packets(), Some(&installation), async |count| {
        in_lanes(&mut lanes, count, |lane, mut random, mut left| {
            let members = members.clone();
            async move {
                let identity = &members[lane];
                let own = identity.component.to_string();
                while left > 0 {
                    let mut client = some_member(&mut random, identity).await;
                    let version = client.version;
                    // Most of it is answered or ignored, and all of it is read.
                    let (mut batch, mut pings) = (Vec::new(), 1);
                    for _ in 0..BATCH.min(left) {
                        let one = some_packet(&mut random, &own, version);
                        pings += usize::from(one == PINGREQ);
                        batch.extend(one);
                    }
                    batch.extend(PINGREQ);
                    client.send(&batch).await.unwrap();
                    while pings > 0 {
                        match client.answer().await {
                            Some(Packet::Pong) => pings -= 1,
                            Some(Packet::Goodbye(_)) | None => panic!("a packet that is allowed ended the connection"),
                            Some(_) => {}
                        }
                    }
                    // The rest of it usually ends the connection.
                    let mut last = Vec::new();
                    for _ in 0..=random.below(3) {
                        last.extend(any_packet(&mut random, &own, version));
                    }
                    let _ = client.send(&last).await;
                    drain(&mut client).await;
                    left -= BATCH.min(left);
                }
                random
            }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_stranger_sends_nobody_else_notices() {
    let _alone = ALONE.lock().await;
    let installation = Installation::orchestrator().await;
    let (address, fingerprint) = (installation.address().await, installation.ca_fingerprint());
    let mut lanes = lanes(4);
    part("packets of strangers", packets() / 10, Some(&installation), async |count| {
        in_lanes(&mut lanes, count, |_, mut random, mut left| {
            let (address, fingerprint) = (address.clone(), fingerprint.clone());
            async move {
                while left > 0 {
                    let own = random.uuid();
                    let mut client = Client::stranger(&address, &fingerprint, Version::V5).await.unwrap();
                    assert_eq!(client.connect(&Connect::of(own)).await, Some(0));
                    let mut batch = Vec::new();
                    for _ in 0..10.min(left) {
                        batch.extend(match random.below(4) {
                            0 => PINGREQ.to_vec(),
                            1 => {
                                let payload = [b"x".to_vec(), random.bytes(300)].concat();
                                Publish::of(Topic::Registration, payload).bytes(Version::V5)
                            }
                            _ => any_packet(&mut random, &own.to_string(), Version::V5),
                        });
                    }
                    let _ = client.send(&batch).await;
                    drain(&mut client).await;
                    left -= 10.min(left);
                }
                random
            }
        })
        .await;
    })
    .await;
}

/// A sealed message whose header says the same in other words, as long as headers may be. Its signature fits no more.
fn with_a_longer_header(random: &mut Random, message: &[u8]) -> Vec<u8> {
    let sealed = Sealed::split(message).unwrap();
    let json = String::from_utf8(URL_SAFE_NO_PAD.decode(sealed.header).unwrap()).unwrap();
    let blanks: String = (0..4_000).map(|_| *random.pick(&[' ', '\t'])).collect();
    let header = URL_SAFE_NO_PAD.encode(json.replacen('{', &format!("{{{blanks}"), 1));
    let text = String::from_utf8_lossy(message);
    let (_, rest) = text.split_once("..").unwrap();
    format!("{header}..{rest}").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_changed_in_a_sealed_message_it_is_not_opened() {
    let _alone = ALONE.lock().await;
    let installation = Installation::orchestrator().await;
    let identity = installation.enrolled(PCS, "member").await;
    let orchestrator = installation.handle.status().await.orchestrator;
    let trust = Trust::new(vec![installation.ca_der()]);
    let topic = heartbeats_of(identity.component);
    let message = sealed(&identity, &heartbeat(identity.component));
    let now = Timestamp::now();
    trust.open(&topic, &message, orchestrator, now).unwrap();
    let mut random = Random::of(5, 0);
    part("sealed messages", packets() / 2, Some(&installation), async |count| {
        for _ in 0..count {
            let changed = match random.below(8) {
                0 => random.bytes(600),
                1 => with_a_longer_header(&mut random, &message),
                _ => random.mutated(&message),
            };
            if changed != message {
                assert!(trust.open(&topic, &changed, orchestrator, now).is_err(), "{changed:02x?}");
            }
            let topic = random.mutated(topic.as_bytes());
            if let Ok(topic) = String::from_utf8(topic).map(|text| some_text_or(&mut random, text)) {
                let opened = trust.open(&topic, &message, orchestrator, now);
                assert!(opened.is_err() || topic == heartbeats_of(identity.component), "{topic}");
            }
        }
    })
    .await;
}

fn some_text_or(random: &mut Random, text: String) -> String {
    if random.is_one_in(4) { some_topic(random, &text) } else { text }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", STANDARD.encode(der))
}

/// DER of a signing request.
fn request_der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(lines).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_changed_in_a_registration_it_is_refused_and_counted() {
    /// Registrations that are on their way at a time.
    const WINDOW: usize = 50;
    let _alone = ALONE.lock().await;
    let installation = Installation::orchestrator().await;
    let member = installation.enrolled(REPOSITORY, "member").await;
    let mut client = connected(&member, Version::V5).await;
    let key = identity::key(&installation.data.path().join("nobody")).unwrap();
    let sealer = Sealer::with_bare_key(key.serialized_der()).unwrap();
    let honest = identity::signing_request(&key).unwrap();
    let der = request_der(&honest);
    let mut random = Random::of(6, 0);
    part("registrations", packets() / 40, Some(&installation), async |count| {
        let mut left = count;
        while left > 0 {
            let refused = installation.refused_in_all().await;
            let window = WINDOW.min(left);
            for _ in 0..window {
                let certificate_signing_request = match random.below(4) {
                    0 => String::from_utf8_lossy(&random.mutated(honest.as_bytes())).into_owned(),
                    1 => honest.clone(),
                    _ => pem(&random.mutated(&der)),
                };
                let mac = URL_SAFE_NO_PAD.encode(random.bytes(40));
                let proof = JoinProof { token_id: random.uuid().simple().to_string(), mac };
                let request = ComponentRegistrationRequest {
                    component_unique_identifier: random.is_one_in(4).then(|| ComponentId(random.uuid())),
                    component_type: *random.pick(&ComponentType::ALL),
                    component_name: String::from_utf8_lossy(&random.bytes(600)).into_owned(),
                    component_description: None,
                    certificate_signing_request,
                    join_proof: random.is_one_in(2).then_some(proof),
                };
                let mut question = envelope(ComponentId(random.uuid()), &request);
                if random.is_one_in(4) {
                    let body = random.mutated(question.body.get().as_bytes());
                    if let Ok(body) = serde_json::from_slice(&body) {
                        question.body = body;
                    }
                }
                let publish = Publish::of(Topic::Registration, sealer.seal(&question.to_bytes()));
                assert_eq!(client.publish(publish).await, Some(0));
            }
            eventually("each of them is refused", async || {
                (installation.refused_in_all().await >= refused + window as u64).then_some(())
            })
            .await;
            left -= window;
        }
    })
    .await;
    // The two that the test itself has let in.
    assert_eq!(installation.roster().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_token_says_it_is_read_or_refused() {
    let _alone = ALONE.lock().await;
    let token = JoinToken {
        address: "127.0.0.1:8883".to_owned(),
        ca_fingerprint: "ab".repeat(32),
        id: "id".to_owned(),
        secret: "secret".to_owned(),
    };
    let text = token.to_string();
    let json = serde_json::to_vec(&token).unwrap();
    let mut random = Random::of(7, 0);
    part("tokens", packets(), None, async |count| {
        for _ in 0..count {
            let changed = match random.below(3) {
                0 => String::from_utf8_lossy(&random.bytes(200)).into_owned(),
                1 => String::from_utf8_lossy(&random.mutated(text.as_bytes())).into_owned(),
                _ => format!("muster1.{}", URL_SAFE_NO_PAD.encode(random.mutated(&json))),
            };
            if let Ok(read) = changed.parse::<JoinToken>() {
                // Whatever it was, it is one now.
                assert_eq!(read.to_string().parse::<JoinToken>().unwrap(), read);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_changed_in_a_certificate_or_a_request_it_says_nothing_else() {
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let ca = Ca::open(&directory.path().join("ca"), 3_600, now).unwrap();
    let key = identity::key(directory.path()).unwrap();
    let request = identity::signing_request(&key).unwrap();
    let own = ComponentId(Uuid::new_v4());
    let (issued, _) = ca.issue(&request, own, PCS, now).unwrap();
    let der = certificate_der(&issued).unwrap();
    let certificate = Certificate::verify(&der, &ca.der(), now).unwrap();
    let requested = request_der(&request);
    let mut random = Random::of(8, 0);
    part("certificates and signing requests", packets() / 4, None, async |count| {
        for _ in 0..count {
            let changed = random.mutated(&der);
            // Some bytes say nothing; with those, the certificate is the same.
            if let Ok(read) = Certificate::verify(&changed, &ca.der(), now) {
                assert_eq!(read, certificate);
            }
            let _ = Certificate::verify(&der, &random.mutated(&ca.der()), now);
            let text = if random.is_one_in(4) {
                String::from_utf8_lossy(&random.mutated(request.as_bytes())).into_owned()
            } else {
                pem(&random.mutated(&requested))
            };
            if let Ok(of) = key_of(&text) {
                assert_eq!(of, certificate.public_key);
            }
            if let Ok((issued, _)) = ca.issue(&text, own, PCS, now) {
                let issued = Certificate::verify(&certificate_der(&issued).unwrap(), &ca.der(), now).unwrap();
                let expected = (own, PCS, certificate.public_key);
                assert_eq!((issued.component, issued.component_type, issued.public_key), expected);
            }
        }
    })
    .await;
}

/// What YAML can be made of.
const YAML: &[&str] = &[
    "%YAML 1.2\n---\n",
    "a: &x [1, 2.5, ~, 'q', \"d\\n\"]\nb: *x\n",
    "- {k: v, ? c : d}\n- - |\n    text\n  - >-\n    text\n",
    "? [complex]\n: !!int 0x1F\n...\n--- !t &y\n",
    "a: {b: {c: [[*x]]}}\r\n\t# d\r\n",
    "\u{feff}<<: *a\n\"\\u00e4\": .inf\n",
];

const YAML_PATHS: &[&str] = &["$.a[0]", ".b[:]", "[:].k", ".*", "['a',\"b\"][0,2]", "a.b.c[:][0]", "$"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_yaml_file_and_a_path_are_there_is_an_answer() {
    let _alone = ALONE.lock().await;
    let root = tempfile::tempdir().unwrap();
    let mut random = Random::of(9, 0);
    part("YAML files and paths", packets() / 16, None, async |count| {
        for _ in 0..count {
            let text: String = (0..=random.below(6)).map(|_| *random.pick(YAML)).collect();
            let content = if random.is_one_in(8) { text.into_bytes() } else { random.mutated(text.as_bytes()) };
            std::fs::write(root.path().join("f"), &content).unwrap();
            let path = random.pick(YAML_PATHS).as_bytes().to_vec();
            let path = if random.is_one_in(2) { path } else { random.mutated(&path) };
            let path: String = String::from_utf8_lossy(&path).replace(['\\', '\''], "\"");
            let question = format!("independent:yamlfilecontent where filepath = '/f' and yamlpath = '{path}'");
            // What is no question is not asked.
            let Ok(question) = question.parse::<PostureQuery>() else { continue };
            let (plan, keys) = oval::question::plan_of(&question).unwrap();
            let host = Host::new(root.path());
            let collected = Resolver::new(&plan, Probes::new(&host), Timestamp::UNIX_EPOCH).object(&keys[0]);
            let is_quiet = matches!(collected.flag, Flag::Complete | Flag::DoesNotExist);
            assert!(is_quiet || !collected.messages.is_empty(), "{collected:?}");
        }
    })
    .await;
}
