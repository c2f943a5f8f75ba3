//! Start-up: how long from the request to the first instruction inside, to the end, and until all is given back.
//!
//! The program in the container is the `stamp` workload: its first act is to take the clock, which it writes to its
//! standard output. With a concurrency above 1, that many threads start containers side by side, each one after the
//! other.
//!
//! A cold start drops the image's pages before it is asked for; no metric counts that time.

mod cold;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cold::Cold;

use super::place::Place;
use super::{Experiment, ExperimentError, Observation, Observations, PhaseObservation, Stop};
use crate::record::metric;
use crate::runtime::{ExitStatus, Network, Runtime, StartRequest};
use crate::scenario::StartupCase;
use crate::sys::clock;

/// One case of the experiment.
pub struct Startup {
    case: StartupCase,
    runtime: Arc<dyn Runtime>,
    place: Option<Place>,
    /// What is dropped from the page cache before each start.
    cold: Option<Cold>,
}

/// One start, as it was seen.
struct Start {
    requested_ns: u64,
    ready_ns: u64,
    reaped_ns: u64,
    removed_ns: u64,
    phases: Vec<(&'static str, u64, u64)>,
}

impl Startup {
    /// An experiment for a case, with the runtime that the case names.
    #[must_use]
    pub fn new(case: StartupCase, runtime: Arc<dyn Runtime>) -> Self {
        Self { case, runtime, place: None, cold: None }
    }
}

impl Experiment for Startup {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        self.place = Some(Place::new(self.case.network, &*self.runtime)?);
        self.cold = if self.case.cold { Some(Cold::of(self.runtime.layers())?) } else { None };
        Ok(())
    }

    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError> {
        let unprepared = || ExperimentError::Unsupported("measured before it was prepared".to_owned());
        let network = self.place.as_ref().ok_or_else(unprepared)?.network(self.case.network)?;
        let cold = self.cold.as_ref();
        let begin = clock::now_ns();
        let starts = match cold {
            Some(cold) => start_cold(&*self.runtime, &network, cold, self.case.per_block, stop)?,
            None => start_all(&*self.runtime, &network, self.case.concurrency, self.case.per_block, stop)?,
        };
        let elapsed_ns = match cold {
            // Between the starts pages were dropped.
            Some(_) => starts.iter().map(|start| start.removed_ns - start.requested_ns).sum(),
            None => clock::now_ns() - begin,
        };
        for (iteration, start) in (0..).zip(&starts) {
            observe(start, iteration, into);
        }
        if stop.requested() {
            return Err(ExperimentError::Interrupted);
        }
        let rate = starts.len() as f64 / (elapsed_ns as f64 / 1e9);
        into.values.push(Observation {
            metric: metric::named("start_rate"),
            iteration: 0,
            value: rate,
            start_ns: begin,
        });
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        self.place.take().map_or(Ok(()), Place::give_back)
    }
}

fn observe(start: &Start, iteration: u32, into: &mut Observations) {
    let Start { requested_ns, ready_ns, reaped_ns, removed_ns, phases } = start;
    let spans = [
        ("ready", *requested_ns, *ready_ns),
        ("exit", *requested_ns, *reaped_ns),
        ("teardown", *reaped_ns, *removed_ns),
    ];
    for (name, begin, end) in spans {
        let value = (end - begin) as f64;
        into.values.push(Observation { metric: metric::named(name), iteration, value, start_ns: begin });
    }
    for (phase, begin, end) in phases {
        into.phases.push(PhaseObservation { iteration, phase, start_ns: *begin, duration_ns: end - begin });
    }
}

