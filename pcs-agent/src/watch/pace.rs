//! How often an object is looked at again because something told of it: a few times at once, and then now and then, so that
//! what changes all the time costs little.

use std::time::{Duration, Instant};

/// Looks that may follow each other as fast as there are changes.
const BURST: u32 = 8;
/// One more each so often.
const EACH: Duration = Duration::from_secs(15);

/// The pace of one object.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Up to when looks are paid for; none: there was none yet.
    paid_until: Option<Instant>,
    /// Something was told that no look has followed.
    is_owed: bool,
}

impl Pace {
    /// Something was told: a look is owed.
    pub(super) fn told(&mut self) {
        self.is_owed = true;
    }

    /// Whether a look is owed and it is time for it; it is not owed any more then.
    pub(super) fn is_time(&mut self, now: Instant) -> bool {
        let paid_until = self.paid_until.unwrap_or(now).max(now);
        if !self.is_owed || paid_until > now + EACH * (BURST - 1) {
            return false;
        }
        self.is_owed = false;
        self.paid_until = Some(paid_until + EACH);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_changes_are_looked_at_at_once_and_a_storm_now_and_then_with_none_forgotten() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        let at = |second: u64| began + Duration::from_secs(second);
        assert!(!pace.is_time(began), "nothing was told");
        let mut looks = 0;
        for second in 0..3_600 {
            pace.told();
            looks += u32::from(pace.is_time(at(second)));
        }
        assert!((240..=240 + BURST).contains(&looks), "{looks}");
        // The last change is followed by a look.
        assert!((3_600..3_700).any(|second| pace.is_time(at(second))));
        assert!(!pace.is_time(at(3_800)));
        // After a while of quiet it is as at first.
        for second in 7_200..7_200 + u64::from(BURST) {
            pace.told();
            assert!(pace.is_time(at(second)), "{second}");
        }
    }
}
