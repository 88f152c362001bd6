//! Numbers as people read them.

use std::time::Duration;

/// The value that so many of a hundred do not exceed: the nearest rank. Nothing of nothing.
pub(crate) fn percentile(values: &mut [Duration], percent: usize) -> Option<Duration> {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

/// A time with as many digits as one can tell apart.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 100.0 => format!("{seconds:.0} s"),
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1_000.0),
        seconds => format!("{:.1} ms", seconds * 1_000.0),
    }
}

/// Milliseconds, for programs.
pub(crate) fn millis(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1_000.0)
}

/// Three digits after the point: more is noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// A part of a core, or of a time.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// KiB as the kernel says it, in megabytes.
#[expect(clippy::cast_precision_loss, reason = "memory of a process is far below what a float counts exactly")]
pub(crate) fn megabytes(kib: u64) -> f64 {
    rounded(kib as f64 * 1_024.0 / 1e6)
}

/// What comes out of one unit of many.
#[expect(clippy::cast_precision_loss, reason = "counts are far below what a float counts exactly")]
pub(crate) fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let check = |count: u64, percent: usize, expect: Option<u64>| {
            let mut values: Vec<Duration> = (1..=count).rev().map(Duration::from_millis).collect();
            assert_eq!(percentile(&mut values, percent), expect.map(Duration::from_millis), "{percent} of {count}");
        };
        check(0, 99, None);
        check(1, 50, Some(1));
        check(20, 95, Some(19));
        check(100, 99, Some(99));
        check(1_000, 99, Some(990));
        check(3, 99, Some(3));
    }

    #[test]
    fn times_have_the_digits_that_say_something() {
        let check = |micros: u64, expect: &str| assert_eq!(time(Duration::from_micros(micros)), expect);
        check(4_260, "4.3 ms");
        check(42_600, "43 ms");
        check(4_260_000, "4.3 s");
        check(426_000_000, "426 s");
    }
}
