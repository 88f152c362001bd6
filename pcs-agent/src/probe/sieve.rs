//! The filters of an object over files, applied while walking: what they are certain to drop never becomes an item.
//!
//! Only what a file's mode, owner and path decide is decided here; everything else is left to the filters themselves.

use std::cell::RefCell;
use std::collections::BTreeMap;

use oval::check::{self, Truth};
use oval::resolve::{QueryEntity, QueryFilter};
use proto::plan::{FilterAction, Operator};

use super::tree::Seen;

/// The filters of one object.
#[derive(Debug)]
pub(super) struct Sieve<'query> {
    filters: Vec<Filter<'query>>,
}

#[derive(Debug)]
struct Filter<'query> {
    action: FilterAction,
    operator: Operator,
    entities: Vec<Entity<'query>>,
}

#[derive(Debug)]
enum Entity<'query> {
    /// Compared once for each value that there is.
    Of(Field, &'query QueryEntity, RefCell<BTreeMap<u32, Truth>>),
    Path(Part, &'query QueryEntity),
    Undecided,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Type,
    UserId,
    GroupId,
    Bit(u32),
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Filepath,
    Path,
    Filename,
}

/// The permissions of `unix:file` items.
pub(super) const MODE_BITS: [(&str, u32); 12] = [
    ("suid", 0o4000),
    ("sgid", 0o2000),
    ("sticky", 0o1000),
    ("uread", 0o400),
    ("uwrite", 0o200),
    ("uexec", 0o100),
    ("gread", 0o040),
    ("gwrite", 0o020),
    ("gexec", 0o010),
    ("oread", 0o004),
    ("owrite", 0o002),
    ("oexec", 0o001),
];

/// The type of a file in the words of `unix:file` items.
pub(super) fn type_name(mode: u32) -> &'static str {
    match mode & 0o170_000 {
        0o100_000 => "regular",
        0o040_000 => "directory",
        0o120_000 => "symbolic link",
        0o060_000 => "block special",
        0o020_000 => "character special",
        0o010_000 => "fifo",
        _ => "socket",
    }
}

