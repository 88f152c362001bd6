//! `muster:user`: the users of `/etc/passwd`, with what `/etc/shadow` says of their passwords, never a hash. Without
//! rights on it, those entities are `not collected`. Users of a directory service are not looked up. Times are in
//! seconds since the epoch, UTC, and days of the file are midnights.

use std::collections::BTreeMap;

use oval::resolve::Query;
use proto::observation::{Collected, Item, Status};

use super::entities::{Known, boolean, int, not_empty, text};
use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;

pub(crate) struct User;

const SECONDS_OF_DAY: i64 = 86_400;

/// Lines of `/etc/shadow` by name, or why there are none.
type Shadows<'text> = Known<BTreeMap<&'text str, Vec<&'text str>>>;

impl Probe for User {
    const KIND: &'static str = "muster:user";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let users = text_of(host, "/etc/passwd")?.unwrap_or_default();
        let text = match text_of(host, "/etc/shadow") {
            Ok(text) => Ok(text.unwrap_or_default()),
            Err(ProbeError::Denied(_)) => Err(Status::NotCollected),
            Err(ProbeError::Broken(_)) => Err(Status::Error),
            Err(error) => return Err(error),
        };
        let shadows: Shadows<'_> = text.as_ref().map(|text| shadows(text)).map_err(|status| *status);
        matching(users.lines().filter_map(|line| item(line, &shadows)).collect(), query)
    }
}

/// The first line of a name counts, as for the C library.
fn shadows(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut shadows = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let Some(name) = fields.first() {
            shadows.entry(*name).or_insert(fields);
        }
    }
    shadows
}

fn item(line: &str, shadows: &Shadows<'_>) -> Option<Item> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, password, user_id, group_id, gecos, home, shell] = fields.as_slice() else { return None };
    let (user_id, group_id): (u32, u32) = (user_id.parse().ok()?, group_id.parse().ok()?);
    if name.is_empty() || name.starts_with(['#', '+', '-']) {
        return None;
    }
    let shadow: Known<&Vec<&str>> = match shadows {
        Ok(shadows) => shadows.get(name).ok_or(Status::DoesNotExist),
        Err(status) => Err(*status),
    };
    // Only `x` sends a reader on to the other file.
    let password: Known<&str> = match *password {
        "x" => shadow.and_then(|fields| fields.get(1).copied().ok_or(Status::DoesNotExist)),
        own => Ok(own),
    };
    let day = |at: usize| shadow.and_then(|fields| seconds(fields.get(at).copied().unwrap_or_default()));
    let entities = vec![
        text("name", Ok(name)),
        int("user_id", Ok(user_id)),
        int("group_id", Ok(group_id)),
        text("gecos", not_empty(gecos)),
        text("home", not_empty(home)),
        text("shell", not_empty(shell)),
        boolean("is_locked", password.map(|password| password.starts_with(['!', '*']))),
        text("password_state", password.map(state)),
        int("password_changed", day(2)),
        int("expires", day(7)),
    ];
    Some(Item::new(User::KIND, entities))
}

/// What a password field means, in words.
fn state(password: &str) -> &'static str {
    let is_hash = |text: &str| {
        let is_of_des = |text: &str| {
            text.len() == 13 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'))
        };
        text.starts_with(['$', '_']) || is_of_des(text)
    };
    if password.is_empty() {
        return "empty";
    }
    match password.strip_prefix('!').map(|rest| rest.trim_start_matches('!')) {
        Some(hash) if is_hash(hash) => "locked",
        None if is_hash(password) => "set",
        _ => "none",
    }
}

/// Days as seconds; an empty field and a negative one say nothing.
fn seconds(days: &str) -> Known<i64> {
    if days.trim().is_empty() {
        return Err(Status::DoesNotExist);
    }
    let days: i64 = days.trim().parse().map_err(|_| Status::Error)?;
    if days < 0 { Err(Status::DoesNotExist) } else { days.checked_mul(SECONDS_OF_DAY).ok_or(Status::Error) }
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;
    use proto::observation::Flag;
    use proto::plan::Operation;

    fn collect(passwd: &str, shadow: &str, name: &str) -> Vec<Item> {
        let (_root, host) = tree(&[("etc/passwd", passwd), ("etc/shadow", shadow)]);
        let query = query(User::KIND, vec![asked("name", Operation::PatternMatch, name)]);
        User::collect(&host, &query).unwrap().items
    }

    fn check(password: &str, expect: (&str, &str)) {
        let shadow = format!("ann:{password}:19700:0:99999:7:::\nann:other:1::::::\n");
        let items = collect("ann:x:1000:1000:Ann,,,:/home/ann:/bin/bash\n", &shadow, "^ann$");
        let [item] = &items[..] else { panic!("{items:?}") };
        assert_eq!((item.value("password_state"), item.value("is_locked")), (Some(expect.0), Some(expect.1)));
        assert!(password.is_empty() || !format!("{item:?}").contains(&format!("{password:?}")), "{item:?}");
    }

    #[test]
    fn a_password_is_told_by_its_state_and_never_by_its_hash() {
        check("$y$j9T$salt$hash", ("set", "false"));
        check("abJnggxhB/yWI", ("set", "false"));
        check("!$6$salt$hash", ("locked", "true"));
        check("!!$6$salt$hash", ("locked", "true"));
        check("!", ("none", "true"));
        check("!!", ("none", "true"));
        check("*", ("none", "true"));
        check("NP", ("none", "false"));
        check("", ("empty", "false"));
    }

    #[test]
    fn days_are_midnights_and_no_day_is_no_time() {
        let shadow = "ann:*:19700:0:99999:7::20000:\nbob:*:0::::::\neve:*:many:::::99999999999999999:\n";
        let passwd = "ann:x:1:1:::\nbob:x:2:2:::\neve:x:3:3:::\n";
        let items = collect(passwd, shadow, ".*");
        assert_eq!(values(&items, "password_changed"), ["1702080000", "0"]);
        assert_eq!(values(&items, "expires"), ["1728000000"]);
        let status = |item: &Item, name: &str| item.named(name).next().map(|entity| entity.status);
        assert_eq!(status(&items[1], "expires"), Some(Status::DoesNotExist));
        assert_eq!(status(&items[2], "password_changed"), Some(Status::Error));
        assert_eq!(status(&items[2], "expires"), Some(Status::Error));
        assert_eq!(seconds("-1"), Err(Status::DoesNotExist));
    }

    #[test]
    fn a_user_without_a_shadow_is_known_as_far_as_it_goes() {
        let items = collect("ann:x:1:1:::\nbob::2:2:Bob:/:/bin/sh\n", "", ".*");
        assert_eq!(items[0].named("is_locked").next().unwrap().status, Status::DoesNotExist);
        assert_eq!(items[1].value("password_state"), Some("empty"));
        assert_eq!((items[1].value("gecos"), items[1].value("shell")), (Some("Bob"), Some("/bin/sh")));
    }

    #[test]
    fn lines_that_are_no_users_do_not_count() {
        let passwd = "\n# a:x:1:1:::\n+::::::\nbad:x:many:1:::\nshort:x:1\nlong:x:1:1::::more\nok:x:1:1:::\n";
        assert_eq!(values(&collect(passwd, "", ".*"), "name"), ["ok"]);
        let (_root, host) = tree(&[]);
        assert_eq!(User::collect(&host, &query(User::KIND, Vec::new())).unwrap().flag, Flag::DoesNotExist);
    }
}
