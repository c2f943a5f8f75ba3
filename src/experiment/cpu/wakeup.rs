//! Wake-up latency under contention: a container that sleeps and wakes beside others that spin on its CPU.

use super::crew::{Member, Programme, burner, perform};
use super::stage::Scene;
use super::{failed, metric_named, mixed_up, push};
use crate::experiment::{ExperimentError, HistogramObservation, Observations};
use crate::workload::burn::Phase;
use crate::workload::doze::Doze;
use crate::workload::result::{Line, Window};

/// The shortest sleep: 370 wake-ups in 2 s. The sleeps vary by an eighth, so that they never fall in step with ticks.
const EVERY_NS: u64 = 5_000_000;

/// A case.
pub(super) struct Wakeup<'a> {
    /// Of the sleeper, and of each burner.
    pub shares: &'a [u64],
    pub duration_ns: u64,
}

impl Wakeup<'_> {
    pub(super) fn measure(&self, scene: Scene<'_>, into: &mut Observations) -> Result<(), ExperimentError> {
        let (stand, cpu) = (&scene.stage.stand, scene.stage.meeting_cpu());
        let compose = |windows: &[Window]| -> Vec<Member> {
            let Some(window) = windows.first().copied() else { return Vec::new() };
            let member = |(index, shares): (usize, &u64)| {
                let workload = if index == 0 {
                    Doze { window, every_ns: EVERY_NS, cpu: Some(cpu) }.to_words()
                } else {
                    burner(cpu, vec![Phase { window, burn: true }])
                };
                Member::with_shares(workload, *shares, stand)
            };
            self.shares.iter().enumerate().map(member).collect()
        };
        let programme = Programme { birthplace: Some(cpu), ..Programme::of(self.duration_ns) };
        let seen = perform(scene, programme, self.shares.len(), &compose)?;
        seen.push_harness(into);
        let (Some(window), Some(Line::Doze(result))) = (seen.windows.first(), seen.lines.first()) else {
            return Err(mixed_up());
        };
        let histogram = result.latency.decode().map_err(failed("reading the sleeper's latencies"))?;
        push(into, "wakeup_latency", histogram.value_at_quantile(0.5) as f64, window.start_ns);
        let metric = metric_named("wakeup_latency");
        into.histograms.push(HistogramObservation { metric, iteration: 0, histogram });
        Ok(())
    }
}
