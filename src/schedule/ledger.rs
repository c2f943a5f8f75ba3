//! What a run has seen so far, in the form of `record`: times relative to the run's start, samples with their marks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::disturbance::{Disturbance, usual_preemption};
use super::spool::Spool;
use super::{Ended, Outcome, ScheduleError};
use crate::experiment::Observations;
use crate::record::enforcement::EnforcementSample;
use crate::record::{BlockRecord, Flags, HistogramRow, PhaseRow, Sample, Skip, mark_outliers};
use crate::scenario::Case;
use crate::sys::clock;

/// The rows of a run that goes on.
pub(super) struct Ledger {
    start_ns: u64,
    warmup_blocks: u32,
    skips: Vec<Skip>,
    blocks: Vec<BlockRecord>,
    samples: Spool<Sample>,
    phases: Spool<PhaseRow>,
    /// Which cases have yielded anything, and whether in a block that counts.
    yielded: BTreeSet<(String, bool)>,
    histograms: Vec<HistogramRow>,
    enforcement: Vec<EnforcementSample>,
    /// Involuntary switches of each case in each block.
    preemptions: BTreeMap<String, BTreeMap<u32, u64>>,
    /// What could not be given back of cases that were skipped.
    pub(super) cleanup: Vec<ScheduleError>,
}

impl Ledger {
    /// Begins at a moment of CLOCK_MONOTONIC, in ns.
    pub(super) fn new(start_ns: u64, warmup_blocks: u32) -> Self {
        Self {
            start_ns,
            warmup_blocks,
            skips: Vec::new(),
            blocks: Vec::new(),
            samples: Spool::new(),
            phases: Spool::new(),
            yielded: BTreeSet::new(),
            histograms: Vec::new(),
            enforcement: Vec::new(),
            preemptions: BTreeMap::new(),
            cleanup: Vec::new(),
        }
    }

