//! How much a connection may send. One that wants more is not ended: it is not read for a while, so that its own queue
//! fills and nobody else's.

use std::time::Duration;

use proto::capability::ComponentType;
use tokio::time::Instant;

/// Something that fills up at a rate, to a limit.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    rate: f64,
    most: f64,
}

impl Bucket {
    fn new(rate: u32, seconds: u32) -> Self {
        let most = f64::from(rate) * f64::from(seconds);
        Self { left: most, rate: f64::from(rate), most }
    }

    fn fill(&mut self, passed: Duration) {
        self.left = (self.left + self.rate * passed.as_secs_f64()).min(self.most);
    }

    /// Takes so much, and says how long until nothing is owed.
    fn take(&mut self, amount: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a packet is far smaller than what a float counts exactly")]
        let amount = amount as f64;
        self.left -= amount;
        Duration::from_secs_f64((-self.left / self.rate).max(0.0))
    }
}

/// What a connection may send.
#[derive(Debug)]
pub(super) struct Budget {
    packets: Bucket,
    bytes: Bucket,
    filled: Instant,
}

/// Packets and bytes a second, and for how many seconds they may be saved up. A collector reports what it found in parts
/// of at most 256 KiB; services answer many collectors.
const COLLECTOR: (u32, u32) = (200, 4 * 1024 * 1024);
const SERVICE: (u32, u32) = (20_000, 256 * 1024 * 1024);
const SAVED_SECONDS: u32 = 10;

impl Budget {
    pub(super) fn of(component_type: ComponentType, now: Instant) -> Self {
        let (packets, bytes) = match component_type {
            ComponentType::PostureCollectionService => COLLECTOR,
            _ => SERVICE,
        };
        Self { packets: Bucket::new(packets, SAVED_SECONDS), bytes: Bucket::new(bytes, SAVED_SECONDS), filled: now }
    }

    /// So much was read; until when nothing more is to be read.
    pub(super) fn spend(&mut self, packets: usize, bytes: usize, now: Instant) -> Option<Instant> {
        let passed = now.duration_since(self.filled);
        self.filled = now;
        self.packets.fill(passed);
        self.bytes.fill(passed);
        let wait = self.packets.take(packets).max(self.bytes.take(bytes));
        (!wait.is_zero()).then(|| now + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_up_may_be_spent_at_once_and_then_no_more_than_comes_in() {
        let start = Instant::now();
        let mut budget = Budget::of(ComponentType::PostureCollectionService, start);
        assert_eq!(budget.spend(2_000, 1_000, start), None);
        let until = budget.spend(200, 1_000, start).unwrap();
        assert_eq!(until.duration_since(start), Duration::from_secs(1));
        // What is owed is paid first.
        assert_eq!(budget.spend(0, 0, until), None);
        assert!(budget.spend(1, 0, until).is_some());
        // Nobody saves up more than ten seconds' worth.
        let later = until + Duration::from_hours(1);
        assert_eq!(budget.spend(2_000, 0, later), None);
        assert!(budget.spend(1, 0, later).is_some());
    }

    #[test]
    fn bytes_count_as_packets_do() {
        let start = Instant::now();
        let mut budget = Budget::of(ComponentType::PostureCollectionService, start);
        assert_eq!(budget.spend(1, 40 * 1024 * 1024, start), None);
        assert!(budget.spend(1, 1, start).is_some());
    }
}
