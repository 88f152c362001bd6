//! The front's own link: it publishes for connections that have none (a join, a will), and asks the
//! router every few seconds whether it is alive. A router that died leaves the process up and deaf,
//! so without an echo the process ends and its supervisor starts it again.

use std::time::Duration;

use rumqttd::Notification;
use rumqttd::protocol::{Packet, PingReq, PubAck, PubAckReason};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::router::{Link, Linker};
use super::{blocking, codec, limits};

/// Publishes through the front's own link.
#[derive(Debug, Clone)]
pub(super) struct Injector {
    queue: mpsc::Sender<(String, Vec<u8>)>,
}

impl Injector {
    pub(super) async fn start(linker: Linker) -> Option<Self> {
        let (tx, rx, _) = blocking(move || linker("front")).await?.ok()?;
        let (queue, incoming) = mpsc::channel(256);
        tokio::spawn(run(Link::new(tx, rx), incoming));
        Some(Self { queue })
    }

    /// Queues a message; `false` where the queue is full.
    pub(super) fn publish(&self, topic: String, payload: Vec<u8>) -> bool {
        self.queue.try_send((topic, payload)).is_ok()
    }
}

async fn run(mut link: Link, mut incoming: mpsc::Receiver<(String, Vec<u8>)>) {
    let mut ping = interval(Duration::from_secs(limits::ROUTER_ECHO_SECONDS / 2));
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0_u32;
    let mut packet_id = 0_u16;
    loop {
        let packets = tokio::select! {
            message = incoming.recv() => {
                let Some((topic, payload)) = message else { return link.close().await };
                packet_id = packet_id % 1000 + 1;
                vec![Packet::Publish(codec::rebuilt(topic.as_bytes(), &payload, 1, packet_id), None)]
            }
            _ = ping.tick() => {
                // Counted in pings, not in time: a process that was suspended has asked nothing meanwhile.
                if unanswered >= 3 {
                    tracing::error!("the broker's router does not answer any more: ending the process");
                    std::process::abort();
                }
                unanswered += 1;
                vec![Packet::PingReq(PingReq)]
            }
            notification = link.rx.next() => {
                match notification {
                    Ok(Some(Notification::DeviceAck(_))) => unanswered = 0,
                    Ok(Some(Notification::Unschedule)) => { let _ = link.rx.wake().await; }
                    // This link subscribes to nothing; an acknowledgement costs nothing all the same.
                    Ok(Some(Notification::Forward(forward))) => {
                        let (_, pkid) = codec::meta(&forward.publish);
                        let _ = link.send(vec![Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None)]).await;
                    }
                    Ok(_) => {}
                    Err(_) => {
                        tracing::error!("the broker's router is gone: ending the process");
                        std::process::abort();
                    }
                }
                continue;
            }
        };
        if link.send(packets).await.is_err() {
            tracing::error!("the broker's router is gone: ending the process");
            std::process::abort();
        }
    }
}
