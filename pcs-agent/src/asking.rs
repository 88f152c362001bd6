//! Asks file systems whether they answer: each in a thread of its own, with a deadline. A thread that gets no answer stays where
//! it is until the kernel lets it go; there is at most one for each file system, and few in all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::limits::{ASKED_AT_ONCE_MAX, ASKED_SECONDS_MAX};

/// The device of a file system: however often it is mounted, it is asked once.
pub(crate) type Device = (u32, u32);

/// What is known of a file system that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is there.
    Heard,
    /// It says that whoever answers for it is gone.
    Failed(String),
    /// It has not answered.
    Silent,
    /// It was not asked: so many others keep their threads already.
    NotAsked,
}

/// Threads that wait for an answer, by what they ask: since when, and what they have heard.
type Waiting = BTreeMap<Device, (Instant, Arc<Mutex<Answer>>)>;

/// Those of the whole process.
#[derive(Debug)]
struct Register {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

static REGISTER: Register = Register { waiting: Mutex::new(BTreeMap::new()), changed: Condvar::new() };

impl Register {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a thread's place in the register, however it ends.
struct Place(Device);

impl Drop for Place {
    fn drop(&mut self) {
        REGISTER.waiting().remove(&self.0);
        REGISTER.changed.notify_all();
    }
}

/// Asks all of them, and waits at most [`ASKED_SECONDS_MAX`] in all. One whose thread still waits from before has had its time.
pub(crate) fn ask(systems: &BTreeMap<Device, PathBuf>) -> BTreeMap<Device, Answer> {
    let deadline = Duration::from_secs(ASKED_SECONDS_MAX);
    let began = Instant::now();
    let mut unasked: Vec<_> = systems.iter().collect();
    let mut asked: BTreeMap<Device, Arc<Mutex<Answer>>> = BTreeMap::new();
    let mut waiting = REGISTER.waiting();
    loop {
        unasked.retain(|(device, target)| {
            if let Some((_, answer)) = waiting.get(device) {
                asked.insert(**device, Arc::clone(answer));
                return false;
            }
            if waiting.len() >= ASKED_AT_ONCE_MAX {
                return true;
            }
            let answer = Arc::new(Mutex::new(Answer::Silent));
            if begin(**device, target, Arc::clone(&answer)) {
                waiting.insert(**device, (began, Arc::clone(&answer)));
                asked.insert(**device, answer);
                return false;
            }
            true
        });
        let is_awaited = |device: &Device| {
            let of_thread = waiting.get(device).filter(|(_, answer)| Arc::ptr_eq(answer, &asked[device]));
            of_thread.is_some_and(|(since, _)| since.elapsed() < deadline)
        };
        let left = deadline.saturating_sub(began.elapsed());
        let is_over = left.is_zero() || unasked.is_empty() && !asked.keys().any(is_awaited);
        // Where all places are taken by those that have had their time, nobody makes room soon.
        let is_stuck = || waiting.values().all(|(since, _)| since.elapsed() >= deadline);
        if is_over || !asked.keys().any(is_awaited) && is_stuck() {
            break;
        }
        waiting = REGISTER.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    drop(waiting);
    let mut answers: BTreeMap<Device, Answer> =
        unasked.into_iter().map(|(device, _)| (*device, Answer::NotAsked)).collect();
    for (device, answer) in asked {
        answers.insert(device, answer.lock().unwrap_or_else(PoisonError::into_inner).clone());
    }
    answers
}

/// Begins to ask; whether there is a thread for it. It takes its place out of the register only after the caller has let go of it.
fn begin(device: Device, target: &Path, answer: Arc<Mutex<Answer>>) -> bool {
    let target = target.to_owned();
    let thread = std::thread::Builder::new().name("mount".to_owned()).stack_size(128 * 1024);
    let spawned = thread.spawn(move || {
        let _place = Place(device);
        let heard = answer_of(&target);
        *answer.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    });
    spawned.is_ok()
}

/// Blocks until it answers.
fn answer_of(target: &Path) -> Answer {
    match rustix::fs::statfs(target) {
        Ok(_) => Answer::Heard,
        // Not this collector's to see, or gone since: whoever looks hears so at once.
        Err(Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NOTDIR | Errno::NOSYS) => Answer::Heard,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_is_heard_and_leaves_no_thread() {
        let systems: BTreeMap<Device, PathBuf> =
            (0..100).map(|minor| ((u32::MAX, minor), PathBuf::from(if minor == 7 { "/none" } else { "/" }))).collect();
        let answers = ask(&systems);
        assert_eq!(answers.len(), 100);
        assert!(answers.values().all(|answer| *answer == Answer::Heard), "{answers:?}");
        assert!(REGISTER.waiting().keys().all(|device| device.0 != u32::MAX));
    }
}
