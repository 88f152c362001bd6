//! A slow evaluator that is plainly right: OVAL's truth tables as data, and documents walked as they are written, with
//! nothing compiled, shared or remembered. The real one is checked against it.

use oval::check::Truth;
use oval::compare::compare;
use proto::observation::{Collected, Flag, Item, Status};
use proto::plan::{Check, Datatype, Entity, EntityValue, Existence, Operator};
use scap::characteristics::Characteristics;
use scap::oval::{Criteria, Criterion, OvalDefinitions, OvalVariableSource, Test};

/// A row of a table: how many there may be of each, and the result.
type Row = (&'static str, Truth);

use Truth::{Error, False, NotApplicable, NotEvaluated, True, Unknown};

/// `CheckEnumeration` of `oval-common-schema.xsd` 5.11.1; columns T, F, E, U, NE, NA.
const ALL: &[Row] = &[
    ("1+ 0 0 0 0 0+", True),
    ("0+ 1+ 0+ 0+ 0+ 0+", False),
    ("0+ 0 1+ 0+ 0+ 0+", Error),
    ("0+ 0 0 1+ 0+ 0+", Unknown),
    ("0+ 0 0 0 1+ 0+", NotEvaluated),
    ("0 0 0 0 0 1+", NotApplicable),
];
const AT_LEAST_ONE: &[Row] = &[
    ("1+ 0+ 0+ 0+ 0+ 0+", True),
    ("0 1+ 0 0 0 0+", False),
    ("0 0+ 1+ 0+ 0+ 0+", Error),
    ("0 0+ 0 1+ 0+ 0+", Unknown),
    ("0 0+ 0 0 1+ 0+", NotEvaluated),
    ("0 0 0 0 0 1+", NotApplicable),
];
const ONLY_ONE: &[Row] = &[
    ("1 0+ 0 0 0 0+", True),
    ("2+ 0+ 0+ 0+ 0+ 0+", False),
    ("0 1+ 0 0 0 0+", False),
    ("0,1 0+ 1+ 0+ 0+ 0+", Error),
    ("0,1 0+ 0 1+ 0+ 0+", Unknown),
    ("0,1 0+ 0 0 1+ 0+", NotEvaluated),
    ("0 0 0 0 0 1+", NotApplicable),
];
const NONE_SATISFY: &[Row] = &[
    ("0 1+ 0 0 0 0+", True),
    ("1+ 0+ 0+ 0+ 0+ 0+", False),
    ("0 0+ 1+ 0+ 0+ 0+", Error),
    ("0 0+ 0 1+ 0+ 0+", Unknown),
    ("0 0+ 0 0 1+ 0+", NotEvaluated),
    ("0 0 0 0 0 1+", NotApplicable),
];

/// `OperatorEnumeration`; AND, OR and ONE have the rows of ALL, AT LEAST ONE and ONLY ONE. Zero is even, and what is
/// not applicable only is told apart.
const XOR: &[Row] = &[
    ("0 0 0 0 0 1+", NotApplicable),
    ("odd 0+ 0 0 0 0+", True),
    ("even 0+ 0 0 0 0+", False),
    ("0+ 0+ 1+ 0+ 0+ 0+", Error),
    ("0+ 0+ 0 1+ 0+ 0+", Unknown),
    ("0+ 0+ 0 0 1+ 0+", NotEvaluated),
];

/// `ExistenceEnumeration`; columns EX, DE, ER, NC.
const ALL_EXIST: &[Row] =
    &[("1+ 0 0 0", True), ("0 0 0 0", False), ("0+ 1+ 0+ 0+", False), ("0+ 0 1+ 0+", Error), ("0+ 0 0 1+", Unknown)];
const ANY_EXIST: &[Row] = &[("0+ 0+ 0 0+", True), ("1+ 0+ 1+ 0+", True), ("0 0+ 1+ 0+", Error)];
/// No item at all is in no row; nothing exists, so one does not.
const AT_LEAST_ONE_EXISTS: &[Row] =
    &[("1+ 0+ 0+ 0+", True), ("0 0+ 0 0", False), ("0 0+ 1+ 0+", Error), ("0 0+ 0 1+", Unknown)];
const NONE_EXIST: &[Row] = &[("0 0+ 0 0", True), ("1+ 0+ 0+ 0+", False), ("0 0+ 1+ 0+", Error), ("0 0+ 0 1+", Unknown)];
const ONLY_ONE_EXISTS: &[Row] = &[
    ("1 0+ 0 0", True),
    ("2+ 0+ 0+ 0+", False),
    ("0 0+ 0 0", False),
    ("0,1 0+ 1+ 0+", Error),
    ("0,1 0+ 0 1+", Unknown),
];

fn fits(cell: &str, count: usize) -> bool {
    match cell {
        "0" => count == 0,
        "1" => count == 1,
        "0,1" => count < 2,
        "0+" => true,
        "1+" => count > 0,
        "2+" => count > 1,
        "odd" => !count.is_multiple_of(2),
        "even" => count.is_multiple_of(2),
        other => panic!("`{other}` is in no table"),
    }
}

/// The first row that fits; unknown where none does.
fn look_up(table: &[Row], counts: &[usize]) -> Truth {
    let row = table.iter().find(|(cells, _)| cells.split(' ').zip(counts).all(|(cell, count)| fits(cell, *count)));
    row.map_or(Unknown, |(_, truth)| *truth)
}

fn counts(values: &[Truth]) -> Vec<usize> {
    let count = |wanted: Truth| values.iter().filter(|value| **value == wanted).count();
    [True, False, Error, Unknown, NotEvaluated, NotApplicable].map(count).to_vec()
}

/// `CheckEnumeration`.
pub fn check(check: Check, values: &[Truth]) -> Truth {
    let table = match check {
        Check::All => ALL,
        Check::AtLeastOne => AT_LEAST_ONE,
        Check::OnlyOne => ONLY_ONE,
        Check::NoneSatisfy | Check::NoneExist => NONE_SATISFY,
    };
    look_up(table, &counts(values))
}

/// `OperatorEnumeration`.
pub fn operator(operator: Operator, values: &[Truth]) -> Truth {
    let table = match operator {
        Operator::And => ALL,
        Operator::Or => AT_LEAST_ONE,
        Operator::One => ONLY_ONE,
        Operator::Xor if values.is_empty() => return Unknown,
        Operator::Xor => XOR,
    };
    look_up(table, &counts(values))
}

/// `ExistenceEnumeration`.
pub fn existence(existence: Existence, statuses: &[Status]) -> Truth {
    let count = |wanted: Status| statuses.iter().filter(|status| **status == wanted).count();
    let table = match existence {
        Existence::AllExist => ALL_EXIST,
        Existence::AnyExist => ANY_EXIST,
        Existence::AtLeastOneExists => AT_LEAST_ONE_EXISTS,
        Existence::NoneExist => NONE_EXIST,
        Existence::OnlyOneExists => ONLY_ONE_EXISTS,
    };
    look_up(table, &[Status::Exists, Status::DoesNotExist, Status::Error, Status::NotCollected].map(count))
}

/// A document and what was found.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'run> {
    /// The document.
    pub oval: &'run OvalDefinitions,
    /// What was found.
    pub found: &'run Characteristics,
}

