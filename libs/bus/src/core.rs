//! The bus of one component: seals, opens, drops what it has seen, keeps what must arrive, matches
//! answers with questions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::envelope::{ENVELOPE_VERSION, Envelope};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, MessageId, TransactionId};
use proto::message::{Ack, Message};
use proto::seal::{Sealed, Sealer};
use proto::topic::Topic;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::mqtt::rand_fraction;
use crate::open::{Authentic, Trust};
use crate::outbox::{Outbox, OutboxError};
use crate::{Incoming, IncomingReceiver, Quality, Transport, limits, packing};

/// Who a component is on the bus.
#[derive(Debug)]
pub struct BusSettings {
    /// Its id.
    pub own: ComponentId,
    /// Its key and certificate.
    pub sealer: Sealer,
    /// Whom it trusts.
    pub trust: Trust,
    /// Where durable messages wait.
    pub outbox: Outbox,
    /// The largest payload that it may publish.
    pub payload_bytes_max: usize,
}

/// What goes around a message.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The workflow.
    pub transaction: TransactionId,
    /// The message that is answered.
    pub in_reply_to: Option<MessageId>,
    /// Who is meant, where the topic does not say so.
    pub to: Option<ComponentId>,
    /// When it loses its meaning.
    pub expires: Option<Timestamp>,
}

impl Context {
    /// As part of a workflow.
    pub fn of(transaction: TransactionId) -> Self {
        Self { transaction, in_reply_to: None, to: None, expires: None }
    }

    /// As a workflow of its own.
    pub fn alone() -> Self {
        Self::of(TransactionId(Uuid::now_v7()))
    }

    /// In answer to a message.
    pub fn answering(message: &Authentic) -> Self {
        let envelope = message.envelope();
        Self { in_reply_to: Some(envelope.id), ..Self::of(envelope.transaction) }
    }
}

/// A message that is sealed and not sent yet: whoever has to prove later what it said keeps it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Its id.
    pub id: MessageId,
    /// SHA-256 of its envelope: what answers refer to.
    pub hash: ContentHash,
    /// The sealed message.
    pub sealed: Vec<u8>,
    topic: Topic,
    kind: &'static str,
}

/// What a component gets from its bus.
#[derive(Debug)]
pub enum Event {
    /// A session begins.
    Connected,
    /// The connection is lost; the bus tries again by itself.
    Disconnected(String),
    /// The broker does not let this component in: its certificate has run out, or it is no member any more.
    Refused(String),
    /// A message.
    Message(Box<Authentic>),
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It is larger than the bus carries.
    #[error("the message `{kind}` has {bytes} bytes; at most {limit} can be sent")]
    TooLarge {
        /// Its kind.
        kind: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It could not be kept.
    #[error("the message could not be kept for sending")]
    Outbox(#[from] OutboxError),
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Nobody answered in time.
    #[error("no answer to `{0}` within the deadline")]
    Timeout(&'static str),
    /// The answer is a fault.
    #[error("refused: {0}")]
    Fault(Fault),
}

/// What a receiver asks for, and up to a second more: whoever is told the same second does not come in the same instant.
pub fn put_off_for(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(limits::PUT_OFF_SECONDS_MAX)) + Duration::from_secs(1).mul_f64(rand_fraction())
}

/// A sealed message as it travels on a topic.
fn payload_of(topic: &Topic, sealed: Vec<u8>) -> Vec<u8> {
    if topic.may_be_packed() { packing::pack(sealed) } else { sealed }
}

fn reseal(outbox: &mut Outbox, sealer: &Sealer) {
    if let Err(error) = outbox.reseal(sealer) {
        tracing::error!(%error, "messages that wait could not be sealed again; they go out with the certificate that they have");
    }
}

struct State {
    outbox: Outbox,
    waiting: BTreeMap<MessageId, oneshot::Sender<Authentic>>,
    seen: BTreeMap<(ComponentId, MessageId), Option<Topic>>,
    seen_order: VecDeque<(ComponentId, MessageId)>,
    refused: BTreeMap<FaultCode, u64>,
    /// Durable messages that were refused for good, the newest last.
    given_up: VecDeque<MessageId>,
    /// Who waits for durable messages to be acknowledged or given up.
    unsettled: BTreeMap<MessageId, Vec<oneshot::Sender<()>>>,
}

impl State {
    /// Takes a durable message out of the outbox; whether it was there.
    fn settle(&mut self, id: MessageId) -> bool {
        // Whoever waits is told by the end of what it waits for.
        self.unsettled.remove(&id);
        self.outbox.acknowledged(id)
    }

    fn give_up(&mut self, id: MessageId) {
        self.given_up.push_back(id);
        if self.given_up.len() > limits::GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
    }
}

struct Inner {
    own: ComponentId,
    sealer: RwLock<Arc<Sealer>>,
    trust: Trust,
    payload_bytes_max: usize,
    transport: Box<dyn Transport>,
    sequence: AtomicU64,
    state: Mutex<State>,
}

/// The bus of one component; clones share it.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bus").field("own", &self.inner.own).finish_non_exhaustive()
    }
}

