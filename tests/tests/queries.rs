//! Questions about posture and labels, as an operator gives them: what is stored, what is looked at first, at any time, with
//! what is stale and what nobody knows said so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use proto::fault::FaultCode;
use proto::id::EndpointId;
use proto::message::{ObservationOperation, OnStale, SearchContent, SearchOutcome, SearchResponse, SearchRow};
use proto::observation::Item;
use proto::operator::{Ask, LabelDefinition, LabelView, OperatorEvent, Question, TransactionView, Workflow};
use system_tests::endpoint::{root, set_mode};
use system_tests::{Installation, baseline, eventually};
use tempfile::TempDir;

const SHADOW: &str = "unix:file where filepath = /etc/shadow";

fn question(text: &str) -> Question {
    Question {
        query: text.parse().unwrap(),
        targets: Vec::new(),
        excluded: Vec::new(),
        as_of: None,
        max_age_seconds: None,
        is_collected: false,
        on_stale: OnStale::Mark,
        content: SearchContent::Data,
        timeout_seconds: 30,
        budget: proto::budget::Budget::default(),
    }
}

fn looked_at(text: &str) -> Question {
    Question { is_collected: true, ..question(text) }
}

#[derive(Default)]
struct Answer {
    page: SearchResponse,
    collection: Option<TransactionView>,
    notices: Vec<String>,
}

impl Answer {
    fn rows(&self) -> Vec<(&SearchRow, Vec<&Item>)> {
        let items = |row: &SearchRow| row.items.iter().map(|at| &self.page.items[*at as usize]).collect();
        self.page.rows.iter().map(|row| (row, items(row))).collect()
    }

    fn values(&self, field: &str) -> Vec<String> {
        let rows = self.rows();
        let items = rows.iter().flat_map(|(_, items)| items);
        items.filter_map(|item| item.named(field).next()?.value.clone()).collect()
    }

    fn outcomes(&self) -> BTreeMap<EndpointId, SearchOutcome> {
        self.page.endpoints.iter().map(|one| (one.endpoint, one.outcome)).collect()
    }
}

async fn try_ask(installation: &Installation, question: Question) -> Result<Answer, proto::fault::Fault> {
    let mut answer = Answer::default();
    for event in installation.ask(Ask::Query(Box::new(question))).await {
        match event {
            OperatorEvent::Found(page) => {
                let first = u32::try_from(answer.page.items.len()).unwrap();
                answer.page.endpoints.extend(page.endpoints);
                answer.page.items.extend(page.items);
                answer.page.rows.extend(
                    page.rows
                        .into_iter()
                        .map(|row| SearchRow { items: row.items.iter().map(|at| at + first).collect(), ..row }),
                );
            }
            OperatorEvent::Ended(view) => answer.collection = Some(*view),
            OperatorEvent::Notice(text) => answer.notices.push(text),
            OperatorEvent::Fault(fault) => return Err(fault),
            _ => {}
        }
    }
    Ok(answer)
}

async fn ask(installation: &Installation, question: Question) -> Answer {
    try_ask(installation, question).await.unwrap()
}

/// An installation with collectors of small roots.
async fn installation(names: &[&str]) -> (Installation, Vec<TempDir>) {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    let roots: Vec<TempDir> = names.iter().map(|_| root()).collect();
    for (name, root) in names.iter().zip(&roots) {
        installation.add_collector(name, root.path()).await;
    }
    installation.wait_for_active(2 + names.len() as u64).await;
    (installation, roots)
}

/// The endpoints by their collectors' names.
async fn endpoints(installation: &Installation) -> BTreeMap<String, EndpointId> {
    let answer = ask(installation, question("endpoint")).await;
    let rows = answer.rows();
    let name = |items: &[&Item]| items[0].named("collector").next().unwrap().value.clone().unwrap();
    rows.iter().map(|(row, items)| (name(items), row.endpoint)).collect()
}

async fn label(installation: &Installation, definition: LabelDefinition) -> Result<(), proto::fault::Fault> {
    match installation.ask(Ask::LabelSet(Box::new(definition))).await.pop().unwrap() {
        OperatorEvent::Fault(fault) => Err(fault),
        _ => Ok(()),
    }
}

fn asked(name: &str, text: &str) -> LabelDefinition {
    LabelDefinition { query: Some(text.parse().unwrap()), ..named(name, &[]) }
}