impl<'query> Sieve<'query> {
    pub(super) fn of(filters: &'query [QueryFilter]) -> Self {
        let filters = filters.iter().map(|filter| Filter {
            action: filter.action,
            operator: filter.operator,
            entities: filter.entities.iter().map(|entity| Entity::of(entity.as_ref())).collect(),
        });
        Self { filters: filters.collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether the filters may keep this file; the name is none for a directory as such.
    pub(super) fn may_keep(&self, seen: Seen, path: &str, filename: Option<&str>) -> bool {
        for filter in &self.filters {
            let is_kept = match filter.truth(seen, path, filename) {
                Truth::True => filter.action == FilterAction::Include,
                Truth::False => filter.action == FilterAction::Exclude,
                // Not decided here, and so nothing behind it.
                _ => return true,
            };
            if !is_kept {
                return false;
            }
        }
        true
    }
}

impl Filter<'_> {
    fn truth(&self, seen: Seen, path: &str, filename: Option<&str>) -> Truth {
        // What costs nothing first: a path is made and compared only if it still counts.
        let cheap = self.entities.iter().map(|entity| match entity {
            Entity::Of(field, wanted, known) => of_field(*field, wanted, known, seen),
            Entity::Path(..) | Entity::Undecided => Truth::Unknown,
        });
        let truth = check::operator(self.operator, cheap);
        if matches!(truth, Truth::True | Truth::False)
            || !self.entities.iter().any(|entity| matches!(entity, Entity::Path(..)))
        {
            return truth;
        }
        let all = self.entities.iter().map(|entity| match entity {
            Entity::Of(field, wanted, known) => of_field(*field, wanted, known, seen),
            Entity::Path(part, wanted) => of_path(*part, wanted, path, filename),
            Entity::Undecided => Truth::Unknown,
        });
        check::operator(self.operator, all)
    }
}

fn of_field(field: Field, wanted: &QueryEntity, known: &RefCell<BTreeMap<u32, Truth>>, seen: Seen) -> Truth {
    let value = match field {
        Field::Type => seen.mode & 0o170_000,
        Field::UserId => seen.user_id,
        Field::GroupId => seen.group_id,
        Field::Bit(bit) => seen.mode & bit,
    };
    let compared = || match field {
        Field::Type => wanted.truth(type_name(value)),
        Field::UserId | Field::GroupId => wanted.truth(&value.to_string()),
        Field::Bit(_) => wanted.truth(if value == 0 { "false" } else { "true" }),
    };
    *known.borrow_mut().entry(value).or_insert_with(compared)
}

fn of_path(part: Part, wanted: &QueryEntity, path: &str, filename: Option<&str>) -> Truth {
    match (part, filename) {
        (Part::Path, _) => wanted.truth(path),
        (Part::Filename, name) => wanted.truth(name.unwrap_or_default()),
        (Part::Filepath, Some(name)) => wanted.truth(&super::files::joined(path, name)),
        // An item of a directory has no such entity.
        (Part::Filepath, None) => Truth::Unknown,
    }
}

impl<'query> Entity<'query> {
    fn of(entity: Option<&'query QueryEntity>) -> Self {
        let Some(entity) = entity else { return Self::Undecided };
        let field = match entity.name.as_str() {
            "type" => Field::Type,
            "user_id" => Field::UserId,
            "group_id" => Field::GroupId,
            "filepath" => return Self::Path(Part::Filepath, entity),
            "path" => return Self::Path(Part::Path, entity),
            "filename" => return Self::Path(Part::Filename, entity),
            name => match MODE_BITS.iter().find(|(bit, _)| *bit == name) {
                Some((_, bit)) => Field::Bit(*bit),
                None => return Self::Undecided,
            },
        };
        Self::Of(field, entity, RefCell::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::plan::{Check, Datatype, Operation};

    fn entity(name: &str, operation: Operation, datatype: Datatype, values: &[&str]) -> QueryEntity {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let (name, var_check) = (name.to_owned(), Check::AtLeastOne);
        QueryEntity { name, operation, datatype, values, var_check, is_nil: false }
    }

    fn check(action: FilterAction, operator: Operator, entities: Vec<Option<QueryEntity>>, expect: [bool; 3]) {
        let filters = [QueryFilter { action, operator, entities }];
        let sieve = Sieve::of(&filters);
        let file = |mode, user_id| Seen { mode, user_id, group_id: 0 };
        let kept = [
            sieve.may_keep(file(0o100_666, 0), "/tmp", Some("x")),
            sieve.may_keep(file(0o100_600, 7), "/tmp", Some("x")),
            sieve.may_keep(file(0o041_777, 0), "/tmp", None),
        ];
        assert_eq!(kept, expect);
    }

    #[test]
    fn what_mode_owner_and_path_decide_is_decided() {
        use FilterAction::{Exclude, Include};
        use Operation::{Equals, NotEqual, PatternMatch};
        let writable = || Some(entity("owrite", Equals, Datatype::Boolean, &["true"]));
        let regular = || Some(entity("type", Equals, Datatype::String, &["regular"]));
        check(Include, Operator::And, vec![writable(), regular()], [true, false, false]);
        check(Exclude, Operator::And, vec![writable(), regular()], [false, true, true]);
        check(Include, Operator::Or, vec![writable(), regular()], [true, true, true]);
        let known = || Some(entity("user_id", Equals, Datatype::Int, &["0", "1"]));
        check(Exclude, Operator::And, vec![known()], [false, true, false]);
        let below = || Some(entity("filepath", PatternMatch, Datatype::String, &["^/tmp/"]));
        check(Exclude, Operator::And, vec![below()], [false, false, true]);
        check(Include, Operator::And, vec![regular(), below()], [true, true, false]);
        check(
            Include,
            Operator::And,
            vec![Some(entity("filename", NotEqual, Datatype::String, &["x"]))],
            [false, false, true],
        );
    }

    #[test]
    fn what_is_not_decided_here_is_kept_for_the_filter() {
        use FilterAction::{Exclude, Include};
        let size = || Some(entity("size", Operation::Equals, Datatype::Int, &["0"]));
        let writable = || Some(entity("owrite", Operation::Equals, Datatype::Boolean, &["true"]));
        check(Include, Operator::And, vec![size()], [true; 3]);
        check(Exclude, Operator::And, vec![None], [true; 3]);
        // What one entity decides is decided, whatever the other one is.
        check(Include, Operator::And, vec![size(), writable()], [true, false, true]);
        check(Exclude, Operator::Or, vec![size(), writable()], [false, true, false]);
        // A value that cannot be compared makes the filter an error, which is for the filter to say.
        check(
            Include,
            Operator::And,
            vec![Some(entity("user_id", Operation::Equals, Datatype::Int, &["many"]))],
            [true; 3],
        );
    }

    #[test]
    fn a_filter_behind_one_that_is_not_decided_does_not_count_yet() {
        let filter = |action, name: &str, value: &str| QueryFilter {
            action,
            operator: Operator::And,
            entities: vec![Some(entity(name, Operation::Equals, Datatype::Int, &[value]))],
        };
        let filters = [filter(FilterAction::Include, "size", "0"), filter(FilterAction::Exclude, "user_id", "0")];
        let seen = Seen { mode: 0o100_644, user_id: 0, group_id: 0 };
        assert!(Sieve::of(&filters).may_keep(seen, "/", Some("x")));
        assert!(!Sieve::of(&filters[1..]).may_keep(seen, "/", Some("x")));
    }
}
