//! Requests on their way to components. A workflow may ask ten thousand at once; they go out as fast as the bus takes them
//! and leave room for everything else that is to be said. Where somebody waits goes first. What waits here is stored
//! already: a line that is lost with the process is asked again, as it was sealed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::id::{ComponentId, RequestId};
use proto::message::Priority;
use proto::topic::Topic;
use service::report::Chain;
use tokio::sync::Notify;

use crate::driver::Handle;
use crate::store::SentTask;

/// How long to wait where the bus takes no more.
const PAUSE: Duration = Duration::from_millis(5);

/// Who is asked what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    /// By which request.
    pub(crate) request: RequestId,
    /// Who.
    pub(crate) to: ComponentId,
}

#[derive(Debug, Default)]
struct Lines {
    interactive: VecDeque<Letter>,
    scheduled: VecDeque<Letter>,
    waiting: BTreeSet<Letter>,
}

impl Lines {
    fn add(&mut self, letter: Letter, priority: Priority) {
        // Whoever is asked again while it waits is not asked twice.
        if self.waiting.insert(letter.clone()) {
            match priority {
                Priority::Interactive => self.interactive.push_back(letter),
                Priority::Scheduled => self.scheduled.push_back(letter),
            }
        }
    }

    fn next(&mut self) -> Option<Letter> {
        loop {
            let letter = self.interactive.pop_front().or_else(|| self.scheduled.pop_front())?;
            // Those that were called back are not in it any more.
            if self.waiting.remove(&letter) {
                return Some(letter);
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
    pub(crate) fn add(&self, letter: Letter, priority: Priority) {
        self.lines().add(letter, priority);
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

impl Handle {
    /// Sends what was just stored: at once where nothing waits.
    pub(crate) fn send_task(&self, task: SentTask, priority: Priority) {
        let SentTask { request, responder, message } = task;
        let (bus, courier) = (&self.inner.bus, &self.inner.courier);
        match responder {
            Some(to) if !courier.is_empty() || !bus.has_room() => courier.add(Letter { request, to }, priority),
            _ => bus.send_prepared(message),
        }
    }

    /// Takes what waits to the bus, one after the other.
    pub(crate) async fn mind_letters(self) {
        let courier = &self.inner.courier;
        loop {
            // Not taken out before it can go: until then it can be called back.
            while !self.inner.bus.has_room() {
                tokio::time::sleep(PAUSE).await;
            }
            let Some(letter) = courier.lines().next() else {
                courier.filled.notified().await;
                continue;
            };
            match self.inner.store.task_of(letter.request, letter.to).await {
                Ok(Some(sealed)) => self.inner.bus.send_again(&Topic::Admin(letter.to), sealed.as_bytes()),
                Ok(None) => {}
                // It is asked again when that is due.
                Err(error) => tracing::error!(error = %Chain(&error), "a request could not be read"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn where_somebody_waits_goes_first_nobody_is_asked_twice_and_what_was_called_back_stays() {
        let letter = |number: u128| Letter {
            request: RequestId(Uuid::from_u128(number)),
            to: ComponentId(Uuid::from_u128(number + 100)),
        };
        let courier = Courier::default();
        courier.add(letter(1), Priority::Scheduled);
        courier.add(letter(2), Priority::Scheduled);
        courier.add(letter(3), Priority::Interactive);
        courier.add(letter(1), Priority::Interactive);
        courier.call_back(&letter(2));
        let order: Vec<Letter> = std::iter::from_fn(|| courier.lines().next()).collect();
        assert_eq!(order, [letter(3), letter(1)]);
        assert!(courier.is_empty());
        // One that has gone out may be asked again.
        courier.add(letter(1), Priority::Scheduled);
        assert_eq!(courier.lines().next(), Some(letter(1)));
    }
}
