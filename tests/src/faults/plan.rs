//! What happens in a storm, from a seed: the same one, the same storm.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::truth;
use super::world::{COLLECTORS, COUNT, ORCHESTRATOR};
use crate::generate::Random;

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9`, and started again after a while.
    Kill,
    /// It is told to end, does, and is started again.
    Terminate,
    /// It does nothing for a while.
    Hold,
    /// Its connections are ended, and it gets no new ones for a while.
    Partition,
    /// Nothing comes through for a while, and nothing is ended.
    Silence,
    /// One record on its way is changed.
    Change,
    /// One comes twice.
    Repeat,
    /// One comes that nobody has sent.
    Insert,
    /// One does not come.
    Swallow,
    /// Two come in the other order.
    Swap,
    /// The disk of its data is full for a while.
    FullDisk,
    /// Its clock is wrong by seconds for a while.
    ClockSlip,
    /// Its clock is wrong by hours for a while.
    ClockJump,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::Terminate,
        Self::Hold,
        Self::Partition,
        Self::Silence,
        Self::Change,
        Self::Repeat,
        Self::Insert,
        Self::Swallow,
        Self::Swap,
        Self::FullDisk,
        Self::ClockSlip,
        Self::ClockJump,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Terminate => "terminate",
            Self::Hold => "hold",
            Self::Partition => "partition",
            Self::Silence => "silence",
            Self::Change => "change",
            Self::Repeat => "repeat",
            Self::Insert => "insert",
            Self::Swallow => "swallow",
            Self::Swap => "swap",
            Self::FullDisk => "full-disk",
            Self::ClockSlip => "clock-slip",
            Self::ClockJump => "clock-jump",
        }
    }

    /// The kind of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether it is about the way to the listener.
    fn is_on_the_wire(self) -> bool {
        matches!(self, Self::Partition | Self::Silence) || self.is_of_a_record()
    }

    /// Whether it is over as soon as it is done.
    fn is_of_a_record(self) -> bool {
        matches!(self, Self::Change | Self::Repeat | Self::Insert | Self::Swallow | Self::Swap)
    }

    /// What cannot be while this is.
    fn excludes(self, other: Self) -> bool {
        use Kind::{ClockJump, ClockSlip, Hold, Kill, Terminate};
        let both = |all: &[Self]| all.contains(&self) && all.contains(&other);
        self == other
            || both(&[Kill, Terminate])
            || both(&[ClockSlip, ClockJump])
            // Who is held is killed, but does not end by itself; who is not there is not held.
            || matches!((self, other), (Hold, Terminate) | (Kill | Terminate, Hold))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Something that an operator asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To evaluate all.
    Evaluate,
    /// To collect from all.
    Collect,
    /// To evaluate all, and whoever is away may come back for so many seconds.
    EvaluateLate(u64),
    /// To evaluate what is stored.
    EvaluateStored,
    /// To stop what was asked last.
    Cancel,
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A fault begins; the number says how far, or which way.
    Strike(Kind, usize, i64),
    /// It is over.
    Heal(Kind, usize),
    /// A fact of a collector's endpoint becomes so.
    Truth(usize, usize, bool),
    /// An operator asks.
    Ask(Asked),
    /// A lull, in which everything has to hold.
    Lull,
}

/// A storm: what happens, and when, in order.
#[derive(Debug)]
pub(super) struct Plan {
    /// Since its beginning.
    pub(super) events: Vec<(Duration, Event)>,
}

/// Faults after which there is a pause, and those after which it is a lull; in a short storm there is one, in the middle.
const PAUSE_EVERY: usize = 50;
const LULL_EVERY: usize = 100;
const PAUSE: Duration = Duration::from_secs(10);
/// How long after a fault facts change and operators ask because of it.
const AFTER_MILLISECONDS: usize = 500;

fn milliseconds(dice: &mut Random, range: std::ops::Range<usize>) -> Duration {
    Duration::from_millis((range.start + dice.below(range.end - range.start)) as u64)
}

impl Plan {
    /// So many faults of these kinds, one after the other or at the same time.
    pub(super) fn new(count: usize, kinds: &[Kind], dice: &mut Random) -> Self {
        let mut events = Vec::new();
        let mut open: BTreeMap<(usize, Kind), Duration> = BTreeMap::new();
        let (mut now, mut number) = (Duration::ZERO, 0);
        let is_every = |number: usize, usual: usize| number.is_multiple_of(usual.min(count.div_ceil(2)));
        while number < count {
            open.retain(|_, until| *until > now);
            let (kind, victim) = (kinds[dice.below(kinds.len())], dice.below(COUNT));
            let is_taken = open.keys().any(|(other, of)| *other == victim && of.excludes(kind));
            if is_taken || kind.is_on_the_wire() && victim == ORCHESTRATOR {
                // Time goes on, so that there is somebody at last.
                now += Duration::from_millis(1);
                continue;
            }
            number += 1;
            let lasts = Self::lasts(kind, dice);
            let measure = Self::measure(kind, dice);
            events.push((now, Event::Strike(kind, victim, measure)));
            if let Some(lasts) = lasts {
                open.insert((victim, kind), now + lasts);
                events.push((now + lasts, Event::Heal(kind, victim)));
            }
            if dice.once_in(2) {
                let (fact, is_met) = truth::change(dice);
                let collector = COLLECTORS.start + dice.below(COLLECTORS.len());
                events.push((now + milliseconds(dice, 0..AFTER_MILLISECONDS), Event::Truth(collector, fact, is_met)));
            }
            if dice.once_in(5) {
                let asked = match dice.below(8) {
                    0 | 1 => Asked::Collect,
                    2 => Asked::EvaluateStored,
                    3 | 4 => Asked::EvaluateLate(30 + dice.below(60) as u64),
                    5 => Asked::Cancel,
                    _ => Asked::Evaluate,
                };
                events.push((now + milliseconds(dice, 0..AFTER_MILLISECONDS), Event::Ask(asked)));
            }
            now += milliseconds(dice, 50..900);
            if number < count && (is_every(number, PAUSE_EVERY) || is_every(number, LULL_EVERY)) {
                let over = now + Duration::from_millis(AFTER_MILLISECONDS as u64);
                now = open.values().copied().fold(over, Duration::max);
                if is_every(number, LULL_EVERY) {
                    events.push((now, Event::Lull));
                } else {
                    now += PAUSE;
                }
            }
        }
        events.sort_by_key(|(at, _)| *at);
        Self { events }
    }

    /// How long it lasts; none: it is over at once.
    fn lasts(kind: Kind, dice: &mut Random) -> Option<Duration> {
        // Now and then longer than a lease, a keep-alive, or a back-off.
        let is_long = dice.once_in(15);
        match kind {
            kind if kind.is_of_a_record() => None,
            Kind::Kill | Kind::Terminate => Some(milliseconds(dice, 0..3_000)),
            Kind::Hold | Kind::Partition | Kind::Silence if is_long => Some(milliseconds(dice, 25_000..60_000)),
            _ => Some(milliseconds(dice, 500..6_000)),
        }
    }

    /// Seconds of a clock; of a record, which way it goes.
    fn measure(kind: Kind, dice: &mut Random) -> i64 {
        let number = |dice: &mut Random, end: usize| 1 + i64::try_from(dice.below(end)).unwrap_or_default();
        let size = match kind {
            Kind::ClockSlip => number(dice, 120),
            Kind::ClockJump => 3_600 * number(dice, 12),
            kind if kind.is_of_a_record() => 1,
            _ => return 0,
        };
        if dice.once_in(2) { size } else { -size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_storm_in_which_everything_begins_and_ends() {
        let plan = |seed| Plan::new(400, &Kind::ALL, &mut Random::new(seed)).events;
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        let mut open = Vec::new();
        let mut struck = BTreeMap::<Kind, usize>::new();
        let mut lulls = Vec::new();
        for (_, event) in plan(7) {
            match event {
                Event::Strike(kind, victim, _) => {
                    *struck.entry(kind).or_default() += 1;
                    assert!(!open.iter().any(|(of, other): &(Kind, usize)| *other == victim && of.excludes(kind)));
                    assert!(victim != ORCHESTRATOR || !kind.is_on_the_wire());
                    if !kind.is_of_a_record() {
                        open.push((kind, victim));
                    }
                }
                Event::Heal(kind, victim) => {
                    let at = open.iter().position(|one| *one == (kind, victim));
                    open.remove(at.expect("what ends has begun"));
                }
                Event::Lull => {
                    assert!(open.is_empty(), "{open:?}");
                    lulls.push(struck.values().sum::<usize>());
                }
                Event::Truth(..) | Event::Ask(_) => {}
            }
        }
        assert_eq!(lulls, [100, 200, 300]);
        let short = Plan::new(25, &Kind::ALL, &mut Random::new(3)).events;
        assert_eq!(short.iter().filter(|(_, event)| *event == Event::Lull).count(), 1);
        assert!(open.is_empty() && struck.values().sum::<usize>() == 400);
        assert!(Kind::ALL.iter().all(|kind| struck.contains_key(kind)), "{struck:?}");
    }
}
