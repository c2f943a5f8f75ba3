//! Signs that the machine was disturbed while a case was measured: steal, pressure from outside, preemption.
//!
//! Read before and after each measurement, outside of the measured time, and judged by pure functions. A mark never
//! removes a sample: it tells a reader, and the summary, which ones not to lean on.

use std::collections::BTreeMap;

use nix::sys::resource::{UsageWho, getrusage};
use procfs::{CpuPressure, Current, CurrentSI, KernelStats};

use crate::sys::clock;

/// Steal counts when the hypervisor took more than this part of the CPUs' time (1 %).
///
/// One tick of steal (10 ms) is what a short measurement can see at all, and is then always above it.
pub const STEAL_SHARE: f64 = 0.01;

/// Pressure counts when some task waited for a CPU for more than this part of the time (5 %), and others used more
/// than [`FOREIGN_SHARE`].
pub const PRESSURE_SHARE: f64 = 0.05;

/// … and processes that are not ours used more than this part of all CPUs' time (10 %).
///
/// PSI alone cannot tell: four starters on two CPUs wait for each other, and that is what is being measured. Our own
/// waiting always goes with our own CPU time, so what counts is the time of others: all user and system time of the
/// machine less that of the harness and its descendants. Softirqs are left out, since traffic under test causes
/// them; kernel threads that clean up after our containers are in, which is why the bound is not smaller.
pub const FOREIGN_SHARE: f64 = 0.10;

/// … and at least so many ticks of CPU time, because the kernel's counters step by whole ticks on each CPU.
pub const FOREIGN_TICKS: u64 = 3;

/// Preemption counts when the harness was switched out against its will more than this many times as often as in
/// the median measured block of the same case. A container on the harness's own CPU preempts it in every block: only what is
/// more than usual for the case is a disturbance.
pub const PREEMPTED_FACTOR: f64 = 3.0;

/// … and at least so many times more than in that block.
pub const PREEMPTED_SLACK: f64 = 10.0;

/// The machine's counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// ns of CLOCK_MONOTONIC.
    at_ns: u64,
    /// Ticks a second.
    ticks_per_second: u64,
    /// CPUs that are online.
    cpus: u64,
    /// Ticks that the hypervisor took, over all CPUs.
    steal: u64,
    /// Ticks in user and system mode of all processes, softirqs left out.
    busy: u64,
    /// Ticks of the harness and all its descendants, living and reaped.
    own: u64,
    /// Microseconds in which some task waited for a CPU; absent where the kernel has no PSI.
    pressure_us: Option<u64>,
    /// How often the harness was switched out against its will.
    involuntary: u64,
}

/// What lay between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// The hypervisor took time away.
    pub steal: bool,
    /// Others kept the CPUs busy while tasks waited.
    pub pressure: bool,
    /// How often the harness was switched out against its will; judged by [`usual_preemption`] at the end.
    pub involuntary: u64,
}

impl Reading {
    /// Reads the counters; `None` where /proc does not give them, and then nothing is flagged.
    #[must_use]
    pub fn take() -> Option<Self> {
        let stat = KernelStats::current().ok()?;
        let total = &stat.total;
        Some(Self {
            at_ns: clock::now_ns(),
            ticks_per_second: procfs::ticks_per_second(),
            cpus: stat.cpu_time.len() as u64,
            steal: total.steal.unwrap_or(0),
            busy: total.user + total.nice + total.system,
            own: own_ticks()?,
            pressure_us: CpuPressure::current().ok().map(|pressure| pressure.some.total),
            involuntary: involuntary_switches(),
        })
    }

    /// What happened from this reading to a later one.
    #[must_use]
    pub fn until(&self, later: &Self) -> Disturbance {
        let elapsed_ns = later.at_ns.saturating_sub(self.at_ns) as f64;
        let capacity = elapsed_ns / 1e9 * self.ticks_per_second as f64 * self.cpus.max(1) as f64;
        let steal = later.steal.saturating_sub(self.steal);
        let own = later.own.saturating_sub(self.own);
        let foreign = later.busy.saturating_sub(self.busy).saturating_sub(own);
        let waited_us = match (self.pressure_us, later.pressure_us) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => 0,
        };
        Disturbance {
            steal: steal as f64 > STEAL_SHARE * capacity,
            pressure: waited_us as f64 * 1e3 > PRESSURE_SHARE * elapsed_ns
                && foreign >= FOREIGN_TICKS
                && foreign as f64 > FOREIGN_SHARE * capacity,
            involuntary: later.involuntary.saturating_sub(self.involuntary),
        }
    }
}

