//! What the processes take of their cores and of memory, as the kernel counts it; and from that, what limits a measure.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::cores::Cores;
use super::daemon::Program;
use super::figures::{megabytes, percent, rounded};
use super::installation::Installation;

/// The kernel counts processor time in hundredths of a second towards programs, on every architecture (USER_HZ).
const TICK: Duration = Duration::from_millis(10);
/// A core of which so much is used is full.
const FULL: f64 = 0.9;
/// A part of the time in which something waits for the disk that says what it is waited for.
const MUCH_WAITING: f64 = 0.3;
/// What others have to take to be worth a word.
const WORTH_A_WORD: f64 = 0.05;

/// Whose time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Daemon(Program),
    Fleet,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Daemon(program) => program.name(),
            Self::Fleet => "simulated collectors",
        }
    }
}

/// A look at all of them.
#[derive(Debug)]
pub(crate) struct Watch {
    began: Instant,
    processes: Vec<(Who, u32, Duration)>,
    cores: Cores,
    busy: [Duration; 2],
    stalled: Option<Duration>,
}

/// What one of them took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    who: Who,
    processor: Duration,
    /// KiB that it has, and had at most.
    memory: (u64, u64),
}

/// What all of them took meanwhile.
#[derive(Debug)]
pub(crate) struct Load {
    elapsed: Duration,
    taken: Vec<Taken>,
    cores: Cores,
    /// What the servers' core and the other one did in all.
    busy: [Duration; 2],
    stalled: Option<Duration>,
}

/// Processor time of a process since it began, with that of threads that have ended.
fn processor(id: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name stands in brackets, and may have anything in it.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// What a process has of memory, and had at most, in KiB.
pub(crate) fn memory(id: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        value.unwrap_or_default()
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// What a core has done since the machine began, whoever it was for.
fn busy(core: usize) -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default();
    let fields: Vec<u32> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    TICK * [0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| fields.get(at)).sum::<u32>()
}

/// For how long something has waited for a disk; not every kernel says it.
fn stalled() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/pressure/io").ok()?;
    let total = text.lines().next()?.rsplit("total=").next()?.trim().parse().ok()?;
    Some(Duration::from_micros(total))
}

impl Watch {
    /// Looks from now on.
    pub(crate) fn begin(installation: &Installation) -> Self {
        let daemons = installation.daemons().map(|daemon| (Who::Daemon(daemon.program), daemon.id()));
        let processes = daemons.chain([(Who::Fleet, std::process::id())]);
        let processes = processes.map(|(who, id)| {
            // From now on the most that it has is what it has now; where the kernel does not do that, it is since its beginning.
            let _ = std::fs::write(format!("/proc/{id}/clear_refs"), "5");
            (who, id, processor(id))
        });
        let cores = installation.cores();
        Self {
            processes: processes.collect(),
            cores,
            busy: [busy(cores.servers), busy(cores.own)],
            stalled: stalled(),
            began: Instant::now(),
        }
    }

