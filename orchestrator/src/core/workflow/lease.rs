//! Work that moves (ADR 35). A request is with one evaluator as long as that says something about what it is at. When it says
//! nothing for too long, its work goes to another, if another is there; where none is, it is waited for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proto::capability::{Capability, ComponentType};
use proto::id::{ComponentId, TransactionId};
use proto::operator::ComponentState;

use super::{Operation, Responder, ResponderState, Workflow};
use crate::core::roster::Component;
use crate::core::{Action, Core};

/// Seconds that an evaluator with work may say nothing about any of it. It says something every five
/// (`pes-evaluator/src/lib.rs`), so that some of that may be lost.
const LEASE_SECONDS: i64 = 30;
/// How often the same work moves because of silence: what nobody gets done must not go round for ever.
const MOVES_MAX: usize = 4;

/// Who has work and says nothing, and who could do it.
pub(super) struct Leases {
    silent: BTreeSet<ComponentId>,
    able: BTreeSet<ComponentId>,
}

/// What becomes of an open responder.
pub(super) enum Fate {
    /// It may go on.
    Stays,
    /// It did not answer in time.
    Late,
    /// Somebody else does its work.
    Moves(String),
}

impl Core {
    /// Who holds its work still, and who could take it.
    pub(super) fn leases(&self, now: Timestamp) -> Leases {
        let said = |id: &ComponentId| self.components.get(id).and_then(|component| component.said);
        let is_silent = |responder: &&Responder| {
            let last = responder.given.max(said(&responder.component));
            last.is_none_or(|last| now.duration_since(last).as_secs() >= LEASE_SECONDS)
        };
        let open = self.workflows.values().filter(|workflow| workflow.is_open(Operation::Evaluate));
        let open = open.flat_map(|workflow| &workflow.responders).filter(|responder| is_held(responder));
        let silent: BTreeSet<ComponentId> = open.filter(is_silent).map(|responder| responder.component).collect();
        let is_able = |one: &&Component| is_evaluator(one) && !one.is_lapsed && !silent.contains(&one.id);
        let able = self.components.values().filter(is_able).map(|component| component.id).collect();
        Leases { silent, able }
    }

    /// Evaluators that may be asked in a workflow, the best first by what comes before the id: one that work was not taken
    /// from in it, and that has little to do. Those that let go of work and were not heard since are the last resort.
    pub(super) fn evaluators_for(&self, id: TransactionId) -> Vec<(usize, usize, ComponentId)> {
        let there: Vec<&Component> = self.components.values().filter(|one| is_evaluator(one)).collect();
        let heard: Vec<&Component> = there.iter().copied().filter(|component| !component.is_lapsed).collect();
        let candidates = if heard.is_empty() { there } else { heard };
        let lost = |component: ComponentId| {
            let Some(workflow) = self.workflows.get(&id) else { return 0 };
            let is_moved = |at: &&usize| workflow.responders[**at].state == ResponderState::Moved;
            workflow.of(component).iter().filter(is_moved).count()
        };
        candidates.into_iter().map(|one| (lost(one.id), self.open_requests_of(one.id), one.id)).collect()
    }

    /// How many requests are with a component.
    pub(in crate::core) fn open_requests_of(&self, component: ComponentId) -> usize {
        let open = |workflow: &Workflow| {
            workflow.of(component).iter().filter(|position| workflow.responders[**position].state.is_open()).count()
        };
        self.workflows.values().filter(|workflow| workflow.ended.is_none()).map(open).sum()
    }

    /// Work was taken from these: until they are heard they get none. They may still be at it.
    pub(super) fn let_go(&mut self, moved: &[(TransactionId, usize)]) -> Vec<Action> {
        let mut actions = Vec::new();
        for (id, position) in moved {
            let Some(responder) = self.workflows.get(id).and_then(|workflow| workflow.responders.get(*position)) else {
                continue;
            };
            if let Some(component) = self.components.get_mut(&responder.component) {
                component.is_lapsed = true;
            }
            actions.push(Action::Cancel { to: responder.component, transaction: *id, request: responder.request });
        }
        actions
    }

    /// What becomes of an open responder now.
    pub(super) fn fate(
        components: &BTreeMap<ComponentId, Component>,
        leases: &Leases,
        (workflow, position): (&Workflow, usize),
        now: Timestamp,
    ) -> Fate {
        let responder = &workflow.responders[position];
        let is_late = responder.deadline <= now;
        if responder.operation == Operation::Evaluate {
            let component = components.get(&responder.component);
            let is_out = component.is_none_or(|component| !component.is_member());
            let is_away = component.is_none_or(|component| component.state == ComponentState::Unavailable);
            let is_silent = is_away || leases.silent.contains(&responder.component);
            let is_another_there = leases.able.iter().any(|able| *able != responder.component);
            if workflow.cancelled.is_some() {
                return if is_late || is_out { Fate::Late } else { Fate::Stays };
            }
            if is_out || is_late && is_away {
                return Fate::Moves("the evaluator is gone".to_owned());
            }
            if is_silent && is_another_there && workflow.moves(responder) < MOVES_MAX {
                return Fate::Moves(format!("the evaluator has said nothing for {LEASE_SECONDS} s or more"));
            }
        }
        if is_late { Fate::Late } else { Fate::Stays }
    }
}

