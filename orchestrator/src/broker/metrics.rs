//! What the front counts. Each count says something about all connections: none names a component or an address, of
//! which there is no end.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident $kind:ident;)*) => {
        /// The counts of the front.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics { $($(#[doc = $doc])+ pub(crate) $name: Count,)* }

        impl Metrics {
            /// Each with its name, what it is, whether it only grows, and how much it is now.
            pub(crate) fn all(&self) -> Vec<(&'static str, &'static str, bool, u64)> {
                vec![$((
                    concat!("muster_broker_", stringify!($name)),
                    concat!($($doc),+).trim_ascii(),
                    stringify!($kind).len() == "counter".len(),
                    self.$name.now(),
                ),)*]
            }
        }
    };
}

counts! {
    /// Components that are connected.
    connections gauge;
    /// Components that have connected.
    connections_total counter;
    /// Strangers, who have no certificate, that have connected.
    strangers_total counter;
    /// Connections that did not get through the TLS handshake.
    handshakes_failed_total counter;
    /// Connections that were turned away: too many, or not on the roster.
    connections_refused_total counter;
    /// Messages that were taken from components.
    publishes_total counter;
    /// Bytes that were read from components.
    read_bytes_total counter;
    /// Messages that their senders may not send.
    publishes_denied_total counter;
    /// Subscriptions that were denied.
    subscriptions_denied_total counter;
    /// Messages that were handed to components.
    deliveries_total counter;
    /// Messages for components that do not read what waits for them.
    deliveries_dropped_total counter;
    /// Messages for components that are not connected.
    deliveries_to_nobody_total counter;
    /// Times that a component was not read for a while because it had sent more than it may.
    pauses_total counter;
    /// Connections that were ended because their component connected again or was put out.
    kicks_total counter;
    /// Connections that were given up because nothing could be written to them.
    slow_consumers_total counter;
    /// Wills that were published.
    wills_total counter;
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
    fn what_only_grows_says_so_in_its_name() {
        for (name, doc, only_grows, _) in Metrics::default().all() {
            assert_eq!(only_grows, name.ends_with("_total"), "{name}");
            assert!(doc.ends_with('.') && !doc.starts_with(' '), "{name}: {doc}");
        }
    }
}
