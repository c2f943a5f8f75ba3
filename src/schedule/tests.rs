//! The schedule against a mock experiment: no container, no root.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;

use super::*;
use crate::experiment::{HistogramObservation, Observation, PhaseObservation};
use crate::record::metric;
use crate::scenario::{Options, Scenario};

/// What the mocks did, in order.
type Log = Rc<RefCell<Vec<String>>>;

/// Yields one value, one phase and one histogram; fails or stops where it is told to.
struct Mock {
    case: String,
    log: Log,
    measured: u32,
    script: Script,
}

#[derive(Clone, Copy, PartialEq)]
enum Script {
    Works,
    Unsupported,
    BreaksInPrepare,
    /// Breaks in its n-th measurement, from 0.
    Breaks(u32),
    /// Yields a value, then sees the wish to stop, in its n-th measurement.
    Interrupted(u32),
    BreaksInFinish,
}

fn broken(doing: &str) -> ExperimentError {
    ExperimentError::while_doing(doing)("the mock was told to break")
}

impl Mock {
    fn note(&self, what: &str) {
        self.log.borrow_mut().push(format!("{what} {}", self.case));
    }
}

impl Experiment for Mock {
    fn prepare(&mut self) -> Result<(), ExperimentError> {
        self.note("prepare");
        match self.script {
            Script::Unsupported => Err(ExperimentError::Unsupported("the mock lacks it".to_owned())),
            Script::BreaksInPrepare => Err(broken("preparing")),
            _ => Ok(()),
        }
    }