impl Workflow {
    /// How often what a responder has to do has moved already.
    fn moves(&self, responder: &Responder) -> usize {
        let about = |other: &&Responder| {
            other.state == ResponderState::Moved && responder.endpoints.iter().any(|one| other.endpoints.contains(one))
        };
        self.responders.iter().filter(about).count()
    }
}

fn is_held(responder: &Responder) -> bool {
    responder.operation == Operation::Evaluate && responder.state.is_open()
}

/// Whether it may be asked to evaluate.
fn is_evaluator(component: &Component) -> bool {
    component.component_type == ComponentType::PostureEvaluationService
        && component.state == ComponentState::Active
        && component.has(Capability::EvaluateXccdf)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proto::content::ContentRef;
    use proto::id::EndpointId;
    use proto::message::{AdvertisedEndpoint, CapabilityAdvertisement, EvaluationRequest, Phase, StatusNotification};
    use uuid::Uuid;

    use super::*;
    use crate::core::admission::Joining;
    use crate::core::workflow::Plan;
    use crate::core::{EVALUATION_SECONDS, RandomIds};

    const EVALUATOR: ComponentType = ComponentType::PostureEvaluationService;
    const REPOSITORY: ComponentType = ComponentType::RepositoryInterface;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    struct World {
        core: Core,
        joined: u8,
        /// Who was asked what, and who was told to stop, in order.
        asked: Vec<(ComponentId, EvaluationRequest)>,
        cancelled: Vec<ComponentId>,
    }

    impl World {
        /// A repository and a collector of so many endpoints.
        fn new(endpoints: usize) -> Self {
            let core = Core::new(Box::new(RandomIds), Vec::new(), Vec::new(), at(0));
            let mut world = Self { core, joined: 0, asked: Vec::new(), cancelled: Vec::new() };
            world.join(REPOSITORY, 0, None);
            world.join(ComponentType::PostureCollectionService, endpoints, None);
            world
        }

        fn join(&mut self, component_type: ComponentType, endpoints: usize, store: Option<Uuid>) -> ComponentId {
            self.joined += 1;
            let joining = Joining {
                component_type,
                name: "one",
                public_key: [self.joined; 32],
                token: "t",
                labels: &[],
                needs_approval: false,
            };
            let id = self.core.join(joining, at(0)).0.unwrap();
            self.shake_hands(id, component_type, endpoints, store, 0);
            id
        }

        fn shake_hands(
            &mut self,
            id: ComponentId,
            component_type: ComponentType,
            endpoints: usize,
            store: Option<Uuid>,
            second: i64,
        ) {
            let endpoint =
                |number| AdvertisedEndpoint { local_name: format!("e{number}"), ..AdvertisedEndpoint::default() };
            let advertisement = CapabilityAdvertisement {
                capabilities: Capability::all_of(component_type),
                endpoints: (0..endpoints).map(endpoint).collect(),
                store,
                ..CapabilityAdvertisement::default()
            };
            let (answer, actions) = self.core.advertise(id, &advertisement, at(second)).unwrap();
            answer.unwrap();
            self.perform(actions);
        }

        fn perform(&mut self, actions: Vec<Action>) {
            for action in actions {
                match action {
                    Action::Evaluate { to, request, .. } => self.asked.push((to, *request)),
                    Action::Cancel { to, .. } => self.cancelled.push(to),
                    _ => {}
                }
            }
        }

        /// Begins to evaluate what is stored of all endpoints.
        fn begin(&mut self) -> TransactionId {
            let plan = Plan {
                is_evaluation: true,
                is_stored_only: true,
                is_broadcast: false,
                policy: "policy".to_owned(),
                policy_content: ContentRef::to(b"policy"),
                collection_plan: ContentRef::to(b"plan"),
                profile: None,
                targets: Vec::new(),
                excluded: Vec::new(),
                timeout_seconds: 60,
                expires_seconds: 0,
                as_of: None,
                max_age_seconds: None,
                changed: Vec::new(),
                is_assigned: false,
                budget: proto::budget::Budget::default(),
            };
            let (id, actions) = self.core.begin(plan, None, at(0)).unwrap();
            self.perform(actions);
            id
        }

        /// What an evaluator says of a request.
        fn say(
            &mut self,
            transaction: TransactionId,
            (from, request): (ComponentId, usize),
            phase: Phase,
            second: i64,
        ) {
            let status = StatusNotification {
                publisher: from,
                message: String::new(),
                code: "test".to_owned(),
                request: Some(self.asked[request].1.request),
                phase: Some(phase),
                progress: None,
                fault: None,
            };
            let mut actions = self.core.heard(from, at(second));
            actions.extend(self.core.status(transaction, &status, at(second)));
            self.perform(actions);
        }

        /// A heartbeat.
        fn pulse(&mut self, from: ComponentId, second: i64) {
            let actions = self.core.heard(from, at(second));
            self.perform(actions);
        }

        fn tick(&mut self, second: i64) {
            let actions = self.core.tick(at(second));
            self.perform(actions);
        }

        fn states(&self, id: TransactionId) -> Vec<&'static str> {
            self.core.workflow(id).unwrap().responders.iter().map(|responder| responder.state.as_str()).collect()
        }
    }

    #[test]
    fn several_evaluators_share_the_endpoints_and_few_are_not_divided() {
        for (endpoints, parts) in [(1, vec![1]), (16, vec![16]), (40, vec![20, 20]), (1_000, vec![500, 500])] {
            let mut world = World::new(endpoints);
            let evaluators = [world.join(EVALUATOR, 0, None), world.join(EVALUATOR, 0, None)];
            world.begin();
            let sizes: Vec<usize> = world.asked.iter().map(|(_, request)| request.targets.len()).collect();
            assert_eq!(sizes, parts);
            let mut asked: Vec<ComponentId> = world.asked.iter().map(|(to, _)| *to).collect();
            asked.sort_unstable();
            assert_eq!(asked, evaluators[..parts.len()]);
            let about: BTreeSet<EndpointId> =
                world.asked.iter().flat_map(|(_, request)| request.targets.clone()).collect();
            assert_eq!(about.len(), endpoints);
        }
    }

    #[test]
    fn work_of_one_that_says_nothing_goes_to_another_and_its_late_words_change_nothing() {
        let mut world = World::new(40);
        let (one, other) = (world.join(EVALUATOR, 0, None), world.join(EVALUATOR, 0, None));
        let id = world.begin();
        let (of_one, of_other) = if world.asked[0].0 == one { (0, 1) } else { (1, 0) };
        world.say(id, (one, of_one), Phase::Accepted, 1);
        for second in 1..=30 {
            // It is slow, and says so; the other one's heartbeats go on for a while, and are no word about its work.
            world.say(id, (other, of_other), Phase::Progress, second);
            if second < 20 {
                world.pulse(one, second);
            }
            world.tick(second);
            assert_eq!((world.asked.len(), world.cancelled.len()), (2, 0), "{second}");
        }
        world.say(id, (other, of_other), Phase::Progress, 31);
        world.tick(31);
        assert_eq!(world.cancelled, [one]);
        let (to, again) = world.asked[2].clone();
        assert_eq!((to, &again.targets), (other, &world.asked[of_one].1.targets));
        assert_ne!(again.request, world.asked[of_one].1.request);
        // Nothing new for one that may be dead, though the roster still has it.
        let next = world.begin();
        assert!(world.asked[3..].is_empty(), "its endpoints are being evaluated");
        world.say(id, (other, of_other), Phase::Completed, 32);
        world.say(id, (other, 2), Phase::Completed, 33);
        assert_eq!(world.core.workflow(id).unwrap().state(), "completed");
        assert!(world.states(id).contains(&"moved"));
        world.tick(34);
        let asked: BTreeSet<ComponentId> = world.asked[3..].iter().map(|(to, _)| *to).collect();
        assert_eq!(asked, [other].into());
        // It was held, and goes on.
        let before = world.core.workflow(id).cloned();
        world.say(id, (one, of_one), Phase::Completed, 40);
        assert_eq!(world.core.workflow(id).cloned(), before);
        assert_eq!(world.core.workflow(next).unwrap().state(), "running");
        // What it did of it may be stored: it was asked.
        let task =
            world.core.workflow(id).unwrap().task(one, world.asked[of_one].1.request, world.asked[of_one].1.targets[0]);
        assert!(task.is_some());
    }

    #[test]
    fn the_only_one_is_waited_for_and_asked_again_when_it_is_back() {
        let mut world = World::new(3);
        let one = world.join(EVALUATOR, 0, None);
        let repository = world.core.components().find(|component| component.component_type == REPOSITORY).unwrap().id;
        let id = world.begin();
        for second in 1..200 {
            world.pulse(repository, second);
            world.tick(second);
        }
        let state = |world: &World| world.core.components().find(|component| component.id == one).unwrap().state;
        assert_eq!(state(&world), ComponentState::Unavailable);
        assert_eq!(world.states(id), ["asked"]);
        let before = world.asked.len();
        world.shake_hands(one, EVALUATOR, 0, None, 200);
        assert_eq!(world.asked[before..].iter().map(|(to, _)| *to).collect::<Vec<_>>(), [one]);
        assert_eq!(world.asked[before].1.request, world.asked[0].1.request);
        // And where it does not come back, one that joins has the work at once.
        let mut world = World::new(3);
        world.join(EVALUATOR, 0, None);
        let id = world.begin();
        world.tick(29);
        world.tick(31);
        assert_eq!(world.states(id), ["asked"]);
        let late = world.join(EVALUATOR, 0, None);
        world.tick(32);
        assert_eq!(world.states(id), ["moved", "asked"]);
        assert_eq!(world.asked.last().unwrap().0, late);
    }

    #[test]
    fn what_nobody_gets_done_does_not_go_round_for_ever() {
        let mut world = World::new(3);
        let all: Vec<ComponentId> = (0..2).map(|_| world.join(EVALUATOR, 0, None)).collect();
        let repository = world.core.components().find(|component| component.component_type == REPOSITORY).unwrap().id;
        let id = world.begin();
        for second in 1..2 * EVALUATION_SECONDS {
            for id in all.iter().chain([&repository]) {
                world.pulse(*id, second);
            }
            world.tick(second);
        }
        let states = world.states(id);
        assert_eq!(states.iter().filter(|state| **state == "moved").count(), MOVES_MAX, "{states:?}");
        assert_eq!(states.last(), Some(&"no-answer"));
        assert_eq!(world.core.workflow(id).unwrap().state(), "failed");
    }

    #[test]
    fn after_a_start_everybody_has_time_to_be_heard() {
        let mut world = World::new(3);
        let (one, other) = (world.join(EVALUATOR, 0, None), world.join(EVALUATOR, 0, None));
        let id = world.begin();
        let components: Vec<Component> = world.core.components().cloned().collect();
        let stored: Workflow = {
            let mut workflow = world.core.workflow(id).cloned().unwrap();
            workflow.responders.iter_mut().for_each(|responder| responder.given = None);
            workflow
        };
        world.core = Core::new(Box::new(RandomIds), components, vec![stored], at(1_000));
        // Past its deadline it would end as before.
        world.core.workflows.get_mut(&id).unwrap().responders[0].deadline = at(2_000);
        for second in 1_000..1_030 {
            world.pulse(one, second);
            world.pulse(other, second);
            world.tick(second);
            assert!(!world.states(id).contains(&"moved"), "{second}");
        }
        world.tick(1_030);
        assert_eq!(world.states(id)[0], "moved");
    }

    #[test]
    fn only_repositories_that_use_one_database_stand_in_for_each_other() {
        let mut world = World::new(1);
        let alone = world.core.components().find(|component| component.component_type == REPOSITORY).unwrap().id;
        let store = Some(Uuid::from_u128(7));
        let shared = [world.join(REPOSITORY, 0, store), world.join(REPOSITORY, 0, store)];
        world.join(REPOSITORY, 0, Some(Uuid::from_u128(8)));
        world.join(REPOSITORY, 0, None);
        assert!(world.core.stand_ins(alone).is_empty(), "a file is nobody else's");
        assert_eq!(world.core.stand_ins(shared[0]), [shared[1]]);
        assert_eq!(world.core.stand_ins(shared[1]), [shared[0]]);
        world.join(EVALUATOR, 0, None);
        world.begin();
        let request = &world.asked[0].1;
        assert_eq!(request.stand_ins, world.core.stand_ins(request.repository));
    }

    #[test]
    fn a_clock_that_is_set_back_lets_nobody_wait_until_its_time_comes() {
        let mut world = World::new(1);
        let evaluator = world.join(EVALUATOR, 0, None);
        let id = world.begin();
        assert_eq!(world.asked.len(), 1);
        let actions = world.core.tick(at(-7_200));
        world.perform(actions);
        let workflow = world.core.workflow(id).unwrap();
        let [responder] = workflow.responders.as_slice() else { panic!("{workflow:?}") };
        assert_eq!((workflow.begun, responder.asked), (at(-7_200), at(-7_200)));
        assert_eq!(responder.deadline, at(EVALUATION_SECONDS - 7_200));
        // What it was asked then is of the future to it.
        assert_eq!(world.asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [evaluator, evaluator]);
        assert_eq!(world.asked[0].1.request, world.asked[1].1.request);
        // And it is missed as soon as others are.
        world.core.tick(at(-7_100));
        let is_suspect = |component: &Component| component.state == ComponentState::Suspect;
        assert!(world.core.components().all(is_suspect));
    }
}
