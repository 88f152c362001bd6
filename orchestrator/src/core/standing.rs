//! Policies that are assigned to endpoints: evaluated at times, on endpoints that come new, and where something has changed
//! that they read. Synchronous: what is due comes out, whoever drives it begins the workflows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proto::id::{ComponentId, EndpointId, TransactionId};
use proto::operator::{AssignmentView, PolicyAssignment};
use proto::plan::ObjectKey;
use serde::{Deserialize, Serialize};
use service::recurrence::{Recurrence, RecurrenceError, Timetable};

/// How long changes are gathered before they are evaluated: what changes together is decided together.
const GATHER: SignedDuration = SignedDuration::from_millis(250);
/// How often all is decided anew of what is stored, where changes are what is decided on: it makes up for a change that was not
/// heard of.
const SWEEP: SignedDuration = SignedDuration::from_hours(1);
/// Changed objects of one endpoint that are told apart; beyond that everything is decided again.
const OBJECTS_MAX: usize = 500;

/// An assignment, and where it is: what is kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Assigned {
    /// It.
    pub assignment: PolicyAssignment,
    #[serde(default)]
    timetable: Timetable,
    /// The latest workflow.
    #[serde(default)]
    last: Option<TransactionId>,
    /// The latest one on everybody.
    #[serde(default)]
    last_full: Option<TransactionId>,
    /// Endpoints that have been evaluated since it began.
    #[serde(default)]
    covered: BTreeSet<EndpointId>,
    /// Collectors that watch for it; not stored: they are asked again after a start.
    #[serde(skip)]
    watching: BTreeSet<ComponentId>,
    /// What has changed since it was last evaluated; not stored: a full pass finds it.
    #[serde(skip)]
    changed: BTreeMap<EndpointId, BTreeSet<ObjectKey>>,
    #[serde(skip)]
    changed_first: Option<Timestamp>,
    /// When it was last evaluated as a whole.
    #[serde(skip)]
    swept: Option<Timestamp>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Evaluate on all endpoints that are meant.
    All(String),
    /// Evaluate on these, which are new.
    New(String, BTreeSet<EndpointId>),
    /// Decide again what reads these objects, on these endpoints; no objects: everything.
    Changed(String, BTreeSet<EndpointId>, BTreeSet<ObjectKey>),
    /// Have this collector watch what the policy reads.
    Watch(String, ComponentId),
}

/// An endpoint that an assignment is about, with its collector, if that is there and can watch.
pub type Meant = BTreeMap<EndpointId, Option<ComponentId>>;

/// All assignments, by name.
#[derive(Debug, Default)]
pub struct Standing {
    assigned: BTreeMap<String, Assigned>,
}

impl Standing {
    /// Those of an earlier process.
    pub fn new(assigned: Vec<Assigned>) -> Self {
        Self { assigned: assigned.into_iter().map(|one| (one.assignment.name.clone(), one)).collect() }
    }

    /// A policy is assigned. The same name again replaces what was assigned before, and begins anew.
    pub fn assign(
        &mut self,
        assignment: PolicyAssignment,
        now: Timestamp,
        chance: f64,
    ) -> Result<&Assigned, RecurrenceError> {
        let timetable = match &assignment.schedule {
            Some(schedule) => Timetable::new(&Recurrence::of(schedule)?, now, chance),
            None => Timetable::default(),
        };
        let name = assignment.name.clone();
        let assigned = Assigned {
            assignment,
            timetable,
            last: None,
            last_full: None,
            covered: BTreeSet::new(),
            watching: BTreeSet::new(),
            changed: BTreeMap::new(),
            changed_first: None,
            swept: None,
        };
        Ok(self.assigned.entry(name).insert_entry(assigned).into_mut())
    }

