//! The isolation matrix on the real Mosquitto, as `muster broker config` sets it up, and the command itself. Where
//! Mosquitto is not installed, the tests say so and count as skipped; CI installs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use proto::capability::ComponentType;
use proto::operator::{Ask, OperatorEvent};
use proto::topic::Topic;
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use service::audit::{Entry, Line};
use system_tests::isolation::{self, Site};
use system_tests::mosquitto::broker_config;
use system_tests::mqtt::{Client, enrolled, options};
use system_tests::{Installation, eventually};

/// Runs a check of the matrix where Mosquitto is installed.
macro_rules! on_mosquitto {
    ($($check:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            if let Some(site) = Site::mosquitto().await {
                isolation::$check(&site).await;
            }
        }
    )*};
}

system_tests::isolation_matrix!(on_mosquitto);

/// A client that takes any server of the CA with the right name, and shows a certificate or none.
fn any_client(ca_der: &[u8], shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>) -> Transport {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca_der.to_vec())).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config)))
}

/// What a directory from `muster broker config` shows to clients.
fn shown_by(directory: &Path) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(directory.join("certificate.pem")).unwrap().map(Result::unwrap).collect();
    (chain, PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_in_without_a_certificate_or_with_the_brokers_own() {
    let Some(site) = Site::mosquitto().await else { return };
    let own = site.a.component.to_string();
    let connect = async |transport| {
        let mut options = options(&site.a, &own);
        options.set_transport(transport);
        Client::connect(options).await.map(|_| ())
    };
    // The server's name is right, and a component's certificate does: so it is the certificate that is missing below.
    let key = PrivateKeyDer::try_from(site.a.key_pkcs8.clone()).unwrap();
    let chain = vec![CertificateDer::from(site.a.certificate_der.clone())];
    connect(any_client(&site.a.ca_der, Some((chain, key)))).await.unwrap();
    assert!(connect(any_client(&site.a.ca_der, None)).await.is_err());
    let directory = &site.mosquitto.as_ref().unwrap().directory;
    assert!(connect(any_client(&site.a.ca_der, Some(shown_by(directory)))).await.is_err());
    // Who joins does not even try: this is no orchestrator.
    let joining = bus::tls::joining(&[bus::tls::fingerprint(&site.a.ca_der)]).unwrap();
    let told = connect(Transport::tls_with_config(TlsConfiguration::Rustls(joining))).await.unwrap_err();
    assert!(told.contains("certificate"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_broker_does_not_let_another_broker_in() {
    let installation = Installation::orchestrator().await;
    let a = enrolled(&installation, ComponentType::PostureCollectionService, "a").await;
    let out = installation.data.path().join("broker");
    assert!(broker_config(&installation, &out, &["--for", "emqx"]).status.success());
    let (chain, key) = shown_by(&out);
    let log = log_of(&installation).await;
    let id = &log.iter().find(|entry| entry.act == "sign-broker-certificate").unwrap().subject;
    let tls = bus::tls::member(&a.cas, chain[0].to_vec(), key.secret_der().to_vec()).unwrap();
    let mut options = options(&a, id);
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    let told = Client::connect(options).await.unwrap_err();
    assert!(told.contains("fatal alert"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_lets_a_new_service_speak_and_takes_everything_from_who_was_put_out() {
    let Some(site) = Site::mosquitto().await else { return };
    let mosquitto = site.mosquitto.as_ref().unwrap();
    let late = enrolled(&site.installation, ComponentType::PostureEvaluationService, "late").await;
    let late = mosquitto.reach(late);
    let [mut late_client, mut b, mut repository] = [
        Client::of(&late).await.unwrap(),
        Client::of(&site.b).await.unwrap(),
        Client::of(&site.repository).await.unwrap(),
    ];
    let inbox = |id| format!("/{id}/+/+");
    repository.subscribe(&[&inbox(site.repository.component)]).await.unwrap();
    b.subscribe(&[&inbox(site.b.component)]).await.unwrap();
    let query =
        Topic::Directed { to: site.repository.component, operation: "query-request".to_owned(), from: late.component };
    let status = Topic::Status(site.b.component).to_string();
    let ack = Topic::Directed { to: site.b.component, operation: "ack".to_owned(), from: site.repository.component }
        .to_string();
    assert!(b.is_taken(&status, "before").await && repository.is_taken(&ack, "before").await);
    assert!(!late_client.is_taken(&query.to_string(), "too early").await);
    let dismiss = Ask::Dismiss { component: site.b.component, is_ban: false, reason: String::new() };
    let told = site.installation.ask(dismiss).await;
    assert!(matches!(told.last(), Some(OperatorEvent::Done)), "{told:?}");
    // Nobody has told the broker yet.
    assert!(b.is_taken(&status, "still there").await);
    mosquitto.reload(&site.installation);
    eventually("a live session has lost its rights", async || (!b.is_taken(&status, "after").await).then_some(()))
        .await;
    eventually("a new evaluator may ask", async || late_client.is_taken(&query.to_string(), "now").await.then_some(()))
        .await;
    assert!(repository.is_taken(&ack, "after").await);
    let heard = [(query.to_string(), "now".to_owned())].into();
    assert_eq!(*repository.heard(&heard).await, heard);
    // The answer to a subscription comes after whatever was on its way.
    b.subscribe(&[&status]).await.unwrap();
    assert_eq!(*b.heard(&[(ack.clone(), "before".to_owned())].into()).await, [(ack, "before".to_owned())].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_keeps_the_key_to_itself_and_what_it_had_signed_is_in_the_log() {
    let installation = Installation::orchestrator().await;
    installation.scripted(ComponentType::PostureEvaluationService, "judge").await;
    let out = installation.data.path().join("broker");
    let output = broker_config(&installation, &out, &["--for", "emqx", "--host", "mqtt.example", "-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let files: Vec<&str> = told["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    assert_eq!(files, ["ca.pem", "certificate.pem", "key.pem", "acl.conf", "emqx.conf"]);
    for file in files {
        let mode = std::fs::metadata(out.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let key = std::fs::read(out.join("key.pem")).unwrap();
    let log = log_of(&installation).await;
    let signed: Vec<&Entry> = log.iter().filter(|entry| entry.act == "sign-broker-certificate").collect();
    assert!(matches!(signed.as_slice(), [entry] if entry.detail == "mqtt.example"), "{signed:?}");
    // Once more: another certificate for the same key.
    assert!(broker_config(&installation, &out, &["--for", "emqx"]).status.success());
    assert_eq!(std::fs::read(out.join("key.pem")).unwrap(), key);
    // The broker's user has the directory: it has to read what root writes there.
    if rustix::process::geteuid().is_root() {
        chown(&out, Some(65_534), Some(65_534)).unwrap();
        assert!(broker_config(&installation, &out, &["--for", "emqx"]).status.success());
        for file in ["key.pem", "certificate.pem", "acl.conf"] {
            assert_eq!(std::fs::metadata(out.join(file)).unwrap().uid(), 65_534, "{file}");
        }
    }
    let acl = std::fs::read_to_string(out.join("acl.conf")).unwrap();
    let orchestrator = installation.handle.status().await.orchestrator.to_string();
    assert!(acl.contains(&orchestrator) && acl.ends_with("{deny, all}.\n"), "{acl}");
}

async fn log_of(installation: &Installation) -> Vec<Entry> {
    let events = installation.ask(Ask::Audit).await;
    let lines =
        events.into_iter().filter_map(|event| if let OperatorEvent::Audit(lines) = event { Some(lines) } else { None });
    lines
        .flatten()
        .filter_map(|line| match serde_json::from_str(&line).unwrap() {
            Line::Entry(text) => Some(serde_json::from_str(&text).unwrap()),
            _ => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_command_cannot_do_it_says_and_overwrites_nothing() {
    let installation = Installation::orchestrator().await;
    let data = installation.data.path();
    let check = |out: &Path, words: &[&str], expect: &str, code: i32| {
        let output = broker_config(&installation, out, words);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && told.contains(expect), "{:?}: {told}", output.status);
    };
    let full = data.join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("diary.txt"), "mine").unwrap();
    check(&full, &["--for", "mosquitto"], "other things in it (diary.txt)", 1);
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);
    check(&full.join("diary.txt"), &["--for", "mosquitto"], "cannot be written", 1);
    // What was written for one broker is not mixed with another's.
    let out = data.join("broker");
    check(&out, &["--for", "emqx"], "certificate ends", 0);
    check(&out, &["--for", "mosquitto"], "other things in it", 1);
    // Who has the directory does not get another key by way of a link.
    let key = data.join("orchestrator/identity/key.pem");
    let own = std::fs::read(&key).unwrap();
    let linked = data.join("linked");
    std::fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink(&key, linked.join("key.pem")).unwrap();
    check(&linked, &["--for", "mosquitto"], "a symbolic link in it (key.pem)", 1);
    assert!(std::fs::symlink_metadata(linked.join("key.pem")).unwrap().is_symlink());
    assert_eq!(std::fs::read(&key).unwrap(), own);
    check(&data.join("names"), &["--for", "emqx", "--host", "mqtt.example:8883"], "neither a host name nor", 1);
    check(&data.join("quoted\""), &["--for", "emqx"], "characters", 1);
    check(&data.join("port"), &["--for", "emqx", "--listen", "8883"], "--listen", 64);
    check(&data.join("hive"), &["--for", "hivemq"], "mosquitto", 64);
    check(&data.join("silent"), &["--for", "emqx", "-o", "csv"], "json", 1);
    assert!(["port", "hive", "silent", "quoted\""].iter().all(|name| !data.join(name).exists()));
}
