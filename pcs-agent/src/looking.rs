//! A task looks in a thread of its own, and somebody watches whether it moves. One that does not, because a file system has begun
//! to hang under it, is given up: its thread is left where it is until the kernel lets it go, and the next task has another one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::fault::FaultCode;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::limits::{LEFT_BEHIND_MAX, SILENT_SECONDS_MAX};

/// Whether a task moves, and where it was last.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    place: Mutex<OsString>,
}

impl Pulse {
    /// It moves.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// It is about to look at this.
    pub(crate) fn at(&self, place: &Path) {
        self.beat();
        let mut known = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
        known.push(place);
    }

    /// What it has looked at last.
    pub fn place(&self) -> PathBuf {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

/// Why nothing comes of looking.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It was given up.
    #[error("given up: nothing has moved for {SILENT_SECONDS_MAX} s, last at {}", .0.display())]
    Silent(PathBuf),
    /// So many are left behind that no other one is begun.
    #[error(
        "{LEFT_BEHIND_MAX} tasks were given up and hang: no other one is begun until one of them ends, or the collector is started again"
    )]
    TooMany,
    /// There is no thread for it.
    #[error("no thread can be started: {0}")]
    NoThread(String),
    /// It has panicked.
    #[error("a probe failed badly")]
    Badly,
}

impl Ended {
    /// What it is on the wire.
    pub(crate) fn code(&self) -> FaultCode {
        match self {
            Self::Silent(_) => FaultCode::Timeout,
            Self::TooMany | Self::NoThread(_) => FaultCode::Busy,
            Self::Badly => FaultCode::Internal,
        }
    }
}

/// Threads that were left behind, in the whole process.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// What has become of a thread.
#[derive(Debug, PartialEq, Eq)]
enum Thread {
    Looks,
    HasEnded,
    IsLeft,
}

/// Counts a thread that was left behind out, however it ends.
struct Life(Arc<Mutex<Thread>>);

impl Drop for Life {
    fn drop(&mut self) {
        let mut thread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *thread == Thread::IsLeft {
            LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
        }
        *thread = Thread::HasEnded;
    }
}

/// What `look` gives, which has to keep up this pulse; without that for [`SILENT_SECONDS_MAX`] it is given up, and `is_cancelled` is
/// set for the time when it wakes.
pub async fn watched<T: Send + 'static>(
    pulse: Arc<Pulse>,
    is_cancelled: Arc<AtomicBool>,
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Ended> {
    // What stops the process as a whole, such as a laptop that sleeps, stops these as well: they are counted, not the time.
    watched_for(Duration::from_secs(1), pulse, is_cancelled, look).await
}

/// The same, with seconds of another length.
pub async fn watched_for<T: Send + 'static>(
    second: Duration,
    pulse: Arc<Pulse>,
    is_cancelled: Arc<AtomicBool>,
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Ended> {
    if LEFT_BEHIND.load(Ordering::Relaxed) >= LEFT_BEHIND_MAX {
        return Err(Ended::TooMany);
    }
    let (tell, mut told) = oneshot::channel();
    let state = Arc::new(Mutex::new(Thread::Looks));
    let life = Life(Arc::clone(&state));
    // Not one of the runtime's: it would wait for them when the process ends.
    let spawned = std::thread::Builder::new().name("look".to_owned()).spawn(move || {
        let _life = life;
        let _ = tell.send(look());
    });
    spawned.map_err(|error| Ended::NoThread(error.to_string()))?;
    let mut seconds = tokio::time::interval(second);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut beats, mut silent) = (pulse.beats.load(Ordering::Relaxed), 0);
    loop {
        tokio::select! {
            biased;
            found = &mut told => return found.map_err(|_| Ended::Badly),
            _ = seconds.tick() => {}
        }
        let now = pulse.beats.load(Ordering::Relaxed);
        silent = if now == beats { silent + 1 } else { 0 };
        beats = now;
        if silent <= SILENT_SECONDS_MAX {
            continue;
        }
        let mut thread = state.lock().unwrap_or_else(PoisonError::into_inner);
        if *thread == Thread::Looks {
            *thread = Thread::IsLeft;
            LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
            is_cancelled.store(true, Ordering::Relaxed);
            return Err(Ended::Silent(pulse.place()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// For what is to be given up, and for what is not, however busy the machine is.
    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn what_moves_is_waited_for_and_what_does_not_is_given_up_until_there_are_too_many() {
        let pulse = Arc::new(Pulse::default());
        let cancelled = Arc::new(AtomicBool::new(false));
        let beating = Arc::clone(&pulse);
        // Many times longer than it may be silent.
        let moved = watched_for(SHORT, pulse, Arc::clone(&cancelled), move || {
            for _ in 0..200 {
                beating.beat();
                std::thread::sleep(SHORT);
            }
            7
        });
        assert_eq!(moved.await, Ok(7));
        assert!(!cancelled.load(Ordering::Relaxed));
        let badly = watched_for(LONG, Arc::default(), Arc::clone(&cancelled), || panic!("badly"));
        assert_eq!(badly.await, Err::<(), _>(Ended::Badly));

        let mut held = Vec::new();
        for _ in 0..LEFT_BEHIND_MAX {
            let (hold, wait) = mpsc::channel::<()>();
            held.push(hold);
            let pulse = Arc::new(Pulse::default());
            let place = Arc::clone(&pulse);
            let cancelled = Arc::new(AtomicBool::new(false));
            let look = move || {
                place.at(Path::new("/srv/data/x"));
                let _ = wait.recv();
            };
            let ended = watched_for(SHORT, pulse, Arc::clone(&cancelled), look).await.unwrap_err();
            assert_eq!(ended.to_string(), "given up: nothing has moved for 30 s, last at /srv/data/x");
            assert!(cancelled.load(Ordering::Relaxed));
        }
        let one_more = async || watched_for(LONG, Arc::default(), Arc::default(), || 7).await;
        assert_eq!(one_more().await, Err(Ended::TooMany));
        // One that wakes makes room.
        held.pop();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while one_more().await != Ok(7) {
            assert!(std::time::Instant::now() < deadline, "a thread that has ended is still counted");
            tokio::time::sleep(SHORT).await;
        }
    }
}
