//! Everything at once: all endpoints are collected from and evaluated, and every verdict is stored.

use std::time::{Duration, Instant};

use anyhow::bail;
use proto::operator::Ask;
use serde_json::json;

use crate::measure::Ground;
use crate::measure::daemon::Program;
use crate::measure::figures::{megabytes, millis, time};
use crate::measure::table::Finding;
use crate::measure::usage::Watch;
use crate::measure::workflow::{begin, end, on_fleet, stored};

const DRAINED_MAX: Duration = Duration::from_secs(90);
const MEMORY_MB_MAX: f64 = 1_000.0;
const SERVERS: [Program; 3] = [Program::Orchestrator, Program::Repository, Program::Evaluator];

pub(super) fn target() -> String {
    format!("drained ≤ {} s, 0 lost, RSS ≤ 1 GB", DRAINED_MAX.as_secs())
}

pub(super) async fn measure(ground: &mut Ground) -> anyhow::Result<Finding> {
    let watch = Watch::begin(&ground.installation);
    let began = Instant::now();
    // Nobody follows: what is said to a terminal for each verdict is no part of it.
    let transaction = begin(&ground.installation, Ask::Evaluate(on_fleet(ground.policy.profile.as_ref()))).await?;
    let view = end(&ground.installation, transaction).await?;
    let drained = began.elapsed();
    let load = watch.end();
    let stored = stored(&ground.installation, transaction, None).await?;
    let expected = ground.collectors * ground.policy.result_count;
    let verdicts = stored.verdicts.len() as u64;
    let lost = expected.saturating_sub(verdicts) + ground.collectors.saturating_sub(view.account.answered);
    if verdicts == 0 {
        bail!("no verdict is stored: the evaluation is {}", view.state);
    }
    ground.is_evaluated = lost == 0;
    let memory = megabytes(load.memory_most_kib(&SERVERS));
    let each = load.millis_each(ground.collectors);
    let words: Vec<String> = each
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != Program::Agent.name())
        .map(|(name, millis)| format!("{} {:.1}", name.replace('-', " "), millis.as_f64().unwrap_or_default()))
        .collect();
    Ok(Finding {
        measured: format!(
            "drained in {}, {lost} lost, {} doubled, RSS {memory:.0} MB; {verdicts} verdicts; ms of a core for each endpoint: {}",
            time(drained),
            stored.doubled,
            words.join(", ")
        ),
        is_met: drained <= DRAINED_MAX && lost == 0 && stored.doubled == 0 && memory <= MEMORY_MB_MAX,
        limit: load.limit(),
        figures: json!({
            "drained-ms": millis(drained),
            "endpoints": stored.endpoints.len(),
            "answered": view.account.answered,
            "verdicts": verdicts,
            "lost": lost,
            "doubled": stored.doubled,
            "rss-most-mb": memory,
            "ms-for-each-endpoint": each,
            "processes": load.json(),
        }),
    })
}
