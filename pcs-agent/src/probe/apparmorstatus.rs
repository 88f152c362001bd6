//! `linux:apparmorstatus`: how many profiles AppArmor has and how many processes they confine, counted as `aa-status`
//! does, from `/sys/kernel/security/apparmor/profiles` and `/proc/<pid>/attr`. `oscap` 1.3.7 has no such probe.

use std::collections::BTreeSet;

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity};

use super::process58::{file_of, processes};
use super::{Probe, ProbeError, finish, text_of};
use crate::host::{Host, ReadError};

pub(crate) struct AppArmorStatus;

const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

impl Probe for AppArmorStatus {
    const KIND: &'static str = "linux:apparmorstatus";

    fn collect(host: &Host, _query: &Query) -> Result<Collected, ProbeError> {
        let Some(text) = text_of(host, PROFILES)? else {
            if text_of(host, ENABLED)?.is_some_and(|enabled| enabled.starts_with('Y')) {
                let problem =
                    format!("{PROFILES}: it is not there, and AppArmor is enabled: securityfs is not mounted");
                return Err(ProbeError::Broken(problem));
            }
            return Ok(Collected::nothing(Flag::NotApplicable, "AppArmor is not enabled"));
        };
        let mut profiles = Counts::default();
        let mut names = BTreeSet::new();
        for line in text.lines() {
            host.count_entry()?;
            let Some((name, mode)) = moded(line) else {
                return Err(ProbeError::Broken(format!("{PROFILES}: a line is no profile with its mode")));
            };
            profiles.count(mode);
            names.insert(name);
        }
        let mut confined = Counts::default();
        for pid in processes(host) {
            host.count_entry()?;
            let Some(label) = label_of(host, pid)? else { continue };
            match moded(&label) {
                Some((_, mode)) => confined.count(mode),
                // Not confined, here or in a namespace, though a profile may be named after its program.
                None if label == "unconfined" || label.ends_with(":unconfined") => {
                    if program_of(host, pid)?.is_some_and(|program| names.contains(program.as_str())) {
                        confined.count("unconfined");
                    }
                }
                None => {
                    return Err(ProbeError::Broken(format!("/proc/{pid}/attr/current: it is no label of AppArmor")));
                }
            }
        }
        let entities = vec![
            ItemEntity::int("loaded_profiles_count", profiles.all),
            ItemEntity::int("enforce_mode_profiles_count", profiles.enforce),
            ItemEntity::int("complain_mode_profiles_count", profiles.complain),
            ItemEntity::int("processes_with_profiles_count", confined.all),
            ItemEntity::int("enforce_mode_processes_count", confined.enforce),
            ItemEntity::int("complain_mode_processes_count", confined.complain),
            ItemEntity::int("unconfined_processes_with_profiles_count", confined.unconfined),
        ];
        Ok(finish(vec![Item::new(Self::KIND, entities)], Vec::new()))
    }
}

#[derive(Debug, Default)]
struct Counts {
    all: u64,
    enforce: u64,
    complain: u64,
    unconfined: u64,
}

impl Counts {
    fn count(&mut self, mode: &str) {
        self.all = self.all.saturating_add(1);
        let counter = match mode {
            "enforce" => &mut self.enforce,
            "complain" => &mut self.complain,
            "unconfined" => &mut self.unconfined,
            _ => return,
        };
        *counter = counter.saturating_add(1);
    }
}

/// `name (mode)`: names may have spaces and brackets too.
fn moded(text: &str) -> Option<(&str, &str)> {
    let (name, mode) = text.strip_suffix(')')?.rsplit_once(" (")?;
    (!name.is_empty()).then_some((name, mode))
}

