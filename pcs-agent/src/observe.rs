//! Event-based collection (draft-ietf-sacm-arch-13 §6.4.1.4, spec proposal P-13): what a plan reads is
//! reported in full once, then whatever changes. A core: time and findings come in from outside.
//!
//! Reports carry an epoch and a number without gaps, as SWIMA's do (RFC 8412): when the process starts
//! anew, or a report could not be kept for sending, a new epoch begins with a full report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, MessageId};
use proto::message::{
    CollectionRequest, FollowedBy, Following, ObservationEntry, ObservationMode, ObservationOperation,
    ObservationRequest, ObservationResponse, StreamPosition,
};
use proto::plan::ObjectKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kept::{self, KeptError};
use crate::limits::{IDENTIFIER_BYTES_MAX, OBSERVATIONS_MAX, POLL_SECONDS_DEFAULT};
use crate::report::Found;
use crate::schedule::Run;
use crate::watch::Followed;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    request: ObservationRequest,
    issuer: ComponentId,
    /// What asked for it, for its reports to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked_by: Option<ContentHash>,
}

impl Entry {
    fn poll_seconds(&self) -> u64 {
        self.request.poll_seconds.unwrap_or(POLL_SECONDS_DEFAULT)
    }
}

/// How long changes are gathered before they are looked at.
const DEBOUNCE: SignedDuration = SignedDuration::from_millis(200);
/// The least time between two looks that changes lead to.
const LEAST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// Seconds after which everything is looked at, whatever the kernel has told: hard links and other mounts hide changes.
const WHOLE_SECONDS: u64 = 600;

/// What is known of an observation while the process lives.
#[derive(Debug, Default)]
struct Stream {
    /// Which one it is, of those that had its name: a look of one that was cancelled says nothing of the next.
    generation: u64,
    /// When to look at what nobody tells of.
    next: Option<Timestamp>,
    /// When to look at everything: what was missed is found then.
    next_whole: Option<Timestamp>,
    /// When it was last looked.
    looked: Option<Timestamp>,
    /// How its objects are followed; none until the plan is known.
    followed: Option<Followed>,
    /// What may have changed, since when; no objects: all of them.
    dirty: Option<(Timestamp, BTreeSet<ObjectKey>)>,
    is_looking: bool,
    epoch: Option<Uuid>,
    sequence: u64,
    known: BTreeMap<ObjectKey, ContentHash>,
    /// Reports whose acknowledgement is awaited.
    sent: Vec<MessageId>,
}

impl Stream {
    /// Its times are so much earlier.
    fn set_back(&mut self, back: SignedDuration) {
        let dirty = self.dirty.as_mut().map(|(since, _)| since);
        let times = [self.next.as_mut(), self.next_whole.as_mut(), self.looked.as_mut(), dirty];
        for time in times.into_iter().flatten() {
            *time = time.saturating_sub(back).unwrap_or(Timestamp::MIN);
        }
    }
}

/// A look that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Of which observation.
    pub identifier: String,
    /// Which one of that name.
    pub generation: u64,
    /// At what: the instructions name the objects, or none for all.
    pub run: Run,
    /// Whether everything is looked at.
    pub is_whole: bool,
}

/// The observations of one collector.
#[derive(Debug)]
pub struct Observations {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    streams: BTreeMap<String, Stream>,
    /// How many there have been.
    generations: u64,
    /// When it was last asked what is due.
    asked: Option<Timestamp>,
}

impl Observations {
    /// Those of an earlier process; each begins a new epoch.
    pub fn load(path: &Path) -> Result<Self, KeptError> {
        Ok(Self {
            path: path.to_owned(),
            entries: kept::load(path)?,
            streams: BTreeMap::new(),
            generations: 0,
            asked: None,
        })
    }

