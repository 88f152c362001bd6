//! Policy feeds over HTTPS: what is new at a URL waits, what has not changed is not loaded again, and whatever a server does is
//! told and holds up nobody.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use orchestrator::FeedLimits;
use proto::operator::{Ask, FeedChange, FeedSource, HttpsSource, OperatorEvent, PolicyFeed, SignerChange};
use rcgen::{KeyPair, PKCS_ED25519};
use system_tests::https::{Answer, HttpsServer};
use system_tests::signing::{public, signed};
use system_tests::{BASELINE, Installation, eventually};
use tokio::net::TcpListener;

const OFTEN: u64 = 5;
/// Once in a test.
const ONCE: u64 = 3600;
const LOCAL: &[&str] = &["127.0.0.1", "localhost"];

fn text() -> String {
    String::from_utf8(BASELINE.to_vec()).unwrap()
}

fn of_version(version: &str) -> String {
    text().replace("<version>1.0.0<", &format!("<version>{version}<"))
}

fn file(content: &str, etag: &'static str) -> Answer {
    Answer::File(content.as_bytes().to_vec(), Some(("ETag", etag)))
}

fn add(name: &str, url: String, ca: Option<&str>, every_seconds: u64) -> Ask {
    let source = FeedSource::Https(HttpsSource { url, ca: ca.map(str::to_owned) });
    Ask::PolicyFeed(FeedChange::Add { name: name.to_owned(), source, every_seconds })
}

async fn installation(limits: FeedLimits) -> Installation {
    let data = tempfile::tempdir().unwrap();
    let installation = Installation::with(data, "127.0.0.1:0", |settings| settings.feeds = limits).await;
    installation.add_repository().await;
    installation.wait_for_active(1).await;
    installation
}

async fn feeds(installation: &Installation) -> Vec<PolicyFeed> {
    let OperatorEvent::Feeds(feeds) = &installation.ask(Ask::PolicyFeeds).await[0] else { panic!() };
    feeds.clone()
}

async fn feed(installation: &Installation, name: &str) -> PolicyFeed {
    feeds(installation).await.into_iter().find(|feed| feed.name == name).unwrap()
}

async fn policies(installation: &Installation) -> Vec<String> {
    let OperatorEvent::Policies(policies) = &installation.ask(Ask::PolicyList).await[0] else { panic!() };
    policies.iter().map(|policy| policy.name.clone()).collect()
}

