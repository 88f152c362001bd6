//! `muster simulate`: collectors that are not there, for sizing an installation. Each is a member of its own: key, certificate,
//! connection, outbox, signatures. What they report is what this machine has, or another root, with a little variety.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bus::{Authentic, Bus, Context};
use jiff::Timestamp;
use oval::resolve::Resolver;
use pcs_agent::host::Host;
use pcs_agent::probe::Probes;
use pcs_agent::report::{self, Found};
use proto::capability::ComponentType;
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::EndpointId;
use proto::message::{
    AdvertisedEndpoint, CollectionRequest, CollectionResults, ContentRequest, Message as _, Phase, StatusNotification,
    ToCollector,
};
use proto::observation::{Collected, EndpointFacts, Method};
use proto::topic::Topic;
use service::content::{ContentStore, plan_of};
use service::member::{self, Member, MemberSettings};
use service::shutdown;
use service::token::JoinToken;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::cli::SimulateArgs;
use crate::{exit, show};

/// Collectors that join at a time.
const AT_ONCE: usize = 32;
/// Seconds between two lines about how it goes.
const LINE_SECONDS: u64 = 5;

/// What all of them count.
#[derive(Debug, Default)]
struct Counts {
    joined: AtomicU64,
    active: AtomicU64,
    asked: AtomicU64,
    reported: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds from a request's making to its arrival, the longest.
    slowest_ms: AtomicU64,
}

/// What the root has, by plan.
type Templates = tokio::sync::Mutex<BTreeMap<ContentHash, Arc<Vec<Found>>>>;

struct Simulation {
    counts: Counts,
    templates: Templates,
    content: ContentStore,
    seed: u64,
    variety_percent: u64,
    root: PathBuf,
}

