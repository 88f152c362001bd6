//! Requests on their way to components. A workflow may ask ten thousand at once; they go out as fast as the bus takes them
//! and leave room for everything else that is to be said. Where somebody waits goes first. Of very many, each is sealed and stored
//! when its turn comes, a portion at a time: the first need not wait for the last. Who is to be asked what is stored before: a line
//! that is lost with the process is asked again, as it was sealed, or sealed then.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::id::{ComponentId, RequestId, TransactionId};
use proto::message::Priority;
use proto::topic::Topic;
use service::report::Chain;
use tokio::sync::Notify;

use crate::core::{Action, Core};
use crate::driver::{Handle, Pending};
use crate::store::{SentTask, StoreError};

/// How long to wait where the bus takes no more.
const PAUSE: Duration = Duration::from_millis(5);
/// Requests that are taken from the lines, sealed and stored together.
const PORTION: usize = 64;
/// The time that a portion has: 3,200 a second. Whoever is asked answers at once, and the first answers are not to wait for the last
/// question.
const PORTION_TIME: Duration = Duration::from_millis(20);
/// The time of each of the first portions after the line was empty, where very many wait. What those report who are asked first is stored
/// meanwhile: whoever waits for the first result has it before everybody else answers, too.
const FIRST_PORTION_TIME: Duration = Duration::from_millis(60);
const FIRST_PORTIONS: usize = 6;
/// How many are very many.
const VERY_MANY: usize = 1_000;

/// The time of a portion after so many others, where so many requests wait behind it.
fn time_of(portions: usize, waiting: usize) -> Duration {
    if portions < FIRST_PORTIONS && waiting >= VERY_MANY { FIRST_PORTION_TIME } else { PORTION_TIME }
}

/// Who is asked what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    /// Of which workflow.
    pub(crate) transaction: TransactionId,
    /// By which request.
    pub(crate) request: RequestId,
    /// Who.
    pub(crate) to: ComponentId,
}

#[derive(Debug, Default)]
struct Lines {
    interactive: VecDeque<Letter>,
    scheduled: VecDeque<Letter>,
    /// Whether each is sealed and stored already.
    waiting: BTreeMap<Letter, bool>,
}

impl Lines {
    fn add(&mut self, letter: Letter, is_sealed: bool, priority: Priority) {
        let line = match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Scheduled => &mut self.scheduled,
        };
        match self.waiting.entry(letter) {
            // Whoever is asked again while it waits is not asked twice; what is to be asked otherwise is sealed anew.
            Entry::Occupied(mut waiting) => *waiting.get_mut() &= is_sealed,
            Entry::Vacant(vacant) => {
                line.push_back(vacant.key().clone());
                vacant.insert(is_sealed);
            }
        }
    }

    fn next(&mut self) -> Option<(Letter, bool)> {
        loop {
            let letter = self.interactive.pop_front().or_else(|| self.scheduled.pop_front())?;
            // Those that were called back are not in it any more.
            if let Some(is_sealed) = self.waiting.remove(&letter) {
                return Some((letter, is_sealed));
            }
        }
    }
}

/// The lines, and who minds them.
#[derive(Debug, Default)]
pub(crate) struct Courier {
    lines: Mutex<Lines>,
    filled: Notify,
}

impl Courier {
    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request goes out when it is its turn.
    pub(crate) fn add(&self, letter: Letter, is_sealed: bool, priority: Priority) {
        self.lines().add(letter, is_sealed, priority);
        self.filled.notify_one();
    }

    /// Whether nothing waits.
    fn is_empty(&self) -> bool {
        self.lines().waiting.is_empty()
    }

    /// A request is not wanted any more; one that has gone out is not called back.
    pub(crate) fn call_back(&self, letter: &Letter) {
        self.lines().waiting.remove(letter);
    }
}

impl Letter {
    /// What it says, as long as that is wanted.
    fn text(&self, core: &Core) -> Option<Action> {
        let Self { transaction, request, to } = *self;
        let workflow = core.workflow(transaction)?;
        let request = workflow.collection_request(workflow.asked_to_collect(to, request)?);
        Some(Action::Collect { to: Some(to), transaction, request })
    }

    fn is_wanted(&self, core: &Core) -> bool {
        let workflow = core.workflow(self.transaction);
        workflow.is_some_and(|workflow| workflow.asked_to_collect(self.to, self.request).is_some())
    }
}

