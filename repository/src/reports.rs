//! Reports on their way into the store: those that wait are checked beside each other and stored together, and while they are
//! stored the next are checked (ADR 42).

use std::sync::Arc;
use std::time::Instant;

use bus::{Authentic, Context};
use proto::fault::{Fault, FaultCode};
use proto::message::{CollectionResults, EvaluationResults, Message as _, ToRepository};
use proto::time::is_skewed;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::store::{Incoming, Report, Said, Stored};
use crate::{Repository, received, report};

/// Reports that are stored together, and bytes of these, as they came.
const TOGETHER_MAX: usize = 256;
const TOGETHER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a report says.
enum Words {
    Observations(Box<CollectionResults>),
    Verdicts(Box<EvaluationResults>),
}

/// A report that was asked for.
struct Expected {
    message: Authentic,
    words: Words,
    report: Report,
}

impl Expected {
    fn incoming(&self) -> Incoming<'_> {
        let said = match &self.words {
            Words::Observations(results) => Said::Observations(results),
            Words::Verdicts(results) => Said::Verdicts(results),
        };
        Incoming { said, from: received(&self.message), report: &self.report }
    }
}

/// Whether a message is a report.
pub(crate) fn is_report(message: &Authentic) -> bool {
    matches!(message.envelope().kind.as_str(), CollectionResults::KIND | EvaluationResults::KIND)
}

/// Stores the reports that come in, in their order, as long as they come.
pub(crate) async fn store_all(repository: &Arc<Repository>, mut reported: mpsc::Receiver<Authentic>) {
    let (checked, mut expected) = mpsc::channel::<Vec<Expected>>(1);
    let check = async move {
        while let Some(messages) = together(&mut reported).await {
            if checked.send(check_all(repository, messages).await).await.is_err() {
                return;
            }
        }
    };
    let store = async {
        while let Some(reports) = expected.recv().await {
            let (began, count) = (Instant::now(), u32::try_from(reports.len()).unwrap_or(u32::MAX));
            store_together(repository, &reports).await;
            repository.pacing.stored(began.elapsed() / count.max(1));
        }
    };
    tokio::join!(check, store);
}

/// What waits, at least one.
async fn together(reported: &mut mpsc::Receiver<Authentic>) -> Option<Vec<Authentic>> {
    let first = reported.recv().await?;
    let mut bytes = first.sealed().len();
    let mut messages = vec![first];
    while messages.len() < TOGETHER_MAX && bytes < TOGETHER_BYTES_MAX {
        let Ok(message) = reported.try_recv() else { break };
        bytes += message.sealed().len();
        messages.push(message);
    }
    Some(messages)
}

/// Those that were asked for, in their order; the others are answered.
async fn check_all(repository: &Arc<Repository>, messages: Vec<Authentic>) -> Vec<Expected> {
    let mut checks = JoinSet::new();
    for (at, message) in messages.into_iter().enumerate() {
        let repository = Arc::clone(repository);
        checks.spawn(async move { (at, check(&repository, message).await) });
    }
    let mut checked = checks.join_all().await;
    checked.sort_unstable_by_key(|(at, _)| *at);
    checked.into_iter().filter_map(|(_, report)| report).collect()
}

/// A report, if it was asked for.
async fn check(repository: &Repository, message: Authentic) -> Option<Expected> {
    let (sender, transaction) = (message.envelope().from, message.envelope().transaction);
    let (words, expected) = match ToRepository::decode(message.envelope()) {
        Ok(ToRepository::CollectionResults(results)) => {
            let sent = message.envelope().sent;
            if results.objects.iter().any(|part| part.collected > sent && is_skewed(part.collected, sent)) {
                let text = "an observation is newer than the message that brings it";
                repository.refuse(&message, &Fault::new(FaultCode::ClockSkew, text));
                return None;
            }
            let expected = repository.expected.collection(sender, transaction, &results).await;
            (Words::Observations(results), expected)
        }
        Ok(ToRepository::EvaluationResults(results)) => {
            let expected = repository.expected.evaluation(sender, transaction, &results).await;
            (Words::Verdicts(results), expected)
        }
        Ok(_) => return None,
        Err(fault) => {
            repository.refuse(&message, &fault);
            return None;
        }
    };
    if let Err(fault) = expected {
        repository.not_expected(&message, &fault);
        return None;
    }
    let report = report(&message);
    Some(Expected { message, words, report })
}

/// Stores reports, and tells whoever sent each what came of it, after the commit and only then.
async fn store_together(repository: &Arc<Repository>, reports: &[Expected]) {
    let incoming: Vec<Incoming<'_>> = reports.iter().map(Expected::incoming).collect();
    for (Expected { message, .. }, stored) in reports.iter().zip(repository.store.record(&incoming).await) {
        let changed = match &stored {
            Ok(Stored::New { changed, .. }) => changed.clone(),
            _ => Vec::new(),
        };
        if let Err(error) = repository.acknowledge(message, stored) {
            repository.not_stored(message, &error);
        }
        if !changed.is_empty() {
            // A nudge: the next message does not wait for it.
            let (repository, context) = (Arc::clone(repository), Context::of(message.envelope().transaction));
            tokio::spawn(async move { repository.tell_changes(context, &changed).await });
        }
    }
}
