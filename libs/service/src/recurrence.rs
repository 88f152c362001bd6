//! When a schedule is due next. Pure: time comes in from outside.

use cronexpr::Crontab;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proto::schedule::{Day, OnMissed, Schedule, TimeWindow};
use serde::{Deserialize, Serialize};

/// Characters of a crontab expression.
const CRON_CHARS_MAX: usize = 256;
/// The end of the year 9000: calendars that are looked years ahead in end with 9999.
const LAST_SECOND: i64 = 221_845_392_000;
/// Windows of a schedule.
const WINDOWS_MAX: usize = 32;

/// A schedule that can be followed.
#[derive(Debug, Clone)]
pub struct Recurrence {
    rhythm: Rhythm,
    zone: TimeZone,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    windows: Vec<Window>,
    blackouts: Vec<Window>,
    jitter_seconds: u64,
}

#[derive(Debug, Clone)]
enum Rhythm {
    Every(SignedDuration),
    Cron(Box<Crontab>),
}

#[derive(Debug, Clone)]
struct Window {
    /// By their number from Monday; none: all.
    days: Vec<usize>,
    from: u32,
    until: u32,
}

/// Why a schedule cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecurrenceError {
    /// Neither of the two, or both.
    #[error("a schedule has either `every-seconds`, at least 1, or `cron`")]
    Rhythm,
    /// The expression is none.
    #[error("`{0}` is no crontab expression: {1}")]
    Cron(String, String),
    /// The time zone is none.
    #[error("`{0}` is no time zone, such as Europe/Berlin or UTC")]
    TimeZone(String),
    /// A window is none.
    #[error("`{0}` is no window: times are HH:MM, and the two are different")]
    Window(String),
    /// Too many windows.
    #[error("a schedule has at most {WINDOWS_MAX} windows")]
    Windows,
    /// It ends before it begins.
    #[error("the schedule ends before it begins, or never begins")]
    Never,
}

impl Recurrence {
    /// Reads a schedule.
    pub fn of(schedule: &Schedule) -> Result<Self, RecurrenceError> {
        let name = schedule.time_zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|_| RecurrenceError::TimeZone(proto::limits::shown(name)))?;
        let rhythm = match (schedule.every_seconds, &schedule.cron) {
            (Some(seconds), None) if seconds > 0 => {
                Rhythm::Every(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
            }
            (None, Some(cron)) => {
                let wrong = |why: String| {
                    let why: Vec<&str> = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                    RecurrenceError::Cron(proto::limits::shown(cron), proto::limits::shown(&why.join(" ")))
                };
                if cron.len() > CRON_CHARS_MAX || cron.split_whitespace().count() != 5 {
                    return Err(wrong("five fields are wanted: minute, hour, day, month, day of the week".to_owned()));
                }
                let crontab = cronexpr::parse_crontab(&format!("{cron} {name}"));
                Rhythm::Cron(Box::new(crontab.map_err(|error| wrong(error.to_string()))?))
            }
            _ => return Err(RecurrenceError::Rhythm),
        };
        if schedule.windows.len() + schedule.blackouts.len() > WINDOWS_MAX {
            return Err(RecurrenceError::Windows);
        }
        if schedule.start.zip(schedule.end).is_some_and(|(start, end)| end <= start)
            || schedule.start.is_some_and(|start| start.as_second() > LAST_SECOND)
        {
            return Err(RecurrenceError::Never);
        }
        let windows = |windows: &[TimeWindow]| windows.iter().map(Window::of).collect::<Result<_, _>>();
        Ok(Self {
            rhythm,
            zone,
            start: schedule.start,
            end: schedule.end,
            windows: windows(&schedule.windows)?,
            blackouts: windows(&schedule.blackouts)?,
            jitter_seconds: schedule.jitter_seconds,
        })
    }

