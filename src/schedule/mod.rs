//! Blocks: every case once a block in a shuffled order, warm-up blocks first, each sample with its marks.
//!
//! The schedule knows experiments by their trait alone; the command line hands it a factory and shows its events.
//! Whatever happens (an error, Ctrl-C), what was measured so far is kept and everything is given back.

use std::sync::atomic::AtomicBool;

use crate::experiment::{Experiment, ExperimentError, Observations, Stop};
use crate::record::enforcement::{EnforcementSample, judge};
use crate::record::{BlockRecord, CaseRecord, Fingerprint, HistogramRow, PhaseRow, RunMeta, RunRecord, Sample, Skip};
use crate::scenario::{Case, RunSettings};
use crate::sys::clock;

pub use event::Event;
pub use order::block_order;

use ledger::Ledger;

pub mod disturbance;
mod event;
mod ledger;
mod order;
mod spool;
#[cfg(test)]
mod tests;

/// Makes the experiment of a case.
pub type Factory<'a> = dyn FnMut(&Case) -> Result<Box<dyn Experiment>, ExperimentError> + 'a;

/// Is told of every step.
pub type Observer<'a> = dyn FnMut(Event<'_>) + 'a;

/// What went wrong, with which case.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// What the blocks of a case share could not be made.
    #[error("cannot prepare {case}")]
    Prepare {
        /// The case's id.
        case: String,
        /// Why.
        #[source]
        source: ExperimentError,
    },
    /// A case broke while it was measured.
    #[error("{case} failed in block {block}")]
    Measure {
        /// The case's id.
        case: String,
        /// The block, warm-up blocks first, from 0.
        block: u32,
        /// Why.
        #[source]
        source: ExperimentError,
    },
    /// What a case yielded could not be kept.
    #[error("cannot keep what {case} yielded in block {block}")]
    Keep {
        /// The case's id.
        case: String,
        /// The block, warm-up blocks first, from 0.
        block: u32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What was kept could not be read back at the end.
    #[error("cannot read back what was measured")]
    ReadBack(#[source] std::io::Error),
    /// Something that a case used could not be given back.
    #[error("cannot clean up after {case}")]
    Finish {
        /// The case's id.
        case: String,
        /// Why.
        #[source]
        source: ExperimentError,
    },
}

/// What came out of a run, whole or not.
#[derive(Debug)]
pub struct Outcome {
    /// The cases of which there is at least one sample, if only of a warm-up block.
    pub cases: Vec<CaseRecord>,
    /// What was not measured (or only warmed up), and why.
    pub skips: Vec<Skip>,
    /// How each block went; the last may hold only some of the cases.
    pub blocks: Vec<BlockRecord>,
    /// Every raw value.
    pub samples: Vec<Sample>,
    /// Every waterfall step.
    pub phases: Vec<PhaseRow>,
    /// Every recorded distribution.
    pub histograms: Vec<HistogramRow>,
    /// Every enforcement measurement.
    pub enforcement: Vec<EnforcementSample>,
    /// From the first preparation to the last thing given back, in ns.
    pub duration_ns: u64,
    /// Whether the user ended it before its last block.
    pub interrupted: bool,
    /// What ended it before its last block.
    pub failure: Option<ScheduleError>,
    /// What could not be given back.
    pub cleanup: Vec<ScheduleError>,
}

impl Outcome {
    /// The whole run, with how it was asked for and where it ran. `meta.duration_ns` and `meta.interrupted` are set
    /// here; a run that a failure ended counts as interrupted too, since blocks are missing.
    #[must_use]
    pub fn into_record(self, meta: RunMeta, fingerprint: Fingerprint) -> RunRecord {
        let seed = meta.seed;
        RunRecord {
            meta: RunMeta {
                duration_ns: self.duration_ns,
                interrupted: self.interrupted || self.failure.is_some(),
                ..meta
            },
            fingerprint,
            cases: self.cases,
            skips: self.skips,
            blocks: self.blocks,
            samples: self.samples,
            phases: self.phases,
            histograms: self.histograms,
            enforcement: judge(&self.enforcement, seed),
            enforcement_samples: self.enforcement,
        }
    }
}

/// How a part of a run ended early.
enum Ended {
    Interrupted,
    Failed(ScheduleError),
}

/// A case with its experiment; none when it is skipped or was not reached.
struct Slot<'a> {
    case: &'a Case,
    experiment: Option<Box<dyn Experiment>>,
}

/// Runs the cases in blocks.
///
/// `seed` fixes the order inside the blocks. A case whose experiment is [`ExperimentError::Unsupported`] becomes a
/// [`Skip`]; any other error ends the run, and is in the outcome beside what was measured until then. `stop` is
/// looked at before each case, and by the experiments between two iterations.
pub fn run(
    cases: &[Case],
    settings: &RunSettings,
    seed: u64,
    factory: &mut Factory<'_>,
    observer: &mut Observer<'_>,
    stop: &AtomicBool,
) -> Outcome {
    let stop = Stop(stop);
    let mut ledger = Ledger::new(clock::now_ns(), settings.warmup_blocks);
    let mut slots: Vec<Slot<'_>> = cases.iter().map(|case| Slot { case, experiment: None }).collect();
    let ended = prepare(&mut slots, factory, observer, &mut ledger, stop)
        .and_then(|()| run_blocks(&mut slots, settings, seed, observer, &mut ledger, stop));
    observer(Event::Finishing);
    let cleanup = finish(slots);
    ledger.close(cases, ended.err(), cleanup)
}

