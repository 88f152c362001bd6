//! What the front counts. Each count says something about all connections: none names a component or an address, of
//! which there is no end. What only grows ends in `_total`.

use std::sync::atomic::{AtomicU64, Ordering};

use proto::operator::BrokerCount;

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident;)*) => {
        /// The counts of the front.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics { $($(#[doc = $doc])+ pub(crate) $name: Count,)* }

        impl Metrics {
            /// All, as they are now.
            pub(crate) fn all(&self) -> Vec<BrokerCount> {
                vec![$(BrokerCount {
                    name: stringify!($name).to_owned(),
                    help: concat!($($doc),+).trim_ascii().to_owned(),
                    value: self.$name.now(),
                },)*]
            }
        }
    };
}

counts! {
    /// Components that are connected.
    connected;
    /// Components that have connected.
    connections_total;
    /// Strangers, who have no certificate, that have connected.
    strangers_total;
    /// Connections that did not get through the TLS handshake.
    handshakes_failed_total;
    /// Connections that were turned away: too many, or not on the roster.
    connections_refused_total;
    /// Messages that were taken from components.
    publishes_total;
    /// Bytes that were read from components.
    read_bytes_total;
    /// Messages that their senders may not send.
    publishes_denied_total;
    /// Subscriptions that were denied.
    subscriptions_denied_total;
    /// Messages that were handed to components.
    deliveries_total;
    /// Messages for components that do not read what waits for them.
    deliveries_dropped_total;
    /// Messages for components that are not connected.
    deliveries_to_nobody_total;
    /// Times that a component was not read for a while because it had sent more than it may.
    pauses_total;
    /// Connections that were ended because their component connected again or was put out.
    kicks_total;
    /// Connections that were given up because nothing could be written to them.
    slow_consumers_total;
    /// Wills that were published.
    wills_total;
}

/// A number that threads count together.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub(crate) fn up(&self) {
        self.add(1);
    }

    /// So many more.
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_says_what_it_is() {
        for count in Metrics::default().all() {
            assert!(count.help.ends_with('.') && !count.help.starts_with(' '), "{count:?}");
            assert!(count.is_total() || count.name == "connected", "{count:?}");
        }
    }
}
