//! States against items (§5.3.6.1, "State Evaluation").

use std::rc::Rc;

use proto::observation::{Item, ItemEntity, Status};
use proto::plan::{CollectionPlan, Entity, EntityValue, Existence, State};

use crate::check::{self, Truth};
use crate::compare::compare;
use crate::variable::{ObjectSource, VariableProblem, Variables};

/// An entity of an item that is not as the state wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The entity's name.
    pub entity: String,
    /// What was found, in words.
    pub found: String,
    /// What was expected, in words.
    pub expected: String,
    /// Why it could not be compared, where that is so.
    pub reason: Option<String>,
}

/// Evaluates states of a plan.
#[derive(Debug)]
pub struct States<'plan> {
    /// The plan that the states belong to.
    pub plan: &'plan CollectionPlan,
    /// Its variables.
    pub variables: Variables<'plan>,
}

impl States<'_> {
    /// Whether the item is as the state wants it; what is not goes to `mismatches`.
    pub fn evaluate(
        &mut self,
        state: &State,
        item: &Item,
        source: &mut dyn ObjectSource,
        depth: usize,
        mismatches: &mut Vec<Mismatch>,
    ) -> Truth {
        if let Some(truth) = absent(item.status) {
            return truth;
        }
        let results: Vec<Truth> =
            state.entities.iter().map(|entity| self.entity(entity, item, source, depth, mismatches)).collect();
        check::operator(state.operator, results)
    }

    fn entity(
        &mut self,
        entity: &Entity,
        item: &Item,
        source: &mut dyn ObjectSource,
        depth: usize,
        mismatches: &mut Vec<Mismatch>,
    ) -> Truth {
        if let EntityValue::Record(fields) = &entity.value {
            return self.record(entity, fields, item, source, depth, mismatches);
        }
        if entity.check_existence != Existence::AtLeastOneExists {
            return self.entity_that_may_not_be(entity, item, source, depth, mismatches);
        }
        // An item that says nothing of the entity is unknown, whatever it would be compared with.
        if lacks(item, entity) {
            mismatches.push(lacking(item, entity, "item"));
            return check::check(entity.entity_check, []);
        }
        // A value that is not there is decided without what it would be compared with.
        let (mut expected, mut reason) = (None, None);
        let mut results = Vec::new();
        for found in item.named(&entity.name) {
            results.push(match found.status {
                Status::Exists => match expected.get_or_insert_with(|| self.expected(entity, source, depth)) {
                    Ok(expected) => against(entity, found, expected, &mut reason),
                    Err((truth, problem)) => {
                        reason = Some(problem.clone());
                        *truth
                    }
                },
                Status::Error => {
                    reason = Some(format!("`{}` could not be read", entity.name));
                    Truth::Error
                }
                Status::DoesNotExist => Truth::False,
                Status::NotCollected => Truth::Unknown,
            });
        }
        let truth = check::check(entity.entity_check, results);
        if truth != Truth::True {
            mismatches.push(Mismatch {
                entity: entity.name.clone(),
                found: found_words(item, entity),
                expected: match &expected {
                    Some(Ok(expected)) => expected_words(entity, expected),
                    _ => format!("{} {} a value", entity.name, entity.operation),
                },
                reason,
            });
        }
        truth
    }

    /// Where the state says how many entities there must be, those that are there are compared (`check_existence` of
    /// `EntityStateSimpleBaseType`).
    fn entity_that_may_not_be(
        &mut self,
        entity: &Entity,
        item: &Item,
        source: &mut dyn ObjectSource,
        depth: usize,
        mismatches: &mut Vec<Mismatch>,
    ) -> Truth {
        let existence = check::existence(entity.check_existence, item.named(&entity.name).map(|found| found.status));
        // What could not be read is compared as well: nobody knows that it is as wanted.
        let there: Vec<ItemEntity> =
            item.named(&entity.name).filter(|found| found.status != Status::DoesNotExist).cloned().collect();
        if existence != Truth::True {
            mismatches.push(Mismatch {
                entity: entity.name.clone(),
                found: found_words(item, entity),
                expected: format!("{} {}", entity.name, entity.check_existence.as_str()),
                reason: None,
            });
        }
        if existence != Truth::True || there.is_empty() {
            return existence;
        }
        let compared = Entity { check_existence: Existence::AtLeastOneExists, ..entity.clone() };
        self.entity(&compared, &Item::new(&item.kind, there), source, depth + 1, mismatches)
    }

    /// A record is as wanted when each of the wanted fields is (§5.3.6.3.2). A field that it lacks is an error, as in
    /// `oscap`: the records of an item need not have the same fields, and nobody knows what it would be.
    fn record(
        &mut self,
        entity: &Entity,
        fields: &[Entity],
        item: &Item,
        source: &mut dyn ObjectSource,
        depth: usize,
        mismatches: &mut Vec<Mismatch>,
    ) -> Truth {
        if depth > crate::limits::REFERENCE_DEPTH_MAX {
            return Truth::Error;
        }
        let mut of_records = Vec::new();
        for found in item.named(&entity.name) {
            of_records.push(absent(found.status).unwrap_or_else(|| {
                let record = Item::new(&entity.name, found.fields.clone());
                let mut of_fields = Vec::with_capacity(fields.len());
                for field in fields {
                    of_fields.push(if lacks(&record, field) {
                        mismatches.push(lacking(&record, field, "record"));
                        Truth::Error
                    } else {
                        self.entity(field, &record, source, depth + 1, mismatches)
                    });
                }
                check::operator(proto::plan::Operator::And, of_fields)
            }));
        }
        if of_records.is_empty() {
            mismatches.push(lacking(item, entity, "item"));
        }
        check::check(entity.entity_check, of_records)
    }

    /// What the entity is compared with.
    fn expected(
        &mut self,
        entity: &Entity,
        source: &mut dyn ObjectSource,
        depth: usize,
    ) -> Result<Rc<Vec<String>>, (Truth, String)> {
        match &entity.value {
            EntityValue::Literal(value) => Ok(Rc::new(vec![value.clone()])),
            EntityValue::Nil => Ok(Rc::new(vec![String::new()])),
            EntityValue::Record(_) => Err((Truth::Error, "a record stands where a value is wanted".to_owned())),
            EntityValue::Variable(key) => self.variables.values(key, source, depth + 1).map_err(|problem| {
                let truth = match problem {
                    VariableProblem::Error(_) | VariableProblem::NoValues(_) => Truth::Error,
                    VariableProblem::NotCollected(_) => Truth::Unknown,
                };
                (truth, problem.to_string())
            }),
        }
    }
}