/// `None`: it depends on a function, which this evaluator does not have.
type Answer = Option<Truth>;

impl Reference<'_> {
    /// A definition's result.
    pub fn definition(&self, id: &str) -> Answer {
        match self.oval.definitions.get(id).and_then(|definition| definition.criteria.as_ref()) {
            Some(criteria) => self.criteria(criteria),
            None => Some(NotEvaluated),
        }
    }

    fn criteria(&self, criteria: &Criteria) -> Answer {
        let values = criteria.parts.iter().map(|part| match part {
            Criterion::Criteria(inner) => self.criteria(inner),
            Criterion::Test { test, negate, .. } => Some(negated(self.test(test)?, *negate)),
            Criterion::Extend { definition, negate } => Some(negated(self.definition(definition)?, *negate)),
        });
        let values: Vec<Truth> = values.collect::<Option<_>>()?;
        Some(negated(operator(criteria.operator, &values), criteria.negate))
    }

    /// A test's result.
    pub fn test(&self, id: &str) -> Answer {
        let test = &self.oval.tests[id];
        let collected: &Collected = &self.found.objects[test.object.as_ref().expect("generated tests have objects")];
        let is_met_by_anything = test.existence == Existence::AnyExist && test.states.is_empty();
        match collected.flag {
            Flag::Error | Flag::NotApplicable if is_met_by_anything => return Some(True),
            Flag::Error => return Some(Error),
            Flag::NotApplicable => return Some(NotApplicable),
            Flag::NotCollected => return Some(Unknown),
            Flag::DoesNotExist => return Some(existence(test.existence, &[])),
            Flag::Complete => {}
            Flag::Incomplete => return None,
        }
        let statuses: Vec<Status> = collected.items.iter().map(|item| item.status).collect();
        let there = existence(test.existence, &statuses);
        if there != True || test.states.is_empty() || collected.items.is_empty() {
            return Some(there);
        }
        let items = collected.items.iter().map(|item| self.item(test, item));
        Some(check(test.check, &items.collect::<Option<Vec<_>>>()?))
    }

    fn item(&self, test: &Test, item: &Item) -> Answer {
        let states = test.states.iter().map(|id| {
            let state = &self.oval.states[id];
            match item.status {
                Status::Exists => {
                    let entities = state.entities.iter().map(|entity| self.entity(entity, item));
                    Some(operator(state.operator, &entities.collect::<Option<Vec<_>>>()?))
                }
                Status::Error => Some(Error),
                Status::DoesNotExist => Some(False),
                Status::NotCollected => Some(Unknown),
            }
        });
        Some(operator(test.state_operator, &states.collect::<Option<Vec<_>>>()?))
    }

    fn entity(&self, entity: &Entity, item: &Item) -> Answer {
        let wanted: Vec<String> = match &entity.value {
            EntityValue::Literal(value) => vec![value.clone()],
            EntityValue::Variable(id) => match &self.oval.variables[&id.0].source {
                OvalVariableSource::Constant(values) => values.clone(),
                _ => return None,
            },
            _ => return None,
        };
        let against = |datatype: Datatype, value: &str| {
            let values = wanted
                .iter()
                .map(|wanted| compare(datatype, entity.operation, value, wanted).map_or(Error, Truth::from));
            check(entity.var_check, &values.collect::<Vec<_>>())
        };
        let values = item.entities.iter().filter(|found| found.name == entity.name).map(|found| match found.status {
            Status::Exists => against(entity.datatype, found.value.as_deref().unwrap_or_default()),
            Status::Error => Error,
            Status::DoesNotExist => False,
            Status::NotCollected => Unknown,
        });
        Some(check(entity.entity_check, &values.collect::<Vec<_>>()))
    }
}

fn negated(truth: Truth, negate: bool) -> Truth {
    match truth {
        True if negate => False,
        False if negate => True,
        other => other,
    }
}
