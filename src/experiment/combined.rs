//! `combined`: limits that hold alone, held together: all on one container, one group's over two containers, and
//! limits changed while a container runs.
//!
//! The program is the `mix` workload, which runs into each limit: CPU time in its window against the quota, tasks until
//! the kernel refuses one, memory until its child is killed. `accounted` is what the controllers' files say: tasks
//! in the window, the peak of memory, and CPU time over the program's whole life, carried over to the window.

use std::sync::Arc;
use std::time::Duration;

use super::program::{Program, unsupported};
use super::{EnforcementObservation, Experiment, ExperimentError, Judged, Observations, Stop, cpus, devices};
use crate::cgroup::devices::{DEFAULT, Policy, Rule};
use crate::cgroup::limits::Usage;
use crate::cgroup::{Group, Layout, Limits, cpu};
use crate::runtime::{Network, Runtime, StartRequest};
use crate::scenario::{Arrangement, CombinedCase, Device, DeviceAccess, DeviceKind};
use crate::sys::clock;
use crate::units::{Limit, ns};
use crate::workload::device::{Line, Probe};
use crate::workload::mix::{Arguments, Mixed};

/// The tolerance on the CPU quota, in percent.
const QUOTA_PCT: f64 = 2.0;
/// The tolerance on memory at the kill, in percent: beside what the program touched, the kernel charges what it keeps
/// of its processes (stacks of the kernel, file tables), which the program cannot count.
const MEMORY_PCT: f64 = 2.0;
/// Before the window opens: starting, holding, making tasks.
const LEAD: Duration = Duration::from_millis(150);
/// The same for a container that is to hold something before another one starts.
const HOLD_LEAD: Duration = Duration::from_millis(500);
/// How often it is looked whether it has it.
const LOOK: Duration = Duration::from_millis(5);
/// How often a round is tried.
const ROUNDS: u32 = 4;
/// Periods that may pass without being used up: the first and the last of a round.
const FREE_PERIODS: u64 = 3;
/// How long a round may take beside its window: touching memory at a part of one CPU, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One case of the experiment.
pub struct Combined {
    case: CombinedCase,
    runtime: Arc<dyn Runtime>,
}

/// Limits of one round.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Asked {
    quota_pct: f64,
    memory: u64,
    pids: u64,
}

impl Asked {
    fn scaled(self, factor: f64) -> Self {
        // Whole pages, which is what the kernel keeps.
        let memory = (self.memory as f64 * factor) as u64 & !0xffff;
        Self { quota_pct: self.quota_pct * factor, memory, pids: (self.pids as f64 * factor).round() as u64 }
    }

    fn limits(self, period: Duration) -> Limits {
        Limits {
            memory: Some(Limit::Value(self.memory)),
            cpu_quota: Some(cpu::Quota { quota: period.mul_f64(self.quota_pct / 100.0), period }),
            pids: Some(Limit::Value(self.pids)),
            ..Limits::default()
        }
    }
}

