//! From a plan's objects to what they find: variables become values, sets become items, filters
//! drop what is not wanted. Where to look is left to a [`Prober`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use jiff::Timestamp;
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::{
    Check, CollectionPlan, Datatype, Entity, EntityValue, Existence, Filter, FilterAction, Object, ObjectKey,
    ObjectSet, Operation, Operator, SetOperand, State,
};

use crate::check::{self, Truth};
use crate::compare::{CompareError, compare};
use crate::kinds;
use crate::limits;
use crate::set;
use crate::state::States;
use crate::variable::{ObjectSource, VariableProblem, Variables};

/// Looks at an endpoint.
pub trait Prober {
    /// What there is of that kind that the query asks for. The filters are applied to whatever comes back: a probe may leave
    /// out early what they are certain to drop, and does not have to.
    fn probe(&mut self, query: &Query, filters: &[QueryFilter]) -> Collected;
}

/// A filter of an object with its variables resolved, as far as they could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryFilter {
    /// Keep or drop what is so.
    pub action: FilterAction,
    /// How the entities combine.
    pub operator: Operator,
    /// What an item's entities are compared with; none where that cannot be said before there is an item.
    pub entities: Vec<Option<QueryEntity>>,
}

/// An object with its variables resolved: what a probe gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The kind of items, such as `unix:file`.
    pub kind: String,
    /// What their entities must be.
    pub entities: Vec<QueryEntity>,
    /// The object's behaviors.
    pub behaviors: BTreeMap<String, String>,
}

/// What one entity must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryEntity {
    /// Its name.
    pub name: String,
    /// How it compares.
    pub operation: Operation,
    /// In which datatype.
    pub datatype: Datatype,
    /// With what; several where a variable has several values.
    pub values: Vec<String>,
    /// How several values count.
    pub var_check: Check,
    /// `xsi:nil`: not asked about.
    pub is_nil: bool,
}

impl QueryEntity {
    /// Whether this value is what the object asks for.
    pub fn matches(&self, actual: &str) -> Result<bool, CompareError> {
        if self.is_nil {
            return Ok(true);
        }
        let mut truths = Vec::with_capacity(self.values.len());
        for expected in &self.values {
            truths.push(Truth::from(compare(self.datatype, self.operation, actual, expected)?));
        }
        Ok(check::check(self.var_check, truths) == Truth::True)
    }

    /// What a value comes to, without a word why it may not be compared.
    pub fn truth(&self, actual: &str) -> Truth {
        let compared = self
            .values
            .iter()
            .map(|expected| compare(self.datatype, self.operation, actual, expected).map_or(Truth::Error, Truth::from));
        check::check(self.var_check, compared)
    }

    /// The values, each once: a variable may have the same one several times, which asks nothing more.
    pub fn distinct(&self) -> impl Iterator<Item = &str> {
        let mut known = HashSet::with_capacity(self.values.len());
        self.values.iter().map(String::as_str).filter(move |value| known.insert(*value))
    }

    /// The values that a probe can go straight to: those of an `equals` that any one may meet.
    pub fn exact(&self) -> Option<&[String]> {
        let is_any = self.values.len() == 1 || self.var_check == Check::AtLeastOne;
        (!self.is_nil && self.operation == Operation::Equals && is_any).then_some(self.values.as_slice())
    }
}

impl Query {
    /// The entity of that name.
    pub fn entity(&self, name: &str) -> Option<&QueryEntity> {
        self.entities.iter().find(|entity| entity.name == name)
    }

    /// A behavior, or what the schema says it is when it is not written.
    pub fn behavior<'query>(&'query self, name: &str, otherwise: &'query str) -> &'query str {
        self.behaviors.get(name).map_or(otherwise, String::as_str)
    }

    /// Whether an item's entities are all what the object asks for; entities that the item does not
    /// have do not count.
    pub fn matches(&self, item: &Item) -> Result<bool, CompareError> {
        for entity in &self.entities {
            if let Some(value) = item.value(&entity.name)
                && !entity.matches(value)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Resolves objects of one plan, each once.
pub struct Resolver<'plan, P> {
    states: States<'plan>,
    source: Source<'plan, P>,
}

impl<P> std::fmt::Debug for Resolver<'_, P> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// The part that variables call back into.
struct Source<'plan, P> {
    plan: &'plan CollectionPlan,
    prober: P,
    now: Timestamp,
    known: BTreeMap<ObjectKey, Rc<Collected>>,
}

impl<'plan, P: Prober> Resolver<'plan, P> {
    /// For this plan.
    pub fn new(plan: &'plan CollectionPlan, prober: P, now: Timestamp) -> Self {
        let source = Source { plan, prober, now, known: BTreeMap::new() };
        Self { states: States { plan, variables: Variables::new(plan, now) }, source }
    }

