//! Quota: CPU time a period, with as many spinning threads as it takes to want more.
//!
//! `achieved` is the threads' CPU time over the wall time from the first refill of the quota that shows in the window
//! to the last, so that whole periods are compared; see [`super::trace`] for why. Where nobody was ever held back,
//! as with a runtime that forgets the limit, it is over the whole window. `accounted` is over the same periods
//! ([`Reading::accounted`]).
//!
//! # What the kernel's granularity allows
//!
//! `checked` threads are stopped where the quota ends, and every refill finds it used up: 2 % hold at every point.
//! `free` ones run on to the next timer tick, and the debt is taken from the periods to come. In the long run that is
//! the same rate. With a quota Q in a period P and a tick K, on one CPU:
//!
//! - When a thread is stopped, it owes less than K. Each refill pays Q, so it stands still for C = ⌈K ÷ Q⌉ refills at
//!   most, and then resumes with a credit of more than 0 and at most Q.
//! - Between two resumptions it therefore uses Q for each refill between them, give or take less than Q. Over N periods
//!   that is less than `100 ÷ N` percent.
//! - Resumptions show in the window from its first C periods to its last C, so N is at least `T ÷ P - 2 C`.
//!
//! Together that is `100 × P ÷ (T - 2 × C × P)` percent, their tolerance where it is above 2 %. With more threads than
//! one, each further CPU may hold a slice that it has drawn and not used (5 ms by default), or owe a tick. What all of
//! this does to a program shows as `longest_stall`.
//!
//! # When the host takes CPU time away
//!
//! A quota is judged only where the container wanted more than it got. Where other work takes a CPU from it, periods end
//! without throttling, and each CPU keeps the slice that it had drawn: with 190 % of 10 ms, a window of 300 ms in which
//! 13 of 30 periods were throttled showed 2.6 % too much. And a virtual machine may be stopped as a whole: then a thread
//! stands still for longer than any quota can hold it (87 ms at 190 % of 10 ms were seen, and 8 % too little). So a window
//! in which some periods were throttled and fewer than four of five, or with a stall that is longer than the quota's by
//! [`SLICE_NS`], is measured again, up to [`REPEATS`] times. One without throttling, as with a runtime that forgets the
//! limit, stands; and so does what the last repetition shows.
//!
//! # No quota
//!
//! `percent = "max"` starts a container with half of a CPU and takes that back while it runs: its thread must have the
//! whole CPU then. As with work conservation, that is the part of what it used and what the CPU stood idle.

use std::sync::Arc;
use std::time::Duration;

use super::crew::{Member, Programme, Reading, Seen, perform};
use super::stage::Scene;
use super::trace::{Course, whole_periods};
use super::{EnforcementObservation, TOLERANCE_PCT, mixed_up, push, tick_ns};
use crate::cgroup::{Limits, cpu};
use crate::experiment::Judged;
use crate::experiment::{ExperimentError, Observations};
use crate::scenario::CpuSpin;
use crate::units::{Limit, ns};
use crate::workload::burn::{Burn, Phase, Spin};
use crate::workload::result::{Line, Window};

/// What a CPU draws of the quota at once, unless `/proc/sys/kernel/sched_cfs_bandwidth_slice_us` says otherwise.
const SLICE_NS: u64 = 5_000_000;
/// How often a window is measured again in which the host took CPU time away.
const REPEATS: u32 = 3;
/// What a container is started with whose quota is taken back.
const TAKEN_BACK_PCT: u32 = 50;

/// A case.
pub(super) struct Quota {
    pub percent: Limit,
    pub period: Duration,
    pub spin: CpuSpin,
    pub duration_ns: u64,
}

/// As many threads as want more than the quota gives, each on a CPU of its own.
pub(super) fn threads(percent: Limit) -> u32 {
    match percent {
        Limit::Value(percent) => percent as u32 / 100 + 1,
        Limit::Max => 1,
    }
}

impl Quota {
    /// In percent of one CPU, while it is started.
    fn percent(&self) -> u32 {
        match self.percent {
            Limit::Value(percent) => percent as u32,
            Limit::Max => TAKEN_BACK_PCT,
        }
    }

    /// See the head of this file.
    fn tolerance_pct(&self, tick_ns: u64) -> f64 {
        if self.spin == CpuSpin::Checked || self.percent == Limit::Max {
            return TOLERANCE_PCT;
        }
        let (period_ns, quota_ns) = (ns(self.period), ns(self.period * self.percent() / 100).max(1));
        let still_ns = tick_ns.div_ceil(quota_ns) * period_ns;
        // A window in which nothing need show is given as much as one of a single period.
        let whole_ns = self.duration_ns.saturating_sub(2 * still_ns).max(period_ns);
        let apart_ns = quota_ns + u64::from(threads(self.percent) - 1) * (tick_ns + SLICE_NS);
        let one = 100.0 * period_ns as f64 / whole_ns as f64;
        (one * apart_ns as f64 / quota_ns as f64).max(TOLERANCE_PCT)
    }

