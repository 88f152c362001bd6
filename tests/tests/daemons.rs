//! What whoever installs and starts the daemons meets: their configuration, and what a service manager hears.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use system_tests::processes::binaries;
use system_tests::workspace;

/// Runs a program without the variables of whoever runs the test.
fn command(program: &str, words: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binaries().join(program));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MUSTER_")) {
        command.env_remove(name);
    }
    command.args(words).envs(variables.iter().copied()).stdin(Stdio::null());
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn check(program: &str, words: &[&str], variables: &[(&str, &str)], code: i32, expect: &[&str]) {
    let output = command(program, words, variables).output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(code), "{program} {words:?}: {told}");
    for text in expect {
        assert!(told.contains(text), "{program} {words:?} does not say `{text}`: {told}");
    }
}

fn written(directory: &Path, text: &str) -> String {
    let file = directory.join("muster.toml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn each_daemon_checks_its_configuration_and_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let good = written(directory.path(), "[repository]\nname = 'archive'\n[orchestrator]\nlisten = '127.0.0.1:1'\n");
    for daemon in ["muster-orchestrator", "muster-repository", "muster-pes-evaluator", "muster-pcs-agent"] {
        check(daemon, &["--check", "--config", &good], &[], 0, &["can be used"]);
        let missing = directory.path().join("none.toml");
        check(daemon, &["--check", "--config", missing.to_str().unwrap()], &[], 1, &["none.toml", "cannot be read"]);
    }
    let wrong = written(directory.path(), "[repository]\nkeep-verdict = '1d'\n");
    check(
        "muster-repository",
        &["--check", "--config", &wrong],
        &[],
        1,
        &["`repository.keep-verdict`", "`keep-verdicts`"],
    );
    check("muster-repository", &["--check", "--broker", "nowhere"], &[], 1, &["`broker`", "HOST:PORT"]);
    check(
        "muster-repository",
        &["--check"],
        &[("MUSTER_KEEP_VERDICTS", "1w")],
        1,
        &["MUSTER_KEEP_VERDICTS: ", "s, m, h or d"],
    );
    let both = [("MUSTER_DATABASE", "postgres://a:s3cret@b/c"), ("MUSTER_DATABASE_FILE", good.as_str())];
    check("muster-repository", &["--check"], &both, 1, &["`database` and `database-file`"]);
    check("muster-orchestrator", &["--check", "--ca-key", "/key"], &[], 1, &["`ca-certificate`", "`ca-key`"]);
    check("muster-pcs-agent", &["--check", "--root", "/none/such"], &[], 1, &["`root`", "/none/such"]);
    check("muster-pcs-agent", &["--check", "--budget", "cpu=900%"], &[], 1, &["--budget: "]);
}

#[test]
fn what_holds_is_shown_with_who_said_so_and_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path(), "[repository]\ndatabase = 'postgres://a:s3cret@b/c'\nname = 'archive'\n");
    let shown = command("muster", &["config", "show", &file], &[("MUSTER_LISTEN", "127.0.0.1:7")]).output().unwrap();
    let text = told(&shown);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("listen = \"127.0.0.1:7\"").ends_with("# MUSTER_LISTEN"), "{text}");
    assert!(line("name = \"archive\"").ends_with(&format!("# {file}")), "{text}");
    assert!(line("keep-workflows = \"31d\"").ends_with("# built in"), "{text}");
    assert!(line("database = ").contains("not shown") && !text.contains("s3cret"), "{text}");
    let reference = command("muster", &["config", "reference"], &[]).output().unwrap();
    assert_eq!(told(&reference), std::fs::read_to_string(workspace().join("docs/muster.toml")).unwrap());
}

#[test]
fn a_file_is_checked_for_all_daemons_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path(), "[orchestrator]\nkeep-workflows = '1d'\n[pcs-agent]\nname = 'web'\n");
    check("muster", &["config", "check", &file], &[], 1, &["pcs-agent      can be used", "`keep-workflows`", "31d"]);
    let json = command("muster", &["config", "check", &file, "-o", "json"], &[]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["is-good"], &json["errors"]["pcs-agent"]), (&false.into(), &serde_json::Value::Null), "{json}");
    let broken = written(directory.path(), "[orchestrator]\nlisten = 7\n");
    check("muster", &["config", "check", &broken], &[], 1, &["line 2"]);
}

#[test]
fn a_service_manager_hears_that_a_daemon_is_ready_what_it_waits_for_and_that_it_lives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let token = directory.path().join("token");
    let words = ["--data", directory.path().to_str().unwrap(), "--join-token-file", token.to_str().unwrap()];
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000"), ("MUSTER_LOG", "warn")];
    let mut daemon = command("muster-repository", &words, &variables).spawn().unwrap();
    let mut heard = Vec::new();
    let status = format!("STATUS=waits for a join token in {}", token.display());
    // Alive again and again, and not only once.
    while heard.iter().filter(|text| *text == "WATCHDOG=1").count() < 3 || !heard.contains(&status) {
        let mut bytes = [0; 512];
        let count = socket.recv(&mut bytes).unwrap();
        heard.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
    }
    // Whatever it waits for, it ends when it is asked to.
    let id = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(heard.contains(&"READY=1".to_owned()), "{heard:?}");
}
