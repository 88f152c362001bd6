//! Reports that are too many at once are sent back with a time to come again: one after the other, as fast as they are stored.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What storing a report takes, before any was.
const STORING: Duration = Duration::from_millis(5);
/// The most that is said of it: one that takes long, as something else does not answer, says little of the others.
const STORING_MAX: Duration = Duration::from_millis(100);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_mins(5);

/// How fast reports are stored, and when the next that is sent back may come again.
#[derive(Debug)]
pub(crate) struct Pacing {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    storing: Duration,
    next: Option<Instant>,
}

impl Pacing {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { storing: STORING, next: None }) }
    }

    /// A report was stored.
    pub(crate) fn stored(&self, took: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The last sixteen or so count.
        state.storing = (state.storing * 15 + took.min(STORING_MAX)) / 16;
    }

    /// After how many seconds a report may come again, while so many wait already.
    pub(crate) fn put_off(&self, waiting: usize, now: Instant) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let each = state.storing;
        let drained = now + each.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX)).min(WAIT_MAX);
        let next = state.next.map_or(drained, |next| next.max(drained)).min(now + WAIT_MAX);
        state.next = Some(next + each);
        // Whole seconds; whoever waits adds a part of one by chance.
        next.duration_since(now).as_secs().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn those_that_are_too_many_come_as_fast_as_they_are_stored() {
        let pacing = Pacing::new();
        for _ in 0..200 {
            pacing.stored(Duration::from_millis(4));
        }
        // One that hangs is one of many.
        pacing.stored(Duration::from_mins(1));
        for _ in 0..200 {
            pacing.stored(Duration::from_millis(4));
        }
        let now = Instant::now();
        let mut seconds: BTreeMap<u64, u64> = BTreeMap::new();
        for _ in 0..9_000 {
            *seconds.entry(pacing.put_off(1_000, now)).or_default() += 1;
        }
        // A thousand wait: four seconds. Then 250 a second.
        assert_eq!(*seconds.keys().next().unwrap(), 4);
        assert!((36..=44).contains(seconds.keys().last().unwrap()), "{seconds:?}");
        assert!(seconds.values().all(|count| *count <= 260), "{seconds:?}");
        // When they have come, nobody waits for them.
        assert!(pacing.put_off(0, now + Duration::from_mins(2)) <= 1);
        for _ in 0..1_000_000 {
            assert!(pacing.put_off(10_000, now) <= 300);
        }
    }
}
