//! `muster simulate`: collectors that are not there, for sizing an installation. Each is a member of its own: key, certificate,
//! connection, outbox, signatures. What they report is what this machine has, or another root, with a little variety.

use std::path::PathBuf;
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
    let temporary = if kept.is_none() { Some(temporary_directory("muster-simulate")?) } else { None };
    let directory = kept.or_else(|| temporary.clone()).context("a directory")?;
    let fleet = Arc::new(Fleet::new(FleetSettings {
        directory,
        join_token: args.join_token,
        seed: args.machines.seed,
        variety_percent: args.machines.variety,
        root: args.machines.root,
    }));
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
    let path = std::env::temp_dir().join(format!("{name}-{}", Uuid::new_v4()));
    service::data::make(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
