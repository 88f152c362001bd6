//! How long the evaluator takes, beside `oscap`: `cargo bench -p system-tests --bench evaluation`.
//!
//! `MUSTER_BENCH_STREAM=FILE` evaluates a data stream of yours instead of the baseline, from what `oscap` collects of
//! this machine (or from `MUSTER_BENCH_CHARACTERISTICS=FILE`). Prints CPU time of both programs in one run, as a ratio.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and stops where it cannot go on")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use scap::compile::compile;
use scap::evaluate::evaluate;
use scap::standing::Standing;
use system_tests::{BASELINE, evidence_of};

const RUNS: u32 = 5;

/// CPU time of the children of this process that have ended, from `/proc/self/stat` (cutime and cstime, in hundredths
/// of a second).
fn children_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Mean CPU time of a command.
fn cpu_of(command: &mut Command) -> Duration {
    let before = children_cpu();
    for _ in 0..RUNS {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    children_cpu().saturating_sub(before) / RUNS
}

/// The first OVAL document of the data stream, as a file.
fn definitions(bytes: &[u8], directory: &Path) -> PathBuf {
    let parts = scap::datastream::parts(bytes, &scap::datastream::Choice::default()).unwrap();
    let part = parts.iter().find(|part| part.section == "checks").unwrap();
    let text = scap::xml_slice::element(bytes, Some(&part.component)).unwrap().unwrap();
    let path = directory.join("definitions.xml");
    std::fs::write(&path, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}")).unwrap();
    path
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = match std::env::var_os("MUSTER_BENCH_STREAM") {
        Some(path) => scap::source::plain(std::fs::read(path).unwrap()).unwrap(),
        None => BASELINE.to_vec(),
    };
    beside_oscap(&bytes, directory.path());
    again(bytes);
}

fn beside_oscap(bytes: &[u8], directory: &Path) {
    if Command::new("oscap").arg("--version").output().is_err() {
        println!("oscap (package openscap-scanner) is not installed: nothing to compare with");
        return;
    }
    let definitions = definitions(bytes, directory);
    let given = std::env::var_os("MUSTER_BENCH_CHARACTERISTICS").map(PathBuf::from);
    let characteristics = given.unwrap_or_else(|| {
        let path = directory.join("characteristics.xml");
        let words = ["oval", "collect", "--skip-valid", "--syschar"];
        let collected = Command::new("oscap").args(words).args([&path, &definitions]).output().unwrap();
        assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
        path
    });
    let results = directory.join("results.xml");
    let muster = system_tests::processes::binaries().join("muster");
    // As they are called, and without the schemas that `oscap` validates by.
    for words in [&["oval", "analyse", "--results"][..], &["oval", "analyse", "--skip-valid", "--results"]] {
        let theirs = cpu_of(Command::new("oscap").args(words).args([&results, &definitions, &characteristics]));
        let mut ours = Command::new(&muster);
        let ours = cpu_of(ours.arg("scap").args(words).args([&results, &definitions, &characteristics]));
        println!(
            "{}, CPU: oscap {} ms, muster {} ms, {:.2} of oscap's",
            words.join(" "),
            theirs.as_millis(),
            ours.as_millis(),
            ours.as_secs_f64() / theirs.as_secs_f64()
        );
    }
}

/// The verdicts of a whole benchmark, at once and after one object has changed.
fn again(bytes: Vec<u8>) {
    let policy = scap::datastream::read(bytes).unwrap();
    let began = Instant::now();
    let compiled = compile(&policy, Some("(all)")).unwrap();
    println!("{} rules compiled in {:.1?}", compiled.rules.len(), began.elapsed());
    let evidence = evidence_of(&compiled, "/");
    let now = Timestamp::now();
    let began = Instant::now();
    let evaluation = evaluate(&compiled, &evidence, now);
    println!("{} results decided in {:.1?}", evaluation.results.len(), began.elapsed());
    let began = Instant::now();
    let mut standing = Standing::new(&compiled, evidence.clone(), now);
    println!("decided and kept, with their index, in {:.1?}", began.elapsed());
    let (mut longest, mut all, mut rules) = (Duration::ZERO, Duration::ZERO, 0);
    for (object, observed) in &evidence.observations {
        for next in [None, Some(observed.clone())] {
            let began = Instant::now();
            rules += standing.update(BTreeMap::from([(object.clone(), next)]), now).len();
            let took = began.elapsed();
            longest = longest.max(took);
            all += took;
        }
    }
    let count = u32::try_from(evidence.observations.len() * 2).unwrap().max(1);
    println!(
        "one object changed, each of {} in turn: {:.1?} in the mean, {longest:.1?} at most ({rules} results changed)",
        count / 2,
        all / count
    );
}