impl Handle {
    /// Sends what was just stored: at once where nothing waits.
    pub(crate) fn send_task(&self, task: SentTask, transaction: TransactionId, priority: Priority) {
        let SentTask { request, responder, message } = task;
        let (bus, courier) = (&self.inner.bus, &self.inner.courier);
        match responder {
            Some(to) if !courier.is_empty() || !bus.has_room() => {
                courier.add(Letter { transaction, request, to }, true, priority);
            }
            _ => bus.send_prepared(message),
        }
    }

    /// Takes what waits to the bus, in its order.
    pub(crate) async fn mind_letters(self) {
        let courier = &self.inner.courier;
        let mut portions = 0_usize;
        loop {
            // Not taken out before it can go: until then it can be called back.
            while !self.inner.bus.has_room() {
                tokio::time::sleep(PAUSE).await;
            }
            let begun = tokio::time::Instant::now();
            let (portion, waiting) = {
                let mut lines = courier.lines();
                let portion: Vec<(Letter, bool)> = std::iter::from_fn(|| lines.next()).take(PORTION).collect();
                (portion, lines.waiting.len())
            };
            if portion.is_empty() {
                courier.filled.notified().await;
                portions = 0;
                continue;
            }
            // It is asked again when that is due.
            if let Err(error) = self.send_letters(portion).await {
                tracing::error!(error = %Chain(&error), "requests could not be read or stored");
            }
            let time = time_of(portions, waiting);
            portions = portions.saturating_add(1);
            tokio::time::sleep_until(begun + time).await;
        }
    }

    async fn send_letters(&self, portion: Vec<(Letter, bool)>) -> Result<(), StoreError> {
        let inner = &self.inner;
        let mut unsealed = Vec::new();
        for (letter, is_sealed) in portion {
            let sealed = if is_sealed { inner.store.task_of(letter.request, letter.to).await? } else { None };
            match sealed {
                Some(sealed) => inner.bus.send_again(&Topic::Admin(letter.to), sealed.as_bytes()),
                None => unsealed.push(letter),
            }
        }
        if unsealed.is_empty() {
            return Ok(());
        }
        let texts: Vec<(Letter, Action)> = {
            let core = inner.core.lock().await;
            unsealed.into_iter().filter_map(|letter| letter.text(&core).map(|text| (letter, text))).collect()
        };
        let sealed = texts.into_iter().filter_map(|(letter, text)| match self.prepare(text) {
            Pending::Ask { task, .. } => Some((letter, task)),
            _ => None,
        });
        let (letters, tasks): (Vec<Letter>, Vec<SentTask>) = sealed.unzip();
        inner.store.put_tasks(&tasks).await?;
        // Whoever was told meanwhile to stop is not asked after that.
        let core = inner.core.lock().await;
        for (_, task) in letters.iter().zip(tasks).filter(|(letter, _)| letter.is_wanted(&core)) {
            inner.bus.send_prepared(task.message);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn of_very_many_the_first_have_more_time_and_of_some_nobody_does() {
        let of = |waiting: usize| (0..10).map(|portions| time_of(portions, waiting)).sum::<Duration>();
        assert_eq!(of(VERY_MANY - 1), 10 * PORTION_TIME);
        assert_eq!(of(10_000), 6 * FIRST_PORTION_TIME + 4 * PORTION_TIME);
    }

    #[test]
    fn where_somebody_waits_goes_first_nobody_is_asked_twice_and_what_was_called_back_stays() {
        let letter = |number: u128| Letter {
            transaction: TransactionId(Uuid::from_u128(1)),
            request: RequestId(Uuid::from_u128(number)),
            to: ComponentId(Uuid::from_u128(number + 100)),
        };
        let courier = Courier::default();
        courier.add(letter(1), true, Priority::Scheduled);
        courier.add(letter(2), true, Priority::Scheduled);
        courier.add(letter(3), true, Priority::Interactive);
        courier.add(letter(1), false, Priority::Interactive);
        courier.call_back(&letter(2));
        let order: Vec<(Letter, bool)> = std::iter::from_fn(|| courier.lines().next()).collect();
        assert_eq!(order, [(letter(3), true), (letter(1), false)]);
        assert!(courier.is_empty());
        // One that has gone out may be asked again.
        courier.add(letter(1), true, Priority::Scheduled);
        assert_eq!(courier.lines().next(), Some((letter(1), true)));
    }
}
