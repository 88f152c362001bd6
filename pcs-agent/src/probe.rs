//! The probes: one file each, and one list of them.
//!
//! A probe gets a query with its variables resolved and answers with items. It reads the endpoint
//! in-process, through [`Host`]; it runs no command, ever, but `muster:script`, which runs what this endpoint's operator has
//! allowed. Kinds and entities are those of the OVAL
//! 5.11 system characteristics schemas; behaviour follows `oscap` 1.3.7 where the schemas are silent.

use oval::compare::CompareError;
use oval::resolve::{Prober, Query, QueryFilter};
use proto::message::LackedKind;
use proto::observation::{Collected, Flag, Item, Status};

use crate::host::{Away, Cut, Host, ReadError};
use crate::report::size_of_item;

mod accounts;
mod apparmorstatus;
mod certificate;
pub(crate) mod dpkginfo;
mod entities;
mod environmentvariable58;
mod family;
mod file;
mod fileextendedattribute;
mod filehash58;
mod files;
mod group;
mod hardware;
mod iflisteners;
mod inetlisteningservers;
mod interface;
mod kernel_module;
mod mount;
mod os;
mod package;
mod partition;
mod password;
mod process58;
mod prune;
mod routingtable;
pub(crate) mod rpmdb;
mod rpminfo;
mod rpmverifyfile;
mod rpmverifypackage;
mod runlevel;
mod script;
mod selinuxboolean;
mod selinuxsecuritycontext;
mod service;
mod shadow;
mod sieve;
mod socket;
mod symlink;
mod sysctl;
pub(crate) mod systemd;
mod systemdunitdependency;
mod systemdunitproperty;
mod textfilecontent;
mod textfilecontent54;
pub(crate) mod tree;
mod troubles;
mod uname;
pub(crate) mod units;
mod user;
mod xmlfilecontent;
mod xpath;
mod yaml;
mod yamlfilecontent;

pub(crate) use uname::machine;

/// A unit of collection.
pub(crate) trait Probe {
    /// The kind of items, such as `unix:file`.
    const KIND: &'static str;

    /// What there is that the query asks for.
    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError>;

    /// The same, where the probe can leave out early what the filters are certain to drop.
    fn collect_some(host: &Host, query: &Query, _filters: &[QueryFilter]) -> Result<Collected, ProbeError> {
        Self::collect(host, query)
    }
}

/// Why a probe gives nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProbeError {
    /// The query cannot be answered, such as a pattern that is none.
    #[error(transparent)]
    Query(#[from] CompareError),
    /// The budget is used up and nothing was found before.
    #[error(transparent)]
    Cut(#[from] Cut),
    /// No rights: not an error of the endpoint, and not an answer either.
    #[error("no rights to read {0}: run the collector as root")]
    Denied(String),
    /// It is in a mount that does not answer.
    #[error(transparent)]
    Away(#[from] Away),
    /// This endpoint's operator has not allowed it.
    #[error("{0}")]
    Refused(String),
    /// Something that this version cannot read.
    #[error("not covered yet: {0}")]
    NotCovered(String),
    /// Something on the endpoint does not work.
    #[error("{0}")]
    Broken(String),
}

impl From<ProbeError> for Collected {
    fn from(error: ProbeError) -> Self {
        let flag = match &error {
            ProbeError::Query(_) | ProbeError::Broken(_) => Flag::Error,
            ProbeError::Cut(_) => Flag::Incomplete,
            ProbeError::Denied(_) | ProbeError::Refused(_) | ProbeError::NotCovered(_) | ProbeError::Away(_) => {
                Flag::NotCollected
            }
        };
        Self::nothing(flag, error.to_string())
    }
}

type Collect = fn(&Host, &Query, &[QueryFilter]) -> Result<Collected, ProbeError>;

macro_rules! probes {
    ($($probe:path,)*) => {
        /// Every probe by kind.
        const PROBES: &[(&str, Collect)] = &[$((<$probe as Probe>::KIND, <$probe as Probe>::collect_some)),*];
    };
}

probes! {
    apparmorstatus::AppArmorStatus,
    certificate::Certificate,
    dpkginfo::DpkgInfo,
    environmentvariable58::EnvironmentVariable58,
    family::Family,
    file::File,
    fileextendedattribute::FileExtendedAttribute,
    filehash58::FileHash58,
    group::Group,
    hardware::Hardware,
    iflisteners::IfListeners,
    inetlisteningservers::InetListeningServers,
    interface::Interface,
    kernel_module::KernelModule,
    mount::Mount,
    os::Os,
    package::Package,
    partition::Partition,
    password::Password,
    process58::Process58,
    routingtable::RoutingTable,
    rpminfo::RpmInfo,
    rpmverifyfile::RpmVerifyFile,
    rpmverifypackage::RpmVerifyPackage,
    runlevel::Runlevel,
    script::Script,
    selinuxboolean::SelinuxBoolean,
    selinuxsecuritycontext::SelinuxSecurityContext,
    service::Service,
    shadow::Shadow,
    socket::Socket,
    symlink::Symlink,
    sysctl::Sysctl,
    systemdunitdependency::SystemdUnitDependency,
    systemdunitproperty::SystemdUnitProperty,
    textfilecontent::TextFileContent,
    textfilecontent54::TextFileContent54,
    uname::Uname,
    user::User,
    xmlfilecontent::XmlFileContent,
    yamlfilecontent::YamlFileContent,
}

/// The kinds of items that can be collected on an endpoint, and those that cannot, as far as that can be said before anybody
/// asks.
pub fn kinds(host: &Host) -> (Vec<String>, Vec<LackedKind>) {
    let mut kinds = vec!["independent:variable".to_owned()];
    let mut lacks = Vec::new();
    for (kind, _) in PROBES {
        match lacked(host, kind) {
            None => kinds.push((*kind).to_owned()),
            Some(reason) => lacks.push(LackedKind { kind: (*kind).to_owned(), reason }),
        }
    }
    (kinds, lacks)
}

/// Why a kind cannot be collected.
fn lacked(host: &Host, kind: &str) -> Option<String> {
    match kind {
        systemdunitproperty::SystemdUnitProperty::KIND
        | systemdunitdependency::SystemdUnitDependency::KIND
        | service::Service::KIND => units::missing(host).map(|reason| reason.to_string()),
        script::Script::KIND => script::unready(host),
        rpminfo::RpmInfo::KIND => rpminfo::unread(host).map(|reason| reason.to_string()),
        shadow::Shadow::KIND => {
            let denied =
                host.lstat("/etc/shadow").is_ok() && matches!(host.read("/etc/shadow"), Err(ReadError::Denied));
            denied.then(|| ProbeError::Denied("/etc/shadow".to_owned()).to_string())
        }
        _ => None,
    }
}

/// Asks the probes of one endpoint.
#[derive(Debug)]
pub struct Probes<'host> {
    host: &'host Host,
}

impl<'host> Probes<'host> {
    /// Over this endpoint.
    pub fn new(host: &'host Host) -> Self {
        Self { host }
    }
}

impl Prober for Probes<'_> {
    fn probe(&mut self, query: &Query, filters: &[QueryFilter]) -> Collected {
        let Some((_, collect)) = PROBES.iter().find(|(kind, _)| *kind == query.kind) else {
            return Collected::nothing(Flag::NotCollected, format!("this collector has no probe for {}", query.kind));
        };
        self.host.take_met();
        let looked = self.host.breathe().map_err(ProbeError::from).and_then(|()| {
            let collected = collect(self.host, query, filters)?;
            self.host.count_found(collected.items.iter().map(|item| size_of_item(item) as u64).sum())?;
            Ok(collected)
        });
        lacking_what_was_met(looked.unwrap_or_else(Collected::from), self.host.take_met())
    }
}

