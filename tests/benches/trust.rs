//! What trust costs: `cargo bench -p system-tests --bench trust`.
//!
//! Signs and verifies messages; lets `MUSTER_BENCH_COMPONENTS` components (1,000 unless told) join one orchestrator and
//! stay connected over mutual TLS; kills the orchestrator, and waits until all are back.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and stops where it cannot go on")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::Trust;
use jiff::Timestamp;
use orchestrator::ca::Ca;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::message::{HeartbeatAction, HeartbeatRequest, Message as _};
use proto::operator::{Ask, OperatorEvent};
use proto::seal::Sealer;
use proto::topic::Topic;
use service::identity;
use service::member::{self, Member, MemberSettings};
use system_tests::attack::envelope;
use system_tests::processes::Process;
use system_tests::{ask, eventually};
use tokio::sync::Semaphore;
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;
/// Components that join at a time.
const AT_ONCE: usize = 32;

fn main() {
    messages();
    let components = std::env::var("MUSTER_BENCH_COMPONENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(connections(components));
}

fn messages() {
    const ROUNDS: u32 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let ca = Ca::open(&directory.path().join("ca"), 3_600, Timestamp::now()).unwrap();
    let key = identity::key(directory.path()).unwrap();
    let own = ComponentId(Uuid::new_v4());
    let request = identity::signing_request(&key).unwrap();
    let (pem, _) = ca.issue(&request, own, PCS, Timestamp::now()).unwrap();
    let certificate = identity::certificate_der(&pem).unwrap();
    let sealer = Sealer::with_certificate(key.serialized_der(), &[&certificate]).unwrap();
    let trust = Trust::new(ca.ders());
    let topic = Topic::AdminUp(own, HeartbeatRequest::KIND.to_owned()).to_string();
    let body = HeartbeatRequest { action: HeartbeatAction::Pulse, unacknowledged_count: 0 };
    let envelope = envelope(own, &body);
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let sealed = sealer.seal(&envelope.to_bytes());
        trust.open(&topic, &sealed, own, Timestamp::now()).unwrap();
    }
    let each = began.elapsed() / ROUNDS;
    println!("sign and verify a message     {:>8.1} µs of 100 µs", each.as_secs_f64() * 1e6);
}

async fn token(data: &Path, uses: u32) -> String {
    eventually("a token", async || {
        let (component_type, labels) = (PCS, Vec::new());
        let ask_token = Ask::TokenCreate { component_type, uses, ttl_seconds: 3_600, labels, needs_approval: false };
        match ask(data, ask_token, &[]).await.ok()?.into_iter().next()? {
            OperatorEvent::Token(token) => Some(token),
            _ => None,
        }
    })
    .await
}

/// From nothing to the end of the handshake.
async fn join(data: &Path, number: u32, token: String) -> (Member, Duration) {
    let began = Instant::now();
    let name = format!("c{number}");
    let settings = MemberSettings {
        component_type: PCS,
        name: name.clone(),
        data: data.join(&name),
        join_token: Some(token),
        broker: None,
        endpoints: Vec::new(),
        tpm: None,
        tied: &[],
        store: None,
    };
    let member = member::start(settings).await.unwrap();
    let mut assigned = member.assigned.clone();
    assigned.wait_for(|assigned| assigned.is_active).await.unwrap();
    (member, began.elapsed())
}

async fn connections(count: u32) {
    let data = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let directory = data.path().join("orchestrator");
    let words =
        ["muster-orchestrator", "--data", directory.to_str().unwrap(), "--listen", &format!("127.0.0.1:{port}")];
    let mut orchestrator = Process::start(words.map(str::to_owned).to_vec());
    let token = token(&directory, count).await;
    let idle_kib = orchestrator.memory_kib().0;
    let idle_descriptors = orchestrator.descriptor_count();
    let mut members = Vec::new();
    let mut times = Vec::new();
    for number in 0..count.min(100) {
        let (member, took) = join(data.path(), number, token.clone()).await;
        members.push(member);
        times.push(took);
    }
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("join and shake hands, p99     {:>8.1} ms of 3,000 ms, one after the other", p99.as_secs_f64() * 1e3);
    let began = Instant::now();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = tokio::task::JoinSet::new();
    for number in count.min(100)..count {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let (path, token) = (data.path().to_owned(), token.clone());
        joining.spawn(async move {
            let joined = join(&path, number, token).await;
            drop(place);
            joined.0
        });
    }
    members.extend(joining.join_all().await);
    println!("{} more join, {AT_ONCE} at a time {:>8.1} s", count.saturating_sub(100), began.elapsed().as_secs_f64());
    let held = orchestrator.memory_kib().0.saturating_sub(idle_kib);
    let each = held / u64::from(count);
    println!("memory of an idle connection  {each:>8} KiB of 48 KiB, roster and router included");
    // The same ones, all at once, after the orchestrator was killed.
    orchestrator.restart();
    let began = Instant::now();
    eventually("all are back", async || {
        let connected = orchestrator.descriptor_count().saturating_sub(idle_descriptors);
        (connected >= count as usize).then_some(())
    })
    .await;
    println!("{count} are back after a kill  {:>8.1} s of 20 s", began.elapsed().as_secs_f64());
}