    /// Starts, cancels or lists.
    pub fn apply(
        &mut self,
        request: ObservationRequest,
        (issuer, asked_by): (ComponentId, Option<ContentHash>),
    ) -> Result<ObservationResponse, KeptError> {
        let identifier = request.observation_identifier.clone();
        let mut response = ObservationResponse {
            operation: request.operation,
            observation_identifier: identifier.clone(),
            observations: Vec::new(),
            fault: None,
        };
        match request.operation {
            ObservationOperation::List => response.observations = self.list(),
            ObservationOperation::Cancel => {
                // Ending what is not there is no fault: the operation may come twice.
                self.entries.remove(&identifier);
                self.streams.remove(&identifier);
                kept::save(&self.path, &self.entries)?;
            }
            ObservationOperation::Start => {
                response.fault = self.objection(&request);
                if response.fault.is_none() {
                    let asked = asked_by.clone();
                    let entry = self.entries.entry(identifier.clone()).or_insert(Entry { request, issuer, asked_by });
                    // Kept before reports named what asked for them.
                    entry.asked_by = entry.asked_by.take().or(asked);
                    kept::save(&self.path, &self.entries)?;
                    response.observations = self.entries_of(&identifier);
                }
            }
        }
        Ok(response)
    }

    fn objection(&self, request: &ObservationRequest) -> Option<Fault> {
        let (code, text) = match self.entries.get(&request.observation_identifier) {
            _ if request.collection_instructions.is_none() => {
                (FaultCode::Malformed, "an observation needs collection-instructions")
            }
            _ if request.observation_identifier.is_empty()
                || request.observation_identifier.len() > IDENTIFIER_BYTES_MAX =>
            {
                (FaultCode::Malformed, "an identifier has 1 to 128 bytes")
            }
            _ if request.poll_seconds == Some(0) => (FaultCode::Malformed, "poll-seconds must be at least 1"),
            // The same again is a redelivery, and gets the same answer.
            Some(known) if known.request == *request => return None,
            Some(_) => {
                (FaultCode::DuplicateIdentifier, "the identifier is in use: cancel it first, then start it anew")
            }
            None if self.entries.len() >= OBSERVATIONS_MAX => (FaultCode::Busy, "too many observations"),
            None => return None,
        };
        Some(Fault::new(code, text))
    }

    /// Whether it is not known yet how it is followed.
    pub fn is_not_watched(&self, identifier: &str, generation: u64) -> bool {
        let stream = self.streams.get(identifier).filter(|stream| stream.generation == generation);
        stream.is_some_and(|stream| stream.followed.is_none())
    }

    /// One of them, as it is listed.
    pub fn entries_of(&self, identifier: &str) -> Vec<ObservationEntry> {
        let mut entries = self.list();
        entries.retain(|entry| entry.observation_identifier == identifier);
        entries
    }

    fn list(&self) -> Vec<ObservationEntry> {
        let entry = |(identifier, entry): (&String, &Entry)| {
            let stream = self.streams.get(identifier);
            let followed = stream.and_then(|stream| stream.followed.as_ref());
            let polled_count = followed.map(|followed| followed.polled.len() as u64);
            let looked = FollowedBy {
                way: Following::Polling,
                count: polled_count.unwrap_or_default(),
                seconds: Some(entry.poll_seconds()),
            };
            let told = followed.into_iter().flat_map(|followed| followed.by.clone());
            ObservationEntry {
                observation_identifier: identifier.clone(),
                mode: match (followed, polled_count) {
                    (Some(Followed { watched_count: 1.., .. }), Some(0)) => ObservationMode::Realtime,
                    (Some(Followed { by, .. }), _) if !by.is_empty() => ObservationMode::Mixed,
                    _ => ObservationMode::Polling,
                },
                poll_seconds: entry.poll_seconds(),
                watched_count: followed.map(|followed| followed.watched_count),
                polled_count,
                followed: told.chain((looked.count > 0).then_some(looked)).collect(),
                epoch: stream.and_then(|stream| stream.epoch),
                sequence: stream.map(|stream| stream.sequence).unwrap_or_default(),
            }
        };
        self.entries.iter().map(entry).collect()
    }

    /// How the objects of an observation are followed from now on.
    pub fn follow(&mut self, identifier: &str, followed: Followed) {
        if self.entries.contains_key(identifier) {
            self.streams.entry(identifier.to_owned()).or_default().followed = Some(followed);
        }
    }

