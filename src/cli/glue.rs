//! Where `run` and `report` meet the experiments, the record's files, the checks and the report.

use std::path::Path;

use super::error::CliError;
use super::result::Judged;
use crate::experiment::{Experiment, ExperimentError};
use crate::record::{Fingerprint, RunRecord, summary};
use crate::scenario::{Case, Scenario};

/// The experiment of a case.
pub(super) fn experiment_for(case: &Case) -> Result<Box<dyn Experiment>, ExperimentError> {
    Err(ExperimentError::Unsupported(format!("this build has no {} experiment", case.kind.experiment())))
}

/// The machine that is measured.
pub(super) fn fingerprint() -> Fingerprint {
    Fingerprint::default()
}

/// Summarises and judges a run, and writes its directory.
pub(super) fn judge(record: RunRecord, scenario: &Scenario, directory: &Path) -> Result<Judged, CliError> {
    let _ = scenario;
    let summary = summary::summarise(&record);
    Ok(Judged { directory: directory.to_owned(), record, summary, checks: Vec::new(), answers: Vec::new() })
}
