//! A collector under a scripted orchestrator, over the in-memory bus: what it refuses, and its schedules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bus::memory::MemoryBroker;
use bus::outbox::Outbox;
use bus::{Authentic, Bus, BusSettings, Context, Event, Trust};
use jiff::Timestamp;
use orchestrator::ca::Ca;
use proto::budget::Budget;
use proto::capability::{Capability, ComponentType};
use proto::content::ContentRef;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId, RequestId};
use proto::message::{
    AssignedEndpoint, CapabilityAdvertisement, CapabilityAdvertisementResponse, CapabilityAnswer, CollectionRequest,
    CollectionResults, ContentRequest, ContentResponse, HealthCheckAction, HealthCheckRequest, HealthCheckResponse,
    Message, PeriodicCollection, PeriodicCollectionResponse, PeriodicOperation, Phase, Priority, RegistrationStatus,
    StatusNotification, Success,
};
use proto::plan::CollectionPlan;
use proto::schedule::Schedule;
use proto::seal::Sealer;
use proto::topic::{self, Holder, Principal, Topic};
use service::identity;
use service::member::{self, MemberSettings};
use service::shutdown;
use system_tests::PATIENCE;
use tokio::sync::mpsc;
use uuid::Uuid;

struct Script {
    bus: Bus,
    events: mpsc::Receiver<Event>,
    collector: ComponentId,
    plan: Vec<u8>,
    /// What the collector reports comes here; nobody answers unless the test does.
    repository: Option<(Bus, mpsc::Receiver<Event>)>,
    _directory: tempfile::TempDir,
    /// Handshakes that are still put off.
    put_off: usize,
}

fn settings(ca: &Ca, own: ComponentId, component_type: ComponentType) -> BusSettings {
    let directory = tempfile::tempdir().unwrap();
    let key = identity::key(directory.path()).unwrap();
    let request = identity::signing_request(&key).unwrap();
    let (pem, _) = ca.issue(&request, own, component_type, Timestamp::now()).unwrap();
    let der = identity::certificate_der(&pem).unwrap();
    BusSettings {
        own,
        sealer: Sealer::with_certificate(key.serialized_der(), &[&der]).unwrap(),
        trust: Trust::new(ca.ders()),
        outbox: Outbox::in_memory(),
        payload_bytes_max: proto::limits::PAYLOAD_BYTES_MAX,
    }
}

fn filters(component_type: ComponentType, own: ComponentId) -> Vec<String> {
    let mut filters = topic::filters_of(component_type, own);
    for capability in Capability::ALL {
        filters.extend(topic::filters_with(component_type, own, *capability));
    }
    filters
}

impl Script {
    /// A real collector of an empty root, and an orchestrator that the test plays.
    async fn start() -> Self {
        Self::start_after(0).await
    }

    /// The same, whose handshake is put off so often, a second each time.
    async fn start_after(put_off: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = Ca::open(&directory.path().join("ca"), 3_600, Timestamp::now()).unwrap();
        let broker = MemoryBroker::default();
        let connect = |component_type| {
            let own = ComponentId(Uuid::new_v4());
            let (transport, incoming) =
                broker.connect(Principal { id: own, holder: Holder::Component(component_type) });
            (own, transport, incoming)
        };
        let (own, transport, incoming) = connect(ComponentType::Orchestrator);
        let (bus, events) = Bus::start(settings(&ca, own, ComponentType::Orchestrator), transport, incoming);
        bus.subscribe(filters(ComponentType::Orchestrator, own));
        let (own, transport, incoming) = connect(ComponentType::RepositoryInterface);
        let repository = Bus::start(settings(&ca, own, ComponentType::RepositoryInterface), transport, incoming);
        repository.0.subscribe(filters(ComponentType::RepositoryInterface, own));
        let (collector, transport, incoming) = connect(ComponentType::PostureCollectionService);
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let data = directory.path().join("collector");
        service::data::make(&data).unwrap();
        let member_settings = MemberSettings {
            component_type: ComponentType::PostureCollectionService,
            name: "collector".to_owned(),
            data: data.clone(),
            join_token: None,
            broker: None,
            endpoints: Vec::new(),
            tpm: None,
            tied: &[],
            store: None,
        };
        let bus_settings = settings(&ca, collector, ComponentType::PostureCollectionService);
        let member = member::run(bus_settings, transport, incoming, member_settings, 3600);
        let agent = pcs_agent::Settings {
            data,
            join_token: None,
            broker: None,
            name: None,
            root,
            tpm: None,
            budget: Budget::default().into(),
            scripts: None,
        };
        let (keep, stop) = shutdown::channel();
        tokio::spawn(async move {
            let _keep = keep;
            pcs_agent::serve(member, &agent, stop).await.unwrap();
        });
        let plan = scap::policy::deflate(&CollectionPlan { version: 1, ..CollectionPlan::default() }.to_bytes());
        let mut script =
            Self { bus, events, collector, plan, put_off, repository: Some(repository), _directory: directory };
        for _ in 0..=put_off {
            script.until(|message| message.envelope().kind == CapabilityAdvertisement::KIND).await;
        }
        script
    }

