//! Experiments: one file a question, behind one trait that the schedule drives.
//!
//! An experiment is made for one case. It prepares once, measures once a block, and gives everything back at the
//! end. It knows nothing of blocks' order, of warm-up or of files: it pushes what it saw into [`Observations`].

pub mod accounting;
pub mod blkio;
pub mod combined;
pub mod cpu;
mod cpus;
pub mod devices;
mod end;
pub mod freezer;
pub mod interference;
pub mod lifecycle;
pub mod memory;
pub mod network;
pub mod pids;
mod place;
mod program;
pub mod startup;
mod subject;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::record::Flags;
use crate::record::enforcement::EnforcementSample;
pub use crate::record::enforcement::Judged;
use crate::record::metric::{self, Metric};
use crate::runtime;
use crate::scenario::{Case, CaseKind};
use crate::sys::clock;

/// One measured value.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Which metric.
    pub metric: &'static Metric,
    /// The position inside the block, counted from 0.
    pub iteration: u32,
    /// The value in the metric's base unit.
    pub value: f64,
    /// When the measured thing began: ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
}

impl Observation {
    /// A value of the block's first iteration, of a metric by its name.
    #[must_use]
    pub fn first(name: &str, value: f64, start_ns: u64) -> Self {
        Self { metric: metric::named(name), iteration: 0, value, start_ns }
    }
}

/// One step of a waterfall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseObservation {
    /// The position inside the block, counted from 0.
    pub iteration: u32,
    /// The phase's name.
    pub phase: &'static str,
    /// When it began: ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// How long it took, in ns.
    pub duration_ns: u64,
}

/// One recorded distribution; the experiment also pushes its median as an [`Observation`].
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramObservation {
    /// Which metric.
    pub metric: &'static Metric,
    /// The position inside the block, counted from 0.
    pub iteration: u32,
    /// The values in the metric's base unit.
    pub histogram: Histogram<u64>,
}

/// One setting of a controller as it was seen: the raw side of an enforcement verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct EnforcementObservation {
    /// The controller, as in `memory`.
    pub controller: &'static str,
    /// The setting, as in `limit`, or with the container it is about, as in `shares/a`.
    pub setting: String,
    /// The base unit of the three values.
    pub unit: &'static str,
    /// The position inside the block, counted from 0.
    pub iteration: u32,
    /// What was written and read back.
    pub requested: f64,
    /// What an independent clock or count inside the workload saw.
    pub achieved: f64,
    /// What the controller's own files say; absent where it keeps no account.
    pub accounted: Option<f64>,
    /// The stated tolerance on the error, in percent of `requested`.
    pub tolerance_pct: f64,
    /// Which of the two is held against `requested`.
    pub judged: Judged,
    /// When it was measured: ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
}

impl EnforcementObservation {
    /// The row in the form of `record`: of a case, in a block, with its marks, timed from the run's start.
    #[must_use]
    pub fn into_sample(self, case: &str, block: u32, flags: Flags, run_start_ns: u64) -> EnforcementSample {
        EnforcementSample {
            case: case.to_owned(),
            controller: self.controller.to_owned(),
            setting: self.setting,
            unit: self.unit.to_owned(),
            block,
            iteration: self.iteration,
            requested: self.requested,
            achieved: self.achieved,
            accounted: self.accounted,
            tolerance_pct: self.tolerance_pct,
            start_ns: self.start_ns.saturating_sub(run_start_ns),
            flags,
            judged: self.judged,
        }
    }
}

/// What one case yielded in one block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observations {
    /// Single values.
    pub values: Vec<Observation>,
    /// Waterfall steps.
    pub phases: Vec<PhaseObservation>,
    /// Distributions.
    pub histograms: Vec<HistogramObservation>,
    /// Enforcement.
    pub enforcement: Vec<EnforcementObservation>,
    /// Those settings of `enforcement` that say nothing against the kernel, since the container was kept from the CPU
    /// for longer than the tolerance allows. They are marked, and never judged to fail.
    pub starved: Vec<String>,
}

impl Observations {
    /// Takes the rows on limits out, in the form of `record`; the settings that were starved are marked.
    pub fn take_enforcement(
        &mut self,
        case: &str,
        block: u32,
        flags: Flags,
        run_start_ns: u64,
    ) -> impl Iterator<Item = EnforcementSample> {
        let starved = std::mem::take(&mut self.starved);
        std::mem::take(&mut self.enforcement).into_iter().map(move |row| {
            let flags = Flags { starved: starved.contains(&row.setting), ..flags };
            row.into_sample(case, block, flags, run_start_ns)
        })
    }
}

