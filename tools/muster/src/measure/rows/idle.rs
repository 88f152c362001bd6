//! What it costs that collectors are there.

use serde_json::json;

use crate::measure::Ground;
use crate::measure::daemon::Program;
use crate::measure::figures::{megabytes, percent, rounded};
use crate::measure::peaks::Peaks;
use crate::measure::table::Finding;
use crate::measure::usage::Watch;

const CORE_PERCENT_MAX: f64 = 25.0;
const MEMORY_MB_MAX: f64 = 600.0;
/// Heartbeats over which it is looked.
const HEARTBEATS: u32 = 2;
/// The broker is in the orchestrator.
const SERVERS: [Program; 2] = [Program::Orchestrator, Program::Repository];

pub(super) fn target() -> String {
    format!("≤ {CORE_PERCENT_MAX:.0} % of a core, ≤ {MEMORY_MB_MAX:.0} MB for orchestrator with broker, and repository")
}

pub(super) async fn measure(ground: &mut Ground) -> anyhow::Result<Finding> {
    let heartbeat = ground.heartbeat();
    // By then everybody has heard how often: who joined first was told for a smaller fleet.
    tokio::time::sleep(heartbeat).await;
    let watch = Watch::begin(&ground.installation);
    let peaks = Peaks::look(ground, HEARTBEATS).await?;
    let load = watch.end();
    ground.peaks = Some(peaks);
    let share = load.share(&SERVERS);
    let memory = megabytes(load.memory_kib(&SERVERS));
    Ok(Finding {
        measured: format!(
            "{} of a core, {memory:.0} MB; {} messages in {} s, peak/mean {:.2}",
            percent(share),
            peaks.messages,
            load.elapsed().as_secs(),
            peaks.by_messages,
        ),
        is_met: share * 100.0 <= CORE_PERCENT_MAX && memory <= MEMORY_MB_MAX,
        limit: load.limit(),
        figures: json!({
            "core-percent": rounded(share * 100.0),
            "rss-mb": memory,
            "messages": peaks.messages,
            "peak-by-messages": rounded(peaks.by_messages),
            "peak-by-processor": peaks.by_processor.map(rounded),
            "seconds": rounded(load.elapsed().as_secs_f64()),
            "processes": load.json(),
        }),
    })
}
