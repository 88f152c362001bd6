//! `muster measure`: what is measured is there, and nothing is lost. How fast it is depends on the machine, and says nothing here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use serde_json::Value;
use system_tests::processes::binaries;

const COLLECTORS: u64 = 3;

/// Runs it with the root of a small endpoint, and a directory of its own for temporary files.
fn measure(temporary: &std::path::Path, only: &str) -> Output {
    let words = ["measure", "--collectors", &COLLECTORS.to_string(), "--only", only, "-o", "json"];
    // What is around it is not for the installation that it starts.
    let other = temporary.join("there-is-none.toml");
    Command::new(binaries().join("muster"))
        .args(words)
        .env("TMPDIR", temporary)
        .env("MUSTER_CONFIG", other)
        .output()
        .unwrap()
}

/// The rows, by measure; all of them were measured.
fn rows(output: &Output, names: &[&str]) -> Vec<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    let table: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(table["collectors"], COLLECTORS);
    assert!(table["is-pinned"].is_boolean() && table["is-one-core"].is_boolean(), "{table}");
    let rows = table["rows"].as_array().unwrap().clone();
    let measures: Vec<&str> = rows.iter().map(|row| row["measure"].as_str().unwrap()).collect();
    assert_eq!(measures, names);
    for row in &rows {
        assert!(row["fault"].is_null() && row["is-met"].is_boolean(), "{row:#}\n{said}");
        for text in ["what", "target", "measured", "limit"] {
            assert!(row[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {row:#}");
        }
    }
    assert!(output.status.success(), "{said}");
    rows
}

fn is_left(temporary: &std::path::Path) -> bool {
    std::fs::read_dir(temporary).unwrap().next().is_some()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn everything_that_is_measured_in_moments_is_measured_and_nothing_is_lost() {
    let temporary = tempfile::tempdir().unwrap();
    // In another order, and one of them twice: they are taken as they stand in the table.
    let output = measure(temporary.path(), "changed-rule,freshness,change,evaluation,ad-hoc,ad-hoc");
    let rows = rows(&output, &["ad-hoc", "evaluation", "change", "freshness", "changed-rule"]);
    let [ad_hoc, evaluation, change, freshness, changed_rule] =
        &rows.iter().map(|row| &row["figures"]).collect::<Vec<_>>()[..]
    else {
        panic!("{rows:?}")
    };
    assert_eq!(ad_hoc["answered"], COLLECTORS);
    assert!(number(&ad_hoc["delivered-p99-ms"]) <= number(&ad_hoc["all-answered-ms"]));
    assert!(number(&ad_hoc["first-result-ms"]) <= number(&ad_hoc["all-answered-ms"]));
    assert_eq!((&evaluation["endpoints"], &evaluation["answered"]), (&COLLECTORS.into(), &COLLECTORS.into()));
    assert_eq!((&evaluation["lost"], &evaluation["doubled"]), (&0.into(), &0.into()));
    let verdicts = evaluation["verdicts"].as_u64().unwrap();
    assert!(verdicts > 40 * COLLECTORS && verdicts.is_multiple_of(COLLECTORS), "{verdicts}");
    assert!(number(&evaluation["ms-for-each-endpoint"]["repository"]) > 0.0, "{evaluation}");
    assert!(number(&change["p50-ms"]) <= number(&change["p95-ms"]));
    assert!(number(&freshness["hit-p50-ms"]) < number(&freshness["miss-p99-ms"]));
    assert_eq!(changed_rule["changed"], COLLECTORS);
    assert_eq!(changed_rule["verdicts"], verdicts);
    assert!(!is_left(temporary.path()), "nothing is left behind");
}

#[test]
fn a_kill_of_the_orchestrator_loses_nothing_and_what_is_poured_in_is_acknowledged() {
    let temporary = tempfile::tempdir().unwrap();
    let output = measure(temporary.path(), "ingest,restart");
    let rows = rows(&output, &["ingest", "restart"]);
    let (ingest, restart) = (&rows[0]["figures"], &rows[1]["figures"]);
    assert!(ingest["acknowledged"].as_u64().unwrap() > COLLECTORS && number(&ingest["per-second"]) > 0.0, "{ingest}");
    assert!(number(&ingest["commit-p50-ms"]) <= number(&ingest["commit-p99-ms"]));
    assert_eq!((&restart["back"], &restart["answered"]), (&COLLECTORS.into(), &COLLECTORS.into()));
    assert_eq!((&restart["lost"], &restart["doubled"]), (&0.into(), &0.into()), "{restart}");
    assert!(restart["items"].as_u64().unwrap() > 20 * COLLECTORS, "{restart}");
    assert!(number(&restart["peak-by-messages"]) >= 1.0, "{restart}");
    assert!(!is_left(temporary.path()), "nothing is left behind");
}

#[test]
fn what_cannot_be_is_told_before_anything_is_started() {
    let temporary = tempfile::tempdir().unwrap();
    let check = |words: &[&str], code: i32, expect: &str| {
        let output = Command::new(binaries().join("muster")).arg("measure").args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expect), "{said}");
    };
    check(&["--only", "everything"], 64, "changed-rule");
    check(&["--root", "/there/is/none"], 1, "there is no such directory");
    std::fs::write(temporary.path().join("something"), "").unwrap();
    check(&["--keep", temporary.path().to_str().unwrap()], 1, "not empty");
    // Alone it has nothing to start.
    let alone = temporary.path().join("muster");
    std::fs::copy(binaries().join("muster"), &alone).unwrap();
    let output = Command::new(&alone).arg("measure").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("muster-repository") && said.contains("hint: "), "{said}");
}
