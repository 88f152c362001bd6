//! Reports that are too many at once are sent back with a time to come again: one after the other, as fast as they are stored.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::id::ComponentId;

/// What storing a report takes, before any was.
const STORING: Duration = Duration::from_millis(5);
/// The most that is said of it: one that takes long, as something else does not answer, says little of the others.
const STORING_MAX: Duration = Duration::from_millis(100);
/// How many of the last reports say what storing one takes.
const REMEMBERED: u32 = 16;
/// How long a place in the line is kept, and how much earlier somebody may come.
const PROMISE: Duration = Duration::from_secs(30);
const EARLY: Duration = Duration::from_secs(1);
/// How many places there are before those are looked for that nobody came for.
const SWEPT_MIN: usize = 1_024;
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
    /// Who was told to come again when: everybody has one place in the line, however often it asks.
    promised: BTreeMap<ComponentId, Instant>,
    /// How many of these there are when those who did not come are forgotten.
    swept_at: usize,
}

impl Pacing {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State { storing: STORING, next: None, promised: BTreeMap::new(), swept_at: SWEPT_MIN }),
        }
    }

    /// So many reports were stored.
    pub(crate) fn stored(&self, took: Duration, count: u32) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let each = (took / count.max(1)).min(STORING_MAX);
        // The last sixteen or so count.
        let count = count.min(REMEMBERED);
        state.storing = (state.storing * (REMEMBERED - count) + each * count) / REMEMBERED;
    }

    /// Whether somebody comes when it was told to: places are kept for those.
    pub(crate) fn is_promised(&self, sender: ComponentId, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = state.promised.get(&sender).is_some_and(|promised| *promised <= now + EARLY);
        is_due && state.promised.remove(&sender).is_some_and(|promised| now.duration_since(promised) <= PROMISE)
    }

    /// After how many seconds a sender's report may come again, while so many wait already.
    pub(crate) fn put_off(&self, sender: ComponentId, waiting: usize, now: Instant) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(promised) = state.promised.get(&sender).filter(|promised| **promised > now) {
            return promised.duration_since(now).as_secs().max(1);
        }
        if state.promised.len() >= state.swept_at {
            // Not at every one: there may be thousands.
            state.promised.retain(|_, promised| now.duration_since(*promised) <= PROMISE);
            state.swept_at = 2 * state.promised.len().max(SWEPT_MIN);
        }
        let each = state.storing;
        let drained = now + each.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX)).min(WAIT_MAX);
        let next = state.next.map_or(drained, |next| next.max(drained)).min(now + WAIT_MAX);
        state.next = Some(next + each);
        state.promised.insert(sender, next);
        // Whole seconds; whoever waits adds a part of one by chance.
        next.duration_since(now).as_secs().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn id(number: u64) -> ComponentId {
        ComponentId(Uuid::from_u64_pair(1, number))
    }

    #[test]
    fn those_that_are_too_many_come_as_fast_as_they_are_stored() {
        let pacing = Pacing::new();
        for _ in 0..200 {
            pacing.stored(Duration::from_millis(4), 1);
        }
        // One that hangs is one of many.
        pacing.stored(Duration::from_mins(1), 1);
        for _ in 0..200 {
            pacing.stored(Duration::from_millis(4), 1);
        }
        // Many that were stored together are as many.
        pacing.stored(Duration::from_millis(1_024), 256);
        let now = Instant::now();
        let mut seconds: BTreeMap<u64, u64> = BTreeMap::new();
        for number in 0..9_000 {
            *seconds.entry(pacing.put_off(id(number), 1_000, now)).or_default() += 1;
        }
        // A thousand wait: four seconds. Then 250 a second.
        assert_eq!(*seconds.keys().next().unwrap(), 4);
        assert!((36..=44).contains(seconds.keys().last().unwrap()), "{seconds:?}");
        assert!(seconds.values().all(|count| *count <= 260), "{seconds:?}");
        // Whoever comes when it was told to has its place, once; whoever asks again and again has one and the same.
        let wait = Duration::from_secs(pacing.put_off(id(8_000), 1_000, now));
        assert!(!pacing.is_promised(id(8_000), now));
        assert!(pacing.is_promised(id(8_000), now + wait + EARLY));
        assert!(!pacing.is_promised(id(8_000), now + wait + EARLY));
        assert!(!pacing.is_promised(id(100_000), now));
        let last = pacing.put_off(id(20_000), 1_000, now);
        for _ in 0..100_000 {
            assert_eq!(pacing.put_off(id(20_000), 1_000, now), last);
        }
        assert!(pacing.put_off(id(20_001), 1_000, now) <= last + 1);
        // When they have come, nobody waits for them.
        assert!(pacing.put_off(id(1), 0, now + Duration::from_mins(2)) <= 1);
        for number in 0..50_000 {
            assert!(pacing.put_off(id(number), 10_000, now) <= 300);
        }
    }
}
