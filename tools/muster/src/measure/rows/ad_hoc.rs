//! An operator asks all of them at once: when they have heard it, and when something has come back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use proto::operator::{Ask, OperatorEvent};
use serde_json::json;

use crate::client;
use crate::measure::Ground;
use crate::measure::figures::{millis, percentile, time};
use crate::measure::table::Finding;
use crate::measure::usage::Watch;
use crate::measure::workflow::on_fleet;

const DELIVERED_MAX: Duration = Duration::from_secs(5);
const FIRST_MAX: Duration = Duration::from_millis(500);

pub(super) fn target() -> String {
    format!("delivered p99 ≤ {}, first result ≤ {} ms", time(DELIVERED_MAX), FIRST_MAX.as_millis())
}

pub(super) async fn measure(ground: &mut Ground) -> anyhow::Result<Finding> {
    ground.look_once().await?;
    ground.fleet.record();
    let watch = Watch::begin(&ground.installation);
    let ask = Ask::Collect(on_fleet(ground.policy.profile.as_ref()));
    let asked = Instant::now();
    let mut answers = client::ask(ground.installation.directory(), ask, &[]).await?;
    let (mut id, mut first, mut ended) = (None, None, None);
    while let Some(event) = answers.next().await? {
        match event {
            OperatorEvent::Started { transaction, .. } => id = Some(transaction),
            OperatorEvent::Progress { done: 1.., .. } if first.is_none() => first = Some(asked.elapsed()),
            OperatorEvent::Ended(view) => ended = Some(view),
            _ => {}
        }
    }
    let drained = asked.elapsed();
    let load = watch.end();
    let record = ground.fleet.recorded();
    let (id, view) = (id.context("the task did not begin")?, ended.context("the task did not end")?);
    let first = first.context("nothing came back")?;
    let arrivals = record.arrivals.iter().filter(|arrival| arrival.transaction == id);
    let heard: BTreeSet<u64> = arrivals.clone().map(|arrival| arrival.collector).collect();
    let mut delivered: Vec<Duration> = arrivals.map(|arrival| arrival.at.duration_since(asked)).collect();
    if heard.len() as u64 != ground.collectors || view.account.answered != ground.collectors {
        bail!("{} of {} collectors have heard of it: {:?}", heard.len(), ground.collectors, view.account);
    }
    let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(&mut delivered, percent).unwrap_or_default());
    Ok(Finding {
        measured: format!(
            "delivered p99 {}, first result {}; all {} answered after {}",
            time(p99),
            time(first),
            view.account.answered,
            time(drained)
        ),
        is_met: p99 <= DELIVERED_MAX && first <= FIRST_MAX,
        limit: load.limit(),
        figures: json!({
            "delivered-p50-ms": millis(p50),
            "delivered-p99-ms": millis(p99),
            "delivered-last-ms": millis(most),
            "first-result-ms": millis(first),
            "all-answered-ms": millis(drained),
            "answered": view.account.answered,
            "processes": load.json(),
        }),
    })
}
