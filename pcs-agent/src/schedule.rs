//! Periodic collection (draft-ietf-sacm-arch-07 §5.4.2): schedules that live at the collector, survive
//! its restart, and run while the orchestrator is away. A core: time comes in from outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::message::{
    CollectionRequest, PeriodicCollection, PeriodicCollectionResponse, PeriodicOperation, ScheduleEntry,
};
use serde::{Deserialize, Serialize};

use crate::kept::{self, KeptError};
use crate::limits::SCHEDULES_MAX;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    request: PeriodicCollection,
    issuer: ComponentId,
    /// What asked for it, for its answers to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked_by: Option<ContentHash>,
    next: Timestamp,
}

impl Entry {
    fn run(&self) -> Option<Run> {
        let instructions = self.request.collection_instructions.clone()?;
        Some(Run { instructions, asked_by: self.asked_by.clone() })
    }
}

/// What a standing task collects, and SHA-256 of the envelope that asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What.
    pub instructions: CollectionRequest,
    /// By which message.
    pub asked_by: Option<ContentHash>,
}

/// The schedules of one collector.
#[derive(Debug)]
pub struct Schedules {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

/// What an operation leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The answer.
    pub response: PeriodicCollectionResponse,
    /// To be collected at once.
    pub run_now: Option<Run>,
}

impl Schedules {
    /// Those of an earlier process.
    pub fn load(path: &Path) -> Result<Self, KeptError> {
        Ok(Self { path: path.to_owned(), entries: kept::load(path)? })
    }

    fn save(&self) -> Result<(), KeptError> {
        kept::save(&self.path, &self.entries)
    }

    /// Schedules, cancels or lists.
    pub fn apply(
        &mut self,
        request: PeriodicCollection,
        (issuer, asked_by): (ComponentId, Option<ContentHash>),
        now: Timestamp,
    ) -> Result<Outcome, KeptError> {
        let response = PeriodicCollectionResponse {
            operation: request.operation,
            collection_identifier: request.collection_identifier.clone(),
            schedules: Vec::new(),
            fault: None,
        };
        let refused = |code, text: &str| {
            Ok(Outcome {
                response: PeriodicCollectionResponse { fault: Some(Fault::new(code, text)), ..response.clone() },
                run_now: None,
            })
        };
        match request.operation {
            PeriodicOperation::List => {
                let schedules = self
                    .entries
                    .iter()
                    .filter_map(|(identifier, entry)| {
                        let collection_schedule = entry.request.collection_schedule.clone()?;
                        Some(ScheduleEntry { collection_identifier: identifier.clone(), collection_schedule })
                    })
                    .collect();
                Ok(Outcome { response: PeriodicCollectionResponse { schedules, ..response }, run_now: None })
            }
            PeriodicOperation::Cancel => {
                // Ending what is not there is no fault: the operation may come twice.
                let ended = self.entries.remove(&request.collection_identifier);
                self.save()?;
                let run_now = ended.filter(|_| request.collect_upon_acknowledgement).and_then(|entry| entry.run());
                Ok(Outcome { response, run_now })
            }
            PeriodicOperation::Schedule => {
                let (Some(schedule), Some(_)) = (&request.collection_schedule, &request.collection_instructions) else {
                    return refused(
                        FaultCode::Malformed,
                        "a schedule needs collection-schedule and collection-instructions",
                    );
                };
                let Some(interval) = i64::try_from(schedule.every_seconds).ok().filter(|seconds| *seconds > 0) else {
                    return refused(FaultCode::Malformed, "every-seconds must be at least 1");
                };
                let count = self.entries.len();
                match self.entries.get_mut(&request.collection_identifier) {
                    // The same again is a redelivery, and gets the same answer. What was kept before reports named what asked
                    // for them learns it so.
                    Some(known) if known.request == request => {
                        if known.asked_by.is_none() {
                            known.asked_by = asked_by;
                            self.save()?;
                        }
                        return Ok(Outcome { response, run_now: None });
                    }
                    Some(_) => {
                        return refused(
                            FaultCode::DuplicateIdentifier,
                            "the identifier is in use: cancel it first, then schedule anew",
                        );
                    }
                    None if count >= SCHEDULES_MAX => {
                        return refused(FaultCode::Busy, "too many schedules");
                    }
                    None => {}
                }
                let is_now = request.collect_upon_acknowledgement;
                let next = now.saturating_add(SignedDuration::from_secs(interval)).unwrap_or(Timestamp::MAX);
                let entry = Entry { request, issuer, asked_by, next };
                let run_now = entry.run().filter(|_| is_now);
                self.entries.insert(entry.request.collection_identifier.clone(), entry);
                self.save()?;
                Ok(Outcome { response, run_now })
            }
        }
    }