impl Combined {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: CombinedCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime }
    }

    fn asked(&self) -> Asked {
        let CombinedCase { quota_pct, memory, pids, .. } = self.case;
        Asked { quota_pct: f64::from(quota_pct), memory: u64::from(memory), pids: u64::from(pids) }
    }

    /// What the program does: it asks for more than any round permits.
    fn arguments(&self, start_ns: u64) -> Arguments {
        Arguments {
            start_ns,
            end_ns: start_ns + ns(self.case.duration),
            burn: 1,
            tasks: self.case.pids * 2,
            touch: u64::from(self.case.memory) * 2,
            period_ns: ns(self.case.period),
            lead_ns: ns(LEAD),
            ..Arguments::default()
        }
    }

    fn patience(&self) -> Duration {
        LEAD + self.case.duration + PATIENCE
    }

    /// One container under all limits at once, device rules among them.
    fn together(&self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let asked = self.asked();
        let start_ns = clock::now_ns() + ns(LEAD);
        let request = StartRequest {
            limits: asked.limits(self.case.period),
            ..StartRequest::new(self.arguments(start_ns).to_words(), Network::None)
        };
        let mut programs = [Program::start("the container", &*self.runtime, request)?];
        let seen = self.exercise(&mut programs, None, asked, Some(start_ns), stop)?;
        observe(&seen, asked, "", into);
        programs.into_iter().try_for_each(Program::finish)?;
        self.devices(asked, into, stop)
    }

    /// Lets the programs run into their limits. A round in which the machine was too busy to give them the CPU time
    /// that their quota permits says nothing of the quota, and is repeated; the last one counts whatever it was.
    ///
    /// The limits are those of `parent`, or of the one program. `begun` is when the window of a first round opens that goes
    /// on already.
    fn exercise(
        &self,
        programs: &mut [Program],
        parent: Option<&Group>,
        asked: Asked,
        begun: Option<u64>,
        stop: Stop<'_>,
    ) -> Result<Seen, ExperimentError> {
        let mut before = if begun.is_some() { Usage::default() } else { usage_of(programs, parent)? };
        for round in 0.. {
            let opens_ns = match begun.filter(|_| round == 0) {
                Some(start_ns) => start_ns,
                None => {
                    programs.iter().try_for_each(Program::go_on)?;
                    clock::now_ns() + ns(LEAD)
                }
            };
            stop.sleep_until(opens_ns + ns(self.case.duration / 2))?;
            let tasks = usage_of(programs, parent)?.pids;
            let mut mixed = Vec::new();
            for program in &mut *programs {
                mixed.push(program.line::<Mixed>(self.patience(), stop)?);
            }
            let usage = usage_of(programs, parent)?;
            let seen = Seen { mixed, tasks, usage };
            if round + 1 == ROUNDS || !seen.was_starved(asked, &before) {
                return Ok(seen);
            }
            before = seen.usage;
        }
        Err(out_of_order())
    }

    /// The device rules of a container that has all other limits too.
    fn devices(&self, asked: Asked, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let probed = probed();
        let probes: Vec<Probe> = probed.iter().map(devices::probe).collect();
        let words = probes.iter().flat_map(|probe| ["--probe".to_owned(), probe.to_word()]);
        let rule = Rule { minor: Some(11), write: false, mknod: false, ..DEFAULT[0] };
        let mut policy = Policy::container();
        policy.rules.push(rule);
        let request = StartRequest {
            limits: Limits { devices: vec![rule], ..asked.limits(self.case.period) },
            ..StartRequest::new(["device".to_owned()].into_iter().chain(words).collect(), Network::None)
        };
        let mut program = Program::start("the container", &*self.runtime, request)?;
        let start_ns = clock::now_ns();
        let Line::Ready {} = program.line(PATIENCE, stop)? else { return Err(out_of_order()) };
        devices::make_nodes(program.instance()?.pid(), probes.into_iter())?;
        program.go_on()?;
        let Line::Probed { answers } = program.line(PATIENCE, stop)? else { return Err(out_of_order()) };
        let tried = devices::judge(&probed, DeviceAccess::ALL, &policy, &answers);
        into.enforcement.extend(devices::rows(&tried, "", start_ns));
        program.finish()
    }

    /// Two containers inside a group that has the limits: what one holds, the other lacks.
    fn parent(&self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let asked = self.asked();
        let layout = Layout::detect().map_err(ExperimentError::while_doing("looking for control groups"))?;
        let parent = Group::create(&layout, true);
        let parent = parent.map_err(ExperimentError::while_doing("making the parent group"))?;
        let applied = parent.apply(&asked.limits(self.case.period));
        applied.map_err(ExperimentError::while_doing("limiting the parent group"))?;
        let parent = Arc::new(parent);
        let (mut programs, start_ns) = self.sharing(&parent, stop)?;
        let seen = self.exercise(&mut programs, Some(&parent), asked, Some(start_ns), stop)?;
        observe(&seen, asked, "/sum", into);
        programs.into_iter().try_for_each(Program::finish)?;
        match Arc::into_inner(parent) {
            Some(parent) => parent.remove().map_err(ExperimentError::while_doing("removing the parent group")),
            None => Ok(()),
        }
    }

    /// Two programs inside the parent group, the second started once the first has all that it is to hold: under a small
    /// quota that may take longer than it was given, and then it is given more.
    fn sharing(&self, parent: &Arc<Group>, stop: Stop<'_>) -> Result<([Program; 2], u64), ExperimentError> {
        let asked = self.asked();
        let start = |name, arguments: &Arguments| {
            let request = StartRequest {
                group_parent: Some(Arc::clone(parent)),
                ..StartRequest::new(arguments.to_words(), Network::None)
            };
            Program::start(name, &*self.runtime, request)
        };
        for attempt in 1.. {
            let start_ns = clock::now_ns() + ns(HOLD_LEAD * attempt);
            // On one CPU: the kernel hands a group's quota to CPUs in slices, and what is left of one on another CPU
            // comes on top of a short window.
            let greedy = Arguments { cpu: cpus::allowed()?.first().copied(), ..self.arguments(start_ns) };
            let holder = Arguments {
                hold_bytes: asked.memory / 4,
                hold_tasks: self.case.pids / 3,
                tasks: 0,
                touch: 0,
                ..greedy.clone()
            };
            let first = start("the container that holds", &holder)?;
            // Itself, the child with the memory, its tasks, and last of all what burns CPU time.
            let tasks = u64::from(2 + holder.hold_tasks + holder.burn);
            let mut held = false;
            while !held && clock::now_ns() + ns(LEAD) < start_ns {
                stop.sleep_until(clock::now_ns() + ns(LOOK))?;
                // Where the container is not in the group, there is nothing to wait for.
                held = usage(parent)?.pids.is_none_or(|there| there == 0 || there >= tasks);
            }
            if held || attempt == ROUNDS {
                return Ok(([first, start("the container that takes the rest", &greedy)?], start_ns));
            }
            first.finish()?;
        }
        Err(out_of_order())
    }

    /// One container whose limits go up and down between its rounds.
    fn changed(&self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let first = self.asked();
        let rounds = [("/first", first), ("/raised", first.scaled(1.5)), ("/lowered", first.scaled(2.0 / 3.0))];
        let start_ns = clock::now_ns() + ns(LEAD);
        let request = StartRequest {
            limits: first.limits(self.case.period),
            ..StartRequest::new(self.arguments(start_ns).to_words(), Network::None)
        };
        let mut programs = [Program::start("the container", &*self.runtime, request)?];
        for (round, (suffix, asked)) in rounds.into_iter().enumerate() {
            if round > 0 {
                let changed = programs[0].group()?.apply(&asked.limits(self.case.period));
                changed.map_err(ExperimentError::while_doing("changing limits of the running container"))?;
            }
            let mut seen = self.exercise(&mut programs, None, asked, (round == 0).then_some(start_ns), stop)?;
            // The peak is that of all rounds.
            seen.usage.memory = None;
            observe(&seen, asked, suffix, into);
        }
        programs.into_iter().try_for_each(Program::finish)
    }
}

