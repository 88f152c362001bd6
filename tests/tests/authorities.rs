//! Replacing the certificate authority while everything runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use proto::capability::ComponentType;
use proto::operator::{Ask, CaView, ComponentState, OperatorEvent, RosterEntry, Workflow};
use service::identity::Identity;
use service::member;
use system_tests::attack::{connected, is_ended_at_once};
use system_tests::raw::{Client, Version, reason};
use system_tests::{Installation, baseline, eventually, verdicts};

const PCS: ComponentType = ComponentType::PostureCollectionService;
const NAMES: [&str; 4] = ["orchestrator", "repository", "pes-evaluator", "collector"];

async fn with_certificates_of(seconds: i64) -> Installation {
    let data = tempfile::tempdir().unwrap();
    Installation::with_certificates_of(seconds, data, "127.0.0.1:0").await
}

async fn cas(installation: &Installation, ask: Ask) -> Result<Vec<CaView>, String> {
    match installation.ask(ask).await.remove(0) {
        OperatorEvent::Cas(cas) => Ok(cas),
        OperatorEvent::Fault(fault) => Err(fault.message),
        other => panic!("{other:?}"),
    }
}

async fn roster(installation: &Installation) -> Vec<RosterEntry> {
    match installation.ask(Ask::Roster).await.remove(0) {
        OperatorEvent::Roster(entries) => entries,
        other => panic!("{other:?}"),
    }
}

fn cas_of(installation: &Installation, name: &str) -> usize {
    Identity::load(&installation.data.path().join(name).join("identity")).unwrap().unwrap().cas.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_is_replaced_while_everything_runs_and_nobody_joins_again() {
    let installation = with_certificates_of(6).await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    installation.add_collector("collector", Path::new("/")).await;
    installation.wait_for_active(3).await;
    let ids: Vec<_> = roster(&installation).await.iter().map(|entry| entry.component).collect();
    let early = installation.token(PCS).await;
    let refused = cas(&installation, Ask::CaRetire { is_forced: true }).await.unwrap_err();
    assert!(refused.contains("there is one CA"), "{refused}");

    let both = cas(&installation, Ask::CaRotate).await.unwrap();
    assert_eq!(both.iter().map(|ca| ca.is_issuer).collect::<Vec<_>>(), [true, false]);
    let refused = cas(&installation, Ask::CaRotate).await.unwrap_err();
    assert!(refused.contains("a rotation is going on"), "{refused}");
    // Everybody learns it without being told to hurry; then it signs.
    let both = eventually("the new CA signs", async || {
        let cas = cas(&installation, Ask::CaShow).await.unwrap();
        cas[1].is_issuer.then_some(cas)
    })
    .await;
    assert_eq!(both[1].known_by, 3, "{both:?}");
    for name in NAMES {
        eventually("both are trusted", async || (cas_of(&installation, name) == 2).then_some(())).await;
    }
    let evaluate = || Ask::Evaluate(Workflow { targets: vec!["collector".to_owned()], ..baseline(60) });
    assert_eq!(verdicts(&installation.ask(evaluate()).await).len(), 62);
    // A token from before is good as long as the old CA is, and whoever comes learns of the new one.
    let joined = member::start(installation.settings(PCS, "late", Some(early.clone()))).await.unwrap();
    eventually("who came late knows both", async || (cas_of(&installation, "late") == 2).then_some(())).await;

    eventually("no certificate of the old CA is left", async || {
        cas(&installation, Ask::CaRetire { is_forced: false }).await.ok()
    })
    .await;
    for name in NAMES {
        eventually("only the new one is trusted", async || (cas_of(&installation, name) == 1).then_some(())).await;
    }
    let one = eventually("everybody knows that", async || {
        let cas = cas(&installation, Ask::CaShow).await.unwrap();
        (cas.len() == 1 && cas[0].certificate_count == 4).then_some(cas)
    })
    .await;
    assert_eq!(one[0].fingerprint, both[1].fingerprint);
    assert_eq!(verdicts(&installation.ask(evaluate()).await).len(), 62);
    let after = roster(&installation).await;
    assert!(ids.iter().all(|id| after.iter().any(|entry| entry.component == *id)) && after.len() == 4, "{after:?}");
    // A new token names the new CA.
    installation.scripted(PCS, "new").await;
    // What the old one has signed can still be checked, by whoever has its certificate.
    let history = std::fs::read_to_string(installation.data.path().join("orchestrator/ca/history.pem")).unwrap();
    assert_eq!(service::identity::certificates_der(&history).len(), 2);
    assert!(!installation.data.path().join("orchestrator/ca/key.pem").exists(), "the old CA's key is still there");
    drop(joined);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_goes_on_after_a_restart_and_whoever_was_away_is_named_before_it_is_cut_off() {
    let installation = with_certificates_of(3_600).await;
    let settings = installation.settings(PCS, "away", Some(installation.token(PCS).await));
    let away = member::start(settings.clone()).await.unwrap();
    installation.wait_for_active(1).await;
    let own = away.bus.own();
    away.bus.close();
    drop(away);
    installation.ask(Ask::Status).await;
    cas(&installation, Ask::CaRotate).await.unwrap();
    let listen = installation.handle.status().await.listen;
    let installation = Installation::orchestrator_in(installation.stop().await, &listen).await;
    let both = cas(&installation, Ask::CaShow).await.unwrap();
    assert_eq!(both.len(), 2);
    // It comes back after the new one has been made, with what it knew before.
    let settings = member::MemberSettings { join_token: None, ..settings };
    let back = member::start(settings.clone()).await.unwrap();
    assert_eq!(back.bus.own(), own);
    eventually("it has learnt of the new one", async || (cas_of(&installation, "away") == 2).then_some(())).await;
    eventually("the new one signs", async || cas(&installation, Ask::CaShow).await.unwrap()[1].is_issuer.then_some(()))
        .await;
    // Its certificate is of the old one for half an hour yet.
    let refused = cas(&installation, Ask::CaRetire { is_forced: false }).await.unwrap_err();
    assert!(refused.contains("away") && refused.contains("--force"), "{refused}");
    back.bus.close();
    drop(back);
    cas(&installation, Ask::CaRetire { is_forced: true }).await.unwrap();
    // Its certificate is no good any more, but it knows the CA that is: with its key it gets another one.
    let back = member::start(settings).await.unwrap();
    eventually("it is let in again", async || {
        let entry = roster(&installation).await.into_iter().find(|entry| entry.component == own).unwrap();
        (entry.state == ComponentState::Active && cas_of(&installation, "away") == 1).then_some(())
    })
    .await;
    assert_eq!(back.bus.own(), own);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_learns_of_the_new_ca_holds_nobody_up_and_is_cut_off_with_the_old_one() {
    let installation = Installation::orchestrator().await;
    let stubborn = installation.enrolled(PCS, "stubborn").await;
    let mut client = connected(&stubborn, Version::V5).await;
    cas(&installation, Ask::CaRotate).await.unwrap();
    let refused = cas(&installation, Ask::CaRetire { is_forced: false }).await.unwrap_err();
    assert!(refused.contains("stubborn") && refused.contains("--force"), "{refused}");
    assert!(client.is_alive().await, "both are trusted");
    let left = cas(&installation, Ask::CaRetire { is_forced: true }).await.unwrap();
    assert_eq!(left.len(), 1);
    // Its connection was made under the old one, and ends with it.
    assert_eq!(is_ended_at_once(&mut client).await, Some(reason::NOT_AUTHORISED));
    // Nor is there a way back: it does not even know whom it speaks with.
    assert!(Client::member(&stubborn, Version::V5).await.is_err());
}