    /// What is due. A run that was missed while the process was down happens once, not once for each.
    pub fn due(&mut self, now: Timestamp) -> Vec<Run> {
        let mut due = Vec::new();
        for entry in self.entries.values_mut() {
            let Some(schedule) = &entry.request.collection_schedule else { continue };
            if entry.next <= now {
                due.extend(entry.run());
                let interval = SignedDuration::from_secs(i64::try_from(schedule.every_seconds).unwrap_or(i64::MAX));
                entry.next = now.saturating_add(interval).unwrap_or(Timestamp::MAX);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::content::ContentRef;
    use proto::id::RequestId;
    use proto::message::Schedule;
    use uuid::Uuid;

    fn request(operation: PeriodicOperation, every_seconds: u64, at_once: bool) -> PeriodicCollection {
        PeriodicCollection {
            collection_identifier: "daily".into(),
            operation,
            collection_schedule: Some(Schedule { every_seconds }),
            collect_upon_acknowledgement: at_once,
            collection_instructions: Some(CollectionRequest {
                request: RequestId(Uuid::nil()),
                plan: ContentRef::to(b"plan"),
                targets: vec![],
                objects: vec![],
                deadline: Timestamp::MAX,
            }),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn fresh() -> (tempfile::TempDir, Schedules) {
        let directory = tempfile::tempdir().unwrap();
        let schedules = Schedules::load(&directory.path().join("schedules.json")).unwrap();
        (directory, schedules)
    }

    fn issuer() -> (ComponentId, Option<ContentHash>) {
        (ComponentId(Uuid::nil()), Some(ContentHash::of(b"the message that asked")))
    }

    #[test]
    fn an_identifier_in_use_is_a_fault_unless_everything_is_the_same() {
        let (_directory, mut schedules) = fresh();
        let first = request(PeriodicOperation::Schedule, 60, true);
        assert!(schedules.apply(first.clone(), issuer(), at(0)).unwrap().run_now.is_some());
        let again = schedules.apply(first, issuer(), at(1)).unwrap();
        assert_eq!((again.response.fault, again.run_now), (None, None));
        let other = schedules.apply(request(PeriodicOperation::Schedule, 30, false), issuer(), at(2)).unwrap();
        assert_eq!(other.response.fault.unwrap().code, FaultCode::DuplicateIdentifier);
    }

    #[test]
    fn schedules_survive_a_restart_and_run_once_for_what_was_missed() {
        let (directory, mut schedules) = fresh();
        schedules.apply(request(PeriodicOperation::Schedule, 60, false), issuer(), at(0)).unwrap();
        assert!(schedules.due(at(59)).is_empty());
        drop(schedules);
        let mut schedules = Schedules::load(&directory.path().join("schedules.json")).unwrap();
        let due = schedules.due(at(100_000));
        assert_eq!((due.len(), &due[0].asked_by), (1, &issuer().1));
        assert!(schedules.due(at(100_001)).is_empty());
        assert_eq!(schedules.due(at(100_060)).len(), 1);
    }

    #[test]
    fn cancelling_may_collect_once_more_and_may_come_twice() {
        let (_directory, mut schedules) = fresh();
        schedules.apply(request(PeriodicOperation::Schedule, 60, false), issuer(), at(0)).unwrap();
        assert!(
            schedules.apply(request(PeriodicOperation::Cancel, 60, true), issuer(), at(1)).unwrap().run_now.is_some()
        );
        assert!(
            schedules.apply(request(PeriodicOperation::Cancel, 60, true), issuer(), at(2)).unwrap().run_now.is_none()
        );
        assert!(schedules.due(at(1_000)).is_empty());
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("schedules.json");
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(Schedules::load(&path), Err(KeptError::Damaged(_))));
        assert!(path.exists());
    }
}