    /// Objects that may have changed; none: all of them.
    pub fn touched(&mut self, identifier: &str, objects: BTreeSet<ObjectKey>, now: Timestamp) {
        let Some(stream) = self.streams.get_mut(identifier) else { return };
        match &mut stream.dirty {
            None => stream.dirty = Some((now, objects)),
            Some((_, known)) if known.is_empty() => {}
            Some((_, known)) if objects.is_empty() => known.clear(),
            Some((_, known)) => known.extend(objects),
        }
    }

    /// What is to be looked at now. An observation that is still being looked at is passed over.
    pub fn due(&mut self, now: Timestamp) -> Vec<Look> {
        if let Some(before) = self.asked.replace(now).filter(|before| *before > now) {
            // The clock was set back: what is due in a moment is so still.
            let back = before.duration_since(now);
            self.streams.values_mut().for_each(|stream| stream.set_back(back));
        }
        let mut due = Vec::new();
        let is_over = |time: Option<Timestamp>| time.is_none_or(|time| time <= now);
        let later = |seconds: u64| {
            let interval = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(now.saturating_add(interval).unwrap_or(Timestamp::MAX))
        };
        for (identifier, entry) in &self.entries {
            let stream = self.streams.entry(identifier.clone()).or_default();
            if stream.generation == 0 {
                self.generations += 1;
                stream.generation = self.generations;
            }
            let generation = stream.generation;
            let Some(instructions) = &entry.request.collection_instructions else { continue };
            if stream.is_looking {
                continue;
            }
            let is_polled = is_over(stream.next);
            let long_enough = |since: Timestamp, least: SignedDuration| now.duration_since(since) >= least;
            let dirty = stream.dirty.take_if(|(since, _)| {
                long_enough(*since, DEBOUNCE) && stream.looked.is_none_or(|looked| long_enough(looked, LEAST_PAUSE))
            });
            let all_polled = stream.followed.as_ref().is_none_or(|followed| followed.watched_count == 0);
            let is_whole = if stream.epoch.is_none() {
                is_polled
            } else {
                is_over(stream.next_whole)
                    || is_polled && all_polled
                    || dirty.as_ref().is_some_and(|(_, objects)| objects.is_empty())
            };
            let mut objects = BTreeSet::new();
            if !is_whole && stream.epoch.is_some() {
                objects.extend(dirty.into_iter().flat_map(|(_, objects)| objects));
                let polled = stream.followed.iter().filter(|_| is_polled).flat_map(|followed| &followed.polled);
                objects.extend(polled.cloned());
            }
            if is_polled {
                stream.next = later(entry.poll_seconds());
            }
            if is_whole {
                stream.dirty = None;
                stream.next_whole = later(entry.poll_seconds().max(WHOLE_SECONDS));
            } else if objects.is_empty() {
                continue;
            }
            stream.looked = Some(now);
            stream.is_looking = true;
            let instructions = CollectionRequest { objects: objects.into_iter().collect(), ..instructions.clone() };
            let run = Run { instructions, asked_by: entry.asked_by.clone() };
            due.push(Look { identifier: identifier.clone(), generation, run, is_whole });
        }
        due
    }

    /// What of a look is to be reported, and whether it begins an epoch: everything then, later what changed.
    pub fn changed(
        &mut self,
        (identifier, generation, is_whole): (&str, u64, bool),
        found: Vec<Found>,
        new_epoch: Uuid,
    ) -> (Vec<Found>, bool) {
        // Cancelled while it was looked at.
        let Some(stream) = self.streams.get_mut(identifier).filter(|stream| stream.generation == generation) else {
            return (Vec::new(), false);
        };
        stream.is_looking = false;
        let is_baseline = stream.epoch.is_none();
        if is_baseline && !is_whole {
            // An epoch begins with everything: the next look is at that.
            stream.next = None;
            return (Vec::new(), false);
        }
        if is_baseline {
            (stream.epoch, stream.sequence) = (Some(new_epoch), 0);
            stream.known.clear();
        }
        if is_whole {
            let present: BTreeSet<ObjectKey> = found.iter().map(|(object, ..)| object.clone()).collect();
            stream.known.retain(|object, _| present.contains(object));
        }
        let changed: Vec<Found> = found
            .into_iter()
            .filter(|(object, collected, _)| {
                let bytes = serde_json::to_vec(collected).expect("what was found always serialises");
                let hash = ContentHash::of(&bytes);
                stream.known.insert(object.clone(), hash.clone()) != Some(hash)
            })
            .collect();
        (changed, is_baseline)
    }

