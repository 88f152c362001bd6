//! The in-memory twin of the broker, with the same access rules, for tests of components.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use proto::id::ComponentId;
use proto::topic::{Principal, Topic, matches};
use tokio::sync::mpsc;

use crate::{Incoming, IncomingReceiver, Quality, Transport, limits};

struct Client {
    principal: Principal,
    filters: Vec<String>,
    deliver: mpsc::Sender<Incoming>,
}

/// A broker in memory; clones share it.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    clients: Arc<Mutex<BTreeMap<ComponentId, Client>>>,
}

impl std::fmt::Debug for MemoryBroker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

impl MemoryBroker {
    /// Connects; an earlier connection of the same id ends.
    pub fn connect(&self, principal: Principal) -> (Box<dyn Transport>, IncomingReceiver) {
        let (deliver, incoming) = mpsc::channel(limits::QUEUE_MESSAGES_MAX);
        let _ = deliver.try_send(Incoming::Connected);
        let client = Client { principal, filters: Vec::new(), deliver };
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(principal.id, client);
        (Box::new(MemoryTransport { broker: self.clone(), principal }), incoming)
    }

    fn publish(&self, from: Principal, topic: &str, payload: &[u8]) -> bool {
        if !from.may_publish(topic) {
            tracing::warn!(topic, "publish denied");
            return false;
        }
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        for client in clients.values() {
            // The answer to a join needs no subscription, as in the broker front.
            let is_answer = matches!(topic.parse(), Ok(Topic::RegistrationAnswer(to)) if to == client.principal.id);
            if is_answer || client.filters.iter().any(|filter| matches(filter, topic)) {
                let _ =
                    client.deliver.try_send(Incoming::Message { topic: topic.to_owned(), payload: payload.to_vec() });
            }
        }
        true
    }
}

struct MemoryTransport {
    broker: MemoryBroker,
    principal: Principal,
}

impl Transport for MemoryTransport {
    fn room(&self) -> usize {
        limits::QUEUE_MESSAGES_MAX
    }

    fn publish(&self, topic: String, payload: Vec<u8>, _: Quality) -> bool {
        self.broker.publish(self.principal, &topic, &payload)
    }

    fn subscribe(&self, filters: Vec<String>) {
        let mut clients = self.broker.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get_mut(&self.principal.id) {
            for filter in filters {
                if self.principal.may_subscribe(&filter) && !client.filters.contains(&filter) {
                    client.filters.push(filter);
                }
            }
        }
    }

    fn close(&self) {
        self.broker.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.principal.id);
    }
}