fn named(name: &str, members: &[&str]) -> LabelDefinition {
    LabelDefinition {
        name: name.to_owned(),
        members: members.iter().map(|member| (*member).to_owned()).collect(),
        excluded: Vec::new(),
        query: None,
        every_seconds: 3_600,
        max_age_seconds: None,
    }
}

async fn view(installation: &Installation, name: &str) -> LabelView {
    let events = installation.ask(Ask::LabelList).await;
    let OperatorEvent::Labels(labels) = &events[0] else { panic!("{events:?}") };
    labels.iter().find(|label| label.definition.name == name).unwrap().clone()
}

/// The endpoints that were asked; others were left out on purpose.
fn asked_of(view: &TransactionView) -> Vec<EndpointId> {
    let asked = view.responders.iter().filter(|one| one.state != "waived");
    let mut asked: Vec<EndpointId> = asked.flat_map(|one| one.endpoints.clone()).collect();
    asked.sort();
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered_from_what_is_stored_or_by_looking() {
    let (installation, roots) = installation(&["a", "b"]).await;
    let nothing = ask(&installation, question(SHADOW)).await;
    assert!(nothing.page.endpoints.is_empty() && nothing.collection.is_none(), "{:?}", nothing.page);

    // Both are looked at; the question narrows to what it says.
    set_mode(roots[1].path(), 0o644);
    let open = "unix:file where filepath = /etc/shadow and oread = true";
    let found = ask(&installation, looked_at(open)).await;
    let collection = found.collection.as_ref().unwrap();
    assert_eq!((collection.account.asked, collection.account.answered), (2, 2));
    assert!(collection.policy.contains("oread = 'true'"), "{}", collection.policy);
    let endpoints = endpoints(&installation).await;
    assert_eq!(
        found.outcomes(),
        [(endpoints["a"], SearchOutcome::Unmatched), (endpoints["b"], SearchOutcome::Matched)].into()
    );
    assert_eq!(found.rows()[0].0.endpoint, endpoints["b"]);
    assert_eq!(found.values("filepath"), ["/etc/shadow"]);

    // From now on it is stored, and nobody is contacted, whatever there is to see.
    set_mode(roots[1].path(), 0o640);
    let before = Timestamp::now();
    let stored = ask(&installation, question(open)).await;
    assert_eq!((stored.outcomes(), stored.collection.is_none()), (found.outcomes(), true));
    // Looked at again, it is otherwise; at the time before it still was so.
    let anew = ask(&installation, looked_at(open)).await;
    assert!(anew.outcomes().values().all(|outcome| *outcome == SearchOutcome::Unmatched), "{:?}", anew.page);
    let past = ask(&installation, Question { as_of: Some(before), ..question(open) }).await;
    assert_eq!(past.values("filepath"), ["/etc/shadow"]);

    // Counted, or without the items.
    let counted = ask(&installation, Question { content: SearchContent::Count, ..question(SHADOW) }).await;
    assert_eq!(counted.page.endpoints.iter().map(|one| one.matched).collect::<Vec<_>>(), [1, 1]);
    assert!(counted.page.rows.is_empty() && counted.page.items.is_empty());
    let metadata = ask(&installation, Question { content: SearchContent::Metadata, ..question(SHADOW) }).await;
    assert!(!metadata.page.rows.is_empty() && metadata.page.items.is_empty());
    assert!(metadata.page.rows.iter().all(|row| row.matched == 1 && row.since <= row.collected));

    // On some of them.
    let of_b = |question| Question { targets: vec!["b".to_owned()], ..question };
    assert_eq!(ask(&installation, of_b(question(SHADOW))).await.outcomes().len(), 1);
    let not_b = Question { excluded: vec!["b".to_owned()], ..question(SHADOW) };
    assert!(ask(&installation, not_b).await.outcomes().contains_key(&endpoints["a"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stale_is_marked_or_left_out_and_says_nothing() {
    let (installation, _roots) = installation(&["a"]).await;
    ask(&installation, looked_at(SHADOW)).await;
    let aged = |max_age_seconds| Question { max_age_seconds: Some(max_age_seconds), ..question(SHADOW) };
    let fresh = ask(&installation, aged(3_600)).await;
    assert!(!fresh.page.rows[0].is_stale);
    assert_eq!(fresh.page.endpoints[0].outcome, SearchOutcome::Matched);
    let stale = ask(&installation, aged(0)).await;
    assert!(stale.page.rows[0].is_stale);
    assert_eq!(stale.page.endpoints[0].outcome, SearchOutcome::Unknown);
    let omitted = ask(&installation, Question { on_stale: OnStale::Omit, ..aged(0) }).await;
    assert!(omitted.page.rows.is_empty(), "{:?}", omitted.page);
    assert_eq!(omitted.page.endpoints[0].outcome, SearchOutcome::Unknown);

    // What is fresh enough is not looked at again; with no tolerance it is, once, and that answers.
    let enough = ask(&installation, Question { is_collected: true, ..aged(3_600) }).await;
    assert_eq!(enough.collection.unwrap().account.fresh, 1);
    let again = ask(&installation, Question { is_collected: true, ..aged(0) }).await;
    assert_eq!(again.collection.as_ref().unwrap().account.answered, 1);
    assert_eq!(again.values("filepath"), ["/etc/shadow"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_makes_no_sense_is_refused_in_words() {
    let (installation, _roots) = installation(&["a"]).await;
    let future = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let all = |text: &str| looked_at(text);
    for (question, words) in [
        (all("linux:dpkginfo where nam = x"), "has no field `nam`; it has name, arch"),
        (question("linux:dpkginfo where name matches '('"), "("),
        (all("windows:registry"), "no probe looks at `windows:registry`"),
        (all("unix:file where uread = true"), "say where to look"),
        (all("unix:file"), "say where to look"),
        (Question { as_of: Some(future), ..question(SHADOW) }, "not come yet"),
        (Question { as_of: Some(Timestamp::UNIX_EPOCH), ..all(SHADOW) }, "cannot be collected any more"),
        (Question { as_of: Some(Timestamp::UNIX_EPOCH), ..question("endpoint") }, "on the roster now"),
        (Question { targets: vec!["nobody".to_owned()], ..question(SHADOW) }, "nobody"),
    ] {
        let text = question.query.to_string();
        let fault = try_ask(&installation, question).await.err().unwrap_or_else(|| panic!("{text} was answered"));
        assert!(fault.message.contains(words), "{text}: {fault}");
    }
    assert!(ask(&installation, question("windows:registry")).await.page.endpoints.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_are_asked_about_like_anything_else() {
    let (installation, roots) = installation(&["a", "b"]).await;
    set_mode(roots[1].path(), 0o644);
    installation.ask(Ask::Evaluate(baseline(60))).await;
    let failed = "verdict where verdict = fail and rule glob '*_rule_shadow_file_permissions'";
    let answer = ask(&installation, question(failed)).await;
    let endpoints = endpoints(&installation).await;
    let matched: Vec<EndpointId> = answer.page.rows.iter().map(|row| row.endpoint).collect();
    assert_eq!(matched, [endpoints["b"]]);
    assert_eq!(answer.values("severity"), ["high"]);
    let never = "verdict where verdict = fail and not verdict = fail";
    assert!(ask(&installation, question(never)).await.page.rows.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_mean_those_that_are_named_or_those_of_which_a_question_holds() {
    let (installation, roots) = installation(&["a", "b", "c"]).await;
    set_mode(roots[1].path(), 0o644);
    let endpoints = endpoints(&installation).await;
    label(&installation, named("pair", &["a", "b"])).await.unwrap();
    label(&installation, asked("collectors-a-to-b", "endpoint where collector in (a, b)")).await.unwrap();
    let rest = LabelDefinition { excluded: vec!["pair".to_owned()], ..asked("rest", "endpoint") };
    label(&installation, rest).await.unwrap();
    for (name, wanted) in [("pair", vec!["a", "b"]), ("collectors-a-to-b", vec!["a", "b"]), ("rest", vec!["c"])] {
        let mut found = view(&installation, name).await.endpoints;
        found.sort();
        let mut wanted: Vec<EndpointId> = wanted.iter().map(|name| endpoints[*name]).collect();
        wanted.sort();
        assert_eq!(found, wanted, "{name}");
    }

    // What a question is about is looked at by itself.
    let open = "unix:file where filepath = /etc/shadow and oread = true";
    label(&installation, asked("open", open)).await.unwrap();
    eventually("it is known which are meant", async || {
        view(&installation, "open").await.undecided.is_empty().then_some(())
    })
    .await;
    assert_eq!(view(&installation, "open").await.endpoints, [endpoints["b"]]);

    // As a target, with and without.
    let on = |targets: &[&str], excluded: &[&str]| {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Workflow { targets: words(targets), excluded: words(excluded), ..baseline(60) }
    };
    for (workflow, wanted) in [(on(&["open"], &[]), vec!["b"]), (on(&[], &["open"]), vec!["a", "c"])] {
        let events = installation.ask(Ask::Collect(workflow)).await;
        let ended = events.iter().find_map(|event| match event {
            OperatorEvent::Ended(view) => Some(view),
            _ => None,
        });
        let mut wanted: Vec<EndpointId> = wanted.iter().map(|name| endpoints[*name]).collect();
        wanted.sort();
        assert_eq!(asked_of(ended.unwrap()), wanted);
    }

    // A machine that joins later is looked at, too.
    let late = root();
    set_mode(late.path(), 0o604);
    installation.add_collector("late", late.path()).await;
    eventually("the late one is known", async || {
        (view(&installation, "open").await.endpoints.len() == 2).then_some(())
    })
    .await;

    // They outlive the process.
    let searched = view(&installation, "open").await.searched.unwrap();
    let data = installation.stop().await;
    let installation = Installation::orchestrator_in(data, "127.0.0.1:0").await;
    let open = view(&installation, "open").await;
    assert_eq!((open.endpoints.len(), open.undecided.len(), open.searched), (2, 0, Some(searched)));
    assert_eq!(view(&installation, "rest").await.endpoints.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_or_may_not_be_meant_is_left_out_and_counted() {
    let (installation, _roots) = installation(&["a"]).await;
    // It joins, and never looks at anything.
    let _silent = installation.scripted(proto::capability::ComponentType::PostureCollectionService, "silent").await;
    label(&installation, asked("closed", "unix:file where filepath = /etc/shadow and oread = false")).await.unwrap();
    let closed = eventually("one of them has answered", async || {
        let label = view(&installation, "closed").await;
        (label.endpoints.len() == 1).then_some(label)
    })
    .await;
    let endpoints = endpoints(&installation).await;
    assert_eq!((closed.endpoints, closed.undecided), (vec![endpoints["a"]], vec![endpoints["silent"]]));

    for (workflow, is_a_asked) in [
        (Workflow { targets: vec!["closed".to_owned()], ..baseline(30) }, true),
        // It may be one of those that are left out: it is not touched.
        (Workflow { excluded: vec!["closed".to_owned()], targets: vec!["silent".to_owned()], ..baseline(30) }, false),
    ] {
        let events = installation.ask(Ask::Collect(workflow)).await;
        let view = events.iter().find_map(|event| match event {
            OperatorEvent::Ended(view) => Some(view),
            _ => None,
        });
        let Some(view) = view else {
            let is_unknown = |event: &OperatorEvent| matches!(event, OperatorEvent::Fault(fault) if fault.message.contains("it is not known whether they are meant"));
            assert!(!is_a_asked && events.iter().any(is_unknown), "{events:?}");
            continue;
        };
        assert!(is_a_asked, "{view:?}");
        assert_eq!(asked_of(view), [endpoints["a"]]);
        assert_eq!(view.undecided.len(), 1);
    }
    let both = ask(&installation, Question { targets: vec!["closed".to_owned()], ..question(SHADOW) }).await;
    assert!(both.notices.iter().any(|notice| notice.starts_with("1 endpoint")), "{:?}", both.notices);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_away_answers_for_a_label_when_it_comes_back() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    let root = root();
    let token = installation.token(proto::capability::ComponentType::PostureCollectionService).await;
    let collector = installation.start_collector("away", root.path(), Some(token));
    installation.wait_for_active(2).await;
    installation.stop_collector("away", collector).await;
    // It is asked once, and is not there.
    label(&installation, asked("closed", "unix:file where filepath = /etc/shadow and oread = false")).await.unwrap();
    eventually("everybody was asked", async || view(&installation, "closed").await.searched).await;
    assert_eq!(view(&installation, "closed").await.undecided.len(), 1);
    // For as long as nobody is asked anew, which is longer than it takes to be counted as away.
    let events = installation.ask(Ask::Transactions).await;
    let OperatorEvent::Transactions(workflows) = &events[0] else { panic!("{events:?}") };
    let asking = workflows.iter().find(|workflow| workflow.policy == "(label closed)").unwrap();
    assert_eq!(asking.expires, Some(asking.begun + jiff::SignedDuration::from_hours(1)));
    let _again = installation.start_collector("away", root.path(), None);
    eventually("it has answered", async || (view(&installation, "closed").await.endpoints.len() == 1).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_that_cannot_be_is_refused() {
    let (installation, _roots) = installation(&["a"]).await;
    label(&installation, named("one", &["a"])).await.unwrap();
    label(&installation, named("two", &["one"])).await.unwrap();
    for (definition, words) in [
        (named("one", &["two"]), "without an end"),
        (named("two", &["two"]), "without an end"),
        (named("a", &["one"]), "is what an endpoint or a collector is called"),
        (named("no", &[]), "named, or those of which a question holds"),
        (named("no spaces", &["a"]), "letters, digits"),
        (LabelDefinition { every_seconds: 1, ..asked("often", "linux:dpkginfo") }, "every 60 s at most"),
        (asked("wide", "unix:file"), "say where to look"),
    ] {
        let fault = label(&installation, definition.clone()).await.expect_err(&definition.name);
        assert!(fault.message.contains(words), "{fault}");
    }
    let remove = async |name: &str| {
        let events = installation.ask(Ask::LabelRemove { name: name.to_owned() }).await;
        match events.into_iter().next_back().unwrap() {
            OperatorEvent::Fault(fault) => Some(fault),
            _ => None,
        }
    };
    assert!(remove("one").await.unwrap().message.contains("the label `two` means it"));
    assert_eq!(remove("none").await.unwrap().code, FaultCode::UnknownIdentifier);
    assert_eq!(remove("two").await, None);
    assert_eq!(remove("one").await, None);
    let events = installation.ask(Ask::LabelList).await;
    assert!(matches!(&events[0], OperatorEvent::Labels(labels) if labels.is_empty()), "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_of_the_items_that_are_asked_for() {
    let (installation, roots) = installation(&["a"]).await;
    let workflow = Workflow { targets: vec!["a".to_owned()], ..baseline(0) };
    let operation = ObservationOperation::Start;
    installation
        .ask(Ask::Observation { operation, identifier: "all".to_owned(), poll_seconds: Some(1), workflow })
        .await;
    let of = async |query: Option<&str>| {
        let query = query.map(|text| Box::new(text.parse().unwrap()));
        let ask = Ask::Changes { targets: Vec::new(), limit: 100, is_followed: false, query };
        let events = installation.ask(ask).await;
        events.into_iter().filter(|event| matches!(event, OperatorEvent::Change(_))).count()
    };
    eventually("the baseline of the observation is stored", async || {
        let stored = question("unix:file where filepath = /etc/passwd");
        (!ask(&installation, stored).await.page.rows.is_empty()).then_some(())
    })
    .await;
    set_mode(roots[0].path(), 0o646);
    std::fs::write(Path::new(roots[0].path()).join("etc/passwd"), "eve:x:0:0:eve:/root:/bin/sh\n").unwrap();
    let world = "unix:file where filepath = /etc/shadow and owrite = true";
    eventually("the change is told", async || (of(Some(world)).await > 0).then_some(())).await;
    eventually("others, too", async || (of(None).await > of(Some(world)).await).then_some(())).await;
    assert_eq!(of(Some("unix:file where filepath = /etc/group")).await, 0);
}

/// Files of which more objects of the baseline see something than changes are told with their items.
fn fill(root: &Path) {
    let sshd = "PermitRootLogin yes\nPermitEmptyPasswords yes\nHostbasedAuthentication yes\nIgnoreRhosts no\nX11Forwarding yes\n\
                LoginGraceTime 30\nMaxAuthTries 9\n";
    for (name, text) in [
        ("etc/ssh/sshd_config", sshd),
        ("etc/ssh/sshd_config.d/one.conf", sshd),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n+\n"),
        ("etc/group", "root:x:0:\n+\n"),
        ("etc/login.defs", "PASS_MAX_DAYS 90\nENCRYPT_METHOD MD5\nUMASK 022\n"),
        ("etc/sudoers", "root ALL=(ALL) NOPASSWD: ALL\n"),
        ("etc/sudoers.d/one", "root ALL=(ALL) NOPASSWD: ALL\n"),
        ("etc/apt/sources.list", "deb [trusted=yes] http://example.org x y\n"),
        ("etc/apt/sources.list.d/one.list", "deb [trusted=yes] http://example.org x y\n"),
        ("etc/apt/sources.list.d/one.sources", "Trusted: yes\n"),
        ("etc/crontab", "# nothing\n"),
        ("etc/hosts.equiv", "+\n"),
        ("etc/ssh/shosts.equiv", "+\n"),
        ("etc/gshadow", "root:*::\n"),
        ("proc/sys/kernel/randomize_va_space", "0\n"),
        ("proc/sys/kernel/dmesg_restrict", "0\n"),
        ("proc/sys/kernel/kptr_restrict", "0\n"),
        ("proc/sys/fs/protected_symlinks", "0\n"),
        ("proc/sys/fs/protected_hardlinks", "0\n"),
        ("proc/sys/net/ipv4/ip_forward", "1\n"),
        ("proc/sys/net/ipv4/tcp_syncookies", "0\n"),
    ] {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::write(root.join(name), text).unwrap();
    }
}

/// Changes that are told together with their items; more are told without.
const TOLD_WHOLE: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_is_told_what_has_changed_however_much_it_is_at_once() {
    let (installation, roots) = installation(&["a"]).await;
    let collect = async || {
        let events = installation.ask(Ask::Collect(baseline(60))).await;
        let is_done = |event: &OperatorEvent| matches!(event, OperatorEvent::Ended(view) if view.account.answered == 1);
        assert!(events.iter().any(is_done), "{events:?}");
    };
    collect().await;
    let follow = async |query: Option<&str>| {
        let query = query.map(|text| Box::new(text.parse().unwrap()));
        installation.listen(Ask::Changes { targets: Vec::new(), limit: 1, is_followed: true, query }).await
    };
    let (mut all, mut some) = (follow(None).await, follow(Some("unix:file where filepath = /etc/crontab")).await);
    // What is stored comes first: both listen from then on.
    for answers in [&mut all, &mut some] {
        assert!(matches!(answers.next().await.unwrap(), Some(OperatorEvent::Streams(_))));
    }
    fill(roots[0].path());
    collect().await;
    let ask = Ask::Changes { targets: Vec::new(), limit: 1_000, is_followed: false, query: None };
    let mut stored = BTreeMap::new();
    for event in installation.ask(ask).await {
        if let OperatorEvent::Change(change) = event {
            stored.insert(change.change, *change);
        }
    }
    assert!(stored.len() > TOLD_WHOLE, "{} changes", stored.len());
    let brief = stored.values().find(|change| change.is_brief());
    assert_eq!(brief, None);
    let next = async |answers: &mut system_tests::Answers| {
        let event = tokio::time::timeout(system_tests::PATIENCE, answers.next()).await.expect("a change in time");
        match event.unwrap() {
            Some(OperatorEvent::Change(change)) => *change,
            other => panic!("{other:?}"),
        }
    };
    let mut told = BTreeMap::new();
    while told.len() < stored.len() {
        let change = next(&mut all).await;
        assert_eq!(told.insert(change.change, change), None, "each is told once");
    }
    assert_eq!(told, stored);
    let crontab = next(&mut some).await;
    assert_eq!(stored.get(&crontab.change), Some(&crontab));
    assert_eq!(crontab.current.items[0].value("filepath"), Some("/etc/crontab"));
}

#[test]
fn what_probes_find_has_the_fields_that_a_question_may_name() {
    let policy = scap::datastream::read(system_tests::BASELINE.to_vec()).unwrap();
    let compiled = scap::compile::compile(&policy, None).unwrap();
    let evidence = system_tests::evidence_of(&compiled, "/");
    let mut kinds = std::collections::BTreeSet::new();
    for item in evidence.observations.values().flat_map(|observed| &observed.collected_object.items) {
        let fields = oval::question::fields_of(&item.kind).unwrap_or_else(|| panic!("{} is unknown", item.kind));
        for entity in &item.entities {
            assert!(fields.contains(&entity.name.as_str()), "{} has no {}", item.kind, entity.name);
        }
        kinds.insert(item.kind.as_str());
    }
    assert!(kinds.len() >= 5, "{kinds:?}");
}
