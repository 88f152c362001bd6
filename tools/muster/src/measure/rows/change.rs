//! A file of an endpoint changes: from then until an operator who asks is told the other verdict. A real collector watches the file,
//! as the policy is assigned to be evaluated on changes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::Timestamp;
use proto::message::ResultsSelection;
use proto::operator::{Ask, OperatorEvent, PolicyAssignment, Workflow};
use proto::verdict::Verdict;
use serde_json::json;

use crate::measure::Ground;
use crate::measure::figures::{millis, percentile, time};
use crate::measure::installation::{AGENT, Installation};
use crate::measure::policy::WATCHED;
use crate::measure::table::Finding;
use crate::measure::usage::Watch;

const READABLE_MAX: Duration = Duration::from_secs(2);
const CHANGES: u32 = 20;
/// How often an operator asks: what a time may be wrong by.
const LOOK: Duration = Duration::from_millis(20);
/// Between two changes, and each a little more: not in step with anything.
const PAUSE: Duration = Duration::from_millis(530);
const MORE: Duration = Duration::from_millis(37);
/// For the collector to watch, and for one change.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often the collector would look if nobody told it.
const POLL_SECONDS: u64 = 3_600;

pub(super) fn target() -> String {
    format!("p95 ≤ {}", time(READABLE_MAX))
}

/// As editors do it: another file takes its place.
fn write(file: &Path, is_good: bool) -> std::io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, format!("state = {}\n", if is_good { "good" } else { "bad" }))?;
    std::fs::rename(new, file)
}

/// The verdict on the real endpoint as an operator reads it, and when it was decided.
async fn verdict(installation: &Installation) -> anyhow::Result<Option<(Verdict, Timestamp)>> {
    let selection = ResultsSelection::Endpoint(installation.agent());
    let events = installation.ask(Ask::Results { selection, verdicts: Vec::new() }, &[]).await?;
    Ok(events.into_iter().find_map(|event| {
        let OperatorEvent::Results(page) = event else { return None };
        Some((page.results.first()?.first()?.verdict, page.summaries.first()?.evaluated))
    }))
}

/// What is told of the latest change on the real endpoint.
async fn latest(installation: &Installation) -> anyhow::Result<Vec<OperatorEvent>> {
    let ask = Ask::Changes { targets: vec![AGENT.to_owned()], limit: 1, is_followed: false, query: None };
    installation.ask(ask, &[]).await
}

/// When the collector saw it.
async fn seen(installation: &Installation) -> anyhow::Result<Option<Timestamp>> {
    let collected = latest(installation).await?.into_iter().filter_map(|event| match event {
        OperatorEvent::Change(change) => Some(change.collected),
        _ => None,
    });
    Ok(collected.max())
}

/// Whether reports of the collector that watches have come.
async fn is_followed(installation: &Installation) -> anyhow::Result<bool> {
    Ok(latest(installation)
        .await?
        .iter()
        .any(|event| matches!(event, OperatorEvent::Streams(streams) if !streams.is_empty())))
}

pub(super) async fn measure(ground: &mut Ground) -> anyhow::Result<Finding> {
    ground.import_watched().await?;
    let file = ground.installation.watched_file();
    write(&file, true)?;
    let assignment = PolicyAssignment {
        name: WATCHED.to_owned(),
        workflow: Workflow {
            policy: WATCHED.to_owned(),
            targets: vec![AGENT.to_owned()],
            timeout_seconds: PATIENCE.as_secs(),
            ..Workflow::default()
        },
        schedule: None,
        is_change_based: true,
        poll_seconds: Some(POLL_SECONDS),
    };
    ground.installation.one(Ask::PolicyAssign(Box::new(assignment)), &[]).await?;
    let outcome = changes(ground, &file).await;
    // Afterwards the agent has nothing to do again.
    ground.installation.one(Ask::PolicyUnassign { name: WATCHED.to_owned() }, &[]).await?;
    outcome
}

async fn changes(ground: &mut Ground, file: &Path) -> anyhow::Result<Finding> {
    let is_ready = async |it: &Installation| {
        let is_good = verdict(it).await?.is_some_and(|(verdict, ..)| verdict == Verdict::Pass);
        Ok((is_good && is_followed(it).await?).then_some(()))
    };
    ground.installation.wait_for("the collector watches, and the first verdict is there", PATIENCE, is_ready).await?;
    let watch = Watch::begin(&ground.installation);
    let (mut times, mut looked, mut decided) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..CHANGES {
        tokio::time::sleep(PAUSE + MORE * number).await;
        let (is_good, expected) = if number % 2 == 0 { (false, Verdict::Fail) } else { (true, Verdict::Pass) };
        write(file, is_good)?;
        let (changed, at) = (Instant::now(), Timestamp::now());
        let evaluated = loop {
            match verdict(&ground.installation).await? {
                Some((verdict, evaluated)) if verdict == expected => break evaluated,
                _ if changed.elapsed() > PATIENCE => {
                    bail!("change {} of {CHANGES} has no verdict after {} s", number + 1, PATIENCE.as_secs());
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        };
        times.push(changed.elapsed());
        let since = |time: Timestamp| Duration::try_from(time.duration_since(at)).unwrap_or_default();
        looked.extend(seen(&ground.installation).await?.map(since));
        decided.push(since(evaluated));
    }
    let load = watch.end();
    let [p50, p95, most] = [50, 95, 100].map(|percent| percentile(&mut times, percent).unwrap_or_default());
    let [looked, decided] = [&mut looked, &mut decided].map(|times| percentile(times, 50).unwrap_or_default());
    Ok(Finding {
        measured: format!("p95 {} (p50 {}, longest {}) of {CHANGES} changes", time(p95), time(p50), time(most)),
        is_met: p95 <= READABLE_MAX,
        limit: format!(
            "half of them were seen by the collector after {}, decided after {}, and read after {}; {}",
            time(looked),
            time(decided),
            time(p50),
            load.limit()
        ),
        figures: json!({
            "seen-p50-ms": millis(looked),
            "decided-p50-ms": millis(decided),
            "p50-ms": millis(p50),
            "p95-ms": millis(p95),
            "longest-ms": millis(most),
            "changes": CHANGES,
            "processes": load.json(),
        }),
    })
}
