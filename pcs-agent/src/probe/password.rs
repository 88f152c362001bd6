//! `unix:password`: the lines of `/etc/passwd`, with the last login from `/var/log/lastlog`.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::accounts::{Fields, each_once, is_for_nis, lines};
use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;

pub(crate) struct Password;

/// `struct lastlog`: a time of 32 bits, a line of 32 bytes, a host of 256 bytes.
const LASTLOG_BYTES: usize = 4 + 32 + 256;

impl Probe for Password {
    const KIND: &'static str = "unix:password";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let text = text_of(host, "/etc/passwd")?.unwrap_or_default();
        matching(each_once(lines(&text).filter_map(|line| item(host, line))), query)
    }
}

/// An entry as getpwent(3) has it.
fn item(host: &Host, line: &str) -> Option<Item> {
    let mut fields = Fields::of(line);
    let username = fields.text();
    let is_for_nis = is_for_nis(username);
    if is_for_nis && fields.is_at_end() {
        return Some(name_of_nis(host, username));
    }
    let password = fields.text();
    let mut id = || if is_for_nis { fields.number_or(0) } else { fields.number() };
    let (user_id, group_id) = (id()?, id()?);
    let entities = vec![
        ItemEntity::text("username", username),
        ItemEntity::text("password", password),
        ItemEntity::int("user_id", user_id),
        ItemEntity::int("group_id", group_id),
        ItemEntity::text("gcos", fields.text()),
        ItemEntity::text("home_dir", fields.text()),
        ItemEntity::text("login_shell", fields.rest()),
        ItemEntity::int("last_login", last_login(host, user_id)),
    ];
    Some(Item::new(Password::KIND, entities))
}

/// A line that is only a name: its ids are 0, and it has no texts, not even empty ones.
fn name_of_nis(host: &Host, username: &str) -> Item {
    let entities = vec![
        ItemEntity::text("username", username),
        ItemEntity::int("user_id", 0),
        ItemEntity::int("group_id", 0),
        ItemEntity::int("last_login", last_login(host, 0)),
    ];
    Item::new(Password::KIND, entities)
}

/// An entry that the end of the file cuts is none.
fn last_login(host: &Host, user_id: u32) -> i64 {
    let mut entry = [0_u8; LASTLOG_BYTES];
    let read = host.part("/var/log/lastlog", u64::from(user_id) * LASTLOG_BYTES as u64, &mut entry);
    let [first, second, third, fourth, ..] = entry;
    read.map_or(-1, |()| i64::from(i32::from_le_bytes([first, second, third, fourth])))
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{query, tree, values};
    use super::*;

    const NAMES: [&str; 7] = ["username", "password", "user_id", "group_id", "gcos", "home_dir", "login_shell"];

    fn collect(passwd: &str) -> Vec<Item> {
        let (_root, host) = tree(&[("etc/passwd", passwd)]);
        Password::collect(&host, &query(Password::KIND, Vec::new())).unwrap().items
    }

    /// The entities of the item that a line makes, with bars between; nothing where it makes none.
    fn check(line: &str, expect: &str) {
        let items = collect(line);
        assert!(items.len() <= 1, "{line:?}: {items:?}");
        let told = items.first().map(|item| NAMES.map(|name| item.value(name).unwrap_or("(none)")).join("|"));
        assert_eq!(told.unwrap_or_default(), expect, "{line:?}");
    }

    #[test]
    fn fields_from_gcos_on_may_be_missing_and_the_shell_is_the_rest() {
        check("a:x:1:2:g:/h:/s", "a|x|1|2|g|/h|/s");
        check("a:x:1:2", "a|x|1|2|||");
        check("a:x:1:2:g", "a|x|1|2|g||");
        check("a:x:1:2:g:/h", "a|x|1|2|g|/h|");
        check("a:x:1:2:g:/h:/s:more::", "a|x|1|2|g|/h|/s:more::");
        check("a:x:1:2:g:/h:/s\r", "a|x|1|2|g|/h|/s\r");
        check("a:x:1:2:g:/h\0x:/s", "a|x|1|2|g|/h|");
        check(" a :x:1:2:g:/h:/s", "a |x|1|2|g|/h|/s");
        check(":x:1:2:g:/h:/s", "|x|1|2|g|/h|/s");
    }

    #[test]
    fn ids_are_what_strtoul_takes_and_other_lines_are_no_items() {
        check("a:x: +4:\t010:::", "a|x|4|10|||");
        check("a:x:4294967295:-18446744073709551615:::", "a|x|4294967295|1|||");
        for id in ["", " ", "x", "1 ", "1\r", "0x1", "-1", "4294967296"] {
            check(&format!("a:x:{id}:1:g:/h:/s"), "");
            check(&format!("a:x:1:{id}:g:/h:/s"), "");
        }
        for line in ["a", "a:", "a:x", "a:x:1", "a:x:1:", "#a:x:1:2:::", " # a:x:1:2:::"] {
            check(line, "");
        }
    }

    #[test]
    fn a_line_of_nis_may_be_only_a_name_and_leave_its_ids_empty() {
        for name in ["+", "+x", "-x", "- "] {
            let told = format!("{name}|(none)|0|0|(none)|(none)|(none)");
            check(name, &told);
            check(&format!("  {name}:"), &told);
        }
        check("+x::::::", "+x||0|0|||");
        check("-x:y::2:g:/h", "-x|y|0|2|g|/h|");
        check("+x:y:1:2:g:/h:/s", "+x|y|1|2|g|/h|/s");
        for line in ["+x::", "+x:::", "+x::1", "+x::1:", "+x:y:q:2:g", "+x:y:+::", "+x:y:-1:::"] {
            check(line, "");
        }
    }

    #[test]
    fn the_same_line_twice_is_one_item() {
        let items = collect("a:x:1:2\na:x:1:3\n\na:x:01:2:::\n+x\n+x:\n");
        assert_eq!(values(&items, "group_id"), ["2", "3", "0"]);
    }

    #[test]
    fn a_last_login_is_read_from_a_whole_entry() {
        let (root, host) = tree(&[("etc/passwd", "a:x:0:1\nb:x:1:1\nc:x:4294967295:1\n+d\n"), ("var/log/lastlog", "")]);
        let mut entries = vec![0_u8; LASTLOG_BYTES];
        entries[..4].copy_from_slice(&(-7_i32).to_le_bytes());
        entries.extend(99_i32.to_le_bytes());
        std::fs::write(root.path().join("var/log/lastlog"), entries).unwrap();
        let items = Password::collect(&host, &query(Password::KIND, Vec::new())).unwrap().items;
        assert_eq!(values(&items, "last_login"), ["-7", "-1", "-1", "-7"]);
    }
}
