//! `muster:script`: what a script of a policy says (SCE), where this endpoint's operator has allowed it by its hash; it runs in a
//! sandbox ([`crate::script`]). The script and the benchmark's values come as behaviors of the object.

use oval::resolve::Query;
use proto::content::ContentHash;
use proto::observation::{Collected, Item, ItemEntity};

use super::{Probe, ProbeError, finish};
use crate::host::Host;
use crate::limits::SCRIPT_OUTPUT_BYTES_MAX;
use crate::script::{self, NOT_CONFIGURED, NOT_LIVE, Output, RunError};

pub(crate) struct Script;

/// Why no script runs here.
pub(super) fn unready(host: &Host) -> Option<String> {
    let Some(scripts) = host.scripts() else { return Some(NOT_CONFIGURED.to_owned()) };
    if host.is_live() { scripts.unready() } else { Some(NOT_LIVE.to_owned()) }
}

impl Probe for Script {
    const KIND: &'static str = "muster:script";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(text) = query.behaviors.get("script") else {
            return Err(ProbeError::Refused("scripts come with a policy: a hash alone is no script".to_owned()));
        };
        let sha256 = ContentHash::of(text.as_bytes());
        if let Some(reason) = unready(host) {
            return Err(ProbeError::Refused(format!("{reason}; it is the script {sha256}")));
        }
        let Some(scripts) = host.scripts() else { return Err(ProbeError::Refused(NOT_CONFIGURED.to_owned())) };
        scripts.allow(&sha256).map_err(ProbeError::Refused)?;
        let before = used_by_children();
        let ran = script::run(scripts, text, &query.behaviors, &mut || host.breathe());
        host.count_processor(used_by_children().saturating_sub(before));
        let ran = ran.map_err(|error| match error {
            RunError::Cut(cut) => ProbeError::Cut(cut),
            RunError::NoSandbox(_) => ProbeError::Refused(error.to_string()),
            RunError::Broken(_) | RunError::Time => ProbeError::Broken(error.to_string()),
        })?;
        tracing::info!(%sha256, code = ran.code, "a script ran that is allowed here");
        let mut messages = Vec::new();
        let mut text = |name: &str, output: &Output| {
            if output.is_cut {
                messages.push(format!("{name} was cut at {} KiB", SCRIPT_OUTPUT_BYTES_MAX / 1024));
            }
            ItemEntity::text(name, output.text.as_str())
        };
        let entities = vec![
            ItemEntity::text("sha256", sha256.as_str()),
            ItemEntity::int("exit_code", ran.code),
            text("stdout", &ran.stdout),
            text("stderr", &ran.stderr),
        ];
        Ok(finish(vec![Item::new(Self::KIND, entities)], messages))
    }
}

/// The processor's time of processes that this one has started and that are gone: `/proc/self/stat` counts hundredths of seconds.
fn used_by_children() -> std::time::Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may have blanks and brackets in it; cutime and cstime are fields 16 and 17.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace()).into_iter().flatten();
    let hundredths: u64 = fields.skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    std::time::Duration::from_millis(hundredths.saturating_mul(10))
}