    fn since_start(&self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.start_ns)
    }

    pub(super) fn skip(&mut self, case: &str, reason: String) {
        self.skips.push(Skip { case: case.to_owned(), reason });
    }

    pub(super) fn open_block(&mut self, block: u32) {
        self.blocks.push(BlockRecord {
            block,
            warmup: block < self.warmup_blocks,
            order: Vec::new(),
            start_ns: self.since_start(clock::now_ns()),
            duration_ns: 0,
        });
    }

    /// Ends the open block and says how long it took, in ns. One that was ended before its first case goes away.
    pub(super) fn close_block(&mut self) -> u64 {
        let now_ns = self.since_start(clock::now_ns());
        let Some(block) = self.blocks.last_mut() else { return 0 };
        block.duration_ns = now_ns - block.start_ns;
        let duration_ns = block.duration_ns;
        if block.order.is_empty() {
            self.blocks.pop();
        }
        duration_ns
    }

    /// Keeps what a case yielded in the open block.
    ///
    /// # Errors
    /// When there is no memory left for it.
    pub(super) fn keep(
        &mut self,
        case: &str,
        block: u32,
        mut seen: Observations,
        disturbance: Disturbance,
    ) -> Result<(), ScheduleError> {
        if let Some(open) = self.blocks.last_mut() {
            open.order.push(case.to_owned());
        }
        let flags = Flags {
            warmup: block < self.warmup_blocks,
            steal: disturbance.steal,
            pressure: disturbance.pressure,
            ..Flags::default()
        };
        self.preemptions.entry(case.to_owned()).or_default().insert(block, disturbance.involuntary);
        if !seen.values.is_empty() || !seen.enforcement.is_empty() {
            self.yielded.insert((case.to_owned(), !flags.warmup));
        }
        let start_ns = self.start_ns;
        self.enforcement.extend(seen.take_enforcement(case, block, flags, start_ns));
        let samples = self.samples.extend(seen.values.into_iter().map(|value| Sample {
            case: case.to_owned(),
            metric: value.metric.name.to_owned(),
            unit: value.metric.unit.to_owned(),
            block,
            iteration: value.iteration,
            value: value.value,
            start_ns: value.start_ns.saturating_sub(start_ns),
            flags,
        }));
        let phases = self.phases.extend(seen.phases.into_iter().map(|phase| PhaseRow {
            case: case.to_owned(),
            block,
            iteration: phase.iteration,
            phase: phase.phase.to_owned(),
            start_ns: phase.start_ns.saturating_sub(start_ns),
            duration_ns: phase.duration_ns,
        }));
        self.histograms.extend(seen.histograms.into_iter().map(|row| HistogramRow {
            case: case.to_owned(),
            metric: row.metric.name.to_owned(),
            unit: row.metric.unit.to_owned(),
            block,
            iteration: row.iteration,
            histogram: row.histogram,
            flags,
        }));
        samples.and(phases).map_err(|source| ScheduleError::Keep { case: case.to_owned(), block, source })
    }

    /// Whether there is anything of a case; of warm-up blocks only when these are asked for.
    fn has_yielded(&self, case: &str, even_warmup: bool) -> bool {
        let yielded = |measured| self.yielded.contains(&(case.to_owned(), measured));
        yielded(true) || (even_warmup && yielded(false))
    }

    /// Ends the run of these cases. One without a measured sample is among the skips, with the reason.
    pub(super) fn close(mut self, cases: &[Case], ended: Option<Ended>, cleanup: Vec<ScheduleError>) -> Outcome {
        self.cleanup.extend(cleanup);
        let samples = std::mem::replace(&mut self.samples, Spool::new()).into_rows();
        let mut samples = self.read_back(samples);
        let phases = std::mem::replace(&mut self.phases, Spool::new()).into_rows();
        let phases = self.read_back(phases);
        self.mark_preempted(&mut samples);
        mark_outliers(&mut samples);
        let (interrupted, failure, why_missing) = match ended {
            None => (false, None, "it yielded no value"),
            Some(Ended::Interrupted) => (true, None, "the run was interrupted before it was measured"),
            Some(Ended::Failed(error)) => (false, Some(error), "the run failed before it was measured"),
        };
        for case in cases {
            // What was only warmed up is not summarised, so a reader would miss it without a word.
            let measured = self.has_yielded(&case.id, false);
            if !measured && self.skips.iter().all(|skip| skip.case != case.id) {
                self.skip(&case.id, why_missing.to_owned());
            }
        }
        let seen = cases.iter().filter(|case| self.has_yielded(&case.id, true)).map(Case::record).collect();
        Outcome {
            cases: seen,
            skips: self.skips,
            blocks: self.blocks,
            samples,
            phases,
            histograms: self.histograms,
            enforcement: self.enforcement,
            duration_ns: clock::now_ns().saturating_sub(self.start_ns),
            interrupted,
            failure,
            cleanup: self.cleanup,
        }
    }

    /// The rows of a spool; none, and the reason among what could not be given back, when they are lost.
    fn read_back<Row>(&mut self, rows: io::Result<Vec<Row>>) -> Vec<Row> {
        rows.unwrap_or_else(|source| {
            self.cleanup.push(ScheduleError::ReadBack(source));
            Vec::new()
        })
    }

    /// What is usual for a case is known only at the end.
    fn mark_preempted(&mut self, samples: &mut [Sample]) {
        let preempted: Vec<(String, u32)> = (self.preemptions.iter())
            .flat_map(|(case, blocks)| {
                let measured: Vec<u64> =
                    blocks.iter().filter(|(block, _)| **block >= self.warmup_blocks).map(|(_, count)| *count).collect();
                let bound = usual_preemption(&measured);
                blocks
                    .iter()
                    .filter(move |(_, count)| **count as f64 > bound)
                    .map(|(block, _)| (case.clone(), *block))
                    .collect::<Vec<_>>()
            })
            .collect();
        let hit = |case: &str, block: u32| preempted.iter().any(|(name, number)| name == case && *number == block);
        for sample in samples {
            sample.flags.preempted = hit(&sample.case, sample.block);
        }
        for row in &mut self.histograms {
            row.flags.preempted = hit(&row.case, row.block);
        }
    }
}