/// Runs until Ctrl-C.
pub(crate) async fn run(args: SimulateArgs) -> anyhow::Result<u8> {
    if !args.root.is_dir() {
        anyhow::bail!("--root {}: there is no such directory", args.root.display());
    }
    // Each of them would say so.
    args.join_token.parse::<JoinToken>()?;
    let kept = args.keep.clone();
    let temporary = if kept.is_none() { Some(tempfile()?) } else { None };
    let directory = kept.or_else(|| temporary.clone()).context("a directory")?;
    let simulation = Arc::new(Simulation {
        counts: Counts::default(),
        templates: Templates::default(),
        content: ContentStore::new(None),
        seed: args.seed,
        variety_percent: args.variety,
        root: args.root,
    });
    // A connection each, and an outbox.
    service::descriptors::raise(args.collectors.saturating_mul(3));
    let began = Instant::now();
    let play = async {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        for number in 0..args.collectors {
            let place = Arc::clone(&places).acquire_owned().await?;
            let (simulation, directory, token) = (Arc::clone(&simulation), directory.clone(), args.join_token.clone());
            tokio::spawn(async move {
                if let Err(error) = Arc::clone(&simulation).collector(number, &directory, token, place).await {
                    show::note(format!("collector {number}: {error}"));
                    simulation.counts.failed.fetch_add(1, Relaxed);
                }
            });
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    let tell = async {
        let mut tick = tokio::time::interval(Duration::from_secs(LINE_SECONDS));
        loop {
            tick.tick().await;
            simulation.line(began.elapsed());
        }
    };
    tokio::select! {
        outcome = play => outcome?,
        () = tell => {}
        () = shutdown::signal() => {}
    }
    simulation.line(began.elapsed());
    if let Some(temporary) = temporary {
        let _ = std::fs::remove_dir_all(temporary);
    }
    Ok(exit::DONE)
}

fn tempfile() -> anyhow::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("muster-simulate-{}", Uuid::new_v4()));
    std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

impl Simulation {
    fn line(&self, elapsed: Duration) {
        let Counts { joined, active, asked, reported, completed, failed, slowest_ms } = &self.counts;
        show::line(format!(
            "{:>6.0} s  {} joined, {} active; {} requests, {} reports, {} completed, {} failed; slowest request {} ms",
            elapsed.as_secs_f64(),
            joined.load(Relaxed),
            active.load(Relaxed),
            asked.load(Relaxed),
            reported.load(Relaxed),
            completed.load(Relaxed),
            failed.load(Relaxed),
            slowest_ms.load(Relaxed),
        ));
    }

    async fn collector(
        self: Arc<Self>,
        number: u64,
        directory: &Path,
        token: String,
        place: tokio::sync::OwnedSemaphorePermit,
    ) -> anyhow::Result<()> {
        let name = format!("sim-{number:05}");
        let data = directory.join(&name);
        let is_known = !member::needs_token(&data);
        let machine_id = format!("{:032x}", (u128::from(self.seed) << 64) | (u128::from(number) + 1));
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
            join_token: (!is_known).then_some(token),
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
        while let Some(message) = inbox.recv().await {
            let endpoint = assigned.borrow().endpoints.first().map(|(_, endpoint)| *endpoint);
            match (ToCollector::decode(message.envelope()), endpoint) {
                // Asked again, it is at it or has done it.
                (Ok(ToCollector::CollectionRequest(request)), Some(_)) if taken.contains(&request.request) => {}
                (Ok(ToCollector::CollectionRequest(request)), Some(endpoint)) => {
                    taken.insert(request.request);
                    let (simulation, bus, facts) = (Arc::clone(&self), bus.clone(), facts.clone());
                    tokio::spawn(async move {
                        simulation.answer(number, &bus, (*request, message), endpoint, facts).await;
                    });
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

    async fn answer(
        &self,
        number: u64,
        bus: &Bus,
        (request, message): (CollectionRequest, Authentic),
        endpoint: EndpointId,
        facts: EndpointFacts,
    ) {
        self.counts.asked.fetch_add(1, Relaxed);
        let took = Timestamp::now().duration_since(message.envelope().sent).as_millis();
        self.counts.slowest_ms.fetch_max(u64::try_from(took).unwrap_or_default(), Relaxed);
        let context = Context::of(message.envelope().transaction);
        let own = Topic::Status(bus.own());
        let _ = bus.send(&own, &status(bus, Some(&request), Some(Phase::Accepted), None), context);
        let outcome = self.report(number, bus, &request, &message, (endpoint, facts)).await;
        let (phase, fault) = match outcome {
            Ok(()) => (Phase::Completed, None),
            Err(fault) => (Phase::Failed, Some(fault)),
        };
        let counted = if fault.is_none() { &self.counts.completed } else { &self.counts.failed };
        counted.fetch_add(1, Relaxed);
        let _ = bus.send_durable(&own, &status(bus, Some(&request), Some(phase), fault), context);
    }

    async fn report(
        &self,
        number: u64,
        bus: &Bus,
        request: &CollectionRequest,
        message: &Authentic,
        (endpoint, facts): (EndpointId, EndpointFacts),
    ) -> Result<(), Fault> {
        let context = Context::of(message.envelope().transaction);
        let template = self.template(bus, request, context).await?;
        let now = Timestamp::now();
        let is_wanted = |(object, ..): &&Found| request.objects.is_empty() || request.objects.contains(object);
        let found: Vec<Found> = template
            .iter()
            .filter(is_wanted)
            .enumerate()
            .map(|(at, (object, collected, _))| (object.clone(), self.varied(number, at as u64, collected), now))
            .collect();
        let parts = report::parts(found);
        let last = parts.len() - 1;
        let mut sent = Vec::new();
        for (at, part) in parts.into_iter().enumerate() {
            let results = CollectionResults {
                request: request.request,
                standing: None,
                task: Some(message.hash().clone()),
                plan: request.plan.sha256.clone(),
                endpoint,
                facts: facts.clone(),
                method: Method::SelfReported,
                part: u32::try_from(at).unwrap_or(u32::MAX),
                is_final: at == last,
                stream: None,
                items: part.items,
                objects: part.objects,
            };
            let kept = bus.send_durable(&Topic::CollectionResults(bus.own()), &results, context);
            sent.push(kept.map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?);
            self.counts.reported.fetch_add(1, Relaxed);
        }
        while sent.iter().any(|id| bus.is_unacknowledged(*id)) {
            if request.deadline < Timestamp::now() {
                return Err(Fault::new(FaultCode::Timeout, "no repository has acknowledged the report"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// What the root has of a plan; looked at once.
    async fn template(
        &self,
        bus: &Bus,
        request: &CollectionRequest,
        context: Context,
    ) -> Result<Arc<Vec<Found>>, Fault> {
        let mut templates = self.templates.lock().await;
        if let Some(known) = templates.get(&request.plan.sha256) {
            return Ok(Arc::clone(known));
        }
        let ask = Topic::AdminUp(bus.own(), ContentRequest::KIND.to_owned());
        let plan = plan_of(&self.content.fetch(bus, &ask, &request.plan, context).await?)?;
        let root = self.root.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let host = Host::new(root);
            let mut resolver = Resolver::new(&plan, Probes::new(&host), Timestamp::now());
            let look = |key: &proto::plan::ObjectKey| {
                let collected = Collected::clone(&resolver.object(key));
                (key.clone(), collected, Timestamp::now())
            };
            plan.report.iter().map(look).collect::<Vec<Found>>()
        });
        let found = looked.await.map_err(|_| Fault::new(FaultCode::Internal, "a probe failed badly"))?;
        let found = Arc::new(found);
        templates.insert(request.plan.sha256.clone(), Arc::clone(&found));
        Ok(found)
    }

    /// Some objects are otherwise than there, in one of three ways: machines of a fleet are alike.
    fn varied(&self, number: u64, object: u64, collected: &Collected) -> Collected {
        let dice = mixed(self.seed ^ mixed(number ^ mixed(object)));
        let mut varied = collected.clone();
        if dice % 100 < self.variety_percent
            && let Some(value) = varied
                .items
                .first_mut()
                .and_then(|item| item.entities.iter_mut().rev().find_map(|entity| entity.value.as_mut()))
        {
            value.push_str(["1", "2", "3"][usize::try_from(dice / 100 % 3).unwrap_or_default()]);
        }
        varied
    }
}

/// splitmix64: the same for the same seed.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
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

#[cfg(test)]
mod tests {
    use proto::observation::{Flag, Item, ItemEntity};

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_variety_and_most_is_as_it_is_here() {
        let simulation = |seed| Simulation {
            counts: Counts::default(),
            templates: Templates::default(),
            content: ContentStore::new(None),
            seed,
            variety_percent: 10,
            root: PathBuf::from("/"),
        };
        let item = Item::new("unix:file", vec![ItemEntity::text("filepath", "/etc/passwd")]);
        let here = Collected { flag: Flag::Complete, items: vec![item], messages: Vec::new() };
        let all = |seed: u64| {
            let simulation = simulation(seed);
            (0..1_000).map(|number| simulation.varied(number, 7, &here)).collect::<Vec<_>>()
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        let otherwise = all(1).iter().filter(|collected| **collected != here).count();
        assert!((50..150).contains(&otherwise), "{otherwise}");
    }
}
