//! Lifecycle: how long each thing takes that is done to a container, from its start to its removal, as whoever does it
//! sees it: from the request until it has come true.
//!
//! The program in the container is the `serve` workload, which says that it is there and ends on SIGTERM. Steps follow
//! each other without a gap, so that their times add up to the whole life.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::place::Place;
use super::{Experiment, ExperimentError, Observation, Observations, PhaseObservation, Stop};
use crate::record::metric;
use crate::runtime::{ExitStatus, Instance, Network, Runtime, StartRequest};
use crate::scenario::{LifecycleCase, LifecycleStep as Step};
use crate::sys::clock;
use crate::sys::launch::{pidfd_open, send_signal};

/// How long a stopped program may take to end before it is killed: docker's usual grace.
const GRACE_NS: u64 = 10_000_000_000;

/// One case of the experiment.
pub struct Lifecycle {
    case: LifecycleCase,
    runtime: Arc<dyn Runtime>,
    place: Option<Place>,
}

/// A container and what is needed to start it again.
struct Life<'a> {
    runtime: &'a dyn Runtime,
    network: &'a Network,
    /// Absent before `run` and after `rm`.
    instance: Option<Box<dyn Instance>>,
    /// Whether its program has not been stopped yet.
    runs: bool,
}

impl Lifecycle {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: LifecycleCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime, place: None }
    }

    /// One life: the instant at which it began, and that at which each step had come true.
    fn live(&self, network: &Network) -> Result<Vec<u64>, ExperimentError> {
        let mut life = Life { runtime: &*self.runtime, network, instance: None, runs: false };
        let mut instants = vec![clock::now_ns()];
        for step in &self.case.steps {
            life.go(*step)?;
            instants.push(clock::now_ns());
        }
        life.remove()?;
        Ok(instants)
    }
}

impl Experiment for Lifecycle {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        self.place = Some(Place::new(self.case.network, &*self.runtime)?);
        Ok(())
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let unprepared = || ExperimentError::Unsupported("measured before it was prepared".to_owned());
        let network = self.place.as_ref().ok_or_else(unprepared)?.network(self.case.network)?;
        let names = self.case.metrics();
        for iteration in 0..self.case.per_block {
            if stop.requested() {
                return Err(ExperimentError::Interrupted);
            }
            observe(&names, &self.live(&network)?, iteration, into);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        self.place.take().map_or(Ok(()), Place::give_back)
    }
}

