//! `linux:selinuxboolean`: the switches of the SELinux policy, from `/sys/fs/selinux/booleans`.

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};

use super::selinuxsecuritycontext::is_enabled;
use super::{Probe, ProbeError, finish};
use crate::host::{Host, ReadError};

pub(crate) struct SelinuxBoolean;

const BASE: &str = "/sys/fs/selinux/booleans";

impl Probe for SelinuxBoolean {
    const KIND: &'static str = "linux:selinuxboolean";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        if !is_enabled(host) {
            return Ok(Collected::nothing(Flag::NotApplicable, "SELinux is not enabled"));
        }
        let entries = match host.read_dir(BASE) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(ProbeError::Denied(BASE.to_owned()));
            }
            Err(error) => return Err(ProbeError::Broken(format!("{BASE}: {error}"))),
        };
        let mut names = Vec::new();
        let mut messages = Vec::new();
        for entry in entries.filter_map(Result::ok) {
            host.count_entry()?;
            match entry.file_name().into_string() {
                Ok(name) => names.push(name),
                Err(_) => messages = vec![format!("a name in {BASE} is not UTF-8 and cannot be reported")],
            }
        }
        names.sort_unstable();
        let mut items = Vec::new();
        for name in names {
            if query.entity("name").map_or(Ok(true), |wanted| wanted.matches(&name))? {
                items.extend(item(host, &name)?);
            }
        }
        let is_any_unnamed = !messages.is_empty();
        let mut collected = finish(items, messages);
        if is_any_unnamed {
            collected.flag = Flag::Incomplete;
        }
        Ok(collected)
    }
}

fn item(host: &Host, name: &str) -> Result<Option<Item>, ProbeError> {
    let path = format!("{BASE}/{name}");
    let problem = match host.read_text(&path) {
        Ok(text) => match states(&text) {
            Some((current, pending)) => {
                let entities = vec![
                    ItemEntity::text("name", name),
                    ItemEntity::boolean("current_status", current),
                    ItemEntity::boolean("pending_status", pending),
                ];
                return Ok(Some(Item::new(SelinuxBoolean::KIND, entities)));
            }
            None => format!("{path}: it is not two states"),
        },
        Err(ReadError::Absent) => return Ok(None),
        Err(ReadError::Denied) => return Err(ProbeError::Denied(path)),
        Err(ReadError::Cut(cut)) => return Err(cut.into()),
        Err(error) => format!("{path}: {error}"),
    };
    let mut item = Item::new(SelinuxBoolean::KIND, vec![ItemEntity::text("name", name)]);
    item.status = Status::Error;
    item.message = Some(problem);
    Ok(Some(item))
}

/// `1 0`: what it is, and what it will be after the next commit.
fn states(text: &str) -> Option<(bool, bool)> {
    let state = |text: &str| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    };
    let (current, pending) = text.trim_end_matches(['\0', '\n']).split_once(' ')?;
    Some((state(current)?, state(pending)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oval::resolve::QueryEntity;
    use proto::plan::{Check, Datatype, Operation};

    fn collect(files: &[(&str, &str)], pattern: &str) -> Collected {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join("sys/fs/selinux").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let entity = QueryEntity {
            name: "name".to_owned(),
            operation: Operation::PatternMatch,
            datatype: Datatype::String,
            values: vec![pattern.to_owned()],
            var_check: Check::All,
            is_nil: false,
        };
        let query = Query {
            kind: SelinuxBoolean::KIND.to_owned(),
            entities: vec![entity],
            behaviors: std::collections::BTreeMap::new(),
        };
        SelinuxBoolean::collect(&Host::new(root.path()), &query).unwrap_or_else(Collected::from)
    }

    #[test]
    fn a_boolean_has_a_current_and_a_pending_state() {
        let collected =
            collect(&[("enforce", "1"), ("booleans/httpd_enable_cgi", "1 0"), ("booleans/zebra", "0 0")], "^httpd");
        let [item] = collected.items.as_slice() else { panic!("{collected:?}") };
        assert_eq!((item.value("current_status"), item.value("pending_status")), (Some("true"), Some("false")));
    }

    #[test]
    fn a_boolean_that_is_none_is_an_error_beside_the_others() {
        let files = [("enforce", "1"), ("booleans/a", "0 1"), ("booleans/b", "yes"), ("booleans/c", "")];
        let collected = collect(&files, ".*");
        assert_eq!(collected.flag, Flag::Error);
        let statuses: Vec<Status> = collected.items.iter().map(|item| item.status).collect();
        assert_eq!(statuses, [Status::Exists, Status::Error, Status::Error]);
    }

    #[test]
    fn without_selinux_there_is_nothing_to_ask() {
        assert_eq!(collect(&[], ".*").flag, Flag::NotApplicable);
    }
}