    /// What an object finds.
    pub fn object(&mut self, key: &ObjectKey) -> Rc<Collected> {
        self.source.resolve(key, &mut self.states, 0)
    }

    /// The prober again, after all objects.
    pub fn into_prober(self) -> P {
        self.source.prober
    }
}

impl<P: Prober> ObjectSource for Source<'_, P> {
    fn object(&mut self, key: &ObjectKey, depth: usize) -> Option<Rc<Collected>> {
        // A variable asks for an object in the middle of another one: its own variables are computed
        // in a fresh memo, because the outer one is borrowed.
        let mut states = States { plan: self.plan, variables: Variables::new(self.plan, self.now) };
        Some(self.resolve(key, &mut states, depth))
    }
}

impl<'plan, P: Prober> Source<'plan, P> {
    fn resolve(&mut self, key: &ObjectKey, states: &mut States<'plan>, depth: usize) -> Rc<Collected> {
        if let Some(known) = self.known.get(key) {
            return Rc::clone(known);
        }
        let collected = Rc::new(self.look(key, states, depth));
        self.known.insert(key.clone(), Rc::clone(&collected));
        collected
    }

    fn look(&mut self, key: &ObjectKey, states: &mut States<'plan>, depth: usize) -> Collected {
        if depth > limits::REFERENCE_DEPTH_MAX {
            let reason = format!("objects refer to each other deeper than {}", limits::REFERENCE_DEPTH_MAX);
            return Collected::nothing(Flag::Error, reason);
        }
        let Some(object) = self.plan.objects.get(key) else {
            return Collected::nothing(Flag::Error, format!("the plan has no object {key}"));
        };
        if let Some(set) = &object.set {
            return self.set(set, states, depth);
        }
        match self.query(object, states, depth) {
            Ok(query) if query.kind == VARIABLE_KIND => {
                let collected = variable_item(&query);
                self.filtered(collected, &object.filters, states, depth)
            }
            Ok(query) => {
                let filters = self.query_filters(&object.filters, states, depth);
                let collected = self.prober.probe(&query, &filters);
                self.filtered(collected, &object.filters, states, depth)
            }
            Err(VariableProblem::NoValues(reason)) => Collected::nothing(Flag::DoesNotExist, reason),
            Err(problem @ VariableProblem::NotCollected(_)) => {
                Collected::nothing(Flag::NotCollected, problem.to_string())
            }
            Err(VariableProblem::Error(reason)) => Collected::nothing(Flag::Error, reason),
        }
    }

    fn query(&mut self, object: &Object, states: &mut States<'plan>, depth: usize) -> Result<Query, VariableProblem> {
        let mut entities = Vec::with_capacity(object.entities.len());
        for entity in &object.entities {
            let values = match &entity.value {
                EntityValue::Literal(value) => vec![value.clone()],
                EntityValue::Nil => Vec::new(),
                EntityValue::Variable(key) => {
                    let values = states.variables.values(key, self, depth + 1)?.to_vec();
                    if states.variables.is_count_of_nothing(key, self, depth + 1) {
                        return Err(VariableProblem::NoValues("it counts what is not there".to_owned()));
                    }
                    values
                }
                EntityValue::Record(_) => {
                    return Err(VariableProblem::Error("record entities are not covered yet".to_owned()));
                }
            };
            entities.push(query_entity(entity, values));
        }
        Ok(Query { kind: object.kind.clone(), entities, behaviors: object.behaviors.clone() })
    }

    /// The filters up to the first one that the plan does not have: that one is an error once there is an item.
    fn query_filters(&mut self, filters: &[Filter], states: &mut States<'plan>, depth: usize) -> Vec<QueryFilter> {
        let plan = self.plan;
        let known = filters.iter().map_while(|filter| Some((filter.action, plan.states.get(&filter.state)?)));
        known
            .map(|(action, state)| QueryFilter {
                action,
                operator: state.operator,
                entities: state.entities.iter().map(|entity| self.state_entity(entity, states, depth)).collect(),
            })
            .collect()
    }

