//! What the probes of Muster's own kinds share: every entity is there, is not there, or could not be read, and says
//! which.

use proto::observation::{Collected, Flag, ItemEntity, Status};
use proto::plan::Datatype;

use super::ProbeError;
use crate::host::{Cut, Host, ReadError};

/// A value, or why there is none.
pub(super) type Known<T> = Result<T, Status>;

/// Text, or why there is none.
pub(super) fn text<T: ToString>(name: &str, known: Known<T>) -> ItemEntity {
    entity(name, Datatype::String, known)
}

/// An integer, or why there is none.
pub(super) fn int<T: ToString>(name: &str, known: Known<T>) -> ItemEntity {
    entity(name, Datatype::Int, known)
}

/// A boolean, or why there is none.
pub(super) fn boolean(name: &str, known: Known<bool>) -> ItemEntity {
    entity(name, Datatype::Boolean, known)
}

fn entity<T: ToString>(name: &str, datatype: Datatype, known: Known<T>) -> ItemEntity {
    match known {
        Ok(value) => ItemEntity::new(name, datatype, value.to_string()),
        Err(status) => ItemEntity::without_value(name, datatype, status),
    }
}

/// Text that may be empty, which is no value.
pub(super) fn not_empty(text: &str) -> Known<String> {
    if text.is_empty() { Err(Status::DoesNotExist) } else { Ok(text.to_owned()) }
}

/// The content of a small file without blanks and NUL bytes around it.
pub(super) fn text_in(host: &Host, path: &str) -> Result<Known<String>, Cut> {
    match host.read_text(path) {
        Ok(text) => Ok(not_empty(text.trim_matches(|character: char| character.is_whitespace() || character == '\0'))),
        Err(ReadError::Absent) => Ok(Err(Status::DoesNotExist)),
        Err(ReadError::Denied | ReadError::Away(_)) => Ok(Err(Status::NotCollected)),
        Err(ReadError::Cut(cut)) => Err(cut),
        Err(_) => Ok(Err(Status::Error)),
    }
}

/// What was found, with the reasons why it is not all.
pub(super) fn lacking(mut collected: Collected, errors: Vec<ProbeError>) -> Collected {
    for error in errors {
        let alone = Collected::from(error);
        collected.flag = match alone.flag {
            _ if collected.flag == Flag::Error => Flag::Error,
            Flag::Error => Flag::Error,
            Flag::NotCollected if collected.items.is_empty() => Flag::NotCollected,
            _ => Flag::Incomplete,
        };
        collected.messages.extend(alone.messages);
    }
    collected
}

/// Trees and questions for the tests of these probes.
#[cfg(test)]
pub(super) mod fixture {
    use std::collections::BTreeMap;

    use oval::resolve::{Query, QueryEntity};
    use proto::observation::Item;
    use proto::plan::{Check, Datatype, Operation};

    use crate::host::Host;

    pub(in crate::probe) fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let host = Host::new(root.path());
        (root, host)
    }

    pub(in crate::probe) fn asked(name: &str, operation: Operation, value: &str) -> QueryEntity {
        QueryEntity {
            name: name.into(),
            operation,
            datatype: Datatype::String,
            values: vec![value.into()],
            var_check: Check::All,
            is_nil: false,
        }
    }

    pub(in crate::probe) fn query(kind: &str, entities: Vec<QueryEntity>) -> Query {
        Query { kind: kind.into(), entities, behaviors: BTreeMap::new() }
    }

    /// The values of every item.
    pub(in crate::probe) fn values<'items>(items: &'items [Item], name: &str) -> Vec<&'items str> {
        let entities = items.iter().flat_map(|item| &item.entities);
        entities.filter(|entity| entity.name == name).filter_map(|entity| entity.value.as_deref()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::observation::Item;

    #[test]
    fn what_is_not_all_says_so_and_an_error_stays_one() {
        let denied = || vec![ProbeError::Denied("/etc/x".to_owned())];
        let found = |count| Collected::from_items(vec![Item::new("muster:x", Vec::new()); count]);
        assert_eq!(lacking(found(0), denied()).flag, Flag::NotCollected);
        assert_eq!(lacking(found(1), denied()).flag, Flag::Incomplete);
        assert_eq!(lacking(found(0), vec![Cut::Entries.into()]).flag, Flag::Incomplete);
        let broken = vec![ProbeError::Broken("x".to_owned()), Cut::Entries.into()];
        let both = lacking(found(1), broken);
        assert_eq!((both.flag, both.messages.len()), (Flag::Error, 2));
        assert_eq!(lacking(found(1), Vec::new()).flag, Flag::Complete);
    }

    #[test]
    fn a_file_without_text_is_no_value() {
        let (_root, host) = fixture::tree(&[("a", " x\0\n"), ("b", "\n")]);
        assert_eq!(text_in(&host, "/a").unwrap(), Ok("x".to_owned()));
        assert_eq!(text_in(&host, "/b").unwrap(), Err(Status::DoesNotExist));
        assert_eq!(text_in(&host, "/c").unwrap(), Err(Status::DoesNotExist));
    }
}
