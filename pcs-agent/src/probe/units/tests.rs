//! Trees of unit files, and what is said of them.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item};
use proto::plan::Operation;

use super::super::entities::fixture::{asked, query, values};
use super::super::systemdunitdependency::SystemdUnitDependency;
use super::super::systemdunitproperty::SystemdUnitProperty;
use super::super::{Probe, kinds};
use super::*;
use crate::limits::{UNIT_FILE_BYTES_MAX, UNITS_MAX};

const SERVICE: &str = "[Service]\nExecStart=/bin/true\n";

struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("usr/lib/systemd/system")).unwrap();
        Self { root }
    }

    fn place(&self, path: &str) -> std::path::PathBuf {
        let path = match path.strip_prefix('/') {
            Some(whole) => self.root.path().join(whole),
            None => self.root.path().join("usr/lib/systemd/system").join(path),
        };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// A file: below the packages' directory unless its path is absolute.
    fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.place(path), content).unwrap();
        self
    }

    fn link(self, path: &str, target: &str) -> Self {
        symlink(target, self.place(path)).unwrap();
        self
    }

    fn host(&self) -> Host {
        Host::new(self.root.path())
    }

    fn ask<P: Probe>(&self, query: &Query) -> Collected {
        P::collect(&self.host(), query).unwrap_or_else(Collected::from)
    }

    fn units(&self) -> Vec<String> {
        Units::of(&self.host()).unwrap().units(&self.host()).unwrap().to_vec()
    }

    fn property(&self, unit: &str, property: &str) -> Property {
        let host = self.host();
        let properties = Units::of(&host).unwrap().properties(&host, unit).unwrap();
        properties.get(property).unwrap_or_else(|| panic!("no {property}")).clone()
    }

    #[track_caller]
    fn check(&self, unit: &str, property: &str, wanted: &[&str]) {
        assert_eq!(self.property(unit, property).values, wanted, "{property} of {unit}");
    }

    #[track_caller]
    fn check_state(&self, unit: &str, load: &str, state: &str) {
        self.check(unit, "LoadState", &[load]);
        self.check(unit, "UnitFileState", &[state]);
    }
}

fn of_property(unit: &str, property: &str) -> Query {
    let entities = vec![asked("unit", Operation::PatternMatch, unit), asked("property", Operation::Equals, property)];
    query(SystemdUnitProperty::KIND, entities)
}

fn statuses(item: &Item, name: &str) -> Vec<Status> {
    item.named(name).map(|entity| entity.status).collect()
}

#[test]
fn the_first_directory_wins() {
    let tree = Tree::new()
        .file("a.service", "[Unit]\nDescription=packaged\n")
        .file("/usr/local/lib/systemd/system/a.service", "[Unit]\nDescription=local\n")
        .file("b.service", "[Unit]\nDescription=packaged\n")
        .file("/etc/systemd/system/b.service", "[Unit]\nDescription=ours\n")
        .file("/run/systemd/system/b.service", "[Unit]\nDescription=until boot\n");
    tree.check("a.service", "Description", &["local"]);
    tree.check("b.service", "Description", &["ours"]);
    tree.check("b.service", "FragmentPath", &["/etc/systemd/system/b.service"]);
    tree.check("b.service", "Id", &["b.service"]);
}

#[test]
fn one_directory_by_two_names_does_not_say_by_which_of_them() {
    let tree = Tree::new().file("a.service", SERVICE).file("a.service.d/x.conf", "").link("/lib", "usr/lib");
    let tree = tree.file("a.service.d/y.conf", "[Unit]\n");
    tree.check_state("a.service", "loaded", "static");
    assert_eq!(tree.property("a.service", "FragmentPath"), Property::unknown());
    assert_eq!(tree.property("a.service", "DropInPaths"), Property::unknown());
}