    /// One that an item has once, and that is compared with values that are known.
    fn state_entity(&mut self, entity: &Entity, states: &mut States<'plan>, depth: usize) -> Option<QueryEntity> {
        let is_plain = entity.check_existence == Existence::AtLeastOneExists
            && !matches!(entity.entity_check, Check::NoneSatisfy | Check::NoneExist);
        let values = match &entity.value {
            EntityValue::Literal(value) => vec![value.clone()],
            EntityValue::Variable(key) => states.variables.values(key, self, depth + 1).ok()?.to_vec(),
            EntityValue::Nil | EntityValue::Record(_) => return None,
        };
        is_plain.then(|| query_entity(entity, values))
    }

    fn filtered(
        &mut self,
        mut collected: Collected,
        filters: &[Filter],
        states: &mut States<'plan>,
        depth: usize,
    ) -> Collected {
        if filters.is_empty() || collected.items.is_empty() {
            return collected;
        }
        for filter in filters {
            let Some(state) = self.plan.states.get(&filter.state) else {
                return Collected::nothing(Flag::Error, format!("the plan has no state {}", filter.state));
            };
            let mut kept = Vec::with_capacity(collected.items.len());
            for item in collected.items {
                let truth = states.evaluate(state, &in_full(&item, state), self, depth + 1, &mut Vec::new());
                if filter.action == FilterAction::Include && !matches!(truth, Truth::True | Truth::False) {
                    // Left out, it would pass for something that is not there.
                    let words = format!("whether an item passes a filter is {}", truth.as_str());
                    return Collected::nothing(Flag::Error, words);
                }
                if (truth == Truth::True) == (filter.action == FilterAction::Include) {
                    kept.push(item);
                }
            }
            collected.items = kept;
        }
        if collected.items.is_empty() && collected.flag == Flag::Complete {
            collected.flag = Flag::DoesNotExist;
        }
        collected
    }

    fn set(&mut self, set: &ObjectSet, states: &mut States<'plan>, depth: usize) -> Collected {
        let mut operands = Vec::with_capacity(set.operands.len());
        for operand in &set.operands {
            operands.push(match operand {
                SetOperand::Object(key) => {
                    let items = Collected::clone(&self.resolve(key, states, depth + 1));
                    self.filtered(items, &set.filters, states, depth)
                }
                SetOperand::Set(inner) if depth < limits::REFERENCE_DEPTH_MAX => self.set(inner, states, depth + 1),
                SetOperand::Set(_) => Collected::nothing(Flag::Error, "sets are nested too deep"),
            });
        }
        match operands.as_slice() {
            [only] => only.clone(),
            [left, right] => set::combine(set.operator, left, right),
            _ => Collected::nothing(Flag::Error, "a set has one or two operands"),
        }
    }
}

/// The item, which says of all that a state asks for that it has none of it: a filter is decided then, with what the table of
/// `ExistenceEnumeration` has for nothing, as in `oscap`. For what its kind does not have, nobody has looked.
fn in_full<'item>(item: &'item Item, state: &State) -> Cow<'item, Item> {
    let fields = kinds::kind(&item.kind).map(|kind| kind.fields).unwrap_or_default();
    let is_lacking = |entity: &&Entity| {
        let is_needed = entity.check_existence == Existence::AtLeastOneExists;
        is_needed && fields.contains(&entity.name.as_str()) && item.named(&entity.name).next().is_none()
    };
    let nothing = |entity: &Entity| ItemEntity::without_value(&entity.name, entity.datatype, Status::DoesNotExist);
    let lacking: Vec<ItemEntity> = state.entities.iter().filter(is_lacking).map(nothing).collect();
    if lacking.is_empty() {
        return Cow::Borrowed(item);
    }
    let mut item = item.clone();
    item.entities.extend(lacking);
    Cow::Owned(item)
}

/// `independent:variable` looks at no endpoint: its item is the variable's values.
const VARIABLE_KIND: &str = "independent:variable";

fn variable_item(query: &Query) -> Collected {
    let values = query.entity("var_ref").map(|entity| entity.values.as_slice()).unwrap_or_default();
    let entities = values.iter().map(|value| ItemEntity::text("value", value)).collect();
    Collected::from_items(vec![Item::new(VARIABLE_KIND, entities)])
}