    /// What was taken since.
    pub(crate) fn end(&self) -> Load {
        let taken = self.processes.iter().map(|(who, id, before)| Taken {
            who: *who,
            processor: processor(*id).saturating_sub(*before),
            memory: memory(*id),
        });
        Load {
            elapsed: self.began.elapsed(),
            taken: taken.collect(),
            cores: self.cores,
            busy: [
                busy(self.cores.servers).saturating_sub(self.busy[0]),
                busy(self.cores.own).saturating_sub(self.busy[1]),
            ],
            stalled: stalled().zip(self.stalled).map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

impl Load {
    fn of(&self, programs: &[Program]) -> impl Iterator<Item = &Taken> {
        self.taken.iter().filter(|taken| matches!(taken.who, Who::Daemon(program) if programs.contains(&program)))
    }

    /// Processor time of some.
    pub(crate) fn processor(&self, programs: &[Program]) -> Duration {
        self.of(programs).map(|taken| taken.processor).sum()
    }

    /// The same, as a part of a core.
    pub(crate) fn share(&self, programs: &[Program]) -> f64 {
        self.part(self.processor(programs))
    }

    /// KiB that some have in all.
    pub(crate) fn memory_kib(&self, programs: &[Program]) -> u64 {
        self.of(programs).map(|taken| taken.memory.0).sum()
    }

    /// KiB that each of them had at most, in all.
    pub(crate) fn memory_most_kib(&self, programs: &[Program]) -> u64 {
        self.of(programs).map(|taken| taken.memory.1).sum()
    }

    /// How long was looked.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Processor time of each for each of so many, in milliseconds.
    pub(crate) fn millis_each(&self, count: u64) -> Value {
        let each = self.taken.iter().map(|taken| {
            let millis = taken.processor.as_secs_f64() * 1_000.0 * super::figures::ratio(1, count);
            (taken.who.name().replace(' ', "-"), json!(rounded(millis)))
        });
        Value::Object(each.collect::<Map<String, Value>>())
    }

    /// What each took, for programs.
    pub(crate) fn json(&self) -> Value {
        let each = self.taken.iter().map(|taken| {
            let figures = json!({
                "core-percent": rounded(self.part(taken.processor) * 100.0),
                "rss-mb": megabytes(taken.memory.0),
                "rss-most-mb": megabytes(taken.memory.1),
            });
            (taken.who.name().replace(' ', "-"), figures)
        });
        Value::Object(each.collect::<Map<String, Value>>())
    }

    fn part(&self, processor: Duration) -> f64 {
        processor.as_secs_f64() / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// What limits it, in words: which core is full, or what is waited for, and who took how much.
    pub(crate) fn limit(&self) -> String {
        let is_server = |taken: &&Taken| matches!(taken.who, Who::Daemon(program) if program.is_server());
        let (servers, own): (Vec<Taken>, Vec<Taken>) = self.taken.iter().partition(is_server);
        let part = |taken: &[Taken]| taken.iter().map(|taken| self.part(taken.processor)).sum::<f64>();
        let (used, used_own) = (part(&servers), part(&own));
        let [busy, busy_own] = self.busy.map(|busy| self.part(busy));
        let waiting = self.stalled.map(|stalled| self.part(stalled));
        let head = if self.cores.is_shared() && busy >= FULL {
            "the only core is full"
        } else if used >= FULL {
            "the servers' core is full"
        } else if used_own >= FULL {
            "simulated collectors: their core is full"
        } else if busy.max(busy_own) >= FULL && self.cores.is_pinned {
            "a core is full with what others on this machine do"
        } else if waiting.is_some_and(|waiting| waiting >= MUCH_WAITING) {
            "no core is full, and the disk is waited for"
        } else {
            "no core is full"
        };
        let mut said = vec![format!("servers' core: {}", self.words(servers, busy))];
        if self.cores.is_shared() {
            said[0] = format!("the core: {}", self.words(self.taken.clone(), busy));
        } else {
            said.push(format!("the other: {}", self.words(own, busy_own)));
        }
        if let Some(waiting) = waiting.filter(|waiting| *waiting >= WORTH_A_WORD) {
            said.push(format!("something waited for a disk for {} of the time", percent(waiting)));
        }
        format!("{head}. {}", said.join("; "))
    }

    /// Who took how much of a core, the most first, and what is left over of what the core did.
    fn words(&self, mut taken: Vec<Taken>, busy: f64) -> String {
        taken.sort_by_key(|taken| std::cmp::Reverse(taken.processor));
        let parts: Vec<(&str, f64)> =
            taken.iter().map(|taken| (taken.who.name(), self.part(taken.processor))).collect();
        let others = busy - parts.iter().map(|(_, part)| part).sum::<f64>();
        let others = Some(("all others", others)).filter(|(_, part)| self.cores.is_pinned && *part >= WORTH_A_WORD);
        let is_worth = |(at, (_, part)): &(usize, (&str, f64))| *at == 0 || *part >= WORTH_A_WORD / 5.0;
        let own = parts.into_iter().enumerate().filter(is_worth).map(|(_, part)| part);
        own.chain(others).map(|(name, part)| format!("{name} {}", percent(part))).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_takes_is_counted() {
        let id = std::process::id();
        let before = processor(id);
        let began = Instant::now();
        let mut sum = 0_u64;
        while processor(id) < before + TICK * 5 && began.elapsed() < Duration::from_secs(20) {
            sum = sum.wrapping_mul(31).wrapping_add(7);
        }
        assert!(processor(id) >= before + TICK * 5, "{sum}");
        let (now, most) = memory(id);
        assert!(now > 1_000 && most >= now, "{now} {most}");
        assert_eq!(processor(u32::MAX), Duration::ZERO, "nobody takes nothing");
    }

    #[test]
    fn what_is_full_is_said_to_be() {
        let load = |server: u64, fleet: u64, stalled: u64| Load {
            elapsed: Duration::from_secs(10),
            taken: [(Who::Daemon(Program::Repository), server), (Who::Fleet, fleet)]
                .map(|(who, seconds)| Taken { who, processor: Duration::from_secs(seconds), memory: (0, 0) })
                .to_vec(),
            cores: Cores { servers: 0, own: 1, is_pinned: true },
            busy: [Duration::from_secs(server), Duration::from_secs(fleet)],
            stalled: Some(Duration::from_secs(stalled)),
        };
        let check = |load: Load, begins: &str| assert!(load.limit().starts_with(begins), "{}", load.limit());
        check(load(10, 2, 0), "the servers' core is full. servers' core: repository 100 %; the other: simulated");
        check(load(2, 10, 0), "simulated collectors: their core is full");
        check(load(2, 2, 6), "no core is full, and the disk is waited for");
        check(load(2, 2, 0), "no core is full. servers' core: repository 20 %; the other: simulated collectors 20 %");
    }
}
