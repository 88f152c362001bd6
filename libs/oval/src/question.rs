//! What has to be looked at to answer a question: a collection plan of one object. It finds at least what the question is about;
//! the condition is held against what it finds.

use std::collections::BTreeMap;

use proto::plan::{
    Check, CollectionPlan, Datatype, Entity, EntityValue, Existence, Object, ObjectKey, Operation, PLAN_VERSION,
};
use proto::query::{Comparison, ComparisonOperator, Condition, ENDPOINT_KIND, PostureQuery, VERDICT_KIND};

use crate::condition::{Matcher, pattern_of};
use crate::kinds::{self, Asked, Kind, Otherwise};
use crate::pattern::PatternError;

/// The fields of `endpoint`.
pub const ENDPOINT_FIELDS: &[&str] = &[
    "endpoint",
    "host_name",
    "os_name",
    "os_version",
    "architecture",
    "machine_id",
    "is_privileged",
    "component",
    "collector",
    "state",
    "software_version",
    "label",
];
/// The fields of `verdict`.
pub const VERDICT_FIELDS: &[&str] = &["policy", "profile", "rule", "verdict", "since", "severity", "title"];

/// A question that cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Items of the kind have no such field.
    #[error("`{kind}` has no field `{field}`; it has {}", .known.join(", "))]
    UnknownField {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
        /// Those that it has.
        known: &'static [&'static str],
    },
    /// A pattern that is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Nothing looks at it.
    #[error("no probe looks at `{kind}`; there are probes for {}", probed().join(", "))]
    NoProbe {
        /// The kind.
        kind: String,
    },
    /// It has to be narrowed before anybody looks.
    #[error("say where to look, joined by `and`: {kind} where {example}")]
    TooWide {
        /// The kind.
        kind: String,
        /// What has to be said.
        example: &'static str,
    },
}

fn probed() -> Vec<&'static str> {
    kinds::KINDS.iter().map(|kind| kind.name).filter(|name| *name != "independent:variable").collect()
}

/// The fields that items of a kind have; none where the kind is not known here.
pub fn fields_of(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        ENDPOINT_KIND => Some(ENDPOINT_FIELDS),
        VERDICT_KIND => Some(VERDICT_FIELDS),
        _ => kinds::kind(kind).map(|kind| kind.fields),
    }
}

/// An error for a question about fields that there are not, or with a pattern that is none.
pub fn check(query: &PostureQuery) -> Result<(), QuestionError> {
    if let Some(known) = fields_of(&query.kind)
        && let Some(field) = query.fields().into_iter().find(|field| !known.contains(field))
    {
        return Err(QuestionError::UnknownField { kind: query.kind.clone(), field: field.to_owned(), known });
    }
    Matcher::new(query.condition.as_ref())?;
    Ok(())
}

/// The plan whose objects together find what the question is about: one, or of files in directories two, as a directory itself
/// is found by an object without a file's name.
pub fn plan_of(query: &PostureQuery) -> Result<(CollectionPlan, Vec<ObjectKey>), QuestionError> {
    check(query)?;
    let kind = kinds::kind(&query.kind).filter(|kind| kind.name != "independent:variable");
    let kind = kind.ok_or_else(|| QuestionError::NoProbe { kind: query.kind.clone() })?;
    let entities = entities_of(kind, query)?;
    let mut all = vec![entities.clone()];
    let is_of_any_file = entities.iter().any(|entity| entity.name == "filename" && is_anything(entity));
    // Contents, unlike files, are in what has a name.
    if is_of_any_file && kind.name == "unix:file" && said(query, "filename").is_none() {
        let of_directories = entities.into_iter().map(|entity| match entity.name.as_str() {
            "filename" => Entity { operation: Operation::Equals, value: EntityValue::Nil, ..entity },
            _ => entity,
        });
        let of_directories: Vec<Entity> = of_directories.collect();
        match said(query, "type").filter(|comparison| comparison.operator == ComparisonOperator::Equal) {
            Some(comparison) if comparison.values == ["directory"] => all = vec![of_directories],
            Some(_) => {}
            None => all.push(of_directories),
        }
    }
    let objects: BTreeMap<ObjectKey, Object> = all
        .into_iter()
        .map(|entities| {
            let kind = kind.name.to_owned();
            let object = Object { kind, entities, behaviors: BTreeMap::new(), filters: Vec::new(), set: None };
            (ObjectKey::of(&object), object)
        })
        .collect();
    let keys: Vec<ObjectKey> = objects.keys().cloned().collect();
    let plan = CollectionPlan { version: PLAN_VERSION, report: keys.clone(), objects, ..CollectionPlan::default() };
    Ok((plan, keys))
}