/// The user's wish to stop, as seen by an experiment between two iterations.
#[derive(Debug, Clone, Copy)]
pub struct Stop<'a>(pub &'a AtomicBool);

impl Stop<'_> {
    /// Whether to end now.
    #[must_use]
    pub fn requested(self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps until an instant of CLOCK_MONOTONIC, in ns.
    ///
    /// # Errors
    /// When the user asks to stop before.
    pub fn sleep_until(self, at_ns: u64) -> Result<(), Interrupted> {
        loop {
            if self.requested() {
                return Err(Interrupted);
            }
            let left = Duration::from_nanos(at_ns.saturating_sub(clock::now_ns()));
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

/// How long a wait may last before the user's wish to stop is looked at again.
const SLICE: Duration = Duration::from_millis(100);

/// The user asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

impl From<Interrupted> for ExperimentError {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

/// Why a case cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// The host lacks something that the case needs: a named skip, not a failure.
    #[error("{0}")]
    Unsupported(String),
    /// The user asked to stop; what was measured so far counts.
    #[error("interrupted")]
    Interrupted,
    /// Something broke.
    #[error("{doing}")]
    Failed {
        /// What was being done, as in `starting the server container`.
        doing: String,
        /// Why it broke.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ExperimentError {
    /// Names what was being done; made for `map_err`.
    pub fn while_doing<E>(doing: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let doing = doing.into();
        move |source| Self::Failed { doing, source: source.into() }
    }
}

/// One case, ready to be measured again and again.
pub trait Experiment {
    /// Makes what all blocks share (a lab, a peer); measured time has not begun.
    ///
    /// # Errors
    /// [`ExperimentError::Unsupported`] turns the case into a named skip.
    fn prepare(&mut self) -> Result<(), ExperimentError>;

    /// Measures the case once.
    ///
    /// # Errors
    /// When a step fails; what `into` holds by then is kept only for [`ExperimentError::Interrupted`].
    fn measure(&mut self, into: &mut Observations, stop: Stop<'_>) -> Result<(), ExperimentError>;

    /// Gives everything back. Called once after the last block, also after an error.
    ///
    /// # Errors
    /// When something could not be given back.
    fn finish(&mut self) -> Result<(), ExperimentError>;
}

/// The experiment for a case.
///
/// # Errors
/// When the runtime that it names cannot be used on this host.
pub fn for_case(case: &Case) -> Result<Box<dyn Experiment>, ExperimentError> {
    let runtime = |kind| runtime::by_kind(kind).map_err(ExperimentError::while_doing("preparing the runtime"));
    Ok(match &case.kind {
        CaseKind::Startup(case) => {
            let runtime = runtime::on_image(case.runtime, &case.image, case.layers.saturating_sub(1));
            let runtime = runtime.map_err(ExperimentError::while_doing("preparing the runtime"))?;
            Box::new(startup::Startup::new(case.clone(), runtime))
        }
        CaseKind::Cpu(case) => Box::new(cpu::CpuExperiment::new(case.clone(), runtime(case.runtime)?)),
        CaseKind::Network(case) => Box::new(network::NetworkExperiment::new(case.clone(), runtime(case.runtime)?)),
        CaseKind::Memory(case) => Box::new(memory::Memory::new(case.clone(), runtime(case.runtime)?)),
        CaseKind::Pids(case) => Box::new(pids::Pids::new(case.clone(), runtime(case.runtime)?)),
        CaseKind::Freezer(case) => Box::new(freezer::Freezer::new(case.clone(), runtime(case.runtime)?)),
        CaseKind::Blkio(case) => Box::new(blkio::BlkioExperiment::new(case.clone(), runtime(case.runtime)?)),
        CaseKind::Accounting(case) => {
            Box::new(accounting::AccountingExperiment::new(case.clone(), runtime(case.runtime)?))
        }
        CaseKind::Devices(case) => Box::new(devices::Devices::new(case.clone(), runtime(case.runtime)?)),
        CaseKind::Combined(case) => Box::new(combined::Combined::new(case.clone(), runtime(case.runtime)?)),
        CaseKind::Interference(case) => Box::new(interference::Interference::new(case.clone(), runtime(case.runtime)?)),
        CaseKind::Lifecycle(case) => {
            let runtime = runtime::on_image(case.runtime, &case.image, 0);
            let runtime = runtime.map_err(ExperimentError::while_doing("preparing the runtime"))?;
            Box::new(lifecycle::Lifecycle::new(case.clone(), runtime))
        }
    })
}
