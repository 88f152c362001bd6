//! Periodic collection (draft-ietf-sacm-arch-07 §5.4.2): schedules that live at the collector, survive
//! its restart, and run while the orchestrator is away. A core: time comes in from outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::message::{
    CollectionRequest, PeriodicCollection, PeriodicCollectionResponse, PeriodicOperation, ScheduleEntry,
};
use proto::schedule::Overlap;
use serde::{Deserialize, Serialize};
use service::recurrence::{Recurrence, Timetable};

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
    #[serde(flatten)]
    timetable: Timetable,
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
                        let (collection_identifier, next) = (identifier.clone(), entry.timetable.next);
                        Some(ScheduleEntry { collection_identifier, collection_schedule, next })
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
                let recurrence = match Recurrence::of(schedule) {
                    Ok(recurrence) => recurrence,
                    Err(error) => return refused(FaultCode::Malformed, &error.to_string()),
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
                let entry = Entry { request, issuer, asked_by, timetable: Timetable::new(&recurrence, now, chance()) };
                let run_now = entry.run().filter(|_| is_now);
                self.entries.insert(entry.request.collection_identifier.clone(), entry);
                self.save()?;
                Ok(Outcome { response, run_now })
            }
        }
    }

    /// What is due, by identifier. Of the runs that could not be made, because the process was down or it was not the time,
    /// one is made as soon as it can be, or none.
    pub fn due(&mut self, now: Timestamp) -> Result<Vec<(String, Run)>, KeptError> {
        let mut due = Vec::new();
        let mut is_changed = false;
        for (identifier, entry) in &mut self.entries {
            let Some(schedule) = &entry.request.collection_schedule else { continue };
            let look = entry.timetable.look(schedule, now, chance());
            is_changed |= look.is_changed;
            if look.is_run {
                due.extend(entry.run().map(|run| (identifier.clone(), run)));
            }
        }
        if is_changed {
            // A restart does not repeat what was done.
            self.save()?;
        }
        Ok(due)
    }

    /// Whether a run that is due is left out while the one before goes on.
    pub fn skips_overlaps(&self, identifier: &str) -> bool {
        let schedule = self.entries.get(identifier).and_then(|entry| entry.request.collection_schedule.as_ref());
        schedule.is_some_and(|schedule| schedule.overlap == Overlap::Skip)
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    bus::mqtt::rand_fraction()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::content::ContentRef;
    use proto::id::RequestId;
    use proto::schedule::{OnMissed, Schedule};
    use uuid::Uuid;

    fn request(operation: PeriodicOperation, every_seconds: u64, at_once: bool) -> PeriodicCollection {
        PeriodicCollection {
            collection_identifier: "daily".into(),
            operation,
            collection_schedule: Some(Schedule::every(every_seconds)),
            collect_upon_acknowledgement: at_once,
            collection_instructions: Some(CollectionRequest {
                request: RequestId(Uuid::nil()),
                plan: ContentRef::to(b"plan"),
                targets: vec![],
                objects: vec![],
                deadline: Timestamp::MAX,
                budget: proto::budget::Budget::default(),
                priority: proto::message::Priority::default(),
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
        assert!(schedules.due(at(59)).unwrap().is_empty());
        drop(schedules);
        let mut schedules = Schedules::load(&directory.path().join("schedules.json")).unwrap();
        let due = schedules.due(at(100_000)).unwrap();
        assert_eq!((due.len(), &due[0].1.asked_by), (1, &issuer().1));
        assert!(schedules.due(at(100_001)).unwrap().is_empty());
        // What was done is not done again by who comes after it.
        let mut schedules = Schedules::load(&directory.path().join("schedules.json")).unwrap();
        assert!(schedules.due(at(100_002)).unwrap().is_empty());
        assert_eq!(schedules.due(at(100_060)).unwrap().len(), 1);
    }

    fn with(change: impl FnOnce(&mut Schedule)) -> (tempfile::TempDir, Schedules) {
        let (directory, mut schedules) = fresh();
        let mut request = request(PeriodicOperation::Schedule, 60, false);
        change(request.collection_schedule.as_mut().unwrap());
        assert_eq!(schedules.apply(request, issuer(), at(0)).unwrap().response.fault, None);
        (directory, schedules)
    }

    #[test]
    fn what_was_missed_is_left_out_where_the_schedule_says_so() {
        let (directory, mut schedules) = with(|schedule| schedule.on_missed = OnMissed::Skip);
        assert_eq!(schedules.due(at(60)).unwrap().len(), 1);
        drop(schedules);
        let mut schedules = Schedules::load(&directory.path().join("schedules.json")).unwrap();
        assert!(schedules.due(at(100_000)).unwrap().is_empty());
        assert_eq!(schedules.due(at(100_060)).unwrap().len(), 1);
    }

    #[test]
    fn outside_of_its_window_a_run_waits_or_is_left_out() {
        // Midnight of the first of January 1970, a Thursday.
        let window = || vec!["00:10-00:20".parse().unwrap()];
        let (_directory, mut once) = with(|schedule| schedule.windows = window());
        let (_other, mut skipping) = with(|schedule| {
            schedule.windows = window();
            schedule.on_missed = OnMissed::Skip;
        });
        let runs = |schedules: &mut Schedules| {
            (0..1_800).filter(|second| !schedules.due(at(*second)).unwrap().is_empty()).collect::<Vec<_>>()
        };
        let (once, skipping) = (runs(&mut once), runs(&mut skipping));
        assert_eq!((once.first(), once.last(), once.len()), (Some(&600), Some(&1_140), 10));
        assert_eq!((skipping.first(), skipping.len()), (Some(&600), 10));
    }

    #[test]
    fn a_schedule_that_has_ended_is_listed_and_runs_no_more() {
        let (_directory, mut schedules) = with(|schedule| schedule.end = Some(at(100)));
        assert_eq!(schedules.due(at(60)).unwrap().len(), 1);
        assert!(schedules.due(at(120)).unwrap().is_empty());
        let list = schedules.apply(request(PeriodicOperation::List, 1, false), issuer(), at(121)).unwrap();
        assert_eq!(list.response.schedules[0].next, None);
    }

    #[test]
    fn a_schedule_that_cannot_be_followed_is_refused_with_the_reason() {
        let (_directory, mut schedules) = fresh();
        let mut request = request(PeriodicOperation::Schedule, 60, false);
        request.collection_schedule = Some(Schedule { cron: Some("no".to_owned()), ..Schedule::default() });
        let fault = schedules.apply(request, issuer(), at(0)).unwrap().response.fault.unwrap();
        assert!(fault.code == FaultCode::Malformed && fault.message.contains("five fields"), "{fault}");
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
        assert!(schedules.due(at(1_000)).unwrap().is_empty());
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