    pub(super) fn measure(&self, scene: Scene<'_>, into: &mut Observations) -> Result<(), ExperimentError> {
        let threads = threads(self.percent);
        let cpus: Vec<u32> = scene.stage.cpus.iter().rev().take(threads as usize).copied().collect();
        let seen = self.perform(scene, threads, &cpus)?;
        seen.push_harness(into);
        let (Some(window), Some((opened, closed))) = (seen.windows.first(), seen.readings.first()) else {
            return Err(mixed_up());
        };
        self.observe(&seen, threads, &cpus, into)?;
        push(into, "longest_stall", longest_gap_ns(&seen) as f64, window.start_ns);
        if let Some(periods) = throttled_periods(opened, closed) {
            push(into, "throttled_periods", periods as f64, window.start_ns);
        }
        if let (Some(before), Some(after)) = (opened.stalled_ns, closed.stalled_ns) {
            push(into, "cpu_pressure", after.saturating_sub(before) as f64, window.start_ns);
        }
        Ok(())
    }

    /// Lets the container spin for a window, again where others disturbed it.
    fn perform(&self, scene: Scene<'_>, threads: u32, cpus: &[u32]) -> Result<Seen, ExperimentError> {
        let spin = match self.spin {
            CpuSpin::Checked => Spin::Checked,
            CpuSpin::Free => Spin::Free,
        };
        let quota = cpu::Quota { quota: self.period * self.percent() / 100, period: self.period };
        let compose = |windows: &[Window]| {
            let phases = windows.iter().map(|window| Phase { window: *window, burn: true }).collect();
            let limits = Limits { cpu_quota: Some(quota), ..Limits::default() };
            let workload = Burn { threads, cpus: cpus.to_vec(), spin, phases }.to_words();
            vec![Member { workload, limits, parent: Arc::clone(&scene.stage.stand) }]
        };
        let unlimited = self.percent == Limit::Max;
        let programme = Programme {
            percent: self.percent(),
            idleness: unlimited,
            then: unlimited.then_some(cpu::Quota::UNLIMITED),
            ..Programme::of(self.duration_ns)
        };
        let mut seen = perform(scene, programme, 1, &compose)?;
        for _ in 0..REPEATS {
            if !self.was_disturbed(&seen) {
                break;
            }
            seen = perform(scene, programme, 1, &compose)?;
        }
        Ok(seen)
    }

    /// The row on the quota.
    fn observe(&self, seen: &Seen, threads: u32, cpus: &[u32], into: &mut Observations) -> Result<(), ExperimentError> {
        let (Some(window), Some((opened, closed)), [Line::Burn(result)]) =
            (seen.windows.first(), seen.readings.first(), seen.lines.as_slice())
        else {
            return Err(mixed_up());
        };
        let traces: Vec<_> =
            result.threads.iter().map(|thread| thread.phases.first().ok_or_else(mixed_up)).collect::<Result<_, _>>()?;
        let courses: Vec<Course<'_>> = traces.iter().map(|trace| Course(&trace.points)).collect();
        let used = |from, to| courses.iter().map(|course| course.between(from, to).cpu_ns).sum::<f64>();
        let unlimited = self.percent == Limit::Max;
        let achieved = if unlimited {
            let used_ns = used(window.start_ns, window.end_ns);
            used_ns / (used_ns + idle_ns(opened, closed, cpus, *window))
        } else {
            let whole = whole_periods(&courses, ns(self.period), *window);
            used(whole.start_ns, whole.end_ns) / whole.elapsed_ns() as f64
        };
        into.enforcement.push(EnforcementObservation {
            controller: "cpu",
            setting: "quota".to_owned(),
            unit: "ratio",
            iteration: 0,
            requested: if unlimited { f64::from(threads) } else { f64::from(self.percent()) / 100.0 },
            achieved,
            accounted: opened.accounted(closed, *window, 0, achieved, used),
            tolerance_pct: self.tolerance_pct(tick_ns()),
            start_ns: window.start_ns,
            judged: Judged::Achieved,
        });
        Ok(())
    }

