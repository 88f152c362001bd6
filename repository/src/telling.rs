//! Telling what has changed, after it is stored and beside storing what comes next. The orchestrators decide by it what to
//! evaluate again, and whoever follows sees it at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::Context;
use proto::id::TransactionId;
use proto::limits::RESULT_PART_BYTES;
use proto::message::{AttributeChange, AttributeChanges, Message};
use proto::topic::Topic;
use service::report::Chain;
use tokio::sync::Notify;

use crate::Repository;

/// Changes that wait to be told. Those that come while so many do are not: what is told may be lost, what is stored is asked for.
const WAITING_MAX: usize = 100_000;
/// Changes that are read, and told, at a time.
const TOGETHER_MAX: usize = 200;
/// Where more than so many wait they are told without their items, so that they do not wait for long.
const WHOLE_MAX: usize = 32;

/// A change that is to be told, and the workflow that brought it.
pub(crate) type Waiting = (TransactionId, u64);

/// The changes that are to be told.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    waiting: Mutex<VecDeque<Waiting>>,
    news: Notify,
}

/// Changes that are read together.
#[derive(Debug, PartialEq, Eq)]
struct Together {
    waiting: Vec<Waiting>,
    is_whole: bool,
}

impl Telling {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These have been stored together. How many of them will not be told.
    pub(crate) fn add(&self, changes: &[Waiting]) -> usize {
        let mut waiting = self.waiting();
        let fitting = changes.len().min(WAITING_MAX.saturating_sub(waiting.len()));
        waiting.extend(&changes[..fitting]);
        drop(waiting);
        self.news.notify_one();
        changes.len() - fitting
    }

    /// The next of them.
    fn next(&self) -> Option<Together> {
        let mut waiting = self.waiting();
        let is_whole = waiting.len() <= WHOLE_MAX;
        let count = waiting.len().min(TOGETHER_MAX);
        let together = Together { waiting: waiting.drain(..count).collect(), is_whole };
        (count > 0).then_some(together)
    }
}

/// Tells what has changed, for as long as it is not ended.
pub(crate) async fn tell_all(repository: Arc<Repository>) {
    loop {
        repository.telling.news.notified().await;
        while let Some(Together { waiting, is_whole }) = repository.telling.next() {
            let numbers: Vec<u64> = waiting.iter().map(|(_, number)| *number).collect();
            match repository.store.changes_numbered(&numbers, is_whole).await {
                Ok(changes) => tell(&repository, &waiting, changes, is_whole),
                Err(error) => tracing::warn!(error = %Chain(&error), "changes cannot be read, and are not told"),
            }
        }
    }
}

/// Whole ones each by itself, as somebody may be waiting for it; the others together.
fn tell(repository: &Repository, waiting: &[Waiting], changes: Vec<AttributeChange>, is_whole: bool) {
    let by_number: BTreeMap<u64, TransactionId> =
        waiting.iter().map(|(transaction, number)| (*number, *transaction)).collect();
    let mut of: BTreeMap<TransactionId, Vec<AttributeChange>> = BTreeMap::new();
    for change in changes {
        if let Some(transaction) = by_number.get(&change.change) {
            of.entry(*transaction).or_default().push(change);
        }
    }
    for (transaction, changes) in of {
        let context = Context::of(transaction);
        if is_whole {
            for change in &changes {
                send(repository, change, context);
            }
        } else {
            for changes in parts(changes) {
                send(repository, &AttributeChanges { changes }, context);
            }
        }
    }
}

/// One that cannot be told keeps no other from being told.
fn send<M: Message>(repository: &Repository, message: &M, context: Context) {
    if let Err(error) = repository.bus.send(&Topic::Change(repository.bus.own()), message, context) {
        tracing::warn!(error = %Chain(&error), "a change cannot be told");
    }
}

/// As many of them together as fit into a message.
fn parts(changes: Vec<AttributeChange>) -> Vec<Vec<AttributeChange>> {
    let mut parts: Vec<Vec<AttributeChange>> = Vec::new();
    let mut bytes = 0;
    for change in changes {
        let more = serde_json::to_vec(&change).map_or(0, |json| json.len());
        match parts.last_mut() {
            Some(part) if bytes + more <= RESULT_PART_BYTES => {
                part.push(change);
                bytes += more;
            }
            _ => {
                parts.push(vec![change]);
                bytes = more;
            }
        }
    }
    parts
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use jiff::Timestamp;
    use proto::id::{ComponentId, EndpointId};
    use proto::message::ObjectState;
    use proto::observation::Flag;
    use proto::plan::ObjectKey;
    use uuid::Uuid;

    use super::*;

    fn transaction(number: u128) -> TransactionId {
        TransactionId(Uuid::from_u128(number))
    }

    fn of_one(count: usize) -> Vec<Waiting> {
        (0..count as u64).map(|number| (transaction(9), number)).collect()
    }

    #[test]
    fn changes_are_told_in_their_order_and_whole_as_long_as_few_wait() {
        let telling = Telling::default();
        assert_eq!(telling.next(), None);
        let all = [(transaction(1), 1), (transaction(1), 2), (transaction(2), 3)];
        assert_eq!(telling.add(&all[..1]) + telling.add(&all[1..]), 0);
        assert_eq!(telling.next(), Some(Together { waiting: all.to_vec(), is_whole: true }));
        assert_eq!(telling.next(), None);

        telling.add(&of_one(TOGETHER_MAX + 1));
        let next = || telling.next().map(|together| (together.waiting.len(), together.is_whole));
        // In the end few are left.
        assert_eq!([next(), next(), next()], [Some((TOGETHER_MAX, false)), Some((1, true)), None]);
    }

    #[test]
    fn more_than_fit_are_not_kept_and_counted() {
        let telling = Telling::default();
        assert_eq!(telling.add(&of_one(WAITING_MAX - 1)), 0);
        assert_eq!(telling.add(&of_one(3)), 2);
        assert_eq!(telling.add(&of_one(1)), 1);
        let mut count = 0;
        while let Some(together) = telling.next() {
            count += together.waiting.len();
        }
        assert_eq!(count, WAITING_MAX);
    }

    #[test]
    fn a_message_has_as_many_changes_as_fit_and_none_is_left_out() {
        let state = |messages: usize| ObjectState {
            seen: Timestamp::UNIX_EPOCH,
            flag: Flag::Error,
            item_count: 0,
            items: Vec::new(),
            messages: vec!["x".repeat(RESULT_PART_BYTES / 4); messages],
        };
        let change = |number: u64, messages: usize| AttributeChange {
            change: number,
            endpoint: EndpointId(Uuid::nil()),
            object: ObjectKey("obj:one".to_owned()),
            origin: ComponentId(Uuid::nil()),
            collected: Timestamp::UNIX_EPOCH,
            past: None,
            current: state(messages),
            stream: None,
        };
        // What is too large alone goes alone.
        let told = parts(vec![change(1, 2), change(2, 1), change(3, 2), change(4, 9), change(5, 0)]);
        let numbers: Vec<Vec<u64>> =
            told.iter().map(|part| part.iter().map(|change| change.change).collect()).collect();
        assert_eq!(numbers, [vec![1, 2], vec![3], vec![4], vec![5]]);
    }
}
