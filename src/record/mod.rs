//! What a run is: cases, raw samples, phases, histograms, enforcement rows, the host it ran on.
//!
//! The schedule fills a [`RunRecord`]; `report` and `gate` are functions of it. Everything derived (summaries,
//! ratios, verdicts) is recomputed from the raw rows by [`summary::summarise`], never trusted from a file.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub mod directory;
pub mod enforcement;
pub mod fingerprint;
#[cfg(test)]
pub(crate) mod fixture;
pub mod metric;
mod outliers;
mod rows;
pub mod summary;
mod table;

pub use outliers::mark_outliers;

/// The version of the run directory's layout; raised when a reader of the old one would misread the new one.
pub const SCHEMA_VERSION: u32 = 1;

/// One thing that was measured: a point of an experiment's matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseRecord {
    /// The stable name, as in `startup/builtin/bridge/c1`.
    pub id: String,
    /// The experiment's kind, as in `startup`.
    pub experiment: String,
    /// The runtime under test, as in `builtin`; empty where none takes part.
    pub runtime: String,
    /// The network mode, as in `bridge`; empty where it does not matter.
    pub network: String,
    /// The remaining dimensions in the order that the scenario's documentation gives.
    pub parameters: BTreeMap<String, String>,
    /// The case that ratios are made to, in the same block.
    pub baseline: Option<String>,
}

/// Marks on a sample; they tell a reader which samples not to lean on. None of them removes a sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Flags {
    /// Taken in a warm-up block; kept, never summarised.
    pub warmup: bool,
    /// The hypervisor took CPU time away while it was measured.
    pub steal: bool,
    /// The kernel reported CPU pressure from outside the run (PSI `some`).
    pub pressure: bool,
    /// The harness itself was switched out against its will more often than usual.
    pub preempted: bool,
    /// The value lies outside Tukey's far fences of its case.
    pub outlier: bool,
    /// The container was kept from the CPU for longer than the setting's tolerance allows.
    pub starved: bool,
}

impl Flags {
    const NAMES: [&'static str; 6] = ["warmup", "steal", "pressure", "preempted", "outlier", "starved"];

    fn as_array(self) -> [bool; 6] {
        [self.warmup, self.steal, self.pressure, self.preempted, self.outlier, self.starved]
    }

    /// The marks that either has.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            warmup: self.warmup || other.warmup,
            steal: self.steal || other.steal,
            pressure: self.pressure || other.pressure,
            preempted: self.preempted || other.preempted,
            outlier: self.outlier || other.outlier,
            starved: self.starved || other.starved,
        }
    }

    /// Whether the machine was disturbed while the sample was taken.
    #[must_use]
    pub fn disturbed(self) -> bool {
        self.steal || self.pressure || self.preempted
    }
}

impl fmt::Display for Flags {
    /// The set marks joined by `|`; empty when there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, set) in Self::NAMES.iter().zip(self.as_array()) {
            if set {
                f.write_str(if first { "" } else { "|" })?;
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }
}

impl FromStr for Flags {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut flags = Self::default();
        for word in text.split('|').filter(|word| !word.is_empty()) {
            match word {
                "warmup" => flags.warmup = true,
                "steal" => flags.steal = true,
                "pressure" => flags.pressure = true,
                "preempted" => flags.preempted = true,
                "outlier" => flags.outlier = true,
                "starved" => flags.starved = true,
                other => return Err(format!("unknown flag `{other}`; known are {}", Self::NAMES.join(", "))),
            }
        }
        Ok(flags)
    }
}

impl From<Flags> for String {
    fn from(flags: Flags) -> Self {
        flags.to_string()
    }
}

impl TryFrom<String> for Flags {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// One raw value, as it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The case's id.
    pub case: String,
    /// The metric's name, one of [`metric::METRICS`].
    pub metric: String,
    /// The metric's base unit.
    pub unit: String,
    /// The block, counted from 0 with warm-up blocks first.
    pub block: u32,
    /// The position inside the block, counted from 0.
    pub iteration: u32,
    /// The value in the base unit.
    pub value: f64,
    /// When the measured thing began: ns of CLOCK_MONOTONIC since the run's start.
    pub start_ns: u64,
    /// Marks.
    pub flags: Flags,
}

/// One step of a waterfall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseRow {
    /// The case's id.
    pub case: String,
    /// The block, as in [`Sample::block`].
    pub block: u32,
    /// The position inside the block, as in [`Sample::iteration`].
    pub iteration: u32,
    /// The phase's name, as in `overlay`; phases of one iteration follow each other without gaps.
    pub phase: String,
    /// When it began: ns of CLOCK_MONOTONIC since the run's start.
    pub start_ns: u64,
    /// How long it took, in ns.
    pub duration_ns: u64,
}