#[test]
fn what_is_masked_is_not_loaded() {
    let tree = Tree::new()
        .file("a.service", SERVICE)
        .link("/etc/systemd/system/a.service", "/dev/null")
        .link("/etc/systemd/system/relative.service", "../../../dev/null")
        .file("/run/systemd/system/b.service", "")
        .link("c.service", "b.service")
        .file("/empty", "")
        .link("d.timer", "/empty");
    for (unit, state) in [
        ("a.service", "masked"),
        ("relative.service", "masked"),
        ("b.service", "masked-runtime"),
        ("c.service", "masked-runtime"),
        ("d.timer", "masked"),
    ] {
        tree.check_state(unit, "masked", state);
    }
    assert_eq!(tree.property("a.service", "Requires"), Property::whole(Vec::new()));
    assert!(!tree.property("a.service", "ActiveState").is_whole);
}

#[test]
fn an_alias_is_another_name_and_no_unit() {
    let tree = Tree::new()
        .file("ssh.service", format!("{SERVICE}[Install]\nAlias=sshd.service\nWantedBy=multi-user.target\n"))
        .link("/etc/systemd/system/sshd.service", "/usr/lib/systemd/system/ssh.service")
        .link("other.service", "ssh.service")
        .link("wrong.socket", "ssh.service")
        .link("loop.service", "pool.service")
        .link("pool.service", "loop.service")
        .link("dangling.service", "gone.service");
    tree.check("ssh.service", "Names", &["other.service", "ssh.service", "sshd.service"]);
    tree.check_state("sshd.service", "loaded", "enabled");
    tree.check("other.service", "Id", &["ssh.service"]);
    tree.check_state("wrong.socket", "not-found", "");
    tree.check("loop.service", "LoadState", &["not-found"]);
    tree.check("dangling.service", "LoadState", &["not-found"]);
    assert!(tree.units().contains(&"ssh.service".to_owned()) && !tree.units().contains(&"sshd.service".to_owned()));
    let host = tree.host();
    let files = Units::of(&host).unwrap().unit_files().unwrap().to_vec();
    assert!(files.contains(&"sshd.service".to_owned()), "{files:?}");
}

#[test]
fn a_file_elsewhere_is_linked() {
    let tree = Tree::new()
        .file("/opt/a.service", "[Unit]\nDescription=far\n[Service]\nExecStart=/bin/a\n")
        .link("/etc/systemd/system/a.service", "/opt/a.service")
        .link("/run/systemd/system/b.service", "/opt/b.service")
        .file("/opt/b.service", SERVICE)
        .link("c.service", "/opt/a.service")
        .link("/etc/systemd/system/gone.service", "/opt/gone.service")
        .file("same.service", SERVICE)
        .link("/etc/systemd/system/same.service", "/usr/lib/systemd/system/same.service");
    assert_eq!(tree.property("same.service", "UnitFileState"), Property::unknown());
    tree.check("same.service", "LoadState", &["loaded"]);
    tree.check_state("a.service", "loaded", "linked");
    tree.check("a.service", "Description", &["far"]);
    tree.check("a.service", "FragmentPath", &["/opt/a.service"]);
    tree.check_state("b.service", "loaded", "linked-runtime");
    assert_eq!(tree.property("c.service", "UnitFileState"), Property::unknown());
    tree.check_state("gone.service", "not-found", "");
}

#[test]
fn a_link_does_not_lead_out_of_the_root() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), "[Unit]\nDescription=secret\n").unwrap();
    let target = outside.path().to_str().unwrap();
    let tree = Tree::new().link("a.service", target).link("b.service.d/x.conf", target).file("b.service", SERVICE);
    tree.check("a.service", "LoadState", &["not-found"]);
    tree.check("b.service", "Description", &["b.service"]);
}

