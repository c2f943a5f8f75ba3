//! Containers that act in the same windows, and what the harness reads at the windows' edges.

use std::sync::Arc;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::{failed, metric_named};
use crate::cgroup::cpu::{Throttling, throttling, usage_ns};
use crate::cgroup::{CgroupError, Controller, Group, Hierarchy, Limits, read};
use crate::experiment::network::end::{End, EndError, sleep_until};
use crate::experiment::{ExperimentError, Observation, Observations, Stop};
use crate::runtime::{Instance, Network, Runtime, StartRequest};
use crate::sys::clock;
use crate::workload::burn::{LEAD_NS, TAIL_NS};
use crate::workload::result::{Line, Window};

/// How long anything beside the windows may take.
const PATIENCE_NS: u64 = 10_000_000_000;
/// What each container is given to be started, at first.
const START_NS: u64 = 25_000_000;
/// CPU time that a start takes from the moment at which its limits hold; a quota stretches it.
const START_CPU_NS: u64 = 5_000_000;
/// How often containers that came too late are started again, with twice the time.
const TRIES: u32 = 6;

/// One container.
pub(super) struct Member {
    /// Its program.
    pub workload: Vec<String>,
    /// Its limits.
    pub limits: Limits,
    /// The group in which its own is made.
    pub parent: Arc<Group>,
}

/// What the harness read at one instant.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// When: ns of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// CPU time of this process.
    pub harness_ns: u64,
    /// CPU time charged to each member's group; absent where it has none.
    pub usage_ns: Vec<Option<u64>>,
    /// What the quota did to each.
    pub throttling: Vec<Option<Throttling>>,
    /// CPU time charged to the first member's group on each CPU, where the kernel tells (v1).
    pub per_cpu_ns: Option<Vec<u64>>,
    /// How long each CPU has been idle, in ns; empty where nobody asked.
    pub idle_ns: Vec<u64>,
}

/// What came of one performance.
pub(super) struct Seen {
    /// The windows.
    pub windows: Vec<Window>,
    /// The last line of each member.
    pub lines: Vec<Line>,
    /// The readings at both edges of each window.
    pub readings: Vec<(Reading, Reading)>,
}

/// How long each window is, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Programme {
    /// The length of a window, in ns.
    pub duration_ns: u64,
    /// How many.
    pub windows: u64,
    /// What of a CPU each container may use, in percent, while it is started; above 100 is as much as 100.
    pub percent: u32,
    /// The CPU on which containers are started, and so born.
    ///
    /// A group's weight on a CPU is its shares times the part of its load that is there. What a container used on
    /// another CPU while it was started counts as load there until it has faded (by half in 32 ms), and makes the group
    /// lighter on this one: of two containers, the one that was started last got up to 2 % less in the first half second.
    pub birthplace: Option<u32>,
    /// Whether the CPUs' idle time is read, which costs the harness most of what it uses in a window.
    pub idleness: bool,
}

impl Programme {
    /// What the starts of `count` containers are given in a first attempt, in ns.
    fn allowance_ns(self, count: usize) -> u64 {
        (START_NS + START_CPU_NS * 100 / u64::from(self.percent.clamp(1, 100))) * count as u64
    }

    /// The windows, when the first phase may begin at `at_ns`.
    fn windows(self, at_ns: u64) -> Vec<Window> {
        let stride = LEAD_NS + self.duration_ns + TAIL_NS;
        let window = |index| {
            let start_ns = at_ns + index * stride + LEAD_NS;
            Window { start_ns, end_ns: start_ns + self.duration_ns }
        };
        (0..self.windows).map(window).collect()
    }
}

/// Starts the members that `compose` makes for the windows, and follows them to their end. Where one was not there in
/// time, all are started again with more time.
pub(super) fn perform(
    runtime: &dyn Runtime,
    programme: Programme,
    count: usize,
    compose: &dyn Fn(&[Window]) -> Vec<Member>,
    stop: Stop<'_>,
) -> Result<Seen, ExperimentError> {
    for attempt in 0..TRIES {
        let allowance_ns = programme.allowance_ns(count) << attempt;
        let windows = programme.windows(clock::now_ns() + allowance_ns);
        if let Some(seen) = perform_once(runtime, programme, windows.clone(), compose(&windows), stop)? {
            return Ok(seen);
        }
    }
    let given_ms = (programme.allowance_ns(count) << (TRIES - 1)) / 1_000_000;
    let reason = format!("{count} containers did not start within {given_ms} ms");
    Err(failed("starting the containers")(reason))
}