    fn measure(&mut self, into: &mut Observations, _: Stop<'_>) -> Result<(), ExperimentError> {
        self.note("measure");
        let metric = metric::find("exit").unwrap();
        let start_ns = clock::now_ns();
        into.values.push(Observation { metric, iteration: 0, value: 42.0, start_ns });
        into.phases.push(PhaseObservation { iteration: 0, phase: "clone", start_ns, duration_ns: 7 });
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record(42).unwrap();
        into.histograms.push(HistogramObservation { metric, iteration: 0, histogram });
        let turn = self.measured;
        self.measured += 1;
        match self.script {
            Script::Breaks(at) if at == turn => Err(broken("measuring")),
            Script::Interrupted(at) if at == turn => Err(ExperimentError::Interrupted),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), ExperimentError> {
        self.note("finish");
        if self.script == Script::BreaksInFinish { Err(broken("finishing")) } else { Ok(()) }
    }
}

/// Three start-up cases (host, none, bridge) over `blocks` measured blocks and one for warming up.
fn scenario(blocks: u32) -> Scenario {
    let text = format!(
        "[scenario]\nname = \"t\"\nquestion = \"?\"\n[run]\nblocks = {blocks}\nwarmup_blocks = 1\n\
         [[experiment]]\nkind = \"startup\"\nnetwork = [\"host\", \"none\", \"bridge\"]\n"
    );
    Scenario::parse(&text, "t.toml", &Options::default()).unwrap()
}

/// Runs with a script for each network mode; the log of what the mocks did comes along.
fn run_mocks(blocks: u32, script: impl Fn(&str) -> Script) -> (Outcome, Vec<String>) {
    let scenario = scenario(blocks);
    let log = Log::default();
    let mut factory = |case: &Case| -> Result<Box<dyn Experiment>, ExperimentError> {
        let network = case.id.split('/').nth(2).unwrap();
        let mock = Mock { case: network.to_owned(), log: Rc::clone(&log), measured: 0, script: script(network) };
        Ok(Box::new(mock))
    };
    let stop = AtomicBool::new(false);
    let outcome = run(&scenario.cases, &scenario.run, 1, &mut factory, &mut |_| {}, &stop);
    let log = log.borrow().clone();
    (outcome, log)
}

fn finished(log: &[String]) -> Vec<&str> {
    log.iter().filter_map(|line| line.strip_prefix("finish ")).collect()
}

#[test]
fn every_case_runs_once_a_block_in_the_recorded_order() {
    let (outcome, log) = run_mocks(3, |_| Script::Works);
    assert_eq!(outcome.blocks.len(), 4);
    let measured: Vec<&str> = log.iter().filter_map(|line| line.strip_prefix("measure ")).collect();
    for (block, ran) in outcome.blocks.iter().zip(measured.chunks(3)) {
        assert_eq!(block.warmup, block.block == 0);
        let order: Vec<&str> = block.order.iter().map(|id| id.split('/').nth(2).unwrap()).collect();
        assert_eq!(order, ran);
        let expected: Vec<&str> =
            block_order(1, block.block, 3).into_iter().map(|index| ["host", "none", "bridge"][index]).collect();
        assert_eq!(order, expected);
    }
    assert_eq!(finished(&log), ["bridge", "none", "host"]);
    assert!(!outcome.interrupted && outcome.failure.is_none() && outcome.cleanup.is_empty());
}

#[test]
fn samples_carry_their_place_and_the_mark_of_warm_up() {
    let (outcome, _) = run_mocks(2, |_| Script::Works);
    assert_eq!((outcome.samples.len(), outcome.phases.len(), outcome.histograms.len()), (9, 9, 9));
    for sample in &outcome.samples {
        assert_eq!(sample.flags.warmup, sample.block == 0);
        assert_eq!((sample.metric.as_str(), sample.unit.as_str()), ("exit", "ns"));
        let block = &outcome.blocks[sample.block as usize];
        let inside = block.start_ns..=block.start_ns + block.duration_ns;
        assert!(inside.contains(&sample.start_ns), "times are relative to the run's start: {sample:?} {block:?}");
        assert!(block.start_ns + block.duration_ns <= outcome.duration_ns);
    }
}

#[test]
fn what_is_not_supported_becomes_a_skip_and_is_given_back_at_once() {
    let (outcome, log) = run_mocks(1, |case| if case == "none" { Script::Unsupported } else { Script::Works });
    assert_eq!(
        outcome.skips,
        [Skip { case: "startup/builtin/none/c1".to_owned(), reason: "the mock lacks it".to_owned() }]
    );
    assert!(outcome.cases.iter().all(|case| case.id != "startup/builtin/none/c1"));
    assert_eq!(finished(&log), ["none", "bridge", "host"]);
    assert!(outcome.blocks.iter().all(|block| block.order.len() == 2));
    assert!(outcome.failure.is_none());
}

#[test]
fn nothing_supported_means_no_blocks() {
    let (outcome, _) = run_mocks(1, |_| Script::Unsupported);
    assert_eq!((outcome.skips.len(), outcome.blocks.len(), outcome.cases.len()), (3, 0, 0));
}

#[test]
fn a_failure_ends_the_run_and_keeps_what_was_measured() {
    let (outcome, log) = run_mocks(5, |case| if case == "none" { Script::Breaks(2) } else { Script::Works });
    let failure = outcome.failure.as_ref().unwrap();
    assert_eq!(failure.to_string(), "startup/builtin/none/c1 failed in block 2");
    let ScheduleError::Measure { source, .. } = failure else { panic!("{failure:?}") };
    assert_eq!(source.to_string(), "measuring");
    // Two whole blocks, and what ran before the failing case; the broken measurement itself is not kept.
    let none = outcome.samples.iter().filter(|sample| sample.case.contains("none")).count();
    assert_eq!(none, 2);
    assert!(outcome.samples.len() >= 6);
    assert_eq!(finished(&log).len(), 3);
    let record = outcome.into_record(meta(), Fingerprint::default());
    assert!(record.meta.interrupted && record.meta.duration_ns > 0);
}

#[test]
fn an_interrupted_measurement_counts_as_far_as_it_went() {
    let (outcome, log) = run_mocks(5, |case| if case == "none" { Script::Interrupted(1) } else { Script::Works });
    assert!(outcome.interrupted && outcome.failure.is_none());
    assert_eq!(outcome.samples.iter().filter(|sample| sample.case.contains("none")).count(), 2);
    assert_eq!(outcome.blocks.len(), 2);
    assert_eq!(outcome.blocks[1].order.last().map(String::as_str), Some("startup/builtin/none/c1"));
    assert_eq!(finished(&log).len(), 3);
}

#[test]
fn the_wish_to_stop_is_seen_between_cases() {
    let scenario = scenario(5);
    let log = Log::default();
    let stop = AtomicBool::new(false);
    let mut factory = |case: &Case| -> Result<Box<dyn Experiment>, ExperimentError> {
        Ok(Box::new(Mock { case: case.id.clone(), log: Rc::clone(&log), measured: 0, script: Script::Works }))
    };
    let mut seen = 0;
    let mut observer = |event: Event<'_>| {
        if let Event::CaseMeasured { .. } = event {
            seen += 1;
            if seen == 4 {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let outcome = run(&scenario.cases, &scenario.run, 1, &mut factory, &mut observer, &stop);
    assert!(outcome.interrupted);
    assert_eq!(outcome.samples.len(), 4);
    assert_eq!(outcome.blocks.iter().map(|block| block.order.len()).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(outcome.cases.len(), 3, "raw samples need their cases");
    assert_eq!(outcome.skips.len(), 2, "only warmed up: {:?}", outcome.skips);
    assert_eq!(finished(&log.borrow()).len(), 3);
}

#[test]
fn what_breaks_after_the_wish_to_stop_is_an_interruption() {
    let scenario = scenario(5);
    let log = Log::default();
    let stop = AtomicBool::new(false);
    let mut factory = |case: &Case| -> Result<Box<dyn Experiment>, ExperimentError> {
        Ok(Box::new(Mock { case: case.id.clone(), log: Rc::clone(&log), measured: 0, script: Script::Breaks(1) }))
    };
    let mut observer = |event: Event<'_>| {
        if let Event::CaseStarted { block: 1, .. } = event {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let outcome = run(&scenario.cases, &scenario.run, 1, &mut factory, &mut observer, &stop);
    assert!(outcome.interrupted && outcome.failure.is_none());
    assert_eq!((outcome.samples.len(), outcome.blocks.len()), (3, 1));
    assert_eq!(finished(&log.borrow()).len(), 3);
}

#[test]
fn a_preparation_that_breaks_is_given_back_and_nothing_is_measured() {
    let (outcome, log) = run_mocks(1, |case| if case == "none" { Script::BreaksInPrepare } else { Script::Works });
    assert_eq!(outcome.failure.as_ref().unwrap().to_string(), "cannot prepare startup/builtin/none/c1");
    assert_eq!(finished(&log), ["none", "host"]);
    assert!(outcome.samples.is_empty() && outcome.blocks.is_empty() && outcome.cases.is_empty());
    assert!(
        outcome.skips.len() == 3
            && outcome.skips.iter().all(|skip| skip.reason == "the run failed before it was measured")
    );
}

#[test]
fn giving_back_goes_on_after_an_error() {
    let (outcome, log) = run_mocks(1, |case| if case == "host" { Script::Works } else { Script::BreaksInFinish });
    assert_eq!(finished(&log), ["bridge", "none", "host"]);
    let errors: Vec<String> = outcome.cleanup.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["cannot clean up after startup/builtin/bridge/c1", "cannot clean up after startup/builtin/none/c1"]
    );
    assert_eq!(outcome.samples.len(), 6);
}

#[test]
fn a_factory_that_cannot_is_a_skip_too() {
    let scenario = scenario(1);
    let mut factory = |_: &Case| -> Result<Box<dyn Experiment>, ExperimentError> {
        Err(ExperimentError::Unsupported("no such runtime here".to_owned()))
    };
    let stop = AtomicBool::new(false);
    let outcome = run(&scenario.cases, &scenario.run, 1, &mut factory, &mut |_| {}, &stop);
    assert_eq!(outcome.skips.len(), 3);
}

fn meta() -> RunMeta {
    RunMeta {
        schema_version: crate::record::SCHEMA_VERSION,
        isobench_version: String::new(),
        name: String::new(),
        question: String::new(),
        scenario_toml: String::new(),
        overrides: Vec::new(),
        quick: false,
        seed: 1,
        started_utc: String::new(),
        duration_ns: 0,
        interrupted: false,
    }
}
