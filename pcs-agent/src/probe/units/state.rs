//! Whether a unit is enabled, as `systemctl --root=DIR is-enabled` says it: from where its file lies, from the links that
//! lead to it, and from its section `[Install]`.

use super::name;
use super::path::{ADMINISTRATOR, Entry, LoadPath, Purpose, Where};

/// What the section `[Install]` says.
#[derive(Debug, Default, Clone)]
pub(super) struct Install {
    pub(super) aliases: Vec<String>,
    pub(super) wanted_by: Vec<String>,
    pub(super) required_by: Vec<String>,
    pub(super) upheld_by: Vec<String>,
    pub(super) also: Vec<String>,
    pub(super) default_instance: Option<String>,
}

impl Install {
    fn has_rules(&self) -> bool {
        [&self.aliases, &self.wanted_by, &self.required_by, &self.upheld_by].iter().any(|list| !list.is_empty())
    }

    /// Whether a link of this name is one that enabling the unit makes.
    fn makes(&self, unit: &str, link: &str) -> bool {
        let of_default =
            self.default_instance.as_ref().filter(|_| name::is_template(unit)).map(|it| name::of_template(unit, it));
        link == unit || self.aliases.iter().any(|alias| alias == link) || of_default.is_some_and(|name| name == link)
    }
}

/// The state of a unit that was asked for by `asked`; none where it has no file, or
/// where `systemctl` gives no state.
pub(super) fn state(path: &LoadPath, asked: &str, id: &str, file: &Where, install: &Install) -> Option<&'static str> {
    let (at, place) = match file {
        Where::Nowhere => return None,
        Where::Masked(place) => return Some(if is_run_time(place) { "masked-runtime" } else { "masked" }),
        Where::Linked(place) => (None, place),
        Where::In { directory, path } => (Some(*directory), path),
    };
    let base = place.rsplit('/').next().unwrap_or(place);
    if asked != base && name::instance(id).is_none() {
        return if at.is_some() { Some("alias") } else { None };
    }
    // A link to a file of its own name that systemd would find anyhow: `systemctl` refuses it.
    if at.is_some() && matches!(path.first(base), Some((_, Entry::Link(_)))) {
        return None;
    }
    match at.map(|at| path.directories[at].purpose) {
        Some(Purpose::Generated) => return Some("generated"),
        Some(Purpose::Transient) => return Some("transient"),
        _ => {}
    }
    let links = |is_made: &dyn Fn(&str) -> bool| by_links(path, id, place, is_made);
    if let Some(state) = links(&|link| install.makes(id, link)) {
        return Some(state);
    }
    // A link that enabling would not make: somebody else's, or by another name.
    if links(&|_| true).is_some() || (!install.has_rules() && !install.also.is_empty()) {
        return Some("indirect");
    }
    Some(if install.has_rules() { "disabled" } else { "static" })
}

fn is_run_time(path: &str) -> bool {
    path.starts_with("/run/")
}

/// What the links that lead to a unit make of it. In directories that come after the unit's own file, a link of its name is
/// none: the file hides it.
fn by_links(path: &LoadPath, id: &str, file: &str, is_made: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let (mut at_run_time, mut by_vendor) = (false, false);
    let (mut same_name, mut same_name_at_run_time) = (false, false);
    let mut is_hidden = false;
    for directory in &path.directories {
        let in_folders =
            directory.folders.iter().filter(|(name, folder)| !folder.is_link && name.strip_suffix(".d").is_none());
        let is_pulled_in = in_folders.flat_map(|(_, folder)| &folder.entries).any(|(link, entry)| {
            let is_it = link == id || name::template(link).is_some_and(|template| template == id);
            matches!(entry, Entry::Link(_)) && is_it && is_made(link)
        });
        let mut is_linked = false;
        let mut has_same_name = false;
        for (link, entry) in &directory.entries {
            let Entry::Link(target) = entry else { continue };
            let is_name = link == id && !is_hidden;
            let is_target = target.rsplit('/').next() == Some(id);
            if is_name && is_target {
                has_same_name = true;
            } else if (is_name || is_target) && is_made(link) {
                is_linked = true;
            }
        }
        let is_run_time = is_run_time(directory.path);
        if is_pulled_in || is_linked {
            if directory.path == ADMINISTRATOR {
                return Some("enabled");
            }
            at_run_time |= is_run_time;
            by_vendor |= !is_run_time;
        } else if has_same_name {
            same_name |= directory.path == ADMINISTRATOR;
            same_name_at_run_time |= is_run_time;
        }
        is_hidden |= file.strip_prefix(directory.path).is_some_and(|rest| rest.starts_with('/'));
    }
    if at_run_time {
        Some("enabled-runtime")
    } else if by_vendor && name::instance(id).is_some() {
        Some("static")
    } else if same_name {
        Some("linked")
    } else {
        same_name_at_run_time.then_some("linked-runtime")
    }
}
