//! When a standing task runs: an interval or a crontab expression (POSIX `crontab`, five fields), in a time zone, between
//! two times, in windows and outside of others.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a periodic task runs: `every-seconds` or `cron`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Schedule {
    /// Seconds from one run to the next, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_seconds: Option<u64>,
    /// Minute, hour, day of the month, month, day of the week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time zone of `cron` and of the windows, such as `Europe/Berlin`; absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Seconds by which a run may be later than it is due, by chance: those that are due together do not run together.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jitter_seconds: u64,
    /// No run before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// No run after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// Runs are made in one of these; empty: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<TimeWindow>,
    /// And in none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<TimeWindow>,
    /// What becomes of a run that could not be made when it was due.
    #[serde(default, skip_serializing_if = "OnMissed::is_default")]
    pub on_missed: OnMissed,
    /// What becomes of a run that is due while the one before goes on.
    #[serde(default, skip_serializing_if = "Overlap::is_default")]
    pub overlap: Overlap,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Schedule {
    /// At an interval.
    pub fn every(seconds: u64) -> Self {
        Self { every_seconds: Some(seconds), ..Self::default() }
    }
}

/// A time of the day, on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TimeWindow {
    /// The days on which it begins, `mon` to `sun`; empty: on all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// From this time on, `HH:MM`.
    pub from: String,
    /// Until this one, `HH:MM`; one that is not later is one of the next day.
    pub until: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// All, from Monday.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// As it is spelled.
    pub fn as_str(self) -> &'static str {
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][self as usize]
    }
}

/// What becomes of a run that could not be made when it was due: the collector was down, or it was outside of its windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnMissed {
    /// However many there were, one is made as soon as it can be.
    #[default]
    Once,
    /// It is left out.
    Skip,
}

impl OnMissed {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of a run that is due while the one before goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// It is left out.
    #[default]
    Skip,
    /// It is made after that.
    Queue,
}

impl Overlap {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// For people.
impl std::fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.cron, self.every_seconds) {
            (Some(cron), _) => write!(formatter, "cron {cron}")?,
            (None, Some(seconds)) => write!(formatter, "every {seconds} s")?,
            (None, None) => formatter.write_str("never")?,
        }
        if let Some(zone) = &self.time_zone {
            write!(formatter, " {zone}")?;
        }
        if self.jitter_seconds > 0 {
            write!(formatter, ", up to {} s later", self.jitter_seconds)?;
        }
        for (word, windows) in [("in", &self.windows), ("not in", &self.blackouts)] {
            for window in windows {
                write!(formatter, ", {word} {window}")?;
            }
        }
        for (word, time) in [("from", self.start), ("until", self.end)] {
            if let Some(time) = time {
                write!(formatter, ", {word} {time:.0}")?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for TimeWindow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.days.is_empty() {
            let days: Vec<&str> = self.days.iter().map(|day| day.as_str()).collect();
            write!(formatter, "{} ", days.join(","))?;
        }
        write!(formatter, "{}-{}", self.from, self.until)
    }
}

impl std::str::FromStr for TimeWindow {
    type Err = String;

    /// `22:00-06:00`, `mon-fri 22:00-06:00` or `sat,sun 00:00-24:00`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no window: use 22:00-06:00, mon-fri 22:00-06:00 or sat,sun 08:00-12:00");
        let (days, times) = text.trim().rsplit_once(' ').unwrap_or(("", text.trim()));
        let (from, until) = times.split_once('-').ok_or_else(wrong)?;
        let day = |name: &str| Day::ALL.into_iter().find(|day| day.as_str() == name).ok_or_else(wrong);
        let mut named = Vec::new();
        for part in days.split(',').filter(|part| !part.is_empty()) {
            match part.trim().split_once('-') {
                Some((first, last)) => {
                    let (first, last) = (day(first)?, day(last)?);
                    let mut at = first as usize;
                    loop {
                        named.push(Day::ALL[at]);
                        if Day::ALL[at] == last {
                            break;
                        }
                        at = (at + 1) % 7;
                    }
                }
                None => named.push(day(part.trim())?),
            }
        }
        let window = Self { days: named, from: from.trim().to_owned(), until: until.trim().to_owned() };
        if window.minutes().is_none() {
            return Err(wrong());
        }
        Ok(window)
    }
}

impl TimeWindow {
    /// Minutes of the day from and until when it is; none where they are not times.
    pub fn minutes(&self) -> Option<(u32, u32)> {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let is_number = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number(hour) || !is_number(minute) {
                return None;
            }
            let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
            (minute < 60 && hour * 60 + minute <= 24 * 60).then_some(hour * 60 + minute)
        };
        Some((minute(&self.from)?, minute(&self.until)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_as_they_are_written() {
        let window: TimeWindow = "fri-mon,wed 22:00-06:00".parse().unwrap();
        assert_eq!(window.days, [Day::Fri, Day::Sat, Day::Sun, Day::Mon, Day::Wed]);
        assert_eq!(window.minutes(), Some((22 * 60, 6 * 60)));
        assert_eq!("08:00-24:00".parse::<TimeWindow>().unwrap().minutes(), Some((480, 1_440)));
        for wrong in
            ["", "22:00", "8:00-9:00", "25:00-26:00", "xyz 08:00-09:00", "08:60-09:00", "mon-xyz 08:00-09:00", "é-é"]
        {
            assert!(wrong.parse::<TimeWindow>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_schedule_says_when_it_runs() {
        let schedule = Schedule {
            cron: Some("0 3 * * *".to_owned()),
            time_zone: Some("Europe/Berlin".to_owned()),
            jitter_seconds: 600,
            windows: vec!["mon-tue 02:00-04:00".parse().unwrap()],
            ..Schedule::default()
        };
        let text = "cron 0 3 * * * Europe/Berlin, up to 600 s later, in mon,tue 02:00-04:00";
        assert_eq!(schedule.to_string(), text);
        let json = serde_json::to_value(Schedule::every(60)).unwrap();
        assert_eq!(json, serde_json::json!({"every-seconds": 60}), "as before there was more to say");
    }
}
