//! `muster:group`: the groups of `/etc/group`, with the members that are named there: as for `getent group`, a user is
//! no member by its own group alone. Groups of a directory service are not looked up.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity, Status};

use super::entities::{int, text};
use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;

pub(crate) struct Group;

impl Probe for Group {
    const KIND: &'static str = "muster:group";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let groups = text_of(host, "/etc/group")?.unwrap_or_default();
        matching(groups.lines().filter_map(item).collect(), query)
    }
}

/// Lines that the C library would pass over are no groups, nor are those that stand for a directory's (`+`, `-`).
fn item(line: &str) -> Option<Item> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, group_id, members] = fields.as_slice() else { return None };
    let group_id: u32 = group_id.parse().ok()?;
    if name.is_empty() || name.starts_with(['#', '+', '-']) {
        return None;
    }
    let mut entities = vec![text("name", Ok(name)), int("group_id", Ok(group_id))];
    let members = members.split(',').map(str::trim).filter(|member| !member.is_empty());
    entities.extend(members.map(|member| ItemEntity::text("member", member)));
    if entities.len() == 2 {
        entities.push(text::<String>("member", Err(Status::DoesNotExist)));
    }
    Some(Item::new(Group::KIND, entities))
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;
    use proto::observation::Flag;
    use proto::plan::Operation;

    fn collect(groups: &str, name: &str) -> Collected {
        let (_root, host) = tree(&[("etc/group", groups)]);
        Group::collect(&host, &query(Group::KIND, vec![asked("name", Operation::PatternMatch, name)])).unwrap()
    }

    const LINES: &str = "root:x:0:\n# x:x:1:\nsudo:x:27:ann,bob,\n+:::\nbroken:x:many:ann\n";

    #[test]
    fn members_are_values_of_their_own() {
        let items = collect(LINES, ".*").items;
        assert_eq!(values(&items, "name"), ["root", "sudo"]);
        assert_eq!(values(&items, "group_id"), ["0", "27"]);
        assert_eq!(values(&items, "member"), ["ann", "bob"]);
        assert_eq!(items[0].named("member").next().unwrap().status, Status::DoesNotExist);
    }

    #[test]
    fn only_what_is_asked_for_is_found() {
        assert_eq!(values(&collect(LINES, "^sudo$").items, "group_id"), ["27"]);
        assert_eq!(collect(LINES, "^wheel$").flag, Flag::DoesNotExist);
        assert_eq!(collect("", ".*").flag, Flag::DoesNotExist);
    }
}