/// Waits until a problem of a feed has these words in it; without words, until there is none.
async fn problem(installation: &Installation, name: &str, words: Option<&str>) {
    eventually(&format!("`{name}` has the problem {words:?}"), async || {
        let problems = feed(installation, name).await.problems;
        let is_so = match words {
            Some(words) => problems.iter().any(|problem| problem.contains(words)),
            None => problems.is_empty(),
        };
        is_so.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_at_a_url_waits_and_what_has_not_changed_is_not_loaded_again() {
    const MOVED: &str = "/new/place";
    const PATH: &str = "/content/web-ds.xml";
    let installation = installation(FeedLimits::default()).await;
    let mut server = HttpsServer::start(LOCAL).await;
    server.put(PATH, file(&text(), "\"1\""));
    // Another host of the same server, which is asked for what has changed there.
    server.put("/ours.xml", Answer::redirect(&format!("https://localhost:{}{MOVED}", server.address.port())));
    let modified = ("Last-Modified", "Wed, 25 Nov 2026 10:00:00 GMT");
    server.put(MOVED, Answer::File(of_version("7.0.0").into_bytes(), Some(modified)));
    installation.told(add("web", server.url(PATH), Some(&server.ca), OFTEN)).await.unwrap();
    installation.told(add("moved", server.url("/ours.xml"), Some(&server.ca), OFTEN)).await.unwrap();
    for (name, path) in [("web", PATH), ("ours", MOVED)] {
        eventually("it is a policy", async || (installation.versions(name).await.len() == 1).then_some(())).await;
        eventually("it is asked whether it has changed", async || server.asked(path).last().copied()?.then_some(()))
            .await;
        assert_eq!(server.asked(path).iter().filter(|is_unchanged| !**is_unchanged).count(), 1, "{path}");
    }

    server.put(PATH, file(&of_version("2.0.0"), "\"2\""));
    eventually("another version waits", async || {
        let known = installation.versions("web").await;
        known.get(1).is_some_and(|second| second.is_waiting && second.version == "2.0.0").then_some(())
    })
    .await;
    let acts = installation.ask(Ask::Audit).await;
    let is_told = |event: &OperatorEvent| {
        let OperatorEvent::Audit(lines) = event else { return false };
        lines.iter().any(|line| line.contains("add-policy-feed") && line.contains(PATH))
    };
    assert!(acts.iter().any(is_told), "{acts:?}");

    // The feed and its CA outlive the process; what was taken is no version once more.
    let before = server.asked(PATH).len();
    let installation = installation.restarted().await;
    eventually("the first look knows nothing, and the second does", async || {
        let since = server.asked(PATH).split_off(before);
        // The process of before may have asked once more.
        let first = since.iter().position(|is_unchanged| !is_unchanged)?;
        since.get(first + 1).copied()?.then_some(())
    })
    .await;
    assert_eq!(installation.versions("web").await.len(), 2);
    problem(&installation, "web", None).await;

    server.stop().await;
    problem(&installation, "web", Some("web-ds.xml: `127.0.0.1` cannot be reached")).await;
    server.start_again().await;
    problem(&installation, "web", None).await;
    assert_eq!(server.asked(PATH).last(), Some(&true), "what was taken is still known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_does_wrong_is_told_and_holds_up_no_other_feed() {
    const BYTES_MAX: u64 = 1024 * 1024;
    let limits = FeedLimits { connect: Duration::from_secs(3), look: Duration::from_secs(6), content_bytes: BYTES_MAX };
    let installation = installation(limits).await;
    let server = HttpsServer::start(LOCAL).await;
    let elsewhere = HttpsServer::start(&["elsewhere.example"]).await;
    // Connections come, and nobody says anything.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gone = HttpsServer::start(LOCAL).await;
    gone.stop().await;
    let answers = [
        ("/broken.xml", Answer::status("500 Internal Server Error"), "the server answers 500"),
        ("/unasked.xml", Answer::status("304 Not Modified"), "the server answers 304"),
        ("/part.xml", Answer::status("206 Partial Content"), "the server answers 206"),
        ("/loop.xml", Answer::redirect("/loop.xml"), "redirects more than 5 times"),
        ("/plain.xml", Answer::redirect(&format!("http://{}/good.xml", server.address)), "`http:` is not followed"),
        ("/secret.xml", Answer::redirect("https://me:secret@localhost/good.xml"), "name or password"),
        ("/endless.xml", Answer::Endless, "more than the 1048576 bytes"),
        (
            "/large.xml",
            Answer::Says(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BYTES_MAX + 1)),
            "more than the 1048576 bytes",
        ),
        ("/slow.xml", Answer::Slow, "has not sent it within 6 s"),
        ("/cut.xml", Answer::Says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<x/>".to_owned()), "cut off"),
        ("/noise.xml", Answer::Says("SSH-2.0-OpenSSH_9.2\r\n".to_owned()), "no HTTP"),
        ("/head.xml", Answer::Says(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1_000_000))), "no HTTP"),
        (
            "/page.xml",
            Answer::Says(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 13\r\n\r\n<html></html>"
                    .to_owned(),
            ),
            "has sent a web page",
        ),
        ("/wrong.xml", file("<data-stream-collection>", "\"1\""), "wrong.xml: "),
        ("/torn.xml.xz", Answer::File(b"\xfd7zXZ\0\0".to_vec(), None), "the xz compression is damaged"),
        ("/missing.xml", Answer::status("404 Not Found"), "the server answers 404"),
    ];
    let mut expected = Vec::new();
    for (path, answer, words) in answers {
        server.put(path, answer);
        expected.push((path.trim_start_matches('/').to_owned(), server.url(path), Some(&server.ca), words));
    }
    let silent = format!("https://{}/a.xml", mute.local_addr().unwrap());
    for (name, url, ca, words) in [
        ("trusted", server.url("/good.xml"), None, "is of nobody who is trusted here; `--ca FILE`"),
        ("other-ca", server.url("/good.xml"), Some(&elsewhere.ca), "is of nobody who is trusted here"),
        ("other-name", elsewhere.url("/a.xml"), Some(&elsewhere.ca), "is for another name"),
        ("mute", silent, None, "takes no connection within 3 s"),
        ("gone", gone.url("/a.xml"), Some(&gone.ca), "cannot be reached"),
    ] {
        expected.push((name.to_owned(), url, ca, words));
    }
    for (name, url, ca, _) in &expected {
        installation.told(add(name, url.clone(), ca.map(String::as_str), ONCE)).await.unwrap();
    }
    server.put("/good.xml", file(&text(), "\"1\""));
    // By name it comes last.
    installation.told(add("zz", server.url("/good.xml"), Some(&server.ca), ONCE)).await.unwrap();
    for (name, _, _, words) in &expected {
        problem(&installation, name, Some(words)).await;
        let problems = feed(&installation, name).await.problems;
        assert!(problems.len() == 1 && !problems[0].contains("secret@"), "{problems:?}");
    }
    eventually("the good one is taken", async || {
        policies(&installation).await.contains(&"good".to_owned()).then_some(())
    })
    .await;
    assert_eq!(policies(&installation).await, ["good", orchestrator::BASELINE]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_signed_is_not_taken_from_a_url_until_it_is_signed() {
    const PATH: &str = "/web-ds.xml";
    const SIGNATURE: &str = "/web-ds.xml.sig";
    let installation = installation(FeedLimits::default()).await;
    let server = HttpsServer::start(LOCAL).await;
    let [team, stranger] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let signer = SignerChange::Add { name: "team".to_owned(), key: public(&team) };
    installation.told(Ask::PolicySigner(signer)).await.unwrap();
    server.put(PATH, file(&text(), "\"1\""));
    installation.told(add("web", server.url(PATH), Some(&server.ca), OFTEN)).await.unwrap();
    problem(&installation, "web", Some("web-ds.xml: policies have to be signed")).await;
    for (answer, words) in [
        (Answer::status("500 Internal Server Error"), "its signature cannot be read: the server answers 500"),
        (Answer::Endless, "its signature cannot be read: it has more than the 65536 bytes"),
        (file(&signed(&stranger, &text()), "\"1\""), "not believed"),
        (file(&signed(&team, &of_version("2.0.0")), "\"1\""), "changed"),
        (file("<html></html>", "\"1\""), "ssh-keygen"),
    ] {
        server.put(SIGNATURE, answer);
        problem(&installation, "web", Some(words)).await;
    }
    assert!(installation.versions("web").await.is_empty());
    assert!(!server.asked(PATH).contains(&true), "what was not taken is loaded again");

    server.put(SIGNATURE, file(&signed(&team, &text()), "\"1\""));
    let known = eventually("it is taken", async || installation.versions("web").await.into_iter().next()).await;
    assert_eq!(known.signed_by.as_deref(), Some("team"));
    problem(&installation, "web", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_is_replaced_or_removed_while_its_server_is_slow_stays_so() {
    let limits = FeedLimits { look: Duration::from_secs(4), ..FeedLimits::default() };
    let installation = installation(limits).await;
    let server = HttpsServer::start(LOCAL).await;
    for path in ["/one.xml", "/two.xml"] {
        server.put(path, Answer::Slow);
    }
    server.put("/good.xml", file(&text(), "\"1\""));
    for (name, path) in [("removed", "/two.xml"), ("replaced", "/one.xml")] {
        installation.told(add(name, server.url(path), Some(&server.ca), ONCE)).await.unwrap();
        eventually("it is asked for", async || (!server.asked(path).is_empty()).then_some(())).await;
    }
    let remove = FeedChange::Remove { name: "removed".to_owned() };
    installation.told(Ask::PolicyFeed(remove)).await.unwrap();
    installation.told(add("replaced", server.url("/good.xml"), Some(&server.ca), ONCE)).await.unwrap();
    // That is when the look at what it was has ended; that of the other began before, and so has ended, too.
    eventually("what has replaced it is looked at", async || {
        feed(&installation, "replaced").await.looked.is_some().then_some(())
    })
    .await;
    let [left] = feeds(&installation).await.try_into().unwrap();
    let url = server.url("/good.xml");
    assert_eq!((left.source.to_string(), left.problems), (url, Vec::new()));
    assert_eq!(policies(&installation).await, ["good", orchestrator::BASELINE]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_cannot_be_followed_is_refused_at_once() {
    let installation = Installation::orchestrator().await;
    let large = "x".repeat(40_000);
    for (url, ca, every, words) in [
        ("http://example.org/a.xml", None, OFTEN, "`http:` is not followed, only `https:` is"),
        ("file:///srv/a.xml", None, OFTEN, "`file:` is not followed"),
        ("https://me:secret@example.org/a.xml", None, OFTEN, "name or password"),
        ("https://example.org/", None, OFTEN, "does not end like a data stream's"),
        ("https://example.org/a.zip", None, OFTEN, "does not end like a data stream's"),
        ("https://[::1/a.xml", None, OFTEN, "it is no URL"),
        ("https://example.org/a.xml", Some("no PEM"), OFTEN, "no certificate in it"),
        ("https://example.org/a.xml", Some(large.as_str()), OFTEN, "more than 32 KiB"),
        ("https://example.org/a.xml", None, 1, "every 5 s"),
    ] {
        let said = installation.told(add("web", url.to_owned(), ca, every)).await.unwrap_err();
        assert!(said.contains(words) && !said.contains("secret"), "{url}: {said}");
    }
    assert!(feeds(&installation).await.is_empty());
}