impl Experiment for Combined {
    /// Tries whether the limits can be had here at all.
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        let limits = self.asked().limits(self.case.period);
        let request = StartRequest { limits, ..StartRequest::new(vec!["hold".to_owned()], Network::None) };
        Program::start("the container", &*self.runtime, request).map_err(unsupported)?.finish()
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        match self.case.arrangement {
            Arrangement::Together => self.together(into, stop),
            Arrangement::Parent => self.parent(into, stop),
            Arrangement::Changed => self.changed(into, stop),
        }
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        Ok(())
    }
}

/// What a round came to.
#[derive(Debug)]
struct Seen {
    /// A container each.
    mixed: Vec<Mixed>,
    /// Tasks of the limited group in the window.
    tasks: Option<u64>,
    /// What the limited group was charged since it began.
    usage: Usage,
}

impl Seen {
    fn sum(&self, value: fn(&Mixed) -> f64) -> f64 {
        self.mixed.iter().map(value).sum()
    }

    /// CPU time a time, over all containers.
    fn rate(&self) -> f64 {
        self.sum(|one| one.cpu_ns as f64 / (one.end_ns - one.start_ns).max(1) as f64)
    }

    /// Whether there was less CPU time than the quota, and the quota was not what held the group back: in several of
    /// the periods that passed since `before` it was not used up.
    fn was_starved(&self, asked: Asked, before: &Usage) -> bool {
        let (Some(now), then) = (self.usage.throttling, before.throttling.unwrap_or_default()) else { return false };
        let free = (now.periods - then.periods).saturating_sub(now.throttled_periods - then.throttled_periods);
        free > FREE_PERIODS && self.rate() * 100.0 < asked.quota_pct * (1.0 - QUOTA_PCT / 200.0)
    }
}

/// Pushes what a round came to, summed over the containers that share the limits.
fn observe(seen: &Seen, asked: Asked, suffix: &str, into: &mut Observations) {
    let start_ns = seen.mixed.iter().map(|one| one.start_ns).min().unwrap_or(0);
    let mut row = |controller, setting: &str, unit, requested, achieved, accounted, tolerance_pct| {
        into.enforcement.push(EnforcementObservation {
            controller,
            setting: format!("{setting}{suffix}"),
            unit,
            iteration: 0,
            requested,
            achieved,
            accounted,
            tolerance_pct,
            start_ns,
            judged: Judged::Achieved,
        });
    };
    let rate = seen.rate();
    let life_ns = seen.sum(|one| one.total_cpu_ns as f64);
    let charged = seen.usage.cpu_ns.filter(|_| life_ns > 0.0).map(|ns| rate * ns as f64 / life_ns);
    row("cpu", "quota", "ratio", asked.quota_pct / 100.0, rate, charged, QUOTA_PCT);
    let tasks = seen.tasks.map(|tasks| tasks as f64);
    row("pids", "max", "count", asked.pids as f64, seen.sum(|one| f64::from(one.tasks)), tasks, 0.0);
    // One that was not killed had more left to take than the limit, and took it.
    let memory = seen.sum(|one| (one.held_bytes + one.touched_bytes) as f64);
    let peak = seen.usage.memory.as_ref().and_then(|memory| memory.peak).map(|peak| peak as f64);
    row("memory", "limit", "bytes", asked.memory as f64, memory, peak, MEMORY_PCT);
}

