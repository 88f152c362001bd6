//! Observations of one size, from handing them to the bus to the repository's acknowledgement, which comes after its commit.

use std::time::{Duration, Instant};

use anyhow::bail;
use proto::operator::Ask;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::measure::Ground;
use crate::measure::figures::{millis, percentile, ratio, rounded, time};
use crate::measure::table::Finding;
use crate::measure::usage::{Load, Watch};
use crate::measure::workflow::{begin, end, on_fleet};
use crate::simulate::ingest::Ingest;

const PER_SECOND_MIN: f64 = 3_000.0;
const COMMIT_MAX: Duration = Duration::from_millis(250);
const ITEM_BYTES: usize = 4_096;
/// Messages on their way at a time: enough for the rate that is aimed at, at a third of the latency that is.
const AT_ONCE: usize = 256;
/// What is counted comes after the first of it, when as good as everybody has heard: so long, and so much for each collector.
const BEGINNING: Duration = Duration::from_secs(2);
const HEARING: Duration = Duration::from_micros(500);
const COUNTED: Duration = Duration::from_secs(10);
/// For the first observation to be acknowledged.
const PATIENCE: Duration = Duration::from_mins(2);

pub(super) fn target() -> String {
    format!("≥ {PER_SECOND_MIN:.0}/s, commit p99 ≤ {} ms", COMMIT_MAX.as_millis())
}

pub(super) async fn measure(ground: &mut Ground) -> anyhow::Result<Finding> {
    ground.look_once().await?;
    ground.fleet.record();
    let beginning = BEGINNING + HEARING * u32::try_from(ground.collectors)?;
    let until = Instant::now() + beginning + BEGINNING + COUNTED;
    let of_one = AT_ONCE.div_ceil(usize::try_from(ground.collectors)?);
    let places = Semaphore::new(AT_ONCE);
    ground.fleet.set_ingest(Some(Ingest { item_bytes: ITEM_BYTES, places, of_one, until }));
    let outcome = pour(ground, beginning, until).await;
    // Whatever came of it: afterwards they report as they did before.
    ground.fleet.set_ingest(None);
    // What is stored now is not what the policy would find.
    ground.is_evaluated = false;
    let record = ground.fleet.recorded();
    let (began, load) = outcome?;
    let counted = began..until;
    let acknowledged = record.commits.iter().filter(|commit| counted.contains(&commit.acknowledged)).count() as u64;
    let mut commits: Vec<Duration> = record
        .commits
        .iter()
        .filter(|commit| counted.contains(&commit.handed))
        .map(|commit| commit.acknowledged.duration_since(commit.handed))
        .collect();
    let seconds = until.duration_since(began).as_secs_f64();
    let rate = ratio(acknowledged, 1) / seconds;
    let [p50, p99] = [50, 99].map(|percent| percentile(&mut commits, percent));
    let (Some(p50), Some(p99)) = (p50, p99) else { bail!("nothing was acknowledged within {seconds:.0} s") };
    Ok(Finding {
        measured: format!("{rate:.0}/s, commit p99 {} (p50 {})", time(p99), time(p50)),
        is_met: rate >= PER_SECOND_MIN && p99 <= COMMIT_MAX,
        limit: load.limit(),
        figures: json!({
            "per-second": rounded(rate),
            "commit-p50-ms": millis(p50),
            "commit-p99-ms": millis(p99),
            "acknowledged": record.commits.len(),
            "on-their-way": AT_ONCE,
            "processes": load.json(),
        }),
    })
}

/// Has them pour; since when it is counted, and what was taken meanwhile.
async fn pour(ground: &mut Ground, beginning: Duration, until: Instant) -> anyhow::Result<(Instant, Load)> {
    let transaction = begin(&ground.installation, Ask::Collect(on_fleet(ground.policy.profile.as_ref()))).await?;
    let fleet = std::sync::Arc::clone(&ground.fleet);
    let first = async |_: &_| Ok(fleet.look(|record| !record.commits.is_empty()).then_some(()));
    ground.installation.wait_for("an observation is acknowledged", PATIENCE, first).await?;
    tokio::time::sleep(beginning).await;
    let began = Instant::now();
    if began + COUNTED / 2 > until {
        bail!("the first observation was acknowledged too late to count what follows");
    }
    let watch = Watch::begin(&ground.installation);
    tokio::time::sleep(until.duration_since(began)).await;
    let load = watch.end();
    let view = end(&ground.installation, transaction).await?;
    if view.account.answered != ground.collectors {
        bail!("not everybody could say what it had: {:?}", view.account);
    }
    Ok((began, load))
}
