//! One simulated collector: a member with a key, a certificate, a connection and an outbox of its own, which answers what it is
//! asked at once. Tells everything as a real one does; looks at nothing itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bus::{Authentic, Bus, Context};
use jiff::Timestamp;
use pcs_agent::report;
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::{EndpointId, MessageId};
use proto::message::{
    AdvertisedEndpoint, CollectionRequest, CollectionResults, Phase, StatusNotification, ToCollector,
};
use proto::observation::{EndpointFacts, Method};
use proto::topic::Topic;
use service::member::{self, Member, MemberSettings};
use tokio::sync::OwnedSemaphorePermit;

use super::fleet::{Arrival, Fleet};

/// Who answers, and for which endpoint.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    pub(super) number: u64,
    pub(super) bus: Bus,
    pub(super) endpoint: EndpointId,
    pub(super) facts: EndpointFacts,
}

impl Fleet {
    /// Plays one until it is no member any more; gives its place in the line back as soon as it is active.
    pub(super) async fn collector(self: Arc<Self>, number: u64, place: OwnedSemaphorePermit) -> anyhow::Result<()> {
        let name = format!("sim-{number:05}");
        let data = self.settings.directory.join(&name);
        let is_known = !member::needs_token(&data);
        let machine_id = format!("{:032x}", (u128::from(self.settings.seed) << 64) | (u128::from(number) + 1));
        let facts = EndpointFacts {
            host_name: name.clone(),
            os_name: "simulated".to_owned(),
            machine_id: Some(machine_id),
            ..EndpointFacts::default()
        };
        let settings = MemberSettings {
            component_type: ComponentType::PostureCollectionService,
            name,
            data,
            join_token: (!is_known).then(|| self.settings.join_token.clone()),
            broker: None,
            endpoints: vec![AdvertisedEndpoint {
                local_name: pcs_agent::SELF.to_owned(),
                facts: facts.clone(),
                ..AdvertisedEndpoint::default()
            }],
            tpm: None,
            tied: &[],
            store: None,
        };
        let Member { bus, mut inbox, mut assigned, dismissal } = member::start(settings).await?;
        self.counts.joined.fetch_add(1, Relaxed);
        let _ = assigned.wait_for(|assigned| assigned.is_active).await;
        self.counts.active.fetch_add(1, Relaxed);
        drop(place);
        let mut taken = BTreeSet::new();
        loop {
            let message = tokio::select! {
                message = inbox.recv() => message,
                Ok(()) = assigned.changed() => {
                    // It has shaken hands anew.
                    self.note(|record| {
                        record.handshakes.entry(number).or_insert_with(Instant::now);
                    });
                    continue;
                }
            };
            let Some(message) = message else { break };
            let endpoint = assigned.borrow().endpoints.first().map(|(_, endpoint)| *endpoint);
            match (ToCollector::decode(message.envelope()), endpoint) {
                // Asked again, it is at it or has done it.
                (Ok(ToCollector::CollectionRequest(request)), Some(_)) if taken.contains(&request.request) => {}
                (Ok(ToCollector::CollectionRequest(request)), Some(endpoint)) => {
                    taken.insert(request.request);
                    self.hear(number, &request, &message);
                    let fleet = Arc::clone(&self);
                    let speaker = Speaker { number, bus: bus.clone(), endpoint, facts: facts.clone() };
                    self.answering.spawn(async move { fleet.answer(&speaker, &request, &message).await });
                }
                (Ok(_), _) => {
                    let text = "a simulated collector does what it is asked at once, and nothing else";
                    let fault = Fault::new(FaultCode::UnsupportedCapability, text);
                    let status = status(&bus, None, None, Some(fault));
                    let _ = bus.send(&Topic::Status(bus.own()), &status, Context::answering(&message));
                }
                (Err(_), _) => {}
            }
        }
        dismissal.check()?;
        Ok(())
    }

