//! What waits for one connected component. The front fills it, the component's session empties it. It is bounded: a
//! component that does not read loses its own messages and holds up nobody.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use proto::capability::ComponentType;
use proto::topic;
use tokio::sync::Notify;

/// A message on its way to a component.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// Where it was published.
    pub(crate) topic: Bytes,
    /// What.
    pub(crate) payload: Bytes,
    /// Whether it was published with QoS 1.
    pub(crate) is_acknowledged: bool,
}

/// Messages and bytes that may wait. A collector is asked one thing at a time, and pulls content chunk by chunk; services
/// answer many.
const COLLECTOR: (usize, usize) = (512, 4 * 1024 * 1024);
const SERVICE: (usize, usize) = (100_000, 64 * 1024 * 1024);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// It waits, or is on its way.
    Taken,
    /// Nobody is there, or nobody has subscribed.
    Nobody,
    /// Too much waits already.
    Full,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Delivery>,
    bytes: usize,
    /// Filters, and whether they were subscribed to with QoS 1.
    filters: Vec<(String, bool)>,
}

/// The mailbox of a connected component.
#[derive(Debug)]
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    messages_max: usize,
    bytes_max: usize,
}

impl Mailbox {
    pub(crate) fn of(component_type: ComponentType) -> Self {
        let (messages_max, bytes_max) =
            if component_type == ComponentType::PostureCollectionService { COLLECTOR } else { SERVICE };
        Self { waiting: Mutex::default(), filled: Notify::new(), messages_max, bytes_max }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages for this filter are wanted; each filter counts once.
    pub(crate) fn subscribe(&self, filter: &str, is_acknowledged: bool) {
        let mut waiting = self.waiting();
        waiting.filters.retain(|(known, _)| known != filter);
        waiting.filters.push((filter.to_owned(), is_acknowledged));
    }

    /// Messages for this filter are not wanted any more.
    pub(crate) fn unsubscribe(&self, filter: &str) {
        self.waiting().filters.retain(|(known, _)| known != filter);
    }

    /// Puts a message in, if it is wanted and there is room. Several filters that match it get it once, with the best
    /// of their QoS.
    pub(crate) fn post(&self, delivery: &Delivery) -> Posted {
        let mut waiting = self.waiting();
        let Ok(topic) = std::str::from_utf8(&delivery.topic) else { return Posted::Nobody };
        let mut matching = waiting.filters.iter().filter(|(filter, _)| topic::matches(filter, topic)).peekable();
        if matching.peek().is_none() {
            return Posted::Nobody;
        }
        let is_acknowledged = delivery.is_acknowledged && matching.any(|(_, is_acknowledged)| *is_acknowledged);
        let bytes = delivery.topic.len() + delivery.payload.len();
        if waiting.messages.len() >= self.messages_max || waiting.bytes + bytes > self.bytes_max {
            return Posted::Full;
        }
        waiting.bytes += bytes;
        waiting.messages.push_back(Delivery { is_acknowledged, ..delivery.clone() });
        drop(waiting);
        self.filled.notify_one();
        Posted::Taken
    }

    /// The next message, if there is one.
    pub(crate) fn take(&self) -> Option<Delivery> {
        let mut waiting = self.waiting();
        let delivery = waiting.messages.pop_front()?;
        waiting.bytes -= delivery.topic.len() + delivery.payload.len();
        if waiting.messages.is_empty() && waiting.messages.capacity() > 32 {
            // A burst is over: an idle component holds nothing.
            waiting.messages = VecDeque::new();
        }
        Some(delivery)
    }

    /// Waits until something was put in.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(topic: &str, bytes: usize) -> Delivery {
        let topic = Bytes::copy_from_slice(topic.as_bytes());
        Delivery { topic, payload: vec![0; bytes].into(), is_acknowledged: true }
    }

    #[test]
    fn what_is_not_wanted_is_not_kept_and_what_is_wanted_twice_comes_once() {
        let mailbox = Mailbox::of(ComponentType::PostureCollectionService);
        assert_eq!(mailbox.post(&delivery("/a", 1)), Posted::Nobody);
        mailbox.subscribe("/a", false);
        mailbox.subscribe("/+", true);
        assert_eq!(mailbox.post(&delivery("/a", 1)), Posted::Taken);
        assert!(mailbox.take().unwrap().is_acknowledged);
        assert!(mailbox.take().is_none());
        mailbox.unsubscribe("/+");
        assert_eq!(mailbox.post(&delivery("/a", 1)), Posted::Taken);
        assert!(!mailbox.take().unwrap().is_acknowledged);
    }

    #[test]
    fn a_mailbox_that_nobody_empties_holds_so_much_and_no_more() {
        let mailbox = Mailbox::of(ComponentType::PostureCollectionService);
        mailbox.subscribe("/a", true);
        let posted = (0..1_000).take_while(|_| mailbox.post(&delivery("/a", 10)) == Posted::Taken).count();
        assert_eq!(posted, COLLECTOR.0);
        while mailbox.take().is_some() {}
        let large = 1024 * 1024;
        let posted = (0..1_000).take_while(|_| mailbox.post(&delivery("/a", large)) == Posted::Taken).count();
        assert_eq!(posted, COLLECTOR.1 / large - 1);
        // Once it is read, there is room again.
        mailbox.take();
        assert_eq!(mailbox.post(&delivery("/a", large)), Posted::Taken);
    }
}