/// The text of a file that is read whole; none where there is no such file.
pub(crate) fn text_of(host: &Host, path: &str) -> Result<Option<String>, ProbeError> {
    match host.read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(ReadError::Absent) => Ok(None),
        Err(ReadError::Denied) => Err(ProbeError::Denied(path.to_owned())),
        Err(ReadError::Cut(cut)) => Err(cut.into()),
        Err(ReadError::Away(away)) => Err(away.into()),
        Err(error) => Err(ProbeError::Broken(format!("{path}: {error}"))),
    }
}

/// The same answer, and that some mount did not answer: it is not whole then, whatever the probe has made of that.
fn lacking_what_was_met(mut collected: Collected, met: std::collections::BTreeSet<String>) -> Collected {
    for words in met {
        if matches!(collected.flag, Flag::Complete | Flag::DoesNotExist) {
            collected.flag = if collected.items.is_empty() { Flag::NotCollected } else { Flag::Incomplete };
        }
        if !collected.messages.iter().any(|message| message.contains(&words)) {
            collected.messages.push(words);
        }
    }
    collected
}

/// Items that match, from all that there are: for probes whose source is small.
pub(crate) fn matching(items: Vec<Item>, query: &Query) -> Result<Collected, ProbeError> {
    let mut kept = Vec::new();
    for item in items {
        if query.matches(&item)? {
            kept.push(item);
        }
    }
    Ok(finish(kept, Vec::new()))
}

/// Flags what was found: cut at the limit on items, and an error where an item is one.
pub(crate) fn finish(mut items: Vec<Item>, mut messages: Vec<String>) -> Collected {
    let is_any_broken = items.iter().any(|item| item.status == Status::Error);
    let mut flag = if items.is_empty() {
        Flag::DoesNotExist
    } else if is_any_broken {
        Flag::Error
    } else {
        Flag::Complete
    };
    if items.len() > limits::CANDIDATES_MAX {
        items.truncate(limits::CANDIDATES_MAX);
        messages.push(Cut::Items.to_string());
        flag = Flag::Incomplete;
    }
    Collected { flag, items, messages }
}

mod limits {
    /// Items that a probe hands on to filters; what is reported is cut again.
    pub(in crate::probe) const CANDIDATES_MAX: usize = 100_000;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::plan::PROBED_KINDS;

    #[test]
    fn the_probes_are_the_kinds_that_the_vocabulary_promises() {
        let mut kinds: Vec<&str> = PROBES.iter().map(|(kind, _)| *kind).collect();
        kinds.push("independent:variable"); // resolved from the plan, looks at no endpoint
        kinds.sort_unstable();
        assert_eq!(kinds, PROBED_KINDS);
    }

    #[test]
    fn every_probe_survives_an_empty_root_and_an_empty_query() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        for (kind, collect) in PROBES {
            let query =
                Query { kind: (*kind).to_owned(), entities: Vec::new(), behaviors: std::collections::BTreeMap::new() };
            let collected = collect(&host, &query, &[]).unwrap_or_else(Collected::from);
            for item in &collected.items {
                assert_eq!(item.kind, *kind);
                assert!(item.entities.iter().all(|entity| entity.value.is_some() == (entity.status == Status::Exists)));
            }
        }
    }

    #[test]
    fn a_kind_without_a_probe_is_not_collected_and_says_so() {
        let host = Host::new("/");
        let query = Query {
            kind: "windows:registry".into(),
            entities: Vec::new(),
            behaviors: std::collections::BTreeMap::new(),
        };
        let collected = Probes::new(&host).probe(&query, &[]);
        assert_eq!(collected.flag, Flag::NotCollected);
        assert!(collected.messages[0].contains("windows:registry"));
    }
}
