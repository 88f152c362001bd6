//! `muster:kernel-module`: the modules that are loaded, from `/proc/modules`. What is built into the kernel is none.
//! `size` is in bytes, `taint` has one letter of the kernel's a value, such as `E` for a module without a good
//! signature.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity, Status};

use super::entities::{int, text};
use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;

pub(crate) struct KernelModule;

const MODULES: &str = "/proc/modules";

impl Probe for KernelModule {
    const KIND: &'static str = "muster:kernel-module";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let modules = text_of(host, MODULES)?.unwrap_or_default();
        matching(modules.lines().filter(|line| !line.trim().is_empty()).map(item).collect(), query)
    }
}

/// `name size references users state address (taint)`; users are separated and ended by commas, or `-`.
fn item(line: &str) -> Item {
    let mut fields = line.split_whitespace();
    let (Some(name), Some(Ok(size)), Some(_), Some(users), Some(state)) =
        (fields.next(), fields.next().map(str::parse::<u64>), fields.next(), fields.next(), fields.next())
    else {
        let mut item = Item::new(KernelModule::KIND, Vec::new());
        item.status = Status::Error;
        item.message = Some(format!("{MODULES}: a line is not one of a module"));
        return item;
    };
    let taint = fields.nth(1).and_then(|field| field.strip_prefix('(')?.strip_suffix(')')).unwrap_or_default();
    let mut entities = vec![text("name", Ok(name)), int("size", Ok(size))];
    several(&mut entities, "used_by", users.split(',').filter(|user| !matches!(*user, "" | "-")).map(str::to_owned));
    entities.push(text("state", Ok(state.to_ascii_lowercase())));
    several(&mut entities, "taint", taint.chars().map(String::from));
    Item::new(KernelModule::KIND, entities)
}

fn several(entities: &mut Vec<ItemEntity>, name: &str, values: impl Iterator<Item = String>) {
    let before = entities.len();
    entities.extend(values.map(|value| ItemEntity::text(name, value)));
    if entities.len() == before {
        entities.push(text::<String>(name, Err(Status::DoesNotExist)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;
    use proto::observation::Flag;
    use proto::plan::Operation;

    const LINES: &str = "nf_tables 303104 2 nft_ct,nft_chain, Live 0xffffffffc0a00000\n\
                         vboxdrv 696320 0 - Loading 0x0000000000000000 (OE)\n";

    fn collect(modules: &str, name: &str) -> Collected {
        let (_root, host) = tree(&[("proc/modules", modules)]);
        KernelModule::collect(&host, &query(KernelModule::KIND, vec![asked("name", Operation::PatternMatch, name)]))
            .unwrap()
    }

    #[test]
    fn users_and_taints_are_values_of_their_own() {
        let items = collect(LINES, ".*").items;
        assert_eq!(values(&items, "name"), ["nf_tables", "vboxdrv"]);
        assert_eq!(values(&items, "used_by"), ["nft_ct", "nft_chain"]);
        assert_eq!(values(&items, "state"), ["live", "loading"]);
        assert_eq!(values(&items, "taint"), ["O", "E"]);
        assert_eq!(values(&items, "size"), ["303104", "696320"]);
        assert_eq!(items[1].named("used_by").next().unwrap().status, Status::DoesNotExist);
    }

    #[test]
    fn only_what_is_asked_for_is_found() {
        assert_eq!(values(&collect(LINES, "^vbox").items, "name"), ["vboxdrv"]);
        assert_eq!(collect(LINES, "^usb_storage$").flag, Flag::DoesNotExist);
        assert_eq!(collect("", ".*").flag, Flag::DoesNotExist);
    }

    #[test]
    fn a_line_that_is_none_is_an_error_and_the_others_count() {
        let collected = collect(&format!("{LINES}x y z\n"), ".*");
        assert_eq!((collected.flag, collected.items.len()), (Flag::Error, 3));
        for end in 0..LINES.len() {
            collect(&LINES[..end], ".*");
        }
    }
}
