//! What components say of their work. When a task goes to thousands, thousands say how far they are: those that wait are taken
//! together, and stored together, before any of them is acknowledged (ADR 42).

use bus::{Authentic, Event, Sender};
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::message::{Message as _, Phase, StatusNotification, ToOrchestrator};
use proto::topic::Topic;
use service::report::Chain;
use tokio::sync::mpsc;

use crate::driver::Handle;

/// Messages that are looked at together.
const TOGETHER_MAX: usize = 256;

/// A message and, if it was the last one, what came after it.
pub(crate) struct Gathered {
    pub(crate) messages: Vec<Authentic>,
    pub(crate) then: Option<Event>,
}

/// A message with those that wait behind it.
pub(crate) fn gather(first: Authentic, events: &mut mpsc::Receiver<Event>) -> Gathered {
    let mut messages = vec![first];
    while messages.len() < TOGETHER_MAX {
        match events.try_recv() {
            Ok(Event::Message(message)) => messages.push(*message),
            Ok(other) => return Gathered { messages, then: Some(other) },
            Err(_) => break,
        }
    }
    Gathered { messages, then: None }
}

/// What a component says of its work.
struct Word {
    sender: ComponentId,
    message: Authentic,
    status: Box<StatusNotification>,
}

impl Handle {
    /// Takes messages in their order; statuses that follow each other together.
    pub(crate) async fn take_all(&self, messages: Vec<Authentic>) {
        let mut words = Vec::new();
        for message in messages {
            match self.word(message) {
                Ok(word) => words.push(word),
                Err(message) => {
                    self.note_all(std::mem::take(&mut words)).await;
                    self.take(&message).await;
                }
            }
        }
        self.note_all(words).await;
    }

    /// A status of somebody else, or the message that is another.
    fn word(&self, message: Authentic) -> Result<Word, Authentic> {
        let Sender::Member { component: sender, .. } = *message.sender() else { return Err(message) };
        if sender == self.inner.bus.own() || message.envelope().kind != StatusNotification::KIND {
            return Err(message);
        }
        match ToOrchestrator::decode(message.envelope()) {
            Ok(ToOrchestrator::StatusNotification(status)) => Ok(Word { sender, message, status }),
            _ => Err(message),
        }
    }

    async fn note_all(&self, words: Vec<Word>) {
        if words.is_empty() {
            return;
        }
        let noted = self.act(|core, now| {
            let (mut outcomes, mut actions) = (Vec::with_capacity(words.len()), Vec::new());
            for Word { sender, message, status } in &words {
                let is_member = message.sender_type().is_some_and(|its_type| core.is_admitted(*sender, its_type));
                let outcome = if !is_member {
                    // What was on its way when its sender was put out comes too late.
                    Err(Fault::new(FaultCode::Revoked, "the sender was put out, or has never been in"))
                } else if status.publisher != *sender {
                    actions.extend(core.heard(*sender, now));
                    Err(Fault::new(FaultCode::NotAuthorized, "`publisher` is not the sender"))
                } else {
                    actions.extend(core.heard(*sender, now));
                    actions.extend(core.status(message.envelope().transaction, status, now));
                    Ok(())
                };
                outcomes.push(outcome);
            }
            (outcomes, actions)
        });
        let outcomes = match noted.await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the store failed");
                // Not acknowledged: they come again.
                return words.iter().for_each(|word| self.inner.bus.forget(&word.message));
            }
        };
        for (Word { sender, message, status }, outcome) in words.iter().zip(outcomes) {
            match outcome {
                Ok(()) => self.noted(*sender, message, status),
                Err(fault) => {
                    self.inner.bus.count_refusal(&fault);
                    self.answer(*sender, message, &fault);
                }
            }
        }
    }

    /// A status is stored.
    fn noted(&self, sender: ComponentId, message: &Authentic, status: &StatusNotification) {
        if status.phase.is_some_and(Phase::is_terminal) {
            self.inner.bus.acknowledge(message, Topic::Admin(sender));
        }
        if status.code.ends_with(".refused") || status.code.starts_with("security.") {
            let fault = status.fault.as_ref().map(ToString::to_string).unwrap_or_default();
            let code = proto::limits::shown(&status.code);
            tracing::warn!(component = %sender, code, fault, "{}", proto::limits::shown(&status.message));
            self.count_security(&code);
        }
    }
}
