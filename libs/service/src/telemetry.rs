//! Logs: to stderr, one line an event, filtered by `MUSTER_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging. `default` applies where `MUSTER_LOG` is not set.
pub fn start(default: &str) {
    let filter =
        EnvFilter::try_from_env("MUSTER_LOG").unwrap_or_else(|_| EnvFilter::new(format!("{default},rumqttd=warn")));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    // A second start, as in tests, keeps the first.
    drop(started);
}
