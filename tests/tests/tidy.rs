//! The shape of the code, as a test: allowed arrows between crates, file sizes, versions in one place,
//! nothing unfinished, nothing that runs a command from the wire.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use system_tests::workspace;

/// Who may use whom, of ours. What is not here is not allowed.
const EDGES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("libs/oval", &["proto"]),
    ("libs/scap", &["proto", "oval"]),
    ("libs/bus", &["proto"]),
    ("libs/service", &["proto", "bus"]),
    ("libs/store", &["service"]),
    ("orchestrator", &["proto", "bus", "service", "store", "oval", "scap"]),
    ("pcs-agent", &["proto", "bus", "service", "oval"]),
    ("pes-evaluator", &["proto", "bus", "service", "scap"]),
    ("repository", &["proto", "bus", "service", "store", "oval"]),
    (
        "tools/muster",
        &["proto", "bus", "oval", "scap", "service", "orchestrator", "pcs-agent", "pes-evaluator", "repository"],
    ),
];

/// Crates of others that only these may use.
const KEPT_IN: &[(&str, &[&str])] = &[
    ("rumqttc", &["libs/bus", "tests"]),
    ("rumqttd", &["orchestrator"]),
    ("sqlx", &["libs/store", "orchestrator", "repository", "tools/muster"]),
    ("quick-xml", &["libs/scap", "pcs-agent"]),
    ("pcre2", &["libs/oval"]),
    ("saphyr-parser", &["pcs-agent"]),
    ("zbus", &["pcs-agent"]),
    ("notify", &["pcs-agent"]),
    ("hyper", &["orchestrator"]),
    ("rustls-native-certs", &["orchestrator"]),
    ("cronexpr", &["libs/service"]),
    ("clap", &["libs/service", "orchestrator", "pcs-agent", "pes-evaluator", "repository", "tools/muster"]),
];

const LINES_MAX: usize = 800;
const MAIN_LINES_MAX: usize = 60;

fn members() -> Vec<String> {
    EDGES.iter().map(|(member, _)| (*member).to_owned()).chain(["tests".to_owned()]).collect()
}

