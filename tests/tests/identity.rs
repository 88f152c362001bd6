//! Which endpoint is which, over time: machines that are copied, installed anew, and come back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::operator::{Ask, ComponentState, IdentityDecision, OperatorEvent, RosterEntry, Workflow};
use service::chain::verify;
use service::member;
use system_tests::{Installation, PATIENCE, baseline, eventually, verdicts};

const PCS: ComponentType = ComponentType::PostureCollectionService;

async fn roster(installation: &Installation) -> Vec<RosterEntry> {
    match installation.ask(Ask::Roster).await.remove(0) {
        OperatorEvent::Roster(entries) => entries,
        other => panic!("{other:?}"),
    }
}

async fn entry(installation: &Installation, name: &str) -> RosterEntry {
    roster(installation).await.into_iter().find(|entry| entry.name == name).unwrap()
}

async fn decide(installation: &Installation, decision: IdentityDecision) {
    let events = installation.ask(Ask::Identity(decision)).await;
    assert!(matches!(&events[0], OperatorEvent::Notice(_)), "{events:?}");
}

async fn in_state(installation: &Installation, name: &str, state: ComponentState) -> ComponentId {
    eventually("the component is in that state", async || {
        let entry = roster(installation).await.into_iter().find(|entry| entry.name == name)?;
        (entry.state == state).then_some(entry.component)
    })
    .await
}