fn query_entity(entity: &Entity, values: Vec<String>) -> QueryEntity {
    QueryEntity {
        name: entity.name.clone(),
        operation: entity.operation,
        datatype: entity.datatype,
        is_nil: matches!(entity.value, EntityValue::Nil),
        values,
        var_check: entity.var_check,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::plan::{Component, SetOperator, StateKey, Variable, VariableKey, VariableSource};

    /// Answers with one item for each value of `name`, and counts how often it was asked.
    #[derive(Default)]
    struct Echo {
        asked: usize,
    }

    impl Prober for Echo {
        fn probe(&mut self, query: &Query, _filters: &[QueryFilter]) -> Collected {
            self.asked += 1;
            let values = query.entity("name").map(|entity| entity.values.clone()).unwrap_or_default();
            Collected::from_items(
                values.iter().map(|value| Item::new(&query.kind, vec![ItemEntity::text("name", value)])).collect(),
            )
        }
    }

    fn entity(value: EntityValue) -> Entity {
        Entity {
            name: "name".into(),
            operation: Operation::Equals,
            datatype: Datatype::String,
            value,
            var_check: Check::AtLeastOne,
            entity_check: Check::All,
            check_existence: Existence::default(),
            mask: false,
        }
    }

    fn object(value: EntityValue, filters: Vec<Filter>) -> Object {
        Object { kind: "x".into(), entities: vec![entity(value)], behaviors: BTreeMap::new(), filters, set: None }
    }

    fn literal(text: &str) -> EntityValue {
        EntityValue::Literal(text.into())
    }

    fn add(plan: &mut CollectionPlan, object: Object) -> ObjectKey {
        let key = ObjectKey::of(&object);
        plan.objects.insert(key.clone(), object);
        key
    }

    fn names(collected: &Collected) -> Vec<&str> {
        collected.items.iter().filter_map(|item| item.value("name")).collect()
    }

    #[test]
    fn a_variable_over_one_object_feeds_another() {
        let mut plan = CollectionPlan::default();
        let first = add(&mut plan, object(literal("sshd"), vec![]));
        let variable = Variable {
            datatype: Datatype::String,
            source: VariableSource::Local(Component::Concat(vec![
                Component::Object { object: first, item_field: "name".into(), record_field: None },
                Component::Literal(".service".into()),
            ])),
        };
        let variable_key = VariableKey::of(&variable);
        plan.variables.insert(variable_key.clone(), variable);
        let second = add(&mut plan, object(EntityValue::Variable(variable_key), vec![]));
        let mut resolver = Resolver::new(&plan, Echo::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(names(&resolver.object(&second)), ["sshd.service"]);
        assert_eq!(names(&resolver.object(&second)), ["sshd.service"]);
        assert_eq!(resolver.into_prober().asked, 2);
    }

    #[test]
    fn an_empty_variable_means_that_the_object_does_not_exist() {
        let mut plan = CollectionPlan::default();
        let nothing =
            Object { kind: "x".into(), entities: vec![], behaviors: BTreeMap::new(), filters: vec![], set: None };
        let nothing = add(&mut plan, nothing);
        let variable = Variable {
            datatype: Datatype::String,
            source: VariableSource::Local(Component::Object {
                object: nothing,
                item_field: "name".into(),
                record_field: None,
            }),
        };
        let key = VariableKey::of(&variable);
        plan.variables.insert(key.clone(), variable);
        let asked = add(&mut plan, object(EntityValue::Variable(key), vec![]));
        let collected = Resolver::new(&plan, Echo::default(), Timestamp::UNIX_EPOCH).object(&asked);
        assert_eq!(collected.flag, Flag::DoesNotExist);
        assert!(!collected.messages.is_empty());
    }

    #[test]
    fn an_object_that_asks_with_a_count_of_nothing_does_not_exist() {
        let mut plan = CollectionPlan::default();
        let nothing =
            Object { kind: "x".into(), entities: vec![], behaviors: BTreeMap::new(), filters: vec![], set: None };
        let nothing = add(&mut plan, nothing);
        let something = add(&mut plan, object(literal("a"), vec![]));
        let of = |object: &ObjectKey| Component::Object {
            object: object.clone(),
            item_field: "name".into(),
            record_field: None,
        };
        let count = |of: Vec<Component>| Component::Count(of);
        let sum = |operands| Component::Arithmetic { is_product: false, operands };
        for (source, expect) in [
            (count(vec![of(&nothing)]), Flag::DoesNotExist),
            (count(vec![of(&nothing), of(&something)]), Flag::DoesNotExist),
            (count(vec![of(&something)]), Flag::Complete),
            (sum(vec![count(vec![of(&nothing)]), Component::Literal("1".into())]), Flag::Complete),
        ] {
            let variable = Variable { datatype: Datatype::Int, source: VariableSource::Local(source) };
            let key = VariableKey::of(&variable);
            plan.variables.insert(key.clone(), variable);
            let asked = add(&mut plan, object(EntityValue::Variable(key), vec![]));
            let collected = Resolver::new(&plan, Echo::default(), Timestamp::UNIX_EPOCH).object(&asked);
            assert_eq!(collected.flag, expect);
        }
    }

    #[test]
    fn filters_and_sets_keep_what_is_wanted() {
        let mut plan = CollectionPlan::default();
        let state = State { kind: "x".into(), operator: Operator::And, entities: vec![entity(literal("b"))] };
        let state_key = StateKey::of(&state);
        plan.states.insert(state_key.clone(), state);
        let exclude = Filter { action: FilterAction::Exclude, state: state_key.clone() };
        let include = Filter { action: FilterAction::Include, state: state_key };
        let a = add(&mut plan, object(literal("a"), vec![]));
        let b = add(&mut plan, object(literal("b"), vec![]));
        let set = |filters| Object {
            kind: "x".into(),
            entities: vec![],
            behaviors: BTreeMap::new(),
            filters: vec![],
            set: Some(ObjectSet {
                operator: SetOperator::Union,
                operands: vec![SetOperand::Object(a.clone()), SetOperand::Object(b.clone())],
                filters,
            }),
        };
        let (both, without, only) = (set(vec![]), set(vec![exclude]), set(vec![include]));
        let (both, without, only) = (add(&mut plan, both), add(&mut plan, without), add(&mut plan, only));
        let mut resolver = Resolver::new(&plan, Echo::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(names(&resolver.object(&both)), ["a", "b"]);
        assert_eq!(names(&resolver.object(&without)), ["a"]);
        assert_eq!(names(&resolver.object(&only)), ["b"]);
    }

    #[test]
    fn what_an_item_has_none_of_is_not_as_a_filter_wants_it() {
        let check = |operator, asked: &[(&str, &str)], action, expect: Flag| {
            let asked_of = |(name, value): &(&str, &str)| Entity { name: (*name).into(), ..entity(literal(value)) };
            let kind = "linux:dpkginfo";
            let state = State { kind: kind.into(), operator, entities: asked.iter().map(asked_of).collect() };
            let filter = Filter { action, state: StateKey::of(&state) };
            let mut plan = CollectionPlan::default();
            plan.states.insert(filter.state.clone(), state);
            let key = add(&mut plan, Object { kind: kind.into(), ..object(literal("a"), vec![filter]) });
            let collected = Resolver::new(&plan, Echo::default(), Timestamp::UNIX_EPOCH).object(&key);
            assert_eq!(collected.flag, expect, "{asked:?}");
            let kept: &[&str] = if expect == Flag::Complete { &["a"] } else { &[] };
            assert_eq!(names(&collected), kept, "an item is kept as it was: {asked:?}");
            assert!(collected.items.iter().all(|item| item.entities.len() == 1), "{asked:?}");
        };
        let (there, lacking, unheard) = (("name", "a"), ("arch", "all"), ("origin", "x"));
        let (include, exclude) = (FilterAction::Include, FilterAction::Exclude);
        for operator in [Operator::And, Operator::Or, Operator::One, Operator::Xor] {
            check(operator, &[lacking], include, Flag::DoesNotExist);
            check(operator, &[lacking], exclude, Flag::Complete);
            // Nobody looks for what the kind does not have.
            check(operator, &[unheard], include, Flag::Error);
            check(operator, &[unheard], exclude, Flag::Complete);
        }
        check(Operator::And, &[there, lacking], include, Flag::DoesNotExist);
        check(Operator::And, &[there, lacking], exclude, Flag::Complete);
        for operator in [Operator::Or, Operator::One, Operator::Xor] {
            check(operator, &[there, lacking], include, Flag::Complete);
            check(operator, &[there, lacking], exclude, Flag::DoesNotExist);
        }
    }

    #[test]
    fn an_object_that_the_plan_lacks_is_an_error_and_not_a_panic() {
        let plan = CollectionPlan::default();
        let collected =
            Resolver::new(&plan, Echo::default(), Timestamp::UNIX_EPOCH).object(&ObjectKey("obj:none".into()));
        assert_eq!(collected.flag, Flag::Error);
    }
}
