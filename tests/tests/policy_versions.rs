//! Versions of policies: nothing changes before an operator has seen what would, signatures count, tailored policies follow, and
//! directories are looked at.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use proto::message::PolicyDescription;
use proto::operator::{
    Ask, FeedChange, FeedSource, OperatorEvent, PolicyFeed, PolicyImport, PolicyPreview, SignerChange, Workflow,
};
use rcgen::{KeyPair, PKCS_ED25519};
use system_tests::endpoint::root;
use system_tests::signing::{public, signed};
use system_tests::{BASELINE, Installation, ask, baseline, eventually, verdicts};

const MINE: &str = "mine";
const PASSWD_RULE: &str = "xccdf_dev.muster_rule_passwd_file_permissions";

fn text() -> String {
    String::from_utf8(BASELINE.to_vec()).unwrap()
}

/// The same rules, turned round: what was good is bad.
fn turned() -> String {
    text().replace("class=\"compliance\"", "class=\"vulnerability\"").replace("<version>1.0.0<", "<version>2.0.0<")
}

fn of(policy: &str) -> Workflow {
    Workflow { policy: policy.to_owned(), ..baseline(60) }
}

fn import_of(name: &str) -> PolicyImport {
    PolicyImport { name: name.to_owned(), ..PolicyImport::default() }
}

/// The policy, and what was said of it; or why not.
async fn import(
    installation: &Installation,
    import: PolicyImport,
    content: &str,
) -> Result<(PolicyDescription, Vec<String>), String> {
    let directory = installation.data.path().join("orchestrator");
    let events = ask(&directory, Ask::PolicyImport(Box::new(import)), content.as_bytes()).await.unwrap();
    let mut notices = Vec::new();
    for event in events {
        match event {
            OperatorEvent::Notice(text) => notices.push(text),
            OperatorEvent::Policy(policy) => return Ok((*policy, notices)),
            OperatorEvent::Fault(fault) => return Err(fault.message),
            other => panic!("{other:?}"),
        }
    }
    panic!("no answer")
}

async fn preview(installation: &Installation, name: &str, number: Option<u64>) -> Result<PolicyPreview, String> {
    match installation.ask(Ask::PolicyPreview { workflow: of(name), number }).await.into_iter().next().unwrap() {
        OperatorEvent::Preview(preview) => Ok(*preview),
        OperatorEvent::Fault(fault) => Err(fault.message),
        other => panic!("{other:?}"),
    }
}

async fn activate(installation: &Installation, name: &str, number: Option<u64>) -> Result<String, String> {
    installation.told(Ask::PolicyActivate { name: name.to_owned(), number }).await
}

