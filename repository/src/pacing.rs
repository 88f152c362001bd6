//! Reports that are too many at once are sent back with a time to come again: one after the other, as fast as they are stored. How
//! fast that is turns out better or worse than it was thought to be; who is next is called in as soon as there is room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::id::{ComponentId, MessageId, TransactionId};
use uuid::Uuid;

/// What storing a report takes, before any was.
const STORING: Duration = Duration::from_millis(5);
/// The most that is said of it: one that takes long, as something else does not answer, says little of the others.
const STORING_MAX: Duration = Duration::from_millis(100);
/// How many of the last reports say what storing one takes.
const REMEMBERED: u32 = 16;
/// How long a place in the line is kept, and how much earlier somebody may come.
const PROMISE: Duration = Duration::from_secs(30);
const EARLY: Duration = Duration::from_secs(1);
/// How long it takes those who come now, at most: others are called in place of those who do not.
const ON_THEIR_WAY: Duration = Duration::from_secs(2);
/// How many places there are before those are looked for that nobody came for.
const SWEPT_MIN: usize = 1_024;
/// Places of one sender: whatever it reports beyond these comes when its time is over, and has none.
const OF_ONE_MAX: usize = 16;
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_mins(5);

/// How fast reports are stored, and when the next that is sent back may come again.
#[derive(Debug)]
pub(crate) struct Pacing {
    state: Mutex<State>,
}

/// A report that is sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentBack {
    pub(crate) to: ComponentId,
    pub(crate) message: MessageId,
    pub(crate) transaction: TransactionId,
}

impl SentBack {
    fn key(&self) -> Key {
        (self.to, self.message)
    }
}

/// A report: whose, and which.
type Key = (ComponentId, MessageId);

/// Before every other.
const FIRST: Key = (ComponentId(Uuid::nil()), MessageId(Uuid::nil()));

#[derive(Debug)]
struct State {
    storing: Duration,
    next: Option<Instant>,
    /// Which report has a place. It has one, however often it comes.
    promised: BTreeMap<Key, Promise>,
    /// The same, in the order of the line.
    line: BTreeSet<(Instant, Key)>,
    /// How many of these there are when those who did not come are forgotten.
    swept_at: usize,
}

#[derive(Debug)]
struct Promise {
    report: SentBack,
    /// When its sender was told to come. The place is kept until then, whether or not it is called in before: a call may be lost.
    told: Instant,
    /// When it is to come: as it was told, or since it was called in.
    at: Instant,
}

impl State {
    fn forget(&mut self, key: Key) {
        if let Some(Promise { at, .. }) = self.promised.remove(&key) {
            self.line.remove(&(at, key));
        }
    }

    fn set(&mut self, key: Key, at: Instant) {
        if let Some(promise) = self.promised.get_mut(&key) {
            self.line.remove(&(promise.at, key));
            promise.at = at;
            self.line.insert((at, key));
        }
    }

    /// Forgets those who did not come.
    fn sweep(&mut self, now: Instant) {
        self.promised.retain(|_, promise| now.duration_since(promise.told) <= PROMISE);
        self.line.retain(|(_, key)| self.promised.contains_key(key));
        self.swept_at = 2 * self.promised.len().max(SWEPT_MIN);
    }
}

impl Pacing {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                storing: STORING,
                next: None,
                promised: BTreeMap::new(),
                line: BTreeSet::new(),
                swept_at: SWEPT_MIN,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many reports were stored.
    pub(crate) fn stored(&self, took: Duration, count: u32) {
        let mut state = self.state();
        let each = (took / count.max(1)).min(STORING_MAX);
        // The last sixteen or so count.
        let count = count.min(REMEMBERED);
        state.storing = (state.storing * (REMEMBERED - count) + each * count) / REMEMBERED;
    }

    /// Whether a report comes when it was told to: places are kept for those.
    pub(crate) fn is_promised(&self, sender: ComponentId, message: MessageId, now: Instant) -> bool {
        let state = self.state();
        let promise = state.promised.get(&(sender, message));
        promise.is_some_and(|Promise { told, at, .. }| *at <= now + EARLY && now.duration_since(*told) <= PROMISE)
    }

    /// A report has found its place: it has no other.
    pub(crate) fn taken(&self, sender: ComponentId, message: MessageId) {
        self.state().forget((sender, message));
    }