/// Above how many involuntary switches a block of a case was disturbed, from the counts of its measured blocks.
#[must_use]
pub fn usual_preemption(counts: &[u64]) -> f64 {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    // The lower of the two middle ones: one count more or less does not matter for a rule of thumb.
    let usual = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0) as f64;
    (usual * PREEMPTED_FACTOR).max(usual + PREEMPTED_SLACK)
}

fn involuntary_switches() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.involuntary_context_switches().unsigned_abs())
}

/// CPU ticks of this process and every descendant, with what they inherited from those they reaped: the sum goes on
/// rising steadily when a process ends, because its time then moves to its parent's account.
fn own_ticks() -> Option<u64> {
    let me = i32::try_from(std::process::id()).ok()?;
    let mut processes: BTreeMap<i32, (i32, u64)> = BTreeMap::new();
    for process in procfs::process::all_processes().ok()?.flatten() {
        // A process may end between the listing and the reading.
        let Ok(stat) = process.stat() else { continue };
        let reaped = stat.cutime.unsigned_abs() + stat.cstime.unsigned_abs();
        processes.insert(stat.pid, (stat.ppid, stat.utime + stat.stime + reaped));
    }
    let is_ours = |pid: i32| {
        let mut at = pid;
        // No chain of parents is longer than the number of processes; a torn listing must not loop for ever.
        for _ in 0..processes.len() {
            if at == me {
                return true;
            }
            match processes.get(&at) {
                Some((parent, _)) if *parent > 0 => at = *parent,
                _ => return false,
            }
        }
        false
    };
    Some(processes.iter().filter(|(pid, _)| is_ours(**pid)).map(|(_, (_, ticks))| ticks).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Reading = Reading {
        at_ns: 0,
        ticks_per_second: 100,
        cpus: 2,
        steal: 10,
        busy: 1000,
        own: 100,
        pressure_us: Some(0),
        involuntary: 5,
    };

    /// One second on two CPUs has 200 ticks.
    fn after_a_second(change: impl FnOnce(&mut Reading)) -> Disturbance {
        let mut later = Reading { at_ns: 1_000_000_000, ..START };
        change(&mut later);
        START.until(&later)
    }

    #[test]
    fn a_quiet_machine_is_not_flagged() {
        assert_eq!(after_a_second(|_| {}), Disturbance::default());
    }

    #[test]
    fn steal_above_a_hundredth_is() {
        assert!(!after_a_second(|later| later.steal += 2).steal);
        assert!(after_a_second(|later| later.steal += 3).steal);
    }

    #[test]
    fn waiting_that_our_own_load_explains_is_not() {
        let own_load = after_a_second(|later| {
            later.pressure_us = Some(900_000);
            later.busy += 200;
            later.own += 195;
        });
        assert!(!own_load.pressure);
        let others = after_a_second(|later| {
            later.pressure_us = Some(900_000);
            later.busy += 200;
            later.own += 150;
        });
        assert!(others.pressure);
    }

    #[test]
    fn others_that_let_no_one_wait_are_not() {
        assert!(!after_a_second(|later| later.busy += 90).pressure);
    }

    #[test]
    fn a_kernel_without_pressure_figures_flags_none() {
        let before = Reading { pressure_us: None, ..START };
        let later = Reading { at_ns: 1_000_000_000, busy: 1200, pressure_us: None, ..START };
        assert!(!before.until(&later).pressure);
    }

    #[test]
    fn preemption_is_judged_by_what_is_usual_for_the_case() {
        assert!((usual_preemption(&[0, 0, 1]) - 10.0).abs() < 1e-9);
        assert!((usual_preemption(&[20, 30, 25, 900]) - 75.0).abs() < 1e-9);
        assert!((usual_preemption(&[]) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn this_machine_gives_readings_that_only_rise() {
        let before = Reading::take().expect("/proc is mounted where tests run");
        let started = clock::thread_cpu_ns();
        while clock::thread_cpu_ns() - started < 30_000_000 {
            std::hint::spin_loop();
        }
        let after = Reading::take().expect("/proc is mounted where tests run");
        assert!(after.own > before.own, "30 ms of our own time are at least two ticks: {before:?} {after:?}");
        assert!(after.busy >= before.busy && after.cpus >= 1 && after.at_ns > before.at_ns);
    }
}