/// `None` when a member was late.
fn perform_once(
    runtime: &dyn Runtime,
    programme: Programme,
    windows: Vec<Window>,
    members: Vec<Member>,
    stop: Stop<'_>,
) -> Result<Option<Seen>, ExperimentError> {
    let begin_ns = windows.first().map_or(0, |window| window.start_ns.saturating_sub(LEAD_NS));
    let Some(mut ends) = start_all(runtime, programme.birthplace, members, begin_ns)? else { return Ok(None) };
    keep_out(&ends)?;
    let mut readings = Vec::new();
    for window in &windows {
        sleep_until(window.start_ns, stop).map_err(stopped)?;
        let opened = Reading::take(&ends, programme.idleness).map_err(failed("reading what was charged"))?;
        sleep_until(window.end_ns, stop).map_err(stopped)?;
        readings.push((opened, Reading::take(&ends, programme.idleness).map_err(failed("reading what was charged"))?));
    }
    let deadline_ns = windows.last().map_or(0, |window| window.end_ns) + TAIL_NS + PATIENCE_NS;
    let mut lines = Vec::new();
    for end in &mut ends {
        lines.push(end.line("result", deadline_ns, stop).map_err(stopped)?);
    }
    for end in ends {
        end.finish(deadline_ns, stop).map_err(stopped)?;
    }
    let in_time = lines.iter().all(|line| ready_ns(line).is_some_and(|ready_ns| ready_ns <= begin_ns));
    Ok(in_time.then_some(Seen { windows, lines, readings }))
}

/// Starts every member; `None` when the first window's lead has begun before all of them were.
fn start_all(
    runtime: &dyn Runtime,
    birthplace: Option<u32>,
    members: Vec<Member>,
    begin_ns: u64,
) -> Result<Option<Vec<End>>, ExperimentError> {
    let _here = birthplace.map(Sojourn::on).transpose()?;
    let mut ends = Vec::new();
    for member in members {
        let request = StartRequest {
            limits: member.limits,
            group_parent: Some(member.parent),
            ..StartRequest::new(member.workload, Network::None)
        };
        ends.push(End::start(runtime, request).map_err(failed("starting a container"))?);
        if clock::now_ns() > begin_ns {
            return Ok(None);
        }
    }
    Ok(Some(ends))
}

/// This thread's stay on one CPU; what it starts is born there. It may go where it could before once this is dropped.
struct Sojourn {
    before: CpuSet,
}

impl Sojourn {
    fn on(cpu: u32) -> Result<Self, ExperimentError> {
        let this_thread = Pid::from_raw(0);
        let before = sched_getaffinity(this_thread).map_err(failed("asking which CPUs are allowed"))?;
        let mut here = CpuSet::new();
        here.set(cpu as usize)
            .and_then(|()| sched_setaffinity(this_thread, &here))
            .map_err(failed(format!("going to CPU {cpu}")))?;
        Ok(Self { before })
    }
}

