//! `linux:selinuxsecuritycontext`: labels of files, from the attribute `security.selinux` (links are followed), and of
//! processes, from `/proc/<pid>/attr/current`. Labels are the kernel's own, without a translation of their levels.

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::Datatype;
use rustix::io::Errno;

use super::file::flagged;
use super::files;
use super::process58::{file_of, processes};
use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host, ReadError};

pub(crate) struct SelinuxSecurityContext;

/// The largest extended attribute that Linux has.
const LABEL_BYTES_MAX: usize = 64 * 1024;

impl Probe for SelinuxSecurityContext {
    const KIND: &'static str = "linux:selinuxsecuritycontext";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        if query.entity("filepath").is_some() || query.entity("path").is_some() {
            return of_files(host, query);
        }
        if query.entity("pid").is_some() {
            return of_processes(host, query);
        }
        Ok(finish(Vec::new(), Vec::new()))
    }
}

/// Whether the kernel labels processes.
pub(super) fn is_enabled(host: &Host) -> bool {
    host.lstat("/sys/fs/selinux/enforce").is_ok()
}

/// The label of a process; none where it has none, or has ended.
pub(super) fn label_of(host: &Host, pid: u32) -> Result<Option<Vec<u8>>, ReadError> {
    match file_of(host, pid, "attr/current") {
        Err(ReadError::Io(error)) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(None),
        other => other,
    }
}

/// A label in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Context {
    user: String,
    role: String,
    /// The type.
    pub(super) domain: String,
    low: Level,
    high: Level,
}

/// A sensitivity with its categories.
#[derive(Debug, Default, PartialEq, Eq)]
struct Level {
    sensitivity: Option<String>,
    categories: Option<String>,
}

impl Level {
    fn parse(text: &str) -> Self {
        let (sensitivity, categories) = match text.split_once(':') {
            Some((sensitivity, categories)) => (sensitivity, Some(categories.to_owned())),
            None => (text, None),
        };
        Self { sensitivity: Some(sensitivity.to_owned()), categories }
    }
}

impl Context {
    /// `user:role:type`, and a range of levels after it where the policy has levels.
    pub(super) fn parse(label: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(label).ok()?.trim_end_matches(['\0', '\n']);
        if text.chars().any(char::is_control) {
            return None;
        }
        let mut parts = text.splitn(4, ':');
        let mut part =
            || parts.next().filter(|part| !part.is_empty() && !part.contains(char::is_whitespace)).map(str::to_owned);
        let (user, role, domain) = (part()?, part()?, part()?);
        let (low, high) = match parts.next() {
            None => (Level::default(), Level::default()),
            Some(range) => match range.split_once('-') {
                None => (Level::parse(range), Level::default()),
                Some((low, high)) => (Level::parse(low), Level::parse(high)),
            },
        };
        Some(Self { user, role, domain, low, high })
    }

    fn entities(&self) -> Vec<ItemEntity> {
        let mut entities = vec![
            ItemEntity::text("user", &self.user),
            ItemEntity::text("role", &self.role),
            ItemEntity::text("type", &self.domain),
        ];
        for (names, level) in [
            (["low_sensitivity", "low_category"], &self.low),
            (["high_sensitivity", "high_category"], &self.high),
            (["rawlow_sensitivity", "rawlow_category"], &self.low),
            (["rawhigh_sensitivity", "rawhigh_category"], &self.high),
        ] {
            for (name, value) in names.into_iter().zip([&level.sensitivity, &level.categories]) {
                entities.push(match value {
                    Some(value) => ItemEntity::text(name, value),
                    None => ItemEntity::without_value(name, Datatype::String, Status::DoesNotExist),
                });
            }
        }
        entities
    }
}

fn item(mut entities: Vec<ItemEntity>, label: Result<Context, String>) -> Item {
    let context = match label {
        Ok(context) => context,
        Err(message) => {
            let mut item = Item::new(SelinuxSecurityContext::KIND, entities);
            item.status = Status::Error;
            item.message = Some(message);
            return item;
        }
    };
    entities.extend(context.entities());
    Item::new(SelinuxSecurityContext::KIND, entities)
}

fn of_files(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
    let mut found = files::find(host, query)?;
    let mut items = Vec::new();
    let mut denied = Vec::new();
    let mut cut = None;
    let mut buffer = vec![0_u8; LABEL_BYTES_MAX];
    for entry in &found.entries {
        if let Err(reason) = host.count_entry() {
            cut = Some(reason);
            break;
        }
        let filepath = entry.filepath();
        // Where a mount does not answer, the answer as a whole says so.
        let Ok(located) = host.locate_followed(&filepath) else { continue };
        let label = match rustix::fs::getxattr(&located, "security.selinux", buffer.as_mut_slice()) {
            Ok(length) => {
                let label = buffer.get(..length).unwrap_or_default();
                Context::parse(label).ok_or_else(|| format!("{filepath}: its label is no SELinux context"))
            }
            Err(Errno::ACCESS | Errno::PERM) => {
                denied.push(filepath);
                continue;
            }
            // It is gone, unless it is a link that leads nowhere.
            Err(Errno::NOENT | Errno::NOTDIR) if host.lstat(&filepath).is_err() => continue,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Err(format!("{filepath}: it has no SELinux context")),
            Err(error) => Err(format!("{filepath}: {error}")),
        };
        items.push(item(entry.entities(), label));
    }
    found.denied.extend(denied);
    found.cut = found.cut.or_else(|| cut.map(|cut: Cut| cut.to_string()));
    Ok(flagged(items, found))
}

