//! `unix:shadow`: the lines of `/etc/shadow`.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;

pub(crate) struct Shadow;

impl Probe for Shadow {
    const KIND: &'static str = "unix:shadow";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let text = text_of(host, "/etc/shadow")?.unwrap_or_default();
        matching(text.lines().filter_map(item).collect(), query)
    }
}

fn item(line: &str) -> Option<Item> {
    let mut fields = line.split(':');
    let username = fields.next().filter(|name| !name.is_empty())?;
    let password = fields.next()?;
    let mut number = || fields.next().filter(|field| !field.is_empty()).unwrap_or("-1").to_owned();
    let mut entities = vec![ItemEntity::text("username", username), ItemEntity::text("password", password)];
    for name in ["chg_lst", "chg_allow", "chg_req", "exp_warn", "exp_inact", "exp_date"] {
        entities.push(ItemEntity::int(name, number()));
    }
    // An empty flag reads as all bits set, as getspent(3) has it.
    let flag = fields.next().filter(|field| !field.is_empty()).unwrap_or("18446744073709551615");
    entities.push(ItemEntity::text("flag", flag));
    if let Some(method) = encrypt_method(password) {
        entities.push(ItemEntity::text("encrypt_method", method));
    }
    Some(Item::new(Shadow::KIND, entities))
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
    } else if starts("$md5") {
        Some("Sun MD5")
    } else if starts("$") {
        None
    } else {
        Some("DES")
    }
}