    /// When it is due next after a time; none where it has ended.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        if after.as_second() > LAST_SECOND {
            return None;
        }
        let next = match (&self.rhythm, self.start) {
            (Rhythm::Every(interval), None) => after.saturating_add(*interval).ok()?,
            // Counted from the start, whenever it is asked.
            (Rhythm::Every(interval), Some(start)) if after >= start => {
                let times = after.duration_since(start).as_secs() / interval.as_secs().max(1) + 1;
                let since = SignedDuration::from_secs(interval.as_secs().checked_mul(times)?);
                start.checked_add(since).ok()?
            }
            (Rhythm::Every(_), Some(start)) => start,
            (Rhythm::Cron(crontab), start) => {
                // A moment before the start, so that the start itself may be one.
                let before_start = start.and_then(|start| start.checked_sub(SignedDuration::from_secs(1)).ok());
                let after = before_start.map_or(after, |before| before.max(after));
                crontab.find_next(after).ok()?.timestamp()
            }
        };
        self.end.is_none_or(|end| next <= end).then_some(next)
    }

    /// By how much a run is later than it is due; `chance` is from 0 to 1.
    pub fn jitter(&self, chance: f64) -> SignedDuration {
        let most = SignedDuration::from_secs(i64::try_from(self.jitter_seconds).unwrap_or(i64::MAX));
        most.checked_mul(1_000).map_or(most, |_| {
            let milliseconds = most.as_secs_f64() * chance.clamp(0.0, 1.0) * 1_000.0;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "of a number of milliseconds, the whole ones are meant"
            )]
            SignedDuration::from_millis(milliseconds as i64)
        })
    }

    /// Whether a run may be made at a time.
    pub fn permits(&self, time: Timestamp) -> bool {
        let zoned = time.to_zoned(self.zone.clone());
        let day = Day::ALL.len() + usize::try_from(zoned.weekday().to_monday_zero_offset()).unwrap_or_default();
        let minute = u32::try_from(i32::from(zoned.hour()) * 60 + i32::from(zoned.minute())).unwrap_or_default();
        let is_in = |window: &Window| window.has(day, minute);
        self.end.is_none_or(|end| time <= end)
            && self.start.is_none_or(|start| time >= start)
            && (self.windows.is_empty() || self.windows.iter().any(is_in))
            && !self.blackouts.iter().any(is_in)
    }

    /// Whether it has ended.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|end| end < now)
    }
}

impl Window {
    fn of(window: &TimeWindow) -> Result<Self, RecurrenceError> {
        let wrong = || RecurrenceError::Window(proto::limits::shown(&window.to_string()));
        let (from, until) = window.minutes().filter(|(from, until)| from != until).ok_or_else(wrong)?;
        Ok(Self { days: window.days.iter().map(|day| *day as usize).collect(), from, until })
    }

    /// `day` counts from a Monday, and is at least 7.
    fn has(&self, day: usize, minute: u32) -> bool {
        let begins = |day: usize| self.days.is_empty() || self.days.contains(&(day % 7));
        if self.from < self.until {
            begins(day) && (self.from..self.until).contains(&minute)
        } else {
            begins(day) && minute >= self.from || begins(day - 1) && minute < self.until
        }
    }
}

/// Seconds after which a run that is due is one that was missed: the process was down.
const MISSED_SECONDS: i64 = 60;

/// Where a schedule is: what is kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Timetable {
    /// When it runs next; none: it has ended.
    #[serde(default)]
    pub next: Option<Timestamp>,
    /// When that run is due, without the chance in it.
    #[serde(default)]
    due: Option<Timestamp>,
    /// A run could not be made when it was due, and is to be made as soon as it can.
    #[serde(default)]
    is_owed: bool,
    /// When it was last looked at by this process.
    #[serde(skip)]
    looked: Option<Timestamp>,
}

/// What a look at a timetable came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether to run now.
    pub is_run: bool,
    /// Whether the timetable has to be kept anew.
    pub is_changed: bool,
}

impl Timetable {
    /// The timetable of a schedule that begins now; `chance` is from 0 to 1.
    pub fn new(recurrence: &Recurrence, now: Timestamp, chance: f64) -> Self {
        let mut timetable = Self::default();
        timetable.plan(recurrence, now, now, chance);
        timetable
    }

    /// A run that was begun came to nothing: it is to be made as soon as it can.
    pub fn owe(&mut self) {
        self.is_owed = true;
    }

    /// The next run after a time. Those that were due before `now` are not counted.
    fn plan(&mut self, recurrence: &Recurrence, after: Timestamp, now: Timestamp, chance: f64) {
        let mut due = recurrence.next(after);
        if due.is_some_and(|due| due <= now) {
            due = recurrence.next(now);
        }
        self.due = due;
        self.next = due.map(|due| due.saturating_add(recurrence.jitter(chance)).unwrap_or(Timestamp::MAX));
    }

    /// The clock was set back, now or while the process was down: what is due is never later than what would be planned now.
    fn plan_earlier(&mut self, schedule: &Schedule, now: Timestamp, chance: f64) -> bool {
        let Ok(recurrence) = Recurrence::of(schedule) else { return false };
        let is_earlier = recurrence.next(now).is_some_and(|next| self.due.is_some_and(|due| next < due));
        if is_earlier {
            self.plan(&recurrence, now, now, chance);
        }
        is_earlier
    }