/// What the condition says of a field in any case.
fn said<'query>(query: &'query PostureQuery, name: &str) -> Option<&'query Comparison> {
    query.conjuncts().iter().find_map(|condition| match condition {
        Condition::Compare(comparison) if comparison.field == name => Some(comparison),
        _ => None,
    })
}

fn is_anything(entity: &Entity) -> bool {
    matches!(&entity.value, EntityValue::Literal(text) if text == ".*") && entity.operation == Operation::PatternMatch
}

fn entities_of(kind: &Kind, query: &PostureQuery) -> Result<Vec<Entity>, QuestionError> {
    let said = |name: &str| said(query, name);
    let is_by_path = said("filepath").is_some();
    let is_of_file = ["filepath", "path", "filename"].iter().any(|name| said(name).is_some());
    let mut entities = Vec::new();
    if !is_of_file
        && let Some(asked) = kind.asked.iter().find(|asked| asked.otherwise == Otherwise::Instead)
        && let Some(entity) = said(asked.name).and_then(|comparison| narrowed(asked, comparison))
    {
        return Ok(vec![entity]);
    }
    for asked in kind.asked.iter().filter(|asked| asked.otherwise != Otherwise::Instead) {
        let narrowed = said(asked.name).and_then(|comparison| narrowed(asked, comparison));
        match (narrowed, asked.otherwise) {
            (Some(entity), Otherwise::File) if is_by_path == (asked.name == "filepath") => entities.push(entity),
            (None, Otherwise::File) if asked.name == "filename" && !is_by_path => {
                entities.push(entity(asked, Operation::PatternMatch, ".*"));
            }
            (None, Otherwise::File) if asked.name == "path" && !is_by_path => {
                return Err(too_wide(kind, "filepath = '/etc/ssh/sshd_config', or path = '/etc/ssh'"));
            }
            (None, Otherwise::File) if asked.name == "filepath" && is_by_path => {
                return Err(too_wide(kind, "filepath = '/etc/ssh/sshd_config', or filepath prefix '/etc/ssh/'"));
            }
            (_, Otherwise::File | Otherwise::Instead) => {}
            (Some(entity), _) => entities.push(entity),
            (None, Otherwise::Nil) => {
                entities.push(Entity { value: EntityValue::Nil, ..entity(asked, Operation::Equals, "") });
            }
            (None, Otherwise::Needed) if asked.name == "pattern" => {
                return Err(too_wide(
                    kind,
                    r"filepath = '/etc/ssh/sshd_config' and pattern = '^PermitRootLogin\s+(\S+)'",
                ));
            }
            (None, Otherwise::Needed) if asked.name == "sha256" => return Err(too_wide(kind, "sha256 = 'HASH'")),
            (None, Otherwise::Needed) => return Err(too_wide(kind, "filepath = '/bin/sh'")),
            (None, Otherwise::Any) if asked.datatype == Datatype::Int => {
                entities.push(entity(asked, Operation::GreaterThanOrEqual, "0"));
            }
            (None, Otherwise::Any) => entities.push(entity(asked, Operation::PatternMatch, ".*")),
        }
    }
    Ok(entities)
}

fn too_wide(kind: &Kind, example: &'static str) -> QuestionError {
    QuestionError::TooWide { kind: kind.name.to_owned(), example }
}

/// The entity that finds what the comparison holds of, where there is one.
fn narrowed(asked: &Asked, comparison: &Comparison) -> Option<Entity> {
    let value = comparison.values.first()?;
    if asked.name == "pattern" {
        // What items say of it is the pattern itself.
        let is_equal = comparison.operator == ComparisonOperator::Equal;
        return is_equal.then(|| entity(asked, Operation::PatternMatch, value));
    }
    let operation = match comparison.operator {
        ComparisonOperator::Equal => Operation::Equals,
        ComparisonOperator::In if comparison.values.len() == 1 => Operation::Equals,
        operator if asked.datatype == Datatype::Int => match operator {
            ComparisonOperator::Less => Operation::LessThan,
            ComparisonOperator::LessOrEqual => Operation::LessThanOrEqual,
            ComparisonOperator::Greater => Operation::GreaterThan,
            ComparisonOperator::GreaterOrEqual => Operation::GreaterThanOrEqual,
            _ => return None,
        },
        _ => return Some(entity(asked, Operation::PatternMatch, &pattern_of(comparison)?)),
    };
    Some(entity(asked, operation, value))
}

