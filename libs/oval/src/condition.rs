//! Conditions of questions about posture against items: in three values, as an item may say nothing of a field.

use std::borrow::Cow;
use std::cmp::Ordering;

use proto::observation::{Item, ItemEntity, Status};
use proto::plan::{Datatype, Operation};
use proto::query::{Comparison, ComparisonOperator, Condition};

use crate::compare::compare;
use crate::pattern::{Flags, Pattern, PatternError, escape};

/// A condition, ready to be held against many items.
#[derive(Debug)]
pub struct Matcher {
    root: Option<Part>,
}

#[derive(Debug)]
enum Part {
    All(Vec<Part>),
    Any(Vec<Part>),
    Not(Box<Part>),
    Exists(String),
    Compare(Comparison),
    /// `prefix`, `glob` and `matches` are patterns.
    Pattern(String, Box<Pattern>),
}

/// The pattern that a comparison stands for, where it is one of text.
pub fn pattern_of(comparison: &Comparison) -> Option<String> {
    let value = comparison.values.first()?;
    match comparison.operator {
        ComparisonOperator::Prefix => Some(format!("^{}", escape(value))),
        ComparisonOperator::Matches => Some(value.clone()),
        ComparisonOperator::Glob => {
            let parts: Vec<String> = value.chars().map(of_glob).collect();
            Some(format!("^{}$", parts.concat()))
        }
        ComparisonOperator::In => {
            let values: Vec<String> = comparison.values.iter().map(|value| escape(value)).collect();
            Some(format!("^({})$", values.join("|")))
        }
        _ => None,
    }
}

fn of_glob(character: char) -> String {
    match character {
        '*' => "[\\s\\S]*".to_owned(),
        '?' => "[\\s\\S]".to_owned(),
        other => escape(&other.to_string()),
    }
}

impl Matcher {
    /// Of a condition; of none, everything matches.
    pub fn new(condition: Option<&Condition>) -> Result<Self, PatternError> {
        Ok(Self { root: condition.map(Part::of).transpose()? })
    }

    /// Whether it holds of an item; none where the item does not say enough.
    pub fn holds(&self, item: &Item) -> Option<bool> {
        match item.status {
            Status::Exists => self.root.as_ref().map_or(Some(true), |part| part.holds(item)),
            Status::DoesNotExist => Some(false),
            Status::Error | Status::NotCollected => None,
        }
    }
}

impl Part {
    fn of(condition: &Condition) -> Result<Self, PatternError> {
        let all = |parts: &[Condition]| parts.iter().map(Self::of).collect::<Result<Vec<_>, _>>();
        Ok(match condition {
            Condition::All(parts) => Self::All(all(parts)?),
            Condition::Any(parts) => Self::Any(all(parts)?),
            Condition::Not(part) => Self::Not(Box::new(Self::of(part)?)),
            Condition::Exists(field) => Self::Exists(field.clone()),
            Condition::Compare(comparison) if comparison.operator == ComparisonOperator::In => {
                Self::Compare(comparison.clone())
            }
            Condition::Compare(comparison) => match pattern_of(comparison) {
                Some(pattern) => {
                    Self::Pattern(comparison.field.clone(), Box::new(Pattern::new(&pattern, Flags::default())?))
                }
                None => Self::Compare(comparison.clone()),
            },
        })
    }

    fn holds(&self, item: &Item) -> Option<bool> {
        match self {
            Self::All(parts) => joined(parts.iter().map(|part| part.holds(item)), false),
            Self::Any(parts) => joined(parts.iter().map(|part| part.holds(item)), true),
            Self::Not(part) => part.holds(item).map(|holds| !holds),
            Self::Exists(field) => {
                let said = item.named(field).map(|entity| match entity.status {
                    Status::Exists => Some(true),
                    Status::DoesNotExist => Some(false),
                    Status::Error | Status::NotCollected => None,
                });
                // An entity that an item leaves out is not there.
                joined(said, true)
            }
            Self::Pattern(field, pattern) => of_values(item, field, |_, value| pattern.is_match(value.as_bytes()).ok()),
            Self::Compare(comparison) => of_values(item, &comparison.field, |datatype, value| {
                joined(
                    comparison.values.iter().map(|wanted| stands(datatype, comparison.operator, value, wanted)),
                    true,
                )
            }),
        }
    }
}

/// Whether one of them is as `decisive`; if none is, not so, or not known.
fn joined(values: impl Iterator<Item = Option<bool>>, decisive: bool) -> Option<bool> {
    let mut outcome = Some(!decisive);
    for value in values {
        match value {
            Some(value) if value == decisive => return Some(decisive),
            None => outcome = None,
            Some(_) => {}
        }
    }
    outcome
}

/// Whether it holds of one of a field's values; a field that an item leaves out says nothing.
fn of_values(item: &Item, field: &str, holds: impl Fn(Datatype, &str) -> Option<bool>) -> Option<bool> {
    let mut named = item.named(field).peekable();
    named.peek()?;
    let of_value = |entity: &ItemEntity| match (entity.status, &entity.value) {
        (Status::Exists, Some(value)) => holds(entity.datatype, value),
        (Status::DoesNotExist, _) => Some(false),
        _ => None,
    };
    joined(named.map(of_value), true)
}