/// Whether nothing is said of what has to be there.
fn lacks(item: &Item, entity: &Entity) -> bool {
    entity.check_existence == Existence::AtLeastOneExists && item.named(&entity.name).next().is_none()
}

fn lacking(item: &Item, entity: &Entity, what: &str) -> Mismatch {
    Mismatch {
        entity: entity.name.clone(),
        found: found_words(item, entity),
        expected: format!("{} {} a value", entity.name, entity.operation),
        reason: Some(format!("the {what} has no `{}`", entity.name)),
    }
}

/// What comes of something that is not there to be compared.
fn absent(status: Status) -> Option<Truth> {
    match status {
        Status::Exists => None,
        Status::Error => Some(Truth::Error),
        Status::DoesNotExist => Some(Truth::False),
        Status::NotCollected => Some(Truth::Unknown),
    }
}

fn against(entity: &Entity, found: &ItemEntity, expected: &[String], reason: &mut Option<String>) -> Truth {
    let value = found.value.as_deref().unwrap_or_default();
    let results: Vec<Truth> = expected
        .iter()
        .map(|wanted| match compare(entity.datatype, entity.operation, value, wanted) {
            Ok(is_met) => Truth::from(is_met),
            Err(problem) => {
                *reason = Some(problem.to_string());
                Truth::Error
            }
        })
        .collect();
    check::check(entity.var_check, results)
}

