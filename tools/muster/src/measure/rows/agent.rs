//! What it costs an endpoint that its collector is there.

use std::time::Duration;

use serde_json::json;

use crate::measure::Ground;
use crate::measure::daemon::Program;
use crate::measure::figures::{megabytes, rounded};
use crate::measure::table::Finding;
use crate::measure::usage::Watch;

const MEMORY_MB_MAX: f64 = 12.0;
const CORE_PERCENT_MAX: f64 = 0.2;
const LOOKED_AT: Duration = Duration::from_mins(1);
const AGENT: [Program; 1] = [Program::Agent];

pub(super) fn target() -> String {
    format!("RSS ≤ {MEMORY_MB_MAX:.0} MB, ≤ {CORE_PERCENT_MAX} % of a core")
}

pub(super) async fn measure(ground: &mut Ground) -> anyhow::Result<Finding> {
    let watch = Watch::begin(&ground.installation);
    tokio::time::sleep(LOOKED_AT).await;
    let load = watch.end();
    let share = load.share(&AGENT) * 100.0;
    let memory = megabytes(load.memory_kib(&AGENT));
    // The kernel counts in hundredths of a second: of a minute, that is a sixtieth of a hundredth.
    let processor = load.processor(&AGENT);
    Ok(Finding {
        measured: format!("RSS {memory:.1} MB, {share:.2} % of a core"),
        is_met: memory <= MEMORY_MB_MAX && share <= CORE_PERCENT_MAX,
        limit: format!("the agent computed for {} ms in {} s", processor.as_millis(), load.elapsed().as_secs()),
        figures: json!({
            "rss-mb": memory,
            "rss-most-mb": megabytes(load.memory_most_kib(&AGENT)),
            "core-percent": rounded(share),
            "processor-ms": u64::try_from(processor.as_millis())?,
            "seconds": rounded(load.elapsed().as_secs_f64()),
        }),
    })
}