fn stands(datatype: Datatype, operator: ComparisonOperator, value: &str, wanted: &str) -> Option<bool> {
    let operation = match operator {
        ComparisonOperator::Equal | ComparisonOperator::In => Operation::Equals,
        ComparisonOperator::NotEqual => Operation::NotEqual,
        ComparisonOperator::Less => Operation::LessThan,
        ComparisonOperator::LessOrEqual => Operation::LessThanOrEqual,
        ComparisonOperator::Greater => Operation::GreaterThan,
        ComparisonOperator::GreaterOrEqual => Operation::GreaterThanOrEqual,
        // They are patterns.
        ComparisonOperator::Prefix | ComparisonOperator::Glob | ComparisonOperator::Matches => return None,
    };
    // OVAL gives text no order; people mean that of versions and of times.
    if datatype == Datatype::String {
        let order = in_order(value, wanted);
        return match operation {
            Operation::LessThan => Some(order.is_lt()),
            Operation::LessThanOrEqual => Some(order.is_le()),
            Operation::GreaterThan => Some(order.is_gt()),
            Operation::GreaterThanOrEqual => Some(order.is_ge()),
            Operation::Equals => Some(value == wanted),
            _ => Some(value != wanted),
        };
    }
    let wanted = match datatype {
        Datatype::Boolean => Cow::Owned(wanted.to_ascii_lowercase()),
        _ => Cow::Borrowed(wanted),
    };
    compare(datatype, operation, value, &wanted).ok()
}

/// Numbers in text are in the order of numbers: 9.10 comes after 9.9, and 2026-10-02 after 2026-10-01T23:59:00Z.
fn in_order(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    loop {
        let (a, b) = match (left.first(), right.first()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(a), Some(b)) => (*a, *b),
        };
        if a.is_ascii_digit() && b.is_ascii_digit() {
            let (one, other) = (number(&mut left), number(&mut right));
            match one.len().cmp(&other.len()).then_with(|| one.cmp(other)) {
                Ordering::Equal => {}
                order => return order,
            }
        } else if a == b {
            (left, right) = (&left[1..], &right[1..]);
        } else {
            return a.cmp(&b);
        }
    }
}

/// Takes the digits in front off, without zeros before them.
fn number<'text>(text: &mut &'text [u8]) -> &'text [u8] {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    *text = rest;
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::query::PostureQuery;

    fn package(name: &str, version: &str) -> Item {
        Item::new(
            "linux:dpkginfo",
            vec![
                ItemEntity::text("name", name),
                ItemEntity::text("version", version),
                ItemEntity::new("evr", Datatype::DebianEvrString, format!("0:{version}-1")),
                ItemEntity::int("size", 9),
                ItemEntity::boolean("held", true),
                ItemEntity::text("value", "a"),
                ItemEntity::text("value", "b"),
                ItemEntity::without_value("gone", Datatype::String, Status::DoesNotExist),
                ItemEntity::without_value("secret", Datatype::String, Status::NotCollected),
            ],
        )
    }

    fn holds(condition: &str, item: &Item) -> Option<bool> {
        let query: PostureQuery = format!("linux:dpkginfo where {condition}").parse().unwrap();
        Matcher::new(query.condition.as_ref()).unwrap().holds(item)
    }

    #[test]
    fn fields_compare_in_their_datatypes() {
        let item = package("openssl", "3.0.11");
        for (condition, expected) in [
            ("name = openssl", true),
            ("name != openssl", false),
            ("name in (bash, openssl)", true),
            ("name prefix open", true),
            ("name prefix pen", false),
            ("name glob 'open*'", true),
            ("name glob open", false),
            ("name glob 'o?enss?'", true),
            ("name glob 'o.enssl'", false),
            ("name matches 'ss.$'", true),
            // As text, 3.0.11 would come before 3.0.9.
            ("version > 3.0.9", true),
            ("evr < '0:3.0.11-2'", true),
            ("evr >= '0:3.0.11-2'", false),
            ("version < 3.0", false),
            ("version > 3.0", true),
            ("version >= 03.0.11", true),
            ("version < 10", true),
            ("size > 10", false),
            ("size <= 9", true),
            ("held = TRUE", true),
            ("value = b", true),
            ("value != b", true),
            ("not value = b", false),
            ("exists gone", false),
            ("exists nothing", false),
            ("exists name", true),
            ("gone = x", false),
        ] {
            assert_eq!(holds(condition, &item), Some(expected), "{condition}");
        }
    }

    #[test]
    fn what_an_item_does_not_say_is_neither_so_nor_not_so() {
        let item = package("openssl", "3.0.11");
        for condition in ["nothing = 1", "not nothing = 1", "secret = x", "exists secret", "size > many"] {
            assert_eq!(holds(condition, &item), None, "{condition}");
        }
        assert_eq!(holds("nothing = 1 and name = bash", &item), Some(false));
        assert_eq!(holds("nothing = 1 or name = openssl", &item), Some(true));
        assert_eq!(holds("nothing = 1 or name = bash", &item), None);
        let unread = Item { status: Status::Error, ..package("a", "1") };
        assert_eq!(holds("name = a", &unread), None);
        let absent = Item { status: Status::DoesNotExist, ..package("a", "1") };
        assert_eq!(holds("name = a", &absent), Some(false));
    }

    #[test]
    fn a_pattern_that_is_none_is_an_error_at_once() {
        let query: PostureQuery = "a where x matches '('".parse().unwrap();
        assert!(Matcher::new(query.condition.as_ref()).is_err());
    }
}