impl Bus {
    /// Starts the bus over a transport. Must be called inside a tokio runtime.
    pub fn start(
        settings: BusSettings,
        transport: Box<dyn Transport>,
        incoming: IncomingReceiver,
    ) -> (Self, mpsc::Receiver<Event>) {
        let mut outbox = settings.outbox;
        reseal(&mut outbox, &settings.sealer);
        let state = State {
            outbox,
            waiting: BTreeMap::new(),
            seen: BTreeMap::new(),
            seen_order: VecDeque::new(),
            refused: BTreeMap::new(),
            given_up: VecDeque::new(),
            unsettled: BTreeMap::new(),
        };
        let inner = Inner {
            own: settings.own,
            sealer: RwLock::new(Arc::new(settings.sealer)),
            trust: settings.trust,
            payload_bytes_max: settings.payload_bytes_max,
            transport,
            sequence: AtomicU64::new(0),
            state: Mutex::new(state),
        };
        let bus = Self { inner: Arc::new(inner) };
        let (events, receiver) = mpsc::channel(limits::DELIVERIES_MAX);
        tokio::spawn(bus.clone().receive(incoming, events));
        (bus, receiver)
    }

    /// The component's own id.
    pub fn own(&self) -> ComponentId {
        self.inner.own
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages refused since the start, by fault.
    pub fn refused(&self) -> Vec<(FaultCode, u64)> {
        self.state().refused.iter().map(|(code, count)| (*code, *count)).collect()
    }

    /// Durable messages that nobody has acknowledged yet.
    pub fn unacknowledged_count(&self) -> usize {
        self.state().outbox.len()
    }

    /// Whether a durable message still waits for its acknowledgement.
    pub fn is_unacknowledged(&self, id: MessageId) -> bool {
        self.state().outbox.contains(id)
    }

    /// Waits until a durable message is acknowledged, or given up.
    pub async fn settled(&self, id: MessageId) {
        let (waiting, settled) = oneshot::channel();
        {
            let mut state = self.state();
            if !state.outbox.contains(id) {
                return;
            }
            state.unsettled.entry(id).or_default().push(waiting);
        }
        let _ = settled.await;
    }

    /// Whether a durable message was refused for good; what it said has arrived nowhere.
    pub fn was_given_up(&self, id: MessageId) -> bool {
        self.state().given_up.contains(&id)
    }

    /// Subscribes, now and after every reconnection.
    pub fn subscribe(&self, filters: Vec<String>) {
        self.inner.transport.subscribe(filters);
    }

    /// Goes on with a new certificate. What waits in the outbox is sealed again, so that it does not expire with the
    /// old one; its envelope, and with it its id, stays.
    pub fn renew(&self, sealer: Sealer) {
        let sealer = Arc::new(sealer);
        *self.inner.sealer.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&sealer);
        reseal(&mut self.state().outbox, &sealer);
    }

    /// Believes what these CAs have signed from now on (DER), and nothing else.
    pub fn trust(&self, cas: Vec<Vec<u8>>) {
        self.inner.trust.replace(cas);
    }

