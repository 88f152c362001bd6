//! A repository whose disk is full: nothing is acknowledged, nothing is lost, and it goes on when there is room.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::path::Path;

use proto::operator::{Ask, OperatorEvent};
use repository::store::Store as _;
use repository::store::sqlite::SqliteStore;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use scap::compile::compile;
use scap::datastream::read;
use system_tests::{Installation, baseline, eventually};

/// A small disk, until it is dropped.
struct Disk<'path>(&'path Path);

impl<'path> Disk<'path> {
    fn mount(path: &'path Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = c"size=2m,mode=0700";
        let mounted = mount("tmpfs", path, "tmpfs", MountFlags::empty(), options);
        if let Err(error) = mounted {
            assert!(std::env::var_os("MUSTER_REQUIRE_MOUNT").is_none(), "no file system can be mounted: {error}");
            println!("SKIPPED: mounting a small file system needs root ({error})");
            return None;
        }
        Some(Self(path))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut junk = std::fs::File::create(self.junk()).unwrap();
        while std::io::Write::write_all(&mut junk, &[0; 4096]).is_ok() {}
    }

    fn junk(&self) -> std::path::PathBuf {
        self.0.join("junk")
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_acknowledges_nothing_and_loses_nothing() {
    service::telemetry::start("info");
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
