//! Where messages go. What a topic names the receiver of is put into that component's mailbox; everything else goes
//! through the router, over the one link that all connections share for publishing. Collectors have no link of their own,
//! which would cost each of them more memory than all the rest of its connection: what is broadcast to them comes in by
//! the shared link, too.
//!
//! The link also asks the router every few seconds whether it is alive. A router that died leaves the process up and
//! deaf, so without an echo the process ends and its supervisor starts it again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::topic::{self, Topic};
use rumqttd::Notification;
use rumqttd::protocol::{Filter, Packet, PingReq, PubAck, PubAckReason, QoS, RetainForwardRule, Subscribe};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::mailbox::{Delivery, Mailbox, Posted};
use super::metrics::Metrics;
use super::router::{Link, Linker};
use super::{blocking, codec, limits};

/// Messages that wait for the router; whoever sends more waits with them.
const QUEUE_MAX: usize = 1_024;
/// Messages that the router gets in one event.
const BATCH_MAX: usize = 256;

/// Mailboxes of those who are connected.
#[derive(Debug, Default)]
pub(super) struct Mailboxes(RwLock<HashMap<ComponentId, Arc<Mailbox>>>);

impl Mailboxes {
    /// Somebody has connected: this is its mailbox.
    pub(super) fn enter(&self, id: ComponentId, mailbox: &Arc<Mailbox>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(mailbox));
    }

    /// Its connection has ended.
    pub(super) fn leave(&self, id: ComponentId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn post(&self, id: ComponentId, delivery: &Delivery) -> Posted {
        let mailbox = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        mailbox.map_or(Posted::Nobody, |mailbox| mailbox.post(delivery))
    }
}

/// Moves messages between connections.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Components.
    pub(super) members: Arc<Mailboxes>,
    /// Connections without a certificate, by a client id that means nothing but here.
    pub(super) strangers: Mailboxes,
    queue: mpsc::Sender<Delivery>,
    metrics: Arc<Metrics>,
}

impl Exchange {
    pub(super) async fn start(linker: Linker, metrics: Arc<Metrics>) -> Option<Self> {
        let (tx, rx, _) = blocking(move || linker("front")).await?.ok()?;
        let (queue, incoming) = mpsc::channel(QUEUE_MAX);
        let members = Arc::new(Mailboxes::default());
        let shared = Shared { link: Link::new(tx, rx), members: Arc::clone(&members), metrics: Arc::clone(&metrics) };
        tokio::spawn(shared.run(incoming));
        Some(Self { members, strangers: Mailboxes::default(), queue, metrics })
    }

    /// Sends a message on its way.
    pub(super) async fn publish(&self, topic: &Topic, delivery: Delivery) -> Posted {
        let Some(receiver) = topic.receiver() else {
            let sent = self.queue.send(delivery).await;
            return if sent.is_ok() { Posted::Taken } else { Posted::Nobody };
        };
        let is_for_stranger = matches!(topic, Topic::RegistrationAnswer(_));
        let mailboxes = if is_for_stranger { &self.strangers } else { &*self.members };
        let posted = mailboxes.post(receiver, &delivery);
        count(&self.metrics, posted);
        posted
    }

    /// The same for a stranger's message, which nobody waits for: `false` where the queue is full.
    pub(super) fn try_publish(&self, delivery: Delivery) -> bool {
        self.queue.try_send(delivery).is_ok()
    }
}

fn count(metrics: &Metrics, posted: Posted) {
    match posted {
        Posted::Taken => metrics.deliveries_total.up(),
        Posted::Nobody => metrics.deliveries_to_nobody_total.up(),
        Posted::Full => metrics.deliveries_dropped_total.up(),
    }
}

/// The shared link.
struct Shared {
    link: Link,
    members: Arc<Mailboxes>,
    metrics: Arc<Metrics>,
}

/// A dead router is no state to go on in.
fn die(why: &str) -> ! {
    tracing::error!("{why}: ending the process");
    std::process::abort();
}

impl Shared {
    async fn run(mut self, mut incoming: mpsc::Receiver<Delivery>) {
        let filters: Vec<Filter> = topic::shared_filters(ComponentType::PostureCollectionService)
            .map(|filter| Filter {
                path: filter.to_owned(),
                qos: QoS::AtLeastOnce,
                nolocal: false,
                preserve_retain: false,
                retain_forward_rule: RetainForwardRule::Never,
            })
            .collect();
        self.send(vec![Packet::Subscribe(Subscribe { pkid: 1, filters }, None)]).await;
        let mut ping = interval(Duration::from_secs(limits::ROUTER_ECHO_SECONDS / 2));
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = 0_u32;
        let mut packet_id = 0_u16;
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                taken = incoming.recv_many(&mut batch, BATCH_MAX) => {
                    if taken == 0 {
                        return self.link.close().await;
                    }
                    let packets = batch.drain(..).map(|Delivery { topic, payload, .. }| {
                        packet_id = packet_id % 1000 + 1;
                        Packet::Publish(codec::for_router(&topic, &payload, packet_id), None)
                    });
                    let packets = packets.collect();
                    self.send(packets).await;
                }
                _ = ping.tick() => {
                    // Counted in pings, not in time: a process that was suspended has asked nothing meanwhile.
                    if unanswered >= 3 {
                        die("the broker's router does not answer any more");
                    }
                    unanswered += 1;
                    self.send(vec![Packet::PingReq(PingReq)]).await;
                }
                notification = self.link.rx.next() => {
                    let Ok(mut notification) = notification else { die("the broker's router is gone") };
                    let mut acks = Vec::new();
                    let mut is_unscheduled = false;
                    loop {
                        match notification {
                            Some(Notification::DeviceAck(_)) => unanswered = 0,
                            Some(Notification::Unschedule) => is_unscheduled = true,
                            Some(Notification::Forward(forward)) => {
                                let (qos, pkid) = codec::meta(&forward.publish);
                                if qos > 0 {
                                    acks.push(Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None));
                                }
                                self.broadcast(&Delivery {
                                    topic: forward.publish.topic,
                                    payload: forward.publish.payload,
                                    is_acknowledged: qos > 0,
                                });
                            }
                            _ => {}
                        }
                        match self.link.rx.recv_deadline(Instant::now()) {
                            Ok(next) => notification = next,
                            Err(_) => break,
                        }
                    }
                    self.send(acks).await;
                    if is_unscheduled {
                        let _ = self.link.rx.wake().await;
                    }
                }
            }
        }
    }

    async fn send(&mut self, packets: Vec<Packet>) {
        if self.link.send(packets).await.is_err() {
            die("the broker's router is gone");
        }
    }

    /// Puts a message into the mailbox of everybody who wants it.
    fn broadcast(&self, delivery: &Delivery) {
        let members = self.members.0.read().unwrap_or_else(PoisonError::into_inner);
        for mailbox in members.values() {
            let posted = mailbox.post(delivery);
            if posted != Posted::Nobody {
                count(&self.metrics, posted);
            }
        }
    }
}