fn found_words(item: &Item, entity: &Entity) -> String {
    if entity.mask {
        return format!("{} = (masked)", entity.name);
    }
    let values: Vec<String> = item
        .named(&entity.name)
        .map(|found| found.value.as_deref().map_or_else(|| format!("({})", status_words(found.status)), quoted))
        .collect();
    let values = if values.is_empty() { "(nothing)".to_owned() } else { values.join(", ") };
    format!("{} = {values}", entity.name)
}

fn expected_words(entity: &Entity, expected: &[String]) -> String {
    if entity.mask {
        return format!("{} {} (masked)", entity.name, entity.operation);
    }
    let values: Vec<String> = expected.iter().take(8).map(|value| quoted(value)).collect();
    let more = if expected.len() > 8 { format!(" and {} more", expected.len() - 8) } else { String::new() };
    let which = if expected.len() > 1 { format!("{} of ", entity.var_check) } else { String::new() };
    format!("{} {} {which}{}{more}", entity.name, operation_words(entity), values.join(", "))
}

fn operation_words(entity: &Entity) -> &'static str {
    match entity.operation {
        proto::plan::Operation::Equals => "=",
        proto::plan::Operation::NotEqual => "≠",
        proto::plan::Operation::GreaterThan => ">",
        proto::plan::Operation::LessThan => "<",
        proto::plan::Operation::GreaterThanOrEqual => "≥",
        proto::plan::Operation::LessThanOrEqual => "≤",
        proto::plan::Operation::PatternMatch => "matches",
        other => other.as_str(),
    }
}

/// Text for a person: one line, cut, quoted where it is empty or has blanks.
fn quoted(value: &str) -> String {
    let cut: String = value.chars().take(100).flat_map(char::escape_debug).collect();
    let cut = cut.replace("\\'", "'").replace("\\\"", "\"").replace("\\\\", "\\");
    let more = if value.chars().count() > 100 { "…" } else { "" };
    if cut.is_empty() || cut.contains(char::is_whitespace) {
        format!("\"{cut}{more}\"")
    } else {
        format!("{cut}{more}")
    }
}

