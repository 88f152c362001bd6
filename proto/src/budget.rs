//! What a task may cost the endpoint (spec proposal P-9; RFC 8248 OP-002 asks for a collector that does no harm). Written by people
//! as `cpu=20%,memory=64M,read=200M,time=60s`; what is not said is as the collector has it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const KIB: u64 = 1024;

/// What a task may cost. A collector has limits of its own; the smaller one counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Budget {
    /// Percent of one processor, 1 to 100: the collector pauses in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u8>,
    /// Bytes of what is found, and of a file that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes that are read of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    /// Seconds from the first look to the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_seconds: Option<u64>,
}

/// A budget that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetError(String);

impl fmt::Display for BudgetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for BudgetError {}

impl Budget {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The smaller of both, in each respect.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            cpu_percent: smaller(self.cpu_percent, other.cpu_percent),
            memory_bytes: smaller(self.memory_bytes, other.memory_bytes),
            read_bytes: smaller(self.read_bytes, other.read_bytes),
            time_seconds: smaller(self.time_seconds, other.time_seconds),
        }
    }

    /// This, and where it says nothing the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            cpu_percent: self.cpu_percent.or(other.cpu_percent),
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            read_bytes: self.read_bytes.or(other.read_bytes),
            time_seconds: self.time_seconds.or(other.time_seconds),
        }
    }
}

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let mut budget = Self::default();
        for part in text.split(',').map(str::trim) {
            let wrong = |example: &str| BudgetError(format!("`{part}` is no budget; write it as {example}"));
            let (name, value) = part.split_once('=').ok_or_else(|| wrong("cpu=20%,memory=64M,read=200M,time=60s"))?;
            let is_said_twice = match name.trim() {
                "cpu" => {
                    let percent = value.trim().trim_end_matches('%').parse().ok().filter(|of| (1..=100).contains(of));
                    budget.cpu_percent.replace(percent.ok_or_else(|| wrong("cpu=20%, from 1 to 100"))?).is_some()
                }
                "memory" => {
                    let bytes = bytes_of(value).ok_or_else(|| wrong("memory=64M, with K, M or G"))?;
                    budget.memory_bytes.replace(bytes).is_some()
                }
                "read" => {
                    let bytes = bytes_of(value).ok_or_else(|| wrong("read=200M, with K, M or G"))?;
                    budget.read_bytes.replace(bytes).is_some()
                }
                "time" => {
                    let seconds = seconds_of(value).ok_or_else(|| wrong("time=60s, with s, m or h"))?;
                    budget.time_seconds.replace(seconds).is_some()
                }
                _ => return Err(wrong("cpu=, memory=, read= or time=")),
            };
            if is_said_twice {
                return Err(BudgetError(format!("`{}` is said twice", name.trim())));
            }
        }
        Ok(budget)
    }
}

fn counted(value: &str, units: &[(char, u64)]) -> Option<u64> {
    let value = value.trim();
    let unit = value.chars().last()?;
    let (_, factor) = units.iter().find(|(known, _)| known.eq_ignore_ascii_case(&unit))?;
    let number: u64 = value[..value.len() - unit.len_utf8()].trim().parse().ok()?;
    number.checked_mul(*factor).filter(|count| *count > 0)
}

fn bytes_of(value: &str) -> Option<u64> {
    counted(value, &[('K', KIB), ('M', KIB * KIB), ('G', KIB * KIB * KIB)])
}

fn seconds_of(value: &str) -> Option<u64> {
    counted(value, &[('s', 1), ('m', 60), ('h', 3_600)])
}

/// So many bytes, in the largest unit that gives a whole number.
pub fn bytes_in_words(bytes: u64) -> String {
    for (unit, factor) in [("GiB", KIB * KIB * KIB), ("MiB", KIB * KIB), ("KiB", KIB)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{} {unit}", bytes / factor);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_as_people_write_it() {
        let budget: Budget = "cpu=20%, memory=64M,read=2g,time=5m".parse().unwrap();
        let wanted = Budget {
            cpu_percent: Some(20),
            memory_bytes: Some(64 << 20),
            read_bytes: Some(2 << 30),
            time_seconds: Some(300),
        };
        assert_eq!(budget, wanted);
        assert_eq!([64 << 20, 2 << 30, 1_500, 3 << 10].map(bytes_in_words), ["64 MiB", "2 GiB", "1500 bytes", "3 KiB"]);
        assert_eq!("cpu=100".parse::<Budget>().unwrap().cpu_percent, Some(100));
        for (wrong, because) in [
            ("", "is no budget"),
            ("cpu", "is no budget"),
            ("cpu=0%", "from 1 to 100"),
            ("cpu=101%", "from 1 to 100"),
            ("memory=64", "with K, M or G"),
            ("memory=0M", "with K, M or G"),
            ("memory=99999999999999G", "with K, M or G"),
            ("read=-1M", "with K, M or G"),
            ("time=60", "with s, m or h"),
            ("time=é", "with s, m or h"),
            ("disk=1G", "cpu=, memory="),
            ("cpu=1,cpu=2", "said twice"),
        ] {
            let error = wrong.parse::<Budget>().unwrap_err().to_string();
            assert!(error.contains(because), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_smaller_one_counts() {
        let own: Budget = "cpu=50,time=60s".parse().unwrap();
        let asked: Budget = "cpu=80,read=1M,time=10s".parse().unwrap();
        assert_eq!(own.within(asked), "cpu=50,read=1M,time=10s".parse().unwrap());
        assert_eq!(own.or(asked), "cpu=50,read=1M,time=60s".parse().unwrap());
        assert!(Budget::default().within(Budget::default()).is_empty());
    }
}