    /// After how many seconds a report may come again, while so many wait already.
    pub(crate) fn put_off(&self, report: SentBack, waiting: usize, now: Instant) -> u64 {
        let mut state = self.state();
        let (key, until) = (report.key(), |time: Instant| time.duration_since(now).as_secs().max(1));
        if let Some(told) = state.promised.get(&key).map(|promise| promise.told)
            && told > now
        {
            // Whoever was called in, and found no room, still has the place that it was told.
            state.set(key, told);
            return until(told);
        }
        // Its time is over.
        state.forget(key);
        if state.promised.len() >= state.swept_at {
            // Not at every one: there may be thousands.
            state.sweep(now);
        }
        let each = state.storing;
        let drained = now + each.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX)).min(WAIT_MAX);
        let next = state.next.map_or(drained, |next| next.max(drained)).min(now + WAIT_MAX);
        let of_it = state.promised.range((report.to, FIRST.1)..).take_while(|((sender, _), _)| *sender == report.to);
        if of_it.count() < OF_ONE_MAX {
            state.next = Some(next + each);
            state.promised.insert(key, Promise { report, told: next, at: next });
            state.line.insert((next, key));
        }
        // Whole seconds; whoever waits adds a part of one by chance.
        until(next)
    }

    /// The reports that are next, where there is room for so many: they need not wait as long as they were told. Those that come
    /// about now anyway need some of the room.
    pub(crate) fn call_in(&self, room: usize, now: Instant) -> Vec<SentBack> {
        let mut state = self.state();
        let long_ago = now.checked_sub(ON_THEIR_WAY).unwrap_or(now);
        let coming = state.line.range((long_ago, FIRST)..(now + EARLY, FIRST)).take(room).count();
        let next: Vec<Key> =
            state.line.range((now + EARLY, FIRST)..).take(room - coming).map(|(_, key)| *key).collect();
        let mut called = Vec::with_capacity(next.len());
        for key in next {
            state.set(key, now);
            called.extend(state.promised.get(&key).map(|promise| promise.report));
        }
        if state.line.range((now + EARLY, FIRST)..).next().is_none() {
            // Nobody waits any more. Until then whoever comes anew comes after those who do.
            state.next = None;
        }
        called
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(number: u64) -> SentBack {
        let id = Uuid::from_u64_pair(1, number);
        SentBack { to: ComponentId(id), message: MessageId(id), transaction: TransactionId(id) }
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
            *seconds.entry(pacing.put_off(report(number), 1_000, now)).or_default() += 1;
        }
        // A thousand wait: four seconds. Then 250 a second.
        assert_eq!(*seconds.keys().next().unwrap(), 4);
        assert!((36..=44).contains(seconds.keys().last().unwrap()), "{seconds:?}");
        assert!(seconds.values().all(|count| *count <= 260), "{seconds:?}");
        // Whoever comes when it was told to has its place, once; whoever asks again and again has one and the same.
        let wait = Duration::from_secs(pacing.put_off(report(8_000), 1_000, now));
        let is_promised = |number, when| {
            let SentBack { to, message, .. } = report(number);
            pacing.is_promised(to, message, when)
        };
        assert!(!is_promised(8_000, now));
        assert!(is_promised(8_000, now + wait + EARLY));
        assert!(
            !pacing.is_promised(report(8_000).to, report(8_001).message, now + wait + EARLY),
            "with another report"
        );
        pacing.taken(report(8_000).to, report(8_000).message);
        assert!(!is_promised(8_000, now + wait + EARLY));
        assert!(!is_promised(100_000, now));
        let last = pacing.put_off(report(20_000), 1_000, now);
        for _ in 0..100_000 {
            assert_eq!(pacing.put_off(report(20_000), 1_000, now), last);
        }
        assert!(pacing.put_off(report(20_001), 1_000, now) <= last + 1);
        // When they have come, nobody waits for them.
        assert!(pacing.put_off(report(1), 0, now + Duration::from_mins(2)) <= 1);
        for number in 0..50_000 {
            assert!(pacing.put_off(report(number), 10_000, now) <= 300);
        }
    }

    #[test]
    fn who_is_next_is_called_in_where_there_is_room_and_each_but_once() {
        let pacing = Pacing::new();
        let now = Instant::now();
        for number in 0..1_000 {
            pacing.put_off(report(number), 1_000, now);
        }
        assert_eq!(pacing.call_in(0, now), []);
        assert_eq!(pacing.call_in(3, now), [report(0), report(1), report(2)]);
        // They are on their way: there is room for as many fewer.
        assert_eq!(pacing.call_in(3, now), []);
        assert_eq!(pacing.call_in(4, now), [report(3)]);
        for SentBack { to, message, .. } in (0..4).map(report) {
            assert!(pacing.is_promised(to, message, now));
            pacing.taken(to, message);
            assert!(!pacing.is_promised(to, message, now));
        }
        assert_eq!(pacing.call_in(2, now), [report(4), report(5)]);
        // One of them finds no room: it has the place that it was told, and may be called in again. Others are called in its place.
        let told = pacing.put_off(report(4), 1_000, now);
        assert!((4..=6).contains(&told), "{told}");
        assert_eq!(pacing.call_in(2, now), [report(4)]);
        // A call is lost: the place is there when it was told to be, and not for ever.
        let SentBack { to, message, .. } = report(4);
        assert!(pacing.is_promised(to, message, now + Duration::from_secs(told) + PROMISE));
        assert!(!pacing.is_promised(to, message, now + Duration::from_secs(told) + PROMISE + 2 * EARLY));
        // Whoever comes anew comes after those who wait.
        pacing.put_off(report(2_000), 1_000, now);
        let later = now + ON_THEIR_WAY + EARLY;
        let all = pacing.call_in(10_000, later);
        assert_eq!((all.len(), all.last()), (1_000 - 6 + 1, Some(&report(2_000))));
        // Nobody waits for those who were there.
        assert_eq!(pacing.call_in(10_000, later + Duration::from_mins(10)), []);
        assert!(pacing.put_off(report(5_000), 0, later) <= 1);
    }

    #[test]
    fn reports_of_one_sender_have_places_of_their_own_and_not_more_than_so_many() {
        let pacing = Pacing::new();
        let now = Instant::now();
        let of_one = |number: u128| SentBack { message: MessageId(Uuid::from_u128(number)), ..report(1) };
        for number in 0..20 {
            pacing.put_off(of_one(number), 1_000, now);
        }
        let called = pacing.call_in(3, now);
        assert_eq!(called, [of_one(0), of_one(1), of_one(2)]);
        // Another one that is sent back takes nothing from those.
        pacing.put_off(of_one(30), 1_000, now);
        assert!(called.iter().all(|report| pacing.is_promised(report.to, report.message, now)));
        assert_eq!(pacing.call_in(100, now).len(), OF_ONE_MAX - 3);
    }
}
