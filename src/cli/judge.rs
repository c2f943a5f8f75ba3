//! From a measured (or read) run to its summary, its checks and its report: what `run` and `report` share.

use std::path::Path;

use super::error::CliError;
use super::result::Judged;
use crate::gate::{checks, enforcement};
use crate::record::{RunRecord, directory, summary};
use crate::report;
use crate::scenario::Scenario;

/// Summarises and judges a run that has just been measured, and writes its whole directory.
pub(super) fn judge(record: RunRecord, scenario: &Scenario, directory: &Path) -> Result<Judged, CliError> {
    let judged = derive(record, scenario, directory);
    directory::write_all(&judged.record, &judged.summary, &judged.checks, directory)?;
    report::render(&judged.record, &judged.summary, &judged.checks, directory)?;
    Ok(judged)
}

/// Summarises and judges a run that was read back, and writes what is derived from its raw data.
pub(super) fn judge_again(record: RunRecord, scenario: &Scenario, directory: &Path) -> Result<Judged, CliError> {
    let judged = derive(record, scenario, directory);
    directory::write_derived(&judged.record, &judged.summary, &judged.checks, directory)?;
    report::render(&judged.record, &judged.summary, &judged.checks, directory)?;
    Ok(judged)
}

fn derive(record: RunRecord, scenario: &Scenario, directory: &Path) -> Judged {
    let summary = summary::summarise(&record);
    let mut checks = checks::evaluate(&scenario.checks, &summary, &record.skips);
    checks.extend(enforcement::evaluate(&record.enforcement, &scenario.unenforced));
    let answers = report::answers(&record, &summary);
    Judged { directory: directory.to_owned(), record, summary, checks, answers }
}