    /// Whether to run now. Of the runs that could not be made, because the process was down or it was not the time, one is
    /// made as soon as it can be, or none.
    pub fn look(&mut self, schedule: &Schedule, now: Timestamp, chance: f64) -> Look {
        let is_set_back = self.looked.replace(now).is_none_or(|before| before > now);
        if is_set_back && self.due.is_some_and(|due| due > now) && self.plan_earlier(schedule, now, chance) {
            return Look { is_run: false, is_changed: true };
        }
        let is_due = self.next.is_some_and(|next| next <= now);
        let nothing = Look { is_run: false, is_changed: false };
        if !is_due && !self.is_owed {
            return nothing;
        }
        // It was read when it was taken on.
        let Ok(recurrence) = Recurrence::of(schedule) else { return nothing };
        let is_once = schedule.on_missed == OnMissed::Once;
        let before = self.clone();
        if is_due {
            let was_missed = self.next.is_some_and(|next| now.duration_since(next).as_secs() > MISSED_SECONDS);
            self.is_owed |= !was_missed || is_once;
            let after = self.due.unwrap_or(now);
            self.plan(&recurrence, after, now, chance);
        }
        let is_run = self.is_owed && recurrence.permits(now);
        if is_run || !is_once || recurrence.is_over(now) {
            self.is_owed = false;
        }
        Look { is_run, is_changed: *self != before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(cron: &str, zone: &str) -> Schedule {
        Schedule { cron: Some(cron.to_owned()), time_zone: Some(zone.to_owned()), ..Schedule::default() }
    }

    fn next(schedule: &Schedule, after: &str) -> Option<String> {
        Recurrence::of(schedule).unwrap().next(time(after)).map(|time| time.to_string())
    }

    #[test]
    fn an_interval_counts_from_the_last_run_or_from_the_start() {
        let mut schedule = Schedule::every(3_600);
        assert_eq!(next(&schedule, "2026-11-25T10:10:00Z").unwrap(), "2026-11-25T11:10:00Z");
        schedule.start = Some(time("2026-11-25T00:30:00Z"));
        assert_eq!(next(&schedule, "2026-11-25T10:10:00Z").unwrap(), "2026-11-25T10:30:00Z");
        assert_eq!(next(&schedule, "2026-11-25T10:30:00Z").unwrap(), "2026-11-25T11:30:00Z");
        assert_eq!(next(&schedule, "2026-11-24T10:10:00Z").unwrap(), "2026-11-25T00:30:00Z");
        schedule.end = Some(time("2026-11-25T11:00:00Z"));
        assert_eq!(next(&schedule, "2026-11-25T10:30:00Z"), None);
        // As long as there are times.
        assert_eq!(
            Recurrence::of(&Schedule::every(u64::MAX)).unwrap().next(time("2026-11-25T10:00:00Z")),
            Some(Timestamp::MAX)
        );
    }

    #[test]
    fn cron_is_in_its_time_zone_over_the_change_of_clocks() {
        // The two examples of draft -06.
        assert_eq!(next(&cron("32 * * * *", "UTC"), "2026-11-25T10:32:00Z").unwrap(), "2026-11-25T11:32:00Z");
        assert_eq!(next(&cron("0 12 * * *", "UTC"), "2026-11-25T10:32:00Z").unwrap(), "2026-11-25T12:00:00Z");
        let berlin = cron("30 3 * * *", "Europe/Berlin");
        assert_eq!(next(&berlin, "2026-10-24T00:00:00Z").unwrap(), "2026-10-24T01:30:00Z");
        assert_eq!(next(&berlin, "2026-10-24T22:00:00Z").unwrap(), "2026-10-25T02:30:00Z");
        let monday = cron("0 9 * * 1", "America/New_York");
        assert_eq!(next(&monday, "2026-11-25T00:00:00Z").unwrap(), "2026-11-30T14:00:00Z");
        let from_start = Schedule { start: Some(time("2026-12-01T12:00:00Z")), ..cron("0 12 * * *", "UTC") };
        assert_eq!(next(&from_start, "2026-11-25T00:00:00Z").unwrap(), "2026-12-01T12:00:00Z");
    }

    #[test]
    fn windows_go_over_midnight_and_have_days() {
        let window = |text: &str| vec![text.parse::<TimeWindow>().unwrap()];
        let night = Schedule { windows: window("fri 22:00-06:00"), ..Schedule::every(60) };
        let night = Recurrence::of(&night).unwrap();
        // 2026-11-27 is a Friday.
        for (at, expected) in [
            ("2026-11-27T21:59:00Z", false),
            ("2026-11-27T22:00:00Z", true),
            ("2026-11-28T05:59:00Z", true),
            ("2026-11-28T06:00:00Z", false),
            ("2026-11-27T03:00:00Z", false),
            ("2026-11-28T23:00:00Z", false),
        ] {
            assert_eq!(night.permits(time(at)), expected, "{at}");
        }
        // Sunday night goes over the week's end.
        let sunday = Schedule { windows: window("sun 23:00-01:00"), ..Schedule::every(60) };
        assert!(Recurrence::of(&sunday).unwrap().permits(time("2026-11-30T00:30:00Z")));
        let zone = Some("Asia/Tokyo".to_owned());
        let office = Schedule { blackouts: window("09:00-17:00"), time_zone: zone, ..Schedule::every(60) };
        let office = Recurrence::of(&office).unwrap();
        assert!(!office.permits(time("2026-11-27T00:00:00Z")) && office.permits(time("2026-11-27T08:00:00Z")));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_make_the_next_run_late() {
        for schedule in [Schedule::every(60), cron("* * * * *", "UTC")] {
            let recurrence = Recurrence::of(&schedule).unwrap();
            let mut timetable = Timetable::new(&recurrence, time("2026-11-27T12:00:00Z"), 0.0);
            let mut runs = |at: &str| timetable.look(&schedule, time(at), 0.0).is_run;
            assert!(!runs("2026-11-27T12:00:59Z") && runs("2026-11-27T12:01:00Z"));
            // Two hours ahead for a moment: what was missed is made up for, once.
            runs("2026-11-27T14:01:10Z");
            assert!(!runs("2026-11-27T12:01:20Z"));
            assert!(runs("2026-11-27T12:02:20Z") && !runs("2026-11-27T12:02:30Z"));
        }
        // One that begins later begins then.
        let later = Schedule { start: Some(time("2026-11-28T00:00:00Z")), ..Schedule::every(60) };
        let mut timetable = Timetable::new(&Recurrence::of(&later).unwrap(), time("2026-11-27T12:00:00Z"), 0.0);
        let look = timetable.look(&later, time("2026-11-27T11:00:00Z"), 0.0);
        assert_eq!(look, Look { is_run: false, is_changed: false });
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        let wrong = |schedule: Schedule| Recurrence::of(&schedule).unwrap_err().to_string();
        assert!(wrong(Schedule::default()).contains("every-seconds"));
        assert!(wrong(Schedule::every(0)).contains("at least 1"));
        assert!(wrong(Schedule { every_seconds: Some(1), ..cron("* * * * *", "UTC") }).contains("either"));
        assert!(wrong(cron("61 * * * *", "UTC")).contains("crontab"));
        assert!(wrong(cron("* * * *", "UTC")).contains("five fields"));
        assert!(wrong(cron("* * * * *", "Mars/Olympus")).contains("time zone"));
        let same = TimeWindow { days: Vec::new(), from: "08:00".to_owned(), until: "08:00".to_owned() };
        assert!(wrong(Schedule { windows: vec![same], ..Schedule::every(1) }).contains("08:00"));
        let (start, end) = (Some(time("2026-11-27T00:00:00Z")), Some(time("2026-11-26T00:00:00Z")));
        assert!(wrong(Schedule { start, end, ..Schedule::every(1) }).contains("before it begins"));
        let start = Some(time("9998-01-01T00:00:00Z"));
        assert!(wrong(Schedule { start, ..cron("0 3 * * *", "UTC") }).contains("never begins"));
    }

    #[test]
    fn jitter_is_within_its_bounds() {
        let schedule = Recurrence::of(&Schedule { jitter_seconds: 60, ..Schedule::every(600) }).unwrap();
        assert_eq!(schedule.jitter(0.5), SignedDuration::from_secs(30));
        assert_eq!((schedule.jitter(-1.0), schedule.jitter(2.0)), (SignedDuration::ZERO, SignedDuration::from_mins(1)));
        let endless = Recurrence::of(&Schedule { jitter_seconds: u64::MAX, ..Schedule::every(600) }).unwrap();
        assert!(endless.jitter(1.0) > SignedDuration::ZERO);
    }
}
