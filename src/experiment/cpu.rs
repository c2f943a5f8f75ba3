//! `cpu`: whether the kernel splits, limits and places CPU time as it was asked to.
//!
//! Every case starts containers whose programs spin ([`crate::workload::burn`]) in one window of the monotonic clock.
//! *Requested* is what the scenario asks for, *achieved* is what the spinning threads' own CPU clocks and work counts
//! say, *accounted* is what the control group's files say. Called by the schedule through [`Experiment`]; one file a
//! setting: [`shares`], [`quota`], [`cpuset`], [`wakeup`].
//!
//! # What keeps other things out
//!
//! - The containers stand in a group that has the most weight on the host ([`crate::cgroup::favour`]), so that other
//!   work does not take what a quota would have let through.
//! - Contenders are tied to one CPU by their own `sched_setaffinity`, not by the runtime under test: a runtime that
//!   forgets its limits must not look right by chance, nor two CPUs hide that there is no contest.
//! - The harness sleeps while a window is open, in no group of ours; what it uses all the same is the metric
//!   `harness_cpu`. A window at whose edges it was not let onto a CPU in time is measured again ([`crew`]).
//! - CPU time is taken over whole turns and whole periods ([`trace`]).

mod cpuset;
mod crew;
mod quota;
mod shares;
mod stage;
mod trace;
mod wakeup;

use std::sync::Arc;

use nix::time::{ClockId, clock_getres};

use super::{EnforcementObservation, Experiment, ExperimentError, Observation, Observations, Stop};
use crate::cgroup::Controller;
use crate::record::metric;
use crate::runtime::Runtime;
use crate::scenario::{CpuCase, CpuSetting};
use crate::units::ns;

use cpuset::Placement;
use quota::Quota;
use shares::Shares;
use stage::{Scene, Stage};
use wakeup::Wakeup;

/// The stated tolerance on every split and rate, in percent of what was requested.
const TOLERANCE_PCT: f64 = 2.0;

/// What it takes to divide CPU time and to count it.
const TIME: [Controller; 2] = [Controller::Cpu, Controller::Cpuacct];

/// One case of the `cpu` experiment.
pub struct CpuExperiment {
    case: CpuCase,
    runtime: Arc<dyn Runtime>,
    stage: Option<Stage>,
}

impl CpuExperiment {
    /// An experiment for one case.
    #[must_use]
    pub fn new(case: CpuCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime, stage: None }
    }
}

impl Experiment for CpuExperiment {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        self.stage = Some(match &self.case.setting {
            CpuSetting::Shares { .. } | CpuSetting::Wakeup { .. } => Stage::new(&TIME, 1)?,
            CpuSetting::Quota { percent, .. } => Stage::new(&TIME, quota::threads(*percent) as usize)?,
            CpuSetting::Cpuset { cpus, .. } => Placement::prepare(cpus)?,
        });
        Ok(())
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let stage = self.stage.as_ref().ok_or_else(|| failed("measuring")("the experiment was not prepared"))?;
        let (scene, duration_ns) = (Scene { stage, runtime: &*self.runtime, stop }, ns(self.case.duration));
        match &self.case.setting {
            CpuSetting::Shares { shares, nested, conservation } => {
                let case = Shares { shares, nested: *nested, conservation: *conservation, duration_ns };
                case.measure(scene, into)
            }
            CpuSetting::Quota { percent, period, spin } => {
                let case = Quota { percent: *percent, period: *period, spin: *spin, duration_ns };
                case.measure(scene, into)
            }
            CpuSetting::Cpuset { cpus, threads } => {
                Placement { cpus, threads: *threads, duration_ns }.measure(scene, into)
            }
            CpuSetting::Wakeup { shares } => Wakeup { shares, duration_ns }.measure(scene, into),
        }
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        self.stage.take().map_or(Ok(()), Stage::remove)
    }
}

/// A metric of this experiment; the list has every name that is used here, and a test says so.
fn push(into: &mut Observations, name: &str, value: f64, start_ns: u64) {
    into.values.push(Observation { metric: metric::named(name), iteration: 0, value, start_ns });
}

fn failed<E>(doing: impl Into<String>) -> impl FnOnce(E) -> ExperimentError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    ExperimentError::while_doing(doing)
}

/// A program printed another result than the one it was started for.
fn mixed_up() -> ExperimentError {
    failed("reading the containers' results")("a container printed another program's result")
}

/// The length of a timer tick: the coarse clock advances by one.
fn tick_ns() -> u64 {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(10_000_000, |tick| ns(tick.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_is_what_the_kernel_was_built_with() {
        assert!([1_000_000, 3_333_333, 4_000_000, 10_000_000].iter().any(|known| tick_ns().abs_diff(*known) < 10_000));
    }

    #[test]
    fn every_metric_is_in_the_list() {
        for name in [
            "harness_cpu",
            "longest_stall",
            "turn",
            "throttled_periods",
            "cpu_pressure",
            "placement_looks",
            "wakeup_latency",
        ] {
            assert_eq!((metric::named(name).name, metric::named(name).experiment), (name, "cpu"));
        }
    }
}
