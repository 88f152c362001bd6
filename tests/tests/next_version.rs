//! A policy's next version, decided on what is stored: where nothing was observed since the version before, what the two share is
//! taken over, and everything is as if all of it had been decided.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::message::ResultsSelection;
use proto::operator::{Ask, OperatorEvent, PolicyImport, Workflow};
use proto::verdict::{EvaluationSummary, RuleResult, Verdict};
use system_tests::endpoint::{SHADOW_RULE, root, set_mode};
use system_tests::{BASELINE, Installation, ask, baseline, is_completed};

const MINE: &str = "mine";

/// The baseline in which one rule means the opposite.
fn turned() -> String {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    let rule = text.find(&format!("{SHADOW_RULE}\" selected=\"true\" severity")).expect("the rule");
    let (_, after) = text[rule..].split_once("name=\"").expect("a definition decides it");
    let (definition, _) = after.split_once('"').unwrap();
    let good = format!("<oval-def:definition id=\"{definition}\" version=\"1\" class=\"compliance\"");
    let turned = text.replace(&good, &good.replace("compliance", "vulnerability"));
    assert_ne!(turned, text);
    turned
}

/// The baseline in which the rule looks at a file that nobody has looked at before.
fn elsewhere() -> String {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    let (file, other) = ("<unix:filepath>/etc/shadow</unix:filepath>", "<unix:filepath>/etc/shadow2</unix:filepath>");
    assert_eq!(text.matches(file).count(), 1);
    text.replace(file, other)
}

async fn import(installation: &Installation, name: &str, text: &str) {
    let import = PolicyImport { name: name.to_owned(), is_activated: true, ..PolicyImport::default() };
    let directory = installation.data.path().join("orchestrator");
    let events = ask(&directory, Ask::PolicyImport(Box::new(import)), text.as_bytes()).await.unwrap();
    assert!(events.iter().any(|event| matches!(event, OperatorEvent::Policy(_))), "{events:?}");
}

/// What was decided of an endpoint.
struct Said {
    summary: EvaluationSummary,
    results: BTreeMap<String, RuleResult>,
}

impl Said {
    /// Without since when it is so.
    fn words(&self) -> BTreeMap<&str, RuleResult> {
        let without = |result: &RuleResult| RuleResult { since: None, ..result.clone() };
        self.results.iter().map(|(rule, result)| (rule.as_str(), without(result))).collect()
    }

    fn shadow(&self) -> &RuleResult {
        self.results.iter().find(|(rule, _)| rule.ends_with(SHADOW_RULE)).unwrap().1
    }

    fn rest(&self) -> Vec<&RuleResult> {
        self.results.iter().filter(|(rule, _)| !rule.ends_with(SHADOW_RULE)).map(|(_, result)| result).collect()
    }
}