#[test]
fn enabled_is_what_a_link_says() {
    let wanted = |by: &str| format!("{SERVICE}[Install]\nWantedBy={by}\n");
    let tree = Tree::new()
        .file("on.service", wanted("multi-user.target"))
        .link("/etc/systemd/system/multi-user.target.wants/on.service", "/usr/lib/systemd/system/on.service")
        .file("off.service", wanted("multi-user.target"))
        .file("until-boot.service", wanted("multi-user.target"))
        .link("/run/systemd/system/multi-user.target.requires/until-boot.service", "anywhere")
        .file("plain.service", SERVICE)
        .link("multi-user.target.wants/plain.service", "../plain.service")
        .file("also.service", format!("{SERVICE}[Install]\nAlso=on.service\n"))
        .file("named.service", format!("{SERVICE}[Install]\nAlias=right.service\n"))
        .link("/etc/systemd/system/wrong.service", "/usr/lib/systemd/system/named.service")
        .file("/run/systemd/generator/made.mount", "[Mount]\nWhat=/dev/x\n")
        .file("/run/systemd/transient/started.service", SERVICE)
        .file("reset.service", format!("{SERVICE}[Install]\nWantedBy=x.target\nWantedBy=\n"))
        .file("empty.d/none", "");
    for (unit, state) in [
        ("on.service", "enabled"),
        ("off.service", "disabled"),
        ("until-boot.service", "enabled-runtime"),
        ("plain.service", "static"),
        ("also.service", "indirect"),
        ("named.service", "indirect"),
        ("made.mount", "generated"),
        ("started.service", "transient"),
        ("reset.service", "static"),
    ] {
        tree.check_state(unit, "loaded", state);
    }
}

#[test]
fn an_instance_is_made_from_its_template() {
    let template = "[Unit]\nDescription=on %i of %p\nAfter=%i.mount x-%H.mount y@%%.mount\n[Service]\nExecStart=x\n\
                    [Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n";
    let tree = Tree::new()
        .file("getty@.service", template)
        .link("autovt@.service", "getty@.service")
        .file("getty.target", "")
        .file("getty.target", "[Unit]\nWants=autovt@tty9.service\n")
        .link("/etc/systemd/system/getty.target.wants/getty@tty1.service", "/usr/lib/systemd/system/getty@.service")
        .link("getty.target.wants/getty@.service", "../getty@.service");
    tree.check_state("getty@tty1.service", "loaded", "enabled");
    tree.check("getty@tty1.service", "Description", &["on tty1 of getty"]);
    let after = tree.property("getty@tty1.service", "After");
    assert_eq!((after.values, after.is_whole), (vec!["tty1.mount".to_owned()], false));
    tree.check("autovt@tty9.service", "Id", &["getty@tty9.service"]);
    tree.check("getty.target", "Wants", &["getty@tty1.service", "getty@tty9.service"]);
    let units = tree.units();
    assert!(units.contains(&"getty@tty9.service".to_owned()) && !units.iter().any(|unit| unit.contains("@.")));
}

#[test]
fn drop_ins_add_in_the_order_of_their_names() {
    let say = |text: &str| format!("[Unit]\nDescription={text}\nWants={text}.service\n");
    let tree = Tree::new()
        .file("a-b.service", format!("[Unit]\nWants=first.service\n{SERVICE}"))
        .file("a-b.service.d/20.conf", say("own"))
        .file("/etc/systemd/system/a-b.service.d/20.conf", say("ours"))
        .file("/etc/systemd/system/a-.service.d/10.conf", say("prefix"))
        .file("service.d/30.conf", say("type"))
        .file("a-b.service.d/40.conf", say("hidden"))
        .link("/etc/systemd/system/a-b.service.d/40.conf", "/dev/null")
        .file("/etc/systemd/system/other.service.d/15.conf", "[Unit]\nWants=\n[Install]\nWantedBy=x.target\n")
        .file("a-b.service.d/README", say("no configuration"))
        .link("other.service", "a-b.service");
    tree.check("a-b.service", "Description", &["type"]);
    let wanted = ["first.service", "ours.service", "prefix.service", "type.service"];
    tree.check("a-b.service", "Wants", &wanted);
    let paths = [
        "/etc/systemd/system/a-.service.d/10.conf",
        "/etc/systemd/system/other.service.d/15.conf",
        "/etc/systemd/system/a-b.service.d/20.conf",
        "/usr/lib/systemd/system/service.d/30.conf",
    ];
    tree.check("a-b.service", "DropInPaths", &paths);
    // What the drop-ins of another name say counts, but not whether it can be enabled.
    tree.check("a-b.service", "UnitFileState", &["static"]);
    let tree = tree.file("a-b.service.d/50.conf", "[Install]\nWantedBy=x.target\n");
    tree.check("a-b.service", "UnitFileState", &["disabled"]);
}

