//! Whether a component is of use: it keeps a file in its data directory up to date for as long as the orchestrator answers it and
//! gives it something to do. Whoever starts the process asks with `--health`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::supervisor;

/// The file: seconds between two heartbeats. Its time is when the last one was answered.
const FILE: &str = "active";
/// Heartbeats that may be missed.
const MISSED_MAX: u32 = 3;

/// Why a component is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It has not shaken hands since it was started, or runs no more.
    #[error("not active: it has not shaken hands with the orchestrator ({0} is not there)")]
    NotActive(PathBuf),
    /// Nobody has answered for so many seconds.
    #[error("the orchestrator has not answered for {0} s")]
    Silent(u64),
}

/// It was heard, and has something to do.
pub(crate) fn heard(data: &Path, heartbeat_seconds: u64) {
    supervisor::status("active");
    if let Err(error) = std::fs::write(data.join(FILE), heartbeat_seconds.to_string()) {
        tracing::warn!(%error, "whether this component is active cannot be written down");
    }
}

/// It has nothing to do, or not yet.
pub(crate) fn idle(data: &Path) {
    supervisor::status("waits for the orchestrator");
    let _ = std::fs::remove_file(data.join(FILE));
}

/// Whether the component with this data directory is active.
pub fn check(data: &Path) -> Result<(), Unhealthy> {
    let path = data.join(FILE);
    let read = std::fs::read_to_string(&path).and_then(|text| Ok((text, std::fs::metadata(&path)?.modified()?)));
    let Ok((text, modified)) = read else { return Err(Unhealthy::NotActive(path)) };
    let interval = Duration::from_secs(text.trim().parse().unwrap_or(1));
    // A clock that was set back says nothing.
    let silent = SystemTime::now().duration_since(modified).unwrap_or_default();
    if silent > interval.saturating_mul(MISSED_MAX) { Err(Unhealthy::Silent(silent.as_secs())) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn it_is_healthy_from_its_first_answer_until_three_are_missing() {
        let data = tempfile::tempdir().unwrap();
        assert!(matches!(check(data.path()), Err(Unhealthy::NotActive(_))));
        heard(data.path(), 20);
        assert!(check(data.path()).is_ok());
        let at = |seconds| {
            let then = SystemTime::now() - Duration::from_secs(seconds);
            let file = std::fs::File::options().write(true).open(data.path().join(FILE)).unwrap();
            file.set_modified(then).unwrap();
            check(data.path())
        };
        assert!(at(59).is_ok());
        assert!(matches!(at(62), Err(Unhealthy::Silent(_))));
        idle(data.path());
        assert!(matches!(check(data.path()), Err(Unhealthy::NotActive(_))));
    }
}