    fn tell<M: Message>(&self, message: &M, context: Context) {
        self.bus.send(&Topic::Admin(self.collector), message, context).unwrap();
    }

    /// The next message of which something holds; on the way, the handshake and content are answered.
    async fn until(&mut self, is_wanted: impl Fn(&Authentic) -> bool) -> Authentic {
        let next = async {
            loop {
                let Some(Event::Message(message)) = self.events.recv().await else { continue };
                match message.envelope().kind.as_str() {
                    CapabilityAdvertisement::KIND if self.put_off > 0 => {
                        self.put_off -= 1;
                        let busy = Fault::new(FaultCode::Busy, "others come first").after(1);
                        self.tell(&busy, Context::answering(&message));
                    }
                    CapabilityAdvertisement::KIND => self.tell(
                        &CapabilityAdvertisementResponse {
                            capabilities: vec![CapabilityAnswer {
                                capability_urn: Capability::CollectOval.urn(),
                                registration_status: RegistrationStatus::Success,
                                capability_topics: vec![],
                                messages: vec![],
                            }],
                            endpoints: vec![AssignedEndpoint {
                                local_name: pcs_agent::SELF.to_owned(),
                                endpoint: EndpointId(Uuid::new_v4()),
                            }],
                            repositories: vec![],
                            ..CapabilityAdvertisementResponse::default()
                        },
                        Context::answering(&message),
                    ),
                    ContentRequest::KIND => {
                        let asked: ContentRequest = message.envelope().decode().unwrap();
                        let chunk: ContentResponse = service::content::chunk_of(&self.plan, &asked);
                        self.tell(&chunk, Context::answering(&message));
                    }
                    StatusNotification::KIND => self.bus.acknowledge(&message, Topic::Admin(self.collector)),
                    _ => {}
                }
                if is_wanted(&message) {
                    return *message;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.unwrap()
    }

    async fn status(&mut self, is_wanted: impl Fn(&StatusNotification) -> bool) -> StatusNotification {
        let message = self
            .until(|message| message.envelope().decode::<StatusNotification>().is_ok_and(|status| is_wanted(&status)))
            .await;
        message.envelope().decode().unwrap()
    }

    fn request(&self) -> CollectionRequest {
        CollectionRequest {
            request: RequestId(Uuid::now_v7()),
            plan: ContentRef::to(&self.plan),
            targets: Vec::new(),
            objects: Vec::new(),
            deadline: Timestamp::now() + jiff::SignedDuration::from_mins(5),
            budget: Budget::default(),
            priority: Priority::default(),
        }
    }

    fn periodic(&self, operation: PeriodicOperation, every_seconds: u64, at_once: bool) -> PeriodicCollection {
        PeriodicCollection {
            collection_identifier: "daily".to_owned(),
            operation,
            collection_schedule: Some(Schedule::every(every_seconds)),
            collect_upon_acknowledgement: at_once,
            collection_instructions: Some(CollectionRequest {
                request: RequestId(Uuid::nil()),
                deadline: Timestamp::MAX,
                ..self.request()
            }),
        }
    }

    async fn periodic_answer(&mut self, request: &PeriodicCollection) -> PeriodicCollectionResponse {
        self.tell(request, Context::alone());
        let message = self.until(|message| message.envelope().kind == PeriodicCollectionResponse::KIND).await;
        message.envelope().decode().unwrap()
    }
}

#[tokio::test]
async fn an_expired_or_misdirected_request_is_rejected_with_its_reason() {
    let mut script = Script::start().await;
    let past = CollectionRequest { deadline: Timestamp::UNIX_EPOCH, ..script.request() };
    let elsewhere = CollectionRequest { targets: vec![EndpointId(Uuid::new_v4())], ..script.request() };
    for (request, code) in [(past, FaultCode::Expired), (elsewhere, FaultCode::TargetUnknown)] {
        script.tell(&request, Context::alone());
        let status = script.status(|status| status.request == Some(request.request)).await;
        assert_eq!((status.phase, status.fault.unwrap().code), (Some(Phase::Rejected), code));
    }
}

#[tokio::test]
async fn a_report_that_is_refused_for_good_is_no_completed_task() {
    let mut script = Script::start().await;
    let (repository, mut reports) = script.repository.take().unwrap();
    for is_refused in [true, false] {
        let request = script.request();
        script.tell(&request, Context::alone());
        let reported = async {
            loop {
                match reports.recv().await.unwrap() {
                    Event::Message(message) if message.envelope().kind == CollectionResults::KIND => return message,
                    _ => {}
                }
            }
        };
        // The orchestrator goes on answering what the collector asks of it.
        let report = tokio::select! {
            report = reported => report,
            _ = script.until(|_| false) => panic!("no report came"),
        };
        let topic = Topic::Directed { to: script.collector, operation: "ack".to_owned(), from: repository.own() };
        if is_refused {
            let fault = Fault::new(FaultCode::NotAuthorized, "not for this one");
            repository.send(&topic, &fault, Context::answering(&report)).unwrap();
        } else {
            repository.acknowledge(&report, topic);
        }
        let is_end = |status: &StatusNotification| status.phase.is_some_and(Phase::is_terminal);
        let status = script.status(|status| status.request == Some(request.request) && is_end(status)).await;
        let wanted = if is_refused { Phase::Failed } else { Phase::Completed };
        assert_eq!(status.phase, Some(wanted), "{status:?}");
    }
}

#[tokio::test]
async fn instructions_that_are_none_are_reported_and_the_collector_lives() {
    let mut script = Script::start().await;
    // The plan has the right hash, and is no plan: shell text is data like any other.
    script.plan = b"; touch /tmp/owned #".to_vec();
    let request = script.request();
    script.tell(&request, Context::alone());
    let status = script
        .status(|status| status.request == Some(request.request) && status.phase.is_some_and(Phase::is_terminal))
        .await;
    assert_eq!((status.phase, status.fault.unwrap().code), (Some(Phase::Failed), FaultCode::ContentInvalid));
    // A message that is not for a collector is refused on the status topic.
    script.tell(&HealthCheckResponse { response: Success::Success }, Context::alone());
    let status = script.status(|status| status.code == "collect.refused").await;
    assert_eq!(status.fault.unwrap().code, FaultCode::Malformed);
    script.tell(&HealthCheckRequest { action: HealthCheckAction::Ping }, Context::alone());
    script.until(|message| message.envelope().kind == HealthCheckResponse::KIND).await;
}

#[tokio::test]
async fn schedules_refuse_doubles_take_redeliveries_and_run() {
    let mut script = Script::start().await;
    let schedule = script.periodic(PeriodicOperation::Schedule, 3600, true);
    assert_eq!(script.periodic_answer(&schedule).await.fault, None);
    // At once, because the flag says so: a collection that nobody asked for by request.
    script.status(|status| status.phase == Some(Phase::Accepted)).await;
    assert_eq!(script.periodic_answer(&schedule).await.fault, None);
    let other = script.periodic(PeriodicOperation::Schedule, 60, false);
    assert_eq!(script.periodic_answer(&other).await.fault.unwrap().code, FaultCode::DuplicateIdentifier);
    let list = script.periodic(PeriodicOperation::List, 1, false);
    assert_eq!(script.periodic_answer(&list).await.schedules.len(), 1);
    let cancel = script.periodic(PeriodicOperation::Cancel, 1, false);
    assert_eq!(script.periodic_answer(&cancel).await.fault, None);
    assert!(script.periodic_answer(&list).await.schedules.is_empty());
}

#[tokio::test]
async fn a_handshake_that_is_put_off_comes_again_when_it_is_wanted() {
    let began = std::time::Instant::now();
    let mut script = Script::start_after(2).await;
    assert!(began.elapsed() >= std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    let past = CollectionRequest { deadline: Timestamp::UNIX_EPOCH, ..script.request() };
    script.tell(&past, Context::alone());
    script.status(|status| status.request == Some(past.request)).await;
}

/// The next report that a collector sends; the orchestrator goes on answering what it asks.
async fn report(script: &mut Script, reports: &mut mpsc::Receiver<Event>) -> Authentic {
    let reported = async {
        loop {
            match reports.recv().await.unwrap() {
                Event::Message(message) if message.envelope().kind == CollectionResults::KIND => return *message,
                _ => {}
            }
        }
    };
    tokio::select! {
        report = reported => report,
        _ = script.until(|_| false) => panic!("no report came"),
    }
}

#[tokio::test]
async fn a_report_that_is_put_off_comes_again_when_it_is_wanted() {
    let mut script = Script::start().await;
    let (repository, mut reports) = script.repository.take().unwrap();
    let request = script.request();
    script.tell(&request, Context::alone());
    let first = report(&mut script, &mut reports).await;
    let topic = Topic::Directed { to: script.collector, operation: "ack".to_owned(), from: repository.own() };
    let put_off = |report: &Authentic, seconds| {
        repository.forget(report);
        let busy = Fault::new(FaultCode::Busy, "too many reports wait").after(seconds);
        repository.send(&topic, &busy, Context::answering(report)).unwrap();
    };
    let began = std::time::Instant::now();
    put_off(&first, 2);
    let again = report(&mut script, &mut reports).await;
    assert_eq!(again.envelope().id, first.envelope().id);
    assert!(began.elapsed() >= std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    // Told to wait for ten minutes, and called in.
    let began = std::time::Instant::now();
    put_off(&again, 600);
    put_off(&again, 0);
    let called = report(&mut script, &mut reports).await;
    assert_eq!(called.envelope().id, first.envelope().id);
    assert!(began.elapsed() < std::time::Duration::from_mins(1), "{:?}", began.elapsed());
    repository.acknowledge(&called, topic);
    let is_end = |status: &StatusNotification| status.phase.is_some_and(Phase::is_terminal);
    let status = script.status(|status| status.request == Some(request.request) && is_end(status)).await;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
}

#[tokio::test]
async fn what_somebody_waits_for_goes_before_what_comes_by_itself() {
    let mut script = Script::start().await;
    let (repository, mut reports) = script.repository.take().unwrap();
    let scheduled = |script: &Script| CollectionRequest { priority: Priority::Scheduled, ..script.request() };
    let [first, later] = [scheduled(&script), scheduled(&script)];
    let awaited = script.request();
    script.tell(&first, Context::alone());
    let held = report(&mut script, &mut reports).await;
    // The first is at work until its report is acknowledged; the others wait in line by the time that this is answered.
    script.tell(&later, Context::alone());
    script.tell(&awaited, Context::alone());
    let list = script.periodic(PeriodicOperation::List, 1, false);
    script.periodic_answer(&list).await;
    let topic = Topic::Directed { to: script.collector, operation: "ack".to_owned(), from: repository.own() };
    repository.acknowledge(&held, topic.clone());
    let mut ended = Vec::new();
    while ended.len() < 3 {
        tokio::select! {
            event = reports.recv() => match event.unwrap() {
                Event::Message(message) if message.envelope().kind == CollectionResults::KIND => {
                    repository.acknowledge(&message, topic.clone());
                }
                _ => {}
            },
            status = script.status(|status| status.phase.is_some_and(Phase::is_terminal)) => {
                ended.push(status.request.unwrap());
            }
        }
    }
    assert_eq!(ended, [first.request, awaited.request, later.request]);
}

#[tokio::test]
async fn what_was_just_done_is_said_again_and_not_done_again() {
    let mut script = Script::start().await;
    let (repository, mut reports) = script.repository.take().unwrap();
    let request = script.request();
    let topic = Topic::Directed { to: script.collector, operation: "ack".to_owned(), from: repository.own() };
    let is_end = |status: &StatusNotification| status.phase.is_some_and(Phase::is_terminal);
    script.tell(&request, Context::alone());
    let reported = report(&mut script, &mut reports).await;
    repository.acknowledge(&reported, topic.clone());
    let first = script.status(|status| status.request == Some(request.request) && is_end(status)).await;
    script.tell(&request, Context::alone());
    let again = script.status(|status| status.request == Some(request.request)).await;
    assert_eq!((again.phase, &again), (Some(Phase::Completed), &first));
    // Another one is done, and its report is the next that comes.
    let other = script.request();
    script.tell(&other, Context::alone());
    let next = report(&mut script, &mut reports).await;
    assert_eq!(next.envelope().decode::<CollectionResults>().unwrap().request, other.request);
}
