//! The bus over its in-memory twin: what is sealed is opened, what is durable arrives, what is forged or
//! comes twice has no effect.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::memory::MemoryBroker;
use bus::outbox::Outbox;
use bus::{Authentic, Bus, BusSettings, Context, Event, Incoming, Quality, RequestError, Transport, Trust};
use proto::capability::ComponentType;
use proto::envelope::{ENVELOPE_VERSION, Envelope};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId, MessageId, RequestId, TransactionId};
use proto::message::{
    Ack, CollectedPart, CollectionResults, ContentRequest, ContentResponse, HealthCheckAction, HealthCheckRequest,
    Message as _, Phase, StatusNotification,
};
use proto::observation::{EndpointFacts, Flag, Item, ItemEntity, Method};
use proto::plan::ObjectKey;
use proto::seal::{Sealed, Sealer};
use proto::topic::{Holder, Principal, Topic};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(10);
/// How a message goes that a test sends by itself.
const QOS: Quality = Quality::AtLeastOnce;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, Uuid::new_v4().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn settings(&self, own: ComponentId, component_type: ComponentType, trust: &Self) -> BusSettings {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, own.to_string());
        params.distinguished_name.push(DnType::OrganizationalUnitName, component_type.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        BusSettings {
            own,
            sealer: Sealer::with_certificate(key.serialized_der(), &[certificate.der()]).unwrap(),
            trust: Trust::new(vec![trust.der.clone()]),
            outbox: Outbox::in_memory(),
            payload_bytes_max: proto::limits::PAYLOAD_BYTES_MAX,
        }
    }

    fn join(&self, broker: &MemoryBroker, component_type: ComponentType) -> (Bus, mpsc::Receiver<Event>) {
        self.join_over(broker, component_type, |transport| transport)
    }

    /// Joins by a transport that is made of the broker's.
    fn join_over(
        &self,
        broker: &MemoryBroker,
        component_type: ComponentType,
        over: impl FnOnce(Box<dyn Transport>) -> Box<dyn Transport>,
    ) -> (Bus, mpsc::Receiver<Event>) {
        let own = ComponentId(Uuid::new_v4());
        let (transport, incoming) = broker.connect(Principal { id: own, holder: Holder::Component(component_type) });
        let transport = over(transport);
        let (bus, events) = Bus::start(self.settings(own, component_type, self), transport, incoming);
        let mut filters = proto::topic::filters_of(component_type, own);
        for capability in proto::capability::Capability::ALL {
            filters.extend(proto::topic::filters_with(component_type, own, *capability));
        }
        bus.subscribe(filters);
        (bus, events)
    }
}

/// A transport that remembers how what it was given went.
struct Noting {
    inner: Box<dyn Transport>,
    sent: Arc<Mutex<Vec<Quality>>>,
}

impl Transport for Noting {
    fn publish(&self, topic: String, payload: Vec<u8>, quality: Quality) -> bool {
        self.sent.lock().unwrap().push(quality);
        self.inner.publish(topic, payload, quality)
    }

    fn room(&self) -> usize {
        self.inner.room()
    }

    fn subscribe(&self, filters: Vec<String>) {
        self.inner.subscribe(filters);
    }

    fn close(&self) {
        self.inner.close();
    }
}

