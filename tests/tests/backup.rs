//! A backup of an installation that is at work, and what is made of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use proto::operator::Ask;
use proto::verdict::Verdict;
use system_tests::disk::Disk;
use system_tests::endpoint::{SHADOW_RULE, root, set_mode};
use system_tests::processes::{Processes, binaries};
use system_tests::{baseline, verdicts};

fn muster(words: &[&str]) -> Output {
    Command::new(binaries().join("muster")).args(words).output().unwrap()
}

fn done(words: &[&str]) -> String {
    let output = muster(words);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "muster {words:?}: {said}");
    said
}

fn refused(words: &[&str], because: &str) {
    let output = muster(words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "muster {words:?}: {said}");
    assert!(said.contains(because), "muster {words:?}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_backed_up_while_it_was_at_work_is_restored_and_works() {
    let root = root();
    let mut processes = Processes::start(root.path()).await;
    let place = tempfile::tempdir().unwrap();
    let (data, copy) = (processes.data.path().to_owned(), place.path().join("copy"));
    let (data_word, copy_word) = (data.to_str().unwrap().to_owned(), copy.to_str().unwrap().to_owned());
    let evaluate = || Ask::Evaluate(baseline(60));
    assert!(!verdicts(&processes.ask(evaluate()).await).is_empty());
    let before = processes.stored().await;
    assert!(before.iter().any(|(rule, verdict)| rule.ends_with(SHADOW_RULE) && *verdict == Verdict::Pass));

    // It is copied while everybody is busy.
    let backup = {
        let (data_word, copy_word) = (data_word.clone(), copy_word.clone());
        tokio::task::spawn_blocking(move || done(&["backup", &copy_word, "--data", &data_word]))
    };
    let mut count = 0;
    while !backup.is_finished() || count < 3 {
        assert!(!verdicts(&processes.ask(evaluate()).await).is_empty());
        count += 1;
    }
    assert!(backup.await.unwrap().contains("Keys are among them"));
    refused(&["backup", &copy_word, "--data", &data_word], "is not empty");
    refused(&["restore", &copy_word, "--data", &data_word], "is not empty");

    // What comes afterwards is not in it; then everything is lost.
    set_mode(root.path(), 0o644);
    processes.ask(evaluate()).await;
    assert_ne!(processes.stored().await, before);
    for process in
        [&mut processes.orchestrator, &mut processes.repository, &mut processes.evaluator, &mut processes.collector]
    {
        process.kill();
    }
    // What was being evaluated at that moment will go on.
    set_mode(root.path(), 0o640);
    for entry in std::fs::read_dir(&data).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    assert!(done(&["restore", &copy_word, "--data", &data_word]).contains("is as it was at"));
    for process in
        [&mut processes.orchestrator, &mut processes.repository, &mut processes.evaluator, &mut processes.collector]
    {
        process.restart();
    }
    processes.wait_for_active().await;
    assert_eq!(processes.stored().await, before);
    // Every verdict leads back to what was signed, nothing is missing in the log, and it goes on.
    done(&["verify", "--data", &data_word]);
    done(&["audit", "verify", "--data", &data_word]);
    set_mode(root.path(), 0o644);
    let anew = verdicts(&processes.ask(evaluate()).await);
    let (_, verdict) = anew.iter().find(|(rule, _)| rule.ends_with(SHADOW_RULE)).unwrap();
    assert_eq!(verdict, "fail");
    done(&["verify", "--data", &data_word]);
}

/// A backup of one service that has never run.
fn small_backup(place: &Path) -> String {
    let data = place.join("data");
    drop(service::data::DataDirectory::open(&data).unwrap());
    std::fs::create_dir(data.join("outbox")).unwrap();
    std::fs::write(data.join("outbox/one.msg"), "a message").unwrap();
    std::fs::write(data.join("outbox/two.tmp"), "half a mes").unwrap();
    let copy = place.join("copy").display().to_string();
    done(&["backup", &copy, "--data", data.to_str().unwrap()]);
    copy
}

#[test]
fn what_is_not_whole_is_not_restored() {
    let place = tempfile::tempdir().unwrap();
    let copy = small_backup(place.path());
    let into = place.path().join("again");
    let restore = ["restore", copy.as_str(), "--data", into.to_str().unwrap()];
    let manifest_path = Path::new(&copy).join("manifest.json");
    let manifest = std::fs::read_to_string(&manifest_path).unwrap();
    assert!(!manifest.contains("two.tmp") && !manifest.contains("lock"), "{manifest}");

    let message = Path::new(&copy).join("outbox/one.msg");
    std::fs::write(&message, "b message").unwrap();
    refused(&restore, "is not what was backed up");
    std::fs::remove_file(&message).unwrap();
    refused(&restore, "is missing");
    std::fs::write(&message, "a message").unwrap();
    std::fs::write(&manifest_path, manifest.replace("outbox/one.msg", "../one.msg")).unwrap();
    refused(&restore, "names a file that is not below");
    std::fs::write(&manifest_path, manifest.replace("outbox/one.msg", "/tmp/one.msg")).unwrap();
    refused(&restore, "names a file that is not below");
    std::fs::write(&manifest_path, manifest.replace("\"layout\": 1", "\"layout\": 99")).unwrap();
    refused(&restore, "with a newer layout");
    std::fs::write(&manifest_path, &manifest[..100]).unwrap();
    refused(&restore, "is not what `muster backup` writes");
    assert!(!into.exists() && !place.path().join("again.partial").exists());
    std::fs::write(&manifest_path, manifest).unwrap();
    done(&restore);
    assert_eq!(std::fs::read_to_string(into.join("outbox/one.msg")).unwrap(), "a message");
}

#[test]
fn into_mounted_directories_it_is_restored_in_place_and_no_service_starts_beside_half_of_it() {
    let place = tempfile::tempdir().unwrap();
    let (data, into) = (place.path().join("data"), place.path().join("into"));
    for service in ["repository", "orchestrator"] {
        drop(service::data::DataDirectory::open(&data.join(service)).unwrap());
        std::fs::create_dir(data.join(service).join("outbox")).unwrap();
        std::fs::write(data.join(service).join("outbox/one.msg"), service).unwrap();
    }
    let copy = place.path().join("copy").display().to_string();
    done(&["backup", &copy, "--data", data.to_str().unwrap()]);
    let (repository, orchestrator) = (into.join("repository"), into.join("orchestrator"));
    let Some(_repository) = Disk::mount(&repository) else { return };
    let restore = ["restore", copy.as_str(), "--data", into.to_str().unwrap()];
    refused(&restore, "has to be there");
    let _orchestrator = Disk::mount(&orchestrator).unwrap();
    std::fs::write(orchestrator.join("mine"), "x").unwrap();
    refused(&restore, "is not empty");
    std::fs::remove_file(orchestrator.join("mine")).unwrap();
    let message = Path::new(&copy).join("orchestrator/outbox/one.msg");
    std::fs::write(&message, "orchestratos").unwrap();
    refused(&restore, "is not what was backed up");
    for service in [&repository, &orchestrator] {
        assert_eq!(std::fs::read_dir(service).unwrap().count(), 0);
    }
    std::fs::write(&message, "orchestrator").unwrap();
    done(&restore);
    for service in ["repository", "orchestrator"] {
        assert_eq!(std::fs::read_to_string(into.join(service).join("outbox/one.msg")).unwrap(), service);
        drop(service::data::DataDirectory::open(&into.join(service)).unwrap());
    }
    refused(&restore, "is not empty");
    // As a kill in the middle leaves it.
    std::fs::create_dir(repository.join("restore.partial")).unwrap();
    let error = service::data::DataDirectory::open(&repository).unwrap_err().to_string();
    assert!(error.contains("was being restored"), "{error}");
}

#[test]
fn a_directory_that_is_none_of_ours_is_no_backup_and_gives_none() {
    let place = tempfile::tempdir().unwrap();
    let (empty, into) = (place.path().join("empty"), place.path().join("into"));
    std::fs::create_dir(&empty).unwrap();
    let (empty, into) = (empty.to_str().unwrap(), into.to_str().unwrap());
    refused(&["backup", into, "--data", empty], "is not the data directory of a service");
    refused(&["restore", empty, "--data", into], "is no backup");
    refused(&["backup", into, "--data", "/no/such/place"], "cannot be read");
    assert!(!Path::new(into).exists());
}
