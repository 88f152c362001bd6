//! `unix:password`: the lines of `/etc/passwd`, with the last login from `/var/log/lastlog`.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;

pub(crate) struct Password;

/// `struct lastlog`: a time of 32 bits, a line of 32 bytes, a host of 256 bytes.
const LASTLOG_BYTES: u64 = 4 + 32 + 256;

impl Probe for Password {
    const KIND: &'static str = "unix:password";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let text = text_of(host, "/etc/passwd")?.unwrap_or_default();
        let items = text.lines().filter_map(|line| item(host, line)).collect();
        matching(items, query)
    }
}

fn item(host: &Host, line: &str) -> Option<Item> {
    let fields: Vec<&str> = line.split(':').collect();
    let [username, password, user_id, group_id, gcos, home_dir, login_shell] = fields.as_slice() else { return None };
    let uid: u64 = user_id.parse().ok()?;
    group_id.parse::<u64>().ok()?;
    if username.is_empty() || username.starts_with('#') {
        return None;
    }
    let entities = vec![
        ItemEntity::text("username", *username),
        ItemEntity::text("password", *password),
        ItemEntity::int("user_id", user_id),
        ItemEntity::int("group_id", group_id),
        ItemEntity::text("gcos", *gcos),
        ItemEntity::text("home_dir", *home_dir),
        ItemEntity::text("login_shell", *login_shell),
        ItemEntity::int("last_login", last_login(host, uid)),
    ];
    Some(Item::new(Password::KIND, entities))
}

fn last_login(host: &Host, uid: u64) -> i64 {
    let mut time = [0; 4];
    let read = host.part("/var/log/lastlog", uid.saturating_mul(LASTLOG_BYTES), &mut time);
    read.map_or(-1, |()| i64::from(i32::from_le_bytes(time)))
}
