//! `kill -9` of the orchestrator, with its broker, while everybody reports: when they are back, whether anything was lost or is
//! there twice, and whether coming back has left them in step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use proto::id::{RequestId, TransactionId};
use proto::message::SearchContent;
use proto::operator::{Ask, Question};
use serde_json::json;

use crate::measure::Ground;
use crate::measure::daemon::Program;
use crate::measure::figures::{millis, rounded, time};
use crate::measure::installation::{FLEET, Installation};
use crate::measure::peaks::Peaks;
use crate::measure::table::Finding;
use crate::measure::usage::Watch;
use crate::measure::workflow::{begin, end, on_fleet, question, search};
use crate::show;

const BACK_MAX: Duration = Duration::from_mins(1);
const PEAK_MAX: f64 = 1.3;
/// Heartbeats over which load is looked at.
const HEARTBEATS: u32 = 3;
/// Of so many that have heard of the task, one has when the orchestrator is killed.
const KILLED_AT: u64 = 4;
/// For that, and for all to be back.
const PATIENCE: Duration = Duration::from_mins(10);

pub(super) fn target() -> String {
    format!(
        "all back ≤ {} s, 0 lost, 0 doubled; peak/mean load of the next {HEARTBEATS} intervals ≤ {PEAK_MAX}",
        BACK_MAX.as_secs()
    )
}

pub(super) async fn measure(ground: &mut Ground) -> anyhow::Result<Finding> {
    ground.look_once().await?;
    ground.fleet.record();
    let outcome = take(ground).await;
    ground.fleet.recorded();
    outcome
}

async fn take(ground: &mut Ground) -> anyhow::Result<Finding> {
    let begun = Timestamp::now();
    let transaction = begin(&ground.installation, Ask::Collect(on_fleet(ground.policy.profile.as_ref()))).await?;
    let (fleet, collectors) = (std::sync::Arc::clone(&ground.fleet), ground.collectors);
    let wanted = collectors.div_ceil(KILLED_AT);
    let enough =
        async |_: &Installation| Ok(fleet.look(|record| (record.arrivals.len() as u64 >= wanted).then_some(())));
    ground.installation.wait_for("some have heard of the task", PATIENCE, enough).await?;
    let killed = ground.installation.kill(Program::Orchestrator)?;
    let watch = Watch::begin(&ground.installation);
    let mut back = fleet.look(|record| record.handshakes.len() as u64);
    if back > 0 {
        // They have shaken hands before it was killed; nobody does without a reason.
        bail!("{back} collectors have shaken hands before the orchestrator was killed");
    }
    let mut word = Instant::now();
    let all = async |_: &Installation| {
        back = fleet.look(|record| record.handshakes.len() as u64);
        if word.elapsed() > Duration::from_secs(10) {
            word = Instant::now();
            show::note(format!("{back} of {collectors} are back"));
        }
        Ok((back == collectors).then_some(()))
    };
    ground.installation.wait_for("all are back", PATIENCE, all).await?;
    let last = fleet.look(|record| record.handshakes.values().max().copied()).context("nobody is back")?;
    let (returning, returned) = (watch.end(), last.duration_since(killed));
    let view = end(&ground.installation, transaction).await?;
    show::note(format!("all are back after {}; load is looked at for {HEARTBEATS} heartbeats", time(returned)));
    let peaks = Peaks::look(ground, HEARTBEATS).await?;
    let stored = reports(ground, transaction, begun).await?;
    let unanswered = collectors.saturating_sub(view.account.answered);
    let lost = unanswered + stored.lost;
    let by_processor = peaks.by_processor.map(|peak| format!(", by time of the processor {peak:.2}"));
    let before = ground.peaks.map(|peaks| format!(" (idle, before it: {:.2})", peaks.most()));
    Ok(Finding {
        measured: format!(
            "all back after {}, {lost} of {} items lost, {} doubled; peak/mean by messages {:.2}{}{}",
            time(returned),
            stored.items + stored.lost,
            stored.doubled,
            peaks.by_messages,
            by_processor.unwrap_or_default(),
            before.unwrap_or_default(),
        ),
        is_met: returned <= BACK_MAX && lost == 0 && stored.doubled == 0 && peaks.most() <= PEAK_MAX,
        limit: format!("while they came back: {}", returning.limit()),
        figures: json!({
            "back-ms": millis(returned),
            "back": back,
            "answered": view.account.answered,
            "items": stored.items,
            "lost": lost,
            "doubled": stored.doubled,
            "peak-by-messages": rounded(peaks.by_messages),
            "peak-by-processor": peaks.by_processor.map(rounded),
            "processes": returning.json(),
        }),
    })
}

/// What is stored of the reports of a task.
#[derive(Debug, Default)]
struct Reports {
    items: u64,
    lost: u64,
    doubled: u64,
}

/// Looks whether every item is stored that was found, once, and by this task: what has an earlier time is there from before, and its
/// report was lost. Whoever was given the task twice would have done it twice.
async fn reports(ground: &Ground, transaction: TransactionId, begun: Timestamp) -> anyhow::Result<Reports> {
    let mut reports = Reports::default();
    let mut known = BTreeSet::new();
    for kind in &ground.policy.kinds {
        let question = Question { content: SearchContent::Metadata, ..question(kind, FLEET)? };
        for row in search(&ground.installation, question).await?.into_iter().flat_map(|page| page.rows) {
            if row.collected >= begun {
                reports.items += row.matched;
            }
            reports.doubled += u64::from(!known.insert((row.endpoint, row.object)));
        }
    }
    let expected = ground.fleet.item_count(ground.collectors).await?;
    reports.lost = expected.saturating_sub(reports.items);
    reports.doubled += reports.items.saturating_sub(expected);
    let mut requests: BTreeMap<u64, BTreeSet<RequestId>> = BTreeMap::new();
    ground.fleet.look(|record| {
        for arrival in record.arrivals.iter().filter(|arrival| arrival.transaction == transaction) {
            requests.entry(arrival.collector).or_default().insert(arrival.request);
        }
    });
    reports.doubled += requests.values().map(|requests| requests.len() as u64 - 1).sum::<u64>();
    Ok(reports)
}
