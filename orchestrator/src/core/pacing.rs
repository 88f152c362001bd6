//! After an outage everybody comes back at once. Handshakes cost something each; those that are too many get a time of their own
//! to come again, one after the other, and whoever comes then is not sent away again.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proto::id::ComponentId;

/// Handshakes a second that the orchestrator takes on: each is stored and flushed to disk.
pub const HANDSHAKES_PER_SECOND: i64 = 300;
/// Handshakes that are taken on at once, after a while without any.
pub const HANDSHAKES_AT_ONCE: i64 = 400;
/// How long a time that was given holds.
const PROMISE: SignedDuration = SignedDuration::from_secs(60);
/// How many times there are before those are looked for that nobody came for.
const SWEPT_MIN: usize = 1_024;
/// Whoever comes so much earlier has a clock of its own.
const EARLY: SignedDuration = SignedDuration::from_secs(1);

/// Seconds between two heartbeats of a component, at least: where there are few.
pub const HEARTBEAT_SECONDS_MIN: u64 = 20;
/// The same, at most: it says how late it may be known that a component is gone.
pub const HEARTBEAT_SECONDS_MAX: u64 = 300;
/// Milliseconds between two heartbeats of the fleet, at least: ten thousand components have a minute.
const HEARTBEAT_MILLIS: u64 = 6;

/// Seconds between two heartbeats of each of so many components.
pub fn heartbeat_seconds(components: usize) -> u64 {
    let millis = u64::try_from(components).unwrap_or(u64::MAX).saturating_mul(HEARTBEAT_MILLIS);
    millis.div_ceil(1_000).clamp(HEARTBEAT_SECONDS_MIN, HEARTBEAT_SECONDS_MAX)
}

/// When who may shake hands.
#[derive(Debug, Default)]
pub struct Pacing {
    /// When the next handshake would be, if they came one after the other.
    next: Option<Timestamp>,
    /// Who was told to come when.
    promised: BTreeMap<ComponentId, Timestamp>,
    /// How many of these there are when those who did not come are forgotten.
    swept_at: usize,
}

impl Pacing {
    /// Whether a component may shake hands now; if not, how long it has to wait.
    pub fn admit(&mut self, component: ComponentId, now: Timestamp) -> Result<(), SignedDuration> {
        let interval = SignedDuration::from_micros(1_000_000 / HANDSHAKES_PER_SECOND);
        if let Some(promised) = self.promised.get(&component).copied() {
            let early = promised.duration_since(now);
            if early > EARLY && early <= self.longest() {
                return Err(early);
            }
            self.promised.remove(&component);
            // Whoever comes much too late waits in line again.
            if early >= -PROMISE && early <= EARLY {
                return Ok(());
            }
        }
        if self.promised.len() >= self.swept_at.max(SWEPT_MIN) {
            // Not at every one: there may be thousands.
            self.promised.retain(|_, promised| now.duration_since(*promised) <= PROMISE);
            self.swept_at = 2 * self.promised.len();
        }
        // A clock that was set back leaves nobody waiting for the time that it showed before.
        let latest = now.saturating_add(self.longest()).unwrap_or(Timestamp::MAX);
        let next = self.next.unwrap_or(now).max(now).min(latest);
        let after = next.saturating_add(interval).unwrap_or(Timestamp::MAX);
        self.next = Some(after);
        let wait = next.duration_since(now);
        if wait <= interval * i32::try_from(HANDSHAKES_AT_ONCE).unwrap_or(i32::MAX) {
            return Ok(());
        }
        self.promised.insert(component, next);
        Err(wait)
    }

    /// How long anybody may have to wait: for everybody who was given a time, and what is taken on at once.
    fn longest(&self) -> SignedDuration {
        let ahead = i64::try_from(self.promised.len()).unwrap_or(i64::MAX).saturating_add(HANDSHAKES_AT_ONCE);
        SignedDuration::from_micros((1_000_000 / HANDSHAKES_PER_SECOND).saturating_mul(ahead.saturating_add(1)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    fn id(number: u64) -> ComponentId {
        ComponentId(Uuid::from_u64_pair(1, number))
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
    }

    /// Everybody comes at once, and again when it was told to; in which second each got in.
    fn come(pacing: &mut Pacing, count: u64, begins: i64) -> BTreeMap<i64, u64> {
        let mut due: BTreeSet<(i64, u64)> = (0..count).map(|number| (begins, number)).collect();
        let (mut seconds, mut asked) = (BTreeMap::new(), BTreeMap::<u64, u64>::new());
        while let Some((time, number)) = due.pop_first() {
            *asked.entry(number).or_default() += 1;
            match pacing.admit(id(number), at(time)) {
                Ok(()) => *seconds.entry((time - begins) / 1_000).or_default() += 1,
                // A second later at most, as components do by themselves.
                Err(wait) => {
                    let millis = i64::try_from(wait.as_millis()).unwrap() + i64::try_from(number % 1_000).unwrap();
                    due.insert((time + millis, number));
                }
            }
        }
        assert!(asked.values().all(|count| *count <= 2), "whoever comes when told is not sent away again");
        seconds
    }

    #[test]
    fn ten_thousand_come_back_one_after_the_other_and_none_is_sent_away_twice() {
        let mut pacing = Pacing::default();
        for begins in [0, 100_000] {
            let seconds = come(&mut pacing, 10_000, begins);
            assert_eq!(seconds.values().sum::<u64>(), 10_000);
            assert!(seconds.keys().max().unwrap() <= &35, "{seconds:?}");
            // The first of them are taken on at once; then it is what was meant, give or take who comes a little later.
            let rest = seconds.iter().skip(1).map(|(_, count)| *count).max().unwrap();
            assert!(rest <= 2 * HANDSHAKES_PER_SECOND.unsigned_abs(), "{seconds:?}");
        }
    }

    #[test]
    fn few_never_wait_and_whoever_comes_early_keeps_its_time() {
        let mut pacing = Pacing::default();
        for round in 0..20 {
            for number in 0..100 {
                assert_eq!(pacing.admit(id(number), at(round * 1_000)), Ok(()));
            }
        }
        let mut pacing = Pacing::default();
        for number in 0..1_000 {
            let _ = pacing.admit(id(number), at(0));
        }
        let wait = pacing.admit(id(999), at(0)).unwrap_err();
        assert_eq!(pacing.admit(id(999), at(500)).unwrap_err(), wait - SignedDuration::from_millis(500));
        assert_eq!(pacing.admit(id(999), at(0) + wait), Ok(()));
    }

    #[test]
    fn a_clock_that_jumps_locks_nobody_out() {
        let mut pacing = Pacing::default();
        for number in 0..2_000 {
            let _ = pacing.admit(id(number), at(0));
        }
        let back = at(-86_400_000);
        let wait = pacing.admit(id(1_999), back).unwrap_err();
        assert!(wait <= SignedDuration::from_secs(20), "{wait:?}");
        assert_eq!(pacing.admit(id(1_999), back + wait), Ok(()));
        let far = at(86_400_000);
        assert_eq!(pacing.admit(id(1_998), far), Ok(()));
    }
}