async fn message(events: &mut mpsc::Receiver<Event>) -> Authentic {
    let next = async {
        loop {
            if let Some(Event::Message(message)) = events.recv().await {
                return *message;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap()
}

async fn all_is_acknowledged(bus: &Bus) {
    let acknowledged = async {
        while bus.unacknowledged_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, acknowledged).await.unwrap();
}

fn status(publisher: ComponentId) -> StatusNotification {
    StatusNotification {
        publisher,
        message: "done".to_owned(),
        code: "test.done".to_owned(),
        request: None,
        phase: Some(Phase::Completed),
        progress: None,
        fault: None,
    }
}

/// What a collector without a bus says.
fn envelope_of(own: ComponentId, kind: &str, body: Box<RawValue>) -> Envelope {
    Envelope {
        v: ENVELOPE_VERSION,
        id: MessageId(Uuid::now_v7()),
        kind: kind.to_owned(),
        from: own,
        to: None,
        sent: jiff::Timestamp::now(),
        expires: None,
        in_reply_to: None,
        transaction: TransactionId(Uuid::now_v7()),
        seq: 0,
        body,
    }
}

/// A status as it says it.
fn status_of(own: ComponentId, code: &str) -> Envelope {
    let status = StatusNotification { code: code.to_owned(), ..status(own) };
    envelope_of(own, StatusNotification::KIND, to_raw_value(&status).unwrap())
}

#[tokio::test]
async fn a_question_gets_its_answer_and_silence_a_timeout() {
    let (broker, ca) = (MemoryBroker::default(), Ca::new());
    let (evaluator, _events) = ca.join(&broker, ComponentType::PostureEvaluationService);
    let (repository, mut questions) = ca.join(&broker, ComponentType::RepositoryInterface);
    let ask =
        Topic::Directed { to: repository.own(), operation: ContentRequest::KIND.to_owned(), from: evaluator.own() };
    let question = ContentRequest { sha256: proto::content::ContentHash::of(b"x"), offset: 0 };
    let answering = async {
        let asked = message(&mut questions).await;
        let answer =
            ContentResponse { sha256: question.sha256.clone(), offset: 0, size_bytes: 0, chunk: String::new() };
        let back = Topic::Directed {
            to: evaluator.own(),
            operation: ContentResponse::KIND.to_owned(),
            from: repository.own(),
        };
        repository.send(&back, &answer, Context::answering(&asked)).unwrap();
    };
    let (answer, ()) =
        tokio::join!(evaluator.request::<_, ContentResponse>(&ask, &question, Context::alone(), PATIENCE), answering);
    assert_eq!(answer.unwrap().sha256, question.sha256);
    let silence: Result<ContentResponse, _> =
        evaluator.request(&ask, &question, Context::alone(), Duration::from_millis(50)).await;
    assert!(matches!(silence, Err(RequestError::Timeout(_))));
}

#[tokio::test]
async fn a_durable_message_waits_for_its_acknowledgement_and_has_one_effect() {
    let (broker, ca) = (MemoryBroker::default(), Ca::new());
    let (collector, _events) = ca.join(&broker, ComponentType::PostureCollectionService);
    let (orchestrator, mut events) = ca.join(&broker, ComponentType::Orchestrator);
    let own = collector.own();
    let sent = collector.send_durable(&Topic::Status(own), &status(own), Context::alone()).unwrap();
    let received = message(&mut events).await;
    assert_eq!(collector.unacknowledged_count(), 1);
    let mut settled = std::pin::pin!(collector.settled(sent));
    assert!(
        tokio::time::timeout(Duration::from_millis(50), settled.as_mut()).await.is_err(),
        "nobody has acknowledged it"
    );
    orchestrator.acknowledge(&received, Topic::Admin(own));
    tokio::time::timeout(PATIENCE, settled).await.unwrap();
    assert_eq!(collector.unacknowledged_count(), 0);
    collector.settled(sent).await;
}

#[tokio::test]
async fn nobody_says_on_the_way_of_an_acknowledgement_that_it_has_come() {
    let (broker, ca) = (MemoryBroker::default(), Ca::new());
    let sent = Arc::new(Mutex::new(Vec::new()));
    let noting = |inner| Box::new(Noting { inner, sent: Arc::clone(&sent) }) as Box<dyn Transport>;
    let (orchestrator, mut events) = ca.join_over(&broker, ComponentType::Orchestrator, noting);
    let own = ComponentId(Uuid::new_v4());
    let holder = Holder::Component(ComponentType::PostureCollectionService);
    let (collector, _incoming) = broker.connect(Principal { id: own, holder });
    let sealer = ca.settings(own, ComponentType::PostureCollectionService, &ca).sealer;
    let (topic, admin) = (Topic::Status(own).to_string(), Topic::Admin(own));
    let durable = sealer.seal(&status_of(own, "test.durable").to_bytes());
    assert!(collector.publish(topic.clone(), durable.clone(), QOS));
    let received = message(&mut events).await;
    // Of anything else it is said.
    let health = HealthCheckRequest { action: HealthCheckAction::Ping };
    orchestrator.send(&admin, &health, Context::alone()).unwrap();
    orchestrator.acknowledge(&received, admin.clone());
    // It comes again, and is acknowledged again.
    assert!(collector.publish(topic.clone(), durable, QOS));
    assert!(collector.publish(topic, sealer.seal(&status_of(own, "test.last").to_bytes()), QOS));
    message(&mut events).await;
    assert_eq!(*sent.lock().unwrap(), [Quality::AtLeastOnce, Quality::AtMostOnce, Quality::AtMostOnce]);
}

#[tokio::test]
async fn what_another_ca_signed_or_another_sender_claims_is_refused_and_counted() {
    let (broker, ca, stranger) = (MemoryBroker::default(), Ca::new(), Ca::new());
    let (orchestrator, mut events) = ca.join(&broker, ComponentType::Orchestrator);
    // The right place on the bus, the wrong CA.
    let own = ComponentId(Uuid::new_v4());
    let holder = Holder::Component(ComponentType::PostureCollectionService);
    let (transport, incoming) = broker.connect(Principal { id: own, holder });
    let settings = stranger.settings(own, ComponentType::PostureCollectionService, &ca);
    let (forger, _events) = Bus::start(settings, transport, incoming);
    forger.send(&Topic::Status(own), &status(own), Context::alone()).unwrap();
    // A certificate of its own, on the topic of another (the broker was careless).
    let (honest, _events) = ca.join(&broker, ComponentType::PostureCollectionService);
    let liar = ComponentId(Uuid::new_v4());
    let (transport, incoming) = broker.connect(Principal { id: honest.own(), holder });
    let (liar_bus, _events) =
        Bus::start(ca.settings(liar, ComponentType::PostureCollectionService, &ca), transport, incoming);
    liar_bus.send(&Topic::Status(honest.own()), &status(honest.own()), Context::alone()).unwrap();
    // An honest message after both, so that both have been looked at.
    let (after, _events) = ca.join(&broker, ComponentType::PostureCollectionService);
    let context = Context::of(TransactionId(Uuid::new_v4()));
    after.send(&Topic::Status(after.own()), &status(after.own()), context).unwrap();
    assert_eq!(message(&mut events).await.envelope().from, after.own());
    assert_eq!(orchestrator.refused(), [(FaultCode::NotAuthorized, 2)]);
}

#[tokio::test]
async fn a_fault_ends_what_it_answers_and_is_never_answered() {
    let (broker, ca) = (MemoryBroker::default(), Ca::new());
    let (collector, mut events) = ca.join(&broker, ComponentType::PostureCollectionService);
    let (orchestrator, _events) = ca.join(&broker, ComponentType::Orchestrator);
    let fault = Fault::new(FaultCode::Malformed, "no");
    orchestrator.send(&Topic::Admin(collector.own()), &fault, Context::alone()).unwrap();
    let after = HealthCheckRequest { action: HealthCheckAction::Ping };
    orchestrator.send(&Topic::Admin(collector.own()), &after, Context::alone()).unwrap();
    // The component never sees the fault, and so cannot refuse it.
    assert_eq!(message(&mut events).await.envelope().kind, HealthCheckRequest::KIND);
}

#[tokio::test]
async fn a_message_that_was_recorded_and_is_sent_again_has_no_effect() {
    let (broker, ca) = (MemoryBroker::default(), Ca::new());
    let (orchestrator, mut heard) = ca.join(&broker, ComponentType::Orchestrator);
    let own = ComponentId(Uuid::new_v4());
    let holder = Holder::Component(ComponentType::PostureCollectionService);
    let (transport, _incoming) = broker.connect(Principal { id: own, holder });
    let sealer = ca.settings(own, ComponentType::PostureCollectionService, &ca).sealer;
    let topic = Topic::Status(own).to_string();
    let recorded = sealer.seal(&status_of(own, "test.recorded").to_bytes());
    for payload in [recorded.clone(), recorded.clone(), recorded, sealer.seal(&status_of(own, "test.last").to_bytes())]
    {
        assert!(transport.publish(topic.clone(), payload, QOS));
    }
    let mut codes = Vec::new();
    while codes.last().is_none_or(|code| code != "test.last") {
        codes.push(message(&mut heard).await.envelope().decode::<StatusNotification>().unwrap().code);
    }
    assert_eq!(codes, ["test.recorded", "test.last"]);
    assert_eq!(orchestrator.refused(), [(FaultCode::Replayed, 2)]);
}

/// Results that are long enough to be packed.
fn results(count: usize) -> CollectionResults {
    let item =
        |number: usize| Item::new("unix:file", vec![ItemEntity::text("filepath", format!("/etc/file-{number}"))]);
    let collected = |number: u32| CollectedPart {
        object: ObjectKey(format!("{:064x}", u64::from(number) * 7_919)),
        flag: Flag::Complete,
        items: vec![number],
        messages: Vec::new(),
        collected: jiff::Timestamp::now(),
    };
    CollectionResults {
        request: RequestId(Uuid::new_v4()),
        standing: None,
        task: None,
        plan: proto::content::ContentHash::of(b"plan"),
        endpoint: EndpointId(Uuid::new_v4()),
        facts: EndpointFacts::default(),
        method: Method::SelfReported,
        part: 0,
        is_final: true,
        stream: None,
        items: (0..count).map(item).collect(),
        objects: (0..u32::try_from(count).unwrap()).map(collected).collect(),
    }
}

#[tokio::test]
async fn long_results_travel_packed_and_arrive_as_they_were_sealed() {
    let (broker, ca) = (MemoryBroker::default(), Ca::new());
    let (collector, _events) = ca.join(&broker, ComponentType::PostureCollectionService);
    let (repository, mut heard) = ca.join(&broker, ComponentType::RepositoryInterface);
    let topic = Topic::CollectionResults(collector.own());
    // Whoever listens to the bus as another repository sees what travels.
    let own = ComponentId(Uuid::new_v4());
    let holder = Holder::Component(ComponentType::RepositoryInterface);
    let (transport, mut passing) = broker.connect(Principal { id: own, holder });
    let storing = proto::capability::Capability::StoreCollectionResults;
    transport.subscribe(proto::topic::filters_with(ComponentType::RepositoryInterface, own, storing));
    let mut before = Vec::new();
    for (count, is_packed) in [(1, false), (200, true)] {
        let sent = results(count);
        collector.send_durable(&topic, &sent, Context::alone()).unwrap();
        let received = message(&mut heard).await;
        assert_eq!(received.envelope().decode::<CollectionResults>().unwrap().request, sent.request);
        // A new session says once more what nobody has acknowledged.
        let payload = loop {
            let next = tokio::time::timeout(PATIENCE, passing.recv()).await.unwrap();
            if let Some(Incoming::Message { payload, .. }) = next
                && payload != before
            {
                break payload;
            }
        };
        assert_eq!(payload.starts_with(&[0x1f, 0x8b]), is_packed);
        assert_eq!(received.packed().is_some(), is_packed);
        before.clone_from(&payload);
        // The whole of it, so that its signature can be checked later.
        let sealed = Sealed::split(received.sealed()).unwrap();
        assert_eq!(proto::content::ContentHash::of(sealed.envelope), *received.hash());
        if is_packed {
            assert!(payload.len() * 2 < received.sealed().len());
            let mut inside = Vec::new();
            flate2::read::DeflateDecoder::new(received.packed().unwrap()).read_to_end(&mut inside).unwrap();
            assert_eq!(inside, received.sealed());
        }
        repository.acknowledge(
            &received,
            Topic::Directed { to: collector.own(), operation: Ack::KIND.to_owned(), from: repository.own() },
        );
    }
    all_is_acknowledged(&collector).await;
}

#[tokio::test]
async fn what_must_not_travel_packed_and_what_is_a_bomb_is_refused() {
    let (broker, ca) = (MemoryBroker::default(), Ca::new());
    let (orchestrator, mut heard) = ca.join(&broker, ComponentType::Orchestrator);
    let (repository, mut results_heard) = ca.join(&broker, ComponentType::RepositoryInterface);
    let own = ComponentId(Uuid::new_v4());
    let holder = Holder::Component(ComponentType::PostureCollectionService);
    let (transport, _incoming) = broker.connect(Principal { id: own, holder });
    let sealer = ca.settings(own, ComponentType::PostureCollectionService, &ca).sealer;
    let sealed = |kind: &str, body| sealer.seal(&envelope_of(own, kind, body).to_bytes());
    let packed = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let of_status = || to_raw_value(&status(own)).unwrap();
    let status_topic = Topic::Status(own).to_string();
    assert!(transport.publish(status_topic.clone(), packed(&sealed(StatusNotification::KIND, of_status())), QOS));
    assert!(transport.publish(status_topic, sealed(StatusNotification::KIND, of_status()), QOS));
    message(&mut heard).await;
    assert_eq!(orchestrator.refused(), [(FaultCode::Malformed, 1)]);

    let results_topic = Topic::CollectionResults(own).to_string();
    let of_results = || to_raw_value(&results(100)).unwrap();
    // Sealed as it should be, and blown up by blanks that JSON allows.
    let blown = sealed(CollectionResults::KIND, of_results());
    let blown = [blown.as_slice(), " ".repeat(900_000).as_bytes()].concat();
    for payload in [packed(&blown), vec![0x1f, 0x8b], packed(&vec![0; 1_000_000])] {
        assert!(transport.publish(results_topic.clone(), payload, QOS));
    }
    assert!(transport.publish(results_topic, packed(&sealed(CollectionResults::KIND, of_results())), QOS));
    assert_eq!(message(&mut results_heard).await.envelope().from, own);
    assert_eq!(repository.refused(), [(FaultCode::Malformed, 1), (FaultCode::TooLarge, 2)]);
}