#[test]
fn dependencies_have_two_ends_and_services_need_the_system() {
    let tree = Tree::new()
        .file("a.service", format!("[Unit]\nRequires=\"b.service\" c.socket\nWants=a.service no-unit\n{SERVICE}"))
        .file("b.service", format!("[Unit]\nDefaultDependencies=no\nBindsTo=a.service\n{SERVICE}"));
    tree.check("a.service", "Requires", &["b.service", "c.socket", "sysinit.target"]);
    tree.check("a.service", "Wants", &[]);
    tree.check("b.service", "Requires", &[]);
    tree.check("b.service", "RequiredBy", &["a.service"]);
    tree.check("a.service", "BoundBy", &["b.service"]);
    tree.check_state("c.socket", "not-found", "");
    for (unit, property) in [("a.service", "Requires"), ("b.service", "RequiredBy"), ("a.service", "After")] {
        assert!(!tree.property(unit, property).is_whole, "{property} of {unit}");
    }
}

#[test]
fn what_systemd_makes_at_run_time_is_not_said_to_be_missing() {
    let tree = Tree::new()
        .file("a.service", format!("[Unit]\nAfter=tmp.mount old.service old2.service -.slice gone.service\n{SERVICE}"))
        .file("/etc/init.d/old", "#!/bin/sh\n")
        .file("/etc/init.d/old2.sh", "#!/bin/sh\n");
    for unit in ["tmp.mount", "old.service", "old2.service", "-.slice"] {
        for property in ["LoadState", "UnitFileState", "FragmentPath", "Wants"] {
            assert_eq!(tree.property(unit, property), Property::unknown(), "{property} of {unit}");
        }
    }
    tree.check_state("gone.service", "not-found", "");
    let refused = Tree::new().file("a.service", "[Service]\nType=oneshot\n");
    assert_eq!(refused.property("a.service", "LoadState"), Property::unknown());
}

fn dependencies(tree: &Tree, unit: &str) -> (Vec<String>, bool) {
    let collected = tree.ask::<SystemdUnitDependency>(&query(
        SystemdUnitDependency::KIND,
        vec![asked("unit", Operation::Equals, unit)],
    ));
    assert_eq!((collected.flag, collected.items.len()), (Flag::Complete, 1), "{collected:?}");
    let is_whole = !statuses(&collected.items[0], "dependency").contains(&Status::NotCollected);
    assert_eq!(is_whole, collected.items[0].message.is_none());
    (values(&collected.items, "dependency").into_iter().map(str::to_owned).collect(), is_whole)
}

#[test]
fn a_target_pulls_in_what_its_targets_do() {
    let tree = || {
        Tree::new()
            .file("multi-user.target", "[Unit]\nRequires=basic.target\n")
            .file("basic.target", "[Unit]\nWants=multi-user.target a.service\n")
            .file("a.service", format!("[Unit]\nWants=not-followed.service\n{SERVICE}"))
            .file("b.service", SERVICE)
            .link("/etc/systemd/system/multi-user.target.wants/b.service", "/usr/lib/systemd/system/b.service")
            .link("multi-user.target.wants/off.service", "../off.service")
            .link("/etc/systemd/system/multi-user.target.wants/off.service", "/dev/null")
            .file("multi-user.target.wants/file.service", SERVICE)
    };
    let wanted = ["a.service", "b.service", "basic.target", "multi-user.target"].map(str::to_owned).to_vec();
    assert_eq!(dependencies(&tree(), "multi-user.target"), (wanted.clone(), true));
    assert_eq!(dependencies(&tree(), "a.service"), (Vec::new(), true));

    // A script that starts by itself and has no unit: nobody knows what is made of it.
    let scripts = |tree: Tree| tree.file("/etc/init.d/x", "").link("/etc/rc3.d/S01x", "../init.d/x");
    assert_eq!(dependencies(&scripts(tree()), "multi-user.target"), (wanted.clone(), false));
    let converted = scripts(tree()).file("x.service", SERVICE);
    assert_eq!(dependencies(&converted, "multi-user.target"), (wanted, true));
}