fn prepare(
    slots: &mut [Slot<'_>],
    factory: &mut Factory<'_>,
    observer: &mut Observer<'_>,
    ledger: &mut Ledger,
    stop: Stop<'_>,
) -> Result<(), Ended> {
    let total = slots.len();
    for (index, slot) in slots.iter_mut().enumerate() {
        let case = slot.case.id.as_str();
        if stop.requested() {
            return Err(Ended::Interrupted);
        }
        observer(Event::Preparing { case, index, total });
        let prepared = factory(slot.case).and_then(|mut experiment| {
            let prepared = experiment.prepare();
            // Kept even when it failed half-way, so that `finish` gives back what it had made.
            slot.experiment = Some(experiment);
            prepared
        });
        match prepared {
            Ok(()) => {}
            Err(ExperimentError::Unsupported(reason)) => {
                observer(Event::Skipped { case, reason: &reason });
                ledger.skip(case, reason);
                if let Some(experiment) = slot.experiment.take() {
                    ledger.cleanup.extend(give_back(case, experiment).err());
                }
            }
            Err(ExperimentError::Interrupted) => return Err(Ended::Interrupted),
            Err(_) if stop.requested() => return Err(Ended::Interrupted),
            Err(source) => return Err(Ended::Failed(ScheduleError::Prepare { case: case.to_owned(), source })),
        }
    }
    Ok(())
}

fn run_blocks(
    slots: &mut [Slot<'_>],
    settings: &RunSettings,
    seed: u64,
    observer: &mut Observer<'_>,
    ledger: &mut Ledger,
    stop: Stop<'_>,
) -> Result<(), Ended> {
    if slots.iter().all(|slot| slot.experiment.is_none()) {
        return Ok(());
    }
    let total = settings.warmup_blocks + settings.blocks;
    for block in 0..total {
        if stop.requested() {
            return Err(Ended::Interrupted);
        }
        observer(Event::BlockStarted { block, total, warmup: block < settings.warmup_blocks });
        ledger.open_block(block);
        let ended = run_block(slots, &block_order(seed, block, slots.len()), block, observer, ledger, stop);
        let duration_ns = ledger.close_block();
        ended?;
        observer(Event::BlockFinished { block, duration_ns });
    }
    Ok(())
}

fn run_block(
    slots: &mut [Slot<'_>],
    order: &[usize],
    block: u32,
    observer: &mut Observer<'_>,
    ledger: &mut Ledger,
    stop: Stop<'_>,
) -> Result<(), Ended> {
    for &index in order {
        let Slot { case, experiment: Some(experiment) } = &mut slots[index] else { continue };
        let case = case.id.as_str();
        if stop.requested() {
            return Err(Ended::Interrupted);
        }
        observer(Event::CaseStarted { block, case });
        let mut seen = Observations::default();
        let before = disturbance::Reading::take();
        let started_ns = clock::now_ns();
        let measured = experiment.measure(&mut seen, stop);
        let duration_ns = clock::now_ns() - started_ns;
        let disturbance = before
            .and_then(|before| disturbance::Reading::take().map(|after| before.until(&after)))
            .unwrap_or_default();
        match measured {
            Ok(()) => {
                let disturbed = disturbance.steal || disturbance.pressure;
                observer(Event::CaseMeasured { block, case, values: &seen.values, duration_ns, disturbed });
                ledger.keep(case, block, seen, disturbance).map_err(Ended::Failed)?;
            }
            Err(ExperimentError::Interrupted) => {
                ledger.keep(case, block, seen, disturbance).map_err(Ended::Failed)?;
                return Err(Ended::Interrupted);
            }
            // Ctrl-C reaches everything that the terminal started: what breaks after it breaks because of it.
            Err(_) if stop.requested() => return Err(Ended::Interrupted),
            Err(source) => {
                return Err(Ended::Failed(ScheduleError::Measure { case: case.to_owned(), block, source }));
            }
        }
    }
    Ok(())
}

/// Gives everything back, the last made first, and goes on after an error.
fn finish(slots: Vec<Slot<'_>>) -> Vec<ScheduleError> {
    let held = slots.into_iter().rev().filter_map(|slot| slot.experiment.map(|experiment| (slot.case, experiment)));
    held.filter_map(|(case, experiment)| give_back(&case.id, experiment).err()).collect()
}

fn give_back(case: &str, mut experiment: Box<dyn Experiment>) -> Result<(), ScheduleError> {
    experiment.finish().map_err(|source| ScheduleError::Finish { case: case.to_owned(), source })
}
