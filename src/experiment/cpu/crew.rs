//! Containers that act in the same windows, and what the harness reads at the windows' edges.
//!
//! # When the harness itself comes late
//!
//! The containers have nearly all the weight there is, so on a host whose CPUs are all taken the harness may be woken
//! long after a window's edge. With the first reading after the window's end, all that lies between the two readings is
//! the harness's own work, and `harness_cpu` was once 0.98 so. So a performance whose first reading does not lie in the
//! window's first half ([`Reading::opens`]) is repeated. If that does not help, the verdicts rest on what the containers
//! saw, and what only the readings tell (`accounted`, `harness_cpu`) is left out. A closing reading that comes late is
//! allowed for where it matters: in [`Reading::accounted`] and [`Reading::idle_until`].

use std::sync::Arc;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::failed;
use super::stage::Scene;
use crate::cgroup::cpu::{Quota, Throttling, throttling, usage_ns};
use crate::cgroup::{CgroupError, Controller, Group, Hierarchy, Limits, pressure, read};
use crate::experiment::end::{End, EndError};
use crate::experiment::{ExperimentError, Observation, Observations};
use crate::record::metric;
use crate::runtime::{Instance, Network, Runtime, StartRequest};
use crate::sys::clock;
use crate::workload::burn::{Burn, LEAD_NS, Phase, Spin, TAIL_NS};
use crate::workload::result::{Line, Window};

/// How long anything beside the windows may take.
const PATIENCE_NS: u64 = 10_000_000_000;
/// What each container is given to be started, at first.
const START_NS: u64 = 25_000_000;
/// CPU time that a start takes from the moment at which its limits hold; a quota stretches it.
const START_CPU_NS: u64 = 5_000_000;
/// How often containers that came too late are started again, with twice the time.
const TRIES: u32 = 6;
/// How often they are started again where the harness came too late.
const REPEATS: u32 = 3;
/// What a reading may take and still be of one instant.
const INSTANT_NS: u64 = 1_000_000;

/// One container.
pub(super) struct Member {
    /// Its program.
    pub workload: Vec<String>,
    /// Its limits.
    pub limits: Limits,
    /// The group in which its own is made.
    pub parent: Arc<Group>,
}

impl Member {
    /// A container that has only a weight.
    pub(super) fn with_shares(workload: Vec<String>, shares: u64, parent: &Arc<Group>) -> Self {
        let limits = Limits { cpu_shares: Some(shares), ..Limits::default() };
        Self { workload, limits, parent: Arc::clone(parent) }
    }
}

/// The words of a program whose one thread spins on one CPU.
pub(super) fn burner(cpu: u32, phases: Vec<Phase>) -> Vec<String> {
    Burn { threads: 1, cpus: vec![cpu], spin: Spin::Free, phases }.to_words()
}

/// What the harness read at one instant.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// When it began: ns of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// When it was done.
    pub until_ns: u64,
    /// CPU time of this process.
    pub harness_ns: u64,
    /// CPU time charged to each member's group; absent where it has none.
    pub usage_ns: Vec<Option<u64>>,
    /// What the quota did to each.
    pub throttling: Vec<Option<Throttling>>,
    /// How long a thread of the first member's group has stood still for want of a CPU, in ns, where the kernel tells
    /// (v2).
    pub stalled_ns: Option<u64>,
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
    /// Whether each window was opened in time.
    timely: bool,
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
    /// The quota that every container is given once it runs, in the place of what it was started with.
    pub then: Option<Quota>,
}

