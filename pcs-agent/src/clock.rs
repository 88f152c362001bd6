//! The clock that observations are dated by: it does not go back. A repository keeps of each object what was collected last;
//! where a clock was ahead and is set back, all that is seen from then on would seem older than what was seen before, until
//! that time has come (ADR 40).
//!
//! `Clock` is pure: what the time is comes in from outside. `KeptClock` keeps it over a restart.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use proto::time::{SKEW_SECONDS_MAX, is_skewed};
use serde::{Deserialize, Serialize};

use crate::kept::{self, KeptError};

/// How long a time is remembered that was given out. Nobody takes one that is further ahead: after as long it is in the past, or
/// nobody has taken it.
const REMEMBERED: Duration = Duration::from_secs(SKEW_SECONDS_MAX.unsigned_abs());
/// Times that are remembered. More than one there is only where the clock jumps.
const GIVEN_MAX: usize = 16;
/// Repositories tell times apart that are so far from each other.
const LATER: SignedDuration = SignedDuration::from_micros(1);
/// How far what is sure to be on the disk is ahead of what is given out: it is flushed that seldom.
const STEP: SignedDuration = SignedDuration::from_secs(10);
/// Bytes of the file. It is written in place, which goes on where a disk is full.
const FILE_BYTES: usize = 512;
/// Says which start of the system this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A time, and when it was given out by a clock that nobody sets.
#[derive(Debug, Clone, Copy)]
struct Given {
    at: Timestamp,
    then: Instant,
}

/// The times that were given out, in order, as far as they matter: none that is soon followed by another.
#[derive(Debug, Default)]
pub struct Clock {
    given: Vec<Given>,
}

/// Whether a clock that says `now` is behind a time by more than others take.
fn is_too_far(time: Timestamp, now: Timestamp) -> bool {
    time > now && is_skewed(time, now)
}

impl Clock {
    /// A clock that has given out these.
    pub fn after(given: impl IntoIterator<Item = Timestamp>, then: Instant) -> Self {
        let mut given: Vec<Given> = given.into_iter().map(|at| Given { at, then }).collect();
        given.sort_unstable_by_key(|given| given.at);
        Self { given }
    }

    /// The time for what is looked at now: later than all that was given out before and that others may have taken.
    pub fn next(&mut self, now: Timestamp, instant: Instant) -> Timestamp {
        self.given.retain(|given| instant.saturating_duration_since(given.then) <= REMEMBERED);
        let later = self.given.iter().filter_map(|given| given.at.checked_add(LATER).ok());
        // Of a clock that was hours ahead nobody has taken anything.
        let next = later.filter(|time| !is_too_far(*time, now)).fold(now, Timestamp::max);
        // One stands for those shortly before it. What is further ahead may still be what the clock says next.
        self.given.retain(|given| given.at > next || is_skewed(given.at, next));
        let place = self.given.partition_point(|given| given.at < next);
        self.given.insert(place, Given { at: next, then: instant });
        if self.given.len() > GIVEN_MAX {
            self.given.remove(usize::from(place == 0));
        }
        next
    }

    /// What it has given out, as far as it matters.
    pub fn given(&self) -> impl Iterator<Item = Timestamp> {
        self.given.iter().map(|given| given.at)
    }
}

/// What is in the file: times in microseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kept {
    /// The start of the system in which it was written: what was written since is there, flushed or not.
    boot: String,
    given: Vec<i64>,
    /// Up to here times may have been given out since this was flushed.
    until: Option<i64>,
}

/// A clock that goes on after a restart, also after `kill -9` and when the power has failed.
#[derive(Debug)]
pub struct KeptClock {
    clock: Clock,
    path: PathBuf,
    boot: String,
    file: Option<File>,
    latest: Option<Timestamp>,
    /// The latest that is in the file.
    kept: Option<Timestamp>,
    /// Up to here the disk is sure to know of it.
    until: Option<Timestamp>,
}

impl KeptClock {
    /// The clock of an earlier process, in this start of the system.
    pub fn load(path: &Path) -> Result<Self, KeptError> {
        Self::load_in(path, std::fs::read_to_string(BOOT).unwrap_or_default().trim())
    }