#[test]
fn what_is_of_run_time_is_not_collected() {
    let tree = Tree::new().file("a.service", SERVICE);
    for property in ["ActiveState", "SubState", "StateChangeTimestamp", "NeedDaemonReload"] {
        let collected = tree.ask::<SystemdUnitProperty>(&of_property("^a.service$", property));
        let [item] = &collected.items[..] else { panic!("{collected:?}") };
        assert_eq!(statuses(item, "value"), [Status::NotCollected]);
        assert_eq!(item.message.as_deref(), Some(DOES_NOT_RUN));
    }
    let collected = tree.ask::<SystemdUnitProperty>(&of_property("^a.service$", "LoadState"));
    assert_eq!(values(&collected.items, "value"), ["loaded"]);
    assert_eq!((collected.flag, collected.items[0].message.as_deref()), (Flag::Complete, None));
    let nobody = tree.ask::<SystemdUnitProperty>(&of_property("^none.service$", "ActiveState"));
    assert_eq!(nobody.flag, Flag::DoesNotExist);
}

#[test]
fn a_root_with_unit_files_lacks_nothing_and_one_without_says_so() {
    let of_units = |host: &Host| {
        let (_, lacks) = kinds(host);
        let systemd = lacks.into_iter().filter(|lack| lack.reason.contains("systemd"));
        systemd.map(|lack| lack.kind).collect::<BTreeSet<String>>()
    };
    assert!(of_units(&Tree::new().host()).is_empty());
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
    let host = Host::new(root.path());
    assert_eq!(of_units(&host).len(), 3);
    let collected = SystemdUnitProperty::collect(&host, &of_property(".*", "Id")).unwrap_or_else(Collected::from);
    assert_eq!(collected.flag, Flag::Error);
    assert!(Path::new(BOOTED).is_absolute());
}

#[test]
fn a_hostile_tree_is_bounded_and_told() {
    let large = || Tree::new().file("a.service", SERVICE);
    let over = usize::try_from(UNIT_FILE_BYTES_MAX).unwrap() + 1;
    let tree = large().file("b.service", vec![b'#'; over]);
    let collected = tree.ask::<SystemdUnitProperty>(&of_property("service", "LoadState"));
    assert_eq!((collected.flag, values(&collected.items, "unit")), (Flag::Incomplete, vec!["a.service"]));
    assert!(collected.messages.iter().any(|message| message.contains("/b.service")), "{collected:?}");

    let names = (0..50_000).map(|at| format!("x{at}.service")).collect::<Vec<_>>().join(" ");
    let tree = large().file("b.service", format!("[Unit]\nWants={names}\n"));
    let collected = tree.ask::<SystemdUnitProperty>(&of_property("^a.service$", "LoadState"));
    assert_eq!((collected.flag, values(&collected.items, "value")), (Flag::Incomplete, vec!["loaded"]));
    assert!(collected.messages[0].contains(&UNITS_MAX.to_string()), "{collected:?}");

    let budget = proto::budget::Budget { memory_bytes: Some(1_000_000), ..proto::budget::Budget::default() };
    let host = Host::with_budget(tree.root.path(), budget);
    let collected = SystemdUnitProperty::collect(&host, &of_property("a", "Id")).unwrap_or_else(Collected::from);
    assert_eq!(collected.flag, Flag::Incomplete);

    use std::os::unix::ffi::OsStrExt as _;
    let tree = large().file("c.service", b"[Unit]\nWants=\xff.service\n\xff\nDescription=c\n");
    let unnamed = std::ffi::OsStr::from_bytes(b"\xff.service");
    std::fs::write(tree.place("c.service").parent().unwrap().join(unnamed), SERVICE).unwrap();
    tree.check("c.service", "Description", &["c"]);
    let collected = tree.ask::<SystemdUnitProperty>(&of_property("^a.service$", "LoadState"));
    assert_eq!((collected.flag, collected.items.len()), (Flag::Incomplete, 1));
}

#[test]
fn a_directory_or_a_fifo_is_no_unit() {
    let tree = Tree::new().file("a.service", SERVICE).file("b.service/file", "").link("c.service.d", "c.service.d");
    let fifo = tree.place("d.service");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let tree = tree.link("e.service", "/usr/lib/systemd/system/a.service.d").link("a.service.d/x.conf", "../d.service");
    assert_eq!(tree.units(), ["a.service", "e.service", "sysinit.target"]);
    tree.check_state("e.service", "not-found", "");
}
