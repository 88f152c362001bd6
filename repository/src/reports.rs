//! Reports on their way into the store: those that wait are checked beside each other and stored together, and while they are
//! stored the next are checked (ADR 42).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::Authentic;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, TransactionId};
use proto::message::{CollectionResults, EvaluationResults, FleetResults, Message as _, TaskRequest, ToRepository};
use proto::time::is_skewed;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::expected::Expected;
use crate::room::Place;
use crate::store::{Incoming, Report, Said, Stored};
use crate::{Repository, received, report};

/// Reports that are stored together, and bytes of these, as they came.
const TOGETHER_MAX: usize = 256;
const TOGETHER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// So often, at least, those are called in who were told to come later.
const CALLED_EVERY: Duration = Duration::from_secs(1);

/// What a report says.
enum Words {
    Observations(Box<CollectionResults>),
    Verdicts(Box<EvaluationResults>),
    FleetVerdicts(Box<FleetResults>),
}

/// A report.
struct Reported {
    message: Authentic,
    words: Words,
    report: Report,
}

impl Reported {
    fn incoming(&self) -> Incoming<'_> {
        let said = match &self.words {
            Words::Observations(results) => Said::Observations(results),
            Words::Verdicts(results) => Said::Verdicts(results),
            Words::FleetVerdicts(results) => Said::FleetVerdicts(results),
        };
        Incoming { said, from: received(&self.message), report: &self.report }
    }

    /// Who sent it, as part of which workflow.
    fn from(&self) -> (ComponentId, TransactionId) {
        (self.message.envelope().from, self.message.envelope().transaction)
    }

    /// What it says that it answers; of many endpoints, what it says of one of them.
    fn task(&self) -> Option<TaskRequest> {
        let (sender, transaction) = self.from();
        match &self.words {
            Words::Observations(results) => Expected::of_collection(sender, transaction, results).ok(),
            Words::Verdicts(results) => Expected::of_evaluation(sender, transaction, results).ok(),
            Words::FleetVerdicts(results) => Expected::of_fleet(sender, transaction, results).next(),
        }
    }
}

/// Whether a message is a report.
pub(crate) fn is_report(message: &Authentic) -> bool {
    matches!(message.envelope().kind.as_str(), CollectionResults::KIND | EvaluationResults::KIND | FleetResults::KIND)
}

/// Stores the reports that come in, in their order, as long as they come.
pub(crate) async fn store_all(repository: &Arc<Repository>, mut reported: mpsc::Receiver<(Authentic, Place)>) {
    let (checked, mut expected) = mpsc::channel::<(Vec<Reported>, Instant)>(1);
    let check = async move {
        loop {
            // Where nobody comes there is room, too.
            let messages = tokio::time::timeout(CALLED_EVERY, together(&mut reported)).await;
            repository.call_in();
            let Ok(messages) = messages else { continue };
            let Some(messages) = messages else { return };
            let taken = Instant::now();
            if checked.send((check_all(repository, messages).await, taken)).await.is_err() {
                return;
            }
        }
    };
    let store = async {
        let mut before = Instant::now();
        while let Some((reports, taken)) = expected.recv().await {
            let count = u32::try_from(reports.len()).unwrap_or(u32::MAX);
            store_together(repository, &reports).await;
            // What waited already when those before were stored took as long as from then to now.
            let stored = Instant::now();
            repository.pacing.stored(stored.duration_since(before.max(taken)), count);
            before = stored;
        }
    };
    tokio::join!(check, store);
}

/// What waits, at least one; its place is free then.
async fn together(reported: &mut mpsc::Receiver<(Authentic, Place)>) -> Option<Vec<Authentic>> {
    let (first, _) = reported.recv().await?;
    let mut bytes = first.sealed().len();
    let mut messages = vec![first];
    while messages.len() < TOGETHER_MAX && bytes < TOGETHER_BYTES_MAX {
        let Ok((message, _)) = reported.try_recv() else { break };
        bytes += message.sealed().len();
        messages.push(message);
    }
    Some(messages)
}