impl Drop for Sojourn {
    fn drop(&mut self) {
        // It was allowed before, and nobody has taken a CPU away meanwhile.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

/// When the last of a program's threads was there.
fn ready_ns(line: &Line) -> Option<u64> {
    match line {
        Line::Burn(result) => result.threads.iter().map(|trace| trace.ready_ns).max(),
        Line::Doze(result) => Some(result.ready_ns),
        Line::Roam(result) => Some(result.ready_ns),
        _ => None,
    }
}

/// The harness must not be charged to what it measures.
fn keep_out(ends: &[End]) -> Result<(), ExperimentError> {
    let own = std::process::id();
    for group in groups(ends).flatten() {
        let processes = group.processes().map_err(failed("looking who is in the measured group"))?;
        if processes.contains(&own) {
            let text = format!("process {own}, the harness itself, is in the group {}", group.name());
            return Err(failed("keeping the harness out of the measured group")(text));
        }
    }
    Ok(())
}

fn groups(ends: &[End]) -> impl Iterator<Item = Option<&Group>> {
    ends.iter().map(|end| end.instance().and_then(Instance::group))
}

fn stopped(error: EndError) -> ExperimentError {
    match error {
        EndError::Interrupted => ExperimentError::Interrupted,
        error => failed("following the containers")(error),
    }
}

impl Reading {
    fn take(ends: &[End], idleness: bool) -> Result<Self, CgroupError> {
        let mut reading = Self {
            at_ns: clock::now_ns(),
            harness_ns: clock::process_cpu_ns(),
            idle_ns: if idleness { idle_ns() } else { Vec::new() },
            ..Self::default()
        };
        for group in groups(ends) {
            let place = |controller| group.and_then(|group| group.place(controller));
            reading.usage_ns.push(place(Controller::Cpuacct).map(usage_ns).transpose()?);
            reading.throttling.push(place(Controller::Cpu).map(throttling).transpose()?);
        }
        let first = groups(ends).next().flatten().and_then(|group| group.place(Controller::Cpuacct));
        if let Some(place) = first.filter(|place| place.hierarchy == Hierarchy::V1) {
            let text = read(&place.path, "cpuacct.usage_percpu")?;
            reading.per_cpu_ns = text.split_whitespace().map(|number| number.parse().ok()).collect();
        }
        Ok(reading)
    }

    /// What was charged to a member from `self` to `later`, in ns.
    pub(super) fn charged_until(&self, later: &Self, member: usize) -> Option<f64> {
        let of = |reading: &Self| reading.usage_ns.get(member).copied().flatten();
        Some(of(later)?.saturating_sub(of(self)?) as f64)
    }

    /// How long a CPU was idle from `self` to `later`, in ns; the kernel tells it to 10 ms.
    pub(super) fn idle_until(&self, later: &Self, cpu: u32) -> Option<u64> {
        let of = |reading: &Self| reading.idle_ns.get(cpu as usize).copied();
        Some(of(later)?.saturating_sub(of(self)?))
    }
}

/// Time that each CPU had nothing to do, from /proc/stat; empty where that cannot be read.
fn idle_ns() -> Vec<u64> {
    use procfs::CurrentSI;
    let Ok(stat) = procfs::KernelStats::current() else { return Vec::new() };
    let tick_ns = 1_000_000_000 / procfs::ticks_per_second().max(1);
    stat.cpu_time.iter().map(|cpu| (cpu.idle + cpu.iowait.unwrap_or(0)) * tick_ns).collect()
}

impl Seen {
    /// Pushes what the harness used of one CPU while each window was open.
    pub(super) fn push_harness(&self, into: &mut Observations) {
        for (iteration, (opened, closed)) in (0..).zip(&self.readings) {
            let used = closed.harness_ns.saturating_sub(opened.harness_ns) as f64;
            let value = used / (closed.at_ns - opened.at_ns).max(1) as f64;
            let metric = metric_named("harness_cpu");
            into.values.push(Observation { metric, iteration, value, start_ns: opened.at_ns });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_leave_room_for_lead_and_tail() {
        let windows =
            Programme { duration_ns: 1_000, windows: 3, percent: 100, birthplace: None, idleness: false }.windows(5);
        assert_eq!(windows[0], Window { start_ns: 5 + LEAD_NS, end_ns: 5 + LEAD_NS + 1_000 });
        assert!(windows.windows(2).all(|pair| pair[1].start_ns - pair[0].end_ns == LEAD_NS + TAIL_NS));
    }

    #[test]
    fn readings_subtract_and_tell_what_is_missing() {
        let reading = |usage, idle| Reading { usage_ns: vec![usage], idle_ns: vec![idle], ..Reading::default() };
        let (a, b) = (reading(Some(5), 10), reading(Some(25), 30));
        assert_eq!(a.charged_until(&b, 0), Some(20.0));
        assert_eq!(a.idle_until(&b, 0), Some(20));
        assert_eq!(
            (a.charged_until(&reading(None, 0), 0), a.charged_until(&b, 1), a.idle_until(&b, 9)),
            (None, None, None)
        );
    }

    #[test]
    fn idle_time_has_a_figure_for_each_cpu() {
        let first = idle_ns();
        assert!(!first.is_empty());
        assert!(idle_ns().iter().zip(&first).all(|(later, earlier)| later >= earlier));
    }
}
