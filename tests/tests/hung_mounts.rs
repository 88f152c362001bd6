//! Mounts that do not answer: nobody waits for them, what is in them is not collected and says why, and everything else is looked at
//! as ever. A file system is made to hang for real ([`system_tests::hung`]); where it cannot be mounted the tests say so.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oval::resolve::{Prober as _, Query, QueryEntity};
use pcs_agent::host::Host;
use pcs_agent::looking::{Ended, Pulse, watched_for};
use pcs_agent::probe::Probes;
use proto::observation::{Collected, Flag, Status};
use proto::operator::{Ask, OperatorEvent};
use proto::plan::{Check, Datatype, Operation};
use proto::verdict::Verdict;
use system_tests::hung::Hung;
use system_tests::{Installation, baseline};

/// Who asks waits for this long at most, and a while for a machine that is busy.
const AT_MOST: Duration = Duration::from_secs(15);
/// What has shown that it hangs is not asked again.
const AT_ONCE: Duration = Duration::from_secs(4);

/// One at a time: everybody in the process asks all mounts.
static ONE: Mutex<()> = Mutex::new(());

struct Endpoint {
    // In the order in which they go.
    hung: Hung,
    root: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Endpoint {
    /// With `etc/conf`, and a mount at `srv/data`.
    fn new(source: &str) -> Option<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let root = tempfile::tempdir().unwrap();
        for directory in ["etc", "srv/data", "opt"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        std::fs::write(root.path().join("etc/conf"), "Key = value\n").unwrap();
        symlink("../srv/data/file", root.path().join("opt/file")).unwrap();
        symlink(root.path().join("srv/data"), root.path().join("opt/absolute")).unwrap();
        symlink("/srv/data", root.path().join("opt/of-root")).unwrap();
        let Some(hung) = Hung::mount(source, &root.path().join("srv/data")) else {
            println!("SKIPPED: mounting a file system that hangs needs root and /dev/fuse");
            return None;
        };
        Some(Self { hung, root, _one: one })
    }

    fn at(&self, path: &str) -> String {
        self.root.path().join(path).to_str().unwrap().to_owned()
    }

    fn words(&self) -> String {
        format!("FUSE mount {} does not answer", self.at("srv/data"))
    }
}

fn asked(name: &str, operation: Operation, value: &str) -> QueryEntity {
    QueryEntity {
        name: name.to_owned(),
        operation,
        datatype: Datatype::String,
        values: vec![value.to_owned()],
        var_check: Check::All,
        is_nil: false,
    }
}

fn probe(host: &Host, kind: &str, entities: Vec<QueryEntity>, behaviors: &[(&str, &str)]) -> Collected {
    let behaviors: BTreeMap<String, String> =
        behaviors.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Probes::new(host).probe(&Query { kind: kind.to_owned(), entities, behaviors }, &[])
}

/// The lines of a file.
fn text(host: &Host, filepath: &str) -> Collected {
    let entities = vec![
        asked("filepath", Operation::Equals, filepath),
        asked("pattern", Operation::PatternMatch, "^Key = (.*)$"),
        QueryEntity { datatype: Datatype::Int, ..asked("instance", Operation::Equals, "1") },
    ];
    probe(host, "independent:textfilecontent54", entities, &[])
}

fn file(host: &Host, filepath: &str) -> Collected {
    probe(host, "unix:file", vec![asked("filepath", Operation::Equals, filepath)], &[])
}

/// Every file below a directory.
fn walk(host: &Host, path: &str, systems: &str) -> Collected {
    let entities = vec![asked("path", Operation::Equals, path), asked("filename", Operation::PatternMatch, ".*")];
    let behaviors = [("recurse_direction", "down"), ("max_depth", "-1"), ("recurse_file_system", systems)];
    probe(host, "unix:file", entities, &behaviors)
}

fn names(collected: &Collected) -> Vec<&str> {
    collected.items.iter().filter_map(|item| item.value("filename")).collect()
}

fn said(collected: &Collected) -> String {
    collected.messages.join("; ")
}

fn within<T>(most: Duration, what: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = what();
    assert!(began.elapsed() < most, "it took {:?}", began.elapsed());
    done
}

#[test]
fn what_a_mount_that_hangs_hides_is_not_collected_and_says_why_and_nobody_waits_again() {
    let Some(endpoint) = Endpoint::new("hung") else { return };
    endpoint.hung.answer(0);
    let (root, words) = (endpoint.root.path(), endpoint.words());
    // On this machine, and below another root, where links are followed here.
    let live = |path: &str| (PathBuf::from("/"), endpoint.at(path));
    let below = |path: &str| (root.to_owned(), format!("/{path}"));
    for (at, most) in [(&live as &dyn Fn(&str) -> (PathBuf, String), AT_MOST), (&below, AT_ONCE)] {
        within(most, || {
            let host = Host::new(at("").0);
            for path in ["srv/data/file", "opt/absolute/file", "etc/../srv/data/file", "srv/data"] {
                if path.contains("absolute") && at("").0 != Path::new("/") {
                    continue;
                }
                for collected in [text(&host, &at(path).1), file(&host, &at(path).1)] {
                    assert_eq!(collected.flag, Flag::NotCollected, "{path}: {collected:?}");
                    assert!(said(&collected).contains(&words), "{path}: {}", said(&collected));
                }
            }
            // A link is there, and where it leads is not known.
            let link = file(&host, &at("opt/file").1);
            assert_eq!((link.flag, link.items.len()), (Flag::Incomplete, 1), "{link:?}");
            assert_eq!(text(&host, &at("opt/file").1).flag, Flag::NotCollected);
            // Others are as they are.
            assert_eq!(text(&host, &at("etc/conf").1).flag, Flag::Complete);
            assert_eq!(file(&host, &at("srv/none").1).flag, Flag::DoesNotExist);
        });
    }
    let of_root = text(&Host::new(root), "/opt/of-root/file");
    assert!(said(&of_root).contains(&words), "{of_root:?}");

    // It answers again: the thread that waited is free, and who looks next sees all of it.
    endpoint.hung.go_on();
    let deadline = Instant::now() + AT_MOST;
    let again = loop {
        let again = text(&Host::new("/"), &endpoint.at("opt/file"));
        if again.flag != Flag::NotCollected || Instant::now() > deadline {
            break again;
        }
    };
    assert_eq!((again.flag, again.items.len()), (Flag::Complete, 1), "{again:?}");
}

#[test]
fn a_walk_that_meets_a_mount_that_hangs_is_incomplete_and_one_that_does_not_go_there_is_whole() {
    let Some(endpoint) = Endpoint::new("hung") else { return };
    let all = walk(&Host::new("/"), &endpoint.at(""), "all");
    assert_eq!((all.flag, names(&all).iter().filter(|name| **name == "file").count()), (Flag::Complete, 3), "{all:?}");
    endpoint.hung.answer(0);
    within(AT_MOST, || {
        for (host, top) in [(Host::new("/"), endpoint.at("")), (Host::new(endpoint.root.path()), "/".to_owned())] {
            let walked = walk(&host, &top, "all");
            assert_eq!(walked.flag, Flag::Incomplete, "{walked:?}");
            assert!(said(&walked).contains(&endpoint.words()), "{}", said(&walked));
            assert!(names(&walked).contains(&"conf"));
            // It is local as far as anybody can tell, and of another device.
            assert_eq!(walk(&host, &top, "defined").flag, Flag::Complete);
            let etc = format!("{}/etc", top.trim_end_matches('/'));
            assert_eq!(walk(&host, &etc, "all").flag, Flag::Complete);

            let pattern = |pattern: &str| {
                let entities = vec![asked("filepath", Operation::PatternMatch, pattern)];
                probe(&host, "unix:file", entities, &[])
            };
            let begin = top.trim_end_matches('/').replace('.', r"\.");
            let there = pattern(&format!("^{begin}/srv/.*$"));
            assert!(there.flag != Flag::Complete && said(&there).contains(&endpoint.words()), "{there:?}");
            let elsewhere = pattern(&format!("^{begin}/(etc|srv)/[^/]+$"));
            assert_eq!((elsewhere.flag, elsewhere.items.len()), (Flag::Complete, 1), "{elsewhere:?}");
        }
    });
}

#[test]
fn a_walk_over_local_file_systems_passes_a_remote_one_that_hangs() {
    let Some(endpoint) = Endpoint::new("nas:/data") else { return };
    endpoint.hung.answer(0);
    std::fs::remove_dir_all(endpoint.root.path().join("opt")).unwrap();
    within(AT_MOST, || {
        let host = Host::new("/");
        let walked = walk(&host, &endpoint.at(""), "local");
        assert_eq!((walked.flag, names(&walked)), (Flag::Complete, vec!["conf"]), "{walked:?}");
        assert_eq!(walk(&host, &endpoint.at(""), "all").flag, Flag::Incomplete);
    });
}

#[test]
fn what_is_mounted_is_known_and_its_space_is_not() {
    let Some(endpoint) = Endpoint::new("hung") else { return };
    let target = endpoint.at("srv/data");
    let partition = || {
        let entities = vec![asked("mount_point", Operation::Equals, &target)];
        probe(&Host::new("/"), "linux:partition", entities, &[])
    };
    assert_eq!(partition().items[0].value("total_space"), Some("100"));
    endpoint.hung.answer(0);
    let found = within(AT_MOST, partition);
    assert_eq!((found.flag, found.items.len()), (Flag::Complete, 1), "{found:?}");
    let item = &found.items[0];
    assert!(item.value("mount_options").is_some());
    assert!(item.message.as_ref().is_some_and(|message| message.contains(&endpoint.words())), "{item:?}");
    let space = item.entities.iter().find(|entity| entity.name == "total_space").unwrap();
    assert_eq!((space.status, &space.value), (Status::NotCollected, &None));
    let mounted = probe(&Host::new("/"), "muster:mount", vec![asked("target", Operation::Equals, &target)], &[]);
    assert_eq!((mounted.flag, mounted.items.len()), (Flag::Complete, 1));
}

#[test]
fn a_task_under_which_a_mount_begins_to_hang_is_given_up_and_the_next_one_is_answered() {
    let Some(endpoint) = Endpoint::new("hung") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // It answers when it is asked whether it does, and for the first looks.
    endpoint.hung.answer(3);
    let task = || {
        let pulse = Arc::new(Pulse::default());
        let (shown, top) = (Arc::clone(&pulse), endpoint.at(""));
        let look = move || walk(&Host::new("/").with_pulse(shown), &top, "all");
        // Its seconds are short.
        runtime.block_on(watched_for(Duration::from_millis(100), pulse, Arc::new(AtomicBool::new(false)), look))
    };
    let ended = within(AT_MOST, task).unwrap_err();
    let Ended::Silent(last) = &ended else { panic!("{ended}") };
    let is_there = ["srv/data", "opt/absolute", "opt/file"].iter().any(|place| last.starts_with(endpoint.at(place)));
    assert!(is_there, "{ended}");
    let next = within(AT_MOST, || walk(&Host::new("/"), &endpoint.at(""), "all"));
    assert_eq!(next.flag, Flag::Incomplete, "{next:?}");
    assert!(said(&next).contains(&endpoint.words()), "{}", said(&next));
    within(AT_ONCE, || text(&Host::new("/"), &endpoint.at("etc/conf")));
}

#[test]
fn what_nobody_could_look_at_is_unknown_with_that_reason() {
    let Some(endpoint) = Endpoint::new("hung") else { return };
    let etc = endpoint.root.path().join("etc");
    let Some(over_etc) = Hung::mount("hung", &etc) else { return };
    over_etc.answer(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let installation = Installation::orchestrator().await;
        installation.add_repository().await;
        installation.add_evaluator().await;
        installation.add_collector("hung", endpoint.root.path()).await;
        installation.wait_for_active(3).await;
        let mut results = Vec::new();
        for event in installation.ask(Ask::Evaluate(baseline(60))).await {
            match event {
                OperatorEvent::Verdict { result, .. } => results.push(*result),
                OperatorEvent::Fault(fault) => panic!("{fault}"),
                _ => {}
            }
        }
        let users = results.iter().find(|result| result.rule.ends_with("_rule_user_ids_are_unique")).unwrap();
        assert_eq!(users.verdict, Verdict::Unknown, "{users:?}");
        let words = format!("FUSE mount {} does not answer", etc.display());
        assert!(users.reasons.iter().any(|reason| reason.contains(&words)), "{users:?}");
    });
}
