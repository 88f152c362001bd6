//! Sets (§5.3.6.6): items and flags of two operands combined.

use std::collections::BTreeSet;

use proto::observation::{Collected, Flag, Item};
use proto::plan::SetOperator;

/// Combines two operands.
pub fn combine(operator: SetOperator, left: &Collected, right: &Collected) -> Collected {
    let right_items: BTreeSet<&Item> = right.items.iter().collect();
    let items: Vec<Item> = match operator {
        SetOperator::Union => {
            let mut seen: BTreeSet<&Item> = BTreeSet::new();
            left.items.iter().chain(&right.items).filter(|item| seen.insert(item)).cloned().collect()
        }
        SetOperator::Intersection => left.items.iter().filter(|item| right_items.contains(item)).cloned().collect(),
        SetOperator::Complement => left.items.iter().filter(|item| !right_items.contains(item)).cloned().collect(),
    };
    let flag = match flag(operator, left.flag, right.flag) {
        Flag::Complete if items.is_empty() => Flag::DoesNotExist,
        flag => flag,
    };
    let mut messages = left.messages.clone();
    messages.extend(right.messages.iter().filter(|message| !left.messages.contains(message)).cloned());
    Collected { flag, items, messages }
}

/// The tables of §5.3.6.6.1.
fn flag(operator: SetOperator, left: Flag, right: Flag) -> Flag {
    use Flag::{Complete, DoesNotExist, Error, Incomplete, NotApplicable, NotCollected};
    match operator {
        SetOperator::Union => match (left, right) {
            (Error, _) | (_, Error) => Error,
            (NotApplicable, other) | (other, NotApplicable) => other,
            (Incomplete, _) | (_, Incomplete) => Incomplete,
            (NotCollected, NotCollected) => NotCollected,
            (NotCollected, _) | (_, NotCollected) => Incomplete,
            (DoesNotExist, DoesNotExist) => DoesNotExist,
            (Complete, _) | (_, Complete) => Complete,
        },
        SetOperator::Intersection => match (left, right) {
            (DoesNotExist, _) | (_, DoesNotExist) => DoesNotExist,
            (Error, _) | (_, Error) => Error,
            (NotApplicable, other) | (other, NotApplicable) => other,
            (NotCollected, _) | (_, NotCollected) => NotCollected,
            (Incomplete, _) | (_, Incomplete) => Incomplete,
            (Complete, Complete) => Complete,
        },
        SetOperator::Complement => match (left, right) {
            (DoesNotExist, _) => DoesNotExist,
            (Error, _) | (_, Error | Incomplete) => Error,
            (NotApplicable, _) => NotApplicable,
            (NotCollected, _) | (_, NotCollected) => NotCollected,
            (Complete | Incomplete, Complete | DoesNotExist | NotApplicable) => left,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::observation::ItemEntity;

    fn collected(values: &[&str]) -> Collected {
        Collected::from_items(values.iter().map(|value| Item::new("x", vec![ItemEntity::text("v", *value)])).collect())
    }

    fn check(operator: SetOperator, left: &[&str], right: &[&str], expect: &[&str], flag: Flag) {
        let result = combine(operator, &collected(left), &collected(right));
        let values: Vec<&str> = result.items.iter().filter_map(|item| item.value("v")).collect();
        assert_eq!((values.as_slice(), result.flag), (expect, flag));
    }

    #[test]
    fn operands_combine() {
        check(SetOperator::Union, &["a", "b"], &["b", "c"], &["a", "b", "c"], Flag::Complete);
        check(SetOperator::Intersection, &["a", "b"], &["b", "c"], &["b"], Flag::Complete);
        check(SetOperator::Intersection, &["a"], &["b"], &[], Flag::DoesNotExist);
        check(SetOperator::Complement, &["a", "b"], &["b"], &["a"], Flag::Complete);
        check(SetOperator::Union, &[], &[], &[], Flag::DoesNotExist);
        check(SetOperator::Union, &["a"], &[], &["a"], Flag::Complete);
    }

    #[test]
    fn an_error_is_never_hidden_by_a_union() {
        let broken = Collected::nothing(Flag::Error, "no rights");
        let result = combine(SetOperator::Union, &collected(&["a"]), &broken);
        assert_eq!((result.flag, result.messages.len()), (Flag::Error, 1));
    }
}