/// Those that were asked for, in their order; the others are answered.
async fn check_all(repository: &Arc<Repository>, messages: Vec<Authentic>) -> Vec<Reported> {
    let read = in_order(messages, |message| {
        let repository = Arc::clone(repository);
        async move { read(&repository, message) }
    });
    let read = read.await;
    repository.expected.ask_ahead(read.iter().filter_map(Reported::task)).await;
    let checked = in_order(read, |report| {
        let repository = Arc::clone(repository);
        async move { check(&repository, report).await }
    });
    checked.await
}

/// Does something with all of them beside each other; what came of those of which something came, in their order.
async fn in_order<One, Done, Doing>(all: Vec<One>, each: impl Fn(One) -> Doing) -> Vec<Done>
where
    Done: Send + 'static,
    Doing: Future<Output = Option<Done>> + Send + 'static,
{
    let mut doing = JoinSet::new();
    for (at, one) in all.into_iter().enumerate() {
        let one = each(one);
        doing.spawn(async move { (at, one.await) });
    }
    let mut done = doing.join_all().await;
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().filter_map(|(_, done)| done).collect()
}

/// A report, if it is one.
fn read(repository: &Repository, message: Authentic) -> Option<Reported> {
    let words = match ToRepository::decode(message.envelope()) {
        Ok(ToRepository::CollectionResults(results)) => {
            let sent = message.envelope().sent;
            if results.objects.iter().any(|part| part.collected > sent && is_skewed(part.collected, sent)) {
                let text = "an observation is newer than the message that brings it";
                repository.refuse(&message, &Fault::new(FaultCode::ClockSkew, text));
                return None;
            }
            Words::Observations(results)
        }
        Ok(ToRepository::EvaluationResults(results)) => Words::Verdicts(results),
        Ok(ToRepository::FleetResults(results)) => {
            if let Err(fault) = results.check() {
                repository.refuse(&message, &fault);
                return None;
            }
            Words::FleetVerdicts(results)
        }
        Ok(_) => return None,
        Err(fault) => {
            repository.refuse(&message, &fault);
            return None;
        }
    };
    let report = report(&message);
    Some(Reported { message, words, report })
}

/// A report, if it was asked for.
async fn check(repository: &Repository, report: Reported) -> Option<Reported> {
    let (sender, transaction) = report.from();
    let expected = match &report.words {
        Words::Observations(results) => repository.expected.collection(sender, transaction, results).await,
        Words::Verdicts(results) => repository.expected.evaluation(sender, transaction, results).await,
        Words::FleetVerdicts(results) => repository.expected.fleet(sender, transaction, results).await,
    };
    match expected {
        Ok(()) => Some(report),
        Err(fault) => {
            repository.not_expected(&report.message, &fault);
            None
        }
    }
}

/// Stores reports, and tells whoever sent each what came of it, after the commit and only then.
async fn store_together(repository: &Arc<Repository>, reports: &[Reported]) {
    let incoming: Vec<Incoming<'_>> = reports.iter().map(Reported::incoming).collect();
    let mut changes = Vec::new();
    for (Reported { message, .. }, stored) in reports.iter().zip(repository.store.record(&incoming).await) {
        let changed = match &stored {
            Ok(Stored::New { changed, .. }) => changed.clone(),
            _ => Vec::new(),
        };
        if let Err(error) = repository.acknowledge(message, stored) {
            repository.not_stored(message, &error);
        }
        changes.extend(changed.into_iter().map(|number| (message.envelope().transaction, number)));
    }
    // All at once: how many there are decides how they are told.
    let untold = if changes.is_empty() { 0 } else { repository.telling.add(&changes) };
    if untold > 0 {
        tracing::warn!(count = untold, "too many changes wait to be told; these are stored, and not told");
    }
}
