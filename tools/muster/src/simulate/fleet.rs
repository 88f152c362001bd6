//! The collectors of a simulation together: what they have in common, what they count, and what is written down of them while
//! something is measured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pcs_agent::report::Found;
use proto::content::ContentHash;
use proto::id::{RequestId, TransactionId};
use service::content::ContentStore;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::ingest::Ingest;
use crate::show;

/// Collectors that join at a time.
const AT_ONCE: usize = 32;
/// By how much those who answer yield to those who hear.
const NICENESS: i32 = 4;

/// What a fleet is like.
#[derive(Debug, Clone)]
pub(crate) struct FleetSettings {
    /// Where their keys and outboxes are.
    pub(crate) directory: PathBuf,
    /// What they join with.
    pub(crate) join_token: String,
    /// The same number gives the same machines.
    pub(crate) seed: u64,
    /// Of 100 objects, how many are otherwise than in the root.
    pub(crate) variety_percent: u64,
    /// Whose posture they report.
    pub(crate) root: PathBuf,
}

/// What all of them count.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) joined: AtomicU64,
    pub(crate) active: AtomicU64,
    pub(crate) asked: AtomicU64,
    pub(crate) reported: AtomicU64,
    pub(crate) completed: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Milliseconds from a request's making to its arrival, the longest.
    pub(crate) slowest_ms: AtomicU64,
}

/// A request, as one of them heard it for the first time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) collector: u64,
    pub(crate) transaction: TransactionId,
    pub(crate) request: RequestId,
    pub(crate) at: Instant,
}

/// A durable message, from handing it to the bus to its acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit {
    pub(crate) handed: Instant,
    pub(crate) acknowledged: Instant,
}

/// What happened since somebody wanted to know.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) commits: Vec<Commit>,
    /// The first handshake of each since then.
    pub(crate) handshakes: BTreeMap<u64, Instant>,
}

/// What the root has, by plan.
type Templates = tokio::sync::Mutex<BTreeMap<ContentHash, Arc<Vec<Found>>>>;

/// Where answers are made. The machines that are simulated share a core, but none of them hears less while another answers: this
/// yields to those who hear.
pub(super) struct Answering(Option<Runtime>);

impl Answering {
    fn begin() -> std::io::Result<Self> {
        let yielding = || {
            // Of this thread alone.
            let _ = rustix::process::setpriority_process(None, NICENESS);
        };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().on_thread_start(yielding).build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn spawn(&self, answer: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(answer);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Nobody waits for answers that nobody gets.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// All of them.
pub(crate) struct Fleet {
    pub(crate) counts: Counts,
    pub(super) settings: FleetSettings,
    pub(super) templates: Templates,
    pub(super) content: ContentStore,
    /// Nothing, unless somebody measures: a simulation may run for days.
    record: Mutex<Option<Record>>,
    /// What a request is answered with instead of a report, while ingest is measured.
    ingest: Mutex<Option<Arc<Ingest>>>,
    tasks: Mutex<Vec<AbortHandle>>,
    pub(super) answering: Answering,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// None of them has joined yet.
    pub(crate) fn new(settings: FleetSettings) -> std::io::Result<Self> {
        Ok(Self {
            counts: Counts::default(),
            settings,
            templates: Templates::default(),
            content: ContentStore::new(None),
            record: Mutex::default(),
            ingest: Mutex::default(),
            tasks: Mutex::default(),
            answering: Answering::begin()?,
        })
    }

    /// Has so many join, some at a time. Returns when the last of them has begun.
    pub(crate) async fn join(self: &Arc<Self>, collectors: u64) -> anyhow::Result<()> {
        // A connection each, and an outbox.
        service::descriptors::raise(collectors.saturating_mul(3));
        let places = Arc::new(Semaphore::new(AT_ONCE));
        for number in 0..collectors {
            let place = Arc::clone(&places).acquire_owned().await?;
            let fleet = Arc::clone(self);
            let task = tokio::spawn(async move {
                if let Err(error) = Arc::clone(&fleet).collector(number, place).await {
                    show::note(format!("collector {number}: {error}"));
                    fleet.counts.failed.fetch_add(1, Relaxed);
                }
            });
            locked(&self.tasks).push(task.abort_handle());
        }
        Ok(())
    }

    /// They do nothing more: their directory can go.
    pub(crate) fn stop(&self) {
        for task in locked(&self.tasks).drain(..) {
            task.abort();
        }
    }

    /// Writes down from now on what happens.
    pub(crate) fn record(&self) {
        *locked(&self.record) = Some(Record::default());
    }

    /// What happened since then; nothing more is written down.
    pub(crate) fn recorded(&self) -> Record {
        locked(&self.record).take().unwrap_or_default()
    }

    /// Looks at what is written down.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(locked(&self.record).get_or_insert_default())
    }

    /// Writes something down, where somebody wants to know.
    pub(super) fn note(&self, note: impl FnOnce(&mut Record)) {
        if let Some(record) = locked(&self.record).as_mut() {
            note(record);
        }
    }

    /// Answers requests with observations of one size, as many as go, or as before.
    pub(crate) fn set_ingest(&self, ingest: Option<Ingest>) {
        *locked(&self.ingest) = ingest.map(Arc::new);
    }

    pub(super) fn ingest(&self) -> Option<Arc<Ingest>> {
        locked(&self.ingest).clone()
    }

    /// How it goes, on a line.
    pub(crate) fn line(&self, elapsed: Duration) {
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
}
