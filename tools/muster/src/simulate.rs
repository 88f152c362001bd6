//! `muster simulate`: collectors that are not there, for sizing an installation. Each is a member of its own: key, certificate,
//! connection, outbox, signatures. What they report is what this machine has, or another root, with a little variety.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use service::shutdown;
use service::token::JoinToken;
use uuid::Uuid;

use crate::cli::SimulateArgs;
use crate::exit;

mod collector;
pub(crate) mod fleet;
pub(crate) mod ingest;
mod template;

use fleet::{Fleet, FleetSettings};

/// What directories of fleets are called.
const FLEET: &str = "muster-simulate";
/// Where Linux keeps files in memory (shm_overview(7)).
const MEMORY: &str = "/dev/shm";
/// What a collector may need of it: its keys, and two parts of a report that wait. In a container there is often little.
const MEMORY_EACH_BYTES: u64 = 512 * 1024;
/// `statfs(2)`: a file system in memory.
const TMPFS: u64 = 0x0102_1994;
/// Seconds between two lines about how it goes.
const LINE_SECONDS: u64 = 5;

/// Runs until Ctrl-C.
pub(crate) async fn run(args: SimulateArgs) -> anyhow::Result<u8> {
    if !args.machines.root.is_dir() {
        anyhow::bail!("--root {}: there is no such directory", args.machines.root.display());
    }
    // Each of them would say so.
    args.join_token.parse::<JoinToken>()?;
    let kept = args.keep.clone();
    let temporary = if kept.is_none() { Some(fleet_directory(args.collectors)?) } else { None };
    let directory = kept.or_else(|| temporary.clone()).context("a directory")?;
    let fleet = Arc::new(Fleet::new(FleetSettings {
        directory,
        join_token: args.join_token,
        seed: args.machines.seed,
        variety_percent: args.machines.variety,
        root: args.machines.root,
    })?);
    let began = Instant::now();
    let play = async {
        fleet.join(args.collectors).await?;
        std::future::pending::<anyhow::Result<()>>().await
    };
    let tell = async {
        let mut tick = tokio::time::interval(Duration::from_secs(LINE_SECONDS));
        loop {
            tick.tick().await;
            fleet.line(began.elapsed());
        }
    };
    tokio::select! {
        outcome = play => outcome?,
        () = tell => {}
        () = shutdown::signal() => {}
    }
    fleet.line(began.elapsed());
    if let Some(temporary) = temporary {
        let _ = std::fs::remove_dir_all(temporary);
    }
    Ok(exit::DONE)
}

/// A new directory for what nobody keeps.
pub(crate) fn temporary_directory(name: &str) -> anyhow::Result<PathBuf> {
    temporary_directory_in(&std::env::temp_dir(), name)
}

/// A new directory for the outboxes of a fleet, in memory where that is possible: each collector would have a disk of its own, and
/// shares none with the others or with the servers.
pub(crate) fn fleet_directory(collectors: u64) -> anyhow::Result<PathBuf> {
    let memory = Path::new(MEMORY);
    let has_room = rustix::fs::statvfs(memory)
        .is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) >= collectors.saturating_mul(MEMORY_EACH_BYTES));
    let is_memory = has_room && is_in_memory(memory);
    let in_memory = if is_memory { temporary_directory_in(memory, FLEET).ok() } else { None };
    in_memory.map_or_else(|| temporary_directory(FLEET), Ok)
}

/// Whether what is written there is kept in memory, where flushing costs nothing.
pub(crate) fn is_in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|file_system| u64::try_from(file_system.f_type) == Ok(TMPFS))
}

fn temporary_directory_in(parent: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = parent.join(format!("{name}-{}", Uuid::new_v4()));
    service::data::make(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