fn entity(asked: &Asked, operation: Operation, value: &str) -> Entity {
    Entity {
        name: asked.name.to_owned(),
        operation,
        datatype: asked.datatype,
        value: EntityValue::Literal(value.to_owned()),
        var_check: Check::All,
        entity_check: Check::All,
        check_existence: Existence::AtLeastOneExists,
        mask: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        let (plan, keys) = plan_of(&text.parse().unwrap()).unwrap();
        let [key] = &keys[..] else { panic!("{keys:?}") };
        plan.objects[key].clone()
    }

    fn said(text: &str) -> Vec<(String, Operation, String)> {
        let value = |value: &EntityValue| match value {
            EntityValue::Literal(text) => text.clone(),
            _ => "(nil)".to_owned(),
        };
        let entities = object(text).entities;
        entities.iter().map(|one| (one.name.clone(), one.operation, value(&one.value))).collect()
    }

    fn one(name: &str, operation: Operation, value: &str) -> (String, Operation, String) {
        (name.to_owned(), operation, value.to_owned())
    }

    #[test]
    fn what_is_asked_of_an_object_goes_to_the_collector_and_the_rest_does_not() {
        use Operation::{Equals, GreaterThanOrEqual, PatternMatch};
        assert_eq!(said("linux:dpkginfo where name = bash and evr < 1"), [one("name", Equals, "bash")]);
        assert_eq!(said("linux:dpkginfo"), [one("name", PatternMatch, ".*")]);
        assert_eq!(said("linux:dpkginfo where name prefix 'a.b'"), [one("name", PatternMatch, r"^a\.b")]);
        assert_eq!(said("linux:dpkginfo where name in (a, b+)"), [one("name", PatternMatch, r"^(a|b\+)$")]);
        // What may be otherwise is not left out.
        assert_eq!(said("linux:dpkginfo where name = a or evr < 1"), [one("name", PatternMatch, ".*")]);
        assert_eq!(said("linux:dpkginfo where not name = a"), [one("name", PatternMatch, ".*")]);
        assert_eq!(
            said("linux:inetlisteningservers where local_port >= 1024 and protocol = tcp"),
            [
                one("protocol", Equals, "tcp"),
                one("local_address", PatternMatch, ".*"),
                one("local_port", GreaterThanOrEqual, "1024")
            ]
        );
        assert_eq!(
            said("unix:file where path = /etc and filename glob '*.conf'"),
            [one("path", Equals, "/etc"), one("filename", PatternMatch, r"^[\s\S]*\.conf$")]
        );
        assert_eq!(said("unix:file where filepath = /etc/passwd"), [one("filepath", Equals, "/etc/passwd")]);
        assert_eq!(
            said("independent:environmentvariable58 where name = PATH"),
            [one("pid", Equals, "(nil)"), one("name", Equals, "PATH")]
        );
        assert_eq!(
            said("independent:textfilecontent54 where filepath = /a and pattern = '^b'"),
            [
                one("filepath", Equals, "/a"),
                one("pattern", PatternMatch, "^b"),
                one("instance", GreaterThanOrEqual, "0")
            ]
        );
    }

    #[test]
    fn what_cannot_be_asked_says_why() {
        let error = |text: &str| plan_of(&text.parse().unwrap()).unwrap_err().to_string();
        assert!(error("linux:dpkginfo where nane = a").contains("it has name, arch"));
        assert!(error("unix:file where size > 1").contains("filepath = "));
        assert!(error("unix:file where filename = passwd").contains("filepath = "));
        assert!(error("independent:textfilecontent54 where filepath = /a").contains("pattern"));
        assert!(error("windows:registry").contains("no probe"));
        assert!(error("verdict").contains("no probe"));
        assert!(error("linux:dpkginfo where name matches '('").contains('('));
        // Of a kind that others have, nothing is known here.
        assert!(check(&"vendor:thing where whatever = 1".parse().unwrap()).is_ok());
    }
}