    /// It is no more.
    pub fn unassign(&mut self, name: &str) -> Option<Assigned> {
        self.assigned.remove(name)
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Assigned> {
        self.assigned.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Assigned> {
        self.assigned.values()
    }

    /// An object of an endpoint is no longer what it was.
    pub fn change(&mut self, endpoint: EndpointId, object: &ObjectKey, now: Timestamp) {
        for assigned in self.assigned.values_mut().filter(|one| one.assignment.is_change_based) {
            // What was never evaluated is going to be, as a whole.
            if assigned.covered.contains(&endpoint) {
                assigned.note(endpoint, [object.clone()]);
                assigned.changed_first.get_or_insert(now);
            }
        }
    }

    /// A collector watches, or does not after all.
    pub fn watches(&mut self, name: &str, collector: ComponentId, is_watching: bool) {
        if let Some(assigned) = self.assigned.get_mut(name) {
            if is_watching {
                assigned.watching.insert(collector);
            } else {
                assigned.watching.remove(&collector);
            }
        }
    }

    /// A policy has a new version; those that are to be stored.
    pub fn renew(&mut self, policy: &str) -> Vec<Assigned> {
        let mut renewed = Vec::new();
        for assigned in self.assigned.values_mut().filter(|one| one.assignment.workflow.policy == policy) {
            assigned.covered.clear();
            assigned.watching.clear();
            renewed.push(assigned.clone());
        }
        renewed
    }

    /// A workflow was begun; on everybody, it takes the place of the one before.
    pub fn begun(&mut self, name: &str, transaction: TransactionId, is_full: bool) -> Option<TransactionId> {
        let assigned = self.assigned.get_mut(name)?;
        assigned.last = Some(transaction);
        if is_full { assigned.last_full.replace(transaction) } else { None }
    }

    /// What could not be done is due again.
    pub fn put_back(&mut self, due: Due, now: Timestamp) {
        let (Due::All(name) | Due::New(name, _) | Due::Changed(name, ..) | Due::Watch(name, _)) = &due;
        let Some(assigned) = self.assigned.get_mut(name) else { return };
        match due {
            Due::All(_) => assigned.timetable.owe(),
            Due::New(_, endpoints) => assigned.covered.retain(|endpoint| !endpoints.contains(endpoint)),
            Due::Changed(_, endpoints, objects) => {
                for endpoint in endpoints {
                    assigned.note(endpoint, objects.iter().cloned());
                }
                assigned.changed_first.get_or_insert(now);
            }
            Due::Watch(_, collector) => {
                assigned.watching.remove(&collector);
            }
        }
    }

    /// What is due; those whose state has changed are to be stored before it is done.
    pub fn look(
        &mut self,
        now: Timestamp,
        chance: f64,
        meant: impl Fn(&PolicyAssignment) -> Meant,
    ) -> (Vec<Due>, Vec<Assigned>) {
        let (mut due, mut stored) = (Vec::new(), Vec::new());
        for (name, assigned) in &mut self.assigned {
            let look = match &assigned.assignment.schedule {
                Some(schedule) => assigned.timetable.look(schedule, now, chance),
                None => service::recurrence::Look { is_run: false, is_changed: false },
            };
            let meant = meant(&assigned.assignment);
            let fresh: BTreeSet<EndpointId> =
                meant.keys().filter(|endpoint| !assigned.covered.contains(endpoint)).copied().collect();
            if look.is_run {
                due.push(Due::All(name.clone()));
            } else if !fresh.is_empty() {
                due.push(Due::New(name.clone(), fresh.clone()));
            }
            assigned.covered.extend(&fresh);
            let before = assigned.covered.len();
            assigned.covered.retain(|endpoint| meant.contains_key(endpoint));
            if look.is_changed || !fresh.is_empty() || assigned.covered.len() != before {
                stored.push(assigned.clone());
            }
            if assigned.assignment.is_change_based {
                let collectors: BTreeSet<ComponentId> = meant.values().flatten().copied().collect();
                // Who was away is asked when it comes back.
                assigned.watching.retain(|collector| collectors.contains(collector));
                for collector in collectors {
                    if assigned.watching.insert(collector) {
                        due.push(Due::Watch(name.clone(), collector));
                    }
                }
                // A clock that was ahead does not put it off.
                let swept = *assigned.swept.insert(assigned.swept.map_or(now, |swept| swept.min(now)));
                // Where there is a schedule, it makes up for what was not heard of.
                let is_swept = assigned.assignment.schedule.is_none() && now.duration_since(swept) >= SWEEP;
                if is_swept {
                    due.push(Due::Changed(name.clone(), assigned.covered.clone(), BTreeSet::new()));
                }
                if is_swept || look.is_run {
                    assigned.swept = Some(now);
                }
                due.extend(assigned.gathered(name, look.is_run || is_swept, now));
            }
        }
        (due, stored)
    }

    /// As operators see them.
    pub fn views(&self, count: impl Fn(&PolicyAssignment) -> u64) -> Vec<AssignmentView> {
        let view = |assigned: &Assigned| AssignmentView {
            assignment: assigned.assignment.clone(),
            next: assigned.timetable.next,
            last: assigned.last,
            endpoint_count: count(&assigned.assignment),
            watched_count: assigned.watching.len() as u64,
        };
        self.assigned.values().map(view).collect()
    }
}

impl Assigned {
    /// Objects of an endpoint have changed; none: all may have.
    fn note(&mut self, endpoint: EndpointId, objects: impl IntoIterator<Item = ObjectKey>) {
        let mut objects = objects.into_iter().peekable();
        let is_everything = objects.peek().is_none();
        match self.changed.get_mut(&endpoint) {
            // Everything already.
            Some(known) if known.is_empty() => {}
            Some(known) if is_everything => known.clear(),
            Some(known) => {
                known.extend(objects);
                if known.len() > OBJECTS_MAX {
                    known.clear();
                }
            }
            None => {
                self.changed.insert(endpoint, objects.collect());
            }
        }
    }

    /// What has changed, once it has been gathered for a while; endpoints with the same changes go together.
    fn gathered(&mut self, name: &str, is_evaluated: bool, now: Timestamp) -> Vec<Due> {
        if is_evaluated {
            // The full pass sees it all.
            self.changed.clear();
            self.changed_first = None;
        }
        // A time that has not come yet is of a clock that was ahead.
        let is_gathering = |first: Timestamp| (SignedDuration::ZERO..GATHER).contains(&now.duration_since(first));
        if self.changed_first.is_none_or(is_gathering) {
            return Vec::new();
        }
        self.changed_first = None;
        let mut groups: BTreeMap<BTreeSet<ObjectKey>, BTreeSet<EndpointId>> = BTreeMap::new();
        for (endpoint, objects) in std::mem::take(&mut self.changed) {
            groups.entry(objects).or_default().insert(endpoint);
        }
        groups.into_iter().map(|(objects, endpoints)| Due::Changed(name.to_owned(), endpoints, objects)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proto::operator::Workflow;
    use proto::schedule::Schedule;
    use uuid::Uuid;

    use super::*;

    fn assignment(schedule: Option<Schedule>, is_change_based: bool) -> PolicyAssignment {
        let workflow = Workflow { policy: "policy".to_owned(), ..Workflow::default() };
        PolicyAssignment { name: "web".to_owned(), workflow, schedule, is_change_based, poll_seconds: None }
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
    }

    fn endpoint(number: u128) -> EndpointId {
        EndpointId(Uuid::from_u128(number))
    }

    fn collector(number: u128) -> ComponentId {
        ComponentId(Uuid::from_u128(1_000 + number))
    }

    fn objects(names: &[&str]) -> BTreeSet<ObjectKey> {
        names.iter().map(|name| ObjectKey((*name).to_owned())).collect()
    }

    struct World {
        standing: Standing,
        meant: Meant,
    }

    impl World {
        fn new(assignment: PolicyAssignment, endpoints: u128) -> Self {
            let mut standing = Standing::default();
            standing.assign(assignment, at(0), 0.0).unwrap();
            Self { standing, meant: (0..endpoints).map(|number| (endpoint(number), Some(collector(number)))).collect() }
        }

        fn look(&mut self, now: i64) -> Vec<Due> {
            let meant = self.meant.clone();
            self.standing.look(at(now), 0.0, |_| meant.clone()).0
        }
    }

    fn all(endpoints: u128) -> BTreeSet<EndpointId> {
        (0..endpoints).map(endpoint).collect()
    }

    #[test]
    fn what_is_new_is_evaluated_once_and_the_rest_when_it_is_time() {
        let mut world = World::new(assignment(Some(Schedule::every(60)), false), 2);
        assert_eq!(world.look(1), [Due::New("web".to_owned(), all(2))]);
        assert!(world.look(2).is_empty());
        world.meant.insert(endpoint(2), Some(collector(2)));
        assert_eq!(world.look(3), [Due::New("web".to_owned(), [endpoint(2)].into())]);
        assert_eq!(world.look(60_000), [Due::All("web".to_owned())]);
        // What was out of scope is new when it comes back.
        world.meant.remove(&endpoint(1));
        assert!(world.look(60_001).is_empty());
        world.meant.insert(endpoint(1), None);
        assert_eq!(world.look(60_002), [Due::New("web".to_owned(), [endpoint(1)].into())]);
    }

    #[test]
    fn it_goes_on_where_it_was_after_a_restart() {
        let mut world = World::new(assignment(Some(Schedule::every(60)), false), 2);
        let meant = world.meant.clone();
        let (_, stored) = world.standing.look(at(1), 0.0, |_| meant.clone());
        let stored: Vec<Assigned> = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
        world.standing = Standing::new(stored);
        assert!(world.look(2).is_empty());
        assert_eq!(world.look(60_000), [Due::All("web".to_owned())]);
    }

    #[test]
    fn changes_are_gathered_and_endpoints_that_changed_alike_are_decided_together() {
        let mut world = World::new(assignment(None, true), 3);
        let first = world.look(0);
        assert_eq!(first.len(), 4, "an evaluation, and three that watch: {first:?}");
        let change = |world: &mut World, number: u128, object: &str, now: i64| {
            world.standing.change(endpoint(number), &ObjectKey(object.to_owned()), at(now));
        };
        change(&mut world, 0, "a", 1_000);
        change(&mut world, 1, "a", 1_100);
        change(&mut world, 2, "b", 1_100);
        change(&mut world, 9, "a", 1_100);
        assert!(world.look(1_200).is_empty());
        assert_eq!(
            world.look(1_250),
            [
                Due::Changed("web".to_owned(), [endpoint(0), endpoint(1)].into(), objects(&["a"])),
                Due::Changed("web".to_owned(), [endpoint(2)].into(), objects(&["b"])),
            ]
        );
        assert!(world.look(9_000).is_empty());
    }

    #[test]
    fn now_and_then_everything_is_decided_anew_of_what_is_stored() {
        let mut world = World::new(assignment(None, true), 2);
        world.look(0);
        assert!(world.look(3_599_000).is_empty());
        let everything = Due::Changed("web".to_owned(), all(2), BTreeSet::new());
        assert_eq!(world.look(3_600_000), [everything]);
        assert!(world.look(3_601_000).is_empty());
    }

    #[test]
    fn a_collector_that_comes_back_is_asked_to_watch_again() {
        let mut world = World::new(assignment(None, true), 1);
        world.look(0);
        world.meant.insert(endpoint(0), None);
        assert!(world.look(1).is_empty());
        world.meant.insert(endpoint(0), Some(collector(0)));
        assert_eq!(world.look(2), [Due::Watch("web".to_owned(), collector(0))]);
        assert!(world.look(3).is_empty());
        // One that has said no is asked again.
        world.standing.watches("web", collector(0), false);
        assert_eq!(world.look(4), [Due::Watch("web".to_owned(), collector(0))]);
    }
}
