//! What no file tells of is reported all the same, long before it is looked at again: mounts, sockets that listen, kernel
//! parameters. On this machine itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::Path;

use proto::message::{Following, ObservationEntry, ObservationOperation};
use proto::observation::Item;
use proto::operator::{Ask, AskOutcome, OperatorEvent, PolicyImport, Workflow};
use system_tests::disk::Disk;
use system_tests::{BASELINE, Installation, ask, baseline, eventually};

const POLICY: &str = "events";

/// The baseline, asking of this port and this directory instead of its own.
async fn import(installation: &Installation, port: u16, directory: &Path) {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    let (of_port, of_mount) =
        ("<linux:local_port datatype=\"int\">23</linux:local_port>", "<linux:mount_point>/dev/shm</linux:mount_point>");
    assert!(text.contains(of_port) && text.contains(of_mount));
    let text = text
        .replace(of_port, &format!("<linux:local_port datatype=\"int\">{port}</linux:local_port>"))
        .replace(of_mount, &format!("<linux:mount_point>{}</linux:mount_point>", directory.display()));
    let import = Ask::PolicyImport(Box::new(PolicyImport { name: POLICY.to_owned(), ..PolicyImport::default() }));
    ask(&installation.data.path().join("orchestrator"), import, text.as_bytes()).await.unwrap();
}

/// Starts to observe what nobody would look at again before the test is over.
async fn observe(installation: &Installation) -> ObservationEntry {
    let ask = Ask::Observation {
        operation: ObservationOperation::Start,
        identifier: POLICY.to_owned(),
        poll_seconds: Some(86_400),
        workflow: Workflow { policy: POLICY.to_owned(), ..baseline(0) },
    };
    let events = installation.ask(ask).await;
    let OperatorEvent::Collectors(answers) = &events[0] else { panic!("{events:?}") };
    assert_eq!(answers[0].outcome, AskOutcome::Done, "{answers:?}");
    answers[0].observations[0].clone()
}

/// The items of changes that are stored, past the first report, newest first.
async fn changed(installation: &Installation) -> Vec<Item> {
    let ask = Ask::Changes { targets: Vec::new(), limit: 1_000, is_followed: false, query: None };
    let changes = installation.ask(ask).await.into_iter().filter_map(|event| match event {
        OperatorEvent::Change(change) => Some(change.current.items),
        _ => None,
    });
    changes.flatten().collect()
}

async fn is_reported_once(installation: &Installation) {
    eventually("everything is reported once", async || {
        let ask = Ask::Changes { targets: Vec::new(), limit: 1, is_followed: false, query: None };
        let events = installation.ask(ask).await;
        matches!(&events[0], OperatorEvent::Streams(streams) if !streams.is_empty()).then_some(())
    })
    .await;
}

/// A collector of this machine, and what it says of how it follows.
async fn observing(port: u16, directory: &Path) -> (Installation, ObservationEntry) {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_collector("pcs-agent", Path::new("/")).await;
    installation.wait_for_active(2).await;
    import(&installation, port, directory).await;
    let entry = observe(&installation).await;
    is_reported_once(&installation).await;
    (installation, entry)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_listens_is_reported_although_nobody_looks_again_for_a_day() {
    // None that the kernel gives to others in between.
    let port = (20_000..30_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    let (installation, entry) = observing(port, Path::new("/nowhere")).await;
    let of = |way: Following| entry.followed.iter().find(|by| by.way == way);
    assert!(of(Following::Files).is_some() && of(Following::Mounts).is_some(), "{entry:?}");
    let fingerprints = of(Following::Fingerprints).unwrap();
    assert!(fingerprints.count > 10 && fingerprints.seconds.is_some_and(|seconds| seconds <= 30), "{entry:?}");
    assert_eq!(of(Following::Polling).unwrap().seconds, Some(86_400));

    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    eventually("the socket is reported", async || {
        let wanted = port.to_string();
        let is_wanted = |item: &Item| {
            item.kind == "linux:inetlisteningservers" && item.value("local_port") == Some(wanted.as_str())
        };
        changed(&installation).await.iter().any(is_wanted).then_some(())
    })
    .await;
    drop(listener);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_is_reported_and_so_is_its_end_although_nobody_looks_again_for_a_day() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().canonicalize().unwrap();
    // Whether it may be done at all.
    let Some(tried) = Disk::mount(&place) else { return };
    drop(tried);
    let (installation, _) = observing(23, &place).await;
    let mounted = Disk::mount(&place).unwrap();
    let is_mount = |item: &Item| item.kind == "linux:partition" && item.value("mount_point") == place.to_str();
    eventually("the mount is reported", async || changed(&installation).await.iter().any(is_mount).then_some(())).await;
    drop(mounted);
    eventually("its end is reported", async || {
        let ask = Ask::Changes { targets: Vec::new(), limit: 1_000, is_followed: false, query: None };
        let is_end = |event: &OperatorEvent| match event {
            OperatorEvent::Change(change) => {
                change.current.items.is_empty()
                    && change.past.as_ref().is_some_and(|past| past.items.iter().any(is_mount))
            }
            _ => false,
        };
        installation.ask(ask).await.iter().any(is_end).then_some(())
    })
    .await;
}
