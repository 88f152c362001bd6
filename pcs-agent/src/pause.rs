//! Whether the collector is paused: an operator has it look at nothing for a while.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// Until when nothing is looked at; shared by whoever hears of it and whoever looks.
#[derive(Debug, Default)]
pub struct Pause {
    /// Seconds since 1970; 0 where there is no pause.
    until: AtomicI64,
}

impl Pause {
    /// Until then; none: no longer.
    pub fn set(&self, until: Option<Timestamp>) {
        self.until.store(until.map_or(0, Timestamp::as_second), Ordering::Relaxed);
    }

    /// Until when nothing is looked at, where that is so now.
    pub fn until(&self) -> Option<Timestamp> {
        let until = self.until.load(Ordering::Relaxed);
        // Most of the time there is none, and nobody looks at the clock.
        (until > 0 && until > Timestamp::now().as_second()).then(|| Timestamp::from_second(until).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_by_itself_and_by_a_word() {
        let pause = Pause::default();
        assert_eq!(pause.until(), None);
        let soon = Timestamp::from_second(Timestamp::now().as_second() + 60).unwrap();
        pause.set(Some(soon));
        assert_eq!(pause.until(), Some(soon));
        pause.set(None);
        assert_eq!(pause.until(), None);
        pause.set(Some(Timestamp::from_second(1).unwrap()));
        assert_eq!(pause.until(), None);
    }
}
