//! The router, and links to it that end cleanly whatever happens to their task.

use std::sync::Arc;
use std::time::Duration;

use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Notification, Router, RouterConfig, SegmentConfig};
use tokio::time::timeout;

/// Makes a link for a client id; blocks. The router's event type has no public name, hence the closure.
pub(crate) type Linker = Arc<dyn Fn(&str) -> Result<(LinkTx, LinkRx, Notification), LinkError> + Send + Sync>;

/// Bytes that a filter's log may hold: what is not read before the log is full is lost, and the
/// outbox of its sender sends it again.
fn segments(kib: usize, count: usize) -> SegmentConfig {
    SegmentConfig { max_segment_size: kib * 1024, max_segment_count: count }
}

/// Starts the router on its thread.
pub(crate) fn spawn(connections_max: usize) -> Linker {
    let common = segments(4 * 1024, 3);
    let config = RouterConfig {
        // The front's own limit is lower: at the router's, a client is refused without a word.
        max_connections: connections_max + 16,
        max_outgoing_packet_count: 100,
        max_segment_size: common.max_segment_size,
        max_segment_count: common.max_segment_count,
        custom_segment: None,
        initialized_filters: None,
        shared_subscriptions_strategy: rumqttd::Strategy::default(),
    };
    let sender = Router::new(0, config).spawn();
    // Never a will and never a topic alias: the router cannot authorise one and mixes up the other.
    Arc::new(move |id| LinkBuilder::new(id, sender.clone()).clean_session(true).build())
}

/// Both halves of a link, owned by one task. After the link has said goodbye it is never woken: the
/// router dies of a wake-up for a connection that it has forgotten.
pub(crate) struct Link {
    pub(crate) tx: LinkTx,
    pub(crate) rx: LinkRx,
    is_gone: bool,
}

fn goodbye() -> Packet {
    Packet::Disconnect(Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection }, None)
}

impl Link {
    pub(crate) fn new(tx: LinkTx, rx: LinkRx) -> Self {
        Self { tx, rx, is_gone: false }
    }

    /// Hands packets to the router in one event.
    pub(crate) async fn send(&mut self, mut packets: Vec<Packet>) -> Result<(), LinkError> {
        let Some(last) = packets.pop() else { return Ok(()) };
        self.tx.buffer().extend(packets);
        self.tx.send(last).await.map(|_| ())
    }

    /// Says goodbye and waits until the router has dropped the link, so that its id can be used again.
    pub(crate) async fn close(mut self) {
        self.is_gone = true;
        if self.tx.send(goodbye()).await.is_ok() {
            let drained = async { while self.rx.next().await.is_ok() {} };
            let _ = timeout(Duration::from_secs(super::limits::ROUTER_ECHO_SECONDS), drained).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.is_gone {
            // The task ended without `close`: say goodbye without waiting. Unsubscribing from nothing
            // is how the router is told to look at the buffer.
            self.tx.buffer().push_back(goodbye());
            let _ = self.tx.try_unsubscribe("");
        }
    }
}
