//! Logs: to stderr, one line an event, filtered by `MUSTER_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What a daemon tells of itself.
pub const INFO: LevelFilter = LevelFilter::INFO;
/// What a program tells that speaks to people otherwise.
pub const WARN: LevelFilter = LevelFilter::WARN;

const VARIABLE: &str = "MUSTER_LOG";

/// Starts logging. `default` applies where `MUSTER_LOG` is not set, or is not understood. It is a level, or a list with commas of
/// parts of the program with their levels: `warn,bus=debug`.
pub fn start(default: LevelFilter) {
    let wanted = std::env::var(VARIABLE).ok();
    let (filter, wrong) = filter(wanted.as_deref(), default);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let started = tracing_subscriber::registry().with(lines).with(filter).try_init();
    if let Some(part) = wrong {
        tracing::warn!(
            part,
            "{VARIABLE} is not used: it is a level, or parts of the program with levels, such as `warn,bus=debug`"
        );
    }
    // A second start, as in tests, keeps the first.
    drop(started);
}

/// What is told, and which part of what was wanted is not understood.
fn filter(wanted: Option<&str>, default: LevelFilter) -> (Targets, Option<String>) {
    let or_default = || Targets::new().with_default(default).with_target("rumqttd", default.min(LevelFilter::WARN));
    match wanted.map(str::trim).filter(|wanted| !wanted.is_empty()).map(understood) {
        None => (or_default(), None),
        Some(Ok(wanted)) => (wanted, None),
        Some(Err(part)) => (or_default(), Some(part)),
    }
}

/// What a list wants, or the part that nobody understands. What it does not name tells errors.
fn understood(list: &str) -> Result<Targets, String> {
    let mut targets = Targets::new().with_default(LevelFilter::ERROR);
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let wrong = || part.to_owned();
        let level_of = |level: &str| -> Result<LevelFilter, String> {
            if level.is_empty() { Err(wrong()) } else { level.parse().map_err(|_| wrong()) }
        };
        targets = match part.split_once('=') {
            None => targets.with_default(level_of(part)?),
            Some((target, level)) => {
                let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | ':' | '-');
                if target.is_empty() || !target.chars().all(is_name) {
                    return Err(wrong());
                }
                targets.with_target(target, level_of(level)?)
            }
        };
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn without_a_word_the_default_is_told_and_of_the_router_warnings() {
        for nothing in [None, Some(""), Some(" ")] {
            let (default, wrong) = filter(nothing, LevelFilter::INFO);
            assert!(wrong.is_none() && default.would_enable("orchestrator::core", &Level::INFO));
            assert!(!default.would_enable("rumqttd::router", &Level::INFO));
            assert!(!default.would_enable("bus", &Level::DEBUG));
        }
        let (errors, _) = filter(None, LevelFilter::ERROR);
        assert!(!errors.would_enable("rumqttd::router", &Level::WARN));
    }

    #[test]
    fn what_is_wanted_is_told() {
        for wanted in ["warn,bus=debug", " warn , bus=debug ,", "WARN,bus=4"] {
            let (wanted, wrong) = filter(Some(wanted), LevelFilter::INFO);
            assert!(wrong.is_none() && wanted.would_enable("bus::mqtt", &Level::DEBUG));
            assert!(wanted.would_enable("orchestrator", &Level::WARN));
            assert!(!wanted.would_enable("orchestrator", &Level::INFO));
        }
        let (one, _) = filter(Some("bus=debug"), LevelFilter::INFO);
        assert!(one.would_enable("orchestrator", &Level::ERROR) && !one.would_enable("orchestrator", &Level::WARN));
        let (off, wrong) = filter(Some("off"), LevelFilter::INFO);
        assert!(wrong.is_none() && !off.would_enable("orchestrator", &Level::ERROR));
    }

    #[test]
    fn what_is_not_understood_is_said_and_the_default_is_told() {
        for (list, part) in [
            ("warning", "warning"),
            ("info,inof", "inof"),
            ("bus", "bus"),
            ("bus=loud", "bus=loud"),
            ("warn,bus=", "bus="),
            ("=debug", "=debug"),
            ("bus[span]=debug", "bus[span]=debug"),
        ] {
            let (instead, wrong) = filter(Some(list), LevelFilter::INFO);
            assert_eq!((wrong.as_deref(), instead), (Some(part), filter(None, LevelFilter::INFO).0));
        }
    }
}