/// What the limited group was charged.
fn usage_of(programs: &[Program], parent: Option<&Group>) -> Result<Usage, ExperimentError> {
    match (parent, programs) {
        (Some(parent), _) => usage(parent),
        (None, [program, ..]) => usage(program.group()?),
        (None, []) => Ok(Usage::default()),
    }
}

fn usage(group: &Group) -> Result<Usage, ExperimentError> {
    group.usage().map_err(ExperimentError::while_doing("reading what a group was charged"))
}

/// A device that is permitted, one that a rule permits to be read, and a forbidden one.
fn probed() -> [Device; 3] {
    let device = |name: &str, kind, major, minor| Device { name: name.to_owned(), kind, major, minor };
    [
        device("null", DeviceKind::Char, 1, 3),
        device("kmsg", DeviceKind::Char, 1, 11),
        device("b 7:0", DeviceKind::Block, 7, 0),
    ]
}

fn out_of_order() -> ExperimentError {
    ExperimentError::while_doing("probing devices")("the container said something else than was due".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_changed_stay_whole() {
        let asked = Asked { quota_pct: 40.0, memory: 64 << 20, pids: 24 };
        assert_eq!(asked.scaled(1.5), Asked { quota_pct: 60.0, memory: 96 << 20, pids: 36 });
        assert_eq!(asked.scaled(2.0 / 3.0).memory % 4096, 0);
        assert_eq!(asked.scaled(2.0 / 3.0).pids, 16);
        let limits = asked.limits(Duration::from_millis(50));
        assert_eq!(limits.cpu_quota.map(|quota| quota.quota), Some(Duration::from_millis(20)));
    }

    #[test]
    fn a_round_is_starved_when_the_quota_was_not_what_held_it_back() {
        let one = |cpu_ns| Mixed {
            start_ns: 0,
            end_ns: 1000,
            cpu_ns,
            total_cpu_ns: cpu_ns,
            longest_stall_ns: 0,
            work: 1,
            tasks: 1,
            task_errno: 0,
            held_bytes: 0,
            touched_bytes: 0,
            killed: false,
        };
        let usage = |periods, throttled_periods| Usage {
            throttling: Some(cpu::Throttling { periods, throttled_periods, throttled_ns: 0 }),
            ..Usage::default()
        };
        let asked = Asked { quota_pct: 40.0, memory: 1, pids: 1 };
        let starved = |cpu_ns, throttled| {
            let seen = Seen { mixed: vec![one(cpu_ns)], tasks: None, usage: usage(30, throttled) };
            seen.was_starved(asked, &usage(10, 9))
        };
        assert!(starved(300, 20));
        // The controller held it back in every period, and too much: that is its error.
        assert!(!starved(300, 28));
        assert!(!starved(400, 20) && !starved(800, 9));
    }

    #[test]
    fn containers_that_share_limits_are_summed() {
        let one = Mixed {
            start_ns: 1000,
            end_ns: 2000,
            cpu_ns: 200,
            total_cpu_ns: 500,
            longest_stall_ns: 0,
            work: 1,
            tasks: 12,
            task_errno: 0,
            held_bytes: 1 << 20,
            touched_bytes: 15 << 20,
            killed: false,
        };
        let usage = Usage { cpu_ns: Some(1100), ..Usage::default() };
        let both = Seen { mixed: vec![one.clone(), one], tasks: Some(24), usage };
        let asked = Asked { quota_pct: 40.0, memory: 32 << 20, pids: 24 };
        let mut seen = Observations::default();
        observe(&both, asked, "/sum", &mut seen);
        let rows: Vec<(&str, &str, f64, f64, Option<f64>)> = seen
            .enforcement
            .iter()
            .map(|row| (row.controller, row.setting.as_str(), row.requested, row.achieved, row.accounted))
            .collect();
        assert_eq!(
            rows,
            [
                ("cpu", "quota/sum", 0.4, 0.4, Some(0.4 * 1100.0 / 1000.0)),
                ("pids", "max/sum", 24.0, 24.0, Some(24.0)),
                ("memory", "limit/sum", f64::from(32 << 20), f64::from(32 << 20), None),
            ]
        );
    }
}