/// The names under `[dependencies]`.
fn dependencies(member: &str) -> Vec<String> {
    let manifest = std::fs::read_to_string(workspace().join(member).join("Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    section
        .lines()
        .filter_map(|line| line.split(['.', '=']).next())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn all_sources() -> BTreeMap<PathBuf, String> {
    let mut paths = Vec::new();
    for member in members() {
        for directory in ["src", "tests"] {
            let path = workspace().join(&member).join(directory);
            if path.is_dir() {
                sources(&path, &mut paths);
            }
        }
    }
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn crates_use_each_other_only_along_the_allowed_arrows() {
    let ours: Vec<&str> = EDGES.iter().map(|(member, _)| member.rsplit('/').next().unwrap()).collect();
    for (member, allowed) in EDGES {
        for used in dependencies(member) {
            assert!(!ours.contains(&used.as_str()) || allowed.contains(&used.as_str()), "{member} may not use {used}");
        }
    }
}

#[test]
fn crates_of_others_stay_where_they_belong() {
    for (kept, homes) in KEPT_IN {
        for member in members() {
            let is_used = dependencies(&member).iter().any(|used| used == kept);
            assert!(!is_used || homes.contains(&member.as_str()), "{member} may not use {kept}");
        }
    }
    for pure in ["proto", "libs/oval", "libs/scap"] {
        assert!(!dependencies(pure).iter().any(|used| used == "tokio"), "{pure} knows no tokio");
    }
}

#[test]
fn the_top_level_is_the_architecture() {
    let fixed = [
        "Cargo.toml",
        "orchestrator",
        "pcs-agent",
        "pes-evaluator",
        "repository",
        "proto",
        "docker-compose.yml",
        "tests",
    ];
    for entry in fixed {
        assert!(workspace().join(entry).exists(), "{entry} is missing");
    }
}

#[test]
fn versions_stand_in_the_workspace_table_only() {
    for member in members() {
        let manifest = std::fs::read_to_string(workspace().join(&member).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member} has lints of its own");
        for name in dependencies(&member) {
            assert!(
                manifest.contains(&format!("{name}.workspace = true")),
                "{member}: {name} has a version of its own"
            );
        }
    }
}

#[test]
fn files_stay_small() {
    for (path, text) in all_sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: split it by noun", path.display());
        if path.ends_with("main.rs") && path.parent().is_some_and(|parent| parent.ends_with("src")) {
            assert!(lines <= MAIN_LINES_MAX, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn nothing_is_unfinished_or_skipped() {
    let this = Path::new("tests/tests/tidy.rs");
    for (path, text) in all_sources() {
        for word in ["todo!(", "unimplemented!(", "#[ignore", "FIXME", "XXX"] {
            assert!(path.ends_with(this) || !text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn no_service_starts_a_process() {
    // RFC 8248 OP-002: what comes over the wire is never run, but a script that the endpoint's operator has allowed: a
    // collector starts itself for it, and what was started the script, once its sandbox stands. Tests start programs, and so
    // does the operator's command where it measures: those of Muster that stand beside it.
    let homes =
        ["pcs-agent/src/script/run.rs", "pcs-agent/src/script/sandbox.rs", "tools/muster/src/measure/daemon.rs"]
            .map(Path::new);
    for (path, text) in all_sources() {
        let relative = path.strip_prefix(workspace()).unwrap();
        if homes.contains(&relative) {
            let started: Vec<&str> =
                text.match_indices("Command::new(").filter_map(|(at, _)| text[at + 13..].split(')').next()).collect();
            let known = ["&scripts.runner", "\"/proc/self/exe\"", "SCRIPT", "beside"];
            assert!(started.iter().all(|word| known.contains(word)), "{} starts {started:?}", relative.display());
        } else if !relative.starts_with("tests") && !relative.starts_with("pcs-agent/tests") {
            assert!(
                !text.contains("Command::new") && !text.contains("process::Command"),
                "{} starts a process",
                relative.display()
            );
        }
    }
}

#[test]
fn only_the_topic_table_spells_a_topic() {
    for (path, text) in all_sources() {
        let relative = path.strip_prefix(workspace()).unwrap();
        let is_home = relative.starts_with("proto/src/topic.rs") || relative.starts_with("tests");
        for topic in ["\"/collection/results", "\"/evaluation/results", "\"/status/", "\"/policy/", "\"/change/"] {
            assert!(is_home || !text.contains(topic), "{} spells {topic}", relative.display());
        }
    }
}

#[test]
fn migrations_pair_up() {
    for member in ["orchestrator", "repository"] {
        let names = |back_end: &str| {
            let directory = workspace().join(member).join("migrations").join(back_end);
            let mut names: Vec<_> =
                std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("sqlite"), names("postgres"), "{member}");
    }
}

#[test]
fn a_table_of_threats_names_tests_that_there_are() {
    let sources = all_sources();
    let is_there = |name: &str| {
        let definition = format!("fn {name}(");
        sources.values().any(|text| text.contains(&definition))
    };
    let mut count = 0;
    for (path, text) in &sources {
        for row in text.lines().filter(|line| line.starts_with("//! |")) {
            // Tests are the words between backticks that are sentences.
            for name in row.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() > 2) {
                assert!(is_there(name), "{}: there is no test `{name}`", path.display());
                count += 1;
            }
        }
    }
    assert!(count > 30, "only {count} tests are named");
}

/// What `deny.toml` ignores is on no path that runs: rumqttc names the error type of an old rustls-webpki, and reads PEM
/// only where it makes the TLS configuration, which ours is given ready made.
#[test]
fn what_the_advisories_name_is_used_by_nobody_but_rumqttc() {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    let users_of = |wanted: &str| -> Vec<String> {
        let users = lock.split("[[package]]").filter(|package| package.contains(&format!("\n \"{wanted}\"")));
        let name = |package: &str| package.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().to_owned();
        users.map(name).collect()
    };
    assert_eq!(users_of("rustls-webpki 0.102.8"), ["\"rumqttc\""]);
    assert_eq!(users_of("rustls-pemfile"), ["\"rumqttc\""]);
    assert!(lock.contains("\"rustls-webpki 0.103"), "rustls has another one");
    let ready_made = concat!("TlsConfiguration", "::Rustls");
    for (path, text) in all_sources() {
        for (at, _) in text.match_indices(concat!("TlsConfiguration", "::")) {
            assert!(text[at..].starts_with(ready_made), "{}: rumqttc makes its own TLS here", path.display());
        }
    }
}