fn stored(target: String) -> Ask {
    Ask::Evaluate(Workflow { is_stored_only: true, targets: vec![target], ..baseline(60) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_of_a_copied_machine_waits_and_then_takes_over_what_is_known_of_it() {
    let installation = Installation::complete().await;
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    installation.add_collector("original", root.path()).await;
    in_state(&installation, "original", ComponentState::Active).await;
    let label = entry(&installation, "original").await.endpoints[0].endpoint;
    let workflow = Workflow { targets: vec!["original".to_owned()], ..baseline(60) };
    let before = verdicts(&installation.ask(Ask::Evaluate(workflow)).await);
    // The same machine-id, with a key and a token of its own.
    installation.add_collector("copy", root.path()).await;
    let copy = in_state(&installation, "copy", ComponentState::Quarantined).await;
    let in_quarantine = entry(&installation, "copy").await;
    assert!(in_quarantine.collision.is_some_and(|why| why.contains("machine-id")));
    assert!(in_quarantine.endpoints.is_empty() && in_quarantine.capability_count == 0);
    let counts = installation.handle.status().await.security_counts;
    assert!(counts.iter().any(|(code, count)| code == "security.identity-collision" && *count == 1), "{counts:?}");
    assert_eq!(entry(&installation, "original").await.state, ComponentState::Active);

    decide(&installation, IdentityDecision::Same(copy)).await;
    in_state(&installation, "original", ComponentState::Evicted).await;
    in_state(&installation, "copy", ComponentState::Active).await;
    assert_eq!(entry(&installation, "copy").await.endpoints[0].endpoint, label);
    // What was known of it is known of it, and it reports anew.
    assert_eq!(verdicts(&installation.ask(stored(label.to_string())).await), before);
    let workflow = Workflow { targets: vec!["copy".to_owned()], ..baseline(60) };
    assert_eq!(verdicts(&installation.ask(Ask::Evaluate(workflow)).await), before);
    let log = installation.ask(Ask::Audit).await;
    for act in ["quarantine", "same-endpoint"] {
        assert!(format!("{log:?}").contains(act), "{act}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_goes_with_a_machine_that_was_installed_anew_and_can_be_taken_apart_again() {
    let installation = Installation::complete().await;
    let root = tempfile::tempdir().unwrap();
    let dmi = root.path().join("sys/class/dmi/id");
    std::fs::create_dir_all(root.path().join("etc")).unwrap();
    std::fs::create_dir_all(&dmi).unwrap();
    std::fs::write(dmi.join("product_uuid"), "4C4C4544-0051-3010-8051-B4C04F4B4B32\n").unwrap();
    std::fs::write(root.path().join("etc/machine-id"), "11111111111111111111111111111112\n").unwrap();
    installation.add_collector("before", root.path()).await;
    let before = in_state(&installation, "before", ComponentState::Active).await;
    let old = entry(&installation, "before").await.endpoints[0].endpoint;
    let workflow = Workflow { targets: vec!["before".to_owned()], ..baseline(60) };
    let known = verdicts(&installation.ask(Ask::Evaluate(workflow)).await);
    installation.ask(Ask::Dismiss { component: before, is_ban: false, reason: "installed anew".to_owned() }).await;
    std::fs::write(root.path().join("etc/machine-id"), "22222222222222222222222222222223\n").unwrap();
    installation.add_collector("after", root.path()).await;
    let after = in_state(&installation, "after", ComponentState::Active).await;
    let fresh = entry(&installation, "after").await.endpoints[0].clone();
    assert_eq!(fresh.likely, Some(old));
    assert_ne!(fresh.endpoint, old);
    let workflow = Workflow { targets: vec!["after".to_owned()], ..baseline(60) };
    assert_eq!(verdicts(&installation.ask(Ask::Evaluate(workflow)).await), known);

    decide(&installation, IdentityDecision::Same(after)).await;
    eventually("it has its label again", async || {
        let entry = entry(&installation, "after").await;
        (entry.endpoints[0].endpoint == old && entry.endpoints[0].likely.is_none()).then_some(())
    })
    .await;
    assert_eq!(verdicts(&installation.ask(stored(old.to_string())).await), known);
    // The verdicts rest on what was reported under the label that it had for a while: they can be followed all the same.
    let links = installation.chain(Some(old.to_string()), None).await;
    let proven = verify(&links, &[installation.ca_der()], None).unwrap();
    assert!(proven.iter().all(|verdict| verdict.endpoint == old), "{proven:?}");
    let evidence: Vec<_> = proven.iter().flat_map(|verdict| &verdict.evidence).collect();
    assert!(evidence.iter().any(|report| report.endpoint == fresh.endpoint), "{evidence:?}");
    decide(&installation, IdentityDecision::Split(fresh.endpoint)).await;
    assert_eq!(verdicts(&installation.ask(stored(old.to_string())).await), known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_key_is_found_out_and_the_younger_process_ends() {
    let installation = Installation::orchestrator().await;
    let first = installation.scripted(PCS, "machine").await;
    let own = first.bus.own();
    // The data directory is copied, key and all, and started beside the original.
    let copied = installation.data.path().join("copied");
    let status = std::process::Command::new("cp")
        .args(["-a".as_ref(), installation.data.path().join("machine").as_os_str(), copied.as_os_str()])
        .status()
        .unwrap();
    assert!(status.success());
    let settings = member::MemberSettings { data: copied.clone(), ..installation.settings(PCS, "machine", None) };
    let mut copy = member::start(settings.clone()).await.unwrap();
    assert_eq!(copy.bus.own(), own);
    // They take turns, until the one that was there first has come back after the other.
    let ended = tokio::time::timeout(PATIENCE, async { while copy.inbox.recv().await.is_some() {} }).await;
    assert!(ended.is_ok(), "the copy goes on");
    let told = copy.dismissal.check().unwrap_err().to_string();
    assert!(told.contains("the key was copied"), "{told}");
    first.dismissal.check().unwrap();
    assert_eq!(member::start(settings.clone()).await.unwrap_err().to_string(), told);
    let counts = installation.handle.status().await.security_counts;
    assert!(counts.iter().any(|(code, _)| code == "security.identity-collision"), "{counts:?}");
    // With a token it joins with a key of its own; its machine-id is still that of the first.
    let token = Some(installation.token(PCS).await);
    let again = member::start(member::MemberSettings { join_token: token, ..settings }).await.unwrap();
    assert_ne!(again.bus.own(), own);
    eventually("it is in quarantine", async || {
        let entry = roster(&installation).await.into_iter().find(|entry| entry.component == again.bus.own())?;
        (entry.state == ComponentState::Quarantined).then_some(())
    })
    .await;
    first.dismissal.check().unwrap();
}
