//! Quota: CPU time a period, with as many spinning threads as it takes to want more.
//!
//! `achieved` is the threads' CPU time over the wall time from the first refill of the quota that shows in the window
//! to the last, so that whole periods are compared; see [`super::trace`] for why. Where nobody was ever held back,
//! as with a runtime that forgets the limit, it is over the whole window. `accounted` is `achieved` times what was
//! charged to the group over what the threads used, both between the harness's two readings: so it differs from
//! `achieved` by what the accounting gets wrong, and not by another window.
//!
//! # What the kernel's granularity allows
//!
//! `checked` threads are stopped where the quota ends, and every refill finds it used up: 2 % hold at every point.
//! `free` ones run on to the next timer tick, and the debt is taken from the periods to come. In the long run that is
//! the same rate, but at a refill up to one period's quota may be left or owed. Over a window T that is `100 × period
//! ÷ T` percent, which is their tolerance where it is above 2 %. What it does to a program shows as `longest_stall`.

use std::sync::Arc;
use std::time::Duration;

use super::crew::{Member, Programme, perform};
use super::stage::Stage;
use super::trace::{Course, whole_periods};
use super::{EnforcementObservation, TOLERANCE_PCT, mixed_up, ns, push};
use crate::cgroup::{Controller, Limits, cpu};
use crate::experiment::{ExperimentError, Observations, Stop};
use crate::runtime::Runtime;
use crate::scenario::CpuSpin;
use crate::workload::burn::{Burn, Phase, Spin};
use crate::workload::result::{Line, Window};

/// A case.
pub(super) struct Quota {
    pub percent: u32,
    pub period: Duration,
    pub spin: CpuSpin,
    pub duration_ns: u64,
}

/// As many threads as want more than the quota gives, each on a CPU of its own.
fn threads(percent: u32) -> u32 {
    percent / 100 + 1
}

impl Quota {
    pub(super) fn prepare(percent: u32) -> Result<Stage, ExperimentError> {
        Stage::new(&[Controller::Cpu, Controller::Cpuacct], threads(percent) as usize)
    }

    fn tolerance_pct(&self) -> f64 {
        match self.spin {
            CpuSpin::Checked => TOLERANCE_PCT,
            CpuSpin::Free => {
                // Of the window, up to a period is lost before the first refill that shows.
                let whole_ns = self.duration_ns.saturating_sub(ns(self.period)).max(1);
                (100.0 * ns(self.period) as f64 / whole_ns as f64).max(TOLERANCE_PCT)
            }
        }
    }

    pub(super) fn measure(
        &self,
        stage: &Stage,
        runtime: &dyn Runtime,
        into: &mut Observations,
        stop: Stop<'_>,
    ) -> Result<(), ExperimentError> {
        let spin = match self.spin {
            CpuSpin::Checked => Spin::Checked,
            CpuSpin::Free => Spin::Free,
        };
        let threads = threads(self.percent);
        let cpus: Vec<u32> = stage.cpus.iter().rev().take(threads as usize).copied().collect();
        let quota = cpu::Quota { quota: self.period * self.percent / 100, period: self.period };
        let compose = |windows: &[Window]| {
            let phases = windows.iter().map(|window| Phase { window: *window, burn: true }).collect();
            let limits = Limits { cpu_quota: Some(quota), ..Limits::default() };
            let workload = Burn { threads, cpus: cpus.clone(), spin, phases }.to_words();
            vec![Member { workload, limits, parent: Arc::clone(&stage.stand) }]
        };
        let programme = Programme {
            duration_ns: self.duration_ns,
            windows: 1,
            percent: self.percent,
            birthplace: None,
            idleness: false,
        };
        let seen = perform(runtime, programme, 1, &compose, stop)?;
        seen.push_harness(into);

        let (Some(window), Some((opened, closed)), [Line::Burn(result)]) =
            (seen.windows.first(), seen.readings.first(), seen.lines.as_slice())
        else {
            return Err(mixed_up());
        };
        let traces: Vec<_> =
            result.threads.iter().map(|thread| thread.phases.first().ok_or_else(mixed_up)).collect::<Result<_, _>>()?;
        let courses: Vec<Course<'_>> = traces.iter().map(|trace| Course(&trace.points)).collect();
        let used = |from, to| courses.iter().map(|course| course.between(from, to).cpu_ns).sum::<f64>();

        let whole = whole_periods(&courses, ns(self.period), *window);
        let achieved = used(whole.start_ns, whole.end_ns) / whole.elapsed_ns() as f64;
        let (from, to) = (opened.at_ns.max(window.start_ns), closed.at_ns.min(window.end_ns));
        let between_readings = used(from, to);
        // A closing reading that comes late also holds what was used after the window, of which no trace tells.
        let in_time = closed.at_ns.saturating_sub(window.end_ns) <= window.elapsed_ns() / 200;
        let charged = opened.charged_until(closed, 0).filter(|_| in_time && between_readings > 0.0);
        into.enforcement.push(EnforcementObservation {
            controller: "cpu",
            setting: "quota".to_owned(),
            unit: "ratio",
            iteration: 0,
            requested: f64::from(self.percent) / 100.0,
            achieved,
            accounted: charged.map(|charged| achieved * charged / between_readings),
            tolerance_pct: self.tolerance_pct(),
            start_ns: window.start_ns,
        });
        let stall = traces.iter().map(|trace| trace.longest_gap_ns).max().unwrap_or(0);
        push(into, "longest_stall", stall as f64, window.start_ns);
        let throttling = |reading: &super::crew::Reading| reading.throttling.first().copied().flatten();
        if let Some((before, after)) = throttling(opened).zip(throttling(closed)) {
            let periods = after.throttled_periods.saturating_sub(before.throttled_periods);
            push(into, "throttled_periods", periods as f64, window.start_ns);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_threads_enough_to_want_more() {
        assert_eq!([1, 99, 100, 190, 200].map(threads), [1, 1, 2, 2, 3]);
    }

    #[test]
    fn only_free_threads_have_a_wider_tolerance_and_only_with_few_periods() {
        let case = |spin, period_ms| Quota {
            percent: 10,
            period: Duration::from_millis(period_ms),
            spin,
            duration_ns: 2_000_000_000,
        };
        assert_eq!(case(CpuSpin::Checked, 100).tolerance_pct(), 2.0);
        assert_eq!(case(CpuSpin::Free, 10).tolerance_pct(), 2.0);
        assert!((case(CpuSpin::Free, 100).tolerance_pct() - 100.0 / 19.0).abs() < 1e-9);
    }
}
