//! How messages travel: sealed, over MQTT 5 and TLS (or in memory), at least once, with one effect.
//!
//! - A [`Transport`] moves bytes: [`mqtt`] over the network, [`memory`] inside a test.
//! - [`Bus`] seals what goes out and opens what comes in; only it makes an [`Authentic`] message.
//! - [`outbox`] keeps durable messages on disk until the receiver's application acknowledges them.
//!
//! Correctness never depends on the broker: every new session replays the outbox, receivers drop ids
//! that they have seen and acknowledge them again. This crate is the only one that names `rumqttc`.

pub mod certificate;
mod core;
pub mod memory;
pub mod mqtt;
mod open;
pub mod outbox;
mod packing;
pub mod tls;

pub use crate::core::{Bus, BusSettings, Context, Event, Prepared, RequestError, SendError, put_off_for};
pub use crate::open::{Authentic, Sender, Trust};

use tokio::sync::mpsc;

/// Whether whoever gets a message says so, on each part of its way (MQTT 5 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// QoS 0: what is lost is asked for again anyway, as an acknowledgement is by the message that it is for.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
}

/// Moves bytes between topics. Delivery may fail silently: what must arrive is in the outbox.
pub trait Transport: Send + Sync + 'static {
    /// Hands over a message; `false` where the queue is full or the transport is gone.
    fn publish(&self, topic: String, payload: Vec<u8>, quality: Quality) -> bool;

    /// How many messages it takes at the moment.
    fn room(&self) -> usize;

    /// Subscribes, now and after every reconnection.
    fn subscribe(&self, filters: Vec<String>);

    /// Ends the connection.
    fn close(&self);
}

/// What comes out of a transport.
#[derive(Debug)]
pub enum Incoming {
    /// A session begins; nothing of an earlier one is left.
    Connected,
    /// The connection is lost, with the reason; it will be tried again.
    Disconnected(String),
    /// The broker does not let this component in, with the reason; it will be tried again.
    Refused(String),
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its bytes.
        payload: Vec<u8>,
    },
}

/// The receiving end of a transport.
pub type IncomingReceiver = mpsc::Receiver<Incoming>;

/// Limits of this crate.
pub mod limits {
    /// Bytes of a sealed message from which on it is worth packing.
    pub const PACK_BYTES_MIN: usize = 2_048;
    /// Messages that wait for the network; more are refused, durable ones wait in the outbox.
    pub const QUEUE_MESSAGES_MAX: usize = 512;
    /// The same of a service, with what it answers: an answer that is lost is waited for, and asked for again. Thousands are told
    /// something at once.
    pub const SERVICE_QUEUE_MESSAGES_MAX: usize = 8_192;
    /// Messages in either direction that the broker, or a collector, has not acknowledged yet. There are thousands of collectors.
    pub const COLLECTOR_IN_FLIGHT_MAX: u16 = 64;
    /// The same of a service, to which thousands speak: where the machine is busy an acknowledgement takes long, and no more than
    /// these go through meanwhile.
    pub const SERVICE_IN_FLIGHT_MAX: u16 = 1_000;
    /// Durable messages refused for good that are remembered.
    pub const GIVEN_UP_MAX: usize = 1_000;
    /// Messages in an outbox.
    pub const OUTBOX_MESSAGES_MAX: usize = 20_000;
    /// Ids of messages that are remembered.
    pub const SEEN_IDS_MAX: usize = 65_536;
    /// Signers whose certificates are remembered as checked.
    pub const SIGNERS_MAX: usize = 20_000;
    /// Seconds after which a durable message that nobody acknowledged is sent again.
    pub const RESEND_SECONDS: u64 = 10;
    /// How often that time doubles, as long as nobody takes it.
    pub const RESEND_DOUBLINGS_MAX: u32 = 2;
    /// Seconds after which a message that was made while the clock was ahead is given up.
    pub const AHEAD_SECONDS: u64 = 30;
    /// Seconds for which a receiver may put off a message, or an answer, at most.
    pub const PUT_OFF_SECONDS_MAX: u64 = 600;
    /// Days after which a message is too old to be taken: replays are told by ids only so long.
    pub const AGE_DAYS_MAX: i64 = 30;
    /// Seconds without progress after which a connection is given up.
    pub const STUCK_SECONDS_MAX: u64 = 40;
    /// Seconds of the longest back-off between connections.
    pub const BACKOFF_SECONDS_MAX: u64 = 30;
    /// Messages that were received and wait for the component.
    pub const DELIVERIES_MAX: usize = 1_024;
}
