//! A collector that is tied to its machine by a TPM: a real (software) one, which speaks what one in silicon speaks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use proto::capability::ComponentType;
use proto::identity::TPM_KEY;
use proto::message::{HeartbeatRequest, Message as _};
use proto::operator::{Ask, ComponentState, IdentityDecision, OperatorEvent, RosterEntry, Workflow};
use proto::topic::Topic;
use system_tests::attack::{connected, heartbeat, sealed};
use system_tests::raw::{Publish, Version, reason};
use system_tests::{Installation, baseline, eventually, verdicts};

/// A TPM of its own seeds, on a Unix socket; it ends with the test.
struct SoftwareTpm {
    child: Child,
    socket: PathBuf,
}

impl SoftwareTpm {
    /// `None` where the program is missing, which is said past the capture of the test's output; CI demands it.
    fn start(directory: &Path) -> Option<Self> {
        if Command::new("swtpm").arg("--version").output().is_err() {
            use std::io::Write as _;
            assert!(std::env::var_os("MUSTER_REQUIRE_TPM").is_none(), "swtpm is required here and is missing");
            let _ = writeln!(std::io::stderr(), "SKIPPED: `swtpm` is not installed: no TPM was asked for anything");
            return None;
        }
        std::fs::create_dir_all(directory).unwrap();
        let socket = directory.join("tpm");
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", directory.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tpm = Self { child, socket };
        for _ in 0..1_000 {
            if tpm.socket.exists() {
                return Some(tpm);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("swtpm does not listen");
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn machine(installation: &Installation) -> Option<RosterEntry> {
    match installation.ask(Ask::Roster).await.remove(0) {
        OperatorEvent::Roster(entries) => entries.into_iter().find(|entry| entry.name == "machine"),
        other => panic!("{other:?}"),
    }
}

async fn in_state(installation: &Installation, state: ComponentState, key: Option<&str>) -> RosterEntry {
    eventually("the collector is in that state", async || {
        let entry = machine(installation).await?;
        let is_known = key.is_none_or(|key| shown_key(&entry).as_deref() == Some(key));
        (entry.state == state && is_known).then_some(entry)
    })
    .await
}

fn shown_key(entry: &RosterEntry) -> Option<String> {
    let evidence = &entry.endpoints.first()?.evidence;
    evidence.iter().find(|evidence| evidence.attribute == TPM_KEY).map(|evidence| evidence.value.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_machine_with_a_tpm_is_found_out_when_the_original_is_switched_off() {
    let installation = Installation::complete().await;
    let directories = tempfile::tempdir().unwrap();
    let start = |name: &str| SoftwareTpm::start(&directories.path().join(name));
    let (Some(first), Some(second)) = (start("first"), start("second")) else { return };
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let run = |token: Option<String>, tpm: Option<&SoftwareTpm>| {
        installation.start_collector_with("machine", root.path(), token, tpm.map(|tpm| tpm.socket.clone()))
    };

    let token = installation.token(ComponentType::PostureCollectionService).await;
    let original = run(Some(token), Some(&first));
    let entry = in_state(&installation, ComponentState::Active, None).await;
    let key = shown_key(&entry).expect("the TPM's key is among the evidence");
    let label = entry.endpoints[0].endpoint;
    let workflow = Workflow { targets: vec!["machine".to_owned()], ..baseline(60) };
    assert!(!verdicts(&installation.ask(Ask::Evaluate(workflow.clone())).await).is_empty());

    // It is started anew, and is the same.
    installation.stop_collector("machine", original).await;
    let again = run(None, Some(&first));
    eventually("it has started again", async || {
        let entry = machine(&installation).await?;
        (entry.state == ComponentState::Active
            && entry.heard > Some(jiff::Timestamp::now() - jiff::SignedDuration::from_secs(2)))
        .then_some(())
    })
    .await;
    assert_eq!(shown_key(&machine(&installation).await.unwrap()), Some(key.clone()));

    // Its disk, key and all, is in another machine now. Nothing else of it is to be seen.
    installation.stop_collector("machine", again).await;
    let copy = run(None, Some(&second));
    let entry = in_state(&installation, ComponentState::Quarantined, None).await;
    assert!(entry.collision.as_ref().is_some_and(|why| why.contains(&key)), "{entry:?}");
    assert_eq!(entry.capability_count, 0);
    let counts = installation.handle.status().await.security_counts;
    assert!(counts.iter().any(|(code, _)| code == "security.identity-collision"), "{counts:?}");
    // To leave the TPM out is no way around it.
    installation.stop_collector("machine", copy).await;
    let without = run(None, None);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(machine(&installation).await.unwrap().state, ComponentState::Quarantined);
    let distinct = installation.ask(Ask::Identity(IdentityDecision::Distinct(entry.component))).await;
    assert!(
        matches!(&distinct[0], OperatorEvent::Fault(fault) if fault.message.contains("muster evict")),
        "{distinct:?}"
    );

    // An operator knows that the mainboard was replaced.
    installation.stop_collector("machine", without).await;
    let replaced = run(None, Some(&second));
    installation.ask(Ask::Identity(IdentityDecision::Same(entry.component))).await;
    let entry = eventually("it is in, with the key of its new TPM", async || {
        let entry = machine(&installation).await?;
        let shown = shown_key(&entry)?;
        (entry.state == ComponentState::Active && shown != key).then_some(entry)
    })
    .await;
    assert_eq!(entry.endpoints[0].endpoint, label);
    assert!(!verdicts(&installation.ask(Ask::Evaluate(workflow)).await).is_empty());
    installation.stop_collector("machine", replaced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_key_without_the_tpm_is_granted_nothing_while_it_says_nothing_of_itself() {
    let installation = Installation::complete().await;
    let directory = tempfile::tempdir().unwrap();
    let Some(tpm) = SoftwareTpm::start(&directory.path().join("tpm")) else { return };
    let root = tempfile::tempdir().unwrap();
    let token = installation.token(ComponentType::PostureCollectionService).await;
    let original = installation.start_collector_with("machine", root.path(), Some(token), Some(tpm.socket.clone()));
    in_state(&installation, ComponentState::Active, None).await;
    installation.stop_collector("machine", original).await;
    // It has the key, connects, and sends what the original might have sent, but for the handshake.
    let copy = installation.identity("machine");
    let mut client = connected(&copy, Version::V5).await;
    let results = Topic::CollectionResults(copy.component).to_string();
    assert_eq!(client.publish(Publish::of(results, *b"forged")).await, Some(reason::NOT_AUTHORISED));
    let up = Topic::AdminUp(copy.component, HeartbeatRequest::KIND.to_owned()).to_string();
    client.publish(Publish::of(up, sealed(&copy, &heartbeat(copy.component)))).await;
    let entry = in_state(&installation, ComponentState::Registered, None).await;
    assert_eq!(entry.capability_count, 0);
    drop(client);
    // The original shows what it has, and is in again.
    let again = installation.start_collector_with("machine", root.path(), None, Some(tpm.socket.clone()));
    in_state(&installation, ComponentState::Active, None).await;
    installation.stop_collector("machine", again).await;
}
