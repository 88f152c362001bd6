//! A repository whose disk is full: nothing is acknowledged, nothing is lost, and it goes on when there is room.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use proto::operator::{Ask, OperatorEvent};
use repository::store::Store as _;
use repository::store::sqlite::SqliteStore;
use scap::compile::compile;
use scap::datastream::read;
use system_tests::disk::Disk;
use system_tests::{Installation, baseline, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_acknowledges_nothing_and_loses_nothing() {
    service::telemetry::start(service::telemetry::INFO);
    let installation = Installation::orchestrator().await;
    let path = installation.data.path().join("repository");
    let Some(disk) = Disk::mount(&path) else { return };
    installation.add_repository().await;
    installation.add_evaluator().await;
    installation.add_collector("pcs-agent", Path::new("/")).await;
    installation.wait_for_active(3).await;
    disk.fill();
    let events = installation.ask(Ask::Collect(baseline(5))).await;
    let view = events.iter().find_map(|event| match event {
        OperatorEvent::Ended(view) => Some(view),
        _ => None,
    });
    // What is not stored is not done.
    assert_ne!(view.unwrap().state, "completed", "{events:?}");
    let store = SqliteStore::open(&path.join("repository.db")).await.unwrap();
    let before = store.counts().await.unwrap().current_count;
    let objects =
        compile(&read(system_tests::BASELINE.to_vec()).unwrap(), None).unwrap().collection.report.len() as u64;
    assert!(before < objects, "the disk was not full");
    std::fs::remove_file(disk.junk()).unwrap();
    // Nobody asks again: the collector's outbox holds what it found, and sends it until it is stored.
    eventually("what was found is stored", async || {
        (store.counts().await.unwrap().current_count == objects).then_some(())
    })
    .await;
}
