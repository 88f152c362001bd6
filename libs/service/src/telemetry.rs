//! Logs: to stderr, one line an event, filtered by `MUSTER_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

const VARIABLE: &str = "MUSTER_LOG";

/// Starts logging. `default` applies where `MUSTER_LOG` is not set, or is not understood. It is a level, or a list with commas of
/// parts of the program with their levels: `warn,bus=debug`.
pub fn start(default: &str) {
    let wanted = std::env::var(VARIABLE).ok();
    let (filter, wrong) = filter(wanted.as_deref(), default);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let started = tracing_subscriber::registry().with(lines).with(filter).try_init();
    if let Some(error) = wrong {
        tracing::warn!(value = wanted, %error, "{VARIABLE} is a level, or parts of the program with levels, such as `warn,bus=debug`; it is left out");
    }
    // A second start, as in tests, keeps the first.
    drop(started);
}

/// What is told, and what is wrong with what was wanted.
fn filter(wanted: Option<&str>, default: &str) -> (Targets, Option<ParseError>) {
    let wanted: Result<Option<Targets>, ParseError> = wanted.map(str::parse).transpose();
    let (wanted, wrong) = wanted.map_or_else(|error| (None, Some(error)), |wanted| (wanted, None));
    let or_default = || format!("{default},rumqttd=warn").parse().expect("what a program says of itself is understood");
    (wanted.unwrap_or_else(or_default), wrong)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn what_is_wanted_is_told_and_what_is_not_understood_is_said() {
        let (default, wrong) = filter(None, "info");
        assert!(wrong.is_none() && default.would_enable("orchestrator::core", &Level::INFO));
        assert!(!default.would_enable("rumqttd::router", &Level::INFO) && !default.would_enable("bus", &Level::DEBUG));
        let (wanted, wrong) = filter(Some("warn,bus=debug"), "info");
        assert!(wrong.is_none() && wanted.would_enable("bus::mqtt", &Level::DEBUG));
        assert!(!wanted.would_enable("orchestrator", &Level::INFO));
        let (instead, wrong) = filter(Some("bus=loud"), "info");
        assert!(wrong.is_some());
        assert_eq!(instead, default);
    }
}