async fn decided(installation: &Installation, is_stored_only: bool) -> BTreeMap<String, String> {
    let events = installation.ask(Ask::Evaluate(Workflow { is_stored_only, ..of(MINE) })).await;
    assert!(!events.iter().any(|event| matches!(event, OperatorEvent::Fault(_))), "{events:?}");
    verdicts(&events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_waits_says_what_it_would_change_and_changes_that_when_it_is_activated() {
    let root = root();
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    let token = installation.token(proto::capability::ComponentType::PostureCollectionService).await;
    let collector = installation.start_collector("c", root.path(), Some(token));
    installation.wait_for_active(3).await;
    let (first, _) = import(&installation, import_of(MINE), &text()).await.unwrap();
    assert_eq!((first.number, first.is_waiting), (Some(1), false));
    let before = decided(&installation, false).await;
    // No endpoint is contacted for the rest.
    installation.stop_collector("c", collector).await;

    let (second, notices) = import(&installation, import_of(MINE), &turned()).await.unwrap();
    assert_eq!((second.number, second.is_waiting, second.version.as_str()), (Some(2), true, "2.0.0"));
    assert!(notices.iter().any(|notice| notice.contains("muster policy preview mine")), "{notices:?}");
    assert_eq!(decided(&installation, true).await, before, "what waits changes nothing");

    let seen = preview(&installation, MINE, None).await.unwrap();
    assert_eq!((seen.from, seen.to, seen.endpoint_count, seen.changed_endpoint_count), (Some(1), Some(2), 1, 1));
    assert!(seen.changes.len() > 10 && seen.unchanged_count > 0, "{seen:?}");
    assert_eq!(seen.changes.len() as u64 + seen.unchanged_count, before.len() as u64);
    for change in &seen.changes {
        assert_eq!(change.before.unwrap().as_str(), before[&change.rule], "{change:?}");
        assert_eq!((change.endpoint_count, change.endpoints.len()), (1, 1));
    }
    assert_eq!(decided(&installation, true).await, before, "having looked changes nothing");

    let said = activate(&installation, MINE, None).await.unwrap();
    assert!(said.contains("version 2 of `mine` is in force"), "{said}");
    let after = decided(&installation, true).await;
    for (rule, verdict) in &after {
        let change = seen.changes.iter().find(|change| change.rule == *rule);
        let foretold = change.map_or(before[rule].as_str(), |change| change.after.unwrap().as_str());
        assert_eq!(verdict, foretold, "{rule}");
    }

    // What is in force, and what was, outlives the process; and there is a way back. So it is of the one that comes with the
    // program.
    let own = PolicyImport { is_activated: true, ..import_of(orchestrator::BASELINE) };
    assert_eq!(import(&installation, own, &turned()).await.unwrap().0.number, Some(2));
    let installation = installation.restarted().await;
    let known = installation.versions(orchestrator::BASELINE).await;
    assert!(known.len() == 2 && known[1].in_force_since() > known[0].in_force_since(), "{known:?}");
    let known = installation.versions(MINE).await;
    assert_eq!(known.iter().map(|version| version.number).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert!(known[1].in_force_since() > known[0].in_force_since());
    assert_eq!(known[1].supersedes.as_ref(), Some(&known[0].content.sha256));
    for (number, words) in
        [(None, "no version of `mine` waits"), (Some(2), "in force already"), (Some(9), "the last one is 2")]
    {
        assert!(activate(&installation, MINE, number).await.unwrap_err().contains(words), "{number:?}");
    }
    assert!(preview(&installation, MINE, Some(2)).await.unwrap_err().contains("in force"));
    assert!(activate(&installation, "none", None).await.unwrap_err().contains("no policy is called `none`"));
    activate(&installation, MINE, Some(1)).await.unwrap();
    let (again, notices) = import(&installation, import_of(MINE), &turned()).await.unwrap();
    assert!(again.number == Some(2) && notices[0].contains("there already, as version 2"), "{notices:?}");
    assert_eq!(decided(&installation, true).await, before);
}

/// A tailoring with one profile, which selects one rule.
fn tailoring(rule: &str) -> String {
    format!(
        r#"<Tailoring xmlns="http://checklists.nist.gov/xccdf/1.2" id="xccdf_org.example_tailoring_ours">
  <version time="2026-11-26T00:00:00Z">1</version>
  <Profile id="xccdf_org.example_profile_ours" extends="xccdf_dev.muster_profile_essential">
    <title>Ours</title>
    <select idref="{rule}" selected="false"/>
  </Profile>
</Tailoring>"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tailored_policy_is_its_own_and_follows_the_one_that_it_tailors() {
    let root = root();
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    installation.add_collector("c", root.path()).await;
    installation.wait_for_active(3).await;
    import(&installation, import_of(MINE), &text()).await.unwrap();
    let tailored = |name: &str| PolicyImport { tailors: Some(MINE.to_owned()), ..import_of(name) };
    let (ours, _) = import(&installation, tailored("ours"), &tailoring(PASSWD_RULE)).await.unwrap();
    let origin = ours.derived_from.clone().unwrap();
    assert_eq!((origin.name.as_str(), origin.number), (MINE, 1));
    let workflow = |profile: &str| Workflow { profile: Some(profile.to_owned()), ..of("ours") };
    let of_base = verdicts(&installation.ask(Ask::Evaluate(workflow("essential"))).await);
    let of_ours = verdicts(&installation.ask(Ask::Evaluate(workflow("profile_ours"))).await);
    let mut expected = of_base.clone();
    assert!(expected.remove(PASSWD_RULE).is_some());
    assert_eq!(of_ours, expected);
    assert!(!installation.versions(MINE).await[0].profiles.iter().any(|profile| profile.id.ends_with("_ours")));

    // The policy goes on, and the tailored one has a version of that, which waits like any other.
    let second = PolicyImport { is_activated: true, ..import_of(MINE) };
    let (second, notices) = import(&installation, second, &turned()).await.unwrap();
    assert!(
        !second.is_waiting && notices.iter().any(|notice| notice.contains("muster policy preview ours")),
        "{notices:?}"
    );
    let known = installation.versions("ours").await;
    assert_eq!(known.len(), 2);
    assert_eq!((known[1].is_waiting, known[1].derived_from.as_ref().unwrap().number), (true, 2));

    for (import_of_it, content, words) in [
        (tailored(MINE), tailoring(PASSWD_RULE), "a name of its own"),
        (tailored("empty"), "<Tailoring xmlns=\"http://checklists.nist.gov/xccdf/1.2\"/>".to_owned(), "no profile"),
        (tailored("stream"), text(), "not <Tailoring>"),
        (
            PolicyImport { tailors: Some("none".to_owned()), ..import_of("x") },
            tailoring(PASSWD_RULE),
            "no policy is called",
        ),
        (import_of("bad name"), text(), "letters"),
    ] {
        let said = import(&installation, import_of_it, &content).await.unwrap_err();
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_somebody_is_believed_nothing_is_taken_that_nobody_has_signed() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.wait_for_active(1).await;
    let [team, stranger] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let signed_import =
        |key: &KeyPair, content: &str| PolicyImport { signature: Some(signed(key, content)), ..import_of(MINE) };
    assert!(import(&installation, import_of(MINE), &text()).await.is_ok(), "nobody is believed yet");
    let add = |name: &str, key: String| Ask::PolicySigner(SignerChange::Add { name: name.to_owned(), key });
    installation.told(add("team", public(&team))).await.unwrap();
    assert!(installation.told(add("x", "ssh-rsa AAAA".to_owned())).await.unwrap_err().contains("ssh-keygen"));

    let turned = turned();
    let unsigned = import(&installation, import_of(MINE), &turned).await.unwrap_err();
    assert!(unsigned.contains("have to be signed"), "{unsigned}");
    let by_stranger = import(&installation, signed_import(&stranger, &turned), &turned).await.unwrap_err();
    assert!(by_stranger.contains("not believed"), "{by_stranger}");
    let of_another = import(&installation, signed_import(&team, &text()), &turned).await.unwrap_err();
    assert!(of_another.contains("changed"), "{of_another}");
    let (taken, _) = import(&installation, signed_import(&team, &turned), &turned).await.unwrap();
    assert_eq!((taken.signed_by.as_deref(), taken.number), (Some("team"), Some(2)));
    assert_eq!(installation.versions(MINE).await.len(), 2);

    // It outlives the process, and ends by an operator's word.
    let installation = installation.restarted().await;
    let OperatorEvent::Signers(signers) = &installation.ask(Ask::PolicySigners).await[0] else { panic!() };
    assert_eq!((signers.len(), signers[0].name.as_str()), (1, "team"));
    let remove = |name: &str| Ask::PolicySigner(SignerChange::Remove { name: name.to_owned() });
    assert!(installation.told(remove("nobody")).await.unwrap_err().contains("no signer"));
    installation.told(remove("team")).await.unwrap();
    let third = text().replace("<version>1.0.0<", "<version>3.0.0<");
    let (third, _) = import(&installation, import_of(MINE), &third).await.unwrap();
    assert_eq!((third.number, third.signed_by), (Some(3), None));
}

async fn feed(installation: &Installation) -> PolicyFeed {
    let OperatorEvent::Feeds(feeds) = &installation.ask(Ask::PolicyFeeds).await[0] else { panic!() };
    feeds[0].clone()
}

fn write(directory: &Path, name: &str, text: &str) {
    // As a whole: a half is looked at, too.
    let beside = directory.join("incoming");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, directory.join(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_turns_up_in_a_directory_is_a_policy_and_what_changes_there_waits() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.wait_for_active(1).await;
    let directory = tempfile::tempdir().unwrap();
    let add = |path: &Path, every_seconds| {
        let source = FeedSource::Directory(path.to_string_lossy().into_owned());
        Ask::PolicyFeed(FeedChange::Add { name: "incoming".to_owned(), source, every_seconds })
    };
    for (path, every, words) in [
        (Path::new("relative"), 5, "whole path"),
        (Path::new("/nowhere/at/all"), 5, "cannot read"),
        (directory.path(), 1, "every 5 s"),
    ] {
        assert!(installation.told(add(path, every)).await.unwrap_err().contains(words));
    }
    write(directory.path(), "one-ds.xml", &text());
    write(directory.path(), "broken.xml", "<data-stream-collection>");
    write(directory.path(), "notes.txt", "not one");
    std::os::unix::fs::symlink(directory.path(), directory.path().join("loop.xml")).unwrap();
    installation.told(add(directory.path(), 5)).await.unwrap();
    let names = async |installation: &Installation| {
        let OperatorEvent::Policies(policies) = &installation.ask(Ask::PolicyList).await[0] else { panic!() };
        policies.iter().map(|policy| policy.name.clone()).collect::<Vec<_>>()
    };
    let looked = eventually("the directory is looked at", async || {
        let feed = feed(&installation).await;
        feed.looked.is_some().then_some(feed)
    })
    .await;
    assert_eq!(names(&installation).await, [orchestrator::BASELINE, "one"]);
    let [problem] = looked.problems.as_slice() else { panic!("{looked:?}") };
    assert!(problem.starts_with("broken.xml: "), "{problem}");

    write(directory.path(), "one-ds.xml", &turned());
    std::fs::remove_file(directory.path().join("broken.xml")).unwrap();
    eventually("the new version waits", async || {
        let known = installation.versions("one").await;
        known.get(1).is_some_and(|version| version.is_waiting).then_some(())
    })
    .await;
    eventually("what is not there any more is no problem", async || {
        feed(&installation).await.problems.is_empty().then_some(())
    })
    .await;
    // What was not taken is tried again: it may not have been the file's fault.
    let key = public(&KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let signer = "team".to_owned();
    installation.told(Ask::PolicySigner(SignerChange::Add { name: signer.clone(), key })).await.unwrap();
    write(directory.path(), "two.xml", &text());
    eventually("what nobody has signed is not taken", async || {
        let problems = feed(&installation).await.problems;
        problems.iter().any(|problem| problem.starts_with("two.xml: policies have to be signed")).then_some(())
    })
    .await;
    installation.told(Ask::PolicySigner(SignerChange::Remove { name: signer })).await.unwrap();
    eventually("it is taken without having changed", async || {
        names(&installation).await.contains(&"two".to_owned()).then_some(())
    })
    .await;
    let remove = Ask::PolicyFeed(FeedChange::Remove { name: "incoming".to_owned() });
    installation.told(remove.clone()).await.unwrap();
    assert!(installation.told(remove).await.unwrap_err().contains("no feed"));
    assert_eq!(names(&installation).await, [orchestrator::BASELINE, "one", "two"]);
}