/// A distribution that was recorded as a histogram, because single values are too many to keep.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramRow {
    /// The case's id.
    pub case: String,
    /// The metric's name; its samples in `samples.csv` are the block's medians.
    pub metric: String,
    /// The metric's base unit.
    pub unit: String,
    /// The block, as in [`Sample::block`].
    pub block: u32,
    /// The position inside the block, as in [`Sample::iteration`].
    pub iteration: u32,
    /// The values in the base unit.
    pub histogram: hdrhistogram::Histogram<u64>,
    /// Marks.
    pub flags: Flags,
}

/// What was asked of a controller, what happened, and what the controller's files say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnforcementRow {
    /// The case's id.
    pub case: String,
    /// The controller, as in `memory`.
    pub controller: String,
    /// The setting, as in `limit`.
    pub setting: String,
    /// What was written and read back, in `unit`.
    pub requested: f64,
    /// What an independent clock or count inside the workload saw.
    pub achieved: f64,
    /// What the controller's own files say; absent where it keeps no account.
    pub accounted: Option<f64>,
    /// The base unit of the three.
    pub unit: String,
    /// `(achieved - requested) / requested`, in percent.
    pub error_pct: f64,
    /// The lower end of its 95 % interval.
    pub error_ci95_low: f64,
    /// The upper end of its 95 % interval.
    pub error_ci95_high: f64,
    /// `(accounted - achieved) / achieved`, in percent.
    pub accounting_error_pct: Option<f64>,
    /// The stated tolerance on the error, in percent.
    pub tolerance_pct: f64,
    /// The judgement.
    pub verdict: Verdict,
    /// The marks of the blocks that it was made from, joined; `starved` is the reason why a row could not be judged.
    pub flags: Flags,
}

/// A judgement on one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The bound holds.
    Pass,
    /// The bound does not hold.
    Fail,
    /// The interval reaches over the bound, so that the data cannot tell.
    Inconclusive,
    /// Not measured; the reason stands among the run's skips.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Skipped => "skipped",
        })
    }
}

/// One row of `checks.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRow {
    /// The check's name: its position and bound as in the scenario, for instance `throughput min_ratio`.
    pub check: String,
    /// The case it was applied to.
    pub case: String,
    /// The metric.
    pub metric: String,
    /// The value that was judged (a ratio or a base-unit value); absent when it was skipped.
    pub value: Option<f64>,
    /// The bound, as text: `>= 0.5`.
    pub bound: String,
    /// The judgement.
    pub verdict: Verdict,
}

/// Something that was not measured, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The case (or the pattern of cases).
    pub case: String,
    /// The reason, in words.
    pub reason: String,
}

/// How one block went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// The block's number, warm-up blocks first.
    pub block: u32,
    /// Whether it was for warming up.
    pub warmup: bool,
    /// The case ids in the order in which they ran.
    pub order: Vec<String>,
    /// When it began: ns of CLOCK_MONOTONIC since the run's start.
    pub start_ns: u64,
    /// How long it took, in ns.
    pub duration_ns: u64,
}

/// How the harness was asked to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunMeta {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The version of isobench that measured.
    pub isobench_version: String,
    /// The scenario's name.
    pub name: String,
    /// The scenario's question.
    pub question: String,
    /// The scenario's text as it was read.
    pub scenario_toml: String,
    /// `--set` overrides, in order.
    pub overrides: Vec<String>,
    /// Whether `--quick` was given.
    pub quick: bool,
    /// The seed of the block orders and of the bootstrap.
    pub seed: u64,
    /// When the run began, RFC 3339 in UTC.
    pub started_utc: String,
    /// How long measuring took, in ns.
    pub duration_ns: u64,
    /// Whether it was ended before its last block.
    pub interrupted: bool,
}

/// The machine that was measured; what one needs to tell whether two runs can be compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Facts by name, in a fixed order: `kernel`, `architecture`, `cpu_model`, `cpus`, `memory_bytes`, `cgroup`, ….
    pub facts: BTreeMap<String, String>,
}

/// A whole run: everything that was measured, raw.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// How it was asked to run.
    pub meta: RunMeta,
    /// Where it ran.
    pub fingerprint: Fingerprint,
    /// What was measured.
    pub cases: Vec<CaseRecord>,
    /// What was not, and why.
    pub skips: Vec<Skip>,
    /// How each block went.
    pub blocks: Vec<BlockRecord>,
    /// Every raw value.
    pub samples: Vec<Sample>,
    /// Every waterfall step.
    pub phases: Vec<PhaseRow>,
    /// Every recorded distribution.
    pub histograms: Vec<HistogramRow>,
    /// Every enforcement measurement, raw.
    pub enforcement_samples: Vec<enforcement::EnforcementSample>,
    /// Every enforcement judgement; made of the raw ones.
    pub enforcement: Vec<EnforcementRow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_survive_a_round_trip() {
        let flags = Flags { warmup: true, preempted: true, ..Flags::default() };
        assert_eq!(flags.to_string(), "warmup|preempted");
        assert_eq!("warmup|preempted".parse(), Ok(flags));
        assert_eq!("".parse(), Ok(Flags::default()));
        assert!("warm".parse::<Flags>().unwrap_err().contains("known are"));
    }
}