    /// Whether the quota was used up in some periods and not in most, or a thread stood still for longer than it holds.
    fn was_disturbed(&self, seen: &Seen) -> bool {
        let Some((opened, closed)) = seen.readings.first() else { return false };
        let periods = (closed.at_ns - opened.at_ns) / ns(self.period).max(1);
        let Some(throttled) = throttled_periods(opened, closed).filter(|throttled| *throttled > 0) else {
            return false;
        };
        throttled * 5 < periods * 4 || longest_gap_ns(seen) > self.longest_stall_ns().saturating_add(SLICE_NS)
    }

    /// How long the quota may hold a thread: the rest of the period once the other threads have run all through it. What
    /// `free` ones owe may take any time.
    fn longest_stall_ns(&self) -> u64 {
        let period_ns = ns(self.period);
        match (self.spin, self.percent) {
            (CpuSpin::Free, _) | (_, Limit::Max) => u64::MAX,
            (CpuSpin::Checked, Limit::Value(_)) => {
                let wanted_ns = u64::from(threads(self.percent)) * period_ns;
                wanted_ns.saturating_sub(ns(self.period * self.percent() / 100)).min(period_ns)
            }
        }
    }
}

/// The longest time that a thread stood still in the first window.
fn longest_gap_ns(seen: &Seen) -> u64 {
    let threads = seen.lines.iter().filter_map(|line| match line {
        Line::Burn(result) => Some(&result.threads),
        _ => None,
    });
    threads.flatten().filter_map(|thread| Some(thread.phases.first()?.longest_gap_ns)).max().unwrap_or(0)
}

/// In how many periods between two readings the quota was used up.
fn throttled_periods(opened: &Reading, closed: &Reading) -> Option<u64> {
    let throttled = |reading: &Reading| Some(reading.throttling.first().copied().flatten()?.throttled_periods);
    Some(throttled(closed)?.saturating_sub(throttled(opened)?))
}

/// How long CPUs stood idle while somebody should have used them, in ns. Where /proc/stat does not tell, the whole
/// window counts, and the case fails rather than passes.
fn idle_ns(opened: &Reading, closed: &Reading, cpus: &[u32], window: Window) -> f64 {
    cpus.iter().map(|cpu| opened.idle_until(closed, window, *cpu).unwrap_or_else(|| window.elapsed_ns()) as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_threads_enough_to_want_more() {
        assert_eq!([1, 99, 100, 190, 200].map(|percent| threads(Limit::Value(percent))), [1, 1, 2, 2, 3]);
        assert_eq!(threads(Limit::Max), 1);
    }

    #[test]
    fn only_free_threads_have_a_wider_tolerance_and_only_with_few_periods() {
        let tolerance = |spin, percent, period_ms| {
            let period = Duration::from_millis(period_ms);
            Quota { percent, period, spin, duration_ns: 2_000_000_000 }.tolerance_pct(4_000_000)
        };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        let percent = Limit::Value;
        near(tolerance(CpuSpin::Checked, percent(10), 100), 2.0);
        near(tolerance(CpuSpin::Free, percent(40), 10), 2.0);
        // A tick is paid for by one refill of 50 ms, and by four of 1 ms.
        near(tolerance(CpuSpin::Free, percent(50), 100), 100.0 / 18.0);
        near(tolerance(CpuSpin::Free, percent(1), 100), 100.0 / 12.0);
        // Two threads: the other CPU may be a slice or a tick away.
        near(tolerance(CpuSpin::Free, percent(100), 100), 100.0 / 18.0 * 1.09);
        // Half a second shows nothing of 1 % of 100 ms for sure.
        let short = Quota { duration_ns: 500_000_000, ..case_of_one_percent() };
        near(short.tolerance_pct(4_000_000), 100.0);
        near(tolerance(CpuSpin::Free, Limit::Max, 100), 2.0);
    }

    #[test]
    fn a_quota_holds_a_thread_for_the_rest_of_a_period_at_most() {
        let stall_ms = |percent, spin| {
            let period = Duration::from_millis(100);
            Quota { percent, period, spin, duration_ns: 0 }.longest_stall_ns() / 1_000_000
        };
        let checked = |percent| stall_ms(Limit::Value(percent), CpuSpin::Checked);
        // At 100 % two threads want twice as much, and one may get all.
        assert_eq!([1, 50, 100, 190].map(checked), [99, 50, 100, 10]);
        assert_eq!(stall_ms(Limit::Value(1), CpuSpin::Free), u64::MAX / 1_000_000);
    }

    fn case_of_one_percent() -> Quota {
        let period = Duration::from_millis(100);
        Quota { percent: Limit::Value(1), period, spin: CpuSpin::Free, duration_ns: 0 }
    }
}
