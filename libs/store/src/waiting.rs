//! Waiting for a database that is not there yet.

use std::error::Error;
use std::time::Duration;

use service::report::Chain;
use service::shutdown::Shutdown;
use service::supervisor;

/// How long a database that does not answer is left alone, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How long a database is waited for: longer each time.
#[derive(Debug)]
pub struct Waiting {
    pause: Duration,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { pause: PAUSE_MIN }
    }
}

impl Waiting {
    /// Says why, and waits until it is time to try again; false where the end came first.
    pub async fn after(&mut self, error: &(dyn Error + Send + Sync + 'static), shutdown: &mut Shutdown) -> bool {
        tracing::warn!(error = %Chain(error), again_in = ?self.pause, "the database does not answer; waiting for it");
        supervisor::status("waits for its database");
        tokio::select! {
            () = shutdown.requested() => false,
            () = tokio::time::sleep(self.pause) => {
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                true
            }
        }
    }
}
