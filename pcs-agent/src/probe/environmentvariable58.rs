//! `independent:environmentvariable58`: environments of processes, read from `/proc`.

use std::collections::HashSet;

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity, Status};

use super::{Probe, ProbeError, finish};
use crate::host::{Host, ReadError};

pub(crate) struct EnvironmentVariable58;

impl Probe for EnvironmentVariable58 {
    const KIND: &'static str = "independent:environmentvariable58";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let pid = query.entity("pid").filter(|pid| !pid.is_nil);
        let mut processes: Vec<String> = match pid {
            // Not asked about: the collector's own process.
            None => vec![std::process::id().to_string()],
            Some(pid) => {
                if let Some(values) = pid.exact() {
                    values.to_vec()
                } else {
                    let mut all = Vec::new();
                    for process in running(host) {
                        if pid.matches(&process)? {
                            all.push(process);
                        }
                    }
                    all
                }
            }
        };
        let mut seen = HashSet::new();
        processes.retain(|process| seen.insert(process.clone()));
        let mut items = Vec::new();
        for process in processes {
            match host.read(&format!("/proc/{process}/environ")) {
                Ok(environment) => {
                    for variable in environment.split(|byte| *byte == 0).filter(|variable| !variable.is_empty()) {
                        let variable = String::from_utf8_lossy(variable);
                        let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
                        let entities = vec![
                            ItemEntity::int("pid", &process),
                            ItemEntity::text("name", name),
                            ItemEntity::text("value", value),
                        ];
                        let item = Item::new(Self::KIND, entities);
                        if query
                            .entity("name")
                            .map_or(Ok(true), |name| name.matches(item.value("name").unwrap_or_default()))?
                        {
                            items.push(item);
                        }
                    }
                }
                Err(ReadError::Absent) => {}
                Err(ReadError::Cut(cut)) => return Err(cut.into()),
                Err(error) => {
                    let mut item = Item::new(Self::KIND, vec![ItemEntity::int("pid", &process)]);
                    item.status = Status::Error;
                    item.message = Some(format!("/proc/{process}/environ: {error}"));
                    items.push(item);
                }
            }
        }
        Ok(finish(items, Vec::new()))
    }
}

/// The ids of all processes.
pub(crate) fn running(host: &Host) -> Vec<String> {
    let Ok(entries) = host.read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}

#[cfg(test)]
mod tests {
    use proto::plan::{Check, Operation};

    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;

    #[test]
    fn a_process_that_is_asked_for_twice_is_looked_at_once() {
        let (_root, host) = tree(&[("proc/7/environ", "A=7\0B=8\0"), ("proc/9/environ", "A=9")]);
        let mut pids = asked("pid", Operation::Equals, "7");
        pids.var_check = Check::AtLeastOne;
        pids.values.extend(["9", "7"].map(String::from));
        let query = query(EnvironmentVariable58::KIND, vec![pids, asked("name", Operation::Equals, "A")]);
        let collected = EnvironmentVariable58::collect(&host, &query).unwrap();
        assert_eq!(values(&collected.items, "value"), ["7", "9"]);
    }
}