/// Notes the time between each two instants, as the step's metric and as its phase.
fn observe(names: &[&'static str], instants: &[u64], iteration: u32, into: &mut Observations) {
    for (name, span) in names.iter().zip(instants.windows(2)) {
        let (start_ns, duration_ns) = (span[0], span[1] - span[0]);
        let metric = metric::named(name);
        into.values.push(Observation { metric, iteration, value: duration_ns as f64, start_ns });
        into.phases.push(PhaseObservation { iteration, phase: name, start_ns, duration_ns });
    }
}

impl Life<'_> {
    /// Does one step; returns when it has come true.
    fn go(&mut self, step: Step) -> Result<(), ExperimentError> {
        match step {
            Step::Run => self.run(),
            Step::Pause => self.freezer(true),
            Step::Unpause => self.freezer(false),
            Step::Exec => self.exec(),
            Step::Stop => self.stop(),
            Step::Restart => {
                if self.runs {
                    self.stop()?;
                }
                self.remove()?;
                self.run()
            }
            Step::Rm => self.remove(),
        }
    }

    fn instance(&mut self) -> Result<&mut Box<dyn Instance>, ExperimentError> {
        let absent = || ExperimentError::Unsupported("a step without a container".to_owned());
        self.instance.as_mut().ok_or_else(absent)
    }

    /// Starts it and waits until its program says that it is there.
    fn run(&mut self) -> Result<(), ExperimentError> {
        let (mut output, input) = std::io::pipe().map_err(ExperimentError::while_doing("making a pipe"))?;
        let request = StartRequest {
            stdout: Some(input.into()),
            ..StartRequest::new(vec!["serve".to_owned()], self.network.clone())
        };
        let instance = self.runtime.start(request).map_err(ExperimentError::while_doing("starting a container"))?;
        let instance = self.instance.insert(instance);
        self.runs = true;
        let mut stamp = [0; 8];
        if let Err(error) = output.read_exact(&mut stamp) {
            // It ended before it said so; why it did is the error to tell where that is known.
            instance.kill().map_err(ExperimentError::while_doing("ending a container"))?;
            instance.wait().map_err(ExperimentError::while_doing("starting a container"))?;
            return Err(ExperimentError::while_doing("hearing of the program in a container")(error));
        }
        Ok(())
    }

    fn freezer(&mut self, freeze: bool) -> Result<(), ExperimentError> {
        let runtime = self.runtime.kind();
        let ungrouped = || ExperimentError::Unsupported(format!("the {runtime} runtime has no control groups"));
        let group = self.instance()?.group().ok_or_else(ungrouped)?;
        if freeze {
            group.freeze().map_err(ExperimentError::while_doing("pausing a container"))
        } else {
            group.thaw().map_err(ExperimentError::while_doing("letting a container go on"))
        }
    }

    /// Runs a program beside, and reaps it.
    fn exec(&mut self) -> Result<(), ExperimentError> {
        const EXECUTING: &str = "running a program in a container that runs";
        let reaped = self.instance()?.exec(&["stamp".to_owned()]).map_err(ExperimentError::while_doing(EXECUTING))?;
        match reaped.status {
            ExitStatus::Code(0) => Ok(()),
            status => Err(ExperimentError::while_doing(EXECUTING)(format!("it ended with {status:?}"))),
        }
    }

    /// Asks its program to end and reaps it; what it used is given back by [`Life::remove`].
    fn stop(&mut self) -> Result<(), ExperimentError> {
        const STOPPING: &str = "stopping a container";
        let instance = self.instance()?;
        // It has not been reaped, so the pid is still its own.
        let pidfd = pidfd_open(instance.pid()).map_err(ExperimentError::while_doing(STOPPING))?;
        send_signal(pidfd.as_fd(), libc::SIGTERM).map_err(ExperimentError::while_doing(STOPPING))?;
        if !ends_within(&pidfd, GRACE_NS).map_err(ExperimentError::while_doing(STOPPING))? {
            instance.kill().map_err(ExperimentError::while_doing(STOPPING))?;
        }
        let reaped = instance.wait().map_err(ExperimentError::while_doing(STOPPING))?;
        self.runs = false;
        match reaped.status {
            ExitStatus::Code(0) => Ok(()),
            // A step that took the whole grace would say nothing about the runtime.
            status => Err(ExperimentError::while_doing(STOPPING)(format!(
                "its program ended with {status:?}, and not on SIGTERM"
            ))),
        }
    }

    fn remove(&mut self) -> Result<(), ExperimentError> {
        self.runs = false;
        let removed = self.instance.take().map_or(Ok(()), |instance| instance.remove());
        removed.map_err(ExperimentError::while_doing("removing a container"))
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        // On this way an error is already on its way up; another would hide it.
        let _ = self.remove();
    }
}

/// Waits for a process's end.
fn ends_within(pidfd: &OwnedFd, time_ns: u64) -> Result<bool, Errno> {
    let deadline_ns = clock::now_ns() + time_ns;
    loop {
        let left_ms = deadline_ns.saturating_sub(clock::now_ns()).div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_to_the_whole_life() {
        let mut seen = Observations::default();
        observe(&["run", "exec", "exec_2", "rm"], &[100, 400, 450, 490, 1000], 3, &mut seen);
        let steps: Vec<_> = seen.phases.iter().map(|phase| (phase.phase, phase.start_ns, phase.duration_ns)).collect();
        assert_eq!(steps, [("run", 100, 300), ("exec", 400, 50), ("exec_2", 450, 40), ("rm", 490, 510)]);
        let values: Vec<f64> = seen.values.iter().map(|value| value.value).collect();
        assert_eq!(values, [300.0, 50.0, 40.0, 510.0]);
        assert!(seen.values.iter().all(|value| value.iteration == 3 && value.metric.experiment == "lifecycle"));
    }
}
