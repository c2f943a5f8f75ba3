//! Wake-up latency under contention: a container that sleeps and wakes beside others that spin on its CPU.

use std::sync::Arc;

use super::crew::{Member, Programme, perform};
use super::stage::Stage;
use super::{failed, metric_named, mixed_up, push};
use crate::cgroup::{Controller, Limits};
use crate::experiment::{ExperimentError, HistogramObservation, Observations, Stop};
use crate::runtime::Runtime;
use crate::workload::burn::{Burn, Phase, Spin};
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
    pub(super) fn prepare() -> Result<Stage, ExperimentError> {
        Stage::new(&[Controller::Cpu, Controller::Cpuacct], 1)
    }

    pub(super) fn measure(
        &self,
        stage: &Stage,
        runtime: &dyn Runtime,
        into: &mut Observations,
        stop: Stop<'_>,
    ) -> Result<(), ExperimentError> {
        let cpu = stage.meeting_cpu();
        let compose = |windows: &[Window]| -> Vec<Member> {
            let Some(window) = windows.first().copied() else { return Vec::new() };
            let member = |(index, shares): (usize, &u64)| Member {
                workload: if index == 0 {
                    Doze { window, every_ns: EVERY_NS, cpu: Some(cpu) }.to_words()
                } else {
                    let phases = vec![Phase { window, burn: true }];
                    Burn { threads: 1, cpus: vec![cpu], spin: Spin::Free, phases }.to_words()
                },
                limits: Limits { cpu_shares: Some(*shares), ..Limits::default() },
                parent: Arc::clone(&stage.stand),
            };
            self.shares.iter().enumerate().map(member).collect()
        };
        let programme = Programme {
            duration_ns: self.duration_ns,
            windows: 1,
            percent: 100,
            birthplace: Some(cpu),
            idleness: false,
        };
        let seen = perform(runtime, programme, self.shares.len(), &compose, stop)?;
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
