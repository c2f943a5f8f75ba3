//! The freezer: how long it takes to stop and to go on, and whether what is frozen stands still.
//!
//! The threads in the container count without rest, each in a word of shared memory. Between "frozen" and "thawed" no
//! word may move. Their CPU time is read from the process's own clock by the host, and from the accounting controller.

use std::sync::Arc;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use super::subject::{Subject, need};
use super::{EnforcementObservation, Experiment, ExperimentError, Observation, Observations, Stop};
use crate::cgroup::{Controller, Group, Limits, cpu};
use crate::record::metric;
use crate::runtime::Runtime;
use crate::scenario::FreezerCase;
use crate::sys::clock;
use crate::workload::spin::{self, word};

/// Freezes and thaws in one block.
const CYCLES: u32 = 3;

/// A task is called frozen when it will not run in user mode again, some µs before its CPU has let go of it. So much
/// later the CPU time stands still too.
const LET_GO: Duration = Duration::from_millis(2);

/// One case of the experiment.
pub struct Freezer {
    case: FreezerCase,
    runtime: Arc<dyn Runtime>,
}

/// What is seen of the container at one instant.
struct Sight {
    rounds: u64,
    cpu_ns: u64,
    accounted_ns: Option<u64>,
}

impl Freezer {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: FreezerCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime }
    }

    fn threads(&self) -> usize {
        self.case.threads as usize
    }

    fn rounds(&self, subject: &Subject) -> u64 {
        (0..self.threads()).map(|thread| subject.board.get(word::rounds(thread))).sum()
    }

    fn sight(&self, subject: &Subject) -> Result<Sight, ExperimentError> {
        let place = subject.place(Controller::Cpuacct);
        let accounted_ns = place.map(cpu::usage_ns).transpose();
        let accounted_ns = accounted_ns.map_err(ExperimentError::while_doing("reading the accounted CPU time"))?;
        let pid = Pid::from_raw(subject.pid() as i32);
        let time = ClockId::pid_cpu_clock_id(pid).and_then(ClockId::now);
        let time = time.map_err(ExperimentError::while_doing("reading the CPU time of the container"))?;
        let cpu_ns = time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
        Ok(Sight { rounds: self.rounds(subject), cpu_ns, accounted_ns })
    }

    /// Waits until every thread has seen this watch.
    fn wait_running(&self, subject: &Subject, watch: u64, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let all = 0..self.threads();
        // The threads do not ring the bell: that would be a system call in their round.
        let slice = Duration::from_micros(500);
        let deadline_ns = clock::now_ns() + 120_000_000_000;
        while !all.clone().all(|thread| subject.board.get(word::seen(thread)) == watch) {
            subject.look("spinning", deadline_ns, stop)?;
            std::thread::sleep(slice);
        }
        Ok(())
    }

    fn cycle(
        &self,
        subject: &Subject,
        iteration: u32,
        into: &mut Observations,
        stop: Stop<'_>,
    ) -> Result<(), ExperimentError> {
        // A runtime that has left the freezer out freezes nothing, and that is what the figures are to show.
        let group = subject.group().filter(|group| group.place(Controller::Freezer).is_some());
        let start_ns = clock::now_ns();
        let thaw = group.map(freeze).transpose()?;
        let frozen_ns = clock::now_ns();
        let rounds = self.rounds(subject);
        std::thread::sleep(LET_GO);
        let before = self.sight(subject)?;
        std::thread::sleep(self.case.frozen);
        let after = self.sight(subject)?;

        let watch = u64::from(iteration) + 2;
        subject.board.set(word::WATCH, watch);
        let thawed_ns = clock::now_ns();
        thaw.map_or(Ok(()), Thaw::now)?;
        self.wait_running(subject, watch, stop)?;
        let seen = (0..self.threads()).map(|thread| subject.board.get(word::seen_ns(thread)));
        let (first, last) = seen.fold((u64::MAX, 0), |(first, last), at| (first.min(at), last.max(at)));

        let row = |setting: &str, unit, achieved: u64, accounted: Option<u64>| EnforcementObservation {
            controller: "freezer",
            setting: setting.to_owned(),
            unit,
            iteration,
            requested: 0.0,
            achieved: achieved as f64,
            accounted: accounted.map(|ns| ns as f64),
            tolerance_pct: 0.0,
            start_ns,
        };
        let accounted = before.accounted_ns.zip(after.accounted_ns).map(|(before, after)| after - before);
        into.enforcement.extend([
            row("rounds", "count", after.rounds - rounds, None),
            row("cpu_time", "ns", after.cpu_ns - before.cpu_ns, accounted),
        ]);
        let spans =
            [("freeze_time", start_ns, frozen_ns), ("thaw_time", thawed_ns, first), ("thaw_all_time", thawed_ns, last)];
        into.values.extend(spans.map(|(name, begin, end)| Observation {
            metric: metric::named(name),
            iteration,
            value: end.saturating_sub(begin) as f64,
            start_ns: begin,
        }));
        Ok(())
    }
}

/// A frozen group, which is thawed on every way out: a frozen process does not end on v1.
struct Thaw<'a>(Option<&'a Group>);

fn freeze(group: &Group) -> Result<Thaw<'_>, ExperimentError> {
    let thaw = Thaw(Some(group));
    group.freeze().map_err(ExperimentError::while_doing("freezing the container"))?;
    Ok(thaw)
}

impl Thaw<'_> {
    fn now(mut self) -> Result<(), ExperimentError> {
        let thawed = self.0.take().map_or(Ok(()), Group::thaw);
        thawed.map_err(ExperimentError::while_doing("thawing the container"))
    }
}

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        // An error is already on its way up; the removal tries once more.
        let _ = self.0.take().map(Group::thaw);
    }
}

impl Experiment for Freezer {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        need(Controller::Freezer).map(drop)
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let words = word::count(self.threads());
        let subject = Subject::start(&*self.runtime, spin::words(self.threads()), words, None, Limits::default())?;
        subject.board.set(word::WATCH, 1);
        self.wait_running(&subject, 1, stop)?;
        for iteration in 0..CYCLES {
            if stop.requested() {
                return Err(ExperimentError::Interrupted);
            }
            self.cycle(&subject, iteration, into, stop)?;
        }
        subject.remove()
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_the_list() {
        metric::tests::listed("freezer", &["freeze_time", "thaw_time", "thaw_all_time"]);
    }
}
