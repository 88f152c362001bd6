//! `unix:shadow`: the lines of `/etc/shadow`.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::accounts::{Fields, each_once, is_for_nis, lines, number};
use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;

pub(crate) struct Shadow;

impl Probe for Shadow {
    const KIND: &'static str = "unix:shadow";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let text = text_of(host, "/etc/shadow")?.unwrap_or_default();
        matching(each_once(lines(&text).filter_map(item)), query)
    }
}

/// An entry as getspent(3) has it.
fn item(line: &str) -> Option<Item> {
    let mut fields = Fields::of(line);
    let username = fields.text();
    // It has no password, so it is no item; `oscap` dies of it.
    if is_for_nis(username) && fields.is_at_end() {
        return None;
    }
    let password = fields.text();
    let mut entities = vec![ItemEntity::text("username", username), ItemEntity::text("password", password)];
    for name in ["chg_lst", "chg_allow", "chg_req"] {
        entities.push(ItemEntity::int(name, days(&mut fields)?));
    }
    fields.skip_blanks();
    // Lines of the old form end here.
    let is_of_old_form = fields.is_at_end();
    for name in ["exp_warn", "exp_inact", "exp_date"] {
        entities.push(ItemEntity::int(name, if is_of_old_form { -1 } else { days(&mut fields)? }));
    }
    entities.push(ItemEntity::text("flag", flag(fields.rest())?.to_string()));
    if let Some(method) = encrypt_method(password) {
        entities.push(ItemEntity::text("encrypt_method", method));
    }
    Some(Item::new(Shadow::KIND, entities))
}

/// Days: -1 where the field is empty, and what an `int` wraps to where they are more than it holds.
fn days(fields: &mut Fields<'_>) -> Option<i32> {
    fields.number_or(u32::MAX).map(u32::cast_signed)
}

/// The last field. Where it is empty, all bits are set.
fn flag(text: &str) -> Option<u64> {
    if text.is_empty() { Some(u64::MAX) } else { number(text).map(u64::from) }
}

/// `EntityItemEncryptMethodType`; hashes that it has no word for have no entity.
fn encrypt_method(password: &str) -> Option<&'static str> {
    let starts = |prefix: &str| password.starts_with(prefix);
    if starts("_") {
        Some("BSDi")
    } else if starts("$1$") {
        Some("MD5")
    } else if starts("$2$") || starts("$2a$") {
        Some("Blowfish")
    } else if starts("$5$") {
        Some("SHA-256")
    } else if starts("$6$") {
        Some("SHA-512")
    } else if starts("$md5$") {
        Some("Sun MD5")
    } else if starts("$") {
        None
    } else {
        Some("DES")
    }
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{query, tree, values};
    use super::*;

    const NAMES: [&str; 9] =
        ["username", "password", "chg_lst", "chg_allow", "chg_req", "exp_warn", "exp_inact", "exp_date", "flag"];

    fn collect(shadow: &str) -> Vec<Item> {
        let (_root, host) = tree(&[("etc/shadow", shadow)]);
        Shadow::collect(&host, &query(Shadow::KIND, Vec::new())).unwrap().items
    }

    /// The entities of the item that a line makes, with spaces between; nothing where it makes none.
    fn check(line: &str, expect: &str) {
        let items = collect(line);
        assert!(items.len() <= 1, "{line:?}: {items:?}");
        let told = items.first().map(|item| NAMES.map(|name| item.value(name).unwrap_or("(none)")).join(" "));
        assert_eq!(told.unwrap_or_default(), expect, "{line:?}");
    }

    const NO_FLAG: &str = "18446744073709551615";

    #[test]
    fn an_empty_number_is_minus_one_and_an_empty_flag_is_all_bits() {
        check("a:*:1:2:3:4:5:6:7", "a * 1 2 3 4 5 6 7");
        check("a:*:::::::", &format!("a * -1 -1 -1 -1 -1 -1 {NO_FLAG}"));
        check("a:*:1:1:1:::1", &format!("a * 1 1 1 -1 -1 1 {NO_FLAG}"));
        check("::1:1:1:1:1:1:1", "  1 1 1 1 1 1 1");
    }

    #[test]
    fn a_line_of_the_old_form_ends_after_three_numbers() {
        let old = format!("a * 1 2 3 -1 -1 -1 {NO_FLAG}");
        check("a:*:1:2:3", &old);
        check("a:*:1:2:3:", &old);
        check("a:*:1:2:3: \t\r", &old);
        check("a:*:1:2:: ", &format!("a * 1 2 -1 -1 -1 -1 {NO_FLAG}"));
        check("a:*:1:2:3:  4:5:6:7", "a * 1 2 3 4 5 6 7");
        check("a:*:1:2:3: :5:6:7", "a * 1 2 3 -1 5 6 7");
    }

    #[test]
    fn numbers_wrap_as_an_int_does() {
        let line = "a:*:2147483647:2147483648:4294967295: 4:+5:06:+8";
        check(line, "a * 2147483647 -2147483648 -1 4 5 6 8");
        check("a:*:1:1:1:1:1:1:4294967295", "a * 1 1 1 1 1 1 4294967295");
    }

    #[test]
    fn lines_that_the_c_library_passes_over_are_no_items() {
        for line in ["", "a", "a:", "a:*", "a:*:1:2", "a:*:1:2:", "a:*:1:2:3:4", "a:*:1:2:3:4:5"] {
            check(line, "");
        }
        for number in ["x", " ", "+", "1 ", "1\r", "0x1", "-5", "4294967296", "99999999999999999999"] {
            check(&format!("a:*:{number}:2:3:4:5:6:7"), "");
            check(&format!("a:*:1:2:3:4:5:6:{number}"), "");
        }
        check("a:*:1:2:3:4:5:6:7:", "");
        check("a:*:1:2:3:4:5:6:7:8", "");
        check("a:*:1:2:3\r", "");
    }

    #[test]
    fn a_line_that_is_only_a_name_of_nis_is_no_item() {
        for line in ["+", "-x", "+x:"] {
            check(line, "");
        }
        check("+x::::::::", &format!("+x  -1 -1 -1 -1 -1 -1 {NO_FLAG}"));
        check("-x::1:1:1", &format!("-x  1 1 1 -1 -1 -1 {NO_FLAG}"));
    }

    #[test]
    fn the_same_line_twice_is_one_item() {
        let items = collect(" a:*:1:2:3\n#b:*:1:2:3\na:*:1:2:3:\na:*:1:2:4\n");
        assert_eq!(values(&items, "chg_req"), ["3", "4"]);
    }

    #[test]
    fn the_method_is_told_by_the_whole_prefix() {
        let check = |password: &str, expect: Option<&str>| assert_eq!(encrypt_method(password), expect, "{password}");
        check("$md5$a", Some("Sun MD5"));
        check("$md5,rounds=1$a", None);
        check("$md5", None);
        check("$1a", None);
        check("$2$a", Some("Blowfish"));
        check("$2a$a", Some("Blowfish"));
        check("$2b$a", None);
        check("$y$a", None);
        check("_a", Some("BSDi"));
        check("", Some("DES"));
    }
}
