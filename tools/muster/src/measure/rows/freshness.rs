//! A question that says how old an answer may be: what is fresh enough is stored and answered, and for what is not the real
//! collector looks first.

use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::Timestamp;
use proto::operator::Question;
use serde_json::json;

use crate::measure::Ground;
use crate::measure::figures::{millis, percentile, time};
use crate::measure::installation::AGENT;
use crate::measure::table::Finding;
use crate::measure::usage::Watch;
use crate::measure::workflow::{question, search};

const HIT_MAX: Duration = Duration::from_millis(20);
const MISS_MAX: Duration = Duration::from_secs(3);
const HITS: u32 = 100;
const MISSES: u32 = 20;
/// How old an answer may be that is a hit.
const FRESH_SECONDS: u64 = 3_600;
const QUESTION: &str = "unix:file where filepath = /etc/hostname";

pub(super) fn target() -> String {
    format!("p99 ≤ {} ms / ≤ {} with collection", HIT_MAX.as_millis(), time(MISS_MAX))
}

/// Asks once, of an age; how long it took, and when the endpoint was looked at.
async fn ask(ground: &Ground, max_age_seconds: u64) -> anyhow::Result<(Duration, Timestamp)> {
    let question =
        Question { max_age_seconds: Some(max_age_seconds), is_collected: true, ..question(QUESTION, AGENT)? };
    let asked = Instant::now();
    let pages = search(&ground.installation, question).await?;
    let took = asked.elapsed();
    let rows: Vec<_> = pages.iter().flat_map(|page| &page.rows).collect();
    match rows[..] {
        [row] if row.matched == 1 && !row.is_stale => Ok((took, row.collected)),
        _ => bail!("one file was asked for, and {rows:?} is the answer"),
    }
}

pub(super) async fn measure(ground: &mut Ground) -> anyhow::Result<Finding> {
    // Somebody has to have asked for it once.
    let (_, mut known) = ask(ground, 0).await?;
    let watch = Watch::begin(&ground.installation);
    let mut hits = Vec::new();
    for _ in 0..HITS {
        let (took, collected) = ask(ground, FRESH_SECONDS).await?;
        if collected != known {
            bail!("what is fresh enough was collected again");
        }
        hits.push(took);
    }
    let mut misses = Vec::new();
    for _ in 0..MISSES {
        let (took, collected) = ask(ground, 0).await?;
        if collected <= known {
            bail!("what is not fresh enough was not collected again");
        }
        known = collected;
        misses.push(took);
    }
    let load = watch.end();
    let of = |times: &mut [Duration]| [50, 99].map(|percent| percentile(times, percent).unwrap_or_default());
    let ([hit_p50, hit_p99], [miss_p50, miss_p99]) = (of(&mut hits), of(&mut misses));
    Ok(Finding {
        measured: format!(
            "hit p99 {} (p50 {}) of {HITS}, miss p99 {} (p50 {}) of {MISSES}",
            time(hit_p99),
            time(hit_p50),
            time(miss_p99),
            time(miss_p50)
        ),
        is_met: hit_p99 <= HIT_MAX && miss_p99 <= MISS_MAX,
        limit: load.limit(),
        figures: json!({
            "hit-p50-ms": millis(hit_p50),
            "hit-p99-ms": millis(hit_p99),
            "hits": HITS,
            "miss-p50-ms": millis(miss_p50),
            "miss-p99-ms": millis(miss_p99),
            "misses": MISSES,
            "processes": load.json(),
        }),
    })
}