    /// A report is on its way.
    pub fn sent(&mut self, identifier: &str, report: MessageId) {
        if let Some(stream) = self.streams.get_mut(identifier) {
            stream.sent.push(report);
        }
    }

    /// Looks after reports on their way: one that was refused for good leaves a gap, and so begins an epoch.
    pub fn settle(&mut self, is_open: impl Fn(MessageId) -> bool, is_refused: impl Fn(MessageId) -> bool) {
        for stream in self.streams.values_mut() {
            if stream.sent.iter().any(|report| is_refused(*report)) {
                stream.epoch = None;
            }
            stream.sent.retain(|report| is_open(*report));
        }
    }

    /// The place of the next part.
    pub fn position(&mut self, identifier: &str, is_baseline: bool) -> Option<StreamPosition> {
        let stream = self.streams.get_mut(identifier)?;
        let epoch = stream.epoch?;
        stream.sequence += 1;
        Some(StreamPosition {
            observation_identifier: identifier.to_owned(),
            epoch,
            sequence: stream.sequence,
            is_baseline,
        })
    }

    /// A look failed, or a report could not be kept: a new epoch, so that nothing is missing unseen.
    pub fn lost(&mut self, identifier: &str, generation: u64) {
        if let Some(stream) = self.streams.get_mut(identifier).filter(|stream| stream.generation == generation) {
            stream.is_looking = false;
            stream.epoch = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::content::ContentRef;
    use proto::id::RequestId;
    use proto::observation::{Collected, Flag};

    fn request(operation: ObservationOperation, poll_seconds: u64) -> ObservationRequest {
        ObservationRequest {
            observation_identifier: "files".into(),
            operation,
            poll_seconds: Some(poll_seconds),
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

    fn found(values: &[(&str, &str)]) -> Vec<Found> {
        let one = |(object, value): &(&str, &str)| {
            (ObjectKey((*object).to_owned()), Collected::nothing(Flag::DoesNotExist, *value), at(0))
        };
        values.iter().map(one).collect()
    }

    fn fresh() -> (tempfile::TempDir, Observations) {
        let directory = tempfile::tempdir().unwrap();
        let mut observations = Observations::load(&directory.path().join("observations.json")).unwrap();
        let started =
            observations.apply(request(ObservationOperation::Start, 10), (ComponentId(Uuid::nil()), None)).unwrap();
        assert_eq!((started.fault, started.observations[0].poll_seconds), (None, 10));
        (directory, observations)
    }

    const EPOCH: Uuid = Uuid::from_u128(1);

    #[test]
    fn everything_is_reported_once_and_then_what_changes() {
        let (_directory, mut busy) = fresh();
        assert_eq!(busy.due(at(0)).len(), 1);
        assert!(busy.due(at(100)).is_empty(), "it is still being looked at");
        let (_directory, mut observations) = fresh();
        assert_eq!(observations.due(at(0)).len(), 1);
        let (first, is_baseline) = observations.changed(("files", 1, true), found(&[("a", "1"), ("b", "1")]), EPOCH);
        assert_eq!((first.len(), is_baseline), (2, true));
        assert_eq!(observations.position("files", true).unwrap().sequence, 1);
        assert!(observations.due(at(9)).is_empty());
        assert_eq!(observations.due(at(10)).len(), 1);
        assert!(observations.changed(("files", 1, true), found(&[("a", "1"), ("b", "1")]), Uuid::nil()).0.is_empty());
        let (changed, is_baseline) =
            observations.changed(("files", 1, true), found(&[("a", "1"), ("b", "2")]), Uuid::nil());
        assert_eq!(changed.iter().map(|(object, ..)| object.0.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(!is_baseline);
        let position = observations.position("files", false).unwrap();
        assert_eq!((position.epoch, position.sequence), (EPOCH, 2));
    }

    #[test]
    fn what_the_kernel_tells_of_is_looked_at_alone_and_everything_now_and_then() {
        let (_directory, mut observations) = fresh();
        let key = |name: &str| ObjectKey(name.to_owned());
        let keys = |names: &[&str]| names.iter().map(|name| key(name)).collect::<BTreeSet<_>>();
        let files = FollowedBy { way: Following::Files, count: 1, seconds: None };
        let polled = FollowedBy { way: Following::Polling, count: 1, seconds: Some(10) };
        let followed = Followed { watched_count: 1, polled: keys(&["polled"]), by: vec![files.clone()] };
        observations.follow("files", followed);
        let look = |observations: &mut Observations, second: i64| {
            let mut due = observations.due(at(second));
            let look = due.pop()?;
            let objects = look.run.instructions.objects.iter().map(|object| object.0.clone()).collect::<Vec<_>>();
            let values: Vec<(&str, &str)> = objects.iter().map(|object| (object.as_str(), "1")).collect();
            let values = if look.is_whole { vec![("polled", "1"), ("told", "1")] } else { values };
            let found = found(&values);
            let (changed, _) = observations.changed(("files", look.generation, look.is_whole), found, EPOCH);
            Some((look.is_whole, objects, changed.len()))
        };
        let of_polled = |changed| Some((false, vec!["polled".to_owned()], changed));
        assert_eq!(look(&mut observations, 0), Some((true, Vec::new(), 2)));
        assert_eq!(look(&mut observations, 9), None);
        assert_eq!(look(&mut observations, 10), of_polled(0));
        observations.touched("files", keys(&["told"]), at(11));
        assert_eq!(look(&mut observations, 11), None, "it is gathered for a moment");
        assert_eq!(look(&mut observations, 12), Some((false, vec!["told".to_owned()], 0)));
        observations.touched("files", keys(&["told"]), at(13));
        observations.touched("files", BTreeSet::new(), at(13));
        assert_eq!(look(&mut observations, 14), Some((true, Vec::new(), 0)), "what was lost may be anything");
        assert_eq!(look(&mut observations, 614), Some((true, Vec::new(), 0)));
        // After a loss the next look is at everything, whatever has been told.
        observations.lost("files", 1);
        observations.touched("files", keys(&["told"]), at(615));
        assert_eq!(look(&mut observations, 617), None);
        assert_eq!(look(&mut observations, 624), Some((true, Vec::new(), 2)));
        let entry = observations.list().remove(0);
        assert_eq!((entry.mode, entry.watched_count, entry.polled_count), (ObservationMode::Mixed, Some(1), Some(1)));
        assert_eq!(entry.followed, [files.clone(), polled]);
        // Told of in part is not looked at again and again alone.
        observations.follow("files", Followed { watched_count: 0, polled: keys(&["polled"]), by: vec![files.clone()] });
        assert_eq!(observations.list().remove(0).mode, ObservationMode::Mixed);
        observations.follow("files", Followed { watched_count: 0, polled: keys(&["polled"]), by: Vec::new() });
        assert_eq!(observations.list().remove(0).mode, ObservationMode::Polling);
        observations.follow("files", Followed { watched_count: 1, polled: BTreeSet::new(), by: vec![files.clone()] });
        let entry = observations.list().remove(0);
        assert_eq!((entry.mode, entry.followed), (ObservationMode::Realtime, vec![files]));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_make_the_next_look_late() {
        let (_directory, mut observations) = fresh();
        let files = FollowedBy { way: Following::Files, count: 1, seconds: None };
        let polled = [ObjectKey("polled".to_owned())].into();
        observations.follow("files", Followed { watched_count: 1, polled, by: vec![files] });
        let look = |observations: &mut Observations, second: i64| {
            let look = observations.due(at(second)).pop()?;
            observations.changed(("files", look.generation, look.is_whole), found(&[("polled", "1")]), EPOCH);
            Some(look.run.instructions.objects.len())
        };
        assert_eq!(look(&mut observations, 10_000), Some(0), "everything, at first");
        assert_eq!(look(&mut observations, 5), None);
        assert_eq!(look(&mut observations, 14), None);
        assert_eq!(look(&mut observations, 15), Some(1));
        observations.touched("files", [ObjectKey("told".to_owned())].into(), at(16));
        assert_eq!(look(&mut observations, 17), Some(1));
    }

    #[test]
    fn a_report_that_was_refused_for_good_begins_a_new_epoch() {
        let (_directory, mut observations) = fresh();
        observations.due(at(0));
        observations.changed(("files", 1, true), found(&[("a", "1")]), EPOCH);
        let report = MessageId(Uuid::nil());
        observations.sent("files", report);
        observations.settle(|_| true, |_| false);
        assert!(!observations.changed(("files", 1, true), found(&[("a", "1")]), EPOCH).1);
        observations.settle(|_| false, |refused| refused == report);
        let (again, is_baseline) = observations.changed(("files", 1, true), found(&[("a", "1")]), Uuid::from_u128(2));
        assert_eq!((again.len(), is_baseline), (1, true));
    }

    #[test]
    fn a_restart_and_a_lost_report_begin_a_new_epoch_with_everything() {
        let (directory, mut observations) = fresh();
        observations.due(at(0));
        observations.changed(("files", 1, true), found(&[("a", "1")]), EPOCH);
        observations.lost("files", 1);
        assert_eq!(observations.changed(("files", 1, true), found(&[("a", "1")]), Uuid::from_u128(2)).0.len(), 1);
        assert_eq!(observations.position("files", true).unwrap().epoch, Uuid::from_u128(2));
        drop(observations);
        let mut observations = Observations::load(&directory.path().join("observations.json")).unwrap();
        assert_eq!(observations.due(at(1)).len(), 1, "it goes on by itself");
        assert_eq!(observations.changed(("files", 1, true), found(&[("a", "1")]), Uuid::from_u128(3)).0.len(), 1);
    }

    #[test]
    fn an_identifier_in_use_is_a_fault_unless_everything_is_the_same() {
        let (_directory, mut observations) = fresh();
        let issuer = (ComponentId(Uuid::nil()), None);
        assert_eq!(observations.apply(request(ObservationOperation::Start, 10), issuer.clone()).unwrap().fault, None);
        let other = observations.apply(request(ObservationOperation::Start, 5), issuer.clone()).unwrap();
        assert_eq!(other.fault.unwrap().code, FaultCode::DuplicateIdentifier);
        let never = observations.apply(request(ObservationOperation::Start, 0), issuer.clone()).unwrap();
        assert_eq!(never.fault.unwrap().code, FaultCode::Malformed);
        for _ in 0..2 {
            assert_eq!(
                observations.apply(request(ObservationOperation::Cancel, 1), issuer.clone()).unwrap().fault,
                None
            );
        }
        let listed = observations.apply(request(ObservationOperation::List, 1), issuer.clone()).unwrap();
        assert!(listed.observations.is_empty() && observations.due(at(1_000)).is_empty());
    }

    #[test]
    fn a_look_of_one_that_was_cancelled_says_nothing_of_the_next_of_that_name() {
        let (_directory, mut observations) = fresh();
        let old = observations.due(at(0)).remove(0);
        let issuer = (ComponentId(Uuid::nil()), None);
        for operation in [ObservationOperation::Cancel, ObservationOperation::Start] {
            observations.apply(request(operation, 10), issuer.clone()).unwrap();
        }
        let new = observations.due(at(1)).remove(0);
        let of_old = ("files", old.generation, true);
        assert!(observations.changed(of_old, found(&[("a", "1")]), EPOCH).0.is_empty());
        observations.lost("files", old.generation);
        let of_new = ("files", new.generation, true);
        assert_eq!(observations.changed(of_new, found(&[("b", "1")]), EPOCH).0.len(), 1);
        assert_eq!(observations.position("files", true).unwrap().sequence, 1);
    }

    #[test]
    fn what_is_cancelled_while_it_is_looked_at_is_not_reported() {
        let (_directory, mut observations) = fresh();
        observations.due(at(0));
        observations.apply(request(ObservationOperation::Cancel, 1), (ComponentId(Uuid::nil()), None)).unwrap();
        assert!(observations.changed(("files", 1, true), found(&[("a", "1")]), EPOCH).0.is_empty());
        assert_eq!(observations.position("files", true), None);
    }
}
