//! The limit of tasks: how many there could be at once, what the program saw at the next fork, and what the controller
//! counted. Exact, or it fails.

use std::sync::Arc;

use super::subject::{Subject, need};
use super::{EnforcementObservation, Experiment, ExperimentError, Observation, Observations, Stop};
use crate::cgroup::{Controller, Limits, pids};
use crate::record::metric;
use crate::runtime::Runtime;
use crate::scenario::PidsCase;
use crate::sys::clock;
use crate::units::Limit;
use crate::workload::fork::{self, word};

/// One case of the experiment.
pub struct Pids {
    case: PidsCase,
    runtime: Arc<dyn Runtime>,
}

impl Pids {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: PidsCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime }
    }
}

impl Experiment for Pids {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        need(Controller::Pids).map(drop)
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let start_ns = clock::now_ns();
        let limit = u64::from(self.case.limit);
        let limits = Limits { pids: Some(Limit::Value(limit)), ..Limits::default() };
        // Where nothing stops it, it stops at twice the limit.
        let subject = Subject::start(&*self.runtime, fork::words(2 * limit), word::COUNT, None, limits)?;
        subject.wait("forking", stop, |board| board.get(word::DONE) != 0)?;
        let reading = || ExperimentError::while_doing("reading the pids controller");
        let place = subject.place(Controller::Pids);
        let tasks = place.map(pids::current).transpose().map_err(reading())?;
        let refused = place.map(pids::refusals).transpose().map_err(reading())?;
        let word = |word| subject.board.get(word) as f64;
        let row = |setting: &str, unit, requested, achieved, accounted: Option<u64>| EnforcementObservation {
            controller: "pids",
            setting: setting.to_owned(),
            unit,
            iteration: 0,
            requested,
            achieved,
            accounted: accounted.map(|count| count as f64),
            tolerance_pct: 0.0,
            start_ns,
        };
        into.enforcement.extend([
            row("limit", "count", limit as f64, word(word::TASKS), tasks),
            row("refusals", "count", 1.0, word(word::REFUSALS), refused),
            row("errno", "errno", f64::from(libc::EAGAIN), word(word::ERRNO), None),
        ]);
        let mut push = |name, value| {
            into.values.push(Observation { metric: metric::named(name), iteration: 0, value, start_ns });
        };
        push("fork_time", word(word::FORKS_NS) / word(word::FORKS).max(1.0));
        if word(word::REFUSALS) > 0.0 {
            push("refused_fork_time", word(word::REFUSED_NS));
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
        metric::tests::listed("pids", &["fork_time", "refused_fork_time"]);
    }
}