fn status_words(status: Status) -> &'static str {
    match status {
        Status::Error => "could not be read",
        Status::Exists => "empty",
        Status::DoesNotExist => "does not exist",
        Status::NotCollected => "not collected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proto::observation::Collected;
    use proto::plan::{Check, Datatype, ObjectKey, Operation, Operator};

    struct Nothing;

    impl ObjectSource for Nothing {
        fn object(&mut self, _key: &ObjectKey, _depth: usize) -> Option<Rc<Collected>> {
            None
        }
    }

    fn entity(name: &str, operation: Operation, datatype: Datatype, value: &str, entity_check: Check) -> Entity {
        Entity {
            name: name.into(),
            operation,
            datatype,
            value: EntityValue::Literal(value.into()),
            var_check: Check::All,
            entity_check,
            check_existence: Existence::default(),
            mask: false,
        }
    }

    fn evaluate(entities: Vec<Entity>, operator: Operator, item: Item) -> (Truth, Vec<Mismatch>) {
        let plan = CollectionPlan::default();
        let mut states = States { plan: &plan, variables: Variables::new(&plan, Timestamp::UNIX_EPOCH) };
        let mut mismatches = Vec::new();
        let state = State { kind: "unix:file".into(), operator, entities };
        let truth = states.evaluate(&state, &item, &mut Nothing, 0, &mut mismatches);
        (truth, mismatches)
    }

    fn file(mode: bool) -> Item {
        Item::new("unix:file", vec![ItemEntity::int("user_id", 0), ItemEntity::boolean("owrite", mode)])
    }

    #[test]
    fn a_mismatch_says_what_was_found_and_what_was_expected() {
        let wanted = vec![entity("owrite", Operation::Equals, Datatype::Boolean, "false", Check::All)];
        let (truth, mismatches) = evaluate(wanted, Operator::And, file(true));
        assert_eq!(truth, Truth::False);
        assert_eq!(
            (mismatches[0].found.as_str(), mismatches[0].expected.as_str()),
            ("owrite = true", "owrite = false")
        );
    }

    #[test]
    fn an_entity_that_the_item_lacks_is_unknown() {
        let wanted = vec![entity("size", Operation::Equals, Datatype::Int, "1", Check::All)];
        assert_eq!(evaluate(wanted, Operator::And, file(true)).0, Truth::Unknown);
    }

    #[test]
    fn several_values_count_as_entity_check_says() {
        let item = Item::new("x", vec![ItemEntity::text("option", "ro"), ItemEntity::text("option", "nodev")]);
        let wanted = |check| vec![entity("option", Operation::Equals, Datatype::String, "nodev", check)];
        assert_eq!(evaluate(wanted(Check::AtLeastOne), Operator::And, item.clone()).0, Truth::True);
        assert_eq!(evaluate(wanted(Check::All), Operator::And, item).0, Truth::False);
    }

    fn record(fields: Vec<ItemEntity>) -> ItemEntity {
        ItemEntity { fields, value: None, ..ItemEntity::new("value", Datatype::Record, "") }
    }

    /// What `oscap oval eval` says of the same items and states.
    #[test]
    fn a_record_is_as_wanted_where_each_wanted_field_is() {
        let (a, b) = (|value| ItemEntity::int("a", value), |value| ItemEntity::text("b", value));
        let item = Item::new("x", vec![record(vec![a(1), b("x"), b("y")]), record(vec![a(2), b("z")])]);
        let field = |name: &str, value: &str, entity_check| match name {
            "a" => entity(name, Operation::Equals, Datatype::Int, value, entity_check),
            _ => entity(name, Operation::Equals, Datatype::String, value, entity_check),
        };
        let (all, one) = (Check::All, Check::AtLeastOne);
        let check = |entity_check, fields: Vec<Entity>, expect| {
            let mut wanted = entity("value", Operation::Equals, Datatype::Record, "", entity_check);
            wanted.value = EntityValue::Record(fields.clone());
            assert_eq!(evaluate(vec![wanted], Operator::And, item.clone()).0, expect, "{fields:?}");
        };
        check(all, vec![field("a", "1", all)], Truth::False);
        check(one, vec![field("a", "1", all)], Truth::True);
        check(Check::NoneSatisfy, vec![field("a", "1", all)], Truth::False);
        check(one, vec![field("b", "x", all)], Truth::False);
        check(one, vec![field("b", "x", one)], Truth::True);
        check(one, vec![field("a", "1", all), field("b", "x", one)], Truth::True);
        check(one, vec![field("a", "1", all), field("b", "z", all)], Truth::False);
        check(one, vec![field("none", "1", all)], Truth::Error);
        check(all, vec![field("none", "1", all)], Truth::Error);
        check(Check::NoneSatisfy, vec![field("a", "1", all), field("none", "1", all)], Truth::Error);
    }

    #[test]
    fn a_record_or_a_field_that_is_not_there_is_told() {
        let mut wanted = entity("value", Operation::Equals, Datatype::Record, "", Check::All);
        wanted.value = EntityValue::Record(vec![entity("#", Operation::Equals, Datatype::String, "1", Check::All)]);
        let (truth, mismatches) = evaluate(vec![wanted.clone()], Operator::And, Item::new("x", Vec::new()));
        assert_eq!((truth, mismatches[0].reason.as_deref()), (Truth::Unknown, Some("the item has no `value`")));
        let item = Item::new("x", vec![record(vec![ItemEntity::int("a", 1)])]);
        let (truth, mismatches) = evaluate(vec![wanted], Operator::And, item);
        assert_eq!((truth, mismatches[0].reason.as_deref()), (Truth::Error, Some("the record has no `#`")));
    }

    #[test]
    fn a_value_of_the_wrong_datatype_is_an_error_with_its_reason() {
        let item = Item::new("x", vec![ItemEntity::text("value", "many")]);
        let wanted = vec![entity("value", Operation::Equals, Datatype::Int, "1", Check::All)];
        let (truth, mismatches) = evaluate(wanted, Operator::And, item);
        assert_eq!(truth, Truth::Error);
        assert!(mismatches[0].reason.as_deref().unwrap().contains("`many`"));
    }
}
