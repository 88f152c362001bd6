//! `unix:symlink`: where a link leads in the end.

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity};

use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct Symlink;

impl Probe for Symlink {
    const KIND: &'static str = "unix:symlink";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let mut items = Vec::new();
        let mut messages = Vec::new();
        for path in query.entity("filepath").map(|entity| entity.values.as_slice()).unwrap_or_default() {
            match host.lstat(path) {
                Ok(metadata) if metadata.is_symlink() => {}
                Ok(_) => {
                    messages.push(format!("File '{path}' is not a symlink."));
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    messages.push(format!("File '{path}' does not exist."));
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(ProbeError::Denied(path.clone()));
                }
                Err(error) => return Err(ProbeError::Broken(format!("{path}: {error}"))),
            }
            let located = host.locate_followed(path);
            let target = if host.is_live() {
                std::fs::canonicalize(&located)
            } else {
                std::fs::metadata(&located).map(|_| located)
            };
            match target {
                Ok(target) => {
                    let entities = vec![
                        ItemEntity::text("filepath", path),
                        ItemEntity::text("canonical_path", host.path_of(&target)),
                    ];
                    items.push(Item::new(Self::KIND, entities));
                }
                Err(_) => {
                    return Ok(Collected::nothing(
                        Flag::Error,
                        format!("the target of the link '{path}' does not exist, or the link leads to itself"),
                    ));
                }
            }
        }
        Ok(finish(items, messages))
    }
}