impl Programme {
    /// One window of this length, for containers that are held back by nothing while they start.
    pub(super) fn of(duration_ns: u64) -> Self {
        Self { duration_ns, windows: 1, percent: 100, birthplace: None, idleness: false, then: None }
    }

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
/// time, all are started again with more time; where the harness was not, they are started again just so.
pub(super) fn perform(
    scene: Scene<'_>,
    programme: Programme,
    count: usize,
    compose: &dyn Fn(&[Window]) -> Vec<Member>,
) -> Result<Seen, ExperimentError> {
    let (mut allowance_ns, mut late, mut untimely) = (programme.allowance_ns(count), 0, 0);
    while late < TRIES {
        let windows = programme.windows(clock::now_ns() + allowance_ns);
        match perform_once(scene, programme, windows.clone(), compose(&windows))? {
            Some(seen) if seen.timely || untimely == REPEATS => return Ok(seen.without_what_came_late()),
            Some(_) => untimely += 1,
            None => {
                late += 1;
                allowance_ns *= 2;
            }
        }
    }
    let given_ms = allowance_ns / 2_000_000;
    let reason = format!("{count} containers did not start within {given_ms} ms");
    Err(failed("starting the containers")(reason))
}

/// `None` when a member was late.
fn perform_once(
    scene: Scene<'_>,
    programme: Programme,
    windows: Vec<Window>,
    members: Vec<Member>,
) -> Result<Option<Seen>, ExperimentError> {
    let Scene { runtime, stop, .. } = scene;
    let begin_ns = windows.first().map_or(0, |window| window.start_ns.saturating_sub(LEAD_NS));
    let Some(mut ends) = start_all(runtime, programme.birthplace, members, begin_ns)? else { return Ok(None) };
    if let Some(quota) = programme.then {
        change(&ends, quota)?;
    }
    keep_out(&ends)?;
    let mut readings = Vec::new();
    for window in &windows {
        stop.sleep_until(window.start_ns)?;
        let opened = Reading::take(&ends, programme.idleness).map_err(failed("reading what was charged"))?;
        stop.sleep_until(window.end_ns)?;
        readings.push((opened, Reading::take(&ends, programme.idleness).map_err(failed("reading what was charged"))?));
    }
    let deadline_ns = windows.last().map_or(0, |window| window.end_ns) + TAIL_NS + PATIENCE_NS;
    let mut lines = Vec::new();
    for end in &mut ends {
        lines.push(end.line("result", deadline_ns, stop).map_err(EndError::while_doing("following the containers"))?);
    }
    for end in ends {
        end.finish(deadline_ns, stop).map_err(EndError::while_doing("following the containers"))?;
    }
    let in_time = lines.iter().all(|line| ready_ns(line).is_some_and(|ready_ns| ready_ns <= begin_ns));
    let timely = windows.iter().zip(&readings).all(|(window, (opened, _))| opened.opens(*window));
    Ok(in_time.then_some(Seen { windows, lines, readings, timely }))
}

/// Gives every container another quota while it runs.
fn change(ends: &[End], quota: Quota) -> Result<(), ExperimentError> {
    let limits = Limits { cpu_quota: Some(quota), ..Limits::default() };
    let changed = groups(ends).flatten().try_for_each(|group| group.apply(&limits).map(drop));
    changed.map_err(failed("changing the quota of a running container"))
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

impl Reading {
    /// Takes one that is of one instant; a second and a third time where the harness was interrupted meanwhile.
    fn take(ends: &[End], idleness: bool) -> Result<Self, CgroupError> {
        let mut reading = Self::take_once(ends, idleness)?;
        for _ in 0..2 {
            if reading.until_ns - reading.at_ns <= INSTANT_NS {
                break;
            }
            reading = Self::take_once(ends, idleness)?;
        }
        Ok(reading)
    }

    fn take_once(ends: &[End], idleness: bool) -> Result<Self, CgroupError> {
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
        let first = groups(ends).next().flatten();
        if let Some(path) = first.and_then(Group::unified) {
            reading.stalled_ns = pressure::read(path)?.cpu.map(|pressure| pressure.some.total_ns);
        }
        let first = first.and_then(|group| group.place(Controller::Cpuacct));
        if let Some(place) = first.filter(|place| place.hierarchy == Hierarchy::V1) {
            let text = read(&place.path, "cpuacct.usage_percpu")?;
            reading.per_cpu_ns = text.split_whitespace().map(|number| number.parse().ok()).collect();
        }
        reading.until_ns = clock::now_ns();
        Ok(reading)
    }

    /// Whether it shows the better part of a window.
    fn opens(&self, window: Window) -> bool {
        self.until_ns <= window.start_ns + window.elapsed_ns() / 2
    }

    /// What was charged to a member from `self` to `later`, in ns.
    fn charged_until(&self, later: &Self, member: usize) -> Option<f64> {
        let of = |reading: &Self| reading.usage_ns.get(member).copied().flatten();
        Some(of(later)?.saturating_sub(of(self)?) as f64)
    }

    /// What `achieved` would be by the controller's account: times what was charged to a member between the two
    /// readings over what its threads used meanwhile (`used`, from and to an instant). So it differs from `achieved` by
    /// what the accounting gets wrong, and not by another window. Absent where the later reading came too late: it also
    /// holds what was used after the window, of which no trace tells.
    pub(super) fn accounted(
        &self,
        later: &Self,
        window: Window,
        member: usize,
        achieved: f64,
        used: impl Fn(u64, u64) -> f64,
    ) -> Option<f64> {
        let in_time = later.at_ns.saturating_sub(window.end_ns) <= window.elapsed_ns() / 200;
        let used = used(self.at_ns.max(window.start_ns), later.at_ns.min(window.end_ns));
        let charged = self.charged_until(later, member).filter(|_| in_time && used > 0.0)?;
        Some(achieved * charged / used)
    }

    /// How long a CPU was idle from `self` to `later`, in ns; the kernel tells it to 10 ms. What `later` saw after the
    /// containers had stopped may all have been idle, and is taken off.
    pub(super) fn idle_until(&self, later: &Self, window: Window, cpu: u32) -> Option<u64> {
        let of = |reading: &Self| reading.idle_ns.get(cpu as usize).copied();
        let late_ns = later.until_ns.saturating_sub(window.end_ns + TAIL_NS);
        Some(of(later)?.saturating_sub(of(self)?).saturating_sub(late_ns))
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
    /// Itself, without the accounts where a window was opened late.
    fn without_what_came_late(mut self) -> Self {
        if !self.timely {
            for reading in self.readings.iter_mut().flat_map(|(opened, closed)| [opened, closed]) {
                reading.usage_ns.fill(None);
                reading.per_cpu_ns = None;
            }
        }
        self
    }

    /// Pushes what the harness used of one CPU while each window was open.
    pub(super) fn push_harness(&self, into: &mut Observations) {
        if !self.timely {
            return;
        }
        for (iteration, (opened, closed)) in (0..).zip(&self.readings) {
            let used = closed.harness_ns.saturating_sub(opened.harness_ns) as f64;
            let value = used / (closed.at_ns - opened.at_ns).max(1) as f64;
            let metric = metric::named("harness_cpu");
            into.values.push(Observation { metric, iteration, value, start_ns: opened.at_ns });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_leave_room_for_lead_and_tail() {
        let windows = Programme { windows: 3, ..Programme::of(1_000) }.windows(5);
        assert_eq!(windows[0], Window { start_ns: 5 + LEAD_NS, end_ns: 5 + LEAD_NS + 1_000 });
        assert!(windows.windows(2).all(|pair| pair[1].start_ns - pair[0].end_ns == LEAD_NS + TAIL_NS));
    }

    #[test]
    fn readings_subtract_and_tell_what_is_missing() {
        let reading = |usage, idle| Reading { usage_ns: vec![usage], idle_ns: vec![idle], ..Reading::default() };
        let (a, b) = (reading(Some(5), 10), reading(Some(25), 30));
        assert_eq!(a.charged_until(&b, 0), Some(20.0));
        let window = Window { start_ns: 0, end_ns: 0 };
        assert_eq!(a.idle_until(&b, window, 0), Some(20));
        let late = Reading { until_ns: TAIL_NS + 15, ..b.clone() };
        assert_eq!(a.idle_until(&late, window, 0), Some(5));
        assert_eq!(
            (a.charged_until(&reading(None, 0), 0), a.charged_until(&b, 1), a.idle_until(&b, window, 9)),
            (None, None, None)
        );
    }

    #[test]
    fn a_late_harness_says_nothing_about_itself() {
        let window = Window { start_ns: 1_000_000_000, end_ns: 2_000_000_000 };
        let at = |until_ns, harness_ns| Reading {
            at_ns: until_ns - 1000,
            until_ns,
            harness_ns,
            usage_ns: vec![Some(7)],
            ..Reading::default()
        };
        let seen = |opened: Reading, closed: Reading| Seen {
            timely: opened.opens(window),
            windows: vec![window],
            lines: Vec::new(),
            readings: vec![(opened, closed)],
        };
        let harness = |seen: &Seen| {
            let mut into = Observations::default();
            seen.push_harness(&mut into);
            into.values.iter().map(|value| value.value).collect::<Vec<_>>()
        };
        let timely = seen(at(1_000_200_000, 0), at(2_000_200_000, 1_000_000)).without_what_came_late();
        assert_eq!((harness(&timely), timely.readings[0].0.usage_ns[0]), (vec![0.001], Some(7)));
        // Both readings after the window: between them lies only the harness's own work.
        let late = seen(at(2_000_200_000, 0), at(2_000_300_000, 98_000)).without_what_came_late();
        assert_eq!((harness(&late), late.readings[0].0.usage_ns[0]), (vec![], None));
    }

    #[test]
    fn idle_time_has_a_figure_for_each_cpu() {
        let first = idle_ns();
        assert!(!first.is_empty());
        assert!(idle_ns().iter().zip(&first).all(|(later, earlier)| later >= earlier));
    }
}