/// The label of a process; none where it has ended, or its label is of no module.
fn label_of(host: &Host, pid: u32) -> Result<Option<String>, ProbeError> {
    // The first one is AppArmor's own; before Linux 5.8 there is only the second.
    for name in ["attr/apparmor/current", "attr/current"] {
        match file_of(host, pid, name) {
            Ok(Some(label)) => {
                let label = String::from_utf8_lossy(&label).trim_end_matches(['\0', '\n']).to_owned();
                return Ok((!label.is_empty()).then_some(label));
            }
            Ok(None) => {}
            Err(ReadError::Cut(cut)) => return Err(cut.into()),
            Err(ReadError::Denied) => return Err(ProbeError::Denied(format!("/proc/{pid}/{name}"))),
            Err(ReadError::Io(error)) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {}
            Err(error) => return Err(ProbeError::Broken(format!("/proc/{pid}/{name}: {error}"))),
        }
    }
    Ok(None)
}

/// The path of a process's program; threads of the kernel have none.
fn program_of(host: &Host, pid: u32) -> Result<Option<String>, ProbeError> {
    let link = format!("/proc/{pid}/exe");
    match host.read_link(&link) {
        Ok(program) => Ok(program.into_os_string().into_string().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(ProbeError::Denied(link)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    const TABLE: &str = "/usr/sbin/cupsd (enforce)\n/usr/bin/man (enforce)\nman (x) y (complain)\n\
                         /usr/sbin/idle (complain)\nflatpak (unconfined)\nbad (kill)\n";

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn collect(build: impl Fn(&Path)) -> Collected {
        let root = tempfile::tempdir().unwrap();
        build(root.path());
        let query = Query {
            kind: AppArmorStatus::KIND.to_owned(),
            entities: Vec::new(),
            behaviors: std::collections::BTreeMap::new(),
        };
        AppArmorStatus::collect(&Host::new(root.path()), &query).unwrap_or_else(Collected::from)
    }

    fn process(root: &Path, pid: u32, attribute: &str, label: &str, program: &str) {
        write(root, &format!("proc/{pid}/{attribute}"), label);
        symlink(program, root.join(format!("proc/{pid}/exe"))).unwrap();
    }

    #[test]
    fn profiles_and_processes_are_counted_by_their_modes() {
        let collected = collect(|root| {
            write(root, &PROFILES[1..], TABLE);
            process(root, 1, "attr/current", "unconfined\n", "/sbin/init");
            process(root, 2, "attr/apparmor/current", "/usr/sbin/cupsd (enforce)\n", "/usr/sbin/cupsd");
            process(root, 3, "attr/current", "man (x) y (complain)", "/usr/bin/man");
            process(root, 4, "attr/current", "unconfined\n", "/usr/sbin/idle");
            process(root, 5, "attr/current", "flatpak (unconfined)\n", "/usr/bin/flatpak");
            process(root, 6, "attr/current", "", "/usr/bin/none");
        });
        let [item] = collected.items.as_slice() else { panic!("{collected:?}") };
        let values: Vec<_> = item.entities.iter().filter_map(|entity| entity.value.as_deref()).collect();
        assert_eq!(values, ["6", "2", "2", "4", "1", "1", "2"]);
    }

    #[test]
    fn without_apparmor_the_question_makes_no_sense() {
        assert_eq!(collect(|_| {}).flag, Flag::NotApplicable);
        assert_eq!(collect(|root| write(root, &ENABLED[1..], "N\n")).flag, Flag::NotApplicable);
        assert_eq!(collect(|root| write(root, &ENABLED[1..], "Y\n")).flag, Flag::Error);
    }

    #[test]
    fn what_is_no_profile_is_an_error_and_no_count() {
        let check = |table: &str, label: &str| {
            let collected = collect(|root| {
                write(root, &PROFILES[1..], table);
                process(root, 1, "attr/current", label, "/sbin/init");
            });
            assert_eq!((collected.flag, collected.items.len()), (Flag::Error, 0), "{table:?} {label:?}");
        };
        check("/usr/sbin/cupsd\n", "unconfined");
        check("(enforce)\n", "unconfined");
        check(TABLE, "system_u:system_r:init_t:s0");
    }

    #[test]
    fn damaged_tables_never_panic() {
        for end in 0..TABLE.len() {
            collect(|root| write(root, &PROFILES[1..], &TABLE[..end]));
        }
    }
}