    fn load_in(path: &Path, boot: &str) -> Result<Self, KeptError> {
        let (kept, file): (Kept, _) = match kept::load(path) {
            // Written in place, it may be damaged where the power has failed; nobody has to mend it.
            Err(KeptError::Damaged(path)) => {
                tracing::warn!(path = %path.display(), "damaged: observations are dated as if none had been made before");
                (Kept::default(), None)
            }
            kept => (kept?, File::options().write(true).open(path).ok()),
        };
        let is_complete = !boot.is_empty() && kept.boot == boot;
        let until = kept.until.filter(|_| !is_complete);
        let given = kept.given.into_iter().chain(until).filter_map(|time| Timestamp::from_microsecond(time).ok());
        Ok(Self {
            clock: Clock::after(given, Instant::now()),
            path: path.to_owned(),
            boot: boot.to_owned(),
            file,
            latest: None,
            kept: None,
            until: None,
        })
    }

    /// The time for what is looked at from now on.
    pub fn next(&mut self, now: Timestamp) -> Timestamp {
        let next = self.clock.next(now, Instant::now());
        self.latest = Some(next);
        next
    }

    /// What was given out is about to be sent: whatever becomes of the process, nothing later is dated before it.
    pub fn keep(&mut self) -> Result<(), KeptError> {
        let Some(latest) = self.latest.filter(|latest| self.kept != Some(*latest)) else { return Ok(()) };
        let failed = |source| KeptError::Io { path: self.path.clone(), source };
        // A clock that was set back is on the disk as well, and not only how far it was ahead.
        let is_sure = |until: &Timestamp| *until >= latest && until.duration_since(latest) <= STEP;
        let sure = self.until.filter(is_sure);
        let until = sure.unwrap_or_else(|| latest.saturating_add(STEP).unwrap_or(Timestamp::MAX));
        let given = self.clock.given().map(Timestamp::as_microsecond).collect();
        let kept = Kept { boot: self.boot.clone(), given, until: Some(until.as_microsecond()) };
        let mut bytes = serde_json::to_vec(&kept).expect("what is kept always serialises");
        bytes.resize(FILE_BYTES.max(bytes.len()), b'\n');
        if let Some(file) = &self.file {
            file.write_all_at(&bytes, 0).map_err(failed)?;
            if sure.is_none() {
                file.sync_data().map_err(failed)?;
            }
        } else {
            service::data::write_private(&self.path, &bytes).map_err(failed)?;
            self.file = Some(File::options().write(true).open(&self.path).map_err(failed)?);
        }
        (self.kept, self.until) = (Some(latest), Some(until));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// Seconds that clocks say, one second after the other; what is given out, in seconds and in microseconds beside them.
    fn check(said: &[i64], expect: &[(i64, i64)]) {
        let (mut clock, began) = (Clock::default(), Instant::now());
        let given = said.iter().zip(0..).map(|(said, second)| {
            let given = clock.next(at(*said), began + Duration::from_secs(second));
            let since = given.duration_since(at(0));
            (since.as_secs(), i64::from(since.subsec_micros()))
        });
        assert_eq!(given.collect::<Vec<_>>(), expect, "{said:?}");
    }

    #[test]
    fn a_clock_that_is_set_back_goes_on_from_where_it_was_until_that_time_has_come() {
        check(&[0, 1, 2], &[(0, 0), (1, 0), (2, 0)]);
        check(&[5, 5, 5], &[(5, 0), (5, 1), (5, 2)]);
        check(&[240, 1, 2, 239, 241], &[(240, 0), (240, 1), (240, 2), (240, 3), (241, 0)]);
    }

    #[test]
    fn a_clock_that_was_wrong_by_more_than_others_take_changes_nothing() {
        check(&[9_000, 1, 2], &[(9_000, 0), (1, 0), (2, 0)]);
        check(&[0, -9_000, 2], &[(0, 0), (-9_000, 0), (2, 0)]);
        // What was taken before it is later all the same.
        check(&[120, 9_000, 2, 80_000, 4], &[(120, 0), (9_000, 0), (120, 1), (80_000, 0), (120, 2)]);
        check(&[120, -9_000, 2], &[(120, 0), (-9_000, 0), (120, 1)]);
        // What nobody takes at the edge is not given out.
        check(&[301, 1], &[(301, 0), (301, 1)]);
        check(&[302, 1], &[(302, 0), (1, 0)]);
    }

    #[test]
    fn what_nobody_has_taken_is_forgotten_before_its_time_comes() {
        let (mut clock, began) = (Clock::default(), Instant::now());
        assert_eq!(clock.next(at(3_600), began), at(3_600));
        let later = began + REMEMBERED + Duration::from_secs(1);
        assert_eq!(clock.next(at(301), later), at(301));
        assert_eq!(clock.next(at(3_590), later + Duration::from_secs(3_289)), at(3_590));
    }

    proptest! {
        /// Receivers whose clocks are right take what is dated by a clock that is ahead by less than five minutes: each is
        /// later for a repository than all before, and none is further ahead than may be. One that is so much behind could only
        /// say what nobody would take.
        #[test]
        fn what_is_taken_is_always_later_than_what_was_taken_before(
            steps in prop::collection::vec((20_u64..200, prop_oneof![
                3 => Just(0_i64), 3 => -15_i64..280, 2 => 3_600_i64..40_000, 1 => -40_000_i64..-3_600,
            ], 0..8_u8), 1..60)
        ) {
            let (began, mut second) = (Instant::now(), 0);
            let (mut clock, mut taken) = (Clock::default(), i64::MIN);
            for (pause, ahead, chance) in steps {
                second += pause;
                let (instant, now) = (began + Duration::from_secs(second), at(i64::try_from(second).unwrap() + ahead));
                if chance == 0 {
                    clock = Clock::after(clock.given().collect::<Vec<_>>(), instant);
                }
                let given = clock.next(now, instant);
                prop_assert!(given >= now && !is_too_far(given, now));
                if ahead.abs() <= SKEW_SECONDS_MAX {
                    prop_assert!(given.as_microsecond() > taken, "{given} after {taken}");
                    taken = given.as_microsecond();
                }
            }
        }
    }

    /// A clock that has given this out and kept it.
    fn kept(path: &Path, boot: &str, second: i64) -> KeptClock {
        let mut clock = KeptClock::load_in(path, boot).unwrap();
        clock.next(at(second));
        clock.keep().unwrap();
        clock
    }

    #[test]
    fn after_a_kill_it_goes_on_exactly_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clock.json");
        let mut clock = kept(&path, "one", 200);
        // These are not flushed.
        clock.next(at(203));
        clock.keep().unwrap();
        assert_eq!(clock.until, Some(at(210)));
        let bytes = std::fs::read(&path).unwrap();
        drop(clock);
        let mut clock = KeptClock::load_in(&path, "one").unwrap();
        assert_eq!(clock.next(at(0)), at(203) + LATER);
        // What is not sent is not kept.
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        clock.keep().unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), FILE_BYTES);
        assert_eq!(KeptClock::load_in(&path, "one").unwrap().next(at(300)), at(300));
    }

    #[test]
    fn where_the_power_has_failed_it_is_later_than_what_may_have_been_given_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clock.json");
        let mut clock = kept(&path, "one", 200);
        let flushed = std::fs::read(&path).unwrap();
        clock.next(at(209));
        clock.keep().unwrap();
        // It comes back without what was not flushed.
        std::fs::write(&path, flushed).unwrap();
        assert_eq!(KeptClock::load_in(&path, "two").unwrap().next(at(0)), at(210) + LATER);
        assert_eq!(KeptClock::load_in(&path, "").unwrap().next(at(0)), at(210) + LATER);
        // A clock that was right is past it.
        assert_eq!(KeptClock::load_in(&path, "two").unwrap().next(at(240)), at(240));
        // Hours ahead, and set back: what is on the disk is how it is now.
        let mut clock = kept(&path, "two", 9_000);
        clock.next(at(240));
        clock.keep().unwrap();
        assert_eq!(clock.until, Some(at(250)));
        assert_eq!(KeptClock::load_in(&path, "three").unwrap().next(at(100)), at(250) + LATER);
    }

    #[test]
    fn a_file_that_is_damaged_or_not_there_keeps_nobody_from_looking() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clock.json");
        assert_eq!(KeptClock::load_in(&path, "one").unwrap().next(at(7)), at(7));
        std::fs::write(&path, "{\"boot\":").unwrap();
        let mut clock = kept(&path, "one", 8);
        assert_eq!(clock.next(at(8)), at(8) + LATER);
        assert_eq!(KeptClock::load_in(&path, "one").unwrap().next(at(1)), at(8) + LATER);
        // A directory that is not there any more: what cannot be kept is an error, and is tried again.
        let mut lost = KeptClock::load_in(&directory.path().join("no/clock.json"), "one").unwrap();
        lost.next(at(1));
        assert!(lost.keep().is_err() && lost.keep().is_err());
    }
}
