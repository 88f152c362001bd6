//! Which rules nobody can decide, where, and why: said before anybody is asked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proto::capability::ComponentType;
use proto::fault::Fault;
use proto::id::EndpointId;
use proto::message::LackedKind;
use proto::operator::{Ask, CoverageGap, CoverageView, OperatorEvent, PolicyImport, Workflow};
use proto::verdict::Verdict;
use service::member::{self, Member};
use system_tests::endpoint::{SHADOW_RULE, root};
use system_tests::{BASELINE, Installation, PATIENCE, baseline};

async fn coverage(installation: &Installation, workflow: Workflow) -> Result<CoverageView, Fault> {
    match installation.ask(Ask::PolicyCoverage(workflow)).await.into_iter().next().unwrap() {
        OperatorEvent::Coverage(view) => Ok(*view),
        OperatorEvent::Fault(fault) => Err(fault),
        other => panic!("{other:?}"),
    }
}

/// A collector that says this of what it can collect.
async fn saying(installation: &Installation, name: &str, kinds: &[&str], lacks: &[(&str, &str)]) -> Member {
    let pcs = ComponentType::PostureCollectionService;
    let mut settings = installation.settings(pcs, name, Some(installation.token(pcs).await));
    settings.endpoints[0].kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let lack = |(kind, reason): &(&str, &str)| LackedKind { kind: (*kind).to_owned(), reason: (*reason).to_owned() };
    settings.endpoints[0].lacks = lacks.iter().map(lack).collect();
    let member = member::start(settings).await.unwrap();
    let mut assigned = member.assigned.clone();
    tokio::time::timeout(PATIENCE, assigned.wait_for(|assigned| assigned.is_active)).await.unwrap().unwrap();
    member
}

async fn endpoints(installation: &Installation) -> BTreeMap<String, EndpointId> {
    let events = installation.ask(Ask::Roster).await;
    let OperatorEvent::Roster(roster) = &events[0] else { panic!("{events:?}") };
    let with_endpoint = roster.iter().filter_map(|entry| Some((entry.name.clone(), entry.endpoints.first()?.endpoint)));
    with_endpoint.collect()
}

fn of<'view>(view: &'view CoverageView, rule: &str) -> Vec<&'view CoverageGap> {
    view.gaps.iter().filter(|gap| gap.rule.ends_with(rule)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_collect_is_named_with_where_and_why() {
    let root = root();
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    installation.add_collector("real", root.path()).await;
    let _files = saying(&installation, "files", &["independent:family", "unix:file"], &[]).await;
    let _silent = saying(&installation, "silent", &[], &[]).await;
    let hostile = "no\u{1b}[2Jrights";
    let _denied = saying(&installation, "denied", &["independent:family"], &[("unix:file", hostile)]).await;
    installation.wait_for_active(6).await;
    let endpoints = endpoints(&installation).await;
    let view = coverage(&installation, baseline(0)).await.unwrap();
    assert_eq!((view.endpoints.len(), view.silent.as_slice()), (4, &[endpoints["silent"]][..]));

    // A mode of a file: all but the one that says it has no rights; what it says is shown without what a terminal obeys.
    let [gap] = of(&view, SHADOW_RULE)[..] else { panic!("{:?}", of(&view, SHADOW_RULE)) };
    assert_eq!((gap.kind.as_deref(), gap.endpoints.as_slice()), (Some("unix:file"), &[endpoints["denied"]][..]));
    assert!(gap.reason.starts_with("no") && !gap.reason.contains('\u{1b}'), "{:?}", gap.reason);

    // A unit of systemd: a root without one says so, the others have no probe, the silent one is taken to have all.
    let gaps = of(&view, "_rule_journal_runs");
    let found: Vec<(EndpointId, &str)> =
        gaps.iter().flat_map(|gap| gap.endpoints.iter().map(|endpoint| (*endpoint, gap.reason.as_str()))).collect();
    let wanted = [
        (endpoints["real"], "needs a live system: systemd is asked over D-Bus"),
        (endpoints["files"], "the collector has no probe for it"),
        (endpoints["denied"], "the collector has no probe for it"),
    ];
    let of_systemd: Vec<_> =
        gaps.iter().filter(|gap| gap.kind.as_deref() == Some("linux:systemdunitproperty")).collect();
    assert_eq!(of_systemd.len(), 2, "{gaps:?}");
    assert!(wanted.iter().all(|wanted| found.contains(wanted)), "{found:?}");
    let open: std::collections::BTreeSet<&str> = view.gaps.iter().map(|gap| gap.rule.as_str()).collect();
    assert_eq!(view.rule_count - view.covered_count, open.len() as u64);

    // On some of them, in a profile; and what is said to be missing is what is unknown when it is asked for.
    let on = |target: &str| Workflow { targets: vec![target.to_owned()], ..baseline(60) };
    let silent = coverage(&installation, on("silent")).await.unwrap();
    assert_eq!((silent.gaps.len(), silent.covered_count), (0, silent.rule_count));
    let profile =
        coverage(&installation, Workflow { profile: Some("server".to_owned()), ..on("files") }).await.unwrap();
    assert!(profile.profile.is_some_and(|profile| profile.ends_with("_server")));
    assert!(0 < profile.covered_count && profile.covered_count < profile.rule_count);
    let real = coverage(&installation, on("real")).await.unwrap();
    for event in installation.ask(Ask::Evaluate(on("real"))).await {
        let OperatorEvent::Verdict { result, .. } = event else { continue };
        let is_open = real.gaps.iter().any(|gap| gap.rule == result.rule);
        let is_undecided = matches!(result.verdict, Verdict::Unknown | Verdict::Error);
        assert!(is_open || !is_undecided, "{result:?}");
    }
    for (workflow, words) in [
        (Workflow { policy: "none".to_owned(), ..baseline(0) }, "no policy is called"),
        (Workflow { profile: Some("none".to_owned()), ..baseline(0) }, "none"),
        (on("nobody"), "nobody"),
    ] {
        let fault = coverage(&installation, workflow).await.unwrap_err();
        assert!(fault.message.contains(words), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_covered_is_named_wherever_it_is() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    let _any = saying(&installation, "any", &[], &[]).await;
    installation.wait_for_active(2).await;
    // A kind that no probe has yet.
    let content = String::from_utf8(BASELINE.to_vec()).unwrap().replace("partition_", "slackwarepkginfo_");
    let ask = Ask::PolicyImport(Box::new(PolicyImport { name: "other".to_owned(), ..PolicyImport::default() }));
    let directory = installation.data.path().join("orchestrator");
    let events = system_tests::ask(&directory, ask, content.as_bytes()).await.unwrap();
    assert!(events.iter().any(|event| matches!(event, OperatorEvent::Policy(_))), "{events:?}");
    let view = coverage(&installation, Workflow { policy: "other".to_owned(), ..Workflow::default() }).await.unwrap();
    let gaps = of(&view, "_rule_tmp_mount_options");
    assert!(!gaps.is_empty(), "{view:?}");
    for gap in &gaps {
        assert!(gap.kind.is_none() && gap.endpoints.is_empty(), "{gap:?}");
        assert!(gap.reason.contains("slackwarepkginfo_object"), "{gap:?}");
    }
}
