//! Whether load comes evenly: a fleet that does the same at the same time costs more than one that does not.

use anyhow::bail;

use super::Ground;
use super::daemon::Program;
use super::figures::ratio;
use super::usage::Watch;

/// Looks in each heartbeat's interval.
const LOOKS: u32 = 6;
/// Hundredths of a second in a look, below which the kernel's counting is too coarse to say what is more.
const TICKS_MIN: f64 = 20.0;
const SERVERS: [Program; 2] = [Program::Orchestrator, Program::Repository];

/// How much more than the mean there is to do at most, in a part of a heartbeat's interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peaks {
    /// In messages that the broker takes.
    pub(crate) by_messages: f64,
    /// In time of the processor; nothing, where there is too little of it to say so.
    pub(crate) by_processor: Option<f64>,
    /// How many messages there were.
    pub(crate) messages: u64,
}

impl Peaks {
    /// The larger one.
    pub(crate) fn most(&self) -> f64 {
        self.by_messages.max(self.by_processor.unwrap_or_default())
    }

    /// Looks for so many heartbeats.
    pub(crate) async fn look(ground: &Ground, heartbeats: u32) -> anyhow::Result<Self> {
        let installation = &ground.installation;
        let (mut messages, mut processor) = (Vec::new(), Vec::new());
        let mut tick = tokio::time::interval(ground.heartbeat() / LOOKS);
        tick.tick().await;
        let first = installation.message_count().await?;
        let mut before = first;
        for _ in 0..heartbeats * LOOKS {
            let watch = Watch::begin(installation);
            tick.tick().await;
            processor.push(watch.end().processor(&SERVERS).as_secs_f64() * 100.0);
            let now = installation.message_count().await?;
            messages.push(ratio(now.saturating_sub(before), 1));
            before = now;
        }
        if before == first {
            bail!("nobody has said anything in {heartbeats} heartbeats");
        }
        let by_processor = (mean(&processor) >= TICKS_MIN).then(|| peak(&processor));
        Ok(Self { by_messages: peak(&messages), by_processor, messages: before - first })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / ratio(values.len() as u64, 1).max(1.0)
}

/// The largest beside the mean.
fn peak(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max) / mean(values).max(f64::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_beside_the_mean() {
        let check = |values: &[f64], expect: f64| assert!((peak(values) - expect).abs() < 1e-9, "{values:?}");
        check(&[5.0, 5.0, 5.0], 1.0);
        check(&[1.0, 1.0, 4.0], 2.0);
        check(&[0.0, 0.0], 0.0);
    }
}