    /// Seals something that is no message.
    pub fn seal<T>(&self, seal: impl FnOnce(&Sealer) -> T) -> T {
        seal(&self.inner.sealer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.inner.transport.close();
    }

    /// Seals a message that may be lost on its way.
    pub fn prepare<M: Message>(&self, topic: &Topic, body: &M, context: Context) -> Result<Prepared, SendError> {
        let (id, sealed) = self.sealed(topic, body, context)?;
        let envelope = Sealed::split(&sealed).map(|parts| ContentHash::of(parts.envelope));
        let hash = envelope.expect("what was just sealed comes apart");
        Ok(Prepared { id, hash, sealed, topic: topic.clone(), kind: M::KIND })
    }

    /// Whether much may be sent at the moment, with room left for what others have to say.
    pub fn has_room(&self) -> bool {
        self.inner.transport.room() > limits::QUEUE_MESSAGES_MAX / 2
    }

    /// Sends once more what was sealed before; with a new seal, where the certificate is another one now. Whoever has it
    /// already drops it.
    pub fn send_again(&self, topic: &Topic, sealed: &[u8]) {
        let sealer = Arc::clone(&self.inner.sealer.read().unwrap_or_else(PoisonError::into_inner));
        let Ok(parts) = Sealed::split(sealed) else { return };
        let payload = if sealer.has_sealed(&parts) { sealed.to_vec() } else { sealer.seal(parts.envelope) };
        self.inner.transport.publish(topic.to_string(), payload, Quality::AtLeastOnce);
    }

    /// Sends it.
    pub fn send_prepared(&self, message: Prepared) {
        let payload = payload_of(&message.topic, message.sealed);
        self.inner.transport.publish(message.topic.to_string(), payload, Quality::AtLeastOnce);
    }

    fn sealed<M: Message>(&self, topic: &Topic, body: &M, context: Context) -> Result<(MessageId, Vec<u8>), SendError> {
        let id = MessageId(Uuid::now_v7());
        let envelope = Envelope {
            v: ENVELOPE_VERSION,
            id,
            kind: M::KIND.to_owned(),
            from: self.inner.own,
            // The seal covers this, and not the topic.
            to: context.to.or_else(|| topic.receiver()),
            sent: Timestamp::now(),
            expires: context.expires,
            in_reply_to: context.in_reply_to,
            transaction: context.transaction,
            seq: self.inner.sequence.fetch_add(1, Ordering::Relaxed),
            body: serde_json::value::to_raw_value(body).expect("a message always serialises"),
        };
        let sealer = Arc::clone(&self.inner.sealer.read().unwrap_or_else(PoisonError::into_inner));
        let sealed = sealer.seal(&envelope.to_bytes());
        if sealed.len() > self.inner.payload_bytes_max {
            let limit = self.inner.payload_bytes_max;
            return Err(SendError::TooLarge { kind: M::KIND, bytes: sealed.len(), limit });
        }
        Ok((id, sealed))
    }

    /// Sends a message that may be lost: an answer, a heartbeat, a progress report.
    pub fn send<M: Message>(&self, topic: &Topic, body: &M, context: Context) -> Result<MessageId, SendError> {
        let (id, sealed) = self.sealed(topic, body, context)?;
        self.inner.transport.publish(topic.to_string(), payload_of(topic, sealed), Quality::AtLeastOnce);
        Ok(id)
    }

    /// Says that a message is stored. Whoever does not hear it sends the message again, and hears it then: on its way nobody else
    /// has to say that it has come.
    fn send_acknowledgement(&self, topic: &Topic, message: &Authentic) {
        let ack = Ack { message: message.envelope().id };
        if let Ok((_, sealed)) = self.sealed(topic, &ack, Context::answering(message)) {
            self.inner.transport.publish(topic.to_string(), payload_of(topic, sealed), Quality::AtMostOnce);
        }
    }

    /// Sends a message that must arrive: when this returns it is on the disk, and it is sent until
    /// the receiver acknowledges it.
    pub fn send_durable<M: Message>(&self, topic: &Topic, body: &M, context: Context) -> Result<MessageId, SendError> {
        let id = {
            // Sealed while nobody renews: what is kept has the latest certificate, or is sealed again.
            let mut state = self.state();
            let (id, sealed) = self.sealed(topic, body, context)?;
            state.outbox.keep(id, &topic.to_string(), &payload_of(topic, sealed))?;
            id
        };
        self.pump();
        Ok(id)
    }

    /// Asks and waits for the answer.
    pub async fn request<Q: Message, A: Message>(
        &self,
        topic: &Topic,
        question: &Q,
        context: Context,
        deadline: Duration,
    ) -> Result<A, RequestError> {
        self.ask(self.prepare(topic, question, context)?, deadline).await
    }

    /// Asks with a message that was sealed before, and waits for the answer.
    pub async fn ask<A: Message>(&self, question: Prepared, deadline: Duration) -> Result<A, RequestError> {
        let (id, kind) = (question.id, question.kind);
        let (answered, answer) = oneshot::channel();
        self.state().waiting.insert(id, answered);
        self.send_prepared(question);
        let answer = tokio::time::timeout(deadline, answer).await;
        self.state().waiting.remove(&id);
        let Ok(Ok(answer)) = answer else { return Err(RequestError::Timeout(kind)) };
        if answer.envelope().kind == Fault::KIND {
            return Err(RequestError::Fault(answer.envelope().decode::<Fault>().unwrap_or_else(|fault| fault)));
        }
        answer.envelope().decode::<A>().map_err(RequestError::Fault)
    }

    /// Acknowledges a durable message, and again whenever it comes again.
    pub fn acknowledge(&self, message: &Authentic, topic: Topic) {
        let envelope = message.envelope();
        self.send_acknowledgement(&topic, message);
        if let Some(seen) = self.state().seen.get_mut(&(envelope.from, envelope.id)) {
            *seen = Some(topic);
        }
    }

    /// The message could not be taken now: when it comes again, it is new.
    pub fn forget(&self, message: &Authentic) {
        let envelope = message.envelope();
        self.state().seen.remove(&(envelope.from, envelope.id));
    }

    /// Sends what is due from the outbox.
    fn pump(&self) {
        let most = self.inner.transport.room().min(limits::QUEUE_MESSAGES_MAX / 4);
        let due = self.state().outbox.due(Instant::now(), most);
        for (topic, payload) in due {
            if !self.inner.transport.publish(topic, payload, Quality::AtLeastOnce) {
                break;
            }
        }
    }

    /// What the clock was wrong for is said again by whoever said it: it is told as if it had been refused.
    fn give_up_what_is_of_the_future(&self) {
        let mut state = self.state();
        for id in state.outbox.of_the_future(Timestamp::now(), Instant::now()) {
            state.settle(id);
            state.give_up(id);
            tracing::error!(%id, "a durable message was made while the clock was ahead, and is given up");
        }
    }

    async fn receive(self, mut incoming: IncomingReceiver, events: mpsc::Sender<Event>) {
        let mut resend = tokio::time::interval(Duration::from_secs(1));
        resend.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                received = incoming.recv() => match received {
                    None => return,
                    Some(Incoming::Connected) => {
                        self.state().outbox.session_began();
                        self.pump();
                        Some(Event::Connected)
                    }
                    Some(Incoming::Disconnected(reason)) => Some(Event::Disconnected(reason)),
                    Some(Incoming::Refused(reason)) => Some(Event::Refused(reason)),
                    Some(Incoming::Message { topic, payload }) => self.take(&topic, &payload),
                },
                _ = resend.tick() => {
                    self.give_up_what_is_of_the_future();
                    self.pump();
                    None
                }
            };
            if let Some(event) = event
                && events.send(event).await.is_err()
            {
                return;
            }
        }
    }

    /// Opens a message; the bus itself handles acknowledgements, answers and repetitions.
    fn take(&self, topic: &str, payload: &[u8]) -> Option<Event> {
        let message = match self.inner.trust.open(topic, payload, self.inner.own, Timestamp::now()) {
            Ok(message) => message,
            Err(fault) => {
                self.refuse(topic, &fault);
                return None;
            }
        };
        let envelope = message.envelope();
        let key = (envelope.from, envelope.id);
        let mut state = self.state();
        if let Some(seen) = state.seen.get(&key).cloned() {
            *state.refused.entry(FaultCode::Replayed).or_default() += 1;
            drop(state);
            if let Some(topic) = seen {
                self.send_acknowledgement(&topic, &message);
            }
            return None;
        }
        state.seen.insert(key, None);
        state.seen_order.push_back(key);
        if state.seen_order.len() > limits::SEEN_IDS_MAX
            && let Some(oldest) = state.seen_order.pop_front()
        {
            state.seen.remove(&oldest);
        }
        // A stranger's words end nothing here.
        if message.sender_type().is_none() {
            return Some(Event::Message(Box::new(message)));
        }
        if let (true, Some(refused)) = (envelope.kind == Fault::KIND, envelope.in_reply_to)
            && envelope.decode::<Fault>().is_ok_and(|fault| !fault.code.is_retryable())
            && state.settle(refused)
        {
            state.give_up(refused);
            tracing::error!(id = %refused, by = %envelope.from, "a durable message was refused for good, and is given up");
            return None;
        }
        if let (true, Some(refused)) = (envelope.kind == Fault::KIND, envelope.in_reply_to)
            && let Ok(Fault { retry_after_seconds: Some(seconds), .. }) = envelope.decode()
            && match seconds {
                0 => state.outbox.call_in(refused, Instant::now()),
                _ => state.outbox.put_off(refused, Instant::now() + put_off_for(seconds)),
            }
        {
            drop(state);
            self.pump();
            return None;
        }
        if envelope.kind == Ack::KIND {
            if let Ok(ack) = envelope.decode::<Ack>() {
                state.settle(ack.message);
            }
            return None;
        }
        if let Some(waiting) = envelope.in_reply_to.and_then(|question| state.waiting.remove(&question)) {
            let _ = waiting.send(message);
            return None;
        }
        // A fault ends what it answers and is never answered itself: two components that refuse each
        // other's faults would do nothing else any more.
        if envelope.kind == Fault::KIND {
            drop(state);
            if let Ok(fault) = envelope.decode::<Fault>() {
                tracing::warn!(topic, by = %envelope.from, %fault, "a message of this component was refused");
            }
            return None;
        }
        Some(Event::Message(Box::new(message)))
    }

    fn refuse(&self, topic: &str, fault: &Fault) {
        *self.state().refused.entry(fault.code).or_default() += 1;
        tracing::warn!(topic, code = fault.code.as_str(), reason = fault.message, "message refused");
    }

    /// Counts a refusal that a component made itself.
    pub fn count_refusal(&self, fault: &Fault) {
        *self.state().refused.entry(fault.code).or_default() += 1;
    }
}
