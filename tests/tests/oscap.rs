//! Verdicts against the real `oscap` on the machine that the tests run on. Where there is none, the
//! tests say so and count as skipped; CI installs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use system_tests::{BASELINE, assess};

fn oscap_is_missing() -> bool {
    let is_missing = Command::new("oscap").arg("--version").output().is_err();
    if is_missing {
        assert!(std::env::var_os("MUSTER_REQUIRE_OSCAP").is_none(), "oscap is required here and is missing");
        skipped("`oscap` is not installed (package openscap-scanner): nothing was compared");
    }
    is_missing
}

fn baseline_file(directory: &tempfile::TempDir) -> PathBuf {
    let file = directory.path().join("baseline-ds.xml");
    std::fs::write(&file, BASELINE).unwrap();
    file
}

#[test]
fn oscap_accepts_the_baseline_as_a_data_stream() {
    if oscap_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("oscap").args(["ds", "sds-validate"]).arg(baseline_file(&directory)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_rule_of_the_baseline_gets_the_verdict_that_oscap_gives() {
    if oscap_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = baseline_file(&directory);
    for profile in ["xccdf_dev.muster_profile_server", "xccdf_dev.muster_profile_essential"] {
        let theirs = oscap_verdicts(&file, profile);
        let ours = assess(BASELINE, Some(profile), "/");
        let ours: BTreeMap<String, String> =
            ours.results.iter().map(|result| (result.rule.clone(), result.verdict.to_string())).collect();
        assert!(theirs.len() > 10, "oscap printed {} results", theirs.len());
        let differ: Vec<String> = theirs
            .iter()
            .filter(|(rule, verdict)| ours.get(*rule) != Some(verdict))
            .map(|(rule, verdict)| format!("{rule}: oscap {verdict}, muster {:?}", ours.get(rule)))
            .collect();
        assert!(differ.is_empty(), "{profile}:\n{}", differ.join("\n"));
        assert_eq!(ours.len(), theirs.len(), "{profile}");
    }
}

/// Rule and verdict of every selected rule, as `oscap` prints them.
fn oscap_verdicts(file: &std::path::Path, profile: &str) -> BTreeMap<String, String> {
    let output = Command::new("oscap").args(["xccdf", "eval", "--profile", profile]).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut verdicts = BTreeMap::new();
    let mut rule = String::new();
    for line in text.lines() {
        match line.split_once(char::is_whitespace) {
            Some(("Rule", id)) => id.trim().clone_into(&mut rule),
            Some(("Result", verdict)) => {
                verdicts.insert(rule.clone(), verdict.trim().to_owned());
            }
            _ => {}
        }
    }
    verdicts
}

/// Says that a test did nothing, past the capture of its output.
fn skipped(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
