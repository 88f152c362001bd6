//! What components have sent durably, seen from outside: files that appear in their outboxes, and go when somebody has
//! acknowledged them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use proto::seal::Sealed;
use serde_json::Value;

/// What was sent, by its id: the topic, and what it says of an end.
type Sent = BTreeMap<String, (String, Option<End>)>;

/// What a status says at the end of a task.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// Its transaction, who did it, and by which request.
    pub(super) responder: String,
    /// How it ended.
    pub(super) phase: String,
}

impl End {
    fn of(payload: &[u8]) -> Option<Self> {
        let envelope: Value = serde_json::from_slice(Sealed::split(payload).ok()?.envelope).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let [transaction, publisher, request, phase] = [
            &envelope["transaction"],
            &envelope["body"]["publisher"],
            &envelope["body"]["request"],
            &envelope["body"]["phase"],
        ]
        .map(text);
        Some(Self { responder: format!("{} {} {}", transaction?, publisher?, request?), phase: phase? })
    }
}

/// Somebody who looks at the outboxes again and again.
#[derive(Debug)]
pub(super) struct Outboxes {
    seen: Arc<Mutex<Sent>>,
    is_over: Arc<AtomicBool>,
    looks: Option<JoinHandle<()>>,
}

/// From one look to the next: a message that comes and goes in between is not seen, and not checked.
const PAUSE: Duration = Duration::from_millis(5);

impl Outboxes {
    /// Looks into these data directories from now on.
    pub(super) fn watch(directories: Vec<PathBuf>) -> Self {
        let (seen, is_over) = (Arc::new(Mutex::new(Sent::new())), Arc::new(AtomicBool::new(false)));
        let (into, ends) = (Arc::clone(&seen), Arc::clone(&is_over));
        let looks = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                for directory in &directories {
                    look(directory, &into);
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { seen, is_over, looks: Some(looks) }
    }

    /// What was sent to a repository, by id: those whose topic is one of results.
    pub(super) fn results(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(_, (topic, _))| topic.contains("/results/")).map(|(id, _)| id.clone()).collect()
    }

    /// The ends of tasks that were told the orchestrator, by id.
    pub(super) fn ends(&self) -> Vec<(String, End)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let end = |(id, (topic, end)): (&String, &(String, Option<End>))| {
            end.clone().filter(|_| topic.starts_with("/status/")).map(|end| (id.clone(), end))
        };
        seen.iter().filter_map(end).collect()
    }
}

impl Drop for Outboxes {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(looks) = self.looks.take() {
            let _ = looks.join();
        }
    }
}

fn look(directory: &Path, into: &Mutex<Sent>) {
    for id in waiting(directory) {
        let is_new = !into.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id);
        let path = directory.join("outbox").join(format!("{id}.msg"));
        if let (true, Ok(bytes)) = (is_new, std::fs::read(path)) {
            let (topic, payload) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
            let topic = String::from_utf8_lossy(topic).into_owned();
            let end = payload.get(1..).filter(|_| topic.starts_with("/status/")).and_then(End::of);
            into.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (topic, end));
        }
    }
}

/// The messages that wait below a data directory.
pub(super) fn waiting(directory: &Path) -> Vec<String> {
    let files = std::fs::read_dir(directory.join("outbox")).into_iter().flatten().filter_map(Result::ok);
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    names.filter_map(|name| Some(name.strip_suffix(".msg")?.to_owned())).collect()
}