fn of_processes(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
    if !is_enabled(host) {
        return Ok(Collected::nothing(Flag::DoesNotExist, "no process has a context: SELinux is not enabled"));
    }
    let Some(pid) = query.entity("pid") else { return Ok(finish(Vec::new(), Vec::new())) };
    let mut wanted = Vec::new();
    if pid.is_nil {
        // The schema: the collector's own process.
        wanted.push(std::process::id());
    } else {
        for process in processes(host) {
            host.count_entry()?;
            if pid.matches(&process.to_string())? {
                wanted.push(process);
            }
        }
    }
    let mut items = Vec::new();
    for process in wanted {
        let path = format!("/proc/{process}/attr/current");
        let label = match label_of(host, process) {
            Ok(None) => continue,
            Ok(Some(label)) => Context::parse(&label).ok_or_else(|| format!("{path}: it is no SELinux context")),
            Err(ReadError::Cut(cut)) => return Err(cut.into()),
            Err(error) => Err(format!("{path}: {error}")),
        };
        items.push(item(vec![ItemEntity::int("pid", process)], label));
    }
    Ok(finish(items, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oval::resolve::QueryEntity;
    use proto::plan::{Check, Operation};

    fn collect(host: &Host, name: &str, operation: Operation, value: &str) -> Collected {
        let entity = QueryEntity {
            name: name.to_owned(),
            operation,
            datatype: if name == "pid" { Datatype::Int } else { Datatype::String },
            values: vec![value.to_owned()],
            var_check: Check::All,
            is_nil: false,
        };
        let query = Query {
            kind: SelinuxSecurityContext::KIND.to_owned(),
            entities: vec![entity],
            behaviors: std::collections::BTreeMap::new(),
        };
        SelinuxSecurityContext::collect(host, &query).unwrap_or_else(Collected::from)
    }

    fn tree(labels: &[(u32, &str)], is_enabled: bool) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        if is_enabled {
            write("sys/fs/selinux/enforce", "1");
        }
        write("etc/plain", "x");
        for (pid, label) in labels {
            write(&format!("proc/{pid}/attr/current"), label);
        }
        let host = Host::new(root.path());
        (root, host)
    }

    fn level(sensitivity: &str, categories: Option<&str>) -> Level {
        Level { sensitivity: Some(sensitivity.to_owned()), categories: categories.map(str::to_owned) }
    }

    #[test]
    fn a_context_has_its_parts() {
        let levels = |label: &str| Context::parse(label.as_bytes()).map(|context| (context.low, context.high));
        assert_eq!(levels("u:r:t"), Some((Level::default(), Level::default())));
        assert_eq!(levels("u:r:t:s0\0"), Some((level("s0", None), Level::default())));
        let range = "u:r:t:s0:c1,c2-s15:c0.c1023\n";
        assert_eq!(levels(range), Some((level("s0", Some("c1,c2")), level("s15", Some("c0.c1023")))));
        for broken in ["", "u", "u:r", "u::t", "u:r:t x", "unconfined", "u:r:t\0x"] {
            assert_eq!(levels(broken), None, "{broken:?}");
        }
        assert_eq!(Context::parse(b"u:r:\xff"), None);
    }

    #[test]
    fn processes_have_the_kernels_labels() {
        let (_root, host) = tree(&[(1, "system_u:system_r:init_t:s0\0"), (2, "broken")], true);
        let collected = collect(&host, "pid", Operation::GreaterThanOrEqual, "0");
        assert_eq!(collected.flag, Flag::Error);
        assert_eq!(collected.items[0].value("type"), Some("init_t"));
        assert_eq!(collected.items[0].value("rawlow_sensitivity"), Some("s0"));
        assert_eq!(collected.items[1].status, Status::Error);
        assert_eq!(collect(&host, "pid", Operation::Equals, "1").flag, Flag::Complete);
        assert_eq!(collect(&host, "pid", Operation::Equals, "7").flag, Flag::DoesNotExist);
    }

    #[test]
    fn labels_of_another_module_are_none() {
        let (_root, host) = tree(&[(1, "/usr/sbin/cupsd (enforce)")], false);
        assert_eq!(collect(&host, "pid", Operation::Equals, "1").flag, Flag::DoesNotExist);
    }

    #[test]
    fn a_file_without_a_label_is_an_error_that_names_it() {
        let (root, host) = tree(&[], true);
        // Where the tests run on a system with SELinux, every file has a label.
        let is_labelled =
            rustix::fs::getxattr(root.path().join("etc/plain"), "security.selinux", [0_u8; 256].as_mut_slice()).is_ok();
        let collected = collect(&host, "filepath", Operation::Equals, "/etc/plain");
        let [item] = collected.items.as_slice() else { panic!("{collected:?}") };
        assert_eq!(item.value("filepath"), Some("/etc/plain"));
        if !is_labelled {
            assert_eq!(item.status, Status::Error);
            assert!(item.message.as_deref().is_some_and(|message| message.contains("/etc/plain")));
        }
    }
}