/// What is decided, by endpoint.
async fn decided(installation: &Installation, workflow: Workflow) -> BTreeMap<String, Said> {
    let events = installation.ask(Ask::Evaluate(workflow)).await;
    assert!(is_completed(&events), "{events:?}");
    let summaries: Vec<&EvaluationSummary> = events
        .iter()
        .filter_map(|event| match event {
            OperatorEvent::Summary(summary) => Some(&**summary),
            _ => None,
        })
        .collect();
    let mut said = BTreeMap::new();
    let selection = ResultsSelection::Transaction(summaries[0].transaction);
    match installation.ask(Ask::Results { selection, verdicts: Vec::new() }).await.remove(0) {
        OperatorEvent::Results(page) => {
            for (summary, results) in page.summaries.into_iter().zip(page.results) {
                let results = results.into_iter().map(|result| (result.rule.clone(), result)).collect();
                said.insert(summary.endpoint.to_string(), Said { summary, results });
            }
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(said.len(), 3);
    said
}

fn of(policy: &str) -> Workflow {
    Workflow { policy: policy.to_owned(), ..baseline(60) }
}

fn stored(policy: &str) -> Workflow {
    Workflow { is_stored_only: true, ..of(policy) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_versions_share_is_taken_over_where_nothing_was_observed_since() {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    let roots = [root(), root(), root()];
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    for (name, root) in ["a", "b", "c"].iter().zip(&roots) {
        installation.add_collector(name, root.path()).await;
    }
    installation.wait_for_active(5).await;
    import(&installation, MINE, &text).await;
    let first = decided(&installation, of(MINE)).await;
    assert!(first.values().all(|said| !said.summary.is_partial && said.shadow().verdict == Verdict::Pass));

    // One of them changes, and another is looked at again and is as it was.
    set_mode(roots[2].path(), 0o644);
    for name in ["b", "c"] {
        let workflow = Workflow { targets: vec![name.to_owned()], ..of(MINE) };
        assert!(is_completed(&installation.ask(Ask::Collect(workflow)).await));
    }
    import(&installation, MINE, &turned()).await;
    let second = decided(&installation, stored(MINE)).await;
    let whole = second.iter().filter(|(_, said)| !said.summary.is_partial).map(|(endpoint, _)| endpoint);
    let [changed] = whole.collect::<Vec<_>>()[..] else { panic!("of one all is decided") };
    // Whoever decides it for the first time decides all of it, and comes to the same.
    import(&installation, "for-the-first-time", &turned()).await;
    let anew = decided(&installation, stored("for-the-first-time")).await;
    for (endpoint, said) in &second {
        assert_eq!(said.words(), anew[endpoint].words());
        let (summary, whole) = (&said.summary, &anew[endpoint].summary);
        assert_eq!((&summary.counts, summary.score), (&whole.counts, whole.score));
        assert_eq!((&summary.verdicts, summary.is_fresh), (&whole.verdicts, whole.is_fresh));
        assert_eq!(summary.content, whole.content);
        assert!(!whole.is_partial && summary.oldest_collected <= whole.oldest_collected);
        let verdict = if endpoint == changed { Verdict::Pass } else { Verdict::Fail };
        assert_eq!(said.shadow().verdict, verdict);
        if endpoint != changed {
            assert_eq!(said.rest(), first[endpoint].rest(), "nothing else begins anew");
            assert_eq!(said.shadow().since.unwrap().as_microsecond(), summary.evaluated.as_microsecond());
        }
    }

    // There is a way back, and the one that had changed is as it was when it was decided last.
    import(&installation, MINE, &text).await;
    let back = decided(&installation, stored(MINE)).await;
    assert!(back.values().all(|said| said.summary.is_partial));
    for (endpoint, said) in &back {
        let verdict = if endpoint == changed { Verdict::Fail } else { Verdict::Pass };
        assert_eq!(said.shadow().verdict, verdict);
        assert_eq!(said.rest(), second[endpoint].rest());
    }

    // What was taken over is followed to where it was decided, and what was decided to here.
    let (a, _) = back.first_key_value().unwrap();
    let transaction = back[a].summary.transaction;
    for (rule, is_taken_over) in [(SHADOW_RULE, false), ("_rule_gshadow_file_permissions", true)] {
        let links = installation.chain(Some(a.clone()), Some(rule)).await;
        let [proven] = &service::chain::verify(&links, &[installation.ca_der()], Some(rule)).unwrap()[..] else {
            panic!("one verdict on {rule}")
        };
        assert_eq!(proven.transaction != transaction, is_taken_over);
        assert_eq!(proven.result.verdict, back[a].results[&proven.result.rule].verdict);
    }

    // Nobody has looked at what it reads: that is known, and nothing else is decided for it.
    import(&installation, MINE, &elsewhere()).await;
    let unknown = decided(&installation, stored(MINE)).await;
    for (endpoint, said) in &unknown {
        assert_eq!((said.summary.is_partial, said.summary.is_fresh), (true, Some(false)));
        assert_eq!((said.shadow().verdict, said.rest()), (Verdict::Unknown, back[endpoint].rest()));
    }

    // Where it is said how old an observation may be, or it is looked again, everything is decided: also what was not fresh enough
    // then, which is not taken over.
    import(&installation, MINE, &turned()).await;
    let age = Timestamp::now().duration_since(first[changed].summary.evaluated).as_secs().unsigned_abs();
    let stale = decided(&installation, Workflow { max_age_seconds: Some(age.max(1) / 2), ..stored(MINE) }).await;
    assert!(stale.values().all(|said| !said.summary.is_partial));
    import(&installation, MINE, &text).await;
    let again = decided(&installation, stored(MINE)).await;
    for (endpoint, said) in &again {
        assert_eq!(said.words(), back[endpoint].words());
    }
    import(&installation, MINE, &turned()).await;
    let looked = decided(&installation, of(MINE)).await;
    for (endpoint, said) in &looked {
        assert!(!said.summary.is_partial);
        assert_eq!(said.words(), second[endpoint].words());
    }
}