    /// A request has come.
    fn hear(&self, collector: u64, request: &CollectionRequest, message: &Authentic) {
        let (envelope, at) = (message.envelope(), Instant::now());
        self.counts.asked.fetch_add(1, Relaxed);
        let took = Timestamp::now().duration_since(envelope.sent).as_millis();
        self.counts.slowest_ms.fetch_max(u64::try_from(took).unwrap_or_default(), Relaxed);
        let arrival = Arrival { collector, transaction: envelope.transaction, request: request.request, at };
        self.note(|record| record.arrivals.push(arrival));
    }

    async fn answer(self: &Arc<Self>, speaker: &Speaker, request: &CollectionRequest, message: &Authentic) {
        let context = Context::of(message.envelope().transaction);
        let bus = &speaker.bus;
        let own = Topic::Status(bus.own());
        let _ = bus.send(&own, &status(bus, Some(request), Some(Phase::Accepted), None), context);
        let outcome = match self.ingest() {
            Some(ingest) => self.pour(speaker, request, message, &ingest).await,
            None => self.report(speaker, request, message).await,
        };
        let (phase, fault) = match outcome {
            Ok(()) => (Phase::Completed, None),
            Err(fault) => (Phase::Failed, Some(fault)),
        };
        let counted = if fault.is_none() { &self.counts.completed } else { &self.counts.failed };
        counted.fetch_add(1, Relaxed);
        let _ = bus.send_durable(&own, &status(bus, Some(request), Some(phase), fault), context);
    }

    async fn report(&self, speaker: &Speaker, request: &CollectionRequest, message: &Authentic) -> Result<(), Fault> {
        let bus = &speaker.bus;
        let context = Context::of(message.envelope().transaction);
        let template = self.template(bus, request, context).await?;
        let parts = report::parts(self.found(speaker.number, &template, &request.objects));
        let last = parts.len() - 1;
        let mut sent = Vec::new();
        for (at, part) in parts.into_iter().enumerate() {
            let results = speaker.results(request, message, at, part);
            let results = CollectionResults { is_final: at == last, ..results };
            let kept = bus.send_durable(&Topic::CollectionResults(bus.own()), &results, context);
            sent.push(kept.map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?);
            self.counts.reported.fetch_add(1, Relaxed);
        }
        for id in sent {
            acknowledged(bus, id, request.deadline).await?;
        }
        Ok(())
    }
}

impl Speaker {
    /// A part of a report, not the last one.
    pub(super) fn results(
        &self,
        request: &CollectionRequest,
        message: &Authentic,
        number: usize,
        part: report::Part,
    ) -> CollectionResults {
        CollectionResults {
            request: request.request,
            standing: None,
            task: Some(message.hash().clone()),
            plan: request.plan.sha256.clone(),
            endpoint: self.endpoint,
            facts: self.facts.clone(),
            method: Method::SelfReported,
            part: u32::try_from(number).unwrap_or(u32::MAX),
            is_final: false,
            stream: None,
            items: part.items,
            objects: part.objects,
        }
    }
}

/// Waits until a repository has acknowledged a report, or refused it.
pub(super) async fn acknowledged(bus: &Bus, report: MessageId, deadline: Timestamp) -> Result<(), Fault> {
    let left = Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default();
    let settled = tokio::time::timeout(left, bus.settled(report)).await;
    settled.map_err(|_| Fault::new(FaultCode::Timeout, "no repository has acknowledged the report"))
}

fn status(
    bus: &Bus,
    request: Option<&CollectionRequest>,
    phase: Option<Phase>,
    fault: Option<Fault>,
) -> StatusNotification {
    let code = match (phase, &fault) {
        (None, _) => "collect.refused",
        (Some(Phase::Completed), _) => "collect.completed",
        (Some(_), Some(_)) => "collect.failed",
        (Some(_), None) => "collect.progress",
    };
    StatusNotification {
        publisher: bus.own(),
        message: "simulated".to_owned(),
        code: code.to_owned(),
        request: request.map(|request| request.request),
        phase,
        progress: None,
        fault,
    }
}