/// Starts `total` containers from `concurrency` threads, each thread one after the other.
fn start_all(
    runtime: &dyn Runtime,
    network: &Network,
    concurrency: u32,
    total: u32,
    stop: Stop<'_>,
) -> Result<Vec<Start>, ExperimentError> {
    if concurrency <= 1 {
        let mut starts = Vec::new();
        while starts.len() < total as usize && !stop.requested() {
            starts.push(start_one(runtime, network)?);
        }
        return Ok(starts);
    }
    let taken = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let starter = || {
            let mut starts = Vec::new();
            while taken.fetch_add(1, Ordering::Relaxed) < total && !stop.requested() {
                starts.push(start_one(runtime, network)?);
            }
            Ok::<_, ExperimentError>(starts)
        };
        let threads: Vec<_> = (0..concurrency).map(|_| scope.spawn(starter)).collect();
        let mut all = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(starts) => all.extend(starts?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all.sort_by_key(|start: &Start| start.requested_ns);
        Ok(all)
    })
}

/// Starts `total` containers one after the other, each with nothing of its image in the page cache.
fn start_cold(
    runtime: &dyn Runtime,
    network: &Network,
    cold: &Cold,
    total: u32,
    stop: Stop<'_>,
) -> Result<Vec<Start>, ExperimentError> {
    let mut starts = Vec::new();
    while starts.len() < total as usize && !stop.requested() {
        cold.drop_pages()?;
        starts.push(start_one(runtime, network)?);
    }
    Ok(starts)
}

fn start_one(runtime: &dyn Runtime, network: &Network) -> Result<Start, ExperimentError> {
    let (mut output, input) = std::io::pipe().map_err(ExperimentError::while_doing("making a pipe"))?;
    let requested_ns = clock::now_ns();
    let request = StartRequest {
        stdout: Some(input.into()),
        requested_ns,
        ..StartRequest::new(vec!["stamp".to_owned()], network.clone())
    };
    let starting = || ExperimentError::while_doing("measuring a start");
    let mut instance = runtime.start(request).map_err(starting())?;
    let reaped = instance.wait().map_err(starting())?;
    let mut phases: Vec<_> =
        instance.phases().into_iter().map(|phase| (phase.name, phase.start_ns, phase.end_ns)).collect();
    instance.remove().map_err(ExperimentError::while_doing("removing a container"))?;
    let removed_ns = clock::now_ns();
    let mut stamp = [0; 8];
    output.read_exact(&mut stamp).map_err(ExperimentError::while_doing("reading the workload's stamp"))?;
    let ready_ns = u64::from_ne_bytes(stamp);
    if reaped.status != ExitStatus::Code(0) {
        let unexpected = format!("the stamp workload ended with {:?}", reaped.status);
        return Err(ExperimentError::while_doing("measuring a start")(unexpected));
    }
    complete(&mut phases, ready_ns, reaped.at_ns);
    Ok(Start { requested_ns, ready_ns, reaped_ns: reaped.at_ns, removed_ns, phases })
}

/// Extends the runtime's phases, which end when the exec begins, to the end of the whole.
fn complete(phases: &mut Vec<(&'static str, u64, u64)>, ready_ns: u64, reaped_ns: u64) {
    match phases.last_mut() {
        Some((_, _, end)) => *end = ready_ns,
        None => return,
    }
    phases.push(("end", ready_ns, reaped_ns));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_the_list() {
        metric::tests::listed("startup", &["ready", "exit", "teardown", "start_rate"]);
    }

    #[test]
    fn phases_add_up_to_the_whole() {
        let start = Start {
            requested_ns: 100,
            ready_ns: 900,
            reaped_ns: 1000,
            removed_ns: 1100,
            phases: {
                let mut phases = vec![("prepare", 100, 200), ("clone", 200, 500), ("exec", 500, 501)];
                complete(&mut phases, 900, 1000);
                phases
            },
        };
        let mut seen = Observations::default();
        observe(&start, 3, &mut seen);
        let exit = seen.values.iter().find(|value| value.metric.name == "exit").unwrap();
        let sum: u64 = seen.phases.iter().map(|phase| phase.duration_ns).sum();
        assert_eq!(sum as f64, exit.value);
        assert_eq!(seen.phases.last().unwrap().phase, "end");
    }
}
